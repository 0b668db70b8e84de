"""A run directory: the configuration, history, parameters and curves of one training run.

    config.json        what was run, and what came of it
    log.jsonl          a row for each epoch that was measured, see `funcnet.logs`
    history.csv        losses and accuracies of these epochs
    losses.csv         the loss of every step
    best.safetensors   the best model, by validation accuracy or what --monitor says
    last.safetensors   the model after the last epoch
    curves.png         a picture of the history
    report.html        what `funcnet report` made of it, if it was asked to
    checkpoints/       what the run goes on from, see `funcnet.checkpoints`
    events.out...      with --tensorboard, what TensorBoard reads

Every file is written whole or not at all, but log.jsonl, history.csv and events, to which rows are
added while the run goes on.
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from funcnet import checks
from funcnet.checkpoint import load_model, save_model
from funcnet.checkpoints import has_checkpoints, with_batches
from funcnet.config import MODELS, Config
from funcnet.files import LOCK, locked, naming, read_json, write_atomically
from funcnet.history import History
from funcnet.layer import Layer
from funcnet.logs import EVENTS, Callback, callbacks, log_history, log_jsonl, log_tensorboard
from funcnet.model import Model
from funcnet.plots.curves import plot_history
from funcnet.recipes import build_net
from funcnet.stored import lifted, stored_config
from funcnet.text import finite
from funcnet.train import FitResult
from funcnet.versions import FACTS, stamp, version_of

__all__ = ["load_run"]

LOG = "log.jsonl"
FILES = (
    "config.json",
    LOG,
    "history.csv",
    "losses.csv",
    "best.safetensors",
    "last.safetensors",
    "curves.png",
    "report.html",
)
CHECKPOINTS = "checkpoints"
MEMBERS = "members"  # likewise of a sweep
# A list of numbers in JSON with indents, for a line of its own; no string has a line break in it.
NUMBERS = re.compile(r'\[\n([^][{}"]*)\n *\]')


class Record(NamedTuple):
    """What a config.json holds.

    Attributes:
      config: the Config.
      facts: what else there is to know of the run: title, recipe, versions, machine, class_names
        or target_names, outputs, numbers, input_shape and input_dtype of examples, data_sha256,
        status, results; of a sweep also settings, halve_at, chunk_size, folds, objectives, search.
    """

    config: Config
    facts: dict[str, Any]

    def having(self, **facts: Any) -> "Record":
        """The Record with more facts."""
        return self._replace(facts={**self.facts, **facts})


def create_run(path: str | os.PathLike[str], record: Record, *, overwrite: bool = False) -> Path:
    """Make a run directory, and write its configuration.

    Args:
      path: the directory, which must not be there, or be empty.
      record: what is run, for config.json.
      overwrite: remove the files of an older run in it.
    Raises:
      FileExistsError: the directory holds something.
      OSError: it cannot be written.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    for events in path.glob(EVENTS):
        events.unlink(missing_ok=True)
    shutil.rmtree(_aside(path), ignore_errors=True)
    with naming(path):
        path.mkdir(parents=True, exist_ok=True)
    write_record(path, "run", record.having(status="running"))
    return path


@contextlib.contextmanager
def begun(
    path: Path | None, name: str, *, overwrite: bool = False, kept: str = CHECKPOINTS
) -> Iterator[Path]:
    """The directory of a run or a sweep that begins or goes on, before it is known to be right.

    Args:
      path: the directory; None for a new one, `claim_new_run_path("runs", name)`.
      name: what a new one is called.
      overwrite: put the checkpoints of an older run in it aside; `create_run` removes them.
      kept: where in it the checkpoints are.
    Raises:
      BlockingIOError: a run writes there.
    """
    parent = Path("runs")
    made = [each for each in (path, parent if path is None else None) if each and not each.exists()]
    if path is None:
        path = claim_new_run_path(parent, name)
        made = [path, *made]
    checkpoints, aside = path / kept, _aside(path)

    def put_back() -> None:
        if aside.is_dir() and not has_checkpoints(checkpoints):
            shutil.rmtree(checkpoints, ignore_errors=True)
            aside.replace(checkpoints)

    with naming(checkpoints):
        put_back()
        if overwrite and has_checkpoints(checkpoints):
            with locked(checkpoints):  # nobody writes there
                pass
            checkpoints.replace(aside)
    try:
        yield path
    finally:
        with naming(checkpoints):
            put_back()
        with contextlib.suppress(OSError):  # it is in use, by another, or something is in it
            if checkpoints.is_dir() and not has_checkpoints(checkpoints):
                for each in with_batches(checkpoints):
                    with locked(each):
                        (each / LOCK).unlink()
                    each.rmdir()
            for each in made:
                each.rmdir()


