"""Text for people, tables; and for programs, what JSON can say."""

import math
from collections.abc import Sequence
from typing import Any


def aligned(lines: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Lines of cells as text in columns.

    Args:
      lines: the cells of each line, equally many.
      right: whether cells stand at the right of their columns.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    adjust = str.rjust if right else str.ljust
    return ["  ".join(map(adjust, line, widths)).rstrip() for line in lines]


def finite(value: Any) -> Any:
    """The value, None for a number that JSON does not have: NaN, or one that is infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
