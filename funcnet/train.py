"""Training: `fit`, the loop around the compiled epochs, and the history of a run."""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, NamedTuple, Unpack

import jax
import numpy as np
from jax.sharding import Mesh

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
from funcnet.epochs import Reached
from funcnet.evaluation import is_better, merit
from funcnet.exact import check_shards, epochs_of
from funcnet.feed import feed_of
from funcnet.history import History, as_history, columns, rows_of
from funcnet.inputs import fit_preprocess
from funcnet.layer import Layer
from funcnet.loaders import Loader
from funcnet.measured import check_monitor, examples_of, measured_row, own_row, prepared
from funcnet.model import BestModel, Model, as_best
from funcnet.nonfinite import NonFiniteError, Trouble, Watch, check_policy, find
from funcnet.optim import Optimizer
from funcnet.own_metrics import Metric, check_metrics, columns_of
from funcnet.parallel import as_spread, bits_of, check_split, local, processes_of
from funcnet.preprocess import Preprocess, subtract_mean
from funcnet.processes import agreed, check_same, digest, first_then_others, is_first
from funcnet.program import (
    Program,
    StepOptions,
    as_numbers,
    as_program,
    check_batch_size,
    classes_of,
)
from funcnet.signature import complete, takes
from funcnet.step import (
    TrainState,
    check_step,
    hold,
    init_train_state,
    params_in_use,
    release,
)
from funcnet.targets import fit_targets
from funcnet.tree import Tree

__all__ = ["FitResult", "fit"]

