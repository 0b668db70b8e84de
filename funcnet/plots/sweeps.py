"""Pictures of sweeps: of the table of the members."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.plots.columns import (
    NO_VALUE,
    Rows,
    along,
    by_value,
    check_column,
    is_numeric,
    key_of,
    known,
    measured,
    said_over,
    settings_of,
    values_of,
    varying,
)
from funcnet.plots.figures import (
    NONE,
    STYLES,
    axes_for,
    contrast,
    is_logarithmic,
    label_axes,
    label_of,
    legend_below,
    new_figure,
    number_text,
    say,
    scale_of,
    short,
    style,
    text_of,
    value_label,
    write_legend,
    write_ticks,
    write_title,
)
from funcnet.sweeps.table import OVER, less_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

__all__ = ["plot_heat_map", "plot_lines", "plot_parallel", "plot_scatter", "plot_sweep"]

CELLS = 200  # of a heat map along an axis
NUMBER = {"width": 0.62, "height": 0.45}  # inches of a cell with a number in it
MAP = "viridis"


def plot_sweep(rows: Rows, *, value: str = "val_accuracy", title: str | None = None) -> "Figure":
    """A picture of a sweep that suits its settings.

    Where one setting varies, apart from seed and fold, lines; two, a heat map if they form a grid,
    or nearly, and a scatter if they were drawn at random; more, parallel coordinates. The other
    functions draw one of these by choice.

    Args:
      rows: the table of the sweep, `result.table()`.
      value: the column to show.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    Raises:
      ValueError: the table is empty or has no settings, or there is no such column.
    Example:
      >>> points = [(x, y) for x in (0.1, 0.2) for y in (0.3, 0.4)]
      >>> rows = [{"rate": x, "scale": y, "val_accuracy": x + y} for x, y in points]
      >>> figure = fn.plot_sweep(rows)
      >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
      ('scale', 'rate')
    """
    check_column(rows, value)
    names = [name for name in varying(rows) if name not in OVER]
    if len(names) > 2:
        return plot_parallel(rows, value=value, title=title)
    if len(names) == 2 and _is_grid(rows, *names):
        return plot_heat_map(rows, *names[::-1], value=value, title=title)
    if len(names) == 2:
        figure, (axes,) = new_figure(1, 1, (7, 5))
        plot_scatter(rows, *names, value=value, axes=axes)
        write_title(figure, title)
        return figure
    along_which = [*names, *(name for name in OVER if name in rows[0]), *settings_of(rows)]
    if not along_which:
        raise ValueError(
            "the table has no settings, so that there is nothing to draw along an axis"
        )
    return plot_lines(rows, along_which[0], value=value, title=title)


def _is_grid(rows: Rows, x: str, y: str) -> bool:
    """Whether members are at more than half of the places of the grid of their settings."""
    pairs = {(key_of(row[x]), key_of(row[y])) for row in rows}
    shape = len(values_of(rows, x)), len(values_of(rows, y))
    return max(shape) <= CELLS and 2 * len(pairs) > shape[0] * shape[1]


def plot_scatter(
    rows: Rows, x: str, y: str, *, value: str = "val_accuracy", axes: "Axes | None" = None
) -> "Axes":
    """Members as points at two of their settings, coloured by a value; a ring marks the best.

    For settings drawn at random. Axes of numbers are logarithmic if they span more than a factor
    of ten. The better ones are drawn on top; members without a value, which diverged, are grey
    crosses.

    Alternative text: "Points over learning rate and weight scale, on logarithmic axes, lighter
    where validation accuracy is larger; a ring around the best."

    Args:
      rows: the table of a sweep, `result.table()`.
      x, y: the settings along the axes.
      value: the column to colour by; shares are shown in percent.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: the table is empty, or there is no such column.
    Example:
      >>> points = [(x, y) for x in (0.1, 0.2) for y in (0.3, 0.4)]
      >>> rows = [{"rate": x, "scale": y, "val_accuracy": x + y} for x, y in points]
      >>> axes = fn.plot_scatter(rows, "rate", "scale")
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('rate', 'scale')
    """
    for name in (x, y, value):
        check_column(rows, name)
    axes = axes_for(axes, (7, 5))
    places = np.stack([along(axes, "x", rows, x), along(axes, "y", rows, y)])
    values = measured(rows, value) * scale_of(value)
    merits = -values if less_is_better(value) else values
    order = np.argsort(merits)[: np.isfinite(merits).sum()]  # NaN are last
    nowhere = places[:, ~np.isfinite(values)]
    handles, names = [], []
    if nowhere.size:
        handles.append(axes.scatter(nowhere[0], nowhere[1], marker="x", s=30, color="0.6"))
        names.append(f"{NO_VALUE} ({nowhere.shape[1]:,})")
    if len(order):
        size = float(np.clip(6000 / len(order), 12, 50))
        look: dict[str, Any] = {"cmap": MAP, "edgecolors": "0.2", "linewidths": 0.5}
        at_x, at_y = places[:, order]
        points = axes.scatter(at_x, at_y, c=values[order], s=size, **look)
        axes.figure.colorbar(points, ax=axes).set_label(value_label(value), parse_math=False)
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.5}
        handles.append(axes.scatter(at_x[-1:], at_y[-1:], s=4 * size, **ring))
        names.append(f"best: {number_text(values[order[-1]])}")
    else:
        say(axes, f"no member has a {value_label(value)}")
    write_legend(axes, handles, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2)
    return axes


def plot_heat_map(
    rows: Rows,
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

    Alternative text: "A table of learning rates and weight scales in colours: validation accuracy
    is largest, and lightest, in the middle."

    Args:
      rows: the table of a sweep, `result.table()`.
      x, y: the settings along the axes.
      panels: a setting with a heat map of its own for each value, side by side on one scale.
      value: the column to show; shares are shown in percent.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    Raises:
      ValueError: the table is empty, there is no such column, or a setting has more than 200
        values.
    Example:
      >>> points = [(x, y) for x in (0.1, 0.2) for y in (0.3, 0.4)]
      >>> rows = [{"rate": x, "scale": y, "val_accuracy": x + y} for x, y in points]
      >>> figure = fn.plot_heat_map(rows, "rate", "scale")
      >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
      ('rate', 'scale')
    """
    for name in (x, y, *([panels] if panels else []), value):
        check_column(rows, name)
    xs, ys = values_of(rows, x), values_of(rows, y)
    parts = values_of(rows, panels) if panels else [None]
    for which, count, most in ((x, len(xs), CELLS), (y, len(ys), CELLS), (panels, len(parts), 20)):
        if count > most:
            raise ValueError(
                f"{which} has {count:,} values, too many for a heat map: plot_scatter draws "
                "members as points"
            )
    owns = by_value(rows, panels) if panels else {key_of(None): rows}
    grids = [_grid(owns[key_of(part)], (x, xs), (y, ys), value) for part in parts]
    found = known(np.ravel(grids))
    low, high = (found.min(), found.max()) if len(found) else (0, 1)
    cells = min(NUMBER["width"] * len(xs), 16), min(NUMBER["height"] * len(ys), 12)
    size = 1.5 + max(cells[0], 2.5), 1.2 + max(cells[1], 2)
    figure, axes = new_figure(1, len(parts), (size[0] * len(parts) + 0.8, size[1]))
    image: Any = None
    for each, part, grid in zip(axes, parts, grids, strict=True):
        each.grid(visible=False)
        each.set_facecolor(NONE)
        image = each.imshow(grid, origin="lower", aspect="auto", vmin=low, vmax=high, cmap=MAP)
        write_ticks(each, "x", range(len(xs)), [text_of(v) for v in xs])
        write_ticks(each, "y", range(len(ys)), [text_of(v) for v in ys])
        label_axes(each, label_of(x), label_of(y))
        if panels:
            each.set_title(f"{label_of(panels)}: {short(text_of(part))}", parse_math=False)
        if cells[0] / len(xs) > 0.45 and cells[1] / len(ys) > 0.25:
            _write_numbers(each, image, grid)
        if not np.isfinite(grid).any():
            say(each, NO_VALUE)
    label = value_label(value) + (f"\ngrey: {NO_VALUE}" if np.isnan(grids).any() else "")
    if len(found):
        figure.colorbar(image, ax=list(axes)).set_label(label, parse_math=False)
    write_title(figure, title)
    return figure


