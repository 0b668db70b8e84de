"""What a layer is, a triple of pure functions, and how one is made of a pair of array functions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from funcnet import checks
from funcnet.bind import bind
from funcnet.tree import Backward, Forward, FrozenDict, Tree, restructure, structure_of

__all__ = ["Layer", "make_layer", "make_stateful_layer"]

Shape = tuple[int, ...]
Initial = tuple[Tree, Tree, Shape]  # params, state, out_shape
Result = tuple[jax.Array, Any, Tree]  # out, cache, state


class Layer(NamedTuple):
    """A layer, or a whole network: three pure functions and a name.

    Layers made of equal arguments are equal and hash alike, so that a program compiled for one
    serves the other; one made of an array or a traced value is equal to itself alone.

    Attributes:
      kind: the name that `serial` numbers: "affine" becomes "affine1", "affine2", ...
      init: `init(key, in_shape) -> (params, state, out_shape)`: fresh parameters and
        state, FrozenDicts of JAX's default float type; shapes are without the batch axis.
      forward: `forward(params, state, x, *, key, train) -> (out, cache, state)`: x is
        [N, *in_shape], out [N, *out_shape]; `key` is for random layers, None if there
        are none; `train` is a Python bool. The cache is a pytree of arrays.
      backward: `backward(dout, cache) -> (dx, grads)`: dout has the shape of out, dx that
        of x; grads have the tree structure of the params that `forward` was given.
    """

    kind: str
    init: Callable[..., Initial]
    forward: Callable[..., Result]
    backward: Callable[[Any, Any], tuple[jax.Array, Tree]]

    def __repr__(self) -> str:  # the functions' would show each layer inside three times
        return f"<layer {self.kind}>"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """What a backward pass needs: arrays, and the tree structure that its grads will have."""

    arrays: Any
    structure: Any = field(metadata={"static": True})


def init_nothing(key: Any, in_shape: Shape) -> Initial:
    """The initial parameters and state of a layer without any, which keeps the shape."""
    return {}, {}, in_shape


def make_layer(
    kind: str,
    forward: Forward,
    backward: Backward,
    init: Callable[[Any, Shape], Initial] = init_nothing,
    *,
    names: Sequence[str] = (),
) -> Layer:
    """A layer made of a pair of functions of arrays, for layers of one's own.

        def scale_forward(x, w):
            return x * w, (x, w)

        def scale_backward(dout, cache):
            x, w = cache
            return dout * w, (dout * x).sum(axis=0)

        def init_scale(key, in_shape):
            return {"w": jnp.ones(in_shape)}, {}, in_shape

        scale = make_layer("scale", scale_forward, scale_backward, init_scale, names=["w"])
        net = serial(affine(100), scale, relu(), affine(10))

    Args:
      kind: the name that `serial` numbers.
      forward: `forward(x, *params) -> (out, cache)`: x is [N, *in_shape], the parameters are
        in the order of `names`, out is [N, *out_shape]; the cache is a pytree of arrays.
      backward: `backward(dout, cache)` gives the gradients of x and of each parameter, as a
        tuple in this order, or bare if there are no parameters.
      init: `init(key, in_shape) -> (params, state, out_shape)`: dicts of the initial parameters
        and of the state, which is empty here; shapes are without the batch axis. By default
        there are no parameters, and the shape is kept.
      names: the names of the parameters; L2 regularisation penalises those named w.
    Returns:
      The layer. It is equal to others that are made of the same functions, and pickles, if the
      functions are not made anew each time, within another function.
    """
    checks.function("forward", forward)
    return make_stateful_layer(kind, bind(_stateless, forward=forward), backward, init, names=names)


def make_stateful_layer(
    kind: str,
    forward: Callable[..., Result],
    backward: Backward,
    init: Callable[[Any, Shape], Initial] = init_nothing,
    *,
    names: Sequence[str] = (),
) -> Layer:
    """`make_layer` for layers that have a state, are random, or behave differently in training.

    Args:
      kind, backward, names: as for `make_layer`.
      forward: `forward(x, *params, state, key, train) -> (out, cache, state)`, the last three by
        name: state is a dict of arrays, key a random key or None, train a Python bool.
      init: as for `make_layer`, with the initial state.
    """
    for name, function in (("forward", forward), ("backward", backward), ("init", init)):
        checks.function(name, function)
    names = tuple(names)
    return Layer(
        kind,
        bind(_layer_init, init=init),
        bind(_layer_forward, forward=forward, kind=kind, names=names),
        bind(_layer_backward, backward=backward, kind=kind, names=names),
    )


def _stateless(x: Any, *params: Any, forward: Forward, state: Tree, **_: Any) -> Result:
    out, cache = forward(x, *params)
    return out, cache, state


def _layer_init(key: Any, in_shape: Sequence[int], *, init: Callable[..., Initial]) -> Initial:
    params, state, out_shape = init(key, as_shape(in_shape))
    return FrozenDict(params), FrozenDict(state), out_shape


def _layer_forward(
    params: Tree,
    state: Tree,
    x: Any,
    *,
    key: Any = None,
    train: bool = True,
    forward: Callable[..., Result],
    kind: str,
    names: tuple[str, ...],
) -> Result:
    if set(params) != set(names):
        wanted = " and ".join(names) or "no entries"
        raise ValueError(f"{kind}: params must have {wanted}, got {sorted(params)}")
    leaves = (params[name] for name in names)
    out, cache, state = forward(x, *leaves, state=state, key=key, train=train)
    return out, Cache(cache, structure_of(params)), state


def _layer_backward(
    dout: Any, cache: Cache, *, backward: Backward, kind: str, names: tuple[str, ...]
) -> tuple[jax.Array, Tree]:
    grads = backward(dout, cache.arrays)
    dx, *grads = grads if isinstance(grads, tuple) else (grads,)
    if len(grads) != len(names):
        inputs, given = ", ".join(("x", *names)), checks.plural(1 + len(grads), "gradient")
        raise ValueError(f"{kind}: backward must give the gradients of {inputs}, not {given}")
    return dx, restructure(cache.structure, dict(zip(names, grads, strict=True)))


def as_shape(in_shape: Sequence[int]) -> Shape:
    """A shape without the batch axis, checked."""
    if not isinstance(in_shape, Iterable):
        raise TypeError(f"in_shape must be a shape, such as ({in_shape},), got {in_shape!r}")
    return tuple(checks.COUNT.check("every size in in_shape", size) for size in in_shape)
