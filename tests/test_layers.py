"""Forward and backward passes of the layers, on arrays.

A new layer is one more row of LAYERS: everything in the first part runs over it.
"""

import math
import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.net import ACTIVATIONS, NORMALIZATIONS

pytestmark = pytest.mark.usefixtures("unoptimized")


class Row(NamedTuple):
    """A layer: its pair, a slow forward pass in NumPy, and shapes to try, one tuple an input.

    What is no input of `forward(*inputs)`, such as a random key, is bound to it.
    """

    forward: object
    backward: object
    numpy: object
    shapes: tuple


def flat(x):
    return x.reshape(len(x), -1)


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mish(x):
    return x * np.tanh(np.log1p(np.exp(x)))


def np_columns(x, w, b):
    return flat(np.einsum("ndb,dbm->ndm", x.reshape(len(x), *w.shape[:2]), w) + b)


def np_periodic(x, c, w, b):
    v = 2 * np.pi * (x[..., None] * c)
    return np_columns(np.concatenate([np.cos(v), np.sin(v)], axis=-1), w, b)


def np_pbld(x, c, phase, w, b):
    waves = np_columns(np.cos(2 * np.pi * (x[..., None] * c) + phase), w, b)
    mapped = waves.reshape(*x.shape, w.shape[2])
    return flat(np.concatenate([x[..., None], mapped], axis=-1))


def bin_edges(columns):
    """Columns of several kinds: two edges are equal, at the start, in the middle, or at the end."""
    kinds = [[-1, 0, 1.5, 2], [0, 0, 1, 2], [0, 0.7, 0.7, 2], [-1, 0, 3, 3], [0.1, 0.1, 0.1, 0.1]]
    return np.array([kinds[i % len(kinds)] for i in range(columns)])


def piecewise_linear(x):
    return fn.piecewise_linear_forward(x, bin_edges(x.shape[1]))


def np_piecewise_linear(x):
    """Number by number."""
    out = np.zeros((*x.shape, 3))
    for (n, d), value in np.ndenumerate(x):
        edges = bin_edges(x.shape[1])[d]
        real = [t for t in range(3) if edges[t + 1] > edges[t]]
        for t in real:
            share = (value - edges[t]) / (edges[t + 1] - edges[t])
            share = share if t == real[0] else max(share, 0)
            out[n, d, t] = share if t == real[-1] else min(share, 1)
    return flat(out)


def np_embed_categories(x, w):
    groups = zip(np.split(x, [2, 5], axis=1), np.split(w, [2, 5]), strict=True)
    return np.concatenate([part @ matrix for part, matrix in groups], axis=1)


def members(x, count):
    """The same x for each member, or the x that each has."""
    return np.repeat(x[:, None], count, axis=1) if x.ndim == 2 else x


def statistics(shape, dtype="float32"):
    """Running statistics of some training: other means than 0, other variances than 1."""
    size = math.prod(shape)
    moments = {"mean": np.linspace(-1, 2, size), "var": np.linspace(3, 0.4, size)}
    return {name: value.reshape(shape).astype(dtype) for name, value in moments.items()}


def batchnorm(x, gamma, beta, *, train):
    running = fn.freeze(statistics(x.shape[1:], x.dtype))
    return fn.batchnorm_forward(x, gamma, beta, running, train=train)[:2]


def normalized(x, gamma, beta, mean, var):
    return gamma * (x - mean) / np.sqrt(var + 1e-5) + beta


def np_batchnorm(x, gamma, beta):
    return normalized(x, gamma, beta, x.mean(axis=0), x.var(axis=0))


def np_batchnorm_evaluated(x, gamma, beta):
    return normalized(x, gamma, beta, **statistics(x.shape[1:], "float64"))


def np_layernorm(x, gamma, beta):
    moments = [f(flat(x), axis=1).reshape(-1, *[1] * (x.ndim - 1)) for f in (np.mean, np.var)]
    return normalized(x, gamma, beta, *moments)


def dropout(x, *, train):
    return fn.dropout_forward(x, DROPOUT_KEY, 0.7, train=train)


def np_dropout(x):
    mask, _ = dropout(jnp.ones(x.shape), train=True)
    return x * np.asarray(mask)


DROPOUT_KEY = jax.random.key(7)
ELEMENTWISE_SHAPES = (((4, 5),), ((3, 2, 4),), ((2, 3, 4, 5),), ((7,),))
# A batch of two would do, but its outputs are all but signs: the gradients are tiny differences.
NORM_SHAPES = (
    ((4, 5), (5,), (5,)),
    ((5, 2, 3), (2, 3), (2, 3)),
    ((3, 2, 4, 5), (2, 4, 5), (2, 4, 5)),
    ((6, 1), (1,), (1,)),
)
AFFINE_SHAPES = (
    ((4, 5), (5, 3), (3,)),
    ((5, 2, 3), (6, 4), (4,)),
    ((3, 2, 4, 5), (40, 7), (7,)),
    ((1, 6), (6, 2), (2,)),
    ((5, 1), (1, 3), (3,)),
    ((5, 3), (3, 1), (1,)),
    ((1, 1), (1, 1), (1,)),
)

