"""The checkpoints of a run: what `fit` goes on from after it was cut off, to the same bits.

    epoch-00000012.safetensors   the run after 12 epochs: state, history, best model
    epoch-00000012-batch-000000003456.safetensors   and 3,456 batches of the next one
    .lock                        held while a run writes here

A checkpoint says of which data, net, optimizer and options it is, and others are refused.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnet import checks
from funcnet.bind import Bound
from funcnet.checkpoint import path_leaves, tree_like
from funcnet.datasets import Dataset
from funcnet.datasets.dataset import fingerprint
from funcnet.files import locked, naming, parse_json, remove_stale
from funcnet.layer import Layer
from funcnet.loop import machine
from funcnet.optim import Optimizer
from funcnet.preprocess import Preprocess
from funcnet.step import TrainState
from funcnet.tensors import load_tensors, save_tensors
from funcnet.text import one_line, visible
from funcnet.tree import Tree

# What checkpoints are called by what they are of.
FILES = {"run": r"epoch-\d+(-batch-\d+)?\.safetensors", "sweep": r"(members-)?\d+\.safetensors"}
SINCE = {  # what older ones do not say
    "monitor": "'val_accuracy'",
    "class_weight": "None",
    "reproducible": "None",
    "model_parallel": "None",
    "order": "'in memory'",
}
SHARE = 0.01  # of the time may be spent on checkpoints, if nobody says how often


class Best(NamedTuple):
    """The best model so far: its trees, and `epoch`, `accuracy` and `loss` in numbers."""

    params: Tree
    state: Tree
    numbers: Mapping[str, Any]


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
      train_state: the TrainState.
      columns: the History so far, arrays by name, "loss" among them.
      best: the best model, if one was measured.
      done: how many batches of the next epoch are done.
      mark: where the source of batches is.
    """

    train_state: TrainState
    columns: Mapping[str, np.ndarray]
    best: Best | None
    done: int = 0
    mark: Any = None


class Checkpoints:
    """The checkpoints in a directory that this process holds.

    Args:
      directory: the directory.
      identity: what the run is made of, texts by name: those of a checkpoint must be the same.
      every: write after every so many epochs; None as often as takes 1 % of the time.
      keep: how many of the last ones are kept.
    """

    def __init__(
        self, directory: Path, identity: Mapping[str, str], *, every: int | None, keep: int
    ) -> None:
        self._directory, self._identity = directory, dict(identity)
        self._every, self._keep = every, keep
        self._pace, self._written = Pace(), (-1, 0)

    def places(self) -> list[tuple[int, int]]:
        """Where there are checkpoints, after so many epochs and batches, the last one last."""
        there = files_in(self._directory) if self._directory.is_dir() else []
        found = (re.fullmatch(r"epoch-(\d+)(?:-batch-(\d+))?\.safetensors", p.name) for p in there)
        return sorted((int(match[1]), int(match[2] or 0)) for match in found if match)

    def load(
        self, like: TrainState, best_like: tuple[Tree, Tree], names: Sequence[str]
    ) -> Progress | None:
        """The last checkpoint; None if there is none.

        Args:
          like: a TrainState of the run, see `load_state`.
          best_like: parameters and state as its best model has them.
          names: the columns of its History.
        Raises:
          ValueError: it is damaged, or of another run: what differs is named.
        """
        places = self.places()
        if not places:
            return None
        path = self._path(places[-1])
        try:
            leaves, metadata = load_tensors(path, kind="checkpoint")
        except ValueError as error:
            before = f"from {self._path(places[-2]).name}" if len(places) > 1 else "anew"
            raise ValueError(f"{error}; without this file the run goes on {before}") from None
        facts = parse_json(metadata.get("run", ""), path)
        try:
            identity = {**SINCE, **facts["identity"]}
            check_identity(identity, self._identity, path, "run")
            train_state = tree_like(leaves, like, path, "run")
            best = None
            if facts["best"] is not None:
                params, state = tree_like(leaves, best_like, path, "best")
                best = Best(params, state, facts["best"])
            if list(facts["columns"]) != ["loss", *names]:
                raise TypeError("the columns of its history")
            columns = {name: np.array(leaves[f"history/{name}"]) for name in ("loss", *names)}
            by, done, mark = facts["by"], facts.get("done", 0), facts.get("mark")
            if done != places[-1][1] or not isinstance(done, int):
                raise TypeError("how many batches are done")
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged: it does not hold what it should ({one_line(error)})"
            ) from None
        _check_progress(facts["best"], columns, path)
        if by != made_by():
            warnings.warn(
                f"{path} was made on another machine or by another version: {by}, "
                f"here {made_by()}; from here on roundings may differ",
                stacklevel=4,
            )
        self._written = places[-1]
        return Progress(train_state, columns, best, done, mark)

    def is_due(self, epoch: int | None = None) -> bool:
        """Whether one is to be written after an epoch that is not the last; None is within one."""
        if self._every is not None:
            return epoch is not None and epoch % self._every == 0
        return self._pace.is_due()

    def save(self, epoch: int, done: int, progress: Callable[[], Progress]) -> None:
        """Write a checkpoint, and remove those that are too many.

        Args:
          epoch: the number of epochs that are done.
          done: the number of batches of the next one that are.
          progress: a function that gives the Progress then.
        Raises:
          OSError, TypeError: it cannot be written; earlier ones are left as they are.
        """
        if (epoch, done) == self._written:
            return
        with self._pace.spent():
            self._write((epoch, done), progress())
            self._written = epoch, done
            for place in self.places()[: -self._keep]:
                self._path(place).unlink(missing_ok=True)

    def _write(self, place: tuple[int, int], progress: Progress) -> None:
        leaves = path_leaves(progress.train_state, "run")
        best = None
        if progress.best is not None:
            leaves |= path_leaves(progress.best[:2], "best")
            best = dict(progress.best.numbers)
        leaves |= {f"history/{name}": column for name, column in progress.columns.items()}
        facts = {
            "identity": self._identity,
            "by": made_by(),
            "best": best,
            "columns": list(progress.columns),
            "done": progress.done,
            "mark": progress.mark,
        }
        save_tensors(self._path(place), leaves, kind="checkpoint", run=json.dumps(facts))

    def _path(self, place: tuple[int, int]) -> Path:
        epoch, done = place
        batches = f"-batch-{done:012}" if done else ""
        return self._directory / f"epoch-{epoch:08}{batches}.safetensors"


