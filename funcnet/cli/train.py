"""funcnet train."""

import argparse
import contextlib
import dataclasses
import itertools
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import funcnet as fn
from funcnet import checks, recipes, runs
from funcnet.again import check_data
from funcnet.checkpoints import has_checkpoints
from funcnet.cli.console import best_line, interrupts, say, validated
from funcnet.cli.describe import summary
from funcnet.cli.measures import first_measure, further_line
from funcnet.cli.options import (
    add_config_options,
    add_device_options,
    add_process_options,
    add_recipe_option,
    given_options,
    mesh_of,
    one_thread,
    views,
)
from funcnet.cli.parser import add_command
from funcnet.cli.records import (
    load_data,
    make_config,
    make_record,
    noted,
    run_name,
    say_recipe,
    with_data,
)
from funcnet.config import Config
from funcnet.datasets.dataset import first
from funcnet.defaults import complete_config
from funcnet.option import option
from funcnet.processes import is_first
from funcnet.rules import class_weight, schedule_name
from funcnet.runs import Record
from funcnet.targets import MEASURES
from funcnet.text import six_digits


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
            "train --dataset measurements.csv --label species",
            "train --recipe cifar10-cpu --epochs 20",
            "train --resume runs/digits",
        ),
    )
    add_recipe_option(parser)
    add_config_options(parser, base)
    add_device_options(parser)
    add_process_options(parser)
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--out", metavar="DIR", help="run directory; runs/NAME, numbered, if not given")
    add(
        "--resume",
        metavar="RUN",
        help="go on with the run in a directory that was cut off, to the same bits; of the options "
        "above --epochs may be given, where the schedule allows, and --devices",
    )
    add("--overwrite", action="store_true", help="replace an earlier run in --out")
    add(
        "--tensorboard",
        action="store_true",
        help="write what TensorBoard shows into the run directory, too: pip install tensorboard, "
        "and tensorboard --logdir runs",
    )
    add("--quiet", action="store_true", help="no progress bar and no line per epoch")
    parser.set_defaults(base=base)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    checks.installed("tqdm", "for the progress bar")
    checks.installed("safetensors", "to save the model")
    checks.installed("matplotlib", "to draw the curves")
    if args.tensorboard:
        checks.installed("tensorboardX", "for --tensorboard", "tensorboard")
    from tqdm import tqdm

    _check_options(args)
    _set_threads(args)
    processes = fn.join_processes(args.coordinator, args.processes, args.process_id)
    mesh, writes = mesh_of(args, processes), processes == 1 or is_first()
    if not writes:
        args.quiet = True
    begun = _resumed(args) if args.resume else _new(args)
    config, record, dataset = begun.config, begun.record, begun.dataset
    net, optimizer, dataset, options = fn.experiment(config, dataset)
    if mesh is not None:
        record = record.having(mesh=list(mesh.devices.shape))
    batch_size = options["batch_size"]
    record = record._replace(config=dataclasses.replace(record.config, batch_size=batch_size))
    if config.tta:  # better known before than after training
        jax.eval_shape(lambda x: [view(x) for view in views(config)], dataset.x_train[:1])
    assert config.epochs is not None
    assert config.eval_every is not None
    epochs, started = config.epochs, False
    log: Any = None
    shown_every = 1 if begun.every_epoch else config.eval_every
    bar = tqdm(total=config.epochs, unit="epoch", disable=True if args.quiet else None)

    def report(epoch: int, train_state: fn.TrainState, metrics: dict[str, Any]) -> None:
        nonlocal started, log
        if not writes:
            started = True
            return
        if not started:  # by now all arguments are known to be right
            started = True
            if args.resume:
                runs.write_record(path, "run", record.having(status="running"))
                log = runs.run_log(path, tensorboard=args.tensorboard)
                bar.update(epoch)
            else:
                runs.create_run(path, record, overwrite=args.overwrite)
                model = fn.Model(net, train_state.params, train_state.state, options["preprocess"])
                runs.check_space(path, model)
                log = runs.run_log(path, tensorboard=args.tensorboard)
        else:
            bar.update()
        log(epoch, train_state, metrics)
        if epoch == epochs:
            heard.saving = True  # what is left takes a second, and must not be lost
        if not args.quiet and (epoch % shown_every == 0 or epoch == epochs):
            say(_epoch_line(epoch, epochs, metrics))

    def directory() -> Any:
        if not writes:
            return contextlib.nullcontext(begun.path)
        return runs.begun(begun.path, begun.name, overwrite=args.overwrite)

    with interrupts() as heard, directory() as path:
        # Of several processes the others only read there.
        kept = path if writes or args.resume else None
        with bar, noted():
            result = fn.fit(
                net,
                optimizer,
                dataset,
                callback=report,
                checkpoint=kept and kept / runs.CHECKPOINTS,
                resume=bool(args.resume),
                mesh=mesh,
                **{"on_nonfinite": "stop", **options},
            )
        if not started:
            print("funcnet train: interrupted before the first epoch", file=sys.stderr)
            return heard.code
        if not writes:
            return heard.code if result.interrupted else 0
        if result.interrupted:
            runs.complete_log(path, result)
        lines, results = _summary(result, dataset, config)
        if result.status == "stopped":
            found = checks.plural(config.patience or 0, "measurement")
            done = int(result.state.epoch)
            lines.insert(0, f"stopped after epoch {done}: no better model in {found}")
        left_out = int((~np.isfinite(result.history.loss)).sum())
        if left_out:
            steps = checks.plural(len(result.history.loss), "update")
            lines.insert(0, f"{left_out:,} of {steps} were not finite, and left out")
        try:
            runs.save_run(path, record, result, results=results)
            lines.append(f"saved in {path}")
        finally:  # should the disk be full by now, the figures at least are not lost
            for line in lines:
                say(line)
    if result.trouble is not None:
        before = checks.plural(int(result.state.epoch), "epoch")
        print(
            f"warning: {result.trouble}; this is the run after {before}: try a smaller "
            "--learning-rate or --weight-scale, or --clip-norm",
            file=sys.stderr,
        )
    if result.interrupted:
        done = int(result.state.epoch)
        print(
            f"interrupted: this is the run after epoch {done}; "
            f"funcnet train --resume {path} goes on",
            file=sys.stderr,
        )
        return heard.code
    return 0


