"""Training: a pure step, an epoch compiled as one program, and the loop around it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import _check
from funcnet.datasets import Dataset, check_dataset
from funcnet.losses import is_zero, softmax_loss
from funcnet.net import Layer, LossFn, as_input, loss_and_grads
from funcnet.optim import Optimizer, apply_updates
from funcnet.preprocess import Preprocess, no_preprocess, subtract_mean

Tree = Any
TRAIN_SAMPLE = 1000  # training images on which the accuracy is measured


class TrainState(NamedTuple):
    """All that a run is at one moment: with it and the data, the rest of the run is determined.

    Attributes:
      params: the parameters.
      state: the state of the layers.
      opt_state: the state of the optimizer.
      key: the random key of the run; it never changes, the counts are folded into it.
      step: int32, the number of updates done.
      epoch: int32, the number of epochs done.
    """

    params: Tree
    state: Tree
    opt_state: Tree
    key: jax.Array
    step: jax.Array
    epoch: jax.Array


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
    """

    loss: float
    accuracy: float


class History(NamedTuple):
    """The course of a run, NumPy arrays.

    Attributes:
      loss: [steps], the loss of every step on its batch, regularisation included.
      epoch: [rows], the epochs after which the following were measured, 0 the first.
      train_loss: [rows], the loss on a fixed sample of 1,000 training examples.
      train_accuracy: [rows], the accuracy on the same.
      val_loss: [rows], the loss on the validation set; NaN if it is empty.
      val_accuracy: [rows], the accuracy on the same.
    """

    loss: np.ndarray
    epoch: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
      state: the TrainState after the last epoch; `fit` goes on from it.
      model: the Model after the last epoch.
      best: the BestModel of this call by validation accuracy; None where none was measured.
      history: the History.
      interrupted: whether Ctrl-C ended the run before its time.
    """

    state: TrainState
    model: Model
    best: BestModel | None
    history: History
    interrupted: bool


def init_train_state(
    net: Layer, optimizer: Optimizer, in_shape: tuple[int, ...], *, key: jax.Array
) -> TrainState:
    """The state of a run before its first step.

    Args:
      net: the network.
      optimizer: the optimizer.
      in_shape: the shape of one example, `x.shape[1:]`.
      key: a random key, `jax.random.key(seed)`, for the parameters and for the run.
    """
    init_key, run_key = jax.random.split(_check.key(key))
    params, state, _ = net.init(init_key, in_shape)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, state, optimizer.init(params), run_key, zero, zero)


def make_train_step(
    net: Layer,
    optimizer: Optimizer,
    *,
    reg: Any = 0.0,
    loss_fn: LossFn = softmax_loss,
    preprocess: Preprocess | None = None,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """A jit-compiled training step, a pure function.

    Args:
      net: the network.
      optimizer: the optimizer.
      reg: L2 strength, as for `loss_and_grads`.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
      preprocess: applied to x inside the step; None leaves x as it is.
    Returns:
      `train_step(train_state, x, y) -> (train_state, metrics)` for a batch x [N, ...],
      y [N]; metrics has "loss", the loss of this batch before the update.
    """
    _check.number("reg", reg, at_least=0)
    _check.function("loss_fn", loss_fn)
    optimizer = _as_optimizer(optimizer)

    @jax.jit
    def train_step(
        train_state: TrainState, x: Any, y: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        inputs = x if preprocess is None else preprocess(x)
        return _step(net, optimizer, loss_fn, reg, train_state, inputs, y)

    return train_step


def fit(
    net: Layer,
    optimizer: Optimizer,
    dataset: Dataset,
    *,
    key: jax.Array | None = None,
    epochs: int,
    batch_size: int,
    reg: Any = 0.0,
    loss_fn: LossFn = softmax_loss,
    preprocess: Preprocess | Callable[[Any], Preprocess] | None = subtract_mean,
    eval_every: int | None = 1,
    train_state: TrainState | None = None,
    callback: Callable[[int, TrainState, dict[str, Any]], None] | None = None,
) -> FitResult:
    """Train a network.

    Each epoch is one compiled program, and a pass over all of the training data in an
    order that depends on key and epoch alone; a last batch that is short is a step of its
    own. Looking at the run, by evaluation or callback, does not change it. Ctrl-C ends the
    run after the epoch at hand, and the result is that of the last epoch completed.

    Args:
      net: the network.
      optimizer: an `Optimizer`, or any pair of this shape.
      dataset: the Dataset; its test split is not used.
      key: the random key of the run, `jax.random.key(seed)`: parameters, order of the
        examples, random layers.
      epochs: the number of epochs in all, those done by `train_state` included.
      batch_size: examples per step.
      reg: L2 strength, as for `loss_and_grads`.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
      preprocess: a function that fits a Preprocess to x_train, such as `subtract_mean`, or
        one that is fitted already; None leaves the inputs as they are.
      eval_every: measure accuracies and losses every so many epochs, before the first
        epoch and after the last; None never.
      train_state: a TrainState to go on from, in place of a key.
      callback: `callback(epoch, train_state, metrics)` after each epoch, and before the
        first one with epoch 0. metrics has "losses", the losses of the steps of this
        epoch, and where they were measured "train_loss", "train_accuracy", "val_loss" and
        "val_accuracy". An exception raised in it ends the run; KeyboardInterrupt as Ctrl-C.
    Returns:
      A FitResult: `.state`, `.model`, `.best`, `.history`, `.interrupted`.
    Raises:
      ValueError, TypeError: an argument is wrong; before anything is compiled.
    """
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a Layer, such as mlp([100], 10), got {net!r}")
    optimizer = _as_optimizer(optimizer)
    _check.function("loss_fn", loss_fn)
    if callback is not None:
        _check.function("callback", callback)
    dataset = check_dataset(dataset)
    batch_size = _check.integer("batch_size", batch_size, at_least=1)
    if batch_size > len(dataset.x_train):
        raise ValueError(
            f"batch_size is {batch_size}, but there are only "
            f"{_check.plural(len(dataset.x_train), 'training example')}"
        )
    if eval_every is not None:
        eval_every = _check.integer("eval_every", eval_every, at_least=1)
    _check.number("reg", reg, at_least=0)
    if key is not None and train_state is None:
        train_state = init_train_state(net, optimizer, dataset.x_train.shape[1:], key=key)
    elif key is not None or train_state is None:
        raise ValueError("give either key, for a new run, or train_state, to go on with one")
    first = int(train_state.epoch)
    epochs = _check.integer("epochs", epochs, at_least=first + 1)
    fitted = fit_preprocess(preprocess, dataset.x_train)
    _check_classes(Model(net, train_state.params, train_state.state, fitted), dataset)

    x, y = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    strength = None if is_zero(reg) else jnp.asarray(reg, float)
    sample = _sample(dataset)

    def looked_at(epoch: int, run: _Run) -> _Run:
        if eval_every is None or (epoch % eval_every and epoch != epochs and epoch != first):
            return run
        model = Model(net, run.train_state.params, run.train_state.state, fitted)
        return _look(model, loss_fn, sample, dataset, epoch, run)

    def report(epoch: int, run: _Run) -> None:
        if callback is not None:
            losses = run.losses[-1] if run.losses else np.zeros(0)
            measured = run.rows[-1] if run.rows and run.rows[-1]["epoch"] == epoch else {}
            metrics = {name: value for name, value in measured.items() if name != "epoch"}
            callback(epoch, run.train_state, {"losses": losses.copy(), **metrics})

    run = _Run(train_state, (), (), None)
    interrupted = False
    try:
        run = looked_at(first, run)
        report(first, run)
        for epoch in range(first + 1, epochs + 1):
            train_state, losses = _epoch(
                run.train_state,
                x,
                y,
                fitted,
                strength,
                net=net,
                optimizer=optimizer,
                loss_fn=loss_fn,
                batch_size=batch_size,
            )
            losses = (*run.losses, np.asarray(losses, np.float64))
            # One assignment, so that an interrupt finds the run before or after, never between.
            run = looked_at(epoch, run._replace(train_state=train_state, losses=losses))
            report(epoch, run)
    except KeyboardInterrupt:
        interrupted = True
    model = Model(net, run.train_state.params, run.train_state.state, fitted)
    return FitResult(run.train_state, model, run.best, _history(run), interrupted)


def predict(model: Model, x: Any, *, batch_size: int = 1000) -> np.ndarray:
    """The class of each example: the index of its largest score.

    Args:
      model: the model.
      x: [N, ...] raw inputs, as the training data were.
      batch_size: examples per forward pass.
    Returns:
      [N] int32 labels.
    Raises:
      ValueError: x is empty, not finite, or its examples have the wrong shape.
    """
    return predict_scores(model, x, batch_size=batch_size).argmax(axis=1).astype(np.int32)


def predict_scores(model: Model, x: Any, *, batch_size: int = 1000) -> np.ndarray:
    """The scores of each example, [N, C]; arguments and errors are those of `predict`."""
    _check_model(model)
    x = _check.inputs(x)
    batch_size = _check.integer("batch_size", batch_size, at_least=1)
    return np.concatenate(
        [np.asarray(_scores(model, x[batch])) for batch in _batches(len(x), batch_size)]
    )


def evaluate(
    model: Model, x: Any, y: Any, *, batch_size: int = 1000, loss_fn: LossFn = softmax_loss
) -> Evaluation:
    """The loss and the accuracy of a model on labelled examples, in evaluation mode.

    Args:
      model: the model.
      x: [N, ...] raw inputs, as the training data were.
      y: [N] integer labels.
      batch_size: examples per forward pass.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
    Returns:
      An Evaluation, `.loss` and `.accuracy`.
    Raises:
      ValueError: x is empty or not finite, its examples have the wrong shape, or a label
        is none of the model's classes.
    """
    _check_model(model)
    _check.function("loss_fn", loss_fn)
    x = _check.inputs(x)
    y = _check.labels(y, num_examples=len(x), num_classes=_num_classes(model, x))
    batch_size = _check.integer("batch_size", batch_size, at_least=1)
    return _evaluate(model, x, y, batch_size, loss_fn)


def fit_preprocess(
    preprocess: Preprocess | Callable[[Any], Preprocess] | None, x_train: Any
) -> Preprocess:
    """The Preprocess that `fit` uses: given, fitted to x_train, or none."""
    if isinstance(preprocess, Preprocess):
        return preprocess
    if preprocess is None:
        preprocess = no_preprocess
    _check.function("preprocess", preprocess)
    fitted = preprocess(x_train)
    if not isinstance(fitted, Preprocess):
        raise TypeError(
            f"preprocess must give a Preprocess, as subtract_mean does, got {type(fitted).__name__}"
        )
    return fitted


# The compiled programs.


def _step(
    net: Layer,
    optimizer: Optimizer,
    loss_fn: LossFn,
    reg: Any,
    train_state: TrainState,
    x: Any,
    y: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    params, state, opt_state, key, step, epoch = train_state
    _, step_key = jax.random.split(key)
    value, grads, state = loss_and_grads(
        net,
        params,
        state,
        x,
        y,
        reg=0.0 if reg is None else reg,
        key=jax.random.fold_in(step_key, step),
        loss_fn=loss_fn,
    )
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)
    return TrainState(params, state, opt_state, key, step + 1, epoch), {"loss": value}


@partial(jax.jit, static_argnames=("net", "optimizer", "loss_fn", "batch_size"))
def _epoch(
    train_state: TrainState,
    x: jax.Array,
    y: jax.Array,
    preprocess: Preprocess,
    reg: Any,
    *,
    net: Layer,
    optimizer: Optimizer,
    loss_fn: LossFn,
    batch_size: int,
) -> tuple[TrainState, jax.Array]:
    """One pass over the data. Returns the state after it and the loss of every step."""
    order_key, _ = jax.random.split(train_state.key)
    order = jax.random.permutation(jax.random.fold_in(order_key, train_state.epoch), len(x))
    full = len(x) // batch_size

    def step(train_state: TrainState, batch: jax.Array) -> tuple[TrainState, jax.Array]:
        inputs = preprocess(x[batch])
        train_state, metrics = _step(net, optimizer, loss_fn, reg, train_state, inputs, y[batch])
        return train_state, metrics["loss"]

    batches = order[: full * batch_size].reshape(full, batch_size)
    train_state, losses = jax.lax.scan(step, train_state, batches)
    if len(x) % batch_size:
        train_state, loss = step(train_state, order[full * batch_size :])
        losses = jnp.append(losses, loss)
    return train_state._replace(epoch=train_state.epoch + 1), losses


@jax.jit
def _scores(model: Model, x: jax.Array) -> jax.Array:
    inputs = as_input(model.preprocess(x), model.params)
    scores, _, _ = model.net.forward(model.params, model.state, inputs, key=None, train=False)
    return scores


@partial(jax.jit, static_argnames=("loss_fn",))
def _sums(model: Model, x: jax.Array, y: jax.Array, *, loss_fn: LossFn) -> tuple[Any, Any]:
    """The sum of the losses over a batch, and the number of right answers."""
    scores = _scores(model, x)
    right = (scores.argmax(axis=1) == y) & ~jnp.isnan(scores).any(axis=1)  # a NaN is no answer
    return loss_fn(scores, y)[0] * len(x), right.sum()


# The loop.


class _Run(NamedTuple):
    train_state: TrainState
    losses: tuple[np.ndarray, ...]  # an array of the steps' losses for each epoch
    rows: tuple[dict[str, Any], ...]
    best: BestModel | None


def _look(
    model: Model,
    loss_fn: LossFn,
    sample: tuple[np.ndarray, np.ndarray],
    dataset: Dataset,
    epoch: int,
    run: _Run,
) -> _Run:
    """The run with a row for this epoch, and this model if it is the best so far."""
    train = _evaluate(model, *sample, TRAIN_SAMPLE, loss_fn)
    val = Evaluation(np.nan, np.nan)
    if len(dataset.x_val):
        val = _evaluate(model, dataset.x_val, dataset.y_val, TRAIN_SAMPLE, loss_fn)
    row = {
        "epoch": epoch,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "val_loss": val.loss,
        "val_accuracy": val.accuracy,
    }
    best = run.best
    if len(dataset.x_val) and (
        best is None or (val.accuracy, -val.loss) > (best.accuracy, -best.loss)
    ):
        best = BestModel(
            model.net, model.params, model.state, model.preprocess, epoch, val.accuracy, val.loss
        )
    return run._replace(rows=(*run.rows, row), best=best)


def _history(run: _Run) -> History:
    columns = {
        name: np.array([row[name] for row in run.rows], int if name == "epoch" else float)
        for name in History._fields[1:]
    }
    return History(np.concatenate([np.zeros(0), *run.losses]), **columns)


def _sample(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The training examples that accuracy is measured on: all, or 1,000 spread evenly."""
    count = len(dataset.x_train)
    places = np.linspace(0, count - 1, min(count, TRAIN_SAMPLE)).round().astype(int)
    return dataset.x_train[places], dataset.y_train[places]


