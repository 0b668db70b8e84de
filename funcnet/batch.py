"""What losses share: the arrays they take, and the mean over the examples of a batch.

The mean is weighted where there are weights: each example has a share of it, and the shares sum
to 1. An example of weight 0 has no share, whatever is in its row: a loss sees zeros there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.layers import accumulator
from funcnet.shards import BATCH_AXIS, num_shards, over_shards
from funcnet.tree import Array


def as_scores(scores: Array, columns: str = "C") -> jax.Array:
    """Scores [N, C] as a JAX array; `columns` is what C is called in errors.

    Raises:
      ValueError: they are no matrix, or empty. TypeError: they are not floating point.
    """
    scores = jnp.asarray(scores)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be [N, {columns}] and not empty, got {list(scores.shape)}")
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"scores must be floating point, got {scores.dtype}")
    return scores


def shares(sample_weight: Any, scores: jax.Array) -> jax.Array | None:
    """The share of each example in a weighted mean, w_i / sum(w), in the dtype of the loss.

    Args:
      sample_weight: [N] real numbers, of which only the ratios matter; or None.
      scores: [N, C].
    Returns:
      [N], which sum to 1, or zeros if all weights are 0; None without weights.
    Raises:
      ValueError: the shape is another. TypeError: they are no real numbers.
    """
    if sample_weight is None:
        return None
    w = checks.array(sample_weight)
    if w.shape != scores.shape[:1]:
        raise ValueError(
            f"sample_weight must be [N] = {list(scores.shape[:1])}, one weight per row of scores, "
            f"got {list(w.shape)}"
        )
    w = _real("sample_weight", w).astype(accumulator(scores).dtype)
    largest = jax.lax.stop_gradient(w.max())  # the shares are constant in it; no sum overflows
    w = w / jnp.where(largest == 0, 1, largest)
    total = w.sum()
    return w / jnp.where(total == 0, 1, total)


def share_of_shard(sample_weight: Any) -> jax.Array:
    """The share of a shard in the mean over its batch, a scalar: that of its weights.

    Args:
      sample_weight: [N] of the shard; None is 1 each.
    """
    if sample_weight is None:
        return jnp.asarray(1 / (num_shards() or 1), jnp.float32)
    w = accumulator(_real("sample_weight", checks.array(sample_weight)).astype(float))
    largest = jax.lax.pmax(w.max(), BATCH_AXIS)  # so no sum overflows
    own = (w / jnp.where(largest == 0, 1, largest)).sum()
    total = over_shards(own)
    return own / jnp.where(total == 0, 1, total)


def counted(share: jax.Array | None, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays [N] or [N, C], with zeros in the rows of examples that have no share."""
    if share is None:
        return arrays
    out = share == 0  # [N]
    return tuple(jnp.where(out if a.ndim == 1 else out[:, None], 0, a) for a in arrays)


def weighted_mean(
    rows: jax.Array, drows: jax.Array, share: jax.Array | None, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """The loss of a batch, and its gradient.

        loss = sum_i share_i rows_i,  dscores_i = share_i drows_i      share_i = 1 / N without one

    Args:
      rows: [N], the loss of each example.
      drows: [N, C], the gradient of each of these.
      share: of `shares`.
      dtype: that of the scores.
    Returns:
      loss, a scalar; dscores [N, C] in dtype.
    """
    if share is None:
        return rows.mean(), (drows / len(drows)).astype(dtype)
    drows = drows.astype(share.dtype) * share[:, None]
    return (share * rows).sum(), drows.astype(dtype)


class Outputs(NamedTuple):
    """What a loss of one output at a time is of.

    Attributes:
      scores: [N, K] in the dtype in which they are computed, float32 at least.
      targets: [N, K] of that dtype; with Q scores for each of them, [N, K / Q].
      share: of `shares`.
      dtype: that of the scores that were given.
    """

    scores: jax.Array
    targets: jax.Array
    share: jax.Array | None
    dtype: Any

    def mean(self, losses: jax.Array, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean over outputs and examples of losses [N, K] with these derivatives [N, K]."""
        rows, drows = losses.mean(axis=1), slopes / slopes.shape[1]
        return weighted_mean(rows, drows, self.share, self.dtype)


def as_outputs(scores: Array, y: Array, sample_weight: Any, *, of_each: int = 1) -> Outputs:
    """Scores [N, K Q] and targets [N, K], or [N] if K is 1, side by side; Q is `of_each`.

    Raises:
      ValueError: shapes do not fit. TypeError: dtypes do not.
    """
    scores, y = as_scores(scores, "K" if of_each == 1 else "K Q"), checks.array(y)
    n, columns = scores.shape
    if columns % of_each:
        raise ValueError(
            f"scores must have {of_each} columns for each target, one per quantile, "
            f"got {list(scores.shape)}"
        )
    shape = (n, columns // of_each)
    if y.shape != shape and not (y.shape == (n,) and shape[1] == 1):
        raise ValueError(
            f"y must be [N, K] = {list(shape)}, one target per output, got {list(y.shape)}"
        )
    s, share = accumulator(scores), shares(sample_weight, scores)
    y = _real("y", y).astype(s.dtype).reshape(shape)
    s, y = counted(share, s, y)
    return Outputs(s, y, share, scores.dtype)


def _real(name: str, a: jax.Array) -> jax.Array:
    if not (jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)):
        raise TypeError(f"{name} must hold real numbers, got {a.dtype}")
    return a