def _aside(path: Path) -> Path:
    return path / f".{CHECKPOINTS}-before"


def check_free(path: str | os.PathLike[str], *, overwrite: bool | None = None) -> None:
    """Raise unless a run may be written to `path`: see `create_run`; None is no such option."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is there already, and is no directory")
    if path.is_dir() and not all(
        each.name in (CHECKPOINTS, MEMBERS) and not has_checkpoints(each) for each in path.iterdir()
    ):
        if not overwrite:
            hint = "" if overwrite is None else ", or give --overwrite"
            raise FileExistsError(f"{path} is there already: choose another directory{hint}")
        if not _is_run(path):
            raise FileExistsError(f"{path} is no run directory, it is not overwritten")


def new_run_path(parent: str | os.PathLike[str], name: str) -> Path:
    """The first of parent/name, parent/name-2, parent/name-3, ... that is not there."""
    path, count = Path(parent) / name, 1
    while os.path.lexists(path):  # a link that leads nowhere is in the way, too
        count += 1
        path = Path(parent) / f"{name}-{count}"
    return path


def claim_new_run_path(parent: str | os.PathLike[str], name: str) -> Path:
    """Make the directory of `new_run_path`, one that no other process makes as well."""
    while True:
        path = new_run_path(parent, name)
        with naming(path), contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path


def check_space(path: Path, model: Model) -> None:
    """Write a model and remove it: a disk that is full is better known before than after."""
    file = path / "last.safetensors"
    save_model(file, model)
    file.unlink()


def run_log(path: Path, *, tensorboard: bool = False) -> Callback:
    """What writes the log of a run, and its history, while it goes on: a callback of `fit`.

    Args:
      path: the directory, made by `create_run`, or that of a run that goes on.
      tensorboard: whether to write events for TensorBoard, too; so it is where there are some.
    Raises:
      ImportError: events are to be written, and tensorboardX is not installed.
    """
    rows = _row_logs(path)
    if tensorboard or any(path.glob(EVENTS)):
        return callbacks(rows, log_tensorboard(path))
    return rows


def _row_logs(path: Path) -> Callback:
    return callbacks(log_jsonl(path / LOG, resume=True), log_history(path / "history.csv"))


def complete_log(path: Path, result: FitResult) -> None:
    """Log the last epoch of a run, where an interrupt came between it and its row."""
    epoch, history = int(result.state.epoch), result.history
    if len(history.epoch) and history.epoch[-1] == epoch:
        losses = history.loss[len(history.loss) - len(history.loss) // max(epoch, 1) :]
        row = {name: column[-1] for name, column in history.rows().items() if name != "epoch"}
        _row_logs(path)(epoch, result.state, {"losses": losses if epoch else losses[:0], **row})


def save_run(path: Path, record: Record, result: FitResult, *, results: dict[str, Any]) -> None:
    """Write what a run has come to; config.json last, with `results` in it."""
    best, status = result.best or result.model, result.status
    save_models(path, record, result.model, best, result.history, status)
    write_record(path, "run", record.having(status=result.status, results=results))


def save_models(
    path: Path, record: Record, last: Model, best: Model, history: History, status: str
) -> None:
    """Write the models of a run, its history and its curves; status is how it ended."""
    save_model(path / "last.safetensors", last)
    save_model(path / "best.safetensors", best)
    write_history(path, history)
    picture = io.BytesIO()
    look: dict[str, Any] = {"best": getattr(best, "epoch", None), "status": status}
    figure = plot_history(history, title=record.facts.get("title"), **look)
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path / "curves.png", picture.getvalue())


def write_history(path: Path, history: History) -> None:
    """Write history.csv and losses.csv."""
    columns = history.rows()
    write_csv(path / "history.csv", list(columns), zip(*columns.values(), strict=True))
    write_csv(path / "losses.csv", ("step", "loss"), enumerate(history.loss, start=1))


def load_record(path: str | os.PathLike[str]) -> Record:
    """What the config.json of a run directory holds, of any version; see `stored_config`.

    Raises:
      FileNotFoundError: there is none. ValueError: it is damaged, of a newer version or no run's.
    """
    file, content = read_config(path, "run")
    config = stored_config(lifted("run", content, file), file)
    if config.epochs is None:
        raise ValueError(f"{file} is damaged: it has no number of epochs")
    if config.loss is None:
        raise ValueError(f"{file} is damaged: loss is None")
    record = Record(config, facts_of(content))
    names = record.facts.get("class_names")
    if not isinstance(names, list) or not (names or config.task == "regression"):
        raise ValueError(f"{file} is damaged: class_names is {checks.cut(names)}")
    return record


def read_config(path: str | os.PathLike[str], kind: str) -> tuple[Path, dict[str, Any]]:
    """The config.json of the directory of a run or a sweep, and what it holds."""
    file = Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is no {kind} directory: it has no config.json")
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not the configuration of a funcnet {kind}")
    for name, each in facts_of(content).items():
        if not isinstance(each, FACTS[name]):
            raise ValueError(f"{file} is damaged: {name} is {checks.cut(each)}")
    for known in ("class_names", "target_names"):
        if not all(isinstance(name, str) for name in content.get(known, ())):
            raise ValueError(f"{file} is damaged: its {known} are not all names")
    epochs = content.get("results", {}).get("epochs", 0)
    if type(epochs) is not int or not 0 <= epochs < 2**31:
        raise ValueError(f"{file} is damaged: the epochs in its results are no number of them")
    return file, content


def facts_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json holds besides options."""
    return {name: content[name] for name in FACTS if name in content}


