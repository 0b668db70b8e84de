"""Image files as arrays of bytes: nothing in them is rounded, and nothing is left out unsaid."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.limits import check_size
from funcnet.datasets.notes import note
from funcnet.files import open_file
from funcnet.text import one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # no others, whatever a file is called
MAX_PIXELS = 64_000_000  # of one image; a small file may say more, and take the memory
# How Pillow holds what becomes grey and what becomes colour; other modes would be rounded or bent.
GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA")
TIFF_BITS = 258  # the tag


class _Image(NamedTuple):
    """An image that was read.

    Attributes:
      pixels: uint8 [H, W] grey, or [H, W, 3].
      alpha: whether it said how transparent pixels are.
      animated: whether there are more images in its file.
    """

    pixels: np.ndarray
    alpha: bool
    animated: bool


def is_image(path: Path) -> bool:
    """Whether a name is that of an image that can be read."""
    return path.suffix.lower() in SUFFIXES


def check_image_size(size: Any) -> tuple[int, int] | None:
    """A height and a width as integers; None is none."""
    if size is None:
        return None
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be a height and a width (--image-size H W), got {size!r}")
    height = checks.COUNT.check("the height in size", size[0])
    width = checks.COUNT.check("the width in size", size[1])
    if height * width > MAX_PIXELS:
        raise ValueError(f"size {height} x {width} is above {MAX_PIXELS:,} pixels")
    return height, width


def read_images(
    folder: Path, files: Sequence[Path], size: tuple[int, int] | None = None
) -> np.ndarray:
    """Images as an array. They are turned as their EXIF orientation says.

    What is left out, alpha channels and all but the first frame of animated images, and that grey
    images become colour beside others that are, is in a `DataWarning`.

    Args:
      folder: where they are from, for warnings.
      files: at least one.
      size: the (H, W) to resize to, whatever that does to their shape; None keeps them.
    Returns:
      x uint8 [N, H, W] if all are grey, else [N, H, W, 3].
    Raises:
      ImportError: Pillow is missing.
      ValueError: a file is damaged, would lose something in 8 bits, has over `MAX_PIXELS`, or
        another size than the first; it is named.
    """
    images = [each for part in _parts(folder, files, size, len(files)) for each in part]
    colour = any(image.pixels.ndim == 3 for image in images)
    return _stacked(images, colour=colour)


class Coloured(Exception):
    """An image is not grey, where all were."""


def image_parts(
    folder: Path,
    files: Sequence[Path],
    size: tuple[int, int] | None,
    count: int,
    *,
    colour: bool,
) -> Iterator[np.ndarray]:
    """`read_images` of so many of the files at a time.

    Args:
      folder, files, size: as for `read_images`.
      count: how many images are held.
      colour: whether grey images become colour.
    Raises:
      Coloured: an image is not grey, and colour is False.
    """
    for part in _parts(folder, files, size, count):
        if not colour and any(image.pixels.ndim == 3 for image in part):
            raise Coloured
        yield _stacked(part, colour=colour)


def _parts(
    folder: Path, files: Sequence[Path], size: tuple[int, int] | None, count: int
) -> Iterator[list[_Image]]:
    """Images, so many at a time; at the end it is said what was left out of them."""
    checks.installed("PIL", "to read images", extra="images")
    shape: tuple[int, ...] = ()
    said: list[_Image] = []
    for start in range(0, len(files), count):
        images: list[_Image] = []
        for file in files[start : start + count]:
            images.append(image := _read(file, size))
            of_image = image.pixels.shape
            if not shape:
                shape, bytes_held = of_image, image.pixels.size * min(count, len(files))
                check_size(f"{folder}", bytes_held, bytes_held)
            if of_image[:2] != shape[:2]:
                raise ValueError(
                    f"{files[0]} is {shape[0]} x {shape[1]} pixels, but {file} is {of_image[0]} x "
                    f"{of_image[1]} (height x width): to resize all, give --image-size H W "
                    "(size=(H, W))"
                )
        said += [i._replace(pixels=np.empty((0,) * i.pixels.ndim, np.uint8)) for i in images]
        yield images
    _warn_of_losses(folder, files, said)


def _stacked(images: Sequence[_Image], *, colour: bool) -> np.ndarray:
    height, width = images[0].pixels.shape[:2]
    x = np.empty((len(images), height, width, *((3,) if colour else ())), np.uint8)
    for i, image in enumerate(images):
        x[i] = image.pixels[..., None] if colour and image.pixels.ndim == 2 else image.pixels
    return x


def _read(path: Path, size: tuple[int, int] | None) -> _Image:
    from PIL import Image, ImageOps

    with open_file(path) as file, _readable(path), Image.open(file, formats=FORMATS) as found:
        _check(found)
        alpha = found.mode in ("LA", "PA", "RGBA") or "transparency" in found.info
        animated, palette = bool(getattr(found, "is_animated", False)), found.mode == "P"
        image = ImageOps.exif_transpose(found).convert("L" if found.mode in GREY else "RGB")
        if palette and _is_grey(np.asarray(image)):
            image = image.convert("L")  # exactly, of such pixels
        if size is not None:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        return _Image(np.array(image), alpha, animated)


def _check(image: Any) -> None:
    """Refuse, by what its header says, an image that is too large or more than 8 bits deep."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"it has {height:,} x {width:,} pixels, more than {MAX_PIXELS:,}: make it smaller"
        )
    deep = any(";16B" in str(tile[3]) for tile in image.tile)  # as a PNG would be read
    if image.format == "TIFF":
        deep = max(image.tag_v2.get(TIFF_BITS, (1,))) > 8
    if deep or image.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
        raise ValueError(
            "it has more than 8 bits a channel, which would be rounded: save it with 8, or the "
            "numbers as a .npz"
        )
    if image.mode not in GREY + COLOUR:
        raise ValueError(f"it is {image.mode}, neither grey nor RGB: save it as one of these")


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _warn_of_losses(folder: Path, files: Sequence[Path], images: Sequence[_Image]) -> None:
    grey = [image.pixels.ndim == 2 for image in images]
    notes = [
        ([image.alpha for image in images], "{}: alpha channel left out"),
        ([image.animated for image in images], "{}: only the first frame is read"),
        (grey if not all(grey) else [], "{} grey: made colour, as the others are"),
    ]
    for which, message in notes:
        named = [str(file) for file, does in zip(files, which, strict=False) if does]
        if named:
            count = f"{checks.plural(len(named), 'image')} (such as {named[0]})"
            note(f"{folder}: {message.format(count)}")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what Pillow raises for a damaged file into one line, and what it warns of into none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked, and of stray metadata
            yield
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path} cannot be read as an image: it is none, or damaged") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{path} cannot be read as an image: it has more than {MAX_PIXELS:,} pixels"
        ) from None
    except Exception as error:  # a dozen kinds, of the decoders
        raise ValueError(f"{path} cannot be read as an image: {one_line(error)}") from None