def check_options(checkpoint: Any, resume: Any, checkpoint_every: Any) -> None:
    """Raise unless these options of `fit` and `sweep` go together.

    Raises:
      ValueError, TypeError: which do not.
    """
    if checkpoint is None and (resume or checkpoint_every is not None):
        raise ValueError("resume and checkpoint_every are for checkpoint, which is None")
    if checkpoint == "":
        raise ValueError("checkpoint must be a directory, it is empty")
    if checkpoint_every is not None:
        checks.COUNT.check("checkpoint_every", checkpoint_every)


@contextlib.contextmanager
def opened(
    path: str | os.PathLike[str],
    identity: Mapping[str, str],
    *,
    resume: bool,
    every: int | None,
    keep: int,
    writes: bool = True,
) -> Iterator[Checkpoints]:
    """The Checkpoints of a directory, which is made, and is held until the end.

    If it is not this process that writes there, the directory is only looked at.

    Raises:
      FileExistsError: there are some, and they are not to be resumed, or are of something else.
      BlockingIOError: another run writes there. OSError: the directory cannot be made.
    """
    if not writes:
        yield Checkpoints(Path(path), identity, every=every, keep=keep)
        return
    with held(path, "run", resume=resume) as directory:
        yield Checkpoints(directory, identity, every=every, keep=keep)


@contextlib.contextmanager
def held(path: str | os.PathLike[str], of: str, *, resume: bool) -> Iterator[Path]:
    """A directory for checkpoints, which is made, and is held until the end; see `opened`.

    Args:
      path: the directory.
      of: of what they are, a key of FILES.
      resume: whether those that are there are to be resumed.
    """
    checks.installed("safetensors", "to write checkpoints")
    directory = Path(path)
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        remove_stale(directory)
        for other in FILES.keys() - {of}:
            if has_checkpoints(directory, other):
                raise FileExistsError(
                    f"{directory} has checkpoints of a {other}, and this is a {of}: choose another "
                    "directory"
                )
        if not resume and has_checkpoints(directory, of):
            raise FileExistsError(
                f"{directory} has checkpoints of a {of}: go on with resume=True, or choose another "
                "directory"
            )
        yield directory


