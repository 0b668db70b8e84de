"""Arrays in NumPy's own files, .npz and .npy. Nothing is ever unpickled.

What a file says of itself is checked before it is read: an array is as large as its header says,
and not larger than `limits` allow.
"""

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import missing_labels
from funcnet.datasets.limits import check_ratio, check_size
from funcnet.datasets.notes import note
from funcnet.files import open_file
from funcnet.text import one_line

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def labelled(path: Path, labels: Any, name: str = "") -> np.ndarray:
    """Which examples have a label, indices; those that have none are counted in a warning.

    Args:
      path: the file, for the warning.
      labels: [N], or one-hot [N, C].
      name: what the labels are called, where a file has several.
    """
    missing, of = missing_labels(labels), f" in {name}" if name else ""
    if missing.all():
        raise ValueError(f"no example has a label{of}")
    if missing.any():
        count = checks.plural(int(missing.sum()), "example")
        note(f"{path}: {count} without a label{of} left out")
    return np.flatnonzero(~missing)


def npz_names(path: Path) -> list[str]:
    """What the arrays of a .npz are called."""
    with _opened(path) as (_, members):
        return list(members)


def read_npz(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The arrays of these names, which are among `npz_names`."""
    with _opened(path) as (archive, members):
        wanted = [members[name] for name in names]
        for member in wanted:
            _check_encryption(member)
        # No more than the file has: the members of some bombs overlap.
        packed = min(sum(member.compress_size for member in wanted), path.stat().st_size)
        check_size("it", packed, sum(member.file_size for member in wanted))
        return [_read_member(archive, member) for member in wanted]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        read_header(stream, member.file_size, f"{member.filename!r} in it")
    # Once more from the start, and to the end: a stream that jumps does not check its checksum.
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy."""
    with open_file(path) as file, _readable(path):
        size = os.fstat(file.fileno()).st_size
        check_size("it", size, size)
        read_header(file, size, "it")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def npy_layout(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """What `read_header` says of a .npy, and where its numbers begin."""
    with _readable(path):
        said = read_header(file, os.fstat(file.fileno()).st_size, "it")
        return *said, file.tell()


# An array that is read in parts: its shape, its dtype, and rows of it, [n, ...] each.
Rows = tuple[tuple[int, ...], np.dtype, Iterator[np.ndarray]]


def npy_rows(path: Path, size: int) -> Rows:
    """The array in a .npy, of whose rows about so many bytes are read at a time.

    Raises:
      ValueError: it is damaged, or holds objects.
    """
    with open_file(path) as file, _readable(path):
        shape, fortran, dtype = read_header(file, os.fstat(file.fileno()).st_size, "it")
        row = _row_bytes(shape, dtype)
        check_size("a row of it", row, row)
        start = file.tell()

    def parts() -> Iterator[np.ndarray]:
        count = max(1, size // max(1, row))
        array = np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
        for first in range(0, shape[0], count):
            yield np.array(array[first : first + count], order="C")

    return shape, dtype, parts()


def npz_rows(path: Path, name: str, size: int) -> Rows:
    """The array of a name in a .npz, which is unpacked as it is read; see `npy_rows`."""
    with _opened(path) as (archive, members):
        member = members[name]
        called = f"{member.filename!r} in it"
        _check_encryption(member)
        packed = min(member.compress_size, path.stat().st_size)
        check_ratio("it", packed, member.file_size)
        with archive.open(member) as stream:
            shape, fortran, dtype = read_header(stream, member.file_size, called)
        row = _row_bytes(shape, dtype)
        check_size("a row of it", row, row)
        if fortran and len(shape) > 1:
            raise ValueError(
                f"{called} is in Fortran order, in which rows do not lie one after the other: save "
                "what np.ascontiguousarray makes of it"
            )

    def read(stream: IO[bytes], count: int) -> bytes:
        with _readable(path):
            data = stream.read(count)
            if len(data) < count:
                raise ValueError(f"{called} is cut short")
            return data

    def parts() -> Iterator[np.ndarray]:
        with open_file(path) as file, zipfile.ZipFile(file) as again, again.open(member) as stream:
            read_header(stream, member.file_size, called)
            count = max(1, size // max(1, row))
            for first in range(0, shape[0], count):
                rows = min(count, shape[0] - first)
                data = read(stream, rows * row)  # the last bytes with a look at their checksum
                yield np.frombuffer(data, dtype).reshape(rows, *shape[1:])

    return shape, dtype, parts()


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape[1:]) * dtype.itemsize


def _check_encryption(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1:
        raise ValueError(f"{member.filename!r} in it is encrypted; save it without")


def read_header(stream: IO[bytes], size: int, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape in the header of a .npy, whether it is in Fortran order, and its dtype.

    Raises:
      ValueError: its `size` bytes are not what the header says, or Python objects.
    """
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"{name} has format {version[0]}.{version[1]}, which numbers do not need")
    shape, fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError(
            f"{name} holds Python objects, which would need unpickling; save numbers instead"
        )
    said = stream.tell() + math.prod(shape) * dtype.itemsize
    if said != size or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(
            f"{name} has {size:,} bytes, but its header says {list(shape)} {dtype}, {said:,} bytes"
        )
    return shape, fortran, dtype


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The archive that a .npz is, and its arrays by name."""
    with open_file(path) as file, _readable(path):
        if not zipfile.is_zipfile(file):
            raise ValueError("not a zip file, or one cut short")
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("two files in it have the same name")
            arrays = {name: each for name, each in members.items() if name.endswith(".npy")}
            yield archive, {name.removesuffix(".npy"): each for name, each in arrays.items()}


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what NumPy raises for a damaged file into one line, and what it warns of into none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote, or that are damaged
            yield
    except Exception as error:  # a dozen kinds, of zipfile, zlib, tokenize and others
        raise ValueError(f"{path} cannot be read as {path.suffix}: {one_line(error)}") from None
