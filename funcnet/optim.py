"""Optimizers: pairs of pure functions with explicit state.

    optimizer = adam(1e-3)
    opt_state = optimizer.init(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)

The update rules are those of the papers, in the conventions of CS231n where it has
them. States are nested dicts with CS231n's names, and always `step`, the int32
count of updates done. Moments and updates have the tree structure of the
parameters, and their dtypes; hyper-parameters are cast to the dtype of each leaf.
Leaves narrower than float32 are computed in float32 and rounded once, at the end.

A learning rate is a number, a traced value, or a schedule: a pure function that is
called with the count of updates before this one. Every other hyper-parameter may be
traced, too; 1 - 0.999 of a traced float32 is off by 1e-5 of its size, of a number exact.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import _check
from funcnet.layers import accumulator
from funcnet.tree import FrozenDict, check_same_structure, path_name, structure_of

Tree = Any


class Optimizer(NamedTuple):
    """An optimizer.

    Attributes:
      init: `init(params) -> opt_state`, a FrozenDict.
      update: `update(grads, opt_state, params) -> (updates, opt_state)`.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def sgd(learning_rate: Any) -> Optimizer:
    """Stochastic gradient descent: `w += -learning_rate * dw`.

    State: `step`.
    """
    _check_rate(learning_rate)

    def rule(dw: Any, rate: Any) -> tuple[Any, ...]:
        return (-rate * dw,)

    def hypers(step: Any) -> tuple[Any, ...]:
        return (_rate(learning_rate, step),)

    return _optimizer("sgd", (), rule, hypers)


def sgd_momentum(learning_rate: Any, momentum: Any = 0.9) -> Optimizer:
    """Gradient descent with momentum (Polyak 1964), in CS231n's convention:

        velocity = momentum * velocity - learning_rate * dw
        w += velocity

    The learning rate is inside the velocity; libraries that keep it outside agree
    as long as the rate is constant.

    State: `velocity`, `step`.
    """
    _check_rate(learning_rate)
    _check.DECAY.check("momentum", momentum)

    def rule(dw: Any, velocity: Any, rate: Any, momentum: Any) -> tuple[Any, ...]:
        velocity = momentum * velocity - rate * dw
        return velocity, velocity

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), momentum

    return _optimizer("sgd_momentum", ("velocity",), rule, hypers)


def nesterov(learning_rate: Any, momentum: Any = 0.9) -> Optimizer:
    """Nesterov's accelerated gradient (Sutskever et al. 2013), in CS231n's convention:

        velocity' = momentum * velocity - learning_rate * dw
        w += -momentum * velocity + (1 + momentum) * velocity'

    w is the point at which the gradient is taken, the one looked ahead to.

    State: `velocity`, `step`.
    """
    _check_rate(learning_rate)
    _check.DECAY.check("momentum", momentum)

    def rule(dw: Any, velocity: Any, rate: Any, momentum: Any) -> tuple[Any, ...]:
        ahead = momentum * velocity - rate * dw
        return ahead + momentum * (ahead - velocity), ahead

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), momentum

    return _optimizer("nesterov", ("velocity",), rule, hypers)


def adagrad(learning_rate: Any, epsilon: Any = 1e-8) -> Optimizer:
    """AdaGrad (Duchi et al. 2011), in CS231n's convention:

        cache += dw**2
        w += -learning_rate * dw / (sqrt(cache) + epsilon)

    Epsilon is outside the root, and the cache starts at 0.

    State: `cache`, `step`.
    """
    _check_rate(learning_rate)
    _check.POSITIVE.check("epsilon", epsilon)

    def rule(dw: Any, cache: Any, rate: Any, eps: Any) -> tuple[Any, ...]:
        cache = cache + dw * dw
        return -rate * dw / (jnp.sqrt(cache) + eps), cache

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), epsilon

    return _optimizer("adagrad", ("cache",), rule, hypers)


def rmsprop(learning_rate: Any, decay_rate: Any = 0.99, epsilon: Any = 1e-8) -> Optimizer:
    """RMSProp (Tieleman and Hinton 2012, lecture 6.5), in CS231n's convention:

        cache = decay_rate * cache + (1 - decay_rate) * dw**2
        w += -learning_rate * dw / (sqrt(cache) + epsilon)

    Epsilon is outside the root and the decay 0.99; other libraries have it inside, or 0.9.

    State: `cache`, `step`.
    """
    _check_rate(learning_rate)
    _check.DECAY.check("decay_rate", decay_rate)
    _check.POSITIVE.check("epsilon", epsilon)

    def rule(dw: Any, cache: Any, rate: Any, decay: Any, rest: Any, eps: Any) -> tuple[Any, ...]:
        cache = decay * cache + rest * dw * dw
        return -rate * dw / (jnp.sqrt(cache) + eps), cache

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), decay_rate, 1 - decay_rate, epsilon

    return _optimizer("rmsprop", ("cache",), rule, hypers)


