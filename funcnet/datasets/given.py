"""Splits that someone's data give are kept; what they do not give is cut from the training part."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from funcnet.datasets.dataset import SPLITS, Dataset, dataset_of_parts
from funcnet.datasets.notes import naming_file, note, warn_of_classes
from funcnet.datasets.splits import split, strata
from funcnet.datasets.tasks import ReadTargets


def dataset_of(
    path: Path,
    x: Mapping[str, np.ndarray],
    targets: ReadTargets,
    fractions: tuple[float, float],
    seed: int,
) -> Dataset:
    """The Dataset of the splits that are given.

    A class that is tested, but never trained, is in a `DataWarning`, and so are splits one of which
    holds whole numbers and the other one fractions: they may be scaled in different ways.

    Args:
      path: the file or the folder, for errors.
      x: the examples [N, ...] of "train", and of those of "val" and "test" that are given.
      targets: their targets, in the order of x.
      fractions: what to cut for validation and for testing, 0 of what is given; see
        `splits.check_fractions`.
      seed: of the cut.
    Returns:
      The Dataset; where nothing is to be cut, examples keep their order.
    Raises:
      ValueError: the cut leaves nothing for training.
    """
    warn_of_dtypes(path, {name: each.dtype for name, each in x.items()})
    y = dict(zip(x, targets.y, strict=True))
    if targets.task == "classification":
        warn_of_classes(path, y, targets.class_names)
    parts = {name: (x[name], y[name]) for name in x}
    if {"val", "test"} - set(x):
        with naming_file(path):
            rows = dict(
                zip(SPLITS, split(strata(y["train"], targets.task), *fractions, seed), strict=True)
            )
        cut = {name: which for name, which in rows.items() if name == "train" or name not in x}
        parts |= {name: (x["train"][which], y["train"][which]) for name, which in cut.items()}
    xs, ys = zip(*(parts[name] for name in SPLITS), strict=True)
    facts = targets.class_names, None, targets.task, targets.target_names
    return dataset_of_parts(xs, ys, *facts)


def warn_of_dtypes(path: Path, dtypes: Mapping[str, np.dtype]) -> None:
    """Say where examples of some splits are whole numbers, and those of others fractions."""
    for name, other in dtypes.items():
        if (other.kind == "f") != (dtypes["train"].kind == "f"):
            note(
                f"{path}: examples to train are {dtypes['train']}, those of the {name} split "
                f"{other}: are they of one scale?"
            )
