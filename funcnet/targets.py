"""What is predicted: the task, what the scores of a network say of it, and in which units."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, metrics
from funcnet.datasets.dataset import TASKS, Dataset
from funcnet.datasets.disk import in_parts
from funcnet.losses import (
    LOSSES,
    absolute_loss,
    huber_loss,
    pinball_loss,
    poisson_loss,
    sigmoid_loss,
    softmax_loss,
    squared_loss,
    svm_loss,
)
from funcnet.tree import LossFn

__all__ = ["Targets"]

# By task: the losses of funcnet that are for it, the usual one first.
TASK_LOSSES: Mapping[str, tuple[LossFn, ...]] = {
    "classification": (softmax_loss, svm_loss),
    "regression": (squared_loss, absolute_loss, huber_loss, pinball_loss, poisson_loss),
    "multilabel": (sigmoid_loss,),
}
# What is measured beside the loss.
MEASURES: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "regression": ("rmse", "mae", "r2"),
    "multilabel": ("accuracy", "micro_f1", "macro_f1"),
}
LESS = ("loss", "log_loss", "rmse", "mae")  # of these less is better, of others more
MONITORS = {"classification": "val_accuracy", "regression": "val_loss", "multilabel": "val_loss"}
LINKS = ("softmax", "margin", "identity", "log", "sigmoid")
_LINK_OF = {svm_loss: "margin", poisson_loss: "log"}
_LINKS = {"classification": "softmax", "regression": "identity", "multilabel": "sigmoid"}


@dataclass(frozen=True)
class Targets:
    """What a network predicts, and what its scores say of it: plain data, part of a Model.

    Attributes:
      task: "classification", "regression" or "multilabel".
      link: what scores are: "softmax", logits of classes; "margin", those of `svm_loss`, which are
        no logits; "identity", predictions in units of training; "log", their logarithms, of
        `poisson_loss`; "sigmoid", a logit of each label.
      names: what the C classes, the K targets or labels are called; () is not said.
      mean, scale: K numbers each, of regression: a prediction is mean + scale * what the network
        gives. () is 0 and 1.
      quantiles: those that are predicted of each target, of `pinball_loss`; () is one number.
      flat: whether targets of regression are [N], rather than [N, 1].
      temperature: what scores are divided by before they are probabilities, see `calibrate`.
    Example:
      >>> targets = fn.Targets("regression", "identity", mean=(10.0,), scale=(2.0,))
      >>> targets.encode(np.array([12.0, 6.0]))
      array([[ 1.],
             [-2.]], dtype=float32)
      >>> targets.decode(np.array([[1.0], [-2.0]]))
      array([12.,  6.])
    """

    task: str = "classification"
    link: str = "softmax"
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = ()
    flat: bool = True
    temperature: float = 1.0

    @property
    def bare(self) -> "Targets":
        """The same without units and names: what programs are compiled for."""
        return replace(self, names=(), mean=(), scale=(), flat=True, temperature=1.0)

    @property
    def gives_probabilities(self) -> bool:
        """Whether softmax or sigmoid of the scores are probabilities."""
        return self.link in ("softmax", "sigmoid")

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Targets as a loss takes them: of regression [N, K] in units of training.

        Args:
          y: as in a Dataset.
        """
        if self.task == "classification":
            return y
        if self.task == "multilabel":
            return y.astype(jax.dtypes.canonicalize_dtype(float))
        y = y.astype(np.float64).reshape(len(y), len(self.scale))
        units = (y - np.array(self.mean)) / np.array(self.scale)
        return units.astype(jax.dtypes.canonicalize_dtype(float))

    def decode(self, scores: np.ndarray, *, points: bool = False) -> np.ndarray:
        """Predictions of regression in the person's units: [N] or [N, K]; of Q quantiles [..., Q].

        Args:
          scores: [N, K * max(Q, 1)].
          points: of quantiles the middle one alone, [N] or [N, K].
        """
        with np.errstate(over="ignore"):
            values = self.in_units(np.asarray(scores, np.float64))
        if points and self.quantiles:
            values = values[..., self._middle]
        return values

    def in_units(self, scores: Any) -> Any:
        """`decode` of scores [N, K * max(Q, 1)] of NumPy or JAX, in their dtype."""
        xp = scores.__array_namespace__()
        values = xp.exp(scores) if self.link == "log" else scores
        mean, scale = (xp.asarray(each, dtype=scores.dtype) for each in (self.mean, self.scale))
        values = values.reshape(scores.shape[0], len(self.scale), -1)  # [N, K, Q]
        values = mean[None, :, None] + scale[None, :, None] * values
        if not self.quantiles:
            values = values[:, :, 0]
        return values[:, 0] if self.flat else values

    def points(self, scores: Any) -> Any:
        """One prediction [N, K] of each target in units of training, of quantiles the middle one.

        Args:
          scores: [N, K * max(Q, 1)], of NumPy or JAX.
        """
        if self.quantiles:
            return scores.reshape(len(scores), -1, len(self.quantiles))[:, :, self._middle]
        return scores.__array_namespace__().exp(scores) if self.link == "log" else scores

    @property
    def _middle(self) -> int:
        """The place of the quantile that is nearest to 0.5; 0 where there is one number."""
        away = [abs(quantile - 0.5) for quantile in self.quantiles]
        return away.index(min(away)) if away else 0

    def as_json(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return asdict(self)


def from_json(content: Any) -> Targets:
    """The Targets of what `as_json` gave.

    Raises:
      ValueError: it is something else.
    """
    try:
        if not isinstance(content, Mapping):
            raise TypeError("no dict")
        made: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in dict(content).items()
        }
        targets = Targets(**made)
        sound = (
            targets.task in TASKS
            and targets.link in LINKS
            and isinstance(targets.flat, bool)
            and all(isinstance(name, str) for name in targets.names)
            and len(targets.mean) == len(targets.scale)
            and (targets.task == "regression") == (len(targets.mean) > 0)
            and all(
                type(value) in (int, float) and math.isfinite(value)
                for value in (
                    *targets.mean,
                    *targets.scale,
                    *targets.quantiles,
                    targets.temperature,
                )
            )
            and targets.temperature > 0
        )
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"no targets of a network: {checks.cut(content)}")
    return targets


