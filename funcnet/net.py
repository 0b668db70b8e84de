"""Networks: layers with parameters, and their composition.

A layer is a triple of pure functions, and a network is a layer. The backward
pass of a network is a loop over its layers in reverse.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks, layers, transposed
from funcnet.activations import ACTIVATIONS
from funcnet.bind import bind
from funcnet.layer import (
    Cache,
    Children,
    Initial,
    Layer,
    Result,
    Shape,
    as_layer,
    as_shape,
    check_names,
    child_of,
    enter,
    inside,
    make_layer,
    make_stateful_layer,
    named_children,
    split,
    without_empty,
)
from funcnet.layers import add
from funcnet.transposed import Path, Transposed
from funcnet.tree import Tree, restructure, structure_of

__all__ = [
    "affine",
    "batchnorm",
    "dropout",
    "flatten",
    "layernorm",
    "mlp",
    "residual",
    "serial",
]

SCALES = {  # of the initial weights, by name
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    "glorot": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
}
DIM = checks.Count(at_most=2**31 - 1)  # of a layer
WEIGHT_SCALE = checks.NON_NEGATIVE


# Normalizations by name, for `mlp` and the command line, as `ACTIVATIONS` are.
NORMALIZATIONS: dict[str, Callable[[], Layer]] = {}


def affine(dim: int, *, weight_scale: Any = None, matmul_dtype: Any = None) -> Layer:
    """Affine layer, `out = x w + b`, with parameters w [D, dim] and b [dim].

    Args:
      dim: the number of outputs.
      weight_scale: standard deviation of the initial weights, a normal distribution
        around 0: a number, which may be traced (0 for the last layer of a residual branch);
        "he" or None, sqrt(2 / D) (He et al. 2015, arXiv 1502.01852, equation 10); or "glorot",
        sqrt(2 / (D + dim)) (Glorot and Bengio 2010, equation 12). Biases start at 0.
      matmul_dtype: the dtype of the factors of the matrix products, such as jnp.bfloat16,
        as for `affine_forward`; None is that of the parameters.
    Returns:
      The layer, of kind "affine"; examples [d1, ..., dk] are flattened to D features.
    Raises:
      ValueError: dim is below 1, or weight_scale is below 0, not finite or the name of none.
      TypeError: dim is no integer, weight_scale no number, or matmul_dtype not floating point.
    Example:
      >>> params, state, out_shape = fn.affine(4).init(jax.random.key(0), (2, 3))
      >>> params
      FrozenDict(28 parameters
        b  float32[4]
        w  float32[6, 4]
      )
      >>> out, cache, state = fn.affine(4).forward(params, state, np.ones((5, 2, 3), "f"))
      >>> out.shape
      (5, 4)
    """
    dim = DIM.check("dim", dim)
    check_scale(weight_scale)
    if matmul_dtype is not None:
        matmul_dtype = jnp.dtype(matmul_dtype)
        if not jnp.issubdtype(matmul_dtype, jnp.floating):
            raise TypeError(f"matmul_dtype must be floating point, got {matmul_dtype}")
    return make_layer(
        "affine",
        bind(_affine, dim=dim, matmul_dtype=matmul_dtype),
        _affine_backward,
        bind(_init_affine, dim=dim, weight_scale=weight_scale),
        names=("w", "b"),
    )


def _init_affine(key: Any, in_shape: Shape, *, dim: int, weight_scale: Any) -> Initial:
    checks.key(key)
    w = initial_weights(key, (math.prod(in_shape), dim), weight_scale)
    return {"w": w, "b": jnp.zeros(dim, w.dtype)}, {}, (dim,)


def initial_weights(key: Any, shape: Shape, weight_scale: Any) -> jax.Array:
    """Normal weights [..., D, M] of a standard deviation, or of that of a name in `SCALES`."""
    if isinstance(weight_scale, str) or weight_scale is None:
        weight_scale = SCALES[weight_scale or "he"](*shape[-2:])
    w = jax.random.normal(key, shape)
    return jnp.asarray(weight_scale, w.dtype) * w


def check_scale(weight_scale: Any) -> None:
    """Raise unless it is a standard deviation, the name of one, or None."""
    if isinstance(weight_scale, str):
        checks.choose("weight_scale", weight_scale, SCALES)
    elif weight_scale is not None:
        WEIGHT_SCALE.check("weight_scale", weight_scale)


def _affine(x: Any, w: Any, b: Any, *, dim: int, matmul_dtype: Any) -> tuple[jax.Array, Any]:
    if isinstance(w, Transposed):
        return transposed.affine_forward(x, w, b, matmul_dtype=matmul_dtype)
    if jnp.shape(w)[1:] != (dim,):
        raise ValueError(
            f"affine: w must be [D, {dim}], for {dim} outputs, got {list(jnp.shape(w))}"
        )
    return layers.affine_forward(x, w, b, matmul_dtype=matmul_dtype)


def _affine_backward(dout: Any, cache: Any) -> tuple[jax.Array, Any, jax.Array]:
    is_transposed = isinstance(cache[1], Transposed)
    return (transposed if is_transposed else layers).affine_backward(dout, cache)


@enter(NORMALIZATIONS)
def batchnorm(*, momentum: Any = 0.9, eps: Any = 1e-5) -> Layer:
    """Batch normalization, with parameters gamma and beta and state mean and var.

    In training each feature is normalized over the batch, in evaluation by the running mean
    and variance in the state; see `batchnorm_forward`.

    Args:
      momentum: the share of the running statistics that a step keeps; may be traced.
      eps: added to the variance; may be traced.
    Returns:
      The layer, of kind "batchnorm", whose params and state have the shape of one example.
    Raises:
      ValueError: a number is below 0 or not finite.
      TypeError: it is no number.
    Example:
      >>> layer = fn.batchnorm(momentum=0.5)
      >>> params, state, _ = layer.init(jax.random.key(0), (1,))
      >>> out, cache, state = layer.forward(params, state, jnp.array([[0.0], [8.0]]), train=True)
      >>> print(state["mean"], state["var"])
      [2.] [8.5]
    """
    checks.NON_NEGATIVE.check("momentum", momentum)
    checks.NON_NEGATIVE.check("eps", eps)
    return make_stateful_layer(
        "batchnorm",
        bind(_batchnorm, momentum=momentum, eps=eps),
        layers.batchnorm_backward,
        _init_batchnorm,
        names=("gamma", "beta"),
    )


def _init_batchnorm(key: Any, in_shape: Shape) -> Initial:
    params = {"gamma": jnp.ones(in_shape), "beta": jnp.zeros(in_shape)}
    return params, {"mean": jnp.zeros(in_shape), "var": jnp.ones(in_shape)}, in_shape


def _batchnorm(
    x: Any, gamma: Any, beta: Any, *, state: Tree, key: Any, train: bool, momentum: Any, eps: Any
) -> Result:
    return layers.batchnorm_forward(x, gamma, beta, state, train=train, momentum=momentum, eps=eps)


@enter(NORMALIZATIONS)
def layernorm(*, eps: Any = 1e-5) -> Layer:
    """Layer normalization, with parameters gamma and beta; see `layernorm_forward`.

    Args:
      eps: added to the variance; may be traced.
    Returns:
      The layer, of kind "layernorm", whose params have the shape of one example.
    Raises:
      ValueError: a number is below 0 or not finite.
      TypeError: it is no number.
    Example:
      >>> layer = fn.layernorm()
      >>> params, state, _ = layer.init(jax.random.key(0), (2,))
      >>> out, cache, state = layer.forward(params, state, jnp.array([[0.0, 8.0], [3.0, 5.0]]))
      >>> print(out.round())
      [[-1.  1.]
       [-1.  1.]]
    """
    checks.NON_NEGATIVE.check("eps", eps)
    return make_layer(
        "layernorm",
        bind(layers.layernorm_forward, eps=eps),
        layers.layernorm_backward,
        _init_layernorm,
        names=("gamma", "beta"),
    )


def _init_layernorm(key: Any, in_shape: Shape) -> Initial:
    return {"gamma": jnp.ones(in_shape), "beta": jnp.zeros(in_shape)}, {}, in_shape


def dropout(keep_prob: Any) -> Layer:
    """Inverted dropout: in training each element is kept with probability keep_prob.

    Args:
      keep_prob: above 0 and at most 1; may be traced. It is the share that is kept, as in
        CS231n; other libraries give the share that is dropped. Or a schedule of it, a function of
        the count of passes in training: then the layer has a state, `step`, the int32 count of
        them. Of a schedule of what is dropped, `complement` makes one of what is kept.
    Returns:
      The layer, of kind "dropout".
    Raises:
      ValueError: keep_prob is out of its range; in `forward`, there is no key in training.
      TypeError: keep_prob is neither a number nor a function.
    Example:
      >>> layer, x = fn.dropout(0.5), jnp.ones((1, 1000))
      >>> out, cache, state = layer.forward({}, {}, x, key=jax.random.key(0), train=True)
      >>> sorted(set(out[0].tolist()))
      [0.0, 2.0]
      >>> out, cache, state = layer.forward({}, {}, x, train=False)
      >>> bool((out == x).all())
      True
    """
    if callable(keep_prob):
        forward = bind(_scheduled_dropout, schedule=keep_prob)
        init = _init_scheduled_dropout
        return make_stateful_layer("dropout", forward, layers.dropout_backward, init)
    layers.KEEP_PROB.check("keep_prob", keep_prob)
    forward = bind(_dropout, keep_prob=keep_prob)
    return make_stateful_layer("dropout", forward, layers.dropout_backward)


def _dropout(x: Any, *, state: Tree, key: Any, train: bool, keep_prob: Any) -> Result:
    out, cache = layers.dropout_forward(x, key, keep_prob, train=train)
    return out, cache, state


def _init_scheduled_dropout(key: Any, in_shape: Shape) -> Initial:
    return {}, {"step": jnp.zeros((), jnp.int32)}, in_shape


def _scheduled_dropout(x: Any, *, state: Tree, key: Any, train: bool, schedule: Any) -> Result:
    if set(state) != {"step"}:
        raise ValueError(f"dropout: of a schedule the state must have step, got {sorted(state)}")
    step = jnp.asarray(state["step"], jnp.int32)
    keep_prob = schedule(step) if train else 1
    out, cache = layers.dropout_forward(x, key, keep_prob, train=train)
    after = restructure(structure_of(state), {"step": step + 1}) if train else state
    return out, cache, after


def flatten() -> Layer:
    """Each example as a vector, [N, d1, ..., dk] to [N, d1 * ... * dk]; `affine` does it itself.

    Returns:
      The layer, of kind "flatten".
    Example:
      >>> params, state, out_shape = fn.flatten().init(jax.random.key(0), (3, 4, 2))
      >>> out_shape
      (24,)
    """
    return make_layer("flatten", layers.flatten_forward, layers.flatten_backward, _init_flatten)


def _init_flatten(key: Any, in_shape: Shape) -> Initial:
    return {}, {}, (math.prod(in_shape),)


def serial(*children: Layer) -> Layer:
    """The composition of layers: each one's output is the next one's input.

    `params` and `state` hold those of the children under their kind and number
    from 1, as in `params["affine2"]["w"]`; children without any are left out.

    Args:
      children: layers, networks among them; none is the identity.
    Returns:
      A layer, of kind "serial".
    Raises:
      TypeError: one of them is no layer.
      ValueError: in `forward`, params or state have an entry of no layer here; what a layer raises
        says in which one.
    Example:
      >>> net = fn.serial(fn.affine(4), fn.relu(), fn.affine(2))
      >>> params, state, out_shape = net.init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(26 parameters
        affine1/b  float32[4]
        affine1/w  float32[3, 4]
        affine2/b  float32[2]
        affine2/w  float32[4, 2]
      )
    """
    pairs = named_children("serial", children)
    functions = (_serial_init, _serial_forward, _serial_backward)
    return Layer("serial", *(bind(function, children=pairs) for function in functions))


def _serial_init(key: Any, in_shape: Sequence[int], *, children: Children) -> Initial:
    checks.key(key)
    params, state, shape = {}, {}, as_shape(in_shape)
    for (name, child), child_key in zip(children, split(key, len(children)), strict=True):
        params[name], state[name], shape = child.init(child_key, shape)
    return without_empty(params), without_empty(state), shape


def _serial_forward(
    params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True, children: Children
) -> Result:
    check_names("params", params, children)
    check_names("state", state, children)
    out, caches, new_state = x, [], {}
    for (name, child), child_key in zip(children, split(key, len(children)), strict=True):
        child_params, child_state = child_of(params, name), child_of(state, name)
        with inside(name):
            out, cache, new_state[name] = child.forward(
                child_params, child_state, out, key=child_key, train=train
            )
        caches.append(cache)
    new_state = restructure(structure_of(state), new_state)
    return out, Cache(tuple(caches), structure_of(params)), new_state


def _serial_backward(dout: Any, cache: Cache, *, children: Children) -> tuple[jax.Array, Tree]:
    grads = {}
    for (name, child), child_cache in zip(reversed(children), reversed(cache.arrays), strict=True):
        with inside(name):
            dout, grads[name] = child.backward(dout, child_cache)
    return dout, restructure(cache.structure, grads)


def residual(*children: Layer) -> Layer:
    """A residual block, `out = x + f(x)` with f the composition of the layers (He et al. 2016).

    f must keep the shape of its input. `params` and `state` are named as by `serial`. For a
    block that starts as the identity, give its last affine layer `weight_scale=0`.

    Args:
      children: layers, which together keep the shape.
    Returns:
      A layer, of kind "residual".
    Raises:
      TypeError: one of them is no layer.
      ValueError: in `init` and `forward`, they do not keep the shape.
    Example:
      >>> net = fn.residual(fn.affine(3), fn.relu(), fn.affine(3, weight_scale=0))
      >>> params, state, out_shape = net.init(jax.random.key(0), (3,))
      >>> print(net.forward(params, state, jnp.array([[1.0, 2.0, 3.0]]))[0])
      [[1. 2. 3.]]
    """
    branch = serial(*children)
    functions = (_residual_init, _residual_forward, _residual_backward)
    return Layer("residual", *(bind(function, branch=branch) for function in functions))


def _residual_init(key: Any, in_shape: Sequence[int], *, branch: Layer) -> Initial:
    params, state, out_shape = branch.init(key, in_shape)
    _check_kept(as_shape(in_shape), out_shape)
    return params, state, out_shape


def _residual_forward(
    params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True, branch: Layer
) -> Result:
    out, cache, state = branch.forward(params, state, x, key=key, train=train)
    _check_kept(jnp.shape(x)[1:], out.shape[1:])
    return add(x, out), cache, state


def _residual_backward(dout: Any, cache: Cache, *, branch: Layer) -> tuple[jax.Array, Tree]:
    dx, grads = branch.backward(dout, cache)
    return add(dout, dx), grads


def _check_kept(in_shape: Shape, out_shape: Shape) -> None:
    if out_shape != in_shape:
        raise ValueError(
            f"residual: its layers must keep the shape {list(in_shape)}, "
            f"but they give {list(out_shape)}"
        )


def mlp(
    hidden_dims: Sequence[int],
    num_classes: int,
    *,
    normalization: str | Layer | None = None,
    keep_prob: Any = None,
    activation: str | Layer = "relu",
    weight_scale: Any = None,
    input_keep_prob: Any = None,
    matmul_dtype: Any = None,
) -> Layer:
    """A fully connected network.

    For each hidden layer: affine, normalization, activation, dropout; then an affine layer.

    Args:
      hidden_dims: the size of each hidden layer; none, `[]`, is a linear classifier.
      num_classes: the number of scores.
      normalization: a layer, such as `layernorm(eps=1e-3)`, or a name, such as "batchnorm"; None
        is none.
      keep_prob: the probability that dropout keeps a hidden unit; may be traced, or a schedule,
        as for `dropout`. None is no dropout.
      activation: a layer, such as `leaky_relu(0.2)`, or a name, such as "relu" or "gelu_tanh".
      weight_scale: scale of the initial weights, as for `affine`: a number, which may be traced,
        "he" or None, or "glorot". Biases start at 0.
      input_keep_prob: the probability that dropout keeps an input; may be traced, or a schedule.
        None is no dropout.
      matmul_dtype: dtype of the factors of the matrix products, as for `affine`.
    Returns:
      A layer with parameters affine1, affine2, ..., and batchnorm1, ... or layernorm1, ...
    Raises:
      ValueError: a size is below 1, a probability or weight_scale is out of its range, or there is
        no normalization or activation of the name.
      TypeError: hidden_dims is no sequence of integers, or another argument has none of the types
        above.
    Example:
      >>> net = fn.mlp([8], num_classes=2, normalization="batchnorm", keep_prob=0.9)
      >>> params, state, out_shape = net.init(jax.random.key(0), (4,))
      >>> params
      FrozenDict(74 parameters
        affine1/b         float32[8]
        affine1/w         float32[4, 8]
        affine2/b         float32[2]
        affine2/w         float32[8, 2]
        batchnorm1/beta   float32[8]
        batchnorm1/gamma  float32[8]
      )
      >>> out_shape
      (2,)
    """
    if not isinstance(hidden_dims, Iterable) or isinstance(hidden_dims, str):
        raise TypeError(f"hidden_dims must be a sequence of sizes, got {hidden_dims!r}")
    options = {"weight_scale": weight_scale, "matmul_dtype": matmul_dtype}
    between = []
    if normalization is not None:
        between += [as_layer("normalization", normalization, NORMALIZATIONS)]
    between += [as_layer("activation", activation, ACTIVATIONS)]
    if keep_prob is not None:
        between += [dropout(keep_prob)]
    children = []
    if input_keep_prob is not None:
        if not callable(input_keep_prob):
            layers.KEEP_PROB.check("input_keep_prob", input_keep_prob)
        children += [dropout(input_keep_prob)]
    for dim in hidden_dims:
        dim = DIM.check("every size in hidden_dims", dim)
        children += [affine(dim, **options), *between]
    num_classes = checks.COUNT.check("num_classes", num_classes)
    return serial(*children, affine(num_classes, **options))


def matrices(net: Layer) -> frozenset[Path]:
    """The paths of the weights of affine layers in the parameters of a network.

    Those inside layers of one's own that are made of layers are not known, and left out.
    """
    if net.backward == affine(1).backward:
        return frozenset({("w",)})
    found = composition(net) or ("", ())
    return frozenset((name, *path) for name, child in found[1] for path in matrices(child))


def composition(net: Layer) -> tuple[str, Children] | None:
    """Of a net of `serial` or `residual` which of them, and its layers; None of others."""
    function, options = getattr(net.forward, "function", None), getattr(net.forward, "options", {})
    if function is _residual_forward:
        inner = composition(options["branch"])
        return ("residual", inner[1]) if inner else None
    return ("serial", options["children"]) if function is _serial_forward else None
