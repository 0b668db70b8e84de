"""Files and directories that mean harm: refused by name, nothing run, nothing written elsewhere."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import stat
import struct
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from command import run
from pyarrow import ipc, parquet

import funcnet as fn
from funcnet.datasets import DataWarning, delimited, limits, sources
from funcnet.tensors import load_tensors, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore::funcnet.datasets.DataWarning")
STORED = Path(__file__).parent / "stored"
NET = fn.mlp([4], 3)
SHIFTY = "\x1b]0;owned\x07\x1b[2J\u202e"  # sets a title, clears the screen, turns the direction


@pytest.fixture(autouse=True)
def no_hang():
    """What blocks ends with an error."""

    def late(number, frame):
        raise AssertionError("it blocks")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.delenv("FUNCNET_DATA", raising=False)
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setattr(sources, "WAIT", 0.05)


def raises(match, kind=ValueError):
    """The error must match, and be one line that a terminal may show."""
    return pytest.raises(kind, match=rf"(?s)\A(?!.*[\x00-\x1f\x7f-\x9f\u202e]).*{match}")


def refused(path, match, argv):
    """The command says in one line what is wrong with the file."""
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.endswith("\n")
    assert re.search(match, err), err
    assert str(path) in err
    assert err.count("\n") == 1
    assert err[:-1].isprintable()


def state():
    return fn.init_train_state(NET, fn.sgd(0.1), (5,), key=jax.random.key(0))


def dataset():
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    y = np.arange(40) % 3
    return fn.Dataset(x, y, x[:9], y[:9], x[:0], y[:0], ("a", "b", "c"))


def train(path, **changes):
    options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 20, "eval_every": None}
    return fn.fit(NET, fn.sgd(0.1), dataset(), checkpoint=path, **{**options, **changes})


# What is no file: a pipe that nobody writes to, a socket, a device that never ends


def in_a_directory(name, load):
    """A loader of a directory in which the file has a name."""

    def loader(path):
        directory = path.parent / "directory"
        (directory / name).parent.mkdir(parents=True)
        path.rename(directory / name)
        load(directory)

    return loader


def as_file_of_a_run(name, command):
    def loader(path):
        copy = path.parent / "copy"
        shutil.copytree(STORED / "run-3", copy)
        (copy / name).unlink()
        path.rename(copy / name)
        code, _, err = run(command, copy)
        assert code == 2
        raise ValueError(err.strip())

    return loader


LOADERS = {
    "x.npy": fn.read_inputs,
    "x_train.npy": fn.load_arrays,
    "a.npz": fn.load_arrays,
    "a.png": fn.read_inputs,
    "a.csv": fn.load_table,
    "a.csv.gz": fn.load_table,
    "a.zip": fn.load_table,
    "a.parquet": fn.load_table,
    "model.safetensors": lambda path: fn.load_model(path, NET),
    "state.safetensors": lambda path: fn.load_state(path, state()),
    "npy in a directory": in_a_directory("x.npy", fn.read_inputs),
    "checkpoint": in_a_directory(
        "epoch-00000001.safetensors", lambda path: train(path, resume=True)
    ),
    "model of a run": as_file_of_a_run("best.safetensors", "evaluate"),
    "configuration of a run": as_file_of_a_run("config.json", "evaluate"),
    "losses of a run": as_file_of_a_run("losses.csv", "verify"),
}


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def a_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_device])
@pytest.mark.parametrize("loader", LOADERS)
def test_what_is_no_file_is_refused_at_once(loader, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    path = Path(loader.replace(" ", "_"))
    make(path)
    where = "is a (pipe|socket|device)|link that leads out|has no config.json|is not there"
    with raises(where, (ValueError, FileNotFoundError)):
        LOADERS[loader](path)


def test_what_is_no_file_among_images_is_left_out_and_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / "x.png")
    with (
        pytest.warns(DataWarning, match=r"1 left out.*'x\.png'"),
        raises("no folders with images"),
    ):
        fn.load_images(tmp_path)


def test_cifar10_is_not_looked_for_in_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "cifar-10-binary.tar.gz")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    os.mkfifo(tmp_path / "cifar-10-batches-bin" / "test_batch.bin")
    with raises("no CIFAR-10 in .*funcnet datasets download cifar10", FileNotFoundError):
        fn.load_cifar10(tmp_path)


TABLE = "u,v,kind\n" + "".join(f"{i * i % 19},{i * i % 7},{'ab'[i % 2]}\n" for i in range(20))


def test_a_pipe_that_is_written_to_slowly_is_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.csv")
    monkeypatch.setattr(sources, "WAIT", 10)

    def write():
        with (tmp_path / "a.csv").open("w") as pipe:
            for line in TABLE.splitlines(keepends=True):
                pipe.write(line)
                pipe.flush()
                time.sleep(0.002)

    writer = threading.Timer(0.2, write)
    writer.start()
    table = fn.load_table(tmp_path / "a.csv")
    writer.join()
    (tmp_path / "b.csv").write_text(TABLE)
    for a, b in zip(table[:7], fn.load_table(tmp_path / "b.csv")[:7], strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_has_no_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "memory", lambda: 2**24)
    ends = threading.Event()
    os.mkfifo(tmp_path / "a.csv")

    def write():
        with contextlib.suppress(BrokenPipeError), (tmp_path / "a.csv").open("wb") as pipe:
            while not ends.is_set():
                pipe.write(b"1,2\n" * 1000)

    writer = threading.Thread(target=write)
    writer.start()
    monkeypatch.setattr(sources, "WAIT", 10)
    with peak_below(2**25), raises(r"a\.csv gives more than 8 MiB, half of the memory here"):
        fn.load_table(tmp_path / "a.csv")
    ends.set()
    writer.join()
    with Path("/dev/zero").open("rb") as zeros:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(zeros))
        with peak_below(2**25), raises("standard input gives more than 8 MiB"):
            fn.load_table("-")


class peak_below:
    """The memory of Python, and of Arrow, that what is done here takes."""

    def __init__(self, limit):
        self.limit = limit

    def __enter__(self):
        self.arrow = pa.default_memory_pool().max_memory()
        tracemalloc.start()

    def __exit__(self, *error):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        arrow = pa.default_memory_pool().max_memory()
        assert peak < self.limit
        assert arrow < self.limit or arrow == self.arrow


# Pickles


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


PICKLED = [*(n for n in LOADERS if "." in n and n != "x_train.npy"), "a.arrow", "a.jpg", "a.tsv"]


@pytest.mark.parametrize("name", PICKLED)
def test_nothing_is_unpickled(name, tmp_path):
    evil = Evil(tmp_path / "owned")
    path = tmp_path / name
    load = LOADERS.get(name, fn.read_inputs if name == "a.jpg" else fn.load_table)
    contents = [pickle.dumps(evil), pickle.dumps(evil, 0)]
    if name.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, np.array([evil], object))
        contents.append(buffer.getvalue())
    if name.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez(buffer, x=np.array([evil], object), y=np.array([evil], object))
        contents.append(buffer.getvalue())
    for content in contents:
        path.write_bytes(content)
        with raises(re.escape(name)):
            load(path)
    pickle.loads(contents[0])
    assert (tmp_path / "owned").exists()
    (tmp_path / "owned").unlink()
    path.write_bytes(contents[-1])
    with raises(re.escape(name)):
        load(path)
    assert [each.name for each in tmp_path.iterdir()] == [name]


# Links


@pytest.fixture
def precious(tmp_path):
    """A file of somebody's that must stay as it is."""
    path = tmp_path / "precious"
    path.write_text("as it was")
    yield path
    assert path.read_text() == "as it was"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_that_is_a_link_is_not_written_to(link, precious, tmp_path):
    (tmp_path / "kept").mkdir()
    link(precious, tmp_path / "kept" / ".lock")
    with raises(r"kept/\.lock is (a link|the file of something else).*: remove it"):
        train(tmp_path / "kept", resume=True)
    (tmp_path / "kept" / ".lock").unlink()
    (tmp_path / "kept" / ".lock").symlink_to(tmp_path / "made")
    with raises(r"kept/\.lock is a link"):
        train(tmp_path / "kept")
    assert not (tmp_path / "made").exists()
    (tmp_path / "kept" / ".lock").unlink()
    for _ in range(4):  # one that a run has left is nothing else's
        train(tmp_path / "kept", resume=True)
        assert (tmp_path / "kept" / ".lock").read_text() == str(os.getpid())


