"""Searches: sweeps whose settings are proposed in batches, each by what the others came to.

    space = {"learning_rate": log_uniform(1e-4, 1e-1), "hidden": [50, 100]}
    result = search(experiment, load_digits(), space, samples=64, batch=16, epochs=10)

A batch is a sweep: its members are trained side by side, and what was compiled for one serves the
next. On disk each has a directory of its own, and no proposal is kept: those of a batch follow from
the batches before it.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

from jax.sharding import Mesh

from funcnet import checkpoints, checks
from funcnet.datasets import Dataset, check_dataset
from funcnet.measured import check_monitor
from funcnet.signature import takes
from funcnet.sweeps.engine import Trained, train_all
from funcnet.sweeps.groups import (
    Call,
    Experiment,
    check_made,
    check_names,
    check_options,
    renumbered,
)
from funcnet.sweeps.objectives import check_objectives, values_of
from funcnet.sweeps.samplers import SAMPLERS, Batch, Tried, check_sampler, propose
from funcnet.sweeps.search import (
    Settings,
    Space,
    check_space,
    ends_of,
    space_of,
    stored_space,
)
from funcnet.sweeps.sweep import SweepResult, result_of
from funcnet.sweeps.table import Member, less_is_better
from funcnet.train import FitOptions

__all__ = ["search"]

BATCH = 16
SAMPLER = "tpe"
CORNERS = 200  # of a space that are checked before anything is trained


class Search(NamedTuple):
    """What is searched, checked.

    Attributes:
      space: for each setting its distribution or values.
      samples, batch, sampler: how many settings, how many at a time, and what proposes them.
      seed: of the proposals.
      seeds: those that each of the settings is trained with.
      objectives: what settings are compared by.
    """

    space: Space
    samples: int
    batch: int
    sampler: str
    seed: int
    seeds: tuple[int, ...]
    objectives: tuple[str, ...]

    def counts(self) -> list[int]:
        """How many settings each batch has."""
        whole, rest = divmod(self.samples, self.batch)
        return [self.batch] * whole + [rest] * bool(rest)

    def members(self, settings: Sequence[Settings]) -> list[Settings]:
        """The settings of members: all of them with each seed."""
        return [{**each, "seed": seed} for each in settings for seed in self.seeds]

    def tried(self, members: Sequence[Member]) -> list[Tried]:
        """What the settings of members came to."""
        count = len(self.seeds)
        return [self._tried(members[i : i + count]) for i in range(0, len(members), count)]

    def _tried(self, members: Sequence[Member]) -> Tried:
        settings = {n: value for n, value in members[0].settings.items() if n != "seed"}
        stopped = [member.epochs for member in members if member.status == "stopped"]
        values = values_of(members, self.objectives)
        return Tried(settings, values, min(stopped, default=None))


@takes(FitOptions)
def search(
    experiment: Experiment,
    dataset: Dataset,
    space: Mapping[str, Any],
    *,
    samples: int,
    batch: int | None = None,
    sampler: str = SAMPLER,
    objectives: Sequence[str] | None = None,
    seed: int = 0,
    seeds: int = 1,
    epochs: int,
    batch_size: int | None = None,
    eval_every: int | None = 1,
    halve_at: Sequence[int] = (),
    chunk_size: int | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    callback: Callable[[int, int, Callable[[], tuple[Member, ...]]], Any] | None = None,
    mesh: Mesh | None = None,
    **options: Unpack[FitOptions],
) -> SweepResult:
    """Train one experiment with settings that are proposed by what earlier ones came to.

    The same seed proposes the same settings and comes to the same bits, and so does a search that
    was cut off and goes on, or is asked for more samples after its last batch was a whole one (else
    that batch is another one, which is refused): proposals are a function of the seed, the
    batches and what was found. Those of which a member diverges count as worse than all others.
    Every setting of the space is part of all proposals: none is there on a condition.

    Args:
      experiment, dataset: as for `sweep`.
      space: for each setting a distribution, `uniform`, `log_uniform` or `integers`, or the list of
        its values, as for `random_search`; ranges of fractions share one program.
      samples: how many settings to try, all of them different.
      batch: how many at a time: they are trained side by side, and the next are proposed when all
        of them are known; None is 16, or samples if that is less. More are faster, fewer are better
        guided; the first batch is random.
      sampler: "tpe", by Optuna, or "random", which is `random_search`.
      objectives: what settings are compared by, one or several columns of the table, means over the
        seeds, such as ("val_accuracy", "parameters"); None is what is monitored. The direction goes
        by the name, see `pareto_front`; `result.pareto()` are the rows that none is better than.
      seed: of the proposals, and the first one of the members.
      seeds: with how many seeds each of the settings is trained: seed, seed + 1, and so on; the
        setting `seed` of a member is all that is random about it.
      halve_at: as for `sweep`, of each batch; not for several objectives.
      checkpoint: a directory, in which each batch has one, see `sweep`.
      epochs, batch_size, eval_every, chunk_size, patience, monitor: as for `sweep`.
      resume, checkpoint_every, callback, mesh: as for `sweep`.
      reg, loss_fn, class_weight, preprocess: as for `sweep`.
      augment, label_smoothing, mixup_alpha, average_decay: as for `sweep`.
    Returns:
      A SweepResult of all members, in the order in which they were proposed: `.members`, `.best`,
      `.best_settings`, `.test`, `.table()`, `.pareto()`.
    Raises:
      ImportError: Optuna is needed, and not installed.
      ValueError, TypeError: as for `sweep`, or nothing in the space varies, or it is too small.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> space, digits = {"rate": fn.log_uniform(1e-4, 1e-1)}, fn.load_digits()
      >>> options = {"samples": 6, "batch": 3, "epochs": 2, "batch_size": 100}
      >>> result = fn.search(experiment, digits, space, **options)
      >>> len(result.members), result.objectives, sorted(result.best_settings)
      (6, ('val_accuracy',), ['rate', 'seed'])
    """
    dataset = check_dataset(dataset)
    monitor = check_monitor(monitor, patience, eval_every, dataset)
    searched = check_search(
        Search(
            space,
            samples,
            min(BATCH, checks.COUNT.check("samples", samples)) if batch is None else batch,
            sampler,
            seed,
            tuple(range(seed, seed + checks.COUNT.check("seeds", seeds))),
            check_objectives(objectives, monitor, dataset, eval_every),
        )
    )
    if len(searched.objectives) > 1 and len(halve_at):
        raise ValueError("halve_at stops members by what is monitored: it is for one objective")
    checkpoints.check_options(checkpoint, resume, checkpoint_every)
    if checkpoint is not None:
        checkpoints.check_batches(checkpoint)
    common = {**options, "batch_size": batch_size}
    corners = searched.members(corners_of(searched.space))
    checks.function("experiment", experiment)
    check_names(experiment, corners[0])
    check_made(experiment, corners, check_options("sweep", common), dataset)
    training: dict[str, Any] = {
        "key": None,
        "epochs": epochs,
        "eval_every": eval_every,
        "halve_at": halve_at,
        "chunk_size": chunk_size,
        "patience": patience,
        "monitor": monitor,
        "members": None,
        "resume": resume,
        "checkpoint_every": checkpoint_every,
        "mesh": mesh,
        "options": common,
    }

    def train(settings: Sequence[Settings], call: Call, **of_batch: Any) -> Trained:
        return train_all(experiment, [dataset], settings, call=call, **of_batch, **training)

    done = _search(searched, train, checkpoint, callback)
    return result_of(done, dataset, searched.objectives)


def check_search(searched: Search) -> Search:
    """What is searched, its space checked.

    Raises:
      ImportError: the sampler needs what is not installed. ValueError, TypeError: it says what is
        wrong.
    """
    samples = checks.COUNT.check("samples", searched.samples)
    batch = checks.COUNT.check("batch", searched.batch)
    checks.SEED.check("seed", searched.seed)
    if batch > samples:
        raise ValueError(f"batch is {batch:,}, more than samples, which is {samples:,}")
    given = searched.space
    if not isinstance(given, Mapping):
        raise TypeError(
            "space must be a dict, such as {'learning_rate': log_uniform(1e-4, 1e-2)}, "
            f"got {checks.cut(given)}"
        )
    for name, axis in given.items():
        if name == "seed":
            raise ValueError("seed is no setting to search: say with seeds how many there are")
        if isinstance(axis, Mapping):
            raise TypeError(
                f"{name} is a dict: settings on a condition are not searched, every one is part of "
                "all proposals; make it one search for each case"
            )
    space = check_space(given)
    check_sampler(searched.sampler, space, samples)
    return searched._replace(space=space)


def stored_search(searched: Search) -> dict[str, Any]:
    """What is searched, for JSON; `search_of` reads it."""
    return {**searched._asdict(), "space": stored_space(searched.space)}


def search_of(stored: Mapping[str, Any]) -> Search:
    """What is searched, of what `stored_search` gave.

    Raises:
      ValueError, TypeError, KeyError: it is damaged.
    """
    if stored.keys() != {*Search._fields}:
        raise ValueError(f"a search has {', '.join(Search._fields)}, not {', '.join(stored)}")
    known: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()}
    for name in ("samples", "batch"):
        checks.COUNT.check(name, known[name])
    checks.choose("sampler", known["sampler"], SAMPLERS)
    for seed in known["seeds"]:
        checks.SEED.check("seed", seed)
    return Search(**{**known, "space": space_of(stored["space"])})


def corners_of(space: Space) -> list[Settings]:
    """Settings of a checked space at the ends of its ranges, with each of its values.

    All combinations, or the first so many and each value once.
    """
    ends = {name: ends_of(axis) for name, axis in space.items()}
    combined = itertools.islice(itertools.product(*ends.values()), CORNERS)
    corners = [dict(zip(ends, values, strict=True)) for values in combined]
    return corners + [
        {**corners[0], name: value} for name, values in ends.items() for value in values[1:]
    ]


def _search(
    searched: Search,
    train: Callable[..., Trained],
    checkpoint: str | os.PathLike[str] | None,
    callback: Callable[[int, int, Callable[[], tuple[Member, ...]]], Any] | None,
) -> Trained:
    """The members of all batches, as those of one sweep."""
    call = Call(searched.batch * len(searched.seeds))
    less = tuple(map(less_is_better, searched.objectives))
    counts = searched.counts()
    done: list[Trained] = []
    tried: list[Tried] = []

    def report(epochs: int, total: int, members: Callable[[], tuple[Member, ...]]) -> Any:
        """Tell the callback of all batches: those to come are taken to be like this one."""
        assert callback is not None
        before = tuple(member for each in done for member in each.members)
        past = sum(member.epochs for member in before)
        to_come = sum(counts[len(done) + 1 :]) * total // counts[len(done)]
        return callback(past + epochs, past + total + to_come, lambda: (*before, *members()))

    for number, count in enumerate(counts, start=1):
        batch = Batch(searched.space, count, searched.seed, less)
        settings = searched.members(propose(searched.sampler, batch, tried))
        place = None if checkpoint is None else checkpoints.batch_directory(checkpoint, number)
        done.append(
            train(
                settings,
                call,
                checkpoint=place,
                callback=report if callback is not None else None,
            )
        )
        if done[-1].interrupted:
            break
        tried += searched.tried(done[-1].members)
    firsts = itertools.accumulate((len(each.members) for each in done), initial=0)
    pairs = list(zip(done, firsts, strict=False))  # all but the last sum
    return Trained(
        members=tuple(member for each in done for member in each.members),
        groups=[renumbered(group, first) for each, first in pairs for group in each.groups],
        monitor=done[0].monitor,
        interrupted=done[-1].interrupted,
    )
