"""Sweeps: many trainings as one compiled program.

    def experiment(learning_rate, weight_scale):
        return mlp([100] * 5, 10, weight_scale=weight_scale), adam(learning_rate)

    settings = grid(learning_rate=[1e-3, 2e-3, 3e-4], weight_scale=[2e-2, 5e-2, 6e-2])
    result = sweep(experiment, load_cifar10(), settings, key=key, epochs=30, batch_size=200)

Settings that are floats, and `seed`, are traced: members that differ in nothing else are trained
by one program, which is compiled once. Every other kind of setting is structural: each
combination of their values is a group of members with a program of its own.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np

from funcnet import checkpoints, checks
from funcnet.datasets import Dataset, Encoding, check_dataset
from funcnet.evaluation import (
    Evaluation,
    MultilabelEvaluation,
    RegressionEvaluation,
    evaluate,
    merit,
)
from funcnet.model import BestModel
from funcnet.signature import takes
from funcnet.sweeps.chunks import (
    Chunk,
    Course,
    advance,
    begin,
    behind,
    make_pieces,
    with_chunk,
)
from funcnet.sweeps.groups import Experiment, check_names, check_options, make_groups
from funcnet.sweeps.saved import identity_of_sweep, opened
from funcnet.sweeps.search import Settings, check_settings, member_key
from funcnet.sweeps.table import Member, best_member, new_member, sweep_table
from funcnet.train import FitOptions, check_monitor, is_over

__all__ = ["SweepResult", "sweep"]


class SweepResult(NamedTuple):
    """What `sweep` returns.

    Attributes:
      members: a Member for each of the settings, in their order.
      best: the BestModel of the best member that did not diverge, by validation accuracy (of
        equals, the least validation loss) or what `monitor` says; None where it was not measured.
      best_settings: the settings of that member.
      test: what `evaluate` says of `best` on the test set, the only time that it is used; None if
        the sweep was interrupted, or there is no test set.
      interrupted: whether Ctrl-C or the callback ended the sweep before its time.
    """

    members: tuple[Member, ...]
    best: BestModel | None
    best_settings: Settings | None
    test: Evaluation | RegressionEvaluation | MultilabelEvaluation | None
    interrupted: bool

    def table(self) -> list[dict[str, Any]]:
        """The members as rows: their settings and what became of them, see `sweep_table`."""
        return sweep_table(self.members)


@takes(FitOptions)
def sweep(
    experiment: Experiment,
    dataset: Dataset,
    settings: Iterable[Mapping[str, Any]],
    *,
    key: jax.Array | None = None,
    epochs: int,
    batch_size: int | None = None,
    eval_every: int | None = 1,
    halve_at: Sequence[int] = (),
    chunk_size: int | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    members: Sequence[Member] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    callback: Callable[[int, int, Callable[[], tuple[Member, ...]]], Any] | None = None,
    **options: Unpack[FitOptions],
) -> SweepResult:
    """Train one experiment with many settings.

    A member is the training that `fit` does with the net, the optimizer and the options that
    the experiment gives for its settings, and with the key `member_key(key, settings)`. So all
    members start from the same random numbers and see the same batches in the same order, and
    differences are due to the settings; a setting named `seed` is there to have others.

    Members that differ in floats and `seed` alone are trained side by side, by one program that
    is compiled once, in chunks. A member does not depend on those it is trained with, but for
    the rounding of sums: matrix products of many members are added up in another order.

    Args:
      experiment: `experiment(**settings) -> (net, optimizer)`, or `(net, optimizer, options)` with
        options of `fit` in a dict: reg, loss_fn, class_weight, preprocess, augment,
        label_smoothing, mixup_alpha, average_decay, batch_size. It must not look at floats
        (`if rate > 0`), which are traced; preprocess and batch_size may depend on other settings
        alone.
        `seed` is given to it only if it has a parameter of this name.
      dataset: the Dataset.
      settings: a list of dicts, such as `grid(...)` and `random_search(...)` give.
      key: a random key, `jax.random.key(0)`; None if the settings have a seed, which is then all
        that is random about a member.
      epochs: the number of epochs.
      batch_size: examples per step; may come from the experiment instead.
      eval_every: as for `fit`.
      halve_at: epochs at which the worse half of the members that are left is stopped, by what is
        monitored, the best so far, and the diverged ones with it; the others go on in a smaller
        program (successive halving, Jamieson and Talwalkar 2016, arXiv 1502.07943).
      chunk_size: how many members are trained side by side; None is what half of the free
        memory holds, and on the CPU what its caches do.
      patience, monitor: as for `fit`, for each member: one that gets no better ends, finished, and
        when half of those side by side have, the others go on in a smaller program.
      members: the members of an interrupted sweep of the same settings, to go on with; the key
        and the options must be those of that sweep.
      checkpoint: a directory in which the members are kept as they go, so that whatever ends the
        sweep, it can go on to the same bits; see `fit`. There is a file for each chunk.
      resume: go on with what is saved there, or begin if there is nothing.
      checkpoint_every: write after every so many epochs of a chunk; None as often as takes 1 % of
        the time.
      callback: `callback(done, total, members)` after each epoch of a chunk: epochs done and to
        do, of all members, and a function that gives the members as they are now. If it returns
        True, or raises StopIteration or KeyboardInterrupt, that is as Ctrl-C.
      options: of `fit`, for all members: those above.
    Returns:
      A SweepResult: `.members`, `.best`, `.best_settings`, `.test`, `.table()`.
    Raises:
      ValueError, TypeError: an argument, a setting or what the experiment makes of it is wrong;
        before anything is compiled. Or what is saved is damaged, or of another sweep.
      FileExistsError: there is a sweep in `checkpoint`, and it is not to be resumed.
      BlockingIOError: another process writes there. OSError: a file cannot be written; of the
        last ones it is a warning.
    """
    checks.function("experiment", experiment)
    if callback is not None:
        checks.function("callback", callback)
    dataset = check_dataset(dataset)
    epochs = checks.COUNT.check("epochs", epochs)
    if eval_every is not None:
        eval_every = checks.COUNT.check("eval_every", eval_every)
    if chunk_size is not None:
        chunk_size = checks.COUNT.check("chunk_size", chunk_size)
    monitor = check_monitor(monitor, patience, eval_every, dataset)
    halve_at = _check_halving(halve_at, epochs, eval_every, dataset, monitor)
    checkpoints.check_options(checkpoint, resume, checkpoint_every)
    if members is not None and checkpoint is not None:
        raise ValueError("give either members or checkpoint to go on with")
    checked = check_settings(settings)
    check_names(experiment, checked[0])
    member_key(key, checked[0])
    common = check_options("sweep", {**options, "batch_size": batch_size})
    ends = (*halve_at, epochs)
    current = _first_members(checked, members, ends, patience, dataset.task)
    groups = make_groups(experiment, checked, common, dataset, chunk_size)
    course = Course(epochs, _looks(epochs, eval_every, halve_at), monitor, patience)
    alive, chunk, interrupted = tuple(range(len(checked))), None, False

    def members_now() -> tuple[Member, ...]:
        now = current if chunk is None else with_chunk(current, chunk)
        return tuple(_encoded(member, dataset.encoding) for member in now)

    def report(chunk: Chunk, end: int) -> None:
        if callback is None:
            return
        total = _total(current, alive, end, halve_at, epochs)
        if is_over(callback, _done(current, chunk), total, members_now):
            raise KeyboardInterrupt

    with ExitStack() as stack:
        kept = None
        if checkpoint is not None:
            identity = identity_of_sweep(groups, checked, key, dataset, course, halve_at)
            kept = stack.enter_context(
                opened(checkpoint, identity, resume=resume, every=checkpoint_every)
            )
            found = kept.load(checked, groups, key)
            groups = kept.resized(groups, chunk_size)
            if found is not None:
                current = _first_members(checked, found, ends, patience, dataset.task)
        try:
            for begun, end in itertools.pairwise((0, *ends)):
                for piece in make_pieces(groups, alive, current, begun):
                    while going := behind(piece, current, end):
                        chunk = begin(piece, going, current, key, dataset, course, end)
                        while chunk.epoch < end and not chunk.is_thin:
                            chunk = advance(chunk, dataset)
                            report(chunk, end)
                            if kept is not None and kept.is_due(chunk.epoch):
                                kept.save(members_now, groups)
                        current = members_now()
                        chunk = None
                if end < epochs:
                    alive = _better_half(current, alive, end, monitor)
                    current = _stopped(current, alive)
        except KeyboardInterrupt:
            interrupted = True
        current = members_now()
        if kept is not None:
            with checkpoints.warned(checkpoint):
                kept.save(lambda: current, groups)
    index, best = best_member(current, monitor)
    if best is None:
        return SweepResult(current, None, None, None, interrupted)
    test = None
    if not interrupted and len(dataset.x_test):
        group = next(g for g in groups if index in g.programs)
        test = evaluate(
            best,
            dataset.x_test,
            dataset.y_test,
            loss_fn=group.programs[index].loss_fn,
            sample_weight=dataset.weight_test,
            class_weight=group.options[index].class_weight,
        )
    return SweepResult(current, best, current[index].settings, test, interrupted)


def _encoded(member: Member, encoding: Encoding | None) -> Member:
    """The member with models that take the tables that were trained on."""
    if encoding is None:
        return member
    model = member.model and replace(member.model, encoding=encoding)
    best = member.best and replace(member.best, encoding=encoding)
    return member._replace(model=model, best=best)


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


def _done(members: Sequence[Member], chunk: Chunk) -> int:
    """The epochs that all members have done, those of a chunk as many as it has."""
    now = {i: chunk.ended[i].epochs if i in chunk.ended else chunk.epoch for i in chunk.places}
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
