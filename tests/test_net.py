"""Networks: names and shapes, initial values, and gradients of the whole against autodiff."""

import itertools
import math
import re
from collections import OrderedDict
from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.net import ACTIVATIONS, NORMALIZATIONS

key = jax.random.key(231)
# One net and one batch size for most tests: each new shape is a new compile.
SMALL = fn.mlp([4], 3)
loss_and_grads = jax.jit(fn.loss_and_grads, static_argnums=0, static_argnames=("train", "loss_fn"))


def small(rng):
    """SMALL with random parameters, and a batch."""
    params, state, _ = SMALL.init(key, (5,))
    return SMALL, random_params(params, rng), state, *batch(rng, 2, (5,), 3)


def names(tree):
    """The paths of the leaves, sorted as they flatten."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def shapes(tree):
    return dict(zip(names(tree), [leaf.shape for leaf in jax.tree.leaves(tree)], strict=True))


def random_params(params, rng, scale=0.7):
    """Normal values in every leaf, biases included."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), params
    )


def batch(rng, n, in_shape, classes):
    return 1.3 * rng.normal(size=(n, *in_shape)), rng.integers(classes, size=n)


# Structure


def test_mlp_names_and_shapes():
    params, state, out_shape = fn.mlp([7, 5], 3).init(key, (2, 3, 4))
    assert shapes(params) == {
        "affine1/b": (7,),
        "affine1/w": (24, 7),
        "affine2/b": (5,),
        "affine2/w": (7, 5),
        "affine3/b": (3,),
        "affine3/w": (5, 3),
    }
    assert isinstance(params, fn.FrozenDict)
    assert isinstance(params["affine1"], fn.FrozenDict)
    assert state == fn.FrozenDict()
    assert out_shape == (3,)


@pytest.mark.parametrize("hidden", [[], [4], [4, 3], (5, 1, 2), [3] * 5, np.array([2, 3])], ids=str)
def test_mlp_of_any_depth(hidden, rng):
    net = fn.mlp(hidden, 6)
    params, state, out_shape = net.init(key, (5,))
    assert list(params) == [f"affine{i + 1}" for i in range(len(hidden) + 1)]
    dims = [5, *hidden, 6]
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(dims)):
        assert params[f"affine{i + 1}"]["w"].shape == (fan_in, fan_out)
    x = rng.normal(size=(2, 5)).astype("f")
    out, _, new_state = jax.eval_shape(net.forward, params, state, x)
    assert out.shape == (2, *out_shape) == (2, 6)
    assert new_state == state


@pytest.mark.parametrize("normalization", ["batchnorm", "layernorm"])
def test_mlp_names_and_shapes_with_normalization(normalization):
    net = fn.mlp([7, 5], 3, normalization=normalization, keep_prob=0.5, activation="gelu")
    params, state, out_shape = net.init(key, (2, 3, 4))
    plain, _, _ = fn.mlp([7, 5], 3).init(key, (2, 3, 4))
    expected = shapes(plain)
    for i, dim in ((1, 7), (2, 5)):
        expected |= {f"{normalization}{i}/gamma": (dim,), f"{normalization}{i}/beta": (dim,)}
        assert np.all(params[f"{normalization}{i}"]["gamma"] == 1)
        assert np.all(params[f"{normalization}{i}"]["beta"] == 0)
    assert shapes(params) == expected
    assert out_shape == (3,)
    if normalization == "layernorm":
        assert state == fn.FrozenDict()
    else:
        assert shapes(state) == {
            "batchnorm1/mean": (7,),
            "batchnorm1/var": (7,),
            "batchnorm2/mean": (5,),
            "batchnorm2/var": (5,),
        }
        assert np.all(state["batchnorm1"]["mean"] == 0)
        assert np.all(state["batchnorm1"]["var"] == 1)


MLPS = {
    "relu": ({}, lambda: [fn.affine(4), fn.relu(), fn.affine(3)]),
    "normalization first": (
        {"normalization": "batchnorm", "activation": "tanh", "keep_prob": 0.7},
        lambda: [fn.affine(4), fn.batchnorm(), fn.tanh(), fn.dropout(0.7), fn.affine(3)],
    ),
    "input dropout": (
        {"normalization": "layernorm", "activation": "gelu", "input_keep_prob": 0.8},
        lambda: [fn.dropout(0.8), fn.affine(4), fn.layernorm(), fn.gelu(), fn.affine(3)],
    ),
    "both dropouts": (
        {"activation": "leaky_relu", "keep_prob": 0.5, "input_keep_prob": 0.8},
        lambda: [
            fn.dropout(0.8),
            fn.affine(4),
            fn.leaky_relu(0.01),
            fn.dropout(0.5),
            fn.affine(3),
        ],
    ),
    "gelu_tanh": (
        {"activation": "gelu_tanh", "weight_scale": "glorot"},
        lambda: [
            fn.affine(4, weight_scale="glorot"),
            fn.gelu(approximate=True),
            fn.affine(3, weight_scale="glorot"),
        ],
    ),
    "bfloat16": (
        {"matmul_dtype": jnp.bfloat16},
        lambda: [
            fn.affine(4, matmul_dtype="bfloat16"),
            fn.relu(),
            fn.affine(3, matmul_dtype="bfloat16"),
        ],
    ),
}


@pytest.mark.parametrize("name", MLPS)
def test_mlp_is_the_serial_of_its_layers(name, rng):
    options, layers = MLPS[name]
    x = rng.normal(size=(5, 6)).astype("f")
    results = []
    for net in (fn.mlp([4], 3, **options), fn.serial(*layers())):
        params, state, _ = net.init(key, (6,))
        out, _, state = jax.jit(partial(net.forward, train=True))(params, state, x, key=key)
        results.append((params, out, state))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


def test_keep_prob_none_is_no_layer_and_any_other_one_is(rng):
    x = rng.normal(size=(5, 6)).astype("f")

    def scores(options, key):
        net = fn.mlp([4], 3, **options)
        params, state, _ = net.init(jax.random.key(0), (6,))
        return net.forward(params, state, x, key=key, train=True)[0]

    plain = scores({"keep_prob": None, "input_keep_prob": None}, None)  # needs no key
    for name, layer in (("keep_prob", "dropout1"), ("input_keep_prob", "dropout1")):
        for trace in (jax.jit, lambda f: f):
            run = trace(lambda p, key, name=name: scores({name: p}, key))
            with pytest.raises(ValueError, match="training needs a random key") as caught:
                run(1.0, None)
            assert layer in " ".join(caught.value.__notes__)
            assert run(1.0, key).shape == plain.shape


