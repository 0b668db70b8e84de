"""The columns of tables of sweeps, as pictures take them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.plots.figures import is_logarithmic, label_of, text_of, write_ticks
from funcnet.sweeps.table import OVER, RESULTS
from funcnet.targets import LESS, MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]
NO_VALUE = "diverged, or not measured"


def settings_of(rows: Rows) -> list[str]:
    """The columns of settings of a table."""
    if not rows:
        raise ValueError("the table is empty: there is nothing to plot")
    return [name for name in rows[0] if name not in RESULTS]


def varying(rows: Rows) -> list[str]:
    """The settings that are not the same in all rows."""
    return [name for name in settings_of(rows) if len(values_of(rows, name)) > 1]


def check_column(rows: Rows, name: str) -> None:
    """Raise unless a table has rows, and this column."""
    if not rows:
        raise ValueError("the table is empty: there is nothing to plot")
    if name not in rows[0]:
        raise ValueError(checks.unknown("column", name, rows[0]))


def values_of(rows: Rows, name: str) -> list[Any]:
    """The different values of a setting: numbers in order, others as they come."""
    found = list({key_of(row[name]): row[name] for row in rows}.values())
    return sorted(found) if is_numeric(found) else found


def key_of(value: Any) -> Any:
    """What two values have in common if they are equal and of one type: True is not 1."""
    try:
        hash(value)
    except TypeError:  # a list
        return type(value), repr(value)
    return type(value), value


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether all are finite numbers."""
    kinds = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return kinds and all(map(math.isfinite, values))


def by_value(rows: Rows, name: str) -> dict[Any, list[Mapping[str, Any]]]:
    """The rows that have each value of a setting, by the `key_of` it."""
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(key_of(row[name]), []).append(row)
    return found


def measured(rows: Rows, name: str) -> np.ndarray:
    """A result of each member, as a number; NaN if it diverged or was not measured."""

    def one(row: Mapping[str, Any]) -> float:
        number = row[name]
        if row.get("status") == "diverged" or not isinstance(number, int | float):
            return math.nan
        return float(number)

    return np.array([one(row) for row in rows])


def known(values: np.ndarray) -> np.ndarray:
    """Those that are finite."""
    return values[np.isfinite(values)]


def is_larger_better(name: str) -> bool:
    """Whether a column is a measure of which more is better: accuracy, r2, F1; all else is less."""
    measure = name.removeprefix("final_").removeprefix("train_").removeprefix("val_")
    return any(measure in names for names in MEASURES.values()) and measure not in LESS


def said_over(rows: Rows, counts: Sequence[int]) -> str:
    """Over how many of what a mean is: 3 seeds, 1 to 3 members."""
    names = [name for name in OVER if name in rows[0] and len(values_of(rows, name)) > 1]
    noun = names[0] if len(names) == 1 else "member"
    low, high = min(counts), max(counts)
    return checks.plural(high, noun) if low == high else f"{low} to {checks.plural(high, noun)}"


def along(axes: "Axes", which: str, rows: Rows, name: str) -> np.ndarray:
    """Where each member is along an axis of a setting: numbers on their scale, others in turn.

    Names the axis, which is logarithmic where numbers span more than a factor of ten.
    """
    found = values_of(rows, name)
    label = label_of(name)
    if is_numeric(found):
        if is_logarithmic(found):
            (axes.set_xscale if which == "x" else axes.set_yscale)("log")
            label += " (log scale)"
        places = np.array([row[name] for row in rows], float)
    else:
        order = {key_of(value): i for i, value in enumerate(found)}
        places = np.array([order[key_of(row[name])] for row in rows], float)
        write_ticks(axes, which, range(len(found)), [text_of(value) for value in found])
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(label, parse_math=False)
    return places
