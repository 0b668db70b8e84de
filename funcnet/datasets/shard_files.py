"""Datasets that lie on disk in shards: a directory of .npy files, and a manifest that says of what.

A shard is a part of a split, x and y and perhaps weights, each a plain .npy that can be mapped into
memory. The manifest is written last, and the directory appears under its name when all is in it.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import SPLITS, TASKS
from funcnet.datasets.encoding import Encoding, from_json
from funcnet.datasets.npz import read_header
from funcnet.files import check_entry, naming, open_file, read_json, sync
from funcnet.text import one_line, visible
from funcnet.versions import check_version, lift, stamp, version_of

MANIFEST = "dataset.json"  # what makes a directory one of shards
SHARD_BYTES = 256 * 2**20  # of the examples in a shard, about
MOST = 2**48  # rows, more than any disk holds
_FILE = re.compile(r"(x|y|weight)_(train|val|test)-\d{5,}\.npy")


class Part(NamedTuple):
    """One shard of a split; its files lie beside the manifest.

    Attributes:
      rows: N, at least 1.
      x: the file of examples [N, d1, ..., dk], in C order.
      y: the file of targets, as in a Dataset: int32 [N] classes, float64 [N] or [N, K] numbers,
        int32 [N, K] labels.
      weight: the file of weights, float64 [N]; None if there are none.
    """

    rows: int
    x: str
    y: str
    weight: str | None


class Manifest(NamedTuple):
    """What is in a directory of shards.

    Attributes:
      task, class_names, target_names, encoding: as in a Dataset.
      splits: the shards of "train", "val" and "test", in order; () where there is none.
      digest: sha256 of these facts and of the contents of all files, 64 hexadecimal digits.
    """

    task: str
    class_names: tuple[str, ...]
    target_names: tuple[str, ...]
    encoding: Encoding | None
    splits: Mapping[str, tuple[Part, ...]]
    digest: str


class Form(NamedTuple):
    """What the header of an array says, but for how many rows there are."""

    dtype: np.dtype
    shape: tuple[int, ...]  # of a row


# Reading


def holds_shards(path: str | PathLike[str]) -> bool:
    """Whether a path is that of a directory of shards."""
    return (Path(path) / MANIFEST).is_file()


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a directory of shards; of the arrays no more than their headers is read.

    Raises:
      FileNotFoundError: there is no manifest, or a file that it names is missing.
      ValueError: it is damaged, of a newer version, names files outside of the directory, or files
        that are not what it says; the file is named.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    content = read_json(path)
    version = version_of("shards", content) if isinstance(content, dict) else None
    if version is None:
        raise ValueError(f"{path} is not the manifest of a directory of shards")
    check_version("shards", version, path)
    manifest = _manifest(path, lift("shards", version, content, path))
    read_forms(directory, manifest)
    return manifest


def read_forms(directory: Path, manifest: Manifest) -> dict[str, Form]:
    """The Form of x, of y and, where there is one, of the weights, which all shards share.

    Raises:
      FileNotFoundError, ValueError: see `read_manifest`.
    """
    found: dict[str, tuple[Path, Form]] = {}
    for parts in manifest.splits.values():
        for part in parts:
            for kind in ("x", "y", "weight"):
                if (name := getattr(part, kind)) is None:
                    continue
                file = Path(directory) / name
                form = _form(Path(directory), file, part.rows)
                first, expected = found.setdefault(kind, (file, form))
                if form != expected:
                    raise ValueError(
                        f"{file} is {_shown(form)}, but {first.name} is {_shown(expected)}: all "
                        "shards are of one form"
                    )
    forms = {kind: form for kind, (_, form) in found.items()}
    for kind, (file, form) in found.items():
        if problem := _problem(kind, form, manifest.task, len(manifest.class_names)):
            raise ValueError(f"{file} is {_shown(form)}, {problem}")
    count = math.prod(forms["y"].shape)
    if manifest.target_names and len(manifest.target_names) != count:
        raise ValueError(
            f"{Path(directory) / MANIFEST} names {len(manifest.target_names)} targets, but "
            f"{found['y'][0].name} has {count}"
        )
    return forms


def _manifest(path: Path, content: Mapping[str, Any]) -> Manifest:
    """The Manifest of what JSON holds, or a ValueError."""
    try:
        encoding = content["encoding"]
        made = None if encoding is None else from_json(encoding)
        splits = {split: _parts(content["splits"][split]) for split in SPLITS}
        names = tuple(content["class_names"]), tuple(content["target_names"])
        manifest = Manifest(content["task"], *names, made, splits, content["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {one_line(error)}") from None
    texts = [*manifest.class_names, *manifest.target_names]
    sound = (
        manifest.task in TASKS
        and all(isinstance(content[name], list) for name in ("class_names", "target_names"))
        and all(isinstance(text, str) for text in texts)
        and bool(manifest.class_names) == (manifest.task != "regression")
        and not (manifest.target_names and manifest.task != "regression")
        and isinstance(manifest.digest, str)
        and re.fullmatch("[0-9a-f]{64}", manifest.digest) is not None
    )
    if not sound:
        raise ValueError(f"{path} is damaged: its task, names and digest do not go together")
    if not splits["train"]:
        raise ValueError(f"{path} is damaged: it has no shard to train on")
    every = [part for parts in splits.values() for part in parts]
    files = [name for part in every for name in part[1:] if name is not None]
    if len(set(files)) < len(files):
        raise ValueError(f"{path} is damaged: it names a file twice")
    for name in files:
        if not _is_plain(name):
            raise ValueError(f"{path} is damaged: {checks.cut(name)} is no file beside it")
    if len({part.weight is None for part in every}) > 1:
        raise ValueError(f"{path} is damaged: some shards have weights, and others have none")
    return manifest


def _parts(parts: Any) -> tuple[Part, ...]:
    if not isinstance(parts, list):
        raise TypeError("its shards are no list")
    return tuple(_part(part) for part in parts)


def _part(part: Any) -> Part:
    found = Part(part["rows"], part["x"], part["y"], part.get("weight"))
    if isinstance(found.rows, bool) or not isinstance(found.rows, int):
        raise TypeError(f"{checks.cut(found.rows)} is no number of rows")
    if not 0 < found.rows <= MOST:
        raise ValueError(f"{checks.cut(found.rows)} is no number of rows")
    names = [found.x, found.y, *([] if found.weight is None else [found.weight])]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{checks.cut(part)} is no shard")
    return found


def _is_plain(name: str) -> bool:
    """Whether a name is that of a .npy in the same directory, on any system."""
    return (
        name.endswith(".npy")
        and not name.startswith(".")
        and not re.search(r"[/\\:]", name)
        and visible(name) == name
    )


def _form(directory: Path, file: Path, rows: int) -> Form:
    """The Form of an array of so many rows, by its header and the size of its file."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing, which {MANIFEST} beside it names")
    check_entry(directory, file)
    with open_file(file) as stream:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that are damaged
                header = read_header(stream, os.fstat(stream.fileno()).st_size, "it")
        except Exception as error:  # a dozen kinds, of NumPy
            raise ValueError(f"{file} is damaged: {one_line(error)}") from None
    shape, fortran, dtype = header
    if shape[:1] != (rows,):
        raise ValueError(f"{file} is {list(shape)}, but {MANIFEST} says {rows:,} rows")
    if fortran and len(shape) > 1:
        raise ValueError(f"{file} is in Fortran order: rows must lie one after the other")
    return Form(dtype, shape[1:])


