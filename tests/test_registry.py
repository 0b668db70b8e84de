"""The registry of datasets, loading by name or path, and what holds of any Dataset."""

import inspect

import numpy as np
import pytest

from funcnet import datasets
from funcnet.datasets import (
    Dataset,
    check_dataset,
    find_cifar10,
    load_arrays,
    load_cifar10,
    load_dataset,
    load_digits,
)
from funcnet.datasets.dataset import fingerprint, first
from funcnet.datasets.registry import DATASETS, FILE_OPTIONS, is_file


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


def check_same(left, right):
    assert left.class_names == right.class_names
    for a, b in zip(left[:6], right[:6], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No data in the places of whoever runs the tests, and a directory of one's own."""
    monkeypatch.delenv("FUNCNET_DATA", raising=False)
    for variable in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cifar10(tmp_path):
    """A directory with six files of black airplanes."""
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        with (folder / f"{name}.bin").open("wb") as file:
            file.truncate(30_730_000)
    return folder.parent


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("kind,a\n" + "".join(f"{'xyz'[i % 3]},{i * i}\n" for i in range(60)))
    return path


# The entries


def test_every_loader_is_in_the_registry():
    """A loader of datasets.__all__ is of an entry, or of what the user has."""
    loaders = {name.removeprefix("load_") for name in datasets.__all__ if name.startswith("load_")}
    assert loaders - {"arrays", "images", "table", "dataset"} == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_entries_are_complete(name):
    source = DATASETS[name]
    assert source.name == name
    assert source.title
    assert len(source.about) <= 60
    assert "\n" not in source.about
    functions = [source.load, *filter(None, (source.find, source.download))]
    assert len(functions) == (3 if source.takes_directory else 1)
    for function in functions:
        parameter = inspect.signature(function).parameters["root"]
        assert parameter.default is None


@pytest.mark.parametrize("name", [name for name in DATASETS if not DATASETS[name].takes_directory])
def test_what_is_built_in_loads(name):
    data = DATASETS[name].load()
    check_dataset(data)
    check_same(data, getattr(datasets, f"load_{name}")())
    check_same(data, load_dataset(name))
    assert f"{sum(map(len, data[1:6:2])):,}" in DATASETS[name].about


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].takes_directory])
def test_what_is_not_there_says_how_to_get_it(name, tmp_path):
    assert DATASETS[name].find() is None
    assert DATASETS[name].find(tmp_path) is None
    for load in (DATASETS[name].load, lambda: load_dataset(name)):
        with raises(rf"to get it: funcnet datasets download {name}; .*\$F", FileNotFoundError):
            load()


@pytest.mark.slow
def test_cifar10_of_a_directory(cifar10, monkeypatch):
    source = DATASETS["cifar10"]
    expected = load_cifar10(cifar10)
    check_same(source.load(cifar10), expected)
    check_same(load_dataset("cifar10", data_dir=str(cifar10)), expected)
    folder = cifar10 / "cifar-10-batches-bin"
    assert source.find(cifar10) == find_cifar10(cifar10) == source.download(cifar10) == folder
    monkeypatch.setenv("FUNCNET_DATA", str(cifar10))
    assert source.find() == folder
    check_same(load_dataset("cifar10", data_dir=None, label=None), expected)


# By name or path


def test_file_options_are_of_load_arrays():
    assert (
        *("label", "task", "weight", "header", "separator", "decimal", "columns", "drop"),
        *("categorical", "group", "split_by", "memory_map", "val_fraction", "test_fraction"),
        "image_size",
    ) == FILE_OPTIONS


def test_load_dataset_of_a_file(table):
    options = {"label": "kind", "val_fraction": 0.2, "test_fraction": 0}
    expected = load_arrays(table, **options)
    assert [len(y) for y in expected[1:6:2]] == [48, 12, 0]
    for path in (table, str(table), "table.csv", "./table.csv"):
        check_same(load_dataset(path, **options), expected)
    nothing = dict.fromkeys(FILE_OPTIONS)
    check_same(load_dataset(table, **nothing | {"label": "kind"}), load_arrays(table, label="kind"))


