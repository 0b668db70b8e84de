"""Regression, several labels and weights of examples: through data, `fit`, sweeps and files."""

import json
from functools import partial

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.checkpoint import load_model, save_model
from funcnet.datasets.notes import DataWarning
from funcnet.datasets.tasks import find_task
from funcnet.tensors import load_tensors, save_tensors

pytestmark = pytest.mark.usefixtures("unoptimized")
RNG = np.random.default_rng(2)
X = RNG.normal(size=(90, 3))
PRICE = 5e5 + 1e5 * X[:, 0] + 3e4 * RNG.normal(size=90)
BOTH = np.stack([PRICE, X[:, 1] / 1000], axis=1)
TAGS = (X[:, :2] + 0.3 * RNG.normal(size=(90, 2)) > [0.0, 1.0]).astype(int)
LABELS = np.digitize(X[:, 0], [-0.5, 0.7])
KEY = jax.random.key(0)


def split(y, task="regression", names=(), **more):
    x = X.astype(np.float32)
    data = fn.Dataset(x[:60], y[:60], x[60:80], y[60:80], x[80:], y[80:], names, task=task)
    return data._replace(**more)


def trained(dataset, outputs, **options):
    options = {"epochs": 20, "batch_size": 16, "preprocess": fn.standardize, **options}
    return fn.fit(fn.mlp([8], outputs), fn.adam(2e-2), dataset, key=KEY, **options)


# What the task is


