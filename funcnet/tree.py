"""FrozenDict, an immutable nested dict that JAX treats as a tree of arrays, and type aliases."""

import copy
from collections.abc import (
    Callable,
    Hashable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks

__all__ = ["FrozenDict", "freeze", "unfreeze"]

Array = jax.Array | np.ndarray
Tree = Any  # a pytree of arrays: nested dicts, FrozenDicts or a mix of both
Forward = Callable[..., tuple[Any, Any]]  # forward(*inputs) -> (out, cache)
Backward = Callable[[Any, Any], Any]  # backward(dout, cache) -> the gradient of each input
# loss_fn(scores, y) -> (loss, dscores); and loss_fn(scores, y, sample_weight), if it takes weights
LossFn = Callable[..., tuple[jax.Array, jax.Array]]


@jax.tree_util.register_pytree_with_keys_class
class FrozenDict(Mapping[Any, Any]):
    """An immutable nested dict: parameters, model state and optimizer state.

    It reads like a dict, and JAX maps, differentiates, compiles and donates it
    like one, with the keys as key paths. Keys are kept sorted, in the order in
    which JAX flattens them. Nothing can be assigned; a changed copy is

        params.set("b", b)                    # one entry
        params.set(("affine1", "w"), w)       # one entry further down
        params | {"affine2": {...}}           # several entries, as for dict
        params.without("affine2")             # all but one entry

    The constructor takes what `dict` takes and freezes it all the way down
    (see `freeze`). What JAX builds with `jax.tree.map` and its kin holds exactly
    what the function returned.

    `==` is a bool: the same tree structure, and leaves of equal dtype, shape and
    values. A plain dict is another structure: compare with `freeze(plain)`.

    Args:
      args, kwargs: as for `dict`.
    Example:
      >>> params = fn.FrozenDict({"affine1": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}})
      >>> params
      FrozenDict(9 parameters
        affine1/b  float32[3]
        affine1/w  float32[2, 3]
      )
      >>> changed = params.set(("affine1", "b"), jnp.ones(3))
      >>> print(changed["affine1"]["b"], params["affine1"]["b"])
      [1. 1. 1.] [0. 0. 0.]
      >>> jax.tree.map(jnp.shape, params).unfreeze()
      {'affine1': {'b': (3,), 'w': (2, 3)}}
      >>> params["affine2"] = {}  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      TypeError: FrozenDict is immutable, it does not support item assignment: ...
    """

    __slots__ = ("_items",)
    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    _items: dict[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Freeze `dict(*args, **kwargs)`."""
        items = {key: freeze(value) for key, value in dict(*args, **kwargs).items()}
        object.__setattr__(self, "_items", _sorted(items))

    @classmethod
    def shallow(cls, items: Mapping[Any, Any]) -> "FrozenDict":
        """A FrozenDict of just these values: a plain dict among them stays what it is."""
        self = object.__new__(cls)
        object.__setattr__(self, "_items", _sorted(items))
        return self

    # Reading.

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def keys(self) -> KeysView[Any]:
        """The keys, sorted."""
        return self._items.keys()

    def values(self) -> ValuesView[Any]:
        """The values, in the order of the keys."""
        return self._items.values()

    def items(self) -> ItemsView[Any, Any]:
        """The pairs of keys and values, in the order of the keys."""
        return self._items.items()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenDict):
            return NotImplemented
        if structure_of(self) != structure_of(other):
            return False
        return all(map(_equal, jax.tree.leaves(self), jax.tree.leaves(other)))

    def __repr__(self) -> str:
        if not self._items:
            return "FrozenDict({})"
        leaves = jax.tree_util.tree_leaves_with_path(self, is_leaf=lambda leaf: leaf is None)
        rows = [(path_name(path), _describe(leaf)) for path, leaf in leaves]
        width = max((len(name) for name, _ in rows), default=0)
        total = sum(np.size(leaf) for leaf in jax.tree.leaves(self) if hasattr(leaf, "shape"))
        lines = [f"  {name:<{width}}  {text}" for name, text in rows]
        return "\n".join([f"FrozenDict({total:,} parameters", *lines, ")"])

    # Changed copies.

    def set(self, key: Any, value: Any) -> "FrozenDict":
        """A copy with one entry set or added.

        Args:
          key: a key, or a tuple of keys that leads through nested dicts.
          value: the new entry, frozen as by `freeze`.
        Raises:
          KeyError: the tuple passes through a key that is not there.
        """
        first, *rest = self._path(key)
        if rest:
            value = self._child(first).set(tuple(rest), value)
        return FrozenDict.shallow({**self._items, first: freeze(value)})

    def without(self, key: Any) -> "FrozenDict":
        """A copy with one entry left out; `key` as in `set`; KeyError if it is not there."""
        first, *rest = self._path(key)
        if rest:
            return FrozenDict.shallow(
                {**self._items, first: self._child(first).without(tuple(rest))}
            )
        if first not in self._items:
            raise KeyError(first)
        return FrozenDict.shallow({k: v for k, v in self._items.items() if k != first})

    def unfreeze(self) -> dict[Any, Any]:
        """A plain nested dict of the same leaves."""
        return unfreeze(self)

    def _path(self, key: Any) -> tuple[Any, ...]:
        if key == ():
            raise KeyError("an empty path")
        return key if isinstance(key, tuple) and key not in self._items else (key,)

    def _child(self, key: Any) -> "FrozenDict":
        child = self._items[key]
        if not isinstance(child, Mapping):
            raise KeyError(f"{key!r} is a leaf, it has no entries")
        return freeze(child)

    def __or__(self, other: Any) -> "FrozenDict":
        if not isinstance(other, Mapping):
            return NotImplemented
        return FrozenDict.shallow({**self._items, **{k: freeze(v) for k, v in other.items()}})

    def __ror__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self._items}

    # What a dict has and this has not.

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise _immutable("item assignment", f"params.set({key!r}, value)")

    def __delitem__(self, key: Any) -> NoReturn:
        raise _immutable("item deletion", f"params.without({key!r})")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise _immutable("attribute assignment", f"params.set({name!r}, value)")

    def __delattr__(self, name: str) -> NoReturn:
        raise _immutable("attribute deletion", f"params.without({name!r})")

    def update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise TypeError: the changed copy is `params | {...}`."""
        raise _immutable("update", "params | {...}")

    def pop(self, key: Any, *default: Any) -> NoReturn:
        """Raise TypeError: read the entry, then `params.without(key)`."""
        raise _immutable("pop", f"params[{key!r}] and params.without({key!r})")

    def popitem(self) -> NoReturn:
        """Raise TypeError: read the entry, then `params.without(key)`."""
        raise _immutable("popitem", "params.without(key)")

    def clear(self) -> NoReturn:
        """Raise TypeError: an empty one is `FrozenDict()`."""
        raise _immutable("clear", "FrozenDict()")

    def setdefault(self, key: Any, default: Any = None) -> NoReturn:
        """Raise TypeError: the changed copy is `params.set(key, value)`."""
        raise _immutable("setdefault", f"params.set({key!r}, value)")

    # Copying.

    def __copy__(self) -> "FrozenDict":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenDict":
        # The buffers too: the copy outlives a donation of the original.
        return FrozenDict.shallow(copy.deepcopy(self._items, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict.shallow, (self._items,)

    # JAX.

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The children with their keys, and the keys as static data."""
        children = tuple((jax.tree_util.DictKey(k), v) for k, v in self._items.items())
        return children, tuple(self._items)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The children, and the keys as static data."""
        return tuple(self._items.values()), tuple(self._items)

    @classmethod
    def tree_unflatten(cls, keys: tuple[Any, ...], children: Any) -> "FrozenDict":
        """The inverse of `tree_flatten`."""
        self = object.__new__(cls)
        object.__setattr__(self, "_items", dict(zip(keys, children, strict=True)))
        return self


def freeze(tree: Any) -> Any:
    """A tree with every dict a FrozenDict, every list a tuple and every NumPy array a JAX array.

    Nothing in the result can be changed in place. Other leaves stay as they are.

    Args:
      tree: nested dicts, FrozenDicts, lists and tuples.
    Returns:
      The same tree, immutable.
    Raises:
      ValueError: an integer does not fit into the 32 bits that JAX has for it, unless x64 is on.
      TypeError: the keys of a dict cannot be sorted.
    Example:
      >>> tree = fn.freeze({"w": np.ones(3), "names": ["a", "b"]})
      >>> tree
      FrozenDict(3 parameters
        names/0  'a'
        names/1  'b'
        w        float32[3]
      )
    """
    if isinstance(tree, Mapping):
        return FrozenDict(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(freeze, tree))
    if isinstance(tree, (list, tuple)):
        return tuple(map(freeze, tree))
    if isinstance(tree, (np.ndarray, np.generic)):
        if not checks.held(np.asarray(tree)):
            raise ValueError(
                f"an array of {tree.dtype} holds {tree.max()} and {tree.min()}, more than the 32 "
                "bits that JAX keeps of it unless jax_enable_x64 is set: make it floating point"
            )
        return jnp.asarray(np.array(tree))  # of a copy made now: jnp.array may copy later
    return tree


def unfreeze(tree: Any) -> Any:
    """A tree with every FrozenDict a plain dict, which can be changed in place.

    Args:
      tree: a tree of any kind.
    Returns:
      The same tree of plain dicts; its leaves are not copied.
    Example:
      >>> fn.unfreeze(fn.FrozenDict({"affine1": {"dim": 3}}))
      {'affine1': {'dim': 3}}
    """
    if isinstance(tree, Mapping):
        return {key: unfreeze(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(unfreeze, tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(unfreeze, tree))
    return tree


def structure_of(tree: Any) -> Any:
    """`jax.tree.structure(tree)`: hashable, and comparable by `==`."""
    return jax.tree.structure(tree)


def path_name(path: tuple[Any, ...]) -> str:
    """A JAX key path as text: `affine1/w`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path: `{"affine1/w": ..., "affine1/b": ...}`."""
    return {path_name(path): leaf for path, leaf in _leaves_with_path(tree)}


def restructure(structure: Any, tree: Any) -> Any:
    """`tree` with its dicts of the kinds that `structure` has.

    Args:
      structure: a treedef, from `structure_of`.
      tree: nested dicts with the same key paths, whatever mix of dict and FrozenDict.
    """
    if structure_of(tree) == structure:
        return tree
    leaves = dict(_leaves_with_path(tree))
    places = _leaves_with_path(jax.tree.unflatten(structure, range(structure.num_leaves)))
    return jax.tree.unflatten(structure, [leaves[path] for path, _ in places])


def check_same_structure(tree: Any, params: Any, name: str) -> None:
    """Raise unless `tree` has the tree structure and the leaf shapes of `params`."""
    structure, expected = structure_of(tree), structure_of(params)
    if structure != expected:
        found, wanted = named_leaves(tree).keys(), named_leaves(params).keys()
        lacks, extra = sorted(wanted - found), sorted(found - wanted)
        problems = [f"lacks {', '.join(lacks)}"] * bool(lacks)
        problems += [f"has {', '.join(extra)} besides"] * bool(extra)
        problem = " and ".join(problems) or (
            "has the same keys in other kinds of dict; freeze or unfreeze makes them alike"
        )
        raise ValueError(f"{name} must have the tree structure of params, but {problem}")
    for (path, leaf), param in zip(_leaves_with_path(tree), jax.tree.leaves(params), strict=True):
        if np.shape(leaf) != np.shape(param):
            at = f" at {path_name(path)}" if path else ""
            raise ValueError(
                f"{name}{at} has shape {list(np.shape(leaf))}, "
                f"the parameter has {list(np.shape(param))}"
            )


def _leaves_with_path(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _sorted(items: Mapping[Any, Any]) -> dict[Any, Any]:
    try:
        return {key: items[key] for key in sorted(items)}
    except TypeError:
        kinds = sorted({type(key).__name__ for key in items if isinstance(key, Hashable)})
        raise TypeError(f"keys must be sortable, all of one type; got {', '.join(kinds)}") from None


def _equal(a: Any, b: Any) -> bool:
    if getattr(a, "dtype", None) != getattr(b, "dtype", None):
        return False
    if isinstance(a, jax.Array) and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return a is b or bool(np.array_equal(a, b))


def _describe(leaf: Any) -> str:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return repr(leaf)


def _immutable(what: str, instead: str) -> TypeError:
    return TypeError(
        f"FrozenDict is immutable, it does not support {what}: for a changed copy use {instead}"
    )
