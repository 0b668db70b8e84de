"""What is on disk has a version: an integer for each kind of directory or file, 0.1.0's is 1.

A change that an older funcnet could not read raises the version of its kind, and adds to LIFTS a
pure function that makes of content of the version before what this one would have written. A new
field that has a default is no new version. Examples of all versions are in tests/stored.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

VERSIONS = {
    "run": 5,
    "sweep": 6,
    "member": 3,
    "model": 3,
    "state": 1,
    "checkpoint": 1,
    "shards": 1,
}


# What a config.json holds besides options and its stamp, and what that is.
FACTS: dict[str, Any] = {
    **dict.fromkeys(("title", "recipe", "data_sha256", "status", "input_dtype"), str | None),
    **dict.fromkeys(("versions", "machine", "results"), dict),
    **dict.fromkeys(
        ("class_names", "target_names", "numbers", "settings", "halve_at", "mesh", "input_shape"),
        list,
    ),
    "search": dict | None,
    "objectives": list | None,
    "outputs": int,
    **dict.fromkeys(("chunk_size", "folds"), int | None),
}


def stamp(kind: str) -> dict[str, Any]:
    """What content of a kind says of itself: `format`, for older readers, and `version`."""
    return {"format": f"funcnet {kind} {VERSIONS[kind]}", "version": VERSIONS[kind]}


def version_of(kind: str, content: Mapping[str, Any]) -> int | None:
    """The version of content of a kind; None if it is of no kind or of another one."""
    found = re.fullmatch(rf"funcnet {kind} ([1-9]\d{{0,8}})", str(content.get("format")))
    if found is None or str(content.get("version", found[1])) != found[1]:
        return None
    return int(found[1])


def lift(kind: str, version: int, content: Any, where: object) -> Any:
    """Content of an older version of a kind as this version has it.

    Args:
      kind: a key of VERSIONS, or "table", the rows of a sweep, which have its version.
      version: that of the content.
      content: what was read; it is not changed.
      where: where it was read, for the error.
    Raises:
      ValueError: it is of a newer version.
    """
    check_version(kind, version, where)
    for number in range(version, _newest(kind)):
        content = LIFTS[kind, number](content)
    return content


def check_version(kind: str, version: int, where: object) -> None:
    """Raise unless this funcnet reads content of such a version: see `lift`."""
    newest = _newest(kind)
    if version > newest:
        raise ValueError(
            f"{where} was written by a newer funcnet: it is of version {version}, and this one "
            f"reads up to {newest}; install a newer funcnet"
        )


def _newest(kind: str) -> int:
    return VERSIONS["sweep" if kind == "table" else kind]


def _run_1(config: Mapping[str, Any]) -> dict[str, Any]:
    """0.1.0 called hidden_dims hidden, and mixup_alpha mixup; the oldest runs had null for he."""
    config = _renamed(config)
    if "weight_scale" in config and config["weight_scale"] is None:
        config["weight_scale"] = "he"
    if isinstance(config.get("preprocess"), str):
        config["preprocess"] = [config["preprocess"]]
    return config


def _sweep_1(config: Mapping[str, Any]) -> dict[str, Any]:
    config = _run_1(config)
    if isinstance(config.get("settings"), list):
        config["settings"] = _table_1(config["settings"])
    return config


def _table_1(rows: list[Any]) -> list[Any]:
    return [_renamed(row) if isinstance(row, Mapping) else row for row in rows]


def _run_2(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was not said was as it is for pixels; the label of a table was its last column."""
    config = _sweep_2(config)
    if config.get("schedule") is None:
        decays = config.get("learning_rate_decay") is not None
        config["schedule"] = "exponential" if decays else "constant"
    return config


def _sweep_2(config: Mapping[str, Any]) -> dict[str, Any]:
    once = {"preprocess": ["mean"], "reg": 0.0, "epochs": 20, "eval_every": 1, "model": "best"}
    config = {**once, **config}
    if str(config.get("dataset", "")).lower().endswith(".csv") and config.get("label") is None:
        config["label"] = "last"
    return config


def _run_3(config: Mapping[str, Any]) -> dict[str, Any]:
    """A table had one label, a name."""
    label = config.get("label")
    one = [] if label is None else [label] if isinstance(label, str) else label
    return {**config, "label": one}


def _member_2(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """A file had one member."""
    return {name: leaf[None] for name, leaf in leaves.items()}


def _same(content: Any) -> Any:
    return content


def _renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    names = {"hidden": "hidden_dims", "mixup": "mixup_alpha"}
    return {names.get(name, name): value for name, value in options.items()}


# By kind and version, what lifts it to the next.
LIFTS: dict[tuple[str, int], Callable[[Any], Any]] = {
    ("run", 1): _run_1,
    ("sweep", 1): _sweep_1,
    ("table", 1): _table_1,
    ("run", 2): _run_2,
    ("sweep", 2): _sweep_2,
    ("table", 2): _same,
    ("run", 3): _run_3,
    ("run", 4): _same,  # there were no embeddings
    ("sweep", 5): _same,
    ("table", 5): _same,
    ("sweep", 4): _run_3,
    ("table", 4): _same,
    ("model", 1): _same,
    ("model", 2): _same,
    ("member", 1): _same,
    ("sweep", 3): _same,
    ("table", 3): _same,
    ("member", 2): _member_2,
}
