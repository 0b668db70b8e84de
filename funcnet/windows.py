"""The order in which training examples are read that stay on disk, and reading them in windows.

A window is some batches, as many as have 64 MiB. The rows of a file are blocks of neighbours, 128
KiB each, or less. Each epoch takes all blocks in another order, as many at a time as fill a window,
and mixes their rows; what a batch holds is so drawn from hundreds of places of the file. Rows that
fill a single window are in an order as good as that of data in memory. Each example is in one batch
of an epoch, and where an epoch has got to says which rows are next: nothing else need be kept.

The columns of batches are in lanes, and so are the blocks of a window: who computes a part of
every batch reads no other blocks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from funcnet.bijection import Bijection
from funcnet.datasets import Stored
from funcnet.loop import orders_of

WINDOW = 2**26  # bytes of examples that are read, and mixed, at a time; a batch at least
BLOCK = 2**17  # bytes of neighbouring rows that are read together, at most
LANES = 64
ALIGNMENT = 64  # bytes, of what JAX takes on a CPU without a copy

Columns = Callable[[int], list[slice]]  # of batches of so many, which a process computes


def whole(count: int) -> list[slice]:
    """All columns."""
    return [slice(0, count)]


class Window(NamedTuple):
    """Batches that are next in an epoch, or the columns of them that this process computes.

    Attributes:
      x, y: [room, N, ...], inputs as a step takes them and encoded targets; after `full` batches
        there is anything.
      weight: [room, N]; None is 1 each.
      batch_size: how many examples the batches have, over all processes.
      full: how many batches there are.
      end: how many of the epoch are done after them.
      mark: what the source says of where it is then.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    batch_size: int
    full: int
    end: int
    mark: Any = None


class Source(Protocol):
    """Where windows come from."""

    text: str  # by what the order goes, besides the key of a run
    replays: bool  # whether an epoch can be read again

    def windows(self, epoch: int, done: int, columns: Columns) -> Iterator[Window]:
        """What is left of an epoch, counted from 0, after so many batches."""
        ...

    def restore(self, mark: Any) -> None:
        """Go to where a window ended that had this mark."""
        ...


@dataclass(frozen=True)
class Plan:
    """How an epoch is cut.

    Attributes:
      count: how many examples there are.
      batch_size: how many a batch has.
      block: how many rows a block has.
      lanes: how many lanes there are; they divide a batch.
      depth: how many blocks a lane has in a window.
    """

    count: int
    batch_size: int
    block: int
    lanes: int
    depth: int

    @property
    def rows(self) -> int:
        """How many rows a window has, those of whole batches."""
        return self.block * self.depth * self.lanes

    @property
    def batches(self) -> int:
        """How many batches a window has."""
        return self.rows // self.batch_size

    @property
    def full(self) -> int:
        """How many windows there are of so many rows; the rest is another one."""
        return self.count // self.rows


