"""Files of Apache Parquet and Arrow, read by pyarrow: no more of them than they may hold.

What a file says of itself is added up before it is unpacked: compressed buffers, values that are
repeated at no cost, and words that a dictionary holds once.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import compute, ipc, parquet

from funcnet.datasets import delimited
from funcnet.datasets.limits import check_ratio, check_size
from funcnet.datasets.notes import listed, note
from funcnet.text import one_line

_WHOLE = {  # types of words, and what holds more than 2 GiB of them
    **dict.fromkeys((pa.string(), pa.large_string(), pa.string_view()), pa.large_string()),
    **dict.fromkeys((pa.binary(), pa.large_binary(), pa.binary_view()), pa.large_binary()),
}
_DICTIONARY, _BATCH = "dictionary", "record batch"  # messages that have buffers


def read_parquet(name: str, data: bytes) -> Any:
    """The pyarrow.Table in a file of Parquet.

    Args:
      name: of the file, for errors.
      data: its bytes.
    Raises:
      ValueError: it is damaged, or would unpack to too much.
    """
    with _readable(name, "parquet"):
        found = parquet.ParquetFile(pa.BufferReader(data)).metadata
        check_size(name, len(data), sum(_said(found)))
        cells, words = _cells(name, found)
        file = parquet.ParquetFile(pa.BufferReader(data), read_dictionary=words)
        table = file.read(columns=cells)
        check_size(name, len(data), _checked(table))
        return _plain(table, found)


def parquet_rows(name: str, stream: BinaryIO) -> int:
    """How many rows a file of Parquet has; see `read_parquet`."""
    with _readable(name, "parquet"):
        return int(parquet.ParquetFile(stream).metadata.num_rows)


def parquet_parts(name: str, stream: BinaryIO, size: int) -> Iterator[Any]:
    """What is in a file of Parquet, some rows at a time, as pyarrow.Tables.

    Args:
      name: of the file, for errors.
      stream: the file, in which one can seek.
      size: its bytes.
    Raises:
      ValueError: it is damaged, or would unpack to too much.
    """
    with _readable(name, "parquet"):
        found = parquet.ParquetFile(stream).metadata
        groups = _said(found)
        check_ratio(name, size, sum(groups))
        check_size(name, size, max(groups, default=0))
        cells, words = _cells(name, found)
        file = parquet.ParquetFile(stream, read_dictionary=words)
        rows = max(1, min(delimited.CHUNK, delimited.MAX_CELLS // max(1, len(cells))))
        batches = file.iter_batches(rows, columns=cells)
    unpacked = 0
    while True:
        with _readable(name, "parquet"):
            batch = next(batches, None)
            if batch is None:
                return
            table = pa.Table.from_batches([batch])
            length = _checked(table)
            unpacked += length
            check_size(name, size, length)
            check_ratio(name, size, unpacked)
            part = _plain(table, found)
        yield part


def _said(found: Any) -> list[int]:
    """The bytes that each group of rows says to hold; values may be repeated at no cost."""
    leaves = [found.schema.column(i) for i in range(found.num_columns)]
    row = sum(max(8, leaf.length or 0) for leaf in leaves)
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    return [max(group.total_byte_size, row * group.num_rows, 0) for group in groups]


def _cells(name: str, found: Any) -> tuple[list[str], list[str]]:
    """The columns to read, and those of words, which stay in a dictionary.

    Until it is known how long they all are, that is. How many values lists have is not said: they
    are no cells, and stay where they are.
    """
    leaves = [found.schema.column(i) for i in range(found.num_columns)]
    cells = [leaf.path for leaf in leaves if not leaf.max_repetition_level]
    if lists := [leaf.path for leaf in leaves if leaf.max_repetition_level]:
        note(f"{name}: left out, since they hold lists: {listed(lists)}")
    return cells, [leaf.path for leaf in leaves if _is_text(leaf)]


def _plain(table: Any, found: Any) -> Any:
    """The table with words in the place of their dictionaries."""
    plain = {field.name: field.type for field in found.schema.to_arrow_schema()}
    fields = [(f.name, _WHOLE.get(plain.get(f.name), f.type)) for f in table.schema]
    return table.cast(pa.schema(fields))


def read_arrow(name: str, data: bytes) -> Any:
    """The pyarrow.Table in a file of Arrow (IPC, Feather); see `read_parquet`."""
    with _readable(name, "arrow"):
        buffer, size = pa.py_buffer(data), 0
        for place in _blocks(memoryview(data)):
            size += _unpacked(ipc.read_message(pa.BufferReader(buffer[place:])))
            check_size(name, len(data), size)
        with ipc.open_file(pa.BufferReader(buffer)) as reader:
            table = reader.read_all()
        check_size(name, len(data), _checked(table))
        return table


READERS: dict[str, Callable[[str, bytes], Any]] = {"parquet": read_parquet, "arrow": read_arrow}


@contextlib.contextmanager
def _readable(name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, struct.error, UnicodeError) as error:
        raise ValueError(f"{name} cannot be read as {kind}: {one_line(error)}") from None


def _is_text(leaf: Any) -> bool:
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL"


def _checked(table: Any) -> int:
    """The bytes of the words of a table; it raises if the lengths in it lead somewhere else."""
    table.validate(full=True)
    return sum(_length(chunk) for column in table.columns for chunk in column.chunks)


def _length(array: Any) -> int:
    """The bytes of the words that an array refers to, which may be one word often."""
    if pa.types.is_dictionary(array.type):
        of_each = _length_of_each(array.dictionary)
        return compute.sum(of_each.take(array.indices)).as_py() or 0
    return compute.sum(_length_of_each(array)).as_py() or 0


def _length_of_each(array: Any) -> Any:
    kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = np.frombuffer(array.buffers()[1] or b"", "<i4").reshape(-1, 4)
        return pa.array(views[array.offset : array.offset + len(array), 0])
    if kind in _WHOLE:
        return compute.binary_length(array)
    return pa.nulls(len(array), pa.int32())


# Arrow says in flatbuffers where its batches are and how large their buffers: tables, whose fields
# are found by a table of places. https://arrow.apache.org/docs/format/Columnar.html, File.fbs and
# Message.fbs


def _blocks(data: memoryview) -> list[int]:
    """Where the dictionaries and the batches of a file are, as what it ends with says."""
    (length,) = struct.unpack_from("<i", data, len(data) - 10)  # and ARROW1
    end = data[max(len(data) - 10 - length, 0) :]
    vectors = [_items(end, _field(end, _table(end, 0), number), 24) for number in (2, 3)]
    return [place for each in vectors for place, *_ in struct.iter_unpack("<qqq", each)]


def _unpacked(message: Any) -> int:
    """The bytes of the buffers of a message, unpacked; 8 for each value, if they are less."""
    if message.type not in (_DICTIONARY, _BATCH):
        return 0
    data = memoryview(message.metadata)
    batch = _table(data, _field(data, _table(data, 0), 2))
    if message.type == _DICTIONARY:
        batch = _table(data, _field(data, batch, 1))
    values = sum(max(length, 0) for length, _ in _pairs(data, _field(data, batch, 1)))
    buffers = _pairs(data, _field(data, batch, 2))
    size = sum(max(length, 0) for _, length in buffers)
    if _field(data, batch, 3):  # it is compressed, but for buffers that say -1
        body = memoryview(message.body)
        said = [struct.unpack_from("<q", body, at)[0] for at, length in buffers if length]
        size += sum(max(length, 0) for length in said)
    return max(size, 8 * values)


def _table(data: memoryview, at: int) -> int:
    """Where the table is that a place points to."""
    return at + struct.unpack_from("<I", data, at)[0]


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it has none."""
    places = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, places)[0]:
        return 0
    place = struct.unpack_from("<H", data, places + 4 + 2 * number)[0]
    return table + place if place else 0


def _pairs(data: memoryview, at: int) -> list[tuple[int, int]]:
    """The structs of two integers in a vector."""
    return list(struct.iter_unpack("<qq", _items(data, at, 16)))


def _items(data: memoryview, at: int, size: int) -> memoryview:
    """The structs of so many bytes in a vector; none if there is no vector."""
    if not at:
        return data[:0]
    start = _table(data, at)
    count = struct.unpack_from("<I", data, start)[0]
    return data[start + 4 : start + 4 + size * count]
