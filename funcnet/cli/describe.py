"""What commands say of data: of a table each column, and what becomes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import funcnet as fn
from funcnet import checks, windows
from funcnet.datasets import load_dataset
from funcnet.datasets.dataset import on_disk
from funcnet.datasets.delimited import Format
from funcnet.datasets.disk import counts_of, in_parts
from funcnet.datasets.encoding import Encoding, Feature, kinds_line
from funcnet.datasets.limits import shown as in_units
from funcnet.datasets.registry import is_table_file
from funcnet.datasets.table import Column, Table
from funcnet.datasets.tables import ENDS, labels_of, load_table, names_of, read_table
from funcnet.targets import moments
from funcnet.text import aligned

CLASSES = 20  # of so many at most the counts are shown


def summary(dataset: fn.Dataset) -> list[str]:
    """What there is to say of data before they are trained on: of a table, and what is on disk."""
    encoding, x = dataset.encoding, dataset.x_train
    lines = []
    if encoding is not None:
        rows = sum(len(y) for y in _labels(dataset))
        what = f"{checks.plural(rows, 'example')}, {kinds_line(encoding)}"
        lines.append(f"{what}; {_what(dataset)}")
    if on_disk(dataset):
        size = in_units(x.nbytes)
        lines.append(
            f"{size} of examples stay on disk, and are read {in_units(windows.WINDOW)} at a time"
        )
    return lines


def _what(dataset: fn.Dataset) -> str:
    """What is predicted, in words."""
    labels = dataset.encoding.labels if dataset.encoding else dataset.target_names
    named = f"label{'s' if len(labels) > 1 else ''} {', '.join(map(repr, labels[:5]))}"
    named += f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    if dataset.task == "classification":
        return f"{named}, {len(dataset.class_names):,} classes"
    return f"{named}, {dataset.task}"


def shown(name: str, data_dir: str | None, options: Mapping[str, Any]) -> list[str]:
    """What is in a dataset or a file, in lines.

    Args:
      name: a name in the registry, or the path of a file.
      data_dir: where the dataset is.
      options: those of `load_arrays`.
    """
    if not is_table_file(name):
        dataset = load_dataset(name, data_dir=data_dir, **options)
        return [*_arrays(name, dataset), *_classes(dataset)]
    given = dict(options)
    form = Format(*(given.pop(field, None) for field in Format._fields))
    targets = names_of("label", given.pop("label", None))
    words = given.get("categorical", ())
    named = targets[0] if targets and targets[0] not in ENDS else None
    table = read_table(name, form, words=words, label=named)
    size = f"{checks.plural(table.num_rows, 'row')}, {checks.plural(len(table.columns), 'column')}"
    lines = [f"{table.source}: {size}"]
    try:
        labels = labels_of(table, targets)
    except ValueError as error:  # all else can be shown
        return [*lines, *_columns(table, None, ()), str(error)]
    dataset = load_table(table, labels, **given)
    assert dataset.encoding is not None
    lines += _columns(table, dataset.encoding, labels)
    return [*lines, *_classes(dataset)]


def _arrays(name: str, dataset: fn.Dataset) -> list[str]:
    x = dataset.x_train
    rows = sum(len(y) for y in _labels(dataset))
    return [f"{name}: {checks.plural(rows, 'example')} of {list(x.shape[1:])} {x.dtype}"]


def _labels(dataset: fn.Dataset) -> tuple[np.ndarray, ...]:
    return dataset.y_train, dataset.y_val, dataset.y_test


def _classes(dataset: fn.Dataset) -> list[str]:
    """How many examples each split has of the classes or labels; of numbers, how they spread."""
    names, splits = dataset.class_names, _labels(dataset)
    if dataset.task == "regression":
        return _spread(dataset)
    if len(names) > CLASSES:
        lengths = ", ".join(f"{len(y):,}" for y in splits)
        return [f"{len(names):,} classes; train, val and test: {lengths}"]
    several = dataset.task == "multilabel"
    counts: list[Any] = [
        sum(part.sum(axis=0) for (part,) in in_parts(y)) if several else counts_of(y, len(names))
        for y in splits
    ]
    lines: list[tuple[str, ...]] = [("label" if several else "class", "train", "val", "test")]
    lines += [(name, *(f"{c[i]:,}" for c in counts)) for i, name in enumerate(names)]
    lines.append(("all", *(f"{len(y):,}" for y in splits)))
    return ["", *aligned(lines)]


def _spread(dataset: fn.Dataset) -> list[str]:
    """Of each target of regression how many there are, and of training mean and spread."""
    y = dataset.y_train
    mean, squares, count = moments(y, None)
    names = dataset.target_names or tuple(f"y{k + 1}" for k in range(len(mean)))
    ranges = [(part.min(axis=0), part.max(axis=0)) for (part,) in in_parts(y)]
    low, high = (np.reshape(each, (len(ranges), -1)) for each in zip(*ranges, strict=True))
    lines: list[tuple[str, ...]] = [("target", "mean", "std", "least", "most")]
    spread = np.sqrt(squares / count)
    every = names, mean, spread, low.min(axis=0), high.max(axis=0)
    for name, *values in zip(*every, strict=True):
        lines.append((name, *(f"{value:.6g}" for value in values)))
    lengths = ", ".join(f"{len(y):,}" for y in _labels(dataset))
    return ["", *aligned(lines), f"train, val and test: {lengths}"]


def _columns(table: Table, encoding: Encoding | None, labels: Sequence[str]) -> list[str]:
    """A line for each column: what it holds, and what becomes of it."""
    features = {} if encoding is None else {f.name: f for f in encoding.features}
    reasons = {} if encoding is None else dict(encoding.left_out)
    lines = [("column", "holds", "missing", "becomes")]
    for column in table.columns:
        name = column.name
        if name in labels:
            fate = "the label"
        elif name in reasons:
            fate = f"left out: {reasons[name]}"
        else:
            fate = _fate(features[name]) if name in features else ""
        missing = int(column.missing.sum())
        lines.append((name, _holds(column), f"{missing:,}" if missing else "", fate))
    return ["", *aligned(lines), ""]


def _holds(column: Column) -> str:
    known = column.values[~column.missing]
    if not len(known):
        return "nothing"
    if column.words is None:
        return f"numbers, {known.min():.6g} to {known.max():.6g}"
    words = [column.words[code] for code in np.unique(known)]
    some = ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")
    return f"{checks.plural(len(words), 'word')}: {some if len(some) < 40 else some[:37] + '...'}"


def _fate(feature: Feature) -> str:
    if feature.kind == "number":
        made = "a number"
    elif feature.kind == "date":
        made = "a date: a number and its cycles"
    else:
        made = f"{len(feature.categories)} categories" + (" and others" if feature.other else "")
    return f"{made}, missing or not" if feature.missing else made
