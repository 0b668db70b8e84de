"""Text for people: tables."""

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Lines of cells as text in columns.

    Args:
      lines: the cells of each line, equally many.
      right: whether cells stand at the right of their columns.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    adjust = str.rjust if right else str.ljust
    return ["  ".join(map(adjust, line, widths)).rstrip() for line in lines]
