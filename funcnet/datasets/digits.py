"""The 1,797 handwritten digits that come with the package."""

from importlib import resources

import numpy as np

from funcnet.datasets.dataset import Dataset, Source


def load_digits() -> Dataset:
    """Load 1,797 images of handwritten digits, 8 x 8 pixels of 0 to 16.

    The split is fixed and needs no random numbers: of every ten examples of a class, in the
    order of the file, the first two are for testing, the third for validation.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits,
    UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, its test file;
    licensed CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).

    Returns:
      A Dataset with x uint8 [N, 8, 8]: 1,248 to train, 181 to validate, 368 to test.
    Example:
      >>> digits = fn.load_digits()
      >>> digits.x_train.shape, digits.x_train.dtype, len(digits.x_val), len(digits.x_test)
      ((1248, 8, 8), dtype('uint8'), 181, 368)
    """
    resource = resources.files("funcnet.datasets").joinpath("digits.npz")
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        x = archive["x"]  # [1797, 8, 8] uint8
        y = archive["y"].astype(np.int32)  # [1797]
    place = _position_in_class(y) % 10
    test, val, train = place < 2, place == 2, place > 2
    return Dataset(x[train], y[train], x[val], y[val], x[test], y[test], tuple("0123456789"))


def _position_in_class(y: np.ndarray) -> np.ndarray:
    """How many earlier examples have the same label: [N] for labels [N]."""
    position = np.empty_like(y)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        position[members] = np.arange(len(members))
    return position


DIGITS = Source(
    name="digits",
    title="digits",
    about="1,797 handwritten digits, 8 x 8, 10 classes",
    load=lambda root=None: load_digits(),
)
