"""Metrics beside the loss, in NumPy and float64: pure functions of targets and predictions.

Of classification labels `y` are [N] integers from 0 to C - 1, and so are the predictions beside
them, but that -1 is no answer: it is wrong, whatever the label, and stands in no column of a
confusion matrix. Of regression both are [N] or [N, K] numbers, of several labels [N, K], 0 or 1.

A `sample_weight` [N], 0 or more, says how much each example counts; None is 1 each.
"""

from typing import Any

import numpy as np

from funcnet import checks

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "calibration_error",
    "confusion_matrix",
    "log_loss",
    "macro_f1",
    "mae",
    "micro_f1",
    "r2",
    "recall",
    "rmse",
]

NO_ANSWER = -1


def accuracy(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """The share of examples whose prediction is right, mean(predicted == y).

    Args:
      y: [N] labels, N >= 1; or [N, K], whether each of K labels holds: all of them must be right.
      predicted: predicted labels, likewise; -1 is no answer.
      sample_weight: [N], see above.
    Returns:
      A float, 0 to 1.
    Raises:
      ValueError: there are no examples, a label is none, or shapes do not fit.
    Example:
      >>> fn.accuracy([0, 1, 1, 2], [0, 1, 2, 2])
      0.75
      >>> fn.accuracy([[1, 0], [1, 1]], [[1, 0], [0, 1]])
      0.5
    """
    if np.ndim(y) == 2:
        y, predicted = _check_columns(y, predicted)
        right = (predicted == y).all(axis=1)
    else:
        y, predicted = _check(y, predicted)
        right = predicted == y
    return _mean(right, sample_weight)


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
    Example:
      >>> fn.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], num_classes=2)
      array([[1, 1],
             [0, 2]])
    """
    y, predicted = _check(y, predicted, num_classes)
    pairs = (y.astype(np.int64) * num_classes + predicted)[predicted != NO_ANSWER]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall(y: Any, predicted: Any, num_classes: int, sample_weight: Any = None) -> np.ndarray:
    """The share of each class's examples that were found: mean(predicted == c) where y == c.

    Args:
      y: [N] labels, N >= 1.
      predicted: [N] predicted labels; -1 is no answer.
      num_classes: C.
      sample_weight: [N], see above.
    Returns:
      [C] float64; NaN for a class that has no example, or none that counts.
    Raises:
      ValueError: as for `confusion_matrix`.
    Example:
      >>> fn.recall([0, 0, 1, 1], [0, 1, 1, 1], num_classes=3)
      array([0.5, 1. , nan])
    """
    y, predicted = _check(y, predicted, num_classes)
    w = _weights(sample_weight, len(y))
    found = np.bincount(y, weights=w * (predicted == y), minlength=num_classes)  # [C]
    count = np.bincount(y, weights=w, minlength=num_classes)  # [C]
    return np.divide(found, count, out=np.full(num_classes, np.nan), where=count > 0)


def balanced_accuracy(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """The mean recall of the classes that occur in y (Brodersen et al. 2010, ICPR).

    Where all of these have equally many examples it is the accuracy; guessing one class whatever
    the input comes to one over their number. Classes that do not occur are left out.

    Args:
      y: [N] labels, N >= 1.
      predicted: [N] predicted labels; -1 is no answer.
      sample_weight: [N], see above.
    Returns:
      A float, 0 to 1.
    Raises:
      ValueError: as for `accuracy`.
    Example:
      >>> fn.balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
      0.5
    """
    y, predicted = _check(y, predicted)
    occurring, y = np.unique(y, return_inverse=True)  # however large the labels are
    w, found = _weights(sample_weight, len(y)), predicted == occurring[y]
    count = np.bincount(y, weights=w)
    counts = count > 0
    return float(np.mean(np.bincount(y, weights=w * found)[counts] / count[counts]))


def log_loss(y: Any, scores: Any, sample_weight: Any = None) -> float:
    """The mean of -log p of the true class, p = softmax(scores): in nats, 0 at best.

    Nothing is clipped: a true class of probability 0, a score of -inf, makes it infinite, and
    scores that are NaN or +inf make it NaN.

    Args:
      y: [N] labels, N >= 1.
      scores: [N, C] real numbers; log-probabilities are such.
      sample_weight: [N], see above.
    Returns:
      A float, 0 or more, or NaN.
    Raises:
      ValueError: there are no examples, a label is none of the C classes, or shapes do not fit.
    Example:
      >>> round(fn.log_loss([0, 1], np.log([[0.5, 0.5], [0.5, 0.5]])), 4)
      0.6931
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or not len(scores):
        raise ValueError(
            f"scores must be [N, C] of at least one example, got shape {list(scores.shape)}"
        )
    y = checks.labels(y, num_examples=len(scores), num_classes=scores.shape[1])
    return _mean(surprise(y, scores), sample_weight)


