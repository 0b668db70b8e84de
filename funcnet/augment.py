"""Random changes of images that leave their class as it is, as pure functions of (key, images).

    augment = (random_flip, partial(random_shift, max_shift=4))
    fit(..., augment=augment)

Images are [N, H, W], [N, C, H, W] or [N, H, W, C], pixels of any dtype, which they keep; each
example draws for itself. `fit` applies them to the raw pixels, inside the compiled epoch.

Which axes are H and W the `layout` says: "CHW" (and any [N, ..., H, W]) or "HWC"; with three axes
there is one. With None the axis that alone has the size of channels, 1 to 4, says it; where both
the first and the last have it, or neither, an error asks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.bind import bind
from funcnet.named import Step
from funcnet.tree import Array

__all__ = [
    "cutout",
    "flips_and_shifts",
    "mixup",
    "random_flip",
    "random_resized_crop",
    "random_shift",
]

LAYOUTS = ("CHW", "HWC")
MOST_CHANNELS = 4

Augmentation = Callable[[Any, Any], jax.Array]


def random_flip(key: Any, images: Array, *, layout: str | None = None) -> jax.Array:
    """Each image as it is or mirrored left to right, with equal probability.

    Args:
      key: a random key.
      images: [N, H, W], [N, C, H, W] or [N, H, W, C], of any dtype.
      layout: "CHW" or "HWC"; None tells it from the shape, see `funcnet.augment`.
    Returns:
      Images of the same shape and dtype.
    Raises:
      ValueError: the layout cannot be told from the shape, is none, or images have fewer axes.
    Example:
      >>> images = jnp.arange(6).reshape(1, 2, 3)
      >>> out = fn.random_flip(jax.random.key(0), images)
      >>> bool((out == images).all() | (out == images[..., ::-1]).all())
      True
    """
    images, back = _images("random_flip", images, layout)
    flipped = jax.random.bernoulli(key, shape=(len(images),))
    return back(jnp.where(_to_rank(flipped, images.ndim), images[..., ::-1], images))


def random_shift(
    key: Any, images: Array, *, max_shift: int = 4, layout: str | None = None
) -> jax.Array:
    """Each image moved by -max_shift to max_shift pixels, up or down and left or right.

    What comes in at an edge is the reflection of the image there, without the edge itself
    twice.

    Args:
      key: a random key.
      images: [N, H, W], [N, C, H, W] or [N, H, W, C], of any dtype, of more than max_shift pixels
        in both directions.
      max_shift: the largest shift in pixels, 0 or more.
      layout: as for `random_flip`.
    Returns:
      Images of the same shape and dtype.
    Raises:
      ValueError: max_shift is below 0 or as large as the images; or the layout, as for
        `random_flip`.
      TypeError: max_shift is no integer.
    Example:
      >>> images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
      >>> out = fn.random_shift(jax.random.key(0), images, max_shift=1)
      >>> out.shape, out.dtype
      ((2, 4, 4), dtype('uint8'))
    """
    images, back = _images("random_shift", images, layout)
    padded = _reflected("random_shift", images, max_shift)
    rows, columns = jax.random.randint(key, (2, len(images)), 0, 2 * max_shift + 1)

    def window(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        starts = [jnp.zeros_like(row)] * (image.ndim - 2) + [row, column]
        return jax.lax.dynamic_slice(image, starts, images.shape[1:])

    return back(jax.vmap(window)(padded, rows, columns))


def random_resized_crop(
    key: Any,
    images: Array,
    *,
    min_area: Any = 0.5,
    max_aspect: Any = 4 / 3,
    layout: str | None = None,
) -> jax.Array:
    """A rectangle out of each image, stretched to the size of the image (Szegedy et al. 2015).

    Its area is uniform between min_area and 1 of the image's, the logarithm of its aspect
    ratio uniform between those of 1 / max_aspect and max_aspect; a side longer than
    the image is cut to it; its place is uniform. Pixels are interpolated linearly.

    Args:
      key: a random key.
      images: [N, H, W], [N, C, H, W] or [N, H, W, C], of any dtype.
      min_area: above 0, at most 1; may be traced.
      max_aspect: 1 or more; may be traced.
      layout: as for `random_flip`.
    Returns:
      Images of the same shape and dtype; integers are rounded, of bools the nearer one is taken.
    Raises:
      ValueError: min_area or max_aspect is out of its range; or the layout, as for `random_flip`.
      TypeError: integers that float32, in which is computed, does not hold; where they are traced
        they are rounded to its 24 bits.
    Example:
      >>> images = np.full((2, 3, 8, 8), 7, np.uint8)
      >>> out = fn.random_resized_crop(jax.random.key(0), images, min_area=0.25)
      >>> out.shape, out.dtype, set(out.ravel().tolist())
      ((2, 3, 8, 8), dtype('uint8'), {7})
    """
    images, back = _images("random_resized_crop", images, layout)
    _check_computable("random_resized_crop", images)
    checks.PROBABILITY.check("min_area", min_area)
    checks.Range(at_least=1).check("max_aspect", max_aspect)
    area_key, aspect_key, row_key, column_key = jax.random.split(key, 4)
    count = (len(images),)
    area = jax.random.uniform(area_key, count, minval=min_area, maxval=1.0)
    limit = jnp.log(jnp.asarray(max_aspect, float))
    aspect = jnp.exp(jax.random.uniform(aspect_key, count, minval=-limit, maxval=limit))
    height = jnp.minimum(jnp.sqrt(area / aspect), 1)
    width = jnp.minimum(jnp.sqrt(area * aspect), 1)
    top = jax.random.uniform(row_key, count) * (1 - height)
    left = jax.random.uniform(column_key, count) * (1 - width)
    rows = _resize_matrix(top, height, images.shape[-2])  # [N, H, H]
    columns = _resize_matrix(left, width, images.shape[-1])  # [N, W, W]
    flat = images.astype(rows.dtype).reshape(len(images), -1, *images.shape[-2:])
    out = jnp.einsum("nih,nchw,njw->ncij", rows, flat, columns).reshape(images.shape)
    return back(_as_pixels(out, images.dtype))


def cutout(key: Any, images: Array, *, size: int = 8, layout: str | None = None) -> jax.Array:
    """A square of each image painted over with the image's mean (after DeVries and Taylor 2017).

    The centre of the square is any pixel, so that at the edges part of it is outside
    (arXiv 1708.04552). The mean is that of each channel.

    Args:
      key: a random key.
      images: [N, H, W], [N, C, H, W] or [N, H, W, C], of any dtype.
      size: the side of the square in pixels, 1 or more.
      layout: as for `random_flip`.
    Returns:
      Images of the same shape and dtype.
    Raises:
      ValueError: size is below 1; or the layout, as for `random_flip`.
      TypeError: size is no integer; or integers as for `random_resized_crop`.
    Example:
      >>> images = jnp.concatenate([jnp.zeros((1, 4, 4)), jnp.ones((1, 4, 4))])
      >>> out = fn.cutout(jax.random.key(0), images, size=2)
      >>> bool((out == images).all())  # painted over with the mean, which each pixel has here
      True
    """
    images, back = _images("cutout", images, layout)
    _check_computable("cutout", images)
    size = checks.COUNT.check("size", size)
    height, width = images.shape[-2:]
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (len(images), 1), 0, height) - size // 2
    left = jax.random.randint(column_key, (len(images), 1), 0, width) - size // 2
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (rows >= top) & (rows < top + size)  # [N, H]
    in_columns = (columns >= left) & (columns < left + size)  # [N, W]
    inside = in_rows[:, :, None] & in_columns[:, None, :]  # [N, H, W]
    inside = inside.reshape(len(images), *(1,) * (images.ndim - 3), height, width)
    mean = images.mean(axis=(-2, -1), keepdims=True, dtype=jnp.float32)
    return back(jnp.where(inside, _as_pixels(mean, images.dtype), images))


# The only list of what options name: to add an augmentation, write the function, and a row.
AUGMENTATIONS = {
    "flip": Step(random_flip, "left to right"),
    "shift": Step(random_shift, "by some pixels", "max_shift"),
    "crop": Step(random_resized_crop, "a part, resized", "min_area", float),
    "cutout": Step(cutout, "a square painted over", "size"),
}


def mixup(key: Any, x: Array, targets: Array, alpha: Any) -> tuple[jax.Array, jax.Array]:
    """Mixtures of pairs of examples and of their targets (Zhang et al. 2018, arXiv 1710.09412).

        x' = lam x + (1 - lam) x[pair],   targets' = lam targets + (1 - lam) targets[pair]

    with lam from Beta(alpha, alpha) and another partner drawn for each example.

    Args:
      key: a random key.
      x: [N, ...] floating point inputs.
      targets: [N, C] probabilities of the classes.
      alpha: above 0, usually 0.1 to 1; may be traced, and then 0, which mixes nothing.
    Returns:
      x' and targets', of the same shapes and dtypes.
    Raises:
      ValueError: alpha is not above 0, or targets are not [N, C].
      TypeError: alpha is no number, or x or targets are not floating point.
    Example:
      >>> x, targets = jnp.eye(3), jnp.eye(3)
      >>> mixed, soft = fn.mixup(jax.random.key(0), x, targets, alpha=0.2)
      >>> print(np.array(soft.sum(axis=1)).round(4), bool((mixed == soft).all()))
      [1. 1. 1.] True
    """
    checks.POSITIVE.check("alpha", alpha)
    x, targets = jnp.asarray(x), jnp.asarray(targets)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"mixup: x must be floating point, got {x.dtype}")
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise TypeError(f"mixup: targets must be floating point, got {targets.dtype}")
    if targets.ndim != 2 or len(targets) != len(x):
        raise ValueError(f"mixup: targets must be [N, C], N = {len(x)}, got {list(targets.shape)}")
    pair_key, share_key = jax.random.split(key)
    pair = jax.random.permutation(pair_key, len(x))
    some = jnp.asarray(alpha) > 0
    drawn_from = jnp.where(some, alpha, 1)
    share = jnp.where(some, jax.random.beta(share_key, drawn_from, drawn_from, (len(x),)), 1)

    def mixed(values: jax.Array) -> jax.Array:
        lam = _to_rank(share, values.ndim).astype(values.dtype)
        return values + (1 - lam) * (values[pair] - values)

    return mixed(x), mixed(targets)


def flips_and_shifts(
    max_shift: int = 2, *, layout: str | None = None
) -> tuple[Callable[[Array], jax.Array], ...]:
    """Ten views of images to average predictions over: `evaluate(model, x, y, views=...)`.

    As it is, and moved by max_shift pixels up, down, left and right with reflection; each of
    them mirrored left to right, too. With max_shift=0, the two of the flip alone.

    Args:
      max_shift: in pixels, 0 or more.
      layout: as for `random_flip`.
    Returns:
      Functions of images, in a tuple.
    Raises:
      ValueError: max_shift is below 0, or layout is none; from a view, max_shift is as large as the
        images, or the layout cannot be told.
      TypeError: max_shift is no integer.
    Example:
      >>> views = fn.flips_and_shifts(max_shift=0)
      >>> [view(np.array([[[1, 2, 3]]])).tolist() for view in views]
      [[[[1, 2, 3]]], [[[3, 2, 1]]]]
      >>> len(fn.flips_and_shifts())
      10
    """
    _check_layout(layout)
    max_shift = checks.NATURAL.check("max_shift", max_shift)
    moves: list[tuple[int, int]] = [(0, 0)]
    if max_shift:
        moves += [(-max_shift, 0), (max_shift, 0), (0, -max_shift), (0, max_shift)]
    return tuple(
        bind(_view, margin=max_shift, down=down, right=right, flip=flip, layout=layout)
        for down, right in moves
        for flip in (False, True)
    )


def _view(
    images: Array, *, margin: int, down: int, right: int, flip: bool, layout: str | None
) -> jax.Array:
    images, back = _images("flips_and_shifts", images, layout)
    padded = _reflected("flips_and_shifts", images, margin)
    top, left = margin - down, margin - right
    height, width = images.shape[-2:]
    moved = padded[..., top : top + height, left : left + width]
    return back(moved[..., ::-1] if flip else moved)


def in_turn(augmentations: Augmentation | Sequence[Augmentation]) -> Augmentation:
    """One augmentation of several, each on what the one before it gave, with keys of their own."""
    if callable(augmentations):
        return augmentations
    functions = tuple(augmentations)
    for function in functions:
        checks.function("every augmentation", function)
    return bind(_in_turn, functions=functions)


def _in_turn(key: Any, images: Any, *, functions: tuple[Augmentation, ...]) -> jax.Array:
    for function, part in zip(functions, jax.random.split(key, len(functions)), strict=True):
        images = function(part, images)
    return images


def _check_layout(layout: object) -> None:
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(checks.unknown("layout", layout, LAYOUTS))


def _images(
    name: str, images: Array, layout: str | None
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Images as [N, ..., H, W], and the function that puts such images back into their layout."""
    _check_layout(layout)
    images = _pixels(images)
    if images.ndim < 3:
        raise ValueError(f"{name}: images must be [N, ..., H, W], got {list(images.shape)}")
    if images.ndim == 3:
        return images, lambda out: out
    if (layout or layout_of(name, images.shape)) == "CHW":
        return images, lambda out: out
    return jnp.moveaxis(images, -1, 1), lambda out: jnp.moveaxis(out, 1, -1)