FOUND = {
    "words": (["a", "b"], "classification", None),
    "words that are numbers": (["1", "2"] * 3, "classification", None),
    "bools": ([True, False], "classification", None),
    "few from 0": ([0, 1, 2] * 5, "classification", None),
    "two numbers": ([3, 8] * 5, "classification", None),
    "few with a gap": ([3, 5, 8] * 5, "classification", "3 values in 15 examples: classes"),
    "few fractions, often": ([0.5, 1.5] * 9, "classification", "2 values .* classes"),
    "a hundred from 0": (list(range(100)) * 3, "classification", None),
    "a hundred with a gap": ([i for i in range(100) if i != 50] * 3, "regression", "99 values"),
    "years": (list(range(1950, 2000)) * 9, "regression", "50 values in 450 examples: regression"),
    "fractions": (np.linspace(0, 1, 30), "regression", "30 values in 30 examples: regression"),
    "few fractions, each once": ([0.5, 1.5, 2.25], "regression", "regression"),
    "whole numbers, each once": (range(1000), "regression", "1,000 values"),
    "one-hot": (np.eye(3), "classification", None),
    "labels": ([[1, 1, 0], [0, 0, 0]], "multilabel", "3 columns of 0 and 1: several labels"),
    "columns": ([[1.5, 2], [0, 3]], "regression", "2 columns of numbers"),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_task_is_found_and_a_guess_is_said(name, tmp_path):
    y, task, said = FOUND[name]
    found, told = find_task(np.asarray(y))
    assert found == task
    assert (told is None) == (said is None)
    path = tmp_path / "data.npz"
    y = np.asarray(y)
    np.savez(path, x=np.arange(len(y))[:, None], y=y)
    options = {"val_fraction": 0, "test_fraction": 0}
    if said is None:
        data = fn.load_arrays(path, **options)
    else:
        with pytest.warns(DataWarning, match=f"y (is|has) .*{said}"):
            data = fn.load_arrays(path, **options)
        assert fn.load_arrays(path, task=task, **options).task == task  # then nothing is said
    assert data.task == task


def test_a_table_of_numbers_is_regression():
    columns = {"a": X[:, 0], "town": ["A", "B", "C"] * 30, "price": PRICE, "fee": BOTH[:, 1]}
    with pytest.warns(DataWarning, match="label 'price' is a number of 90 values"):
        one = fn.load_table(columns, "price")
    assert (one.task, one.target_names, one.y_train.dtype) == ("regression", ("price",), float)
    assert one.encoding.labels == ("price",)
    two = fn.load_table(columns, ["price", "fee"], task="regression")
    assert two.y_train.shape == (72, 2)
    assert two.target_names == two.encoding.labels == ("price", "fee")
    assert two.encoding.columns == ("a", "town")
    order = [list(PRICE).index(y) for y in two.y_train[:, 0]]
    np.testing.assert_array_equal(two.y_train, BOTH[order])


def test_a_table_of_several_labels():
    columns = {"a": X[:, 0], "cat": TAGS[:, 0], "dog": TAGS[:, 1]}
    with pytest.warns(DataWarning, match="the label has 2 columns of 0 and 1"):
        data = fn.load_table(columns, ("cat", "dog"))
    assert (data.task, data.class_names, data.y_train.shape) == (
        "multilabel",
        ("cat", "dog"),
        (72, 2),
    )
    with pytest.raises(ValueError, match="row 3, column 'dog': multilabel wants 0 or 1, got 7"):
        fn.load_table(
            {**columns, "dog": [0, 1, 0, 7] + [0] * 86}, ("cat", "dog"), task="multilabel"
        )


def test_a_column_of_weights():
    columns = {"a": X[:, 0], "w": np.arange(90.0), "kind": ["p", "q"] * 45}
    data = fn.load_table(columns, "kind", weight="w")
    assert data.encoding.columns == ("a",)
    rows = [list(X[:, 0].astype(np.float32)).index(a) for a in data.x_train[:, 0]]
    np.testing.assert_array_equal(data.weight_train, rows)
    assert len(data.weight_val) == len(data.weight_test) == 9
    with pytest.raises(ValueError, match=r"row 1, column 'w': a weight must be .* got -1"):
        fn.load_table({**columns, "w": [0, -1, *range(88)]}, "kind", weight="w")
    with pytest.raises(ValueError, match="the label, 'kind', is no column of weights"):
        fn.load_table(columns, "kind", weight="kind")


REFUSED = {
    "an unknown task": ({"task": "regresion"}, "unknown task 'regresion': did you mean"),
    "words in regression": (
        {"target": "town", "task": "regression"},
        "'town' holds words, such as",
    ),
    "two classes of labels": (
        {"target": ["town", "a"], "task": "classification"},
        "classification has one label column, got town, a",
    ),
    "a target twice": ({"target": "zone"}, "unknown column 'zone'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_is_refused(name):
    options, message = REFUSED[name]
    columns = {"a": X[:, 0], "b": X[:, 1], "town": ["A", "B", "C"] * 30}
    with pytest.raises(ValueError, match=message):
        fn.load_table(columns, **options)


def test_a_dataset_is_checked_by_its_task():
    bad = PRICE.copy()
    bad[61] = np.nan
    for dataset, message in (
        (split(bad), r"y_val must hold finite numbers, but y_val\[1\] is nan"),
        (split(BOTH)._replace(y_val=BOTH[60:80, :1]), r"y_val must be \[20, 2\], got \[20, 1\]"),
        (split(PRICE, names=("a",)), "regression has no classes"),
        (split(TAGS * 2, "multilabel", ("a", "b")), "0 or 1, whether a label holds, but y_train"),
        (split(TAGS, "multilabel", ("a",)), r"y_train must be \[60, 1\], got \[60, 2\]"),
        (split(PRICE, target_names=("a", "b")), "must name 1 target of regression"),
        (split(PRICE, weight_val=[-1] * 20), "weight_val must be >= 0"),
        (split(PRICE, "ranking"), "unknown task 'ranking'"),
    ):
        with pytest.raises(ValueError, match=message):
            fn.check_dataset(dataset)


# Regression


@pytest.mark.parametrize("y", [PRICE, BOTH, PRICE[:, None]], ids=["one", "two", "one column"])
def test_predictions_are_in_the_persons_units(y):
    data = split(y)
    result = trained(data, 1 if y.ndim == 1 else y.shape[1])
    found = fn.predict(result.model, data.x_test)
    assert found.shape == data.y_test.shape
    assert found.dtype == np.float64
    measured = fn.evaluate(result.model, data.x_test, data.y_test)
    assert measured.rmse == pytest.approx(fn.rmse(data.y_test, found))
    assert measured.r2 == pytest.approx(fn.r2(data.y_test, found))
    assert measured.r2 > 0.7
    history = result.history
    assert np.isnan(history.val_accuracy).all()
    assert "val_accuracy" not in history.rows()
    val = fn.evaluate(result.model, data.x_val, data.y_val)
    assert history.metrics["val_rmse"][-1] == pytest.approx(val.rmse, rel=1e-5)
    assert history.metrics["val_mae"][-1] == pytest.approx(val.mae, rel=1e-5)
    assert history.metrics["val_r2"][-1] == pytest.approx(val.r2, rel=1e-4)
    assert history.val_loss[-1] == pytest.approx(val.loss, rel=1e-5)
    assert result.best.epoch == np.argmin(history.val_loss)
    assert np.isnan(result.best.accuracy)


def test_targets_far_from_zero_keep_their_digits():
    """In float32 they would all be one number."""
    y = 1e9 + X[:, 0]
    result = trained(split(y), 1)
    assert fn.evaluate(result.model, X[80:], y[80:]).r2 > 0.9


def test_the_units_of_targets_change_nothing_else():
    a, b = (trained(split(y), 1) for y in (PRICE, 3 * PRICE - 7))
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-4)
    np.testing.assert_allclose(3 * fn.predict(a.model, X) - 7, fn.predict(b.model, X), rtol=1e-5)


def test_a_target_that_never_varies():
    result = trained(split(np.full(90, 7.0)), 1)
    np.testing.assert_allclose(fn.predict(result.model, X), 7.0, atol=0.5)
    assert np.isnan(fn.evaluate(result.model, X, np.full(90, 7.0)).r2)


def test_quantiles_are_above_their_share():
    quantiles = (0.1, 0.5, 0.9)
    loss_fn = partial(fn.pinball_loss, quantiles=quantiles)
    data = split(BOTH)
    result = trained(data, 6, loss_fn=loss_fn, epochs=60)
    found = fn.predict(result.model, data.x_train)
    assert found.shape == (60, 2, 3)
    share = (data.y_train[:, :, None] <= found).mean(axis=0)
    np.testing.assert_allclose(share, [quantiles] * 2, atol=0.12)
    measured = fn.evaluate(result.model, data.x_train, data.y_train, loss_fn=loss_fn)
    assert measured.rmse == pytest.approx(fn.rmse(data.y_train, found[:, :, 1]))
    with pytest.raises(ValueError, match=r"net gives 2 scores .* 3 quantiles of 2 targets wants 6"):
        trained(data, 2, loss_fn=loss_fn)


def test_counts():
    counts = RNG.poisson(np.exp(1 + 0.8 * X[:, 0])).astype(float)
    result = trained(split(counts), 1, loss_fn=fn.poisson_loss, epochs=60)
    found = fn.predict(result.model, X)
    assert (found > 0).all()
    assert np.corrcoef(np.log(found), 1 + 0.8 * X[:, 0])[0, 1] > 0.9
    assert found.mean() == pytest.approx(counts.mean(), rel=0.3)
    with pytest.raises(
        ValueError, match=r"poisson_loss is for counts and rates, .*y_train has some"
    ):
        trained(split(counts - 5), 1, loss_fn=fn.poisson_loss)


def test_a_loss_of_another_task_is_refused():
    for data, loss_fn, message in (
        (split(PRICE), fn.softmax_loss, "softmax_loss is for classification, .* is regression"),
        (split(LABELS, "classification", ("a", "b", "c")), fn.huber_loss, "huber_loss is for regr"),
        (split(TAGS, "multilabel", ("a", "b")), fn.squared_loss, "its losses: sigmoid_loss"),
    ):
        with pytest.raises(ValueError, match=message):
            trained(data, 3, loss_fn=loss_fn)


def test_what_regression_has_not_is_refused():
    result = trained(split(PRICE), 1, epochs=1)
    with pytest.raises(ValueError, match="regression has no classes"):
        fn.predict_proba(result.model, X)
    with pytest.raises(ValueError, match="label_smoothing is for labels"):
        trained(split(PRICE), 1, label_smoothing=0.1)
    with pytest.raises(ValueError, match="class_weight is for classes"):
        trained(split(PRICE), 1, class_weight="balanced")
    with pytest.raises(ValueError, match=r"unknown monitor 'val_accuracy'.*known:.*val_rmse"):
        trained(split(PRICE), 1, monitor="val_accuracy")
    with pytest.raises(ValueError, match="net gives 2 scores to an example, and regression of"):
        trained(split(PRICE), 2)


@pytest.mark.parametrize("monitor", ["val_rmse", "val_mae", "val_r2", "train_loss", "-val_own"])
def test_the_best_model_is_by_what_is_asked_for(monitor):
    own = {"own": lambda predicted, y: float(np.abs(predicted - y).max())}
    result = trained(split(PRICE), 1, monitor=monitor, metrics=own)
    column = result.history.rows()[monitor.removeprefix("-")]
    best = np.argmax(column) if monitor == "val_r2" else np.argmin(column)
    assert result.best.epoch == best
    error = np.abs(fn.predict(result.model, X[60:80]) - PRICE[60:80]).max()
    assert result.history.metrics["val_own"][-1] == pytest.approx(error, rel=1e-5)


# Several labels


def test_several_labels():
    data = split(TAGS, "multilabel", ("cat", "dog"))
    result = trained(data, 2, epochs=40)
    said, p = fn.predict(result.model, data.x_test), fn.predict_proba(result.model, data.x_test)
    np.testing.assert_array_equal(said, p > 0.5)
    measured = fn.evaluate(result.model, data.x_test, data.y_test)
    assert measured.accuracy == fn.accuracy(data.y_test, said) > 0.5
    assert measured.micro_f1 == fn.micro_f1(data.y_test, said)
    assert (
        measured.macro_f1 == fn.macro_f1(data.y_test, said) == pytest.approx(np.mean(measured.f1))
    )
    val = fn.evaluate(result.model, data.x_val, data.y_val)
    rows = result.history.rows()
    for name in ("accuracy", "micro_f1", "macro_f1", "loss"):
        assert rows[f"val_{name}"][-1] == pytest.approx(getattr(val, name), rel=1e-5)
    smooth = trained(data, 2, label_smoothing=0.2, epochs=1).history.loss[0]
    logits = smooth_loss_by_hand(data)
    assert smooth == pytest.approx(logits, rel=1e-4)


def smooth_loss_by_hand(data):
    """The first loss of a run on labels that are smoothed by 0.2."""
    result = fn.fit(
        fn.mlp([8], 2),
        fn.sgd(1e-30),
        data,
        key=KEY,
        epochs=1,
        batch_size=60,
        preprocess=fn.standardize,
        label_smoothing=0.2,
    )
    s = fn.predict_scores(result.model, data.x_train).astype(float)
    t = 0.8 * data.y_train + 0.1
    assert result.history.loss[0] == pytest.approx(np.mean(np.logaddexp(0, s) - t * s), rel=1e-5)
    batches = fn.fit(
        fn.mlp([8], 2),
        fn.sgd(1e-30),
        data,
        key=KEY,
        epochs=1,
        batch_size=16,
        preprocess=fn.standardize,
        label_smoothing=0.2,
    )
    return batches.history.loss[0]


# Weights


def repeated(data, weights):
    rows = np.repeat(np.arange(60), weights)
    return data._replace(x_train=data.x_train[rows], y_train=data.y_train[rows])


CASES = {
    "classes": (split(LABELS, "classification", ("a", "b", "c")), 3, fn.softmax_loss),
    "margins": (split(LABELS, "classification", ("a", "b", "c")), 3, fn.svm_loss),
    "squares": (split(BOTH), 2, fn.squared_loss),
    "huber": (split(PRICE), 1, partial(fn.huber_loss, delta=0.3)),
    "quantiles": (split(PRICE), 2, partial(fn.pinball_loss, quantiles=(0.2, 0.8))),
    "counts": (split(np.round(np.exp(X[:, 0]))), 1, fn.poisson_loss),
    "labels": (split(TAGS, "multilabel", ("a", "b")), 2, fn.sigmoid_loss),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_are_repeated_rows(case, x64):
    data, outputs, loss_fn = CASES[case]
    weights = RNG.integers(0, 4, 60)
    results = []
    for dataset in (data._replace(weight_train=weights), repeated(data, weights)):
        dataset = dataset._replace(x_train=dataset.x_train.astype(float))
        results.append(
            fn.fit(
                fn.mlp([5], outputs, activation="tanh"),
                fn.adam(1e-2),
                dataset,
                key=KEY,
                epochs=15,
                batch_size=len(dataset.x_train),
                loss_fn=loss_fn,
                reg=0.01,
                preprocess=None,
            )
        )
    a, b = results
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-10)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), a.model.params, b.model.params
    )
    measured = fn.evaluate(
        a.model, data.x_train, data.y_train, loss_fn=loss_fn, sample_weight=weights
    )
    twice = repeated(data, weights)
    again = fn.evaluate(a.model, twice.x_train, twice.y_train, loss_fn=loss_fn)
    for name, value in again._asdict().items():
        if name not in ("confusion", "views") and value is not None:
            np.testing.assert_allclose(getattr(measured, name), value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("class_weight", ["balanced", {"c": 5.0, "a": 0.0}, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_are_weights_of_examples(class_weight, smoothing):
    data = split(LABELS, "classification", ("a", "b", "c"))
    by_class = fn.class_weights(LABELS[:60], class_weight, ("a", "b", "c"))
    weighted = data._replace(weight_train=by_class[LABELS[:60]], weight_val=by_class[LABELS[60:80]])
    options = {"epochs": 4, "label_smoothing": smoothing}
    a = trained(data, 3, class_weight=class_weight, **options)
    b = trained(weighted, 3, **options)
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-5)
    np.testing.assert_allclose(a.history.val_loss, b.history.val_loss, rtol=1e-5)
    np.testing.assert_allclose(a.history.train_loss, b.history.train_loss, rtol=1e-5)
    plain = fn.evaluate(a.model, data.x_val, data.y_val)
    assert a.history.val_accuracy[-1] == pytest.approx(plain.accuracy)  # each example counts alike
    measured = fn.evaluate(a.model, data.x_val, data.y_val, class_weight=by_class)
    assert measured.loss == pytest.approx(a.history.val_loss[-1], rel=1e-5)
    assert measured.accuracy == plain.accuracy


def test_weights_of_classes_and_of_examples_are_multiplied():
    data = split(LABELS, "classification", ("a", "b", "c"))
    weights, by_class = RNG.uniform(0.5, 2, 80), np.array([1.0, 3.0, 0.5])
    both = weights * by_class[LABELS[:80]]
    a, b = (
        trained(data._replace(weight_train=each[:60], weight_val=each[60:]), 3, epochs=2, **options)
        for each, options in ((weights, {"class_weight": by_class}), (both, {}))
    )
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-5)
    np.testing.assert_allclose(a.history.val_loss, b.history.val_loss, rtol=1e-5)


def test_a_loss_of_ones_own_may_take_weights():
    def own(scores, y, sample_weight=None):
        return fn.softmax_loss(scores, y, sample_weight)

    data = split(LABELS, "classification", ("a", "b", "c"))
    data = data._replace(weight_train=RNG.uniform(size=60), weight_val=RNG.uniform(size=20))
    a, b = (trained(data, 3, epochs=2, loss_fn=f) for f in (own, fn.softmax_loss))
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-5)
    np.testing.assert_allclose(a.history.val_loss, b.history.val_loss, rtol=1e-5)


