"""Trainings of an estimator: one net by `fit`, several by `sweep`, an epoch of what comes in parts.

When a training is over is scikit-learn's rule, in `Course`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.datasets import Dataset
from funcnet.epochs import Epochs
from funcnet.feed import InMemory
from funcnet.inputs import fit_preprocess, training_arrays
from funcnet.model import Model
from funcnet.program import as_numbers, as_program, classes_of
from funcnet.signature import complete
from funcnet.sklearn.parameters import callbacks_of, is_adaptive
from funcnet.sklearn.plans import net_of, optimizer_of
from funcnet.step import TrainState, hold, init_train_state, release
from funcnet.sweeps.sweep import sweep
from funcnet.targets import Targets, fit_targets
from funcnet.train import FitOptions, fit, is_over
from funcnet.tree import FrozenDict, LossFn, Tree, structure_of

SCORES = {"classification": "val_accuracy", "multilabel": "val_accuracy", "regression": "val_r2"}
LEAST_RATE = 1e-6  # below which "adaptive" divides no more


class Course:
    """How a training goes, and when it is over by scikit-learn's rule.

    An epoch is no better if its loss is above the least one less tol; or, by scores, its score is
    below the best one and tol. The training is over when more than n_iter_no_change epochs in a
    row were no better.

    Attributes:
      losses, scores: of each epoch; scores are () without validation.
      best_loss, best_score: the least, the largest.
      best: params and state of the epoch of the best score.
      idle: how many epochs in a row were no better.
      epochs: how many there were.
      over: whether it is.
      ended: whether somebody ended it, a callback or Ctrl-C.
    """

    def __init__(self, given: Mapping[str, Any], before: "Course | None" = None) -> None:
        self.tol, self.limit = float(given["tol"]), given["n_iter_no_change"]
        self.by_score, self.verbose = given["early_stopping"], given["verbose"]
        self.losses: list[float] = [] if before is None else list(before.losses)
        self.scores: list[float] = [] if before is None else list(before.scores)
        self.best_loss = min(self.losses, default=np.inf)
        self.best_score = max(self.scores, default=-np.inf)
        self.best: tuple[Tree, Tree] | None = None
        self.idle: int = 0 if before is None else before.idle
        self.epochs, self.over, self.ended = 0, False, False

    def add(self, loss: float, score: float | None, model: tuple[Tree, Tree] | None = None) -> bool:
        """Note an epoch, of which model is (params, state); whether the training is over."""
        self.epochs += 1
        self.losses.append(loss)
        if score is not None:
            self.scores.append(score)
        if self.by_score and score is not None:
            worse = score < self.best_score + self.tol
        else:
            worse = loss > self.best_loss - self.tol
        self.idle = self.idle + 1 if worse else 0
        self.best_loss = min(self.best_loss, loss)
        if score is not None and score > self.best_score:
            self.best_score, self.best = score, model
        if self.verbose:
            shown = "" if score is None else f", validation score = {score:.6f}"
            print(f"Iteration {self.epochs}, loss = {loss:.8f}{shown}")
        self.over = self.idle > self.limit
        return self.over


class Trained(NamedTuple):
    """What a training gives.

    Attributes:
      models: the nets, arrays of NumPy.
      course: the Course.
      last: of one net what the optimizer goes on from, see `state_of`.
    """

    models: tuple[Model, ...]
    course: Course
    last: "Last | None"


class Last(NamedTuple):
    """What a run goes on from beside its model: plain arrays and numbers."""

    opt_state: Tree
    key: np.ndarray  # of the run
    step: int
    epoch: int


def state_of(model: Model, last: Last, optimizer: Any, *, anew: bool) -> TrainState:
    """The state that training goes on from; the optimizer anew, or if it is another one."""
    opt_state = optimizer.init(model.params)
    if not anew and structure_of(opt_state) == structure_of(last.opt_state):
        opt_state = last.opt_state
    counts = jnp.int32(last.step), jnp.int32(last.epoch)
    key = jax.random.wrap_key_data(jnp.asarray(last.key))
    return TrainState(model.params, model.state, opt_state, key, *counts)


def _last_of(state: TrainState) -> Last:
    key = np.asarray(jax.random.key_data(state.key))
    return Last(_on_host(state.opt_state), key, int(state.step), int(state.epoch))


def _on_host(tree: Tree) -> Tree:
    return jax.tree.map(np.asarray, tree)


def _model(model: Model, params: Tree, state: Tree) -> Model:
    """A model with these parameters and this state, in arrays of NumPy."""
    parts = model.net, _on_host(params), _on_host(state), _on_host(model.preprocess)
    return Model(*parts, encoding=model.encoding, targets=model.targets)


def in_units_of(model: Model, targets: Targets) -> Model:
    """The same function, whose scores are in the units of other targets of regression.

    A prediction is mean + scale * score, so the last layer, w and b, becomes

        w' = w scale / scale',   b' = (b scale + mean - mean') / scale'

    or b' = b + log(scale / scale') where scores are logarithms, of means 0.
    """
    old = model.targets
    if (old.mean, old.scale) == (targets.mean, targets.scale):
        return model
    repeats = max(1, len(old.quantiles))
    means, scales = (
        [np.repeat(np.array(getattr(each, name)), repeats) for each in (old, targets)]
        for name in ("mean", "scale")
    )
    last = f"affine{sum(name.startswith('affine') for name in model.params)}"
    w, b = (np.asarray(model.params[last][name], np.float64) for name in ("w", "b"))
    ratio = scales[0] / scales[1]
    if old.link == "log":
        b = b + np.log(ratio)
    else:
        w, b = w * ratio, b * ratio + (means[0] - means[1]) / scales[1]
    dtype = model.params[last]["w"].dtype
    held = {"w": w.astype(dtype), "b": b.astype(dtype)}
    params = FrozenDict.shallow({**model.params, last: FrozenDict.shallow(held)})
    return replace(model, params=params, targets=targets)


def targets_of(dataset: Dataset, loss_fn: LossFn, before: Model) -> Targets:
    """The Targets of data to go on with.

    Raises:
      ValueError: the loss wants other scores than those that the model gives.
    """
    targets, old = fit_targets(dataset, loss_fn), before.targets
    if (targets.link, targets.quantiles) != (old.link, old.quantiles):
        raise ValueError("loss is another than the net was trained with: a clone begins anew")
    return targets


def mean_loss(losses: np.ndarray, count: int, batch_size: int) -> float:
    """The mean over the examples of an epoch of the losses of its steps."""
    sizes = np.full(len(losses), batch_size)
    sizes[-1] = count - batch_size * (len(losses) - 1)
    return float(np.average(losses, weights=sizes))


def run(
    given: Mapping[str, Any],
    net_options: Mapping[str, Any],
    dataset: Dataset,
    options: Mapping[str, Any],
    *,
    seed: int,
    start: tuple[Model, Last] | None,
    before: Course | None,
) -> Trained:
    """Train one net by `fit`.

    Args:
      given: the parameters of the estimator.
      net_options: of `net_of`.
      dataset: the Dataset.
      options: of `fit`, batch_size among them.
      seed: of a new run.
      start: what to go on with.
      before: how that went.
    """
    course, net, batch_size = Course(given, before), net_of(net_options), options["batch_size"]
    count, callbacks = len(dataset.x_train), callbacks_of(given["callbacks"])
    looks, name = len(dataset.x_val) > 0, SCORES[dataset.task]

    def watch(epoch: int, train_state: TrainState, metrics: dict[str, Any]) -> bool:
        if not len(metrics["losses"]):  # before the first epoch
            return False
        loss = mean_loss(metrics["losses"], count, batch_size)
        parts = train_state.params, train_state.state
        course.add(loss, metrics[name] if looks else None, parts)
        ends = [is_over(callback, epoch, train_state, metrics) for callback in callbacks]
        course.ended = any(ends)
        return course.over or course.ended

    rate, state = float(given["learning_rate_init"]), None
    optimizer = optimizer_of(given, rate, batch_size, count)
    if start is not None:
        model, last = start
        options = {**options, "preprocess": model.preprocess}
        targets = targets_of(dataset, options["loss_fn"], model)
        if dataset.task == "regression":
            model = in_units_of(model, targets)
        state = state_of(model, last, optimizer, anew=True)
        course.best = (model.params, model.state) if course.scores else None
    while True:
        begun: dict[str, Any] = {"train_state": state}
        if state is None:
            begun = {"key": jax.random.key(seed)}
        first = 0 if state is None else int(state.epoch)
        result = fit(
            net,
            optimizer,
            dataset,
            epochs=first + given["max_iter"] - course.epochs,
            eval_every=1 if looks else None,
            callback=watch,
            **begun,
            **options,
        )
        state, model = result.state, result.model
        if result.interrupted:
            course.ended = True
            warnings.warn("the training was interrupted: it ends with what it has", stacklevel=2)
        left = course.epochs < given["max_iter"] and not course.ended
        if not (left and is_adaptive(given) and rate > LEAST_RATE):
            break
        rate, course.idle, course.over = rate / 5, 0, False
        optimizer = optimizer_of(given, rate, batch_size, count)
    if given["early_stopping"] and course.best is not None:
        state = state._replace(params=course.best[0], state=course.best[1])
    course.best = None
    return Trained((_model(model, state.params, state.state),), course, _last_of(state))


def run_ensemble(
    given: Mapping[str, Any],
    net_options: Mapping[str, Any],
    dataset: Dataset,
    options: Mapping[str, Any],
    *,
    seeds: Sequence[int],
) -> Trained:
    """Train a net for each seed by `sweep`, side by side; arguments as for `run`."""
    course, net, batch_size = Course(given), net_of(net_options), options["batch_size"]
    count, looks = len(dataset.x_train), len(dataset.x_val) > 0
    optimizer = optimizer_of(given, float(given["learning_rate_init"]), batch_size, count)
    steps, name = -(-count // batch_size), SCORES[dataset.task]

    def watch(done: int, total: int, members: Callable[[], Sequence[Any]]) -> bool:
        losses = [member.history.loss[-steps:] for member in members()]
        scores = [member.history.rows()[name][-1] for member in members()] if looks else []
        loss = float(np.mean([mean_loss(each, count, batch_size) for each in losses]))
        return course.add(loss, float(np.mean(scores)) if looks else None)

    result = sweep(
        lambda: (net, optimizer),
        dataset,
        [{"seed": seed} for seed in seeds],
        epochs=given["max_iter"],
        eval_every=1 if looks else None,
        chunk_size=len(seeds),
        monitor=name if looks else None,
        callback=watch,
        **options,
    )
    if result.interrupted and not course.over:
        course.ended = True
        warnings.warn("the training was interrupted: it ends with what it has", stacklevel=2)
    models = []
    for number, member in enumerate(result.members, start=1):
        if member.model is None or not np.isfinite(member.history.loss).all():
            raise FloatingPointError(
                f"net {number} of n_ensemble has a loss that is not finite, or none: lower "
                "learning_rate_init"
            )
        best = member.best if given["early_stopping"] and member.best is not None else member.model
        models.append(_model(member.model, best.params, best.state))
    return Trained(tuple(models), course, None)


def run_epoch(
    given: Mapping[str, Any],
    net_options: Mapping[str, Any],
    dataset: Dataset,
    options: Mapping[str, Any],
    *,
    seed: int,
    start: tuple[Model, Last] | None,
    before: Course | None,
) -> Trained:
    """Train one net by one epoch over a part of the data; arguments as for `run`.

    Preprocessing and units of targets are those of the first part.
    """
    course, net, batch_size = Course(given, before), net_of(net_options), options["batch_size"]
    count = len(dataset.x_train)
    rate = float(given["learning_rate_init"])
    optimizer = optimizer_of(given, rate, batch_size, count)
    own = {name: value for name, value in options.items() if name != "batch_size"}
    step_options = complete(FitOptions, own, "fit")
    program = as_program(net, optimizer, step_options, dataset.task)
    numbers = as_numbers(step_options, classes_of(dataset))
    if start is None:
        fitted = fit_preprocess(options["preprocess"], dataset.x_train)
        targets = fit_targets(dataset, program.loss_fn)
        in_shape = jax.eval_shape(fitted, dataset.x_train[:1]).shape[1:]
        state = init_train_state(net, optimizer, in_shape, key=jax.random.key(seed))
    else:
        targets_of(dataset, program.loss_fn, start[0])  # which it must fit
        fitted, targets = start[0].preprocess, start[0].targets
        state = state_of(*start, optimizer, anew=False)
    data, epoch = training_arrays(dataset, fitted, targets, augments=False), int(state.epoch)
    held = hold(state, program=program)
    feed = InMemory(state.key, data, numbers, batch_size=batch_size)
    (reached,) = Epochs(feed, program=program, held=held).train(held, epoch)
    held, losses = reached.held, reached.losses
    loss = mean_loss(losses, count, batch_size)
    state = release(held, state.key, epoch + 1)
    if not all(np.isfinite(leaf).all() for leaf in (loss, *jax.tree.leaves(state.params))):
        raise FloatingPointError("the loss of this part is not finite: lower learning_rate_init")
    course.add(loss, None)
    parts = net, state.params, state.state, fitted
    model = Model(*parts, encoding=dataset.encoding, targets=targets)
    return Trained((_model(model, state.params, state.state),), course, _last_of(state))
