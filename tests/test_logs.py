"""Logs of runs: rows while a run goes on, that of one that was cut off, and events."""

import csv
import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from command import run

import funcnet as fn

SMALL = ("--hidden-dims", "8", "--num-train", "200", "--batch-size", "50", "--epochs", "3")


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def told(epoch, **measured):
    """What a callback of a run of four steps an epoch is told."""
    losses = np.full(4 if epoch else 0, 1 / max(epoch, 1)) + np.arange(4 if epoch else 0)
    return epoch, SimpleNamespace(step=np.int32(4 * epoch)), {"losses": losses, **measured}


def few():
    digits = fn.load_digits()
    return digits._replace(x_train=digits.x_train[:200], y_train=digits.y_train[:200])


def options(**more):
    return {"key": jax.random.key(0), "batch_size": 50, "epochs": 3, **more}


def agree(log, history):
    """Whether a log and a history.csv hold the same epochs and measures."""
    head, *lines = Path(history).read_text().splitlines()
    names = head.split(",")
    assert len(lines) == len(log)
    for row, line in zip(log, lines, strict=True):
        cells = dict(zip(names, map(float, line.split(",")), strict=True))
        np.testing.assert_equal({name: row[name] for name in names}, cells)
        assert set(row) == {*names, "step", "seconds", "loss"}


def test_rows_are_there_while_the_run_goes_on():
    seen = []

    def look(epoch, train_state, metrics):
        rows = fn.read_log("log.jsonl")
        table = Path("log.csv").read_text().splitlines()
        seen.append((len(rows), len(table)))

    both = fn.callbacks(fn.log_jsonl("log.jsonl"), fn.log_csv("log.csv"), look)
    result = fn.fit(fn.mlp([8], 10), fn.adam(1e-3), few(), callback=both, **options())
    assert seen == [(1, 2), (2, 3), (3, 4), (4, 5)]
    rows, history = fn.read_log("log.jsonl"), result.history
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (1, 4), (2, 8), (3, 12)]
    assert math.isnan(rows[0]["loss"])
    means = [row["loss"] for row in rows[1:]]
    np.testing.assert_allclose(means, history.loss.reshape(3, 4).mean(axis=1), rtol=1e-12)
    assert [row["val_accuracy"] for row in rows] == list(history.val_accuracy)
    assert [row["train_loss"] for row in rows] == list(history.train_loss)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[0] < seconds[-1]
    head, *lines = Path("log.csv").read_text().splitlines()
    assert head.split(",") == list(rows[0])
    last = dict(zip(head.split(","), map(float, lines[-1].split(",")), strict=True))
    assert {k: v for k, v in last.items() if k != "seconds"} == {
        k: v for k, v in rows[-1].items() if k != "seconds"
    }


def test_every_line_is_json_that_other_readers_take():
    log = fn.log_jsonl("log.jsonl")
    log(*told(0, val_loss=np.nan))
    log(*told(1, val_loss=np.inf))

    def refused(constant):
        raise AssertionError(constant)

    lines = Path("log.jsonl").read_text().splitlines()
    first, second = (json.loads(line, parse_constant=refused) for line in lines)
    assert first.pop("seconds") < second.pop("seconds") + 1
    assert first == {"epoch": 0, "step": 0, "loss": None, "val_loss": None}
    assert second == {"epoch": 1, "step": 4, "loss": 2.5, "val_loss": None}


def test_epochs_that_are_not_measured_have_no_row_unless_none_is():
    fit = fn.fit, (fn.mlp([8], 10), fn.adam(1e-3), few())
    for name, every in (("two", 2), ("none", None)):
        call, given = fit
        call(*given, callback=fn.log_jsonl(name), eval_every=every, **options())
    assert [row["epoch"] for row in fn.read_log("two")] == [0, 2, 3]
    rows = fn.read_log("none")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert set(rows[1]) == {"epoch", "step", "seconds", "loss"}


