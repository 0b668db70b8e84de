"""Numbers gone bad: the first step of a run with a NaN or an infinity, and where in it.

Nothing of it is compiled into the steps: a run looks at its losses and its state once in a while,
and if something is not finite there, goes the way from where all was well again, step by step.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks, transposed
from funcnet.epochs import Reached
from funcnet.parallel import local
from funcnet.step import all_finite
from funcnet.tree import named_leaves

__all__ = ["NonFiniteError", "Trouble"]

POLICIES = ("raise", "skip", "stop")
SHARE = 0.005  # of the time may be spent on looking at the state


class Trouble(NamedTuple):
    """The first step with a number that is not finite.

    Attributes:
      step: the number of the step, counted from 1 over the whole run.
      epoch: the epoch that it is in, counted from 1.
      where: what is not finite: "loss", "gradient of affine1/w", "update of affine1/w", ..., or of
        the state after it "params/affine1/w", ...
      last_loss: the loss of the step before it, NaN if there is none.
    Example:
      >>> trouble = fn.Trouble(step=7, epoch=1, where=("gradient of affine1/w",), last_loss=2.5)
      >>> print(trouble)
      step 7, in epoch 1, is not finite: gradient of affine1/w; the loss before it was 2.5
    """

    step: int
    epoch: int
    where: tuple[str, ...]
    last_loss: float

    def __str__(self) -> str:
        known = ", ".join(self.where[:3])
        more = f" and {len(self.where) - 3} more" if len(self.where) > 3 else ""
        before = (
            "" if np.isnan(self.last_loss) else f"; the loss before it was {self.last_loss:.6g}"
        )
        return f"step {self.step}, in epoch {self.epoch}, is not finite: {known}{more}{before}"


class NonFiniteError(FloatingPointError):
    """A run came to a number that is not finite.

    Attributes:
      trouble: the Trouble.
      result: the FitResult after the last epoch before it.
    Example:
      >>> net, digits = fn.mlp([16], 10), fn.load_digits()
      >>> try:
      ...     fn.fit(net, fn.sgd(1e30), digits, key=jax.random.key(0), epochs=2, batch_size=624)
      ... except fn.NonFiniteError as error:
      ...     print(error.trouble.epoch, len(error.result.history.loss))
      1 0
    """

    def __init__(self, trouble: Trouble, result: Any) -> None:
        super().__init__(
            f"{trouble}; a smaller learning rate, clip_by_global_norm, or inputs of unit size may "
            'help; on_nonfinite="stop" returns the run so far, "skip" leaves such updates out'
        )
        self.trouble, self.result = trouble, result


def check_policy(policy: Any) -> str:
    """`on_nonfinite` of `fit`, if it is one of the policies."""
    if policy not in POLICIES:
        raise ValueError(checks.unknown("on_nonfinite", str(policy), POLICIES))
    return policy


_all_finite = jax.jit(all_finite)


def is_finite(held: Any) -> bool:
    """Whether all numbers of the state of a run are finite."""
    return bool(_all_finite(local(held)))


class Watch:
    """Looks at the state of a run as often as takes a small share of the time.

    Args:
      held: the state in the beginning: if it is not finite already, it is not looked at.
      looks: whether to look at all.
    """

    def __init__(self, held: Any, *, looks: bool) -> None:
        self._ever, self._looks, self._due = looks, looks and is_finite(held), 0.0

    def is_well(self, held: Any, losses: np.ndarray, *, now: bool) -> bool | None:
        """Whether all is finite; None if the losses are, and the state is not looked at.

        Args:
          held: the state after an epoch.
          losses: the losses of its steps.
          now: look at it in any case.
        """
        if not self._ever:
            return True
        if not np.isfinite(losses).all():
            return False
        began = time.perf_counter()
        if not now and began < self._due:
            return None
        well = not self._looks or is_finite(held)
        after = time.perf_counter()
        self._due = after + (after - began) / SHARE
        return well


class Found(NamedTuple):
    """Where a run went bad.

    Attributes:
      trouble: the Trouble.
      held: the state after the last whole epoch before it; None if the search began after that.
      losses: those of the steps from where the search began to there.
    """

    trouble: Trouble
    held: Any
    losses: tuple[np.ndarray, ...]


def find(start: Reached, numbers: Sequence[int], last_loss: float, epochs: Any) -> Found | None:
    """The first step that is not finite in some epochs; None if there is none.

    Args:
      start: where all was well, in the first of them.
      numbers: which epochs, counted from 0.
      last_loss: the loss of the step before.
      epochs: the Epochs or ExactEpochs of the run.
    """
    losses: list[np.ndarray] = []
    new: list[np.ndarray] = []
    looks = is_finite(start.held)
    whole = start.held if start.done == 0 else None
    if not epochs.feed.replays:
        return Found(_unseen(start, numbers[0], last_loss), whole, ())
    epochs.feed.restore(start.mark)
    for epoch in numbers:
        bad = False
        # The reader ends before the epoch is read again: both would read into the same memory.
        with closing(epochs.train(start.held, epoch, start.done)) as stretches:
            for reached in stretches:
                losses_well = np.isfinite(reached.losses).all()
                if bad := not losses_well or (looks and not is_finite(reached.held)):
                    break
                start, last_loss = reached, float(reached.losses[-1])
                new.append(reached.losses)
        if bad:
            epochs.feed.restore(start.mark)
            trouble = _first(start, epoch, last_loss, epochs, looks=looks)
            return trouble and Found(trouble, whole, tuple(losses))
        whole, start = start.held, start._replace(done=0)
        losses, new = [*losses, *new], []
    return None


def _unseen(start: Reached, epoch: int, last_loss: float) -> Trouble:
    """What there is to say of a step that cannot be done again."""
    return Trouble(int(local(start.held).step) + 1, epoch + 1, ("a step from here on",), last_loss)


def _first(
    start: Reached, epoch: int, last_loss: float, epochs: Any, *, looks: bool
) -> Trouble | None:
    """The first step of an epoch that is not finite, from where it has got to."""
    before = start.held
    for batch, after, loss in epochs.each_step(before, epoch, start.done):
        if not np.isfinite(loss) or (looks and not is_finite(after)):
            where = _where(before, batch, after, epoch, epochs)
            return Trouble(int(after.step), epoch + 1, where, last_loss)
        before, last_loss = after, float(loss)
    return None


def _where(held: Any, batch: Any, after: Any, epoch: int, epochs: Any) -> tuple[str, ...]:
    """What is not finite in a step."""
    loss, grads, updates = epochs.parts(held, batch)
    names = ["loss"] if not np.isfinite(loss) else []
    for what, tree in (("gradient", grads), ("update", updates)):
        names += [f"{what} of {name}" for name, leaf in named_leaves(tree).items() if _is_bad(leaf)]
    if not names:  # by a rounding that the whole step alone has
        state = transposed.release(local(after))._asdict()
        names = [name for name, leaf in named_leaves(state).items() if _is_bad(leaf)]
    return tuple(names) or ("loss",)


def _is_bad(leaf: Any) -> bool:
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return bool(inexact and not jnp.isfinite(leaf).all())
