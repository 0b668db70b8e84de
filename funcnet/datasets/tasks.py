"""What is to be predicted: found from the targets where it is plain, and said where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import (
    FEW,
    MAX_CLASSES,
    as_classes,
    joint_classes,
    number,
    places_among,
)
from funcnet.datasets.dataset import TASKS
from funcnet.datasets.notes import naming_file, note
from funcnet.datasets.table import Column, Table, check_numbers

MANY_GAPLESS = 3  # so many examples of each value, and no gap between them, make numbers classes


class ReadTargets(NamedTuple):
    """Targets of several splits, as a Dataset has them.

    Attributes:
      task: one of TASKS.
      y: those of each split.
      class_names, target_names: as in a Dataset.
    """

    task: str
    y: list[np.ndarray]
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()


def check_task(task: str | None) -> None:
    """Raise a ValueError unless a task is one of TASKS, or None."""
    if task is not None:
        checks.choose("task", task, dict.fromkeys(TASKS))


def as_targets(labels: Mapping[str, np.ndarray], task: str | None, source: object) -> ReadTargets:
    """Targets of what arrays hold, all splits in one form.

    Args:
      labels: for each name, for errors, the targets of a split, none missing.
      task: the task; None finds it, and says what was not plain.
      source: the file, for what is said.
    Raises:
      ValueError: they are of no task, or not of the one that is given.
    """
    flat = {name: y[:, 0] if y.shape[1:] == (1,) else y for name, y in labels.items()}
    first = next(iter(flat))
    if task is None:
        joined = list(flat.values())
        alike = len({y.shape[1:] for y in joined}) == 1
        task, said = find_task(np.concatenate(joined) if alike else joined[0])
        if said:
            note(f"{source}: {first} {said}")
    if task == "classification":
        y, class_names = joint_classes(labels)
        return ReadTargets(task, y, class_names)
    shape = flat[first].shape[1:]
    width = shape[0] if shape else 1
    if task == "multilabel" and not shape:
        raise ValueError(f"{first} is one target: several labels are [N, K], 0 or 1 each")
    ys = [
        checks.targets(
            _as_numbers(y, name),
            num_examples=len(y),
            width=shape,
            binary=task == "multilabel",
            name=name,
        )
        for name, y in flat.items()
    ]
    if task == "multilabel":
        return ReadTargets(task, ys, class_names=tuple(map(str, range(width))))
    return ReadTargets(task, ys)


def find_task(labels: np.ndarray) -> tuple[str, str | None]:
    """The task of targets [N] or [N, K], and what there is to say of the guess; None is nothing.

    Words, bools, few whole numbers and those that count from 0 or 1 without a gap, many examples
    each, are classes, and so are one-hot rows; other numbers are regression, columns of 0 and 1
    several labels.
    """
    if labels.ndim == 2:
        return _task_of_columns(labels)
    values = _numbers(labels)
    if values is None or labels.dtype.kind == "b":
        return "classification", None
    return task_of_numbers(np.unique(values), len(values))


def task_of_values(
    different: np.ndarray | None, examples: int, dtype: np.dtype
) -> tuple[str, str | None]:
    """`find_task` of targets [N] of which the values that occur are known.

    Args:
      different: the values; None if they are more than classes may be.
      examples: N.
      dtype: that of the targets.
    """
    if dtype.kind == "b":
        return "classification", None
    values = None if different is None else _numbers(different)
    if different is None and dtype.kind in "iuf":
        return "regression", _said(MAX_CLASSES, examples, "regression", more=True)
    if values is None:
        return "classification", None
    return task_of_numbers(np.unique(values), examples)


def task_of_numbers(
    different: np.ndarray, examples: int, *, more: bool = False
) -> tuple[str, str | None]:
    """`find_task` of the different numbers among the targets [N] of so many examples.

    Args:
      different: the numbers, sorted.
      examples: N.
      more: whether there are more than these, which are more than `MAX_CLASSES`.
    """
    count, whole = len(different), bool((different == np.floor(different)).all())
    often = examples >= MANY_GAPLESS * count
    gapless = count > 0 and different[0] in (0, 1) and different[-1] - different[0] == count - 1
    if not whole and (count > FEW or not often):
        return "regression", _said(count, examples, "regression", more=more)
    if whole and count > FEW and not (gapless and often and count <= MAX_CLASSES):
        return "regression", _said(count, examples, "regression", more=more)
    plain = whole and (gapless or count <= 2)
    return "classification", None if plain else _said(count, examples, "classification")


def _said(count: int, examples: int, task: str, *, more: bool = False) -> str:
    what = {
        "regression": "regression; --task classification (task=) makes classes of them",
        "classification": "classes; --task regression (task=) takes them for numbers",
    }
    several = f"{'more than ' if more else ''}{count:,} values" if count > 1 else "one value"
    return f"is a number of {several} in {examples:,} examples: {what[task]}"


def _task_of_columns(labels: np.ndarray) -> tuple[str, str | None]:
    if labels.dtype.kind not in "biuf":
        return "classification", None  # which says what is wrong with it
    binary = bool(np.isin(labels, (0, 1)).all())
    one_hot = binary and bool((labels.sum(axis=1) == 1).all())
    return task_of_columns(labels.shape[1], binary=binary, one_hot=one_hot)


def task_of_columns(width: int, *, binary: bool, one_hot: bool) -> tuple[str, str | None]:
    """`find_task` of so many columns: of 0 and 1 alone, or with one 1 in each row."""
    if one_hot and width > 1:
        return "classification", None
    if binary:
        return "multilabel", (
            f"has {width} columns of 0 and 1: several labels each; --task regression (task=) takes "
            "them for numbers"
        )
    return "regression", f"has {width} columns of numbers: regression of {width} targets"


def _numbers(labels: np.ndarray) -> np.ndarray | None:
    """Labels as numbers, words too if all are; else None."""
    if labels.dtype.kind in "biuf":
        return labels.astype(np.float64)
    if labels.dtype.kind not in "USOT":
        return None
    found = [number(_text(label)) for label in labels.tolist()]
    return None if None in found else np.array(found, np.float64)


def _as_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.dtype.kind in "biuf":
        return labels
    found = _numbers(labels) if labels.ndim == 1 else None
    if found is None:
        raise ValueError(f"{name} holds words, which are classes and no numbers")
    return found


def _text(label: Any) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def targets_of(
    table: Table, labels: Sequence[str], task: str | None, known: Sequence[str] | None
) -> tuple[ReadTargets, np.ndarray]:
    """The targets of a table, of one split, and the rows that have them.

    Args:
      table: the table.
      labels: the columns of what is predicted.
      task: the task; None finds it, and says what was not plain.
      known: the classes, if they are known; else None or ().
    Raises:
      ValueError: they are of no task, or not of the one that is given; the column is named.
    """
    columns = [table.column(label) for label in labels]
    for column in columns:
        if column.words is None:
            check_numbers(table, column)
    missing = np.any([column.missing for column in columns], axis=0)
    if missing.all():
        raise ValueError(f"{table.source}: no example has a label")
    if missing.any():
        count = checks.plural(int(missing.sum()), "example")
        note(f"{table.source}: {count} without a label left out")
    rows = np.flatnonzero(~missing)
    if task is None:
        task = _task_of_table(table, columns, rows, known)
    if task == "classification" and len(columns) > 1:
        raise ValueError(
            f"{table.source}: classification has one label column, got {', '.join(labels)}; "
            "several are regression or multilabel, with 0 and 1"
        )
    if task == "classification":
        return _of_classes(table, columns[0], rows, known), rows
    for column in columns:
        if column.words is not None:
            example = column.words[column.values[rows[0]]]
            raise ValueError(
                f"{table.source}: column {column.name!r} holds words, such as {example!r}, and "
                f"{task} wants numbers"
            )
    values = np.stack([column.values[rows] for column in columns], axis=1)
    if task == "multilabel":
        for column, own in zip(columns, values.T, strict=True):
            if len(bad := np.flatnonzero(~np.isin(own, (0, 1)))):
                raise ValueError(
                    f"{table.place(int(rows[bad[0]]), column.name)}: multilabel wants 0 or 1, got "
                    f"{own[bad[0]]:g}"
                )
        return ReadTargets(task, [values.astype(np.int32)], class_names=tuple(labels)), rows
    y = values[:, 0] if len(labels) == 1 else values
    return ReadTargets(task, [y], target_names=tuple(labels)), rows


def _task_of_table(
    table: Table, columns: Sequence[Column], rows: np.ndarray, known: Sequence[str] | None
) -> str:
    if known or (len(columns) == 1 and (columns[0].words or table.class_names)):
        return "classification"
    values = [column.values[rows] for column in columns if column.words is None]
    if len(values) < len(columns):
        return "classification"  # of several columns, which is refused
    task, said = find_task(values[0] if len(columns) == 1 else np.stack(values, axis=1))
    if len(columns) > 1 and task == "classification":  # one-hot, but said to be several
        task, said = "multilabel", None
    if said:
        what = f"label {columns[0].name!r}" if len(columns) == 1 else "the label"
        note(f"{table.source}: {what} {said}")
    return task


def _of_classes(
    table: Table, column: Column, rows: np.ndarray, known: Sequence[str] | None
) -> ReadTargets:
    called = f"column {column.name!r}"
    if known:
        texts = column.texts()
        with naming_file(table.source):
            places = places_among(texts.words or (), known, name=called)
        return ReadTargets("classification", [places[texts.values[rows]]], tuple(known))
    with naming_file(table.source):
        if column.words is None:
            y, names = as_classes(column.values[rows], name=called)
        else:
            every = np.array(column.words, object)
            of_words, names = as_classes(every, name=called, examples=len(rows))
            y = of_words[column.values[rows]]
    if names == tuple(map(str, range(len(table.class_names)))):
        names = table.class_names
    return ReadTargets("classification", [y], names)
