"""Text files of cells: comma, semicolon, tab or blanks between them, with a header or without.

They are read by pyarrow if it is installed, else by Python's csv, to the same values; what the
first of them stumbles over the second reads, or says what is wrong with it, and in which line.
"""

import codecs
import contextlib
import csv
import importlib.util
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import MISSING, number
from funcnet.datasets.notes import naming_file, note
from funcnet.datasets.sources import Source
from funcnet.datasets.table import Column, Table, as_number, coded, joined, numbers_of

HEADER = {"yes": True, "no": False}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
DECIMALS = {"point": False, "comma": True}
CHUNK = 32_768  # rows that are held as strings
MAX_CELLS = 2**22  # of these
MAX_COLUMNS = 1_000_000  # and a line of so many characters: packed, either costs next to nothing
MAX_LINE = 2**25
_SAMPLE = 1 << 20  # bytes that are looked at to find what lies between cells
_SAMPLE_ROWS = 100  # rows of these


class Format(NamedTuple):
    """What is said of a text file: keys of `HEADER`, `SEPARATORS`, `DECIMALS`; None is to be found.

    Attributes:
      header: whether its first row names the columns.
      separator: what lies between cells.
      decimal: what lies before decimals.
    """

    header: str | None = None
    separator: str | None = None
    decimal: str | None = None


FOUND = Format()
Part = tuple[list[Column], np.ndarray]  # columns, and the lines of their rows


class Layout(NamedTuple):
    """Of a file: what lies between cells, whether decimals have a comma, its first two rows."""

    separator: str
    comma: bool
    first: list[str]
    width: int  # of the rows below the first
    line: int  # of the first row


class OtherReader(Exception):
    """This file is one for Python's own reader."""


def read_delimited(
    source: Source,
    form: Format = FOUND,
    *,
    words: Sequence[str] | Callable[[int], Sequence[str]] = (),
    label: str | None = None,
    expected: Sequence[str] = (),
) -> Table:
    """Read a text file.

    Args:
      source: the file.
      form: what is known of it.
      words: names of columns whose numbers are words; or a function that gives them, of the number
        of columns.
      label: the name of the label column, if it is known.
      expected: names that its header has, if it has one.
    Returns:
      The Table, with the names in its header, or with numbers from 1 for names.
    Raises:
      ValueError: what is wrong with the file, with the line.
    """
    layout, known, header = layout_of(source, form, words, label, expected)
    first, width = layout.first, layout.width
    columns, lines = _read(source, layout, known)
    if header is not True and [str(len(lines)), str(width - 1)] == first[:2] and len(first) > 2:
        return Table(called(columns, numbers(width)), source.name, False, lines, tuple(first[2:]))
    header = has_header(source, layout, columns, len(lines), header, label)
    if header:
        names = names_in(first)
        if missed := {i for i, name in enumerate(names) if name in _named(words, width)} - known:
            columns, lines = _read(source, layout, known | missed)
        return Table(called(columns, names), source.name, True, lines)
    columns, lines = _with_first(source, layout, columns, lines, known)
    return Table(called(columns, numbers(width)), source.name, False, lines)


# What a file is like


def layout_of(
    source: Source,
    form: Format,
    words: Sequence[str] | Callable[[int], Sequence[str]] = (),
    label: str | None = None,
    expected: Sequence[str] = (),
) -> tuple[Layout, set[int], bool | None]:
    """How a file is written, by its beginning; arguments as for `read_delimited`.

    Returns:
      The layout, the places of columns whose numbers are words, and whether the first row names
      the columns; None if that is not plain.
    """
    layout = _layout(source, form)
    first, width = layout.first, layout.width
    with naming_file(source.name):
        words = _named(words, width)
    header = None if form.header is None else checks.choose("header", form.header, HEADER)
    spoken_of = {name for name in (*words, label or "") if name and number(name) is None}
    awaited = {name for name in expected if number(name) is None} | spoken_of
    found = awaited & set(first) or (expected and set(expected) <= set(first))
    if header is None and found:
        header = True
    places = {name: i for i, name in enumerate(first)} if header else {}
    return layout, {places.get(name, _position(name, width)) for name in words}, header


