"""What an experiment does where it is not said: by what the data are, pixels or a table.

It depends on what the arrays show, never on what a dataset is called.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from funcnet.config import BATCH_SIZE, Config
from funcnet.datasets import Dataset
from funcnet.losses import LOSSES
from funcnet.targets import MONITORS, usual_loss

__all__ = ["complete_config"]

# The assignment's. Pixels have one unit, and are many.
PIXELS: Mapping[str, Any] = {
    "preprocess": ("mean",),
    "weight_scale": 2e-2,
    "reg": 0.0,
    "epochs": 20,
    "eval_every": 1,
    "model": "best",
}
# Columns have units of their own, and are few, as rows often are: what costs accuracy is that a
# network learns them by heart, and that few examples for validation choose an epoch by luck.
TABLE: Mapping[str, Any] = {
    "preprocess": ("numbers",),
    "weight_scale": "he",
    "schedule": "cosine",
    "model": "last",
}
# L2 beside the sum of the losses of a table: shared by its classes or labels, and of regression.
PRIOR, PRIOR_OF_NUMBERS = 20.0, 5.0
MOST_REG = 0.1  # of so few rows as were not measured
EVEN = range(32, 81)  # sizes of batches
UPDATES = 1000  # of a table, at least
MOST = 50_000  # so many make of the epochs of a large one fewer
EPOCHS = 20  # over a table of any other size
LOOKS = 25  # at the course of a run


def complete_config(config: Config, dataset: Dataset) -> Config:
    """The Config with what it leaves open as the data ask for.

    Examples of dtype uint8, or of more than one axis, are pixels; others are rows of a table. These
    are standardized, with He weights, L2 of 20 / (N C), of regression 5 / N, 0.1 at most, and a
    learning rate that falls to nothing in 20 epochs, but at least 1,000 updates and about 50,000 at
    most; batches are of 32 to 80 of them, such that none is short if there is such a size, the
    nearest to 50, and a multiple of `reproducible`; the last model counts, but the best one where
    there is patience or a monitor.

    Args:
      config: a Config; what is None in it is open.
      dataset: what is trained on.
    Returns:
      A Config in which nothing that `fit` needs is None.
    Example:
      >>> config = fn.complete_config(fn.Config(), fn.load_digits())
      >>> config.preprocess, config.epochs, config.loss
      (('mean',), 20, 'softmax')
    """
    x, task = dataset.x_train, dataset.task
    usual = next(name for name, loss_fn in LOSSES.items() if loss_fn is usual_loss(task))
    config = replace(config, loss=config.loss or usual, monitor=config.monitor or MONITORS[task])
    if x.dtype == np.uint8 or x.ndim > 2:
        chosen = dict(PIXELS)
    else:
        chosen = {**TABLE, **_course(config, dataset)}
        if config.embedding == "piecewise":
            chosen["preprocess"] = ("quantiles",)
        if config.learning_rate_decay is not None:
            del chosen["schedule"]
        if config.weight_decay is not None:
            chosen["reg"] = 0.0
        if config.patience is not None or config.monitor != MONITORS[task]:
            chosen["model"] = "best"
    return replace(config, **{k: v for k, v in chosen.items() if getattr(config, k) is None})


def _course(config: Config, dataset: Dataset) -> dict[str, float]:
    """Epochs over the rows, in which batches, how often to look, and L2."""
    count, prior = len(dataset.x_train), PRIOR_OF_NUMBERS
    if dataset.task != "regression":
        prior = PRIOR / max(1, len(dataset.class_names))
    batch_size = config.batch_size or _even_batch_size(count, config.reproducible or 1)
    steps = math.ceil(count / min(batch_size, count))
    usual = min(EPOCHS, math.ceil(MOST / steps))
    epochs = config.epochs or max(usual, math.ceil(UPDATES / steps))
    reg = min(MOST_REG, prior / count)
    course = {"batch_size": batch_size, "epochs": epochs, "reg": reg}
    return {**course, "eval_every": max(1, epochs // LOOKS)}


def usual_batch_size(count: int, shards: int = 1) -> int:
    """50, or all of so many examples if they are fewer; a multiple of the number of shards."""
    most = max(1, count // shards)
    return min(math.ceil(BATCH_SIZE / shards), most) * shards


def _even_batch_size(count: int, shards: int) -> int:
    """About 50, so that no batch of so many rows is short: a program for those is compiled, too."""
    even = [size for size in EVEN if count % size == 0 and size % shards == 0]
    usual = usual_batch_size(count, shards)
    return min(even, key=lambda size: abs(math.log(size / BATCH_SIZE)), default=usual)