def test_mlp_takes_an_iterator_of_sizes():
    params, _, _ = fn.mlp((dim for dim in (4, 3)), 2).init(key, (5,))
    assert list(params) == ["affine1", "affine2", "affine3"]


def test_mlp_forward_is_numpys(rng, x64):
    net = fn.mlp([7, 5], 3)
    params, state, _ = net.init(key, (2, 3))
    params = random_params(params, rng)
    x = rng.normal(size=(4, 2, 3))
    h = x.reshape(4, 6)
    for i in (1, 2, 3):
        layer = jax.tree.map(np.asarray, params[f"affine{i}"])
        h = h @ layer["w"] + layer["b"]
        h = np.maximum(h, 0) if i < 3 else h
    out, _, _ = net.forward(params, state, x)
    np.testing.assert_allclose(out, h, rtol=1e-13)


def test_serial_in_serial_names_each_level():
    block = fn.serial(fn.affine(4), fn.relu())
    net = fn.serial(block, fn.relu(), block, fn.serial(fn.relu()), fn.affine(2))
    params, state, out_shape = net.init(key, (3,))
    assert shapes(params) == {
        "affine1/b": (2,),
        "affine1/w": (4, 2),
        "serial1/affine1/b": (4,),
        "serial1/affine1/w": (3, 4),
        "serial2/affine1/b": (4,),
        "serial2/affine1/w": (4, 4),
    }
    assert out_shape == (2,)
    assert state == fn.FrozenDict()


def test_a_nested_net_has_the_same_loss_and_gradients(rng, x64):
    flat = fn.serial(fn.affine(5), fn.relu(), fn.affine(4), fn.relu(), fn.affine(3))
    nested = fn.serial(
        fn.serial(fn.affine(5), fn.relu()),
        fn.serial(fn.affine(4), fn.serial(fn.relu())),
        fn.affine(3),
    )
    params, state, _ = flat.init(key, (6,))
    params = random_params(params, rng)
    twin = fn.FrozenDict(
        serial1={"affine1": params["affine1"]},
        serial2={"affine1": params["affine2"]},
        affine1=params["affine3"],
    )
    x, y = batch(rng, 4, (6,), 3)
    loss, grads, _ = loss_and_grads(flat, params, state, x, y, reg=0.3)
    twin_loss, twin_grads, _ = loss_and_grads(nested, twin, state, x, y, reg=0.3)
    np.testing.assert_allclose(loss, twin_loss, rtol=1e-15)
    assert jax.tree.structure(twin_grads) == jax.tree.structure(twin)
    for got, name in (
        (twin_grads["serial1"]["affine1"], "affine1"),
        (twin_grads["serial2"]["affine1"], "affine2"),
        (twin_grads["affine1"], "affine3"),
    ):
        assert fn.scaled_error(got, grads[name]) <= 1e-14


def test_a_residual_adds_its_input(rng, x64):
    branch = fn.serial(fn.affine(4), fn.tanh(), fn.affine(5))
    block = fn.residual(fn.affine(4), fn.tanh(), fn.affine(5))
    params, state, out_shape = block.init(key, (5,))
    assert out_shape == (5,)
    assert params == branch.init(key, (5,))[0]
    params = random_params(params, rng)
    x, dout = jnp.asarray(rng.normal(size=(2, 3, 5)))
    out, cache, _ = block.forward(params, state, x)
    branch_out, branch_cache, _ = branch.forward(params, state, x)
    np.testing.assert_array_equal(out, x + branch_out)
    dx, grads = block.backward(dout, cache)
    branch_dx, branch_grads = branch.backward(dout, branch_cache)
    np.testing.assert_array_equal(dx, dout + branch_dx)
    assert grads == branch_grads


def test_a_residual_of_weight_scale_0_starts_as_the_identity(rng):
    block = fn.residual(fn.affine(4), fn.relu(), fn.affine(5, weight_scale=0))
    params, state, _ = block.init(key, (5,))
    x, dout = jnp.asarray(rng.normal(size=(2, 3, 5)), "float32")
    out, cache, _ = block.forward(params, state, x)
    np.testing.assert_array_equal(out, x)
    dx, grads = block.backward(dout, cache)
    np.testing.assert_array_equal(dx, dout)
    assert np.any(grads["affine2"]["w"])


def test_residuals_are_numbered_and_nested():
    inner = fn.residual(fn.batchnorm(), fn.affine(4))
    net = fn.serial(fn.affine(4), fn.residual(inner, fn.relu(), inner), inner, fn.affine(2))
    params, state, out_shape = net.init(key, (3,))
    layers = ["residual1/residual1", "residual1/residual2", "residual2"]
    expected = {"affine1/b": (4,), "affine1/w": (3, 4), "affine2/b": (2,), "affine2/w": (4, 2)}
    for name in layers:
        expected |= {f"{name}/affine1/b": (4,), f"{name}/affine1/w": (4, 4)}
        expected |= {f"{name}/batchnorm1/{leaf}": (4,) for leaf in ("gamma", "beta")}
    assert shapes(params) == expected
    assert shapes(state) == {
        f"{name}/batchnorm1/{leaf}": (4,) for name in layers for leaf in ("mean", "var")
    }
    assert out_shape == (2,)


