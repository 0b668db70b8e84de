"""Pictures of training runs, as matplotlib figures that the caller shows or saves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import _check
from funcnet.train import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: History, *, title: str | None = None) -> "Figure":
    """The course of one run: the loss of every step, and the accuracies per epoch.

    Args:
      history: the History of the run.
      title: a line above the picture.
    Returns:
      A matplotlib Figure of two panels.
    """
    figure, (losses, accuracies) = _figure(1, 2, (11, 4))
    _draw_loss(losses, history, "training loss", "C0")
    losses.set(title="Training loss", xlabel="Iteration", ylabel="Loss")
    accuracies.xaxis.get_major_locator().set_params(integer=True)
    marker = "o" if len(history.epoch) <= 40 else None
    for label, values in (
        ("training", history.train_accuracy),
        ("validation", history.val_accuracy),
    ):
        if np.isfinite(values).any():
            accuracies.plot(history.epoch, 100 * values, marker=marker, ms=3, label=label)
    accuracies.set(title="Accuracy", xlabel="Epoch", ylabel="Accuracy (%)")
    if accuracies.lines:
        accuracies.legend(loc="best")
    figure.suptitle(title or "")
    return figure


def plot_histories(histories: Mapping[str, History], *, title: str | None = None) -> "Figure":
    """Several runs side by side, CS231n's three panels.

    Args:
      histories: the History of each run, by the name for the legend.
      title: a line above the picture.
    Returns:
      A matplotlib Figure: training loss, training accuracy and validation accuracy.
    """
    if not histories:
        raise ValueError("histories is empty: there is nothing to plot")
    figure, (losses, train, val) = _figure(3, 1, (10, 11))
    for i, (name, history) in enumerate(histories.items()):
        color = f"C{i}"
        _draw_loss(losses, history, name, color)
        for axes, values in ((train, history.train_accuracy), (val, history.val_accuracy)):
            axes.plot(history.epoch, 100 * values, color=color, marker="o", ms=3, label=name)
    losses.set(title="Training loss", xlabel="Iteration", ylabel="Loss")
    train.set(title="Training accuracy", xlabel="Epoch", ylabel="Accuracy (%)")
    val.set(title="Validation accuracy", xlabel="Epoch", ylabel="Accuracy (%)")
    for axes in (losses, train, val):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best", ncol=2)
    figure.suptitle(title or "")
    return figure


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple["Figure", Any]:
    _check.installed("matplotlib", "to draw pictures")
    from matplotlib.figure import Figure

    # Without pyplot: no global state, no window, nothing to close.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns)
    for each in axes.flat:
        each.grid(linestyle="--", linewidth=0.5)
    return figure, axes


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