def _problem(kind: str, form: Form, task: str, classes: int) -> str | None:
    """What is wrong with a Form; None if nothing is."""
    if kind == "x":
        numbers = form.dtype.kind in "biuf" and form.dtype.isnative and form.dtype.itemsize <= 8
        sound = numbers and form.shape and math.prod(form.shape) > 0
        return None if sound else "expected numbers [N, ...]"
    shape = f"[N, {classes}]" if task == "multilabel" else "[N]"
    if kind == "weight":
        return None if form == Form(np.dtype(np.float64), ()) else "expected float64 [N]"
    if task == "regression":
        sound = form.dtype == np.float64 and len(form.shape) <= 1 and math.prod(form.shape) > 0
        return None if sound else "expected float64 [N] or [N, K]"
    wanted = Form(np.dtype(np.int32), (classes,) if task == "multilabel" else ())
    return None if form == wanted else f"expected int32 {shape}"


def _shown(form: Form) -> str:
    return f"{form.dtype} [N{''.join(f', {size}' for size in form.shape)}]"


# Writing


class Writer:
    """Writes a directory of shards: `with Writer(...) as writer: writer.add("train", x, y)`.

    When it is left without an error the directory is under its name, whole. Otherwise nothing is
    left of it, and what was there before is as it was.

    Args:
      out: the directory; the one that it is to be in must be there.
      task, class_names, target_names, encoding: as in a Dataset.
      overwrite: whether a directory of shards that is there is replaced; other things never are.
      shard_bytes: about how many bytes of examples a shard has.
    Raises:
      FileExistsError: `out` is there, and not to be replaced.
      ValueError: what is added is of another form than what was before, or nothing is to train on.
      OSError: it cannot be written.
    """

    def __init__(
        self,
        out: Path,
        task: str,
        class_names: tuple[str, ...],
        target_names: tuple[str, ...],
        encoding: Encoding | None,
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._out = Path(out)
        self._facts = {
            "task": checks.choose("task", task, {each: each for each in TASKS}),
            "class_names": list(class_names),
            "target_names": list(target_names),
            "encoding": None if encoding is None else encoding.as_json(),
        }
        self._classes, self._overwrite, self._shard_bytes = len(class_names), overwrite, shard_bytes
        self._directory: Path | None = None
        self._forms: dict[str, Form] | None = None
        self._open: dict[str, _Shard] = {}
        self._parts: dict[str, list[tuple[Part, list[str]]]] = {split: [] for split in SPLITS}

    def __enter__(self) -> "Writer":
        check_out(self._out, overwrite=self._overwrite)
        path = self._out.absolute()
        self._directory = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        with naming(path):
            self._directory.mkdir()
        return self

    def add(
        self, split: str, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
    ) -> None:
        """Append rows to a split: x [N, ...], y and weights as a `Part` has them."""
        assert self._directory is not None  # it is entered
        arrays = {"x": x, "y": y} | ({} if weight is None else {"weight": weight})
        forms = {kind: Form(a.dtype, a.shape[1:]) for kind, a in arrays.items()}
        if {len(array) for array in arrays.values()} != {len(x)}:
            raise ValueError("x, y and weights must have one row per example")
        if self._forms is None:
            task = str(self._facts["task"])
            for kind, form in forms.items():
                if problem := _problem(kind, form, task, self._classes):
                    raise ValueError(f"{kind} is {_shown(form)}, {problem}")
            self._forms = forms
        if forms != self._forms:
            raise ValueError("x, y and weights must have the dtypes and shapes of those before")
        form = forms["x"]
        rows = max(1, self._shard_bytes // (math.prod(form.shape) * form.dtype.itemsize))
        checks.choose("split", split, self._parts)
        start = 0
        while start < len(x):
            if split not in self._open:
                number = len(self._parts[split])
                self._open[split] = _Shard(self._directory, split, number, forms)
            shard = self._open[split]
            end = min(len(x), start + rows - shard.rows)
            shard.add({kind: array[start:end] for kind, array in arrays.items()})
            start = end
            if shard.rows == rows:
                self._close(split)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._directory is not None  # it is entered
        try:
            if kind is None:
                for split in list(self._open):
                    self._close(split)
                self._finish(self._directory)
        finally:
            for shard in self._open.values():
                shard.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _close(self, split: str) -> None:
        self._parts[split].append(self._open[split].finish())
        del self._open[split]

    def _finish(self, directory: Path) -> None:
        if not self._parts["train"]:
            raise ValueError("no example is left to train on")
        digest = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode())
        splits = {}
        for split, shards in self._parts.items():
            splits[split] = [part._asdict() for part, _ in shards]
            for _, contents in shards:
                digest.update("\n".join([split, *contents, ""]).encode())
        content = stamp("shards") | self._facts | {"splits": splits, "digest": digest.hexdigest()}
        path = directory / MANIFEST
        with naming(self._out), path.open("xb") as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync(directory)
        with naming(self._out):
            _put(directory, self._out.absolute(), overwrite=self._overwrite)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise unless a directory of shards may be written there.

    Raises:
      FileExistsError: something is there that may not be replaced.
      FileNotFoundError: the directory that it would be in is not there.
    """
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"{out.parent} is no directory to write {out.name} in: make it first"
        )
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise FileExistsError(
            f"{out} is there already: choose another name, or replace it with --overwrite "
            "(overwrite=True)"
        )
    if out.is_symlink() or not out.is_dir():
        raise FileExistsError(f"{out} is no directory of shards, and is not replaced: remove it")
    others = [e.name for e in out.iterdir() if e.name != MANIFEST and not _FILE.fullmatch(e.name)]
    if others:
        raise FileExistsError(
            f"{out} has {sorted(others)[0]!r}, which is not of a directory of shards, and is not "
            "replaced: remove it"
        )


def _put(directory: Path, out: Path, *, overwrite: bool) -> None:
    """Give a directory its name, in the place of what may be replaced."""
    check_out(out, overwrite=overwrite)  # it may have come meanwhile
    if not os.path.lexists(out):
        directory.rename(out)
    else:
        old = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
        try:
            out.rename(old)
            directory.rename(out)
        except BaseException:
            if not os.path.lexists(out) and old.is_dir():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(out.parent)


class _Shard:
    """The files of a shard, which rows are appended to, and the sha256 of each."""

    def __init__(self, directory: Path, split: str, number: int, forms: dict[str, Form]) -> None:
        self.rows, self._forms, self._split = 0, forms, split
        self._names = {kind: f"{kind}_{split}-{number:05}.npy" for kind in forms}
        self._hashes = {kind: hashlib.sha256() for kind in forms}
        self._files: dict[str, BinaryIO] = {}
        for kind, name in self._names.items():
            with naming(directory / name):
                self._files[kind] = (directory / name).open("xb")
                self._files[kind].write(_header(forms[kind], 0))

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for kind, array in arrays.items():
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            with naming(Path(self._files[kind].name)):
                self._files[kind].write(data)
            self._hashes[kind].update(data)
        self.rows += len(arrays["x"])

    def finish(self) -> tuple[Part, list[str]]:
        """Write how many rows there are; the Part, and for each file a line of its contents."""
        lines = []
        for kind, file in self._files.items():
            form = self._forms[kind]
            with naming(Path(file.name)):
                file.seek(0)
                file.write(_header(form, self.rows))  # it takes as many bytes as that of none
                file.flush()
                os.fsync(file.fileno())
                file.close()
            shape = [self.rows, *form.shape]
            lines.append(f"{kind} {form.dtype.str} {shape} {self._hashes[kind].hexdigest()}")
        return Part(self.rows, self._names["x"], self._names["y"], self._names.get("weight")), lines

    def close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # of a full disk, which has been said
                file.close()


def _header(form: Form, rows: int) -> bytes:
    """The header of a .npy, of one length for any number of rows."""
    stream = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(form.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (rows, *form.shape)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()
