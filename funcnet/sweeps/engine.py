"""What trains the members of a sweep, or of a cross-validation: chunk by chunk, to the end."""

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from funcnet import checkpoints, checks
from funcnet.datasets import Dataset
from funcnet.evaluation import merit
from funcnet.measured import check_monitor
from funcnet.parallel import devices_of
from funcnet.sweeps.chunks import (
    Chunk,
    Course,
    advance,
    begin,
    behind,
    make_pieces,
    side_by_side,
    with_chunk,
)
from funcnet.sweeps.groups import (
    Call,
    Experiment,
    Group,
    check_names,
    check_options,
    make_groups,
)
from funcnet.sweeps.saved import identity_of_sweep, opened
from funcnet.sweeps.search import Settings, check_settings, member_key
from funcnet.sweeps.table import Member, new_member
from funcnet.train import is_over


class Trained(NamedTuple):
    """Members that were trained.

    Attributes:
      members: a Member for each of the settings, in their order.
      groups: those that were trained together.
      monitor: what says which model is better.
      interrupted: whether Ctrl-C or the callback ended it before its time.
    """

    members: tuple[Member, ...]
    groups: list[Group]
    monitor: str
    interrupted: bool


def train_all(
    experiment: Experiment,
    datasets: Sequence[Dataset],
    settings: Iterable[Mapping[str, Any]],
    *,
    key: jax.Array | None,
    epochs: int,
    eval_every: int | None,
    halve_at: Sequence[int],
    chunk_size: int | None,
    patience: int | None,
    monitor: str | None,
    members: Sequence[Member] | None,
    checkpoint: str | os.PathLike[str] | None,
    resume: bool,
    checkpoint_every: int | None,
    callback: Callable[[int, int, Callable[[], tuple[Member, ...]]], Any] | None,
    mesh: Mesh | None,
    options: Mapping[str, Any],
    call: Call | None = None,
) -> Trained:
    """Train one experiment with many settings; arguments and errors are those of `sweep`.

    Args:
      datasets: the data, checked; of several the setting fold, from 0, says which a member has.
      options: those of `fit`, and batch_size.
      call: what earlier members of this experiment and these datasets were trained in, if any: what
        was compiled for them serves these, too.
    """
    checks.function("experiment", experiment)
    if callback is not None:
        checks.function("callback", callback)
    epochs = checks.COUNT.check("epochs", epochs)
    if eval_every is not None:
        eval_every = checks.COUNT.check("eval_every", eval_every)
    if chunk_size is not None:
        chunk_size = checks.COUNT.check("chunk_size", chunk_size)
    monitor = check_monitor(monitor, patience, eval_every, datasets[0])
    halve_at = _check_halving(halve_at, epochs, eval_every, datasets[0], monitor)
    checkpoints.check_options(checkpoint, resume, checkpoint_every)
    if members is not None and checkpoint is not None:
        raise ValueError("give either members or checkpoint to go on with")
    checked = check_settings(settings)
    named = {n: v for n, v in checked[0].items() if n != "fold" or len(datasets) == 1}
    check_names(experiment, named)
    member_key(key, checked[0])
    common = check_options("sweep", options)
    ends = (*halve_at, epochs)
    task = datasets[0].task
    current = _first_members(checked, members, ends, patience, task)
    devices = devices_of(mesh)
    groups = make_groups(experiment, checked, common, datasets, chunk_size, devices, call)
    course = Course(epochs, _looks(epochs, eval_every, halve_at), monitor, patience)
    alive, interrupted = tuple(range(len(checked))), False
    chunks: list[Chunk] = []  # in the course of training
    by_one = callback is not None or checkpoint is not None

    def members_now() -> tuple[Member, ...]:
        return functools.reduce(with_chunk, chunks, current)

    def report(end: int) -> None:
        if callback is None:
            return
        total = _total(current, alive, end, halve_at, epochs)
        if is_over(callback, _done(current, chunks), total, members_now):
            raise KeyboardInterrupt

    with ExitStack() as stack:
        kept = None
        if checkpoint is not None:
            identity = identity_of_sweep(groups, checked, key, course, halve_at)
            kept = stack.enter_context(
                opened(checkpoint, identity, resume=resume, every=checkpoint_every)
            )
            found = kept.load(checked, groups, key)
            groups = kept.resized(groups, chunk_size)
            if found is not None:
                current = _first_members(checked, found, ends, patience, task)
        try:
            for begun, end in itertools.pairwise((0, *ends)):
                for pieces in side_by_side(make_pieces(groups, alive, current, begun)):
                    while going := behind(pieces, current, end):
                        for piece, members_of_it in going:
                            chunks.append(begin(piece, members_of_it, current, key, course, end))
                        while chunks[0].epoch < end and not any(c.is_thin for c in chunks):
                            chunks[:] = advance(chunks, end, by_one=by_one)
                            report(end)
                            if kept is not None and kept.is_due(chunks[0].epoch):
                                kept.save(members_now, groups)
                        current = members_now()
                        chunks.clear()
                if end < epochs:
                    alive = _better_half(current, alive, end, monitor)
                    current = _stopped(current, alive)
        except KeyboardInterrupt:
            interrupted = True
        current = members_now()
        if kept is not None:
            with checkpoints.warned(checkpoint):
                kept.save(lambda: current, groups)
    return Trained(current, groups, monitor, interrupted)


