"""Losses of numbers with their hand-written gradients, each in one call.

There is a score and a target for each of K outputs, s and y here; the losses are means over the
outputs, and over the examples as those of `losses` are: each one weighs
w_i / sum(w) of `sample_weight` w, 1 / N without. Gradients below are those of one example and
output, before these factors.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.batch import as_outputs
from funcnet.tree import Array

__all__ = ["absolute_loss", "huber_loss", "pinball_loss", "poisson_loss", "squared_loss"]

DELTA = checks.POSITIVE  # of huber_loss
QUANTILE = checks.Range(above=0, below=1)


def squared_loss(
    scores: Array, y: Array, sample_weight: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Half the squared error, (s - y)^2 / 2; gradient s - y. Its minimum is the mean.

    The mean over outputs and examples, as of all losses here, so dscores = (s - y) / (N K).
    scikit-learn's MLPRegressor has the half, too; the mean squared error, which is PyTorch's
    MSELoss and Keras's, is twice this, and its gradient twice that.

    Args:
      scores: [N, K] floating point.
      y: [N, K] targets, floating point or integers, cast to the dtype of scores, float32 at least;
        or [N] if K is 1.
      sample_weight: [N] real numbers >= 0, or None. Values are not checked here, but where data
        comes in. A row of weight 0 counts for nothing, whatever is in it; if all are 0, so are the
        loss and its gradient.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, K] in the
      dtype of scores.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> scores, y = jnp.array([[1.0], [4.0]]), jnp.array([1.0, 2.0])
      >>> loss, dscores = fn.squared_loss(scores, y)
      >>> print(loss, dscores.T)
      1.0 [[0. 1.]]
      >>> loss, dscores = fn.squared_loss(scores, y, sample_weight=jnp.array([3.0, 1.0]))
      >>> print(loss, dscores.T)
      0.5 [[0.  0.5]]
    """
    outputs = as_outputs(scores, y, sample_weight)
    d = outputs.scores - outputs.targets  # [N, K]
    return outputs.mean(d * d / 2, d)


def absolute_loss(
    scores: Array, y: Array, sample_weight: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The absolute error, |s - y|; gradient sign(s - y), 0 at 0. Its minimum is the median.

    Args:
      scores: [N, K] floating point.
      y: [N, K] targets, floating point or integers; or [N] if K is 1.
      sample_weight: [N] real numbers >= 0, the weight of each example, or None; see `squared_loss`.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, K] in the dtype of
      scores.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> loss, dscores = fn.absolute_loss(jnp.array([[1.0], [4.0]]), jnp.array([1.0, 2.0]))
      >>> print(loss, dscores.T)
      1.0 [[0.  0.5]]
    """
    outputs = as_outputs(scores, y, sample_weight)
    d = outputs.scores - outputs.targets  # [N, K]
    sign = jnp.sign(d)  # [N, K], 0 at 0, as autodiff finds it: that of jnp.abs is 1 there
    return outputs.mean(sign * d, sign)


def huber_loss(
    scores: Array, y: Array, sample_weight: Array | None = None, *, delta: Any = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Squared error of small errors, absolute error of large ones (Huber 1964).

    With d = s - y, and c = d clipped to -delta .. delta:

        loss = c (d - c / 2) = d^2 / 2 if |d| <= delta, else delta (|d| - delta / 2)
        gradient = c

    PyTorch's HuberLoss is the same, its SmoothL1Loss this divided by delta.

    Args:
      scores: [N, K] floating point.
      y: [N, K] targets, floating point or integers; or [N] if K is 1.
      sample_weight: [N] real numbers >= 0, the weight of each example, or None; see `squared_loss`.
      delta: where the one becomes the other, in the units of y, > 0; may be traced.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, K] in the dtype of
      scores.
    Raises:
      ValueError: shapes do not fit, or delta is out of its range.
      TypeError: dtypes do not fit, or delta is no number.
    Example:
      >>> loss, dscores = fn.huber_loss(jnp.array([[0.5], [4.0]]), jnp.zeros(2), delta=1.0)
      >>> print(loss, dscores.T)
      1.8125 [[0.25 0.5 ]]
    """
    DELTA.check("delta", delta)
    outputs = as_outputs(scores, y, sample_weight)
    d = outputs.scores - outputs.targets  # [N, K]
    delta = jnp.asarray(delta, d.dtype)
    c = jnp.where(d > delta, delta, jnp.where(d < -delta, -delta, d))  # [N, K]
    return outputs.mean(c * (d - c / 2), c)