def load_run(path: str | os.PathLike[str], *, model: str | None = None) -> Model:
    """The model of a run directory: `fn.predict(fn.load_run("runs/digits"), x)`.

    Args:
      path: the directory, such as runs/digits, or the `best` of a sweep.
      model: "best" or "last"; None is the one that counts for the run.
    Returns:
      The Model, its net made of the configuration.
    Raises:
      FileNotFoundError: it is no run directory, or the run has not got so far.
      ValueError: a file is damaged or of a newer version, or there is no such model.
      ImportError: safetensors is not installed.
    Example:
      >>> from funcnet.cli import main
      >>> options = ["--epochs", "1", "--quiet", "--out", "runs/digits"]
      >>> main(["train", *options])  # doctest: +ELLIPSIS
      best validation accuracy ...
      saved in runs/digits
      0
      >>> model = fn.load_run("runs/digits")
      >>> fn.predict(model, fn.load_digits().x_test).shape
      (368,)
    """
    if model is not None and model not in MODELS:
        raise ValueError(checks.unknown("model", model, MODELS))
    return run_model(path, load_record(path), model)


def run_model(path: str | os.PathLike[str], record: Record, which: str | None) -> Model:
    """The model of a run, see `load_run`, whose record is loaded."""
    outputs = record.facts.get("outputs", len(record.facts["class_names"]))
    if not 0 < outputs < 2**31:
        raise ValueError(f"{path} is damaged: its network has {outputs} outputs")
    numbers = record.facts.get("numbers", [])
    if not all(isinstance(each, int) and each >= 0 for each in numbers):
        raise ValueError(f"{path} is damaged: numbers is {checks.cut(numbers)}")
    try:
        net = build_net(record.config, outputs, numbers)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return load_run_model(path, net, which=which or record.config.model or "best")


def load_run_model(path: str | os.PathLike[str], net: Layer, *, which: str = "best") -> Model:
    """The model of a run, "best" or "last".

    Raises:
      FileNotFoundError: the run has not got so far. ValueError: the file is damaged.
    """
    file = Path(path) / f"{which}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: the run did not finish; funcnet train --resume {path} goes on"
        )
    model = load_model(file, net)
    dtypes = {str(getattr(leaf, "dtype", "a number")) for leaf in jax.tree.leaves(model.params)}
    if len(dtypes) != 1 or "float" not in min(dtypes):
        raise ValueError(f"{file} is damaged: its parameters are {', '.join(sorted(dtypes))}")
    return model


def _is_run(path: Path) -> bool:
    try:
        return version_of("run", read_config(path, "run")[1]) is not None
    except (OSError, ValueError):
        return False


def write_record(path: Path, kind: str, record: Record) -> None:
    """Write the config.json of the directory of a run or a sweep."""
    text = json.dumps(finite({**stamp(kind), **record.config, **record.facts}), indent=2)
    text = re.sub(NUMBERS, lambda found: f"[{' '.join(found[1].split())}]", text)
    write_atomically(path / "config.json", f"{text}\n".encode())


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a .csv file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(file, text.getvalue().encode())
