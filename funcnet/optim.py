"""Optimizers: pairs of pure functions with explicit state.

    optimizer = adam(1e-3)
    opt_state = optimizer.init(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)

The update rules are those of the papers, in the conventions of CS231n where it has
them. States are nested dicts with CS231n's names, and always `step`, the int32
count of updates done. Updates have the tree structure and the dtypes of the
parameters, moments their tree structure, in float32 at least: of a half the second one would be 0
where gradients are small. Hyper-parameters are cast to the dtype of each leaf.
Leaves narrower than float32 are computed in float32 and rounded once, at the end.

A learning rate is a number, a traced value, or a schedule: a pure function that is
called with the count of updates before this one; so is a weight decay. Every other hyper-parameter
may be traced, too; 1 - 0.999 of a traced float32 is off by 1e-5 of its size, of a number exact.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.bind import Bound, bind
from funcnet.optimizer import (
    Moved,
    Optimizer,
    make_optimizer,
    one_minus_power,
)
from funcnet.schedules import LEARNING_RATE, at_step

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "lion",
    "muon",
    "nesterov",
    "rmsprop",
    "sgd",
    "sgd_momentum",
]


# What each hyper-parameter may be, whichever optimizer has it; its default is the optimizer's.
HYPER_PARAMETERS: dict[str, checks.Range] = {
    "momentum": checks.DECAY,
    "decay_rate": checks.DECAY,
    "beta1": checks.DECAY,
    "beta2": checks.DECAY,
    "epsilon": checks.POSITIVE,
    "weight_decay": checks.NON_NEGATIVE,
}
MAX_NORM = checks.POSITIVE
AVERAGE_DECAY = checks.DECAY


def sgd(learning_rate: Any) -> Optimizer:
    """Stochastic gradient descent: `w += -learning_rate * dw`.

    State: `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number; in `init` and `update`, parameters are not floating point.
    Example:
      >>> optimizer = fn.sgd(0.5)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(fn.apply_updates(params, updates)["w"])
      [0.5 2.5]
    """
    _check_numbers(learning_rate)
    return make_optimizer("sgd", bind(_sgd, rate=learning_rate))


def _sgd(dw: Any, *, cast: Any, rate: Any) -> Moved:
    return -cast(rate) * dw, {}


def sgd_momentum(learning_rate: Any, momentum: Any = 0.9) -> Optimizer:
    """Gradient descent with momentum (Polyak 1964), in CS231n's convention:

        velocity = momentum * velocity - learning_rate * dw
        w += velocity

    The learning rate is inside the velocity; libraries that keep it outside agree
    as long as the rate is constant.

    State: `velocity`, `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
      momentum: the share of the velocity that is kept, at least 0 and below 1.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number; in `init` and `update`, parameters are not floating point.
    Example:
      >>> optimizer = fn.sgd_momentum(0.5, momentum=0.5)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, opt_state = optimizer.update(grads, opt_state, params)
      >>> print(updates["w"])
      [-0.75  0.75]
    """
    _check_numbers(learning_rate, momentum=momentum)
    rule = bind(_sgd_momentum, rate=learning_rate, momentum=momentum)
    return make_optimizer("sgd_momentum", rule, moments=("velocity",))


def _sgd_momentum(dw: Any, velocity: Any, *, cast: Any, rate: Any, momentum: Any) -> Moved:
    velocity = cast(momentum) * velocity - cast(rate) * dw
    return velocity, {"velocity": velocity}


def nesterov(learning_rate: Any, momentum: Any = 0.9) -> Optimizer:
    """Nesterov's accelerated gradient (Sutskever et al. 2013), in CS231n's convention:

        velocity' = momentum * velocity - learning_rate * dw
        w += -momentum * velocity + (1 + momentum) * velocity'

    w is the point at which the gradient is taken, the one looked ahead to.

    State: `velocity`, `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
      momentum: the share of the velocity that is kept, at least 0 and below 1.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number; in `init` and `update`, parameters are not floating point.
    Example:
      >>> optimizer = fn.nesterov(0.5, momentum=0.5)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, opt_state = optimizer.update(grads, opt_state, params)
      >>> print(updates["w"])
      [-0.875  0.875]
    """
    _check_numbers(learning_rate, momentum=momentum)
    rule = bind(_nesterov, rate=learning_rate, momentum=momentum)
    return make_optimizer("nesterov", rule, moments=("velocity",))


def _nesterov(dw: Any, velocity: Any, *, cast: Any, rate: Any, momentum: Any) -> Moved:
    momentum = cast(momentum)
    ahead = momentum * velocity - cast(rate) * dw
    return ahead + momentum * (ahead - velocity), {"velocity": ahead}


def adagrad(learning_rate: Any, epsilon: Any = 1e-8) -> Optimizer:
    """AdaGrad (Duchi et al. 2011), in CS231n's convention:

        cache += dw**2
        w += -learning_rate * dw / (sqrt(cache) + epsilon)

    Epsilon is outside the root, and the cache starts at 0.

    State: `cache`, `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
      epsilon: above 0.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number; in `init` and `update`, parameters are not floating point.
    Example:
      >>> optimizer = fn.adagrad(0.5)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(np.array(updates["w"]).round(3))
      [-0.5  0.5]
    """
    _check_numbers(learning_rate, epsilon=epsilon)
    rule = bind(_adagrad, rate=learning_rate, epsilon=epsilon)
    return make_optimizer("adagrad", rule, moments=("cache",))


def _adagrad(dw: Any, cache: Any, *, cast: Any, rate: Any, epsilon: Any) -> Moved:
    cache = cache + dw * dw
    return -cast(rate) * dw / (jnp.sqrt(cache) + cast(epsilon)), {"cache": cache}


def rmsprop(learning_rate: Any, decay_rate: Any = 0.99, epsilon: Any = 1e-8) -> Optimizer:
    """RMSProp (Tieleman and Hinton 2012, lecture 6.5), in CS231n's convention:

        cache = decay_rate * cache + (1 - decay_rate) * dw**2
        w += -learning_rate * dw / (sqrt(cache) + epsilon)

    Epsilon is outside the root and the decay 0.99; other libraries have it inside, or 0.9.

    State: `cache`, `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
      decay_rate: the share of the cache that is kept, at least 0 and below 1.
      epsilon: above 0.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number; in `init` and `update`, parameters are not floating point.
    Example:
      >>> optimizer = fn.rmsprop(0.5, decay_rate=0.75)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(np.array(updates["w"]).round(3))
      [-1.  1.]
    """
    _check_numbers(learning_rate, decay_rate=decay_rate, epsilon=epsilon)
    rule = bind(_rmsprop, rate=learning_rate, decay_rate=decay_rate, epsilon=epsilon)
    return make_optimizer("rmsprop", rule, moments=("cache",))


def _rmsprop(dw: Any, cache: Any, *, cast: Any, rate: Any, decay_rate: Any, epsilon: Any) -> Moved:
    cache = cast(decay_rate) * cache + cast(1 - decay_rate) * dw * dw
    return -cast(rate) * dw / (jnp.sqrt(cache) + cast(epsilon)), {"cache": cache}


def adam(
    learning_rate: Any, beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8
) -> Optimizer:
    """Adam with bias correction (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1):

        m = beta1 * m + (1 - beta1) * dw
        v = beta2 * v + (1 - beta2) * dw**2
        w += -learning_rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

    with t = step + 1, the number of this update counted from 1.

    State: `m`, `v`, `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
      beta1, beta2: the shares of m and v that are kept, at least 0 and below 1.
      epsilon: above 0, outside the root.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number; in `init` and `update`, parameters are not floating point.
    Example:
      >>> optimizer = fn.adam(0.5)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(np.array(updates["w"]).round(3))
      [-0.5  0.5]
      >>> opt_state
      FrozenDict(5 parameters
        m/w   float32[2]
        step  int32[]
        v/w   float32[2]
      )
    """
    rule = _adam_rule(learning_rate, beta1, beta2, epsilon)
    return make_optimizer("adam", rule, moments=("m", "v"))


def _adam_rule(learning_rate: Any, beta1: Any, beta2: Any, epsilon: Any) -> Bound:
    _check_numbers(learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)
    rate = bind(_unbiased, number=learning_rate, beta=beta1)
    fix = bind(_unbiased, number=1, beta=beta2)
    return bind(_adam, rate=rate, beta1=beta1, beta2=beta2, fix=fix, epsilon=epsilon)


def _adam(
    dw: Any, m: Any, v: Any, *, cast: Any, rate: Any, beta1: Any, beta2: Any, fix: Any, epsilon: Any
) -> Moved:
    m = cast(beta1) * m + cast(1 - beta1) * dw
    v = cast(beta2) * v + cast(1 - beta2) * dw * dw
    return -cast(rate) * m / (jnp.sqrt(v * cast(fix)) + cast(epsilon)), {"m": m, "v": v}


def _unbiased(step: Any, *, number: Any, beta: Any) -> jax.Array:
    """The bias correction: the number divided by 1 - beta**t."""
    return jnp.asarray(at_step(number, step), float) / one_minus_power(beta, step + 1)


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


    State: `m`, `v`, `step`.

    Args:
      learning_rate: a number, a traced value, or a schedule.
      beta1, beta2, epsilon: as for `adam`.
      weight_decay: the strength, which the learning rate multiplies: a number, a traced value, or
        a schedule, such as `flat_cosine`, of the count of updates before this one.
      decay_names: the names of the leaves that decay, such as ("w",), which leaves biases and
        normalization alone; None is every leaf. The name is the last part of the path: `w` of
        affine1/w, `0` in a tuple; a bare array has none.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number, or decay_names a string; in `init` and `update`, parameters are
        not floating point.
    Example:
      >>> optimizer = fn.adamw(0.5, weight_decay=0.25, decay_names=("w",))
      >>> params = {"w": jnp.ones(2), "b": jnp.ones(2)}
      >>> grads = jax.tree.map(jnp.zeros_like, params)
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(updates["w"], bool((updates["b"] == 0).all()))
      [-0.125 -0.125] True
    """
    rule = _adam_rule(learning_rate, beta1, beta2, epsilon)
    decay = _decay(learning_rate, weight_decay, decay_names)
    return make_optimizer("adamw", rule, moments=("m", "v"), decay=decay)


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
    than for Adam.

    State: `m`, `step`.

    Args:
      learning_rate: a number above 0, a traced value, or a schedule, a function of the count of
        updates before this one.
      beta1, beta2: the shares of m in the update and in m itself, at least 0 and below 1.
      weight_decay: the strength of the decay, >= 0, as for `adamw`.
      decay_names: which leaves decay, as for `adamw`.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number, or decay_names a string; in `init` and `update`, parameters are
        not floating point.
    Example:
      >>> optimizer = fn.lion(0.5)
      >>> params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, -1.0])}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(np.array(updates["w"]).round(3))
      [-0.5  0.5]
    """
    _check_numbers(learning_rate, beta1=beta1, beta2=beta2)
    rule = bind(_lion, rate=learning_rate, beta1=beta1, beta2=beta2)
    decay = _decay(learning_rate, weight_decay, decay_names)
    return make_optimizer("lion", rule, moments=("m",), decay=decay)


def _lion(dw: Any, m: Any, *, cast: Any, rate: Any, beta1: Any, beta2: Any) -> Moved:
    update = -cast(rate) * jnp.sign(cast(beta1) * m + cast(1 - beta1) * dw)
    return update, {"m": cast(beta2) * m + cast(1 - beta2) * dw}


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


    State: `m`, `v` (which stays 0 for the matrices), `step`.

    Args:
      learning_rate: a number, a traced value, or a schedule.
      momentum: of the matrices.
      beta1, beta2, epsilon: of Adam.
      weight_decay, decay_names: decoupled decay, as for `adamw`.
      adam_names: matrices that are left to Adam: names of layers or leaves, such as
        "affine3", usually the last layer.
    Returns:
      An Optimizer.
    Raises:
      ValueError: a number is out of its range; in `update`, grads or opt_state do not fit params.
      TypeError: it is no number, or names are a string; in `init` and `update`, parameters are not
        floating point.
    Example:
      >>> optimizer = fn.muon(0.1)
      >>> params, grads = {"w": jnp.zeros((2, 2))}, {"w": jnp.diag(jnp.array([100.0, 1.0]))}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> moved = -jnp.diag(updates["w"])
      >>> bool(moved[0] < 2 * moved[1])
      True
    """
    adam_rule = _adam_rule(learning_rate, beta1, beta2, epsilon)
    _check_numbers(learning_rate, momentum=momentum)
    rule = bind(_muon, rate=learning_rate, momentum=momentum)
    left = bind(_left_to_adam, names=_names("adam_names", adam_names))
    decay = _decay(learning_rate, weight_decay, decay_names)
    return make_optimizer("muon", rule, adam_rule, moments=("m", "v"), choose=left, decay=decay)


