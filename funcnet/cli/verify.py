"""funcnet verify."""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet import checks, runs
from funcnet.again import check_data
from funcnet.checkpoints import earlier_state, made_by
from funcnet.cli.options import one_thread
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_data, noted
from funcnet.config import Config
from funcnet.files import open_file
from funcnet.text import one_line
from funcnet.tree import named_leaves


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "verify",
        run,
        "train a run again, and say whether it comes to the same bits",
        "The losses of all steps and the last model are compared with those of the run, bit for "
        "bit. They agree on one kind of device, with one version of JAX and one number of cores. "
        "Nothing in the run directory is changed. Exit code 1 if they disagree.",
        ("verify runs/digits", "verify runs/digits --last"),
        arguments="RUN",
    )
    parser.add_argument(
        "run_directory", metavar="RUN", help="directory of a run, such as runs/digits"
    )
    parser.add_argument(
        "--last",
        action="store_true",
        help="only what came after the earliest checkpoint that is kept",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    checks.installed("safetensors", "to read the model")
    path = Path(args.run_directory)
    with noted():
        record = runs.load_record(path)
    one_thread(record.config.reproducible)  # before there is an array
    last = runs.run_model(path, record, "last")
    done = record.facts.get("results", {}).get("epochs")
    if not done:
        raise ValueError(
            f"{path} has no epochs of its own to train again: it was ended before the first, or is "
            "the best of a sweep"
        )
    stored = _losses(path / "losses.csv")
    dataset = load_data(record.config)
    check_data(record, dataset, "since the run")
    net, optimizer, trained_on, options = fn.experiment(record.config, dataset)
    _say_where(record.facts)
    rows, columns = record.facts.get("mesh", (1, 1))
    mesh = None
    if columns > 1 or (rows > 1 and record.config.reproducible is None):  # else one will do
        mesh = fn.device_mesh(rows * columns, model_parallel=columns)

    start: dict[str, Any] = {}
    if args.last:
        average = options["average_decay"]
        whole = optimizer if average is None else fn.with_average(optimizer, average)
        in_shape = jax.eval_shape(options["preprocess"], trained_on.x_train[:1]).shape[1:]
        like = fn.init_train_state(net, whole, in_shape, key=options["key"])
        start = {"train_state": earlier_state(path / runs.CHECKPOINTS, like, done), "key": None}
    result = fn.fit(
        net,
        optimizer,
        trained_on,
        callback=lambda epoch, *_: epoch == done,
        mesh=mesh,
        **{
            "on_nonfinite": "stop",
            **options,
            "eval_every": None,
            "patience": None,
            "monitor": None,
            **start,
        },
    )
    losses = result.history.loss
    first = len(stored) - len(losses)  # the number of steps that were not trained again
    lines = _differences(stored[first:], losses, first, last, result.model)
    count = checks.plural(len(losses), "step")
    if not lines:
        print(f"the bits agree: the losses of {count}, and the model after epoch {done}")
        return 0
    print(f"the bits differ, of {count} trained again:")
    for line in lines:
        print(f"  {line}")
    return 1


def _losses(file: Path) -> np.ndarray:
    """The losses of the steps of a run, as they were written."""
    with open_file(file) as opened:
        try:
            return np.loadtxt(opened, delimiter=",", skiprows=1, ndmin=2, usecols=[1])[:, 0]
        except ValueError as error:
            raise ValueError(f"{file} is damaged: {one_line(error)}") from None


def _say_where(facts: dict[str, Any]) -> None:
    """Say it if the run was made elsewhere, or by another JAX."""
    there = {"jax": facts.get("versions", {}).get("jax"), **facts.get("machine", {})}
    if there != made_by():
        print(f"note: the run was made by {there}, this is {made_by()}", file=sys.stderr)


def _differences(
    stored: np.ndarray, losses: np.ndarray, first: int, last: fn.Model, again: fn.Model
) -> list[str]:
    """What differs, a line each."""
    lines = []
    if len(stored) != len(losses):
        return [f"there are losses of {len(stored)} steps, and now of {len(losses)}"]
    other = np.flatnonzero(stored.view(np.int64) != losses.view(np.int64))
    if len(other):
        at = other[0]
        lines.append(
            f"the losses of {checks.plural(len(other), 'step')}, the first at step "
            f"{first + at + 1}: {float(stored[at])!r} there, {float(losses[at])!r} now"
        )
    there, now = (named_leaves({"params": m.params, "state": m.state}) for m in (last, again))
    if there.keys() != now.keys():
        return [*lines, "the names of the parameters"]
    for name, leaf in there.items():
        a, b = np.asarray(leaf), np.asarray(now[name])
        if a.tobytes() != b.tobytes():
            apart = np.abs(a.astype(float) - b.astype(float)).max()
            lines.append(f"{name}, by {apart:.1e} at most")
    return lines
