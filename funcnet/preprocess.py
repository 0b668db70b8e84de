"""Preprocessing that is fitted on the training data and travels with the model."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.datasets import Stored
from funcnet.named import Step, function_of
from funcnet.quantiles import placed, places_of, quantile_edges
from funcnet.tree import FrozenDict, freeze

__all__ = [
    "Preprocess",
    "chain",
    "no_preprocess",
    "normalize_contrast",
    "quantile_transform",
    "shuffle_features",
    "standardize",
    "standardize_numbers",
    "subtract_mean",
    "whiten",
]


@partial(jax.tree_util.register_dataclass, data_fields=["stats"], meta_fields=["kind"])
@dataclass(frozen=True)
class Preprocess:
    """A fitted preprocessing, a function of raw inputs that is a pytree as well.

    Attributes:
      kind: what it does, a name in `KINDS`, or several joined by "+".
      stats: the arrays that were fitted, NumPy arrays; means and scales are float64.
    Example:
      >>> x = np.array([[0.0, 4.0], [2.0, 8.0]])
      >>> preprocess = fn.standardize(x)
      >>> preprocess.kind, preprocess.stats["mean"]
      ('standardize', array([1., 6.]))
      >>> print(preprocess(np.array([[3.0, 6.0]])))
      [[2. 0.]]
    """

    kind: str
    stats: Any

    def __call__(self, x: Any) -> Any:
        """Preprocess a batch.

        What float32 may round, float64 and integers of 32 bits or more, is centred in float64 on
        the host and cast after that; narrower dtypes, such as pixels, and what is traced are
        computed with where they are.

        Args:
          x: [N, ...] raw inputs, of the shape that it was fitted on.
        Returns:
          [N, ...], what the network takes; of `Stored` what it is when it is read.
        Raises:
          ValueError: the examples have another shape.
        """
        if isinstance(x, Stored):
            return _made(x, self)
        checks.unmasked(x, "x")
        parts = parts_of(self)
        if checks.is_wide(x) and any(KINDS[part.kind].computes for part in parts):
            rows = [self.on_host(some) for some in _parts(np.asarray(x))]
            return jnp.asarray(np.concatenate(rows))
        out = checks.array(x)
        for part in parts:
            out = KINDS[part.kind].apply(jax.tree.map(jnp.asarray, part.stats), out)
        return out

    def on_host(self, x: Any) -> np.ndarray:
        """The same in NumPy and in float64."""
        out = np.asarray(x).astype(np.float64)
        for part in parts_of(self):
            out = np.asarray(KINDS[part.kind].apply(jax.tree.map(np.asarray, part.stats), out))
        return out


def subtract_mean(x: Any) -> Preprocess:
    """Subtract the mean example (the mean image), as CS231n does; no division.

    Args:
      x: [N, ...] training inputs.
    Returns:
      A Preprocess with `stats["mean"]`, [...] float64.
    Raises:
      ValueError: x is empty, not finite or not [N, ...].
    Example:
      >>> preprocess = fn.subtract_mean(np.array([[0, 4], [2, 8]], np.uint8))
      >>> print(preprocess(np.array([[1, 0]], np.uint8)))
      [[ 0. -6.]]
    """
    x = _examples(x)
    if isinstance(x, Stored):
        return Preprocess("subtract_mean", _stats(mean=_mean(x)))
    return Preprocess("subtract_mean", _stats(mean=x.mean(axis=0, dtype=np.float64)))


def _apply_subtract_mean(stats: Any, x: Any) -> Any:
    return _centred(stats["mean"], x)


def no_preprocess(x: Any) -> Preprocess:
    """Leave the inputs as they are.

    Args:
      x: [N, ...] training inputs, which are not looked at: None will do.
    Returns:
      A Preprocess without stats.
    Example:
      >>> print(fn.no_preprocess(None)(np.array([[1.5, 2.5]], "f")))
      [[1.5 2.5]]
    """
    return Preprocess("no_preprocess", FrozenDict())


def _apply_nothing(stats: Any, x: Any) -> Any:
    return x


def standardize(x: Any, *, epsilon: float = 0.0) -> Preprocess:
    """Subtract the mean of each feature and divide by its own standard deviation.

        (x - mean) / (std + epsilon * max(std)),   features that never vary give 0

    Args:
      x: [N, ...] training inputs.
      epsilon: 0 or more, a fraction of the largest standard deviation; for features of one unit,
        such as pixels, a little of it keeps those small that hardly ever vary.
    Returns:
      A Preprocess with `stats["mean"]` and `stats["scale"]`, the factors, [...] float64 each.
    Raises:
      ValueError: x is empty, not finite or not [N, ...], or a number is out of its range.
      TypeError: epsilon is no number.
    Example:
      >>> preprocess = fn.standardize(np.array([[0.0, 7.0], [4.0, 7.0]]))
      >>> print(preprocess(np.array([[2.0, 7.0], [6.0, 9.0]])))
      [[0. 0.]
       [2. 0.]]
    """
    checks.NON_NEGATIVE.check("epsilon", epsilon)
    x = _examples(x)
    mean = _mean(x)
    squares = np.zeros(x.shape[1:])
    for part in _parts(x):
        squares += np.square(part - mean).sum(axis=0)
    std = np.sqrt(squares / len(x))
    divisor = std + epsilon * std.max()
    least = 0 if checks.is_wide(x) else 4 * np.finfo(np.float32).tiny  # whose inverse float32 has
    scale = np.divide(1, divisor, out=np.zeros_like(std), where=std > least)
    return Preprocess("standardize", _stats(mean=mean, scale=scale))


def _apply_standardize(stats: Any, x: Any) -> Any:
    return _centred(stats["mean"], x) * stats["scale"][None]


def standardize_numbers(x: Any) -> Preprocess:
    """Standardize each feature, but leave those as they are that only hold 0 and 1.

    It is for tables: divided by its deviation a category that is rare would be a large number.
    Features that never vary give 0, as those of a category that no training example is of.

    Args:
      x: [N, ...] training inputs.
    Returns:
      A Preprocess with the stats of `standardize`, mean 0 and scale 1 for what is left.
    Raises:
      ValueError: x is empty, not finite or not [N, ...].
    Example:
      >>> preprocess = fn.standardize_numbers(np.array([[10.0, 1.0], [30.0, 0.0]]))
      >>> print(preprocess(np.array([[30.0, 1.0]])))
      [[1. 1.]]
    """
    stats, x = standardize(x).stats, _examples(x)
    first, binary, varies = x[:1], np.ones(x.shape[1:], bool), np.zeros(x.shape[1:], bool)
    for part in _parts(x):
        binary &= ((part == 0) | (part == 1)).all(axis=0)
        varies |= (part != first).any(axis=0)
    left = binary & varies
    mean, scale = np.where(left, 0, stats["mean"]), np.where(left, 1, stats["scale"])
    return Preprocess("standardize_numbers", _stats(mean=mean, scale=scale))


def quantile_transform(x: Any, *, bins: int = 48) -> Preprocess:
    """Put the place of a value among those of its column for it: -1 for the least one, about 0 for
    the median, 1 for the largest one, and for those beyond these; linear between quantiles.

    A value that many examples have is at the middle of their places, 0 if all have it. Columns that
    only hold 0 and 1 are left as they are, as by `standardize_numbers`, and what is beyond is 0 or
    1. It takes outliers and skewness out of the columns of a table; behind it `piecewise_linear`
    with evenly spaced edges has bins at quantiles (Gorishniy et al. 2022, arXiv 2203.05556,
    section 3.2.1).

    Args:
      x: [N, ...] training inputs.
      bins: how many bins between quantiles, from the least value to the largest.
    Returns:
      A Preprocess with `stats["edges"]` [..., bins + 1], and `stats["places"]`, what they become.
    Raises:
      ValueError: x is empty, not finite or not [N, ...], or bins is below 1.
      TypeError: bins is no integer.
    Example:
      >>> x = np.array([[1.0], [2.0], [3.0], [4.0], [900.0]])
      >>> preprocess = fn.quantile_transform(x, bins=4)
      >>> print(preprocess(np.array([[1.0], [2.5], [900.0], [1e6]])).ravel())
      [-1.   -0.25  1.    1.  ]
    """
    x = np.asarray(checks.inputs(x))
    flat = x.reshape(len(x), -1)
    edges = quantile_edges(flat, bins)
    least = 0.0
    if not checks.is_wide(x):  # then float32 computes with them
        edges = edges.astype(np.float32).astype(np.float64)
        least = 64 * float(np.finfo(np.float32).tiny)
    places = np.stack([places_of(own, least) for own in edges])
    switches = np.flatnonzero(((flat == 0) | (flat == 1)).all(axis=0) & (flat != flat[0]).any(0))
    edges[switches], places[switches] = np.eye(bins + 1)[-1], np.eye(bins + 1)[-1]
    shape = (*x.shape[1:], bins + 1)
    return Preprocess(
        "quantile_transform", _stats(edges=edges.reshape(shape), places=places.reshape(shape))
    )


def normalize_contrast(x: Any, *, epsilon: float = 10.0) -> Preprocess:
    """Give every example mean 0 and variance 1 (Coates, Lee and Ng 2011, section 3.2.1).

        (x - mean) / sqrt(var + epsilon)      over the features of the example

    Nothing is fitted: x is only looked at to be checked.

    Args:
      x: [N, ...] training inputs.
      epsilon: 0 or more, in squared units of the inputs; 10 is for pixels of 0 to 255.
    Returns:
      A Preprocess with `stats["epsilon"]`.
    Raises:
      ValueError: x is empty, not finite or not [N, ...], or a number is out of its range.
      TypeError: epsilon is no number.
    Example:
      >>> preprocess = fn.normalize_contrast(np.ones((1, 2)), epsilon=0)
      >>> print(preprocess(np.array([[0.0, 4.0], [10.0, 2.0]])))
      [[-1.  1.]
       [ 1. -1.]]
    """
    checks.NON_NEGATIVE.check("epsilon", epsilon)
    _examples(x)
    return Preprocess("normalize_contrast", _stats(epsilon=epsilon))


def _apply_normalize_contrast(stats: Any, x: Any) -> Any:
    xp, epsilon = x.__array_namespace__(), stats["epsilon"]
    if x.ndim < 2:
        raise ValueError(f"x must be [N, ...], a batch of examples, got shape {list(x.shape)}")
    features = tuple(range(1, x.ndim))
    wide = x.astype(xp.promote_types(epsilon.dtype, np.float32))
    centred = wide - wide.mean(axis=features, keepdims=True)
    variance = xp.square(centred).mean(axis=features, keepdims=True)
    divisor = xp.sqrt(variance + epsilon)
    return xp.where(divisor > 0, centred / xp.where(divisor > 0, divisor, 1), 0)


def whiten(x: Any, *, dim: int | None = None, epsilon: float = 1e-3) -> Preprocess:
    """Principal components of unit variance (PCA whitening).

        (x - mean) V / sqrt(variance + epsilon)

    with V the directions of largest variance of the training data, and their variances.

    Args:
      x: [N, ...] training inputs; an example is flattened to D features.
      dim: how many components to keep, at most D; None is all.
      epsilon: added to the variances, in squared units of the inputs, 0 or more; it keeps noise
        small where there is next to no variance. Directions without any give 0.
    Returns:
      A Preprocess with `stats["mean"]` [...] and `stats["matrix"]` [D, dim].
    Raises:
      ValueError: x is empty, not finite or not [N, ...], or a number is out of its range.
      TypeError: dim is no integer, or epsilon no number.
    Example:
      >>> x = np.random.default_rng(0).normal(size=(500, 3)) * np.array([9.0, 3.0, 1.0])
      >>> white = fn.whiten(x, dim=2, epsilon=0)(x)
      >>> np.abs(np.cov(white.T, bias=True)).round(3)
      array([[1., 0.],
             [0., 1.]])
    """
    checks.NON_NEGATIVE.check("epsilon", epsilon)
    x = _examples(x)
    features = math.prod(x.shape[1:])
    dim = features if dim is None else checks.Count(at_least=1, at_most=features).check("dim", dim)
    mean = _mean(x)
    covariance = np.zeros((features, features))
    for part in _parts(x):
        rows = (part - mean).reshape(len(part), features).astype(_working_dtype(x))
        covariance += rows.T @ rows
    variances, directions = np.linalg.eigh(covariance / len(x))
    variances, directions = variances[::-1][:dim], directions[:, ::-1][:, :dim]
    rounding = max(variances[0], 0) * math.sqrt(features) * np.finfo(_working_dtype(x)).eps
    kept = variances > rounding
    scale = np.zeros_like(variances)
    scale[kept] = 1 / np.sqrt(variances[kept] + epsilon)
    return Preprocess("whiten", _stats(mean=mean, matrix=directions * scale))


def _apply_whiten(stats: Any, x: Any) -> Any:
    centred = _centred(stats["mean"], x)
    return centred.reshape(centred.shape[0], -1) @ stats["matrix"]


def shuffle_features(x: Any, *, seed: int = 0) -> Preprocess:
    """Put the features of every example into another order, the same for all.

    What is learned from shuffled images owes nothing to their being images: the
    permutation-invariant task.

    Args:
      x: [N, ...] training inputs; an example is flattened to D features and keeps its shape.
      seed: which order.
    Returns:
      A Preprocess with `stats["order"]`, [D] int32.
    Raises:
      ValueError: x is empty, not finite or not [N, ...], or seed is below 0.
      TypeError: seed is no integer.
    Example:
      >>> preprocess = fn.shuffle_features(np.ones((1, 4)), seed=1)
      >>> out = preprocess(np.array([[1.0, 2.0, 3.0, 4.0]], "f"))
      >>> np.sort(out)
      array([[1., 2., 3., 4.]], dtype=float32)
    """
    x = _examples(x)
    seed = checks.NATURAL.check("seed", seed)
    order = np.random.default_rng(seed).permutation(math.prod(x.shape[1:]))
    return Preprocess("shuffle_features", freeze({"order": order.astype(np.int32)}))


def _apply_shuffle_features(stats: Any, x: Any) -> Any:
    order = stats["order"]
    if math.prod(x.shape[1:]) != len(order):
        raise ValueError(
            f"x has examples of shape {list(x.shape[1:])}, but {len(order)} features are shuffled"
        )
    return x.reshape(x.shape[0], -1)[:, order].reshape(x.shape)


class Kind(NamedTuple):
    """A preprocessing: the fitter, and what applies what it has fitted.

    Attributes:
      name: how options name it.
      step: the fitter, with its argument and what it does, in words.
      apply: `apply(stats, x)`, of JAX arrays or of NumPy arrays in float64, x [N, ...].
      stats: the names of what was fitted.
      computes: whether it computes with the inputs, so that how they are rounded before matters.
      in_parts: whether it can be fitted to examples that stay on disk.
    """

    name: str
    step: Step
    apply: Callable[[Any, Any], Any]
    stats: tuple[str, ...]
    computes: bool = True
    in_parts: bool = True


# The only list: to add a preprocessing, write the fitter, what applies it beside it, and a row.
KINDS = {
    "subtract_mean": Kind(
        "mean",
        Step(subtract_mean, "subtract the mean of the training data"),
        _apply_subtract_mean,
        ("mean",),
    ),
    "no_preprocess": Kind("none", Step(no_preprocess, "nothing"), _apply_nothing, (), False),
    "standardize": Kind(
        "standardize",
        Step(standardize, "divide by the standard deviation, too"),
        _apply_standardize,
        ("mean", "scale"),
    ),
    "standardize_numbers": Kind(
        "numbers",
        Step(standardize_numbers, "standardize, but for columns of 0 and 1 alone"),
        _apply_standardize,
        ("mean", "scale"),
    ),
    "quantile_transform": Kind(
        "quantiles",
        Step(quantile_transform, "the place of each value among those of its column", "bins"),
        placed,
        ("edges", "places"),
        in_parts=False,
    ),
    "normalize_contrast": Kind(
        "contrast",
        Step(normalize_contrast, "mean 0 and variance 1 for each example", "epsilon", float),
        _apply_normalize_contrast,
        ("epsilon",),
    ),
    "whiten": Kind(
        "whiten",
        Step(whiten, "principal components of variance 1", "dim"),
        _apply_whiten,
        ("mean", "matrix"),
    ),
    "shuffle_features": Kind(
        "shuffle",
        Step(shuffle_features, "the features in another order", "seed"),
        _apply_shuffle_features,
        ("order",),
        False,
    ),
}
PREPROCESSINGS = {kind.name: kind.step for kind in KINDS.values()}  # for options


def chain(*fitters: Callable[[Any], Preprocess]) -> Callable[[Any], Preprocess]:
    """Several preprocessings, each fitted to what the one before it gives.

    A fitter with options is a partial one, as in
    `chain(normalize_contrast, partial(whiten, dim=800))`.

    Args:
      fitters: functions such as `subtract_mean`.
    Returns:
      `fitter(x) -> Preprocess`, of a kind such as "normalize_contrast+whiten", whose stats
      are those of the parts by their number: "1", "2", ...
    Raises:
      TypeError: a fitter is no function.
    Example:
      >>> fitter = fn.chain(fn.subtract_mean, fn.standardize)
      >>> preprocess = fitter(np.array([[0.0, 4.0], [2.0, 8.0]]))
      >>> preprocess.kind, sorted(preprocess.stats)
      ('subtract_mean+standardize', ['1', '2'])
    """
    for fitter in fitters:
        checks.function("every preprocessing", fitter)

    def fit_all(x: Any) -> Preprocess:
        parts: list[Preprocess] = []
        for fit in fitters:
            parts.append(fit(x))
            if len(parts) < len(fitters):
                given = parts[-1].on_host if checks.is_wide(x) else parts[-1]
                x = _made(x, given)
        parts = [part for several in parts for part in parts_of(several)]  # chains may be nested
        kind = "+".join(part.kind for part in parts) or "no_preprocess"
        if len(parts) == 1:
            return parts[0]
        stats = {str(i): part.stats for i, part in enumerate(parts, start=1) if part.stats}
        return Preprocess(kind, FrozenDict.shallow(stats))

    fit_all.fitters = fitters  # type: ignore[attr-defined]
    return fit_all


def check_preprocess(preprocess: Preprocess) -> None:
    """Raise a ValueError unless its kinds are in `KINDS`, and its stats are those of such."""
    for kind in preprocess.kind.split("+"):
        checks.choose("preprocessing", kind, KINDS)
    for part in parts_of(preprocess):
        for name in KINDS[part.kind].stats:
            known = part.stats.get(name) if isinstance(part.stats, Mapping) else None
            if getattr(getattr(known, "dtype", None), "kind", None) not in ("b", "i", "u", "f"):
                raise ValueError(f"the preprocessing {part.kind} has no numbers called {name}")


def _stats(**values: Any) -> FrozenDict:
    """Statistics as they are kept: NumPy arrays of float64, which JAX might round, read-only."""
    arrays = {name: np.array(value, np.float64) for name, value in values.items()}
    for each in arrays.values():
        each.flags.writeable = False
    return FrozenDict.shallow(arrays)


def _centred(mean: Any, x: Any) -> Any:
    if x.shape[1:] != mean.shape:
        raise ValueError(
            f"x has examples of shape {list(x.shape[1:])}, but the mean that is "
            f"subtracted has {list(mean.shape)}"
        )
    dtype = x.__array_namespace__().promote_types(mean.dtype, np.float32)
    return x.astype(dtype) - mean.astype(dtype)[None]


def fitted_shape(preprocess: Preprocess) -> tuple[int, ...] | None:
    """The shape of an example that it was fitted to; None if what was fitted does not say.

    A new order of features alone says how many they are: (D,).
    """
    shape = None
    for part in parts_of(preprocess):
        if "mean" in part.stats:
            return tuple(np.shape(part.stats["mean"]))
        if "edges" in part.stats:
            return tuple(np.shape(part.stats["edges"])[:-1])
        if "order" in part.stats:
            shape = tuple(np.shape(part.stats["order"]))
    return shape


def parts_of(preprocess: Preprocess) -> list[Preprocess]:
    """Those that it is made of, in turn: itself alone, if it is not of `chain`."""
    kinds = preprocess.kind.split("+")
    if len(kinds) == 1:
        return [preprocess]
    stats = preprocess.stats
    numbers = (str(i) for i in range(1, len(kinds) + 1))
    return [
        Preprocess(kind, stats[i] if i in stats else FrozenDict())
        for kind, i in zip(kinds, numbers, strict=True)
    ]


def reads_parts(fitter: Any) -> bool:
    """Whether a fitter takes examples that stay on disk, rather than a sample of them."""
    fitter = function_of(fitter)
    several = getattr(fitter, "fitters", None)
    if several is not None:
        return all(map(reads_parts, several))
    return any(fitter is kind.step.function for kind in KINDS.values() if kind.in_parts)


def _examples(x: Any) -> Any:
    """Examples that were checked: a NumPy array, or Stored, which are checked as they are read."""
    return x if isinstance(x, Stored) else np.asarray(checks.inputs(x))


def _made(x: Any, given: Callable[[Any], Any]) -> Any:
    """What a preprocessing gives for all examples."""
    if isinstance(x, Stored):
        return x.made(lambda rows: np.asarray(given(rows)))
    return np.concatenate([np.asarray(given(part)) for part in _parts(x)])


def _mean(x: Any) -> np.ndarray:
    """The mean example in float64; exactly the value of a feature that never varies."""
    if isinstance(x, Stored):
        total, low, high = np.zeros(x.shape[1:]), x[0], x[0]
        for part in x.parts():
            total += part.sum(axis=0, dtype=np.float64)
            low, high = np.minimum(low, part.min(axis=0)), np.maximum(high, part.max(axis=0))
        return np.clip(total / len(x), low, high)
    return np.clip(x.mean(axis=0, dtype=np.float64), x.min(axis=0), x.max(axis=0))


def _parts(x: Any) -> Iterator[Any]:
    """x in parts of at most 4,096 examples, so that no copy of all of it is made."""
    if isinstance(x, Stored):
        return x.parts()
    return (x[start : start + 4096] for start in range(0, len(x), 4096))


def _working_dtype(x: np.ndarray) -> Any:
    """Float32 for pixels and for float32 data; float64 for the others."""
    narrow = x.dtype.itemsize <= (4 if x.dtype.kind == "f" else 2)
    return np.float32 if narrow else np.float64
