"""The estimators: scikit-learn's own checks, and that parameters mean what they mean there."""

import copy
import importlib
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
import pandas as pd
import polars as pl
from marks import slow_but
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import compute_sample_weight, estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import funcnet as fn
from funcnet.sklearn import FuncNetClassifier, FuncNetRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("unoptimized"),
]

SMALL = {"hidden_layer_sizes": (10,), "max_iter": 20, "learning_rate_init": 0.05}
BOTH = [FuncNetClassifier, FuncNetRegressor]
ONE = [FuncNetClassifier, pytest.param(FuncNetRegressor, marks=pytest.mark.slow)]
PAIRS = {
    "classifier": (FuncNetClassifier, MLPClassifier),
    "regressor": (FuncNetRegressor, MLPRegressor),
}
IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def tiny(make, **parameters):
    return make(**{**SMALL, "max_iter": 5, "random_state": 0, **parameters})


def data_of(make, rows=slice(None)):
    X, y = IRIS if make is FuncNetClassifier else DIABETES
    return X[rows], y[rows]


# scikit-learn's checks. Those that it skips itself ask for what is not here: the array API, and a
# decision_function, which no classifier with probabilities needs.

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "standardization knows no weights, and "
    "float32 rounds; in float64 and without it they are equal, as a test below says"
}
QUICK_CHECKS = [
    "check_all_zero_sample_weights_error",
    "check_dict_unchanged",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimators_unfitted",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_get_params_invariance",
    "check_n_features_in",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_requires_y_none",
]


@pytest.mark.slow
@parametrize_with_checks(
    [make(**SMALL) for make in BOTH], expected_failed_checks=lambda estimator: EXPECTED_FAILURES
)
def test_checks_of_sklearn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ONE)
def test_quick_checks_of_sklearn(make):
    for name in QUICK_CHECKS:
        getattr(estimator_checks, name)(make.__name__, tiny(make))


@pytest.mark.parametrize("make", ONE)
def test_integer_weights_are_repeated_rows(make, x64):
    estimator = make(**SMALL, preprocess=None)
    estimator_checks.check_sample_weight_equivalence_on_dense_data(make.__name__, estimator)


# What parameters mean


CONVERGED = {
    "hidden_layer_sizes": (),
    "preprocess": None,
    "batch_size": 60,
    "solver": "sgd",
    "learning_rate_init": 0.5,
    "max_iter": 400,
    "tol": 0.0,
    "n_iter_no_change": np.inf,
    "random_state": 0,
}
REFERENCE = {"hidden_layer_sizes": (), "solver": "lbfgs", "max_iter": 2000, "tol": 1e-9}


def linear_problem(rng, outputs):
    x, noise = rng.normal(size=(60, 4)), rng.normal(size=(60, outputs))
    return x, x @ rng.normal(size=(4, outputs)) * [1, 10, 100][:outputs] + noise


@pytest.mark.parametrize("weighted", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_alpha_of_regression_is_that_of_sklearn(outputs, weighted, rng):
    x, y = linear_problem(rng, outputs)
    y = y[:, 0] if outputs == 1 else y
    weight = rng.uniform(0, 3, size=60) if weighted else None
    ours = FuncNetRegressor(alpha=20.0, **CONVERGED).fit(x, y, sample_weight=weight)
    # By its gradient MLPRegressor is Ridge; with lbfgs only of one output, for there its loss is a
    # mean over outputs and its gradient that of the sum.
    theirs = Ridge(alpha=20.0).fit(x, y, sample_weight=weight)
    if outputs == 1:
        mlp = MLPRegressor(alpha=20.0, **REFERENCE).fit(x, y, sample_weight=weight)
        np.testing.assert_allclose(mlp.predict(x), theirs.predict(x), atol=1e-3 * np.abs(y).max())
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=2e-4 * np.abs(y).max())
    without = FuncNetRegressor(alpha=0.0, **CONVERGED).fit(x, y, sample_weight=weight)
    assert np.abs(without.predict(x) - theirs.predict(x)).max() > 0.05 * np.abs(y).max()


