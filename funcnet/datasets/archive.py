"""Datasets that are downloaded as one archive: where they lie, how they are read and fetched."""

import gzip
import io
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

from funcnet import checks
from funcnet.datasets import _download
from funcnet.datasets.dataset import Dataset, Source
from funcnet.datasets.sources import leads_out
from funcnet.files import naming, sync, write_atomically
from funcnet.text import one_line

SLACK = 2**24  # bytes of an archive besides those of the files that are read: headers, a readme
MEMBERS = 10_000


@dataclass(frozen=True)
class Archive:
    """A dataset that is some files in a folder, or the .tar.gz that they come in.

    On disk either serves: the archive is read as it is. Files of other names are not read.

    Attributes:
      name: the name of the dataset in the registry.
      title: what it is called in sentences.
      version: which of its versions this is, such as "binary version".
      urls: addresses of the archive, http or https, to try in turn.
      md5: the MD5 of the archive, 32 hexadecimal digits.
      file: the name of the archive on disk.
      folder: the name of the folder, on disk and in the archive.
      sizes: the bytes of each file in the folder, by name.
      check: raises a ValueError that says what is wrong with the bytes of a file.
      pickled: names of folders and archives of a version made of pickles, to be refused.
    """

    name: str
    title: str
    version: str
    urls: tuple[str, ...]
    md5: str
    file: str
    folder: str
    sizes: Mapping[str, int]
    check: Callable[[bytes], object]
    pickled: tuple[str, ...] = ()

    def source(self, about: str, load: Callable[..., Dataset]) -> Source:
        """The dataset as an entry of the registry; see `Source` for `about` and `load`."""
        return Source(self.name, self.title, about, load, self.find, self.download)

    def find(self, root: str | PathLike[str] | None = None) -> Path | None:
        """The folder or the archive that `read` reads; None if there is neither.

        Args:
          root: where it is: a directory that holds one of the two, or one of the two itself.
            By default $FUNCNET_DATA, then the user's cache directory.
        """
        for place in places(root):
            if place.is_file() and place.name not in self.pickled:
                return place
            folders, archive = [place / self.folder, place], place / self.file
            found = [folder for folder in folders if self._has_all(folder)]
            found += [archive] if archive.is_file() else []
            # What is left of a folder comes last: reading it says what is wrong with it.
            found += [folder for folder in folders if self._has_any(folder)]
            if found:
                return found[0]
        return None

    def read(self, root: str | PathLike[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Each name in `sizes`, in any order, with the bytes of that file, checked.

        Raises:
          FileNotFoundError: it is in none of the places, which the error lists.
          ValueError: a file is damaged.
        """
        found = self.find(root)
        if found is None:
            raise FileNotFoundError(self._not_found(places(root)))
        return self._read_archive(found) if found.is_file() else self._read_folder(found)

    def download(
        self,
        root: str | PathLike[str] | None = None,
        *,
        url: str | Sequence[str] | None = None,
        md5: str | None = None,
        progress: bool = True,
    ) -> Path:
        """Download and unpack the archive, unless the folder is there; returns the folder.

        What arrives is kept in `file` + ".part". If an address does not answer or its
        connection breaks, the next address goes on from there, and so does the next call after
        an interruption. The archive is checked by its MD5, unpacked and removed; one that is
        in `root` already is used instead of the network if its MD5 is right. Several processes
        may call this at once: one downloads, the others wait for it.

        Args:
          root: the directory to put the folder in, made if its parent exists. By default
            $FUNCNET_DATA, else the user's cache directory.
          url: an address of the archive, or several, in place of `urls`.
          md5: the MD5 of that archive, in place of `md5`.
          progress: whether to draw a bar on stderr (this needs tqdm).
        Raises:
          ConnectionError: no address gave all of it; it says why, and to call again to resume.
          OSError: a file or a directory cannot be written.
          ValueError: a wrong MD5, or an archive that does not hold what it should.
        """
        urls = [url] if isinstance(url, str) else list(self.urls if url is None else url)
        md5 = (md5 or self.md5).lower()
        place = places(root)[0]
        if place.name in (self.folder, self.file):
            place = place.parent
        folder, archive = place / self.folder, place / self.file
        if self._is_complete(folder):
            return folder
        if progress:
            checks.installed("tqdm", "for the progress bar (or pass progress=False)")
        place.mkdir(parents=place == cache_directory(), exist_ok=True)
        with _download.exclusive(place / f".{self.file}.lock", progress=progress):
            if self._is_complete(folder):  # by now, thanks to whom we waited for
                return folder
            if not (archive.is_file() and _download.file_md5(archive) == md5):
                _download.fetch(urls, archive, md5=md5, progress=progress)
            self._unpack(archive, folder)
            archive.unlink()
        return folder

    # What is on disk

    def _has_all(self, folder: Path) -> bool:
        """Whether all files are there, each of the right size."""
        files = [(folder / name, size) for name, size in self.sizes.items()]
        return all(file.is_file() and file.stat().st_size == size for file, size in files)

    def _has_any(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in self.sizes)

    def _is_complete(self, folder: Path) -> bool:
        """Whether all files are there and `read` would take them."""
        try:
            return sum(1 for _ in self._read_folder(folder)) == len(self.sizes)
        except (OSError, ValueError):
            return False

    def _not_found(self, tried: list[Path]) -> str:
        for place in tried:
            for pickled in (place, *(place / name for name in self.pickled)):
                if pickled.name in self.pickled and pickled.exists():
                    return (
                        f"{pickled} is the version of {self.title} that is made of pickles, which "
                        f"are never loaded; get the {self.version}: {self._command}"
                    )
        return (
            f"no {self.title} in {' or '.join(map(str, tried))} ({self.folder}/ or {self.file}); "
            f"to get it: {self._command}; if it is elsewhere: --data-dir (data_dir=) or "
            "$FUNCNET_DATA"
        )

    @property
    def _command(self) -> str:
        return f"funcnet datasets download {self.name}"

    @property
    def _again(self) -> str:
        return f"download again: {self._command}"

    # Reading

    def _read_folder(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        for name in self.sizes:
            path = folder / name
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; {self._again}")
            with path.open("rb") as file:
                yield name, self._checked(str(path), name, path.stat().st_size, file)

    def _read_archive(self, archive: Path) -> Iterator[tuple[str, bytes]]:
        wanted = {f"{self.folder}/{name}": name for name in self.sizes}
        try:
            with (
                gzip.open(archive) as packed,
                _Limited(packed, sum(self.sizes.values())) as stream,
            ):
                for member, file in _members(stream):
                    self._check_member(archive, member)
                    if member.name in wanted:
                        name = wanted.pop(member.name)
                        assert file is not None  # it is a regular file
                        where = f"{archive}: {member.name}"
                        yield name, self._checked(where, name, member.size, file)
                while stream.read(1 << 20):  # to the end, where the checksum is
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{archive} is damaged ({error}); {self._again}") from None
        if wanted:
            raise ValueError(
                f"{archive} lacks {next(iter(wanted))}: not the {self.version} of {self.title}, "
                f"or damaged; {self._again}"
            )

    def _check_member(self, archive: Path, member: tarfile.TarInfo) -> None:
        """Refuse what the archive of no dataset holds."""
        name, largest = member.name, max(self.sizes.values())
        if leads_out(name) or ":" in name:
            problem = "points outside the directory"
        elif not (member.isreg() or self._is_folder(member)) or member.issparse():
            problem = "is neither a file nor a directory"
        elif member.size > largest:
            problem = f"has {member.size:,} bytes, more than the {largest:,} expected of any"
        else:
            return
        raise ValueError(f"{archive}: {name!r} {problem}; {self._again}")

    def _is_folder(self, member: tarfile.TarInfo) -> bool:
        return member.isdir() and Path(member.name).name not in self.sizes

    def _checked(self, where: str, name: str, size: int, file: IO[bytes]) -> bytes:
        """The `size` bytes of an open file, if they are what file `name` should be."""
        if size != self.sizes[name]:
            raise ValueError(
                f"{where} has {size:,} bytes, expected {self.sizes[name]:,}: damaged; {self._again}"
            )
        data = file.read()
        try:
            self.check(data)
        except ValueError as error:
            raise ValueError(f"{where} is damaged: {error}; {self._again}") from None
        return data

    # Unpacking

    def _unpack(self, archive: Path, folder: Path) -> None:
        """Unpack the files into `folder`: all of them, or, if the archive is bad, none."""
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)  # from a process that was killed
        partial.mkdir()
        try:
            for name, data in self._read_archive(archive):
                write_atomically(partial / name, data)
            with naming(folder):
                folder.mkdir(exist_ok=True)
                for name in self.sizes:
                    (partial / name).replace(folder / name)
                sync(folder)
                sync(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _members(stream: Any) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The members of an archive, as far as `MEMBERS`, each with its bytes if it is a file.

    Whatever is raised for damage is a ReadError.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for count, member in enumerate(tar):
                if count > MEMBERS:
                    raise tarfile.ReadError(f"it has more than {MEMBERS:,} members")
                yield member, tar.extractfile(member) if member.isreg() else None
    except Exception as error:  # a dozen kinds
        raise tarfile.ReadError(one_line(error)) from None


class _Limited(io.RawIOBase):
    """A stream that gives no more bytes than what it is of has, and `SLACK` besides.

    What an archive says of its members is read before they are looked at, however long it is.
    """

    def __init__(self, stream: Any, size: int) -> None:
        self._stream, self._left = stream, size + SLACK

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes."""
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError("it unpacks to more than all of its files have")
        return data


# Where datasets lie


def places(root: str | PathLike[str] | None) -> list[Path]:
    """`root` if it is given, else $FUNCNET_DATA if it is set, and the user's cache directory."""
    if root is not None:
        return [Path(root).expanduser()]
    variable = os.environ.get("FUNCNET_DATA")
    return [*([Path(variable).expanduser()] if variable else []), cache_directory()]


def cache_directory() -> Path:
    """The user's cache directory for funcnet, as the operating system has it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "funcnet"