def test_files_that_are_links_are_replaced_not_followed(precious, tmp_path):
    for name in ("m.safetensors", "s.safetensors"):
        (tmp_path / name).symlink_to(precious)
    params, empty, _ = NET.init(jax.random.key(0), (5,))
    fn.save_model(tmp_path / "m.safetensors", fn.Model(NET, params, empty, fn.no_preprocess(None)))
    fn.save_state(tmp_path / "s.safetensors", state())
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "epoch-00000002.safetensors").symlink_to(precious)
    with raises(r"epoch-00000002\.safetensors is not a safetensors file"):
        train(tmp_path / "kept", resume=True)
    (tmp_path / "kept" / "epoch-00000002.safetensors").unlink()
    (tmp_path / "kept" / ".epoch-1.safetensors.0123456789abcdef.tmp").symlink_to(precious)
    train(tmp_path / "kept")
    for name in ("m.safetensors", "s.safetensors"):
        assert not (tmp_path / name).is_symlink()


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz.part", ".cifar-10-binary.tar.gz.lock"])
@pytest.mark.parametrize("make", [os.symlink, lambda target, path: os.mkfifo(path)])
def test_a_download_writes_to_no_link_and_no_pipe(name, make, precious, tmp_path):
    (tmp_path / "data").mkdir()
    make(precious, tmp_path / "data" / name)
    with raises(rf"{re.escape(name)} is a link, or something else that is no file: remove it"):
        fn.download_cifar10(tmp_path / "data", url="http://127.0.0.1:9/none", progress=False)


def test_arrays_beside_each_other_may_not_be_links_that_lead_out(tmp_path):
    np.save(tmp_path / "secret.npy", np.eye(3))
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "y.npy", np.arange(3) % 2)
    (data / "x.npy").symlink_to(tmp_path / "secret.npy")
    for load in (fn.read_inputs, fn.load_arrays, fn.datasets.load_dataset):
        with raises(r"data/x\.npy is a link that leads out of .*data: put a copy in its place"):
            load(data)
    assert fn.read_inputs(data / "x.npy").shape == (3, 3)  # this one was asked for


def zipped(path, name, content=TABLE, mode=0o644):
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("-" * len(name))
        member.external_attr = mode << 16
        archive.writestr(member, content)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"-" * len(name), name.encode()))  # as zipfile would not have it
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../a.csv", 0o644),
        ("/tmp/a.csv", 0o644),
        ("a/../../b.csv", 0o644),
        ("..\\..\\a.csv", 0o644),
        ("C:\\a.csv", 0o644),
        ("a.csv", stat.S_IFLNK | 0o777),
    ],
)
def test_members_of_a_zip_that_lead_out_or_are_links_are_refused(name, mode, tmp_path):
    path = zipped(tmp_path / "a.zip", name, mode=mode)
    with raises(r"a\.zip: '.*a?b?\.csv' in it is a link, or leads out"):
        fn.load_table(path)
    assert len(fn.load_table(zipped(path, "12:30 b.csv", mode=stat.S_IFREG | 0o644)).x_train)


