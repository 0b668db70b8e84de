"""Models on disk: exact, whole or not at all, checked when read."""

import errno
import os
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn
from funcnet import checkpoint, tensors

NET = fn.mlp([4], 3)


def make_model(dtype=np.float32):
    params, state, _ = NET.init(jax.random.key(0), (2, 5))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    preprocess = fn.subtract_mean(np.random.default_rng(0).normal(size=(6, 2, 5)))
    return fn.Model(NET, params, state, preprocess)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    fn.save_model(path, make_model())
    return path


def test_round_trip_is_exact(saved):
    model, again = make_model(), fn.load_model(saved, NET)
    assert again.params == model.params  # dtype, shape and every bit
    assert again.state == model.state
    assert again.preprocess.kind == model.preprocess.kind
    assert again.preprocess.stats == model.preprocess.stats
    x = np.random.default_rng(1).normal(size=(7, 2, 5)).astype(np.float32)
    np.testing.assert_array_equal(fn.predict_scores(again, x), fn.predict_scores(model, x))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_round_trip_of_other_dtypes(tmp_path, dtype):
    with jax.enable_x64(True):
        model = make_model(dtype)
        fn.save_model(tmp_path / "m.safetensors", model)
        again = fn.load_model(tmp_path / "m.safetensors", NET)
        assert again.params == model.params


PREPROCESSINGS = {
    "no_preprocess": fn.no_preprocess,
    "standardize": fn.standardize,
    "shuffle_features": fn.shuffle_features,
    "normalize_contrast+whiten": fn.chain(fn.normalize_contrast, partial(fn.whiten, dim=7)),
    "no_preprocess+whiten": fn.chain(fn.no_preprocess, fn.whiten),
}


def preprocessed(kind):
    x = np.random.default_rng(0).integers(256, size=(30, 2, 5)).astype(np.uint8)
    preprocess = PREPROCESSINGS[kind](x)
    params, state, _ = NET.init(jax.random.key(0), preprocess(x).shape[1:])
    return fn.Model(NET, params, state, preprocess), x


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_round_trip_of_preprocessing(tmp_path, kind):
    model, x = preprocessed(kind)
    fn.save_model(tmp_path / "m.safetensors", model)
    again = fn.load_model(tmp_path / "m.safetensors", NET)
    assert again.preprocess == model.preprocess
    assert again.preprocess.kind == kind
    np.testing.assert_array_equal(fn.predict_scores(again, x), fn.predict_scores(model, x))


def test_a_preprocessing_that_was_tampered_with_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    fn.save_model(path, preprocessed("normalize_contrast+whiten")[0])
    data = path.read_bytes()
    for other in (b"normalize_contrast+whitan", b"whiten+normalize_contrast"):
        damaged = data.replace(b"normalize_contrast+whiten", other)
        assert damaged != data
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"):
            fn.load_model(path, NET)


@pytest.mark.parametrize("kind", ["whitan", "", "whiten+", "subtract_mean+mean"])
def test_unknown_preprocessings_are_refused(tmp_path, kind):
    model, _ = preprocessed("standardize")
    odd = fn.Preprocess(kind, model.preprocess.stats)
    fn.save_model(tmp_path / "m.safetensors", fn.Model(NET, model.params, model.state, odd))
    with pytest.raises(ValueError, match="unknown preprocessing") as error:
        fn.load_model(tmp_path / "m.safetensors", NET)
    assert "\n" not in str(error.value)


def test_plain_dicts_can_be_saved(tmp_path):
    model = make_model()
    plain = fn.Model(NET, fn.unfreeze(model.params), {}, model.preprocess)
    fn.save_model(tmp_path / "m.safetensors", plain)
    assert fn.load_model(tmp_path / "m.safetensors", NET).params == model.params


