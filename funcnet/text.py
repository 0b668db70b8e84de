"""Text for people, tables; and for programs, what JSON can say."""

import math
import re
from collections.abc import Sequence
from typing import Any

# What measures are called.
LABELS = {"accuracy": "accuracy", "rmse": "RMSE", "mae": "MAE", "r2": "R2"}
LABELS |= {"micro_f1": "micro F1", "macro_f1": "macro F1", "loss": "loss"}


def aligned(lines: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Lines of cells as text in columns.

    Args:
      lines: the cells of each line, equally many.
      right: whether cells stand at the right of their columns.
    """
    lines = [[visible(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    adjust = str.rjust if right else str.ljust
    return ["  ".join(map(adjust, line, widths)).rstrip() for line in lines]


def visible(text: str) -> str:
    """Text from elsewhere as a terminal may show it.

    Control characters, those that turn the direction of writing, and halves of characters are
    written as in a string of Python: they could say something else than is there.
    """
    return re.sub(
        "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda found: found[0].encode("unicode_escape").decode(),
        text,
    )


def one_line(error: BaseException) -> str:
    """What an error says, or is, in one line."""
    return visible(" ".join(str(error).split())) or type(error).__name__


def finite(value: Any) -> Any:
    """The value, None for each number in it that JSON does not have: NaN, or an infinite one."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(name: str, value: float) -> str:
    """A measure as it is printed; a name in a History, too."""
    if name.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    return six_digits(value) if name.endswith(("rmse", "mae")) else f"{value:.4f}"


def six_digits(value: float) -> str:
    """A number of any size to six digits, as many after the point as others of its size have."""
    return f"{value:#.6g}".removesuffix(".")
