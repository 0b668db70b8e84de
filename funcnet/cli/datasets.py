"""funcnet datasets."""

import argparse
from typing import Any

from funcnet import checks
from funcnet.cli.describe import shown
from funcnet.cli.options import add_file_options, given_options, listed, name_among
from funcnet.cli.parser import add_command
from funcnet.cli.records import noted
from funcnet.config import Config
from funcnet.datasets.registry import DATASETS, FILE_OPTIONS
from funcnet.option import option
from funcnet.text import aligned

DOWNLOADS = [name for name, source in DATASETS.items() if source.download is not None]


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "datasets",
        run,
        "list the datasets, show one or a file of your own, or download one",
        "Nothing is downloaded unless asked for, and nothing is trained: show says what is in a "
        "file, and what training would make of it.",
        ("datasets", "datasets show penguins.csv", "datasets download cifar10"),
        arguments="[ACTION] [NAME]",
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=name_among("action", ("list", "show", "download")),
        default="list",
        metavar="ACTION",
        help="list, show or download (default: %(default)s)",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help=f"what to show: {listed(DATASETS)}, or a file; or to download: {listed(DOWNLOADS)}",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where downloaded data are; if not given $FUNCNET_DATA, else the user's cache",
    )
    names = [name for name in FILE_OPTIONS if name != "seed"]
    add_file_options(parser.add_argument_group("of a file to show"), names)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    given = given_options(args)
    given.pop("data_dir", None)
    if given and args.action != "show":
        raise ValueError(f"{option(next(iter(given)))} is for show, not for {args.action}")
    if args.action == "show":
        if args.name is None:
            raise ValueError("show what? give the name of a dataset, or the path of a file")
        with noted():
            lines = shown(args.name, args.data_dir, given)
        for line in lines:
            print(line)
        return 0
    if args.action == "list" and args.name is not None:
        raise ValueError(f"list takes no name: funcnet datasets show {args.name}")
    if args.action == "download":
        name = args.name or DOWNLOADS[0]
        if name not in DOWNLOADS:
            raise ValueError(checks.unknown("dataset to download", name, DOWNLOADS))
        source = DATASETS[name]
        assert source.download is not None  # the parser lets no other name through
        print(f"{source.title} is in {source.download(args.data_dir)}")
        return 0
    rows = [(name, source.about, _where(name, args.data_dir)) for name, source in DATASETS.items()]
    rows.append(("a file", "your own table, .npz or folder: give its path as --dataset", ""))
    for line in aligned(rows):
        print(line)
    return 0


def _where(name: str, data_dir: str | None) -> str:
    source = DATASETS[name]
    if source.find is None:
        return "built in"
    found = source.find(data_dir)
    return f"in {found}" if found else f"not found: funcnet datasets download {name}"
