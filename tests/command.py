"""Running a command of the command line inside the process of the tests."""

import contextlib
import io

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
