"""`funcnet sweep`, and the directories that it keeps."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from command import run

import funcnet as fn
from funcnet.runs import Record
from funcnet.sweeps import directory as sweep_runs
from funcnet.sweeps import saved
from funcnet.tensors import save_tensors

pytestmark = pytest.mark.usefixtures("unoptimized")
SMALL = ("--num-train", 200, "--hidden", 8, "--epochs", 3, "--quiet")
GRID = ("--learning-rate", "1e-3", "1e-2", "--weight-scale", "5e-2", "0.1")


def sweep(out, *words):
    code, printed, error = run("sweep", *SMALL, *words, "--out", out)
    assert code == 0, error
    return printed


def table(path):
    with (path / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A sweep of four settings and two seeds: its directory, and what was printed."""
    path = tmp_path_factory.mktemp("sweeps") / "grid"
    return path, sweep(path, *GRID, "--seeds", 2)


def test_a_sweep_leaves_tables_pictures_and_the_best_run(grid):
    path, printed = grid
    rows = table(path)
    assert [(r["learning_rate"], r["weight_scale"], r["seed"]) for r in rows[:3]] == [
        ("0.001", "0.05", "0"),
        ("0.001", "0.05", "1"),
        ("0.01", "0.05", "0"),
    ]
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"finished"}
    assert (path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((path / "table.json").read_text())[0]["epochs"] == 3
    with (path / "histories.csv").open(newline="") as file:
        histories = list(csv.DictReader(file))
    assert len(histories) == 8 * 4
    assert {int(row["member"]) for row in histories} == set(range(8))
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert f"best validation accuracy {100 * float(best['val_accuracy']):.2f} %" in printed
    assert "8 members: 8 finished" in printed
    best_of = [
        max(float(row["val_accuracy"]) for row in rows if row["seed"] == seed) for seed in "01"
    ]
    per_seed = json.loads((path / "config.json").read_text())["results"]["seeds"]
    assert [each["settings"]["seed"] for each in per_seed] == [0, 1]
    assert [each["val_accuracy"] for each in per_seed] == best_of
    assert f"validation accuracy: {100 * np.mean(best_of):.2f} ±" in printed
    code, evaluated, _ = run("evaluate", path / "best")
    assert code == 0
    accuracy = json.loads((path / "config.json").read_text())["results"]["test_accuracy"]
    assert f"test accuracy {100 * accuracy:.2f} %" in evaluated
    assert f"test accuracy of that model {100 * accuracy:.2f} %" in printed


def test_a_member_is_what_train_does(grid, tmp_path):
    path, _ = grid
    row = next(
        r
        for r in table(path)
        if (r["learning_rate"], r["weight_scale"], r["seed"]) == ("0.01", "0.1", "1")
    )
    options = ("--learning-rate", 0.01, "--weight-scale", 0.1, "--seed", 1)
    code, _, error = run("train", *SMALL, *options, "--out", tmp_path / "run")
    assert code == 0, error
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["val_accuracy"]) == pytest.approx(float(row["final_val_accuracy"]), abs=0.006)
    assert float(last["train_accuracy"]) == pytest.approx(
        float(row["final_train_accuracy"]), abs=0.006
    )


def test_show_prints_the_table_of_means_over_seeds(grid):
    path, printed = grid
    code, shown, _ = run("sweep", "show", path)
    assert code == 0
    lines = shown.splitlines()
    assert lines[:5] == printed.splitlines()[:5]
    assert lines[0].split("  ")[-1].strip() == "diverged"
    values = [float(line.split()[2]) for line in lines[1:5]]
    assert values == sorted(values, reverse=True)
    rows = fn.mean_over_seeds(sweep_runs.load_table(path))
    assert values[0] == pytest.approx(100 * max(row["val_accuracy"] for row in rows), abs=0.005)


def test_show_prints_ten_rows_or_all(grid, tmp_path):
    copy = shutil.copytree(grid[0], tmp_path / "copy")
    row = sweep_runs.load_table(copy)[0]
    rows = [{**row, "learning_rate": 0.001 * i, "val_accuracy": 0.01 * i} for i in range(1, 13)]
    (copy / "table.json").write_text(json.dumps(rows))
    shown = run("sweep", "show", copy)[1].splitlines()
    assert len(shown) == 1 + 10 + 2
    assert shown[1].split()[:2] == ["0.012", "12.00"]
    assert shown[11] == "... and 2 more, in table.csv"
    assert len(run("sweep", "show", copy, "--all")[1].splitlines()) == 1 + 12 + 1