def test_a_mixture_weighs_what_its_parts_do():
    """With mixup the loss of a pair is that of each, by share and weight."""
    data = split(LABELS, "classification", ("a", "b", "c"))
    weights = RNG.uniform(0, 2, 60)
    options = {"mixup_alpha": 0.4, "batch_size": 60, "epochs": 1, "preprocess": None}
    net, inputs = fn.mlp([8], 3), data.x_train
    result = fn.fit(net, fn.sgd(1e-30), data._replace(weight_train=weights), key=KEY, **options)
    _, run_key = jax.random.split(KEY)
    order_key, step_key = jax.random.split(run_key)
    mixup_key = jax.random.split(jax.random.fold_in(step_key, 0), 3)[2]
    order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, 0), 60))
    eye = np.eye(60, dtype=np.float32)
    _, shares = fn.mixup(mixup_key, inputs[order], eye, 0.4)  # [pair, example]
    mixed = np.asarray(shares) @ inputs[order]
    scores = fn.predict_scores(result.model, mixed).astype(float)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    losses = -log_p[:, LABELS[:60][order]]  # [pair, example]
    each = np.asarray(shares) * weights[order]
    assert result.history.loss[0] == pytest.approx((each * losses).sum() / each.sum(), rel=1e-4)


def test_weights_do_nothing_to_the_statistics_of_a_batch():
    data = split(LABELS, "classification", ("a", "b", "c"))
    states = [
        fn.fit(
            fn.serial(fn.batchnorm(), fn.affine(3)),
            fn.sgd(1e-30),
            each,
            key=KEY,
            epochs=1,
            batch_size=20,
            preprocess=fn.standardize,
        ).model
        for each in (data, data._replace(weight_train=RNG.uniform(size=60)))
    ]
    jax.tree.map(np.testing.assert_array_equal, states[0].state, states[1].state)
    jax.tree.map(
        np.testing.assert_array_equal, states[0].preprocess.stats, states[1].preprocess.stats
    )


