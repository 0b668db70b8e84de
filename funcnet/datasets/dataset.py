"""What every loader returns, and what the registry says of a loader."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.disk import Stored
from funcnet.datasets.encoding import Encoding

TASKS = ("classification", "regression", "multilabel")
SPLITS = ("train", "val", "test")


class Dataset(NamedTuple):
    """Examples and what is to be predicted of them, split for training, validation and testing.

    All arrays are NumPy arrays, or `Stored`, rows that stay on disk. Examples keep the dtype they
    are stored with (pixels are uint8); the validation and the test split may be empty.

    Attributes:
      x_train: [N, d1, ..., dk], the training examples.
      y_train: their targets, by the task. Classification: [N] int32, their classes, from 0 to
        C - 1. Regression: [N] or [N, K] float64, in the person's own units. Multilabel:
        [N, K] int32, whether each of K labels holds, 0 or 1.
      x_val: [N_val, d1, ..., dk].
      y_val: [N_val, ...], as y_train.
      x_test: [N_test, d1, ..., dk].
      y_test: [N_test, ...], as y_train.
      class_names: the C names, `class_names[y]` is the name of class y; those of the K labels; of
        regression none.
      encoding: of a table, what was made of its columns; None otherwise.
      task: "classification", "regression" or "multilabel".
      target_names: of regression, what the targets are called; () is y, or y1, y2, ....
      weight_train, weight_val, weight_test: [N] float64, 0 or more, how much each example counts;
        None is 1 each.
    Example:
      >>> none = np.zeros((0, 2), "f")
      >>> x, y = np.ones((4, 2), "f"), np.array([0, 1, 0, 1])
      >>> data = fn.Dataset(x, y, none, [], none, [], ("cat", "dog"))
      >>> fn.check_dataset(data).y_train.dtype
      dtype('int32')
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    encoding: Encoding | None = None
    task: str = "classification"
    target_names: tuple[str, ...] = ()
    weight_train: np.ndarray | None = None
    weight_val: np.ndarray | None = None
    weight_test: np.ndarray | None = None


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


def on_disk(dataset: Dataset) -> bool:
    """Whether examples of a Dataset are not in memory."""
    return any(isinstance(getattr(dataset, f"x_{split}"), Stored) for split in SPLITS)


