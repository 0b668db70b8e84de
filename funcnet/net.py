"""Networks: layers with parameters, their composition, and the loss of a whole net.

A layer is a triple of pure functions, and a network is a layer. The backward
pass of a network is a loop over its layers in reverse.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import _check, layers
from funcnet.losses import LossFn, is_zero, l2_penalty, softmax_loss
from funcnet.tree import FrozenDict, Tree, restructure, structure_of

SCALES = {  # of the initial weights, by name
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    "glorot": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
}
DIM = _check.Count(at_most=2**31 - 1)  # of a layer
WEIGHT_SCALE = _check.NON_NEGATIVE


class Layer(NamedTuple):
    """A layer, or a whole network: three pure functions and a name.

    Attributes:
      kind: the name that `serial` numbers: "affine" becomes "affine1", "affine2", ...
      init: `init(key, in_shape) -> (params, state, out_shape)`: fresh parameters and
        state, FrozenDicts of JAX's default float type; shapes are without the batch axis.
      forward: `forward(params, state, x, *, key, train) -> (out, cache, state)`: x is
        [N, *in_shape], out [N, *out_shape]; `key` is for random layers, None if there
        are none; `train` is a Python bool. The cache is a pytree of arrays.
      backward: `backward(dout, cache) -> (dx, grads)`: dout has the shape of out, dx that
        of x; grads have the tree structure of the params that `forward` was given.
    """

    kind: str
    init: Callable[..., tuple[Tree, Tree, tuple[int, ...]]]
    forward: Callable[..., tuple[jax.Array, Any, Tree]]
    backward: Callable[[Any, Any], tuple[jax.Array, Tree]]


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["structure"])
@dataclass(frozen=True)
class Cache:
    """What a backward pass needs: arrays, and the tree structure that its grads will have."""

    arrays: Any
    structure: Any


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
    """
    dim = DIM.check("dim", dim)
    _check_scale(weight_scale)
    if matmul_dtype is not None:
        matmul_dtype = jnp.dtype(matmul_dtype)
        if not jnp.issubdtype(matmul_dtype, jnp.floating):
            raise TypeError(f"matmul_dtype must be floating point, got {matmul_dtype}")

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        _check.key(key)
        fan_in = math.prod(_shape(in_shape))
        if isinstance(weight_scale, str) or weight_scale is None:
            scale = SCALES[weight_scale or "he"](fan_in, dim)
        else:
            scale = weight_scale
        w = jax.random.normal(key, (fan_in, dim))
        params = FrozenDict(w=jnp.asarray(scale, w.dtype) * w, b=jnp.zeros(dim, w.dtype))
        return params, FrozenDict(), (dim,)

    def forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        _check_leaves("affine", params, "w", "b")
        if jnp.shape(params["w"])[1:] != (dim,):
            raise ValueError(
                f"affine: w must be [D, {dim}], for {dim} outputs, "
                f"got {list(jnp.shape(params['w']))}"
            )
        out, cache = layers.affine_forward(x, params["w"], params["b"], matmul_dtype=matmul_dtype)
        return out, Cache(cache, structure_of(params)), state

    def backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        dx, dw, db = layers.affine_backward(dout, cache.arrays)
        return dx, restructure(cache.structure, {"w": dw, "b": db})

    return Layer("affine", init, forward, backward)


def relu() -> Layer:
    """Rectified linear unit, `out = max(x, 0)`, without parameters."""
    return _elementwise("relu", layers.relu_forward, layers.relu_backward)


def leaky_relu(negative_slope: Any = 0.01) -> Layer:
    """Leaky rectified linear unit: `out = negative_slope * x` where x <= 0, else x."""
    _check.FINITE.check("negative_slope", negative_slope)

    def forward(x: Any) -> tuple[jax.Array, Any]:
        return layers.leaky_relu_forward(x, negative_slope)

    return _elementwise("leaky_relu", forward, layers.leaky_relu_backward)


def gelu(*, approximate: bool = False) -> Layer:
    """Gaussian error linear unit, `out = x Phi(x)`; approximate is the formula with tanh."""
    if approximate:
        return _elementwise("gelu", layers.gelu_tanh_forward, layers.gelu_tanh_backward)
    return _elementwise("gelu", layers.gelu_forward, layers.gelu_backward)


