"""Tables: what is read, which column is the label, what is made of each, what is split how."""

import contextlib
import csv
import gzip
import io
import json
import re
import sys
import warnings
import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn
from funcnet.datasets import learning, load_arrays, load_table, read_inputs
from funcnet.datasets.dates import days
from funcnet.datasets.encoding import from_json
from funcnet.datasets.notes import DataWarning

WHOLE = {"val_fraction": 0, "test_fraction": 0}


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=rf"(?s)\A(?!.*\n).*{match}")


def says(match):
    return pytest.warns(fn.DataWarning, match=match)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture(params=["pyarrow", "without"])
def reader(request, monkeypatch):
    """Both ways of reading text."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    return request.param


@contextlib.contextmanager
def without_arrow():
    known = sys.modules.get("pyarrow")
    sys.modules["pyarrow"] = None
    try:
        yield
    finally:
        del sys.modules["pyarrow"]
        if known is not None:
            sys.modules["pyarrow"] = known


def whole(data, *args, **options):
    """A table all of which is for training, its rows in their order by the first number."""
    dataset = load_table(data, *args, **WHOLE, **options)
    order = np.argsort(dataset.x_train[:, 0], kind="stable")
    return dataset.x_train[order], dataset.y_train[order], dataset


def check_same(left, right):
    assert (left.class_names, left.encoding) == (right.class_names, right.encoding)
    for a, b in zip(left[:6], right[:6], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# What is read

ROWS = [(1, 2.5, "a"), (3, -40, "b"), (5, 0.125, "a"), (8, 7, "b")]
LINES = {
    "commas": "u,v,kind\n1,2.5,a\n3,-4e1,b\n5,.125,a\n8,+7,b\n",
    "a byte order mark, CRLF, blank lines": "\ufeffu,v,kind\r\n1,2.5,a\r\n\r\n3,-40,b\r\n"
    "5,.125,a\r\n8,7,b\r\n\r\n",
    "quotes": '"u","v","kind"\n"1"," 2.5 ","a"\n3,-40,b\n5,0.125,"a"\n8,7,b\n',
    "blanks after commas": "u, v, kind\n1, 2.5, a\n3, -40, b\n5, 0.125, a\n8, 7, b",
    "one name is enough": "u,2020,kind\n1,2.5,a\n3,-40,b\n5,0.125,a\n8,7,b\n",
    "names that look missing": "Na,?,kind\n1,2.5,a\n3,-40,b\n5,0.125,a\n8,7,b\n",
    "no header": "1,2.5,a\n3,-40,b\n5,0.125,a\n8,7,b\n",
}


@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
def test_text(tmp_path, reader, text):
    x, y, data = whole(write(tmp_path / "a.csv", text))
    np.testing.assert_array_equal(x, [row[:2] for row in ROWS])
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert [data.class_names[i] for i in y] == [row[2] for row in ROWS]
    assert data.encoding.labels == ("3" if text[0] == "1" else "kind",)


SEPARATED = {
    "semicolons": (LINES["commas"].replace(",", ";"), r"separated by semicolons; --separator"),
    "bars": (LINES["commas"].replace(",", "|"), "separated by bars"),
    "tabs": (LINES["commas"].replace(",", "\t"), "separated by tabs"),
    "blanks": (LINES["commas"].replace(",", "   "), "separated by spaces"),
    "decimal commas": (
        "u;v;kind\n1;2,5;a\n3;-40;b\n5;0,125;a\n8;7;b\n",
        "1,5 is taken for one and a half; --decimal point",
    ),
}


@pytest.mark.parametrize(("text", "match"), SEPARATED.values(), ids=SEPARATED)
def test_other_separators_are_found_and_said(tmp_path, reader, text, match):
    with pytest.warns(fn.DataWarning) as said:
        x, _, data = whole(write(tmp_path / "a.csv", text))
    assert re.search(match, "\n".join(str(each.message) for each in said))
    np.testing.assert_array_equal(x, [row[:2] for row in ROWS])
    assert data.encoding.columns == ("u", "v")


def test_what_is_said_of_text_is_not_guessed(tmp_path, reader):
    text = SEPARATED["decimal commas"][0]
    x, _, _ = whole(write(tmp_path / "a.txt", text), separator="semicolon", decimal="comma")
    np.testing.assert_array_equal(x, [row[:2] for row in ROWS])
    *_, data = whole(tmp_path / "a.txt", "kind", separator="semicolon", decimal="point")
    assert [f.kind for f in data.encoding.features] == ["number", "category"]
    whole(write(tmp_path / "a.tsv", SEPARATED["tabs"][0]))  # what its name says
    with says("separated by semicolons"):
        whole(tmp_path / "a.txt", decimal="comma")
    with raises("unknown separator 'comme': did you mean 'comma'"):
        whole(tmp_path / "a.txt", separator="comme")
    with raises("unknown decimal 'dot'"):
        whole(tmp_path / "a.txt", separator="semicolon", decimal="dot")


def test_packed_files(tmp_path, reader):
    plain = load_table(write(tmp_path / "a.csv", LINES["commas"]), **WHOLE)
    text = LINES["commas"].encode()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "nameless").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/a.csv", text)
        archive.writestr("__MACOSX/._a.csv", "x")
    for name in ("a.csv.gz", "nameless", "a.zip"):
        check_same(load_table(tmp_path / name, **WHOLE), plain)


def test_damaged_packed_files(tmp_path):
    packed = gzip.compress(LINES["commas"].encode() * 50)
    (tmp_path / "a.csv.gz").write_bytes(packed[:-20])
    with raises(r"a\.csv\.gz cannot be unpacked"):
        load_table(tmp_path / "a.csv.gz")
    (tmp_path / "b.csv.gz").write_bytes(b"u,v\n")
    with raises(r"b\.csv\.gz is no \.gz file"):
        load_table(tmp_path / "b.csv.gz")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a.csv", "1")
        archive.writestr("b.csv", "2")
    with raises("must hold one file, found 'a.csv', 'b.csv'"):
        load_table(tmp_path / "c.zip")


def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("funcnet.datasets.limits.FREE", 10_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 10**6, 9))
    with raises(r"a\.csv\.gz would unpack to"):
        load_table(tmp_path / "a.csv.gz", "last")


def test_standard_input_and_pipes(tmp_path, monkeypatch):
    plain = load_table(write(tmp_path / "a.csv", LINES["commas"]), **WHOLE)
    for data in (LINES["commas"].encode(), gzip.compress(LINES["commas"].encode())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        check_same(load_table("-", **WHOLE), plain)


RAGGED = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "no rows": ("a,b\n", "header, but no rows"),
    "a cell less": ("1,2,a\n3,1\n4,5,b\n", "line 2 has 2 cells, expected 3"),
    "a cell more": ("u,v,k\n1,2,a\n\n3,4,5,b\n", "line 4 has 4 cells, expected 3"),
    "two labels": ("y,b,y\n1,2,0\n", "several columns 'y': which is the label"),
    "an open quote": ('1,2,"a\n', "line 1: unexpected end of data"),
    "one column": ("a\n1\n2\n", "has one column"),
    "no UTF-8": ("u,kind\n1,é\n".encode("latin-1"), "is not UTF-8 text"),
    "too large": (
        "u,y\n1,0\n1e39,1\n3,0\n",
        "line 3, column 'u': 1e[+]39 is not finite in float32",
    ),
    "infinite": ("u,y\n1,0\n\n-inf,1\n", "line 4, column 'u': -inf is not finite"),
    "run together": (
        "u,y\n100000000000000001,0\n100000000000000002,1\n100000000000000003,1\n",
        "column 'u': numbers as large as .* run together in 64 bits",
    ),
}


@pytest.mark.parametrize(("text", "match"), RAGGED.values(), ids=RAGGED)
def test_refuses(tmp_path, reader, text, match):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with raises(rf"a\.csv.*{match}"):
        load_table(path)


CELLS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.floats(-1e30, 1e30).map(repr),
    st.floats(-1e3, 1e3, width=16).map(lambda v: f"{v:+.3f}"),
    st.sampled_from(["", "NA", "nan", "NULL", "?", " 7 ", "1_0", "0x1A", "1e5", ".5", "5."]),
    st.sampled_from(["blue", "red", "é", "a b", 'say "x"', "1,5", "None such"]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS, st.sampled_from(["p", "q"])), min_size=2, max_size=12),
    st.sampled_from([",", ";", "\t"]),
)
def test_both_readers_read_the_same(tmp_path_factory, rows, separator):
    path = tmp_path_factory.mktemp("same") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([("u", "v", "kind"), *rows])
    name = {",": "comma", ";": "semicolon", "\t": "tab"}[separator]
    options = {"separator": name, "decimal": "point", "columns": ["u", "v"], **WHOLE}

    def outcome():
        try:
            return load_table(path, "kind", **options)
        except ValueError as error:
            return str(error)

    fast = outcome()
    with without_arrow():
        plain = outcome()
    if isinstance(fast, str):
        assert fast == plain
    else:
        check_same(fast, plain)


NUMBERS = st.lists(
    st.one_of(st.none(), st.floats(-1e12, 1e12), st.integers(-(2**53), 2**53)),
    min_size=3,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.integers(0, 10))
def test_numbers_and_missing_ones_against_numpy(tmp_path_factory, values, offset):
    """As float64 has them, the median where one is missing, and an indicator that it is."""
    values = [None if v is None else v + 10.0**offset for v in values]
    known = np.array([v for v in values if v is not None], np.float64)
    path = tmp_path_factory.mktemp("numbers") / "a.csv"
    cells = ["NA" if v is None else repr(v) for v in values]
    path.write_text("u,kind\n" + "".join(f"{c},{'pq'[i % 2]}\n" for i, c in enumerate(cells)))
    if len(known) and np.abs(known).max() >= 2**53 and np.ptp(known) < 2**20:
        return
    data = load_table(path, "kind", columns=["u"], **WHOLE)
    median = np.median(known) if len(known) else 0.0
    filled = np.array([median if v is None else v for v in values])
    expected = np.sort(filled) if data.x_train.dtype == np.float64 else np.sort(np.float32(filled))
    np.testing.assert_array_equal(np.sort(data.x_train[:, 0]), expected)
    assert data.encoding.features[0].median == median
    assert (data.x_train.shape[1] == 2) == (None in values)
    if None in values:
        assert data.x_train[:, 1].sum() == values.count(None)


# Parquet, Arrow and data frames

FRAME = {
    "Pclass": [3, 1, 3, 2] * 10,
    "Sex": ["male", "female", "female", None] * 10,
    "Age": [22.0, None, 26.5, 35.0] * 10,
    "alone": [True, False, False, True] * 10,
    "when": [f"2026-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(40)],
    "Survived": ["no", "yes", "yes", "no"] * 10,
}


def frames():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pandas, polars = pd.DataFrame(FRAME), pl.DataFrame(FRAME)
    dated = polars.with_columns(pl.col("when").str.to_date())
    categories = pandas.astype({"Sex": "category", "Pclass": "Int64", "Age": "float32"})
    return {
        "pandas": pandas,
        "polars": polars,
        "dates": dated,
        "categories": categories,
        "arrow": polars.to_arrow(),
    }


def expected():
    dataset = load_table(FRAME, "Survived", **WHOLE)
    assert dataset.x_train.shape == (40, 1 + 3 + 2 + 2 + 5)
    return dataset


def test_frames_are_as_dicts_of_columns():
    known = expected()
    for frame in frames().values():
        check_same(load_table(frame, "Survived", **WHOLE), known)


def test_parquet_and_arrow_files_are_as_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    pytest.importorskip("narwhals")
    table, known = pa.table(FRAME), expected()
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, str(tmp_path / "a.arrow"), compression="uncompressed")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FRAME, *zip(*FRAME.values(), strict=True)])
    for name in ("a.parquet", "a.arrow", "a.csv"):
        check_same(load_table(tmp_path / name, "Survived", **WHOLE), known)
    with raises("whose columns have names: header, separator and decimal are for text"):
        load_table(tmp_path / "a.parquet", header="yes")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:200])
    with raises(r"a\.parquet cannot be read as parquet"):
        load_table(tmp_path / "a.parquet")


def test_without_pyarrow_a_parquet_file_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"0" * 100)
    with without_arrow(), raises(r'pyarrow is needed .*"funcnet\[tables\]"', ImportError):
        load_table(tmp_path / "a.parquet")


def test_data_of_other_types():
    for options in ({"columns": "a"}, {"drop": [1]}, {"categorical": "ab"}):
        with raises("must be a list of names of columns", TypeError):
            load_table({"a": [1, 2, 4], "y": [0, 1, 1]}, "y", **options)
    with raises("target must be the name of a column, or several, got -1", TypeError):
        load_table({"a": [1, 2, 4], "y": [0, 1, 1]}, -1)
    with raises("data must be the path of a table, .* got ndarray", TypeError):
        load_table(np.eye(3))
    with raises("columns must be of one length, got a: 2, y: 3"):
        load_table({"a": [1, 2], "y": [0, 1, 1]})
    with raises("column 'a' must be .N., got shape .2, 2."):
        load_table({"a": np.eye(2), "y": [0, 1]})
    with raises("column 'a' holds lists"):
        load_table({"a": np.array([[1], None], object), "y": [0, 1]})


# The label


def test_a_label_of_many_words():
    letters = [chr(97 + i % 26) for i in range(130)]
    assert len(load_table({"a": np.arange(130.0) ** 2, "letter": letters}).class_names) == 26


def test_the_label_is_the_one_called_so():
    for name in ("target", "Class", "LABEL", "y"):
        _, _, data = whole({name: [0, 1, 0], "a": [1, 2, 3], "k": ["s", "s", "t"]})
        assert data.encoding.labels == (name,)


def test_the_label_is_the_only_column_of_words():
    days = ["2026-01-02", "2026-01-03", "2026-01-02"]
    columns = {"kind": ["s", "t", "s"], "a": [1.5, 2, 3], "when": days}
    assert whole(columns)[2].encoding.labels == ("kind",)


def test_else_the_label_has_to_be_said():
    numbers = {"a": [1, 2, 3], "b": [4, 5, 7], "c": [0, 1, 0]}
    for columns in (numbers, {"x": [1, 2, 5], "y": [1, 2, 1], "kind": ["s", "t", "s"]}):
        with raises(
            r"which column is the label\? say it with --label \(target=\): a name, first or last"
        ):
            whole(columns)
    assert whole(numbers, "last")[2].encoding.labels == ("c",)
    assert whole({**numbers, "a": [1, 1, 2]}, "first")[2].encoding.labels == ("a",)
    assert whole(numbers, "c")[2].encoding.columns == ("a", "b")
    with raises("unknown column 'd'"):
        whole(numbers, "d")
    with raises(r"which column is the label"):
        whole({"label": [0, 1], "target": [0, 1], "a": [1, 2]})


def test_a_label_in_front_is_no_feature(tmp_path):
    """A file with the label first is no file whose last pixel is the label."""
    text = "digit,p1,p2\n" + "".join(f"{i % 3},{i * i},{(i * 7) % 11}\n" for i in range(30))
    path = write(tmp_path / "a.csv", text)
    with raises("which column is the label"):
        load_arrays(path)
    assert load_arrays(path, label="first", **WHOLE).encoding.columns == ("p1", "p2")


def test_text_is_no_label():
    with raises("column 'name' has 30 different words in 30 examples: they are names or text"):
        whole({"a": np.arange(30.0) ** 2, "name": [f"n{i}" for i in range(30)]}, "name")


def test_a_label_of_numbers_without_end_is_regression():
    columns = {"a": np.arange(40) % 3, "y": np.arange(40) / 7}
    with pytest.warns(DataWarning, match="label 'y' is a number of 40 values in 40 examples: reg"):
        data = load_table(columns, **WHOLE)
    assert (data.task, data.target_names, data.class_names) == ("regression", ("y",), ())
    assert sorted(data.y_train) == sorted(columns["y"])
    assert load_table(columns, task="regression", **WHOLE).task == "regression"


# What is made of columns


def test_categories():
    words = ["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d", "e"] + [None]
    columns = {"w": words, "n": np.arange(13.0) ** 2, "y": [0, 1] * 6 + [0]}
    data = load_table(columns, **WHOLE)
    feature = data.encoding.features[0]
    assert feature.categories == ("a", "b", "c")
    assert (feature.other, feature.missing) == (True, True)
    assert data.encoding.names == ("w = a", "w = b", "w = c", "w = other", "w is missing", "n")
    by_number = data.x_train[np.argsort(data.x_train[:, -1]), :5]
    places = [0] * 5 + [1] * 3 + [2] * 2 + [3, 3, 4]
    np.testing.assert_array_equal(by_number, np.eye(5)[places])


def test_at_most_64_categories_have_a_place():
    words = [f"w{i}" for i in range(100) for _ in range(2 + i % 3)]
    data = load_table({"w": words, "y": np.arange(len(words)) % 2}, **WHOLE)
    feature = data.encoding.features[0]
    assert len(feature.names) == 64
    assert feature.other
    counts = Counter(words)
    assert min(counts[w] for w in feature.categories) >= max(
        counts[w] for w in counts if w not in feature.categories
    )


def test_numbers_as_categories(tmp_path, reader):
    text = "zip,y\n" + "01234,0\n1234,1\n01234,1\n1234,0\n" * 3
    path = write(tmp_path / "a.csv", text)
    _, _, data = whole(path, categorical=["zip"])
    assert data.encoding.features[0].categories == ("01234", "1234")
    with raises("zip: constant"):  # as numbers they are all 1234
        whole(path)


def test_what_is_left_out_is_said(tmp_path):
    count = 40
    columns = {
        "": range(count),
        "id": np.arange(count) * 7 % 41,
        "constant": [3] * count,
        "empty": [None] * count,
        "name": [f"person {i}" for i in range(count)],
        "when": [f"{1 + i % 12:02}/{1 + i % 11:02}/2026" for i in range(count)],
        "a": np.arange(count) ** 2,
        "y": np.arange(count) % 2,
    }
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    with says(
        r"left out 'column 1' \(row numbers\), 'id' \(identifiers\), 'constant' \(constant\)"
    ):
        data = load_table(tmp_path / "a.csv", **WHOLE)
    assert data.encoding.columns == ("a",)
    reasons = dict(data.encoding.left_out)
    assert reasons["empty"] == "empty"
    assert reasons["name"] == "text, 40 values in 40 rows"
    assert reasons["when"] == "dates in which day and month may be either"
    taken = load_table(tmp_path / "a.csv", columns=["a", "id", "constant"], **WHOLE)
    assert taken.encoding.columns == ("a", "id", "constant")
    rest = ["id", "constant", "empty", "name", "when", "column 1"]
    assert load_table(tmp_path / "a.csv", drop=rest, **WHOLE).encoding.columns == ("a",)
    with raises("unknown column 'b'"):
        load_table(tmp_path / "a.csv", drop=["b"])
    with raises(r"no column to learn from \(a: not wanted\)"):
        load_table(tmp_path / "a.csv", columns=["a"], drop=["a"])


def test_a_few_words_among_numbers_are_an_error_or_categories(tmp_path, reader):
    rows = "".join(f"{i * i},{i % 2}\n" for i in range(30))
    path = write(tmp_path / "a.csv", f"a,y\n{rows}two,0\n")
    with raises(
        r"line 32, column 'a': 'two' is not a number, as 96.8 % of the column are: write NA"
    ):
        load_table(path)
    assert whole(path, categorical=["a"])[2].encoding.features[0].kind == "category"
    few = write(tmp_path / "b.csv", "a,y\n" + "0,0\n1,1\n2,1\n3+,0\n" * 8)
    assert set(whole(few)[2].encoding.features[0].categories) == {"0", "1", "2", "3+"}


DATES = {
    "2026-11-25": 20782.0,
    "1970-01-01": 0.0,
    "2026-11-25T06:00:00Z": 20782.25,
    "2026-11-25 12:00": 20782.5,
    "2026-11-25T01:00:00+01:00": 20782.0,
    "2026/11/25": 20782.0,
}


@pytest.mark.parametrize(("word", "value"), DATES.items())
def test_days(word, value):
    assert days([word], "ymd") == [value]


def test_words_that_are_no_dates():
    for word in (
        "2026-13-01",
        "2026-02-30",
        "26-01-02",
        "2026-1",
        "40-49",
        "2026-01-01 25:00",
        "x",
    ):
        assert days([word], "ymd") is None
    assert days(["25.11.2026"], "dmy") == days(["11/25/2026"], "mdy") == [20782.0]


def test_dates_are_a_number_and_cycles():
    words = [f"{1 + i % 28:02}.{1 + i % 12:02}.2026" for i in range(40)]
    data = load_table({"when": words, "y": np.arange(40) % 2}, **WHOLE)
    feature = data.encoding.features[0]
    assert (feature.kind, feature.order, feature.time) == ("date", "dmy", False)
    assert data.x_train.shape == (40, 5)
    values = np.sort(days(words, "dmy"))
    by_day = data.x_train[np.argsort(data.x_train[:, 0])]
    np.testing.assert_allclose(by_day[:, 0], values)
    for column, period in ((1, 365.2425), (3, 7)):
        angle = 2 * np.pi * values / period
        np.testing.assert_allclose(by_day[:, column], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(by_day[:, column + 1], np.cos(angle), atol=1e-6)


def test_the_encoding_is_learned_from_training_alone():
    count = 200
    rng = np.random.default_rng(0)
    columns = {
        "n": np.where(rng.random(count) < 0.3, np.nan, rng.normal(size=count) * 100),
        "w": rng.choice(["a", "b", "c", "d"], count),
        "z": rng.normal(size=count),
        "y": np.arange(count) % 2,
        "which": ["train"] * 100 + ["val"] * 50 + ["test"] * 50,
    }
    columns["w"][:100] = rng.choice(["a", "b"], 100)
    data = load_table(columns, "y", split_by="which")
    number, category, _ = data.encoding.features
    assert number.median == np.nanmedian(columns["n"][:100])
    assert set(category.categories) == {"a", "b"}
    changed = {**columns, "n": np.where(np.arange(count) < 100, columns["n"], 1e6)}
    assert load_table(changed, "y", split_by="which").encoding == data.encoding


def test_an_encoding_is_plain_data():
    encoding = expected().encoding
    assert from_json(json.loads(json.dumps(encoding.as_json()))) == encoding
    assert hash(encoding) == hash(from_json(encoding.as_json()))
    for damage in ({}, {"features": 3}, {"features": [{"name": "a"}], "left_out": []}):
        with raises("no encoding of a table"):
            from_json(damage)


# Another table


def test_columns_are_found_by_name():
    known = expected()
    names = list(FRAME)
    other = {name: FRAME[name] for name in reversed(names)} | {"more": ["x"] * 40}
    again = load_table(other, encoding=known.encoding, class_names=known.class_names, **WHOLE)
    check_same(again, known)
    with raises("the dict has no columns 'Sex', 'Age', which the network was trained on"):
        load_table({n: FRAME[n] for n in names if n not in ("Sex", "Age")}, encoding=known.encoding)
    with raises("column 'Survived' has 'maybe', which is none of the 2 classes"):
        load_table(
            {**FRAME, "Survived": ["maybe", "no"] * 20},
            encoding=known.encoding,
            class_names=known.class_names,
        )


def test_labels_that_look_like_numbers_are_words_if_they_were(tmp_path):
    text = "a,y\n1,01\n5,1\n9,x\n4,01\n"
    known = load_table(write(tmp_path / "a.csv", text), "y", **WHOLE)
    assert known.class_names == ("01", "1", "x")
    other = write(tmp_path / "b.csv", "a,y\n1,01\n2,1\n")
    given = {"encoding": known.encoding, "class_names": known.class_names, **WHOLE}
    data = load_table(other, **given)
    assert dict(zip(data.x_train[:, 0], data.y_train, strict=True)) == {1.0: 0, 2.0: 1}


def test_numbers_are_classes_by_value():
    known = load_table({"a": [1.0, 5, 9, 4], "y": [10, 20, 10, 20]}, **WHOLE)
    other = {"a": [1.0, 2.0], "y": ["20.0", "10"]}
    given = {"encoding": known.encoding, "class_names": known.class_names, **WHOLE}
    data = load_table(other, **given)
    assert dict(zip(data.x_train[:, 0], data.y_train, strict=True)) == {1.0: 1, 2.0: 0}


def test_what_training_has_not_seen_is_said():
    known = load_table({"a": [1.0, 5, 9, 4], "w": ["p", "q"] * 2, "y": [0, 1, 1, 0]}, **WHOLE)
    table = {"a": [None, 2.0], "w": ["p", "z"]}
    model = fn.Model(fn.mlp([], 2), *some_params(known), encoding=known.encoding)
    with (
        says("column 'a': 1 missing cell, of which training had none: the median stands"),
        says("column 'w': 1 row of a category that training has not seen, such as 'z'"),
    ):
        scores = fn.predict_scores(model, table)
    plain = fn.predict_scores(model, np.array([[4.5, 1, 0], [2, 0, 0]], np.float32))
    np.testing.assert_array_equal(scores, plain)
    with raises("column 'a': 'x' is not a number"):
        fn.predict(model, {"a": ["x", "1"], "w": ["p", "p"]})


def some_params(data):
    import jax

    net = fn.mlp([], 2)
    params, state, _ = net.init(jax.random.key(0), data.x_train.shape[1:])
    return params, state, fn.no_preprocess(data.x_train)


# Splits


def test_groups_are_whole():
    groups = np.repeat([f"patient {i}" for i in range(30)], 5)
    columns = {"a": np.arange(150.0) ** 2, "patient": groups, "y": np.arange(150) % 2}
    data = load_table(columns, "y", group="patient", val_fraction=0.2, test_fraction=0.2)
    assert data.encoding.columns == ("a",)
    parts = [set(groups[np.sqrt(x[:, 0]).round().astype(int)]) for x in data[:6:2]]
    assert [len(part) for part in parts] == [18, 6, 6]
    assert len(set.union(*parts)) == 30
    other = load_table(columns, "y", group="patient", val_fraction=0.2, test_fraction=0.2, seed=1)
    assert set(other.x_test[:, 0]) != set(data.x_test[:, 0])
    with raises("2 groups cannot be split"):
        load_table({**columns, "patient": np.arange(150) % 2}, "y", group="patient")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=60), st.floats(0.05, 0.4))
def test_groups_of_any_size(groups, fraction):
    columns = {"a": np.arange(len(groups)) ** 2.0, "g": groups, "y": np.arange(len(groups)) % 2}
    options = {"group": "g", "val_fraction": fraction, "test_fraction": fraction}
    if len(set(groups)) < 3:
        with raises("cannot be split"):
            load_table(columns, "y", **options)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.DataWarning)  # of classes that training may not have
        data = load_table(columns, "y", **options)
    parts = [np.sqrt(x[:, 0]).round().astype(int) for x in data[:6:2]]
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    of = [{groups[i] for i in part} for part in parts]
    assert sum(map(len, of)) == len(set(groups))
    assert all(map(len, parts))


def test_the_latest_are_for_testing():
    order = np.random.default_rng(0).permutation(100)
    when = [f"2026-{1 + i // 28:02}-{1 + i % 28:02}" for i in order]
    columns = {"a": order**2, "when": when, "y": order % 2}
    for by in ({"when": when}, {"when": order * 3.5}):
        data = load_table({**columns, **by}, "y", split_by="when")
        ranks = [sorted(np.sqrt(x[:, 0]).round().astype(int)) for x in data[:6:2]]
        assert ranks == [list(range(80)), list(range(80, 90)), list(range(90, 100))]
    ties = {**columns, "when": order // 7}
    data = load_table(ties, "y", split_by="when")
    moments = [set(np.sqrt(x[:, 0]).round().astype(int) // 7) for x in data[:6:2]]
    assert sum(map(len, moments)) == len(set(order // 7))
    late = {**columns, "when": order, "y": (order > 70) * 1 + (order > 95)}
    with says("no example to train is of '2', which the test split has"):
        load_table(late, split_by="when")
    which = ["train"] * 80 + ["test"] * 20
    with raises("test_fraction is 0.2, but the test split is given and kept as it is"):
        load_table({**columns, "when": which}, "y", split_by="when", test_fraction=0.2)
    with raises("to split by must hold numbers, dates such as 2026-11-25, or train, val and test"):
        load_table({**columns, "when": ["soon", "late"] * 50}, "y", split_by="when")
    with raises("row 3, column 'when': the cell is empty"):
        load_table({**columns, "when": [1, 2, 3, None, *range(96)]}, "y", split_by="when")
    with raises("give one of group and split_by"):
        load_table(columns, "y", split_by="when", group="a")
    with raises("got 'tst'"):
        load_table({**columns, "when": [*which[:-1], "tst"]}, "y", split_by="when")
    with raises("the label, 'y', is no column to split by"):
        load_table(columns, "y", split_by="y")


def test_examples_in_two_splits_are_said():
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=100), "b": rng.normal(size=100), "y": np.arange(100) % 2}
    columns["which"] = ["train"] * 60 + ["val"] * 20 + ["test"] * 20
    load_table(columns, "y", split_by="which")
    for i, j in ((90, 10), (91, 12), (61, 11), (95, 14)):
        columns["a"][i], columns["b"][i] = columns["a"][j], columns["b"][j]
    columns["y"][95] = 1 - columns["y"][14]  # of another class, it is no repetition
    columns["y"][90], columns["y"][91], columns["y"][61] = columns["y"][[10, 12, 11]]
    with says("2 of 20 test examples are in training, too"), says("1 of 20 validation examples"):
        load_table(columns, "y", split_by="which")
    names = [f"person {i}" for i in range(100)]  # tell them apart
    with says("left out 'name'"):
        load_table({**columns, "name": names}, "y", split_by="which")


# read_inputs: without an encoding


def test_read_inputs(tmp_path, reader):
    known = np.array([[1, 2], [3, 4]], np.float32)
    for text, options in (("1,2\n3,4\n", {"header": "no"}), ("a,b\n1,2\n3,4\n", {})):
        read = read_inputs(write(tmp_path / "a.csv", text), **options)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, known)
    path = write(tmp_path / "b.csv", "a,kind,b\n1,cat,2\n3,,4\n")
    np.testing.assert_array_equal(read_inputs(path, label="kind"), known)
    with says("taken for an example"):
        one = read_inputs(write(tmp_path / "c.csv", "5\n6\n"))
    np.testing.assert_array_equal(one, [[5], [6]])


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("1,cat\n2,dog\n", {"header": "no"}, "line 1, column '2': 'cat' is not a number"),
        ("a,b\n1,2\n\n3,\n", {}, "line 4, column 'b': the cell is empty"),
        ("a,b\n1,2\n", {"label": "c"}, "unknown column 'c'"),
        ("", {}, "is empty"),
        ("a,b\n", {}, "no rows"),
        ("a,b\n1,2\n3\n", {}, "line 3 has 1 cell, expected 2"),
    ],
)
def test_read_inputs_refuses(tmp_path, text, options, match):
    with raises(rf"a\.csv.*{match}"):
        read_inputs(write(tmp_path / "a.csv", text), **options)


def test_there_is_a_place_for_each_kind_of_feature():
    assert {f.kind for f in expected().encoding.features} == {"number", "category", "date"}
    assert learning.MAX_CATEGORIES == 64


# Another table, again


def test_a_column_that_occurs_twice_is_no_column_of_that_name(tmp_path):
    known = load_table({"a": [1.0, 5, 9, 4], "b": [1, 2, 3, 5], "y": [0, 1, 1, 0]}, "y", **WHOLE)
    path = write(tmp_path / "a.csv", "a,b,a,y\n1,2,3,0\n5,6,7,1\n")
    with raises(r"a\.csv has two columns 'a': which one is it"):
        load_table(path, "y", encoding=known.encoding)
    twice = load_table(path, "y", **WHOLE).encoding
    assert twice.columns == ("a", "b", "a (2)")
    assert load_table(path, "y", encoding=twice, **WHOLE).x_train.shape == (2, 3)
    names = load_table(write(tmp_path / "b.csv", "a,a,a (2),y\n1,2,3,0\n5,6,9,1\n"), **WHOLE)
    assert len(set(names.encoding.columns)) == 3
    with raises("the dict has two columns of a name"):
        load_table({1: [1, 2], "1": [2, 1], "y": [0, 1]})


def test_another_labelled_table_says_what_training_has_not_seen():
    known = load_table({"a": [1.0, 5, 9, 4], "w": ["p", "q"] * 2, "y": [0, 1, 1, 0]}, "y", **WHOLE)
    given = {"encoding": known.encoding, "class_names": known.class_names, **WHOLE}
    with says("2 rows of a category that training has not seen, such as 'r'"):
        load_table({"a": [1.0, 2, 3], "w": ["r", "p", "r"], "y": [0, 1, 1]}, "y", **given)
    with raises("the label, 'a', is a column that the network was trained on"):
        load_table({"w": ["p", "q"], "y": [0, 1], "a": [0, 1]}, "last", **given)


def test_one_odd_cell_among_few_numbers_is_an_error(tmp_path, reader):
    """Be it a row of units, or a footer."""
    rows = "".join(f"{i % 5},{i % 2}\n" for i in range(60))
    with raises(r"line 2, column 'a': 'cm' is not a number, as 98.4 % of the column are"):
        load_table(write(tmp_path / "a.csv", f"a,y\ncm,0\n{rows}"), "y")


def test_integers_that_floats_do_not_have():
    big = [2**53, 2**53 + 1] * 20
    with raises("run together in 64 bits"):
        load_table({"a": np.arange(40) ** 2, "y": big}, "y")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": big, "y": np.arange(40) % 4 // 2})
    words = load_table(frame, "y", categorical=["a"], **WHOLE).encoding.features[0].categories
    assert set(words) == {str(2**53), str(2**53 + 1)}


def test_a_file_like_one_without_a_header_has_none(tmp_path):
    """Its first row is an example, be it of words that no other has; the label may be left out."""
    text = "".join(f"{'ab'[i % 2]},0{1 + i % 2},{i * i % 7}\n" for i in range(12))
    path = write(tmp_path / "a.csv", text)
    data = load_table(path, "first", header="no", categorical=["2"], **WHOLE)
    assert data.encoding.columns == ("2", "3")
    model = fn.Model(fn.mlp([], 2), *some_params(data), encoding=data.encoding)
    whole_rows = write(tmp_path / "b.csv", "a,01,1\nb,02,4\nb,02,2\n")
    features = write(tmp_path / "c.csv", "01,1\n02,4\n02,2\n")
    expected = fn.predict_scores(model, np.array([[1, 0, 1], [0, 1, 4], [0, 1, 2]], np.float32))
    for each in (whole_rows, features):
        np.testing.assert_array_equal(fn.predict_scores(model, each), expected)


def test_decimal_commas_in_a_first_row_are_numbers(tmp_path, reader):
    rows = "1,5;2,5;a\n3,5;4,5;b\n5,5;6,5;a\n7,5;8,5;b\n"
    options = {"separator": "semicolon", "decimal": "comma"}
    x, _, data = whole(write(tmp_path / "a.csv", rows), **options)
    np.testing.assert_array_equal(x, [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5], [7.5, 8.5]])
    assert not data.encoding.named


def test_words_far_down_keep_numbers_above_as_they_were_written(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("funcnet.datasets.delimited.CHUNK", 8)
    monkeypatch.setattr("funcnet.datasets.arrow._BLOCK", 40)
    codes = ["007", "7", "08"] * 6 + ["x", "y"] * 5
    rows = "".join(f"{code},{i * i},{i % 2}\n" for i, code in enumerate(codes))
    data = load_table(write(tmp_path / "a.csv", f"code,n,y\n{rows}"), **WHOLE)
    assert set(data.encoding.features[0].categories) == {"007", "7", "08", "x", "y"}


def test_what_arrow_alone_takes_for_nan_is_a_word(tmp_path, reader):
    rows = "".join(f"{'nan(1)' if i % 3 else i},{i % 2}\n" for i in range(18))
    data = load_table(write(tmp_path / "a.csv", f"a,y\n{rows}"), **WHOLE)
    assert "nan(1)" in data.encoding.features[0].categories


def test_what_is_in_quotes_is_one_cell(tmp_path, reader):
    rows = "".join(f'"{"ab"[i % 2]}, or ""so""",{i * i},{i % 2}\n' for i in range(12))
    data = load_table(write(tmp_path / "a.csv", f"w,n,y\n{rows}"), **WHOLE)
    assert set(data.encoding.features[0].categories) == {'a, or "so"', 'b, or "so"'}
    bad = write(tmp_path / "b.csv", 'w,n,y\n"a"b,1,0\nc,2,1\n')
    with raises("b.csv, line 2"):
        load_table(bad)


