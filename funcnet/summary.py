"""What a network costs, layer by layer, without computing anything: `summarize`.

Operations are counted in what JAX would compute, traced for shapes alone (a jaxpr), of which what
nobody needs is left out, such as the gradient with respect to the input of the first layer:

    a product of matrices [N, D] x [D, M]      2 N D M
    a convolution                               2 for each number it gives and weight behind it
    a sum, a maximum, ... of n numbers to m     n - m
    anything else that gives floating point     1 for each number that it gives: +, *, exp, a choice
    what only moves or converts numbers         0, and so is drawing random ones

So `affine` from D to M is 2 D M + M forward, and relu 1 for each unit. Layers of one's own are
counted by the same rules; where they are made of layers, those inside are not told apart. A loop
that ends by what it computes counts once, and of branches all do.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from funcnet.bind import Bound, bind
from funcnet.datasets.limits import shown
from funcnet.layer import Layer, as_shape
from funcnet.optim import Optimizer
from funcnet.optimizer import as_optimizer
from funcnet.text import aligned
from funcnet.tree import Tree

__all__ = ["LayerSummary", "Summary", "summarize"]

Path = tuple[str, ...]
_MOVES = """
    bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy device_put
    dynamic_slice dynamic_update_slice expand_dims gather iota optimization_barrier pad random_bits
    random_fold_in random_split random_unwrap random_wrap reduce_precision reshape rev slice sort
    split squeeze stack stop_gradient top_k transpose unstack
