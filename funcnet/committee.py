"""Several models as one: a committee whose probabilities, or predictions, are averaged."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.ensembles import ensemble, stacked
from funcnet.evaluation import evaluate, is_better, merit
from funcnet.layer import named_children
from funcnet.model import Model, check_model, predict_scores
from funcnet.net import serial
from funcnet.preprocess import no_preprocess
from funcnet.targets import Targets
from funcnet.tree import FrozenDict

__all__ = ["join_models", "select_models"]


def join_models(models: Sequence[Model]) -> Model:
    """Models of one task as one Model: what they predict is averaged.

    That are probabilities of classes and of labels, or predictions of regression. Those of one net
    are `stacked`, others side by side in an `ensemble`; a model may be there several times, and
    counts as often. The result is saved, evaluated and asked like any other; what it gives is
    scores [N, M, C] of M members, which evaluation combines.

    Args:
      models: Models that take the same inputs, with equal preprocessing, such as the best ones of a
        sweep's members.
    Returns:
      A Model.
    Raises:
      ValueError: there is none, or they do not go together: it says why.
      TypeError: one is no Model.
    Example:
      >>> net, x = fn.mlp([4], 2), np.ones((5, 3), "f")
      >>> models = []
      >>> for seed in range(3):
      ...     params, state, _ = net.init(jax.random.key(seed), (3,))
      ...     models.append(fn.Model(net, params, state, fn.no_preprocess(x)))
      >>> committee = fn.join_models(models)
      >>> mean = np.mean([fn.predict_proba(model, x) for model in models], axis=0)
      >>> np.allclose(fn.predict_proba(committee, x), mean, atol=1e-6)
      True
    """
    if isinstance(models, Model) or not isinstance(models, Sequence) or not models:
        raise ValueError("models must be a list of one Model or more")
    for model in models:
        check_model(model)
    first = models[0]
    for i, model in enumerate(models):
        _check_alike(first, model, i)
    if all(model.net == first.net for model in models):
        params, state = (
            jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)
            for trees in ([m.params for m in models], [m.state for m in models])
        )
        net = stacked(first.net, len(models))
    else:
        net = ensemble(*(model.net for model in models))
        names = [name for name, _ in named_children("ensemble", [m.net for m in models])]
        pairs = list(zip(names, models, strict=True))
        params = FrozenDict({name: m.params for name, m in pairs if m.params})
        state = FrozenDict({name: m.state for name, m in pairs if m.state})
    return Model(
        net, params, state, first.preprocess, encoding=first.encoding, targets=first.targets
    )


def select_models(
    models: Sequence[Model],
    x: Any,
    y: Any,
    *,
    size: int = 8,
    monitor: str | None = None,
    sample_weight: Any = None,
) -> list[Model]:
    """Models whose committee is good on examples that they were not trained on, greedily.

    One after another, each time the one is added that makes the committee of those before best; a
    model may come several times. It ends early where none makes it better (Caruana et al. 2004,
    Ensemble selection from libraries of models, sections 2.1 and 2.2).

    Args:
      models: as for `join_models`.
      x, y, sample_weight: examples of validation, as for `evaluate`.
      size: how many at most.
      monitor: what says which committee is better, a measure such as "val_log_loss" of `evaluate`;
        None is log loss of classes, loss of others.
    Returns:
      The models for `join_models`, the first one the best alone; none with scores that are not
      finite.
    Raises:
      ValueError: as for `join_models` and `evaluate`, or no model has finite scores.
    Example:
      >>> net, x, y = fn.mlp([], 2), np.array([[1.0, 0.0], [0.0, 1.0]], "f"), np.array([0, 1])
      >>> models = []
      >>> for factor in (-1, 0, 5):
      ...     params = {"affine1": {"w": factor * np.eye(2, dtype="f"), "b": np.zeros(2, "f")}}
      ...     models.append(fn.Model(net, params, fn.FrozenDict(), fn.no_preprocess(x)))
      >>> chosen = fn.select_models(models, x, y)
      >>> len(chosen), chosen[0] is models[2]
      (1, True)
    """
    size = checks.COUNT.check("size", size)
    join_models(models)  # they go together
    targets = models[0].targets
    if monitor is None:
        of_classes = targets.task == "classification" and targets.gives_probabilities
        monitor = "val_log_loss" if of_classes else "val_loss"
    # Each is asked once; a committee is a model that is given what its members say.
    said = np.stack([predict_scores(model, x) for model in models], axis=1)  # [N, M, C]
    sound = np.flatnonzero(np.isfinite(said).all(axis=(0, 2))).tolist()
    if not sound:
        raise ValueError("every model has scores that are NaN or infinite: none can be chosen")
    committee = Model(serial(), {}, {}, no_preprocess(said), targets=targets)
    chosen: list[int] = []
    best = None
    for _ in range(size):
        merits = {
            i: _merit(committee, said[:, [*chosen, i]], y, sample_weight, monitor) for i in sound
        }
        top = max(sound, key=lambda i: (float(merits[i][0]), float(merits[i][1]), -i))
        if best is not None and not is_better(merits[top], best):
            break
        best = merits[top]
        chosen.append(top)
    return [models[i] for i in chosen]


def _merit(model: Model, x: Any, y: Any, weight: Any, monitor: str) -> tuple[Any, Any]:
    measured = evaluate(model, x, y, sample_weight=weight)._asdict()
    known = {f"val_{k}": v for k, v in measured.items() if isinstance(v, int | float)}
    name = monitor.removeprefix("-")
    if name not in known:
        raise ValueError(checks.unknown("monitor", name, known))
    return merit(known, monitor)


def _check_alike(first: Model, model: Model, i: int) -> None:
    for what, a, b in (
        ("targets", _plain(first.targets), _plain(model.targets)),
        ("the encoding of a table", first.encoding, model.encoding),
        ("preprocessing", first.preprocess.kind, model.preprocess.kind),
    ):
        if a != b:
            raise ValueError(f"models[{i}] has other {what} than models[0]: {b!r}, not {a!r}")
    leaves = (jax.tree.leaves(each.preprocess.stats) for each in (first, model))
    if not all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True)):
        raise ValueError(
            f"models[{i}] has a preprocessing that is fitted to other data than that of models[0]"
        )


def _plain(targets: Targets) -> Targets:
    return replace(targets, temperature=1.0)
