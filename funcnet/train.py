"""Training: `fit`, the loop around the compiled epochs, and the history of a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Unpack

import jax
import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset, check_dataset
from funcnet.layer import Layer
from funcnet.loop import FIRST_CHUNK, Orders
from funcnet.model import BestModel, Evaluation, Model, is_better, measure, predict_scores
from funcnet.optim import Optimizer
from funcnet.own_metrics import Metric, call_metric, check_metrics, columns_of
from funcnet.preprocess import Preprocess, subtract_mean
from funcnet.signature import complete, takes
from funcnet.step import (
    EVALUATION_BATCH,
    Held,
    Program,
    StepOptions,
    TrainState,
    as_numbers,
    as_program,
    check_batch_size,
    check_step,
    fit_preprocess,
    hold,
    init_train_state,
    on_device,
    params_in_use,
    release,
    train_epoch,
    training_arrays,
)
from funcnet.tree import LossFn, Tree

__all__ = ["FitResult", "History", "fit"]

EPOCHS = checks.COUNT
EVAL_EVERY = checks.COUNT
TRAIN_SAMPLE = 1000  # training examples on which the accuracy is measured


class History(NamedTuple):
    """The course of a run, NumPy arrays.

    Attributes:
      loss: [steps], the loss of every step on its batch, regularisation included.
      epoch: [rows], the epochs after which the following were measured, 0 the first.
      train_loss: [rows], the loss on a fixed sample of 1,000 training examples.
      train_accuracy: [rows], the accuracy on the same.
      val_loss: [rows], the loss on the validation set; NaN if it is empty.
      val_accuracy: [rows], the accuracy on the same.
      metrics: those of one's own, [rows] each: train_NAME on that sample, val_NAME on the
        validation set, NaN if it is empty.
    """

    loss: np.ndarray
    epoch: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    metrics: Mapping[str, np.ndarray] = {}

    def rows(self) -> dict[str, np.ndarray]:
        """What has a row for each measurement, [rows] each, by name: a table's columns."""
        return {**{name: getattr(self, name) for name in COLUMNS}, **self.metrics}


COLUMNS = History._fields[1:-1]  # those that every History has


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


class FitOptions(StepOptions, total=False):
    """Options of `fit` that a sweep takes, too, with their defaults."""

    preprocess: Annotated[Preprocess | Callable[[Any], Preprocess] | None, subtract_mean]
    average_decay: Annotated[Any, None]


@takes(FitOptions)
def fit(
    net: Layer,
    optimizer: Optimizer,
    dataset: Dataset,
    *,
    key: jax.Array | None = None,
    epochs: int,
    batch_size: int,
    eval_every: int | None = 1,
    train_state: TrainState | None = None,
    callback: Callable[[int, TrainState, dict[str, Any]], None] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    **options: Unpack[FitOptions],
) -> FitResult:
    """Train a network.

    Each epoch is a pass over all of the training data in an order that depends on key and
    epoch alone; a last batch that is short is a step of its own. Its steps are one compiled
    program, which runs for about a second at a time: then Ctrl-C is heard, and the result is
    that of the last epoch completed. Looking at the run, by evaluation or callback, does not
    change it. Nets and optimizers made anew from equal arguments use the program again.

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
        epoch, and where they were measured "train_loss", "train_accuracy", "val_loss",
        "val_accuracy" and those of `metrics`. An exception raised in it ends the run;
        KeyboardInterrupt as Ctrl-C.
      metrics: functions of one's own by name, `metric(scores, y)`, NumPy arrays [N, C] and [N]
        that it must not change, to a number, such as
        `{"balanced": lambda scores, y: balanced_accuracy(y, scores.argmax(axis=1))}`. They are
        measured wherever accuracies are, the first time before training, and stand in
        `History.metrics` as train_NAME and val_NAME. An error in one ends the run, and names it.
    Returns:
      A FitResult: `.state`, `.model`, `.best`, `.history`, `.interrupted`.
    Raises:
      ValueError, TypeError: an argument is wrong; before anything is compiled.
    """
    given = complete(FitOptions, options, "fit")
    program, loss_fn = as_program(net, optimizer, given), given["loss_fn"]
    optimizer = program.optimizer
    if callback is not None:
        checks.function("callback", callback)
    dataset = check_dataset(dataset)
    batch_size = check_batch_size(batch_size, dataset)
    if eval_every is not None:
        eval_every = EVAL_EVERY.check("eval_every", eval_every)
    own = check_metrics(metrics, COLUMNS)
    if own and eval_every is None:
        raise ValueError("metrics are measured every eval_every epochs, which is None: never")
    numbers = as_numbers(given)
    if (key is None) == (train_state is None):
        raise ValueError("give either key, for a new run, or train_state, to go on with one")
    first = 0 if train_state is None else int(train_state.epoch)
    epochs = checks.Count(at_least=first + 1).check("epochs", epochs)
    fitted = fit_preprocess(given["preprocess"], dataset.x_train)  # last: it may take a minute
    if train_state is None:
        in_shape = jax.eval_shape(fitted, dataset.x_train[:1]).shape[1:]
        train_state = init_train_state(net, optimizer, in_shape, key=checks.key(key))
    check_step(program, numbers, fitted, train_state, dataset, batch_size)

    data = training_arrays(dataset, fitted, augments=program.augment is not None)
    splits = {
        "train": _prepared(*training_sample(dataset), fitted),
        "val": _prepared(dataset.x_val, dataset.y_val, fitted),
    }

    def model_at(train_state: TrainState) -> Model:
        params = _params_in_use(train_state, program=program)
        return Model(net, params, train_state.state, fitted, encoding=dataset.encoding)

    def state_of(run: _Run) -> TrainState:
        return run.train_state or release(run.held, key, first + len(run.losses))

    def looked_at(epoch: int, run: _Run) -> _Run:
        if eval_every is None or (epoch % eval_every and epoch != epochs and epoch != first):
            return run
        train_state = state_of(run)
        run, model = run._replace(train_state=train_state), model_at(train_state)
        also = _own_row(own, model, splits)
        return _look(model, loss_fn, splits, epoch, run, also)

    def report(epoch: int, run: _Run) -> None:
        if callback is not None:
            losses = run.losses[-1] if run.losses else np.zeros(0)
            measured = run.rows[-1] if run.rows and run.rows[-1]["epoch"] == epoch else {}
            metrics = {name: value for name, value in measured.items() if name != "epoch"}
            callback(epoch, state_of(run), {"losses": losses.copy(), **metrics})

    orders = Orders(train_state.key, data.num_examples)
    key, size, interrupted = train_state.key, FIRST_CHUNK, False
    run = _Run(hold(train_state, program=program), None, (), (), None)
    del train_state  # it may be large
    try:
        run = looked_at(first, run)
        report(first, run)
        for epoch in range(first + 1, epochs + 1):
            run = run._replace(train_state=None)
            held, losses, size = train_epoch(
                run.held,
                key,
                orders.of(epoch - 1),
                data,
                numbers,
                program=program,
                batch_size=batch_size,
                size=size,
            )
            # One assignment, so that an interrupt finds the run before or after, never between.
            run = looked_at(epoch, run._replace(held=held, losses=(*run.losses, losses)))
            report(epoch, run)
    except KeyboardInterrupt:
        interrupted = True
    train_state = state_of(run)
    model, history = model_at(train_state), as_history(run.losses, run.rows, columns_of(own))
    return FitResult(train_state, model, run.best, history, interrupted)


