"""What a report says of single examples: mistakes with their images, residuals.

The data of a run are loaded again for it, and must be those that it was trained on.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from funcnet.again import check_data, load_again
from funcnet.augment import layout_of
from funcnet.datasets.dataset import Dataset
from funcnet.datasets.registry import is_file
from funcnet.datasets.sources import STDIN
from funcnet.metrics import confusion_matrix
from funcnet.model import Model, predict_scores, probabilities
from funcnet.report.png import as_images, picture
from funcnet.report.read import Run
from funcnet.runs import run_model
from funcnet.text import one_line

MISTAKES = 24  # that are shown
EXAMPLES = 20_000  # that are looked at, at most
BYTES = 256 * 2**20  # of them, at most
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BARS = 31  # of a histogram


def examples_of(run: Run) -> dict[str, Any]:
    """What a run's model makes of the test examples, or of validation where there are none.

    Returns:
      Plain data: "missing", why there is nothing; or "split", "count", and of classes "confusion"
      and "mistakes", of regression "residuals".
    """
    what = data_name(run)
    try:
        if run.record.config.dataset == STDIN:
            return {"missing": "The data were read from standard input, and are not kept"}
        model = run_model(run.path, run.record, None)
    except (FileNotFoundError, ImportError) as error:
        return {"missing": _sentence(error, "The model is not there", run)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset = load_again(run.record.config, model)
    except (FileNotFoundError, ImportError, ValueError, OSError) as error:
        return {"missing": _sentence(error, f"The data, {what}, cannot be loaded again", run)}
    try:
        check_data(run.record, dataset, "")
    except ValueError:
        return {"missing": f"The data, {what}, have changed since the run"}
    if len(dataset.class_names) != len(run.record.facts["class_names"]):
        return {"missing": f"The data, {what}, have other classes than the run"}
    try:
        return _looked_at(run, model, dataset)
    except ValueError as error:
        return {"missing": _sentence(error, f"The model does not fit the data, {what}", run)}


def data_name(run: Run) -> str:
    """What the data of a run are called: of a file its name alone."""
    name = run.record.config.dataset
    return Path(name).name if is_file(name) and name != STDIN else name


def _sentence(error: Exception, what: str, run: Run) -> str:
    """Why something is not there, without paths that are known."""
    text = one_line(error)
    for path in (run.record.config.dataset, run.record.config.data_dir, str(run.path)):
        if path and Path(path).is_absolute():
            text = text.replace(path, Path(path).name)
    return f"{what}: {text}"


def _looked_at(run: Run, model: Model, dataset: Dataset) -> dict[str, Any]:
    split = "test" if len(dataset.x_test) else "val"
    x, y = getattr(dataset, f"x_{split}"), getattr(dataset, f"y_{split}")
    whole = len(x)
    if not whole:
        return {"missing": "The data have neither test nor validation examples"}
    row_bytes = max(1, x.dtype.itemsize * int(np.prod(x.shape[1:])))
    rows = slice(0, min(EXAMPLES, max(1, BYTES // row_bytes)))
    x, y = np.asarray(x[rows]), np.asarray(y[rows])
    found: dict[str, Any] = {"split": split, "count": len(x), "whole": whole}
    scores = predict_scores(model, x)
    if run.task == "classification":
        return found | _of_classes(run, model, x, y, scores)
    if run.task == "regression":
        return found | _of_numbers(run, model, y, scores)
    return found


def _of_classes(run: Run, model: Model, x: Any, y: Any, scores: np.ndarray) -> dict[str, Any]:
    """The confusion matrix, and the mistakes that the model was most sure of."""
    names = run.record.facts["class_names"]
    known = np.isfinite(scores).all(axis=1)
    predicted = np.where(known, scores.argmax(axis=1), -1)
    shares = probabilities(scores, model.targets)
    sure = np.where(known, shares.max(axis=1), -np.inf)
    wrong = np.flatnonzero((predicted != y) & known)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
    pictures = _pictures(x[worst], run.record.config.layout) if len(worst) else [None]
    mistakes = [
        {
            "example": int(i),
            "is": names[y[i]],
            "taken": names[predicted[i]],
            "share": float(sure[i]) if model.targets.gives_probabilities else None,
            "picture": png,
        }
        for i, png in zip(worst, pictures, strict=False)
    ]
    confusion = confusion_matrix(y, predicted, len(names)).tolist()
    return {"confusion": confusion, "mistakes": mistakes, "wrong": int((predicted != y).sum())}


def _pictures(x: np.ndarray, layout: str | None) -> list[bytes | None]:
    """Examples as pictures; None where they are no images."""
    if x.ndim not in (3, 4) or min(x.shape[1:3]) < 2:
        return [None] * len(x)
    if x.ndim == 4 and layout is None:
        try:
            layout = layout_of("report", x.shape)
        except ValueError:
            return [None] * len(x)
    images = as_images(x, layout or "CHW")
    whole = x.dtype == np.uint8 and x.max() > 100
    low, high = (0.0, 255.0) if whole else (float(images.min()), float(images.max()))
    return [picture(image, low, high) for image in images]


def _of_numbers(run: Run, model: Model, y: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Of each target how far predictions are from it: predicted less true, in its units."""
    predicted = model.targets.decode(scores, points=True)
    residuals = (predicted - y).reshape(len(y), -1)
    names = run.record.facts.get("target_names") or [
        "y" if residuals.shape[1] == 1 else f"y{k + 1}" for k in range(residuals.shape[1])
    ]
    every = zip(names, residuals.T, strict=True)
    return {"residuals": [_summary(*each) for each in every]}


def _summary(name: str, residuals: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(residuals)
    r = residuals[known]
    if not len(r):
        return {"name": name, "count": 0}
    largest = int(np.flatnonzero(known)[np.abs(r).argmax()])
    return {
        "name": name,
        "count": len(r),
        "mean": float(r.mean()),
        "rmse": float(np.sqrt((r**2).mean())),
        "mae": float(np.abs(r).mean()),
        "quantiles": [float(q) for q in np.quantile(r, QUANTILES)],
        "largest": {"example": largest, "residual": float(residuals[largest])},
        "histogram": _histogram(r),
    }


def _histogram(r: np.ndarray) -> dict[str, Any]:
    """How many residuals are where, around 0; what is further off is in the outermost bars."""
    end = float(np.quantile(np.abs(r), 0.995)) or float(np.abs(r).max()) or 1.0
    counts, edges = np.histogram(r.clip(-end, end), bins=BARS, range=(-end, end))
    return {"counts": counts.tolist(), "end": float(edges[-1])}


def confusions(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """What is taken for what, the most often first: true class, predicted class, how often."""
    pairs = [
        (names[i], names[j], count)
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])
