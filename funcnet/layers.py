"""Forward and backward passes of the layers, as pure functions of arrays.

Every forward pass returns its output and a cache, a pytree of arrays; the
backward pass takes the gradient of the loss with respect to the output and the
cache, and returns the gradients with respect to the inputs, in their order.
No custom derivative is attached: `jax.grad` of a forward pass is an independent
check of the backward pass beside it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.shards import batch_mean, batch_size
from funcnet.tree import Array, Backward, Forward, Tree, restructure, structure_of

__all__ = [
    "affine_backward",
    "affine_forward",
    "batchnorm_backward",
    "batchnorm_forward",
    "dropout_backward",
    "dropout_forward",
    "flatten_backward",
    "flatten_forward",
    "layernorm_backward",
    "layernorm_forward",
    "with_custom_vjp",
]

KEEP_PROB = checks.PROBABILITY


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A fact in a cache that is no array: it stays as it is under jit, scan and vmap."""

    value: Any


def affine_forward(
    x: Array, w: Array, b: Array, *, matmul_dtype: Any = None
) -> tuple[jax.Array, Any]:
    """Affine map, `out = x w + b`, of each example flattened to a vector.

    Args:
      x: [N, d1, ..., dk] with d1 * ... * dk = D; integers (pixels) are cast to
        the dtype of w, other dtypes must be that of w.
      w: [D, M] floating point.
      b: [M], the dtype of w.
      matmul_dtype: the dtype to which the factors of the matrix products, here and in the
        backward pass, are rounded, such as jnp.bfloat16; the products are summed, and the
        results given, in the dtype of w. None rounds nothing.
    Returns:
      out [N, M] in the dtype of w, and the cache for `affine_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w, b = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(4)
      >>> out, cache = fn.affine_forward(x, w, b)
      >>> print(out)
      [[3. 3. 3. 3.]
       [3. 3. 3. 3.]]
      >>> dx, dw, db = fn.affine_backward(jnp.ones((2, 4)), cache)
      >>> dx.shape, dw.shape, db.shape
      ((2, 3), (3, 4), (4,))
    """
    x, w, b = check_affine("affine", x, w, b)
    rows = x.reshape(x.shape[0], w.shape[0])  # [N, D]
    return matmul(rows, w, matmul_dtype) + b[None], (x, w, Static(matmul_dtype))


def affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `affine_forward`.

        dx = dout w^T,   dw = x^T dout,   db = sum of dout over the batch

    Args:
      dout: [N, M], the gradient of the loss with respect to `out`.
      cache: what `affine_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dw [D, M], db [M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.affine_forward(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(4))
      >>> dx, dw, db = fn.affine_backward(jnp.ones((2, 4)), cache)
      >>> print(db)
      [2. 2. 2. 2.]
    """
    x, w, matmul_dtype = cache
    dout = like_output("affine", dout, (x.shape[0], w.shape[1]), w.dtype)
    rows = x.reshape(x.shape[0], w.shape[0])  # [N, D]
    dx = matmul(dout, w.T, matmul_dtype.value).reshape(x.shape)
    return dx, matmul(rows.T, dout, matmul_dtype.value), dout.sum(axis=0)


def batchnorm_forward(
    x: Array,
    gamma: Array,
    beta: Array,
    running: Tree,
    *,
    train: bool,
    momentum: Any = 0.9,
    eps: Any = 1e-5,
) -> tuple[jax.Array, Any, Tree]:
    """Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167), feature by feature:

        out = gamma xhat + beta,   xhat = (x - mean) / sqrt(var + eps)

    In training, mean and variance are those of the batch (of all its shards, see `batch_mean`,
    where it is cut), and the running ones follow them,
    `running = momentum * running + (1 - momentum) * batch`, as CS231n has it: the variance is the
    biased one, divided by N. (PyTorch's momentum is the other share, and its running variance
    is divided by N - 1.) In evaluation they are the running ones: each example is on its own.

    Args:
      x: [N, d1, ..., dk] floating point.
      gamma, beta: [d1, ..., dk], the dtype of x.
      running: `{"mean", "var"}`, each [d1, ..., dk].
      train: a Python bool.
      momentum, eps: numbers; may be traced.
    Returns:
      out, of the shape and dtype of x; the cache for `batchnorm_backward`; the new running
      statistics, of the tree structure and dtypes of the old ones.
    Raises:
      ValueError: shapes do not fit, or a batch of one example in training, whose variance is 0.
      TypeError: dtypes do not fit.
    Example:
      >>> x, ones, zeros = jnp.array([[0.0, 0.0], [2.0, 8.0]]), jnp.ones(2), jnp.zeros(2)
      >>> state = {"mean": zeros, "var": ones}
      >>> out, cache, state = fn.batchnorm_forward(x, ones, zeros, state, train=True, momentum=0.5)
      >>> print(np.array(out).round(2))
      [[-1. -1.]
       [ 1.  1.]]
      >>> print(state["mean"], state["var"])
      [0.5 2. ] [1.  8.5]
      >>> dx, dgamma, dbeta = fn.batchnorm_backward(jnp.ones((2, 2)), cache)
      >>> dx.shape, dgamma.shape, dbeta.shape
      ((2, 2), (2,), (2,))
    """
    x, gamma, beta = check_features("batchnorm", x, gamma=gamma, beta=beta)
    _check_running(x, running, train)
    wide = accumulator(x)  # [N, D], float32 at least
    if train:
        mean = batch_mean(wide)  # [D]
        var = batch_mean(jnp.square(wide - mean[None]))  # [D]
        running = _follow(running, {"mean": mean, "var": var}, momentum)
    else:
        mean, var = (jnp.asarray(running[name], wide.dtype) for name in ("mean", "var"))  # [D]
    std = jnp.sqrt(var + jnp.asarray(eps, wide.dtype))  # [D]
    xhat = (wide - mean[None]) / std[None]  # [N, D]
    out = accumulator(gamma)[None] * xhat + accumulator(beta)[None]  # [N, D]
    return out.astype(x.dtype), (xhat, std, gamma, Static(train)), running


def batchnorm_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `batchnorm_forward`.

    With dxhat = dout * gamma and means over the batch, in training
        dx = (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)) / std
    and in evaluation, where the statistics are constants, dx = dxhat / std.

    Args:
      dout: [N, d1, ..., dk], the gradient of the loss with respect to `out`.
      cache: what `batchnorm_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dgamma [d1, ..., dk], dbeta [d1, ..., dk].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, ones, zeros = jnp.array([[0.0, 0.0], [2.0, 8.0]]), jnp.ones(2), jnp.zeros(2)
      >>> state = {"mean": zeros, "var": ones}
      >>> _, cache, _ = fn.batchnorm_forward(x, ones, zeros, state, train=True)
      >>> print(fn.batchnorm_backward(jnp.ones((2, 2)), cache)[2])
      [2. 2.]
    """
    xhat, std, gamma, train = cache
    dout = accumulator(like_output("batchnorm", dout, xhat.shape, gamma.dtype))
    dxhat = dout * accumulator(gamma)[None]  # [N, D]
    if train.value:
        dxhat = dxhat - batch_mean(dxhat)[None] - xhat * batch_mean(dxhat * xhat)[None]
    dx, dgamma, dbeta = dxhat / std[None], (dout * xhat).sum(axis=0), dout.sum(axis=0)
    return dx.astype(gamma.dtype), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def layernorm_forward(
    x: Array, gamma: Array, beta: Array, *, eps: Any = 1e-5
) -> tuple[jax.Array, Any]:
    """Layer normalization (Ba et al. 2016, arXiv 1607.06450), example by example:

        out = gamma xhat + beta,   xhat = (x - mean) / sqrt(var + eps)

    with the mean and the biased variance of the features of each example. It is the same in
    training and evaluation.

    Args:
      x: [N, d1, ..., dk] floating point.
      gamma, beta: [d1, ..., dk], the dtype of x.
      eps: a number; may be traced.
    Returns:
      out, of the shape and dtype of x, and the cache for `layernorm_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x = jnp.array([[0.0, 2.0, 4.0], [1.0, 1.0, 4.0]])
      >>> out, cache = fn.layernorm_forward(x, jnp.ones(3), jnp.zeros(3))
      >>> print(np.array(out).round(2))
      [[-1.22  0.    1.22]
       [-0.71 -0.71  1.41]]
      >>> dx, dgamma, dbeta = fn.layernorm_backward(jnp.ones((2, 3)), cache)
      >>> dx.shape, dgamma.shape, dbeta.shape
      ((2, 3), (3,), (3,))
    """
    x, gamma, beta = check_features("layernorm", x, gamma=gamma, beta=beta)
    wide, features = accumulator(x), tuple(range(1, x.ndim))  # [N, D], float32 at least
    mean = wide.mean(axis=features, keepdims=True)  # [N, 1]
    var = jnp.square(wide - mean).mean(axis=features, keepdims=True)  # [N, 1]
    std = jnp.sqrt(var + jnp.asarray(eps, wide.dtype))  # [N, 1]
    xhat = (wide - mean) / std  # [N, D]
    out = accumulator(gamma)[None] * xhat + accumulator(beta)[None]  # [N, D]
    return out.astype(x.dtype), (xhat, std, gamma)


def layernorm_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `layernorm_forward`.

    With dxhat = dout * gamma and means over the features of an example:
        dx = (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)) / std

    Args:
      dout: [N, d1, ..., dk], the gradient of the loss with respect to `out`.
      cache: what `layernorm_forward` returned.
    Returns:
      dx [N, d1, ..., dk], dgamma [d1, ..., dk], dbeta [d1, ..., dk].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x = jnp.array([[0.0, 2.0, 4.0], [1.0, 1.0, 4.0]])
      >>> _, cache = fn.layernorm_forward(x, jnp.ones(3), jnp.zeros(3))
      >>> print(fn.layernorm_backward(jnp.ones((2, 3)), cache)[2])
      [2. 2. 2.]
    """
    xhat, std, gamma = cache
    dout = accumulator(like_output("layernorm", dout, xhat.shape, gamma.dtype))
    features = tuple(range(1, xhat.ndim))
    dxhat = dout * accumulator(gamma)[None]  # [N, D]
    centred = dxhat - dxhat.mean(axis=features, keepdims=True)
    dx = (centred - xhat * (dxhat * xhat).mean(axis=features, keepdims=True)) / std  # [N, D]
    dgamma, dbeta = (dout * xhat).sum(axis=0), dout.sum(axis=0)  # [D], [D]
    return dx.astype(gamma.dtype), dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def dropout_forward(x: Array, key: Any, keep_prob: Any, *, train: bool) -> tuple[jax.Array, Any]:
    """Inverted dropout (Srivastava et al. 2014), `out = x mask / keep_prob` in training.

    Each element of the mask is 1 with probability keep_prob, rounded to a multiple of
    2**-16, and out is divided by the rounded one, so that its mean is that of x. In
    evaluation it is the identity.

    Args:
      x: any shape, floating point.
      key: a random key, each call wants another one; unused in evaluation.
      keep_prob: the probability that an element is kept, above 0 and at most 1; may be traced.
      train: a Python bool.
    Returns:
      out, of the shape and dtype of x, and the cache for `dropout_backward`.
    Raises:
      ValueError: keep_prob is out of range, or there is no key in training.
      TypeError: x is not floating point, or keep_prob is no number.
    Example:
      >>> out, cache = fn.dropout_forward(jnp.ones((100, 50)), jax.random.key(0), 0.5, train=True)
      >>> sorted(set(out.ravel().tolist())), round(float(out.mean()), 1)
      ([0.0, 2.0], 1.0)
      >>> dx = fn.dropout_backward(jnp.ones_like(out), cache)
      >>> bool((dx == out).all())
      True
    """
    x = floating("dropout", x)
    KEEP_PROB.check("keep_prob", keep_prob)
    if not train:
        return x, (jnp.ones((), x.dtype), Static(x.shape))
    if key is None:
        raise ValueError("dropout: training needs a random key, such as key=jax.random.key(0)")
    kept = jnp.clip(jnp.round(jnp.asarray(keep_prob, jnp.float32) * 2**16), 1, 2**16)
    words = jax.random.bits(key, (math.ceil(x.size / 2),), jnp.uint32)  # two elements a word
    draws = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size]
    keep = (draws.astype(jnp.uint32) < kept.astype(jnp.uint32)).reshape(x.shape)
    scale = (2**16 / kept.astype(common_dtype(x.dtype, kept.dtype))).astype(x.dtype)
    mask = jnp.where(keep, scale, jnp.zeros_like(scale))  # the shape of x
    return jnp.where(keep, x * scale, jnp.zeros_like(x)), (mask, Static(x.shape))


def dropout_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `dropout_forward`: `dx = dout mask / keep_prob`; dout itself in evaluation.

    Args:
      dout: the shape of x, the gradient of the loss with respect to `out`.
      cache: what `dropout_forward` returned.
    Returns:
      dx, of the shape of x.
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.dropout_forward(jnp.ones(3), None, 0.5, train=False)
      >>> print(fn.dropout_backward(jnp.arange(3.0), cache))
      [0. 1. 2.]
    """
    mask, shape = cache
    dout = like_output("dropout", dout, shape.value, mask.dtype)
    return dout * mask


def flatten_forward(x: Array) -> tuple[jax.Array, Any]:
    """Each example as a vector: out[i] has the elements of x[i] in their order.

    Args:
      x: [N, d1, ..., dk], of any dtype.
    Returns:
      out [N, d1 * ... * dk], and the cache for `flatten_backward`.
    Raises:
      ValueError: x has no axis beside that of the batch.
    Example:
      >>> out, cache = fn.flatten_forward(jnp.ones((5, 3, 2)))
      >>> out.shape
      (5, 6)
      >>> fn.flatten_backward(out, cache).shape
      (5, 3, 2)
    """
    x = checks.array(x)
    if x.ndim < 2:
        raise ValueError(f"flatten: x must be [N, ...], a batch of examples, got {list(x.shape)}")
    return x.reshape(x.shape[0], -1), (jnp.zeros((), x.dtype), Static(x.shape))


def flatten_backward(dout: Array, cache: Any) -> jax.Array:
    """Gradient of `flatten_forward`: dout in the shape of x.

    Args:
      dout: [N, d1 * ... * dk], the gradient of the loss with respect to `out`.
      cache: what `flatten_forward` returned.
    Returns:
      dx [N, d1, ..., dk].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.flatten_forward(jnp.ones((1, 2, 2)))
      >>> print(fn.flatten_backward(jnp.arange(4.0)[None], cache))
      [[[0. 1.]
        [2. 3.]]]
    """
    zero, shape = cache
    count, *rest = shape.value
    flat = like_output("flatten", dout, (count, math.prod(rest)), zero.dtype)
    return flat.reshape(shape.value)


def with_custom_vjp(forward: Forward, backward: Backward) -> Callable[..., Any]:
    """A function that autodiff differentiates by a hand-written backward pass.

        affine = with_custom_vjp(affine_forward, affine_backward)
        jax.grad(lambda w: affine(x, w, b).sum())(w)      # runs affine_backward

    Args:
      forward: `forward(*inputs) -> (out, cache)`, with floating point inputs.
      backward: `backward(dout, cache)` gives the gradient of each input, as a
        tuple in the order of the inputs, or bare if there is just one.
    Returns:
      `f(*inputs) -> out`, for use inside code that `jax.grad` or `jax.vjp` handles.
    Example:
      >>> square = fn.with_custom_vjp(lambda x: (x * x, x), lambda dout, x: 2 * x * dout)
      >>> print(jax.grad(square)(3.0))
      6.0
    """

    @jax.custom_vjp
    def f(*inputs: Any) -> Any:
        return forward(*inputs)[0]

    def f_backward(cache: Any, dout: Any) -> tuple[Any, ...]:
        grads = backward(dout, cache)
        return grads if isinstance(grads, tuple) else (grads,)

    f.defvjp(forward, f_backward)
    return f


def accumulator(x: Array) -> jax.Array:
    """x in the dtype in which half precision is computed: float32 at least."""
    x = jnp.asarray(x)
    return x.astype(common_dtype(x.dtype, jnp.float32))


def common_dtype(*values: Any) -> Any:
    """The dtype to which JAX promotes arrays and dtypes, also where it is set to promote none."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def promote(*arrays: Any) -> list[jax.Array]:
    """The arrays in their common dtype."""
    dtype = common_dtype(*arrays)
    return [jnp.asarray(array, dtype) for array in arrays]


def add(a: Any, b: Any) -> jax.Array:
    """a + b, in their common dtype."""
    a, b = promote(a, b)
    return a + b


def matmul(a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
    """a @ b of factors rounded to a dtype, summed in that of a; None rounds nothing."""
    if dtype is None:
        return a @ b
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype)


def check_affine(
    layer: str, x: Array, w: Array, b: Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [N, ...] as floating point, w [D, M] and b [M], if their shapes and dtypes fit."""
    x, w, b = checks.array(x), jnp.asarray(w), jnp.asarray(b)
    if x.ndim < 2:
        raise ValueError(f"{layer}: x must be [N, ...], a batch of examples, got {list(x.shape)}")
    if w.ndim != 2 or math.prod(x.shape[1:]) != w.shape[0]:
        features = math.prod(x.shape[1:])
        raise ValueError(
            f"{layer}: w must be [D, M] with D = {features}, the size of one example of "
            f"x {list(x.shape)}, got {list(w.shape)}"
        )
    if b.shape != w.shape[1:]:
        raise ValueError(f"{layer}: b must be [M] = {list(w.shape[1:])}, got {list(b.shape)}")
    x = cast_integers(x, w.dtype)
    same_dtype(layer, x=x, w=w, b=b)
    return x, w, b


def _follow(running: Tree, batch: dict[str, jax.Array], momentum: Any) -> Tree:
    """The running statistics, moved by those of a batch."""

    def moved(old: Array, new: jax.Array) -> jax.Array:
        old, kept = jnp.asarray(old), jnp.asarray(momentum, new.dtype)
        moved = kept * old.astype(new.dtype) + (1 - kept) * new
        return moved.astype(common_dtype(old.dtype, jnp.float32))  # a half would overflow

    moments = {name: moved(running[name], batch[name]) for name in batch}
    return restructure(structure_of(running), moments)


def floating(layer: str, x: Array) -> jax.Array:
    """x as a JAX array, if it is floating point."""
    x = jnp.asarray(x)
    same_dtype(layer, x=x)
    return x


def check_features(layer: str, x: Array, **params: Array) -> tuple[jax.Array, ...]:
    """x [N, ...] and parameters of the shape of one example, if shapes and dtypes fit."""
    x, named = jnp.asarray(x), {name: jnp.asarray(param) for name, param in params.items()}
    if x.ndim < 2:
        raise ValueError(f"{layer}: x must be [N, ...], a batch of examples, got {list(x.shape)}")
    same_dtype(layer, x=x, **named)
    _check_shapes(layer, x, **named)
    return x, *named.values()


def _check_running(x: jax.Array, running: Tree, train: bool) -> None:
    if set(running) != {"mean", "var"}:
        raise ValueError(f"batchnorm: running must have mean and var, got {sorted(running)}")
    _check_shapes("batchnorm", x, **{f"running {k}": jnp.asarray(v) for k, v in running.items()})
    if train and batch_size(x) == 1:
        raise ValueError(
            "batchnorm: a batch of one example has no variance to train on: use batches of two "
            "or more that leave no remainder of one, or train=False"
        )


def _check_shapes(layer: str, x: jax.Array, **arrays: jax.Array) -> None:
    for name, array in arrays.items():
        if array.shape != x.shape[1:]:
            raise ValueError(
                f"{layer}: {name} must have the shape of one example of x, "
                f"{list(x.shape[1:])}, got {list(array.shape)}"
            )


def check_shape(layer: str, name: str, array: jax.Array, letters: str, shape: Any) -> None:
    """Raise unless an array has a shape, which is called `letters`: "[D, M]"."""
    if array.shape != tuple(shape):
        raise ValueError(
            f"{layer}: {name} must be {letters} = {list(shape)}, got {list(array.shape)}"
        )


def cast_integers(x: jax.Array, dtype: Any) -> jax.Array:
    """x in a dtype if it holds integers, else as it is."""
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == jnp.bool_:
        return x.astype(dtype)
    return x


def same_dtype(layer: str, **arrays: jax.Array) -> None:
    """Raise unless the arrays have one floating point dtype."""
    dtypes = {name: array.dtype for name, array in arrays.items()}
    if len(set(dtypes.values())) > 1 or not all(
        jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes.values()
    ):
        found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{layer}: arrays must have one floating point dtype, got {found}")


def like_output(layer: str, dout: Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """dout as a JAX array, if it has the shape and the dtype of the output."""
    dout = jnp.asarray(dout)
    if dout.shape != shape:
        raise ValueError(
            f"{layer}: dout must have the shape of out, {list(shape)}, got {list(dout.shape)}"
        )
    if dout.dtype != dtype:
        raise TypeError(f"{layer}: dout must have the dtype of out, {dtype}, got {dout.dtype}")
    return dout