def check_dataset(dataset: Dataset, *, stored: bool = False) -> Dataset:
    """Check a Dataset put together by hand.

    Args:
      dataset: anything array-like in its fields; lengths and values are checked. What stays on disk
        was checked where it was opened.
      stored: whether it may stay on disk.
    Returns:
      The same data as NumPy arrays, labels as int32, class names as a tuple.
    Raises:
      TypeError: `dataset` is no Dataset, or its class names are no strings.
      ValueError: examples that are not finite numbers, differ in shape or are missing from
        the training split; labels outside the classes or not one per example.
    Example:
      >>> digits = fn.load_digits()
      >>> data = fn.check_dataset(digits._replace(class_names=list("abcdefghij")))
      >>> data.class_names[:2], data.x_train.shape
      (('a', 'b'), (1248, 8, 8))
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a Dataset, got {type(dataset).__name__}")
    checks.choose("task", dataset.task, dict.fromkeys(TASKS))
    class_names = _checked_names("class_names", dataset.class_names)
    if not class_names and dataset.task != "regression":
        raise ValueError("class_names is empty: name each class")
    if class_names and dataset.task == "regression":
        raise ValueError("regression has no classes: class_names must be (), see target_names")
    if on_disk(dataset):
        if not stored:
            raise ValueError(
                f"the examples stay on disk, {dataset.x_train!r}, and this needs them in memory: "
                'load_arrays(..., memory_map="no") (--memory-map no)'
            )
        for split in SPLITS:
            x, *others = (getattr(dataset, f"{name}_{split}") for name in ("x", "y", "weight"))
            if any(isinstance(x, Stored) != isinstance(o, Stored) for o in others if o is not None):
                raise TypeError(
                    f"x_{split} and y_{split} must both be in memory, or both be left on disk by "
                    "load_arrays"
                )
        return dataset
    x_train = np.asarray(checks.inputs(dataset.x_train, name="x_train"))
    shape = x_train.shape[1:]
    xs = [x_train] + [
        _checked_examples(getattr(dataset, f"x_{split}"), f"x_{split}", shape, x_train.dtype)
        for split in SPLITS[1:]
    ]
    ys: list[np.ndarray] = []
    for split, x in zip(SPLITS, xs, strict=True):
        y, name = getattr(dataset, f"y_{split}"), f"y_{split}"
        like = ys[0] if ys else None
        ys.append(checked_targets(y, name, dataset.task, len(x), len(class_names), like))
    weights = [
        None if w is None else checks.weights(w, num_examples=len(x), name=f"weight_{split}")
        for split, x in zip(SPLITS, xs, strict=True)
        for w in [getattr(dataset, f"weight_{split}")]
    ]
    names = _checked_names("target_names", dataset.target_names)
    count = 1 if ys[0].ndim == 1 else ys[0].shape[1]
    if names and (dataset.task != "regression" or len(names) != count):
        raise ValueError(
            f"target_names must name {checks.plural(count, 'target')} of regression, got {names}"
        )
    return dataset_of_parts(
        xs, ys, class_names, dataset.encoding, dataset.task, names, weights=weights
    )


def dataset_of_parts(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    *facts: Any,
    weights: Sequence[np.ndarray | None] = (None, None, None),
) -> Dataset:
    """A Dataset of what each split has, and of what else it says, class_names first."""
    (x_train, x_val, x_test), (y_train, y_val, y_test) = xs, ys
    dataset = Dataset(x_train, y_train, x_val, y_val, x_test, y_test, *facts)
    w_train, w_val, w_test = weights
    return dataset._replace(weight_train=w_train, weight_val=w_val, weight_test=w_test)


def checked_targets(
    y: Any, name: str, task: str, count: int, num_classes: int, like: np.ndarray | None = None
) -> np.ndarray:
    """Targets of `count` examples by the task, as in a Dataset; () of no examples is [0, ...].

    Args:
      y: the targets.
      name: what errors call them.
      task: one of TASKS.
      count: N.
      num_classes: C, or K of multilabel.
      like: those of training, whose shape they have.
    Raises:
      ValueError: they are not finite, no classes, or of another shape.
    """
    if count == 0 and np.shape(y) == (0,) and like is not None:
        return np.empty((0, *like.shape[1:]), like.dtype)
    if task == "classification":
        return checks.labels(y, num_examples=count, num_classes=num_classes, name=name)
    width = num_classes if task == "multilabel" else None if like is None else like.shape[1:]
    return checks.targets(
        y, num_examples=count, width=width, binary=task == "multilabel", name=name
    )


def fingerprint(dataset: Dataset) -> str:
    """A checksum of the data, of their split and of the class names: 64 hexadecimal digits.

    Of what stays on disk it is one of what `Stored.facts` says.
    """
    digest = hashlib.sha256(json.dumps(dataset.class_names).encode())
    weights = dataset.weight_train, dataset.weight_val, dataset.weight_test
    if dataset.task != TASKS[0]:
        digest.update(json.dumps((dataset.task, dataset.target_names)).encode())
    for array in (*dataset[:6], *(weight for weight in weights if weight is not None)):
        if isinstance(array, Stored):
            digest.update("\n".join(array.facts()).encode())
            continue
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

    def some(rows: Any) -> Any:
        return rows.first(count) if isinstance(rows, Stored) else rows[:count]

    weight = None if dataset.weight_train is None else some(dataset.weight_train)
    return dataset._replace(
        x_train=some(dataset.x_train), y_train=some(dataset.y_train), weight_train=weight
    )


def _checked_names(what: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, (tuple, list)):
        raise TypeError(f"{what} must be a tuple of strings, got {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a tuple of strings, got {name!r} in it")
    return tuple(names)


def _checked_examples(x: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`x` as [N, *shape]; with N = 0, also from a bare empty list."""
    if np.shape(x) in ((0,), (0, *shape)):
        return np.empty((0, *shape), dtype)
    return np.asarray(checks.inputs(x, name=name, shape=shape))