def test_any_damage_is_noticed(saved):
    """A safetensors file has no checksum of its own; ours covers every tensor."""
    data = saved.read_bytes()
    rng = np.random.default_rng(2)
    for place in rng.choice(len(data), size=150, replace=False):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        saved.write_bytes(damaged)
        try:
            model = fn.load_model(saved, NET)
        except ValueError as error:
            assert str(saved) in str(error)
            assert "\n" not in str(error)
        else:  # a bit in the description that says nothing, such as a space
            assert model.params == make_model().params
            assert model.preprocess.stats == make_model().preprocess.stats


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        fn.load_model(saved, NET)


def test_other_files_are_refused(tmp_path):
    import safetensors.numpy

    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"w": np.ones(3)}, path)
    with pytest.raises(ValueError, match="no model that funcnet saved"):
        fn.load_model(path, NET)
    with pytest.raises(FileNotFoundError):
        fn.load_model(tmp_path / "missing.safetensors", NET)


def test_keys_with_slashes_are_refused(tmp_path):
    model = make_model()
    odd = fn.Model(NET, {"a/b": np.ones(3)}, {}, model.preprocess)
    with pytest.raises(ValueError, match="without '/'"):
        fn.save_model(tmp_path / "m.safetensors", odd)


@pytest.mark.parametrize(
    "params",
    [{1: np.ones(3)}, (np.ones(3),), {"a": [np.ones(3)]}, fn.History(*[np.ones(3)] * 6)],
    ids=["number", "tuple", "list", "named tuple"],
)
def test_trees_that_a_model_would_not_get_back_are_refused(tmp_path, params):
    """They would come back as dicts of words, in which layers find nothing."""
    odd = fn.Model(NET, params, {}, make_model().preprocess)
    with pytest.raises(ValueError, match="keys must be strings without '/', got the path params/"):
        fn.save_model(tmp_path / "m.safetensors", odd)
    assert not list(tmp_path.iterdir())


def test_failing_write_leaves_the_old_file_and_nothing_else(saved, monkeypatch):
    before = saved.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*model\.safetensors"):
        fn.save_model(saved, make_model())
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/m\.safetensors"):
        fn.save_model(tmp_path / "no" / "m.safetensors", make_model())


def test_files_get_the_usual_permissions(saved):
    plain = saved.with_name("plain")
    plain.touch()
    assert saved.stat().st_mode == plain.stat().st_mode


STORED = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    *("complex128", "int4", "uint4", "int2", "uint2", "float8_e3m4", "float8_e4m3"),
    *("float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    "float4_e2m1fn",
)


NUMBERS = [[0, 1, 2], [3, 4, 100]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", STORED)
def test_leaves_of_every_dtype_come_back(tmp_path, dtype, order):
    leaf = np.array([[0, 1, 1], [1, 0, 1]] if "int" in dtype else NUMBERS).astype(jnp.dtype(dtype))
    if dtype in ("int64", "uint64"):
        leaf = leaf + 2**40
    if order == ">" and leaf.dtype.kind != "V":
        leaf = leaf.astype(leaf.dtype.newbyteorder(">"))
    net = fn.mlp([], 2)
    state = fn.FrozenDict.shallow({"own": fn.FrozenDict.shallow({"leaf": leaf.T})})
    params, _, _ = net.init(jax.random.key(0), (3,))
    model = fn.Model(net, params, state, fn.no_preprocess(None))
    fn.save_model(tmp_path / "m.safetensors", model)
    got = fn.load_model(tmp_path / "m.safetensors", net).state["own"]["leaf"]
    one_byte = leaf.dtype.itemsize == 1
    assert got.dtype == (jnp.dtype(dtype) if one_byte else leaf.dtype)
    assert got.shape == leaf.T.shape
    assert np.asarray(got).tobytes() == leaf.T.tobytes()


@pytest.mark.parametrize(
    "leaf",
    [
        np.array(["a"]),
        np.array([{}], object),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, np.longdouble),
        "text",
        2**64,
    ],
    ids=["str", "object", "structured", "datetime", "longdouble", "text", "large int"],
)
def test_what_cannot_be_loaded_is_refused_when_it_is_saved(tmp_path, leaf):
    net = fn.mlp([], 2)
    params, _, _ = net.init(jax.random.key(0), (3,))
    state = fn.FrozenDict.shallow({"own": leaf})
    with pytest.raises(TypeError, match=r"state/own is .* cannot be saved"):
        fn.save_model(
            tmp_path / "m.safetensors", fn.Model(net, params, state, fn.no_preprocess(None))
        )
    assert not list(tmp_path.iterdir())


