"""What loaders say: warnings of what they guessed or left out, errors with the file's name."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from funcnet.text import visible


class DataWarning(UserWarning):
    """What a loader left out of someone's data, or guessed of them.

    Example:
      >>> import warnings
      >>> table = {"size": [1, 2, 3, 4, 5, 6], "constant": [7] * 6, "kind": list("ababab")}
      >>> with warnings.catch_warnings(record=True) as caught:
      ...     warnings.simplefilter("always")
      ...     data = fn.load_table(table, "kind")
      >>> caught[0].category is fn.DataWarning
      True
    """


def note(text: str) -> None:
    """Give a `DataWarning`; the command prints these as lines."""
    warnings.warn(visible(text), DataWarning, stacklevel=3)


@contextlib.contextmanager
def naming_file(path: Path | str) -> Iterator[None]:
    """Put the file's name before an error about what it holds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def warn_of_classes(
    source: Path | str, y: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> None:
    """Give a `DataWarning` of classes that a split has, by its name, and that of training not."""
    for name, others in y.items():
        unseen = [class_names[i] for i in np.setdiff1d(others, y["train"])]
        if unseen:
            note(
                f"{source}: no example to train is of {listed(unseen)}, which the {name} split has"
            )


def listed(names: Sequence[str]) -> str:
    """Names in quotes; of many, the first ones and how many more."""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(map(repr, names[:12])) or "none") + more
