"""Config: every option of an experiment, once: its default, what it may be, and what is said of it.

The command line, the files of runs and sweeps, recipes and the axes of a sweep loop over these
fields. To add one, add a field; what it does is in recipes.py, rules between several in rules.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import jax.numpy as jnp

from funcnet import checks, layers, losses, net, nonfinite, optim, program, rules, schedules, train
from funcnet.augment import AUGMENTATIONS, LAYOUTS
from funcnet.datasets.dataset import TASKS
from funcnet.datasets.delimited import DECIMALS, HEADER, SEPARATORS
from funcnet.datasets.mapped import MEMORY_MAP
from funcnet.datasets.registry import DATASETS
from funcnet.datasets.splits import FRACTION, TEST_FRACTION, VAL_FRACTION
from funcnet.embeddings import BINS, EMBEDDINGS, PBLD_DIM, PERIODIC_DIM
from funcnet.ensembles import ENSEMBLES
from funcnet.history import columns
from funcnet.named import describe_steps
from funcnet.option import Option, explained, option_field
from funcnet.parallel import REPRODUCIBLE
from funcnet.preprocess import PREPROCESSINGS

__all__ = ["Config"]

BATCH_SIZE = 50  # unless it is given, or the data are fewer
_names = ", ".join
_OF_DATA: dict[str, Any] = {"sweep": "one", "gradcheck": True}  # of what is read, once
MATMUL_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def _hyper(name: str, metavar: str, besides: str = "") -> Any:
    """A hyper-parameter of optimizers."""
    help = optim.defaults_of(name) + besides
    return option_field(None, help, "optimizer", metavar, range=optim.HYPER_PARAMETERS[name])


MODELS = ("best", "last")
MONITORS = {name: name for task in TASKS for name in columns(task) if name != "epoch"}
GROUPS = {
    "most used": "options used most",
    **{name: name for name in ("data", "network", "loss", "training", "optimizer")},
}
_NORMALIZATIONS = {"none": None, **{name: name for name in net.NORMALIZATIONS}}


@explained
@dataclass(frozen=True, kw_only=True)
class Config(Mapping[str, Any]):
    """An experiment as data: what `funcnet train` does, by the names of its options.

    It reads like a dict, too: `config["epochs"]`, `{**config}`; a changed copy is
    `dataclasses.replace(config, epochs=5)`. `experiment` makes of it what `fit` takes.

    Raises:
      ValueError, TypeError: an option, named as in commands, is wrong or does not go with another.
    Example:
      >>> config = fn.Config(hidden_dims=(64, 64), activation="gelu", epochs=3)
      >>> config.hidden_dims, config["activation"]
      ((64, 64), 'gelu')
      >>> fn.Config(activation="glu")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      ValueError: unknown activation 'glu': ...
    """

    dataset: str = option_field(
        "digits",
        f"{_names(DATASETS)}, or the path of your own: a table (.csv, .tsv, .parquet, ...; - is "
        "standard input), arrays (.npz, .npy, shards) or a folder of images, one for each class",
        "most used",
        "NAME",
        **_OF_DATA,
        needed=True,
    )
    data_dir: str | None = option_field(
        None,
        "where downloaded data are; if not given $FUNCNET_DATA, else the user's cache",
        "data",
        "DIR",
        **_OF_DATA,
        needed=True,
    )
    label: tuple[str, ...] = option_field(
        (),
        "label column of a table, or several: a name, first or last; if not given the one called "
        "target, class, label or y, else the only one of words",
        "most used",
        "COLUMN",
        several=True,
        least=1,
        **_OF_DATA,
        needed=True,
    )
    task: str | None = option_field(
        None,
        f"what the labels of a file are: {_names(TASKS)}; found from them if not given",
        "most used",
        "TASK",
        choices={name: name for name in TASKS},
        **_OF_DATA,
    )
    weight: str | None = option_field(
        None,
        "column of a table that says how much each example counts",
        "data",
        "COLUMN",
        **_OF_DATA,
    )
    header: str | None = option_field(
        None,
        "whether the first row of a text file names the columns: yes, no; found if not given",
        "data",
        "WHICH",
        choices=HEADER,
        **_OF_DATA,
    )
    separator: str | None = option_field(
        None,
        f"what is between the cells of a text file: {_names(SEPARATORS)}; found if not given",
        "data",
        "WHICH",
        choices=SEPARATORS,
        **_OF_DATA,
    )
    decimal: str | None = option_field(
        None,
        f"what is before the decimals in a text file: {_names(DECIMALS)}; found if not given",
        "data",
        "WHICH",
        choices=DECIMALS,
        **_OF_DATA,
    )
    columns: tuple[str, ...] = option_field(
        (),
        "the columns of a table to learn from, all if not given",
        "data",
        "COLUMN",
        several=True,
        least=1,
        **_OF_DATA,
    )
    drop: tuple[str, ...] = option_field(
        (),
        "columns of a table to leave out",
        "data",
        "COLUMN",
        several=True,
        least=1,
        **_OF_DATA,
    )
    categorical: tuple[str, ...] = option_field(
        (),
        "columns of a table whose numbers are categories",
        "data",
        "COLUMN",
        several=True,
        least=1,
        **_OF_DATA,
    )
    group: str | None = option_field(
        None,
        "column of a table that says what belongs together, such as patients: no group is in two "
        "splits",
        "data",
        "COLUMN",
        **_OF_DATA,
    )
    split_by: str | None = option_field(
        None,
        "column of a table whose latest times, or largest numbers, are for testing, those before "
        "for validation; or that says train, val and test",
        "data",
        "COLUMN",
        **_OF_DATA,
    )
    memory_map: str | None = option_field(
        None,
        "whether arrays stay on disk, yes or no; if not given shards and .npy of 1 GiB and more do",
        "data",
        "WHICH",
        choices=MEMORY_MAP,
        **_OF_DATA,
    )
    image_size: tuple[int, ...] | None = option_field(
        None,
        "height and width to resize images in folders to; if not given they are all of one size",
        "data",
        "N",
        range=checks.COUNT,
        several=True,
        least=1,
        **_OF_DATA,
    )
    val_fraction: float | None = option_field(
        None,
        f"of a file; {FRACTION} if not given",
        "data",
        "F",
        range=VAL_FRACTION,
        **_OF_DATA,
        needed=True,
    )
    test_fraction: float | None = option_field(
        None,
        f"of a file; {FRACTION} if not given",
        "data",
        "F",
        range=TEST_FRACTION,
        **_OF_DATA,
        needed=True,
    )
    num_train: int | None = option_field(
        None,
        "train on the first N training examples only; preprocessing is fitted to all",
        "data",
        "N",
        range=checks.COUNT,
        sweep="one",
        needed=True,
    )
    preprocess: tuple[str, ...] | None = option_field(
        None,
        f"what is done to all inputs, in turn: {describe_steps(PREPROCESSINGS)}; if not given mean "
        "for pixels, numbers for a table, quantiles with --embedding piecewise",
        "data",
        "STEP",
        steps=PREPROCESSINGS,
        least=1,
        **_OF_DATA,
    )
    augment: tuple[str, ...] = option_field(
        (),
        f"change training images at random, in this order or another: "
        f"{describe_steps(AUGMENTATIONS)}; without a STEP, not at all",
        "data",
        "STEP",
        steps=AUGMENTATIONS,
        sweep="one",
    )
    layout: str | None = option_field(
        None,
        f"of images, for --augment and --tta: {_names(LAYOUTS)}; found from their shape if not "
        "given, or asked for",
        "data",
        "NAME",
        choices={name: name for name in LAYOUTS},
        sweep="one",
    )
    hidden_dims: tuple[int, ...] = option_field(
        (256, 256),
        "size of each hidden layer; none for a linear classifier",
        "most used",
        "DIM",
        range=net.DIM,
        several=True,
        gradcheck=True,
        needed=True,
        aliases=("hidden",),
    )
    normalization: str = option_field(
        "none",
        f"after each hidden affine layer: {_names(_NORMALIZATIONS)}",
        "network",
        "NAME",
        choices=_NORMALIZATIONS,
        gradcheck=True,
    )
    activation: str = option_field(
        "relu",
        _names(net.ACTIVATIONS),
        "network",
        "NAME",
        choices={name: name for name in net.ACTIVATIONS},
        gradcheck=True,
    )
    embedding: str = option_field(
        "none",
        "what a network is given of each column of numbers: "
        + "; ".join(f"{n}, {what}" for n, what in EMBEDDINGS.items()),
        "network",
        "NAME",
        choices=EMBEDDINGS,
        gradcheck=True,
    )
    embedding_dim: int | None = option_field(
        None,
        f"features of each column with --embedding; if not given {PBLD_DIM} of pbld, "
        f"{PERIODIC_DIM} of periodic, the bins of piecewise",
        "network",
        "DIM",
        range=checks.COUNT,
        gradcheck=True,
    )
    embedding_bins: int | None = option_field(
        None,
        f"of --embedding piecewise; {BINS} if not given",
        "network",
        "N",
        range=checks.COUNT,
        gradcheck=True,
    )
    keep_prob: float | None = option_field(
        None,
        "dropout keeps a hidden unit with P",
        "network",
        "P",
        range=layers.KEEP_PROB,
        gradcheck=True,
    )
    input_keep_prob: float | None = option_field(
        None,
        "dropout keeps an input with P",
        "network",
        "P",
        range=layers.KEEP_PROB,
        gradcheck=True,
    )
    members: int = option_field(
        1,
        "nets side by side, whose predictions are averaged",
        "network",
        "K",
        range=checks.COUNT,
        gradcheck=True,
    )
    ensemble: str = option_field(
        "stacked",
        "what --members share: " + "; ".join(f"{n}, {what}" for n, what in ENSEMBLES.items()),
        "network",
        "NAME",
        choices=ENSEMBLES,
        gradcheck=True,
    )
    weight_scale: float | str | None = option_field(
        None,
        "standard deviation of the initial weights; or he, sqrt(2 / fan_in), or glorot, "
        "sqrt(2 / (fan_in + fan_out)), which are for inputs of unit size: pixels are larger, "
        "standardize them; if not given 0.02 for pixels, he for a table",
        "network",
        "SCALE",
        range=net.WEIGHT_SCALE,
        choices={name: name for name in net.SCALES},
        optional=True,
        gradcheck=True,
        needed=True,
    )
    matmul_dtype: str = option_field(
        "float32",
        f"{_names(MATMUL_DTYPES)}: of the factors of matrix products; sums and parameters are "
        "float32",
        "network",
        "DTYPE",
        choices=MATMUL_DTYPES,
    )
    seed: int = option_field(
        0,
        "seed of everything random",
        "most used",
        "N",
        range=checks.SEED,
        **_OF_DATA,
    )
    loss: str | None = option_field(
        None,
        f"{_names(losses.LOSSES)}; if not given softmax for classes, squared for numbers, sigmoid "
        "for several labels",
        "loss",
        "NAME",
        choices=losses.LOSSES,
        gradcheck=True,
        needed=True,
    )
    huber_delta: float | None = option_field(
        None,
        "of huber: errors beyond D count by their size, not their square; 1 if not given, in "
        "standard deviations of the target",
        "loss",
        "D",
        range=checks.POSITIVE,
        gradcheck=True,
    )
    quantiles: tuple[float, ...] = option_field(
        (),
        "of pinball: which to predict, between 0 and 1; 0.5 if not given",
        "loss",
        "Q",
        range=checks.Range(above=0, below=1),
        several=True,
        least=1,
        gradcheck=True,
    )
    class_weight: tuple[str, ...] = option_field(
        (),
        "how much the loss counts each class: balanced, for all alike, or CLASS=WEIGHT, others 1",
        "loss",
        "WEIGHT",
        several=True,
        least=1,
    )
    reg: float | None = option_field(
        None,
        "L2 strength: 0.5 R sum(w^2) is added to the loss; if not given 0 for pixels, and for N "
        "rows of a table of C classes 20 / (N C), of regression 5 / N, 0.1 at most, without weight "
        "decay",
        "loss",
        "R",
        range=losses.REG,
        gradcheck=True,
    )
    label_smoothing: float = option_field(
        0.0,
        "the share of a label's probability that is spread over all classes",
        "loss",
        "S",
        range=losses.LABEL_SMOOTHING,
    )
    mixup_alpha: float = option_field(
        0.0,
        "train on mixtures of pairs, with shares from Beta(ALPHA, ALPHA); 0 is none",
        "loss",
        "ALPHA",
        range=program.MIXUP_ALPHA,
        aliases=("mixup",),
    )
    optimizer: str = option_field(
        "adam", _names(optim.OPTIMIZERS), "most used", "NAME", choices=optim.OPTIMIZERS
    )
    learning_rate: float = option_field(
        1e-3, "step size, the largest one", "most used", "RATE", range=optim.LEARNING_RATE
    )
    schedule: str | None = option_field(
        None,
        f"{_names(schedules.SCHEDULES)}; if not given constant for pixels, cosine for a table, "
        "exponential if there is a decay",
        "optimizer",
        "NAME",
        choices=schedules.SCHEDULES,
    )
    learning_rate_decay: float | None = option_field(
        None,
        "of exponential and step: multiply the learning rate by this after every epoch, or every "
        "--decay-every",
        "optimizer",
        "FACTOR",
        range=schedules.LEARNING_RATE_DECAY,
    )
    decay_every: int = option_field(
        1, "of step: epochs between two decays", "optimizer", "N", range=schedules.DECAY_EVERY
    )
    warmup: float | None = option_field(
        None,
        "share of the steps on which the rate rises; 0 if not given, 0.2 for one_cycle",
        "optimizer",
        "SHARE",
        range=schedules.WARMUP,
        sweep="one",
    )
    momentum: float | None = _hyper("momentum", "M")
    decay_rate: float | None = _hyper("decay_rate", "D")
    beta1: float | None = _hyper("beta1", "B")
    beta2: float | None = _hyper("beta2", "B")
    epsilon: float | None = _hyper("epsilon", "E")
    weight_decay: float | None = _hyper("weight_decay", "D", "; of the weights alone")
    clip_norm: float | None = option_field(
        None,
        "scale gradients of a larger global norm down to C",
        "optimizer",
        "C",
        range=optim.MAX_NORM,
    )
    average_decay: float | None = option_field(
        None,
        "evaluate and keep an exponential average of the parameters, 0.999 say, not the last ones",
        "training",
        "D",
        range=optim.AVERAGE_DECAY,
    )
    epochs: int | None = option_field(
        None,
        "passes over the training data; if not given 20, but over a table at least 1,000 updates, "
        "and about 50,000 at most",
        "most used",
        "N",
        range=train.EPOCHS,
        sweep="one",
    )
    batch_size: int | None = option_field(
        None,
        f"examples per step; if not given {BATCH_SIZE}, or all if they are fewer, but for a table "
        "such that no step has less, if there is such a number near it; with --reproducible a "
        "multiple of S",
        "most used",
        "N",
        range=program.BATCH_SIZE,
    )
    eval_every: int | None = option_field(
        None,
        "measure accuracies every N epochs; 0 never; if not given 1, or 25 times in all for a "
        "table",
        "training",
        "N",
        range=checks.NATURAL,
        sweep="one",
    )
    patience: int | None = option_field(
        None,
        "stop when N measurements in a row find no better model; never if not given",
        "training",
        "N",
        range=checks.COUNT,
        sweep="one",
    )
    monitor: str | None = option_field(
        None,
        f"the measurement that says which model is the best: {_names(MONITORS)}; if not given "
        "val_accuracy for classes, else val_loss",
        "training",
        "NAME",
        choices=MONITORS,
        sweep="one",
    )
    on_nonfinite: str | None = option_field(
        None,
        "at a step that is not finite: stop and keep the run until then, as if not given, or skip",
        "training",
        "WHAT",
        choices={name: name for name in nonfinite.POLICIES if name != "raise"},
        sweep="",
    )
    reproducible: int | None = option_field(
        None,
        "cut each batch in S shards, a power of two, and add them in one order: the same bits on "
        "1, 2, 4, ... S devices or processes, each with one thread",
        "training",
        "S",
        range=REPRODUCIBLE,
        sweep="",
    )
    model: str | None = option_field(
        None,
        f"the model that counts: {_names(MODELS)}; if not given best for pixels, last for a table "
        "without --patience and --monitor",
        "training",
        "NAME",
        choices={name: name for name in MODELS},
        sweep="",
    )
    tta: bool = option_field(
        False,
        "at the end, test accuracy of predictions averaged over ten flips and shifts, too",
        "training",
        sweep="",
    )

    def __post_init__(self) -> None:
        for name, known in OPTIONS.items():
            value = getattr(self, name)
            if known.several and isinstance(value, str):  # one name is a list of one
                object.__setattr__(self, name, value := (value,))
            known.check(name, value)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        rules.check(self)

    def __getitem__(self, name: str) -> Any:
        if canonical(name) not in OPTIONS:
            raise KeyError(name)
        return getattr(self, canonical(name))

    def __iter__(self) -> Iterator[str]:
        return iter(OPTIONS)

    def __len__(self) -> int:
        return len(OPTIONS)

    def meaning(self, name: str) -> Any:
        """What the value of an option stands for, where it is a name among choices."""
        choices, value = OPTIONS[name].choices, getattr(self, name)
        return choices[value] if choices is not None and isinstance(value, str) else value


OPTIONS: dict[str, Option] = {each.name: each.metadata["option"] for each in fields(Config)}
ALIASES = {alias: name for name, known in OPTIONS.items() for alias in known.aliases}


def canonical(name: str) -> str:
    """The name of an option that may be given by an older one."""
    return ALIASES.get(name, name)


def replaced(config: Config, changes: Mapping[str, Any]) -> Config:
    """The Config with some options changed, also by older names."""
    for name in (name for name in changes if canonical(name) not in OPTIONS):
        raise ValueError(checks.unknown("option", name, [*OPTIONS, *ALIASES]))
    return replace(config, **{canonical(name): value for name, value in changes.items()})
