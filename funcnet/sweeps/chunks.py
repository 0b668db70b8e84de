"""Chunks: the members of a group that are trained side by side."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.evaluation import is_better, merit, summed
from funcnet.history import History, as_history, columns, history_of, history_row
from funcnet.inputs import EVALUATION_BATCH, on_device
from funcnet.loop import FIRST_CHUNK, Orders, slices
from funcnet.measured import examples_of
from funcnet.model import BestModel, Model
from funcnet.step import TrainState
from funcnet.sweeps.groups import Group
from funcnet.sweeps.programs import (
    Block,
    Part,
    hold_members,
    init_states,
    is_key,
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
from funcnet.sweeps.table import Member, merit_at
from funcnet.tree import Tree

CALLS_PER_SECOND = 4  # of epochs that take less, several are done at once


class Course(NamedTuple):
    """What is the same for all members.

    Attributes:
      epochs: how many there are.
      looks: those after which members are evaluated.
      monitor, patience: as for `fit`.
    """

    epochs: int
    looks: frozenset[int]
    monitor: str
    patience: int | None


class Piece(NamedTuple):
    """Members of a group that begin side by side, in a chunk of a size."""

    group: Group
    members: tuple[int, ...]
    size: int


class Chunk(NamedTuple):
    """Members of a group in the course of training; arrays have an axis for them in front.

    Places that no member has are filled with one that has another, so that chunks of different
    numbers of members have the same program, and each stays where it is when others have ended.
    """

    group: Group
    places: dict[int, int]  # of each member that goes on
    size: int
    course: "Course"
    numbers: dict[str, jax.Array]
    before: tuple[Member, ...]  # the members as they were when this chunk was begun, by place
    key: jax.Array  # it has the axis only if members have different ones
    orders: Orders
    parts: tuple[Part, ...]  # the states of the members
    sizes: tuple[int, ...]  # of the parts
    steps: int  # how many are about a second
    best: "Best | None"
    losses: tuple[np.ndarray, ...]  # [members, steps] for each epoch
    rows: tuple[dict[str, Any], ...]
    epoch: int
    ended: dict[int, Member]  # for want of patience

    @property
    def is_thin(self) -> bool:
        """Whether those that are left had better go on in a smaller chunk, or none is left."""
        return bool(self.ended) and _is_thin(len(self.places) - len(self.ended), self.size)

    def state(self) -> TrainState:
        """The states of all members, on one device."""
        parts, devices = self.parts, self.group.devices
        if devices:
            parts = jax.device_put(parts, devices[0])
        return release_members(parts, self.key, self.epoch, sizes=self.sizes)


class Best(NamedTuple):
    """What is the best so far of each member."""

    params: Tree
    state: Tree
    epoch: Any
    accuracy: Any
    loss: Any
    merit: tuple[Any, Any]


def make_pieces(
    groups: Sequence[Group], alive: Sequence[int], members: Sequence[Member], epoch: int
) -> list[Piece]:
    """Who is trained side by side from an epoch on: all that have not ended by then."""

    def goes_on(i: int) -> bool:
        return members[i].state is not None or members[i].epochs == 0 or members[i].epochs > epoch

    pieces, left = [], set(filter(goes_on, alive))
    for group in groups:
        among = [i for i in group.members if i in left]
        for indices, size in _divide(among, members, group.chunk_size):
            places = min(group.plan.call.size(size), max(size, group.chunk_size))
            pieces.append(Piece(group, tuple(indices), places))
    return pieces


def side_by_side(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces of one plan and batch size, such as folds, as lists that are trained together.

    So many are as could be one chunk.
    """
    lists: list[list[Piece]] = []
    for piece in pieces:
        last = lists[-1] if lists else []
        room = piece.group.chunk_size - sum(each.size for each in last) - piece.size
        if last and room >= 0 and _alike(last[0].group, piece.group):
            last.append(piece)
        else:
            lists.append([piece])
    return lists


def _alike(a: Group, b: Group) -> bool:
    """Whether the epochs of both are of equally many steps of one program."""
    same = (a.plan, a.batch_size) == (b.plan, b.batch_size)
    return same and a.data.num_examples == b.data.num_examples


def behind(
    pieces: Sequence[Piece], members: Sequence[Member], end: int
) -> list[tuple[Piece, tuple[int, ...]]]:
    """The members of pieces that are to go on until an epoch: those that are least far."""
    left = [
        [
            i
            for i in piece.members
            if members[i].epochs < end and (members[i].state is not None or members[i].epochs == 0)
        ]
        for piece in pieces
    ]
    last = min((members[i].epochs for own in left for i in own), default=0)
    least = [tuple(i for i in own if members[i].epochs == last) for own in left]
    return [(piece, own) for piece, own in zip(pieces, least, strict=True) if own]


