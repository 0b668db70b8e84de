"""Pictures of training runs: losses, and accuracies or RMSE."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.history import History
from funcnet.plots.figures import new_figure, write_title
from funcnet.targets import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_histories", "plot_history"]


def plot_history(history: History, *, title: str | None = None) -> "Figure":
    """The course of one run: the loss of every step, and accuracies, or RMSE, per epoch.

    Args:
      history: the History of the run.
      title: a line above the picture.
    Returns:
      A matplotlib Figure of two panels.
    """
    figure, (losses, measures) = new_figure(1, 2, (11, 4))
    _draw_loss(losses, history, "training loss", "C0")
    losses.set(title="Training loss", xlabel="Iteration", ylabel="Loss")
    measures.xaxis.get_major_locator().set_params(integer=True)
    marker = "o" if len(history.epoch) <= 40 else None
    name, scale, unit = _MEASURES[MEASURES[history.task][0]]
    for label, values in zip(("training", "validation"), _measured(history), strict=True):
        if np.isfinite(values).any():
            measures.plot(history.epoch, scale * values, marker=marker, ms=3, label=label)
    measures.set(title=name, xlabel="Epoch", ylabel=f"{name}{unit}")
    if measures.lines:
        measures.legend(loc="best")
    write_title(figure, title)
    return figure


# The first measure of a task: its name, by what it is multiplied, and its unit.
_MEASURES = {"accuracy": ("Accuracy", 100, " (%)"), "rmse": ("RMSE", 1, "")}


def _measured(history: History) -> tuple[np.ndarray, np.ndarray]:
    """The first measure of a task, of the training sample and of validation."""
    rows, name = history.rows(), MEASURES[history.task][0]
    return rows[f"train_{name}"], rows[f"val_{name}"]


def plot_histories(histories: Mapping[str, History], *, title: str | None = None) -> "Figure":
    """Several runs side by side, CS231n's three panels.

    Args:
      histories: the History of each run, by the name for the legend.
      title: a line above the picture.
    Returns:
      A matplotlib Figure: training loss, training accuracy and validation accuracy, or RMSE.
    """
    if not histories:
        raise ValueError("histories is empty: there is nothing to plot")
    figure, (losses, train, val) = new_figure(3, 1, (10, 11))
    for i, (name, history) in enumerate(histories.items()):
        color = f"C{i}"
        _draw_loss(losses, history, name, color)
        measure, scale, unit = _MEASURES[MEASURES[history.task][0]]
        for axes, values in zip((train, val), _measured(history), strict=True):
            axes.plot(history.epoch, scale * values, color=color, marker="o", ms=3, label=name)
    losses.set(title="Training loss", xlabel="Iteration", ylabel="Loss")
    shown = measure if measure.isupper() else measure.lower()
    train.set(title=f"Training {shown}", xlabel="Epoch", ylabel=f"{measure}{unit}")
    val.set(title=f"Validation {shown}", xlabel="Epoch", ylabel=f"{measure}{unit}")
    for axes in (losses, train, val):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best", ncol=2)
    write_title(figure, title)
    return figure


def _draw_loss(axes: Any, history: History, label: str, color: str) -> None:
    """The loss of every step; where they are many, faint, with their running mean on top."""
    steps = np.arange(1, len(history.loss) + 1)
    window = len(steps) // 50
    if window < 2:
        marker = "o" if np.isfinite(history.loss).sum() == 1 else None  # a line needs two
        axes.plot(steps, history.loss, color=color, label=label, marker=marker)
        return
    axes.plot(steps, history.loss, color=color, alpha=0.25, linewidth=0.6)
    means = np.lib.stride_tricks.sliding_window_view(history.loss, window).mean(axis=-1)
    axes.plot(steps[window - 1 :], means, color=color, label=f"{label} (mean of {window})")