def usual_loss(task: str) -> LossFn:
    """The loss of a task where none is given."""
    return TASK_LOSSES[task][0]


def is_known(loss_fn: LossFn) -> bool:
    """Whether a loss is one of funcnet's: a mean over examples, whatever else is in the batch."""
    return _unbound(loss_fn) in LOSSES.values()


def task_of_loss(loss_fn: LossFn) -> str | None:
    """The task that a loss of funcnet is for; None of one's own."""
    known = _unbound(loss_fn)
    return next((task for task, losses in TASK_LOSSES.items() if known in losses), None)


def check_loss(loss_fn: LossFn, task: str) -> None:
    """Raise a ValueError if a loss of funcnet is for another task."""
    other = task_of_loss(loss_fn)
    if other not in (None, task):
        usual = ", ".join(each.__name__ for each in TASK_LOSSES[task])
        name = _unbound(loss_fn).__name__
        raise ValueError(f"{name} is for {other}, and the task is {task}; its losses: {usual}")


def fit_targets(dataset: Dataset, loss_fn: LossFn) -> Targets:
    """The Targets of a checked Dataset: of regression its units are fitted to the training split.

    Those of `poisson_loss` are divided by their mean, others standardized, with weights where
    the examples have such; a target that never varies is centred alone.

    Raises:
      ValueError: the loss is for another task, or `poisson_loss` is given numbers below 0.
    """
    task = dataset.task
    check_loss(loss_fn, task)
    known = _unbound(loss_fn)
    if task != "regression":
        return Targets(task, _LINK_OF.get(known, _LINKS[task]), dataset.class_names)
    if known is poisson_loss:
        for split in ("train", "val", "test"):
            every = in_parts(getattr(dataset, f"y_{split}"))
            if any((part < 0).any() for (part,) in every):
                raise ValueError(
                    f"poisson_loss is for counts and rates, but y_{split} has some < 0"
                )
    mean, squares, total = moments(dataset.y_train, dataset.weight_train)
    spread = np.sqrt(squares / total)
    # A column of one value has a spread of roundings.
    varies = spread > 1e-12 * np.abs(mean)
    if known is poisson_loss:
        mean, scale = np.zeros_like(mean), np.where(mean > 0, mean, 1.0)
    else:
        scale = np.where(varies, spread, 1.0)
    return Targets(
        task,
        _LINK_OF.get(known, _LINKS[task]),
        dataset.target_names,
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        _quantiles(loss_fn),
        dataset.y_train.ndim == 1,
    )


