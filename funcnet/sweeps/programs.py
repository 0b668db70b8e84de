"""The compiled programs of a sweep: each of them is for all members of a chunk at once."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.loop import epoch_order, over_epoch, run_steps
from funcnet.model import Model, sums
from funcnet.preprocess import Preprocess
from funcnet.step import (
    Held,
    TrainingArrays,
    TrainState,
    held_parts,
    init_train_state,
    params_in_use,
    release,
    step_on,
)
from funcnet.sweeps.groups import Plan, make_program
from funcnet.tree import Tree

HELD_AXES = Held(0, 0, 0, None)  # type: ignore[arg-type]  # of the members
HALVED = 8  # members; on the CPU, so many or more are faster as two halves, see `_parts`


@partial(jax.jit, static_argnames=("plan", "in_shape"))
def init_states(
    keys: jax.Array,
    numbers: dict[str, jax.Array],
    count: np.ndarray,
    *,
    plan: Plan,
    in_shape: tuple[int, ...],
) -> TrainState:
    """The states of members before their first step."""

    def one(key: jax.Array, numbers: dict[str, jax.Array], _: Any) -> TrainState:
        program = make_program(plan, numbers).program
        return init_train_state(program.net, program.optimizer, in_shape, key=key)

    key_axis = 0 if keys.ndim else None
    return jax.vmap(one, in_axes=(key_axis, 0, 0), out_axes=_axes(keys))(keys, numbers, count)


@partial(jax.jit, static_argnames=("plan",))
def hold_members(
    state: TrainState, numbers: dict[str, jax.Array], *, plan: Plan
) -> tuple[Held, ...]:
    """The states of members for `train_members`, a copy: those of the parts they have in a step."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> Held:
        return held_parts(state, make_program(plan, numbers).program)

    held = jax.vmap(one, in_axes=(_axes(state.key), 0), out_axes=HELD_AXES)(state, numbers)

    def taken(part: slice) -> Held:
        params, layers, opt_state = jax.tree.map(lambda leaf: leaf[part], held[:3])
        return Held(params, layers, opt_state, jnp.copy(held.step))

    return tuple(map(taken, _parts(len(jax.tree.leaves(held[:3])[0]))))


@jax.jit
def release_members(held: tuple[Held, ...], key: jax.Array, epoch: Any) -> TrainState:
    """The TrainState of members that are held: a copy."""
    parts = [release(part, key, epoch) for part in held]
    trees = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *map(_trees, parts))
    return _with_trees(parts[0], trees)


def train_members(
    held: tuple[Held, ...],
    key: jax.Array,
    epoch: int,
    numbers: dict[str, jax.Array],
    data: TrainingArrays,
    *,
    plan: Plan,
    batch_size: int,
    size: int,
) -> tuple[tuple[Held, ...], np.ndarray, int]:
    """`train_epoch` of all members: their losses are [steps, members].

    Args:
      held: their states, whose buffers are given up.
      key: the key that all of them have, or one for each.
      numbers: what the experiment is given of each.
      epoch, data, batch_size, size: as for `train_epoch`.
      plan: the plan.
    """
    given = key, numbers, data.x, data.y, data.preprocess

    def steps(*at: Any) -> tuple[tuple[Held, ...], jax.Array]:
        return _steps(*at, *given, plan=plan, batch_size=batch_size)

    def step(held: tuple[Held, ...], batch: jax.Array) -> tuple[tuple[Held, ...], jax.Array]:
        return _step(held, batch, *given, plan=plan)

    keys = [key] if key.ndim == 0 else key
    orders = np.stack([epoch_order(each, epoch, data.num_examples) for each in keys], axis=1)
    options = {"room": len(data.x), "batch_size": batch_size, "size": size}
    members = (sum(map(_count, held)),)
    return over_epoch(steps, step, held, orders, loss_shape=members, **options)


