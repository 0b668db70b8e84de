"""Examples and labels in NumPy's own files, .npz and .npy. Nothing is ever unpickled."""

import contextlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import as_classes, missing_labels
from funcnet.datasets.notes import DataWarning, naming_file


def labelled_npz(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The labelled examples of a .npz: x, y and the names of the classes."""
    x, y = read_npz(path, ("x", "y"))
    with naming_file(path):
        x = np.asarray(checks.inputs(x))
        if np.ndim(y) == 0 or len(y) != len(x):
            raise ValueError(
                f"y must have one label per example, {len(x)} of them, got {list(np.shape(y))}"
            )
        kept = labelled(path, y)
        return x[kept], *as_classes(y[kept])


def labelled(path: Path, labels: Any) -> np.ndarray:
    """Which examples have a label, indices; those that have none are counted in a warning."""
    missing = missing_labels(labels)
    if missing.all():
        raise ValueError("no example has a label")
    if missing.any():
        count = checks.plural(int(missing.sum()), "example")
        warnings.warn(f"{path}: {count} without a label left out", DataWarning, stacklevel=4)
    return np.flatnonzero(~missing)


def read_npz(path: Path, keys: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays of these names."""
    with path.open("rb") as file, _readable(path):
        if not zipfile.is_zipfile(file):
            raise ValueError("not a zip file, or one cut short")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            if not missing:
                return [archive[key] for key in keys]
            found = ", ".join(map(repr, archive.files)) or "none"
    raise ValueError(f"{path} has no array {missing[0]!r}, the arrays in it: {found}")


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy."""
    with path.open("rb") as file, _readable(path):
        return np.lib.format.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what NumPy raises for a damaged file into one line."""
    try:
        yield
    except Exception as error:  # a dozen kinds, of zipfile, zlib, tokenize and others
        reason = " ".join(str(error).split())
        if "Object arrays" in reason:
            reason = "it holds Python objects, which would need unpickling; save numbers instead"
        raise ValueError(f"{path} cannot be read as {path.suffix}: {reason}") from None
