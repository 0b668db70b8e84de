"""What pyarrow reads, where it is installed: large text files, quickly; Parquet and Arrow files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from funcnet.datasets.classes import MISSING
from funcnet.datasets.sources import Source
from funcnet.datasets.table import Column, coded, numbers_of

_BLOCK = 1 << 22  # bytes of text that are parsed at once


def parts(
    source: Source, separator: str, width: int, words: set[int], *, comma: bool
) -> tuple[list[list[Column]], np.ndarray] | None:
    """The columns of a text file below its first line, in parts, and the lines of its rows.

    Returns:
      None if it cannot be read, or not to the values that Python's csv gives.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = [str(i) for i in range(width)]
    parsing = csv.ParseOptions(delimiter=separator)
    converting = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[], strings_can_be_null=False
    )
    columns: list[list[Column]] = [[] for _ in names]
    count = 0
    try:
        for block, rows in _blocks(source):
            reading = csv.ReadOptions(column_names=names, block_size=len(block) + 1)
            table = csv.read_csv(
                pa.BufferReader(block), reading, parse_options=parsing, convert_options=converting
            )
            if table.num_rows != rows:
                return None  # of blank lines: Python's csv knows where rows are
            count += rows
            for i, array in enumerate(table.combine_chunks().columns):
                columns[i].append(_column(array.chunk(0), i in words, comma))
    except (pa.ArrowInvalid, pa.ArrowKeyError, _OtherLines):
        return None
    lines = np.arange(2, count + 2)
    return [each or [Column("", np.zeros(0))] for each in columns], lines


class _OtherLines(Exception):
    """Quotes, or line breaks of old, which readers take in different ways."""


def _blocks(source: Source) -> Iterator[tuple[bytes, int]]:
    """Whole lines below the first one, many at once, and how many they are."""
    with source.open() as raw:
        rest, first = b"", True
        while True:
            data = raw.read(_BLOCK)
            block, rest = rest + data, b""
            if data:
                end = block.rfind(b"\n") + 1
                block, rest = block[:end], block[end:]
            if b'"' in block or b"\r" in block.replace(b"\r\n", b""):
                raise _OtherLines
            if first and block:
                block, first = block[block.find(b"\n") + 1 or len(block) :], False
            if block:
                yield block, block.count(b"\n") + (not block.endswith(b"\n"))
            if not data:
                return


def _column(array: Any, as_words: bool, comma: bool) -> Column:
    import pyarrow as pa
    from pyarrow import compute

    trimmed = compute.utf8_trim_whitespace(array)
    if not as_words and not comma:
        missing = compute.is_in(compute.utf8_lower(trimmed), value_set=pa.array(sorted(MISSING)))
        try:
            cast = compute.cast(compute.if_else(missing, None, trimmed), pa.float64())
            values = cast.to_numpy(zero_copy_only=False)
            if np.isnan(values).sum() == cast.null_count:  # no word was taken for NaN
                return Column("", values)
        except pa.ArrowInvalid:
            pass
    encoded = trimmed.dictionary_encode()
    distinct, places = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    known = None if as_words else numbers_of(distinct, comma=comma)
    if known is not None:
        return Column("", np.array(known)[places])
    column = coded("", distinct, distinct, comma=comma)
    return column._replace(values=column.values[places])
