"""Data frames of other libraries, pandas, Polars or Arrow, as tables: by narwhals."""

from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets.limits import read_all
from funcnet.datasets.notes import note
from funcnet.datasets.sources import Source
from funcnet.datasets.table import Column, Table, as_column
from funcnet.text import one_line

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
    checks.installed("narwhals", "to read data frames", extra="tables")
    import narwhals as nw

    if type(data).__name__ == "RecordBatch":
        import pyarrow as pa

        data = pa.Table.from_batches([data])
    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError as error:
        raise TypeError(f"{source} is no data frame: {one_line(error)}") from None
    except ValueError as error:  # names that occur twice
        raise ValueError(f"{source}: {one_line(error)}") from None
    columns: dict[str, Column] = {}
    for original in frame.columns:
        name = str(original)
        if name in columns:
            raise ValueError(f"{source} has two columns {name!r}: give each a name of its own")
        columns[name] = _column(nw, source, name, frame.get_column(original), name in words)
    return Table(tuple(columns.values()), source, True)


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
    checks.installed("pyarrow", f"to read {source.name}", extra="tables")
    from funcnet.datasets import columnar

    with source.open() as stream:
        data = read_all(source.name, stream)
    return from_frame(columnar.READERS[kind](source.name, data), source.name, words)


def _column(nw: Any, source: str, name: str, series: Any, as_words: bool) -> Column:
    kind = series.dtype
    if kind.is_numeric():
        if as_words and kind.is_integer():  # of which floats may lack digits
            cells = np.empty(len(series), object)
            cells[:] = [None if v is None or v != v else str(int(v)) for v in series.to_list()]
            return as_column(name, cells, text=True)
        column = Column(name, _numbers(nw, series))
        return column.texts() if as_words else column
    if kind == nw.Categorical or kind == nw.Enum:
        series, as_words = series.cast(nw.String), True
    dated = kind == nw.Date or kind == nw.Datetime
    if not (as_words or dated or kind in (nw.String, nw.Boolean, nw.Object, nw.Unknown)):
        return _left_out(source, name, f"{kind} is neither a number, a word nor a date", series)
    cells = np.empty(len(series), object)
    try:
        cells[:] = series.to_list()
        return as_column(name, cells, text=as_words)
    except (OverflowError, ValueError, TypeError) as error:
        return _left_out(source, name, one_line(error), series)


def _left_out(source: str, name: str, reason: str, series: Any) -> Column:
    """A column without values, where there are none that a table can have."""
    note(f"{source}: column {name!r} is left out: {reason}")
    return Column(name, np.full(len(series), -1, np.int32), ())


def _numbers(nw: Any, series: Any) -> np.ndarray:
    try:
        return np.array(series.cast(nw.Float64).to_numpy(), np.float64)
    except Exception:  # Arrow does not round the integers that float64 does not have
        return np.array([np.nan if v is None else float(v) for v in series.to_list()], np.float64)
