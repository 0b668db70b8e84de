"""Training: a pure step, an epoch compiled as one program, and the loop around it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import _check
from funcnet.augment import Augmentation, in_turn, mixup
from funcnet.datasets import Dataset, check_dataset
from funcnet.losses import is_zero, smooth_labels, softmax_loss
from funcnet.net import Layer, LossFn, as_input, loss_and_grads
from funcnet.optim import (
    Optimizer,
    apply_updates,
    as_optimizer,
    averaged_params,
    with_average,
)
from funcnet.preprocess import Preprocess, no_preprocess, subtract_mean

Tree = Any
View = Callable[[Any], Any]
TRAIN_SAMPLE = 1000  # training examples on which the accuracy is measured
EVALUATION_BATCH = 1000  # examples per forward pass, then


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
      views: of how many views of each example the scores were averaged; 1 is no averaging.
    """

    loss: float
    accuracy: float
    views: int = 1


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
      in_shape: the shape of one example, `x.shape[1:]`, as preprocessed.
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
    augment: Augmentation | Sequence[Augmentation] | None = None,
    label_smoothing: Any = 0.0,
    mixup_alpha: Any = 0.0,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """A jit-compiled training step, a pure function.

    Args:
      net: the network.
      optimizer: the optimizer.
      reg: L2 strength, as for `loss_and_grads`.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`.
      preprocess: applied to x inside the step; None leaves x as it is.
      augment, label_smoothing, mixup_alpha: as for `fit`.
    Returns:
      `train_step(train_state, x, y) -> (train_state, metrics)` for a batch x [N, ...],
      y [N]; metrics has "loss", the loss of this batch before the update.
    """
    numbers = as_numbers(reg, label_smoothing, mixup_alpha)
    program = as_program(net, optimizer, loss_fn, augment)

    @jax.jit
    def train_step(
        train_state: TrainState, x: Any, y: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        fitted = preprocess or no_preprocess(x)
        train_state, value = run_step(program, numbers, fitted, train_state, x, y)
        return train_state, {"loss": value}

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
    augment: Augmentation | Sequence[Augmentation] | None = None,
    label_smoothing: Any = 0.0,
    mixup_alpha: Any = 0.0,
    average_decay: Any = None,
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
      augment: a function of (key, inputs), such as `random_flip`, or several that are applied in
        turn, to the raw inputs of each training batch; None changes nothing.
      label_smoothing: the probability that targets spread over all classes, see
        `smooth_labels`; may be traced.
      mixup_alpha: train on mixtures of pairs, after preprocessing, with shares from
        Beta(alpha, alpha), see `mixup`; may be traced. 0 is none.
      average_decay: evaluate and return, in place of the last parameters, their exponential
        average over the updates, see `with_average`, 0.999 say; may be traced. None is no
        averaging. The state of layers, such as running statistics, is that of the last ones.
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
    program = as_program(net, optimizer, loss_fn, augment, average_decay)
    optimizer = program.optimizer
    if callback is not None:
        _check.function("callback", callback)
    dataset = check_dataset(dataset)
    batch_size = check_batch_size(batch_size, dataset)
    if eval_every is not None:
        eval_every = _check.integer("eval_every", eval_every, at_least=1)
    numbers = as_numbers(reg, label_smoothing, mixup_alpha)
    if (key is None) == (train_state is None):
        raise ValueError("give either key, for a new run, or train_state, to go on with one")
    first = 0 if train_state is None else int(train_state.epoch)
    epochs = _check.integer("epochs", epochs, at_least=first + 1)
    fitted = fit_preprocess(preprocess, dataset.x_train)  # last: it may take a minute
    if train_state is None:
        in_shape = jax.eval_shape(fitted, dataset.x_train[:1]).shape[1:]
        train_state = init_train_state(net, optimizer, in_shape, key=_check.key(key))
    check_step(program, numbers, fitted, train_state, dataset, batch_size)

    x, y, in_step = training_arrays(dataset, fitted, augments=augment is not None)
    sample = training_sample(dataset)

    def model_at(train_state: TrainState) -> Model:
        params = _params_in_use(train_state, program=program)
        return Model(net, params, train_state.state, fitted)

    def looked_at(epoch: int, run: _Run) -> _Run:
        if eval_every is None or (epoch % eval_every and epoch != epochs and epoch != first):
            return run
        return _look(model_at(run.train_state), loss_fn, sample, dataset, epoch, run)

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
                run.train_state, x, y, in_step, numbers, program=program, batch_size=batch_size
            )
            losses = (*run.losses, np.asarray(losses, np.float64))
            # One assignment, so that an interrupt finds the run before or after, never between.
            run = looked_at(epoch, run._replace(train_state=train_state, losses=losses))
            report(epoch, run)
    except KeyboardInterrupt:
        interrupted = True
    model = model_at(run.train_state)
    return FitResult(run.train_state, model, run.best, _history(run), interrupted)


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
      ValueError: x is empty, not finite, or its examples have the wrong shape.
    """
    scores = predict_scores(model, x, batch_size=batch_size, views=views)
    return scores.argmax(axis=1).astype(np.int32)


def predict_scores(
    model: Model, x: Any, *, batch_size: int = 1000, views: Sequence[View] | None = None
) -> np.ndarray:
    """The scores of each example, [N, C]; arguments and errors are those of `predict`."""
    _check_model(model)
    x, views = _check.inputs(x), _check_views(views)
    batch_size = _check.integer("batch_size", batch_size, at_least=1)
    model = _plain(model)
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
    _check.function("loss_fn", loss_fn)
    x, views = _check.inputs(x), _check_views(views)
    y = _check.labels(y, num_examples=len(x), num_classes=_num_classes(model, x))
    batch_size = _check.integer("batch_size", batch_size, at_least=1)
    return _evaluate(model, x, y, batch_size, loss_fn, views)


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


class Program(NamedTuple):
    """What is compiled into a step; averages says that the optimizer is one `with_average`."""

    net: Layer
    optimizer: Optimizer
    loss_fn: LossFn
    augment: Augmentation | None
    averages: bool


class Numbers(NamedTuple):
    """What a compiled step is given; None is what it does without."""

    reg: Any
    label_smoothing: Any
    mixup_alpha: Any


def run_step(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    x: Any,
    y: Any,
) -> tuple[TrainState, jax.Array]:
    """One update. Returns the state after it and the loss of the batch before it."""
    params, state, opt_state, key, step, epoch = train_state
    _, step_key = jax.random.split(key)
    # Split, not folded: fold_in(key, i) is the i-th of split(key, n), which the layers get.
    layer_key, augment_key, mixup_key = jax.random.split(jax.random.fold_in(step_key, step), 3)
    if program.augment is not None:
        x = program.augment(augment_key, x)
    inputs, targets = as_input(preprocess(x), params), y
    if numbers.label_smoothing is not None or numbers.mixup_alpha is not None:
        classes = _num_scores(program.net, params, state, inputs)
        smoothing = 0.0 if numbers.label_smoothing is None else numbers.label_smoothing
        targets = smooth_labels(y, classes, smoothing)
    if numbers.mixup_alpha is not None:
        inputs, targets = mixup(mixup_key, inputs, targets, numbers.mixup_alpha)
    value, grads, state = loss_and_grads(
        program.net,
        params,
        state,
        inputs,
        targets,
        reg=0.0 if numbers.reg is None else numbers.reg,
        key=layer_key,
        loss_fn=program.loss_fn,
    )
    updates, opt_state = program.optimizer.update(grads, opt_state, params)
    params = apply_updates(params, updates)
    return TrainState(params, state, opt_state, key, step + 1, epoch), value


def run_epoch(
    train_state: TrainState,
    x: jax.Array,
    y: jax.Array,
    preprocess: Preprocess,
    numbers: Numbers,
    *,
    program: Program,
    batch_size: int,
) -> tuple[TrainState, jax.Array]:
    """One pass over the data. Returns the state after it and the loss of every step."""

    def step(train_state: TrainState, batch: jax.Array) -> tuple[TrainState, jax.Array]:
        return run_step(program, numbers, preprocess, train_state, x[batch], y[batch])

    order = epoch_order(train_state.key, train_state.epoch, len(x))
    train_state, losses = over_batches(step, train_state, order, batch_size)
    return train_state._replace(epoch=train_state.epoch + 1), losses


def epoch_order(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """The order in which an epoch of the run with this key takes `count` examples."""
    order_key, _ = jax.random.split(key)
    return jax.random.permutation(jax.random.fold_in(order_key, epoch), count)


def over_batches(
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]],
    carry: Any,
    order: jax.Array,
    batch_size: int,
) -> tuple[Any, jax.Array]:
    """`step(carry, batch) -> (carry, loss)` for each batch of an order [N, ...], as a loop.

    A last batch that is short is a step after the loop. Returns the carry and the losses.
    """
    full = len(order) // batch_size
    batches = order[: full * batch_size].reshape(full, batch_size, *order.shape[1:])
    carry, losses = jax.lax.scan(step, carry, batches)
    if len(order) % batch_size:
        carry, loss = step(carry, order[full * batch_size :])
        losses = jnp.append(losses, loss[None], axis=0)
    return carry, losses


_epoch = jax.jit(run_epoch, static_argnames=("program", "batch_size"))


def params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    """The parameters to evaluate and keep: the last, or their average."""
    if program.averages:
        return averaged_params(train_state.opt_state, train_state.params)
    return train_state.params


_averaged = jax.jit(params_in_use, static_argnames=("program",))


def _params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    return (_averaged if program.averages else params_in_use)(train_state, program=program)


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


@jax.jit
def _preprocess(preprocess: Preprocess, x: jax.Array) -> jax.Array:
    return preprocess(x)


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
    train = _evaluate(model, *sample, EVALUATION_BATCH, loss_fn, ())
    val = Evaluation(np.nan, np.nan)
    if len(dataset.x_val):
        val = _evaluate(model, dataset.x_val, dataset.y_val, EVALUATION_BATCH, loss_fn, ())
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


def training_arrays(
    dataset: Dataset, preprocess: Preprocess, *, augments: bool
) -> tuple[jax.Array, jax.Array, Preprocess]:
    """The training data on the device, and the preprocessing left for a step to do."""
    x, y = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    if augments or not _narrows(preprocess, x):
        return x, y, preprocess
    # Once is enough, and takes less memory.
    x = jnp.concatenate([_preprocess(preprocess, x[b]) for b in slices(len(x), EVALUATION_BATCH)])
    return x, y, no_preprocess(x)


def training_sample(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The training examples that accuracy is measured on: all, or 1,000 spread evenly."""
    count = len(dataset.x_train)
    places = np.linspace(0, count - 1, min(count, TRAIN_SAMPLE)).round().astype(int)
    return dataset.x_train[places], dataset.y_train[places]


