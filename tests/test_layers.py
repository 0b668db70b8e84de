"""Forward and backward passes of the layers, on arrays.

A new layer is one more row of LAYERS: everything in the first part runs over it.
"""

import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn


class Row(NamedTuple):
    """A layer: its pair, a slow forward pass in NumPy, and shapes to try, one tuple an input."""

    forward: object
    backward: object
    numpy: object
    shapes: tuple


def flat(x):
    return x.reshape(len(x), -1)


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
}
CASES = [
    pytest.param(row, shapes, id=f"{name}-{'x'.join(map(str, shapes[0]))}")
    for name, row in LAYERS.items()
    for shapes in row.shapes
]
SOME = [case for case in CASES if case.values[1] in case.values[0].shapes[1:4:2]]
FIRST = [pytest.param(row, row.shapes[1], id=name) for name, row in LAYERS.items()]


def draw(rng, shapes, dtype="float64"):
    """Normal inputs of a scale other than 1, around 0.3."""
    return [jnp.asarray(0.3 + 1.7 * rng.normal(size=shape), dtype) for shape in shapes]


def as_tuple(grads):
    return grads if isinstance(grads, tuple) else (grads,)


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
@pytest.mark.parametrize(("row", "shapes"), FIRST)
def test_dtypes_are_kept(row, shapes, dtype, rng, x64):
    out, _, grads = by_hand(row, draw(rng, shapes, dtype), rng)
    assert {array.dtype for array in (out, *grads)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(("row", "shapes"), FIRST)
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


@pytest.mark.parametrize(("row", "shapes"), FIRST)
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


@pytest.mark.parametrize(("row", "shapes"), FIRST)
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


@pytest.mark.parametrize(("row", "shapes"), FIRST)
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


BACKWARD_ERRORS = {
    "rank": ((4,), "float32", ValueError),
    "batch": ((3, 5), "float32", ValueError),
    "broadcastable batch": ((1, 5), "float32", ValueError),
    "features": ((4, 6), "float32", ValueError),
    "transposed": ((5, 4), "float32", ValueError),
    "scalar": ((), "float32", ValueError),
    "half": ((4, 5), "float16", TypeError),
    "integer": ((4, 5), "int32", TypeError),
}


@pytest.mark.parametrize("name", BACKWARD_ERRORS)
@pytest.mark.parametrize("pair", LAYERS)
def test_backward_refuses_a_dout_unlike_out(pair, name):
    shape, dtype, kind = BACKWARD_ERRORS[name]
    inputs = [x, w, b] if "affine" in pair else [np.ones((4, 5), "f")]
    _, cache = LAYERS[pair].forward(*inputs)
    with pytest.raises(kind, match=r"dout must have the (shape|dtype) of out"):
        LAYERS[pair].backward(np.ones(shape, dtype), cache)


def test_errors_come_at_trace_time_too():
    with pytest.raises(ValueError, match="D = 3"):
        jax.jit(fn.affine_forward)(x[:, :1], w, b)
