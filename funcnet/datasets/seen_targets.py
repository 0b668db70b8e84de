"""The targets of a table that comes in parts: of which task they are, and which classes occur."""

from collections.abc import Sequence

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import MAX_CLASSES, as_classes
from funcnet.datasets.moments import Moments
from funcnet.datasets.notes import naming_file, note
from funcnet.datasets.seen import MAX_TEXT
from funcnet.datasets.table import Column, Table, check_apart, check_finite
from funcnet.datasets.tasks import find_task, task_of_numbers


class SeenTargets:
    """What has been seen of the targets of a table; `finish` when all of it was added.

    Of one column its different values are kept, up to `MAX_CLASSES`; rows are not.

    Args:
      labels: the columns of what is predicted.
      task: the task; None finds it, and says what was not plain.
      class_names: what a first line of counts and names calls the classes.

    Attributes:
      task, class_names, target_names: as in a Dataset, once it is finished.
    """

    def __init__(
        self, labels: Sequence[str], task: str | None, class_names: tuple[str, ...] = ()
    ) -> None:
        self._labels, self._wanted, self._called = tuple(labels), task, class_names
        self._moments = {label: Moments() for label in labels}
        self._words: dict[str, int] | None = None  # the first row's, where a column is of words
        self._numbers, self._many = np.zeros(0), False
        self._example: tuple[str, str] | None = None  # a column of words, and one of these
        self._binary = self._one_hot = True
        self._odd: str | None = None  # what is neither 0 nor 1, and where
        self._total = self._count = 0
        self.task = ""
        self.class_names: tuple[str, ...] = ()
        self.target_names: tuple[str, ...] = ()

    def add(self, part: Table) -> np.ndarray:
        """Look at the next rows; returns those that have a label, indices.

        Raises:
          ValueError: a number is not finite; its place is named.
        """
        columns = [part.column(label) for label in self._labels]
        for column in columns:
            if column.words is None:
                check_finite(part, column)
                self._moments[column.name].add(column.values[~column.missing])
        rows = self.labelled(part)
        self._total += part.num_rows
        self._count += len(rows)
        if len(rows):
            self._look(part, columns, rows)
        return rows

    def labelled(self, part: Table) -> np.ndarray:
        """The rows that have a label, indices; `add` looks at them, too."""
        missing = [part.column(label).missing for label in self._labels]
        return np.flatnonzero(~np.any(missing, axis=0))

    def _look(self, part: Table, columns: list[Column], rows: np.ndarray) -> None:
        for column in columns:
            if column.words is not None and self._example is None:
                self._example = column.name, column.words[column.values[rows[0]]]
        if self._example is None:
            self._look_for_labels(part, columns, rows)
        if len(columns) > 1 or self._many:
            return
        (column,) = columns
        if column.words is None:
            self._numbers = np.union1d(self._numbers, column.values[rows])
            self._many = len(self._numbers) > MAX_CLASSES
            self._numbers = self._numbers[:MAX_CLASSES]
            return
        self._words = self._words or {}
        before = len(self._words)
        for code in np.unique(column.values[rows]):
            self._words.setdefault(column.words[code], 0)
        letters = sum(map(len, self._words)) if len(self._words) > before else 0
        self._many = len(self._words) > MAX_CLASSES or letters > MAX_TEXT

    def _look_for_labels(self, part: Table, columns: list[Column], rows: np.ndarray) -> None:
        if self._odd is not None:
            return
        values = np.stack([column.values[rows] for column in columns], axis=1)
        self._one_hot = self._one_hot and bool((values.sum(axis=1) == 1).all())
        for column, own in zip(columns, values.T, strict=True):
            if len(bad := np.flatnonzero((own != 0) & (own != 1))):
                self._binary, value = False, own[bad[0]]
                place = part.place(int(rows[bad[0]]), column.name)
                self._odd = f"{place}: multilabel wants 0 or 1, got {value:g}"
                return

    def finish(self, source: str) -> None:
        """Find the task and the classes.

        Args:
          source: what errors call the table.
        Raises:
          ValueError: they are of no task, or not of the one that is given; the column is named.
        """
        for label, numbers in self._moments.items():
            check_apart(source, label, numbers)
        if not self._count:
            raise ValueError(f"{source}: no example has a label")
        if self._count < self._total:
            count = checks.plural(self._total - self._count, "example")
            note(f"{source}: {count} without a label left out")
        self.task = self._wanted or self._found(source)
        if self.task == "classification":
            self.class_names = self._classes(source)
            return
        if self._example is not None:
            name, word = self._example
            raise ValueError(
                f"{source}: column {name!r} holds words, such as {word!r}, and {self.task} wants "
                "numbers"
            )
        if self.task == "multilabel" and self._odd is not None:
            raise ValueError(self._odd)
        if self.task == "multilabel":
            self.class_names = self._labels
        else:
            self.target_names = self._labels

    def _found(self, source: str) -> str:
        if self._example is not None or (len(self._labels) == 1 and self._called):
            return "classification"
        if len(self._labels) == 1:
            task, said = task_of_numbers(self._numbers, self._count, more=self._many)
            what = f"label {self._labels[0]!r}"
        else:
            like = np.eye(len(self._labels))  # rows as those that were seen
            if not self._one_hot or not self._binary:
                like = np.full_like(like, 0 if self._binary else 2)
            task, said = find_task(like)
            task, said = ("multilabel", None) if task == "classification" else (task, said)
            what = "the label"
        if said:
            note(f"{source}: {what} {said}")
        return task

    def _classes(self, source: str) -> tuple[str, ...]:
        if len(self._labels) > 1:
            raise ValueError(
                f"{source}: classification has one label column, got {', '.join(self._labels)}; "
                "several are regression or multilabel, with 0 and 1"
            )
        called = f"column {self._labels[0]!r}"
        if self._many:
            raise ValueError(
                f"{source}: {called} has more than {MAX_CLASSES:,} values, or very long ones: they "
                "are no classes"
            )
        with naming_file(source):
            if self._words is None:
                _, names = as_classes(self._numbers, name=called)
            else:
                every = np.array(list(self._words), object)
                y, names = as_classes(every, name=called, examples=self._count)
                self._words = dict(zip(self._words, y.tolist(), strict=True))
        same = names == tuple(map(str, range(len(self._called))))
        return self._called if same and self._called else names

    def of(self, part: Table) -> np.ndarray:
        """The targets of rows that have a label, as in a Dataset.

        Raises:
          ValueError: a label was not there before.
        """
        columns = [part.column(label) for label in self._labels]
        if self.task == "classification":
            return self._of_classes(part, columns[0])
        values = np.stack([column.values for column in columns], axis=1)
        if self.task == "multilabel":
            return values.astype(np.int32)
        return values[:, 0].copy() if len(columns) == 1 else values

    def _of_classes(self, part: Table, column: Column) -> np.ndarray:
        if column.words is None:
            places = np.searchsorted(self._numbers, column.values)
            known = self._numbers[np.minimum(places, len(self._numbers) - 1)] == column.values
        else:
            assert self._words is not None  # of one kind are all parts
            of_word = [self._words.get(word, -1) for word in column.words]
            places = np.array([*of_word, -1])[column.values]
            known = places >= 0
        if not known.all():
            raise ValueError(f"{part.source} has changed while it was read")
        return places.astype(np.int32)