@contextlib.contextmanager
def warned(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """The last time that something is written: if it cannot be, what was reached is not lost."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path} lacks the last checkpoint: {error}", stacklevel=5)


class Pace:
    """Says when to write so that it takes a small share of the time."""

    def __init__(self) -> None:
        self._due = 0.0

    def is_due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._due

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """The time that writing takes."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._due = now + (now - began) / SHARE


def check_identity(there: Mapping[str, str], here: Mapping[str, str], path: Path, of: str) -> None:
    """Raise unless a checkpoint is of what is to go on: of all texts by name.

    Raises:
      ValueError: the first that differs.
    """
    for name, mine in here.items():
        if there[name] != mine:
            was, now = _difference(there[name], mine)
            alone = ", from its state alone fit(..., train_state=...) does" if of == "run" else ""
            raise ValueError(
                f"{path} is of another {of}: its {name} is {was}, here {now}; with the same "
                f"arguments it goes on{alone}"
            )


def has_checkpoints(path: str | os.PathLike[str], *of: str) -> bool:
    """Whether there are checkpoints in a directory or its batches, of keys of FILES or of any."""
    return any(_has(directory, of or tuple(FILES)) for directory in with_batches(Path(path)))


def _has(directory: Path, of: Iterable[str]) -> bool:
    files = files_in(directory) if directory.is_dir() else []
    return any(re.fullmatch(FILES[each], file.name) for each in of for file in files)


def batch_directory(path: str | os.PathLike[str], number: int) -> Path:
    """Where in the directory of a search the members of a batch are; the first has number 1."""
    return Path(path) / f"batch-{number:04}"


def with_batches(path: Path) -> list[Path]:
    """A directory, and those of batches in it, if it is that of a search."""
    return [*sorted(path.glob("batch-*")), path]


def check_batches(path: str | os.PathLike[str]) -> None:
    """Raise a FileExistsError if a directory has checkpoints that are of no batch."""
    if _has(Path(path), FILES):
        raise FileExistsError(
            f"{path} has checkpoints of a run or a sweep, and this is a search: choose another "
            "directory"
        )


def earlier_state(path: str | os.PathLike[str], like: TrainState, before: int) -> TrainState:
    """The state of the earliest checkpoint that is kept.

    Args:
      path: the directory.
      like: a TrainState of the run, see `load_state`.
      before: the number of epochs that it must be before.
    Raises:
      ValueError: there is none, or it is damaged or of something else.
    """
    directory = Path(path)
    places = Checkpoints(directory, {}, every=None, keep=1).places()
    numbers = [epoch for epoch, done in places if not done]
    if not numbers or numbers[0] >= before:
        raise ValueError(f"{directory} has no checkpoint from before epoch {before}")
    file = directory / f"epoch-{numbers[0]:08}.safetensors"
    return tree_like(load_tensors(file, kind="checkpoint")[0], like, file, "run")


def _check_progress(best: Any, columns: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise unless these are the numbers of a `Best`, or None, and the columns of a History."""
    if best is not None and not (
        isinstance(best, dict)
        and best.keys() == {"epoch", "accuracy", "loss"}
        and all(isinstance(number, int | float) for number in best.values())
    ):
        raise ValueError(f"{path} is damaged: its best model is {checks.cut(best)}")
    check_history(columns, None if best is None else best["epoch"], path)


def check_history(columns: Mapping[str, np.ndarray], best_epoch: Any, path: Path) -> None:
    """Raise unless columns are those of a History, "loss" among them, with a row of the best epoch.

    Raises:
      ValueError: they do not go together.
    """
    shapes = {column.shape for name, column in columns.items() if name != "loss"}
    sound = columns["loss"].ndim == 1 and [len(shape) for shape in shapes] == [1]
    sound = sound and columns["epoch"].dtype.kind == "i"
    if not sound or (best_epoch is not None and best_epoch not in columns["epoch"]):
        raise ValueError(f"{path} is damaged: the columns of its history do not go together")


def files_in(directory: Path) -> list[Path]:
    """What is in a directory."""
    with naming(directory):
        return list(directory.iterdir())


def identity_of(
    net: Layer,
    optimizer: Optimizer,
    dataset: Dataset,
    preprocess: Preprocess,
    key: jax.Array,
    options: Mapping[str, Any],
) -> dict[str, str]:
    """What a run is made of, texts by name: with the same ones, another comes to the same bits."""
    return {
        "data": fingerprint(dataset),
        "key": key_text(key),
        "net": described(net),
        "optimizer": described(optimizer),
        "preprocessing": preprocess_text(preprocess),
        **{name: described(value) for name, value in options.items()},
    }


def key_text(key: jax.Array) -> str:
    """A random key as a text."""
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(key) if typed else key)
    return f"{key.dtype} {data.tolist()}"


def preprocess_text(preprocess: Preprocess) -> str:
    """A fitted preprocessing as a text."""
    stats = hashlib.sha256()
    for name, leaf in path_leaves(preprocess.stats).items():
        stats.update(f"{name} {np.asarray(leaf).dtype}".encode())
        stats.update(np.asarray(leaf).tobytes())
    return f"{preprocess.kind} {stats.hexdigest()}"


def made_by() -> dict[str, Any]:
    """By what the bits of a run are made, its program and data apart."""
    return {"jax": jax.__version__, **machine()}


def described(value: Any) -> str:
    """What a value is made of, as a text that is the same in every process."""
    if isinstance(value, Layer):
        return f"{value.kind}:{described(value.forward)}"
    if isinstance(value, Optimizer):
        return described(value.update)
    if isinstance(value, Bound):
        items = ", ".join(f"{name}={described(v)}" for name, v in value.options.items())
        return f"{_name(value.function)}({items})"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value)).removesuffix(".0")
    if isinstance(value, tuple | list):
        return f"({', '.join(map(described, value))})"
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.ndim == 0:
            return repr(array.item())
        return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()}"
    if callable(value):
        return _name(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _name(function: Any) -> str:
    found = getattr(function, "__qualname__", None)
    return found or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(function))


def _difference(there: str, here: str) -> tuple[str, str]:
    """Two texts that differ without most of what is the same in them."""
    there = visible(there)
    if max(len(there), len(here)) <= 80:
        return there, here
    start = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), 0)
    start = max([0, *(there.rfind(mark, 0, start) + 1 for mark in "(,")])
    return tuple(f"...{text[start : start + 60].strip()}..." for text in (there, here))  # type: ignore[return-value]
