"""Random changes of images. A new augmentation is one more row of AUGMENTATIONS."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st
from marks import slow_but

import funcnet as fn
from funcnet.cli import main

KEY = jax.random.key(5)
AUGMENTATIONS = {
    "flip": fn.random_flip,
    "shift": partial(fn.random_shift, max_shift=2),
    "crop": fn.random_resized_crop,
    "cutout": partial(fn.cutout, size=3),
}
# Compiled whole: op by op, each shape would compile some twenty times.
mixup = jax.jit(fn.mixup)
JITTED = {name: jax.jit(function) for name, function in AUGMENTATIONS.items()}

each = pytest.mark.parametrize("name", AUGMENTATIONS)


def pixels(rng, *shape):
    return rng.integers(256, size=shape).astype(np.uint8)


def same(a, b):
    """[N], whether the examples of two batches are the same."""
    return (np.asarray(a) == np.asarray(b)).reshape(len(a), -1).all(axis=1)


def repeated(image, count):
    return np.repeat(image[None], count, axis=0)


# All of them


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((9, 5, 6), "uint8"),
        ((9, 3, 5, 6), "float32"),
        ((9, 2, 3, 5, 6), "uint8"),
        ((9, 5, 6), "bfloat16"),
        ((1, 3, 6, 5), "uint8"),
    ],
    ids=str,
)
@each
def test_shape_and_dtype_are_kept(name, shape, dtype, rng, unoptimized):
    images = jnp.asarray(pixels(rng, *shape), dtype)
    out = JITTED[name](KEY, images)
    assert (out.shape, out.dtype) == (shape, images.dtype)


@each
def test_float64_stays_float64(name, rng, x64):
    assert JITTED[name](KEY, rng.normal(size=(4, 5, 6))).dtype == np.float64


@each
def test_a_function_of_the_key(name, rng):
    images = pixels(rng, 9, 3, 5, 6)
    before = images.copy()
    once = JITTED[name](KEY, images)
    np.testing.assert_array_equal(once, JITTED[name](KEY, images))
    assert not same(once, JITTED[name](jax.random.key(6), images)).all()
    np.testing.assert_array_equal(images, before)


@each
def test_every_example_draws_for_itself(name, rng):
    out = JITTED[name](KEY, repeated(pixels(rng, 5, 6), 64))
    assert len(np.unique(np.asarray(out), axis=0)) >= 2
    if name != "flip":  # it has two outcomes
        assert len(np.unique(np.asarray(out), axis=0)) > 10


@each
def test_an_image_is_changed_as_a_whole(name, rng):
    """Equal channels stay equal: all of them are flipped, moved and painted alike."""
    image = pixels(rng, 5, 6)
    out = np.asarray(JITTED[name](KEY, np.broadcast_to(image, (9, 2, 3, 5, 6))))
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))


@each
def test_an_example_does_not_see_the_others(name, rng):
    images = pixels(rng, 9, 3, 5, 6)
    others = images.copy()
    others[4] = 0
    differ = ~same(JITTED[name](KEY, images), JITTED[name](KEY, others))
    assert set(np.flatnonzero(differ)) <= {4}


@pytest.mark.parametrize("name", slow_but(AUGMENTATIONS, "flip"))
def test_uncompiled_and_vmapped(name, rng, unoptimized):
    images = pixels(rng, 2, 5, 3, 5, 6)
    keys = jax.random.split(KEY, 2)
    mapped = jax.vmap(AUGMENTATIONS[name])(keys, images)
    for i in range(2):
        np.testing.assert_array_equal(mapped[i], JITTED[name](keys[i], images[i]))
    np.testing.assert_array_equal(mapped[1], AUGMENTATIONS[name](keys[1], images[1]))


@each
def test_constant_images_stay_constant(name):
    levels = np.array([0, 1, 77, 254, 255], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (5, 3, 5, 6))
    np.testing.assert_array_equal(JITTED[name](KEY, images), images)


# Each of them


def test_flip_mirrors_half_of_the_images(rng):
    images = pixels(rng, 1000, 2, 3, 5)
    out = JITTED["flip"](KEY, images)
    kept, mirrored = same(out, images), same(out, images[..., ::-1])
    assert (kept ^ mirrored).all()
    assert 430 < mirrored.sum() < 570  # 4.4 standard deviations


@pytest.mark.parametrize("max_shift", [0, 1, 3])
def test_shift_is_a_window_of_the_padded_image(max_shift, rng):
    count, height, width = 2000, 5, 6
    image = pixels(rng, 2, height, width)
    margins = [(0, 0), (max_shift, max_shift), (max_shift, max_shift)]
    padded = np.pad(image, margins, mode="reflect")
    places = range(2 * max_shift + 1)
    windows = np.stack(
        [
            padded[:, top : top + height, left : left + width]
            for top, left in itertools.product(places, places)
        ]
    )
    shift = jax.jit(partial(fn.random_shift, max_shift=max_shift))
    out = shift(KEY, repeated(image, count))
    found = (np.asarray(out)[:, None] == windows).reshape(count, len(windows), -1).all(axis=2)
    np.testing.assert_array_equal(found.sum(axis=1), 1)
    expected = count / len(windows)
    np.testing.assert_allclose(found.sum(axis=0), expected, atol=4.5 * np.sqrt(expected))


def test_crop_of_the_whole_is_the_image(rng):
    images = pixels(rng, 20, 3, 5, 6)
    whole = jax.jit(partial(fn.random_resized_crop, min_area=1, max_aspect=1))
    np.testing.assert_array_equal(whole(KEY, images), images)
    as_float = images.astype(np.float32)
    np.testing.assert_allclose(whole(KEY, as_float), as_float, atol=1e-3)


def ramps(size, count):
    """Rows and columns as pictures, from which a crop can be read off."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) + 0.5
    return repeated(np.stack([rows, columns]), count)


