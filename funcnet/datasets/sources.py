"""Where bytes of a file come from: a path, standard input, a pipe, unpacked if they were packed."""

import gzip
import io
import os
import select
import stat
import sys
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from funcnet.datasets.limits import bounded, check_size, read_all
from funcnet.datasets.notes import listed
from funcnet.files import open_file
from funcnet.text import one_line

STDIN = "-"
WAIT = 10.0  # seconds for somebody to write to a pipe
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


class Source(NamedTuple):
    """A file to read.

    Attributes:
      name: what errors call it.
      suffix: how its name ends, in lower case, without that of a packing: ".csv"; may be "".
      open: gives its bytes from the beginning, unpacked, each time.
    """

    name: str
    suffix: str
    open: Callable[[], BinaryIO]

    def start(self, count: int) -> bytes:
        """Its first bytes, at most `count`."""
        with self.open() as stream:
            return stream.read(count)


def source_of(path: str | PathLike[str]) -> Source:
    """The Source that a path names: of a file, .gz and .zip unpacked, of a pipe, or "-", stdin.

    Raises:
      OSError: it is not there, or a directory.
      ValueError: it is packed, and damaged, or not one file; a device, or a pipe without a writer.
    """
    if str(path) == STDIN:
        if sys.stdin is None:
            raise ValueError("standard input, -, is closed: give a file, or put one before a |")
        return _held("standard input", read_all("standard input", sys.stdin.buffer))
    path = Path(path)
    if path.is_fifo():  # which can be read once
        return _held(str(path), _from_pipe(path))
    with open_file(path) as file:
        start = file.read(4)
    return _unpacked(str(path), path, start, path.stat().st_size, lambda: open_file(path))


def _from_pipe(path: Path) -> bytes:
    """What somebody writes to a pipe, be it slowly; a pipe that nobody opens is waited for a while.

    Raises:
      ValueError: nobody does, or it has no end.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        # Ready is one that has bytes in it, and one whose writer has gone.
        ready, start = select.select([pipe], [], [], WAIT)[0], None
        if not ready and (start := pipe.read(1)) == b"":  # None is from a writer that waits
            raise ValueError(f"{path} is a pipe, and nobody has opened it to write for {WAIT:g} s")
        os.set_blocking(pipe.fileno(), True)
        return (start or b"") + read_all(str(path), pipe)


def _held(name: str, data: bytes) -> Source:
    path = Path("data")
    return _unpacked(name, path, data[:4], len(data), lambda: io.BytesIO(data))


def _unpacked(
    name: str, path: Path, start: bytes, size: int, open_packed: Callable[[], BinaryIO]
) -> Source:
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if start.startswith(_GZIP):
        return Source(
            name,
            inner if suffix == ".gz" else suffix,
            lambda: _readable(name, lambda file: gzip.GzipFile(fileobj=file), open_packed, size),
        )
    if start.startswith(_ZIP) and suffix not in (".npz", ".npy"):
        member = _member(name, open_packed)
        return Source(
            name,
            Path(member.filename).suffix.lower(),
            lambda: _readable(
                name,
                lambda file: zipfile.ZipFile(file).open(member),
                open_packed,
                member.compress_size,
            ),
        )
    if suffix in (".gz", ".zip"):
        raise ValueError(f"{name} is no {suffix} file, or a damaged one")
    return Source(name, suffix, open_packed)


def _member(name: str, open_packed: Callable[[], BinaryIO]) -> zipfile.ZipInfo:
    try:
        with open_packed() as file, zipfile.ZipFile(file) as archive:
            every = archive.infolist()
    except Exception as error:  # a dozen kinds
        raise ValueError(f"{name} is no .zip file, or a damaged one: {one_line(error)}") from None
    for member in every:
        if leads_out(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(
                f"{name}: {member.filename!r} in it is a link, or leads out of where it is unpacked"
            )
    members = [member for member in every if _is_data(member)]
    if len(members) != 1:
        found = listed([m.filename for m in members])
        raise ValueError(f"{name} must hold one file, found {found}: unpack it, and name the file")
    if members[0].flag_bits & 1:
        raise ValueError(f"{name} is encrypted: unpack it first")
    check_size(name, members[0].compress_size, members[0].file_size)
    return members[0]


def leads_out(name: str) -> bool:
    """Whether the name of a file in an archive leads out of where it would be unpacked."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or parts[0][1:2] == ":" or ".." in parts


def _is_data(member: zipfile.ZipInfo) -> bool:
    hidden = member.filename.startswith(("__MACOSX/", ".")) or "/." in member.filename
    return not member.is_dir() and not hidden


class _Unpacking:
    """What unpacks a file, and closes it."""

    def __init__(self, unpack: Callable[[BinaryIO], Any], file: BinaryIO) -> None:
        self._file, self._stream = file, unpack(file)
        self.read = self._stream.read

    def close(self) -> None:
        """Close both."""
        self._stream.close()
        self._file.close()


def _readable(
    name: str,
    unpack: Callable[[BinaryIO], Any],
    open_packed: Callable[[], BinaryIO],
    size: int,
) -> BinaryIO:
    """A stream that unpacks, but not without bounds."""
    file = open_packed()
    try:
        return bounded(_Unpacking(unpack, file), compressed=size, name=name)
    except Exception as error:  # a dozen kinds, such as that of other compressions
        file.close()
        raise ValueError(f"{name} cannot be unpacked: {one_line(error)}") from None
