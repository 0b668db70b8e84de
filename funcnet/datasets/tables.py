"""Tables, of files or data frames, as a Dataset: which column is the label, what is split how."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from funcnet import checks
from funcnet.datasets.classes import number
from funcnet.datasets.dataset import SPLITS, Dataset, dataset_of_parts
from funcnet.datasets.dates import days, orders_of
from funcnet.datasets.delimited import FOUND, Format, read_delimited
from funcnet.datasets.encoding import Encoding
from funcnet.datasets.frames import from_file, from_frame, is_frame
from funcnet.datasets.learning import learn_encoding, left_out_line
from funcnet.datasets.notes import naming_file, note, warn_of_classes
from funcnet.datasets.sources import Source, source_of
from funcnet.datasets.splits import (
    GIVEN,
    check_fractions,
    given_split,
    repeated,
    split,
    split_groups,
    split_in_order,
    strata,
)
from funcnet.datasets.table import Column, Table, as_column, some
from funcnet.datasets.tasks import check_task, targets_of
from funcnet.text import visible

LABELS = ("target", "class", "label", "y")  # what a label column is called, in any case
ENDS = {"first": 0, "last": -1}  # where a label column may be, in a file without a header, say
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\x93NUMPY": "arrays"}


def load_table(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    task: str | None = None,
    weight: str | None = None,
    header: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    group: str | None = None,
    split_by: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    encoding: Encoding | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Load a table of examples, one a row, with a column of what is to be predicted, and split it.

    Words and few whole numbers are classes, other numbers regression, several columns regression or
    labels that hold or not; what is not plain is said in a `DataWarning`, and `task` decides.

    Numbers stay as they are; words are categories, one-hot; dates are a number and their cycles.
    Missing cells (empty, NA, NaN, null, ?) are the median, and have an indicator. Left out, with a
    `DataWarning`, are columns that nothing can be learned from: constant, row numbers, text that is
    another in nearly every row. All of this is learned from the training split alone, and is the
    dataset's `encoding`, which training passes on to the model: `predict` takes such tables.

    Without a header columns are called by their numbers, "1", "2", ....

    Args:
      data: the path of a text file (comma, semicolon, tab, bar or blanks between cells, which is
        found), of Parquet or Arrow, .gz and .zip too, or "-", standard input; or a frame of pandas,
        Polars or Arrow; or a dict of columns.
      target: the label column, by name, or "first" or "last"; or the names of several. If None the
        column named target, class, label or y, else the only one of words.
      task: "classification", "regression" or "multilabel", several labels of 0 and 1 each; None
        finds it from the targets.
      weight: a column of numbers, 0 or more, that says how much each example counts. It is left
        out.
      header: whether the first row of a text file names the columns, "yes" or "no"; None finds out.
      separator: "comma", "semicolon", "tab", "bar" or "space"; None finds out.
      decimal: what is before decimals, "point" or "comma"; None finds out.
      columns: the columns to learn from, in this order; None is all.
      drop: columns to leave out.
      categorical: columns whose numbers are categories.
      group: a column of groups, such as patients: none is in two splits. It is left out.
      split_by: a column of times, or numbers: the latest rows are for testing, those before for
        validation; or of words, train, val and test, that say it. It is left out.
      val_fraction: the fraction of examples for validation, from 0; 0.1 if None.
      test_fraction: the fraction for testing, in the same way; the rest is to train.
      seed: of the shuffle, from 0.
      encoding: what was made of another table, to be made of this one; nothing is learned then.
      class_names: the classes of another table, which labels of this one are among; () where it has
        none.
    Returns:
      A Dataset, x [N, D] float32, or float64 where that would round to their harm.
    Raises:
      FileNotFoundError: there is no such file.
      ImportError: what reads it is not installed.
      ValueError: what is wrong, with the line and the column of a file; or it has to be said which
        column is the label.
    Example:
      >>> rng = np.random.default_rng(0)
      >>> size, island = rng.normal(size=100), rng.choice(["Biscoe", "Dream"], 100)
      >>> kind = np.where(size > 0, "large", "small")
      >>> data = fn.load_table({"size": size, "island": island, "kind": kind}, "kind")
      >>> data.x_train.shape, data.class_names
      ((80, 3), ('large', 'small'))
      >>> [feature.name for feature in data.encoding.features]
      ['size', 'island']
    """
    targets = names_of("target", target)
    check_task(task)
    columns, drop, categorical = (
        names_of(name, () if value is None else value, several=True)
        for name, value in (("columns", columns), ("drop", drop), ("categorical", categorical))
    )
    check_fractions(val_fraction, test_fraction)
    seed = checks.NATURAL.check("seed", seed)
    words = tuple(categorical) if encoding is None else encoding.words
    form = Format(header, separator, decimal)
    if encoding is not None:
        form = _as_trained(form, encoding, data)
    if class_names is not None and any(number(name) is None for name in class_names):
        words = (*words, *(targets or (encoding.labels if encoding else ())))  # "01" is not "1"
    named = targets[0] if targets and targets[0] not in ENDS else None
    table = read_table(data, form, words=words, label=named)
    labels = labels_of(table, targets) if encoding is None or targets else encoding.labels
    trained_on = () if encoding is None else encoding.columns
    for label in labels:
        if label in trained_on:
            raise ValueError(
                f"{table.source}: the label, {label!r}, is a column that the network was trained "
                "on: which one is it? --label (target=) says"
            )
    found, rows = targets_of(table, labels, task, class_names)
    if len(rows) < table.num_rows:
        table = some(table, rows)
    weights = None if weight is None else weights_of(table, weight, labels)
    y = found.y[0]
    by = strata(y, found.task)
    parts, besides = _split(table, by, (val_fraction, test_fraction), seed, group, split_by, labels)
    if weight is not None:
        besides[weight] = "the weights of examples"
    if found.task == "classification":
        of_splits = dict(zip(SPLITS, [y[p] for p in parts], strict=True))
        warn_of_classes(table.source, of_splits, found.class_names)
    if encoding is None:
        encoding = learn_encoding(
            table,
            parts[0],
            labels=labels,
            columns=columns or None,
            drop=drop,
            categorical=categorical,
            besides=besides,
        )
        if line := left_out_line(table, encoding):
            note(line)
    say = class_names is not None  # it is another table than that of training
    xs, ys = encoding.parts(table, parts, say=say), [y[rows] for rows in parts]
    _note_repeated(table, encoding, parts, xs, ys)
    facts = found.class_names, encoding, found.task, found.target_names
    of_parts = [None if weights is None else weights[rows] for rows in parts]
    return dataset_of_parts(xs, ys, *facts, weights=of_parts)


