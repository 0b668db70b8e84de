"""What every loader returns, and what the registry says of a loader."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.encoding import Encoding


class Dataset(NamedTuple):
    """Examples and class labels, split for training, validation and testing.

    All arrays are NumPy arrays. Examples keep the dtype they are stored with (pixels are
    uint8); the validation and the test split may be empty.

    Attributes:
      x_train: [N, d1, ..., dk], the training examples.
      y_train: [N] int32, their classes, from 0 to C - 1.
      x_val: [N_val, d1, ..., dk].
      y_val: [N_val] int32.
      x_test: [N_test, d1, ..., dk].
      y_test: [N_test] int32.
      class_names: the C names, `class_names[y]` is the name of class y.
      encoding: of a table, what was made of its columns; None otherwise.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    encoding: Encoding | None = None


class Source(NamedTuple):
    """An entry of the registry: where a Dataset comes from.

    `root` is a directory; by default the places where datasets lie are looked through.

    Attributes:
      name: the name in the registry, as on the command line.
      title: what it is called in sentences.
      about: what it is, in a few words.
      load: `load(root=None)` returns the Dataset; what is built in does not look at root.
      find: `find(root=None)` returns the Path that `load` would read, None if it is nowhere.
        No function if it is built in.
      download: `download(root=None)` downloads it unless it is there, and returns its Path.
        No function if it is built in.
    """

    name: str
    title: str
    about: str
    load: Callable[..., Dataset]
    find: Callable[..., Path | None] | None = None
    download: Callable[..., Path] | None = None

    @property
    def takes_directory(self) -> bool:
        """Whether it lies in a directory that can be given, rather than being built in."""
        return self.find is not None


def check_dataset(dataset: Dataset) -> Dataset:
    """Check a Dataset put together by hand.

    Args:
      dataset: anything array-like in its fields; lengths and values are checked.
    Returns:
      The same data as NumPy arrays, labels as int32, class names as a tuple.
    Raises:
      TypeError: `dataset` is no Dataset, or its class names are no strings.
      ValueError: examples that are not finite numbers, differ in shape or are missing from
        the training split; labels outside the classes or not one per example.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a Dataset, got {type(dataset).__name__}")
    class_names = _checked_names(dataset.class_names)
    x_train = np.asarray(checks.inputs(dataset.x_train, name="x_train"))
    shape = x_train.shape[1:]
    x_val = _checked_examples(dataset.x_val, "x_val", shape, x_train.dtype)
    x_test = _checked_examples(dataset.x_test, "x_test", shape, x_train.dtype)
    return Dataset(
        x_train,
        _checked_labels(dataset.y_train, "y_train", x_train, class_names),
        x_val,
        _checked_labels(dataset.y_val, "y_val", x_val, class_names),
        x_test,
        _checked_labels(dataset.y_test, "y_test", x_test, class_names),
        class_names,
        dataset.encoding,
    )


def fingerprint(dataset: Dataset) -> str:
    """A checksum of the data, of their split and of the class names: 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(dataset.class_names).encode())
    for array in dataset[:6]:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def first(dataset: Dataset, count: int | None, name: str = "count") -> Dataset:
    """The dataset with the first `count` of its training examples; None is all of them.

    Raises:
      TypeError, ValueError: `count` is no number of them; the error calls it `name`.
    """
    if count is None:
        return dataset
    checks.COUNT.check(name, count)
    if count > len(dataset.x_train):
        raise ValueError(
            f"{name} is {count}, but there are only "
            f"{checks.plural(len(dataset.x_train), 'training example')}"
        )
    return dataset._replace(x_train=dataset.x_train[:count], y_train=dataset.y_train[:count])


def _checked_names(class_names: object) -> tuple[str, ...]:
    if isinstance(class_names, str) or not isinstance(class_names, (tuple, list)):
        raise TypeError(f"class_names must be a tuple of strings, got {class_names!r}")
    for name in class_names:
        if not isinstance(name, str):
            raise TypeError(f"class_names must be a tuple of strings, got {name!r} in it")
    if not class_names:
        raise ValueError("class_names is empty: name each class")
    return tuple(class_names)


def _checked_examples(x: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`x` as [N, *shape]; with N = 0, also from a bare empty list."""
    if np.shape(x) in ((0,), (0, *shape)):
        return np.empty((0, *shape), dtype)
    return np.asarray(checks.inputs(x, name=name, shape=shape))


def _checked_labels(y: Any, name: str, x: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    if len(x) == 0 and np.shape(y) == (0,):
        return np.empty(0, np.int32)
    return checks.labels(y, num_examples=len(x), num_classes=len(class_names), name=name)