def _looks(epochs: int, eval_every: int | None, halve_at: Sequence[int]) -> frozenset[int]:
    """The epochs at which members are evaluated."""
    if eval_every is None:
        return frozenset()
    return frozenset({*range(0, epochs + 1, eval_every), *halve_at, epochs})


def _better_half(
    members: Sequence[Member], alive: Sequence[int], epoch: int, monitor: str
) -> tuple[int, ...]:
    """The members that go on after an epoch; of equals, those that come first."""

    def best_merit(i: int) -> tuple[float, float]:
        """That of its best model until then."""
        history = members[i].history
        upto = history.epoch <= epoch
        columns = {name: column[upto] for name, column in history.rows().items()}
        return max(zip(*merit(columns, monitor), strict=True), default=(-math.inf, -math.inf))

    sound = [i for i in alive if not _diverged(members[i], epoch)]
    better = sorted(sound, key=best_merit, reverse=True)[: math.ceil(len(alive) / 2)]
    return tuple(sorted(better))


def _diverged(member: Member, epoch: int) -> bool:
    steps = len(member.history.loss) // max(member.epochs, 1) * epoch
    return not np.isfinite(member.history.loss[:steps]).all()


def _stopped(members: Sequence[Member], alive: Sequence[int]) -> tuple[Member, ...]:
    """The members with those that are not alive stopped."""
    now, left = list(members), set(alive)
    for i, member in enumerate(members):
        if i not in left and member.status == "unfinished":
            status = "diverged" if _diverged(member, member.epochs) else "stopped"
            now[i] = member._replace(status=status, state=None)
    return tuple(now)


def _done(members: Sequence[Member], chunks: Sequence[Chunk]) -> int:
    """The epochs that all members have done, those of a chunk as many as it has."""
    now = {
        i: chunk.ended[i].epochs if i in chunk.ended else chunk.epoch
        for chunk in chunks
        for i in chunk.places
    }
    return sum(now.get(i, member.epochs) for i, member in enumerate(members))


def _total(
    members: Sequence[Member],
    alive: Sequence[int],
    end: int,
    halve_at: Sequence[int],
    epochs: int,
) -> int:
    """The epochs of all members there will be, if none diverges or ends from now on."""
    going = {i for i in alive if members[i].state is not None or members[i].epochs in (0, epochs)}
    total = sum(member.epochs for i, member in enumerate(members) if i not in going)
    left, begin, some = len(alive), 0, len(going)
    for bound in (*halve_at, epochs):
        if bound > end:
            left = math.ceil(left / 2)
        total += min(left, some) * (bound - begin)
        begin = bound
    return total


def _check_halving(
    halve_at: Any, epochs: int, eval_every: int | None, dataset: Dataset, monitor: str
) -> tuple[int, ...]:
    if isinstance(halve_at, str) or not isinstance(halve_at, Iterable):
        raise TypeError(f"halve_at must be a list of epochs, such as [5, 10], got {halve_at!r}")
    checked = tuple(
        checks.Count(at_least=1, at_most=epochs - 1).check("every epoch of halve_at", epoch)
        for epoch in halve_at
    )
    if any(a >= b for a, b in itertools.pairwise(checked)):
        raise ValueError(f"halve_at must rise, got {list(checked)}")
    of_val = monitor.startswith("val_")
    if checked and (eval_every is None or (of_val and not len(dataset.x_val))):
        raise ValueError(
            f"halve_at goes by {monitor}: it needs eval_every{' and x_val' if of_val else ''}"
        )
    return checked


def _first_members(
    settings: Sequence[Settings],
    members: Sequence[Member] | None,
    ends: Sequence[int],
    patience: int | None,
    task: str,
) -> tuple[Member, ...]:
    """The members before the sweep: as given, or not begun."""
    if members is None:
        return tuple(new_member(each, task) for each in settings)
    if not all(isinstance(member, Member) for member in members):
        raise TypeError("members must be those of an interrupted sweep, such as result.members")
    if tuple(member.settings for member in members) != tuple(settings):
        raise ValueError("members are not those of a sweep of these settings")
    for i, member in enumerate(members):
        whole = range(1, ends[-1] + 1)
        allowed = ends if member.state is None and patience is None else whole
        if member.state is not None:
            allowed = whole[:-1]
        if member.epochs and member.epochs not in allowed:
            raise ValueError(
                f"members[{i}] is {member.status} after {member.epochs} epochs and cannot go on "
                f"in a sweep of {ends[-1]}"
            )
    return tuple(map(_going_on, members))


def _going_on(member: Member) -> Member:
    """A member that goes on where it is; one that has done no epoch begins anew, to the same."""
    if member.epochs == 0:
        return new_member(member.settings, member.history.task)
    return member if member.state is None else member._replace(status="unfinished")