def moments(y: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Of targets [N] or [N, K] the weighted mean [K], the sum of the weighted squares of what they
    are less it [K], and the sum of the weights. Where no example counts, all do.
    """
    counted = weight is not None and any(part.any() for (part,) in in_parts(weight))

    def summed(function: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float]:
        total, sums = 0.0, []
        for rows, own in in_parts(y, weight if counted else None):
            columns = rows.astype(np.float64).reshape(len(rows), -1)  # [N, K]
            weights = np.ones(len(rows)) if own is None else own
            sums.append((weights[:, None] * function(columns)).sum(axis=0))
            total += weights.sum()
        return np.sum(sums, axis=0), total

    sums, total = summed(lambda columns: columns)
    mean = sums / total
    return mean, summed(lambda columns: np.square(columns - mean))[0], total


def outputs_of(dataset: Dataset, loss_fn: LossFn) -> int:
    """How many scores a network gives to each example: of regression K, or K times Q quantiles."""
    if dataset.task != "regression":
        return len(dataset.class_names)
    return math.prod(dataset.y_train.shape[1:]) * max(1, len(_quantiles(loss_fn)))


def combined(scores: jax.Array, targets: Targets) -> jax.Array:
    """The scores [N, C] of what the members of an ensemble say together, [N, M, C].

    Of ensembles of ensembles, [N, M, K, C], it is what all M K of them say.

    Probabilities and predictions are averaged, not scores: of logits log mean softmax and the logit
    of the mean sigmoid, of logarithms log mean exp; others are their mean.
    """
    scores = scores.reshape(scores.shape[0], -1, scores.shape[-1])
    if targets.link == "softmax":
        return _log_mean_exp(jax.nn.log_softmax(scores, axis=-1))
    if targets.link == "log":
        return _log_mean_exp(scores)
    if targets.link == "sigmoid":
        yes, no = (_log_mean_exp(jax.nn.log_sigmoid(sign * scores)) for sign in (1, -1))
        return yes - no
    return scores.mean(axis=1)


def _log_mean_exp(values: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(values, axis=1) - math.log(values.shape[1])


def sums_of(
    scores: jax.Array, y: jax.Array, weight: jax.Array, targets: Targets
) -> dict[str, jax.Array]:
    """Sums over examples that the measures of a task are made of, see `measures_of`.

    Args:
      scores: [N, C].
      y: encoded targets.
      weight: [N], how much each example counts; 0 is none.
      targets: the Targets, bare.
    """
    if targets.task == "classification":
        right = (scores.argmax(axis=1) == y) & ~jnp.isnan(scores).any(axis=1)  # NaN is no answer
        return {"right": jnp.where(right, weight, 0).sum()}
    column = weight[:, None]
    if targets.task == "regression":
        error = jnp.where(column > 0, targets.points(scores) - y, 0)  # [N, K]
        return {
            "squares": (column * jnp.square(error)).sum(axis=0),
            "absolute": (column * jnp.abs(error)).sum(axis=0),
        }
    said, true = scores > 0, y > 0.5  # [N, K]
    known = ~jnp.isnan(scores)
    counts = {"found": said & true, "wrong": said & ~true, "missed": known & ~said & true}
    sums = {name: jnp.where(each, column, 0).sum(axis=0) for name, each in counts.items()}
    whole = ((said == true) & known).all(axis=1)
    return {"right": jnp.where(whole, weight, 0).sum(), **sums}


def measures_of(
    sums: Mapping[str, Any], total: float, spread: np.ndarray | None, targets: Targets
) -> dict[str, Any]:
    """The measures of a task by name, those in MEASURES.

    Args:
      sums: from `sums_of`, of all examples; with axes in front, of several runs.
      total: the sum of the weights.
      spread: of regression [K], the sum of the weighted squares of y less their mean, in units of
        training.
      targets: the Targets.
    """
    total = total or np.nan  # where no example counts there is nothing to say
    if targets.task == "classification":
        return {"accuracy": sums["right"] / total}
    if targets.task == "regression":
        assert spread is not None
        scale = np.array(targets.scale)
        squares = np.asarray(sums["squares"], np.float64)
        varies = spread > 0
        return {
            "rmse": (scale * np.sqrt(squares / total)).mean(axis=-1),
            "mae": (scale * np.asarray(sums["absolute"], np.float64) / total).mean(axis=-1),
            "r2": np.where(varies, 1 - squares / np.where(varies, spread, 1), np.nan).mean(axis=-1),
        }
    found, wrong, missed = (np.asarray(sums[k], np.float64) for k in ("found", "wrong", "missed"))
    each = metrics.f1_of_counts(found, wrong, missed)
    all_of = (counts.sum(axis=-1) for counts in (found, wrong, missed))
    return {
        "accuracy": sums["right"] / total,
        "micro_f1": metrics.f1_of_counts(*all_of),
        "macro_f1": each.mean(axis=-1),
    }


def spread_of(y: Any, weight: Any) -> np.ndarray:
    """The sum of the weighted squares of encoded targets [N, K] less their mean, [K] float64."""
    return moments(y, weight)[1]


def _quantiles(loss_fn: LossFn) -> tuple[float, ...]:
    """Those that a loss trains; () where it is one number."""
    if _unbound(loss_fn) is not pinball_loss:
        return ()
    usual = inspect.signature(pinball_loss).parameters["quantiles"].default
    return tuple(map(float, getattr(loss_fn, "options", {}).get("quantiles", usual)))


def _unbound(loss_fn: LossFn) -> LossFn:
    """The loss whose options are given, or a loss itself."""
    return getattr(loss_fn, "function", loss_fn)
