"""What every command's parser has: help that fits the terminal, errors of one line."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from funcnet.text import visible

EXAMPLES = "examples:"


class Formatter(argparse.HelpFormatter):
    """Help with room for the option names, filled to the width of the terminal."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=32, **options)
        self._action_max_length = 16  # argparse forgets that commands are indented

    def _format_usage(
        self, usage: str | None, actions: Any, groups: Any, prefix: str | None
    ) -> str:
        if usage is None:
            return super()._format_usage(usage, actions, groups, prefix)
        text = f"usage: {usage % {'prog': self._prog}}"
        return textwrap.fill(text, self._width, subsequent_indent=" " * 7) + "\n\n"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{action.metavar} ..."
        if action.nargs == "*":
            return f"[{action.metavar} ...]"
        return super()._format_args(action, default_metavar)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith(EXAMPLES):
            return super()._fill_text(text, width, indent)
        return "\n".join(_as_command(line, width) for line in text.splitlines())


def _as_command(line: str, width: int) -> str:
    """A command as one could type it in lines of this width."""
    wrapper = textwrap.TextWrapper(
        width - 2,
        initial_indent="  " if line.startswith(" ") else "",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return " \\\n".join(wrapper.wrap(line.strip()))


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with this line."""
        self.exit(2, f"{self.prog}: error: {visible(message)}\n")


def add_command(
    commands: Any,
    name: str,
    run: Any,
    summary: str,
    details: str,
    examples: Sequence[str],
    *,
    arguments: str = "",
) -> Any:
    """Add a command; returns its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        usage=" ".join(filter(None, ("%(prog)s", arguments, "[options]"))),
        description=f"{summary[0].upper()}{summary[1:]}. {details}".strip(),
        epilog="\n".join([EXAMPLES, *(f"  funcnet {example}" for example in examples)]),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser
