"""The losses again, one example at a time in plain Python, and what they are tried on."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import funcnet as fn


def softmax_row(row, label):
    """The loss of one example, and its gradient."""
    top = max(row)
    exps = [math.exp(s - top) for s in row]
    loss = math.log(sum(exps)) + top - row[label]
    return loss, [e / sum(exps) - (j == label) for j, e in enumerate(exps)]


def soft_row(row, targets):
    total, gradient = 0.0, np.zeros(len(row))
    for label, q in enumerate(targets):
        loss, drow = softmax_row(row, label)
        total += q * loss
        gradient += q * np.array(drow)
    return total, gradient


def svm_row(row, label):
    total, gradient = 0.0, [0.0] * len(row)
    for j, score in enumerate(row):
        margin = score - row[label] + 1
        if j != label and margin > 0:
            total += margin
            gradient[j] += 1
            gradient[label] -= 1
    return total, gradient


def squared(s, y):
    return (s - y) ** 2 / 2, s - y


def absolute(s, y):
    return (s - y, 1) if s > y else (y - s, -1 if s < y else 0)


def huber(s, y, delta=1.0):
    if abs(s - y) <= delta:
        return squared(s, y)
    loss, sign = absolute(s, y)
    return delta * loss - delta**2 / 2, delta * sign


def pinball(s, y, quantile):
    if s == y:
        return 0, 0
    return (quantile * (y - s), -quantile) if s < y else ((1 - quantile) * (s - y), 1 - quantile)


def sigmoid(s, y):
    """By log p = -log(1 + e^-s) alone, which is exact for either sign of s."""

    def minus_log(s):
        return math.log1p(math.exp(-s)) if s > 0 else -s + math.log1p(math.exp(s))

    # p - y, where 1 and p cancel if y is 1.
    gradient = (1 - y) / (1 + math.exp(-s)) - y / (1 + math.exp(s))
    return y * minus_log(s) + (1 - y) * minus_log(-s), gradient


def poisson(s, y):
    return math.exp(s) - y * s, math.exp(s) - y


def outputs_row(each, row, targets, **options):
    """The mean over the outputs of one example."""
    pairs = [each(s, y, **options) for s, y in zip(row, np.atleast_1d(targets), strict=True)]
    return sum(loss for loss, _ in pairs) / len(row), [d / len(row) for _, d in pairs]


def pinball_row(row, targets, quantiles=(0.5,)):
    targets = np.repeat(np.atleast_1d(targets), len(quantiles))
    many = quantiles * (len(row) // len(quantiles))
    pairs = [pinball(s, y, q) for s, y, q in zip(row, targets, many, strict=True)]
    return sum(loss for loss, _ in pairs) / len(row), [d / len(row) for _, d in pairs]


ROWS = {
    "softmax": softmax_row,
    "soft": soft_row,
    "svm": svm_row,
    "pinball": pinball_row,
    **{f.__name__: partial(outputs_row, f) for f in (squared, absolute, huber, sigmoid, poisson)},
}


def slow(name, scores, y, sample_weight=None, **options):
    """The loss of a batch, and its gradient, row by row."""
    weights = [1] * len(scores) if sample_weight is None else list(sample_weight)
    total, dscores = 0.0, np.zeros(np.shape(scores))
    for i, weight in enumerate(weights):
        if weight:
            loss, drow = ROWS[name](scores[i], y[i], **options)
            total += weight * loss / sum(weights)
            dscores[i] = weight * np.array(drow) / sum(weights)
    return total, dscores


def labels(rng, n, k):
    return rng.integers(k, size=n)


def probabilities(rng, n, k):
    return rng.dirichlet(np.full(k, 0.5), size=n)


def numbers(rng, n, k):
    return 2 * rng.normal(size=(n, k))


def zeros_and_ones(rng, n, k):
    return rng.integers(2, size=(n, k))


def fractions(rng, n, k):
    return rng.uniform(size=(n, k)) ** 2


def counts(rng, n, k):
    return rng.poisson(3, size=(n, k))


class Case(NamedTuple):
    """A loss, its options, and how targets are drawn for it.

    Attributes:
      loss: its name in LOSSES.
      targets: `targets(rng, N, K)` for K classes or outputs.
      options: of the loss.
      slow: its name in ROWS.
    """

    loss: str
    targets: Callable
    options: dict = {}  # noqa: RUF012
    slow: str = ""

    @property
    def loss_fn(self):
        loss_fn = fn.losses.LOSSES[self.loss]
        return fn.losses.as_loss(partial(loss_fn, **self.options)) if self.options else loss_fn

    def draw(self, rng, n=7, k=3, scale=2.0):
        """Scores in float64, targets."""
        columns = k * len(self.options.get("quantiles", "1"))
        return scale * rng.normal(size=(n, columns)), self.targets(rng, n, k)

    def reference(self, scores, y, sample_weight=None):
        name = self.slow or self.loss
        return slow(name, np.asarray(scores, np.float64), y, sample_weight, **self.options)


CASES = {
    "softmax": Case("softmax", labels),
    "softmax, soft": Case("softmax", probabilities, slow="soft"),
    "svm": Case("svm", labels),
    "squared": Case("squared", numbers),
    "absolute": Case("absolute", numbers),
    "huber": Case("huber", numbers),
    "huber, 0.3": Case("huber", numbers, {"delta": 0.3}),
    "pinball": Case("pinball", numbers),
    "pinball, three": Case("pinball", numbers, {"quantiles": (0.05, 0.5, 0.999)}),
    "pinball, two": Case("pinball", numbers, {"quantiles": (0.2, 0.7)}),
    "sigmoid": Case("sigmoid", zeros_and_ones),
    "sigmoid, soft": Case("sigmoid", fractions),
    "poisson": Case("poisson", counts),
}
OUTPUTS = {name: case for name, case in CASES.items() if case.loss not in ("softmax", "svm")}


def agrees(case, loss_fn, seed=0):
    """Whether a loss is that of a case, on weighted examples in float64, to 12 digits."""
    rng = np.random.default_rng(seed)
    (scores, y), weights = case.draw(rng), np.array([0.7, 0.0, 2.5, 1e-3, 0.0, 1.0, 3.0])
    found = loss_fn(jnp.asarray(scores), jnp.asarray(y), jnp.asarray(weights))
    return fn.scaled_error(found, case.reference(scores, y, weights)) <= 1e-12
