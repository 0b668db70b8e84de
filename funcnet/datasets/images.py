"""Folders of images: one for each class to train on, or one to predict from."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from funcnet import checks
from funcnet.datasets.dataset import Dataset
from funcnet.datasets.given import dataset_of
from funcnet.datasets.notes import listed, naming_file, note
from funcnet.datasets.pairs import holds_npy
from funcnet.datasets.pixels import check_image_size, is_image, read_images
from funcnet.datasets.splits import GIVEN, check_fractions, check_ranges, split
from funcnet.datasets.tasks import ReadTargets
from funcnet.files import check_entry

Classes = Mapping[str, list[Path]]  # the images of each class, in the order of their names


def load_images(
    path: str | PathLike[str],
    *,
    size: Sequence[int] | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """Load images that lie in folders, `path/CLASS/*.png`, and split them.

    Or they are split already, `path/train/CLASS/*.png`, and with it `path/val` (or valid,
    validation), `path/test` or both. These are kept, and only what is not given is cut, as by
    `load_arrays`, from the images to train, which are in a shuffled order.

    Images are .png, .jpg, .jpeg, .bmp, .gif, .webp, .tif and .tiff, in any case. They are taken in
    the order of their names, so that a split is the same everywhere. What is left out of them, or
    of the folders, is in a `DataWarning`: see `datasets.pixels`. This needs Pillow:
    `pip install "funcnet[images]"`.

    Args:
      path: the folder.
      size: the (H, W) to resize all to, whatever that does to their shape; None takes them as they
        are, all of one size.
      val_fraction: the fraction of examples for validation, from 0; 0.1 if None.
      test_fraction: the fraction for testing, in the same way.
      seed: of the shuffle, from 0.
    Returns:
      A Dataset with x uint8 [N, H, W] if all images are grey, else [N, H, W, 3]. Classes are the
      folders, sorted by name; by number, if all names are such.
    Raises:
      ImportError: Pillow is missing.
      FileNotFoundError: there is no such folder.
      ValueError: what is wrong, with the name of the file: it is damaged, above 64 megapixels, more
        than 8 bits deep, of another size, or a link that leads out of the folder.
    Example:
      >>> from pathlib import Path
      >>> from PIL import Image
      >>> for kind in ("cat", "dog"):
      ...     Path("pictures", kind).mkdir(parents=True)
      ...     for i in range(5):
      ...         image = Image.fromarray(np.full((8, 8), 20 * i, np.uint8))
      ...         image.save(f"pictures/{kind}/{i}.png")
      >>> data = fn.load_images("pictures", val_fraction=0.2, test_fraction=0.2)
      >>> data.x_train.shape, data.x_train.dtype, data.class_names
      ((6, 8, 8), dtype('uint8'), ('cat', 'dog'))
    """
    check_ranges(val_fraction, test_fraction)
    seed = checks.NATURAL.check("seed", seed)
    shape = check_image_size(size)
    root = Path(path)
    files, y, names = find_images(root, seed)
    with naming_file(root):
        fractions = check_fractions(val_fraction, test_fraction, files)
    x = read_images(root, [file for part in files.values() for file in part], shape)
    ends = np.cumsum([len(part) for part in files.values()])[:-1]
    parts = dict(zip(files, np.split(x, ends), strict=True))
    targets = ReadTargets("classification", list(y.values()), names)
    return dataset_of(root, parts, targets, fractions, seed)


def find_images(
    root: Path, seed: int
) -> tuple[dict[str, list[Path]], dict[str, np.ndarray], tuple[str, ...]]:
    """The images in folders of a folder, of "train" and the splits that are given, and classes.

    Returns:
      The files of each split, those to train on in a shuffled order; their classes, [N] int32
      each; what the classes are called.
    Raises:
      FileNotFoundError, ValueError: see `load_images`.
    """
    found = _find(root)
    names = _class_names(root, found)
    files, y = {}, {}
    for part, classes in found.items():
        files[part] = [file for name in names for file in classes.get(name, [])]
        counts = [len(classes.get(name, [])) for name in names]
        y[part] = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    order = split(y["train"], 0, 0, seed)[0]  # not class by class: who trains on the first few
    files["train"], y["train"] = [files["train"][i] for i in order], y["train"][order]
    return files, y, names


def read_folder(path: Path, size: Sequence[int] | None = None) -> np.ndarray:
    """The images in a folder in the order of their names, or the one image that a path is of."""
    shape = check_image_size(size)
    if not path.is_dir():
        return read_images(path, [path], shape)
    found = _look(path, path)
    folders = [folder.name for folder in found.folders]
    if not found.images:
        raise ValueError(
            f"{path} has no images to predict from: the folders in it are {listed(folders)}; name "
            "one of them"
            if folders
            else f"{path} has no images to predict from, and no folders"
        )
    found.warn(path, folders)
    return read_images(path, found.images, shape)


def holds_images(path: str | PathLike[str]) -> bool:
    """Whether a path is that of a directory, and not of one of .npy files."""
    return Path(path).is_dir() and not holds_npy(Path(path))


class _Found(NamedTuple):
    """What is in a folder, each sorted by name: folders, images, and the names of all else."""

    folders: list[Path]
    images: list[Path]
    others: list[str]

    def warn(self, folder: Path, others: Iterable[str] = ()) -> None:
        """Say what is left out: what is neither, and `others`."""
        out = [*others, *self.others]
        if out:
            why = "hidden or no images to read here"
            note(f"{folder}: {len(out)} left out, {why}: {listed(out)}")


def _look(root: Path, folder: Path) -> _Found:
    """What is in a folder; a link that leads out of `root` is refused."""
    found = _Found([], [], [])
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            found.others.append(entry.name)
            continue
        check_entry(root, entry)
        if entry.is_dir():
            found.folders.append(entry)
        elif is_image(entry) and entry.is_file():
            found.images.append(entry)
        else:
            found.others.append(entry.name)
    return found


def _find(root: Path) -> dict[str, Classes]:
    """The images of each class of "train", and of "val" and "test" where they are given."""
    top = _look(root, root)
    parts: dict[str, Path] = {}
    for folder in top.folders:
        part = GIVEN.get(folder.name.lower())
        if part is not None and parts.setdefault(part, folder) != folder:
            raise ValueError(f"{parts[part]} and {folder} are both the {part} split: rename one")
    if "train" not in parts or not _look(root, parts["train"]).folders:
        return {"train": _classes(root, root, top)}  # a class may be called train
    others = [folder.name for folder in top.folders if folder not in parts.values()]
    if others:
        raise ValueError(
            f"{root} has folders of splits, {listed([f.name for f in parts.values()])}, and "
            f"others, {listed(others)}: give a folder of the one or the other"
        )
    top.warn(root, [file.name for file in top.images])
    given = [(part, parts[part]) for part in ("train", "val", "test") if part in parts]
    return {part: _classes(root, folder, _look(root, folder)) for part, folder in given}


def _classes(root: Path, folder: Path, found: _Found) -> Classes:
    """The images in the folders of a folder."""
    classes: dict[str, list[Path]] = {}
    found.warn(folder, [image.name for image in found.images])
    for each in found.folders:
        inside = _look(root, each)
        if inside.folders:
            raise ValueError(
                f"{inside.folders[0]} is a folder where images are looked for: they lie in "
                "CLASS/*.png, or in train/CLASS/*.png beside val or test"
            )
        inside.warn(each)
        classes[each.name] = inside.images
    if not any(classes.values()):
        raise ValueError(
            f"{folder} has no folders with images, one for each class; the folders in it: "
            f"{listed(list(classes))}"
        )
    return classes


def _class_names(root: Path, found: Mapping[str, Classes]) -> tuple[str, ...]:
    """Those that have images anywhere."""
    known = {name for classes in found.values() for name in classes}
    names = {name for classes in found.values() for name in classes if classes[name]}
    if known - names:
        note(f"{root}: no class of {listed(sorted(known - names))}, where no images are")
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))
