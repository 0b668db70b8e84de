"""From files to shards: what loading makes of them, in a stream, all of it or nothing."""

import gzip
import json
import shutil
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from command import run

import funcnet as fn
from funcnet.checks import rounds
from funcnet.datasets import convert_arrays, convert_tables, learning, limits, seen, shard_files
from funcnet.datasets.moments import Moments
from funcnet.datasets.shard_files import Writer, holds_shards, read_forms, read_manifest
from funcnet.datasets.splits import places_by_key, row_keys
from funcnet.datasets.streams import open_stream

SPLITS = ("train", "val", "test")
STORED = Path(__file__).parent / "stored" / "shards-1"


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["pyarrow", "without"])
def reader(request, monkeypatch):
    """Both ways of reading text."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    return request.param


@pytest.fixture
def small(monkeypatch):
    """A function: have no more than a few rows held at a time."""

    def set_sizes(rows=7):
        monkeypatch.setattr("funcnet.datasets.delimited.CHUNK", rows)
        monkeypatch.setattr("funcnet.datasets.arrow._BLOCK", 30 * rows)
        monkeypatch.setattr(convert_tables, "NUMBERS", 11 * rows)
        monkeypatch.setattr(convert_arrays, "PART_BYTES", 40 * rows)
        monkeypatch.setattr(convert_arrays, "IMAGES", rows)

    return set_sizes


def noted(call, *args, **options):
    """What a call returns, and what it notes."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call(*args, **options)
    assert all(issubclass(each.category, fn.DataWarning) for each in found)
    said = sorted(str(each.message) for each in found)
    return result, [each for each in said if "are in training, too" not in each]


def fails(kind, match):
    """An error must match, and be one line."""
    return pytest.raises(kind, match=rf"(?s)\A(?!.*\n).*(?:{match})")


def quietly(call, *args, **options):
    """What a call returns, whatever it notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.DataWarning)
        return call(*args, **options)


def writer(out="out", classes=("a", "b"), **options):
    return Writer(Path(out), "classification", classes, (), None, **options)


def read(directory):
    """The Dataset in a directory of shards, as it would be in memory."""
    manifest = read_manifest(Path(directory))
    forms = read_forms(Path(directory), manifest)

    def array(split, kind):
        parts = [np.load(Path(directory) / getattr(p, kind)) for p in manifest.splits[split]]
        empty = np.zeros((0, *forms[kind].shape), forms[kind].dtype)
        return np.concatenate([empty, *parts])

    weighted = "weight" in forms
    return fn.Dataset(
        **{f"{kind}_{split}": array(split, kind) for split in SPLITS for kind in "xy"},
        **{f"weight_{s}": array(s, "weight") if weighted else None for s in SPLITS},
        class_names=manifest.class_names,
        encoding=manifest.encoding,
        task=manifest.task,
        target_names=manifest.target_names,
    )


def assert_same(found, expected):
    for name, a, b in zip(fn.Dataset._fields, found, expected, strict=True):
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            assert a == b, name


def digest(directory="out"):
    return read_manifest(Path(directory)).digest


def everything():
    """What is in the working directory, with the contents of files."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in Path().rglob("*")}


# Tables


def table(rows=300, seed=0):
    """Lines of a table with all that may be in one."""
    rng = np.random.default_rng(seed)
    words = ["train"] * 8 + ["val", "Testing"]
    lines = ["id,user_id,size,big,colour,code,name,when,either,same,w,group,part,kind,price"]
    for i in range(rows):
        cells = [
            i,
            (7919 * i) % 10_007,
            "" if i % 11 == 3 else round(rng.normal(), 4),
            1_600_000_000 + int(rng.integers(10**6)),
            rng.choice(["red", "blue", "NA", f"rare{i}"], p=[0.5, 0.4, 0.05, 0.05]),
            rng.choice(["1", "2", "x"]) if i > rows / 2 else rng.choice(["1", "02"]),
            f"name {i}",
            f"2020-{rng.integers(1, 13):02}-{rng.integers(1, 29):02}",
            f"{rng.integers(1, 13):02}/{rng.integers(1, 13):02}/2020",
            4,
            int(rng.integers(1, 5)),
            rng.choice(["g1", "g2", "g3", "", "g4"]),
            rng.choice(words),
            rng.choice(["cat", "dog", "eel"]) if i % 17 else "",
            round(float(rng.normal()), 3),
        ]
        lines.append(",".join(map(str, cells)))
    return lines


def write_table(path="data.csv", **options):
    Path(path).write_text("\n".join(table(**options)) + "\n")
    return path


