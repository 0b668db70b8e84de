"""Pictures of training runs: losses, accuracies or RMSE, and rates tried out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.evaluation import is_better, merit
from funcnet.history import History
from funcnet.plots.figures import (
    BLACK,
    BLUE,
    STYLES,
    VERMILLION,
    axes_for,
    label_axes,
    legend_below,
    named,
    new_figure,
    span_of,
    style,
    whole_ticks,
    write_title,
)
from funcnet.targets import MEASURES, MONITORS
from funcnet.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_histories", "plot_history", "plot_learning_rates"]


class _Course(NamedTuple):
    """What is drawn of a run.

    Attributes:
      history: its History.
      best: the epoch of its best model; None where it is not known.
      end: the word for how it ended, if it was before its time.
      epochs: how many it has done; None where it is not known.
    """

    history: History
    best: int | None
    end: str | None
    epochs: int | None


def plot_history(
    history: Any, *, best: int | None = None, status: str | None = None, title: str | None = None
) -> "Figure":
    """The course of one run: the loss of steps and of validation, and accuracies, or RMSE.

    The loss of each step on its batch is pale, regularisation included; their mean over the steps
    before is dark, and the legend says of how many. Where these span more than a factor of ten the
    axis of losses is logarithmic; some steps far above the others, such as the first ones, lie
    beyond its end, and its name says how many. A star marks the best epoch, a cross the end of a
    run that was stopped, was interrupted or diverged.

    Alternative text: "Two panels: training loss over steps, falling, with the validation loss of
    each epoch; and accuracy in training and validation over epochs, its best epoch marked."

    Args:
      history: the History of the run; or what has one, and `best` and `status` with it: what `fit`
        returns, or the member of a sweep.
      best: the epoch of the best model, `result.best.epoch`. None is that of `history`, or if it
        does not say it the epoch that the usual monitor of the task chooses, see `fit`.
      status: how it ended, "stopped", "interrupted" or "diverged"; "finished" is as it should.
        None is that of `history`; of one whose last losses are not finite, "not finite".
      title: a line above the picture.
    Returns:
      A matplotlib Figure of two panels.
    Raises:
      ValueError: nothing was measured after the epoch `best`.
      TypeError: history is none, and has none.
    Example:
      >>> ones = np.ones(2)
      >>> history = fn.History(np.array([2.5, 2.0, 1.5]), np.array([0, 1]), ones, ones, ones, ones)
      >>> figure = fn.plot_history(history)
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['Loss', 'Accuracy (%)']
    """
    run = _course(history, best, status)
    figure, (losses, measures) = new_figure(1, 2, (11, 4))
    shown, window = _draw_loss(losses, run, {**TRAINING, "label": "training"})
    if window == 1:
        losses.lines[0].set_label("training (each step)")
    places, val_loss = _places(run), run.history.val_loss
    _draw(losses, places, val_loss, "validation", VALIDATION)
    name, scale, unit = _MEASURES[MEASURES[run.history.task][0]]
    train, val = (scale * values for values in _measured(run.history))
    _draw(measures, run.history.epoch, train, "training", TRAINING)
    _draw(measures, run.history.epoch, val, "validation", VALIDATION)
    _name_panel(losses, "Loss", "Iteration")
    _name_panel(measures, name, "Epoch")
    _scale_losses(losses, [shown, val_loss], "Loss")
    _scale_measures(measures, [train, val], name, unit)
    _mark_best(losses, run, places, val_loss)
    _mark_best(measures, run, run.history.epoch, val)
    _mark_end(losses, run, *_steps_of(run))
    _mark_end(measures, run, run.history.epoch, val if np.isfinite(val).any() else train)
    named(losses, loc="best" if len(run.history.loss) < 5000 else "upper right")
    named(measures, loc="best")
    write_title(figure, title)
    return figure


TRAINING = {"color": BLUE, "linestyle": "-"}
VALIDATION = {"color": VERMILLION, "linestyle": "--"}
# The first measure of a task: its name, by what it is multiplied, and its unit.
_MEASURES = {"accuracy": ("Accuracy", 100, " (%)"), "rmse": ("RMSE", 1, "")}


def _measured(history: History) -> tuple[np.ndarray, np.ndarray]:
    """The first measure of a task, of the training sample and of validation."""
    rows, name = history.rows(), MEASURES[history.task][0]
    return rows[f"train_{name}"], rows[f"val_{name}"]


def plot_histories(histories: Mapping[str, Any], *, title: str | None = None) -> "Figure":
    """Several runs side by side, CS231n's panels and the loss of validation.

    Of each run there is a line, the same in all panels; of many steps the mean of so many as the
    title of the panel says, on a pale line of each step. A star marks the best epoch, a cross with
    a word the end of a run that was stopped, was interrupted or diverged.

    Alternative text: "Four panels with a line for each run: training loss over steps, validation
    loss, training accuracy and validation accuracy over epochs."

    Args:
      histories: by the name for the legend the History of each run, or what has one, as for
        `plot_history`.
      title: a line above the picture.
    Returns:
      A matplotlib Figure: training loss, validation loss, training accuracy and validation
      accuracy, or RMSE.
    Raises:
      ValueError: there are none, more than can be told apart, or they are of several measures.
      TypeError: one is no History, and has none.
    Example:
      >>> ones = np.ones(2)
      >>> history = fn.History(np.array([2.5, 2.0, 1.5]), np.array([0, 1]), ones, ones, ones, ones)
      >>> figure = fn.plot_histories({"one": history, "other": history})
      >>> [axes.get_title() for axes in figure.axes]
      ['Training loss', 'Validation loss', 'Training accuracy', 'Validation accuracy']
    """
    runs, (name, scale, unit) = _alike(histories)
    figure, (losses, val_losses, train, val) = new_figure(2, 2, (11, 7.5))
    found = {
        label: [scale * values for values in _measured(run.history)] for label, run in runs.items()
    }
    steps, windows = [], set()
    for i, (label, run) in enumerate(runs.items()):
        look, epoch = style(i), run.history.epoch
        shown, window = _draw_loss(losses, run, {**_without_marker(look), "label": label})
        steps.append(shown)
        windows.add(window)
        _draw(val_losses, epoch, run.history.val_loss, label, look)
        _draw(train, epoch, found[label][0], label, look)
        _draw(val, epoch, found[label][1], label, look)
    what = name if name.isupper() else name.lower()
    _name_panel(losses, f"Training loss{_said_of(windows)}", "Iteration")
    _name_panel(val_losses, "Validation loss", "Epoch")
    _name_panel(train, f"Training {what}", "Epoch")
    _name_panel(val, f"Validation {what}", "Epoch")
    _scale_losses(losses, steps, "Loss")
    _scale_losses(val_losses, [run.history.val_loss for run in runs.values()], "Loss")
    for axes, which in ((train, 0), (val, 1)):
        _scale_measures(axes, [values[which] for values in found.values()], name, unit)
    for i, (label, run) in enumerate(runs.items()):
        color, epoch = style(i)["color"], run.history.epoch
        _mark_end(losses, run, *_steps_of(run), color)
        for axes, values in ((val_losses, run.history.val_loss), (val, found[label][1])):
            _mark_best(axes, run, epoch, values, color)
            _mark_end(axes, run, epoch, values, color)
    _name_runs(figure, runs)
    write_title(figure, title)
    return figure


def _alike(histories: Mapping[str, Any]) -> tuple[dict[str, _Course], tuple[str, int, str]]:
    """Several runs, and the measure that they have, by its name, factor and unit."""
    if not histories:
        raise ValueError("histories is empty: there is nothing to plot")
    if len(histories) > STYLES:
        raise ValueError(
            f"histories holds {len(histories):,} runs, of which {STYLES} can be told apart: choose "
            "some, or draw the table of a sweep, as plot_sweep and plot_parallel do"
        )
    runs = {name: _course(run, None, None) for name, run in histories.items()}
    measures = {MEASURES[run.history.task][0] for run in runs.values()}
    if len(measures) > 1:
        raise ValueError(f"histories are of {' and of '.join(sorted(measures))}: draw each alone")
    return runs, _MEASURES[measures.pop()]


def _name_runs(figure: "Figure", runs: Mapping[str, _Course]) -> None:
    """Below the panels, which line is which run."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ms=4, **style(i)) for i in range(len(runs))]
    names = list(runs)
    if any(run.best is not None for run in runs.values()):
        handles.append(Line2D([], [], **_STAR))
        names.append("best epoch")
    legend_below(figure, handles, names)


