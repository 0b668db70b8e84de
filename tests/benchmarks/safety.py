"""What it costs that nothing is lost: checkpoints, and looking for what is not finite."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax

import funcnet as fn
from funcnet import train

from . import data
from .measure import Result, Row, Run, in_turn, seconds


class Blind:
    """In place of what looks at the state of a run: all is well."""

    def __init__(self, held: Any, *, looks: bool) -> None:
        pass

    def is_well(self, held: Any, losses: Any, *, now: bool) -> bool:
        """Whether all is finite."""
        return True


@contextmanager
def blind() -> Iterator[None]:
    """Nothing is looked at."""
    watch = train.Watch
    train.Watch = Blind  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        train.Watch = watch  # type: ignore[misc]


def measure(run: Run) -> Result:
    """Runs of the digits and of images with and without."""
    rows = []
    for name, dataset, dims, epochs, batch_size in (
        ("digits 256-256", fn.load_digits(), [256, 256], run.size(500, 2), 50),
        ("CIFAR-10 100x5", data.cifar10(run.size(49_000, 1_000)), [100] * 5, run.size(6, 1), 200),
    ):
        options = {"epochs": epochs, "batch_size": batch_size, "key": jax.random.key(0)}
        made = fn.mlp(dims, 10, weight_scale=5e-2), fn.adam(1e-3), dataset
        fit = partial(fn.fit, *made, eval_every=None, **options)
        actions: dict[str, Callable[[], float]] = {
            f"{name}, as it is": partial(seconds, fit),
            f"{name}, nothing looked at": partial(_blind, fit),
            f"{name}, with checkpoints": partial(_kept, fit),
            f"{name}, bad updates skipped": partial(seconds, partial(fit, on_nonfinite="skip")),
        }
        for action in actions.values():  # compile
            action()
        samples, base = in_turn(actions, run.rounds), f"{name}, nothing looked at"
        rows += [Row(each, taken, base=base) for each, taken in samples.items()]
    notes = ["checkpoints as often as takes 1 % of the time, the last one after the last epoch"]
    return Result("safety", "checkpoints and looking for what is not finite", rows, notes)


def _blind(fit: Callable[[], Any]) -> float:
    with blind():
        return seconds(fit)


def _kept(fit: Callable[..., Any]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return seconds(partial(fit, checkpoint=folder))
