"""What a command does with its terminal: lines, tables, interrupts."""

import _thread
import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import funcnet as fn
from funcnet.config import Config
from funcnet.sweeps.table import OVER, less_is_better, ranked, results_of, task_of, varying
from funcnet.targets import MEASURES
from funcnet.text import LABELS, aligned, shown

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


class Interrupts:
    """How often Ctrl-C, or SIGTERM, was heard: the first ends the run, the second the process.

    Attributes:
      code: the exit code of a run that was ended: 130 after Ctrl-C, 143 after SIGTERM.
      saving: whether what is left takes a second, and the first one is passed over.
    """

    def __init__(self) -> None:
        self.code, self.saving, self._heard = 130, False, False
        self._again = threading.Timer(0, lambda: None)

    def hear(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        self._again.cancel()
        if self._heard:  # files are written whole or not at all: there is nothing to wait for
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), b"\nfuncnet: ended at once\n")
            os._exit(128 + number)
        self._heard, self.code = True, 128 + number
        if not self.saving:
            raise KeyboardInterrupt

    def hear_again(self) -> None:
        """Have the first one come again, where what it raised was lost."""
        self._heard = False
        self._again = threading.Timer(0.01, _thread.interrupt_main, [self.code - 128])
        self._again.start()

    def close(self) -> None:
        """Let none come again."""
        self._again.cancel()


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Hear Ctrl-C and SIGTERM, but what a shell's background job ignores."""
    heard, before, hook = Interrupts(), {}, sys.unraisablehook

    def raised(lost: Any) -> None:
        # Python drops what is raised in callbacks of its garbage collector, of which JAX has one.
        if lost.exc_type is KeyboardInterrupt:
            heard.hear_again()
        else:
            hook(lost)

    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = raised
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, heard.hear)
    try:
        yield heard
    finally:
        heard.close()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def print_sweep(
    rows: list[dict[str, Any]], *, monitor: str | None = None, count: int = ROWS
) -> None:
    """Print the best rows of a table: the settings that vary, means over seeds.

    They are ranked by what is monitored, where it is in the table, else by the first measure.
    """
    first = results_of(task_of(rows))[0].removeprefix("val_")
    value = f"final_val_{first}" if "fold" in rows[0] else f"val_{first}"
    ranks = monitor if monitor in rows[0] and "fold" not in rows[0] else value
    names = varying(rows)
    if "seed" in names or "fold" in names:
        count_name = "members" if "fold" in rows[0] else "seeds"
        rows = fn.mean_over_seeds(rows)
        named = [n for n in names if n not in OVER]
        ranks = ranks if ranks in rows[0] else value  # of losses there are no means
        columns = [*named, value, f"final_train_{first}", count_name, "diverged"]
    else:
        columns = [*names, value, "best_epoch", f"final_train_{first}", "status"]
    if ranks not in columns:
        columns.insert(columns.index(value) + 1, ranks)
    best = ranked(rows, ranks, less_is_better(ranks))[:count]
    for line in table_lines([rows[i] for i in best], columns):
        say(line)
    if len(rows) > count:
        say(f"... and {len(rows) - count:,} more, in table.csv")


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Columns of a table as lines, under their names."""
    head = [name.replace("_", " ") for name in columns]
    return aligned([head, *([_cell(row, name) for name in columns] for row in rows)], right=True)


def best_line(best: fn.BestModel, history: fn.History, config: Config) -> str:
    """What the best model came to on the validation examples, and by what it is the best."""
    if math.isnan(best.loss):
        return f"the best model by {config.monitor} is that after epoch {best.epoch}"
    if config.monitor == "val_accuracy":
        return f"best validation accuracy {100 * best.accuracy:.2f} % after epoch {best.epoch}"
    measured = measured_at(history, best.epoch)
    said = [f"{LABELS[n]} {shown(n, measured[f'val_{n}'])}" for n in MEASURES[history.task]]
    return (
        f"validation {', '.join([*said, f'loss {best.loss:.4f}'])} of the best model by "
        f"{config.monitor}, that after epoch {best.epoch}"
    )


def validated(best: fn.BestModel, history: fn.History) -> dict[str, Any]:
    """What is kept of the best model: its epoch, and what it came to on validation examples."""
    measured = measured_at(history, best.epoch)
    first = MEASURES[history.task][0]
    return {"best_epoch": best.epoch, f"val_{first}": measured[f"val_{first}"]}


def measured_at(history: fn.History, epoch: int) -> dict[str, float]:
    """What was measured after an epoch, by the columns of a History."""
    at = int(np.flatnonzero(history.epoch == epoch)[-1])
    return {name: float(column[at]) for name, column in history.rows().items()}


def describe(settings: dict[str, Any]) -> str:
    """Settings in words."""
    return ", ".join(f"{n.replace('_', ' ')} {_cell(settings, n)}" for n in settings)


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return "-"
    if name.endswith("accuracy"):
        spread = row.get(f"{name}_std")
        return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")
    if isinstance(value, float):
        spread = row.get(f"{name}_std")
        if 1e4 <= abs(value) < 1e6:  # an RMSE in large units, which no one writes with an exponent
            return f"{value:.0f}" + (f" ± {spread:.0f}" if spread is not None else "")
        return f"{value:.4g}" + (f" ± {spread:.2g}" if spread is not None else "")
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
