"""What an earlier funcnet has left on disk is read by this one: stored/ has all versions.

They are small: eight hidden units or fewer, 200 or 400 digits. A sweep and the same one interrupted
after two of its epochs are there for each version.
"""

import csv
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from command import run
from marks import slow_but
from safetensors.numpy import load_file, save_file

import funcnet as fn
from funcnet.datasets.shard_files import read_manifest
from funcnet.stored import as_config, lifted, stored_config
from funcnet.versions import LIFTS, VERSIONS

pytestmark = pytest.mark.usefixtures("unoptimized")
STORED = Path(__file__).parent / "stored"
RUNS = sorted(path.name for path in STORED.glob("run-*"))
SWEEPS = sorted(path.name for path in STORED.glob("sweep-*") if not path.name.endswith("ed"))
SHARDS = sorted(path.name for path in STORED.glob("shards-*"))


@pytest.fixture
def copy(tmp_path):
    """A function: a copy of what is stored under a name."""
    return lambda name: shutil.copytree(STORED / name, tmp_path / name)


def config_of(path):
    return json.loads((path / "config.json").read_text())


def test_every_version_has_an_example_and_a_way_up():
    for kind, names in (("run", RUNS), ("sweep", SWEEPS), ("shards", SHARDS)):
        assert names == [f"{kind}-{number}" for number in range(1, VERSIONS[kind] + 1)]
        for number in range(1, VERSIONS[kind]):
            assert (kind, number) in LIFTS
    assert {kind for kind, _ in LIFTS} <= {*VERSIONS, "table"}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_evaluates_and_predicts(name):
    path = STORED / name
    results = config_of(path)["results"]
    code, out, err = run("evaluate", path)
    assert (code, err) == (0, "")
    assert f"test accuracy {100 * results['test_accuracy']:.2f} %" in out
    assert f"loss {results['test_loss']:.4f}" in out
    for split in ("train", "val"):
        code, out, err = run("evaluate", path, "--split", split, "--model", "last")
        assert (code, err) == (0, "")
    code, out, err = run("predict", path, STORED / "x.npy")
    assert (code, err) == (0, "")
    found = list(csv.DictReader(io.StringIO(out)))
    with (path / "predictions.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [row["class"] for row in found] == [row["class"] for row in expected]
    for a, b in zip(found, expected, strict=True):
        assert float(a["probability"]) == pytest.approx(float(b["probability"]), rel=1e-3)


@pytest.mark.parametrize("name", slow_but(RUNS, "run-1"))
def test_a_run_is_an_experiment_of_today(name):
    """Trained anew, it comes to what it came to."""
    content = config_of(STORED / name)
    net, optimizer, dataset, options = fn.experiment(content, fn.load_digits())
    assert net == fn.mlp([8], 10, normalization="batchnorm", keep_prob=0.9, weight_scale="he")
    assert (options["mixup_alpha"], options["label_smoothing"]) == (0.2, 0.1)
    result = fn.fit(net, optimizer, dataset, **options)
    losses = np.loadtxt(STORED / name / "losses.csv", delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_allclose(result.history.loss, losses, rtol=1e-3)


def test_a_run_that_was_cut_off_goes_on(copy):
    """Of another machine, perhaps, which it says; there roundings differ."""
    path = copy("cut-run-3")
    code, out, err = run("train", "--resume", path)
    assert code == 0
    assert out.splitlines()[-1] == f"saved in {path}"
    assert "(Epoch 3 / 4)" in out
    assert "(Epoch 1 / 4)" not in out
    assert err == "" or "was made on another machine or by another version" in err
    whole = path.with_name("whole")
    words = ("--hidden-dims", 8, "--num-train", 200, "--normalization", "batchnorm")
    run("train", *words, "--keep-prob", 0.9, "--epochs", 4, "--out", whole)
    found, expected = (
        np.loadtxt(p / "losses.csv", delimiter=",", skiprows=1) for p in (path, whole)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_files_of_python_are_read():
    net = fn.mlp([4], 3)
    state = fn.init_train_state(net, fn.adam(1e-3), (5,), key=jax.random.key(3))
    found = fn.load_state(STORED / "state-1.safetensors", state)
    assert found.params == state.params
    assert found.key == state.key
    model = fn.load_model(STORED / "model-2.safetensors", net)
    assert model.state["key"] == jax.random.key(4)
    assert model.state["wide"].dtype == np.dtype(">f8")
    assert model.state["wide"].tolist() == [0, 1]


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_shows_its_table_and_its_best_run_evaluates(name):
    path = STORED / name
    code, out, err = run("sweep", "show", path)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert " ".join(lines[0]) == (
        "hidden dims mixup alpha val accuracy best epoch final train accuracy status"
    )
    rows = json.loads((path / "table.json").read_text())
    best = max(row["val_accuracy"] for row in rows)
    assert f"{100 * best:.2f}" in lines[1]
    code, out, err = run("evaluate", path / "best")
    assert (code, err) == (0, "")
    assert f"test accuracy {100 * config_of(path)['results']['test_accuracy']:.2f} %" in out


@pytest.mark.parametrize("name", slow_but(SWEEPS, "sweep-1"))
def test_an_interrupted_sweep_resumes(name, copy):
    path = copy(f"{name}-interrupted")
    assert config_of(path)["status"] == "running"
    code, _, err = run("sweep", "resume", path, "--quiet")
    assert (code, err) == (0, "")
    whole = json.loads((STORED / name / "table.json").read_text())
    with (path / "table.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["hidden_dims"] for row in found] == ["(8,)", "(8,)", "(6, 4)", "(6, 4)"]
    for a, b in zip(found, whole, strict=True):
        assert a["status"] == "finished"
        assert float(a["val_loss"]) == pytest.approx(b["val_loss"], rel=1e-3)
    assert config_of(path)["version"] == VERSIONS["sweep"]
    assert run("evaluate", path / "best")[0] == 0


@pytest.mark.slow
def test_files_say_their_version(tmp_path):
    run("train", "--hidden", 4, "--epochs", 1, "--num-train", 60, "--out", tmp_path / "r")
    run(
        "sweep",
        "--hidden",
        4,
        "--epochs",
        1,
        "--num-train",
        60,
        "--seeds",
        2,
        "--out",
        tmp_path / "s",
    )
    assert config_of(tmp_path / "r")["version"] == VERSIONS["run"]
    assert config_of(tmp_path / "s")["version"] == VERSIONS["sweep"]
    assert config_of(tmp_path / "s" / "best")["version"] == VERSIONS["run"]
    members = next((tmp_path / "s" / "members").glob("*.safetensors")).stem
    for file, kind in (("r/best", "model"), (f"s/members/{members}", "member")):
        data = (tmp_path / f"{file}.safetensors").read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert header["__metadata__"]["version"] == str(VERSIONS[kind])


def raise_version(path, number=99):
    """Have a file say that it is of a version to come."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        kind = content["format"].split()[1]
        path.write_text(
            json.dumps({**content, "format": f"funcnet {kind} {number}", "version": number})
        )
        return
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    kind = header["format"].split()[1]
    header |= {"format": f"funcnet {kind} {number}", "version": str(number)}
    save_file(load_file(path), path, metadata=header)


NEWER = {
    "run": ("run-1", "config.json", ("evaluate",)),
    "model": ("run-1", "best.safetensors", ("evaluate",)),
    "sweep": ("sweep-1", "config.json", ("sweep", "show")),
    "resumed sweep": ("sweep-1-interrupted", "config.json", ("sweep", "resume")),
    "checkpoint": (
        "cut-run-3",
        "checkpoints/epoch-00000002.safetensors",
        ("train", "--quiet", "--resume"),
    ),
    "member": ("sweep-1-interrupted", "members/0.safetensors", ("sweep", "resume")),
}


@pytest.mark.parametrize("case", NEWER)
def test_a_newer_version_is_refused_by_name(case, copy):
    name, file, command = NEWER[case]
    path = copy(name)
    raise_version(path / file)
    before = {p: p.read_bytes() for p in path.rglob("*.*") if p.is_file()}
    code, out, err = run(*command, path)
    assert (code, out) == (2, "")
    assert f"{path / file} was written by a newer funcnet: it is of version 99" in err
    for lock in path.rglob(".lock"):
        lock.unlink()
    assert {p: p.read_bytes() for p in path.rglob("*.*") if p.is_file()} == before


@pytest.mark.parametrize("name", SHARDS)
def test_a_directory_of_shards_is_read(name):
    manifest = read_manifest(STORED / name)
    assert (manifest.task, manifest.class_names) == ("classification", ("a", "b"))
    assert {split: [p.rows for p in parts] for split, parts in manifest.splits.items()} == {
        "train": [4, 2],
        "val": [2],
        "test": [],
    }
    assert manifest.encoding.columns == ("length", "colour")
    x = np.concatenate([np.load(STORED / name / part.x) for part in manifest.splits["train"]])
    w = np.concatenate([np.load(STORED / name / part.weight) for part in manifest.splits["train"]])
    assert (x.shape, x.dtype, w.sum()) == ((6, 4), np.float32, 10)


def test_a_field_that_is_missing_has_its_default_but_those_that_never_lack():
    content = config_of(STORED / "run-1")
    plain = {k: v for k, v in content.items() if k not in ("reg", "optimizer", "tta", "warmup")}
    assert as_config(plain) == as_config(content)
    for name in ("dataset", "hidden", "loss", "weight_scale"):
        less = {k: v for k, v in content.items() if k != name}
        with pytest.raises(ValueError, match=r"here is damaged: (hidden_dims|\w+) is missing"):
            stored_config(lifted("run", less, "here"), "here")


def test_a_field_that_is_not_known_is_said(copy):
    path = copy("run-1")
    content = config_of(path)
    (path / "config.json").write_text(json.dumps({**content, "to_come": 1}))
    code, out, err = run("evaluate", path)
    assert (code, out) == (
        0,
        run("evaluate", STORED / "run-1")[1].replace(str(STORED / "run-1"), str(path)),
    )
    assert err == f"warning: {path}/config.json has 'to_come', which this funcnet does not know\n"


@pytest.mark.parametrize("command", ["evaluate", "summary"])
def test_the_directory_of_a_sweep_in_place_of_a_run(command, copy):
    code, _, err = run(command, copy("sweep-2"))
    assert code == 2
    assert "it is that of a sweep, whose best run is in best/ beside it" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_format_and_a_version_that_disagree(number, copy):
    path = copy("run-1")
    content = {**config_of(path), "format": f"funcnet run {number}", "version": 3 - number}
    (path / "config.json").write_text(json.dumps(content))
    code, _, err = run("evaluate", path)
    assert (code, "is not the configuration of a funcnet run" in err) == (2, True)
