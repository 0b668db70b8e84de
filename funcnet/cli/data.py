"""From options to data, and from a run directory to its model."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet import _check, recipes, runs


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _is_share(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and 0 < value <= 1)


CONFIG: dict[str, Callable[[Any], bool]] = {
    "dataset": lambda value: isinstance(value, str),
    "data_dir": lambda value: value is None or isinstance(value, str),
    "label": lambda value: value is None or isinstance(value, str),
    "val_fraction": lambda value: value is None or _is_number(value),
    "test_fraction": lambda value: value is None or _is_number(value),
    "num_train": lambda value: value is None or _is_count(value),
    "hidden": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "normalization": lambda value: value in recipes.NAMED["normalization"],
    "activation": lambda value: value in recipes.NAMED["activation"],
    "keep_prob": _is_share,
    "input_keep_prob": _is_share,
    "weight_scale": lambda v: v is None or v in recipes.WEIGHT_SCALES or _is_number(v),
    "matmul_dtype": lambda value: value in recipes.NAMED["matmul_dtype"],
    "loss": lambda value: value in recipes.NAMED["loss"],
    "class_names": lambda value: isinstance(value, list) and len(value) > 0,
}
LATER = ("normalization", "activation", "keep_prob", "input_keep_prob", "matmul_dtype")
FILE_OPTIONS = ("label", "val_fraction", "test_fraction")


def make_config(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a command that describe its run, for config.json."""
    given = {name: value for name, value in vars(args).items() if name in recipes.DEFAULTS}
    config = {**recipes.DEFAULTS, **given}
    recipes.check_config(config)
    if is_file(args.dataset):
        config["dataset"] = str(Path(args.dataset).resolve())
    else:
        _check.choose("dataset", args.dataset, {"digits": None, "cifar10": None})
        for name in FILE_OPTIONS:
            if config[name] is not None:
                raise ValueError(f"{recipes.option(name)} is for files, not for {args.dataset}")
    config["recipe"] = getattr(args, "recipe", None)
    name = config["recipe"] or _dataset_name(args.dataset)
    config["title"] = f"{name}, hidden layers {args.hidden}"
    config["versions"] = {"funcnet": fn.__version__, "jax": jax.__version__}
    return config


def load_dataset(config: dict[str, Any]) -> fn.Dataset:
    """The dataset of a configuration."""
    if config["dataset"] == "digits":
        return fn.load_digits()
    if config["dataset"] == "cifar10":
        return fn.load_cifar10(config["data_dir"])
    options = {name: config[name] for name in FILE_OPTIONS if config[name] is not None}
    return fn.load_arrays(config["dataset"], **options)


def fingerprint(dataset: fn.Dataset) -> str:
    """A checksum of the data and of their split."""
    digest = hashlib.sha256(json.dumps(dataset.class_names).encode())
    for array in dataset[:-1]:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load_run(path: str, which: str) -> tuple[dict[str, Any], fn.Model]:
    """The configuration and the model of a run directory."""
    config = runs.load_config(path)
    for name in LATER:
        config.setdefault(name, recipes.DEFAULTS[name])
    for name, holds in CONFIG.items():
        if name not in config or not holds(config[name]):
            found = f"{name} is {config[name]!r}" if name in config else f"{name} is missing"
            raise ValueError(f"{path}/config.json is damaged: {found}")
    net = recipes.build_net(config, len(config["class_names"]))
    return config, runs.load_run_model(path, net, which=which)


def is_file(dataset: str) -> bool:
    """Whether --dataset names a file."""
    return dataset.endswith((".npz", ".csv")) or os.sep in dataset or Path(dataset).is_file()


def run_name(args: argparse.Namespace) -> str:
    """What a run is called if nothing else is said."""
    return args.recipe or _dataset_name(args.dataset)


def _dataset_name(dataset: str) -> str:
    return Path(dataset).stem if is_file(dataset) else dataset
