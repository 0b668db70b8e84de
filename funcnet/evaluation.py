"""How well a model does: its loss, and the measures of its task."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, metrics
from funcnet.datasets import Stored
from funcnet.datasets.dataset import checked_targets
from funcnet.datasets.disk import counts_of, in_parts
from funcnet.loop import slices
from funcnet.losses import as_loss, gives_probabilities
from funcnet.model import (
    Model,
    View,
    check_model,
    check_views,
    filled,
    inputs_for,
    model_on_device,
    scores,
)
from funcnet.program import num_scores
from funcnet.step import loss_weight
from funcnet.targets import (
    LESS,
    Targets,
    check_loss,
    is_known,
    measures_of,
    spread_of,
    sums_of,
    usual_loss,
)
from funcnet.tree import LossFn
from funcnet.weights import balanced, class_weights

TOGETHER = 1000  # batches whose sums are added at a time

__all__ = ["Evaluation", "MultilabelEvaluation", "RegressionEvaluation", "evaluate"]


class Evaluation(NamedTuple):
    """What `evaluate` measured of classes; printed without what is of each of them.

    Attributes:
      loss: the mean loss, without regularisation.
      accuracy: the share of examples whose largest score is that of their label.
      views: of how many views of each example the scores were averaged; 1 is no averaging.
      balanced_accuracy: the mean recall of the classes that occur.
      log_loss: the mean -log softmax probability of the true class; None after `svm_loss`, whose
        scores make no probabilities.
      recall: of each of the C classes, the share of its examples that were found; None for a
        class that has no example.
      confusion: C rows of C numbers, how many examples of each class were taken for each. An
        example that has a NaN among its scores is taken for none.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> found = fn.evaluate(model, x, np.array([0, 1]))
      >>> found.accuracy, found.balanced_accuracy, found.recall, found.views
      (1.0, 1.0, (1.0, 1.0), 1)
    """

    loss: float
    accuracy: float
    views: int = 1
    balanced_accuracy: float = math.nan
    log_loss: float | None = None
    recall: tuple[float | None, ...] = ()  # tuples, so that == is a bool
    confusion: tuple[tuple[int, ...], ...] = ()

    def __repr__(self) -> str:
        names = ("loss", "accuracy", "balanced_accuracy", "log_loss", "views")
        return f"Evaluation({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class RegressionEvaluation(NamedTuple):
    """What `evaluate` measured of regression; errors are in the units of the targets.

    Attributes:
      loss: the mean loss, without regularisation, in units of training.
      rmse: the root of the mean squared error; of several targets the mean of theirs. Of quantiles
        it is that of the middle one.
      mae: the mean absolute error, likewise.
      r2: 1 - the sum of squared errors / that of the targets less their mean, likewise; NaN where
        they never vary.
      views: as of an `Evaluation`.
    Example:
      >>> net, x = fn.mlp([], 1), np.array([[1.0], [2.0], [3.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.ones((1, 1), "f"), "b": np.zeros(1, "f")}})
      >>> targets = fn.Targets("regression", "identity", mean=(10.0,), scale=(1.0,))
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x), targets=targets)
      >>> fn.evaluate(model, x, np.array([11.0, 12.0, 13.0]))
      RegressionEvaluation(loss=0.0, rmse=0.0, mae=0.0, r2=1.0, views=1)
    """

    loss: float
    rmse: float
    mae: float
    r2: float
    views: int = 1


class MultilabelEvaluation(NamedTuple):
    """What `evaluate` measured of several labels.

    Attributes:
      loss: the mean loss, without regularisation.
      accuracy: the share of examples all of whose labels are right.
      micro_f1: F1 of the counts over all labels, 2 TP / (2 TP + FP + FN).
      macro_f1: the mean of the F1 of each label.
      f1: that of each of the K labels.
      views: as of an `Evaluation`.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[3.0, -3.0], [3.0, 3.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> targets = fn.Targets("multilabel", "sigmoid")
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x), targets=targets)
      >>> found = fn.evaluate(model, x, np.array([[1, 0], [1, 0]]))
      >>> found.accuracy, found.f1
      (0.5, (1.0, 0.0))
    """

    loss: float
    accuracy: float
    micro_f1: float
    macro_f1: float
    f1: tuple[float, ...] = ()
    views: int = 1


def merit(measured: Mapping[str, Any], monitor: str) -> tuple[Any, Any]:
    """What models are ranked by, more is better: see `monitor` of `fit`.

    Args:
      measured: numbers or arrays by name, as in a row of a History; what is NaN is worst.
      monitor: which of them.
    """
    name = monitor.removeprefix("-")
    split, _, what = name.partition("_")
    if what == "accuracy":
        return _known(measured[name]), _known(-measured[f"{split}_loss"])
    value = measured[name]
    return _known(-value if what in LESS or name != monitor else value), np.zeros(np.shape(value))


def _known(value: Any) -> Any:
    return np.where(np.isnan(value), -np.inf, value)


def is_better(new: tuple[Any, Any], old: tuple[Any, Any]) -> Any:
    """Whether a `merit` is above another, numbers or arrays."""
    (first, second), (old_first, old_second) = new, old
    return (first > old_first) | ((first == old_first) & (second > old_second))


def evaluate(
    model: Model,
    x: Any,
    y: Any,
    *,
    batch_size: int = 1000,
    loss_fn: LossFn | None = None,
    views: Sequence[View] | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
) -> Evaluation | RegressionEvaluation | MultilabelEvaluation:
    """The loss of a model on examples with targets, its accuracy and more, in evaluation mode.

    Args:
      model: the model.
      x: [N, ...] raw inputs, or a table, as for `predict`; of `Stored`, as y is then, no more than
        a batch is in memory.
      y: the targets, as in a Dataset of the model's task: [N] integer labels, [N] or [N, K] numbers
        in the person's units, or [N, K] of 0 and 1.
      batch_size: examples per forward pass.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`; None is the usual one of the task.
      views: average the scores over these views of each example, as for `predict`: test-time
        augmentation. The result says over how many.
      sample_weight: [N], 0 or more: how much each example counts, in all that is measured but the
        confusion, which counts examples. None is 1 each.
      class_weight: how much the loss counts each class, as for `fit`; "balanced" goes by y. It
        changes nothing but the loss.
    Returns:
      An Evaluation, of regression a RegressionEvaluation, of several labels a
      MultilabelEvaluation.
    Raises:
      ValueError: x is empty or not finite, its examples have the wrong shape, a target is none of
        the model's, or no example counts.
      TypeError: model is no Model, loss_fn no function, or views no sequence of functions.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> print(fn.evaluate(model, x, np.array([0, 1])).accuracy)
      1.0
      >>> fn.evaluate(model, x, np.array([0, 0])).confusion
      ((1, 1), (0, 0))
    """
    check_model(model)
    targets = model.targets
    loss_fn = usual_loss(targets.task) if loss_fn is None else as_loss(loss_fn)
    check_loss(loss_fn, targets.task)
    x, views = inputs_for(model, x), check_views(views)
    outputs = num_scores(model.net, model.params, model.state, model.preprocess, x)
    num_classes = outputs if targets.task != "regression" else 0
    like = None
    if targets.task == "regression":
        like = np.empty(0) if targets.flat else np.empty((0, len(targets.scale)))
    check = partial(
        checked_targets, name="y", task=targets.task, num_classes=num_classes, like=like
    )
    on_disk, weight = isinstance(x, Stored), sample_weight
    if on_disk:
        if not isinstance(y, Stored) or len(y) != len(x) or isinstance(weight, np.ndarray):
            raise ValueError(f"x is {x!r}: targets, and weights, must be of its rows, on disk too")
        y = y.made(lambda rows: check(rows, count=len(rows)))
    else:
        y = check(y, count=len(x))
        weight = weight if weight is None else checks.weights(weight, num_examples=len(x))
    if weight is not None and not any(part.any() for (part,) in in_parts(weight)):
        raise ValueError("sample_weight is 0 of all examples: none counts")
    by_class = None
    if class_weight is not None:
        if targets.task != "classification":
            raise ValueError(f"class_weight is for classes, and the task is {targets.task}")
        if on_disk and isinstance(class_weight, str):
            checks.choose("class_weight", class_weight, {"balanced": True})
            by_class = np.asarray(balanced(counts_of(y, num_classes, weight)))
        else:
            known = np.arange(num_classes) if on_disk else y
            names = targets.names or None
            made = class_weights(known, class_weight, names, num_classes, sample_weight=weight)
            by_class = np.asarray(made)
    batch_size = checks.COUNT.check("batch_size", batch_size)
    split = Examples(x, y.made(targets.encode) if on_disk else targets.encode(y), weight)
    probable = targets.gives_probabilities and gives_probabilities(loss_fn)
    batches = _with_scores(model, split, batch_size, loss_fn, views, by_class)
    if on_disk:
        return _by_totals(model, y, batches, weight, max(1, len(views)), probable)
    every = list(batches)
    total = sum(each.weight for each in every)
    mean = sum(each.loss for each in every) / total if total else 0.0
    values = np.concatenate([each.scores for each in every])
    return _evaluation(model, y, values, mean, weight, max(1, len(views)), probable)


class Examples(NamedTuple):
    """Examples with targets, as they are evaluated.

    Attributes:
      x: [N, ...] inputs.
      y: [N, ...] encoded targets.
      weight: [N] float64, how much each counts; None is 1 each.
    """

    x: Any
    y: Any
    weight: Any = None

    def total(self) -> float:
        """The sum of the weights."""
        if self.weight is None:
            return float(len(self.y))
        return float(sum(part.sum() for (part,) in in_parts(self.weight)))

    def batches(
        self, batch_size: int, loss_fn: LossFn, views: tuple[View, ...] = ()
    ) -> Iterator[tuple[Any, Any, Any, np.int32]]:
        """Batches (x, y, weight, rows) for `sums`, filled as `filled` does; rows are those before.

        A loss of one's own may be of a batch as a whole, and so may views: there nothing is filled.
        """
        for b in slices(len(self.y), batch_size):
            x, y, weight = self.x[b], self.y[b], None if self.weight is None else self.weight[b]
            rows = np.int32(len(y))
            if not views and is_known(loss_fn):
                x, y = filled(x, batch_size), filled(y, batch_size)
                weight = None if weight is None else filled(weight, batch_size)
            if weight is not None:
                weight = weight.astype(jax.dtypes.canonicalize_dtype(float))
            yield x, y, weight, rows


def loss_and_scores(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    weight: Any,
    rows: Any,
    class_weight: Any,
    loss_fn: LossFn,
    views: tuple[View, ...] = (),
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """The weighted sum of the losses over the first rows of a batch, of the weights, all scores.

    The sum of the weights is None where there are none.
    """
    values = scores(model, x, views)
    weight = loss_weight(class_weight, y, weight)
    if not is_known(loss_fn):  # it may be of a batch as a whole: there are no other rows
        if weight is None:
            return loss_fn(values, y)[0] * len(x), None, values
        return loss_fn(values, y, sample_weight=weight)[0] * weight.sum(), weight.sum(), values

    def of_row(scores: jax.Array, y: jax.Array) -> jax.Array:
        return loss_fn(scores[None], y[None])[0]

    losses, counts = jax.vmap(of_row)(values, y), jnp.arange(len(x)) < rows
    if weight is None:
        return jnp.where(counts, losses, 0).sum(), None, values
    weight = jnp.where(counts, weight, 0)
    return jnp.where(weight > 0, weight * losses, 0).sum(), weight.sum(), values


def sums(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    weight: Any,
    rows: Any,
    class_weight: Any,
    loss_fn: LossFn,
    views: tuple[View, ...] = (),
) -> dict[str, jax.Array]:
    """What `measures_of` wants over the first rows of a batch, "loss" and, of weights, "weight".

    Args:
      model: the model, its targets bare.
      x, y, weight, rows: a batch of `Examples`.
      class_weight: [C], None is 1 each.
      loss_fn, views: as for `evaluate`, checked.
    """
    parts = model, x, y, weight, rows, class_weight, loss_fn, views
    loss, of_loss, values = loss_and_scores(*parts)
    counted = jnp.ones(len(y)) if weight is None else weight
    counted = jnp.where(jnp.arange(len(y)) < rows, counted, 0)
    found = {"loss": loss, **sums_of(values, y, counted, model.targets)}
    return found if of_loss is None else {**found, "weight": of_loss}


_loss_and_scores = jax.jit(loss_and_scores, static_argnames=("loss_fn", "views"))
_sums = jax.jit(sums, static_argnames=("loss_fn", "views"))


def measure(
    model: Model,
    split: Examples,
    batch_size: int,
    loss_fn: LossFn,
    class_weight: Any = None,
) -> dict[str, float]:
    """The loss and the measures of the task by name, for arguments checked; see `evaluate`."""
    on, x = model_on_device(model, split.x, ())
    batches = split._replace(x=x).batches(batch_size, loss_fn)
    every = [_sums(on, *batch, class_weight, loss_fn=loss_fn) for batch in batches]
    return {k: float(v) for k, v in summed(every, split, model.targets).items()}


def summed(every: Sequence[Mapping[str, Any]], split: Examples, targets: Any) -> dict[str, Any]:
    """The measures by name, "loss" first, of the `sums` of all batches of some examples.

    With an axis of several runs in each of the sums they have it, too.
    """
    total = {name: sum(np.asarray(each[name], np.float64) for each in every) for name in every[0]}
    weight = total.get("weight", split.total())
    loss = np.divide(total["loss"], weight, out=np.zeros_like(total["loss"]), where=weight != 0)
    spread = spread_of(split.y, split.weight) if targets.task == "regression" else None
    return {"loss": loss, **measures_of(total, split.total(), spread, targets)}


class _Scored(NamedTuple):
    """A batch that went through the network: which rows, the sums of loss and weights, scores."""

    rows: slice
    loss: float
    weight: float
    scores: np.ndarray


def _with_scores(
    model: Model,
    split: Examples,
    batch_size: int,
    loss_fn: LossFn,
    views: tuple[View, ...],
    class_weight: Any,
) -> Iterator[_Scored]:
    """The loss and the scores of each batch, from one forward pass."""
    on, x = model_on_device(model, split.x, views)
    batches = split._replace(x=x).batches(batch_size, loss_fn, views)
    for rows, batch in zip(slices(len(split.y), batch_size), batches, strict=True):
        part, of_part, values = _loss_and_scores(
            on, *batch, class_weight, loss_fn=loss_fn, views=views
        )
        count = int(batch[-1])
        weight = count if of_part is None else float(of_part)
        yield _Scored(rows, float(part), weight, np.asarray(values)[:count])


def _evaluation(
    model: Model,
    y: np.ndarray,
    values: np.ndarray,
    loss: float,
    weight: np.ndarray | None,
    views: int,
    probable: bool,
) -> Evaluation | RegressionEvaluation | MultilabelEvaluation:
    """What there is to say of scores [N, C] of all examples, in NumPy and float64.

    Scores of classes are probable where their softmax makes probabilities.
    """
    targets = model.targets
    if targets.task == "regression":
        predicted = targets.decode(values, points=True)
        rmse, mae, r2 = (f(y, predicted, weight) for f in (metrics.rmse, metrics.mae, metrics.r2))
        return RegressionEvaluation(loss, rmse, mae, r2, views)
    if targets.task == "multilabel":
        predicted = np.where(np.isnan(values), metrics.NO_ANSWER, values > 0)
        return MultilabelEvaluation(
            loss,
            metrics.accuracy(y, predicted, weight),
            metrics.micro_f1(y, predicted, weight),
            metrics.macro_f1(y, predicted, weight),
            tuple(metrics.label_f1(y, predicted, weight).tolist()),
            views,
        )
    num_classes, predicted = values.shape[1], metrics.chosen(values)
    recall = metrics.recall(y, predicted, num_classes, weight)
    confusion = metrics.confusion_matrix(y, predicted, num_classes)
    calibrated = values / targets.temperature
    surprise = metrics.log_loss(y, calibrated, weight) if probable else None
    return Evaluation(
        loss=loss,
        accuracy=metrics.accuracy(y, predicted, weight),
        views=views,
        balanced_accuracy=metrics.balanced_accuracy(y, predicted, weight),
        log_loss=surprise,
        recall=tuple(None if math.isnan(each) else each for each in recall.tolist()),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _by_totals(
    model: Model, y: Stored, batches: Iterator[_Scored], weight: Any, views: int, probable: bool
) -> Evaluation | RegressionEvaluation | MultilabelEvaluation:
    """What `_evaluation` says, of what is summed over batches, of which one is in memory."""
    targets, total, sums = model.targets, np.zeros(2), []
    for rows, loss, of_loss, values in batches:
        own = y[rows]
        w = np.ones(len(own)) if weight is None else np.asarray(weight[rows], np.float64)
        total += loss, of_loss
        sums.append(_sums_of_batch(targets, own, values, w, probable))
        if len(sums) == TOGETHER:
            sums = [_added(sums)]
    found, mean = _added(sums), total[0] / total[1] if total[1] else 0.0
    count = found["weight"]
    if targets.task == "regression":
        squares = spread_of(y, weight)
        explained = 1 - found["squares"] / np.where(squares > 0, squares, np.nan)
        rmse, mae = np.sqrt(found["squares"] / count).mean(), (found["absolute"] / count).mean()
        return RegressionEvaluation(
            float(mean), float(rmse), float(mae), float(np.mean(explained)), views
        )
    if targets.task == "multilabel":
        measured = measures_of(found, count, None, targets)
        names = ("accuracy", "micro_f1", "macro_f1")
        accuracy, micro, macro = (float(measured[name]) for name in names)
        each = metrics.f1_of_counts(found["found"], found["wrong"], found["missed"])
        every = tuple(each.tolist())
        return MultilabelEvaluation(float(mean), accuracy, micro, macro, every, views)
    right, of_class = found["right"], found["of_class"]
    known = of_class > 0
    recall = [float(r / n) if n > 0 else None for r, n in zip(right, of_class, strict=True)]
    return Evaluation(
        loss=float(mean),
        accuracy=float(right.sum() / count),
        views=views,
        balanced_accuracy=float(np.mean(right[known] / of_class[known])),
        log_loss=float(found["surprise"] / count) if probable else None,
        recall=tuple(recall),
        confusion=tuple(map(tuple, found["confusion"].astype(int).tolist())),
    )


def _added(sums: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(each[name] for each in sums) for name in sums[0]}


def _sums_of_batch(
    targets: Targets, y: np.ndarray, values: np.ndarray, w: np.ndarray, probable: bool
) -> dict[str, Any]:
    """Sums over a batch of what the measures of a task are made of, in float64."""
    found: dict[str, Any] = {"weight": w.sum()}
    column = w[:, None]
    if targets.task == "regression":
        error = (targets.decode(values, points=True) - y).reshape(len(y), -1)
        found["squares"] = (column * np.square(error)).sum(axis=0)
        found["absolute"] = (column * np.abs(error)).sum(axis=0)
        return found
    if targets.task == "multilabel":
        predicted = np.where(np.isnan(values), metrics.NO_ANSWER, values > 0)
        said, true = predicted == 1, y == 1
        each = {"found": said & true, "wrong": said & ~true, "missed": ~said & true}
        found |= {name: (column * counted).sum(axis=0) for name, counted in each.items()}
        return {**found, "right": (w * (predicted == y).all(axis=1)).sum()}
    classes, predicted = values.shape[1], metrics.chosen(values)
    found["right"] = np.bincount(y, weights=w * (predicted == y), minlength=classes)
    found["of_class"] = np.bincount(y, weights=w, minlength=classes)
    found["confusion"] = metrics.confusion_matrix(y, predicted, classes)
    if probable:
        found["surprise"] = (w * metrics.surprise(y, values / targets.temperature)).sum()
    return found
