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
from funcnet.datasets.limits import check_size
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
            if member.flag_bits & 1:
                raise ValueError(f"{member.filename!r} in it is encrypted; save it without")
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