def test_rows_of_epochs_that_are_trained_again_are_replaced():
    net, optimizer = fn.mlp([8], 10), fn.adam(1e-3)

    def logs():
        return fn.log_jsonl("log.jsonl", resume=True), fn.log_csv("log.csv", resume=True)

    def cut(epoch, train_state, metrics):
        if epoch == 3:
            raise ZeroDivisionError

    kept = {"checkpoint": "run", "checkpoint_every": 2, "resume": True, **options(epochs=4)}
    with pytest.raises(ZeroDivisionError):
        fn.fit(net, optimizer, few(), callback=fn.callbacks(*logs(), cut), **kept)
    before = fn.read_log("log.jsonl")
    assert [row["epoch"] for row in before] == [0, 1, 2, 3]
    with Path("log.jsonl").open("a") as file:
        file.write('{"epoch": 9')
    np.testing.assert_equal(fn.read_log("log.jsonl"), before)
    result = fn.fit(net, optimizer, few(), callback=fn.callbacks(*logs()), **kept)
    rows = fn.read_log("log.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    np.testing.assert_equal(rows[:3], before[:3])
    assert [row["val_loss"] for row in rows] == list(result.history.val_loss)
    assert rows[3]["seconds"] >= before[2]["seconds"]
    lines = Path("log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2", "3", "4"]


def test_a_table_keeps_its_columns_whatever_else_is_measured():
    first = fn.log_csv("log.csv", resume=True)
    for epoch in (0, 1):
        first(*told(epoch, val_loss=1.0))
    other = fn.log_csv("log.csv", resume=True)
    other(1, SimpleNamespace(step=4), {"losses": np.zeros(0)})  # where it goes on
    with pytest.warns(UserWarning, match="its own columns, and lacks train_loss"):
        other(*told(2, train_loss=2.0, val_loss=0.5))
    other(*told(3, train_loss=2.0, val_loss=0.25))
    other(*told(4, train_loss=2.0))
    rows = list(csv.DictReader(Path("log.csv").read_text().splitlines()))
    assert [row["val_loss"] for row in rows] == ["1.0", "1.0", "0.5", "0.25", "nan"]
    assert {len(row) for row in rows} == {5}


def test_a_log_of_another_run_is_not_lost():
    fn.log_jsonl("log.jsonl")(*told(0, val_loss=1.0))
    before = Path("log.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match=r"log.jsonl has rows already: .* resume=True"):
        fn.log_jsonl("log.jsonl")
    one = fn.log_jsonl("two.jsonl")
    one(*told(0, val_loss=1.0))
    one(*told(1, val_loss=1.0))
    with pytest.raises(FileExistsError):
        one(*told(0, val_loss=1.0))
    assert Path("log.jsonl").read_bytes() == before
    assert len(fn.read_log("two.jsonl")) == 2


def test_one_that_goes_on_from_a_state_adds_to_its_own():
    net, optimizer, log = fn.mlp([8], 10), fn.adam(1e-3), fn.log_jsonl("log.jsonl")
    first = fn.fit(net, optimizer, few(), callback=log, **options())
    more = {**options(epochs=5), "key": None, "train_state": first.state}
    fn.fit(net, optimizer, few(), callback=log, **more)
    assert [row["epoch"] for row in fn.read_log("log.jsonl")] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("no json\n", "line 1 of log.jsonl is damaged"),
        ('{"epoch": 0}\n[1]\n', "line 2 of log.jsonl is no row"),
        ('{"epoch": "x"}\n', "line 1 of log.jsonl is no row"),
    ],
)
def test_damage_is_said(text, match):
    Path("log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=match):
        fn.read_log("log.jsonl")


def test_a_damaged_table_is_not_gone_on_with():
    Path("log.csv").write_text("epoch,loss\n0,nan\nx,1\n")
    log = fn.log_csv("log.csv", resume=True)
    with pytest.raises(ValueError, match=r"line 3 of log\.csv is no row"):
        log(*told(1, val_loss=1.0))


def test_half_a_row_is_no_row():
    log = fn.log_jsonl("log.jsonl")
    for epoch in range(3):
        log(*told(epoch, val_loss=0.5))
    whole = Path("log.jsonl").read_bytes()
    for length in range(len(whole)):
        Path("log.jsonl").write_bytes(whole[:length])
        assert len(fn.read_log("log.jsonl")) == whole[:length].count(b"\n")


def test_without_room_the_run_goes_on_and_no_half_row_is_left(monkeypatch):
    log = fn.log_jsonl("log.jsonl")
    log(*told(0, val_loss=1.0))
    import funcnet.logs as logs

    write, calls = logs.os.write, []

    def full(descriptor, data):
        calls.append(len(data))
        if len(calls) == 1:
            return write(descriptor, data[:7])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logs.os, "write", full)
        with pytest.warns(UserWarning, match=r"No space left.*'?log.jsonl.* row of epoch 1"):
            log(*told(1, val_loss=1.0))
    log(*told(2, val_loss=1.0))
    assert [row["epoch"] for row in fn.read_log("log.jsonl")] == [0, 2]
    assert Path("log.jsonl").read_bytes().endswith(b"}\n")


