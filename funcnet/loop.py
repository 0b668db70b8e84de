"""The loop over the batches of an epoch: their order, and chunks of steps of about a second."""

import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CHUNK_SECONDS = 1.0  # of a chunk of steps: then an interrupt is heard
FIRST_CHUNK = 8  # steps, while it is not known how long one takes
SMALL = 64 * 2**20  # bytes of examples that are copied to share programs with a few more
DRAWN = 2**15  # examples for whose order keys are drawn at once, of several epochs if they are few
LARGE = 64 * 2**20  # bytes of a state whose steps are done in place


class Orders:
    """The orders in which the epochs of a run, or of runs, take `count` examples.

    They are a `jax.random.permutation` each: sorted by random keys, and again where these may be
    equal. NumPy sorts them many times as fast as XLA does on the CPU. The keys are drawn for some
    epochs at once, where the examples are few.

    Args:
      key: the key of the run, or those of runs.
      count: the number of examples.
      runs: how many runs there are; None is one without an axis.
    """

    def __init__(self, key: jax.Array, count: int, runs: int | None = None) -> None:
        self._key, self._count, self._runs = key, count, runs
        self._block = max(1, DRAWN // (count * (runs or 1)))
        self._first, self._drawn = -self._block, np.zeros(0)

    def of(self, epoch: int) -> np.ndarray:
        """The order of an epoch, counted from 0, [count] int32, or those of runs [runs, count]."""
        first = epoch - epoch % self._block
        if first != self._first:
            epochs = np.arange(first, first + self._block, dtype=np.int32)
            several = self._runs is not None
            drawn = _draw(self._key, epochs, count=self._count, several=several)
            self._first, self._drawn = first, np.asarray(drawn)
        rounds = self._drawn[epoch - first]
        return _sorted_by(rounds) if self._runs is None else np.stack([*map(_sorted_by, rounds)])


def orders_of(key: jax.Array, number: int, *, count: int, runs: int) -> np.ndarray:
    """Orders of `count` things by a key and a number, some of each, [runs, count] int32."""
    keys, numbers = jax.random.split(key, runs), np.array([number], np.int32)
    drawn = np.asarray(_draw(keys, numbers, count=count, several=True))[0]
    return np.stack([*map(_sorted_by, drawn)])


def _sorted_by(rounds: np.ndarray) -> np.ndarray:
    """The order that sorting by each of several arrays of keys [rounds, count] leads to."""
    place = np.arange(rounds.shape[1], dtype=np.uint64)
    order = place
    for keys in rounds:
        # The place in the low bits makes equal keys keep their order.
        placed = (keys.astype(np.uint64) << np.uint64(32)) | place
        order = order[np.sort(placed) & np.uint64(2**32 - 1)]
    return order.astype(np.int32)


def _sort_keys(key: jax.Array, epoch: Any, *, count: int) -> jax.Array:
    """The keys by which an order is sorted: [rounds, count] uint32."""
    order_key, _ = jax.random.split(key)
    rounds = math.ceil(3 * math.log(count) / math.log(2**32 - 1))
    key, rows = jax.random.fold_in(order_key, epoch), []
    for _ in range(rounds):
        key, own = jax.random.split(key)
        rows.append(jax.random.bits(own, (count,), jnp.uint32))
    return jnp.stack(rows) if rows else jnp.zeros((0, count), jnp.uint32)


@partial(jax.jit, static_argnames=("count", "several"))
def _draw(key: jax.Array, epochs: Any, *, count: int, several: bool) -> jax.Array:
    """The keys by which the orders of these epochs are sorted: [epochs, (runs), rounds, count]."""
    of_epoch = partial(_sort_keys, count=count)
    if several:
        of_epoch = jax.vmap(of_epoch, in_axes=(0, None))
    return jax.lax.map(partial(of_epoch, key), epochs)


def run_steps(
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]],
    carry: Any,
    losses: jax.Array,
    order: jax.Array,
    first: jax.Array,
    end: jax.Array,
    batch_size: int,
) -> tuple[Any, jax.Array]:
    """`step(carry, batch) -> (carry, loss)` for each batch of an order from number first to end.

    The numbers are traced: the steps are the same program, and give the same bits, in chunks of
    whatever size.

    Args:
      step: the step; batch is [batch_size, ...], of the order.
      carry: what goes from step to step.
      losses: [batches, ...], where the losses are written.
      order: [examples, ...].
      first, end: int32.
      batch_size: examples per step.
    Returns:
      The carry and the losses.
    """

    def one(number: jax.Array, at: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        carry, losses = at
        batch = jax.lax.dynamic_slice_in_dim(order, number * batch_size, batch_size)
        carry, loss = step(carry, batch)
        return carry, losses.at[number].set(loss)

    return jax.lax.fori_loop(first, end, one, (carry, losses))


class Epoch(NamedTuple):
    """What the steps of an epoch go by.

    Attributes:
      order: [room, ...] int32, the order of the examples, and zeros after it.
      losses: [room // batch_size, ...], where losses are written.
      rest: the last batch, if it is short, else None.
      full: the number of full batches.
    """

    order: np.ndarray
    losses: Any
    rest: np.ndarray | None
    full: int


def compiled_steps(function: Callable[..., Any], **static: Any) -> dict[bool, Any]:
    """A function of what is held and of more, compiled: in place under True, else under False.

    Steps in place give up the buffers that they are given, which takes half the memory.
    """
    return {
        in_place: jax.jit(function, donate_argnums=(0,) if in_place else (), **static)
        for in_place in (False, True)
    }


def in_place(held: Any) -> bool:
    """Whether steps on this are done in place: if it is large."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(held)) > LARGE


@jax.jit
def copy_of(held: Any) -> Any:
    """What is held, in buffers that steps in place may be given."""
    return jax.tree.map(jnp.copy, held)


def make_epoch(
    order: np.ndarray, *, room: int, batch_size: int, loss_shape: tuple[int, ...] = ()
) -> Epoch:
    """An epoch of an order [N, ...] of examples in arrays that have room for so many rows.

    Epochs of about N examples are of one shape, so that they are the same programs.
    """
    full, given = len(order) // batch_size, np.zeros((room, *order.shape[1:]), np.int32)
    given[: len(order)] = order
    zeros = np.zeros((room // batch_size, *loss_shape), jax.dtypes.canonicalize_dtype(float))
    rest = order[full * batch_size :] if len(order) % batch_size else None
    return Epoch(given, zeros, rest, full)


def over_epoch(
    steps: Callable[..., tuple[Any, jax.Array]],
    step: Callable[[Any, Any], tuple[Any, jax.Array]],
    held: Any,
    epoch: Epoch,
    size: int,
    give_up: bool,
    stopped: Callable[[], bool] = lambda: False,
    agreed: Callable[[int], int] = int,
) -> tuple[Any, np.ndarray, int]:
    """All steps of an epoch: those of full batches in chunks of about a second, and the rest.

    Args:
      steps: `steps(held, losses, order, first, end)`, `run_steps` of `compiled_steps`.
      step: `step(held, batch) -> (held, loss)`, compiled, for a last batch that is short.
      held: what goes from step to step; it stays what it is, of large ones as a copy.
      epoch: the Epoch.
      size: how many steps the first chunk has.
      give_up: whether steps are done in place.
      stopped: asked before each chunk: whether to give up, with a KeyboardInterrupt.
      agreed: how many steps a chunk has, of how many this process would have it.
    Returns:
      What is held, the losses [steps, ...] in float64, and the size for the next epoch.
    """
    held, done = copy_of(held) if give_up else held, 0
    losses = epoch.losses
    while done < epoch.full:
        if stopped():
            raise KeyboardInterrupt
        end, before = min(done + size, epoch.full), time.perf_counter()
        held, losses = steps(held, losses, epoch.order, np.int32(done), np.int32(end))
        jax.block_until_ready(losses)
        rate = (end - done) / max(time.perf_counter() - before, 1e-9)
        size, done = agreed(max(1, min(8 * size, int(rate * CHUNK_SECONDS)))), end
    history = np.asarray(losses, np.float64)[: epoch.full]
    if epoch.rest is not None:
        held, loss = step(held, epoch.rest)
        history = np.concatenate([history, np.asarray(loss, np.float64)[None]])
    return held, history, size


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """By which, and by shapes, programs and so roundings differ."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
    }


def slices(count: int, batch_size: int) -> Iterator[slice]:
    """Slices of `batch_size` that cover `count`, the last one short."""
    return (slice(start, start + batch_size) for start in range(0, count, batch_size))


def roomy(x: np.ndarray) -> np.ndarray:
    """Examples [N, ...] with a few more rows, of zeros: up to one for every eight.

    Arrays of about N rows are made alike: a program that was compiled for some serves others that
    have a row more or less. Large ones stay as they are, of which a copy would cost more.
    """
    if x.nbytes > SMALL:
        return x
    count, granule = len(x), 2 ** max(0, len(x).bit_length() - 5)
    known = _rooms.setdefault((x.shape[1:], x.dtype), set())
    room = min((r for r in known if count <= r <= count + count // 8), default=0)
    room = room or (count // granule + 1) * granule
    known.add(room)
    return np.concatenate([x, np.zeros((room - count, *x.shape[1:]), x.dtype)])


# The rows that arrays of a kind were given: of two whose sizes lie on both sides of a multiple of
# the granule, the second takes the room of the first.
_rooms: dict[Any, set[int]] = {}
