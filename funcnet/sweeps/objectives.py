"""Objectives: what settings are compared by, one column of a table or several.

    pareto_front(result.table(), ("val_accuracy", "parameters"))

Of measures in which more is better, accuracy and r2 say, more is wanted; of all else, loss, RMSE or
parameters, less. Time is no objective: members are trained side by side in one program, whose time
is not that of any of them. The number of parameters stands for what a prediction takes: an affine
layer multiplies each of its weights once for an example.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset
from funcnet.history import columns
from funcnet.sweeps.search import identity
from funcnet.sweeps.table import (
    OVER,
    Member,
    front_of_costs,
    less_is_better,
    mean_over_seeds,
    results_of,
    sweep_table,
)

__all__ = ["pareto_front"]

_Row = dict[str, Any]
_COUNTS = ("best_epoch", "epochs", "status")  # columns that are no objectives


def pareto_front(
    rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]
) -> list[Mapping[str, Any]]:
    """The rows of a table than which no other is as good in all objectives and better in one.

    Rows that diverged, or in which an objective is missing, are not among them. Rows of several
    seeds are best made means first, `mean_over_seeds`: else the luckiest seed stands for its
    settings.

    Args:
      rows: the table, such as `result.table()`.
      objectives: names of columns; of accuracy and other measures in which more is better, more is
        wanted, of all else, `parameters` say, less.
    Returns:
      Those rows, the best by the first objective first.
    Raises:
      ValueError: a column is missing, or not of numbers.
    Example:
      >>> table = [(10, 0.8), (20, 0.9), (40, 0.85)]
      >>> rows = [{"width": width, "val_accuracy": accuracy} for width, accuracy in table]
      >>> [row["width"] for row in fn.pareto_front(rows, ["val_accuracy", "width"])]
      [20, 10]
    """
    if isinstance(objectives, str) or not objectives:
        raise ValueError(
            'objectives must be names of columns, such as ("val_accuracy", "parameters")'
        )
    for name in objectives:
        for row in rows:
            if name not in row:
                raise ValueError(checks.unknown("column", name, row))
            if not isinstance(row[name], int | float | None):
                raise ValueError(f"{name} is no objective: it is {checks.cut(row[name])} in a row")
    whole = [row for row in rows if _is_whole(row, objectives)]
    signs = np.array([1.0 if less_is_better(name) else -1.0 for name in objectives])
    values = np.array([[row[name] for name in objectives] for row in whole], float)
    costs = signs * values.reshape(-1, len(objectives))
    return [whole[i] for i in front_of_costs(costs)]


def _is_whole(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    values = [row[name] for name in names]
    return row.get("status") != "diverged" and all(v is not None and np.isfinite(v) for v in values)


def check_objectives(
    objectives: Sequence[str] | None, monitor: str, dataset: Dataset, eval_every: int | None
) -> tuple[str, ...]:
    """The objectives of a search; None is what is monitored.

    Raises:
      ValueError, TypeError: there is no such column, one is named twice, or it is not measured.
    """
    if isinstance(objectives, str):
        raise TypeError(f"objectives must be a list of names, such as [{objectives!r}]")
    names = (monitor,) if objectives is None else tuple(objectives)
    known = {*columns(dataset.task)[1:], *results_of(dataset.task), "parameters"} - {*_COUNTS}
    if not names:
        raise ValueError("objectives is empty: name one, such as val_accuracy")
    for name in names:
        if name not in known:
            raise ValueError(checks.unknown("objective", name, known))
        if names.count(name) > 1:
            raise ValueError(f"objectives has {name} twice")
        if name != "parameters" and eval_every is None:
            raise ValueError(f"the objective {name} needs eval_every: nothing is measured")
        if "val_" in name and not len(dataset.x_val):
            raise ValueError(f"the objective {name} needs validation examples, and there are none")
    return names


def values_of(members: Sequence[Member], names: Sequence[str]) -> tuple[float, ...] | None:
    """The objectives of settings, means over their members; None unless all have finished them."""
    rows = [_measured(member) for member in members]
    if any(member.status not in ("finished", "stopped") for member in members):
        return None
    values = np.array([[row.get(name) for name in names] for row in rows], float)
    return tuple(values.mean(axis=0).tolist()) if np.isfinite(values).all() else None


def _measured(member: Member) -> _Row:
    """The row of a member in a table, with all that was measured of its best model."""
    best, history = member.best, member.history
    at = (
        {}
        if best is None
        else {n: c[history.epoch == best.epoch][-1] for n, c in history.rows().items()}
    )
    return {**at, **sweep_table([member])[0]}


def front_of(members: Sequence[Member], objectives: Sequence[str]) -> list[Mapping[str, Any]]:
    """The front of members; of several seeds it is that of the means over them.

    Objectives that the table does not have, such as train_loss, are columns at its end.
    """
    rows, measured = sweep_table(members), [_measured(member) for member in members]
    if len({member.settings.get("seed") for member in members}) > 1:
        rows = mean_over_seeds(rows)
        measured = [_means(same, objectives) for same in _over_seeds(members, measured)]
    both = zip(rows, measured, strict=True)
    wide = [{**row, **{n: own.get(n) for n in objectives if n not in row}} for row, own in both]
    return pareto_front(wide, objectives)


def _over_seeds(members: Sequence[Member], rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows of members that differ in nothing but the seed, in the order of `mean_over_seeds`."""
    alike: dict[Any, list[_Row]] = {}
    for member, row in zip(members, rows, strict=True):
        settings = {name: value for name, value in member.settings.items() if name not in OVER}
        alike.setdefault(identity(settings), []).append(row)
    return list(alike.values())


def _means(rows: Sequence[_Row], names: Sequence[str]) -> _Row:
    """The means over rows that finished, by name; None where none has a number."""
    done = [row for row in rows if row["status"] == "finished"]
    known = {name: [row[name] for row in done if row.get(name) is not None] for name in names}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}