def _muon(dw: Any, m: Any, v: Any, *, cast: Any, rate: Any, momentum: Any) -> Moved:
    momentum, rest = cast(momentum), cast(1 - momentum)
    m = momentum * m + rest * dw
    size = 0.2 * math.sqrt(max(dw.shape))
    return -cast(rate) * size * _orthogonal(momentum * m + rest * dw), {"m": m, "v": v}


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


def _left_to_adam(path: str, param: jax.Array, *, names: frozenset[str]) -> bool:
    return param.ndim != 2 or not names.isdisjoint(path.split("/"))


# The only list of optimizers. To add one, write the function, with its rule beside it (`_Leafwise`
# says what that is), and a row; a hyper-parameter that is new has a row in HYPER_PARAMETERS.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
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


def defaults_of(name: str) -> str:
    """Which optimizers have a hyper-parameter, and their defaults, in words."""
    known = {
        optimizer: inspect.signature(make).parameters[name].default
        for optimizer, make in OPTIMIZERS.items()
        if name in inspect.signature(make).parameters
    }
    usual = max(known.values(), key=list(known.values()).count)
    others = [f"{value:g} of {o}" for o, value in known.items() if value != usual]
    default = ", ".join([f"{usual:g}", *others]).replace("e-0", "e-")
    return f"of {', '.join(known)}; {default} if not given"


def _decay(learning_rate: Any, weight_decay: Any, names: Sequence[str] | None) -> Bound:
    """Decoupled weight decay: `decay(step)(path)` times w is what a leaf loses besides."""
    if not callable(weight_decay):
        _check_numbers(learning_rate, weight_decay=weight_decay)
    among = None if names is None else _names("decay_names", names)
    return bind(_decay_at, learning_rate=learning_rate, weight_decay=weight_decay, names=among)


def _decay_at(step: Any, *, learning_rate: Any, weight_decay: Any, names: Any) -> Any:
    rate = at_step(learning_rate, step)
    with jax.numpy_dtype_promotion("standard"):  # each may have a dtype of its own
        factor = rate * at_step(weight_decay, step)
    return lambda path: factor if names is None or path.rsplit("/", 1)[-1] in names else None


def _names(argument: str, names: Sequence[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a sequence of names, such as ({names!r},)")
    return frozenset(names)


def _check_numbers(learning_rate: Any, **hypers: Any) -> None:
    if not callable(learning_rate):
        LEARNING_RATE.check("learning_rate", learning_rate)
    for name, value in hypers.items():
        HYPER_PARAMETERS[name].check(name, value)
