"""Layers for tables: a scale for each column, embeddings of categories, layers on some columns.

Each layer has its passes, as functions of arrays, beside it; `embeddings` has those of numbers.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, layers
from funcnet.bind import bind
from funcnet.layer import (
    Cache,
    Initial,
    Layer,
    Result,
    Shape,
    as_shape,
    make_layer,
    with_rates,
)
from funcnet.net import DIM, check_scale, initial_weights
from funcnet.tree import Array, Tree, structure_of

__all__ = [
    "column_scale",
    "column_scale_backward",
    "column_scale_forward",
    "embed_categories",
    "embed_categories_backward",
    "embed_categories_forward",
    "ntk_affine",
    "ntk_affine_backward",
    "ntk_affine_forward",
    "on_columns",
]


# A scale for each column, and affine layers in the parametrization of the neural tangent kernel.


def column_scale_forward(x: Array, s: Array) -> tuple[jax.Array, Any]:
    """A factor for each column, `out = x * s`.

    Args:
      x: [N, D] floating point, or [N, d1, ..., dk].
      s: [D], or [d1, ..., dk], the dtype of x.
    Returns:
      out, of the shape and dtype of x, and the cache for `column_scale_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, s = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([10.0, 0.5])
      >>> out, cache = fn.column_scale_forward(x, s)
      >>> print(out)
      [[10.  1.]
       [30.  2.]]
      >>> dx, ds = fn.column_scale_backward(jnp.ones((2, 2)), cache)
      >>> print(ds)
      [4. 6.]
    """
    x, s = layers.check_features("column_scale", x, s=s)
    return x * s[None], (x, s)


def column_scale_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array]:
    """Gradients of `column_scale_forward`: dx = dout s, ds = sum of dout x over the batch.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `column_scale_forward` returned.
    Returns:
      dx, of the shape of x, and ds, of that of s.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.column_scale_forward(jnp.ones((1, 2)), jnp.array([10.0, 0.5]))
      >>> dx, ds = fn.column_scale_backward(jnp.ones((1, 2)), cache)
      >>> print(dx, ds)
      [[10.   0.5]] [1. 1.]
    """
    x, s = cache
    dout = layers.like_output("column_scale", dout, x.shape, x.dtype)
    ds = (layers.accumulator(dout) * layers.accumulator(x)).sum(axis=0)
    return dout * s[None], ds.astype(s.dtype)


def column_scale(*, rate: Any = 1.0) -> Layer:
    """A learned factor s for each column, 1 at the start (the scaling layer of RealMLP,
    Holzmueller et al. 2024, arXiv 2407.04491): a soft selection of features.

    Args:
      rate: how many times as fast as other parameters the factors learn under Adam (RealMLP has
        6); a number, which may be traced. They are held as s / rate, see `with_rates`.
    Returns:
      The layer, of kind "column_scale", with a parameter s of the shape of one example.
    Raises:
      ValueError: rate is not above 0.
      TypeError: it is no number.
    Example:
      >>> params, _, _ = fn.column_scale(rate=4.0).init(jax.random.key(0), (3,))
      >>> print(params["s"])
      [0.25 0.25 0.25]
    """
    layer = make_layer(
        "column_scale", column_scale_forward, column_scale_backward, _init_scale, names=("s",)
    )
    return with_rates(layer, s=rate)


def _init_scale(key: Any, in_shape: Shape) -> Initial:
    return {"s": jnp.ones(in_shape)}, {}, in_shape


def ntk_affine_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """Affine map in the parametrization of the neural tangent kernel (Jacot et al. 2018,
    arXiv 1806.07572, section 3), of each example flattened to a vector:

        out = x w / sqrt(D) + b

    Args:
      x: [N, d1, ..., dk] with d1 * ... * dk = D; integers are cast to the dtype of w.
      w: [D, M] floating point.
      b: [M], the dtype of w.
    Returns:
      out [N, M], and the cache for `ntk_affine_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w, b = jnp.ones((1, 4)), jnp.ones((4, 2)), jnp.zeros(2)
      >>> out, cache = fn.ntk_affine_forward(x, w, b)
      >>> print(out)
      [[2. 2.]]
      >>> dx, dw, db = fn.ntk_affine_backward(jnp.ones((1, 2)), cache)
      >>> print(dx, db)
      [[1. 1. 1. 1.]] [1. 1.]
    """
    x, w, b = layers.check_affine("ntk_affine", x, w, b)
    return layers.affine_forward(x, w / math.sqrt(w.shape[0]), b)


def ntk_affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `ntk_affine_forward`: those of an affine map of w / sqrt(D), and dw of its
    gradient divided by sqrt(D).

    Args:
      dout: [N, M], the gradient of the loss with respect to `out`.
      cache: what `ntk_affine_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dw [D, M], db [M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.ntk_affine_forward(jnp.ones((1, 4)), jnp.ones((4, 2)), jnp.zeros(2))
      >>> dx, dw, db = fn.ntk_affine_backward(jnp.ones((1, 2)), cache)
      >>> print(dw.T)
      [[0.5 0.5 0.5 0.5]
       [0.5 0.5 0.5 0.5]]
    """
    x, w, _ = cache
    dout = layers.like_output("ntk_affine", dout, (x.shape[0], w.shape[1]), w.dtype)
    dx, dw, db = layers.affine_backward(dout, cache)
    return dx, dw / math.sqrt(w.shape[0]), db