class _Begun(NamedTuple):
    """A run that is to begin, or to go on; path is None for the first one that is free."""

    config: Config
    record: Record
    dataset: fn.Dataset
    path: Path | None
    name: str
    every_epoch: bool  # has a line, else those that are measured


def _new(args: argparse.Namespace) -> _Begun:
    config = make_config(args)
    name = run_name(config, args.recipe)
    path = Path(args.out) if args.out else None
    if path is not None:
        runs.check_free(path, overwrite=args.overwrite)
    dataset = load_data(config)
    _describe(args, dataset)
    say_recipe(config, args)
    every_epoch = config.eval_every is not None
    config = complete_config(config, first(dataset, config.num_train, "--num-train"))
    record = with_data(make_record(config, args.recipe), dataset)
    return _Begun(config, record, dataset, path, name, every_epoch)


def _resumed(args: argparse.Namespace) -> _Begun:
    path = Path(args.resume)
    record = runs.load_record(path)
    config, status = record.config, record.facts.get("status")
    epochs = given_options(args).get("epochs", config.epochs)
    if epochs != config.epochs:
        record = record._replace(config=dataclasses.replace(config, epochs=epochs))
    if status == "finished" and epochs == config.epochs:
        raise ValueError(
            f"{path} is finished, after {checks.plural(config.epochs or 0, 'epoch')}: to go on, "
            "give more with --epochs"
        )
    if status == "stopped":
        raise ValueError(f"{path} has ended as its --patience has it: train anew with more")
    if not has_checkpoints(path / runs.CHECKPOINTS):
        if status == "finished" or record.facts.get("results", {}).get("epochs", 0):
            raise ValueError(
                f"{path} has no checkpoints: it is the best of a sweep, an older funcnet made it, "
                "or they were removed; train anew"
            )
        print(f"note: {path} has no checkpoint yet: it begins anew", file=sys.stderr)
    dataset = load_data(config)
    check_data(record, dataset, "since the run was begun")
    _describe(args, dataset)
    trained_on = first(dataset, config.num_train)
    before, after = (recipes.build(each, trained_on)[1] for each in (config, record.config))
    if before != after:
        raise ValueError(
            f"--epochs {epochs}: the schedule {schedule_name(config)} of this run is one of "
            f"{config.epochs} epochs in all; train anew with --epochs {epochs}"
        )
    return _Begun(record.config, record, dataset, path, path.name, config.eval_every == 1)


def _describe(args: argparse.Namespace, dataset: fn.Dataset) -> None:
    if not args.quiet:
        for line in summary(dataset):
            print(line)


def _set_threads(args: argparse.Namespace) -> None:
    """One thread to a device where bits are not to go by their number."""
    shards = given_options(args).get("reproducible", args.base.reproducible)
    one_thread(runs.load_record(args.resume).config.reproducible if args.resume else shards)


def _check_options(args: argparse.Namespace) -> None:
    if args.resume is not None:
        given = [name for name in given_options(args) if name != "epochs"]
        given += [name for name in ("recipe", "out", "overwrite") if getattr(args, name)]
        if args.resume == "":
            raise ValueError("--resume is empty")
        for name in given:
            raise ValueError(f"{option(name)} is not for --resume: the run has its own options")
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
        lines.append(best_line(result.best, result.history, config))
        results |= validated(result.best, result.history)
    if len(dataset.x_test):
        test = partial(
            fn.evaluate,
            model,
            dataset.x_test,
            dataset.y_test,
            loss_fn=recipes.build_loss(config),
            sample_weight=dataset.weight_test,
            class_weight=class_weight(config),
        )
        plain, count = test(), checks.plural(len(dataset.x_test), "example")
        first, value = first_measure(plain)
        lines.append(f"test {first} of {name} {value} ({count})")
        lines.append(further_line(plain))
        measured = {k: v for k, v in plain._asdict().items() if k != "views"}
        results |= {f"test_{name}": value for name, value in measured.items()}
        if config.tta:
            averaged = test(views=views(config))
            first, value = first_measure(averaged)
            lines.append(f"{first} averaged over {averaged.views} views {value}")
            name = MEASURES[dataset.task][0]
            results |= {"tta_views": averaged.views, f"tta_test_{name}": getattr(averaged, name)}
    for split in ("val", "test"):
        if not len(getattr(dataset, f"x_{split}")):
            lines.append(f"the data have no {split} split: too few, or its fraction is 0")
    return lines, results


def _epoch_line(epoch: int, epochs: int, metrics: dict[str, Any]) -> str:
    parts = []
    if len(metrics["losses"]):
        parts.append(f"loss: {metrics['losses'].mean():.6f}")
    shown = [("accuracy", "acc")] if "train_accuracy" in metrics else [("rmse", "RMSE")]
    for split, (name, label) in itertools.product(("train", "val"), shown):
        value = metrics.get(f"{split}_{name}", math.nan)
        if math.isfinite(value):
            form = f"{value:.4f}" if name == "accuracy" else six_digits(value)
            parts.append(f"{split} {label}: {form}")
    return f"(Epoch {epoch} / {epochs}) {'; '.join(parts)}".rstrip()
