"""Data as compiled programs take them: preprocessed on the host where float32 would round them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset, Stored
from funcnet.datasets.notes import note
from funcnet.loop import roomy, slices
from funcnet.preprocess import Preprocess, no_preprocess, reads_parts
from funcnet.targets import Targets

EVALUATION_BATCH = 1000  # examples per forward pass where nothing is trained


def fit_preprocess(
    preprocess: Preprocess | Callable[[Any], Preprocess] | None, x_train: Any
) -> Preprocess:
    """The Preprocess that `fit` uses: given, fitted to x_train, or none."""
    if isinstance(preprocess, Preprocess):
        return preprocess
    if preprocess is None:
        preprocess = no_preprocess
    checks.function("preprocess", preprocess)
    if isinstance(x_train, Stored) and not reads_parts(preprocess):
        count, x_train = len(x_train), x_train.sample()
        if len(x_train) < count:
            note(
                f"preprocessing is fitted to {len(x_train):,} examples, evenly spread, of "
                f"{count:,}, which stay on disk"
            )
    fitted = preprocess(x_train)
    if not isinstance(fitted, Preprocess):
        raise TypeError(
            f"preprocess must give a Preprocess, as subtract_mean does, got {type(fitted).__name__}"
        )
    return fitted


class TrainingArrays(NamedTuple):
    """The training data on the device, and the preprocessing left for a step to do.

    Attributes:
      x, y: the examples and their encoded targets; there may be rows of zeros after the last one.
      weight: their weights; None is 1 each.
      num_examples: how many examples there are.
      preprocess: what is left.
    """

    x: jax.Array
    y: jax.Array
    weight: jax.Array | None
    num_examples: int
    preprocess: Preprocess

    def on(self, device: jax.Device) -> "TrainingArrays":
        """A copy on a device."""
        x, y, weight, left = jax.device_put((self.x, self.y, self.weight, self.preprocess), device)
        return TrainingArrays(x, y, weight, self.num_examples, left)


def training_arrays(
    dataset: Dataset, preprocess: Preprocess, targets: Targets, *, augments: bool
) -> TrainingArrays:
    """The training data as an epoch takes them."""
    count = len(dataset.x_train)
    if augments:
        examples = np.asarray(checks.narrowed(dataset.x_train, "x_train", "to be augmented"))
        left = stats_on_device(preprocess)
    else:
        x, left = on_device(dataset.x_train, preprocess)
        if _narrows(left, x):  # once is enough, and takes less memory
            parts = (_preprocess(left, x[b]) for b in slices(count, EVALUATION_BATCH))
            examples, left = np.concatenate(list(map(np.asarray, parts))), no_preprocess(x)
        else:
            examples = np.asarray(x)
    examples = roomy(examples)

    def in_room(values: np.ndarray) -> jax.Array:
        room = np.zeros((len(examples), *values.shape[1:]), values.dtype)
        room[:count] = values
        return jnp.asarray(room)

    y, given = in_room(targets.encode(dataset.y_train)), dataset.weight_train
    dtype = jax.dtypes.canonicalize_dtype(float)
    weight = None if given is None else in_room(given.astype(dtype))
    return TrainingArrays(jnp.asarray(examples), y, weight, count, left)


def on_device(x: Any, preprocess: Preprocess) -> tuple[Any, Preprocess]:
    """Raw inputs as a compiled program may take them, and the preprocessing left for it to do.

    What the program would round before it is centred is preprocessed now, on the host. Call it once
    for all batches.
    """
    if checks.is_wide(x):
        return preprocess(x), no_preprocess(x)
    return x, stats_on_device(preprocess)


def stats_on_device(preprocess: Preprocess) -> Preprocess:
    """The Preprocess with JAX arrays, which programs that run again and again need not convert."""
    return jax.tree.map(jnp.asarray, preprocess)


@jax.jit
def _preprocess(preprocess: Preprocess, x: jax.Array) -> jax.Array:
    return preprocess(x)


def _narrows(preprocess: Preprocess, x: jax.Array) -> bool:
    """Whether preprocessed examples have fewer elements than raw ones."""
    return jax.eval_shape(preprocess, x[:1]).size < x[:1].size
