"""Preprocessing that is fitted on the training data and travels with the model."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import _check
from funcnet.tree import FrozenDict, freeze


@partial(jax.tree_util.register_dataclass, data_fields=["stats"], meta_fields=["kind"])
@dataclass(frozen=True)
class Preprocess:
    """A fitted preprocessing, a function of raw inputs that is a pytree as well.

    Attributes:
      kind: what it does, a name in `KINDS`.
      stats: the arrays that were fitted.
    """

    kind: str
    stats: Any

    def __call__(self, x: Any) -> jax.Array:
        """Preprocess a batch.

        Args:
          x: [N, ...] raw inputs, of the shape that it was fitted on.

        Returns:
          [N, ...], what the network takes.

        Raises:
          ValueError: the examples have another shape.
        """
        return KINDS[self.kind](self.stats, jnp.asarray(x))


def subtract_mean(x: Any) -> Preprocess:
    """Subtract the mean example (the mean image), as CS231n does; no division.

    Args:
      x: [N, ...] training inputs.

    Returns:
      A Preprocess with `stats["mean"]`, [...] of JAX's default float type.
    """
    x = _check.inputs(x)
    mean = np.asarray(x).mean(axis=0, dtype=np.float64)
    return Preprocess("subtract_mean", freeze({"mean": mean}))


def no_preprocess(x: Any) -> Preprocess:
    """Leave the inputs as they are."""
    return Preprocess("no_preprocess", FrozenDict())


def _apply_subtract_mean(stats: Any, x: jax.Array) -> jax.Array:
    mean = stats["mean"]
    if x.shape[1:] != mean.shape:
        raise ValueError(
            f"x has examples of shape {list(x.shape[1:])}, but the mean that is "
            f"subtracted has {list(mean.shape)}"
        )
    return x.astype(jnp.promote_types(mean.dtype, jnp.float32)) - mean


def _apply_nothing(stats: Any, x: jax.Array) -> jax.Array:
    return x


KINDS = {"subtract_mean": _apply_subtract_mean, "no_preprocess": _apply_nothing}
