"""Folds: which examples each part of a cross-validation is trained on, and which it holds out."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import Dataset, dataset_of_parts, first
from funcnet.datasets.splits import strata

FOLDS = checks.Count(at_least=2)


class Fold(NamedTuple):
    """One part of a cross-validation: places of examples in the data.

    Attributes:
      train: those that are trained on.
      held_out: those that are held out.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 1, "batch_size": 100}
      >>> found = fn.cross_validate(experiment, digits, settings, folds=3, **options)
      >>> [(len(fold.train), len(fold.held_out)) for fold in found.folds]
      [(952, 477), (952, 476), (952, 476)]
    """

    train: np.ndarray
    held_out: np.ndarray


def pooled(dataset: Dataset) -> Dataset:
    """A checked Dataset whose training split has the validation split behind it; none is tested."""
    x = np.concatenate([dataset.x_train, dataset.x_val])
    y = np.concatenate([dataset.y_train, dataset.y_val])
    parts = [getattr(dataset, f"weight_{split}") for split in ("train", "val")]
    weight = None
    if any(part is not None for part in parts):
        lengths = len(dataset.x_train), len(dataset.x_val)
        known = zip(parts, lengths, strict=True)
        weight = np.concatenate([np.ones(n) if part is None else part for part, n in known])
    none = np.zeros(0, int)
    return _of_rows(dataset, x, y, weight, [np.arange(len(x)), none, none])


def part_of(dataset: Dataset, folds: int | None) -> Dataset:
    """As many examples as each of so many folds trains on; None is all of the training split."""
    if folds is None:
        return dataset
    whole = pooled(dataset)
    return first(whole, len(whole.x_train) - math.ceil(len(whole.x_train) / folds))


def make_folds(dataset: Dataset, folds: Any, seed: int, groups: Any = None) -> tuple[Fold, ...]:
    """The folds of the training split of a Dataset.

    Classes are spread evenly. Folds that differ in size by one example train on equally many: the
    larger leave one out.

    Args:
      dataset: the Dataset, `pooled`.
      folds: how many; or [N], the number of the fold that holds each example out, from 0.
      seed: of the shuffle.
      groups: [N], what belongs together: a group is in one fold. None is no such.
    Raises:
      ValueError: there are more folds than examples or groups, or a fold is empty.
    """
    count = len(dataset.x_train)
    rng = np.random.Generator(np.random.PCG64(checks.NATURAL.check("fold_seed", seed)))
    order = rng.permutation(count)
    if np.ndim(folds):
        if groups is not None:
            raise ValueError("give either the folds of examples or their groups")
        place = checks.labels(folds, num_examples=count, name="folds")
        number = int(place.max()) + 1
    else:
        number = FOLDS.check("folds", folds)
        if groups is None:
            place = _spread(strata(dataset.y_train, dataset.task), order, number)
        else:
            place = _of_groups(groups, count, rng, number)
    sizes = np.bincount(place, minlength=number)
    if number < 2 or not sizes.all():
        raise ValueError(
            f"{checks.plural(number, 'fold')} of {checks.plural(count, 'example')} cannot be made: "
            "each holds out one at least, and trains on the others"
        )
    trained = [order[place[order] != fold] for fold in range(number)]
    least = min(map(len, trained))
    if max(map(len, trained)) - least == 1:
        trained = [rows[:least] for rows in trained]
    held_out = [np.flatnonzero(place == fold) for fold in range(number)]
    return tuple(Fold(np.sort(a), b) for a, b in zip(trained, held_out, strict=True))


def _spread(strata: np.ndarray, order: np.ndarray, number: int) -> np.ndarray:
    """The fold of each example, [N]: those of a class one after another, so that sizes are even."""
    place = np.empty(len(order), np.int64)
    by_class = order[np.argsort(strata[order], kind="stable")]
    place[by_class] = np.arange(len(order)) % number
    return place


def _of_groups(groups: Any, count: int, rng: np.random.Generator, number: int) -> np.ndarray:
    """The fold of each example, [N]: groups, the largest first, go where examples are fewest."""
    _, codes, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if codes.shape != (count,):
        raise ValueError(f"groups must be [N] = [{count}], got {list(np.shape(groups))}")
    if len(counts) < number:
        raise ValueError(
            f"{checks.plural(len(counts), 'group')} cannot make {number} folds: each is in one"
        )
    order = rng.permutation(len(counts))
    place, filled = np.zeros(len(counts), np.int64), np.zeros(number)
    for group in order[np.argsort(-counts[order], kind="stable")]:
        place[group] = np.argmin(filled)
        filled[place[group]] += counts[group]
    return place[codes]


def fold_dataset(dataset: Dataset, fold: Fold) -> Dataset:
    """The Dataset of a fold: what it holds out is its validation split.

    What the encoding of a table has learned of numbers, what stands for missing ones, it learns
    from the training examples of the fold alone.
    """
    x = dataset.x_train
    if dataset.encoding is not None:
        encoding, x = dataset.encoding.refitted(x, fold.train)
        dataset = dataset._replace(encoding=encoding)
    rows = [fold.train, fold.held_out, np.zeros(0, int)]
    return _of_rows(dataset, x, dataset.y_train, dataset.weight_train, rows)


def _of_rows(
    dataset: Dataset,
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    rows: Sequence[np.ndarray],
) -> Dataset:
    """A Dataset with splits of some of these examples, and all else as in another."""
    facts = dataset.class_names, dataset.encoding, dataset.task, dataset.target_names
    weights = [None if weight is None else weight[each] for each in rows]
    return dataset_of_parts([x[r] for r in rows], [y[r] for r in rows], *facts, weights=weights)
