"""funcnet report."""

import argparse
from pathlib import Path
from typing import Any

from funcnet.cli.parser import add_command
from funcnet.cli.records import noted
from funcnet.config import Config
from funcnet.report.write import write_report


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "report",
        run,
        "write a report of a run, a sweep or several runs as one HTML file",
        "It needs no network, and says nothing of where files lie or whose machine it was. "
        "Mistakes are shown with their images where the data can be loaded again.",
        (
            "report runs/digits",
            "report runs/digits runs/digits-2 --out compared.html",
            "report runs/sweep-digits",
        ),
        arguments="RUN ...",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="directory of a run or a sweep; several are compared"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the file; report.html in the directory, or beside the first of several, if not given",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if args.out == "":
        raise ValueError("--out is empty")
    first = Path(args.runs[0])
    usual = (first if len(args.runs) == 1 else first.parent) / "report.html"
    path = Path(args.out) if args.out is not None else usual
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory: give a file, such as {path}/report.html")
    with noted():
        write_report(args.runs, path)
    print(f"written to {path}")
    return 0