def test_freeze_refuses_what_would_wrap():
    assert fn.freeze(np.array([2**31 - 1])).tolist() == [2**31 - 1]
    with pytest.raises(ValueError, match="holds 1099511627776"):
        fn.freeze({"count": np.array([2**40])})


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text("ab/é", min_size=1, max_size=3), st.sampled_from(STORED), max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from("<>"),
    st.integers(0, 2**32 - 1),
)
def test_any_state_comes_back_or_is_refused(tmp_path_factory, kinds, shape, order, seed):
    """Whatever the names, dtypes, shapes, byte orders and strides of the leaves of one's own."""
    rng = np.random.default_rng(seed)
    leaves = {}
    for name, dtype in kinds.items():
        leaf = rng.integers(0, 2, shape).astype(jnp.dtype(dtype))
        swapped = order == ">" and leaf.dtype.kind != "V"
        leaves[name] = (leaf.astype(leaf.dtype.newbyteorder(">")) if swapped else leaf).T
    path = tmp_path_factory.mktemp("state") / "m.safetensors"
    net = fn.mlp([], 2)
    state = fn.FrozenDict.shallow({"own": fn.FrozenDict.shallow(leaves)})
    model = fn.Model(net, make_model().params, state, fn.no_preprocess(None))
    if any("/" in name for name in kinds):
        with pytest.raises(ValueError, match="keys must be strings without '/'"):
            fn.save_model(path, model)
        assert not path.exists()
        return
    fn.save_model(path, model)
    again = fn.load_model(path, net).state
    assert set(again["own"] if kinds else {}) == set(kinds)
    for name, leaf in leaves.items():
        got = again["own"][name]
        own = jnp.dtype(kinds[name]) if leaf.dtype.itemsize == 1 else leaf.dtype
        assert (got.dtype, got.shape) == (own, leaf.shape)
        assert np.asarray(got).tobytes() == leaf.tobytes()


class Pair(NamedTuple):
    a: Any
    b: Any


def own_state(key):
    """A TrainState of trees of every kind, with leaves of many."""
    params = {"w": jnp.ones((2, 3)), "pair": Pair(jnp.zeros(()), (jnp.ones(0, jnp.int8), None))}
    state = {
        "keys": jax.random.split(key, 3),
        "key": key,
        "many": [3, 2.5, True, 1j, np.float64(2)],
    }
    opt_state = (np.arange(3, dtype=">i8"), np.zeros((0, 2), np.complex128), jnp.ones(2, jnp.int4))
    return fn.TrainState(params, state, opt_state, key, jnp.int32(3), jnp.int32(1))


@pytest.mark.parametrize("shape", [[], [2], [4], [3, 1]])
def test_keys_of_another_shape_are_refused(shape):
    """As a JAX would have them whose keys are of another size."""
    data = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(5), 3)))
    assert tensors._restored(data, ["key threefry2x32", [3]]).shape == (3,)
    with pytest.raises(ValueError, match=rf"{re.escape(str(shape))} keys are of shape \[3\]"):
        tensors._restored(data, ["key threefry2x32", shape])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg", None])
