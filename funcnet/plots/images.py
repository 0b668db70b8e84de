"""Pictures of images: those that a model mistakes, and weights that are images."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet import checks
from funcnet.plots.figures import new_figure, short
from funcnet.tree import named_leaves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_mistakes", "plot_weights"]

MOST = checks.Count(at_most=400)
COLORS = (1, 3)  # channels of an image


def plot_mistakes(
    x: Any,
    y: Any,
    probabilities: Any,
    class_names: Sequence[str] | None = None,
    *,
    count: int = 16,
    image_shape: Sequence[int] | None = None,
) -> "Figure":
    """The most confident mistakes of a classifier, with their images.

    Each says what was predicted, with which probability, what it is, and its place in x.

    Alternative text: "Sixteen images of digits that were mistaken, each with what was predicted and
    what it is."

    Args:
      x: images [N, H, W], [N, C, H, W] of 1 or 3 channels, or flat [N, D], as of squares, 64 being
        8 x 8 and 3072 being 3 x 32 x 32; or of image_shape.
      y: [N] labels.
      probabilities: [N, C], as `predict_proba` gives.
      class_names: C names; None is their numbers.
      count: how many at most.
      image_shape: (H, W) or (C, H, W) of flat ones.
    Returns:
      A matplotlib Figure, a panel for each mistake, from the most confident one.
    Raises:
      ValueError: there are no mistakes, x holds no images, or shapes do not fit.
    Example:
      >>> x, y = np.ones((3, 8, 8)), np.array([0, 1, 1])
      >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
      >>> figure = fn.plot_mistakes(x, y, probabilities, ["cat", "dog"])
      >>> len(figure.axes)
      2
    """
    count = MOST.check("count", count)
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be [N, C], from 0 to 1, as predict_proba gives")
    y = checks.labels(y, num_examples=len(p), num_classes=p.shape[1])
    if len(x) != len(p):
        raise ValueError(f"x has {len(x):,} examples, probabilities {len(p):,}")
    names = [str(i) for i in range(p.shape[1])] if class_names is None else list(class_names)
    if len(names) != p.shape[1]:
        raise ValueError(f"class_names has {len(names)} names for {p.shape[1]} classes")
    predicted, top = p.argmax(axis=1), p.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    if not len(wrong):
        raise ValueError(f"none of {len(p):,} examples is mistaken: there is nothing to plot")
    wrong = wrong[np.argsort(-top[wrong], kind="stable")][:count]
    images = _as_images(np.asarray(x)[wrong], image_shape, "x")
    low, high = float(np.min(x)), float(np.max(x))
    figure, panels = _panels(len(wrong), 1.7, 0.35)
    for axes, image, i in zip(panels, images, wrong, strict=True):
        _show(axes, (image - low) / max(high - low, 1e-30))
        said = f"{short(names[predicted[i]], 18)} ({100 * top[i]:.0f} %)"
        title = f"{said}\nis {short(names[y[i]], 18)}; no. {i}"
        axes.set_title(title, fontsize=8, parse_math=False)
    figure.suptitle("predicted (probability), is, and place in x", fontsize=9)
    return figure


def plot_weights(
    params: Any, image_shape: Sequence[int] | None = None, *, count: int = 64
) -> "Figure":
    """The weights of the first layer as images: what each of its units looks for.

    Black is negative, white positive, and the grey between is 0, on one scale for all; of colours
    it is the same in each channel. Of many units those with the largest weights are shown.

    Alternative text: "Eight by eight small images of weights; some show strokes of digits, others
    noise."

    Args:
      params: the parameters of a net whose first layer is "affine1", or its weights [D, H].
      image_shape: (H, W) or (C, H, W) of the inputs; None is a square, as for `plot_mistakes`.
      count: how many units at most.
    Returns:
      A matplotlib Figure, a panel for each unit, named by its number.
    Raises:
      ValueError: there is no such layer, weights are not finite, or D is no such image.
    Example:
      >>> net = fn.mlp([16], num_classes=10)
      >>> params, _, _ = net.init(jax.random.key(0), (64,))
      >>> len(fn.plot_weights(params).axes)
      16
    """
    count = MOST.check("count", count)
    w = np.asarray(_first_weights(params), np.float64)
    if w.ndim != 2 or not w.size or not np.isfinite(w).all():
        raise ValueError(f"weights must be [D, H], finite numbers, got shape {list(w.shape)}")
    largest = np.argsort(-np.linalg.norm(w, axis=0), kind="stable")[:count]
    units = np.sort(largest)
    images = _as_images(w.T[units], image_shape, "weights")
    top = np.abs(images).max() or 1.0
    figure, panels = _panels(len(units), 0.9, 0.2)
    for axes, image, unit in zip(panels, images, units, strict=True):
        _show(axes, 0.5 + image / (2 * top))
        axes.set_title(str(unit), fontsize=7, pad=2)
    some = f"{len(units)} of {w.shape[1]:,} units, of the largest weights; " * (
        len(units) < w.shape[1]
    )
    text = f"{some}black {-top:.2g}, grey 0, white {top:.2g}"
    figure.suptitle(text, fontsize=9)
    return figure


def _first_weights(params: Any) -> Any:
    if not isinstance(params, Mapping):
        return params
    leaves = named_leaves(params)
    if "affine1/w" not in leaves:
        known = ", ".join(name for name, leaf in leaves.items() if np.ndim(leaf) == 2) or "none"
        raise ValueError(
            "params have no affine1/w, the weights of a first layer: give the weights themselves, "
            f"params[layer][name]; matrices there are: {known}"
        )
    return leaves["affine1/w"]


def _as_images(x: np.ndarray, shape: Sequence[int] | None, name: str) -> np.ndarray:
    """Images [N, H, W, C] of 1 or 3 channels, float64."""
    if x.dtype.kind not in "biuf" or x.ndim not in (2, 3, 4):
        raise ValueError(f"{name} must be images [N, H, W] or [N, C, H, W], or flat ones [N, D]")
    x = x.astype(np.float64)
    if x.ndim == 2:
        x = x.reshape(len(x), *_image_shape(x.shape[1], shape, name))
    if x.ndim == 3:
        x = x[:, None]
    if x.shape[1] in COLORS:
        return np.moveaxis(x, 1, -1)
    if x.shape[-1] in COLORS:
        return x
    raise ValueError(f"{name} must have images of 1 or 3 channels, got shape {list(x.shape)}")


def _image_shape(size: int, shape: Sequence[int] | None, name: str) -> tuple[int, ...]:
    if shape is not None:
        found = tuple(int(each) for each in shape)
        if len(found) not in (2, 3) or math.prod(found) != size:
            raise ValueError(f"image_shape {found} does not hold the {size} numbers of an example")
        return found
    for channels in COLORS:
        side = math.isqrt(size // channels)
        if side > 1 and channels * side**2 == size:
            return (channels, side, side)
    raise ValueError(
        f"{name} has {size} numbers an example, which are no square image: give image_shape=(H, W) "
        "if they are images; others have no picture, look at their rows by their numbers"
    )


def _panels(count: int, side: float, above: float) -> tuple["Figure", Any]:
    """A figure of so many square panels, of a side and a title in inches, and their Axes."""
    columns = min(count, max(4, math.ceil(math.sqrt(count))))
    rows = math.ceil(count / columns)
    size = max(side * columns, 3.6), (side + above) * rows + 0.3
    figure, axes = new_figure(rows, columns, size)
    for each in axes:
        each.axis("off")
    return figure, axes[:count]


def _show(axes: "Axes", image: np.ndarray) -> None:
    """An image [H, W, C] of numbers from 0 to 1."""
    shown = image[..., 0] if image.shape[-1] == 1 else np.clip(image, 0, 1)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
