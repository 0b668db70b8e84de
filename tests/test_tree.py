"""FrozenDict: immutable, a JAX tree, equal by value, printable, picklable."""

import copy
import pickle
import re
from collections import OrderedDict, namedtuple
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn

Point = namedtuple("Point", "x y")


def example():
    return fn.FrozenDict(
        affine1={"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([1.0, -2.0, 0.5])},
        scale=jnp.float32(3),
    )


# Immutability


def assign(params):
    params["scale"] = 1


def assign_nested(params):
    params["affine1"]["w"] = 1


def assign_augmented(params):
    params["affine1"]["w"] += 1


def delete(params):
    del params["scale"]


def delete_nested(params):
    del params["affine1"]["w"]


def set_attribute(params):
    params.scale = 1


def set_private_attribute(params):
    params._items = {}


def delete_attribute(params):
    del params._items


def merge_in_place(params):
    params["affine1"] |= {"w": 1}


MUTATORS = {
    "assignment": (assign, "params.set('scale', value)"),
    "nested assignment": (assign_nested, "params.set('w', value)"),
    "augmented assignment": (assign_augmented, "params.set('w', value)"),
    "deletion": (delete, "params.without('scale')"),
    "nested deletion": (delete_nested, "params.without('w')"),
    "attribute": (set_attribute, "params.set('scale', value)"),
    "private attribute": (set_private_attribute, "params.set("),
    "attribute deletion": (delete_attribute, "params.without("),
    "nested |=": (merge_in_place, "params.set('affine1', value)"),
    "update": (lambda p: p.update({"scale": 1}), "params | {...}"),
    "update by keyword": (lambda p: p.update(scale=1), "params | {...}"),
    "pop": (lambda p: p.pop("scale"), "params.without('scale')"),
    "pop with default": (lambda p: p.pop("nothing", None), "params.without('nothing')"),
    "popitem": (lambda p: p.popitem(), "params.without(key)"),
    "clear": (lambda p: p.clear(), "FrozenDict()"),
    "setdefault": (lambda p: p.setdefault("new", 1), "params.set('new', value)"),
    "setdefault without a default": (lambda p: p.setdefault("new"), "params.set('new', value)"),
}


@pytest.mark.parametrize("name", MUTATORS)
def test_every_mutator_raises_and_names_the_way_out(name):
    mutate, way_out = MUTATORS[name]
    params = example()
    with pytest.raises(TypeError, match=re.escape(way_out)) as caught:
        mutate(params)
    assert "FrozenDict is immutable" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert params == example()


def test_the_ways_out_that_errors_name_work():
    params = example()
    assert params.set("scale", 1)["scale"] == 1
    assert "scale" not in params.without("scale")
    assert (params | {"scale": 1})["scale"] == 1
    assert len(fn.FrozenDict()) == 0
    assert params == example()


def test_leaves_cannot_be_changed_either():
    with pytest.raises(TypeError, match="immutable"):
        example()["affine1"]["w"][0, 0] = 1


def test_it_does_not_share_the_dict_it_was_made_from():
    inner = {"w": jnp.ones(2)}
    source = {"affine1": inner}
    params = fn.FrozenDict(source)
    inner["w"] = jnp.zeros(2)
    inner["b"] = jnp.zeros(2)
    source["affine2"] = 1
    assert params == fn.FrozenDict(affine1={"w": jnp.ones(2)})


def test_a_numpy_leaf_is_copied():
    # Large and aligned arrays too, which JAX could otherwise share on the CPU.
    for size in (1, 3, 1 << 16):
        source = np.ones(size, np.float32)
        params = fn.freeze({"w": source})
        changed = example().set("w", source)
        merged = example() | {"w": source}
        source[:] = 7
        for tree in (params, changed, merged):
            assert isinstance(tree["w"], jax.Array)
            np.testing.assert_array_equal(tree["w"], np.ones(size))


def test_a_numpy_leaf_is_copied_at_once():
    """`jnp.array` copies a large array in the background: a change soon after gets in, at times."""
    source = np.empty(1 << 16, np.float32)
    seen = set()
    for _ in range(1500):
        source[:] = 1
        leaf = fn.freeze(source)
        source[:] = 7
        seen.add(float(np.max(leaf)))
    assert seen == {1.0}


# Changed copies


def test_set_replaces_and_adds():
    params = example()
    replaced = params.set("scale", jnp.float32(4))
    added = params.set("bias", {"b": np.zeros(2, np.float32)})
    assert replaced["scale"] == 4
    assert isinstance(added["bias"], fn.FrozenDict)
    assert isinstance(added["bias"]["b"], jax.Array)
    assert list(added) == ["affine1", "bias", "scale"]
    assert params == example()


def test_set_by_path_leaves_the_rest_alone():
    params = example()
    changed = params.set(("affine1", "w"), jnp.zeros((2, 3)))
    assert jnp.all(changed["affine1"]["w"] == 0)
    assert changed["affine1"]["b"] is params["affine1"]["b"]
    assert changed["scale"] is params["scale"]
    assert params == example()
    deep = fn.FrozenDict(a={"b": {"c": 1, "d": 2}}).set(("a", "b", "c"), 3)
    assert fn.unfreeze(deep) == {"a": {"b": {"c": 3, "d": 2}}}
    assert fn.unfreeze(params.set(("affine1", "g"), 1))["affine1"]["g"] == 1


def test_without():
    params = example()
    assert list(params.without("scale")) == ["affine1"]
    assert list(params.without(("affine1", "w"))["affine1"]) == ["b"]
    assert list(params.without(("affine1",))) == ["scale"]
    assert params == example()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.set(("affine2", "w"), 1),
        lambda p: p.set(("scale", "w"), 1),
        lambda p: p.without("affine2"),
        lambda p: p.without(("affine1", "gamma")),
        lambda p: p.without(("affine2", "w")),
        lambda p: p.without(("scale", "w")),
        lambda p: p["affine2"],
    ],
    ids=["set", "set in leaf", "without", "without nested", "no parent", "leaf parent", "read"],
)
def test_a_missing_key_is_a_key_error(change):
    with pytest.raises(KeyError):
        change(example())