def test_the_state_inside_a_residual_is_updated(rng, x64):
    net = fn.serial(fn.affine(4), fn.residual(fn.batchnorm(momentum=0.6), fn.affine(4)))
    params, state, _ = net.init(key, (3,))
    x = rng.normal(size=(5, 3))
    h = x @ np.asarray(params["affine1"]["w"])
    _, _, new = net.forward(params, state, x, train=True)
    running = new["residual1"]["batchnorm1"]
    np.testing.assert_allclose(running["mean"], 0.4 * h.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(running["var"], 0.6 + 0.4 * h.var(axis=0), rtol=1e-12)
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_a_residual_must_keep_the_shape():
    block = fn.residual(fn.affine(5), fn.relu(), fn.affine(4))
    text = re.escape("residual: its layers must keep the shape [5], but they give [4]")
    with pytest.raises(ValueError, match=text):
        block.init(key, (5,))
    net = fn.serial(fn.affine(5), block)
    with pytest.raises(ValueError, match=text):
        net.init(key, (3,))
    with pytest.raises(ValueError, match=re.escape("keep the shape [2, 3]")):
        fn.residual(fn.affine(6)).init(key, (2, 3))
    params, _, _ = fn.serial(fn.affine(5), fn.serial(fn.affine(5), fn.affine(4))).init(key, (3,))
    params = {"affine1": params["affine1"], "residual1": params["serial1"]}
    with pytest.raises(ValueError, match=text) as caught:
        net.forward(params, {}, np.ones((2, 3), "f"))
    assert caught.value.__notes__ == ["in layer residual1"]
    with pytest.raises(TypeError, match="serial takes layers"):
        fn.residual(fn.affine)


def test_an_empty_serial_is_the_identity(rng):
    net = fn.serial()
    params, state, out_shape = net.init(key, (2, 3))
    assert out_shape == (2, 3)
    assert params == state == fn.FrozenDict()
    x = jnp.asarray(rng.normal(size=(4, 2, 3)))
    out, cache, _ = net.forward(params, state, x)
    dx, grads = net.backward(out, cache)
    assert out is dx is x
    assert grads == fn.FrozenDict()


def test_caches_pass_between_compiled_functions(rng, x64):
    net, params, state, x, _ = small(rng)
    dout = jnp.asarray(rng.normal(size=(2, 3)))
    _, cache, _ = jax.jit(net.forward)(params, state, x)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(cache))
    dx, grads = jax.jit(net.backward)(dout, cache)
    _, vjp = jax.vjp(jax.jit(lambda p, x: net.forward(p, state, x)[0]), params, x)
    assert fn.scaled_error((grads, dx), vjp(dout)) <= 1e-14


# Initial values


def test_init_is_he_and_biases_are_zero():
    params, _, _ = fn.mlp([300, 200], 100).init(key, (20, 20))
    for name, fan_in in (("affine1", 400), ("affine2", 300), ("affine3", 200)):
        w = np.asarray(params[name]["w"], np.float64)
        spread = math.sqrt(2 / fan_in)
        # Five standard errors of a mean and of a standard deviation.
        assert abs(w.mean()) < 5 * spread / math.sqrt(w.size)
        assert abs(w.std() / spread - 1) < 5 / math.sqrt(2 * w.size)
        assert abs((np.abs(w) < spread).mean() - 0.6827) < 0.02  # a normal distribution
        assert not np.any(params[name]["b"])


def test_init_with_a_weight_scale():
    params, _, _ = fn.mlp([300], 200, weight_scale=5e-2).init(key, (400,))
    for layer in params.values():
        assert abs(np.std(layer["w"]) / 5e-2 - 1) < 5 / math.sqrt(2 * layer["w"].size)
        assert not np.any(layer["b"])
    zeros, _, _ = fn.mlp([3], 2, weight_scale=0).init(key, (4,))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))


SCALES = {
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    None: lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    "glorot": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
    0.3: lambda fan_in, fan_out: 0.3,
    0: lambda fan_in, fan_out: 0,
}


@pytest.mark.parametrize("scale", SCALES)
def test_scales_of_the_initial_weights(scale):
    params, _, _ = fn.mlp([300], 100, weight_scale=scale).init(key, (20, 10))
    for name, fan_in, fan_out in (("affine1", 200, 300), ("affine2", 300, 100)):
        w, spread = np.asarray(params[name]["w"], np.float64), SCALES[scale](fan_in, fan_out)
        assert abs(w.std() - spread) <= 5 * spread / math.sqrt(2 * w.size)
        assert abs(w.mean()) <= 5 * spread / math.sqrt(w.size)
        assert not np.any(params[name]["b"])


def test_init_is_a_function_of_the_key():
    net = fn.mlp([4, 4], 4)
    a, _, _ = net.init(jax.random.key(1), (4,))
    assert a == net.init(jax.random.key(1), (4,))[0]
    assert a != net.init(jax.random.key(2), (4,))[0]
    w = [np.asarray(layer["w"]) for layer in a.values()]
    assert not any(np.allclose(p, q) for p, q in itertools.combinations(w, 2))


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_init_draws_the_default_float_type(wide):
    with jax.enable_x64(wide):
        params, _, _ = fn.mlp([3], 2, weight_scale=0.1).init(jax.random.key(0), (4,))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.result_type(float)}


def test_a_traced_weight_scale():
    def init(key, scale):
        return fn.mlp([7], 3, weight_scale=scale).init(key, (5,))[0]

    expected = init(key, 0.25)
    got = jax.jit(init)(key, 0.25)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    np.testing.assert_allclose(got["affine1"]["w"], expected["affine1"]["w"], rtol=1e-6)
    swept = jax.vmap(init, in_axes=(None, 0))(key, jnp.array([0.5, 0.25]))
    np.testing.assert_allclose(swept["affine2"]["w"][1], expected["affine2"]["w"], rtol=1e-6)
    np.testing.assert_allclose(swept["affine2"]["w"][0], 2 * expected["affine2"]["w"], rtol=1e-6)


# The tree structure of gradients

KINDS = {
    "FrozenDict": lambda p: p,
    "dict": fn.unfreeze,
    "FrozenDicts in a dict": dict,
    "dicts in a FrozenDict": lambda p: fn.FrozenDict.shallow(p.unfreeze()),
    "one of each": lambda p: {**p, "affine2": dict(p["affine2"])},
    "OrderedDict": lambda p: OrderedDict((name, p[name]) for name in reversed(list(p))),
    "NumPy leaves": lambda p: jax.tree.map(np.asarray, p.unfreeze()),
}


