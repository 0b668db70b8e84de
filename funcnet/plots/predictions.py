"""Pictures of predictions beside what is true: confusion, residuals, reliability."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.metrics import calibration_error, reliability
from funcnet.plots.figures import (
    BLUE,
    NAME,
    NONE,
    axes_for,
    contrast,
    label_axes,
    named,
    new_figure,
    number_text,
    write_ticks,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_confusion_matrix", "plot_reliability", "plot_residuals"]

CLASSES = 200  # that a confusion matrix is drawn of
WRITTEN = 25  # up to so many classes the counts are written
POINTS = 5000  # up to so many residuals are points of their own


def plot_confusion_matrix(
    confusion: Any, class_names: Sequence[str] | None = None, *, axes: "Axes | None" = None
) -> "Axes":
    """How often each class was predicted for each: a row for each true class.

    Colours are shares of the row, so that rare classes are seen as frequent ones are, on a scale
    of their roots; the numbers are counts, which of more than 25 classes are left out. A class
    without examples is a grey row.

    Alternative text: "A table of true classes by predicted ones; the diagonal, what is right, is
    light, and few other cells have examples."

    Args:
      confusion: [C, C] counts, as `confusion_matrix` gives.
      class_names: C names; None is their numbers.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: it is no square matrix of counts, of 200 classes at most, or has other names.
    Example:
      >>> confusion = fn.confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
      >>> axes = fn.plot_confusion_matrix(confusion, ["cat", "dog"])
      >>> [label.get_text() for label in axes.get_xticklabels()]
      ['cat', 'dog']
    """
    counts = _counts(confusion)
    names = [str(i) for i in range(len(counts))] if class_names is None else list(class_names)
    if len(names) != len(counts):
        raise ValueError(f"class_names has {len(names)} names for {len(counts)} classes")
    side = float(np.clip(0.42 * len(counts), 3, 13))
    room = 0.08 * min(NAME, max(len(str(name)) for name in names))  # inches, of the names
    axes = axes_for(axes, (side + 1.9 + room, side + 0.9 + room))
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    axes.grid(visible=False)
    axes.set_facecolor(NONE)
    from matplotlib.colors import PowerNorm

    # Roots, so that a class of which 1 % are mistaken differs from one of which none are.
    image = axes.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, 0, 100))
    places = range(len(counts))
    write_ticks(axes, "x", places, names)
    write_ticks(axes, "y", places, names)
    label_axes(axes, "Predicted class", "True class")
    grey = "\ngrey: no example" if (totals == 0).any() else ""
    axes.figure.colorbar(image, ax=axes, shrink=0.8).set_label(f"Share of the true class (%){grey}")
    if len(counts) <= WRITTEN:
        size = float(np.clip(72 * side / len(counts) / (0.7 * len(f"{counts.max():,}")), 4, 10))
        for i, j in np.argwhere(counts):
            color = contrast(image.to_rgba(shares[i, j]))
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
            axes.text(j, i, f"{counts[i, j]:,}", color=color, **look)
    return axes


def _counts(confusion: Any) -> np.ndarray:
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(
            f"confusion must be [C, C], as confusion_matrix gives, got {list(counts.shape)}"
        )
    if len(counts) > CLASSES:
        raise ValueError(
            f"confusion is of {len(counts):,} classes, of which {CLASSES} can be drawn: choose "
            "some, such as those with the most mistakes, confusion[np.ix_(some, some)]"
        )
    if counts.dtype.kind not in "biuf" or not (counts >= 0).all() or (counts % 1 != 0).any():
        raise ValueError(
            "confusion must hold counts, whole numbers from 0, as confusion_matrix gives"
        )
    return counts.astype(np.int64)


def plot_residuals(
    y: Any,
    predictions: Any,
    *,
    name: str = "y",
    unit: str | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """What predictions of numbers are off by, over what is predicted.

    Good ones are a band around 0, as wide on the left as on the right. Of more than 5,000 the
    colours of six-sided cells say how many lie there.

    Alternative text: "Points around a line at 0: what predictions are too large or too small by,
    over the prediction; the spread grows to the right."

    Args:
      y: [N] or [N, 1] numbers.
      predictions: the same, as `predict` gives.
      name: of what is predicted, for the axes.
      unit: its unit, for the axes.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: they are not finite, not equally many, or of several targets: choose one, `y[:,
        0]`.
    Example:
      >>> y, predictions = np.array([1.0, 2.0, 3.0]), np.array([1.1, 1.9, 3.2])
      >>> axes = fn.plot_residuals(y, predictions, name="distance", unit="m")
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('Predicted distance (m)', 'Predicted less true distance (m)')
    """
    y, predictions = _one_target(y, "y"), _one_target(predictions, "predictions")
    if y.shape != predictions.shape:
        raise ValueError(f"y has {len(y):,} numbers, predictions {len(predictions):,}")
    axes = axes_for(axes, (7, 4.5))
    residuals = predictions - y
    error = np.sqrt(np.mean(residuals**2))
    if len(y) <= POINTS:
        look: dict[str, Any] = {"s": 14, "alpha": float(np.clip(400 / len(y), 0.3, 0.9))}
        axes.scatter(predictions, residuals, color=BLUE, linewidths=0, **look)
    else:
        cells = axes.hexbin(
            predictions, residuals, gridsize=50, bins="log", cmap="cividis", mincnt=1
        )
        axes.figure.colorbar(cells, ax=axes).set_label("Examples (log scale)")
    axes.axhline(0, color="black", linewidth=1)
    for side in (-error, error):
        label = f"RMSE {number_text(error)}" if side > 0 else None
        axes.axhline(side, color="black", linestyle="--", linewidth=1, label=label)
    axes.plot([], [], ls="none", label=f"mean of the errors {number_text(residuals.mean())}")
    of = f" ({unit})" if unit else ""
    label_axes(axes, f"Predicted {name}{of}", f"Predicted less true {name}{of}")
    named(axes, loc="best" if len(y) <= POINTS else "upper right")
    return axes


def _one_target(values: Any, name: str) -> np.ndarray:
    """[N] numbers of [N] or [N, 1]."""
    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] > 1:
        raise ValueError(f"{name} has {found.shape[1]} targets: choose one, {name}[:, 0]")
    if not found.size:
        raise ValueError(f"{name} is empty: there is nothing to plot")
    return checks.targets(found, num_examples=len(found), name=name).reshape(-1)


def plot_reliability(
    y: Any, probabilities: Any, *, bins: int = 15, title: str | None = None
) -> "Figure":
    """How often predictions of a probability are right: on the diagonal they are as they say.

    Alternative text: "Accuracy over the probability of what is predicted, near the diagonal, and
    below it bars: the share of examples at each probability, most of them near 1."

    Args:
      y: [N] labels.
      probabilities: [N, C], as `predict_proba` gives.
      bins: of the probability of what is predicted, from 0 to 1.
      title: a line above the picture.
    Returns:
      A matplotlib Figure: accuracy over probability, and below it how many examples are where; with
      the `calibration_error`.
    Raises:
      ValueError: these are no labels and probabilities of them, or bins is below 1.
    Example:
      >>> y, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
      >>> figure = fn.plot_reliability(y, probabilities)
      >>> figure.axes[0].get_ylabel()
      'Accuracy'
    """
    shares, confidence, right = reliability(y, probabilities, bins=bins)
    error = calibration_error(y, probabilities, bins=bins)
    figure, (axes, counts) = new_figure(2, 1, (5, 6))
    edges = np.linspace(0, 1, bins + 1)
    known = shares > 0
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="as they say")
    label = f"calibration error {100 * error:.1f} %"
    axes.plot(confidence[known], right[known], marker="o", ms=4, color=BLUE, label=label)
    axes.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="best")
    counts.bar(
        edges[:-1], 100 * shares, width=1 / bins, align="edge", edgecolor="white", color=BLUE
    )
    counts.set(xlabel="Probability of what is predicted", ylabel="Examples (%)", xlim=(0, 1))
    write_title(figure, title)
    return figure
