"""Ensembles: several nets as one layer, which share most of their weights, or none.

Members have an axis of their own, the second one: [N, K, D] are the features of K members for each
of N examples. Activations and dropout take it as it is, each member with units and a mask of its
own. Batch normalization normalizes each unit of each member over the batch, as it should; layer
normalization of [N, K, D] would normalize over all members together, which then are no longer
independent: inside `stacked` or `ensemble` it is each member's own.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks, layers
from funcnet.activations import ACTIVATIONS
from funcnet.bind import bind
from funcnet.layer import (
    Cache,
    Children,
    Initial,
    Layer,
    Result,
    Shape,
    as_layer,
    as_shape,
    check_names,
    child_of,
    inside,
    named_children,
    split,
    without_empty,
)
from funcnet.members import (
    FACTORS,
    batch_ensemble_affine,
    member_affine,
    member_scale,
    shared_affine,
)
from funcnet.net import DIM, dropout, flatten, serial
from funcnet.tree import Tree, restructure, structure_of

__all__ = ["ensemble", "stacked", "tabm"]

ENSEMBLES = {  # how members are made, and what they share, for help
    "stacked": "nothing but the data",
    "tabm": "their weights, but for factors of each unit and the last layer (TabM)",
    "tabm_mini": "all weights but factors of the inputs and the last layer",
}


def tabm(
    hidden_dims: Sequence[int],
    num_outputs: int,
    *,
    members: int = 32,
    mini: bool = False,
    activation: str | Layer = "relu",
    keep_prob: Any = None,
    r_init: str = "signs",
    weight_scale: Any = None,
) -> Layer:
    """TabM, an ensemble of members in one fully connected network (Gorishniy et al. 2025,
    arXiv 2410.24210), [N, ...] to [N, members, num_outputs]: train the mean of their losses, and
    average what they predict.

    For each hidden layer: `batch_ensemble_affine`, activation, dropout; its factors start as ones,
    but for r of the first one, which sets the members apart. Then `member_affine`, a head for
    each. TabM-mini has `member_scale` in front, and `shared_affine` in place of the first. The
    authors' code differs in initial values alone: w and b are uniform between -1 / sqrt(D) and
    1 / sqrt(D), and the first factors are equal for all inputs that are made of one column.

    Args:
      hidden_dims: the size of each hidden layer.
      num_outputs: the number of scores of each member.
      members: K.
      mini: whether it is TabM-mini.
      activation: a layer, or a name, as for `mlp`.
      keep_prob: the probability that dropout keeps a hidden unit, or a schedule of it, as for
        `dropout`; None is no dropout.
      r_init: the first factors at the start, as for `member_scale`: "normal" behind embeddings.
      weight_scale: of the initial weights, as for `affine`.
    Returns:
      A layer, of kind "serial".
    Raises:
      ValueError: a size is below 1, a probability or weight_scale is out of its range, or there is
        no activation or r_init of the name.
      TypeError: hidden_dims is no sequence of integers, or another argument has none of the types
        above.
    Example:
      >>> net = fn.tabm([8], num_outputs=2, members=4)
      >>> params, state, out_shape = net.init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(172 parameters
        batch_ensemble_affine1/b  float32[4, 8]
        batch_ensemble_affine1/r  float32[4, 3]
        batch_ensemble_affine1/s  float32[4, 8]
        batch_ensemble_affine1/w  float32[3, 8]
        member_affine1/b          float32[4, 2]
        member_affine1/w          float32[4, 8, 2]
      )
      >>> out_shape
      (4, 2)
    """
    if not isinstance(hidden_dims, Iterable) or isinstance(hidden_dims, str):
        raise TypeError(f"hidden_dims must be a sequence of sizes, got {hidden_dims!r}")
    checks.choose("r_init", r_init, FACTORS)
    between = [as_layer("activation", activation, ACTIVATIONS)]
    if keep_prob is not None:
        between += [dropout(keep_prob)]
    children = [flatten()] + ([member_scale(members, r_init=r_init)] if mini else [])
    for number, dim in enumerate(hidden_dims):
        dim = DIM.check("every size in hidden_dims", dim)
        if mini:
            hidden = shared_affine(dim, weight_scale=weight_scale)
        else:
            first = r_init if number == 0 else "ones"
            factors = {"r_init": first, "s_init": "ones"}
            hidden = batch_ensemble_affine(dim, members, weight_scale=weight_scale, **factors)
        children += [hidden, *between]
    num_outputs = checks.COUNT.check("num_outputs", num_outputs)
    return serial(*children, member_affine(num_outputs, members, weight_scale=weight_scale))


def ensemble(*nets: Layer) -> Layer:
    """Nets side by side that share nothing but the input: [N, ...] to [N, K, ...], their outputs.

    `params` and `state` hold those of the nets under their kind and number from 1, as `serial`
    has them. The outputs must have one shape, and one dtype.

    Args:
      nets: one or more, layers of the same input and output shapes.
    Returns:
      A layer, of kind "ensemble".
    Raises:
      ValueError: there is no net; in `init` and `forward`, their outputs have several shapes.
      TypeError: one is no layer.
    Example:
      >>> net = fn.ensemble(fn.mlp([8], 2), fn.mlp([4, 4], 2))
      >>> params, state, out_shape = net.init(jax.random.key(0), (3,))
      >>> list(params), out_shape
      (['serial1', 'serial2'], (2, 2))
    """
    if not nets:
        raise ValueError("ensemble takes one net or more, got none")
    children = named_children("ensemble", nets)
    functions = (_ensemble_init, _ensemble_forward, _ensemble_backward)
    return Layer("ensemble", *(bind(function, children=children) for function in functions))


def _ensemble_init(key: Any, in_shape: Sequence[int], *, children: Children) -> Initial:
    checks.key(key)
    shape, params, state, out_shapes = as_shape(in_shape), {}, {}, []
    for (name, child), child_key in zip(children, split(key, len(children)), strict=True):
        params[name], state[name], out_shape = child.init(child_key, shape)
        out_shapes.append(tuple(out_shape))
    _check_alike(out_shapes)
    return without_empty(params), without_empty(state), (len(children), *out_shapes[0])


def _ensemble_forward(
    params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True, children: Children
) -> Result:
    check_names("params", params, children)
    check_names("state", state, children)
    outs, caches, new_state = [], [], {}
    for (name, child), child_key in zip(children, split(key, len(children)), strict=True):
        child_params, child_state = child_of(params, name), child_of(state, name)
        with inside(name):
            out, cache, new_state[name] = child.forward(
                child_params, child_state, x, key=child_key, train=train
            )
        outs.append(out)
        caches.append(cache)
    _check_alike([out.shape[1:] for out in outs])
    new_state = restructure(structure_of(state), without_empty(new_state))
    return jnp.stack(outs, axis=1), Cache(tuple(caches), structure_of(params)), new_state


def _ensemble_backward(dout: Any, cache: Cache, *, children: Children) -> tuple[jax.Array, Tree]:
    dout, grads, dxs = jnp.asarray(dout), {}, []
    if dout.ndim < 2 or dout.shape[1] != len(children):
        raise ValueError(
            f"ensemble: dout must have the shape of out, [N, {len(children)}, ...], "
            f"got {list(dout.shape)}"
        )
    for k, ((name, child), child_cache) in enumerate(zip(children, cache.arrays, strict=True)):
        with inside(name):
            dx, grads[name] = child.backward(dout[:, k], child_cache)
        dxs.append(dx)
    return _sum(jnp.stack(dxs)), restructure(cache.structure, without_empty(grads))


def _check_alike(shapes: Sequence[Shape]) -> None:
    if len(set(shapes)) > 1:
        found = " and ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise ValueError(f"ensemble: the outputs of the nets must have one shape, got {found}")


def _sum(dxs: jax.Array) -> jax.Array:
    """The sum of the gradients of one x, [K, N, ...], in float32 at least."""
    return layers.accumulator(dxs).sum(axis=0).astype(dxs.dtype)


def stacked(net: Layer, members: int) -> Layer:
    """Members of one net side by side, as an `ensemble` of so many copies: [N, ...] to [N, K, ...].

    Each leaf of `params` and `state` has an axis of members in front; the passes are those of the
    net, mapped over it by `jax.vmap`, in products of matrices as many as one net has.

    Args:
      net: the net; each member has initial values and random numbers of its own.
      members: K.
    Returns:
      A layer, of kind "stacked".
    Raises:
      ValueError: members is below 1; in `forward`, a leaf of params or state does not have the axis
        of members.
      TypeError: net is no layer, or members no integer.
    Example:
      >>> net = fn.stacked(fn.mlp([8], 2), members=4)
      >>> params, state, out_shape = net.init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(200 parameters
        affine1/b  float32[4, 8]
        affine1/w  float32[4, 3, 8]
        affine2/b  float32[4, 2]
        affine2/w  float32[4, 8, 2]
      )
      >>> out_shape
      (4, 2)
    """
    if not isinstance(net, Layer):
        raise TypeError(f"stacked takes a net, such as mlp([100], 10), got {net!r}")
    members = checks.COUNT.check("members", members)
    functions = (_stacked_init, _stacked_forward, _stacked_backward)
    return Layer("stacked", *(bind(f, net=net, members=members) for f in functions))


def _stacked_init(key: Any, in_shape: Sequence[int], *, net: Layer, members: int) -> Initial:
    made = [net.init(member, in_shape) for member in jax.random.split(checks.key(key), members)]
    params, state = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in ([m[0] for m in made], [m[1] for m in made])
    )
    return params, state, (members, *made[0][2])


def _stacked_forward(
    params: Tree,
    state: Tree,
    x: Any,
    *,
    key: Any = None,
    train: bool = True,
    net: Layer,
    members: int,
) -> Result:
    for leaf in jax.tree.leaves((params, state)):
        if jnp.shape(leaf)[:1] != (members,):
            raise ValueError(
                f"stacked: every leaf of params and state must be [{members}, ...], "
                f"got {list(jnp.shape(leaf))}"
            )

    def member(params: Tree, state: Tree, key: Any) -> Result:
        return net.forward(params, state, x, key=key, train=train)

    keys = None if key is None else split(key, members)
    axes = (0, 0, None if key is None else 0)
    mapped = jax.vmap(member, axes, out_axes=(1, 0, 0), axis_size=members)
    out, cache, state = mapped(params, state, keys)
    return out, Cache(cache, structure_of(params)), state


def _stacked_backward(
    dout: Any, cache: Cache, *, net: Layer, members: int
) -> tuple[jax.Array, Tree]:
    dout = jnp.asarray(dout)
    if dout.ndim < 2 or dout.shape[1] != members:
        raise ValueError(
            f"stacked: dout must have the shape of out, [N, {members}, ...], got {list(dout.shape)}"
        )
    dxs, grads = jax.vmap(net.backward, in_axes=(1, 0))(dout, cache.arrays)
    return _sum(dxs), restructure(cache.structure, grads)
