"""funcnet gradcheck."""

import argparse
from typing import Any

import jax

import funcnet as fn
from funcnet import checks, recipes
from funcnet.cli.options import add_config_options
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_data, make_config
from funcnet.config import Config
from funcnet.datasets.dataset import first
from funcnet.defaults import complete_config
from funcnet.inputs import fit_preprocess
from funcnet.targets import fit_targets, outputs_of


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "gradcheck",
        run,
        "check the hand-written gradients of a network",
        "Every element against autodiff, and up to --max-elements of each array against "
        "numerical differentiation, in float64, at random parameters. Exit code 1 if they "
        "disagree.",
        ("gradcheck", "gradcheck --hidden-dims 20 30 40 --loss svm --reg 3.14"),
    )
    add_config_options(parser, base, takes=lambda known: known.gradcheck)
    group = parser.add_argument_group("check")
    group.add_argument(
        "--num-examples",
        type=int,
        default=5,
        metavar="N",
        help="examples in the batch (default: %(default)s)",
    )
    group.add_argument(
        "--max-elements",
        type=int,
        default=1000,
        metavar="N",
        help="elements per parameter array that are checked numerically, spread evenly "
        "(default: %(default)s)",
    )
    parser.set_defaults(base=base)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    checks.COUNT.check("--num-examples", args.num_examples)
    checks.COUNT.check("--max-elements", args.max_elements)
    config = make_config(args)
    dataset = load_data(config)
    config = complete_config(config, dataset)
    loss_fn = recipes.build_loss(config)
    net = recipes.build_net(config, outputs_of(dataset, loss_fn), recipes.numbers_of(dataset))
    batch = first(dataset, args.num_examples, "--num-examples")
    x, y = batch.x_train[:], fit_targets(dataset, loss_fn).encode(batch.y_train[:])
    seed_key = jax.random.key(config.seed)
    with jax.enable_x64(True):
        preprocess = fit_preprocess(recipes.build_preprocess(config), dataset.x_train)
        inputs = preprocess(x)
        init_key, noise_key, key = jax.random.split(seed_key, 3)
        params, state, _ = net.init(init_key, inputs.shape[1:])
        params = _off_the_kinks(noise_key, params)
        check = fn.check_gradients(
            net,
            params,
            state,
            inputs,
            y,
            reg=config.reg,
            key=key,
            loss_fn=loss_fn,
            max_elements=args.max_elements,
        )
    print(check)
    return 0 if check.passed else 1


def _off_the_kinks(key: jax.Array, params: Any) -> Any:
    """Biases that are not 0: behind a dead unit a bias of 0 puts ReLU exactly on its kink."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + 0.01 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)
