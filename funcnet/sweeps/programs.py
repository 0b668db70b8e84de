"""The compiled programs of a sweep: each of them is for all members of a chunk at once."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.model import Model, sums
from funcnet.preprocess import Preprocess
from funcnet.step import (
    TrainState,
    epoch_order,
    init_train_state,
    over_batches,
    params_in_use,
    run_step,
)
from funcnet.sweeps.groups import Plan, make_program
from funcnet.tree import Tree

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


@partial(jax.jit, static_argnames=("plan", "batch_size"))
def train_epoch(
    state: TrainState,
    numbers: dict[str, jax.Array],
    x: jax.Array,
    y: jax.Array,
    preprocess: Preprocess,
    *,
    plan: Plan,
    batch_size: int,
) -> tuple[TrainState, jax.Array]:
    """An epoch of all members, and their losses [members, steps]."""
    shared = state.key.ndim == 0  # the batches
    orders = jax.vmap(epoch_order, in_axes=(0, None, None), out_axes=1)
    order = (epoch_order if shared else orders)(state.key, state.epoch, len(x))
    axes = _axes_in_step(state, jax.eval_shape(preprocess, x[:1]).size if shared else 0)

    def one(
        state: TrainState, numbers: dict[str, jax.Array], batch: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        made = make_program(plan, numbers)
        return run_step(made.program, made.numbers, preprocess, state, x[batch], y[batch])

    side_by_side = jax.vmap(one, in_axes=(axes, 0, None if shared else 1), out_axes=(axes, 0))

    def step(
        states: tuple[TrainState, ...], batch: jax.Array
    ) -> tuple[tuple[TrainState, ...], jax.Array]:
        done = [
            side_by_side(
                own, {k: v[part] for k, v in numbers.items()}, batch if shared else batch[:, part]
            )
            for own, part in zip(states, parts, strict=True)
        ]
        return tuple(own for own, _ in done), jnp.concatenate([loss for _, loss in done])

    def taken(part: slice) -> TrainState:
        """The state of some members, as it is in a step."""

        def of_leaf(leaf: jax.Array, axis: int) -> jax.Array:
            return jnp.moveaxis(leaf[part], 0, axis)

        own = _with_trees(state, jax.tree.map(of_leaf, _trees(state), _trees(axes)))
        return own if shared else own._replace(key=state.key[part])

    def put_together(axis: int, *leaves: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.moveaxis(leaf, axis, 0) for leaf in leaves])

    parts = _parts(len(jax.tree.leaves(_trees(state))[0]))
    states, losses = over_batches(step, tuple(map(taken, parts)), order, batch_size)
    trees = jax.tree.map(put_together, _trees(axes), *map(_trees, states))
    state = _with_trees(state, trees)._replace(step=states[0].step, epoch=state.epoch + 1)
    return state, losses.T


@partial(jax.jit, static_argnames=("plan",))
def sums_of_members(
    state: TrainState,
    numbers: dict[str, jax.Array],
    preprocess: Preprocess,
    x: jax.Array,
    y: jax.Array,
    *,
    plan: Plan,
) -> tuple[jax.Array, jax.Array]:
    """For each member the sum of the losses over a batch, and the number of right answers."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        program = make_program(plan, numbers).program
        params = params_in_use(state, program=program)
        return sums(Model(program.net, params, state.state, preprocess), x, y, program.loss_fn)

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


def _axes_in_step(state: TrainState, features: int) -> TrainState:
    """Those of each leaf within a step.

    Matrices [features, M], which inputs are multiplied by, are [features, members, M]: the product
    of inputs that all members share with those of all members is then one of two matrices.
    """

    def of_leaf(leaf: jax.Array) -> int:
        return 1 if leaf.ndim == 3 and leaf.shape[1] == features else 0

    return _with_trees(_axes(state.key), jax.tree.map(of_leaf, _trees(state)))


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
