"""Labels as people write them, and the first rows of their files."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet.cli import main
from funcnet.datasets import load_arrays, read_inputs
from funcnet.datasets.classes import as_classes, missing_labels
from funcnet.datasets.notes import DataWarning

LABELS = {
    "large words": (
        ["1e20", "2e20", "1e20"],
        ("100000000000000000000", "200000000000000000000"),
        [0, 1, 0],
    ),
    "plus and minus": ([1, -1, -1, 1], ("-1", "1"), [1, 0, 0, 1]),
    "years": ([2022, 2020, 2021, 2020], ("2020", "2021", "2022"), [2, 0, 1, 0]),
    "whole floats": ([2.0, 1.0, 2.0], ("1", "2"), [1, 0, 1]),
    "few fractions": ([0.5, 1.5, 0.5], ("0.5", "1.5"), [0, 1, 0]),
    "bools": ([True, False], ("False", "True"), [1, 0]),
    "strings": (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
    "numbers in strings": (["10", "9", "01", "1"], ("1", "9", "10"), [2, 1, 0, 0]),
    "codes": (["01", "1", "x"], ("01", "1", "x"), [0, 1, 2]),
    "a column": ([[3], [1]], ("1", "3"), [1, 0]),
    "one-hot": ([[0, 1, 0], [1, 0, 0]], ("0", "1", "2"), [1, 0]),
    "one-hot bools": ([[False, True], [True, False]], ("0", "1"), [1, 0]),
    "bytes": ([b"a", b"b", b"a"], ("a", "b"), [0, 1, 0]),
    "large": ([2**62 + 1, 2**62, 2**62], (str(2**62), str(2**62 + 1)), [1, 0, 0]),
    "large strings": ([str(2**62 + 1), str(2**62)], (str(2**62), str(2**62 + 1)), [1, 0]),
}


@pytest.mark.parametrize("name", LABELS)
def test_classes_of(name):
    labels, names, y = LABELS[name]
    got, got_names = as_classes(np.array(labels))
    assert got_names == names
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, y)


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from(["int8", "int16", "int64", "uint64", "float32", "float64"]),
    values=st.lists(st.integers(0, 100), min_size=2, max_size=15, unique=True),
    offset=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_classes_are_the_values_that_occur(dtype, values, offset, seed):
    labels = (np.random.default_rng(seed).permutation(values * 3) + offset).astype(dtype)
    y, names = as_classes(labels)
    expected, inverse = np.unique(labels, return_inverse=True)
    assert [float(name) for name in names] == expected.tolist()
    np.testing.assert_array_equal(y, inverse)
    as_text, text_names = as_classes(labels.astype(str))
    np.testing.assert_array_equal(as_text, y)
    assert text_names == names


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([[1, 1], [0, 1]], "not one-hot"),
        ([[0, 2], [1, 0]], "not one-hot"),
        (np.zeros((2, 2, 2)), "one-hot"),
        ([], "not empty"),
        ([1.0, np.inf], r"y\[1\] is inf"),
        ([1j, 2], "complex"),
        ([f"id{i}" for i in range(70_000)], "more than 65,536"),
    ],
)
def test_what_are_no_classes(labels, match):
    with pytest.raises(ValueError, match=match):
        as_classes(np.array(labels))
    assert len(as_classes(np.arange(600) % 100)[1]) == 100


def test_missing_labels():
    words = np.array(["a", "", "NA", "nan", "Null", "?", None, "n/a", "none", "nab"], object)
    assert missing_labels(words).tolist() == [False, *[True] * 8, False]
    assert missing_labels(np.array([1, np.nan])).tolist() == [False, True]
    assert missing_labels(np.ma.array([1, 2], mask=[True, False])).tolist() == [True, False]


def write(path, text):
    path.write_text(text)
    return path


WHOLE = {"val_fraction": 0, "test_fraction": 0}


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,kind\n1,2,x\n3,4,\n5,6,y\n7,8,NA\n9,1,x\n")
    with pytest.warns(DataWarning, match="2 examples without a label left out"):
        data = load_arrays(path, **WHOLE)
    assert data.class_names == ("x", "y")
    assert sorted(data.x_train[:, 0]) == [1, 5, 9]
    np.savez(tmp_path / "a.npz", x=np.eye(3), y=np.array([1.0, np.nan, 0]))
    with pytest.warns(DataWarning, match="1 example without a label"):
        assert len(load_arrays(tmp_path / "a.npz", **WHOLE).x_train) == 2
    np.savez(tmp_path / "s.npz", x=np.eye(3), y=np.array(["b", "a", "b"]))
    assert load_arrays(tmp_path / "s.npz", **WHOLE).class_names == ("a", "b")


ROWS = "3,1,a\n4,0,b\n5,2,a\n6,1,b\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0,1,species\n" + ROWS, 4),  # a label that no other row has
        ("7,5,species\n" + ROWS, 4),
        ("7,5,a\n" + ROWS, 5),
        ("0,1,a\n" + ROWS, 5),  # counts up, but is of a class
        ("u,v,a\n" + ROWS, 4),
        ("4,2,cat,dog\n3,1,0\n4,0,1\n5,2,0\n6,1,1\n", 4),  # scikit-learn's
    ],
)
def test_the_first_row(tmp_path, text, count):
    path = write(tmp_path / "a.csv", text)
    said = contextlib.nullcontext()
    if text.startswith("7,5,species"):
        said = pytest.warns(DataWarning, match="for a header, since no other row has 'species'")
    with said:
        data = load_arrays(path, **WHOLE)
    assert len(data.x_train) == count
    assert data.class_names == (("cat", "dog") if "cat" in text else ("a", "b"))


def test_where_nothing_says_it_the_header_is_said_and_decided(tmp_path, capsys):
    path = write(tmp_path / "a.csv", "0,1,2\n" + "3,1,0\n4,0,1\n" * 5)
    last = {**WHOLE, "label": "last"}
    with pytest.warns(DataWarning, match=r"counts up .*--header no"):
        assert len(load_arrays(path, **last).x_train) == 10
    assert len(load_arrays(path, **last, header="yes").x_train) == 10
    assert len(load_arrays(path, **last, header="no").x_train) == 11
    other = write(tmp_path / "b.csv", "7,5,0\n" + "3,1,0\n4,0,1\n" * 5)
    with pytest.warns(DataWarning, match=r"7, 5, 0, is taken for an example: --header yes"):
        assert len(load_arrays(other, **last).x_train) == 11
    inputs = write(tmp_path / "x.csv", "0,1\n3,1\n4,0\n")
    with pytest.warns(DataWarning, match="counts up"):
        assert len(read_inputs(inputs)) == 2
    assert len(read_inputs(inputs, header="no")) == 3
    with pytest.raises(ValueError, match="unknown header 'maybe'"):
        read_inputs(inputs, header="maybe")
    options = ["--epochs", "2", "--hidden-dims", "4", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", "--dataset", str(path), "--label", "last", *options]) == 0
    assert "note: " in capsys.readouterr().err
    assert json.loads((tmp_path / "run/config.json").read_text())["class_names"] == ["0", "1"]
    assert main(["predict", str(tmp_path / "run"), str(inputs)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3  # the names of the columns in training are a header
    assert err == ""
    assert main(["predict", str(tmp_path / "run"), str(inputs), "--header", "no"]) == 2
    assert "has no column '0', which" in capsys.readouterr().err


def test_seconds_in_a_csv_are_not_rounded(tmp_path):
    rows = "".join(f"{1_700_000_000 + 2 * i},{i % 2}\n" for i in range(20))
    data = load_arrays(write(tmp_path / "a.csv", "t,y\n" + rows), **WHOLE)
    assert data.x_train.dtype == np.float64
    assert len(np.unique(data.x_train)) == 20


def test_a_constant_column_rounds_nothing(tmp_path):
    rows = "a,b,y\n" + "".join(f"{i * i},0.1,{i % 2}\n" for i in range(20))
    data = load_arrays(write(tmp_path / "a.csv", rows), columns=["a", "b"], **WHOLE)
    assert data.x_train.shape == (20, 2)
    assert data.x_train.dtype == np.float32


def test_a_guess_is_said_also_where_it_leads_to_an_error(tmp_path, capsys):
    path = write(tmp_path / "a.csv", "0,1,2\n3,x,0\n")
    assert main(["train", "--dataset", str(path)]) == 2
    assert "counts up" in capsys.readouterr().err


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-99, 99), st.floats(-9, 9, width=16), st.sampled_from("ab")),
        min_size=4,
        max_size=9,
    ).filter(lambda rows: len({row[2] for row in rows}) == 2),
    st.sampled_from(["words", "numbers", "one word", "none"]),
    st.booleans(),
)
def test_a_header_is_known_by_what_it_says(tmp_path_factory, rows, kind, crlf):
    """Whatever the numbers: of the names of columns none is read as an example, and no example is
    taken for them."""
    headers = {
        "words": ["width", "height", "kind"],
        "numbers": ["0", "1", "kind"],
        "one word": ["2019", "height", "2020"],
        "none": None,
    }
    if kind == "none" and sum(row[2] == rows[0][2] for row in rows) < 2:
        return  # its label is one that no other row has
    lines = [*([headers[kind]] if headers[kind] else []), *rows]
    path = tmp_path_factory.mktemp("header") / "a.csv"
    path.write_text("".join(",".join(map(str, row)) + "\r\n"[not crlf :] for row in lines))
    options = {"label": "last", "columns": ["1", "2"] if kind == "none" else headers[kind][:2]}
    data = load_arrays(path, **options, **WHOLE)
    order = np.lexsort(data.x_train.T)
    known = np.array([row[:2] for row in rows])
    np.testing.assert_array_equal(data.x_train[order], known[np.lexsort(known.T)])
    assert data.class_names == ("a", "b")
