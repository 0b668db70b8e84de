"""Splits that someone's data give are kept; what they do not give is cut from the training part."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from funcnet.datasets.dataset import Dataset
from funcnet.datasets.notes import naming_file, note, warn_of_classes
from funcnet.datasets.splits import split


def dataset_of(
    path: Path,
    x: Mapping[str, np.ndarray],
    y: Mapping[str, np.ndarray],
    class_names: tuple[str, ...],
    fractions: tuple[float, float],
    seed: int,
) -> Dataset:
    """The Dataset of the splits that are given.

    A class that is tested, but never trained, is in a `DataWarning`, and so are splits one of which
    holds whole numbers and the other one fractions: they may be scaled in different ways.

    Args:
      path: the file or the folder, for errors.
      x: the examples [N, ...] of "train", and of those of "val" and "test" that are given.
      y: their classes, int32 from 0 to C - 1.
      class_names: the C names.
      fractions: what to cut for validation and for testing, 0 of what is given; see
        `splits.check_fractions`.
      seed: of the cut.
    Returns:
      The Dataset; where nothing is to be cut, examples keep their order.
    Raises:
      ValueError: the cut leaves nothing for training.
    """
    _warn_of_dtypes(path, x)
    warn_of_classes(path, y, class_names)
    parts = {name: (x[name], y[name]) for name in x}
    if {"val", "test"} - set(x):
        with naming_file(path):
            rows = dict(
                zip(("train", "val", "test"), split(y["train"], *fractions, seed), strict=True)
            )
        cut = {name: which for name, which in rows.items() if name == "train" or name not in x}
        parts |= {name: (x["train"][which], y["train"][which]) for name, which in cut.items()}
    return Dataset(*parts["train"], *parts["val"], *parts["test"], class_names)


def _warn_of_dtypes(path: Path, x: Mapping[str, np.ndarray]) -> None:
    for name, other in x.items():
        if (other.dtype.kind == "f") != (x["train"].dtype.kind == "f"):
            note(
                f"{path}: examples to train are {x['train'].dtype}, those of the {name} split "
                f"{other.dtype}: are they of one scale?"
            )
