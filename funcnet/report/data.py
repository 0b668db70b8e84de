"""What of runs goes into a report, as plain data: strings, numbers, lists and dicts.

Whatever it says of where something lies is taken out of it, see `funcnet.report.private`.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

import funcnet
from funcnet import checks
from funcnet.config import OPTIONS, Config
from funcnet.logs import OWN
from funcnet.report import curves, examples
from funcnet.report.private import private
from funcnet.report.read import Run, as_columns, figures_of, read_rows, read_run, task_of
from funcnet.runs import Record, read_config
from funcnet.sweeps.directory import load_sweep_record, load_table
from funcnet.sweeps.table import (
    RESULTS,
    less_is_better,
    new_member,
    ranked,
    results_of,
    sweep_table,
    varying,
)
from funcnet.targets import LESS, MEASURES
from funcnet.text import LABELS, one_line, shown
from funcnet.versions import version_of

IMPORTANCE = 400  # members that importances are told from, at most: more take minutes
CURVES = 10  # members of a sweep whose curves are shown
MACHINE = ("backend", "device", "cores")  # facts of a machine that tell nobody's name
PATHS = ("dataset", "data_dir")  # options that say where something lies


def collected(paths: Sequence[Path], *, live: bool = False) -> dict[str, Any]:
    """What a report of these directories says.

    Args:
      paths: a run, a sweep, or several runs.
      live: whether the run goes on: without what its data have to be loaded again for.
    Raises:
      FileNotFoundError: one is none. ValueError: a file is damaged, or they cannot be compared.
    """
    if not paths:
        raise ValueError("a report needs the directory of a run, such as runs/digits")
    sweeps = [path for path in paths if _is_sweep(path)]
    if sweeps and len(paths) > 1:
        raise ValueError(f"{sweeps[0]} is a sweep: a report of it is of it alone")
    if sweeps:
        return private(_of_sweep(sweeps[0]))
    names = names_of(paths)
    runs = [read_run(path, name) for path, name in zip(paths, names, strict=True)]
    if len(runs) > 1:
        return private(_of_runs(runs))
    return private(_of_run(runs[0], live=live))


def names_of(paths: Sequence[Path]) -> list[str]:
    """What directories are called: their names, with as many before them as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    if len({*parts}) < len(parts):
        again = next(path for i, path in enumerate(paths) if parts[i] in parts[:i])
        raise ValueError(f"{again} is given twice")
    for depth in range(1, 4):
        names = ["/".join(each[-depth:]) for each in parts]
        if len({*names}) == len(names):
            return names
    return [f"{i + 1}: {each[-1]}" for i, each in enumerate(parts)]


def _is_sweep(path: Path) -> bool:
    return version_of("sweep", read_config(path, "run")[1]) is not None


def _of_run(run: Run, *, live: bool) -> dict[str, Any]:
    """The report of one run."""
    report = {
        "kind": "run",
        "title": run.record.facts.get("title") or run.name,
        "status": status_line(run),
        "facts": _facts(run),
        "settings": _settings([run]),
        "plots": curves.plots_of_run(run, live=live),
        "epochs": _epochs(run, live=live),
        "environment": _environment([run.record], [run.name]),
    }
    return report if live else {**report, **_examined(run)}


def _examined(run: Run) -> dict[str, Any]:
    """What the run's model makes of examples; the confusion that was stored goes first."""
    found, of_classes = examples.examples_of(run), run.of_classes
    stored = of_classes.get("test_confusion")
    parts: dict[str, Any] = {"examples": found}
    if run.task == "classification" and (matrix := stored or found.get("confusion")):
        names = run.record.facts["class_names"]
        if _is_square(matrix, len(names)):
            split = "test" if stored else found["split"]
            parts["classes"] = {"names": names, "matrix": matrix, "split": split}
    if run.task == "multilabel" and _is_flat(f1 := of_classes.get("test_f1")):
        parts["labels"] = list(zip(run.record.facts["class_names"], f1, strict=False))
    return parts


def _is_flat(values: Any) -> TypeGuard[list[Any]]:
    return isinstance(values, list) and not any(isinstance(each, list) for each in values)


def _is_square(matrix: Any, size: int) -> bool:
    rows = matrix if isinstance(matrix, list) and len(matrix) == size else []
    return bool(rows) and all(
        isinstance(row, list) and len(row) == size and all(type(n) is int for n in row)
        for row in rows
    )


