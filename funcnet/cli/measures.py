"""What commands say of an evaluation: a line, a table of the classes or labels, JSON."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

import funcnet as fn
from funcnet.datasets.disk import counts_of
from funcnet.text import LABELS, aligned, finite, shown

CLASSES = 20  # of so many at most a table is printed


Result = fn.Evaluation | fn.RegressionEvaluation | fn.MultilabelEvaluation


def first_measure(result: Result) -> tuple[str, str]:
    """What counts first of an evaluation, and how much it is."""
    name = "rmse" if isinstance(result, fn.RegressionEvaluation) else "accuracy"
    return LABELS[name], shown(name, getattr(result, name))


def further_line(result: Result) -> str:
    """What there is to say beside the first measure and the loss, in a line."""
    if isinstance(result, fn.Evaluation):
        line = f"balanced accuracy {100 * result.balanced_accuracy:.2f} %"
        return line if result.log_loss is None else f"{line}, log loss {result.log_loss:.4f}"
    regression = isinstance(result, fn.RegressionEvaluation)
    names = ("mae", "r2") if regression else ("micro_f1", "macro_f1")
    said = [f"{LABELS[name]} {shown(name, getattr(result, name))}" for name in names]
    return ", ".join(said if regression else ["all labels of an example must be right", *said])


def class_lines(result: Result, y: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """A table of the classes, how many of their examples were found; or where to find that.

    Of several labels it has the F1 of each, of regression there is none.
    """
    if isinstance(result, fn.RegressionEvaluation):
        return []
    if isinstance(result, fn.MultilabelEvaluation):
        counts = y.sum(axis=0).tolist()
        rows = zip(class_names, result.f1, counts, strict=True)
        of_labels = [("label", "F1", "examples")]
        of_labels += [(name, f"{f1:.4f}", f"{count:,}") for name, f1, count in rows]
        return aligned(of_labels, right=True) if len(class_names) <= CLASSES else []
    if len(class_names) > CLASSES:
        return [f"recall of each of the {len(class_names):,} classes: --json"]
    lines = [("class", "recall", "found", "examples")]
    for i, (name, count) in enumerate(zip(class_names, _counts(result, y), strict=True)):
        share = result.recall[i]
        shown = "-" if share is None else f"{100 * share:.2f} %"
        lines.append((name, shown, f"{result.confusion[i][i]:,}", f"{count:,}"))
    return aligned(lines, right=True)


def as_json(result: Result, y: np.ndarray, class_names: Sequence[str], **facts: Any) -> str:
    """All of an evaluation as one JSON object, after some facts; numbers JSON has none for, null.

    `classes` are records, for two may have one name; `confusion` has a row for each of them, as
    it is, and a column, as it was predicted. Of several labels `labels` are such records.
    """
    if not isinstance(result, fn.Evaluation):
        plain = {k: finite(v) for k, v in result._asdict().items() if k != "f1"}
        if isinstance(result, fn.MultilabelEvaluation):
            rows = zip(class_names, y.sum(axis=0).tolist(), result.f1, strict=True)
            plain["labels"] = [{"name": n, "examples": c, "f1": f1} for n, c, f1 in rows]
        return json.dumps({**facts, **plain})
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
    return counts_of(y, len(result.recall)).tolist()