EPOCHS = checks.COUNT
EVAL_EVERY = checks.COUNT
KEEP_CHECKPOINTS = checks.COUNT


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
    Example:
      >>> digits, net = fn.load_digits(), fn.mlp([32], num_classes=10)
      >>> key = jax.random.key(0)
      >>> result = fn.fit(net, fn.adam(1e-2), digits, key=key, epochs=1, batch_size=50)
      >>> int(result.state.step), result.best.epoch, result.interrupted
      (25, 1, False)
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
    batch_size: int | None = None,
    batches: Iterable[Any] | None = None,
    steps_per_epoch: int | None = None,
    eval_every: int | None = 1,
    train_state: TrainState | None = None,
    callback: Callable[[int, TrainState, dict[str, Any]], Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    on_nonfinite: str = "raise",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 2,
    mesh: Mesh | None = None,
    reproducible: int | None = None,
    **options: Unpack[FitOptions],
) -> FitResult:
    """Train a network.

    Each epoch is a pass over all of the training data in an order that depends on key and
    epoch alone; a last batch that is short is a step of its own. Its steps are one compiled
    program, which runs for about a second at a time: then Ctrl-C is heard, and the result is
    that of the last epoch completed. Looking at the run, by evaluation or callback, does not
    change it. Nets and optimizers made anew from equal arguments use the program again.

    Of several processes, see `join_processes`, each is given the same, and a mesh of the devices
    of all; the first one writes, a callback that ends the run in one ends it in all. An
    interrupt, or an error, in one ends that one, and so after a while the others.

    Args:
      net: the network.
      optimizer: an `Optimizer`, or any pair of this shape.
      dataset: the Dataset; its test split is not used. One that stays on disk, see `load_arrays`,
        is read in windows of 64 MiB while it is trained on: an epoch takes blocks of neighbouring
        rows, of 128 KiB at most, in another order each time, and mixes the rows of those that fill
        a window. Some 400 MiB are in use for it beside what the net wants, whatever its size.
      key: the random key of the run, `jax.random.key(seed)`: parameters, order of the
        examples, random layers.
      epochs: the number of epochs in all, those done by `train_state` included.
      batch_size: examples per step; of `batches` they say it themselves.
      batches: what is trained on in place of the training split, whose examples are then those that
        preprocessing is fitted to, and of which training accuracy is: an iterator of (x, y) or (x,
        y, sample_weight), x and y as in a Dataset, or what can be iterated over again, for each
        epoch. Iterators with `get_state()` and `set_state(state)`, as Grain's, go on in mid-epoch
        from a checkpoint. Of several processes each gives its own part of every batch.
      steps_per_epoch: how many of `batches` are an epoch; None is as many as one iteration gives.
      reg: L2 strength, as for `loss_and_grads`.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`, for examples with weights
        `loss_fn(scores, y, sample_weight)`; functools.partial gives options, as
        `partial(huber_loss, delta=2.0)`. None is the usual one of the task: `softmax_loss`,
        `squared_loss` of targets that are standardized, `sigmoid_loss`.
      class_weight: how much the loss counts each class, beside the weights of the dataset's
        examples: "balanced", weights by the name or the number of their class, in which others have
        1, or [C] weights, see `class_weights`; may be traced. Loss is then the weighted mean, in
        each batch and in `History`; accuracies go by the weights of examples alone, and statistics
        of a batch, as those of batch norm and of preprocessing, by none. None is 1 each.
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
        that it must not change (of regression the predictions in its units and y), to a number, as
        `{"balanced": lambda scores, y: balanced_accuracy(y, scores.argmax(axis=1))}`. They are
        measured wherever accuracies are, the first time before training, and stand in
        `History.metrics` as train_NAME and val_NAME. An error in one ends the run, and names it.
      patience: stop when so many measurements in a row have found no better model; `.best` is
        the one before them. None never stops.
      monitor: the measurement that says which model is better, a column of the History: of
        "train_accuracy" and "val_accuracy" more is better, of equals the one of less loss; of loss,
        rmse and mae less; of r2, F1 and one's own `metrics` more, "val_balanced" say, or with a
        minus before it, "-val_error", less. NaN is worst. None is "val_accuracy" of classes,
        "val_loss" of other targets.
      on_nonfinite: what to do at the first step with a NaN or an infinity in its loss, gradients,
        updates or the state after it. "raise": end with a `NonFiniteError`, which says where and
        has the result; "stop": end with the result, that of the last epoch before it, with status
        "diverged"; "skip": leave the update out, state and moments stay to the bit what they were,
        and its loss in the history is NaN or infinite.
      checkpoint: a directory in which the run is kept as it goes, so that whatever ends it, it can
        go on from its last checkpoint to the same bits; it is made if it is not there, and held
        against other processes. The last state is written in the end, and after an interrupt. Of
        data on disk, and of `batches`, it may be in mid-epoch: a run that goes on from there and is
        interrupted in that epoch again has the state there for its result.
        None is none. It needs safetensors.
      resume: go on from the last checkpoint there, or begin if there is none: the same call can
        be made again and again until the run is done. Data, net, optimizer, options and key must
        be those of the checkpoint; `epochs` may be more, and what was measured after the last one
        of before stays measured.
      checkpoint_every: write one after every so many epochs; None as often as takes 1 % of the
        time, in mid-epoch too where data are read as they are trained on.
      keep_checkpoints: how many of the last ones are kept; each has the best model, too.
      mesh: the devices that train, such as `device_mesh(4)`: each computes its part of every batch,
        and all have the same parameters. Of a mesh with a second axis the devices of a row have
        some columns each of the weights of affine layers. batch_size must be a multiple of the
        first axis; a last batch that cannot be divided is computed by all. Measurements are those
        of one device. The order of examples, dropout and batch norm are those of one device, up to
        the rounding of sums. None is one device.
      reproducible: cut each batch in so many shards, a power of two that divides batch_size and
        that the number of devices divides, and add up what comes of them in one order: then the
        parameters are the same to the bit on 1, 2, 4, ... devices of a kind, and a run may go on
        with another number of them. On a CPU bits go by the number of threads, too, which
        `PJRT_NPROC=1` in the environment of JAX makes 1. Dropout, augmentation and mixup take each
        shard by itself; a loss must be a mean over examples, each by itself. It takes longer. A
        GPU may choose another program for a product each time that it is compiled, which XLA's
        options forbid. None leaves the order to the compiler.
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
      ConnectionError: another process has ended.
    Example:
      >>> digits, net = fn.load_digits(), fn.mlp([32], num_classes=10)
      >>> key = jax.random.key(0)
      >>> result = fn.fit(net, fn.adam(1e-2), digits, key=key, epochs=3, batch_size=50)
      >>> fn.evaluate(result.best, digits.x_test, digits.y_test).accuracy > 0.8
      True
      >>> len(result.history.loss), result.status
      (75, 'finished')
    """
    given = complete(FitOptions, options, "fit")
    given["on_nonfinite"] = check_policy(on_nonfinite)
    dataset = check_dataset(dataset, stored=True)
    program = as_program(net, optimizer, given, dataset.task)
    optimizer, loss_fn = program.optimizer, program.loss_fn
    if callback is not None:
        checks.function("callback", callback)
    loader = None
    if batches is not None:
        if batch_size is not None:
            raise ValueError("batch_size is for the dataset's examples: batches have their own")
        share, is_kept = len(processes_of(mesh)), checkpoint is not None
        loader = Loader(batches, steps_per_epoch, dataset, share=share, kept=is_kept)
        batch_size = loader.batch_size
    elif steps_per_epoch is not None:
        raise ValueError("steps_per_epoch is for batches, which is None")
    else:
        batch_size = check_batch_size(batch_size, dataset)
    program = program._replace(spread=as_spread(mesh, reproducible, batch_size))
    if eval_every is not None:
        eval_every = EVAL_EVERY.check("eval_every", eval_every)
    own = check_metrics(metrics, columns(dataset.task))
    names = columns_of(own)
    if own and eval_every is None:
        raise ValueError("metrics are measured every eval_every epochs, which is None: never")
    numbers = as_numbers(given, classes_of(dataset))
    if (key is None) == (train_state is None):
        raise ValueError("give either key, for a new run, or train_state, to go on with one")
    first = 0 if train_state is None else int(train_state.epoch)
    epochs = checks.Count(at_least=first + 1).check("epochs", epochs)
    check_options(checkpoint, resume, checkpoint_every)
    if loader is not None and checkpoint is not None and not loader.replays:
        raise ValueError(
            "to be kept in a checkpoint, batches must say where they are: their iterator has no "
            "get_state() and set_state(state)"
        )
    KEEP_CHECKPOINTS.check("keep_checkpoints", keep_checkpoints)
    monitor = check_monitor(monitor, patience, eval_every, dataset, names)
    targets = fit_targets(dataset, loss_fn)
    fitted = fit_preprocess(given["preprocess"], dataset.x_train)  # last: it may take a minute
    if train_state is None:
        in_shape = jax.eval_shape(fitted, dataset.x_train[:1]).shape[1:]
        train_state = init_train_state(net, optimizer, in_shape, key=checks.key(key))
    check_split(program.spread, train_state.params)
    first_batch = None if loader is None else loader.first
    wanted = dataset, targets, batch_size, first_batch
    train_state = check_step(program, numbers, fitted, train_state, *wanted)
    feed, examples, left = feed_of(
        train_state.key,
        dataset,
        loader,
        preprocess=fitted,
        targets=targets,
        numbers=numbers,
        program=program,
        batch_size=batch_size,
    )
    rest = 0 if loader is not None else len(dataset.x_train) % batch_size
    sizes = [batch_size, *([rest] if rest else [])]
    check_shards(program, numbers, left, train_state, examples, sizes)
    del examples  # of several devices each has its own
    splits = {
        split: prepared(examples_of(dataset, split, targets), fitted) for split in ("train", "val")
    }

    def model_at(train_state: TrainState) -> Model:
        params = _params_in_use(train_state, program=program)
        parts = net, params, train_state.state, fitted
        return Model(*parts, encoding=dataset.encoding, targets=targets)

    def state_of(run: _Run) -> TrainState:
        return run.train_state or release(local(run.held), local(key), run.epoch)

    def is_looked_at(epoch: int) -> bool:
        return eval_every is not None and (epoch % eval_every == 0 or epoch in (first, epochs))

    def looked_at(run: _Run) -> _Run:
        if not is_looked_at(run.epoch):
            return run
        train_state = state_of(run)
        run, model = run._replace(train_state=train_state), model_at(train_state)
        also = own_row(own, model, splits)
        row = measured_row(model, loss_fn, numbers.class_weight, splits, run.epoch)
        counts = len(dataset.x_val) > 0 or not monitor.removeprefix("-").startswith("val_")
        return _with_row(model, run, {**row, **also}, monitor if counts else None)

    def report(run: _Run, losses: np.ndarray) -> bool:
        """Tell the callback; whether it ends the run."""
        if callback is None:
            return False
        measured = run.rows[-1] if run.rows and run.rows[-1]["epoch"] == run.epoch else {}
        metrics = {name: value for name, value in measured.items() if name != "epoch"}
        return is_over(callback, run.epoch, state_of(run), {"losses": losses.copy(), **metrics})

    def save(kept: Checkpoints, run: _Run) -> None:
        progress = partial(_progress, run, names=names, task=dataset.task)
        kept.save(run.epoch, run.done, lambda: progress(state_of(run)))

    several = program.spread is not None and program.spread.processes > 1
    writes = not several or is_first()

    def is_patient_no_more(run: _Run) -> bool:
        if patience is None or run.best is None:
            return False
        best = run.best.epoch
        since = itertools.takewhile(lambda row: row["epoch"] > best, reversed(run.rows))
        return len(list(since)) >= patience

    with ExitStack() as stack:
        identity: dict[str, str] = {}
        if checkpoint is not None or several:
            made_of = {name: value for name, value in given.items() if name != "preprocess"}
            made_of |= {"batch_size": batch_size, "metrics": tuple(own), "monitor": monitor}
            made_of["loss_fn"], made_of["order"] = loss_fn, feed.text
            made_of |= bits_of(program.spread)
            made_of["on_nonfinite"] = "skip" if program.skips else "raise or stop"  # of one program
            identity = identity_of(net, optimizer, dataset, fitted, train_state.key, made_of)
        if several:
            here = {"epochs": epochs, "eval_every": eval_every, "patience": patience, "mesh": mesh}
            check_same({**identity, **{name: str(value) for name, value in here.items()}})

        def open_one(*, writes: bool) -> Checkpoints | None:
            if checkpoint is None:
                return None
            return stack.enter_context(
                opened(
                    checkpoint,
                    identity,
                    resume=resume,
                    every=checkpoint_every,
                    keep=keep_checkpoints,
                    writes=writes,
                )
            )

        opens, looks = partial(open_one, writes=True), partial(open_one, writes=False)
        kept, found = first_then_others(opens, looks) if several else opens(), None
        if kept is not None and resume:
            like = train_state, _best_like(train_state, program)
            found = kept.load(*like, (*columns(dataset.task), *names))
        run = _begun(train_state, found, model_at, program)
        first, key, status, trouble = run.epoch, train_state.key, "finished", None
        del train_state  # it may be large
        if several:
            begins = f"{run.epoch} {found is None} {digest(run.held)}"
            check_same({"the state, or the checkpoint, that they begin with": begins})
        if found is not None:
            feed.restore(run.mark)
        passes = epochs_of(feed, program, run.held)
        run = good = whole = run._replace(held=passes.begin(run.held))
        watch = Watch(run.held, looks=not program.skips)
        if first > epochs:
            raise ValueError(
                f"epochs is {epochs}, but the run in {checkpoint} has done {first} already"
            )
        try:
            if found is None:
                run = looked_at(run)
                good = whole = run._replace(train_state=None)
            stops = report(run, np.zeros(0)) or is_patient_no_more(run)
            if several:
                (stops,) = agreed(stops)
            for epoch in range(first + 1, epochs + 1):
                if stops:
                    status = "stopped"
                    break
                run = run._replace(train_state=None)
                losses = [run.losses[-1][-run.done :]] if run.done else []
                well: bool | None = True
                bad, more = None, True
                while more and bad is None:
                    more = False
                    with closing(passes.train(run.held, epoch - 1, run.done)) as stretches:
                        for reached in stretches:
                            due = kept is not None and writes and feed.parts and kept.is_due()
                            now = due or passes.in_place
                            well = watch.is_well(reached.held, reached.losses, now=now)
                            if more := well is False:  # which is seen once nothing else is read
                                break
                            # One assignment, so that an interrupt finds the run before or after.
                            run = _after(run, reached)
                            losses.append(reached.losses)
                            good = run if well else good
                            if due and kept is not None:
                                save(kept, run)
                    if more and (bad := _gone_bad(good, whole, epoch, passes)) is None:
                        run = _after(run, reached)
                        losses.append(reached.losses)
                        feed.restore(run.mark)
                due = kept is not None and writes and epoch < epochs and kept.is_due(epoch)
                seen = several or callback is not None or is_looked_at(epoch) or epoch == epochs
                if well is None:
                    well = watch.is_well(run.held, np.zeros(0), now=due or seen or feed.parts)
                    if well is False:
                        bad = _gone_bad(good, whole, epoch, passes)
                if bad is not None:
                    (run, trouble), status = bad, "diverged"
                    break
                run = looked_at(run._replace(epoch=epoch, done=0))
                whole = run._replace(train_state=None)
                good = whole if well else good
                if due and kept is not None:
                    save(kept, run)
                stops = report(run, np.concatenate(losses)) or is_patient_no_more(run)
                if several:
                    (stops,) = agreed(stops)
        except KeyboardInterrupt:
            status = "interrupted"
            last = run if feed.parts else whole
            if last.at > good.at and watch.is_well(last.held, np.zeros(0), now=True) is False:
                last = good
            run = whole if whole.at <= last.at else last
        else:
            last = run
        if kept is not None and writes and last.at > (0, 0):
            with warned(checkpoint):
                save(kept, last)
    train_state = state_of(run)
    history = as_history(run.losses, run.rows, names, dataset.task)
    model = model_at(train_state)
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


