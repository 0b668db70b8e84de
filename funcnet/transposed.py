"""Weights held as their transposes, in which form the matrix products of a loop are fast on a CPU.

The products of an affine layer are `x w`, `dout w^T` and `x^T dout`. Of arrays in the order of
their rows, XLA's matrix product on the CPU is slow with the last one alone, and fast with all three
if w and its gradient are [M, D]: then they are `x wt^T`, `dout wt` and `dout^T x`. So the epoch
holds weights, and the trees of an optimizer's state that are like the parameters, as `Transposed`
nodes. It changes nothing but rounding, and nobody outside the epoch sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import layers
from funcnet.tree import Array, FrozenDict, Tree, structure_of

Path = tuple[str, ...]  # of a leaf: names from the root


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class Transposed:
    """A matrix w [D, M] that is held as w^T.

    Attributes:
      w: [M, D]; under this name rules for leaves named w find it.
    """

    w: Any

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], None]:
        """The array with its key."""
        return ((jax.tree_util.GetAttrKey("w"), self.w),), None

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """The array."""
        return (self.w,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "Transposed":
        """The inverse of `tree_flatten`."""
        return cls(*children)


def affine_forward(
    x: Array, w: Transposed, b: Array, *, matmul_dtype: Any
) -> tuple[jax.Array, Any]:
    """`layers.affine_forward` of a weight that is held as its transpose."""
    out, (x, _, matmul_dtype) = layers.affine_forward(x, w.w.T, b, matmul_dtype=matmul_dtype)
    return out, (x, w, matmul_dtype)


def affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, Transposed, jax.Array]:
    """Gradients of `affine_forward`: `dx = dout wt`, `dwt = dout^T x`, `db` the sum of dout."""
    x, w, matmul_dtype = cache
    dout = jnp.asarray(dout)
    rows = x.reshape(x.shape[0], w.w.shape[1])  # [N, D]
    dx = layers.matmul(dout, w.w, matmul_dtype.value).reshape(x.shape)
    columns = dout.T  # [M, N]
    if columns.shape[0] <= columns.shape[1] and jax.default_backend() == "cpu":
        # XLA would fold this transpose into the product, to which a small copy of it is better.
        columns = jax.lax.optimization_barrier(columns)
    return dx, Transposed(layers.matmul(columns, rows, matmul_dtype.value)), dout.sum(axis=0)


def hold(params: Tree, opt_state: Tree, paths: frozenset[Path]) -> tuple[Tree, Tree]:
    """Parameters and the state of their optimizer with the matrices at these paths transposed.

    In the state they are transposed in every tree that is like that of the parameters.
    """

    def held(path: Any, leaf: Any) -> Any:
        # The barrier keeps the layout of the loop from being that of what comes into it.
        names = tuple(str(getattr(key, "key", key)) for key in path)
        return Transposed(jax.lax.optimization_barrier(leaf.T)) if names in paths else leaf

    def transposed(tree: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(held, tree)

    def in_trees_like_params(tree: Tree) -> Tree:
        if structure_of(tree) == structure_of(params):
            return transposed(tree)
        if not isinstance(tree, Mapping):
            return tree
        changed = {name: in_trees_like_params(child) for name, child in tree.items()}
        return FrozenDict.shallow(changed) if isinstance(tree, FrozenDict) else changed

    return transposed(params), in_trees_like_params(opt_state)


def release(tree: Tree) -> Tree:
    """A tree with its matrices as they were given to `hold`."""

    def released(leaf: Any) -> Any:
        if isinstance(leaf, Transposed):
            return jax.lax.optimization_barrier(leaf.w).mT  # there may be an axis of members
        return leaf

    return jax.tree.map(released, tree, is_leaf=lambda leaf: isinstance(leaf, Transposed))
