"""Metrics of classification beside the loss, in NumPy and float64: pure functions of labels.

Labels `y` are [N] integers from 0 to C - 1, and so are the predictions beside them, but that -1 is
no answer: it is wrong, whatever the label, and stands in no column of a confusion matrix.
"""

from typing import Any

import numpy as np

from funcnet import checks

__all__ = ["accuracy", "balanced_accuracy", "confusion_matrix", "log_loss", "recall"]

NO_ANSWER = -1


def accuracy(y: Any, predicted: Any) -> float:
    """The share of examples whose prediction is right, mean(predicted == y).

    Args:
      y: [N] labels, N >= 1.
      predicted: [N] predicted labels; -1 is no answer.
    Raises:
      ValueError: there are no examples, a label is none, or shapes do not fit.
    """
    y, predicted = _check(y, predicted)
    return float(np.mean(predicted == y))


def confusion_matrix(y: Any, predicted: Any, num_classes: int) -> np.ndarray:
    """How often each class was predicted for each: count[i, j] = sum(y == i and predicted == j).

    Args:
      y: [N] labels, N >= 1.
      predicted: [N] predicted labels; -1, no answer, is counted nowhere.
      num_classes: C.
    Returns:
      [C, C] int64: a row for each true class, of zeros if it has no example, a column for each
      predicted one.
    Raises:
      ValueError: as for `accuracy`, or a label is none of the C classes.
    """
    y, predicted = _check(y, predicted, num_classes)
    pairs = (y.astype(np.int64) * num_classes + predicted)[predicted != NO_ANSWER]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall(y: Any, predicted: Any, num_classes: int) -> np.ndarray:
    """The share of each class's examples that were found: mean(predicted == c) where y == c.

    Args:
      y: [N] labels, N >= 1.
      predicted: [N] predicted labels; -1 is no answer.
      num_classes: C.
    Returns:
      [C] float64; NaN for a class that has no example.
    Raises:
      ValueError: as for `confusion_matrix`.
    """
    y, predicted = _check(y, predicted, num_classes)
    found = np.bincount(y[predicted == y], minlength=num_classes)  # [C]
    count = np.bincount(y, minlength=num_classes)  # [C]
    return np.where(count > 0, found / np.maximum(count, 1), np.nan)


def balanced_accuracy(y: Any, predicted: Any) -> float:
    """The mean recall of the classes that occur in y (Brodersen et al. 2010, ICPR).

    Where all of these have equally many examples it is the accuracy; guessing one class whatever
    the input comes to one over their number. Classes that do not occur are left out.

    Args:
      y: [N] labels, N >= 1.
      predicted: [N] predicted labels; -1 is no answer.
    Raises:
      ValueError: as for `accuracy`.
    """
    y, predicted = _check(y, predicted)
    occurring, y = np.unique(y, return_inverse=True)  # however large the labels are
    found = predicted == occurring[y]
    return float(np.mean(np.bincount(y, weights=found) / np.bincount(y)))


def log_loss(y: Any, scores: Any) -> float:
    """The mean of -log p of the true class, p = softmax(scores): in nats, 0 at best.

    Nothing is clipped: a true class of probability 0, a score of -inf, makes it infinite, and
    scores that are NaN or +inf make it NaN.

    Args:
      y: [N] labels, N >= 1.
      scores: [N, C] real numbers; log-probabilities are such.
    Raises:
      ValueError: there are no examples, a label is none of the C classes, or shapes do not fit.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or not len(scores):
        raise ValueError(
            f"scores must be [N, C] of at least one example, got shape {list(scores.shape)}"
        )
    y = checks.labels(y, num_examples=len(scores), num_classes=scores.shape[1])
    return float(np.mean(surprise(y, scores)))


def surprise(y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """-log p of the true class of each example, [N] float64, of labels that were checked."""
    return -_log_softmax(scores)[np.arange(len(y)), y]


def softmax(scores: np.ndarray) -> np.ndarray:
    """The probabilities of [N, C] scores, float64; rows that hold NaN or +inf are NaN."""
    return np.exp(_log_softmax(scores))


def chosen(scores: np.ndarray) -> np.ndarray:
    """The class of the largest score, [N] int64, the first of equals; -1 where one is NaN."""
    best = scores.argmax(axis=1)
    return np.where(np.isnan(scores).any(axis=1), NO_ANSWER, best)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    """log softmax [N, C], float64: t - log1p(the sum of exp(t) but that of the largest).

    With t = scores - max: so a confident example keeps the digits of a small -log p.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is NaN; what is far below, -inf
        t = np.asarray(scores, np.float64)
        top = t.argmax(axis=1)[:, None]  # [N, 1]
        t = t - np.take_along_axis(t, top, axis=1)
        others = np.exp(t)
        np.put_along_axis(others, top, 0, axis=1)
        at_top = np.take_along_axis(t, top, axis=1)  # 0, or NaN
        return t - np.log1p(others.sum(axis=1, keepdims=True) + at_top)


def _check(y: Any, predicted: Any, num_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions as int32 arrays of equal length, at least 1."""
    if num_classes is not None:
        checks.COUNT.check("num_classes", num_classes)
    y, predicted = np.asarray(y), np.asarray(predicted)
    if y.ndim != 1 or not len(y):
        raise ValueError(f"y must be [N] labels, N >= 1, got shape {list(y.shape)}")
    y = checks.labels(y, num_examples=len(y), num_classes=num_classes)
    none = predicted == NO_ANSWER
    known = np.where(none, predicted.dtype.type(0), predicted)
    known = checks.labels(known, num_examples=len(y), num_classes=num_classes, name="predicted")
    return y, np.where(none, np.int32(NO_ANSWER), known)