LAYERS = {
    "affine": Row(
        fn.affine_forward, fn.affine_backward, lambda x, w, b: flat(x) @ w + b, AFFINE_SHAPES
    ),
    "relu": Row(
        fn.relu_forward,
        fn.relu_backward,
        lambda x: x * (x > 0),
        (((4, 5),), ((3, 2, 4),), ((2, 3, 4, 5),), ((1, 1),), ((7,),)),
    ),
    "affine_relu": Row(
        fn.affine_relu_forward,
        fn.affine_relu_backward,
        lambda x, w, b: np.maximum(flat(x) @ w + b, 0),
        AFFINE_SHAPES,
    ),
    "leaky_relu": Row(
        partial(fn.leaky_relu_forward, negative_slope=0.3),
        fn.leaky_relu_backward,
        lambda x: np.where(x > 0, x, 0.3 * x),
        ELEMENTWISE_SHAPES,
    ),
    "gelu": Row(
        fn.gelu_forward,
        fn.gelu_backward,
        lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
        ELEMENTWISE_SHAPES,
    ),
    "gelu_tanh": Row(fn.gelu_tanh_forward, fn.gelu_tanh_backward, gelu_tanh, ELEMENTWISE_SHAPES),
    "tanh": Row(fn.tanh_forward, fn.tanh_backward, np.tanh, ELEMENTWISE_SHAPES),
    "logistic": Row(
        fn.logistic_forward,
        fn.logistic_backward,
        lambda x: 1 / (1 + np.exp(-x)),
        ELEMENTWISE_SHAPES,
    ),
    "selu": Row(
        fn.selu_forward,
        fn.selu_backward,
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
        ELEMENTWISE_SHAPES,
    ),
    "mish": Row(fn.mish_forward, fn.mish_backward, mish, ELEMENTWISE_SHAPES),
    "prelu": Row(
        fn.prelu_forward,
        fn.prelu_backward,
        lambda x, slope: np.where(x > 0, x, slope * x),
        (((4, 5), (5,)), ((3, 2, 4), (2, 4))),
    ),
    "parametric": Row(
        fn.parametric_forward,
        fn.parametric_backward,
        lambda x, y, a: x + a * (y - x),
        (((4, 5), (4, 5), (5,)), ((3, 2, 4), (3, 2, 4), (2, 4))),
    ),
    "flatten": Row(
        fn.flatten_forward, fn.flatten_backward, flat, (((4, 5),), ((3, 2, 4),), ((2, 3, 1, 2),))
    ),
    "column_scale": Row(
        fn.column_scale_forward,
        fn.column_scale_backward,
        lambda x, s: x * s,
        (((4, 5), (5,)), ((3, 2, 4), (2, 4))),
    ),
    "ntk_affine": Row(
        fn.ntk_affine_forward,
        fn.ntk_affine_backward,
        lambda x, w, b: flat(x) @ w / np.sqrt(len(w)) + b,
        AFFINE_SHAPES[:2],
    ),
    "column_affine": Row(
        fn.column_affine_forward,
        fn.column_affine_backward,
        np_columns,
        (((4, 6), (3, 2, 5), (3, 5)), ((3, 4), (2, 2, 1), (2, 1))),
    ),
    "periodic": Row(
        fn.periodic_forward,
        fn.periodic_backward,
        np_periodic,
        (((4, 3), (3, 2), (3, 4, 5), (3, 5)), ((3, 2), (2, 1), (2, 2, 3), (2, 3))),
    ),
    "pbld": Row(
        fn.pbld_forward,
        fn.pbld_backward,
        np_pbld,
        (((4, 3), (3, 2), (3, 2), (3, 2, 5), (3, 5)), ((3, 2), (2, 3), (2, 3), (2, 3, 1), (2, 1))),
    ),
    "piecewise_linear": Row(
        piecewise_linear, fn.piecewise_linear_backward, np_piecewise_linear, (((9, 5),), ((4, 3),))
    ),
    "embed_categories": Row(
        partial(fn.embed_categories_forward, sizes=(2, 3, 1)),
        fn.embed_categories_backward,
        np_embed_categories,
        (((4, 6), (6, 5)), ((3, 6), (6, 2))),
    ),
    "member_scale": Row(
        fn.member_scale_forward,
        fn.member_scale_backward,
        lambda x, r: members(x, len(r)) * r,
        (((4, 5), (3, 5)), ((3, 2, 4), (2, 4))),
    ),
    "batch_ensemble_affine": Row(
        fn.batch_ensemble_affine_forward,
        fn.batch_ensemble_affine_backward,
        lambda x, w, r, s, b: (members(x, len(r)) * r) @ w * s + b,
        (
            ((4, 5), (5, 3), (2, 5), (2, 3), (2, 3)),
            ((3, 2, 4), (4, 1), (2, 4), (2, 1), (2, 1)),
        ),
    ),
    "shared_affine": Row(
        fn.shared_affine_forward,
        fn.shared_affine_backward,
        lambda x, w, b: x @ w + b,
        (((4, 5), (5, 3), (3,)), ((3, 2, 4), (4, 5), (5,))),
    ),
    "member_affine": Row(
        fn.member_affine_forward,
        fn.member_affine_backward,
        lambda x, w, b: np.einsum("nkd,kdm->nkm", members(x, len(w)), w) + b,
        (((4, 5), (2, 5, 3), (2, 3)), ((3, 2, 4), (2, 4, 1), (2, 1))),
    ),
    "batchnorm": Row(
        partial(batchnorm, train=True), fn.batchnorm_backward, np_batchnorm, NORM_SHAPES
    ),
    "batchnorm evaluated": Row(
        partial(batchnorm, train=False),
        fn.batchnorm_backward,
        np_batchnorm_evaluated,
        (*NORM_SHAPES[:3], ((1, 6), (6,), (6,))),
    ),
    "layernorm": Row(
        fn.layernorm_forward,
        fn.layernorm_backward,
        np_layernorm,
        (*NORM_SHAPES, ((1, 6), (6,), (6,))),
    ),
    "dropout": Row(
        partial(dropout, train=True), fn.dropout_backward, np_dropout, ELEMENTWISE_SHAPES
    ),
    "dropout evaluated": Row(
        partial(dropout, train=False), fn.dropout_backward, lambda x: x, ELEMENTWISE_SHAPES
    ),
}
# Layers for tables and of members, of which less is looked at each time.
SPECIAL = {
    *("column_scale", "ntk_affine", "column_affine", "periodic", "pbld", "piecewise_linear"),
    *("embed_categories", "member_scale", "batch_ensemble_affine", "shared_affine"),
    *("member_affine", "parametric"),
}


def marks(name, seldom):
    return pytest.mark.slow if seldom and name in SPECIAL else ()


CASES = [
    pytest.param(row, s, id=f"{name}-{'x'.join(map(str, s[0]))}", marks=marks(name, i > 0))
    for name, row in LAYERS.items()
    for i, s in enumerate(row.shapes)
]
SOME = [
    pytest.param(row, shapes, id=f"{name}-{'x'.join(map(str, shapes[0]))}", marks=marks(name, True))
    for name, row in LAYERS.items()
    for shapes in row.shapes[1:4:2]
]
FIRST = [pytest.param(row, row.shapes[1], id=name) for name, row in LAYERS.items()]
SELDOM = [
    pytest.param(row, row.shapes[1], id=name, marks=marks(name, True))
    for name, row in LAYERS.items()
]


def draw(rng, shapes, dtype="float64"):
    """Normal inputs of a scale other than 1, around 0.3."""
    return [jnp.asarray(0.3 + 1.7 * rng.normal(size=shape), dtype) for shape in shapes]


def as_tuple(grads):
    return grads if isinstance(grads, tuple) else (grads,)


def test_every_pair_has_a_row():
    pairs = {name.removesuffix("_forward") for name in fn.__all__ if name.endswith("_forward")}
    assert pairs | ACTIVATIONS.keys() | NORMALIZATIONS.keys() <= LAYERS.keys()
    for name in pairs:
        backward = getattr(fn, f"{name}_backward")
        assert {row.backward for row in LAYERS.values()} >= {backward}


def by_hand(row, inputs, rng):
    """The output, a random cotangent, and the hand-written gradients of all inputs."""
    out, cache = row.forward(*inputs)
    dout = jnp.asarray(2.3 * rng.normal(size=out.shape), out.dtype)
    return out, dout, as_tuple(row.backward(dout, cache))


@partial(jax.jit, static_argnums=0)
def compiled(row, inputs, dout):
    out, cache = row.forward(*inputs)
    auto = jax.vjp(lambda *inputs: row.forward(*inputs)[0], *inputs)[1](dout)
    return out, as_tuple(row.backward(dout, cache)), auto


