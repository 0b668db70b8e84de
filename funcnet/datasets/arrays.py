"""Data from the user's own files: arrays, and tables; to train on, or to predict from.

Nothing is ever unpickled.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import Dataset
from funcnet.datasets.delimited import Format
from funcnet.datasets.encoding import plain_encoding
from funcnet.datasets.notes import naming_file
from funcnet.datasets.npz import labelled_npz, read_npy, read_npz
from funcnet.datasets.splits import check_fractions, split
from funcnet.datasets.tables import load_table, read_table

ARRAYS = (".npz", ".npy")  # what is no table


def load_arrays(
    path: str | PathLike[str],
    *,
    label: str | None = None,
    header: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    group: str | None = None,
    split_by: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load examples with class labels from one file and split them.

    A `.npz` holds x `[N, ...]` and y `[N]`; x keeps its dtype. Any other file is a table, see
    `load_table`.

    Classes are the labels that occur: integers or other numbers in their order, bools, strings in a
    sorted order, or one-hot rows; see `datasets.classes`. Examples without a label (empty, NA, NaN)
    are left out, with a `DataWarning` that counts them. A number of many values is refused.

    The split is stratified: after a shuffle that depends on `seed` alone, each class gives
    about the same fraction of its examples, and a class too small to give to every split
    keeps its last example for training. Every example is in exactly one split.

    Args:
      path: a `.npz`, or the file of a table.
      label: the label column of a table, `target` of `load_table`.
      header, separator, decimal, columns, drop, categorical, group, split_by: of a table, as for
        `load_table`.
      val_fraction: the fraction of examples for validation, from 0.
      test_fraction: the fraction for testing, from 0; the rest, which is not nothing, is to
        train.
      seed: of the shuffle, from 0.
    Returns:
      A Dataset; a split is empty if its fraction of the examples rounds to none.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: what is wrong with the file, with the line and the column of a table.
    """
    fractions = check_fractions(val_fraction, test_fraction)
    seed = checks.NATURAL.check("seed", seed)
    of_tables: dict[str, Any] = {
        "header": header,
        "separator": separator,
        "decimal": decimal,
        "columns": columns,
        "drop": drop,
        "categorical": categorical,
        "group": group,
        "split_by": split_by,
    }
    if label is not None and not isinstance(label, str):
        raise TypeError(f"label must be the name of a column, got {label!r}")
    if Path(path).suffix.lower() not in ARRAYS:
        return load_table(
            path,
            label,
            **of_tables,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
    _check_array(path, {"label": label, **of_tables})
    path = Path(path)
    x, y, class_names = labelled_npz(path)
    with naming_file(path):
        train, val, test = split(y, *fractions, seed)
    return Dataset(x[train], y[train], x[val], y[val], x[test], y[test], class_names)


def read_inputs(
    path: str | PathLike[str],
    *,
    label: str | None = None,
    header: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
) -> np.ndarray:
    """Read examples without labels, to predict from with a model that was trained on arrays.

    A model that was trained on a table takes the path of one itself: `predict(model, path)`.

    Args:
      path: a `.npy` array, a `.npz` with x (a y in it is not looked at), or the file of a table,
        all columns of which are features, numbers, in the order of the training data: names are
        not looked at.
      label: the name of a column of a table to leave out.
      header, separator, decimal: as for `load_table`.
    Returns:
      x [N, ...], of the dtype in the file; of a table float32, or float64 where that would round
      to its harm.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: what is wrong with the file, with the line and the column of a table.
    """
    suffix = Path(path).suffix.lower()
    form = Format(header, separator, decimal)
    if suffix not in ARRAYS:
        table = read_table(path, form, label=label)
        if label is not None:
            table.column(label)
        return plain_encoding(table, label or "")(table)
    _check_array(path, {"label": label, **form._asdict()})
    path = Path(path)
    x = read_npy(path) if suffix == ".npy" else read_npz(path, ("x",))[0]
    with naming_file(path):
        return np.asarray(checks.inputs(x))


def _check_array(path: str | PathLike[str], options: dict[str, Any]) -> None:
    """Raise if something is said of a file of arrays that only tables have."""
    for name, value in options.items():
        if value is not None and value != ():
            raise ValueError(f"{name}={value!r} is for tables, but {path} holds arrays")
