"""Tables as they were read: columns of numbers and of words, by name."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import MISSING, number
from funcnet.datasets.moments import Moments

LARGEST = float(np.finfo(np.float32).max)
EXACT = 2.0**53  # float64 holds all integers up to it


class Column(NamedTuple):
    """One column: numbers, or words.

    Attributes:
      name: its name; its number, from "1", in a file without a header.
      values: of numbers [N] float64, NaN where one is missing; of words [N] int32, their places
        in `words`, -1 where one is missing.
      words: the distinct words, none of them missing; None is a column of numbers.
    """

    name: str
    values: np.ndarray
    words: tuple[str, ...] | None = None

    @property
    def missing(self) -> np.ndarray:
        """[N] bool."""
        return np.isnan(self.values) if self.words is None else self.values < 0

    def texts(self) -> "Column":
        """The same as words."""
        if self.words is not None:
            return self
        kept = ~self.missing
        numbers, places = np.unique(self.values[kept], return_inverse=True)
        codes = np.full(len(self.values), -1, np.int32)
        codes[kept] = places
        return Column(self.name, codes, tuple(map(shown, numbers.tolist())))

    def rows(self, rows: np.ndarray) -> "Column":
        """Some of its rows; of words those that are left over stay."""
        return self._replace(values=self.values[rows])


class Table(NamedTuple):
    """Columns of equal length.

    Attributes:
      columns: the columns, whose names differ.
      source: what errors call it, such as the path of its file.
      named: whether the names are the person's, those of a header, rather than numbers.
      lines: [N], the line of each row in its file; None if rows have no lines.
      class_names: those that a first line of counts and names gives to the labels 0, 1, ...
      counted: what lines are called: of a part of a file without lines they are its rows, from 0.
    """

    columns: tuple[Column, ...]
    source: str
    named: bool = True
    lines: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    counted: str = "line"

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.columns[0].values) if self.columns else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(column.name for column in self.columns)

    def by_name(self) -> dict[str, Column]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}

    def column(self, name: str) -> Column:
        """The column of a name, or a ValueError with the nearest name."""
        columns = self.by_name()
        if name in columns:
            return columns[name]
        raise ValueError(f"{self.source}: {checks.unknown('column', name, self.names)}")

    def place(self, row: int, name: str) -> str:
        """Where a cell is, for errors: the source, the line or else the row, and the column."""
        where = f"row {row}" if self.lines is None else f"{self.counted} {self.lines[row]}"
        return f"{self.source}, {where}, column {name!r}"


def numbers_of(words: Iterable[str], *, comma: bool = False) -> list[float] | None:
    """The numbers that words are, NaN for those that are missing; None if one is neither.

    Args:
      words: what cells hold, stripped.
      comma: whether decimals stand behind a comma, as in 3,14; then a point is in no number.
    """
    values = []
    for word in words:
        value = np.nan if word.lower() in MISSING else as_number(word, comma=comma)
        if value is None:
            return None
        values.append(value)
    return values


def as_number(word: str, *, comma: bool = False) -> float | None:
    """The number that a word is, or None."""
    if comma:
        return None if "." in word else number(word.replace(",", "."))
    return number(word)


def shown(value: float) -> str:
    """A number as a word: whole ones without a point."""
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)


def as_column(name: str, values: Any, *, text: bool = False) -> Column:
    """A column of values from Python or NumPy.

    Args:
      name: its name.
      values: [N] numbers, bools, strings, dates, None where one is missing; a masked array, too.
        Strings that all are numbers are numbers, as they are in a file.
      text: whether numbers are words.
    Raises:
      ValueError: they are no such values.
    """
    hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"column {name!r} must be [N], got shape {list(array.shape)}")
    if array.dtype.kind in "iuf":
        column = Column(name, array.astype(np.float64))
        if hidden is not None:
            column.values[hidden] = np.nan
        return column.texts() if text else column
    cells = array.tolist()
    if array.dtype.kind == "M":
        cells = np.datetime_as_string(array).tolist()
        hidden = np.isnat(array) if hidden is None else hidden | np.isnat(array)
    if hidden is not None:
        cells = [None if h else cell for h, cell in zip(hidden, cells, strict=True)]
    cells = [None if _is_missing(cell) else cell for cell in cells]
    if array.dtype.kind == "O" and all(_is_number(cell) for cell in cells):
        try:
            numbers = np.array([np.nan if cell is None else float(cell) for cell in cells])
        except OverflowError:
            raise ValueError(f"column {name!r} holds an integer above all floats") from None
        return as_column(name, numbers, text=text)
    return words_column(name, [_word(name, cell) for cell in cells], text=text)


def words_column(name: str, cells: list[str], *, text: bool = False) -> Column:
    """A column of stripped cells, numbers unless one is neither that nor missing, or `text`."""
    distinct = sorted(set(cells))
    values = None if text else numbers_of(distinct)
    if values is not None:
        known = dict(zip(distinct, values, strict=True))
        return Column(name, np.array([known[cell] for cell in cells], np.float64))
    return coded(name, cells, distinct)


def coded(name: str, cells: Iterable[Any], words: Iterable[Any], *, comma: bool = False) -> Column:
    """A column of words; `words` are all that occur in `cells`, with their blanks perhaps.

    Where decimals have a comma, those that are numbers are written with a point.
    """
    places: dict[str, int] = {}
    code = {}
    for word in words:
        plain = word.strip()
        if comma and as_number(plain, comma=True) is not None:
            plain = plain.replace(",", ".")
        missing = plain.lower() in MISSING
        code[word] = -1 if missing else places.setdefault(plain, len(places))
    return Column(name, np.array([code[cell] for cell in cells], np.int32), tuple(places))


def joined(parts: list[Column]) -> Column:
    """Columns one below the other: all of numbers, or all of words."""
    if parts[0].words is None:
        return Column(parts[0].name, np.concatenate([part.values for part in parts]))
    places: dict[str, int] = {}
    codes = []
    for part in parts:
        assert part.words is not None  # a reader gives parts of one kind
        code = np.array([places.setdefault(w, len(places)) for w in part.words] + [-1], np.int32)
        codes.append(code[part.values])
    return Column(parts[0].name, np.concatenate(codes), tuple(places))


def check_finite(table: Table, column: Column) -> None:
    """Raise a ValueError unless float32 holds each of the numbers, be they rounded."""
    bad = np.flatnonzero(np.abs(column.values) > LARGEST)
    if len(bad):
        value = column.values[bad[0]]
        raise ValueError(f"{table.place(bad[0], column.name)}: {value} is not finite in float32")


def check_numbers(table: Table, column: Column) -> None:
    """Raise a ValueError unless the numbers are finite, and float64 tells them apart."""
    check_finite(table, column)
    numbers = Moments()
    numbers.add(column.values[~column.missing])
    check_apart(table.source, column.name, numbers)


def check_apart(source: str, name: str, numbers: Moments) -> None:
    """Raise a ValueError unless float64 tells the numbers of a column apart."""
    top = max(numbers.high, -numbers.low)
    if top >= EXACT and np.spacing(top) / 2 > 1e-3 * numbers.std:
        raise ValueError(
            f"{source}, column {name!r}: numbers as large as {top:.17g} run together in 64 bits: "
            "leave the column out, make categories of it, or subtract an offset"
        )


def only(table: Table, names: Iterable[str]) -> Table:
    """The table with some of its columns, in the order of `names`."""
    return table._replace(columns=tuple(table.column(name) for name in names))


def some(table: Table, rows: np.ndarray) -> Table:
    """The table with some of its rows."""
    lines = None if table.lines is None else table.lines[rows]
    return table._replace(columns=tuple(c.rows(rows) for c in table.columns), lines=lines)


def _is_number(cell: Any) -> bool:
    return cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool))


def _is_missing(cell: Any) -> bool:
    """Whether it is None, NaN, or what pandas has in their place, NaT and NA."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float) and cell != cell


def _word(name: str, cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip()
    if isinstance(cell, (list, dict, tuple, set)):
        raise ValueError(f"column {name!r} holds {type(cell).__name__}s: one value for each row")
    if isinstance(cell, float):
        return shown(cell)
    return str(cell).strip()
