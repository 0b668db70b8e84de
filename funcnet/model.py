"""Models: a network with its parameters and its preprocessing, what it predicts and how well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.layer import Layer
from funcnet.losses import softmax_loss
from funcnet.net import as_input
from funcnet.preprocess import Preprocess
from funcnet.step import num_scores, on_device, slices, stats_on_device
from funcnet.tree import LossFn, Tree

__all__ = ["BestModel", "Evaluation", "Model", "evaluate", "predict", "predict_scores"]

View = Callable[[Any], Any]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "state", "preprocess"],
    meta_fields=["net"],
)
@dataclass(frozen=True)
class Model:
    """A network with its parameters and its preprocessing: what takes raw input.

    Attributes:
      net: the network.
      params: its parameters.
      state: its state.
      preprocess: the fitted preprocessing.
    """

    net: Layer
    params: Tree
    state: Tree
    preprocess: Preprocess


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "state", "preprocess", "epoch", "accuracy", "loss"],
    meta_fields=["net"],
)
@dataclass(frozen=True)
class BestModel(Model):
    """The Model of the epoch with the best validation accuracy; of equals, the least loss.

    Attributes:
      epoch: the number of epochs after which it was.
      accuracy: its validation accuracy.
      loss: its validation loss.
    """

    epoch: int
    accuracy: float
    loss: float


class Evaluation(NamedTuple):
    """What `evaluate` measured.

    Attributes:
      loss: the mean loss, without regularisation.
      accuracy: the share of examples whose largest score is that of their label.
      views: of how many views of each example the scores were averaged; 1 is no averaging.
    """

    loss: float
    accuracy: float
    views: int = 1


def merit(accuracy: Any, loss: Any) -> tuple[Any, Any]:
    """What models are ranked by: the accuracy; of equals, the least loss."""
    return accuracy, -loss


def is_better(new: Any, old: Any) -> Any:
    """Whether a model is better than another: `accuracy` and `loss` are numbers, or arrays."""
    (accuracy, less), (old_accuracy, old_less) = (merit(m.accuracy, m.loss) for m in (new, old))
    return (accuracy > old_accuracy) | ((accuracy == old_accuracy) & (less > old_less))


def predict(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The class of each example: the index of its largest score.

    Args:
      model: the model.
      x: [N, ...] raw inputs, as the training data were.
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
    x, views = checks.inputs(x), _check_views(views)
    batch_size = checks.COUNT.check("batch_size", batch_size)
    model, x = _on_device(model, x, views)
    return np.concatenate(
        [np.asarray(_scores(model, x[b], views=views)) for b in slices(len(x), batch_size)]
    )


def evaluate(
    model: Model,
    x: Any,
    y: Any,
    *,
    batch_size: int = 1000,
    loss_fn: LossFn = softmax_loss,
    views: Sequence[View] | None = None,
) -> Evaluation:
    """The loss and the accuracy of a model on labelled examples, in evaluation mode.

    Args:
      model: the model.
      x: [N, ...] raw inputs, as the training data were.
      y: [N] integer labels.
      batch_size: examples per forward pass.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
      views: average the scores over these views of each example, as for `predict`: test-time
        augmentation. The result says over how many.
    Returns:
      An Evaluation, `.loss`, `.accuracy` and `.views`.
    Raises:
      ValueError: x is empty or not finite, its examples have the wrong shape, or a label
        is none of the model's classes.
    """
    _check_model(model)
    checks.function("loss_fn", loss_fn)
    x, views = checks.inputs(x), _check_views(views)
    y = checks.labels(y, num_examples=len(x), num_classes=_num_classes(model, x))
    batch_size = checks.COUNT.check("batch_size", batch_size)
    return measure(model, x, y, batch_size, loss_fn, views)


def scores(model: Model, x: jax.Array, views: tuple[View, ...] = ()) -> jax.Array:
    """The scores, in evaluation mode; their mean over the views, if there are any."""

    def of_view(x: jax.Array) -> jax.Array:
        inputs = as_input(model.preprocess(x), model.params)
        return model.net.forward(model.params, model.state, inputs, key=None, train=False)[0]

    if not views:
        return of_view(x)
    return jnp.stack([of_view(view(x)) for view in views]).mean(axis=0)


def sums(
    model: Model, x: jax.Array, y: jax.Array, loss_fn: LossFn, views: tuple[View, ...] = ()
) -> tuple[jax.Array, jax.Array]:
    """The sum of the losses over a batch, and the number of right answers."""
    values = scores(model, x, views)
    right = (values.argmax(axis=1) == y) & ~jnp.isnan(values).any(axis=1)  # a NaN is no answer
    return loss_fn(values, y)[0] * len(x), right.sum()


_scores = jax.jit(scores, static_argnames=("views",))
_sums = jax.jit(sums, static_argnames=("loss_fn", "views"))


def measure(
    model: Model,
    x: Any,
    y: np.ndarray,
    batch_size: int,
    loss_fn: LossFn,
    views: tuple[View, ...] = (),
) -> Evaluation:
    """What `evaluate` does, with arguments that were checked."""
    (model, x), batches = _on_device(model, x, views), slices(len(x), batch_size)
    pairs = [_sums(model, x[b], y[b], loss_fn=loss_fn, views=views) for b in batches]
    total, right = sum(float(value) for value, _ in pairs), sum(int(count) for _, count in pairs)
    return Evaluation(total / len(x), right / len(x), max(1, len(views)))


def _on_device(model: Model, x: Any, views: tuple[View, ...]) -> tuple[Model, Any]:
    """The model and its inputs as compiled programs take them; a BestModel as a Model, too."""
    if not views:
        x, preprocess = on_device(x, model.preprocess)
    else:  # they are of raw inputs, so that the program has to preprocess
        preprocess = stats_on_device(model.preprocess)
        if checks.is_wide(x):
            x = checks.narrowed(x, "x", "to be looked at in several views")
    return Model(model.net, model.params, model.state, preprocess), x


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