def test_examples_that_do_not_count_change_nothing(x64):
    """Batches of them alone have loss 0 and no gradient; others are as if these were not there."""
    data = split(PRICE)
    x, y = data.x_train.astype(float), data.y_train.copy()
    y[:40] = 1e12
    none = data._replace(x_train=x, y_train=y, weight_train=np.r_[np.zeros(40), np.ones(20)])
    options = {"batch_size": 60, "epochs": 5, "preprocess": None}
    a = trained(none, 1, **options)
    few = data._replace(x_train=x[40:], y_train=y[40:])
    b = trained(few, 1, **{**options, "batch_size": 20})
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-9)
    all_of = data._replace(weight_train=np.zeros(60))
    assert (trained(all_of, 1, epochs=1, preprocess=None).history.loss == 0).all()


def test_a_loss_of_ones_own_without_weights_is_refused_before_training():
    def own(scores, y):
        return fn.softmax_loss(scores, y)

    data = split(LABELS, "classification", ("a", "b", "c"))
    assert trained(data, 3, loss_fn=own, epochs=1).history.loss.shape == (4,)
    with pytest.raises(TypeError, match="loss_fn takes no weights"):
        trained(data, 3, loss_fn=own, class_weight="balanced")


def test_a_step_takes_weights():
    net = fn.mlp([], 1)
    step = fn.make_train_step(net, fn.sgd(0.1), loss_fn=fn.squared_loss)
    state = fn.init_train_state(net, fn.sgd(0.1), (3,), key=KEY)
    x, y, w = X[:8].astype(np.float32), X[:8, 0], np.array([0, 1, 2, 3, 0, 1, 2, 3.0])
    after, metrics = step(state, x, y, w)
    twice, again = step(state, np.repeat(x, w.astype(int), axis=0), np.repeat(y, w.astype(int)))
    assert metrics["loss"] == pytest.approx(float(again["loss"]), rel=1e-6)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.params, twice.params
    )
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        step(state, x, y, -w)
    with pytest.raises(TypeError, match=r"class_weight must be \[C\] weights"):
        fn.make_train_step(net, fn.sgd(0.1), class_weight="balanced")