def test_a_state_comes_back_to_the_same_bits(tmp_path, impl):
    key = jax.random.PRNGKey(5) if impl is None else jax.random.key(5, impl=impl)
    before, path = own_state(key), tmp_path / "s.safetensors"
    fn.save_state(path, before)
    again = fn.load_state(
        path, own_state(jax.tree.map(jnp.zeros_like, key) if impl is None else key)
    )
    assert jax.tree.structure(again) == jax.tree.structure(before)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(before), strict=True):
        if not hasattr(b, "dtype"):
            assert (type(a), a) == (type(b), b)
            continue
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(a) == jax.random.key_impl(b)
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_training_goes_on_from_a_state_of_a_file(tmp_path):
    data, net = fn.load_digits(), fn.mlp([8], 10, normalization="batchnorm", keep_prob=0.9)
    options = {"epochs": 3, "batch_size": 100, "eval_every": None}
    optimizer = fn.adam(fn.cosine_decay(1e-2, 60))
    whole = fn.fit(net, optimizer, data, key=jax.random.key(1), **options)
    part = fn.fit(net, optimizer, data, key=jax.random.key(1), **{**options, "epochs": 1})
    fn.save_state(tmp_path / "s.safetensors", part.state)
    shapes = jax.eval_shape(
        lambda: fn.init_train_state(net, optimizer, (8, 8), key=jax.random.key(9))
    )
    state = fn.load_state(tmp_path / "s.safetensors", shapes)
    rest = fn.fit(net, optimizer, data, train_state=state, **options)
    assert rest.state.params == whole.state.params
    assert rest.state.opt_state == whole.state.opt_state
    assert (rest.history.loss == whole.history.loss[len(part.history.loss) :]).all()


def test_a_state_of_something_else_is_refused_by_name(tmp_path):
    path, key = tmp_path / "s.safetensors", jax.random.key(0)

    def state(net, optimizer):
        return fn.init_train_state(net, optimizer, (5,), key=key)

    fn.save_state(path, state(fn.mlp([4], 3), fn.adam(0.1)))
    for net, optimizer, problem in (
        (fn.mlp([6], 3), fn.adam(0.1), r"affine1/b is float32\[4\] there and float32\[6\] here"),
        (fn.mlp([4, 4], 3), fn.adam(0.1), "it lacks opt_state/m/affine3/b"),
        (fn.mlp([4], 3), fn.sgd(0.1), "it has opt_state/m/affine1/b besides"),
    ):
        with pytest.raises(ValueError, match=problem) as error:
            fn.load_state(path, state(net, optimizer))
        assert f"{path} is of another net or optimizer" in str(error.value)
    other = jax.random.key(0, impl="rbg")
    with pytest.raises(ValueError, match=r"key is key<fry>\[\] there and key<rbg>\[\] here"):
        fn.load_state(path, state(fn.mlp([4], 3), fn.adam(0.1))._replace(key=other))
    fn.save_model(path, make_model())
    with pytest.raises(ValueError, match="is no state that funcnet saved"):
        fn.load_state(path, state(fn.mlp([4], 3), fn.adam(0.1)))


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (3, ""), (4, " and 1 more"), (9, " and 6 more")]
)
def test_of_many_differences_three_are_named(count, more):
    leaves = {f"leaf{number}": np.zeros(2) for number in range(count)}
    with pytest.raises(ValueError, match="of another net or optimizer") as error:
        checkpoint.tree_like(leaves, {}, "m.safetensors")
    named = "; ".join(f"it has {name} besides" for name in list(leaves)[:3])
    assert str(error.value) == f"m.safetensors is of another net or optimizer: {named}{more}"


def test_leaves_of_the_same_path_are_refused(tmp_path):
    state = own_state(jax.random.key(0))._replace(params={"a": {"b": 1.0}, "a/b": 2.0})
    with pytest.raises(ValueError, match="two leaves have the path params/a/b"):
        fn.save_state(tmp_path / "s.safetensors", state)
    assert not list(tmp_path.iterdir())
