"""Pictures of training runs and of sweeps, as matplotlib figures that the caller shows or saves."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.history import History
from funcnet.metrics import calibration_error, reliability
from funcnet.sweeps.table import RESULTS
from funcnet.targets import MEASURES
from funcnet.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_heat_map",
    "plot_histories",
    "plot_history",
    "plot_lines",
    "plot_parallel",
    "plot_reliability",
    "plot_sweep",
]


def plot_history(history: History, *, title: str | None = None) -> "Figure":
    """The course of one run: the loss of every step, and accuracies, or RMSE, per epoch.

    Args:
      history: the History of the run.
      title: a line above the picture.
    Returns:
      A matplotlib Figure of two panels.
    """
    figure, (losses, measures) = _figure(1, 2, (11, 4))
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
    _write_title(figure, title)
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
    figure, (losses, train, val) = _figure(3, 1, (10, 11))
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
    _write_title(figure, title)
    return figure


def plot_reliability(
    y: Any, probabilities: Any, *, bins: int = 15, title: str | None = None
) -> "Figure":
    """How often predictions of a probability are right: on the diagonal they are as they say.

    Args:
      y: [N] labels.
      probabilities: [N, C], as `predict_proba` gives.
      bins: of the probability of what is predicted, from 0 to 1.
      title: a line above the picture.
    Returns:
      A matplotlib Figure: accuracy over probability, and below it how many examples are where; with
      the `calibration_error`.
    """
    shares, confidence, right = reliability(y, probabilities, bins=bins)
    error = calibration_error(y, probabilities, bins=bins)
    figure, (axes, counts) = _figure(2, 1, (5, 6))
    edges = np.linspace(0, 1, bins + 1)
    known = shares > 0
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="as they say")
    label = f"calibration error {100 * error:.1f} %"
    axes.plot(confidence[known], right[known], marker="o", ms=4, label=label)
    axes.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="best")
    counts.bar(edges[:-1], 100 * shares, width=1 / bins, align="edge", edgecolor="white")
    counts.set(xlabel="Probability of what is predicted", ylabel="Examples (%)", xlim=(0, 1))
    _write_title(figure, title)
    return figure


def plot_sweep(
    rows: Sequence[Mapping[str, Any]], *, value: str = "val_accuracy", title: str | None = None
) -> "Figure":
    """A picture of a sweep that suits its settings.

    Where one setting varies, apart from the seed, lines; two, a heat map; more, parallel
    coordinates. The others functions draw one of these by choice.

    Args:
      rows: the table of the sweep, `result.table()`.
      value: the column to show.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    """
    names = [name for name in _varying(rows, value) if name != "seed"]
    if len(names) > 2:
        return plot_parallel(rows, value=value, title=title)
    if len(names) == 2:
        return plot_heat_map(rows, *names[::-1], value=value, title=title)
    return plot_lines(rows, names[0] if names else "seed", value=value, title=title)


def plot_heat_map(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    *,
    panels: str | None = None,
    value: str = "val_accuracy",
    title: str | None = None,
) -> "Figure":
    """A value over two settings, as colours and numbers.

    Each cell is the mean over the members that have its settings, such as those of several
    seeds. Members that diverged are left out of it; where none is left, the cell is grey.

    Args:
      rows: the table of a sweep, `result.table()`.
      x, y: the settings along the axes.
      panels: a setting with a heat map of its own for each value, side by side on one scale.
      value: the column to show; shares are shown in percent.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    """
    for name in (x, y, *([panels] if panels else [])):
        _check_column(rows, name)
    _check_column(rows, value)
    xs, ys = _values(rows, x), _values(rows, y)
    parts = _values(rows, panels) if panels else [None]
    scale = _scale(value)
    grids = []
    for part in parts:
        own = [row for row in rows if panels is None or _same(row[panels], part)]
        grids.append(
            np.array(
                [
                    [
                        _mean([r for r in own if _same(r[x], a) and _same(r[y], b)], value)
                        for a in xs
                    ]
                    for b in ys
                ]
            )
            * scale
        )
    known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    low, high = (known.min(), known.max()) if len(known) else (0, 1)
    size = 1.5 + max(0.62 * len(xs), 2.5), 1.2 + max(0.45 * len(ys), 2)
    figure, axes = _figure(1, len(parts), (size[0] * len(parts) + 0.8, size[1]))
    image: Any = None
    for each, part, grid in zip(axes, parts, grids, strict=True):
        each.grid(visible=False)
        each.set_facecolor("0.85")
        image = each.imshow(grid, origin="lower", aspect="auto", vmin=low, vmax=high)
        each.set_xticks(range(len(xs)), [_text(v) for v in xs], rotation=45, ha="right")
        each.set_yticks(range(len(ys)), [_text(v) for v in ys])
        each.set(xlabel=_label(x), ylabel=_label(y))
        if panels:
            each.set_title(f"{_label(panels)}: {_text(part)}")
        for (j, i), number in np.ndenumerate(grid):
            if np.isfinite(number):
                dark = number < (low + high) / 2
                text, color = _number(number), "white" if dark else "black"
                each.text(i, j, text, ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, ax=list(axes), label=_value_label(value))
    _write_title(figure, title)
    return figure


def plot_lines(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    *,
    lines: str | None = None,
    value: str = "val_accuracy",
    title: str | None = None,
) -> "Figure":
    """A value over one setting: the mean as a line, and a band of one standard deviation.

    Mean and spread are over the members with the same settings shown, such as those of several
    seeds; members that diverged are left out.

    Args:
      rows: the table of a sweep, `result.table()`.
      x: the setting along the axis, logarithmic if it spans more than a factor of ten.
      lines: a setting with a line of its own for each value.
      value: the column to show; shares are shown in percent.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    """
    for name in (x, value, *([lines] if lines else [])):
        _check_column(rows, name)
    xs = _values(rows, x)
    numeric = _numeric(xs)
    places = np.array(xs, float) if numeric else np.arange(len(xs))
    figure, (axes,) = _figure(1, 1, (7, 4))
    for part in _values(rows, lines) if lines else [None]:
        own = [row for row in rows if lines is None or _same(row[lines], part)]
        cells = [_known([r for r in own if _same(r[x], a)], value) * _scale(value) for a in xs]
        mean = np.array([cell.mean() if len(cell) else np.nan for cell in cells])
        std = np.array([cell.std(ddof=1) if len(cell) > 1 else 0.0 for cell in cells])
        label = None if lines is None else f"{_label(lines)} {_text(part)}"
        (line,) = axes.plot(places, mean, marker="o", ms=4, label=label)
        if std.any():
            axes.fill_between(places, mean - std, mean + std, color=line.get_color(), alpha=0.2)
    if not numeric:
        axes.set_xticks(places, [_text(v) for v in xs])
    elif _logarithmic(xs):
        axes.set_xscale("log")
    axes.set(xlabel=_label(x), ylabel=_value_label(value))
    if lines:
        axes.legend(loc="best")
    _write_title(figure, title)
    return figure


def plot_parallel(
    rows: Sequence[Mapping[str, Any]], *, value: str = "val_accuracy", title: str | None = None
) -> "Figure":
    """Members as lines across an axis for each setting that varies, coloured by a value.

    The better ones are drawn on top. Members that diverged are grey. Axes are logarithmic if they
    span more than a factor of ten.

    Args:
      rows: the table of a sweep, `result.table()`.
      value: the column to colour by, and on the last axis; shares are shown in percent.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    """
    names = _varying(rows, value) or _settings(rows)
    figure, (axes,) = _figure(1, 1, (1.6 * (len(names) + 2), 4.5))
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = np.array([_one(row, value) for row in rows]) * _scale(value)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if len(known) else (0, 1)
    norm = Normalize(low, high if high > low else low + 1)
    colors = matplotlib.colormaps["viridis"]
    columns = [_heights(axes, place, rows, name) for place, name in enumerate(names)]
    columns.append(norm(np.nan_to_num(values, nan=low)))
    order = np.argsort(np.nan_to_num(values, nan=-np.inf), kind="stable")
    for i in order:
        known_value = np.isfinite(values[i])
        heights = [column[i] for column in columns[: None if known_value else -1]]
        color = colors(norm(values[i])) if known_value else "0.8"
        axes.plot(heights, color=color, alpha=0.8, linewidth=1.2)
    axes.grid(visible=False)
    for place in range(len(columns)):
        axes.axvline(place, color="0.3", linewidth=0.8)
    labels = [_label(name) for name in names]
    axes.set_xticks(range(len(columns)), [*labels, _value_label(value)])
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(ScalarMappable(norm, colors), ax=axes, label=_value_label(value))
    _write_title(figure, title)
    return figure


def _write_title(figure: "Figure", title: str | None) -> None:
    """Above the picture, as it is: the name of a file, with dollars in it, is no formula."""
    figure.suptitle(visible(title or ""), parse_math=False)


def _heights(axes: Any, place: int, rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Where each member is on the axis of a setting, from 0 to 1; writes some of its values."""
    known = _values(rows, name)
    if _numeric(known) and len(known) > 1:
        change = np.log if _logarithmic(known) else np.asarray
        first, last = (float(change(v)) for v in (known[0], known[-1]))
        heights = np.array([(float(change(row[name])) - first) / (last - first) for row in rows])
    else:
        heights = np.array([_place(known, row[name]) / max(len(known) - 1, 1) for row in rows])
    shown = known if len(known) <= 6 else [known[0], known[-1]]
    for v in shown:
        height = heights[next(i for i, row in enumerate(rows) if _same(row[name], v))]
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        axes.text(place, height, _text(v), ha="center", va="center", fontsize=8, bbox=box, zorder=9)
    return heights