def tanh() -> Layer:
    """Hyperbolic tangent, without parameters."""
    return _elementwise("tanh", layers.tanh_forward, layers.tanh_backward)


def batchnorm(*, momentum: Any = 0.9, eps: Any = 1e-5) -> Layer:
    """Batch normalization, with parameters gamma and beta and state mean and var.

    In training each feature is normalized over the batch, in evaluation by the running mean
    and variance in the state; see `batchnorm_forward`.

    Args:
      momentum: the share of the running statistics that a step keeps; may be traced.
      eps: added to the variance; may be traced.
    """
    _check.NON_NEGATIVE.check("momentum", momentum)
    _check.NON_NEGATIVE.check("eps", eps)

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        shape = _shape(in_shape)
        params = FrozenDict(gamma=jnp.ones(shape), beta=jnp.zeros(shape))
        return params, FrozenDict(mean=jnp.zeros(shape), var=jnp.ones(shape)), shape

    def forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        _check_leaves("batchnorm", params, "gamma", "beta")
        out, cache, state = layers.batchnorm_forward(
            x, params["gamma"], params["beta"], state, train=train, momentum=momentum, eps=eps
        )
        return out, Cache(cache, structure_of(params)), state

    def backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        dx, dgamma, dbeta = layers.batchnorm_backward(dout, cache.arrays)
        return dx, restructure(cache.structure, {"gamma": dgamma, "beta": dbeta})

    return Layer("batchnorm", init, forward, backward)


def layernorm(*, eps: Any = 1e-5) -> Layer:
    """Layer normalization, with parameters gamma and beta; see `layernorm_forward`.

    Args:
      eps: added to the variance; may be traced.
    """
    _check.NON_NEGATIVE.check("eps", eps)

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        shape = _shape(in_shape)
        return FrozenDict(gamma=jnp.ones(shape), beta=jnp.zeros(shape)), FrozenDict(), shape

    def forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        _check_leaves("layernorm", params, "gamma", "beta")
        out, cache = layers.layernorm_forward(x, params["gamma"], params["beta"], eps=eps)
        return out, Cache(cache, structure_of(params)), state

    def backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        dx, dgamma, dbeta = layers.layernorm_backward(dout, cache.arrays)
        return dx, restructure(cache.structure, {"gamma": dgamma, "beta": dbeta})

    return Layer("layernorm", init, forward, backward)


def dropout(keep_prob: Any) -> Layer:
    """Inverted dropout: in training each element is kept with probability keep_prob.

    Args:
      keep_prob: above 0 and at most 1; may be traced. It is the share that is kept, as in
        CS231n; other libraries give the share that is dropped.
    """
    layers.KEEP_PROB.check("keep_prob", keep_prob)

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        return FrozenDict(), FrozenDict(), _shape(in_shape)

    def forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        out, cache = layers.dropout_forward(x, key, keep_prob, train=train)
        return out, Cache(cache, structure_of(params)), state

    def backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        return layers.dropout_backward(dout, cache.arrays), restructure(cache.structure, {})

    return Layer("dropout", init, forward, backward)


def serial(*children: Layer) -> Layer:
    """The composition of layers: each one's output is the next one's input.

    `params` and `state` hold those of the children under their kind and number
    from 1, as in `params["affine2"]["w"]`; children without any are left out.
    """
    counts: Counter[str] = Counter()
    names = []
    for child in children:
        if not isinstance(child, Layer):
            raise TypeError(f"serial takes layers, such as affine(100), got {child!r}")
        counts[child.kind] += 1
        names.append(f"{child.kind}{counts[child.kind]}")

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        _check.key(key)
        params, state, shape = {}, {}, _shape(in_shape)
        for name, child, child_key in zip(names, children, _split(key), strict=True):
            params[name], state[name], shape = child.init(child_key, shape)
        return _without_empty(params), _without_empty(state), shape

    def forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        _check_names("params", params)
        _check_names("state", state)
        out, caches, new_state = x, [], {}
        for name, child, child_key in zip(names, children, _split(key), strict=True):
            child_params, child_state = _child(params, name), _child(state, name)
            with _inside(name):
                out, cache, new_state[name] = child.forward(
                    child_params, child_state, out, key=child_key, train=train
                )
            caches.append(cache)
        new_state = restructure(structure_of(state), new_state)
        return out, Cache(tuple(caches), structure_of(params)), new_state

    def backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        grads = {}
        for name, child, child_cache in zip(
            reversed(names), reversed(children), reversed(cache.arrays), strict=True
        ):
            with _inside(name):
                dout, grads[name] = child.backward(dout, child_cache)
        return dout, restructure(cache.structure, grads)

    def _split(key: Any) -> Any:
        return [None] * len(names) if key is None else jax.random.split(key, len(names))

    def _check_names(what: str, tree: Tree) -> None:
        for name in tree:
            if name not in names:
                raise ValueError(_check.unknown(f"layer in {what}", name, names))

    return Layer("serial", init, forward, backward)


