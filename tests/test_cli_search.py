"""`funcnet sweep --sampler tpe`, importances, and objectives."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from command import run

import funcnet as fn

pytest.importorskip("optuna")
SMALL = ("sweep", "--num-train", 200, "--hidden", 6, "--epochs", 2, "--quiet")
SPACE = ("--learning-rate", "log:1e-4..1e-1", "--weight-scale", "log:1e-2..1")
TPE = ("--sampler", "tpe", "--samples", 18, "--batch", 6)


def table(path):
    with (Path(path) / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of 18 settings in three batches: its directory, and what was printed."""
    path = tmp_path_factory.mktemp("searches") / "tpe"
    code, printed, error = run(*SMALL, *SPACE, *TPE, "--out", path)
    assert (code, error) == (0, "")
    return path, printed


@pytest.mark.slow
def test_a_search_is_kept_as_sweeps_are(searched):
    path, printed = searched
    rows = table(path)
    assert len(rows) == 18
    assert {row["status"] for row in rows} == {"finished"}
    assert "18 members: 18 finished" in printed
    assert "what val accuracy depended on: " in printed
    config = json.loads((path / "config.json").read_text())
    assert config["search"]["samples"] == 18
    assert [str(each["learning_rate"]) for each in config["settings"]] == [
        row["learning_rate"] for row in rows
    ]
    with (path / "importance.csv").open(newline="") as file:
        shares = list(csv.DictReader(file))
    assert {row["setting"] for row in shares} == {"learning_rate", "weight_scale"}
    assert sum(float(row["share"]) for row in shares) == pytest.approx(1)
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    digits = fn.load_digits()
    found = fn.evaluate(fn.load_run(path / "best"), digits.x_val, digits.y_val)
    assert found.accuracy == pytest.approx(float(best["val_accuracy"]))


@pytest.mark.slow
def test_a_search_is_that_of_the_library(searched):
    path, _ = searched
    digits = fn.load_digits()
    small = digits._replace(x_train=digits.x_train[:200], y_train=digits.y_train[:200])

    def experiment(learning_rate, weight_scale):
        net = fn.mlp([6], 10, weight_scale=weight_scale)
        return net, fn.adam(learning_rate)

    space = {
        "learning_rate": fn.log_uniform(1e-4, 1e-1),
        "weight_scale": fn.log_uniform(1e-2, 1.0),
    }
    order = list(json.loads((path / "config.json").read_text())["search"]["space"])
    space = {name: space[name] for name in order}
    proposed = fn.search(experiment, small, space, samples=6, batch=6, epochs=1, batch_size=50)
    rows = table(path)[:6]
    assert [str(m.settings["learning_rate"]) for m in proposed.members] == [
        row["learning_rate"] for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 3, 5])
def test_an_interrupted_search_resumes_and_ends_the_same(calls, searched, tmp_path, monkeypatch):
    path, seen, original = tmp_path / "cut", [], fn.search

    def search(*arguments, callback, **options):
        def counted(*words):
            callback(*words)
            seen.append(words)
            if len(seen) == calls:
                raise KeyboardInterrupt

        return original(*arguments, callback=counted, **options)

    monkeypatch.setattr(fn, "search", search)
    code, _, error = run(*SMALL, *SPACE, *TPE, "--out", path)
    assert code == 130
    assert f"funcnet sweep resume {path} goes on" in error
    code, _, error = run("sweep", "show", path)
    assert code == 2
    assert "the sweep did not finish; funcnet sweep resume" in error
    assert json.loads((path / "config.json").read_text())["settings"] == []
    moved = tmp_path / "moved"
    shutil.move(path, moved)
    code, _, error = run("sweep", "resume", moved, "--quiet")
    assert (code, error) == (0, "")
    for name in ("table.csv", "histories.csv", "importance.csv"):
        assert (moved / name).read_bytes() == (searched[0] / name).read_bytes()