def ntk_affine(
    dim: int, *, weight_scale: Any = 1.0, bias_scale: Any = 0.0, bias_rate: Any = 1.0
) -> Layer:
    """Affine layer in NTK parametrization, `out = x w / sqrt(D) + b`; parameters w [D, dim], b.

    Under Adam every element of w moves by the learning rate, and so `x w / sqrt(D)` by sqrt(D)
    times less than in `affine`: wide layers want no smaller rates.

    Args:
      dim: the number of outputs.
      weight_scale: standard deviation of the initial weights, around 0: 1 in this
        parametrization; a number, which may be traced, or a name as for `affine`.
      bias_scale: standard deviation of the initial biases; a number, which may be traced.
      bias_rate: how many times as fast as the weights the biases learn under Adam (RealMLP has
        0.1); a number, which may be traced. They are held as b / bias_rate, see `with_rates`.
    Returns:
      The layer, of kind "ntk_affine".
    Raises:
      ValueError: dim is below 1, or a number is out of its range.
      TypeError: dim is no integer, or a number is none.
    Example:
      >>> params, _, out_shape = fn.ntk_affine(4).init(jax.random.key(0), (3,))
      >>> params["w"].shape, out_shape
      ((3, 4), (4,))
    """
    dim = DIM.check("dim", dim)
    check_scale(weight_scale)
    checks.NON_NEGATIVE.check("bias_scale", bias_scale)
    layer = make_layer(
        "ntk_affine",
        ntk_affine_forward,
        ntk_affine_backward,
        bind(_init_ntk, dim=dim, weight_scale=weight_scale, bias_scale=bias_scale),
        names=("w", "b"),
    )
    return with_rates(layer, b=bias_rate)


def _init_ntk(
    key: Any, in_shape: Shape, *, dim: int, weight_scale: Any, bias_scale: Any
) -> Initial:
    w_key, b_key = jax.random.split(checks.key(key))
    w = initial_weights(w_key, (math.prod(in_shape), dim), weight_scale)
    b = jnp.asarray(bias_scale, w.dtype) * jax.random.normal(b_key, (dim,))
    return {"w": w, "b": b}, {}, (dim,)


def embed_categories_forward(x: Array, w: Array, *, sizes: Sequence[int]) -> tuple[jax.Array, Any]:
    """Embeddings of categories (Guo and Berkhahn 2016, arXiv 1604.06737): a matrix for each group
    of columns, of which a one-hot group takes a row and a group of zeros none.

        out_g = x_g w_g

    Args:
      x: [N, S] with the columns of the groups side by side; integers are cast to the dtype of w.
      w: [S, M] floating point, the matrices of the groups one below the other.
      sizes: the number of columns of each of G groups; S is their sum.
    Returns:
      out [N, G * M], and the cache for `embed_categories_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x = jnp.array([[1, 0, 0, 0, 1]])  # the first of 3, the second of 2
      >>> w = jnp.arange(10.0).reshape(5, 2)
      >>> out, cache = fn.embed_categories_forward(x, w, sizes=(3, 2))
      >>> print(out)
      [[0. 1. 8. 9.]]
      >>> dx, dw = fn.embed_categories_backward(jnp.ones((1, 4)), cache)
      >>> print(dw.T)
      [[1. 0. 0. 0. 1.]
       [1. 0. 0. 0. 1.]]
    """
    x, w, sizes = checks.array(x), jnp.asarray(w), tuple(sizes)
    if x.ndim != 2 or x.shape[1] != sum(sizes):
        raise ValueError(
            f"embed_categories: x must be [N, {sum(sizes)}], the sum of the sizes, "
            f"got {list(x.shape)}"
        )
    if w.ndim != 2 or w.shape[0] != sum(sizes):
        raise ValueError(
            f"embed_categories: w must be [S, M] with S = {sum(sizes)}, got {list(w.shape)}"
        )
    x = layers.cast_integers(x, w.dtype)
    layers.same_dtype("embed_categories", x=x, w=w)
    outs = [x[:, a:b] @ w[a:b] for a, b in _spans(sizes)]
    return jnp.concatenate(outs, axis=1), (x, w, layers.Static(sizes))