def _evaluate(
    model: Model,
    x: Any,
    y: np.ndarray,
    batch_size: int,
    loss_fn: LossFn,
    views: tuple[View, ...],
) -> Evaluation:
    model, batches = _plain(model), slices(len(x), batch_size)
    pairs = [_sums(model, x[b], y[b], loss_fn=loss_fn, views=views) for b in batches]
    total, right = sum(float(value) for value, _ in pairs), sum(int(count) for _, count in pairs)
    return Evaluation(total / len(x), right / len(x), max(1, len(views)))


def _plain(model: Model) -> Model:
    """A Model, also of a BestModel: one compiled program serves both."""
    return Model(model.net, model.params, model.state, model.preprocess)


def slices(count: int, batch_size: int) -> Iterator[slice]:
    """Slices of `batch_size` that cover `count`, the last one short."""
    return (slice(start, start + batch_size) for start in range(0, count, batch_size))


def _num_classes(model: Model, x: Any) -> int:
    return jax.eval_shape(_scores, model, x[:1]).shape[-1]


def _num_scores(net: Layer, params: Tree, state: Tree, inputs: jax.Array) -> int:
    forward = partial(net.forward, key=None, train=False)
    return jax.eval_shape(forward, params, state, inputs)[0].shape[-1]


def _narrows(preprocess: Preprocess, x: jax.Array) -> bool:
    """Whether preprocessed examples have fewer elements than raw ones."""
    return jax.eval_shape(preprocess, x[:1]).size < x[:1].size


