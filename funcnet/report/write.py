"""Reports in files."""

import os
from collections.abc import Sequence
from pathlib import Path

from funcnet.files import write_atomically
from funcnet.report.data import collected
from funcnet.report.page import page

__all__ = ["write_report"]


def write_report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> Path:
    """Write a report of a run, a sweep or several runs as one HTML file, which needs no network.

    It has their configuration, curves, what came of them, mistakes with their images where the data
    can be loaded again, versions; and neither paths nor names of machines or people.

    Args:
      runs: the directory of a run or a sweep, or those of several runs to compare.
      path: the file, which is replaced if it is there.
    Returns:
      The path.
    Raises:
      FileNotFoundError: a directory is none of a run.
      ValueError: there is no directory, a file in one is damaged, or runs have no measure in
        common.
      OSError: the file cannot be written.
    Example:
      >>> from funcnet.cli import main
      >>> options = ["--epochs", "1", "--quiet", "--out", "runs/digits"]
      >>> main(["train", *options])  # doctest: +ELLIPSIS
      best validation accuracy ...
      saved in runs/digits
      0
      >>> print(fn.write_report("runs/digits", "report.html"))
      report.html
    """
    several = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    content = page(collected([Path(each) for each in several]))
    write_atomically(path, content.encode())
    return Path(path)
