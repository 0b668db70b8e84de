"""What a layer is, a triple of pure functions, and how one is made of a pair of array functions."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from funcnet import checks
from funcnet.bind import Bound, bind
from funcnet.tree import Backward, Forward, FrozenDict, Tree, restructure, structure_of

__all__ = ["Layer", "make_layer", "make_stateful_layer"]

Shape = tuple[int, ...]
Initial = tuple[Tree, Tree, Shape]  # params, state, out_shape
Result = tuple[jax.Array, Any, Tree]  # out, cache, state
Children = tuple[tuple[str, "Layer"], ...]  # of a layer made of layers: a name and a layer each
Constructor = TypeVar("Constructor", bound=Callable[..., "Layer"])


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
    Example:
      >>> net = fn.mlp([4], 2)
      >>> params, state, out_shape = net.init(jax.random.key(0), (3,))
      >>> out, cache, state = net.forward(params, state, jnp.ones((5, 3)), key=None, train=True)
      >>> dx, grads = net.backward(jnp.ones_like(out), cache)
      >>> net, out.shape, dx.shape, grads["affine1"]["w"].shape
      (<layer serial>, (5, 2), (5, 3), (3, 4))
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

    It stands in `serial` like any other: `serial(affine(100), layer, relu(), affine(10))`.

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
    Raises:
      TypeError: forward, backward or init is no function.
      ValueError: in `forward`, params have other names; in `backward`, there are not as many
        gradients as inputs.
    Example:
      >>> def double_forward(x, w):
      ...     return 2 * w * x, (x, w)
      >>> def double_backward(dout, cache):
      ...     x, w = cache
      ...     return 2 * w * dout, (2 * x * dout).sum(axis=0)
      >>> def init_double(key, in_shape):
      ...     return {"w": jnp.ones(in_shape)}, {}, in_shape
      >>> layer = fn.make_layer("double", double_forward, double_backward, init_double, names=["w"])
      >>> params, state, _ = layer.init(jax.random.key(0), (3,))
      >>> print(layer.forward(params, state, jnp.ones((1, 3)))[0])
      [[2. 2. 2.]]
      >>> x, y = np.ones((2, 3), "f"), np.array([0, 1])
      >>> fn.check_gradients(layer, params, state, x, y).passed
      True
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
    Returns:
      The layer, as `make_layer` gives it.
    Raises:
      TypeError: forward, backward or init is no function.
    Example:
      >>> def count_forward(x, *, state, key, train):
      ...     return x, None, {"seen": state["seen"] + len(x)} if train else state
      >>> def count_backward(dout, cache):
      ...     return dout
      >>> def init_count(key, in_shape):
      ...     return {}, {"seen": jnp.zeros((), jnp.int32)}, in_shape
      >>> layer = fn.make_stateful_layer("count", count_forward, count_backward, init_count)
      >>> params, state, _ = layer.init(jax.random.key(0), (3,))
      >>> out, cache, state = layer.forward(params, state, jnp.ones((5, 3)))
      >>> print(state["seen"])
      5
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


def with_rates(layer: Layer, **rates: Any) -> Layer:
    """A layer some of whose parameters learn faster or slower than the others under Adam.

    A parameter p of rate r is held as q, with p = r q and at the start q = p / r. Adam moves q by
    as much as it would move p, and p by r times that: so this is the layer with a learning rate r
    times as large for p, exactly but for Adam's epsilon, and for weight decay, which shrinks q and
    so p by the same share as without. What is stored, and what L2 regularisation sees, is q.

    Args:
      layer: the layer.
      rates: for parameters of its own by name, numbers above 0, which may be traced; of a rate
        of 1 the parameter is held as it is.
    """
    for name, rate in rates.items():
        checks.POSITIVE.check(f"the rate of {name}", rate)
    others = tuple((n, r) for n, r in rates.items() if not checks.concrete(r) or r != 1)
    if not others:
        return layer
    functions = (_rated_init, _rated_forward, _rated_backward)
    return Layer(layer.kind, *(bind(f, layer=layer, rates=others) for f in functions))


def _rated_init(key: Any, in_shape: Sequence[int], *, layer: Layer, rates: Any) -> Initial:
    params, state, out_shape = layer.init(key, in_shape)
    held = {name: params[name] / jnp.asarray(rate, params[name].dtype) for name, rate in rates}
    return params | held, state, out_shape


def _rated_forward(
    params: Tree,
    state: Tree,
    x: Any,
    *,
    key: Any = None,
    train: bool = True,
    layer: Layer,
    rates: Any,
) -> Result:
    held = {name: jnp.asarray(params[name]) for name, _ in rates if name in params}
    factors = {name: jnp.asarray(r, held[name].dtype) for name, r in rates if name in held}
    inner = {**params, **{name: factors[name] * q for name, q in held.items()}}
    out, cache, state = layer.forward(inner, state, x, key=key, train=train)
    return out, Cache((cache, factors), structure_of(params)), state


def _rated_backward(dout: Any, cache: Cache, *, layer: Layer, rates: Any) -> tuple[jax.Array, Tree]:
    inner, factors = cache.arrays
    dx, grads = layer.backward(dout, inner)
    scaled = {name: factor * grads[name] for name, factor in factors.items()}
    return dx, restructure(cache.structure, {**grads, **scaled})


# Layers made of layers, and by name.


def named_children(whose: str, children: Sequence[Layer]) -> Children:
    """The layers by their kind and number from 1: affine1, relu1, affine2."""
    counts: Counter[str] = Counter()
    named = []
    for child in children:
        if not isinstance(child, Layer):
            raise TypeError(f"{whose} takes layers, such as affine(100), got {child!r}")
        counts[child.kind] += 1
        named.append((f"{child.kind}{counts[child.kind]}", child))
    return tuple(named)


def forward_of(layer: Layer) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function of arrays that the forward pass of a layer is made of, and its options.

    Of one of `make_layer` or `make_stateful_layer`; of other layers it is their forward pass.
    """
    function, options = layer.forward, {}
    while isinstance(function, Bound):
        options = dict(function.options)
        function = options.pop("forward", function.function)
    return function, options


