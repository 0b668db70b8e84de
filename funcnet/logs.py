"""Logs of a run while it goes on: callbacks of `fit` that write rows, and what reads them.

A row is what there is to say of an epoch that was measured:

    epoch, step     the numbers of epochs and of updates done
    seconds         since the run began; of one that was cut off only while it ran
    loss            the mean loss of the steps of this epoch; none before the first one
    train_loss, val_accuracy, ...      what was measured, as in `History`

For what is not here, a callback is a line. Weights & Biases, and MLflow:

    fit(..., callback=lambda *at: wandb.log(log_row(*at)))
    fit(..., callback=lambda *at: mlflow.log_metrics(log_row(*at), step=at[0]))
"""

import csv
import io
import json
import math
import os
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.files import check_writable, naming, open_file, parse_json, write_atomically
from funcnet.text import finite
from funcnet.train import is_over

__all__ = ["callbacks", "log_csv", "log_jsonl", "log_row", "log_tensorboard", "read_log"]

Row = dict[str, Any]
Callback = Callable[[int, Any, dict[str, Any]], Any]
OWN = ("epoch", "step", "seconds", "loss")  # of a row; the others are measured
EVENTS = "events.out.tfevents.*"  # files of TensorBoard


def callbacks(*functions: Callable[..., Any]) -> Callable[..., bool]:
    """Several callbacks as one: each is called in turn, and any of them ends the run.

        fit(..., callback=callbacks(log_jsonl("log.jsonl"), log_tensorboard("events"), my_own))

    Args:
      functions: callbacks of `fit`, or of `sweep`. One ends the run by True or StopIteration; those
        after it are called all the same.
    Returns:
      A callback, which gives True where one of them has ended the run.
    Raises:
      TypeError: one is no function.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> both = fn.callbacks(fn.log_jsonl("both.jsonl"), fn.log_csv("both.csv"))
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=both, **options)
      >>> len(fn.read_log("both.jsonl"))
      3
    """
    for function in functions:
        checks.function("every callback", function)

    def call(*at: Any) -> bool:
        over = [is_over(function, *at) for function in functions]
        return any(over)

    return call


def log_row(epoch: int, train_state: Any, metrics: Mapping[str, Any]) -> Row:
    """What a callback of `fit` is told, as numbers by name: a row, but for the seconds.

    Args:
      epoch, train_state, metrics: as the callback is given them.
    Returns:
      "epoch" and "step", whole numbers; "loss", the mean of the epoch's steps, NaN before the first
      one; and where they were measured "train_loss", "val_accuracy" and so on, floats.
    Example:
      >>> rows = []
      >>> def callback(epoch, train_state, metrics):
      ...     rows.append(fn.log_row(epoch, train_state, metrics))
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=callback, **options)
      >>> rows[1]["epoch"], rows[1]["step"], sorted(rows[1])
      (1, 13, ['epoch', 'loss', 'step', 'train_accuracy', 'train_loss', 'val_accuracy', 'val_loss'])
    """
    losses = metrics["losses"]
    loss = float(np.mean(losses)) if len(losses) else math.nan
    measured = {name: float(value) for name, value in metrics.items() if name != "losses"}
    return {"epoch": int(epoch), "step": int(train_state.step), "loss": loss, **measured}


def log_jsonl(path: str | os.PathLike[str], *, resume: bool = False) -> Callback:
    """A callback of `fit` that adds a row to a file after each epoch, a JSON object a line.

    A row is written at once, as a whole, and can be read from then on, by `read_log` or line by
    line; NaN is null. Epochs that are not measured have none, but where none is measured at all
    (`eval_every=None`) each has one. Should a row not be written, the disk being full, it is a
    warning, and the run goes on.

    Args:
      path: the file.
      resume: whether the run goes on with what is there, as for `fit`: rows of epochs after the one
        from which it goes on are removed, for these are trained again.
    Returns:
      The callback.
    Raises:
      FileExistsError: the file has rows, of another run perhaps, and is not to be resumed.
      ValueError: it is a link, or none to write to.
      OSError: it cannot be written when it begins.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=fn.log_jsonl("log.jsonl"), **options)
      >>> [row["epoch"] for row in fn.read_log("log.jsonl")]
      [0, 1, 2]
    """
    return _Log(path, _JSONL, resume=resume)


def log_csv(path: str | os.PathLike[str], *, resume: bool = False) -> Callback:
    """`log_jsonl` as a table: a line of names, and a line of numbers for each row; NaN is nan.

    Args:
      path, resume: as for `log_jsonl`.
    Returns:
      The callback.
    Raises:
      FileExistsError, ValueError, OSError: as for `log_jsonl`.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=fn.log_csv("log.csv"), **options)
      >>> from pathlib import Path
      >>> Path("log.csv").read_text().split(",")[:4]
      ['epoch', 'step', 'seconds', 'loss']
    """
    return _Log(path, _CSV, resume=resume)