def _packed(piece: Piece, members: Sequence[Member], end: int) -> tuple[tuple[int, ...], int]:
    """Which members have places in a chunk now, and its size: less where many have ended.

    It goes by when they have, and so is the same whether or not a sweep was cut off.
    """
    ended = {i: members[i].epochs for i in piece.members if members[i].state is None}
    ended = {i: epoch for i, epoch in ended.items() if 0 < epoch < end}
    places, size = piece.members, piece.size
    for epoch in sorted(set(ended.values())):
        left = tuple(i for i in places if ended.get(i, end) > epoch)
        if left and _is_thin(len(left), size):
            places = left
            while _is_thin(len(left), size):
                size = math.ceil(size / 2)
    return places, size


def _is_thin(left: int, size: int) -> bool:
    return left == 0 or left <= size // 2


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
    piece: Piece,
    going: tuple[int, ...],
    members: Sequence[Member],
    key: jax.Array | None,
    course: Course,
    end: int,
) -> Chunk:
    """A chunk of those members of a piece that go on until an epoch and are equally far."""
    group = piece.group
    own, size = _packed(piece, members, end)
    goes, last = set(going), going[-1:]
    filled = tuple(i if i in goes else going[-1] for i in own) + last * (size - len(own))
    each = [group.numbers[i] for i in filled]
    numbers = {
        name: jnp.asarray([n[name] for n in each], np.uint32 if name == "seed" else float)
        for name in each[0]
    }
    keys = [member_key(key, members[i].settings) for i in filled]
    same = len({members[i].settings.get("seed") for i in own}) == 1
    member_keys = keys[0] if same else jnp.stack(keys)
    first = tuple(members[i] for i in filled)
    best = [_best_of(m, course.monitor) for m in first if m.best is not None]
    state = _first_state(group, first, member_keys, numbers)
    devices = group.devices
    sizes = split(state, max(1, len(devices)))
    chunk = Chunk(
        group=group,
        places={i: own.index(i) for i in going},
        size=size,
        course=course,
        numbers=numbers,
        before=first,
        key=state.key,
        orders=Orders(
            state.key, group.data.num_examples, state.key.size if state.key.ndim else None
        ),
        parts=hold_members(state, numbers, plan=group.plan, sizes=sizes, devices=devices),
        sizes=sizes,
        steps=FIRST_CHUNK,
        best=stack(best),
        losses=(),
        rows=(),
        epoch=first[0].epochs,
        ended={},
    )
    return _look(chunk) if chunk.epoch == 0 and 0 in course.looks else chunk


def _best_of(member: Member, monitor: str) -> Best:
    """The best model of a member that has one."""
    best = member.best
    assert best is not None
    at = merit_at(member, best.epoch, monitor)
    return Best(best.params, best.state, best.epoch, best.accuracy, best.loss, at)


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


