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
    for rule in (_check_data, _check_targets, _check_hyper_parameters, _check_schedule):
        rule(config)


def _check_data(config: Any) -> None:
    check_source(config.dataset, config, shown=option)


def _check_targets(config: Any) -> None:
    soft = not (losses.is_zero(config.label_smoothing) and losses.is_zero(config.mixup_alpha))
    if config.loss != "softmax" and soft:
        raise ValueError("--label-smoothing and --mixup-alpha are for the softmax loss")


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