def _pixels(images: Any) -> jax.Array:
    """Images as a JAX array; integers that it can hold stay what they are."""
    if checks.concrete(images):
        images = np.asarray(images)
        if images.dtype.kind in "iu" and checks.held(images):
            return checks.array(images)
    return checks.narrowed(images, "images", "to be augmented")


def layout_of(name: str, shape: tuple[int, ...]) -> str:
    """The layout that a shape shows plainly."""
    first, last = shape[1] <= MOST_CHANNELS, shape[-1] <= MOST_CHANNELS
    if len(shape) > 4 and not last:  # [N, ..., H, W], as it always was
        return "CHW"
    if len(shape) == 4 and first != last:
        return "CHW" if first else "HWC"
    raise ValueError(
        f"{name}: which axes of images {list(shape)} are height and width? say it by "
        '--layout CHW or HWC, layout="CHW" or "HWC" in Python, for [N, C, H, W] or [N, H, W, C]'
    )


def _check_computable(name: str, images: jax.Array) -> None:
    """Raise if float32, in which new pixels are computed, rounds the integers that there are."""
    if not jnp.issubdtype(images.dtype, jnp.integer) or images.dtype.itemsize <= 2:
        return
    if checks.concrete(images) and np.abs(np.asarray(images, np.float64)).max(initial=0) > 2**24:
        raise TypeError(
            f"{name}: pixels of {images.dtype} may be rounded: make them uint8, uint16 or float32"
        )


