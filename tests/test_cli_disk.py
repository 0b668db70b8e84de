"""What stays on disk, on the command line: all that is done with a run of other data."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import run

from funcnet import windows
from funcnet.datasets import mapped
from funcnet.tensors import load_tensors

pytestmark = pytest.mark.usefixtures("unoptimized")
QUICK = ("--hidden-dims", 8, "--embedding", "none", "--epochs", 2, "--batch-size", 20, "--quiet")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(windows, "WINDOW", 2**12)
    monkeypatch.setattr(windows, "BLOCK", 2**7)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """A table of clicks, and the shards that are made of it."""
    rng = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("data")
    lines = ["price,colour,clicked"]
    for i in range(1000):
        price, colour = rng.normal(), ["red", "green", "blue"][i % 3]
        clicked = "yes" if price + (colour == "red") > 0.5 else "no"
        lines.append(f"{price:.3f},{colour},{clicked}" if i % 20 else f",{colour},{clicked}")
    (place / "clicks.csv").write_text("\n".join(lines))
    words = (place / "clicks.csv", place / "clicks", "--label", "clicked", "--quiet")
    code, _, err = run("datasets", "convert", *words)
    assert (code, err) == (0, "")
    return place


def tensors(path):
    leaves, _ = load_tensors(Path(path) / "last.safetensors", kind="model")
    return {name: np.asarray(leaf).tobytes() for name, leaf in leaves.items()}


def test_a_run_on_shards_of_a_table(clicks):
    code, out, err = run("train", "--dataset", clicks / "clicks", *QUICK[:-1], "--epochs", 20)
    assert (code, err) == (0, "")
    assert "label 'clicked', 2 classes" in out
    assert "recipe table, as of any table" in out
    assert "of examples stay on disk, and are read 4 KiB at a time" in out
    config = json.loads(Path("runs/clicks/config.json").read_text())
    accuracy = config["results"]["test_accuracy"]
    assert accuracy > 0.8
    code, out, err = run("evaluate", "runs/clicks", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["accuracy"] == accuracy
    found = json.loads(out)
    assert sum(each["examples"] for each in found["classes"]) == found["examples"]
    code, out, err = run("verify", "runs/clicks")
    assert (code, err) == (0, "")
    assert "the bits agree" in out
    code, out, err = run("predict", "runs/clicks", clicks / "clicks.csv", "--label", "clicked")
    assert (code, err) == (0, "")
    said = [line.split(",")[2] for line in out.split()[1:]]
    true = [line.split(",")[2] for line in (clicks / "clicks.csv").read_text().split()[1:]]
    assert np.mean(np.array(said) == true) > 0.8
    code, out, err = run("evaluate", "runs/clicks", clicks / "clicks.csv")
    assert (code, err) == (0, "")
    assert "(1,000 examples" in out


def test_in_memory_a_run_on_shards_is_one_of_other_data(clicks):
    code, _, err = run("train", "--dataset", clicks / "clicks", *QUICK, "--memory-map", "no")
    assert (code, err) == (0, "")
    code, _, err = run(
        "sweep", "--dataset", clicks / "clicks", "--memory-map", "no", *QUICK,
        "--learning-rate", 1e-3, 1e-2,
    )  # fmt: skip
    assert (code, err) == (0, "")


def test_a_run_that_was_cut_off_in_mid_epoch_goes_on(clicks, brought):
    words = ("train", "--dataset", clicks / "clicks", *QUICK)
    assert run(*words, "--out", "whole")[0] == 0
    brought.ends.clear()
    brought.stop = 6
    code, _, err = run(*words, "--out", "cut")
    brought.stop = None
    assert code == 130
    assert "funcnet train --resume cut goes on" in err
    assert any("-batch-" in path.name for path in Path("cut/checkpoints").iterdir())
    code, _, err = run("train", "--resume", "cut", "--quiet")
    assert (code, err) == (0, "")
    assert tensors("cut") == tensors("whole")
    assert Path("cut/losses.csv").read_text() == Path("whole/losses.csv").read_text()
    assert run("verify", "cut")[0] == 0


def test_another_file_that_stays_on_disk_is_measured_by_the_names_of_its_classes(monkeypatch):
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    y = np.array(["a", "b", "c"])[(x[:, 0] > 0).astype(int) + (x[:, 0] > 1)]
    np.save("x.npy", x)
    np.save("y.npy", y)
    assert run("train", "--dataset", "x.npy", *QUICK, "--out", "r")[0] == 0
    Path("some").mkdir()
    np.save("some/x.npy", x[y != "a"])
    np.save("some/y.npy", y[y != "a"])
    memory = run("evaluate", "r", "some/x.npy")
    assert (memory[0], memory[2]) == (0, "")
    monkeypatch.setattr(mapped, "LARGE", 1)
    code, out, err = run("evaluate", "r", "some/x.npy")
    assert code == 0
    assert "stay on disk" in err
    assert out == memory[1]


def test_shards_are_no_file_to_be_measured_on(clicks):
    assert run("train", "--dataset", clicks / "clicks", *QUICK, "--out", "r")[0] == 0
    code, _, err = run("evaluate", "r", clicks / "clicks")
    assert code == 2
    assert "holds shards, whose columns are made for what is trained on them" in err


def test_what_is_shown_of_arrays_on_disk():
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(500, 3)).astype(np.float32))
    np.save("y.npy", np.arange(500) % 2)
    show = "datasets", "show", "x.npy", "--memory-map"
    shown = [run(*show, which) for which in ("yes", "no")]
    assert [code for code, _, _ in shown] == [0, 0]
    assert "500 examples of [3] float32" in shown[0][1]
    totals = [out.splitlines()[-1].split()[1:] for _, out, _ in shown]
    assert [sum(map(int, each)) for each in totals] == [500, 500]
    np.save("y.npy", rng.normal(size=(500, 2)))
    outs = [run(*show, which)[1].splitlines() for which in ("yes", "no")]
    assert [line.split()[:1] for line in outs[0]] == [line.split()[:1] for line in outs[1]]


def test_data_that_changed_are_refused(clicks):
    place = Path("own")
    convert = "datasets", "convert", clicks / "clicks.csv", place, "--label", "clicked", "--quiet"
    assert run(*convert)[0] == 0
    assert run("train", "--dataset", place, *QUICK)[0] == 0
    assert run(*convert, "--test-fraction", 0.2, "--overwrite")[0] == 0
    code, _, err = run("evaluate", "runs/own")
    assert code == 2
    assert "own has changed since the run" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("sweep", "--dataset", "SHARDS", "--learning-rate", 1e-3, 1e-2),
            "needs them in memory: .*--memory-map no",
        ),
        (("train", "--dataset", "SHARDS", "--val-fraction", 0.2), "the val split is given"),
        (("train", "--dataset", "SHARDS", "--label", "a"), "is for tables, but .* holds arrays"),
        (("train", "--dataset", "SHARDS", "--memory-map", "maybe"), "memory-map"),
        (("datasets", "convert", "CSV", "out", "--memory-map", "yes"), "is for show, not for"),
        (("train", "--memory-map", "no"), "--memory-map is for files, not for digits"),
        (("train", "--dataset", "CSV", "--memory-map", "no"), "is for arrays, and .* is a table"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words, message, clicks):
    names = {"SHARDS": clicks / "clicks", "CSV": clicks / "clicks.csv"}
    code, _, err = run(*(names.get(word, word) for word in words))
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"funcnet {words[0]}: error: ")
    assert re.search(message, last), last


@pytest.mark.parametrize("damage", ["{", '{"task": 3}'])
def test_a_damaged_manifest_is_said_in_a_line(damage, clicks):
    shutil.copytree(clicks / "clicks", "broken")
    Path("broken/dataset.json").write_text(damage)
    for words in (("train", "--dataset"), ("datasets", "show")):
        code, _, err = run(*words, "broken")
        assert code == 2
        assert len(err.splitlines()) == 1
        assert err.startswith(f"funcnet {words[0]}: error: ")
        assert "broken/dataset.json" in err


@pytest.mark.parametrize("dataset", ["x.npy", "x"])
def test_an_older_run_on_large_files_has_them_in_memory(dataset, monkeypatch):
    monkeypatch.setattr(mapped, "LARGE", 1)
    place = Path(dataset) if dataset == "x" else Path()
    place.mkdir(exist_ok=True)
    np.save(place / "x.npy", np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32))
    np.save(place / "y.npy", np.arange(500) % 2)
    assert run("train", "--dataset", dataset, *QUICK, "--memory-map", "no")[0] == 0
    path = Path("runs/x/config.json")
    content = json.loads(path.read_text())
    assert content.pop("memory_map") == "no"
    path.write_text(json.dumps(content))
    code, out, err = run("verify", "runs/x")
    assert (code, err) == (0, "")
    assert "the bits agree" in out
