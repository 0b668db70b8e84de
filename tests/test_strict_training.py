"""Training where JAX promotes nothing by itself: it runs, and gives the same, bit for bit."""

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.augment import AUGMENTATIONS
from funcnet.preprocess import KINDS

pytestmark = pytest.mark.usefixtures("unoptimized")

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 200, (6, 3, 12, 12))
DTYPES = ("uint8", "int32", "float16", "float32")


def check_the_same(make):
    """What a function gives is the same, whether JAX promotes or not."""
    expected = make()
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = make()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations(name, dtype):
    images = IMAGES.astype(dtype)
    check_the_same(lambda: jax.jit(AUGMENTATIONS[name].function)(KEY, images))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_preprocessings(name, dtype):
    images = IMAGES.astype(dtype)
    check_the_same(lambda: KINDS[name].step.function(images)(images[:2]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_views(dtype):
    check_the_same(lambda: [view(IMAGES.astype(dtype)) for view in fn.flips_and_shifts()])


def test_mixup():
    x, targets = IMAGES.astype("float32"), np.eye(6, dtype="float32")
    check_the_same(lambda: jax.jit(fn.mixup)(KEY, x, targets, 0.5))


@pytest.fixture(scope="module")
def few():
    digits = fn.load_digits()
    return digits._replace(x_train=digits.x_train[:103], y_train=digits.y_train[:103])


@pytest.mark.slow
def test_fit_with_everything_predict_and_evaluate(few):
    net = fn.mlp([8], 10, normalization="batchnorm", keep_prob=0.5, activation="gelu")

    def train():
        result = fn.fit(
            net,
            fn.adamw(fn.one_cycle(1e-2, 8)),
            few,
            key=KEY,
            epochs=2,
            batch_size=50,
            preprocess=fn.standardize,
            augment=(fn.random_flip, fn.random_shift),
            reg=0.1,
            label_smoothing=0.1,
            mixup_alpha=0.2,
            average_decay=0.9,
        )
        scores = fn.predict_scores(result.best, few.x_test, views=fn.flips_and_shifts())
        measured = fn.evaluate(result.best, few.x_test, few.y_test)
        return result.model.params, tuple(result.history), scores, tuple(measured)

    check_the_same(train)


def test_a_sweep(few):
    def experiment(learning_rate, reg):
        return fn.mlp([8], 10), fn.sgd_momentum(learning_rate), {"reg": reg}

    settings = fn.grid(learning_rate=[1e-3, 1e-2], reg=[0.0, 0.1], seed=[0, 1])

    def swept():
        result = fn.sweep(experiment, few, settings, epochs=2, batch_size=50)
        return [tuple(member.history) for member in result.members]

    check_the_same(swept)
