"""Chunks: the members of a group that are trained side by side."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.datasets import Dataset
from funcnet.loop import FIRST_CHUNK, Orders, slices
from funcnet.model import BestModel, Model, filled_pair, is_better
from funcnet.step import EVALUATION_BATCH, TrainState, on_device
from funcnet.sweeps.groups import Group
from funcnet.sweeps.programs import (
    Part,
    hold_members,
    init_states,
    params_of_members,
    release_members,
    run_keys,
    select,
    split,
    stack,
    sums_of_members,
    train_members,
)
from funcnet.sweeps.search import member_key
from funcnet.sweeps.table import Member
from funcnet.train import COLUMNS, History, as_history, history_row, training_sample
from funcnet.tree import Tree


class Chunk(NamedTuple):
    """Members of a group in the course of training; arrays have an axis for them in front.

    The last member is there as often as it takes to fill a chunk, so that chunks of different
    numbers of members have the same program.
    """

    group: Group
    indices: tuple[int, ...]
    numbers: dict[str, jax.Array]
    before: tuple[Member, ...]  # the members as they were when this chunk was begun
    key: jax.Array  # it has the axis only if members have different ones
    orders: Orders
    parts: tuple[Part, ...]  # the states of the members
    sizes: tuple[int, ...]  # of the parts
    size: int  # how many steps are about a second
    best: "Best | None"
    losses: tuple[np.ndarray, ...]  # [members, steps] for each epoch
    rows: tuple[dict[str, Any], ...]
    epoch: int

    def state(self) -> TrainState:
        """The states of all members."""
        return release_members(self.parts, self.key, self.epoch, sizes=self.sizes)


class _Measured(NamedTuple):
    """What was measured of each member, arrays."""

    loss: np.ndarray
    accuracy: np.ndarray


class Best(NamedTuple):
    """What is the best so far of each member."""

    params: Tree
    state: Tree
    epoch: Any
    accuracy: Any
    loss: Any


def make_chunks(
    groups: Sequence[Group], alive: Sequence[int], members: Sequence[Member], end: int
) -> list[tuple[Group, tuple[int, ...], int]]:
    """What is to be trained until an epoch: groups, members, and the size of the chunk."""
    chunks, left = [], set(alive)
    for group in groups:
        among = [i for i in group.members if i in left]
        for indices, size in _divide(among, members, group.chunk_size):
            behind = [i for i in indices if members[i].epochs < end]
            behind.sort(key=lambda i: members[i].epochs)
            for _, same in itertools.groupby(behind, key=lambda i: members[i].epochs):
                chunks.append((group, tuple(same), size))
    return chunks


def _divide(
    indices: Sequence[int], members: Sequence[Member], limit: int
) -> list[tuple[list[int], int]]:
    """Members in chunks of equal size, those of a seed together unless that takes many more.

    Members of one seed see the same batches, which are fetched once for all of them.
    """
    by_seed: dict[Any, list[int]] = {}
    for i in indices:
        by_seed.setdefault(members[i].settings.get("seed"), []).append(i)
    apart = [math.ceil(len(same) / limit) for same in by_seed.values()]
    lists = list(by_seed.values())
    if len(indices) and sum(apart) > 1.5 * math.ceil(len(indices) / limit):
        lists = [list(indices)]
    pieces = []
    for same in lists:
        count = math.ceil(len(same) / math.ceil(len(same) / limit))
        pieces += [same[b] for b in slices(len(same), count)]
    size = max(map(len, pieces), default=0)
    return [(piece, size) for piece in pieces]


def begin(
    group: Group,
    indices: tuple[int, ...],
    size: int,
    members: Sequence[Member],
    key: jax.Array | None,
    dataset: Dataset,
    looks: frozenset[int],
) -> Chunk:
    """A chunk of members that are equally far."""
    filled = indices + indices[-1:] * (size - len(indices))
    each = [group.numbers[i] for i in filled]
    numbers = {
        name: jnp.asarray([n[name] for n in each], np.uint32 if name == "seed" else float)
        for name in each[0]
    }
    keys = [member_key(key, members[i].settings) for i in filled]
    same = len({members[i].settings.get("seed") for i in filled}) == 1
    member_keys = keys[0] if same else jnp.stack(keys)
    first = tuple(members[i] for i in filled)
    best = [m.best for m in first if m.best is not None]
    state = _first_state(group, first, member_keys, numbers)
    sizes = split(state)
    chunk = Chunk(
        group=group,
        indices=indices,
        numbers=numbers,
        before=first,
        key=state.key,
        orders=Orders(
            state.key, group.data.num_examples, state.key.size if state.key.ndim else None
        ),
        parts=hold_members(state, numbers, plan=group.plan, sizes=sizes),
        sizes=sizes,
        size=FIRST_CHUNK,
        best=stack([Best(b.params, b.state, b.epoch, b.accuracy, b.loss) for b in best]),
        losses=(),
        rows=(),
        epoch=first[0].epochs,
    )
    return _look(chunk, dataset) if chunk.epoch == 0 and 0 in looks else chunk


def _first_state(
    group: Group, members: Sequence[Member], keys: jax.Array, numbers: dict[str, jax.Array]
) -> TrainState:
    """The state of new members, or the states that unfinished members have."""
    states = [member.state for member in members if member.state is not None]
    if not states:
        count = np.arange(len(members))
        return init_states(keys, numbers, count, plan=group.plan, in_shape=group.in_shape)
    run_key = jax.random.split(keys)[1] if keys.ndim == 0 else run_keys(keys)
    params, state, opt_state = stack([(s.params, s.state, s.opt_state) for s in states])
    return TrainState(params, state, opt_state, run_key, states[0].step, states[0].epoch)


def advance(chunk: Chunk, dataset: Dataset, looks: frozenset[int]) -> Chunk:
    """The chunk after another epoch."""
    group, epoch = chunk.group, chunk.epoch + 1
    parts, losses, size = train_members(
        chunk.parts,
        chunk.orders.of(chunk.epoch),
        group.data,
        plan=group.plan,
        sizes=chunk.sizes,
        batch_size=group.batch_size,
        size=chunk.size,
    )
    chunk = chunk._replace(
        parts=parts,
        size=size,
        losses=(*chunk.losses, losses.T),
        epoch=epoch,
    )
    return _look(chunk, dataset) if chunk.epoch in looks else chunk


def _look(chunk: Chunk, dataset: Dataset) -> Chunk:
    """The chunk with a row for this epoch, and the models that are the best so far."""
    state = chunk.state()
    train, val, best = _measure(chunk, state, *training_sample(dataset)), None, chunk.best
    if len(dataset.x_val):
        val = _measure(chunk, state, dataset.x_val, dataset.y_val)
        params = params_of_members(state, chunk.numbers, plan=chunk.group.plan)
        epoch = np.full(len(val.loss), chunk.epoch)
        best = _better(best, Best(params, state.state, epoch, val.accuracy, val.loss))
    return chunk._replace(best=best, rows=(*chunk.rows, history_row(chunk.epoch, train, val)))


def _better(old: Best | None, new: Best) -> Best:
    """For each member the better one."""
    if old is None:
        return new
    which = is_better(new, old)
    params, state = select(which, (new.params, new.state), (old.params, old.state))
    measured = zip(new[2:], old[2:], strict=True)
    return Best(params, state, *(np.where(which, a, b) for a, b in measured))


def _measure(chunk: Chunk, state: TrainState, x: np.ndarray, y: np.ndarray) -> _Measured:
    """The loss and the accuracy of each member, arrays."""
    total, right = np.zeros(()), np.zeros((), int)
    loss_fn = chunk.group.programs[chunk.indices[0]].loss_fn
    x, preprocess = on_device(x, chunk.group.preprocess)
    for b in slices(len(x), EVALUATION_BATCH):
        losses, counts = sums_of_members(
            state,
            chunk.numbers,
            preprocess,
            *filled_pair(x[b], y[b], EVALUATION_BATCH, loss_fn),
            plan=chunk.group.plan,
        )
        total, right = total + np.asarray(losses, np.float64), right + np.asarray(counts)
    return _Measured(total / len(x), right / len(x))


def with_chunk(members: Sequence[Member], chunk: Chunk, epochs: int) -> tuple[Member, ...]:
    """The members with those of the chunk as they are now."""
    now = list(members)
    group = chunk.group
    run, key = chunk.state(), chunk.key
    params = params_of_members(run, chunk.numbers, plan=group.plan)
    # Once for all members, then one after another without further copies.
    trees = (run.params, run.state, run.opt_state), run.step, run.epoch, params, chunk.best
    states, step, epoch, params, best = jax.tree.map(np.asarray, trees)
    for place, i in enumerate(chunk.indices):
        own = chunk.before[place]

        def of(tree: Tree, place: int = place) -> Tree:
            return jax.tree.map(lambda leaf: leaf[place], tree)

        history = _extended(own.history, chunk, place)
        net, fitted = group.programs[i].net, group.preprocess
        model = Model(net, of(params), of(states[1]), fitted)
        best_model = None
        if best is not None:
            measured = int(best.epoch[place]), float(best.accuracy[place]), float(best.loss[place])
            best_model = BestModel(net, of(best.params), of(best.state), fitted, *measured)
        status, train_state = "unfinished", None
        if chunk.epoch == epochs:
            status = "finished" if np.isfinite(history.loss).all() else "diverged"
        else:
            own_key = key[place] if key.ndim else key
            params_now, state_now, opt_state = of(states)
            train_state = TrainState(params_now, state_now, opt_state, own_key, step, epoch)
        now[i] = Member(own.settings, status, chunk.epoch, model, best_model, history, train_state)
    return tuple(now)


def _extended(history: History, chunk: Chunk, place: int) -> History:
    """The history of a member with what this chunk has added to it."""
    rows = [
        {name: value if name == "epoch" else value[place] for name, value in row.items()}
        for row in chunk.rows
    ]
    added = as_history([losses[place] for losses in chunk.losses], rows)
    both = {name: (getattr(history, name), getattr(added, name)) for name in ("loss", *COLUMNS)}
    columns = {name: np.concatenate(parts) for name, parts in both.items()}
    return History(**columns, metrics={})
