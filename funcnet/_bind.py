"""Functions with some of their arguments given, which are equal if what they are made of is."""

from collections.abc import Callable
from typing import Any


class Bound:
    """A function with keyword arguments given, as `functools.partial`; see `bind`."""

    __slots__ = ("__weakref__", "_hash", "function", "options")  # JAX caches by weak reference

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function = function
        self.options = options
        try:
            self._hash: int | None = hash((function, tuple(sorted(options.items(), key=_name))))
        except TypeError:  # a traced value, or an array
            self._hash = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **self.options, **kwargs)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Bound) or self._hash is None or self._hash != other._hash:
            return False
        return self.function == other.function and _alike(self.options, other.options)

    def __hash__(self) -> int:
        return object.__hash__(self) if self._hash is None else self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Bound, (self.function, self.options)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{name}({options})"


def bind(function: Callable[..., Any], **options: Any) -> Bound:
    """`function` with these keyword arguments given.

    Two of them are equal, and hash alike, if their functions are and their arguments are equal and
    of one type: so a program that was compiled for one serves the other. With a traced value or an
    array among the arguments it is equal to itself alone. It pickles if its function and its
    arguments do.
    """
    return Bound(function, options)


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        type(a[name]) is type(b[name]) and bool(a[name] == b[name]) for name in a
    )
