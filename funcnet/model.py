"""Models: a network with its parameters and its preprocessing, what it predicts and how well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, metrics
from funcnet.datasets import Stored
from funcnet.datasets.encoding import Encoding
from funcnet.datasets.tables import inputs_of, is_table
from funcnet.inputs import stats_on_device
from funcnet.layer import Layer
from funcnet.loop import slices
from funcnet.objective import as_input
from funcnet.preprocess import Preprocess, no_preprocess
from funcnet.targets import Targets, combined
from funcnet.tree import Tree

__all__ = ["BestModel", "Model", "predict", "predict_proba", "predict_scores"]

View = Callable[[Any], Any]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "state", "preprocess"],
    meta_fields=["net", "encoding", "targets"],
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
      targets: what is predicted, and in which units.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> fn.predict(model, x)
      array([0, 1], dtype=int32)
    """

    net: Layer
    params: Tree
    state: Tree
    preprocess: Preprocess
    encoding: Encoding | None = field(default=None, kw_only=True)
    targets: Targets = field(default=Targets(), kw_only=True)

    @cached_property
    def on_device(self) -> "Model":
        """The same as compiled programs take it, with arrays of JAX: made once, for all calls."""
        params, state = jax.tree.map(jnp.asarray, (self.params, self.state))
        preprocess = stats_on_device(self.preprocess)
        return Model(self.net, params, state, preprocess, targets=self.targets.bare)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: nothing that can be made again."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "state", "preprocess", "epoch", "accuracy", "loss"],
    meta_fields=["net", "encoding", "targets"],
)
@dataclass(frozen=True)
class BestModel(Model):
    """The Model of the best epoch, by the `monitor` of `fit`: `fit(...).best`.

    Attributes:
      net, params, state, preprocess, encoding, targets: as of a `Model`.
      epoch: the number of epochs after which it was.
      accuracy: its validation accuracy; NaN in regression, which has none.
      loss: its validation loss.
    Example:
      >>> net = fn.mlp([], 2)
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> parts = net, params, state, fn.no_preprocess(None)
      >>> best = fn.BestModel(*parts, epoch=7, accuracy=0.9, loss=0.3)
      >>> best.epoch, fn.predict(best, np.ones((5, 3))).shape
      (7, (5,))
    """

    epoch: int
    accuracy: float
    loss: float


def as_best(model: Model, epoch: int, accuracy: float, loss: float) -> BestModel:
    """A Model as the best one, with what was measured of it."""
    own = {each.name: getattr(model, each.name) for each in fields(Model)}
    return BestModel(**own, epoch=epoch, accuracy=accuracy, loss=loss)


