"""Files that are written whole or not at all, locks, and errors that name them.

What Windows does otherwise is here and nowhere else; it is written after its documentation, and has
not been tried there.
"""

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"


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
    with naming(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            by = f", by process {holder}" if holder.isdigit() else ""
            raise BlockingIOError(
                f"{directory} is in use{by}: wait until it has ended, or choose another directory"
            ) from None
        with naming(path):
            if os.fstat(descriptor).st_ino != path.stat().st_ino:  # removed, and made anew
                raise BlockingIOError(f"{directory} is in use: try again")
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


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
