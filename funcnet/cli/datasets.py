"""funcnet datasets."""

import argparse
from typing import Any

import funcnet as fn
from funcnet.cli.options import (
    add_data_dir,
    name_among,
)
from funcnet.cli.parser import add_command
from funcnet.datasets import find_cifar10


def add(commands: Any) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "datasets",
        run,
        "list the datasets, or download one",
        "Nothing is downloaded unless asked for.",
        ("datasets", "datasets download cifar10"),
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=name_among("action", ("list", "download")),
        default="list",
        metavar="ACTION",
        help="list or download",
    )
    parser.add_argument(
        "name",
        nargs="?",
        type=name_among("dataset to download", ("cifar10",)),
        default="cifar10",
        metavar="NAME",
        help="what to download: cifar10",
    )
    add_data_dir(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if args.action == "download":
        print(f"CIFAR-10 is in {fn.download_cifar10(args.data_dir)}")
        return 0
    found = find_cifar10(args.data_dir)
    where = f"in {found}" if found else "not found: funcnet datasets download cifar10"
    print("digits   1,797 handwritten digits, 8 x 8, 10 classes   built in")
    print(f"cifar10  60,000 colour images, 32 x 32, 10 classes     {where}")
    print("a file   your own .npz (x, y) or .csv: give its path as --dataset")
    return 0
