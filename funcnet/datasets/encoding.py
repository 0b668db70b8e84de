"""From columns of a table to the numbers that networks take; `learning` makes an Encoding.

An Encoding is plain data: it is saved with a model, and makes of any table that has its columns, in
whatever order, what the model was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import number
from funcnet.datasets.dates import ORDERS, cycles, days
from funcnet.datasets.limits import check_size
from funcnet.datasets.notes import note
from funcnet.datasets.table import Column, Table, check_finite
from funcnet.text import one_line, visible


@dataclass(frozen=True)
class Feature:
    """What is made of one column.

    Attributes:
      name: the column.
      kind: "number", "category" or "date".
      missing: whether missing cells have a place of their own, since training had some.
      median: of numbers and dates in training, what stands for a missing one; None refuses those.
      categories: the words that have a place each, the most frequent first.
      other: whether the words that are rare or unknown have one, since training had some.
      order: of year, month and day in dates, "ymd", "dmy" or "mdy".
      time: whether dates have a time.
    Example:
      >>> table = {"size": np.arange(20.0) ** 2, "town": list("abac") * 5, "y": list("uv") * 10}
      >>> size, town = fn.load_table(table, "y").encoding.features
      >>> size.kind, town.kind, sorted(town.categories)
      ('number', 'category', ['a', 'b', 'c'])
    """

    name: str
    kind: str
    missing: bool = False
    median: float | None = 0.0
    categories: tuple[str, ...] = ()
    other: bool = False
    order: str = ""
    time: bool = False

    @property
    def names(self) -> list[str]:
        """What to call each of the numbers that the column becomes."""
        if self.kind == "category":
            names = [f"{self.name} = {word}" for word in self.categories]
            names += [f"{self.name} = other"] if self.other else []
        else:
            names = [self.name]
        if self.kind == "date":
            spans = ("year", "week", "day") if self.time else ("year", "week")
            names += [f"{self.name}, {f} of the {s}" for s in spans for f in ("sine", "cosine")]
        return names + ([f"{self.name} is missing"] if self.missing else [])


@dataclass(frozen=True)
class Encoding:
    """What is made of the columns of a table, each of which has a `Feature`, in turn.

    Attributes:
      features: the features.
      labels: the names of the columns of what is predicted.
      named: whether columns are called by names, rather than by their places from "1".
      left_out: the other columns, (name, reason) each.
      wide: whether inputs are float64, since float32 would have rounded those of training to their
        harm; None finds out from what is encoded.
    Example:
      >>> table = {"size": np.arange(20.0) ** 2, "town": list("abac") * 5, "y": list("uv") * 10}
      >>> encoding = fn.load_table(table, "y").encoding
      >>> [feature.name for feature in encoding.features], encoding.labels
      (['size', 'town'], ('y',))
    """

    features: tuple[Feature, ...]
    labels: tuple[str, ...] = ()
    named: bool = True
    left_out: tuple[tuple[str, str], ...] = ()
    wide: bool | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each of the D numbers of an example."""
        return tuple(name for feature in self.features for name in feature.names)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which of the D are the numbers of columns of numbers and dates, from 0."""
        sizes = [len(feature.names) for feature in self.features]
        starts = np.cumsum([0, *sizes])[:-1].tolist()
        kinds = [feature.kind for feature in self.features]
        return tuple(at for at, kind in zip(starts, kinds, strict=True) if kind != "category")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that are looked at."""
        return tuple(feature.name for feature in self.features)

    @property
    def _known(self) -> set[str]:
        return {*self.columns, *(name for name, _ in self.left_out), *self.labels}

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the columns whose cells are words, though they may look like numbers."""
        return tuple(feature.name for feature in self.features if feature.kind != "number")

    def __call__(self, table: Table) -> np.ndarray:
        """The inputs of a network.

        What training has not seen and what has no place is said in a `DataWarning`.

        Args:
          table: its columns may be in any order, and more than there are features.
        Returns:
          x [N, D], float32, or float64 if it is `wide`.
        Raises:
          ValueError: a column is missing, it is named; or a cell is no number, with its place.
        """
        return self.parts(table, [np.arange(table.num_rows)], say=True)[0]

    def parts(self, table: Table, parts: Sequence[np.ndarray], *, say: bool) -> list[np.ndarray]:
        """The inputs of some rows, and of others, of one dtype.

        Args:
          table: as it is called with.
          parts: the rows of each, indices.
          say: whether to say what training has not seen.
        """
        known = table.by_name()
        missing = [name for name in self.columns if name not in known]
        if missing:
            several = "columns" if len(missing) > 1 else "column"
            raise ValueError(
                f"{table.source} has no {several} {', '.join(map(repr, missing))}, which the "
                f"network was trained on; its columns: {visible(', '.join(table.names))}"
            )
        for name in self.columns:
            if f"{name} (2)" in known and f"{name} (2)" not in self._known:
                raise ValueError(f"{table.source} has two columns {name!r}: which one is it?")
        columns = [known[name] for name in self.columns]
        made = [_prepared(f, table, c, say) for f, c in zip(self.features, columns, strict=True)]
        wide = self.wide
        if wide is None:
            wide = any(map(_is_rounded, self.features, made))
        dtype = np.dtype(np.float64 if wide else np.float32)
        size = sum(map(len, parts)) * len(self.names) * dtype.itemsize
        check_size(f"{table.source}, as {len(self.names):,} numbers a row,", size, size)
        xs = [np.zeros((len(rows), len(self.names)), dtype) for rows in parts]
        for x, rows in zip(xs, parts, strict=True):
            start = 0
            for feature, column, values in zip(self.features, columns, made, strict=True):
                end = start + len(feature.names)
                empty = column.missing[rows] if feature.missing else None
                _write(feature, values[rows], empty, x[:, start:end])
                start = end
        return xs

    def refitted(self, x: np.ndarray, rows: np.ndarray) -> tuple["Encoding", np.ndarray]:
        """The same with what stands for missing numbers and dates learned from some examples.

        Args:
          x: [N, D], what the encoding has made of a table.
          rows: the examples to learn from, indices.
        Returns:
          the Encoding, and x as it would have made it; x itself if nothing in it is missing.
        """
        x, features, start = x.copy(), [], 0
        for feature in self.features:
            end = start + len(feature.names)
            if feature.missing and feature.kind != "category":
                empty = x[:, end - 1] == 1
                known = x[rows[~empty[rows]], start].astype(np.float64)
                feature = replace(feature, median=median_of(known))
                some, values = np.zeros((int(empty.sum()), end - start), x.dtype), feature.median
                _write(feature, np.full(len(some), values), np.ones(len(some)), some)
                x[empty, start:end] = some
            features.append(feature)
            start = end
        return replace(self, features=tuple(features)), x

    def as_json(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return asdict(self)


def from_json(content: Mapping[str, Any]) -> Encoding:
    """The Encoding of what `as_json` gave.

    Raises:
      ValueError: it is something else.
    """
    try:
        features = [
            Feature(**{**each, "categories": tuple(each["categories"])})
            for each in content["features"]
        ]
        left_out = tuple((name, reason) for name, reason in content["left_out"])
        # Where there was one column of labels it was called label; none, "".
        one = [content["label"]] if "labels" not in content else []
        labels = content.get("labels", [label for label in one if label != ""])
        if not isinstance(labels, list | tuple):
            raise TypeError("labels are no list")
        known = ("features", "left_out", "labels", "label")
        rest = {k: v for k, v in content.items() if k not in known}
        encoding = Encoding(tuple(features), tuple(labels), left_out=left_out, **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no encoding of a table: {one_line(error)}") from None
    _check(encoding)
    return encoding


def _check(encoding: Encoding) -> None:
    """Raise a ValueError unless the fields of an Encoding are what they should be."""
    for feature in encoding.features:
        sound = (
            isinstance(feature.name, str)
            and feature.kind in ("number", "category", "date")
            and all(isinstance(each, bool) for each in (feature.missing, feature.other))
            and isinstance(feature.median, float | int | None)
            and all(isinstance(word, str) for word in feature.categories)
            and (feature.order in ORDERS if feature.kind == "date" else feature.order == "")
            and isinstance(feature.time, bool)
        )
        if not sound:
            raise ValueError(f"no encoding of a table: {checks.cut(feature)} is no feature")
    texts = [*encoding.labels, *(text for pair in encoding.left_out for text in pair)]
    names = [*encoding.labels, *encoding.columns, *(name for name, _ in encoding.left_out)]
    if not (
        all(isinstance(text, str) for text in texts)
        and len(set(encoding.columns)) == len(encoding.features) > 0
        and (encoding.named is True or (encoding.named is False and _are_places(names)))
        and isinstance(encoding.wide, bool | None)
    ):
        raise ValueError("no encoding of a table: its columns do not go together")


def _are_places(names: Sequence[str]) -> bool:
    """Whether names are numbers of columns, or empty."""
    return all(name == "" or (name.isascii() and name.isdecimal()) for name in names)


def _is_rounded(feature: Feature, values: np.ndarray) -> bool:
    """Whether float32 would round what a column becomes to its harm."""
    if feature.kind == "category" or not len(values):
        return False
    return checks.rounds(values, np.float32, tolerance=1e-5)


def plain_encoding(table: Table, labels: Sequence[str]) -> Encoding:
    """All columns but the labels as they are: numbers, none of them missing."""
    names = [name for name in table.names if name not in labels]
    features = [Feature(name, "number", median=None) for name in names]
    return Encoding(tuple(features), tuple(labels), table.named)


def median_of(values: np.ndarray) -> float:
    """The median of numbers; 0 of none."""
    return float(np.median(values)) if len(values) else 0.0


# Applying


def _prepared(feature: Feature, table: Table, column: Column, say: bool) -> np.ndarray:
    """[N], numbers, or days, with the median for a missing one; or places of words, -1 is none."""
    missing = column.missing
    if say and not feature.missing and missing.any() and feature.median is not None:
        count = checks.plural(int(missing.sum()), "missing cell")
        what = "no category" if feature.kind == "category" else "the median"
        note(
            f"{table.source}, column {feature.name!r}: {count}, of which training had none: "
            f"{what} stands for them"
        )
    if feature.kind == "category":
        return _places(feature, table.source, column.texts(), say)
    read = _dates if feature.kind == "date" else _numbers
    values = read(feature, table, column)
    return np.where(missing, feature.median or 0.0, values)


def _places(feature: Feature, source: str, column: Column, say: bool) -> np.ndarray:
    places = {word: i for i, word in enumerate(feature.categories)}
    other = len(places) if feature.other else -1
    assert column.words is not None
    place = np.array([places.get(word, other) for word in column.words] + [-1], np.int64)
    at = place[column.values]  # -1, a missing one, takes the last
    unknown = (at < 0) & ~column.missing
    if say and unknown.any():
        word = column.words[column.values[np.flatnonzero(unknown)[0]]]
        count = checks.plural(int(unknown.sum()), "row")
        note(
            f"{source}, column {feature.name!r}: {count} of a category that training has not "
            f"seen, such as {word!r}: they are of none"
        )
    return at


def _write(
    feature: Feature, values: np.ndarray, missing: np.ndarray | None, out: np.ndarray
) -> None:
    """Write what a column becomes, [N, the feature's], over zeros."""
    if feature.kind == "category":
        rows = np.flatnonzero(values >= 0)
        out[rows, values[rows]] = 1
    else:
        out[:, 0] = values
    if feature.kind == "date":
        spans = cycles(values, time=feature.time)
        out[:, 1 : 1 + spans.shape[1]] = spans
    if missing is not None:
        out[:, -1] = missing


def _numbers(feature: Feature, table: Table, column: Column) -> np.ndarray:
    missing = np.flatnonzero(column.missing)
    if feature.median is None and len(missing):
        raise ValueError(f"{table.place(missing[0], column.name)}: the cell is empty")
    if column.words is None:
        check_finite(table, column)
        return column.values
    odd = [i for i, word in enumerate(column.words) if number(word) is None]
    rows = np.flatnonzero(np.isin(column.values, odd))
    if len(rows):
        word = column.words[column.values[rows[0]]]
        raise ValueError(f"{table.place(rows[0], column.name)}: {word!r} is not a number")
    values = np.array([number(word) for word in column.words] + [np.nan], float)
    numbers = Column(column.name, values[column.values])
    check_finite(table, numbers)
    return numbers.values


def _dates(feature: Feature, table: Table, column: Column) -> np.ndarray:
    column = column.texts()
    assert column.words is not None
    values = np.array([_day(word, feature.order) for word in column.words] + [np.nan], float)
    each = values[column.values]
    bad = np.flatnonzero(np.isnan(each) & ~column.missing)
    if len(bad):
        word = column.words[column.values[bad[0]]]
        raise ValueError(
            f"{table.place(bad[0], column.name)}: {word!r} is not a date, as those in training"
        )
    return each


def _day(word: str, order: str) -> float:
    value = days([word], order)
    return np.nan if value is None else float(value[0])


def kinds_line(encoding: Encoding) -> str:
    """The features by kind, in a line."""
    kinds = [feature.kind for feature in encoding.features]
    nouns = {"number": "number", "category": "category", "date": "date"}
    return ", ".join(_plural(kinds.count(kind), nouns[kind]) for kind in nouns if kind in kinds)


def _plural(count: int, noun: str) -> str:
    return checks.plural(count, noun).replace("categorys", "categories")
