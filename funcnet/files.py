"""Files that are written whole or not at all, and errors that name them."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that, whatever happens, it is there as a whole or as it was before.

    Raises:
      OSError: it cannot be written; the error names `path`.
    """
    path = Path(path)
    with naming(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~_umask())  # mkstemp lets nobody else read it
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        sync(path.parent)


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
