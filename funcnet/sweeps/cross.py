"""Cross-validation as one sweep: folds x seeds x settings are its members.

Each fold has its own examples, and preprocessing and units that are fitted to them:

    result = cross_validate(experiment, load_table("wine.csv", test_fraction=0), settings,
                            folds=5, key=key, epochs=50, batch_size=100)
    result.table()
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np
from jax.sharding import Mesh

from funcnet.datasets import Dataset, check_dataset
from funcnet.evaluation import is_better, merit
from funcnet.model import Model, predict, predict_proba
from funcnet.signature import takes
from funcnet.sweeps.engine import train_all
from funcnet.sweeps.folds import Fold, fold_dataset, make_folds, pooled
from funcnet.sweeps.groups import Experiment
from funcnet.sweeps.search import Settings, check_settings, identity
from funcnet.sweeps.table import Member
from funcnet.targets import MEASURES
from funcnet.train import FitOptions

__all__ = ["CrossValidation", "Fold", "cross_validate"]


class CrossValidation(NamedTuple):
    """What `cross_validate` returns.

    Attributes:
      members: a Member for each of the settings, seeds and folds; its settings have "fold", too.
        What its history says of validation is of the examples that its fold holds out.
      folds: the Folds, places in the examples to train and to validate, one after the other.
      trimmed: of each fold, how many examples are neither trained on nor held out, 0 or 1: so all
        train on equally many.
      settings: the settings, each once, without seed and fold.
      out_of_fold: for each of them [N, ...], what the models of the folds that hold an example out
        say of it, the mean over seeds: the probability of each class [N, C] or label [N, K]; of
        regression predictions in the person's units. NaN where a member did not get so far.
      monitor: what says which settings are better.
      model: which model of a member counts, "last" or "best".
      interrupted: whether Ctrl-C or the callback ended it before its time.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> found = fn.cross_validate(experiment, digits, settings, folds=3, **options)
      >>> found.out_of_fold[0].shape, [row["members"] for row in found.table()]
      ((1429, 10), [3, 3])
    """

    members: tuple[Member, ...]
    folds: tuple[Fold, ...]
    trimmed: tuple[int, ...]
    settings: tuple[Settings, ...]
    out_of_fold: tuple[np.ndarray, ...]
    monitor: str
    model: str
    interrupted: bool

    def table(self) -> list[dict[str, Any]]:
        """The settings as rows.

        Each is a dict of the settings and of every measure on what was held out, val_accuracy say:
        the mean over folds and seeds of the members that finished, and with the ending _std their
        standard deviation (N - 1; None of one); members, how many these are; and diverged, how many
        others did. What was not measured is None.
        """
        return [self._row(settings) for settings in self.settings]

    @property
    def best_settings(self) -> Settings | None:
        """The settings of the best mean, by the monitor, of equals the first; None without any.

        Settings of which a member did not finish are not among them.
        """
        best, best_merit = None, None
        for row, settings in zip(self.table(), self.settings, strict=True):
            if row["members"] < len(self._of(settings)) or row.get(self._name) is None:
                continue
            own = merit({k: v for k, v in row.items() if v is not None}, self.monitor)
            if best_merit is None or is_better(own, best_merit):
                best, best_merit = settings, own
        return best

    @property
    def _name(self) -> str:
        return self.monitor.removeprefix("-")

    def _of(self, settings: Settings) -> list[Member]:
        return [m for m in self.members if identity(_plain(m.settings)) == identity(settings)]

    def _row(self, settings: Settings) -> dict[str, Any]:
        members = self._of(settings)
        done = [m for m in members if m.status == "finished"]
        row: dict[str, Any] = dict(settings)
        for name in ("loss", *MEASURES[members[0].history.task]):
            values = [_measured(m, f"val_{name}", self.model) for m in done]
            known = [value for value in values if value is not None]
            row[f"val_{name}"] = float(np.mean(known)) if known else None
            spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
            row[f"val_{name}_std"] = spread
        diverged = sum(m.status == "diverged" for m in members)
        return {**row, "members": len(done), "diverged": diverged}


@takes(FitOptions)
def cross_validate(
    experiment: Experiment,
    dataset: Dataset,
    settings: Iterable[Mapping[str, Any]] = ({},),
    *,
    folds: Any = 5,
    fold_seed: int = 0,
    groups: Any = None,
    key: jax.Array | None = None,
    epochs: int,
    batch_size: int | None = None,
    eval_every: int | None = None,
    model: str = "last",
    chunk_size: int | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    callback: Callable[[int, int, Callable[[], tuple[Member, ...]]], Any] | None = None,
    mesh: Mesh | None = None,
    **options: Unpack[FitOptions],
) -> CrossValidation:
    """Train one experiment with many settings on each fold of the data, as one sweep.

    Every example to train or to validate is held out by one fold; the test split is not looked at.
    Preprocessing, units of targets and what stands for missing cells of a table are fitted to the
    training examples of each fold alone, while the categories are those of the whole table: one
    that a fold has no training example of is nothing to it. Members of all folds are trained by the
    same compiled programs.

    Args:
      experiment: as for `sweep`.
      dataset: the Dataset.
      settings: as for `sweep`; without any, the experiment alone.
      folds: how many, 2 or more, classes are spread evenly over them; or [N] the number of the fold
        that holds each example out, from 0.
      fold_seed: of the shuffle that makes the folds.
      groups: [N], what belongs together, such as patients: a group is held out as a whole. None is
        no such.
      key, epochs, batch_size, chunk_size, patience: as for `sweep`.
      checkpoint, resume, checkpoint_every, callback, mesh: as for `sweep`.
      eval_every: measure every so many epochs, too; None is after the last one alone.
      model: which model of a member counts: "last", or "best", which is chosen by what is held out
        and so flatters itself.
      monitor: as for `fit`; it says which settings are the best.
      reg, loss_fn, class_weight, preprocess: as for `sweep`.
      augment, label_smoothing, mixup_alpha, average_decay: as for `sweep`.
    Returns:
      A CrossValidation: `.table()`, `.best_settings`, `.out_of_fold`, `.members`, `.folds`,
      `.trimmed`.
    Raises:
      ValueError, TypeError: as for `sweep`, or folds cannot be made.
    Example:
      >>> def experiment(rate):
      ...     return fn.mlp([8], 10), fn.adam(rate)
      >>> digits = fn.load_digits()
      >>> settings = fn.grid(rate=[1e-4, 1e-2])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> found = fn.cross_validate(experiment, digits, settings, folds=3, **options)
      >>> found.best_settings, len(found.members)
      ({'rate': 0.01}, 6)
    """
    if model not in ("last", "best"):
        raise ValueError(f'model must be "last" or "best", got {model!r}')
    whole = pooled(check_dataset(dataset))
    parts = make_folds(whole, folds, fold_seed, groups)
    given = check_settings(settings)
    if "fold" in given[0]:
        raise ValueError("a setting must not be named fold, which cross_validate has itself")
    datasets = [fold_dataset(whole, part) for part in parts]
    members = [{**each, "fold": fold} for each in given for fold in range(len(parts))]
    done = train_all(
        experiment,
        datasets,
        members,
        key=key,
        epochs=epochs,
        eval_every=epochs if eval_every is None else eval_every,
        halve_at=(),
        chunk_size=chunk_size,
        patience=patience,
        monitor=monitor,
        members=None,
        checkpoint=checkpoint,
        resume=resume,
        checkpoint_every=checkpoint_every,
        callback=callback,
        mesh=mesh,
        options={**options, "batch_size": batch_size},
    )
    alone = {identity(plain): plain for plain in map(_plain, members)}
    count = len(whole.x_train)
    left_out = [count - len(part.train) - len(part.held_out) for part in parts]
    found = {name: _models_by_fold(done.members, name, model) for name in alone}
    out_of_fold = (_out_of_fold(each, whole, parts, datasets) for each in found.values())
    return CrossValidation(
        members=done.members,
        folds=parts,
        trimmed=tuple(left_out),
        settings=tuple(alone.values()),
        out_of_fold=tuple(out_of_fold),
        monitor=done.monitor,
        model=model,
        interrupted=done.interrupted,
    )


def _plain(settings: Mapping[str, Any]) -> Settings:
    """Settings without seed and fold."""
    return {name: value for name, value in settings.items() if name not in ("seed", "fold")}


def _model_of(member: Member, model: str) -> Model | None:
    """The model of a member that counts; None if it did not get so far."""
    if member.status not in ("finished", "diverged"):
        return None
    return member.model if model == "last" else member.best


def _measured(member: Member, name: str, model: str) -> float | None:
    """What was measured of the model of a member that counts; None if it was not."""
    history, best = member.history, member.best
    rows = history.rows()
    if not len(history.epoch) or (model == "best" and best is None):
        return None
    epoch = history.epoch[-1] if best is None or model == "last" else best.epoch
    return float(rows[name][history.epoch == epoch][-1])


def _models_by_fold(members: Sequence[Member], name: Any, model: str) -> dict[int, list[Model]]:
    """The models that count, of members whose settings have this identity, by their fold."""
    found: dict[int, list[Model]] = {}
    for member in members:
        own = _model_of(member, model)
        if own is not None and identity(_plain(member.settings)) == name:
            found.setdefault(member.settings["fold"], []).append(own)
    return found


def _out_of_fold(
    models: Mapping[int, Sequence[Model]],
    whole: Dataset,
    folds: Sequence[Fold],
    datasets: Sequence[Dataset],
) -> np.ndarray:
    """What models of each fold say of the examples that they have not seen, the mean of each."""
    ask = predict if whole.task == "regression" else predict_proba
    means = {
        fold: np.mean([ask(model, datasets[fold].x_val) for model in own], axis=0)
        for fold, own in models.items()
    }
    width = next((values.shape[1:] for values in means.values()), ())
    out = np.full((len(whole.x_train), *width), np.nan)
    for fold, values in means.items():
        out[folds[fold].held_out] = values
    return out