@pytest.mark.slow
def test_one_that_ends_before_its_first_epoch_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("funcnet.sweeps.engine.advance", interrupted)
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*SMALL, *SPACE, *TPE)
    assert code == 130
    assert "interrupted before the first epoch" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_objectives_are_shown_as_a_front(tmp_path):
    words = ("sweep", "--num-train", 200, "--epochs", 2, "--quiet", "--learning-rate", "1e-3..1e-1")
    words += ("--hidden", 2, "--hidden", 8, "--objectives", "val_accuracy", "parameters")
    code, out, error = run(*words, "--sampler", "tpe", "--samples", 12, "--out", tmp_path / "a")
    assert (code, error) == (0, "")
    assert "that none is better than, by val_accuracy, parameters" in out
    rows = fn.pareto_front(
        json.loads((tmp_path / "a" / "table.json").read_text()), ("val_accuracy", "parameters")
    )
    lines = out[out.index("that none") :].splitlines()[2:]
    assert [line.split()[-1] for line in lines[: len(rows)]] == [str(r["parameters"]) for r in rows]
    code, out, error = run(*words, "--samples", 4, "--out", tmp_path / "b")
    assert (code, error) == (0, "")
    assert "that none is better than" in out


@pytest.mark.slow
def test_importances_of_any_finished_sweep(tmp_path):
    words = (*SMALL, "--learning-rate", 1e-4, 1e-2, "--weight-scale", 0.01, 0.1, "--seeds", 2)
    assert run(*words, "--out", tmp_path / "grid")[0] == 0
    assert not (tmp_path / "grid" / "importance.csv").exists()
    code, out, error = run("sweep", "show", tmp_path / "grid", "--importance")
    assert (code, error) == (0, "")
    assert "what val accuracy depended on: learning rate" in out
    assert "importance.csv" in out.splitlines()[-1]
    assert "seed" in (tmp_path / "grid" / "importance.csv").read_text()
    code, _, error = run(*SMALL, "--learning-rate", 1e-3, 1e-2, "--out", tmp_path / "few")
    assert code == 0
    code, _, error = run("sweep", "show", tmp_path / "few", "--importance")
    assert code == 2
    assert "importances need 8 members" in error


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((*SPACE, "--sampler", "tpe"), "--sampler tpe needs --samples"),
        (("--learning-rate", 1e-3, 1e-2, "--sampler", "tpe"), "--sampler tpe needs --samples"),
        (("--sampler", "tpe", "--samples", 4), "--samples needs options with ranges"),
        ((*SPACE, "--samples", 4, "--batch", 2), "--batch is for --sampler tpe"),
        ((*SPACE, *TPE[:4], "--batch", 20), "batch is 20, more than samples, which is 18"),
        ((*SPACE, *TPE, "--folds", 3), "--folds is not for --sampler tpe"),
        ((*SPACE, *TPE, "--sampler", "gp"), "unknown sampler 'gp'"),
        (("--learning-rate", 1e-3, 1e-2, *TPE), "only 2 different settings, and samples is 18"),
        ((*SPACE, *TPE, "--objectives", "seconds"), "unknown objective 'seconds'"),
        (("--seeds", 2, "--objectives", "val_acc"), "unknown objective 'val_acc'"),
        ((*SPACE, *TPE, "--importance"), "--importance is for funcnet sweep show"),
        ((*SPACE, *TPE, "--optimizer", "adam", "sgd", "--beta1", "0.5..0.9"), "beta1"),
    ],
)
def test_wrong_searches(words, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, said = run(*SMALL, *words)
    assert code == 2
    assert error in said
    assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_it_is_said_what_to_install(tmp_path, monkeypatch):
    found = importlib.util.find_spec

    def without(name, *words):
        return None if name in ("optuna", "sklearn") else found(name, *words)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*SMALL, *SPACE, *TPE)
    assert code == 2
    assert 'optuna is needed for the sampler tpe: pip install "funcnet[search]"' in error
    with pytest.raises(ImportError, match=r'optuna is needed to tell .*"funcnet\[search\]"'):
        fn.importance([{"a": 1, "val_accuracy": 0.5}])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("space", {"learning_rate": {"normal": [0, 1]}}),
        ("space", {"learning_rate": {"uniform": [1, 0]}}),
        ("samples", -1),
        ("sampler", "gp"),
        ("sampler", 3),
        ("seeds", ["a"]),
        ("seeds", 3),
        (None, None),
    ],
)
def test_a_damaged_search_is_an_error(name, value, searched, tmp_path):
    path = tmp_path / "damaged"
    shutil.copytree(searched[0], path)
    config = json.loads((path / "config.json").read_text())
    config["search"] = [1] if name is None else {**config["search"], name: value}
    (path / "config.json").write_text(json.dumps(config))
    code, _, error = run("sweep", "show", path)
    assert code == 2
    assert "is damaged" in error
    assert len(error.strip().splitlines()) == 1