@pytest.mark.parametrize(("min_area", "max_aspect"), [(0.25, 1.0), (0.5, 4 / 3), (0.25, 2.0)])
def test_crop_is_a_rectangle_of_the_image(min_area, max_aspect):
    """Linear ramps stay linear, away from the edges; their slopes are the sides."""
    size, count = 40, 400
    crop = jax.jit(partial(fn.random_resized_crop, min_area=min_area, max_aspect=max_aspect))
    rows, columns = np.moveaxis(np.asarray(crop(KEY, ramps(size, count))), 1, 0)
    np.testing.assert_allclose(np.ptp(rows, axis=2), 0, atol=1e-4)
    np.testing.assert_allclose(np.ptp(columns, axis=1), 0, atol=1e-4)
    assert min(rows.min(), columns.min()) >= 0.5 - 1e-4
    assert max(rows.max(), columns.max()) <= size - 0.5 + 1e-4

    def sides(ramp):
        steps = np.diff(ramp[:, 2:-2], axis=1)
        np.testing.assert_allclose(steps, steps[:, :1] + 0 * steps, atol=1e-4)
        side = steps.mean(axis=1)  # of the image's
        start = ramp[:, 2] / size - 2.5 / size * side
        assert np.all(start >= -1e-4)
        assert np.all(start + side <= 1 + 1e-4)
        return side, start

    height, top = sides(rows[:, :, 0])
    width, left = sides(columns[:, 0, :])
    area, aspect = height * width, width / height
    assert np.all(aspect >= 1 / max_aspect - 1e-3)
    assert np.all(aspect <= max_aspect + 1e-3)
    assert area.max() <= 1 + 1e-4
    uncut = np.maximum(height, width) < 1 - 1e-4
    assert np.all(area[uncut] >= min_area - 1e-3)
    if max_aspect == 1:
        quartiles = np.quantile(area, [0.25, 0.5, 0.75])
        expected = min_area + (1 - min_area) * np.array([0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, expected, atol=0.08)
    else:
        assert 0.4 < (aspect < 1).mean() < 0.6
        assert np.quantile(aspect, 0.02) < 1 / max_aspect**0.5
        assert np.quantile(aspect, 0.98) > max_aspect**0.5
    for start, side in ((top, height), (left, width)):
        free = side < 0.99
        if free.sum() > 50:
            place = start[free] / (1 - side[free])
            np.testing.assert_allclose(np.quantile(place, [0.25, 0.75]), [0.25, 0.75], atol=0.13)


def test_crop_rounds_integers():
    images = np.asarray(ramps(12, 50) * 20).astype(np.uint8)
    exact = np.asarray(JITTED["crop"](KEY, images.astype(np.float32)))
    np.testing.assert_array_equal(JITTED["crop"](KEY, images), np.round(exact))
    signed = -np.asarray(images, np.int16)
    np.testing.assert_array_equal(JITTED["crop"](KEY, signed), -np.round(exact))


def test_crop_of_traced_numbers(rng):
    images = rng.normal(size=(6, 5, 6)).astype(np.float32)

    @jax.jit
    def crop(area, aspect):
        return fn.random_resized_crop(KEY, images, min_area=area, max_aspect=aspect)

    out = jax.vmap(crop)(np.array([1.0, 0.3]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(out[0], images, atol=1e-5)
    np.testing.assert_allclose(out[1], crop(0.3, 2.0), atol=1e-5)
    assert not np.allclose(out[1], images, atol=0.1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [1, 2, 3, 30])
def test_cutout_paints_a_square(size, dtype, rng):
    count, height, width = 300, 5, 7
    image = (pixels(rng, 2, height, width) // 2 * 2 + 1).astype(dtype)
    mean = image.mean(axis=(1, 2))
    level = np.round(mean) if dtype == "uint8" else mean
    image[0, image[0] == level[0]] += 2  # so that painting is seen
    out = np.asarray(jax.jit(partial(fn.cutout, size=size))(KEY, repeated(image, count)))
    level = image.mean(axis=(1, 2), dtype=np.float64)
    level = np.round(level) if dtype == "uint8" else level

    centres = set()
    for painted in out:
        fits = [
            (row, column)
            for row, column in itertools.product(range(height), range(width))
            if np.allclose(
                painted, by_hand(image, level, row - size // 2, column - size // 2, size)
            )
        ]
        assert fits
        centres.update(fits)
    assert len(centres) == height * width


def by_hand(image, level, top, left, size):
    painted = image.copy()
    rows, columns = slice(max(top, 0), top + size), slice(max(left, 0), left + size)
    painted[:, rows, columns] = level[:, None, None]
    return painted


# Mixup


def mixed(rng, count=400, alpha=0.4, **changes):
    """Examples that are one-hot, so that the result tells who was mixed, and their targets."""
    x, targets = np.eye(count, dtype=np.float32), np.eye(count, dtype=np.float32)
    return mixup(KEY, changes.get("x", x), changes.get("targets", targets), alpha)


def shares(x):
    """[N], the share of each example itself, from `mixed`."""
    share = np.asarray(jnp.diagonal(x))
    alone = (np.asarray(x) > 0).sum(axis=1) == 1  # its own partner: it says nothing
    return share[~(alone & (share == 1))]


def test_mixup_takes_shares_of_two_examples(rng):
    x, targets = map(np.asarray, mixed(rng))
    assert x.min() >= 0
    assert x.max() <= 1
    np.testing.assert_allclose(x.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(x, targets)  # the same partners and shares
    assert (x > 0).sum(axis=1).max() == 2
    partners = np.argmax(np.where(np.eye(len(x), dtype=bool), -1, x), axis=1)
    assert len(set(partners)) > 0.9 * len(x)  # a permutation, but for shares of 0 and 1


@pytest.mark.slow
def test_mixup_is_what_it_says(rng):
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    targets = rng.dirichlet(np.ones(4), size=6).astype(np.float32)
    unit, _ = mixup(KEY, np.eye(6, dtype=np.float32), np.eye(6, dtype=np.float32), 1.0)
    mixed_x, mixed_targets = mixup(KEY, x, targets, 1.0)
    np.testing.assert_allclose(mixed_x, np.einsum("ij,jkl->ikl", unit, x), atol=1e-6)
    np.testing.assert_allclose(mixed_targets, unit @ targets, atol=1e-6)
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_shares_are_from_a_beta_distribution(alpha, rng):
    share = shares(mixed(rng, alpha=alpha)[0])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 4.5 * np.sqrt(variance / len(share))
    np.testing.assert_allclose(share.var(), variance, rtol=0.25)


def test_mixup_with_a_tiny_alpha_is_finite(rng):
    x, targets = mixed(rng, count=50, alpha=1e-4)
    assert set(np.unique(x)) <= {0.0, 1.0}
    np.testing.assert_array_equal(x, targets)


@pytest.mark.slow
def test_mixup_of_a_traced_alpha(rng):
    x, targets = np.eye(6, dtype=np.float32), np.eye(6, dtype=np.float32)
    alphas = np.array([0.2, 3.0])
    out, _ = jax.vmap(lambda alpha: fn.mixup(KEY, x, targets, alpha))(alphas)
    for i, alpha in enumerate(alphas):
        np.testing.assert_allclose(out[i], mixup(KEY, x, targets, alpha)[0], atol=1e-6)


def test_mixup_keeps_dtypes(rng):
    x, targets = jnp.ones((4, 3), jnp.bfloat16), jnp.ones((4, 2), jnp.float32)
    out = mixup(KEY, x, targets, 0.5)
    assert [a.dtype for a in out] == [jnp.bfloat16, np.float32]
    np.testing.assert_array_equal(np.asarray(out[0], np.float32), np.ones((4, 3)))


def test_mixup_is_a_function_of_the_key(rng):
    x = rng.normal(size=(20, 3)).astype(np.float32)
    targets = np.eye(20, dtype=np.float32)
    a, b = (mixup(key, x, targets, 0.4) for key in (KEY, jax.random.key(6)))
    assert not np.array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[0], mixup(KEY, x, targets, 0.4)[0])


# Views


def test_ten_views(rng):
    images = pixels(rng, 3, 2, 5, 6)
    padded = np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="reflect")
    expected = []
    for down, right in ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2)):
        moved = padded[:, :, 2 - down : 7 - down, 2 - right : 8 - right]
        expected += [moved, moved[..., ::-1]]
    out = [view(images) for view in fn.flips_and_shifts()]
    assert len(out) == 10
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(out[4][:, :, 2:], images[:, :, :3])  # down: the third move


def test_two_views_without_shifts(rng):
    images = pixels(rng, 3, 5, 6)
    as_it_is, mirrored = fn.flips_and_shifts(0)
    np.testing.assert_array_equal(as_it_is(images), images)
    np.testing.assert_array_equal(mirrored(images), images[..., ::-1])


def test_views_are_the_same_functions_each_time():
    assert fn.flips_and_shifts() == fn.flips_and_shifts(2) == fn.flips_and_shifts(max_shift=2)
    assert hash(fn.flips_and_shifts()) == hash(fn.flips_and_shifts(2))
    assert not set(fn.flips_and_shifts(1)) & set(fn.flips_and_shifts(2))


# Wrong input

flat, images = np.zeros((4, 30), "f"), np.zeros((4, 5, 6), "f")
onehot = np.eye(4, dtype="f")
ERRORS = {
    "flip of rank 2": (lambda: fn.random_flip(KEY, flat), "random_flip: images must be [N, "),
    "shift of rank 2": (lambda: fn.random_shift(KEY, flat), "got [4, 30]"),
    "crop of rank 2": (lambda: fn.random_resized_crop(KEY, flat), "random_resized_crop: images"),
    "cutout of rank 2": (lambda: fn.cutout(KEY, flat), "cutout: images must be"),
    "view of rank 2": (lambda: fn.flips_and_shifts()[0](flat), "flips_and_shifts: images"),
    "shift too large": (
        lambda: fn.random_shift(KEY, images, max_shift=5),
        "random_shift: max_shift is 5, but the images have only 5 x 6 pixels",
    ),
    "view too large": (lambda: fn.flips_and_shifts(5)[3](images), "max_shift is 5"),
    "shift negative": (lambda: fn.random_shift(KEY, images, max_shift=-1), "at least 0"),
    "shift fractional": (lambda: fn.random_shift(KEY, images, max_shift=1.5), "an integer"),
    "views negative": (lambda: fn.flips_and_shifts(-1), "max_shift must be at least 0"),
    "views fractional": (lambda: fn.flips_and_shifts(0.5), "max_shift must be an integer"),
    "size negative": (lambda: fn.cutout(KEY, images, size=-1), "size must be at least 1"),
    "size 0": (lambda: fn.cutout(KEY, images, size=0), "size must be at least 1"),
    "no area": (lambda: fn.random_resized_crop(KEY, images, min_area=0), "min_area must be > 0"),
    "area above 1": (lambda: fn.random_resized_crop(KEY, images, min_area=1.1), "<= 1"),
    "aspect below 1": (lambda: fn.random_resized_crop(KEY, images, max_aspect=0.5), ">= 1"),
    "mixup of integers": (
        lambda: fn.mixup(KEY, images.astype(int), onehot, 0.2),
        "mixup: x must be floating point",
    ),
    "mixup of integer targets": (
        lambda: fn.mixup(KEY, images, onehot.astype(int), 0.2),
        "mixup: targets must be floating point",
    ),
    "mixup of labels": (
        lambda: fn.mixup(KEY, images, onehot[0], 0.2),
        "mixup: targets must be [N, C], N = 4, got [4]",
    ),
    "mixup without a target": (lambda: fn.mixup(KEY, images, onehot[:3], 0.2), "got [3, 4]"),
    "alpha 0": (lambda: fn.mixup(KEY, images, onehot, 0), "alpha must be > 0"),
    "alpha negative": (lambda: fn.mixup(KEY, images, onehot, -1.0), "alpha must be > 0"),
    "alpha infinite": (lambda: fn.mixup(KEY, images, onehot, np.inf), "alpha must be finite"),
    "alpha a name": (lambda: fn.mixup(KEY, images, onehot, "much"), "alpha must be a number"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    call, text = ERRORS[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(text)) as caught:
        call()
    assert "\n" not in str(caught.value)


# Layouts and dtypes.

IMAGE_FUNCTIONS = {
    "flip": fn.random_flip,
    "shift": partial(fn.random_shift, max_shift=2),
    "crop": fn.random_resized_crop,
    "cutout": partial(fn.cutout, size=3),
}


@pytest.mark.parametrize("channels", slow_but([1, 3, 4], 3))
@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_channels_last_is_channels_first_moved(name, channels):
    function, key = IMAGE_FUNCTIONS[name], jax.random.key(3)
    images = np.random.default_rng(0).integers(0, 256, (6, channels, 8, 7)).astype(np.uint8)
    expected = np.moveaxis(np.asarray(function(key, images)), 1, -1)
    assert (expected != np.moveaxis(images, 1, -1)).any()
    last = np.moveaxis(images, 1, -1)
    for given in ({}, {"layout": "HWC"}):
        np.testing.assert_array_equal(function(key, last, **given), expected)
    np.testing.assert_array_equal(function(key, images, layout="CHW"), function(key, images))


def test_views_of_channels_last():
    images = np.random.default_rng(0).random((2, 8, 7, 3)).astype(np.float32)
    for last, first in zip(
        fn.flips_and_shifts(1), fn.flips_and_shifts(1, layout="CHW"), strict=True
    ):
        expected = np.moveaxis(np.asarray(first(np.moveaxis(images, -1, 1))), 1, -1)
        np.testing.assert_array_equal(last(images), expected)


@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_a_layout_that_no_shape_shows_is_asked_for(name):
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 4\] are height and width\? .*--layout"):
        IMAGE_FUNCTIONS[name](jax.random.key(0), np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="unknown layout 'HCW'"):
        IMAGE_FUNCTIONS[name](jax.random.key(0), np.zeros((2, 3, 8, 8)), layout="HCW")


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32"]


@pytest.mark.parametrize("dtype", slow_but(DTYPES, "bool", "uint8", "uint32"))
@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_pixels_of_every_dtype(name, dtype):
    images = np.random.default_rng(1).random((8, 9, 9))
    if dtype == "bool":
        images = images > 0.3
    elif np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        low, high = max(limits.min, -(2**24)), min(limits.max, 2**24)
        images = np.where(images > 0.5, high, low).astype(dtype)
    images, key = images.astype(dtype), jax.random.key(5)
    got = IMAGE_FUNCTIONS[name](key, images)
    exact = np.asarray(IMAGE_FUNCTIONS[name](key, images.astype(np.float32)))
    assert got.dtype == dtype
    if dtype == "bool":
        np.testing.assert_array_equal(got, exact >= 0.5)
        assert not np.asarray(IMAGE_FUNCTIONS[name](key, np.zeros_like(images))).any()
    elif np.dtype(dtype).kind == "f":
        np.testing.assert_allclose(got, exact, rtol=2e-3)
    else:
        np.testing.assert_allclose(np.asarray(got, np.float64), exact, rtol=1e-6, atol=0.51)


@pytest.mark.parametrize("name", ["crop", "cutout"])
def test_pixels_that_float32_rounds_are_refused(name):
    images = np.full((4, 8, 8), 2**32 - 1, np.uint32)
    with pytest.raises(TypeError, match="pixels of uint32 may be rounded"):
        IMAGE_FUNCTIONS[name](jax.random.key(0), images)
    np.testing.assert_array_equal(fn.random_flip(jax.random.key(0), images), images)


def test_training_takes_int64_pixels():
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3))
    y = np.arange(20) % 2
    options = {"epochs": 1, "batch_size": 10, "augment": fn.random_resized_crop}

    def losses(x):
        data = fn.Dataset(x, y, x[:4], y[:4], [], [], ("a", "b"))
        result = fn.fit(
            fn.mlp([], 2, weight_scale=1e-3), fn.sgd(1e-3), data, key=jax.random.key(0), **options
        )
        return result.history.loss

    np.testing.assert_allclose(losses(x), losses(x.astype(np.float32)), rtol=1e-6)


@pytest.mark.slow
def test_the_command_asks_for_a_layout(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    train = ["train", "--dataset", str(tmp_path / "a.npz"), "--epochs", "1", "--hidden-dims", "2"]
    train += ["--augment", "flip", "--quiet", "--out", str(tmp_path / "run"), "--tta"]
    assert main(train) == 2
    assert "--layout CHW or HWC" in capsys.readouterr().err
    assert main([*train, "--layout", "HWC"]) == 0
    plain = [*train[: train.index("--augment")], "--quiet", "--out", str(tmp_path / "plain")]
    assert main(plain) == 0
    for command in ("evaluate", "predict"):
        files = [str(tmp_path / "a.npz")] * (command == "predict")
        assert main([command, str(tmp_path / "run"), *files, "--tta"]) == 0
        unlaid = [command, str(tmp_path / "plain"), *files]
        capsys.readouterr()
        assert main([*unlaid, "--tta"]) == 2
        assert "--layout CHW or HWC" in capsys.readouterr().err
        assert main([*unlaid, "--tta", "--layout", "HWC"]) == 0
        assert main([*unlaid, "--layout", "HWC"]) == 2
        assert "--layout is for --tta" in capsys.readouterr().err


@settings(max_examples=8, deadline=None)
@given_(
    st.sampled_from(list(IMAGE_FUNCTIONS)),
    st.sampled_from(["bool", "uint8", "int16", "uint16", "int32", "uint32", "float32"]),
    st.integers(1, 4),
    st.integers(0, 2**31 - 1),
)
def test_a_layout_is_an_order_of_axes_whatever_the_dtype(name, dtype, channels, seed):
    """Of any dtype: channels last are channels first, moved, and pixels stay those of the dtype."""
    function, rng = IMAGE_FUNCTIONS[name], np.random.default_rng(seed)
    top = 2 if dtype == "bool" else 120
    first = rng.integers(0, top, (2, channels, 6, 5)).astype(dtype)
    key = jax.random.key(seed)
    expected = np.asarray(function(key, first, layout="CHW"))
    found = np.asarray(function(key, np.moveaxis(first, 1, -1), layout="HWC"))
    assert found.dtype == expected.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 1), expected)
    assert expected.min() >= 0
    assert expected.max() <= first.max()
    if name in ("flip", "shift"):  # which take pixels from where they are
        assert set(np.unique(expected)) <= {0, *np.unique(first)}


@pytest.mark.parametrize("shape", [(2, 9, 9, 9), (2, 32, 32, 16), (2, 3, 4, 5, 4)])
def test_many_channels_may_be_anywhere(shape):
    with pytest.raises(ValueError, match="are height and width"):
        fn.random_flip(jax.random.key(0), np.zeros(shape, np.uint8))