def _grid(
    rows: Rows, x: tuple[str, Sequence[Any]], y: tuple[str, Sequence[Any]], value: str
) -> np.ndarray:
    """The mean of a value at each place, [y, x]; NaN where no member has one."""
    cells: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((key_of(row[y[0]]), key_of(row[x[0]])), []).append(row)

    def mean(a: Any, b: Any) -> float:
        values = known(measured(cells.get((key_of(b), key_of(a)), ()), value))
        return values.mean() * scale_of(value) if len(values) else np.nan

    return np.array([[mean(a, b) for a in x[1]] for b in y[1]])


def _write_numbers(axes: "Axes", image: "ScalarMappable", grid: np.ndarray) -> None:
    for (j, i), number in np.ndenumerate(grid):
        if np.isfinite(number):
            color = contrast(image.to_rgba(number))
            text = number_text(number)
            axes.text(i, j, text, ha="center", va="center", color=color, fontsize=8)


def plot_lines(
    rows: Rows,
    x: str,
    *,
    lines: str | None = None,
    value: str = "val_accuracy",
    title: str | None = None,
) -> "Figure":
    """A value over one setting: the mean, and a band of one standard deviation.

    Mean and spread are over the members with the same settings shown, such as those of several
    seeds; members that diverged are left out, and crosses at the bottom are where none is left.
    Values of a setting that are no numbers are points beside each other, with bars for bands.

    Alternative text: "Validation accuracy over learning rate, on a logarithmic axis, with a band
    of one standard deviation over seeds; it is largest in the middle."

    Args:
      rows: the table of a sweep, `result.table()`.
      x: the setting along the axis, logarithmic if it spans more than a factor of ten.
      lines: a setting with a line of its own for each value.
      value: the column to show; shares are shown in percent.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    Raises:
      ValueError: the table is empty, there is no such column, or `lines` has more values than can
        be told apart.
    Example:
      >>> points = [(x, y) for x in (0.1, 0.2) for y in (0.3, 0.4)]
      >>> rows = [{"rate": x, "scale": y, "val_accuracy": x + y} for x, y in points]
      >>> figure = fn.plot_lines(rows, "rate")
      >>> figure.axes[0].get_xlabel()
      'rate'
    """
    for name in (x, value, *([lines] if lines else [])):
        check_column(rows, name)
    xs = values_of(rows, x)
    parts = values_of(rows, lines) if lines else [None]
    if len(parts) > STYLES:
        raise ValueError(
            f"{lines} has {len(parts):,} values, of which {STYLES} lines can be told apart: "
            f"plot_heat_map or plot_scatter draws it as an axis"
        )
    numeric = is_numeric(xs)
    places = np.array(xs, float) if numeric else np.arange(len(xs), dtype=float)
    figure, (axes,) = new_figure(1, 1, (max(7, 0 if numeric else min(0.3 * len(xs), 16)), 4))
    owns = by_value(rows, lines) if lines else {key_of(None): rows}
    handles, names, counts, spread = [], [], [], False
    for i, part in enumerate(parts):
        cells = by_value(owns[key_of(part)], x)
        found = [known(measured(cells.get(key_of(v), ()), value)) * scale_of(value) for v in xs]
        mean = np.array([cell.mean() if len(cell) else np.nan for cell in found])
        std = np.array([cell.std(ddof=1) if len(cell) > 1 else 0.0 for cell in found])
        counts += [len(cell) for cell in found if len(cell)]
        aside = 0 if numeric else min(0.12, 0.6 / len(parts)) * (i - (len(parts) - 1) / 2)
        handles.append(_draw_line(axes, places + aside, mean, std, style(i), joined=numeric))
        names.append(f"{label_of(lines)} {text_of(part)}" if lines else "mean")
        spread |= bool(std.any())
        nowhere = places[np.isnan(mean)] + aside
        if len(nowhere):
            _mark_nowhere(axes, nowhere, style(i)["color"])
    label = label_of(x)
    if not numeric:
        write_ticks(axes, "x", places.tolist(), [text_of(v) for v in xs])
    elif is_logarithmic(xs):
        axes.set_xscale("log")
        label += " (log scale)"
    label_axes(axes, label, value_label(value))
    if not counts:
        axes.set_yticks([])
        say(axes, f"no member has a {value_label(value)}")
    over = said_over(rows, counts) if spread else None
    _write_lines(figure, axes, handles if lines else [], names if lines else [], over)
    write_title(figure, title)
    return figure