@pytest.mark.parametrize(
    ("of", "factor"), [("three classes", 1), ("several labels", 1), ("two classes", 0.5)]
)
def test_alpha_of_classes_is_that_of_sklearn(of, factor, rng):
    x, scores = linear_problem(rng, 3)
    labels = {
        "three classes": scores.argmax(axis=1),
        "several labels": (scores > 0).astype(int),
        "two classes": scores[:, 0] > 0,
    }[of]
    ours = FuncNetClassifier(alpha=4.0, **CONVERGED).fit(x, labels)
    theirs = MLPClassifier(alpha=4.0 * factor, **REFERENCE).fit(x, labels)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-3)
    assert ours.out_activation_ == ("logistic" if of == "several labels" else "softmax")
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)


def test_the_penalty_is_divided_by_the_size_of_a_batch():
    X, y = IRIS
    options = {"batch_size": 50, "max_iter": 1, "learning_rate_init": 1e-9}
    plain, fined = (tiny(FuncNetClassifier, alpha=a, **options).fit(X, y) for a in (0.0, 60.0))
    squares = sum(np.square(w).sum() for w in fined.coefs_)
    np.testing.assert_allclose(fined.loss_ - plain.loss_, 0.5 * 60 * squares / 50, rtol=1e-4)


def test_class_weights_are_sample_weights():
    X, y = IRIS
    keep = np.r_[:20, 50:100, 100:140]
    X, y = X[keep], np.array(["a", "b", "c"])[y[keep]]
    own = {"a": 3.0, "c": 0.5}
    for class_weight in ("balanced", own):
        options = {"alpha": 5.0, "max_iter": 30}
        weighted = tiny(FuncNetClassifier, class_weight=class_weight, **options).fit(X, y)
        matching = (
            compute_sample_weight(class_weight, y)
            if class_weight == "balanced"
            else (np.array([own.get(label, 1.0) for label in y]))
        )
        by_row = tiny(FuncNetClassifier, **options).fit(X, y, sample_weight=matching)
        plain = tiny(FuncNetClassifier, **options).fit(X, y)
        got, same, other = (e.predict_proba(X) for e in (weighted, by_row, plain))
        np.testing.assert_allclose(got, same, atol=1e-4)
        assert np.abs(got - other).max() > 1e-2


@pytest.mark.parametrize(
    ("pair", "early_stopping"),
    [
        ("classifier", True),
        ("regressor", False),
        pytest.param("classifier", False, marks=pytest.mark.slow),
        pytest.param("regressor", True, marks=pytest.mark.slow),
    ],
)
def test_training_ends_when_that_of_sklearn_does(pair, early_stopping):
    options = {
        "hidden_layer_sizes": (4,),
        "tol": 10.0,
        "n_iter_no_change": 3,
        "early_stopping": early_stopping,
        "random_state": 0,
    }
    ours, theirs = (make(**options) for make in PAIRS[pair])
    X, y = data_of(PAIRS[pair][0])
    y = y if pair == "classifier" else (y - y.mean()) / y.std()
    assert ours.fit(X, y).n_iter_ == theirs.fit(X, y).n_iter_ == 5
    assert ours.t_ == theirs.t_
    assert len(ours.loss_curve_) == len(theirs.loss_curve_)
    for name in ("validation_scores_", "best_loss_", "best_validation_score_"):
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None), name
    assert ours.n_layers_ == theirs.n_layers_ == 3
    assert [w.shape for w in ours.coefs_[:1]] == [w.shape for w in theirs.coefs_[:1]]
    assert [b.shape for b in ours.intercepts_[:1]] == [b.shape for b in theirs.intercepts_[:1]]


def test_an_adaptive_learning_rate_falls_as_often_as_that_of_sklearn():
    options = {
        "hidden_layer_sizes": (),
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 1e-4,
        "tol": 10.0,
        "n_iter_no_change": 1,
        "random_state": 0,
    }
    ours, theirs = (make(**options).fit(*IRIS) for make in PAIRS["classifier"])
    assert ours.n_iter_ == theirs.n_iter_ > 8
    assert tiny(FuncNetClassifier, **options | {"max_iter": 4}).fit(*IRIS).n_iter_ == 4