def test_links_and_directories_are_refused():
    Path("elsewhere").write_text("")
    Path("link").symlink_to("elsewhere")
    with pytest.raises(ValueError, match="link is a link"):
        fn.log_jsonl("link")
    Path("folder").mkdir()
    with pytest.raises(ValueError, match="folder is a link, or something else"):
        fn.log_csv("folder")


def test_any_of_several_callbacks_ends_the_run_and_all_are_called():
    called = []

    def ends(how):
        def callback(epoch, train_state, metrics):
            called.append((how, epoch))
            if epoch == 1 and how == "stop":
                raise StopIteration
            return epoch == 1 if how == "true" else 1  # which is not True

        return callback

    for how in ("true", "stop"):
        called.clear()
        both = fn.callbacks(ends(how), ends("number"))
        result = fn.fit(fn.mlp([8], 10), fn.adam(1e-3), few(), callback=both, **options())
        assert result.status == "stopped"
        assert called == [(how, 0), ("number", 0), (how, 1), ("number", 1)]
        assert fn.callbacks(print, ends(how))(1, None, {}) is True
    with pytest.raises(TypeError, match="every callback"):
        fn.callbacks(print, 3)


def test_a_callback_for_anything_else_is_a_line(monkeypatch):
    sent = []
    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")

    def log(data, step=None, commit=None):
        sent.append(("wandb", data))

    def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None):
        assert all(isinstance(value, float | int) for value in metrics.values())
        sent.append(("mlflow", step))

    wandb.log, mlflow.log_metrics = log, log_metrics
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    lines = [line for line in fn.logs.__doc__.splitlines() if "callback=" in line]
    assert len(lines) == 2
    known = {
        "log_row": fn.log_row,
        "wandb": wandb,
        "mlflow": mlflow,
        "fit": lambda *_, callback: callback,
    }
    for line in lines:
        callback = eval(line.strip(), known)
        assert not callback(*told(2, val_accuracy=np.float32(0.5)))
    row = {"epoch": 2, "step": 8, "loss": 2.0, "val_accuracy": 0.5}
    assert sent == [("wandb", row), ("mlflow", 2)]


# The command


