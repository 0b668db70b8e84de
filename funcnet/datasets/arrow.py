"""What pyarrow reads, where it is installed: large text files, quickly; Parquet and Arrow files."""

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
    columns: list[list[Column]] = [[] for _ in names]
    count = 0
    try:
        with source.open() as raw:
            counted = _Lines(raw)
            reader = csv.open_csv(
                pa.PythonFile(counted, mode="r"),
                read_options=csv.ReadOptions(column_names=names, skip_rows=1, block_size=_BLOCK),
                parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
            for batch in reader:
                count += batch.num_rows
                for i, array in enumerate(batch.columns):
                    columns[i].append(_column(array, i in words, comma))
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    if counted.doubtful or counted.lines - count not in (0, 1):
        return None  # blank lines, line breaks within cells: Python's csv knows where rows are
    lines = np.arange(2, count + 2)
    return [each or [Column("", np.zeros(0))] for each in columns], lines


class _Lines:
    """A stream that counts line breaks, and looks for what readers take in different ways."""

    def __init__(self, raw: Any) -> None:
        self._raw, self.lines, self.doubtful, self.closed = raw, 0, False, False

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self.lines += data.count(b"\n")
        self.doubtful = self.doubtful or b'"' in data or b"\r" in data.replace(b"\r\n", b"")
        return data

    def close(self) -> None:
        self.closed = True


def _column(array: Any, as_words: bool, comma: bool) -> Column:
    import pyarrow as pa
    from pyarrow import compute

    trimmed = compute.utf8_trim_whitespace(array)
    if not as_words and not comma:
        missing = compute.is_in(compute.utf8_lower(trimmed), value_set=pa.array(sorted(MISSING)))
        try:
            values = compute.cast(compute.if_else(missing, None, trimmed), pa.float64())
            return Column("", values.to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            pass
    encoded = trimmed.dictionary_encode()
    distinct, places = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    known = None if as_words else numbers_of(distinct, comma=comma)
    if known is not None:
        return Column("", np.array(known)[places])
    column = coded("", distinct, distinct)
    return column._replace(values=column.values[places])
