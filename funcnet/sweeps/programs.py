"""The compiled programs of a sweep: each of them is for some members of a chunk at once."""

import itertools
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.evaluation import sums
from funcnet.inputs import TrainingArrays
from funcnet.loop import Epoch, compiled_steps, cores, in_place, make_epoch, over_epoch, run_steps
from funcnet.model import Model
from funcnet.preprocess import Preprocess
from funcnet.step import (
    Given,
    Held,
    TrainState,
    held_parts,
    init_train_state,
    params_in_use,
    release,
    step_on,
)
from funcnet.sweeps.groups import Plan, make_program
from funcnet.targets import Targets
from funcnet.tree import Tree

HELD_AXES = Held(0, 0, 0, None)  # type: ignore[arg-type]  # of the members
ONCE = {"xla_backend_optimization_level": 1}  # for what runs once, and takes longer to compile
PART_BYTES = 8 * 2**20  # of the state of members that a core trains side by side


@partial(jax.jit, static_argnames=("plan", "in_shape"), compiler_options=ONCE)
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


class Part(NamedTuple):
    """Members whose steps are one program, which runs beside those of other parts.

    A single one has no axis of members.
    """

    held: Held
    key: jax.Array
    numbers: dict[str, jax.Array]


def split(state: TrainState, devices: int = 1) -> tuple[int, ...]:
    """How many members each part of a chunk has; there is a part or more for each device.

    On the CPU parts run in threads, each as good as on one core, and are as small as is good for a
    core's cache; the operations of a part alone would seldom fill all cores.
    """
    leaves = jax.tree.leaves(_trees(state))
    count = len(leaves[0])
    parts = min(count, devices)
    if jax.default_backend() == "cpu":
        width = max(1, PART_BYTES // (sum(leaf.nbytes for leaf in leaves) // count))
        parts = min(count, max(devices, cores(), math.ceil(count / width)))
    # Parts of one size are one program; a few more of them cost less than another.
    parts = next((n for n in range(parts, parts + parts // 2 + 1) if count % n == 0), parts)
    return tuple(len(part) for part in np.array_split(np.arange(count), parts))


def hold_members(
    state: TrainState,
    numbers: dict[str, jax.Array],
    *,
    plan: Plan,
    sizes: tuple[int, ...],
    devices: Sequence[jax.Device] = (),
) -> tuple[Part, ...]:
    """The states of members for `train_members`, in parts of these sizes, on their devices."""
    firsts = itertools.accumulate(sizes, initial=0)
    pairs = zip(firsts, sizes, strict=False)  # all but the last sum
    parts = [_hold(state, numbers, np.int32(at), plan=plan, size=size) for at, size in pairs]
    if not devices:
        return tuple(parts)
    places = [devices[place(number, parts, devices)] for number in range(len(parts))]
    return tuple(map(jax.device_put, parts, places))


def place(number: int, parts: Sequence[Any], places: Sequence[Any]) -> int:
    """On which of several places a part is, of parts that are spread evenly over them."""
    return number * len(places) // len(parts)


@partial(jax.jit, static_argnames=("plan", "size"), compiler_options=ONCE)
def _hold(
    state: TrainState, numbers: dict[str, jax.Array], first: Any, *, plan: Plan, size: int
) -> Part:
    def of_part(tree: Any) -> Any:
        def of_leaf(leaf: Any) -> jax.Array:
            own = jax.lax.dynamic_slice_in_dim(leaf, first, size)
            return own[0] if size == 1 else own

        return jax.tree.map(of_leaf, tree)

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> Held:
        return held_parts(state, make_program(plan, numbers).program)

    own, values = _with_trees(state, of_part(_trees(state))), of_part(numbers)
    if state.key.ndim:
        own = own._replace(key=of_part(state.key))
    axes = _axes(state.key)
    hold = one if size == 1 else jax.vmap(one, in_axes=(axes, 0), out_axes=HELD_AXES)
    return Part(hold(own, values), own.key, values)


@partial(jax.jit, static_argnames=("sizes",), compiler_options=ONCE)
def release_members(
    parts: tuple[Part, ...], key: jax.Array, epoch: Any, *, sizes: tuple[int, ...]
) -> TrainState:
    """The TrainState of members that are held."""
    states = [release(part.held, key, epoch) for part in parts]

    def put_together(*leaves: jax.Array) -> jax.Array:
        pairs = zip(leaves, sizes, strict=True)
        return jnp.concatenate([leaf[None] if size == 1 else leaf for leaf, size in pairs])

    return _with_trees(states[0], jax.tree.map(put_together, *map(_trees, states)))


class Block(NamedTuple):
    """Epochs that the members of a chunk are to do.

    Attributes:
      parts: the members, see `hold_members`.
      orders: for each epoch the order of the examples for all members, [N], or for each,
        [members, N].
      data, batch_size: as for `Epochs`; data is on each device over which parts are spread.
      plan: the plan.
      sizes: those of the parts.
      size: how many steps the first call has.
    """

    parts: tuple[Part, ...]
    orders: tuple[np.ndarray, ...]
    data: Sequence[TrainingArrays]
    plan: Plan
    sizes: tuple[int, ...]
    batch_size: int
    size: int


class Trained(NamedTuple):
    """What became of a Block: losses are [steps, members] for each epoch, size is for the next."""

    parts: tuple[Part, ...]
    losses: tuple[np.ndarray, ...]
    size: int


class _Ready(NamedTuple):
    """A part of a Block whose programs are compiled, or being so; step is for short batches."""

    part: Part
    epochs: list[Epoch]
    given: Given
    steps: Future[Any]
    step: Future[Any] | None
    size: int
    give_up: bool


def train_members(blocks: Sequence[Block]) -> list[Trained]:
    """Epochs of the members of chunks, all their parts side by side, on all cores."""
    stop = threading.Event()

    def train(ready: _Ready) -> tuple[Part, list[np.ndarray], int]:
        steps = ready.steps.result()
        step: Any = None if ready.step is None else ready.step.result()
        held, losses, size = ready.part.held, [], ready.size
        for made in ready.epochs:
            held, own, size = over_epoch(
                lambda *at: steps(*at, ready.given),
                lambda held, batch: step(held, batch, ready.given),
                held,
                made,
                size,
                ready.give_up,
                stop.is_set,
            )
            losses.append(own.reshape(len(own), -1))
        return ready.part._replace(held=held), losses, size

    parts = sum(len(block.parts) for block in blocks)
    devices = max(len(block.data) for block in blocks)
    threads = min(max(cores(), devices), parts)
    with ThreadPoolExecutor(2) as compiler, ThreadPoolExecutor(threads) as pool:
        try:
            ready = [_prepared(block, compiler) for block in blocks]
            done = [[pool.submit(train, part) for part in of_block] for of_block in ready]
            found = [[each.result() for each in of_block] for of_block in done]
        except BaseException:  # an interrupt is heard here, between calls of steps there
            stop.set()
            raise
    trained = []
    for of_block in found:
        parts_now, losses, sizes = zip(*of_block, strict=True)
        by_epoch = tuple(np.hstack(own) for own in zip(*losses, strict=True))
        trained.append(Trained(parts_now, by_epoch, min(sizes)))
    return trained


def _prepared(block: Block, compiler: ThreadPoolExecutor) -> list[_Ready]:
    """The parts of a block; all that is traced is traced here, where JAX's settings are known."""
    shared, room = block.orders[0].ndim == 1, len(block.data[0].x)
    give_up = in_place(block.parts[0].held)
    ready, end = [], 0
    for number, (part, size) in enumerate(zip(block.parts, block.sizes, strict=True)):
        data = block.data[place(number, block.parts, block.data)]
        end += size

        def made_of(order: np.ndarray, end: int = end, size: int = size) -> Epoch:
            of_each = order if shared else order[end - size : end].T
            return make_epoch(
                of_each[:, 0] if size == 1 and not shared else of_each,
                room=room,
                batch_size=block.batch_size,
                loss_shape=() if size == 1 else (size,),
            )

        # On the device: the threads would take float64 for float32.
        epochs = [made_of(order) for order in block.orders]
        zeros = jnp.asarray(epochs[0].losses)
        epochs = [made._replace(losses=zeros) for made in epochs]
        first = epochs[0]
        given = Given(part.key, data.x, data.y, data.weight, data.preprocess, part.numbers)
        static: dict[str, Any] = {"plan": block.plan, "members": size, "shared": shared}
        at = part.held, zeros, first.order, np.int32(0), np.int32(0), given
        steps = _compiled(compiler, _STEPS[give_up], at, batch_size=block.batch_size, **static)
        step = None
        if first.rest is not None:
            step = _compiled(compiler, _STEP[give_up], (part.held, first.rest, given), **static)
        ready.append(_Ready(part, epochs, given, steps, step, block.size, give_up))
    return ready


def _compiled(
    compiler: ThreadPoolExecutor, function: Any, at: tuple[Any, ...], *, plan: Plan, **static: Any
) -> Future[Any]:
    """A function compiled for arguments like these, or to be: once for a call of `sweep`."""
    known = plan.call.compiled
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(at))
    where = frozenset(jax.tree.leaves(at)[0].devices())
    key = (function, plan, shapes, where, tuple(sorted(static.items())))
    if key not in known:
        del static["shared"]
        known[key] = compiler.submit(function.lower(*at, plan=plan, **static).compile)
    return known[key]


def _step_on(
    held: Held,
    batch: jax.Array,
    given: Given,
    plan: Plan,
    members: int,
) -> tuple[Held, jax.Array]:
    """One update of each member; batch is [N] if all take the same examples, or [N, members]."""

    def one(held: Held, batch: jax.Array, given: Given) -> tuple[Held, jax.Array]:
        made = make_program(plan, given.numbers)
        return step_on(held, batch, given._replace(numbers=made.numbers), made.program)

    if members == 1:
        return one(held, batch, given)
    of_batch, of_key = (None, None) if given.key.ndim == 0 else (1, 0)
    axes = Given(of_key, None, None, None, None, 0)  # type: ignore[arg-type]
    in_axes, out_axes = (HELD_AXES, of_batch, axes), (HELD_AXES, 0)
    return jax.vmap(one, in_axes=in_axes, out_axes=out_axes)(held, batch, given)


def _steps(
    held: Held,
    losses: jax.Array,
    order: jax.Array,
    first: Any,
    end: Any,
    given: Given,
    *,
    plan: Plan,
    members: int,
    batch_size: int,
) -> tuple[Held, jax.Array]:
    def step(held: Held, batch: jax.Array) -> tuple[Held, jax.Array]:
        return _step_on(held, batch, given, plan, members)

    return run_steps(step, held, losses, order, first, end, batch_size)


_STEPS = compiled_steps(_steps, static_argnames=("plan", "members", "batch_size"))
_STEP = compiled_steps(_step_on, static_argnames=("plan", "members"))


@partial(jax.jit, static_argnames=("plan", "targets"))
def sums_of_members(
    state: TrainState,
    numbers: dict[str, jax.Array],
    preprocess: Preprocess,
    batch: tuple[Any, ...],
    *,
    plan: Plan,
    targets: Targets,
) -> dict[str, jax.Array]:
    """`sums` of each member over a batch of `Examples`; the targets are bare."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> dict[str, jax.Array]:
        made = make_program(plan, numbers)
        program, class_weight = made.program, made.numbers.class_weight
        params = params_in_use(state, program=program)
        model = Model(program.net, params, state.state, preprocess, targets=targets)
        x, y, weight, rows = batch
        return sums(model, x, y, weight, rows, class_weight, program.loss_fn)

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


def is_key(leaf: Any) -> bool:
    """Whether a leaf is of random keys, which NumPy has not."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def stack(trees: Sequence[Tree]) -> Any:
    """Trees as one with an axis in front; None if there are none."""

    def of_leaf(*leaves: Any) -> Any:
        return (jnp if is_key(leaves[0]) else np).stack(leaves)

    return jax.tree.map(of_leaf, *trees) if trees else None


def _axes(key: jax.Array) -> TrainState:
    """The axis of the members in each part of a TrainState: counts are common to all."""
    return TrainState(0, 0, 0, 0 if key.ndim else None, None, None)  # type: ignore[arg-type]


def _trees(state: TrainState) -> tuple[Tree, Tree, Tree]:
    """The parts of a state in which every leaf has an axis of members."""
    return state.params, state.state, state.opt_state


def _with_trees(state: TrainState, trees: tuple[Tree, Tree, Tree]) -> TrainState:
    params, layers, opt_state = trees
    return state._replace(params=params, state=layers, opt_state=opt_state)