def residual(*children: Layer) -> Layer:
    """A residual block, `out = x + f(x)` with f the composition of the layers (He et al. 2016).

    f must keep the shape of its input. `params` and `state` are named as by `serial`. For a
    block that starts as the identity, give its last affine layer `weight_scale=0`.
    """
    branch = serial(*children)

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        params, state, out_shape = branch.init(key, in_shape)
        _check_kept(_shape(in_shape), out_shape)
        return params, state, out_shape

    def forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        out, cache, state = branch.forward(params, state, x, key=key, train=train)
        _check_kept(jnp.shape(x)[1:], out.shape[1:])
        return x + out, cache, state

    def backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        dx, grads = branch.backward(dout, cache)
        return dout + dx, grads

    def _check_kept(in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        if out_shape != in_shape:
            raise ValueError(
                f"residual: its layers must keep the shape {list(in_shape)}, "
                f"but they give {list(out_shape)}"
            )

    return Layer("residual", init, forward, backward)


NORMALIZATIONS: dict[str, Callable[[], Layer]] = {"batchnorm": batchnorm, "layernorm": layernorm}
ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "gelu": gelu,
    "gelu_tanh": partial(gelu, approximate=True),
    "tanh": tanh,
}


def mlp(
    hidden_dims: Sequence[int],
    num_classes: int,
    *,
    normalization: str | None = None,
    keep_prob: Any = None,
    activation: str = "relu",
    weight_scale: Any = None,
    input_keep_prob: Any = None,
    matmul_dtype: Any = None,
) -> Layer:
    """A fully connected network.

    For each hidden layer: affine, normalization, activation, dropout; then an affine layer.

    Args:
      hidden_dims: the size of each hidden layer; none, `[]`, is a linear classifier.
      num_classes: the number of scores.
      normalization: None, "batchnorm" or "layernorm".
      keep_prob: the probability that dropout keeps a hidden unit; may be traced. None is no
        dropout.
      activation: "relu", "leaky_relu", "gelu", "gelu_tanh" or "tanh".
      weight_scale: scale of the initial weights, as for `affine`: a number, which may be traced,
        "he" or None, or "glorot". Biases start at 0.
      input_keep_prob: the probability that dropout keeps an input; may be traced. None is no
        dropout.
      matmul_dtype: dtype of the factors of the matrix products, as for `affine`.
    Returns:
      A layer with parameters affine1, affine2, ..., and batchnorm1, ... or layernorm1, ...
    """
    if not isinstance(hidden_dims, Iterable) or isinstance(hidden_dims, str):
        raise TypeError(f"hidden_dims must be a sequence of sizes, got {hidden_dims!r}")
    activate = _check.choose("activation", activation, ACTIVATIONS)
    normalize = None
    if normalization is not None:
        normalize = _check.choose("normalization", normalization, NORMALIZATIONS)
    options = {"weight_scale": weight_scale, "matmul_dtype": matmul_dtype}
    for name, share in (("keep_prob", keep_prob), ("input_keep_prob", input_keep_prob)):
        if share is not None:
            layers.KEEP_PROB.check(name, share)
    children: list[Layer] = [] if input_keep_prob is None else [dropout(input_keep_prob)]
    for dim in hidden_dims:
        dim = DIM.check("every size in hidden_dims", dim)
        children += [affine(dim, **options)]
        if normalize is not None:
            children += [normalize()]
        children += [activate()]
        if keep_prob is not None:
            children += [dropout(keep_prob)]
    num_classes = _check.COUNT.check("num_classes", num_classes)
    return serial(*children, affine(num_classes, **options))


