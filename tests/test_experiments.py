"""The notebook's experiments on real CIFAR-10, through the public functions and commands."""

import contextlib
import io
import re

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.cli import main
from funcnet.datasets import find_cifar10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_cifar10() is None,
        reason="CIFAR-10 is not there: funcnet datasets download cifar10, or set FUNCNET_DATA",
    ),
]


@pytest.fixture(scope="module")
def cifar10():
    return fn.load_cifar10()


@pytest.fixture(scope="module")
def mean_image(cifar10):
    return fn.subtract_mean(cifar10.x_train)


def first(dataset, count):
    return dataset._replace(x_train=dataset.x_train[:count], y_train=dataset.y_train[:count])


@pytest.mark.parametrize(
    ("hidden_dims", "weight_scale", "learning_rate"),
    [([100] * 2, 5e-2, 1e-3), ([100] * 4, 6e-2, 5e-3)],
    ids=["three layers", "five layers"],
)
def test_overfits_50_images(cifar10, mean_image, hidden_dims, weight_scale, learning_rate):
    net, optimizer = fn.mlp(hidden_dims, 10, weight_scale=weight_scale), fn.sgd(learning_rate)
    for seed in range(5):
        result = fn.fit(
            net,
            optimizer,
            first(cifar10, 50),
            key=jax.random.key(seed),
            epochs=20,
            batch_size=25,
            preprocess=mean_image,
        )
        assert result.history.train_accuracy.max() == 1, f"seed {seed}"


def test_update_rules_on_4000_images(cifar10, mean_image):
    data = first(cifar10, 4000)
    net = fn.mlp([100] * 5, 10, weight_scale=5e-2)
    rules = {
        "sgd": fn.sgd(5e-3),
        "momentum": fn.sgd_momentum(5e-3),
        "rmsprop": fn.rmsprop(1e-4),
        "adam": fn.adam(1e-3),
    }
    points = {}
    for name, optimizer in rules.items():
        accuracies = []
        for seed in range(10):
            result = fn.fit(
                net,
                optimizer,
                data,
                key=jax.random.key(seed),
                epochs=5,
                batch_size=100,
                preprocess=mean_image,
                eval_every=None,
            )
            accuracies.append(fn.evaluate(result.model, data.x_train, data.y_train).accuracy)
        points[name] = 100 * np.mean(accuracies)
    assert points["momentum"] >= points["sgd"] + 10
    assert points["adam"] >= points["momentum"] - 1
    assert abs(points["rmsprop"] - points["momentum"]) <= 5


def test_six_layers_on_all_images_from_the_command_line(tmp_path):
    def run(*argv):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(argv) == 0
        return out.getvalue()

    directory = str(tmp_path / "run")
    hidden = ("--hidden", "100", "100", "100", "100", "100", "--weight-scale", "5e-2")
    schedule = ("--epochs", "30", "--batch-size", "200", "--learning-rate", "1e-3")
    trained = run("train", "--dataset", "cifar10", *hidden, *schedule, "--out", directory)
    best = float(re.search(r"best validation accuracy ([\d.]+) %", trained)[1])
    assert best >= 50
    tested = run("evaluate", directory)
    assert "10,000 examples" in tested
    assert float(re.search(r"test accuracy ([\d.]+) %", tested)[1]) >= 49.5
