"""Models: a network with its parameters and its preprocessing, what it predicts and how well."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, metrics
from funcnet.datasets.encoding import Encoding
from funcnet.datasets.tables import inputs_of, is_table
from funcnet.layer import Layer
from funcnet.loop import slices
from funcnet.losses import LOSSES, gives_probabilities, softmax_loss
from funcnet.net import as_input
from funcnet.preprocess import Preprocess, no_preprocess
from funcnet.step import num_scores, stats_on_device
from funcnet.tree import LossFn, Tree

__all__ = [
    "BestModel",
    "Evaluation",
    "Model",
    "evaluate",
    "predict",
    "predict_proba",
    "predict_scores",
]

View = Callable[[Any], Any]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "state", "preprocess"],
    meta_fields=["net", "encoding"],
)
@dataclass(frozen=True)
class Model:
    """A network with its parameters and its preprocessing: what takes raw input.

    Attributes:
      net: the network.
      params: its parameters.
      state: its state.
      preprocess: the fitted preprocessing.
      encoding: if it was trained on a table, what is made of the columns of one.
    """

    net: Layer
    params: Tree
    state: Tree
    preprocess: Preprocess
    encoding: Encoding | None = field(default=None, kw_only=True)

    @cached_property
    def on_device(self) -> "Model":
        """The same as compiled programs take it, with arrays of JAX: made once, for all calls."""
        params, state = jax.tree.map(jnp.asarray, (self.params, self.state))
        return Model(self.net, params, state, stats_on_device(self.preprocess))

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: nothing that can be made again."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "state", "preprocess", "epoch", "accuracy", "loss"],
    meta_fields=["net", "encoding"],
)
@dataclass(frozen=True)
class BestModel(Model):
    """The Model of the best epoch, by validation accuracy unless `fit` has another `monitor`.

    Attributes:
      epoch: the number of epochs after which it was.
      accuracy: its validation accuracy.
      loss: its validation loss.
    """

    epoch: int
    accuracy: float
    loss: float


class Evaluation(NamedTuple):
    """What `evaluate` measured; printed without what is of each class.

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
    return _known(-value if what == "loss" or name != monitor else value), np.zeros(np.shape(value))


def _known(value: Any) -> Any:
    return np.where(np.isnan(value), -np.inf, value)


def is_better(new: tuple[Any, Any], old: tuple[Any, Any]) -> Any:
    """Whether a `merit` is above another, numbers or arrays."""
    (first, second), (old_first, old_second) = new, old
    return (first > old_first) | ((first == old_first) & (second > old_second))


