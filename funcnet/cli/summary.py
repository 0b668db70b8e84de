"""funcnet summary."""

import argparse
import json
from typing import Any

import funcnet as fn
from funcnet import runs
from funcnet.again import check_data
from funcnet.cli.options import add_config_options, add_recipe_option, given_options
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_data, make_config, noted, say_recipe
from funcnet.config import Config
from funcnet.datasets.dataset import first
from funcnet.defaults import complete_config
from funcnet.option import option
from funcnet.recipes import build, shape_of_inputs


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "summary",
        run,
        "show the layers of a network, and what they cost",
        "The shape of what each layer gives, its parameters, floating-point operations of "
        "prediction and of a training step, and what it keeps for the backward pass. Of the run in "
        "a directory, or of what train does with the same options: nothing is trained, and the "
        "data are read for their shape.",
        (
            "summary",
            "summary runs/digits",
            "summary --dataset cifar10 --hidden-dims 512 256 --normalization batchnorm",
            "summary --dataset measurements.csv --label species --json",
        ),
        arguments="[RUN]",
    )
    parser.add_argument(
        "run_directory", nargs="?", metavar="RUN", help="directory of a run, such as runs/digits"
    )
    add_recipe_option(parser)
    add_config_options(parser, base)
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print everything as one JSON object")
    parser.set_defaults(base=base)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    args.quiet = args.json
    config, dataset = _new(args) if args.run_directory is None else _of_run(args)
    dataset = first(dataset, config.num_train, "--num-train")
    config = complete_config(config, dataset)
    net, optimizer, _ = build(config, dataset)
    shape = shape_of_inputs(config, dataset.x_train.shape[1:])
    found = fn.summarize(net, shape, optimizer=optimizer)
    print(_as_json(found) if args.json else found)
    return 0


def _new(args: argparse.Namespace) -> tuple[Config, fn.Dataset]:
    config = make_config(args)
    dataset = load_data(config)
    say_recipe(config, args)
    return config, dataset


def _of_run(args: argparse.Namespace) -> tuple[Config, fn.Dataset]:
    given = [*(["recipe"] if args.recipe else []), *given_options(args)]
    if given:
        raise ValueError(f"{option(given[0])} is not for a RUN, which has its own options")
    with noted():
        record = runs.load_record(args.run_directory)
    dataset = load_data(record.config)
    check_data(record, dataset, "since the run")
    return record.config, dataset


def _as_json(found: fn.Summary) -> str:
    rows = [row._asdict() for row in found.rows]
    return json.dumps({**found._asdict(), "rows": rows, "total": found.total._asdict()})
