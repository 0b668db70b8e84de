"""The settings of a sweep: grids, random draws, or any list of dicts.

    grid(learning_rate=[1e-3, 2e-3, 3e-4], weight_scale=[2e-2, 5e-2, 6e-2])
    random_search(jax.random.key(0), 50, learning_rate=log_uniform(1e-4, 1e-2), hidden=[50, 100])

Settings are plain dicts, so that lists of them add up and multiply as lists do:

    settings = [{**s, "seed": seed} for s in random_search(...) for seed in range(3)]
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks

__all__ = ["grid", "integers", "log_uniform", "member_key", "random_search", "uniform"]

Settings = dict[str, Any]


class Uniform(NamedTuple):
    """Numbers between low and high, all equally likely; see `uniform`."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One of them."""
        return float(rng.uniform(self.low, self.high))


class LogUniform(NamedTuple):
    """Numbers between low and high, with logarithms equally likely; see `log_uniform`."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One of them."""
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)  # rounding may leave the range


class Integers(NamedTuple):
    """The integers from low to high, all equally likely; see `integers`."""

    low: int
    high: int

    def draw(self, rng: np.random.Generator) -> int:
        """One of them."""
        return int(rng.integers(self.low, self.high, endpoint=True))


Distribution = Uniform | LogUniform | Integers
Space = Mapping[str, Distribution | Sequence[Any]]


def uniform(low: float, high: float) -> Uniform:
    """Numbers between low and high, all equally likely, for `random_search`.

    Args:
      low: the least number.
      high: the largest one, low or more.
    Returns:
      An axis for `random_search`.
    Raises:
      ValueError: a number is not finite, or high is below low.
      TypeError: it is no number.
    Example:
      >>> [settings] = fn.random_search(jax.random.key(0), 1, keep_prob=fn.uniform(0.5, 1))
      >>> 0.5 <= settings["keep_prob"] <= 1
      True
    """
    _check_range("uniform", low, high)
    return Uniform(float(low), float(high))


def log_uniform(low: float, high: float) -> LogUniform:
    """Numbers between low and high, both above 0, every factor equally likely.

    What is known by its order of magnitude, such as a learning rate, is drawn like this.

    Args:
      low: the least number, above 0.
      high: the largest one, low or more.
    Returns:
      An axis for `random_search`.
    Raises:
      ValueError: a number is not finite, low is not above 0, or high is below it.
      TypeError: it is no number.
    Example:
      >>> found = fn.random_search(jax.random.key(0), 100, rate=fn.log_uniform(1e-4, 1e-2))
      >>> 30 < sum(settings["rate"] < 1e-3 for settings in found) < 70
      True
    """
    checks.POSITIVE.check("low of log_uniform", low)
    _check_range("log_uniform", low, high)
    return LogUniform(float(low), float(high))


def integers(low: int, high: int) -> Integers:
    """The integers from low to high, both included, all equally likely, for `random_search`.

    Args:
      low: the least integer.
      high: the largest one, low or more, which is among them.
    Returns:
      An axis for `random_search`.
    Raises:
      ValueError: high is below low, or one is beyond 64 bits.
      TypeError: one is no integer.
    Example:
      >>> found = fn.random_search(jax.random.key(0), 3, dim=fn.integers(1, 3))
      >>> sorted(settings["dim"] for settings in found)
      [1, 2, 3]
    """
    checks.Count(at_least=-(2**63)).check("low of integers", low)
    checks.Count(at_least=low, at_most=2**63 - 1).check("high of integers", high)
    return Integers(int(low), int(high))


_KINDS: dict[type, Callable[..., Any]] = {
    Uniform: uniform,
    LogUniform: log_uniform,
    Integers: integers,
}


def grid(**axes: Iterable[Any]) -> list[Settings]:
    """All combinations of the values of some axes; those of the last axis change fastest.

        grid(learning_rate=[1e-3, 1e-2], seed=range(3))  # six settings

    Args:
      axes: for each setting its values.
    Returns:
      A list of dicts.
    Raises:
      ValueError: an axis is empty, or has a value twice.
      TypeError: it is no list of values.
    Example:
      >>> fn.grid(rate=[0.1], seed=range(2))
      [{'rate': 0.1, 'seed': 0}, {'rate': 0.1, 'seed': 1}]
    """
    values = [_axis(name, axis) for name, axis in axes.items()]
    if not axes:
        raise ValueError("grid needs at least one axis, such as learning_rate=[1e-3, 1e-2]")
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*values)]


