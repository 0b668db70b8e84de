"""The workloads by name: trainings, and functions that give a Result."""

from collections.abc import Callable, Mapping
from functools import partial

from . import growth, inference, memory, safety, special, start, sweeps, training
from .measure import Result, Run
from .trainings import TRAININGS

WORKLOADS: Mapping[str, tuple[str, Callable[[Run], Result]]] = {
    **{name: (each.about, partial(training.measure, each)) for name, each in TRAININGS.items()},
    "sweep9": ("nine members of a sweep on CIFAR-10", sweeps.nine),
    "members1000": ("1,000 seeds of 64-100-10", sweeps.thousand),
    "members2048": ("2,048 seeds of 64-100-10 beside 250 of PyTorch", sweeps.two_thousand),
    "evaluate": ("evaluation of 50,000 images", inference.evaluate),
    "predict": ("one row at a time; a large input in pieces", inference.predict),
    "start": ("imports, first steps, the command", start.measure),
    "memory": ("peaks of memory in training", memory.measure),
    "safety": ("checkpoints, and looking for what is not finite", safety.measure),
    "precision": ("products of bfloat16 factors", special.precision),
    "growth": ("time, memory and compiling over sizes", growth.measure),
    "gpu": ("what only a GPU can show", special.gpu),
}
