"""funcnet datasets."""

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import funcnet as fn
from funcnet import checks
from funcnet.cli.console import interrupts
from funcnet.cli.describe import shown
from funcnet.cli.options import NameAmong, add_file_options, given_options, listed
from funcnet.cli.parser import add_command
from funcnet.cli.records import noted
from funcnet.config import Config
from funcnet.datasets.registry import DATASETS, FILE_OPTIONS
from funcnet.datasets.shard_files import read_forms, read_manifest
from funcnet.option import option
from funcnet.text import aligned

DOWNLOADS = [name for name, source in DATASETS.items() if source.download is not None]


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "datasets",
        run,
        "list the datasets, show one or a file of your own, convert a file, or download one",
        "Nothing is downloaded unless asked for, and nothing is trained: show says what is in a "
        "file, and what training would make of it. convert makes a directory of shards of a file "
        "or folder, which may be larger than the memory; the directory is trained on like a file.",
        (
            "datasets",
            "datasets show penguins.csv",
            "datasets convert clicks.csv clicks-shards --label clicked",
            "datasets download cifar10",
        ),
        arguments="[ACTION] [NAME] [OUT]",
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=NameAmong("action", ("list", "show", "convert", "download")),
        default="list",
        metavar="ACTION",
        help="list, show, convert or download (default: %(default)s)",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help=f"what to show: {listed(DATASETS)}, or a file; the file or folder to convert; or "
        f"what to download: {listed(DOWNLOADS)}",
    )
    parser.add_argument(
        "out", nargs="?", metavar="OUT", help="the directory of shards that convert makes"
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where downloaded data are; if not given $FUNCNET_DATA, else the user's cache",
    )
    names = [name for name in FILE_OPTIONS if name != "seed"]
    add_file_options(parser.add_argument_group("of a file to show or to convert"), names)
    add = parser.add_argument_group(
        "to convert",
        "Examples go to validation and testing by chance, so that --val-fraction and "
        "--test-fraction hold about; --split-by takes a column of train, val and test alone.",
    ).add_argument
    add("--overwrite", action="store_true", help="replace an earlier directory of shards in OUT")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    given = given_options(args)
    given.pop("data_dir", None)
    if given and args.action not in ("show", "convert"):
        what = option(next(iter(given)))
        raise ValueError(f"{what} is for show and convert, not for {args.action}")
    if "memory_map" in given and args.action == "convert":
        raise ValueError("--memory-map is for show, not for convert, which holds no examples")
    for name in ("overwrite", "quiet"):
        if getattr(args, name) and args.action != "convert":
            raise ValueError(f"--{name} is for convert, not for {args.action}")
    if args.action == "convert":
        return _convert(args, given)
    if args.out is not None:
        raise ValueError(f"{args.action} takes one name, got {args.name!r} and {args.out!r}")
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
    rows.append(("shards", "larger than memory: what datasets convert makes of a file", ""))
    for line in aligned(rows):
        print(line)
    return 0


def _convert(args: argparse.Namespace, given: dict[str, Any]) -> int:
    if args.name is None or args.out is None:
        what = "convert what?" if args.name is None else f"convert {args.name} to what?"
        raise ValueError(
            f"{what} give a file or folder and the directory to make, before the options: funcnet "
            "datasets convert clicks.csv clicks-shards --label clicked"
        )
    if args.data_dir is not None:
        raise ValueError("--data-dir is for datasets that are downloaded, not for convert")
    if args.name in DATASETS and not Path(args.name).exists():
        raise ValueError(f"{args.name} is a dataset, and needs no converting: give a file")
    progress = not args.quiet and importlib.util.find_spec("tqdm") is not None
    with interrupts() as heard:
        try:
            with noted():
                out = fn.convert_dataset(
                    args.name, args.out, overwrite=args.overwrite, progress=progress, **given
                )
        except KeyboardInterrupt:
            print(f"funcnet datasets: interrupted; {args.out} is as it was", file=sys.stderr)
            return heard.code
    for line in _shards(out):
        print(line)
    return 0


def _shards(out: Path) -> list[str]:
    """What is in a directory of shards, and how to train on it, in lines."""
    manifest = read_manifest(out)
    x = read_forms(out, manifest)["x"]
    rows = {split: sum(part.rows for part in parts) for split, parts in manifest.splits.items()}
    shards = sum(map(len, manifest.splits.values()))
    of_each = f"{rows['train']:,} to train, {rows['val']:,} to validate, {rows['test']:,} to test"
    return [
        f"{checks.plural(sum(rows.values()), 'example')} in {checks.plural(shards, 'shard')} in "
        f"{out}: {of_each}; x {x.dtype} {list(x.shape)}",
        f"to train on it: funcnet train --dataset {shlex.quote(str(out))}",
    ]


def _where(name: str, data_dir: str | None) -> str:
    source = DATASETS[name]
    if source.find is None:
        return "built in"
    found = source.find(data_dir)
    return f"in {found}" if found else f"not found: funcnet datasets download {name}"
