"""Small PNG files of images, by the standard library alone."""

import struct
import zlib
from typing import Any

import numpy as np

SIDE = 96  # pixels at most; larger images are thinned


def picture(image: np.ndarray, low: float, high: float) -> bytes:
    """An image as the bytes of a PNG file.

    Args:
      image: [H, W] or [H, W, C] numbers; one channel is grey, three are red, green and blue, of
        others the first is shown.
      low, high: what is black, and what is white.
    """
    step = -(-max(image.shape[:2]) // SIDE)
    image = np.asarray(image[::step, ::step], np.float64)
    scaled = 255 * (image - low) / ((high - low) or 1)
    pixels = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] != 3:
        pixels = pixels[..., 0]
    return encoded(pixels)


def encoded(pixels: np.ndarray) -> bytes:
    """A PNG file (ISO/IEC 15948) of uint8 pixels, [H, W] grey or [H, W, 3]."""
    height, width = pixels.shape[:2]
    color = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    unfiltered = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def as_images(x: Any, layout: str) -> np.ndarray:
    """Images [N, H, W] or [N, H, W, C] of examples in a layout, see `augment`."""
    x = np.asarray(x)
    return np.moveaxis(x, 1, -1) if x.ndim == 4 and layout == "CHW" else x
