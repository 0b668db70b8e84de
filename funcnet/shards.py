"""A batch in shards: sums over all of it, and one order of adding whatever runs the shards.

A layer or a loss that wants a sum over the batch says so by `batch_sum` and `batch_mean`. Where the
batch is cut in shards, each mapped over an axis that is named `BATCH_AXIS`, they sum over it, too;
elsewhere there is no such axis, and they are plain sums. `jax.vmap`, `jax.shard_map` and `in_order`
have one.

`in_order` gives the same bits whatever number of devices there is. It splits a function of one
shard where it sums over the batch, and runs each piece shard after shard, in a loop whose length is
not known to the compiler: so each is compiled for the shape of one shard, by itself. What is summed
is added along one binary tree over all shards, ((0 + 1) + (2 + 3)) + ..., of which a device adds
its own part, and then pairs of devices do.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import primitives

from funcnet.tree import Array

__all__ = ["BATCH_AXIS", "batch_mean", "batch_sum"]

BATCH_AXIS = "batch_shards"

_REDUCES = {primitives.psum_p: jnp.add, primitives.pmax_p: jnp.maximum}


def is_sharded() -> bool:
    """Whether what is computed is of one shard."""
    return num_shards() is not None


def over_shards(x: Array) -> jax.Array:
    """The sum over all shards of what each of them has."""
    return jax.lax.psum(x, BATCH_AXIS)


def num_shards() -> int | None:
    """How many shards the batch is cut in; None if it is whole."""
    try:
        return int(jax.lax.axis_size(BATCH_AXIS))
    except NameError:  # no axis of this name
        return None


def batch_sum(x: Array) -> jax.Array:
    """The sum of x [N, ...] over all examples of the batch, [...].

    Inside a mapped axis named `BATCH_AXIS`, x is that of one shard, and the sum that of all.
    """
    total = jnp.asarray(x).sum(axis=0)
    return over_shards(total) if is_sharded() else total


def batch_mean(x: Array) -> jax.Array:
    """The mean of x [N, ...] over all examples of the batch, [...]; as `batch_sum`."""
    shards = num_shards()
    if shards is None:
        return jnp.asarray(x).mean(axis=0)
    total = batch_sum(x)
    return total / jnp.asarray(shards * len(x), total.dtype)


def batch_size(x: Array) -> int:
    """The number of examples in the batch of which x [N, ...] is a shard, or all."""
    return len(x) * (num_shards() or 1)


class Places(NamedTuple):
    """Where the shards are: those of this device, inside `jax.shard_map`.

    Attributes:
      shards: how many there are in all, a power of two.
      axis: the axis of the mesh over which they are spread, in their order.
      devices: how many devices that axis has, a power of two, at most `shards`; 1 where each
        device has all shards.
      count: int32, how many each device has. It must come from outside of the compiled program,
        so that this is the same program for one as for several.
      one: int32, 1; as `count`.
    """

    shards: int
    axis: str
    devices: int
    count: Any
    one: Any


def in_order(function: Callable[..., Any], whole: Any, sharded: Any, places: Places) -> Any:
    """`function(whole, shard)` of every shard, inside `jax.shard_map`, to the same bits anywhere.

    Args:
      function: a pure function of one shard. What it returns must be the same for all shards: what
        `batch_sum` or `jax.lax.psum` over `BATCH_AXIS` gave, or what comes of that and of `whole`.
      whole: a tree of arrays, the same for all shards.
      sharded: a tree of arrays [shards of this device, ...].
      places: where the shards are.
    Returns:
      What the function returns.
    Raises:
      ValueError: something that it returns is another for each shard.
    """
    shard = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), sharded)
    env = [(BATCH_AXIS, places.shards)]
    found: Any = jax.make_jaxpr(function, axis_env=env, return_shape=True)(whole, shard)
    traced, shapes = found
    while any(eqn.primitive is primitives.jit_p and _sums_in(eqn) for eqn in traced.eqns):
        inlined = jax.make_jaxpr(partial(_inlined, traced), axis_env=env)
        traced = inlined(*jax.tree.leaves((whole, shard)))
    pieces = _split(traced, len(jax.tree.leaves(whole)))
    outputs = _run(pieces, traced, jax.tree.leaves(whole), jax.tree.leaves(sharded), places)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def once(function: Callable[..., Any], one: Any, *arguments: Any) -> Any:
    """`function(*arguments)`, compiled by itself: nothing around it is merged with it.

    Args:
      function: a pure function of trees of arrays, to one.
      one: int32, 1, that comes from outside of the compiled program.
    """

    def body(_: Any, __: Any) -> Any:
        return jax.tree.map(_as_words, function(*arguments))

    shapes = jax.eval_shape(function, *arguments)
    zeros = jax.tree.map(_zeros, shapes)
    found = jax.lax.fori_loop(jnp.zeros_like(one), one, body, zeros)
    return jax.tree.map(_from_words, found, shapes)


class _Piece(NamedTuple):
    """What can be computed before the next sum.

    Attributes:
      of_all: equations that are the same for all shards.
      of_shard: those of one shard, which come after.
      sums: those that sum over the batch what this piece gives.
    """

    of_all: list[core.JaxprEqn]
    of_shard: list[core.JaxprEqn]
    sums: list[core.JaxprEqn]


def _split(traced: core.ClosedJaxpr, wholes: int) -> list[_Piece]:
    """The equations of a function in pieces, each as early as it can be computed.

    Args:
      traced: the function of one shard.
      wholes: how many of its arguments, the first ones, are the same for all shards.
    """
    jaxpr = traced.jaxpr
    of_shard = set(jaxpr.invars[wholes:])
    place = dict.fromkeys([*jaxpr.constvars, *jaxpr.invars], 0)
    pieces = [_Piece([], [], [])]
    for eqn in jaxpr.eqns:
        used = _variables(eqn.invars)
        at = max((place[v] for v in used), default=0)
        if eqn.primitive in _REDUCES:
            pieces[at].sums.append(eqn)
            at += 1
            pieces += [_Piece([], [], [])] if at == len(pieces) else []
        elif _sums_in(eqn):
            raise ValueError(
                f"a sum over the batch stands inside of {eqn.primitive.name}, which cannot be "
                "split into shards: take it out of there"
            )
        elif eqn.primitive is primitives.axis_index_p or not used.isdisjoint(of_shard):
            pieces[at].of_shard.append(eqn)
            of_shard |= set(eqn.outvars)
        else:
            pieces[at].of_all.append(eqn)
        place |= dict.fromkeys(eqn.outvars, at)
    return pieces


def _run(
    pieces: list[_Piece],
    traced: core.ClosedJaxpr,
    whole: Sequence[Any],
    sharded: Sequence[Any],
    places: Places,
) -> list[Any]:
    """What the function gives, piece by piece."""
    jaxpr, inputs = traced.jaxpr, traced.jaxpr.invars
    known = dict(zip((*jaxpr.constvars, *inputs), (*traced.consts, *whole), strict=False))
    stacks = dict(zip(inputs[len(whole) :], sharded, strict=True))
    outputs = _variables(jaxpr.outvars)
    for number, (of_all, of_shard, sums) in enumerate(pieces):
        after = [eqn for later in pieces[number + 1 :] for eqns in later for eqn in eqns]
        later = {*_inputs(after)} | outputs
        made = [v for v in _made(of_all) if v in later | {*_inputs([*of_shard, *sums])}]
        if made:
            compute, needs = _function(of_all, made)
            given = [known[v] for v in needs]
            known |= dict(zip(made, once(compute, places.one, *given), strict=True))
        kept = [v for v in _made(of_shard) if v in later]
        terms = [v for eqn in sums for v in eqn.invars]
        if not kept and not terms:
            continue
        compute, needs = _function(of_shard, [*kept, *terms])
        joins = [_REDUCES[eqn.primitive] for eqn in sums for _ in eqn.invars]
        stacked, totals = _shard_by_shard(compute, needs, known, stacks, len(kept), joins, places)
        stacks |= dict(zip(kept, stacked, strict=True))
        known |= dict(zip(_made(sums), totals, strict=True))
    for place, variable in enumerate(jaxpr.outvars):
        if isinstance(variable, core.Var) and variable not in known:
            raise ValueError(
                f"output {place} of what is trained in shards is another for each of them: a layer "
                "whose state goes by its batch must take it by batch_sum or batch_mean"
            )
    return [known[v] if isinstance(v, core.Var) else v.val for v in jaxpr.outvars]


def _shard_by_shard(
    compute: Callable[..., list[Any]],
    needs: Sequence[core.Var],
    known: dict[core.Var, Any],
    stacks: dict[core.Var, Any],
    kept: int,
    joins: Sequence[Callable[..., jax.Array]],
    places: Places,
) -> tuple[list[Any], list[Any]]:
    """A piece of every shard of this device: what it gives, and its sums over all shards."""
    size = places.shards // places.devices
    depth = size.bit_length()  # of the tree over them, with its leaves
    first = jnp.zeros_like(places.count)
    if places.devices > 1:  # else each has all of them
        first = jax.lax.axis_index(places.axis).astype(jnp.int32) * places.count

    def of_shard(number: Any) -> list[Any]:
        def value(variable: core.Var) -> Any:
            if variable in known:
                return known[variable]
            if variable in stacks:
                return _from_words(stacks[variable][number], variable.aval)
            return first + number  # the number of the shard

        return compute(*map(value, needs))

    shapes = jax.eval_shape(of_shard, first)
    stacked = [_zeros(shape, size) for shape in shapes[:kept]]
    levels = [_zeros(shape, depth) for shape in shapes[kept:]]

    def body(number: Any, held: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
        new = of_shard(number)
        stacked = [s.at[number].set(_as_words(v)) for s, v in zip(held[0], new, strict=False)]
        return stacked, _counted(held[1], new[kept:], number, joins)

    begin = jnp.zeros_like(places.count)
    stacked, levels = jax.lax.fori_loop(begin, places.count, body, (stacked, levels))
    totals = [level[depth - 1] for level in levels]
    return stacked, [_across(t, join, places) for t, join in zip(totals, joins, strict=True)]


def _counted(
    levels: list[Any], terms: list[Any], number: Any, joins: Sequence[Callable[..., jax.Array]]
) -> list[Any]:
    """Sums of 1, 2, 4, ... shards in a row, as a binary counter has its digits, and one shard more.

    Args:
      levels: the sums, [depth, ...] each. terms: those of the shard.
      number: that of the shard, on this device.
      joins: how each is summed.
    """

    def carries(at: tuple[list[Any], Any]) -> jax.Array:
        return (number >> at[1]) & 1 == 1

    def carry(at: tuple[list[Any], Any]) -> tuple[list[Any], Any]:
        terms, level = at
        parts = zip(joins, levels, terms, strict=True)
        return [join(sums[level], term) for join, sums, term in parts], level + 1

    terms, level = jax.lax.while_loop(carries, carry, (terms, jnp.zeros_like(number)))
    return [sums.at[level].set(term) for sums, term in zip(levels, terms, strict=True)]


def _across(total: jax.Array, join: Callable[..., jax.Array], places: Places) -> jax.Array:
    """The sum over all devices: of pairs, of pairs of pairs, and so on."""
    step = 1
    while step < places.devices:
        pairs = [(device, device ^ step) for device in range(places.devices)]
        total = join(total, jax.lax.ppermute(total, places.axis, pairs))
        step *= 2
    return total


def _function(
    eqns: Sequence[core.JaxprEqn], outputs: Sequence[core.Var | core.Literal]
) -> tuple[Callable[..., list[Any]], list[core.Var]]:
    """Equations as a function, and the variables that it takes; the number of the shard is one."""
    computed = [eqn for eqn in eqns if eqn.primitive is not primitives.axis_index_p]
    made = set(_made(computed))
    used = [*_inputs(computed), *(v for v in outputs if isinstance(v, core.Var))]
    needs = [*dict.fromkeys(v for v in used if v not in made)]
    effects = frozenset().union(*(eqn.effects for eqn in computed))
    info = core.DebugInfo("shard", "shard", arg_names=None, result_paths=None)
    jaxpr = core.Jaxpr((), needs, list(outputs), computed, effects, info)
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ())), needs


def _inlined(traced: core.ClosedJaxpr, *arguments: Any) -> list[Any]:
    """A function, and in place of compiled ones in it that sum over the batch what is in them."""
    jaxpr = traced.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*traced.consts, *arguments), strict=True))

    def value(atom: Any) -> Any:
        return known[atom] if isinstance(atom, core.Var) else atom.val

    for eqn in jaxpr.eqns:
        if eqn.primitive is primitives.jit_p and _sums_in(eqn):
            found = core.jaxpr_as_fun(eqn.params["jaxpr"])(*map(value, eqn.invars))
        elif eqn.primitive is primitives.axis_index_p:
            found = [jax.lax.axis_index(BATCH_AXIS)]
        else:
            compute, needs = _function([eqn], eqn.outvars)
            found = compute(*(known[v] for v in needs))
        known |= dict(zip(eqn.outvars, found, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _sums_in(eqn: core.JaxprEqn) -> bool:
    """Whether something inside of an equation goes by the axis of shards."""
    return any(
        inner.primitive in (*_REDUCES, primitives.axis_index_p) or _sums_in(inner)
        for jaxpr in core.jaxprs_in_params(eqn.params)
        for inner in jaxpr.eqns
    )


def _variables(atoms: Iterable[Any]) -> set[core.Var]:
    return {atom for atom in atoms if isinstance(atom, core.Var)}


def _inputs(eqns: Iterable[core.JaxprEqn]) -> list[core.Var]:
    return [v for eqn in eqns for v in eqn.invars if isinstance(v, core.Var)]


def _made(eqns: Iterable[core.JaxprEqn]) -> list[core.Var]:
    return [v for eqn in eqns for v in eqn.outvars]


# Random keys are held as the words that they are of: loops hold arrays of numbers.


def _is_key(shape: Any) -> bool:
    return jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)


def _zeros(shape: Any, *count: int) -> jax.Array:
    """What holds an array, or so many of them."""
    if _is_key(shape):
        shape = jax.eval_shape(jax.random.key_data, shape)
    return jnp.zeros((*count, *shape.shape), shape.dtype)


def _as_words(value: Any) -> jax.Array:
    return jax.random.key_data(value) if _is_key(value) else value


def _from_words(value: Any, shape: Any) -> Any:
    if not _is_key(shape):
        return value
    kinds = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), shape)
    return jax.random.wrap_key_data(value, impl=kinds[0])
