"""Loss functions with their hand-written gradients, each in one call.

Those of classes and labels are here, those of numbers in `regression`. The losses are means over
the batch, weighted ones where there are weights, summed in at least float32.
"""

import inspect
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.batch import as_outputs, as_scores, counted, shares, weighted_mean
from funcnet.bind import Bound, bind
from funcnet.layers import accumulator, add
from funcnet.regression import absolute_loss, huber_loss, pinball_loss, poisson_loss, squared_loss
from funcnet.tree import Array, LossFn, Tree, path_name

__all__ = [
    "l2_penalty",
    "sigmoid_loss",
    "smooth_binary_labels",
    "smooth_labels",
    "softmax_loss",
    "svm_loss",
]

REG = checks.NON_NEGATIVE
LABEL_SMOOTHING = checks.FRACTION


def softmax_loss(
    scores: Array, y: Array, sample_weight: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Softmax cross-entropy loss, mean over the batch, and its gradient.

    With p = softmax(scores):  loss = -mean(log p[i, y[i]]),  dscores = (p - onehot(y)) / N.
    Everything is computed from t = scores - scores[i, y[i]], so that neither the loss
    nor the gradient of a confident, correct example cancels:

        log sum exp(t) = m + log1p(sum_{j != y} exp(t_j - m) + expm1(-m)),   m = max(t) >= 0
        dscores[i, y[i]] = -sum_{j != y} p_j / N

    With soft targets q, floating point of the shape of scores, such as those of
    `smooth_labels` and `mixup`, it is the cross-entropy

        loss = -mean over i of sum_j q[i, j] log p[i, j]
        dscores = (p sum_j q[i, j] - q) / N

    Args:
      scores: [N, C] floating point; they must be finite, and so must their differences.
      y: [N] integer labels from 0 to C - 1, a label out of this range gives NaN; or [N, C]
        soft targets, a probability of each class.
      sample_weight: [N] real numbers >= 0, or None. With these w the mean over i is
        sum_i w_i (...) / sum(w), so w_i / sum(w) stands for 1 / N above. Values are not checked
        here, but where data comes in. A row of weight 0 counts for nothing, whatever is in it; if
        all are 0, so are the loss and its gradient.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, C] in the
      dtype of scores.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> scores, y = jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([0, 0])
      >>> loss, dscores = fn.softmax_loss(scores, y)
      >>> print(f"{loss:.4f}", np.array(dscores[0]))
      0.4100 [-0.25  0.25]
      >>> soft = fn.smooth_labels(y, 2, 0.1)
      >>> print(f"{fn.softmax_loss(scores, soft)[0]:.4f}")
      0.4600
      >>> weighted, _ = fn.softmax_loss(scores, y, jnp.array([1.0, 0.0]))
      >>> print(f"{weighted:.4f}")
      0.6931
    """
    if np.ndim(y) == 2:
        return _soft_softmax_loss(scores, y, sample_weight)
    scores, y = _check_scores(scores, y)
    share = shares(sample_weight, scores)
    t, y = counted(share, accumulator(scores), y)
    correct = _one_hot(y, scores.shape[1])  # [N, C]
    t = t - _correct_scores(t, correct)  # [N, C]
    m = jax.lax.stop_gradient(t.max(axis=1, keepdims=True))  # [N, 1], the loss is constant in it
    others = jnp.where(correct, 0, jnp.exp(t - m))  # [N, C]
    rest = others.sum(axis=1, keepdims=True) + jnp.expm1(-m)  # [N, 1], sum exp(t - m) - 1
    losses = m + jnp.log1p(rest)  # [N, 1]

    p = others / (1 + rest)  # [N, C], 0 at the correct class
    drows = jnp.where(correct, -p.sum(axis=1, keepdims=True), p)
    return weighted_mean(losses[:, 0], drows, share, scores.dtype)


def smooth_labels(y: Array, num_classes: int, smoothing: Any) -> jax.Array:
    """Soft targets for labels (Szegedy et al. 2016, arXiv 1512.00567, section 7).

        q[i, j] = (1 - smoothing) onehot(y)[i, j] + smoothing / C

    Args:
      y: [N] integer labels from 0 to C - 1; a label out of this range gives NaN.
      num_classes: C.
      smoothing: the probability that is spread over all classes, 0 to 1; may be traced.
        0 gives the labels themselves, one-hot.
    Returns:
      [N, C] targets of JAX's default float type.
    Raises:
      ValueError: y is not [N], smoothing is out of its range or num_classes below 1.
      TypeError: y does not hold integers, or one of the numbers is none.
    Example:
      >>> print(fn.smooth_labels(jnp.array([2, 0]), 4, 0.2))
      [[0.05 0.05 0.85 0.05]
       [0.85 0.05 0.05 0.05]]
    """
    LABEL_SMOOTHING.check("smoothing", smoothing)
    num_classes = checks.COUNT.check("num_classes", num_classes)
    correct = _one_hot(_check_labels(y), num_classes)  # [N, C]
    spread = jnp.asarray(smoothing, float)
    targets = jnp.where(correct, 1 - spread, 0) + spread / num_classes  # [N, C]
    return jnp.where(correct.any(axis=1, keepdims=True), targets, jnp.nan)


def svm_loss(
    scores: Array, y: Array, sample_weight: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Multiclass hinge (SVM) loss with margin 1, mean over the batch, and its gradient.

    loss = mean over i of sum over j != y[i] of max(0, scores[i, j] - scores[i, y[i]] + 1)
    (Weston and Watkins 1999, as in CS231n); the gradient at a margin of exactly 0 is 0.

    Args:
      scores: [N, C] floating point.
      y: [N] integer labels from 0 to C - 1; a label out of this range gives NaN.
      sample_weight: [N] weights of the examples, as for `softmax_loss`.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, C] in the
      dtype of scores.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> loss, dscores = fn.svm_loss(jnp.array([[1.0, 0.5, -3.0]]), jnp.array([0]))
      >>> print(loss, dscores)
      0.5 [[-1.  1.  0.]]
    """
    if np.ndim(y) == 2:
        raise ValueError(
            "svm_loss takes labels, not the soft targets of label smoothing or mixup: "
            f"use softmax_loss; y must be [N], got {list(np.shape(y))}"
        )
    scores, y = _check_scores(scores, y)
    share = shares(sample_weight, scores)
    s, y = counted(share, accumulator(scores), y)
    correct = _one_hot(y, scores.shape[1])  # [N, C]
    margins = jnp.where(correct, 0, s - _correct_scores(s, correct) + 1)  # [N, C]
    losses = jnp.where(margins <= 0, 0, margins).sum(axis=1)  # [N]

    violated = jnp.where(margins <= 0, 0, jnp.where(jnp.isnan(margins), jnp.nan, 1))  # [N, C]
    drows = jnp.where(correct, -violated.sum(axis=1, keepdims=True), violated)
    return weighted_mean(losses, drows, share, scores.dtype)


