"""Trainings: who takes part, the check that all compute the same, and their times in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

import funcnet as fn

from .measure import Result, Row, Run, in_turn, installed, log
from .ours import Funcnet, by_autodiff, make_problem
from .problem import Peer, Problem
from .rates import layer_rows, square_samples

STEPS = 50  # whose losses must agree
TOLERANCE = 1e-3  # of a loss, relative; or, by the step at hand,
MARGIN = 3  # times as far as this change of the initial parameters moves the losses of funcnet:
ROUNDINGS = 16  # float32 roundings of each, about what a sum of some hundred products is off by
PERTURBATIONS = 4  # such changes that are tried


@dataclass(frozen=True)
class Training:
    """A training to be timed: a net, its data and the settings of Adam.

    Attributes:
      name, about: the workload, and what it is.
      data: makes the Dataset of a number of training examples.
      examples, quick_examples: how many; multiples of the batch size.
      products: whether the matrix products of its layers are measured alone, too.
      The others are arguments of `mlp` and `fit`.
    """

    name: str
    about: str
    data: Callable[[int], fn.Dataset]
    examples: int
    quick_examples: int
    hidden_dims: Sequence[int]
    num_classes: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_scale: Any = None
    normalization: str | None = None
    keep_prob: float | None = None
    preprocess: Callable[[Any], fn.Preprocess] | None = fn.subtract_mean
    products: bool = False

    def net(self, **options: Any) -> fn.Layer:
        """The net; options are others of `mlp`."""
        return fn.mlp(
            self.hidden_dims,
            self.num_classes,
            normalization=self.normalization,
            keep_prob=self.keep_prob,
            weight_scale=self.weight_scale,
            **options,
        )


class Case:
    """A Training of a size: its data, once, and implementations of it."""

    def __init__(self, training: Training, count: int) -> None:
        self.training, self.count = training, count
        self.key = jax.random.key(0)
        self.dataset = training.data(count)
        fit = training.preprocess
        self.preprocess = None if fit is None else fit(self.dataset.x_train)

    @cached_property
    def problem(self) -> Problem:
        """What the peers are given."""
        training = self.training
        return make_problem(
            training.net(),
            self.dataset,
            self.preprocess,
            self.key,
            normalization=training.normalization,
            keep_prob=training.keep_prob,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            steps=STEPS,
        )

    def ours(self, net: fn.Layer | None = None) -> Funcnet:
        """funcnet, with this net or its own."""
        net = self.training.net() if net is None else net
        return Funcnet(self.problem, net, self.dataset, self.preprocess, self.key)

    def without_dropout(self) -> "Case":
        """The same with no dropout, which is random in each its own way."""
        if self.training.keep_prob is None:
            return self
        return Case(replace(self.training, keep_prob=None), self.count)


@dataclass(frozen=True)
class Implementation:
    """Who may take part in a training.

    Attributes:
      make: makes it of a Case.
      module: what must be installed.
      refuses: why it has no such net, if so.
      exempt: why its losses cannot be compared, if so.
      tolerance: how far its losses may be off.
    """

    make: Callable[[Case], Peer]
    module: str = "funcnet"
    refuses: Callable[[Problem], str | None] = lambda problem: None
    exempt: Callable[[Problem], str | None] = lambda problem: None
    tolerance: float = TOLERANCE


def _peer(module: str, name: str) -> Callable[[Case], Peer]:
    """Makes a peer of a module that is imported only then."""

    def make(case: Case) -> Peer:
        package = __package__ or "benchmarks"
        imported = __import__(f"{package}.{module}", fromlist=[name])
        return getattr(imported, name)(case.problem)

    return make


def _refused_by_sklearn(problem: Problem) -> str | None:
    has = problem.normalization or problem.keep_prob
    return "it has neither normalization nor dropout" if has else None


def _exempt_of_sklearn(problem: Problem) -> str | None:
    two = problem.num_classes == 2
    return "of two classes it has one logistic output: losses not compared" if two else None


OURS, AUTODIFF = "funcnet", "funcnet, autodiff"
IMPLEMENTATIONS: Mapping[str, Implementation] = {
    OURS: Implementation(lambda case: case.ours()),
    AUTODIFF: Implementation(lambda case: case.ours(by_autodiff(case.training.net()))),
    "JAX loop": Implementation(_peer("jax_peers", "JaxLoop")),
    "JAX scan": Implementation(_peer("jax_peers", "JaxScan")),
    "NumPy": Implementation(_peer("numpy_peers", "NumpyPeer")),
    "PyTorch": Implementation(_peer("torch_peers", "TorchEager"), "torch"),
    "PyTorch, compiled": Implementation(_peer("torch_peers", "TorchCompiled"), "torch"),
    "scikit-learn": Implementation(
        _peer("numpy_peers", "SklearnPeer"),
        "sklearn",
        _refused_by_sklearn,
        _exempt_of_sklearn,
        tolerance=0.1,  # its Adam adds epsilon before the bias correction
    ),
}


def disagreement(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The relative difference of two courses of losses at each step; infinite at a NaN."""
    difference = np.abs(losses - reference) / np.abs(reference)
    return np.where(np.isfinite(difference), difference, np.inf)


