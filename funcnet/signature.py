"""Options that several functions take, as one typed record.

    class StepOptions(TypedDict, total=False):
        reg: Annotated[Any, 0.0]              # a type, and the default

    @takes(StepOptions)
    def fit(net, *, key, **options: Unpack[StepOptions]): ...

`help(fit)` shows the options as if they stood in its signature, and type checkers know them.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from funcnet import checks

F = TypeVar("F", bound=Callable[..., Any])


def defaults(record: Any) -> dict[str, Any]:
    """The defaults of the options of a record, by name."""
    hints = get_type_hints(record, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def complete(record: Any, options: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """All options of a record: those given, and the defaults of the others.

    Raises:
      TypeError: the record has no such option.
    """
    known = defaults(record)
    for name in options:
        if name not in known:
            raise TypeError(checks.unknown(f"option of {whose}", name, known))
    return {**known, **options}


def takes(record: Any) -> Callable[[F], F]:
    """Show the options of a record in the signature of a function, in place of `**options`."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        hints, kind = get_type_hints(record), inspect.Parameter.KEYWORD_ONLY
        options = [
            inspect.Parameter(name, kind, default=value, annotation=hints[name])
            for name, value in defaults(record).items()
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *options]
        )
        return function

    return decorate
