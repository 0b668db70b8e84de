"""The directory of a sweep: its configuration, its table, its members and a picture.

    config.json        what was swept
    table.csv, .json   settings and results of the members, in their order
    histories.csv      losses and accuracies of every member per epoch
    importance.csv     how much each setting mattered, if that was asked, or settings were searched
    sweep.png          a picture of the table
    best/              a run directory, of the best member
    members/           the members, as `sweep(..., checkpoint=...)` keeps them

Every file is written whole or not at all. The first and the members are there from the beginning,
so that a sweep that was interrupted, or killed, can go on; the others when it is finished.
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from funcnet import checks
from funcnet.files import naming, read_json, write_atomically
from funcnet.history import columns
from funcnet.plots.sweeps import plot_sweep
from funcnet.runs import Record, check_free, facts_of, read_config, write_csv, write_record
from funcnet.stored import lifted, stored_config
from funcnet.sweeps.guided import search_of
from funcnet.sweeps.table import RESULTS, Member, results_of, sweep_table
from funcnet.targets import MEASURES
from funcnet.text import finite, one_line
from funcnet.versions import lift, version_of


def create_sweep(path: str | os.PathLike[str], record: Record) -> Path:
    """Make the directory of a sweep, and write its configuration, its facts have "settings".

    Raises:
      FileExistsError: the directory holds something. OSError: it cannot be written.
    """
    path = Path(path)
    check_free(path)
    with naming(path):
        path.mkdir(parents=True, exist_ok=True)
    write_record(path, "sweep", record.having(status="running"))
    return path


def load_sweep_record(path: str | os.PathLike[str]) -> Record:
    """What the config.json of the directory of a sweep holds, of any version.

    Its Config is that of the first member; "settings" of its facts are dicts as they were, none
    of a search that is not finished.

    Raises:
      FileNotFoundError: there is none. ValueError: it is damaged, of a newer version or of
        something else.
    """
    return _record(*read_config(path, "sweep"))


def _record(file: Path, content: Mapping[str, Any]) -> Record:
    content = lifted("sweep", content, file)
    settings = content.get("settings")
    search = content.get("search")
    try:
        searches = search is not None and bool(search_of(search))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is damaged: its search: {one_line(error)}") from None
    settings = settings if isinstance(settings, list) else []
    if not all(map(_is_dict, settings)) or not (settings or searches):
        raise ValueError(f"{file} is damaged: it has no settings")
    halve_at, size = content.get("halve_at"), content.get("chunk_size")
    folds = content.get("folds")
    if folds is not None and not (_is_count(folds) and folds > 1):
        raise ValueError(f"{file} is damaged: folds is {checks.cut(folds)}")
    if not isinstance(halve_at, list) or not all(map(_is_count, halve_at)):
        raise ValueError(f"{file} is damaged: halve_at is {checks.cut(halve_at)}")
    if size is not None and not _is_count(size):
        raise ValueError(f"{file} is damaged: chunk_size is {checks.cut(size)}")
    config = stored_config({**content, **(settings[0] if settings else {})}, file)
    facts = facts_of(content)
    return Record(config, {**facts, "settings": [_with_tuples(each) for each in settings]})


def save_sweep(path: Path, record: Record, members: Sequence[Member]) -> None:
    """Write table, histories and picture of a sweep that is finished; config.json last."""
    rows = sweep_table(members)
    save_table(path, rows)
    lines = (
        (i, *values)
        for i, member in enumerate(members)
        for values in zip(*member.history.rows().values(), strict=True)
    )
    write_csv(path / "histories.csv", ("member", *columns(members[0].history.task)), lines)
    value = results_of(members[0].history.task)[0]
    if "fold" in rows[0]:  # the last model counts there
        value = f"final_{value}"
    if any(row[value] is not None for row in rows):
        picture = io.BytesIO()
        figure = plot_sweep(rows, value=value, title=record.facts.get("title"))
        figure.savefig(picture, format="png", dpi=120)
        write_atomically(path / "sweep.png", picture.getvalue())
    write_record(path, "sweep", record)


def save_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write table.csv and table.json."""
    names = list(rows[0])
    write_csv(path / "table.csv", names, ([row[name] for name in names] for row in rows))
    text = json.dumps(finite(rows), indent=1)
    write_atomically(path / "table.json", f"{text}\n".encode())


def save_importance(path: Path, shares: Mapping[str, float], value: str) -> None:
    """Write importance.csv, what a value went by; see `importance`."""
    lines = ((value, name, share) for name, share in shares.items())
    write_csv(path / "importance.csv", ("value", "setting", "share"), lines)


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
    rows = read_json(file)
    whole = isinstance(rows, list) and rows and all(map(_is_dict, rows))
    if not whole or not all(row.keys() == rows[0].keys() and _is_row(row) for row in rows):
        raise ValueError(f"{file} is damaged: it is no table of a sweep")
    return [_with_tuples(row) for row in lift("table", version, rows, file)]


def _with_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of their tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether a row has the columns of results, with numbers in them."""
    named = {name: value for name, value in row.items() if name in RESULTS}
    task = next((task for task in MEASURES if named.keys() >= {*results_of(task)}), None)
    numbers = [n for name, n in named.items() if name != "status"] if task else ["none"]
    small = (n is None or (isinstance(n, int | float) and abs(n) < 1e300) for n in numbers)
    return isinstance(row.get("status"), str) and all(small)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)
