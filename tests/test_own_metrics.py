"""Metrics of one's own: what `fit` gives them, keeps of them and says of their errors."""

import csv
import pickle
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.runs import write_history

NET, ADAM = fn.mlp([4], 3), fn.adam(1e-2)


def blobs():
    rng = np.random.default_rng(0)
    parts = []
    for count in (31, 12, 7):
        y = rng.integers(3, size=count).astype(np.int32)
        parts += [(np.eye(3)[y] + rng.normal(size=(count, 3))).astype(np.float32), y]
    return fn.Dataset(*parts, tuple("abc"))


DATA = blobs()


def quick(metrics, **changes):
    options = {"key": jax.random.key(7), "epochs": 3, "batch_size": 10, **changes}
    return fn.fit(
        options.pop("net", NET), ADAM, options.pop("dataset", DATA), **options, metrics=metrics
    )


def balanced(scores, y):
    return fn.balanced_accuracy(y, scores.argmax(axis=1))


def top_score(scores, y):
    return scores.max()  # a float32


OWN = {"balanced": balanced, "top score": top_score}


def test_they_are_measured_wherever_accuracies_are():
    rows = []
    result = quick(OWN, eval_every=2, callback=lambda *call: rows.append(call))
    found = result.history.metrics
    assert set(found) == {f"{s}_{name}" for s in ("train", "val") for name in OWN}
    assert list(result.history.epoch) == [0, 2, 3]
    for values in found.values():
        assert (values.shape, values.dtype) == ((3,), np.float64)
    for split in ("train", "val"):
        x, y = getattr(DATA, f"x_{split}"), getattr(DATA, f"y_{split}")
        last = fn.evaluate(result.model, x, y)
        assert found[f"{split}_balanced"][-1] == last.balanced_accuracy
        scores = fn.predict_scores(result.model, x)
        assert found[f"{split}_top score"][-1] == scores.max()
    for epoch, _, metrics in rows:
        measured = list(result.history.epoch).index(epoch) if epoch != 1 else None
        own = {name: value for name, value in metrics.items() if name in found}
        assert own == ({n: v[measured] for n, v in found.items()} if epoch != 1 else {})
        assert all(type(value) is float for value in own.values())


def test_the_rest_is_as_without_them():
    plain, own = quick(None), quick(OWN)
    assert plain.history.metrics == {} == quick({}).history.metrics
    for name in plain.history.rows():
        np.testing.assert_array_equal(getattr(plain.history, name), getattr(own.history, name))
    assert plain.model.params == own.model.params
    assert plain.best.epoch == own.best.epoch


def test_without_a_validation_set_they_are_nan_there():
    data = DATA._replace(x_val=DATA.x_val[:0], y_val=DATA.y_val[:0])
    history = quick({"balanced": balanced}, dataset=data).history
    assert np.isnan(history.metrics["val_balanced"]).all()
    assert np.isfinite(history.metrics["train_balanced"]).all()


def test_an_interrupted_run_has_the_rows_it_measured():
    def interrupt(scores, y):
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return len(calls)

    for stop in (0, 3, 4):  # two calls a measurement
        calls = []
        result = quick({"calls": interrupt}, epochs=9)
        assert result.interrupted
        rows = stop // 2
        for values in (result.history.epoch, *result.history.metrics.values()):
            assert len(values) == rows
        assert set(result.history.metrics) == {"train_calls", "val_calls"}


def test_they_are_columns_of_the_history(tmp_path):
    history = quick(OWN).history
    write_history(tmp_path, history)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(history.rows())
    for name, values in history.rows().items():
        assert [float(row[name]) for row in rows] == list(values)
    again = pickle.loads(pickle.dumps(history))
    for name, values in history.metrics.items():
        np.testing.assert_array_equal(again.metrics[name], values)


NUMBERS = {
    "int": 3,
    "of numpy": np.float64(1.0),
    "0-d": np.array(2.5),
    "jax": jnp.float32(1.5),
    "nan": np.nan,
    "infinite": -np.inf,
    "decimal": Decimal("0.5"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_any_real_number_is_one(kind):
    value = NUMBERS[kind]
    found = quick({"own": lambda scores, y: value}, epochs=1).history.metrics["val_own"]
    np.testing.assert_array_equal(found, [float(value)] * 2)


def spoil(scores, y):
    scores[0] = 0


def spoil_labels(scores, y):
    y += 1


def fails(scores, y):
    raise RuntimeError("no\nluck")


def give(value):
    return {"own": lambda scores, y: value}


REFUSED = {
    "no dict": ([balanced], "metrics must be a dict of functions by name"),
    "no function": ({"own": 3}, "metric 'own' must be a function, got 3"),
    "name no string": ({1: balanced}, "the names of metrics must be strings, got 1"),
    "no name": ({"": balanced}, "the name of a metric is empty"),
    "loss": ({"loss": balanced}, "must not be named 'loss', which fit measures already"),
    "accuracy": ({"accuracy": balanced}, "must not be named 'accuracy'"),
    "raises": ({"own": fails}, "^metric 'own' failed: RuntimeError: no$"),
    "changes scores": ({"own": spoil}, "metric 'own' failed: ValueError: .*read-only"),
    "changes y": ({"own": spoil_labels}, "metric 'own' failed: ValueError: .*read-only"),
    "takes one": ({"own": lambda scores: 1}, "metric 'own' failed: TypeError"),
    "second": ({"a": balanced, "own": fails}, "metric 'own' failed"),
    "nothing": (give(None), "^metric 'own' must give a number, got NoneType$"),
    "text": (give("0.5"), "metric 'own' must give a number, got str"),
    "bool": (give(True), "metric 'own' must give a number, got bool"),
    "array": (give(np.ones(3)), "metric 'own' must give a number, got ndarray"),
    "array of one": (give(np.ones(1)), "metric 'own' must give a number, got ndarray"),
    "ragged": (give([[1], [1, 2]]), "metric 'own' must give a number, got list"),
    "complex": (give(np.complex64(1)), "metric 'own' must give a number, got complex64"),
    "too large": (give(10**400), "metric 'own' must give a number, got int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_metrics_are_refused_before_training(case):
    metrics, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        quick(metrics, callback=lambda *_: pytest.fail("training began"))
    assert "\n" not in str(error.value)


def test_metrics_that_would_never_be_measured_are_refused():
    with pytest.raises(ValueError, match=r"metrics are measured every eval_every epochs.*None"):
        quick(OWN, eval_every=None)
    assert quick({}, eval_every=None).history.metrics == {}


def test_a_sweep_refuses_them_by_name():
    def experiment(rate):
        return NET, fn.adam(rate)

    def giving(rate):
        return NET, fn.adam(rate), {"metrics": OWN}

    for given, options in ((experiment, {"metrics": OWN}), (giving, {})):
        with pytest.raises(ValueError, match="metrics is an option of fit alone"):
            fn.sweep(
                given,
                DATA,
                [{"rate": 0.1}],
                key=jax.random.key(0),
                epochs=1,
                batch_size=9,
                **options,
            )