def _evaluate(model: Model, x: Any, y: np.ndarray, batch_size: int, loss_fn: LossFn) -> Evaluation:
    plain = Model(model.net, model.params, model.state, model.preprocess)
    sums = [_sums(plain, x[b], y[b], loss_fn=loss_fn) for b in _batches(len(x), batch_size)]
    total = sum(float(value) for value, _ in sums)
    return Evaluation(total / len(x), sum(int(right) for _, right in sums) / len(x))


def _batches(count: int, batch_size: int) -> Iterator[slice]:
    return (slice(start, start + batch_size) for start in range(0, count, batch_size))


def _num_classes(model: Model, x: Any) -> int:
    return jax.eval_shape(_scores, model, x[:1]).shape[-1]


def _check_model(model: Any) -> None:
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model, such as fit(...).best, got {type(model).__name__}")


def _as_optimizer(optimizer: Any) -> Optimizer:
    """An Optimizer, or anything with `init` and `update`; a bare pair of them becomes one."""
    pair = optimizer if type(optimizer) is tuple else ()
    if len(pair) == 2 and all(map(callable, pair)):
        return Optimizer(*pair)
    if not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be a pair (init, update), got {optimizer!r}")
    return optimizer


def _check_classes(model: Model, dataset: Dataset) -> None:
    classes = _num_classes(model, dataset.x_train)
    for name, y in (("y_train", dataset.y_train), ("y_val", dataset.y_val)):
        _check.labels(y, num_examples=len(y), num_classes=classes, name=name)
