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


def epoch_order(key: jax.Array, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch of the run with this key takes `count` examples, [count] int32.

    It is a `jax.random.permutation`: sorted by random keys, and again where these may be equal.
    NumPy sorts them many times as fast as XLA does on the CPU.
    """
    return _sorted_by(np.asarray(_sort_keys(key, np.int32(epoch), count=count)))


def epoch_orders(keys: jax.Array, epoch: int, count: int) -> np.ndarray:
    """The orders of the runs with these keys, [runs, count]."""
    drawn = np.asarray(_sort_keys_of_runs(keys, np.int32(epoch), count=count))
    return np.stack([_sorted_by(rounds) for rounds in drawn])


def _sorted_by(rounds: np.ndarray) -> np.ndarray:
    """The order that sorting by each of several arrays of keys [rounds, count] leads to."""
    place = np.arange(rounds.shape[1], dtype=np.uint64)
    order = place
    for keys in rounds:
        # The place in the low bits makes equal keys keep their order.
        placed = (keys.astype(np.uint64) << np.uint64(32)) | place
        order = order[np.sort(placed) & np.uint64(2**32 - 1)]
    return order.astype(np.int32)


def _make_sort_keys(key: jax.Array, epoch: Any, *, count: int) -> jax.Array:
    """The keys by which an order is sorted: [rounds, count] uint32."""
    order_key, _ = jax.random.split(key)
    rounds = math.ceil(3 * math.log(count) / math.log(2**32 - 1))
    key, rows = jax.random.fold_in(order_key, epoch), []
    for _ in range(rounds):
        key, own = jax.random.split(key)
        rows.append(jax.random.bits(own, (count,), jnp.uint32))
    return jnp.stack(rows) if rows else jnp.zeros((0, count), jnp.uint32)


_sort_keys = jax.jit(_make_sort_keys, static_argnames=("count",))


@partial(jax.jit, static_argnames=("count",))
def _sort_keys_of_runs(keys: jax.Array, epoch: Any, *, count: int) -> jax.Array:
    return jax.vmap(partial(_make_sort_keys, count=count), in_axes=(0, None))(keys, epoch)


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

    order: jax.Array
    losses: jax.Array
    rest: np.ndarray | None
    full: int


def make_epoch(
    order: np.ndarray, *, room: int, batch_size: int, loss_shape: tuple[int, ...] = ()
) -> Epoch:
    """An epoch of an order [N, ...] of examples in arrays that have room for so many rows.

    Epochs of about N examples are of one shape, so that they are the same programs.
    """
    full, given = len(order) // batch_size, np.zeros((room, *order.shape[1:]), np.int32)
    given[: len(order)] = order
    losses = jnp.zeros((room // batch_size, *loss_shape), float)
    rest = order[full * batch_size :] if len(order) % batch_size else None
    return Epoch(jnp.asarray(given), losses, rest, full)


def over_epoch(
    steps: Callable[..., tuple[Any, jax.Array]],
    step: Callable[[Any, Any], tuple[Any, jax.Array]],
    held: Any,
    epoch: Epoch,
    size: int,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Any, np.ndarray, int]:
    """All steps of an epoch: those of full batches in chunks of about a second, and the rest.

    Args:
      steps: `steps(held, losses, order, first, end)`, `run_steps` compiled; it may give up the
        buffers of the first two.
      step: `step(held, batch) -> (held, loss)`, compiled, for a last batch that is short.
      held: what goes from step to step.
      epoch: the Epoch; its losses are given up.
      size: how many steps the first chunk has.
      stopped: asked before each chunk: whether to give up, with a KeyboardInterrupt.
    Returns:
      What is held, the losses [steps, ...] in float64, and the size for the next epoch.
    """
    done, losses = 0, epoch.losses
    while done < epoch.full:
        if stopped():
            raise KeyboardInterrupt
        end, before = min(done + size, epoch.full), time.perf_counter()
        held, losses = steps(held, losses, epoch.order, np.int32(done), np.int32(end))
        jax.block_until_ready(losses)
        rate = (end - done) / max(time.perf_counter() - before, 1e-9)
        size, done = max(1, min(8 * size, int(rate * CHUNK_SECONDS))), end
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
