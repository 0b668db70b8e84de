"""Rectifiers, the activations that are linear on either side of 0: passes of arrays, and layers.

The registry of all activations begins here; those of `activations`, which imports it, follow.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks, layers
from funcnet.bind import bind
from funcnet.layer import Initial, Layer, Shape, enter, make_layer
from funcnet.tree import Array

__all__ = [
    "affine_relu_backward",
    "affine_relu_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "prelu",
    "prelu_backward",
    "prelu_forward",
    "relu",
    "relu_backward",
    "relu_forward",
]

# By name: a constructor is entered where it is defined, and called without arguments.
ACTIVATIONS: dict[str, Callable[[], Layer]] = {}


def relu_forward(x: Array) -> tuple[jax.Array, Any]:
    """Rectified linear unit, `out = max(x, 0)` element by element; a NaN stays a NaN.

    Args:
      x: any shape; integers, too.
    Returns:
      out, of the shape and dtype of x, and the cache for `relu_backward`.
    Example:
      >>> out, cache = fn.relu_forward(jnp.array([-1.0, 0.0, 2.0]))
      >>> print(out, fn.relu_backward(jnp.ones(3), cache))
      [0. 0. 2.] [0. 0. 1.]
    """
    x = checks.array(x)
    # jnp.maximum would give autodiff a gradient of 0.5 at 0, where(x > 0, x, 0) swallow a NaN.
    return jnp.where(x <= 0, jnp.zeros_like(x), x), x


def relu_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `relu_forward`: dout where x > 0, and 0 where x <= 0.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `relu_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.relu_forward(jnp.array([-1.0, 0.0, 2.0]))
      >>> print(fn.relu_backward(jnp.array([1.0, 2.0, 3.0]), cache))
      [0. 0. 3.]
    """
    x = cache
    dout = layers.like_output("relu", dout, x.shape, x.dtype)
    return jnp.where(x <= 0, jnp.zeros_like(dout), dout)


@enter(ACTIVATIONS)
def relu() -> Layer:
    """Rectified linear unit, `out = max(x, 0)`, without parameters.

    Returns:
      The layer, of kind "relu".
    Example:
      >>> out, cache, state = fn.relu().forward({}, {}, jnp.array([[-1.0, 2.0]]))
      >>> print(out)
      [[0. 2.]]
    """
    return make_layer("relu", relu_forward, relu_backward)


def leaky_relu_forward(x: Array, negative_slope: Any = 0.01) -> tuple[jax.Array, Any]:
    """Leaky rectified linear unit (Maas et al. 2013): x where x > 0, else `negative_slope * x`.

    Args:
      x: any shape, floating point.
      negative_slope: a number, usually between 0 and 1; may be traced.
    Returns:
      out, of the shape and dtype of x, and the cache for `leaky_relu_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.leaky_relu_forward(jnp.array([-2.0, 0.0, 2.0]), 0.5)
      >>> print(out, fn.leaky_relu_backward(jnp.ones(3), cache))
      [-1.  0.  2.] [0.5 0.5 1. ]
    """
    x = layers.floating("leaky_relu", x)
    slope = jnp.asarray(negative_slope, x.dtype)
    return jnp.where(x <= 0, slope * x, x), (x, slope)