@pytest.mark.parametrize("reg", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_grads_have_the_tree_structure_of_params(kind, reg, rng, x64):
    net, frozen, state, x, y = small(rng)
    params = KINDS[kind](frozen)
    loss, grads, _ = fn.loss_and_grads(net, params, state, x, y, reg=reg)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    expected_loss, expected, _ = fn.loss_and_grads(net, frozen, state, x, y, reg=reg)
    assert loss == expected_loss
    for name, layer in expected.items():
        np.testing.assert_array_equal(grads[name]["w"], layer["w"])
        np.testing.assert_array_equal(grads[name]["b"], layer["b"])
    # Compiled, and mapped over with the parameters: what an optimizer does.
    compiled = loss_and_grads(net, params, state, x, y, reg=reg)[1]
    sums = jax.tree.map(jnp.add, params, compiled)
    assert fn.scaled_error(sums, jax.tree.map(jnp.add, params, grads)) <= 1e-14


ALONE = [
    fn.affine(3),
    *(make() for make in (*ACTIVATIONS.values(), *NORMALIZATIONS.values())),
    fn.parametric("prelu"),
    fn.parametric("selu", rate=0.1),
    fn.dropout(0.5),
    fn.serial(),
    fn.residual(fn.affine(3)),
]


@pytest.mark.parametrize("make", [dict, fn.FrozenDict], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("layer", ALONE, ids=lambda n: n.kind)
def test_a_layer_alone_is_a_net(layer, make, rng):
    params, state, _ = layer.init(key, (3,))
    params, state = make(params), make(state)
    x, y = batch(rng, 2, (3,), 3)
    _, grads, new_state = loss_and_grads(layer, params, state, x.astype("f"), y, key=key)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert type(grads) is type(new_state) is make


def test_a_plain_state_stays_plain(rng):
    net, params, _, x, y = small(rng)
    for state in ({}, fn.FrozenDict()):
        assert type(fn.loss_and_grads(net, params, state, x, y)[2]) is type(state)


# State, keys and traced numbers


def normalized(rng, kind=lambda tree: tree):
    """A net with batch norm, its random parameters, other statistics than 0 and 1, a batch."""
    net = fn.mlp([4, 3], 3, normalization="batchnorm")
    params, state, _ = net.init(key, (5,))
    state = jax.tree.map(lambda leaf: leaf + rng.uniform(size=leaf.shape), state)
    return net, random_params(params, rng), kind(state), *batch(rng, 6, (5,), 3)


STATE_KINDS = {name: KINDS[name] for name in KINDS if name != "one of each"}


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("kind", STATE_KINDS)
def test_state_moves_in_training_only_and_keeps_its_structure(kind, rng, x64):
    net, params, state, x, y = normalized(rng, STATE_KINDS[kind])
    _, _, trained = loss_and_grads(net, params, state, x, y, train=True)
    _, _, evaluated = loss_and_grads(net, params, state, x, y, train=False)
    for new in (trained, evaluated):
        assert jax.tree.structure(new) == jax.tree.structure(state)
    for old, new, same in zip(*map(jax.tree.leaves, (state, trained, evaluated)), strict=True):
        assert np.all(np.asarray(old) != new)
        np.testing.assert_array_equal(old, same)
    h = x @ np.asarray(params["affine1"]["w"]) + np.asarray(params["affine1"]["b"])
    mean = 0.9 * state["batchnorm1"]["mean"] + 0.1 * h.mean(axis=0)
    np.testing.assert_allclose(trained["batchnorm1"]["mean"], mean, rtol=1e-12)


@pytest.mark.usefixtures("unoptimized")
def test_evaluation_with_batchnorm_is_example_by_example(rng, x64):
    net, params, state, x, _ = normalized(rng)
    forward = jax.jit(partial(net.forward, train=False))
    out, _, _ = forward(params, state, x)
    alone = [forward(params, state, x[i : i + 1])[0][0] for i in range(len(x))]
    np.testing.assert_allclose(out, alone, rtol=1e-13)
    with pytest.raises(ValueError, match="a batch of one example") as caught:
        net.forward(params, state, x[:1], train=True)
    assert caught.value.__notes__ == ["in layer batchnorm1"]


def test_a_state_without_statistics_names_the_layer(rng):
    net, params, state, x, y = normalized(rng)
    with pytest.raises(ValueError, match="running must have mean and var") as caught:
        fn.loss_and_grads(net, params, state.without("batchnorm2"), x, y)
    assert caught.value.__notes__ == ["in layer batchnorm2"]
    with pytest.raises(ValueError, match="params must have gamma and beta") as caught:
        fn.loss_and_grads(net, params.without("batchnorm1"), state, x, y)
    assert caught.value.__notes__ == ["in layer batchnorm1"]


def test_dropout_in_training_without_a_key_names_the_layer():
    net = fn.serial(fn.serial(fn.affine(4), fn.dropout(0.5)), fn.dropout(0.5))
    params, state, _ = net.init(key, (3,))
    x = np.ones((2, 3), "f")
    for call in (net.forward, jax.jit(net.forward)):
        with pytest.raises(ValueError, match="dropout: training needs a random key") as caught:
            call(params, state, x)
        notes = [note for note in caught.value.__notes__ if note.startswith("in layer")]
        assert notes == ["in layer dropout1", "in layer serial1"]
    out, _, _ = net.forward(params, state, x, train=False)
    np.testing.assert_array_equal(out, net.forward(params, state, x, key=key, train=False)[0])


def test_dropout_by_a_schedule_counts_its_passes_in_training(rng):
    schedule = fn.complement(fn.flat_cosine(0.8, 4))
    layer = fn.dropout(schedule)
    assert layer == fn.dropout(fn.complement(fn.flat_cosine(0.8, 4))) != fn.dropout(0.2)
    params, state, _ = layer.init(key, (50,))
    assert state == fn.FrozenDict(step=jnp.int32(0))
    x, forward = jnp.ones((40, 50)), jax.jit(layer.forward, static_argnames="train")
    for step, kept in enumerate((0.2, 0.2, 0.2, 0.6, 1, 1)):
        for kind in (dict, fn.FrozenDict):
            assert state["step"] == step
            out, cache, after = forward(params, kind(state), x, key=key, train=True)
            assert type(after) is kind
            expected, _ = fn.dropout_forward(x, key, float(schedule(step)), train=True)
            np.testing.assert_array_equal(out, expected)
            assert abs(np.mean(np.asarray(out) != 0) - kept) < 5 * 0.5 / np.sqrt(2000)
            np.testing.assert_array_equal(layer.backward(x, cache)[0], out)
            same, _, stays = forward(params, state, x, key=key, train=False)
            np.testing.assert_array_equal(same, x)
            assert stays["step"] == step
        state = after
    assert state["step"].dtype == jnp.int32
    with pytest.raises(ValueError, match="dropout: of a schedule the state must have step"):
        layer.forward({}, {}, x, key=key)


def test_dropout_by_a_schedule_inside_nets(rng, x64):
    schedule = fn.complement(0.4)
    net = fn.mlp([5, 4], 3, keep_prob=schedule, input_keep_prob=schedule)
    fixed = fn.mlp([5, 4], 3, keep_prob=0.6, input_keep_prob=0.6)
    params, state, _ = net.init(key, (4,))
    assert shapes(state) == {f"dropout{i}/step": () for i in (1, 2, 3)}
    x, y = batch(rng, 6, (4,), 3)
    loss, grads, after = loss_and_grads(net, params, state, x, y, key=key)
    expected_loss, expected, _ = loss_and_grads(fixed, params, {}, x, y, key=key)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-13)
    assert fn.scaled_error(grads, expected) <= 1e-13
    assert {int(leaf) for leaf in jax.tree.leaves(after)} == {1}
    stack = fn.stacked(net, 2)
    _, state, _ = stack.init(key, (4,))
    assert shapes(state)["dropout1/step"] == (2,)


def test_each_dropout_layer_has_a_key_of_its_own():
    net = fn.serial(fn.dropout(0.5), fn.serial(fn.dropout(0.5)), fn.residual(fn.dropout(0.5)))
    masks = []
    for child, child_key in enumerate(jax.random.split(key, 3)):
        alone = [fn.dropout(0.5), fn.serial(fn.dropout(0.5)), fn.residual(fn.dropout(0.5))][child]
        masks.append(alone.forward({}, {}, jnp.ones((4, 8)), key=child_key)[0])
    out, _, _ = net.forward({}, {}, jnp.ones((4, 8)), key=key)
    np.testing.assert_array_equal(out, masks[0] * masks[1] * masks[2])
    zeros = [np.asarray(masks[0]) == 0, np.asarray(masks[1]) == 0, np.asarray(masks[2]) == 1]
    assert not any(np.array_equal(p, q) for p, q in itertools.combinations(zeros, 2))


@pytest.mark.usefixtures("unoptimized")
def test_traced_keep_probs_eps_and_momentum(rng, x64):
    x, y = batch(rng, 6, (5,), 3)

    def run(keep_prob, eps, momentum, slope):
        net = fn.serial(
            fn.dropout(keep_prob),
            fn.affine(4),
            fn.batchnorm(momentum=momentum, eps=eps),
            fn.leaky_relu(slope),
            fn.layernorm(eps=eps),
            fn.affine(3),
        )
        params, state, _ = net.init(jax.random.key(1), (5,))
        return fn.loss_and_grads(net, params, state, x, y, key=key)

    settings = np.array([[0.5, 0.1, 0.9, 0.3], [0.8, 1e-3, 0.2, 0.01]])
    swept = jax.jit(jax.vmap(run))(*settings.T)
    for i, setting in enumerate(settings):
        expected = run(*map(float, setting))
        assert fn.scaled_error(jax.tree.map(lambda v, i=i: v[i], swept), expected) <= 1e-12


def test_a_net_of_mixed_precision_trains_in_float32(rng):
    # Smooth: rounding switches a ReLU on or off, and the gradient jumps.
    net = fn.mlp([30], 3, activation="tanh", matmul_dtype=jnp.bfloat16)
    full = fn.mlp([30], 3, activation="tanh")
    params, state, _ = net.init(key, (20,))
    x, y = batch(rng, 40, (20,), 3)
    first, grads, _ = loss_and_grads(net, params, state, x, y)
    exact, exact_grads, _ = loss_and_grads(full, params, state, x, y)
    assert first.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {np.dtype("float32")}
    assert 1e-6 < abs(first / exact - 1) < 1e-2
    assert 1e-4 < fn.scaled_error(grads, exact_grads) < 3e-2
    for _ in range(60):
        last, grads, state = loss_and_grads(net, params, state, x, y)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)
    assert last < 0.2 * first
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


