"""What to make of the columns of a table: learned from the rows to train on, part by part."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from funcnet.datasets.classes import FEW
from funcnet.datasets.encoding import Encoding, Feature, median_of
from funcnet.datasets.moments import Moments
from funcnet.datasets.notes import note
from funcnet.datasets.seen import MAX_WORDS, Sample, SeenNumbers, SeenWords
from funcnet.datasets.table import Table, check_apart

MAX_CATEGORIES = 64  # of a column, with the place of those that are rare
RARE = 2  # what has fewer examples has no place of its own
TOLD = (
    "not wanted",
    "the groups of the split",
    "what the data are split by",
    "the weights of examples",
)
SAMPLE = 100_000  # rows whose numbers are kept, of tables that are not held
MAX_SAMPLE = 2**25  # numbers of them
_LONG = 20  # in so many rows, 1, 2, 3, ... are no feature but count them
_COUNTERS = {"", "id", "index", "unnamed: 0", "rownames", "row"}


def learn_encoding(
    table: Table,
    rows: np.ndarray,
    *,
    labels: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    besides: Mapping[str, str] | None = None,
) -> Encoding:
    """Learn what to make of a table.

    Args:
      table: the table; whether a column counts the rows is asked of all of them.
      rows: the rows to learn from, those for training.
      labels: the columns of what is predicted.
      columns: the columns to take, in this order; None is all that are not left out.
      drop: columns to leave out.
      categorical: columns whose words, or numbers, are categories; they are not left out.
      besides: columns that are left out for other reasons, in `TOLD`.
    Raises:
      ValueError: no column is left, there is none of a name, or a cell of a column of numbers is
        something else; its place is named.
    """
    learner = Learner(
        table,
        labels=labels,
        columns=columns,
        drop=drop,
        categorical=categorical,
        besides=besides,
        sampled=False,
    )
    learner.add(table, rows)
    return learner.encoding()


class Learner:
    """Learns an Encoding from a table that comes in parts: `add` each, then `encoding`.

    Args:
      table: the first part, or any that has its columns.
      labels, columns, drop, categorical, besides: as for `learn_encoding`.
      sampled: whether no more than a sample of the rows is kept, and words are counted up to
        `MAX_WORDS`: a column of more is left out as text. Medians are those of the sample then,
        and whether all numbers of a column differ is asked of it.
    Raises:
      ValueError: there is no column of a name.
    """

    def __init__(
        self,
        table: Table,
        *,
        labels: Sequence[str] = (),
        columns: Sequence[str] | None = None,
        drop: Collection[str] = (),
        categorical: Collection[str] = (),
        besides: Mapping[str, str] | None = None,
        sampled: bool = True,
    ) -> None:
        for name in (*(columns or ()), *drop, *categorical):
            table.column(name)
        self._source, self._named, self._labels = table.source, table.named, tuple(labels)
        self._wanted = [name for name in (columns or table.names) if name not in labels]
        self._others = [n for n in table.names if n not in {*self._wanted, *labels}]
        self._asked, self._categorical = {*(columns or ()), *categorical}, set(categorical)
        self._reasons = {**dict.fromkeys(drop, "not wanted"), **(besides or {})}
        limit = min(SAMPLE, max(1, MAX_SAMPLE // max(1, len(self._wanted)))) if sampled else None
        self._sample = Sample(limit)
        self._seen: dict[str, SeenNumbers | SeenWords] = {}
        for name in self._wanted:
            if name not in self._reasons:
                words = name in self._categorical or table.column(name).words is not None
                dated = name not in self._categorical
                self._seen[name] = (
                    SeenWords(name, bounded=sampled, dated=dated) if words else SeenNumbers(name)
                )

    def add(self, part: Table, train: np.ndarray, keys: np.ndarray | None = None) -> None:
        """Learn from rows.

        Args:
          part: rows with labels, the next ones.
          train: those to train on, indices.
          keys: of those uint64, in no order and all different, by which some are sampled.
        Raises:
          ValueError: a number is not finite; its place is named.
        """
        sample, columns = self._sample, part.by_name()
        taken = sample.taken(np.arange(len(train), dtype=np.uint64) if keys is None else keys)
        for name, seen in self._seen.items():
            column = columns[name]
            if isinstance(seen, SeenWords):
                column = column.texts()
            seen.add(part, column, train, taken, sample)
        sample.trim()

    def encoding(self) -> Encoding:
        """What is learned from all of it.

        Raises:
          ValueError: see `learn_encoding`.
        """
        self._sample.finish()
        features, left_out = [], []
        for name in self._wanted:
            reason = self._reasons.get(name)
            if reason is None and name not in self._asked:
                reason = self._useless(self._seen[name])
            if reason:
                left_out.append((name, reason))
            else:
                features.append(self._learn(self._seen[name]))
        if not features:
            told = "; ".join(f"{name}: {reason}" for name, reason in left_out)
            told = told or "the label is all"
            raise ValueError(f"{self._source} has no column to learn from ({told})")
        left_out += [(name, self._reasons.get(name, "not wanted")) for name in self._others]
        wide = any(self._is_rounded(feature) for feature in features)
        return Encoding(tuple(features), self._labels, self._named, tuple(left_out), wide)

    def note_sampled(self) -> None:
        """Say what is learned from some rows alone, where it is."""
        rows, total = self._sample.rows, self._sample.total
        if rows < total and self._sample.columns:
            note(
                f"{self._source}: learned from {rows:,} of {total:,} examples to train on: "
                "medians, and which numbers are identifiers"
            )

    def _useless(self, seen: SeenNumbers | SeenWords) -> str | None:
        """Why nothing can be learned from a column; None if something may be.

        Raises:
          ValueError: its numbers run together; or it is one of numbers, but for a few cells.
        """
        if isinstance(seen, SeenNumbers):
            check_apart(self._source, seen.name, seen.all)
        else:
            seen.check_no_typos()
        if seen.missing == seen.rows:
            return "empty"
        if isinstance(seen, SeenNumbers):
            if seen.train.low == seen.train.high and not seen.missing:
                return "constant"
            return self._counting(seen)
        counts, known = seen.counts, seen.rows - seen.missing
        if counts is not None and len(counts) == 1 and not seen.missing:
            return "constant"
        if seen.orders:
            several = len(seen.orders) > 1
            return "dates in which day and month may be either" if several else None
        if counts is None:
            return f"text, too many values to count in {known:,} rows"
        if len(counts) > FEW and len(counts) > known / 2:
            return f"text, {len(counts):,} values in {known:,} rows"
        return None

    def _counting(self, seen: SeenNumbers) -> str | None:
        if not seen.whole:
            return None
        name = seen.name.lower()
        unnamed = name in _COUNTERS or name.startswith("column ")
        if seen.steps and seen.first in (0, 1) and (seen.total >= _LONG or unnamed):
            return "row numbers"
        identifier = name in _COUNTERS or seen.name.endswith(("_id", "_ID", "Id", "ID"))
        if not identifier or seen.total < _LONG:
            return None
        some = self._sample.known((seen.name, ""))
        return "identifiers" if len(np.unique(some)) == len(some) else None

    def _learn(self, seen: SeenNumbers | SeenWords) -> Feature:
        missing = seen.missing > 0
        if isinstance(seen, SeenNumbers):
            check_apart(self._source, seen.name, seen.all)
            median = median_of(self._sample.known((seen.name, "")))
            return Feature(seen.name, "number", missing, median)
        if len(seen.orders) == 1:
            (order,) = seen.orders
            median = median_of(self._sample.known((seen.name, order)))
            time = order in seen.time
            return Feature(seen.name, "date", missing, median, order=order, time=time)
        if seen.counts is None:
            raise ValueError(
                f"{self._source}, column {seen.name!r}: more than {MAX_WORDS:,} different words, "
                "or very long ones, are no categories: leave the column out"
            )
        ranked = sorted(seen.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        frequent = [word for word, count in ranked if count >= RARE]
        kept = frequent if len(frequent) == len(ranked) else frequent[: MAX_CATEGORIES - 1]
        if len(kept) > MAX_CATEGORIES:
            kept = kept[: MAX_CATEGORIES - 1]
        other = len(kept) < len(ranked)
        return Feature(seen.name, "category", missing, categories=tuple(kept), other=other)

    def _is_rounded(self, feature: Feature) -> bool:
        """Whether float32 would round what a column becomes to its harm."""
        if feature.kind == "category":
            return False
        seen, numbers = self._seen[feature.name], Moments()
        train = seen.train if isinstance(seen, SeenNumbers) else seen.dates[feature.order]
        numbers.join(train)
        numbers.add(np.array([feature.median], np.float64), seen.missing)
        return numbers.rounded(1e-5)


def left_out_line(table: Table, encoding: Encoding) -> str | None:
    """What is left out of a table and was not told to be, in a line; None if nothing is."""
    found = [f"{name!r} ({why})" for name, why in encoding.left_out if why not in TOLD]
    if not found:
        return None
    shown = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    return (
        f"{table.source}: left out {shown}; --columns or --categorical (columns=, categorical=) "
        "take them in"
    )
