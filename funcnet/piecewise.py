"""Piecewise-linear embeddings of the numbers in a table: how far each is through each of some bins.

They take [N, D], D columns, and give [N, D * B] of B bins, or what an affine map of each column
makes of these. The passes, functions of arrays, stand beside the layer.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, embeddings, layers
from funcnet.bind import bind
from funcnet.layer import Initial, Layer, Shape, make_layer
from funcnet.net import DIM
from funcnet.tree import Array

__all__ = [
    "piecewise_linear",
    "piecewise_linear_backward",
    "piecewise_linear_forward",
]


def piecewise_linear_forward(x: Array, edges: Array) -> tuple[jax.Array, Any]:
    """Piecewise-linear encoding of numbers (Gorishniy et al. 2022, arXiv 2203.05556, equation 1).

    For each bin of a column, from one edge to the next, how far x is through it:

        out_t = (x - edges_t) / (edges_t+1 - edges_t), at least 0 and at most 1

    but below 0 in the first bin, where x is below it, and above 1 in the last one, where it is
    above. A bin without width, between equal edges, gives 0; first and last are those that have
    one.

    Args:
      x: [N, D] floating point.
      edges: [D, B + 1], not decreasing along a row; cast to the dtype of x, or float32 if it is
        narrower. They may be traced.
    Returns:
      out [N, D * B], and the cache for `piecewise_linear_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: x is not floating point.
    Example:
      >>> x, edges = jnp.array([[1.5], [-1.0]]), jnp.array([[0.0, 1.0, 3.0]])
      >>> out, cache = fn.piecewise_linear_forward(x, edges)
      >>> print(out)
      [[ 1.    0.25]
       [-1.    0.  ]]
      >>> print(fn.piecewise_linear_backward(jnp.ones((2, 2)), cache))
      [[0.5]
       [1. ]]
    """
    x, edges = layers.floating("piecewise_linear", x), jnp.asarray(edges)
    if x.ndim != 2:
        raise ValueError(f"piecewise_linear: x must be [N, D], got {list(x.shape)}")
    if edges.ndim != 2 or edges.shape[0] != x.shape[1] or edges.shape[1] < 2:
        raise ValueError(
            f"piecewise_linear: edges must be [D, B + 1] with D = {x.shape[1]} and B >= 1, "
            f"got {list(edges.shape)}"
        )
    share, _, below, above = _in_bins(x, edges)
    share = jnp.where(below, 0, jnp.where(above, 1, share))
    return embeddings.flat_columns(share).astype(x.dtype), (x, edges)


def piecewise_linear_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `piecewise_linear_forward`: the edges are constants.

        dx = sum of dout_t / (edges_t+1 - edges_t) over the bin that x is in

    An x on an edge is in the bin to its right.

    Args:
      dout: [N, D * B], the gradient of the loss with respect to `out`.
      cache: what `piecewise_linear_forward` returned.
    Returns:
      dx [N, D].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.piecewise_linear_forward(jnp.array([[2.0]]), jnp.array([[0.0, 1.0, 3.0]]))
      >>> print(fn.piecewise_linear_backward(jnp.array([[5.0, 1.0]]), cache))
      [[0.5]]
    """
    x, edges = cache
    (rows, columns), bins = x.shape, edges.shape[1] - 1
    dout = layers.like_output("piecewise_linear", dout, (rows, columns * bins), x.dtype)
    _, slope, below, above = _in_bins(x, edges)
    inside = jnp.where(below | above, 0, slope[None])  # [N, D, B]
    dx = (layers.accumulator(dout).reshape(rows, columns, bins) * inside).sum(axis=-1)
    return dx.astype(x.dtype)


def _in_bins(x: jax.Array, edges: jax.Array) -> tuple[jax.Array, ...]:
    """How far x is through each bin, [N, D, B], the slopes [D, B], and where it stops at 0 or 1."""
    wide = layers.accumulator(x)[..., None]  # [N, D, 1]
    edges = edges.astype(wide.dtype)
    width = edges[:, 1:] - edges[:, :-1]  # [D, B]
    real = width > 0
    first = real & (jnp.cumsum(real, axis=1) == 1)
    last = real & (jnp.cumsum(real[:, ::-1], axis=1)[:, ::-1] == 1)
    slope = jnp.where(real, 1 / jnp.where(real, width, 1), 0)
    share = jnp.where(real[None], (wide - edges[None, :, :-1]) * slope[None], 0)  # [N, D, B]
    below = (wide < edges[None, :, :-1]) & ~first[None]
    above = real[None] & (wide >= edges[None, :, 1:]) & ~last[None]
    return share, slope, below, above


def piecewise_linear(edges: Any, dim: int | None = None) -> Layer:
    """Piecewise-linear encoding of the columns, [N, D] to [N, D * B]; with `dim` an affine map of
    each column follows, to [N, D * dim]. See `piecewise_linear_forward` and `column_affine`.

    Args:
      edges: [D, B + 1], not decreasing along a row, such as `quantile_edges` of training data. They
        are part of the layer, not parameters: layers of equal edges are equal. They may be traced.
      dim: the number of outputs of each column, of parameters w [D, B, dim] and b [D, dim]; None
        is the encoding alone, which has none.
    Returns:
      The layer, of kind "piecewise_linear".
    Raises:
      ValueError: edges that decrease, are not finite or are not [D, B + 1]; dim below 1; in `init`,
        the shape is another.
      TypeError: dim is no integer.
    Example:
      >>> edges = fn.quantile_edges(np.arange(9.0)[:, None], 4)
      >>> edges
      array([[0., 2., 4., 6., 8.]])
      >>> layer = fn.piecewise_linear(edges)
      >>> print(layer.forward({}, {}, jnp.array([[3.0]]))[0])
      [[1.  0.5 0.  0. ]]
      >>> params, state, out_shape = fn.piecewise_linear(edges, 8).init(jax.random.key(0), (1,))
      >>> params["w"].shape, out_shape
      ((1, 4, 8), (8,))
    """
    edges = _Edges.of(edges) if checks.concrete(edges) else edges
    if dim is None:
        forward = bind(_encode, edges=edges)
        init = bind(_init_encode, edges=edges)
        return make_layer("piecewise_linear", forward, piecewise_linear_backward, init)
    return make_layer(
        "piecewise_linear",
        bind(_embed, edges=edges),
        _embed_backward,
        bind(_init_embed, edges=edges, dim=DIM.check("dim", dim)),
        names=("w", "b"),
    )


@dataclass(frozen=True, repr=False)
class _Edges:
    """An array of edges that is equal to others of the same values."""

    shape: Shape
    values: bytes

    @classmethod
    def of(cls, edges: Any) -> "_Edges":
        edges = np.array(edges, np.float64, order="C") + 0.0  # of zeros there is one
        if edges.ndim != 2 or edges.shape[1] < 2:
            raise ValueError(f"edges must be [D, B + 1] with B >= 1, got {list(edges.shape)}")
        bad = np.argwhere(~np.isfinite(edges))
        if len(bad):
            raise ValueError(f"edges must be finite, but those of column {bad[0][0]} are not")
        bad = np.argwhere(np.diff(edges) < 0)
        if len(bad):
            raise ValueError(f"edges must not decrease, but those of column {bad[0][0]} do")
        return cls(edges.shape, edges.tobytes())

    def __repr__(self) -> str:  # checkpoints know a net by its text
        return f"edges {list(self.shape)} {hashlib.sha256(self.values).hexdigest()}"

    def array(self) -> np.ndarray:
        return np.frombuffer(self.values).reshape(self.shape)


def _array(edges: Any) -> Any:
    return edges.array() if isinstance(edges, _Edges) else edges


def _encode(x: Any, *, edges: Any) -> tuple[jax.Array, Any]:
    dtype = layers.common_dtype(jnp.float32, checks.array(x).dtype)
    return piecewise_linear_forward(x, jnp.asarray(_array(edges), dtype))


def _init_encode(key: Any, in_shape: Shape, *, edges: Any) -> Initial:
    columns, count = edges.shape
    if in_shape != (columns,):
        raise ValueError(
            f"piecewise_linear: in_shape must be ({columns},), the number of rows of edges, "
            f"got {list(in_shape)}"
        )
    return {}, {}, (columns * (count - 1),)


def _embed(x: Any, w: Any, b: Any, *, edges: Any) -> tuple[jax.Array, Any]:
    encoded, cache = _encode(x, edges=edges)
    out, affine_cache = embeddings.column_affine_forward(encoded, w, b)
    return out, (cache, affine_cache)


def _embed_backward(dout: Any, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    cache, affine_cache = cache
    dencoded, dw, db = embeddings.column_affine_backward(dout, affine_cache)
    return piecewise_linear_backward(dencoded, cache), dw, db


def _init_embed(key: Any, in_shape: Shape, *, edges: Any, dim: int) -> Initial:
    _, _, out_shape = _init_encode(key, in_shape, edges=edges)
    columns = edges.shape[0]
    params = embeddings.uniform_columns(key, columns, out_shape[0] // columns, dim)
    return params, {}, (columns * dim,)