def random_search(
    key: jax.Array, count: int, /, **axes: Distribution | Sequence[Any]
) -> list[Settings]:
    """Settings drawn at random, all of them different.

    Args:
      key: a random key; the same one draws the same settings.
      count: how many.
      axes: for each setting a distribution, `uniform`, `log_uniform` or `integers`, or a list of
        values, all equally likely.
    Returns:
      A list of dicts.
    Raises:
      ValueError: an axis is empty, count is below 1, or there are not so many different settings.
      TypeError: an axis is no list of values, or key no random key.
    Example:
      >>> axes = {"rate": fn.log_uniform(1e-4, 1e-2), "hidden": [50, 100]}
      >>> found = fn.random_search(jax.random.key(0), 4, **axes)
      >>> len(found), sorted(found[0]), found == fn.random_search(jax.random.key(0), 4, **axes)
      (4, ['hidden', 'rate'], True)
    """
    count = checks.COUNT.check("count", count)
    if not axes:
        raise ValueError("random_search needs at least one axis, such as keep_prob=uniform(0.5, 1)")
    space = check_space(axes)
    rng = np.random.default_rng(np.asarray(_key_data(checks.key(key))).ravel())
    drawn: dict[Any, Settings] = {}
    for _ in range(100 * count):  # enough, unless all but every setting there is has been drawn
        one = draw(space, rng)
        drawn.setdefault(identity(one), one)
        if len(drawn) == count:
            return list(drawn.values())
    raise ValueError(
        f"random_search was asked for {count:,} different settings, but in {100 * count:,} draws "
        f"there were only {len(drawn):,}: ask for fewer, or use grid"
    )


def check_space(axes: Mapping[str, Any]) -> Space:
    """A space of settings: for each a distribution, or the list of its values.

    Raises:
      ValueError, TypeError: an axis is neither, is empty, or has a value twice.
    """
    return {n: a if isinstance(a, Distribution) else _axis(n, a) for n, a in axes.items()}


def draw(space: Space, rng: np.random.Generator) -> Settings:
    """Settings of a checked space, drawn at random."""
    return {
        name: axis.draw(rng)
        if isinstance(axis, Distribution)
        else axis[int(rng.integers(len(axis)))]
        for name, axis in space.items()
    }


def ends_of(axis: Distribution | Sequence[Any]) -> list[Any]:
    """The values of an axis; of a distribution, its bounds."""
    if isinstance(axis, Distribution):
        return list(dict.fromkeys((axis.low, axis.high)))
    return list(axis)


def stored_space(space: Space) -> dict[str, Any]:
    """A checked space for JSON, which has it whole; `space_of` reads it."""
    return {
        name: {_KINDS[type(axis)].__name__: list(axis)}
        if isinstance(axis, Distribution)
        else list(axis)
        for name, axis in space.items()
    }


def space_of(stored: Mapping[str, Any]) -> Space:
    """A checked space of what `stored_space` gave.

    Raises:
      ValueError, TypeError, KeyError: it is damaged.
    """
    axes: dict[str, Any] = {}
    for name, axis in stored.items():
        if isinstance(axis, Mapping):
            ((kind, ends),) = axis.items()
            axes[name] = {made.__name__: made for made in _KINDS.values()}[kind](*ends)
        else:
            axes[name] = axis
    return check_space(axes)


def size_of(space: Space) -> float:
    """How many different settings a checked space has; infinity of one with a range of numbers."""

    def size(axis: Distribution | Sequence[Any]) -> float:
        if isinstance(axis, Integers):
            return axis.high - axis.low + 1
        ranges = isinstance(axis, Distribution) and axis.low < axis.high
        return math.inf if ranges else len(ends_of(axis))

    return math.prod(map(size, space.values()))


