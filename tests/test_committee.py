"""Several models as one: what they say together, how they are chosen, files; and calibration."""

import json
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest

import funcnet as fn

pytestmark = pytest.mark.usefixtures("unoptimized")
RNG = np.random.default_rng(1)
X = RNG.normal(size=(120, 3)).astype(np.float32)
LABELS = np.digitize(X[:, 0] + RNG.normal(size=120) * 0.7, [-0.5, 0.5]).astype(np.int32)


def data(y, task="classification", names=("a", "b", "c")):
    return fn.Dataset(X[:80], y[:80], X[80:], y[80:], X[:0], y[:0], names, task=task)


TASKS = {
    "classification": (data(LABELS), 3, None),
    "svm": (data(LABELS), 3, fn.svm_loss),
    "regression": (data(100 + 20 * X[:, 0].astype(float), "regression", ()), 1, None),
    "several targets": (
        data(100 + 20 * X[:, :2].astype(float) * [1, 100], "regression", ()),
        2,
        None,
    ),
    "counts": (data(np.exp(X[:, 0]).round(), "regression", ()), 1, fn.poisson_loss),
    "multilabel": (data((X[:, :2] > 0).astype(int), "multilabel", ("p", "q")), 2, None),
}


@cache
def trained(task, hidden=((4,), (4,), (4,))):
    dataset, outputs, loss_fn = TASKS[task]
    return [
        fn.fit(
            fn.mlp(dims, outputs, normalization="batchnorm"),
            fn.adam(5e-2),
            dataset,
            key=jax.random.key(seed),
            epochs=12,
            batch_size=20,
            loss_fn=loss_fn,
            preprocess=fn.standardize,
            eval_every=None,
        ).model
        for seed, dims in enumerate(hidden)
    ]


@pytest.mark.parametrize("hidden", [((4,), (4,), (4,)), ((4,), (5,), (4, 3))])
@pytest.mark.parametrize("task", TASKS)
def test_what_they_say_is_the_mean(task, hidden):
    models = trained(task, hidden)
    together = fn.join_models(models)
    if task in ("classification", "multilabel"):
        expected = np.mean([fn.predict_proba(m, X) for m in models], axis=0)
        np.testing.assert_allclose(fn.predict_proba(together, X), expected, rtol=1e-5)
    elif task == "svm":
        expected = np.mean([fn.predict_scores(m, X) for m in models], axis=0)
        np.testing.assert_allclose(fn.predict_scores(together, X), expected, rtol=1e-5, atol=1e-6)
    else:
        expected = np.mean([fn.predict(m, X) for m in models], axis=0)
        np.testing.assert_allclose(fn.predict(together, X), expected, rtol=1e-5)
    y = np.concatenate([TASKS[task][0].y_train, TASKS[task][0].y_val])
    measured = fn.evaluate(together, X, y, loss_fn=TASKS[task][2])
    if task == "regression":
        np.testing.assert_allclose(measured.rmse, fn.rmse(y, expected), rtol=1e-5)
    elif task == "classification":
        assert measured.accuracy == fn.accuracy(y, expected.argmax(1))


