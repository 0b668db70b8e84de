"""The command line, as a person meets it: what it prints, keeps and refuses."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import cifar_folder, run
from marks import slow_but

import funcnet as fn
from funcnet.cli import COMMANDS
from funcnet.config import OPTIONS
from funcnet.datasets.registry import DATASETS
from funcnet.option import option

SMALL = ["--hidden", "8", "--epochs", "2", "--num-train", "200"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """Nowhere to find CIFAR-10."""
    monkeypatch.setenv("FUNCNET_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def files(path):
    return sorted(file.name for file in Path(path).iterdir())


def accuracy_in(text):
    return float(re.search(r"test accuracy .*?([\d.]+) %", text)[1])


# Training


def test_train_without_arguments():
    code, out, _ = run("train")
    assert code == 0
    lines = out.splitlines()
    assert re.fullmatch(r"\(Epoch 0 / 20\) train acc: 0\.\d{4}; val acc: 0\.\d{4}", lines[0])
    assert re.fullmatch(
        r"\(Epoch 20 / 20\) loss: \d\.\d{6}; train acc: [01]\.\d{4}; val acc: [01]\.\d{4}",
        lines[20],
    )
    assert accuracy_in(out) >= 97
    assert lines[-1] == "saved in runs/digits"
    assert files("runs/digits") == [
        "best.safetensors",
        "checkpoints",
        "config.json",
        "curves.png",
        "history.csv",
        "last.safetensors",
        "log.jsonl",
        "losses.csv",
    ]
    code, again, _ = run("evaluate", "runs/digits")
    assert (code, accuracy_in(again)) == (0, accuracy_in(out))


def test_run_directory_holds_what_was_run_and_what_came_of_it():
    code, out, _ = run("train", *SMALL, "--seed", 5, "--out", "here/there", "--quiet")
    assert code == 0
    assert "Epoch" not in out
    config = json.loads(Path("here/there/config.json").read_text())
    assert config["hidden_dims"] == [8]
    assert config["seed"] == 5
    assert config["status"] == "finished"
    assert f"{100 * config['results']['test_accuracy']:.2f} %" in out
    history, losses = rows("here/there/history.csv"), rows("here/there/losses.csv")
    assert [row["epoch"] for row in history] == ["0", "1", "2"]
    assert set(history[0]) == {
        "epoch",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
    }
    assert [row["step"] for row in losses] == [str(step) for step in range(1, 9)]
    best = max(float(row["val_accuracy"]) for row in history)
    assert config["results"]["val_accuracy"] == best
    assert Path("here/there/curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_does_what_fit_does():
    run("train", *SMALL, "--seed", 3, "--reg", 0.1, "--out", "r", "--optimizer", "sgd_momentum")
    digits = fn.load_digits()
    few = digits._replace(x_train=digits.x_train[:200], y_train=digits.y_train[:200])
    net = fn.mlp([8], 10, weight_scale=2e-2)
    result = fn.fit(
        net,
        fn.sgd_momentum(1e-3),
        few,
        key=jax.random.key(3),
        epochs=2,
        batch_size=50,
        reg=0.1,
        preprocess=fn.subtract_mean(digits.x_train),  # the mean of all, not of the 200
    )
    losses = [float(row["loss"]) for row in rows("r/losses.csv")]
    np.testing.assert_allclose(losses, result.history.loss, rtol=1e-6)
    assert fn.load_model("r/last.safetensors", net).params == result.model.params


@pytest.mark.slow
def test_the_command_does_what_fit_does_with_all_that_it_has():
    code, _, err = run(
        *("train", *SMALL, "--batch-size", 64, "--out", "r", "--preprocess", "contrast=5"),
        *("whiten=20", "--augment", "flip", "shift=1", "crop=0.8", "cutout=2"),
        *("--normalization", "layernorm", "--activation", "gelu", "--keep-prob", 0.8),
        *("--input-keep-prob", 0.9, "--weight-scale", "glorot", "--matmul-dtype", "bfloat16"),
        *("--label-smoothing", 0.1, "--mixup", 0.3, "--average-decay", 0.5),
        *("--optimizer", "muon", "--momentum", 0.8, "--beta1", 0.7, "--beta2", 0.95),
        *("--epsilon", 1e-6, "--weight-decay", 0.3, "--learning-rate", 0.02),
        *("--schedule", "one_cycle", "--warmup", 0.5, "--clip-norm", 0.5),
    )
    assert (code, err) == (0, "")
    digits = fn.load_digits()
    few = digits._replace(x_train=digits.x_train[:200], y_train=digits.y_train[:200])
    net = fn.mlp(
        [8],
        10,
        normalization="layernorm",
        activation="gelu",
        keep_prob=0.8,
        input_keep_prob=0.9,
        weight_scale="glorot",
        matmul_dtype=jnp.bfloat16,
    )
    optimizer = fn.muon(
        fn.one_cycle(0.02, 8, warmup_fraction=0.5),
        *(0.8, 0.7, 0.95, 1e-6, 0.3),
        decay_names=("w",),
        adam_names=("affine2",),
    )
    fitter = fn.chain(partial(fn.normalize_contrast, epsilon=5), partial(fn.whiten, dim=20))
    result = fn.fit(
        net,
        fn.clip_by_global_norm(optimizer, 0.5),
        few,
        key=jax.random.key(0),
        epochs=2,
        batch_size=64,
        preprocess=fitter(digits.x_train),
        augment=(
            fn.random_flip,
            partial(fn.random_shift, max_shift=1),
            partial(fn.random_resized_crop, min_area=0.8),
            partial(fn.cutout, size=2),
        ),
        label_smoothing=0.1,
        mixup_alpha=0.3,
        average_decay=0.5,
    )
    losses = [float(row["loss"]) for row in rows("r/losses.csv")]
    np.testing.assert_allclose(losses, result.history.loss, rtol=1e-6)
    val_losses = [float(row["val_loss"]) for row in rows("r/history.csv")]
    np.testing.assert_allclose(val_losses, result.history.val_loss, rtol=1e-6)


# An option, and the others beside which it is to make a difference.
OPTIONS_AND_CASES = {
    "optimizer": ([], ["--optimizer", "sgd"]),
    "momentum": (["--optimizer", "sgd_momentum"], ["--momentum", "0.5"]),
    "decay_rate": (["--optimizer", "rmsprop"], ["--decay-rate", "0.5"]),
    "beta1": ([], ["--beta1", "0.5"]),
    "beta2": ([], ["--beta2", "0.5"]),
    "epsilon": ([], ["--epsilon", "0.1"]),
    "weight_decay": (["--optimizer", "lion"], ["--weight-decay", "0.9"]),
    "clip_norm": (["--optimizer", "sgd"], ["--clip-norm", "0.5"]),
    "learning_rate": ([], ["--learning-rate", "0.01"]),
    "learning_rate_decay": ([], ["--learning-rate-decay", "0.5"]),
    "schedule": ([], ["--schedule", "cosine"]),
    "decay_every": (
        ["--schedule", "step", "--learning-rate-decay", "0.5"],
        ["--decay-every", "2"],
    ),
    "warmup": ([], ["--warmup", "0.5"]),
    "warmup of one_cycle": (["--schedule", "one_cycle"], ["--warmup", "0.5"]),
    "loss": ([], ["--loss", "svm"]),
    "class_weight": ([], ["--class-weight", "0=3"]),
    "class_weight balanced": ([], ["--class-weight", "balanced"]),
    "reg": ([], ["--reg", "0.5"]),
    "label_smoothing": ([], ["--label-smoothing", "0.1"]),
    "mixup_alpha": ([], ["--mixup-alpha", "0.2"]),
    "mixup_alpha by its older name": ([], ["--mixup", "0.2"]),
    "average_decay": ([], ["--average-decay", "0.9"]),
    "seed": ([], ["--seed", "1"]),
    "hidden_dims": ([], ["--hidden-dims", "9", "3"]),
    "no hidden_dims": ([], ["--hidden"]),
    "normalization": ([], ["--normalization", "batchnorm"]),
    "activation": ([], ["--activation", "gelu_tanh"]),
    "keep_prob": ([], ["--keep-prob", "0.5"]),
    "input_keep_prob": ([], ["--input-keep-prob", "0.9"]),
    "members": ([], ["--members", "2"]),
    "ensemble": (["--members", "2"], ["--members", "2", "--ensemble", "tabm"]),
    "ensemble mini": (["--members", "2"], ["--members", "2", "--ensemble", "tabm_mini"]),
    "embedding": ([], ["--embedding", "pbld"]),
    "embedding periodic": (["--embedding", "pbld"], ["--embedding", "periodic"]),
    "embedding piecewise": (
        ["--preprocess", "quantiles"],
        ["--preprocess", "quantiles", "--embedding", "piecewise"],
    ),
    "embedding of an ensemble": (
        ["--members", "2", "--ensemble", "tabm"],
        ["--members", "2", "--ensemble", "tabm", "--embedding", "pbld"],
    ),
    "embedding_dim": (["--embedding", "pbld"], ["--embedding", "pbld", "--embedding-dim", "3"]),
    "embedding_bins": (
        ["--embedding", "piecewise", "--preprocess", "quantiles=4"],
        ["--embedding", "piecewise", "--preprocess", "quantiles=4", "--embedding-bins", "4"],
    ),
    "weight_scale": ([], ["--weight-scale", "0.03"]),
    "weight_scale of he": ([], ["--weight-scale", "he"]),
    "weight_scale of glorot": (["--weight-scale", "he"], ["--weight-scale", "Glorot"]),
    "matmul_dtype": ([], ["--matmul-dtype", "bfloat16"]),
    "preprocess": ([], ["--preprocess", "none"]),
    "preprocess in steps": (["--preprocess", "contrast"], ["--preprocess", "contrast", "mean"]),
    "preprocess with a value": (["--preprocess", "shuffle"], ["--preprocess", "shuffle=1"]),
    "augment": ([], ["--augment", "flip"]),
    "augment in steps": (["--augment", "flip"], ["--augment", "flip", "crop"]),
    "augment with a value": (["--augment", "shift"], ["--augment", "shift=1"]),
    "batch_size": ([], ["--batch-size", "64"]),
    "num_train": ([], ["--num-train", "150"]),
    "epochs": ([], ["--epochs", "3"]),
}


# Options that are for something else than the course of a run on the digits, tested elsewhere.
ELSEWHERE = {
    *("dataset", "data_dir", "label", "header", "separator", "decimal", "columns", "drop"),
    *("categorical", "group", "split_by", "val_fraction", "test_fraction", "eval_every"),
    *("tta", "layout", "model", "image_size", "patience", "memory_map"),
    *("monitor", "on_nonfinite", "task", "weight", "huber_delta", "quantiles", "reproducible"),
}


def test_there_is_a_test_of_every_option():
    tested = {case.removeprefix("no ").split()[0] for case in OPTIONS_AND_CASES}
    assert tested == set(OPTIONS) - ELSEWHERE


def course(path):
    """All that was measured in the course of a run."""
    tables = rows(path / "losses.csv"), rows(path / "history.csv")
    return [float(value) for table in tables for row in table for value in row.values()]


@pytest.fixture(scope="module")
def plain_course(tmp_path_factory):
    """The course of a run with a few options, once for all that are compared with it."""

    @cache
    def of(*options):
        out = tmp_path_factory.mktemp("plain") / "run"
        assert run("train", *SMALL, "--quiet", "--out", out, *options)[0] == 0
        return course(out)

    return of


VARIANTS = [case for case in OPTIONS_AND_CASES if " " in case]  # the option itself is there, too


@pytest.mark.parametrize(
    "case", slow_but(OPTIONS_AND_CASES, *[c for c in OPTIONS_AND_CASES if c not in VARIANTS][::8])
)
def test_every_option_does_something(case, plain_course, unoptimized):
    beside, given = OPTIONS_AND_CASES[case]
    code, _, err = run("train", *SMALL, "--quiet", "--out", "r", *beside, *given)
    assert (code, err) == (0, "")
    plain, found = plain_course(*beside), course(Path("r"))
    assert len(found) != len(plain) or not np.allclose(found, plain, rtol=1e-5)
    assert run("evaluate", "r")[0] == 0


def test_eval_every():
    code, out, _ = run("train", *SMALL, "--epochs", 3, "--eval-every", 2, "--out", "a")
    assert code == 0
    assert [row["epoch"] for row in rows("a/history.csv")] == ["0", "2", "3"]
    assert re.search(r"\(Epoch 1 / 3\) loss: \d\.\d+$", out, re.M)
    code, out, _ = run("train", *SMALL, "--eval-every", 0, "--out", "b")
    assert code == 0
    assert rows("b/history.csv") == []
    assert "test accuracy of the last model" in out


def test_runs_are_numbered_and_never_overwritten_silently():
    for name in ("digits", "digits-2", "digits-3"):
        code, out, _ = run("train", *SMALL, "--quiet")
        assert (code, out.splitlines()[-1]) == (0, f"saved in runs/{name}")
    before = Path("runs/digits/last.safetensors").read_bytes()
    code, _, err = run("train", *SMALL, "--out", "runs/digits", "--seed", 9)
    assert code == 2
    assert err == (
        "funcnet train: error: runs/digits is there already: choose another directory, "
        "or give --overwrite\n"
    )
    assert Path("runs/digits/last.safetensors").read_bytes() == before
    code, _, _ = run("train", *SMALL, "--out", "runs/digits", "--seed", 9, "--overwrite")
    assert code == 0
    assert Path("runs/digits/last.safetensors").read_bytes() != before


def test_a_link_that_leads_nowhere_is_not_the_place_for_a_run():
    Path("runs").mkdir()
    Path("runs/digits").symlink_to("nowhere")
    code, out, _ = run("train", *SMALL, "--quiet")
    assert (code, out.splitlines()[-1]) == (0, "saved in runs/digits-2")


def test_overwrite_spares_what_is_no_run():
    Path("precious").mkdir()
    Path("precious/thesis.txt").write_text("years")
    code, _, err = run("train", *SMALL, "--out", "precious", "--overwrite")
    assert (code, "no run directory" in err) == (2, True)
    assert Path("precious/thesis.txt").read_text() == "years"
    assert files("precious") == ["thesis.txt"]


def test_wrong_arguments_leave_an_older_run_alone():
    run("train", *SMALL, "--out", "r")
    before = {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    for wrong in (["--batch-size", 1000], ["--epochs", 0], ["--reg", -1], ["--hidden", 0]):
        code, _, _ = run("train", *SMALL, "--out", "r", "--overwrite", *wrong)
        assert code == 2
    assert {p: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()} == before


def test_divergence_is_said():
    code, _, err = run("train", *SMALL, "--optimizer", "sgd", "--learning-rate", 1e30)
    assert code == 0
    assert re.search(r"warning: step \d+, in epoch 1, is not finite: loss, gradient of aff", err)
    assert "this is the run after 0 epochs: try a smaller --learning-rate" in err


def endless_run(interrupt="default_int_handler"):
    """A process that trains until it is stopped, and prints a line for each epoch."""
    code = (
        "import signal, sys; from funcnet.cli import entry;"
        f"signal.signal(signal.SIGINT, signal.{interrupt});"  # tests may run where it is ignored
        "sys.argv = ['funcnet', 'train', '--epochs', '100000', '--out', 'r']; entry()"
    )
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


def test_ctrl_c_keeps_the_run():
    """A real interrupt of a real process, after its third epoch."""
    with endless_run() as process:
        for line in process.stdout:
            if line.startswith("(Epoch 3 "):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert re.search(r"interrupted: this is the run after epoch \d+", err)
    config = json.loads(Path("r/config.json").read_text())
    assert config["status"] == "interrupted"
    done = config["results"]["epochs"]
    assert done >= 3
    assert rows("r/history.csv")[-1]["epoch"] == str(done)
    assert accuracy_in(out) == accuracy_in(run("evaluate", "r")[1])


def test_ctrl_c_is_left_alone_where_it_is_ignored():
    """As in a shell's background job: Ctrl-C is for another program."""
    with endless_run("SIG_IGN") as process:
        for line in process.stdout:
            if line.startswith("(Epoch 3 "):
                process.send_signal(signal.SIGINT)
            if line.startswith("(Epoch 60 "):
                process.kill()
                break
        else:
            pytest.fail("the run was interrupted")