def by_hand_and_autodiff(row, inputs, rng):
    """`by_hand`, and the gradients by autodiff: one compile for a shape."""
    shape = row.numpy(*(np.zeros(v.shape) for v in inputs)).shape
    dout = jnp.asarray(2.3 * rng.normal(size=shape), inputs[0].dtype)
    out, grads, auto = compiled(row, tuple(inputs), dout)
    return out, dout, grads, auto


def check_close(actual, expected, tol):
    assert fn.scaled_error(actual, expected) <= tol
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype


# Values


@pytest.mark.parametrize(("row", "shapes"), CASES)
def test_forward_is_numpys(row, shapes, rng, x64):
    inputs = draw(rng, shapes)
    out, *_ = by_hand_and_autodiff(row, inputs, rng)
    expected = row.numpy(*map(np.asarray, inputs))
    assert out.shape == expected.shape
    assert out.dtype == np.float64
    assert fn.scaled_error(out, expected) <= 1e-14


@pytest.mark.parametrize(("row", "shapes"), CASES)
def test_backward_is_autodiffs(row, shapes, rng, x64):
    inputs = draw(rng, shapes)
    _, _, grads, auto = by_hand_and_autodiff(row, inputs, rng)
    check_close(grads, auto, 1e-12)
    for grad, value in zip(grads, inputs, strict=True):
        assert grad.shape == value.shape


@pytest.mark.parametrize(("row", "shapes"), SOME)
def test_backward_is_the_numerical_gradient(row, shapes, rng, x64):
    inputs = draw(rng, shapes)
    _, dout, grads, _ = by_hand_and_autodiff(row, inputs, rng)
    numerical = fn.numerical_gradient(lambda v: row.forward(*v)[0], tuple(inputs), dout)
    assert fn.scaled_error(grads, numerical) <= 1e-7


@pytest.mark.parametrize(("row", "shapes"), CASES)
def test_backward_in_float32(row, shapes, rng):
    inputs = draw(rng, shapes, "float32")
    out, _, grads, auto = by_hand_and_autodiff(row, inputs, rng)
    check_close(grads, auto, 1e-5)
    assert out.dtype == np.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize(("row", "shapes"), SELDOM)
def test_dtypes_are_kept(row, shapes, dtype, rng, x64):
    out, _, grads = by_hand(row, draw(rng, shapes, dtype), rng)
    assert {array.dtype for array in (out, *grads)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(("row", "shapes"), SELDOM)
def test_numpy_inputs_give_the_same(row, shapes, rng, x64):
    inputs = draw(rng, shapes)
    out, dout, grads = by_hand(row, inputs, rng)
    np_out, cache = row.forward(*map(np.asarray, inputs))
    np_grads = as_tuple(row.backward(np.asarray(dout), cache))
    for a, b in zip((out, *grads), (np_out, *np_grads), strict=True):
        assert isinstance(b, jax.Array)
        np.testing.assert_array_equal(a, b)


# Caches


@pytest.mark.parametrize(("row", "shapes"), FIRST)
def test_caches_are_trees_of_arrays(row, shapes, rng):
    _, cache = row.forward(*draw(rng, shapes, "float32"))
    leaves = jax.tree.leaves(cache)
    assert leaves
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)


@pytest.mark.parametrize(("row", "shapes"), SELDOM)
def test_forward_and_backward_are_jitted_apart(row, shapes, rng, x64):
    inputs = draw(rng, shapes)
    _, dout, expected = by_hand(row, inputs, rng)
    _, cache = jax.jit(row.forward)(*inputs)
    check_close(as_tuple(jax.jit(row.backward)(dout, cache)), expected, 1e-14)


@pytest.mark.parametrize(("row", "shapes"), FIRST)
def test_vmap(row, shapes, rng, x64):
    batches = [draw(rng, shapes) for _ in range(3)]
    stacked = [jnp.stack(column) for column in zip(*batches, strict=True)]
    out, caches = jax.vmap(row.forward)(*stacked)
    dout = jnp.asarray(rng.normal(size=out.shape))
    grads = as_tuple(jax.vmap(row.backward)(dout, caches))
    for i, inputs in enumerate(batches):
        expected_out, cache = row.forward(*inputs)
        expected = (expected_out, *as_tuple(row.backward(dout[i], cache)))
        check_close(tuple(array[i] for array in (out, *grads)), expected, 1e-14)


@pytest.mark.parametrize(("row", "shapes"), SELDOM)
def test_scan(row, shapes, rng, x64):
    batches = [draw(rng, shapes) for _ in range(3)]
    stacked = [jnp.stack(column) for column in zip(*batches, strict=True)]
    _, (out, caches) = jax.lax.scan(lambda _, v: (None, row.forward(*v)), None, stacked)
    dout = jnp.asarray(rng.normal(size=out.shape))
    _, grads = jax.lax.scan(lambda _, v: (None, row.backward(*v)), None, (dout, caches))
    _, cache = row.forward(*batches[2])
    expected = as_tuple(row.backward(dout[2], cache))
    check_close(tuple(array[2] for array in as_tuple(grads)), expected, 1e-14)


# ReLU at the edge


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_relu_at_zero_nan_and_infinity(dtype):
    x = jnp.array([0.0, -0.0, jnp.nan, jnp.inf, -jnp.inf, 1e-30, -1e-30], dtype)
    out, cache = fn.relu_forward(x)
    np.testing.assert_array_equal(
        np.asarray(out, np.float32),
        np.asarray(jnp.array([0, 0, jnp.nan, jnp.inf, 0, 1e-30, 0], dtype), np.float32),
    )
    dout = jnp.array([1.5, -2.5, 3.5, -4.5, 5.5, 6.5, 7.5], dtype)
    dx = fn.relu_backward(dout, cache)
    expected = np.array([0, 0, 3.5, -4.5, 0, 6.5, 0], np.float32)
    np.testing.assert_array_equal(np.asarray(dx, np.float32), expected)
    (auto,) = jax.vjp(lambda x: fn.relu_forward(x)[0], x)[1](dout)
    np.testing.assert_array_equal(np.asarray(auto, np.float32), expected)


def test_a_nan_survives_the_whole_layer(rng):
    x, w, b = draw(rng, [(4, 5), (5, 3), (3,)], "float32")
    out, _ = fn.affine_relu_forward(x.at[1, 2].set(jnp.nan), w, b)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[0]).all()


def test_a_dead_unit_passes_no_gradient(rng, x64):
    inputs = draw(rng, [(4, 2, 3), (6, 5), (5,)])
    inputs[2] = inputs[2].at[3].set(-1e3)
    _, _, (_, dw, db) = by_hand(LAYERS["affine_relu"], inputs, rng)
    assert np.all(np.asarray(dw[:, 3]) == 0)
    assert db[3] == 0
    assert np.all(np.asarray(db[:3]) != 0)