def test_the_rate_of_invscaling_is_that_of_sklearn():
    X, y = DIABETES
    X, y = X[:, 2:3] / X[:, 2].std(), (y - y.mean()) / y.std()
    options = {**CONVERGED, "batch_size": len(X), "momentum": 0.0, "alpha": 0.0}
    options |= {"learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.4}
    first, third = (
        FuncNetRegressor(**{**options, "max_iter": epochs}).fit(X, y) for epochs in (1, 3)
    )
    w, b = first.coefs_[0][0, 0], first.intercepts_[0][0]
    for epoch in (1, 2):
        error = w * X[:, 0] + b - y
        rate = 0.4 / (1 + epoch * len(X)) ** 0.3
        w, b = w - rate * (error * X[:, 0]).mean(), b - rate * error.mean()
    np.testing.assert_allclose(
        [third.coefs_[0][0, 0], third.intercepts_[0][0]], [w, b], rtol=1e-4, atol=1e-6
    )


SOLVERS = ["adam", "sgd", "adamw", "nesterov", "lion", "muon"]


@pytest.mark.parametrize("solver", slow_but(SOLVERS, "lion"))
def test_solvers(solver):
    estimator = tiny(FuncNetClassifier, solver=solver, max_iter=30, learning_rate_init=0.02)
    assert estimator.fit(*IRIS).score(*IRIS) > 0.85


ACTIVATIONS = {
    **{name: name for name in ("identity", "logistic", "tanh", "mish")},
    "a layer": fn.leaky_relu(0.2),
}


@pytest.mark.parametrize("named", slow_but(ACTIVATIONS, "identity"))
def test_activations(named):
    activation = ACTIVATIONS[named]
    estimator = tiny(FuncNetRegressor, activation=activation, max_iter=30).fit(*DIABETES)
    assert 0.4 < estimator.score(*DIABETES) < 0.8
    if activation == "identity":
        x = (DIABETES[0] - DIABETES[0].mean(axis=0)) / DIABETES[0].std(axis=0)
        (w1, w2), (b1, b2) = estimator.coefs_, estimator.intercepts_
        y = DIABETES[1]
        expected = y.mean() + y.std() * ((x @ w1 + b1) @ w2 + b2)[:, 0]
        np.testing.assert_allclose(estimator.predict(DIABETES[0]), expected, rtol=1e-4)


@pytest.mark.slow
def test_options_of_ours():
    parameters = {
        "normalization": "layernorm",
        "dropout": 0.2,
        "label_smoothing": 0.1,
        "mixup_alpha": 0.2,
        "preprocess": fn.whiten,
        "max_iter": 40,
    }
    assert tiny(FuncNetClassifier, **parameters).fit(*IRIS).score(*IRIS) > 0.85


LOSSES = {
    **{name: name for name in ("absolute_error", "huber", "poisson", "pinball")},
    "a function": partial(fn.huber_loss, delta=0.5),
}


@pytest.mark.parametrize("named", slow_but(LOSSES, "pinball"))
def test_losses_of_regression(named):
    loss, (X, y) = LOSSES[named], DIABETES
    estimator = tiny(FuncNetRegressor, loss=loss, max_iter=60).fit(X, y)
    assert estimator.predict(X).shape == y.shape
    assert estimator.score(X, y) > 0.3
    assert estimator.out_activation_ == ("exp" if loss == "poisson" else "identity")


def test_a_loss_without_probabilities():
    estimator = tiny(FuncNetClassifier, loss="svm", max_iter=30).fit(*IRIS)
    assert estimator.score(*IRIS) > 0.85
    assert not hasattr(estimator, "predict_proba")
    assert hasattr(tiny(FuncNetClassifier, loss="log_loss"), "predict_proba")


@pytest.mark.slow
def test_random_states():
    X, y = IRIS
    same = [tiny(FuncNetClassifier, random_state=s).fit(X, y).coefs_[0] for s in (3, 3)]
    np.testing.assert_array_equal(*same)
    state = np.random.RandomState(3)
    drawn = [tiny(FuncNetClassifier, random_state=state).fit(X, y).coefs_[0] for _ in range(2)]
    np.testing.assert_array_equal(drawn[0], same[0])
    assert np.abs(drawn[0] - drawn[1]).max() > 0.1
    none = [tiny(FuncNetClassifier, random_state=None).fit(X, y).coefs_[0] for _ in range(2)]
    assert np.abs(none[0] - none[1]).max() > 0.1


def test_all_examples_at_once_need_no_shuffle():
    tiny(FuncNetClassifier, shuffle=False).fit(*IRIS)
    with pytest.warns(UserWarning, match="batch_size is 500, and there are 150 examples"):
        tiny(FuncNetClassifier, batch_size=500).fit(*IRIS)


# Data


FRAME = pd.DataFrame(
    {
        "size": [1.0, 2.0, np.nan, 4.0] * 20,
        "colour": pd.Categorical(["red", "green", "red", None] * 20),
        "kind": ["a", "b", "b", "a"] * 20,
        "count": range(80),
    }
)
FRAME_Y = np.array(["no", "yes", "no", "yes"] * 20)


@pytest.mark.parametrize(
    "library", [pd.DataFrame, pytest.param(pl.from_pandas, marks=pytest.mark.slow)]
)
def test_frames_of_words_numbers_and_nothing(library):
    frame = library(FRAME)
    estimator = tiny(FuncNetClassifier, max_iter=100).fit(frame, FRAME_Y)
    assert estimator.score(frame, FRAME_Y) == 1
    assert estimator.feature_names_in_.tolist() == [*FRAME]
    assert estimator.n_features_in_ == 4
    names = estimator.model_.encoding.names
    assert "size is missing" in names
    assert {"colour = red", "colour = green", "kind = a", "count"} <= set(names)
    np.testing.assert_allclose(
        fn.predict_proba(estimator.model_, frame), estimator.predict_proba(frame), rtol=1e-6
    )
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(library(FRAME[[*FRAME][::-1]]))
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(library(FRAME[["size", "colour"]]))
    other = FRAME.head(4).assign(kind=["a", "z", "b", "b"])
    with pytest.warns(fn.DataWarning, match="category that training has not seen, such as 'z'"):
        assert estimator.predict(library(other)).shape == (4,)


def test_the_encoding_is_learned_on_the_examples_to_train():
    frame = FRAME.assign(size=np.where(np.arange(80) < 60, 1.0, 100.0) + np.arange(80) % 2)
    train, val = frame[:60], frame[60:]
    estimator = tiny(FuncNetClassifier).fit(train, FRAME_Y[:60], eval_set=(val, FRAME_Y[60:]))
    medians = {f.name: f.median for f in estimator.model_.encoding.features}
    assert medians["size"] == 1.5
    assert len(estimator.validation_scores_) == 5


def test_arrays_with_nan():
    X, y = IRIS[0].copy(), IRIS[1]
    X[::7, 1] = np.nan
    estimator = tiny(FuncNetClassifier, max_iter=60).fit(X, y)
    assert estimator.score(X, y) > 0.9
    assert estimator.coefs_[0].shape[0] == 5  # and an indicator
    filled = np.where(np.isnan(X), np.nanmedian(X, axis=0), X)
    assert np.abs(estimator.predict_proba(X) - estimator.predict_proba(filled)).max() > 0
    plain = tiny(FuncNetClassifier).fit(*IRIS)
    with pytest.warns(fn.DataWarning, match="22 missing cells, of which training had none"):
        got = plain.predict_proba(X)
    filled = np.where(np.isnan(X), np.median(IRIS[0], axis=0), X)
    np.testing.assert_array_equal(got, plain.predict_proba(filled))


def test_arrays_of_objects():
    X = np.array([["a", 1, None], ["b", 2.5, "x"], ["a", np.nan, "y"], ["b", 3, "x"]] * 5, object)
    y = [True, False, True, False] * 5
    estimator = tiny(FuncNetClassifier, max_iter=50).fit(X, y)
    assert estimator.model_.encoding.names[:2] == ("x0 = a", "x0 = b")
    assert estimator.predict(X).tolist() == y


LABELS = {
    "words": ["b", "a", "c"],
    "numbers": [-5, 7, 10**12],
    "fractions": [1.0, 3.0, 2.0],
    "bools": [True, False, True],
    "objects": np.array(["x", "y", "z"], object),
}


@pytest.mark.parametrize("kind", slow_but(LABELS, "words"))
def test_labels_of_any_kind(kind):
    y = np.asarray(LABELS[kind])[IRIS[1]]
    estimator = tiny(FuncNetClassifier, max_iter=40).fit(IRIS[0], y)
    np.testing.assert_array_equal(estimator.classes_, np.unique(y))
    found = estimator.predict(IRIS[0])
    assert found.dtype == y.dtype
    assert (found == y).mean() > 0.7
    assert estimator.predict_proba(IRIS[0]).shape == (150, len(np.unique(y)))
    np.testing.assert_allclose(
        estimator.predict_log_proba(IRIS[0]), np.log(estimator.predict_proba(IRIS[0]))
    )


def test_targets_of_regression_have_the_shape_they_had():
    X, y = DIABETES
    both = np.stack([y, 1000 - 3 * y], axis=1)
    estimator = tiny(FuncNetRegressor, max_iter=40).fit(X, both)
    assert estimator.predict(X).shape == both.shape
    assert estimator.score(X, both) > 0.4
    assert estimator.n_outputs_ == 2


# Runs


@pytest.mark.parametrize(
    ("make", "early_stopping"),
    [
        (FuncNetClassifier, True),
        pytest.param(FuncNetRegressor, False, marks=pytest.mark.slow),
        pytest.param(FuncNetClassifier, False, marks=pytest.mark.slow),
        pytest.param(FuncNetRegressor, True, marks=pytest.mark.slow),
    ],
)
def test_ensembles(make, early_stopping, tmp_path):
    X, y = data_of(make)
    estimator = tiny(make, n_ensemble=3, early_stopping=early_stopping, max_iter=15).fit(X, y)
    assert len(estimator.models_) == 3
    first = [model.params["affine1"]["w"] for model in estimator.models_]
    assert min(np.abs(first[i] - first[i - 1]).max() for i in range(3)) > 0.1
    if make is FuncNetClassifier:
        mean = np.mean([fn.predict_proba(model, X) for model in estimator.models_], axis=0)
        np.testing.assert_allclose(estimator.predict_proba(X), mean, rtol=1e-5)
        np.testing.assert_array_equal(estimator.predict(X), mean.argmax(axis=1))
    else:
        mean = np.mean([fn.predict(model, X) for model in estimator.models_], axis=0)
        np.testing.assert_allclose(estimator.predict(X), mean, rtol=1e-5)
    assert len(estimator.loss_curve_) == estimator.n_iter_
    assert (estimator.validation_scores_ is not None) == early_stopping
    fn.save_model(tmp_path / "m.safetensors", estimator.model_)
    again = fn.load_model(tmp_path / "m.safetensors", estimator.model_.net)
    of = fn.predict_proba if make is FuncNetClassifier else fn.predict
    np.testing.assert_allclose(of(again, X), mean, rtol=1e-4)
    ends = tiny(make, n_ensemble=2, tol=10.0, n_iter_no_change=2, max_iter=15).fit(X, y)
    assert ends.n_iter_ == 4


@pytest.mark.parametrize("make", ONE)
def test_the_best_net_by_validation_is_kept(make):
    X, y = data_of(make)
    options = {"early_stopping": True, "n_iter_no_change": 5, "hidden_layer_sizes": 100}
    estimator = tiny(make, max_iter=60, **options).fit(X[::2], y[::2], eval_set=(X[1::2], y[1::2]))
    assert estimator.best_validation_score_ == max(estimator.validation_scores_)
    score = estimator.score(X[1::2], y[1::2])
    np.testing.assert_allclose(score, estimator.best_validation_score_, rtol=1e-5)
    assert np.argmax(estimator.validation_scores_) < estimator.n_iter_ - 1
    assert estimator.n_iter_ < 60


def test_warm_start_goes_on():
    X, y = IRIS
    estimator = tiny(FuncNetClassifier, warm_start=True)
    before = estimator.fit(X, y).loss_
    for times in (2, 3):
        estimator.fit(X, y)
        assert len(estimator.loss_curve_) == 5 * times
    assert estimator.n_iter_ == 5
    assert estimator.t_ == 15 * 150
    assert estimator.loss_ < 0.8 * before
    with pytest.raises(ValueError, match="the net of before has other hidden_layer_sizes: "):
        estimator.set_params(hidden_layer_sizes=(3,)).fit(X, y)


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (None, 2),
        pytest.param("poisson", 1, marks=pytest.mark.slow),
        pytest.param("pinball", 2, marks=pytest.mark.slow),
    ],
)
def test_warm_start_keeps_the_function_in_other_units(loss, outputs):
    X, y = DIABETES
    y = y if outputs == 1 else np.stack([y, 2 * y + 5], axis=1)
    estimator = tiny(FuncNetRegressor, warm_start=True, loss=loss).fit(X, y)
    before = estimator.predict(X)
    estimator.set_params(learning_rate_init=1e-9, max_iter=1).fit(X, 100 * y + 7)
    np.testing.assert_allclose(estimator.predict(X), before, atol=1e-4 * np.abs(y).max())
    np.testing.assert_allclose(estimator.model_.targets.mean[0] > 10, loss != "poisson")


