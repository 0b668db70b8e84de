"""The parameters of the estimators, each once: type, default, what it is, and what it may be."""

import inspect
import pickle
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict, TypeVar, get_type_hints

import numpy as np

from funcnet import checks
from funcnet.activations import ACTIVATIONS
from funcnet.layer import Layer
from funcnet.losses import LABEL_SMOOTHING, REG
from funcnet.net import NORMALIZATIONS
from funcnet.optim import HYPER_PARAMETERS, OPTIMIZERS
from funcnet.program import BATCH_SIZE, MIXUP_ALPHA
from funcnet.schedules import LEARNING_RATE

Class = TypeVar("Class", bound=type)

RATES = ("constant", "invscaling", "adaptive")
SOLVERS = ("adam", "sgd")  # those of scikit-learn; others are funcnet's


class Parameters(TypedDict, total=False):
    """Those of both estimators but FIRST: a type, the default, and what it is."""

    solver: Annotated[
        str,
        "adam",
        '"adam", with beta_1, beta_2 and epsilon; "sgd", with momentum, learning_rate and '
        'power_t; or another optimizer of funcnet by its name, such as "adamw" or "muon", with '
        'its own defaults. There is no "lbfgs".',
    ]
    alpha: Annotated[
        float, 1e-4, "L2, 0 or more: the loss of a batch has 0.5 * alpha * sum(w**2) / its size."
    ]
    batch_size: Annotated[
        int | str, "auto", 'examples per step, at most all; "auto" is min(200, all).'
    ]
    learning_rate: Annotated[
        str,
        "constant",
        'of solver "sgd": "constant"; "invscaling", learning_rate_init / (1 + t)**power_t with t '
        'the examples seen before this epoch; or "adaptive", divided by 5 where training would '
        "have stopped, until it is 1e-6.",
    ]
    learning_rate_init: Annotated[float, 1e-3, "the learning rate."]
    power_t: Annotated[float, 0.5, 'the power of "invscaling".']
    max_iter: Annotated[int, 200, "epochs at most."]
    shuffle: Annotated[
        bool,
        True,
        "False is for batches of all examples alone: else each epoch has an order of its own.",
    ]
    random_state: Annotated[
        Any,
        None,
        "an int or a RandomState: initial weights, order of examples, what is held out, dropout. "
        "None is NumPy's global state.",
    ]
    tol: Annotated[
        float,
        1e-4,
        "an epoch is better if its loss is less, or with early_stopping its score more, by so "
        "much at least.",
    ]
    verbose: Annotated[bool | int, False, "print the loss of each epoch."]
    warm_start: Annotated[
        bool, False, "whether `fit` goes on with the net of before, its optimizer anew."
    ]
    momentum: Annotated[float, 0.9, 'of "sgd", "sgd_momentum" and "nesterov", 0 to below 1.']
    nesterovs_momentum: Annotated[bool, True, 'whether momentum of "sgd" is Nesterov\'s.']
    early_stopping: Annotated[
        bool,
        False,
        "hold out a share of the examples, stop by their score in place of the loss of training, "
        "and keep the best net.",
    ]
    validation_fraction: Annotated[
        float, 0.1, "the share that early_stopping holds out; none, if there is an eval_set."
    ]
    beta_1: Annotated[float, 0.9, 'of "adam".']
    beta_2: Annotated[float, 0.999, 'of "adam".']
    epsilon: Annotated[float, 1e-8, 'of "adam".']
    n_iter_no_change: Annotated[
        float, 10, "training ends when more epochs than so many in a row are no better; or inf."
    ]
    max_fun: Annotated[int, 15_000, 'of "lbfgs" alone, so as it is.']
    loss: Annotated[
        Any,
        None,
        "a name, one of funcnet's losses or a function of one's own as for `fit` of funcnet; None "
        "is the usual one of the task.",
    ]
    normalization: Annotated[str | Layer | None, None, 'None, "batchnorm", "layernorm" or a layer.']
    dropout: Annotated[float, 0.0, "the share of hidden units dropped in training, below 1."]
    mixup_alpha: Annotated[float, 0.0, "train on mixtures of pairs, see `mixup`; 0 is none."]
    preprocess: Annotated[
        Any,
        "auto",
        '"auto" standardizes numbers; None leaves inputs as they are; or what `fit` of funcnet '
        "takes.",
    ]
    n_ensemble: Annotated[
        int,
        1,
        "so many nets of different seeds are trained side by side, and their probabilities or "
        "predictions averaged. Losses, scores and when to stop are those of their mean.",
    ]
    callbacks: Annotated[
        Any,
        None,
        "a function, or several, `callback(epoch, train_state, metrics)` after each epoch, as for "
        "`fit` of funcnet: True ends the training.",
    ]


class ClassifierParameters(Parameters, total=False):
    """Those of the classifier."""

    class_weight: Annotated[
        Any,
        None,
        'how much the loss counts each class: "balanced", or weights by label, 1 of the others.',
    ]
    label_smoothing: Annotated[
        float, 0.0, "the probability that targets spread over all classes, 0 to 1."
    ]