def embed_categories_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array]:
    """Gradients of `embed_categories_forward`: dx_g = dout_g w_g^T, dw_g = x_g^T dout_g.

    Args:
      dout: [N, G * M], the gradient of the loss with respect to `out`.
      cache: what `embed_categories_forward` returned.
    Returns:
      dx [N, S], dw [S, M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, w = jnp.array([[1, 0, 0, 0, 1]]), jnp.ones((5, 2))
      >>> _, cache = fn.embed_categories_forward(x, w, sizes=(3, 2))
      >>> dx, dw = fn.embed_categories_backward(jnp.ones((1, 4)), cache)
      >>> print(dx)
      [[2. 2. 2. 2. 2.]]
    """
    x, w, sizes = cache
    spans, shape = _spans(sizes.value), (x.shape[0], len(sizes.value) * w.shape[1])
    dout = layers.like_output("embed_categories", dout, shape, w.dtype)
    douts = jnp.split(dout, len(spans), axis=1)  # [N, M] each
    dx = [d @ w[a:b].T for d, (a, b) in zip(douts, spans, strict=True)]
    dw = [x[:, a:b].T @ d for d, (a, b) in zip(douts, spans, strict=True)]
    return jnp.concatenate(dx, axis=1), jnp.concatenate(dw, axis=0)


def _spans(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where each group of columns begins and ends."""
    ends = np.cumsum([0, *sizes]).tolist()
    return list(pairwise(ends))


def embed_categories(sizes: Sequence[int], dim: int, *, weight_scale: Any = 1.0) -> Layer:
    """Embeddings of one-hot categories, [N, sum(sizes)] to [N, len(sizes) * dim], with a parameter
    w [sum(sizes), dim]; see `embed_categories_forward`. There is no bias.

    Args:
      sizes: the number of columns of each group.
      dim: the number of outputs of each group.
      weight_scale: standard deviation of the initial embeddings, normal around 0: 1, as in RealMLP
        (Holzmueller et al. 2024, arXiv 2407.04491); a number, which may be traced.
    Returns:
      The layer, of kind "embed_categories".
    Raises:
      ValueError: there are no sizes, one of them or dim is below 1, or weight_scale is below 0; in
        `init`, the shape is another.
      TypeError: sizes is no sequence of integers, dim none, or weight_scale no number.
    Example:
      >>> params, state, out_shape = fn.embed_categories((3, 2), 4).init(jax.random.key(0), (5,))
      >>> params["w"].shape, out_shape
      ((5, 4), (8,))
    """
    if not isinstance(sizes, Iterable) or isinstance(sizes, str):
        raise TypeError(f"sizes must be a sequence of sizes, got {sizes!r}")
    sizes = tuple(checks.COUNT.check("every size in sizes", size) for size in sizes)
    if not sizes:
        raise ValueError("sizes must have a size for each group, got none")
    checks.NON_NEGATIVE.check("weight_scale", weight_scale)
    init = bind(_init_embeddings, sizes=sizes, dim=DIM.check("dim", dim), weight_scale=weight_scale)
    forward = bind(embed_categories_forward, sizes=sizes)
    return make_layer("embed_categories", forward, embed_categories_backward, init, names=("w",))


def _init_embeddings(
    key: Any, in_shape: Shape, *, sizes: tuple[int, ...], dim: int, weight_scale: Any
) -> Initial:
    if in_shape != (sum(sizes),):
        raise ValueError(
            f"embed_categories: in_shape must be ({sum(sizes)},), the sum of the sizes, "
            f"got {list(in_shape)}"
        )
    w = initial_weights(checks.key(key), (sum(sizes), dim), weight_scale)
    return {"w": w}, {}, (len(sizes) * dim,)


def on_columns(columns: Sequence[int] | slice, layer: Layer) -> Layer:
    """A layer on some columns of [N, D]; its output, flattened, goes first, the others follow.

        out = [layer(x[:, columns]), x[:, the others]]

    `params` and `state` are those of the layer, which may be a whole network.

    Args:
      columns: the columns in the order in which the layer is given them, from 0; or a slice.
      layer: the layer.
    Returns:
      A layer, of kind "on_columns".
    Raises:
      ValueError: columns are none, or one is there twice or is below 0; in `init` and `forward`, x
        does not have them.
      TypeError: layer is no layer, or columns are no integers.
    Example:
      >>> layer = fn.on_columns([2, 0], fn.affine(1))
      >>> params, state, out_shape = layer.init(jax.random.key(0), (3,))
      >>> params["w"].shape, out_shape
      ((2, 1), (2,))
      >>> params = params | {"w": jnp.ones((2, 1))}
      >>> print(layer.forward(params, state, jnp.array([[1.0, 5.0, 2.0]]))[0])
      [[3. 5.]]
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"on_columns takes a layer, such as affine(100), got {layer!r}")
    chosen = _as_columns(columns)
    functions = (_on_columns_init, _on_columns_forward, _on_columns_backward)
    return Layer("on_columns", *(bind(f, columns=chosen, layer=layer) for f in functions))


