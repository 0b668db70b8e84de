"""Data sets that stay on disk: .npy files and shards, and what there is to say of their targets."""

import json
import warnings

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.datasets import DataWarning, disk, mapped
from funcnet.datasets.shard_files import Writer

N = 5000


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


def says(match):
    return pytest.warns(DataWarning, match=r"(?s)\A(?!.*\n).*" + match)


@pytest.fixture
def x(rng):
    return rng.normal(size=(N, 3)).astype(np.float32)


def save(directory, **arrays):
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    return directory


def whole(data, name):
    """All rows of the three splits."""
    return np.concatenate(
        [getattr(data, f"{name}_{split}")[:] for split in ("train", "val", "test")]
    )


def test_options_are_fitted_to_all_that_stays_on_disk_too(x, tmp_path, rng, monkeypatch):
    save(tmp_path, x=x, y=rng.integers(3, size=N))
    data = fn.load_arrays(tmp_path, memory_map="yes")
    monkeypatch.setattr(disk.Stored, "sample", None)
    found = fn.experiment({"preprocess": ["standardize"]}, data).options["preprocess"]
    np.testing.assert_allclose(found.stats["mean"], data.x_train[:].mean(0, dtype=np.float64))


LABELS = {
    "whole numbers": lambda rng: rng.choice([3, 7, 9], N),
    "from 1": lambda rng: rng.integers(1, 5, N).astype(np.uint8)[:, None],
    "fractions": lambda rng: rng.choice([0.5, 1.5], N),
    "words": lambda rng: rng.choice(["no", "yes", "maybe"], N),
    "sorted words": lambda rng: np.sort(rng.choice(["no", "yes", "maybe"], N)),
    "bytes": lambda rng: rng.choice([b"no", b"yes"], N),
    "bools": lambda rng: rng.random(N) < 0.5,
    "one-hot": lambda rng: np.eye(4)[rng.integers(4, size=N)],
    "numbers": lambda rng: rng.normal(size=N),
    "two targets": lambda rng: rng.normal(size=(N, 2)),
    "labels": lambda rng: rng.integers(2, size=(N, 3)),
}


