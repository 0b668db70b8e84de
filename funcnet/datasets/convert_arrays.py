"""From arrays and images to shards: their targets are held, of examples some at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import SPLITS
from funcnet.datasets.given import warn_of_dtypes
from funcnet.datasets.images import find_images
from funcnet.datasets.names import Pair, find_pairs
from funcnet.datasets.notes import naming_file, warn_of_classes
from funcnet.datasets.npz import labelled
from funcnet.datasets.pairs import (
    array_names,
    check_labels,
    check_shape,
    open_array,
    read_arrays,
)
from funcnet.datasets.pixels import Coloured, check_image_size, image_parts
from funcnet.datasets.progress import Progress
from funcnet.datasets.shard_files import Writer
from funcnet.datasets.splits import check_fractions, places_by_key, row_keys
from funcnet.datasets.table import LARGEST
from funcnet.datasets.tasks import ReadTargets, as_targets

PART_BYTES = 2**24  # of examples that are read at once
IMAGES = 64  # that are read at once


def convert_pairs(
    path: Path,
    out: Path,
    progress: Progress,
    *,
    task: str | None,
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
    overwrite: bool,
) -> None:
    """`convert_dataset` of arrays that have names."""
    pairs = find_pairs(path, array_names(path))
    with naming_file(path):
        fractions = check_fractions(val_fraction, test_fraction, pairs)
    ys = dict(zip(pairs, read_arrays(path, [pair.y for pair in pairs.values()]), strict=True))
    rows, labels, dtypes = {}, {}, {}
    shapes: dict[str, tuple[int, ...]] = {}
    with naming_file(path):
        for split, pair in pairs.items():
            shape, dtype = _form(path, pair)
            check_labels(pair, shape[0], np.shape(ys[split]))
            shapes[split], dtypes[split] = shape, dtype
            check_shape(pair, shape, pairs["train"], shapes["train"])
            rows[split] = labelled(path, ys[split], "" if pair.y.lower() == "y" else pair.y)
            labels[pair.y] = ys[split][rows[split]]
        targets = as_targets(labels, task, path)
    warn_of_dtypes(path, dtypes)
    y = dict(zip(pairs, targets.y, strict=True))
    places = _places(path, {split: len(each) for split, each in y.items()}, fractions, seed)
    _warn_of_classes(path, targets, y, places)
    dtype = np.result_type(*dtypes.values())
    progress.start(sum(shape[0] for shape in shapes.values()))
    facts = targets.task, targets.class_names, targets.target_names, None
    with Writer(out, *facts, overwrite=overwrite) as writer:
        for split, pair in pairs.items():
            start = done = 0  # examples that were read, and those of them that have labels
            for x in _examples(path, pair):
                end = done + int(np.searchsorted(rows[split][done:], start + len(x)))
                kept = x[rows[split][done:end] - start].astype(dtype, copy=False)
                _add(writer, kept, y[split][done:end], places[split][done:end])
                start, done = start + len(x), end
                progress(len(x))


def convert_images(
    path: Path,
    out: Path,
    progress: Progress,
    *,
    image_size: object,
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
    overwrite: bool,
) -> None:
    """`convert_dataset` of images in folders."""
    size = check_image_size(image_size)
    files, y, names = find_images(path, seed)
    with naming_file(path):
        fractions = check_fractions(val_fraction, test_fraction, files)
    places = _places(path, {split: len(each) for split, each in y.items()}, fractions, seed)
    targets = ReadTargets("classification", list(y.values()), names)
    _warn_of_classes(path, targets, y, places)
    every = [file for part in files.values() for file in part]
    all_y, all_places = np.concatenate(list(y.values())), np.concatenate(list(places.values()))
    for colour in (False, True):  # most often the first image says it
        progress.start(len(every))
        try:
            with Writer(out, "classification", names, (), None, overwrite=overwrite) as writer:
                start = 0
                for x in image_parts(path, every, size, IMAGES, colour=colour):
                    own = slice(start, start + len(x))
                    _add(writer, x, all_y[own], all_places[own])
                    start += len(x)
                    progress(len(x))
            return
        except Coloured:
            continue


def _places(
    path: Path, counts: Mapping[str, int], fractions: tuple[float, float], seed: int
) -> dict[str, np.ndarray]:
    """For each split that is given, which place in SPLITS its examples go to."""
    places = {split: np.full(count, SPLITS.index(split)) for split, count in counts.items()}
    keys = row_keys(seed, np.arange(counts["train"]), "split")
    places["train"] = places_by_key(keys, *fractions)
    if not (places["train"] == 0).any():
        raise ValueError(
            f"{path}: {checks.plural(counts['train'], 'example')} leave none for training, as "
            "chance has it: try another seed, or smaller val_fraction and test_fraction"
        )
    return places


def _warn_of_classes(
    path: Path,
    targets: ReadTargets,
    y: Mapping[str, np.ndarray],
    places: Mapping[str, np.ndarray],
) -> None:
    if targets.task == "classification":
        of_all, where = (np.concatenate(list(each.values())) for each in (y, places))
        there = {split: of_all[where == i] for i, split in enumerate(SPLITS)}
        warn_of_classes(path, there, targets.class_names)


def _add(writer: Writer, x: np.ndarray, y: np.ndarray, places: np.ndarray) -> None:
    for i, split in enumerate(SPLITS):
        if len(rows := np.flatnonzero(places == i)):
            writer.add(split, x[rows], y[rows])


def _form(path: Path, pair: Pair) -> tuple[tuple[int, ...], np.dtype]:
    """The shape of examples [N, ...], and the dtype that they are read as."""
    shape, dtype, _ = open_array(path, pair.x, PART_BYTES)
    like = np.broadcast_to(np.zeros((), dtype), shape)
    if like.ndim < 2 or like.size == 0 or dtype.kind not in "biuf":
        checks.inputs(like, name=pair.x)  # which says what is wrong with it
    return shape, checks.inputs(np.zeros((1, 1), dtype), name=pair.x).dtype


def _examples(path: Path, pair: Pair) -> Iterator[np.ndarray]:
    """The examples in turn, some at a time, all of them numbers that float32 holds."""
    start = 0
    for part in open_array(path, pair.x, PART_BYTES)[2]:
        if part.dtype.kind == "f":
            _check_finite(path, pair.x, part, start)
        yield np.asarray(checks.inputs(part, name=pair.x))
        start += len(part)


def _check_finite(path: Path, name: str, part: np.ndarray, start: int) -> None:
    if float(part.max()) <= LARGEST and float(part.min()) >= -LARGEST:  # neither is NaN
        return
    row, *rest = np.argwhere(~(np.abs(part.astype(np.float64)) <= LARGEST))[0]
    where = ", ".join(map(str, (start + row, *rest)))
    raise ValueError(
        f"{path}: {name} must be finite in float32, but {name}[{where}] is {part[row, *rest]}"
    )