# Loss and gradients


@pytest.mark.slow
def test_the_initial_loss_of_the_assignment(x64):
    np.random.seed(231)
    x = np.random.randn(2, 15)
    y = np.random.randint(10, size=(2,))
    net = fn.mlp([20, 30], 10)
    expected = {0: 2.3004790897684924, 3.14: 7.052114776533016}
    autodiff = jax.jit(lambda p, reg: jax.grad(fn.loss, argnums=1)(net, p, {}, x, y, reg=reg))
    for reg, value in expected.items():
        params = {
            f"affine{i}": {"w": 5e-2 * np.random.randn(*dims), "b": np.zeros(dims[1])}
            for i, dims in enumerate([(15, 20), (20, 30), (30, 10)], start=1)
        }
        loss, grads, _ = loss_and_grads(net, params, {}, x, y, reg=reg)
        assert abs(loss - value) <= 1e-12
        assert fn.scaled_error(grads, autodiff(params, reg)) <= 1e-12
        # As one vector, for a single compile.
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        numerical = unravel(
            fn.numerical_gradient(
                lambda v, unravel=unravel, reg=reg: fn.loss(net, unravel(v), {}, x, y, reg=reg),
                flat,
            )
        )
        assert fn.scaled_error(grads, numerical) <= 1e-7
        for name, error in fn.relative_error(grads, numerical).leaves.items():
            # The assignment says so: its formula divides tiny by tiny on one leaf.
            assert error <= (1e-4 if (name, reg) == ("affine2/w", 0) else 1e-6), name


def test_loss_is_the_loss_of_loss_and_grads(rng, x64):
    net, params, state, x, y = small(rng)
    for options in ({}, {"reg": 0.7}, {"loss_fn": fn.svm_loss}, {"train": False}):
        value = fn.loss(net, params, state, x, y, **options)
        assert value == fn.loss_and_grads(net, params, state, x, y, **options)[0]
        assert value.shape == ()


def test_reg_adds_half_the_squares(rng, x64):
    net, params, state, x, y = small(rng)
    base, grads, _ = fn.loss_and_grads(net, params, state, x, y)
    loss, more, _ = fn.loss_and_grads(net, params, state, x, y, reg=0.6)
    w = [np.asarray(layer["w"]) for layer in params.values()]
    np.testing.assert_allclose(loss - base, 0.3 * sum((a**2).sum() for a in w), rtol=1e-13)
    np.testing.assert_allclose(more["affine1"]["w"] - grads["affine1"]["w"], 0.6 * w[0], rtol=1e-12)
    np.testing.assert_array_equal(more["affine1"]["b"], grads["affine1"]["b"])


