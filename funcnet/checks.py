"""Checks of what people pass in: one-line errors that name the argument and the way out."""

import difflib
import importlib.util
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

from funcnet.text import visible

T = TypeVar("T")


def plural(count: int, noun: str) -> str:
    """`1 image`, `2 images`, `49,000 images`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or a ValueError that names the nearest known name."""
    if name in table:
        return table[name]
    raise ValueError(unknown(kind, name, table))


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is not among `known`, with the nearest one that is."""
    known = sorted(known)
    near = nearest(str(name), known)
    hint = f"did you mean {near!r}? " if near else ""
    return f"unknown {kind} {cut(name)}: {hint}known: {visible(', '.join(known))}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, if one is like it at all."""
    if len(name) > 100:  # no name of anything, and a while to compare
        return None
    known = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return known[near[0]] if near else None


def cut(value: object) -> str:
    """The repr of what may be of any length, for errors."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def concrete(value: Any) -> bool:
    """Whether `value` is a number that can be looked at now, not one that jit or vmap traces."""
    return not isinstance(value, jax.core.Tracer)


@dataclass(frozen=True)
class Range:
    """The real numbers that an argument may be: what a function checks by, and what is said of it.

    Attributes:
      above, at_least, below, at_most: its bounds; None is none.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise unless `value` is a finite real scalar in the range; traced values pass."""
        if not concrete(value):
            return
        if isinstance(value, (bool, str, bytes)) or np.ndim(value) != 0:
            raise TypeError(f"{name} must be a number, got {value!r}")
        try:
            real = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a number, got {value!r}") from None
        except OverflowError:  # an integer of more than 308 digits
            real = math.inf
        if not math.isfinite(real):
            bounds = " and ".join(["finite", *self._bounds()])
            raise ValueError(f"{name} must be {bounds}, got {real}")
        if not self._holds(real):
            raise ValueError(f"{name} must be {self}, got {value}")

    def _holds(self, real: float) -> bool:
        return (
            (self.above is None or real > self.above)
            and (self.at_least is None or real >= self.at_least)
            and (self.below is None or real < self.below)
            and (self.at_most is None or real <= self.at_most)
        )

    def _bounds(self) -> list[str]:
        bounds = ((">", self.above), (">=", self.at_least), ("<", self.below), ("<=", self.at_most))
        return [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]

    def __str__(self) -> str:
        return " and ".join(self._bounds()) or "finite"


@dataclass(frozen=True)
class Count:
    """The integers that an argument may be; bools and fractions are none.

    Attributes:
      at_least, at_most: its bounds; None is none.
    """

    at_least: int = 1
    at_most: int | None = None

    def check(self, name: str, value: Any) -> int:
        """`value` as an int, or an error."""
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < self.at_least:
            raise ValueError(f"{name} must be at least {self.at_least}, got {value}")
        if self.at_most is not None and value > self.at_most:
            raise ValueError(f"{name} must be at most {self.at_most}, got {value}")
        return int(value)


FINITE = Range()
POSITIVE = Range(above=0)
NON_NEGATIVE = Range(at_least=0)
FRACTION = Range(at_least=0, at_most=1)
PROBABILITY = Range(above=0, at_most=1)  # of what must happen now and then
DECAY = Range(at_least=0, below=1)
COUNT = Count()
NATURAL = Count(at_least=0)
SEED = Count(at_least=0, at_most=2**32 - 1)


def function(name: str, value: Any) -> None:
    """Raise unless `value` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")


def inputs(x: Any, *, name: str = "x", shape: tuple[int, ...] | None = None) -> Any:
    """Check a set of examples `[N, d1, ..., dk]`, k >= 1: numbers, finite, not empty.

    Args:
      x: an array of numbers.
      name: what to call it in errors.
      shape: if given, the `(d1, ..., dk)` that each example must have.
    Returns:
      x, as a NumPy array unless it is a JAX array already.
    Raises:
      ValueError: it says what is wrong with which argument.
    """
    unmasked(x, name)
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if not (jax.numpy.issubdtype(x.dtype, jax.numpy.number) or x.dtype == bool):
        raise ValueError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if jax.numpy.issubdtype(x.dtype, jax.numpy.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.ndim < 2:
        raise ValueError(
            f"{name} must be [N, ...], a batch of examples, got shape {list(x.shape)}; "
            f"for one example use {name}[None]"
        )
    if x.size == 0:
        raise ValueError(f"{name} is empty: shape {list(x.shape)}")
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} has examples of shape {list(x.shape[1:])}, expected {list(shape)}"
        )
    x = _native(x)
    if jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
        computed = jax.dtypes.canonicalize_dtype(x.dtype)  # float32, unless x64 is enabled
        limit = float(jax.numpy.finfo(computed).max)
        # Two passes that need no array as large as x; a NaN makes both of them NaN.
        if not (float(x.max()) <= limit and float(x.min()) >= -limit):
            bad = np.argwhere(~(np.abs(np.asarray(x, np.float64)) <= limit))
            where = ", ".join(map(str, bad[0]))
            value = float(x[tuple(bad[0])])
            raise ValueError(
                f"{name} must be finite in {computed}, but {name}[{where}] is {value} "
                f"({plural(len(bad), 'such element')})"
            )
    return x