def plan_of(count: int, batch_size: int, row_bytes: int) -> Plan:
    """The Plan for so many examples of so many bytes."""
    lanes = math.gcd(batch_size, LANES)
    own = batch_size // lanes  # of a batch
    most = max(1, BLOCK // row_bytes)
    size = most // own * own or max(d for d in range(1, most + 1) if own % d == 0)
    step = own // math.gcd(own, size)  # so many blocks have whole batches
    rows = max(1, WINDOW // row_bytes)
    depth = max(1, rows // (lanes * size * step)) * step
    # Windows of about equal size: a last one of a few blocks would mix little.
    number = max(1, math.ceil(count / (depth * lanes * size)))
    depth = max(1, math.ceil(count / (number * lanes * size * step))) * step
    return Plan(count, batch_size, size, lanes, depth)


class StoredWindows:
    """The windows of rows that stay on disk; a `Source`.

    Args:
      key: the key of the run.
      x, y: examples and encoded targets, `Stored`, of which rows are as a step takes them.
      weight: their weights, or None.
      batch_size: examples per step.
      row_bytes: how many bytes an example has, on disk or as it is read, whichever are more.
    """

    replays = True

    def __init__(
        self,
        key: jax.Array,
        x: Stored,
        y: Stored,
        weight: Stored | None,
        *,
        batch_size: int,
        row_bytes: int,
    ) -> None:
        self.plan = plan_of(len(x), batch_size, row_bytes)
        self.text = f"of {self.plan}"
        self._key, self._x, self._y, self._weight = key, x, y, weight
        self._blocks = np.empty(self.plan.rows * row_bytes, np.uint8)  # where they are read

    @property
    def room(self) -> int:
        """How many batches a window has room for."""
        return max(1, min(self.plan.batches, self.plan.count // self.plan.batch_size))

    def restore(self, mark: Any) -> None:
        """Nothing: an epoch and a number of batches say all."""

    def windows(self, epoch: int, done: int, columns: Columns) -> Iterator[Window]:
        """What is left of an epoch, counted from 0, after so many batches."""
        plan = self.plan
        key = jax.random.fold_in(jax.random.split(self._key)[0], epoch)
        low, high = np.asarray(jax.random.bits(key, (2,), "uint32")).tolist()
        blocks = Bijection(plan.count // plan.block, low + (high << 32))
        first, together = done // plan.batches, plan.lanes * plan.depth
        of_lane, own = plan.block * plan.depth, plan.batch_size // plan.lanes
        for number in range(first, plan.full):
            spans = self._spans(blocks(number * together + np.arange(together)))
            order = orders_of(key, number, count=of_lane, runs=plan.lanes)
            rows = order + np.arange(plan.lanes)[:, None] * of_lane
            rows = rows.reshape(plan.lanes, plan.batches, own).transpose(1, 0, 2)
            skip = done - number * plan.batches if number == first else 0
            yield self._read(spans, rows.reshape(plan.batches, -1), skip, number, columns)
        yield from self._last(blocks, key, max(0, done - plan.full * plan.batches), columns)

    def _last(
        self, blocks: Bijection, key: jax.Array, skip: int, columns: Columns
    ) -> Iterator[Window]:
        """The rows that fill no window, in an order of all of them, and the last, short batch."""
        plan = self.plan
        used = plan.full * plan.lanes * plan.depth
        spans = self._spans(blocks(np.arange(used, blocks.count)))
        if plan.count % plan.block:
            spans.append((blocks.count * plan.block, plan.count))
        count = plan.count - plan.full * plan.rows
        if not count:
            return
        order = orders_of(key, plan.full, count=count, runs=1)[0]
        whole, size = count // plan.batch_size, plan.batch_size
        if skip < whole:
            yield self._read(
                spans, order[: whole * size].reshape(whole, size), skip, plan.full, columns
            )
        if count % size and skip <= whole:
            rows = order[whole * size :][None]
            window = self._read(spans, rows, 0, plan.full, columns)
            yield window._replace(end=-(-plan.count // size))

    def _spans(self, blocks: np.ndarray) -> list[tuple[int, int]]:
        size = self.plan.block
        return [(start, start + size) for start in (blocks * size).tolist()]

    def _read(
        self,
        spans: list[tuple[int, int]],
        rows: np.ndarray,
        skip: int,
        number: int,
        columns: Columns,
    ) -> Window:
        """Batches of rows [batches, N], numbers among those of the spans, but for the first few."""
        count, size = rows.shape[0] - skip, rows.shape[1]
        own = np.concatenate([rows[skip:, part] for part in columns(size)], axis=1)
        if own.shape[1] < size:
            spans, own = _needed(spans, own)
        room = self.room if size == self.plan.batch_size else 1
        places = np.zeros((room, own.shape[1]), own.dtype)
        places[:count] = own

        def taken(stored: Stored) -> np.ndarray:
            read = stored.read(spans, self._blocks)
            flat = _aligned((places.size, *read.shape[1:]), read.dtype)
            np.take(read, places.reshape(-1), axis=0, out=flat, mode="clip")
            return flat.reshape(*places.shape, *read.shape[1:])

        every = [stored for stored in (self._x, self._y, self._weight) if stored is not None]
        self._x.will_need(spans)
        x, y, *weights = map(taken, every)
        end = number * self.plan.batches + skip + count
        return Window(x, y, weights[0] if weights else None, size, count, end)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins where the CPU takes it as it is, for which no copy need be made."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    first = -room.ctypes.data % ALIGNMENT
    return room[first : first + size].view(dtype).reshape(shape)


def _needed(
    spans: list[tuple[int, int]], rows: np.ndarray
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The spans of which there are rows, and the rows as numbers among those of these."""
    lengths = np.array([stop - start for start, stop in spans])
    ends = np.cumsum(lengths)
    of = np.searchsorted(ends, rows, side="right")
    kept = np.unique(of)
    if len(kept) == len(spans):
        return spans, rows
    shift = np.zeros(len(spans), np.int64)
    shift[kept] = (ends - lengths)[kept] - (np.cumsum(lengths[kept]) - lengths[kept])
    return [spans[number] for number in kept.tolist()], rows - shift[of]
