"""Metrics against their definitions in plain Python, and what `evaluate` says of a model."""

import json
import math
import pickle
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn
from funcnet import metrics
from funcnet.evaluation import Examples, measure

LABEL_DTYPES = ("int8", "uint8", "int32", "int64", "uint64", "float32")


# Definitions, those of scikit-learn: example by example


def slow_confusion(y, predicted, num_classes):
    counts = [[0] * num_classes for _ in range(num_classes)]
    for true, found in zip(y, predicted, strict=True):
        if found >= 0:
            counts[true][found] += 1
    return counts


def slow_recall(y, predicted, num_classes):
    shares = []
    for c in range(num_classes):
        found = [p == c for true, p in zip(y, predicted, strict=True) if true == c]
        shares.append(Fraction(sum(found), len(found)) if found else None)
    return shares


def slow_balanced(y, predicted, num_classes):
    shares = [share for share in slow_recall(y, predicted, num_classes) if share is not None]
    return float(sum(shares) / len(shares))


def slow_log_loss(y, scores):
    """-log p = log(1 + the others over the largest) + (the largest - that of the true class)."""
    total = 0.0
    for true, row in zip(y, scores.astype(np.longdouble), strict=True):
        top = row.argmax()
        others = sum(np.exp(s - row[top]) for j, s in enumerate(row) if j != top)
        total += np.log1p(others) + (row[top] - row[true])
    return float(total / len(y))


@st.composite
def cases(draw):
    """Labels and predictions, some of them no answer, of classes of which some do not occur."""
    num_classes = draw(st.integers(1, 6))
    label = st.integers(0, num_classes - 1)
    y = draw(st.lists(label, min_size=1, max_size=30))
    predicted = draw(st.lists(label | st.just(-1), min_size=len(y), max_size=len(y)))
    return y, predicted, num_classes, draw(st.sampled_from(LABEL_DTYPES))


@settings(deadline=None)
@given(cases())
def test_metrics_of_labels_are_their_definitions(case):
    y, predicted, num_classes, dtype = case
    slow = [f(y, predicted, num_classes) for f in (slow_confusion, slow_recall, slow_balanced)]
    y, predicted = np.array(y, dtype), np.array(predicted)
    found = fn.confusion_matrix(y, predicted, num_classes)
    assert found.tolist() == slow[0]
    assert found.dtype == np.int64
    recall = fn.recall(y, predicted, num_classes)
    expected = [math.nan if share is None else float(share) for share in slow[1]]
    np.testing.assert_array_equal(recall, expected)
    assert recall.dtype == np.float64
    assert fn.balanced_accuracy(y, predicted) == pytest.approx(slow[2], rel=1e-14)
    right = sum(a == b for a, b in zip(y, predicted, strict=True))
    assert fn.accuracy(y, predicted) == right / len(y)


def test_metrics_of_labels_by_hand():
    """The examples of scikit-learn's documentation."""
    y, predicted = [2, 0, 2, 2, 0, 1], [0, 0, 2, 2, 0, 2]
    assert fn.confusion_matrix(y, predicted, 3).tolist() == [[2, 0, 0], [0, 0, 1], [1, 0, 2]]
    assert fn.balanced_accuracy([0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1]) == 0.625
    assert fn.accuracy(y, predicted) == 4 / 6
    # A classifier that has learned nothing but the larger class.
    assert fn.accuracy([0] * 95 + [1] * 5, [0] * 100) == 0.95
    assert fn.balanced_accuracy([0] * 95 + [1] * 5, [0] * 100) == 0.5


def test_labels_may_be_large():
    assert fn.balanced_accuracy([2**31 - 1, 0], [2**31 - 1, 1]) == 0.5
    many = np.arange(50_000) % 60_000
    assert fn.recall(many, many, 60_000).shape == (60_000,)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 12),
    st.sampled_from((1e-4, 1.0, 30.0, 1e4)),
    st.sampled_from(("float16", "float32", "float64", "bfloat16", "int32")),
)
def test_log_loss_is_its_definition(seed, classes, count, scale, dtype):
    rng = np.random.default_rng(seed)
    scores = scale * rng.uniform(-3, 3, size=(count, classes))
    scores = scores.astype(jnp.dtype(dtype))
    y = rng.integers(classes, size=count)
    found = fn.log_loss(y, scores)
    assert found >= 0
    np.testing.assert_allclose(found, slow_log_loss(y, scores.astype(np.float64)), rtol=1e-12)
    p = metrics.softmax(scores)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    likely = p[np.arange(count), y]
    if likely.min() > 1e-300:
        np.testing.assert_allclose(found, -np.log(likely).mean(), rtol=1e-9, atol=1e-15)


