"""Sweeps: many trainings as one compiled program.

    def experiment(learning_rate, weight_scale):
        return mlp([100] * 5, 10, weight_scale=weight_scale), adam(learning_rate)

    settings = grid(learning_rate=[1e-3, 2e-3, 3e-4], weight_scale=[2e-2, 5e-2, 6e-2])
    result = sweep(experiment, load_cifar10(), settings, key=key, epochs=30, batch_size=200)

Settings that are floats, and `seed`, are traced: members that differ in nothing else are trained
by one program, which is compiled once. Every other kind of setting is structural: each
combination of their values is a group of members with a program of its own.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import jax
from jax.sharding import Mesh

from funcnet import checks
from funcnet.committee import join_models, select_models
from funcnet.datasets import Dataset, check_dataset
from funcnet.evaluation import Evaluation, MultilabelEvaluation, RegressionEvaluation, evaluate
from funcnet.model import BestModel, Model
from funcnet.signature import takes
from funcnet.sweeps.engine import Trained, train_all
from funcnet.sweeps.groups import Experiment
from funcnet.sweeps.objectives import front_of
from funcnet.sweeps.search import Settings
from funcnet.sweeps.table import Member, best_member, merit_at, sweep_table
from funcnet.targets import MONITORS
from funcnet.train import FitOptions

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
      objectives: of a search, the columns that it went by.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.sweep(experiment, digits, settings, **options)
      >>> result.best.epoch, result.interrupted
      (2, False)
      >>> [row["rate"] for row in result.table()]
      [0.0001, 0.01]
      >>> [row["rate"] for row in result.pareto(("val_accuracy", "parameters"))]
      [0.01]
    """

    members: tuple[Member, ...]
    best: BestModel | None
    best_settings: Settings | None
    test: Evaluation | RegressionEvaluation | MultilabelEvaluation | None
    interrupted: bool
    objectives: tuple[str, ...] = ()

    def ensemble(
        self, top: int = 8, *, dataset: Dataset | None = None, monitor: str | None = None
    ) -> Model:
        """The best models of several members as one Model, whose predictions are averaged.

        Members that diverged are not among them. With a dataset they are chosen greedily, for what
        they do together on its validation split, see `select_models`; else those that are best
        alone. All must have one preprocessing; see `join_models`.

        Args:
          top: how many at most.
          dataset: the Dataset.
          monitor: what ranks them, as for `fit`; None is that of the task.
        Returns:
          The Model.
        Raises:
          ValueError: no member has a best model, or they do not go together.
        """
        top = checks.COUNT.check("top", top)
        members = [m for m in self.members if m.best is not None and m.status != "diverged"]
        if not members:
            raise ValueError("no member has a best model: measure them with eval_every")
        name = monitor or MONITORS[members[0].history.task]
        ranked = sorted(members, key=lambda m: _rank(m, name), reverse=True)
        models = [m.best for m in ranked if m.best is not None]
        if dataset is None:
            return join_models(models[:top])
        weight = dataset.weight_val
        x, y = dataset.x_val, dataset.y_val
        return join_models(select_models(models, x, y, size=top, sample_weight=weight))

    def table(self) -> list[dict[str, Any]]:
        """The members as rows: their settings and what became of them, see `sweep_table`."""
        return sweep_table(self.members)

    def pareto(self, objectives: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
        """The rows that none is better than, see `pareto_front`; of several seeds, their means.

        Args:
          objectives: names of columns; None is those of the search.
        Returns:
          The rows, as `pareto_front` gives them.
        Raises:
          ValueError: there are no objectives, or as for `pareto_front`.
        """
        names = self.objectives if objectives is None else objectives
        if not names:
            raise ValueError('name objectives, such as pareto(("val_accuracy", "parameters"))')
        return front_of(self.members, names)


def _rank(member: Member, monitor: str) -> tuple[float, float]:
    assert member.best is not None
    first, second = merit_at(member, member.best.epoch, monitor)
    return float(first), float(second)


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
    mesh: Mesh | None = None,
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
      callback: `callback(done, total, members)` after each epoch of a chunk, or of those that are
        trained side by side: epochs done and to do, of all members, and a function that gives the
        members as they are now. If it returns True, or raises StopIteration or KeyboardInterrupt,
        that is as Ctrl-C.
      mesh: devices over which the members are spread, such as `device_mesh(4)`; they exchange
        nothing. None is one device.
      reg, loss_fn, class_weight, preprocess: as for `fit`, for all members.
      augment, label_smoothing, mixup_alpha, average_decay: as for `fit`, for all members.
    Returns:
      A SweepResult: `.members`, `.best`, `.best_settings`, `.test`, `.table()`.
    Raises:
      ValueError, TypeError: an argument, a setting or what the experiment makes of it is wrong;
        before anything is compiled. Or what is saved is damaged, or of another sweep.
      FileExistsError: there is a sweep in `checkpoint`, and it is not to be resumed.
      BlockingIOError: another process writes there.
      OSError: a file cannot be written; of the
        last ones it is a warning.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.sweep(experiment, digits, settings, **options)
      >>> result.best_settings, [member.status for member in result.members]
      ({'rate': 0.01}, ['finished', 'finished'])
    """
    dataset = check_dataset(dataset)
    done = train_all(
        experiment,
        [dataset],
        settings,
        key=key,
        epochs=epochs,
        eval_every=eval_every,
        halve_at=halve_at,
        chunk_size=chunk_size,
        patience=patience,
        monitor=monitor,
        members=members,
        checkpoint=checkpoint,
        resume=resume,
        checkpoint_every=checkpoint_every,
        callback=callback,
        mesh=mesh,
        options={**options, "batch_size": batch_size},
    )
    return result_of(done, dataset)


def result_of(done: Trained, dataset: Dataset, objectives: tuple[str, ...] = ()) -> SweepResult:
    """The SweepResult of members that were trained with a checked Dataset, for these objectives."""
    index, best = best_member(done.members, done.monitor)
    if best is None:
        return SweepResult(done.members, None, None, None, done.interrupted, objectives)
    test = None
    if not done.interrupted and len(dataset.x_test):
        group = next(g for g in done.groups if index in g.programs)
        test = evaluate(
            best,
            dataset.x_test,
            dataset.y_test,
            loss_fn=group.programs[index].loss_fn,
            sample_weight=dataset.weight_test,
            class_weight=group.options[index].class_weight,
        )
    settings = done.members[index].settings
    return SweepResult(done.members, best, settings, test, done.interrupted, objectives)
