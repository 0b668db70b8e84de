"""Files that would unpack to more than a file of examples does."""

import gzip
import io
import zipfile

import pytest

from funcnet.datasets import limits
from funcnet.datasets.limits import bounded, check_size, shown


def raises(match, kind=ValueError):
    """The error must match, and be one line."""
    return pytest.raises(kind, match=r"(?s)\A(?!.*\n).*" + match)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(limits, "FREE", 10_000)


def test_sizes_that_are_allowed(small):
    check_size("a", 10, 10_000)  # below FREE, whatever the ratio
    check_size("a", 1000, 100_000)  # 100 times
    check_size("a", 2**20, 2**20)


def test_sizes_that_are_not(small, monkeypatch):
    with raises("a.npz would unpack to 97.7 KiB from 999 bytes, more than 100 times"):
        check_size("a.npz", 999, 100_000)
    with raises("a.npy holds .* EiB, more than the .*iB of memory here"):
        check_size("a.npy", 2**62, 2**62)
    monkeypatch.setattr(limits, "memory", lambda: 100)
    with raises("a.npy holds 101 bytes, more than the 100 bytes of memory here"):
        check_size("a.npy", 101, 101)


def test_memory_is_known_or_more_than_any_file(monkeypatch):
    assert 2**20 < limits.memory() < 2**62
    monkeypatch.delattr("os.sysconf")
    check_size("a.npy", 2**62, 2**62)


def gzipped(data):
    packed = gzip.compress(data)
    return bounded(gzip.GzipFile(fileobj=io.BytesIO(packed)), compressed=len(packed), name="a.gz")


def test_bounded_gives_what_is_in_it(small):
    data = bytes(range(256)) * 30
    with gzipped(data) as file:
        assert file.read() == data
    text = "a,b\r\n1,ü\n" * 100
    with io.TextIOWrapper(gzipped(text.encode()), "utf-8", newline="") as lines:
        assert "".join(lines) == text


def test_bounded_stops_a_gzip_bomb(small):
    with gzipped(bytes(1_000_000)) as file, raises("a.gz would unpack to .* more than 100 times"):
        file.read()
    taken = 0
    with gzipped(bytes(1_000_000)) as file, raises("a.gz"):
        while chunk := file.read(100):
            taken += len(chunk)
    assert taken <= limits.RATIO * 1100


def test_bounded_stops_a_member_of_a_zip(small):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", bytes(1_000_000))
    with (
        zipfile.ZipFile(packed) as archive,
        bounded(archive.open("a.csv"), compressed=len(packed.getvalue()), name="a.zip") as file,
        raises(r"a\.zip would unpack"),
    ):
        file.read()


def test_bounded_names_a_damaged_file():
    packed = gzip.compress(bytes(range(256)) * 9)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # in the checksum
    for content in (packed[:30], packed[:-3], bytes(flipped), b"no gzip"):
        stream = gzip.GzipFile(fileobj=io.BytesIO(content))
        file = bounded(stream, compressed=len(content), name="a.gz")
        with file, raises("^a.gz cannot be unpacked: ."):
            file.read()


def test_bounded_closes_what_it_reads():
    stream = io.BytesIO(b"a")
    bounded(stream, compressed=1, name="a").close()
    assert stream.closed


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1 KiB"),
        (3 * 2**19, "1.5 MiB"),
        (300 * 2**30, "300 GiB"),
        (2**63, "8 EiB"),
    ],
)
def test_shown(size, expected):
    assert shown(size) == expected