def test_log_loss_clips_nothing():
    assert fn.log_loss([0], [[40.0, 0.0]]) == pytest.approx(math.exp(-40), rel=1e-14, abs=0)
    assert fn.log_loss([1], [[5000.0, 0.0]]) == 5000
    assert fn.log_loss([1], [[0.0, -np.inf]]) == math.inf
    assert fn.log_loss([0], [[0.0, -np.inf]]) == 0
    assert str(fn.log_loss([0], [[3.0]])) == "0.0"
    assert fn.log_loss([0], [[1.5e308, -1.5e308]]) == 0
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert fn.log_loss([0, 1], np.log(p)) == pytest.approx(-np.log([0.2, 0.5]).mean())


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [1.0, np.inf], [-np.inf, -np.inf]])
def test_scores_that_are_none_make_no_number(bad):
    scores = np.array([[1.0, 2.0], bad])
    assert math.isnan(fn.log_loss([0, 0], scores))
    p = metrics.softmax(scores)
    assert np.isnan(p[1]).all()
    assert p[0].sum() == 1


def test_the_largest_score_is_chosen():
    scores = np.array([[1, 3, 3], [0, -1, -2], [5, np.nan, 6], [np.inf, 0, 1]])
    assert metrics.chosen(scores).tolist() == [1, 0, -1, 0]