def log_history(path: str | os.PathLike[str]) -> Callback:
    """A `log_csv` that goes on with a table of what was measured alone: a history.csv."""
    return _Log(path, _HISTORY, resume=True)


def read_log(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file of `log_jsonl`, of a run that goes on perhaps.

    Args:
      path: the file.
    Returns:
      A dict for each row, the oldest first; null is NaN. A last line without its end, that of a
      writer who is at it or was killed, is left out.
    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged: it says in which line.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=fn.log_jsonl("run.jsonl"), **options)
      >>> last = fn.read_log("run.jsonl")[-1]
      >>> last["epoch"], last["step"], int(result.state.step)
      (2, 26, 26)
    """
    found = [row for row, _ in _read_jsonl(path)]
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in found]


class _Form(NamedTuple):
    """How rows are written.

    Attributes:
      read: what a file holds: its whole lines with their rows, of a header None.
      head: the line, if any, before the first row.
      line: that of a row.
      all: whether rows of epochs of which nothing is measured may have one.
    """

    read: Callable[[Any], list[tuple[Any, bytes]]]
    head: Callable[[Row], bytes]
    line: Callable[[Row], bytes]
    all: bool = True


def _lines(path: str | os.PathLike[str]) -> list[bytes]:
    """The lines of a file, but a last one without an end."""
    with open_file(path) as file:
        return [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]


def _read_jsonl(path: str | os.PathLike[str]) -> list[tuple[Any, bytes]]:
    found = []
    for number, line in enumerate(_lines(path), start=1):
        where = f"line {number} of {path}"
        row = parse_json(line, where)
        if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
            raise ValueError(f"{where} is no row of a log: {checks.cut(row)}")
        found.append((row, line))
    return found


def _read_csv(path: str | os.PathLike[str]) -> list[tuple[Any, bytes]]:
    names: list[str] = []
    found: list[tuple[Any, bytes]] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            (cells,) = csv.reader([line.decode()])
            if number == 1:
                names = cells
                found.append((None, line))
                continue
            row: Row = {name: float(cell) for name, cell in zip(names, cells, strict=True)}
            found.append(({**row, "epoch": int(row["epoch"])}, line))
        except (ValueError, KeyError, csv.Error):
            raise ValueError(f"line {number} of {path} is no row of a log") from None
    return found


def _as_jsonl(row: Row) -> bytes:
    return f"{json.dumps(finite(row))}\n".encode()


def _as_csv(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _measured(row: Row) -> Row:
    return {name: value for name, value in row.items() if name == "epoch" or name not in OWN}


_JSONL = _Form(_read_jsonl, lambda row: b"", _as_jsonl)
_CSV = _Form(_read_csv, _as_csv, lambda row: _as_csv(row.values()))
_HISTORY = _Form(
    _read_csv,
    lambda row: _as_csv(_measured(row)),
    lambda row: _as_csv(_measured(row).values()),
    all=False,
)


class _Log:
    """A file of rows; a callback of `fit`.

    Args:
      path: the file.
      form: how rows are written.
      resume: whether it goes on with what is there.
    """

    def __init__(self, path: str | os.PathLike[str], form: _Form, *, resume: bool) -> None:
        self._path, self._form, self._resume = Path(path), form, resume
        self._began: float | None = None  # when it would have, had it not been cut off
        self._each, self._is_new = False, True
        self._head = b""  # the line of names that is there, if any
        self._lacking: set[str] = set()  # names that are not in it, as was said
        check_writable(self._path)
        if not resume and self._path.is_file() and self._path.stat().st_size:
            raise self._refused()

    def __call__(self, epoch: int, train_state: Any, metrics: Mapping[str, Any]) -> None:
        own = log_row(epoch, train_state, metrics)
        measured = _measured(own).keys() > {"epoch"}
        if (self._began is None or not len(metrics["losses"])) and self._begin(epoch, measured):
            return  # it has this row
        if not measured and not (self._each and self._form.all):
            return
        assert self._began is not None
        passed = round(time.perf_counter() - self._began, 3)
        row = {"epoch": own.pop("epoch"), "step": own.pop("step"), "seconds": passed, **own}
        text = self._form.head(row) if self._is_new else b""
        text += self._form.line(self._fitted(row))
        try:
            _append(self._path, text)
        except OSError as error:
            warnings.warn(f"{error}; it lacks the row of epoch {epoch}", stacklevel=2)
        else:
            self._is_new = False

    def _fitted(self, row: Row) -> Row:
        """The row, with the columns that the file has; a warning says once which it has not."""
        if self._is_new or self._head in (b"", self._form.head(row)):
            return row
        (names,) = csv.reader([self._head.decode()])
        others = [name for name in row if name not in {*names, *OWN, *self._lacking}]
        if others:
            self._lacking.update(others)
            text = f"{self._path} goes on with its own columns, and lacks {', '.join(others)}"
            warnings.warn(text, stacklevel=3)
        return {name: row.get(name, math.nan) for name in names}

    def _begin(self, epoch: int, measured: bool) -> bool:
        """Begin, or go on, after an epoch: whether this one has its row already."""
        there = self._path.is_file()
        lines = self._form.read(self._path) if there else []
        kept = [(row, line) for row, line in lines if row is None or row["epoch"] <= epoch]
        rows = [row for row, _ in kept if row is not None]
        if not self._resume and (len(kept) < len(lines) or (lines and self._began is None)):
            raise self._refused()
        if not rows:
            kept = []  # the header is written with the first row
        data = b"".join(line for _, line in kept)
        if not there or self._path.stat().st_size != len(data):
            write_atomically(self._path, data)
        self._is_new = not rows
        self._head = kept[0][1] if kept and kept[0][0] is None else b""
        self._each = not measured and not any(_measured(row).keys() > {"epoch"} for row in rows)
        before = rows[-1].get("seconds") if rows else None
        self._began = time.perf_counter() - (before or 0.0)
        return bool(rows) and rows[-1]["epoch"] == epoch

    def _refused(self) -> FileExistsError:
        return FileExistsError(
            f"{self._path} has rows already: choose another file, remove it, or give resume=True "
            "to go on with them"
        )


def _append(path: Path, data: bytes) -> None:
    """Add to a file, all or nothing."""
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, data)  # at once: nobody reads half a line
                while written < len(data):  # the disk is full, as the next call says
                    written += os.write(descriptor, data[written:])
            except BaseException:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def log_tensorboard(directory: str | os.PathLike[str]) -> Callback:
    """A callback of `fit` that writes what TensorBoard shows: `tensorboard --logdir DIRECTORY`.

    The loss of every step is `step_loss`; the others are the names of a row, one value for each
    epoch. All are over the number of updates done. Of a run that goes on after it was cut off, what
    was written of later steps is marked so that TensorBoard does not show it.

    Args:
      directory: where the file of events is, which is made if it is not there. Each process writes
        a file of its own.
    Returns:
      The callback.
    Raises:
      ImportError: tensorboardX is not installed.
    Example:
      >>> import os
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
      >>> log = fn.log_tensorboard("events")
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=log, **options)
      >>> [name.split(".")[0] for name in os.listdir("events")]
      ['events']
    """
    checks.installed("tensorboardX", "to write files for TensorBoard", "tensorboard")
    return _Events(Path(directory))


class _Events:
    """A file of events; a callback of `fit`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = None
        self._goes_on = any(directory.glob(EVENTS))

    def __call__(self, epoch: int, train_state: Any, metrics: Mapping[str, Any]) -> None:
        row, losses = log_row(epoch, train_state, metrics), metrics["losses"]
        step = row.pop("step")
        if self._writer is None:
            self._writer = self._opened(step)
        first, again = step - len(losses) + 1, not len(losses) and step > 0 and self._goes_on
        values = [(at, {"step_loss": loss}) for at, loss in enumerate(losses, start=first)]
        values += [(step, {k: v for k, v in row.items() if math.isfinite(v)})]
        try:
            if not again:  # it begins from a state of which all has been written
                for at, scalars in values:
                    self._write(at, scalars)
            self._writer.flush()
            self._goes_on = True
        except OSError as error:
            where = f"{self._directory}: {error.strerror}"
            warnings.warn(f"{where}; TensorBoard lacks epoch {epoch}", stacklevel=2)

    def _opened(self, step: int) -> Any:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        with naming(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            own = f".{time.time_ns()}.{os.getpid()}"  # they are read in the order of their names
            writer = EventsWriter(str(self._directory / "events"), own)
        start = SessionLog(status=SessionLog.START)  # steps from here on are not those of before
        writer.write_event(
            Event(step=step + 1 if step else 0, session_log=start, wall_time=time.time())
        )
        weakref.finalize(self, writer.close)
        return writer

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        event = Event(step=step, summary=Summary(value=values), wall_time=time.time())
        self._writer.write_event(event)