def test_numbers_that_json_has_not_are_null(grid, tmp_path):
    copy = shutil.copytree(grid[0], tmp_path / "copy")
    row = sweep_runs.load_table(copy)[0]
    sweep_runs.save_table(copy, [{**row, "val_loss": float("nan")}])
    assert "NaN" not in (copy / "table.json").read_text()
    assert sweep_runs.load_table(copy)[0]["val_loss"] is None


def test_a_sweep_without_evaluation(tmp_path):
    sweep(tmp_path / "run", "--seeds", 2, "--eval-every", 0)
    assert [row["val_accuracy"] for row in table(tmp_path / "run")] == ["", ""]
    shown = run("sweep", "show", tmp_path / "run")[1]
    assert shown.endswith("run: table.csv, histories.csv\n")


def test_a_sweep_without_validation(tmp_path):
    file = tmp_path / "sums.csv"
    file.write_text("a,label\n" + "".join(f"{i % 7},{'xy'[i % 7 > 3]}\n" for i in range(300)))
    words = ("--dataset", file, "--val-fraction", 0, "--monitor", "train_loss", "--seeds", 2)
    printed = sweep(tmp_path / "run", *words)
    assert "nan" not in printed
    assert "best member of each seed, test accuracy" in printed
    assert "NaN" not in (tmp_path / "run" / "config.json").read_text()
    assert [row["val_accuracy"] for row in table(tmp_path / "run")] == ["", ""]


def test_the_best_run_has_its_last_model_too(tmp_path):
    path = tmp_path / "run"
    sweep(path, "--learning-rate", 0.05, 0.5, "--epochs", 4)  # the best epoch may be an earlier one
    rows = table(path)
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    for model, column in (("best", "val_accuracy"), ("last", "final_val_accuracy")):
        words = ("--model", model, "--split", "val")
        code, printed, error = run("evaluate", path / "best", *words)
        assert code == 0, error
        assert f"val accuracy {100 * float(best[column]):.2f} %" in printed


@pytest.mark.slow
def test_structural_options_and_a_random_search(tmp_path):
    words = ("--optimizer", "adam", "sgd", "--learning-rate", "log:1e-3..1e-1")
    words += ("--batch-size", "20..60", "--hidden", 4, 3, "--samples", 5, "--halve-at", 1)
    printed = sweep(tmp_path / "random", *words)
    rows = table(tmp_path / "random")
    assert len(rows) == 5
    assert {row["optimizer"] for row in rows} <= {"adam", "sgd"}
    assert all(1e-3 <= float(row["learning_rate"]) <= 1e-1 for row in rows)
    assert all(20 <= int(row["batch_size"]) <= 60 for row in rows)
    assert {row["hidden_dims"] for row in rows} <= {"(8,)", "(4, 3)"}
    assert sum(row["status"] == "stopped" for row in rows) == 2
    assert "3 finished, 2 stopped" in printed
    assert run("evaluate", tmp_path / "random" / "best")[0] == 0


def test_a_recipe_may_be_swept(tmp_path):
    words = ("--recipe", "digits", "--num-train", 200, "--epochs", 1, "--quiet", "--reg", 0, 0.1)
    code, _, error = run("sweep", *words, "--out", tmp_path / "run")
    assert code == 0, error
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    recipe = fn.load_recipe("digits")
    assert config["recipe"] == "digits"
    assert tuple(config["hidden_dims"]) == recipe["hidden_dims"]
    assert config["keep_prob"] == recipe["keep_prob"]
    assert [row["reg"] for row in table(tmp_path / "run")] == ["0.0", "0.1"]


@pytest.fixture
def interrupt_at(monkeypatch):
    """A function of a number: the sweep is interrupted after so many epochs of its chunks."""

    def interrupt_at(calls):
        seen = []

        def sweep(*arguments, callback, **options):
            def counted(*words):
                callback(*words)
                seen.append(words)
                if len(seen) == calls:
                    raise KeyboardInterrupt

            return original(*arguments, callback=counted, **options)

        original = fn.sweep
        monkeypatch.setattr(fn, "sweep", sweep)

    return interrupt_at