_averaged = jax.jit(params_in_use, static_argnames=("program",))


def _params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    return (_averaged if program.averages else params_in_use)(train_state, program=program)


class _Run(NamedTuple):
    epoch: int
    held: Any  # a Held, or Copies
    train_state: TrainState | None  # the same, where somebody looks at it
    losses: tuple[np.ndarray, ...]  # the steps' losses, an array for each stretch or for several
    rows: tuple[dict[str, Any], ...]
    best: BestModel | None
    best_row: dict[str, Any] | None  # what was measured of it
    done: int = 0  # batches of the epoch after it
    mark: Any = None  # where the source of batches is

    @property
    def at(self) -> tuple[int, int]:
        """Where it is."""
        return self.epoch, self.done


def _after(run: _Run, reached: Reached) -> _Run:
    """The run after a stretch of an epoch."""
    losses = _added(run.losses, reached.losses)
    return run._replace(
        held=reached.held, losses=losses, done=reached.done, mark=reached.mark, train_state=None
    )


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
        best = as_best(replace(last, params=own.params, state=own.state), **own.numbers)
        best_row = next(row for row in rows if row["epoch"] == best.epoch)
    held, losses = hold(found.train_state, program=program), (found.columns["loss"],)
    parts = None, losses, rows, best, best_row, found.done, found.mark
    return _Run(int(found.train_state.epoch), held, *parts)