_STAR: dict[str, Any] = {"marker": "*", "ms": 12, "mec": "black", "mfc": "white", "ls": "none"}


def _course(run: Any, best: int | None, status: str | None) -> _Course:
    """What is drawn of a History, or of what has one."""
    history = getattr(run, "history", run)
    if not isinstance(history, History):
        raise TypeError(
            f"a run must be a History, or have one as what fit returns does, got {checks.cut(run)}"
        )
    if best is None:
        own = getattr(run, "best", None)
        best = _usual_best(history) if own is None else int(own.epoch)
    elif best not in history.epoch:
        raise ValueError(f"best is epoch {best}, after which nothing was measured")
    status = status or getattr(run, "status", None)
    gone = len(history.loss) > 0 and not np.isfinite(history.loss[-1])
    as_it_should = status in (None, "finished")
    end = ("not finite" if gone else None) if as_it_should else visible(str(status))
    done = getattr(run, "epochs", None) or getattr(getattr(run, "state", None), "epoch", None)
    return _Course(history, best, end, None if done is None else int(done))


def _usual_best(history: History) -> int | None:
    """The epoch that `fit` chooses if no monitor is given; None if nothing was validated."""
    monitor, columns = MONITORS[history.task], history.rows()
    if not np.isfinite(columns[monitor]).any():
        return None
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    best = rows[0]
    for row in rows[1:]:
        if is_better(merit(row, monitor), merit(best, monitor)):
            best = row
    return int(best["epoch"])


