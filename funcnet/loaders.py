"""Batches from anyone's own loader: an iterator, which may say where it is and go back there."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset
from funcnet.datasets.dataset import checked_targets
from funcnet.inputs import on_device
from funcnet.preprocess import Preprocess
from funcnet.targets import Targets
from funcnet.windows import Columns, Window, whole

STEPS_PER_EPOCH = checks.COUNT
TOGETHER = 64  # batches that are brought to the device at once, at most
BYTES = 2**24  # of examples that are, about


class Loader:
    """Windows of the batches that somebody's iterator gives; a `Source`.

    Args:
      batches: an iterator of (x, y) or (x, y, weight), or what gives one each time that it is
        iterated over. With `get_state()` and `set_state(state)` a run can go on in mid-epoch, as
        Grain's iterators have them; the state is bytes, or what JSON can hold.
      steps_per_epoch: how many are an epoch; None is as many as one iteration gives.
      dataset: the Dataset that says what targets are; its x_train is what x is like.
      share: one of how many parts of each batch its own are.
      kept: whether its state is to be kept in checkpoints, and so must be bytes or JSON; a state of
        another kind is left alone else.
    """

    def __init__(
        self,
        batches: Any,
        steps_per_epoch: int | None,
        dataset: Dataset,
        *,
        share: int = 1,
        kept: bool = False,
    ) -> None:
        if isinstance(batches, str | bytes | Mapping | np.ndarray) or not isinstance(
            batches, Iterable
        ):
            raise TypeError(
                "batches must be an iterator of (x, y) or (x, y, sample_weight), or an iterable of "
                f"such, got {type(batches).__name__}"
            )
        if steps_per_epoch is not None:
            STEPS_PER_EPOCH.check("steps_per_epoch", steps_per_epoch)
        self._batches, self._steps, self._dataset = batches, steps_per_epoch, dataset
        self._again, self._share = not isinstance(batches, Iterator), share
        self._iterator: Iterator[Any] = iter(batches)
        self.replays = all(hasattr(self._iterator, name) for name in ("get_state", "set_state"))
        self.text = f"of batches, {steps_per_epoch} an epoch"
        self._start = None
        try:
            self._start = self.mark()
        except TypeError:
            if kept:
                raise
            self.replays = False
        self._taken, self._prepare = 0, lambda x: x
        self._targets: Targets | None = None
        self._peeked: list[Any] = []
        self._fresh = True
        self._columns: Columns = whole
        try:
            first = self._checked(next(self._iterator))
        except StopIteration:
            raise ValueError("batches gives none") from None
        self._peeked.append((first, self.mark()))
        self.first = first

    @property
    def batch_size(self) -> int:
        """How many examples the first batch has, over all processes."""
        return len(self.first[0]) * self._share

    def encoded(self, preprocess: Preprocess, targets: Targets, *, augments: bool) -> Preprocess:
        """What is left of the preprocessing for a step to do; the rest is done here."""
        self._targets = targets
        if checks.is_wide(self.first[0]) and augments:
            raise ValueError(
                f"x of batches is {self.first[0].dtype}, which cannot be augmented: give float32"
            )
        _, left = on_device(self.first[0], preprocess)
        if checks.is_wide(self.first[0]):
            self._prepare = lambda x: np.asarray(preprocess(x))
        return left

    def mark(self) -> Any:
        """Where the iterator is, as JSON can hold it; None if it does not say."""
        if not self.replays:
            return None
        state = self._iterator.get_state()  # type: ignore[attr-defined]
        if isinstance(state, bytes):
            return {"bytes": base64.b64encode(state).decode()}
        try:
            kept = json.loads(json.dumps(state))
        except (TypeError, ValueError):
            kept = None
        if kept is None or kept != state:
            raise TypeError(
                "get_state() of batches must give bytes, or what JSON can hold, to be kept in a "
                f"checkpoint, got {checks.cut(state)}"
            )
        return {"json": kept}

    def restore(self, mark: Any) -> None:
        """Go to where a window ended that had this mark; None is the beginning."""
        state = self._start if mark is None else mark
        if not self.replays or state is None:
            raise ValueError("batches has no set_state() to go on with")
        if self._again:
            self._iterator = iter(self._batches)
        try:
            kept = state["json"] if "json" in state else base64.b64decode(state["bytes"])
            self._iterator.set_state(kept)  # type: ignore[attr-defined]
        except Exception as error:  # whatever a loader of one's own raises
            raise ValueError(
                f"set_state() of batches does not take the state of the checkpoint: {error!r}"
            ) from error
        self._peeked, self._fresh = [], mark is None

    def windows(self, epoch: int, done: int, columns: Columns) -> Iterator[Window]:
        """What is left of an epoch, counted from 0, after so many batches."""
        if done == 0 and self._steps is None and self._again and not self._fresh:
            self._iterator = iter(self._batches)
        self._fresh, self._columns = False, columns
        together: list[tuple[np.ndarray, ...]] = []
        mark: Any = None
        while self._steps is None or done < self._steps:
            found = self._next(done)
            if found is None:
                break
            batch, after = found
            full = together and len(together) == self._room(together[0])
            if full or (together and _unlike(batch, together[0])):
                yield self._window(together, done, mark)
                together = []
            together.append(batch)
            mark, done = after, done + 1
        if together:
            yield self._window(together, done, mark)
        if done == 0:
            raise ValueError(
                f"batches gives none in epoch {epoch + 1}: an iterator that ends is for one epoch; "
                "give what can be iterated over again, or steps_per_epoch"
            )

    def _next(self, done: int) -> tuple[tuple[np.ndarray, ...], Any] | None:
        """The next batch, and where the iterator is after it."""
        if self._peeked:
            return self._peeked.pop()
        given = next(self._iterator, None)
        if given is None and self._steps is not None:
            if self._again:
                self._iterator = iter(self._batches)
                given = next(self._iterator, None)
            if given is None:
                raise ValueError(
                    f"batches ended after {done} of {self._steps} steps of an epoch: give fewer "
                    "steps_per_epoch, or what can be iterated over again"
                )
        if given is None:
            return None
        batch = self._checked(given)
        if len(batch) != len(self.first):
            what = f"sample_weight of batch {self._taken}"
            raise ValueError(f"{what}: all batches have one, or none has")
        return batch, self.mark()

    def _checked(self, given: Any) -> tuple[np.ndarray, ...]:
        """A batch as arrays: x, targets as in a Dataset, and weights if there are any."""
        name, data = f"of batch {self._taken + 1}", self._dataset
        self._taken += 1
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise TypeError(
                f"batches must give (x, y) or (x, y, sample_weight), got {type(given).__name__}"
                + (f" of {len(given)}" if isinstance(given, tuple | list) else "")
            )
        # Copies: a loader may fill the same arrays again with the batch after this one.
        x = np.array(checks.inputs(given[0], name=f"x {name}", shape=data.x_train.shape[1:]))
        if x.dtype != data.x_train.dtype:
            raise ValueError(
                f"x {name} is {x.dtype}, but x_train of the dataset, what x is like, "
                f"{data.x_train.dtype}: are they of one scale?"
            )
        like = data.y_train[:0]
        y = checked_targets(given[1], f"y {name}", data.task, len(x), len(data.class_names), like)
        weights = [
            np.array(checks.weights(w, num_examples=len(x), name=f"sample_weight {name}"))
            for w in given[2:]
        ]
        own = sum(part.stop - part.start for part in self._columns(len(x) * self._share))
        if self._share > 1 and own != len(x):
            raise ValueError(
                f"x {name} has {checks.plural(len(x), 'example')}, which cannot be divided among "
                "the devices of this process: leave such a batch out"
            )
        return x, np.array(y), *weights

    def _window(self, together: list[tuple[np.ndarray, ...]], end: int, mark: Any) -> Window:
        assert self._targets is not None
        count, size = len(together), len(together[0][0])
        encoded = []
        for x, y, *weights in together:
            as_given = [w.astype(jax.dtypes.canonicalize_dtype(float)) for w in weights]
            encoded.append((self._prepare(x), self._targets.encode(y), *as_given))
        missing = self._room(together[0]) - count
        filled = [*encoded, *[encoded[0]] * missing]
        x, y, *weights = map(np.stack, zip(*filled, strict=True))
        of_all = size * self._share
        return Window(x, y, weights[0] if weights else None, of_all, count, end, mark)

    def _room(self, batch: tuple[np.ndarray, ...]) -> int:
        """How many batches like this one are brought to the device at once."""
        if _unlike(batch, self.first):
            return 1
        return max(1, min(TOGETHER, BYTES // self.first[0].nbytes))


def _unlike(batch: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return len(batch[0]) != len(other[0])
