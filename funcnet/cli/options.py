"""The options that several commands have."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any

import funcnet as fn
from funcnet import _check, recipes
from funcnet.cli.data import FILE_OPTIONS
from funcnet.losses import LOSSES
from funcnet.optim import OPTIMIZERS

SPLITS = ("train", "val", "test")
VIEWS = fn.flips_and_shifts()  # what --tta averages over
COMMON = (
    *("dataset", "data_dir", *FILE_OPTIONS, "num_train", "preprocess", "augment"),
    *("seed", "epochs", "eval_every", "warmup", "tta"),
)


def add_recipe_option(parser: Any) -> None:
    """--recipe."""
    parser.add_argument(
        "--recipe",
        type=name_among("recipe", recipes.list_recipes()),
        metavar="NAME",
        help=f"start from the options of a recipe: {listed(recipes.list_recipes())}; an option "
        "that is given as well takes the place of the recipe's",
    )


def add_data_options(parser: Any) -> Any:
    """The options about data."""
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--dataset",
        metavar="NAME",
        help="digits, cifar10, or the path of your own .npz (x, y) or .csv",
    )
    add_data_dir(group)
    add("--label", metavar="COLUMN", help="label column of a .csv; the last if not given")
    add("--val-fraction", type=float, metavar="F", help="of a file; 0.1 if not given")
    add("--test-fraction", type=float, metavar="F", help="of a file; 0.1 if not given")
    add(
        "--preprocess",
        nargs="+",
        metavar="STEP",
        help="mean: subtract the mean of the training data; standardize: divide by the standard "
        "deviation, too; contrast[=EPSILON]: mean 0 and variance 1 for each example; whiten[=DIM]: "
        "principal components of variance 1; shuffle[=SEED]: the features in another order; none",
    )
    return group


def add_data_dir(parser: Any) -> None:
    """--data-dir."""
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where CIFAR-10 is; if not given $FUNCNET_DATA, else the user's cache",
    )


def add_net_options(parser: Any, *, hidden: str = "store") -> None:
    """The options about the network."""
    group = parser.add_argument_group("network")
    add = group.add_argument
    add(
        "--hidden",
        action=hidden,
        type=int,
        nargs="*",
        metavar="DIM",
        help="size of each hidden layer; none for a linear classifier",
    )
    add(
        "--normalization",
        type=name_among("normalization", recipes.NAMED["normalization"]),
        metavar="NAME",
        help=f"after each hidden affine layer: {listed(recipes.NAMED['normalization'])}",
    )
    add(
        "--activation",
        type=name_among("activation", recipes.NAMED["activation"]),
        metavar="NAME",
        help=listed(recipes.NAMED["activation"]),
    )
    add("--keep-prob", type=float, metavar="P", help="dropout keeps a hidden unit with P")
    add("--input-keep-prob", type=float, metavar="P", help="dropout keeps an input with P")
    add(
        "--weight-scale",
        type=weight_scale,
        metavar="SCALE",
        help="standard deviation of the initial weights; or he, sqrt(2 / fan_in), or glorot, "
        "sqrt(2 / (fan_in + fan_out)), which are for inputs of unit size: pixels are larger, "
        "standardize them",
    )
    add("--loss", type=name_among("loss", LOSSES), metavar="NAME", help=listed(LOSSES))
    add("--reg", type=float, metavar="R", help="L2 strength: 0.5 R sum(w^2) is added to the loss")
    add("--seed", type=int, metavar="N", help="seed of everything random")


def add_training_options(parser: Any) -> None:
    """The options about training and the optimizer."""
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=int, metavar="N", help="passes over the training data")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"examples per step; {recipes.BATCH_SIZE} if not given, or all if they are fewer",
    )
    add(
        "--augment",
        nargs="*",
        metavar="STEP",
        help="change images at random: flip, shift[=PIXELS], crop[=MIN_AREA], cutout[=SIZE], in "
        "this order or another; without a STEP, not at all",
    )
    add(
        "--label-smoothing",
        type=float,
        metavar="S",
        help="the share of a target's probability that is spread over all classes",
    )
    add(
        "--mixup",
        type=float,
        metavar="ALPHA",
        help="train on mixtures of pairs, with shares from Beta(ALPHA, ALPHA); 0 is none",
    )
    add(
        "--matmul-dtype",
        type=name_among("dtype", recipes.MATMUL_DTYPES),
        metavar="DTYPE",
        help=f"{listed(recipes.MATMUL_DTYPES)}: of the factors of matrix products; sums and "
        "parameters are float32",
    )
    add(
        "--average-decay",
        type=float,
        metavar="D",
        help="evaluate and keep an exponential average of the parameters, 0.999 say, in place of "
        "the last ones",
    )
    add("--eval-every", type=int, metavar="N", help="measure accuracies every N epochs; 0 never")
    group = parser.add_argument_group("optimizer")
    add = group.add_argument
    add(
        "--optimizer",
        type=name_among("optimizer", OPTIMIZERS),
        metavar="NAME",
        help=listed(OPTIMIZERS),
    )
    add("--learning-rate", type=float, metavar="RATE", help="step size, the largest one")
    add(
        "--schedule",
        type=name_among("schedule", recipes.SCHEDULES),
        metavar="NAME",
        help=f"{listed(recipes.SCHEDULES)}; constant if not given, or exponential if there is "
        "a decay",
    )
    add(
        "--learning-rate-decay",
        type=float,
        metavar="FACTOR",
        help="of exponential and step: multiply the learning rate by this after every epoch, "
        "or every --decay-every",
    )
    add("--decay-every", type=int, metavar="N", help="of step: epochs between two decays")
    add(
        "--warmup",
        type=float,
        metavar="SHARE",
        help="share of the steps on which the rate rises; 0 if not given, 0.2 for one_cycle",
    )
    add("--momentum", type=float, metavar="M", help=_of("momentum", "0.9, 0.95 of muon"))
    add("--decay-rate", type=float, metavar="D", help=_of("decay_rate", "0.99"))
    add("--beta1", type=float, metavar="B", help=_of("beta1", "0.9"))
    add("--beta2", type=float, metavar="B", help=_of("beta2", "0.999, 0.99 of lion"))
    add("--epsilon", type=float, metavar="E", help=_of("epsilon", "1e-8"))
    add(
        "--weight-decay",
        type=float,
        metavar="D",
        help=_of("weight_decay", "0.01 of adamw, else 0") + "; of the weights alone",
    )
    add(
        "--clip-norm",
        type=float,
        metavar="C",
        help="scale gradients of a larger global norm down to C",
    )


def add_run_options(parser: Any) -> None:
    """The options of what uses a run."""
    parser.add_argument(
        "run_directory", metavar="RUN", help="directory of a run, such as runs/digits"
    )
    parser.add_argument(
        "--model",
        type=name_among("model", ("best", "last")),
        default="best",
        metavar="NAME",
        help="best, by validation accuracy, or last",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average predictions over ten flips and shifts of each image",
    )


def _of(hyper: str, default: str) -> str:
    """Help for a hyper-parameter: which optimizers have it, and its default."""
    users = [o for o, f in OPTIMIZERS.items() if hyper in inspect.signature(f).parameters]
    return f"of {', '.join(users)}; {default} if not given"


def name_among(kind: str, known: Any) -> Callable[[str], str]:
    """A type for argparse: one of the known names, or an error with the nearest one."""

    def parse(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(_check.unknown(kind, name, known))
        return name

    return parse


def weight_scale(text: str) -> float | str:
    """A type for argparse: a number, or the name of a scale."""
    if text.lower() in recipes.WEIGHT_SCALES:
        return text.lower()
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number, {' or '.join(recipes.WEIGHT_SCALES)}, got {text!r}"
        ) from None


def listed(names: Any) -> str:
    """Names in a line."""
    return ", ".join(names)