def test_load_dataset_of_npy_files(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "x.npy", np.arange(20)[:, None])
    np.save(folder / "y.npy", np.arange(20) % 2)
    for path in ("mine", folder / "x.npy", "mine/x.npy"):
        check_same(load_dataset(path, test_fraction=0.2), load_arrays(folder, test_fraction=0.2))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("digit", {}, "unknown dataset 'digit': did you mean 'digits'.*known: cifar10, digits"),
        ("cifar-10", {"data_dir": "."}, "did you mean 'cifar10'"),
        ("digits", {"label": "a"}, "^label is for files, not for digits$"),
        ("cifar10", {"test_fraction": 0.1}, "^test_fraction is for files, not for cifar10$"),
        ("digits", {"data_dir": "."}, "^data_dir is for cifar10, not for digits$"),
        ("table.csv", {"data_dir": "."}, r"^data_dir is for cifar10, not for table\.csv$"),
        ("table.csv", {"lable": "a"}, "unknown option 'lable': did you mean 'label'"),
        ("digits", {"val_fractions": None}, "did you mean 'val_fraction'"),
        (
            "table.csv",
            {"image_size": (2, 2)},
            r"image_size is for folders of images, not for table",
        ),
        ("table.csv", {"seed": 1}, "unknown option 'seed'"),
        ("table.csv", {"val_fraction": 1}, "val_fraction must be >= 0 and < 1, got 1"),
    ],
)
def test_load_dataset_refuses(table, name, options, match):
    with raises(match):
        load_dataset(name, **options)


def test_load_dataset_of_no_file():
    for name in ("missing.npz", "missing.csv", "some/table"):
        with raises(name, FileNotFoundError):
            load_dataset(name)


def test_is_file(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "cifar10").mkdir()
    for name in ("a.npz", "a.csv", "plain", "a.npy", "a.parquet", "-", "folder/a", "./digits"):
        assert is_file(name)
    assert is_file("folder")
    for name in ("digits", "cifar10", "nothing", ""):
        assert not is_file(name)


# Of any Dataset


def small(**changes):
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2, 1], np.int32)
    return Dataset(x, y, x[:2], y[:2], x[:1], y[:1], ("a", "b", "c"))._replace(**changes)


def test_fingerprint_is_as_it_was():
    """It stands in runs that are resumed."""
    digits = "7adec83907417f2fed37b74f78d8c8227ce3a51883317cb4a6edfa4cb2680e34"
    assert fingerprint(load_digits()) == digits
    empty = Dataset(*[np.zeros((0, 2))] * 6, ("é", "b"))
    expected = "03206423417ba13f20686455ef6f526d535b8dd0ba16134b39b5ce8b796a3210"
    assert fingerprint(empty) == expected


def test_fingerprint_tells_datasets_apart():
    data = small()
    x, y = data.x_train, data.y_train
    others = [
        data,
        small(x_train=x + (x == 5)),
        small(x_train=x.astype(np.float32)),
        small(x_train=x.reshape(4, 3, 1)),
        small(y_train=y[::-1]),
        small(x_val=x[:1], y_val=y[:1], x_test=x[:2], y_test=y[:2]),
        small(class_names=("a", "b", "d")),
    ]
    assert len({fingerprint(other) for other in others}) == len(others)
    assert fingerprint(small(x_train=np.asfortranarray(x))) == fingerprint(data)


def test_first():
    data = small()
    check_same(first(data, None, "count"), data)
    check_same(first(data, 4, "count"), data)
    check_same(first(data, 2, "count"), small(x_train=data.x_train[:2], y_train=data.y_train[:2]))


@pytest.mark.parametrize(
    ("count", "kind", "match"),
    [
        (5, ValueError, "^--few is 5, but there are only 4 training examples$"),
        (0, ValueError, "--few must be at least 1"),
        (2.0, TypeError, "--few must be an integer"),
        (True, TypeError, "--few must be an integer"),
    ],
)
def test_first_refuses(count, kind, match):
    with raises(match, kind):
        first(small(), count, "--few")
