"""Settings proposed by what earlier ones came to, beside as many drawn at random.

    python -m pip install ".[search]"
    python -m tests.benchmarks.search

On the digits, and on two real tables that scikit-learn has: breast cancer and diabetes, the last
one regression. Both samplers have the same space of five settings, the same number of trainings,
and the same seeds, of the settings and of the members alike; the first batch of both is random. The
best by validation loss is what a search has found, and its loss and measure on the test split are
what that is worth: each a mean over the seeds, with the standard deviation. "as good after" is how
many trainings it takes until a validation loss as good as the best of the random search of that
seed is found, all of them and one more where it is not.

  --data A B ...      some of digits, cancer and diabetes
  --samples, --batch, --epochs, --seeds N
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import funcnet as fn

SPACE = {
    "learning_rate": fn.log_uniform(1e-5, 1.0),
    "weight_scale": fn.log_uniform(1e-3, 1.0),
    "keep_prob": fn.uniform(0.2, 1.0),
    "weight_decay": fn.log_uniform(1e-5, 10.0),
    "beta1": fn.uniform(0.0, 0.99),
}
SAMPLERS = ("random", "tpe")
SPLITS = {"val_fraction": 0.25, "test_fraction": 0.25}  # of the tables, which are small


def _of_scikit_learn(name: str, task: str) -> fn.Dataset:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    columns = {f"x{i}": column for i, column in enumerate(found.data.T)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.DataWarning)  # of columns of few values
        return fn.load_table({**columns, "target": found.target}, "target", task=task, **SPLITS)


DATA: dict[str, Callable[[], fn.Dataset]] = {
    "digits": fn.load_digits,
    "cancer": lambda: _of_scikit_learn("breast_cancer", "classification"),
    "diabetes": lambda: _of_scikit_learn("diabetes", "regression"),
}


def searched(dataset: fn.Dataset, sampler: str, seed: int, args: Any) -> fn.SweepResult:
    """A search of one seed."""
    regression = dataset.task == "regression"
    outputs = 1 if regression else len(dataset.class_names)
    batch_size = 50
    steps = args.epochs * -(-len(dataset.x_train) // batch_size)

    def experiment(
        learning_rate: Any, weight_scale: Any, keep_prob: Any, weight_decay: Any, beta1: Any
    ) -> Any:
        net = fn.mlp([64, 64], outputs, weight_scale=weight_scale, keep_prob=keep_prob)
        rate = fn.cosine_decay(learning_rate, steps)
        return net, fn.adamw(rate, beta1=beta1, weight_decay=weight_decay)

    return fn.search(
        experiment,
        dataset,
        SPACE,
        sampler=sampler,
        samples=args.samples,
        batch=args.batch,
        seed=seed,
        epochs=args.epochs,
        batch_size=batch_size,
        monitor="val_loss",
        preprocess=fn.standardize,
    )


def losses_of(result: fn.SweepResult) -> np.ndarray:
    """The validation loss of each member, [N], infinity where it diverged."""
    rows = result.table()
    kept = [row["val_loss"] if row["status"] == "finished" else None for row in rows]
    return np.array([np.inf if loss is None else loss for loss in kept])


def main() -> None:
    """Compare, and print a line for each data set and sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    for name, number in (("samples", 64), ("batch", 16), ("epochs", 20), ("seeds", 5)):
        parser.add_argument(f"--{name}", type=int, default=number)
    args = parser.parse_args()
    print(
        f"{'data':9} {'sampler':8} {'validation loss':18} {'test loss':18} {'test':18} "
        f"{'as good after':>14} {'seconds':>8}"
    )
    for name in args.data:
        dataset = DATA[name]()
        found: dict[str, list[Any]] = {sampler: [] for sampler in SAMPLERS}
        seconds = dict.fromkeys(SAMPLERS, 0.0)
        for seed in range(args.seeds):
            for sampler in SAMPLERS:
                began = time.perf_counter()
                found[sampler].append(searched(dataset, sampler, seed, args))
                seconds[sampler] += time.perf_counter() - began
        targets = [losses_of(result).min() for result in found["random"]]
        for sampler, results in found.items():
            losses = [losses_of(result) for result in results]
            pairs = list(zip(losses, targets, strict=True))
            after = [int(np.argmax([*(own <= best), True])) + 1 for own, best in pairs]
            measure = "r2" if dataset.task == "regression" else "accuracy"
            columns = (
                [own.min() for own in losses],
                [result.test.loss for result in results],
                [getattr(result.test, measure) for result in results],
            )
            spread = min(1, args.seeds - 1)  # N - 1, of one there is none
            texts = [f"{np.mean(own):.4f} ± {np.std(own, ddof=spread):.4f}" for own in columns]
            print(
                f"{name:9} {sampler:8} {texts[0]:18} {texts[1]:18} {texts[2]:18} "
                f"{np.mean(after):14.0f} {seconds[sampler] / args.seeds:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