@pytest.mark.parametrize(
    ("into", "warning"), [("| head -n 1", ""), ("> /dev/full", "cannot write to standard output")]
)
def test_no_output_costs_no_run(into, warning):
    command = f"{sys.executable} -m funcnet train {' '.join(SMALL)} --epochs 30 --out r {into}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, timeout=120
    )
    assert warning in done.stderr
    assert "Traceback" not in done.stderr
    config = json.loads(Path("r/config.json").read_text())
    assert (config["status"], config["results"]["epochs"]) == ("finished", 30)
    assert run("evaluate", "r")[0] == 0


def test_a_run_that_was_killed_is_not_taken_for_a_result():
    with endless_run() as process:
        for line in process.stdout:
            if line.startswith("(Epoch 3 "):
                process.kill()
                break
    for which in ("best", "last"):
        code, _, err = run("evaluate", "r", "--model", which)
        assert (code, "the run did not finish" in err) == (2, True)


# The other commands


def test_evaluate_splits_and_models():
    run("train", *SMALL, "--epochs", 6, "--out", "r")
    config = json.loads(Path("r/config.json").read_text())
    code, out, _ = run("evaluate", "r", "--split", "val")
    assert code == 0
    assert f"{100 * config['results']['val_accuracy']:.2f} %" in out
    code, out, _ = run("evaluate", "r", "--split", "train", "--model", "last")
    assert (code, "(200 examples, last model of r)" in out) == (0, True)
    last = rows("r/history.csv")[-1]
    assert f"{100 * float(last['train_accuracy']):.2f} %" in out