@pytest.mark.parametrize("calls", [1, 3])
def test_an_interrupted_sweep_resumes_and_ends_the_same(calls, grid, tmp_path, interrupt_at):
    path = tmp_path / "cut"
    interrupt_at(calls)
    words = (*SMALL, *GRID, "--seeds", 2, "--chunk-size", 4)
    code, _, error = run("sweep", *words, "--out", path)
    assert code == 130
    assert f"funcnet sweep resume {path} goes on" in error
    assert not (path / "table.csv").exists()
    code, _, error = run("sweep", "show", path)
    assert code == 2
    assert "the sweep did not finish; funcnet sweep resume" in error
    files = {file: file.stat().st_mtime_ns for file in (path / "members").glob("*.safetensors")}
    assert len(files) == 1
    code, _, error = run("sweep", "resume", path, "--quiet")
    assert code == 0, error
    now = list((path / "members").glob("*.safetensors"))
    assert 1 <= len(now) <= 2  # one for each chunk, or for both
    kept = [file for file in now if files.get(file) == file.stat().st_mtime_ns]
    assert len(kept) == (1 if calls == 3 else 0)
    whole = tmp_path / "whole"
    assert run("sweep", *words, "--out", whole)[0] == 0
    assert (path / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
    assert (path / "histories.csv").read_bytes() == (whole / "histories.csv").read_bytes()
    net = fn.mlp([8], 10)
    models = [fn.load_model(p / "best" / "best.safetensors", net) for p in (path, whole)]
    assert models[0].params == models[1].params


@pytest.mark.slow
def test_hidden_sizes_seeds_and_divergence_survive_an_interrupt(tmp_path, interrupt_at):
    path = tmp_path / "run"
    words = ("--num-train", 200, "--hidden", 4, 3, "--hidden", 8, "--epochs", 3, "--quiet")
    words += ("--learning-rate", "1e-3", "1e30", "--optimizer", "sgd", "--seed", 5, "--seeds", 2)
    interrupt_at(4)  # some members of either network are saved
    assert run("sweep", *words, "--out", path)[0] == 130
    code, printed, error = run("sweep", "resume", path, "--quiet")
    assert code == 0, error
    rows = table(path)
    assert [row["seed"] for row in rows] == ["5", "6"] * 4
    assert [row["hidden_dims"] for row in rows] == ["(4, 3)"] * 4 + ["(8,)"] * 4
    assert [row["status"] for row in rows] == (["finished"] * 2 + ["diverged"] * 2) * 2

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads((path / "table.json").read_text(), parse_constant=no_constant)
    code, shown, error = run("sweep", "show", path)
    assert code == 0, error
    assert shown.splitlines()[:5] == printed.splitlines()[:5]
    assert [line.split()[-1] for line in shown.splitlines()[1:5]] == ["0", "0", "2", "2"]


def test_a_sweep_does_not_go_on_with_other_data(tmp_path, interrupt_at):
    interrupt_at(1)
    digits, file, path = fn.load_digits(), tmp_path / "data.npz", tmp_path / "run"
    np.savez(file, x=digits.x_train[:200], y=digits.y_train[:200])
    words = ("--dataset", file, *GRID, "--hidden", 4, "--epochs", 2, "--batch-size", 20)
    assert run("sweep", *words, "--quiet", "--out", path)[0] == 130
    np.savez(file, x=digits.x_train[1:201], y=digits.y_train[1:201])
    code, _, error = run("sweep", "resume", path)
    assert code == 2
    assert "data.npz has changed since the sweep was begun" in error
    np.savez(file, x=digits.x_train[:200], y=digits.y_train[:200])
    assert run("sweep", "resume", path, "--quiet")[0] == 0


def test_the_seed_draws_the_settings(tmp_path):
    words = ("--learning-rate", "log:1e-3..1e-1", "--samples", 2, "--seed", 1, "--epochs", 1)
    sweep(tmp_path / "run", *words)
    rate = fn.log_uniform(1e-3, 1e-1)
    drawn = fn.random_search(jax.random.key(1), 2, learning_rate=rate)
    rows = [float(row["learning_rate"]) for row in table(tmp_path / "run")]
    assert rows == [each["learning_rate"] for each in drawn]


def test_damaged_members_are_noticed(tmp_path, interrupt_at):
    path = tmp_path / "run"
    interrupt_at(1)
    assert run("sweep", *SMALL, "--seeds", 2, "--out", path)[0] == 130
    (file,) = (path / "members").glob("*.safetensors")
    file.write_bytes(b"nothing")
    code, _, error = run("sweep", "resume", path)
    assert code == 2
    assert f"{file} is not a safetensors file, or is damaged" in error
    trees = {"numbers/epochs": np.array([1]), "numbers/status": np.array([1])}
    save_tensors(path / "members" / "0.safetensors", trees, kind="member", run='{"members": [0]}')
    file.unlink()
    code, _, error = run("sweep", "resume", path)
    assert (
        code,
        "0.safetensors is damaged: it does not hold what it should ('identity')" in error,
    ) == (2, True)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (None, "settings is None"),
        ([], "it has no settings"),
        ([1], "it has no settings"),
        ({"seed": 0}, "settings is {'seed': 0}"),
    ],
)
def test_a_damaged_configuration_is_noticed(settings, problem, grid, tmp_path):
    copy = shutil.copytree(grid[0], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "settings": settings}))
    for action in ("show", "resume"):
        code, _, error = run("sweep", action, copy)
        assert code == 2
        assert f"config.json is damaged: {problem}" in error


