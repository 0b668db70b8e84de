"""Regression, several labels, weights and folds on the command line."""

import csv
import io
import json
import re

import numpy as np
import pytest
from command import run

import funcnet as fn

pytestmark = pytest.mark.usefixtures("unoptimized")
QUICK = ("--hidden-dims", 4, "--epochs", 3, "--quiet")


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A table of houses: price and fee are numbers, sold and let are labels."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "houses.csv"
    lines = ["area,town,price,fee,sold,let,w"]
    for i in range(120):
        area, town = rng.uniform(30, 200), "ABC"[i % 3]
        price = 3000 * area + 1e5 * (town == "B") + 1e4 * rng.normal()
        sold, let = int(price > 4e5), int(rng.random() < 0.5)
        lines.append(f"{area:.2f},{town},{price:.0f},{area / 100:.4f},{sold},{let},{i % 3}")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def priced(houses, tmp_path_factory):
    """A run of regression."""
    out = tmp_path_factory.mktemp("runs") / "price"
    words = ("--dataset", houses, "--label", "price", "--drop", "fee", "sold", "let", "w")
    code, text, err = run("train", *words, *QUICK, "--out", out)
    assert code == 0
    assert "note: " in err
    assert "label 'price' is a number of 120 values in 120 examples: regression; --task" in err
    assert "test RMSE of the last model " in text
    assert "validation RMSE " in text
    return out


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_run_of_regression(priced, houses):
    config = json.loads((priced / "config.json").read_text())
    assert (config["task"], config["loss"], config["outputs"]) == ("regression", "squared", 1)
    assert (config["label"], config["target_names"]) == (["price"], ["price"])
    assert config["results"]["test_rmse"] > 0
    history = rows((priced / "history.csv").read_text())
    assert list(history[0])[:5] == ["epoch", "train_loss", "train_rmse", "train_mae", "train_r2"]
    code, out, err = run("evaluate", priced, houses, "--json")
    assert (code, err) == (0, "")
    measured = json.loads(out)
    code, out, err = run("predict", priced, houses)
    assert (code, err) == (0, "")
    found = rows(out)
    assert list(found[0]) == ["example", "price"]
    true = np.array([float(row["price"]) for row in rows(houses.read_text())])
    said = np.array([float(row["price"]) for row in found])
    assert measured["rmse"] == pytest.approx(np.sqrt(np.mean((said - true) ** 2)), rel=1e-4)
    code, out, _ = run("evaluate", priced)
    assert f"RMSE {config['results']['test_rmse']:.6g}" in out
    assert run("verify", priced)[0] == 0
    code, _, err = run("predict", priced, houses, "--proba")
    assert code == 2
    assert "--proba is for classes" in err


def test_several_targets_and_quantiles(houses, tmp_path):
    words = ("--label", "price", "fee", "--loss", "pinball", "--quantiles", 0.1, 0.9)
    code, _, _ = run("train", "--dataset", houses, *words, *QUICK, "--out", tmp_path / "q")
    assert code == 0
    code, out, _ = run("predict", tmp_path / "q", houses)
    assert code == 0
    heads = [f"{name}, quantile {q}" for name in ("price", "fee") for q in (0.1, 0.9)]
    assert list(rows(out)[0]) == ["example", *heads]


def test_several_labels(houses, tmp_path):
    words = ("--label", "sold", "let", "--drop", "price", "fee", "w", *QUICK)
    code, out, err = run("train", "--dataset", houses, *words, "--out", tmp_path / "m")
    assert code == 0
    assert "2 columns of 0 and 1: several labels each; --task regression" in err
    assert "all labels of an example must be right, micro F1 0." in out
    code, out, _ = run("predict", tmp_path / "m", houses, "--proba")
    assert list(rows(out)[0]) == [
        *("example", "sold", "let"),
        *("probability of sold", "probability of let"),
    ]
    for row in rows(out):
        assert int(row["sold"]) == (float(row["probability of sold"]) > 0.5)
    code, out, _ = run("evaluate", tmp_path / "m", houses, "--json")
    assert [each["name"] for each in json.loads(out)["labels"]] == ["sold", "let"]