def adam(
    learning_rate: Any, beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8
) -> Optimizer:
    """Adam with bias correction (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1):

        m = beta1 * m + (1 - beta1) * dw
        v = beta2 * v + (1 - beta2) * dw**2
        w += -learning_rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

    with t = step + 1, the number of this update counted from 1.

    State: `m`, `v`, `step`.
    """
    hypers = _adam_hypers(learning_rate, beta1, beta2, epsilon)
    return _optimizer("adam", ("m", "v"), _adam_rule, hypers)


def adamw(
    learning_rate: Any,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = 1e-8,
    weight_decay: Any = 0.01,
    decay_names: Sequence[str] | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101).

    The update is that of `adam`, less `learning_rate * weight_decay * w`; the decay is not
    part of the gradient, and the moments do not see it.

    Args:
      learning_rate: a number, a traced value, or a schedule.
      beta1, beta2, epsilon: as for `adam`.
      weight_decay: the strength; the learning rate multiplies it.
      decay_names: the names of the leaves that decay, such as ("w",), which leaves biases and
        normalization alone; None is every leaf. The name is the last part of the path: `w` of
        affine1/w, `0` in a tuple; a bare array has none.

    State: `m`, `v`, `step`.
    """
    hypers = _adam_hypers(learning_rate, beta1, beta2, epsilon)
    decay = _Decay(learning_rate, weight_decay, decay_names)
    return _optimizer("adamw", ("m", "v"), _adam_rule, hypers, decay=decay)


def lion(
    learning_rate: Any,
    beta1: Any = 0.9,
    beta2: Any = 0.99,
    weight_decay: Any = 0.0,
    decay_names: Sequence[str] | None = None,
) -> Optimizer:
    """Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2):

        w += -learning_rate * (sign(beta1 * m + (1 - beta1) * dw) + weight_decay * w)
        m = beta2 * m + (1 - beta2) * dw

    Every element moves by the learning rate, which wants to be three to ten times smaller
    than for Adam. `decay_names` is as for `adamw`.

    State: `m`, `step`.
    """
    _check_rate(learning_rate)
    _check.DECAY.check("beta1", beta1)
    _check.DECAY.check("beta2", beta2)
    decay = _Decay(learning_rate, weight_decay, decay_names)

    def rule(dw: Any, m: Any, rate: Any, b1: Any, r1: Any, b2: Any, r2: Any) -> tuple[Any, ...]:
        return -rate * jnp.sign(b1 * m + r1 * dw), b2 * m + r2 * dw

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), beta1, 1 - beta1, beta2, 1 - beta2

    return _optimizer("lion", ("m",), rule, hypers, decay=decay)


def muon(
    learning_rate: Any,
    momentum: Any = 0.95,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = 1e-8,
    weight_decay: Any = 0.0,
    decay_names: Sequence[str] | None = None,
    adam_names: Sequence[str] = (),
) -> Optimizer:
    """Muon (Jordan et al. 2024) for matrices, Adam for all other leaves.

    A matrix w [D, M] moves along its momentum made nearly orthogonal, by five
    Newton-Schulz steps, with Nesterov's look ahead:

        m = momentum * m + (1 - momentum) * dw
        w += -learning_rate * 0.2 * sqrt(max(D, M)) * orthogonal(momentum * m + (1 - momentum) * dw)

    The factor 0.2 sqrt(max(D, M)) (Liu et al. 2025, arXiv 2502.16982, section 2.2) gives the update
    the size of Adam's, so that one learning rate serves all leaves. An update costs
    about 30 D M min(D, M) operations: for large matrices and small batches more than the
    gradient itself.

    Args:
      learning_rate: a number, a traced value, or a schedule.
      momentum: of the matrices.
      beta1, beta2, epsilon: of Adam.
      weight_decay, decay_names: decoupled decay, as for `adamw`.
      adam_names: matrices that are left to Adam: names of layers or leaves, such as
        "affine3", usually the last layer.

    State: `m`, `v` (which stays 0 for the matrices), `step`.
    """
    adam_hypers = _adam_hypers(learning_rate, beta1, beta2, epsilon)
    _check.DECAY.check("momentum", momentum)
    if isinstance(adam_names, str):
        raise TypeError(f"adam_names must be a sequence of names, such as ({adam_names!r},)")
    decay = _Decay(learning_rate, weight_decay, decay_names)

    def rule(dw: Any, m: Any, v: Any, rate: Any, mu: Any, rest: Any, *_: Any) -> tuple[Any, ...]:
        m = mu * m + rest * dw
        size = 0.2 * math.sqrt(max(dw.shape))
        return -rate * size * _orthogonal(mu * m + rest * dw), m, v

    def adam_rule(dw: Any, m: Any, v: Any, *numbers: Any) -> tuple[Any, ...]:
        return _adam_rule(dw, m, v, *numbers[3:])

    def rule_for(path: str, param: jax.Array) -> Callable[..., tuple[Any, ...]]:
        return rule if param.ndim == 2 and not set(path.split("/")) & set(adam_names) else adam_rule

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), momentum, 1 - momentum, *adam_hypers(step)

    return _optimizer("muon", ("m", "v"), rule_for, hypers, decay=decay, by_leaf=True)


OPTIMIZERS = {
    "sgd": sgd,
    "sgd_momentum": sgd_momentum,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
    "muon": muon,
}


def clip_by_global_norm(optimizer: Optimizer, max_norm: Any) -> Optimizer:
    """An optimizer that sees gradients of a norm of at most `max_norm` (Pascanu et al. 2013).

    All gradients are scaled by `max_norm / global_norm(grads)` where that is below 1; a NaN
    among them makes all of them NaN.

    Args:
      optimizer: the optimizer that is given them, or any pair of this shape.
      max_norm: above 0; may be traced.
    Returns:
      An Optimizer with the state of the one given.
    """
    optimizer = as_optimizer(optimizer)
    _check.POSITIVE.check("max_norm", max_norm)

    def update(grads: Tree, opt_state: Tree, params: Tree) -> tuple[Tree, Tree]:
        norm = global_norm(grads)
        scale = jnp.where(norm > max_norm, max_norm / norm, jnp.where(jnp.isnan(norm), norm, 1))

        def scaled(dw: Any) -> jax.Array:
            dw = jnp.asarray(dw)
            return (dw.astype(scale.dtype) * scale).astype(dw.dtype)

        return optimizer.update(jax.tree.map(scaled, grads), opt_state, params)

    return Optimizer(optimizer.init, update)


def global_norm(tree: Tree) -> jax.Array:
    """The root of the sum of the squares of all elements of a tree, float32 at least."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))
    wide = [leaf.astype(dtype) for leaf in leaves]
    # In units of the largest element, so that no square overflows.
    top = jnp.max(
        jnp.stack([jnp.zeros((), dtype), *(jnp.max(jnp.abs(w), initial=0) for w in wide)])
    )
    unit = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    squares = sum((jnp.sum(jnp.square(w / unit)) for w in wide), start=jnp.zeros((), dtype))
    return unit * jnp.sqrt(squares)


