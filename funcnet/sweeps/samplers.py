"""Samplers: which settings are tried next, given what earlier ones came to.

    random   drawn at random, as `random_search` does; what was found changes nothing
    tpe      tree-structured Parzen estimators (Bergstra et al. 2011; of batches, with what is being
             tried counted as bad; Watanabe 2023, arXiv 2304.11127), by Optuna

What is proposed is a function of the seed, the number of the batch and what was found before it:
nothing else is kept.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet import checks
from funcnet.sweeps.search import (
    Distribution,
    Integers,
    LogUniform,
    Settings,
    Space,
    draw,
    ends_of,
    identity,
    random_search,
    size_of,
)

_TRIES = 100_000  # of draws, for settings that were not tried yet


class Tried(NamedTuple):
    """Settings, and what they came to.

    Attributes:
      settings: the settings.
      values: of each objective, the mean over seeds; None if a member diverged.
      stopped_after: the epoch after which halving stopped them; None if they were not.
    """

    settings: Settings
    values: tuple[float, ...] | None
    stopped_after: int | None


class Batch(NamedTuple):
    """What is to be proposed.

    Attributes:
      space: a checked space.
      wanted: how many settings.
      seed: of the search.
      less: of each objective, whether less is better.
    """

    space: Space
    wanted: int
    seed: int
    less: tuple[bool, ...]


def _random(batch: Batch, tried: Sequence[Tried]) -> list[Settings]:
    drawn = random_search(
        jax.random.key(batch.seed), len(tried) + batch.wanted, **dict(batch.space)
    )
    return drawn[len(tried) :]


def _tpe(batch: Batch, tried: Sequence[Tried]) -> list[Settings]:
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    space = batch.space
    entropy = np.random.SeedSequence([batch.seed, len(tried)]).generate_state(5)
    sampler = TPESampler(seed=int(entropy[0]), constant_liar=True)
    rng = np.random.default_rng(entropy[1:])
    seen = {identity(each.settings) for each in tried}
    proposed: list[Settings] = []
    distributions = {name: _distribution(axis) for name, axis in space.items()}
    with quiet():
        study = _study(batch, tried, sampler, distributions)
        while len(proposed) < batch.wanted:
            trial = study.ask(distributions)
            settings = {name: _value(space[name], trial.params[name]) for name in space}
            if identity(settings) in seen:
                study.tell(trial, state=TrialState.FAIL)
                settings = _unseen(space, rng, seen)
                study.add_trial(_trial(settings, distributions, space, state=TrialState.RUNNING))
            seen.add(identity(settings))
            proposed.append(settings)
    return proposed


SAMPLERS: Mapping[str, Callable[[Batch, Sequence[Tried]], list[Settings]]] = {
    "random": _random,
    "tpe": _tpe,
}


def check_sampler(name: str, space: Space, samples: int) -> None:
    """Raise unless a sampler is there, and finds so many settings in a space.

    Raises:
      ImportError: it needs a package that is not installed. ValueError: it says why.
    """
    checks.choose("sampler", name, SAMPLERS)
    if name != "random":
        checks.installed("optuna", f"for the sampler {name}", "search")
    if not any(len(ends_of(axis)) > 1 for axis in space.values()):
        raise ValueError("there is nothing to search: give a setting a range, or several values")
    if samples > size_of(space):
        raise ValueError(
            f"there are only {size_of(space):,} different settings, and samples is {samples:,}: "
            "ask for fewer, or train them all, as a grid"
        )


def propose(name: str, batch: Batch, tried: Sequence[Tried]) -> list[Settings]:
    """Settings that were not tried before, so many as the batch has."""
    return SAMPLERS[name](batch, tried)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its messages, of a study that is made and the like."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _study(
    batch: Batch, tried: Sequence[Tried], sampler: Any, distributions: Mapping[str, Any]
) -> Any:
    """A study that knows what was tried.

    Settings of which a member diverged are pruned before anything was seen of them, and count as
    worse than all others; those that halving stopped are pruned at its epoch.
    """
    import optuna

    study = optuna.create_study(
        directions=["minimize" if less else "maximize" for less in batch.less], sampler=sampler
    )
    for each in tried:
        facts: dict[str, Any] = {"state": optuna.trial.TrialState.PRUNED}
        if each.values is not None and each.stopped_after is None:
            facts = {"state": optuna.trial.TrialState.COMPLETE, "values": each.values}
        elif each.values is not None:
            facts["intermediate_values"] = {each.stopped_after: each.values[0]}
        study.add_trial(_trial(each.settings, distributions, batch.space, **facts))
    return study


def _trial(settings: Settings, distributions: Mapping[str, Any], space: Space, **facts: Any) -> Any:
    from optuna.trial import create_trial

    params = {name: _param(space[name], settings[name]) for name in space}
    return create_trial(params=params, distributions=dict(distributions), **facts)


def _distribution(axis: Distribution | Sequence[Any]) -> Any:
    """An axis for Optuna: values are numbered, whatever they are."""
    from optuna import distributions as optunas

    if isinstance(axis, Integers):
        return optunas.IntDistribution(axis.low, axis.high)
    if isinstance(axis, Distribution):
        return optunas.FloatDistribution(axis.low, axis.high, log=isinstance(axis, LogUniform))
    return optunas.CategoricalDistribution(range(len(axis)))


def _value(axis: Distribution | Sequence[Any], param: Any) -> Any:
    return param if isinstance(axis, Distribution) else axis[param]


def _param(axis: Distribution | Sequence[Any], value: Any) -> Any:
    if isinstance(axis, Distribution):
        return value
    kinds = [(type(each), each) for each in axis]  # 1, 1.0 and True are not the same
    return kinds.index((type(value), value))


def _unseen(space: Space, rng: np.random.Generator, seen: set[Any]) -> Settings:
    """Settings drawn at random that were not seen yet."""
    for _ in range(_TRIES):
        settings = draw(space, rng)
        if identity(settings) not in seen:
            return settings
    raise ValueError(
        f"{_TRIES:,} draws found no settings that were not tried: ask for fewer samples"
    )