TABLES = {
    "classes": {"label": "kind"},
    "weights": {"label": "kind", "weight": "w"},
    "regression": {"label": "price"},
    "several": {"label": ["price", "size"], "task": "regression"},
    "numbers as classes": {"label": "w"},
    "asked for": {"label": "kind", "columns": ["when", "either", "id", "name", "code"]},
    "categories": {"label": "kind", "categorical": ["w", "code"], "drop": ["big", "size"]},
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("rows", [7, 10_000])
def test_a_table_is_what_loading_it_makes_of_it(name, rows, small, reader):
    path = write_table()
    small(rows)
    _, notes = noted(fn.convert_dataset, path, "out", split_by="part", **TABLES[name])
    expected, of_loading = noted(fn.load_arrays, path, split_by="part", **TABLES[name])
    assert_same(read("out"), expected)
    assert notes == of_loading
    assert notes or name == "categories" or name == "asked for"


@pytest.mark.parametrize("options", [{}, {"group": "group"}, {"seed": 3, "val_fraction": 0.4}])
def test_rows_go_to_splits_however_they_come(options, small, reader):
    """And what is learned is learned from those to train on."""
    path = write_table()
    digests = set()
    for rows in (3, 50, 10_000):
        small(rows)
        noted(fn.convert_dataset, path, "out", label="kind", overwrite=True, **options)
        digests.add(digest())
    assert len(digests) == 1
    lines = table()
    kept = [line.split(",") for line in lines[1:] if line.split(",")[13]]
    found = read("out")
    at = 1 if "group" in options else None
    fractions = options.get("val_fraction", 0.1), 0.1
    if at is None:
        places = places_by_key(
            row_keys(options.get("seed", 0), np.arange(len(kept)), "split"), *fractions
        )
    else:
        big = place_of(found, "big")
        where = {float(v): i for i, x in enumerate(found[:6:2]) for v in x[:, big]}
        places = [where[float(row[3])] for row in kept]
        groups = [set(), set(), set()]
        for row, place in zip(kept, places, strict=True):
            groups[place].add(row[11])
        assert "" in groups[0]
        assert "" in groups[1] | groups[2]  # those of no group are each its own
        assert not groups[0] & groups[1] - {""}
        assert not groups[0] & groups[2] - {""}
    again = [[*row[:12], SPLITS[place], *row[13:]] for row, place in zip(kept, places, strict=True)]
    Path("again.csv").write_text("\n".join([lines[0], *(",".join(row) for row in again)]))
    besides = {"drop": ["group"]} if at else {}
    expected, _ = noted(fn.load_table, "again.csv", "kind", split_by="part", **besides)
    names = [f for f in found.encoding.names if not f.startswith(("part", "group"))]
    for split, x in zip(SPLITS, (found.x_train, found.x_val, found.x_test), strict=True):
        theirs = getattr(expected, f"x_{split}")
        mine = {n: x[:, i] for i, n in enumerate(found.encoding.names)}
        others = {n: theirs[:, i] for i, n in enumerate(expected.encoding.names)}
        for name in names:
            np.testing.assert_array_equal(mine[name], others[name])
        np.testing.assert_array_equal(getattr(found, f"y_{split}"), getattr(expected, f"y_{split}"))
    if not at:
        assert 0.5 * fractions[0] < len(found.x_val) / len(kept) < 1.5 * fractions[0]


def place_of(dataset, column):
    """Where what is made of a column begins."""
    features = dataset.encoding.features[: dataset.encoding.columns.index(column)]
    return sum(len(feature.names) for feature in features)


TEXTS = {
    "no header": ("1.5,a,train\n2.5,b,train\n3.5,a,val\n1.0,b,train\n", "2", "3"),
    "words below": ("x,k,s\n1,a,train\n2,b,train\n" * 1 + "3,a,train\nq,b,val\n", "k", "s"),
    "words in the first row": ("a,k,s\nq,a,train\n2,b,train\n3,a,train\n2,b,val\n", "k", "s"),
    "decimal comma": ("x;k;s\n1,5;a;train\n2,5;b;train\n3,5;a;test\n", "k", "s"),
    "tabs": ("x\tk\ts\n1.5\ta\ttrain\n2.5\tb\ttrain\n3.5\ta\ttest\n", "k", "s"),
    "blanks": ("x k s\n1.5 a train\n2.5 b train\n3.5 a test\n", "k", "s"),
    "quotes": ('x,k,s\n1.5,"a,b",train\n2.5,"c\nd",train\n3.5,c,train\n,c,train\n', "k", "s"),
    "blank lines": ("x,k,s\n1.5,a,train\n\n2.5,b,train\n\n3.5,a,test\n", "k", "s"),
    "old line breaks": ("x,k,s\r1.5,a,train\r2.5,b,train\r3.5,a,test\r", "k", "s"),
    "numbers with zeros": ("x,k,s\n1.5,01,train\n2.5,2,train\n3.5,1,train\n4,x,train\n", "k", "s"),
    "bools": ("x,k,s\n1.5,True,train\n2.5,False,train\n3.5,True,val\n", "k", "s"),
    "missing in the first parts": (
        "x,k,s\n,a,train\nNA,b,train\n?,a,train\nred,b,train\nred,a,val\nblue,a,train\n",
        "k",
        "s",
    ),
    "labels missing in the first parts": (
        "x,k,s\n1,,train\n2,NA,train\n3,,train\n4,a,train\n5,b,train\n6,a,val\n",
        "k",
        "s",
    ),
    "names twice": ("x,x,k,s\n1,4,a,train\n2,6,b,train\n2,5,b,train\n", "k", "s"),
    "many zeros": ("x,k,s\n" + "".join(f"{i % 3},{i % 2},train\n" for i in range(90)), "k", "s"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("rows", [1, 2, 10_000])
def test_text_is_read_as_loading_reads_it(name, rows, small, reader):
    text, label, split_by = TEXTS[name]
    Path("data.txt").write_bytes(text.encode())
    small(rows)
    _, notes = noted(fn.convert_dataset, "data.txt", "out", label=label, split_by=split_by)
    expected, of_loading = noted(fn.load_arrays, "data.txt", label=label, split_by=split_by)
    assert_same(read("out"), expected)
    assert notes == of_loading


def test_a_first_row_of_counts_names_the_classes(small):
    rows = "".join(f"{i}.5,{i * i},{i % 2}\n" for i in range(6))
    Path("data.csv").write_text(f"6,2,no,yes\n{rows}")
    small(2)
    noted(fn.convert_dataset, "data.csv", "out", val_fraction=0, test_fraction=0)
    found = read("out")
    assert found.class_names == ("no", "yes")
    np.testing.assert_array_equal(found.x_train, [[i + 0.5, i * i] for i in range(6)])
    np.testing.assert_array_equal(found.y_train, [0, 1] * 3)


@pytest.mark.parametrize("name", TEXTS)
def test_parts_have_columns_of_one_kind(name, small):
    Path("data.txt").write_bytes(TEXTS[name][0].encode())
    small(1)
    stream = quietly(open_stream, "data.txt")
    kinds = [column.words is None for column in stream.look.columns]
    parts = list(stream.parts())
    assert all([c.words is None for c in part.columns] == kinds for part in parts)
    assert sum(part.num_rows for part in parts) == stream.rows


@pytest.mark.parametrize("suffix", [".gz", ".zip"])
def test_packed_text(suffix, small):
    path = write_table()
    packed = Path(f"data.csv{suffix}")
    if suffix == ".gz":
        packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    else:
        import zipfile

        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path)
    small(50)
    noted(fn.convert_dataset, packed, "out", label="kind")
    noted(fn.convert_dataset, path, "plain", label="kind")
    assert digest("out") == digest("plain")


def multilabel(rows, *, odd="", one_hot=False):
    lines = ["x,a,b,s"]
    for i in range(rows):
        a, b = (i % 2, 1 - i % 2) if one_hot else (i % 2, i % 3 == 0)
        lines.append(f"{i / 2},{int(a)},{odd or int(b) if i == rows - 1 else int(b)},train")
    return "\n".join(lines)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("odd", ["", "2", "0.5"])
@pytest.mark.parametrize("rows", [40, 37])  # the last row of 37 alone is one-hot
def test_several_labels(odd, one_hot, rows, small):
    Path("data.csv").write_text(multilabel(rows, odd=odd, one_hot=one_hot))
    small(4)
    options = {"label": ["a", "b"], "split_by": "s"}
    _, notes = noted(fn.convert_dataset, "data.csv", "out", **options)
    expected, of_loading = noted(fn.load_arrays, "data.csv", **options)
    assert expected.task == ("regression" if odd else "multilabel")
    assert_same(read("out"), expected)
    assert notes == of_loading


def test_numbers_that_float32_rounds_are_float64(small):
    lines = [f"{1_700_000_000 + i},{i % 2},train" for i in range(50)]
    Path("data.csv").write_text("t,k,s\n" + "\n".join(lines))
    small(6)
    noted(fn.convert_dataset, "data.csv", "out", columns=["t"], label="k", split_by="s")
    expected, _ = noted(fn.load_arrays, "data.csv", columns=["t"], label="k", split_by="s")
    assert expected.x_train.dtype == np.float64
    assert_same(read("out"), expected)


def parquet(path="data.parquet", rows=200, **options):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    import datetime

    rng = np.random.default_rng(0)
    day = datetime.date(2020, 1, 1)
    columns = {
        "x": [None if i % 13 == 0 else float(v) for i, v in enumerate(rng.normal(size=rows))],
        "n": rng.integers(0, 5, rows),
        "text": ["1" if i < rows / 2 else "two" for i in range(rows)],
        "digits": [str(i % 4) for i in range(rows)],
        "day": [day + datetime.timedelta(int(d)) for d in rng.integers(0, 900, rows)],
        "yes": rng.random(rows) < 0.5,
        "list": [[1, 2]] * rows,
        "odd": [{"a": 1}] * rows,
        "dict": pa.array([f"c{i % 3}" for i in range(rows)]).dictionary_encode(),
        "part": rng.choice(["train", "train", "val", "test"], rows),
        "kind": rng.choice(["a", "b"], rows),
    }
    pq.write_table(pa.table(columns), path, row_group_size=60, **options)
    return path


@pytest.mark.parametrize("rows", [9, 10_000])
@pytest.mark.parametrize("categorical", [(), ("n",)])
def test_parquet_is_what_loading_it_makes_of_it(rows, categorical, small):
    path = parquet()
    small(rows)
    options = {"label": "kind", "split_by": "part", "categorical": categorical}
    _, notes = noted(fn.convert_dataset, path, "out", **options)
    expected, of_loading = noted(fn.load_arrays, path, **options)
    assert_same(read("out"), expected)
    assert notes == of_loading
    assert any("lists" in each for each in notes)


def test_errors_in_parquet_count_the_rows(small):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = np.arange(50.0)
    values[37] = np.inf
    pq.write_table(pa.table({"x": values, "k": ["a", "b"] * 25}), "data.parquet")
    small(5)
    with pytest.raises(ValueError, match=r"data.parquet, row 37, column 'x': inf is not finite"):
        fn.convert_dataset("data.parquet", "out", label="k")


@pytest.mark.parametrize("words", [False, True])
def test_parquet_that_would_unpack_to_too_much(words, small, monkeypatch):
    """As a whole: no group of rows, and no part, is too much."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    column = pa.array(["w" * 1000] * 20_000 if words else np.zeros(200_000))
    whole = pa.table({"x": column, "k": ["a"] * len(column)})
    pq.write_table(whole, "data.parquet", row_group_size=len(column) // 40)
    small(500)
    monkeypatch.setattr(limits, "FREE", 2**20)
    with fails(ValueError, "data.parquet would unpack to .* more than 100 times as much"):
        fn.convert_dataset("data.parquet", "out", label="k")


def test_parquet_that_was_packed_and_files_of_arrow_are_refused():
    pa, feather = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.feather")
    packed = Path("data.parquet.gz")
    packed.write_bytes(gzip.compress(Path(parquet()).read_bytes()))
    with fails(ValueError, "data.parquet.gz is Parquet that was packed once more: unpack it"):
        fn.convert_dataset(packed, "out", label="kind")
    feather.write_feather(pa.table({"x": [1.0], "k": ["a"]}), "data.arrow")
    with fails(ValueError, "data.arrow is arrow, which is read as a whole: save it as Parquet"):
        fn.convert_dataset("data.arrow", "out", label="k")
    with fails(ValueError, "header, separator and decimal are for text"):
        fn.convert_dataset("data.parquet", "out", label="kind", header="no")


def test_a_sample_says_what_medians_are(small, monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000).round(4)
    values[::9] = np.nan
    lines = [f"{'' if np.isnan(v) else v},{i % 2}" for i, v in enumerate(values)]
    Path("data.csv").write_text("x,k\n" + "\n".join(lines))
    monkeypatch.setattr(learning, "SAMPLE", 400)
    digests, medians = set(), set()
    for rows in (13, 500, 10_000):
        small(rows)
        _, notes = noted(fn.convert_dataset, "data.csv", "out", label="k", overwrite=True)
        assert "learned from 400 of 1," in " ".join(notes)
        digests.add(digest())
        medians.add(read("out").encoding.features[0].median)
    assert len(digests) == len(medians) == 1
    median = float(np.nanmedian(values))
    (found,) = medians
    assert found != median
    assert found == pytest.approx(median, abs=0.2)


def test_what_may_be_dates_in_the_first_parts_alone(small, monkeypatch):
    monkeypatch.setattr(learning, "SAMPLE", 30)
    lines = [f"{i % 12 + 1:02}/{i % 7 + 1:02}/2020,{i % 2}" for i in range(400)]
    Path("data.csv").write_text("when,k\n" + "\n".join([*lines, *["25/12/2020,0"] * 40]))
    medians = set()
    for rows in (9, 10_000):
        small(rows)
        noted(fn.convert_dataset, "data.csv", "out", label="k", overwrite=True)
        (feature,) = read("out").encoding.features
        assert (feature.kind, feature.order) == ("date", "dmy")
        medians.add(feature.median)
    assert len(medians) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_moments_are_those_of_all_parts(times):
    rng = np.random.default_rng(0)
    values = 1e6 + 1e3 * rng.normal(size=500) + np.repeat([0, 1e4, 5e4, 0, 0], 100)
    parts, joined = Moments(), Moments()
    for part in np.split(values, [1, 100, 100, 350]):
        parts.add(part, times)
    joined.join(parts)
    whole = np.repeat(values, times)
    for found in (parts, joined):
        assert (found.count, found.low, found.high) == (len(whole), values.min(), values.max())
        assert found.std == pytest.approx(whole.std(), rel=1e-12)
        for tolerance in (1e-8, 1e-7, 1e-6, 1e-5):
            expected = rounds(whole, np.float32, tolerance=tolerance)
            assert found.rounded(tolerance) == expected
    assert not Moments().rounded(0)
    assert Moments().std == 0


def test_medians_in_the_place_of_missing_cells_count_where_float32_rounds(small):
    """They bring the deviation down."""
    rng = np.random.default_rng(0)
    values = 1.5e6 + 10_400 * rng.normal(size=2000)
    small(100)
    for missing, dtype in ((0, np.float32), (0.9, np.float64)):
        cells = ["" if rng.random() < missing else repr(float(v)) for v in values]
        lines = [f"{cell},{i % 2}" for i, cell in enumerate(cells)]
        Path("data.csv").write_text("x,k\n" + "\n".join(lines))
        noted(fn.convert_dataset, "data.csv", "out", label="k", overwrite=True)
        assert read("out").x_train.dtype == dtype


def test_identifiers_in_a_sample_are_identifiers(small, monkeypatch):
    monkeypatch.setattr(learning, "SAMPLE", 60)
    small(20)
    noted(fn.convert_dataset, write_table(), "out", label="kind")
    left_out = dict(read("out").encoding.left_out)
    assert left_out["user_id"] == "identifiers"
    assert left_out["id"] == "row numbers" or left_out["id"] == "identifiers"
    assert left_out["same"] == "constant"


def test_a_column_of_too_many_words_is_text(small, monkeypatch):
    monkeypatch.setattr(seen, "MAX_WORDS", 12)
    small(20)
    path = write_table()
    noted(fn.convert_dataset, path, "out", label="kind")
    encoding = read("out").encoding
    assert "too many values to count" in dict(encoding.left_out)["name"]
    assert "when" in encoding.columns  # dates may be as many as they like
    with fails(ValueError, "column 'name': more than .* words"):
        quietly(fn.convert_dataset, path, "other", label="kind", columns=["name", "size"])


def test_classes_that_training_lacks_are_said():
    lines = [f"{i},{'ab'[i % 2]},train" for i in range(10)] + ["3,c,val"]
    Path("data.csv").write_text("x,k,s\n" + "\n".join(lines))
    _, notes = noted(fn.convert_dataset, "data.csv", "out", label="k", split_by="s")
    assert any("no example to train is of 'c', which the val split has" in each for each in notes)


def test_a_table_is_never_whole_in_memory(small, monkeypatch):
    held = []
    add = Writer.add
    monkeypatch.setattr(Writer, "add", lambda *args: (held.append(len(args[2])), add(*args))[1])
    small(10)
    noted(fn.convert_dataset, write_table(), "out", label="kind")
    assert max(held) <= 10
    assert sum(held) == 282


# Arrays


def arrays(rows=120, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, 3, 2)) * 50).astype(dtype)
    return x, rng.integers(0, 3, rows)


DTYPES = [np.float32, np.float64, np.uint8, np.int64, ">f4", bool, np.float16]


def saved(kind, **named):
    """A file, or a directory, that holds arrays."""
    if kind == "npz":
        np.savez_compressed("data.npz", **named)
        return "data.npz"
    Path("data").mkdir()
    for name, array in named.items():
        np.save(f"data/{name}.npy", array)
    return "data" if kind == "folder" else "data/" + next(iter(named)) + ".npy"


@pytest.mark.parametrize("kind", ["npz", "folder", "npy"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_keep_their_order_and_their_dtype(kind, dtype, small):
    x, y = arrays(dtype=dtype)
    path = saved(kind, x=x, y=y)
    digests = set()
    for rows in (1, 10, 10_000):
        small(rows)
        fn.convert_dataset(path, "out", overwrite=True, val_fraction=0.3)
        digests.add(digest())
    assert len(digests) == 1
    found = read("out")
    places = places_by_key(row_keys(0, np.arange(120), "split"), 0.3, 0.1)
    for i, (mine, targets) in enumerate(zip(found[:6:2], found[1:6:2], strict=True)):
        assert mine.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(mine, x[places == i])
        np.testing.assert_array_equal(targets, y[places == i])
    assert found.y_train.dtype == np.int32
    assert len(found.x_val) > len(found.x_test) > 0


@pytest.mark.parametrize("kind", ["npz", "folder", "npy"])
def test_splits_that_are_given_are_kept(kind, small):
    (x, y), (x_val, y_val) = arrays(), arrays(30, seed=1)
    path = saved(kind, x_train=x, y_train=y, x_valid=x_val, y_valid=y_val)
    small(8)
    fn.convert_dataset(path, "out", test_fraction=0)
    found, expected = read("out"), fn.load_arrays(path, test_fraction=0)
    assert_same(found, expected._replace(x_train=x, y_train=y.astype(np.int32)))
    with pytest.raises(ValueError, match=r"val_fraction is 0.2, but the val split is given"):
        fn.convert_dataset(path, "other", val_fraction=0.2)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.linspace(0, 1, 120), "regression"),
        (np.random.default_rng(0).normal(size=(120, 2)), "regression"),
        (np.random.default_rng(0).integers(0, 2, (120, 3)), "multilabel"),
        (np.eye(3)[np.arange(120) % 3], "classification"),
        (np.array(["a", "b", "c"])[np.arange(120) % 3], "classification"),
        (np.where(np.arange(120) % 7 == 0, np.nan, np.arange(120) % 2), "classification"),
    ],
)
def test_targets_of_arrays(y, task, small):
    x, _ = arrays()
    small(8)
    path = saved("npz", x=x, y=y)
    whole = {"val_fraction": 0, "test_fraction": 0}
    _, notes = noted(fn.convert_dataset, path, "out", **whole)
    found, (expected, of_loading) = read("out"), noted(fn.load_arrays, path, **whole)
    assert (found.task, found.class_names) == (task, expected.class_names)
    assert notes == of_loading
    order = np.lexsort(expected.x_train.reshape(len(expected.x_train), -1).T)
    mine = np.lexsort(found.x_train.reshape(len(found.x_train), -1).T)
    np.testing.assert_array_equal(found.x_train[mine], expected.x_train[order])
    np.testing.assert_array_equal(found.y_train[mine], expected.y_train[order])
    assert found.y_train.dtype == expected.y_train.dtype


def test_splits_of_different_dtypes_become_one(small):
    (x, y), (x_test, y_test) = arrays(dtype=np.uint8), arrays(30, seed=1)
    path = saved("npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    _, notes = noted(fn.convert_dataset, path, "out")
    assert read("out").x_train.dtype == np.float32
    assert any("are they of one scale?" in each for each in notes)


def test_fortran_order(small):
    x, y = arrays()
    path = saved("folder", x=np.asfortranarray(x), y=y)
    small(8)
    fn.convert_dataset(path, "out", val_fraction=0, test_fraction=0)
    np.testing.assert_array_equal(read("out").x_train, x)
    np.savez("data.npz", x=np.asfortranarray(x), y=y)
    with pytest.raises(ValueError, match=r"'x.npy' in it is in Fortran order"):
        fn.convert_dataset("data.npz", "other")


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_are_never_whole_in_memory(kind, monkeypatch):
    x = np.zeros((4000, 500), np.float32)
    path = saved(kind, x=x + 1, y=np.arange(4000) % 2)
    monkeypatch.setattr(convert_arrays, "PART_BYTES", x.nbytes // 50)
    fn.convert_dataset(path, "warm")
    tracemalloc.start()
    fn.convert_dataset(path, "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 5
    assert sum(len(x) for x in read("out")[:6:2]) == 4000


# Images


def images(count=20, colour=(), size=(4, 5), suffix=".png"):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = Path("pictures") / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (*size, 3) if i in colour else size
        pixels = rng.integers(0, 255, shape, np.uint8)
        image.fromarray(pixels).save(folder / f"{i:02}{suffix}")
    return "pictures"


@pytest.mark.parametrize("colour", [(), range(20), (0,), (19,)])
@pytest.mark.parametrize("size", [None, (3, 3)])
def test_images_are_those_that_loading_reads(colour, size, small):
    path = images(colour=colour)
    whole = {"val_fraction": 0, "test_fraction": 0, "seed": 5}
    expected, of_loading = noted(fn.load_images, path, size=size, **whole)
    order = np.lexsort(expected.x_train.reshape(20, -1).T)
    digests = set()
    for rows in (3, 64):
        small(rows)
        _, notes = noted(fn.convert_dataset, path, "out", image_size=size, overwrite=True, **whole)
        assert notes == of_loading
        digests.add(digest())
    assert len(digests) == 1
    found = read("out")
    mine = np.lexsort(found.x_train.reshape(20, -1).T)
    np.testing.assert_array_equal(found.x_train[mine], expected.x_train[order])
    np.testing.assert_array_equal(found.y_train[mine], expected.y_train[order])
    assert found.class_names == expected.class_names
    assert (np.diff(found.y_train) != 0).sum() > 1  # not class by class


def test_images_in_folders_of_splits(small):
    path = Path(images())
    (path / "train").mkdir()
    for name in ("cat", "dog"):
        (path / name).rename(path / "train" / name)
    shutil.copytree(path / "train", path / "test")
    small(3)
    fn.convert_dataset(path, "out")
    found = read("out")
    assert (len(found.x_test), len(found.x_train) + len(found.x_val)) == (20, 20)
    expected = fn.load_images(path)
    np.testing.assert_array_equal(found.x_test, expected.x_test)


# All or nothing


def xy(kind="npz"):
    x, y = arrays()
    return saved(kind, x=x, y=y)


def nan_row():
    x, y = arrays()
    x[77, 1, 1] = np.nan
    return saved("npz", x=x, y=y)


def infinite_row():
    x, y = arrays()
    x[103, 2, 0] = np.inf
    return saved("folder", x=x, y=y)


def cut_npz():
    path = xy()
    data = bytearray(Path(path).read_bytes())
    data[900] ^= 0xFF
    Path(path).write_bytes(data)
    return path


def bad_cell():
    lines = table()
    at = next(i for i, line in enumerate(lines) if i > 200 and ",val," in line and ",dog," in line)
    lines[at] = lines[at].replace("2020-", "20x0-", 1)
    Path("data.csv").write_text("\n".join(lines))
    return "data.csv"


def typos():
    lines = table()
    for at in (100, 200):
        cells = lines[at].split(",")
        lines[at] = ",".join([*cells[:3], "oops", *cells[4:]])
    Path("data.csv").write_text("\n".join(lines))
    return "data.csv"


def stored_npz():
    x, y = arrays()
    np.savez("data.npz", x=x, y=y)
    data = bytearray(Path("data.npz").read_bytes())
    data[1000] ^= 1
    Path("data.npz").write_bytes(data)
    return "data.npz"


def damaged_image():
    path = images()
    Path(path, "dog", "19.png").write_bytes(b"nothing")
    return path


def other_size():
    path = images()
    images(1, size=(9, 9))
    return path


def short_line():
    Path("data.csv").write_text("\n".join([*table(), "1,2"]))
    return "data.csv"


FAILURES = {
    "not finite in a .npz": (nan_row, {}, r"data.npz: x must be .*x\[77, 1, 1\] is nan"),
    "not finite in a .npy": (infinite_row, {}, r"data: x must be .*x\[103, 2, 0\] is inf"),
    "a damaged .npz": (cut_npz, {}, r"data.npz cannot be read as .npz"),
    "a .npz with another number": (stored_npz, {}, r"data.npz cannot be read as .npz: Bad CRC"),
    "typos": (typos, {"label": "kind"}, r"line 101, column 'big': 'oops' is not a number, as 99"),
    "a date that is none": (
        bad_cell,
        {"label": "kind", "columns": ["when", "size"], "split_by": "part"},
        r"data.csv, line 2\d\d, column 'when': '20x0-.*' is not a date, as those in training",
    ),
    "a damaged image": (damaged_image, {}, r"19.png cannot be read as an image"),
    "an image of another size": (other_size, {}, r"4 x 5 pixels|9 x 9 pixels"),
    "a short line": (short_line, {"label": "kind"}, r"line 302 has 2 cells, expected 15"),
    "no such label": (write_table, {"label": "kinds"}, r"did you mean 'kind'"),
    "no such column": (write_table, {"label": "kind", "drop": ["sizes"]}, r"did you mean 'size'"),
    "a weight": (write_table, {"label": "kind", "weight": "size"}, r"a weight must be a number"),
    "times to split by": (write_table, {"label": "kind", "split_by": "when"}, r"of train, val and"),
    "numbers to split by": (write_table, {"label": "kind", "split_by": "w"}, r"holds numbers"),
    "two rules": (
        write_table,
        {"label": "kind", "split_by": "part", "group": "group"},
        r"a split has one rule",
    ),
    "names as classes": (write_table, {"label": "name"}, r"no classes"),
    "words in regression": (write_table, {"label": "kind", "task": "regression"}, r"holds words"),
    "image_size of a table": (write_table, {"label": "kind", "image_size": (3, 3)}, r"folders of"),
    "a label of arrays": (xy, {"label": "y"}, "label='y' is for tables, but data.npz holds arrays"),
    "no file": (lambda: "nothing.csv", {"label": "y"}, r"nothing.csv"),
    "standard input": (lambda: "-", {"label": "y"}, r"can be read once"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_leaves_nothing_behind(name, small):
    make, options, match = FAILURES[name]
    path = make()
    small(9)
    shutil.copytree(STORED, "there")
    before = everything()
    for out, overwrite in (("out", False), ("there", True)):
        with fails((ValueError, FileNotFoundError), match):
            quietly(fn.convert_dataset, path, out, overwrite=overwrite, **options)
        assert everything() == before


def test_an_empty_cell_to_split_by_is_named():
    lines = table(20)
    lines[9] = ",".join([*lines[9].split(",")[:12], "", *lines[9].split(",")[13:]])
    Path("data.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"data.csv, line 10, column 'part': the cell is empty"):
        fn.convert_dataset("data.csv", "out", label="price", split_by="part")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("at", ["add", "_finish"])
def test_an_interrupt_leaves_what_was_there(interrupt, at, small, monkeypatch):
    path = write_table()
    small(9)
    shutil.copytree(STORED, "there")
    before, whole, count = everything(), getattr(Writer, at), []

    def interrupted(*args):
        count.append(1)
        if len(count) > 20 or at == "_finish":
            raise interrupt
        return whole(*args)

    monkeypatch.setattr(Writer, at, interrupted)
    kind = interrupt if isinstance(interrupt, type) else type(interrupt)
    for out in ("out", "there"):
        with pytest.raises(kind):
            quietly(fn.convert_dataset, path, out, label="kind", overwrite=out == "there")
        assert everything() == before


def test_a_rename_that_fails_brings_back_what_was_there(monkeypatch):
    path = xy()
    shutil.copytree(STORED, "there")
    before, rename = everything(), Path.rename

    def failing(self, target):
        if (
            self.name.startswith(".there")
            and (self / "dataset.json").read_bytes() != (STORED / "dataset.json").read_bytes()
        ):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="there"):
        fn.convert_dataset(path, "there", overwrite=True)
    assert everything() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_has_come_meanwhile_stays(overwrite, monkeypatch):
    path, add = xy(), Writer.add

    def adding(*args):
        Path("there").mkdir(exist_ok=True)
        Path("there", "thesis.txt").write_text("mine")
        return add(*args)

    monkeypatch.setattr(Writer, "add", adding)
    with fails(FileExistsError, "there"):
        fn.convert_dataset(path, "there", overwrite=overwrite)
    assert sorted(everything()) == ["data.npz", "there", "there/thesis.txt"]


def test_what_is_there_is_replaced_only_if_asked():
    path = xy()
    shutil.copytree(STORED, "there")
    with pytest.raises(FileExistsError, match=r"there is there already.*--overwrite"):
        fn.convert_dataset(path, "there")
    fn.convert_dataset(path, "there", overwrite=True)
    assert len(read("there").x_train) > 50
    assert sorted(p.name for p in Path().iterdir()) == ["data.npz", "there"]


def a_file():
    Path("there").write_text("mine")


def a_folder():
    Path("there").mkdir()
    Path("there", "thesis.txt").write_text("mine")


def a_link():
    Path("elsewhere").mkdir()
    Path("there").symlink_to("elsewhere")


@pytest.mark.parametrize("make", [a_file, a_folder, a_link])
def test_what_is_no_directory_of_shards_is_never_replaced(make):
    path = xy()
    make()
    before = everything()
    with pytest.raises(FileExistsError, match="is not replaced"):
        fn.convert_dataset(path, "there", overwrite=True)
    assert everything() == before


def test_places_that_are_no_places_to_write_to():
    path = xy("folder")
    with pytest.raises(ValueError, match=r"data/out is in data, which is read"):
        fn.convert_dataset(path, "data/out")
    with pytest.raises(FileNotFoundError, match=r"no is no directory to write out in: make it"):
        fn.convert_dataset(path, "no/out")
    fn.convert_dataset(path, "out")
    with pytest.raises(ValueError, match="out is a directory of shards already"):
        fn.convert_dataset("out", "again")


def test_a_file_that_changes_while_it_is_read(small, monkeypatch):
    path = write_table()
    encoding = learning.Learner.encoding

    def changing(self):
        with Path(path).open("a") as file:
            file.write(table()[1].replace("0,", "9,", 1).rstrip() + "\n")
        return encoding(self)

    monkeypatch.setattr(learning.Learner, "encoding", changing)
    with fails(ValueError, "has changed while it was read"):
        quietly(fn.convert_dataset, path, "out", label="price")
    assert sorted(everything()) == [path]


# Shards


def test_shards_are_cut_by_size_alone():
    x, y = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(20, dtype=np.int32) % 2
    digests = set()
    for step in (1, 3, 7, 20):
        with writer(shard_bytes=60, overwrite=True) as shards:
            for start in range(0, 20, step):
                shards.add("train", x[start : start + step], y[start : start + step])
        digests.add(digest())
        assert [part.rows for part in read_manifest(Path("out")).splits["train"]] == [5, 5, 5, 5]
        np.testing.assert_array_equal(read("out").x_train, x)
    assert len(digests) == 1
    with writer("other", ("a", "c"), shard_bytes=60) as shards:
        shards.add("train", x, y)
    assert digest("other") not in digests  # of other facts


def written(*added):
    with writer() as shards:
        for split, x, y in added:
            shards.add(split, x, y)


def test_the_writer_takes_what_a_dataset_holds():
    x, y = np.zeros((4, 2), np.float32), np.zeros(4, np.int32)
    wrong = {
        "y is int64": [("train", x, y.astype(np.int64))],
        "x is object": [("train", x.astype(object), y)],
        "one row per example": [("train", x, y[:2])],
        "of those before": [("train", x, y), ("val", x.astype(np.float64), y)],
        "no example is left": [("val", x, y)],
        "did you mean 'train'": [("trian", x, y)],
    }
    for match, added in wrong.items():
        with fails(ValueError, match):
            written(*added)
    assert not everything()


def changed(**changes):
    """A function that changes what a manifest says."""

    def change(content):
        content.update(changes)

    return change


def of_part(**changes):
    def change(content):
        content["splits"]["train"][0].update(changes)

    return change


def lost_part(content):
    del content["splits"]["train"][0]["x"]


def a_part_twice(content):
    content["splits"]["train"][1] = content["splits"]["train"][0]


def lost_weights(content):
    content["splits"]["train"][1]["weight"] = None


MANIFESTS = {
    "newer": (changed(format="funcnet shards 9", version=9), r"was written by a newer funcnet"),
    "of a run": (changed(format="funcnet run 1"), r"is not the manifest"),
    "two versions": (changed(version=2), r"is not the manifest"),
    "no list": (changed(splits={"train": 3, "val": [], "test": []}), r"is damaged"),
    "no splits": (changed(splits=None), r"is damaged"),
    "no shard": (changed(splits={"train": [], "val": [], "test": []}), r"no shard to train on"),
    "task": (changed(task="guessing"), r"do not go together"),
    "class names": (changed(class_names="ab"), r"do not go together"),
    "no classes": (changed(class_names=[]), r"do not go together"),
    "digest": (changed(digest="0" * 63), r"do not go together"),
    "encoding": (changed(encoding={"features": 3}), r"no encoding of a table"),
    "up": (of_part(x="../x.npy"), r"is no file beside it"),
    "absolute": (of_part(x="/etc/x.npy"), r"is no file beside it"),
    "of Windows": (of_part(x="..\\x.npy"), r"is no file beside it"),
    "another drive": (of_part(x="c:x.npy"), r"is no file beside it"),
    "hidden": (of_part(x=".x.npy"), r"is no file beside it"),
    "another kind": (of_part(x="dataset.json"), r"is no file beside it"),
    "control characters": (of_part(x="x\x1b.npy"), r"is no file beside it"),
    "no name": (of_part(x=3), r"is no shard"),
    "missing": (of_part(x="x_train-00009.npy"), r"x_train-00009.npy is missing"),
    "no rows": (of_part(rows=0), r"is no number of rows"),
    "fewer rows": (of_part(rows=-4), r"is no number of rows"),
    "huge": (of_part(rows=10**40), r"is no number of rows"),
    "many rows": (of_part(rows=2**40), r"\[4, 4\], but dataset.json says 1,099,511,627,776 rows"),
    "a bool": (of_part(rows=True), r"is no number of rows"),
    "half a row": (of_part(rows=4.0), r"is no number of rows"),
    "without x": (lost_part, r"is damaged: 'x'"),
    "twice": (a_part_twice, r"names a file twice"),
    "some weights": (lost_weights, r"some shards have weights"),
    "y for x": (of_part(x="y_val-00000.npy", y="x_val-00000.npy"), r"twice|y_val"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests_are_refused(name):
    change, match = MANIFESTS[name]
    shutil.copytree(STORED, "there")
    path = Path("there/dataset.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError), match=match) as error:
        read_manifest(Path("there"))
    assert "\n" not in str(error.value)
    assert "there/" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, '{"format": 3}', "\xff"])
def test_what_is_no_manifest_is_refused(text):
    Path("there").mkdir()
    Path("there/dataset.json").write_bytes(text.encode("latin-1"))
    assert holds_shards("there")
    with pytest.raises(ValueError, match=r"there/dataset.json is (damaged|not the manifest)"):
        read_manifest(Path("there"))


def array_of(array):
    return lambda path: np.save(path, array)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def hostile_header(path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 99999999999999), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def link_out(path):
    np.save("x.npy", np.zeros((4, 4), np.float32))
    path.unlink()
    path.symlink_to(Path("x.npy").absolute())


def pipe(path):
    import os

    path.unlink()
    os.mkfifo(path)


FILES = {
    "cut": ("x", cut, r"is damaged: it has 191 bytes"),
    "longer": ("x", longer, r"is damaged"),
    "empty": ("x", empty, r"is damaged"),
    "a huge header": ("x", hostile_header, r"is damaged"),
    "other rows": ("x", array_of(np.zeros((5, 4), np.float32)), r"\[5, 4\], but .* says 4 rows"),
    "other columns": ("x", array_of(np.zeros((4, 3), np.float32)), r"all shards are of one form"),
    "other dtype": ("x", array_of(np.zeros((4, 4))), r"all shards are of one form"),
    "objects": ("x", array_of(np.array([[None] * 4] * 4)), r"Python objects"),
    "complex": ("x", array_of(np.zeros((4, 4), complex)), r"one form"),
    "Fortran": ("x", array_of(np.zeros((4, 4), np.float32, "F")), r"Fortran order"),
    "a number": ("x", array_of(np.float32(3)), r"\[\], but .* says 4 rows"),
    "int64 classes": ("y", array_of(np.zeros(4, np.int64)), r"all shards are of one form"),
    "float32 weights": ("weight", array_of(np.zeros(4, np.float32)), r"one form"),
    "a link out": ("x", link_out, r"a link that leads out"),
    "a pipe": ("x", pipe, r"is a pipe, and no file"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_arrays_are_refused(name):
    kind, change, match = FILES[name]
    shutil.copytree(STORED, "there")
    change(Path(f"there/{kind}_train-00000.npy"))
    with pytest.raises(ValueError, match=match) as error:
        read_manifest(Path("there"))
    assert f"there/{kind}_train-0000" in str(error.value)


@pytest.mark.parametrize("kind", ["x", "y", "weight"])
def test_forms_that_no_dataset_has_are_refused(kind):
    shutil.copytree(STORED, "there")
    for path in Path("there").glob(f"{kind}_*.npy"):
        np.save(path, np.load(path).astype(np.complex64 if kind == "x" else np.int16))
    with pytest.raises(ValueError, match=rf"{kind}_.* is .*, expected "):
        read_manifest(Path("there"))


def test_headers_alone_are_read(monkeypatch):
    shutil.copytree(STORED, "there")
    monkeypatch.setattr(np.lib.format, "read_array", None)
    monkeypatch.setattr(np, "load", None)
    assert len(read_manifest(Path("there")).splits["train"]) == 2


# The command


def test_the_command_says_what_it_has_made():
    path = write_table()
    code, out, err = run("datasets", "convert", path, "my shards", "--label", "kind", "--drop", "w")
    assert code == 0
    first, last = out.splitlines()
    found = read("my shards")
    counts = [f"{len(x):,}" for x in found[:6:2]]
    assert first == (
        f"282 examples in 3 shards in my shards: {counts[0]} to train, {counts[1]} to validate, "
        f"{counts[2]} to test; x float64 [{found.x_train.shape[1]}]"
    )
    assert last == "to train on it: funcnet train --dataset 'my shards'"
    assert re_note(err, "left out")
    code, _, err = run("datasets", "convert", path, "my shards", "--label", "kind")
    assert (code, "--overwrite" in err) == (2, True)
    options = ("--label", "kind", "--overwrite", "--quiet", "--test-fraction", 0)
    code, out, err = run("datasets", "convert", path, "my shards", *options)
    assert (code, ", 0 to test;" in out) == (0, True)


def re_note(text, what):
    return all(line.startswith("note: ") for line in text.splitlines()) and what in text


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("convert",), "convert what? give a file or folder and the directory to make"),
        (("convert", "data.csv"), "convert data.csv to what?"),
        (("convert", "--label", "kind", "data.csv", "out"), "before the options"),
        (("convert", "digits", "out"), "digits is a dataset, and needs no converting"),
        (("convert", "data.csv", "out", "--data-dir", "x"), "--data-dir is for datasets that"),
        (("convert", "data.csv", "out", "--image-size", 3, 3), "image_size is for folders"),
        (("show", "data.csv", "out"), "show takes one name"),
        (("list", "--overwrite"), "--overwrite is for convert, not for list"),
        (("download", "--label", "x"), "--label is for show and convert, not for download"),
        (("conver", "data.csv", "out"), "did you mean 'convert'"),
    ],
)
def test_wrong_words_are_one_line(words, match):
    write_table()
    code, out, err = run("datasets", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert match in err
    assert sorted(everything()) == ["data.csv"]


def test_an_interrupted_command_says_so(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "add", interrupted)
    code, out, err = run("datasets", "convert", write_table(), "out", "--label", "kind")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "funcnet datasets: interrupted; out is as it was"
    assert sorted(everything()) == ["data.csv"]


def test_shards_have_a_usual_size():
    assert shard_files.SHARD_BYTES == 256 * 2**20
