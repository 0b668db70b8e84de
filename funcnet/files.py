"""Files: read if they are such, written whole or not at all; locks, and errors that name them.

What Windows does otherwise is here and nowhere else; it is written after its documentation, and has
not been tried there.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from funcnet.text import visible

LOCK = ".lock"
JSON_LIMIT = 64 * 2**20  # bytes; what they hold takes many times as much memory
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
      ValueError: it is something else, which may never begin, or never end.
      OSError: it cannot be read, or is a directory.
    """
    kind = stat.S_IFMT(Path(path).stat().st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise ValueError(f"{path} is {_KINDS.get(kind, 'special')}, and no file: give a file")
    return Path(path).open("rb")


def check_entry(root: Path, entry: Path) -> None:
    """Raise a ValueError if what is in a folder may not be read as a part of `root`.

    A link that leads out of it is none, and a name with control characters is no name to show.
    """
    if visible(entry.name) != entry.name:
        raise ValueError(f"{entry.parent} has {entry.name!r}, of control characters: rename it")
    if entry.is_symlink() and not _leads_into(root, entry):
        raise ValueError(f"{entry} is a link that leads out of {root}: put a copy in its place")


def _leads_into(root: Path, link: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a circle
        return False


def read_json(path: str | os.PathLike[str]) -> Any:
    """What is in a file of JSON.

    Raises:
      ValueError: it is none, is damaged, or larger than `JSON_LIMIT`. OSError: it cannot be read.
    """
    with open_file(path) as file:
        text = file.read(JSON_LIMIT + 1)
    if len(text) > JSON_LIMIT:
        raise ValueError(f"{path} is damaged: it has more than {JSON_LIMIT >> 20} MiB")
    return parse_json(text, path)


def parse_json(text: str | bytes, where: object) -> Any:
    """What JSON says; `where` it stands is for the error.

    Raises:
      ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: {error}") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that, whatever happens, it is there as a whole or as it was before.

    Raises:
      OSError: it cannot be written; the error names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with naming(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def remove_stale(directory: Path) -> None:
    """Remove what writers that were killed have left in a directory that is locked."""
    for path in directory.iterdir():
        if re.fullmatch(r"\..+\.[0-9a-f]{16}\.tmp", path.name) and path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory that is there for this process and thread alone.

    The lock belongs to an open file: with the process that has it, however that ends, it goes.

    Raises:
      BlockingIOError: another one holds it. OSError: it cannot be locked.
    """
    path = directory / LOCK
    descriptor = open_to_lock(path)
    try:
        try:
            _lock(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            by = f", by process {holder}" if holder.isdigit() else ""
            raise BlockingIOError(
                f"{directory} is in use{by}: wait until it has ended, or choose another directory"
            ) from None
        if not re.fullmatch(rb"\d*", os.read(descriptor, 100)):  # a hard link to it, perhaps
            raise ValueError(f"{path} is the file of something else: remove it")
        os.lseek(descriptor, 0, os.SEEK_SET)
        with naming(path):
            if os.fstat(descriptor).st_ino != path.stat().st_ino:  # removed, and made anew
                raise BlockingIOError(f"{directory} is in use: try again")
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def open_to_lock(path: Path) -> int:
    """The descriptor of a file to lock, which is made if it is not there.

    Raises:
      ValueError: it is none to write to. OSError: it cannot be opened.
    """
    check_writable(path)
    with naming(path):  # should it be a link by now, that is not followed
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return os.open(path, flags, 0o666)


def check_writable(path: Path) -> None:
    """Raise a ValueError if a file that is not written whole is a link, or no file.

    A link may lead anywhere, and a pipe blocks.
    """
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path} is a link, or something else that is no file: remove it")


if sys.platform == "win32":  # untried
    import msvcrt

    def _lock(descriptor: int) -> None:
        # A byte far behind what is written, which others may read all the same.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from None
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have operating-system errors, such as that of a full disk, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def sync(path: Path) -> None:
    """Have a file or a directory reach the disk; a rename does with its directory."""
    if path.is_dir() and sys.platform == "win32":  # which cannot open directories
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