def predict(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """What a model predicts of each example: its class, that of the largest score.

    In regression it is the target in the person's own units, of several labels which hold.

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
      [N] int32 labels; of regression [N] or [N, K] float64, after `pinball_loss` with an axis of
      the quantiles more; of several labels [N, K] int32, 0 or 1.
    Raises:
      ValueError: x is empty, not finite, or its examples have the wrong shape; or scores are NaN,
        which make no class: the error says of which example.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> fn.predict(model, x)
      array([0, 1], dtype=int32)
      >>> fn.predict(model, x, views=[lambda x: x, lambda x: x[:, ::-1]])  # of the mean, a tie
      array([0, 0], dtype=int32)
    """
    found = predict_scores(model, x, batch_size=batch_size, views=views)
    return answers(found, model.targets)


def answers(scores: np.ndarray, targets: Targets) -> np.ndarray:
    """What `predict` makes of scores [N, C]; a ValueError if a row holds a NaN."""
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(bad):
        raise ValueError(
            f"the scores of example {bad[0]} are NaN ({checks.plural(len(bad), 'such example')} of "
            f"{len(scores):,}): it has no answer; has the training of the model diverged?"
        )
    if targets.task == "regression":
        return targets.decode(scores)
    if targets.task == "multilabel":
        return (scores > 0).astype(np.int32)
    return scores.argmax(axis=1).astype(np.int32)


def predict_scores(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The scores that a model gives to each example.

    Those of regression are in units of training, see `Targets`.

    Args:
      model, x, batch_size, views: as for `predict`.
    Returns:
      [N, C] in the dtype of the parameters, NaN where they are.
    Raises:
      ValueError: as for `predict`, but that scores may be NaN.
      TypeError: model is no Model, or x a table that it was not trained on.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> fn.predict_scores(model, x)
      array([[2., 0.],
             [0., 1.]], dtype=float32)
    """
    check_model(model)
    x, views = inputs_for(model, x), check_views(views)
    batch_size = checks.COUNT.check("batch_size", batch_size)
    model, x = model_on_device(model, x, views)
    found = [  # one after another, so that no more than a batch lies on the device
        np.asarray(_scores(model, filled(x[b], batch_size, views), views=views))
        for b in slices(len(x), batch_size)
    ]
    return np.concatenate(found)[: len(x)]


def predict_proba(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The probability that a model gives to each class of each example, softmax of its scores.

    Of several labels it is the probability that each holds, the sigmoid of its score. After
    `svm_loss` they sum to 1 all the same, but mean nothing: use `predict_scores`.

    Args:
      model, x, batch_size, views: as for `predict`; it is the scores that are averaged.
    Returns:
      [N, C] float64, whose rows sum to 1, but for several labels; NaN where a score is NaN, and
      rows of NaN where one of classes is infinite.
    Raises:
      ValueError: as for `predict`, but that scores may be NaN; or the model is of regression.
    Example:
      >>> net, x = fn.mlp([], 2), np.array([[2.0, 0.0], [0.0, 1.0]], "f")
      >>> params = fn.freeze({"affine1": {"w": np.eye(2, dtype="f"), "b": np.zeros(2, "f")}})
      >>> model = fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x))
      >>> fn.predict_proba(model, x).round(3)
      array([[0.881, 0.119],
             [0.269, 0.731]])
    """
    check_model(model)
    if model.targets.task == "regression":
        raise ValueError("regression has no classes: predict gives numbers, predict_proba none")
    found = predict_scores(model, x, batch_size=batch_size, views=views)
    return probabilities(found, model.targets)


def probabilities(scores: np.ndarray, targets: Targets) -> np.ndarray:
    """What `predict_proba` makes of scores [N, C]."""
    scores = np.asarray(scores, np.float64) / targets.temperature
    if targets.task == "multilabel":
        return metrics.sigmoid(scores)
    return metrics.softmax(scores)


def scores(model: Model, x: jax.Array, views: tuple[View, ...] = ()) -> jax.Array:
    """The scores [N, C], in evaluation mode; their mean over the views, if there are any.

    What the members of an ensemble say is `combined` first.
    """

    def of_view(x: jax.Array) -> jax.Array:
        inputs = as_input(model.preprocess(x), model.params)
        found = model.net.forward(model.params, model.state, inputs, key=None, train=False)[0]
        return combined(found, model.targets) if found.ndim > 2 else found

    if not views:
        return of_view(x)
    return jnp.stack([of_view(view(x)) for view in views]).mean(axis=0)


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


_scores = jax.jit(scores, static_argnames=("views",))


def model_on_device(model: Model, x: Any, views: tuple[View, ...]) -> tuple[Model, Any]:
    """The model and its inputs as compiled programs take them; a BestModel as a Model, too."""
    ready = model.on_device
    if checks.is_wide(x):
        if views and isinstance(x, Stored):
            raise ValueError(f"x is {x.dtype} on disk, and views are of float32: save it as such")
        if views:  # they are of raw inputs, so that the program has to preprocess
            return ready, checks.narrowed(x, "x", "to be looked at in several views")
        return replace(ready, preprocess=no_preprocess(x)), model.preprocess(x)
    return ready, x


def inputs_for(model: Model, x: Any) -> Any:
    """x as checked arrays, by the model's encoding if it is a table; or rows that stay on disk."""
    if isinstance(x, Stored):
        return x
    if not is_table(x):
        return checks.inputs(x)
    if model.encoding is None:
        raise TypeError(
            "the model was not trained on a table: x must be an array [N, ...], as "
            f"read_inputs(path) gives, got {type(x).__name__}"
        )
    return checks.inputs(inputs_of(x, model.encoding)[0])


def check_model(model: Any) -> None:
    """Raise a TypeError unless it is a Model."""
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model, such as fit(...).best, got {type(model).__name__}")


def check_views(views: Any) -> tuple[View, ...]:
    """The views of `predict`, checked; () is none."""
    if views is None:
        return ()
    if callable(views) or not isinstance(views, Sequence):
        raise TypeError("views must be a sequence of functions, such as flips_and_shifts()")
    for view in views:
        checks.function("every view", view)
    return tuple(views)
