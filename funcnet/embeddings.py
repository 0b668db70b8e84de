"""Embeddings of the numbers in a table: what a layer makes of each column by itself.

They take [N, D], D columns, and give [N, D * dim], dim features of each. Each layer has its passes,
as functions of arrays, beside it; those of bins are in `piecewise`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks, layers
from funcnet.bind import bind
from funcnet.layer import Initial, Layer, Shape, make_layer, with_rates
from funcnet.net import DIM
from funcnet.rectifiers import relu_backward, relu_forward
from funcnet.tree import Array

__all__ = [
    "column_affine",
    "column_affine_backward",
    "column_affine_forward",
    "pbld",
    "pbld_backward",
    "pbld_forward",
    "periodic",
    "periodic_backward",
    "periodic_forward",
]


EMBEDDINGS = {  # what options make of numbers, for help
    "none": "themselves",
    "pbld": "waves with learned frequencies and phases, beside the number itself",
    "periodic": "waves with learned frequencies",
    "piecewise": "how far they are through each of some bins, between quantiles",
}
PBLD_DIM, PERIODIC_DIM, BINS = 4, 24, 16  # if not given; those of the papers, but for the bins


def column_affine_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """An affine map for each column, of its part of the features: `out_d = x_d w_d + b_d`.

    Args:
      x: [N, D * B] floating point: B features of the first column, B of the second, ...
      w: [D, B, M], the dtype of x.
      b: [D, M], the dtype of x.
    Returns:
      out [N, D * M], and the cache for `column_affine_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w = jnp.array([[1.0, 2.0]]), jnp.array([[[1.0, -1.0]], [[3.0, 5.0]]])
      >>> out, cache = fn.column_affine_forward(x, w, jnp.zeros((2, 2)))
      >>> print(out)
      [[ 1. -1.  6. 10.]]
      >>> dx, dw, db = fn.column_affine_backward(jnp.ones((1, 4)), cache)
      >>> print(dx)
      [[0. 8.]]
    """
    x, w, b = jnp.asarray(x), jnp.asarray(w), jnp.asarray(b)
    _check_columns("column_affine", w, b)
    columns, size, _ = w.shape
    if x.ndim != 2 or x.shape[1] != columns * size:
        raise ValueError(
            f"column_affine: x must be [N, {columns} * {size}], for w {list(w.shape)}, "
            f"got {list(x.shape)}"
        )
    layers.same_dtype("column_affine", x=x, w=w, b=b)
    features = x.reshape(-1, columns, size)  # [N, D, B]
    return flat_columns(_by_column(features, w) + b[None]), (features, w)


def column_affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `column_affine_forward`, column by column those of an affine map:

        dx_d = dout_d w_d^T,   dw_d = x_d^T dout_d,   db_d = sum of dout_d over the batch

    Args:
      dout: [N, D * M], the gradient of the loss with respect to `out`.
      cache: what `column_affine_forward` returned.
    Returns:
      dx [N, D * B], dw [D, B, M], db [D, M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, w = jnp.array([[1.0, 2.0]]), jnp.array([[[1.0, -1.0]], [[3.0, 5.0]]])
      >>> _, cache = fn.column_affine_forward(x, w, jnp.zeros((2, 2)))
      >>> dx, dw, db = fn.column_affine_backward(jnp.ones((1, 4)), cache)
      >>> dx.shape, dw.shape, db.shape
      ((1, 2), (2, 1, 2), (2, 2))
    """
    features, w = cache
    columns = _columns_of("column_affine", dout, features.shape[0], w, w.dtype)  # [N, D, M]
    dfeatures, dw, db = _by_column_backward(columns, features, w)
    return flat_columns(dfeatures), dw, db


def column_affine(dim: int, *, columns: int) -> Layer:
    """An affine map for each column, [N, D * B] to [N, D * dim], with parameters w [D, B, dim]
    and b [D, dim]; see `column_affine_forward`.

    Weights and biases start uniform between -1 / sqrt(B) and 1 / sqrt(B), as in the
    implementation of the embeddings that end in it (Gorishniy et al. 2022, arXiv 2203.05556).

    Args:
      dim: the number of outputs of each column.
      columns: D, the number of columns.
    Returns:
      The layer, of kind "column_affine".
    Raises:
      ValueError: a size is below 1; in `init`, the features do not divide into so many columns.
      TypeError: a size is no integer.
    Example:
      >>> layer = fn.column_affine(4, columns=3)
      >>> params, state, out_shape = layer.init(jax.random.key(0), (48,))
      >>> params["w"].shape, out_shape
      ((3, 16, 4), (12,))
    """
    dim, columns = DIM.check("dim", dim), checks.COUNT.check("columns", columns)
    return make_layer(
        "column_affine",
        column_affine_forward,
        column_affine_backward,
        bind(_init_column_affine, dim=dim, columns=columns),
        names=("w", "b"),
    )


def _init_column_affine(key: Any, in_shape: Shape, *, dim: int, columns: int) -> Initial:
    if len(in_shape) != 1 or in_shape[0] % columns:
        raise ValueError(
            f"column_affine: in_shape must be (D * B,) with D = {columns} columns, "
            f"got {list(in_shape)}"
        )
    params = uniform_columns(key, columns, in_shape[0] // columns, dim)
    return params, {}, (columns * dim,)


def uniform_columns(key: Any, columns: int, size: int, dim: int) -> dict[str, jax.Array]:
    """Initial w [D, B, M] and b [D, M], uniform between -1 / sqrt(B) and 1 / sqrt(B)."""
    w_key, b_key = jax.random.split(checks.key(key))
    bound = 1 / math.sqrt(size)
    w = jax.random.uniform(w_key, (columns, size, dim), minval=-bound, maxval=bound)
    return {"w": w, "b": jax.random.uniform(b_key, (columns, dim), minval=-bound, maxval=bound)}


def _by_column(features: jax.Array, w: jax.Array) -> jax.Array:
    """[N, D, B] times [D, B, M] for each column: [N, D, M]."""
    return jnp.einsum("ndb,dbm->ndm", features, w)


def _by_column_backward(
    dout: jax.Array, features: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of the features [N, D, B], of w [D, B, M], and of a bias [D, M]."""
    dw = jnp.einsum("ndb,ndm->dbm", features, dout)
    return jnp.einsum("ndm,dbm->ndb", dout, w), dw, dout.sum(axis=0)


def _columns_of(layer: str, dout: Array, rows: int, w: jax.Array, dtype: Any) -> jax.Array:
    """dout [N, D * M] as [N, D, M]."""
    columns, _, dim = w.shape
    dout = layers.like_output(layer, dout, (rows, columns * dim), dtype)
    return dout.reshape(rows, columns, dim)


def flat_columns(columns: jax.Array) -> jax.Array:
    """[N, D, M] as [N, D * M]."""
    return columns.reshape(columns.shape[0], -1)


def _check_columns(layer: str, w: jax.Array, b: jax.Array) -> None:
    if w.ndim != 3:
        raise ValueError(f"{layer}: w must be [D, B, M], got {list(w.shape)}")
    layers.check_shape(layer, "b", b, "[D, M]", (w.shape[0], w.shape[2]))


def periodic_forward(x: Array, c: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """Periodic embeddings of numbers (Gorishniy et al. 2022, arXiv 2203.05556, section 3.3), a
    linear map of waves of learned frequencies c for each column:

        out_d = [cos(v), sin(v)] w_d + b_d,   v = 2 pi c_d x_d

    Args:
      x: [N, D] floating point.
      c: [D, k], the dtype of x.
      w: [D, 2 k, M], the dtype of x.
      b: [D, M], the dtype of x.
    Returns:
      out [N, D * M], and the cache for `periodic_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, c = jnp.array([[0.5]]), jnp.array([[1.0]])  # half a wave
      >>> out, cache = fn.periodic_forward(x, c, jnp.array([[[1.0], [1.0]]]), jnp.zeros((1, 1)))
      >>> print(out.round())
      [[-1.]]
      >>> dx, dc, dw, db = fn.periodic_backward(jnp.ones((1, 1)), cache)
      >>> print(db)
      [[1.]]
    """
    x, c, w, b = _check_waves("periodic", x, c, w, b, features=2)
    v = 2 * math.pi * _outer(x, c)  # [N, D, k], float32 at least
    waves = jnp.concatenate([jnp.cos(v), jnp.sin(v)], axis=-1)  # [N, D, 2 k]
    wide_w, wide_b = layers.accumulator(w), layers.accumulator(b)
    out = flat_columns(_by_column(waves, wide_w) + wide_b[None])
    return out.astype(x.dtype), (x, c, w, waves)


def periodic_backward(dout: Array, cache: Any) -> tuple[jax.Array, ...]:
    """Gradients of `periodic_forward`.

    With dwaves = dout_d w_d^T = [dcos, dsin] and dv = dsin cos(v) - dcos sin(v):
        dx_d = 2 pi sum of c_d dv over the frequencies,   dc_d = 2 pi sum of x_d dv over the batch

    Args:
      dout: [N, D * M], the gradient of the loss with respect to `out`.
      cache: what `periodic_forward` returned.
    Returns:
      dx [N, D], dc [D, k], dw [D, 2 k, M], db [D, M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, c = jnp.array([[0.5]]), jnp.array([[1.0]])
      >>> _, cache = fn.periodic_forward(x, c, jnp.array([[[1.0], [1.0]]]), jnp.zeros((1, 1)))
      >>> dx, dc, dw, db = fn.periodic_backward(jnp.ones((1, 1)), cache)
      >>> print(np.array(dx).round(3), np.array(dc).round(3))
      [[-6.283]] [[-3.142]]
    """
    x, c, w, waves = cache
    columns = layers.accumulator(_columns_of("periodic", dout, x.shape[0], w, x.dtype))
    dwaves, dw, db = _by_column_backward(columns, waves, layers.accumulator(w))
    (cos, sin), (dcos, dsin) = jnp.split(waves, 2, axis=-1), jnp.split(dwaves, 2, axis=-1)
    dx, dc = _outer_backward(2 * math.pi * (dsin * cos - dcos * sin), x, c)
    return tuple(gradient.astype(x.dtype) for gradient in (dx, dc, dw, db))


def periodic(
    dim: int = PERIODIC_DIM, *, k: int = 48, sigma: Any = 0.01, relu: bool = True, rate: Any = 1.0
) -> Layer:
    """Periodic embeddings of the columns, [N, D] to [N, D * dim], with parameters c [D, k],
    w [D, 2 k, dim] and b [D, dim]; see `periodic_forward`.

    With ReLU they are called PLR in the paper, without PL. The frequencies start normal with a
    standard deviation of sigma, which matters most; w and b as in `column_affine`.

    Args:
      dim: the number of outputs of each column.
      k: the number of frequencies of each column.
      sigma: of the initial frequencies, for columns of a spread of about 1; a number, which may
        be traced.
      relu: whether a ReLU follows.
      rate: how many times as fast as other parameters all of these learn under Adam; a number,
        which may be traced. They are held divided by it, see `with_rates`.
    Returns:
      The layer, of kind "periodic".
    Raises:
      ValueError: a size is below 1, or a number out of its range; in `init`, the shape is another.
      TypeError: a size is no integer, or a number none.
    Example:
      >>> params, state, out_shape = fn.periodic(4, k=8).init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(228 parameters
        b  float32[3, 4]
        c  float32[3, 8]
        w  float32[3, 16, 4]
      )
      >>> out_shape
      (12,)
    """
    dim, k = DIM.check("dim", dim), checks.COUNT.check("k", k)
    checks.POSITIVE.check("sigma", sigma)
    pair = (_plr_forward, _plr_backward) if relu else (periodic_forward, periodic_backward)
    init = bind(_init_periodic, dim=dim, k=k, sigma=sigma)
    layer = make_layer("periodic", *pair, init, names=("c", "w", "b"))
    return with_rates(layer, c=rate, w=rate, b=rate)


def _init_periodic(key: Any, in_shape: Shape, *, dim: int, k: int, sigma: Any) -> Initial:
    columns = _count_columns("periodic", in_shape)
    c_key, key = jax.random.split(checks.key(key))
    c = jax.random.normal(c_key, (columns, k))
    params = uniform_columns(key, columns, 2 * k, dim)
    return {"c": jnp.asarray(sigma, c.dtype) * c, **params}, {}, (columns * dim,)


def _plr_forward(x: Array, c: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    out, cache = periodic_forward(x, c, w, b)
    out, relu_cache = relu_forward(out)
    return out, (cache, relu_cache)


def _plr_backward(dout: Array, cache: Any) -> tuple[jax.Array, ...]:
    cache, relu_cache = cache
    return periodic_backward(relu_backward(dout, relu_cache), cache)


def pbld_forward(x: Array, c: Array, phase: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """The periodic embeddings of RealMLP (Holzmueller et al. 2024, arXiv 2407.04491, "PBLD":
    periodic, bias, linear, dense), waves with a learned phase, and the number itself:

        out_d = [x_d, cos(2 pi c_d x_d + phase_d) w_d + b_d]

    Args:
      x: [N, D] floating point.
      c, phase: [D, k], the dtype of x.
      w: [D, k, M - 1], the dtype of x.
      b: [D, M - 1], the dtype of x.
    Returns:
      out [N, D * M], and the cache for `pbld_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, c, phase = jnp.array([[0.5]]), jnp.array([[1.0]]), jnp.zeros((1, 1))
      >>> out, cache = fn.pbld_forward(x, c, phase, jnp.array([[[2.0]]]), jnp.zeros((1, 1)))
      >>> print(out)
      [[ 0.5 -2. ]]
      >>> dx, dc, dphase, dw, db = fn.pbld_backward(jnp.ones((1, 2)), cache)
      >>> print(dw.ravel(), db.ravel())
      [-1.] [1.]
    """
    x, c, w, b = _check_waves("pbld", x, c, w, b, features=1)
    phase = jnp.asarray(phase)
    layers.check_shape("pbld", "phase", phase, "[D, k]", c.shape)
    layers.same_dtype("pbld", x=x, phase=phase)
    v = 2 * math.pi * _outer(x, c) + layers.accumulator(phase)[None]  # [N, D, k]
    cos = jnp.cos(v)
    mapped = _by_column(cos, layers.accumulator(w)) + layers.accumulator(b)[None]  # [N, D, M - 1]
    out = jnp.concatenate([x[..., None], mapped.astype(x.dtype)], axis=-1)
    return flat_columns(out), (x, c, w, cos, jnp.sin(v))


def pbld_backward(dout: Array, cache: Any) -> tuple[jax.Array, ...]:
    """Gradients of `pbld_forward`.

    With dout_d = [dnumber, dmapped] and dv = -sin(v) dmapped w_d^T:
        dx_d = dnumber + 2 pi sum of c_d dv over the frequencies,
        dc_d = 2 pi sum of x_d dv,   dphase_d = sum of dv over the batch

    Args:
      dout: [N, D * M], the gradient of the loss with respect to `out`.
      cache: what `pbld_forward` returned.
    Returns:
      dx [N, D], dc [D, k], dphase [D, k], dw [D, k, M - 1], db [D, M - 1].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, c, phase = jnp.array([[0.5]]), jnp.array([[1.0]]), jnp.zeros((1, 1))
      >>> _, cache = fn.pbld_forward(x, c, phase, jnp.array([[[2.0]]]), jnp.zeros((1, 1)))
      >>> dx, dc, dphase, dw, db = fn.pbld_backward(jnp.ones((1, 2)), cache)
      >>> print(np.array(dx).round(3), dw.ravel())
      [[1.]] [-1.]
    """
    x, c, w, cos, sin = cache
    (rows, columns), dim = x.shape, w.shape[2] + 1
    dout = layers.like_output("pbld", dout, (rows, columns * dim), x.dtype)
    dout = layers.accumulator(dout).reshape(rows, columns, dim)
    dcos, dw, db = _by_column_backward(dout[..., 1:], cos, layers.accumulator(w))
    dv = -sin * dcos
    dx, dc = _outer_backward(2 * math.pi * dv, x, c)
    grads = (dout[..., 0] + dx, dc, dv.sum(axis=0), dw, db)
    return tuple(gradient.astype(x.dtype) for gradient in grads)


def pbld(dim: int = PBLD_DIM, *, k: int = 16, sigma: Any = 0.1, rate: Any = 1.0) -> Layer:
    """The embeddings of RealMLP, [N, D] to [N, D * dim], with parameters c, phase [D, k],
    w [D, k, dim - 1] and b [D, dim - 1]; see `pbld_forward`. The defaults are the paper's.

    The frequencies start normal with a standard deviation of sigma, the phases uniform between
    -pi and pi; w and b as in `column_affine`.

    Args:
      dim: the number of outputs of each column, 2 or more: the first one is the number itself.
      k: the number of frequencies of each column.
      sigma: of the initial frequencies; a number, which may be traced.
      rate: how many times as fast as other parameters all of these learn under Adam (RealMLP has
        0.1); a number, which may be traced. They are held divided by it, see `with_rates`.
    Returns:
      The layer, of kind "pbld".
    Raises:
      ValueError: dim is below 2, k below 1, or a number out of its range; in `init`, the shape is
        another.
      TypeError: a size is no integer, or a number none.
    Example:
      >>> params, state, out_shape = fn.pbld(5, k=16).init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(300 parameters
        b      float32[3, 4]
        c      float32[3, 16]
        phase  float32[3, 16]
        w      float32[3, 16, 4]
      )
      >>> out_shape
      (15,)
    """
    dim, k = checks.Count(at_least=2).check("dim", dim), checks.COUNT.check("k", k)
    checks.POSITIVE.check("sigma", sigma)
    layer = make_layer(
        "pbld",
        pbld_forward,
        pbld_backward,
        bind(_init_pbld, dim=dim, k=k, sigma=sigma),
        names=("c", "phase", "w", "b"),
    )
    return with_rates(layer, c=rate, phase=rate, w=rate, b=rate)


def _init_pbld(key: Any, in_shape: Shape, *, dim: int, k: int, sigma: Any) -> Initial:
    columns = _count_columns("pbld", in_shape)
    c_key, phase_key, key = jax.random.split(checks.key(key), 3)
    c = jax.random.normal(c_key, (columns, k))
    phase = jax.random.uniform(phase_key, (columns, k), minval=-math.pi, maxval=math.pi)
    params = uniform_columns(key, columns, k, dim - 1)
    waves = {"c": jnp.asarray(sigma, c.dtype) * c, "phase": phase}
    return {**waves, **params}, {}, (columns * dim,)


def _outer(x: jax.Array, c: jax.Array) -> jax.Array:
    """[N, D] times [D, k] for each column: [N, D, k], float32 at least."""
    return layers.accumulator(x)[..., None] * layers.accumulator(c)[None]


def _outer_backward(dv: jax.Array, x: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of x [N, D] and of c [D, k]."""
    dx = (dv * layers.accumulator(c)[None]).sum(axis=-1)
    return dx, (dv * layers.accumulator(x)[..., None]).sum(axis=0)


def _check_waves(
    layer: str, x: Array, c: Array, w: Array, b: Array, *, features: int
) -> tuple[jax.Array, ...]:
    x, c, w, b = (jnp.asarray(array) for array in (x, c, w, b))
    _check_columns(layer, w, b)
    if x.ndim != 2:
        raise ValueError(f"{layer}: x must be [N, D], got {list(x.shape)}")
    if c.ndim != 2 or c.shape[0] != x.shape[1]:
        columns = x.shape[1]
        raise ValueError(f"{layer}: c must be [D, k] with D = {columns}, got {list(c.shape)}")
    shape = (c.shape[0], features * c.shape[1], w.shape[2])
    layers.check_shape(layer, "w", w, "[D, 2 k, M]" if features == 2 else "[D, k, M - 1]", shape)
    layers.same_dtype(layer, x=x, c=c, w=w, b=b)
    return x, c, w, b


def _count_columns(layer: str, in_shape: Shape) -> int:
    if len(in_shape) != 1:
        raise ValueError(f"{layer}: in_shape must be (D,), D columns, got {list(in_shape)}")
    return in_shape[0]
