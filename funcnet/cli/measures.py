"""What commands say of an Evaluation: a line, a table of the classes, JSON."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

import funcnet as fn
from funcnet.text import aligned, finite

CLASSES = 20  # of so many at most a table is printed


def further_line(result: fn.Evaluation) -> str:
    """What there is to say beside accuracy and loss, in a line."""
    line = f"balanced accuracy {100 * result.balanced_accuracy:.2f} %"
    return line if result.log_loss is None else f"{line}, log loss {result.log_loss:.4f}"


def class_lines(result: fn.Evaluation, y: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """A table of the classes, how many of their examples were found; or where to find that."""
    if len(class_names) > CLASSES:
        return [f"recall of each of the {len(class_names):,} classes: --json"]
    lines = [("class", "recall", "found", "examples")]
    for i, (name, count) in enumerate(zip(class_names, _counts(result, y), strict=True)):
        share = result.recall[i]
        shown = "-" if share is None else f"{100 * share:.2f} %"
        lines.append((name, shown, f"{result.confusion[i][i]:,}", f"{count:,}"))
    return aligned(lines, right=True)


def as_json(result: fn.Evaluation, y: np.ndarray, class_names: Sequence[str], **facts: Any) -> str:
    """All of an Evaluation as one JSON object, after some facts; numbers JSON has none for, null.

    `classes` are records, for two may have one name; `confusion` has a row for each of them, as
    it is, and a column, as it was predicted.
    """
    numbers = {
        k: finite(v) for k, v in result._asdict().items() if k not in ("recall", "confusion")
    }
    classes = [
        {"name": name, "examples": count, "recall": share}
        for name, count, share in zip(class_names, _counts(result, y), result.recall, strict=True)
    ]
    return json.dumps({**facts, **numbers, "classes": classes, "confusion": result.confusion})


def _counts(result: fn.Evaluation, y: np.ndarray) -> list[int]:
    """How many examples each class has, those among them that were taken for none."""
    return np.bincount(y, minlength=len(result.recall)).tolist()
