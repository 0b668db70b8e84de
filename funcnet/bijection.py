"""An order of any number of things that takes no memory: a keyed one-to-one mapping of numbers."""

from dataclasses import dataclass

import numpy as np

ROUNDS = 12
_ODD = 0x9E3779B97F4A7C15  # 2^64 / the golden ratio
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Bijection:
    """A mapping of 0, ..., count - 1 onto themselves in an order that looks like chance.

    The bits of a number are two halves, each of which is changed by a hash of the other one and of
    the key, in turn: a Feistel network (Luby and Rackoff 1988), which can be undone, and so is
    one-to-one, whatever the hash. It is of the least power of two that is not below count; what
    leads beyond count is mapped again, until it does not (Black and Rogaway 2002). The hash is the
    end of SplitMix64 (Steele, Lea and Flood 2014), in integers: it is the same everywhere.

    Attributes:
      count: how many numbers there are.
      key: by which orders differ, from 0 to 2^64 - 1.
    """

    count: int
    key: int

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Where the numbers are mapped.

        Args:
          numbers: [N] integers from 0 to count - 1.
        Returns:
          [N] int64.
        """
        found = self._once(np.asarray(numbers).astype(np.uint64))
        while len(beyond := np.flatnonzero(found >= self.count)):
            found[beyond] = self._once(found[beyond])
        return found.astype(np.int64)

    def _once(self, numbers: np.ndarray) -> np.ndarray:
        bits = max(2, (self.count - 1).bit_length())
        low_bits = np.uint64(bits // 2)
        low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
        high_mask = (np.uint64(1) << np.uint64(bits - bits // 2)) - np.uint64(1)
        low, high = numbers & low_mask, numbers >> low_bits
        for number in range(ROUNDS):
            own = _hash(np.array([(self.key + number * _ODD) % 2**64], np.uint64))
            if number % 2:
                high = high ^ (_hash(low + own) & high_mask)
            else:
                low = low ^ (_hash(high + own) & low_mask)
        return (high << low_bits) | low


def _hash(values: np.ndarray) -> np.ndarray:
    """[N] uint64, each of whose bits goes by all bits of the values [N] uint64."""
    values = (values ^ (values >> np.uint64(30))) * _FACTORS[0]
    values = (values ^ (values >> np.uint64(27))) * _FACTORS[1]
    return values ^ (values >> np.uint64(31))
