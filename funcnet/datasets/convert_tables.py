"""From a table to shards, in passes over its file: what it is, what to make of it, and writing."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import SPLITS
from funcnet.datasets.delimited import Format
from funcnet.datasets.learning import Learner, left_out_line
from funcnet.datasets.notes import naming_file, note, warn_of_classes
from funcnet.datasets.progress import Progress
from funcnet.datasets.seen_targets import SeenTargets
from funcnet.datasets.shard_files import Writer
from funcnet.datasets.splits import (
    GIVEN,
    check_fractions,
    places_by_key,
    row_keys,
    word_key,
)
from funcnet.datasets.streams import open_stream
from funcnet.datasets.table import Table, some
from funcnet.datasets.tables import ENDS, check_rule, labels_of, names_of, weights_of
from funcnet.datasets.tasks import check_task

NUMBERS = 2**23  # of examples that are encoded at once


def convert_table(
    path: str | PathLike[str],
    out: Path,
    progress: Progress,
    *,
    label: str | Sequence[str] | None,
    task: str | None,
    weight: str | None,
    form: Format,
    columns: Sequence[str] | None,
    drop: Sequence[str],
    categorical: Sequence[str],
    group: str | None,
    split_by: str | None,
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
    overwrite: bool,
) -> None:
    """`convert_dataset` of a table."""
    targets = names_of("label", label)
    check_task(task)
    columns, drop, categorical = (
        names_of(name, () if value is None else value, several=True)
        for name, value in (("columns", columns), ("drop", drop), ("categorical", categorical))
    )
    named = targets[0] if targets and targets[0] not in ENDS else None
    stream = open_stream(path, form, words=categorical, label=named, progress=progress)
    look = stream.look
    labels = labels_of(look, targets)
    seen = SeenTargets(labels, task, look.class_names)
    rule = _Rule(look, labels, group, split_by, (val_fraction, test_fraction), seed)
    besides = dict(rule.besides)
    if weight is not None:
        look.column(weight)
        besides[weight] = "the weights of examples"
    learner = Learner(
        look, labels=labels, columns=columns or None, drop=drop, categorical=categorical,
        besides=besides,
    )  # fmt: skip
    progress.start(2 * stream.rows)
    start = 0
    for part in stream.parts():
        rows = seen.add(part)
        part = part if len(rows) == part.num_rows else some(part, rows)
        if weight is not None:
            weights_of(part, weight, labels)
        train = np.flatnonzero(rule(part, start) == 0)
        learner.add(part, train, row_keys(seed, start + train, "sample"))
        start += part.num_rows
        rule.count += len(train)
    seen.finish(look.source)
    rule.check_train(start)
    encoding = learner.encoding()
    learner.note_sampled()
    if line := left_out_line(look, encoding):
        note(line)
    size = max(1, NUMBERS // max(1, len(encoding.names)))
    counts = {split: np.zeros(len(seen.class_names), np.int64) for split in SPLITS}
    found = seen.task, seen.class_names, seen.target_names, encoding
    with Writer(out, *found, overwrite=overwrite) as writer:
        total, start = start, 0
        for whole in stream.parts():
            labelled = seen.labelled(whole)
            for first in range(0, len(labelled), size):
                part = some(whole, labelled[first : first + size])
                places, y = rule(part, start), seen.of(part)
                of_splits = [np.flatnonzero(places == i) for i in range(len(SPLITS))]
                weights = None if weight is None else weights_of(part, weight, labels)
                xs = encoding.parts(part, of_splits, say=False)
                for split, rows, x in zip(SPLITS, of_splits, xs, strict=True):
                    writer.add(split, x, y[rows], None if weights is None else weights[rows])
                    if seen.task == "classification":
                        counts[split] += np.bincount(y[rows], minlength=len(seen.class_names))
                start += part.num_rows
        if start != total:
            raise ValueError(f"{look.source} has changed while it was read")
        if seen.task == "classification":
            there = {split: np.flatnonzero(count) for split, count in counts.items()}
            warn_of_classes(look.source, there, seen.class_names)


class _Rule:
    """Which split the rows of a table are in, whatever the parts that they come in.

    Attributes:
      besides: the columns that say so, and why they are left out.
      count: how many rows are to train on, as the caller counts them.
    """

    def __init__(
        self,
        look: Table,
        labels: Sequence[str],
        group: str | None,
        split_by: str | None,
        asked: tuple[float | None, float | None],
        seed: int,
    ) -> None:
        check_rule(look, group, split_by, labels)
        self._source, self._group, self._split_by, self._seed = look.source, group, split_by, seed
        self.count, self.besides = 0, {}
        if group is not None:
            look.column(group)
            self.besides = {group: "the groups of the split"}
        given: tuple[str, ...] = ()
        if split_by is not None:
            self.besides, given = {split_by: "what the data are split by"}, ("val", "test")
            column = look.column(split_by)
            odd = [word for word in column.words or () if word.lower() not in GIVEN]
            if column.words is None or odd:
                what = f"words such as {odd[0]!r}" if odd else "numbers"
                raise ValueError(
                    f"{look.source}: column {split_by!r} holds {what}; a table that is not held "
                    "is split by a column of train, val and test alone: write those into a column"
                )
        with naming_file(look.source):
            self._fractions = check_fractions(*asked, given=given)

    def __call__(self, part: Table, start: int) -> np.ndarray:
        """[N], places in SPLITS, of rows that all have a label; `start` is how many were before."""
        if self._split_by is not None:
            return self._given(part, self._split_by)
        rows = start + np.arange(part.num_rows)
        if self._group is None:
            return places_by_key(row_keys(self._seed, rows, "split"), *self._fractions)
        column = part.column(self._group).texts()
        assert column.words is not None  # texts
        of_word = [word_key(self._seed, word) for word in column.words]
        keys = np.array([*of_word, 0], np.uint64)[column.values]
        alone = column.missing
        keys[alone] = row_keys(self._seed, rows[alone], "alone")
        return places_by_key(keys, *self._fractions)

    def _given(self, part: Table, name: str) -> np.ndarray:
        column = part.column(name)
        if column.missing.any():
            row = int(np.flatnonzero(column.missing)[0])
            raise ValueError(f"{part.place(row, name)}: the cell is empty, which split is it in?")
        assert column.words is not None  # or it would have been refused
        of_word = [SPLITS.index(GIVEN[word.lower()]) for word in column.words]
        return np.array(of_word, np.int8)[column.values]

    def check_train(self, examples: int) -> None:
        """Raise a ValueError unless there are rows to train on."""
        if self.count:
            return
        if self._split_by is not None:
            raise ValueError(f"{self._source}, column {self._split_by!r}: no row is for training")
        what = checks.plural(examples, "example")
        raise ValueError(
            f"{self._source}: {what} leave none for training, as chance has it: try another seed, "
            "or smaller val_fraction and test_fraction"
        )
