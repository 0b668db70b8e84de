"""Wrong input from the command line: exit code 2, and one line on stderr that names it."""

import io
import json
import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
from command import cifar_folder, run

from funcnet.checks import Count, Range
from funcnet.config import OPTIONS
from funcnet.option import option

SMALL = ["--hidden", "8", "--epochs", "2", "--num-train", "200"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUNCNET_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def check_refused(argv, names):
    """It is refused in one line that has this in it, and nothing is written."""
    before = set(Path().rglob("*"))
    code, out, err = run(*argv)
    assert code == 2
    assert re.fullmatch(r"funcnet( \w+)?: error: .+\n", err)
    assert names in err
    assert out == ""
    assert set(Path().rglob("*")) == before


# A command, and what is in its line.
WRONG = {
    "--quiet": "command",
    "trian": "did you mean 'train'",
    "train --lerning-rate 1": "did you mean --learning-rate",
    "train digits": "unexpected argument 'digits'",
    "train --dataset cifar": "did you mean 'cifar10'",
    "train --optimizer adm": "did you mean 'adam'",
    "train --loss sofmax": "did you mean 'softmax'",
    "train --preprocess maen": "did you mean 'mean'",
    "train --recipe digit": "did you mean 'digits'",
    "train --recipe": "--recipe: expected one argument",
    "recipes cifar-cpu": "did you mean 'cifar10-cpu'",
    "train --normalization bathcnorm": "did you mean 'batchnorm'",
    "train --activation rellu": "did you mean 'relu'",
    "train --schedule cosin": "did you mean 'cosine'",
    "train --matmul-dtype bfloat": "did you mean 'bfloat16'",
    "train --augment flop": "did you mean 'flip'",
    "evaluate r --split tset": "did you mean 'test'",
    "evaluate r --model lst": "did you mean 'last'",
    "datasets downlod": "did you mean 'download'",
    "datasets download cifar100": "did you mean 'cifar10'",
    "train --epochs many": "--epochs",
    "train --epochs 0": "--epochs must be at least 1",
    "train --epochs 1.5": "--epochs",
    "train --batch-size 0": "--batch-size must be at least 1",
    "train --batch-size 9999": "batch_size is 9999",
    "train --learning-rate 0": "--learning-rate must be > 0",
    "train --learning-rate -1": "--learning-rate must be",
    "train --learning-rate inf": "--learning-rate must be finite",
    "train --learning-rate-decay 0": "--learning-rate-decay must be",
    "train --optimizer sgd_momentum --momentum 1": "momentum must be",
    "train --momentum 0.9": "--momentum is for sgd_mom",
    "train --beta2 2": "beta2 must be",
    "train --epsilon 0": "epsilon must be",
    "train --weight-decay 0.1": "--weight-decay is for adamw and lion and muon, not for adam",
    "train --optimizer adamw --weight-decay -1": "--weight-decay must be >= 0",
    "train --clip-norm 0": "--clip-norm must be > 0",
    "train --average-decay 1": "--average-decay must be",
    "train --warmup 2": "--warmup must be >= 0 and <= 1",
    "train --schedule cosine --learning-rate-decay 0.5": (
        "--learning-rate-decay is for the schedules exponential and step, not for cosine"
    ),
    "train --schedule step": "--schedule step needs --learning-rate-decay",
    "train --decay-every 0": "--decay-every must be at least 1",
    "train --decay-every 3": "--decay-every is for the schedule step",
    "train --keep-prob 0": "--keep-prob must be > 0 and <= 1",
    "train --keep-prob 1.5": "--keep-prob must be",
    "train --keep-prob nan": "--keep-prob must be finite",
    "train --input-keep-prob 0": "--input-keep-prob must",
    "train --label-smoothing 2": "--label-smoothing must be >= 0 and <= 1",
    "train --mixup -1": "--mixup must be >= 0",
    "train --loss svm --mixup 0.2": "not for the svm loss",
    "train --loss svm --label-smoothing 0.1": "not for the svm loss",
    "train --augment shift=8": (
        "--augment shift=8: random_shift: max_shift is 8, but the images have only 8 x 8 pixels"
    ),
    "train --augment shift=x": "needs an integer, got 'shift=x'",
    "train --augment shift=": "needs an integer, got 'shift='",
    "train --augment crop=x": "needs a number, got 'crop=x'",
    "train --augment crop=2": "--augment crop=2: min_area must be",
    "train --augment cutout=0": "--augment cutout=0: size must be",
    "train --augment flip=3": "flip takes no value, got 'flip=3'",
    "train --preprocess contrast whiten=100000": (
        "--preprocess whiten=100000: dim must be at most 64"
    ),
    "train --preprocess": "--preprocess: expected",
    "train --normalization batchnorm --num-train 101": (
        "batches of 50 leave one of the 101 training examples over"
    ),
    "train --normalization batchnorm --batch-size 1": "a batch of one example has no variance",
    "train --reg -1": "--reg must be",
    "train --hidden 10 0": "--hidden",
    "train --hidden ten": "--hidden",
    "train --weight-scale -1": "--weight-scale must be",
    "train --weight-scale hey": "--weight-scale",
    "train --eval-every -1": "--eval-every must be at least 0",
    "train --num-train 0": "num-train must be",
    "train --num-train 9999": "--num-train is 9999",
    "train --optimizer SGD": "did you mean 'sgd'",
    "train --hidden 100000000000000000000": "--hidden must be at most",
    "train --seed 100000000000000000000": "--seed must be at most",
    "train --seed -1": "--seed must be at least 0",
    "train --out ''": "--out is empty",
    "export runs/none --out ''": "--out is empty",
    "watch ''": "RUN is empty",
    "train --overwrite": "--overwrite is for",
    "train --seed x": "--seed",
    "train --label y": "--label is for files",
    "train --data-dir d": "--data-dir is for cifar10",
    "train --dataset none.npz": "none.npz",
    "train --dataset cifar10 --data-dir data --hidden 8 --epochs 2 --num-train 200": (
        "funcnet datasets download cifar10"
    ),
    "train --hidden 8 --epochs 2 --num-train 200 --out /proc/funcnet": "/proc/funcnet",
    "evaluate nowhere": "nowhere is no run directory",
    "gradcheck --matmul-dtype bfloat16": "unknown option --matmul-dtype",
    "gradcheck --normalization batchnorm --num-examples 1": (
        "a batch of one example has no variance"
    ),
    "gradcheck --num-examples 0": "--num-examples",
    "gradcheck --num-examples 9999": "--num-examples is 9999",
    "gradcheck --max-elements 0": "--max-elements",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_options_are_refused(command):
    check_refused(shlex.split(command), WRONG[command])


def out_of_range(limits):
    """Numbers just beyond each bound, and what is no number of this kind."""
    if isinstance(limits, Count):
        yield from (str(limits.at_least - 1), "1.5", "many")
        if limits.at_most is not None:
            yield str(limits.at_most + 1)
    else:
        assert isinstance(limits, Range)
        yield from (str(bound) for bound in (limits.above, limits.below) if bound is not None)
        yield from (str(bound - 1) for bound in [limits.at_least] if bound is not None)
        yield from (str(bound + 1) for bound in [limits.at_most] if bound is not None)
        yield from ("nan", "inf", "much")


@pytest.mark.parametrize("name", [name for name, known in OPTIONS.items() if known.range])
def test_every_number_has_its_range(name):
    for value in out_of_range(OPTIONS[name].range):
        for command in ("train", "gradcheck") if OPTIONS[name].gradcheck else ("train",):
            check_refused([command, option(name), value], option(name))


@pytest.mark.parametrize("name", [name for name, known in OPTIONS.items() if known.choices])
def test_every_name_has_its_list(name):
    nearly = next(iter(OPTIONS[name].choices)) + "x"
    check_refused(["train", option(name), nearly], option(name))


# What is wrong is in a file.


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
    bad_csv("a,b,y\n" + "".join(f"{2 * i},{i * i},{i % 2}\n" for i in range(20)))()
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


CIFAR = ["train", "--dataset", "cifar10", "--data-dir", "data", *SMALL]


BAD = {
    "augmentation of what is no image": (
        bad_npz(x=np.ones((20, 3)), y=np.arange(20) % 2),
        [*TRAIN_NPZ, "--augment", "flip"],
        "--augment flip: random_flip: images must be [N, ..., H, W], got [4, 3]",
    ),
    "tta of what is no image": (
        bad_csv("a,b,y\n" + "".join(f"{i},{i * i},{i % 2}\n" for i in range(1, 41, 2))),
        [*TRAIN_CSV, "--tta", "--quiet"],
        "images must be [N, ..., H, W], got [1, 2]",
    ),
    "npz damaged": (bad_file("bad.npz"), TRAIN_NPZ, "bad.npz"),
    "npz without y": (bad_npz(x=x()), TRAIN_NPZ, "y"),
    "npz pickled": (bad_npz(x=np.array([{}] * 20), y=Y), TRAIN_NPZ, "bad.npz"),
    "npz nan": (bad_npz(x=x(_5=np.nan), y=Y), TRAIN_NPZ, "nan"),
    "npz inf": (bad_npz(x=x(_5=np.inf), y=Y), TRAIN_NPZ, "inf"),
    "npz rank 1": (bad_npz(x=np.ones(20), y=Y), TRAIN_NPZ, "x"),
    "npz empty": (bad_npz(x=np.ones((0, 3)), y=Y[:0]), TRAIN_NPZ, "empty"),
    "npz lengths": (bad_npz(x=x(), y=Y[:-1]), TRAIN_NPZ, "y"),
    "npz label infinite": (bad_npz(x=x(), y=Y + np.inf), TRAIN_NPZ, "y"),
    "csv empty": (bad_csv(""), TRAIN_CSV, "bad.csv"),
    "csv ragged": (bad_csv("a,b,y\n1,2,0\n1,0\n"), TRAIN_CSV, "bad.csv"),
    "csv word": (
        bad_csv("a,y\n" + "".join(f"{i * i},{i % 2}\n" for i in range(30)) + "two,0\n"),
        TRAIN_CSV,
        "bad.csv, line 32, column 'a': 'two' is not a number, as 96.8 % of the column are",
    ),
    "csv infinite": (
        bad_csv("a,y\n1,0\ninf,0\n"),
        TRAIN_CSV,
        "bad.csv, line 3, column 'a': inf is not finite",
    ),
    "csv without a label": (
        bad_csv("a,b\n1,2\n1,3\n"),
        TRAIN_CSV,
        "bad.csv: which column is the label? say it with --label (target=): a name, first or last",
    ),
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
    "config with other sizes": (
        a_run(change_config(hidden_dims=[9])),
        ["evaluate", "r"],
        "9 outputs",
    ),
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
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_files_are_refused(case):
    make, argv, names = BAD[case]
    make()
    check_refused(argv, names)
