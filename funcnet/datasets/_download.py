"""Fetch one file over HTTP: resumed where it stopped, checked by its MD5, moved into place."""

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from funcnet.files import check_writable, naming, open_to_lock, sync

TIMEOUT = 60  # seconds without a byte before the connection counts as lost
CHUNK = 1 << 16  # bytes
LOST = (OSError, http.client.HTTPException)  # what is raised when a connection fails


def fetch(urls: Sequence[str], path: Path, *, md5: str, progress: bool) -> None:
    """Download a file to `path`; until it is complete and correct, it is `path` + ".part".

    A `.part` that an earlier attempt left is continued. The addresses are tried in turn:
    where one does not answer, or its connection breaks, the next goes on from the bytes that
    are there. Should the result be wrong, it is fetched once more from the start: those bytes
    may have been of another file.

    Args:
      urls: http or https addresses of the same file.
      path: where the file goes; replaced at once, never in part.
      md5: 32 hexadecimal digits, in lower case.
      progress: whether to draw a bar on stderr, and to say there when the next address is tried.
    Raises:
      ConnectionError: no address gave all of the file; the `.part` is kept.
      OSError: the file cannot be written.
      ValueError: what arrived does not have this MD5.
    """
    if not urls or not all(url.startswith(("http://", "https://")) for url in urls):
        raise ValueError(f"url must begin with http:// or https://, got {', '.join(urls)!r}")
    part = path.with_name(path.name + ".part")
    check_writable(part)
    with naming(part):
        resumed = _receive(urls, part, progress)
        if resumed and file_md5(part) != md5:
            part.unlink()
            _receive(urls, part, progress)
        found = file_md5(part)
        if found != md5:
            part.unlink()
            raise ValueError(
                f"the file from {' or '.join(urls)} has MD5 {found}, expected {md5}: not the right "
                "file, or damaged on its way; it was deleted"
            )
        sync(part)
        part.replace(path)
        sync(path.parent)


def file_md5(path: Path) -> str:
    """The MD5 of a file as 32 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _receive(urls: Sequence[str], part: Path, progress: bool) -> bool:
    """Append to `part` what it lacks; returns whether earlier bytes were kept."""
    reasons: list[str] = []
    for url in urls:
        if reasons and progress:
            print(f"{reasons[-1]}; trying {url}", file=sys.stderr)
        try:
            return _receive_from(url, part, progress)
        except ConnectionError as error:
            reasons.append(f"{url}: {error}")
    raise ConnectionError(
        f"cannot download {'; '.join(reasons)}; run the same command again to resume"
    )


def _receive_from(url: str, part: Path, progress: bool) -> bool:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "funcnet"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # the file ends at `have` or before: its MD5 will tell
                return True
            raise ConnectionError(f"the server answered {error.code} {error.reason}") from None
    except LOST as error:
        raise ConnectionError(_reason(error)) from None
    with response:
        start, end = _extent(response, have)
        with part.open("ab" if start else "wb") as file, _bar(file, start, end, progress) as sink:
            _copy(response, sink, start, end)
    return start > 0


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where in the file a response begins, and where the file ends, if that is announced."""
    if response.status == 200:  # the whole file, whether or not a range was asked for
        return 0, response.length
    content = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(rf"bytes {have}-(\d+)/(\d+|\*)", content)
    if response.status != 206 or match is None:
        answer = f"{response.status} {response.reason} {content}".strip()
        raise ConnectionError(f"the server answered {answer}, asked for bytes from {have:,}")
    last, total = match.groups()
    return have, int(last) + 1 if total == "*" else int(total)


def _copy(response: http.client.HTTPResponse, file: BinaryIO, start: int, end: int | None) -> None:
    """Write the response to `file`, no byte beyond the announced end."""
    position = start
    while end is None or position < end:
        try:
            data = response.read(CHUNK if end is None else min(CHUNK, end - position))
        except LOST as error:
            reason = f"the connection broke after {position:,} bytes: {_reason(error)}"
            raise ConnectionError(reason) from None
        if not data:
            break
        file.write(data)
        position += len(data)
    if end is not None and position < end:
        raise ConnectionError(f"the connection ended after {position:,} of {end:,} bytes")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(reason) or type(reason).__name__


def _bar(file: BinaryIO, start: int, end: int | None, progress: bool) -> Any:
    """A context with `file`; a bar on stderr, if there is to be one, shows what is written."""
    if not progress:
        return contextlib.nullcontext(file)
    from tqdm import tqdm

    bar = {"initial": start, "total": end, "desc": "download", "file": sys.stderr}
    return tqdm.wrapattr(file, "write", **bar)


@contextlib.contextmanager
def exclusive(path: Path, *, progress: bool) -> Iterator[None]:
    """Hold the file lock `path`, waiting for another process that does.

    The operating system lets go of the lock when its process ends, however it ends: a file
    left behind blocks no one.
    """
    silent = not progress
    while True:
        with os.fdopen(open_to_lock(path), "ab") as file:
            # A file that its holder removed after it was opened here locks no one out.
            if _lock(path, file.fileno()) and os.fstat(file.fileno()).st_nlink:
                try:
                    yield
                finally:
                    if sys.platform != "win32":  # which cannot remove open files
                        path.unlink(missing_ok=True)
                return
        if not silent:
            print(f"waiting for another download to {path.parent}", file=sys.stderr)
            silent = True
        time.sleep(0.1)


if sys.platform == "win32":
    import msvcrt

    def _lock(path: Path, descriptor: int) -> bool:
        with contextlib.suppress(PermissionError):  # another process has it
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return True
        return False

else:
    import fcntl

    def _lock(path: Path, descriptor: int) -> bool:
        with naming(path), contextlib.suppress(BlockingIOError):  # another process has it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