@pytest.mark.parametrize("make", ONE)
def test_parts_train_like_epochs(make):
    X, y = data_of(make)
    more = {"classes": [0, 1, 2]} if make is FuncNetClassifier else {}
    estimator = tiny(make, batch_size=30)
    for _ in range(15):
        for part in np.array_split(np.arange(len(X)), 3):  # of iris, one class each
            estimator.partial_fit(X[part], y[part], **more)
    assert len(estimator.loss_curve_) == 45
    assert estimator.t_ == 15 * len(X)
    assert estimator.score(X, y) > (0.6 if more else 0.4)
    again = pickle.loads(pickle.dumps(estimator)).partial_fit(X, y)
    estimator.partial_fit(X, y)
    np.testing.assert_array_equal(again.coefs_[0], estimator.coefs_[0])


def test_a_part_is_an_epoch_of_fit():
    whole = tiny(FuncNetRegressor, max_iter=2, batch_size=100).fit(*DIABETES)
    parts = tiny(FuncNetRegressor, batch_size=100).partial_fit(*DIABETES).partial_fit(*DIABETES)
    np.testing.assert_array_equal(parts.coefs_[0], whole.coefs_[0])
    assert parts.loss_curve_ == whole.loss_curve_


def test_what_is_made_of_columns_stays_what_it_was():
    frame, other = FRAME, FRAME.assign(size=50.0, kind="b", colour="red")
    estimator = tiny(FuncNetClassifier, warm_start=True).fit(frame, FRAME_Y)
    before = estimator.predict_proba(frame)
    estimator.set_params(learning_rate_init=1e-9, max_iter=1).fit(other, FRAME_Y)
    np.testing.assert_allclose(estimator.predict_proba(frame), before, atol=1e-5)