# Sweeps and files


@pytest.mark.parametrize("case", ["squares", "quantiles", "labels"])
def test_a_member_is_the_run_done_alone(case):
    data, outputs, loss_fn = CASES[case]
    weighted = data._replace(weight_train=RNG.uniform(size=60), weight_val=RNG.uniform(size=20))

    def experiment(learning_rate):
        return fn.mlp([5], outputs), fn.adam(learning_rate), {"loss_fn": loss_fn}

    options = {"epochs": 3, "batch_size": 16, "preprocess": fn.standardize}
    settings = fn.grid(learning_rate=[1e-2, 3e-2])
    result = fn.sweep(experiment, weighted, settings, key=KEY, **options)
    for member in result.members:
        net, optimizer, own = experiment(**member.settings)
        alone = fn.fit(net, optimizer, weighted, key=KEY, **own, **options)
        found, expected = member.history.rows(), alone.history.rows()
        assert found.keys() == expected.keys()
        for name, column in expected.items():
            np.testing.assert_allclose(found[name], column, rtol=1e-4, atol=1e-6)
        assert member.best.epoch == alone.best.epoch
        a, b = fn.predict(member.model, X), fn.predict(alone.model, X)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).min())
    row = result.table()[0]
    assert row["val_loss"] == pytest.approx(result.members[0].best.loss)
    best = min(result.members, key=lambda m: m.best.loss)
    assert result.best_settings == best.settings
    assert result.test.loss > 0


