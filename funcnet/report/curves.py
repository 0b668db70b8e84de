"""The curves of a report, as plain data: what is drawn, and what is said of it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from funcnet.logs import OWN
from funcnet.report.read import Columns, Run
from funcnet.targets import LESS, MEASURES
from funcnet.text import LABELS, shown

POINTS = 600  # of a curve of steps that has more than twice as many
SPLITS = {"train": "training", "val": "validation"}

Plot = dict[str, Any]


def plots_of_run(run: Run, *, live: bool = False) -> list[Plot]:
    """The loss of every step, and of each measure a plot of training and validation.

    Those of a run that goes on, live, are there before anything is measured.
    """
    steps = _steps_plot([run])
    others = [_of_run(run, measure, live=live) for measure in measures(run.epochs, run.task)]
    return [plot for plot in (steps, *others) if plot is not None]


def plots_of_runs(runs: Sequence[Run]) -> list[Plot]:
    """The loss of every step, and loss and first measures per epoch, of each run a curve."""
    names = [run.name for run in runs]
    losses = len({run.record.config.loss for run in runs}) == 1  # else they are in no relation
    shared = [m for m in MEASURES[runs[0].task] if all(m in MEASURES[run.task] for run in runs)]
    every = [run.epochs for run in runs]
    of_epochs = plots_of_columns(names, every, shared[:1], losses=losses)
    return [
        plot for plot in (*([_steps_plot(runs)] if losses else []), *of_epochs) if plot is not None
    ]


def plots_of_columns(
    names: Sequence[str],
    every: Sequence[Columns],
    of_task: Sequence[str],
    *,
    losses: bool = True,
) -> list[Plot]:
    """Of runs by name: validation loss, and the first measure of validation and of training."""
    loss = [("val", "loss")] if losses else []
    wanted = [*loss, *((split, name) for name in of_task for split in ("val", "train"))]
    plots = []
    for split, measure in wanted:
        column = f"{split}_{measure}"
        series = [
            _series(name, columns, column) for name, columns in zip(names, every, strict=True)
        ]
        plots.append(_plot(column, f"{SPLITS[split].capitalize()} {_label(measure)}", series))
    return [plot for plot in plots if plot is not None]


def measures(epochs: Columns, task: str) -> list[str]:
    """What was measured of a run: the loss, what belongs to its task, and its own."""
    named = [name.partition("_")[2] for name in epochs if name not in OWN and "_" in name]
    return list(dict.fromkeys(("loss", *MEASURES[task], *named)))


def _label(measure: str) -> str:
    return LABELS.get(measure, measure.replace("_", " "))


def _of_run(run: Run, measure: str, *, live: bool) -> Plot | None:
    names = {f"{split}_{measure}": words for split, words in SPLITS.items()}
    series = [_series(words, run.epochs, column) for column, words in names.items()]
    label = _label(measure)
    title = f"{label[0].upper()}{label[1:]} per epoch"
    return _plot(measure, title, series, live=live)


def _series(name: str, epochs: Columns, column: str) -> dict[str, Any]:
    scale = 100 if column.endswith("accuracy") else 1
    values = epochs.get(column, [])
    y = [None if value is None else scale * value for value in values]
    return {"name": name, "column": column, "x": epochs.get("epoch", []) if values else [], "y": y}


def _plot(
    name: str, title: str, series: list[dict[str, Any]], *, live: bool = False
) -> Plot | None:
    """A plot of series, with a sentence for each; None where nothing was measured."""
    if not live and not any(value is not None for each in series for value in each["y"]):
        return None
    percent = name.endswith("accuracy")
    less = name.removeprefix("val_").removeprefix("train_") in LESS
    for each in series:
        each["said"] = _said(each, name, less)
        each["last"] = _last(each, name)
    text = "; ".join(f"{each['name']}: {each['said']}" for each in series)
    unit = " %" if percent else ""
    return {"name": name, "title": title, "unit": unit, "series": series} | {
        "summary": f"{title}. {text}."
    }


def _known(series: dict[str, Any]) -> list[tuple[float, float]]:
    pairs = zip(series["x"], series["y"], strict=True)
    return [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(y)]


def _value(name: str, y: float) -> str:
    return shown(name, y / 100 if name.endswith("accuracy") else y)


def _last(series: dict[str, Any], name: str) -> str:
    known = _known(series)
    return _value(name, known[-1][1]) if known else "-"


def _said(series: dict[str, Any], name: str, less: bool) -> str:
    known = _known(series)
    if not known:
        return "not measured"
    best = (min if less else max)(known, key=lambda pair: pair[1])
    at = "at step" if name == "steps" else "after epoch"
    where = f" {at} {best[0]:g}" if name != "steps" else ""
    what = "least" if less else "most"
    return f"{what} {_value(name, best[1])}{where}, last {_value(name, known[-1][1])}"


def _steps_plot(runs: Sequence[Run]) -> Plot | None:
    """The training loss of every step, over epochs so that all plots have one axis."""
    series, widths, lost = [], [], 0
    for run in runs:
        thinned, width = thin(run.losses, POINTS)
        steps = max(1, len(run.losses)) / max(1, run.done)  # of an epoch
        name = run.name if len(runs) > 1 else "training"
        thinned["x"] = [round(x / steps, 5) for x in thinned["x"]]
        series.append({"name": name, **thinned})
        widths.append(width)
        lost += int((~np.isfinite(run.losses)).sum())
    plot = _plot("steps", "Training loss of every step", series)
    if plot is None:
        return None
    notes = []
    if any(run.record.config.reg for run in runs):
        notes.append("The L2 penalty is in it, and not in the losses per epoch")
    if max(widths) > 1:
        several = f"{max(widths):,}" if len({*widths}) == 1 else f"up to {max(widths):,}"
        notes.append(
            f"Each point is the mean of {several} steps, shaded from their least to their greatest"
        )
    if lost:
        notes.append(f"{lost:,} losses were not finite, and are left out")
    plot["note"] = "; ".join(notes)
    plot["summary"] += f" {plot['note']}." if notes else ""
    return plot


def thin(values: np.ndarray, points: int) -> tuple[dict[str, Any], int]:
    """A long series as means of neighbours with their least and greatest, which lose no peak.

    Args:
      values: [N]; those that are not finite are left out.
      points: about how many to keep, of more than twice as many.
    Returns:
      x, y and, where neighbours were joined, low and high: lists with None where nothing is
      finite, x counted from 1; and how many neighbours a point stands for.
    """
    width = 1 if len(values) <= 2 * points else -(-len(values) // points)
    found: dict[str, list[Any]] = {"x": [], "y": []}
    if width > 1:
        found |= {"low": [], "high": []}
    for start in range(0, len(values), width):
        part = values[start : start + width]
        known = part[np.isfinite(part)]
        found["x"].append(start + (1 + len(part)) / 2)
        of_part = (known.mean(), known.min(), known.max()) if len(known) else (None,) * 3
        for name, value in zip(("y", "low", "high"), of_part, strict=True):
            if name in found:
                found[name].append(None if value is None else float(f"{value:.6g}"))
    return found, width
