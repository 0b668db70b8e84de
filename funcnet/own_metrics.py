"""Metrics of one's own that `fit` measures, functions of scores and labels by name."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from funcnet import checks

Metric = Callable[[np.ndarray, np.ndarray], Any]  # metric(scores [N, C], y [N]) -> a number


def check_metrics(metrics: Any, taken: Collection[str]) -> dict[str, Metric]:
    """One's own metrics by name.

    Args:
      metrics: functions by name, or None.
      taken: names of columns that train_NAME and val_NAME must not have.
    Raises:
      TypeError, ValueError: one is no function, or has no name of its own.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict of functions by name, got {metrics!r}")
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise TypeError(f"the names of metrics must be strings, got {name!r}")
        if not name:
            raise ValueError("the name of a metric is empty")
        if any(column in taken for column in columns_of([name])):
            raise ValueError(f"a metric must not be named {name!r}, which fit measures already")
        checks.function(f"metric {name!r}", metric)
    return dict(metrics)


def columns_of(names: Collection[str]) -> tuple[str, ...]:
    """The columns of metrics in a History: what is of the training sample, then of validation."""
    return tuple(f"{split}_{name}" for split in ("train", "val") for name in names)


def call_metric(name: str, metric: Metric, scores: np.ndarray, y: np.ndarray) -> float:
    """What a metric says of [N, C] scores and [N] labels, neither of which it can change.

    Raises:
      TypeError: it gives no number. ValueError: it raises; the error names it and what it raised.
    """
    scores, y = scores.view(), y.view()
    scores.flags.writeable = y.flags.writeable = False
    try:
        value = metric(scores, y)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"metric {name!r} failed: {what}") from error
    number = None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, (bool, np.bool_, str, bytes)) and not np.iscomplexobj(value):
            number = float(value) if np.ndim(value) == 0 else None
    if number is None:
        raise TypeError(f"metric {name!r} must give a number, got {type(value).__name__}")
    return number
