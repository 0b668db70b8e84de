"""Uses of scikit-learn's MLPs as people write them: each runs with ours in their place, no worse.

Each is a function of the class and of what every instance of it is given, and gives a score.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("sklearn")

from marks import slow_but
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from funcnet.sklearn import FuncNetClassifier, FuncNetRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("unoptimized"),
]


def halves(load, test_size=0.5):
    X, y = load(return_X_y=True)
    return train_test_split(X, y, test_size=test_size, random_state=0)


def grid_search(make):
    X_train, X_test, y_train, y_test = halves(load_wine)
    pipe = make_pipeline(StandardScaler(), make(max_iter=60, learning_rate_init=0.01))
    net = pipe[-1]
    name = type(net).__name__.lower()
    grid = {f"{name}__hidden_layer_sizes": [(8,), (16, 8)], f"{name}__alpha": [1e-4, 1.0]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X_train, y_train)
    assert search.best_params_.keys() == grid.keys()
    assert set(search.best_estimator_.classes_) == {0, 1, 2}
    return search.score(X_test, y_test)


def early_stopping(make):
    X_train, X_test, y_train, y_test = halves(load_breast_cancer)
    scaler = StandardScaler().fit(X_train)
    net = make(hidden_layer_sizes=(32,), early_stopping=True, validation_fraction=0.2)
    net.fit(scaler.transform(X_train), y_train)
    assert len(net.validation_scores_) == len(net.loss_curve_) == net.n_iter_ < 200
    assert net.best_validation_score_ == max(net.validation_scores_) > 0.9
    assert net.best_loss_ is None
    return net.score(scaler.transform(X_test), y_test)


def chunks(make):
    X_train, X_test, y_train, y_test = halves(load_digits)
    net = make(hidden_layer_sizes=(64,), learning_rate_init=0.01)
    for _ in range(8):
        for rows in np.array_split(np.arange(len(X_train)), 4):
            net.partial_fit(X_train[rows] / 16, y_train[rows], classes=np.arange(10))
    return net.score(X_test / 16, y_test)


def target_in_other_units(make):
    X_train, X_test, y_train, y_test = halves(load_diabetes)
    net = make(hidden_layer_sizes=(16,), learning_rate_init=0.01, max_iter=60, alpha=1.0)
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), net), func=np.log1p, inverse_func=np.expm1
    )
    model.fit(X_train, y_train)
    return r2_score(y_test, model.predict(X_test))


def warm_start(make):
    X_train, X_test, y_train, y_test = halves(load_iris)
    net = make(warm_start=True, max_iter=10, learning_rate_init=0.02)
    for rounds in range(1, 6):
        net.fit(X_train, y_train)
        assert len(net.loss_curve_) == 10 * rounds
        assert net.n_iter_ == 10
    assert net.loss_curve_[-1] < 0.5 * net.loss_curve_[0]
    assert net.loss_ == net.loss_curve_[-1]
    return net.score(X_test, y_test)


def calibration(make):
    X_train, X_test, y_train, y_test = halves(load_breast_cancer)
    net = make_pipeline(StandardScaler(), make(hidden_layer_sizes=(16,), max_iter=150))
    calibrated = CalibratedClassifierCV(net, cv=2).fit(X_train, y_train)
    proba = calibrated.predict_proba(X_test)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    return 1 - log_loss(y_test, proba)


def cross_validation(make):
    X, y = load_iris(return_X_y=True)
    net = make(hidden_layer_sizes=(16,), max_iter=60, learning_rate_init=0.02)
    return cross_val_score(net, X, y, cv=4, error_score="raise").mean()


class Usage(NamedTuple):
    """A use: what it does, the two classes, and how much worse ours may be."""

    use: Callable
    theirs: type
    ours: type
    margin: float = 0.02


USAGES = {
    "grid search in a pipeline": Usage(grid_search, MLPClassifier, FuncNetClassifier),
    "early stopping": Usage(early_stopping, MLPClassifier, FuncNetClassifier),
    "chunks": Usage(chunks, MLPClassifier, FuncNetClassifier),
    "a target in other units": Usage(target_in_other_units, MLPRegressor, FuncNetRegressor, 0.05),
    "warm start": Usage(warm_start, MLPClassifier, FuncNetClassifier),
    "calibration": Usage(calibration, MLPClassifier, FuncNetClassifier, 0.03),
    "cross-validation": Usage(cross_validation, MLPClassifier, FuncNetClassifier),
}
QUICK = ("early stopping", "a target in other units", "warm start")


@pytest.mark.parametrize("name", slow_but(USAGES, *QUICK))
def test_ours_takes_the_place_of_theirs(name):
    usage = USAGES[name]

    def seeded(make):
        return lambda **options: make(random_state=1, **options)

    theirs, ours = (usage.use(seeded(make)) for make in (usage.theirs, usage.ours))
    assert ours >= theirs - usage.margin
