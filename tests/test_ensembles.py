"""Ensembles: members that share weights, and nets side by side.

The passes of their layers as functions of arrays have rows in test_layers.py, their mistakes in
test_mutations.py.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn

key = jax.random.key(231)

# Nets of [N, 4], each of them checked whole: what they give, and the shape of it.
NETS = {
    "tabm": (lambda: fn.tabm([5, 3], 2, members=3, activation="mish"), (3, 2)),
    "tabm, mini": (lambda: fn.tabm([3], 2, members=3, mini=True, keep_prob=0.7), (3, 2)),
    "tabm, without hidden layers": (lambda: fn.tabm([], 2, members=3), (3, 2)),
    "batch ensemble in turn": (
        lambda: fn.serial(
            fn.batch_ensemble_affine(3, 2), fn.prelu(), fn.batch_ensemble_affine(2, 2)
        ),
        (2, 2),
    ),
    "ensemble": (
        lambda: fn.ensemble(
            fn.mlp([5], 3, normalization="batchnorm"),
            fn.affine(3),
            fn.mlp([2, 2], 3, keep_prob=0.7, activation="tanh"),
        ),
        (3, 3),
    ),
    "ensemble of ensembles": (
        lambda: fn.ensemble(fn.tabm([3], 2, members=2), fn.stacked(fn.affine(2), 2)),
        (2, 2, 2),
    ),
    "stacked": (
        lambda: fn.stacked(fn.mlp([5], 3, normalization="batchnorm", keep_prob=0.7), 3),
        (3, 3),
    ),
    "stacked, layernorm": (lambda: fn.stacked(fn.serial(fn.affine(3), fn.layernorm()), 2), (2, 3)),
}


def setup(name, dtype="float64"):
    """A net with an affine layer behind, random parameters and state, a batch, and the labels."""
    rng = np.random.default_rng(7)
    net = fn.serial(NETS[name][0](), fn.affine(3))
    params, state = jax.eval_shape(lambda key: net.init(key, (4,))[:2], key)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(dtype), params)
    state = jax.tree.map(lambda s: rng.uniform(0.3, 3, s.shape).astype(dtype), state)
    return net, params, state, rng.normal(size=(5, 4)), rng.integers(3, size=5)


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("name", slow_but(NETS, "tabm", "tabm, mini", "ensemble", "stacked"))
def test_gradients_by_hand_are_autodiffs_compiled_and_mapped(name, x64):
    net, params, state, x, y = setup(name)

    @jax.jit
    @jax.vmap
    def both(params):
        args, options = (params, state, x, y), {"reg": 0.3, "key": key}
        _, grads, _ = fn.loss_and_grads(net, *args, **options)
        return grads, jax.grad(lambda p: fn.loss(net, p, *args[1:], **options))(params)

    grads, auto = both(jax.tree.map(lambda p: np.stack([p, 0.5 * p + 0.1]), params))
    assert fn.scaled_error(grads, auto) <= 1e-11
    assert jax.tree.structure(grads) == jax.tree.structure(params)


@pytest.mark.parametrize("name", NETS)
def test_half_precision_and_plain_dicts_are_kept(name):
    net, params, state, x, y = setup(name, "bfloat16")
    plain = fn.unfreeze((params, state))
    run = partial(fn.loss_and_grads, net, x=x, y=y, key=key)
    for args in ((params, state), plain):
        _, *found = jax.eval_shape(lambda p, s: run(p, s), *args)
        assert jax.tree.structure(tuple(found)) == jax.tree.structure(args)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(found[0])} == {"bfloat16"}


@pytest.mark.parametrize("name", NETS)
def test_shapes(name):
    make, shape = NETS[name]

    def out(key):
        params, state, out_shape = make().init(key, (4,))
        assert out_shape == shape
        return make().forward(params, state, np.ones((5, 4), "f"), key=key)[0]

    assert jax.eval_shape(out, key).shape == (5, *shape)


def test_batch_ensembles_are_affine_layers_of_weights_times_r_and_s(rng, x64):
    layer = fn.batch_ensemble_affine(3, 2, weight_scale=0.5)
    params, _, _ = layer.init(key, (400,))
    assert set(np.unique(params["r"])) == set(np.unique(params["s"])) == {-1, 1}
    assert params["r"].dtype == params["w"].dtype
    assert abs(np.std(params["w"]) / 0.5 - 1) < 5 / np.sqrt(2 * 1200)
    assert not np.any(params["b"])
    x = rng.normal(size=(4, 400))
    out, _, _ = layer.forward(params, {}, x)
    for k in range(2):
        w = params["r"][k][:, None] * params["w"] * params["s"][k]
        np.testing.assert_allclose(out[:, k], x @ w, rtol=1e-10)


def test_initial_factors_of_tabm():
    net = fn.tabm([200, 6], 3, members=4)
    params, _, _ = net.init(key, (100,))
    first, second = params["batch_ensemble_affine1"], params["batch_ensemble_affine2"]
    assert abs(np.mean(first["r"])) < 5 / np.sqrt(400)
    assert set(np.unique(first["r"])) == {-1, 1}
    for factors in (first["s"], second["r"], second["s"]):
        np.testing.assert_array_equal(factors, 1)
    he = {"batch_ensemble_affine1": 100, "batch_ensemble_affine2": 200, "member_affine1": 6}
    for name, fan_in in he.items():
        w = np.asarray(params[name]["w"])
        assert abs(np.std(w) / np.sqrt(2 / fan_in) - 1) < 5 / np.sqrt(2 * w.size)
    heads = np.asarray(params["member_affine1"]["w"])
    assert not np.allclose(heads[0], heads[1])
    normal, _, _ = fn.tabm([6], 3, members=4, mini=True, r_init="normal").init(key, (100,))
    assert abs(np.std(normal["member_scale1"]["r"]) - 1) < 5 / np.sqrt(800)
    ones, _, _ = fn.member_scale(4, r_init="ones").init(key, (5,))
    np.testing.assert_array_equal(ones["r"], np.ones((4, 5)))


def test_an_ensemble_is_its_nets_side_by_side(rng, x64):
    nets = fn.mlp([5], 3, normalization="batchnorm"), fn.affine(3), fn.mlp([2], 3)
    net = fn.ensemble(*nets)
    params, state, out_shape = net.init(key, (4,))
    assert out_shape == (3, 3)
    assert list(params) == ["affine1", "serial1", "serial2"]
    assert list(state) == ["serial1"]
    x, dout = rng.normal(size=(6, 4)), rng.normal(size=(6, 3, 3))
    out, cache, after = net.forward(params, state, x)
    dx, grads = net.backward(dout, cache)
    expected = 0
    for k, (name, child) in enumerate(zip(("serial1", "affine1", "serial2"), nets, strict=True)):
        alone = child.forward(params[name], state.get(name, {}), x)
        np.testing.assert_array_equal(out[:, k], alone[0])
        child_dx, child_grads = child.backward(jnp.asarray(dout[:, k]), alone[1])
        assert grads[name] == child_grads
        expected += child_dx
        if name in state:
            assert after[name] == alone[2]
    np.testing.assert_allclose(dx, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("train", slow_but([True, False], False))
def test_a_stack_is_an_ensemble_of_its_members(train, rng, x64):
    net = fn.mlp([3], 2, normalization="batchnorm", keep_prob=0.5)
    stack = fn.stacked(net, 3)
    params, state, out_shape = stack.init(key, (4,))
    assert out_shape == (3, 2)
    x, dout = rng.normal(size=(6, 4)), jnp.asarray(rng.normal(size=(6, 3, 2)))
    out, cache, after = stack.forward(params, state, x, key=key, train=train)
    dx, grads = stack.backward(dout, cache)
    expected = 0
    for k, member_key in enumerate(jax.random.split(key, 3)):
        own = partial(jax.tree.map, lambda leaf, k=k: leaf[k])
        if train:
            fresh, _, _ = net.init(member_key, (4,))
            assert own(params) == fresh
        alone = net.forward(own(params), own(state), x, key=member_key, train=train)
        np.testing.assert_allclose(out[:, k], alone[0], rtol=1e-12, atol=1e-14)
        member_dx, member_grads = net.backward(dout[:, k], alone[1])
        assert fn.scaled_error(own(grads), member_grads) <= 1e-12
        assert fn.scaled_error(own(after), alone[2]) <= 1e-12
        expected += member_dx
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-13)


def test_a_stack_of_a_net_without_parameters():
    stack = fn.stacked(fn.relu(), 3)
    assert stack.init(key, (4,)) == (fn.FrozenDict(), fn.FrozenDict(), (3, 4))
    x = jnp.asarray([[1.0, -1.0]])
    out, cache, _ = stack.forward({}, {}, x)
    np.testing.assert_array_equal(out, [[[1, 0]] * 3])
    np.testing.assert_array_equal(stack.backward(out, cache)[0], [[3, 0]])


INDEPENDENT = {
    "prelu": fn.prelu(),
    "dropout": fn.dropout(0.5),
    "batchnorm": fn.batchnorm(),
    "shared_affine": fn.shared_affine(3),
    "member_affine": fn.member_affine(3, 2),
    "layernorm": fn.layernorm(),
}


@pytest.mark.parametrize("name", slow_but(INDEPENDENT, "batchnorm", "layernorm"))
def test_members_are_independent_inside_layers(name, rng, x64):
    """What one member is given does not reach another; layer normalization is the exception."""
    x = rng.normal(size=(6, 2, 3))
    moved = x.copy()
    moved[:, 1] += rng.normal(size=(6, 3))
    layer = INDEPENDENT[name]
    params, state, _ = layer.init(key, (2, 3))
    outs = [layer.forward(params, state, v, key=key)[0] for v in (x, moved)]
    assert np.array_equal(outs[0][:, 0], outs[1][:, 0]) == (name != "layernorm")


@pytest.mark.slow
@pytest.mark.parametrize("mini", [False, True])
def test_tabm_learns(mini, rng):
    digits = fn.load_digits()
    net = fn.tabm([32], 10, members=4, mini=mini)

    x = digits.x_train.reshape(-1, 64) / 16
    optimizer = fn.adam(1e-2)
    params, state, _ = net.init(key, (64,))
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, x, y):
        value, grads, _ = fn.loss_and_grads(net, params, state, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return fn.apply_updates(params, updates), opt_state, value

    for _ in range(60):
        rows = rng.integers(len(x), size=200)
        params, opt_state, _ = step(params, opt_state, x[rows], digits.y_train[rows])
    scores, _, _ = net.forward(params, state, digits.x_val.reshape(-1, 64) / 16, train=False)
    mean = jax.nn.softmax(scores).mean(axis=1)
    assert fn.accuracy(digits.y_val, mean.argmax(axis=1)) > 0.9


# What is refused

MADE = {
    "members": (lambda: fn.member_scale(0), "members must be at least 1"),
    "members of tabm": (lambda: fn.tabm([3], 2, members=1.5), "members must be an integer"),
    "r_init": (lambda: fn.member_scale(2, r_init="sign"), "unknown r_init 'sign': did you mean"),
    "s_init": (lambda: fn.batch_ensemble_affine(2, 2, s_init="x"), "unknown s_init 'x'"),
    "r_init of tabm": (lambda: fn.tabm([], 2, r_init="x"), "unknown r_init 'x'"),
    "dim": (lambda: fn.member_affine(0, 2), "dim must be at least 1"),
    "shared dim": (lambda: fn.shared_affine(2.0), "dim must be an integer"),
    "weight_scale": (lambda: fn.shared_affine(2, weight_scale=-1), "weight_scale must be >= 0"),
    "hidden_dims": (lambda: fn.tabm(3, 2), "hidden_dims must be a sequence of sizes"),
    "activation": (lambda: fn.tabm([3], 2, activation="x"), "unknown activation 'x'"),
    "outputs": (lambda: fn.tabm([3], 0), "num_outputs must be at least 1"),
    "no nets": (lambda: fn.ensemble(), "ensemble takes one net or more"),
    "no layer": (lambda: fn.ensemble(fn.relu), "ensemble takes layers, such as affine(100)"),
    "stack of a function": (lambda: fn.stacked(fn.relu, 2), "stacked takes a net"),
    "stack of none": (lambda: fn.stacked(fn.relu(), 0), "members must be at least 1"),
}


@pytest.mark.parametrize("name", MADE)
def test_constructors_refuse(name):
    make, text = MADE[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(text)) as caught:
        make()
    assert "\n" not in str(caught.value)


SHAPES = {
    "member_scale": (fn.member_scale(2), (3, 4), "in_shape must be (D,) or (2, D), got [3, 4]"),
    "member_affine": (fn.member_affine(2, 3), (2, 3, 4), "in_shape must be (D,) or (3, D)"),
    "batch ensemble": (fn.batch_ensemble_affine(2, 3), (), "in_shape must be (D,) or (3, D)"),
    "shared_affine": (fn.shared_affine(2), (), "in_shape must be (..., D), got []"),
    "ensemble": (fn.ensemble(fn.affine(3), fn.affine(2)), (4,), "one shape, got [3] and [2]"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_input_shapes_are_refused(name):
    layer, in_shape, text = SHAPES[name]
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        layer.init(key, in_shape)
    assert str(caught.value).startswith(f"{layer.kind}: ")
    with pytest.raises(TypeError, match="in_shape must be"):
        layer.init(key, 5)


ones = partial(np.ones, dtype="f")
ARRAYS = {
    "member_scale": ((ones((3, 4)), ones(4)), "r must be [K, D], got [4]"),
    "member_scale, x": ((ones((3, 3, 4)), ones((2, 4))), "x must be [N, 4] or [N, 2, 4], got [3"),
    "member_affine": ((ones((3, 4)), ones((4, 2)), ones(2)), "w must be [K, D, M], got [4, 2]"),
    "member_affine, b": ((ones((3, 4)), ones((2, 4, 1)), ones(2)), "b must be [K, M] = [2, 1]"),
    "shared_affine": ((ones(4), ones((4, 2)), ones(2)), "x must be [N, ..., D], got [4]"),
    "shared_affine, w": ((ones((3, 2, 4)), ones((8, 2)), ones(2)), "w must be [D, M] with D = 4"),
    "batch_ensemble_affine": (
        (ones((3, 4)), ones(4), ones((2, 4)), ones((2, 1)), ones((2, 1))),
        "w must be [D, M] and r [K, D], got [4] and [2, 4]",
    ),
    "batch_ensemble_affine, s": (
        (ones((3, 4)), ones((4, 5)), ones((2, 4)), ones((2, 4)), ones((2, 5))),
        "s must be [K, M] = [2, 5], got [2, 4]",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(name):
    inputs, text = ARRAYS[name]
    kind = name.split(",")[0]
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        getattr(fn, f"{kind}_forward")(*inputs)
    assert str(caught.value).startswith(f"{kind}: ")
    assert "\n" not in str(caught.value)


def test_nets_side_by_side_refuse_what_does_not_fit():
    net = fn.ensemble(fn.affine(3), fn.affine(3))
    params, state, _ = net.init(key, (4,))
    x = ones((2, 4))
    with pytest.raises(ValueError, match="unknown layer in params 'affine3'"):
        net.forward(params | {"affine3": {}}, state, x)
    with pytest.raises(ValueError, match="w must be") as caught:
        net.forward(params, state, ones((2, 5)))
    assert caught.value.__notes__ == ["in layer affine1"]
    _, cache, _ = net.forward(params, state, x)
    with pytest.raises(
        ValueError, match=re.escape("ensemble: dout must have the shape of out, [N")
    ):
        net.backward(ones((2, 3)), cache)
    stack = fn.stacked(fn.affine(3), 2)
    with pytest.raises(ValueError, match=re.escape("stacked: every leaf of params and state must")):
        stack.forward(params["affine1"], state, x)
    params, state, _ = stack.init(key, (4,))
    _, cache, _ = stack.forward(params, state, x)
    with pytest.raises(ValueError, match="stacked: dout must have the shape of out"):
        stack.backward(ones((2, 3, 3)), cache)
