"""Activations that bend: forward and backward passes of arrays, and the layers that they make.

With the rectifiers they have names in a registry, for `mlp` and the command line.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import layers
from funcnet.bind import bind
from funcnet.layer import (
    Cache,
    Initial,
    Layer,
    Result,
    as_layer,
    as_shape,
    child_of,
    enter,
    inside,
    make_layer,
    with_rates,
    without_empty,
)
from funcnet.rectifiers import ACTIVATIONS
from funcnet.tree import Array, FrozenDict, Tree, restructure, structure_of

__all__ = [
    "gelu",
    "gelu_backward",
    "gelu_forward",
    "gelu_tanh_backward",
    "gelu_tanh_forward",
    "logistic",
    "logistic_backward",
    "logistic_forward",
    "mish",
    "mish_backward",
    "mish_forward",
    "parametric",
    "parametric_backward",
    "parametric_forward",
    "selu",
    "selu_backward",
    "selu_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
]


# The fixed point of SELU (Klambauer et al. 2017, arXiv 1706.02515, equation 14).
SELU_SCALE = 1.0507009873554805  # lambda
SELU_ALPHA = 1.6732632423543772


def gelu_forward(x: Array) -> tuple[jax.Array, Any]:
    """Gaussian error linear unit, exact (Hendrycks and Gimpel 2016, arXiv 1606.08415):

        out = x Phi(x),   Phi(x) = (1 + erf(x / sqrt(2))) / 2

    Args:
      x: any shape, floating point.
    Returns:
      out, of the shape and dtype of x, and the cache for `gelu_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.gelu_forward(jnp.array([-1.0, 0.0, 1.0]))
      >>> print(np.array(out).round(3))
      [-0.159  0.     0.841]
      >>> print(np.array(fn.gelu_backward(jnp.ones(3), cache)).round(3))
      [-0.083  0.5    1.083]
    """
    x = layers.floating("gelu", x)
    wide = layers.accumulator(x)
    return (wide * _normal_cdf(wide)).astype(x.dtype), x


def gelu_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `gelu_forward`.

        dx = dout (Phi(x) + x phi(x)),   phi(x) = exp(-x^2 / 2) / sqrt(2 pi)

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `gelu_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.gelu_forward(jnp.zeros(3))
      >>> print(np.array(fn.gelu_backward(jnp.array([1.0, 2.0, -3.0]), cache)).round(3))
      [ 0.5  1.  -1.5]
    """
    x = cache
    dout = layers.like_output("gelu", dout, x.shape, x.dtype)
    wide = layers.accumulator(x)
    density = jnp.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return (layers.accumulator(dout) * (_normal_cdf(wide) + wide * density)).astype(x.dtype)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * jax.lax.erfc(x * -math.sqrt(0.5))  # 1 + erf would cancel where x << 0


def gelu_tanh_forward(x: Array) -> tuple[jax.Array, Any]:
    """The approximation of GELU by tanh (Hendrycks and Gimpel 2016, section 2):

        out = x (1 + tanh(u)) / 2,   u = sqrt(2 / pi) (x + 0.044715 x^3)

    It is within 5e-4 of the exact one, and faster.

    Args:
      x: any shape, floating point.
    Returns:
      out, of the shape and dtype of x, and the cache for `gelu_tanh_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.gelu_tanh_forward(jnp.array([-1.0, 0.0, 1.0]))
      >>> print(np.array(out).round(3))
      [-0.159  0.     0.841]
      >>> print(np.array(fn.gelu_tanh_backward(jnp.ones(3), cache)).round(3))
      [-0.083  0.5    1.083]
    """
    x = layers.floating("gelu_tanh", x)
    wide = layers.accumulator(x)
    t = jnp.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    return (0.5 * wide * (1 + t)).astype(x.dtype), (x, t)


def gelu_tanh_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `gelu_tanh_forward`.

        dx = dout ((1 + t) + x (1 - t^2) du) / 2,   t = tanh(u),
        du = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `gelu_tanh_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.gelu_tanh_forward(jnp.zeros(3))
      >>> print(np.array(fn.gelu_tanh_backward(jnp.array([1.0, 2.0, -3.0]), cache)).round(3))
      [ 0.5  1.  -1.5]
    """
    x, t = cache
    dout = layers.like_output("gelu_tanh", dout, x.shape, x.dtype)
    wide = layers.accumulator(x)
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * wide * wide)
    slope = (1 - t * t) * wide
    bend = jnp.where(slope == 0, 0, slope * du)  # du is infinite where |x| is huge and slope 0
    return (layers.accumulator(dout * 0.5) * ((1 + t) + bend)).astype(x.dtype)


@enter(ACTIVATIONS)
def gelu(*, approximate: bool = False) -> Layer:
    """Gaussian error linear unit, `out = x Phi(x)`, without parameters; see `gelu_forward`.

    Args:
      approximate: whether it is the formula with tanh, `gelu_tanh_forward`, PyTorch's
        approximate="tanh".
    Returns:
      The layer, of kind "gelu".
    Example:
      >>> x = jnp.array([[-1.0, 0.0, 3.0]])
      >>> print(np.array(fn.gelu().forward({}, {}, x)[0]).round(4))
      [[-0.1587  0.      2.996 ]]
      >>> print(np.array(fn.gelu(approximate=True).forward({}, {}, x)[0]).round(4))
      [[-0.1588  0.      2.9964]]
    """
    if approximate:
        return make_layer("gelu", gelu_tanh_forward, gelu_tanh_backward)
    return make_layer("gelu", gelu_forward, gelu_backward)


@enter(ACTIVATIONS)
def gelu_tanh() -> Layer:
    """`gelu(approximate=True)`, under a name of its own."""
    return gelu(approximate=True)


def tanh_forward(x: Array) -> tuple[jax.Array, Any]:
    """Hyperbolic tangent, element by element.

    Args:
      x: any shape, floating point.
    Returns:
      out, of the shape and dtype of x, and the cache for `tanh_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.tanh_forward(jnp.array([-1.0, 0.0, 1.0]))
      >>> print(np.array(out).round(3))
      [-0.762  0.     0.762]
      >>> print(np.array(fn.tanh_backward(jnp.ones(3), cache)).round(3))
      [0.42 1.   0.42]
    """
    out = jnp.tanh(layers.floating("tanh", x))
    return out, out


def tanh_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `tanh_forward`: `dx = dout (1 - out^2)`.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `tanh_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.tanh_forward(jnp.zeros(3))
      >>> print(np.array(fn.tanh_backward(jnp.array([1.0, 2.0, -3.0]), cache)).round(3))
      [ 1.  2. -3.]
    """
    out = cache
    dout = layers.like_output("tanh", dout, out.shape, out.dtype)
    return dout * (1 - out) * (1 + out)


@enter(ACTIVATIONS)
def tanh() -> Layer:
    """Hyperbolic tangent, without parameters.

    Returns:
      The layer, of kind "tanh".
    Example:
      >>> out, cache, state = fn.tanh().forward({}, {}, jnp.array([[-9.0, 0.0, 9.0]]))
      >>> print(out.round())
      [[-1.  0.  1.]]
    """
    return make_layer("tanh", tanh_forward, tanh_backward)


def logistic_forward(x: Array) -> tuple[jax.Array, Any]:
    """The logistic function, element by element: `out = 1 / (1 + exp(-x))`.

    Args:
      x: any shape, floating point.
    Returns:
      out, of the shape and dtype of x, and the cache for `logistic_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.logistic_forward(jnp.array([-1.0, 0.0, 1.0]))
      >>> print(np.array(out).round(3))
      [0.269 0.5   0.731]
      >>> print(np.array(fn.logistic_backward(jnp.ones(3), cache)).round(3))
      [0.197 0.25  0.197]
    """
    x = layers.floating("logistic", x)
    return jax.lax.logistic(layers.accumulator(x)).astype(x.dtype), x


def logistic_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `logistic_forward`.

        dx = dout e / (1 + e)^2,   e = exp(-|x|)

    It is dout out (1 - out), where nothing cancels.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `logistic_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.logistic_forward(jnp.zeros(3))
      >>> print(np.array(fn.logistic_backward(jnp.array([1.0, 2.0, -3.0]), cache)).round(3))
      [ 0.25  0.5  -0.75]
    """
    x = cache
    dout = layers.like_output("logistic", dout, x.shape, x.dtype)
    e = jnp.exp(-jnp.abs(layers.accumulator(x)))
    return (layers.accumulator(dout) * e / ((1 + e) * (1 + e))).astype(x.dtype)


@enter(ACTIVATIONS)
def logistic() -> Layer:
    """The logistic function, which others call sigmoid, without parameters.

    Returns:
      The layer, of kind "logistic".
    Example:
      >>> out, cache, state = fn.logistic().forward({}, {}, jnp.array([[0.0]]))
      >>> print(out)
      [[0.5]]
    """
    return make_layer("logistic", logistic_forward, logistic_backward)


def selu_forward(x: Array) -> tuple[jax.Array, Any]:
    """Scaled exponential linear unit (Klambauer et al. 2017, arXiv 1706.02515, equation 2):

        out = lambda x where x > 0, else lambda alpha (exp(x) - 1)

    with lambda = 1.0507... and alpha = 1.6732..., for which a normal distribution of mean 0 and
    variance 1 keeps both.

    Args:
      x: any shape, floating point.
    Returns:
      out, of the shape and dtype of x, and the cache for `selu_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.selu_forward(jnp.array([-1.0, 0.0, 1.0]))
      >>> print(np.array(out).round(3))
      [-1.111  0.     1.051]
      >>> print(np.array(fn.selu_backward(jnp.ones(3), cache)).round(3))
      [0.647 1.758 1.051]
    """
    x = layers.floating("selu", x)
    wide = layers.accumulator(x)
    bent = SELU_ALPHA * jnp.expm1(jnp.where(wide > 0, jnp.zeros_like(wide), wide))
    return (SELU_SCALE * jnp.where(wide > 0, wide, bent)).astype(x.dtype), x


def selu_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `selu_forward`: lambda dout where x > 0, else lambda alpha exp(x) dout.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `selu_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.selu_forward(jnp.zeros(3))
      >>> print(np.array(fn.selu_backward(jnp.array([1.0, 2.0, -3.0]), cache)).round(3))
      [ 1.758  3.516 -5.274]
    """
    x = cache
    dout = layers.like_output("selu", dout, x.shape, x.dtype)
    wide = layers.accumulator(x)
    slope = jnp.where(wide > 0, 1, SELU_ALPHA * jnp.exp(wide))
    return (SELU_SCALE * layers.accumulator(dout) * slope).astype(x.dtype)


@enter(ACTIVATIONS)
def selu() -> Layer:
    """Scaled exponential linear unit, without parameters; see `selu_forward`.

    To keep mean and variance the weights before it want a variance of 1 / D, and dropout would
    have to be the paper's alpha dropout.

    Returns:
      The layer, of kind "selu".
    Example:
      >>> net = fn.mlp([8], 3, activation=fn.selu(), weight_scale=0.5)
      >>> params, _, _ = net.init(jax.random.key(0), (4,))
      >>> params
      FrozenDict(67 parameters
        affine1/b  float32[8]
        affine1/w  float32[4, 8]
        affine2/b  float32[3]
        affine2/w  float32[8, 3]
      )
    """
    return make_layer("selu", selu_forward, selu_backward)


def mish_forward(x: Array) -> tuple[jax.Array, Any]:
    """Mish (Misra 2019, arXiv 1908.08681): `out = x tanh(log(1 + exp(x)))`, element by element.

    With e = exp(-|x|), which cannot overflow, the tanh is (1 + 2 e) / (1 + 2 e + 2 e^2) where
    x >= 0, else (2 e + e^2) / (2 + 2 e + e^2).

    Args:
      x: any shape, floating point.
    Returns:
      out, of the shape and dtype of x, and the cache for `mish_backward`.
    Raises:
      TypeError: x is not floating point.
    Example:
      >>> out, cache = fn.mish_forward(jnp.array([-1.0, 0.0, 1.0]))
      >>> print(np.array(out).round(3))
      [-0.303  0.     0.865]
      >>> print(np.array(fn.mish_backward(jnp.ones(3), cache)).round(3))
      [0.059 0.6   1.049]
    """
    x = layers.floating("mish", x)
    wide = layers.accumulator(x)
    e = jnp.exp(-jnp.abs(wide))
    right, left = (1 + 2 * e) / (1 + 2 * e * (1 + e)), e * (2 + e) / (2 + e * (2 + e))
    return (wide * jnp.where(wide >= 0, right, left)).astype(x.dtype), x


def mish_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `mish_forward`.

        dx = dout (t + x (1 - t^2) / (1 + exp(-x))),   t = tanh(log(1 + exp(x)))

    With e = exp(-|x|) and d the denominator of t, (1 - t^2) / (1 + exp(-x)) is
    4 e^2 (1 + e) / d^2 where x >= 0, else 4 e (1 + e) / d^2.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `mish_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.mish_forward(jnp.zeros(3))
      >>> print(np.array(fn.mish_backward(jnp.array([1.0, 2.0, -3.0]), cache)).round(3))
      [ 0.6  1.2 -1.8]
    """
    x = cache
    dout = layers.like_output("mish", dout, x.shape, x.dtype)
    wide = layers.accumulator(x)
    e = jnp.exp(-jnp.abs(wide))
    d = jnp.where(wide >= 0, 1 + 2 * e * (1 + e), 2 + e * (2 + e))
    t = jnp.where(wide >= 0, 1 + 2 * e, e * (2 + e)) / d
    slope = 4 * jnp.where(wide >= 0, e * e, e) * (1 + e) / (d * d)
    return (layers.accumulator(dout) * (t + wide * slope)).astype(x.dtype)


