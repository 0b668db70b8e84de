"""funcnet completion."""

import argparse
from typing import Any

from funcnet import checks
from funcnet.cli.options import NameAmong, NumberOrName
from funcnet.cli.parser import add_command
from funcnet.config import Config

SHELLS = ("bash", "zsh", "tcsh")
FOLDERS, FILES = ("DIR", "RUN", "OUT"), ("FILE",)  # what is completed, by what help calls it


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "completion",
        run,
        "print a script by which a shell completes what is typed",
        "The shell reads it when it starts, and knows then the commands, options, the names that "
        'they take, and files. To have it, add the line eval "$(funcnet completion bash)" to '
        '~/.bashrc, or eval "$(funcnet completion zsh)" to ~/.zshrc, after compinit; or keep what '
        "is printed in a file, which is of the version that printed it.",
        ("completion bash > funcnet-completion.bash", "completion zsh > ~/.zfunc/_funcnet"),
        arguments="SHELL",
    )
    parser.add_argument(
        "shell", type=NameAmong("shell", SHELLS), metavar="SHELL", help="bash, zsh or tcsh"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from funcnet.cli import make_parser  # which imports this module

    checks.installed("shtab", "to write it")
    import shtab

    parser, commands = make_parser(Config())
    for command in commands.values():
        for action in command._actions:
            _complete(action, shtab)
    print(shtab.complete(parser, args.shell))
    return 0


def _complete(action: argparse.Action, shtab: Any) -> None:
    """Say of an argument what it may be, where that is known."""
    if isinstance(action.type, NameAmong | NumberOrName):
        action.choices = list(action.type.known)
    elif action.metavar in FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif action.metavar in FILES or action.dest == "dataset":
        action.complete = shtab.FILE  # type: ignore[attr-defined]