REFUSED = {
    "nothing": (lambda: fn.accuracy([], []), r"y must be \[N\] labels, N >= 1, got shape \[0\]"),
    "rank 3": (lambda: fn.accuracy([[[0]]], [[[0]]]), r"y must be \[N\] labels.*\[1, 1, 1\]"),
    "too few": (lambda: fn.accuracy([0, 1], [0]), r"predicted must have one label .*\[2\].*\[1\]"),
    "below none": (lambda: fn.accuracy([0, 1], [0, -2]), r"predicted\[1\] is -2"),
    "label -1": (lambda: fn.accuracy([0, -1], [0, 0]), r"y\[1\] is -1"),
    "fraction": (lambda: fn.recall([0, 1], [0, 0.5], 2), r"predicted\[1\] is 0.5"),
    "nan": (lambda: fn.recall([0, 1], [0, np.nan], 2), r"predicted\[1\] is nan"),
    "strings": (lambda: fn.balanced_accuracy([0, 1], ["0", "1"]), "predicted must hold integer"),
    "bools": (lambda: fn.balanced_accuracy([0, 1], [True, False]), "predicted must hold integer"),
    "too large": (lambda: fn.confusion_matrix([0, 1], [0, 2], 2), r"predicted\[1\] is 2"),
    "y too large": (lambda: fn.confusion_matrix([0, 2], [0, 1], 2), r"0 to 1, but y\[1\] is 2"),
    "classes": (lambda: fn.recall([0], [0], 2.0), "num_classes must be an integer"),
    "no classes": (lambda: fn.recall([0], [0], 0), "num_classes must be at least 1"),
    "scores of rank 1": (lambda: fn.log_loss([0], [0.1]), r"scores must be \[N, C\].*\[1\]"),
    "no scores": (lambda: fn.log_loss([], np.ones((0, 2))), r"scores must be .*\[0, 2\]"),
    "another class": (lambda: fn.log_loss([2], [[0.1, 0.9]]), r"y\[0\] is 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_metrics_refuse(case):
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        call()
    assert "\n" not in str(error.value)


# What evaluate and predict_proba say


def flat(classes=4):
    """A model whose scores are its inputs."""
    net = fn.mlp([], classes)
    params = fn.freeze({"affine1": {"w": jnp.eye(classes), "b": jnp.zeros(classes)}})
    return fn.Model(net, params, fn.FrozenDict(), fn.subtract_mean(np.zeros((1, classes))))


@pytest.fixture
def examples(rng):
    """Scores of 4 classes, of which class 2 does not occur."""
    y = rng.choice([0, 1, 1, 1, 3], size=23).astype(np.int32)
    return (3 * rng.normal(size=(23, 4)) + 2 * np.eye(4)[y]).astype(np.float32), y


@pytest.mark.parametrize("batch_size", [5, 1000])
def test_evaluate_says_all_metrics(examples, batch_size):
    x, y = examples
    result = fn.evaluate(flat(), x, y, batch_size=batch_size)
    predicted = x.argmax(axis=1)
    assert result.accuracy == fn.accuracy(y, predicted)
    assert result.balanced_accuracy == fn.balanced_accuracy(y, predicted)
    assert result.balanced_accuracy != result.accuracy
    assert result.log_loss == pytest.approx(fn.log_loss(y, x), rel=1e-6)
    assert result.log_loss == pytest.approx(result.loss, rel=1e-5)
    assert result.recall[2] is None
    np.testing.assert_array_equal(np.array(result.recall, float), fn.recall(y, predicted, 4))
    np.testing.assert_array_equal(result.confusion, fn.confusion_matrix(y, predicted, 4))


def test_an_evaluation_is_compared_and_printed_like_numbers(examples):
    a, b = (fn.evaluate(flat(), *examples) for _ in range(2))
    assert a == b
    assert hash(a) == hash(pickle.loads(pickle.dumps(a)))
    assert a != a._replace(confusion=a.confusion[::-1])
    assert json.loads(json.dumps(a._asdict()))["recall"][2] is None
    assert repr(a) == (
        f"Evaluation(loss={a.loss!r}, accuracy={a.accuracy!r}, "
        f"balanced_accuracy={a.balanced_accuracy!r}, log_loss={a.log_loss!r}, views=1)"
    )


def test_scores_of_the_svm_loss_have_no_log_loss(examples):
    result = fn.evaluate(flat(), *examples, loss_fn=fn.svm_loss)
    plain = fn.evaluate(flat(), *examples)
    assert result == plain._replace(loss=result.loss, log_loss=None)
    assert result.loss != plain.loss


def test_an_own_loss_has_a_log_loss_beside_it(examples):
    def twice(scores, y):
        loss, dscores = fn.softmax_loss(scores, y)
        return 2 * loss, 2 * dscores

    result = fn.evaluate(flat(), *examples, loss_fn=twice)
    assert result.loss == pytest.approx(2 * result.log_loss, rel=1e-5)


def test_an_example_with_a_nan_is_taken_for_no_class(examples):
    x, y = examples
    model = flat()
    bad = model.params.set(("affine1", "b"), jnp.array([0, 0, 0, jnp.nan]))
    model = fn.Model(model.net, bad, model.state, model.preprocess)
    result = fn.evaluate(model, x, y)
    assert (result.accuracy, result.balanced_accuracy) == (0, 0)
    assert result.recall == (0, 0, None, 0)
    assert np.sum(result.confusion) == 0
    assert math.isnan(result.log_loss)


@pytest.mark.parametrize("nan", [False, True])
def test_what_fit_measures_is_what_evaluate_says(examples, nan):
    model = flat()
    if nan:
        params = model.params.set(("affine1", "b"), jnp.array([0, jnp.nan, 0, 0]))
        model = fn.Model(model.net, params, model.state, model.preprocess)
    quick = measure(model, Examples(*examples), 10, fn.softmax_loss)
    whole = fn.evaluate(model, *examples)
    assert quick["accuracy"] == whole.accuracy
    np.testing.assert_allclose(quick["loss"], whole.loss, rtol=1e-6)


def test_one_forward_pass_says_all(examples):
    """Each example is seen once by the compiled program; the last three are filled up to four."""
    seen = []
    model = flat()

    def forward(params, state, x, **options):
        jax.debug.callback(lambda x: seen.append(len(x)), x)
        return model.net.forward(params, state, x, **options)

    watched = fn.Model(
        model.net._replace(forward=forward), model.params, model.state, model.preprocess
    )
    fn.evaluate(watched, *examples, batch_size=10)
    jax.effects_barrier()
    assert sorted(seen) == [4, 10, 10]


def test_predict_proba(examples):
    x, _ = examples
    model = flat()
    p = fn.predict_proba(model, x, batch_size=7)
    exps = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(p, exps / exps.sum(axis=1, keepdims=True), rtol=1e-6)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    views = [lambda x: x, jnp.negative]  # whose scores cancel
    np.testing.assert_array_equal(fn.predict_proba(model, x, views=views), np.full((23, 4), 0.25))
    with pytest.raises(ValueError, match="x is empty"):
        fn.predict_proba(model, x[:0])