def predict(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The class of each example: the index of its largest score.

    Args:
      model: the model.
      x: [N, ...] raw inputs, as the training data were; or, for a model that was trained on a
        table, a table of its columns, in any order, others too: whatever `load_table` takes, and
        so a dict `{"age": [41], "island": ["Biscoe"]}` of one row. The first call
        compiles, for one of a few numbers of rows; after it a row takes 0.1 or 0.2 ms.
      batch_size: examples per forward pass.
      views: functions of raw inputs, such as `flips_and_shifts()`: the scores are the mean of
        those of each view of an example. None is the example alone, as it is.
    Returns:
      [N] int32 labels.
    Raises:
      ValueError: x is empty, not finite, or its examples have the wrong shape; or scores are NaN,
        which make no class: the error says of which example.
    """
    return answers(predict_scores(model, x, batch_size=batch_size, views=views))


def answers(scores: np.ndarray) -> np.ndarray:
    """The class of each row of scores [N, C], int32; a ValueError if a row holds a NaN."""
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(bad):
        raise ValueError(
            f"the scores of example {bad[0]} are NaN ({checks.plural(len(bad), 'such example')} of "
            f"{len(scores):,}): it has no class; has the training of the model diverged?"
        )
    return scores.argmax(axis=1).astype(np.int32)


def predict_scores(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The scores of each example, [N, C]; arguments and errors are those of `predict`."""
    _check_model(model)
    x, views = _inputs(model, x), _check_views(views)
    batch_size = checks.COUNT.check("batch_size", batch_size)
    model, x = _on_device(model, x, views)
    found = [  # one after another, so that no more than a batch lies on the device
        np.asarray(_scores(model, filled(x[b], batch_size, views), views=views))
        for b in slices(len(x), batch_size)
    ]
    return np.concatenate(found)[: len(x)]


def predict_proba(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The probability that a model gives to each class of each example, softmax of its scores.

    After `svm_loss` they sum to 1 all the same, but mean nothing: use `predict_scores`.

    Args:
      model, x, batch_size, views: as for `predict`; it is the scores that are averaged.
    Returns:
      [N, C] float64, whose rows sum to 1; rows of NaN where a score is NaN or infinite.
    Raises:
      ValueError: as for `predict`, but that scores may be NaN.
    """
    return metrics.softmax(predict_scores(model, x, batch_size=batch_size, views=views))


def evaluate(
    model: Model,
    x: Any,
    y: Any,
    *,
    batch_size: int = 1000,
    loss_fn: LossFn = softmax_loss,
    views: Sequence[View] | None = None,
) -> Evaluation:
    """The loss, the accuracy and more of a model on labelled examples, in evaluation mode.

    Args:
      model: the model.
      x: [N, ...] raw inputs, or a table, as for `predict`.
      y: [N] integer labels.
      batch_size: examples per forward pass.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
      views: average the scores over these views of each example, as for `predict`: test-time
        augmentation. The result says over how many.
    Returns:
      An Evaluation: `.loss`, `.accuracy`, `.views`, `.balanced_accuracy`, `.log_loss`, `.recall`
      and `.confusion`.
    Raises:
      ValueError: x is empty or not finite, its examples have the wrong shape, or a label
        is none of the model's classes.
    """
    _check_model(model)
    checks.function("loss_fn", loss_fn)
    x, views = _inputs(model, x), _check_views(views)
    num_classes = _num_classes(model, x)
    y = checks.labels(y, num_examples=len(x), num_classes=num_classes)
    batch_size = checks.COUNT.check("batch_size", batch_size)
    return _with_metrics(model, x, y, batch_size, loss_fn, views, num_classes)


def _with_metrics(
    model: Model,
    x: Any,
    y: np.ndarray,
    batch_size: int,
    loss_fn: LossFn,
    views: tuple[View, ...],
    num_classes: int,
) -> Evaluation:
    """What `measure` does, and all that else there is to an Evaluation, from one forward pass."""
    total, predicted, surprise = 0.0, np.zeros(len(x), int), np.zeros(len(x))  # of each example
    model, x = _on_device(model, x, views)
    for b in slices(len(x), batch_size):
        batch = filled_pair(x[b], y[b], batch_size, loss_fn, views)
        loss, values = _loss_and_scores(model, *batch, loss_fn=loss_fn, views=views)
        scores, total = np.asarray(values)[: len(y[b])], total + float(loss)
        predicted[b], surprise[b] = metrics.chosen(scores), metrics.surprise(y[b], scores)
    recall = metrics.recall(y, predicted, num_classes)
    confusion = metrics.confusion_matrix(y, predicted, num_classes)
    return Evaluation(
        loss=total / len(x),
        accuracy=metrics.accuracy(y, predicted),
        views=max(1, len(views)),
        balanced_accuracy=metrics.balanced_accuracy(y, predicted),
        log_loss=float(surprise.mean()) if gives_probabilities(loss_fn) else None,
        recall=tuple(None if math.isnan(each) else each for each in recall.tolist()),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def scores(model: Model, x: jax.Array, views: tuple[View, ...] = ()) -> jax.Array:
    """The scores, in evaluation mode; their mean over the views, if there are any."""

    def of_view(x: jax.Array) -> jax.Array:
        inputs = as_input(model.preprocess(x), model.params)
        return model.net.forward(model.params, model.state, inputs, key=None, train=False)[0]

    if not views:
        return of_view(x)
    return jnp.stack([of_view(view(x)) for view in views]).mean(axis=0)


def loss_and_scores(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    rows: Any,
    loss_fn: LossFn,
    views: tuple[View, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """The sum of the losses over the first rows of a batch, and the scores of all."""
    values = scores(model, x, views)
    if loss_fn not in LOSSES.values():  # it may be of a batch as a whole: there are no other rows
        return loss_fn(values, y)[0] * len(x), values

    def of_row(scores: jax.Array, y: jax.Array) -> jax.Array:
        return loss_fn(scores[None], y[None])[0]

    return jnp.where(jnp.arange(len(x)) < rows, jax.vmap(of_row)(values, y), 0).sum(), values


def sums(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    rows: Any,
    loss_fn: LossFn,
    views: tuple[View, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """The sum of the losses over the first rows of a batch, and the number of right answers."""
    loss, values = loss_and_scores(model, x, y, rows, loss_fn, views)
    right = (values.argmax(axis=1) == y) & ~jnp.isnan(values).any(axis=1)  # a NaN is no answer
    return loss, (right & (jnp.arange(len(x)) < rows)).sum()


def filled(x: Any, batch_size: int, views: tuple[View, ...] = ()) -> Any:
    """A batch [N, ...] with its first row again, up to one of a few sizes, the largest batch_size.

    So programs are compiled for these sizes, 1, 4, 16, 64, ..., and not for each that occurs. For
    views, which may be of a batch as a whole, it stays as it is.
    """
    if views:
        return x
    size = 1
    while size < len(x):
        size *= 4
    missing = min(size, max(batch_size, len(x))) - len(x)
    if not missing:
        return x
    x = np.asarray(x)
    return np.concatenate([x, np.repeat(x[:1], missing, axis=0)])


def filled_pair(
    x: Any, y: Any, batch_size: int, loss_fn: LossFn, views: tuple[View, ...] = ()
) -> tuple[Any, Any, np.int32]:
    """A batch and its labels for `sums`, with the number of its rows."""
    rows = np.int32(len(y))
    if views or loss_fn not in LOSSES.values():
        return x, y, rows
    return filled(x, batch_size), filled(y, batch_size), rows


_scores = jax.jit(scores, static_argnames=("views",))
_loss_and_scores = jax.jit(loss_and_scores, static_argnames=("loss_fn", "views"))
_sums = jax.jit(sums, static_argnames=("loss_fn", "views"))


def measure(
    model: Model,
    x: Any,
    y: np.ndarray,
    batch_size: int,
    loss_fn: LossFn,
    views: tuple[View, ...] = (),
) -> Evaluation:
    """The loss, the accuracy and the views of an Evaluation alone, for arguments checked."""
    (model, x), batches = _on_device(model, x, views), slices(len(x), batch_size)
    filled_batches = (filled_pair(x[b], y[b], batch_size, loss_fn, views) for b in batches)
    pairs = [_sums(model, *batch, loss_fn=loss_fn, views=views) for batch in filled_batches]
    total, right = sum(float(value) for value, _ in pairs), sum(int(count) for _, count in pairs)
    return Evaluation(total / len(x), right / len(x), max(1, len(views)))


def _on_device(model: Model, x: Any, views: tuple[View, ...]) -> tuple[Model, Any]:
    """The model and its inputs as compiled programs take them; a BestModel as a Model, too."""
    ready = model.on_device
    if checks.is_wide(x):
        if views:  # they are of raw inputs, so that the program has to preprocess
            return ready, checks.narrowed(x, "x", "to be looked at in several views")
        return replace(ready, preprocess=no_preprocess(x)), model.preprocess(x)
    return ready, x


def _inputs(model: Model, x: Any) -> Any:
    """x as checked arrays, by the model's encoding if it is a table."""
    if not is_table(x):
        return checks.inputs(x)
    if model.encoding is None:
        raise TypeError(
            "the model was not trained on a table: x must be an array [N, ...], as "
            f"read_inputs(path) gives, got {type(x).__name__}"
        )
    return checks.inputs(inputs_of(x, model.encoding)[0])


def _num_classes(model: Model, x: Any) -> int:
    return num_scores(model.net, model.params, model.state, model.preprocess, x)


def _check_model(model: Any) -> None:
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model, such as fit(...).best, got {type(model).__name__}")


def _check_views(views: Any) -> tuple[View, ...]:
    if views is None:
        return ()
    if callable(views) or not isinstance(views, Sequence):
        raise TypeError("views must be a sequence of functions, such as flips_and_shifts()")
    for view in views:
        checks.function("every view", view)
    return tuple(views)