def with_average(optimizer: Optimizer, decay: Any) -> Optimizer:
    """An optimizer that keeps an exponential average of the parameters (Polyak 1992) as well.

    After update t, counted from 1, which leads to w:

        average += (1 - decay) / (1 - decay**t) * (w - average)

    It is the mean of the parameters visited, with weights `decay**age`: the start has none.
    The updates are those of the optimizer given; `averaged_params` reads the average.

    Args:
      optimizer: the optimizer, or any pair of this shape.
      decay: at least 0 and below 1, 0.999 say; may be traced.
    Returns:
      An Optimizer. State: `optimizer`, the state of the one given; `average`, in float32 at
      least; `step`.
    """
    optimizer = as_optimizer(optimizer)
    _check.DECAY.check("decay", decay)

    def init(params: Tree) -> FrozenDict:
        _check_floating("with_average", params)
        average = jax.tree.map(lambda p: jnp.zeros_like(accumulator(p)), params)
        entry = {"optimizer": optimizer.init(params), "average": average}
        return FrozenDict.shallow({**entry, "step": jnp.zeros((), jnp.int32)})

    def update(grads: Tree, opt_state: Tree, params: Tree) -> tuple[Tree, Tree]:
        _check_entries("with_average", opt_state, {"optimizer", "average", "step"})
        check_same_structure(opt_state["average"], params, "opt_state['average']")
        updates, inner = optimizer.update(grads, opt_state["optimizer"], params)
        step = jnp.asarray(opt_state["step"], jnp.int32) + 1
        share = (1 - decay) / _one_minus_power(decay, step)

        def follow(average: Any, param: Any) -> jax.Array:
            average = jnp.asarray(average)
            return average + share.astype(average.dtype) * (accumulator(param) - average)

        average = jax.tree.map(follow, opt_state["average"], apply_updates(params, updates))
        entry = {"optimizer": inner, "average": average, "step": step}
        return updates, FrozenDict.shallow(entry) if isinstance(opt_state, FrozenDict) else entry

    return Optimizer(init, update)


