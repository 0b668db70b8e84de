"""What commands print and keep of an Evaluation."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from command import run

import funcnet as fn
from funcnet.cli.measures import as_json, class_lines, further_line
from funcnet.config import Config
from funcnet.runs import Record, write_record
from funcnet.text import shown

pytestmark = pytest.mark.usefixtures("unoptimized")
NAMES = ["common", "rare one", "sole"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*options):
    """A run r of unequal classes, of which the last has one example, which is to train."""
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1, 2], [90, 30, 1])
    x = rng.normal(size=(len(y), 2)) + y[:, None]
    lines = [f"{a},{b},{NAMES[i]}" for (a, b), i in zip(x, y, strict=True)]
    Path("mine.csv").write_text("\n".join(["a,b,kind", *lines]))
    words = ("train", "--dataset", "mine.csv", "--hidden", 4, "--epochs", 3, "--out", "r")
    words += ("--test-fraction", 0.3, "--val-fraction", 0.2, "--model", "best")
    code, out, err = run(*words, "--quiet", "--learning-rate", 0.05, *options)
    assert (code, err) == (0, "")
    dataset = fn.load_arrays("mine.csv", test_fraction=0.3, val_fraction=0.2)
    model = fn.load_run("r", model="best")
    return out, model, dataset


def test_evaluate_and_train_say_what_the_library_measures():
    out, model, data = train()
    expected = fn.evaluate(model, data.x_test, data.y_test)
    assert expected.accuracy != expected.balanced_accuracy
    further = (
        f"balanced accuracy {100 * expected.balanced_accuracy:.2f} %, "
        f"log loss {expected.log_loss:.4f}"
    )
    after = out.splitlines().index(further)
    assert out.splitlines()[after - 1].startswith("test accuracy of that model ")

    results = json.loads(Path("r/config.json").read_text())["results"]
    for name, value in expected._asdict().items():
        if name != "views":
            assert results[f"test_{name}"] == json.loads(json.dumps(value)), name
    assert "test_views" not in results

    code, out, err = run("evaluate", "r")
    assert (code, err) == (0, "")
    first, second, head, *table = out.splitlines()
    assert first.startswith(f"test accuracy {100 * expected.accuracy:.2f} %, loss ")
    assert second == further
    assert head.split() == ["class", "recall", "found", "examples"]
    cells = [re.split(r"  +", line.strip()) for line in table]
    share = [f"{100 * each:.2f} %" for each in expected.recall[:2]] + ["-"]
    found = [str(expected.confusion[i][i]) for i in range(3)]
    count = [str((data.y_test == i).sum()) for i in range(3)]
    assert count[2] == "0"
    assert cells == [list(c) for c in zip(NAMES, share, found, count, strict=True)]


def test_evaluate_prints_json():
    _, model, data = train()
    code, out, err = run("evaluate", "r", "--split", "val", "--model", "best", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    expected = fn.evaluate(model, data.x_val, data.y_val)
    assert found == {
        "run": "r",
        "model": "best",
        "split": "val",
        "examples": 24,
        "views": 1,
        "loss": expected.loss,
        "accuracy": expected.accuracy,
        "balanced_accuracy": expected.balanced_accuracy,
        "log_loss": expected.log_loss,
        "classes": [
            {"name": name, "examples": count, "recall": share}
            for name, count, share in zip(
                NAMES, np.bincount(data.y_val, minlength=3), expected.recall, strict=True
            )
        ],
        "confusion": [list(row) for row in expected.confusion],
    }
    assert [each["recall"] is None for each in found["classes"]] == [False, False, True]


def test_after_the_svm_loss_there_is_no_log_loss():
    out, _, _ = train("--loss", "svm")
    printed = run("evaluate", "r")[1]
    for text in (out, printed):
        assert "log loss" not in text
        assert re.search(r"^balanced accuracy [\d.]+ %$", text, re.M)
    assert json.loads(run("evaluate", "r", "--json")[1])["log_loss"] is None
    assert json.loads(Path("r/config.json").read_text())["results"]["test_log_loss"] is None


def evaluation(classes, **changes):
    confusion = tuple(tuple(int(i == j) for j in range(classes)) for i in range(classes))
    whole = fn.Evaluation(0.5, 1.0, 1, 1.0, 0.5, (1.0,) * classes, confusion)
    return whole._replace(**changes)


@pytest.mark.parametrize(("classes", "lines"), [(20, 21), (21, 1)])
def test_many_classes_make_no_table(classes, lines):
    names = [f"class {i}" for i in range(classes)]
    found = class_lines(evaluation(classes), np.arange(classes), names)
    assert len(found) == lines
    if classes > 20:
        assert found == ["recall of each of the 21 classes: --json"]


def test_numbers_that_json_has_none_for_are_null():
    result = evaluation(2, loss=math.nan, log_loss=math.inf)
    text = as_json(result, np.array([0, 1]), ["a", "a"], run="r")
    found = json.loads(text, parse_constant=pytest.fail)
    assert (found["loss"], found["log_loss"], found["run"]) == (None, None, "r")
    assert [each["name"] for each in found["classes"]] == ["a", "a"]
    assert further_line(result) == "balanced accuracy 100.00 %, log loss inf"


def test_examples_that_were_taken_for_no_class_are_counted():
    result = evaluation(2, recall=(0.5, 0.0), confusion=((1, 0), (0, 0)))
    lines = class_lines(result, np.array([0, 0, 1]), ["a", "b"])
    assert [line.split()[-2:] for line in lines[1:]] == [["1", "2"], ["0", "1"]]
    classes = json.loads(as_json(result, np.array([0, 0, 1]), ["a", "b"]))["classes"]
    assert [each["examples"] for each in classes] == [2, 1]


def test_lists_of_numbers_are_a_line_each(tmp_path):
    """Whatever else is in a config.json stays what it is."""
    names = ["[ 1,  2 ]", "[\n1\n]", 'a "b"', "\\[\\n 3"]
    results = {"test_confusion": [[1, 22], [3, -4.5e-7]], "test_recall": [None, 0.25], "none": []}
    record = Record(Config(), {"class_names": names, "title": "of [\n 7 ]", "results": results})
    write_record(tmp_path, "run", record)
    text = (tmp_path / "config.json").read_text()
    content = json.loads(text)
    assert content["class_names"] == names
    assert content["title"] == "of [\n 7 ]"
    assert content["results"] == results
    lines = [line.strip() for line in text.splitlines()]
    assert {"[1, 22],", "[3, -4.5e-07]", '"test_recall": [null, 0.25],'} <= set(lines)


def test_measures_in_units_of_the_target_have_six_digits_of_any_size():
    values = [243964.4, 32370.0, 0.5, 1.25e9, -3.0]
    found = [shown("val_rmse", value) for value in values]
    assert found == ["243964", "32370.0", "0.500000", "1.25000e+09", "-3.00000"]
