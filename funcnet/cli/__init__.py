"""The command line: `funcnet COMMAND`, of COMMANDS.

`main` and `entry` stand here, not in a module main, which `funcnet.cli.main` would hide.
"""

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Sequence

import jax

import funcnet as fn
from funcnet import checks
from funcnet.cli import (
    completion,
    datasets,
    evaluate,
    export,
    gradcheck,
    predict,
    recipes,
    report,
    sweep,
    train,
    verify,
    watch,
)
from funcnet.cli.cache import keep_compiled
from funcnet.cli.console import close_output
from funcnet.cli.parser import Formatter, Parser
from funcnet.config import OPTIONS, Config
from funcnet.option import option
from funcnet.recipes import usual_recipe
from funcnet.text import one_line, visible

COMMANDS = {
    "train": train,
    "sweep": sweep,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "gradcheck": gradcheck,
    "verify": verify,
    "report": report,
    "watch": watch,
    "datasets": datasets,
    "recipes": recipes,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
      The exit code: 0; 1 if gradients, or the bits of `verify`, disagree; 2 for wrong input,
      with one line on stderr; 130 after Ctrl-C, 143 after SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parse(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show  # type: ignore[assignment]
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        close_output()
        if jax.distributed.is_initialized():  # the others wait for it, and it would for them
            os._exit(0)
        return 0
    except (ValueError, OSError, ImportError) as error:
        message = _one_line(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        why = "for want of memory perhaps"
        if jax.distributed.is_initialized():
            why = "perhaps since another process has ended; --resume RUN goes on"
        message = f"the computation failed, {why}: {_one_line(error)[:200]}"
    except KeyboardInterrupt:
        print(f"funcnet {args.command}: interrupted", file=sys.stderr)
        return 130
    print(f"funcnet {args.command}: error: {_as_typed(message, argv)}", file=sys.stderr)
    return 2


def entry() -> None:
    """The program `funcnet`."""
    keep_compiled()
    code = main()
    # An interrupted compiler does not survive the end of the interpreter, and what waits for other
    # processes then, when one of them has failed, does not end.
    if code in (130, 143) or (code and jax.distributed.is_initialized()):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def make_parser(base: Config) -> tuple[Parser, dict[str, Parser]]:
    """The parser of all commands, and that of each by its name.

    Args:
      base: what options are where they are not given.
    """
    parser = Parser(
        prog="funcnet",
        description="Fully connected networks in JAX with hand-written gradients.",
        epilog="funcnet COMMAND --help says more. To begin with: funcnet train",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"funcnet {fn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    return parser, {name: command.add(commands, base) for name, command in COMMANDS.items()}


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, known = make_parser(_base(argv))
    if not argv:
        parser.print_help()
        parser.exit(2)
    if not argv[0].startswith("-") and argv[0] not in known:
        parser.error(checks.unknown("command", argv[0], known))
    if argv[0] in known:
        _check_option_names(known[argv[0]], argv[1:])
    args, unknown = parser.parse_known_args(argv)
    if args.command is None:
        parser.error("no command is given; known: " + ", ".join(known))
    if unknown:
        command = known[args.command]
        command.error(f"unexpected argument {unknown[0]!r}; see {command.prog} --help")
    return args


def _check_option_names(command: argparse.ArgumentParser, words: list[str]) -> None:
    """Before argparse takes the value of an unknown option for an argument of its own."""
    options = [option for action in command._actions for option in action.option_strings]
    for word in words:
        name = word.split("=")[0]
        if re.match("-+[a-zA-Z]", name) and name not in options:
            near = checks.nearest(name, options)
            hint = f": did you mean {near}?" if near else f"; see {command.prog} --help"
            command.error(f"unknown option {name}{hint}")


def _base(argv: list[str]) -> Config:
    """What is not given: as in the recipe that is asked for, or in that of tables for one."""
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", nargs="?")
    first.add_argument("--dataset", nargs="?", default="")
    known = first.parse_known_args(argv)[0]
    name = known.recipe or usual_recipe(known.dataset or "")
    return fn.load_recipe(name) if name in fn.list_recipes() else Config()


def _as_typed(message: str, argv: Sequence[str]) -> str:
    """A message that names options as they were typed, if by an older name."""
    for name, known in OPTIONS.items():
        for alias in map(option, known.aliases):
            if any(word.split("=")[0] == alias for word in argv):
                message = message.replace(option(name), alias)
    return message


def _show(message: Warning | str, *rest: object) -> None:
    """Print a warning as a line, without the place in the program where it is given."""
    print(f"warning: {visible(str(message))}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return visible(f"{error.filename}: {error.strerror}")
    return one_line(error)
