"""Losses of classes and their gradients. A new one is one more row of SLOW."""

import re
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CASES, slow

import funcnet as fn
from funcnet import losses

SLOW = {"softmax": partial(slow, "softmax"), "svm": partial(slow, "svm")}  # those of labels
UNCOMPILED = {name: losses.LOSSES[name] for name in SLOW}
# Compiled whole: op by op, each shape would compile some twenty times.
LOSSES = {name: (jax.jit(UNCOMPILED[name]), slow) for name, slow in SLOW.items()}
AUTODIFF = {
    name: jax.jit(jax.grad(lambda scores, y, f=f: f(scores, y)[0]))
    for name, f in UNCOMPILED.items()
}
SHAPES = [(5, 3), (7, 10), (1, 4), (6, 1), (1, 1)]

both = pytest.mark.parametrize("name", LOSSES)


def draw(rng, shape, dtype="float64", scale=3.0):
    scores = jnp.asarray(scale * rng.normal(size=shape), dtype)
    return scores, rng.integers(shape[1], size=shape[0])


def test_every_loss_has_a_row():
    """What has outputs is in `test_regression`, weights of all of them in `test_weights`."""
    assert SLOW.keys() | {case.loss for case in CASES.values()} == losses.LOSSES.keys()
    for name, loss_fn in losses.LOSSES.items():
        assert loss_fn.__name__ == f"{name}_loss"


# Values and gradients


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@both
def test_against_a_slow_loop(name, shape, rng, x64):
    loss_fn, slow = LOSSES[name]
    for scale in (0.01, 1, 30):
        scores, y = draw(rng, shape, scale=scale)
        loss, dscores = loss_fn(scores, y)
        slow_loss, slow_dscores = slow(np.asarray(scores), y)
        assert loss.shape == ()
        assert loss.dtype == dscores.dtype == np.float64
        np.testing.assert_allclose(loss, slow_loss, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(dscores, slow_dscores, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@both
def test_gradient_is_autodiffs(name, shape, rng, x64):
    scores, y = draw(rng, shape)
    _, dscores = LOSSES[name][0](scores, y)
    assert fn.scaled_error(dscores, AUTODIFF[name](scores, y)) <= 1e-12


@pytest.mark.parametrize("shape", SHAPES[1:3], ids=str)
@both
def test_gradient_is_the_numerical_one(name, shape, rng, x64):
    scores, y = draw(rng, shape)
    _, dscores = LOSSES[name][0](scores, y)
    numerical = fn.numerical_gradient(lambda s: LOSSES[name][0](s, y)[0], scores)
    assert fn.scaled_error(dscores, numerical) <= 1e-7


@both
def test_gradient_of_each_row_sums_to_zero(name, rng, x64):
    _, dscores = LOSSES[name][0](*draw(rng, (5, 3)))
    np.testing.assert_allclose(dscores.sum(axis=1), 0, atol=1e-16)


@both
def test_equal_scores(name, x64):
    """At the start of training: log C, and C - 1 margins of 1."""
    loss, dscores = LOSSES[name][0](np.full((7, 10), 2.5), np.arange(7))
    np.testing.assert_allclose(loss, {"softmax": np.log(10), "svm": 9}[name], rtol=1e-14)
    dscores = np.asarray(dscores)
    others = dscores[~np.eye(7, 10, dtype=bool)]
    np.testing.assert_allclose(others, {"softmax": 0.1 / 7, "svm": 1 / 7}[name], rtol=1e-14)
    assert np.all(np.diagonal(dscores) < 0)


@both
def test_adding_a_constant_to_a_row_changes_nothing(name, rng, x64):
    loss_fn = LOSSES[name][0]
    scores, y = draw(rng, (7, 10))
    # Multiples of 1/1024: adding the shift is exact.
    scores = np.round(np.asarray(scores) * 1024) / 1024
    shift = np.array([0.0, 1.0, -3.0, 512.0, -512.0, 2.0**20, -(2.0**30)])[:, None]
    loss, dscores = loss_fn(scores, y)
    shifted_loss, shifted_dscores = loss_fn(scores + shift, y)
    np.testing.assert_allclose(loss, shifted_loss, rtol=1e-15)
    np.testing.assert_array_equal(dscores, shifted_dscores)


@both
def test_one_class_has_no_loss(name, rng):
    loss, dscores = LOSSES[name][0](*draw(rng, (6, 1), "float32", scale=1e3))
    assert loss == 0
    np.testing.assert_array_equal(dscores, np.zeros((6, 1)))


def test_svm_at_a_margin_of_exactly_zero(x64):
    scores = jnp.array([[3.0, 2.0, 2.5, 0.0]])
    loss, dscores = LOSSES["svm"][0](scores, np.array([0]))
    assert loss == 0.5
    np.testing.assert_array_equal(dscores, [[-1, 0, 1, 0]])
    auto = AUTODIFF["svm"](scores, np.array([0]))
    np.testing.assert_array_equal(auto, dscores)


# Numerical care


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@both
def test_huge_scores_stay_finite(name, dtype, rng, x64):
    loss_fn, slow = LOSSES[name]
    scores = jnp.asarray(1e4 * rng.choice([-1.0, 1.0], size=(12, 5)), dtype)
    y = rng.integers(5, size=12)
    loss, dscores = loss_fn(scores, y)
    grad = AUTODIFF[name](scores, y)
    exact, exact_dscores = slow(np.asarray(scores, np.float64), y)
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(dscores, np.float64), exact_dscores, rtol=8e-3)
    np.testing.assert_allclose(np.asarray(grad, np.float64), exact_dscores, rtol=8e-3, atol=1e-4)


@pytest.mark.parametrize("gap", [5, 20, 40, 80])
def test_confident_examples_lose_no_digits(gap, rng):
    """1 - p of a right and sure example is far below float32's epsilon, yet it is there."""
    n, classes = 6, 5
    y = rng.integers(classes, size=n)
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), y] += gap
    scores = scores.astype(np.float32)
    loss, dscores = LOSSES["softmax"][0](scores, y)
    assert loss.dtype == dscores.dtype == np.float32
    # The loop's own 1 - p would cancel, so: p of the others in float64, and their sum.
    t = scores.astype(np.float64)
    t -= t[np.arange(n), y][:, None]
    others = np.exp(t)
    others[np.arange(n), y] = 0
    rest = others.sum(axis=1, keepdims=True)
    exact = others / (1 + rest)
    exact[np.arange(n), y] = -exact.sum(axis=1)
    # 1e-6 relative, and t itself is rounded: eps * gap.
    rtol = 1e-6 + gap * np.finfo(np.float32).eps
    np.testing.assert_allclose(dscores, exact / n, rtol=rtol)
    np.testing.assert_allclose(loss, np.log1p(rest).mean(), rtol=rtol)