def names_of(name: str, value: Any, *, several: bool = False) -> tuple[str, ...]:
    """Names of columns, each once: of a name alone, of several or of None.

    Args:
      name: what errors call them.
      value: the names.
      several: whether a name alone is refused.
    """
    if isinstance(value, str) and not several:
        return (value,)
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if value is not None and not (listed and all(isinstance(each, str) for each in value)):
        what = "a list of names of columns" if several else "the name of a column, or several"
        raise TypeError(f"{name} must be {what}, got {value!r}")
    return tuple(dict.fromkeys(value or ()))


def weights_of(table: Table, name: str, labels: Sequence[str]) -> np.ndarray:
    """The weights of the examples of a table, [N] float64, of a column.

    Raises:
      ValueError: there is no such column, or it holds something else; the place is named.
    """
    column = table.column(name)
    if name in labels:
        raise ValueError(f"{table.source}: the label, {name!r}, is no column of weights")
    if column.words is not None:
        raise ValueError(f"{table.source}: column {name!r} holds words, and no weights")
    bad = np.flatnonzero(~(np.isfinite(column.values) & (column.values >= 0)))
    if len(bad):
        raise ValueError(
            f"{table.place(int(bad[0]), name)}: a weight must be a number of 0 or more, got "
            f"{column.values[bad[0]]}"
        )
    return column.values


def _note_repeated(
    table: Table,
    encoding: Encoding,
    parts: Sequence[np.ndarray],
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
) -> None:
    """Say how many examples of other splits are in training, too.

    Text that is left out tells them apart, such as names; numbers of rows do not.
    """
    left_out = dict(encoding.left_out)
    texts = [
        column.values
        for column in table.columns
        if column.words is not None and left_out.get(column.name, "").startswith("text")
    ]
    rows = [
        (x, *(values[part] for values in texts), *(y.T if y.ndim > 1 else [y]))
        for x, part, y in zip(xs, parts, ys, strict=True)
    ]
    for name, other in zip(("validation", "test"), rows[1:], strict=True):
        if again := repeated(rows[0], other):
            what = f"{again:,} of {len(other[0]):,} {name} examples are in training, too"
            note(f"{table.source}: {what}, with the same features and label")


