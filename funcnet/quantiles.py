"""Quantiles of columns, and the places of values among them."""

from typing import Any

import numpy as np

from funcnet import checks

__all__ = ["quantile_edges"]


def quantile_edges(x: Any, bins: int) -> np.ndarray:
    """Edges for `piecewise_linear` at the quantiles of the columns of training data, from the
    least value to the largest (Gorishniy et al. 2022, arXiv 2203.05556, section 3.2.1).

    Args:
      x: [N, D] numbers, finite.
      bins: the number of bins; where many examples have one value, edges are repeated.
    Returns:
      edges [D, bins + 1], a NumPy array of float64.
    Raises:
      ValueError: x is empty, not finite or not [N, D], or bins is below 1.
      TypeError: bins is no integer.
    Example:
      >>> fn.quantile_edges(np.array([[1.0], [2.0], [3.0], [4.0], [9.0]]), bins=2)
      array([[1., 3., 9.]])
    """
    x = np.asarray(checks.inputs(x), np.float64)
    if x.ndim != 2:
        raise ValueError(f"x must be [N, D], got {list(x.shape)}")
    bins = checks.COUNT.check("bins", bins)
    edges = np.quantile(x, np.linspace(0, 1, bins + 1), axis=0).T
    return np.ascontiguousarray(np.maximum.accumulate(edges, axis=1))  # rounding may swap two


def places_of(edges: np.ndarray, least: float) -> np.ndarray:
    """What edges become: -1 to 1 in equal steps, and those that are equal the mean of their own."""
    group = np.cumsum(np.diff(edges, prepend=edges[:1]) > least)
    sums = np.bincount(group, weights=np.linspace(-1, 1, len(edges)))
    return np.round(sums / np.bincount(group), 15)[group]


def placed(stats: Any, x: Any) -> Any:
    """x [N, ...] by the edges [..., B + 1] and places of `stats`, linear between them."""
    xp, edges, places = x.__array_namespace__(), stats["edges"], stats["places"]
    if x.shape[1:] != edges.shape[:-1]:
        raise ValueError(
            f"x has examples of shape {list(x.shape[1:])}, but {list(edges.shape[:-1])} have edges"
        )
    if xp is np and len(x) > (rows := max(1, 2**22 // edges.size)):
        slices = range(0, len(x), rows)
        return np.concatenate([placed(stats, x[i : i + rows]) for i in slices])
    dtype = xp.promote_types(edges.dtype, np.float32)
    # Sixteenths, so that no difference is beyond the largest number, nor its inverse the least.
    x, edges = x.astype(dtype)[..., None] / 16, edges.astype(dtype)[None] / 16
    left, right, places = edges[..., :-1], edges[..., 1:], places.astype(dtype)[None]
    wide = right > left  # in this dtype, too
    within = (xp.clip(x, left, right) - left) / xp.where(wide, right - left, 1)
    shares = xp.where(wide, within, (x >= right).astype(dtype))  # [N, ..., bins]
    return places[..., 0] + (shares * (places[..., 1:] - places[..., :-1])).sum(axis=-1)