# Names and words with control characters


def test_names_with_control_characters_are_refused_and_not_shown_as_they_are(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / f"{SHIFTY}.png").touch()
    with raises(r"images/a has '\\x1b.*\\u202e\.png', of control characters: rename it"):
        fn.load_images(tmp_path / "images")
    (tmp_path / "images" / f"b{SHIFTY}").mkdir()
    with raises(r"images has 'b\\x1b.*', of control characters: rename it"):
        fn.load_images(tmp_path / "images")
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / f"{SHIFTY}.npy", np.eye(3))
    with raises(r"arrays has '\\x1b.*', of control characters"):
        fn.read_inputs(tmp_path / "arrays")


def test_names_in_archives_are_shown_as_they_may_be(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(30):
            archive.writestr(f"{SHIFTY}{i}.csv", TABLE)
    with raises(r"must hold one file, found '\\x1b.*' and 18 more: unpack it"):
        fn.load_table(tmp_path / "a.zip")
    np.savez(tmp_path / "a.npz", **{SHIFTY: np.eye(3)})
    with raises(r"no array 'x' .*'\\x1b"):
        fn.load_arrays(tmp_path / "a.npz")
    folder = "cifar-10-batches-bin"
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(f"{folder}/../{SHIFTY}")
        archive.addfile(member)
    with raises(r"'cifar-10-batches-bin/\.\./\\x1b.*' points outside"):
        fn.load_cifar10(tmp_path)


def test_what_is_said_of_a_table_can_be_shown(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TABLE.replace("u,v,kind", f"u{SHIFTY},v,kind").replace(",a\n", f",a{SHIFTY}\n"))
    with raises(r"unknown column 'kin': did you mean 'kind'\? known: kind, u\\x1b"):
        fn.load_table(path, "kin")
    model_of = fn.load_table(path)
    (tmp_path / "b.csv").write_text(TABLE)
    with raises(r"has no column 'u\\x1b.*', which the network was trained on"):
        fn.load_table(tmp_path / "b.csv", encoding=model_of.encoding)
    code, out, err = run("datasets", "show", path)
    assert (code, err) == (0, "")
    assert "u\\x1b]0;owned" in out
    assert "a\\x1b]0;owned" in out
    assert out.replace("\n", "").isprintable()
    path.write_text(f"a{SHIFTY},b{SHIFTY}\n1,2\n3,4\n")
    with raises(r"which column is the label.*its columns: a\\x1b"):
        fn.load_table(path)
    path.write_text(f"a{SHIFTY},a{SHIFTY},y\n1,2,0\n3,4,1\n")
    refused(
        path, r"unknown column 'x'.*known: a\\x1b", ["train", "--dataset", path, "--label", "x"]
    )


def test_a_name_that_is_typed_is_shown_as_it_may_be(tmp_path):
    for argv in (["evaluate", f"r{SHIFTY}"], ["predict", STORED / "run-3", f"x{SHIFTY}.npy"]):
        code, _, err = run(*argv)
        assert code == 2
        assert "\\x1b]0;owned" in err
        assert err[:-1].isprintable()


# Bombs


def test_a_line_of_too_many_cells_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.csv.gz"
    for text in (b"," * 34_000_000, b"a b " * 8_500_000, b"u,kind\n1,a\n" + b";" * 34_000_000):
        path.write_bytes(gzip.compress(text, 1))
        with peak_below(2**29), raises(r"a\.csv\.gz, line \d has more than 33,554,432 characters"):
            fn.load_table(path)
    monkeypatch.setattr(delimited, "MAX_COLUMNS", 100)
    for separator, text in (("comma", b"1," * 200), ("space", b"1 " * 200)):
        path.write_bytes(gzip.compress((text + b"\n") * 2))
        with raises(r"a\.csv\.gz, line 1 has more than 100 cells"):
            fn.load_table(path, separator=separator)


def test_a_table_of_too_many_numbers_is_refused_before_they_are_made(tmp_path, monkeypatch):
    words = "".join(f"{i % 60},{i % 61},{'ab'[i % 2]}\n" for i in range(2000))
    (tmp_path / "a.csv").write_text("u,v,kind\n" + words)
    fn.load_table(tmp_path / "a.csv", "kind", categorical=["u", "v"])
    monkeypatch.setattr(limits, "memory", lambda: 500_000)
    with raises(r"a\.csv, as 121 numbers a row, holds 945 KiB, more than the 488 KiB of memory"):
        fn.load_table(tmp_path / "a.csv", "kind", categorical=["u", "v"])


def arrow(table, compression="zstd"):
    buffer = io.BytesIO()
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_file(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def as_parquet(table):
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def repeated(count, word):
    """A column of one word, which is there once."""
    indices = pa.array(np.zeros(count, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([word]))


def views(count, word):
    """The same in another way."""
    each = np.tile(np.array([len(word), int.from_bytes(word[:4], "little"), 0, 0], "<i4"), count)
    buffers = [None, pa.py_buffer(each), pa.py_buffer(word)]
    return pa.Array.from_buffers(pa.string_view(), count, buffers)


COLUMNAR = {
    "zeros": lambda: arrow(pa.table({"a": np.zeros(2**22)})),
    "zeros in a dictionary": lambda: arrow(
        pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(np.zeros(2**22)))})
    ),
    "nothing": lambda: arrow(pa.table({"a": pa.nulls(2**22)})),
    "runs": lambda: arrow(
        pa.table({"a": pa.RunEndEncodedArray.from_arrays(pa.array([2**30]), pa.array([1.0]))})
    ),
    "a word in Arrow": lambda: arrow(pa.table({"a": repeated(1000, "x" * 2**16)})),
    "views of a word": lambda: arrow(pa.table({"a": views(1000, b"x" * 2**16)})),
    "a word in Parquet": lambda: as_parquet(
        pa.table({"a": repeated(1000, "x" * 2**16).cast(pa.string())})
    ),
    "a dictionary in Parquet": lambda: as_parquet(pa.table({"a": repeated(1000, "x" * 2**16)})),
    "bytes in Parquet": lambda: as_parquet(
        pa.table({"a": pa.array([b"x" * 2**16] * 1000, pa.binary(2**16))})
    ),
    "a number in Parquet": lambda: as_parquet(pa.table({"a": np.zeros(2**22)})),
}