def test_callbacks_see_the_training_and_end_it():
    seen = []

    def note(epoch, train_state, metrics):
        seen.append((epoch, int(train_state.step), len(metrics["losses"])))

    def stop(epoch, train_state, metrics):
        return epoch == 3

    estimator = tiny(FuncNetClassifier, callbacks=[note, stop], batch_size=75).fit(*IRIS)
    assert seen == [(1, 2, 2), (2, 4, 2), (3, 6, 2)]
    assert estimator.n_iter_ == 3


def test_what_is_printed_and_warned_of(capsys):
    with pytest.warns(ConvergenceWarning, match="max_iter = 2 epochs are done"):
        tiny(FuncNetClassifier, max_iter=2, verbose=True, early_stopping=True).fit(*IRIS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["Iteration 1", "Iteration 2"]
    assert "validation score = " in lines[0]


def test_an_interrupt_keeps_what_there_is():
    def interrupt(epoch, train_state, metrics):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="the training was interrupted"):
        estimator = tiny(FuncNetClassifier, callbacks=interrupt).fit(*IRIS)
    assert estimator.n_iter_ == 2
    assert estimator.predict(IRIS[0]).shape == (150,)


def test_equal_folds_are_one_program(compiled):
    X, y = IRIS
    tiny(FuncNetClassifier).fit(X[::2], y[::2])
    before = len(compiled())
    cross_val_score(tiny(FuncNetClassifier, alpha=0.1), X, y, cv=2)
    assert [name for name in compiled()[before:] if "steps" in name or "step_on" in name] == []
    tiny(FuncNetClassifier, hidden_layer_sizes=(9,)).fit(X[::2], y[::2])
    assert [name for name in compiled()[before:] if "steps" in name]


