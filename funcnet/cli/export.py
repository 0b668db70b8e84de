"""funcnet export."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import funcnet as fn
from funcnet import checks
from funcnet.cli.options import NameAmong, add_model_options, listed
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_run
from funcnet.config import MODELS, Config
from funcnet.export.exported import FORMATS
from funcnet.export.scoring import Inputs, inputs_of_model
from funcnet.runs import Record

DTYPES = ("uint8", "float32", "float64")  # of raw inputs, those that are asked for


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    formats = "; ".join(f"{name}: {each.about}" for name, each in FORMATS.items())
    parser = add_command(
        commands,
        "export",
        run,
        "write a trained network for use without funcnet",
        "It takes what the network is fed before preprocessing, any number of examples at once, "
        "and gives scores, what predict predicts, and probabilities. Formats: "
        f"{formats}. The last two are for plain networks. Of a table it takes the numbers that "
        "columns become; how they do is written beside it, in JSON.",
        (
            "export runs/digits",
            "export runs/digits --format numpy --out digits-in-numpy",
            "export runs/penguins --format jax",
        ),
        arguments="RUN",
    )
    add_model_options(parser)
    parser.add_argument(
        "--format",
        type=NameAmong("format", FORMATS),
        default=next(iter(FORMATS)),
        metavar="NAME",
        help=f"{listed(FORMATS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="the file, or the folder of numpy and torch, to write; an older one is replaced "
        f"(default: in RUN, {', '.join(each.name for each in FORMATS.values())})",
    )
    parser.add_argument(
        "--input-shape",
        type=int,
        nargs="+",
        metavar="SIZE",
        help="shape of an example, such as 3 32 32; as in training if not given",
    )
    parser.add_argument(
        "--input-dtype",
        type=NameAmong("dtype", DTYPES),
        metavar="NAME",
        help=f"of its numbers: {listed(DTYPES)}; as in training if not given",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if args.out == "":
        raise ValueError("--out is empty")
    directory, which = _run_of(args)
    record, model, which = load_run(directory, which)
    path = Path(args.out) if args.out else Path(directory) / FORMATS[args.format].name
    inputs = _inputs(args, record, model)
    beside = fn.export_model(
        model, path, format=args.format, example=np.zeros((1, *inputs.shape), inputs.dtype)
    )
    print(f"{path}: the {which} model of {directory}; it takes {inputs}, raw inputs")
    if beside is not None:
        print(f"{beside}: how the columns of a table become those numbers")
    print(FORMATS[args.format].use.format(path=path))
    if args.format == "jax" and inputs.is_wide:
        print(f"within jax.enable_x64(True), as its inputs are {inputs.dtype}")
    return 0


def _run_of(args: argparse.Namespace) -> tuple[str, str | None]:
    """The run directory, and which of its models, that of a file in it if such was given."""
    path = Path(args.run_directory)
    if path.suffix != ".safetensors":
        return args.run_directory, args.model
    if path.stem not in MODELS:
        raise ValueError(
            f"{path} has no network, which is code: in Python fn.export_model(fn.load_model(path, "
            "net), out) exports it"
        )
    if args.model not in (None, path.stem):
        raise ValueError(f"--model {args.model} is not {path}")
    return str(path.parent), path.stem


def _inputs(args: argparse.Namespace, record: Record, model: fn.Model) -> Inputs:
    """What was asked for, or trained on; of runs that do not say, what the model does."""
    facts = record.facts
    shape, dtype = (facts.get(name) for name in ("input_shape", "input_dtype"))
    sound = shape is None or all(isinstance(size, int) and size > 0 for size in shape)
    if not sound or (dtype is not None and not _is_dtype(dtype)):
        raise ValueError(
            f"{args.run_directory} is damaged: its inputs are {checks.cut(dtype)} "
            f"{checks.cut(shape)}"
        )
    if any(size < 1 for size in args.input_shape or ()):
        raise ValueError(f"--input-shape wants sizes of 1 or more, got {args.input_shape}")
    shape, dtype = args.input_shape or shape, args.input_dtype or dtype
    if shape is None or dtype is None:
        found = inputs_of_model(model)
        shape, dtype = shape or found.shape, dtype or found.dtype
        print(
            f"note: the run does not say what it was trained on: inputs are {dtype}, "
            f"{[*shape]} each; --input-shape and --input-dtype decide otherwise",
            file=sys.stderr,
        )
    return Inputs(tuple(shape), np.dtype(dtype))


def _is_dtype(name: str) -> bool:
    try:
        return np.dtype(name).kind in "biuf"
    except TypeError:
        return False
