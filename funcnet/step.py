"""The training step and the epoch, pure functions, and the checks before they are compiled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, transposed
from funcnet.augment import Augmentation, in_turn, mixup
from funcnet.datasets import Dataset
from funcnet.layer import Layer
from funcnet.loop import (
    FIRST_CHUNK,
    Epoch,
    Orders,
    compiled_steps,
    copy_of,
    in_place,
    make_epoch,
    over_epoch,
    roomy,
    run_steps,
    slices,
)
from funcnet.losses import LABEL_SMOOTHING, LOSSES, REG, is_zero, smooth_labels, softmax_loss
from funcnet.net import as_input, loss_and_grads, matrices
from funcnet.optim import (
    Optimizer,
    apply_updates,
    as_optimizer,
    averaged_params,
    moves_transposes,
    with_average,
)
from funcnet.preprocess import Preprocess, no_preprocess
from funcnet.signature import complete, takes
from funcnet.tree import LossFn, Tree, structure_of

__all__ = ["TrainState", "init_train_state", "make_train_step"]

MIXUP_ALPHA = checks.NON_NEGATIVE  # 0 is no mixup
BATCH_SIZE = checks.COUNT
EVALUATION_BATCH = 1000  # examples per forward pass where nothing is trained


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
    init_key, run_key = jax.random.split(checks.key(key))
    params, state, _ = net.init(init_key, in_shape)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, state, optimizer.init(params), run_key, zero, zero)


class StepOptions(TypedDict, total=False):
    """Options of a training step, with their defaults; `fit` says what they are."""

    reg: Annotated[Any, 0.0]
    loss_fn: Annotated[LossFn, softmax_loss]
    augment: Annotated[Augmentation | Sequence[Augmentation] | None, None]
    label_smoothing: Annotated[Any, 0.0]
    mixup_alpha: Annotated[Any, 0.0]


@takes(StepOptions)
def make_train_step(
    net: Layer,
    optimizer: Optimizer,
    *,
    preprocess: Preprocess | None = None,
    **options: Unpack[StepOptions],
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """A jit-compiled training step, a pure function.

    Args:
      net: the network.
      optimizer: the optimizer.
      preprocess: applied to x inside the step; None leaves x as it is.
      options: reg, loss_fn, augment, label_smoothing and mixup_alpha, as for `fit`.
    Returns:
      `train_step(train_state, x, y) -> (train_state, metrics)` for a batch x [N, ...],
      y [N]; metrics has "loss", the loss of this batch before the update.
    """
    given = complete(StepOptions, options, "make_train_step")
    program, numbers = as_program(net, optimizer, given), as_numbers(given)
    fitted = preprocess or no_preprocess(None)
    in_step = stats_on_device(fitted)

    @jax.jit
    def compiled(
        train_state: TrainState, x: Any, y: Any, left: Preprocess
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        train_state, value = run_step(program, numbers, left, train_state, x, y)
        return train_state, {"loss": value}

    def train_step(
        train_state: TrainState, x: Any, y: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        left = in_step
        if program.augment is not None:
            x = checks.narrowed(x, "x", "to be augmented")
        elif checks.is_wide(x):
            x, left = fitted(x), no_preprocess(x)
        return compiled(train_state, x, y, left)

    return train_step


class Program(NamedTuple):
    """What is compiled into a step.

    averages says that the optimizer is one `with_average`; skips that updates which are not finite
    are left out.
    """

    net: Layer
    optimizer: Optimizer
    loss_fn: LossFn
    augment: Augmentation | None
    averages: bool
    skips: bool = False


class Numbers(NamedTuple):
    """The options that a compiled step is given, numbers that may change; None is 0, without."""

    reg: Any
    label_smoothing: Any
    mixup_alpha: Any


RANGES = Numbers(REG, LABEL_SMOOTHING, MIXUP_ALPHA)


def run_step(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    x: Any,
    y: Any,
) -> tuple[TrainState, jax.Array]:
    """One update. Returns the state after it and the loss of the batch before it.

    If the program skips, a step with a NaN or an infinity in loss, gradients, updates or the state
    of layers changes nothing but the count of steps, and its loss is NaN if it is not infinite.
    """
    value, grads, state = gradients(program, numbers, preprocess, train_state, x, y)
    params, before, opt_state, key, step, epoch = train_state
    updates, new = program.optimizer.update(grads, opt_state, params)
    after = TrainState(apply_updates(params, updates), state, new, key, step + 1, epoch)
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
) -> tuple[jax.Array, Tree, Tree]:
    """The loss of a batch, its gradients, and the state of the layers after it."""
    params, state, _, key, step, _ = train_state
    _, step_key = jax.random.split(key)
    # Split, not folded: fold_in(key, i) is the i-th of split(key, n), which the layers get.
    layer_key, augment_key, mixup_key = jax.random.split(jax.random.fold_in(step_key, step), 3)
    if program.augment is not None:
        x = program.augment(augment_key, x)
    inputs, targets = as_input(preprocess(x), params), y
    if numbers.label_smoothing is not None or numbers.mixup_alpha is not None:
        classes = num_scores(program.net, params, state, preprocess, x)
        smoothing = 0.0 if numbers.label_smoothing is None else numbers.label_smoothing
        targets = smooth_labels(y, classes, smoothing)
    if numbers.mixup_alpha is not None:
        inputs, targets = mixup(mixup_key, inputs, targets, numbers.mixup_alpha)
    return loss_and_grads(
        program.net,
        params,
        state,
        inputs,
        targets,
        reg=0.0 if numbers.reg is None else numbers.reg,
        key=layer_key,
        loss_fn=program.loss_fn,
    )


class Held(NamedTuple):
    """The state of a run in its loop: what changes.

    Matrices are held as their transposes where that is faster, see `funcnet.transposed`.
    """

    params: Tree
    state: Tree
    opt_state: Tree
    step: jax.Array


@partial(jax.jit, static_argnames=("program",))
def hold(train_state: TrainState, *, program: Program) -> Held:
    """The state of a run for `Epochs`."""
    return held_parts(train_state, program)


def held_parts(train_state: TrainState, program: Program) -> Held:
    """`hold`, within a compiled program."""
    params, state, opt_state, _, step, _ = train_state
    if jax.default_backend() == "cpu" and moves_transposes(program.optimizer):
        params, opt_state = transposed.hold(params, opt_state, matrices(program.net))
    return Held(params, state, opt_state, step)


@jax.jit
def release(held: Held, key: jax.Array, epoch: Any) -> TrainState:
    """The TrainState of a run that is held."""
    params, state, opt_state, step = transposed.release(held)
    return TrainState(params, state, opt_state, key, step, jnp.asarray(epoch, jnp.int32))


class Given(NamedTuple):
    """What the steps of a run are given and do not change; numbers are Numbers, or make them."""

    key: jax.Array
    x: jax.Array
    y: jax.Array
    preprocess: Preprocess
    numbers: Any


def step_on(held: Held, batch: jax.Array, given: Given, program: Program) -> tuple[Held, jax.Array]:
    """One update on the examples with the numbers in batch [N]."""
    params, state, opt_state, count = held
    key, x, y, preprocess, numbers = given
    # The number of epochs is nothing that a step goes by.
    train_state = TrainState(params, state, opt_state, key, count, count)
    after, loss = run_step(program, numbers, preprocess, train_state, x[batch], y[batch])
    return Held(after.params, after.state, after.opt_state, after.step), loss.astype(float)


def _steps(
    held: Held,
    losses: jax.Array,
    order: jax.Array,
    first: Any,
    end: Any,
    given: Given,
    *,
    program: Program,
    batch_size: int,
) -> tuple[Held, jax.Array]:
    def step(held: Held, batch: jax.Array) -> tuple[Held, jax.Array]:
        return step_on(held, batch, given, program)

    return run_steps(step, held, losses, order, first, end, batch_size)


_STEPS = compiled_steps(_steps, static_argnames=("program", "batch_size"))
_STEP = compiled_steps(step_on, static_argnames=("program",))


class Epochs:
    """The epochs of a run, each a pass over the training data in chunks of about a second.

    What is held stays what it is, so that whatever ends an epoch loses nothing else.

    Args:
      key: the key of the run.
      data: the training data.
      numbers, program, batch_size: as for a step.
      held: the state before one of them: of large ones steps are done in place, on a copy.
    """

    def __init__(
        self,
        key: jax.Array,
        data: "TrainingArrays",
        numbers: Numbers,
        *,
        program: Program,
        batch_size: int,
        held: Held,
    ) -> None:
        self.given = Given(key, data.x, data.y, data.preprocess, numbers)
        self.program, self.in_place = program, in_place(held)
        self._batch_size, self._size = batch_size, FIRST_CHUNK
        self._orders = Orders(key, data.num_examples)

    def train(self, held: Held, epoch: int) -> tuple[Held, np.ndarray]:
        """The state after an epoch, counted from 0, and the loss of every step [steps]."""
        made = self._made(self._orders.of(epoch))
        held, losses, self._size = over_epoch(
            self._steps, self._step, held, made, self._size, self.in_place
        )
        return held, losses

    def each_step(self, held: Held, epoch: int) -> Iterator[tuple[np.ndarray, Held, np.ndarray]]:
        """An epoch one step at a time, by the same programs: (batch, held, loss) of each."""
        order = self._orders.of(epoch)
        made, size = self._made(order), self._batch_size
        own = copy_of if self.in_place else lambda held: held
        for number in range(made.full):
            chunk = np.int32(number), np.int32(number + 1)
            held, losses = self._steps(own(held), made.losses, made.order, *chunk)
            yield order[number * size : (number + 1) * size], held, np.asarray(losses)[number]
        if made.rest is not None:
            held, loss = self._step(own(held), made.rest)
            yield made.rest, held, np.asarray(loss)

    def _made(self, order: np.ndarray) -> Epoch:
        return make_epoch(order, room=len(self.given.x), batch_size=self._batch_size)

    def _steps(self, *at: Any) -> tuple[Held, jax.Array]:
        run = _STEPS[self.in_place]
        return run(*at, self.given, program=self.program, batch_size=self._batch_size)

    def _step(self, held: Held, batch: Any) -> tuple[Held, jax.Array]:
        return _STEP[self.in_place](held, batch, self.given, program=self.program)


def params_in_use(train_state: TrainState, *, program: Program) -> Tree:
    """The parameters to evaluate and keep: the last, or their average."""
    if program.averages:
        return averaged_params(train_state.opt_state, train_state.params)
    return train_state.params


def fit_preprocess(
    preprocess: Preprocess | Callable[[Any], Preprocess] | None, x_train: Any
) -> Preprocess:
    """The Preprocess that `fit` uses: given, fitted to x_train, or none."""
    if isinstance(preprocess, Preprocess):
        return preprocess
    if preprocess is None:
        preprocess = no_preprocess
    checks.function("preprocess", preprocess)
    fitted = preprocess(x_train)
    if not isinstance(fitted, Preprocess):
        raise TypeError(
            f"preprocess must give a Preprocess, as subtract_mean does, got {type(fitted).__name__}"
        )
    return fitted


@jax.jit
def _preprocess(preprocess: Preprocess, x: jax.Array) -> jax.Array:
    return preprocess(x)


class TrainingArrays(NamedTuple):
    """The training data on the device, and the preprocessing left for a step to do.

    Attributes:
      x, y: the examples and their labels; there may be rows of zeros after the last one.
      num_examples: how many examples there are.
      preprocess: what is left.
    """

    x: jax.Array
    y: jax.Array
    num_examples: int
    preprocess: Preprocess


def training_arrays(dataset: Dataset, preprocess: Preprocess, *, augments: bool) -> TrainingArrays:
    """The training data as an epoch takes them."""
    count = len(dataset.x_train)
    if augments:
        examples = np.asarray(checks.narrowed(dataset.x_train, "x_train", "to be augmented"))
        left = stats_on_device(preprocess)
    else:
        x, left = on_device(dataset.x_train, preprocess)
        if _narrows(left, x):  # once is enough, and takes less memory
            parts = (_preprocess(left, x[b]) for b in slices(count, EVALUATION_BATCH))
            examples, left = np.concatenate(list(map(np.asarray, parts))), no_preprocess(x)
        else:
            examples = np.asarray(x)
    examples = roomy(examples)
    labels = np.zeros(len(examples), dataset.y_train.dtype)
    labels[:count] = dataset.y_train
    return TrainingArrays(jnp.asarray(examples), jnp.asarray(labels), count, left)


def on_device(x: Any, preprocess: Preprocess) -> tuple[Any, Preprocess]:
    """Raw inputs as a compiled program may take them, and the preprocessing left for it to do.

    What the program would round before it is centred is preprocessed now, on the host. Call it once
    for all batches.
    """
    if checks.is_wide(x):
        return preprocess(x), no_preprocess(x)
    return x, stats_on_device(preprocess)


def stats_on_device(preprocess: Preprocess) -> Preprocess:
    """The Preprocess with JAX arrays, which programs that run again and again need not convert."""
    return jax.tree.map(jnp.asarray, preprocess)


def _narrows(preprocess: Preprocess, x: jax.Array) -> bool:
    """Whether preprocessed examples have fewer elements than raw ones."""
    return jax.eval_shape(preprocess, x[:1]).size < x[:1].size


def as_program(net: Layer, optimizer: Any, options: Mapping[str, Any]) -> Program:
    """The Program of checked parts; options are those of `StepOptions`, or of `fit`."""
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a Layer, such as mlp([100], 10), got {net!r}")
    optimizer = as_optimizer(optimizer)
    checks.function("loss_fn", options["loss_fn"])
    augment, average_decay = options["augment"], options.get("average_decay")
    if augment is not None and not callable(augment):
        if isinstance(augment, str) or not isinstance(augment, Sequence):
            raise TypeError(
                f"augment must be a function such as random_flip, or several, got {augment!r}"
            )
        augment = in_turn(augment)
    if average_decay is not None:
        optimizer = with_average(optimizer, average_decay)
    skips = options.get("on_nonfinite") == "skip"
    return Program(net, optimizer, options["loss_fn"], augment, average_decay is not None, skips)


def as_numbers(options: Mapping[str, Any]) -> Numbers:
    """The Numbers among checked options."""
    values = Numbers(*(options[name] for name in Numbers._fields))
    for name, limits, value in zip(Numbers._fields, RANGES, values, strict=True):
        limits.check(name, value)
    return Numbers(*(None if is_zero(value) else jnp.asarray(value, float) for value in values))


def num_scores(net: Layer, params: Tree, state: Tree, preprocess: Preprocess, x: Any) -> int:
    """How many scores a network gives to each example of x, raw inputs."""

    def scores(params: Tree, state: Tree, preprocess: Preprocess, x: Any) -> jax.Array:
        inputs = as_input(preprocess(x), params)
        return net.forward(params, state, inputs, key=None, train=False)[0]

    return jax.eval_shape(scores, params, state, preprocess, x[:1]).shape[-1]


def _check_classes(classes: int, dataset: Dataset, loss_fn: LossFn) -> None:
    # To a loss of one's own labels may be something else.
    if classes > 1 and loss_fn in LOSSES.values() and (dataset.y_train == dataset.y_train[0]).all():
        name = dataset.class_names[dataset.y_train[0]] if dataset.class_names else "0"
        raise ValueError(
            f"all {checks.plural(len(dataset.y_train), 'training example')} are of class {name!r}: "
            "there is nothing to tell apart; training needs examples of two classes or more"
        )
    for name, y in (("y_train", dataset.y_train), ("y_val", dataset.y_val)):
        checks.labels(y, num_examples=len(y), num_classes=classes, name=name)


def check_batch_size(batch_size: Any, dataset: Dataset) -> int:
    """The batch size, if there are so many training examples."""
    batch_size = BATCH_SIZE.check("batch_size", batch_size)
    if batch_size > len(dataset.x_train):
        raise ValueError(
            f"batch_size is {batch_size}, but there are only "
            f"{checks.plural(len(dataset.x_train), 'training example')}"
        )
    return batch_size


def check_step(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    dataset: Dataset,
    batch_size: int,
) -> TrainState:
    """Trace a step, so that whatever does not fit is known before anything is compiled.

    Returns:
      The state, with leaves of half precision that a step widens, such as moments, widened.
    """
    net, (params, state, *_) = program.net, train_state
    classes = num_scores(net, params, state, preprocess, dataset.x_train)
    _check_classes(classes, dataset, program.loss_fn)

    def trace(count: int) -> TrainState:
        x, y = dataset.x_train[:count], dataset.y_train[:count]
        step = partial(run_step, program, numbers, preprocess)
        return jax.eval_shape(step, train_state, x, y)[0]

    after = trace(batch_size)
    rest = len(dataset.x_train) % batch_size
    if rest == 1:
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
