"""CIFAR-10: read from disk and from the archive, downloaded from a local server."""

import contextlib
import gzip
import hashlib
import inspect
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from marks import slow_but

from funcnet.datasets import download_cifar10, load_cifar10
from funcnet.datasets.archive import Archive

REAL = os.environ.get("FUNCNET_DATA")
SIZE = 30_730_000
RECORD = 3073
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
PART = ARCHIVE + ".part"
FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
AGAIN = "download again: funcnet datasets download cifar10"


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No proxy, and no data in the places of whoever runs the tests."""
    for variable in ("FUNCNET_DATA", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# Six files of the right size: zeros, but for a pixel and two labels that tell which is which.

MARK = 1 + 1024 + 2 * 32 + 3  # where in a record the pixel [1, 2, 3] is


def write_file(file, name):
    number = FILES.index(name)
    for position, value in ((0, number), (MARK, 100 + number), (9000 * RECORD, 9 - number)):
        file.seek(position)
        file.write(bytes([value]))
    file.truncate(SIZE)


def write_folder(folder, names=FILES):
    folder.mkdir()
    for name in names:
        with (folder / name).open("wb") as file:
            write_file(file, name)
    return folder


def content(name):
    file = io.BytesIO(bytes(SIZE))
    write_file(file, name)
    return file.getvalue()


def check_loads(root):
    data = load_cifar10(root, num_test=9001)
    assert [len(y) for y in data[1:6:2]] == [49000, 1000, 9001]
    np.testing.assert_array_equal(data.y_train[::10000], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(data.x_train[::10000, 1, 2, 3], [100, 101, 102, 103, 104])
    np.testing.assert_array_equal(data.y_train[9000::10000], [9, 8, 7, 6])
    assert (data.y_val[0], data.y_test[0], data.y_test[9000]) == (5, 5, 4)
    assert data.x_test[0, 1, 2, 3] == 105
    assert data.x_train.sum(dtype=int) == 510


def member(name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def make_archive(members):
    """The bytes of a .tar.gz of (TarInfo, data) pairs."""
    stream = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1, mtime=0) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture(scope="session")
def archive():
    """An archive that holds, like the official one, more than the six files."""
    folder, page = member(FOLDER, type=tarfile.DIRTYPE), member(f"{FOLDER}/readme.html", b"<p>")
    files = (member(f"{FOLDER}/{name}", content(name)) for name in FILES)
    return make_archive([folder, page, *files])


# On disk


@pytest.mark.skipif(not REAL, reason="needs CIFAR-10 in $FUNCNET_DATA")
def test_real_cifar10():
    data = load_cifar10(REAL)
    shapes = [x.shape for x in data[:6:2]]
    assert shapes == [(49000, 3, 32, 32), (1000, 3, 32, 32), (10000, 3, 32, 32)]
    assert {x.dtype for x in data[:6:2]} == {np.dtype(np.uint8)}
    assert {y.dtype for y in data[1:6:2]} == {np.dtype(np.int32)}
    train, val, test = (np.bincount(y, minlength=10) for y in data[1:6:2])
    assert set(train + val) == {5000}
    assert set(test) == {1000}
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert " ".join(data.class_names) == names
    # The sky above airplanes is bluer than the land around deer: the planes are in order.
    planes, deer = (data.x_train[data.y_train == label].mean(axis=(0, 2, 3)) for label in (0, 4))
    assert planes[2] > planes[0]
    assert deer[2] < deer[0]


def test_load_from_each_kind_of_place(root, tmp_path, monkeypatch, archive):
    folder = write_folder(root / FOLDER)
    check_loads(root)
    check_loads(str(folder))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / ARCHIVE).write_bytes(archive)
    (packed / ARCHIVE).rename(packed / "other.tgz")
    check_loads(packed / "other.tgz")
    (packed / "other.tgz").rename(packed / ARCHIVE)
    check_loads(packed)
    assert [path.name for path in packed.iterdir()] == [ARCHIVE]
    monkeypatch.setenv("FUNCNET_DATA", str(root))
    check_loads(None)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="their caches are elsewhere")
def test_load_from_the_cache(tmp_path, monkeypatch):
    place = tmp_path / "cache" / "funcnet"
    place.mkdir(parents=True)
    write_folder(place / FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    check_loads(None)
    monkeypatch.setenv("FUNCNET_DATA", str(tmp_path / "empty"))
    check_loads(None)
    with raises("no CIFAR-10 in", FileNotFoundError):
        load_cifar10(tmp_path / "empty")
    (tmp_path / "cache").rename(tmp_path / ".cache")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_loads(None)
    check_loads("~/.cache/funcnet")


def test_num_test(root):
    write_folder(root / FOLDER)
    assert len(load_cifar10(root).y_test) == 10000
    assert load_cifar10(root, num_test=0).x_test.shape == (0, 3, 32, 32)
    with raises("num_test must be at most 10,000, got 10,001"):
        load_cifar10(root, num_test=10_001)
    with raises("num_test must be at least 0"):
        load_cifar10(root, num_test=-1)
    with raises("num_test must be an integer", TypeError):
        load_cifar10(root, num_test=1000.0)


def test_not_found_says_where_it_looked(root, tmp_path, monkeypatch):
    monkeypatch.setenv("FUNCNET_DATA", str(root))
    places = f"{root} or .*funcnet.*"
    with raises(rf"{places}; to get it: funcnet datasets download cifar10", FileNotFoundError):
        load_cifar10()
    with raises(
        rf"no CIFAR-10 in {tmp_path / 'none'} .*--data-dir .* or \$FUNCNET_DATA", FileNotFoundError
    ):
        load_cifar10(tmp_path / "none")


@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_1", "cifar-10-python.tar.gz"])
def test_pickled_version_is_refused(root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b"\x80\x02}q\x00.")
    for place in (root, root / name.split("/")[0]):
        with raises("made of pickles.*get the binary version: funcnet", FileNotFoundError):
            load_cifar10(place)


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE - RECORD, SIZE + 1, SIZE + RECORD])
def test_file_of_the_wrong_size(root, size):
    file = write_folder(root / FOLDER) / "data_batch_3.bin"
    os.truncate(file, size)
    with raises(rf"data_batch_3\.bin has {size:,} bytes, expected 30,730,000.*{AGAIN}"):
        load_cifar10(root)


def test_file_with_a_wrong_label(root):
    file = write_folder(root / FOLDER) / "test_batch.bin"
    with file.open("r+b") as opened:
        opened.seek(7 * RECORD)
        opened.write(b"\x0a")
    with raises(rf"test_batch\.bin is damaged: image 7 has label 10.*{AGAIN}"):
        load_cifar10(root)


def test_missing_file(root):
    write_folder(root / FOLDER, FILES[:3])
    with raises(rf"data_batch_4\.bin is missing; {AGAIN}", FileNotFoundError):
        load_cifar10(root)


def test_archive_serves_when_the_folder_is_damaged(root, archive):
    write_folder(root / FOLDER, FILES[:3])
    (root / ARCHIVE).write_bytes(archive)
    check_loads(root)


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "../../outside"}
BAD_MEMBERS = {
    "parent": (member("../evil", b"x"), r"'\.\./evil' points outside"),
    "parent inside": (member(f"{FOLDER}/../../evil", b"x"), "evil' points outside"),
    "absolute": (member("/tmp/funcnet-evil", b"x"), "'/tmp/funcnet-evil' points outside"),
    "drive": (member("C:evil", b"x"), "'C:evil' points outside"),
    "stream of a file": (member("a/file:evil", b"x"), "'a/file:evil' points outside"),
    "symbolic link": (member(f"{FOLDER}/test_batch.bin", **LINK), "neither a file nor"),
    "hard link": (member(f"{FOLDER}/test_batch.bin", **HARD), "neither a file nor"),
    "device": (member(f"{FOLDER}/test_batch.bin", type=tarfile.CHRTYPE), "neither a file nor"),
    "fifo": (member(f"{FOLDER}/data_batch_1.bin", type=tarfile.FIFOTYPE), "neither a file nor"),
    "oversized": (member(f"{FOLDER}/test_batch.bin", bytes(SIZE + 1)), "has 30,730,001 bytes"),
    "oversized other": (member("other", bytes(SIZE + 1)), "'other' has 30,730,001 bytes"),
    "undersized": (member(f"{FOLDER}/test_batch.bin", bytes(RECORD)), "has 3,073 bytes, expected"),
    "label": (member(f"{FOLDER}/test_batch.bin", b"\x0a" * SIZE), "image 0 has label 10"),
    "none": (member("readme", b"x"), "lacks cifar-10-batches-bin/data_batch_1.bin: not the bin"),
}


@pytest.fixture(scope="module", params=BAD_MEMBERS)
def bad_archive(request):
    """An archive with one good file and then one that should not be, and what is said of it."""
    bad, match = BAD_MEMBERS[request.param]
    name = f"{FOLDER}/data_batch_2.bin"
    good = [] if request.param == "none" else [member(name, content(FILES[1]))]
    return make_archive([*good, bad]), match


def test_load_refuses_bad_archives(root, bad_archive):
    data, match = bad_archive
    (root / ARCHIVE).write_bytes(data)
    with raises(rf"tar\.gz.*{match}.*{AGAIN}"):
        load_cifar10(root)


def test_load_refuses_damaged_archives(root, archive):
    flipped = bytearray(archive)
    flipped[-8] ^= 1  # the checksum at the end
    middle = archive[: len(archive) // 2] + b"\x00" * 100 + archive[len(archive) // 2 + 100 :]
    for data in (b"", b"<html>", archive[:1000], archive[:-1], bytes(flipped), middle):
        (root / ARCHIVE).write_bytes(data)
        with raises(rf"tar\.gz.*{AGAIN}"):
            load_cifar10(root)


# Downloading


class Server(ThreadingHTTPServer):
    """Serves `data` at any path, and remembers the Range of each request."""

    daemon_threads = True

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.ranges = True  # whether it answers Range requests
        self.cut = None  # stop after so many bytes of the first answer
        self.answer = None  # (status, headers, body) to give whatever is asked
        self.stall = None  # an event to wait for before the cut
        self.asked = []

    def handle_error(self, request, client_address):
        """Clients that hang up are what some tests are about."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/{ARCHIVE}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start, status, headers = 0, 200, {}
        if asked and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            status = 206 if start < len(server.data) else 416
            extent = f"{start}-{len(server.data) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {extent}/{len(server.data)}"
        body = server.data[start:] if status != 416 else b""
        headers["Content-Length"] = str(len(body))
        if server.answer:
            status, headers, body = server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut, server.cut = server.cut, None
        self.wfile.write(body[:cut])
        if server.stall and cut is not None:
            server.stall.wait()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(data):
    with Server(data) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        if server.stall:
            server.stall.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(archive):
    with serving(archive) as server:
        yield server


