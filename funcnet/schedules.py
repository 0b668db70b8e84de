"""Learning rates that change during training, as functions of the number of updates done."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import _check

Schedule = Callable[[Any], Any]


def exponential_decay(rate: Any, decay: Any, steps_per_epoch: int) -> Schedule:
    """`rate * decay**epoch`: the rate is multiplied by `decay` after every epoch.

    It is CS231n's `lr_decay`: constant within an epoch, epoch = step // steps_per_epoch.

    Args:
      rate: the learning rate of the first epoch; may be traced.
      decay: the factor per epoch, above 0, usually below 1; may be traced.
      steps_per_epoch: the number of updates in an epoch.
    Returns:
      `schedule(step) -> learning rate`.
    """
    _check.number("rate", rate, above=0)
    _check.number("decay", decay, above=0)
    steps_per_epoch = _check.integer("steps_per_epoch", steps_per_epoch, at_least=1)

    def schedule(step: Any) -> jax.Array:
        epoch = jnp.asarray(step) // steps_per_epoch
        return rate * jnp.power(jnp.asarray(decay, float), epoch)

    return schedule
