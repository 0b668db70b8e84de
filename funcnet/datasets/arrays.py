"""Data from the user's own files: .npz and .csv to train on, .npy too to predict from.

Nothing is ever unpickled.
"""

import contextlib
import csv
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import MISSING, as_classes, number
from funcnet.datasets.dataset import Dataset, DataWarning, naming_file
from funcnet.datasets.npz import labelled, labelled_npz, read_npy, read_npz
from funcnet.datasets.splits import check_fractions, split

HEADER = {"yes": True, "no": False}


def load_arrays(
    path: str | PathLike[str],
    *,
    label: str | None = None,
    header: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load examples with class labels from one file and split them.

    A `.npz` holds x `[N, ...]` and y `[N]`; x keeps its dtype. A `.csv` (UTF-8, commas) holds
    one example a row; features become float32, or float64 if that would round them. Its first row
    is a header if no cell of it is a number, if a feature in it is not, or if its label is one that
    no other row has; names that count up, 0, 1, 2, are taken for one with a `DataWarning`, and
    `header` decides. A first row of counts and names, as in scikit-learn's own files, is known.

    Classes are the labels that occur: integers or other numbers in their order, bools, strings in a
    sorted order, or one-hot rows; see `datasets.classes`. Examples without a label (empty, NA, NaN)
    are left out, with a `DataWarning` that counts them. A number of many values is refused.

    The split is stratified: after a shuffle that depends on `seed` alone, each class gives
    about the same fraction of its examples, and a class too small to give to every split
    keeps its last example for training. Every example is in exactly one split.

    Args:
      path: a `.npz` or `.csv` file.
      label: the name of the label column of a CSV, which then has a header; by default the
        label is the last column.
      header: whether the first row of a CSV names the columns, "yes" or "no"; found if None.
      val_fraction: the fraction of examples for validation, from 0.
      test_fraction: the fraction for testing, from 0; the rest, which is not nothing, is to
        train.
      seed: of the shuffle, from 0.
    Returns:
      A Dataset; a split is empty if its fraction of the examples rounds to none.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: what is wrong with the file, with the line and the column of a CSV.
    """
    fractions = check_fractions(val_fraction, test_fraction)
    seed = checks.NATURAL.check("seed", seed)
    path = Path(path)
    if _suffix(path, label, (".npz", ".csv")) == ".csv":
        x, y, class_names = _labelled_csv(path, label, _header(header))
    else:
        x, y, class_names = labelled_npz(path)
    with naming_file(path):
        train, val, test = split(y, *fractions, seed)
    return Dataset(x[train], y[train], x[val], y[val], x[test], y[test], class_names)


def read_inputs(
    path: str | PathLike[str], *, label: str | None = None, header: str | None = None
) -> np.ndarray:
    """Read examples without labels, to predict from.

    Args:
      path: a `.npy` array, a `.npz` with x (a y in it is not looked at), or a `.csv`, with or
        without a header, all columns of which are features, in the order of the training
        data: names in a header are not looked at.
      label: the name of a column of a CSV with a header to leave out.
      header: as for `load_arrays`.
    Returns:
      x [N, ...], float32 from a CSV, otherwise of the dtype in the file.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: what is wrong with the file, with the line and the column of a CSV.
    """
    path = Path(path)
    suffix = _suffix(path, label, (".npy", ".npz", ".csv"))
    if suffix == ".csv":
        return _read_csv(path, label, _header(header), labelled=label is not None).features
    x = read_npy(path) if suffix == ".npy" else read_npz(path, ("x",))[0]
    with naming_file(path):
        return np.asarray(checks.inputs(x))


def _suffix(path: Path, label: str | None, known: tuple[str, ...]) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}, known: {', '.join(known)}")
    if label is not None and not isinstance(label, str):
        raise TypeError(f"label must be the name of a column, got {label!r}")
    if label is not None and suffix != ".csv":
        raise ValueError(f"label={label!r} names a column of a .csv file, but {path} is not one")
    return suffix


# .csv


class _Table(NamedTuple):
    """What a CSV file holds.

    Attributes:
      features: [N, D] float32, or float64 where that would round them.
      labels: N strings, none if no column is the label.
      lines: N line numbers.
      label_name: what to call the label column in errors.
      class_names: those that the first row gives, of the labels 0, 1, ...
    """

    features: np.ndarray
    labels: list[str]
    lines: list[int]
    label_name: str
    class_names: tuple[str, ...] = ()


def _labelled_csv(
    path: Path, label: str | None, header: bool | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    table = _read_csv(path, label, header, labelled=True)
    with naming_file(path):
        kept = labelled(path, table.labels)
        labels = np.array(table.labels, object)[kept]
        y, names = as_classes(labels, name=table.label_name)
    if names == tuple(map(str, range(len(table.class_names)))):
        names = table.class_names
    return table.features[kept], y, names


def _read_csv(path: Path, label: str | None, header: bool | None, *, labelled: bool) -> _Table:
    """Read a CSV, one column of which is the label if `labelled`."""
    rows = list(_rows(path))
    class_names = _counts(rows) if header is not True and label is None else ()
    if class_names:
        rows, header = rows[1:], False
    line, first = rows[0] if rows else (0, [])
    if not first:
        raise ValueError(f"{path} is empty")
    if labelled and len(first) < 2:
        raise ValueError(
            f"{path} has one column, needs features and a label, with commas in between"
        )
    if label is not None and header is False:
        raise ValueError(f"{path}: label={label!r} is a name in a header, but header is no")
    column = _label_column(path, first, label) if labelled else None
    width = len(first)
    names = [f"column {i}" for i in range(1, width + 1)]
    if header is None:
        header = label is not None or _is_header(path, rows, column)
    if header:
        _check_label_unique(path, first, column)
        names = [f"column {name!r}" for name in first]
        rows = rows[1:]
    label_name = names.pop(column) if column is not None else ""
    features, labels, lines = [], [], []
    for line, cells in rows:
        if len(cells) != width:
            count = checks.plural(len(cells), "cell")
            raise ValueError(f"{path}, line {line} has {count}, expected {width}")
        if column is not None:
            labels.append(cells.pop(column))
        features.append(_floats(f"{path}, line {line}", cells, names))
        lines.append(line)
    if not features:
        raise ValueError(f"{path} has a header, but no rows")
    x = np.stack(features)
    if not checks.rounds(x, np.float32, tolerance=1e-5):  # as it would seconds since 1970
        x = x.astype(np.float32)
    return _Table(x, labels, lines, label_name, class_names)


def _counts(rows: list[tuple[int, list[str]]]) -> tuple[str, ...]:
    """The class names of a first row `rows,features,class,names` whose counts fit; else none."""
    if len(rows) < 2:
        return ()
    counts, names = rows[0][1][:2], rows[0][1][2:]
    fits = counts == [str(len(rows) - 1), str(len(rows[1][1]) - 1)]
    return tuple(names) if fits and len(names) > 1 else ()


def _header(header: str | None) -> bool | None:
    return None if header is None else checks.choose("header", header, HEADER)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line number and the cells, stripped, of each row that is not blank."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if cells not in ([], [""]):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8 text") from None


def _label_column(path: Path, first: list[str], label: str | None) -> int:
    if label is None:
        return len(first) - 1
    if label not in first:
        raise ValueError(f"{path}: {checks.unknown('column', label, first)}")
    return first.index(label)


def _check_label_unique(path: Path, header: list[str], column: int | None) -> None:
    if column is not None and header.count(header[column]) > 1:
        raise ValueError(
            f"{path} has {header.count(header[column])} columns {header[column]!r}: which is "
            "the label? give each its own name"
        )


def _is_header(path: Path, rows: list[tuple[int, list[str]]], column: int | None) -> bool:
    """Whether the first row names columns, the label's being `column`, if any."""
    first = rows[0][1]
    if not any(map(_is_number, first)):
        return True
    features = [cell for i, cell in enumerate(first) if i != column]
    if not all(_is_number(cell) or cell.lower() in MISSING for cell in features):
        return True
    if column is not None:
        others = [cells[column] for _, cells in rows[1:] if len(cells) == len(first)]
        if first[column] in others:
            return False
        repeats = len(set(others)) < len(others)
        if not _is_number(first[column]) and (repeats or all(map(_is_number, others))):
            return True
    counting = len(features) > 1 and features == [str(i) for i in range(len(features))]
    if not counting or len(rows) < 2:
        return False
    warnings.warn(
        f"{path}: the first row, {', '.join(first[:3])}, ..., counts up and is taken for a header: "
        "--header no (header='no') makes it an example",
        DataWarning,
        stacklevel=5,
    )
    return True


def _number(cell: str) -> float:
    value = number(cell)
    if value is None:
        raise ValueError(cell)
    return value


def _is_number(cell: str) -> bool:
    return number(cell) is not None


def _floats(where: str, cells: list[str], names: list[str]) -> np.ndarray:
    """Cells [D] as float64 [D], or an error that names the first that is no finite number."""
    with contextlib.suppress(ValueError), np.errstate(over="ignore"):
        row = np.array([_number(cell) for cell in cells])
        if np.isfinite(row.astype(np.float32)).all():
            return row
    for cell, name in zip(cells, names, strict=True):
        if not cell:
            raise ValueError(f"{where}, {name}: the cell is empty")
        if not _is_number(cell):
            raise ValueError(f"{where}, {name}: {cell!r} is not a number")
        if not abs(_number(cell)) <= float(np.finfo(np.float32).max):
            raise ValueError(f"{where}, {name}: {cell} is not finite in float32")
    raise AssertionError("a row that is not finite has a cell that is not")
