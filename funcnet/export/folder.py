"""What an export writes: a folder whole or not at all, and of tables what their numbers are."""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from funcnet.datasets.dates import YEAR
from funcnet.datasets.encoding import Encoding
from funcnet.files import naming, write_atomically
from funcnet.model import Model

ENCODING = "encoding.json"
ABOUT = (
    "The columns of a row become the numbers of input_names, those of one feature after another.",
    "A number is itself, where it is missing the median; a median of null refuses a missing one.",
    "A category is 1 at the place of its word among categories, else 0; with other true there is "
    "one place more, for words that are not among them. A missing one is 0 everywhere.",
    "A date, in the order of year, month and day that is said, is the days since 1970-01-01, in "
    "UTC where it says so, its time a fraction of a day; where it is missing, the median. Then "
    f"sine and cosine of 2 pi days / period, for the periods {YEAR}, 7 and, with time true, 1.",
    "With missing true a last number is 1 where the cell was missing, else 0.",
)


def encoding_text(encoding: Encoding) -> bytes:
    """JSON of an Encoding, and how to apply it."""
    content = {"about": ABOUT, "input_names": encoding.names, **encoding.as_json()}
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode()


def encoding_path(path: str | os.PathLike[str]) -> Path:
    """Where the encoding lies: beside a file, or in a folder."""
    path = Path(path)
    return path / ENCODING if path.is_dir() else path.with_suffix(f".{ENCODING}")


def write_folder(
    path: str | os.PathLike[str], files: Mapping[str, bytes], model: Model, known: Collection[str]
) -> None:
    """Write a folder, and the encoding of a table in it, whole or not at all.

    Args:
      path: the folder; one of an earlier export is replaced as a whole.
      files: what is in them, by name.
      model: the model.
      known: the names of all files that such a folder may have.
    Raises:
      FileExistsError: there is something else. OSError: it cannot be written.
    """
    path = Path(path)
    if model.encoding is not None:
        files = {**files, ENCODING: encoding_text(model.encoding)}
    _check_replaceable(path, {*known, ENCODING, "__pycache__"})
    mark = secrets.token_hex(8)
    made, old = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("tmp", "old"))
    with naming(path):
        try:
            made.mkdir(parents=True)
            for name, data in files.items():
                write_atomically(made / name, data)
            if path.exists():
                path.rename(old)
            made.rename(path)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(made, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(path: Path, known: Collection[str]) -> None:
    """Raise a FileExistsError if a path is there, and no folder of an earlier export."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir() or {each.name for each in path.iterdir()} - {*known}:
        raise FileExistsError(f"{path} is there, and holds something else: give another path")