# Leaky ReLU


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_leaky_relu_at_zero_nan_and_infinity(dtype):
    x = jnp.array([0.0, -0.0, jnp.nan, jnp.inf, -jnp.inf, 2.0, -2.0], dtype)
    out, cache = fn.leaky_relu_forward(x, 0.25)
    np.testing.assert_array_equal(
        np.asarray(out, "f"), np.array([0, 0, np.nan, np.inf, -np.inf, 2, -0.5], "f")
    )
    dout = jnp.array([1.5, -2.5, 3.5, -4.5, 5.5, 6.5, 7.5], dtype)
    dx = fn.leaky_relu_backward(dout, cache)
    expected = np.array([0.375, -0.625, 3.5, -4.5, 1.375, 6.5, 1.875], "f")
    np.testing.assert_array_equal(np.asarray(dx, "f"), expected)
    (auto,) = jax.vjp(lambda x: fn.leaky_relu_forward(x, 0.25)[0], x)[1](dout)
    np.testing.assert_array_equal(np.asarray(auto, "f"), expected)


def test_leaky_relu_has_a_slope_of_a_hundredth_and_takes_a_traced_one():
    x = jnp.array([-3.0, 2.0])
    np.testing.assert_allclose(fn.leaky_relu_forward(x)[0], [-0.03, 2], rtol=1e-6)
    slopes = jnp.array([0.0, 0.5, 1.0])
    out, caches = jax.jit(jax.vmap(fn.leaky_relu_forward, in_axes=(None, 0)))(x, slopes)
    np.testing.assert_array_equal(out, [[0, 2], [-1.5, 2], [-3, 2]])
    dx = jax.vmap(fn.leaky_relu_backward, in_axes=(None, 0))(jnp.ones(2), caches)
    np.testing.assert_array_equal(dx, [[0, 1], [0.5, 1], [1, 1]])


# GELU and tanh

ELEMENTWISE = ["gelu", "gelu_tanh", "tanh", "logistic", "selu", "mish", "dropout"]
GELUS = {
    "gelu": (fn.gelu_forward, fn.gelu_backward),
    "gelu_tanh": (fn.gelu_tanh_forward, fn.gelu_tanh_backward),
}


def test_gelu_keeps_its_digits_in_the_tail(x64):
    x = np.array([-30.0, -20.0, -8.0, -3.0, -1.0, 0.0, 0.5, 1.0, 3.0, 20.0])
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    out, cache = fn.gelu_forward(x)
    dx = fn.gelu_backward(np.ones(len(x)), cache)
    np.testing.assert_allclose(out, x * cdf, rtol=1e-12)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(dx, cdf + x * density, rtol=1e-12)
    assert np.all(out[:5] < 0)
    assert np.all(dx[:5] < 0)


def test_gelu_of_one():
    np.testing.assert_allclose(fn.gelu_forward(jnp.ones(1))[0], 0.8413447, rtol=1e-6)
    np.testing.assert_allclose(fn.gelu_tanh_forward(jnp.ones(1))[0], 0.8411920, rtol=1e-6)


def test_gelu_by_tanh_is_within_5e_4_of_the_exact_one(x64):
    x = jnp.linspace(-10, 10, 2001)
    gap = jnp.abs(fn.gelu_tanh_forward(x)[0] - fn.gelu_forward(x)[0]).max()
    assert 1e-4 < gap < 5e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pair", GELUS)
def test_gelu_of_huge_inputs(pair, dtype):
    forward, backward = GELUS[pair]
    x = jnp.array([1e13, 1e20, 1e30, 3e38, -1e13, -1e20, -1e30, -3e38], dtype)
    out, cache = forward(x)
    np.testing.assert_array_equal(out, jnp.where(x > 0, x, 0))
    dx = backward(jnp.full(8, 1.5, dtype), cache)
    np.testing.assert_array_equal(np.asarray(dx, "f"), np.repeat([1.5, 0], 4))


@pytest.mark.parametrize("layer", ELEMENTWISE)
def test_a_nan_survives_an_elementwise_layer(layer):
    row = LAYERS[layer]
    x = jnp.array([1.0, jnp.nan, -1.0, 0.0])
    if layer == "dropout":
        row = row._replace(forward=lambda x: fn.dropout_forward(x, DROPOUT_KEY, 1, train=True))
    out, cache = row.forward(x)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(x))
    if layer != "dropout":  # its gradient is the same everywhere
        dx = row.backward(jnp.ones(4), cache)
        np.testing.assert_array_equal(np.isnan(dx), np.isnan(x))


def test_logistic_keeps_its_digits_in_both_tails(x64):
    x = np.array([-700.0, -40.0, -1.0, 0.0, 1.0, 40.0, 700.0])
    out, cache = fn.logistic_forward(x)
    e = np.exp(-np.abs(x))
    np.testing.assert_allclose(out, np.where(x < 0, e, 1) / (1 + e), rtol=1e-14)
    dx = fn.logistic_backward(np.full(len(x), 2.0), cache)
    np.testing.assert_allclose(dx, 2 * e / (1 + e) ** 2, rtol=1e-14)
    out, cache = fn.logistic_forward(np.array([-1e30, 1e30]))
    np.testing.assert_array_equal(out, [0, 1])
    np.testing.assert_array_equal(fn.logistic_backward(np.ones(2), cache), [0, 0])


# SELU, Mish and PReLU


def test_selu_keeps_mean_and_variance_of_a_normal_distribution(x64):
    x = np.linspace(-12, 12, 24_001)
    weights = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * 1e-3
    out = np.asarray(fn.selu_forward(x)[0])
    np.testing.assert_allclose([(weights * out).sum(), (weights * out**2).sum()], [0, 1], atol=1e-6)


def test_the_constants_of_selu_are_those_of_the_paper(x64):
    e = math.erfc(math.sqrt(0.5))
    alpha = -math.sqrt(2 / math.pi) / (e * math.exp(0.5) - 1)
    inside = 2 * math.erfc(math.sqrt(2)) * math.e**2 + math.pi * e**2 * math.e
    inside += math.pi + 2 - 2 * (2 + math.pi) * e * math.exp(0.5)
    scale = (1 - e * math.exp(0.5)) * math.sqrt(2 * math.pi / inside)
    out, _ = fn.selu_forward(np.array([1.0, -40.0, 0.0]))
    np.testing.assert_allclose(out, [scale, -scale * alpha, 0], rtol=1e-14)


