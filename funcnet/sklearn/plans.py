"""What the parameters of an estimator mean for funcnet: net, optimizer, L2, loss, preprocessing."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.bind import bind
from funcnet.datasets import Dataset
from funcnet.layer import Layer
from funcnet.losses import LOSSES, as_loss
from funcnet.net import mlp, serial
from funcnet.optim import OPTIMIZERS, adam, nesterov, sgd, sgd_momentum
from funcnet.optimizer import Optimizer
from funcnet.preprocess import standardize_numbers
from funcnet.sklearn.parameters import SOLVERS
from funcnet.targets import outputs_of, usual_loss
from funcnet.tree import LossFn

NAMES_OF_LOSSES = {"squared_error": "squared", "absolute_error": "absolute", "log_loss": "softmax"}
# What options of the net are called here.
PARAMETER_OF = {
    "hidden_dims": "hidden_layer_sizes",
    "keep_prob": "dropout",
    "num_classes": "outputs",
}
OUT = {"softmax": "softmax", "sigmoid": "logistic", "log": "exp"}  # others are "identity"


def loss_of(given: Mapping[str, Any], task: str) -> LossFn:
    """The loss: a function, or by name, scikit-learn's names among them."""
    loss = given["loss"]
    if not isinstance(loss, str):
        return usual_loss(task) if loss is None else as_loss(loss)
    if loss == "log_loss" and task == "multilabel":
        return usual_loss(task)
    return checks.choose("loss", NAMES_OF_LOSSES.get(loss, loss), LOSSES)


def net_options(given: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What `net_of` makes the net of: plain data, but for layers of one's own.

    Initial weights have the variance of scikit-learn's, 2 / (fan in + fan out); they are normal,
    not uniform, and biases start at 0.
    """
    sizes = given["hidden_layer_sizes"]
    listed = sizes if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    count = checks.Count()
    dims = tuple(count.check("every size in hidden_layer_sizes", size) for size in listed)
    dropout = float(given["dropout"])
    return {
        "hidden_dims": dims,
        "num_classes": outputs_of(dataset, loss_of(given, dataset.task)),
        "normalization": given["normalization"],
        "keep_prob": 1 - dropout if dropout else None,
        "activation": given["activation"],
        "weight_scale": "glorot",
    }


def net_of(options: Mapping[str, Any]) -> Layer:
    """The net of `net_options`; equal ones for equal options."""
    named = {"activation": serial()} if options["activation"] == "identity" else {}
    return mlp(**{**options, **named})


def batch_size_of(given: Mapping[str, Any], count: int) -> int:
    """The examples of a step, of so many."""
    asked = given["batch_size"]
    if asked == "auto":
        return min(200, count)
    if asked > count:
        warnings.warn(
            f"batch_size is {asked}, and there are {checks.plural(count, 'example')} to train: "
            "each step takes all of them",
            stacklevel=2,
        )
    return min(int(asked), count)


def optimizer_of(given: Mapping[str, Any], rate: float, batch_size: int, count: int) -> Optimizer:
    """The optimizer for an epoch of `count` examples; equal ones for equal arguments."""
    name, momentum = given["solver"], float(given["momentum"])
    if name not in SOLVERS:
        own = {"momentum": momentum} if name in ("sgd_momentum", "nesterov") else {}
        return OPTIMIZERS[name](rate, **own)
    if name == "adam":
        return adam(rate, *(float(given[each]) for each in ("beta_1", "beta_2", "epsilon")))
    schedule: Any = rate
    if given["learning_rate"] == "invscaling":
        steps = -(-count // batch_size)
        power = float(given["power_t"])
        schedule = bind(_inverse_scaling, rate=rate, power=power, steps=steps, count=count)
    if not momentum:
        return sgd(schedule)
    make = nesterov if given["nesterovs_momentum"] else sgd_momentum
    return make(schedule, momentum)


def _inverse_scaling(step: Any, *, rate: float, power: float, steps: int, count: int) -> jax.Array:
    """`rate / (1 + t)**power` with t the examples seen before this epoch, as in scikit-learn."""
    seen = jnp.asarray(jnp.asarray(step) // steps, float) * count
    return jnp.asarray(rate, float) * jnp.power(1 + seen, -power)


def options_of(given: Mapping[str, Any], dataset: Dataset, class_weight: Any) -> dict[str, Any]:
    """The options of `fit` and `sweep`, batch_size among them.

    scikit-learn's loss of a batch is the sum over the outputs of the mean over its examples, and
    0.5 * alpha * sum(w**2) / n, for n examples or, where they have weights, the sum of these. Ours
    is 1 / K of that for K targets or labels, over which our losses are means, with

        reg = alpha / (n K),   n = batch_size * the mean of all weights
    """
    batch_size = batch_size_of(given, len(dataset.x_train))
    if not given["shuffle"] and batch_size < len(dataset.x_train):
        raise ValueError(
            "shuffle=False is for batches of all examples: each epoch has an order of its own here"
        )
    weight = np.ones(1) if dataset.weight_train is None else dataset.weight_train
    if class_weight is not None:
        weight = weight * np.array(class_weight)[dataset.y_train]
    if not weight.any():
        raise ValueError("all examples to train have weight zero, by sample_weight or class_weight")
    averaged = 1
    if dataset.task != "classification":
        averaged = dataset.y_train.shape[1] if dataset.y_train.ndim == 2 else 1
    preprocess = given["preprocess"]
    return {
        "batch_size": batch_size,
        "reg": float(given["alpha"]) / (batch_size * float(weight.mean()) * averaged),
        "loss_fn": loss_of(given, dataset.task),
        "class_weight": class_weight,
        "label_smoothing": float(given.get("label_smoothing", 0.0)),
        "mixup_alpha": float(given["mixup_alpha"]),
        "preprocess": standardize_numbers if preprocess == "auto" else preprocess,
    }
