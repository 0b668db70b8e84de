"""Data sets that stay on disk: .npy files side by side, and directories of shards."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcnet import checks
from funcnet.bijection import Bijection
from funcnet.datasets.classes import MAX_CLASSES, as_classes, missing_labels
from funcnet.datasets.dataset import SPLITS, Dataset, dataset_of_parts
from funcnet.datasets.disk import Blocks, Stored, map_npy
from funcnet.datasets.given import warn_of_dtypes
from funcnet.datasets.limits import shown
from funcnet.datasets.names import Pair
from funcnet.datasets.notes import naming_file, note, warn_of_classes
from funcnet.datasets.pairs import check_labels, check_shape, npy_beside
from funcnet.datasets.shard_files import Part, read_manifest
from funcnet.datasets.splits import check_fractions
from funcnet.datasets.tasks import task_of_columns, task_of_values

LARGE = 2**30  # bytes of examples in .npy files from which they stay on disk, if nobody says
BLOCK = 2**17  # bytes of rows, neighbours, that are in one split
MEMORY_MAP = {"yes": True, "no": False}


def stays_on_disk(path: Path, pairs: Mapping[str, Pair], memory_map: str | None) -> bool:
    """Whether .npy files are to be mapped; a guess is said.

    Args:
      path: their directory, or the examples.
      pairs: those of each split, by `find_pairs`.
      memory_map: "yes" or "no"; None goes by their size.
    """
    if memory_map is not None:
        return memory_map == "yes"
    files = npy_beside(path)
    size = sum(files[pair.x].stat().st_size for pair in pairs.values())
    if size < LARGE:
        return False
    note(
        f"{path}: {shown(size)} of examples stay on disk, and are read in parts; --memory-map no "
        "(memory_map=) reads all into memory"
    )
    return True


def open_pairs(
    path: Path,
    pairs: Mapping[str, Pair],
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
    *,
    task: str | None = None,
) -> Dataset:
    """The Dataset of .npy files that stay on disk; arguments as for `load_pairs`.

    What is to be cut for validation and testing are blocks of neighbouring rows, 128 KiB each.
    """
    files = npy_beside(path)
    with naming_file(path):
        fractions = check_fractions(val_fraction, test_fraction, pairs)
        x = {split: _examples(pair.x, files[pair.x]) for split, pair in pairs.items()}
        labels = {pair.y: Stored([map_npy(files[pair.y])]) for pair in pairs.values()}
        for split, pair in pairs.items():
            check_labels(pair, len(x[split]), labels[pair.y].shape)
            check_shape(pair, x[split].shape, pairs["train"], x["train"].shape)
        found = _targets(labels, task, path)
    warn_of_dtypes(path, {name: each.dtype for name, each in x.items()})
    ys = dict(zip(x, found.y, strict=True))
    if found.task == "classification":
        warn_of_classes(path, dict(zip(x, found.classes, strict=True)), found.class_names)
    cut = dict(zip(SPLITS, (0.0, *fractions), strict=True))
    with naming_file(path):
        rows = _cut(len(x["train"]), x["train"].row_bytes, cut, seed)
    parts: list[list[Any]] = [[], []]
    for split in SPLITS:
        given = split in pairs and split != "train"
        for part, of in zip(parts, (x, ys), strict=True):
            part.append(of[split] if given else _some(of["train"], rows[split]))
    return dataset_of_parts(*parts, found.class_names, None, found.task, ())


def open_shards(path: Path, task: str | None, memory_map: str | None) -> Dataset:
    """The Dataset in a directory of shards, on disk unless `memory_map` is "no".

    Raises:
      FileNotFoundError, ValueError: see `read_manifest`; or the task is another one.
    """
    manifest = read_manifest(path)
    if task not in (None, manifest.task):
        raise ValueError(f"{path} is of {manifest.task}, and task is {task}: convert it anew")

    def rows(split: str, name: str, kind: str) -> Any:
        parts: tuple[Part, ...] = manifest.splits[split]
        files = [getattr(part, kind) for part in parts]
        if None in files or not files:
            return None
        stored = Stored([map_npy(path / file) for file in files], digest=manifest.digest)
        if kind == "x" or (kind == "y" and manifest.task == "regression"):
            return stored.checked(name, computed=kind == "x")
        if kind == "weight":
            return stored.made(partial(_sound_weights, name))
        top = len(manifest.class_names) - 1 if manifest.task == "classification" else 1
        return stored.made(partial(_sound, name, top))

    found = {
        (kind, split): rows(split, f"{kind}_{split}", kind)
        for kind in ("x", "y", "weight")
        for split in SPLITS
    }
    if memory_map == "no":
        found = {which: each if each is None else each[:] for which, each in found.items()}
    for kind in ("x", "y"):
        train = found[kind, "train"]
        for split in SPLITS[1:]:
            if found[kind, split] is None:
                found[kind, split] = np.empty((0, *train.shape[1:]), train.dtype)
    xs, ys, weights = ([found[kind, split] for split in SPLITS] for kind in ("x", "y", "weight"))
    facts = manifest.class_names, manifest.encoding, manifest.task, manifest.target_names
    return dataset_of_parts(xs, ys, *facts, weights=weights)


def _sound(name: str, most: float, rows: np.ndarray) -> np.ndarray:
    """Rows that were written from 0 to `most`, if they still are that."""
    if len(rows) and not (rows.min() >= 0 and rows.max() <= most):
        raise ValueError(f"{name} has something that is not from 0 to {most:g}: it is damaged")
    return rows


def _sound_weights(name: str, rows: np.ndarray) -> np.ndarray:
    """Weights that were written, if they are such as `checks.weights` takes."""
    most = checks.largest_weight()
    if len(rows) and not (rows.min() >= 0 and rows.max() <= most):
        raise ValueError(f"{name} must be >= 0 and at most {most:.0e}, but some are not")
    return rows


def _examples(name: str, path: Path) -> Stored:
    stored = Stored([map_npy(path)])
    if stored.ndim < 2 or stored.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be [N, ...] real numbers, got {list(stored.shape)} {stored.dtype}"
        )
    stored = stored.checked(name, computed=True)
    wide = stored.dtype.kind == "f" and stored.dtype.itemsize > 8
    return stored.made(lambda rows: rows.astype(np.float64)) if wide else stored


def _some(rows: Stored, blocks: Blocks | None) -> Any:
    if blocks is None:
        return rows
    return rows.some(blocks) if len(blocks) else np.empty((0, *rows.shape[1:]), rows.dtype)


def _cut(
    count: int, row_bytes: int, fractions: Mapping[str, float], seed: int
) -> dict[str, Blocks | None]:
    """The rows of each split, in blocks; None is all of them."""
    size = max(1, min(BLOCK // row_bytes, count // 1024))
    blocks = count // size
    num_val, num_test = (round(count * fractions[split] / size) for split in ("val", "test"))
    if num_val + num_test >= blocks:
        raise ValueError(f"{checks.plural(count, 'example')} leave none for training")
    key = int.from_bytes(hashlib.sha256(f"split {seed}".encode()).digest()[:8], "little")
    order, rest = Bijection(blocks, key), (blocks * size, count)
    none, cuts = (count, count), num_val + num_test > 0
    return {
        "train": Blocks(size, order, num_val + num_test, blocks, rest) if cuts else None,
        "val": Blocks(size, order, num_test, num_test + num_val, none),
        "test": Blocks(size, order, 0, num_test, none),
    }


class _Targets(NamedTuple):
    """Targets on disk: as `ReadTargets`, and the classes that occur in each split."""

    task: str
    y: list[Stored]
    class_names: tuple[str, ...] = ()
    classes: tuple[np.ndarray, ...] = ()


def _targets(labels: Mapping[str, Stored], task: str | None, source: Path) -> _Targets:
    """What `as_targets` makes of arrays, of such on disk: all of them are looked at in parts."""
    flat = {n: y.made(lambda r: r[:, 0]) if y.shape[1:] == (1,) else y for n, y in labels.items()}
    first = next(iter(flat))
    if any(y.shape[1:] != flat[first].shape[1:] for y in flat.values()):
        raise ValueError(f"the labels of all splits must be in one form, as {first} is")
    if flat[first].ndim == 2:
        return _of_columns(flat, task, source)
    if flat[first].ndim != 1:
        raise ValueError(f"{first} must be [N] or [N, K], got {list(flat[first].shape)}")
    values = [_values(y, name) for name, y in flat.items()]
    known = [each for each in values if each is not None]
    joined = np.unique(np.concatenate(known)) if len(known) == len(values) else None
    total = sum(map(len, flat.values()))
    if task is None:
        task, said = task_of_values(joined, total, flat[first].dtype)
        if said:
            note(f"{source}: {first} {said}")
    if task == "multilabel":
        raise ValueError(f"{first} is one target: several labels are [N, K], 0 or 1 each")
    if task == "regression":
        return _Targets(task, [_numbers(y, name) for name, y in flat.items()])
    if joined is None:
        raise ValueError(f"{first} has more than {MAX_CLASSES:,} values: they are no classes")
    codes, names = as_classes(joined, name=first, examples=total)

    def encode(rows: np.ndarray) -> np.ndarray:
        return codes[np.searchsorted(joined, rows)]

    return _Targets(task, [y.made(encode) for y in flat.values()], names, tuple(map(encode, known)))


def _of_columns(y: Mapping[str, Stored], task: str | None, source: Path) -> _Targets:
    first, width = next(iter(y)), next(iter(y.values())).shape[1]
    binary = one_hot = True
    for name, own in y.items():
        for part in own.parts():
            _check_known(part, name)
            binary = binary and bool(np.isin(part, (0, 1)).all())
            one_hot = one_hot and binary and bool((part.sum(axis=1) == 1).all())
    if task is None:
        task, said = task_of_columns(width, binary=binary, one_hot=one_hot)
        if said:
            note(f"{source}: {first} {said}")
    names = tuple(map(str, range(width)))
    if task == "regression":
        return _Targets(task, [_numbers(own, name) for name, own in y.items()])
    if not binary or (task == "classification" and not one_hot):
        what = "a 1 and zeros in every row" if task == "classification" else "0 or 1"
        raise ValueError(f"{first} must be {what}, to be of {task}")
    if task == "multilabel":
        return _Targets(task, [own.made(lambda r: r.astype(np.int32)) for own in y.values()], names)
    every = np.arange(width, dtype=np.int32)
    ys = [own.made(lambda r: r.argmax(axis=1).astype(np.int32)) for own in y.values()]
    return _Targets(task, ys, names, tuple(every for _ in ys))


def _values(y: Stored, name: str) -> np.ndarray | None:
    """The values that occur, sorted; None if they are more than classes may be."""
    if y.dtype.kind not in "biufUS":
        raise ValueError(f"{name} must hold labels, numbers or strings, got {y.dtype}")
    values: np.ndarray | None = np.zeros(0, y.dtype)
    for part in y.parts():
        _check_known(part, name)
        if values is not None:
            values = np.union1d(values, part)
            values = values if len(values) <= MAX_CLASSES else None
    return values


def _check_known(labels: np.ndarray, name: str) -> None:
    missing = missing_labels(labels)
    if missing.any():
        raise ValueError(
            f"{name} has examples without a label: funcnet datasets convert leaves them out, or "
            "--memory-map no (memory_map=)"
        )


def _numbers(y: Stored, name: str) -> Stored:
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds words, which are classes and no numbers")
    return y.made(lambda rows: rows.astype(np.float64)).checked(name)