def test_or_prefers_the_right_side_and_changes_neither():
    left = fn.FrozenDict(a=1, b={"c": 2})
    right = {"b": {"d": np.ones(2, np.float32)}, "e": 3}
    merged = left | right
    assert isinstance(merged, fn.FrozenDict)
    assert list(merged) == ["a", "b", "e"]
    assert list(merged["b"]) == ["d"]
    assert isinstance(merged["b"], fn.FrozenDict)
    assert fn.unfreeze(left) == {"a": 1, "b": {"c": 2}}
    assert list(right) == ["b", "e"]
    assert isinstance(right["b"]["d"], np.ndarray)
    assert (left | fn.FrozenDict(a=5))["a"] == 5


def test_or_from_the_left_is_a_plain_dict():
    left = {"a": 0, "z": 9}
    merged = left | fn.FrozenDict(a=1, b=2)
    assert merged == {"a": 1, "b": 2, "z": 9}
    assert type(merged) is dict
    assert left == {"a": 0, "z": 9}


@pytest.mark.parametrize("other", [1, [("a", 1)], None])
def test_or_refuses_other_things(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        fn.FrozenDict() | other
    with pytest.raises(TypeError, match="unsupported operand"):
        other | fn.FrozenDict()


def test_rebinding_or_makes_a_new_one():
    params = original = fn.FrozenDict(a=1)
    params |= {"b": 2}
    assert list(params) == ["a", "b"]
    assert list(original) == ["a"]


# Reading


def test_it_reads_like_a_dict():
    params = fn.FrozenDict({"b": 1, "a": 2})
    assert params["b"] == 1
    assert len(params) == 2
    assert "a" in params
    assert "c" not in params
    assert params.get("c", 7) == 7
    assert dict(params) == {"a": 2, "b": 1}
    assert {**params} == {"a": 2, "b": 1}
    assert list(params.items()) == [("a", 2), ("b", 1)]
    assert list(params.values()) == [2, 1]
    assert list(reversed(list(params.keys()))) == ["b", "a"]
    match params:
        case {"a": value}:
            assert value == 2


def test_the_constructor_takes_what_dict_takes():
    expected = {"a": 1, "b": 2}
    made = [
        fn.FrozenDict(expected),
        fn.FrozenDict(a=1, b=2),
        fn.FrozenDict([("b", 2), ("a", 1)]),
        fn.FrozenDict({"b": 2}, a=1),
        fn.FrozenDict(fn.FrozenDict(expected)),
        fn.FrozenDict(OrderedDict(b=2, a=1)),
    ]
    assert all(fn.unfreeze(params) == expected for params in made)


def test_keys_are_sorted_as_they_flatten():
    params = fn.FrozenDict(z=1, a={"w": 2, "b": 3}, m=4)
    assert list(params) == ["a", "m", "z"]
    assert jax.tree.leaves(params) == jax.tree.leaves(fn.unfreeze(params)) == [3, 2, 4, 1]
    assert list(params.set("k", 0)) == ["a", "k", "m", "z"]
    assert list(fn.FrozenDict({10: "x", 9: "y"})) == [9, 10]


def test_keys_of_mixed_types_are_refused():
    with pytest.raises(TypeError, match=r"keys must be sortable.*int, str"):
        fn.FrozenDict({"a": 1, 2: 3})
    with pytest.raises(TypeError, match="keys must be sortable"):
        fn.FrozenDict(a=1).set(2, 3)
    with pytest.raises(TypeError, match="keys must be sortable"):
        fn.FrozenDict(a=1) | {2: 3}


# Equality and hash

one = jnp.ones(2)
EQUAL = {
    "same": (example(), example(), True),
    "order of keys": (fn.FrozenDict(a=1, b=2), fn.FrozenDict(b=2, a=1), True),
    "value": (fn.FrozenDict(w=one), fn.FrozenDict(w=one.at[1].set(2)), False),
    "dtype": (fn.FrozenDict(w=one), fn.FrozenDict(w=one.astype(jnp.bfloat16)), False),
    "int or float": (fn.FrozenDict(w=one), fn.FrozenDict(w=one.astype(jnp.int32)), False),
    "shape": (fn.FrozenDict(w=one), fn.FrozenDict(w=jnp.ones(3)), False),
    "broadcastable shape": (fn.FrozenDict(w=one), fn.FrozenDict(w=jnp.ones((1, 2))), False),
    "scalar or array": (fn.FrozenDict(w=one), fn.FrozenDict(w=1.0), False),
    "key": (fn.FrozenDict(w=one), fn.FrozenDict(v=one), False),
    "missing": (fn.FrozenDict(w=one), fn.FrozenDict(w=one, b=one), False),
    "nesting": (fn.FrozenDict(w=one), fn.FrozenDict(w={"w": one}), False),
    "dict inside": (fn.FrozenDict.shallow({"a": {"w": one}}), fn.FrozenDict(a={"w": one}), False),
    "empty": (fn.FrozenDict(), fn.FrozenDict(), True),
    "empty child": (fn.FrozenDict(a={}), fn.FrozenDict(), False),
    "plain dict": (fn.FrozenDict(w=1), {"w": 1}, False),
    "none": (fn.FrozenDict(), None, False),
    "nan": (fn.FrozenDict(w=one * jnp.nan), fn.FrozenDict(w=one * jnp.nan), False),
    "text": (fn.FrozenDict(a="x"), fn.FrozenDict(a="x"), True),
    "random key": (
        fn.FrozenDict(key=jax.random.key(3)),
        fn.FrozenDict(key=jax.random.key(3)),
        True,
    ),
    "other random key": (
        fn.FrozenDict(key=jax.random.key(3)),
        fn.FrozenDict(key=jax.random.key(4)),
        False,
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equality_is_a_bool_of_structure_and_leaves(name):
    a, b, expected = EQUAL[name]
    assert (a == b) is expected
    assert (b == a) is expected
    assert (a != b) is not expected


def test_it_has_no_hash():
    with pytest.raises(TypeError, match="unhashable type: 'FrozenDict'"):
        hash(fn.FrozenDict(a=1))
    with pytest.raises(TypeError, match="unhashable"):
        {fn.FrozenDict(): 1}


# Text


def test_repr_shows_paths_shapes_dtypes_and_the_total():
    params = fn.FrozenDict(
        affine1={"w": jnp.zeros((30, 40)), "b": jnp.zeros(40, jnp.bfloat16)},
        step=jnp.int32(3),
        name="mlp",
    )
    lines = repr(params).splitlines()
    assert lines[0] == "FrozenDict(1,241 parameters"
    assert [line.split() for line in lines[1:-1]] == [
        ["affine1/b", "bfloat16[40]"],
        ["affine1/w", "float32[30,", "40]"],
        ["name", "'mlp'"],
        ["step", "int32[]"],
    ]
    assert len({re.search(r"  (?=\S)(?!.*  \S)", line).end() for line in lines[1:-1]}) == 1
    assert lines[-1] == ")"
    assert repr(fn.FrozenDict()) == "FrozenDict({})"
    assert str(params) == repr(params)


def test_repr_works_under_jit():
    seen = []

    @jax.jit
    def f(params):
        seen.append(repr(params))
        return params["scale"]

    f(example())
    assert "float32[2, 3]" in seen[0]


# Copies


def test_copies_are_equal():
    params = example()
    for twin in (
        copy.copy(params),
        copy.deepcopy(params),
        pickle.loads(pickle.dumps(params)),
    ):
        assert type(twin) is fn.FrozenDict
        assert twin == params
        assert isinstance(twin["affine1"], fn.FrozenDict)
    assert copy.copy(params) is params


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_protocols(protocol):
    mixed = fn.FrozenDict.shallow({"a": {"w": 1}, "b": fn.FrozenDict(w=2)})
    twin = pickle.loads(pickle.dumps(mixed, protocol))
    assert twin == mixed
    assert type(twin["a"]) is dict


def test_a_deep_copy_survives_donation_of_the_original():
    params = example()
    twin = copy.deepcopy(params)
    step = jax.jit(lambda p: jax.tree.map(lambda a: a + 1, p), donate_argnums=0)
    changed = step(params)
    assert params["affine1"]["w"].is_deleted()
    assert twin == example()
    assert changed["scale"] == 4


# JAX


def test_key_paths():
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(example())[0]]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    assert names == ["affine1/b", "affine1/w", "scale"]
    plain = [path for path, _ in jax.tree_util.tree_flatten_with_path(example().unfreeze())[0]]
    assert paths == plain


def test_it_goes_through_jit_grad_vmap_and_scan():
    params = example()

    def f(p):
        return (p["affine1"]["w"] ** 2).sum() * p["scale"] + p["affine1"]["b"].sum()

    expected = fn.FrozenDict(
        affine1={"w": 6 * params["affine1"]["w"], "b": jnp.ones(3)},
        scale=(params["affine1"]["w"] ** 2).sum(),
    )
    assert jax.grad(f)(params) == expected
    assert jax.jit(jax.grad(f))(params) == expected

    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    doubled = jax.vmap(lambda p: jax.tree.map(lambda a: a + a, p))(stacked)
    assert doubled == jax.tree.map(lambda a: a + a, stacked)

    final, history = jax.lax.scan(
        lambda p, _: (jax.tree.map(lambda a: a + 1, p), p), params, length=3
    )
    assert final == jax.tree.map(lambda a: a + 3, params)
    assert history["affine1"]["w"].shape == (3, 2, 3)
    assert isinstance(history["affine1"], fn.FrozenDict)


def test_jit_traces_once_for_equal_structures():
    traces = []

    @jax.jit
    def f(p):
        traces.append(1)
        return p["a"] + p["b"]

    f(fn.FrozenDict(a=1.0, b=2.0))
    f(fn.FrozenDict(b=3.0, a=4.0))
    f(fn.FrozenDict(a=1.0).set("b", 2.0))
    assert len(traces) == 1


def test_a_frozen_dict_does_not_map_against_a_dict():
    with pytest.raises(ValueError, match=r"(?i)dict"):
        jax.tree.map(lambda a, b: a, fn.FrozenDict(a=1), {"a": 1})


def test_tree_map_may_put_anything_in_the_leaves():
    shapes = jax.tree.map(lambda a: list(a.shape), example())
    assert shapes["affine1"]["w"] == [2, 3]
    assert jax.tree.map(lambda a: None, example())["scale"] is None
    with jax.checking_leaks():
        jax.jit(lambda p: p)(example())


# freeze and unfreeze


def test_freeze_converts_all_the_way_down():
    frozen = fn.freeze({"a": [np.ones(2), {"b": (1, [2])}], "p": Point({"q": 1}, [3])})
    assert isinstance(frozen["a"], tuple)
    assert isinstance(frozen["a"][0], jax.Array)
    assert frozen["a"][1]["b"] == (1, (2,))
    assert isinstance(frozen["a"][1], fn.FrozenDict)
    assert isinstance(frozen["p"], Point)
    assert isinstance(frozen["p"].x, fn.FrozenDict)
    assert frozen["p"].y == (3,)


def test_freeze_takes_any_mapping_and_leaves_other_leaves_alone():
    marker = object()
    array = jnp.ones(2)
    frozen = fn.freeze(MappingProxyType({"a": OrderedDict(z=marker, b=None, c=array)}))
    assert list(frozen["a"]) == ["b", "c", "z"]
    assert frozen["a"]["z"] is marker
    assert frozen["a"]["b"] is None
    assert frozen["a"]["c"] is array
    assert fn.freeze(3) == 3
    assert isinstance(fn.freeze(np.float32(3)), jax.Array)


def test_freeze_keeps_dtypes(x64):
    for dtype in ("float64", "float32", "int8", "uint8", "bool", "int64"):
        assert fn.freeze({"a": np.ones(2, dtype)})["a"].dtype == dtype


def test_unfreeze_gives_dicts_that_can_be_changed():
    params = example()
    plain = params.unfreeze()
    assert type(plain) is type(plain["affine1"]) is dict
    plain["affine1"]["w"] = 0
    assert params == example()
    nested = fn.unfreeze([fn.FrozenDict(a=1), (fn.FrozenDict(b=2),), Point(fn.FrozenDict(), 1)])
    assert nested == [{"a": 1}, ({"b": 2},), Point({}, 1)]
    assert type(nested[0]) is type(nested[1][0]) is type(nested[2].x) is dict


arrays = st.lists(st.integers(-9, 9), min_size=0, max_size=4).map(lambda v: np.array(v, np.int32))
keys = st.text("abcw1/ _", max_size=3)
trees = st.dictionaries(
    keys, st.recursive(arrays, lambda child: st.dictionaries(keys, child, max_size=3)), max_size=4
)


def same(a, b):
    """Equal plain trees of arrays."""
    if isinstance(a, dict):
        return type(b) is dict and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return np.array_equal(a, b) and a.dtype == b.dtype


@settings(deadline=None, max_examples=60)
@given(trees)
def test_round_trips(tree):
    frozen = fn.freeze(tree)
    assert same(tree, frozen.unfreeze())
    assert fn.freeze(frozen.unfreeze()) == frozen
    assert fn.freeze(frozen) == frozen
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert copy.deepcopy(frozen) == frozen
    leaves, structure = jax.tree.flatten(frozen)
    assert jax.tree.unflatten(structure, leaves) == frozen
    for a, b in zip(leaves, jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=60)
@given(trees, trees, keys)
def test_changed_copies_follow_dict(left, right, key):
    frozen = fn.freeze(left)
    assert same((frozen | right).unfreeze(), left | right)
    assert same(frozen.set(key, right).unfreeze(), left | {key: right})
    assert key not in frozen.set(key, right).without(key)
    assert list(frozen) == sorted(left)
    assert same(frozen.unfreeze(), left)


def test_tuples_may_be_keys_as_well_as_paths():
    tree = fn.FrozenDict({(1, 2): 3})
    assert tree.set((1, 2), 4)[1, 2] == 4
    assert len(tree.without((1, 2))) == 0
    with pytest.raises(KeyError, match="empty path"):
        tree.set((), 4)


def test_repr_shows_what_is_none():
    assert "a  None" in repr(fn.FrozenDict(a=None, b=np.ones(2)))


def test_dict_views():
    tree = fn.FrozenDict(b=1, a=2)
    assert list(tree.keys()) == ["a", "b"]
    assert list(tree.values()) == [2, 1]
    assert list(reversed(tree)) == ["b", "a"]
    assert list(reversed(tree.items())) == [("b", 1), ("a", 2)]
    assert tree.keys() & {"a", "c"} == {"a"}
