"""What pictures share: figures, axes, colours, and how texts of people are written in them.

Colours are those of Okabe and Ito (2008, Color Universal Design), which colour-blind people tell
apart, and viridis and cividis, which grow lighter throughout and so keep their order in grey; lines
differ in dashes and markers, too. Texts stand as they are: dollars in them make no formula.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*<"
STYLES = len(COLORS) * len(DASHES)  # so many lines can be told apart
NONE = "0.85"  # the grey of what has no value
NAME = 30  # letters of a name at a tick
LEGEND = 40  # letters of a line in a legend
PERCENT = " (%)"


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple["Figure", Any]:
    """A figure of rows x columns panels, without pyplot, and its Axes.

    Its background is that of matplotlib's style, an opaque white where none was chosen.
    """
    checks.installed("matplotlib", "to draw pictures")
    from matplotlib.figure import Figure

    # Without pyplot: no global state, no window, nothing to close.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes:
        each.grid(linestyle="--", linewidth=0.5)
        each.set_axisbelow(True)
    return figure, axes


def axes_for(axes: "Axes | None", size: tuple[float, float]) -> "Axes":
    """The Axes to draw in: those given, or the one panel of a new figure of this size, in inches.

    Raises:
      TypeError: axes are given that are none.
    """
    if axes is None:
        return new_figure(1, 1, size)[1][0]
    checks.installed("matplotlib", "to draw pictures")
    from matplotlib.axes import Axes

    if not isinstance(axes, Axes):
        raise TypeError(
            "axes must be one Axes of matplotlib, as figure.subplots() gives, or None for a new "
            f"figure, got {checks.cut(axes)}"
        )
    return axes


def style(place: int) -> dict[str, Any]:
    """Colour, dashes and marker of a line, the same as of no other of the first `STYLES`."""
    return {
        "color": COLORS[place % len(COLORS)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def depth_style(place: int, count: int) -> dict[str, Any]:
    """The same of a line among `count` that have an order: from dark to light."""
    import matplotlib

    color = matplotlib.colormaps["viridis"](0.85 * place / max(count - 1, 1))
    return {**style(place), "color": color}


def write_title(figure: "Figure", title: str | None) -> None:
    """Above the picture, as it is: the name of a file, with dollars in it, is no formula."""
    width = max(20, int(10 * figure.get_figwidth()))  # letters of 12 points in a line
    figure.suptitle("\n".join(lines_of(visible(title or ""), width)), parse_math=False)


def lines_of(text: str, width: int) -> list[str]:
    """Text in lines of so many letters, broken within words where it must be."""
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=True)


def short(name: Any, width: int = NAME) -> str:
    """A name as a tick or a legend shows it: of a very long one its beginning and its end."""
    text = visible(str(name))
    half = width // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half + 1 :]}"


def label_axes(axes: "Axes", x: str | None = None, y: str | None = None) -> None:
    """Name the axes of a panel, in lines that fit; None leaves one as it is."""
    width, height = inches_of(axes)
    for text, write, room in ((x, axes.set_xlabel, width), (y, axes.set_ylabel, height)):
        if text is not None:
            letters = int(np.clip(13 * room, 20, 60))
            write("\n".join(lines_of(visible(text), letters)), parse_math=False)


def inches_of(axes: "Axes") -> tuple[float, float]:
    """About how wide and how high a panel is, before it makes room for what is around it."""
    figure: Any = axes.figure
    box, (width, height) = axes.get_position(), figure.get_size_inches()
    return box.width * width, box.height * height


def write_ticks(
    axes: "Axes", which: str, places: Sequence[float], names: Sequence[Any], **options: Any
) -> None:
    """Names at ticks of the x or the y axis, upright where they are many or long."""
    texts = [short(name) for name in names]
    inches = axes.get_window_extent().width / axes.figure.dpi
    crowded = sum(map(len, texts)) + 2 * len(texts) > 11 * inches
    if which == "x" and crowded:
        options = {"rotation": 90 if len(texts) > 30 else 45, "ha": "right", **options}
        if options["rotation"] == 90:
            options["ha"] = "center"
        else:
            options["rotation_mode"] = "anchor"
    if len(texts) > 30:
        options = {"fontsize": max(5, 10 - len(texts) // 20), **options}
    (axes.set_xticks if which == "x" else axes.set_yticks)(
        places, texts, parse_math=False, **options
    )


def write_legend(
    whose: "Axes | Figure", handles: Sequence[Any], names: Sequence[str], **options: Any
) -> "Legend | None":
    """A legend of these handles by these names, as they are; none if there are none."""
    if not handles:
        return None
    options = {"framealpha": 0.9, **options}
    # A label that begins with "_" would be left out, so the names are written afterwards.
    legend = whose.legend(handles, ["."] * len(handles), **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text="\n".join(lines_of(short(name, 160), LEGEND)), parse_math=False)
    return legend


def legend_below(figure: "Figure", handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend below all panels, in as many columns as fit; the figure grows by it."""
    width = 0.6 + 0.085 * min(LEGEND, max((len(visible(name)) for name in names), default=0))
    columns = max(1, min(int(figure.get_figwidth() / width), len(names), 5))
    figure.set_figheight(figure.get_figheight() + 0.25 * math.ceil(len(names) / columns))
    write_legend(figure, handles, names, loc="outside lower center", ncol=columns)


def named(axes: "Axes", **options: Any) -> "Legend | None":
    """The legend of what has a label in these axes."""
    handles, names = axes.get_legend_handles_labels()
    return write_legend(axes, handles, names, **options)


def whole_ticks(axis: Any) -> None:
    """Ticks at whole numbers alone."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def say(axes: "Axes", text: str) -> None:
    """In the middle of a panel, what there would be to see."""
    box = {"facecolor": "white", "edgecolor": "0.7", "pad": 4}
    options: dict[str, Any] = {"color": "black", "bbox": box, "zorder": 9, "parse_math": False}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", **options)


def contrast(color: Any) -> str:
    """Black or white, whichever is read better on a colour (r, g, b, ...) from 0 to 1."""
    red, green, blue = color[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def span_of(values: np.ndarray, lower: float, upper: float) -> tuple[float, float]:
    """The least and the largest number, but for few that would squeeze all others in a corner.

    What is beyond the quantiles `lower` and `upper` is left out where the axis would be more than
    twice as long with it. Of no numbers it is 0 and 0.
    """
    if not len(values):
        return 0.0, 0.0
    low, high = float(values.min()), float(values.max())
    some_low, some_high = (float(q) for q in np.quantile(values, (lower, upper)))
    room = some_high - some_low
    if room > 0 and high - some_high > room:
        high = some_high + 0.1 * room
    if room > 0 and some_low - low > room:
        low = some_low - 0.1 * room
    return low, high


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether positive numbers span more than a factor of ten."""
    return min(values) > 0 and max(values) > 10 * min(values)


def scale_of(value: str) -> int:
    """By what a column is multiplied to be shown: shares are shown in percent."""
    return 100 if value.endswith("accuracy") else 1


def value_label(value: str) -> str:
    """What stands at the axis of a measure."""
    return label_of(value).replace("val ", "validation ") + (PERCENT if scale_of(value) > 1 else "")


def label_of(name: str) -> str:
    """The name of a column, as people read it."""
    return visible(name).replace("_", " ")


def text_of(value: Any) -> str:
    """The value of a setting."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple):
        return ", ".join(map(text_of, value))
    return visible(str(value))


def number_text(value: float) -> str:
    """A measured number, short."""
    if not math.isfinite(value):
        return str(value)
    if 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.1f}" if 10 <= abs(value) < 1000 else f"{value:.3g}"