def leaky_relu_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `leaky_relu_forward`: dout where x > 0, `negative_slope * dout` where x <= 0.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `leaky_relu_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.leaky_relu_forward(jnp.array([-2.0, 0.0, 2.0]), 0.5)
      >>> print(fn.leaky_relu_backward(jnp.array([2.0, 4.0, 6.0]), cache))
      [1. 2. 6.]
    """
    x, slope = cache
    dout = layers.like_output("leaky_relu", dout, x.shape, x.dtype)
    return jnp.where(x <= 0, slope * dout, dout)


@enter(ACTIVATIONS)
def leaky_relu(negative_slope: Any = 0.01) -> Layer:
    """Leaky rectified linear unit: `out = negative_slope * x` where x <= 0, else x.

    There are no parameters; see `leaky_relu_forward`.

    Args:
      negative_slope: a finite number, 0.01 as in the paper; may be traced.
    Returns:
      The layer, of kind "leaky_relu".
    Raises:
      ValueError: negative_slope is not finite.
      TypeError: it is no number.
    Example:
      >>> out, cache, state = fn.leaky_relu(0.5).forward({}, {}, jnp.array([[-2.0, 2.0]]))
      >>> print(out)
      [[-1.  2.]]
    """
    checks.FINITE.check("negative_slope", negative_slope)
    forward = bind(leaky_relu_forward, negative_slope=negative_slope)
    return make_layer("leaky_relu", forward, leaky_relu_backward)


def prelu_forward(x: Array, slope: Array) -> tuple[jax.Array, Any]:
    """Parametric ReLU (He et al. 2015, arXiv 1502.01852, equation 1), a slope for each unit:

        out = x where x > 0, else slope * x

    Args:
      x: [N, d1, ..., dk] floating point.
      slope: [d1, ..., dk], the dtype of x.
    Returns:
      out, of the shape and dtype of x, and the cache for `prelu_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, slope = jnp.array([[-2.0, 2.0], [-1.0, -1.0]]), jnp.array([0.5, 1.0])
      >>> out, cache = fn.prelu_forward(x, slope)
      >>> print(out)
      [[-1.   2. ]
       [-0.5 -1. ]]
      >>> dx, dslope = fn.prelu_backward(jnp.ones((2, 2)), cache)
      >>> print(dslope)
      [-3. -1.]
    """
    x, slope = layers.check_features("prelu", x, slope=slope)
    return jnp.where(x <= 0, slope[None] * x, x), (x, slope)


def prelu_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array]:
    """Gradients of `prelu_forward`.

        dx = dout where x > 0, else slope * dout,   dslope = sum of dout x over x <= 0

    Args:
      dout: [N, d1, ..., dk], the gradient of the loss with respect to `out`.
      cache: what `prelu_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dslope [d1, ..., dk].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.prelu_forward(jnp.array([[-2.0, 2.0]]), jnp.array([0.5, 1.0]))
      >>> dx, dslope = fn.prelu_backward(jnp.ones((1, 2)), cache)
      >>> print(dx, dslope)
      [[0.5 1. ]] [-2.  0.]
    """
    x, slope = cache
    dout = layers.like_output("prelu", dout, x.shape, x.dtype)
    wide = layers.accumulator(x)
    products = layers.accumulator(dout) * jnp.where(x <= 0, wide, jnp.zeros_like(wide))
    dx = jnp.where(x <= 0, slope[None] * dout, dout)
    return dx, products.sum(axis=0).astype(slope.dtype)


@enter(ACTIVATIONS)
def prelu(initial: Any = 0.25) -> Layer:
    """Parametric ReLU, with a parameter slope for each unit; see `prelu_forward`.

    Args:
      initial: the slopes at the start, 0.25 as in the paper; may be traced.
    Returns:
      The layer, of kind "prelu", with a parameter slope of the shape of one example.
    Raises:
      ValueError: initial is not finite.
      TypeError: it is no number.
    Example:
      >>> params, _, _ = fn.prelu().init(jax.random.key(0), (3,))
      >>> print(params["slope"])
      [0.25 0.25 0.25]
    """
    checks.FINITE.check("initial", initial)
    init = bind(_init_prelu, initial=initial)
    return make_layer("prelu", prelu_forward, prelu_backward, init, names=("slope",))


def _init_prelu(key: Any, in_shape: Shape, *, initial: Any) -> Initial:
    ones = jnp.ones(in_shape)
    return {"slope": jnp.asarray(initial, ones.dtype) * ones}, {}, in_shape


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """`affine_forward`, then `relu_forward`: `out = max(x w + b, 0)`.

    Args:
      x: [N, d1, ..., dk] with d1 * ... * dk = D; integers are cast to the dtype of w.
      w: [D, M] floating point.
      b: [M], the dtype of w.
    Returns:
      out [N, M] in the dtype of w, and the cache for `affine_relu_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w, b = jnp.ones((1, 2)), jnp.array([[1.0, -1.0], [1.0, -1.0]]), jnp.zeros(2)
      >>> out, cache = fn.affine_relu_forward(x, w, b)
      >>> print(out)
      [[2. 0.]]
      >>> dx, dw, db = fn.affine_relu_backward(jnp.ones((1, 2)), cache)
      >>> print(dx, db)
      [[1. 1.]] [1. 0.]
    """
    out, affine_cache = layers.affine_forward(x, w, b)
    out, relu_cache = relu_forward(out)
    return out, (affine_cache, relu_cache)


def affine_relu_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `affine_relu_forward`: those of `affine_backward`, behind `relu_backward`.

    Args:
      dout: [N, M], the gradient of the loss with respect to `out`.
      cache: what `affine_relu_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dw [D, M], db [M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.affine_relu_forward(jnp.ones((5, 3)), jnp.ones((3, 4)), jnp.zeros(4))
      >>> [gradient.shape for gradient in fn.affine_relu_backward(jnp.ones((5, 4)), cache)]
      [(5, 3), (3, 4), (4,)]
    """
    affine_cache, relu_cache = cache
    return layers.affine_backward(relu_backward(dout, relu_cache), affine_cache)
