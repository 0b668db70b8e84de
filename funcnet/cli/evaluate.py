"""funcnet evaluate."""

import argparse
from typing import Any

import funcnet as fn
from funcnet import _check, recipes
from funcnet.cli.data import (
    fingerprint,
    load_dataset,
    load_run,
)
from funcnet.cli.options import (
    SPLITS,
    VIEWS,
    add_run_options,
    listed,
    name_among,
)
from funcnet.cli.parser import add_command
from funcnet.losses import LOSSES


def add(commands: Any) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "measure the accuracy of a trained network",
        "",
        ("evaluate runs/digits", "evaluate runs/digits --split val --model last"),
    )
    add_run_options(parser)
    parser.add_argument(
        "--split",
        type=name_among("split", SPLITS),
        default="test",
        metavar="NAME",
        help=listed(SPLITS),
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where CIFAR-10 is; as in training if not given"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    config, model = load_run(args.run_directory, args.model)
    if args.data_dir is not None:
        if config["dataset"] != "cifar10":
            raise ValueError(f"--data-dir is for cifar10, not for {config['dataset']}")
        config["data_dir"] = args.data_dir
    dataset = load_dataset(config)
    if "data_sha256" in config and config["data_sha256"] != fingerprint(dataset):
        raise ValueError(
            f"{config['dataset']} has changed since the run, and with it the {args.split} split"
        )
    dataset = recipes.first(dataset, config["num_train"], "--num-train")
    x, y = getattr(dataset, f"x_{args.split}"), getattr(dataset, f"y_{args.split}")
    if not len(x):
        raise ValueError(f"the {args.split} split of {config['dataset']} is empty")
    views = VIEWS if args.tta else None
    result = fn.evaluate(model, x, y, loss_fn=LOSSES[config["loss"]], views=views)
    averaged = f", averaged over {result.views} views" if args.tta else ""
    print(
        f"{args.split} accuracy {100 * result.accuracy:.2f} %{averaged}, loss {result.loss:.4f} "
        f"({_check.plural(len(x), 'example')}, {args.model} model of {args.run_directory})"
    )
    return 0
