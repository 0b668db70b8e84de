"""funcnet lr-find."""

import argparse
import inspect
import io
import json
import sys
from pathlib import Path
from typing import Any

import funcnet as fn
from funcnet import checks
from funcnet.cli.describe import summary
from funcnet.cli.options import add_config_options, add_recipe_option, given_options
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_data, make_config, noted, say_recipe
from funcnet.config import Config
from funcnet.datasets.dataset import first
from funcnet.defaults import complete_config
from funcnet.files import write_atomically
from funcnet.option import option
from funcnet.recipes import optimizer_of
from funcnet.signature import defaults
from funcnet.text import finite
from funcnet.train import FitOptions

# Options of `train` that say nothing of a few steps at a rate that rises.
IDLE = (
    *("learning_rate", "schedule", "learning_rate_decay", "decay_every", "warmup", "epochs"),
    *("eval_every", "patience", "monitor", "on_nonfinite", "reproducible", "model", "tta"),
)
RANGE = {"lowest": "the first learning rate", "highest": "the last one"}


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "lr-find",
        run,
        "find the learning rates at which a network trains",
        "A few hundred steps at a rate that rises from one to the next, and the loss of each: it "
        "falls, and in the end it explodes. Suggested is the rate where it falls fastest. Options "
        "are those of train; nothing is written, but a picture if it is asked for.",
        (
            "lr-find",
            "lr-find --hidden-dims 512 256 --optimizer sgd_momentum --plot rates.png",
            "lr-find --dataset measurements.csv --label species --json",
        ),
    )
    add_recipe_option(parser)
    add = parser.add_argument_group("range").add_argument
    usual = {n: p.default for n, p in inspect.signature(fn.find_learning_rate).parameters.items()}
    for name, what in RANGE.items():
        shown = f"{what} (default: {usual[name]:g})"
        add(f"--{name}", type=float, metavar="R", default=usual[name], help=shown)
    shown = f"how many steps there are (default: {usual['steps']})"
    add("--steps", type=int, metavar="N", default=usual["steps"], help=shown)
    add_config_options(parser, base)
    add = parser.add_argument_group("output").add_argument
    add("--plot", metavar="FILE", help="draw the losses over the rates: a .png, .pdf or .svg")
    add("--json", action="store_true", help="print all rates and losses as one JSON object")
    parser.set_defaults(base=base)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if args.plot is not None:
        _check_picture(Path(args.plot))
    args.quiet = args.json
    config = make_config(args)
    idle = [option(name) for name in given_options(args) if name in IDLE]
    if idle:
        what = ", ".join(idle)
        print(f"note: {what} of train make no difference to lr-find", file=sys.stderr)
    dataset = load_data(config)
    if not args.json:
        for line in summary(dataset):
            print(line)
    say_recipe(config, args)
    config = complete_config(config, first(dataset, config.num_train, "--num-train"))
    net, _, dataset, options = fn.experiment(config, dataset)
    names = (*defaults(FitOptions), "key", "batch_size")
    limits = {name: getattr(args, name) for name in (*RANGE, "steps")}
    with noted():
        found = fn.find_learning_rate(
            net,
            optimizer_of(config),
            dataset,
            **{name: value for name, value in options.items() if name in names},
            **limits,
        )
    print(_as_json(found) if args.json else _in_words(found, limits))
    if args.plot is not None:
        picture, kind = io.BytesIO(), Path(args.plot).suffix[1:]
        figure: Any = fn.plot_learning_rates(found).figure
        figure.savefig(picture, format=kind, dpi=120)
        write_atomically(args.plot, picture.getvalue())
        if not args.json:
            print(f"drawn in {args.plot}")
    return 0


def _check_picture(path: Path) -> None:
    """Raise unless a picture can be written there: better known before than after."""
    checks.installed("matplotlib", "to draw a picture")
    from matplotlib.figure import Figure

    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"--plot {path}: a picture ends in .png, .pdf, .svg or the like")
    if path.is_dir():
        raise IsADirectoryError(f"--plot {path} is a directory")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--plot {path}: there is no directory {path.parent}")


def _in_words(found: fn.RateRange, limits: dict[str, Any]) -> str:
    if not len(found.loss):
        return str(found)
    count = checks.plural(len(found.loss), "step")
    if len(found.loss) == limits["steps"]:
        return f"{found}\nthe loss has not exploded in {count}, at rates to {limits['highest']:g}"
    done = f"{len(found.loss):,} of {checks.plural(limits['steps'], 'step')}"
    return f"{found}\nended after {done}, where the loss exploded"


def _as_json(found: fn.RateRange) -> str:
    values = {name: getattr(found, name) for name in found._fields}
    lists = {n: v.tolist() if hasattr(v, "tolist") else v for n, v in values.items()}
    return json.dumps(finite(lists))
