"""Fetch one file over HTTP: resumed where it stopped, checked by its MD5, moved into place."""

import contextlib
import errno
import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from funcnet import _check
from funcnet._files import naming, sync

TIMEOUT = 60  # seconds without a byte before the connection counts as lost
CHUNK = 1 << 16  # bytes
RESUME = "run the same command again to resume"


def fetch(url: str, path: Path, *, md5: str, progress: bool) -> None:
    """Download `url` to `path`; until it is complete and correct, it is `path` + ".part".

    A `.part` that an earlier attempt left is continued. Should the result be wrong, it is
    fetched once more from the start: the earlier attempt may have been of another file.

    Args:
      url: an http or https address.
      path: where the file goes; replaced at once, never in part.
      md5: 32 hexadecimal digits, in lower case.
      progress: whether to draw a bar on stderr.
    Raises:
      ConnectionError: no connection, or it ended early; the `.part` is kept.
      OSError: the file cannot be written.
      ValueError: the file at `url` does not have this MD5.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")
    part = path.with_name(path.name + ".part")
    with naming(part):
        resumed = _receive(url, part, progress)
        found = file_md5(part)
        if resumed and found != md5:
            part.unlink()
            _receive(url, part, progress)
            found = file_md5(part)
        if found != md5:
            part.unlink()
            raise ValueError(
                f"{url} has MD5 {found}, expected {md5}: not the right file, or damaged on its "
                "way; it was deleted"
            )
        sync(part)
        part.replace(path)
        sync(path.parent)


def file_md5(path: Path) -> str:
    """The MD5 of a file as 32 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


class _Extent(NamedTuple):
    """Which bytes of the file a response holds: from `start` to before `stop`, of `total`."""

    start: int
    stop: int | None
    total: int | None


def _receive(url: str, part: Path, progress: bool) -> bool:
    """Append to `part` what it lacks; returns whether earlier bytes were kept."""
    have = part.stat().st_size if part.exists() else 0
    with contextlib.ExitStack() as stack:
        response = _open(url, have)
        if response is None:  # the server has nothing beyond `have`: the MD5 will tell
            return True
        stack.enter_context(response)
        extent = _extent(url, response)
        if extent.start not in (0, have):
            raise ConnectionError(
                f"cannot download {url}: asked for bytes from {have:,}, got bytes from "
                f"{extent.start:,}; delete {part} and try again"
            )
        file = stack.enter_context(part.open("r+b" if have else "wb"))
        if have:
            file.truncate(extent.start)
            file.seek(extent.start)
        advance = stack.enter_context(_bar(extent, progress))
        _copy(url, response, file, extent, advance)
    return extent.start > 0


def _open(url: str, have: int) -> http.client.HTTPResponse | None:
    """The response with the bytes from `have` on; None if the server knows of no such bytes."""
    headers = {"User-Agent": "funcnet", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:
                return None
            reason = f"the server answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", "") or error or type(error).__name__)
    raise ConnectionError(f"cannot download {url}: {reason}; {RESUME}")


def _extent(url: str, response: http.client.HTTPResponse) -> _Extent:
    if response.status == 200:  # the whole file, whether or not a range was asked for
        return _Extent(0, response.length, response.length)
    header = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", header.strip())
    if response.status != 206 or match is None:
        raise ConnectionError(
            f"cannot download {url}: unexpected answer {response.status} {response.reason}"
            + (f" with Content-Range {header!r}" if header else "")
        )
    start, stop = int(match[1]), int(match[2]) + 1
    return _Extent(start, stop, stop if match[3] == "*" else int(match[3]))


def _copy(
    url: str,
    response: http.client.HTTPResponse,
    file: Any,
    extent: _Extent,
    advance: Callable[[int], object],
) -> None:
    """Write the response to `file`, no byte beyond the announced end."""
    position = extent.start
    while extent.stop is None or position < extent.stop:
        wanted = CHUNK if extent.stop is None else min(CHUNK, extent.stop - position)
        try:
            data = response.read(wanted)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ConnectionError(
                f"the connection to {url} broke after {position:,} bytes: {reason}; {RESUME}"
            ) from None
        if not data:
            break
        file.write(data)
        position += len(data)
        advance(len(data))
    if extent.total is not None and position < extent.total:
        raise ConnectionError(
            f"the connection to {url} ended after {position:,} of {extent.total:,} bytes; {RESUME}"
        )


@contextlib.contextmanager
def _bar(extent: _Extent, progress: bool) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, as the function that moves it on by so many bytes."""
    if not progress:
        yield lambda count: None
        return
    with import_tqdm()(
        total=extent.total,
        initial=extent.start,
        unit="B",
        unit_scale=True,
        desc="download",
        file=sys.stderr,
    ) as bar:
        yield bar.update


def import_tqdm() -> Any:
    """The class that draws progress bars, or a one-line ImportError."""
    _check.installed("tqdm", "for the progress bar (or pass progress=False)")
    from tqdm import tqdm

    return tqdm


@contextlib.contextmanager
def exclusive(path: Path, *, progress: bool) -> Iterator[None]:
    """Hold the file lock `path`, waiting for another process that does.

    The operating system lets go of the lock when its process ends, however it ends: a file
    left behind blocks no one.
    """
    while True:
        with path.open("ab") as file:
            _lock(file.fileno(), path, progress)
            if not _is_open_file(file.fileno(), path):  # removed by who held it: once more
                continue
            try:
                yield
            finally:
                if sys.platform != "win32":  # which cannot remove open files
                    path.unlink(missing_ok=True)
            return


def _is_open_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, path: Path, progress: bool) -> None:
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError as error:  # it gives up after ten seconds
                if error.errno not in (errno.EACCES, errno.EDEADLOCK):
                    raise

else:
    import fcntl

    def _lock(descriptor: int, path: Path, progress: bool) -> None:
        with naming(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if progress:
                    print(f"waiting for another download to {path.parent}", file=sys.stderr)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
