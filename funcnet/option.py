"""An option of an experiment: what there is to know of a field of `Config`."""

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, NamedTuple, TypeVar

from funcnet import checks
from funcnet.named import Step, parse_step

_Class = TypeVar("_Class", bound=type)


class Option(NamedTuple):
    """What there is to know of a field of `Config`, besides its name, its type and its default.

    Attributes:
      help: what it is, in words.
      group: under which heading help shows it.
      metavar: what stands for its value in help; None is a flag, True or False.
      range: the numbers that it may be, or each of several: Range or Count.
      choices: the names that it may be, and what they stand for.
      steps: functions that it names, several of them in turn.
      several: whether it is several numbers, or names.
      least: how many values the command line wants after it, of several or of steps.
      optional: whether it may be None, which is as if it had not been given.
      sweep: "several" if a sweep may vary it, "one" if all its members share it, "" if it has none.
      gradcheck: whether a gradient check takes it.
      needed: whether every stored configuration has it, so that a missing one is damage.
      aliases: older names.
    """

    help: str
    group: str
    metavar: str | None = None
    range: checks.Range | checks.Count | None = None
    choices: Mapping[str, Any] | None = None
    steps: Mapping[str, Step] | None = None
    several: bool = False
    least: int = 0
    optional: bool = False
    sweep: str = "several"
    gradcheck: bool = False
    needed: bool = False
    aliases: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise unless it may be `value`; traced numbers pass."""
        shown = option(name)
        if value is None and self.optional:
            return
        if self.several or self.steps is not None:
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"{shown} must be a list, got {value!r}")
            what = "size" if self.range is not None else "name"
            for each in value:
                self._check_one(name, f"every {what} in {shown}", each)
        else:
            self._check_one(name, shown, value)

    def _check_one(self, name: str, shown: str, value: Any) -> None:
        if self.steps is not None:
            if not isinstance(value, str):
                raise TypeError(f"every step of {option(name)} must be a string, got {value!r}")
            parse_step(option(name), value, self.steps)
        elif self.choices is not None and (isinstance(value, str) or self.range is None):
            checks.choose(name, value, self.choices)
        elif self.range is not None:
            self.range.check(shown, value)
        elif not isinstance(value, bool if self.metavar is None else str):
            what = "True or False" if self.metavar is None else "a string"
            raise TypeError(f"{shown} must be {what}, got {value!r}")


def option_field(
    default: Any, help: str, group: str, metavar: str | None = None, **facts: Any
) -> Any:
    """A field of a dataclass that is an Option."""
    facts.setdefault("optional", default is None)
    return field(default=default, metadata={"option": Option(help, group, metavar, **facts)})


def explained(made: _Class) -> _Class:
    """A dataclass of Options, whose docstring then says of each what help says of it.

    They become its section of attributes, before what it says of errors.
    """
    if made.__doc__ is None:  # python -OO
        return made
    options = ((each.name, each.metadata["option"].help) for each in fields(made))
    lines = [re.sub(r"(--[a-z-]+)", r"`\1`", f"{name}: {help}.") for name, help in options]
    shape: Any = {"width": 98, "initial_indent": "  ", "subsequent_indent": "    "}
    entries = "\n".join(textwrap.fill(line, break_on_hyphens=False, **shape) for line in lines)
    before, errors, after = inspect.cleandoc(made.__doc__).partition("Raises:\n")
    made.__doc__ = f"{before}Attributes:\n{entries}\n{errors}{after}"
    return made


def option(name: str) -> str:
    """How the command line writes an option."""
    return f"--{name.replace('_', '-')}"