def _draw_line(
    axes: "Axes", places: np.ndarray, mean: np.ndarray, std: np.ndarray, look: Any, *, joined: bool
) -> Any:
    """Means with their spread: a line and a band, or points with bars; it is for the legend."""
    look = {**look, "marker": look["marker"] if len(places) <= 60 else None, "ms": 4}
    if joined:
        (line,) = axes.plot(places, mean, **look)
        if std.any():
            band = {"color": look["color"], "alpha": 0.2, "linewidth": 0}
            axes.fill_between(places, mean - std, mean + std, **band)
        return line
    points = {**look, "linestyle": "none", "marker": look["marker"] or "o", "ms": 6}
    return axes.errorbar(places, mean, yerr=std if std.any() else None, capsize=3, **points)


def _mark_nowhere(axes: "Axes", places: np.ndarray, color: str) -> None:
    low = np.full(len(places), 0.03)
    look: dict[str, Any] = {"marker": "x", "ls": "none", "color": color, "clip_on": False}
    look |= {"label": "nowhere"}
    axes.plot(places, low, transform=axes.get_xaxis_transform(), **look)


def _write_lines(
    figure: "Figure", axes: "Axes", handles: list[Any], names: list[str], over: str | None
) -> None:
    """The legend of lines: whose they are, and what bands, bars and crosses are."""
    from matplotlib.patches import Patch

    if over is not None:
        handles.append(Patch(facecolor="0.5", alpha=0.4))
        names.append(f"mean, and one standard deviation over {over}")
    crosses = [line for line in axes.lines if line.get_label() == "nowhere"]
    if crosses:
        handles.append(crosses[0])
        names.append(NO_VALUE)
    legend_below(figure, handles, names)