def test_weights(houses, tmp_path):
    words = ("--dataset", houses, "--label", "town", "--drop", "price", *QUICK)
    plain, weighted, classes = (
        run("train", *words, *more, "--out", tmp_path / name)
        for name, more in (
            ("p", ("--drop", "price", "w")),
            ("w", ("--weight", "w")),
            ("c", ("--drop", "price", "w", "--class-weight", "B=3", "A=0")),
        )
    )
    assert (plain[0], weighted[0], classes[0]) == (0, 0, 0)
    losses = {name: (tmp_path / name / "losses.csv").read_text() for name in "pwc"}
    assert len(set(losses.values())) == 3
    code, out, _ = run("evaluate", tmp_path / "w")
    assert code == 0
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    assert f"{100 * config['results']['test_accuracy']:.2f} %" in out


def test_a_table_has_a_recipe_of_its_own(houses, tmp_path):
    words = ("--dataset", houses, "--label", "town", *QUICK[:-1])
    code, out, _ = run("train", *words, "--out", tmp_path / "r")
    assert (code, "recipe table, as of any table; --recipe, or " in out) == (0, True)
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    recipe = fn.list_recipes()["table"].options
    assert recipe.items() <= config.items()
    assert config["recipe"] == "table"
    code, out, _ = run("train", *words, "--recipe", "digits", "--out", tmp_path / "other")
    other = json.loads((tmp_path / "other" / "config.json").read_text())
    assert (code, "recipe table" in out, other["recipe"]) == (0, False, "digits")
    assert not recipe.items() <= other.items()
    code, out, _ = run("train", *words, "--keep-prob", 1, "--embedding", "none", "--quiet")
    assert (code, "recipe" in out) == (0, False)
    code, out, _ = run("sweep", *words, "--seeds", 2, "--out", tmp_path / "s")
    assert (code, "recipe table, as of any table" in out) == (0, True)
    kept = json.loads((tmp_path / "s" / "best" / "config.json").read_text())
    assert recipe.items() <= kept.items()


@pytest.mark.parametrize(
    ("words", "expected"), [((), 48), (("--folds", 3), 36), (("--folds", 4), 50)]
)
def test_batches_of_a_table_leave_nothing_over(houses, tmp_path, words, expected):
    """Of 120 examples 96 are trained on; of 108 in three folds 72, in four 81."""
    command = "sweep" if words else "train"
    given = ("--dataset", houses, "--label", "town", *QUICK, *words, "--out", tmp_path / "r")
    assert run(command, *given)[0] == 0
    assert json.loads((tmp_path / "r" / "config.json").read_text())["batch_size"] == expected


def test_the_best_of_a_sweep_is_its_own(houses, tmp_path):
    """Its outputs may be others than those of the first member, and its best model counts."""
    words = ("--dataset", houses, "--label", "price", *QUICK, "--loss", "pinball")
    rates = ("--quantiles", 0.1, 0.5, 0.9, "--quantiles", 0.5, "--learning-rate", 1e-2)
    code, out, _ = run("sweep", *words, *rates, "--out", tmp_path / "s")
    assert code == 0
    code, _, err = run("evaluate", tmp_path / "s" / "best")
    assert (code, err) == (0, "")
    config = json.loads((tmp_path / "s" / "best" / "config.json").read_text())
    assert config["outputs"] == len(config["quantiles"])
    assert config["model"] == "best"
    rmse = re.search(r"test RMSE of that model (\S+)", out)[1]
    _, shown, _ = run("evaluate", tmp_path / "s" / "best")
    assert f"test RMSE {rmse}" in shown


def test_all_members_have_the_epochs_of_the_largest_batches(houses, tmp_path):
    words = ("--dataset", houses, "--label", "town", "--hidden-dims", 2, "--quiet")
    swept = ("sweep", *words, "--batch-size", 16, 96, "--out", tmp_path / "s")
    assert run(*swept)[0] == 0
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    assert (config["epochs"], config["batch_size"]) == (1000, 16)


def test_embeddings_are_of_columns_of_numbers(houses, tmp_path):
    words = ("--dataset", houses, "--label", "price", *QUICK)
    code, _, _ = run("train", *words, "--embedding", "pbld", "--out", tmp_path / "r")
    assert code == 0
    model = fn.load_run(tmp_path / "r")
    names, columns = model.encoding.names, len(model.params["on_columns1"]["c"])
    numbers = [name for name in names if " " not in name]
    assert columns == len(numbers) < len(names)
    assert [names[i] for i in model.encoding.numbers] == numbers
    assert run("evaluate", tmp_path / "r")[0] == run("predict", tmp_path / "r", houses)[0] == 0
    swept = ("sweep", *words, "--embedding", "none", "piecewise", "--out", tmp_path / "s")
    code, _, err = run(*swept)
    assert (code, "--embedding piecewise needs --preprocess quantiles" in err) == (2, True)
    code, _, _ = run(*swept, "--preprocess", "quantiles")
    assert code == 0
    assert run("evaluate", tmp_path / "s" / "best")[0] == 0