@pytest.fixture
def mirror(archive):
    with serving(archive) as server:
        yield server


@pytest.fixture
def nowhere():
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}/{ARCHIVE}"


def download(server, root, **options):
    """Download what `server` has, from there unless the options say otherwise."""
    md5 = hashlib.md5(server.data).hexdigest()
    return download_cifar10(root, **{"url": server.url, "md5": md5, "progress": False} | options)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def check_complete(root):
    assert names(root) == [FOLDER]
    assert names(root / FOLDER) == FILES
    for name in FILES:
        path = root / FOLDER / name
        assert path.stat().st_size == SIZE
        with path.open("rb") as file:
            start = file.read(RECORD)
        assert (start[0], start[MARK]) == (FILES.index(name), 100 + FILES.index(name))


def test_download(server, root, capsys):
    assert download(server, root, md5=hashlib.md5(server.data).hexdigest().upper()) == root / FOLDER
    check_complete(root)
    check_loads(root)
    assert server.asked == [None]
    assert capsys.readouterr() == ("", "")


def test_download_returns_at_once_when_complete(server, root):
    folder = write_folder(root / FOLDER)
    for place in (root, str(root), folder, root / ARCHIVE):
        assert download(server, place, progress=True) == folder
    assert server.asked == []
    assert names(root) == [FOLDER]


