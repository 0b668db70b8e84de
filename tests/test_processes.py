"""Several processes that train one net: the same bits, and ends that are told."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import run

import funcnet as fn
from funcnet.defaults import usual_batch_size
from funcnet.tensors import load_tensors

SMALL = "--hidden-dims 12 --normalization batchnorm --keep-prob 0.9 --num-train 205"
OPTIONS = [*SMALL.split(), "--batch-size", "16"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty directory, and without a cache that several processes would share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")


def begin(count, *words, of_each=lambda number: ()):
    """The commands of so many processes, which find each other at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "funcnet", "train", "--coordinator", address]
    words = [*map(str, words)]

    def begun(number):
        own = ["--processes", str(count), "--process-id", str(number), *words]
        own += map(str, of_each(number))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*command, *own], **pipes)

    return [*map(begun, range(count))]


def ends(processes, timeout=180):
    """What became of them: exit codes, outputs and errors."""
    found = [process.communicate(timeout=timeout) for process in processes]
    codes = [process.returncode for process in processes]
    return codes, [out for out, _ in found], [err for _, err in found]


def tensors(path):
    """The last model of a run, as bytes."""
    leaves, _ = load_tensors(Path(path) / "last.safetensors", kind="model")
    return {name: np.asarray(leaf).tobytes() for name, leaf in leaves.items()}


@pytest.mark.slow
def test_processes_come_to_the_bits_of_one():
    count = 2
    words = [*OPTIONS, "--epochs", 4, "--reproducible", 8]
    codes, outs, errs = ends(begin(count, *words, "--out", "several"))
    assert codes == [0] * count, errs
    assert "saved in several" in outs[0]
    assert not any("Epoch" in out for out in outs[1:])  # one prints
    run("train", *words, "--quiet", "--out", "one")
    assert tensors("several") == tensors("one")
    assert Path("several/history.csv").read_text() == Path("one/history.csv").read_text()


