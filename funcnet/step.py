"""The training step and the epoch, pure functions, and the check before they are compiled."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, transposed
from funcnet.augment import mixup
from funcnet.datasets import Dataset
from funcnet.datasets.disk import in_parts
from funcnet.inputs import (
    stats_on_device,
)
from funcnet.layer import Layer
from funcnet.losses import (
    smooth_binary_labels,
    smooth_labels,
    softmax_loss,
)
from funcnet.net import matrices
from funcnet.objective import as_input, loss_and_grads
from funcnet.optimizer import Optimizer, apply_updates
from funcnet.preprocess import Preprocess, no_preprocess
from funcnet.program import (
    Numbers,
    Program,
    StepOptions,
    as_numbers,
    as_program,
    num_scores,
)
from funcnet.shards import BATCH_AXIS, is_sharded
from funcnet.signature import complete, takes
from funcnet.targets import Targets, is_known, outputs_of, task_of_loss
from funcnet.tree import LossFn, Tree, structure_of
from funcnet.wrappers import averaged_params, moves_transposes

__all__ = ["TrainState", "init_train_state", "make_train_step"]


class TrainState(NamedTuple):
    """All that a run is at one moment: with it and the data, the rest of the run is determined.

    Attributes:
      params: the parameters.
      state: the state of the layers.
      opt_state: the state of the optimizer.
      key: the random key of the run; it never changes, the counts are folded into it.
      step: int32, the number of updates done.
      epoch: int32, the number of epochs done.
    Example:
      >>> net, optimizer = fn.mlp([4], 2), fn.sgd(0.1)
      >>> train_state = fn.init_train_state(net, optimizer, (3,), key=jax.random.key(0))
      >>> train_state._fields
      ('params', 'state', 'opt_state', 'key', 'step', 'epoch')
      >>> int(train_state.step), int(train_state.epoch)
      (0, 0)
    """

    params: Tree
    state: Tree
    opt_state: Tree
    key: jax.Array
    step: jax.Array
    epoch: jax.Array


class Held(NamedTuple):
    """The state of a run in its loop: what changes.

    Matrices are held as their transposes where that is faster, see `funcnet.transposed`.
    """

    params: Tree
    state: Tree
    opt_state: Tree
    step: jax.Array


def init_train_state(
    net: Layer, optimizer: Optimizer, in_shape: tuple[int, ...], *, key: jax.Array
) -> TrainState:
    """The state of a run before its first step.

    Args:
      net: the network.
      optimizer: the optimizer.
      in_shape: the shape of one example, `x.shape[1:]`, as preprocessed.
      key: a random key, `jax.random.key(seed)`, for the parameters and for the run.
    Returns:
      A TrainState, its counts 0.
    Raises:
      TypeError: key is no random key.
      ValueError, TypeError: what a layer or the optimizer raises at a shape or at parameters that
        it does not take.
    Example:
      >>> net, optimizer = fn.mlp([4], 2), fn.adam(1e-3)
      >>> train_state = fn.init_train_state(net, optimizer, (3,), key=jax.random.key(0))
      >>> train_state.params
      FrozenDict(26 parameters
        affine1/b  float32[4]
        affine1/w  float32[3, 4]
        affine2/b  float32[2]
        affine2/w  float32[4, 2]
      )
      >>> list(train_state.opt_state)
      ['m', 'step', 'v']
    """
    init_key, run_key = jax.random.split(checks.key(key))
    params, state, _ = net.init(init_key, in_shape)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, state, optimizer.init(params), run_key, zero, zero)


@takes(StepOptions)
def make_train_step(
    net: Layer,
    optimizer: Optimizer,
    *,
    preprocess: Preprocess | None = None,
    **options: Unpack[StepOptions],
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """A jit-compiled training step, a pure function.

    Args:
      net: the network.
      optimizer: the optimizer.
      preprocess: applied to x inside the step; None leaves x as it is.
      reg, augment, label_smoothing, mixup_alpha: as for `fit`.
      loss_fn: as for `fit`; None is `softmax_loss`.
      class_weight: [C] weights; for "balanced" see `class_weights`.
    Returns:
      `train_step(train_state, x, y, sample_weight=None) -> (train_state, metrics)` for a batch x
      [N, ...] and y as the loss takes it; metrics has "loss", the loss of this batch before the
      update.
    Raises:
      ValueError: an option is out of its range, or unknown.
      TypeError: class_weight is a string or a dict, or another argument is of no type above.
    Example:
      >>> net, optimizer = fn.mlp([8], 2), fn.sgd(0.5)
      >>> train_step = fn.make_train_step(net, optimizer)
      >>> train_state = fn.init_train_state(net, optimizer, (2,), key=jax.random.key(0))
      >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]], "f"), np.array([0, 1])
      >>> for _ in range(50):
      ...     train_state, metrics = train_step(train_state, x, y)
      >>> int(train_state.step), bool(metrics["loss"] < 0.1)
      (50, True)
    """
    given = complete(StepOptions, options, "make_train_step")
    if isinstance(given["class_weight"], str | Mapping):
        raise TypeError(
            "class_weight must be [C] weights, which class_weights(y, class_weight) makes of "
            f"{given['class_weight']!r}"
        )
    loss_fn = softmax_loss if given["loss_fn"] is None else given["loss_fn"]
    task = task_of_loss(loss_fn) or "classification"
    program, numbers = as_program(net, optimizer, given, task), as_numbers(given)
    fitted = preprocess or no_preprocess(None)
    in_step = stats_on_device(fitted)

    @jax.jit
    def compiled(
        train_state: TrainState, x: Any, y: Any, weight: Any, left: Preprocess
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        train_state, value = run_step(program, numbers, left, train_state, x, y, weight)
        return train_state, {"loss": value}

    def train_step(
        train_state: TrainState, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        left, weight = in_step, sample_weight
        if weight is not None and checks.concrete(weight):
            weight = checks.weights(weight, num_examples=len(x))
        if program.augment is not None:
            x = checks.narrowed(x, "x", "to be augmented")
        elif checks.is_wide(x):
            x, left = fitted(x), no_preprocess(x)
        return compiled(train_state, x, y, weight, left)

    return train_step


def run_step(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    x: Any,
    y: Any,
    weight: Any = None,
) -> tuple[TrainState, jax.Array]:
    """One update. Returns the state after it and the loss of the batch before it.

    If the program skips, a step with a NaN or an infinity in loss, gradients, updates or the state
    of layers changes nothing but the count of steps, and its loss is NaN if it is not infinite.
    """
    found = gradients(program, numbers, preprocess, train_state, x, y, weight)
    params, state, opt_state, key, step, epoch = train_state
    (params, state, opt_state, step), value = updated(
        program, Held(params, state, opt_state, step), *found
    )
    return TrainState(params, state, opt_state, key, step, epoch), value


def updated(
    program: Program, held: Held, value: jax.Array, grads: Tree, state: Tree
) -> tuple[Held, jax.Array]:
    """`run_step`, of the loss of a batch, its gradients, and the state of layers after it."""
    params, before, opt_state, step = held
    updates, new = program.optimizer.update(grads, opt_state, params)
    after = Held(apply_updates(params, updates), state, new, step + 1)
    if program.skips:
        well = all_finite((value, grads, updates, state))
        parts = (after.params, after.state, after.opt_state), (params, before, opt_state)
        kept = jax.tree.map(lambda new, old: jnp.where(well, new, old), *parts)
        after = after._replace(params=kept[0], state=kept[1], opt_state=kept[2])
        value = jnp.where(well | jnp.isinf(value), value, jnp.nan)
    return after, value


def all_finite(tree: Any) -> jax.Array:
    """Whether all floating point numbers of a tree are finite."""
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    inexact = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in inexact]))


def gradients(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    x: Any,
    y: Any,
    weight: Any = None,
) -> tuple[jax.Array, Tree, Tree]:
    """The loss of a batch, its gradients, and the state of the layers after it.

    Of one shard of a batch it is the same, with random numbers of its own, and pairs for mixup that
    are of one shard.
    """
    params, state, _, key, step, _ = train_state
    _, step_key = jax.random.split(key)
    # Split, not folded: fold_in(key, i) is the i-th of split(key, n), which the layers get.
    batch_key = jax.random.fold_in(step_key, step)
    if is_sharded():
        batch_key = jax.random.fold_in(batch_key, jax.lax.axis_index(BATCH_AXIS))
    layer_key, augment_key, mixup_key = jax.random.split(batch_key, 3)
    if program.augment is not None:
        x = program.augment(augment_key, x)
    inputs, targets = as_input(preprocess(x), params), y
    weight = loss_weight(numbers.class_weight, y, weight)
    if numbers.label_smoothing is not None or numbers.mixup_alpha is not None:
        smoothing = 0.0 if numbers.label_smoothing is None else numbers.label_smoothing
        if program.task == "classification":
            classes = num_scores(program.net, params, state, preprocess, x)
            targets = smooth_labels(y, classes, smoothing)
        elif program.task == "multilabel":
            targets = smooth_binary_labels(y, smoothing)
    if numbers.mixup_alpha is not None:
        inputs, targets, weight = _mixed(mixup_key, inputs, targets, weight, numbers.mixup_alpha)
    return loss_and_grads(
        program.net,
        params,
        state,
        inputs,
        targets,
        reg=0.0 if numbers.reg is None else numbers.reg,
        key=layer_key,
        loss_fn=program.loss_fn,
        sample_weight=weight,
    )


def loss_weight(class_weight: Any, y: Any, weight: Any) -> Any:
    """How much each example counts in the loss, by its class too, [N]; None is 1 each."""
    if class_weight is None:
        return weight
    by_class = jnp.asarray(class_weight)[y]
    return by_class if weight is None else by_class * weight


def _mixed(
    key: jax.Array, inputs: jax.Array, targets: Any, weight: Any, alpha: Any
) -> tuple[jax.Array, jax.Array, Any]:
    """`mixup` where examples have weights: that of a pair is mixed, each has its share in targets.

    So the loss of a mixture, which is linear in the targets, is that of the two, weighted.
    """
    targets = jnp.asarray(targets, inputs.dtype)
    targets = targets.reshape(len(targets), -1)
    if weight is None:
        return *mixup(key, inputs, targets, alpha), None
    column = jnp.asarray(weight, targets.dtype)[:, None]  # [N, 1]
    both = jnp.concatenate([column * targets, column], axis=1)
    inputs, both = mixup(key, inputs, both, alpha)
    column = both[:, -1:]
    none = column <= 0
    return inputs, jnp.where(none, 0, both[:, :-1] / jnp.where(none, 1, column)), column[:, 0]


@partial(jax.jit, static_argnames=("program",))
def hold(train_state: TrainState, *, program: Program) -> Held:
    """The state of a run for `Epochs`."""
    return held_parts(train_state, program)


def held_parts(train_state: TrainState, program: Program) -> Held:
    """`hold`, within a compiled program."""
    params, state, opt_state, _, step, _ = train_state
    on_one_cpu = program.spread is None and jax.default_backend() == "cpu"
    if on_one_cpu and moves_transposes(program.optimizer):
        params, opt_state = transposed.hold(params, opt_state, matrices(program.net))
    return Held(params, state, opt_state, step)


@jax.jit
def release(held: Held, key: Any, epoch: Any) -> TrainState:
    """The TrainState of a run that is held, on one device."""
    params, state, opt_state, step = transposed.release(held)
    return TrainState(params, state, opt_state, key, step, jnp.asarray(epoch, jnp.int32))


class Given(NamedTuple):
    """What the steps of a run are given and do not change; numbers are Numbers, or make them."""

    key: jax.Array
    x: jax.Array
    y: jax.Array
    weight: jax.Array | None
    preprocess: Preprocess
    numbers: Any

    def batch(self, rows: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """The examples of some rows, their targets and their weights."""
        return self.x[rows], self.y[rows], None if self.weight is None else self.weight[rows]


class Batches(Given):
    """What is `Given`, of examples that are in batches already: x [batches, N, ...] and so on."""

    __slots__ = ()

    def batch(self, rows: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """The batch of a number [1]: examples, their targets and their weights."""
        (at,) = rows
        return self.x[at], self.y[at], None if self.weight is None else self.weight[at]


def step_on(held: Held, batch: jax.Array, given: Given, program: Program) -> tuple[Held, jax.Array]:
    """One update on the examples with the numbers in batch [N]; of Batches, on that of a number."""
    params, state, opt_state, count = held
    # The number of epochs is nothing that a step goes by.
    train_state = TrainState(params, state, opt_state, given.key, count, count)
    examples, spread = given.batch(batch), program.spread
    if spread is not None:
        examples = jax.tree.map(spread.rows_apart, examples)
    found = gradients(program, given.numbers, given.preprocess, train_state, *examples)
    held, loss = updated(program, held, *found)
    return held if spread is None else spread.kept(held), loss.astype(float)


def params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    """The parameters to evaluate and keep: the last, or their average."""
    if program.averages:
        return averaged_params(train_state.opt_state, train_state.params)
    return train_state.params


def _check_outputs(outputs: int, dataset: Dataset, loss_fn: LossFn, targets: Targets) -> None:
    """Raise unless a net gives as many scores as the targets want."""
    if dataset.task != "classification":
        wanted = outputs_of(dataset, loss_fn)
        if outputs != wanted and is_known(loss_fn):
            of = len(targets.scale) or wanted
            what = checks.plural(of, "target" if dataset.task == "regression" else "label")
            if targets.quantiles:
                what = f"{checks.plural(len(targets.quantiles), 'quantile')} of {what}"
            raise ValueError(
                f"net gives {checks.plural(outputs, 'score')} to an example, and {dataset.task} of "
                f"{what} wants {wanted}"
            )
        return
    classes = outputs
    # To a loss of one's own labels may be something else.
    alike = all((part == dataset.y_train[0]).all() for (part,) in in_parts(dataset.y_train))
    if classes > 1 and is_known(loss_fn) and alike:
        name = dataset.class_names[dataset.y_train[0]] if dataset.class_names else "0"
        raise ValueError(
            f"all {checks.plural(len(dataset.y_train), 'training example')} are of class {name!r}: "
            "there is nothing to tell apart; training needs examples of two classes or more"
        )
    for name, y in (("y_train", dataset.y_train), ("y_val", dataset.y_val)):
        for (part,) in in_parts(y):
            checks.labels(part, num_examples=len(part), num_classes=classes, name=name)


def check_step(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    dataset: Dataset,
    targets: Targets,
    batch_size: int,
    first: tuple[Any, ...] | None = None,
) -> TrainState:
    """Trace a step, so that whatever does not fit is known before anything is compiled.

    Args:
      program, numbers, preprocess, train_state: as for a step.
      dataset: the Dataset, whose examples these are.
      targets: its Targets.
      batch_size: examples per step.
      first: a batch, of those that are trained on in place of them: x, y and perhaps weights.
    Returns:
      The state, with leaves of half precision that a step widens, such as moments, widened.
    """
    net, (params, state, *_) = program.net, train_state
    outputs = num_scores(net, params, state, preprocess, dataset.x_train)
    _check_outputs(outputs, dataset, program.loss_fn, targets)

    def trace(count: int) -> TrainState:
        if first is not None:
            x, y, *weights = first
            weight = weights[0].astype(np.float32) if weights else None
        else:
            x, y = dataset.x_train[:count], dataset.y_train[:count]
            weight = None if dataset.weight_train is None else np.ones(count, np.float32)
        y = targets.encode(y)
        step = partial(run_step, program, numbers, preprocess)
        return jax.eval_shape(step, train_state, x, y, weight)[0]

    after = trace(batch_size)
    rest = len(dataset.x_train) % batch_size
    if rest == 1 and first is None:
        try:
            trace(rest)
        except ValueError as error:
            raise ValueError(
                f"batches of {batch_size} leave one of the "
                f"{checks.plural(len(dataset.x_train), 'training example')} over: choose "
                f"another batch_size ({error})"
            ) from None

    def widened(leaf: Any, wide: Any) -> Any:
        dtype, to = getattr(leaf, "dtype", None), wide.dtype
        halves = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
        return leaf.astype(to) if halves and jnp.finfo(dtype).bits < 32 and dtype != to else leaf

    if structure_of(train_state) != structure_of(after):
        return train_state  # an optimizer of one's own may change it, and the error says so
    return jax.tree.map(widened, train_state, after)
