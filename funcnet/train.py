"""Training: `fit`, the loop around the compiled epochs, and the history of a run."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, NamedTuple, Unpack

import jax
import numpy as np

from funcnet import checks
from funcnet.checkpoints import (
    Best,
    Checkpoints,
    Progress,
    check_options,
    identity_of,
    opened,
    warned,
)
from funcnet.datasets import Dataset, check_dataset
from funcnet.layer import Layer
from funcnet.model import (
    BestModel,
    Evaluation,
    Model,
    is_better,
    measure,
    merit,
    predict_scores,
)
from funcnet.nonfinite import NonFiniteError, Trouble, Watch, check_policy, find
from funcnet.optim import Optimizer
from funcnet.own_metrics import Metric, call_metric, check_metrics, columns_of
from funcnet.preprocess import Preprocess, subtract_mean
from funcnet.signature import complete, takes
from funcnet.step import (
    EVALUATION_BATCH,
    Epochs,
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
    training_arrays,
)
from funcnet.tree import LossFn, Tree

__all__ = ["FitResult", "History", "fit"]

EPOCHS = checks.COUNT
EVAL_EVERY = checks.COUNT
PATIENCE = checks.COUNT
KEEP_CHECKPOINTS = checks.COUNT
MONITOR = "val_accuracy"
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
      best: the BestModel of this call by `monitor`; None where it was not measured.
      history: the History.
      interrupted: whether Ctrl-C ended the run before its time.
      status: "finished"; "stopped" by the callback or for want of patience; "interrupted";
        "diverged" where a number was not finite.
      trouble: of a run that diverged, the `Trouble`: where and when.
    """

    state: TrainState
    model: Model
    best: BestModel | None
    history: History
    interrupted: bool
    status: str = "finished"
    trouble: Trouble | None = None


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
    callback: Callable[[int, TrainState, dict[str, Any]], Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    patience: int | None = None,
    monitor: str = MONITOR,
    on_nonfinite: str = "raise",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 2,
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
        "val_accuracy" and those of `metrics`. If it returns True or raises StopIteration the
        run ends with its result, as with KeyboardInterrupt; any other exception ends it without.
      metrics: functions of one's own by name, `metric(scores, y)`, NumPy arrays [N, C] and [N]
        that it must not change, to a number, such as
        `{"balanced": lambda scores, y: balanced_accuracy(y, scores.argmax(axis=1))}`. They are
        measured wherever accuracies are, the first time before training, and stand in
        `History.metrics` as train_NAME and val_NAME. An error in one ends the run, and names it.
      patience: stop when so many measurements in a row have found no better model; `.best` is
        the one before them. None never stops.
      monitor: the measurement that says which model is better, a column of the History: of
        "train_accuracy" and "val_accuracy" more is better, of equals the one of less loss; of
        "train_loss" and "val_loss" less; of one's own `metrics` more, "val_balanced" say, or with
        a minus before it, "-val_error", less. NaN is worst.
      on_nonfinite: what to do at the first step with a NaN or an infinity in its loss, gradients,
        updates or the state after it. "raise": end with a `NonFiniteError`, which says where and
        has the result; "stop": end with the result, that of the last epoch before it, with status
        "diverged"; "skip": leave the update out, state and moments stay to the bit what they were,
        and its loss in the history is NaN or infinite.
      checkpoint: a directory in which the run is kept as it goes, so that whatever ends it, it can
        go on from its last checkpoint to the same bits; it is made if it is not there, and held
        against other processes. The last state is written in the end, and after an interrupt.
        None is none. It needs safetensors.
      resume: go on from the last checkpoint there, or begin if there is none: the same call can
        be made again and again until the run is done. Data, net, optimizer, options and key must
        be those of the checkpoint; `epochs` may be more, and what was measured after the last one
        of before stays measured.
      checkpoint_every: write one after every so many epochs; None as often as takes 1 % of the
        time.
      keep_checkpoints: how many of the last ones are kept; each has the best model, too.
    Returns:
      A FitResult: `.state`, `.model`, `.best`, `.history`, `.interrupted`.
    Raises:
      ValueError, TypeError: an argument is wrong; before anything is compiled. Or a checkpoint is
        damaged, or of another run.
      NonFiniteError: a step was not finite.
      FileExistsError: there are checkpoints, and they are not to be resumed.
      BlockingIOError: another process writes checkpoints there.
      OSError: one cannot be written; earlier ones are left as they are. Of the last one it is a
        warning.
    """
    given = complete(FitOptions, options, "fit")
    given["on_nonfinite"] = check_policy(on_nonfinite)
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
    check_options(checkpoint, resume, checkpoint_every)
    KEEP_CHECKPOINTS.check("keep_checkpoints", keep_checkpoints)
    check_monitor(monitor, patience, eval_every, dataset, columns_of(own))
    fitted = fit_preprocess(given["preprocess"], dataset.x_train)  # last: it may take a minute
    if train_state is None:
        in_shape = jax.eval_shape(fitted, dataset.x_train[:1]).shape[1:]
        train_state = init_train_state(net, optimizer, in_shape, key=checks.key(key))
    train_state = check_step(program, numbers, fitted, train_state, dataset, batch_size)

    data = training_arrays(dataset, fitted, augments=program.augment is not None)
    splits = {
        "train": _prepared(*training_sample(dataset), fitted),
        "val": _prepared(dataset.x_val, dataset.y_val, fitted),
    }

    def model_at(train_state: TrainState) -> Model:
        params = _params_in_use(train_state, program=program)
        return Model(net, params, train_state.state, fitted, encoding=dataset.encoding)

    def state_of(run: _Run) -> TrainState:
        return run.train_state or release(run.held, key, run.epoch)

    def is_looked_at(epoch: int) -> bool:
        return eval_every is not None and (epoch % eval_every == 0 or epoch in (first, epochs))

    def looked_at(run: _Run) -> _Run:
        if not is_looked_at(run.epoch):
            return run
        train_state = state_of(run)
        run, model = run._replace(train_state=train_state), model_at(train_state)
        also = _own_row(own, model, splits)
        return _look(model, loss_fn, splits, run, also, monitor)

    def report(run: _Run, losses: np.ndarray) -> bool:
        """Tell the callback; whether it ends the run."""
        if callback is None:
            return False
        measured = run.rows[-1] if run.rows and run.rows[-1]["epoch"] == run.epoch else {}
        metrics = {name: value for name, value in measured.items() if name != "epoch"}
        return is_over(callback, run.epoch, state_of(run), {"losses": losses.copy(), **metrics})

    def save(kept: Checkpoints, run: _Run) -> None:
        kept.save(run.epoch, lambda: _progress(run, state_of(run), own))

    def is_patient_no_more(run: _Run) -> bool:
        if patience is None or run.best is None:
            return False
        best = run.best.epoch
        since = itertools.takewhile(lambda row: row["epoch"] > best, reversed(run.rows))
        return len(list(since)) >= patience

    with ExitStack() as stack:
        kept = None
        if checkpoint is not None:
            made_of = {name: value for name, value in given.items() if name != "preprocess"}
            made_of |= {"batch_size": batch_size, "metrics": tuple(own), "monitor": monitor}
            made_of["on_nonfinite"] = "skip" if program.skips else "raise or stop"  # of one program
            identity = identity_of(net, optimizer, dataset, fitted, train_state.key, made_of)
            kept = stack.enter_context(
                opened(
                    checkpoint,
                    identity,
                    resume=resume,
                    every=checkpoint_every,
                    keep=keep_checkpoints,
                )
            )
        found = None
        if kept is not None:
            like = train_state, _best_like(train_state, program)
            found = kept.load(*like, (*COLUMNS, *columns_of(own)))
        run = good = _begun(train_state, found, model_at, program)
        first, key, status, trouble = run.epoch, train_state.key, "finished", None
        del train_state  # it may be large
        passes = Epochs(key, data, numbers, program=program, batch_size=batch_size, held=run.held)
        watch = Watch(run.held, looks=not program.skips)
        if first > epochs:
            raise ValueError(
                f"epochs is {epochs}, but the run in {checkpoint} has done {first} already"
            )
        try:
            if found is None:
                run = looked_at(run)
                good = run._replace(train_state=None)
            stops = report(run, np.zeros(0)) or is_patient_no_more(run)
            for epoch in range(first + 1, epochs + 1):
                if stops:
                    status = "stopped"
                    break
                run = run._replace(train_state=None)
                held, losses = passes.train(run.held, epoch - 1)
                due = kept is not None and epoch < epochs and kept.is_due(epoch)
                seen = callback is not None or is_looked_at(epoch) or epoch == epochs
                well = watch.is_well(held, losses, now=due or seen or passes.in_place)
                if well is False and (bad := _gone_bad(good, epoch, passes)) is not None:
                    (run, trouble), status = bad, "diverged"
                    break
                # One assignment, so that an interrupt finds the run before or after, never between.
                all_losses = _added(run.losses, losses)
                run = looked_at(run._replace(epoch=epoch, held=held, losses=all_losses))
                good = run._replace(train_state=None) if well else good
                if due and kept is not None:
                    save(kept, run)
                stops = report(run, losses) or is_patient_no_more(run)
        except KeyboardInterrupt:
            status = "interrupted"
            if run.epoch > good.epoch and watch.is_well(run.held, np.zeros(0), now=True) is False:
                run = good
        if kept is not None and run.epoch > 0:
            with warned(checkpoint):
                save(kept, run)
    train_state = state_of(run)
    model, history = model_at(train_state), as_history(run.losses, run.rows, columns_of(own))
    parts = train_state, model, run.best, history
    result = FitResult(*parts, status == "interrupted", status, trouble)
    if trouble is not None and on_nonfinite == "raise":
        raise NonFiniteError(trouble, result)
    return result


def is_over(callback: Callable[..., Any], *arguments: Any) -> bool:
    """Call a callback: whether it returns True, or raises StopIteration."""
    try:
        over = callback(*arguments)
    except StopIteration:
        return True
    return isinstance(over, bool | np.bool_) and bool(over)


def check_monitor(
    monitor: Any,
    patience: Any,
    eval_every: int | None,
    dataset: Dataset,
    own: Sequence[str] = (),
) -> None:
    """Raise unless `monitor` of `fit` is measured, by what `patience` goes.

    Args:
      monitor, patience, eval_every: those of `fit`.
      dataset: the Dataset.
      own: the columns of one's own metrics.
    """
    known = [*COLUMNS[1:], *own, *(f"-{name}" for name in own)]
    if monitor not in known:
        raise ValueError(checks.unknown("monitor", str(monitor), known))
    if patience is not None:
        PATIENCE.check("patience", patience)
    if patience is None and monitor == MONITOR:
        return
    missing = ["eval_every"] if eval_every is None else []
    if monitor.removeprefix("-").startswith("val_") and not len(dataset.x_val):
        missing.append("validation examples, which monitor train_loss does not")
    if missing:
        what = "patience" if patience is not None else f"monitor {monitor}"
        raise ValueError(f"{what} needs {' and '.join(missing)}")


_averaged = jax.jit(params_in_use, static_argnames=("program",))


def _params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    return (_averaged if program.averages else params_in_use)(train_state, program=program)


class _Run(NamedTuple):
    epoch: int
    held: Held
    train_state: TrainState | None  # the same, where somebody looks at it
    losses: tuple[np.ndarray, ...]  # the steps' losses, an array for each epoch or for several
    rows: tuple[dict[str, Any], ...]
    best: BestModel | None
    best_row: dict[str, Any] | None  # what was measured of it


def _added(losses: tuple[np.ndarray, ...], new: np.ndarray) -> tuple[np.ndarray, ...]:
    """Losses with new ones; of many arrays one, so that long runs do not copy them all the time."""
    return (np.concatenate([*losses, new]),) if len(losses) >= 1000 else (*losses, new)


def _begun(
    train_state: TrainState,
    found: Progress | None,
    model_at: Callable[[TrainState], Model],
    program: Program,
) -> _Run:
    """A run before its first epoch here: anew, or as a checkpoint has it."""
    if found is None:
        held = hold(train_state, program=program)
        return _Run(int(train_state.epoch), held, None, (), (), None, None)
    best = best_row = None
    rows = rows_of(found.columns)
    if found.best is not None:
        last, own = model_at(found.train_state), found.best
        parts = last.net, own.params, own.state, last.preprocess
        best = BestModel(*parts, **own.numbers, encoding=last.encoding)
        best_row = next(row for row in rows if row["epoch"] == best.epoch)
    held, losses = hold(found.train_state, program=program), (found.columns["loss"],)
    return _Run(int(found.train_state.epoch), held, None, losses, rows, best, best_row)


def _best_like(train_state: TrainState, program: Program) -> Any:
    """The shapes and dtypes of the trees of a best model."""
    return jax.eval_shape(
        lambda state: (_params_in_use(state, program=program), state.state), train_state
    )


def _progress(run: _Run, train_state: TrainState, own: Mapping[str, Metric]) -> Progress:
    """What a checkpoint keeps of a run."""
    history, best = as_history(run.losses, run.rows, columns_of(own)), None
    if run.best is not None:
        numbers = {name: getattr(run.best, name) for name in ("epoch", "accuracy", "loss")}
        best = Best(run.best.params, run.best.state, numbers)
    return Progress(train_state, {"loss": history.loss, **history.rows()}, best)


def _gone_bad(good: _Run, epoch: int, epochs: Epochs) -> tuple[_Run, Trouble] | None:
    """The run before the epoch that went bad, and what did, from where all was well."""
    last = float(good.losses[-1][-1]) if good.losses else np.nan
    found = find(good.held, range(good.epoch, epoch), last, epochs)
    if found is None:
        return None
    losses, done = (*good.losses, *found.losses), found.trouble.epoch - 1
    return good._replace(epoch=done, held=found.held, losses=losses), found.trouble


def _look(
    model: Model,
    loss_fn: LossFn,
    splits: Mapping[str, "_Prepared"],
    run: _Run,
    also: Mapping[str, float],
    monitor: str,
) -> _Run:
    """The run with a row for its epoch, `also` in it; and this model if it is the best so far."""

    def measured(split: _Prepared) -> Evaluation:
        return measure(split.of(model), split.x, split.y, EVALUATION_BATCH, loss_fn)

    train = measured(splits["train"])
    val = measured(splits["val"]) if len(splits["val"].y) else None
    row = {**history_row(run.epoch, train, val), **also}
    run = run._replace(rows=(*run.rows, row))
    if val is None and monitor.removeprefix("-").startswith("val_"):
        return run
    if run.best_row is None or is_better(merit(row, monitor), merit(run.best_row, monitor)):
        parts = model.net, model.params, model.state, model.preprocess
        at = run.epoch, row["val_accuracy"], row["val_loss"]
        best = BestModel(*parts, *at, encoding=model.encoding)
        run = run._replace(best=best, best_row=row)
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


def rows_of(columns: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
    """The rows of a History whose columns are given, of which the losses of steps are none."""
    names = [name for name in columns if name != "loss"]
    rows = (
        dict(zip(names, row, strict=True)) for row in zip(*map(columns.get, names), strict=True)
    )
    return tuple({**row, "epoch": int(row["epoch"])} for row in rows)


def training_sample(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The training examples that accuracy is measured on: all, or 1,000 spread evenly."""
    count = len(dataset.x_train)
    places = np.linspace(0, count - 1, min(count, TRAIN_SAMPLE)).round().astype(int)
    return dataset.x_train[places], dataset.y_train[places]
