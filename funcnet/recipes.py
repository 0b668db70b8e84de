"""From a Config to an experiment: what `fit` and `sweep` take; and recipes, the named ones.

A recipe is a Config with a name, in recipes.toml. `experiment` makes of a Config what `fit`
takes.
"""

import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet import checks
from funcnet.augment import AUGMENTATIONS, Augmentation
from funcnet.bind import bind
from funcnet.config import OPTIONS, Config, canonical, replaced
from funcnet.datasets import Dataset
from funcnet.datasets.dataset import first
from funcnet.datasets.registry import holds_table, is_table_file
from funcnet.defaults import complete_config, usual_batch_size
from funcnet.embeddings import BINS, pbld, periodic
from funcnet.ensembles import stacked, tabm
from funcnet.inputs import fit_preprocess
from funcnet.layer import Layer
from funcnet.named import function_of, parse_step
from funcnet.net import flatten, mlp, serial
from funcnet.optimizer import Optimizer
from funcnet.piecewise import piecewise_linear
from funcnet.preprocess import PREPROCESSINGS, Preprocess, chain, whiten
from funcnet.rules import class_weight, hyper_parameters, schedule_name
from funcnet.schedules import named_schedule
from funcnet.signature import defaults
from funcnet.stored import as_config
from funcnet.tabular import on_columns
from funcnet.targets import outputs_of
from funcnet.train import FitOptions
from funcnet.tree import LossFn
from funcnet.wrappers import clip_by_global_norm

__all__ = ["Experiment", "Recipe", "experiment", "list_recipes", "load_recipe"]


class Recipe(NamedTuple):
    """A named configuration.

    Attributes:
      name: its name.
      about: what it is.
      cost: what it costs, in time and on what.
      reaches: what it reaches.
      options: the options that differ from those of `Config()`.
    Example:
      >>> recipe = fn.list_recipes()["digits"]
      >>> recipe.name, recipe.options["dataset"]
      ('digits', 'digits')
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
    Example:
      >>> made = fn.experiment({"hidden_dims": [8], "epochs": 1}, fn.load_digits())
      >>> made.net, made.options["epochs"], made.dataset.x_train.shape
      (<layer serial>, 1, (1248, 8, 8))
    """

    net: Layer
    optimizer: Optimizer
    dataset: Dataset
    options: dict[str, Any]


def list_recipes() -> dict[str, Recipe]:
    """The recipes, by name.

    Returns:
      A dict of each name to its Recipe.
    Example:
      >>> recipes = fn.list_recipes()
      >>> "digits" in recipes, recipes["digits"].name
      (True, 'digits')
    """
    return {
        name: Recipe(
            name, table["about"], table["cost"], table["reaches"], _copied(table["options"])
        )
        for name, table in _recipes().items()
    }


def load_recipe(name: str, **changes: Any) -> Config:
    """The whole configuration of a recipe, for `experiment`.

    Args:
      name: the recipe.
      changes: options in place of those of the recipe.
    Returns:
      A Config.
    Raises:
      ValueError: there is no such recipe or option; it names the nearest one.
      ValueError, TypeError: an option is wrong, as for `Config`.
    Example:
      >>> config = fn.load_recipe("digits", epochs=3)
      >>> config.epochs, config.dataset
      (3, 'digits')
    """
    options = checks.choose("recipe", name, list_recipes()).options
    given = {canonical(option): value for option, value in changes.items()}
    return replaced(Config(), {**options, **given})


def usual_recipe(dataset: str) -> str | None:
    """The recipe of a dataset, by name or path, if none is asked for: that of tables, or none."""
    try:
        return "table" if is_table_file(dataset) or holds_table(dataset) else None
    except (OSError, ValueError):  # whoever reads it says so
        return None