@pytest.mark.parametrize("label", ["price", "town"])
def test_folds(houses, tmp_path, label):
    words = ("--dataset", houses, "--label", label, "--learning-rate", 1e-3, 1e-2, *QUICK)
    path = tmp_path / "s"
    code, out, _ = run("sweep", *words, "--folds", 4, "--out", path)
    assert code == 0
    assert "8 members: 8 finished" in out
    measure = "RMSE" if label == "price" else "accuracy"
    assert f"held-out {measure} " in out
    table = rows((path / "table.csv").read_text())
    assert [row["fold"] for row in table] == list("01230123")
    code, again, _ = run("sweep", "show", path)
    assert code == 0
    assert again.splitlines()[:3] == out.splitlines()[:3]
    assert "members" in again.splitlines()[0]


WRONG = {
    "an embedding": (("--embedding", "x"), "unknown embedding 'x'"),
    "the dim of none": (
        ("--embedding", "none", "--embedding-dim", "3"),
        "--embedding-dim is for --embedding pbld, ",
    ),
    "bins of waves": (
        ("--embedding", "pbld", "--embedding-bins", "3"),
        "--embedding-bins is for --embedding piecewise, not for pbld",
    ),
    "the number itself": (("--embedding", "pbld", "--embedding-dim", "1"), "at least 2"),
    "no columns": (
        ("--embedding", "periodic", "--preprocess", "whiten"),
        "--embedding periodic is for columns, which --preprocess whiten does not keep: ",
    ),
    "bins of what": (
        ("--embedding", "piecewise", "--preprocess", "quantiles", "numbers"),
        "--embedding piecewise needs --preprocess quantiles, as the last step",
    ),
    "a task": (("--task", "regresion"), "unknown task 'regresion': did you mean 'regression'?"),
    "a loss of another task": (("--label", "town", "--loss", "huber"), "huber_loss is for regress"),
    "quantiles of another loss": (("--label", "price", "--quantiles", "0.5"), "for --loss pinball"),
    "a quantile": (("--loss", "pinball", "--quantiles", "1"), "--quantiles must be > 0 and < 1"),
    "a delta": (("--label", "price", "--huber-delta", "1"), "--huber-delta is for --loss huber"),
    "class weights of numbers": (
        ("--label", "price", "--task", "regression", "--class-weight", "balanced"),
        "class_weight is for classes",
    ),
    "a class weight": (("--class-weight", "B"), "must be balanced, or CLASS=WEIGHT each, got 'B'"),
    "an unknown class": (("--label", "town", "--class-weight", "D=2"), "unknown class 'D'"),
    "a negative weight": (("--class-weight", "B=-1"), "--class-weight of B must be >= 0"),
    "smoothed numbers": (("--loss", "squared", "--label-smoothing", "0.1"), "is for labels, not"),
    "a monitor of another task": (
        ("--label", "price", "--task", "regression", "--monitor", "val_accuracy"),
        "unknown monitor 'val_accuracy'",
    ),
    "words as numbers": (("--label", "town", "--task", "regression"), "'town' holds words"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_line(case, houses, tmp_path):
    words, message = WRONG[case]
    code, _, err = run("train", "--dataset", houses, *words, *QUICK, "--out", tmp_path / "r")
    assert code in (1, 2)
    last = err.splitlines()[-1]
    assert message in last
    assert not (tmp_path / "r").exists()


def test_folds_that_are_wrong(houses, tmp_path):
    words = ("--dataset", houses, "--label", "town", *QUICK, "--out", tmp_path / "s")
    for more, message in (
        (("--folds", 1), "--folds must be at least 2"),
        (("--folds", 3, "--halve-at", 1), "--halve-at is not for --folds"),
        (("--folds", 200), "200 folds of 108 examples cannot be made"),
    ):
        code, _, err = run("sweep", *words, *more)
        assert code in (1, 2)
        assert message in err.splitlines()[-1]


def test_the_deltas_of_huber_differ(houses, tmp_path):
    words = ("--dataset", houses, "--label", "price", "--loss", "huber", *QUICK)
    assert run("train", *words, "--out", tmp_path / "a")[0] == 0
    assert run("train", *words, "--huber-delta", 0.1, "--out", tmp_path / "b")[0] == 0
    a, b = ((tmp_path / name / "losses.csv").read_text() for name in "ab")
    assert a != b
