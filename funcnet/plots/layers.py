"""Pictures of what goes on inside a network in training, layer by layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.inside import LayerRecorder
from funcnet.plots.figures import (
    axes_for,
    depth_style,
    label_axes,
    legend_below,
    new_figure,
    whole_ticks,
    write_legend,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_activations", "plot_gradients", "plot_update_ratios"]

NAMED = 12  # lines that a legend names, evenly spread over the depth
USUAL = 1e-3  # update by weight


def plot_activations(record: LayerRecorder, *, layers: Sequence[str] | None = None) -> "Figure":
    """The outputs of layers over the epochs of a run: mean, spread, and how many are flat.

    Lines are the darker the nearer a layer is to the input.

    Alternative text: "Three panels over epochs, with a line for each layer: the mean of its
    outputs, their standard deviation, and the share of them that is 0 or saturated."

    Args:
      record: a `LayerRecorder` that a run has called.
      layers: the names of those to show; None is activations, or of a net without any all.
    Returns:
      A matplotlib Figure of three panels: mean, standard deviation, and the share of outputs that
      are saturated (of layers that are no activations, that are 0).
    Raises:
      ValueError: the record is empty, or there is no such layer.
      TypeError: record is no LayerRecorder.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> record = fn.LayerRecorder(net, digits.x_train[:200], digits.y_train[:200])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 50}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=record, **options)
      >>> figure = fn.plot_activations(record)
      >>> [len(axes.lines) for axes in figure.axes]
      [1, 1, 1]
    """
    names = _checked(record).rows[0].layers
    rows = {name: np.array([getattr(row, name) for row in record.rows]) for name in _OF_LAYERS}
    is_active = np.isfinite(rows["saturated"][0])
    shown = _chosen("layer", names, layers, is_active if is_active.any() else None)
    flat = np.where(np.isnan(rows["saturated"]), rows["zeros"], rows["saturated"])
    figure, panels = new_figure(1, 3, (12, 3.8))
    titles = ("Mean of outputs", "Standard deviation of outputs", "Saturated or 0 (%)")
    for axes, title, values in zip(
        panels, titles, (rows["mean"], rows["std"], 100 * flat), strict=True
    ):
        handles, said = _draw_depth(axes, record.epochs, values, names, shown)
        label_axes(axes, "Epoch", title)
    panels[2].set_ylim(-3, 103)
    legend_below(figure, handles, said)
    return figure


_OF_LAYERS = ("mean", "std", "zeros", "saturated")


def plot_gradients(
    record: LayerRecorder, *, leaves: Sequence[str] | None = None, axes: "Axes | None" = None
) -> "Axes":
    """The norm of the gradient of each parameter over the epochs of a run.

    Gradients that vanish fall from line to line towards the input, whose lines are the darkest.

    Alternative text: "The norm of the gradient of each weight over epochs, on a logarithmic axis:
    lines that fall together."

    Args:
      record: a `LayerRecorder` that a run has called.
      leaves: the names of those to show, such as "affine1/w"; None is weights, w, or all if there
        are none.
      axes: the Axes to draw in; None is a new figure.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: the record is empty, or there is no such parameter.
      TypeError: record is no LayerRecorder.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> record = fn.LayerRecorder(net, digits.x_train[:200], digits.y_train[:200])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 50}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=record, **options)
      >>> axes = fn.plot_gradients(record)
      >>> axes.get_xlabel(), axes.get_yscale()
      ('Epoch', 'log')
    """
    values = np.array([row.gradient for row in _checked(record).rows])
    return _of_leaves(record, values, leaves, axes, "Norm of the gradient")


def plot_update_ratios(
    record: LayerRecorder, *, leaves: Sequence[str] | None = None, axes: "Axes | None" = None
) -> "Axes":
    """How much parameters are moved, by how large they are, over the epochs of a run.

    Of a record with an optimizer it is the update of one step, which usually is about 1e-3 of the
    weights: much more is unstable, much less slow (Karpathy, CS231n notes, neural networks 3).
    Without one it is the change since the record looked before, an epoch as a rule.

    Alternative text: "Update by weight of each layer over epochs, on a logarithmic axis, around a
    dashed line at 0.001."

    Args:
      record: a `LayerRecorder` that a run has called.
      leaves, axes: as for `plot_gradients`.
    Returns:
      The Axes; `axes.figure.savefig(file)`.
    Raises:
      ValueError: the record is empty, or there is no such parameter.
      TypeError: record is no LayerRecorder.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> record = fn.LayerRecorder(net, digits.x_train[:200], digits.y_train[:200])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 50}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=record, **options)
      >>> axes = fn.plot_update_ratios(record)
      >>> axes.get_xlabel(), axes.get_yscale()
      ('Epoch', 'log')
    """
    has_updates = _checked(record).optimizer is not None
    if has_updates:
        values = np.array([row.update_ratio for row in record.rows])
        axes = _of_leaves(record, values, leaves, axes, "Update of a step by weight")
        axes.axhline(USUAL, color="black", linestyle="--", linewidth=1)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "bottom"}
        axes.annotate("usual", (0.01, USUAL), **where)
        return axes
    changes = np.array(record.changes)
    return _of_leaves(record, changes, leaves, axes, "Change of an epoch by weight")


def _checked(record: LayerRecorder) -> LayerRecorder:
    if not isinstance(record, LayerRecorder):
        raise TypeError(f"record must be a LayerRecorder, got {checks.cut(record)}")
    if not record.rows:
        raise ValueError("record is empty: give it to fit, as callback=record")
    return record


def _chosen(what: str, names: Sequence[str], wanted: Sequence[str] | None, usual: Any) -> list[int]:
    """The places of the names to show, in their order."""
    if wanted is None:
        return [i for i in range(len(names)) if usual is None or usual[i]]
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in names:
            raise ValueError(checks.unknown(what, name, names))
    return [i for i, name in enumerate(names) if name in wanted]


def _of_leaves(
    record: LayerRecorder, values: np.ndarray, leaves: Any, axes: "Axes | None", what: str
) -> "Axes":
    names = record.rows[0].leaves
    is_weight = np.array([name.rpartition("/")[2] == "w" for name in names])
    shown = _chosen("parameter", names, leaves, is_weight if is_weight.any() else None)
    shown.sort(key=lambda i: _depth(record, names[i]))
    axes = axes_for(axes, (7, 4.5))
    handles, said = _draw_depth(axes, record.epochs, values, names, shown)
    if (values[:, shown] > 0).any():
        axes.set_yscale("log")
        what += " (log scale)"
    label_axes(axes, "Epoch", what)
    write_legend(axes, handles, said, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return axes


def _depth(record: LayerRecorder, leaf: str) -> int:
    """The place of the layer that has a parameter; they are sorted by name otherwise."""
    layers = record.rows[0].layers
    return max((i for i, name in enumerate(layers) if leaf.startswith(f"{name}/")), default=0)


def _draw_depth(
    axes: "Axes", epochs: Sequence[int], values: np.ndarray, names: Sequence[str], shown: list[int]
) -> tuple[list[Any], list[str]]:
    """A line for each of those shown, and for the legend some lines and their names."""
    lines = []
    for place, i in enumerate(shown):
        look = depth_style(place, len(shown))
        if len(epochs) > 40 or len(shown) > NAMED:
            look["marker"] = None if len(epochs) > 1 else "o"
        lines += axes.plot(epochs, values[:, i], ms=4, label=names[i], **look)
    whole_ticks(axes.xaxis)
    few = np.unique(np.linspace(0, len(shown) - 1, min(len(shown), NAMED)).round().astype(int))
    return [lines[i] for i in few], [names[shown[i]] for i in few]
