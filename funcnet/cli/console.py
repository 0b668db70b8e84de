"""What a command does with its terminal: lines, tables, interrupts."""

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import funcnet as fn
from funcnet.sweeps.table import RESULTS
from funcnet.text import aligned

ROWS = 10  # of a table that are printed


def say(line: str) -> None:
    """Print a line, above the progress bar if there is one.

    A reader that has gone, or a full disk behind standard output, must not cost the run.
    """
    from tqdm import tqdm

    try:
        tqdm.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        close_output()
    except OSError as error:
        print(f"warning: cannot write to standard output: {error.strerror}", file=sys.stderr)
        close_output()


def close_output() -> None:
    """Have what is printed from now on go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C through and ignore the next ones, while the run is being saved."""
    if not _listens_to_interrupts():
        yield
        return

    def interrupt(number: int, frame: Any) -> NoReturn:
        ignore_interrupts()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ignore_interrupts() -> None:
    """Let no Ctrl-C through from now on."""
    if _listens_to_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _listens_to_interrupts() -> bool:
    """Not in a shell's background job, which ignores Ctrl-C, nor in another thread."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )


def print_sweep(rows: list[dict[str, Any]], *, count: int = ROWS) -> None:
    """Print the best rows of a table: the settings that vary, means over seeds."""
    varying = [
        name
        for name in rows[0]
        if name not in RESULTS and len({str(row[name]) for row in rows}) > 1
    ]
    if "seed" in varying:
        rows = fn.mean_over_seeds(rows)
        shown = [n for n in varying if n != "seed"]
        columns = [*shown, "val_accuracy", "final_train_accuracy", "seeds", "diverged"]
    else:
        columns = [*varying, "val_accuracy", "best_epoch", "final_train_accuracy", "status"]
    ranked = sorted(
        rows, key=lambda row: -math.inf if row["val_accuracy"] is None else row["val_accuracy"]
    )
    ranked.reverse()
    head = [name.replace("_", " ") for name in columns]
    lines = [[_cell(row, name) for name in columns] for row in ranked[:count]]
    for line in aligned([head, *lines], right=True):
        say(line)
    if len(ranked) > count:
        say(f"... and {len(ranked) - count:,} more, in table.csv")


def describe(settings: dict[str, Any]) -> str:
    """Settings in words."""
    return ", ".join(f"{n.replace('_', ' ')} {_cell(settings, n)}" for n in settings)


def _cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return "-"
    if name.endswith("accuracy"):
        spread = row.get(f"{name}_std")
        return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
