"""The directory of a sweep: its configuration, its table, its members and a picture.

    config.json        what was swept
    table.csv, .json   settings and results of the members, in their order
    histories.csv      losses and accuracies of every member per epoch
    sweep.png          a picture of the table
    best/              a run directory, of the member with the best validation accuracy
    members/           a file for each member: history, best parameters, and what it takes to go on

Every file is written whole or not at all. The first and the members are there from the beginning,
so that a sweep that was interrupted, or killed, can go on; the others when it is finished.
"""

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from funcnet.config import lifted, stored_config
from funcnet.files import naming, write_atomically
from funcnet.layer import Layer
from funcnet.model import BestModel
from funcnet.plots import plot_sweep
from funcnet.preprocess import Preprocess
from funcnet.runs import Record, check_free, facts_of, read_config, write_csv, write_record
from funcnet.step import TrainState
from funcnet.sweeps.search import member_key
from funcnet.sweeps.table import RESULTS, STATUSES, Member, new_member, sweep_table
from funcnet.tensors import load_tensors, nest, save_tensors, tree_leaves
from funcnet.text import finite
from funcnet.train import COLUMNS, History
from funcnet.tree import FrozenDict
from funcnet.versions import lift, version_of


def create_sweep(path: str | os.PathLike[str], record: Record) -> Path:
    """Make the directory of a sweep, and write its configuration, its facts have "settings".

    Raises:
      FileExistsError: the directory holds something. OSError: it cannot be written.
    """
    path = Path(path)
    check_free(path)
    with naming(path):
        (path / "members").mkdir(parents=True, exist_ok=True)
    write_record(path, "sweep", record.having(status="running"))
    return path


def load_sweep_record(path: str | os.PathLike[str]) -> Record:
    """What the config.json of the directory of a sweep holds, of any version.

    Its Config is that of the first member; "settings" of its facts are dicts as they were.

    Raises:
      FileNotFoundError: there is none. ValueError: it is damaged, of a newer version or of
        something else.
    """
    return _record(*read_config(path, "sweep"))


def _record(file: Path, content: Mapping[str, Any]) -> Record:
    content = lifted("sweep", content, file)
    settings = content.get("settings")
    if not isinstance(settings, list) or not settings or not all(map(_is_dict, settings)):
        raise ValueError(f"{file} is damaged: it has no settings")
    config = stored_config({**content, **settings[0]}, file)
    facts = facts_of(content)
    return Record(config, {**facts, "settings": [_with_tuples(each) for each in settings]})


def save_members(path: Path, members: Sequence[Member], saved: dict[int, int]) -> dict[int, int]:
    """Write the members that have changed since they were saved.

    Args:
      path: the directory of the sweep.
      members: all of them.
      saved: their `progress` when they were saved; {} if they were not.
    Returns:
      Their `progress` now.
    """
    now = progress(members)
    for i, number in now.items():
        if saved.get(i) != number:
            _save_member(path / "members" / f"{i}.safetensors", members[i])
    return now


def progress(members: Sequence[Member]) -> dict[int, int]:
    """For each member that was begun a number that changes whenever its file must."""
    return {
        i: len(STATUSES) * member.epochs + STATUSES.index(member.status)
        for i, member in enumerate(members)
        if member.epochs
    }


def load_members(
    path: Path,
    settings: Sequence[Mapping[str, Any]],
    make_net: Callable[[Mapping[str, Any]], Layer],
    preprocess: Preprocess,
) -> tuple[Member, ...]:
    """The members of the sweep in a directory, as far as they were saved.

    Args:
      path: the directory.
      settings: the settings of all members.
      make_net: a function that gives the net for settings.
      preprocess: the fitted preprocessing of all of them.
    Returns:
      Members for `sweep(..., members=...)`; their `model` is None.
    Raises:
      ValueError: a file is damaged. OSError: it cannot be read.
    """
    members = []
    for i, each in enumerate(settings):
        file = path / "members" / f"{i}.safetensors"
        found = file.is_file()
        net = make_net(each)
        members.append(_load_member(file, each, net, preprocess) if found else new_member(each))
    return tuple(members)


