"""Importance: which settings a value went by."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.sweeps.samplers import quiet
from funcnet.sweeps.table import OVER, RESULTS

__all__ = ["importance"]

FEWEST = 8  # members that importances are told from


def importance(result: Any, value: str | None = None) -> dict[str, float]:
    """How much of the spread of a value over a sweep goes by each of its settings.

    By functional ANOVA (Hutter, Hoos and Leyton-Brown 2014, ICML): a forest of random trees learns
    the value from the settings, and of its variance over the whole space each share is that of one
    setting alone, made to add up to 1. What only settings together explain counts for none of
    them. Several seeds are a setting of their own, `seed`: its share is noise, and settings with
    less than it have told nothing. Members that diverged, or were not measured, are left out, with
    a warning that says how many. A search has looked where values are good, so that a setting which
    it has found early matters less in its table than over the space; a grid or random settings
    show that best.

    Args:
      result: the table of a sweep, `result.table()`, `load_table`'s say, or what has a `table()`,
        such as a SweepResult.
      value: the column; None is the first measure, val_accuracy say.
    Returns:
      Shares by the names of the settings that vary, the largest first.
    Raises:
      ImportError: Optuna and scikit-learn are needed, and not installed.
      ValueError: there is no such column, fewer than 8 members have it, or one setting varies.
    Example:
      >>> axes = {"rate": fn.uniform(0, 1), "width": fn.integers(1, 100)}
      >>> rows = fn.random_search(jax.random.key(0), 40, **axes)
      >>> rows = [row | {"val_accuracy": row["rate"], "status": "finished"} for row in rows]
      >>> shares = fn.importance(rows)
      >>> list(shares), shares["rate"] > 0.9
      (['rate', 'width'], True)
    """
    for package in ("optuna", "sklearn"):
        checks.installed(package, "to tell importances", "search")
    rows = result.table() if hasattr(result, "table") else list(result)
    if not rows:
        raise ValueError("the table has no rows")
    value = value or value_of(rows)
    if value not in rows[0]:
        raise ValueError(checks.unknown("column", value, rows[0]))
    known = [row for row in rows if _is_known(row, value)]
    if len(known) < FEWEST:
        raise ValueError(
            f"importances need {FEWEST} members with {value}, and there are {len(known)}: that "
            "little says nothing"
        )
    names = [name for name in rows[0] if name not in RESULTS and name not in _SPREADS]
    names = [name for name in names if name != value and not name.endswith("_std")]
    columns = {name: [row[name] for row in known] for name in names}
    columns = {name: own for name, own in columns.items() if len(set(map(repr, own))) > 1}
    if len(set(columns) - {*OVER}) < 2:
        there = ", ".join(columns) or "none"
        raise ValueError(f"importances compare several settings, and what varies is {there}")
    values = _scaled(value, [row[value] for row in known])
    if not np.ptp(values):
        raise ValueError(f"{value} is {known[0][value]:g} for all members: nothing mattered")
    if len(known) < len(rows):
        left_out = checks.plural(len(rows) - len(known), "member")
        text = f"{left_out} of {len(rows):,} that diverged or have no {value} are left out"
        warnings.warn(text, stacklevel=2)
    return _shares(columns, values)


_SPREADS = ("members", "seeds", "diverged")  # of tables of means


def value_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The column that a table is about: the first measure, of folds that of the last model."""
    measured = [name for name in rows[0] if name.startswith("val_") and name != "val_loss"]
    if "fold" in rows[0]:
        return f"final_{measured[0]}"
    return measured[0]


def _is_known(row: Mapping[str, Any], value: str) -> bool:
    found = row[value]
    finite = isinstance(found, int) or (isinstance(found, float) and np.isfinite(found))
    return finite and row.get("status") not in ("diverged", "unfinished")


def _shares(columns: Mapping[str, Sequence[Any]], values: np.ndarray) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    axes = {name: _axis(name, own) for name, own in columns.items()}
    with quiet():
        study = optuna.create_study(direction="maximize")
        for i, each in enumerate(values.tolist()):
            params = {name: numbers[i] for name, (numbers, _) in axes.items()}
            distributions = {name: distribution for name, (_, distribution) in axes.items()}
            study.add_trial(create_trial(params=params, distributions=distributions, value=each))
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


def _scaled(name: str, values: Sequence[Any]) -> np.ndarray:
    """Numbers by the size of the largest, so that no difference of them is beyond a float."""
    try:
        numbers = np.array([float(value) for value in values])
    except OverflowError:
        raise ValueError(f"{name} has an integer that no float holds") from None
    return numbers / (np.abs(numbers).max() or 1.0)


def _axis(name: str, values: Sequence[Any]) -> tuple[list[Any], Any]:
    """A column as numbers for Optuna, and their distribution.

    Numbers keep their order, and those above 0 over more than a factor of ten have it by their
    logarithm, for which the trees do not care but the space between them does; others are numbered
    in the order in which they come.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(type(value) in (int, float) for value in values):
        numbers = _scaled(name, values)
        if numbers.min() > 0 and numbers.max() > 10 * numbers.min():
            numbers = np.log(numbers)
        return numbers.tolist(), FloatDistribution(float(numbers.min()), float(numbers.max()))
    kinds = list(dict.fromkeys(map(repr, values)))
    return [kinds.index(repr(v)) for v in values], CategoricalDistribution(range(len(kinds)))