def calibration_error(
    y: Any, probabilities: Any, *, bins: int = 15, sample_weight: Any = None
) -> float:
    """The expected calibration error, ECE: how far confidence is from accuracy, in the mean.

    Examples are sorted by the probability of what is predicted into bins of equal width; of each
    bin it is |accuracy - mean probability|, weighted by its share of the examples (Naeini et al.
    2015, AAAI, Obtaining well calibrated probabilities; Guo et al. 2017, arXiv 1706.04599,
    equation 3).

    Args:
      y: [N] labels, N >= 1.
      probabilities: [N, C], as `predict_proba` gives.
      bins: how many there are from 0 to 1.
      sample_weight: [N], see above.
    Returns:
      A float, 0 to 1.
    Raises:
      ValueError: there are no examples, a label is none, probabilities are none, or shapes do not
        fit.
    Example:
      >>> fn.calibration_error([0, 1], [[1.0, 0.0], [1.0, 0.0]])
      0.5
    """
    shares, confidence, right = reliability(
        y, probabilities, bins=bins, sample_weight=sample_weight
    )
    known = shares > 0
    return float((shares * np.abs(right - confidence))[known].sum())


def reliability(
    y: Any, probabilities: Any, *, bins: int = 15, sample_weight: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin of `calibration_error` its share of the examples, mean probability and accuracy.

    Returns:
      [bins] each; of bins without examples the last two are NaN.
    """
    checks.COUNT.check("bins", bins)
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be [N, C], N >= 1, from 0 to 1")
    y = checks.labels(y, num_examples=len(p), num_classes=p.shape[1])
    top = p.max(axis=1)
    place = np.minimum((top * bins).astype(int), bins - 1)
    w = _weights(sample_weight, len(y))
    total = np.bincount(place, w, bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(place, w * values, bins)
        return np.divide(sums, total, out=np.full(bins, np.nan), where=total > 0)

    return total / total.sum(), mean(top), mean(p.argmax(axis=1) == y)


def rmse(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """The root of the mean squared error, sqrt(mean((predicted - y)^2)), in the units of y.

    Of several targets it is the mean of theirs.

    Args:
      y: [N] or [N, K] numbers, N >= 1.
      predicted: predictions, likewise.
      sample_weight: [N], see above.
    Returns:
      A float, in the units of y.
    Raises:
      ValueError: there are no examples, or shapes do not fit.
    Example:
      >>> fn.rmse([1.0, 2.0], [1.0, 2.0]), fn.rmse([0.0, 0.0], [3.0, -3.0])
      (0.0, 3.0)
    """
    y, predicted = _check_columns(y, predicted)
    return float(np.mean(np.sqrt(_means(np.square(predicted - y), sample_weight))))


def mae(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """The mean absolute error, mean(|predicted - y|), in the units of y.

    Of several targets it is the mean of theirs.

    Args:
      y: [N] or [N, K] numbers, N >= 1.
      predicted: predictions, likewise.
      sample_weight: [N], 0 or more: how much each example counts; None is 1 each.
    Returns:
      A float, in the units of y.
    Raises:
      ValueError: there are no examples, or shapes do not fit.
    Example:
      >>> fn.mae([0.0, 0.0], [1.0, -3.0]), fn.mae([0.0, 0.0], [1.0, -3.0], sample_weight=[1, 0])
      (2.0, 1.0)
    """
    y, predicted = _check_columns(y, predicted)
    return float(np.mean(_means(np.abs(predicted - y), sample_weight)))


def r2(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """The coefficient of determination, 1 - sum((predicted - y)^2) / sum((y - mean(y))^2).

    1 is perfect, 0 what the mean of y would reach. Of several targets it is the mean of theirs.

    Args:
      y: [N] or [N, K] numbers, N >= 1.
      predicted: predictions, likewise.
      sample_weight: [N], 0 or more: how much each example counts; None is 1 each.
    Returns:
      A float, at most 1; NaN where y never varies.
    Raises:
      ValueError: there are no examples, or shapes do not fit.
    Example:
      >>> y = [1.0, 2.0, 3.0]
      >>> fn.r2(y, y), fn.r2(y, [2.0, 2.0, 2.0])
      (1.0, 0.0)
    """
    y, predicted = _check_columns(y, predicted)
    variance = _means(np.square(y - _means(y, sample_weight)), sample_weight)
    error = _means(np.square(predicted - y), sample_weight)
    explained = np.divide(error, variance, out=np.full_like(error, np.nan), where=variance > 0)
    return float(np.mean(1 - explained))


def micro_f1(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """F1, 2 TP / (2 TP + FP + FN), of the counts over all labels; 0 where these are none.

    Args:
      y: [N, K], 0 or 1, N >= 1.
      predicted: predictions, likewise; others are no answer.
      sample_weight: [N], see above.
    Returns:
      A float, 0 to 1.
    Raises:
      ValueError: there are no examples, or shapes do not fit.
    Example:
      >>> fn.micro_f1([[1, 0], [1, 1]], [[1, 0], [1, 1]]), fn.micro_f1([[1, 1]], [[0, 0]])
      (1.0, 0.0)
    """
    return float(f1_of_counts(*(each.sum() for each in _counts(y, predicted, sample_weight))))


def macro_f1(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """The mean of the F1 of each label, 2 TP / (2 TP + FP + FN), 0 for one where these are none.

    Args:
      y: [N, K], 0 or 1, N >= 1.
      predicted: predictions, likewise; others are no answer.
      sample_weight: [N], 0 or more: how much each example counts; None is 1 each.
    Returns:
      A float, 0 to 1.
    Raises:
      ValueError: there are no examples, or shapes do not fit.
    Example:
      >>> fn.macro_f1([[1, 1], [0, 1]], [[1, 0], [0, 0]])
      0.5
    """
    return float(np.mean(label_f1(y, predicted, sample_weight)))


def label_f1(y: Any, predicted: Any, sample_weight: Any = None) -> np.ndarray:
    """The F1 of each label, [K]; see `micro_f1`."""
    return f1_of_counts(*_counts(y, predicted, sample_weight))


def f1_of_counts(found: Any, wrong: Any, missed: Any) -> np.ndarray:
    """F1 of true positives, false positives and false negatives; 0 where these are none."""
    count = 2 * found + wrong + missed
    return np.where(count > 0, 2 * found / np.where(count > 0, count, 1), 0.0)


def _counts(y: Any, predicted: Any, sample_weight: Any) -> list[np.ndarray]:
    """True positives, false positives and false negatives of each label, [K] each."""
    y, predicted = _check_columns(y, predicted)
    w = _weights(sample_weight, len(y))[:, None]
    true, said = y == 1, predicted == 1
    each = said & true, said & ~true, (predicted != 1) & true
    return [(w * counted).sum(axis=0) for counted in each]


def surprise(y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """-log p of the true class of each example, [N] float64, of labels that were checked."""
    return -_log_softmax(scores)[np.arange(len(y)), y]


def softmax(scores: np.ndarray) -> np.ndarray:
    """The probabilities of [N, C] scores, float64; rows that hold NaN or +inf are NaN."""
    return np.exp(_log_softmax(scores))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-scores)), float64, without overflow."""
    s = np.asarray(scores, np.float64)
    small = np.exp(-np.abs(s))
    return np.where(s >= 0, 1, small) / (1 + small)


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


def _check_columns(y: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions as [N, K] float64 of equal shape, N at least 1."""
    y, predicted = np.asarray(y, np.float64), np.asarray(predicted, np.float64)
    if y.ndim not in (1, 2) or not y.size:
        raise ValueError(f"y must be [N] or [N, K], N >= 1, got shape {list(y.shape)}")
    if predicted.shape != y.shape:
        raise ValueError(
            f"predicted must have the shape of y, {list(y.shape)}, got {list(predicted.shape)}"
        )
    return y.reshape(len(y), -1), predicted.reshape(len(y), -1)


def _weights(sample_weight: Any, count: int) -> np.ndarray:
    """The weights of examples, [N] float64.

    Raises:
      ValueError: they are no weights, or all of them are 0.
    """
    if sample_weight is None:
        return np.ones(count)
    weights = checks.weights(sample_weight, num_examples=count)
    if not weights.any():
        raise ValueError("sample_weight is 0 of all examples: none counts")
    return weights


def _mean(values: np.ndarray, sample_weight: Any) -> float:
    """The weighted mean of [N] values."""
    if sample_weight is None:
        return float(np.mean(values))
    return float(np.average(values, weights=_weights(sample_weight, len(values))))


def _means(values: np.ndarray, sample_weight: Any) -> np.ndarray:
    """The weighted means of [N, K] values, [K]."""
    return np.average(values, axis=0, weights=_weights(sample_weight, len(values)))