@enter(ACTIVATIONS)
def mish() -> Layer:
    """Mish, `out = x tanh(log(1 + exp(x)))`, without parameters.

    Returns:
      The layer, of kind "mish".
    Example:
      >>> out, cache, state = fn.mish().forward({}, {}, jnp.array([[0.0, 9.0]]))
      >>> print(out.round())
      [[0. 9.]]
    """
    return make_layer("mish", mish_forward, mish_backward)


def parametric_forward(x: Array, y: Array, a: Array) -> tuple[jax.Array, Any]:
    """Between x and an activation of it, y, by a learned share a for each unit:

        out = x + a (y - x)

    (Holzmueller et al. 2024, arXiv 2407.04491, section 3: the parametric activation of RealMLP.)

    Args:
      x: [N, d1, ..., dk] floating point.
      y: the shape and dtype of x.
      a: [d1, ..., dk], the dtype of x.
    Returns:
      out, of the shape and dtype of x, and the cache for `parametric_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, y, a = jnp.array([[-2.0, 2.0]]), jnp.array([[0.0, 2.0]]), jnp.array([0.5, 0.5])
      >>> out, cache = fn.parametric_forward(x, y, a)
      >>> print(out)
      [[-1.  2.]]
      >>> dx, dy, da = fn.parametric_backward(jnp.ones((1, 2)), cache)
      >>> print(dx, dy, da)
      [[0.5 0.5]] [[0.5 0.5]] [2. 0.]
    """
    x, a = layers.check_features("parametric", x, a=a)
    y = jnp.asarray(y)
    layers.check_shape("parametric", "y", y, "the shape of x", x.shape)
    layers.same_dtype("parametric", x=x, y=y)
    wide = layers.accumulator(x)
    out = wide + layers.accumulator(a)[None] * (layers.accumulator(y) - wide)
    return out.astype(x.dtype), (x, y, a)