FIRST: dict[
    str, tuple[Any, str]
] = {  # those that may be given by position: the default, and what it is
    "hidden_layer_sizes": (
        (100,),
        "the number of units of each hidden layer; an int is one layer, () none.",
    ),
    "activation": (
        "relu",
        'of hidden units: "identity", "logistic", "tanh", "relu", or another name that `mlp` '
        "takes, or a layer.",
    ),
}
NUMBERS = {
    "alpha": REG,
    "learning_rate_init": LEARNING_RATE,
    "power_t": checks.NON_NEGATIVE,
    "tol": checks.NON_NEGATIVE,
    "momentum": HYPER_PARAMETERS["momentum"],
    "validation_fraction": checks.Range(above=0, below=1),
    "beta_1": HYPER_PARAMETERS["beta1"],
    "beta_2": HYPER_PARAMETERS["beta2"],
    "epsilon": HYPER_PARAMETERS["epsilon"],
    "dropout": checks.DECAY,
    "mixup_alpha": MIXUP_ALPHA,
    "label_smoothing": LABEL_SMOOTHING,
}
COUNTS = {"max_iter": checks.COUNT, "n_ensemble": checks.COUNT, "batch_size": BATCH_SIZE}
FLAGS = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping")


def documented(record: Any) -> Any:
    """A decorator that writes the parameters of a record where a docstring says {parameters}."""
    hints = get_type_hints(record, include_extras=True)
    rows = FIRST | {name: hint.__metadata__ for name, hint in hints.items()}

    def row(name: str, default: Any, about: str) -> str:
        text = f"{name}: {about.rstrip('.')}. Default {default!r}."
        return textwrap.fill(text, 96, subsequent_indent="  ")

    text = "\n".join(row(name, *known) for name, known in rows.items())

    def decorate(made: Class) -> Class:
        doc = inspect.getdoc(made) or ""
        made.__doc__ = doc.replace("  {parameters}", textwrap.indent(text, "  "))
        return made

    return decorate


def check_parameters(given: Mapping[str, Any]) -> None:
    """Raise unless the parameters of an estimator are what they may be.

    Args:
      given: all of them by name.
    Raises:
      ValueError, TypeError: it names the parameter and what it may be.
    """
    for name, limits in NUMBERS.items():
        if name in given:
            limits.check(name, given[name])
    for name, count in COUNTS.items():
        if name != "batch_size" or given[name] != "auto":
            count.check(name, given[name])
    for name in FLAGS:
        if not isinstance(given[name], bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {given[name]!r}")
    if given["n_iter_no_change"] != np.inf:
        checks.COUNT.check("n_iter_no_change", given["n_iter_no_change"])
    if given["max_fun"] != 15_000:
        raise ValueError("max_fun is of solver 'lbfgs' alone, which is not here: leave it out")
    checks.choose("learning_rate", given["learning_rate"], dict.fromkeys(RATES))
    if given["solver"] == "lbfgs":
        raise ValueError(
            "solver 'lbfgs' is not here: take 'adam', with batch_size=len(X) and more max_iter on "
            "small data"
        )
    checks.choose("solver", given["solver"], dict.fromkeys((*SOLVERS, *OPTIMIZERS)))
    if isinstance(given["activation"], str):
        known = dict.fromkeys(("identity", *ACTIVATIONS))
        checks.choose("activation", given["activation"], known)
    if isinstance(given["normalization"], str):
        checks.choose("normalization", given["normalization"], NORMALIZATIONS)
    if isinstance(given["preprocess"], str) and given["preprocess"] != "auto":
        raise ValueError(
            f"preprocess must be 'auto', None or a function such as standardize, got "
            f"{given['preprocess']!r}"
        )
    for callback in callbacks_of(given["callbacks"]):
        checks.function("callbacks", callback)
    _check_together(given)


def _check_together(given: Mapping[str, Any]) -> None:
    """Raise unless the parameters go together."""
    if given["n_ensemble"] > 1:
        for name, off in (("warm_start", False), ("callbacks", None)):
            if given[name] not in (off, (), []):
                raise ValueError(f"{name} is for one net: n_ensemble must be 1")
        if is_adaptive(given):
            raise ValueError("learning_rate 'adaptive' is for one net: n_ensemble must be 1")


def is_adaptive(given: Mapping[str, Any]) -> bool:
    """Whether the learning rate falls where training would stop."""
    return given["solver"] == "sgd" and given["learning_rate"] == "adaptive"


def callbacks_of(callbacks: Any) -> tuple[Any, ...]:
    """Those of the parameter `callbacks`: none, one or several."""
    if callbacks is None:
        return ()
    return tuple(callbacks) if isinstance(callbacks, list | tuple) else (callbacks,)


def check_picklable(given: Mapping[str, Any]) -> None:
    """Raise a TypeError that names a parameter that cannot be pickled."""
    for name, value in given.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"{name} cannot be pickled, as files and n_jobs want it: make it of functions "
                f"that stand in a module, not of a lambda or one within another ({error})"
            ) from None
