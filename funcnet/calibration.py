"""Calibration: a temperature, fitted on validation examples, that makes probabilities honest."""

from dataclasses import replace
from typing import Any

import numpy as np

from funcnet import checks, metrics
from funcnet.datasets.dataset import checked_targets
from funcnet.model import Model, inputs_for, predict_scores

__all__ = ["calibrate"]

LOWEST, HIGHEST = -6.0, 6.0  # of the logarithm of a temperature
ROUNDS = 60  # of halving


def calibrate(model: Model, x: Any, y: Any, *, sample_weight: Any = None) -> Model:
    """The Model with the temperature T that makes it least surprised by some examples.

    Probabilities are then softmax(scores / T), or sigmoid(scores / T) of several labels; what is
    predicted stays. T minimizes the mean log loss, which has one minimum in 1 / T; it is between
    exp(-6) and exp(6) (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    Args:
      model: a model of classes or several labels.
      x, y: examples that it was not trained on, as for `evaluate`; those of validation.
      sample_weight: [N], how much each counts; None is 1 each.
    Returns:
      The Model with `targets.temperature`, in place of one that it had.
    Raises:
      ValueError: the model gives no probabilities, or the scores of an example are not finite.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> x, y = np.repeat(4 * x, 2, axis=0), np.array([0, 1, 1, 1])
      >>> honest = fn.calibrate(model, x, y)
      >>> honest.targets.temperature > 1
      True
      >>> bool((fn.predict(honest, x) == fn.predict(model, x)).all())
      True
    """
    targets = model.targets
    if not targets.gives_probabilities:
        raise ValueError(f"a model of {targets.task}, link {targets.link}, gives no probabilities")
    x = inputs_for(model, x)
    scores = predict_scores(model, x).astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite: has the training of the model diverged?")
    y = checked_targets(y, "y", targets.task, len(scores), scores.shape[1])
    weight = np.ones(len(scores))
    if sample_weight is not None:
        weight = checks.weights(sample_weight, num_examples=len(scores))
    low, high = LOWEST, HIGHEST
    for _ in range(ROUNDS):  # of t = log T, whose slope changes its sign once
        middle = (low + high) / 2
        if _slope(np.exp(-middle), scores, y, weight, targets.task) > 0:
            low = middle
        else:
            high = middle
    temperature = float(np.exp((low + high) / 2))
    return replace(model, targets=replace(targets, temperature=temperature))


def _slope(b: float, scores: np.ndarray, y: np.ndarray, weight: np.ndarray, task: str) -> float:
    """The derivative of the mean log loss in b = 1 / T: above 0 where b is too large.

    With p the probabilities at b it is the mean of sum_j p_j s_j - s_y, or of (p - y) s for labels.
    """
    if task == "multilabel":
        each = ((metrics.sigmoid(b * scores) - y) * scores).mean(axis=1)
    else:
        expected = (metrics.softmax(b * scores) * scores).sum(axis=1)
        each = expected - scores[np.arange(len(y)), y]
    return float(weight @ each)