# Files


@pytest.mark.parametrize(("make", "n_ensemble"), [(FuncNetClassifier, 2), (FuncNetRegressor, 1)])
def test_estimators_in_files(make, n_ensemble):
    X, y = data_of(make)
    estimator = tiny(make, n_ensemble=n_ensemble, activation=fn.leaky_relu(0.3)).fit(X, y)
    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    copies = pickle.loads(pickle.dumps(estimator)), joblib.load(stream), copy.deepcopy(estimator)
    for each in copies:
        np.testing.assert_array_equal(each.predict(X), estimator.predict(X))
        assert each.models_[0].net == estimator.models_[0].net
        assert each.get_params().keys() == estimator.get_params().keys()
    assert not hasattr(clone(estimator), "models_")
    assert b"_affine" not in pickle.dumps(tiny(make).fit(X, y))  # no functions of nets


def test_what_cannot_be_pickled_is_named():
    estimator = tiny(FuncNetClassifier, callbacks=lambda *args: None)
    with pytest.raises(TypeError, match=r"^callbacks cannot be pickled, .*stand in a module"):
        pickle.dumps(estimator)
    own = fn.make_layer("own", lambda x: (x, None), lambda dout, cache: dout)
    estimator = tiny(FuncNetClassifier, activation=own).fit(*IRIS)
    with pytest.raises(TypeError, match=r"^activation cannot be pickled"):
        pickle.dumps(estimator)


