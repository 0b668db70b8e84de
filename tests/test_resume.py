"""Commands that are cut off, by whatever, and go on to the same bits."""

import dataclasses
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import reliability
from command import run
from marks import slow_but
from safetensors.numpy import load_file

import funcnet as fn
from funcnet.cli.console import interrupts

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SMALL = ("--hidden-dims", 8, "--num-train", 200, "--quiet")


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def begin(*words):
    """A command in a process of its own, which hears Ctrl-C wherever the tests run."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from funcnet.__main__ import entry; sys.argv = ['funcnet', *sys.argv[1:]]; entry()"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def at_epoch(process, number):
    """Wait until a run has done so many epochs."""
    for line in process.stdout:
        if line.startswith(f"(Epoch {number} "):
            return
    pytest.fail(process.stderr.read())


def outcome(path):
    """What a run came to, but for what is not of its bits."""
    path = Path(path)
    config = json.loads((path / "config.json").read_text())
    files = {name: (path / name).read_text() for name in ("history.csv", "losses.csv")}
    tensors = {
        (name, key): (array.dtype, array.tobytes())
        for name in ("best", "last")
        for key, array in load_file(path / f"{name}.safetensors").items()
    }
    return config["results"], files, tensors


CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
OPTIONS = {
    "plain": (),
    "much": (
        *("--normalization", "batchnorm", "--keep-prob", 0.9, "--optimizer", "adamw"),
        *("--schedule", "one_cycle", "--average-decay", 0.9, "--augment", "shift"),
        *("--mixup-alpha", 0.2),
    ),
}


def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost():
    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGTERM)

    def work():
        gc.callbacks.append(callback)
        gc.collect()
        for _ in range(1000):
            time.sleep(0.01)

    with interrupts() as heard, pytest.raises(KeyboardInterrupt):
        work()
    assert heard.code == 143


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        pytest.param("plain", (signal.SIGTERM,), id="terminated"),
        pytest.param("much", (signal.SIGKILL,), id="killed", marks=pytest.mark.slow),
        pytest.param(
            *("much", (signal.SIGINT, signal.SIGKILL, signal.SIGTERM)),
            id="interrupted, killed, terminated",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_was_ended_goes_on_to_the_same_bits(options, signals):
    words = ("train", *SMALL[:-1], *OPTIONS[options], "--epochs", 400)
    for number, end in enumerate(signals):
        again = ("train", "--resume", "cut") if number else (*words, "--out", "cut")
        with begin(*again) as process:
            at_epoch(process, 30 + 100 * number)
            process.send_signal(end)
            _, err = process.communicate(timeout=120)
        assert process.returncode == CODES[end]
        assert "Traceback" not in err
        if end != signal.SIGKILL:
            done = re.search(r"this is the run after epoch (\d+); funcnet train --resume cut", err)
            assert Path(f"cut/checkpoints/epoch-{int(done[1]):08}.safetensors").is_file()
            assert run("evaluate", "cut")[0] == 0
    with begin("train", "--resume", "cut", "--quiet") as process:
        out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert "saved in cut" in out
    with begin(*words, "--quiet", "--out", "whole") as process:
        process.communicate(timeout=240)
    assert outcome("cut") == outcome("whole")
    assert json.loads(Path("cut/config.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_the_run_goes_on_all_the_same():
    with begin("train", *SMALL[:-1], "--epochs", 100_000, "--out", "r") as process:
        at_epoch(process, 30)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    with begin("train", "--resume", "r") as process:
        at_epoch(process, 3_000)
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "muon"])
def test_a_run_cut_off_after_a_step_goes_on_in_another_process_to_the_same_bits(name):
    assert reliability.steps([name], range(1, 60, 6)).endswith("0 bits differ")


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_to_the_same_bits():
    assert "comes to the same bits, 0 files" in reliability.sweep_kills(2)


def test_ctrl_c_while_the_program_is_loaded_shows_no_traceback():
    ends = set()
    for wait in (0.1, 0.3, 0.8, 3):
        with begin("train", *SMALL, "--epochs", 100_000, "--out", f"r{wait}") as process:
            time.sleep(wait)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        if process.returncode == 1:  # Python itself was not up
            assert "KeyboardInterrupt" in err
            continue
        ends.add(process.returncode)
        assert "Traceback" not in err
    assert ends == {130}


@pytest.mark.parametrize("place", ["cli.keep_compiled", "cli._parse", "cli.sys.exit"])
def test_ctrl_c_outside_of_a_command_shows_no_traceback(place):
    """Before it has read its arguments, and when it is done."""
    code = f"""
