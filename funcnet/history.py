"""The history of a run: the loss of every step, and what was measured after some epochs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnet.targets import MEASURES

__all__ = ["History"]


class History(NamedTuple):
    """The course of a run, NumPy arrays.

    Attributes:
      loss: [steps], the loss of every step on its batch, regularisation included.
      epoch: [rows], the epochs after which the following were measured, 0 the first.
      train_loss: [rows], the loss on a fixed sample of 1,000 training examples.
      train_accuracy: [rows], the accuracy on the same; NaN in regression, which has none.
      val_loss: [rows], the loss on the validation set; NaN if it is empty.
      val_accuracy: [rows], the accuracy on the same.
      metrics: what else was measured, [rows] each: train_NAME on that sample, val_NAME on the
        validation set, NaN if it is empty. Of regression NAME is rmse, mae and r2, of several
        labels micro_f1 and macro_f1; and those of one's own.
      task: that of the targets.
    Example:
      >>> ones = np.ones(2)
      >>> history = fn.History(np.array([2.5, 2.0, 1.5]), np.array([0, 1]), ones, ones, ones, ones)
      >>> list(history.rows())
      ['epoch', 'train_loss', 'train_accuracy', 'val_loss', 'val_accuracy']
      >>> float(history.loss[-1])
      1.5
    """

    loss: np.ndarray
    epoch: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    metrics: Mapping[str, np.ndarray] = {}
    task: str = "classification"

    def rows(self) -> dict[str, np.ndarray]:
        """What has a row for each measurement, [rows] each, by name: a table's columns."""
        known = {**{name: getattr(self, name) for name in _ALWAYS}, **self.metrics}
        first = {name: known[name] for name in columns(self.task)}
        return {**first, **{k: v for k, v in self.metrics.items() if k not in first}}


_ALWAYS = History._fields[1:6]


def columns(task: str) -> tuple[str, ...]:
    """The columns that every History of a task has, epoch the first."""
    measures = ("loss", *MEASURES[task])
    return ("epoch", *(f"{split}_{name}" for split in ("train", "val") for name in measures))


def history_row(
    epoch: int, train: Mapping[str, Any], val: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What was measured after an epoch, as in a `History`.

    Args:
      epoch: the number of epochs done.
      train, val: measures by name, numbers or arrays of several runs; val may be None.
    """
    if val is None:
        val = {name: value * np.nan for name, value in train.items()}
    of_splits = (("train", train), ("val", val))
    return {"epoch": epoch} | {
        f"{split}_{name}": value
        for split, measured in of_splits
        for name, value in measured.items()
    }


def as_history(
    losses: Sequence[np.ndarray],
    rows: Sequence[Mapping[str, Any]],
    own: Sequence[str] = (),
    task: str = "classification",
) -> History:
    """The History of the losses of some epochs and of their rows, own columns among them."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], int if name == "epoch" else float)

    found = {name: column(name) for name in (*columns(task), *own)}
    return history_of({"loss": np.concatenate([np.zeros(0), *losses]), **found}, task)


def history_of(found: Mapping[str, np.ndarray], task: str) -> History:
    """The History whose columns are given, "loss" among them."""
    none = np.full(len(found["epoch"]), np.nan)
    known = {name: found.get(name, none) for name in _ALWAYS}
    others = {k: v for k, v in found.items() if k not in (*_ALWAYS, "loss")}
    return History(found["loss"], **known, metrics=others, task=task)


def rows_of(found: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
    """The rows of a History whose columns are given, of which the losses of steps are none."""
    names = [name for name in found if name != "loss"]
    rows = (dict(zip(names, row, strict=True)) for row in zip(*map(found.get, names), strict=True))
    return tuple({**row, "epoch": int(row["epoch"])} for row in rows)