def loss_and_grads(
    net: Layer,
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    *,
    reg: Any = 0.0,
    key: Any = None,
    train: bool = True,
    loss_fn: LossFn = softmax_loss,
) -> tuple[jax.Array, Tree, Tree]:
    """The loss of a network on a batch, and its gradient by the hand-written backward pass.

    Args:
      net: the network.
      params, state: its parameters and state; plain dicts, FrozenDicts or a mix.
      x: [N, ...] inputs, cast to the dtype of the parameters.
      y: [N] integer labels, or what else loss_fn takes, such as [N, C] soft targets.
      reg: L2 strength, `0.5 * reg * sum(w**2)` over the leaves named w is added; may be traced.
      key: for random layers in training; each call wants a new one.
      train: whether layers that behave differently in training do.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
    Returns:
      loss, a scalar; grads, in the tree structure of params; the new state.
    """
    scores, cache, state = net.forward(params, state, as_input(x, params), key=key, train=train)
    total, dscores = loss_fn(scores, y)
    _, grads = net.backward(dscores, cache)
    if not is_zero(reg):
        penalty, penalty_grads = l2_penalty(params, reg)
        total = total + penalty
        grads = jax.tree.map(jnp.add, grads, penalty_grads)
    return total, grads, state


def loss(
    net: Layer,
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    *,
    reg: Any = 0.0,
    key: Any = None,
    train: bool = True,
    loss_fn: LossFn = softmax_loss,
) -> jax.Array:
    """The loss alone, forward only, with the arguments of `loss_and_grads`.

    `jax.grad(loss, argnums=1)` of it is the judge of the hand-written gradients.
    """
    scores, _, _ = net.forward(params, state, as_input(x, params), key=key, train=train)
    total, _ = loss_fn(scores, y)
    return total if is_zero(reg) else total + l2_penalty(params, reg)[0]


def as_input(x: Any, params: Tree) -> jax.Array:
    """x in the dtype in which the network computes, that of its parameters."""
    dtypes = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.asarray(x, jnp.result_type(*floating)) if floating else jnp.asarray(x)


def _elementwise(kind: str, forward: Any, backward: Any) -> Layer:
    """A layer without parameters, from a pair of functions of an array of any shape."""

    def init(key: Any, in_shape: Sequence[int]) -> tuple[Tree, Tree, tuple[int, ...]]:
        return FrozenDict(), FrozenDict(), _shape(in_shape)

    def layer_forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> tuple[jax.Array, Any, Tree]:
        out, cache = forward(x)
        return out, Cache(cache, structure_of(params)), state

    def layer_backward(dout: Any, cache: Cache) -> tuple[jax.Array, Tree]:
        return backward(dout, cache.arrays), restructure(cache.structure, {})

    return Layer(kind, init, layer_forward, layer_backward)


def _check_leaves(layer: str, params: Tree, *names: str) -> None:
    if set(params) != set(names):
        raise ValueError(f"{layer}: params must have {' and '.join(names)}, got {sorted(params)}")


def _check_scale(weight_scale: Any) -> None:
    if isinstance(weight_scale, str):
        _check.choose("weight_scale", weight_scale, SCALES)
    elif weight_scale is not None:
        WEIGHT_SCALE.check("weight_scale", weight_scale)


def _shape(in_shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(in_shape, Iterable):
        raise TypeError(f"in_shape must be a shape, such as ({in_shape},), got {in_shape!r}")
    return tuple(_check.COUNT.check("every size in in_shape", size) for size in in_shape)


def _child(tree: Tree, name: str) -> Tree:
    return tree[name] if name in tree else FrozenDict()


def _without_empty(children: dict[str, Tree]) -> FrozenDict:
    return FrozenDict({name: child for name, child in children.items() if child})


@contextmanager
def _inside(name: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(f"in layer {name}")
        raise