def _settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        raise ValueError("the table is empty: there is nothing to plot")
    return [name for name in rows[0] if name not in RESULTS]


def _varying(rows: Sequence[Mapping[str, Any]], value: str) -> list[str]:
    """The settings that are not the same in all rows."""
    names = _settings(rows)
    _check_column(rows, value)
    return [name for name in names if len(_values(rows, name)) > 1]


def _check_column(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    if not rows:
        raise ValueError("the table is empty: there is nothing to plot")
    if name not in rows[0]:
        raise ValueError(checks.unknown("column", name, rows[0]))


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """The different values of a setting: numbers in order, others as they come."""
    found: list[Any] = []
    for row in rows:
        if not any(_same(row[name], other) for other in found):
            found.append(row[name])
    return sorted(found) if _numeric(found) else found


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def _place(known: Sequence[Any], value: Any) -> int:
    return next(i for i, other in enumerate(known) if _same(value, other))


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


def _one(row: Mapping[str, Any], value: str) -> float:
    """The value of a member; NaN if it diverged or was not measured."""
    number = row[value]
    if row.get("status") == "diverged" or not isinstance(number, (int, float)):
        return math.nan
    return float(number)


def _known(rows: Sequence[Mapping[str, Any]], value: str) -> np.ndarray:
    values = np.array([_one(row, value) for row in rows])
    return values[np.isfinite(values)]


def _mean(rows: Sequence[Mapping[str, Any]], value: str) -> float:
    values = _known(rows, value)
    return float(values.mean()) if len(values) else math.nan


def _logarithmic(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > 10 * min(values)


def _scale(value: str) -> int:
    return 100 if value.endswith("accuracy") else 1


def _value_label(value: str) -> str:
    return _label(value).replace("val ", "validation ") + (" (%)" if _scale(value) > 1 else "")


def _label(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return str(value)


def _number(value: float) -> str:
    return f"{value:.1f}" if 1 <= abs(value) < 1000 else f"{value:.3g}"


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple["Figure", Any]:
    checks.installed("matplotlib", "to draw pictures")
    from matplotlib.figure import Figure

    # Without pyplot: no global state, no window, nothing to close.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes:
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
