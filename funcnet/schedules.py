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
    _check.POSITIVE.check("rate", rate)
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
    _check.POSITIVE.check("rate", rate)
    _check.POSITIVE.check("decay", decay)
    steps_per_epoch = _check.COUNT.check("steps_per_epoch", steps_per_epoch)

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
    every = _check.COUNT.check("every", every)
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
    _check.POSITIVE.check("rate", rate)
    _check.FRACTION.check("final_fraction", final_fraction)
    total_steps = _check.COUNT.check("total_steps", total_steps)

    def schedule(step: Any) -> jax.Array:
        return rate * _half_cosine(jnp.asarray(step, float) / total_steps, final_fraction)

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
    warmup_steps = _check.COUNT.check("warmup_steps", warmup_steps)

    def warmed(step: Any) -> jax.Array:
        share = jnp.clip((jnp.asarray(step, float) + 1) / warmup_steps, 0, 1)
        return share * schedule(step)

    return warmed


def one_cycle(
    rate: Any,
    total_steps: int,
    *,
    warmup_fraction: Any = 0.2,
    first_fraction: Any = 0.0,
    final_fraction: Any = 0.0,
) -> Schedule:
    """Up to `rate` in a line and down in half a cosine (after Smith and Topin 2019).

    With W = warmup_fraction * total_steps, rounded (arXiv 1708.07120 has two lines):

        up, step < W:     rate * (first_fraction + (1 - first_fraction) * (step + 1) / (W + 1))
        down, step >= W:  `cosine_decay` over the total_steps - W steps from W on

    The first update is one step of the line above `first_fraction * rate`, the update at
    step W has the full rate, and `final_fraction * rate` is reached after the last one: with
    both fractions 0 no update has a rate of 0.

    Args:
      rate: the largest learning rate; may be traced.
      total_steps: the number of updates in all.
      warmup_fraction: the share of the updates on the way up, 0 to 1; may be traced.
      first_fraction, final_fraction: the rates around the first and the last update as
        fractions of the largest, 0 to 1; may be traced.
    Returns:
      `schedule(step) -> learning rate`.
    """
    _check.POSITIVE.check("rate", rate)
    _check.FRACTION.check("warmup_fraction", warmup_fraction)
    _check.FRACTION.check("first_fraction", first_fraction)
    _check.FRACTION.check("final_fraction", final_fraction)
    total_steps = _check.COUNT.check("total_steps", total_steps)

    def schedule(step: Any) -> jax.Array:
        count = jnp.asarray(step, float)
        rising = jnp.round(jnp.asarray(warmup_fraction * total_steps, float))
        up = first_fraction + (1 - first_fraction) * (count + 1) / (rising + 1)
        down = _half_cosine((count - rising) / jnp.maximum(total_steps - rising, 1), final_fraction)
        return rate * jnp.where(count < rising, up, down)

    return schedule


def _half_cosine(t: jax.Array, final_fraction: Any) -> jax.Array:
    """From 1 at t = 0 and before to `final_fraction` at t = 1 and after."""
    share = 0.5 * (1 + jnp.cos(math.pi * jnp.clip(t, 0, 1)))
    return final_fraction + (1 - final_fraction) * share
