"""Experiments as data: what the options of `funcnet train` say, and named sets of them.

A configuration is a dict of options, by the names that the command line has for them with
"_" for "-"; `DEFAULTS` are the options that are not given. A recipe is a configuration with a
name, in recipes.toml. `experiment` makes of a configuration what `fit` takes.
"""

import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import _check, augment, preprocess, schedules
from funcnet.datasets import Dataset
from funcnet.losses import LOSSES, is_zero
from funcnet.net import ACTIVATIONS, DIM, NORMALIZATIONS, SCALES, Layer, mlp
from funcnet.optim import OPTIMIZERS, Optimizer, clip_by_global_norm
from funcnet.step import fit_preprocess

BATCH_SIZE = 50  # unless it is given, or the data are fewer
SCHEDULES = ("constant", "exponential", "step", "cosine", "one_cycle")
MATMUL_DTYPES = ("float32", "bfloat16", "float16")


class Step(NamedTuple):
    """A step of preprocessing or augmentation that options name: NAME, or NAME=VALUE.

    Attributes:
      function: what it does.
      argument: the keyword that VALUE is for; None takes no value.
      kind: int or float.
    """

    function: Callable[..., Any]
    argument: str | None = None
    kind: type = int


PREPROCESS = {
    "mean": Step(preprocess.subtract_mean),
    "none": Step(preprocess.no_preprocess),
    "standardize": Step(preprocess.standardize),
    "contrast": Step(preprocess.normalize_contrast, "epsilon", float),
    "whiten": Step(preprocess.whiten, "dim"),
    "shuffle": Step(preprocess.shuffle_features, "seed"),
}
AUGMENT = {
    "flip": Step(augment.random_flip),
    "shift": Step(augment.random_shift, "max_shift"),
    "crop": Step(augment.random_resized_crop, "min_area", float),
    "cutout": Step(augment.cutout, "size"),
}
HYPER_PARAMETERS = ("momentum", "decay_rate", "beta1", "beta2", "epsilon", "weight_decay")
DEFAULTS: dict[str, Any] = {
    # data
    "dataset": "digits",
    "data_dir": None,
    "label": None,
    "val_fraction": None,
    "test_fraction": None,
    "num_train": None,
    "preprocess": ["mean"],
    "augment": [],
    # network
    "hidden": [256, 256],
    "normalization": "none",
    "activation": "relu",
    "keep_prob": None,
    "input_keep_prob": None,
    "weight_scale": 2e-2,
    "matmul_dtype": "float32",
    "seed": 0,
    # loss
    "loss": "softmax",
    "reg": 0.0,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    # training
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": None,
    "learning_rate_decay": None,
    "decay_every": 1,
    "warmup": None,
    **dict.fromkeys(HYPER_PARAMETERS),
    "clip_norm": None,
    "average_decay": None,
    "epochs": 20,
    "batch_size": None,
    "eval_every": 1,
    "tta": False,
}


class Recipe(NamedTuple):
    """A named configuration.

    Attributes:
      name: its name.
      about: what it is.
      cost: what it costs, in time and on what.
      reaches: what it reaches.
      options: the options that differ from `DEFAULTS`.
    """

    name: str
    about: str
    cost: str
    reaches: str
    options: dict[str, Any]


class Experiment(NamedTuple):
    """What `fit` takes: `fit(net, optimizer, dataset, **options)`.

    Attributes:
      net: the network.
      optimizer: the optimizer.
      dataset: the Dataset, with as many training examples as the configuration wants.
      options: the keyword arguments of `fit`.
    """

    net: Layer
    optimizer: Optimizer
    dataset: Dataset
    options: dict[str, Any]


def list_recipes() -> dict[str, Recipe]:
    """The recipes, by name."""
    return {
        name: Recipe(name, table["about"], table["cost"], table["reaches"], _copy(table["options"]))
        for name, table in _recipes().items()
    }


def load_recipe(name: str, **changes: Any) -> dict[str, Any]:
    """The whole configuration of a recipe.

        config = load_recipe("cifar10-cpu", epochs=20)
        net, optimizer, dataset, options = experiment(config, load_cifar10())
        result = fit(net, optimizer, dataset, **options)

    Args:
      name: the recipe.
      changes: options in place of those of the recipe.
    Returns:
      A dict of all options.
    Raises:
      ValueError: there is no such recipe or option; it names the nearest one.
    """
    options = _check.choose("recipe", name, list_recipes()).options
    for option in changes:
        if option not in DEFAULTS:
            raise ValueError(_check.unknown("option", option, DEFAULTS))
    return {**_copy(DEFAULTS), **options, **changes}


