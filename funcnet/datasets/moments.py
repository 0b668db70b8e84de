"""Numbers that are added up part by part."""

import numpy as np


class Moments:
    """How many numbers there are, between which, their mean and spread, and what float32 rounds."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, 0.0, 0.0
        self.low, self.high, self._error = np.inf, -np.inf, 0.0

    def add(self, values: np.ndarray, times: int = 1) -> None:
        """Add numbers [N] float64 that are finite in float32, so many times each."""
        if len(values) and times:
            mean = float(values.mean())
            squares = times * float(((values - mean) ** 2).sum())
            error = float(np.abs(values.astype(np.float32) - values).max())
            ends = float(values.min()), float(values.max())
            self._join(times * len(values), mean, squares, ends, error)

    def join(self, other: "Moments") -> None:
        """Add the numbers that were added to another one."""
        if other.count:
            ends = other.low, other.high
            self._join(other.count, other._mean, other._squares, ends, other._error)

    def _join(
        self, count: int, mean: float, squares: float, ends: tuple[float, float], error: float
    ) -> None:
        total, apart = self.count + count, mean - self._mean
        self._squares += squares + apart**2 * self.count * count / total
        self._mean += apart * count / total
        self.count = total
        self.low, self.high = min(self.low, ends[0]), max(self.high, ends[1])
        self._error = max(self._error, error)

    @property
    def std(self) -> float:
        """The standard deviation; 0 of none."""
        return float(np.sqrt(self._squares / self.count)) if self.count else 0.0

    def rounded(self, tolerance: float) -> bool:
        """Whether float32 moves a number by more than so many standard deviations."""
        return self.low < self.high and self._error > tolerance * self.std
