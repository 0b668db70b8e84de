"""Pictures of what a search has found: which settings matter, and what is to be had for what."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.plots.columns import NO_VALUE, Rows, check_column, measured
from funcnet.plots.figures import (
    BLUE,
    SKY,
    VERMILLION,
    axes_for,
    is_logarithmic,
    label_axes,
    named,
    number_text,
    say,
    scale_of,
    value_label,
    write_ticks,
)
from funcnet.sweeps.table import front_of_costs, less_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_importance", "plot_pareto"]

BARS = 200


def plot_importance(importances: Mapping[str, float], *, axes: "Axes | None" = None) -> "Axes":
    """How much each setting, or column, matters: bars, the longest on top.

    Alternative text: "Bars of the importance of each setting: the learning rate's is the longest,
    the others are short."

    Args:
      importances: a number of each by name, such as its share of the variance; one that is not a
        number has no bar, and says so.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: there are none, or more than 200: choose some.
    Example:
      >>> axes = fn.plot_importance({"rate": 0.7, "width": 0.2, "seed": 0.1})
      >>> [label.get_text() for label in axes.get_yticklabels()]
      ['seed', 'width', 'rate']
    """
    if not 0 < len(importances) <= BARS:
        raise ValueError(
            f"importances holds {len(importances):,} names, of which 1 to {BARS} can be drawn: "
            "choose those of the largest"
        )
    for name, value in importances.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise TypeError(f"importances[{name!r}] must be a number, got {checks.cut(value)}")
    known = {name: float(value) for name, value in importances.items()}
    order = sorted(known, key=lambda name: known[name] if math.isfinite(known[name]) else -math.inf)
    axes = axes_for(axes, (7, float(np.clip(0.32 * len(known) + 1.2, 2, 20))))
    widths = [known[name] if math.isfinite(known[name]) else 0.0 for name in order]
    places = np.arange(len(order))
    axes.barh(places, widths, color=SKY, edgecolor="black", linewidth=0.5)
    axes.grid(visible=False, axis="y")
    for place, (name, width) in enumerate(zip(order, widths, strict=True)):
        offset: dict[str, Any] = {
            "xytext": (3 if width >= 0 else -3, 0),
            "textcoords": "offset points",
        }
        align = "left" if width >= 0 else "right"
        text = number_text(known[name])
        axes.annotate(text, (width, place), va="center", ha=align, fontsize=8, **offset)
    axes.margins(x=0.12)
    axes.set_ylim(-0.6, len(order) - 0.4)
    write_ticks(axes, "y", range(len(order)), [name.replace("_", " ") for name in order])
    label_axes(axes, "Importance")
    return axes


def plot_pareto(
    rows: Rows,
    x: str,
    y: str,
    *,
    larger: Sequence[str] | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Members by two of their columns, and the Pareto front.

    That is joined by a line: the members than which no other is better in one column, and as good
    in the other.

    Axes are logarithmic if they span more than a factor of ten; members without both values, which
    diverged, are left out, and counted.

    Alternative text: "Members as points of accuracy over the number of parameters; a line joins
    those than which none is smaller and more accurate."

    Args:
      rows: a table, such as that of a sweep, `result.table()`, with columns of one's own, too.
      x, y: columns of numbers.
      larger: those of the two of which more is better. None is those that are measures such as
        accuracy, r2 and F1; of loss, RMSE, parameters, seconds and all others less is better.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: the table is empty, or there is no such column, or none of that name in `larger`.
    Example:
      >>> table = [(10, 0.8), (20, 0.9), (40, 0.85)]
      >>> rows = [{"width": width, "val_accuracy": accuracy} for width, accuracy in table]
      >>> axes = fn.plot_pareto(rows, "width", "val_accuracy")
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('width; smaller is better', 'validation accuracy (%); larger is better')
    """
    for name in (x, y):
        check_column(rows, name)
    larger = [name for name in (x, y) if not less_is_better(name)] if larger is None else larger
    for name in larger:
        if name not in (x, y):
            raise ValueError(checks.unknown("column in larger", name, (x, y)))
    axes = axes_for(axes, (7, 4.5))
    values = np.stack([measured(rows, name) * scale_of(name) for name in (x, y)])
    shown = values[:, np.isfinite(values).all(axis=0)]
    nowhere = len(rows) - shown.shape[1]
    axes.scatter(shown[0], shown[1], color=BLUE, s=20, alpha=0.6, linewidths=0, label="members")
    signs = np.array([[-1.0 if name in larger else 1.0] for name in (x, y)])
    front = shown[:, front_of_costs((signs * shown).T)]
    front = front[:, np.argsort(front[0], kind="stable")]
    if front.size:
        look: dict[str, Any] = {"marker": "D", "ms": 6, "mec": "black", "ls": "-", "lw": 1.2}
        text = f"Pareto front, {checks.plural(front.shape[1], 'member')}"
        axes.plot(front[0], front[1], color=VERMILLION, drawstyle="default", label=text, **look)
    else:
        say(axes, f"no member has both {x} and {y}")
    if nowhere:
        axes.plot([], [], ls="none", label=f"{NO_VALUE}: {nowhere:,}")
    labels = [_directed(name, larger) for name in (x, y)]
    for i, scaled in enumerate((axes.set_xscale, axes.set_yscale)):
        if front.size and is_logarithmic(shown[i]):
            scaled("log")
            labels[i] += " (log scale)"
    label_axes(axes, *labels)
    named(axes, loc="best" if len(rows) <= 2000 else "upper right")
    return axes


def _directed(name: str, larger: Sequence[str]) -> str:
    better = "larger" if name in larger else "smaller"
    return f"{value_label(name)}; {better} is better"