class _Span(NamedTuple):
    """A slice; which columns it takes is known with their number."""

    start: int | None
    stop: int | None
    step: int | None


def _as_columns(columns: Any) -> tuple[int, ...] | _Span:
    if isinstance(columns, slice):
        parts = (columns.start, columns.stop, columns.step)
        return _Span(*(None if part is None else int(part) for part in parts))
    if not isinstance(columns, Iterable) or isinstance(columns, str):
        raise TypeError(f"columns must be a sequence of columns or a slice, got {columns!r}")
    chosen = tuple(checks.NATURAL.check("every column in columns", column) for column in columns)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"columns must be distinct, got {checks.cut(chosen)}")
    if not chosen:
        raise ValueError("columns must have a column or more, got none")
    return chosen


def _places(columns: tuple[int, ...] | _Span, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns that are chosen among `count`, and the others."""
    if isinstance(columns, _Span):
        columns = tuple(range(count)[slice(*columns)])
    if not columns or max(columns) >= count:
        wrong = f"column {max(columns)}" if columns else "none"
        raise ValueError(f"on_columns: x must have the columns, but {wrong} is among its {count}")
    chosen = np.array(columns)
    return chosen, np.setdiff1d(np.arange(count), chosen)


def _on_columns_init(key: Any, in_shape: Sequence[int], *, columns: Any, layer: Layer) -> Initial:
    shape = as_shape(in_shape)
    if len(shape) != 1:
        raise ValueError(f"on_columns: in_shape must be (D,), D columns, got {list(shape)}")
    chosen, others = _places(columns, shape[0])
    params, state, out_shape = layer.init(key, (len(chosen),))
    return params, state, (math.prod(out_shape) + len(others),)


def _on_columns_forward(
    params: Tree,
    state: Tree,
    x: Any,
    *,
    key: Any = None,
    train: bool = True,
    columns: Any,
    layer: Layer,
) -> Result:
    x = checks.array(x)
    if x.ndim != 2:
        raise ValueError(f"on_columns: x must be [N, D], got {list(x.shape)}")
    chosen, others = _places(columns, x.shape[1])
    out, cache, state = layer.forward(params, state, x[:, chosen], key=key, train=train)
    flat, rest = layers.promote(out.reshape(x.shape[0], -1), x[:, others])
    facts = layers.Static((out.shape, out.dtype, flat.dtype, x.shape[1]))
    return jnp.concatenate([flat, rest], axis=1), Cache((cache, facts), structure_of(params)), state


def _on_columns_backward(
    dout: Any, cache: Cache, *, columns: Any, layer: Layer
) -> tuple[jax.Array, Tree]:
    inner, facts = cache.arrays
    shape, out_dtype, dtype, count = facts.value
    chosen, others = _places(columns, count)
    size = math.prod(shape[1:])
    dout = layers.like_output("on_columns", dout, (shape[0], size + len(others)), dtype)
    dflat, drest = dout[:, :size], dout[:, size:]
    dchosen, grads = layer.backward(dflat.reshape(shape).astype(out_dtype), inner)
    gathered = jnp.concatenate(layers.promote(dchosen, drest), axis=1)
    return gathered[:, np.argsort(np.concatenate([chosen, others]))], grads
