"""funcnet train."""

import argparse
import dataclasses
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet import checks, runs
from funcnet.cli.console import ignore_interrupts, one_interrupt, say
from funcnet.cli.describe import summary
from funcnet.cli.measures import further_line
from funcnet.cli.options import add_config_options, add_recipe_option, views
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_data, make_config, make_record, run_name, with_data
from funcnet.config import Config
from funcnet.datasets.dataset import first
from funcnet.defaults import complete_config


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a network",
        "Without options: handwritten digits, in about ten seconds. The run is kept in a "
        "directory: configuration, history, parameters and a picture of the curves.",
        (
            "train",
            "train --hidden-dims 512 256 --optimizer sgd_momentum --learning-rate 1e-2",
            "train --dataset cifar10 --hidden-dims 100 100 100 100 100 --weight-scale 5e-2 "
            "--batch-size 200 --epochs 30",
            "train --dataset measurements.csv --label species --weight-scale he",
            "train --recipe cifar10-cpu --epochs 20",
        ),
    )
    add_recipe_option(parser)
    add_config_options(parser, base)
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--out", metavar="DIR", help="run directory; runs/NAME, numbered, if not given")
    add("--overwrite", action="store_true", help="replace an earlier run in --out")
    add("--quiet", action="store_true", help="no progress bar and no line per epoch")
    parser.set_defaults(base=base)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    checks.installed("tqdm", "for the progress bar")
    checks.installed("safetensors", "to save the model")
    checks.installed("matplotlib", "to draw the curves")
    from tqdm import tqdm

    _check_output(args)
    config = make_config(args)
    name = run_name(config, args.recipe)
    path = Path(args.out) if args.out else runs.new_run_path("runs", name)
    runs.check_free(path, overwrite=args.overwrite)
    dataset = load_data(config)
    if not args.quiet:
        for line in summary(dataset):
            print(line)
    every_epoch = config.eval_every is not None  # has a line, else those that are measured
    config = complete_config(config, first(dataset, config.num_train, "--num-train"))
    record = with_data(make_record(config, args.recipe), dataset)
    net, optimizer, dataset, options = fn.experiment(config, dataset)
    batch_size = options["batch_size"]
    record = record._replace(config=dataclasses.replace(record.config, batch_size=batch_size))
    if config.tta:  # better known before than after training
        jax.eval_shape(lambda x: [view(x) for view in views(config)], dataset.x_train[:1])
    assert config.epochs is not None
    assert config.eval_every is not None
    epochs, claimed = config.epochs, False
    shown_every = 1 if every_epoch else config.eval_every
    bar = tqdm(total=config.epochs, unit="epoch", disable=True if args.quiet else None)

    def report(epoch: int, train_state: fn.TrainState, metrics: dict[str, Any]) -> None:
        nonlocal path, claimed
        if epoch == 0:  # by now all arguments are known to be right: claim the directory
            if args.out is None:
                path = runs.claim_new_run_path("runs", name)
            runs.create_run(path, record, overwrite=args.overwrite)
            claimed = True
            model = fn.Model(net, train_state.params, train_state.state, options["preprocess"])
            runs.check_space(path, model)
        else:
            bar.update()
        if epoch == epochs:
            ignore_interrupts()  # what is left takes a second, and must not be lost
        if not args.quiet and (epoch % shown_every == 0 or epoch == epochs):
            say(_epoch_line(epoch, epochs, metrics))

    with one_interrupt():
        with bar:
            result = fn.fit(net, optimizer, dataset, callback=report, **options)
        if not claimed:
            print("funcnet train: interrupted before the first epoch", file=sys.stderr)
            return 130
        lines, results = _summary(result, dataset, config)
        try:
            runs.save_run(path, record, result, results=results)
            lines.append(f"saved in {path}")
        finally:  # should the disk be full by now, the figures at least are not lost
            for line in lines:
                say(line)
    if not np.isfinite(result.history.loss).all():
        step = int(np.argmin(np.isfinite(result.history.loss))) + 1
        print(
            f"warning: the loss is {result.history.loss[step - 1]} from step {step} on: "
            "try a smaller --learning-rate or --weight-scale",
            file=sys.stderr,
        )
    if result.interrupted:
        done = int(result.state.epoch)
        print(f"interrupted: this is the run after epoch {done}", file=sys.stderr)
        return 130
    return 0


def _check_output(args: argparse.Namespace) -> None:
    if args.out == "":
        raise ValueError("--out is empty")
    if args.overwrite and args.out is None:
        raise ValueError("--overwrite is for the run directory that --out names")


def _summary(
    result: fn.FitResult, dataset: fn.Dataset, config: Config
) -> tuple[list[str], dict[str, Any]]:
    """What to print at the end of training, and what to keep of it."""
    lines: list[str] = []
    results: dict[str, Any] = {"epochs": int(result.state.epoch)}
    model, name = result.model, "the last model"
    if result.best is not None:
        if config.model == "best":
            model, name = result.best, "that model"
        lines.append(
            f"best validation accuracy {100 * result.best.accuracy:.2f} % "
            f"after epoch {result.best.epoch}"
        )
        results |= {"best_epoch": result.best.epoch, "val_accuracy": result.best.accuracy}
    if len(dataset.x_test):
        loss_fn = config.meaning("loss")
        test = partial(fn.evaluate, model, dataset.x_test, dataset.y_test, loss_fn=loss_fn)
        plain, count = test(), checks.plural(len(dataset.x_test), "example")
        lines.append(f"test accuracy of {name} {100 * plain.accuracy:.2f} % ({count})")
        lines.append(further_line(plain))
        measured = {k: v for k, v in plain._asdict().items() if k != "views"}
        results |= {f"test_{name}": value for name, value in measured.items()}
        if config.tta:
            averaged = test(views=views(config))
            lines.append(
                f"accuracy averaged over {averaged.views} views {100 * averaged.accuracy:.2f} %"
            )
            results |= {"tta_views": averaged.views, "tta_test_accuracy": averaged.accuracy}
    for split in ("val", "test"):
        if not len(getattr(dataset, f"x_{split}")):
            lines.append(f"the data have no {split} split: too few, or its fraction is 0")
    return lines, results


def _epoch_line(epoch: int, epochs: int, metrics: dict[str, Any]) -> str:
    parts = []
    if len(metrics["losses"]):
        parts.append(f"loss: {metrics['losses'].mean():.6f}")
    for name, label in (("train_accuracy", "train acc"), ("val_accuracy", "val acc")):
        if math.isfinite(metrics.get(name, math.nan)):
            parts.append(f"{label}: {metrics[name]:.4f}")
    return f"(Epoch {epoch} / {epochs}) {'; '.join(parts)}".rstrip()
