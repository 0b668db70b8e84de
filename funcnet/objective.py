"""The loss of a whole network on a batch, and its gradient by the backward passes."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.batch import share_of_shard
from funcnet.layer import Layer
from funcnet.layers import accumulator, add, common_dtype
from funcnet.losses import is_zero, l2_penalty, softmax_loss, takes_weights
from funcnet.shards import is_sharded, over_shards
from funcnet.tree import LossFn, Tree

__all__ = ["loss", "loss_and_grads"]


def loss_and_grads(
    net: Layer,
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    *,
    reg: Any = 0.0,
    key: Any = None,
    train: bool = True,
    loss_fn: LossFn = softmax_loss,
    sample_weight: Any = None,
) -> tuple[jax.Array, Tree, Tree]:
    """The loss of a network on a batch, and its gradient by the hand-written backward pass.

    Args:
      net: the network.
      params, state: its parameters and state; plain dicts, FrozenDicts or a mix.
      x: [N, ...] inputs, cast to the dtype of the parameters.
      y: [N] integer labels, or what else loss_fn takes, such as [N, K] numbers.
      reg: L2 strength, `0.5 * reg * sum(w**2)` over the leaves named w is added; may be traced.
      key: for random layers in training; each call wants a new one.
      train: whether layers that behave differently in training do.
      loss_fn: `loss_fn(scores, y) -> (loss, dscores)`, with a keyword sample_weight, too, if it is
        to have weights. Where scores are [N, K, C], of K networks that share weights, the loss is
        the mean over k of that of scores[:, k].
      sample_weight: [N] real numbers >= 0, what each example counts in the mean over the batch; or
        None. Batch normalization does not know them: an example of weight 0 is in the mean and the
        variance of the batch like any other, and in the running ones.
    Returns:
      loss, a scalar; grads, in the tree structure of params; the new state. In a mapped axis named
      `BATCH_AXIS`, as `jax.vmap` and `jax.shard_map` have one, x is a shard of the batch, each of
      as many examples, and these are of the whole batch.
    Raises:
      TypeError: there are weights, and loss_fn takes none.
      ValueError, TypeError: what a layer or the loss raises, with a note that says in which layer.
    Example:
      >>> net, x, y = fn.mlp([], 2), np.ones((5, 3), "f"), np.array([0, 1, 1, 0, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> loss, grads, state = fn.loss_and_grads(net, params, state, x, y, reg=1e-3)
      >>> judge = jax.grad(fn.loss, argnums=1)(net, params, state, x, y, reg=1e-3)
      >>> fn.scaled_error(grads, judge) < 1e-5
      True
    """
    scores, cache, state = net.forward(params, state, as_input(x, params), key=key, train=train)
    total, dscores = loss_of_scores(loss_fn, scores, y, sample_weight)
    _, grads = net.backward(dscores, cache)
    if is_sharded():
        grads = jax.tree.map(over_shards, grads)
    if not is_zero(reg):
        penalty, penalty_grads = l2_penalty(params, reg)
        total, grads = jax.tree.map(add, (total, grads), (penalty, penalty_grads))
    return total, grads, state


def loss(
    net: Layer,
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    *,
    reg: Any = 0.0,
    key: Any = None,
    train: bool = True,
    loss_fn: LossFn = softmax_loss,
    sample_weight: Any = None,
) -> jax.Array:
    """The loss alone, forward only, with the arguments of `loss_and_grads`.

    `jax.grad(loss, argnums=1)` of it is the judge of the hand-written gradients.

    Args:
      net, params, state, x, y: as for `loss_and_grads`.
      reg, key, train, loss_fn, sample_weight: as for `loss_and_grads`.
    Returns:
      The loss, a scalar, float32 at least; with the penalty, if reg is not 0.
    Raises:
      TypeError: there are weights, and loss_fn takes none.
      ValueError, TypeError: what a layer or the loss raises.
    Example:
      >>> net, x, y = fn.mlp([], 2, weight_scale=0), np.ones((5, 3), "f"), np.array([0, 1, 1, 0, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> print(f"{fn.loss(net, params, state, x, y):.4f}")
      0.6931
    """
    scores, _, _ = net.forward(params, state, as_input(x, params), key=key, train=train)
    total, _ = loss_of_scores(loss_fn, scores, y, sample_weight)
    return total if is_zero(reg) else add(total, l2_penalty(params, reg)[0])


def loss_of_scores(
    loss_fn: LossFn, scores: jax.Array, y: Any, sample_weight: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The loss of what a network gives, and its gradient with respect to that.

    Of a shard, in a mapped axis `BATCH_AXIS`, loss is that of the whole batch, and dscores that of
    the shard's scores.

    That of [N, K, C], the scores of K members, is the mean of their losses, and so that of members
    of members:

        loss = mean over k of loss_fn(scores[:, k], y),  dscores[:, k] = that of member k / K

    Args:
      loss_fn, y, sample_weight: as for `loss_and_grads`.
      scores: [N, C], [N, K, C], or with more axes of members.
    Returns:
      loss, a scalar; dscores, of the shape of scores.
    Raises:
      TypeError: there are weights, and loss_fn takes none.
    """
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if weights and not takes_weights(loss_fn):
        raise TypeError(
            f"loss_fn takes no weights: give it a parameter sample_weight=None, got {loss_fn!r}"
        )
    total, dscores = _mean_of_members(loss_fn, scores, y, weights)
    if not is_sharded():
        return total, dscores
    share = share_of_shard(sample_weight)
    own, wide = share.astype(total.dtype), accumulator(dscores)
    scaled = (share.astype(wide.dtype) * wide).astype(dscores.dtype)
    return over_shards(own * total), scaled


def _mean_of_members(
    loss_fn: LossFn, scores: jax.Array, y: Any, weights: dict[str, Any]
) -> tuple[jax.Array, jax.Array]:
    if jnp.ndim(scores) < 3:
        return loss_fn(scores, y, **weights)
    shape = scores.shape
    scores = scores.reshape(shape[0], -1, shape[-1])
    each = jax.vmap(lambda member: loss_fn(member, y, **weights), in_axes=1, out_axes=(0, 1))
    losses, dscores = each(scores)  # [K], [N, K, C]
    return losses.mean(), (dscores / scores.shape[1]).reshape(shape)


def as_input(x: Any, params: Tree) -> jax.Array:
    """x in the dtype in which the network computes, that of its parameters."""
    dtypes = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.asarray(x, common_dtype(*floating)) if floating else checks.array(x)