@pytest.mark.parametrize("case", COLUMNAR)
def test_columns_that_unpack_to_too_much_are_refused(case, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE", 2**20)
    path = tmp_path / "a.table"
    path.write_bytes(COLUMNAR[case]())
    assert path.stat().st_size < 2**18
    with peak_below(2**23), raises(r"a\.table (would unpack to|holds) .*(more than|of memory)"):
        fn.load_table(path)


def test_lists_in_a_parquet_file_are_left_out_unread(tmp_path):
    """How many values they have is nowhere said before they are."""
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=9), "list": [[1.0] * 3] * 9, "kind": list("uvuvuvuvu")}
    (tmp_path / "a.table").write_bytes(as_parquet(pa.table(columns)))
    with pytest.warns(DataWarning, match=r"left out, since they hold lists: 'list.list.element'"):
        table = fn.load_table(tmp_path / "a.table", "kind")
    assert table.encoding.names == ("a",)


def test_damaged_columns_are_refused_by_name(tmp_path):
    """Pyarrow says so in many ways; of some damage it ends the process, unless asked for less."""
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=50), "kind": rng.choice(["x", "y"], 50)})
    path = tmp_path / "a.table"
    for data in (arrow(table, None), arrow(table), as_parquet(table)):
        for _ in range(150):
            damaged = bytearray(data)
            for place in rng.integers(len(data), size=3):
                damaged[place] = rng.choice([0, 127, 128, 255])
            path.write_bytes(damaged)
            try:
                fn.load_table(path, "kind")
            except ValueError as error:
                assert "a.table" in str(error)
                assert str(error).isprintable()


def test_columns_that_are_packed_are_read(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "a": rng.normal(size=300),
            "b": pa.array(rng.choice(["u", "v", None], 300)).dictionary_encode(),
            "c": pa.array(rng.choice(["u", "v", "w"], 300)).cast(pa.string_view()),
            "d": pa.array(rng.choice(["1", "2", "03"], 300)),  # numbers, for they all are such
            "kind": pa.array(rng.choice(["x", "y"], 300)),
        }
    )
    found = []
    for data in (*(arrow(table, c) for c in (None, "lz4", "zstd")), as_parquet(table)):
        (tmp_path / "a.table").write_bytes(data)
        found.append(fn.load_table(tmp_path / "a.table", "kind"))
    for other in found[1:]:
        for a, b in zip(found[0][:7], other[:7], strict=True):
            np.testing.assert_array_equal(a, b)


def header(name, size, kind):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


TARS = {
    "a long header": [(header("x", 2**28, tarfile.XHDTYPE), 2**28)],
    "a long name": [(header("x", 2**28, tarfile.GNUTYPE_LONGNAME), 2**28)],
    "many members": [(header("x", 0, tarfile.REGTYPE) * 2**11, 0)] * 2**8,
    "much behind the end": [(header("x", 0, tarfile.REGTYPE), 2**28)],
}


@pytest.mark.parametrize("case", TARS)
def test_archives_that_unpack_to_too_much_are_refused(case, tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        for head, size in TARS[case]:
            file.write(head)
            for _ in range(0, size, 2**20):
                file.write(bytes(2**20))
    with (
        peak_below(2**29),
        raises(r"tar\.gz is damaged \(it (unpacks to|has) more than"),
    ):
        fn.load_cifar10(tmp_path)


def test_a_file_larger_than_the_memory_is_not_read(tmp_path):
    for name in ("m.safetensors", "x.npy"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**43)  # of which the disk holds nothing
    for load in (LOADERS["model.safetensors"], LOADERS["state.safetensors"]):
        with peak_below(2**20), raises(r"m\.safetensors holds 8 TiB, more than the .* of memory"):
            load(tmp_path / "m.safetensors")
    with peak_below(2**20), raises(r"x\.npy cannot be read as \.npy: it holds 8 TiB"):
        fn.read_inputs(tmp_path / "x.npy")


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
ODD = {
    "a folder of the name of a file": (
        {"type": tarfile.DIRTYPE},
        r"'cifar-10-batches-bin/test_batch\.bin' is neither a file nor a directory",
    ),
    "a map of holes that is none": ({"pax_headers": SPARSE}, r"is damaged \(."),
}


@pytest.mark.parametrize("case", ODD)
def test_members_of_other_kinds_are_refused(case, tmp_path):
    facts, match = ODD[case]
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        for name, value in facts.items():
            setattr(member, name, value)
        member.size = 0 if member.isdir() else 1024
        archive.addfile(member, io.BytesIO(b"x" * 1024))
    with raises(rf"tar\.gz.* {match}"):
        fn.load_cifar10(tmp_path)


# Configurations


@pytest.fixture
def a_run(tmp_path):
    path = tmp_path / "run"
    shutil.copytree(STORED / "run-3", path)
    return path


def change(path, **changes):
    content = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**content, **changes}))


