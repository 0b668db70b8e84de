"""Weights: of examples in every loss and in the loss of a network, and of classes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CASES
from marks import slow_but

import funcnet as fn
from funcnet import checks
from funcnet.objective import loss_of_scores

LOSSES = {name: jax.jit(case.loss_fn) for name, case in CASES.items()}
AUTODIFF = {
    name: jax.jit(jax.grad(lambda scores, y, w, f=case.loss_fn: f(scores, y, w)[0]))
    for name, case in CASES.items()
}
WEIGHTS = np.array([0.7, 0.0, 2.5, 1e-3, 0.0, 1.0, 3.0])
each = pytest.mark.parametrize("name", CASES)
key = jax.random.key(231)


# Losses


@each
def test_a_weighted_loss_against_a_slow_loop(name, rng, x64):
    scores, y = CASES[name].draw(rng)
    loss, dscores = LOSSES[name](scores, y, WEIGHTS)
    exact, exact_dscores = CASES[name].reference(scores, y, WEIGHTS)
    assert loss.shape == ()
    np.testing.assert_allclose(loss, exact, rtol=1e-12)
    np.testing.assert_allclose(dscores, exact_dscores, rtol=1e-12, atol=1e-15)
    assert fn.scaled_error(dscores, AUTODIFF[name](scores, y, WEIGHTS)) <= 1e-12
    numerical = fn.numerical_gradient(lambda s: LOSSES[name](s, y, WEIGHTS)[0], scores)
    assert fn.scaled_error(dscores, numerical) <= 1e-7


@each
def test_weights_that_are_integers_are_rows_repeated(name, rng, x64):
    scores, y = CASES[name].draw(rng)
    counts = np.array([2, 1, 0, 3, 1, 0, 5])
    loss, dscores = LOSSES[name](scores, y, counts)
    rows = np.repeat(np.arange(7), counts)
    repeated, of_rows = LOSSES[name](scores[rows], y[rows])
    np.testing.assert_allclose(loss, repeated, rtol=1e-12)
    summed = np.zeros(scores.shape)
    np.add.at(summed, rows, np.asarray(of_rows))
    np.testing.assert_allclose(dscores, summed, rtol=1e-12, atol=1e-15)


@each
def test_equal_weights_are_none_and_only_ratios_count(name, rng, x64):
    scores, y = CASES[name].draw(rng)
    expected = LOSSES[name](scores, y)
    for weight in (1.0, 0.25, 1e-300, 4e307):  # of which a sum would be infinite
        found = LOSSES[name](scores, y, np.full(7, weight))
        assert fn.scaled_error(found, expected) <= 1e-14


GARBAGE = {
    "infinite scores": (np.inf, None),
    "scores that are NaN": (np.nan, None),
    "huge scores": (-1e30, None),
    "targets that are NaN": (None, np.nan),
    "targets of no class": (None, -7),
}


@each
def test_what_is_in_rows_of_weight_zero_does_not_matter(name, rng):
    scores, y = CASES[name].draw(rng)
    scores, out = scores.astype(np.float32), WEIGHTS == 0
    y = y.astype(np.float32) if y.dtype == np.float64 else y
    expected = LOSSES[name](scores, y, WEIGHTS)
    for score, target in GARBAGE.values():
        if target is not None and np.isnan(target) and y.dtype != np.float32:
            continue
        mixed, other = scores.copy(), y.copy()
        mixed[out] = mixed[out] if score is None else score
        other[out] = other[out] if target is None else target
        found = LOSSES[name](mixed, other, WEIGHTS)
        assert fn.scaled_error(found, expected) == 0
        assert not np.any(found[1][out])
        auto = AUTODIFF[name](mixed, other, WEIGHTS)
        assert fn.scaled_error(auto, expected[1]) <= 1e-5


@each
def test_weights_of_zero_give_zero(name, rng):
    scores, y = CASES[name].draw(rng)
    scores = scores.astype(np.float32)
    scores[2] = np.inf
    loss, dscores = LOSSES[name](scores, y, np.zeros(7))
    assert loss == 0
    for gradient in (dscores, AUTODIFF[name](scores, y, np.zeros(7))):
        np.testing.assert_array_equal(gradient, np.zeros(scores.shape))


@each
def test_weights_that_are_nan_give_nan(name, rng):
    scores, y = CASES[name].draw(rng)
    for wrong in (np.nan, np.inf):
        weights = np.where(np.arange(7) == 3, wrong, 1).astype("f")
        loss, dscores = LOSSES[name](scores.astype("f"), y, weights)
        assert np.isnan(loss)
        assert np.isnan(dscores[3]).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@each
def test_dtypes_of_weights(name, dtype, rng, strict, x64):
    scores, y = CASES[name].draw(rng)
    scores = jnp.asarray(scores, dtype)
    for weights in (jnp.arange(7, dtype="bfloat16"), np.arange(7.0), np.arange(7, dtype="uint8")):
        loss, dscores = jax.eval_shape(CASES[name].loss_fn, scores, y, weights)
        assert loss.dtype == ("float64" if dtype == "float64" else "float32")
        assert (dscores.dtype, dscores.shape) == (dtype, scores.shape)


def test_weights_of_half_precision_are_summed_in_float32():
    y = (np.arange(4096) < 2048).astype("f")
    ones = jnp.ones(4096, "bfloat16")
    loss, _ = fn.squared_loss(jnp.zeros((4096, 1), "bfloat16"), y, ones)
    assert loss == 0.25


w = np.ones(5)
ERRORS = {
    "too few": (w[:4], ValueError, "sample_weight must be [N] = [5], one weight per row of scores"),
    "one": (2.0, ValueError, "got []"),
    "a column": (w[:, None], ValueError, "got [5, 1]"),
    "bools": (w.astype(bool), TypeError, "sample_weight must hold real numbers, got bool"),
    "complex": (w.astype(complex), TypeError, "sample_weight must hold real numbers, got complex"),
}


@pytest.mark.parametrize("case", ERRORS)
@each
def test_errors_of_weights(name, case, rng):
    weights, kind, text = ERRORS[case]
    scores, y = CASES[name].draw(rng, n=5)
    with pytest.raises(kind, match=re.escape(text)) as caught:
        CASES[name].loss_fn(scores.astype("f"), y, weights)
    assert "\n" not in str(caught.value)


# Networks


def small(rng, case, layers=()):
    """A net for a case, on data with weights."""
    _, y = CASES[case].draw(rng)
    columns = np.shape(CASES[case].draw(rng)[0])[1]
    net = fn.serial(fn.affine(4), fn.relu(), *layers, fn.affine(columns))
    params, state, _ = net.init(key, (2, 2))
    params = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape), params)
    return net, params, state, rng.normal(size=(7, 2, 2)), y


@pytest.mark.parametrize("name", slow_but(CASES, "pinball, three"))
def test_a_whole_net(name, rng, unoptimized):
    args = small(rng, name)
    options = {"loss_fn": CASES[name].loss_fn, "sample_weight": WEIGHTS}
    report = fn.check_gradients(*args, reg=0.2, max_elements=6, **options)
    assert report.passed, report
    scores, _, _ = args[0].forward(*args[1:4], train=True)
    expected, _ = CASES[name].reference(scores, args[4], WEIGHTS)
    np.testing.assert_allclose(fn.loss(*args, **options), expected, rtol=1e-5)


def test_batch_statistics_do_not_know_weights(rng):
    net, params, state, x, y = small(rng, "squared", [fn.batchnorm()])
    options = {"loss_fn": fn.squared_loss}
    _, _, plain = fn.loss_and_grads(net, params, state, x, y, **options)
    _, _, new = fn.loss_and_grads(net, params, state, x, y, **options, sample_weight=WEIGHTS)
    assert new == plain


def test_weights_may_be_traced(rng, x64, unoptimized):
    net, params, state, x, y = small(rng, "softmax")

    @jax.jit
    def both(weights):
        by_hand = fn.loss_and_grads(net, params, state, x, y, sample_weight=weights)[:2]
        return by_hand, fn.loss(net, params, state, x, y, sample_weight=weights)

    for weights in (WEIGHTS, np.zeros(7)):
        by_hand, loss = both(weights)
        expected = fn.loss_and_grads(net, params, state, x, y, sample_weight=weights)[:2]
        assert fn.scaled_error(by_hand, expected) <= 1e-14
        np.testing.assert_allclose(loss, expected[0], rtol=1e-14)


def test_losses_of_ones_own(rng):
    net, params, state, x, y = small(rng, "squared")

    def plain(scores, y):
        return fn.squared_loss(scores, y)

    def third(scores, y, temperature=1.0):
        raise AssertionError

    expected = fn.loss(net, params, state, x, y, loss_fn=fn.squared_loss)
    assert fn.loss(net, params, state, x, y, loss_fn=plain) == expected
    for loss_fn in (plain, third, partial(third, temperature=2.0)):
        for function in (fn.loss, fn.loss_and_grads, fn.check_gradients):
            with pytest.raises(TypeError, match=r"takes no weights: give it .*sample_weight=None"):
                function(net, params, state, x, y, loss_fn=loss_fn, sample_weight=WEIGHTS)
    expected = fn.loss(net, params, state, x, y, loss_fn=fn.squared_loss, sample_weight=WEIGHTS)
    for loss_fn in (
        lambda scores, y, sample_weight: fn.squared_loss(scores, y, sample_weight),
        lambda *args, **options: fn.squared_loss(*args, **options),
        jax.jit(fn.squared_loss),
        partial(fn.squared_loss),
        fn.losses.as_loss(partial(fn.squared_loss)),
    ):
        loss = fn.loss(net, params, state, x, y, loss_fn=loss_fn, sample_weight=WEIGHTS)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


# Members


@each
def test_members_have_the_mean_of_their_losses(name, rng, x64):
    case, weights = CASES[name], None if name in ("huber", "softmax") else WEIGHTS
    many = [case.draw(rng)[0] for _ in range(4)]
    y = case.draw(rng)[1]
    scores = jnp.asarray(np.stack(many, axis=1))  # [N, 4, C]
    loss, dscores = jax.jit(partial(loss_of_scores, case.loss_fn))(scores, y, weights)
    references = [case.reference(member, y, weights) for member in many]
    np.testing.assert_allclose(loss, np.mean([loss for loss, _ in references]), rtol=1e-12)
    expected = np.stack([dmember for _, dmember in references], axis=1) / 4
    np.testing.assert_allclose(dscores, expected, rtol=1e-12, atol=1e-15)


def test_a_net_of_members(rng, unoptimized):
    """An affine layer whose outputs are those of three members."""
    split = fn.make_layer(
        "split",
        lambda x: (x.reshape(len(x), 3, -1), jnp.shape(x)),
        lambda dout, shape: dout.reshape(shape),
    )
    net = fn.serial(fn.affine(6), split)
    params, state, _ = net.init(key, (4,))
    x, y = rng.normal(size=(7, 4)), rng.integers(2, size=7)
    report = fn.check_gradients(net, params, state, x, y, sample_weight=WEIGHTS)
    assert report.passed, report
    scores = np.asarray(net.forward(params, state, x, train=True)[0])
    losses = [CASES["softmax"].reference(scores[:, k], y, WEIGHTS)[0] for k in range(3)]
    np.testing.assert_allclose(report.loss, np.mean(losses), rtol=1e-5)


# Weights of examples where data comes in


def test_checked_weights():
    for given in ([0, 1, 2.5], np.array([0, 1, 2.5], "f"), jnp.array([0, 1, 2.5], "bfloat16")):
        found = checks.weights(given, num_examples=3)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [0, 1, 2.5])
    np.testing.assert_array_equal(checks.weights([0, 2**40], num_examples=2), [0, 2**40])
    np.testing.assert_array_equal(checks.weights(np.zeros(2), num_examples=2), [0, 0])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([1, -0.5, -1], r"w must be >= 0 and at most 9e\+37, but w\[1\] is -0.5 \(2 such"),
        ([1, 1, np.nan], r"w\[2\] is nan \(1 such element\)"),
        ([np.inf, 1, 1], r"w\[0\] is inf"),
        ([1, 1e300, 1], r"w\[1\] is 1e\+300"),
        ([1e-60, 0, 1e-50], "w is 0 in float32, at most 1e-50: multiply it by a constant"),
        ([1, 1], r"w must have one weight per example, shape \[3\], got \[2\]"),
        (np.ones((3, 1)), r"got \[3, 1\]"),
        (1.0, r"got \[\]"),
        (["a", "b", "c"], "w must hold real numbers, got dtype"),
        ([True, False, True], "w must hold real numbers, got dtype bool"),
        ([1, None, 2], "w must hold real numbers, got dtype object"),
        (np.ma.masked_equal([1, 2, 3], 2), r"w\[1\] is masked"),
    ],
)
def test_checked_weights_refuse(given, text):
    with pytest.raises(ValueError, match=text) as caught:
        checks.weights(given, num_examples=3, name="w")
    assert "\n" not in str(caught.value)


# Weights of classes

y = np.array([0, 0, 0, 2, 2, 0, 2, 0, 1, 0])  # 6, 1 and 3 of them
NAMES = ("cat", "dog", "eel")


def test_balanced_weights():
    balanced = fn.class_weights(y, "balanced")
    np.testing.assert_allclose(balanced, [10 / 3 / 6, 10 / 3 / 1, 10 / 3 / 3], rtol=1e-15)
    assert balanced.dtype == np.float64
    totals = np.bincount(y, balanced[y])
    np.testing.assert_allclose(totals, 10 / 3, rtol=1e-15)


def test_balanced_weights_are_those_of_scikit_learn():
    utils = pytest.importorskip("sklearn.utils", reason="scikit-learn is missing")
    theirs = utils.compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(fn.class_weights(y, "balanced"), theirs, rtol=1e-15)


def test_a_class_that_does_not_occur_has_no_weight():
    for options in ({"num_classes": 5}, {"class_names": ("a", "b", "c", "d", "e")}):
        balanced = fn.class_weights(2 * y, "balanced", **options)
        np.testing.assert_allclose(balanced, [10 / 18, 0, 10 / 3, 0, 10 / 9], rtol=1e-15)


def test_balanced_weights_of_weighted_examples():
    """A weight of 2 is an example twice, one of 0 an example less."""
    counts = np.array([1, 2, 0, 1, 3, 1, 1, 0, 0, 1])
    found = fn.class_weights(y, "balanced", sample_weight=counts, num_classes=3)
    expected = fn.class_weights(np.repeat(y, counts), "balanced", num_classes=3)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert found[1] == 0
    np.testing.assert_array_equal(fn.class_weights(y, "balanced", sample_weight=0.0 * y), [0, 0, 0])
    with pytest.raises(ValueError, match=r"sample_weight\[0\] is -1"):
        fn.class_weights(y, "balanced", sample_weight=y - 1)


def test_weights_of_named_classes():
    for given in ({"dog": 5, "eel": 0.5}, {1: 5, "eel": 0.5}, {np.int64(1): 5, 2: 0.5}):
        weights = fn.class_weights(y, given, NAMES)
        assert isinstance(weights, np.ndarray)
        assert weights.dtype == np.float64
        np.testing.assert_array_equal(weights, [1, 5, 0.5])
    np.testing.assert_array_equal(fn.class_weights(y, {2: 3}), [1, 1, 3])
    np.testing.assert_array_equal(fn.class_weights(y, {}, num_classes=4), [1, 1, 1, 1])
    digits = tuple("3210")  # a name is not a number
    np.testing.assert_array_equal(fn.class_weights(y, {"0": 5, 1: 2}, digits), [1, 2, 1, 5])


def test_other_weights_of_classes():
    np.testing.assert_array_equal(fn.class_weights(y, None, NAMES), [1, 1, 1])
    for given in ([1, 5, 0.5], (1, 5, 0.5), np.array([1, 5, 0.5], "f"), jnp.array([1, 5, 0.5])):
        weights = fn.class_weights(y, given)
        assert weights.dtype == np.float64
        np.testing.assert_array_equal(weights, [1, 5, 0.5])


def test_weights_of_classes_may_be_traced():
    named = jax.jit(lambda a: fn.class_weights(y, {"dog": a, "cat": 2}, NAMES))(5.0)
    assert named.dtype == np.float32
    np.testing.assert_array_equal(named, [2, 5, 1])
    whole = jax.jit(lambda a: fn.class_weights(y, a))(np.array([1, 5, 0.5]))
    np.testing.assert_array_equal(whole, [1, 5, 0.5])


@pytest.mark.parametrize(
    ("given", "options", "kind", "text"),
    [
        ("balancd", {}, ValueError, "unknown class_weight 'balancd': did you mean 'balanced'"),
        ({"dgo": 2}, {"class_names": NAMES}, ValueError, "unknown class 'dgo': did you mean 'dog'"),
        ({"dog": 2}, {}, ValueError, "names the class 'dog': give class_names, or its number"),
        ({3: 2}, {}, ValueError, "class_weight has class 3, known: 0 to 2"),
        ({-1: 2}, {}, ValueError, "class_weight has class -1, known: 0 to 2"),
        ({1.0: 2}, {}, TypeError, "needs names or numbers of classes, got 1.0"),
        ({True: 2}, {}, TypeError, "needs names or numbers of classes, got True"),
        ({"dog": 2, 1: 3}, {"class_names": NAMES}, ValueError, "has class 1 twice, also as 1"),
        ({0: -2}, {}, ValueError, "the weight of class 0 must be >= 0, got -2"),
        ({0: np.nan}, {}, ValueError, "the weight of class 0 must be finite"),
        ({"dog": None}, {"class_names": NAMES}, TypeError, "class 'dog' must be a number"),
        (
            [1, 2],
            {},
            ValueError,
            r"class_weight must be \[C\] = \[3\], .* got \[2\]",
        ),
        ([1, -2, 3], {}, ValueError, r"class_weight must be >= 0 .* class_weight\[1\] is -2"),
        (None, {"num_classes": 2}, ValueError, r"y must hold labels 0 to 1, but y\[3\] is 2"),
        (None, {"num_classes": 0}, ValueError, "num_classes must be at least 1"),
        (None, {"num_classes": 4, "class_names": NAMES}, ValueError, "is 4, but there are 3 class"),
    ],
)
def test_weights_of_classes_refuse(given, options, kind, text):
    with pytest.raises(kind, match=text) as caught:
        fn.class_weights(y, given, **options)
    assert "\n" not in str(caught.value)


def test_traced_weights_of_too_many_classes():
    with pytest.raises(ValueError, match=r"class_weight must be \[C\] = \[3\], got \[4\]"):
        jax.jit(lambda a: fn.class_weights(y, a))(np.ones(4))


def test_labels_are_checked():
    for wrong in (y - 1, y[:, None], y + 0.5):
        with pytest.raises(ValueError, match="y must"):
            fn.class_weights(wrong, None)


def test_the_loss_of_weighted_classes_is_the_mean_over_their_weights(rng, x64):
    """Balanced, it is the mean over the classes of their losses."""
    scores, weights = rng.normal(size=(10, 3)), fn.class_weights(y, "balanced")
    loss, _ = LOSSES["softmax"](scores, y, weights[y])
    of_each = [CASES["softmax"].reference(scores[y == c], y[y == c])[0] for c in range(3)]
    np.testing.assert_allclose(loss, np.mean(of_each), rtol=1e-12)
