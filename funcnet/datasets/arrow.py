"""What pyarrow reads, where it is installed: large text files, quickly; Parquet and Arrow files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from funcnet.datasets.classes import MISSING
from funcnet.datasets.sources import Source
from funcnet.datasets.table import Column, coded, numbers_of

_BLOCK = 1 << 22  # bytes of text that are parsed at once


class OtherLines(Exception):
    """Quotes, line breaks of old, blank lines: what readers take in different ways."""


def parts(
    source: Source, separator: str, width: int, words: set[int], *, comma: bool
) -> Iterator[tuple[list[Column], np.ndarray]]:
    """The columns of a text file below its first line, in parts, and the lines of their rows.

    Raises:
      OtherLines: it cannot be read, or not to the values that Python's csv gives.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = [str(i) for i in range(width)]
    parsing = csv.ParseOptions(delimiter=separator)
    converting = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[], strings_can_be_null=False
    )
    line = 2
    for block, rows in _blocks(source):
        reading = csv.ReadOptions(column_names=names, block_size=len(block) + 1)
        try:
            table = csv.read_csv(
                pa.BufferReader(block), reading, parse_options=parsing, convert_options=converting
            )
            if table.num_rows != rows:
                raise OtherLines  # of blank lines: Python's csv knows where rows are
            arrays = table.combine_chunks().columns
            columns = [_column(a.chunk(0), i in words, comma) for i, a in enumerate(arrays)]
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            raise OtherLines from None
        yield columns, np.arange(line, line + rows)
        line += rows


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
                raise OtherLines
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
