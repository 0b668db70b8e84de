"""Three hundred trainings of a table, five folds x twenty settings x three seeds; and GridSearchCV.

    python -m pip install scikit-learn
    python -m tests.benchmarks.folds

The table has 5,000 rows and 20 columns, made by scikit-learn's `make_classification`. Both train on
the same splits, with the same settings (two widths, five rates, two strengths of L2), seeds, epochs
and batches, Adam at a constant rate: scikit-learn in two processes, funcnet as one sweep. Every
training is measured on the fold that it has not seen. Times are those of whole calls, compiling and
starting processes with them; nothing else should run.
"""

import argparse
import itertools
import time
import warnings
from typing import Any

import numpy as np

WIDTHS, RATES, ALPHAS = (64, 128), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (1e-4, 1e-1)
SEEDS, FOLDS, BATCH = 3, 5, 200


def data() -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The table, and the places to train and to hold out of each fold."""
    from sklearn.datasets import make_classification
    from sklearn.model_selection import StratifiedKFold

    x, y = make_classification(
        5000, 20, n_informative=12, n_classes=3, n_clusters_per_class=3, random_state=0
    )
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y)
    return x.astype(np.float32), y.astype(np.int32), list(splits)


def of_scikit_learn(epochs: int, jobs: int) -> tuple[float, np.ndarray]:
    """Seconds, and the mean accuracy of each setting."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    x, y, splits = data()
    axes = {
        "hidden_layer_sizes": [(width,) for width in WIDTHS],
        "learning_rate_init": RATES,
        "alpha": ALPHAS,
        "random_state": range(SEEDS),
    }
    net = MLPClassifier(batch_size=BATCH, max_iter=epochs, tol=0, n_iter_no_change=epochs + 1)
    search = GridSearchCV(net, axes, cv=splits, n_jobs=jobs, refit=False)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(x, y)
    seconds = time.perf_counter() - began
    found: dict[Any, list[float]] = {}
    results = search.cv_results_
    for settings, score in zip(results["params"], results["mean_test_score"], strict=True):
        key = (settings["hidden_layer_sizes"][0], settings["learning_rate_init"], settings["alpha"])
        found.setdefault(key, []).append(score)
    return seconds, np.array([np.mean(found[key]) for key in _settings()])


def of_funcnet(epochs: int) -> tuple[float, np.ndarray]:
    """Seconds, and the mean accuracy of each setting."""
    import funcnet as fn

    x, y, splits = data()
    place = np.zeros(len(x), int)
    for number, (_, held_out) in enumerate(splits):
        place[held_out] = number
    whole = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], ("a", "b", "c"))
    rows = len(splits[0][0])

    def experiment(width: int, rate: float, alpha: float) -> tuple[Any, ...]:
        net = fn.mlp([width], 3, weight_scale="glorot")
        return net, fn.adam(rate), {"reg": alpha / BATCH}

    settings = [
        {"width": width, "rate": rate, "alpha": alpha, "seed": seed}
        for (width, rate, alpha), seed in itertools.product(_settings(), range(SEEDS))
    ]
    assert rows * FOLDS == len(x) * (FOLDS - 1)
    began = time.perf_counter()
    result = fn.cross_validate(
        experiment,
        whole,
        settings,
        folds=place,
        epochs=epochs,
        batch_size=BATCH,
        preprocess=fn.no_preprocess,
    )
    seconds = time.perf_counter() - began
    return seconds, np.array([row["val_accuracy"] for row in result.table()])


def _settings() -> list[tuple[int, float, float]]:
    return list(itertools.product(WIDTHS, RATES, ALPHAS))


def main() -> None:
    """Run both, in turn, and print how long they take and what they reach."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    count = len(_settings()) * SEEDS * FOLDS
    print(f"{count} trainings of {args.epochs} epochs")
    ours, our_scores = of_funcnet(args.epochs)
    print(f"funcnet, cross_validate: {ours:.1f} s, best {100 * our_scores.max():.2f} %")
    theirs, their_scores = of_scikit_learn(args.epochs, args.jobs)
    print(f"scikit-learn, GridSearchCV(n_jobs={args.jobs}): {theirs:.1f} s, best ", end="")
    print(f"{100 * their_scores.max():.2f} %")
    print(f"{ours / theirs:.3f} of the time; means of settings differ by ", end="")
    print(f"{100 * (our_scores - their_scores).mean():+.2f} points on average")


if __name__ == "__main__":
    main()
