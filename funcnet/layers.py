"""Forward and backward passes of the layers, as pure functions of arrays.

Every forward pass returns its output and a cache, a pytree of arrays; the
backward pass takes the gradient of the loss with respect to the output and the
cache, and returns the gradients with respect to the inputs, in their order.
No custom derivative is attached: `jax.grad` of a forward pass is an independent
check of the backward pass beside it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


def affine_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """Affine map, `out = x w + b`, of each example flattened to a vector.

    Args:
      x: [N, d1, ..., dk] with d1 * ... * dk = D; integers (pixels) are cast to
        the dtype of w, other dtypes must be that of w.
      w: [D, M] floating point.
      b: [M], the dtype of w.
    Returns:
      out [N, M] in the dtype of w, and the cache for `affine_backward`.
    Raises:
      ValueError: shapes do not fit. TypeError: dtypes do not.
    """
    x, w, b = jnp.asarray(x), jnp.asarray(w), jnp.asarray(b)
    if x.ndim < 2:
        raise ValueError(f"affine: x must be [N, ...], a batch of examples, got {list(x.shape)}")
    if w.ndim != 2 or math.prod(x.shape[1:]) != w.shape[0]:
        features = math.prod(x.shape[1:])
        raise ValueError(
            f"affine: w must be [D, M] with D = {features}, the size of one example of "
            f"x {list(x.shape)}, got {list(w.shape)}"
        )
    if b.shape != w.shape[1:]:
        raise ValueError(f"affine: b must be [M] = {list(w.shape[1:])}, got {list(b.shape)}")
    x = _cast_integers(x, w.dtype)
    _same_dtype("affine", x=x, w=w, b=b)
    rows = x.reshape(x.shape[0], w.shape[0])  # [N, D]
    return rows @ w + b, (x, w)


def affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `affine_forward`.

        dx = dout w^T,   dw = x^T dout,   db = sum of dout over the batch

    Args:
      dout: [N, M], the gradient of the loss with respect to `out`.
      cache: what `affine_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dw [D, M], db [M].
    """
    x, w = cache
    dout = _like_output("affine", dout, (x.shape[0], w.shape[1]), w.dtype)
    rows = x.reshape(x.shape[0], w.shape[0])  # [N, D]
    dx = (dout @ w.T).reshape(x.shape)
    return dx, rows.T @ dout, dout.sum(axis=0)


def relu_forward(x: Array) -> tuple[jax.Array, Any]:
    """Rectified linear unit, `out = max(x, 0)` element by element; a NaN stays a NaN.

    Args:
      x: any shape.
    Returns:
      out, of the shape and dtype of x, and the cache for `relu_backward`.
    """
    x = jnp.asarray(x)
    # jnp.maximum would give autodiff a gradient of 0.5 at 0, where(x > 0, x, 0) swallow a NaN.
    return jnp.where(x <= 0, jnp.zeros_like(x), x), x


def relu_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `relu_forward`: dout where x > 0, and 0 where x <= 0.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `relu_forward` returned.
    Returns:
      dx, of the shape of x.
    """
    x = cache
    dout = _like_output("relu", dout, x.shape, x.dtype)
    return jnp.where(x <= 0, jnp.zeros_like(dout), dout)


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """`affine_forward`, then `relu_forward`: the same arguments and errors.

    Returns:
      out [N, M], and the cache for `affine_relu_backward`.
    """
    out, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(out)
    return out, (affine_cache, relu_cache)


def affine_relu_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `affine_relu_forward`: dx, dw, db as `affine_backward` gives them."""
    affine_cache, relu_cache = cache
    return affine_backward(relu_backward(dout, relu_cache), affine_cache)


def with_custom_vjp(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    """A function that autodiff differentiates by a hand-written backward pass.

        affine = with_custom_vjp(affine_forward, affine_backward)
        jax.grad(lambda w: affine(x, w, b).sum())(w)      # runs affine_backward

    Args:
      forward: `forward(*inputs) -> (out, cache)`, with floating point inputs.
      backward: `backward(dout, cache)` gives the gradient of each input, as a
        tuple in the order of the inputs, or bare if there is just one.
    Returns:
      `f(*inputs) -> out`, for use inside code that `jax.grad` or `jax.vjp` handles.
    """

    @jax.custom_vjp
    def f(*inputs: Any) -> Any:
        return forward(*inputs)[0]

    def f_backward(cache: Any, dout: Any) -> tuple[Any, ...]:
        grads = backward(dout, cache)
        return grads if isinstance(grads, tuple) else (grads,)

    f.defvjp(forward, f_backward)
    return f


def _cast_integers(x: jax.Array, dtype: Any) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == jnp.bool_:
        return x.astype(dtype)
    return x


def _same_dtype(layer: str, **arrays: jax.Array) -> None:
    dtypes = {name: array.dtype for name, array in arrays.items()}
    if len(set(dtypes.values())) > 1 or not all(
        jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes.values()
    ):
        found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{layer}: arrays must have one floating point dtype, got {found}")


def _like_output(layer: str, dout: Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    dout = jnp.asarray(dout)
    if dout.shape != shape:
        raise ValueError(
            f"{layer}: dout must have the shape of out, {list(shape)}, got {list(dout.shape)}"
        )
    if dout.dtype != dtype:
        raise TypeError(f"{layer}: dout must have the dtype of out, {dtype}, got {dout.dtype}")
    return dout
