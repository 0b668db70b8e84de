"""The epochs of a run: the steps on what a feed gives, compiled, in chunks of about a second."""

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet.feed import Feed, Stretch
from funcnet.loop import (
    FIRST_CHUNK,
    compiled_steps,
    copy_of,
    in_place,
    over_epoch,
    run_steps,
)
from funcnet.parallel import local
from funcnet.processes import of_first
from funcnet.program import Program
from funcnet.step import Given, Held, gradients, release, step_on
from funcnet.tree import Tree


class Reached(NamedTuple):
    """Where a run is after a stretch of an epoch.

    Attributes:
      held: the state.
      losses: the loss of every step of the stretch, [steps] float64.
      done: how many batches of the epoch are done.
      mark: where its source is, for `restore` of a Feed.
    """

    held: Any
    losses: np.ndarray
    done: int
    mark: Any


def _steps(
    held: Held,
    losses: jax.Array,
    order: jax.Array,
    first: Any,
    end: Any,
    given: Given,
    *,
    program: Program,
    batch_size: int,
) -> tuple[Held, jax.Array]:
    def step(held: Held, batch: jax.Array) -> tuple[Held, jax.Array]:
        return step_on(held, batch, given, program)

    return run_steps(step, held, losses, order, first, end, batch_size)


_STEPS = compiled_steps(_steps, static_argnames=("program", "batch_size"))


_STEP = compiled_steps(step_on, static_argnames=("program",))


class Epochs:
    """The epochs of a run, each a pass over the training data.

    On several devices a batch is spread over them, and the compiler adds up what comes of its
    parts. What is held stays what it is, so that whatever ends an epoch loses nothing else.

    Args:
      feed: what gives the batches.
      program: the Program.
      held: the state before one of them: of large ones steps are done in place, on a copy.
    """

    def __init__(self, feed: Feed, *, program: Program, held: Held) -> None:
        self.program, self.in_place, self.feed = program, in_place(held), feed
        self._size = FIRST_CHUNK

    def begin(self, held: Held) -> Held:
        """What is held, where it is trained."""
        spread = self.program.spread
        return held if spread is None else spread.placed(held)

    def train(self, held: Held, epoch: int, done: int = 0) -> Generator[Reached]:
        """What is left of an epoch, counted from 0, after so many batches, in stretches."""
        spread = self.program.spread
        several = spread is not None and spread.processes > 1
        for stretch in self.feed.stretches(epoch, done):
            held, losses, self._size = over_epoch(
                partial(self._steps, stretch),
                partial(self._step, stretch),
                held,
                stretch.epoch,
                self._size,
                self.in_place,
                agreed=of_first if several else int,
            )
            yield Reached(held, losses, stretch.end, stretch.mark)

    def each_step(
        self, held: Held, epoch: int, done: int = 0
    ) -> Iterator[tuple[Any, Held, np.ndarray]]:
        """The same one step at a time, by the same programs: (batch, held, loss) of each."""
        own = copy_of if self.in_place else lambda held: held
        for stretch in self.feed.stretches(epoch, done):
            made, size = stretch.epoch, stretch.size
            for number in range(made.full):
                chunk = np.int32(number), np.int32(number + 1)
                held, losses = self._steps(stretch, own(held), made.losses, made.order, *chunk)
                batch = made.order[number * size : (number + 1) * size]
                yield (stretch.given, batch), held, np.asarray(losses)[number]
            if made.rest is not None:
                held, loss = self._step(stretch, own(held), made.rest)
                yield (stretch.given, made.rest), held, np.asarray(loss)

    def _steps(self, stretch: Stretch, *at: Any) -> tuple[Held, jax.Array]:
        run = _STEPS[self.in_place]
        return run(*at, stretch.given, program=self.program, batch_size=stretch.size)

    def _step(self, stretch: Stretch, held: Held, batch: Any) -> tuple[Held, jax.Array]:
        return _STEP[self.in_place](held, batch, stretch.given, program=self.program)

    def parts(self, held: Held, batch: tuple[Any, Any]) -> tuple[jax.Array, Tree, Tree]:
        """The loss, the gradients and the updates of a step."""
        given, numbers = batch
        return local(_parts(held, numbers, given, program=self.program))


@partial(jax.jit, static_argnames=("program",))
def _parts(
    held: Held, batch: Any, given: Given, *, program: Program
) -> tuple[jax.Array, Tree, Tree]:
    state = release(held, given.key, 0)
    examples = given.batch(batch)
    loss, grads, _ = gradients(program, given.numbers, given.preprocess, state, *examples)
    updates, _ = program.optimizer.update(grads, state.opt_state, state.params)
    return loss, grads, updates