def save_sweep(path: Path, record: Record, members: Sequence[Member]) -> None:
    """Write table, histories and picture of a sweep that is finished; config.json last."""
    rows = sweep_table(members)
    save_table(path, rows)
    lines = (
        (i, *values)
        for i, member in enumerate(members)
        for values in zip(*member.history.rows().values(), strict=True)
    )
    write_csv(path / "histories.csv", ("member", *COLUMNS), lines)
    if any(row["val_accuracy"] is not None for row in rows):
        picture = io.BytesIO()
        plot_sweep(rows, title=record.facts.get("title")).savefig(picture, format="png", dpi=120)
        write_atomically(path / "sweep.png", picture.getvalue())
    write_record(path, "sweep", record)


def save_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write table.csv and table.json."""
    names = list(rows[0])
    write_csv(path / "table.csv", names, ([row[name] for name in names] for row in rows))
    clean = [{name: finite(value) for name, value in row.items()} for row in rows]
    write_atomically(path / "table.json", f"{json.dumps(clean, indent=1)}\n".encode())


def load_table(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The table of a finished sweep, as `sweep_table` gave it.

    Raises:
      FileNotFoundError: the sweep did not finish. ValueError: the file is damaged.
    """
    config_file, content = read_config(path, "sweep")
    _record(config_file, content)  # it is sound
    version = version_of("sweep", content)
    assert version is not None
    file = Path(path) / "table.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: the sweep did not finish; funcnet sweep resume {path}"
        )
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    whole = isinstance(rows, list) and rows and all(map(_is_dict, rows))
    if not whole or not all(set(RESULTS) <= set(row) for row in rows):
        raise ValueError(f"{file} is damaged: it is no table of a sweep")
    return [_with_tuples(row) for row in lift("table", version, rows, file)]


def _save_member(file: Path, member: Member) -> None:
    numbers = {"epochs": member.epochs, "status": STATUSES.index(member.status)}
    trees: dict[str, Any] = {"history": member.history._asdict(), "numbers": numbers}
    best, state = member.best, member.state
    if best is not None:
        measured = {"epoch": best.epoch, "accuracy": best.accuracy, "loss": best.loss}
        trees["best"] = {"params": best.params, "state": best.state, "numbers": measured}
    if state is not None:
        trees["run"] = {
            name: getattr(state, name) for name in ("params", "state", "opt_state", "step", "epoch")
        }
    save_tensors(file, tree_leaves(trees), kind="member")


def _load_member(
    file: Path, settings: Mapping[str, Any], net: Layer, preprocess: Preprocess
) -> Member:
    tensors, _ = load_tensors(file, kind="member")
    try:
        columns = {name: tensors[f"history/{name}"] for name in ("loss", *COLUMNS)}
        history = History(**columns, metrics={})
        epochs = int(tensors["numbers/epochs"])
        status = STATUSES[int(tensors["numbers/status"])]
        trees = nest({k: v for k, v in tensors.items() if k.startswith(("best/", "run/"))})
        best = state = None
        if "best" in trees:
            best = BestModel(
                net,
                trees["best"]["params"],
                trees["best"].get("state", FrozenDict()),
                preprocess,
                int(tensors["best/numbers/epoch"]),
                float(tensors["best/numbers/accuracy"]),
                float(tensors["best/numbers/loss"]),
            )
        if "run" in trees:
            run = trees["run"]
            run_key = jax.random.split(member_key(None, settings))[1]
            trees_of_run = run["params"], run.get("state", FrozenDict()), run["opt_state"]
            state = TrainState(*trees_of_run, run_key, run["step"], run["epoch"])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    return Member(dict(settings), status, epochs, None, best, history, state)


def _with_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of their tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)
