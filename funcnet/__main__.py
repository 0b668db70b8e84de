"""The program `funcnet`, which is `python -m funcnet`, too."""

import os
import signal
import sys
from typing import Any, NoReturn


def entry() -> None:
    """Run the command of the command line.

    Ctrl-C ends it without a traceback wherever it comes: while the program is being loaded,
    before the command begins to listen for it, and after it has ended.
    """
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, _end)
        sys.unraisablehook = _raised
    from funcnet import cli

    try:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.entry()
    except KeyboardInterrupt:
        _end(signal.SIGINT, None)


def _end(number: int, frame: Any) -> NoReturn:
    os._exit(128 + number)


def _raised(lost: Any) -> None:
    """End for a Ctrl-C that Python drops, as it does in callbacks of its garbage collector."""
    if lost.exc_type is KeyboardInterrupt:
        _end(signal.SIGINT, None)
    sys.__unraisablehook__(lost)


if __name__ == "__main__":
    entry()
