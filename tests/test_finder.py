"""The range test of learning rates."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from command import run

import funcnet as fn
from funcnet.finder import rate_range

KEY = jax.random.key(0)


def few(count=300):
    digits = fn.load_digits()
    return digits._replace(x_train=digits.x_train[:count], y_train=digits.y_train[:count])


def find(optimizer=fn.adam, net=None, dataset=None, **options):
    given = {"key": KEY, "batch_size": 50, "steps": 60, **options}
    return fn.find_learning_rate(
        net or fn.mlp([16], 10),
        optimizer,
        dataset or few(),
        **given,
    )


@pytest.mark.slow
def test_losses_are_those_of_training_at_a_rate_that_rises():
    found = find(fn.sgd, lowest=1e-5, highest=1e-1, preprocess=fn.standardize, reg=0.1)
    np.testing.assert_allclose(found.learning_rate, np.geomspace(1e-5, 1e-1, 60), rtol=1e-4)
    at = fn.init_train_state(fn.mlp([16], 10), fn.sgd(1.0), (64,), key=KEY)
    dataset, losses = few(), []
    from funcnet.loop import Orders

    orders = Orders(jax.random.split(KEY)[1], 300)
    fitted = fn.standardize(dataset.x_train)
    for k, rate in enumerate(np.geomspace(1e-5, 1e-1, 60)):
        rows = orders.of(k // 6)[k % 6 * 50 :][:50]
        x, y = fitted(dataset.x_train[rows]), dataset.y_train[rows]
        loss, grads, _ = fn.loss_and_grads(fn.mlp([16], 10), at.params, at.state, x, y, reg=0.1)
        updates, _ = fn.sgd(rate).update(grads, at.opt_state, at.params)
        at = at._replace(params=fn.apply_updates(at.params, updates))
        losses.append(loss)
    np.testing.assert_allclose(found.loss, losses, rtol=1e-3)


def test_smoothing_and_suggestion_by_hand():
    rate = np.geomspace(1e-3, 1e2, 6)
    loss = np.array([2.0, 2.0, 1.8, 0.8, 0.6, 5.0])
    found = rate_range(rate, loss, 0.0)
    np.testing.assert_array_equal(found.smoothed, [*loss[:5], 2.0])
    assert found.suggestion == rate[2]  # (2 - 0.8) / 2 is the steepest, between its neighbours
    half = rate_range(rate, loss, 0.5).smoothed
    weights = 0.5 ** np.abs(np.arange(6) - 2)
    capped = np.minimum(loss, 2)
    np.testing.assert_allclose(half[2], (weights * capped).sum() / weights.sum())
    assert str(found).splitlines()[-1] == "suggestion: 0.1, where the loss falls fastest"


@pytest.mark.parametrize("shape", ["rises", "noise", "none"])
def test_without_a_fall_there_is_no_suggestion(shape):
    noise = np.random.default_rng(0).normal(size=100)
    loss = {"rises": np.arange(100.0), "noise": 5 + noise, "none": np.zeros(0)}[shape]
    found = rate_range(np.geomspace(1e-6, 10, 100)[: len(loss)], loss, 0.9)
    assert found.suggestion is None
    assert str(found).splitlines()[-1].startswith("no suggestion")


def test_a_fall_counts_against_the_noise_of_smoothed_losses():
    noise = np.where(np.arange(100) % 2, 0.1, -0.1)
    rate, slope = np.geomspace(1e-6, 10, 100), np.linspace(0, 1, 100)
    assert rate_range(rate, 5 + noise - 0.7 * slope, 0.9).suggestion is not None
    assert rate_range(rate, 5 + noise - 0.1 * slope, 0.9).suggestion is None


@pytest.mark.slow
def test_a_loss_below_zero_has_not_exploded():
    def lower(scores, y, **options):
        loss, dscores = fn.softmax_loss(scores, y, **options)
        return loss - 10, dscores

    assert len(find(loss_fn=lower, steps=30, highest=1e-3).loss) == 30


@pytest.mark.slow
def test_it_ends_where_the_loss_explodes():
    found = find(fn.sgd, highest=1e6)
    assert 10 < len(found.loss) < 60
    assert len(found.learning_rate) == len(found.smoothed) == len(found.loss)
    assert np.isfinite(found.loss).all()
    assert len(find(highest=1e3).loss) < 60  # where it stays finite


@pytest.mark.slow
def test_it_is_a_function_of_its_key():
    one, same, other = (find(steps=20, key=jax.random.key(seed)) for seed in (0, 0, 1))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.loss[0] != other.loss[0]


@pytest.mark.slow
def test_options_are_those_of_fit():
    plain = find(steps=10)
    weights = few()._replace(weight_train=np.linspace(0, 1, 300))
    changed = {
        "reg": {"reg": 0.5},
        "preprocess": {"preprocess": fn.standardize},
        "label_smoothing": {"label_smoothing": 0.3},
        "mixup_alpha": {"mixup_alpha": 1.0},
        "loss_fn": {"loss_fn": fn.svm_loss},
        "class_weight": {"class_weight": {0: 9}},
        "weights": {"dataset": weights},
        "augment": {"augment": partial(lambda key, x: x + 1)},
    }
    for name, given in changed.items():
        assert not np.allclose(find(steps=10, **given).loss, plain.loss, rtol=1e-6), name


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"optimizer": fn.adam(1e-3)}, TypeError, "function of the learning rate, such as adam"),
        ({"lowest": 1.0, "highest": 0.5}, ValueError, "highest must be above lowest, 1, got 0.5"),
        ({"lowest": 0.0}, ValueError, "lowest must be"),
        ({"steps": 9}, ValueError, "steps must be at least 10"),
        ({"smoothing": 1.0}, ValueError, "smoothing"),
        ({"batch_size": 301}, ValueError, "only 300 training examples"),
        ({"regg": 1}, TypeError, "did you mean 'reg'"),
        ({"loss_fn": fn.squared_loss}, ValueError, "squared_loss"),
    ],
)
def test_wrong_arguments(given, error, match):
    with pytest.raises(error, match=match):
        find(**given)


@pytest.mark.slow
@pytest.mark.parametrize("make", [fn.adam, fn.sgd, fn.sgd_momentum, fn.rmsprop, fn.lion])
def test_digits_train_at_the_suggestion_and_not_far_from_it(make):
    digits, net = fn.load_digits(), fn.mlp([64], 10)
    found = fn.find_learning_rate(net, make, digits, key=KEY, batch_size=50)
    assert found.suggestion is not None
    assert found.learning_rate[0] < found.suggestion < found.learning_rate[-1]
    options = {"key": jax.random.key(5), "epochs": 5, "batch_size": 50}
    reached = {
        share: fn.fit(net, make(found.suggestion * share), digits, **options)
        for share in (0.01, 1, 3)
    }
    loss = {share: result.history.val_loss[-1] for share, result in reached.items()}
    assert loss[1] < loss[0.01] / 3
    assert min(loss[1], loss[3]) < 0.7


@pytest.mark.slow
def test_a_table_of_numbers_trains_at_the_suggestion():
    rng = np.random.default_rng(0)
    area, rooms = rng.uniform(30, 200, 500), rng.integers(1, 7, 500)
    price = 3000 * area + 10_000 * rooms + 20_000 * rng.normal(size=500)
    table = {"area": area, "rooms": rooms, "price": price}
    houses = fn.load_table(table, "price", task="regression")
    net, options = fn.mlp([32], 1), {"batch_size": 32, "preprocess": fn.standardize}
    found = fn.find_learning_rate(net, fn.adam, houses, key=KEY, **options)
    assert 1e-4 < found.suggestion < 1e-1
    result = fn.fit(net, fn.adam(3 * found.suggestion), houses, key=KEY, epochs=5, **options)
    assert result.history.metrics["val_r2"][-1] > 0.9


# The command

SMALL = ("--hidden-dims", "8", "--num-train", "200", "--batch-size", "50", "--steps", "60")


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_command_prints_a_table_and_the_suggestion(inside):
    code, out, err = run("lr-find", *SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["learning", "rate", "loss", "smoothed"]
    assert lines[-2].startswith("suggestion: 0.")
    assert not list(Path().iterdir())
    code, out, err = run("lr-find", *SMALL, "--json", "--epochs", "3")
    assert code == 0
    assert err == "note: --epochs of train make no difference to lr-find\n"
    found = json.loads(out)
    assert set(found) == {"learning_rate", "loss", "smoothed", "suggestion"}
    assert f"{found['suggestion']:.2g}" in lines[-2]


@pytest.mark.slow
def test_a_loss_that_is_no_number_from_the_first_step_on_is_said(inside):
    code, out, err = run("lr-find", *SMALL, "--weight-scale", "1e30")
    assert (code, err) == (0, "")
    assert out == "no suggestion: the loss is no number at the first step\n"


@pytest.mark.slow
def test_the_command_does_what_the_function_does(inside):
    _, out, _ = run("lr-find", *SMALL, "--json", "--optimizer", "sgd", "--reg", "0.1")
    config = {"hidden_dims": [8], "num_train": 200, "batch_size": 50, "reg": 0.1}
    net, _, dataset, options = fn.experiment(config, fn.load_digits())
    names = ("key", "batch_size", "reg", "loss_fn", "preprocess")
    given = {name: options[name] for name in names}
    found = fn.find_learning_rate(net, fn.sgd, dataset, steps=60, **given)
    np.testing.assert_array_equal(json.loads(out)["loss"], found.loss)


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (("--dataset", "missing.csv"), "missing.csv: No such file"),
        (("--plot", "nowhere/rates.png"), "there is no directory nowhere"),
        (("--plot", "rates.foo"), "a picture ends in .png"),
        (("--lowest", "2", "--highest", "1"), "highest must be above lowest"),
        (("--stps", "2"), "did you mean --steps"),
    ],
)
def test_wrong_options_are_a_line(inside, argv, match):
    code, _, err = run("lr-find", *argv)
    assert code == 2
    assert match in err
    assert len(err.splitlines()) == 1
    assert not list(Path().iterdir())


@pytest.mark.skipif(not hasattr(fn, "plot_learning_rates"), reason="it draws with this function")
def test_the_command_draws_a_picture(inside):
    assert run("lr-find", *SMALL, "--plot", "rates.png")[0] == 0
    assert Path("rates.png").read_bytes().startswith(b"\x89PNG")