def test_download_to_the_environment_variable(server, root, monkeypatch):
    monkeypatch.setenv("FUNCNET_DATA", str(root))
    assert download(server, None) == root / FOLDER


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="their caches are elsewhere")
def test_download_makes_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a" / "b"))
    assert download(server, None) == tmp_path / "a" / "b" / "funcnet" / FOLDER
    check_loads(None)


def test_download_makes_one_directory_but_no_parents(server, root):
    with raises("missing", FileNotFoundError):
        download(server, root / "missing" / "new")
    assert server.asked == []
    assert download(server, root / "new") == root / "new" / FOLDER


def test_download_draws_a_bar_on_stderr(server, root, capsys):
    download(server, root, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


def test_download_without_tqdm(server, root, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with raises(r'pip install "funcnet\[cli\]"', ImportError):
        download(server, root, progress=True)
    assert server.asked == []
    download(server, root)
    check_complete(root)


def test_download_resumes_after_a_lost_connection(server, root):
    server.cut = len(server.data) // 2
    with raises("ended after .* bytes; run the same command again to resume", ConnectionError):
        download(server, root)
    kept = (root / PART).read_bytes()
    assert 0 < len(kept) <= len(server.data) // 2
    assert kept == server.data[: len(kept)]
    assert names(root) == [PART]
    assert download(server, root) == root / FOLDER
    assert server.asked == [None, f"bytes={len(kept)}-"]
    check_complete(root)


def test_download_starts_over_where_ranges_are_ignored(server, root):
    server.ranges = False
    (root / PART).write_bytes(b"wrong" * 1_000_000)  # longer than the archive
    download(server, root)
    assert server.asked == ["bytes=5000000-"]
    check_complete(root)


def test_download_finds_its_part_complete(server, root):
    (root / PART).write_bytes(server.data)
    download(server, root)
    assert server.asked == [f"bytes={len(server.data)}-"]
    check_complete(root)


@pytest.mark.parametrize("part", [b"wrong", b"wrong" * 1_000_000], ids=["short", "long"])
def test_download_discards_a_wrong_part(server, root, part):
    (root / PART).write_bytes(part)
    download(server, root)
    assert server.asked == [f"bytes={len(part)}-", None]
    check_complete(root)


def test_download_ignores_an_empty_part(server, root):
    (root / PART).touch()
    download(server, root)
    assert server.asked == [None]
    check_complete(root)


@pytest.mark.parametrize("part", [b"", b"wrong"], ids=["fresh", "resumed"])
def test_download_of_something_else(server, root, part):
    if part:
        (root / PART).write_bytes(part)
    found = hashlib.md5(server.data).hexdigest()
    with raises(f"has MD5 {found}, expected {'0' * 32}"):
        download(server, root, md5="0" * 32)
    assert names(root) == []
    assert len(server.asked) == (2 if part else 1)


def test_download_with_another_content_range(server, root):
    (root / PART).write_bytes(server.data[:1000])
    for extent in ("bytes 500-1499/1500", "bytes */1500", "bytes 1000-x/y", ""):
        headers = {"Content-Range": extent, "Content-Length": "1000"}
        server.answer = (206, headers, bytes(1000))
        with raises("cannot download http", ConnectionError):
            download(server, root)
        assert (root / PART).read_bytes() == server.data[:1000]
    server.answer = None
    download(server, root)
    check_complete(root)


def test_download_takes_no_more_than_announced(server, root):
    part, rest = server.data[:1000], server.data[1000:]
    (root / PART).write_bytes(part)
    extent = f"bytes 1000-{len(server.data) - 1}/{len(server.data)}"
    headers = {"Content-Range": extent, "Content-Length": str(len(rest) + 5)}
    server.answer = (206, headers, rest + b"extra")
    download(server, root)
    assert len(server.asked) == 1
    check_complete(root)


def test_download_of_less_than_the_rest(server, root):
    """A server may answer with fewer bytes than asked for."""
    (root / PART).write_bytes(server.data[:1000])
    headers = {"Content-Range": f"bytes 1000-1999/{len(server.data)}", "Content-Length": "1000"}
    server.answer = (206, headers, server.data[1000:2000])
    with raises(f"ended after 2,000 of {len(server.data):,} bytes", ConnectionError):
        download(server, root)
    assert (root / PART).read_bytes() == server.data[:2000]


def test_download_of_an_unknown_total(server, root):
    (root / PART).write_bytes(server.data[:1000])
    size = len(server.data)
    headers = {"Content-Range": f"bytes 1000-{size - 1}/*", "Content-Length": str(size - 1000)}
    server.answer = (206, headers, server.data[1000:2000])
    with raises(f"ended after 2,000 of {size:,} bytes", ConnectionError):
        download(server, root)


def test_download_without_a_length(server, root):
    server.answer = (200, {}, server.data)
    download(server, root)
    check_complete(root)


def test_download_with_a_broken_chunked_answer(server, root):
    headers = {"Transfer-Encoding": "chunked"}
    server.answer = (200, headers, b"1000\r\n" + server.data[:100])
    with raises("broke after .* bytes: .*; run the same command again", ConnectionError):
        download(server, root)


@pytest.mark.parametrize("status", [204, 404, 416, 503])
def test_download_with_an_error_answer(server, root, status):
    server.answer = (status, {"Content-Length": "0"}, b"")
    with raises(f"cannot download {server.url}: .*{status}", ConnectionError):
        download(server, root)


def test_download_from_no_server(root, nowhere):
    (root / PART).write_bytes(b"kept")
    with raises("cannot download http.*refused.*again to resume", ConnectionError):
        download_cifar10(root, url=nowhere, progress=False)
    assert (root / PART).read_bytes() == b"kept"


def test_download_from_other_addresses(root, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    others = (secret.as_uri(), "ftp://127.0.0.1/x", "x")
    for url in (*others, (), *(("http://127.0.0.1/x", other) for other in others)):
        with raises("url must begin with http:// or https://"):
            download_cifar10(root, url=url, progress=False)
    with raises("cannot download http", ConnectionError):
        download_cifar10(root, url="http://127.0.0.1:port/", progress=False)


def test_download_has_two_addresses_of_one_file():
    first, second = inspect.signature(download_cifar10).parameters["url"].default
    assert first == f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
    assert second.startswith("https://")
    assert second.endswith(f"/{ARCHIVE}")
    assert "toronto" not in second


@pytest.mark.parametrize("part", [b"", b"the start"], ids=["fresh", "resumed"])
@pytest.mark.parametrize("status", slow_but([None, 204, 206, 404, 416, 503], None, 404))
def test_download_goes_on_at_the_next_address(server, mirror, nowhere, root, part, status, capsys):
    part = server.data[: len(part)]
    (root / PART).write_bytes(part)
    if status == 416 and part:
        server.ranges, status = False, 503  # 416 would say that the part has all of it
    server.answer = (status, {"Content-Length": "0"}, b"")
    download(mirror, root, url=(nowhere if status is None else server.url, mirror.url))
    assert mirror.asked == [f"bytes={len(part)}-" if part else None]
    assert capsys.readouterr() == ("", "")
    check_complete(root)


def test_download_goes_on_where_the_connection_broke(server, mirror, root):
    server.cut = len(server.data) // 2
    download(mirror, root, url=iter([server.url, mirror.url]))
    assert server.asked == [None]
    (asked,) = mirror.asked
    assert 0 < int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) <= len(server.data) // 2
    check_complete(root)


def test_download_asks_no_address_after_one_that_has_it(server, mirror, root):
    download(mirror, root, url=[mirror.url, server.url])
    assert (mirror.asked, server.asked) == ([None], [])


def test_download_that_mixed_two_files_starts_over(server, mirror, root):
    server.data, server.cut = b"wrong" * 100_000, 100_000
    mirror.cut = 1000  # its connection breaks too, before the MD5 can tell
    urls = (server.url, mirror.url)
    with raises("cannot download", ConnectionError):
        download(mirror, root, url=urls)
    server.answer = (503, {"Content-Length": "0"}, b"")
    download(mirror, root, url=urls)
    assert server.asked[0] is None
    assert len(server.asked) == len(mirror.asked) == 3
    assert mirror.asked[2] is None
    check_complete(root)


def test_download_says_that_it_tries_the_next_address(server, mirror, root, capsys):
    server.answer = (503, {"Content-Length": "0"}, b"")
    download(mirror, root, url=(server.url, mirror.url), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    line = f"{server.url}: the server answered 503 Service Unavailable; trying {mirror.url}\n"
    assert err.startswith(line)
    assert "100%" in err


def test_download_where_no_address_answers(server, nowhere, root):
    server.answer = (404, {"Content-Length": "0"}, b"")
    reasons = f"{nowhere}: .*refused; {server.url}: the server answered 404 Not Found"
    with raises(f"cannot download {reasons}; run the same.* again to resume", ConnectionError):
        download(server, root, url=[nowhere, server.url])
    assert names(root) == []


def test_download_of_something_else_from_two_addresses(server, mirror, root):
    with raises(f"from {server.url} or {mirror.url} has MD5 .*, expected {'0' * 32}"):
        download(server, root, url=(server.url, mirror.url), md5="0" * 32)
    assert names(root) == []


def test_download_uses_a_complete_archive(server, root):
    (root / ARCHIVE).write_bytes(server.data)
    download(server, root)
    assert server.asked == []
    check_complete(root)


def test_download_replaces_a_damaged_archive(server, root):
    (root / ARCHIVE).write_bytes(server.data[:1000])
    download(server, root)
    assert server.asked == [None]
    check_complete(root)


@pytest.mark.parametrize("damage", ["size", "label", "missing"])
def test_download_replaces_damaged_files(server, root, damage):
    file = write_folder(root / FOLDER) / "data_batch_2.bin"
    (root / FOLDER / "mine.txt").write_text("keep")
    if damage == "size":
        os.truncate(file, 1000)
    elif damage == "label":
        with file.open("r+b") as opened:
            opened.write(b"\xff")
    else:
        file.unlink()
    download(server, root)
    assert (root / FOLDER / "mine.txt").read_text() == "keep"
    (root / FOLDER / "mine.txt").unlink()
    check_complete(root)


def test_download_clears_what_a_killed_process_left(server, root):
    (root / f"{FOLDER}.part").mkdir()
    (root / f"{FOLDER}.part" / "data_batch_1.bin").write_bytes(b"half")
    (root / f".{ARCHIVE}.lock").touch()
    download(server, root)
    check_complete(root)


def test_download_refuses_bad_archives(server, root, tmp_path, bad_archive):
    server.data, match = bad_archive
    before = names(tmp_path)
    with raises(rf"tar\.gz.*{match}"):
        download(server, root)
    assert names(root) == [ARCHIVE]
    assert names(tmp_path) == before
    assert not Path("/tmp/funcnet-evil").exists()


def test_download_refuses_truncated_archives(server, root):
    for size in (0, 1000, len(server.data) - 1):
        server.data = server.data[:size]
        with raises(r"tar\.gz"):
            download(server, root)
        assert names(root) == [ARCHIVE]


def test_download_by_several_at_once(server, root):
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: download(server, root), range(3)))
    assert results == [root / FOLDER] * 3
    assert server.asked == [None]
    check_complete(root)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks")
def test_download_waits_for_another_process(server, root, capsys):
    import fcntl

    lock, err, end = root / f".{ARCHIVE}.lock", "", time.monotonic() + 60
    with ThreadPoolExecutor(1) as pool, lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = pool.submit(download, server, root, progress=True)
        while not err and time.monotonic() < end:
            time.sleep(0.1)  # what is written while it is read would be lost
            err = capsys.readouterr().err
        assert err == f"waiting for another download to {root}\n"
        assert server.asked == []
        lock.unlink()
    assert result.result() == root / FOLDER
    assert server.asked == [None]
    check_complete(root)


def test_download_below_a_file(server, root):
    (root / "file").touch()
    for place in (root / "file", root / "file" / "new"):
        with raises(str(root / "file"), OSError):
            download(server, place)
    assert server.asked == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_download_to_a_read_only_directory(server, root):
    root.chmod(0o500)
    with raises(str(root), PermissionError):
        download(server, root)
    root.chmod(0o700)


LIMITED = """
import resource, signal, sys
from funcnet.datasets import download_cifar10
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    download_cifar10(sys.argv[1], url=sys.argv[2], md5=sys.argv[3], progress=False)
except OSError as error:
    print(error)
"""


def limited(server, root, size):
    """What a download says whose files may not grow beyond a size, as on a full disk."""
    md5 = hashlib.md5(server.data).hexdigest()
    command = [sys.executable, "-c", LIMITED, root, server.url, md5, str(size)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_download_to_a_full_disk(server, root):
    done = limited(server, root, 5_000)
    assert f"File too large: '{root / PART}'" in done.stdout
    assert done.stdout.count("\n") == 1
    download(server, root)
    check_complete(root)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_download_that_cannot_be_unpacked_keeps_the_archive(server, root):
    done = limited(server, root, 10_000_000)
    assert f"File too large: '{root / FOLDER}.part/data_batch_1.bin'" in done.stdout
    assert done.stdout.count("\n") == 1
    assert names(root) == [ARCHIVE]
    download(server, root)
    assert server.asked == [None]
    check_complete(root)


INTERRUPTED = """
import signal, sys
from funcnet.datasets import download_cifar10
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
print("ready", flush=True)
try:
    download_cifar10(sys.argv[1], url=sys.argv[2], progress=False)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_download_interrupted_leaves_a_part(server, root):
    server.cut, server.stall = len(server.data) - 1, threading.Event()
    command = [sys.executable, "-c", INTERRUPTED, root, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None and not (
            (root / PART).exists() and (root / PART).stat().st_size
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    kept = (root / PART).read_bytes()
    assert kept
    assert kept == server.data[: len(kept)]
    assert names(root) == [PART]
    download(server, root)
    assert server.asked[1] == f"bytes={len(kept)}-"
    check_complete(root)


# Another dataset than CIFAR-10


def no_zeros(data):
    if 0 in data:
        raise ValueError(f"byte {data.index(0)} is 0")


@pytest.fixture
def tiny(server):
    """Two files of some bytes, and their archive at the server."""
    server.data = make_archive([member("tiny/b", b"four"), member("tiny/a", b"one")])
    return Archive(
        name="tiny",
        title="Tiny",
        version="short version",
        urls=(server.url,),
        md5=hashlib.md5(server.data).hexdigest(),
        file="tiny.tgz",
        folder="tiny",
        sizes={"a": 3, "b": 4},
        check=no_zeros,
    )


def test_another_archive_is_downloaded_found_and_read(server, root, tiny, monkeypatch, capsys):
    source = tiny.source("seven bytes", lambda root=None: sorted(tiny.read(root)))
    assert (source.name, source.title, source.about) == ("tiny", "Tiny", "seven bytes")
    assert source.find(root) is None
    assert source.download(root) == source.find(root) == root / "tiny"
    assert "100%" in capsys.readouterr().err
    assert [names(root), names(root / "tiny")] == [["tiny"], ["a", "b"]]
    monkeypatch.setenv("FUNCNET_DATA", str(root / "tiny"))
    assert source.load() == [("a", b"one"), ("b", b"four")]
    assert source.download() == root / "tiny"
    assert server.asked == [None]


def test_another_archive_is_read_as_it_is(server, root, tiny):
    (root / "tiny.tgz").write_bytes(server.data)
    assert tiny.find(root) == root / "tiny.tgz"
    assert dict(tiny.read(root)) == {"a": b"one", "b": b"four"}
    assert tiny.download(root) == root / "tiny"
    assert server.asked == []


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"tiny/a": b"one", "tiny/b": b"\0our"}, "tiny/b is damaged: byte 0 is 0"),
        ({"tiny/a": b"four", "tiny/b": b"four"}, "tiny/a has 4 bytes, expected 3: damaged"),
        ({"tiny/a": b"one", "more": b"fives"}, "'more' has 5 bytes, more than the 4 expected"),
        ({"tiny/a": b"one"}, "lacks tiny/b: not the short version of Tiny, or damaged"),
    ],
)
def test_another_archive_that_is_bad(server, root, tiny, members, match):
    (root / "tiny.tgz").write_bytes(make_archive([member(*pair) for pair in members.items()]))
    with raises(rf"tiny\.tgz.*{match}.*; download again: funcnet datasets download tiny$"):
        list(tiny.read(root))
    server.data = (root / "tiny.tgz").read_bytes()
    with raises(match):
        tiny.download(root, md5=hashlib.md5(server.data).hexdigest())
    assert names(root) == ["tiny.tgz"]


def test_another_archive_that_is_nowhere(root, tiny):
    command = "funcnet datasets download tiny"
    with raises(rf"^no Tiny in {root} \(tiny/ or tiny\.tgz\); .*: {command};", FileNotFoundError):
        tiny.read(root)
    (root / "b").write_bytes(b"four")
    with raises(rf"a is missing; download again: {command}$", FileNotFoundError):
        list(tiny.read(root))