TEXTS = {
    "nested too deeply": b"[" * 10**6,
    "nested in an object": b'{"a":' * 10**6,
    "no UTF-8": b'{"format": "\xff"}',
    "a number of many digits": b'{"format": ' + b"9" * 10**5 + b"}",
    "an end of line": b'{"format": "\x1b[2J',
    "empty": b"",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_configuration_that_is_no_json_is_refused(case, a_run):
    (a_run / "config.json").write_bytes(TEXTS[case])
    with raises(r"config\.json is damaged: ."):
        fn.load_run(a_run)
    for argv in (["evaluate", a_run], ["train", "--resume", a_run], ["sweep", "show", a_run]):
        refused(a_run / "config.json", "is damaged: .", argv)


def test_a_configuration_without_end_is_refused(a_run):
    with (a_run / "config.json").open("wb") as file:
        file.truncate(2**40)
    with peak_below(2**28), raises(r"config\.json is damaged: it has more than 64 MiB"):
        fn.load_run(a_run)


FIELDS = {
    "format 0": ({"format": "funcnet run 0", "version": 0}, "is not the configuration of"),
    "format of many digits": ({"format": "funcnet run " + "9" * 5000}, "is not the configuration"),
    "a newer one": ({"format": "funcnet run 99", "version": 99}, "was written by a newer funcnet"),
    "integer above all floats": ({"learning_rate": 10**400}, "learning_rate is 1000"),
    "NaN": ({"keep_prob": float("nan")}, "keep_prob is nan"),
    "a long word": ({"loss": "softmax" * 10**6}, "loss is 'softmax"),
    "a word of control characters": ({"activation": SHIFTY}, r"activation is '\\x1b"),
    "a list for a word": ({"optimizer": ["adam"]}, r"optimizer is \['adam'\]"),
    "an object for numbers": ({"hidden_dims": {"a": 1}}, "hidden_dims is"),
    "a million layers of nothing": ({"hidden_dims": [None] * 10**6}, "hidden_dims is"),
    "no names": ({"class_names": [1, None, {}]}, "class_names are not all names"),
    "names that are one": ({"class_names": "abc"}, "class_names is 'abc'"),
    "results that are a list": ({"results": [1]}, r"results is \[1\]"),
    "results that are nothing": ({"results": None}, "results is None"),
    "more epochs than there are": (
        {"results": {"epochs": 10**400}},
        "epochs in its results are no number",
    ),
    "fewer epochs than none": ({"results": {"epochs": -1}}, "epochs in its results are no number"),
    "epochs that are a word": ({"results": {"epochs": "3"}}, "epochs in its results are no number"),
    "versions": ({"versions": "0.2.0"}, "versions is '0.2.0'"),
    "machine": ({"machine": [1]}, r"machine is \[1\]"),
    "title": ({"title": {"a": 1}}, "title is"),
    "no epochs": ({"epochs": None}, "it has no number of epochs"),
    "a name without end": ({"dataset": "a" * 10**5}, "unknown dataset 'aaa"),
    "a pipe": ({"dataset": 3}, "dataset is 3"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_configuration_of_other_things_is_refused_by_name(case, a_run):
    changes, match = FIELDS[case]
    change(a_run, **changes)
    with raises(rf"config\.json (is damaged: )?.*{match}") as error:
        fn.load_run(a_run)
    assert len(str(error.value)) < 500
    for command in ("evaluate", "verify"):
        refused(a_run / "config.json", match, [command, a_run])


def test_the_data_of_a_configuration_may_be_no_device_and_no_pipe(a_run, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in ("/dev/zero", tmp_path / "pipe.csv"):
        change(a_run, dataset=str(path))
        refused(path, f"{path} is a (pipe|device), and no", ["evaluate", a_run])


def test_unknown_names_in_a_configuration_are_named_with_the_nearest(a_run, tmp_path):
    change(a_run, learning_rat=1, **{SHIFTY: 2})
    with pytest.warns(UserWarning, match="does not know") as said:
        fn.load_run(a_run)
    lines = [str(each.message) for each in said]
    assert lines[0].endswith(
        "config.json has 'learning_rat', which this funcnet does not know; did you mean "
        "'learning_rate'?"
    )
    assert lines[1].endswith("\\u202e', which this funcnet does not know")
    code, _, err = run("evaluate", a_run)
    assert code == 0
    assert err.splitlines() == [f"warning: {line}" for line in lines]
    content = json.loads((a_run / "config.json").read_text())
    del content[SHIFTY]
    with pytest.warns(UserWarning, match="config has 'learning_rat',.* mean 'learning_rate'"):
        fn.experiment(content, fn.load_digits())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stored", ["run-3", "sweep-3"])
def test_every_command_says_unknown_names_in_a_line(stored, tmp_path):
    shutil.copytree(STORED / stored, tmp_path / "kept")
    change(tmp_path / "kept", learning_rat=1)
    words = ["sweep", "show"] if stored == "sweep-3" else ["train", "--quiet", "--resume"]
    _, _, err = run(*words, tmp_path / "kept")  # of which the first is finished
    lines = [line for line in err.splitlines() if "learning_rat'" in line]
    assert lines == [
        f"warning: {tmp_path}/kept/config.json has 'learning_rat', which this funcnet does not "
        "know; did you mean 'learning_rate'?"
    ]


ROW = json.loads((STORED / "sweep-4" / "table.json").read_text())[0]
ROWS = {
    "nested too deeply": b"[" * 10**6,
    "no rows": b"[]",
    "a row of other names": json.dumps([ROW, {**ROW, "more": 1}]).encode(),
    "a row of fewer names": json.dumps([ROW, dict(list(ROW.items())[1:])]).encode(),
    "a word for a number": json.dumps([{**ROW, "val_accuracy": "0.9"}]).encode(),
    "a number above all floats": json.dumps([{**ROW, "val_loss": 10**400}]).encode(),
    "a list for a number": json.dumps([{**ROW, "epochs": [3]}]).encode(),
    "a number for a word": json.dumps([{**ROW, "status": 3}]).encode(),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_table_that_is_none_is_refused(case, tmp_path):
    path = shutil.copytree(STORED / "sweep-4", tmp_path / "kept")
    (path / "table.json").write_bytes(ROWS[case])
    refused(path / "table.json", "table.json is damaged: .", ["sweep", "show", path])


SWEPT = {
    "halving at words": ({"halve_at": ["a"]}, r"halve_at is \['a'\]"),
    "halving at nothing": ({"halve_at": None}, "halve_at is None"),
    "halving at True": ({"halve_at": [True]}, r"halve_at is \[True\]"),
    "chunks of True": ({"chunk_size": True}, "chunk_size is True"),
    "chunks of too many": ({"chunk_size": 10**400}, "chunk_size is 1000"),
    "chunks of none": ({"chunk_size": 0}, "chunk_size is 0"),
    "settings of another kind": ({"settings": [{"hidden_dims": "a"}]}, "hidden_dims is 'a'"),
    "settings of a later member": (
        {"settings": [{"seed": 0}, {"seed": 0, "learning_rat": 1}]},
        r"settings\[1\] has learning_rat, but settings\[0\] has not",
    ),
}


@pytest.mark.parametrize("case", SWEPT)
def test_a_sweep_of_other_things_is_refused(case, tmp_path):
    path, (changes, match) = (
        shutil.copytree(STORED / "sweep-4-interrupted", tmp_path / "kept"),
        SWEPT[case],
    )
    change(path, **changes)
    code, out, err = run("sweep", "resume", path)
    assert (code, out) == (2, "")
    assert re.search(match, err)
    assert err.count("\n") == 1


FACTS = {
    "no object": "[1]",
    "nested too deeply": "[" * 10**5,
    "no members": '{"identity": {}, "chunk_sizes": [], "by": {}}',
    "members that are none": '{"members": [99], "identity": {}, "chunk_sizes": [2], "by": {}}',
    "members below none": '{"members": [-1], "identity": {}, "chunk_sizes": [2], "by": {}}',
    "a word": '{"members": ["a"], "identity": {}, "chunk_sizes": [2], "by": {}}',
    "another identity": '{"members": [0], "identity": {"data": 3}, "chunk_sizes": [2], "by": {}}',
}


@pytest.mark.parametrize("case", FACTS)
def test_members_whose_checksum_is_right_are_checked_all_the_same(case, tmp_path):
    path = shutil.copytree(STORED / "sweep-4-interrupted", tmp_path / "kept")
    (file,) = (path / "members").glob("*.safetensors")
    save_tensors(file, {"numbers/epochs": np.array([1])}, kind="member", run=FACTS[case])
    refused(file, r"(is damaged: |is of another sweep: its data is 3)", ["sweep", "resume", path])


def test_members_of_other_arrays_are_refused(tmp_path):
    path = shutil.copytree(STORED / "sweep-4-interrupted", tmp_path / "kept")
    (file,) = (path / "members").glob("*.safetensors")
    whole, metadata = load_tensors(file, kind="member")
    changes = [
        ("numbers/epochs", np.zeros((0,))),
        ("numbers/status", np.array([77, 77])),
        ("numbers/status", np.array([-1, -1])),
        ("history/epoch", np.zeros((2, 1), int)),
        ("best/numbers/epoch", np.array([77, 77])),
        ("best/numbers/loss", np.zeros((0,))),
        ("history/loss", np.zeros(())),
        ("run/params/affine1/w", np.zeros((2, 3), np.float32)),
        ("best/params/affine1/b", np.zeros((2, 8), np.float64)),
    ]
    for name, leaf in changes:
        leaves = {**whole, name: leaf}
        save_tensors(file, leaves, kind="member", run=metadata["run"])
        refused(file, "(is damaged: |is of another net)", ["sweep", "resume", path])


def test_unknown_names_of_options_are_refused_with_the_nearest():
    digits = fn.load_digits()
    for use in (
        lambda: fn.experiment({"learning_rat": 1}, digits),
        lambda: fn.experiment({**fn.Config(), "learning_rat": 1}, digits),
        lambda: fn.load_recipe("digits", learning_rat=1),
    ):
        with raises("unknown option 'learning_rat': did you mean 'learning_rate'"):
            use()
    with raises(r"unknown option '\\x1b.*': known"):
        fn.experiment({SHIFTY: 1}, digits)
    with raises("unknown option 'xxx.*: known: activation"):
        fn.experiment({"x" * 10**7: 1}, digits)


# Checkpoints and models whose checksum is right


def leaves_of(tree, within=""):
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {f"{within}{'/'.join(str(k.key) for k in path)}": leaf for path, leaf in found}


def good_model():
    params, _, _ = NET.init(jax.random.key(0), (5,))
    return leaves_of({"params": params})


TREES = {
    "a leaf where there is a dict": {"params/affine1": np.ones(3)},
    "a dict below a leaf": {"params/affine1/w/more": np.ones(3)},
    "far below a leaf": {"params/affine1/w/more/and/more": np.ones(3)},
    "no dict at all": {"params": np.ones(3)},
    "too deep": {"/".join("a" * 20_000): np.ones(3)},
    "control characters": {f"params/affine1/w/{SHIFTY}": np.ones(3)},
}


@pytest.mark.parametrize("case", TREES)
def test_models_of_impossible_trees_are_refused(case, tmp_path):
    path = tmp_path / "m.safetensors"
    save_tensors(path, good_model() | TREES[case], kind="model", preprocess="no_preprocess")
    with raises(r"m\.safetensors: there can be no leaf '") as error:
        fn.load_model(path, NET)
    assert len(str(error.value)) < 500


PREPROCESSINGS = {
    "no stats": ("standardize", {}, "the preprocessing standardize has no numbers called mean"),
    "half of them": ("standardize", {"mean": np.zeros(5)}, "has no numbers called scale"),
    "numbers of Python": ("subtract_mean", {"mean": 3}, "has no numbers called mean"),
    "complex ones": ("subtract_mean", {"mean": 1j * np.ones(5)}, "has no numbers called mean"),
    "keys": ("shuffle_features", {"order": jax.random.key(0)}, "has no numbers called order"),
    "those of another": ("whiten", {"mean": np.zeros(5)}, "whiten has no numbers called matrix"),
    "of a chain": ("no_preprocess+whiten", {"1/mean": np.zeros(5)}, "whiten has no numbers"),
    "no dict in a chain": ("no_preprocess+whiten", {"2": np.zeros(5)}, "whiten has no numbers"),
    "no kind": ("\x1b[2J", {}, r"unknown preprocessing '\\x1b\[2J': known"),
}


@pytest.mark.parametrize("case", PREPROCESSINGS)
def test_a_preprocessing_that_cannot_be_applied_is_refused(case, tmp_path):
    kind, stats, match = PREPROCESSINGS[case]
    stats = {f"preprocess/{name}": leaf for name, leaf in stats.items()}
    save_tensors(tmp_path / "m.safetensors", good_model() | stats, kind="model", preprocess=kind)
    with raises(rf"m\.safetensors: .*{match}"):
        fn.load_model(tmp_path / "m.safetensors", NET)


@pytest.mark.parametrize("name", ["params", "state", "preprocess"])
def test_a_leaf_is_no_tree(name, tmp_path):
    path = tmp_path / "m.safetensors"
    save_tensors(path, {name: np.ones(3)}, kind="model", preprocess="no_preprocess")
    with raises(r"m\.safetensors: params, state and preprocess are not all trees"):
        fn.load_model(path, NET)


@pytest.mark.parametrize(
    "leaf", [np.zeros((64, 8), np.int8), np.zeros((64, 8), np.complex64), 3, jax.random.key(0)]
)
def test_parameters_of_a_run_that_are_no_numbers_are_refused(leaf, a_run):
    leaves, metadata = load_tensors(a_run / "best.safetensors", kind="model")
    leaves["params/affine1/w"] = leaf
    file = a_run / "best.safetensors"
    save_tensors(file, leaves, kind="model", preprocess=metadata["preprocess"])
    refused(file, "is damaged: its parameters are ", ["evaluate", a_run])


def signed(leaves, facts):
    """A file whose checksum is right, as whoever means harm makes it."""
    said = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(f"{said}\n".encode())
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return safetensors.numpy.save(arrays, {**facts, "sha256": digest.hexdigest()})


NOTES = {
    "nothing": "{}",
    "nested": "[" * 10**6,
    "no object": "[1, 2]",
    "no pair": '{"params/affine1/w": 3}',
    "an unknown dtype": '{"params/affine1/w": ["object", [4]]}',
    "an unknown key": '{"params/affine1/w": ["key \\u001b[2J", [4]]}',
    "another shape": '{"params/affine1/w": [">f4", [1000000000000]]}',
    "a negative shape": '{"params/affine1/w": [">f4", [-1, -1]]}',
    "no shape": '{"params/affine1/w": ["int", {"a": 1}]}',
    "another leaf": '{"params/affine9/w": ["int", []]}',
}


@pytest.mark.parametrize("case", NOTES)
def test_what_a_file_says_of_its_leaves_is_checked(case, tmp_path):
    path = tmp_path / "m.safetensors"
    facts = {"format": "funcnet model 2", "version": "2", "preprocess": "no_preprocess"}
    path.write_bytes(signed(good_model(), {**facts, "leaves": NOTES[case]}))
    if case == "nothing":
        fn.load_model(path, NET)
        return
    with raises(r"m\.safetensors is damaged"):
        fn.load_model(path, NET)


def feature(**changes):
    plain = {
        "name": "u",
        "kind": "number",
        "missing": False,
        "median": 0.0,
        "categories": [],
        "other": False,
        "order": "",
        "time": False,
    }
    return {**plain, **changes}


def encoding(*features, **changes):
    plain = {"features": features or [feature()], "label": "y", "named": True, "left_out": []}
    return json.dumps({**plain, "wide": None, **changes})


ENCODINGS = {
    "nested": "[" * 10**6,
    "no object": "[1]",
    "no features": encoding(features=[]),
    "another kind": encoding(feature(kind="\x1b[2J")),
    "a name that is a number": encoding(feature(name=3)),
    "a median that is a list": encoding(feature(median=[1])),
    "categories that are numbers": encoding(feature(kind="category", categories=[1])),
    "categories that are a number": encoding(feature(kind="category", categories=1)),
    "an order of its own": encoding(feature(kind="date", order="yyy")),
    "another field": encoding(feature(run="rm")),
    "a column twice": encoding(feature(), feature()),
    "a label that is a list": encoding(label=["y"]),
    "labels that are a word": encoding(labels="y"),
    "labels that are numbers": encoding(labels=[1]),
    "left out for no reason": encoding(left_out=[["a"]]),
    "left out for a number": encoding(left_out=[["a", 1]]),
    "places that are none": encoding(named=False),
    "named perhaps": encoding(named="perhaps"),
    "wide perhaps": encoding(wide="perhaps"),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_an_encoding_of_other_things_is_refused(case, tmp_path):
    path = tmp_path / "m.safetensors"
    options = {"kind": "model", "preprocess": "no_preprocess"}
    save_tensors(path, good_model(), encoding=ENCODINGS[case], **options)
    with raises(r"m\.safetensors is damaged: "):
        fn.load_model(path, NET)
    save_tensors(path, good_model(), encoding=encoding(), **options)
    assert fn.load_model(path, NET).encoding.columns == ("u",)


def test_leaves_of_a_state_are_named_as_they_may_be_shown(tmp_path):
    path = tmp_path / "s.safetensors"
    save_tensors(path, leaves_of({"params": {SHIFTY: np.ones(3)}}), kind="state")
    with raises(r"it has params/\\x1b.* besides"):
        fn.load_state(path, state())
    text = json.dumps({"a": {"dtype": SHIFTY, "shape": [], "data_offsets": [0, 0]}}).encode()
    raw = text.decode("unicode_escape").encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with raises(r"s\.safetensors is not a safetensors file, or is damaged: ."):
        fn.load_state(path, state())
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with raises(r"s\.safetensors is not a safetensors file"):
        fn.load_state(path, state())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The leaves and the facts of a checkpoint, and its identity."""
    path = tmp_path_factory.mktemp("kept")
    train(path, eval_every=1)
    leaves, metadata = load_tensors(path / "epoch-00000002.safetensors", kind="checkpoint")
    return leaves, json.loads(metadata["run"])


def with_facts(**changes):
    return lambda leaves, facts: (leaves, json.dumps({**facts, **changes}))


def without(name):
    return lambda leaves, facts: ({k: v for k, v in leaves.items() if k != name}, json.dumps(facts))


def with_leaf(name, leaf):
    return lambda leaves, facts: ({**leaves, name: leaf}, json.dumps(facts))


RUNS = {
    "nested": lambda leaves, facts: (leaves, "[" * 10**6),
    "no JSON": lambda leaves, facts: (leaves, "\x1b[2J"),
    "nothing": lambda leaves, facts: (leaves, ""),
    "no object": lambda leaves, facts: (leaves, "[1]"),
    "no identity": with_facts(identity=3),
    "no best model": with_facts(best={"epoch": 1}),
    "a best model of words": with_facts(best={"epoch": "1", "accuracy": "x", "loss": []}),
    "a best model that is none": with_facts(best=[1]),
    "a best model of no epoch": with_facts(best={"epoch": 77, "accuracy": 0.5, "loss": 1.0}),
    "columns that are none": with_facts(columns=3),
    "a column too few": with_facts(columns=["loss", "epoch", "train_loss"]),
    "epochs that are no numbers": with_leaf("history/epoch", np.full(3, np.nan)),
    "other columns": with_facts(columns=["loss", SHIFTY]),
    "no epochs": with_facts(columns=["loss", "train_loss"]),
    "a column of another length": with_leaf("history/train_loss", np.zeros(99)),
    "a column of two axes": with_leaf("history/epoch", np.zeros((3, 3))),
    "losses of two axes": with_leaf("history/loss", np.zeros((3, 3))),
    "no losses": without("history/loss"),
    "no parameters": without("run/params/affine1/w"),
    "parameters of another shape": with_leaf("run/params/affine1/w", np.zeros((2, 2), np.float32)),
    "not by anything": lambda leaves, facts: (
        leaves,
        json.dumps({k: v for k, v in facts.items() if k != "by"}),
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_checkpoints_of_other_things_are_refused(case, checkpoint, tmp_path):
    leaves, text = RUNS[case](*checkpoint)
    path = tmp_path / "epoch-00000002.safetensors"
    save_tensors(path, leaves, kind="checkpoint", run=text)
    with raises(r"epoch-00000002\.safetensors is (damaged|of another)"):
        train(tmp_path, resume=True, eval_every=1)


def test_what_a_checkpoint_says_it_is_of_is_shown_as_it_may_be(checkpoint, tmp_path):
    leaves, facts = checkpoint
    facts = {**facts, "identity": {**facts["identity"], "net": SHIFTY}}
    path = tmp_path / "epoch-00000002.safetensors"
    save_tensors(path, leaves, kind="checkpoint", run=json.dumps(facts))
    with raises(r"is of another run: its net is .*\\x1b"):
        train(tmp_path, resume=True, eval_every=1)


LOSSES = {
    "words": "step,loss\n1,a\x1b[2J\n",
    "one column": "step\n1\n2\n",
    "rows of other lengths": "step,loss\n1,2\n1\n",
}


@pytest.mark.parametrize("title", ["$\\frac{$.csv", f"{SHIFTY}.csv"])
def test_a_title_is_no_formula_and_draws_no_control_characters(title, tmp_path):
    history = train(tmp_path).history
    fn.plot_history(history, title=title).savefig(tmp_path / "curves.png")


@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_a_run_that_are_none_are_refused(case, a_run):
    (a_run / "losses.csv").write_text(LOSSES[case])
    refused(a_run / "losses.csv", "is damaged: .", ["verify", a_run])
