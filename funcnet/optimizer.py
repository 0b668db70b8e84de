"""What an optimizer is, a pair of pure functions, and how one is made of a rule for a leaf."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.bind import Bound, bind
from funcnet.schedules import at_step
from funcnet.tree import FrozenDict, Tree, check_same_structure, path_name

__all__ = ["Optimizer", "apply_updates"]

Moved = tuple[Any, dict[str, Any]]  # the update of a leaf, and its moments by name


class Optimizer(NamedTuple):
    """An optimizer; of equal arguments, none of them traced or an array, it is equal.

    Attributes:
      init: `init(params) -> opt_state`, a FrozenDict.
      update: `update(grads, opt_state, params) -> (updates, opt_state)`.
    Example:
      >>> def init(params):
      ...     return {}
      >>> def update(grads, opt_state, params):
      ...     return jax.tree.map(lambda dw: -0.5 * dw, grads), opt_state
      >>> optimizer = fn.Optimizer(init, update)
      >>> params, grads = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
      >>> updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
      >>> print(updates["w"])
      [-0.5 -0.5]
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def as_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer, or an `Optimizer` of a bare pair; TypeError if it is neither."""
    pair = optimizer if type(optimizer) is tuple else ()
    if len(pair) == 2 and all(map(callable, pair)):
        return Optimizer(*pair)
    if not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be a pair (init, update), got {optimizer!r}")
    return optimizer


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """`params + updates`, leaf by leaf.

    Args:
      params: a tree of arrays.
      updates: the same tree structure and shapes, as the `update` of an optimizer gives.
    Returns:
      The sum, in the tree structure and dtypes of params.
    Raises:
      ValueError: updates have another tree structure or other shapes.
    Example:
      >>> params = fn.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})
      >>> print(params["w"])
      [1.5 1.5]
    """
    check_same_structure(updates, params, "updates")

    def add(param: Any, update: Any) -> jax.Array:
        param = jnp.asarray(param)
        return param + jnp.asarray(update).astype(param.dtype)

    return jax.tree.map(add, params, updates)


class _Leafwise(NamedTuple):
    """What makes an optimizer that treats each leaf by itself.

    A rule is a function `rule(dw, m, v, *, cast, rate, beta1, ...) -> (update, moments)` on arrays
    of one dtype, with its numbers given by `bind`; those that are functions are called with the
    step, once an update. `cast` gives a number the dtype of the arrays: what is taken of numbers
    alone, such as 1 - beta, is taken before, where Python has double precision.

    Attributes:
      name: for errors.
      rules: the rule of all leaves; or several, of which `choose(path, param)` gives the index.
      moments: the names of the state trees, which start at zeros; rules have them by name.
      decay: what `_decay` returns.
    """

    name: str
    rules: tuple[Bound, ...]
    moments: tuple[str, ...] = ()
    choose: Callable[[str, jax.Array], int] | None = None
    decay: Bound | None = None


def make_optimizer(name: str, *rules: Bound, **options: Any) -> Optimizer:
    """The optimizer of a name, of rules and of options, those of `_Leafwise`."""
    kind = _Leafwise(name, rules, **options)
    return Optimizer(bind(_init, kind=kind), bind(_update, kind=kind))


def is_leafwise(optimizer: Optimizer) -> bool:
    """Whether it is one that `make_optimizer` made."""
    return isinstance(optimizer.update, Bound) and optimizer.update.function is _update


def _init(params: Tree, *, kind: _Leafwise) -> FrozenDict:
    check_floating(kind.name, params)

    def zero(param: Any) -> jax.Array:
        return jnp.zeros_like(param, promoted(jnp.asarray(param)))

    zeros = {moment: jax.tree.map(zero, params) for moment in kind.moments}
    return FrozenDict.shallow({**zeros, "step": jnp.zeros((), jnp.int32)})


def _update(grads: Tree, opt_state: Tree, params: Tree, *, kind: _Leafwise) -> tuple[Tree, Tree]:
    name, rules, moments, choose, decay = kind
    check_entries(name, opt_state, {*moments, "step"})
    check_floating(name, params)
    check_same_structure(grads, params, "grads")
    for moment in moments:
        check_same_structure(opt_state[moment], params, f"opt_state[{moment!r}]")
    step = jnp.asarray(opt_state["step"], jnp.int32)
    numbers = [{key: at_step(value, step) for key, value in r.options.items()} for r in rules]
    shrink = None if decay is None else decay(step)

    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    trees = grads, *(opt_state[moment] for moment in moments)
    moved = []
    for (path, param), dw, *before in zip(leaves, *map(jax.tree.leaves, trees), strict=True):
        path, param = path_name(path), jnp.asarray(param)
        which = 0 if choose is None else choose(path, param)
        rule = partial(rules[which].function, **numbers[which])
        factor = None if shrink is None else shrink(path)
        moved.append(_apply(rule, factor, param, dw, dict(zip(moments, before, strict=True))))

    unflatten = partial(jax.tree.unflatten, structure)
    updates = unflatten([update for update, _ in moved])
    entry = {moment: unflatten([after[moment] for _, after in moved]) for moment in moments}
    entry["step"] = step + 1
    return updates, FrozenDict.shallow(entry) if isinstance(opt_state, FrozenDict) else entry


def _apply(
    rule: Callable[..., Moved], factor: Any, param: jax.Array, dw: Any, moments: dict[str, Any]
) -> Moved:
    """One leaf: the rule in float32 at least, and each result rounded once to its own dtype."""
    dtype = param.dtype if jnp.finfo(param.dtype).bits >= 32 else jnp.float32
    before = {name: jnp.asarray(moment) for name, moment in moments.items()}
    wide = {name: moment.astype(dtype) for name, moment in before.items()}
    cast = partial(jnp.asarray, dtype=dtype)
    update, after = rule(jnp.asarray(dw).astype(dtype), **wide, cast=cast)
    if factor is not None:
        update = update - jnp.asarray(factor, dtype) * param.astype(dtype)
    rounded = {name: after[name].astype(promoted(moment)) for name, moment in before.items()}
    return update.astype(param.dtype), rounded


def one_minus_power(beta: Any, t: Any) -> jax.Array:
    """1 - beta**t, accurate where it is small."""
    # 1 - 0.999**t in float32 is off by 1e-5 at t = 1; expm1 loses nothing.
    if not checks.concrete(beta):
        log_beta: Any = jnp.log(beta).astype(float)
    else:  # in double precision
        log_beta = math.log(beta) if float(beta) > 0 else -math.inf
    return -jnp.expm1(jnp.asarray(t, float) * log_beta)


def promoted(*values: Any) -> Any:
    """The dtype in which JAX computes with these, float32 at least, in its strict mode as well."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(jnp.float32, *values)


def check_entries(name: str, opt_state: Any, entries: set[str]) -> None:
    """Raise unless the state of optimizer `name` has these entries."""
    found = set(opt_state) if isinstance(opt_state, Mapping) else set()
    if found != entries:
        raise ValueError(
            f"{name}: opt_state must have {', '.join(sorted(entries))}; "
            f"got {', '.join(map(str, sorted(found))) or 'nothing'}"
        )


def check_floating(name: str, params: Tree) -> None:
    """Raise unless the parameters of optimizer `name` are floating point."""
    for leaf in jax.tree.leaves(params):
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: parameters must be floating point, got {dtype}")