def check_settings(settings: Iterable[Mapping[str, Any]]) -> tuple[Settings, ...]:
    """Settings as `sweep` wants them: a tuple of dicts with the same names, all different.

    NumPy and JAX scalars become Python numbers, lists tuples; where a setting is a float in some
    of the dicts, integers in the others become floats.

    Raises:
      ValueError, TypeError: it says what is wrong with which of them.
    """
    if isinstance(settings, Mapping) or not isinstance(settings, Iterable):
        raise TypeError(
            "settings must be a list of dicts, such as grid(learning_rate=[1e-3, 1e-2])"
        )
    members = []
    for i, given in enumerate(settings):
        if not isinstance(given, Mapping):
            raise TypeError(f"settings[{i}] must be a dict, got {given!r}")
        members.append({name: _plain(name, value) for name, value in given.items()})
    if not members:
        raise ValueError("settings is empty: there is nothing to train")
    names = list(members[0])
    for i, member in enumerate(members):
        for name in names:
            if name not in member:
                raise ValueError(f"settings[{i}] has no {name}, but settings[0] has")
        for name in member:
            if name not in names:
                raise ValueError(f"settings[{i}] has {name}, but settings[0] has not")
    for name in names:
        if any(isinstance(member[name], float) for member in members):
            for member in members:
                if isinstance(member[name], int) and not isinstance(member[name], bool):
                    member[name] = float(member[name])
    first: dict[Any, int] = {}
    for i, member in enumerate(members):
        j = first.setdefault(identity(member), i)
        if j != i:
            raise ValueError(f"settings[{i}] is settings[{j}] again: {describe(member)}")
    return tuple({name: member[name] for name in names} for member in members)


def describe(settings: Mapping[str, Any]) -> str:
    """Settings on a line: `learning_rate=0.001, seed=0`."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}"
        for name, value in settings.items()
    )


def identity(settings: Mapping[str, Any]) -> Any:
    """What tells settings apart: 1, 1.0 and True are not the same."""
    return tuple((name, type(value).__name__, value) for name, value in settings.items())


def _axis(name: str, axis: Any) -> list[Any]:
    if isinstance(axis, Distribution):
        raise TypeError(f"{name}: {axis!r} is for random_search, a grid needs values")
    if isinstance(axis, (str, bytes, Mapping)) or not isinstance(axis, Iterable):
        raise TypeError(f"{name} must be a list of values, such as [{axis!r}], got {axis!r}")
    values = [_plain(name, value) for value in axis]
    if not values:
        raise ValueError(f"{name} is empty: it needs at least one value")
    if any(isinstance(value, float) for value in values) and name != "seed":
        values = [float(v) if type(v) is int else v for v in values]
    seen = set()
    for value in values:
        if (type(value), value) in seen:
            raise ValueError(f"{name} has {value!r} twice")
        seen.add((type(value), value))
    return values


def _plain(name: str, value: Any) -> Any:
    """A value that can be compared and hashed: Python numbers, and tuples for lists."""
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        value = np.asarray(value).tolist()
    if isinstance(value, list):
        value = tuple(value)
    if name == "seed":
        return checks.SEED.check("seed", value)
    if isinstance(value, float):
        checks.FINITE.check(name, value)
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{name} must be a number, a string, a tuple or None, got {value!r}"
        ) from None
    return value


def _check_range(name: str, low: Any, high: Any) -> None:
    checks.FINITE.check(f"low of {name}", low)
    checks.Range(at_least=float(low)).check(f"high of {name}", high)
    if not math.isfinite(float(high) - float(low)):
        raise ValueError(f"{name} from {low:g} to {high:g} is wider than a float can be")


def _key_data(key: jax.Array) -> jax.Array:
    return (
        jax.random.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    )


def member_key(key: jax.Array | None, settings: Mapping[str, Any]) -> jax.Array:
    """The key of a member of a sweep.

    It is `key`; or, if the settings have a seed, `fold_in(key, seed)`; or, if besides key is None,
    `jax.random.key(seed)`. `fit(net, optimizer, dataset, key=member_key(key, settings), ...)` is
    that member, alone.

    Args:
      key: a random key, or None.
      settings: the settings of the member.
    Returns:
      A random key.
    Raises:
      ValueError: there is neither a key nor a seed.
      TypeError: key is no random key.
    Example:
      >>> key = jax.random.key(0)
      >>> bool(fn.member_key(key, {"rate": 0.1}) == key)
      True
      >>> bool(fn.member_key(None, {"seed": 3}) == jax.random.key(3))
      True
    """
    if key is None:
        if "seed" not in settings:
            raise ValueError("give a key, such as jax.random.key(0), or settings with a seed")
        return jax.random.key(settings["seed"])
    key = checks.key(key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    return jax.random.fold_in(key, settings["seed"]) if "seed" in settings else key