def has_header(
    source: Source,
    layout: Layout,
    columns: Sequence[Column],
    rows: int,
    header: bool | None,
    label: str | None,
) -> bool:
    """Whether a first row names the columns below it.

    Args:
      source: the file.
      layout: its layout.
      columns: what is below: of numbers, or of words, all of which are in `words`.
      rows: how many these are.
      header: what is known; None is found, and said where it is a guess.
      label: the name of the label column, if it is known.
    Raises:
      ValueError: it has more or fewer cells than they, or no rows below it.
    """
    if len(layout.first) != layout.width:
        count = checks.plural(len(layout.first), "cell")
        raise ValueError(f"{source.name}, line {layout.line} has {count}, expected {layout.width}")
    if header is None:
        header = _is_header(source.name, layout, columns, label)
    if header and not rows:
        raise ValueError(f"{source.name} has a header, but no rows")
    return header


def _named(words: Sequence[str] | Callable[[int], Sequence[str]], width: int) -> Sequence[str]:
    return words(width) if callable(words) else words


def _layout(source: Source, form: Format) -> Layout:
    """How a file is written, as it is said, or found from its beginning."""
    if form.separator is not None:
        separator = checks.choose("separator", form.separator, SEPARATORS)
        rows = list(islice(_rows(source, separator), _SAMPLE_ROWS))
    else:
        separator, rows = _separated(source)
    if not rows:
        raise ValueError(f"{source.name} is empty")
    if form.decimal is not None:
        comma = checks.choose("decimal", form.decimal, DECIMALS)
    else:
        comma = separator != "," and _has_commas(source.name, [cells for _, cells in rows[1:]])
    line, first = rows[0]
    first = [cell.strip() for cell in first]
    width = len(rows[1][1]) if len(rows) > 1 and _may_be_counts(first, rows[1][1]) else len(first)
    return Layout(separator, comma, first, width, line)