def test_predictions_averaged_over_views(unoptimized):
    code, out, err = run("train", *SMALL, "--tta", "--out", "r")
    assert (code, err) == (0, "")
    model = fn.load_model("r/best.safetensors", fn.mlp([8], 10))
    digits, views = fn.load_digits(), fn.flips_and_shifts()
    plain, averaged = (
        fn.evaluate(model, digits.x_test, digits.y_test, views=v) for v in (None, views)
    )
    assert averaged.loss != plain.loss
    results = json.loads(Path("r/config.json").read_text())["results"]
    assert results["tta_views"] == 10
    assert results["tta_test_accuracy"] == averaged.accuracy
    assert results["test_accuracy"] == plain.accuracy
    assert f"averaged over 10 views {100 * averaged.accuracy:.2f} %" in out
    assert run("evaluate", "r", "--tta")[1].startswith(
        f"test accuracy {100 * averaged.accuracy:.2f} %, averaged over 10 views, "
        f"loss {averaged.loss:.4f} "
    )
    assert f"loss {plain.loss:.4f} " in run("evaluate", "r")[1]
    np.save("x.npy", digits.x_test)
    code, out, _ = run("predict", "r", "x.npy", "--tta")
    scores = fn.predict_scores(model, digits.x_test, views=views)
    table = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [int(row["label"]) for row in table] == list(scores.argmax(axis=1))
    found = [float(row["probability"]) for row in table]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected.max(axis=1), rtol=1e-4)


def test_a_run_of_an_earlier_version():
    """Its configuration lacks what came later, and has null for he."""
    run("train", *SMALL, "--weight-scale", "he", "--preprocess", "standardize", "--out", "r")
    config = json.loads(Path("r/config.json").read_text())
    assert config["weight_scale"] == "he"
    before = run("evaluate", "r")
    later = ("normalization", "activation", "keep_prob", "input_keep_prob", "matmul_dtype")
    later += ("recipe", "augment", "mixup_alpha", "label_smoothing", "average_decay", "schedule")
    later += ("tta", "hidden_dims", "version")
    older = {name: value for name, value in config.items() if name not in later}
    assert len(older) == len(config) - len(later)
    older |= {"format": "funcnet run 1", "hidden": config["hidden_dims"]}
    older |= {"weight_scale": None, "preprocess": "standardize"}
    Path("r/config.json").write_text(json.dumps(older))
    assert run("evaluate", "r") == before
    assert before[0] == 0


@pytest.mark.parametrize("loss", ["softmax", "svm"])
def test_predict(loss):
    run("train", *SMALL, "--epochs", 6, "--out", "r", "--loss", loss)
    digits = fn.load_digits()
    model = fn.load_model("r/best.safetensors", fn.mlp([8], 10))
    np.save("x.npy", digits.x_test)
    code, out, _ = run("predict", "r", "x.npy")
    table = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [int(row["label"]) for row in table] == list(fn.predict(model, digits.x_test))
    assert [row["class"] for row in table] == [row["label"] for row in table]
    scores = fn.predict_scores(model, digits.x_test)
    if loss == "softmax":
        expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        found = [float(row["probability"]) for row in table]
    else:
        expected, found = scores, [float(row["score"]) for row in table]
    np.testing.assert_allclose(found, expected.max(axis=1), rtol=1e-4)