def split(key: Any, count: int) -> Any:
    """A key for each of `count` layers, or None for each if there is none."""
    return [None] * count if key is None else jax.random.split(key, count)


def check_names(what: str, tree: Tree, children: Children) -> None:
    """Raise unless the entries of params or of a state are all of layers that there are."""
    for name in tree:
        if name not in dict(children):
            raise ValueError(checks.unknown(f"layer in {what}", name, dict(children)))


def child_of(tree: Tree, name: str) -> Tree:
    """The parameters or the state of a layer in those of all; none is an empty one."""
    return tree[name] if name in tree else FrozenDict()


def without_empty(children: Mapping[str, Tree]) -> FrozenDict:
    """The parameters or states of the layers that have any."""
    return FrozenDict({name: child for name, child in children.items() if child})


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Errors within it say in which layer they were raised."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(f"in layer {name}")
        raise


def enter(registry: dict[str, Callable[[], Layer]]) -> Callable[[Constructor], Constructor]:
    """A decorator that enters a constructor in a registry by its name."""

    def entered(constructor: Constructor) -> Constructor:
        registry[constructor.__name__] = constructor
        return constructor

    return entered


def as_layer(argument: str, value: Any, registry: Mapping[str, Callable[[], Layer]]) -> Layer:
    """A layer, or the one of a name in a registry."""
    if isinstance(value, Layer):
        return value
    if isinstance(value, str) and value in registry:
        return registry[value]()
    if value is None or isinstance(value, str):
        raise ValueError(checks.unknown(argument, value, registry))
    some = next(iter(registry))
    raise TypeError(f"{argument} must be a layer, such as {some}(), or its name, got {value!r}")
