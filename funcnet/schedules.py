"""Learning rates that change during training, as functions of the number of updates done.

Other numbers may follow one: the weight decay of `adamw`, the share that `dropout` keeps. A
schedule gives a rate in JAX's default float type. Schedules of equal arguments are equal, so that
what was compiled with one serves the other; see `bind`.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.bind import bind

__all__ = [
    "complement",
    "constant",
    "cosine_decay",
    "coslog4",
    "exponential_decay",
    "flat_cosine",
    "one_cycle",
    "step_decay",
    "warmup",
]

Schedule = Callable[[Any], Any]

# What the numbers of a schedule may be.
LEARNING_RATE = checks.POSITIVE
LEARNING_RATE_DECAY = checks.POSITIVE
DECAY_EVERY = checks.COUNT
WARMUP = checks.FRACTION


def at_step(rate: Any, step: Any) -> Any:
    """The learning rate at a step: what a schedule gives, or the number that it is."""
    return rate(step) if callable(rate) else rate


def constant(rate: Any) -> Schedule:
    """The same rate at every step.

    Args:
      rate: the learning rate; may be traced.
    Returns:
      `schedule(step) -> learning rate`.
    Raises:
      ValueError: rate is not above 0.
      TypeError: it is no number.
    Example:
      >>> schedule = fn.constant(0.5)
      >>> [round(float(schedule(step)), 2) for step in (0, 100)]
      [0.5, 0.5]
    """
    LEARNING_RATE.check("rate", rate)
    return bind(_constant, rate=rate)


def _constant(step: Any, *, rate: Any) -> jax.Array:
    return jnp.asarray(rate, float)


def exponential_decay(rate: Any, decay: Any, steps_per_epoch: int) -> Schedule:
    """`rate * decay**epoch`: the rate is multiplied by `decay` after every epoch.

    It is CS231n's `lr_decay`: constant within an epoch, epoch = step // steps_per_epoch.

    Args:
      rate: the learning rate of the first epoch; may be traced.
      decay: the factor per epoch, above 0, usually below 1; may be traced.
      steps_per_epoch: the number of updates in an epoch.
    Returns:
      `schedule(step) -> learning rate`.
    Raises:
      ValueError: a number is out of its range.
      TypeError: it is no number, or a count no integer.
    Example:
      >>> schedule = fn.exponential_decay(1.0, decay=0.5, steps_per_epoch=2)
      >>> [round(float(schedule(step)), 2) for step in range(5)]
      [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    LEARNING_RATE.check("rate", rate)
    LEARNING_RATE_DECAY.check("decay", decay)
    steps_per_epoch = checks.COUNT.check("steps_per_epoch", steps_per_epoch)
    return bind(_exponential, rate=rate, decay=decay, steps_per_epoch=steps_per_epoch)


def _exponential(step: Any, *, rate: Any, decay: Any, steps_per_epoch: int) -> jax.Array:
    epoch = jnp.asarray(step) // steps_per_epoch
    with jax.numpy_dtype_promotion("standard"):  # a whole power, which the strict mode refuses
        factor = jnp.power(jnp.asarray(decay, float), epoch)
    return jnp.asarray(rate, float) * factor


def step_decay(rate: Any, decay: Any, every: int) -> Schedule:
    """`rate * decay**(step // every)`: the rate falls in steps, each `every` updates long.

    Args:
      rate: the first learning rate; may be traced.
      decay: the factor, above 0, usually below 1; may be traced.
      every: the number of updates between two falls.
    Returns:
      `schedule(step) -> learning rate`.
    Raises:
      ValueError: a number is out of its range.
      TypeError: it is no number, or a count no integer.
    Example:
      >>> schedule = fn.step_decay(1.0, decay=0.5, every=2)
      >>> [round(float(schedule(step)), 2) for step in range(5)]
      [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    every = checks.COUNT.check("every", every)
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
    Raises:
      ValueError: a number is out of its range.
      TypeError: it is no number, or a count no integer.
    Example:
      >>> schedule = fn.cosine_decay(1.0, total_steps=4)
      >>> [round(float(schedule(step)), 2) for step in range(5)]
      [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    LEARNING_RATE.check("rate", rate)
    checks.FRACTION.check("final_fraction", final_fraction)
    total_steps = checks.COUNT.check("total_steps", total_steps)
    return bind(_cosine, rate=rate, total_steps=total_steps, final_fraction=final_fraction)


def _cosine(step: Any, *, rate: Any, total_steps: int, final_fraction: Any) -> jax.Array:
    t = jnp.asarray(step, float) / total_steps
    return jnp.asarray(rate, float) * _half_cosine(t, final_fraction)


def _half_cosine(t: jax.Array, final_fraction: Any) -> jax.Array:
    """From 1 at t = 0 and before to `final_fraction` at t = 1 and after."""
    share = 0.5 * (1 + jnp.cos(math.pi * jnp.clip(t, 0, 1)))
    return jnp.asarray(final_fraction, float) + jnp.asarray(1 - final_fraction, float) * share


def flat_cosine(rate: Any, total_steps: int, *, flat: Any = 0.5) -> Schedule:
    """`rate` for the first half, then half a cosine down to 0, as RealMLP has it for dropout and
    weight decay (Holzmueller et al. 2024, arXiv 2407.04491).

    With t = step / total_steps, and u = (t - flat) / (1 - flat), at least 0 and at most 1:

        rate * (1 + cos(pi u)) / 2

    Args:
      rate: the first rate; may be traced.
      total_steps: the number of updates until the end.
      flat: the share of the updates before the fall, 0 to 1; may be traced.
    Returns:
      `schedule(step) -> rate`.
    Raises:
      ValueError: a number is out of its range.
      TypeError: it is no number, or a count no integer.
    Example:
      >>> schedule = fn.flat_cosine(1.0, total_steps=8)
      >>> [round(float(schedule(step)), 2) for step in range(0, 9, 2)]
      [1.0, 1.0, 1.0, 0.5, 0.0]
    """
    LEARNING_RATE.check("rate", rate)
    checks.FRACTION.check("flat", flat)
    total_steps = checks.COUNT.check("total_steps", total_steps)
    return bind(_flat_cosine, rate=rate, total_steps=total_steps, flat=flat)


def _flat_cosine(step: Any, *, rate: Any, total_steps: int, flat: Any) -> jax.Array:
    start = jnp.asarray(flat * total_steps, float)
    share = (jnp.asarray(step, float) - start) / jnp.maximum(total_steps - start, 1)
    return jnp.asarray(rate, float) * _half_cosine(share, 0)


def coslog4(rate: Any, total_steps: int) -> Schedule:
    """Four waves between 0 and `rate`, each about twice as long as the one before (Holzmueller et
    al. 2024, arXiv 2407.04491, the learning rates of RealMLP).

    With t = step / total_steps, at most 1:

        rate * (1 - cos(2 pi log2(1 + 15 t))) / 2

    The first update has a rate of 0, and so would have one after the last.

    Args:
      rate: the largest learning rate; may be traced.
      total_steps: the number of updates in all.
    Returns:
      `schedule(step) -> learning rate`.
    Raises:
      ValueError: a number is out of its range.
      TypeError: it is no number, or a count no integer.
    Example:
      >>> schedule = fn.coslog4(1.0, total_steps=1500)
      >>> [round(float(schedule(step)), 1) for step in (0, 41, 100, 183, 300)]
      [0.0, 1.0, 0.0, 1.0, 0.0]
    """
    LEARNING_RATE.check("rate", rate)
    return bind(_coslog4, rate=rate, total_steps=checks.COUNT.check("total_steps", total_steps))


def _coslog4(step: Any, *, rate: Any, total_steps: int) -> jax.Array:
    t = jnp.clip(jnp.asarray(step, float) / total_steps, 0, 1)
    # (1 - cos 2 a) / 2 = sin(a)^2, which keeps its digits where it is small.
    return jnp.asarray(rate, float) * jnp.square(jnp.sin(math.pi * jnp.log2(1 + 15 * t)))


def complement(schedule: Any) -> Schedule:
    """`1 - schedule(step)`: the share to keep, by a schedule of the share to drop.

        dropout(complement(flat_cosine(0.15, total_steps)))  # drops 15 % at first, nothing at last

    Args:
      schedule: a schedule, or a number, which may be traced.
    Returns:
      `schedule(step) -> share`.
    Raises:
      ValueError: a number is not above 0.
      TypeError: schedule is neither a number nor a function.
    Example:
      >>> schedule = fn.complement(fn.flat_cosine(0.5, total_steps=4))
      >>> [round(float(schedule(step)), 2) for step in range(5)]
      [0.5, 0.5, 0.5, 0.75, 1.0]
    """
    if not callable(schedule):
        schedule = constant(schedule)
    return bind(_complement, schedule=schedule)


def _complement(step: Any, *, schedule: Schedule) -> jax.Array:
    return 1 - jnp.asarray(schedule(step), float)


def warmup(schedule: Any, warmup_steps: int) -> Schedule:
    """A schedule with a linear start: its k-th rate, k from 1, times `min(k / warmup_steps, 1)`.

    The schedule itself is not shifted: after the start it goes on as if it had been there.

    Args:
      schedule: a schedule, or a number, which may be traced.
      warmup_steps: the number of updates until the full rate.
    Returns:
      `schedule(step) -> learning rate`.
    Raises:
      ValueError: a number is not above 0, or warmup_steps below 1.
      TypeError: schedule is neither a number nor a function, or warmup_steps no integer.
    Example:
      >>> schedule = fn.warmup(1.0, warmup_steps=4)
      >>> [round(float(schedule(step)), 2) for step in range(5)]
      [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if not callable(schedule):
        schedule = constant(schedule)
    warmup_steps = checks.COUNT.check("warmup_steps", warmup_steps)
    return bind(_warmed, schedule=schedule, warmup_steps=warmup_steps)


def _warmed(step: Any, *, schedule: Schedule, warmup_steps: int) -> jax.Array:
    share = jnp.clip((jnp.asarray(step, float) + 1) / warmup_steps, 0, 1)
    return share * jnp.asarray(schedule(step), float)


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
    Raises:
      ValueError: a number is out of its range.
      TypeError: it is no number, or a count no integer.
    Example:
      >>> schedule = fn.one_cycle(1.0, total_steps=8, warmup_fraction=0.5)
      >>> [round(float(schedule(step)), 2) for step in range(8)]
      [0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.5, 0.15]
    """
    LEARNING_RATE.check("rate", rate)
    WARMUP.check("warmup_fraction", warmup_fraction)
    checks.FRACTION.check("first_fraction", first_fraction)
    checks.FRACTION.check("final_fraction", final_fraction)
    return bind(
        _one_cycle,
        rate=rate,
        total_steps=checks.COUNT.check("total_steps", total_steps),
        warmup_fraction=warmup_fraction,
        first_fraction=first_fraction,
        final_fraction=final_fraction,
    )


def _one_cycle(
    step: Any,
    *,
    rate: Any,
    total_steps: int,
    warmup_fraction: Any,
    first_fraction: Any,
    final_fraction: Any,
) -> jax.Array:
    count = jnp.asarray(step, float)
    rising = jnp.round(jnp.asarray(warmup_fraction * total_steps, float))
    first, climb = (jnp.asarray(n, float) for n in (first_fraction, 1 - first_fraction))
    up = first + climb * (count + 1) / (rising + 1)
    down = _half_cosine((count - rising) / jnp.maximum(total_steps - rising, 1), final_fraction)
    return jnp.asarray(rate, float) * jnp.where(count < rising, up, down)


def _constant_of_run(rate: Any) -> Any:
    LEARNING_RATE.check("rate", rate)
    return rate  # as it is: what is taken of numbers alone is taken in double precision


def _step_of_run(rate: Any, decay: Any, decay_every: int, steps_per_epoch: int) -> Schedule:
    decay_every = DECAY_EVERY.check("decay_every", decay_every)
    steps_per_epoch = checks.COUNT.check("steps_per_epoch", steps_per_epoch)
    return step_decay(rate, decay, decay_every * steps_per_epoch)


def _one_cycle_of_run(rate: Any, total_steps: int, warmup: Any = None) -> Schedule:
    given = {} if warmup is None else {"warmup_fraction": warmup}
    return one_cycle(rate, total_steps, **given)


# The only list of schedules that have a name. To add one, write the function, and a row: its
# parameters are what it takes of a run, by the names that they have in `named_schedule`.
SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": _constant_of_run,
    "exponential": exponential_decay,
    "step": _step_of_run,
    "cosine": cosine_decay,
    "one_cycle": _one_cycle_of_run,
    "flat_cosine": flat_cosine,
    "coslog4": coslog4,
}


def named_schedule(
    name: str,
    *,
    rate: Any,
    decay: Any = None,
    decay_every: int = 1,
    steps_per_epoch: int,
    total_steps: int,
    warmup: Any = None,
) -> Any:
    """The learning rate of a run, by the name of its schedule.

    Args:
      name: a key of `SCHEDULES`.
      rate: the learning rate; may be traced.
      decay: the factor of the schedules that take one, which need it; may be traced.
      decay_every: the number of epochs between two decays, of the schedules that take it.
      steps_per_epoch: the number of updates in an epoch.
      total_steps: the number of updates in all.
      warmup: the share of the updates until the full rate, 0 to 1; None is what the schedule
        does by itself. Of a schedule that takes no share it is the linear start of `warmup`.
    Returns:
      A schedule; or `rate` itself where it is constant.
    Raises:
      ValueError: there is no such schedule; or it does not take what is given, or needs what is
        not; or a number is out of its range.
    """
    make = checks.choose("schedule", name, SCHEDULES)
    run = {
        "rate": rate,
        "decay": decay,
        "decay_every": decay_every,
        "steps_per_epoch": steps_per_epoch,
        "total_steps": total_steps,
        "warmup": warmup,
    }
    for option, missing in (("decay", decay is None), ("decay_every", decay_every == 1)):
        if not missing and not takes(name, option):
            raise ValueError(f"{option} is for {takers(option)}, not for {name}")
    if decay is None and takes(name, "decay"):
        raise ValueError(f"decay must be given for {takers('decay')}")
    if warmup is not None:
        WARMUP.check("warmup", warmup)
    schedule = make(**{option: value for option, value in run.items() if takes(name, option)})
    return schedule if takes(name, "warmup") else _with_start(schedule, warmup, total_steps)


def _with_start(schedule: Any, share: Any, total_steps: int) -> Any:
    return warmup(schedule, math.ceil(share * total_steps)) if share else schedule


def takes(name: str, option: str) -> bool:
    """Whether the schedule of this name takes an option."""
    return option in inspect.signature(SCHEDULES[name]).parameters


def takers(option: str) -> str:
    """The schedules that take an option, in words."""
    names = [name for name in SCHEDULES if takes(name, option)]
    return f"the schedule{'s' * (len(names) > 1)} {' and '.join(names)}"
