"""What every command's parser has: help with room, errors of one line."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with room for the option names, and with the defaults that say something."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)
        self._action_max_length = 16  # argparse forgets that commands are indented

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        unsaid = default is None or default is False or default == []
        if unsaid or default is argparse.SUPPRESS or not action.help:
            return action.help
        shown = " ".join(map(str, default)) if isinstance(default, list) else f"{default}"
        return f"{action.help} (default: {shown})".replace("%", "%%")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with this line."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_command(
    commands: Any, name: str, run: Any, summary: str, details: str, examples: Sequence[str]
) -> Any:
    """Add a command; returns its parser."""
    description = f"{summary[0].upper()}{summary[1:]}. {details}".strip()
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 80),
        epilog="\n".join(["examples:", *(f"  funcnet {example}" for example in examples)]),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser
