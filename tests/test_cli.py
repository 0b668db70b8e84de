"""The command line, as a person meets it: what it prints, keeps and refuses."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run

import funcnet as fn

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
        "config.json",
        "curves.png",
        "history.csv",
        "last.safetensors",
        "losses.csv",
    ]
    code, again, _ = run("evaluate", "runs/digits")
    assert (code, accuracy_in(again)) == (0, accuracy_in(out))


def test_run_directory_holds_what_was_run_and_what_came_of_it():
    code, out, _ = run("train", *SMALL, "--seed", 5, "--out", "here/there", "--quiet")
    assert code == 0
    assert "Epoch" not in out
    config = json.loads(Path("here/there/config.json").read_text())
    assert config["hidden"] == [8]
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
OPTIONS = {
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
    "reg": ([], ["--reg", "0.5"]),
    "label_smoothing": ([], ["--label-smoothing", "0.1"]),
    "mixup": ([], ["--mixup", "0.2"]),
    "average_decay": ([], ["--average-decay", "0.9"]),
    "seed": ([], ["--seed", "1"]),
    "hidden": ([], ["--hidden", "9", "3"]),
    "no hidden": ([], ["--hidden"]),
    "normalization": ([], ["--normalization", "batchnorm"]),
    "activation": ([], ["--activation", "gelu_tanh"]),
    "keep_prob": ([], ["--keep-prob", "0.5"]),
    "input_keep_prob": ([], ["--input-keep-prob", "0.9"]),
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


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_does_something(option, plain_course, unoptimized):
    beside, given = OPTIONS[option]
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
    before = {p: p.read_bytes() for p in Path("r").iterdir()}
    for wrong in (["--batch-size", 1000], ["--epochs", 0], ["--reg", -1], ["--hidden", 0]):
        code, _, _ = run("train", *SMALL, "--out", "r", "--overwrite", *wrong)
        assert code == 2
    assert {p: p.read_bytes() for p in Path("r").iterdir()} == before


def test_divergence_is_said():
    code, _, err = run("train", *SMALL, "--optimizer", "sgd", "--learning-rate", 1e30)
    assert code == 0
    assert re.search(r"warning: the loss is (nan|inf) from step \d+ on", err)


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


def test_ctrl_c_again_and_again_while_saving():
    with endless_run() as process:
        for line in process.stdout:
            if line.startswith("(Epoch 3 "):
                break
        for _ in range(40):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert json.loads(Path("r/config.json").read_text())["status"] == "interrupted"
    assert run("evaluate", "r")[0] == 0


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
    later += ("recipe", "augment", "mixup", "label_smoothing", "average_decay", "schedule", "tta")
    older = {name: value for name, value in config.items() if name not in later}
    assert len(older) == len(config) - len(later)
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
    for changed in (text.replace("x", "w"), text.replace("59,", "58,"), text + "1,2,x\n"):
        Path("mine.csv").write_text(changed)
        code, _, err = run("evaluate", "r")
        assert (code, "mine.csv has changed since the run" in err) == (2, True)


def test_few_examples():
    np.savez("few.npz", x=np.eye(5), y=np.arange(5) % 2)
    options = ["--val-fraction", 0, "--test-fraction", 0]
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


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--hidden", "--loss", "svm"],
        ["--hidden", "3", "2", "--reg", "3.14", "--weight-scale", "he", "--seed", "4"],
        ["--hidden", "20", "30", "--loss", "svm", "--preprocess", "none", "--num-examples", "2"],
        ["--hidden", "20", "30", "--reg", "3.14"],
        ["--hidden", "5", "--num-examples", "1248", "--max-elements", "2"],
        ["--hidden", "20", "--weight-scale", "100"],
        ["--hidden", "9", "7", "--normalization", "batchnorm", "--activation", "gelu"],
        [
            *("--hidden", "9", "--normalization", "layernorm", "--activation", "leaky_relu"),
            *("--keep-prob", "0.6", "--input-keep-prob", "0.7", "--weight-scale", "glorot"),
            *("--preprocess", "contrast", "standardize"),
        ],
    ],
    ids=[
        *("default", "linear svm", "narrow", "svm", "reg", "many examples", "large"),
        *("batch norm", "layer norm and dropout"),
    ],
)
def test_gradcheck_passes(options):
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


COMMANDS = ("train", "evaluate", "predict", "gradcheck", "datasets", "recipes")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: funcnet {command}".strip())
    for nothing in ("None", "False", "[]", "default: )"):
        assert nothing not in out
    if not command:
        assert all(re.search(rf"^ +{name} ", out, re.M) for name in COMMANDS)


def test_help_names_everything_that_can_be_chosen():
    text = " ".join(run("train", "--help")[1].split())
    chosen = ("sgd", "sgd_momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "lion")
    chosen += ("muon", "constant", "exponential", "step", "cosine", "one_cycle", "softmax", "svm")
    chosen += ("relu", "leaky_relu", "gelu", "gelu_tanh", "tanh", "batchnorm", "layernorm", "none")
    chosen += ("he", "glorot", "float32", "bfloat16", "float16", "mean", "standardize", "contrast")
    chosen += ("whiten", "shuffle", "flip", "shift", "crop", "cutout", *fn.list_recipes())
    for name in chosen:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), name


def test_help_shows_the_defaults():
    text = " ".join(run("train", "--help")[1].split())
    for shown in ("(default: 256 256)", "(default: 0.001)", "(default: mean)", "(default: 0.02)"):
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


# Wrong input: exit code 2 and one line on stderr that names what is wrong.


def bad_npz(**arrays):
    def make():
        np.savez("bad.npz", **arrays)

    return make


def bad_csv(text):
    return lambda: Path("bad.csv").write_text(text)


def bad_file(name, data=b"not what it says"):
    return lambda: Path(name).write_bytes(data)


def x(**changes):
    array = np.ones((20, 3))
    for place, value in changes.items():
        array[int(place[1:])] = value
    return array


Y = np.arange(20) % 2
TRAIN_NPZ = ["train", "--dataset", "bad.npz", *SMALL[:4], "--batch-size", "4"]
TRAIN_CSV = ["train", "--dataset", "bad.csv", *SMALL[:4], "--batch-size", "4"]


def a_run(damage=lambda: None):
    def make():
        assert run("train", *SMALL, "--quiet", "--out", "r")[0] == 0
        damage()

    return make


def a_plain_run():
    bad_csv("a,b,y\n" + "1,2,0\n2,1,1\n" * 10)()
    assert run(*TRAIN_CSV, "--quiet", "--out", "p")[0] == 0


def truncate(path, keep):
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:keep])


def flip(path, place):
    def damage():
        data = bytearray(Path(path).read_bytes())
        data[place] ^= 1
        Path(path).write_bytes(data)

    return damage


def change_config(**changes):
    def damage():
        config = json.loads(Path("r/config.json").read_text())
        Path("r/config.json").write_text(json.dumps({**config, **changes}))

    return damage


def cifar_archive(name="cifar-10-batches-bin/data_batch_1.bin", size=100):
    def make():
        Path("data").mkdir()
        with tarfile.open("data/cifar-10-binary.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))

    return make


def cifar_folder(size):
    def make():
        folder = Path("data/cifar-10-batches-bin")
        folder.mkdir(parents=True)
        for batch in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4"):
            with (folder / f"{batch}.bin").open("wb") as file:
                file.truncate(30_730_000)
        for batch in ("data_batch_5", "test_batch"):
            with (folder / f"{batch}.bin").open("wb") as file:
                file.truncate(size)

    return make


CIFAR = ["train", "--dataset", "cifar10", "--data-dir", "data", *SMALL]
NOTHING = lambda: None  # noqa: E731

BAD = {
    "no command": (NOTHING, ["--quiet"], "command"),
    "unknown command": (NOTHING, ["trian"], "did you mean 'train'"),
    "unknown option": (NOTHING, ["train", "--lerning-rate", "1"], "did you mean --learning-rate"),
    "stray word": (NOTHING, ["train", "digits"], "unexpected argument 'digits'"),
    "unknown dataset": (NOTHING, ["train", "--dataset", "cifar"], "did you mean 'cifar10'"),
    "unknown optimizer": (NOTHING, ["train", "--optimizer", "adm"], "did you mean 'adam'"),
    "unknown loss": (NOTHING, ["train", "--loss", "sofmax"], "did you mean 'softmax'"),
    "unknown preprocessing": (NOTHING, ["train", "--preprocess", "maen"], "did you mean 'mean'"),
    "unknown recipe": (NOTHING, ["train", "--recipe", "digit"], "did you mean 'digits'"),
    "no recipe": (NOTHING, ["train", "--recipe"], "--recipe: expected one argument"),
    "unknown recipe to show": (NOTHING, ["recipes", "cifar-cpu"], "did you mean 'cifar10-cpu'"),
    "unknown normalization": (
        NOTHING,
        ["train", "--normalization", "bathcnorm"],
        "did you mean 'batchnorm'",
    ),
    "unknown activation": (NOTHING, ["train", "--activation", "rellu"], "did you mean 'relu'"),
    "unknown schedule": (NOTHING, ["train", "--schedule", "cosin"], "did you mean 'cosine'"),
    "unknown dtype": (NOTHING, ["train", "--matmul-dtype", "bfloat"], "did you mean 'bfloat16'"),
    "unknown augmentation": (NOTHING, ["train", "--augment", "flop"], "did you mean 'flip'"),
    "unknown split": (NOTHING, ["evaluate", "r", "--split", "tset"], "did you mean 'test'"),
    "unknown model": (NOTHING, ["evaluate", "r", "--model", "lst"], "did you mean 'last'"),
    "unknown action": (NOTHING, ["datasets", "downlod"], "did you mean 'download'"),
    "unknown download": (NOTHING, ["datasets", "download", "cifar100"], "did you mean 'cifar10'"),
    "epochs a word": (NOTHING, ["train", "--epochs", "many"], "--epochs"),
    "epochs 0": (NOTHING, ["train", "--epochs", "0"], "--epochs must be at least 1"),
    "epochs fractional": (NOTHING, ["train", "--epochs", "1.5"], "--epochs"),
    "batch 0": (NOTHING, ["train", "--batch-size", "0"], "--batch-size must be at least 1"),
    "batch too large": (NOTHING, ["train", "--batch-size", "9999"], "batch_size is 9999"),
    "rate 0": (
        NOTHING,
        ["train", "--learning-rate", "0"],
        "--learning-rate must be > 0",
    ),
    "rate negative": (NOTHING, ["train", "--learning-rate", "-1"], "--learning-rate must be"),
    "rate inf": (NOTHING, ["train", "--learning-rate", "inf"], "--learning-rate must be finite"),
    "decay 0": (NOTHING, ["train", "--learning-rate-decay", "0"], "--learning-rate-decay must be"),
    "momentum 1": (
        NOTHING,
        ["train", "--optimizer", "sgd_momentum", "--momentum", "1"],
        "momentum must be",
    ),
    "momentum for adam": (NOTHING, ["train", "--momentum", "0.9"], "--momentum is for sgd_mom"),
    "beta2 2": (NOTHING, ["train", "--beta2", "2"], "beta2 must be"),
    "epsilon 0": (NOTHING, ["train", "--epsilon", "0"], "epsilon must be"),
    "weight decay for adam": (
        NOTHING,
        ["train", "--weight-decay", "0.1"],
        "--weight-decay is for adamw and lion and muon, not for adam",
    ),
    "weight decay negative": (
        NOTHING,
        ["train", "--optimizer", "adamw", "--weight-decay", "-1"],
        "weight_decay must be >= 0",
    ),
    "clip norm 0": (NOTHING, ["train", "--clip-norm", "0"], "--clip-norm must be > 0"),
    "average decay 1": (NOTHING, ["train", "--average-decay", "1"], "--average-decay must be"),
    "warmup 2": (NOTHING, ["train", "--warmup", "2"], "--warmup must be >= 0 and <= 1"),
    "decay for cosine": (
        NOTHING,
        ["train", "--schedule", "cosine", "--learning-rate-decay", "0.5"],
        "--learning-rate-decay is for the schedules exponential and step, not for cosine",
    ),
    "step without decay": (
        NOTHING,
        ["train", "--schedule", "step"],
        "--schedule step needs --learning-rate-decay",
    ),
    "decay-every 0": (NOTHING, ["train", "--decay-every", "0"], "--decay-every must be at least 1"),
    "decay-every for nothing": (
        NOTHING,
        ["train", "--decay-every", "3"],
        "--decay-every is for the schedule step",
    ),
    "keep-prob 0": (NOTHING, ["train", "--keep-prob", "0"], "--keep-prob must be > 0 and <= 1"),
    "keep-prob 1.5": (NOTHING, ["train", "--keep-prob", "1.5"], "--keep-prob must be"),
    "keep-prob nan": (NOTHING, ["train", "--keep-prob", "nan"], "--keep-prob must be finite"),
    "input-keep-prob 0": (NOTHING, ["train", "--input-keep-prob", "0"], "--input-keep-prob must"),
    "label smoothing 2": (
        NOTHING,
        ["train", "--label-smoothing", "2"],
        "--label-smoothing must be >= 0 and <= 1",
    ),
    "mixup negative": (NOTHING, ["train", "--mixup", "-1"], "--mixup must be >= 0"),
    "mixup for svm": (NOTHING, ["train", "--loss", "svm", "--mixup", "0.2"], "softmax loss"),
    "smoothing for svm": (
        NOTHING,
        ["train", "--loss", "svm", "--label-smoothing", "0.1"],
        "softmax loss",
    ),
    "shift too large": (
        NOTHING,
        ["train", "--augment", "shift=8"],
        "--augment shift=8: random_shift: max_shift is 8, but the images have only 8 x 8 pixels",
    ),
    "shift a word": (NOTHING, ["train", "--augment", "shift=x"], "needs an integer, got 'shift=x'"),
    "shift nothing": (NOTHING, ["train", "--augment", "shift="], "needs an integer, got 'shift='"),
    "crop a word": (NOTHING, ["train", "--augment", "crop=x"], "needs a number, got 'crop=x'"),
    "crop 2": (NOTHING, ["train", "--augment", "crop=2"], "--augment crop=2: min_area must be"),
    "cutout 0": (NOTHING, ["train", "--augment", "cutout=0"], "--augment cutout=0: size must be"),
    "flip 3": (NOTHING, ["train", "--augment", "flip=3"], "flip takes no value, got 'flip=3'"),
    "whiten too many": (
        NOTHING,
        ["train", "--preprocess", "contrast", "whiten=100000"],
        "--preprocess whiten=100000: dim must be at most 64",
    ),
    "no preprocessing step": (NOTHING, ["train", "--preprocess"], "--preprocess: expected"),
    "one left over for batch norm": (
        NOTHING,
        ["train", "--normalization", "batchnorm", "--num-train", "101"],
        "batches of 50 leave one of the 101 training examples over",
    ),
    "batch norm of one": (
        NOTHING,
        ["train", "--normalization", "batchnorm", "--batch-size", "1"],
        "a batch of one example has no variance",
    ),
    "augmentation of what is no image": (
        bad_npz(x=np.ones((20, 3)), y=np.arange(20) % 2),
        [*TRAIN_NPZ, "--augment", "flip"],
        "--augment flip: random_flip: images must be [N, ..., H, W], got [4, 3]",
    ),
    "tta of what is no image": (
        bad_csv("a,b,y\n" + "1,2,0\n2,1,1\n" * 20),
        [*TRAIN_CSV, "--tta"],
        "images must be [N, ..., H, W], got [1, 2]",
    ),
    "reg negative": (NOTHING, ["train", "--reg", "-1"], "--reg must be"),
    "hidden 0": (NOTHING, ["train", "--hidden", "10", "0"], "--hidden"),
    "hidden a word": (NOTHING, ["train", "--hidden", "ten"], "--hidden"),
    "weight scale negative": (NOTHING, ["train", "--weight-scale", "-1"], "--weight-scale must be"),
    "weight scale a word": (NOTHING, ["train", "--weight-scale", "hey"], "--weight-scale"),
    "eval-every negative": (
        NOTHING,
        ["train", "--eval-every", "-1"],
        "--eval-every must be at least 0",
    ),
    "num-train 0": (NOTHING, ["train", "--num-train", "0"], "num-train must be"),
    "num-train too many": (NOTHING, ["train", "--num-train", "9999"], "--num-train is 9999"),
    "optimizer in capitals": (NOTHING, ["train", "--optimizer", "SGD"], "did you mean 'sgd'"),
    "hidden beyond all": (NOTHING, ["train", "--hidden", str(10**20)], "--hidden must be at most"),
    "seed beyond all": (NOTHING, ["train", "--seed", str(10**20)], "--seed must be at most"),
    "seed negative": (NOTHING, ["train", "--seed", "-1"], "--seed must be at least 0"),
    "out empty": (NOTHING, ["train", "--out", ""], "--out is empty"),
    "overwrite what": (NOTHING, ["train", "--overwrite"], "--overwrite is for"),
    "seed a word": (NOTHING, ["train", "--seed", "x"], "--seed"),
    "label for digits": (NOTHING, ["train", "--label", "y"], "--label is for files"),
    "data-dir for digits": (NOTHING, ["train", "--data-dir", "d"], "--data-dir is for cifar10"),
    "no such file": (NOTHING, ["train", "--dataset", "none.npz"], "none.npz"),
    "npz damaged": (bad_file("bad.npz"), TRAIN_NPZ, "bad.npz"),
    "npz without y": (bad_npz(x=x()), TRAIN_NPZ, "y"),
    "npz pickled": (bad_npz(x=np.array([{}] * 20), y=Y), TRAIN_NPZ, "bad.npz"),
    "npz nan": (bad_npz(x=x(_5=np.nan), y=Y), TRAIN_NPZ, "nan"),
    "npz inf": (bad_npz(x=x(_5=np.inf), y=Y), TRAIN_NPZ, "inf"),
    "npz rank 1": (bad_npz(x=np.ones(20), y=Y), TRAIN_NPZ, "x"),
    "npz empty": (bad_npz(x=np.ones((0, 3)), y=Y[:0]), TRAIN_NPZ, "empty"),
    "npz lengths": (bad_npz(x=x(), y=Y[:-1]), TRAIN_NPZ, "y"),
    "npz label negative": (bad_npz(x=x(), y=Y - 1), TRAIN_NPZ, "y"),
    "npz label fractional": (bad_npz(x=x(), y=Y + 0.5), TRAIN_NPZ, "y"),
    "csv empty": (bad_csv(""), TRAIN_CSV, "bad.csv"),
    "csv ragged": (bad_csv("a,b,y\n1,2,0\n1,0\n"), TRAIN_CSV, "bad.csv"),
    "csv word": (bad_csv("a,b,y\n1,2,0\n1,two,0\n"), TRAIN_CSV, "two"),
    "csv nan": (bad_csv("a,b,y\n1,nan,0\n1,2,0\n"), TRAIN_CSV, "bad.csv"),
    "csv unknown label": (
        bad_csv("a,b,label\n1,2,0\n1,2,1\n"),
        [*TRAIN_CSV, "--label", "lable"],
        "did you mean 'label'",
    ),
    "fractions": (
        bad_npz(x=x(), y=Y),
        [*TRAIN_NPZ, "--val-fraction", "0.6", "--test-fraction", "0.6"],
        "fraction",
    ),
    "no CIFAR-10": (NOTHING, CIFAR, "funcnet datasets download cifar10"),
    "CIFAR-10 truncated": (cifar_folder(30_729_999), CIFAR, "data_batch_5.bin"),
    "CIFAR-10 oversized": (cifar_folder(30_730_001), CIFAR, "data_batch_5.bin"),
    "CIFAR-10 archive small": (cifar_archive(), CIFAR, "data_batch_1.bin"),
    "CIFAR-10 archive damaged": (
        lambda: [Path("data").mkdir(), Path("data/cifar-10-binary.tar.gz").write_bytes(b"x")],
        CIFAR,
        "cifar-10-binary.tar.gz",
    ),
    "archive to unpack with a wrong checksum and no network": (
        cifar_archive("../evil"),
        CIFAR,
        "cifar-10-binary.tar.gz",
    ),
    "out is a file": (bad_file("r"), ["train", *SMALL, "--out", "r"], "r is there already"),
    "out below a file": (bad_file("r"), ["train", *SMALL, "--out", "r/s"], "r/s"),
    "out not writable": (NOTHING, ["train", *SMALL, "--out", "/proc/funcnet"], "/proc/funcnet"),
    "evaluate nothing": (NOTHING, ["evaluate", "nowhere"], "nowhere is no run directory"),
    "run without config": (a_run(lambda: Path("r/config.json").unlink()), ["evaluate", "r"], "r"),
    "config damaged": (a_run(truncate("r/config.json", 50)), ["evaluate", "r"], "config.json"),
    "config of another kind": (
        a_run(lambda: Path("r/config.json").write_text("{}")),
        ["evaluate", "r"],
        "config.json",
    ),
    "config with an unknown loss": (
        a_run(change_config(loss=None)),
        ["evaluate", "r"],
        "loss is None",
    ),
    "config with another dataset": (
        a_run(change_config(dataset=3)),
        ["evaluate", "r"],
        "dataset is 3",
    ),
    "config with an unknown normalization": (
        a_run(change_config(normalization="batch")),
        ["evaluate", "r"],
        "normalization is 'batch'",
    ),
    "config with an impossible keep_prob": (
        a_run(change_config(keep_prob=2)),
        ["evaluate", "r"],
        "keep_prob is 2",
    ),
    "config with an unknown weight scale": (
        a_run(change_config(weight_scale="hey")),
        ["evaluate", "r"],
        "weight_scale is 'hey'",
    ),
    "config with other sizes": (a_run(change_config(hidden=[9])), ["evaluate", "r"], "9 outputs"),
    "data-dir for a run on digits": (
        a_run(),
        ["evaluate", "r", "--data-dir", "d"],
        "--data-dir is for cifar10",
    ),
    "model truncated": (
        a_run(truncate("r/best.safetensors", 500)),
        ["evaluate", "r"],
        "best.safetensors",
    ),
    "model damaged": (a_run(flip("r/best.safetensors", -9)), ["evaluate", "r"], "checksum"),
    "model missing": (
        a_run(lambda: Path("r/best.safetensors").unlink()),
        ["evaluate", "r"],
        "best.safetensors",
    ),
    "predict nothing": (a_run(), ["predict", "r", "none.npy"], "none.npy"),
    "predict wrong shape": (
        a_run(lambda: np.save("x.npy", np.ones((4, 7, 7)))),
        ["predict", "r", "x.npy"],
        "[7, 7]",
    ),
    "predict nan": (
        a_run(lambda: np.save("x.npy", np.full((4, 8, 8), np.nan))),
        ["predict", "r", "x.npy"],
        "nan",
    ),
    "evaluate tta of what is no image": (
        a_plain_run,
        ["evaluate", "p", "--tta"],
        "images must be [N, ..., H, W], got [2, 2]",
    ),
    "predict tta of what is no image": (
        a_plain_run,
        ["predict", "p", "bad.csv", "--label", "y", "--tta"],
        "images must be [N, ..., H, W], got [20, 2]",
    ),
    "gradcheck in another dtype": (
        NOTHING,
        ["gradcheck", "--matmul-dtype", "bfloat16"],
        "unknown option --matmul-dtype",
    ),
    "gradcheck of batch norm with one example": (
        NOTHING,
        ["gradcheck", "--normalization", "batchnorm", "--num-examples", "1"],
        "a batch of one example has no variance",
    ),
    "gradcheck 0 examples": (NOTHING, ["gradcheck", "--num-examples", "0"], "--num-examples"),
    "gradcheck too many": (
        NOTHING,
        ["gradcheck", "--num-examples", "9999"],
        "--num-examples is 9999",
    ),
    "gradcheck 0 elements": (NOTHING, ["gradcheck", "--max-elements", "0"], "--max-elements"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_one_line(case, no_data):
    make, argv, names = BAD[case]
    make()
    before = set(Path().rglob("*"))
    code, out, err = run(*argv)
    assert code == 2
    assert re.fullmatch(r"funcnet( \w+)?: error: .+\n", err)
    assert names in err
    assert out == ""
    assert set(Path().rglob("*")) == before


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
        "fn.fit(fn.mlp([4], 10), fn.adam(1e-3), fn.load_digits(), key=jax.random.key(0),"
        " epochs=1, batch_size=100)\n"
        "print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
