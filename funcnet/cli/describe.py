"""What commands say of data: of a table each column, and what becomes of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import funcnet as fn
from funcnet import checks
from funcnet.datasets import load_dataset
from funcnet.datasets.delimited import Format
from funcnet.datasets.encoding import Encoding, Feature, kinds_line
from funcnet.datasets.registry import is_table_file
from funcnet.datasets.table import Column, Table
from funcnet.datasets.tables import ENDS, label_of, load_table, read_table
from funcnet.text import aligned

CLASSES = 20  # of so many at most the counts are shown


def summary(dataset: fn.Dataset) -> list[str]:
    """What there is to say of a table before it is trained on; nothing of arrays."""
    encoding = dataset.encoding
    if encoding is None:
        return []
    rows = sum(len(y) for y in _labels(dataset))
    what = f"{checks.plural(rows, 'example')}, {kinds_line(encoding)}"
    return [f"{what}; label {encoding.label!r}, {len(dataset.class_names):,} classes"]


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
    label = given.pop("label", None)
    words, named = given.get("categorical", ()), None if label in ENDS else label
    table = read_table(name, form, words=words, label=named)
    size = f"{checks.plural(table.num_rows, 'row')}, {checks.plural(len(table.columns), 'column')}"
    lines = [f"{table.source}: {size}"]
    try:
        label = label_of(table, label)
    except ValueError as error:  # all else can be shown
        return [*lines, *_columns(table, None, ""), str(error)]
    dataset = load_table(table, label, **given)
    assert dataset.encoding is not None
    lines += _columns(table, dataset.encoding, label)
    return [*lines, *_classes(dataset)]


def _arrays(name: str, dataset: fn.Dataset) -> list[str]:
    x = dataset.x_train
    rows = sum(len(y) for y in _labels(dataset))
    return [f"{name}: {checks.plural(rows, 'example')} of {list(x.shape[1:])} {x.dtype}"]


def _labels(dataset: fn.Dataset) -> tuple[np.ndarray, ...]:
    return dataset.y_train, dataset.y_val, dataset.y_test


def _classes(dataset: fn.Dataset) -> list[str]:
    """The classes and how many examples each split has of them."""
    names, splits = dataset.class_names, _labels(dataset)
    if len(names) > CLASSES:
        lengths = ", ".join(f"{len(y):,}" for y in splits)
        return [f"{len(names):,} classes; train, val and test: {lengths}"]
    counts = [np.bincount(y, minlength=len(names)) for y in splits]
    lines: list[tuple[str, ...]] = [("class", "train", "val", "test")]
    lines += [(name, *(f"{c[i]:,}" for c in counts)) for i, name in enumerate(names)]
    lines.append(("all", *(f"{len(y):,}" for y in splits)))
    return ["", *aligned(lines)]


def _columns(table: Table, encoding: Encoding | None, label: str) -> list[str]:
    """A line for each column: what it holds, and what becomes of it."""
    features = {} if encoding is None else {f.name: f for f in encoding.features}
    reasons = {} if encoding is None else dict(encoding.left_out)
    lines = [("column", "holds", "missing", "becomes")]
    for column in table.columns:
        name = column.name
        if name == label:
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