import signal, sys
from funcnet import cli
from funcnet.__main__ import entry
def interrupted(*words):
    signal.raise_signal(signal.SIGINT)
{place} = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["funcnet", "recipes"]
entry()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_ctrl_c_that_python_drops_ends_a_command_all_the_same():
    """JAX has a callback of the garbage collector, and what it raises is dropped."""
    code = """
import gc, signal
import funcnet.cli
from funcnet.__main__ import entry
def command():
    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGINT)
    gc.callbacks.append(callback)
    gc.collect()
    print("went on")
funcnet.cli.entry = command
signal.signal(signal.SIGINT, signal.default_int_handler)
entry()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_finished_run_goes_on_with_more_epochs():
    run("train", *SMALL, "--epochs", 4, "--out", "r")
    code, _, err = run("train", "--resume", "r")
    assert (code, err) == (
        2,
        "funcnet train: error: r is finished, after 4 epochs: to go on, give more with --epochs\n",
    )
    assert run("train", "--resume", "r", "--epochs", 6, "--quiet")[0] == 0
    run("train", *SMALL, "--epochs", 6, "--out", "whole")
    assert outcome("r") == outcome("whole")
    assert json.loads(Path("r/config.json").read_text())["epochs"] == 6


def test_a_schedule_of_all_epochs_says_why_there_cannot_be_more():
    run("train", *SMALL, "--epochs", 4, "--schedule", "cosine", "--out", "r")
    code, _, err = run("train", "--resume", "r", "--epochs", 6)
    assert code == 2
    assert "--epochs 6: the schedule cosine of this run is one of 4 epochs in all" in err


WRONG = {
    "another option": (("--reg", 1), "--reg is not for --resume: the run has its own options"),
    "an alias": (("--mixup", 0.1), "--mixup is not for --resume"),
    "a recipe": (("--recipe", "digits"), "--recipe is not for --resume"),
    "out": (("--out", "x"), "--out is not for --resume"),
    "fewer epochs": (
        ("--epochs", 2),
        "epochs is 2, but the run in r/checkpoints has done 3",
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(path)
    run("train", *SMALL, "--epochs", 3, "--out", "r")
    os.chdir(before)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_resume(case, finished, monkeypatch):
    words, problem = WRONG[case]
    monkeypatch.chdir(finished)
    before = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    code, out, err = run("train", "--resume", "r", "--quiet", *words)
    assert (code, out) == (2, "")
    assert problem in err
    assert err.count("\n") == 1
    assert {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()} == before


def test_no_run_and_no_checkpoints(finished, monkeypatch):
    assert "nothing is no run directory" in run("train", "--resume", "nothing")[2]
    assert "--resume is empty" in run("train", "--resume", "")[2]
    monkeypatch.chdir(finished)
    Path("r/checkpoints").rename("elsewhere")
    code, _, err = run("train", "--resume", "r", "--epochs", 9)
    Path("elsewhere").rename("r/checkpoints")
    assert code == 2
    assert (
        "r has no checkpoints: it is the best of a sweep, an older funcnet made it, or they were"
        in err
    )


def test_the_best_of_a_sweep_is_not_trained_anew_in_its_place():
    run("sweep", *SMALL, "--epochs", 1, "--seeds", 2, "--out", "s")
    before = Path("s/best/last.safetensors").read_bytes()
    code, _, err = run("train", "--resume", "s/best", "--epochs", 2)
    assert code == 2
    assert "s/best has no checkpoints: it is the best of a sweep" in err
    assert Path("s/best/last.safetensors").read_bytes() == before


def test_a_sweep_that_has_no_members_yet_says_so():
    words = ("sweep", *SMALL, "--epochs", 1, "--seeds", 2, "--out", "s")
    run(*words)
    config = json.loads(Path("s/config.json").read_text())
    Path("s/config.json").write_text(json.dumps({**config, "status": "running"}))
    shutil.rmtree("s/members")
    code, out, err = run("sweep", "resume", "s", "--quiet")
    assert (code, err) == (0, "note: s has no member that was begun: it begins anew\n")
    assert "2 members: 2 finished" in out


def test_numbers_that_json_has_not_are_null():
    words = ("train", *SMALL, "--epochs", 1, "--weight-scale", 1e30, "--model", "last")
    code, _, err = run(*words, "--on-nonfinite", "skip", "--out", "r")
    assert (code, err) == (0, "")
    text = Path("r/config.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["results"]["test_loss"] is None


def test_a_file_that_has_changed_since_is_refused(rng):
    rows = ["a,b,label", *(f"{x:.3f},{y:.3f},{int(x > y)}" for x, y in rng.normal(size=(90, 2)))]
    Path("t.csv").write_text("\n".join(rows) + "\n")
    run("train", "--dataset", "t.csv", "--quiet", "--epochs", 2, "--out", "r")
    Path("t.csv").write_text("\n".join([*rows[:-1], "1,2,0"]) + "\n")
    code, _, err = run("train", "--resume", "r", "--quiet", "--epochs", 3)
    assert code == 2
    assert "t.csv has changed since the run was begun" in err


def test_two_processes_on_one_run():
    with begin("train", *SMALL[:-1], "--epochs", 100_000, "--out", "r") as process:
        at_epoch(process, 5)
        for words in (("--resume", "r"), (*SMALL, "--epochs", 3, "--out", "r", "--overwrite")):
            code, _, err = run("train", *words)
            assert code == 2
            assert f"r/checkpoints is in use, by process {process.pid}: wait" in err
        process.kill()
    assert run("train", *SMALL, "--epochs", 3, "--out", "r", "--overwrite")[0] == 0


def test_overwriting_loses_nothing_before_all_is_known_to_be_right(finished, monkeypatch):
    monkeypatch.chdir(finished)
    before = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    code, _, err = run("train", *SMALL, "--batch-size", 300, "--out", "r", "--overwrite")
    assert code == 2
    assert "batch_size is 300, but there are only 200" in err
    assert {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()} == before


def test_a_run_that_could_not_begin_leaves_no_directory():
    for out in ((), ("--out", "new")):
        assert run("train", *SMALL, "--batch-size", 300, *out)[0] == 2
    assert [p for p in Path().rglob("*") if p.name != "runs"] == []


@pytest.mark.parametrize("options", ["plain", pytest.param("much", marks=pytest.mark.slow)])
def test_verify_trains_a_run_again_and_compares_its_bits(options):
    run("train", *SMALL, *OPTIONS[options], "--epochs", 6, "--out", "r")
    before = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    code, out, err = run("verify", "r")
    assert (code, err) == (0, "")
    assert out == "the bits agree: the losses of 24 steps, and the model after epoch 6\n"
    code, out, _ = run("verify", "r", "--last")
    assert (code, out.split(",")[0]) == (0, "the bits agree: the losses of 20 steps")
    assert {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()} == before


def test_verify_says_what_differs():
    run("train", *SMALL, "--epochs", 3, "--out", "r")
    losses = Path("r/losses.csv").read_text().splitlines()
    number, loss = losses[7].split(",")
    losses[7] = f"{number},{float(loss) * (1 + 1e-15)!r}"
    Path("r/losses.csv").write_text("\n".join(losses) + "\n")
    net = fn.mlp([8], 10, weight_scale=2e-2)
    model = fn.load_model("r/last.safetensors", net)
    bias = model.params["affine2"]["b"].at[3].add(1e-6)
    changed = dataclasses.replace(model, params=model.params.set(("affine2", "b"), bias))
    fn.save_model("r/last.safetensors", changed)
    code, out, _ = run("verify", "r")
    assert code == 1
    head, first, second = out.splitlines()
    assert head == "the bits differ, of 12 steps trained again:"
    assert re.fullmatch(r"  the losses of 1 step, the first at step 7: \S+ there, \S+ now", first)
    assert re.fullmatch(r"  params/affine2/b, by (9|1)\S+ at most", second)


def test_what_cannot_be_verified():
    assert "is no run directory" in run("verify", "r")[2]
    run("train", *SMALL, "--epochs", 1, "--out", "r")
    code, _, err = run("verify", "r", "--last")
    assert (code, err.splitlines()[-1]) == (
        2,
        "funcnet verify: error: r/checkpoints has no checkpoint from before epoch 1",
    )
    config = json.loads(Path("r/config.json").read_text())
    Path("r/config.json").write_text(json.dumps({**config, "machine": {"backend": "abacus"}}))
    assert "note: the run was made by" in run("verify", "r")[2]


@pytest.mark.slow
def test_patience_ends_a_run():
    words = ("train", *SMALL[:-1], "--epochs", 300, "--learning-rate", 1e-2, "--patience", 3)
    code, out, err = run(*words, "--out", "r")
    assert (code, err) == (0, "")
    done = int(re.search(r"^stopped after epoch (\d+): no better model in 3 meas", out, re.M)[1])
    config = json.loads(Path("r/config.json").read_text())
    assert (config["status"], config["results"]["epochs"]) == ("stopped", done)
    assert config["results"]["best_epoch"] == done - 3
    assert run("verify", "r")[0] == 0
    code, _, err = run("train", "--resume", "r")
    assert (code, err) == (
        2,
        "funcnet train: error: r has ended as its --patience has it: train anew with more\n",
    )


def test_the_best_model_may_be_the_one_of_least_loss():
    words = ("train", *SMALL, "--epochs", 6, "--learning-rate", 3e-2, "--monitor", "val_loss")
    code, out, err = run(*words, "--out", "r")
    assert (code, err) == (0, "")
    history = np.genfromtxt("r/history.csv", delimiter=",", names=True)
    best = history[history["val_loss"].argmin()]
    assert (
        f"validation accuracy {100 * best['val_accuracy']:.2f} %, loss {best['val_loss']:.4f} of "
        f"the best model by val_loss, that after epoch {best['epoch']:.0f}"
    ) in out
    results = json.loads(Path("r/config.json").read_text())["results"]
    assert results["best_epoch"] == best["epoch"]
    assert (
        "unknown monitor 'val_los': did you mean 'val_loss'?"
        in run("train", "--monitor", "val_los")[2]
    )


@pytest.mark.parametrize("policy", slow_but(["stop", "skip"], "skip"))
def test_steps_that_are_not_finite_are_skipped_if_wanted(policy):
    words = ("train", *SMALL, "--epochs", 3, "--optimizer", "sgd", "--learning-rate", 1e30)
    code, out, err = run(*words, "--on-nonfinite", policy, "--out", "r")
    assert code == 0
    left_out = len(re.findall(",(?:nan|-?inf)$", Path("r/losses.csv").read_text(), re.M))
    assert (f"{left_out} of 12 updates were not finite, and left out" in out) == (policy == "skip")
    config = json.loads(Path("r/config.json").read_text())
    stops = policy == "stop"
    assert config["results"]["epochs"] == (0 if stops else 3)
    assert config["status"] == ("diverged" if stops else "finished")
    assert ("warning: step" in err) == stops
    model = fn.load_run("r", model="last")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.params))


@pytest.mark.slow
def test_members_of_a_sweep_end_for_want_of_patience():
    words = ("sweep", *SMALL, "--epochs", 60, "--learning-rate", 1e-3, 0.3, "--patience", 2)
    code, out, err = run(*words, "--monitor", "val_loss", "--out", "s")
    assert (code, err) == (0, "")
    rows = json.loads(Path("s/table.json").read_text())
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert rows[1]["epochs"] == rows[1]["best_epoch"] + 2 < 60
    assert "of the best model by val_loss" in out
    settings = json.loads(Path("s/config.json").read_text())["results"]["best_settings"]
    best = min(rows, key=lambda row: row["val_loss"])
    assert settings["learning_rate"] == best["learning_rate"]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_was_ended_goes_on_to_the_same_bits(end):
    words = ("sweep", *SMALL, "--learning-rate", 1e-3, 1e-2, "--epochs", 300, "--keep-prob", 0.9)
    words += ("--eval-every", 30, "--chunk-size", 1)
    with begin(*words, "--out", "cut") as process:
        while not list(Path("cut/members").glob("*.safetensors")):
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(0.5)
        process.send_signal(end)
        _, err = process.communicate(timeout=120)
    assert process.returncode == CODES[end]
    assert "Traceback" not in err
    assert ("funcnet sweep resume cut goes on" in err) == (end == signal.SIGTERM)
    for command in (("sweep", "resume", "cut", "--quiet"), (*words, "--out", "whole")):
        with begin(*command) as process:
            _, err = process.communicate(timeout=240)
        assert (process.returncode, err) == (0, "")
    for name in ("table.csv", "histories.csv", "best/losses.csv", "best/history.csv"):
        assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes()
    for name in ("best", "last"):
        cut, whole = (load_file(f"{p}/best/{name}.safetensors") for p in ("cut", "whole"))
        assert {k: v.tobytes() for k, v in cut.items()} == {
            k: v.tobytes() for k, v in whole.items()
        }


def test_a_process_that_comes_second_leaves_the_first_alone():
    """Even before the first has written anything."""
    seen = []

    def callback(epoch, state, metrics):
        if epoch == 0:
            code, _, err = run("train", *SMALL, "--epochs", 3, "--out", "r")
            seen.append((code, "r/checkpoints is in use" in err, Path("r/checkpoints").is_dir()))

    options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 500}
    fn.fit(
        fn.mlp([4], 10),
        fn.adam(1e-3),
        fn.load_digits(),
        checkpoint="r/checkpoints",
        callback=callback,
        **options,
    )
    assert seen == [(2, True, True)]
    assert Path("r/checkpoints/epoch-00000002.safetensors").is_file()


def test_a_directory_of_the_user_stays_though_the_run_could_not_begin():
    Path("mine").mkdir()
    assert run("train", *SMALL, "--batch-size", 300, "--out", "mine")[0] == 2
    assert Path("mine").is_dir()
    assert not list(Path("mine").iterdir())


def test_the_model_of_a_run_from_python(finished):
    digits = fn.load_digits()
    for which in ("best", "last", None):
        model = fn.load_run(finished / "r", model=which)
        code, out, _ = run("evaluate", finished / "r", "--model", which or "best")
        accuracy = fn.evaluate(model, digits.x_test, digits.y_test).accuracy
        assert (code, f"test accuracy {100 * accuracy:.2f} %" in out) == (0, True)
    with pytest.raises(ValueError, match="unknown model 'bets': did you mean 'best'"):
        fn.load_run(finished / "r", model="bets")
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        fn.load_run(finished)