def averaged_params(opt_state: Tree, params: Tree) -> Tree:
    """The average of the parameters that `with_average` keeps.

    Args:
      opt_state: the state of an optimizer from `with_average`.
      params: the parameters; they are the average before the first update.
    Returns:
      The average, in the tree structure and dtypes of params.
    """
    if not isinstance(opt_state, Mapping) or not {"average", "step"} <= set(opt_state):
        raise ValueError(
            "averaged_params: opt_state must be that of with_average(optimizer, decay)"
        )
    check_same_structure(opt_state["average"], params, "opt_state['average']")
    started = jnp.asarray(opt_state["step"]) > 0

    def read(param: Any, average: Any) -> jax.Array:
        param = jnp.asarray(param)
        return jnp.where(started, jnp.asarray(average).astype(param.dtype), param)

    return jax.tree.map(read, params, opt_state["average"])


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """`params + updates`, in the tree structure and dtypes of params."""
    check_same_structure(updates, params, "updates")

    def add(param: Any, update: Any) -> jax.Array:
        param = jnp.asarray(param)
        return param + jnp.asarray(update).astype(param.dtype)

    return jax.tree.map(add, params, updates)


def as_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer, or an `Optimizer` of a bare pair; TypeError if it is neither."""
    pair = optimizer if type(optimizer) is tuple else ()
    if len(pair) == 2 and all(map(callable, pair)):
        return Optimizer(*pair)
    if not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be a pair (init, update), got {optimizer!r}")
    return optimizer


class _Decay:
    """Decoupled weight decay: the update of a leaf loses `rate * weight_decay * w`."""

    def __init__(self, learning_rate: Any, weight_decay: Any, names: Sequence[str] | None) -> None:
        _check.NON_NEGATIVE.check("weight_decay", weight_decay)
        if isinstance(names, str):
            raise TypeError(f"decay_names must be a sequence of names, such as ({names!r},)")
        self.names = None if names is None else frozenset(names)
        self.factor = lambda step: _rate(learning_rate, step) * weight_decay

    def applies(self, path: str) -> bool:
        return self.names is None or path.rsplit("/", 1)[-1] in self.names


def _optimizer(
    name: str,
    moments: Sequence[str],
    rule: Callable[..., Any],
    hypers: Callable[[Any], tuple[Any, ...]],
    *,
    decay: _Decay | None = None,
    by_leaf: bool = False,
) -> Optimizer:
    """An optimizer that treats each leaf by itself.

    Args:
      name: for errors.
      moments: the names of the state trees, which start at zeros.
      rule: `rule(dw, *moments, *hypers) -> (update, *moments)` on arrays of one dtype.
      hypers: `hypers(step)`, the numbers for the rule, given the count before this update.
      decay: decoupled weight decay.
      by_leaf: whether `rule(path, param)` gives the rule for a leaf instead.
    """
    entries = {*moments, "step"}

    def init(params: Tree) -> FrozenDict:
        _check_floating(name, params)
        zeros = {moment: jax.tree.map(jnp.zeros_like, params) for moment in moments}
        return FrozenDict.shallow({**zeros, "step": jnp.zeros((), jnp.int32)})

    def update(grads: Tree, opt_state: Tree, params: Tree) -> tuple[Tree, Tree]:
        _check_entries(name, opt_state, entries)
        _check_floating(name, params)
        check_same_structure(grads, params, "grads")
        for moment in moments:
            check_same_structure(opt_state[moment], params, f"opt_state[{moment!r}]")
        step = jnp.asarray(opt_state["step"], jnp.int32)
        numbers, shrink = hypers(step), None if decay is None else decay.factor(step)
        trees = [grads, *(opt_state[moment] for moment in moments)]
        columns = zip(jax.tree.leaves(params), *map(jax.tree.leaves, trees), strict=True)
        rows = []
        for path, leaves in zip(_paths(params), columns, strict=True):
            leaf_rule = rule(path, jnp.asarray(leaves[0])) if by_leaf else rule
            leaf_shrink = shrink if decay is not None and decay.applies(path) else None
            rows.append(_apply(leaf_rule, numbers, leaf_shrink, *leaves))
        structure = structure_of(params)
        updates, *new_moments = (
            jax.tree.unflatten(structure, [row[i] for row in rows]) for i in range(1 + len(moments))
        )
        entry = {**dict(zip(moments, new_moments, strict=True)), "step": step + 1}
        return updates, FrozenDict.shallow(entry) if isinstance(opt_state, FrozenDict) else entry

    return Optimizer(init, update)


def _apply(
    rule: Any, numbers: Sequence[Any], shrink: Any, param: Any, dw: Any, *moments: Any
) -> list[Any]:
    """One leaf: the rule in float32 at least, and each result rounded once to its own dtype."""
    arrays = [jnp.asarray(array) for array in (dw, *moments)]
    param = jnp.asarray(param)
    out_dtypes = [param.dtype, *(moment.dtype for moment in arrays[1:])]
    dtype = jnp.promote_types(param.dtype, jnp.float32)
    cast = [array.astype(dtype) for array in arrays] + [jnp.asarray(n, dtype) for n in numbers]
    update, *moved = rule(*cast)
    if shrink is not None:
        update = update - jnp.asarray(shrink, dtype) * param.astype(dtype)
    return [out.astype(kept) for out, kept in zip((update, *moved), out_dtypes, strict=True)]


def _paths(tree: Tree) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _adam_rule(
    dw: Any, m: Any, v: Any, rate: Any, b1: Any, r1: Any, b2: Any, r2: Any, fix2: Any, eps: Any
) -> tuple[Any, ...]:
    m = b1 * m + r1 * dw
    v = b2 * v + r2 * dw * dw
    return -rate * m / (jnp.sqrt(v * fix2) + eps), m, v


def _adam_hypers(
    learning_rate: Any, beta1: Any, beta2: Any, epsilon: Any
) -> Callable[[Any], tuple[Any, ...]]:
    _check_rate(learning_rate)
    _check.DECAY.check("beta1", beta1)
    _check.DECAY.check("beta2", beta2)
    _check.POSITIVE.check("epsilon", epsilon)

    def hypers(step: Any) -> tuple[Any, ...]:
        rate = _rate(learning_rate, step) / _one_minus_power(beta1, step + 1)
        fix2 = 1 / _one_minus_power(beta2, step + 1)
        return rate, beta1, 1 - beta1, beta2, 1 - beta2, fix2, epsilon

    return hypers


def _orthogonal(w: jax.Array) -> jax.Array:
    """U V^T of w = U S V^T, roughly: five steps of Jordan's quintic Newton-Schulz iteration.

    The singular values come to lie between about 0.7 and 1.2.
    """
    x = w.T if w.shape[0] > w.shape[1] else w  # the smaller side first: its square is w w^T
    norm = jnp.sqrt(jnp.sum(jnp.square(x)))
    x = x / jnp.maximum(norm, 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if w.shape[0] > w.shape[1] else x


def _rate(learning_rate: Any, step: Any) -> Any:
    return learning_rate(step) if callable(learning_rate) else learning_rate


def _one_minus_power(beta: Any, t: Any) -> jax.Array:
    # 1 - 0.999**t in float32 is off by 1e-5 at t = 1; expm1 loses nothing.
    log_beta: Any
    if _check.concrete(beta):
        log_beta = math.log(beta) if beta > 0 else -math.inf  # in double precision
    else:
        log_beta = jnp.log(beta)
    return -jnp.expm1(jnp.asarray(t, float) * log_beta)


def _check_rate(learning_rate: Any) -> None:
    if not callable(learning_rate):
        _check.POSITIVE.check("learning_rate", learning_rate)


def _check_entries(name: str, opt_state: Any, entries: set[str]) -> None:
    found = set(opt_state) if isinstance(opt_state, Mapping) else set()
    if found != entries:
        raise ValueError(
            f"{name}: opt_state must have {', '.join(sorted(entries))}; "
            f"got {', '.join(map(str, sorted(found))) or 'nothing'}"
        )


def _check_floating(name: str, params: Tree) -> None:
    for leaf in jax.tree.leaves(params):
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: parameters must be floating point, got {dtype}")