def pinball_loss(
    scores: Array,
    y: Array,
    sample_weight: Array | None = None,
    *,
    quantiles: Sequence[Any] = (0.5,),
) -> tuple[jax.Array, jax.Array]:
    """The loss whose minimum is a quantile q (Koenker and Bassett 1978), the mean over Q of them.

        loss = q (y - s) if s < y, (1 - q) (s - y) if s > y;  gradient = -q, 1 - q, and 0 at s = y

    That of the median is half `absolute_loss`. scikit-learn's mean_pinball_loss is the same.

    Args:
      scores: [N, K Q] floating point: the Q quantiles of the first target, then those of the next.
      y, sample_weight: as for `squared_loss`; y is [N] or [N, K].
      quantiles: Q numbers, each > 0 and < 1; a tuple, so that equal ones are.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, K Q] in the dtype of
      scores.
    Raises:
      ValueError: shapes do not fit, a quantile is out of its range, or there is none.
      TypeError: dtypes do not fit, or quantiles are no numbers in a sequence.
    Example:
      >>> scores, y = jnp.array([[1.0, 3.0]]), jnp.array([2.0])
      >>> loss, dscores = fn.pinball_loss(scores, y, quantiles=(0.25, 0.75))
      >>> print(loss, dscores)
      0.25 [[-0.125  0.125]]
    """
    if isinstance(quantiles, str) or not isinstance(quantiles, Sequence):
        raise TypeError(f"quantiles must be a tuple, such as (0.1, 0.5, 0.9), got {quantiles!r}")
    if not quantiles:
        raise ValueError("quantiles is empty: give one or more, such as (0.1, 0.5, 0.9)")
    for i, q in enumerate(quantiles):
        QUANTILE.check(f"quantiles[{i}]", q)
    outputs = as_outputs(scores, y, sample_weight, of_each=len(quantiles))
    s = outputs.scores.reshape(*outputs.targets.shape, len(quantiles))
    d = s - outputs.targets[:, :, None]  # [N, K, Q]
    below = jnp.stack([jnp.asarray(q, d.dtype) for q in quantiles])  # [Q]
    above = jnp.stack([jnp.asarray(1 - q, d.dtype) for q in quantiles])
    slope = jnp.where(d > 0, above[None, None], below[None, None]) * jnp.sign(d)  # 0 at 0
    shape = outputs.scores.shape
    return outputs.mean((slope * d).reshape(shape), slope.reshape(shape))


def poisson_loss(
    scores: Array, y: Array, sample_weight: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The negative log likelihood of counts by their log rates, exp(s) - y s; gradient exp(s) - y.

    Without log(y!), which does not depend on s: so it may be negative. PyTorch's PoissonNLLLoss is
    the same; scikit-learn's Poisson deviance is 2 (exp(s) - y s + y log y - y). With a target that
    is no count, such as a rate, it is the same (Gourieroux, Monfort and Trognon 1984).

    Args:
      scores: [N, K] floating point, the logarithms of the rates.
      y: [N, K] or [N] targets >= 0. They are not checked here, but where data comes in.
      sample_weight: [N] real numbers >= 0, the weight of each example, or None; see `squared_loss`.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, K] in the dtype of
      scores.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> loss, dscores = fn.poisson_loss(jnp.zeros((2, 1)), jnp.array([1, 3]))
      >>> print(loss, dscores.T)
      1.0 [[ 0. -1.]]
    """
    outputs = as_outputs(scores, y, sample_weight)
    rate = jnp.exp(outputs.scores)  # [N, K]
    y = outputs.targets
    return outputs.mean(rate - y * outputs.scores, rate - y)