def test_a_run_directory_has_a_log_that_agrees_with_its_history(monkeypatch):
    import funcnet.runs as runs

    written = runs.write_history
    found = []

    def before_the_end(path, history):
        found.append((path / "history.csv").read_bytes())
        written(path, history)

    monkeypatch.setattr(runs, "write_history", before_the_end)
    code, _, err = run("train", *SMALL, "--out", "r", "--quiet")
    assert (code, err) == (0, "")
    agree(fn.read_log("r/log.jsonl"), "r/history.csv")
    assert found == [Path("r/history.csv").read_bytes()]
    log = Path("r/log.jsonl").read_bytes()
    assert run("train", *SMALL, "--out", "r", "--quiet", "--overwrite")[0] == 0
    assert [row["epoch"] for row in fn.read_log("r/log.jsonl")] == [0, 1, 2, 3]
    assert Path("r/log.jsonl").read_bytes() != log  # the seconds
    assert run("train", "--resume", "r", "--epochs", "5", "--quiet")[0] == 0
    rows = fn.read_log("r/log.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5]
    agree(rows, "r/history.csv")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_the_columns_are_those_of_the_history_whatever_the_task(task, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.normal(size=(300, 2))
    np.savez("d.npz", x=x, y=y if task == "regression" else (y > 0).astype(int))
    import funcnet.runs as runs

    found, written = [], runs.write_history

    def before_the_end(path, history):
        found.append((path / "history.csv").read_bytes())
        written(path, history)

    monkeypatch.setattr(runs, "write_history", before_the_end)
    argv = ("--dataset", "d.npz", "--task", task, "--epochs", "2", "--out", "r", "--quiet")
    code, _, err = run("train", *argv)
    assert code == 0, err
    assert found == [Path("r/history.csv").read_bytes()]
    agree(fn.read_log("r/log.jsonl"), "r/history.csv")


@pytest.mark.slow
def test_an_interrupt_between_an_epoch_and_its_row_loses_no_row(monkeypatch):
    import funcnet.runs as runs

    begin = runs.run_log

    def cut(path, **given):
        log = begin(path, **given)

        def interrupted(epoch, *rest):
            if epoch == 2:
                raise KeyboardInterrupt
            return log(epoch, *rest)

        return interrupted

    monkeypatch.setattr(runs, "run_log", cut)
    assert run("train", *SMALL, "--out", "r", "--quiet")[0] == 130
    rows = fn.read_log("r/log.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    agree(rows, "r/history.csv")
    losses = np.loadtxt("r/losses.csv", delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_allclose(rows[2]["loss"], losses[4:].mean())


# TensorBoard


def scalars(directory):
    """Tags to (step, value) pairs, as TensorBoard itself reads them."""
    pytest.importorskip("tensorboardX", reason="tensorboardX writes the events")
    pytest.importorskip("tensorboard", reason="TensorBoard's own reader is what counts")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_is_written():
    scalars(".")  # skips
    result = fn.fit(
        fn.mlp([8], 10),
        fn.adam(1e-3),
        few(),
        callback=fn.log_tensorboard("events"),
        **options(),
    )
    found, history = scalars("events"), result.history
    assert set(found) == {
        "step_loss",
        "epoch",
        "loss",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
    }
    steps, losses = zip(*found["step_loss"], strict=True)
    assert list(steps) == list(range(1, 13))
    np.testing.assert_allclose(losses, history.loss, rtol=1e-6)
    steps, values = zip(*found["val_accuracy"], strict=True)
    assert list(steps) == [0, 4, 8, 12]
    np.testing.assert_allclose(values, history.val_accuracy, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_no_step_twice_of_a_run_that_was_cut_off():
    scalars(".")
    begun = fn.log_tensorboard("events")
    for epoch in range(4):
        begun(*told(epoch, val_loss=float(epoch)))
    again = fn.log_tensorboard("events")
    again(2, SimpleNamespace(step=np.int32(8)), {"losses": np.zeros(0), "val_loss": 2.0})
    again(*told(3, val_loss=30.0))
    found = scalars("events")
    assert found["val_loss"] == [(0, 0.0), (4, 1.0), (8, 2.0), (12, 30.0)]
    assert [step for step, _ in found["step_loss"]] == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_directory_has_events_where_they_are_asked_for():
    scalars(".")
    assert run("train", *SMALL, "--out", "r", "--quiet", "--tensorboard")[0] == 0
    assert run("train", "--resume", "r", "--epochs", "5", "--quiet")[0] == 0
    found = scalars("r")
    assert [step for step, _ in found["val_accuracy"]] == [0, 4, 8, 12, 16, 20]
    assert [step for step, _ in found["step_loss"]] == list(range(1, 21))
    assert run("train", *SMALL, "--out", "r", "--quiet", "--overwrite")[0] == 0
    assert not list(Path("r").glob("events.out*"))


def test_without_tensorboardx_it_says_what_to_install(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else find(name)
    )
    code, _, err = run("train", *SMALL, "--out", "r", "--tensorboard")
    assert code == 2
    assert 'pip install "funcnet[tensorboard]"' in err
    assert not Path("r").exists()
    with pytest.raises(ImportError, match="funcnet\\[tensorboard\\]"):
        fn.log_tensorboard("events")
