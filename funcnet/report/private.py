"""What a report does not tell: where files lie, and whose machine it was."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from funcnet.text import visible

# Directories before a name, which begin at the root, at home or at a drive.
_DIRECTORIES = re.compile(r"(?<![\w.\-<])(?:~|[A-Za-z]:)?(?:[\\/][^\s\\/'\",;:()<>]+)+[\\/]")


def private(value: Any) -> Any:
    """Plain data with names in place of absolute paths, and no control characters in its text."""
    if isinstance(value, dict):
        return {private(name): private(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [private(each) for each in value]
    return visible(_without_directories(value)) if isinstance(value, str) else value


def _without_directories(text: str) -> str:
    text = text.replace(f"{Path.home()}/", "")
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute() and kind(text).name and "<" not in text:
            return kind(text).name
    return re.sub(_DIRECTORIES, "", text)
