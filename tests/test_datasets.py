"""The built-in digits, hand-made Datasets, the user's own files."""

import os
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet.datasets import (
    Dataset,
    check_dataset,
    load_arrays,
    load_digits,
    read_inputs,
)


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


# Digits


def test_digits_shapes_and_ranges():
    digits = load_digits()
    lengths = [len(digits.x_train), len(digits.x_val), len(digits.x_test)]
    assert lengths == [1248, 181, 368]
    for x, y in zip(digits[:6:2], digits[1:6:2], strict=True):
        assert x.dtype == np.uint8
        assert x.shape == (len(y), 8, 8)
        assert y.dtype == np.int32
    assert digits.class_names == tuple("0123456789")
    pixels = np.concatenate(digits[:6:2])
    assert (pixels.min(), pixels.max()) == (0, 16)


def test_digits_split_is_stratified_and_repeats():
    digits = load_digits()
    train, val, test = (np.bincount(y, minlength=10) for y in digits[1:6:2])
    total = train + val + test
    assert list(total) == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert list(test) == [2 * (n // 10) + min(n % 10, 2) for n in total]
    assert list(val) == [n // 10 + (n % 10 > 2) for n in total]
    for a, b in zip(digits[:6], load_digits()[:6], strict=True):
        np.testing.assert_array_equal(a, b)


def test_digits_match_the_published_file():
    sklearn = pytest.importorskip("sklearn.datasets")
    x, y = sklearn.load_digits(return_X_y=True)
    digits = load_digits()
    for label in range(10):
        images = x[y == label].reshape(-1, 8, 8)
        place = np.arange(len(images)) % 10
        np.testing.assert_array_equal(digits.x_test[digits.y_test == label], images[place < 2])
        np.testing.assert_array_equal(digits.x_val[digits.y_val == label], images[place == 2])
        np.testing.assert_array_equal(digits.x_train[digits.y_train == label], images[place > 2])


# check_dataset


def small(**changes):
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2, 1])
    return Dataset(x, y, x[:2], y[:2], x[:1], y[:1], ("a", "b", "c"))._replace(**changes)


def test_check_dataset_accepts_and_converts():
    checked = check_dataset(small(x_val=[[1, 2, 3]], y_val=[2], class_names=["a", "b", "c"]))
    assert checked.class_names == ("a", "b", "c")
    assert checked.y_train.dtype == checked.y_val.dtype == np.int32
    np.testing.assert_array_equal(checked.x_val, [[1, 2, 3]])
    assert check_dataset(load_digits()).x_train.dtype == np.uint8


@pytest.mark.parametrize("empty", [[], np.empty((0, 3))])
def test_check_dataset_allows_empty_validation_and_test(empty):
    checked = check_dataset(small(x_val=empty, y_val=[], x_test=empty, y_test=[]))
    assert checked.x_val.shape == checked.x_test.shape == (0, 3)
    assert checked.y_val.shape == checked.y_test.shape == (0,)
    assert checked.y_val.dtype == np.int32


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x_train": np.empty((0, 3)), "y_train": []}, "x_train is empty"),
        ({"x_train": np.full((4, 3), np.nan)}, "x_train must be finite"),
        ({"x_val": np.zeros((2, 4))}, r"x_val has examples of shape \[4\], expected \[3\]"),
        ({"x_test": np.zeros((1, 3, 1))}, "x_test has examples of shape"),
        ({"x_test": np.zeros((0, 4)), "y_test": []}, "x_test"),
        ({"y_train": [0, 1, 2]}, r"y_train must have one label per example, shape \[4\]"),
        ({"y_train": [0, 1, 2, 3]}, r"y_train must hold labels 0 to 2, but y_train\[3\] is 3"),
        ({"y_val": [0, -1]}, "y_val must hold labels 0 to 2"),
        ({"y_test": [0.5]}, "y_test must hold whole numbers"),
        ({"x_val": [], "y_val": [1]}, "y_val must have one label per example"),
        ({"class_names": ()}, "class_names is empty"),
    ],
)
def test_check_dataset_refuses(changes, match):
    with raises(match):
        check_dataset(small(**changes))