@pytest.mark.slow
def test_each_process_reads_its_own_part_of_data_on_disk():
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f},{'ab'[int(a > b)]}" for a, b in rng.normal(size=(900, 2))]
    Path("table.csv").write_text("\n".join(["a,b,y", *lines]))
    assert run("datasets", "convert", "table.csv", "table", "--quiet")[0] == 0
    words = ["--dataset", "table", "--batch-size", 16, "--epochs", 2, "--hidden-dims", 8]
    for shards in ([], ["--reproducible", 4]):
        out = f"several{len(shards)}"
        codes, _, errs = ends(begin(2, *words, *shards, "--out", out))
        assert codes == [0, 0], errs
        run("train", *words, *shards, "--quiet", "--out", f"one{len(shards)}")
    assert tensors("several2") == tensors("one2")
    for name, leaf in load_tensors("one0/last.safetensors", kind="model")[0].items():
        several = load_tensors("several0/last.safetensors", kind="model")[0][name]
        np.testing.assert_allclose(several, leaf, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_in_shards_the_bits_do_not_go_by_the_number_of_cores():
    words = ["--epochs", 1, "--reproducible", 2, "--batch-size", 1024, "--quiet"]
    words += ["--hidden-dims", 2048, "--normalization", "batchnorm"]
    for count in (1, 2):
        cores = sorted(os.sched_getaffinity(0))[:count]
        code = f"""
import os, sys
os.sched_setaffinity(0, {cores})
from funcnet.cli import main
sys.exit(main(sys.argv[1:]))
"""
        command = [sys.executable, "-c", code, "train", *words, "--out", f"cores-{count}"]
        done = subprocess.run([*map(str, command)], check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert tensors("cores-1") == tensors("cores-2")


@pytest.mark.slow
def test_without_shards_they_come_to_the_same_up_to_rounding():
    words = [*OPTIONS, "--epochs", 4, "--optimizer", "sgd", "--learning-rate", 0.1]
    codes, _, errs = ends(begin(2, *words, "--out", "several"))
    assert codes == [0, 0], errs
    run("train", *words, "--quiet", "--out", "one")
    for name, leaf in load_tensors("one/last.safetensors", kind="model")[0].items():
        several = load_tensors("several/last.safetensors", kind="model")[0][name]
        np.testing.assert_allclose(several, leaf, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_when_one_is_killed_the_others_end_and_more_of_them_go_on_to_the_same_bits():
    words = [*OPTIONS, "--epochs", 100_000, "--reproducible", 8, "--out", "cut"]
    processes = begin(2, *words)
    for line in processes[0].stdout:
        if line.startswith("(Epoch 30 "):
            break
    processes[1].kill()
    killed = time.monotonic()
    codes, _, errs = ends(processes)
    assert time.monotonic() - killed < 60
    assert codes[0] == 2
    assert "another process has ended" in errs[0]
    last = max(int(path.stem[6:]) for path in Path("cut/checkpoints").glob("epoch-*"))
    codes, outs, errs = ends(begin(4, "--resume", "cut", "--epochs", last + 5))
    assert codes == [0] * 4, errs
    assert "saved in cut" in outs[0]
    words = [*OPTIONS, "--epochs", last + 5, "--reproducible", 8, "--out", "whole"]
    run("train", *words, "--quiet")
    assert tensors("cut") == tensors("whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "what"), [("--epochs", "epochs"), ("--seed", "key"), ("--num-train", "data")]
)
def test_processes_that_do_not_agree_are_told_so(option, what):
    words = [*OPTIONS, "--epochs", 4]
    codes, _, errs = ends(begin(2, *words, of_each=lambda number: (option, 205 - number)))
    assert codes == [2, 2], errs
    for err in errs:
        line = err.splitlines()[-1] if "agree" in err.splitlines()[-1] else err
        assert "processes do not agree about" in line
        assert what in line


def test_the_command_comes_to_the_same_bits_on_four_devices(monkeypatch, unoptimized):
    monkeypatch.setenv("PJRT_NPROC", "1")  # or the command would set it for all that comes after
    words = [*OPTIONS[:2], "--num-train", 200, "--reproducible", 8, "--eval-every", 0, "--quiet"]
    for name, own in (("one", []), ("four", ["--devices", 4])):
        code, _, err = run("train", *words, "--epochs", 2, *own, "--out", name)
        assert (code, err) == (0, "")
    assert tensors("one") == tensors("four")
    assert json.loads(Path("one/config.json").read_text())["batch_size"] == 56
    assert run("train", "--resume", "four", "--epochs", 3, "--devices", 2, "--quiet")[0] == 0
    assert run("train", *words, "--epochs", 3, "--out", "whole")[0] == 0
    assert tensors("four") == tensors("whole")


@pytest.mark.parametrize(("count", "shards"), [(1000, 8), (51, 4), (40, 16), (3, 4)])
def test_a_batch_size_that_is_not_given_can_be_cut_in_shards(count, shards):
    size = usual_batch_size(count, shards)
    assert size % shards == 0
    assert size == {1000: 56, 51: 48, 40: 32, 3: 4}[count]  # of 3 there is none


def test_what_is_wrong_with_processes_is_said():
    cases = [
        ("--processes 2", "coordinator, processes and process_id belong together"),
        ("--coordinator here --processes 2 --process-id 0", "coordinator must be HOST:PORT"),
        ("--coordinator h:1 --processes 2 --process-id 2", "process_id must be at most 1, got 2"),
        ("--coordinator h:1 --processes 0 --process-id 0", "processes must be at least 1, got 0"),
        ("--model-parallel 2", "--model-parallel needs --devices"),
        ("--devices 9", "devices is 9, but JAX has 8 devices"),
    ]
    for words, message in cases:
        code, _, err = run("train", *words.split())
        assert code == 2
        assert message in err
    with pytest.raises(ValueError, match="belong together"):
        fn.join_processes(processes=3)
    assert fn.join_processes() == 1