def test_confident_examples_with_exact_differences():
    """Scores whose differences are exact: nothing but the gradient's own error is left."""
    scores = np.array([[16, 0, -4, 1], [0, 24, 2, -8], [1, 2, 40, 3]], np.float32)
    y = np.array([0, 1, 2])
    _, dscores = LOSSES["softmax"][0](scores, y)
    others = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    others[np.arange(3), y] = 0
    exact = others / (1 + others.sum(axis=1, keepdims=True))
    exact[np.arange(3), y] = -exact.sum(axis=1)
    np.testing.assert_allclose(dscores, exact / 3, rtol=1e-6)


def test_wrong_and_sure_examples(x64):
    loss, dscores = LOSSES["softmax"][0](np.array([[0.0, 50.0, 50.0]]), np.array([0]))
    np.testing.assert_allclose(loss, 50 + np.log(2), rtol=1e-15)
    np.testing.assert_allclose(dscores, [[-1, 0.5, 0.5]], rtol=1e-15)


# Dtypes and labels


@pytest.mark.parametrize(
    ("dtype", "loss_dtype"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
@both
def test_dtypes(name, dtype, loss_dtype, rng, x64):
    loss, dscores = LOSSES[name][0](*draw(rng, (4, 3), dtype))
    assert loss.dtype == loss_dtype
    assert dscores.dtype == dtype


@both
def test_bfloat16_scores_are_summed_in_float32(name, rng):
    loss_fn = LOSSES[name][0]
    scores, y = draw(rng, (300, 7), "bfloat16")
    loss, dscores = loss_fn(scores, y)
    exact, exact_dscores = loss_fn(np.asarray(scores, np.float32), y)
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    rounded = np.asarray(exact_dscores).astype(scores.dtype)
    np.testing.assert_array_equal(np.asarray(dscores), rounded)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
@both
def test_label_dtypes(name, dtype, rng, x64):
    scores, y = draw(rng, (5, 4))
    expected = LOSSES[name][0](scores, y)
    loss, dscores = LOSSES[name][0](scores, y.astype(dtype))
    assert loss == expected[0]
    np.testing.assert_array_equal(dscores, expected[1])


def test_many_classes_and_small_label_dtypes(rng, x64):
    """Class 256 must not wrap around to label 0."""
    scores, _ = draw(rng, (3, 300))
    y = np.array([0, 44, 255], np.uint8)
    loss, _ = LOSSES["softmax"][0](scores, y)
    np.testing.assert_allclose(
        loss, slow("softmax", np.asarray(scores), y.astype(int))[0], rtol=1e-12
    )


@pytest.mark.parametrize("label", [-1, 4, 100, -5])
@both
def test_a_label_out_of_range_gives_nan(name, label, rng):
    scores, y = draw(rng, (5, 4), "float32")
    y[2] = label
    assert np.isnan(LOSSES[name][0](scores, y)[0])
    assert np.isnan(UNCOMPILED[name](scores, y)[0])


@both
def test_a_nan_score_gives_nan(name, rng):
    scores, y = draw(rng, (5, 4), "float32")
    loss, _ = LOSSES[name][0](scores.at[3, 1].set(jnp.nan), y)
    assert np.isnan(loss)


@both
def test_uncompiled_vmapped_and_of_numpy(name, rng, x64):
    scores, y = draw(rng, (5, 4))
    expected = LOSSES[name][0](scores, y)
    assert fn.scaled_error(UNCOMPILED[name](scores, y), expected) <= 1e-15
    assert fn.scaled_error(UNCOMPILED[name](np.asarray(scores), y), expected) <= 1e-15
    loss, dscores = jax.vmap(LOSSES[name][0])(np.stack([2 * scores, scores]), np.stack([y, y]))
    assert fn.scaled_error((loss[1], dscores[1]), expected) <= 1e-15


s, y = np.zeros((5, 4), "f"), np.zeros(5, int)
ERRORS = {
    "scores of rank 1": (s[0], y, ValueError, "scores must be [N, C] and not empty, got [4]"),
    "scores of rank 3": (s[None], y, ValueError, "got [1, 5, 4]"),
    "no examples": (s[:0], y[:0], ValueError, "not empty, got [0, 4]"),
    "no classes": (s[:, :0], y, ValueError, "not empty, got [5, 0]"),
    "integer scores": (s.astype(int), y, TypeError, "scores must be floating point"),
    "too few labels": (s, y[:4], ValueError, "y must be [N] = [5]"),
    "one label": (s, 0, ValueError, "y must be [N] = [5]"),
    "labels in a column": (s, y[:, None], ValueError, "got [5, 1]"),
    "float labels": (s, y.astype("f"), TypeError, "y must hold integer class labels"),
    "bool labels": (s, y.astype(bool), TypeError, "y must hold integer class labels"),
}


@pytest.mark.parametrize("case", ERRORS)
@both
def test_errors(name, case):
    scores, labels, kind, text = ERRORS[case]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        UNCOMPILED[name](scores, labels)
    assert "\n" not in str(caught.value)


def test_only_softmax_takes_targets_of_each_class():
    text = "soft targets must be floating point probabilities, got int32"
    with pytest.raises(TypeError, match=text):
        fn.softmax_loss(s, s.astype("int32"))
    for targets in (s, s.astype(int)):
        with pytest.raises(ValueError, match=r"svm_loss takes labels.* softmax_loss.*\[5, 4\]"):
            fn.svm_loss(s, targets)


# Soft targets


slow_soft = partial(slow, "soft")


def draw_soft(rng, shape, dtype="float64", scale=3.0):
    scores, _ = draw(rng, shape, dtype, scale)
    return scores, rng.dirichlet(np.full(shape[1], 0.5), size=shape[0])


softmax, softmax_grad = LOSSES["softmax"][0], AUTODIFF["softmax"]


@pytest.mark.parametrize("total", [1, 0.3, "any"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_soft_targets(shape, total, rng, x64):
    """Probabilities, or weights: rows that do not sum to 1 are taken as they are."""
    scores, targets = draw_soft(rng, shape)
    targets = targets * (rng.uniform(0, 2, size=(shape[0], 1)) if total == "any" else total)
    loss, dscores = softmax(scores, targets)
    slow_loss, slow_dscores = slow_soft(np.asarray(scores), targets)
    assert (loss.shape, loss.dtype, dscores.dtype) == ((), np.float64, np.float64)
    np.testing.assert_allclose(loss, slow_loss, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dscores, slow_dscores, rtol=1e-12, atol=1e-15)
    assert fn.scaled_error(dscores, softmax_grad(scores, targets)) <= 1e-12


def test_the_gradient_of_soft_targets_is_the_numerical_one(rng, x64):
    scores, targets = draw_soft(rng, (7, 10))
    _, dscores = softmax(scores, 0.7 * targets)
    numerical = fn.numerical_gradient(lambda s: softmax(s, 0.7 * targets)[0], scores)
    assert fn.scaled_error(dscores, numerical) <= 1e-7


def test_soft_targets_in_float32(rng):
    scores, targets = draw_soft(rng, (7, 10), "float32")
    loss, dscores = softmax(scores, targets.astype("float32"))
    assert loss.dtype == dscores.dtype == np.float32
    exact, exact_dscores = slow_soft(np.asarray(scores, np.float64), targets)
    np.testing.assert_allclose(loss, exact, rtol=1e-5)
    assert fn.scaled_error(dscores, exact_dscores) <= 1e-5


@pytest.mark.parametrize("scale", [0.01, 1, 5])
def test_one_hot_targets_are_labels(scale, rng, x64):
    scores, y = draw(rng, (7, 10), scale=scale)
    loss, dscores = softmax(scores, y)
    soft_loss, soft_dscores = softmax(scores, np.eye(10)[y])
    np.testing.assert_allclose(soft_loss, loss, rtol=1e-12)
    assert fn.scaled_error(soft_dscores, dscores) <= 1e-12
    assert softmax(scores, fn.smooth_labels(y, 10, 0.0))[0] == soft_loss


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_huge_scores_with_soft_targets_stay_finite(dtype, rng, x64):
    scores = jnp.asarray(1e4 * rng.choice([-1.0, 1.0], size=(12, 5)), dtype)
    for targets in (np.eye(5)[rng.integers(5, size=12)], draw_soft(rng, (12, 5))[1]):
        loss, dscores = softmax(scores, targets)
        exact, exact_dscores = slow_soft(np.asarray(scores, np.float64), targets)
        np.testing.assert_allclose(loss, exact, rtol=1e-6)
        found = np.asarray(dscores, np.float64)
        np.testing.assert_allclose(found, exact_dscores, rtol=8e-3, atol=1e-8)
        grad = np.asarray(softmax_grad(scores, targets), np.float64)
        np.testing.assert_allclose(grad, exact_dscores, rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize("targets_dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtypes_with_soft_targets(dtype, targets_dtype, rng, x64):
    scores, targets = draw_soft(rng, (5, 4), dtype)
    loss, dscores = softmax(scores, jnp.asarray(targets, targets_dtype))
    assert loss.dtype == ("float64" if dtype == "float64" else "float32")
    assert dscores.dtype == dtype


def test_a_nan_target_gives_nan(rng):
    scores, targets = draw_soft(rng, (5, 4), "float32")
    targets[2, 1] = np.nan
    loss, dscores = softmax(scores, targets.astype("float32"))
    assert np.isnan(loss)
    assert np.isnan(dscores[2]).all()
    assert np.isfinite(dscores[:2]).all()


@pytest.mark.parametrize(
    ("scores", "targets", "kind", "text"),
    [
        (s, s[:4], ValueError, "soft targets must be [N, C] = [5, 4], the shape of scores"),
        (s, s[:, :3], ValueError, "got [5, 3]"),
        (s, s.astype(bool), TypeError, "got bool"),
        (s[0], s, ValueError, "scores must be [N, C] and not empty, got [4]"),
        (s.astype(int), s, TypeError, "scores must be floating point"),
        (s, s[None], ValueError, "got [1, 5, 4]"),
    ],
)
def test_errors_of_soft_targets(scores, targets, kind, text):
    with pytest.raises(kind, match=re.escape(text)) as caught:
        fn.softmax_loss(scores, targets)
    assert "\n" not in str(caught.value)


def test_a_whole_net_on_soft_targets(rng, unoptimized):
    net = fn.mlp([5], 4, normalization="batchnorm")
    params, state, _ = net.init(jax.random.key(1), (2, 3))
    x = rng.normal(size=(7, 2, 3))
    targets = rng.dirichlet(np.ones(4), size=7) * rng.uniform(0.5, 1.5, size=(7, 1))
    check = fn.check_gradients(net, params, state, x, targets, reg=0.1, max_elements=5)
    assert check.passed, check


# Smoothed labels


@pytest.mark.parametrize("smoothing", [0, 0.1, 0.5, 1])
def test_smooth_labels(smoothing, rng, x64):
    y = rng.integers(4, size=9)
    targets = np.asarray(fn.smooth_labels(y, 4, smoothing))
    right = np.arange(4) == y[:, None]
    np.testing.assert_allclose(targets[right], 1 - smoothing + smoothing / 4, rtol=1e-15)
    np.testing.assert_allclose(targets[~right], smoothing / 4, rtol=1e-15)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-15)


def test_smooth_labels_of_traced_smoothing(rng):
    y = rng.integers(4, size=9).astype(np.uint8)
    values = np.array([0.0, 0.3, 1.0], "f")
    targets = jax.jit(jax.vmap(lambda smoothing: fn.smooth_labels(y, 4, smoothing)))(values)
    for i, smoothing in enumerate(values):
        expected = fn.smooth_labels(y, 4, float(smoothing))
        assert expected.dtype == np.float32
        np.testing.assert_allclose(targets[i], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("label", [-1, 4, 100, 2**32])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smooth_labels_of_no_class_are_nan(label, smoothing, rng):
    targets = np.asarray(fn.smooth_labels(np.array([0, label, 3]), 4, smoothing))
    assert np.isnan(targets[1]).all()
    assert np.isfinite(targets[[0, 2]]).all()


def test_smooth_labels_of_one_class():
    np.testing.assert_allclose(fn.smooth_labels(np.zeros(3, int), 1, 0.3), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "classes", "smoothing", "text"),
    [
        (y, 4, -0.1, "smoothing must be >= 0"),
        (y, 4, 1.1, "smoothing must be .*<= 1"),
        (y, 4, np.nan, "smoothing must be finite"),
        (y, 4, "much", "smoothing must be a number"),
        (y, 0, 0.1, "num_classes must be at least 1"),
        (y, 2.5, 0.1, "num_classes must be an integer"),
        (y[:, None], 4, 0.1, r"y must be \[N\], one label per example, got \[5, 1\]"),
        (y.astype("f"), 4, 0.1, "y must hold integer class labels"),
    ],
)
def test_smooth_labels_refuses(labels, classes, smoothing, text):
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        fn.smooth_labels(labels, classes, smoothing)
    assert "\n" not in str(caught.value)


# L2


def weights(rng):
    return {
        "affine1": {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)},
        "serial1": {"affine1": {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}},
        "batchnorm1": {"gamma": rng.normal(size=2), "beta": rng.normal(size=2)},
        "w2": {"v": rng.normal(size=2), "ww": rng.normal(size=2)},
    }


KINDS = {
    "dict": lambda p: p,
    "FrozenDict": fn.freeze,
    "FrozenDict in dict": lambda p: {k: fn.freeze(v) for k, v in p.items()},
    "dict in FrozenDict": fn.FrozenDict.shallow,
    "OrderedDict": lambda p: OrderedDict(reversed(p.items())),
}


@pytest.mark.parametrize("kind", KINDS)
def test_l2_counts_the_leaves_named_w(kind, rng, x64):
    plain = weights(rng)
    params = KINDS[kind](plain)
    reg = 0.37
    penalty, grads = fn.l2_penalty(params, reg)
    w1, w2 = plain["affine1"]["w"], plain["serial1"]["affine1"]["w"]
    np.testing.assert_allclose(penalty, 0.5 * reg * ((w1**2).sum() + (w2**2).sum()), rtol=1e-14)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    np.testing.assert_allclose(grads["affine1"]["w"], reg * w1, rtol=1e-15)
    np.testing.assert_allclose(grads["serial1"]["affine1"]["w"], reg * w2, rtol=1e-15)
    assert not np.any(grads["affine1"]["b"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves([grads["batchnorm1"], grads["w2"]]))
    auto = jax.jit(jax.grad(lambda p: fn.l2_penalty(p, reg)[0]))(params)
    assert fn.scaled_error(grads, auto) <= 1e-14


def test_l2_keeps_dtypes(rng, x64):
    params = {
        "a": {"w": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.ones(2, jnp.float32)},
        "c": {"w": jnp.ones((2, 5), jnp.float32)},
    }
    penalty, grads = fn.l2_penalty(params, 2.0)
    assert penalty.dtype == np.float32
    assert penalty == 16
    assert jax.tree.map(lambda g: g.dtype, grads) == jax.tree.map(lambda p: p.dtype, params)
    wide, _ = fn.l2_penalty(params | {"d": {"w": jnp.ones(2, jnp.float64)}}, 2.0)
    assert wide.dtype == np.float64


def test_l2_sums_bfloat16_weights_in_float32():
    penalty, _ = fn.l2_penalty({"w": jnp.ones(4097, jnp.bfloat16)}, 1.0)
    assert penalty == 4097 / 2


def test_l2_of_a_traced_strength(rng, x64):
    params = fn.freeze(weights(rng))
    rates = jnp.array([0.0, 0.5, 3.14])
    penalties, grads = jax.jit(jax.vmap(lambda reg: fn.l2_penalty(params, reg)))(rates)
    for i, reg in enumerate(rates):
        penalty, expected = fn.l2_penalty(params, float(reg))
        np.testing.assert_allclose(penalties[i], penalty, rtol=1e-15)
        assert fn.scaled_error(jax.tree.map(lambda g, i=i: g[i], grads), expected) <= 1e-15
    assert jax.jit(fn.l2_penalty)(params, 0.5)[0] == penalties[1]


def test_l2_of_nothing():
    penalty, grads = fn.l2_penalty(fn.FrozenDict(), 0.5)
    assert penalty == 0
    assert grads == fn.FrozenDict()
    penalty, grads = fn.l2_penalty({"b": jnp.ones(3)}, 0.5)
    assert penalty == 0
    np.testing.assert_array_equal(grads["b"], np.zeros(3))


@pytest.mark.parametrize(
    ("reg", "kind"),
    [(-0.1, ValueError), (np.nan, ValueError), (np.inf, ValueError), ("a", TypeError)],
    ids=str,
)
def test_l2_refuses(reg, kind):
    with pytest.raises(kind, match="reg must be"):
        fn.l2_penalty({"w": jnp.ones(2)}, reg)


@pytest.mark.parametrize("loss_fn", UNCOMPILED.values())
@pytest.mark.parametrize("label", [3, -1, 2**31, 2**32, -(2**32)])
def test_no_label_out_of_range_goes_unseen(loss_fn, label, x64):
    """2**32 is 0 in int32: a careless cast makes it a class."""
    for y in (np.array([label]), jnp.asarray([label], jnp.int64)):
        loss, dscores = loss_fn(np.ones((1, 3)), y)
        assert np.isnan(loss)
        assert np.isnan(dscores).any()


def test_reg_must_be_a_number():
    for reg in (None, "much", np.ones(2)):
        with pytest.raises(TypeError, match="reg must be a number"):
            fn.l2_penalty({"w": np.ones(3)}, reg)