def _best_like(train_state: TrainState, program: Program) -> Any:
    """The shapes and dtypes of the trees of a best model."""
    return jax.eval_shape(
        lambda state: (_params_in_use(state, program=program), state.state), train_state
    )


def _progress(run: _Run, train_state: TrainState, names: Sequence[str], task: str) -> Progress:
    """What a checkpoint keeps of a run."""
    history, best = as_history(run.losses, run.rows, names, task), None
    if run.best is not None:
        numbers = {name: getattr(run.best, name) for name in ("epoch", "accuracy", "loss")}
        best = Best(run.best.params, run.best.state, numbers)
    columns = {"loss": history.loss, **history.rows()}
    return Progress(train_state, columns, best, run.done, run.mark)


def _gone_bad(good: _Run, whole: _Run, epoch: int, passes: Any) -> tuple[_Run, Trouble] | None:
    """The run before the epoch that went bad, and what did, from where all was well."""
    last = float(good.losses[-1][-1]) if good.losses else np.nan
    start = Reached(good.held, np.zeros(0), good.done, good.mark)
    found = find(start, range(good.epoch, epoch), last, passes)
    if found is None:
        return None
    if found.held is None:  # it is in the epoch that was under way
        return whole, found.trouble
    losses, done = (*good.losses, *found.losses), found.trouble.epoch - 1
    return good._replace(epoch=done, held=found.held, losses=losses, done=0), found.trouble


def _with_row(model: Model, run: _Run, row: dict[str, Any], monitor: str | None) -> _Run:
    """The run with what was measured of a model; and this model if it is the best so far.

    None as a monitor is one that is not measured.
    """
    run = run._replace(rows=(*run.rows, row))
    if monitor is None:
        return run
    if run.best_row is None or is_better(merit(row, monitor), merit(run.best_row, monitor)):
        best = as_best(model, run.epoch, row.get("val_accuracy", np.nan), row["val_loss"])
        run = run._replace(best=best, best_row=row)
    return run
