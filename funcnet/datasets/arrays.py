"""Data from the user's own files: arrays, and tables; to train on, or to predict from.

Nothing is ever unpickled.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import Dataset
from funcnet.datasets.delimited import Format
from funcnet.datasets.encoding import plain_encoding
from funcnet.datasets.images import holds_images, read_folder
from funcnet.datasets.mapped import MEMORY_MAP, open_pairs, open_shards, stays_on_disk
from funcnet.datasets.names import find_pairs
from funcnet.datasets.notes import naming_file
from funcnet.datasets.npz import read_npy
from funcnet.datasets.pairs import array_names, load_pairs, read_x
from funcnet.datasets.pixels import SUFFIXES, is_image
from funcnet.datasets.shard_files import holds_shards
from funcnet.datasets.splits import check_fractions, check_ranges
from funcnet.datasets.tables import load_table, names_of, read_table
from funcnet.datasets.tasks import check_task

ARRAYS = (".npz", ".npy", *SUFFIXES)  # what is no table


def load_arrays(
    path: str | PathLike[str],
    *,
    label: str | Sequence[str] | None = None,
    task: str | None = None,
    weight: str | None = None,
    header: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    group: str | None = None,
    split_by: str | None = None,
    memory_map: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """Load examples with their targets from a file and split them, unless it is split already.

    A `.npz` holds x `[N, ...]` and y `[N]` or `[N, K]`, and x keeps its dtype; or x_train, y_train,
    and with them x_val, y_val (or valid, validation), x_test, y_test or both. Case does not matter,
    the split may stand first, as in train_images, and examples may be called data, images, features
    or inputs if their labels are called target(s) or label(s). Where two pairs fit, they are
    refused. Instead, `.npy` files of such names may lie side by side: the path is that of the
    examples, x.npy or x_train.npy, or of their directory. Splits that are given are kept as they
    are, and what is not given is cut from the training part; a class that is not in it is in a
    `DataWarning`. Files larger than they say, or than `datasets.limits` allow, are refused.

    Data larger than memory: a directory of shards, which `convert_dataset` makes of other files,
    stays on disk, and so do `.npy` files of 1 GiB and more, which is said. Their fields of the
    Dataset are `Stored`, of which `fit`, `evaluate` and `predict` read parts as they want them.
    What is cut from the training part of such `.npy` files are blocks of neighbouring rows, of 128
    KiB, which depend on `seed` alone; examples without a label are refused there, and so are those
    that are not finite, when they are read.

    Any other file is a table, see `load_table`.

    Classes are the labels that occur: integers or other numbers in their order, bools, strings in a
    sorted order, or one-hot rows; see `datasets.classes`. A number of many values, or several of
    them, is regression; columns of 0 and 1 are several labels: where that is a guess it is said in
    a `DataWarning`, and `task` decides otherwise. Examples without a label (empty, NA, NaN) are
    left out, with a `DataWarning` that counts them.

    The split of classes is stratified: after a shuffle that depends on `seed` alone, each class
    gives about the same fraction of its examples, and a class too small to give to every split
    keeps its last example for training. Every example is in exactly one split.

    Args:
      path: a `.npz`, a `.npy`, a directory of such, one of shards, or the file of a table.
      label: the column, or columns, of a table to predict, `target` of `load_table`.
      task: "classification", "regression" or "multilabel"; None finds it from the targets.
      weight: the column of a table that says how much each example counts.
      header, separator, decimal, columns, drop, categorical, group, split_by: of a table, as for
        `load_table`.
      memory_map: of `.npy` files and shards, "yes" leaves them on disk, "no" reads all into memory;
        None goes by what they are.
      val_fraction: the fraction of examples for validation, from 0; 0.1 if None. It is refused
        where that split is given.
      test_fraction: the fraction for testing, in the same way; the rest, which is not nothing, is
        to train.
      seed: of the shuffle, from 0.
    Returns:
      A Dataset; a split is empty if its fraction of the examples rounds to none.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: what is wrong with the file, with the line and the column of a table.
    Example:
      >>> np.savez("data.npz", x=np.arange(200.0).reshape(100, 2), y=np.tile(["cat", "dog"], 50))
      >>> data = fn.load_arrays("data.npz", val_fraction=0.2, test_fraction=0.2)
      >>> data.x_train.shape, data.x_val.shape, data.class_names
      ((60, 2), (20, 2), ('cat', 'dog'))
    """
    check_ranges(val_fraction, test_fraction)
    seed = checks.NATURAL.check("seed", seed)
    of_tables: dict[str, Any] = {
        "weight": weight,
        "header": header,
        "separator": separator,
        "decimal": decimal,
        "columns": columns,
        "drop": drop,
        "categorical": categorical,
        "group": group,
        "split_by": split_by,
    }
    check_task(task)
    if memory_map is not None:
        checks.choose("memory_map", memory_map, MEMORY_MAP)
    names_of("label", label)
    if not holds_arrays(path):
        if memory_map is not None:
            raise ValueError(f"memory_map={memory_map!r} is for arrays, and {path} is a table")
        return load_table(
            path,
            label,
            task=task,
            **of_tables,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
    check_array(path, {"label": label, **of_tables})
    path = Path(path)
    if holds_shards(path):
        check_fractions(val_fraction, test_fraction, ("val", "test"))
        return open_shards(path, task, memory_map)
    packed = path.suffix.lower() == ".npz"
    if packed and memory_map == "yes":
        raise ValueError(f"{path} is packed: funcnet datasets convert makes shards of it")
    pairs = find_pairs(path, array_names(path))
    stays = not packed and stays_on_disk(path, pairs, memory_map)
    load = open_pairs if stays else load_pairs
    return load(path, pairs, val_fraction, test_fraction, seed, task=task)


def read_inputs(
    path: str | PathLike[str],
    *,
    label: str | Sequence[str] | None = None,
    header: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    size: Sequence[int] | None = None,
) -> np.ndarray:
    """Read examples without labels, to predict from with a model that was trained on arrays.

    A model that was trained on a table takes the path of one itself: `predict(model, path)`.

    Args:
      path: a `.npy` array; a `.npz` or a directory of `.npy` files, of which x is read, or
        x_test if there are splits, under any of the names that `load_arrays` knows (labels are not
        looked at); an image, or a folder of images, in the order of their names, see
        `load_images`; or the file of a table, all columns of which are features, numbers, in the
        order of the training data: names are not looked at.
      label: the name of a column of a table to leave out, or several.
      header, separator, decimal: as for `load_table`.
      size: the (H, W) that images are resized to; arrays stay as they are.
    Returns:
      x [N, ...], of the dtype in the file; of images uint8; of a table float32, or float64 where
      that would round to its harm.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: what is wrong with the file, with the line and the column of a table.
    Example:
      >>> np.save("new.npy", np.ones((3, 2), "f"))
      >>> fn.read_inputs("new.npy").shape
      (3, 2)
    """
    form = Format(header, separator, decimal)
    if not holds_arrays(path):
        labels = names_of("label", label)
        table = read_table(path, form, label=labels[0] if labels else None)
        for name in labels:
            table.column(name)
        return plain_encoding(table, labels)(table)
    check_array(path, {"label": label, **form._asdict()})
    path = Path(path)
    if is_image(path) or holds_images(path):
        return read_folder(path, size)
    x = read_npy(path) if path.suffix.lower() == ".npy" and path.is_file() else read_x(path)
    with naming_file(path):
        return np.asarray(checks.inputs(x))


def holds_arrays(path: str | PathLike[str]) -> bool:
    """Whether a path is that of arrays, or of a directory, rather than of a table."""
    return Path(path).suffix.lower() in ARRAYS or Path(path).is_dir()


def check_array(
    path: str | PathLike[str], options: Mapping[str, Any], *, what: str = "arrays"
) -> None:
    """Raise a ValueError if something is said of a file of arrays that only tables have."""
    for name, value in options.items():
        if value is not None and value != ():
            raise ValueError(f"{name}={value!r} is for tables, but {path} holds {what}")