def experiment(config: Mapping[str, Any], dataset: Dataset) -> Experiment:
    """The network, the optimizer and the options of `fit` that a configuration describes.

    Args:
      config: a Config, or some of its options by name; what is missing is as in `Config()`.
      dataset: the Dataset, whole: the preprocessing is fitted to all of its training examples.
    Returns:
      An Experiment.
    Raises:
      ValueError, TypeError: an option is wrong; it is named as on the command line.
    Example:
      >>> config = {"hidden_dims": [8], "epochs": 1}
      >>> net, optimizer, dataset, options = fn.experiment(config, fn.load_digits())
      >>> options["epochs"], options["batch_size"], options["preprocess"].kind
      (1, 50, 'subtract_mean')
    """
    config, inputs = as_config(config), dataset.x_train
    dataset = first(dataset, config.num_train, "--num-train")
    config = complete_config(config, dataset)
    net, optimizer, options = build(config, dataset)
    if config.on_nonfinite is not None:
        options["on_nonfinite"] = config.on_nonfinite
    if config.reproducible is not None:
        options["reproducible"] = config.reproducible
    options |= {
        "key": jax.random.key(config.seed),
        "epochs": config.epochs,
        "eval_every": config.eval_every or None,
        "patience": config.patience,
        "monitor": config.monitor,
        "preprocess": fit_preprocess(
            build_preprocess(config), inputs
        ),  # last: it may take a minute
    }
    return Experiment(net, optimizer, dataset, options)


def build(config: Config, dataset: Dataset) -> tuple[Layer, Optimizer, dict[str, Any]]:
    """What an experiment of `sweep` returns: net, optimizer and options of `fit`.

    Args:
      config: a Config, complete; its numbers may be traced.
      dataset: the Dataset that is trained on.
    """
    count, batch_size = len(dataset.x_train), config.batch_size
    if batch_size is None:
        batch_size = usual_batch_size(count, config.reproducible or 1)
    loss_fn = build_loss(config)
    net = build_net(config, outputs_of(dataset, loss_fn), numbers_of(dataset))
    optimizer = build_optimizer(config, math.ceil(count / batch_size))
    named = [name for name in defaults(FitOptions) if name in OPTIONS and not OPTIONS[name].steps]
    options = {
        **{name: config[name] for name in named},
        "batch_size": batch_size,
        "reg": _reg(config),
        "loss_fn": loss_fn,
        "class_weight": class_weight(config),
        "augment": build_augment(config),
    }
    return net, optimizer, options


def _reg(config: Config) -> Any:
    """The L2 strength beside the mean of the losses of members that each have weights, or a head.

    What members share has less of it, for all of their losses pull at it.
    """
    return config.reg if config.members == 1 or config.reg is None else config.reg / config.members


def build_loss(config: Config) -> LossFn:
    """The loss of a configuration, with its options."""
    loss_fn = config.meaning("loss")
    given = {"delta": config.huber_delta, "quantiles": config.quantiles}
    options = {name: value for name, value in given.items() if value not in (None, ())}
    return bind(loss_fn, **options) if options else loss_fn


def build_net(config: Config, num_classes: int, numbers: Sequence[int] = ()) -> Layer:
    """The network of a configuration: the options that `mlp` takes, by their names.

    Args:
      config: the Config.
      num_classes: how many scores it gives, see `outputs_of`.
      numbers: the inputs that an embedding is for, see `numbers_of`.
    """

    def given(function: Any) -> dict[str, Any]:
        takes = inspect.signature(function).parameters
        return {n: config.meaning(n) for n in config if n in takes}

    if config.ensemble != "stacked":
        mini = config.ensemble == "tabm_mini"
        first = "signs" if config.embedding == "none" or not len(numbers) else "normal"
        net = tabm(num_outputs=num_classes, mini=mini, r_init=first, **given(tabm))
        return _embedding(config, numbers, net)
    net = _embedding(config, numbers, mlp(num_classes=num_classes, **given(mlp)))
    return net if config.members == 1 else stacked(net, config.members)