def _separated(source: Source) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator of a file, and its first rows: of one length, the more numbers the better."""
    sample = source.start(_SAMPLE)
    text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode(sample)
    if len(sample) == _SAMPLE:
        text = text[: text.rfind("\n") + 1] or text
    found = {}
    for separator in (",", ";", "\t", "|", " "):
        with contextlib.suppress(ValueError):
            rows = list(
                islice(_parsed(source.name, io.StringIO(text, newline=""), separator), _SAMPLE_ROWS)
            )
            widths = {len(cells) for _, cells in rows[1:]} or {len(rows[0][1])} if rows else set()
            fits = rows and (len(rows[0][1]) in widths or _may_be_counts(*_two(rows)))
            if len(widths) == 1 and max(widths) > 1 and fits:
                found[separator] = rows
    if " " in found and len(found) > 1:
        del found[" "]  # there are blanks beside other separators, too
    if not found:
        return ",", list(islice(_rows(source, ","), _SAMPLE_ROWS))
    best = max(found, key=lambda separator: _number_share(found[separator]))
    usual = {".tsv": "\t", ".tab": "\t"}.get(source.suffix, ",")
    if best != usual:
        name = next(name for name, each in SEPARATORS.items() if each == best)
        note(
            f"{source.name}: taken as separated by {name}s; --separator (separator=) says otherwise"
        )
    return best, list(islice(_rows(source, best), _SAMPLE_ROWS))


def _two(rows: list[tuple[int, list[str]]]) -> tuple[list[str], list[str]]:
    return rows[0][1], rows[min(1, len(rows) - 1)][1]


def _number_share(rows: list[tuple[int, list[str]]]) -> float:
    cells = [cell.strip().replace(",", ".") for _, row in rows for cell in row]
    return sum(number(cell) is not None for cell in cells) / len(cells)


def _may_be_counts(first: list[str], second: list[str]) -> bool:
    """Whether a first row may be one of counts and names, `rows,features,class,names`."""
    return (
        len(first) > 2
        and first[0].strip().isdigit()
        and first[1].strip() == str(len(second) - 1)
        and all(number(cell) is None for cell in first[2:])
    )


def _has_commas(name: str, rows: list[list[str]]) -> bool:
    cells = [cell.strip() for row in rows for cell in row]
    commas = any(re.fullmatch(r"[-+]?\d*,\d+", cell) for cell in cells)
    points = any(re.fullmatch(r"[-+]?\d*\.\d+", cell) for cell in cells)
    if commas and not points:
        note(f"{name}: 1,5 is taken for one and a half; --decimal point (decimal=) makes it a word")
    return commas and not points


def _is_header(name: str, layout: Layout, columns: Sequence[Column], label: str | None) -> bool:
    """Whether a first row names the columns below it, and a note if nothing says so plainly."""
    first = layout.first
    numbers = [(cell, c) for cell, c in zip(first, columns, strict=True) if c.words is None]
    texts = [(cell, c) for cell, c in zip(first, columns, strict=True) if c.words is not None]
    plain = [cell for cell, _ in numbers if cell.lower() not in MISSING]
    if any(as_number(cell, comma=layout.comma) is None for cell in plain):
        return True
    repeating = [(cell, c.words) for cell, c in texts if c.words and len(c.words) < len(c.values)]
    recurring = sum(cell in words or cell.lower() in MISSING for cell, words in repeating)
    row = f"the first row, {', '.join(first[:3])}{', ...' if len(first) > 3 else ''},"
    if not numbers:
        if 0 < recurring < len(repeating):
            what = "an example" if 2 * recurring >= len(repeating) else "a header"
            note(f"{name}: {row} is taken for {what}; --header yes|no (header=) decides")
        return not recurring or 2 * recurring < len(repeating)
    at = first.index(label) if label in first else _position(label or "", len(first))
    features = [cell for i, cell in enumerate(first) if i != at and number(cell) is not None]
    counting = len(features) > 1 and features == [str(i) for i in range(len(features))]
    if repeating and not recurring and plain and not counting:
        words = ", ".join(repr(cell) for cell, _ in repeating[:3])
        note(
            f"{name}: {row} is taken for a header, since no other row has {words}: --header no "
            "(header='no') makes it an example"
        )
    if repeating:
        return not recurring
    if counting:
        note(
            f"{name}: {row} counts up and is taken for a header: --header no (header='no') makes "
            "it an example"
        )
        return True
    note(f"{name}: {row} is taken for an example: --header yes (header='yes') makes names of it")
    return False


# Names


def numbers(width: int) -> list[str]:
    """The names of so many columns without names."""
    return [str(i) for i in range(1, width + 1)]


def _position(name: str, width: int) -> int:
    """The place of the column called so in a file without a header; -1 is none."""
    return int(name) - 1 if name.isdecimal() and 1 <= int(name) <= width else -1


def names_in(first: list[str]) -> list[str]:
    """The names in a header, each different from the others."""
    names: dict[str, int] = {}
    for i, cell in enumerate(first, start=1):
        wanted = name = cell or f"column {i}"
        count = 1
        while name in names or (count > 1 and name in first):
            count += 1
            name = f"{wanted} ({count})"
        names[name] = i
    return list(names)


def called(columns: Sequence[Column], names: Sequence[str]) -> tuple[Column, ...]:
    """The columns under other names."""
    return tuple(c._replace(name=name) for c, name in zip(columns, names, strict=True))


# Cells


def _read(source: Source, layout: Layout, words: set[int]) -> tuple[list[Column], np.ndarray]:
    """The columns below the first row, and the line of each of their rows."""
    while True:
        try:
            columns, lines = _collected(parts(source, layout, words, plain=False), layout.width)
        except OtherReader:
            columns, lines = _collected(parts(source, layout, words, plain=True), layout.width)
        mixed = {i for i, each in enumerate(columns) if _is_mixed(each)}
        if not mixed:
            whole = []
            while columns:  # a part is let go of once it is joined
                whole.append(_joined(columns.pop(0)))
            return whole, lines
        words = words | mixed  # what was numbers further up was not kept as it was written


def _collected(found: Iterator[Part], width: int) -> tuple[list[list[Column]], np.ndarray]:
    columns: list[list[Column]] = [[] for _ in range(width)]
    lines = [np.zeros(0, np.int64)]
    for each, of_each in found:
        lines.append(of_each)
        for column, part in zip(columns, each, strict=True):
            column.append(part)
    return [column or [Column("", np.zeros(0))] for column in columns], np.concatenate(lines)


def parts(source: Source, layout: Layout, words: set[int], *, plain: bool) -> Iterator[Part]:
    """The columns below the first row, some rows at a time, and the lines of these.

    A column is of numbers in a part if all are numbers there, and it is not one of `words`.

    Args:
      source: the file.
      layout: its layout.
      words: the places of columns whose numbers are words.
      plain: whether to read by Python's csv, which reads everything.
    Raises:
      OtherReader: pyarrow is not there, or does not read the file to the same values.
      ValueError: what is wrong with the file, with the line.
    """
    if plain:
        yield from _python_parts(source, layout, words)
        return
    usual = layout.line == 1 and layout.width > 1 and layout.separator != " "
    if not usual or importlib.util.find_spec("pyarrow") is None:
        raise OtherReader
    from funcnet.datasets import arrow

    try:
        yield from arrow.parts(source, layout.separator, layout.width, words, comma=layout.comma)
    except arrow.OtherLines:
        raise OtherReader from None


def _joined(parts: list[Column]) -> Column:
    return joined([part.texts() for part in parts] if _any_words(parts) else parts)


def _any_words(parts: list[Column]) -> bool:
    return any(part.words is not None for part in parts)


def _is_mixed(parts: list[Column]) -> bool:
    numbers = any(part.words is None and not part.missing.all() for part in parts)
    return numbers and _any_words(parts)


def _python_parts(source: Source, layout: Layout, words: set[int]) -> Iterator[Part]:
    rows = _rows(source, layout.separator)
    next(rows)
    count = max(1, min(CHUNK, MAX_CELLS // layout.width))
    while chunk := list(islice(rows, count)):
        for line, row in chunk:
            if len(row) != layout.width:
                found = checks.plural(len(row), "cell")
                raise ValueError(f"{source.name}, line {line} has {found}, expected {layout.width}")
        cells = zip(*(row for _, row in chunk), strict=True)
        columns = [_column(each, i in words, layout.comma) for i, each in enumerate(cells)]
        yield columns, np.array([line for line, _ in chunk], np.int64)


def _column(cells: Sequence[str], as_words: bool, comma: bool) -> Column:
    if not as_words and not comma and "_" not in "".join(cells):
        with contextlib.suppress(ValueError):  # most often all are numbers, and none is missing
            return Column("", np.fromiter(map(float, cells), np.float64, len(cells)))
    distinct = dict.fromkeys(cells)
    values = None if as_words else numbers_of([cell.strip() for cell in distinct], comma=comma)
    if values is None:
        return coded("", cells, distinct, comma=comma)
    known = dict(zip(distinct, values, strict=True))
    return Column("", np.array([known[cell] for cell in cells], np.float64))


def _rows(source: Source, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line number and the cells of each row that is not blank."""
    with source.open() as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        yield from _parsed(source.name, text, separator)