def advance(chunks: Sequence[Chunk], end: int, *, by_one: bool) -> list[Chunk]:
    """Chunks that are equally far, side by side, after another epoch or more, `end` at most.

    Args:
      chunks: the chunks.
      end: the last epoch.
      by_one: whether it is to be a single one; else it is so many as take a moment.
    """
    first = chunks[0]
    looks = [epoch for epoch in first.course.looks if epoch > first.epoch]
    count = min([end, *looks]) - first.epoch
    steps = math.ceil(first.group.data.num_examples / first.group.batch_size)
    count = 1 if by_one else max(1, min(count, first.steps // (CALLS_PER_SECOND * steps)))
    done = train_members(
        [
            Block(
                chunk.parts,
                tuple(chunk.orders.of(chunk.epoch + i) for i in range(count)),
                chunk.group.copies or (chunk.group.data,),
                chunk.group.plan,
                chunk.sizes,
                chunk.group.batch_size,
                chunk.steps,
            )
            for chunk in chunks
        ]
    )
    after = []
    for chunk, trained in zip(chunks, done, strict=True):
        losses = (*chunk.losses, *(own.T for own in trained.losses))
        epoch = chunk.epoch + count
        own = chunk._replace(parts=trained.parts, steps=trained.size, losses=losses, epoch=epoch)
        after.append(_look(own) if epoch in own.course.looks else own)
    return after


def _look(chunk: Chunk) -> Chunk:
    """The chunk with a row for this epoch, the best models so far, and who ends with it."""
    state, monitor = chunk.state(), chunk.course.monitor
    train, val, best = _measure(chunk, state, "train"), None, chunk.best
    if len(chunk.group.dataset.x_val):
        val = _measure(chunk, state, "val")
    row = history_row(chunk.epoch, train, val)
    if val is not None or not monitor.startswith("val_"):
        params = params_of_members(state, chunk.numbers, plan=chunk.group.plan)
        epoch = np.full(chunk.size, chunk.epoch)
        accuracy = row.get("val_accuracy", np.full(chunk.size, np.nan))
        measured = accuracy, row["val_loss"], merit(row, monitor)
        best = _better(best, Best(params, state.state, epoch, *measured))
    chunk = chunk._replace(best=best, rows=(*chunk.rows, row))
    ends = [i for i, place in chunk.places.items() if i not in chunk.ended and _ends(chunk, place)]
    if not ends:
        return chunk
    now = members_of(chunk)
    ended = {i: now[i]._replace(status=_final(now[i]), state=None) for i in ends}
    return chunk._replace(ended={**chunk.ended, **ended})


def _ends(chunk: Chunk, place: int) -> bool:
    """Whether there was no better model for too long."""
    patience, best = chunk.course.patience, chunk.best
    if patience is None or best is None:
        return False
    since = range(int(best.epoch[place]) + 1, chunk.epoch + 1)
    return sum(epoch in chunk.course.looks for epoch in since) >= patience


def _final(member: Member) -> str:
    """The status of a member that has ended: are its losses finite, and its last model?"""
    assert member.model is not None
    leaves = [member.history.loss, *map(np.asarray, jax.tree.leaves(member.model.params))]
    finite = (np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))
    return "finished" if all(finite) else "diverged"


def _better(old: Best | None, new: Best) -> Best:
    """For each member the better one."""
    if old is None:
        return new
    which = is_better(new.merit, old.merit)
    params, state = select(which, (new.params, new.state), (old.params, old.state))
    numbers = jax.tree.map(lambda a, b: np.where(which, a, b), new[2:], old[2:])
    return Best(params, state, *numbers)


def _measure(chunk: Chunk, state: TrainState, split: str) -> dict[str, Any]:
    """The loss and the measures of each member by name, arrays."""
    group = chunk.group
    loss_fn = group.programs[next(iter(chunk.places))].loss_fn
    examples, _ = examples_of(group.dataset, split, group.targets)
    x, preprocess = on_device(examples.x, group.preprocess)
    every = [
        sums_of_members(
            state, chunk.numbers, preprocess, batch, plan=group.plan, targets=group.targets.bare
        )
        for batch in examples._replace(x=x).batches(EVALUATION_BATCH, loss_fn)
    ]
    return summed(every, examples, group.targets)


def with_chunk(members: Sequence[Member], chunk: Chunk) -> tuple[Member, ...]:
    """The members with those of the chunk as they are now."""
    now = {**dict(enumerate(members)), **members_of(chunk), **chunk.ended}
    return tuple(now.values())


def members_of(chunk: Chunk) -> dict[int, Member]:
    """The members of a chunk as they are now, also those that have ended, by index."""
    now, group = {}, chunk.group
    run, key = chunk.state(), chunk.key
    params = params_of_members(run, chunk.numbers, plan=group.plan)
    # Once for all members, then one after another without further copies.
    trees = (run.params, run.state, run.opt_state), run.step, run.epoch, params, chunk.best
    states, step, epoch, params, best = jax.tree.map(on_host, trees)
    for i, place in chunk.places.items():
        own = chunk.before[place]

        def of(tree: Tree, place: int = place) -> Tree:
            return jax.tree.map(lambda leaf: leaf[place], tree)

        history = _extended(own.history, chunk, place)
        net, fitted = group.programs[i].net, group.preprocess
        about: dict[str, Any] = {"encoding": group.dataset.encoding, "targets": group.targets}
        model = Model(net, of(params), of(states[1]), fitted, **about)
        best_model = None
        if best is not None:
            measured = int(best.epoch[place]), float(best.accuracy[place]), float(best.loss[place])
            parts_of_best = net, of(best.params), of(best.state), fitted, *measured
            best_model = BestModel(*parts_of_best, **about)
        status, train_state = "unfinished", None
        if chunk.epoch == chunk.course.epochs:
            status = "finished"
        else:
            own_key = key[place] if key.ndim else key
            params_now, state_now, opt_state = of(states)
            train_state = TrainState(params_now, state_now, opt_state, own_key, step, epoch)
        parts = model, best_model, history, train_state
        now[i] = Member(own.settings, status, chunk.epoch, *parts)
        if status == "finished":
            now[i] = now[i]._replace(status=_final(now[i]))
    return now


def on_host(leaf: Any) -> Any:
    """An array of NumPy; random keys, which NumPy has not, stay what they are."""
    return leaf if is_key(leaf) else np.asarray(leaf)


def _extended(history: History, chunk: Chunk, place: int) -> History:
    """The history of a member with what this chunk has added to it."""
    rows = [
        {name: value if name == "epoch" else value[place] for name, value in row.items()}
        for row in chunk.rows
    ]
    added = as_history([losses[place] for losses in chunk.losses], rows, (), history.task)
    olds, news = ({"loss": each.loss, **each.rows()} for each in (history, added))
    names = ("loss", *columns(history.task))
    return history_of({n: np.concatenate([olds[n], news[n]]) for n in names}, history.task)
