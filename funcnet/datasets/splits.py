"""Which examples are to train, which for validation and which for testing."""

import numpy as np

from funcnet import checks

VAL_FRACTION = checks.Range(at_least=0, below=1)
TEST_FRACTION = checks.Range(at_least=0, below=1)


def check_fractions(val_fraction: float, test_fraction: float) -> tuple[float, float]:
    """Raise unless these are fractions of examples that leave some for training."""
    VAL_FRACTION.check("val_fraction", val_fraction)
    TEST_FRACTION.check("test_fraction", test_fraction)
    if not val_fraction + test_fraction < 1:
        raise ValueError(
            "val_fraction + test_fraction must be below 1 to leave examples for training, got "
            f"{val_fraction:g} + {test_fraction:g}"
        )
    return val_fraction, test_fraction


def split(y: np.ndarray, val_fraction: float, test_fraction: float, seed: int) -> list[np.ndarray]:
    """Indices for training, validation and testing, stratified by the labels `y` [N].

    In an order shuffled by `seed` alone, the k-th of n examples of a class is ranked k/n; the
    lowest ranks are for testing, the next for validation. So a class gives a split about its
    share, and its last example, of rank 1, goes before that of no other class.

    Raises:
      ValueError: none would be left for training.
    """
    num_val, num_test = round(len(y) * val_fraction), round(len(y) * test_fraction)
    if num_val + num_test >= len(y):
        raise ValueError(f"{checks.plural(len(y), 'example')} leave none for training")
    rng = np.random.Generator(np.random.PCG64(seed))
    order = rng.permutation(len(y))  # [N]
    by_class = order[np.argsort(y[order], kind="stable")]  # [N]
    counts = np.bincount(y)  # [C]
    start = np.repeat(np.cumsum(counts) - counts, counts)  # [N], where the class begins
    rank = np.empty(len(y))
    rank[by_class] = (np.arange(1, len(y) + 1) - start) / np.repeat(counts, counts)
    part = np.empty(len(y), np.int8)  # 0 for training, 1 for validation, 2 for testing
    by_rank = order[np.argsort(rank[order], kind="stable")]
    part[by_rank] = np.repeat([2, 1, 0], [num_test, num_val, len(y) - num_val - num_test])
    return [order[part[order] == which] for which in (0, 1, 2)]
