"""Pictures of sweeps: of the table of the members."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.plots.figures import (
    is_logarithmic,
    label_of,
    new_figure,
    number_text,
    scale_of,
    text_of,
    value_label,
    write_title,
)
from funcnet.sweeps.table import RESULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_heat_map", "plot_lines", "plot_parallel", "plot_sweep"]


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
    scale = scale_of(value)
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
    figure, axes = new_figure(1, len(parts), (size[0] * len(parts) + 0.8, size[1]))
    image: Any = None
    for each, part, grid in zip(axes, parts, grids, strict=True):
        each.grid(visible=False)
        each.set_facecolor("0.85")
        image = each.imshow(grid, origin="lower", aspect="auto", vmin=low, vmax=high)
        each.set_xticks(range(len(xs)), [text_of(v) for v in xs], rotation=45, ha="right")
        each.set_yticks(range(len(ys)), [text_of(v) for v in ys])
        each.set(xlabel=label_of(x), ylabel=label_of(y))
        if panels:
            each.set_title(f"{label_of(panels)}: {text_of(part)}")
        for (j, i), number in np.ndenumerate(grid):
            if np.isfinite(number):
                dark = number < (low + high) / 2
                text, color = number_text(number), "white" if dark else "black"
                each.text(i, j, text, ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, ax=list(axes), label=value_label(value))
    write_title(figure, title)
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
    figure, (axes,) = new_figure(1, 1, (7, 4))
    for part in _values(rows, lines) if lines else [None]:
        own = [row for row in rows if lines is None or _same(row[lines], part)]
        cells = [_known([r for r in own if _same(r[x], a)], value) * scale_of(value) for a in xs]
        mean = np.array([cell.mean() if len(cell) else np.nan for cell in cells])
        std = np.array([cell.std(ddof=1) if len(cell) > 1 else 0.0 for cell in cells])
        label = None if lines is None else f"{label_of(lines)} {text_of(part)}"
        (line,) = axes.plot(places, mean, marker="o", ms=4, label=label)
        if std.any():
            axes.fill_between(places, mean - std, mean + std, color=line.get_color(), alpha=0.2)
    if not numeric:
        axes.set_xticks(places, [text_of(v) for v in xs])
    elif is_logarithmic(xs):
        axes.set_xscale("log")
    axes.set(xlabel=label_of(x), ylabel=value_label(value))
    if lines:
        axes.legend(loc="best")
    write_title(figure, title)
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
    figure, (axes,) = new_figure(1, 1, (1.6 * (len(names) + 2), 4.5))
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = np.array([_one(row, value) for row in rows]) * scale_of(value)
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
    labels = [label_of(name) for name in names]
    axes.set_xticks(range(len(columns)), [*labels, value_label(value)])
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(ScalarMappable(norm, colors), ax=axes, label=value_label(value))
    write_title(figure, title)
    return figure


def _heights(axes: Any, place: int, rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Where each member is on the axis of a setting, from 0 to 1; writes some of its values."""
    known = _values(rows, name)
    if _numeric(known) and len(known) > 1:
        change = np.log if is_logarithmic(known) else np.asarray
        first, last = (float(change(v)) for v in (known[0], known[-1]))
        heights = np.array([(float(change(row[name])) - first) / (last - first) for row in rows])
    else:
        heights = np.array([_place(known, row[name]) / max(len(known) - 1, 1) for row in rows])
    shown = known if len(known) <= 6 else [known[0], known[-1]]
    for v in shown:
        height = heights[next(i for i, row in enumerate(rows) if _same(row[name], v))]
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        axes.text(
            place, height, text_of(v), ha="center", va="center", fontsize=8, bbox=box, zorder=9
        )
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