def labels(
    y: Any, *, num_examples: int, num_classes: int | None = None, name: str = "y"
) -> np.ndarray:
    """Check class labels `[N]`: whole numbers from 0 to `num_classes - 1`, one per example.

    Returns:
      The labels as an int32 NumPy array.
    Raises:
      ValueError: it names the first label that is wrong.
    """
    unmasked(y, name)
    y = np.asarray(y)
    if y.shape != (num_examples,):
        raise ValueError(
            f"{name} must have one label per example, shape [{num_examples}], got {list(y.shape)}"
        )
    if y.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold integer class labels, got dtype {y.dtype}")
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
        bad = np.flatnonzero(~(y == np.floor(y)) | ~np.isfinite(y))
        if len(bad):
            raise ValueError(f"{name} must hold whole numbers, but {name}[{bad[0]}] is {y[bad[0]]}")
    top = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
    bad = np.flatnonzero((y < 0) | (y > top))
    if len(bad):
        limits = "0 or more" if y[bad[0]] < 0 and num_classes is None else f"0 to {top}"
        raise ValueError(
            f"{name} must hold labels {limits}, but {name}[{bad[0]}] is {y[bad[0]]:.0f}"
        )
    return y.astype(np.int32)


def targets(
    y: Any,
    *,
    num_examples: int,
    width: int | tuple[int, ...] | None = None,
    binary: bool = False,
    name: str = "y",
) -> np.ndarray:
    """Check targets `[N]` or `[N, K]` that are numbers, or K labels that hold or not.

    Args:
      y: numbers.
      num_examples: N.
      width: K, of [N, K]; or the shape of one target, (K,) or (); None is any.
      binary: whether they must be 0 or 1.
      name: what to call them in errors.
    Returns:
      float64, or int32 if they are binary.
    Raises:
      ValueError: it names the first that is wrong.
    """
    unmasked(y, name)
    y = np.asarray(y)
    shape = (width,) if isinstance(width, int) else width
    if y.ndim not in (1, 2) or len(y) != num_examples or 0 in y.shape[1:]:
        raise ValueError(
            f"{name} must have targets of each example, shape [{num_examples}] or "
            f"[{num_examples}, K], got {list(y.shape)}"
        )
    if shape is not None and y.shape[1:] != shape:
        raise ValueError(f"{name} must be {[num_examples, *shape]}, got {list(y.shape)}")
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got dtype {y.dtype}")
    known = y.astype(np.float64)
    bad = np.argwhere(~np.isfinite(known)) if not binary else np.argwhere(~np.isin(known, (0, 1)))
    if len(bad):
        where = ", ".join(map(str, bad[0]))
        what = "0 or 1, whether a label holds" if binary else "finite numbers"
        raise ValueError(f"{name} must hold {what}, but {name}[{where}] is {y[tuple(bad[0])]}")
    return y.astype(np.int32) if binary else known


def weights(w: Any, *, num_examples: int, name: str = "sample_weight") -> np.ndarray:
    """Check the weights of examples `[N]`: finite numbers >= 0, one per example.

    Those near the ends of the range of JAX's default float type are refused as well.

    Returns:
      The weights as a float64 NumPy array. All of them may be 0.
    Raises:
      ValueError: it names the first weight that is wrong.
    """
    unmasked(w, name)
    w, jnp = np.asarray(w), jax.numpy
    if not (jnp.issubdtype(w.dtype, jnp.floating) or jnp.issubdtype(w.dtype, jnp.integer)):
        raise ValueError(f"{name} must hold real numbers, got dtype {w.dtype}")
    if w.shape != (num_examples,):
        raise ValueError(
            f"{name} must have one weight per example, shape [{num_examples}], got {list(w.shape)}"
        )
    w = w.astype(np.float64)
    computed = jax.dtypes.canonicalize_dtype(float)  # float32, unless x64 is enabled
    most = largest_weight()
    least = 1 / most
    bad = np.flatnonzero(~((w >= 0) & (w <= most)))
    if len(bad):
        raise ValueError(
            f"{name} must be >= 0 and at most {most:.0e}, but {name}[{bad[0]}] is {w[bad[0]]} "
            f"({plural(len(bad), 'such element')})"
        )
    if w.any() and w.max() < least:
        raise ValueError(f"{name} is 0 in {computed}, at most {w.max()}: multiply it by a constant")
    return w


