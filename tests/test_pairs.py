"""Arrays by the names that people give them, splits that are given, files not to be trusted."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet.datasets import DataWarning, check_dataset, limits, load_arrays, read_inputs
from funcnet.datasets.classes import joint_classes
from funcnet.datasets.names import Role, role


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


def says(match):
    return pytest.warns(DataWarning, match=r"(?s)\A(?!.*\n).*" + match)


def numbered(start, count, classes=2):
    """Examples whose values tell which they are, and their labels."""
    x = np.arange(start, start + count, dtype=np.uint8)[:, None]
    return x, np.arange(count) % classes


def savez(path, *splits, classes=2):
    """A .npz of pairs of names, of 20, 6 and 4 examples; and the arrays."""
    arrays = {}
    for i, (x, y) in enumerate(splits):
        arrays[x], arrays[y] = numbered(50 * i, (20, 6, 4)[i], classes)
    np.savez(path, **arrays)
    return arrays


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x", Role("x", 0, None)),
        ("Y", Role("y", 0, None)),
        ("x_train", Role("x", 0, "train")),
        ("train_x", Role("x", 0, "train")),
        ("yVal", Role("y", 0, "val")),
        ("Y-valid", Role("y", 0, "val")),
        ("trainX", Role("x", 0, "train")),
        ("test_images", Role("x", 1, "test")),
        ("labels.validation", Role("y", 1, "val")),
        ("TARGET", Role("y", 1, None)),
        ("x_", None),
        ("ax", None),
        ("x_train_2", None),
        ("train", None),
        ("target_names", None),
        ("train_x_test", None),
    ],
)
def test_role(name, expected):
    assert role(name) == expected


@pytest.mark.parametrize(
    "names",
    ["x y", "X Y", "X y", "data target", "images labels", "features labels", "inputs targets"],
)
def test_one_pair_is_split(tmp_path, names):
    path = tmp_path / "a.npz"
    x, y = names.split()
    arrays = savez(path, (x, y))
    data = check_dataset(load_arrays(path))
    assert [len(part) for part in data[1:6:2]] == [16, 2, 2]
    seen = np.concatenate(data[:6:2])[:, 0]
    np.testing.assert_array_equal(np.concatenate(data[1:6:2]), arrays[y][seen])
    np.testing.assert_array_equal(read_inputs(path), arrays[x])


@pytest.mark.parametrize(
    "names",
    [
        "x_train y_train x_val y_val x_test y_test",
        "X_train y_train X_valid y_valid X_test y_test",
        "train_x train_y valid_x valid_y test_x test_y",
        "train_images train_labels val_images val_labels test_images test_labels",
        "dataTrain targetTrain dataValidation targetValidation dataTest targetTest",
    ],
)
@pytest.mark.parametrize("which", ["train val test", "train test", "train val", "train"])
def test_given_splits_are_kept_and_the_rest_is_cut(tmp_path, names, which):
    names, path = names.split(), tmp_path / "a.npz"
    pairs = dict(
        zip(("train", "val", "test"), zip(names[::2], names[1::2], strict=True), strict=True)
    )
    which = which.split()
    # In the order in which they happen to be.
    arrays = savez(path, *[pairs[split] for split in reversed(which)])
    data = check_dataset(load_arrays(path))
    total = len(arrays[pairs["train"][0]])
    for i, split in enumerate(("train", "val", "test")):
        x, y = pairs[split]
        if split in which and (split != "train" or len(which) == 3):
            np.testing.assert_array_equal(data[2 * i], arrays[x])
            np.testing.assert_array_equal(data[2 * i + 1], arrays[y])
        elif split != "train":
            assert len(data[2 * i]) == round(total / 10)
    cut = [data[2 * i][:, 0] for i, s in enumerate(pairs) if s == "train" or s not in which]
    x, y = pairs["train"]
    np.testing.assert_array_equal(np.sort(np.concatenate(cut)), arrays[x][:, 0])


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ("x y X Y", "'x' with 'y' and 'x' with 'Y' and .*rename those not to learn from"),
        ("data target images label", "'data' with 'target'.*'images' with 'label'"),
        ("x_train y_train x_val y_val x_valid y_valid", "'x_val' with 'y_val'.* 'x_valid'"),
        ("x y x_test y_test", "rename those of no split, to 'x_train' and 'y_train'"),
        ("x_test y_test", "'x_test' with 'y_test', but none to train on"),
        ("x_train y_train x_test", "'x_test', but no labels of a name that goes with it"),
        ("x_train y_train label_test", "'label_test', but no examples of a name"),
        ("x y y_val", "'y_val', but no examples"),
        ("images y", "no array 'x' with its labels 'y'"),
        (" ".join(f"a{i}" for i in range(30)), "'a11' and 18 more;"),
    ],
)
def test_what_is_ambiguous_or_half_is_refused(tmp_path, names, match):
    names = names.split()
    x, y = numbered(0, 10)
    np.savez(tmp_path / "a.npz", **{name: y if name[0] in "yYlt" else x for name in names})
    with raises(rf"a\.npz has .*{match}"):
        load_arrays(tmp_path / "a.npz")


def test_what_is_not_read_is_said(tmp_path):
    x, y = numbered(0, 10)
    np.savez(tmp_path / "a.npz", x=x, y=y, images=x, ids=y)
    with says(r"a\.npz: 'images' not read, beside 'x', 'y'"):
        load_arrays(tmp_path / "a.npz")


def test_a_fraction_of_what_is_given_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    savez(path, ("x_train", "y_train"), ("x_test", "y_test"))
    for value in (0, 0.1):
        with raises(rf"a\.npz: test_fraction is {value}, .*leave test_fraction out \(--test-frac"):
            load_arrays(path, test_fraction=value)
    assert [len(y) for y in load_arrays(path, val_fraction=0)[1:6:2]] == [20, 0, 6]
    assert [len(y) for y in load_arrays(path, val_fraction=0.95)[1:6:2]] == [1, 19, 6]
    savez(path, ("x_train", "y_train"), ("x_val", "y_val"))
    with raises("val_fraction is 0.2, but the val split is given"):
        load_arrays(path, val_fraction=0.2)


# What is in the splits


def test_classes_are_those_of_all_splits(tmp_path):
    path = tmp_path / "a.npz"
    x, _ = numbered(0, 4)
    labels = {"y_train": np.array(["b", "c", "b", "c"]), "y_val": np.array(["c"] * 4)}
    np.savez(path, x_train=x, x_val=x, x_test=x, **labels, y_test=np.array(["a", "b", "", "b"]))
    with pytest.warns(DataWarning) as notes:
        data = load_arrays(path)
    assert [str(note.message) for note in notes] == [
        f"{path}: 1 example without a label in y_test left out",
        f"{path}: no example to train is of 'a', which the test split has",
    ]
    assert data.class_names == ("a", "b", "c")
    assert [y.tolist() for y in data[1:6:2]] == [[1, 2, 1, 2], [2] * 4, [0, 1, 1]]


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        ([1, 2], [2.0, 1.0], ("1", "2")),
        ([1, 2], ["2", "01"], ("1", "2")),
        ([b"a", "b"], [b"b", b"a"], ("a", "b")),
        ([True, False], [0, 1], ("0", "1")),
        ([True, False], [0.0, 1], ("0", "1")),
        (np.array([2**63], np.uint64), [2**62], (str(2**62), str(2**63))),
        ([[3], [1]], [1, 3], ("1", "3")),
        ([[0.0, 1], [1, 0]], [[True, False], [False, True]], ("0", "1")),
    ],
)
def test_labels_of_other_dtypes_are_the_same_classes(train, test, names):
    y, found = joint_classes({"y_train": np.array(train), "y_test": np.array(test)})
    assert found == names
    assert [len(part) for part in y] == [len(train), len(test)]
    if len(train) == 2:
        np.testing.assert_array_equal(y[0], y[1][::-1])


@pytest.mark.parametrize(
    ("train", "test", "match"),
    [
        ([0, 1], [[0, 1], [1, 0]], r"y_train is \[2\], but y_test is \[2, 2\]"),
        ([[0, 1], [1, 0]], [[0, 1, 0]], r"y_test is \[1, 3\]: give the labels of all splits"),
        ([0.0, 1], [1, np.inf], r"y_test\[1\] is inf"),
        ([0, 1], [1j], "y_test must hold labels"),
    ],
)
def test_labels_that_do_not_go_together(train, test, match):
    with raises(match):
        joint_classes({"y_train": np.array(train), "y_test": np.array(test)})


def test_examples_that_do_not_go_together(tmp_path):
    path = tmp_path / "a.npz"
    x, y = numbered(0, 10)
    np.savez(path, x_train=x, y_train=y, x_test=np.zeros((10, 2)), y_test=y)
    with raises(r"a\.npz: x_test has examples of shape \[2\], x_train of \[1\]"):
        load_arrays(path)
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y)
    with raises(r"a\.npz: y_test must have one label per example, 2 of them, got \[10\]"):
        load_arrays(path)
    np.savez(path, x_train=x, y_train=y, x_test=x / 255, y_test=y)
    with says("examples to train are uint8, those of the test split float64: are they of one"):
        load_arrays(path)


# To predict from


@pytest.mark.parametrize(
    ("names", "which"),
    [("x", "x"), ("Features labels", "Features"), ("x_test y_test", "x_test"), ("valX", "valX")],
)
def test_read_inputs_under_any_name(tmp_path, names, which):
    np.savez(tmp_path / "a.npz", **{name: [[len(name)]] for name in names.split()})
    assert read_inputs(tmp_path / "a.npz").tolist() == [[len(which)]]


def test_read_inputs_says_which_it_takes_or_refuses(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=[[1]], x_val=[[2]], x_test=[[3]])
    with says("'x_test' is read, of 'x_train', 'x_val', 'x_test'"):
        assert read_inputs(path).tolist() == [[3]]
    for names in (["x_train", "x_val"], ["x", "data"], ["x_test", "test_x"]):
        np.savez(path, **{name: [[1]] for name in names})
        with raises(f"a.npz has '{names[0]}', '{names[1]}': rename those not to predict from"):
            read_inputs(path)


# .npy side by side


def save_all(directory, arrays):
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)


@pytest.mark.parametrize("names", ["x y", "X y", "data target", "images labels"])
def test_npy_with_its_labels_beside_it(tmp_path, names):
    first, second = names.split()
    x, y = numbered(0, 20)
    save_all(tmp_path, {first: x, second: y, "other": y})
    for path in (tmp_path / f"{first}.npy", tmp_path):
        data = load_arrays(path)
        assert sorted(np.concatenate(data[:6:2])[:, 0]) == list(range(20))
    np.testing.assert_array_equal(read_inputs(tmp_path), x)
    with raises(r"\.npy: to learn from \.npy files give the examples, named as x\.npy with y\.npy"):
        load_arrays(tmp_path / f"{second}.npy")


def test_npy_of_splits(tmp_path):
    arrays = savez(tmp_path / "a.npz", ("x_train", "y_train"), ("x_test", "y_test"))
    save_all(tmp_path, arrays)
    expected = load_arrays(tmp_path / "a.npz")
    for path in (tmp_path / "x_train.npy", tmp_path / "x_test.npy", tmp_path):
        for a, b in zip(load_arrays(path), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    with says("'x_test' is read"):
        np.testing.assert_array_equal(read_inputs(tmp_path), arrays["x_test"])
    np.testing.assert_array_equal(read_inputs(tmp_path / "x_train.npy"), arrays["x_train"])


def test_the_npy_that_is_named_is_the_one_that_is_read(tmp_path):
    x, y = numbered(0, 20)
    save_all(tmp_path, {"images": x, "features": x + 100, "labels": y, "x": x, "x_test": x})
    data = load_arrays(tmp_path / "features.npy")
    assert min(map(np.min, data[:6:2])) == 100
    with raises(r"has 'features' with 'labels' and 'images' with 'labels'"):
        load_arrays(tmp_path)
    with raises(r"x\.npy has no array 'x' with its labels 'y', .* in it: 'x'"):
        load_arrays(tmp_path / "x.npy")
    with raises(r"missing", FileNotFoundError):
        load_arrays(tmp_path / "missing" / "x.npy")
    with raises(r"inputs\.npy", FileNotFoundError):
        load_arrays(tmp_path / "inputs.npy")


def test_npy_of_two_spellings(tmp_path):
    save_all(tmp_path, {"x": [[1]]})
    (tmp_path / "x.npy").rename(tmp_path / "x.NPY")
    assert read_inputs(tmp_path).tolist() == [[1]]
    save_all(tmp_path, {"x": [[2]]})
    if len(list(tmp_path.iterdir())) == 2:  # where case tells files apart
        with raises(r"x\.npy and x\.NPY have one name"):
            read_inputs(tmp_path)


# Not to be trusted


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(path, match):
    for read in (read_inputs, load_arrays):
        with raises(rf"{path.name} cannot be read as \{path.suffix}: .*{match}"):
            read(path)


X, Y = npy(np.eye(3)), npy(np.arange(3) % 2)


@pytest.mark.parametrize("content", [X[:-8], X + bytes(8), X + X, X[:-1]])
def test_a_header_that_says_another_size(tmp_path, content):
    match = rf"has {len(content)} bytes, but its header says \[3, 3\] float64, {len(X)} bytes"
    refused(
        zipped(tmp_path / "a.npz", [("x.npy", content), ("y.npy", Y)]), f"'x.npy' in it {match}"
    )
    (tmp_path / "x.npy").write_bytes(content)
    (tmp_path / "y.npy").write_bytes(Y)
    refused(tmp_path / "x.npy", f"it {match}")


@pytest.mark.parametrize("shape", [(2**62, 2**62), (2**40,), (-3, -3), (10**400,)])
def test_a_header_that_says_more_than_there_is(tmp_path, shape):
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    refused(zipped(tmp_path / "a.npz", [("x.npy", buffer.getvalue()), ("y.npy", Y)]), "header says")


def test_negative_dimensions(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(X.replace(b"(3, 3)", b"(-3,-3)").replace(b"  ", b" ", 1))
    assert path.stat().st_size == len(X)
    with raises(r"header says \[-3, -3\]"):
        read_inputs(path)


def test_elements_of_no_bytes(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "<U0", "fortran_order": False, "shape": (2**62,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    path = zipped(tmp_path / "a.npz", [("x.npy", X), ("y.npy", buffer.getvalue())])
    with raises("'y.npy' in it has 128 bytes, but its header says"):
        load_arrays(path)


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    x = np.zeros((1000, 100))
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=x, y=np.arange(1000) % 2)
    load_arrays(path)
    monkeypatch.setattr(limits, "FREE", 100_000)
    refused(path, "it would unpack to 78. KiB from .* more than 100 times as much")
    np.savez(path, x=x, y=np.arange(1000) % 2)
    load_arrays(path)
    monkeypatch.setattr(limits, "memory", lambda: 500_000)
    refused(path, "it holds 78.* KiB, more than the 488 KiB of memory here")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(1000) % 2)
    refused(tmp_path / "x.npy", "it holds 78. KiB")


def test_members_together_are_a_bomb_and_may_not_overlap(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE", 15_000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1)), y=np.zeros(1000), x_test=np.zeros((99, 99)))
    with says("'x' is read"):
        read_inputs(path)
    np.savez_compressed(path, x=np.zeros((1000, 1)), y=np.zeros(1000))
    monkeypatch.setattr(limits, "RATIO", 10)
    read_inputs(path)
    with raises("it would unpack to .* more than 10 times"):
        load_arrays(path)


def patched(path, member, offset, value):
    """Write into the entries of a member, in the file itself (offset) and in the directory."""
    content = bytearray(path.read_bytes())
    local, central = content.find(b"PK\3\4"), content.find(b"PK\1\2")
    assert content[local + 30 :].startswith(member)
    for start in (local + offset[0], central + offset[1]):
        content[start : start + len(value)] = value
    path.write_bytes(content)


def test_sizes_that_the_directory_makes_up(tmp_path):
    for size in (1, len(X) + 8, 2**31):
        path = zipped(tmp_path / "a.npz", [("x.npy", X), ("y.npy", Y)])
        patched(path, b"x.npy", (22, 24), struct.pack("<I", size))
        refused(path, ".")


def test_a_bomb_that_makes_up_what_it_was_packed_to(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE", 10_000)
    path = zipped(tmp_path / "a.npz", [("x.npy", npy(np.zeros((1000, 99)))), ("y.npy", Y)])
    patched(path, b"x.npy", (18, 20), struct.pack("<I", 2**30))
    refused(path, "it would unpack to")


def test_encrypted(tmp_path):
    path = zipped(tmp_path / "a.npz", [("x.npy", X), ("y.npy", Y)])
    patched(path, b"x.npy", (6, 8), struct.pack("<H", 1))
    refused(path, "'x.npy' in it is encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(tmp_path):
    refused(zipped(tmp_path / "a.npz", [("x.npy", X), ("y.npy", Y), ("x.npy", X)]), "the same name")


@settings(max_examples=300, deadline=None)
@given(data=st.data(), method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_a_cut_or_a_flipped_byte_changes_nothing_or_is_an_error(tmp_path_factory, data, method):
    path = tmp_path_factory.mktemp("hostile") / "a.npz"
    zipped(path, [("x.npy", X), ("y.npy", Y), ("ids.npy", Y)], method)
    content = bytearray(path.read_bytes())
    expected = load_arrays(path)
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:where]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = load_arrays(path)
    except ValueError as error:
        assert "\n" not in str(error)
        assert "a.npz" in str(error)
    else:
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_npy_cut_anywhere(tmp_path):
    path = tmp_path / "x.npy"
    for end in range(len(X)):
        path.write_bytes(X[:end])
        with raises(r"x\.npy cannot be read as \.npy"):
            read_inputs(path)
