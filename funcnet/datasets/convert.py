"""From files of one's own to a directory of shards, which may be larger than the memory."""

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from funcnet import checks
from funcnet.datasets.arrays import check_array, holds_arrays
from funcnet.datasets.convert_arrays import convert_images, convert_pairs
from funcnet.datasets.convert_tables import convert_table
from funcnet.datasets.delimited import Format
from funcnet.datasets.images import holds_images
from funcnet.datasets.progress import Progress
from funcnet.datasets.shard_files import check_out, holds_shards
from funcnet.datasets.splits import check_fractions
from funcnet.datasets.tasks import check_task


def convert_dataset(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    label: str | Sequence[str] | None = None,
    task: str | None = None,
    weight: str | None = None,
    header: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    group: str | None = None,
    split_by: str | None = None,
    image_size: Sequence[int] | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Make a directory of shards of a file or folder, without ever holding its examples.

    What is read is what `load_arrays`, `load_table` and `load_images` read, but for standard
    input, pipes and files of Arrow: a table is read several times, from its beginning.

    Splits that are given are kept: x_val and its like, folders, a column of train, val and test.
    Otherwise each example with a label goes to one by a hash of its number and the seed, or of its
    group: the fractions hold about, the more examples the nearer, and a rare class may be missing
    from a split, which is said if it is that to train on. Examples keep their order, but for
    images, which are shuffled.

    A table becomes what `load_table` makes of it with the same rows to train on. Of a table of more
    than 100,000 such rows (fewer of very many columns) a sample of so many says what medians are,
    which a `DataWarning` says, and whether numbers are identifiers; a column of more than 100,000
    different words is left out as text. Not looked for are examples that are in two splits.

    Args:
      source: the path of a text file, of Parquet, a `.npz`, `.npy` or a directory of them, or a
        folder of images.
      out: the directory to make; the one that it is to be in must be there.
      label, task, weight, header, separator, decimal, columns, drop, categorical, group: as for
        `load_arrays` and `load_table`.
      split_by: a column of a table of the words train, val and test.
      image_size: the (H, W) that images are resized to, `size` of `load_images`.
      val_fraction, test_fraction: about which fractions of the examples are for validation and for
        testing; 0.1 if None. They are refused where that split is given.
      seed: of the splits, and of the order of images, from 0.
      overwrite: whether a directory of shards that is there is replaced, once all is written.
      progress: whether to draw a bar on stderr (this needs tqdm).
    Returns:
      The path of the directory.
    Raises:
      FileNotFoundError: there is no such file, or no directory to write in.
      FileExistsError: `out` is there, and is not to be replaced.
      ValueError: what is wrong with the file, with the line and the column of a table, or the
        number of the example; nothing is left on disk then.
    Example:
      >>> np.savez("data.npz", x=np.arange(2000.0).reshape(1000, 2), y=np.tile([0, 1], 500))
      >>> fn.convert_dataset("data.npz", "shards").name
      'shards'
      >>> data = fn.load_arrays("shards")
      >>> data.x_train.shape[1:], data.class_names
      ((2,), ('0', '1'))
    """
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source must be the path of a file or folder, got {type(source).__name__}")
    check_fractions(val_fraction, test_fraction)
    seed = checks.NATURAL.check("seed", seed)
    check_task(task)
    out, path = Path(out), Path(source)
    if holds_shards(path):
        raise ValueError(f"{path} is a directory of shards already")
    check_out(out, overwrite=overwrite)
    if path.is_dir() and out.absolute().resolve().is_relative_to(path.resolve()):
        raise ValueError(f"{out} is in {path}, which is read: choose a place outside of it")
    form = Format(header, separator, decimal)
    of_tables = {
        "label": label,
        "weight": weight,
        **form._asdict(),
        "columns": columns,
        "drop": drop,
        "categorical": categorical,
        "group": group,
        "split_by": split_by,
    }
    images, arrays = holds_images(path), holds_arrays(source)
    if image_size is not None and not images:
        raise ValueError(f"image_size is for folders of images, not for {path}")
    with Progress(progress) as bar:
        if images:
            check_array(path, {**of_tables, "task": task}, what="images")
            convert_images(
                path, out, bar, image_size=image_size, val_fraction=val_fraction,
                test_fraction=test_fraction, seed=seed, overwrite=overwrite,
            )  # fmt: skip
        elif arrays:
            check_array(path, of_tables)
            convert_pairs(
                path, out, bar, task=task, val_fraction=val_fraction, test_fraction=test_fraction,
                seed=seed, overwrite=overwrite,
            )  # fmt: skip
        else:
            convert_table(
                source, out, bar, label=label, task=task, weight=weight, form=form,
                columns=columns, drop=drop, categorical=categorical, group=group,
                split_by=split_by, val_fraction=val_fraction, test_fraction=test_fraction,
                seed=seed, overwrite=overwrite,
            )  # fmt: skip
    return out
