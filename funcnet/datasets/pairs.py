"""Datasets of arrays that have names: in a .npz, or as .npy files side by side in a directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from funcnet import checks
from funcnet.datasets import names as naming
from funcnet.datasets.dataset import Dataset
from funcnet.datasets.given import dataset_of
from funcnet.datasets.names import Pair, find_inputs
from funcnet.datasets.notes import naming_file
from funcnet.datasets.npz import Rows, labelled, npy_rows, npz_names, npz_rows, read_npy, read_npz
from funcnet.datasets.splits import check_fractions, check_ranges
from funcnet.datasets.tasks import as_targets
from funcnet.files import check_entry, open_file


def load_pairs(
    path: Path,
    pairs: Mapping[str, Pair],
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
    *,
    task: str | None = None,
) -> Dataset:
    """The Dataset in a .npz, in a directory of .npy files, or of one .npy and those beside it.

    Args:
      path: the file or the directory.
      pairs: the pairs of each split in it, by `find_pairs`.
      val_fraction, test_fraction, seed, task: as for `load_arrays`.
    Raises:
      FileNotFoundError, ValueError: see `load_arrays`.
    """
    check_ranges(val_fraction, test_fraction)
    with naming_file(path):
        fractions = check_fractions(val_fraction, test_fraction, pairs)
    arrays = iter(read_arrays(path, [name for pair in pairs.values() for name in pair]))
    x, labels = {}, {}
    with naming_file(path):
        for split, pair in pairs.items():
            x[split], labels[pair.y] = _checked(path, pair, next(arrays), next(arrays))
            check_shape(pair, x[split].shape, pairs["train"], x["train"].shape)
        targets = as_targets(labels, task, path)
    return dataset_of(path, x, targets, fractions, seed)


def read_x(path: Path) -> np.ndarray:
    """The examples to predict from in a .npz or in a directory of .npy files, unchecked."""
    return read_arrays(path, [find_inputs(path, array_names(path))])[0]


def holds_npy(directory: Path) -> bool:
    """Whether there are .npy files in it."""
    return any(map(_is_npy, directory.iterdir()))


def _checked(
    path: Path, pair: Pair, x: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The examples that have a label, and these."""
    x = np.asarray(checks.inputs(x, name=pair.x))
    check_labels(pair, len(x), np.shape(labels))
    kept = labelled(path, labels, "" if pair.y.lower() == "y" else pair.y)
    return (x, labels) if len(kept) == len(x) else (x[kept], labels[kept])


def check_labels(pair: Pair, count: int, shape: Sequence[int]) -> None:
    """Raise a ValueError unless labels of this shape are those of so many examples."""
    if tuple(shape[:1]) != (count,):
        raise ValueError(
            f"{pair.y} must have one label per example, {count} of them, got {list(shape)}"
        )


def check_shape(pair: Pair, shape: Sequence[int], train: Pair, expected: Sequence[int]) -> None:
    """Raise a ValueError unless examples [N, ...] have the shape of those to train."""
    if list(shape[1:]) != list(expected[1:]):
        raise ValueError(
            f"{pair.x} has examples of shape {list(shape[1:])}, {train.x} of {list(expected[1:])}"
        )


def array_names(path: Path) -> list[str]:
    """What the arrays are called; those beside a .npy are the ones that go with its name."""
    if path.is_dir():
        if not holds_npy(path):
            raise ValueError(f"{path} has no .npy files; images in it are for load_images")
        files = _npy_files(path)
        for file in files.values():
            check_entry(path, file)
        return list(files)
    if path.suffix.lower() == ".npz":
        return npz_names(path)
    if not _is_npy(path):
        raise ValueError(f"{path}: to learn from images give their folder, of a folder a class")
    with open_file(path):  # or say that there is none
        own = naming.role(path.stem)
    if own is None or own.kind != "x":
        raise ValueError(
            f"{path}: to learn from .npy files give the examples, named as x.npy with y.npy beside "
            "it, or as x_train.npy with y_train.npy and others; or their directory"
        )
    found = {name: naming.role(name) for name in _npy_files(path.parent)}
    return [
        name
        for name, each in found.items()
        if each is not None
        and each.family == own.family
        and (each.split is None) == (own.split is None)
        # Of other examples without a split there is no question: this file was asked for.
        and (own.split is not None or each.kind == "y" or name == path.stem)
    ]


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The arrays of these names, which are among `array_names`."""
    if not path.is_dir() and not _is_npy(path):
        return read_npz(path, names)
    files = npy_beside(path)
    return [read_npy(files[name]) for name in names]


def npy_beside(path: Path) -> dict[str, Path]:
    """The .npy files in a directory, or beside one of them, by their names."""
    return _npy_files(path if path.is_dir() else path.parent)


def open_array(path: Path, name: str, size: int) -> Rows:
    """An array of a name that is among `array_names`: see `npz.npy_rows`."""
    if not path.is_dir() and not _is_npy(path):
        return npz_rows(path, name, size)
    return npy_rows(npy_beside(path)[name], size)


def _npy_files(directory: Path) -> dict[str, Path]:
    """The .npy files in a directory, in the order of their names, by their names without it."""
    files: dict[str, Path] = {}
    for file in sorted(filter(_is_npy, directory.iterdir())):
        if files.setdefault(file.stem, file) != file:
            raise ValueError(f"{file} and {files[file.stem].name} have one name: rename one")
    return files


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"
