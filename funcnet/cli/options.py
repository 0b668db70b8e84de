"""Options of commands: those of experiments are made from the fields of Config."""

import argparse
import os
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import funcnet as fn
from funcnet import checks
from funcnet.augment import LAYOUTS
from funcnet.config import GROUPS, MODELS, OPTIONS, Config
from funcnet.option import Option, option
from funcnet.sweeps.search import Distribution

SPLITS = ("train", "val", "test")
TEXT = ("header", "separator", "decimal")  # options of text files


def views(config: Config, args: argparse.Namespace | None = None) -> Any:
    """What --tta averages over: by the options of a run, and those of a command that uses it.

    None if the command is not given --tta.
    """
    if args is None:
        return fn.flips_and_shifts(layout=config.layout)
    if args.layout is not None and not args.tta:
        raise ValueError("--layout is for --tta")
    return fn.flips_and_shifts(layout=args.layout or config.layout) if args.tta else None


def add_config_options(
    parser: Any,
    base: Config,
    *,
    takes: Callable[[Option], Any] = bool,
    several: bool = False,
) -> None:
    """An option for each field of Config that a command takes; what is not given has no value.

    Args:
      parser: the parser of the command.
      base: what is not given, for help.
      takes: whether the command takes an Option.
      several: whether options that a sweep may vary take several values.
    """
    for group, title in GROUPS.items():
        names = [n for n, known in OPTIONS.items() if known.group == group and takes(known)]
        if names:
            section = parser.add_argument_group(title)
        for name in names:
            known = OPTIONS[name]
            facts = _facts(name, known, several=several and known.sweep == "several")
            help = f"{known.help}{_shown(getattr(base, name))}".replace("%", "%%")
            section.add_argument(option(name), help=help, **facts)
            for alias in known.aliases:
                section.add_argument(option(alias), help=argparse.SUPPRESS, **facts)


