"""The members of a sweep, and the table of what became of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet.evaluation import is_better, merit
from funcnet.history import History, as_history
from funcnet.model import BestModel, Model
from funcnet.step import TrainState
from funcnet.sweeps.search import Settings, identity
from funcnet.targets import LESS, MEASURES

__all__ = ["Member", "mean_over_seeds", "sweep_table"]

STATUSES = ("unfinished", "finished", "diverged", "stopped")


def results_of(task: str) -> tuple[str, ...]:
    """The columns of a table of members besides their settings."""
    first, *others = MEASURES[task]
    ends = "best_epoch", f"final_train_{first}", f"final_val_{first}", "epochs", "status"
    return (f"val_{first}", "val_loss", *(f"val_{name}" for name in others), *ends)


RESULTS = tuple(dict.fromkeys(name for task in MEASURES for name in results_of(task)))
RESULTS = *RESULTS, "parameters"  # the last: tables of before have it not


OVER = ("seed", "fold")  # what means are over
_MORE = {name for names in MEASURES.values() for name in names} - {*LESS}


def less_is_better(name: str) -> bool:
    """Whether less of a column is better: of all but measures such as accuracy, R2 and F1."""
    measure = name.removeprefix("final_").removeprefix("train_").removeprefix("val_")
    return measure not in _MORE


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that are not the same in all rows."""
    names = [name for name in rows[0] if name not in RESULTS] if rows else []
    return [name for name in names if len({str(row[name]) for row in rows}) > 1]


def ranked(rows: Sequence[Mapping[str, Any]], value: str, less: bool) -> list[int]:
    """The numbers of rows, the best first, those without a value last."""
    sign = 1 if less else -1
    keys = [math.inf if row[value] is None else sign * row[value] for row in rows]
    return sorted(range(len(rows)), key=keys.__getitem__)


def front_of_costs(costs: np.ndarray) -> list[int]:
    """The rows of costs [N, K] than which no other is as little in all and less in one.

    Those of the least first cost come first.
    """
    unbeaten = [
        i
        for i, own in enumerate(costs)
        if not ((costs <= own).all(axis=1) & (costs < own).any(axis=1)).any()
    ]
    return sorted(unbeaten, key=lambda i: tuple(costs[i]))


def task_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The task of a table of members, by its columns."""
    return next(task for task in MEASURES if rows[0].keys() >= {*results_of(task)})


class Member(NamedTuple):
    """One training of a sweep.

    Attributes:
      settings: its settings.
      status: "finished", after all epochs or for want of patience; "diverged", if the loss of a
        step or its last model was not finite; "stopped", by successive halving; or "unfinished", if
        the sweep was interrupted.
      epochs: the number of epochs done.
      model: the Model after them, NumPy arrays; None if it was never begun.
      best: its BestModel, by validation accuracy or what else is monitored; None where it was not
        measured.
      history: its History.
      state: its TrainState if it is unfinished, else None.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.sweep(experiment, digits, settings, **options)
      >>> member = result.members[1]
      >>> member.settings, member.status, member.epochs
      ({'rate': 0.01}, 'finished', 2)
    """

    settings: Settings
    status: str
    epochs: int
    model: Model | None
    best: BestModel | None
    history: History
    state: TrainState | None


def new_member(settings: Mapping[str, Any], task: str = "classification") -> Member:
    """A member that was not begun."""
    history = as_history((), (), (), task)
    return Member(dict(settings), "unfinished", 0, None, None, history, None)


def sweep_table(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as rows, in their order.

    Each is a dict of the settings and of val_accuracy and val_loss, those of the best model;
    best_epoch; final_train_accuracy, on the sample of `fit`, and final_val_accuracy, after the
    last epoch; epochs, those done; status; and parameters, the number of those of the net, None if
    it was not begun. What was not measured is None. In regression there
    are val_rmse, val_mae and val_r2 in place of accuracies, and the final ones are of rmse; of
    several labels there are val_micro_f1 and val_macro_f1, too.

    Args:
      members: those of a `SweepResult`.
    Returns:
      A dict for each member.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.sweep(experiment, digits, settings, **options)
      >>> rows = fn.sweep_table(result.members)
      >>> rows[1]["rate"], rows[1]["epochs"], rows[1]["status"]
      (0.01, 2, 'finished')
    """
    return [_row(member) for member in members]