# What people keep in frames


def test_columns_of_frames_that_hold_no_cells_are_left_out_and_said():
    pd = pytest.importorskip("pandas")
    count = 30
    frame = pd.DataFrame({"a": np.arange(count) ** 2.0, "y": ["p", "q"] * (count // 2)})
    odd = {
        "spans": pd.to_timedelta(np.arange(count), unit="D"),
        "lists": [[1, 2]] * count,
    }
    for name, values in odd.items():
        with pytest.warns(fn.DataWarning) as said:
            data = load_table(frame.assign(**{name: values}), "y", **WHOLE)
        assert f"column {name!r} is left out: " in str(said[0].message)
        assert data.encoding.columns == ("a",)
    for values in (pd.array([True, None, False] * 10), np.array([1, pd.NA, 3] * 10, object)):
        data = load_table(frame.assign(b=values), "y", **WHOLE)
        assert data.encoding.features[1].missing
    big = frame.assign(b=np.arange(count) + 2**60)
    with raises("the frame, column 'b': numbers as large as .* run together in 64 bits"):
        load_table(big, "y")
    assert load_table(big, "y", drop=["b"], **WHOLE).encoding.columns == ("a",)
    frame[1] = frame["1"] = 0
    with raises("the frame has two columns '1'"):
        load_table(frame, "y")


MESSY = st.text(st.sampled_from('ab1,;."\r\n\t 0-N'), max_size=60)


@settings(max_examples=150, deadline=None)
@given(MESSY, st.sampled_from(["u,v,y\n1,2,a\n", "", "1,2,a\n3,4,b\n"]))
@pytest.mark.filterwarnings("ignore::funcnet.DataWarning")
def test_any_text_is_read_the_same_or_refused_in_a_line(tmp_path_factory, text, start):
    path = tmp_path_factory.mktemp("messy") / "a.csv"
    path.write_bytes((start + text).encode())

    def outcome():
        try:
            return load_table(path, **WHOLE)
        except ValueError as error:
            assert "\n" not in str(error)
            assert "a.csv" in str(error)
            return str(error)

    fast = outcome()
    with without_arrow():
        plain = outcome()
    assert isinstance(fast, str) == isinstance(plain, str)
    if isinstance(fast, str):
        assert fast == plain
    else:
        check_same(fast, plain)


SKLEARN = {
    "iris.csv": (None, 150, 4, ("setosa", "versicolor", "virginica")),
    "wine_data.csv": (None, 178, 13, ("class_0", "class_1", "class_2")),
    "breast_cancer.csv": (None, 569, 30, ("malignant", "benign")),
    "digits.csv.gz": ("last", 1797, 61, tuple("0123456789")),  # 3 pixels are always 0
}


@pytest.mark.filterwarnings("ignore::funcnet.DataWarning")
@pytest.mark.parametrize("name", SKLEARN)
def test_the_files_in_scikit_learn_as_they_are(name, reader):
    pytest.importorskip("sklearn")
    import importlib.resources

    label, rows, features, class_names = SKLEARN[name]
    path = importlib.resources.files("sklearn.datasets") / "data" / name
    data = load_table(str(path), label, **WHOLE)
    assert data.x_train.shape == (rows, features)
    assert data.class_names == class_names