def test_mish_keeps_its_digits_everywhere(x64):
    x = np.array([-700.0, -300.0, -40.0, -5.0, -1.0, 0.0, 0.5, 1.0, 5.0, 40.0, 1e300])
    u = np.log1p(np.exp(np.minimum(x, 700)))
    out, cache = fn.mish_forward(x)
    np.testing.assert_allclose(out, np.where(x > 50, x, x * np.tanh(u)), rtol=1e-14)
    dx = fn.mish_backward(np.ones(len(x)), cache)
    sigmoid = np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
    slope = sigmoid / np.cosh(np.minimum(u, 300)) ** 2
    np.testing.assert_allclose(dx, np.tanh(u) + np.where(x > 50, 0, x * slope), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pair", ["selu", "mish"])
def test_selu_and_mish_of_huge_inputs(pair, dtype):
    x = jnp.array([1e13, 1e30, 1e38, -1e13, -1e30, -1e38, -0.0, 0.0], dtype)
    out, cache = LAYERS[pair].forward(x)
    dx = LAYERS[pair].backward(jnp.ones(8, dtype), cache)
    assert np.isfinite(np.asarray(out, "f")).all()
    assert np.isfinite(np.asarray(dx, "f")).all()
    right, left = (1.0507, -1.7581) if pair == "selu" else (1, 0)
    np.testing.assert_allclose(np.asarray(out[:3] / x[:3], "f"), right, rtol=1e-2)
    np.testing.assert_allclose(np.asarray(out[3:6], "f"), left, rtol=1e-2)
    np.testing.assert_allclose(np.asarray(dx[3:6], "f"), 0)


@pytest.mark.parametrize("pair", ["selu", "mish"])
def test_the_gradient_at_exactly_0_is_autodiffs(pair, x64):
    x = jnp.array([0.0, -0.0])
    forward, backward = LAYERS[pair].forward, LAYERS[pair].backward
    _, cache = forward(x)
    (auto,) = jax.vjp(lambda x: forward(x)[0], x)[1](jnp.ones(2))
    np.testing.assert_allclose(backward(jnp.ones(2), cache), auto, rtol=1e-15)
    np.testing.assert_allclose(auto, 1.7580993408473766 if pair == "selu" else 0.6, rtol=1e-14)


def test_prelu_at_zero_nan_and_infinity():
    x = jnp.array([[0.0, -0.0, jnp.nan, jnp.inf, -jnp.inf, 2.0, -2.0]])
    out, cache = fn.prelu_forward(x, jnp.full(7, 0.25))
    np.testing.assert_array_equal(out, [[0, 0, np.nan, np.inf, -np.inf, 2, -0.5]])
    dx, dslope = fn.prelu_backward(jnp.full((1, 7), 4.0), cache)
    np.testing.assert_array_equal(dx, [[1, 1, 4, 4, 1, 4, 1]])
    np.testing.assert_array_equal(dslope, [0, 0, 0, 0, -np.inf, 0, -8])


# Normalization


@pytest.mark.parametrize("shape", [(6, 4), (5, 2, 3), (4, 3, 2, 5)], ids=str)
@pytest.mark.parametrize("layer", ["batchnorm", "layernorm"])
def test_outputs_have_the_mean_beta_and_the_spread_gamma(layer, shape, rng, x64):
    x = 5 + 3 * rng.normal(size=shape)
    axes = 0 if layer == "batchnorm" else tuple(range(1, len(shape)))
    var = x.var(axis=axes)
    ones, zeros = np.ones(shape[1:]), np.zeros(shape[1:])
    out, _ = LAYERS[layer].forward(x, ones, zeros)
    np.testing.assert_allclose(out.mean(axis=axes), 0, atol=1e-14)
    np.testing.assert_allclose(out.var(axis=axes), var / (var + 1e-5), rtol=1e-13)
    gamma, beta = draw(rng, [shape[1:], shape[1:]])
    scaled, _ = LAYERS[layer].forward(x, gamma, beta)
    np.testing.assert_allclose(scaled, gamma * out + beta, rtol=1e-12, atol=1e-12)
    if layer == "batchnorm":
        np.testing.assert_allclose(scaled.mean(axis=0), beta, rtol=1e-12)
        spread = np.sqrt(var / (var + 1e-5))
        np.testing.assert_allclose(scaled.std(axis=0), np.abs(gamma) * spread, rtol=1e-12)


def test_eps_is_added_to_the_variance(rng, x64):
    x, gamma, beta = draw(rng, [(6, 4), (4,), (4,)])
    for eps in (0.0, 0.5):
        out, *_ = fn.batchnorm_forward(x, gamma, beta, statistics((4,)), train=True, eps=eps)
        expected = gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
        out, _ = fn.layernorm_forward(x, gamma, beta, eps=eps)
        centred = x - x.mean(axis=1, keepdims=True)
        expected = gamma * centred / np.sqrt(x.var(axis=1, keepdims=True) + eps) + beta
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("momentum", [None, 0.6, 0.0, 1.0])
def test_running_statistics_follow_the_batches(momentum, rng, x64):
    shape = (2, 3)
    running = statistics(shape, "float64")
    mean, var = (np.array(running[name]) for name in ("mean", "var"))
    kept = 0.9 if momentum is None else momentum
    options = {} if momentum is None else {"momentum": momentum}
    for n in (5, 2, 7, 4):
        x, gamma, beta = draw(rng, [(n, *shape), shape, shape])
        _, _, running = fn.batchnorm_forward(x, gamma, beta, running, train=True, **options)
        x = np.asarray(x)
        mean = kept * mean + (1 - kept) * x.sum(axis=0) / n
        var = kept * var + (1 - kept) * ((x - x.mean(axis=0)) ** 2).sum(axis=0) / n  # biased
    np.testing.assert_allclose(running["mean"], mean, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(running["var"], var, rtol=1e-13)


@pytest.mark.parametrize("layer", ["batchnorm evaluated", "layernorm"])
def test_an_example_is_normalized_alone_as_in_company(layer, rng, x64):
    x, gamma, beta = draw(rng, [(5, 2, 3), (2, 3), (2, 3)])
    out, _ = LAYERS[layer].forward(x, gamma, beta)
    for i in range(5):
        alone, _ = LAYERS[layer].forward(x[i : i + 1], gamma, beta)
        np.testing.assert_allclose(alone[0], out[i], rtol=1e-15, atol=1e-15)
    company, _ = LAYERS[layer].forward(jnp.concatenate([x[3:], 100 * x, x[:3]]), gamma, beta)
    np.testing.assert_allclose(company[-3:], out[:3], rtol=1e-15, atol=1e-15)


RUNNING = {
    "dict": lambda r: jax.tree.map(jnp.asarray, r),
    "FrozenDict": fn.freeze,
    "NumPy": lambda r: r,
    "bfloat16": lambda r: jax.tree.map(lambda v: jnp.asarray(v, "bfloat16"), r),
    "float64": lambda r: jax.tree.map(lambda v: v.astype("float64"), r),
}


@pytest.mark.parametrize("kind", RUNNING)
def test_running_statistics_keep_structure_and_dtype_and_stay_in_evaluation(kind, rng, x64):
    x, gamma, beta = draw(rng, [(4, 3), (3,), (3,)], "float32")
    running = RUNNING[kind](statistics((3,)))
    _, _, trained = fn.batchnorm_forward(x, gamma, beta, running, train=True)
    _, _, evaluated = fn.batchnorm_forward(x, gamma, beta, running, train=False)
    for new in (trained, evaluated):
        assert jax.tree.structure(new) == jax.tree.structure(running)
        for name in ("mean", "var"):
            wide = jnp.promote_types(running[name].dtype, jnp.float32) if new is trained else None
            assert new[name].dtype == (wide or running[name].dtype)
            assert new[name].shape == (3,)
    for name in ("mean", "var"):
        assert np.all(trained[name] != running[name])
        np.testing.assert_array_equal(evaluated[name], running[name])


def test_a_running_variance_of_half_precision_does_not_overflow(rng):
    x = jnp.asarray(300 * rng.normal(size=(64, 3)), jnp.float16)  # of variance 90,000
    ones, running = jnp.ones(3, jnp.float16), {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    half = {name: leaf.astype(jnp.float16) for name, leaf in running.items()}
    for _ in range(50):
        _, _, running = fn.batchnorm_forward(x, ones, ones, running, train=True)
        _, _, half = fn.batchnorm_forward(x, ones, ones, half, train=True)
    np.testing.assert_allclose(half["var"], running["var"], rtol=1e-3)
    assert float(half["var"].min()) > 40_000


def test_a_batch_of_one_is_refused_in_training_only(rng):
    x, gamma, beta = draw(rng, [(1, 3), (3,), (3,)], "float32")
    with pytest.raises(ValueError, match="batchnorm: a batch of one example has no variance"):
        fn.batchnorm_forward(x, gamma, beta, statistics((3,)), train=True)
    out, *_ = fn.batchnorm_forward(x, gamma, beta, statistics((3,)), train=False)
    expected = np_batchnorm_evaluated(*map(np.asarray, (x, gamma, beta)))
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize("layer", ["batchnorm", "layernorm"])
def test_a_large_mean_costs_no_more_digits_than_it_must(layer, rng):
    x = (1e4 + rng.normal(size=(60, 50))).astype("f")
    ones, zeros = np.ones(50, "f"), np.zeros(50, "f")
    out, _ = LAYERS[layer].forward(x, ones, zeros)
    exact = LAYERS[layer].numpy(x.astype(np.float64), ones, zeros)
    np.testing.assert_allclose(out, exact, atol=5e-3)


def test_statistics_of_half_precision_are_summed_in_single(rng):
    x, gamma, beta = draw(rng, [(300, 3), (3,), (3,)], "bfloat16")
    _, _, running = fn.batchnorm_forward(x, gamma, beta, statistics((3,)), train=True, momentum=0)
    x = np.asarray(x, np.float64)
    np.testing.assert_allclose(running["mean"], x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(running["var"], x.var(axis=0), rtol=1e-5)


def test_momentum_and_eps_are_traced(rng, x64):
    x, gamma, beta = draw(rng, [(4, 3), (3,), (3,)])

    def forward(momentum, eps):
        running = statistics((3,), "float64")
        options = {"train": True, "momentum": momentum, "eps": eps}
        out, _, running = fn.batchnorm_forward(x, gamma, beta, running, **options)
        return out, running, fn.layernorm_forward(x, gamma, beta, eps=eps)[0]

    settings = jnp.array([0.5, 0.8]), jnp.array([1e-3, 0.2])
    swept = jax.jit(jax.vmap(forward))(*settings)
    expected = forward(0.8, 0.2)
    assert fn.scaled_error(jax.tree.map(lambda v: v[1], swept), expected) <= 1e-14


# Dropout

KEEP_PROBS = [0.1, 1 / 3, 0.5, 0.8, 0.999, 1.0]


def rounded(keep_prob):
    return round(keep_prob * 2**16) / 2**16


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("keep_prob", KEEP_PROBS)
def test_dropout_keeps_a_share_and_the_mean(keep_prob, wide):
    n, p = 40_001, rounded(keep_prob)
    with jax.enable_x64(wide):
        x = jnp.ones(n, jnp.result_type(float))
        out, _ = fn.dropout_forward(x, jax.random.key(0), keep_prob, train=True)
        out = np.asarray(out)
    kept = out != 0
    sigma = math.sqrt(p * (1 - p) / n)  # of the binomial law
    assert abs(kept.mean() - p) <= 5 * sigma
    assert abs(out.mean(dtype=np.float64) - 1) <= 5 * sigma / p + 1e-7
    np.testing.assert_array_equal(out[kept], np.asarray(1 / p, out.dtype))


def test_dropout_of_a_tiny_keep_prob_is_finite():
    out, _ = fn.dropout_forward(jnp.ones(1000), jax.random.key(0), 1e-9, train=True)
    assert np.all(np.isin(out, [0, 2**16]))


def test_dropout_has_the_same_mask_forward_and_backward(rng):
    x, dout = draw(rng, [(9, 5), (9, 5)], "float32")
    out, cache = fn.dropout_forward(x, DROPOUT_KEY, 0.6, train=True)
    dx = fn.dropout_backward(dout, cache)
    kept = np.asarray(out) != 0
    assert 0 < kept.sum() < kept.size
    scale = np.float32(1 / rounded(0.6))
    np.testing.assert_array_equal(out, np.where(kept, x * scale, 0))
    np.testing.assert_array_equal(dx, np.where(kept, dout * scale, 0))


@pytest.mark.parametrize(("keep_prob", "train"), [(0.3, False), (1, True), (1.0, False)])
def test_dropout_as_the_identity(keep_prob, train, rng):
    x, dout = draw(rng, [(4, 3), (4, 3)], "float32")
    key = DROPOUT_KEY if train else None
    out, cache = fn.dropout_forward(x, key, keep_prob, train=train)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(fn.dropout_backward(dout, cache), dout)


def test_dropout_is_a_function_of_the_key():
    def mask(key, n=64):
        return np.asarray(fn.dropout_forward(jnp.ones(n), key, 0.5, train=True)[0])

    a, b = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(mask(a), mask(a))
    assert np.any(mask(a) != mask(b))
    raw = jax.random.PRNGKey(3)  # uint32
    np.testing.assert_array_equal(mask(raw), mask(jax.random.key(3)))


def test_dropout_with_a_traced_keep_prob():
    x = jnp.arange(1.0, 51.0)
    rates = jnp.array([0.25, 0.75, 1.0])

    def forward(keep_prob):
        return fn.dropout_forward(x, DROPOUT_KEY, keep_prob, train=True)

    out, caches = jax.jit(jax.vmap(forward))(rates)
    dx = jax.vmap(fn.dropout_backward, in_axes=(None, 0))(jnp.ones(50), caches)
    for i, keep_prob in enumerate((0.25, 0.75, 1.0)):
        expected, cache = forward(keep_prob)
        np.testing.assert_array_equal(out[i], expected)
        np.testing.assert_array_equal(dx[i], fn.dropout_backward(jnp.ones(50), cache))


@pytest.mark.parametrize(("elements", "words"), [(1, 1), (50, 25), (51, 26)])
def test_dropout_draws_a_word_for_two_elements(elements, words, monkeypatch):
    """Random bits are most of what it costs."""
    drawn, bits = [], jax.random.bits

    def counted(key, shape, dtype):
        drawn.append((shape, dtype))
        return bits(key, shape, dtype)

    monkeypatch.setattr(jax.random, "bits", counted)
    fn.dropout_forward(jnp.ones(elements), DROPOUT_KEY, 0.5, train=True)
    assert drawn == [((words,), jnp.uint32)]


def test_dropout_with_a_traced_keep_prob_above_one_is_the_identity():
    """A schedule of it may end a little above; traced, it cannot be refused."""
    x = jnp.arange(1.0, 51.0)
    out = jax.jit(lambda p: fn.dropout_forward(x, DROPOUT_KEY, p, train=True)[0])(1.25)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 3)], ids=str)
def test_elements_are_kept_each_on_its_own(shape):
    # Two elements share a random word, and an odd size leaves half of the last one unused.
    n, p = 10_000, 0.7
    keys = jax.random.split(jax.random.key(1), n)

    @jax.jit
    @jax.vmap
    def masks(key):
        return fn.dropout_forward(jnp.ones(shape), key, p, train=True)[0] != 0

    kept = np.asarray(masks(keys)).reshape(n, -1).astype(float)
    np.testing.assert_allclose(kept.mean(axis=0), p, atol=5 * math.sqrt(p * (1 - p) / n))
    correlation = np.corrcoef(kept.T).reshape(kept.shape[1], -1)
    np.testing.assert_allclose(correlation, np.eye(len(correlation)), atol=5 / math.sqrt(n))


def test_neighbours_in_a_large_array_are_uncorrelated():
    out, _ = fn.dropout_forward(jnp.ones(60_000), jax.random.key(2), 0.5, train=True)
    kept = np.asarray(out) / 2 - 0.5
    for lag in (1, 2, 3):
        for start in (0, 1):
            products = kept[start:-lag:2] * kept[start + lag :: 2][: len(kept[start:-lag:2])]
            assert abs(4 * products.mean()) <= 5 / math.sqrt(len(products))


BAD_KEEP_PROBS = [
    (0, ValueError),
    (-0.1, ValueError),
    (1.5, ValueError),
    (np.nan, ValueError),
    ("0.5", TypeError),
    (None, TypeError),
    (True, TypeError),
    (np.ones(2), TypeError),
]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("keep_prob", "kind"), BAD_KEEP_PROBS, ids=str)
def test_bad_keep_probs(keep_prob, kind, train):
    with pytest.raises(kind, match="keep_prob must be"):
        fn.dropout_forward(jnp.ones(3), DROPOUT_KEY, keep_prob, train=train)