def test_ones_own_csv_from_training_to_prediction():
    rng = np.random.default_rng(0)
    names = ["setosa", "versicolor", "virginica"]
    with Path("flowers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "species", "width"])
        for i in range(150):
            length, width = rng.normal(5 * (i % 3), 1), rng.normal(-4 * (i % 3), 1)
            writer.writerow([length, names[i % 3], width])
    options = ["--hidden", 16, "--weight-scale", "he", "--learning-rate", 0.01]
    code, out, err = run(
        "train", "--dataset", "flowers.csv", "--label", "species", *options, "--batch-size", 10
    )
    assert (code, err) == (0, "")
    assert accuracy_in(out) >= 90
    assert "saved in runs/flowers" in out
    code, out, _ = run("predict", "runs/flowers", "flowers.csv", "--label", "species")
    table = list(csv.DictReader(io.StringIO(out)))
    right = [row["class"] == names[i % 3] for i, row in enumerate(table)]
    assert code == 0
    assert len(right) == 150
    assert np.mean(right) > 0.9
    assert run("evaluate", "runs/flowers")[0] == 0


def test_data_that_have_changed_since_the_run():
    text = "a,b,y\n" + "".join(f"{i},{i * i},{'xyz'[i % 3]}\n" for i in range(60))
    Path("mine.csv").write_text(text)
    assert run("train", "--dataset", "mine.csv", *SMALL[:4], "--out", "r")[0] == 0
    assert run("evaluate", "r")[0] == 0
    for changed in (text.replace("x", "w"), text.replace("3481", "3482"), text + "1,2,x\n"):
        Path("mine.csv").write_text(changed)
        code, _, err = run("evaluate", "r")
        assert (code, "mine.csv has changed since the run" in err) == (2, True)


def test_few_examples():
    np.savez("few.npz", x=np.eye(5), y=np.arange(5) % 2)
    options = ["--val-fraction", 0, "--test-fraction", 0, "--epochs", 20]
    code, out, _ = run("train", "--dataset", "few.npz", "--hidden", 4, "--out", "r", *options)
    assert code == 0
    assert "the data have no val split: too few, or its fraction is 0" in out
    assert len(rows("r/losses.csv")) == 20
    assert run("evaluate", "r", "--split", "train")[0] == 0
    assert run("evaluate", "r", "--split", "test")[0] == 2


def test_ones_own_npz():
    digits = fn.load_digits()
    np.savez("mine.npz", x=digits.x_train, y=digits.y_train)
    code, out, _ = run(
        "train", "--dataset", "mine.npz", "--val-fraction", 0.2, "--test-fraction", 0.3
    )
    assert code == 0
    count = int(re.search(r"\((\d+) examples\)", out)[1])
    assert abs(count - 0.3 * len(digits.x_train)) <= 10
    assert accuracy_in(out) > 90


GRADCHECKS = {
    "": (),
    "of a linear svm": ("--hidden", "--loss", "svm"),
    "of narrow layers": (
        *("--hidden", "3", "2", "--reg", "3.14", "--weight-scale", "he", "--seed", "4"),
    ),
    "of the svm": (
        *("--hidden", "20", "30", "--loss", "svm", "--preprocess", "none", "--num-examples", "2"),
    ),
    "of many examples": ("--hidden", "5", "--num-examples", "1248", "--max-elements", "2"),
    "of large weights": ("--hidden", "20", "--weight-scale", "100"),
    "of batch norm": ("--hidden", "9", "7", "--normalization", "batchnorm", "--activation", "gelu"),
    "of layer norm and dropout": (
        *("--hidden", "9", "--normalization", "layernorm", "--activation", "leaky_relu"),
        *("--keep-prob", "0.6", "--input-keep-prob", "0.7", "--weight-scale", "glorot"),
        *("--preprocess", "contrast", "standardize"),
    ),
}


@pytest.mark.parametrize("case", slow_but(GRADCHECKS, ""))
def test_gradcheck_passes(case):
    options = GRADCHECKS[case]
    code, out, err = run("gradcheck", *options)
    assert (code, err) == (0, "")
    assert "all gradients agree" in out
    assert re.search(r"^affine1/w +64 x \d+ ", out, re.M)


def test_gradcheck_finds_a_wrong_gradient(monkeypatch):
    from funcnet import layers

    right = layers.affine_backward

    def wrong(dout, cache):
        dx, dw, db = right(dout, cache)
        return dx, dw.at[0, 0].add(1e-6), db

    monkeypatch.setattr(layers, "affine_backward", wrong)
    code, out, _ = run("gradcheck", "--hidden", "5")
    assert code == 1
    assert "GRADIENTS DISAGREE" in out
    assert "affine2/w[0, 0] differs from autodiff" in out


def test_datasets_list(no_data):
    code, out, _ = run("datasets")
    assert code == 0
    assert re.search(r"^digits .*1,797", out, re.M)
    assert re.search(r"^cifar10 .*not found: funcnet datasets download cifar10$", out, re.M)


def test_download_says_where_the_data_are(no_data):
    cifar_folder(30_730_000)()  # six files of zeros: complete, so that nothing is fetched
    code, out, err = run("datasets", "download", "cifar10", "--data-dir", "data")
    assert (code, out, err) == (0, "CIFAR-10 is in data/cifar-10-batches-bin\n", "")
    code, out, _ = run("datasets", "--data-dir", "data")
    assert re.search(r"^cifar10 .* in data/cifar-10-batches-bin$", out, re.M)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: funcnet {command}".strip())
    for nothing in ("None", "False", "[]", "()", "default: )"):
        assert nothing not in out
    if not command:
        assert all(re.search(rf"^ +{name} ", out, re.M) for name in COMMANDS)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal(command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= width


def test_help_shows_what_is_used_most_first():
    text = run("train", "--help")[1]
    first = text[: text.index("\ndata:")]
    for name in ("dataset", "hidden-dims", "epochs", "batch-size", "optimizer", "learning-rate"):
        assert re.search(rf"^  --{name} ", first, re.M), name
    assert len(re.findall(r"^  --", first, re.M)) <= 10


@pytest.mark.parametrize("command", ["train", "sweep", "gradcheck"])
def test_help_has_every_option_once(command):
    text = run(command, "--help")[1]
    for name, known in OPTIONS.items():
        taken = {"train": True, "sweep": known.sweep, "gradcheck": known.gradcheck}[command]
        assert len(re.findall(rf"^  {option(name)}[ ,]", text, re.M)) == bool(taken), name
        for alias in known.aliases:
            assert not re.search(rf"^  {option(alias)} ", text, re.M)


def test_help_names_everything_that_can_be_chosen():
    text = " ".join(run("train", "--help")[1].split())
    chosen = {*fn.list_recipes(), *DATASETS}
    for known in OPTIONS.values():
        chosen |= {*(known.choices or ()), *(known.steps or ())}
    assert len(chosen) > 40
    for name in chosen:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), name


def test_help_shows_the_defaults():
    text = " ".join(run("train", "--help")[1].split())
    for shown in ("(default: 256 256)", "(default: 0.001)", "not given mean for pixels"):
        assert shown in text
    text = " ".join(run("train", "--recipe", "cs231n", "--help")[1].split())
    for shown in ("(default: 100 100 100 100 100)", "(default: cifar10)", "(default: 0.05)"):
        assert shown in text


def test_version():
    assert run("--version") == (0, f"funcnet {fn.__version__}\n", "")


def test_output_into_a_closed_pipe():
    run("train", *SMALL, "--out", "r")
    np.save("x.npy", np.concatenate([fn.load_digits().x_train] * 20))
    command = f"{sys.executable} -m funcnet predict r x.npy | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.startswith("example,label")
    assert done.stderr == ""


def test_full_disk(tmp_path):
    """The limit on the size of a file stands in for a full disk: the write itself fails."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "from funcnet.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "train", *SMALL, "--hidden", "100", "--out", "r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert re.search(r"error: r/last\.safetensors: File too large\n\Z", done.stderr)
    assert "Traceback" not in done.stderr
    assert files("r") == ["config.json"]  # no half of a file
    # It is found out before the training, not after it.
    assert "(Epoch 1 " not in done.stdout


@pytest.mark.parametrize("package", ["tqdm", "safetensors", "matplotlib"])
def test_missing_extra_says_what_to_install(package):
    code = (
        f"import sys; sys.modules[{package!r}] = None;"
        "from funcnet.cli import main; sys.exit(main(['train', '--epochs', '1']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert re.fullmatch(
        rf'funcnet train: error: {package} is needed .*: pip install "funcnet\[cli\]"\n',
        done.stderr,
    )
    assert not Path("runs").exists()


def test_import_needs_jax_and_numpy_alone():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('tqdm', 'safetensors', 'matplotlib'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import jax, funcnet as fn\n"
        "[getattr(fn, name) for name in fn.__all__]\n"
        "fn.fit(fn.mlp([4], 10), fn.adam(1e-3), fn.load_digits(), key=jax.random.key(0),"
        " epochs=1, batch_size=100)\n"
        "print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