def test_reg_leaves_gamma_and_beta_alone(rng, x64):
    net, params, state, x, y = normalized(rng)
    _, grads, _ = loss_and_grads(net, params, state, x, y, reg=0.0)
    _, more, _ = loss_and_grads(net, params, state, x, y, reg=0.6)
    for name, layer in params.items():
        for leaf, value in layer.items():
            added = 0.6 * value if leaf == "w" else 0 * value
            np.testing.assert_allclose(more[name][leaf] - grads[name][leaf], added, atol=1e-13)


def test_the_net_is_a_static_argument_and_compiling_changes_nothing(rng, x64):
    net, params, state, x, y = small(rng)
    assert hash(net) == hash(net)
    assert {net: 1}[net] == 1
    traces = []

    @partial(jax.jit, static_argnums=0)
    def step(net, params, x, reg):
        traces.append(net.kind)
        return fn.loss_and_grads(net, params, state, x, y, reg=reg)[:2]

    for reg in (0.0, 0.3):
        expected = fn.loss_and_grads(net, params, state, x, y, reg=reg)[:2]
        assert fn.scaled_error(step(net, params, x, reg), expected) <= 1e-14
    assert traces == ["serial"]


def test_reg_sweeps_under_vmap(rng, x64):
    net, params, state, x, y = small(rng)
    rates = jnp.array([0.0, 0.1, 2.0])
    sweep = jax.jit(jax.vmap(lambda reg: fn.loss_and_grads(net, params, state, x, y, reg=reg)))
    losses, grads, _ = sweep(rates)
    for i, reg in enumerate(rates):
        loss, expected, _ = loss_and_grads(net, params, state, x, y, reg=float(reg))
        np.testing.assert_allclose(losses[i], loss, rtol=1e-14)
        assert fn.scaled_error(jax.tree.map(lambda g, i=i: g[i], grads), expected) <= 1e-14


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_inputs_are_cast_to_the_dtype_of_the_parameters(dtype, rng, x64):
    net = fn.mlp([4], 3)
    params, state, _ = net.init(key, (2, 3))
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    y = np.array([0, 2, 1, 1])
    pixels = rng.integers(0, 256, size=(4, 2, 3))
    for x in (pixels.astype("uint8"), pixels.astype("float32"), pixels.astype("float64")):
        loss, grads, _ = loss_and_grads(net, params, state, x, y, reg=0.1)
        assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
        assert loss.dtype == ("float64" if dtype == "float64" else "float32")


# Many random nets


def random_net(rng):
    """Depth 1 to 6, sizes 1 to 7, inputs of rank 2 to 4, either loss."""
    hidden = [int(d) for d in rng.integers(1, 8, size=rng.integers(0, 6))]
    in_shape = tuple(int(d) for d in rng.integers(1, 5, size=rng.integers(1, 4)))
    n, classes = int(rng.integers(1, 7)), int(rng.integers(1, 7))
    loss_fn = fn.softmax_loss if rng.random() < 0.5 else fn.svm_loss
    return hidden, in_shape, n, classes, loss_fn


def disturb(params, kind, rng):
    """Zero biases, or a layer of units that never fire."""
    for name, layer in params.items():
        if kind == "zero biases":
            params = params.set((name, "b"), jnp.zeros_like(layer["b"]))
    if kind == "dead layer" and len(params) > 1:
        name = f"affine{rng.integers(1, len(params))}"
        params = params.set((name, "b"), params[name]["b"] - 1e3)
    if kind == "dead units":
        b = params["affine1"]["b"]
        params = params.set(("affine1", "b"), b.at[0].set(-1e3))
    return params


def by_hand_and_by_autodiff(net, loss_fn, train, key=None):
    """One compiled function for both, in float64 and in float32."""

    @jax.jit
    def both(params, state, x, y, reg):
        options = {"reg": reg, "loss_fn": loss_fn, "train": train, "key": key}
        results = []
        for dtype in (jnp.float64, jnp.float32):
            p, s = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), (params, state))
            _, grads, _ = fn.loss_and_grads(net, p, s, x, y, **options)
            auto = jax.grad(fn.loss, argnums=1)(net, p, s, x, y, **options)
            results.append((grads, auto))
        return results

    return both


def check_both(results, params, tols, where):
    for (grads, auto), tol in zip(results, tols, strict=True):
        error = fn.scaled_error(grads, auto)
        assert error <= tol, f"{where}: {error.leaf}{error.index}"
        assert jax.tree.structure(grads) == jax.tree.structure(params)


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("seed", slow_but(range(8), 0, 1, 2))
def test_random_mlps_by_hand_and_by_autodiff(seed, x64):
    rng = np.random.default_rng(seed)
    hidden, in_shape, n, classes, loss_fn = random_net(rng)
    if seed < 6:  # every depth
        hidden = [4, 3, 1, 5, 2][:seed]
    net = fn.mlp(hidden, classes)
    fresh, state, _ = net.init(jax.random.key(seed), in_shape)
    both = by_hand_and_by_autodiff(net, loss_fn, train=True)
    for i, kind in enumerate(5 * ["plain", "zero biases", "dead layer", "dead units"]):
        params = disturb(random_params(fresh, rng, scale=rng.choice([0.3, 1.0, 2.0])), kind, rng)
        x, y = batch(rng, n, in_shape, classes)
        reg = 0.0 if i % 3 == 0 else float(10 ** rng.uniform(-4, 1))
        where = f"{hidden}, {in_shape}, {kind}, reg {reg}"
        check_both(both(params, state, x, y, reg), params, (1e-12, 1e-5), where)


BETWEEN = [
    *ACTIVATIONS.values(),
    partial(fn.leaky_relu, 0.4),
    partial(fn.parametric, "mish", rate=0.3),
    partial(fn.parametric, "prelu"),
]


def random_layers(rng, shape, length, eps, levels=2):
    """Layers of all kinds in any order, blocks in blocks, and the shape of what they give."""
    layers = []
    kinds = ["affine", "activation", *NORMALIZATIONS, "dropout"]
    for kind in rng.choice(kinds + 2 * ["residual"] * (levels > 0), size=length):
        if kind == "affine":
            shape = (int(rng.integers(4, 7)),)
            layers.append(fn.affine(shape[0]))
        elif kind == "activation":
            layers.append(BETWEEN[rng.integers(len(BETWEEN))]())
        elif kind == "residual":
            branch, out_shape = random_layers(rng, shape, rng.integers(1, 4), eps, levels - 1)
            if len(shape) == 1:
                branch.append(fn.affine(shape[0]))
                layers.append(fn.residual(*branch))
            else:
                layers.append(fn.serial(*branch))
                shape = out_shape
        elif kind == "dropout":
            layers.append(fn.dropout(0.8))
        else:
            layers.append(NORMALIZATIONS[kind](eps=eps))
    return layers, shape


