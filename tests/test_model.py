"""Prediction and evaluation in batches of a few sizes."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest

import funcnet as fn

KEY = jax.random.key(5)


@pytest.fixture
def model(rng):
    x = rng.normal(size=(30, 4)).astype(np.float32)
    net = fn.mlp([6], 3, normalization="batchnorm")
    params, state, _ = net.init(KEY, (4,))
    return fn.Model(net, params, state, fn.standardize(x))


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)


@pytest.mark.parametrize("batch_size", [1, 3, 16, 1000])
def test_scores_do_not_depend_on_the_rows_beside(batch_size, model, data):
    x, _ = data
    scores = fn.predict_scores(model, x)
    assert scores.shape == (40, 3)
    for count in (1, 2, 4, 5, 17, 40):
        part = fn.predict_scores(model, x[:count], batch_size=batch_size)
        np.testing.assert_allclose(part, scores[:count], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss_fn", [fn.softmax_loss, fn.svm_loss])
@pytest.mark.parametrize("count", [1, 5, 17, 40])
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_only_the_rows_that_are_given_count(loss_fn, count, batch_size, model, data):
    x, y = data[0][:count], data[1][:count]
    scores = fn.predict_scores(model, x)
    found = fn.evaluate(model, x, y, loss_fn=loss_fn, batch_size=batch_size)
    np.testing.assert_allclose(found.loss, loss_fn(scores, y)[0], rtol=1e-5)
    assert found.accuracy == np.mean(scores.argmax(axis=1) == y)
    assert np.sum(found.confusion) == count


def test_a_loss_of_ones_own_is_given_the_rows_alone(model, data):
    """It may be of a batch as a whole."""
    seen = []

    def largest(scores, y):
        seen.append(scores.shape[0])
        loss, dscores = fn.softmax_loss(scores, y)
        return loss + scores.max(), dscores

    x, y = data
    found = fn.evaluate(model, x, y, loss_fn=largest, batch_size=25)
    assert seen == [25, 15]
    parts = [(largest(fn.predict_scores(model, x[b]), y[b])[0], len(y[b])) for b in BATCHES]
    expected = sum(loss * count for loss, count in parts) / len(x)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


BATCHES = (slice(0, 25), slice(25, 40))


def test_a_fit_measures_what_evaluate_does(data):
    x = data[0]
    y = x[:, :3].argmax(axis=1).astype(np.int32)
    dataset = fn.Dataset(x[:23], y[:23], x[23:], y[23:], x[:0], y[:0], ("a", "b", "c"))
    result = fn.fit(fn.mlp([9], 3), fn.adam(3e-2), dataset, key=KEY, epochs=20, batch_size=10)
    # The first rows are right: filled up with them, a batch that counts too many shows it.
    assert fn.predict(result.model, x[[0, 23]]).tolist() == y[[0, 23]].tolist()
    for split, (sx, sy) in {"train": (x[:23], y[:23]), "val": (x[23:], y[23:])}.items():
        found = fn.evaluate(result.model, sx, sy)
        assert getattr(result.history, f"{split}_accuracy")[-1] == found.accuracy
        np.testing.assert_allclose(getattr(result.history, f"{split}_loss")[-1], found.loss, 1e-5)


def test_few_programs_predict_any_number_of_rows(data, compiled):
    x, _ = data
    net = fn.mlp([11], 3)  # that no other test has compiled
    params, state, _ = net.init(KEY, (4,))
    model = fn.Model(net, params, state, fn.no_preprocess(x))
    before = len(compiled())
    for count in range(1, 41):
        fn.predict_scores(model, x[:count])
    assert compiled()[before:].count("jit(scores)") == 4  # of 1, 4, 16 and 64 rows


def test_what_a_model_keeps_ready_is_its_own(model, data):
    x, _ = data
    before = fn.predict_scores(model, x)
    other = dataclasses.replace(model, params=jax.tree.map(lambda w: 2 * w, model.params))
    assert not np.allclose(fn.predict_scores(other, x), before)
    small = len(pickle.dumps(dataclasses.replace(model)))
    assert len(pickle.dumps(model)) == small  # nothing besides
    assert np.array_equal(fn.predict_scores(pickle.loads(pickle.dumps(model)), x), before)
    np.testing.assert_allclose(fn.predict_scores(model, x.astype(np.float64)), before, rtol=1e-4)