def experiment(config: Mapping[str, Any], dataset: Dataset) -> Experiment:
    """The network, the optimizer and the options of `fit` that a configuration describes.

    Args:
      config: a configuration; what is missing is as in `DEFAULTS`.
      dataset: the Dataset, whole: the preprocessing is fitted to all of its training examples.
    Returns:
      An Experiment.
    Raises:
      ValueError, TypeError: an option is wrong; it is named as on the command line.
    """
    config = {**DEFAULTS, **config}
    inputs = dataset.x_train
    dataset = first(dataset, config["num_train"], "--num-train")
    net, optimizer, options = build(config, dataset)
    fitted = fit_preprocess(build_preprocess(config), inputs)  # last: it may take a minute
    return Experiment(
        net,
        optimizer,
        dataset,
        {
            **options,
            "key": jax.random.key(config["seed"]),
            "epochs": config["epochs"],
            "preprocess": fitted,
            "eval_every": config["eval_every"] or None,
        },
    )


def build(config: Mapping[str, Any], dataset: Dataset) -> tuple[Layer, Optimizer, dict[str, Any]]:
    """What an experiment of `sweep` returns: net, optimizer and options of `fit`.

    Args:
      config: a configuration; its numbers may be traced.
      dataset: the Dataset that is trained on.
    """
    config = {**DEFAULTS, **config}
    check_config(config)
    count, batch_size = len(dataset.x_train), config["batch_size"]
    if batch_size is None:
        batch_size = min(BATCH_SIZE, count)
    net = build_net(config, len(dataset.class_names))
    optimizer = build_optimizer(config, math.ceil(count / batch_size))
    options = {
        "batch_size": batch_size,
        "reg": config["reg"],
        "loss_fn": LOSSES[config["loss"]],
        "augment": build_augment(config),
        "label_smoothing": config["label_smoothing"],
        "mixup_alpha": config["mixup"],
        "average_decay": config["average_decay"],
    }
    return net, optimizer, options


def check_config(config: Mapping[str, Any]) -> None:
    """Check the numbers of a configuration, by the names of their options."""
    for name, at_least in (("epochs", 1), ("eval_every", 0), ("decay_every", 1)):
        _check.Count(at_least=at_least).check(option(name), config[name])
    _check.Count(at_least=0, at_most=2**32 - 1).check("--seed", config["seed"])
    if config["batch_size"] is not None:
        _check.COUNT.check("--batch-size", config["batch_size"])
    for name in ("hidden", "preprocess", "augment"):
        if not isinstance(config[name], (list, tuple)):
            raise TypeError(f"{option(name)} must be a list, got {config[name]!r}")
    for dim in config["hidden"]:
        DIM.check("every size in --hidden", dim)
    if config["weight_scale"] is not None and not isinstance(config["weight_scale"], str):
        _check.NON_NEGATIVE.check("--weight-scale", config["weight_scale"])
    _check.NON_NEGATIVE.check("--reg", config["reg"])
    _check.FRACTION.check("--label-smoothing", config["label_smoothing"])
    _check.NON_NEGATIVE.check("--mixup", config["mixup"])
    _check.POSITIVE.check("--learning-rate", config["learning_rate"])
    for name, limits in (
        ("keep_prob", {"above": 0, "at_most": 1}),
        ("input_keep_prob", {"above": 0, "at_most": 1}),
        ("learning_rate_decay", {"above": 0}),
        ("warmup", {"at_least": 0, "at_most": 1}),
        ("clip_norm", {"above": 0}),
        ("average_decay", {"at_least": 0, "below": 1}),
    ):
        if config[name] is not None:
            _check.Range(**limits).check(option(name), config[name])
    for name, known in NAMED.items():
        _check.choose(name.replace("_", " "), config[name], dict.fromkeys(known))
    if config["schedule"] is not None:
        _check.choose("schedule", config["schedule"], dict.fromkeys(SCHEDULES))
    for name, steps in (("preprocess", PREPROCESS), ("augment", AUGMENT)):
        for text in config[name]:
            parse_step(option(name), text, steps)
    if config["decay_every"] != 1 and config["schedule"] != "step":
        raise ValueError("--decay-every is for the schedule step")
    soft = not (is_zero(config["label_smoothing"]) and is_zero(config["mixup"]))
    if config["loss"] != "softmax" and soft:
        raise ValueError("--label-smoothing and --mixup are for the softmax loss")
    if config["dataset"] != "cifar10" and config["data_dir"] is not None:
        raise ValueError(f"--data-dir is for cifar10, not for {config['dataset']}")


def build_net(config: Mapping[str, Any], num_classes: int) -> Layer:
    """The network of a configuration."""
    config = {**DEFAULTS, **config}
    normalization, matmul_dtype = config["normalization"], config["matmul_dtype"]
    return mlp(
        config["hidden"],
        num_classes,
        normalization=None if normalization == "none" else normalization,
        keep_prob=config["keep_prob"],
        activation=config["activation"],
        weight_scale=config["weight_scale"],
        input_keep_prob=config["input_keep_prob"],
        matmul_dtype=None if matmul_dtype == "float32" else jnp.dtype(matmul_dtype),
    )


