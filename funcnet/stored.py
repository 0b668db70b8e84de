"""A Config from options by name, or from what the config.json of a run or a sweep holds."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from funcnet import checks
from funcnet.config import OPTIONS, Config, replaced
from funcnet.datasets.pairs import holds_npy
from funcnet.versions import FACTS, lift, stamp, version_of


def as_config(options: Mapping[str, Any]) -> Config:
    """A Config of options by name; what is missing is as in `Config()`.

    Args:
      options: a Config; or a mapping of options, also by older names, of which the last one counts;
        or what a config.json holds.
    Raises:
      ValueError, TypeError: there is no such option, with the nearest name; or as for `Config`.
    """
    if isinstance(options, Config):
        return options
    if version_of("run", options) is not None:
        return stored_config(lifted("run", options, "config"), "config")
    return replaced(Config(), options)


def lifted(kind: str, content: Mapping[str, Any], where: object) -> dict[str, Any]:
    """What the config.json of a run or a sweep holds, of any version, as this version has it.

    Raises:
      ValueError: it is of a newer version or of something else.
    """
    version = version_of(kind, content)
    if version is None:
        is_sweep = kind == "run" and version_of("sweep", content) is not None
        found = ": it is that of a sweep, whose best run is in best/ beside it" if is_sweep else ""
        raise ValueError(f"{where} is not the configuration of a funcnet {kind}{found}")
    return lift(kind, version, content, where)


def stored_config(content: Mapping[str, Any], where: object) -> Config:
    """The Config in what `lifted` gives; of what is not known, such as options to come, it warns.

    Raises:
      ValueError: it is damaged.
    """
    if "memory_map" not in content and _is_npy(str(content.get("dataset"))):
        content = {**content, "memory_map": "no"}  # so it was, whatever their size
    for name in [n for n in content if n not in {*OPTIONS, *FACTS, *stamp("run")}]:
        near = checks.nearest(name, OPTIONS)
        hint = f"; did you mean {near!r}?" if near else ""
        text = f"{where} has {checks.cut(name)}, which this funcnet does not know{hint}"
        warnings.warn(text, stacklevel=2)
    for name, known in OPTIONS.items():
        if name not in content:
            if known.needed:
                raise ValueError(f"{where} is damaged: {name} is missing")
            continue
        try:
            known.check(name, content[name])
        except (TypeError, ValueError):
            raise ValueError(f"{where} is damaged: {name} is {checks.cut(content[name])}") from None
    try:
        return Config(**{name: content[name] for name in OPTIONS if name in content})
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from None


def _is_npy(dataset: str) -> bool:
    """Whether a dataset is of .npy files."""
    path = Path(dataset)
    try:
        return path.suffix.lower() == ".npy" or (path.is_dir() and holds_npy(path))
    except OSError:  # no name of anything
        return False
