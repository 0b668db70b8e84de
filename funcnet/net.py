"""Networks: layers with parameters, their composition, and the loss of a whole net.

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
from funcnet.batch import share_of_shard
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
from funcnet.layers import accumulator, add, common_dtype
from funcnet.losses import is_zero, l2_penalty, softmax_loss, takes_weights
from funcnet.shards import is_sharded, over_shards
from funcnet.transposed import Path, Transposed
from funcnet.tree import LossFn, Tree, restructure, structure_of

__all__ = [
    "affine",
    "batchnorm",
    "dropout",
    "flatten",
    "layernorm",
    "loss",
    "loss_and_grads",
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
    """Each example as a vector, [N, d1, ..., dk] to [N, d1 * ... * dk]; `affine` does it itself."""
    return make_layer("flatten", layers.flatten_forward, layers.flatten_backward, _init_flatten)


def _init_flatten(key: Any, in_shape: Shape) -> Initial:
    return {}, {}, (math.prod(in_shape),)


def serial(*children: Layer) -> Layer:
    """The composition of layers: each one's output is the next one's input.

    `params` and `state` hold those of the children under their kind and number
    from 1, as in `params["affine2"]["w"]`; children without any are left out.
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
    _, children = taken_apart(net)
    return frozenset((name, *path) for name, child in children for path in matrices(child))


def taken_apart(net: Layer) -> tuple[Callable[..., Layer], Children]:
    """`serial` or `residual`, and the layers that it made a network of, by name; of others none."""
    function, options = getattr(net.forward, "function", None), getattr(net.forward, "options", {})
    if function is _residual_forward:
        return residual, taken_apart(options["branch"])[1]
    return serial, options["children"] if function is _serial_forward else ()


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
    sample_weight: Any = None,
) -> tuple[jax.Array, Tree, Tree]:
    """The loss of a network on a batch, and its gradient by the hand-written backward pass.

    Args:
      net: the network.
      params, state: its parameters and state; plain dicts, FrozenDicts or a mix.
      x: [N, ...] inputs, cast to the dtype of the parameters.
      y: [N] integer labels, or what else loss_fn takes, such as [N, K] numbers.
      reg: L2 strength, `0.5 * reg * sum(w**2)` over the leaves named w is added; may be traced.
      key: for random layers in training; each call wants a new one.
      train: whether layers that behave differently in training do.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`, with a keyword sample_weight, too, if it is
        to have weights. Where scores are [N, K, C], of K networks that share weights, the loss is
        the mean over k of that of scores[:, k].
      sample_weight: [N] real numbers >= 0, what each example counts in the mean over the batch; or
        None. Batch normalization does not know them: an example of weight 0 is in the mean and the
        variance of the batch like any other, and in the running ones.
    Returns:
      loss, a scalar; grads, in the tree structure of params; the new state. In a mapped axis named
      `BATCH_AXIS`, as `jax.vmap` and `jax.shard_map` have one, x is a shard of the batch, each of
      as many examples, and these are of the whole batch.
    Raises:
      TypeError: there are weights, and loss_fn takes none.
    """
    scores, cache, state = net.forward(params, state, as_input(x, params), key=key, train=train)
    total, dscores = loss_of_scores(loss_fn, scores, y, sample_weight)
    _, grads = net.backward(dscores, cache)
    if is_sharded():
        grads = jax.tree.map(over_shards, grads)
    if not is_zero(reg):
        penalty, penalty_grads = l2_penalty(params, reg)
        total, grads = jax.tree.map(add, (total, grads), (penalty, penalty_grads))
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
    sample_weight: Any = None,
) -> jax.Array:
    """The loss alone, forward only, with the arguments of `loss_and_grads`.

    `jax.grad(loss, argnums=1)` of it is the judge of the hand-written gradients.
    """
    scores, _, _ = net.forward(params, state, as_input(x, params), key=key, train=train)
    total, _ = loss_of_scores(loss_fn, scores, y, sample_weight)
    return total if is_zero(reg) else add(total, l2_penalty(params, reg)[0])


def loss_of_scores(
    loss_fn: LossFn, scores: jax.Array, y: Any, sample_weight: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The loss of what a network gives, and its gradient with respect to that.

    Of a shard, in a mapped axis `BATCH_AXIS`, loss is that of the whole batch, and dscores that of
    the shard's scores.

    That of [N, K, C], the scores of K members, is the mean of their losses, and so that of members
    of members:

        loss = mean over k of loss_fn(scores[:, k], y),  dscores[:, k] = that of member k / K

    Args:
      loss_fn, y, sample_weight: as for `loss_and_grads`.
      scores: [N, C], [N, K, C], or with more axes of members.
    Returns:
      loss, a scalar; dscores, of the shape of scores.
    Raises:
      TypeError: there are weights, and loss_fn takes none.
    """
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if weights and not takes_weights(loss_fn):
        raise TypeError(
            f"loss_fn takes no weights: give it a parameter sample_weight=None, got {loss_fn!r}"
        )
    total, dscores = _mean_of_members(loss_fn, scores, y, weights)
    if not is_sharded():
        return total, dscores
    share = share_of_shard(sample_weight)
    own, wide = share.astype(total.dtype), accumulator(dscores)
    scaled = (share.astype(wide.dtype) * wide).astype(dscores.dtype)
    return over_shards(own * total), scaled


def _mean_of_members(
    loss_fn: LossFn, scores: jax.Array, y: Any, weights: dict[str, Any]
) -> tuple[jax.Array, jax.Array]:
    if jnp.ndim(scores) < 3:
        return loss_fn(scores, y, **weights)
    shape = scores.shape
    scores = scores.reshape(shape[0], -1, shape[-1])
    each = jax.vmap(lambda member: loss_fn(member, y, **weights), in_axes=1, out_axes=(0, 1))
    losses, dscores = each(scores)  # [K], [N, K, C]
    return losses.mean(), (dscores / scores.shape[1]).reshape(shape)


def as_input(x: Any, params: Tree) -> jax.Array:
    """x in the dtype in which the network computes, that of its parameters."""
    dtypes = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.asarray(x, common_dtype(*floating)) if floating else checks.array(x)
