"""Arrays that stay in their files, mapped into memory: rows are read when they are asked for."""

import copy
import hashlib
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet.bijection import Bijection
from funcnet.datasets.npz import npy_layout
from funcnet.files import open_file

Spans = Sequence[tuple[int, int]]  # rows from the first number to before the second one
ROWS = 65_536  # how many are looked at at once where all are
SAMPLE = 100_000  # rows, for what cannot go over all of them


class File(NamedTuple):
    """An array in a .npy file.

    Attributes:
      path: the file.
      rows: [N, ...], read-only, mapped into memory.
      map: what maps it.
      start: where the array begins in the file.
    """

    path: Path
    rows: np.ndarray
    map: mmap.mmap
    start: int


class Blocks(NamedTuple):
    """Rows that are blocks of those of files, in an order that `order` has, and a rest.

    Attributes:
      size: how many rows a block has.
      order: of the numbers of all blocks.
      first, end: which of them in this order.
      rest: rows of the files that come after them.
    """

    size: int
    order: Bijection
    first: int
    end: int
    rest: tuple[int, int]

    def __len__(self) -> int:
        return (self.end - self.first) * self.size + self.rest[1] - self.rest[0]

    def spans(self, spans: Spans) -> Iterator[tuple[int, int]]:
        """Where rows are in the files."""
        size, whole = self.size, (self.end - self.first) * self.size
        within = [range(a // size, -(-min(b, whole) // size)) for a, b in spans]
        numbers = np.array([number for of_span in within for number in of_span], np.int64)
        blocks = iter(self.order(self.first + numbers).tolist())
        for (start, stop), of_span in zip(spans, within, strict=True):
            for number in of_span:
                skip = next(blocks) * size - number * size
                yield skip + max(start, number * size), skip + min(stop, (number + 1) * size)
            if stop > whole:
                skip = self.rest[0] - whole
                yield skip + max(start, whole), skip + stop


class Stored:
    """Rows of arrays in .npy files, which are read when they are asked for.

    Files are mapped into memory: what is read of them the system keeps as long as there is room. A
    slice, or an array of numbers of rows, gives a NumPy array, a copy; `stored[:]` all of it.

    Args:
      files: the files, of which each has some rows, all of one shape and dtype.
      digest: a checksum of the files, if there is one.
    Attributes:
      shape: [N, d1, ..., dk], a tuple.
      dtype: a NumPy dtype, in the byte order of this machine.
    Example:
      >>> np.save("x.npy", np.arange(40.0).reshape(20, 2))
      >>> np.save("y.npy", np.tile([0, 1], 10))
      >>> data = fn.load_arrays("x.npy", memory_map="yes")
      >>> type(data.x_train).__name__, data.x_train.shape[1:], data.x_train[:3].shape
      ('Stored', (2,), (3, 2))
    """

    def __init__(self, files: Sequence[File], digest: str = "") -> None:
        self._files, self._digest = tuple(files), digest
        self._blocks: Blocks | None = None  # which rows, if not all of them in their order
        self._ends = np.cumsum([len(file.rows) for file in files]).tolist()
        first = files[0].rows
        self.shape = (self._ends[-1], *first.shape[1:])
        self.dtype = first.dtype.newbyteorder("=")
        self._made: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
        self._checked, self._computed = "", False

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes all rows have."""
        return len(self) * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """How many bytes a row has, as it is read."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"Stored({list(self.shape)}, {self.dtype}, in {self._files[0].path.parent})"

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            return self.read([(start, max(start, stop))])
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        numbers = np.asarray(rows)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise TypeError("rows on disk are asked for by a slice, or by [n] numbers of them")
        low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
        if low < -len(self) or high >= len(self):
            raise IndexError(f"there are {len(self)} rows, and {low} to {high} were asked for")
        numbers = numbers % max(1, len(self))
        order = np.argsort(numbers, kind="stable")
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        out[order] = self.read([(int(row), int(row) + 1) for row in numbers[order]])
        return out

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            f"{self._files[0].path.parent} is on disk, {self.nbytes:,} bytes, and is read in parts;"
            ' what is to be in memory all at once is load_arrays(..., memory_map="no")'
        )

    def made(self, function: Callable[[np.ndarray], np.ndarray]) -> "Stored":
        """The rows that a function makes of these, when they are read.

        Args:
          function: `function(rows [n, ...]) -> [n, ...]`, of each row by itself.
        """
        like = function(self[:1])
        other = copy.copy(self)
        other._made = (*self._made, function)
        other.shape, other.dtype = (len(self), *like.shape[1:]), like.dtype
        return other

    def checked(self, name: str, *, computed: bool = False) -> "Stored":
        """The same rows, of which those that are not finite are an error when they are read.

        Args:
          name: what the error calls them.
          computed: whether they must be finite in what JAX computes in, too, float32 mostly.
        """
        other = copy.copy(self)
        other._checked, other._computed = name, computed
        return other

    def some(self, blocks: Blocks) -> "Stored":
        """Some of the rows of the files: blocks of them."""
        other = copy.copy(self)
        other._blocks, other.shape = blocks, (len(blocks), *self.shape[1:])
        return other

    def first(self, count: int) -> "Stored":
        """The first rows."""
        other = copy.copy(self)
        other.shape = (count, *self.shape[1:])
        return other

    def parts(self) -> Iterator[np.ndarray]:
        """All rows, in parts that take little memory."""
        return (part for (part,) in in_parts(self))

    def sample(self, count: int = SAMPLE) -> np.ndarray:
        """Rows that are evenly spread, as many as are said, but no more than 256 MiB."""
        count = max(1, min(count, len(self), 2**28 // self.row_bytes))
        return self[np.linspace(0, len(self) - 1, count).astype(np.int64)]

    def read(self, spans: Spans, room: np.ndarray | None = None) -> np.ndarray:
        """The rows of these spans, one after the other.

        Args:
          spans: the spans.
          room: bytes [n] to read into, if there are enough of them, which spares taking new ones.
        Raises:
          ValueError: a number is not finite where that is checked; or a file was cut meanwhile.
        """
        count = sum(stop - start for start, stop in spans)
        raw = self._files[0].rows
        shape, dtype = (count, *raw.shape[1:]), raw.dtype.newbyteorder("=")
        size = math.prod(shape) * dtype.itemsize
        if room is None or len(room) < size:
            room = np.empty(size, np.uint8)
        out = room[:size].view(dtype).reshape(shape)
        done, seen = 0, None
        for file, first, end in self._places(spans):
            if file is not seen:
                _check_length(file)
                seen = file
            out[done : done + end - first] = file.rows[first:end]
            done += end - first
        if self._checked:
            self._check(out, spans)
        for function in self._made:
            out = function(out)
        return out

    def will_need(self, spans: Spans) -> None:
        """Say which rows will be read soon, so that the system reads them from the disk ahead."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        size = self._files[0].rows[:1].nbytes
        for file, first, end in self._places(spans):
            begin = (file.start + first * size) // mmap.PAGESIZE * mmap.PAGESIZE
            file.map.madvise(mmap.MADV_WILLNEED, begin, file.start + end * size - begin)

    def facts(self) -> list[str]:
        """What tells these rows from others: shapes, checksums.

        One is of the files, as it was when they were written, if there is one; the other of 1,024
        rows as they are now, evenly spread.
        """
        shapes = [f"{file.rows.shape}" for file in self._files]
        spread = np.linspace(0, max(0, len(self) - 1), min(len(self), 1024)).astype(int)
        found, size = hashlib.sha256(), max(1, 2**24 // self.row_bytes)
        for start in range(0, len(spread), size):
            found.update(self[spread[start : start + size]].tobytes())
        known = [f"{self.dtype} {self.shape} {self._blocks}", self._digest]
        return [*known, *shapes, found.hexdigest()]

    def _places(self, spans: Spans) -> Iterator[tuple[File, int, int]]:
        """In which files rows are, and where there."""
        for first, end in spans if self._blocks is None else self._blocks.spans(spans):
            number = int(np.searchsorted(self._ends, first, side="right"))
            while first < end:
                before = self._ends[number - 1] if number else 0
                last = min(end, self._ends[number])
                yield self._files[number], first - before, last - before
                first, number = last, number + 1

    def _check(self, rows: np.ndarray, spans: Spans) -> None:
        """Raise unless all numbers of rows that were read are finite."""
        if rows.dtype.kind != "f":
            return
        narrow = self._computed and rows.dtype.itemsize > 4
        dtype = jax.dtypes.canonicalize_dtype(float) if narrow else rows.dtype
        if _is_finite(rows, dtype):
            return
        flat = rows.reshape(len(rows), -1)
        sound = np.abs(flat) <= np.finfo(dtype).max
        bad = int(np.flatnonzero(~sound.all(axis=1))[0])
        numbers = np.concatenate([np.arange(*span) for span in spans])
        row = int(numbers[bad])
        file, first, _ = next(self._places([(row, row + 1)]))
        raise ValueError(
            f"{self._checked} must be finite{f' in {dtype}' if narrow else ''}, but row {first:,} "
            f"of {file.path.name} in {file.path.parent} has {flat[bad][~sound[bad]][0]}"
        )


def in_parts(*every: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of several in parts that take little memory, of what is on disk; else all at once.

    Args:
      every: arrays of equally many rows; None stays None.
    """
    stored = [each for each in every if isinstance(each, Stored)]
    if not stored:
        yield every
        return
    size = max(1, min([ROWS, *(2**24 // each.row_bytes for each in stored)]))
    for start in range(0, len(stored[0]), size):
        yield tuple(each if each is None else each[start : start + size] for each in every)


def counts_of(y: Any, num_classes: int, weight: Any = None) -> np.ndarray:
    """How many of the labels [N] each class has, [C] int64; or the sum of their weights."""
    counts: Any = 0
    for labels, own in in_parts(y, weight):
        counts = counts + np.bincount(labels, weights=own, minlength=num_classes)
    return counts


def map_npy(path: Path) -> File:
    """Map the array in a .npy file into memory.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, empty, of Python objects or in another order than rows.
    """
    with open_file(path) as file:
        shape, fortran, dtype, start = npy_layout(path, file)
        if not shape or 0 in shape:
            raise ValueError(f"{path} holds no rows: {list(shape)}")
        if fortran and len(shape) > 1:
            raise ValueError(
                f"{path} is in Fortran order, in which the numbers of a row are far apart: save it "
                "with np.ascontiguousarray(x)"
            )
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    rows = np.frombuffer(mapped, dtype, math.prod(shape), start)
    return File(path, rows.reshape(shape), mapped, start)


def _check_length(file: File) -> None:
    """Raise unless a file is as long as when it was mapped: to read beyond its end would kill."""
    if file.path.stat().st_size < len(file.map):
        raise ValueError(f"{file.path} was cut, or replaced, while it was being read")


def _is_finite(rows: np.ndarray, dtype: np.dtype) -> bool:
    """Whether all are, as numbers of a dtype: their own, or one that holds less."""
    if dtype != rows.dtype:
        limit = np.finfo(dtype).max
        return not rows.size or bool(rows.max() <= limit and rows.min() >= -limit)
    with np.errstate(all="ignore"):  # a sum knows of what is not, and hardly ever errs
        total = rows.sum(dtype=rows.dtype if rows.dtype.itemsize > 2 else np.float32)
    return bool(np.isfinite(total)) or bool(np.isfinite(rows).all())
