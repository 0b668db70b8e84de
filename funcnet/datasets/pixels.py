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
    checks.installed("PIL", "to read images", extra="images")
    images: list[_Image] = []
    for file in files:
        images.append(image := _read(file, size))
        first = images[0].pixels
        if image.pixels.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"{files[0]} is {first.shape[0]} x {first.shape[1]} pixels, but {file} is "
                f"{image.pixels.shape[0]} x {image.pixels.shape[1]} (height x width): to resize "
                "all, give --image-size H W (size=(H, W))"
            )
        if len(images) == 1:
            check_size(f"{folder}", first.size * len(files), first.size * len(files))
    _warn_of_losses(folder, files, images)
    colour = any(image.pixels.ndim == 3 for image in images)
    x = np.empty((len(files), *first.shape[:2], *((3,) if colour else ())), np.uint8)
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