def by_an_ulp(x, rng):
    """x with each element moved by about the last of its digits."""
    return x * (1 + np.finfo(np.float64).eps * rng.choice([-1, 1], size=x.shape))


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("seed", slow_but(range(52), *range(10)))
def test_random_nets_by_hand_and_by_autodiff(seed, x64):
    rng = np.random.default_rng(seed)
    in_shape = [(5,), (2, 3), (2, 1, 3)][seed % 3]
    n, classes = int(rng.integers(4, 8)), int(rng.integers(2, 6))
    # Where a variance is all but 0, or a normalization leaves but signs, a gradient is a difference
    # of nearly equal large numbers; a large eps prevents that, the usual one does not.
    eps = 1e-5 if seed % 4 == 2 else 0.1
    layers, _ = random_layers(rng, in_shape, rng.integers(2, 5), eps)
    net = fn.serial(*layers, fn.affine(classes))
    train, loss_fn = seed % 4 > 0, (fn.softmax_loss, fn.svm_loss)[seed % 2]
    labels = rng.choice(["int8", "uint8", "int32", "int64"])
    fresh, state, _ = net.init(jax.random.key(seed), in_shape)
    both = by_hand_and_by_autodiff(net, loss_fn, train, jax.random.key(seed))
    for i in range(6):
        params = random_params(fresh, rng, scale=rng.choice([0.5, 1.0]))
        state = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.3, 3, leaf.shape)), state)
        x, y = batch(rng, n, in_shape, classes)
        reg = 0.0 if i % 3 == 0 else float(10 ** rng.uniform(-4, 1))
        where = f"{names(params)}, {in_shape}, reg {reg}"
        wide, narrow = both(params, state, x, y.astype(labels), reg)
        moved, _ = both(params, state, by_an_ulp(x, rng), y.astype(labels), reg)
        blur = float(fn.scaled_error(wide[0], moved[0])) if eps < 0.1 else 0.0
        check_both([wide], params, [max(1e-11, 30 * blur)], where)
        if eps < 0.1:
            continue
        # In float32 a leaf that a later normalization cancels holds nothing but the rounding of
        # the others, so it is measured by the whole tree; the others lose digits where it nearly
        # does.
        exact = [np.abs(leaf).max() for leaf in jax.tree.leaves(wide[1])]
        for name, size, g, a in zip(
            names(params), exact, *map(jax.tree.leaves, narrow), strict=True
        ):
            scale = max(exact) if size <= 1e-10 * max(exact) else max(size, 1e-3 * max(exact))
            assert np.abs(g - a).max() <= 1e-4 * scale, f"{where}: {name}"
            assert g.dtype == np.float32


def test_a_dead_layer_stops_all_gradients_behind_it(rng, x64):
    net = fn.mlp([4, 5, 3], 2)
    params, state, _ = net.init(key, (6,))
    params = random_params(params, rng).set(("affine2", "b"), jnp.full(5, -1e3))
    x, y = batch(rng, 3, (6,), 2)
    _, grads, _ = loss_and_grads(net, params, state, x, y)
    for name in ("affine1/b", "affine1/w", "affine2/b", "affine2/w", "affine3/w"):
        layer, leaf = name.split("/")
        assert not np.any(grads[layer][leaf]), name
    assert np.any(grads["affine4"]["b"])


# Errors


def setup(net=None, in_shape=(2, 3)):
    net = net or fn.mlp([5], 4)
    params, state, _ = net.init(key, in_shape)
    return net, params, state, np.ones((3, *in_shape), "f"), np.zeros(3, int)


def test_params_without_a_layer():
    net, params, state, x, y = setup()
    with pytest.raises(ValueError, match=r"affine: params must have w and b, got \[\]") as caught:
        fn.loss_and_grads(net, params.without("affine2"), state, x, y)
    assert caught.value.__notes__ == ["in layer affine2"]


def test_params_without_a_leaf():
    net, params, state, x, y = setup()
    with pytest.raises(ValueError, match=r"must have w and b, got \['w'\]") as caught:
        fn.loss_and_grads(net, params.without(("affine1", "b")), state, x, y)
    assert caught.value.__notes__ == ["in layer affine1"]


def test_params_with_an_unknown_layer():
    net, params, state, x, y = setup()
    with pytest.raises(
        ValueError, match=r"unknown layer in params 'afine1': did you mean 'affine1'"
    ):
        fn.loss_and_grads(net, params.set("afine1", {}), state, x, y)
    with pytest.raises(ValueError, match="unknown layer in state 'batchnorm1'"):
        fn.loss_and_grads(net, params, {"batchnorm1": {}}, x, y)


def test_a_wrong_number_of_features_names_the_layer():
    net, params, state, x, y = setup()
    with pytest.raises(ValueError, match=r"w must be \[D, M\] with D = 3") as caught:
        fn.loss_and_grads(net, params, state, x[:, :1], y)
    assert caught.value.__notes__ == ["in layer affine1"]
    wrong = params.set(("affine2", "w"), jnp.ones((6, 4)))
    with pytest.raises(ValueError, match="D = 5") as caught:
        fn.loss(net, wrong, state, x, y)
    assert caught.value.__notes__ == ["in layer affine2"]


def test_errors_in_nested_layers_name_the_whole_path():
    block = fn.serial(fn.affine(4), fn.relu())
    net, params, state, x, y = setup(fn.serial(block, block, fn.affine(2)))
    wrong = params.set(("serial2", "affine1", "b"), jnp.ones(3))
    with pytest.raises(ValueError, match="b must be") as caught:
        fn.loss_and_grads(net, wrong, state, x, y)
    assert caught.value.__notes__ == ["in layer affine1", "in layer serial2"]


def test_errors_in_backward_name_the_layer():
    net, params, state, x, _ = setup()
    _, cache, _ = net.forward(params, state, x)
    with pytest.raises(ValueError, match="dout must have the shape of out") as caught:
        net.backward(np.ones((3, 5), "f"), cache)
    assert caught.value.__notes__ == ["in layer affine2"]


