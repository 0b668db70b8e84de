"""Layers for tables: what they compute, inside nets, and what they refuse.

Their passes as functions of arrays have rows in test_layers.py, their mistakes in
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
from funcnet.checkpoints import described

key = jax.random.key(231)
EDGES = np.array([[-1, 0, 0.4, 2], [0, 0, 1, 2], [0, 0.7, 0.7, 2], [-2, -1, 1, 1.0]])

# Nets of [N, 4]: each of them is checked whole.
NETS = {
    "realmlp": lambda: [
        fn.on_columns([0, 1], fn.pbld(3, k=2, sigma=1.0, rate=0.1)),
        fn.column_scale(rate=6),
        fn.ntk_affine(5, bias_scale=1.0, bias_rate=0.1),
        fn.parametric("selu", rate=0.1),
    ],
    "periodic": lambda: [fn.periodic(2, k=3, sigma=1.0), fn.affine(3), fn.mish()],
    "periodic, linear": lambda: [fn.periodic(2, k=1, sigma=1.0, relu=False, rate=3)],
    "bins": lambda: [fn.piecewise_linear(EDGES), fn.column_affine(2, columns=4), fn.prelu()],
    "bins, then affine": lambda: [fn.piecewise_linear(EDGES, 2), fn.tanh()],
    "categories": lambda: [fn.affine(4), fn.embed_categories([1, 3], 2)],
    "nested": lambda: [
        fn.on_columns(
            slice(-3, None),
            fn.serial(
                fn.on_columns([2], fn.affine(2)), fn.batchnorm(), fn.residual(fn.dropout(0.7))
            ),
        ),
        fn.layernorm(),
    ],
}


def setup(name, dtype="float64"):
    """A net and random values of its parameters and state, a batch, and the labels."""
    rng = np.random.default_rng(7)
    net = fn.serial(*NETS[name](), fn.affine(3))
    params, state = jax.eval_shape(lambda key: net.init(key, (4,))[:2], key)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(dtype), params)
    state = jax.tree.map(lambda s: rng.uniform(0.3, 3, s.shape).astype(dtype), state)
    return net, params, state, rng.normal(size=(5, 4)), rng.integers(3, size=5)


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("name", slow_but(NETS, "realmlp", "bins, then affine", "nested"))
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


# Rates

RATED = {
    "column_scale": (fn.column_scale, ["s"], "rate"),
    "ntk_affine": (partial(fn.ntk_affine, 3, bias_scale=0.7), ["b"], "bias_rate"),
    "periodic": (partial(fn.periodic, 2, k=2), ["c", "w", "b"], "rate"),
    "pbld": (partial(fn.pbld, 2, k=2), ["c", "phase", "w", "b"], "rate"),
    "parametric": (partial(fn.parametric, "tanh"), ["a"], "rate"),
}


@pytest.mark.parametrize("name", slow_but(RATED, "ntk_affine", "parametric"))
def test_a_rate_changes_how_parameters_are_held_and_nothing_else(name, rng, x64):
    make, rated, option = RATED[name]
    plain, layer = make(), make(**{option: 0.1})
    params, _, _ = plain.init(key, (4,))
    held, _, _ = layer.init(key, (4,))
    for leaf, value in params.items():
        factor = 10 if leaf in rated else 1
        np.testing.assert_allclose(held[leaf], factor * value, rtol=1e-14)
    x = rng.normal(size=(5, 4))
    out, cache, _ = plain.forward(params, {}, x)
    same, rated_cache, _ = layer.forward(held, {}, x)
    np.testing.assert_allclose(same, out, rtol=1e-13)
    dx, grads = plain.backward(out, cache)
    rated_dx, rated_grads = layer.backward(out, rated_cache)
    np.testing.assert_allclose(rated_dx, dx, rtol=1e-12, atol=1e-13)
    for leaf, grad in grads.items():
        factor = 0.1 if leaf in rated else 1
        np.testing.assert_allclose(rated_grads[leaf], factor * grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("rate", slow_but([0.1, 6.0], 6.0))
def test_under_adam_a_rate_is_a_learning_rate(rate, rng, x64):
    """The walk of the effective factors is that of a learning rate so many times as large."""
    x, dout = rng.normal(size=(2, 5, 4))
    walks = []
    for layer, learning_rate in (
        (fn.column_scale(rate=rate), 1e-3),
        (fn.column_scale(), rate * 1e-3),
    ):
        factor = rate if learning_rate == 1e-3 else 1
        optimizer = fn.adam(learning_rate, epsilon=1e-30)
        params, _, _ = layer.init(key, (4,))
        opt_state = optimizer.init(params)
        for i in range(5):
            out, cache, _ = layer.forward(params, {}, x)
            _, grads = layer.backward(dout + i * out, cache)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = fn.apply_updates(params, updates)
        walks.append(factor * params["s"])
    np.testing.assert_allclose(*walks, rtol=1e-12)


@pytest.mark.slow
def test_a_traced_rate(x64, rng):
    x = rng.normal(size=(5, 4))

    def run(rate):
        layer = fn.pbld(3, k=2, rate=rate)
        params, _, _ = layer.init(key, (4,))
        out, cache, _ = layer.forward(params, {}, x)
        return out, layer.backward(out, cache)

    swept = jax.jit(jax.vmap(run))(jnp.array([0.5, 0.1]))
    assert fn.scaled_error(jax.tree.map(lambda v: v[1], swept), run(0.1)) <= 1e-12


# NTK


def test_ntk_affine_is_an_affine_layer_of_other_weights(rng, x64):
    layer = fn.ntk_affine(300, bias_scale=0.5)
    params, _, _ = layer.init(key, (20, 20))
    w, b = np.asarray(params["w"]), np.asarray(params["b"])
    assert abs(w.std() - 1) < 5 / np.sqrt(2 * w.size)
    assert abs(b.std() - 0.5) < 0.5 * 5 / np.sqrt(2 * b.size)
    assert not np.any(fn.ntk_affine(3).init(key, (4,))[0]["b"])
    assert not np.any(fn.ntk_affine(3, weight_scale=0).init(key, (4,))[0]["w"])
    x = rng.normal(size=(3, 20, 20))
    out, _, _ = layer.forward(params, {}, x)
    expected, _ = fn.affine_forward(x, w / 20, b)
    np.testing.assert_allclose(out, expected, rtol=1e-11)


# Embeddings of numbers


@pytest.mark.slow
@pytest.mark.parametrize("layer", [fn.periodic(3, k=40, sigma=0.5), fn.pbld(4, k=40, sigma=0.5)])
def test_initial_values_of_periodic_embeddings(layer):
    params, state, out_shape = layer.init(key, (50,))
    assert (state, out_shape) == (fn.FrozenDict(), (200 if layer.kind == "pbld" else 150,))
    size = 40 if layer.kind == "pbld" else 80
    c, w, b = (np.asarray(params[name], np.float64) for name in "cwb")
    assert c.shape == (50, 40)
    assert w.shape == (50, size, 3)
    assert b.shape == (50, 3)
    assert abs(c.std() / 0.5 - 1) < 5 / np.sqrt(2 * c.size)
    for values, bound in ((w, size**-0.5), (b, size**-0.5), (params.get("phase"), np.pi)):
        if values is not None:
            values = np.asarray(values, np.float64)
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert abs(values.std() - bound / np.sqrt(3)) < 4 * bound / np.sqrt(values.size)


def test_periodic_ends_in_a_relu_and_pbld_starts_with_the_number(rng, x64):
    x = rng.normal(size=(6, 2))
    for relu in (True, False):
        layer = fn.periodic(3, k=2, sigma=1.0, relu=relu)
        params, _, _ = layer.init(key, (2,))
        out, _, _ = layer.forward(params, {}, x)
        linear, _ = fn.periodic_forward(x, *(params[name] for name in "cwb"))
        np.testing.assert_array_equal(out, np.maximum(linear, 0) if relu else linear)
        assert np.any(linear < 0)
    layer = fn.pbld(3, k=2)
    out, _, _ = layer.forward(layer.init(key, (2,))[0], {}, x)
    np.testing.assert_array_equal(np.asarray(out).reshape(6, 2, 3)[..., 0], x)


def test_piecewise_linear_at_edges_and_beyond(x64):
    x = np.array([-3.0, -1, -0.5, 0, 0.3, 0.4, 1, 2, 5])
    edges = np.array([[-1, 0, 0.4, 2.0]])
    out, cache = fn.piecewise_linear_forward(x[:, None], edges)
    expected = [
        [-2, 0, 0],
        [0, 0, 0],
        [0.5, 0, 0],
        [1, 0, 0],
        [1, 0.75, 0],
        [1, 1, 0],
        [1, 1, 0.375],
        [1, 1, 1],
        [1, 1, 2.875],
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-15)
    dx = fn.piecewise_linear_backward(np.ones((9, 3)), cache)
    slopes = [1, 1, 1, 2.5, 2.5, 0.625, 0.625, 0.625, 0.625]
    np.testing.assert_allclose(dx[:, 0], slopes, rtol=1e-14)
    one_bin, _ = fn.piecewise_linear_forward(x[:, None], [[0, 2.0]])
    np.testing.assert_array_equal(one_bin[:, 0], x / 2)


def test_bins_without_width_give_0_and_the_others_are_as_without_them(x64):
    edges = np.array(
        [[0, 0, 0, 1, 2], [0, 1, 1, 1, 2], [0, 1, 2, 2, 2], [0, 0, 1, 1, 2], 5 * [1.0]]
    )
    real = np.diff(edges) > 0
    x = np.repeat(np.linspace(-2, 3, 11)[:, None], 5, axis=1)
    x[0] = np.nan
    out, cache = fn.piecewise_linear_forward(x, edges)
    plain, plain_cache = fn.piecewise_linear_forward(x[:, :1], np.array([[0, 1, 2.0]]))
    dx = np.asarray(fn.piecewise_linear_backward(np.ones((11, 20)), cache))
    for column, shares in enumerate(np.moveaxis(np.asarray(out).reshape(11, 5, 4), 1, 0)):
        np.testing.assert_array_equal(shares[:, ~real[column]], 0)
        if column < 4:
            np.testing.assert_array_equal(shares[:, real[column]], plain)
    expected = fn.piecewise_linear_backward(np.ones((11, 2)), plain_cache)
    np.testing.assert_array_equal(dx[1:, :4], np.repeat(expected[1:], 4, axis=1))
    np.testing.assert_array_equal(dx[:, 4], 0)
    auto = jax.grad(lambda x: fn.piecewise_linear_forward(x, edges)[0].sum())(x)
    np.testing.assert_array_equal(auto[1:], dx[1:])
    assert np.isnan(plain[0]).all()


def test_a_layer_of_many_edges_has_a_short_text_of_its_own():
    edges = np.tile(np.linspace(0, 1, 50), (200, 1))
    texts = [described(fn.piecewise_linear(e)) for e in (edges, edges.copy(), edges + 1)]
    assert texts[0] == texts[1] != texts[2]
    assert max(map(len, texts)) < 200


def test_edges_may_be_traced(rng, x64):
    folds = np.stack([fn.quantile_edges(rng.normal(size=(30, 2)), 4) for _ in range(3)])
    x = rng.normal(size=(7, 2))

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def run(x, edges):
        layer = fn.piecewise_linear(edges)
        out, _, _ = layer.forward({}, {}, x)
        return out, fn.piecewise_linear_backward(out, fn.piecewise_linear_forward(x, edges)[1])

    out, dx = run(x, folds)
    for i, edges in enumerate(folds):
        expected, cache = fn.piecewise_linear_forward(x, edges)
        np.testing.assert_allclose(out[i], expected, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(dx[i], fn.piecewise_linear_backward(expected, cache), rtol=1e-12)


@pytest.mark.parametrize("bins", [3, 7, 9, 48])
def test_an_edge_is_in_the_bin_to_its_right_alone(bins):
    edges = np.linspace(-1, 1, bins + 1, dtype=np.float32)
    out, cache = fn.piecewise_linear_forward(edges[1:-1, None], edges[None])
    dx = fn.piecewise_linear_backward(jnp.ones_like(out), cache)
    np.testing.assert_allclose(dx[:, 0], 1 / np.diff(edges)[1:], rtol=1e-5)


def test_bins_at_quantiles_are_even_bins_of_the_quantile_transform(rng, x64):
    x = rng.lognormal(size=(60, 3))
    fitted = fn.quantile_transform(x, bins=7)
    even = fn.piecewise_linear(np.linspace(-np.ones(3), np.ones(3), 8, axis=1))
    out, _, _ = even.forward({}, {}, fitted(x))
    expected, _ = fn.piecewise_linear_forward(x, fn.quantile_edges(x, 7))
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-12)


# Categories


def test_one_hot_groups_take_rows_and_zeros_none(rng):
    layer = fn.embed_categories([3, 2], 4)
    params, _, out_shape = layer.init(key, (5,))
    assert out_shape == (8,)
    w = np.asarray(params["w"])
    x = np.array([[0, 1, 0, 0, 1], [0, 0, 0, 1, 0]], "uint8")
    out, cache, _ = layer.forward(params, {}, x)
    np.testing.assert_array_equal(out, [[*w[1], *w[4]], [0, 0, 0, 0, *w[3]]])
    _, grads = layer.backward(jnp.ones((2, 8)), cache)
    np.testing.assert_array_equal(grads["w"][:, 0], [0, 1, 0, 1, 1])
    wide, _, _ = fn.embed_categories([500], 40, weight_scale=0.3).init(key, (500,))
    assert abs(np.std(wide["w"]) / 0.3 - 1) < 5 / np.sqrt(2 * 20_000)


# Some columns


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ([3, 0], [3, 0]),
        *(
            pytest.param(columns, chosen, marks=pytest.mark.slow)
            for columns, chosen in (
                (slice(2), [0, 1]),
                (slice(1, None, 2), [1, 3]),
                (slice(-2, None), [2, 3]),
            )
        ),
    ],
    ids=str,
)
def test_on_columns(columns, chosen, rng, x64):
    x, inner = rng.normal(size=(5, 4)), fn.serial(fn.batchnorm(momentum=0.5), fn.affine(3))
    layer = fn.on_columns(columns, inner)
    params, state, out_shape = layer.init(key, (4,))
    assert out_shape == (3 + 4 - len(chosen),)
    assert params == inner.init(key, (len(chosen),))[0]
    others = [i for i in range(4) if i not in chosen]
    out, cache, after = layer.forward(params, state, x)
    expected, inner_cache, inner_after = inner.forward(params, state, x[:, chosen])
    np.testing.assert_array_equal(out, np.concatenate([expected, x[:, others]], axis=1))
    assert after == inner_after
    dout = rng.normal(size=out.shape)
    dx, grads = layer.backward(dout, cache)
    dchosen, inner_grads = inner.backward(dout[:, :3], inner_cache)
    assert grads == inner_grads
    np.testing.assert_array_equal(dx[:, np.array(chosen)], dchosen)
    np.testing.assert_array_equal(dx[:, np.array(others, int)], dout[:, 3:])


def test_on_all_columns_and_with_an_output_of_rank_3(rng):
    x = rng.normal(size=(5, 3)).astype("f")
    layer = fn.on_columns(slice(None), fn.tanh())
    out, _, _ = layer.forward({}, {}, x)
    np.testing.assert_array_equal(out, jnp.tanh(x))
    wide = fn.on_columns([1], fn.make_layer("two", two_forward, two_backward, init_two))
    assert wide.init(key, (3,))[2] == (4,)
    out, cache, _ = wide.forward({}, {}, x)
    np.testing.assert_array_equal(out, x[:, [1, 1, 0, 2]])
    dx, _ = wide.backward(jnp.asarray([[1.0, 2, 3, 4]] * 5), cache)
    np.testing.assert_array_equal(dx, [[3, 3, 4]] * 5)


def two_forward(x):
    return jnp.stack([x, x], axis=1), ()


def two_backward(dout, cache):
    return dout.sum(axis=1)


def init_two(key, in_shape):
    return {}, {}, (2, *in_shape)


@pytest.mark.slow
def test_a_table_model_trains():
    digits = fn.load_digits()
    digits = digits._replace(
        **{name: getattr(digits, name).reshape(-1, 64) for name in ("x_train", "x_val", "x_test")}
    )
    net = fn.serial(
        fn.on_columns(range(8), fn.piecewise_linear([[0, 4, 8, 16]] * 8, 2)),
        fn.ntk_affine(20, bias_rate=0.1),
        fn.parametric("mish", rate=0.1),
        fn.ntk_affine(10),
    )
    result = fn.fit(net, fn.adam(1e-2), digits, key=key, epochs=3, batch_size=50)
    assert fn.evaluate(result.best, digits.x_val, digits.y_val).accuracy > 0.7


# What is refused

MADE = {
    "column_affine dim": (lambda: fn.column_affine(0, columns=2), "dim must be at least 1"),
    "column_affine columns": (lambda: fn.column_affine(2, columns=0), "columns must be at least 1"),
    "rate": (lambda: fn.column_scale(rate=0), "the rate of s must be > 0, got 0"),
    "bias_rate": (lambda: fn.ntk_affine(2, bias_rate=-1), "the rate of b must be > 0"),
    "bias_scale": (lambda: fn.ntk_affine(2, bias_scale=-1), "bias_scale must be >= 0"),
    "weight_scale": (lambda: fn.ntk_affine(2, weight_scale="hee"), "unknown weight_scale 'hee'"),
    "sigma": (lambda: fn.periodic(sigma=0), "sigma must be > 0"),
    "k": (lambda: fn.pbld(k=0), "k must be at least 1"),
    "pbld dim": (lambda: fn.pbld(1), "dim must be at least 2, got 1"),
    "edges of rank 1": (lambda: fn.piecewise_linear([0, 1]), "edges must be [D, B + 1]"),
    "one edge": (lambda: fn.piecewise_linear([[0]]), "edges must be [D, B + 1] with B >= 1"),
    "edges fall": (
        lambda: fn.piecewise_linear([[0, 1], [1, 0]]),
        "edges must not decrease, but those of column 1 do",
    ),
    "edges not finite": (lambda: fn.piecewise_linear([[0, np.inf]]), "edges must be finite"),
    "no groups": (lambda: fn.embed_categories([], 2), "sizes must have a size for each group"),
    "group of 0": (lambda: fn.embed_categories([2, 0], 2), "every size in sizes must be at least"),
    "sizes": (lambda: fn.embed_categories(3, 2), "sizes must be a sequence of sizes, got 3"),
    "no columns": (lambda: fn.on_columns([], fn.relu()), "columns must have a column or more"),
    "columns twice": (lambda: fn.on_columns([1, 1], fn.relu()), "must be distinct, got (1, 1)"),
    "column -1": (lambda: fn.on_columns([-1], fn.relu()), "every column in columns must be at"),
    "a column": (lambda: fn.on_columns(1, fn.relu()), "must be a sequence of columns or a slice"),
    "no layer": (lambda: fn.on_columns([1], fn.relu), "on_columns takes a layer"),
    "quantiles": (lambda: fn.quantile_edges(np.ones((3, 2)), 0), "bins must be at least 1"),
    "quantiles of images": (lambda: fn.quantile_edges(np.ones((3, 2, 2)), 2), "must be [N, D]"),
    "quantiles of NaN": (lambda: fn.quantile_edges([[np.nan]], 2), "x must be finite"),
}


@pytest.mark.parametrize("name", MADE)
def test_constructors_refuse(name):
    make, text = MADE[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(text)) as caught:
        make()
    assert "\n" not in str(caught.value)


SHAPES = {
    "column_affine": (fn.column_affine(2, columns=3), (4,), "must be (D * B,) with D = 3"),
    "periodic": (fn.periodic(), (2, 2), "periodic: in_shape must be (D,), D columns, got [2, 2]"),
    "pbld": (fn.pbld(), (2, 2), "pbld: in_shape must be (D,)"),
    "piecewise_linear": (fn.piecewise_linear(EDGES), (3,), "in_shape must be (4,), the number of"),
    "bins, then affine": (fn.piecewise_linear(EDGES, 2), (3,), "in_shape must be (4,)"),
    "embed_categories": (fn.embed_categories([2, 3], 2), (4,), "must be (5,), the sum of the size"),
    "on_columns": (fn.on_columns([4], fn.relu()), (4,), "column 4 is among its 4"),
    "on_columns, images": (fn.on_columns([1], fn.relu()), (2, 2), "in_shape must be (D,)"),
    "on_columns, none": (fn.on_columns(slice(9, None), fn.relu()), (4,), "but none is among its 4"),
    "parametric": (fn.parametric(fn.affine(3)), (4,), "affine must keep the shape [4], but it"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_input_shapes_are_refused(name):
    layer, in_shape, text = SHAPES[name]
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        layer.init(key, in_shape)
    assert str(caught.value).startswith(f"{layer.kind}: ")
    for bad in (5, (0,), (2.5,)):
        with pytest.raises((TypeError, ValueError), match="in_shape must be"):
            layer.init(key, bad)


ones = partial(np.ones, dtype="f")
ARRAYS = {
    "column_scale": ((ones((4, 5)), ones(4)), "s must have the shape of one example of x, [5]"),
    "ntk_affine": ((ones((4, 5)), ones((4, 2)), ones(2)), "w must be [D, M] with D = 5"),
    "column_affine": ((ones((4, 5)), ones((2, 2, 1)), ones((2, 1))), "x must be [N, 2 * 2]"),
    "column_affine, w": ((ones((4, 4)), ones((4, 1)), ones((2, 1))), "w must be [D, B, M]"),
    "column_affine, b": ((ones((4, 4)), ones((2, 2, 1)), ones(2)), "b must be [D, M] = [2, 1]"),
    "periodic, x": ((ones(4), ones((4, 1)), ones((4, 2, 1)), ones((4, 1))), "x must be [N, D]"),
    "periodic, c": ((ones((3, 4)), ones((3, 1)), ones((4, 2, 1)), ones((4, 1))), "with D = 4, got"),
    "periodic, w": (
        (ones((3, 4)), ones((4, 1)), ones((4, 1, 1)), ones((4, 1))),
        "w must be [D, 2 k, M] = [4, 2, 1], got [4, 1, 1]",
    ),
    "pbld, phase": (
        (ones((3, 4)), ones((4, 1)), ones(4), ones((4, 1, 1)), ones((4, 1))),
        "phase must be [D, k] = [4, 1], got [4]",
    ),
    "piecewise_linear": ((ones((3, 4)), ones((3, 4))), "edges must be [D, B + 1] with D = 4"),
    "piecewise_linear, x": ((ones(3), ones((3, 4))), "x must be [N, D], got [3]"),
    "piecewise_linear, integers": ((np.ones((3, 4), int), ones((4, 2))), "one floating point"),
    "parametric": ((ones((3, 4)), ones((4, 3)), ones(4)), "y must be the shape of x = [3, 4]"),
    "prelu": ((ones(4), ones(4)), "x must be [N, ...]"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(name):
    inputs, text = ARRAYS[name]
    kind = name.split(",")[0]
    with pytest.raises((TypeError, ValueError), match=re.escape(text)) as caught:
        getattr(fn, f"{kind}_forward")(*inputs)
    assert str(caught.value).startswith(f"{kind}: ")
    assert "\n" not in str(caught.value)


def test_categories_that_do_not_fit_are_refused():
    for x, w, text in (
        (ones((3, 4)), ones((5, 2)), "x must be [N, 5], the sum of the sizes, got [3, 4]"),
        (ones((3, 5)), ones((4, 2)), "w must be [S, M] with S = 5, got [4, 2]"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"embed_categories: {text}")):
            fn.embed_categories_forward(x, w, sizes=(2, 3))


def test_parameters_of_the_wrong_names_are_refused():
    layer = fn.parametric("prelu", rate=0.5)
    params, state, _ = layer.init(key, (4,))
    x = ones((3, 4))
    for bad in (params.without("a"), params | {"b": ones(4)}):
        with pytest.raises(ValueError, match="parametric: params must have a, and prelu1"):
            layer.forward(bad, state, x)
    with pytest.raises(ValueError, match="prelu: params must have slope") as caught:
        layer.forward(params.without("prelu1"), state, x)
    assert caught.value.__notes__ == ["in layer prelu1"]
    with pytest.raises(ValueError, match=re.escape("column_scale: params must have s, got []")):
        fn.column_scale(rate=2).forward({}, {}, x)
