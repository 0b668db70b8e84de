"""The range of learning rates at which a network trains: `find_learning_rate`."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset, check_dataset
from funcnet.layer import Layer
from funcnet.loop import Orders
from funcnet.optim import Optimizer
from funcnet.program import check_batch_size
from funcnet.schedules import LEARNING_RATE, exponential_decay
from funcnet.signature import complete, takes
from funcnet.text import aligned
from funcnet.train import FitOptions, fit

__all__ = ["RateRange", "find_learning_rate"]

STEPS = checks.Count(at_least=10)
SMOOTHING = checks.DECAY
TOGETHER = 10  # steps between two looks at the loss
EXPLODED = 2.0  # times the first loss, by which it has risen then
NOISE = 5.0  # standard deviations that a fall must have
SHOWN = 12  # lines of a table


class RateRange(NamedTuple):
    """What `find_learning_rate` returns: the losses of its steps, until they exploded.

    Attributes:
      learning_rate: [N], that of each step, which rises, float64.
      loss: [N], the loss of the step's batch before its update, regularisation included.
      smoothed: [N], the mean of the losses around a step, those k steps before and after it with a
        weight of `smoothing**k`. Once they rise, losses above all before count as much as those.
      suggestion: the rate at which the smoothed loss falls fastest, in log of the rate, before its
        minimum; None where it does not fall by more than the noise of batches. At this rate
        training is quick and far from too much; a few times as much is often better still, as the
        largest rate of a schedule that falls, such as `one_cycle`. The rate of the least smoothed
        loss, some ten times as large, is on the brink.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> found = fn.find_learning_rate(
      ...     net, fn.adam, digits, key=jax.random.key(0), batch_size=50, steps=20
      ... )
      >>> found.learning_rate.shape == found.loss.shape == found.smoothed.shape
      True
      >>> bool((np.diff(found.learning_rate) > 0).all())
      True
    """

    learning_rate: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None

    def __str__(self) -> str:
        if not len(self.loss):
            return "no suggestion: the loss is no number at the first step"
        places = np.unique(np.linspace(0, len(self.loss) - 1, SHOWN).round().astype(int))
        columns = self.learning_rate, self.loss, self.smoothed
        lines = [[f"{column[at]:.4g}" for column in columns] for at in places]
        head = ["learning rate", "loss", "smoothed"]
        said = "no suggestion: the loss does not fall at any of these rates"
        if self.suggestion is not None:
            said = f"suggestion: {self.suggestion:.2g}, where the loss falls fastest"
        return "\n".join([*aligned([head, *lines], right=True), said])


@takes(FitOptions)
def find_learning_rate(
    net: Layer,
    optimizer: Callable[[Any], Optimizer],
    dataset: Dataset,
    *,
    key: jax.Array,
    batch_size: int,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 200,
    smoothing: float | None = None,
    **options: Unpack[FitOptions],
) -> RateRange:
    """Train for some steps at a rate that rises, and see where the loss falls and where it explodes
    (Smith 2017, arXiv 1506.01186, section 3.3, of a rate that rises exponentially):

        rate of step k = lowest * (highest / lowest)**(k / (steps - 1)),  k = 0, 1, ...

    It ends before its time when the loss is no number any more, or its mean over the steps before
    has risen from its least by twice the loss at the start. What comes of it is a function of its
    arguments: the net and the optimizer given are not trained by it.

        found = find_learning_rate(net, adam, digits, key=jax.random.key(0), batch_size=50)
        fit(net, adam(found.suggestion), digits, ...)

    Args:
      net, dataset, key, batch_size: as for `fit`; batches are full ones, passes over the data in
        the order of `fit`.
      optimizer: a function of the learning rate, such as `adam`, or
        `functools.partial(adamw, weight_decay=0.1)`.
      lowest, highest: the first rate and the last.
      steps: how many there are, 10 or more.
      smoothing: the weight of a step's neighbours in its smoothed loss, 0 (none) to below 1. None
        is 1 - 20 / steps, by which a tenth of the steps count.
      reg, loss_fn, class_weight, preprocess: as for `fit`.
      augment, label_smoothing, mixup_alpha, average_decay: as for `fit`.
    Returns:
      A RateRange.
    Raises:
      ValueError, TypeError: an argument is wrong, as for `fit`.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> found = fn.find_learning_rate(
      ...     net, fn.adam, digits, key=jax.random.key(0), batch_size=50
      ... )
      >>> 1e-5 < found.suggestion < 1
      True
    """
    given = complete(FitOptions, options, "find_learning_rate")
    dataset = check_dataset(dataset, stored=True)
    batch_size = check_batch_size(batch_size, dataset)
    steps = STEPS.check("steps", steps)
    smoothing = max(0.0, 1 - 20 / steps) if smoothing is None else smoothing
    SMOOTHING.check("smoothing", smoothing)
    rising = _rising(lowest, highest, steps)
    losses: list[np.ndarray] = []

    def look(epoch: int, train_state: Any, metrics: dict[str, Any]) -> bool:
        losses.append(metrics["losses"])
        return _end(np.concatenate(losses), smoothing) is not None

    fit(
        net,
        _at(optimizer, rising),
        dataset,
        key=checks.key(key),
        epochs=math.ceil(steps / TOGETHER),
        batches=_batches(dataset, jax.random.split(key)[1], batch_size),
        steps_per_epoch=TOGETHER,
        eval_every=None,
        callback=look,
        on_nonfinite="skip",  # it is seen here
        **given,
    )
    loss = np.concatenate(losses)[:steps]
    loss = loss[: _end(loss, smoothing)]
    rate = np.asarray(rising(np.arange(len(loss))), np.float64)
    return rate_range(rate, loss, smoothing)


def rate_range(rate: np.ndarray, loss: np.ndarray, smoothing: float) -> RateRange:
    """The RateRange of rates [N] and losses [N], of which all are numbers."""
    smoothed = _smoothed(loss, smoothing)
    return RateRange(rate, loss, smoothed, _suggestion(rate, loss, smoothed, smoothing))


def _rising(lowest: float, highest: float, steps: int) -> Callable[[Any], Any]:
    """The schedule from the lowest rate to the highest."""
    LEARNING_RATE.check("lowest", lowest)
    LEARNING_RATE.check("highest", highest)
    if not highest > lowest:
        raise ValueError(f"highest must be above lowest, {lowest:g}, got {highest:g}")
    return exponential_decay(lowest, (highest / lowest) ** (1 / (steps - 1)), 1)


def _at(optimizer: Any, rate: Any) -> Optimizer:
    """The optimizer at a rate."""
    if not callable(optimizer):
        raise TypeError(
            "optimizer must be a function of the learning rate, such as adam, not what it gives: "
            f"got {checks.cut(optimizer)}"
        )
    made: Optimizer = optimizer(rate)
    return made


def _batches(dataset: Dataset, key: jax.Array, batch_size: int) -> Iterator[tuple[Any, ...]]:
    """Full batches of a dataset for ever, in the order in which `fit` takes them."""
    x, y, weight = dataset.x_train, dataset.y_train, dataset.weight_train
    orders = Orders(key, len(x))
    for epoch in itertools.count():
        order = orders.of(epoch)
        for start in range(0, len(x) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            yield (x[rows], y[rows], *([] if weight is None else [weight[rows]]))


def _end(loss: np.ndarray, smoothing: float) -> int | None:
    """How many losses there are until they explode; None where they do not."""
    bad = ~np.isfinite(loss)
    count = int(bad.argmax()) if bad.any() else len(loss)
    before = _before(loss[:count], smoothing)
    risen = before - np.minimum.accumulate(before) > EXPLODED * np.abs(loss[:1])
    if risen.any():
        return int(risen.argmax()) + 1
    return count if bad.any() else None


def _before(loss: np.ndarray, smoothing: float) -> np.ndarray:
    """The mean of a loss and those before it, [N], those k steps before with smoothing**k."""
    means, mean, total = [], 0.0, 0.0
    for each in loss:
        mean, total = smoothing * mean + each, smoothing * total + 1
        means.append(mean / total)
    return np.array(means)


def _smoothed(loss: np.ndarray, smoothing: float) -> np.ndarray:
    if not len(loss):
        return loss
    fallen = int(_before(loss, smoothing).argmin())
    capped = np.minimum(loss, loss[: fallen + 1].max())
    places = np.arange(len(loss))
    weight = float(smoothing) ** np.abs(places[:, None] - places)
    return weight @ capped / weight.sum(axis=1)


def _suggestion(
    rate: np.ndarray, loss: np.ndarray, smoothed: np.ndarray, smoothing: float
) -> float | None:
    """The rate of steepest descent, if there is a descent that is not noise."""
    least = int(smoothed.argmin()) if len(loss) else 0
    if least < 2:
        return None
    # From one step to the next, whatever the trend: the spread of one loss, and of a smoothed one.
    apart = np.median(np.abs(np.diff(loss[: least + 1]))) / (0.6745 * math.sqrt(2))
    noise = apart * math.sqrt((1 - smoothing) / (1 + smoothing))
    if smoothed[0] - smoothed[least] <= NOISE * noise:
        return None
    slope = np.gradient(smoothed[: least + 1], np.log(rate[: least + 1]))
    return float(rate[int(slope.argmin())])