def read_table(
    data: Any,
    form: Format = FOUND,
    *,
    words: Sequence[str] | Callable[[int], Sequence[str]] = (),
    label: str | None = None,
    expected: Sequence[str] = (),
) -> Table:
    """The Table of what `load_table` takes; arguments as for `read_delimited`."""
    if isinstance(data, Table):
        return data
    if isinstance(data, Mapping):
        return _from_dict(data, words(len(data)) if callable(words) else words)
    if is_frame(data):
        named = words(data.shape[1]) if callable(words) else words
        return from_frame(data, "the frame", tuple(named))
    if not isinstance(data, (str, PathLike)):
        raise TypeError(
            "data must be the path of a table, a frame of pandas, Polars or Arrow, or a dict of "
            f"columns, got {type(data).__name__}"
        )
    source = source_of(data)
    kind = kind_of(source)
    if kind == "arrays" or source.suffix == ".npz":
        raise ValueError(f"{source.name} holds arrays, and no table with columns of names")
    if kind:
        if form != FOUND:
            raise ValueError(
                f"{source.name} is {kind}, whose columns have names: header, separator and decimal "
                "are for text"
            )
        return from_file(source, kind, () if callable(words) else tuple(words))
    return read_delimited(source, form, words=words, label=label, expected=expected)


def is_table(data: Any) -> bool:
    """Whether data are what `read_table` takes, rather than an array."""
    return isinstance(data, (Table, Mapping, str, PathLike)) or is_frame(data)


def kind_of(source: Source) -> str | None:
    """A value of `_MAGIC`, by how a file begins; None is another one, of text perhaps."""
    start = source.start(8)
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def inputs_of(
    data: Any, encoding: Encoding, form: Format = FOUND, words: Sequence[str] | None = None
) -> tuple[np.ndarray, Table]:
    """What a network takes of a table without labels, by what it was trained on, and the table.

    Args:
      data: as for `load_table`; a file without a header has the columns of the one that was
        trained on, in their order, the label among them or not.
      encoding: that of the model.
      form: what is said of a text file.
      words: other columns whose numbers are words.
    """
    known = (*encoding.words, *(words or ()))
    if encoding.named:
        table = read_table(data, form, words=known, expected=encoding.columns)
        return encoding(table), table
    form = _as_trained(form, encoding, data)

    def in_their_places(width: int) -> list[str]:
        names = _places(encoding, width)
        return [str(i) for i, name in enumerate(names, start=1) if name in known]

    table = read_table(data, form, words=in_their_places)
    columns = zip(table.columns, _places(encoding, len(table.columns)), strict=False)
    table = table._replace(columns=tuple(c._replace(name=name) for c, name in columns), named=False)
    return encoding(table), table


def labels_of(table: Table, targets: Sequence[str]) -> tuple[str, ...]:
    """The names of the label columns: those that are said, or what `load_table` says of None."""
    labels = tuple(dict.fromkeys(_label_of(table, target) for target in targets or (None,)))
    for label in labels:
        if f"{label} (2)" in table.names:
            raise ValueError(
                f"{table.source} has several columns {label!r}: which is the label? give each its "
                "own name"
            )
    return labels


def _label_of(table: Table, target: str | None) -> str:
    names = table.names
    if target in names:
        return str(target)
    if target in ENDS:
        return names[ENDS[str(target)]]
    if target is not None:
        return table.column(str(target)).name  # which is not there: the error says what is
    if len(names) < 2:
        raise ValueError(
            f"{table.source} has one column, needs features and a label: are cells separated by "
            "something else? --separator (separator=) says by what"
        )
    if table.class_names:
        return names[-1]
    called = [name for name in names if name.lower() in LABELS]
    texts = [column.name for column in table.columns if _may_be_label(column)]
    coordinate = [name.lower() for name in called] == ["y"] and "x" in map(str.lower, names)
    if len(called) == 1 and not (coordinate and texts):
        return called[0]
    if not called and len(texts) == 1:
        return texts[0]
    shown = visible(", ".join(names[:20])) + (", ..." if len(names) > 20 else "")
    raise ValueError(
        f"{table.source}: which column is the label? say it with --label (target=): a name, "
        f"first or last; its columns: {shown}"
    )


