"""Optimizers: pairs of pure functions with explicit state.

    optimizer = adam(1e-3)
    opt_state = optimizer.init(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)

The update rules and their conventions are those of CS231n. States are nested
dicts with CS231n's names, and always `step`, the int32 count of updates done.
Moments and updates have the tree structure of the parameters, and their dtypes;
hyper-parameters are cast to the dtype of each leaf. Leaves narrower than float32
are computed in float32 and rounded once, at the end.

A learning rate is a number, a traced value, or a schedule: a function that is
called with the count of updates before this one. Every other hyper-parameter
may be traced, too; 1 - 0.999 of a traced float32 is off by 5e-5, of a number exact.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import _check
from funcnet.tree import FrozenDict, check_same_structure, structure_of

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
    _check.number("momentum", momentum, at_least=0, below=1)

    def rule(dw: Any, velocity: Any, rate: Any, momentum: Any) -> tuple[Any, ...]:
        velocity = momentum * velocity - rate * dw
        return velocity, velocity

    def hypers(step: Any) -> tuple[Any, ...]:
        return _rate(learning_rate, step), momentum

    return _optimizer("sgd_momentum", ("velocity",), rule, hypers)


def rmsprop(learning_rate: Any, decay_rate: Any = 0.99, epsilon: Any = 1e-8) -> Optimizer:
    """RMSProp (Tieleman and Hinton 2012, lecture 6.5), in CS231n's convention:

        cache = decay_rate * cache + (1 - decay_rate) * dw**2
        w += -learning_rate * dw / (sqrt(cache) + epsilon)

    Epsilon is outside the root and the decay 0.99; other libraries have it inside, or 0.9.

    State: `cache`, `step`.
    """
    _check_rate(learning_rate)
    _check.number("decay_rate", decay_rate, at_least=0, below=1)
    _check.number("epsilon", epsilon, above=0)

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
    _check_rate(learning_rate)
    _check.number("beta1", beta1, at_least=0, below=1)
    _check.number("beta2", beta2, at_least=0, below=1)
    _check.number("epsilon", epsilon, above=0)

    def rule(
        dw: Any, m: Any, v: Any, rate: Any, b1: Any, r1: Any, b2: Any, r2: Any, fix2: Any, eps: Any
    ) -> tuple[Any, ...]:
        m = b1 * m + r1 * dw
        v = b2 * v + r2 * dw * dw
        return -rate * m / (jnp.sqrt(v * fix2) + eps), m, v

    def hypers(step: Any) -> tuple[Any, ...]:
        rate = _rate(learning_rate, step) / _one_minus_power(beta1, step + 1)
        fix2 = 1 / _one_minus_power(beta2, step + 1)
        return rate, beta1, 1 - beta1, beta2, 1 - beta2, fix2, epsilon

    return _optimizer("adam", ("m", "v"), rule, hypers)


OPTIMIZERS = {"sgd": sgd, "sgd_momentum": sgd_momentum, "rmsprop": rmsprop, "adam": adam}


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """`params + updates`, in the tree structure and dtypes of params."""
    check_same_structure(updates, params, "updates")

    def add(param: Any, update: Any) -> jax.Array:
        param = jnp.asarray(param)
        return param + jnp.asarray(update).astype(param.dtype)

    return jax.tree.map(add, params, updates)


def _optimizer(
    name: str,
    moments: Sequence[str],
    rule: Callable[..., tuple[Any, ...]],
    hypers: Callable[[Any], tuple[Any, ...]],
) -> Optimizer:
    """An optimizer whose rule treats every element alike.

    Args:
      name: for errors.
      moments: the names of the state trees, which start at zeros.
      rule: `rule(dw, *moments, *hypers) -> (update, *moments)` on arrays of one dtype.
      hypers: `hypers(step)`, the numbers for the rule, given the count before this update.
    """
    entries = {*moments, "step"}

    def init(params: Tree) -> FrozenDict:
        _check_floating(name, params)
        zeros = {moment: jax.tree.map(jnp.zeros_like, params) for moment in moments}
        return FrozenDict.shallow({**zeros, "step": jnp.zeros((), jnp.int32)})

    def update(grads: Tree, opt_state: Tree, params: Tree) -> tuple[Tree, Tree]:
        if set(opt_state) != entries:
            raise ValueError(
                f"{name}: opt_state must have {', '.join(sorted(entries))}; "
                f"got {', '.join(map(str, sorted(opt_state))) or 'nothing'}"
            )
        _check_floating(name, params)
        check_same_structure(grads, params, "grads")
        for moment in moments:
            check_same_structure(opt_state[moment], params, f"opt_state[{moment!r}]")
        step = jnp.asarray(opt_state["step"], jnp.int32)
        numbers = hypers(step)
        trees = [grads, *(opt_state[moment] for moment in moments)]
        columns = zip(jax.tree.leaves(params), *map(jax.tree.leaves, trees), strict=True)
        rows = [_apply(rule, numbers, *leaves) for leaves in columns]
        structure = structure_of(params)
        updates, *new_moments = (
            jax.tree.unflatten(structure, [row[i] for row in rows]) for i in range(1 + len(moments))
        )
        entry = {**dict(zip(moments, new_moments, strict=True)), "step": step + 1}
        return updates, FrozenDict.shallow(entry) if isinstance(opt_state, FrozenDict) else entry

    return Optimizer(init, update)


def _apply(rule: Any, numbers: Sequence[Any], param: Any, dw: Any, *moments: Any) -> list[Any]:
    arrays = [jnp.asarray(array) for array in (dw, *moments)]
    out_dtypes = [jnp.asarray(param).dtype, *(moment.dtype for moment in arrays[1:])]
    dtype = jnp.promote_types(out_dtypes[0], jnp.float32)
    cast = [array.astype(dtype) for array in arrays] + [jnp.asarray(n, dtype) for n in numbers]
    return [out.astype(kept) for out, kept in zip(rule(*cast), out_dtypes, strict=True)]


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
        _check.number("learning_rate", learning_rate, above=0)


def _check_floating(name: str, params: Tree) -> None:
    for leaf in jax.tree.leaves(params):
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: parameters must be floating point, got {dtype}")