def add_file_options(parser: Any, names: Iterable[str]) -> None:
    """Options that say how to read a file, by their names in Config."""
    for name in names:
        known = OPTIONS[name]
        facts = _facts(name, known, several=False)
        parser.add_argument(option(name), help=known.help.replace("%", "%%"), **facts)


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of experiments that were given."""
    return {name: getattr(args, name) for name in OPTIONS if hasattr(args, name)}


def _facts(name: str, known: Option, *, several: bool) -> dict[str, Any]:
    """What argparse wants to know of an option."""
    facts: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    if known.metavar is None:
        return {**facts, "action": argparse.BooleanOptionalAction}
    facts |= {"metavar": known.metavar, "type": _type(name, known)}
    if several and not known.several:
        kind = facts["type"] if known.range is None else _range_type(facts["type"], known)
        return {**facts, "nargs": "+", "type": kind}
    if several:
        facts["action"] = "append"
    if known.several or known.steps is not None:
        facts["nargs"] = "+" if known.least else "*"
    return facts


def _type(name: str, known: Option) -> Callable[[str], Any]:
    if known.choices is not None and known.range is not None:
        return NumberOrName(known.choices)
    if known.choices is not None:
        return NameAmong(name.replace("_", " "), known.choices)
    if known.range is not None:
        return int if isinstance(known.range, checks.Count) else float
    return str


def _range_type(kind: Callable[[str], Any], known: Option) -> Callable[[str], Any]:
    """A type for argparse: a value of an option, or a range of numbers."""
    whole = isinstance(known.range, checks.Count)

    def parse(text: str) -> Any:
        found = re.fullmatch(r"(log:)?(.+?)\.\.(.+)", text)
        try:
            if found is None:
                return kind(text)
            log, low, high = found.groups()
            if whole:
                return fn.integers(int(f"{log or ''}{low}"), int(high))  # log: is no integer
            ends = float(low), float(high)
        except ValueError:
            what = "an integer" if whole else "a number"
            raise argparse.ArgumentTypeError(
                f"expected {what}, or a range LOW..HIGH of such, got {text!r}"
            ) from None
        try:
            return (fn.log_uniform if log else fn.uniform)(*ends)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None

    return parse


def is_range(value: Any) -> bool:
    """Whether a value of an option is a range to draw from."""
    return isinstance(value, Distribution)


def _shown(default: Any) -> str:
    """A default, for help, if it says something."""
    if default is None or default is False or default == ():
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def add_device_options(parser: Any, *, columns: bool = True) -> None:
    """--devices, and --model-parallel if a command has it."""
    add = parser.add_argument_group("devices").add_argument
    add(
        "--devices",
        type=int,
        metavar="N",
        help="train on the first N devices; on one if not given. On a CPU, "
        "JAX_NUM_CPU_DEVICES=N makes N of its cores",
    )
    if columns:
        add(
            "--model-parallel",
            type=int,
            metavar="M",
            help="spread the weights of each affine layer over M of them, by columns (default: 1)",
        )


def add_process_options(parser: Any) -> None:
    """--coordinator, --processes and --process-id."""
    add = parser.add_argument_group(
        "processes",
        "Several train one net if each is begun with the same options and a number of its own; "
        "under Slurm's srun and Open MPI's mpirun they find each other.",
    ).add_argument
    add(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 is found, and listens: 127.0.0.1:PORT on one machine",
    )
    add("--processes", type=int, metavar="N", help="how many there are")
    add("--process-id", type=int, metavar="I", help="which one this is, from 0")


def one_thread(shards: int | None) -> None:
    """One thread to a device, before JAX has any, where bits are not to go by their number."""
    if shards is not None:
        os.environ.setdefault("PJRT_NPROC", "1")


def mesh_of(args: argparse.Namespace, processes: int = 1) -> Any:
    """The devices that a command is given, None for one as ever; of several processes all."""
    columns = getattr(args, "model_parallel", None)
    if args.devices is None and processes == 1:
        if columns is not None:
            raise ValueError("--model-parallel needs --devices")
        return None
    mesh = fn.device_mesh(args.devices, model_parallel=1 if columns is None else columns)
    if processes > 1 and len({device.process_index for device in mesh.devices.flat}) < processes:
        raise ValueError(f"--devices {args.devices} are not of all {processes} processes")
    return mesh


def add_recipe_option(parser: Any) -> None:
    """--recipe."""
    parser.add_argument(
        "--recipe",
        type=NameAmong("recipe", fn.list_recipes()),
        metavar="NAME",
        help=f"start from the options of a recipe: {listed(fn.list_recipes())}; if not given table "
        "for a table, else none; an option that is given as well takes the place of the recipe's",
    )


def add_model_options(parser: Any) -> None:
    """Which run, and which of its models."""
    parser.add_argument(
        "run_directory", metavar="RUN", help="directory of a run, such as runs/digits"
    )
    parser.add_argument(
        "--model",
        type=NameAmong("model", MODELS),
        metavar="NAME",
        help="best or last; as in training if not given",
    )


def add_run_options(parser: Any) -> None:
    """The options of what predicts by a run."""
    add_model_options(parser)
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average predictions over ten flips and shifts of each image",
    )
    parser.add_argument(
        "--layout",
        type=NameAmong("layout", LAYOUTS),
        metavar="NAME",
        help=f"of the images, for --tta: {listed(LAYOUTS)}; as in training if not given",
    )


class NameAmong:
    """A type for argparse: one of the known names, or an error with the nearest one."""

    def __init__(self, kind: str, known: Collection[str]) -> None:
        self.kind, self.known = kind, known

    def __call__(self, name: str) -> str:
        """The name."""
        if name not in self.known:
            raise argparse.ArgumentTypeError(checks.unknown(self.kind, name, self.known))
        return name


class NumberOrName:
    """A type for argparse: a number, or one of the known names in whatever case."""

    def __init__(self, known: Collection[str]) -> None:
        self.known = known

    def __call__(self, text: str) -> float | str:
        """The number or the name."""
        if text.lower() in self.known:
            return text.lower()
        try:
            return float(text)
        except ValueError:
            names = " or ".join(self.known)
            raise argparse.ArgumentTypeError(f"expected a number, {names}, got {text!r}") from None


def listed(names: Iterable[str]) -> str:
    """Names in a line."""
    return ", ".join(names)
