"""Dates in words: 2026-11-25, 25.11.2026, 2026-11-25T13:45:00+01:00 and their like."""

import datetime
import re
from collections.abc import Sequence

import numpy as np

_DATE = re.compile(
    r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})"
    r"(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(\.\d+)?)?)?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?"
)
_EPOCH = datetime.date(1970, 1, 1).toordinal()
# Where year, month and day stand, by the name of an order.
ORDERS = {"ymd": (0, 1, 2), "dmy": (2, 1, 0), "mdy": (2, 0, 1)}
YEAR = 365.2425  # days


def orders_of(words: Sequence[str]) -> tuple[str, ...]:
    """The keys of `ORDERS` in which all of the words are dates; none if they are something else.

    Two are left for 03/04/2026 and its like, in any order that comes first.
    """
    return tuple(order for order in ORDERS if words and days(words, order) is not None)


def days(words: Sequence[str], order: str) -> np.ndarray | None:
    """[N] float64, the days since 1970 of dates, with their time as a fraction; UTC if it says so.

    None if one of them is no date in this order. A year has four digits.
    """
    values = np.empty(len(words))
    for i, word in enumerate(words):
        value = _days(word, order)
        if value is None:
            return None
        values[i] = value
    return values


def cycles(days: np.ndarray, *, time: bool) -> np.ndarray:
    """[N, 4] or [N, 6], sine and cosine of the place in the year, in the week, and in the day."""
    periods = (YEAR, 7.0, 1.0) if time else (YEAR, 7.0)
    angles = [2 * np.pi * days / period for period in periods]
    return np.stack([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)


def _days(word: str, order: str) -> float | None:
    found = _DATE.fullmatch(word)
    if found is None:
        return None
    parts = (found[1], found[3], found[4])
    year, month, day = (parts[i] for i in ORDERS[order])
    if len(year) != 4:
        return None
    try:
        value = float(datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH)
    except ValueError:
        return None
    hour, minute, second = (int(part or 0) for part in found.group(5, 6, 7))
    if hour > 23 or minute > 59 or second > 60:
        return None
    seconds = 3600 * hour + 60 * minute + second + float(found[8] or 0) - _offset(found[9])
    return value + seconds / 86_400


def _offset(zone: str | None) -> int:
    """Seconds east of UTC."""
    if zone in (None, "Z"):
        return 0
    digits = zone[1:].replace(":", "")
    seconds = 3600 * int(digits[:2]) + 60 * int(digits[2:])
    return -seconds if zone[0] == "-" else seconds