def parametric_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `parametric_forward`: of x without the way through y.

        dx = (1 - a) dout,   dy = a dout,   da = sum of dout (y - x) over the batch

    Args:
      dout: [N, d1, ..., dk], the gradient of the loss with respect to `out`.
      cache: what `parametric_forward` returned.
    Returns:
      dx, dy [N, d1, ..., dk], da [d1, ..., dk].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, y, a = jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.array([0.25, 1.0])
      >>> _, cache = fn.parametric_forward(x, y, a)
      >>> print(fn.parametric_backward(jnp.ones((1, 2)), cache)[0])
      [[0.75 0.  ]]
    """
    x, y, a = cache
    dout = layers.like_output("parametric", dout, x.shape, x.dtype)
    bend = layers.accumulator(y) - layers.accumulator(x)
    da = (layers.accumulator(dout) * bend).sum(axis=0)
    return dout * (1 - a[None]), dout * a[None], da.astype(a.dtype)


def parametric(activation: str | Layer, *, rate: Any = 1.0) -> Layer:
    """`out = x + a (f(x) - x)` of an activation f, with a learned share a for each unit.

    The shares start at 1, where it is f; at 0 it is the identity. See `parametric_forward`.

    Args:
      activation: f, a layer that keeps the shape, or a name, such as "selu". Its parameters and
        its state, if it has any, are under its kind with a 1, as in `params["prelu1"]["slope"]`.
      rate: how many times as fast as other parameters the shares learn under Adam (RealMLP has
        0.1); a number, which may be traced. They are held as a / rate, see `with_rates`.
    Returns:
      The layer, of kind "parametric", with a parameter a of the shape of one example.
    Raises:
      ValueError: there is no activation of this name, or rate is not above 0; in `init`, the
        activation does not keep the shape.
      TypeError: activation is neither a layer nor a name, or rate is no number.
    Example:
      >>> params, _, _ = fn.parametric("prelu").init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(6 parameters
        a             float32[3]
        prelu1/slope  float32[3]
      )
    """
    f = as_layer("activation", activation, ACTIVATIONS)
    functions = (_parametric_init, _parametric_layer, _parametric_layer_backward)
    return with_rates(Layer("parametric", *(bind(g, f=f) for g in functions)), a=rate)


def _parametric_init(key: Any, in_shape: Sequence[int], *, f: Layer) -> Initial:
    shape = as_shape(in_shape)
    params, state, out_shape = f.init(key, shape)
    if tuple(out_shape) != shape:
        raise ValueError(
            f"parametric: {f.kind} must keep the shape {list(shape)}, "
            f"but it gives {list(out_shape)}"
        )
    name, a = f"{f.kind}1", jnp.ones(shape)
    return without_empty({name: params}) | {"a": a}, without_empty({name: state}), shape


def _parametric_layer(
    params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True, f: Layer
) -> Result:
    name = f"{f.kind}1"
    if "a" not in params or not {*params} <= {"a", name}:
        raise ValueError(f"parametric: params must have a, and {name} if it has any: {[*params]}")
    with inside(name):
        inner, inner_state = child_of(params, name), child_of(state, name)
        y, inner_cache, inner_state = f.forward(inner, inner_state, x, key=key, train=train)
    out, cache = parametric_forward(x, y, params["a"])
    state = restructure(structure_of(state), without_empty({name: inner_state}))
    return out, Cache((inner_cache, cache), structure_of(params)), state


def _parametric_layer_backward(dout: Any, cache: Cache, *, f: Layer) -> tuple[jax.Array, Tree]:
    inner_cache, arrays = cache.arrays
    dx, dy, da = parametric_backward(dout, arrays)
    with inside(f"{f.kind}1"):
        through_y, grads = f.backward(dy, inner_cache)
    grads = FrozenDict.shallow({f"{f.kind}1": grads, "a": da} if grads else {"a": da})
    return dx + through_y, restructure(cache.structure, grads)
