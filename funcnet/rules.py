"""Rules between the options of a Config: what goes with what."""

import inspect
from collections.abc import Mapping
from typing import Any

from funcnet import checks, losses, optim, schedules
from funcnet.datasets.registry import check_source
from funcnet.option import option


def check(config: Any) -> None:
    """Raise unless the options of a Config go together.

    Raises:
      ValueError: which do not; they are named as on the command line.
    """
    for rule in (
        _check_data,
        _check_targets,
        _check_members,
        _check_embedding,
        _check_hyper_parameters,
        _check_schedule,
    ):
        rule(config)


def _check_data(config: Any) -> None:
    check_source(config.dataset, config, shown=option)


def _check_members(config: Any) -> None:
    if config.ensemble == "stacked":
        return
    if config.members == 1:
        raise ValueError(f"--ensemble {config.ensemble} needs --members")
    for name in ("normalization", "input_keep_prob", "matmul_dtype"):
        if config[name] not in ("none", None, "float32"):
            raise ValueError(f"{option(name)} is not for --ensemble {config.ensemble}")


def _check_embedding(config: Any) -> None:
    name, steps = config.embedding, config.preprocess or ()
    for given, takers in (
        ("embedding_dim", ("pbld", "periodic", "piecewise")),
        ("embedding_bins", ("piecewise",)),
    ):
        if config[given] is not None and name not in takers:
            several = ", ".join(takers)
            raise ValueError(f"{option(given)} is for --embedding {several}, not for {name}")
    if name == "pbld" and config.embedding_dim == 1:
        raise ValueError("--embedding-dim of pbld is at least 2: one is the number itself")
    kinds = [step.partition("=")[0] for step in steps]
    mixed = [kind for kind in kinds if kind in ("whiten", "shuffle")]
    if name != "none" and mixed:
        raise ValueError(
            f"--embedding {name} is for columns, which --preprocess {mixed[0]} does not keep: "
            "--embedding none goes with it"
        )
    if name == "piecewise" and kinds and kinds[-1] != "quantiles":
        raise ValueError("--embedding piecewise needs --preprocess quantiles, as the last step")


def _check_targets(config: Any) -> None:
    smooth = not losses.is_zero(config.label_smoothing)
    if config.loss == "svm" and (smooth or not losses.is_zero(config.mixup_alpha)):
        raise ValueError("--label-smoothing and --mixup-alpha are not for the svm loss")
    if smooth and config.loss not in (None, "softmax", "sigmoid"):
        raise ValueError(f"--label-smoothing is for labels, not for the {config.loss} loss")
    if config.huber_delta is not None and config.loss != "huber":
        raise ValueError("--huber-delta is for --loss huber")
    if config.quantiles and config.loss != "pinball":
        raise ValueError("--quantiles is for --loss pinball")
    class_weight(config)


def class_weight(config: Any) -> str | dict[str, float] | None:
    """What `--class-weight` says, as `fit` takes it.

    Raises:
      ValueError: it is neither balanced nor classes with weights.
    """
    given = config.class_weight
    if not given:
        return None
    if given == ("balanced",):
        return "balanced"
    weights = {}
    for each in given:
        name, _, number = each.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"--class-weight must be balanced, or CLASS=WEIGHT each, got {each!r}")
        checks.NON_NEGATIVE.check(f"--class-weight of {name}", weights[name])
    return weights


def _check_hyper_parameters(config: Any) -> None:
    for name in hyper_parameters(config):
        users = [o for o, make in optim.OPTIMIZERS.items() if name in _parameters(make)]
        if config.optimizer not in users:
            raise ValueError(
                f"{option(name)} is for {' and '.join(users)}, not for {config.optimizer}"
            )


def hyper_parameters(config: Any) -> dict[str, Any]:
    """The hyper-parameters of the optimizer that are given."""
    given = {name: config[name] for name in optim.HYPER_PARAMETERS if config[name] is not None}
    none = checks.concrete(config.weight_decay) and config.weight_decay == 0
    if none and "weight_decay" not in _parameters(config.meaning("optimizer")):
        del given["weight_decay"]  # none is what the others have, and how a recipe's is undone
    return given


def _check_schedule(config: Any) -> None:
    name = schedule_name(config)
    other = "" if config.schedule is None else f", not for {name}"
    for given, parameter, shown in (
        (config.learning_rate_decay is not None, "decay", "--learning-rate-decay"),
        (config.decay_every != 1, "decay_every", "--decay-every"),
    ):
        if given and not schedules.takes(name, parameter):
            raise ValueError(f"{shown} is for {schedules.takers(parameter)}{other}")
    if config.learning_rate_decay is None and schedules.takes(name, "decay"):
        raise ValueError(f"--schedule {name} needs --learning-rate-decay")


def schedule_name(config: Any) -> str:
    """The schedule of a configuration, which a decay alone implies."""
    return config.schedule or ("constant" if config.learning_rate_decay is None else "exponential")


def _parameters(function: Any) -> Mapping[str, Any]:
    return inspect.signature(function).parameters
