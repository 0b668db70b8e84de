"""How much may come out of a file: one of a few kilobytes can unpack to more than any memory."""

import io
import os
from typing import Protocol

from funcnet.text import one_line

RATIO = 100  # so many times its compressed bytes a file may hold: numbers hardly reach it
FREE = 256 * 2**20  # bytes that any file may hold, whatever the ratio


class Readable(Protocol):
    """What `bounded` wraps: a binary file object, as those of gzip and zipfile."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def check_size(name: str, compressed: int, uncompressed: int) -> None:
    """Raise unless a file may be unpacked, or read: before its bytes are.

    Args:
      name: of the file, for the error.
      compressed: the bytes that it has; as many as `uncompressed` where nothing is compressed.
      uncompressed: the bytes that it says to hold.
    Raises:
      ValueError: they are more than `FREE` and `RATIO` times `compressed`, or than the memory.
    """
    if uncompressed > (limit := memory()):
        raise ValueError(
            f"{name} holds {shown(uncompressed)}, more than the {shown(limit)} of memory here"
        )
    check_ratio(name, compressed, uncompressed)


def check_ratio(name: str, compressed: int, uncompressed: int) -> None:
    """Raise as `check_size` does, of what is never in memory as a whole."""
    if uncompressed > max(FREE, RATIO * compressed):
        raise ValueError(
            f"{name} would unpack to {shown(uncompressed)} from {shown(compressed)}, more than "
            f"{RATIO} times as much: if that is right, save it without compression"
        )


def bounded(stream: Readable, *, compressed: int, name: str) -> io.BufferedReader:
    """A stream that unpacks, up to what `check_size` allows: of what does not say its size.

    Args:
      stream: what decompresses; it is closed with the returned one.
      compressed: the bytes that the file has.
      name: of the file, for errors.
    Returns:
      A binary file object to read from start to end. Its reads raise a ValueError where more comes
      out than `FREE`, `RATIO` times `compressed` and the memory allow, or where the compressed
      bytes are damaged or cut short.
    """
    return io.BufferedReader(_Bounded(stream, compressed, name))


class _Bounded(io.RawIOBase):
    """The raw stream below `bounded`."""

    def __init__(self, stream: Readable, compressed: int, name: str) -> None:
        self._stream, self._compressed, self._name, self._count = stream, compressed, name, 0

    def readable(self) -> bool:
        """Yes; it can do nothing else."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, as far as one read does; returns the bytes, 0 at the end."""
        try:
            data = self._stream.read(len(buffer))
        except Exception as error:  # a dozen kinds, of whatever unpacks
            raise ValueError(f"{self._name} cannot be unpacked: {one_line(error)}") from None
        self._count += len(data)
        check_size(self._name, self._compressed, self._count)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close what it reads from, too."""
        self._stream.close()
        super().close()


def read_all(name: str, stream: Readable) -> bytes:
    """All bytes of a stream that does not say how many they are, and may have no end.

    Raises:
      ValueError: they are more than half of the memory.
    """
    data, limit = io.BytesIO(), memory() // 2
    while part := stream.read(1 << 20):
        data.write(part)
        if data.tell() > limit:
            raise ValueError(f"{name} gives more than {shown(limit)}, half of the memory here")
    return data.getvalue()  # no copy


def memory() -> int:
    """The bytes of memory of this machine, where that can be asked; else more than any file has.

    Not what is free of it: caches give way to what is read.
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # as on Windows
        return 2**63


def shown(size: int) -> str:
    """`1,023 bytes`, `1.5 MiB`, `300 GiB`."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min((max(size, 1).bit_length() - 1) // 10, len(units) - 1)
    value = size / 1024**power
    return f"{value:,.3g} {units[power]}" if value < 1000 else f"{value:,.0f} {units[power]}"
