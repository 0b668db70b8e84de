"""What has been seen of a column, part by part: enough to say what to make of it.

Numbers are added up, words counted, and a sample of rows stands for how numbers are distributed;
of one part, or of rows that all are in the sample, everything is exact.
"""

from collections import Counter

import numpy as np

from funcnet.datasets.classes import FEW, number
from funcnet.datasets.dates import ORDERS, days
from funcnet.datasets.moments import Moments
from funcnet.datasets.table import Column, Table, check_finite

MAX_WORDS = 100_000  # different ones of a column, as many as rows in a sample: more are text
MAX_TEXT = 2**26  # characters of these


class Sample:
    """Numbers of some of the rows, by a key: those of the lowest keys, or all.

    Args:
      limit: how many rows there may be; None is all.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit, self._below = limit, None
        self._keys: list[np.ndarray] = []
        self.columns: dict[tuple[str, str], list[np.ndarray]] = {}
        self.total = 0

    def taken(self, keys: np.ndarray) -> np.ndarray | slice:
        """Which of the next rows are taken, by their keys [N] uint64: then add to `columns`."""
        self.total += len(keys)
        taken = slice(None) if self._below is None else np.flatnonzero(keys < self._below)
        self._keys.append(keys[taken])
        return taken

    def add(self, name: tuple[str, str], values: np.ndarray) -> None:
        """Add numbers of the rows that were taken last, NaN where one is missing."""
        self.columns.setdefault(name, []).append(values)

    def trim(self) -> None:
        """Let go of what is above the limit."""
        if self._limit is None or self.rows <= 2 * self._limit:
            return
        self._cut()

    @property
    def rows(self) -> int:
        """How many rows are held."""
        return sum(map(len, self._keys))

    def finish(self) -> None:
        """Keep no more than the limit."""
        if self._limit is not None and self.rows > self._limit:
            self._cut()

    def _cut(self) -> None:
        assert self._limit is not None  # of all rows none is let go of
        keys = np.concatenate(self._keys)
        kept = np.sort(np.argpartition(keys, self._limit)[: self._limit])
        self._keys, self._below = [keys[kept]], keys[kept].max()
        for name, parts in self.columns.items():
            self.columns[name] = [np.concatenate(parts)[kept]]

    def known(self, name: tuple[str, str]) -> np.ndarray:
        """The numbers of a column, without those that are missing."""
        values = np.concatenate(self.columns.get(name, [np.zeros(0)]))
        return values[~np.isnan(values)]


class SeenNumbers:
    """What has been seen of a column of numbers.

    Attributes:
      all, train: of all rows, and of those to train on.
      rows, missing: how many rows are to train on, and how many of these have no number.
      whole: whether all rows have whole numbers.
      steps: whether they are, and each is one more than that of the row before.
      first: the number of the first row.
    """

    def __init__(self, name: str) -> None:
        self.name, self.all, self.train = name, Moments(), Moments()
        self.total = self.rows = self.missing = 0
        self.whole = self.steps = True
        self.first = self._last = np.nan

    def add(
        self,
        table: Table,
        column: Column,
        train: np.ndarray,
        taken: np.ndarray | slice,
        sample: Sample,
    ) -> None:
        """Add rows.

        Args:
          table: the rows.
          column: the column in it.
          train: those to train on, indices.
          taken: those of them that the sample takes.
          sample: the sample.
        Raises:
          ValueError: a number is not finite; its place is named.
        """
        check_finite(table, column)
        values = column.values
        if len(values) and not self.total:
            self.first = values[0]
        if self.whole:
            here = not column.missing.any() and (values == np.floor(values)).all()
            self.whole = bool(here)
        if self.steps and len(values):
            joint = self.whole and (not self.total or values[0] - self._last == 1)
            self.steps = bool(joint and (np.diff(values) == 1).all())
            self._last = values[-1]
        self.total += len(values)
        self.all.add(values[~column.missing])
        of_train = values[train]
        known = of_train[~np.isnan(of_train)]
        self.train.add(known)
        self.rows += len(train)
        self.missing += len(train) - len(known)
        sample.add((self.name, ""), of_train[taken])


class SeenWords:
    """What has been seen of a column of words.

    Attributes:
      rows, missing: how many rows are to train on, and how many of these have no word.
      counts: how often each word is among these; None if they are too many to count.
      dates: by each order in which all of these are dates, the days.
      time: the orders in which some have a time.
    """

    def __init__(self, name: str, *, bounded: bool, dated: bool) -> None:
        self.name, self._bounded = name, bounded
        self.rows = self.missing = 0
        self.counts: Counter[str] | None = Counter()
        self.dates = {order: Moments() for order in (ORDERS if dated else ())}
        self.time: set[str] = set()
        self._letters = 0
        self._known = self._numbers = 0
        self._some: set[str] = set()  # of all words, and of those that are no numbers, the first
        self._odd: dict[str, str] = {}

    def add(
        self,
        table: Table,
        column: Column,
        train: np.ndarray,
        taken: np.ndarray | slice,
        sample: Sample,
    ) -> None:
        """Add rows; see `SeenNumbers`."""
        assert column.words is not None  # or it were one of numbers
        self._look_for_typos(table, column)
        codes = column.values[train]
        counts = np.bincount(codes[codes >= 0], minlength=len(column.words))
        there = np.flatnonzero(counts)
        words = [column.words[code] for code in there]
        self.rows += len(codes)
        self.missing += len(codes) - int(counts.sum())
        if self.counts is not None:
            self._letters += sum(len(word) for word in words if word not in self.counts)
            self.counts.update(dict(zip(words, counts[there].tolist(), strict=True)))
            if self._bounded and (len(self.counts) > MAX_WORDS or self._letters > MAX_TEXT):
                self.counts = None
        for order in list(self.dates):
            values = days(words, order)
            if values is None:
                del self.dates[order]
                sample.columns.pop((self.name, order), None)
                continue
            if (values != np.floor(values)).any():
                self.time.add(order)
            of_word = np.full(len(column.words) + 1, np.nan)  # the last for those missing
            of_word[there] = values
            each = of_word[codes]
            self.dates[order].add(each[codes >= 0])
            sample.add((self.name, order), each[taken])

    @property
    def orders(self) -> list[str]:
        """The orders in which all words are dates; none where there are no words."""
        return [order for order, seen in self.dates.items() if seen.count]

    def _look_for_typos(self, table: Table, column: Column) -> None:
        assert column.words is not None  # or it were one of numbers
        counts = np.bincount(column.values[~column.missing], minlength=len(column.words))
        there = np.flatnonzero(counts).tolist()
        odd = [i for i in there if number(column.words[i]) is None]
        self._known += int(counts.sum())
        self._numbers += int(counts.sum() - counts[odd].sum())
        if len(self._some) <= FEW:
            self._some.update(column.words[i] for i in there)
        if len(self._odd) <= 3 and odd:
            rows = np.flatnonzero(np.isin(column.values, odd))
            _, first = np.unique(column.values[rows], return_index=True)
            for row in rows[np.sort(first)[:4]].tolist():
                word = column.words[column.values[row]]
                self._odd.setdefault(word, table.place(row, column.name))

    def check_no_typos(self) -> None:
        """Raise a ValueError if it is a column of numbers, but for a few cells."""
        if not self._odd:
            return
        share = self._numbers / self._known
        nearly_all = share >= 0.95 and self._known >= FEW
        most = share > 0.5 and len(self._odd) <= 3 and len(self._some) > FEW
        if nearly_all or most:
            word, place = next(iter(self._odd.items()))
            raise ValueError(
                f"{place}: {word!r} is not a number, as {100 * share:.3g} % of the column are: "
                "write NA where there is none, or make categories of it with --categorical "
                "(categorical=)"
            )
