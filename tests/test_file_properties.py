"""States and models of any trees come back from their files, or are refused."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn
from funcnet.text import visible

seeds = st.integers(0, 2**32 - 1)


def places(tree):
    """The leaves of nested dicts by their paths of keys."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(key.key for key in path): leaf for path, leaf in found}


KINDS = [
    *("<f2", "<f4", "<f8", "<c8", "<c16", "<i2", "<i4", "<i8", "<u2", "<u4", "<u8"),
    *(">f2", ">f4", ">f8", ">c8", ">c16", ">i2", ">i4", ">i8", ">u2", ">u4", ">u8"),
    *("i1", "u1", "?", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"),
]


def leaf_of(kind, shape, seed):
    """Any bits, of NaNs too, where each is a number of the kind."""
    dtype, rng = jnp.dtype(kind), np.random.default_rng(seed)
    if kind in ("?", "int4", "uint4"):
        return rng.integers(0, 2, shape).astype(dtype)
    return np.frombuffer(rng.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


class Pair(NamedTuple):
    a: Any
    b: Any


stored = st.builds(
    leaf_of, st.sampled_from(KINDS), st.sampled_from([(), (0,), (3,), (2, 0, 3), (3, 2)]), seeds
)
keyed = st.builds(
    lambda seed, shape: jax.random.split(jax.random.key(seed), shape), seeds, st.just((2,))
) | seeds.map(jax.random.key)
python = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.complex_numbers()
text = st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=3)


def kinds_of_tree(child):
    """A dict of words or of numbers, a FrozenDict, a tuple, a list or a named tuple."""
    words = st.dictionaries(text, child, max_size=3)
    several = st.lists(child, max_size=2)
    return (
        words
        | words.map(fn.FrozenDict.shallow)
        | st.dictionaries(st.integers(), child, max_size=2)
        | several
        | several.map(tuple)
        | st.builds(Pair, child, child)
    )


any_tree = st.recursive(stored | keyed | python | st.none(), kinds_of_tree, max_leaves=5)


def bits(leaf):
    """What a leaf is, to the bit."""
    if not hasattr(leaf, "dtype"):
        return type(leaf), np.array(leaf).tobytes()
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()


def blank(leaf):
    """Another leaf of this kind."""
    if not hasattr(leaf, "dtype"):
        return type(leaf)(0)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return np.zeros_like(leaf)


@settings(max_examples=60, deadline=None)
@given(any_tree, any_tree, seeds, st.data())
def test_a_state_of_any_trees_comes_back_or_what_differs_is_named(
    tmp_path_factory, params, state, seed, data
):
    path = tmp_path_factory.mktemp("state") / "s.safetensors"
    key, count = jax.random.key(seed), jnp.int32(2)
    before = fn.TrainState(params, state, {"step": count}, key, count, count)
    fn.save_state(path, before)
    like = jax.tree.map(blank, before)
    again = fn.load_state(path, like)
    assert jax.tree.structure(again) == jax.tree.structure(before)
    assert list(map(bits, jax.tree.leaves(again))) == list(map(bits, jax.tree.leaves(before)))

    places, structure = jax.tree_util.tree_flatten_with_path(like)
    index = data.draw(st.integers(0, len(places) - 1))
    other = [leaf for _, leaf in places]
    other[index] = np.zeros((7,), np.int16)
    name = jax.tree_util.keystr(places[index][0], simple=True, separator="/")
    with pytest.raises(ValueError, match="is of another net or optimizer") as error:
        fn.load_state(path, jax.tree.unflatten(structure, other))
    assert f"{visible(name)} is " in str(error.value)


NET = fn.mlp([], 2)
words = st.recursive(
    stored | keyed, lambda child: st.dictionaries(text, child, min_size=1, max_size=3), max_leaves=5
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(text, words, max_size=2), st.dictionaries(text, words, max_size=2))
def test_a_model_of_any_nested_dicts_comes_back(tmp_path_factory, params, state):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    fn.save_model(path, fn.Model(NET, params, state, fn.no_preprocess(None)))
    again = fn.load_model(path, NET)
    for tree, loaded in ((params, again.params), (state, again.state)):
        expected = {place: bits(leaf) for place, leaf in places(tree).items()}
        assert {place: bits(leaf) for place, leaf in places(loaded).items()} == expected
        assert all(isinstance(leaf, fn.FrozenDict) for leaf in (loaded, again.state))


@settings(max_examples=40, deadline=None)
@given(kinds_of_tree(stored).filter(jax.tree.leaves))
def test_a_model_that_would_not_come_back_the_same_is_refused(tmp_path_factory, tree):
    """Of trees that are no dicts of words a file of a model would make such."""
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model = fn.Model(NET, {"own": tree}, {}, fn.no_preprocess(None))
    keys = list(tree) if isinstance(tree, dict | fn.FrozenDict) else [0]
    if not all(isinstance(key, str) for key in keys):
        with pytest.raises(ValueError, match="keys must be strings without '/'"):
            fn.save_model(path, model)
        assert not path.exists()
        return
    fn.save_model(path, model)
    assert list(fn.load_model(path, NET).params["own"]) == sorted(keys)