def _step_on(
    held: tuple[Held, ...],
    batch: jax.Array,
    key: jax.Array,
    numbers: dict[str, jax.Array],
    x: jax.Array,
    y: jax.Array,
    preprocess: Preprocess,
    plan: Plan,
) -> tuple[tuple[Held, ...], jax.Array]:
    """One update of each member; batch is [N, 1] if all take the same examples, or [N, members]."""
    shared = key.ndim == 0

    def one(
        held: Held, batch: jax.Array, key: jax.Array, numbers: dict[str, jax.Array]
    ) -> tuple[Held, jax.Array]:
        made = make_program(plan, numbers)
        return step_on(held, batch, key, x, y, preprocess, made.numbers, made.program)

    axes = (HELD_AXES, None, None, 0) if shared else (HELD_AXES, 1, 0, 0)
    side_by_side = jax.vmap(one, in_axes=axes, out_axes=(HELD_AXES, 0))
    done = [
        side_by_side(
            own,
            batch[:, 0] if shared else batch[:, part],
            key if shared else key[part],
            {name: values[part] for name, values in numbers.items()},
        )
        for own, part in zip(held, _parts(sum(map(_count, held))), strict=True)
    ]
    return tuple(own for own, _ in done), jnp.concatenate([loss for _, loss in done])


_step = jax.jit(_step_on, static_argnames=("plan",), donate_argnums=(0,))


@partial(jax.jit, static_argnames=("plan", "batch_size"), donate_argnums=(0, 1))
def _steps(
    held: tuple[Held, ...],
    losses: jax.Array,
    order: jax.Array,
    first: Any,
    end: Any,
    key: jax.Array,
    numbers: dict[str, jax.Array],
    x: jax.Array,
    y: jax.Array,
    preprocess: Preprocess,
    *,
    plan: Plan,
    batch_size: int,
) -> tuple[tuple[Held, ...], jax.Array]:
    def step(held: tuple[Held, ...], batch: jax.Array) -> tuple[tuple[Held, ...], jax.Array]:
        return _step_on(held, batch, key, numbers, x, y, preprocess, plan)

    return run_steps(step, held, losses, order, first, end, batch_size)


@partial(jax.jit, static_argnames=("plan",))
def sums_of_members(
    state: TrainState,
    numbers: dict[str, jax.Array],
    preprocess: Preprocess,
    x: jax.Array,
    y: jax.Array,
    rows: Any,
    *,
    plan: Plan,
) -> tuple[jax.Array, jax.Array]:
    """`sums` of each member over a batch."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        program = make_program(plan, numbers).program
        params = params_in_use(state, program=program)
        return sums(
            Model(program.net, params, state.state, preprocess), x, y, rows, program.loss_fn
        )

    return jax.vmap(one, in_axes=(_axes(state.key), 0))(state, numbers)


@partial(jax.jit, static_argnames=("plan",))
def params_of_members(state: TrainState, numbers: dict[str, jax.Array], *, plan: Plan) -> Tree:
    """The parameters of all members that are to be evaluated and kept."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> Tree:
        return params_in_use(state, program=make_program(plan, numbers).program)

    return jax.vmap(one, in_axes=(_axes(state.key), 0))(state, numbers)


@jax.jit
def select(which: jax.Array, new: Tree, old: Tree) -> Tree:
    """For each member the new tree or the old one."""

    def of_leaf(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(of_leaf, new, old)


@jax.jit
def run_keys(keys: jax.Array) -> jax.Array:
    """The keys of the runs of members, as `init_train_state` splits theirs."""
    return jax.vmap(lambda key: jax.random.split(key)[1])(keys)


def stack(trees: Sequence[Tree]) -> Any:
    """Trees as one with an axis in front; None if there are none."""
    if not trees:
        return None
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _axes(key: jax.Array) -> TrainState:
    """The axis of the members in each part of a TrainState: counts are common to all."""
    return TrainState(0, 0, 0, 0 if key.ndim else None, None, None)  # type: ignore[arg-type]


def _count(held: Held) -> int:
    """The number of members in a part."""
    return len(jax.tree.leaves(held[:3])[0])


def _trees(state: TrainState) -> tuple[Tree, Tree, Tree]:
    """The parts of a state in which every leaf has an axis of members."""
    return state.params, state.state, state.opt_state


def _with_trees(state: TrainState, trees: tuple[Tree, Tree, Tree]) -> TrainState:
    params, layers, opt_state = trees
    return state._replace(params=params, state=layers, opt_state=opt_state)


def _parts(count: int) -> list[slice]:
    """The members whose steps are one operation each.

    On the CPU they are two halves, whose operations run beside each other: what is too small
    for all cores in one fills them together with what the other has to do.
    """
    if jax.default_backend() != "cpu" or count < HALVED:
        return [slice(0, count)]
    half = (count + 1) // 2
    return [slice(0, half), slice(half, count)]