def _check_model(model: Any) -> None:
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model, such as fit(...).best, got {type(model).__name__}")


def _check_views(views: Any) -> tuple[View, ...]:
    if views is None:
        return ()
    if callable(views) or not isinstance(views, Sequence):
        raise TypeError("views must be a sequence of functions, such as flips_and_shifts()")
    for view in views:
        _check.function("every view", view)
    return tuple(views)


@lru_cache(maxsize=16)
def _averaging_concrete(optimizer: Optimizer, decay: float) -> Optimizer:
    return with_average(optimizer, decay)


def _averaging(optimizer: Optimizer, decay: Any) -> Optimizer:
    """`with_average`, the same object for the same arguments, so that nothing compiles again."""
    if isinstance(decay, (int, float)):
        return _averaging_concrete(optimizer, decay)
    return with_average(optimizer, decay)


_in_turn = lru_cache(maxsize=16)(in_turn)  # the same object, so that nothing compiles again


def as_program(
    net: Layer, optimizer: Any, loss_fn: LossFn, augment: Any, average_decay: Any = None
) -> Program:
    """The Program of checked parts."""
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a Layer, such as mlp([100], 10), got {net!r}")
    optimizer = as_optimizer(optimizer)
    _check.function("loss_fn", loss_fn)
    if augment is not None and not callable(augment):
        if isinstance(augment, str) or not isinstance(augment, Sequence):
            raise TypeError(
                f"augment must be a function such as random_flip, or several, got {augment!r}"
            )
        augment = _in_turn(tuple(augment))
    if average_decay is not None:
        optimizer = _averaging(optimizer, average_decay)
    return Program(net, optimizer, loss_fn, augment, average_decay is not None)


