"""A bar that says how far the reading of a file is."""

from types import TracebackType
from typing import Any

from funcnet import checks


class Progress:
    """A bar of rows on stderr, for the length of a `with`: call it with how many were read.

    Args:
      shown: whether there is one (this needs tqdm); where stderr is no terminal there is none.
    """

    def __init__(self, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            checks.installed("tqdm", "for the progress bar (or pass progress=False)")
            from tqdm import tqdm

            self._bar = tqdm(unit=" rows", unit_scale=True, miniters=1, leave=False, disable=None)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def start(self, total: int) -> None:
        """Begin anew, with so many rows to come."""
        if self._bar is not None:
            self._bar.reset(total)

    def __call__(self, rows: int) -> None:
        """So many rows were read."""
        if self._bar is not None:
            self._bar.update(rows)
