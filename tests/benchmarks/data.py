"""Data sets of given numbers of training examples; where speed alone counts they are random."""

import numpy as np

import funcnet as fn


def cut(data: fn.Dataset, count: int) -> fn.Dataset:
    """The first training examples alone."""
    return data._replace(x_train=data.x_train[:count], y_train=data.y_train[:count])


def random(rng: np.random.Generator, x: np.ndarray, classes: int) -> fn.Dataset:
    """Training examples with labels that a net can learn: the nearest of random directions."""
    flat = x.reshape(len(x), -1).astype(np.float32)
    directions = rng.normal(size=(flat.shape[1], classes)).astype(np.float32)
    scores = (flat - flat.mean(axis=0)) @ directions
    y = scores.argmax(axis=1).astype(np.int32)
    return fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], tuple(map(str, range(classes))))


def cifar10(count: int) -> fn.Dataset:
    """CIFAR-10, its last images for tests; random images where it is not to be found."""
    if has_cifar10():
        return cut(fn.load_cifar10(), count)
    rng = np.random.default_rng(0)
    data = random(rng, rng.integers(0, 256, (count, 3, 32, 32), np.uint8), 10)
    return data._replace(x_test=data.x_train[:1000], y_test=data.y_train[:1000])


def has_cifar10() -> bool:
    """Whether CIFAR-10 lies where funcnet looks for it."""
    return fn.find_cifar10() is not None


def digits(count: int) -> fn.Dataset:
    """The digits that are built in, 8 x 8 pixels."""
    return cut(fn.load_digits(), count)


def normal(count: int, features: int, classes: int) -> fn.Dataset:
    """A table of numbers, normally distributed, float32."""
    rng = np.random.default_rng(0)
    return random(rng, rng.normal(size=(count, features)).astype(np.float32), classes)
