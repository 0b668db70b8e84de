"""Functions with some of their arguments given, which are equal if what they are made of is."""

from collections.abc import Callable
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary


class Bound:
    """A function with keyword arguments given, as `functools.partial`; see `bind`."""

    __slots__ = ("__weakref__", "function", "options")

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function = function
        self.options = options

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """The function of its given arguments and of these."""
        return self.function(*args, **self.options, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound, (self.function, self.options)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{name}({options})"


def bind(function: Callable[..., Any], /, **options: Any) -> Bound:
    """`function` with these keyword arguments given.

    Two of them are equal, and hash alike, if their functions are and their arguments are equal and
    of one type: so a program that was compiled for one serves the other. With a traced value or an
    array among the arguments it is equal to itself alone. It pickles if they all do.
    """
    return _bound(function, options)


def _bound(function: Callable[..., Any], options: dict[str, Any]) -> Bound:
    # Equal ones are the same object, so that to compare whole networks of them, as JAX does at
    # each call of a compiled function, costs nothing.
    items = sorted(options.items(), key=lambda item: item[0])
    key = (function, *((name, type(value), value) for name, value in items))
    made = Bound(function, options)
    try:
        with _lock:
            return _known.setdefault(key, made)
    except TypeError:  # a traced value, or an array, has no hash
        return made


_known: WeakValueDictionary[Any, Bound] = WeakValueDictionary()
_lock = RLock()
