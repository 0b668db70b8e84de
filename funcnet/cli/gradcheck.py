"""funcnet gradcheck."""

import argparse
from typing import Any

import jax

import funcnet as fn
from funcnet import _check, recipes
from funcnet.cli.data import (
    load_dataset,
    make_config,
)
from funcnet.cli.options import (
    add_data_options,
    add_net_options,
)
from funcnet.cli.parser import add_command
from funcnet.losses import LOSSES
from funcnet.step import fit_preprocess


def add(commands: Any) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "gradcheck",
        run,
        "check the hand-written gradients of a network",
        "Every element against autodiff, and up to --max-elements of each array against "
        "numerical differentiation, in float64, at random parameters. Exit code 1 if they "
        "disagree.",
        ("gradcheck", "gradcheck --hidden 20 30 40 --loss svm --reg 3.14"),
    )
    add_data_options(parser)
    add_net_options(parser)
    group = parser.add_argument_group("check")
    group.add_argument(
        "--num-examples", type=int, default=5, metavar="N", help="examples in the batch"
    )
    group.add_argument(
        "--max-elements",
        type=int,
        default=1000,
        metavar="N",
        help="elements per parameter array that are checked numerically, spread evenly",
    )
    parser.set_defaults(**recipes.DEFAULTS)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    _check.COUNT.check("--num-examples", args.num_examples)
    _check.COUNT.check("--max-elements", args.max_elements)
    config = make_config(args)
    dataset = load_dataset(config)
    net = recipes.build_net(config, len(dataset.class_names))
    batch = recipes.first(dataset, args.num_examples, "--num-examples")
    x, y = batch.x_train, batch.y_train
    seed_key = jax.random.key(args.seed)
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
            reg=args.reg,
            key=key,
            loss_fn=LOSSES[args.loss],
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