def _as_pixels(values: jax.Array, dtype: Any) -> jax.Array:
    """Floating point values as pixels of a dtype: integers rounded, bools by which is nearer."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return values >= 0.5
    if jnp.issubdtype(dtype, jnp.integer):
        values = jnp.round(values)
        top = np.float32(jnp.iinfo(dtype).max)
        if int(top) > jnp.iinfo(dtype).max:  # rounded up, which a cast would wrap
            top = np.nextafter(top, np.float32(0))
        values = jnp.clip(values, np.float32(jnp.iinfo(dtype).min), top)
    return values.astype(dtype)


def _reflected(name: str, images: jax.Array, margin: int) -> jax.Array:
    margin = checks.NATURAL.check("max_shift", margin)
    if margin >= min(images.shape[-2:]):
        raise ValueError(
            f"{name}: max_shift is {margin}, but the images have only "
            f"{' x '.join(map(str, images.shape[-2:]))} pixels"
        )
    margins = [(0, 0)] * (images.ndim - 2) + [(margin, margin)] * 2
    return jnp.pad(images, margins, mode="reflect")


def _resize_matrix(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """[N, size, size] weights: row i takes output pixel i from the pixels of an interval.

    The interval is [start, start + length] of the unit interval; weights of linear interpolation.
    """
    pixels = jnp.arange(size, dtype=start.dtype)
    centres = (pixels + 0.5) / size  # of the output pixels, in the interval
    places = (start[:, None] + length[:, None] * centres[None]) * size - 0.5  # in input pixels
    places = jnp.clip(places, 0, size - 1)
    return jnp.maximum(1 - jnp.abs(places[:, :, None] - pixels[None, None]), 0)


def _to_rank(values: jax.Array, rank: int) -> jax.Array:
    return values.reshape(len(values), *(1,) * (rank - 1))
