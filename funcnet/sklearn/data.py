"""What people fit estimators on, as a Dataset: columns by the library's tables, labels of any kind.

X is a table: the columns of a frame as they are, those of an array x0, x1, .... What is made of
it, an Encoding, is learned on the examples to train; all columns are taken.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, check_consistent_length

from funcnet import checks
from funcnet.datasets.dataset import Dataset, checked_targets
from funcnet.datasets.encoding import Encoding
from funcnet.datasets.frames import from_frame, is_frame
from funcnet.datasets.learning import learn_encoding
from funcnet.datasets.table import Column, Table, as_column
from funcnet.weights import class_weights

ClassWeight = tuple[float, ...] | None


class Labelled(NamedTuple):
    """Examples with targets, checked.

    Attributes:
      table: the examples.
      y: [N] or [N, ...] targets as in a Dataset.
      weight: [N] float64; None is 1 each.
      task: that of the targets.
      classes: the labels of the C classes, or of K labels 0 to K - 1; of regression None.
    """

    table: Table
    y: np.ndarray
    weight: np.ndarray | None
    task: str
    classes: np.ndarray | None = None

    def rows(self, rows: np.ndarray) -> "Labelled":
        """Some of them."""
        columns = tuple(column.rows(rows) for column in self.table.columns)
        weight = None if self.weight is None else self.weight[rows]
        table = self.table._replace(columns=columns)
        return self._replace(table=table, y=self.y[rows], weight=weight)


def as_table(X: Any, estimator: Any) -> Table:
    """The table of examples: a frame of pandas, Polars or Arrow, or an array [N, D].

    Numbers may be NaN, and an array of objects may hold words.

    Raises:
      ValueError, TypeError: it is empty, infinite, sparse, complex or of another shape.
    """
    if is_frame(X):
        table = from_frame(X, "X")
        if not table.num_rows or not table.columns:
            raise ValueError(f"X has {table.num_rows} rows of {len(table.columns)} columns: empty")
        return table
    x = _checked_array(X, estimator)
    made = (lambda n, v: Column(n, v.astype(np.float64))) if x.dtype.kind in "biuf" else as_column
    return Table(tuple(made(f"x{i}", column) for i, column in enumerate(x.T)), "X")


def _checked_array(X: Any, estimator: Any) -> np.ndarray:
    options = {"ensure_all_finite": "allow-nan", "input_name": "X", "estimator": estimator}
    try:
        return check_array(X, dtype="numeric", **options)
    except ValueError:
        if hasattr(X, "toarray") or np.asarray(X).dtype.kind not in "OUST":
            raise
    return check_array(X, dtype=None, **options)  # words among them


def labelled(
    estimator: Any, X: Any, y: Any, sample_weight: Any, task: str, classes: Any = None
) -> Labelled:
    """Examples with targets for an estimator.

    Args:
      estimator: it, for errors.
      X: a frame or an array.
      y: labels [N] or [N, K], or numbers.
      sample_weight: [N], 0 or more, not all 0; or None.
      task: "classification", which 0 and 1 [N, K] make "multilabel"; or "regression".
      classes: those that are known, sorted; None finds them.
    """
    table = as_table(X, estimator)
    if task == "regression":
        y = _numbers(estimator, y)
    else:
        task, y, classes = _classes(y, classes)
    check_consistent_length(next(iter(c.values for c in table.columns)), y)
    weight = None
    if sample_weight is not None:
        weight = checks.weights(sample_weight, num_examples=len(y))
        if not weight.any():
            raise ValueError("sample_weight is zero of all examples: give one more than 0 to some")
    return Labelled(table, y, weight, task, classes)


def _numbers(estimator: Any, y: Any) -> np.ndarray:
    y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y", estimator=estimator)
    y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
    return checks.targets(y, num_examples=len(y))


def _classes(y: Any, classes: np.ndarray | None) -> tuple[str, np.ndarray, np.ndarray]:
    if hasattr(y, "toarray"):
        raise TypeError("y is sparse: give y.toarray()")
    if np.asarray(y).dtype.kind == "f":
        assert_all_finite(np.asarray(y), input_name="y")
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    if kind == "multilabel-indicator":
        y = checks.targets(np.asarray(y), num_examples=len(y), binary=True)
        if classes is not None and len(classes) != y.shape[1]:
            raise ValueError(f"y has {y.shape[1]} labels, and there are {len(classes)} classes")
        return "multilabel", y, np.arange(y.shape[1])
    if kind.endswith("multioutput"):
        raise ValueError(
            f"y is {kind}: give one label to each example, [N], or 0 and 1 of each label, [N, K]"
        )
    y = column_or_1d(y, warn=True)
    if classes is None:
        classes, places = np.unique(y, return_inverse=True)
        return "classification", places.astype(np.int32), classes
    return "classification", places_of(y, classes), classes


def places_of(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The numbers of the classes of labels [N], int32, among those that are known, sorted."""
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y has {unknown[0]!r}, none of the {len(classes)} classes of before: "
            f"{checks.cut(classes.tolist())}"
        )
    return np.searchsorted(classes, y).astype(np.int32)


def check_two_classes(train: Labelled) -> None:
    """Raise a ValueError unless there are two classes to tell apart."""
    if train.task == "classification" and train.classes is not None and len(train.classes) < 2:
        raise ValueError(
            f"y has 1 class, {train.classes.tolist()[0]!r}: to tell apart there must be 2 or more"
        )


def dataset_of(train: Labelled, val: Labelled | None, encoding: Encoding | None) -> Dataset:
    """The Dataset of examples to train and to validate; an encoding that is None is learned."""
    if encoding is None:
        rows = np.arange(train.table.num_rows)
        encoding = learn_encoding(train.table, rows, columns=train.table.names)
    x = inputs_of(train.table, encoding)
    x_val, y_val = x[:0], train.y[:0]
    if val is not None:
        x_val = inputs_of(val.table, encoding)
        width = 0 if train.classes is None else len(train.classes)
        y_val = checked_targets(val.y, "y of eval_set", train.task, len(x_val), width, train.y)
    names = () if train.classes is None else tuple(map(str, train.classes.tolist()))
    parts = x, train.y, x_val, y_val, x[:0], train.y[:0], names, encoding, train.task
    weight_val = None if val is None else val.weight
    return Dataset(*parts, weight_train=train.weight, weight_val=weight_val)


def inputs_of(table: Table, encoding: Encoding) -> np.ndarray:
    """[N, D], what a net takes of a table."""
    return encoding.parts(table, [np.arange(table.num_rows)], say=True)[0]


def class_weight_of(class_weight: Any, train: Labelled) -> ClassWeight:
    """The weight of each class, by the parameter of this name."""
    if class_weight is None:
        return None
    if train.task != "classification" or train.classes is None:
        raise ValueError(f"class_weight is for classes, and y is {train.task}: leave it None")
    if isinstance(class_weight, Mapping):
        places = {label: number for number, label in enumerate(train.classes.tolist())}
        for label in class_weight:
            if label not in places:
                known = checks.cut(train.classes.tolist())
                raise ValueError(f"class_weight has {label!r}, none of the classes {known}")
        class_weight = {places[label]: weight for label, weight in class_weight.items()}
    count = len(train.classes)
    weights = class_weights(train.y, class_weight, None, count, sample_weight=train.weight)
    return tuple(np.asarray(weights).tolist())