def sigmoid_loss(
    scores: Array, y: Array, sample_weight: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy of K labels, any of which an example may have, mean over them.

    With p = sigmoid(scores):

        loss = -mean over i and k of y log p + (1 - y) log(1 - p),  dscores = (p - y) / (N K)

    Both are computed from t = |s|, and from what was missed, y' = y where s <= 0 and 1 - y where
    s > 0, so that nothing overflows, and nothing cancels where y is 0 or 1:

        loss of one = t y' + log1p(exp(-t)),  d/dt = y' - exp(-t) / (1 + exp(-t))

    PyTorch's BCEWithLogitsLoss is the same.

    Args:
      scores: [N, K] floating point, finite: the logits, one for each label.
      y: [N, K] targets, 0 or 1 or a probability between, such as those of `smooth_binary_labels`,
        floating point or integers; or [N] if K is 1. Values are not checked here, but where data
        comes in.
      sample_weight: [N] weights of the examples, as for `softmax_loss`.
    Returns:
      loss, a scalar of the dtype of scores, float32 at least; dscores [N, K] in the
      dtype of scores.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> loss, dscores = fn.sigmoid_loss(jnp.zeros((1, 2)), jnp.array([[1, 0]]))
      >>> print(f"{loss:.4f}", dscores)
      0.6931 [[-0.25  0.25]]
    """
    outputs = as_outputs(scores, y, sample_weight)
    s, positive = outputs.scores, outputs.scores > 0  # [N, K]
    t = jnp.where(positive, s, -s)  # not abs, whose gradient autodiff takes for 0 at 0
    missed = jnp.where(positive, 1 - outputs.targets, outputs.targets)
    exps = jnp.exp(-t)  # 0 to 1
    losses = t * missed + jnp.log1p(exps)

    dt = missed - exps / (1 + exps)
    return outputs.mean(losses, jnp.where(positive, dt, -dt))


def smooth_binary_labels(y: Array, smoothing: Any) -> jax.Array:
    """Soft targets of labels that are there or not: those of `smooth_labels` for C = 2.

        q = (1 - smoothing) y + smoothing / 2

    Args:
      y: an array of any shape, such as [N, K]: 0, 1 or probabilities between.
      smoothing: the probability that is spread over both, 0 to 1; may be traced.
    Returns:
      Targets for `sigmoid_loss`, of the shape of y, of JAX's default float type.
    Raises:
      ValueError: smoothing is out of its range.
      TypeError: it is no number.
    Example:
      >>> print(fn.smooth_binary_labels(jnp.array([[0, 1]]), 0.25))
      [[0.125 0.875]]
    """
    LABEL_SMOOTHING.check("smoothing", smoothing)
    spread = jnp.asarray(smoothing, float)
    return (1 - spread) * jnp.asarray(y, float) + spread / 2


LOSSES: dict[str, LossFn] = {
    "softmax": softmax_loss,
    "svm": svm_loss,
    "squared": squared_loss,
    "absolute": absolute_loss,
    "huber": huber_loss,
    "pinball": pinball_loss,
    "sigmoid": sigmoid_loss,
    "poisson": poisson_loss,
}


def as_loss(loss_fn: Callable[..., Any]) -> LossFn:
    """A loss that compares by its options, as a compiled program wants it: equal ones share one.

    `functools.partial(huber_loss, delta=2.0)`, of which two are never equal, becomes one of which
    two are; what is no partial, or has arguments by position, stays as it is.

    Raises:
      TypeError: it is no function.
    """
    checks.function("loss_fn", loss_fn)
    if isinstance(loss_fn, partial) and not loss_fn.args:
        return bind(loss_fn.func, **loss_fn.keywords)
    return loss_fn


def takes_weights(loss_fn: LossFn) -> bool:
    """Whether a loss has a parameter `sample_weight`."""
    function: Any = loss_fn
    while isinstance(function, Bound):
        function = function.function
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)


def gives_probabilities(loss_fn: LossFn) -> bool:
    """Whether the softmax of scores that a loss trains are probabilities: any but `svm_loss`.

    A loss of one's own is taken to be of that kind.
    """
    return loss_fn is not svm_loss


def l2_penalty(params: Tree, reg: Any) -> tuple[jax.Array, Tree]:
    """L2 regularisation, `0.5 * reg * sum(w**2)` over the leaves named `w`, and its gradient.

    Args:
      params: a tree of floating point arrays; biases and other leaves are not penalised.
      reg: the strength, 0 or more; may be traced.
    Returns:
      the penalty, a scalar of the widest dtype of the weights, float32 at least;
      its gradient, `reg * w` or zeros, in the tree structure and dtypes of params.
    Raises:
      ValueError: reg is below 0 or not finite.
      TypeError: it is no number.
    Example:
      >>> params = fn.freeze({"affine1": {"w": jnp.array([[1.0, 2.0]]), "b": jnp.ones(2)}})
      >>> penalty, grads = fn.l2_penalty(params, 0.5)
      >>> print(penalty, grads["affine1"]["w"], grads["affine1"]["b"])
      1.25 [[0.5 1. ]] [0. 0.]
    """
    REG.check("reg", reg)
    weights = [jnp.asarray(w) for path, w in _leaves_with_path(params) if _is_weight(path)]
    squares = [jnp.sum(jnp.square(accumulator(w))) for w in weights]
    penalty = reduce(add, squares, jnp.zeros((), jnp.float32))
    penalty = 0.5 * jnp.asarray(reg, penalty.dtype) * penalty

    def gradient(path: Any, leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return jnp.asarray(reg, leaf.dtype) * leaf if _is_weight(path) else jnp.zeros_like(leaf)

    return penalty, jax.tree_util.tree_map_with_path(gradient, params)


def is_zero(reg: Any) -> bool:
    """Whether there is no penalty at all: a traced strength always counts as one."""
    REG.check("reg", reg)
    return checks.concrete(reg) and float(reg) == 0


def _leaves_with_path(tree: Tree) -> list[Any]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _is_weight(path: Any) -> bool:
    return bool(path) and path_name(path[-1:]) == "w"


def _one_hot(y: jax.Array, num_classes: int) -> jax.Array:
    return y[:, None] == jnp.arange(num_classes, dtype=y.dtype)[None]


def _correct_scores(scores: jax.Array, correct: jax.Array) -> jax.Array:
    # [N, 1]; NaN where the label is no class, so that a wrong label never goes unseen.
    picked = jnp.where(correct, scores, 0).sum(axis=1, keepdims=True)
    return jnp.where(correct.any(axis=1, keepdims=True), picked, jnp.nan)


def _soft_softmax_loss(
    scores: Array, targets: Array, sample_weight: Array | None
) -> tuple[jax.Array, jax.Array]:
    scores, targets = as_scores(scores), jnp.asarray(targets)
    if targets.shape != scores.shape:
        raise ValueError(
            f"soft targets must be [N, C] = {list(scores.shape)}, the shape of scores, "
            f"got {list(targets.shape)}"
        )
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise TypeError(f"soft targets must be floating point probabilities, got {targets.dtype}")
    s, share = accumulator(scores), shares(sample_weight, scores)
    s, q = counted(share, s, targets.astype(s.dtype))
    s = s - jax.lax.stop_gradient(s.max(axis=1, keepdims=True))  # [N, C]
    exps = jnp.exp(s)  # [N, C]
    total = exps.sum(axis=1, keepdims=True)  # [N, 1], 1 to C
    losses = (q * (jnp.log(total) - s)).sum(axis=1)  # [N]

    drows = exps / total * q.sum(axis=1, keepdims=True) - q  # [N, C]
    return weighted_mean(losses, drows, share, scores.dtype)


def _check_scores(scores: Array, y: Array) -> tuple[jax.Array, jax.Array]:
    scores = as_scores(scores)
    y = y if isinstance(y, jax.Array) else np.asarray(y)
    if y.shape != scores.shape[:1]:
        raise ValueError(
            f"y must be [N] = {list(scores.shape[:1])}, one label per row of scores, "
            f"got {list(y.shape)}"
        )
    return scores, _check_labels(y)


def _check_labels(y: Array) -> jax.Array:
    y = y if isinstance(y, jax.Array) else np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y must be [N], one label per example, got {list(y.shape)}")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"y must hold integer class labels, got {y.dtype}")
    top = np.iinfo(np.int32).max
    if np.iinfo(y.dtype).max > top:  # a cast would turn 2**32 into the label 0
        y = y.clip(-1 if np.iinfo(y.dtype).min < 0 else 0, top)
    return jnp.asarray(y, jnp.int32)