def test_one_that_is_there_twice_counts_twice():
    a, b, _ = trained("classification")
    expected = (2 * fn.predict_proba(a, X) + fn.predict_proba(b, X)) / 3
    found = fn.predict_proba(fn.join_models([a, b, a]), X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_committee_of_ensembles():
    dataset = TASKS["classification"][0]
    options = {"epochs": 2, "batch_size": 20, "eval_every": None}
    models = [
        fn.fit(
            fn.tabm([4], 3, members=2), fn.adam(1e-2), dataset, key=jax.random.key(i), **options
        ).model
        for i in range(2)
    ]
    together = fn.join_models(models)
    expected = np.mean([fn.predict_proba(model, X) for model in models], axis=0)
    np.testing.assert_allclose(fn.predict_proba(together, X), expected, rtol=1e-5)
    measured = fn.evaluate(together, dataset.x_val, dataset.y_val)
    of_true = expected[80:][np.arange(40), dataset.y_val]
    assert measured.log_loss == pytest.approx(-np.log(of_true).mean(), rel=1e-5)
    assert len(fn.select_models(models, dataset.x_val, dataset.y_val, size=2)) in (1, 2)
    both = fn.fit(together.net, fn.adam(1e-2), dataset, key=jax.random.key(0), **options)
    assert both.history.loss[-1] < both.history.loss[0]


def test_a_model_without_finite_scores_is_not_chosen():
    y, eye = np.array([0, 1, 2, 0]), np.eye(4, dtype=np.float32)
    good, bad = sure(RNG.normal(size=(4, 3))), sure(np.full((4, 3), np.nan))
    assert fn.select_models([bad, good], eye, y) == [good]
    with pytest.raises(ValueError, match="every model has scores that are NaN or infinite"):
        fn.select_models([bad, bad], eye, y)


def test_it_is_saved_and_read_like_any_other(tmp_path):
    together = fn.join_models(trained("several targets"))
    fn.save_model(tmp_path / "m.safetensors", together)
    again = fn.load_model(tmp_path / "m.safetensors", together.net)
    np.testing.assert_array_equal(fn.predict(again, X), fn.predict(together, X))


def test_models_that_do_not_go_together_are_refused():
    a, b, _ = trained("classification")
    other = fn.fit(
        fn.mlp([4], 3),
        fn.adam(1e-2),
        TASKS["classification"][0],
        key=jax.random.key(0),
        epochs=1,
        batch_size=20,
    ).model
    with pytest.raises(ValueError, match=r"models\[1\] has other preprocessing than models\[0\]"):
        fn.join_models([a, other])
    shifted = replace(b, preprocess=fn.standardize(X[:30]))
    with pytest.raises(
        ValueError, match=r"models\[2\] has a preprocessing that is fitted to other"
    ):
        fn.join_models([a, b, shifted])
    with pytest.raises(ValueError, match=r"models\[1\] has other targets"):
        fn.join_models([a, trained("multilabel")[0]])
    with pytest.raises(ValueError, match="a list of one Model or more"):
        fn.join_models([])
    with pytest.raises(TypeError, match="model must be a Model"):
        fn.join_models([a, 3])


def sure(scores):
    """A model that gives these scores to x = the identity's rows."""
    net = fn.mlp([], 3)
    params = net.init(jax.random.key(0), (len(scores),))[0]
    params = params.set(("affine1", "w"), np.float32(scores)).set(("affine1", "b"), np.zeros(3))
    return fn.Model(net, params, {}, fn.no_preprocess(X))


def test_the_greedy_choice_is_what_trying_all_finds():
    y, eye = np.array([0, 1, 2, 0]), np.eye(4, dtype=np.float32)
    scores = RNG.normal(size=(5, 4, 3))
    models = [sure(each) for each in scores]
    chosen = fn.select_models(models, eye, y, size=4)
    places, best = [], np.inf
    for _ in range(4):
        losses = [
            fn.evaluate(fn.join_models([models[j] for j in [*places, i]]), eye, y).log_loss
            for i in range(5)
        ]
        if min(losses) >= best:
            break
        best = min(losses)
        places.append(int(np.argmin(losses)))
    assert [next(i for i, m in enumerate(models) if m is c) for c in chosen] == places
    assert len(places) > 1


def test_the_members_of_a_sweep_make_one_model():
    dataset = TASKS["classification"][0]
    result = fn.sweep(
        lambda learning_rate: (fn.mlp([4], 3), fn.adam(learning_rate)),
        dataset,
        fn.grid(learning_rate=[1e-2, 3e-2, 1e30], seed=[0, 1]),
        epochs=3,
        batch_size=20,
        preprocess=fn.standardize,
    )
    together = result.ensemble(top=3)
    good = [m for m in result.members if m.status == "finished"]
    ranked = sorted(good, key=lambda m: (-m.best.accuracy, m.best.loss))
    expected = np.mean([fn.predict_proba(m.best, X) for m in ranked[:3]], axis=0)
    np.testing.assert_allclose(fn.predict_proba(together, X), expected, rtol=1e-5)
    assert len(jax.tree.leaves(result.ensemble(top=9).params)[0]) == 4  # none that diverged
    chosen = result.ensemble(top=3, dataset=dataset)
    alone = min(fn.evaluate(m.best, dataset.x_val, dataset.y_val).log_loss for m in good)
    assert fn.evaluate(chosen, dataset.x_val, dataset.y_val).log_loss <= alone


# Calibration


def test_the_temperature_is_where_the_log_loss_is_least():
    model = trained("classification")[0]
    x, y = X[80:], LABELS[80:]
    honest = fn.calibrate(model, x, y)
    scores = fn.predict_scores(model, x)
    grid = np.geomspace(0.05, 20, 4001)
    best = grid[np.argmin([fn.log_loss(y, scores / t) for t in grid])]
    assert honest.targets.temperature == pytest.approx(best, rel=2e-3)
    np.testing.assert_array_equal(fn.predict(honest, X), fn.predict(model, X))
    measured = fn.evaluate(honest, x, y)
    assert measured.log_loss == pytest.approx(fn.log_loss(y, scores / honest.targets.temperature))
    assert measured.log_loss < fn.evaluate(model, x, y).log_loss
    again = fn.calibrate(honest, x, y)
    assert again.targets.temperature == pytest.approx(honest.targets.temperature)


def test_weights_count_in_it():
    model = trained("classification")[0]
    x, y, w = X[80:], LABELS[80:], RNG.integers(0, 4, 40)
    weighted = fn.calibrate(model, x, y, sample_weight=w).targets.temperature
    repeated = fn.calibrate(model, np.repeat(x, w, axis=0), np.repeat(y, w)).targets.temperature
    assert weighted == pytest.approx(repeated)


def test_labels_are_calibrated_too():
    model = trained("multilabel")[0]
    y = TASKS["multilabel"][0].y_val
    honest = fn.calibrate(model, X[80:], y)

    def loss(t):
        p = 1 / (1 + np.exp(-fn.predict_scores(model, X[80:]).astype(float) / t))
        return -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))

    t = honest.targets.temperature
    assert loss(t) <= min(loss(t * 1.01), loss(t / 1.01))


