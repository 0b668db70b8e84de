"""A batch in shards: sums over all of it, and functions of a shard, split where they sum.

A layer or a loss that wants a sum over the batch says so by `batch_sum` and `batch_mean`. Where the
batch is cut in shards, each mapped over an axis that is named `BATCH_AXIS`, they sum over it, too;
elsewhere there is no such axis, and they are plain sums. `jax.vmap` and `jax.shard_map` have one,
and so has what `split` makes. A loss is not to say so: it is a mean over examples, each by itself,
of whatever it is given, and what is given it of a shard is weighed by the shard's share.
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
"""The name of the mapped axis over which the shards of a batch lie, for layers of one's own.

Example:
  >>> shards = jnp.ones((3, 2))  # three shards of two examples
  >>> print(jax.vmap(fn.batch_sum, axis_name=fn.BATCH_AXIS)(shards))
  [6. 6. 6.]
"""

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

    Args:
      x: [N, ...], the examples of the batch, or of a shard of it.
    Returns:
      The sum, [...], in the dtype of x.
    Example:
      >>> x = jnp.ones((6, 2))
      >>> print(fn.batch_sum(x))
      [6. 6.]
      >>> shards = x.reshape(3, 2, 2)
      >>> print(jax.vmap(fn.batch_sum, axis_name=fn.BATCH_AXIS)(shards))
      [[6. 6.]
       [6. 6.]
       [6. 6.]]
    """
    total = jnp.asarray(x).sum(axis=0)
    return over_shards(total) if is_sharded() else total


def batch_mean(x: Array) -> jax.Array:
    """The mean of x [N, ...] over all examples of the batch, [...].

    Inside a mapped axis named `BATCH_AXIS`, x is that of one shard, each of as many examples, and
    the mean that of all.

    Args:
      x: [N, ...], the examples of the batch, or of a shard of it.
    Returns:
      The mean, [...], in the dtype of x, or JAX's default float type of integers.
    Example:
      >>> shards = jnp.arange(6.0).reshape(3, 2, 1)
      >>> print(jax.vmap(fn.batch_mean, axis_name=fn.BATCH_AXIS)(shards).ravel())
      [2.5 2.5 2.5]
    """
    shards = num_shards()
    if shards is None:
        return jnp.asarray(x).mean(axis=0)
    total = batch_sum(x)
    return total / jnp.asarray(shards * len(x), total.dtype)


def batch_size(x: Array) -> int:
    """The number of examples in the batch of which x [N, ...] is a shard, or all."""
    return len(x) * (num_shards() or 1)


class Stage(NamedTuple):
    """What can be computed before the next sums over the batch, and those.

    Variables are those of the jaxpr.

    Attributes:
      of_all: a function of the values of `all_needs`, to those of `all_made`; the same for all
        shards. None if there is nothing of this kind.
      of_shard: a function of the values of `needs`, for one shard, to those of `kept`, which later
        stages need, and of the terms of the sums. None likewise.
      joins: how each term is joined with that of another shard.
      sums: what the sums are called.
    """

    of_all: Callable[..., list[Any]] | None
    all_needs: list[core.Var]
    all_made: list[core.Var]
    of_shard: Callable[..., list[Any]] | None
    needs: list[core.Var]
    kept: list[core.Var]
    joins: Sequence[Callable[..., jax.Array]]
    sums: list[core.Var]


class Split(NamedTuple):
    """A function of one shard of a batch, in stages.

    Attributes:
      stages: these.
      whole: the variables that are the same for all shards; shard: those of a shard.
      consts: values of further ones that are the same for all.
      number: the variables that are the number of the shard.
      outputs: what it returns, variables and literals.
      structure: the structure of the tree that it returns.
    """

    stages: list[Stage]
    whole: list[core.Var]
    shard: list[core.Var]
    consts: dict[core.Var, Any]
    number: frozenset[core.Var]
    outputs: list[core.Var | core.Literal]
    structure: Any


