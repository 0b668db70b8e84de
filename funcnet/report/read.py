"""What is read of run directories for a report: records, the losses of steps, rows of epochs."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet.files import open_file
from funcnet.history import columns
from funcnet.logs import read_log
from funcnet.runs import LOG, Record, load_record
from funcnet.targets import task_of_loss
from funcnet.text import finite, one_line

LARGEST = 1e300  # of what came of a run; an integer above has no float
Columns = dict[str, list[float | None]]


class Run(NamedTuple):
    """A run directory.

    Attributes:
      name: what it is called in the report.
      path: where it is.
      record: its configuration and facts.
      task: what was predicted.
      epochs: what was measured after some epochs, by column, "epoch" the first.
      losses: [steps] float64, the loss of every step; none of a run that goes on.
    """

    name: str
    path: Path
    record: Record
    task: str
    epochs: Columns
    losses: np.ndarray

    @property
    def status(self) -> str:
        """How it ended, or "running": it goes on, or was cut off."""
        return str(self.record.facts.get("status") or "finished")

    @property
    def results(self) -> dict[str, Any]:
        """What came of it, numbers by name."""
        return figures_of(self.record)

    @property
    def of_classes(self) -> dict[str, list[Any]]:
        """What came of it for each class or label: lists of numbers and None, or of such lists."""
        results = self.record.facts.get("results") or {}
        return {k: v for k, v in results.items() if isinstance(v, list) and _are_numbers(v)}

    @property
    def done(self) -> int:
        """The number of epochs done."""
        measured = self.epochs["epoch"][-1] if self.epochs.get("epoch") else 0
        return int(self.results.get("epochs") or measured or 0)


def figures_of(record: Record) -> dict[str, Any]:
    """The results of a record that are numbers."""
    results = record.facts.get("results") or {}
    return {name: value for name, value in results.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and not abs(value) >= LARGEST


def _are_numbers(values: list[Any]) -> bool:
    rows = [row for row in values if isinstance(row, list)]
    cells = [cell for row in rows for cell in row] if len(rows) == len(values) else values
    return all(cell is None or _is_number(cell) for cell in cells)


def read_run(path: Path, name: str) -> Run:
    """A run directory, one that goes on or was cut off too.

    Raises:
      FileNotFoundError: it is none. ValueError: a file in it is damaged.
    """
    record = load_record(path)
    task = task_of(record)
    epochs = as_columns(measured_rows(path))
    epochs = epochs or {name: [] for name in columns(task)}
    if None in epochs.get("epoch", [None]):
        raise ValueError(f"{path / 'history.csv'} is damaged: it has rows of no epoch")
    return Run(name, path, record, task, epochs, read_losses(path / "losses.csv"))


def task_of(record: Record) -> str:
    """What the run of a record predicts: of data without labels to guess from the loss says it."""
    from funcnet.recipes import build_loss

    return record.config.task or task_of_loss(build_loss(record.config)) or "classification"


def measured_rows(path: Path) -> list[dict[str, Any]]:
    """What a run has measured, a row an epoch: of its history, or else of its log.

    Raises:
      ValueError: one is damaged.
    """
    if rows := read_rows(path / "history.csv"):
        return rows
    log = path / LOG
    return list(map(finite, read_log(log))) if log.is_file() else []


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a .csv file of numbers; none where it is not there.

    A last line that is half written is not yet one.

    Raises:
      ValueError: it is damaged.
    """
    if not file.is_file():
        return []
    with open_file(file) as opened:
        content = opened.read()
    try:
        rows = csv.DictReader(content.decode().split("\n")[:-1])
        return [{name: _number(value) for name, value in row.items()} for row in rows]
    except (TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} is damaged: {one_line(error)}") from None


def _number(text: str) -> float | None:
    number = float(text)
    return number if np.isfinite(number) else None


def as_columns(rows: list[dict[str, Any]]) -> Columns:
    """Rows as columns, by the names of the first."""
    return {name: [row.get(name) for row in rows] for name in rows[0]} if rows else {}


def read_losses(file: Path) -> np.ndarray:
    """The losses of the steps of a run, [steps]; none where the file is not there.

    Raises:
      ValueError: it is damaged.
    """
    if not file.is_file():
        return np.zeros(0)
    with open_file(file) as opened:
        lines = opened.read().splitlines()[1:]
    if not lines:
        return np.zeros(0)
    try:
        return np.loadtxt(lines, delimiter=",", ndmin=2, usecols=[1])[:, 0]
    except (IndexError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {one_line(error)}") from None