def test_it_travels_with_the_model(tmp_path):
    model = fn.calibrate(trained("classification")[0], X[80:], LABELS[80:])
    fn.save_model(tmp_path / "m.safetensors", model)
    again = fn.load_model(tmp_path / "m.safetensors", model.net)
    assert again.targets == model.targets
    np.testing.assert_array_equal(fn.predict_proba(again, X), fn.predict_proba(model, X))
    assert json.dumps(model.targets.as_json())


@pytest.mark.parametrize("task", ["svm", "regression"])
def test_what_gives_no_probabilities_is_not_calibrated(task):
    with pytest.raises(ValueError, match="gives no probabilities"):
        fn.calibrate(trained(task)[0], X[80:], TASKS[task][0].y_val)


def test_the_calibration_error_is_that_of_the_paper():
    p = np.array([[0.95, 0.05], [0.93, 0.07], [0.3, 0.7], [0.45, 0.55], [0.52, 0.48]])
    y = np.array([0, 1, 1, 0, 0])
    # Bins of a tenth: .9-1 has two, one right; .7-.8 one, right; .5-.6 two, one right.
    expected = (2 * abs(0.5 - 0.94) + 1 * abs(1 - 0.7) + 2 * abs(0.5 - 0.535)) / 5
    assert fn.calibration_error(y, p, bins=10) == pytest.approx(expected)
    assert fn.calibration_error([0], [[1.0, 0.0]]) == 0
    weighted = fn.calibration_error(y, p, bins=10, sample_weight=[2, 1, 1, 1, 1])
    again = fn.calibration_error(np.r_[y, 0], np.r_[p, p[:1]], bins=10)
    assert weighted == pytest.approx(again)
    with pytest.raises(ValueError, match="from 0 to 1"):
        fn.calibration_error(y, 2 * p)