def _some(name: str, line: int, cells: list[str]) -> list[str]:
    if len(cells) > MAX_COLUMNS:
        raise ValueError(f"{name}, line {line} has more than {MAX_COLUMNS:,} cells")
    return cells


def _lines(name: str, text: Any) -> Iterator[str]:
    """The lines of a text, none of them too long to hold the cells of."""
    for line in count(1):
        each = text.readline(MAX_LINE + 1)
        if len(each) > MAX_LINE:
            raise ValueError(f"{name}, line {line} has more than {MAX_LINE:,} characters")
        if not each:
            return
        yield each


def _parsed(name: str, text: Any, separator: str) -> Iterator[tuple[int, list[str]]]:
    line, lines = 0, _lines(name, text)
    try:
        if separator == " ":
            for line, each in enumerate(lines, start=1):
                if cells := each.split():
                    yield line, _some(name, line, cells)
            return
        reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
        for row in reader:
            line = reader.line_num
            if len(row) > 1 or (row and row[0].strip()):
                yield line, _some(name, line, row)
    except csv.Error as error:
        raise ValueError(f"{name}, line {line + 1}: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text: save it as such") from None


def top_row(layout: Layout, words: set[int]) -> list[Column]:
    """The first row, where it is no header, as columns of one cell."""
    return [_column([cell], i in words, layout.comma) for i, cell in enumerate(layout.first)]


def _with_first(
    source: Source, layout: Layout, columns: list[Column], lines: np.ndarray, words: set[int]
) -> tuple[list[Column], np.ndarray]:
    """The columns with the first row above them, which is no header."""
    top = top_row(layout, words)
    pairs = list(zip(top, columns, strict=True))
    if mixed := {i for i, pair in enumerate(pairs) if _is_mixed(list(pair))}:
        columns, lines = _read(source, layout, words | mixed)
        top = top_row(layout, words | mixed)
        pairs = list(zip(top, columns, strict=True))
    both = [_joined(list(pair)) for pair in pairs]
    return both, np.concatenate([[layout.line], lines])
