"""What is compiled into a training step, and the numbers that it is given: checked options."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.augment import Augmentation, in_turn
from funcnet.datasets import Dataset
from funcnet.datasets.dataset import TASKS
from funcnet.datasets.disk import counts_of
from funcnet.layer import Layer
from funcnet.losses import LABEL_SMOOTHING, REG, as_loss, is_zero
from funcnet.objective import as_input
from funcnet.optimizer import Optimizer, as_optimizer
from funcnet.parallel import Spread
from funcnet.preprocess import Preprocess
from funcnet.targets import check_loss, usual_loss
from funcnet.tree import LossFn, Tree
from funcnet.weights import balanced, class_weights
from funcnet.wrappers import with_average

MIXUP_ALPHA = checks.NON_NEGATIVE  # 0 is no mixup
BATCH_SIZE = checks.COUNT


class StepOptions(TypedDict, total=False):
    """Options of a training step, with their defaults; `fit` says what they are."""

    reg: Annotated[Any, 0.0]
    loss_fn: Annotated[LossFn | None, None]
    class_weight: Annotated[Any, None]
    augment: Annotated[Augmentation | Sequence[Augmentation] | None, None]
    label_smoothing: Annotated[Any, 0.0]
    mixup_alpha: Annotated[Any, 0.0]


class Program(NamedTuple):
    """What is compiled into a step.

    task is that of the targets; averages says that the optimizer is one `with_average`; skips that
    updates which are not finite are left out; spread over which devices, None is one as ever.
    """

    net: Layer
    optimizer: Optimizer
    loss_fn: LossFn
    augment: Augmentation | None
    averages: bool
    skips: bool = False
    task: str = "classification"
    spread: Spread | None = None


class Numbers(NamedTuple):
    """The options that a compiled step is given, numbers that may change; None is 0, without.

    class_weight are [C] weights; None is 1 each.
    """

    reg: Any
    label_smoothing: Any
    mixup_alpha: Any
    class_weight: Any = None


RANGES = {"reg": REG, "label_smoothing": LABEL_SMOOTHING, "mixup_alpha": MIXUP_ALPHA}


class Classes(NamedTuple):
    """What weights of classes go by.

    Attributes:
      names: what they are called.
      counts: [C], how many examples to train each has, by their weights; may be traced.
    """

    names: tuple[str, ...]
    counts: Any


def classes_of(dataset: Dataset) -> Classes:
    """The Classes of a checked Dataset; of other tasks none."""
    if dataset.task != "classification":
        return Classes((), np.zeros(0))
    names, y = dataset.class_names, dataset.y_train
    return Classes(names, counts_of(y, len(names), dataset.weight_train).astype(np.float64))


def as_program(
    net: Layer, optimizer: Any, options: Mapping[str, Any], task: str = TASKS[0]
) -> Program:
    """The Program of checked parts; options are those of `StepOptions`, or of `fit`."""
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a Layer, such as mlp([100], 10), got {net!r}")
    optimizer = as_optimizer(optimizer)
    loss_fn = usual_loss(task) if options["loss_fn"] is None else as_loss(options["loss_fn"])
    check_loss(loss_fn, task)
    if task == "regression" and not is_zero(options["label_smoothing"]):
        raise ValueError("label_smoothing is for labels, not for regression")
    if task != "classification" and options["class_weight"] is not None:
        raise ValueError(
            f"class_weight is for classes, and the task is {task}: give weights of examples instead"
        )
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
    return Program(net, optimizer, loss_fn, augment, average_decay is not None, skips, task)


def as_numbers(options: Mapping[str, Any], classes: Classes | None = None) -> Numbers:
    """The Numbers among checked options; weights of classes by name need Classes."""
    for name, limits in RANGES.items():
        limits.check(name, options[name])

    def number(name: str) -> jax.Array | None:
        return None if is_zero(options[name]) else jnp.asarray(options[name], float)

    weight = options["class_weight"]
    if classes is not None and isinstance(weight, str) and weight == "balanced":
        weight = balanced(classes.counts)
    elif classes is not None and weight is not None:
        weight = class_weights(np.arange(len(classes.names)), weight, classes.names)
    of_classes = None if weight is None else jnp.asarray(weight, float)
    return Numbers(
        number("reg"), number("label_smoothing"), number("mixup_alpha"), class_weight=of_classes
    )


def num_scores(net: Layer, params: Tree, state: Tree, preprocess: Preprocess, x: Any) -> int:
    """How many scores a network gives to each example of x, raw inputs."""

    def scores(params: Tree, state: Tree, preprocess: Preprocess, x: Any) -> jax.Array:
        inputs = as_input(preprocess(x), params)
        return net.forward(params, state, inputs, key=None, train=False)[0]

    return jax.eval_shape(scores, params, state, preprocess, x[:1]).shape[-1]


def check_batch_size(batch_size: Any, dataset: Dataset) -> int:
    """The batch size, if there are so many training examples."""
    batch_size = BATCH_SIZE.check("batch_size", batch_size)
    if batch_size > len(dataset.x_train):
        raise ValueError(
            f"batch_size is {batch_size}, but there are only "
            f"{checks.plural(len(dataset.x_train), 'training example')}"
        )
    return batch_size