@pytest.mark.filterwarnings("ignore::funcnet.datasets.DataWarning")
@pytest.mark.parametrize("kind", LABELS)
def test_targets_are_those_of_arrays_in_memory(kind, x, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(disk, "ROWS", 700)
    save(tmp_path, x=x, y=LABELS[kind](rng))
    data, memory = (fn.load_arrays(tmp_path, memory_map=which) for which in ("yes", "no"))
    assert data.task == memory.task
    assert data.class_names == memory.class_names
    assert data.y_train.dtype == memory.y_train.dtype
    orders = [np.lexsort(whole(each, "x").T) for each in (data, memory)]
    for name in "xy":
        rows = [
            whole(each, name)[order] for each, order in zip((data, memory), orders, strict=True)
        ]
        assert np.array_equal(*rows)


@pytest.mark.filterwarnings("ignore::funcnet.datasets.DataWarning")
def test_columns_are_looked_at_to_the_end(x, tmp_path, monkeypatch):
    """One row decides, wherever it is, that columns are no classes or no labels."""
    monkeypatch.setattr(disk, "ROWS", 700)
    one_hot = np.eye(3)[np.arange(N) % 3]
    for row, value, task in (
        (0, [1, 1, 0], "multilabel"),
        (N - 1, [1, 1, 0], "multilabel"),
        (0, [0.5, 0, 0], "regression"),
        (N - 1, [0.5, 0, 0], "regression"),
    ):
        y = one_hot.copy()
        y[row] = value
        assert fn.load_arrays(save(tmp_path, x=x, y=y), memory_map="yes").task == task


def test_what_is_cut_is_a_fraction_and_goes_by_the_seed(x, tmp_path):
    save(tmp_path, x=x, y=np.arange(N) % 2)
    options = {"memory_map": "yes", "val_fraction": 0.2, "test_fraction": 0.05}
    data = fn.load_arrays(tmp_path, **options)
    assert [len(data.x_train), len(data.x_val), len(data.x_test)] == [3752, 1000, 248]
    same, other = (fn.load_arrays(tmp_path, seed=seed, **options) for seed in (0, 1))
    assert np.array_equal(data.x_val[:], same.x_val[:])
    assert not np.array_equal(data.x_val[:], other.x_val[:])
    assert not np.array_equal(data.x_val[:], x[:1000])
    none = fn.load_arrays(tmp_path, memory_map="yes", val_fraction=0.0, test_fraction=0.0)
    assert np.array_equal(none.x_train[:], x)
    assert (none.x_val.shape, none.y_val.shape) == ((0, 3), (0,))
    with raises("5,000 examples leave none for training"):
        fn.load_arrays(tmp_path, memory_map="yes", val_fraction=0.9999, test_fraction=0.0)


def test_splits_that_are_given_are_kept(x, tmp_path):
    y = np.repeat([0, 1], [N // 2, N - N // 2])
    save(tmp_path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9] + 2)
    with says("no example to train is of '2', which the test split has"):
        data = fn.load_arrays(tmp_path, memory_map="yes", val_fraction=0.0)
    assert np.array_equal(data.x_train[:], x)
    assert data.y_test[:].tolist() == [2] * 9
    with raises("the test split is given and kept as it is"):
        fn.load_arrays(tmp_path, memory_map="yes", test_fraction=0.1)


def test_large_files_stay_on_disk_and_it_is_said(x, tmp_path, monkeypatch):
    save(tmp_path, x=x, y=np.arange(N) % 2)
    assert isinstance(fn.load_arrays(tmp_path).x_train, np.ndarray)
    monkeypatch.setattr(mapped, "LARGE", x.nbytes)
    with says("58.7 KiB of examples stay on disk.*--memory-map no"):
        data = fn.load_arrays(tmp_path)
    assert isinstance(data.x_train, fn.Stored)
    assert isinstance(fn.load_arrays(tmp_path, memory_map="no").x_train, np.ndarray)
    for wrong in ("maybe", True):
        with raises("memory_map", (ValueError, TypeError)):
            fn.load_arrays(tmp_path, memory_map=wrong)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(N) % 2)
    with raises("packed: funcnet datasets convert makes shards of it"):
        fn.load_arrays(tmp_path / "x.npz", memory_map="yes")
    (tmp_path / "t.csv").write_text("a,y\n1,u\n2,v\n" * 20)
    with raises("is for arrays, and .*t.csv is a table"):
        fn.load_arrays(tmp_path / "t.csv", memory_map="yes")


@pytest.mark.parametrize("memory_map", [None, "yes", "no"])
def test_what_is_not_read_is_said_once(memory_map, x, tmp_path):
    save(tmp_path, x=x, y=np.arange(N) % 2, x_old=x, labels=np.arange(N) % 2)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        fn.load_arrays(tmp_path, memory_map=memory_map)
    (note,) = notes
    assert "'labels' not read, beside 'x', 'y'" in str(note.message)


def test_what_is_wrong_with_arrays_on_disk(x, tmp_path, rng):
    def load(**options):
        return fn.load_arrays(tmp_path, memory_map="yes", **options)

    y = np.arange(N) % 2
    save(tmp_path, x=x, y=y[:-1])
    with raises("y must have one label per example, 5000 of them, got \\[4999\\]"):
        load()
    save(tmp_path, x=x[:, 0], y=y)
    with raises("x must be \\[N, ...\\] real numbers"):
        load()
    save(tmp_path, x=x.astype(complex), y=y)
    with raises("real numbers, got \\[5000, 3\\] complex128"):
        load()
    save(tmp_path, x=x, y=np.where(np.arange(N) == 3000, np.nan, y))
    with raises("y has examples without a label: funcnet datasets convert leaves them out"):
        load()
    save(tmp_path, y=rng.normal(size=N))
    with raises("is one target: several labels are"):
        load(task="multilabel")
    save(tmp_path, y=rng.integers(3, size=(N, 3)))
    with raises("y must be 0 or 1, to be of multilabel"):
        load(task="multilabel")
    with raises("y must be a 1 and zeros in every row, to be of classification"):
        load(task="classification")
    save(tmp_path, y=np.array(["a", "b"])[y])
    with raises("holds words, which are classes and no numbers"):
        load(task="regression")


def shards(directory, x, y, **facts):
    facts = {"task": "classification", "class_names": ("a", "b"), "target_names": (), **facts}
    with Writer(directory, *facts.values(), None, shard_bytes=1000) as writer:
        weight = np.linspace(0, 1, len(x))
        writer.add("train", x[:4000], y[:4000], weight[:4000])
        writer.add("val", x[4000:], y[4000:], weight[4000:])
    return directory


def test_shards_stay_on_disk(x, tmp_path):
    y = (np.arange(N) % 2).astype(np.int32)
    path = shards(tmp_path / "shards", x, y)
    data = fn.load_arrays(path)
    assert isinstance(data.x_train, fn.Stored)
    assert np.array_equal(data.x_train[:], x[:4000])
    assert np.array_equal(data.y_val[:], y[4000:])
    assert np.array_equal(data.weight_val[:], np.linspace(0, 1, N)[4000:])
    assert data.x_test.shape == (0, 3)
    memory = fn.load_arrays(path, memory_map="no")
    assert isinstance(memory.x_train, np.ndarray)
    assert np.array_equal(memory.x_train, x[:4000])
    with raises("the val split is given"):
        fn.load_arrays(path, val_fraction=0.2)
    with raises("is of classification, and task is regression: convert it anew"):
        fn.load_arrays(path, task="regression")


def test_labels_of_shards_that_were_changed_are_refused(x, tmp_path):
    """To a compiled program -1 is the last class, and what is beyond it too."""
    for bad in (-1, 2):
        y = (np.arange(N) % 2).astype(np.int32)
        y[2000] = bad
        path = shards(tmp_path / f"shards{bad}", x, y)
        data = fn.load_arrays(path)
        data.y_train[:1900]
        with raises("y_train has something that is not from 0 to 1: it is damaged"):
            data.y_train[:]
        with raises("y_train has something that is not from 0 to 1"):
            fn.fit(
                fn.mlp([4], 2),
                fn.sgd(0.1),
                data,
                key=jax.random.key(0),
                epochs=1,
                batch_size=10,
            )


def test_weights_and_numbers_of_shards_that_were_changed_are_refused(x, tmp_path):
    facts = {"task": "regression", "class_names": ()}
    path = shards(tmp_path / "shards", x, x[:, 0].astype(np.float64), **facts)
    manifest = json.loads((path / "dataset.json").read_text())
    for kind, bad, message in (
        ("weight", -1, "weight_train must be >= 0 and at most 9e\\+37, but some are not"),
        ("weight", np.nan, "weight_train must be >= 0 and at most 9e\\+37, but some are not"),
        ("y", np.nan, "y_train must be finite, but row 3 of"),
    ):
        file = path / manifest["splits"]["train"][1][kind]
        good = np.load(file)
        rows = good.copy()
        rows[3] = bad
        np.save(file, rows)
        with raises(message):
            getattr(fn.load_arrays(path), f"{kind}_train")[:]
        np.save(file, good)


def test_a_fingerprint_goes_by_the_files(x, tmp_path):
    y = np.arange(N) % 2
    prints = []
    for change in range(3):
        again = x.copy()
        again[0, 0] += change
        directory = tmp_path / str(change // 2)
        directory.mkdir(exist_ok=True)
        data = fn.load_arrays(save(directory, x=again, y=y), memory_map="yes")
        prints.append(fn.datasets.dataset.fingerprint(data))
    one, two, three = prints
    assert len({one, two, three}) == 3
    other = fn.load_arrays(tmp_path / "1", memory_map="yes", seed=1)
    assert fn.datasets.dataset.fingerprint(other) != three
    path = shards(tmp_path / "shards", x, y.astype(np.int32))
    known = fn.datasets.dataset.fingerprint(fn.load_arrays(path))
    manifest = json.loads((path / "dataset.json").read_text())
    manifest["digest"] = "0" * 64
    (path / "dataset.json").write_text(json.dumps(manifest))
    assert fn.datasets.dataset.fingerprint(fn.load_arrays(path)) != known


@pytest.mark.parametrize("value", [1e300, -1.0, np.nan])
def test_weights_of_shards_are_such_as_others(value, x, tmp_path):
    path = shards(tmp_path / "shards", x, (np.arange(N) % 2).astype(np.int32))
    file = path / "weight_val-00001.npy"
    np.save(file, np.where(np.arange(len(np.load(file))) == 2, value, np.load(file)))
    data = fn.load_arrays(path)
    list(data.weight_train.parts())
    with raises("weight_val must be >= 0 and at most 9e\\+37"):
        list(data.weight_val.parts())


@pytest.mark.parametrize("kind", ["x", "y", "weight"])
def test_a_shard_that_was_changed_in_its_place_is_other_data(kind, x, tmp_path):
    path = shards(tmp_path / "shards", x, (np.arange(N) % 2).astype(np.int32))
    known = fn.datasets.dataset.fingerprint(fn.load_arrays(path))
    assert fn.datasets.dataset.fingerprint(fn.load_arrays(path)) == known
    file = path / f"{kind}_train-00003.npy"
    np.save(file, np.roll(np.load(file), 1, axis=0))
    assert fn.datasets.dataset.fingerprint(fn.load_arrays(path)) != known


def test_what_wants_all_in_memory_says_so(x, tmp_path):
    data = fn.load_arrays(save(tmp_path, x=x, y=np.arange(N) % 2), memory_map="yes")
    with raises('needs them in memory: load_arrays\\(..., memory_map="no"\\)'):
        fn.sweep(lambda: None, data, [{}], epochs=1, batch_size=8)
    with raises("x_train and y_train must both be in memory", TypeError):
        mixed = data._replace(y_train=data.y_train[:])
        fn.fit(fn.mlp([4], 2), fn.sgd(0.1), mixed, epochs=1, batch_size=8)


@pytest.mark.parametrize("of_shards", [False, True])
@pytest.mark.parametrize("value", [1e300, -1e39])
def test_what_is_infinite_where_it_is_computed_is_an_error(value, of_shards, x, tmp_path):
    x, y = x.astype(np.float64), (np.arange(N) % 2).astype(np.int32)
    x[700, 1] = value
    if of_shards:
        data = fn.load_arrays(shards(tmp_path / "shards", x, y))
    else:
        data = fn.load_arrays(save(tmp_path, x=x, y=y), memory_map="yes", val_fraction=0)
    message = r"must be finite in float32, but row [\d,]+ of .*npy in .* has "
    with raises(message + str(value).replace("+", r"\+")):
        list(data.x_train.parts())
    with jax.enable_x64(True):
        list(data.x_train.parts())


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="there is no longer one")
def test_numbers_of_more_bits_become_float64(x, tmp_path):
    save(tmp_path, x=x.astype(np.longdouble), y=np.arange(N) % 2)
    data = fn.load_arrays(tmp_path, memory_map="yes", val_fraction=0, test_fraction=0)
    assert data.x_train.dtype == np.float64
    assert np.array_equal(data.x_train[:], x)
