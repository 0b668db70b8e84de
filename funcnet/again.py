"""What a run was trained on, loaded again: whole, and checked to be what it was."""

from typing import Any

from funcnet.config import Config
from funcnet.datasets import Dataset, load_dataset
from funcnet.datasets.dataset import fingerprint
from funcnet.datasets.delimited import Format
from funcnet.datasets.encoding import plain_encoding
from funcnet.datasets.registry import FILE_OPTIONS, is_table_file
from funcnet.datasets.tables import ENDS, labels_of, load_table, names_of, read_table
from funcnet.model import Model
from funcnet.runs import Record


def load_again(config: Config, model: Model | None = None) -> Dataset:
    """The dataset of a Config, whole; a table as it was made for a model, if there is one."""
    options = {name: config[name] for name in FILE_OPTIONS}
    if model is None or not is_table_file(config.dataset):
        return load_dataset(config.dataset, data_dir=config.data_dir, **options)
    return load_for(model, config.dataset, **options)


def load_for(model: Model, path: str, label: Any = None, **options: Any) -> Dataset:
    """A table as it was made for a model: options of `load_arrays`, and of `load_table`."""
    said_of_columns = ("columns", "drop", "categorical")  # the encoding has it
    options = {name: value for name, value in options.items() if name not in said_of_columns}
    empty = (None, ()) if "class_names" not in options else (None,)
    given = {name: value for name, value in options.items() if value not in empty}
    if model.encoding is not None:
        return load_table(path, label, encoding=model.encoding, **given)
    # Of a run before columns were encoded: they all were numbers.
    form = Format(*(given.pop(name, None) for name in Format._fields))
    labels = names_of("label", label)
    named = labels[0] if labels and labels[0] not in ENDS else None
    table = read_table(path, form, label=named)
    labels = labels_of(table, labels)
    return load_table(table, labels, encoding=plain_encoding(table, labels), **given)


def check_data(record: Record, dataset: Dataset, problem: str) -> None:
    """Raise if the data are not those of the record."""
    known = record.facts.get("data_sha256")  # that of files alone
    if known is not None and known != fingerprint(dataset):
        raise ValueError(f"{record.config.dataset} has changed {problem}")