# Errors


X, Y = IRIS
BAD = {  # parameters, arguments of fit, what the error says
    "lbfgs": ({"solver": "lbfgs"}, {}, "solver 'lbfgs' is not here: take 'adam'"),
    "solver": ({"solver": "adm"}, {}, "unknown solver 'adm': did you mean 'adam'?"),
    "activation": ({"activation": "rel"}, {}, "unknown activation 'rel': did you mean 'relu'?"),
    "normalization": ({"normalization": "batch"}, {}, "unknown normalization 'batch'"),
    "learning_rate": ({"learning_rate": "fast"}, {}, "unknown learning_rate 'fast'"),
    "rate": ({"learning_rate_init": 0}, {}, "learning_rate_init must be > 0, got 0"),
    "alpha": ({"alpha": -1}, {}, "alpha must be >= 0, got -1"),
    "hidden": ({"hidden_layer_sizes": (0,)}, {}, "every size in hidden_layer_sizes must be at le"),
    "max_iter": ({"max_iter": 0}, {}, "max_iter must be at least 1, got 0"),
    "max_fun": ({"max_fun": 10}, {}, "max_fun is of solver 'lbfgs' alone"),
    "patience": ({"n_iter_no_change": 0}, {}, "n_iter_no_change must be at least 1"),
    "flag": ({"early_stopping": "yes"}, {}, "early_stopping must be True or False"),
    "dropout": ({"dropout": 1.0}, {}, "dropout must be >= 0 and < 1"),
    "loss": ({"loss": "sofmax"}, {}, "unknown loss 'sofmax': did you mean 'softmax'?"),
    "loss of another task": ({"loss": "huber"}, {}, "huber_loss is for regression"),
    "preprocess": ({"preprocess": "all"}, {}, "preprocess must be 'auto', None or a function"),
    "callbacks": ({"callbacks": 3}, {}, "callbacks must be a function, got 3"),
    "shuffle": ({"shuffle": False, "batch_size": 10}, {}, "shuffle=False is for batches of all"),
    "ensemble, warm": ({"n_ensemble": 2, "warm_start": True}, {}, "warm_start is for one net"),
    "ensemble, callbacks": ({"n_ensemble": 2, "callbacks": print}, {}, "callbacks is for one net"),
    "class weights": ({"class_weight": {7: 1.0}}, {}, "class_weight has 7, none of the classes"),
    "class weight": ({"class_weight": "even"}, {}, "unknown class_weight 'even'"),
    "infinite": ({}, {"X": np.where(X > 7, np.inf, X)}, "Input X contains infinity"),
    "one class": ({}, {"y": np.zeros(150)}, "y has 1 class, 0.0: to tell apart"),
    "lengths": ({}, {"y": Y[1:]}, "Found input variables with inconsistent numbers"),
    "real labels": ({}, {"y": X[:, 0] + 0.123}, "Unknown label type: continuous"),
    "weights": ({}, {"sample_weight": -np.ones(150)}, "sample_weight must be >= 0"),
    "weights of 0": ({}, {"sample_weight": np.zeros(150)}, "sample_weight is zero of all"),
    "no weight": ({"class_weight": dict.fromkeys(range(3), 0)}, {}, "all examples to train have w"),
    "eval_set": ({}, {"eval_set": X}, r"eval_set must be \(X, y\) or \(X, y, sample_weight\)"),
    "eval labels": ({}, {"eval_set": (X, Y + 1)}, "y has np.int64.3., none of the 3 classes"),
    "fraction": (
        {"early_stopping": True, "validation_fraction": 0},
        {},
        "validation_fraction must",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_say_what_and_leave_nothing_half_done(case):
    parameters, arguments, text = BAD[case]
    fresh = tiny(FuncNetClassifier, **parameters)
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        fresh.fit(**{"X": X, "y": Y, **arguments})
    assert "\n" not in str(caught.value).strip() or case == "infinite"
    assert vars(fresh).keys() == fresh.get_params().keys()
    with pytest.raises(NotFittedError):
        fresh.predict(X)


def test_a_failed_fit_leaves_the_one_before():
    estimator = tiny(FuncNetClassifier).fit(X, Y)
    before = estimator.predict_proba(X)
    with pytest.raises(FloatingPointError):
        estimator.set_params(learning_rate_init=1e30, solver="sgd").fit(X[:, :2], Y == 1)
    np.testing.assert_array_equal(estimator.predict_proba(X), before)
    assert estimator.classes_.tolist() == [0, 1, 2]


STEEP = {"learning_rate_init": 1e30, "solver": "sgd", "batch_size": 50}


@pytest.mark.slow
def test_trainings_that_are_not_finite():
    with pytest.raises(FloatingPointError, match="net 1 of n_ensemble"):
        tiny(FuncNetClassifier, **STEEP, n_ensemble=2).fit(X, Y)
    with pytest.raises(FloatingPointError, match="this part"):
        tiny(FuncNetClassifier, **STEEP).partial_fit(X, Y, [0, 1, 2])


def test_errors_of_parts():
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        tiny(FuncNetClassifier).partial_fit(X, Y)
    for name, value in (("early_stopping", True), ("n_ensemble", 2)):
        with pytest.raises(ValueError, match=f"partial_fit goes without {name}"):
            tiny(FuncNetClassifier, **{name: value}).partial_fit(X, Y, classes=[0, 1, 2])
    estimator = tiny(FuncNetClassifier).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes must be those of before"):
        estimator.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"y has np.int64.9., none of the 3 classes"):
        estimator.partial_fit(X, np.where(Y == 1, 9, Y))
    with pytest.raises(TypeError, match="unknown option of FuncNetRegressor 'class_weight'"):
        FuncNetRegressor(class_weight="balanced")


def test_what_cannot_go_on():
    estimator = tiny(FuncNetClassifier, n_ensemble=2, max_iter=1).fit(X, Y)
    with pytest.raises(ValueError, match="there are 2 nets from n_ensemble, which cannot go on"):
        estimator.set_params(n_ensemble=1, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="there are 2 nets from n_ensemble, which cannot go on"):
        estimator.partial_fit(X, Y)
    estimator = tiny(FuncNetRegressor, max_iter=1, warm_start=True).fit(X, Y)
    estimator.set_params(loss="poisson")
    for go_on in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match="loss is another than the net was trained with"):
            go_on(X, Y)


