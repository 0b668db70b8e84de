"""Many nets at once by `fn.sweep`, beside others that train them one after another."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import funcnet as fn

from .measure import Result, Row, Run, installed, seconds
from .training import IMPLEMENTATIONS, Case, warm
from .trainings import TRAININGS

ASSIGNMENT, SMALL = TRAININGS["cifar100x5"], TRAININGS["digits100"]
RATES, SCALES = (1e-3, 2e-3, 3e-4), (2e-2, 5e-2, 6e-2)


def experiment(learning_rate: Any, weight_scale: Any) -> tuple[fn.Layer, fn.Optimizer]:
    """The assignment's net."""
    return fn.mlp(ASSIGNMENT.hidden_dims, 10, weight_scale=weight_scale), fn.adam(learning_rate)


def small(learning_rate: Any) -> Any:
    """The net for the digits."""
    return fn.mlp(SMALL.hidden_dims, 10), fn.adam(learning_rate), {"preprocess": fn.standardize}


def nine(run: Run) -> Result:
    """Nine members, in turn with others: these take their samples in the sweep's callback."""
    count = run.size(ASSIGNMENT.examples, ASSIGNMENT.quick_examples)
    case = Case(ASSIGNMENT, count)
    samples: dict[str, list[float]] = {"funcnet": []}
    samplers: dict[str, Callable[[], float]] = {}
    for name in ("JAX scan", "PyTorch"):
        if installed(IMPLEMENTATIONS[name].module):
            peer = IMPLEMENTATIONS[name].make(case)
            peer.tune()
            samplers[name] = warm(peer, 0)
            samples[name] = []
    clock = {"done": 0, "at": time.perf_counter()}

    def callback(done: int, total: int, members: Any) -> None:
        epochs, elapsed = done - clock["done"], time.perf_counter() - clock["at"]
        if clock["done"]:  # the first one compiles
            samples["funcnet"].append(9 * elapsed / epochs)
            for name, sampler in samplers.items():
                samples[name].append(9 * sampler())
        clock.update(done=done, at=time.perf_counter())

    settings = fn.grid(learning_rate=list(RATES), weight_scale=list(SCALES))
    options = {"key": jax.random.key(0), "batch_size": ASSIGNMENT.batch_size, "eval_every": None}
    epochs = run.rounds + 1
    fn.sweep(experiment, case.dataset, settings, epochs=epochs, callback=callback, **options)
    rows = [Row(name, taken, base="funcnet") for name, taken in samples.items()]
    notes = ["the others: the time of one net, nine times"]
    about = "the assignment's nine settings on CIFAR-10, an epoch of all"
    return Result("sweep9", about, rows, notes)


def thousand(run: Run) -> Result:
    """A thousand seeds, from the call to the result, with evaluation after each epoch."""
    count, epochs = run.size(1000, 32), run.size(20, 3)
    digits = fn.load_digits()
    settings = fn.grid(learning_rate=[3e-3], seed=range(count))
    before = time.perf_counter()
    result = fn.sweep(small, digits, settings, epochs=epochs, batch_size=100)
    elapsed = time.perf_counter() - before
    accuracies = [
        fn.evaluate(member.best, digits.x_test, digits.y_test).accuracy for member in result.members
    ]
    about = f"{count:,} seeds of {SMALL.about}, {epochs} epochs, compiling and evaluation included"
    rows = [
        Row("funcnet", [elapsed]),
        Row("test accuracy", [100 * each for each in accuracies], "%", note="of the members"),
    ]
    return Result("members1000", about, rows)


def two_thousand(run: Run) -> Result:
    """2,048 members, compiling included, against PyTorch's time for 250."""
    count, peers, epochs = run.size(2048, 64), run.size(250, 8), 10
    case = Case(SMALL, SMALL.examples)
    settings = fn.grid(learning_rate=[3e-3], seed=range(count))
    options = {"epochs": epochs, "batch_size": 100, "eval_every": None}
    ours = seconds(lambda: fn.sweep(small, case.dataset, settings, **options))
    about = f"{SMALL.about}, {epochs} epochs"
    rows = [Row(f"funcnet, {count:,} nets, compiling included", [ours])]
    if not installed("torch"):
        return Result("members2048", about, [*rows, Row("PyTorch", note="not installed")])
    make = IMPLEMENTATIONS["PyTorch"].make
    tried = make(case)
    tried.tune()

    def one_net() -> float:
        peer = make(case)
        peer.threads = tried.threads
        return epochs * peer.epochs(epochs)

    samples = [peers * one_net() for _ in range(run.rounds)]
    rows.append(Row(f"PyTorch, {peers} nets", samples, base=rows[0].name))
    notes = [f"PyTorch: {run.rounds} nets were trained, one after another, and multiplied"]
    return Result("members2048", about, rows, notes)


def nine_and_one(run: Run) -> list[Row]:
    """An epoch of nine members in one chunk, and of one; for a GPU."""
    case = Case(ASSIGNMENT, run.size(ASSIGNMENT.examples, ASSIGNMENT.quick_examples))
    rows = []
    for count in (1, 9):
        settings = fn.grid(learning_rate=list(np.geomspace(3e-4, 2e-3, count)), weight_scale=[5e-2])
        ends: list[float] = []
        fn.sweep(
            experiment,
            case.dataset,
            settings,
            epochs=run.rounds + 2,
            batch_size=ASSIGNMENT.batch_size,
            eval_every=None,
            chunk_size=count,
            callback=lambda *_, ends=ends: ends.append(time.perf_counter()),
        )
        samples = np.diff(ends)[1:].tolist()
        rows.append(Row(f"sweep of {count}, an epoch", samples, base="sweep of 1, an epoch"))
    return rows