def as_numbers(reg: Any, label_smoothing: Any, mixup_alpha: Any) -> Numbers:
    """The Numbers of checked options of `fit`."""
    _check.number("label_smoothing", label_smoothing, at_least=0, at_most=1)
    _check.number("mixup_alpha", mixup_alpha, at_least=0)
    given = (reg, label_smoothing, mixup_alpha)
    return Numbers(*(None if is_zero(value) else jnp.asarray(value, float) for value in given))


def _check_classes(model: Model, dataset: Dataset) -> None:
    classes = _num_classes(model, dataset.x_train)
    for name, y in (("y_train", dataset.y_train), ("y_val", dataset.y_val)):
        _check.labels(y, num_examples=len(y), num_classes=classes, name=name)


def check_batch_size(batch_size: Any, dataset: Dataset) -> int:
    """The batch size, if there are so many training examples."""
    batch_size = _check.integer("batch_size", batch_size, at_least=1)
    if batch_size > len(dataset.x_train):
        raise ValueError(
            f"batch_size is {batch_size}, but there are only "
            f"{_check.plural(len(dataset.x_train), 'training example')}"
        )
    return batch_size


def check_step(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    dataset: Dataset,
    batch_size: int,
) -> None:
    """Trace a step, so that whatever does not fit is known before anything is compiled."""
    net, (params, state, *_) = program.net, train_state
    _check_classes(Model(net, params, state, preprocess), dataset)

    def trace(count: int) -> None:
        x, y = dataset.x_train[:count], dataset.y_train[:count]
        jax.eval_shape(partial(run_step, program, numbers, preprocess), train_state, x, y)

    trace(batch_size)
    rest = len(dataset.x_train) % batch_size
    if rest == 1:
        try:
            trace(rest)
        except ValueError as error:
            raise ValueError(
                f"batches of {batch_size} leave one of the "
                f"{_check.plural(len(dataset.x_train), 'training example')} over: choose "
                f"another batch_size ({error})"
            ) from None
