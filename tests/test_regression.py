"""Losses of outputs, numbers or labels that are there or not, and their gradients.

A new one is a row of `OUTPUTS` in `loss_cases`.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CASES, OUTPUTS

import funcnet as fn

LOSSES = {name: jax.jit(case.loss_fn) for name, case in OUTPUTS.items()}
AUTODIFF = {
    name: jax.jit(jax.grad(lambda scores, y, f=case.loss_fn: f(scores, y)[0]))
    for name, case in OUTPUTS.items()
}
each = pytest.mark.parametrize("name", OUTPUTS)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)


def sizes(name):
    return len(OUTPUTS[name].options.get("quantiles", "1"))


# Values and gradients


@each
def test_against_a_slow_loop(name, rng, x64):
    case = OUTPUTS[name]
    for n, k in ((7, 3), (1, 1)):
        for scale in (0.01, 1, 30):
            scores, y = case.draw(rng, n, k, scale)
            loss, dscores = LOSSES[name](scores, y)
            slow_loss, slow_dscores = case.reference(scores, y)
            assert loss.shape == ()
            assert loss.dtype == dscores.dtype == np.float64
            close(loss, slow_loss)
            close(dscores, slow_dscores)


@each
def test_gradients_are_autodiffs_and_numerical(name, rng, x64):
    scores, y = OUTPUTS[name].draw(rng)
    _, dscores = LOSSES[name](scores, y)
    assert fn.scaled_error(dscores, AUTODIFF[name](scores, y)) <= 1e-12
    numerical = fn.numerical_gradient(lambda s: LOSSES[name](s, y)[0], scores)
    assert fn.scaled_error(dscores, numerical) <= 1e-7


# A score for each target at which a loss has a kink, or where a formula changes; the slope there.
KINKS = {
    "squared": [(1.5, 1.5, 0)],
    "absolute": [(1.5, 1.5, 0), (0, 0, 0), (-0.0, 0, 0)],
    "huber": [(1, 0, 1), (-1, 0, -1), (2.5, 1.5, 1), (0, 0, 0)],
    "huber, 0.3": [(0.3, 0, 0.3), (-0.3, 0, -0.3), (1.5, 1.5, 0)],
    "pinball": [(1.5, 1.5, 0), (0, 0, 0)],
    "pinball, two": [(1.5, 1.5, 0), (0, 0, 0)],
    "pinball, three": [(1.5, 1.5, 0), (0, 0, 0)],
    "sigmoid": [(0, 0, 0.5), (0, 1, -0.5), (-0.0, 0, 0.5), (-0.0, 1, -0.5)],
    "sigmoid, soft": [(0, 0.25, 0.25), (0, 0.5, 0)],
    "poisson": [(0, 1, 0), (0, 0, 1)],
}


@each
def test_where_a_formula_changes(name, x64):
    for s, target, slope in KINKS[name]:
        scores, y = np.full((3, 2 * sizes(name)), float(s)), np.full((3, 2), float(target))
        _, dscores = LOSSES[name](scores, y)
        expected = np.full(scores.shape, slope / scores.size)
        close(dscores, expected)
        np.testing.assert_array_equal(AUTODIFF[name](scores, y), dscores)


def test_squared_loss_by_hand(x64):
    loss, dscores = LOSSES["squared"](np.array([[3.0, 1.0], [0.0, -2.0]]), np.zeros((2, 2)))
    assert loss == (9 + 1 + 0 + 4) / 2 / 4
    np.testing.assert_array_equal(dscores, np.array([[3, 1], [0, -2]]) / 4)


def test_a_huber_loss_of_large_delta_is_the_squared_loss(rng, x64):
    scores, y = OUTPUTS["huber"].draw(rng)
    found, expected = fn.huber_loss(scores, y, delta=1e6), LOSSES["squared"](scores, y)
    assert fn.scaled_error(found, expected) <= 1e-15


def test_the_pinball_loss_of_the_median_is_half_the_absolute_loss(rng, x64):
    scores, y = OUTPUTS["pinball"].draw(rng)
    found = LOSSES["pinball"](scores, y)
    expected = jax.tree.map(lambda a: a / 2, LOSSES["absolute"](scores, y))
    assert fn.scaled_error(found, expected) <= 1e-15


def test_quantiles_stand_side_by_side(rng, x64):
    """The Q of the first target first: each has the slope of its own quantile."""
    loss_fn = jax.jit(partial(fn.pinball_loss, quantiles=(0.1, 0.7)))
    y = np.array([[0.0, 10.0]])
    _, dscores = loss_fn(np.array([[-1.0, 1.0, 9.0, 11.0]]), y)
    close(dscores, np.array([[-0.1, 0.3, -0.1, 0.3]]) / 4)
    loss, _ = loss_fn(np.array([[-4.0, 1.0, 10.0, 10.0]]), y)
    close(loss, (0.4 + 0.3) / 4)


def test_what_minimizes_a_loss(rng, x64):
    """The mean, the median, quantiles, the frequency; the logarithm of the mean."""
    y = rng.gamma(2, size=101)[:, None]
    for name, least in {
        "squared": y.mean(),
        "absolute": np.median(y),
        "pinball": np.median(y),
        "poisson": np.log(y.mean()),
    }.items():
        _, dscores = LOSSES[name](np.full((101, 1), least), y)
        assert abs(dscores.sum()) <= 1e-14
    for quantile in (0.1, 0.9):
        loss_fn = partial(fn.pinball_loss, quantiles=(quantile,))
        _, dscores = loss_fn(np.full((101, 1), np.quantile(y, quantile)), y)
        assert abs(dscores.sum()) <= 1 / 101
    y = np.arange(100)[:, None] < 30
    _, dscores = LOSSES["sigmoid"](np.full((100, 1), np.log(0.3 / 0.7)), y.astype(int))
    assert abs(dscores.sum()) <= 1e-15


def test_one_label_is_two_classes(rng, x64):
    scores, y = 3 * rng.normal(size=(7, 1)), rng.integers(2, size=7)
    loss, dscores = LOSSES["sigmoid"](scores, y)
    both = np.concatenate([np.zeros((7, 1)), scores], axis=1)
    expected, of_both = fn.softmax_loss(both, y)
    close(loss, expected)
    close(dscores[:, 0], of_both[:, 1])


def test_delta_may_be_traced(rng, x64):
    scores, y = OUTPUTS["huber"].draw(rng)
    deltas = jnp.array([0.2, 1.0, 5.0], "float32")
    losses, dscores = jax.jit(jax.vmap(lambda d: fn.huber_loss(scores, y, delta=d)))(deltas)
    for i, delta in enumerate(deltas):
        expected = fn.huber_loss(scores, y, delta=float(delta))
        assert fn.scaled_error((losses[i], dscores[i]), expected) <= 1e-14


# Numerical care


@pytest.mark.parametrize("gap", [5, 20, 40, 80])
def test_confident_labels_lose_no_digits(gap, rng):
    y = rng.integers(2, size=(6, 5))
    scores = ((2 * y - 1) * (gap + rng.uniform(size=y.shape))).astype(np.float32)
    tail = np.exp(-np.abs(scores.astype(np.float64)))
    rtol = 1e-6
    for targets in (y, y.astype(np.float32)):
        loss, dscores = LOSSES["sigmoid"](scores, targets)
        assert loss.dtype == dscores.dtype == np.float32
        np.testing.assert_allclose(loss, np.log1p(tail).mean(), rtol=rtol)
        exact = np.where(y == 1, -1, 1) * tail / (1 + tail) / y.size
        np.testing.assert_allclose(dscores, exact, rtol=rtol)
        np.testing.assert_allclose(AUTODIFF["sigmoid"](scores, targets), exact, rtol=rtol)


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize(
    "name", ["absolute", "huber", "pinball, three", "sigmoid", "sigmoid, soft"]
)
def test_huge_scores_stay_finite(name, size, rng):
    _, y = OUTPUTS[name].draw(rng, n=12, k=2)
    scores = (size * rng.choice([-1.0, 1.0], size=(12, 2 * sizes(name)))).astype(np.float32)
    loss, dscores = LOSSES[name](scores, y.astype(np.float32))
    exact = OUTPUTS[name].reference(np.clip(scores, -700, 700), y)[1]
    assert np.isfinite(loss)
    np.testing.assert_allclose(dscores, exact, rtol=1e-6, atol=1e-12)
    auto = AUTODIFF[name](scores, y.astype(np.float32))
    np.testing.assert_allclose(auto, dscores, rtol=1e-6, atol=1e-12)


@each
def test_nan_survives(name, rng):
    case = OUTPUTS[name]
    scores, y = case.draw(rng, k=1)
    scores[3, 0] = np.nan
    for s, targets in (
        (scores, y),
        (np.nan_to_num(scores), np.where(np.arange(7) == 3, np.nan, 0)),
    ):
        s, targets = s.astype(np.float32), targets.astype(np.float32)
        loss, dscores = LOSSES[name](s, targets)
        assert np.isnan(loss)
        for gradient in (dscores, AUTODIFF[name](s, targets)):
            assert np.isnan(gradient[3, 0])
            assert np.isfinite(np.delete(gradient, 3, axis=0)).all()


# Dtypes and shapes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@each
def test_dtypes(name, dtype, rng, x64):
    scores, y = OUTPUTS[name].draw(rng, n=300)
    scores = jnp.asarray(scores, dtype)
    loss_dtype = "float64" if dtype == "float64" else "float32"
    for targets in (y, y.astype("float32"), np.round(y).astype("uint8")):
        loss, dscores = jax.eval_shape(OUTPUTS[name].loss_fn, scores, targets)
        assert (loss.dtype, dscores.dtype, dscores.shape) == (loss_dtype, dtype, scores.shape)
    if dtype in ("float16", "bfloat16"):  # summed in float32
        loss, dscores = LOSSES[name](scores, y)
        exact, exact_dscores = LOSSES[name](np.asarray(scores, np.float32), y)
        np.testing.assert_allclose(loss, exact, rtol=1e-6)
        rounded = np.asarray(exact_dscores).astype(scores.dtype)
        np.testing.assert_array_equal(np.asarray(dscores), rounded)


@each
def test_targets_of_one_output_need_no_column(name, rng, x64):
    scores, y = OUTPUTS[name].draw(rng, k=1)
    expected = LOSSES[name](scores, y)
    for targets in (y[:, 0], list(y[:, 0])):
        loss, dscores = OUTPUTS[name].loss_fn(scores, targets)
        assert fn.scaled_error((loss, dscores), expected) <= 1e-15


@each
def test_integers_are_numbers(name, x64):
    scores = np.full((3, 1), 0.3).repeat(sizes(name), axis=1)
    expected = LOSSES[name](scores, np.array([0.0, 1, 1]))
    for dtype in ("uint8", "int64"):
        found = LOSSES[name](scores, np.array([0, 1, 1], dtype))
        assert fn.scaled_error(found, expected) == 0


def test_integers_that_32_bits_cannot_hold():
    loss, _ = fn.absolute_loss(np.zeros((2, 1), "f"), np.array([2**32, 2**40]))
    np.testing.assert_allclose(loss, (2**32 + 2**40) / 2, rtol=1e-6)


@each
def test_nothing_is_promoted_by_jax(name, rng, strict, x64):
    scores, y = OUTPUTS[name].draw(rng)
    for dtype, targets, weights in (
        ("bfloat16", np.round(y).astype("int8"), np.arange(7)),
        ("float64", jnp.asarray(y, "float32"), jnp.arange(7, dtype="bfloat16")),
    ):
        narrow = jnp.asarray(scores, dtype)
        found = OUTPUTS[name].loss_fn(narrow, targets, weights)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            expected = OUTPUTS[name].loss_fn(narrow, targets, weights)
        assert fn.scaled_error(found, expected) == 0


s, y = np.zeros((5, 4), "f"), np.zeros((5, 4), "f")
ERRORS = {
    "scores of rank 1": (s[0], y, ValueError, "scores must be [N, K] and not empty, got [4]"),
    "scores of rank 3": (s[None], y, ValueError, "got [1, 5, 4]"),
    "no examples": (s[:0], y[:0], ValueError, "not empty, got [0, 4]"),
    "no outputs": (s[:, :0], y[:, :0], ValueError, "not empty, got [5, 0]"),
    "integer scores": (s.astype(int), y, TypeError, "scores must be floating point"),
    "too few targets": (s, y[:4], ValueError, "y must be [N, K] = [5, 4], one target per output"),
    "targets without a column": (s, y[:, 0], ValueError, "got [5]"),
    "targets of too many outputs": (s[:, :1], y, ValueError, "y must be [N, K] = [5, 1]"),
    "bool targets": (s, y.astype(bool), TypeError, "y must hold real numbers, got bool"),
    "complex targets": (s, y.astype(complex), TypeError, "y must hold real numbers, got complex"),
}


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.parametrize("name", [name for name in OUTPUTS if sizes(name) == 1])
def test_errors(name, case):
    scores, targets, kind, text = ERRORS[case]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        OUTPUTS[name].loss_fn(scores, targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"quantiles": ()}, ValueError, "quantiles is empty"),
        ({"quantiles": 0.5}, TypeError, "quantiles must be a tuple, such as .*, got 0.5"),
        ({"quantiles": "0.5"}, TypeError, "quantiles must be a tuple"),
        ({"quantiles": (0.5, 0)}, ValueError, r"quantiles\[1\] must be > 0 and < 1, got 0"),
        ({"quantiles": (1.0,)}, ValueError, r"quantiles\[0\] must be > 0 and < 1, got 1.0"),
        ({"quantiles": (np.nan,)}, ValueError, r"quantiles\[0\] must be finite"),
        ({"quantiles": ("a",)}, TypeError, r"quantiles\[0\] must be a number"),
        ({"quantiles": (0.1, 0.5, 0.9)}, ValueError, "3 columns for each target, one per quantile"),
        ({"quantiles": (0.1, 0.9)}, ValueError, r"y must be \[N, K\] = \[5, 2\]"),
        ({"delta": 0}, ValueError, "delta must be > 0, got 0"),
        ({"delta": -1.0}, ValueError, "delta must be > 0"),
        ({"delta": np.inf}, ValueError, "delta must be finite"),
        ({"delta": None}, TypeError, "delta must be a number"),
    ],
)
def test_errors_of_options(options, kind, text):
    loss_fn = fn.huber_loss if "delta" in options else fn.pinball_loss
    with pytest.raises(kind, match=text) as caught:
        loss_fn(s, y, **options)
    assert "\n" not in str(caught.value)


# Losses with options


def test_losses_with_options_are_equal_if_their_options_are(rng):
    for loss_fn, options, other in (
        (fn.huber_loss, {"delta": 2.0}, {"delta": 3.0}),
        (fn.pinball_loss, {"quantiles": (0.1, 0.9)}, {"quantiles": (0.1, 0.8)}),
    ):
        made = fn.losses.as_loss(partial(loss_fn, **options))
        again = fn.losses.as_loss(partial(loss_fn, **dict(options)))
        assert made == again
        assert hash(made) == hash(again)
        assert made != fn.losses.as_loss(partial(loss_fn, **other))
        assert made != fn.losses.as_loss(loss_fn)
        assert fn.losses.as_loss(made) is made
        scores, y = rng.normal(size=(5, 2)), rng.normal(size=5 * 2).reshape(5, 2)
        y = y if loss_fn is fn.huber_loss else y[:, 0]
        weights = np.arange(5)
        expected = loss_fn(scores, y, weights, **options)
        assert fn.scaled_error(made(scores, y, weights), expected) == 0
        assert fn.scaled_error(made(scores, y, sample_weight=weights), expected) == 0


def test_a_program_serves_equal_losses():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def loss_of(loss_fn, scores, y):
        traces.append(loss_fn)
        return loss_fn(scores, y)[0]

    for delta in (2.0, 2.0, 0.5):
        loss_of(fn.losses.as_loss(partial(fn.huber_loss, delta=delta)), s, y)
    assert len(traces) == 2


def test_what_is_no_partial_stays():
    own = partial(fn.huber_loss, s)
    for loss_fn in (fn.softmax_loss, fn.huber_loss, own, lambda scores, y: None):
        assert fn.losses.as_loss(loss_fn) is loss_fn
    for wrong in ("huber", None, 2.0):
        with pytest.raises(TypeError, match="loss_fn must be a function, got"):
            fn.losses.as_loss(wrong)


# Smoothed labels


@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
def test_smooth_binary_labels(smoothing, rng, x64):
    y = rng.integers(2, size=(9, 3))
    targets = np.asarray(fn.smooth_binary_labels(y, smoothing))
    close(targets, np.where(y == 1, 1 - smoothing / 2, smoothing / 2))
    np.testing.assert_allclose(
        targets, fn.smooth_labels(y.ravel(), 2, smoothing)[:, 1].reshape(9, 3)
    )
    traced = jax.jit(fn.smooth_binary_labels)(y, smoothing)
    close(traced, targets)
    loss, _ = LOSSES["sigmoid, soft"](np.zeros((9, 3)), targets)
    close(loss, np.log(2))


def test_smooth_binary_labels_have_a_float_type():
    assert fn.smooth_binary_labels(np.array([0, 1], "uint8"), 0.1).dtype == np.float32
    with pytest.raises(ValueError, match=r"smoothing must be .*<= 1"):
        fn.smooth_binary_labels(np.array([0, 1]), 1.5)


def test_the_cases_are_of_all_losses():
    assert {case.loss for case in CASES.values()} == fn.losses.LOSSES.keys()