def _of_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The report of several runs, side by side."""
    shared = [m for m in MEASURES[runs[0].task] if all(m in MEASURES[run.task] for run in runs)]
    if not shared:
        other = next(run for run in runs if not {*MEASURES[run.task]} & {*MEASURES[runs[0].task]})
        raise ValueError(
            f"{runs[0].name} ({runs[0].task}) and {other.name} ({other.task}) have no measure in "
            "common: report each by itself"
        )
    names = [run.name for run in runs]
    return {
        "kind": "comparison",
        "title": f"{len(runs)} runs: {', '.join(names[:4])}{', ...' if len(runs) > 4 else ''}",
        "status": "",
        "notes": _cautions(runs),
        "facts": [],
        "settings": _settings(runs),
        "plots": curves.plots_of_runs(runs),
        "results": _results(runs, shared),
        "recall": _recall(runs),
        "environment": _environment([run.record for run in runs], names),
    }


def _cautions(runs: Sequence[Run]) -> list[str]:
    """Why not all that stands side by side can be compared."""
    found = []
    if len({run.task for run in runs}) > 1:
        found.append(
            "The tasks differ: accuracy of several labels is the share of examples all "
            "of whose labels are right."
        )
    data = {(run.record.config.dataset, run.record.facts.get("data_sha256")) for run in runs}
    if len(data) > 1:
        found.append("The runs were trained on different data, or on data that have changed.")
    if len({run.record.config.loss for run in runs}) > 1:
        found.append("The losses are of different kinds, in no relation, and are left out.")
    return found


def _of_sweep(path: Path) -> dict[str, Any]:
    """The report of a sweep."""
    record = load_sweep_record(path)
    task = task_of(record)
    notes = []
    try:
        rows = load_table(path)
    except FileNotFoundError:
        settings = record.facts["settings"]
        rows = sweep_table([new_member(each, task) for each in settings])
        notes.append("The sweep is not finished: nothing is known of its members yet.")
    best = path / "best"
    examined = {}
    if (best / "config.json").is_file():
        examined = _examined(read_run(best, "best"))
    return {
        "kind": "sweep",
        "title": record.facts.get("title") or path.name,
        "status": _sweep_status(record, rows),
        "notes": notes,
        "facts": [],
        "settings": _sweep_settings(record, rows),
        "environment": _environment([record], [path.name]),
        **(_of_members(path, record, rows, task) if rows else {}),
        **examined,
    }


def _of_members(
    path: Path, record: Record, rows: Sequence[Mapping[str, Any]], task: str
) -> dict[str, Any]:
    """What the report of a sweep says of its members; a search may have none yet."""
    value = ("final_" if "fold" in rows[0] else "") + results_of(task)[0]
    less = less_is_better(value)
    order = ranked(rows, value, less)
    return {
        "facts": _sweep_facts(record, rows, order, value),
        "plots": _sweep_plots(path, order, task),
        "members": members_of(rows, order, value, less),
        "importance": importance_of(rows, value),
    }


def members_of(
    rows: Sequence[Mapping[str, Any]],
    order: Sequence[int],
    value: str,
    less: bool,
) -> dict[str, Any]:
    """The table of the members of a sweep: columns, and rows from the best on."""
    results = [n for n in rows[0] if n in RESULTS and any(row[n] is not None for row in rows)]
    results.sort(key=lambda name: name != value)
    settings = varying(rows)
    names = ["member", *settings, *results]
    cells = [[i, *(setting(rows[i][name]) for name in names[1:])] for i in order]
    percent = [name.endswith("accuracy") for name in names]
    return {
        "columns": [words(name) for name in names],
        "percent": percent,
        "settings": len(settings),
        "rows": cells,
        "sorted": names.index(value) if value in names else 0,
        "descending": not less,
        "status": names.index("status") if "status" in names else None,
    }


def importance_of(rows: Sequence[Mapping[str, Any]], value: str) -> dict[str, Any]:
    """How much each setting mattered, or why that is not known."""
    some = list(rows)
    if len(rows) > IMPORTANCE:
        chosen = np.random.default_rng(0).choice(len(rows), IMPORTANCE, replace=False)
        some = [rows[i] for i in sorted(chosen)]
    try:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            shares = funcnet.importance(some, value=value)
    except (ImportError, TypeError, ValueError) as error:
        return {"missing": f"{one_line(error)[:1].upper()}{one_line(error)[1:]}."}
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    found = [[words(name), float(share)] for name, share in ordered]
    said = [f"told from {IMPORTANCE} of {len(rows):,} members"] if len(some) < len(rows) else []
    said += [str(note.message) for note in notes if issubclass(note.category, UserWarning)]
    return {"value": words(value), "shares": found, "notes": said}


def _sweep_status(record: Record, rows: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(row["status"] for row in rows)
    said = ", ".join(f"{counts[status]:,} {status}" for status in sorted(counts))
    how = str(record.facts.get("status") or "finished")
    alone = not rows or set(counts) == {how}  # nothing to add
    return f"{how.capitalize()}, {checks.plural(len(rows), 'member')}{'' if alone else f': {said}'}"


def _sweep_facts(
    record: Record, rows: Sequence[Mapping[str, Any]], order: Sequence[int], value: str
) -> list[list[str]]:
    best = rows[order[0]]
    if best[value] is None:
        return [["members", f"{len(rows):,}"]]
    known = sorted(row[value] for row in rows if row[value] is not None)
    found = [
        [f"best {words(value)}", shown(value, best[value])],
        [f"median {words(value)}", shown(value, float(np.median(known)))],
        ["best member", f"{order[0]:,}"],
        ["members", f"{len(rows):,}"],
    ]
    results = figures_of(record)
    return [*found, *_of_test(results)]


def _sweep_settings(record: Record, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    settings = varying(rows)
    differ = [[words(name), _range(row[name] for row in rows)] for name in settings]
    own, others = _options([record.config], leave_out=settings)
    return {"names": ["value"], "differ": differ, "own": own, "others": others}


def _range(values: Any) -> str:
    """The values of a setting in a few words."""
    seen = {str(value): value for value in values}
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in seen.values()):
        numbers = sorted(seen.values())
        if len(numbers) > 6:
            return f"{numbers[0]:.4g} to {numbers[-1]:.4g}, {len(numbers):,} values"
        return ", ".join(f"{number:.4g}" for number in numbers)
    listed = [text_of(setting(value)) for value in seen.values()]
    return ", ".join(listed[:8]) + (f", and {len(listed) - 8:,} more" if len(listed) > 8 else "")


def _sweep_plots(path: Path, order: Sequence[int], task: str) -> list[dict[str, Any]]:
    """The curves of the best members."""
    by_member: dict[int, list[dict[str, Any]]] = {i: [] for i in order[:CURVES]}
    for row in read_rows(path / "histories.csv"):
        if row.get("member") in by_member:
            by_member[int(row.pop("member"))].append(row)
    every = [as_columns(found) for found in by_member.values()]
    names = [f"member {i}" for i in by_member]
    return curves.plots_of_columns(names, every, MEASURES[task][:1])


def status_line(run: Run) -> str:
    """How a run ended, in a sentence."""
    epochs = checks.plural(run.done, "epoch")
    if run.status == "running":
        planned = run.record.config.epochs
        return f"Not finished: {run.done:,} of {planned:,} epochs; it goes on, or was cut off"
    ends = {"stopped": "Stopped early", "interrupted": "Interrupted", "diverged": "Diverged"}
    return f"{ends.get(run.status, run.status.capitalize())} after {epochs}"


def _facts(run: Run) -> list[list[str]]:
    """The figures that come first."""
    results, first = run.results, MEASURES[run.task][0]
    found = []
    if results.get(f"val_{first}") is not None:
        found.append([f"validation {LABELS[first]}", shown(first, results[f"val_{first}"])])
    if results.get("best_epoch") is not None:
        found.append(["best epoch", f"{results['best_epoch']:,} of {run.done:,}"])
    return [*found, *_of_test(results)]


def _of_test(results: Mapping[str, Any]) -> list[list[str]]:
    """What was measured on test examples, losses last."""
    found = [(name, value) for name, value in results.items() if _is_test(name, value)]
    found.sort(key=lambda each: each[0].endswith("loss"))
    return [[words(name), shown(name, value)] for name, value in found]


def _is_test(name: str, value: Any) -> bool:
    return name.startswith("test_") and isinstance(value, int | float)


def _results(runs: Sequence[Run], shared: Sequence[str]) -> dict[str, Any]:
    """What came of several runs: a row for each measure, the best of a row marked."""
    wanted = [f"val_{shared[0]}", "best_epoch", "test_loss", *(f"test_{m}" for m in shared)]
    others = {k for run in runs for k, v in run.results.items() if _is_test(k, v)}
    wanted += sorted(others - {*wanted})
    if len({run.record.config.loss for run in runs}) > 1:
        wanted.remove("test_loss")
    rows = []
    for name in wanted:
        values = [run.results.get(name) for run in runs]
        if all(value is None for value in values):
            continue
        known = [value for value in values if value is not None]
        measure = name.partition("_")[2]
        best = None if name == "best_epoch" else (min if measure in LESS else max)(known)
        cells = [["-", False] if v is None else [_figure(name, v), v == best] for v in values]
        rows.append([words(name), *cells])
    status = [[run.status, False] for run in runs]
    epochs = [[f"{run.done:,}", False] for run in runs]
    rows += [["status", *status], ["epochs done", *epochs]]
    return {"names": [run.name for run in runs], "rows": rows}


def _figure(name: str, value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else shown(name, value)


def _recall(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Recall per class of several runs, where they have the same classes."""
    classes = [run.record.facts["class_names"] for run in runs]
    recalls = [run.of_classes.get("test_recall") for run in runs]
    same = all(each == classes[0] for each in classes) and len(classes[0]) > 1
    if not same or not all(_is_flat(r) and len(r) == len(classes[0]) for r in recalls):
        return None
    of_classes = zip(*recalls, strict=True)
    rows = [[name, *each] for name, each in zip(classes[0], of_classes, strict=True)]
    return {"names": [run.name for run in runs], "rows": rows}