def test_dropout_in_training_wants_a_key():
    with pytest.raises(ValueError, match=r"dropout: training needs a random key"):
        fn.dropout_forward(jnp.ones(3), None, 0.5, train=True)


# Mixed precision

PRECISIONS = {  # of the parameters, of the products, agreement, and what rounding costs
    "bfloat16": ("float32", jnp.bfloat16, 1e-5, 1e-4),
    "float16": ("float32", "float16", 1e-5, 1e-5),
    "float32": ("float64", np.float32, 1e-12, 1e-9),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_products_of_rounded_factors_are_summed_in_the_dtype_of_the_parameters(name, rng, x64):
    dtype, matmul_dtype, tol, cost = PRECISIONS[name]
    x, w, b, dout = draw(rng, [(70, 8, 75), (600, 4), (4,), (70, 4)], dtype)

    def rounded(v):
        return np.asarray(jnp.asarray(v).astype(matmul_dtype), np.float64)

    out, cache = fn.affine_forward(x, w, b, matmul_dtype=matmul_dtype)
    grads = fn.affine_backward(dout, cache)
    rows = flat(rounded(x))
    expected = (
        rows @ rounded(w) + np.asarray(b),
        (rounded(dout) @ rounded(w).T).reshape(x.shape),
        rows.T @ rounded(dout),
        np.asarray(dout, np.float64).sum(axis=0),
    )
    for a, e in zip((out, *grads), expected, strict=True):
        assert a.dtype == dtype
        assert fn.scaled_error(a, e) <= tol
    exact = flat(np.asarray(x, np.float64)) @ np.asarray(w, np.float64) + np.asarray(b)
    assert fn.scaled_error(out, exact) > cost


def test_without_a_matmul_dtype_nothing_is_rounded(rng):
    x, w, b, dout = draw(rng, [(7, 5, 6), (30, 4), (4,), (7, 4)], "float32")
    for options in ({}, {"matmul_dtype": None}, {"matmul_dtype": "float32"}):
        out, cache = fn.affine_forward(x, w, b, **options)
        np.testing.assert_array_equal(out, flat(x) @ w + b)
        dx, dw, db = fn.affine_backward(dout, cache)
        np.testing.assert_array_equal(dx, (dout @ w.T).reshape(x.shape))
        np.testing.assert_array_equal(dw, flat(x).T @ dout)
        np.testing.assert_array_equal(db, dout.sum(axis=0))


def test_a_cache_with_a_matmul_dtype_passes_between_compiled_functions(rng):
    x, w, b, dout = draw(rng, [(7, 6), (6, 4), (4,), (7, 4)], "float32")
    forward = partial(fn.affine_forward, matmul_dtype=jnp.bfloat16)
    _, cache = jax.jit(forward)(x, w, b)
    expected = fn.affine_backward(dout, forward(x, w, b)[1])
    check_close(jax.jit(fn.affine_backward)(dout, cache), expected, 1e-6)


# Integer inputs


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
@pytest.mark.parametrize("pair", ["affine", "affine_relu"])
def test_integer_inputs_are_cast_to_the_dtype_of_the_weights(pair, dtype, rng):
    row = LAYERS[pair]
    x = rng.integers(0, 256, size=(4, 2, 3)).astype(dtype)
    w, b = draw(rng, [(6, 5), (5,)], "float32")
    out, dout, grads = by_hand(row, [x, w, b], rng)
    expected_out, cache = row.forward(jnp.asarray(x, jnp.float32), w, b)
    np.testing.assert_array_equal(out, expected_out)
    for a, b in zip(grads, row.backward(dout, cache), strict=True):
        np.testing.assert_array_equal(a, b)
    assert grads[0].dtype == np.float32
    assert grads[0].shape == x.shape


# with_custom_vjp


@pytest.mark.parametrize(("row", "shapes"), SELDOM)
def test_with_custom_vjp_gives_autodiff_the_backward_pass(row, shapes, rng, x64):
    inputs = draw(rng, shapes)
    calls = []

    def backward(dout, cache):
        calls.append(dout.shape)
        return row.backward(dout, cache)

    f = fn.with_custom_vjp(row.forward, backward)
    out, dout, expected = by_hand(row, inputs, rng)
    np.testing.assert_array_equal(f(*inputs), out)
    places = tuple(range(len(inputs)))
    gradient = jax.grad(lambda *v: jnp.vdot(f(*v), dout), argnums=places)
    check_close(gradient(*inputs), expected, 1e-14)
    assert calls == [out.shape]
    check_close(jax.jit(gradient)(*inputs), expected, 1e-14)
    stacked = [jnp.stack([v, 2 * v]) for v in inputs]
    check_close([g[0] for g in jax.vmap(gradient)(*stacked)], expected, 1e-14)


def test_with_custom_vjp_really_uses_the_given_backward():
    f = fn.with_custom_vjp(fn.relu_forward, lambda dout, cache: 3 * fn.relu_backward(dout, cache))
    grad = jax.grad(lambda x: f(x).sum())(jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(grad, [3, 0])


# Errors

x, w, b = np.ones((4, 2, 3), "f"), np.ones((6, 5), "f"), np.ones(5, "f")
FORWARD_ERRORS = {
    "x of rank 1": ((np.ones(6, "f"), w, b), ValueError, "x must be [N, ...]"),
    "x of rank 0": ((np.float32(1), w, b), ValueError, "x must be [N, ...]"),
    "features": ((x[:, :1], w, b), ValueError, "w must be [D, M] with D = 3"),
    "w of rank 1": ((x, np.ones(6, "f"), b), ValueError, "w must be [D, M] with D = 6"),
    "w of rank 3": ((x, w[None], b), ValueError, "got [1, 6, 5]"),
    "w transposed": ((x, w.T, b), ValueError, "got [5, 6]"),
    "b too short": ((x, w, b[:4]), ValueError, "b must be [M] = [5], got [4]"),
    "b scalar": ((x, w, np.float32(1)), ValueError, "b must be [M] = [5], got []"),
    "b of rank 2": ((x, w, b[None]), ValueError, "b must be [M] = [5], got [1, 5]"),
    "x half": ((x.astype("float16"), w, b), TypeError, "x float16, w float32, b float32"),
    "b half": ((x, w, b.astype("float16")), TypeError, "b float16"),
    "integer w": ((x, w.astype("int32"), b), TypeError, "w int32"),
    "all integer": (
        (x.astype("int32"), w.astype("int32"), b.astype("int32")),
        TypeError,
        "one floating point dtype",
    ),
    "complex": ((x.astype("complex64"), w, b), TypeError, "x complex64"),
}


@pytest.mark.parametrize("name", FORWARD_ERRORS)
@pytest.mark.parametrize("pair", ["affine", "affine_relu"])
def test_affine_refuses(pair, name):
    inputs, kind, text = FORWARD_ERRORS[name]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        LAYERS[pair].forward(*inputs)
    assert str(caught.value).startswith("affine: ")
    assert "\n" not in str(caught.value)


v = np.ones((2, 3), "f")
NORM_ERRORS = {
    "x of rank 1": ((np.ones(6, "f"), v, v), ValueError, "x must be [N, ...]"),
    "gamma too short": ((x, v[:, :2], v), ValueError, "gamma must have the shape of one example"),
    "gamma flat": ((x, v.reshape(6), v), ValueError, "of x, [2, 3], got [6]"),
    "gamma scalar": ((x, np.float32(1), v), ValueError, "[2, 3], got []"),
    "beta transposed": ((x, v, v.T), ValueError, "beta must have the shape of one example"),
    "beta broadcastable": ((x, v, v[:1]), ValueError, "[2, 3], got [1, 3]"),
    "integer x": ((x.astype("int32"), v, v), TypeError, "x int32, gamma float32"),
    "x half": ((x.astype("float16"), v, v), TypeError, "x float16"),
    "gamma half": ((x, v.astype("float16"), v), TypeError, "gamma float16"),
    "beta half": ((x, v, v.astype("float16")), TypeError, "beta float16"),
}


@pytest.mark.parametrize("name", NORM_ERRORS)
@pytest.mark.parametrize("pair", ["batchnorm", "batchnorm evaluated", "layernorm"])
def test_normalization_refuses(pair, name):
    inputs, kind, text = NORM_ERRORS[name]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        LAYERS[pair].forward(*inputs)
    assert str(caught.value).startswith(f"{pair.split()[0]}: ")
    assert "\n" not in str(caught.value)


BAD_RUNNING = {
    "without var": ({"mean": v}, "running must have mean and var, got ['mean']"),
    "empty": ({}, "running must have mean and var, got []"),
    "with another": ({"mean": v, "var": v, "std": v}, "got ['mean', 'std', 'var']"),
    "mean flat": ({"mean": v.reshape(6), "var": v}, "running mean must have the shape of one"),
    "var scalar": ({"mean": v, "var": np.float32(1)}, "running var must have the shape of one"),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", BAD_RUNNING)
def test_batchnorm_refuses_other_running_statistics(name, train):
    running, text = BAD_RUNNING[name]
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        fn.batchnorm_forward(x, v, v, running, train=train)
    assert str(caught.value).startswith("batchnorm: ")


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
@pytest.mark.parametrize(
    "pair", ["leaky_relu", "gelu", "gelu_tanh", "tanh", "logistic", "selu", "mish", "dropout"]
)
def test_elementwise_layers_want_floating_point(pair, dtype):
    with pytest.raises(TypeError, match=rf"^{pair}: .*one floating point dtype, got x {dtype}$"):
        LAYERS[pair].forward(np.ones(3, dtype))


BACKWARD_ERRORS = {
    "rank": (lambda shape: shape[:-1], "float32", ValueError),
    "batch": (lambda shape: (shape[0] - 1, *shape[1:]), "float32", ValueError),
    "broadcastable batch": (lambda shape: (1, *shape[1:]), "float32", ValueError),
    "features": (lambda shape: (*shape[:-1], shape[-1] + 1), "float32", ValueError),
    "transposed": (lambda shape: shape[::-1], "float32", ValueError),
    "scalar": (lambda shape: (), "float32", ValueError),
    "half": (lambda shape: shape, "float16", TypeError),
    "integer": (lambda shape: shape, "int32", TypeError),
}


@pytest.mark.parametrize("name", BACKWARD_ERRORS)
@pytest.mark.parametrize("pair", LAYERS)
def test_backward_refuses_a_dout_unlike_out(pair, name):
    change, dtype, kind = BACKWARD_ERRORS[name]
    out, cache = LAYERS[pair].forward(*(np.ones(s, "f") for s in LAYERS[pair].shapes[0]))
    with pytest.raises(kind, match=r"dout must have the (shape|dtype) of out") as caught:
        LAYERS[pair].backward(np.ones(change(out.shape), dtype), cache)
    assert "\n" not in str(caught.value)


def test_errors_come_at_trace_time_too():
    with pytest.raises(ValueError, match="D = 3"):
        jax.jit(fn.affine_forward)(x[:, :1], w, b)
