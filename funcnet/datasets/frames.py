"""Data frames of other libraries, pandas, Polars or Arrow, as tables: by narwhals."""

import importlib.util
from typing import Any

import numpy as np

from funcnet.datasets.sources import Source
from funcnet.datasets.table import Column, Table, as_column

_LIBRARIES = ("pandas", "polars", "pyarrow", "modin", "cudf")


def is_frame(data: Any) -> bool:
    """Whether data are a frame of a library that narwhals knows."""
    return type(data).__module__.partition(".")[0] in _LIBRARIES


def from_frame(data: Any, source: str, words: tuple[str, ...] = ()) -> Table:
    """A frame as a Table.

    Args:
      data: the frame, of N rows.
      source: what errors call it.
      words: names of columns whose numbers are words.
    Raises:
      ImportError: narwhals is not installed.
      ValueError: a column is of a type that no cell of a table has, it is named.
    """
    needed("narwhals", "to read data frames")
    import narwhals as nw

    frame = nw.from_native(data, eager_only=True)
    columns = []
    for name in frame.columns:
        series = frame.get_column(name)
        columns.append(_column(nw, str(name), series, str(name) in words))
    return Table(tuple(columns), source, True)


def from_file(source: Source, kind: str, words: tuple[str, ...] = ()) -> Table:
    """The table in a file of Apache Parquet or Arrow (IPC, Feather).

    Args:
      source: the file.
      kind: "parquet" or "arrow".
      words: as for `from_frame`.
    Raises:
      ImportError: pyarrow or narwhals is not installed.
      ValueError: the file is damaged.
    """
    needed("pyarrow", f"to read {source.name}")
    import pyarrow as pa
    from pyarrow import ipc, parquet

    from funcnet.datasets.limits import check_size

    with source.open() as stream:
        data = stream.read()
    try:
        if kind == "parquet":
            file = parquet.ParquetFile(pa.BufferReader(data))
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            check_size(source.name, len(data), sum(group.total_byte_size for group in groups))
            table = file.read()
        else:
            with ipc.open_file(pa.BufferReader(data)) as reader:
                table = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source.name} cannot be read as {kind}: {reason}") from None
    return from_frame(table, source.name, words)


def needed(package: str, purpose: str) -> None:
    """Raise an ImportError that says what to install unless `package` is there."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{package} is needed {purpose}: pip install "funcnet[tables]"')


def _column(nw: Any, name: str, series: Any, as_words: bool) -> Column:
    kind = series.dtype
    if kind.is_numeric():
        values = series.cast(nw.Float64).to_numpy()
        column = Column(name, np.array(values, np.float64))
        return column.texts() if as_words else column
    if kind == nw.Categorical or kind == nw.Enum:
        series, as_words = series.cast(nw.String), True
    elif kind.is_temporal():
        if kind == nw.Duration or kind == nw.Time:
            raise ValueError(f"column {name!r} holds {kind}: make a number of it, or drop it")
    elif kind not in (nw.String, nw.Boolean, nw.Object, nw.Unknown, nw.Binary):
        raise ValueError(f"column {name!r} holds {kind}: one value for each row, or drop it")
    cells = np.empty(len(series), object)
    cells[:] = series.to_list()
    return as_column(name, cells, text=as_words)