BAD_NETS = {
    "serial of a function": (lambda: fn.serial(fn.affine), TypeError, "serial takes layers"),
    "serial of a list": (lambda: fn.serial([fn.relu()]), TypeError, "serial takes layers"),
    "serial of a triple": (lambda: fn.serial(tuple(fn.relu())), TypeError, "serial takes layers"),
    "hidden_dims int": (lambda: fn.mlp(100, 10), TypeError, "hidden_dims must be a sequence"),
    "hidden_dims str": (lambda: fn.mlp("100", 10), TypeError, "hidden_dims must be a sequence"),
    "size 0": (lambda: fn.mlp([5, 0], 10), ValueError, "hidden_dims must be at least 1, got 0"),
    "size -3": (lambda: fn.mlp([-3], 10), ValueError, "must be at least 1, got -3"),
    "size 2.5": (lambda: fn.mlp([2.5], 10), TypeError, "must be an integer, got 2.5"),
    "size True": (lambda: fn.mlp([True], 10), TypeError, "must be an integer, got True"),
    "size None": (lambda: fn.mlp([None], 10), TypeError, "must be an integer, got None"),
    "no classes": (lambda: fn.mlp([5], 0), ValueError, "num_classes must be at least 1"),
    "classes 2.0": (lambda: fn.mlp([5], 2.0), TypeError, "num_classes must be an integer"),
    "affine 0": (lambda: fn.affine(0), ValueError, "dim must be at least 1"),
    "affine of a shape": (lambda: fn.affine((3,)), TypeError, "dim must be an integer"),
    "scale -1": (lambda: fn.mlp([5], 2, weight_scale=-1), ValueError, "weight_scale must be >= 0"),
    "scale nan": (lambda: fn.affine(5, weight_scale=np.nan), ValueError, "weight_scale must be"),
    "scale str": (
        lambda: fn.affine(5, weight_scale="hee"),
        ValueError,
        "unknown weight_scale 'hee': did you mean 'he'? known: glorot, he",
    ),
    "scale list": (lambda: fn.affine(5, weight_scale=[1]), TypeError, "must be a number"),
    "mlp scale": (lambda: fn.mlp([], 2, weight_scale="Glorot"), ValueError, "mean 'glorot'"),
    "normalization": (
        lambda: fn.mlp([5], 2, normalization="batch"),
        ValueError,
        "unknown normalization 'batch': did you mean 'batchnorm'? known: batchnorm, layernorm",
    ),
    "activation": (
        lambda: fn.mlp([5], 2, activation="leakyrelu"),
        ValueError,
        "unknown activation 'leakyrelu': did you mean 'leaky_relu'? "
        "known: gelu, gelu_tanh, leaky_relu, logistic, mish, prelu, relu, selu, tanh",
    ),
    "activation None": (lambda: fn.mlp([5], 2, activation=None), ValueError, "activation None"),
    "keep 0": (lambda: fn.mlp([5], 2, keep_prob=0), ValueError, "keep_prob must be > 0 and <= 1"),
    "keep 1.5": (lambda: fn.mlp([5], 2, keep_prob=1.5), ValueError, "and <= 1, got 1.5"),
    "keep nan": (lambda: fn.dropout(np.nan), ValueError, "keep_prob must be finite"),
    "keep str": (lambda: fn.dropout("half"), TypeError, "keep_prob must be a number"),
    "keep False": (lambda: fn.mlp([5], 2, keep_prob=False), TypeError, "must be a number"),
    "input keep 0": (
        lambda: fn.mlp([], 2, input_keep_prob=0),
        ValueError,
        "input_keep_prob must be > 0 and <= 1, got 0",
    ),
    "momentum": (lambda: fn.batchnorm(momentum=-0.1), ValueError, "momentum must be >= 0"),
    "batchnorm eps": (lambda: fn.batchnorm(eps=-1e-5), ValueError, "eps must be >= 0"),
    "layernorm eps": (lambda: fn.layernorm(eps="1e-5"), TypeError, "eps must be a number"),
    "prelu": (lambda: fn.prelu("a"), TypeError, "initial must be a number"),
    "parametric": (
        lambda: fn.parametric("selo"),
        ValueError,
        "unknown activation 'selo': did you mean 'selu'?",
    ),
    "parametric rate": (
        lambda: fn.parametric("selu", rate=0),
        ValueError,
        "the rate of a must be > 0, got 0",
    ),
    "slope": (lambda: fn.leaky_relu(np.inf), ValueError, "negative_slope must be finite"),
    "integer products": (
        lambda: fn.affine(5, matmul_dtype="int8"),
        TypeError,
        "matmul_dtype must be floating point, got int8",
    ),
}


@pytest.mark.parametrize("name", BAD_NETS)
def test_bad_nets(name):
    make, kind, text = BAD_NETS[name]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("in_shape", "kind"),
    [(5, TypeError), ((0,), ValueError), ((2, -1), ValueError), ((2.5,), TypeError)],
    ids=str,
)
@pytest.mark.parametrize("net", ALONE, ids=lambda n: n.kind)
def test_bad_input_shapes(net, in_shape, kind):
    with pytest.raises(kind, match="in_shape must be"):
        net.init(key, in_shape)


@pytest.mark.parametrize("reg", [-1.0, np.nan, np.inf])
def test_bad_reg(reg):
    net, params, state, x, y = setup()
    for f in (fn.loss, fn.loss_and_grads):
        with pytest.raises(ValueError, match=r"reg must be (finite and )?>= 0"):
            f(net, params, state, x, y, reg=reg)


def test_labels_that_do_not_fit():
    net, params, state, x, y = setup()
    with pytest.raises(ValueError, match="one label per row"):
        fn.loss_and_grads(net, params, state, x, y[:2])
    loss, _, _ = fn.loss_and_grads(net, params, state, x, y + 4)
    assert np.isnan(loss)


def test_layers_of_another_size_are_refused():
    params, state, _ = fn.mlp([5], 3).init(jax.random.key(0), (4,))
    x = np.ones((2, 4), np.float32)
    for other in (fn.mlp([6], 3), fn.mlp([5], 2)):
        with pytest.raises(ValueError, match=r"w must be \[D, \d\], for \d outputs"):
            other.forward(params, state, x)


@pytest.mark.parametrize("key", [0, None, np.zeros(3)])
def test_init_wants_a_key(key):
    for net in (fn.mlp([5], 3), fn.affine(3)):
        with pytest.raises(
            TypeError, match=r"key must be a random key, such as jax.random.key\(0\)"
        ):
            net.init(key, (4,))
