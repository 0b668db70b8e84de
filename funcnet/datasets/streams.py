"""Tables that are read in parts, as often as one likes: text files and Parquet.

A first reading finds what a part does not know of the others: which columns are of words
anywhere, whether there is a header. Then a column is of one kind in all parts.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.delimited import (
    FOUND,
    Format,
    Layout,
    OtherReader,
    called,
    has_header,
    layout_of,
    names_in,
    numbers,
    parts,
    top_row,
)
from funcnet.datasets.frames import from_frame
from funcnet.datasets.notes import DataWarning, note
from funcnet.datasets.seen import MAX_TEXT, MAX_WORDS
from funcnet.datasets.sources import STDIN, Source, source_of
from funcnet.datasets.table import Column, Table
from funcnet.datasets.tables import kind_of

_FIRST = 1000  # words that stand for a column of too many

Parts = Callable[[], Iterator[Table]]
Progress = Callable[[int], object]  # is told of so many rows that were read


class Stream(NamedTuple):
    """A table that is not held.

    Attributes:
      look: its columns and their kinds, of no values that mean anything; of words those that occur,
        the first ones of those of very many.
      rows: how many rows it has.
      parts: gives them from the beginning, each time, some at once; with lines, or numbers of rows.
    """

    look: Table
    rows: int
    parts: Parts


def open_stream(
    path: str | PathLike[str],
    form: Format = FOUND,
    *,
    words: Sequence[str] = (),
    label: str | None = None,
    progress: Progress = lambda rows: None,
) -> Stream:
    """The Stream of a file; arguments as for `read_table`.

    Raises:
      ValueError: it is no file that can be read in parts, or what is wrong with it.
    """
    if str(path) == STDIN or Path(path).is_fifo():
        what = "standard input" if str(path) == STDIN else f"{path}, a pipe,"
        raise ValueError(f"{what} can be read once, and a table is read in several passes: save it")
    source = source_of(path)
    kind = kind_of(source)
    if kind == "arrays":
        raise ValueError(f"{source.name} holds arrays, and no table with columns of names")
    if kind is None:
        return _text_stream(source, form, words, label, progress)
    if form != FOUND:
        raise ValueError(
            f"{source.name} is {kind}, whose columns have names: header, separator and decimal are "
            "for text"
        )
    if kind != "parquet":
        raise ValueError(f"{source.name} is {kind}, which is read as a whole: save it as Parquet")
    return _parquet_stream(source, Path(path), words, progress)


class _Kind:
    """What has been seen of a column: whether it has numbers, and which words."""

    def __init__(self) -> None:
        self.rows, self._numbers, self._any_words = 0, False, False
        self._words: dict[str, None] = {}
        self._letters = 0

    def add(self, column: Column) -> None:
        self.rows += len(column.values)
        if column.words is None:
            self._numbers = self._numbers or not column.missing.all()
            return
        self._any_words = True
        if not self._many:
            self._letters += sum(len(word) for word in column.words if word not in self._words)
            self._words.update(dict.fromkeys(column.words))

    @property
    def _many(self) -> bool:
        return len(self._words) > MAX_WORDS or self._letters > MAX_TEXT

    @property
    def mixed(self) -> bool:
        """Whether it is of numbers in some parts, and of words in others."""
        return self._numbers and self._any_words

    def column(self, *, shown: int = _FIRST) -> Column:
        """A column of this kind; of very many words no more than `shown` are in it."""
        if not self._any_words:
            return Column("", np.broadcast_to(np.zeros(()), self.rows))
        words = tuple(islice(self._words, shown if self._many else None))
        return Column("", np.broadcast_to(np.int32(-1), self.rows), words)


def _as_kinds(columns: Sequence[Column], kinds: Sequence[Column]) -> list[Column]:
    """Columns of a part, of words where others are: those that lack all cells may be of either."""
    return [
        column if kind.words is None else column.texts()
        for column, kind in zip(columns, kinds, strict=True)
    ]


# Text


def _text_stream(
    source: Source, form: Format, words: Sequence[str], label: str | None, progress: Progress
) -> Stream:
    """The Stream of a text file, found as `read_delimited` finds it."""
    layout, known, header = layout_of(source, form, words, label)
    first, width = layout.first, layout.width
    kinds, known, plain = _kinds(source, layout, known, progress)
    rows = kinds[0].rows
    class_names: tuple[str, ...] = ()
    if header is not True and [str(rows), str(width - 1)] == first[:2] and len(first) > 2:
        names, named, top, class_names = numbers(width), False, False, tuple(first[2:])
    else:
        named = has_header(source, layout, [k.column(shown=0) for k in kinds], rows, header, label)
        names, top = names_in(first) if named else numbers(width), not named
        missed = {i for i, name in enumerate(names) if named and name in words} - known
        if top:
            for kind, column in zip(kinds, top_row(layout, known), strict=True):
                kind.add(column)
        if missed := missed | {i for i, kind in enumerate(kinds) if kind.mixed}:
            kinds, known, plain = _kinds(source, layout, known | missed, progress, top=top)
    final = [kind.column() for kind in kinds]

    def read() -> Iterator[Table]:
        try:
            for columns, lines in _parts(source, layout, known, plain=plain, top=top):
                progress(len(lines))
                of_kind = called(_as_kinds(columns, final), names)
                yield Table(of_kind, source.name, named, lines, class_names)
        except OtherReader:
            raise ValueError(f"{source.name} has changed while it was read") from None

    look = Table(called(final, names), source.name, named, None, class_names)
    return Stream(look, len(final[0].values), read)


def _kinds(
    source: Source, layout: Layout, words: set[int], progress: Progress, *, top: bool = False
) -> tuple[list[_Kind], set[int], bool]:
    """The kinds of the columns, those that are words somewhere, and whether csv reads them."""
    plain = False
    while True:
        kinds = [_Kind() for _ in range(layout.width)]
        try:
            for columns, lines in _parts(source, layout, words, plain=plain, top=top):
                progress(len(lines))
                for kind, column in zip(kinds, columns, strict=True):
                    kind.add(column)
        except OtherReader:
            plain = True
            continue
        mixed = {i for i, kind in enumerate(kinds) if kind.mixed}
        if not mixed:
            return kinds, words, plain
        words = words | mixed


def _parts(
    source: Source, layout: Layout, words: set[int], *, plain: bool, top: bool
) -> Iterator[tuple[list[Column], np.ndarray]]:
    """`delimited.parts`, with the first row before them if it is an example."""
    if top:
        yield top_row(layout, words), np.array([layout.line])
    yield from parts(source, layout, words, plain=plain)


# Parquet


def _parquet_stream(source: Source, path: Path, words: Sequence[str], progress: Progress) -> Stream:
    """The Stream of a file of Parquet."""
    checks.installed("pyarrow", f"to read {source.name}", extra="tables")
    from funcnet.datasets import columnar

    said: set[str] = set()
    size = path.stat().st_size

    def tables(known: Sequence[str]) -> Iterator[Table]:
        start = 0
        with source.open() as stream:
            if not stream.seekable():
                raise ValueError(f"{source.name} is Parquet that was packed once more: unpack it")
            found = columnar.parquet_parts(source.name, stream, size)
            while True:
                with warnings.catch_warnings(record=True) as notes:
                    warnings.simplefilter("always")
                    part = next(found, None)
                    table = None if part is None else from_frame(part, source.name, tuple(known))
                for each in notes:
                    _say_once(each, said)
                if table is None:
                    return
                lines = np.arange(start, start + table.num_rows)
                start += table.num_rows
                progress(table.num_rows)
                yield table._replace(lines=lines, counted="row")

    known, mixed = tuple(words), True
    while mixed:
        kinds: dict[str, _Kind] = {}
        for table in tables(known):
            for column in table.columns:
                kinds.setdefault(column.name, _Kind()).add(column)
        mixed = any(kind.mixed for kind in kinds.values())
        known = (*known, *(name for name, kind in kinds.items() if kind.mixed))
    if not kinds:
        raise ValueError(f"{source.name} has no rows")
    names = list(kinds)
    final = [kind.column() for kind in kinds.values()]

    def read() -> Iterator[Table]:
        for table in tables(known):
            yield table._replace(columns=called(_as_kinds(table.columns, final), names))

    return Stream(Table(called(final, names), source.name), len(final[0].values), read)


def _say_once(message: warnings.WarningMessage, said: set[str]) -> None:
    """Give a warning again, unless it was given before."""
    text = str(message.message)
    if text in said:
        return
    said.add(text)
    if issubclass(message.category, DataWarning):
        note(text)
    else:
        warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)
