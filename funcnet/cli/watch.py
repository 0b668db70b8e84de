"""funcnet watch."""

import argparse
from pathlib import Path
from typing import Any

from funcnet import checks
from funcnet.cli.console import say
from funcnet.cli.parser import add_command
from funcnet.config import Config
from funcnet.report.watch import server_of
from funcnet.runs import load_record

PORT = checks.Count(at_least=0, at_most=65535)


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "watch",
        run,
        "show a run in the browser while it goes on",
        "It serves one page to this machine alone, which shows each epoch once it has been "
        "measured, until Ctrl-C ends it.",
        ("watch runs/digits", "watch runs/digits --port 8000"),
        arguments="RUN",
    )
    parser.add_argument(
        "run_directory", metavar="RUN", help="directory of a run, such as runs/digits"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="N",
        help="port of 127.0.0.1; any that is free if not given",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    path = Path(args.run_directory)
    port = PORT.check("--port", args.port)
    if not args.run_directory:
        raise ValueError("RUN is empty: give a directory, such as runs/digits")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no run directory: it is not there")
    if (path / "config.json").is_file():
        load_record(path)  # it is sound, and that of a run
    with server_of(path, port) as server:
        say(f"http://127.0.0.1:{server.server_port}/ shows {path}; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # which is how it ends
            return 0
    return 0
