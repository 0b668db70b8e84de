"""Classes of what people call labels: numbers from anywhere, True and False, strings, one-hot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_CLASSES = 65_536  # more are identifiers
FEW = 20  # so many values of a number may always be classes
MISSING = {"", "?", "na", "n/a", "nan", "+nan", "-nan", "null", "none"}  # in any case


def missing_labels(labels: Any) -> np.ndarray:
    """[N] bool, which of the labels say nothing: masked, NaN, None, or a word in `MISSING`."""
    hidden = np.ma.getmaskarray(labels) if isinstance(labels, np.ma.MaskedArray) else False
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        return missing_labels(labels[:, 0]) | np.any(hidden, axis=-1)
    if labels.ndim == 2 and labels.dtype.kind == "f":
        return np.isnan(labels).any(axis=1) | np.any(hidden, axis=-1)
    if labels.ndim != 1:
        return np.zeros(len(labels), bool)
    if labels.dtype.kind == "f":
        return np.isnan(labels) | hidden
    if labels.dtype.kind in "biu":
        return np.zeros(len(labels), bool) | hidden
    words = [_word(label) for label in labels]
    return np.array([word.lower() in MISSING for word in words], bool) | hidden


def as_classes(
    labels: Any, *, name: str = "y", examples: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The classes of labels, and what they are called.

    Classes are the values that occur: numbers in their order, strings sorted; strings that all are
    numbers count as such, so that "01" and "1" are one class, unless another label is no number. A
    one-hot matrix has a class for each column.

    Args:
      labels: [N] or [N, 1] integers, real numbers, bools or strings, none missing; or one-hot
        [N, C], C >= 2.
      name: what to call them in errors.
      examples: how many examples they are of, if a label is not of one each.
    Returns:
      y [N] int32 from 0 to C - 1, and the C names.
    Raises:
      ValueError: they are no classes: another shape, or more values than classes may be.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _of_one_hot(labels, name)
    if labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"{name} must be [N] labels, or [N, C] one-hot, and not empty, got {list(labels.shape)}"
        )
    if labels.dtype.kind == "b":
        values, y = np.unique(labels, return_inverse=True)
        return y.astype(np.int32), tuple(map(str, values.tolist()))
    if labels.dtype.kind not in "iuf":
        if labels.dtype.kind not in "USOT":
            raise ValueError(f"{name} must hold labels, numbers or strings, got {labels.dtype}")
        words = [_word(label) for label in labels]
        numbers = [number(word) for word in words]
        if any(n is None for n in numbers):
            names = sorted(set(words))
            _check_words(len(names), examples or len(words), name)
            place = {word: i for i, word in enumerate(names)}
            return np.array([place[word] for word in words], np.int32), tuple(names)
        whole = all(n.is_integer() and abs(n) >= 2**53 for n in numbers if n is not None)
        labels = (
            np.array([_integer(w) for w in words], object) if whole else np.array(numbers, float)
        )
    return _of_numbers(labels, name)


def joint_classes(labels: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """`as_classes` of the labels of several splits, so that a class is the same in all.

    Args:
      labels: for each name, for errors, the labels: in one form, whatever their dtypes.
    Returns:
      y of each, and the C names.
    Raises:
      ValueError: as `as_classes` does, or they differ in form.
    """
    flat = {name: y[:, 0] if y.shape[1:] == (1,) else y for name, y in labels.items()}
    (first, y_first), *others = flat.items()
    for name, y in others:
        if y.shape[1:] != y_first.shape[1:]:
            raise ValueError(
                f"{first} is {list(y_first.shape)}, but {name} is {list(y.shape)}: give the labels "
                "of all splits in one form"
            )
    for name, y in flat.items():
        if y.dtype.kind not in "biufUS" or (y.dtype.kind == "f" and np.isinf(y).any()):
            as_classes(y, name=name)  # which says what is wrong with them
    y, class_names = as_classes(_joined(list(flat.values())), name=" and ".join(labels))
    return np.split(y, np.cumsum([len(y) for y in flat.values()])[:-1]), class_names


def _joined(labels: list[np.ndarray]) -> np.ndarray:
    """Labels one after the other, none of them rounded to a dtype that others have."""
    kinds = {y.dtype.kind for y in labels}
    whole = kinds <= set("biu") and np.result_type(*labels).kind in "biu"
    if len(kinds) == 1 or whole or labels[0].ndim == 2:
        return np.concatenate(labels)
    return np.array(
        [v for y in labels for v in (y.astype(int) if y.dtype.kind == "b" else y).tolist()], object
    )


def places_among(labels: Any, names: Sequence[str], *, name: str = "y") -> np.ndarray:
    """The classes of labels that are known already, [N] int32.

    Args:
      labels: [N] labels, none missing; numbers are those of equal value.
      names: what the C classes are called.
      name: what to call the labels in errors.
    Raises:
      ValueError: a label is none of the classes.
    """
    words = [_shown(label) if isinstance(label, float) else _word(label) for label in labels]
    places = {each: i for i, each in enumerate(names)}
    numbers = {number(each): i for i, each in enumerate(names)}
    if None not in numbers:
        places = {**{word: numbers[number(word)] for word in words if number(word) in numbers}}
    for word in words:
        if word not in places:
            raise ValueError(f"{name} has {word!r}, which is {_none_of(names)}")
    return np.array([places[word] for word in words], np.int32)


def _none_of(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"none of the {len(names)} classes that were trained on: {shown}"


def number(word: str) -> float | None:
    """The number that a string is, else None; underscores, which Python takes, are in none."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _integer(word: str) -> int:
    """The integer that a word is, all its digits; of 1e20 those that a float has."""
    try:
        return int(word)
    except ValueError:
        return int(float(word))


def _of_numbers(labels: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise ValueError(f"{name} must hold labels, but {name}[{bad}] is {labels[bad]}")
    values, y = np.unique(labels, return_inverse=True)
    _check_count(len(values), name)
    return y.astype(np.int32), tuple(_shown(value) for value in values.tolist())


def _of_one_hot(labels: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    numeric = labels.dtype.kind in "biuf"
    if not numeric or not (((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
        raise ValueError(
            f"{name} {list(labels.shape)} is not one-hot, a 1 and zeros in every row: give one "
            "label per example, [N]"
        )
    return labels.argmax(axis=1).astype(np.int32), tuple(map(str, range(labels.shape[1])))


def _check_words(count: int, total: int, name: str) -> None:
    """Raise if so many different words in so many examples are no classes, but text."""
    _check_count(count, name)
    if count > FEW and count > total / 2:
        raise ValueError(
            f"{name} has {count:,} different words in {total:,} examples: they are names or text, "
            "no classes"
        )


def _check_count(count: int, name: str) -> None:
    if count > MAX_CLASSES:
        raise ValueError(f"{name} has {count:,} values, more than {MAX_CLASSES:,} classes")


def _word(label: Any) -> str:
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace").strip()
    return str(label).strip()


def _shown(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value) if whole else value)
