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

import funcnet as fn

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


@pytest.mark.parametrize("make", [dict, fn.FrozenDict], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("layer", [fn.affine(3), fn.relu(), fn.serial()], ids=lambda n: n.kind)
def test_a_layer_alone_is_a_net(layer, make, rng):
    params, state, _ = layer.init(key, (3,))
    params = make(params)
    x, y = batch(rng, 2, (3,), 3)
    _, grads, _ = loss_and_grads(layer, params, state, x.astype("f"), y)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert type(grads) is make


def test_a_plain_state_stays_plain(rng):
    net, params, _, x, y = small(rng)
    for state in ({}, fn.FrozenDict()):
        assert type(fn.loss_and_grads(net, params, state, x, y)[2]) is type(state)


# Loss and gradients


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


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("seed", range(12))
def test_random_nets_by_hand_and_by_autodiff(seed, x64):
    rng = np.random.default_rng(seed)
    hidden, in_shape, n, classes, loss_fn = random_net(rng)
    if seed < 6:  # every depth
        hidden = [4, 3, 1, 5, 2][:seed]
    net = fn.mlp(hidden, classes)
    fresh, state, _ = net.init(jax.random.key(seed), in_shape)

    @jax.jit
    def both(params, x, y, reg):
        options = {"reg": reg, "loss_fn": loss_fn}
        results = []
        for dtype in (jnp.float64, jnp.float32):
            p = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), params)
            _, grads, _ = fn.loss_and_grads(net, p, state, x, y, **options)
            auto = jax.grad(fn.loss, argnums=1)(net, p, state, x, y, **options)
            results.append((grads, auto))
        return results

    for i, kind in enumerate(5 * ["plain", "zero biases", "dead layer", "dead units"]):
        params = disturb(random_params(fresh, rng, scale=rng.choice([0.3, 1.0, 2.0])), kind, rng)
        x, y = batch(rng, n, in_shape, classes)
        reg = 0.0 if i % 3 == 0 else float(10 ** rng.uniform(-4, 1))
        wide, narrow = both(params, x, y, reg)
        where = f"{hidden}, {in_shape}, {kind}, reg {reg}"
        for (grads, auto), tol in ((wide, 1e-12), (narrow, 1e-5)):
            error = fn.scaled_error(grads, auto)
            assert error <= tol, f"{where}: {error.leaf}{error.index}"
            assert jax.tree.structure(grads) == jax.tree.structure(params)


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
    "scale str": (lambda: fn.affine(5, weight_scale="he"), TypeError, "must be a number"),
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
@pytest.mark.parametrize("net", [fn.mlp([3], 2), fn.relu(), fn.affine(2)], ids=lambda n: n.kind)
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