def build_optimizer(config: Mapping[str, Any], steps_per_epoch: int) -> Optimizer:
    """The optimizer of a configuration, with its schedule.

    Weight decay is for the weights, the leaves named w; muon leaves the last layer to Adam.
    """
    config = {**DEFAULTS, **config}
    make = OPTIMIZERS[config["optimizer"]]
    takes = inspect.signature(make).parameters
    given = {name: config[name] for name in HYPER_PARAMETERS if config[name] is not None}
    none = _check.concrete(config["weight_decay"]) and config["weight_decay"] == 0
    if none and "weight_decay" not in takes:
        del given["weight_decay"]  # none is what the others have, and how a recipe's is undone
    for name in given:
        if name not in takes:
            users = [o for o, f in OPTIMIZERS.items() if name in inspect.signature(f).parameters]
            raise ValueError(
                f"{option(name)} is for {' and '.join(users)}, not for {config['optimizer']}"
            )
    if "decay_names" in takes:
        given["decay_names"] = ("w",)
    if "adam_names" in takes:
        given["adam_names"] = (f"affine{len(config['hidden']) + 1}",)
    optimizer = make(build_schedule(config, steps_per_epoch), **given)
    if config["clip_norm"] is not None:
        optimizer = clip_by_global_norm(optimizer, config["clip_norm"])
    return optimizer


def build_schedule(config: Mapping[str, Any], steps_per_epoch: int) -> Any:
    """The learning rate of a configuration: a number or a schedule."""
    rate, decay, warm = (config[k] for k in ("learning_rate", "learning_rate_decay", "warmup"))
    name = config["schedule"]
    if name is None:
        name = "constant" if decay is None else "exponential"
    if (decay is None) == (name in ("exponential", "step")):
        raise ValueError(
            f"--schedule {name} needs --learning-rate-decay"
            if decay is None
            else f"--learning-rate-decay is for the schedules exponential and step, not for {name}"
        )
    total = config["epochs"] * steps_per_epoch
    if name == "one_cycle":
        return schedules.one_cycle(rate, total, warmup_fraction=0.2 if warm is None else warm)
    schedule = {
        "constant": lambda: rate,
        "exponential": lambda: schedules.exponential_decay(rate, decay, steps_per_epoch),
        "step": lambda: schedules.step_decay(rate, decay, config["decay_every"] * steps_per_epoch),
        "cosine": lambda: schedules.cosine_decay(rate, total),
    }[name]()
    return schedules.warmup(schedule, math.ceil(warm * total)) if warm else schedule


def build_preprocess(config: Mapping[str, Any]) -> Callable[[Any], preprocess.Preprocess]:
    """The preprocessing of a configuration, to be fitted."""
    steps = [parse_step("--preprocess", text, PREPROCESS) for text in config["preprocess"]]
    return preprocess.chain(*steps)


def build_augment(config: Mapping[str, Any]) -> tuple[augment.Augmentation, ...] | None:
    """The augmentation of a configuration."""
    steps = tuple(parse_step("--augment", text, AUGMENT) for text in config["augment"])
    return steps or None


@cache  # the same function for the same text, so that nothing compiles again
def _step(table: str, text: str) -> Callable[..., Any]:
    name, _, value = text.partition("=")
    step = {"--preprocess": PREPROCESS, "--augment": AUGMENT}[table][name]
    given = {step.argument: step.kind(value)} if step.argument and value else {}
    function = partial(step.function, **given)

    def named(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ValueError as error:
            raise ValueError(f"{table} {text}: {error}") from None

    return named


def parse_step(name: str, text: str, table: Mapping[str, Step]) -> Callable[..., Any]:
    """The function of a step such as "flip" or "shift=4".

    Raises:
      ValueError: there is no such step, or its value is none.
    """
    kind, equals, value = text.partition("=")
    step = _check.choose(f"step of {name}", kind, table)
    if equals:
        if step.argument is None:
            raise ValueError(f"{name} {kind} takes no value, got {text!r}")
        try:
            step.kind(value)
        except ValueError:
            what = "an integer" if step.kind is int else "a number"
            raise ValueError(f"{name} {kind}=VALUE needs {what}, got {text!r}") from None
    return _step(name, text)


def first(dataset: Dataset, count: int | None, name: str) -> Dataset:
    """The dataset with its first `count` training examples, as option `name` says; None is all."""
    if count is None:
        return dataset
    _check.COUNT.check(name, count)
    if count > len(dataset.x_train):
        raise ValueError(
            f"{name} is {count}, but there are only "
            f"{_check.plural(len(dataset.x_train), 'training example')}"
        )
    return dataset._replace(x_train=dataset.x_train[:count], y_train=dataset.y_train[:count])


def option(name: str) -> str:
    """How the command line writes an option."""
    return f"--{name.replace('_', '-')}"


NAMED: dict[str, Sequence[str]] = {
    "loss": tuple(LOSSES),
    "optimizer": tuple(OPTIMIZERS),
    "normalization": ("none", *NORMALIZATIONS),
    "activation": tuple(ACTIVATIONS),
    "matmul_dtype": MATMUL_DTYPES,
}
WEIGHT_SCALES = tuple(SCALES)


@cache
def _recipes() -> dict[str, Any]:
    text = resources.files("funcnet").joinpath("recipes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value