def _row(member: Member) -> dict[str, Any]:
    history, best = member.history, member.best
    rows, first = history.rows(), MEASURES[history.task][0]
    at = None if best is None else int(np.flatnonzero(history.epoch == best.epoch)[-1])
    validated = at is not None and not math.isnan(rows[f"val_{first}"][at])

    def shown(name: str) -> Any:
        if name in ("epochs", "status"):
            return getattr(member, name)
        if name == "best_epoch":
            return None if best is None else best.epoch
        if name.startswith("final_"):
            of_val = name.startswith("final_val_")
            known = len(history.epoch) > 0 and (validated or not of_val)
            return float(rows[name.removeprefix("final_")][-1]) if known else None
        return float(rows[name][at]) if validated else None

    results = {name: shown(name) for name in results_of(history.task)}
    return {**member.settings, **results, "parameters": _parameters(member.model)}


def _parameters(model: Model | None) -> int | None:
    return None if model is None else sum(leaf.size for leaf in jax.tree.leaves(model.params))


def mean_over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table with those that differ in nothing but the seed, and the fold, made one.

    Args:
      rows: as `sweep_table` gives them.
    Returns:
      Rows with the settings less seed and fold; of val_accuracy, final_train_accuracy and
      final_val_accuracy, or what stands in their place, the mean over the seeds that finished, and
      with the ending _std their standard deviation (N - 1; None of one); parameters, if the table
      has them; seeds, or of a cross-validation members, the number of those; and diverged, the
      number of those that did.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-2], seed=range(3))
      >>> result = fn.sweep(experiment, digits, settings, epochs=1, batch_size=100)
      >>> [row] = fn.mean_over_seeds(result.table())
      >>> row["rate"], row["seeds"], row["diverged"]
      (0.01, 3, 0)
    """
    alike: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        settings = {name: value for name, value in row.items() if name not in (*RESULTS, *OVER)}
        alike.setdefault(identity(settings), []).append(row)
    means = []
    for same in alike.values():
        mean: dict[str, Any] = {k: v for k, v in same[0].items() if k not in (*RESULTS, *OVER)}
        done = [row for row in same if row["status"] == "finished"]
        measured = [n for n in same[0] if n in RESULTS and n.startswith(("val_", "final_"))]
        for name in (n for n in measured if n != "val_loss"):
            values = [row[name] for row in done if row[name] is not None]
            mean[name] = float(np.mean(values)) if values else None
            mean[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        if "parameters" in same[0]:
            mean["parameters"] = same[0]["parameters"]
        mean["members" if "fold" in same[0] else "seeds"] = len(done)
        mean["diverged"] = sum(row["status"] == "diverged" for row in same)
        means.append(mean)
    return means


def merit_at(member: Member, epoch: int, monitor: str) -> tuple[Any, Any]:
    """The `merit` of a member after an epoch that it was measured after."""
    columns, at = member.history.rows(), member.history.epoch == epoch
    return merit({name: column[at][-1] for name, column in columns.items()}, monitor)


def best_member(
    members: Sequence[Member], monitor: str, **settings: Any
) -> tuple[int, BestModel | None]:
    """The best model of the members with these settings that did not diverge, and whose it is."""
    best, best_merit, index = None, None, -1
    for i, member in enumerate(members):
        if any(member.settings[name] != value for name, value in settings.items()):
            continue
        own = member.best
        if own is None or member.status == "diverged":
            continue
        own_merit = merit_at(member, own.epoch, monitor)
        if best_merit is None or is_better(own_merit, best_merit):
            best, best_merit, index = own, own_merit, i
    return index, best
