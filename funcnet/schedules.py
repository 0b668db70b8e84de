"""Learning rates that change during training, as functions of the number of updates done."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import _check

Schedule = Callable[[Any], Any]


def constant(rate: Any) -> Schedule:
    """The same rate at every step.

    Args:
      rate: the learning rate; may be traced.
    Returns:
      `schedule(step) -> learning rate`.
    """
    _check.number("rate", rate, above=0)
    return lambda step: jnp.asarray(rate, float)


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


def step_decay(rate: Any, decay: Any, every: int) -> Schedule:
    """`rate * decay**(step // every)`: the rate falls in steps, each `every` updates long.

    Args:
      rate: the first learning rate; may be traced.
      decay: the factor, above 0, usually below 1; may be traced.
      every: the number of updates between two falls.
    Returns:
      `schedule(step) -> learning rate`.
    """
    every = _check.integer("every", every, at_least=1)
    return exponential_decay(rate, decay, every)


def cosine_decay(rate: Any, total_steps: int, *, final_fraction: Any = 0.0) -> Schedule:
    """Half a cosine from `rate` down to `final_fraction * rate` (Loshchilov and Hutter 2017).

    With t = step / total_steps, at most 1 (arXiv 1608.03983, equation 5, without restarts):

        rate * (final_fraction + (1 - final_fraction) * (1 + cos(pi t)) / 2)

    Args:
      rate: the first learning rate; may be traced.
      total_steps: the number of updates until the end.
      final_fraction: the last rate as a fraction of the first, 0 to 1; may be traced.
    Returns:
      `schedule(step) -> learning rate`.
    """
    _check.number("rate", rate, above=0)
    _check.number("final_fraction", final_fraction, at_least=0, at_most=1)
    total_steps = _check.integer("total_steps", total_steps, at_least=1)

    def schedule(step: Any) -> jax.Array:
        t = jnp.clip(jnp.asarray(step, float) / total_steps, 0, 1)
        return rate * (final_fraction + (1 - final_fraction) * 0.5 * (1 + jnp.cos(math.pi * t)))

    return schedule


def warmup(schedule: Any, warmup_steps: int) -> Schedule:
    """A schedule with a linear start: its k-th rate, k from 1, times `min(k / warmup_steps, 1)`.

    The schedule itself is not shifted: after the start it goes on as if it had been there.

    Args:
      schedule: a schedule, or a number, which may be traced.
      warmup_steps: the number of updates until the full rate.
    Returns:
      `schedule(step) -> learning rate`.
    """
    if not callable(schedule):
        schedule = constant(schedule)
    warmup_steps = _check.integer("warmup_steps", warmup_steps, at_least=1)

    def warmed(step: Any) -> jax.Array:
        share = jnp.clip((jnp.asarray(step, float) + 1) / warmup_steps, 0, 1)
        return share * schedule(step)

    return warmed


def one_cycle(
    rate: Any,
    total_steps: int,
    *,
    warmup_fraction: float = 0.2,
    first_fraction: Any = 0.0,
    final_fraction: Any = 0.0,
) -> Schedule:
    """Up to `rate` in a line and down in half a cosine (after Smith and Topin 2019).

    The line goes from `first_fraction * rate` to rate over `warmup_fraction * total_steps` updates,
    the half cosine from there to `final_fraction * rate` over the others (arXiv 1708.07120).

    Args:
      rate: the largest learning rate; may be traced.
      total_steps: the number of updates in all.
      warmup_fraction: the share of the updates on the way up, 0 to 1.
      first_fraction, final_fraction: the rates at both ends as fractions of the largest, 0 to
        1; may be traced. The first update has a rate a step above the first one, which may be 0.
    Returns:
      `schedule(step) -> learning rate`.
    """
    _check.number("rate", rate, above=0)
    _check.number("warmup_fraction", warmup_fraction, at_least=0, at_most=1)
    _check.number("first_fraction", first_fraction, at_least=0, at_most=1)
    total_steps = _check.integer("total_steps", total_steps, at_least=1)
    rising = warmup_fraction * total_steps
    falling = cosine_decay(rate, max(1, round(total_steps - rising)), final_fraction=final_fraction)

    def schedule(step: Any) -> jax.Array:
        count = jnp.asarray(step, float)
        share = (count + 1) / (rising + 1)
        up = rate * (first_fraction + (1 - first_fraction) * share)
        return jnp.where(count < rising, up, falling(count - rising))

    return schedule