def _may_be_label(column: Column) -> bool:
    """Whether a column holds words, and neither dates nor another one in every row."""
    if column.words is None:
        return False
    return len(column.words) < len(column.values) and not orders_of(column.words)


def _split(
    table: Table,
    y: np.ndarray,
    asked: tuple[float | None, float | None],
    seed: int,
    group: str | None,
    split_by: str | None,
    labels: Sequence[str],
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The rows for training, validation and testing, and the columns that said which."""
    check_rule(table, group, split_by, labels)
    fractions = check_fractions(*asked)
    if group is not None:
        codes = table.column(group).texts().values.copy()
        alone = np.flatnonzero(codes < 0)
        codes[alone] = codes.max(initial=0) + 1 + np.arange(len(alone))
        with naming_file(table.source):
            return split_groups(codes, *fractions, seed), {group: "the groups of the split"}
    if split_by is None:
        with naming_file(table.source):
            return split(y, *fractions, seed), {}
    column = table.column(split_by)
    reason = {split_by: "what the data are split by"}
    if column.missing.any():
        row = int(np.flatnonzero(column.missing)[0])
        raise ValueError(f"{table.place(row, split_by)}: the cell is empty, which split is it in?")
    if column.words is not None:
        given = given_split([column.words[code] for code in column.values])
        if given is not None:
            with naming_file(table.source):
                check_fractions(*asked, given=("val", "test"))
            if not len(given[0]):
                raise ValueError(f"{table.source}, column {split_by!r}: no row is for training")
            return given, reason
    with naming_file(table.source):
        return split_in_order(_times(column), *fractions), reason


def check_rule(
    table: Table, group: str | None, split_by: str | None, labels: Sequence[str]
) -> None:
    """Raise a ValueError unless a table can be split by these columns."""
    if group is not None and split_by is not None:
        raise ValueError("give one of group and split_by: a split has one rule")
    for label in labels:
        if label in (group, split_by):
            raise ValueError(f"{table.source}: the label, {label!r}, is no column to split by")


def _times(column: Column) -> np.ndarray:
    if column.words is None:
        return column.values
    orders = orders_of(column.words)
    if len(orders) != 1:
        raise ValueError(
            f"column {column.name!r} to split by must hold numbers, dates such as 2026-11-25, or "
            f"train, val and test, got {_odd(column.words)!r}"
        )
    values = days(column.words, orders[0])
    assert values is not None
    return values[column.values]


def _odd(words: Sequence[str]) -> str:
    """The first word that names no split."""
    return next(word for word in words if word.lower() not in GIVEN)


def _from_dict(data: Mapping[Any, Any], words: Sequence[str]) -> Table:
    columns = tuple(
        as_column(str(name), values, text=str(name) in words) for name, values in data.items()
    )
    if len({column.name for column in columns}) < len(columns):
        raise ValueError(f"the dict has two columns of a name: {', '.join(map(repr, data))}")
    lengths = {len(column.values) for column in columns}
    if len(lengths) != 1:
        found = ", ".join(f"{c.name}: {len(c.values)}" for c in columns) or "none"
        raise ValueError(f"columns must be of one length, got {found}")
    return Table(columns, "the dict")


def _as_trained(form: Format, encoding: Encoding, data: Any) -> Format:
    """A text file has no header, unless it is said, if the one that was trained on had none."""
    text = isinstance(data, (str, PathLike))
    return form._replace(header="no") if text and not encoding.named and not form.header else form


def _places(encoding: Encoding, width: int) -> list[str]:
    """The names of so many columns, by their places, of a table that had no header.

    The label may be among them or not.
    """
    every = [*encoding.columns, *(name for name, _ in encoding.left_out), *encoding.labels]
    names = sorted({name for name in every if name}, key=int)
    if width == len(names) - len(encoding.labels):
        return [name for name in names if name not in encoding.labels]
    if width != len(names):
        raise ValueError(
            f"there are {width} columns, but the network was trained on {len(names)}, the label "
            "among them"
        )
    return names
