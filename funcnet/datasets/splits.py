"""Which examples are to train, which for validation and which for testing."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from funcnet import checks

GIVEN = {  # what a column may call splits
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

VAL_FRACTION = checks.Range(at_least=0, below=1)
TEST_FRACTION = checks.Range(at_least=0, below=1)
FRACTION = 0.1  # of either, unless it is given


def check_ranges(val_fraction: float | None, test_fraction: float | None) -> None:
    """Raise unless each of these is a fraction, or None."""
    if val_fraction is not None:
        VAL_FRACTION.check("val_fraction", val_fraction)
    if test_fraction is not None:
        TEST_FRACTION.check("test_fraction", test_fraction)


def check_fractions(
    val_fraction: float | None, test_fraction: float | None, given: Collection[str] = ()
) -> tuple[float, float]:
    """The fractions of the training part to cut off for validation and for testing.

    Args:
      val_fraction, test_fraction: what was asked for; None is `FRACTION`.
      given: which of "val" and "test" the data have already; of these nothing is cut.
    Raises:
      ValueError, TypeError: they leave nothing for training, are none, or are of what is given.
    """
    check_ranges(val_fraction, test_fraction)
    for name, value in (("val", val_fraction), ("test", test_fraction)):
        if name in given and value is not None:
            raise ValueError(
                f"{name}_fraction is {value:g}, but the {name} split is given and kept as it is: "
                f"leave {name}_fraction out (--{name}-fraction)"
            )
    val = 0.0 if "val" in given else FRACTION if val_fraction is None else val_fraction
    test = 0.0 if "test" in given else FRACTION if test_fraction is None else test_fraction
    if not val + test < 1:
        raise ValueError(
            "val_fraction + test_fraction must be below 1 to leave examples for training, got "
            f"{val:g} + {test:g}"
        )
    return val, test


def strata(y: np.ndarray, task: str) -> np.ndarray:
    """What `split` goes by, [N] integers: the classes; of other tasks all examples are alike."""
    return y if task == "classification" else np.zeros(len(y), np.int32)


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


def split_groups(
    groups: np.ndarray, val_fraction: float, test_fraction: float, seed: int
) -> list[np.ndarray]:
    """Indices for training, validation and testing, the rows of a group in one of them.

    Groups in an order shuffled by `seed` alone, the largest first, go where most rows are wanting,
    in proportion.

    Args:
      groups: [N] integers, -1 is a group of its own.
      val_fraction, test_fraction: of the rows, as near as groups allow.
      seed: of the shuffle.
    Raises:
      ValueError: there are fewer groups than splits.
    """
    fractions = np.array([1 - val_fraction - test_fraction, val_fraction, test_fraction])
    _, groups, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) < (fractions > 0).sum():
        raise ValueError(
            f"{checks.plural(len(counts), 'group')} cannot be split: each is whole in one split"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    order = rng.permutation(len(counts))
    place, filled, wanted = np.zeros(len(counts), int), np.zeros(3), fractions * len(groups)
    for group in order[np.argsort(-counts[order], kind="stable")]:  # the largest first
        room = np.divide(filled, wanted, out=np.full(3, np.inf), where=wanted > 0)
        place[group] = np.argmin(room)
        filled[place[group]] += counts[group]
    if not filled[0]:
        raise ValueError("no group is left for training")
    return [np.flatnonzero(place[groups] == i) for i in range(3)]


def split_in_order(
    values: np.ndarray, val_fraction: float, test_fraction: float
) -> list[np.ndarray]:
    """Indices for training, validation and testing, the last rows by `values` for testing.

    Args:
      values: [N] numbers, such as days, none missing; rows of one value are in one split, the
        later one.
      val_fraction, test_fraction: of the rows, as near as equal values allow.
    Raises:
      ValueError: none would be left for training.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    num_val, num_test = round(len(values) * val_fraction), round(len(values) * test_fraction)
    ends = [len(values) - num_val - num_test, len(values) - num_test]
    first, second = (
        int(np.searchsorted(ranked, ranked[end])) if end < len(values) else end for end in ends
    )
    if not first:
        raise ValueError("none are left for training before those for validation and testing")
    return [order[:first], order[first:second], order[second:]]


def given_split(words: Sequence[str]) -> list[np.ndarray] | None:
    """Indices by the name of a split that each row has, a key of `GIVEN`; None if others occur."""
    names = [GIVEN.get(word.lower()) for word in words]
    if None in names:
        return None
    return [np.flatnonzero([name == split for name in names]) for split in ("train", "val", "test")]


def repeated(train: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> int:
    """How many examples of another split are in training: columns x [N, D], y [N] and the like."""
    return int(np.isin(_hashes(*other), _hashes(*train)).sum())


def _hashes(x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """[N] uint64: rows that differ hardly ever have the same."""
    rng = np.random.Generator(np.random.PCG64(0))
    factors = rng.integers(2**63, size=x.shape[1] + len(others), dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(x), np.uint64)
    for start in range(0, len(x), 4096):
        part = slice(start, start + 4096)
        columns = [x[part], *(each[part, None] for each in others)]
        rows = np.concatenate(columns, axis=1, dtype=np.float64)
        bits = (rows + 0.0).view(np.uint64)  # -0.0 is 0.0
        bits ^= bits >> np.uint64(29)
        hashes[part] = (bits * factors).sum(axis=1, dtype=np.uint64)
    return hashes


def row_keys(seed: int, rows: np.ndarray, purpose: str) -> np.ndarray:
    """[N] uint64 in no order, one for each number of a row [N], and no two the same.

    Args:
      seed: other keys for each.
      rows: integers from 0.
      purpose: other keys for each, too.
    """
    start = hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8]
    keys = rows.astype(np.uint64) + np.frombuffer(start, "<u8")
    # The finalizer of SplitMix64 (Steele, Lea and Flood 2014): it maps integers one to one.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(31))


def word_key(seed: int, word: str) -> int:
    """A key of a word, as `row_keys` are of rows."""
    text = f"{seed} {word}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def places_by_key(keys: np.ndarray, val_fraction: float, test_fraction: float) -> np.ndarray:
    """[N], places in `dataset.SPLITS`, by keys [N] uint64: about these fractions of many."""
    shares = (keys >> np.uint64(11)) * 2.0**-53  # [0, 1)
    of_test, of_val = shares < test_fraction, shares < test_fraction + val_fraction
    return np.where(of_test, 2, np.where(of_val, 1, 0)).astype(np.int8)