@pytest.mark.parametrize("names", ["abc", None, ("a", "b", 3)])
def test_check_dataset_refuses_class_names(names):
    with raises("class_names must be a tuple of strings", TypeError):
        check_dataset(small(class_names=names))


def test_check_dataset_refuses_other_things():
    with raises("must be a Dataset, got tuple", TypeError):
        check_dataset(tuple(small()))


# .npz


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def numbered(n, classes):
    """n examples whose values tell which they are, and labels of sizes that differ."""
    return np.arange(n * 2).reshape(n, 1, 2), np.sqrt(np.arange(n) * classes**2 // n).astype(int)


def test_npz_keeps_dtype_shape_and_every_example_once(tmp_path):
    x, y = numbered(100, 4)
    for dtype in (np.uint8, np.float32, np.float64, np.int64):
        path = save(tmp_path / "data.npz", x=x.astype(dtype), y=y)
        data = load_arrays(path)
        assert data.x_train.dtype == dtype
        assert [len(y) for y in data[1:6:2]] == [80, 10, 10]
        assert data.x_train.shape == (80, 1, 2)
        seen = np.concatenate(data[:6:2])[:, 0, 0]
        np.testing.assert_array_equal(np.sort(seen), x[:, 0, 0])
        np.testing.assert_array_equal(np.concatenate(data[1:6:2]), y[seen.astype(int) // 2])
        assert data.y_train.dtype == np.int32
        assert data.class_names == ("0", "1", "2", "3")
        check_dataset(data)


def test_classes_are_the_labels_that_occur(tmp_path):
    path = save(tmp_path / "data.npz", x=np.zeros((4, 2)), y=np.array([0, 0, 3, 3]))
    assert load_arrays(path).class_names == ("0", "3")


def test_npz_whole_number_floats_are_labels(tmp_path):
    path = save(tmp_path / "data.npz", x=np.zeros((4, 2)), y=np.array([0.0, 1, 0, 1]))
    assert load_arrays(path, val_fraction=0, test_fraction=0).y_train.sum() == 2


def object_array():
    return np.array([[1, 2], [None, 3]], dtype=object)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (
            {"images": np.zeros((2, 2)), "y": [0, 1]},
            "no array 'x' with its labels 'y', the arrays in it: 'images', 'y'",
        ),
        (
            {"x": np.zeros((2, 2)), "labels": [0, 1]},
            "no array 'x' with its labels 'y', the arrays in it: 'x', 'labels'",
        ),
        ({}, "no array 'x' .*, the arrays in it: none"),
        ({"x": object_array(), "y": [0, 1]}, "Python objects, which would need unpickling"),
        ({"x": np.zeros((2, 2)), "y": object_array()}, "Python objects"),
        ({"x": np.zeros((2, 2)), "y": [0, 1, 1]}, "one label per example"),
        ({"x": np.zeros((2, 2)), "y": [[0, 1]]}, "one label per example"),
        ({"x": np.zeros(2), "y": [0, 1]}, "a batch of examples"),
        ({"x": np.zeros((0, 2)), "y": []}, "x is empty"),
        ({"x": [[np.inf, 0.0], [0, 0]], "y": [0, 1]}, "x must be finite"),
        ({"x": [["a", "b"], ["c", "d"]], "y": [0, 1]}, "real numbers"),
    ],
)
def test_npz_refuses(tmp_path, arrays, match):
    path = save(tmp_path / "data.npz", **arrays)
    with raises(rf"data\.npz.*{match}"):
        load_arrays(path)


def test_npz_damaged(tmp_path):
    x, y = numbered(200, 3)
    whole = save(tmp_path / "whole.npz", x=x, y=y).read_bytes()
    path = tmp_path / "data.npz"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"", b"x,y\n1,2\n", whole[: len(whole) // 2], whole[:-10], bytes(flipped)):
        path.write_bytes(content)
        with raises(r"data\.npz cannot be read as \.npz"):
            load_arrays(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_raise_one_line_value_errors(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from([".npz", ".npy"]))
    path = tmp_path_factory.mktemp("damaged") / f"data{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, x=np.eye(3))
    else:
        np.save(path, np.eye(3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    message = ""
    try:
        read_inputs(path)
    except ValueError as error:
        message = str(error)
    assert "\n" not in message
    assert message == "" or "data.np" in message


class Malice:
    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_nothing_is_unpickled(tmp_path):
    malice = Malice()
    malice.path = str(tmp_path / "unpickled")
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([[malice]], dtype=object), y=np.array([0]))
    for read in (load_arrays, read_inputs):
        with raises("Python objects"):
            read(path)
    path = tmp_path / "data.npy"
    np.save(path, np.array([[malice]], dtype=object))
    with raises("Python objects"):
        read_inputs(path)
    path.write_bytes(pickle.dumps(malice))
    with raises("cannot be read as .npy"):
        read_inputs(path)
    path = tmp_path / "data.npz"
    path.write_bytes(pickle.dumps(malice))
    with raises("cannot be read as .npz"):
        load_arrays(path)
    assert not (tmp_path / "unpickled").exists()


# The split


def labels_of(data):
    return [list(np.bincount(y, minlength=len(data.class_names))) for y in data[1:6:2]]


def test_split_gives_each_class_its_share(tmp_path):
    y = np.repeat([0, 1, 2], [500, 100, 20])
    path = save(tmp_path / "data.npz", x=np.zeros((620, 1)), y=y)
    train, val, test = labels_of(load_arrays(path, val_fraction=0.1, test_fraction=0.2))
    assert np.abs(np.subtract(val, [50, 10, 2])).max() <= 1
    assert np.abs(np.subtract(test, [100, 20, 4])).max() <= 1
    assert (sum(train), sum(val), sum(test)) == (434, 62, 124)


def test_split_of_few_examples_of_many_classes(tmp_path):
    path = save(tmp_path / "data.npz", x=np.zeros((40, 1)), y=np.arange(40) % 10)
    train, val, test = labels_of(load_arrays(path))
    assert (sum(val), sum(test)) == (4, 4)
    assert max(np.add(val, test)) == 1
    assert min(train) >= 3


def test_rare_classes_stay_in_training(tmp_path):
    y = np.repeat([0, 1, 2, 3], [50, 50, 1, 2])
    path = save(tmp_path / "data.npz", x=np.zeros((103, 1)), y=y)
    for seed in range(10):
        data = load_arrays(path, val_fraction=0.3, test_fraction=0.3, seed=seed)
        assert min(labels_of(data)[0]) >= 1


def test_split_depends_on_the_seed_alone(tmp_path):
    x, y = numbered(60, 3)
    path = save(tmp_path / "data.npz", x=x, y=y)
    first, again = load_arrays(path, seed=3), load_arrays(path, seed=3)
    np.random.seed(0)
    third = load_arrays(path, seed=3)
    for a, b, c in zip(first[:6], again[:6], third[:6], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    other = load_arrays(path, seed=4)
    assert set(first.x_test[:, 0, 0]) != set(other.x_test[:, 0, 0])


def test_split_is_shuffled(tmp_path):
    x, y = numbered(60, 3)
    data = load_arrays(save(tmp_path / "data.npz", x=x, y=y))
    for split in data[:6:2]:
        values = split[:, 0, 0]
        assert not (np.diff(values) > 0).all()
    # Labels are in no order either: not grouped, and each class is in each half.
    half = len(data.y_train) // 2
    assert set(data.y_train[:half]) == set(data.y_train[half:]) == {0, 1, 2}


def test_split_fractions(tmp_path):
    path = save(tmp_path / "data.npz", x=np.zeros((10, 2)), y=np.arange(10) % 2)
    data = load_arrays(path, val_fraction=0, test_fraction=0)
    assert data.x_val.shape == data.x_test.shape == (0, 2)
    assert len(data.x_train) == 10
    check_dataset(data)
    data = load_arrays(path, val_fraction=0.5, test_fraction=0.4)
    assert [len(y) for y in data[1:6:2]] == [1, 5, 4]


@settings(max_examples=100, deadline=None)
@given(
    y=st.lists(st.integers(0, 5), min_size=2, max_size=60),
    val=st.floats(0, 0.45),
    test=st.floats(0, 0.45),
    seed=st.integers(0, 5),
)
def test_split_is_a_partition(tmp_path_factory, y, val, test, seed):
    path = tmp_path_factory.mktemp("split") / "data.npz"
    np.savez(path, x=np.arange(len(y))[:, None], y=np.array(y))
    sizes = [round(len(y) * val), round(len(y) * test)]
    load = partial(load_arrays, path, task="classification", seed=seed)
    if sum(sizes) >= len(y):
        with raises("leave none for training"):
            load(val_fraction=val, test_fraction=test)
        return
    data = load(val_fraction=val, test_fraction=test)
    assert sorted(np.concatenate(data[:6:2])[:, 0]) == list(range(len(y)))
    assert [len(data.y_val), len(data.y_test)] == sizes


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"val_fraction": -0.1}, "val_fraction must be >= 0"),
        ({"test_fraction": 1}, "test_fraction must be .*< 1"),
        ({"val_fraction": float("nan")}, "val_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "must be below 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_split_refuses(tmp_path, options, match):
    path = save(tmp_path / "data.npz", x=np.zeros((4, 2)), y=[0, 1, 0, 1])
    with raises(match):
        load_arrays(path, **options)


def test_split_refuses_types(tmp_path):
    with raises("seed must be an integer", TypeError):
        load_arrays(tmp_path / "data.npz", seed=0.5)
    with raises("test_fraction must be a number", TypeError):
        load_arrays(tmp_path / "data.npz", test_fraction="a tenth")
    with raises("label must be the name", TypeError):
        load_arrays(tmp_path / "data.csv", label=2)


def test_split_of_too_few(tmp_path):
    path = save(tmp_path / "data.npz", x=np.zeros((1, 2)), y=[0])
    assert len(load_arrays(path).x_train) == 1
    with raises("1 example leave none|none for training"):
        load_arrays(path, test_fraction=0.6)


# Other files


def test_other_files(tmp_path):
    for read in (load_arrays, read_inputs):
        for name in ("a.npz", "a.csv", "a.txt", "a.parquet", "a"):
            with raises(name, FileNotFoundError):
                read(tmp_path / name)
        with raises("label='y' is for tables, but .*a.npz holds arrays"):
            read(tmp_path / "a.npz", label="y")


# read_inputs


def test_read_inputs_from_arrays(tmp_path):
    x = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["anything"]))
    for name in ("a.npy", "a.npz"):
        read = read_inputs(tmp_path / name)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, x)
    np.savez(tmp_path / "object.npz", x=x, y=object_array())
    np.testing.assert_array_equal(read_inputs(tmp_path / "object.npz"), x)


def test_read_inputs_refuses_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.zeros((2, 2)))
    with raises("no array 'x', the arrays in it: 'pictures'"):
        read_inputs(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with raises(r"a\.npy: x must be .*a batch of examples"):
        read_inputs(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.full((1, 2), np.nan))
    with raises(r"a\.npy: x must be finite"):
        read_inputs(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npz").read_bytes())
    with raises(r"a\.npy cannot be read as \.npy"):
        read_inputs(tmp_path / "a.npy")