def sensitivity(case: Case, reference: np.ndarray) -> np.ndarray:
    """How far the losses of funcnet have gone by each step, if its parameters are a little off.

    A deep net may take another course after a dozen steps, by a unit that is dead or is not.
    """
    furthest = np.zeros(len(reference))
    for seed in range(PERTURBATIONS):
        ours, rng = case.ours(), np.random.default_rng(seed)
        x, key = case.dataset.x_train[:1], case.key
        shape = (case.preprocess(x) if case.preprocess else x).shape[1:]
        state = fn.init_train_state(ours.net, ours.optimizer, shape, key=key)

        def rounded(leaf: Any, rng: np.random.Generator = rng) -> Any:
            signs = rng.choice(np.float32([-1, 1]), leaf.shape)
            return leaf * (1 + ROUNDINGS * np.finfo(np.float32).eps * signs)

        ours.train_state = state._replace(params=jax.tree.map(rounded, state.params))
        furthest = np.maximum(furthest, disagreement(ours.losses(len(reference)), reference))
    return np.maximum.accumulate(furthest)


def check(
    case: Case, implementations: Mapping[str, Implementation] = IMPLEMENTATIONS
) -> dict[str, str]:
    """What is said of each implementation's first losses; of one that may not be timed, REFUSED.

    Each starts from the same parameters, with the same batches, without dropout.
    """
    case = case.without_dropout()
    reference = case.ours().losses(STEPS)
    moved = sensitivity(case, reference)
    course = f" (ours, perturbed: {moved[-1]:.0e})" if moved[-1] > TOLERANCE else ""
    said = {}
    for name, each in implementations.items():
        reason = each.refuses(case.problem) or each.exempt(case.problem)
        if not installed(each.module) or reason:
            said[name] = reason or f"not installed: {each.module}"
            continue
        try:
            errors = disagreement(each.make(case).losses(STEPS), reference)
        except Exception as failure:  # a compiler that is not there, for one
            said[name] = f"REFUSED: {type(failure).__name__}: {str(failure).splitlines()[:1]}"
            continue
        agrees = (errors <= np.maximum(each.tolerance, MARGIN * moved)).all()
        verdict = "" if agrees else "REFUSED: "
        said[name] = f"{verdict}losses of {STEPS} steps differ by {errors.max():.0e}{course}"
    return said


def warm(peer: Peer, least: float) -> Callable[[], float]:
    """A sample of the seconds of an epoch, of so many at once as take `least`; compiled before."""
    peer.epochs(1)
    count = max(1, min(200, round(least / peer.epochs(1))))
    if count > 1:
        peer.epochs(count)
    return lambda: peer.epochs(count)


def measure(training: Training, run: Run) -> Result:
    """Check a training, and time it."""
    case = Case(training, run.size(training.examples, training.quick_examples))
    problem = case.problem
    said, samplers = check(case), {}
    for name, each in IMPLEMENTATIONS.items():
        log(f"{name}: {said[name]}")
        reason = each.refuses(problem)  # with dropout, now
        if reason or not installed(each.module):
            said[name] = f"not measured: {reason or said[name]}"
        elif not said[name].startswith("REFUSED"):
            peer = each.make(case)
            said[name] += peer.tune()
            samplers[name] = warm(peer, run.least)
    rates = square_samples(run)
    samples = in_turn({**samplers, **rates}, run.rounds)
    rate = max(float(np.median(samples[name])) for name in rates)
    floor = problem.flop / rate
    rows = [
        Row(name, samples.get(name, []), "s", base=OURS, floor=floor, note=note)
        for name, note in said.items()
    ]
    rows += [Row(name, samples[name], "FLOP/s") for name in rates]
    if training.products:
        rows += layer_rows(run, problem.shapes)
    notes = [
        f"an epoch of {case.count:,} examples, {case.count // problem.batch_size:,} steps; "
        f"floor: {problem.flop / 1e9:.3g} GFLOP of matrix products at {rate / 1e9:.4g} GFLOP/s",
        f"losses may differ by {TOLERANCE:g}, or by {MARGIN} times what {ROUNDINGS} roundings of "
        "the initial parameters do to ours",
        "hand-written / autodiff: " + _ratio(samples, OURS, AUTODIFF),
    ]
    return Result(training.name, training.about, rows, notes)


def _ratio(samples: Mapping[str, Sequence[float]], one: str, other: str) -> str:
    if one not in samples or other not in samples:
        return "not measured"
    return f"{np.median(np.divide(samples[one], samples[other])):.2f} of the time"
