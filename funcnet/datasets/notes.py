"""What loaders say: warnings of what they guessed or left out, errors with the file's name."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path


class DataWarning(UserWarning):
    """What a loader left out of someone's data, or guessed of them."""


def note(text: str) -> None:
    """Give a `DataWarning`; the command prints these as lines."""
    warnings.warn(text, DataWarning, stacklevel=3)


@contextlib.contextmanager
def naming_file(path: Path | str) -> Iterator[None]:
    """Put the file's name before an error about what it holds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
