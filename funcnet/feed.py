"""What the steps of an epoch are fed with: the training data in memory, or windows of them.

An epoch is some stretches, one after the other: all of it, where the data are in memory, else a
window each, which a thread reads, and brings to the devices, while those before it are trained on.
"""

import queue
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset
from funcnet.datasets.dataset import on_disk
from funcnet.inputs import TrainingArrays, on_device, training_arrays
from funcnet.loaders import Loader
from funcnet.loop import Epoch, Orders, make_epoch, slices
from funcnet.parallel import Spread
from funcnet.preprocess import Preprocess
from funcnet.program import Numbers, Program
from funcnet.step import Batches, Given
from funcnet.targets import Targets
from funcnet.windows import Source, StoredWindows, Window, whole

Item = TypeVar("Item")


class Stretch(NamedTuple):
    """A part of an epoch.

    Attributes:
      given: what its steps are given.
      epoch: the batches, as numbers of examples, or of batches.
      size: how many numbers a batch has.
      end: how many batches of the epoch are done after it.
      mark: where its source is then, for `restore`.
    """

    given: Given
    epoch: Epoch
    size: int
    end: int
    mark: Any = None


class ShardStretch(NamedTuple):
    """A part of an epoch in shards.

    Attributes:
      given: what the steps are given, on the devices of each row.
      size: how many examples its batches have.
      batches: of each batch, for each row, the numbers of the examples of its shards.
      end, mark: as in a Stretch.
    """

    given: list[Given]
    size: int
    batches: Iterator[list[list[np.ndarray]]]
    end: int
    mark: Any = None


class Feed(Protocol):
    """What `Epochs` and `ExactEpochs` are fed by."""

    text: str  # by what the order of the examples goes, besides the key of the run
    replays: bool  # whether an epoch can be read again
    parts: bool  # whether an epoch may be many stretches

    def stretches(self, epoch: int, done: int) -> Iterator[Stretch]:
        """What is left of an epoch, counted from 0, after so many batches."""
        ...

    def shards(self, epoch: int, done: int) -> Iterator[ShardStretch]:
        """The same, in shards."""
        ...

    def restore(self, mark: Any) -> None:
        """Go to where a stretch ended that had this mark."""
        ...


class InMemory:
    """Training data in memory; a Feed.

    Args:
      key: the key of the run.
      data: the training data.
      numbers, batch_size, spread: as for a step.
    """

    text, replays, parts = "in memory", True, False

    def __init__(
        self,
        key: jax.Array,
        data: TrainingArrays,
        numbers: Numbers,
        *,
        batch_size: int,
        spread: Spread | None = None,
    ) -> None:
        given = Given(key, data.x, data.y, data.weight, data.preprocess, numbers)
        self._rows: list[Given] = []
        if spread is not None:
            given = jax.tree.map(jnp.asarray, given)
            if spread.shards is None:
                given = spread.on_each(given)
            else:
                self._rows = [spread.on_row(given, row) for row in spread.rows]
        self._given, self._spread, self._batch_size = given, spread, batch_size
        self._orders = Orders(key, data.num_examples)

    def restore(self, mark: Any) -> None:
        """Nothing: the number of the epoch says all."""

    def stretches(self, epoch: int, done: int) -> Iterator[Stretch]:
        """All of an epoch, or nothing."""
        if done:
            return
        size = self._batch_size
        made = make_epoch(self._orders.of(epoch), room=len(self._given.x), batch_size=size)
        yield Stretch(self._given, made, size, made.full + (made.rest is not None))

    def shards(self, epoch: int, done: int) -> Iterator[ShardStretch]:
        """What is left of an epoch: full batches, and a short one."""
        assert self._spread is not None
        order, size = self._orders.of(epoch), self._batch_size
        full, rest = len(order) // size, len(order) % size
        cut = partial(_cut, self._spread)
        if done < full:
            batches = (cut(order[rows]) for rows in slices(full * size, size))
            yield ShardStretch(self._rows, size, batches, full)
        if rest and done <= full:
            yield ShardStretch(self._rows, rest, iter([cut(order[-rest:])]), full + 1)


def _cut(spread: Spread, batch: np.ndarray) -> list[list[np.ndarray]]:
    """The numbers of the examples of each shard, for each row of this process."""
    shards = spread.cut(len(batch))
    holders, cut = spread.holders(shards), batch.reshape(shards, -1)
    each = shards // holders
    return [
        list(cut[row * each : (row + 1) * each]) if holders > 1 else [*cut] for row in spread.rows
    ]