@pytest.mark.parametrize("what", ["sweep", "members"])
def test_a_full_disk_costs_no_figures(what, tmp_path, monkeypatch):
    def full(*arguments, **more):
        raise OSError("no space left")

    if what == "sweep":
        monkeypatch.setattr(sweep_runs, "save_sweep", full)
    else:
        monkeypatch.setattr(saved, "save_tensors", full)
        monkeypatch.setattr(saved.Pace, "is_due", lambda self: False)
    words = ("--seeds", 2, "--epochs", 1, "--out", tmp_path / "run")
    code, printed, error = run("sweep", *SMALL, *words)
    assert (code != 0) == (what == "sweep")
    assert "no space left" in error
    assert "2 members: 2 finished" in printed
    assert ("saved in" in printed) == (what == "members")


def test_a_directory_that_holds_something_is_no_new_sweep(grid):
    with pytest.raises(FileExistsError, match="is there already"):
        sweep_runs.create_sweep(grid[0], Record(fn.Config(), {"settings": [{"seed": 0}]}))


WRONG = {
    (): "there is nothing to sweep",
    ("--learning-rate", "1e-3", "1e-3"): "learning_rate has 0.001 twice",
    ("--learning-rate", "fast"): "expected a number, or a range LOW..HIGH of such, got 'fast'",
    ("--learning-rate", "1e-3..1e-2"): "--learning-rate is a range: say with --samples",
    (
        "--learning-rate",
        "1e-3..1e-2",
        "2",
        "--samples",
        "2",
    ): "takes one range, or values, not both",
    ("--learning-rate", "2..1", "--samples", "2"): "high of uniform must be >= 2",
    ("--batch-size", "log:2..8", "--samples", "2"): "expected an integer, or a range",
    ("--samples", "2"): "--samples needs options with ranges or several values",
    ("--optimizer", "adm", "sgd"): "unknown optimizer 'adm': did you mean 'adam'?",
    ("--learning-rate", "1e-3", "-1"): "--learning-rate must be > 0, got -1.0 (settings[1]:",
    ("--momentum", "0.8", "0.9"): "--momentum is for",
    ("--seeds", "0"): "--seeds must be at least 1",
    ("--seeds", "2", "--halve-at", "3"): "every epoch of halve_at must be at most 2",
    ("--seeds", "2", "--all"): "--all is for funcnet sweep show RUN",
    ("--learnin-rate", "1"): "unknown option --learnin-rate: did you mean --learning-rate?",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_options_are_one_line(words, tmp_path):
    code, _, error = run("sweep", *SMALL, *words, "--out", tmp_path / "run")
    assert code == 2
    assert WRONG[words] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show",), "show needs the directory of a sweep"),
        (("show", "nowhere"), "nowhere is no sweep directory"),
        (("resume", "nowhere", "--epochs", 3), "--epochs is not for resume"),
        (("delete", "nowhere"), "unknown action 'delete'"),
        (("run", "nowhere"), "unexpected argument 'nowhere'"),
    ],
)
def test_wrong_actions(words, message):
    code, _, error = run("sweep", *words)
    assert code == 2
    assert message in error


def test_finished_sweeps_and_full_directories_are_left_alone(grid, tmp_path):
    path, _ = grid
    code, _, error = run("sweep", "resume", path)
    assert code == 2
    assert "is finished: funcnet sweep show" in error
    code, _, error = run("sweep", *SMALL, "--seeds", 2, "--out", path)
    assert code == 2
    assert "is there already: choose another directory\n" in error  # there is no --overwrite
    copy = shutil.copytree(path, tmp_path / "copy")
    for text in ("{", "{}", "[]", '[{"seed": 0}]'):
        (copy / "table.json").write_text(text)
        code, _, error = run("sweep", "show", copy)
        assert code == 2
        assert "table.json is damaged" in error
