"""Pictures of predictions."""

from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.metrics import calibration_error, reliability
from funcnet.plots.figures import new_figure, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_reliability"]


def plot_reliability(
    y: Any, probabilities: Any, *, bins: int = 15, title: str | None = None
) -> "Figure":
    """How often predictions of a probability are right: on the diagonal they are as they say.

    Args:
      y: [N] labels.
      probabilities: [N, C], as `predict_proba` gives.
      bins: of the probability of what is predicted, from 0 to 1.
      title: a line above the picture.
    Returns:
      A matplotlib Figure: accuracy over probability, and below it how many examples are where; with
      the `calibration_error`.
    """
    shares, confidence, right = reliability(y, probabilities, bins=bins)
    error = calibration_error(y, probabilities, bins=bins)
    figure, (axes, counts) = new_figure(2, 1, (5, 6))
    edges = np.linspace(0, 1, bins + 1)
    known = shares > 0
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="as they say")
    label = f"calibration error {100 * error:.1f} %"
    axes.plot(confidence[known], right[known], marker="o", ms=4, label=label)
    axes.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="best")
    counts.bar(edges[:-1], 100 * shares, width=1 / bins, align="edge", edgecolor="white")
    counts.set(xlabel="Probability of what is predicted", ylabel="Examples (%)", xlim=(0, 1))
    write_title(figure, title)
    return figure