"""
MOVES = frozenset(_MOVES.split())
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call")
FOLDS = ("scatter", "reduce")
SCOPE = re.compile(r"<layer (\d+)>")


class LayerSummary(NamedTuple):
    """A row of a `Summary`; of a layer made of layers all that is in it.

    Attributes:
      name: its name in `params`, with those of the layers that it is in: "residual1/affine1".
      kind: its kind.
      out_shape: the shape of what it gives of one example; inside `stacked` of one member.
      parameters: the number of its parameters.
      forward_flop: floating-point operations of prediction, of one example.
      step_flop: of training, forward and backward, of one example.
      kept_bytes: what it keeps of one example for the backward pass. An array that several layers
        keep counts for the first; the input is one, parameters are none.
    Example:
      >>> first = fn.summarize(fn.mlp([100], 10), (3072,)).rows[0]
      >>> first.name, first.kind, first.out_shape, first.parameters, first.forward_flop
      ('affine1', 'affine', (100,), 307300, 614500)
    """

    name: str
    kind: str
    out_shape: tuple[int, ...]
    parameters: int
    forward_flop: int
    step_flop: int
    kept_bytes: int


class Summary(NamedTuple):
    """What `summarize` returns.

    Attributes:
      rows: a LayerSummary for each layer, those inside another after it.
      total: that of the whole network; its name is empty.
      in_shape: the shape of an example.
      params_bytes, state_bytes: the memory of the parameters and of the state of the layers.
      optimizer_bytes: that of the state of the optimizer; 0 without one.
      update_flop: operations of an update of the optimizer, whatever the batch; 0 without one.
    Example:
      >>> found = fn.summarize(fn.mlp([100], 10), (3072,), optimizer=fn.adam(1e-3))
      >>> [row.name for row in found.rows]
      ['affine1', 'relu1', 'affine2']
      >>> found.in_shape, found.params_bytes, found.optimizer_bytes
      ((3072,), 1233240, 2466484)
    """

    rows: tuple[LayerSummary, ...]
    total: LayerSummary
    in_shape: tuple[int, ...]
    params_bytes: int
    state_bytes: int
    optimizer_bytes: int
    update_flop: int

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "FLOP", "FLOP of a step", "kept")
        lines = [_cells(row, "  " * row.name.count("/")) for row in self.rows]
        lines = [list(head), *lines, _cells(self.total._replace(name="in all"), "")]
        first = max(len(line[0]) for line in lines)
        table = aligned([[line[0].ljust(first), *line[1:]] for line in lines], right=True)
        shape = " x ".join(map(str, self.in_shape))
        memory = [f"parameters {shown(self.params_bytes)}"]
        if self.state_bytes:
            memory.append(f"state of layers {shown(self.state_bytes)}")
        if self.optimizer_bytes:
            memory.append(f"state of the optimizer {shown(self.optimizer_bytes)}")
        said = [f"output, FLOP and bytes kept for the backward pass: of one example [{shape}]"]
        if self.update_flop:
            said.append(f"an update of the optimizer: {self.update_flop:,} FLOP")
        return "\n".join([*table, *said, f"memory: {', '.join(memory)}"])


def summarize(
    net: Layer, in_shape: Sequence[int], *, optimizer: Optimizer | None = None
) -> Summary:
    """What a network costs, layer by layer: parameters, operations, memory.

        print(summarize(mlp([100], 10), digits.x_train.shape[1:], optimizer=adam(1e-3)))

    Operations and memory of an example are those that a batch of one more has more: what a batch
    costs whatever its size, such as the square root of its variance, is left out, and so is the
    loss. Nothing is computed.

    Args:
      net: the network, layers of one's own among them.
      in_shape: the shape of one example, `x.shape[1:]`, as preprocessed.
      optimizer: the optimizer, for its state; None is none.
    Returns:
      A Summary, which prints as a table.
    Raises:
      ValueError, TypeError: an argument is wrong, or the network does not take such an example.
    Example:
      >>> found = fn.summarize(fn.mlp([100], 10), (3072,), optimizer=fn.adam(1e-3))
      >>> found.total.parameters, found.total.forward_flop
      (308310, 616610)
      >>> print(str(found).splitlines()[0].split())
      ['layer', 'output', 'parameters', 'FLOP', 'FLOP', 'of', 'a', 'step', 'kept']
    """
    if not isinstance(net, Layer):
        raise TypeError(f"net must be a Layer, such as mlp([100], 10), got {net!r}")
    shape = as_shape(in_shape)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(lambda key: tuple(net.init(key, shape)[:2]), key)
    kinds: dict[Path, str] = {}
    places: dict[Path, tuple[int, ...]] = {}
    traced = _marked(net, (), _Marks(kinds, places))
    small, large = (_costs(traced, params, state, shape, count, [*kinds]) for count in (2, 3))
    for less, more in zip(small, large, strict=True):
        more.subtract(less)
    costs = large
    rows = [_row(path, kind, places, params, costs) for path, kind in kinds.items()]
    opt_state, update_flop = None, 0
    if optimizer is not None:
        optimizer = as_optimizer(optimizer)
        opt_state = jax.eval_shape(optimizer.init, params)
        update = jax.make_jaxpr(optimizer.update)(params, opt_state, params)
        update_flop = _flop(update, [()])[()]
    bytes_of = [sum(_size(leaf) for leaf in jax.tree.leaves(t)) for t in (params, state, opt_state)]
    return Summary(
        rows=tuple(rows[1:] or rows),
        total=rows[0]._replace(name=""),
        in_shape=shape,
        params_bytes=bytes_of[0],
        state_bytes=bytes_of[1],
        optimizer_bytes=bytes_of[2],
        update_flop=update_flop,
    )


def _cells(row: LayerSummary, indent: str) -> list[str]:
    numbers = (f"{number:,}" for number in (row.parameters, row.forward_flop, row.step_flop))
    name, shape = row.name.rpartition("/")[2], " x ".join(map(str, row.out_shape))
    return [f"{indent}{name}", f"[{shape}]", *numbers, shown(row.kept_bytes)]


def _size(leaf: Any) -> int:
    return int(math.prod(leaf.shape)) * leaf.dtype.itemsize


def _row(
    path: Path, kind: str, places: dict[Path, Any], params: Tree, costs: Sequence[Counter[Path]]
) -> LayerSummary:
    """The row of a layer: what is counted of it, and of those inside it."""
    for name in path:
        params = params.get(name, {})
    inside = [sum(n for at, n in cost.items() if at[: len(path)] == path) for cost in costs]
    return LayerSummary(
        name="/".join(path) or kind,
        kind=kind,
        out_shape=places[path],
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        forward_flop=inside[0],
        step_flop=inside[1],
        kept_bytes=inside[2],
    )


# Which layer it is that computes something, and keeps something.


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Kept:
    """The cache of the layer of a path."""

    cache: Any
    path: Path = field(metadata={"static": True})


class _Marks(NamedTuple):
    """What is found of each layer: its kind, and what comes out of it."""

    kinds: dict[Path, str]
    places: dict[Path, tuple[int, ...]]


def _marked(layer: Layer, path: Path, marks: _Marks) -> Layer:
    """A layer whose computations and caches say that they are its own, and those inside it."""
    marks.kinds.setdefault(path, layer.kind)
    scope = f"<layer {[*marks.kinds].index(path)}>"
    forward, backward = (_inside(f, path, marks) for f in (layer.forward, layer.backward))

    def marked_forward(
        params: Tree, state: Tree, x: Any, *, key: Any = None, train: bool = True
    ) -> Any:
        with jax.named_scope(scope):
            out, cache, state = forward(params, state, x, key=key, train=train)
        marks.places[path] = tuple(out.shape[1:])
        return out, _Kept(cache, path), state

    def marked_backward(dout: Any, cache: _Kept) -> Any:
        with jax.named_scope(scope):
            return backward(dout, cache.cache)

    return Layer(layer.kind, layer.init, marked_forward, marked_backward)


def _inside(function: Any, path: Path, marks: _Marks) -> Callable[..., Any]:
    """A pass of a layer whose layers inside are marked, by the names that they have in params."""
    if not isinstance(function, Bound):
        return function

    def marked(value: Any) -> Any:
        if isinstance(value, Layer):
            return _marked(value, path, marks)  # which has no name of its own
        named = isinstance(value, tuple) and value and all(map(_is_child, value))
        if named:
            return tuple((name, _marked(layer, (*path, name), marks)) for name, layer in value)
        return value

    return bind(function.function, **{k: marked(v) for k, v in function.options.items()})


def _is_child(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and isinstance(value[1], Layer)


def _costs(
    net: Layer, params: Tree, state: Tree, shape: tuple[int, ...], count: int, paths: Sequence[Path]
) -> list[Counter[Path]]:
    """Operations of prediction and of training, and bytes that are kept, of so many examples."""
    x = jax.ShapeDtypeStruct((count, *shape), jnp.result_type(float))
    key = jax.eval_shape(lambda: jax.random.key(0))

    def predict(params: Tree, state: Tree, x: Any) -> Any:
        return net.forward(params, state, x, key=None, train=False)[0]

    def forward(params: Tree, state: Tree, x: Any, key: Any) -> Any:
        return net.forward(params, state, x, key=key, train=True)

    def train(params: Tree, state: Tree, x: Any, key: Any, dout: Any) -> Any:
        out, cache, state = net.forward(params, state, x, key=key, train=True)
        return out, net.backward(dout, cache)[1], state

    predicted = jax.make_jaxpr(predict)(params, state, x)
    kept, (out, cache, _) = jax.make_jaxpr(forward, return_shape=True)(params, state, x, key)
    trained = jax.make_jaxpr(train)(params, state, x, key, out)
    counts = (_flop(jaxpr, paths) for jaxpr in (predicted, trained))
    return [*counts, _bytes(kept.jaxpr, cache, len(jax.tree.leaves((params, state))))]


def _bytes(jaxpr: Any, cache: Any, given: int) -> Counter[Path]:
    """The bytes of the arrays in a cache, by the first layer that has them.

    Args:
      jaxpr: of (params, state, x, key) to (out, cache, state).
      cache: its shapes.
      given: how many of the arguments are parameters and state, which are kept anyhow.
    """
    seen, found = set(jaxpr.invars[:given]), Counter[Path]()
    owners = _owners(cache, ())
    for path, variable in zip(owners, jaxpr.outvars[1:], strict=False):  # the state comes last
        if isinstance(variable, Literal) or variable in seen:
            continue
        seen.add(variable)
        found[path] += _size(variable.aval)
    return found


def _owners(cache: Any, path: Path) -> list[Path]:
    """For each array in a cache the path of the innermost layer that keeps it."""
    leaves = jax.tree.leaves(cache, is_leaf=lambda leaf: isinstance(leaf, _Kept))
    found: list[Path] = []
    for leaf in leaves:
        found += _owners(leaf.cache, leaf.path) if isinstance(leaf, _Kept) else [path]
    return found


# Operations.


def _flop(closed: ClosedJaxpr, paths: Sequence[Path]) -> Counter[Path]:
    """The operations of a jaxpr, of which all results are needed, by path of a layer."""
    found: Counter[int] = Counter()
    _count(closed.jaxpr, [True] * len(closed.jaxpr.outvars), 0, 1, found)
    return Counter({paths[number]: count for number, count in found.items()})


def _count(
    jaxpr: Jaxpr, needed: Sequence[bool], layer: int, times: int, found: Counter[int]
) -> list[bool]:
    """Add the operations of a jaxpr to those found, by number of a layer.

    Args:
      jaxpr: the jaxpr.
      needed: which of its results are needed: only what leads to these is counted.
      layer: the number of the layer that it is in.
      times: how often it is done.
      found: the operations.
    Returns:
      Which of its arguments are needed.
    """
    live = {v for v, n in zip(jaxpr.outvars, needed, strict=True) if n and _is_variable(v)}
    for eqn in reversed(jaxpr.eqns):
        wanted = [v in live for v in eqn.outvars]
        if not any(wanted):
            continue
        scopes = SCOPE.findall(str(eqn.source_info.name_stack))
        within = int(scopes[-1]) if scopes else layer
        used = [True] * len(eqn.invars)
        each_number = eqn.primitive.name.startswith(FOLDS)  # what is within is of one of them
        found_in = [] if each_number else _jaxprs(eqn.params)
        inner = [getattr(each, "jaxpr", each) for each in found_in]
        for part in inner:
            again = times * eqn.params.get("length", 1)
            is_call = len(inner) == 1 and eqn.primitive.name in CALLS
            asked = wanted if is_call else [True] * len(part.outvars)
            uses = _count(part, asked, within, again, found)
            used = uses if is_call else used
        if not inner:
            found[within] += times * _operations(eqn)
        live |= {v for v, u in zip(eqn.invars, used, strict=True) if u and _is_variable(v)}
    return [v in live for v in jaxpr.invars]


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, Literal)


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    """The programs within an equation: what is called, the body of a loop, branches."""
    several = (v if isinstance(v, tuple) else (v,) for v in params.values())
    return [each for values in several for each in values if isinstance(each, Jaxpr | ClosedJaxpr)]


def _operations(eqn: Any) -> int:
    """The operations of one equation, by the rules at the top."""
    name, outs = eqn.primitive.name, [v.aval for v in eqn.outvars]
    size = sum(o.size for o in outs if jnp.issubdtype(o.dtype, jnp.floating))
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return int(2 * size * math.prod(shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        weights, out_features = eqn.invars[1].aval, eqn.params["dimension_numbers"].rhs_spec[0]
        return int(2 * size * weights.size // weights.shape[out_features])
    if name in MOVES:
        return 0
    if name.startswith(("reduce", "arg")):
        return int(eqn.invars[0].aval.size - size) if size else 0
    if name.startswith("scatter"):  # what is added
        return 0 if name == "scatter" else int(eqn.invars[2].aval.size)
    return int(size)
