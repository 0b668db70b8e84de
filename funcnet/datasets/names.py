"""Which arrays are examples and which are their labels, by the names that people give them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from funcnet.datasets.notes import listed, note
from funcnet.datasets.splits import GIVEN

# Examples and labels that go together, in any case. Each may have a split before it or after it.
FAMILIES = (
    (("x",), ("y",)),
    (
        ("data", "image", "images", "feature", "features", "input", "inputs"),
        ("target", "targets", "label", "labels"),
    ),
)
_ROLES = {
    word: (kind, family)
    for family, words in enumerate(FAMILIES)
    for kind, group in zip("xy", words, strict=True)
    for word in group
}
_WORD, _SPLIT = "|".join(_ROLES), "|".join(GIVEN)
_NAME = re.compile(
    rf"(?P<word>{_WORD})([_.-]?(?P<split>{_SPLIT}))?|(?P<first>{_SPLIT})[_.-]?(?P<last>{_WORD})"
)


class Role(NamedTuple):
    """What an array is by its name.

    Attributes:
      kind: "x" for examples, "y" for labels.
      family: the row of `FAMILIES` that the name is from.
      split: "train", "val" or "test"; None if the name says none.
    """

    kind: str
    family: int
    split: str | None


class Pair(NamedTuple):
    """The names of examples and of their labels."""

    x: str
    y: str


def role(name: str) -> Role | None:
    """What an array of this name is, such as `X_train` or `test_labels`; None if it says nothing.

    One letter is enough: `y_Val`, `trainX`.
    """
    match = _NAME.fullmatch(name.lower())
    if match is None:
        return None
    split = match["split"] or match["first"]
    return Role(*_ROLES[match["word"] or match["last"]], GIVEN[split] if split else None)


def find_pairs(path: Path, names: Iterable[str]) -> dict[str, Pair]:
    """The examples and the labels of each split that is given: of "train", and others or none.

    A pair whose names say no split is "train", from which the others are yet to be cut. Names that
    might have been meant, but are not read, are in a `DataWarning`.

    Raises:
      ValueError: there is no pair, or more than one that fits, or half of one.
    """
    names = list(names)
    roles = {name: found for name in names if (found := role(name)) is not None}
    pairs: dict[str | None, list[Pair]] = {}
    for x, (kind, family, split) in roles.items():
        if kind == "x":
            labels = [name for name in roles if roles[name] == Role("y", family, split)]
            pairs.setdefault(split, []).extend(Pair(x, y) for y in labels)
    pairs = {split: fits for split, fits in pairs.items() if fits}
    for fits in pairs.values():
        if len(fits) > 1:
            raise ValueError(f"{path} has {_listed_pairs(fits)}: rename those not to learn from")
    chosen = {split: fits[0] for split, fits in pairs.items()}
    read = {name for pair in chosen.values() for name in pair}
    _check_chosen(path, names, chosen)
    rest = [name for name in roles if name not in read]
    halves = [name for name in rest if roles[name].split is not None]
    if halves:
        other = "labels" if roles[halves[0]].kind == "x" else "examples"
        raise ValueError(
            f"{path} has {halves[0]!r}, but no {other} of a name that goes with it, the arrays in "
            f"it: {listed(names)}; add or rename them"
        )
    if rest:
        # Not an error: they may say something else, of what x and y are in older files.
        note(f"{path}: {listed(rest)} not read, beside {listed(sorted(read))}")
    order = (None, "train", "val", "test")
    return {split or "train": chosen[split] for split in order if split in chosen}


def _check_chosen(path: Path, names: list[str], chosen: dict[str | None, Pair]) -> None:
    if not chosen:
        raise ValueError(
            f"{path} has no array 'x' with its labels 'y', the arrays in it: {listed(names)}; "
            "other names are x_train, y_train, x_test, y_test, or images and labels"
        )
    if None in chosen and len(chosen) > 1:
        raise ValueError(
            f"{path} has {_listed_pairs(chosen.values())}: rename those of no split, to "
            f"{chosen[None].x + '_train'!r} and {chosen[None].y + '_train'!r} if they are that"
        )
    if None not in chosen and "train" not in chosen:
        raise ValueError(f"{path} has {_listed_pairs(chosen.values())}, but none to train on")


def find_inputs(path: Path, names: Iterable[str]) -> str:
    """The examples to predict from: those of no split, else those to test, else the only ones.

    Where others are passed over, a `DataWarning` says so.

    Raises:
      ValueError: there are none, or several that fit.
    """
    names = list(names)
    roles = {name: found for name in names if (found := role(name)) is not None}
    examples = [name for name in roles if roles[name].kind == "x"]
    for fits in (
        [name for name in examples if roles[name].split is None],
        [name for name in examples if roles[name].split == "test"],
        examples,
    ):
        if len(fits) > 1:
            raise ValueError(f"{path} has {listed(fits)}: rename those not to predict from")
        if fits:
            if len(examples) > 1:
                note(f"{path}: {fits[0]!r} is read, of {listed(examples)}")
            return fits[0]
    raise ValueError(
        f"{path} has no array 'x', the arrays in it: {listed(names)}; other names are x_test, "
        "data, images, features and inputs"
    )


def _listed_pairs(pairs: Iterable[Pair]) -> str:
    return " and ".join(f"{x!r} with {y!r}" for x, y in pairs)