def plot_parallel(rows: Rows, *, value: str = "val_accuracy", title: str | None = None) -> "Figure":
    """Members as lines across an axis for each setting that varies, coloured by a value.

    The better ones are drawn on top. Members that diverged are grey, and end before the value. Axes
    are logarithmic if they span more than a factor of ten.

    Alternative text: "Lines across upright axes of learning rate, width and activation, and of
    validation accuracy; the lightest ones, which are best, meet at small learning rates."

    Args:
      rows: the table of a sweep, `result.table()`.
      value: the column to colour by, and on the last axis; shares are shown in percent.
      title: a line above the picture.
    Returns:
      A matplotlib Figure.
    Raises:
      ValueError: the table is empty, or there is no such column.
    Example:
      >>> points = [(x, y) for x in (0.1, 0.2) for y in (0.3, 0.4)]
      >>> rows = [{"rate": x, "scale": y, "val_accuracy": x + y} for x, y in points]
      >>> figure = fn.plot_parallel(rows)
      >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
      ['rate', 'scale', 'validation accuracy (%)']
    """
    check_column(rows, value)
    names = varying(rows) or settings_of(rows)
    figure, (axes,) = new_figure(1, 1, (1.6 * (len(names) + 2), 4.5))
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = measured(rows, value) * scale_of(value)
    found = known(values)
    low, high = (found.min(), found.max()) if len(found) else (0, 1)
    colors = ScalarMappable(Normalize(low, high if high > low else low + 1), MAP)
    columns = [_heights(axes, place, rows, name) for place, name in enumerate(names)]
    columns.append(np.asarray(colors.norm(np.nan_to_num(values, nan=low))))
    merits = -values if less_is_better(value) else values
    alpha = float(np.clip(100 / len(rows), 0.3, 0.8))
    for i in np.argsort(np.nan_to_num(merits, nan=-np.inf), kind="stable"):
        is_known = np.isfinite(values[i])
        heights = [column[i] for column in columns[: None if is_known else -1]]
        color = colors.to_rgba(values[i]) if is_known else "0.8"
        axes.plot(heights, color=color, alpha=alpha, linewidth=1.2)
    _name_parallel(axes, [*map(label_of, names), value_label(value)])
    if len(found):
        figure.colorbar(colors, ax=axes).set_label(value_label(value), parse_math=False)
    nowhere = len(values) - len(found)
    if nowhere:
        from matplotlib.lines import Line2D

        legend_below(figure, [Line2D([], [], color="0.8")], [f"{NO_VALUE} ({nowhere:,})"])
    write_title(figure, title)
    return figure


def _name_parallel(axes: "Axes", labels: Sequence[str]) -> None:
    axes.grid(visible=False)
    for place in range(len(labels)):
        axes.axvline(place, color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(labels)), [short(label) for label in labels], parse_math=False)
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _heights(axes: "Axes", place: int, rows: Rows, name: str) -> np.ndarray:
    """Where each member is on the axis of a setting, from 0 to 1; writes some of its values."""
    found = values_of(rows, name)
    if is_numeric(found) and len(found) > 1:
        change = np.log if is_logarithmic(found) else np.asarray
        first, last = (float(change(v)) for v in (found[0], found[-1]))
        where = [(float(change(v)) - first) / (last - first) for v in found]
    else:
        where = [i / max(len(found) - 1, 1) for i in range(len(found))]
    height = dict(zip(map(key_of, found), where, strict=True))
    for v in found if len(found) <= 6 else (found[0], found[-1]):
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        look: dict[str, Any] = {"fontsize": 8, "bbox": box, "zorder": 9, "parse_math": False}
        text = short(text_of(v))
        axes.text(place, height[key_of(v)], text, ha="center", va="center", color="black", **look)
    return np.array([height[key_of(row[name])] for row in rows])