def _epochs(run: Run, *, live: bool) -> dict[str, Any]:
    """What was measured after each epoch."""
    names = [name for name in run.epochs if name not in OWN[1:]]
    known = [n for n in names if live or any(v is not None for v in run.epochs[n])]
    return {
        "columns": [words(name) for name in known],
        "names": known,
        "rows": [list(row) for row in zip(*(run.epochs[n] for n in known), strict=True)],
        "best": run.results.get("best_epoch"),
    }


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """The options of runs: those that differ, those that say most, and all others."""
    configs = [run.record.config for run in runs]
    texts = {name: [_option(config, name) for config in configs] for name in OPTIONS}
    differing = [name for name, values in texts.items() if len({*values}) > 1]
    own, others = _options(configs, leave_out=differing)
    differ = [[words(name), *texts[name]] for name in differing if name != "data_dir"]
    return {"names": [run.name for run in runs], "differ": differ, "own": own, "others": others}


def _options(
    configs: Sequence[Config], *, leave_out: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Options that are used most or are not as by default, and the others: name and value."""
    usual = Config()
    own: list[list[str]] = []
    others: list[list[str]] = []
    for name, known in OPTIONS.items():
        if name in leave_out or name == "data_dir":
            continue
        value = configs[0][name]
        says_most = known.group == "most used" and value not in (None, ())
        listed = own if says_most or value != usual[name] else others
        listed.append([words(name), _option(configs[0], name)])
    return own, others


def _option(config: Config, name: str) -> str:
    value = config[name]
    if name in PATHS and value is not None:
        value = Path(value).name
    return text_of(setting(value))


def setting(value: Any) -> Any:
    """A setting as a cell of a table: a number, text, or None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return value if value is None or isinstance(value, int | float) else str(value)


def text_of(value: Any) -> str:
    """A cell in words."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def words(name: str) -> str:
    """A column or an option in words."""
    split, _, measure = name.partition("_")
    if split == "final":
        return f"final {words(measure)}"
    if split in (*curves.SPLITS, "test") and measure:
        return f"{curves.SPLITS.get(split, split)} {LABELS.get(measure, measure.replace('_', ' '))}"
    return name.replace("_", " ")


def _environment(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    """What roundings go by, of each run."""
    every = [_environment_of(record) for record in records]
    keys = dict.fromkeys(key for each in every for key in each)
    rows = [[key, *(each.get(key, "-") for each in every)] for key in keys]
    return {"names": list(names), "rows": rows}


def _environment_of(record: Record) -> dict[str, str]:
    """Versions and the kind of machine, nothing that tells whose it is."""
    facts = record.facts
    found = {f"{name} version": value for name, value in (facts.get("versions") or {}).items()}
    known = facts.get("machine") or {}
    found |= {name: known[name] for name in MACHINE if name in known}
    if facts.get("recipe"):
        found["recipe"] = facts["recipe"]
    if facts.get("mesh"):
        found["devices"] = " x ".join(map(str, facts["mesh"]))
    return {name: text_of(value) for name, value in found.items()}