def _places(run: _Course) -> np.ndarray:
    """After which steps the rows of a History were measured."""
    epoch, steps = run.history.epoch, len(run.history.loss)
    if not len(epoch) or not steps:
        return np.zeros(len(epoch))
    done = int(epoch[-1] - epoch[0])
    # The last epochs may not have been measured; there are equally many steps in each.
    gap = int(epoch[-1] - epoch[-2]) if len(epoch) > 1 else 1
    whole = 0 if run.epochs is None else run.epochs - int(epoch[0])
    likely = (n for n in range(max(done, 1), done + gap + 1) if steps % n == 0)
    return (epoch - epoch[0]) * (steps / (whole or next(likely, max(done, 1))))


def _without_marker(look: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in look.items() if name != "marker"}


def _draw(axes: Any, x: np.ndarray, values: np.ndarray, label: str, look: Any) -> None:
    """A line of measurements, with markers where they are few; none if nothing was measured."""
    if np.isfinite(values).any():
        marker = look.get("marker", "o") if len(x) <= 40 else None
        axes.plot(x, values, ms=3, label=label, **{**look, "marker": marker})


def _draw_loss(axes: Any, run: _Course, look: dict[str, Any]) -> tuple[np.ndarray, int]:
    """The loss of every step; where they are many, pale, with their running mean on top.

    Returns:
      what is drawn, for the axis; of how many steps the mean is, 1 if there is none.
    """
    loss = run.history.loss
    steps, label = np.arange(1, len(loss) + 1), look["label"]
    window = len(steps) // 50
    if window < 2:
        marker = "o" if np.isfinite(loss).sum() == 1 else None  # a line needs two
        axes.plot(steps, loss, marker=marker, **look)
        return loss, 1
    pale = {"color": look["color"], "alpha": 0.4, "linewidth": 0.8}
    axes.plot(steps, loss, label=f"{label}: each step", **pale)
    means = np.lib.stride_tricks.sliding_window_view(loss, window).mean(axis=-1)
    axes.plot(steps[window - 1 :], means, **{**look, "label": f"{label}: mean of {window} steps"})
    return loss, window


def _said_of(windows: set[int]) -> str:
    """What is pale and what is dark, for the title of a panel of several runs."""
    if max(windows) == 1:
        return ""
    counts = [min(w for w in windows if w > 1), max(windows)]
    several = "-".join(str(each) for each in dict.fromkeys(counts))
    return f" (each step pale, mean of {several} steps dark)"


