"""What a run measures of its models: splits as evaluation takes them again and again."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset, Stored
from funcnet.evaluation import Examples, measure
from funcnet.history import columns, history_row
from funcnet.inputs import EVALUATION_BATCH, on_device
from funcnet.model import Model, predict_scores
from funcnet.own_metrics import Metric, call_metric, columns_of
from funcnet.preprocess import Preprocess
from funcnet.targets import MONITORS, Targets
from funcnet.tree import LossFn

PATIENCE = checks.COUNT
TRAIN_SAMPLE = 1000  # training examples on which the accuracy is measured


class Prepared(NamedTuple):
    """A split as evaluation takes it again and again: preprocessed, if that is done on the host.

    Attributes:
      examples: the inputs, encoded targets and weights.
      y: the targets, as in the Dataset.
      preprocess: what is left to be done to the inputs.
    """

    examples: Examples
    y: np.ndarray
    preprocess: Preprocess

    def of(self, model: Model) -> Model:
        """The model of such inputs."""
        return Model(model.net, model.params, model.state, self.preprocess, targets=model.targets)


def prepared(found: tuple[Examples, np.ndarray], fitted: Preprocess) -> Prepared:
    """A split of `examples_of`, for a fitted preprocessing."""
    examples, y = found
    ready, left = on_device(examples.x, fitted) if len(y) else (examples.x, fitted)
    return Prepared(examples._replace(x=ready), y, left)


def own_row(
    metrics: Mapping[str, Metric], model: Model, splits: Mapping[str, Prepared]
) -> dict[str, float]:
    """What one's own metrics say of each split; NaN of one that is empty."""
    row = dict.fromkeys(columns_of(metrics), np.nan)
    for split, each in splits.items():
        x, y = each.examples.x, each.y
        if metrics and len(y):
            found = predict_scores(each.of(model), x, batch_size=EVALUATION_BATCH)
            if model.targets.task == "regression":
                found = model.targets.decode(found)
            known = y[:]  # of what is on disk an array
            for name, metric in metrics.items():
                row[f"{split}_{name}"] = call_metric(name, metric, found, known)
    return row


def examples_of(dataset: Dataset, split: str, targets: Targets) -> tuple[Examples, np.ndarray]:
    """The examples that are measured, with encoded targets, and their targets as they are.

    Args:
      dataset: the Dataset, checked.
      split: "val", all of them; or "train", all, or 1,000 spread evenly.
      targets: the Targets.
    """
    x, y, weight = (getattr(dataset, f"{name}_{split}") for name in ("x", "y", "weight"))
    if split == "train":
        count = len(x)
        places = np.linspace(0, count - 1, min(count, TRAIN_SAMPLE)).round().astype(int)
        x, y, weight = x[places], y[places], None if weight is None else weight[places]
    encoded = y.made(targets.encode) if isinstance(y, Stored) else targets.encode(y)
    return Examples(x, encoded, weight), y


def measured_row(
    model: Model,
    loss_fn: LossFn,
    class_weight: Any,
    splits: Mapping[str, "Prepared"],
    epoch: int,
) -> dict[str, Any]:
    """What is measured of a model after an epoch, a row of a History."""

    def measured(split: Prepared) -> dict[str, float]:
        parts = split.of(model), split.examples, EVALUATION_BATCH, loss_fn
        return measure(*parts, class_weight)

    train = measured(splits["train"])
    val = measured(splits["val"]) if len(splits["val"].examples.y) else None
    return history_row(epoch, train, val)


def check_monitor(
    monitor: Any,
    patience: Any,
    eval_every: int | None,
    dataset: Dataset,
    own: Sequence[str] = (),
) -> str:
    """What `monitor` of `fit` is, if it is measured, by what `patience` goes.

    Args:
      monitor, patience, eval_every: those of `fit`.
      dataset: the Dataset.
      own: the columns of one's own metrics.
    """
    usual = MONITORS[dataset.task]
    monitor = usual if monitor is None else monitor
    known = [*columns(dataset.task)[1:], *own, *(f"-{name}" for name in own)]
    if monitor not in known:
        raise ValueError(checks.unknown("monitor", str(monitor), known))
    if patience is not None:
        PATIENCE.check("patience", patience)
    if patience is None and monitor == usual:
        return monitor
    missing = ["eval_every"] if eval_every is None else []
    if monitor.removeprefix("-").startswith("val_") and not len(dataset.x_val):
        missing.append("validation examples, which monitor train_loss does not")
    if missing:
        what = "patience" if patience is not None else f"monitor {monitor}"
        raise ValueError(f"{what} needs {' and '.join(missing)}")
    return monitor