def split(function: Callable[..., Any], whole: Any, shard: Any, shards: int) -> Split:
    """A function in stages, between which there are sums over the batch.

    Args:
      function: `function(whole, shard)`, pure, of trees of arrays. What it returns must be the same
        for all shards: what `batch_sum` or `jax.lax.psum` over `BATCH_AXIS` gave, or what comes of
        that and of `whole`.
      whole, shard: arguments like those that it will have.
      shards: how many there are.
    Raises:
      ValueError: something that it returns is another for each shard.
    """
    env = [(BATCH_AXIS, shards)]
    found: Any = jax.make_jaxpr(function, axis_env=env, return_shape=True)(whole, shard)
    traced, shapes = found
    while any(eqn.primitive is primitives.jit_p and _sums_in(eqn) for eqn in traced.eqns):
        inlined = jax.make_jaxpr(partial(_inlined, traced), axis_env=env)
        traced = inlined(*jax.tree.leaves((whole, shard)))
    jaxpr, count = traced.jaxpr, len(jax.tree.leaves(whole))
    own, others = jaxpr.invars[:count], jaxpr.invars[count:]
    pieces, of_shard = _pieces(jaxpr, others)
    for place, variable in enumerate(jaxpr.outvars):
        if isinstance(variable, core.Var) and variable in of_shard:
            raise ValueError(
                f"output {place} of what is trained in shards is another for each of them: a layer "
                "whose state goes by its batch must take it by batch_sum or batch_mean"
            )
    outputs, stages = _variables(jaxpr.outvars), []
    for number, piece in enumerate(pieces):
        later = {*_inputs(e for p in pieces[number + 1 :] for own in p for e in own), *outputs}
        stages.append(_stage(piece, later))
    numbers = (eqn for eqn in jaxpr.eqns if eqn.primitive is primitives.axis_index_p)
    return Split(
        stages,
        own,
        others,
        dict(zip(jaxpr.constvars, traced.consts, strict=True)),
        frozenset(_made(numbers)),
        jaxpr.outvars,
        jax.tree.structure(shapes),
    )


class _Piece(NamedTuple):
    """Equations that are the same for all shards, then those of one, and sums of what they give."""

    of_all: list[core.JaxprEqn]
    of_shard: list[core.JaxprEqn]
    sums: list[core.JaxprEqn]


def _pieces(
    jaxpr: core.Jaxpr, shard: Sequence[core.Var]
) -> tuple[list[_Piece], set[core.Var | core.Literal]]:
    """The equations, each as early as it can be computed, and the variables of one shard."""
    of_shard: set[Any] = set(shard)
    place = dict.fromkeys([*jaxpr.constvars, *jaxpr.invars], 0)
    pieces = [_Piece([], [], [])]
    for eqn in jaxpr.eqns:
        used = _variables(eqn.invars)
        at = max((place[v] for v in used), default=0)
        if eqn.primitive in _REDUCES:
            pieces[at].sums.append(eqn)
            at += 1
            pieces += [_Piece([], [], [])] if at == len(pieces) else []
        elif _goes_by_shards(eqn):
            raise ValueError(
                f"{eqn.primitive.name} over the shards of a batch is not possible: take sums by "
                "batch_sum and batch_mean"
            )
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
    return pieces, of_shard


def _stage(piece: _Piece, later: set[core.Var]) -> Stage:
    """A piece as functions; `later` is what others use of it."""
    of_all = of_shard = None
    all_needs: list[core.Var] = []
    needs: list[core.Var] = []
    wanted = later | {*_inputs([*piece.of_shard, *piece.sums])}
    all_made = [v for v in _made(piece.of_all) if v in wanted]
    if all_made:
        of_all, all_needs = _function(piece.of_all, all_made)
    kept = [v for v in _made(piece.of_shard) if v in later]
    terms = [v for eqn in piece.sums for v in eqn.invars]
    if kept or terms:
        of_shard, needs = _function(piece.of_shard, [*kept, *terms])
    joins: list[Any] = [_REDUCES[eqn.primitive] for eqn in piece.sums for _ in eqn.invars]
    return Stage(of_all, all_needs, all_made, of_shard, needs, kept, joins, _made(piece.sums))


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


def _goes_by_shards(eqn: core.JaxprEqn) -> bool:
    """Whether an equation is of the axis of shards, and none that is known."""
    if eqn.primitive is primitives.axis_index_p:
        return False
    names = (eqn.params.get(name, ()) for name in ("axes", "axis_name", "axis"))
    return any(BATCH_AXIS in (n if isinstance(n, tuple) else (n,)) for n in names)


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