def _embedding(config: Config, numbers: Sequence[int], net: Layer) -> Layer:
    """A network behind the embeddings of a configuration, if it has any."""
    if config.embedding == "none" or not len(numbers):
        return net
    dim = {} if config.embedding_dim is None else {"dim": config.embedding_dim}
    if config.embedding == "piecewise":
        ends = np.ones(len(numbers))
        bins = config.embedding_bins or BINS
        embed = piecewise_linear(np.linspace(-ends, ends, bins + 1, axis=1), **dim)
    else:
        embed = {"pbld": pbld, "periodic": periodic}[config.embedding](**dim)
    return serial(flatten(), on_columns(numbers, embed), net)


def numbers_of(dataset: Dataset) -> Sequence[int]:
    """Which inputs an embedding is for, from 0: of a table those that are numbers or dates,
    otherwise all.
    """
    if dataset.encoding is None:
        return range(math.prod(dataset.x_train.shape[1:]))
    return dataset.encoding.numbers


def build_optimizer(config: Config, steps_per_epoch: int) -> Optimizer:
    """The optimizer of a configuration, with its schedule."""
    return optimizer_of(config)(build_schedule(config, steps_per_epoch))


def optimizer_of(config: Config) -> Callable[[Any], Optimizer]:
    """The optimizer of a configuration as a function of the learning rate.

    Weight decay is for the weights, the leaves named w; muon leaves the last layer, embeddings, and
    factors of members to Adam.
    """
    make, given = config.meaning("optimizer"), hyper_parameters(config)
    takes = inspect.signature(make).parameters
    if "decay_names" in takes:
        given["decay_names"] = ("w",)
    if "adam_names" in takes:
        # The last layer, embeddings, and the factors and biases of members, which are no matrices.
        last = f"affine{len(config.hidden_dims) + 1}"
        given["adam_names"] = (last, "on_columns1", "r", "s", "b")

    def at(learning_rate: Any) -> Optimizer:
        optimizer = make(learning_rate, **given)
        if config.clip_norm is not None:
            optimizer = clip_by_global_norm(optimizer, config.clip_norm)
        return optimizer

    return at


def build_schedule(config: Config, steps_per_epoch: int) -> Any:
    """The learning rate of a configuration: a number or a schedule."""
    assert config.epochs is not None  # it is complete
    return named_schedule(
        schedule_name(config),
        rate=config.learning_rate,
        decay=config.learning_rate_decay,
        decay_every=config.decay_every,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.epochs * steps_per_epoch,
        warmup=config.warmup,
    )


def build_preprocess(config: Config) -> Callable[[Any], Preprocess]:
    """The preprocessing of a configuration, to be fitted."""
    steps = [parse_step("--preprocess", text, PREPROCESSINGS) for text in config.preprocess or ()]
    return chain(*steps)


def shape_of_inputs(config: Config, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an example that the network is fed, of one of the data, without any fitting.

    Whitening alone changes it; to fit it takes most of a minute where features are thousands.

    Raises:
      ValueError: --preprocess names no step, or more components than there are features.
    """
    for text in config.preprocess or ():
        step = parse_step("--preprocess", text, PREPROCESSINGS)
        if function_of(step) is whiten:
            features = math.prod(shape)
            dim = dict(step.options["given"]).get("dim", features)
            count = checks.Count(at_least=1, at_most=features)
            shape = (count.check(f"--preprocess {text}: dim", dim),)
    return shape


def build_augment(config: Config) -> tuple[Augmentation, ...] | None:
    """The augmentation of a configuration."""
    steps = (parse_step("--augment", text, AUGMENTATIONS) for text in config.augment)
    if config.layout is None:
        return tuple(steps) or None
    return tuple(bind(step, layout=config.layout) for step in steps) or None


@cache
def _recipes() -> dict[str, Any]:
    text = resources.files("funcnet").joinpath("recipes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _copied(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, list) else v for k, v in options.items()}
