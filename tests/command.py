"""What tests of the command line share: running a command inside their process, and files."""

import contextlib
import io
from pathlib import Path

from funcnet.cli import main


def run(*argv):
    """The exit code, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def cifar_folder(size):
    """A function that makes a folder of CIFAR-10 of zeros, two files of this size."""

    def make():
        folder = Path("data/cifar-10-batches-bin")
        folder.mkdir(parents=True)
        for batch in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4"):
            with (folder / f"{batch}.bin").open("wb") as file:
                file.truncate(30_730_000)
        for batch in ("data_batch_5", "test_batch"):
            with (folder / f"{batch}.bin").open("wb") as file:
                file.truncate(size)

    return make
