"""funcnet datasets."""

import argparse
from typing import Any

from funcnet.cli.options import listed, name_among
from funcnet.cli.parser import add_command
from funcnet.config import Config
from funcnet.datasets.registry import DATASETS
from funcnet.text import aligned

DOWNLOADS = [name for name, source in DATASETS.items() if source.download is not None]


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "datasets",
        run,
        "list the datasets, or download one",
        "Nothing is downloaded unless asked for.",
        ("datasets", "datasets download cifar10"),
        arguments="[ACTION] [NAME]",
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=name_among("action", ("list", "download")),
        default="list",
        metavar="ACTION",
        help="list or download (default: %(default)s)",
    )
    parser.add_argument(
        "name",
        nargs="?",
        type=name_among("dataset to download", DOWNLOADS),
        default=DOWNLOADS[0],
        metavar="NAME",
        help=f"what to download: {listed(DOWNLOADS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where downloaded data are; if not given $FUNCNET_DATA, else the user's cache",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if args.action == "download":
        source = DATASETS[args.name]
        assert source.download is not None  # the parser lets no other name through
        print(f"{source.title} is in {source.download(args.data_dir)}")
        return 0
    lines = [(name, source.about, _where(name, args.data_dir)) for name, source in DATASETS.items()]
    lines.append(("a file", "your own .npz (x, y) or .csv: give its path as --dataset", ""))
    for line in aligned(lines):
        print(line)
    return 0


def _where(name: str, data_dir: str | None) -> str:
    source = DATASETS[name]
    if source.find is None:
        return "built in"
    found = source.find(data_dir)
    return f"in {found}" if found else f"not found: funcnet datasets download {name}"