def test_a_run_of_regression_goes_on_to_the_same_bits(tmp_path):
    data, options = split(BOTH), {"epochs": 6, "checkpoint_every": 1}
    whole = trained(data, 2, epochs=6)
    trained(data, 2, **options, checkpoint=tmp_path, callback=lambda epoch, *_: epoch == 3)
    rest = trained(data, 2, **options, checkpoint=tmp_path, resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.model.params, rest.model.params)
    for name, column in whole.history.rows().items():
        np.testing.assert_array_equal(column, rest.history.rows()[name])
    np.testing.assert_array_equal(fn.predict(whole.best, X), fn.predict(rest.best, X))


@pytest.mark.parametrize("case", CASES)
def test_what_is_predicted_travels_with_the_model(case, tmp_path):
    data, outputs, loss_fn = CASES[case]
    model = trained(data, outputs, loss_fn=loss_fn, epochs=1).model
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors", model.net)
    assert again.targets == model.targets
    np.testing.assert_array_equal(fn.predict(again, X), fn.predict(model, X))


DAMAGED = {
    "no JSON": "{",
    "a list": "[]",
    "another task": {"task": "ranking"},
    "a task that is a list": {"task": []},
    "no scale": {"mean": [0.0], "scale": []},
    "a scale that is a word": {"mean": [0.0], "scale": ["1"]},
    "a scale that is no number": {"mean": [0.0], "scale": [float("nan")]},
    "names that are numbers": {"names": [1]},
    "units without regression": {"task": "classification"},
    "an unknown field": {"unit": "EUR"},
    "a link": {"link": "probit"},
    "a temperature of 0": {"temperature": 0},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_targets_are_refused(name, tmp_path):
    path, model = tmp_path / "m.safetensors", trained(split(PRICE), 1, epochs=1).model
    save_model(path, model)
    leaves, metadata = load_tensors(path, kind="model")
    given = DAMAGED[name]
    text = given if isinstance(given, str) else json.dumps({**model.targets.as_json(), **given})
    known = {k: v for k, v in metadata.items() if k in ("preprocess", "encoding")}
    save_tensors(path, leaves, kind="model", **known, targets=text)
    with pytest.raises(ValueError, match=r"m\.safetensors") as error:
        load_model(path, model.net)
    assert "\n" not in str(error.value)
