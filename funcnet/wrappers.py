"""What goes around an optimizer: clipping of gradients, an average of the parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.bind import Bound, bind
from funcnet.optim import AVERAGE_DECAY, MAX_NORM
from funcnet.optimizer import (
    Optimizer,
    apply_updates,
    as_optimizer,
    check_entries,
    check_floating,
    is_leafwise,
    one_minus_power,
    promoted,
)
from funcnet.tree import FrozenDict, Tree, check_same_structure

__all__ = [
    "averaged_params",
    "clip_by_global_norm",
    "global_norm",
    "with_average",
]


def clip_by_global_norm(optimizer: Optimizer, max_norm: Any) -> Optimizer:
    """An optimizer that sees gradients of a norm of at most `max_norm` (Pascanu et al. 2013).

    All gradients are scaled by `max_norm / global_norm(grads)` where that is below 1; a NaN
    among them makes all of them NaN.

    Args:
      optimizer: the optimizer that is given them, or any pair of this shape.
      max_norm: above 0; may be traced.
    Returns:
      An Optimizer with the state of the one given.
    Raises:
      ValueError: max_norm is not above 0.
      TypeError: it is no number, or optimizer no pair (init, update).
    Example:
      >>> optimizer = fn.clip_by_global_norm(fn.sgd(1.0), max_norm=1.0)
      >>> params, grads = {"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(np.array(updates["w"]).round(3))
      [-0.6 -0.8]
    """
    optimizer = as_optimizer(optimizer)
    MAX_NORM.check("max_norm", max_norm)
    return Optimizer(optimizer.init, bind(_clipped, optimizer=optimizer, max_norm=max_norm))


def _clipped(
    grads: Tree, opt_state: Tree, params: Tree, *, optimizer: Optimizer, max_norm: Any
) -> tuple[Tree, Tree]:
    norm = global_norm(grads)
    dtype = promoted(norm, max_norm)
    norm, max_norm = norm.astype(dtype), jnp.asarray(max_norm, dtype)
    scale = jnp.where(norm > max_norm, max_norm / norm, jnp.where(jnp.isnan(norm), norm, 1))

    def scaled(dw: Any) -> jax.Array:
        dw = jnp.asarray(dw)
        return (dw.astype(dtype) * scale).astype(dw.dtype)

    return optimizer.update(jax.tree.map(scaled, grads), opt_state, params)


def global_norm(tree: Tree) -> jax.Array:
    """The root of the sum of the squares of all elements of a tree, float32 at least.

    Args:
      tree: a tree of arrays, such as gradients.
    Returns:
      A scalar of the widest dtype of the leaves, float32 at least; 0 for no leaves, NaN if there is
      one.
    Example:
      >>> print(fn.global_norm({"w": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}))
      5.0
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = promoted(*leaves)
    wide = [leaf.astype(dtype) for leaf in leaves]
    # In units of the largest element, so that no square overflows.
    largest = (jnp.max(jnp.abs(w), initial=0) for w in wide)
    top = jnp.max(jnp.stack([jnp.zeros((), dtype), *largest]))
    unit = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    squares = sum((jnp.sum(jnp.square(w / unit)) for w in wide), start=jnp.zeros((), dtype))
    some = squares > 0  # or NaN, or 0, at which the root has no derivative
    return unit * jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), squares)


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
    Raises:
      ValueError: decay is out of its range; in `update`, trees do not fit.
      TypeError: it is no number, or optimizer no pair (init, update); in `init`, parameters are not
        floating point.
    Example:
      >>> optimizer = fn.with_average(fn.sgd(1.0), decay=0.5)
      >>> params = {"w": jnp.array([0.0])}
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, opt_state = optimizer.update({"w": jnp.array([-3.0])}, opt_state, params)
      ...     params = fn.apply_updates(params, updates)
      >>> print(params["w"], fn.averaged_params(opt_state, params)["w"])
      [6.] [5.]
    """
    optimizer = as_optimizer(optimizer)
    AVERAGE_DECAY.check("decay", decay)
    init = bind(_init_average, optimizer=optimizer)
    return Optimizer(init, bind(_update_average, optimizer=optimizer, decay=decay))


def _init_average(params: Tree, *, optimizer: Optimizer) -> FrozenDict:
    check_floating("with_average", params)
    average = jax.tree.map(lambda p: jnp.zeros_like(p, promoted(jnp.asarray(p))), params)
    entry = {"optimizer": optimizer.init(params), "average": average}
    return FrozenDict.shallow({**entry, "step": jnp.zeros((), jnp.int32)})


def _update_average(
    grads: Tree, opt_state: Tree, params: Tree, *, optimizer: Optimizer, decay: Any
) -> tuple[Tree, Tree]:
    check_entries("with_average", opt_state, {"optimizer", "average", "step"})
    check_same_structure(opt_state["average"], params, "opt_state['average']")
    updates, inner = optimizer.update(grads, opt_state["optimizer"], params)
    step = jnp.asarray(opt_state["step"], jnp.int32) + 1
    share = jnp.asarray(1 - decay, float) / one_minus_power(decay, step)

    def follow(average: Any, param: Any) -> jax.Array:
        average = jnp.asarray(average)
        average = average.astype(promoted(average))
        param = jnp.asarray(param).astype(average.dtype)
        return average + share.astype(average.dtype) * (param - average)

    average = jax.tree.map(follow, opt_state["average"], apply_updates(params, updates))
    entry = {"optimizer": inner, "average": average, "step": step}
    return updates, FrozenDict.shallow(entry) if isinstance(opt_state, FrozenDict) else entry


def averaged_params(opt_state: Tree, params: Tree) -> Tree:
    """The average of the parameters that `with_average` keeps.

    Args:
      opt_state: the state of an optimizer from `with_average`.
      params: the parameters; they are the average before the first update.
    Returns:
      The average, in the tree structure and dtypes of params.
    Raises:
      ValueError: opt_state is that of another optimizer, or of other parameters.
    Example:
      >>> optimizer, params = fn.with_average(fn.sgd(1.0), decay=0.5), {"w": jnp.ones(2)}
      >>> print(fn.averaged_params(optimizer.init(params), params)["w"])
      [1. 1.]
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


def moves_transposes(optimizer: Optimizer) -> bool:
    """Whether an optimizer moves the transpose of a matrix to the transpose of where it goes.

    All of `optim` do, and with these around them, too; of others it is not known.
    """
    update = optimizer.update
    if not isinstance(update, Bound):
        return False
    if update.function in (_clipped, _update_average):
        return moves_transposes(update.options["optimizer"])
    return is_leafwise(optimizer)