class Windowed:
    """Windows of a Source; a Feed.

    Args:
      source: the Source.
      key: the key of the run.
      preprocess: what is left of it for a step to do.
      numbers, spread: as for a step.
    """

    def __init__(
        self,
        source: Source,
        key: jax.Array,
        preprocess: Preprocess,
        numbers: Numbers,
        *,
        spread: Spread | None = None,
    ) -> None:
        self.text, self.replays, self.parts = source.text, source.replays, True
        self._source, self._spread = source, spread
        self._rest: tuple[Any, ...] = (key, preprocess, numbers)
        self._on_rows: list[Any] = []
        if spread is not None:
            self._rest = jax.tree.map(jnp.asarray, self._rest)
            if spread.shards is None:
                self._rest = spread.on_each(self._rest)
            else:
                self._on_rows = [spread.on_row(self._rest, row) for row in spread.rows]

    def restore(self, mark: Any) -> None:
        """Go to where a stretch ended that had this mark."""
        self._source.restore(mark)

    def stretches(self, epoch: int, done: int) -> Iterator[Stretch]:
        """A window each."""
        return ahead(map(self._stretch, self._windows(epoch, done)))

    def shards(self, epoch: int, done: int) -> Iterator[ShardStretch]:
        """A window each."""
        return ahead(map(self._shard_stretch, self._windows(epoch, done)))

    def _windows(self, epoch: int, done: int) -> Iterator[Window]:
        columns = whole if self._spread is None else self._spread.columns
        return self._source.windows(epoch, done, columns)

    def _stretch(self, window: Window) -> Stretch:
        parts = window.x, window.y, window.weight
        if self._spread is None:
            x, y, weight = jax.device_put(parts)
        else:
            place = partial(self._spread.in_columns, count=window.batch_size)
            x, y, weight = jax.tree.map(place, parts)
        key, left, numbers = self._rest
        room = len(window.x)
        zeros = np.zeros(room, jax.dtypes.canonicalize_dtype(float))
        epoch = Epoch(np.arange(room, dtype=np.int32), zeros, None, window.full)
        return Stretch(Batches(key, x, y, weight, left, numbers), epoch, 1, window.end, window.mark)

    def _shard_stretch(self, window: Window) -> ShardStretch:
        assert self._spread is not None
        spread, size = self._spread, window.batch_size
        shards, rows = spread.cut(size), spread.rows
        holders = spread.holders(shards)
        own = size // holders  # of a batch, on each row
        given, numbers = [], np.arange(window.full * own, dtype=np.int32)
        for place, (row, rest) in enumerate(zip(rows, self._on_rows, strict=True)):
            part = slice(place * own, (place + 1) * own) if holders > 1 else slice(None)
            flat = [
                None if a is None else a[:, part].reshape(-1, *a.shape[2:])
                for a in (window.x, window.y, window.weight)
            ]
            x, y, weight = spread.on_row(flat, row)
            key, left, of_run = rest
            given.append(Given(key, x, y, weight, left, of_run))
        cut = numbers.reshape(window.full, shards // holders, -1)
        batches = ([list(batch)] * len(rows) for batch in cut)
        return ShardStretch(given, size, batches, window.end, window.mark)


def feed_of(
    key: jax.Array,
    dataset: Dataset,
    loader: Loader | None,
    *,
    preprocess: Preprocess,
    targets: Targets,
    numbers: Numbers,
    program: Program,
    batch_size: int,
) -> "tuple[InMemory | Windowed, tuple[Any, Any, Any], Preprocess]":
    """The Feed of a run, and of its steps some examples, and the preprocessing that they do.

    Args:
      key: the key of the run.
      dataset: the Dataset, checked.
      loader: batches in place of its training split.
      preprocess, targets, numbers, program, batch_size: as for a step.
    """
    spread, augments = program.spread, program.augment is not None
    if loader is not None:
        left = loader.encoded(preprocess, targets, augments=augments)
        x, y, *weights = loader.first
        examples = x, targets.encode(y), weights[0] if weights else None
        return Windowed(loader, key, left, numbers, spread=spread), examples, left
    if not on_disk(dataset):
        data = training_arrays(dataset, preprocess, targets, augments=augments)
        feed = InMemory(key, data, numbers, batch_size=batch_size, spread=spread)
        return feed, (data.x, data.y, data.weight), data.preprocess
    if augments and checks.is_wide(dataset.x_train):
        raise ValueError(
            f"x_train is {dataset.x_train.dtype} on disk, which cannot be augmented: save float32"
        )
    stored: Any = dataset
    x, left = on_device(stored.x_train, preprocess)
    y, weight = stored.y_train.made(targets.encode), stored.weight_train
    if weight is not None:
        weight = weight.made(lambda rows: rows.astype(jax.dtypes.canonicalize_dtype(float)))
    every = [each for each in (x, y, weight) if each is not None]
    row_bytes = max(sum(each.row_bytes for each in every), stored.x_train.row_bytes)
    source = StoredWindows(key, x, y, weight, batch_size=batch_size, row_bytes=row_bytes)
    examples = x[:batch_size], y[:batch_size], None if weight is None else weight[:batch_size]
    return Windowed(source, key, left, numbers, spread=spread), examples, left


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, of which a thread makes one while the one before it is used.

    An error there is raised here, in its place. Whoever leaves the loop ends the thread.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
    over = threading.Event()
    # A thread has none of what is set for the one that begins it.
    config: Any = jax.config
    wide, device = config.jax_enable_x64, config.jax_default_device

    def put(what: str, value: Any) -> bool:
        while not over.is_set():
            try:
                ready.put((what, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            with jax.enable_x64(wide), jax.default_device(device):
                for item in items:
                    if not put("item", item):
                        return
            put("end", None)
        except BaseException as error:  # whatever it is, it is not this thread's to hear
            put("error", error)

    thread = threading.Thread(target=work, name="funcnet-reader", daemon=True)
    thread.start()
    try:
        while True:
            what, value = ready.get()
            if what == "end":
                return
            if what == "error":
                raise value
            yield value
            del value  # so that its memory is free while the next one is awaited
    finally:
        over.set()
        thread.join()
