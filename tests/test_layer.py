"""Layers as values: equal if their arguments are, compiled once, pickled, and made of one's own."""

import copy
import pickle
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet import net as nets
from funcnet.layer import make_layer, make_stateful_layer

key = jax.random.key(231)


def scale_forward(x, w):
    return x * w, (x, w)


def scale_backward(dout, cache):
    x, w = cache
    return dout * w, (dout * x).sum(axis=0)


def init_scale(key, in_shape):
    return {"w": np.full(in_shape, 2, "f")}, {}, in_shape


def scale():
    """A layer of one's own, with a parameter."""
    return make_layer("scale", scale_forward, scale_backward, init_scale, names=["w"])


def sine_forward(x):
    return jnp.sin(x), x


def sine_backward(dout, x):
    return dout * jnp.cos(x)


def sine():
    """One without parameters."""
    return make_layer("sine", sine_forward, sine_backward)


EDGES = np.array([[0, 1, 2], [-1, 0, 3], [0, 0, 1]])

# Each is another layer than all the others, and is built anew at each call.
LAYERS = {
    "affine": lambda: fn.affine(3),
    "affine, other size": lambda: fn.affine(4),
    "affine, other scale": lambda: fn.affine(3, weight_scale=1),
    "affine, the same scale of another type": lambda: fn.affine(3, weight_scale=1.0),
    "affine, scale by name": lambda: fn.affine(3, weight_scale="glorot"),
    "affine, rounded": lambda: fn.affine(3, matmul_dtype="bfloat16"),
    "affine, rounded otherwise": lambda: fn.affine(3, matmul_dtype="float16"),
    **nets.ACTIVATIONS,
    **nets.NORMALIZATIONS,
    "leaky_relu, other slope": lambda: fn.leaky_relu(0.2),
    "leaky_relu, slope of 1": lambda: fn.leaky_relu(1),
    "leaky_relu, slope of 1.0": lambda: fn.leaky_relu(1.0),
    "prelu, other start": lambda: fn.prelu(0.5),
    "parametric": lambda: fn.parametric("selu"),
    "parametric, other activation": lambda: fn.parametric("mish"),
    "parametric, an activation with parameters": lambda: fn.parametric(fn.prelu()),
    "parametric, other rate": lambda: fn.parametric("selu", rate=0.1),
    "flatten": fn.flatten,
    "column_scale": fn.column_scale,
    "column_scale, other rate": lambda: fn.column_scale(rate=6),
    "ntk_affine": lambda: fn.ntk_affine(3),
    "ntk_affine, other weights": lambda: fn.ntk_affine(3, weight_scale=0.5),
    "ntk_affine, other biases": lambda: fn.ntk_affine(3, bias_scale=1.0),
    "ntk_affine, other rate": lambda: fn.ntk_affine(3, bias_rate=0.1),
    "column_affine": lambda: fn.column_affine(2, columns=3),
    "column_affine, other columns": lambda: fn.column_affine(2, columns=1),
    "periodic": lambda: fn.periodic(2, k=3),
    "periodic, other frequencies": lambda: fn.periodic(2, k=3, sigma=1.0),
    "periodic, without relu": lambda: fn.periodic(2, k=3, relu=False),
    "periodic, other rate": lambda: fn.periodic(2, k=3, rate=0.1),
    "pbld": lambda: fn.pbld(2, k=3),
    "pbld, other size": lambda: fn.pbld(2, k=2),
    "pbld, other rate": lambda: fn.pbld(2, k=3, rate=0.1),
    "piecewise_linear": lambda: fn.piecewise_linear(EDGES),
    "piecewise_linear, other edges": lambda: fn.piecewise_linear(EDGES + 1),
    "piecewise_linear, edges of another shape": lambda: fn.piecewise_linear(EDGES[:, :2]),
    "piecewise_linear, then affine": lambda: fn.piecewise_linear(EDGES, 2),
    "embed_categories": lambda: fn.embed_categories([2, 1], 3),
    "embed_categories, other groups": lambda: fn.embed_categories([1, 2], 3),
    "on_columns": lambda: fn.on_columns([0, 2], fn.affine(3)),
    "on_columns, other layer": lambda: fn.on_columns([0, 2], fn.relu()),
    "on_columns, other order": lambda: fn.on_columns([2, 0], fn.affine(3)),
    "on_columns, a slice": lambda: fn.on_columns(slice(1, None), fn.affine(3)),
    "on_columns, another slice": lambda: fn.on_columns(slice(-1), fn.affine(3)),
    "member_scale": lambda: fn.member_scale(2),
    "member_scale, other start": lambda: fn.member_scale(2, r_init="normal"),
    "batch_ensemble_affine": lambda: fn.batch_ensemble_affine(4, 2),
    "batch_ensemble_affine, other start": lambda: fn.batch_ensemble_affine(4, 2, s_init="ones"),
    "batch_ensemble_affine, other members": lambda: fn.batch_ensemble_affine(4, 3),
    "shared_affine": lambda: fn.shared_affine(4),
    "member_affine": lambda: fn.member_affine(4, 2),
    "member_affine, other scale": lambda: fn.member_affine(4, 2, weight_scale=0.1),
    "tabm": lambda: fn.tabm([4, 3], 2, members=2, keep_prob=0.5),
    "tabm, mini": lambda: fn.tabm([4, 3], 2, members=2, keep_prob=0.5, mini=True),
    "ensemble": lambda: fn.ensemble(fn.affine(4), fn.mlp([3], 4)),
    "ensemble, other order": lambda: fn.ensemble(fn.mlp([3], 4), fn.affine(4)),
    "stacked": lambda: fn.stacked(fn.mlp([3], 4, keep_prob=0.5), 2),
    "stacked, other members": lambda: fn.stacked(fn.mlp([3], 4, keep_prob=0.5), 3),
    "stacked, other net": lambda: fn.stacked(fn.mlp([3], 4), 2),
    "batchnorm, other eps": lambda: fn.batchnorm(eps=1e-3),
    "batchnorm, other momentum": lambda: fn.batchnorm(momentum=0.5),
    "layernorm, other eps": lambda: fn.layernorm(eps=1e-3),
    "dropout": lambda: fn.dropout(0.5),
    "dropout, other keep_prob": lambda: fn.dropout(0.8),
    "dropout, by a schedule": lambda: fn.dropout(fn.complement(fn.flat_cosine(0.15, 9))),
    "dropout, by another schedule": lambda: fn.dropout(fn.complement(fn.flat_cosine(0.3, 9))),
    "no layers": lambda: fn.serial(),
    "serial": lambda: fn.serial(fn.affine(3), fn.relu(), fn.affine(3)),
    "serial, other child": lambda: fn.serial(fn.affine(3), fn.tanh(), fn.affine(3)),
    "serial, one child less": lambda: fn.serial(fn.affine(3), fn.relu()),
    "serial, other order": lambda: fn.serial(fn.relu(), fn.affine(3), fn.affine(3)),
    "serial in serial": lambda: fn.serial(fn.serial(fn.affine(3), fn.relu()), fn.affine(3)),
    "residual": lambda: fn.residual(fn.affine(3), fn.relu(), fn.affine(3)),
    "residual, other child": lambda: fn.residual(fn.affine(3), fn.gelu(), fn.affine(3)),
    "mlp": lambda: fn.mlp([4, 3], 3, normalization="batchnorm", keep_prob=0.5),
    "mlp, other normalization": lambda: fn.mlp([4, 3], 3, normalization="layernorm", keep_prob=0.5),
    "mlp, other size": lambda: fn.mlp([4, 4], 3, normalization="batchnorm", keep_prob=0.5),
    "mlp, other activation": lambda: fn.mlp(
        [4, 3], 3, normalization="batchnorm", keep_prob=0.5, activation="tanh"
    ),
    "scale": scale,
    "sine": sine,
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_equal_arguments_are_equal(name):
    a, b = LAYERS[name](), LAYERS[name]()
    assert a == b
    assert hash(a) == hash(b)
    assert {a: 1}[b] == 1


def test_layers_of_other_arguments_are_different():
    made = {name: make() for name, make in LAYERS.items()}
    for name, layer in made.items():
        assert [other for other in made if made[other] == layer] == [name]
    assert len(set(made.values())) == len(LAYERS)


def test_ways_to_write_the_same_arguments():
    same = [
        (fn.mlp([32], 10), fn.mlp((np.int64(32),), np.int8(10), activation=fn.relu())),
        (fn.leaky_relu(), fn.leaky_relu(negative_slope=0.01)),
        (fn.batchnorm(), fn.batchnorm(eps=1e-5, momentum=0.9)),
        (fn.affine(3, matmul_dtype=jnp.bfloat16), fn.affine(dim=3, matmul_dtype="bfloat16")),
        (fn.gelu(approximate=True), nets.ACTIVATIONS["gelu_tanh"]()),
        (fn.gelu(), fn.gelu(approximate=False)),
        (fn.parametric("mish"), fn.parametric(fn.mish(), rate=1)),
        (fn.piecewise_linear(EDGES, 2), fn.piecewise_linear(EDGES.tolist(), dim=np.int8(2))),
        (fn.embed_categories([2, 1], 3), fn.embed_categories((np.int64(2), 1), dim=3)),
        (fn.on_columns([0, 2], fn.relu()), fn.on_columns(np.array([0, 2]), fn.relu())),
    ]
    for a, b in same:
        assert a == b


@pytest.mark.parametrize("name", slow_but(LAYERS, *(name for name in LAYERS if "," not in name)))
@pytest.mark.parametrize("copied", [lambda v: pickle.loads(pickle.dumps(v)), copy.deepcopy])
def test_copies_are_equal_and_compute_the_same(name, copied, rng):
    layer = LAYERS[name]()
    other = copied(layer)
    assert other == layer
    assert hash(other) == hash(layer)
    params, state, out_shape = layer.init(key, (3,))
    assert (params, state, out_shape) == other.init(key, (3,))
    x = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    out, cache, _ = layer.forward(params, state, x, key=key)
    dx, grads = layer.backward(out, cache)
    again, cache, _ = other.forward(params, state, x, key=key)
    np.testing.assert_array_equal(out, again)
    np.testing.assert_array_equal(dx, other.backward(out, cache)[0])
    assert other.backward(out, cache)[1] == grads


def counting():
    """A compiled function of a layer, and the kinds of the layers that it was traced for."""
    traced = []

    @partial(jax.jit, static_argnums=0)
    def forward(layer, params, state, x):
        traced.append(layer.kind)
        return layer.forward(params, state, x, train=False)[0]

    return forward, traced


def test_an_equal_layer_compiles_nothing_anew():
    forward, traced = counting()
    x = jnp.ones((4, 3))
    for _ in range(3):
        for make in (LAYERS["mlp"], LAYERS["residual"], scale):
            net = pickle.loads(pickle.dumps(make()))
            params, state, _ = net.init(key, (3,))
            forward(net, params, state, x)
    assert traced == ["serial", "residual", "scale"]


def test_fit_compiles_nothing_anew_for_an_equal_net():
    digits = fn.load_digits()
    small = digits._replace(x_train=digits.x_train[:40], y_train=digits.y_train[:40])
    optimizer = fn.sgd(0.1)
    traced = []

    def loss_fn(scores, y):
        traced.append(scores.shape)
        return fn.softmax_loss(scores, y)

    counts = []
    for _ in range(3):
        fn.fit(
            fn.mlp([4], 10, keep_prob=0.5, activation=fn.leaky_relu(0.2)),
            optimizer,
            small,
            key=key,
            epochs=1,
            batch_size=20,
            loss_fn=loss_fn,
            eval_every=None,
        )
        counts.append(len(traced))
    # Each call looks at one step before it begins; to compile would trace another one.
    assert counts[2] - counts[1] == counts[1] - counts[0] < counts[0]


ARRAYS = {
    "affine": lambda v: fn.affine(3, weight_scale=v),
    "leaky_relu": lambda v: fn.leaky_relu(v),
    "batchnorm": lambda v: fn.batchnorm(momentum=v),
    "layernorm": lambda v: fn.layernorm(eps=v),
    "dropout": lambda v: fn.dropout(v),
    "prelu": lambda v: fn.prelu(v),
    "column_scale": lambda v: fn.column_scale(rate=v),
    "ntk_affine": lambda v: fn.ntk_affine(3, bias_rate=v),
    "ntk_affine, biases": lambda v: fn.ntk_affine(3, bias_scale=v),
    "periodic": lambda v: fn.periodic(2, sigma=v),
    "pbld": lambda v: fn.pbld(2, rate=v),
    "embed_categories": lambda v: fn.embed_categories([3], 2, weight_scale=v),
    "on_columns": lambda v: fn.on_columns([0], fn.dropout(v)),
    "parametric": lambda v: fn.parametric("selu", rate=v),
    "member_affine": lambda v: fn.member_affine(2, 2, weight_scale=v),
    "tabm": lambda v: fn.tabm([4], 3, keep_prob=v),
    "ensemble": lambda v: fn.ensemble(fn.dropout(v)),
    "stacked": lambda v: fn.stacked(fn.dropout(v), 2),
    "serial": lambda v: fn.serial(fn.relu(), fn.dropout(v)),
    "residual": lambda v: fn.residual(fn.dropout(v)),
    "mlp": lambda v: fn.mlp([4], 3, keep_prob=v),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_with_an_array_or_a_traced_value_a_layer_is_equal_to_itself_alone(name):
    def check(value):
        a, b = ARRAYS[name](value), ARRAYS[name](value)
        assert a == a
        assert hash(a) == hash(a)
        assert a != b
        assert len({a, b}) == 2

    check(jnp.float32(0.5))
    check(np.array(0.5))
    jax.jit(check)(0.5)


def test_layers_of_local_functions_work_and_are_equal_to_themselves(rng):
    def local():
        def forward(params, state, x, *, key=None, train=True):
            return 3 * x, (), state

        def backward(dout, cache):
            return 3 * dout, {}

        return fn.Layer("triple", lambda key, in_shape: ({}, {}, in_shape), forward, backward)

    layer = local()
    assert layer == layer
    assert layer != local()
    assert fn.serial(layer, fn.relu()) == fn.serial(layer, fn.relu())
    assert fn.serial(layer, fn.relu()) != fn.serial(local(), fn.relu())
    net = fn.serial(fn.affine(4), layer, fn.residual(layer))
    params, state, out_shape = net.init(key, (3,))
    assert (list(params), out_shape) == (["affine1"], (4,))
    x = rng.normal(size=(5, 3))
    report = fn.check_gradients(net, params, state, x, np.arange(5) % 4, max_elements=3)
    assert report.passed, report


def test_the_names_of_layers_and_nets_are_short():
    for make in LAYERS.values():
        assert repr(make()) == f"<layer {make().kind}>"


# make_layer


def test_a_layer_of_ones_own(rng):
    net = fn.serial(fn.affine(4), scale(), sine(), fn.affine(3), scale())
    params, state, out_shape = net.init(key, (5,))
    assert out_shape == (3,)
    assert sorted(params) == ["affine1", "affine2", "scale1", "scale2"]
    assert params["scale1"] == fn.FrozenDict(w=jnp.full(4, 2, jnp.float32))
    assert state == fn.FrozenDict()
    x, y = rng.normal(size=(6, 5)), rng.integers(3, size=6)
    for given in (params, params.unfreeze()):
        report = fn.check_gradients(net, given, state, x, y, reg=0.1, max_elements=4)
        assert report.passed, report
        _, grads, _ = fn.loss_and_grads(net, given, state, x, y)
        assert jax.tree.structure(grads) == jax.tree.structure(given)


def noise_forward(x, shift, *, state, key, train):
    noise = jax.random.normal(key, x.shape, x.dtype) if train else jnp.zeros_like(x)
    return x + noise + shift, (), {"calls": state["calls"] + 1}


def noise_backward(dout, cache):
    return dout, dout.sum(axis=0)


def init_noise(key, in_shape):
    return {"shift": jnp.zeros(in_shape)}, {"calls": jnp.zeros((), "int32")}, in_shape


@pytest.mark.slow
def test_a_layer_of_ones_own_with_state_and_key(rng):
    def make():
        return make_stateful_layer(
            "noise", noise_forward, noise_backward, init_noise, names=("shift",)
        )

    assert make() == make() == pickle.loads(pickle.dumps(make()))
    net = fn.serial(make(), fn.affine(3))
    params, state, _ = net.init(key, (5,))
    assert state == fn.FrozenDict(noise1={"calls": jnp.int32(0)})
    x, y = rng.normal(size=(6, 5)), rng.integers(3, size=6)
    report = fn.check_gradients(net, params, state, x, y, key=key, max_elements=4)
    assert report.passed, report
    noisy, _, after = fn.loss_and_grads(net, params, state, x, y, key=key)
    plain, _, _ = fn.loss_and_grads(net, params, state, x, y, train=False)
    assert noisy != plain
    assert after == fn.FrozenDict(noise1={"calls": jnp.int32(1)})


def test_make_layer_refuses():
    for bad in (None, "sin", 3):
        for make in (make_layer, make_stateful_layer):
            with pytest.raises(TypeError, match="forward must be a function"):
                make("bad", bad, sine_backward)
            with pytest.raises(TypeError, match="backward must be a function"):
                make("bad", sine_forward, bad)
            with pytest.raises(TypeError, match="init must be a function"):
                make("bad", sine_forward, sine_backward, bad)


def test_a_backward_pass_must_give_the_gradient_of_each_input():
    x = np.ones((2, 3), "f")
    few = make_layer("scale", scale_forward, lambda dout, c: dout, init_scale, names=["w"])
    many = make_layer("sine", sine_forward, lambda dout, c: (dout, dout))
    for layer, text in (
        (few, "scale: backward must give the gradients of x, w, not 1 gradient"),
        (many, "sine: backward must give the gradients of x, not 2 gradients"),
    ):
        out, cache, _ = layer.forward(layer.init(key, (3,))[0], {}, x)
        with pytest.raises(ValueError, match=f"^{text}$"):
            layer.backward(out, cache)


def test_params_must_have_the_names_of_the_layer():
    x = np.ones((2, 3), "f")
    with pytest.raises(ValueError, match=re.escape("scale: params must have w, got ['v']")):
        scale().forward({"v": np.ones(3, "f")}, {}, x)
    with pytest.raises(ValueError, match=re.escape("relu: params must have no entries, got ['w']")):
        fn.relu().forward({"w": np.ones(3, "f")}, {}, x)


@pytest.mark.parametrize("in_shape", [5, (0,), (2.5,)], ids=str)
def test_a_layer_of_ones_own_is_given_shapes_alone(in_shape):
    with pytest.raises((TypeError, ValueError), match="in_shape must be"):
        scale().init(key, in_shape)


# mlp of layers


@pytest.mark.parametrize("name", nets.ACTIVATIONS)
def test_mlp_takes_a_name_or_a_layer_for_activation(name):
    named = fn.mlp([4, 3], 2, activation=name)
    assert named == fn.mlp([4, 3], 2, activation=nets.ACTIVATIONS[name]())
    middle = nets.ACTIVATIONS[name]()
    assert named == fn.serial(fn.affine(4), middle, fn.affine(3), middle, fn.affine(2))


@pytest.mark.parametrize("name", nets.NORMALIZATIONS)
def test_mlp_takes_a_name_or_a_layer_for_normalization(name):
    named = fn.mlp([4], 2, normalization=name, activation="tanh")
    assert named == fn.mlp([4], 2, normalization=nets.NORMALIZATIONS[name](), activation=fn.tanh())
    assert named == fn.serial(fn.affine(4), nets.NORMALIZATIONS[name](), fn.tanh(), fn.affine(2))


def test_mlp_of_layers_with_other_options_and_of_ones_own():
    net = fn.mlp(
        [32], 10, activation=fn.leaky_relu(0.2), normalization=fn.layernorm(eps=1e-3), keep_prob=0.5
    )
    assert net == fn.serial(
        fn.affine(32),
        fn.layernorm(eps=1e-3),
        fn.leaky_relu(0.2),
        fn.dropout(0.5),
        fn.affine(10),
    )
    own = fn.mlp([4, 3], 2, activation=sine(), normalization=scale())
    params, _, out_shape = own.init(key, (5,))
    assert list(params) == ["affine1", "affine2", "affine3", "scale1", "scale2"]
    assert out_shape == (2,)


BAD_LAYERS = {
    "a constructor": ({"activation": fn.relu}, "activation must be a layer, such as relu()"),
    "a number": ({"activation": 3}, "or its name, got 3"),
    "a list": ({"activation": ["relu"]}, "or its name, got ['relu']"),
    "a pair": ({"activation": (sine_forward, sine_backward)}, "activation must be a layer"),
    "an array": ({"activation": np.ones(2)}, "or its name, got array"),
    "normalization": ({"normalization": fn.batchnorm}, "must be a layer, such as batchnorm()"),
    "True": ({"normalization": True}, "or its name, got True"),
}


@pytest.mark.parametrize("name", BAD_LAYERS)
def test_mlp_refuses_what_is_no_layer(name):
    options, text = BAD_LAYERS[name]
    with pytest.raises(TypeError, match=re.escape(text)) as caught:
        fn.mlp([4], 3, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_all_of_them():
    for argument, registry in (
        ("activation", nets.ACTIVATIONS),
        ("normalization", nets.NORMALIZATIONS),
    ):
        known = re.escape(", ".join(sorted(registry)))
        with pytest.raises(ValueError, match=f"unknown {argument} 'swish': .*known: {known}$"):
            fn.mlp([4], 3, **{argument: "swish"})


def test_what_is_entered_in_a_registry_is_known_to_mlp(monkeypatch):
    monkeypatch.setitem(nets.ACTIVATIONS, "sine", sine)
    assert fn.mlp([4], 3, activation="sine") == fn.mlp([4], 3, activation=sine())
