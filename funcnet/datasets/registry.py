"""The list of datasets, and the loading of one by its name, or of a file by its path."""

import inspect
import os
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from funcnet import checks
from funcnet.datasets.arrays import holds_arrays, load_arrays
from funcnet.datasets.cifar10 import CIFAR10
from funcnet.datasets.dataset import Dataset, Source
from funcnet.datasets.digits import DIGITS
from funcnet.datasets.images import holds_images, load_images
from funcnet.datasets.shard_files import holds_shards, read_manifest
from funcnet.datasets.sources import STDIN

# By these the name of a file is known that is not there.
SUFFIXES = {
    *(".npz", ".npy", ".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".gz", ".zip"),
    *(".parquet", ".arrow", ".feather"),
}
DATASETS: dict[str, Source] = {source.name: source for source in (DIGITS, CIFAR10)}
# What may be said of a file: all but the seed of its split, which stays as it is.
FILE_OPTIONS = (
    *(name for name in inspect.signature(load_arrays).parameters if name not in ("path", "seed")),
    "image_size",
)


def is_file(name: str) -> bool:
    """Whether a name is that of a file, there or not, or of a directory of one's own.

    The entries of the registry go before: `./digits` is a directory, `digits` is not.
    """
    if name in DATASETS or not name:
        return False
    if name == STDIN or Path(name).suffix.lower() in SUFFIXES:
        return True
    try:
        return os.sep in name or Path(name).exists()
    except OSError:  # no name of anything
        return False


def is_table_file(name: str) -> bool:
    """Whether a name is that of a file that holds a table, rather than arrays."""
    return is_file(name) and not holds_arrays(name)


def holds_table(name: str) -> bool:
    """Whether a name is that of a directory of shards that were made of a table."""
    return is_file(name) and holds_shards(name) and read_manifest(Path(name)).encoding is not None


def check_source(
    name: str, options: Mapping[str, Any], *, shown: Callable[[str], str] = str
) -> None:
    """Raise unless `load_dataset` knows the name, and takes the options with it that are given.

    Args:
      name: a name in `DATASETS`, or the path of a file.
      options: `FILE_OPTIONS` and data_dir, those that there are; None is as if not given.
      shown: how an error writes the name of an option.
    """
    if name not in DATASETS and not is_file(name):
        raise ValueError(checks.unknown("dataset", name, DATASETS))
    for option in FILE_OPTIONS:
        if options.get(option) not in (None, ()) and name in DATASETS:
            raise ValueError(f"{shown(option)} is for files, not for {name}")
    takers = [source.name for source in DATASETS.values() if source.takes_directory]
    if options.get("data_dir") is not None and name not in takers:
        raise ValueError(f"{shown('data_dir')} is for {' and '.join(takers)}, not for {name}")


def load_dataset(
    name: str | PathLike[str],
    *,
    data_dir: str | PathLike[str] | None = None,
    **file_options: Any,
) -> Dataset:
    """Load an entry of the registry, or a file.

    Args:
      name: a name in `DATASETS`, or the path of a file or folder of one's own, see `load_arrays`
        and `load_images`.
      data_dir: where the dataset is, for one that takes a directory; by default $FUNCNET_DATA,
        then the user's cache directory.
      file_options: those of `load_arrays`, for a file, such as `label`, and `image_size`, for
        `load_images`; None is as if not given.
    Returns:
      The Dataset.
    Raises:
      ValueError: there is no such name or option, it names the nearest one; an option is for
        other datasets; or a file is damaged.
      FileNotFoundError: it is not there; of a dataset, the error says how to get it.
    Example:
      >>> fn.load_dataset("digits").x_train.shape
      (1248, 8, 8)
    """
    name = os.fspath(name)
    for option in file_options:
        if option not in FILE_OPTIONS:
            raise ValueError(checks.unknown("option", option, FILE_OPTIONS))
    check_source(name, {**file_options, "data_dir": data_dir})
    if name in DATASETS:
        return DATASETS[name].load(data_dir)
    given = {option: value for option, value in file_options.items() if value not in (None, ())}
    size = given.pop("image_size", None)
    if holds_images(name):
        return _load_images(name, size, given)
    if size is not None:
        raise ValueError(f"image_size is for folders of images, not for {name}")
    return load_arrays(name, **given)


def _load_images(name: str, size: Any, given: Mapping[str, Any]) -> Dataset:
    known = inspect.signature(load_images).parameters
    for option, value in given.items():
        if option not in known:
            what = "arrays" if option == "memory_map" else "tables"
            raise ValueError(f"{option}={value!r} is for {what}, not for the folder {name}")
    return load_images(name, size=size, **given)