# The door itself


@pytest.mark.parametrize("make", BOTH)
def test_the_first_parameters_may_go_without_names(make):
    given = make((3, 2), "tanh", alpha=1.0).get_params()
    assert (given["hidden_layer_sizes"], given["activation"], given["alpha"]) == ((3, 2), "tanh", 1)


@pytest.mark.parametrize("pair", PAIRS)
def test_parameters_are_those_of_sklearn_with_its_defaults(pair):
    ours, theirs = (make().get_params() for make in PAIRS[pair])
    theirs.pop("loss", None)  # "squared_error" is None here
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) <= {
        *("normalization", "dropout", "loss", "class_weight", "label_smoothing", "mixup_alpha"),
        *("preprocess", "n_ensemble", "callbacks"),
    }


@pytest.mark.parametrize("make", BOTH)
def test_every_parameter_is_documented_with_its_default(make):
    for name, value in make().get_params().items():
        row = rf"^  {name}: (?:(?!^  \w+:).)*Default\s+{re.escape(repr(value))}\."
        assert re.search(row, inspect.getdoc(make), re.MULTILINE | re.DOTALL), name
    assert max(map(len, make.__doc__.splitlines())) <= 100


def test_nothing_else_imports_sklearn(monkeypatch):
    code = "import sys, funcnet as fn; fn.fit, fn.sweep; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    for name in [name for name in sys.modules if name.startswith("funcnet.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    text = r'sklearn is needed .*: pip install "funcnet\[sklearn\]"$'
    with pytest.raises(ImportError, match=text):
        importlib.import_module("funcnet.sklearn")


IN_PROCESSES = """
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from funcnet.sklearn import FuncNetClassifier

net = FuncNetClassifier((16,), max_iter=60, learning_rate_init=0.02, random_state=1, tol=0)
X, y = load_iris(return_X_y=True)
print(*(list(cross_val_score(net, X, y, cv=4, n_jobs=n)) for n in (1, 2)), sep="\\n")
"""


@pytest.mark.slow
def test_folds_in_two_processes_are_those_in_one():
    """In a process of its own: those of joblib would share what these tests compile."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_PROCESSES],
        env=known,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    one, two = found.stdout.splitlines()
    assert one == two
