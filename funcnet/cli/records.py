"""From the options of a command to the record of a run, and from a run directory to its model."""

import argparse
import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import funcnet as fn
from funcnet import runs
from funcnet.again import load_again
from funcnet.cli.options import given_options
from funcnet.config import Config, replaced
from funcnet.datasets.dataset import fingerprint
from funcnet.datasets.images import holds_images
from funcnet.datasets.notes import DataWarning
from funcnet.datasets.registry import is_file, is_table_file
from funcnet.datasets.sources import STDIN
from funcnet.loop import machine
from funcnet.option import option
from funcnet.recipes import build_loss, numbers_of, usual_recipe
from funcnet.runs import Record
from funcnet.targets import outputs_of
from funcnet.text import visible


def make_config(args: argparse.Namespace) -> Config:
    """The Config of the options of a command, on top of its recipe's."""
    return replaced(args.base, given_options(args))


def make_record(config: Config, recipe: str | None) -> Record:
    """The record of a run, which finds its data from wherever it is used."""
    facts = {
        "recipe": recipe or usual_recipe(config.dataset),
        "title": f"{run_name(config, recipe)}, hidden layers {list(config.hidden_dims)}",
        "versions": {"funcnet": fn.__version__, "jax": jax.__version__},
        "machine": machine(),
    }
    if is_file(config.dataset) and config.dataset != STDIN:
        config = dataclasses.replace(config, dataset=str(Path(config.dataset).resolve()))
    return Record(config, facts)


def say_recipe(config: Config, args: argparse.Namespace) -> None:
    """Say which recipe it is, if none was asked for."""
    usual = usual_recipe(config.dataset)
    if usual is not None and args.recipe is None and not args.quiet:
        own = ", ".join(map(option, fn.list_recipes()[usual].options))
        print(f"recipe {usual}, as of any table; --recipe, or {own}, decide otherwise")


def run_name(config: Config, recipe: str | None) -> str:
    """What a run is called if nothing else is said."""
    if recipe or not is_file(config.dataset):
        return recipe or config.dataset
    path = Path(config.dataset)
    packed = path.suffix.lower() in (".gz", ".zip")
    return "stdin" if config.dataset == STDIN else Path(path.stem).stem if packed else path.stem


def load_data(config: Config, model: fn.Model | None = None) -> fn.Dataset:
    """The dataset of a Config, whole, see `load_again`; what there is to say of it is printed."""
    with noted():
        return load_again(config, model)


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Print what a loader left out or guessed as lines on stderr."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:  # also where a guess has led to an error
            for note in notes:
                what = "note" if issubclass(note.category, DataWarning) else "warning"
                print(f"{what}: {visible(str(note.message))}", file=sys.stderr)


def with_data(record: Record, dataset: fn.Dataset) -> Record:
    """The record with what there is to know of its data."""
    outputs = outputs_of(dataset, build_loss(record.config))
    record = record.having(class_names=list(dataset.class_names), outputs=outputs)
    x = dataset.x_train
    record = record.having(input_shape=list(x.shape[1:]), input_dtype=np.dtype(x.dtype).name)
    if dataset.encoding is not None or record.config.embedding != "none":
        record = record.having(numbers=list(numbers_of(dataset)))
    if dataset.target_names:
        record = record.having(target_names=list(dataset.target_names))
    if is_file(record.config.dataset) and not holds_images(record.config.dataset):
        record = record._replace(config=dataclasses.replace(record.config, task=dataset.task))
    table = dataset.encoding is not None and is_table_file(record.config.dataset)
    if table and dataset.encoding:  # by its name, which "last" is not in a file of another order
        labels = dataset.encoding.labels
        record = record._replace(config=dataclasses.replace(record.config, label=labels))
    if is_file(record.config.dataset):
        record = record.having(data_sha256=fingerprint(dataset))
    return record


def load_run(path: str, which: str | None) -> tuple[Record, fn.Model, str]:
    """The record of a run directory, its model, and which: that which counted if None is said."""
    with noted():
        record = runs.load_record(path)
    which = which or record.config.model or "best"
    return record, runs.run_model(path, record, which), which