def _steps_of(run: _Course) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a run and their losses; of one without any, where it began."""
    if np.isfinite(run.history.loss).any():
        return np.arange(1, 1 + len(run.history.loss)), run.history.loss
    return _places(run)[:1], run.history.val_loss[:1]


def _scale_losses(axes: "Axes", values: Sequence[np.ndarray], name: str) -> None:
    """The axis of losses so that most of them fill the panel; its name says what was done.

    It is logarithmic where losses, but for 2 % at each end, span more than a factor of ten.
    """
    shown = _finite(values)
    if len(shown) and shown.min() > 0 and np.divide(*np.quantile(shown, (0.98, 0.02))) > 10:
        axes.set_yscale("log")
        low, high = np.exp(span_of(np.log(shown), 0.02, 0.98))
        _limit(axes, shown, (low, high), f"{name} (log scale")
    else:
        _limit(axes, shown, span_of(shown, 0, 0.98), name)


def _scale_measures(axes: "Axes", values: Sequence[np.ndarray], name: str, unit: str) -> None:
    """The axis of accuracies, or of RMSE, so that those of the first epochs do not squeeze it."""
    shown, is_share = _finite(values), bool(unit)
    span = span_of(shown, 0.1 if is_share else 0, 1 if is_share else 0.9)
    _limit(axes, shown, span, name + unit.removesuffix(")"))


def _finite(values: Sequence[np.ndarray]) -> np.ndarray:
    shown = np.concatenate([np.ravel(each) for each in values])
    return shown[np.isfinite(shown)]


def _limit(axes: "Axes", shown: np.ndarray, span: tuple[float, float], name: str) -> None:
    """Show this span of the y axis, and say in its name, "... (..." , what lies outside."""
    low, high = span
    slack = 1e-9 * np.abs(span)  # ends come from logarithms
    hidden = int(((shown < low - slack[0]) | (shown > high + slack[1])).sum())
    if high > low:
        is_log = axes.get_yscale() == "log"
        ends = np.log([low, high]) if is_log else np.array([low, high])
        ends += 0.05 * (ends[1] - ends[0]) * np.array([-1, 1])
        axes.set_ylim(*(np.exp(ends) if is_log else ends))
    if hidden:
        name += f"{'; ' if '(' in name else ' ('}{checks.plural(hidden, 'point')} out of view"
    label_axes(axes, y=name + ")" * ("(" in name))


def _mark_best(
    axes: Any, run: _Course, places: np.ndarray, values: np.ndarray, color: str = BLACK
) -> None:
    """A star at the best epoch."""
    at = np.flatnonzero(run.history.epoch == (-1 if run.best is None else run.best))
    if len(at) and np.isfinite(values[at[-1]]):
        look = {**_STAR, "mfc": color if color != BLACK else "white", "zorder": 5}
        axes.plot(places[at[-1]], values[at[-1]], label=f"best epoch, {run.best}", **look)


def _mark_end(
    axes: Any, run: _Course, places: np.ndarray, values: np.ndarray, color: str = BLACK
) -> None:
    """A cross and a word at the last number of a run that ended before its time."""
    at = np.flatnonzero(np.isfinite(values))
    if run.end is None or not len(at):
        return
    place = places[at[-1]], values[at[-1]]
    axes.plot(*place, marker="X", ms=9, color=color, mec="black", ls="none", zorder=6)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    text: dict[str, Any] = {"fontsize": 9, "color": "black", "bbox": box, "parse_math": False}
    # Towards the middle of the panel, where there is room.
    x, y = axes.transAxes.inverted().transform(axes.transData.transform(place))
    offset = {"xytext": (7 if x < 0.5 else -7, -16 if y > 0.8 else 9)}
    align = {"textcoords": "offset points", "ha": "left" if x < 0.5 else "right"}
    axes.annotate(run.end, place, zorder=7, **offset, **align, **text)


def _name_panel(axes: "Axes", title: str, x: str) -> None:
    axes.set_title(title)
    label_axes(axes, x)
    whole_ticks(axes.xaxis)


def plot_learning_rates(found: Any, *, axes: "Axes | None" = None) -> "Axes":
    """The loss over learning rates that were tried out, with the rate that is suggested.

    Alternative text: "Loss over learning rate, on a logarithmic axis: flat, then falling, then
    rising steeply; a vertical line marks the rate suggested, where it falls."

    Args:
      found: what `find_learning_rate` returns: learning_rate [N], loss [N], smoothed [N] and
        suggestion, a number or None.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      TypeError: it has no such fields.
      ValueError: no rate was tried.
    Example:
      >>> rates, losses = np.logspace(-4, 0, 5), np.array([2.3, 2.2, 1.5, 1.4, 9.0])
      >>> axes = fn.plot_learning_rates(fn.RateRange(rates, losses, losses, suggestion=1e-2))
      >>> axes.get_xlabel(), axes.get_xscale()
      ('Learning rate (log scale)', 'log')
    """
    names = ("learning_rate", "loss", "smoothed", "suggestion")
    lacks = [name for name in names if not hasattr(found, name)]
    if lacks:
        raise TypeError(
            f"found must be what find_learning_rate returns, it has no {', '.join(lacks)}"
        )
    rate, loss, smoothed = (np.asarray(getattr(found, name), float) for name in names[:3])
    if not len(rate):
        raise ValueError("found holds no learning rates: there is nothing to plot")
    axes = axes_for(axes, (7, 4))
    marker = "o" if len(rate) <= 40 else None
    axes.plot(rate, loss, color=BLUE, alpha=0.35, lw=0.8, label="loss of each step", marker=marker)
    axes.plot(rate, smoothed, color=BLUE, label="smoothed")
    axes.set_xscale("log")
    if found.suggestion is not None:
        label = f"suggested: {found.suggestion:.2g}"
        axes.axvline(found.suggestion, color=VERMILLION, linestyle="--", label=label)
    shown = _finite([loss, smoothed])
    if len(shown):  # where the loss explodes is of no interest
        start, low = _finite([smoothed, loss])[0], shown.min()
        _limit(axes, shown, (low, min(shown.max(), start + (start - low))), "Loss")
    label_axes(axes, "Learning rate (log scale)", None if len(shown) else "Loss")
    if found.suggestion is None:
        axes.plot([], [], ls="none", label="no rate is suggested")
    named(axes, loc="best")
    return axes
