"""The trainings that are timed, by name."""

from collections.abc import Mapping
from functools import partial

import funcnet as fn

from . import data
from .training import Training

TRAININGS: Mapping[str, Training] = {
    each.name: each
    for each in (
        Training(
            "cifar100x5",
            "the assignment's net, 3072-100-100-100-100-100-10 on CIFAR-10",
            data.cifar10,
            49_000,
            4_000,
            [100] * 5,
            10,
            200,
            weight_scale=5e-2,
        ),
        Training(
            "cifar1024x3",
            "3 x 1024 with batch norm and dropout on CIFAR-10",
            data.cifar10,
            20 * 512,
            2 * 512,
            [1024] * 3,
            10,
            512,
            normalization="batchnorm",
            keep_prob=0.8,
            products=True,
        ),
        Training(
            "cifar1536x2",
            "2 x 1536 with layer norm and dropout on 800 features",
            partial(data.normal, features=800, classes=10),
            10_000,
            1_000,
            [1536] * 2,
            10,
            500,
            normalization="layernorm",
            keep_prob=0.7,
            products=True,
        ),
        Training(
            "digits256",
            "64-256-256-10 on the digits",
            data.digits,
            1_200,
            1_200,
            [256] * 2,
            10,
            50,
            weight_scale=2e-2,
        ),
        Training(
            "digits100",
            "64-100-10 on the digits",
            data.digits,
            1_200,
            1_200,
            [100],
            10,
            100,
            learning_rate=3e-3,
            preprocess=fn.standardize,
        ),
        Training(
            "table20",
            "20-128-128-2 on a table",
            partial(data.normal, features=20, classes=2),
            20_000,
            4_000,
            [128] * 2,
            2,
            200,
            preprocess=fn.standardize,
        ),
        Training(
            "table54",
            "54-512-512-512-7 on a table",
            partial(data.normal, features=54, classes=7),
            20_000,
            4_000,
            [512] * 3,
            7,
            200,
            preprocess=fn.standardize,
        ),
    )
}
