"""Pictures of gradients: of their checks."""

from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.gradcheck import GradientCheck
from funcnet.plots.figures import (
    BLUE,
    ORANGE,
    VERMILLION,
    axes_for,
    inches_of,
    label_axes,
    named,
    write_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_gradient_check"]

LEAVES = 300  # that a check is drawn of
FLOOR = 1e-18  # what a smaller error, such as none at all, is drawn as


def plot_gradient_check(check: GradientCheck, *, axes: "Axes | None" = None) -> "Axes":
    """The worst error of each leaf, against autodiff and numerically, and what is allowed.

    It is what `print(check)` says, as a picture: points right of their line disagree, and are drawn
    as crosses; so is what is not a number, at the right end.

    Alternative text: "A row for each parameter with two points on a logarithmic axis of errors,
    both left of the dashed lines of what is allowed."

    Args:
      check: what `check_gradients` returns.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: there are no leaves, or more than 300.
      TypeError: check is not what `check_gradients` returns.
    Example:
      >>> net, x, y = fn.mlp([4], 2), np.ones((5, 3), "f"), np.array([0, 1, 1, 0, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> axes = fn.plot_gradient_check(fn.check_gradients(net, params, state, x, y))
      >>> [label.get_text() for label in axes.get_yticklabels()]
      ['input x', 'affine2/w', 'affine2/b', 'affine1/w', 'affine1/b']
    """
    if not isinstance(check, GradientCheck):
        raise TypeError(f"check must be what check_gradients returns, got {checks.cut(check)}")
    rows = check.rows[::-1]  # the first one on top
    if not 0 < len(rows) <= LEAVES:
        raise ValueError(
            f"check has {checks.plural(len(rows), 'row')}, of which 1 to {LEAVES} can be drawn: "
            "print(check) lists them, check._replace(rows=check.rows[:100]) has some"
        )
    axes = axes_for(axes, (7, float(np.clip(0.3 * len(rows) + 1.6, 2.5, 20))))
    against = (
        ("autodiff", [row.autodiff for row in rows], check.tol_autodiff, BLUE, "o", "--"),
        ("numerical", [row.beyond_rounding for row in rows], check.tol_numerical, ORANGE, "s", ":"),
    )
    errors = np.array([each[1] for each in against], float)
    finite = errors[np.isfinite(errors)]
    end = 10 * max([check.tol_autodiff, check.tol_numerical, *finite])
    for name, values, tolerance, color, marker, dash in against:
        found = np.array(values, float)
        place = np.clip(np.where(np.isfinite(found), found, end), FLOOR, end)
        places, well = np.arange(len(rows)), found <= tolerance
        label = f"error against {name}"
        look: dict[str, Any] = {"ls": "none", "mec": "black", "mew": 0.5}
        axes.plot(place[well], places[well], marker=marker, color=color, label=label, **look)
        wrong = {**look, "marker": "X", "ms": 11, "mfc": VERMILLION}
        if not well.all():
            axes.plot(place[~well], places[~well], label=f"disagrees with {name}", **wrong)
        axes.axvline(
            tolerance, color=color, ls=dash, label=f"allowed against {name}: {tolerance:.0e}"
        )
    axes.set_xscale("log")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    write_ticks(axes, "y", range(len(rows)), [row.name for row in rows])
    said = "log scale" + "; 0 at the left end" * bool((errors < FLOOR).any())
    said += "; NaN at the right" * bool(np.isnan(errors).any())
    label_axes(axes, f"Error by the gradient's size ({said})", "Parameter")
    small = 9 * min(1.0, inches_of(axes)[0] / 5)  # letters of what stands above it
    named(axes, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2, fontsize=small)
    return axes