_averaged = jax.jit(params_in_use, static_argnames=("program",))


def _params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    return (_averaged if program.averages else params_in_use)(train_state, program=program)


class _Run(NamedTuple):
    held: Held
    train_state: TrainState | None  # the same, where somebody looks at it
    losses: tuple[np.ndarray, ...]  # an array of the steps' losses for each epoch
    rows: tuple[dict[str, Any], ...]
    best: BestModel | None


def _look(
    model: Model,
    loss_fn: LossFn,
    splits: Mapping[str, "_Prepared"],
    epoch: int,
    run: _Run,
    also: Mapping[str, float],
) -> _Run:
    """The run with a row for this epoch, `also` in it; and this model if it is the best so far."""

    def measured(split: _Prepared) -> Evaluation:
        return measure(split.of(model), split.x, split.y, EVALUATION_BATCH, loss_fn)

    train = measured(splits["train"])
    val = measured(splits["val"]) if len(splits["val"].y) else None
    run = run._replace(rows=(*run.rows, {**history_row(epoch, train, val), **also}))
    if val is not None and (run.best is None or is_better(val, run.best)):
        parts = model.net, model.params, model.state, model.preprocess
        at = epoch, val.accuracy, val.loss
        run = run._replace(best=BestModel(*parts, *at, encoding=model.encoding))
    return run


class _Prepared(NamedTuple):
    """A split as evaluation takes it again and again: preprocessed, if that is done on the host.

    Attributes:
      x: the inputs.
      y: their labels.
      preprocess: what is left to be done to x.
    """

    x: Any
    y: np.ndarray
    preprocess: Preprocess

    def of(self, model: Model) -> Model:
        """The model of such inputs."""
        return Model(model.net, model.params, model.state, self.preprocess)


def _prepared(x: np.ndarray, y: np.ndarray, fitted: Preprocess) -> _Prepared:
    ready, left = on_device(x, fitted) if len(x) else (x, fitted)
    return _Prepared(ready, y, left)


def _own_row(
    metrics: Mapping[str, Metric], model: Model, splits: Mapping[str, _Prepared]
) -> dict[str, float]:
    """What one's own metrics say of each split; NaN of one that is empty."""
    row = dict.fromkeys(columns_of(metrics), np.nan)
    for split, each in splits.items():
        x, y = each.x, each.y
        if metrics and len(y):
            scores = predict_scores(each.of(model), x, batch_size=EVALUATION_BATCH)
            for name, metric in metrics.items():
                row[f"{split}_{name}"] = call_metric(name, metric, scores, y)
    return row


def history_row(epoch: int, train: Any, val: Any) -> dict[str, Any]:
    """What was measured after an epoch, as in a `History`.

    Args:
      epoch: the number of epochs done.
      train, val: `loss` and `accuracy`, numbers or arrays of several runs; val may be None.
    """
    if val is None:
        val = Evaluation(train.loss * np.nan, train.accuracy * np.nan)
    return {
        "epoch": epoch,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "val_loss": val.loss,
        "val_accuracy": val.accuracy,
    }


def as_history(
    losses: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]], own: Sequence[str] = ()
) -> History:
    """The History of the losses of some epochs and of their rows, own columns among them."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], int if name == "epoch" else float)

    known, metrics = ({name: column(name) for name in names} for names in (COLUMNS, own))
    return History(np.concatenate([np.zeros(0), *losses]), **known, metrics=metrics)


def training_sample(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The training examples that accuracy is measured on: all, or 1,000 spread evenly."""
    count = len(dataset.x_train)
    places = np.linspace(0, count - 1, min(count, TRAIN_SAMPLE)).round().astype(int)
    return dataset.x_train[places], dataset.y_train[places]
