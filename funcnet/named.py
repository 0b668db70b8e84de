"""Functions that options name: a step is NAME, or NAME=VALUE for its one argument."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from funcnet import checks
from funcnet.bind import Bound, bind


class Step(NamedTuple):
    """A function that an option can name.

    Attributes:
      function: what it does.
      about: what it does, in words, for `--help`.
      argument: the keyword that VALUE is for; None takes no value.
      number: the type of VALUE, int or float.
    """

    function: Callable[..., Any]
    about: str = ""
    argument: str | None = None
    number: type = int


def parse_step(option: str, text: str, steps: Mapping[str, Step]) -> Bound:
    """The function of a step such as "flip" or "shift=4"; equal ones for equal texts.

    Args:
      option: the option that names it, such as "--augment", for errors, those of the function too.
      text: the step.
      steps: what there is, by name.
    Raises:
      ValueError: there is no such step, or its value is none.
    """
    name, equals, value = text.partition("=")
    step = checks.choose(f"step of {option}", name, steps)
    given: Any = {}
    if equals:
        if step.argument is None:
            raise ValueError(f"{option} {name} takes no value, got {text!r}")
        try:
            given[step.argument] = step.number(value)
        except ValueError:
            what = "an integer" if step.number is int else "a number"
            raise ValueError(f"{option} {name}=VALUE needs {what}, got {text!r}") from None
    return bind(
        _named, function=step.function, where=f"{option} {text}", given=tuple(given.items())
    )


def function_of(given: Any) -> Any:
    """The function that a step calls, or a bound or partial one; itself, if it is none of these."""
    if isinstance(given, Bound):
        return given.options["function"] if given.function is _named else given.function
    return getattr(given, "func", given)


def describe_steps(steps: Mapping[str, Step]) -> str:
    """The steps in a line: `shift[=MAX_SHIFT]: ...; flip: ...`."""
    return "; ".join(
        f"{name}[={step.argument.upper()}]: {step.about}"
        if step.argument
        else f"{name}: {step.about}"
        for name, step in steps.items()
    )


def _named(
    *inputs: Any, function: Any, where: str, given: tuple[tuple[str, Any], ...], **others: Any
) -> Any:
    try:
        return function(*inputs, **dict(given), **others)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
