"""What pictures share: figures, titles, and how values and the names of columns are written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from funcnet import checks
from funcnet.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple["Figure", Any]:
    """A figure of rows x columns panels, without pyplot, and its Axes."""
    checks.installed("matplotlib", "to draw pictures")
    from matplotlib.figure import Figure

    # Without pyplot: no global state, no window, nothing to close.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes:
        each.grid(linestyle="--", linewidth=0.5)
    return figure, axes


def write_title(figure: "Figure", title: str | None) -> None:
    """Above the picture, as it is: the name of a file, with dollars in it, is no formula."""
    figure.suptitle(visible(title or ""), parse_math=False)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether positive numbers span more than a factor of ten."""
    return min(values) > 0 and max(values) > 10 * min(values)


def scale_of(value: str) -> int:
    """By what a column is multiplied to be shown: shares are shown in percent."""
    return 100 if value.endswith("accuracy") else 1


def value_label(value: str) -> str:
    """What stands at the axis of a measure."""
    return label_of(value).replace("val ", "validation ") + (" (%)" if scale_of(value) > 1 else "")


def label_of(name: str) -> str:
    """The name of a column, as people read it."""
    return name.replace("_", " ")


def text_of(value: Any) -> str:
    """The value of a setting."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple):
        return ", ".join(map(text_of, value))
    return str(value)


def number_text(value: float) -> str:
    """A measured number, short."""
    return f"{value:.1f}" if 1 <= abs(value) < 1000 else f"{value:.3g}"