def largest_weight() -> float:
    """The largest weight of an example: JAX's float type keeps the digits of its inverse, too."""
    return 1 / float(jax.numpy.finfo(jax.dtypes.canonicalize_dtype(float)).tiny)


def unmasked(x: Any, name: str) -> None:
    """Raise if x is a masked array with an element that is masked: it is missing."""
    if not isinstance(x, np.ma.MaskedArray) or not np.ma.is_masked(x):
        return
    missing = np.argwhere(np.ma.getmaskarray(x))
    where = ", ".join(map(str, missing[0]))
    raise ValueError(
        f"{name}[{where}] is masked, missing ({plural(len(missing), 'such element')}): leave such "
        f"examples out, or fill them in, as {name}.filled(value) does"
    )


def is_wide(x: Any) -> bool:
    """Whether x holds numbers that float32 may round: float64, or integers of 32 bits and more.

    What is traced is not: it is on the device already.
    """
    if not concrete(x):
        return False
    dtype = np.dtype(getattr(x, "dtype", None) or np.asarray(x).dtype)
    return (dtype.kind == "f" and dtype.itemsize > 4) or (dtype.kind in "iu" and dtype.itemsize > 2)


def array(x: Any) -> jax.Array:
    """x as a JAX array of the same values.

    Without x64, JAX would keep the low 32 bits of a 64-bit integer: those that 32 bits cannot hold
    become floating point numbers here.
    """
    if isinstance(x, jax.Array):
        return x
    x = _native(np.asarray(x))
    return jax.numpy.asarray(x, None if held(x) else float)


def narrowed(x: Any, name: str, purpose: str) -> jax.Array:
    """x as a JAX array, for what is done on the device to raw inputs, if that loses nothing.

    What float32 may round, of integers too, becomes JAX's default float type.

    Args:
      x: [N, ...] numbers.
      name: what to call it in errors.
      purpose: what it is for, such as "to be augmented".
    Raises:
      ValueError: rounded to the dtypes that JAX has, elements would move by more than a thousandth
        of the standard deviation: of their feature, or of all pixels.
    """
    if not concrete(x) or not is_wide(x):
        return array(x)
    x, dtype = _native(np.asarray(x)), jax.dtypes.canonicalize_dtype(float)
    # The pixels of images have one unit.
    if rounds(x, dtype, tolerance=1e-3, axis=0 if x.ndim < 3 else None):
        raise ValueError(
            f"{name} is {x.dtype}, and {purpose} it would be {dtype}, in which its values "
            f"run together: subtract an offset such as {name}.mean() first"
        )
    return jax.numpy.asarray(x, dtype)


def rounds(x: np.ndarray, dtype: Any, *, tolerance: float, axis: int | None = 0) -> bool:
    """Whether a dtype would round x to its harm.

    It does if an element would move by more than `tolerance` of the standard deviation along
    `axis`, of a feature that varies at all.
    """
    error = np.abs(x.astype(dtype) - x.astype(np.float64)).max(axis=axis)
    varies = x.max(axis=axis) > x.min(axis=axis)
    return bool((varies & (error > tolerance * x.std(axis=axis, dtype=np.float64))).any())


def held(x: np.ndarray) -> bool:
    """Whether JAX has a dtype of integers for the integers in x; others are held or rounded."""
    if x.dtype.kind not in "iu" or x.size == 0:
        return True
    limits = np.iinfo(jax.dtypes.canonicalize_dtype(x.dtype))
    return bool(limits.min <= x.min() and x.max() <= limits.max)


def _native(x: Any) -> Any:
    """A NumPy array as JAX can take it: in the byte order and a precision of this machine."""
    if isinstance(x, jax.Array):
        return x
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        return x.astype(np.float64)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def key(value: Any) -> jax.Array:
    """`value` if it is a random key, else a TypeError that says how to make one."""
    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype == np.uint32 and np.shape(value) == jax.random.PRNGKey(0).shape
    if not (typed and np.shape(value) == ()) and not raw:
        raise TypeError(f"key must be a random key, such as jax.random.key(0), got {value!r}")
    return value


def installed(package: str, purpose: str, extra: str = "cli") -> None:
    """Raise an ImportError that says what to install unless `package` is there."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{package} is needed {purpose}: pip install "funcnet[{extra}]"')
