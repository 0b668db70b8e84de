"""funcnet sweep."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet import _check, recipes, runs
from funcnet.cli.console import (
    ROWS,
    describe,
    ignore_interrupts,
    one_interrupt,
    print_table,
    say,
)
from funcnet.cli.data import (
    fingerprint,
    is_file,
    load_dataset,
    make_config,
    run_name,
)
from funcnet.cli.options import (
    COMMON,
    add_data_options,
    add_net_options,
    add_recipe_option,
    add_training_options,
    name_among,
    weight_scale,
)
from funcnet.cli.parser import add_command
from funcnet.step import fit_preprocess
from funcnet.sweeps import directory as sweep_runs
from funcnet.sweeps.search import Distribution, identity
from funcnet.sweeps.table import best_member

SAVE_EVERY = 30  # seconds between two times that the members of a sweep are saved
SWEEP_DEFAULTS: dict[str, Any] = {
    **recipes.DEFAULTS,
    "recipe": None,
    "hidden": None,
    "out": None,
    "seeds": 1,
    "samples": None,
    "halve_at": [],
    "chunk_size": None,
}


def add(commands: Any) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "sweep",
        run,
        "train with many settings, and compare",
        "Options of the network, the training and the optimizer, all but --seed, --epochs, "
        "--eval-every, --warmup and --augment, take several values, and every combination of them "
        "is trained; --hidden may be given several times. A range "
        "LOW..HIGH, or log:LOW..HIGH for equally likely factors, is for --samples. Settings that "
        "differ in fractions alone are one compiled program. The sweep is kept in a directory: "
        "the table, the histories, a picture, and in best/ the run with the best validation "
        "accuracy. One that was interrupted goes on with funcnet sweep resume RUN.",
        (
            "sweep --learning-rate 1e-3 2e-3 3e-4 --weight-scale 2e-2 5e-2 6e-2 --seeds 3",
            "sweep --learning-rate log:1e-4..1e-2 --keep-prob 0.5..1 --samples 50 --halve-at 5 10",
            "sweep --hidden 100 --hidden 100 100 --optimizer adam sgd_momentum",
            "sweep show runs/sweep-digits",
        ),
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=name_among("action", ("run", "resume", "show")),
        default="run",
        metavar="ACTION",
        help="run (if not given), resume or show",
    )
    parser.add_argument(
        "run_directory", nargs="?", metavar="RUN", help="of resume and show: the directory"
    )
    add_recipe_option(parser)
    group = parser.add_argument_group("sweep")
    add = group.add_argument
    add("--seeds", type=int, metavar="N", help="train each setting with N seeds")
    add(
        "--samples",
        type=int,
        metavar="N",
        help="draw N settings at random, in place of every combination",
    )
    add(
        "--halve-at",
        type=int,
        nargs="+",
        metavar="EPOCH",
        help="after these epochs, stop the worse half by validation accuracy",
    )
    add(
        "--chunk-size",
        type=int,
        metavar="N",
        help="members to train side by side; if not given, as the memory allows",
    )
    add_data_options(parser).add_argument(
        "--num-train",
        type=int,
        metavar="N",
        help="train on the first N training examples only",
    )
    add_net_options(parser, hidden="append")
    add_training_options(parser)
    for action in parser._actions:
        if action.dest in recipes.DEFAULTS and action.dest not in (*COMMON, "hidden"):
            action.nargs, action.type = "+", _axis_type(action.type)
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--out", metavar="DIR", help="directory; runs/sweep-NAME, numbered, if not given")
    add("--all", action="store_true", help="of show: the whole table")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(**SWEEP_DEFAULTS)
    return parser


def _axis_type(kind: Any) -> Callable[[str], Any]:
    """A type for argparse: a value of an option, or a range of numbers."""
    numbers = {int: "an integer", float: "a number"}

    def parse(text: str) -> Any:
        found = re.fullmatch(r"(log:)?(.+?)\.\.(.+)", text)
        try:
            if found is None or kind not in (int, float, weight_scale):
                return kind(text)
            log, low, high = found.groups()
            low = f"{log or ''}{low}" if kind is int else low
            if kind is int:
                return fn.integers(int(low), int(high))  # log: is no integer
            ends = float(low), float(high)
        except ValueError:
            what = numbers.get(kind, "a number")
            raise argparse.ArgumentTypeError(
                f"expected {what}, or a range LOW..HIGH of such, got {text!r}"
            ) from None
        try:
            return (fn.log_uniform if log else fn.uniform)(*ends)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None

    return parse


def _is_range(value: Any) -> bool:
    return isinstance(value, Distribution)


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    _check.installed("tqdm", "for the progress bar")
    _check.installed("safetensors", "to save the members")
    _check.installed("matplotlib", "to draw the table")
    _check_action(args)
    if args.action == "show":
        return _show_sweep(args)
    if args.action == "resume":
        path = Path(args.run_directory)
        config = sweep_runs.load_sweep_config(path)
        if config.get("status") == "finished":
            raise ValueError(f"{path} is finished: funcnet sweep show {path}")
        settings = config["settings"]
    else:
        config, settings = _sweep_config(args)
        name = f"sweep-{run_name(args)}"
        path = Path(args.out) if args.out else runs.new_run_path("runs", name)
        runs.check_free(path)
    dataset, options = _sweep_data(config)
    experiment = partial(_experiment, config, dataset)
    members = None
    if args.action == "resume":
        fitted = options["preprocess"] = fit_preprocess(options["preprocess"], dataset.x_train)

        @cache  # one net for all seeds: each net that is evaluated is compiled
        def net_of(same: tuple[tuple[str, str, Any], ...]) -> fn.Layer:
            own = {name: value for name, _, value in same}
            return recipes.build_net({**config, **own}, len(dataset.class_names))

        def make_net(each: Mapping[str, Any]) -> fn.Layer:
            return net_of(identity({k: v for k, v in each.items() if k != "seed"}))

        members = sweep_runs.load_members(path, settings, make_net, fitted)
    with one_interrupt():
        return _run_sweep(args, path, config, experiment, dataset, settings, options, members)


def _check_action(args: argparse.Namespace) -> None:
    """Raise unless the options suit the action."""
    if args.all and args.action != "show":
        raise ValueError("--all is for funcnet sweep show RUN")
    if args.action == "run":
        if args.run_directory is not None:
            raise ValueError(
                f"unexpected argument {args.run_directory!r}; see funcnet sweep --help"
            )
        if args.out == "":
            raise ValueError("--out is empty")
        return
    if args.run_directory is None:
        raise ValueError(f"{args.action} needs the directory of a sweep, such as runs/sweep-digits")
    for name, default in SWEEP_DEFAULTS.items():
        if getattr(args, name) != default:
            raise ValueError(
                f"{recipes.option(name)} is not for {args.action}: the sweep has its own options"
            )


def _run_sweep(
    args: argparse.Namespace,
    path: Path,
    config: dict[str, Any],
    experiment: Callable[..., Any],
    dataset: fn.Dataset,
    settings: list[dict[str, Any]],
    options: dict[str, Any],
    members: Sequence[fn.Member] | None,
) -> int:
    from tqdm import tqdm

    saved = sweep_runs.progress(members or ())
    claimed, last = members is not None, time.monotonic()
    bar = tqdm(unit="epoch", disable=True if args.quiet else None)

    def claim() -> None:
        nonlocal path, claimed
        if not claimed:  # by now all arguments are known to be right
            if args.out is None:
                path = runs.claim_new_run_path("runs", f"sweep-{run_name(args)}")
            sweep_runs.create_sweep(path, config)
            claimed = True

    def report(done: int, total: int, now: Callable[[], tuple[fn.Member, ...]]) -> None:
        nonlocal saved, last
        claim()
        if done == total:
            ignore_interrupts()  # what is left takes seconds, and must not be lost
        bar.total, bar.n = total, done
        bar.refresh()
        if time.monotonic() - last > SAVE_EVERY:
            saved = sweep_runs.save_members(path, now(), saved)
            last = time.monotonic()

    with bar:
        result = fn.sweep(
            experiment,
            dataset,
            settings,
            epochs=config["epochs"],
            eval_every=config["eval_every"] or None,
            halve_at=config["halve_at"],
            chunk_size=config["chunk_size"],
            members=members,
            callback=report,
            **options,
        )
    if not claimed:
        print("funcnet sweep: interrupted before the first epoch", file=sys.stderr)
        return 130
    if result.interrupted:
        sweep_runs.save_members(path, result.members, saved)
        done = sum(member.epochs for member in result.members)
        print(
            f"interrupted after {_check.plural(done, 'epoch')} of all members: "
            f"funcnet sweep resume {path} goes on",
            file=sys.stderr,
        )
        return 130
    lines, results = _sweep_summary(result, dataset)
    config = {**config, "status": "finished", "results": results}
    try:
        sweep_runs.save_members(path, result.members, saved)
        _save_best(path / "best", config, result)
        sweep_runs.save_sweep(path, config, result.members)
        lines.append(f"saved in {path}")
    finally:
        print_table(result.table())
        for line in lines:
            say(line)
    return 0


def _experiment(config: dict[str, Any], dataset: fn.Dataset, **settings: Any) -> tuple[Any, ...]:
    """The experiment of `funcnet sweep`: a configuration with some options replaced."""
    numbers = {name: value for name, value in settings.items() if name != "seed"}
    return recipes.build({**config, **numbers}, dataset)


def _sweep_config(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration common to all members, and the settings of each."""
    _check.COUNT.check("--seeds", args.seeds)
    if args.samples is not None:
        _check.COUNT.check("--samples", args.samples)
    base = recipes.load_recipe(args.recipe) if args.recipe else dict(recipes.DEFAULTS)
    given = {**base, **{k: v for k, v in vars(args).items() if k != "hidden"}}
    axes: dict[str, Any] = {} if args.hidden is None else {"hidden": args.hidden}
    for name in recipes.DEFAULTS:
        values = given[name]
        if name not in (*COMMON, "hidden") and isinstance(values, list):
            axes[name] = values[0] if len(values) == 1 and _is_range(values[0]) else values
    for name, values in axes.items():
        if isinstance(values, list) and any(map(_is_range, values)):
            raise ValueError(f"{recipes.option(name)} takes one range, or values, not both")
    ranges = [name for name, values in axes.items() if _is_range(values)]
    if ranges and args.samples is None:
        raise ValueError(
            f"{recipes.option(ranges[0])} is a range: say with --samples how many settings to draw"
        )
    single = {name: v[0] for name, v in axes.items() if isinstance(v, list) and len(v) == 1}
    axes = {name: values for name, values in axes.items() if name not in single}
    if args.samples is not None and not axes:
        raise ValueError("--samples needs options with ranges or several values to draw from")
    if not axes and args.seeds == 1:
        raise ValueError(
            "there is nothing to sweep: give an option several values, such as "
            "--learning-rate 1e-3 1e-2, or --seeds"
        )
    seeds = range(args.seed, args.seed + args.seeds)
    if args.samples is not None:
        drawn = fn.random_search(jax.random.key(args.seed), args.samples, **axes)
    else:
        drawn = fn.grid(**axes) if axes else [{}]
    settings = [{**each, "seed": seed} for each in drawn for seed in seeds]
    first = {**given, **single, **{name: settings[0][name] for name in axes}}
    config = make_config(argparse.Namespace(**{**first, "hidden": list(first["hidden"])}))
    for name in axes:
        config[name] = recipes.DEFAULTS[name]
    swept = ", ".join(name.replace("_", " ") for name in axes) or "seeds"
    config["title"] = f"{run_name(args)}: {swept}"
    config["halve_at"], config["chunk_size"] = args.halve_at, args.chunk_size
    config["settings"] = settings
    return config, settings


def _sweep_data(config: dict[str, Any]) -> tuple[fn.Dataset, dict[str, Any]]:
    """The data of a sweep, and what all members preprocess them with."""
    whole = load_dataset(config)
    if "data_sha256" in config and config["data_sha256"] != fingerprint(whole):
        raise ValueError(f"{config['dataset']} has changed since the sweep was begun")
    if is_file(config["dataset"]):
        config["data_sha256"] = fingerprint(whole)
    config["class_names"] = list(whole.class_names)
    dataset = recipes.first(whole, config["num_train"], "--num-train")
    preprocess: Any = recipes.build_preprocess(config)
    if config["num_train"] is not None:  # it is fitted to all of them all the same
        preprocess = fit_preprocess(preprocess, whole.x_train)
    return dataset, {"preprocess": preprocess}


def _sweep_summary(result: fn.SweepResult, dataset: fn.Dataset) -> tuple[list[str], dict[str, Any]]:
    """What to print at the end of a sweep, and what to keep of it."""
    statuses = [member.status for member in result.members]
    counts = [f"{statuses.count(s):,} {s}" for s in sweep_runs.STATUSES if s in statuses]
    lines = [f"{_check.plural(len(statuses), 'member')}: {', '.join(counts)}"]
    results: dict[str, Any] = {"best_settings": result.best_settings}
    if result.best is None or result.best_settings is None:
        return lines, results
    results |= {"val_accuracy": result.best.accuracy, "best_epoch": result.best.epoch}
    lines.append(
        f"best validation accuracy {100 * result.best.accuracy:.2f} % after epoch "
        f"{result.best.epoch}, with {describe(result.best_settings)}"
    )
    if result.test is not None:
        count = _check.plural(len(dataset.x_test), "example")
        lines.append(f"test accuracy of that model {100 * result.test.accuracy:.2f} % ({count})")
        results |= {"test_accuracy": result.test.accuracy, "test_loss": result.test.loss}
    seeds = sorted({member.settings["seed"] for member in result.members})
    if len(seeds) > 1 and len(dataset.x_test):
        results["seeds"] = []
        for seed in seeds:
            index, best = best_member(result.members, seed=seed)
            if best is not None:
                settings = result.members[index].settings
                test = fn.evaluate(best, dataset.x_test, dataset.y_test)
                both = {"val_accuracy": best.accuracy, "test_accuracy": test.accuracy}
                results["seeds"].append({"settings": settings, **both})
        for name, label in (("val_accuracy", "validation"), ("test_accuracy", "test")):
            values = [100 * each[name] for each in results["seeds"]]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            lines.append(
                f"best member of each seed, {label} accuracy: {np.mean(values):.2f}{spread} % "
                f"(mean of {len(values)}; {min(values):.2f} to {max(values):.2f})"
            )
    return lines, results


def _save_best(path: Path, config: dict[str, Any], result: fn.SweepResult) -> None:
    """A run directory of the best member, for `evaluate` and `predict`."""
    if result.best is None or result.best_settings is None:
        return
    member = next(m for m in result.members if m.best is result.best)
    own = {name: value for name, value in config.items() if name in recipes.DEFAULTS}
    own |= {name: config[name] for name in ("class_names", "data_sha256") if name in config}
    own |= {**member.settings, "hidden": list({**own, **member.settings}["hidden"])}
    own |= {"title": f"{config['title']}: {describe(member.settings)}", "status": "finished"}
    own["results"] = {"val_accuracy": result.best.accuracy, "best_epoch": result.best.epoch}
    runs.create_run(path, own, overwrite=True)
    runs.save_models(path, own, member.model or result.best, result.best, member.history)
    runs.write_config(path, runs.FORMAT, own)


def _show_sweep(args: argparse.Namespace) -> int:
    rows = sweep_runs.load_table(args.run_directory)
    print_table(rows, count=len(rows) if args.all else ROWS)
    kept = ("table.csv", "histories.csv", "sweep.png", "best/")
    there = [name for name in kept if (Path(args.run_directory) / name).exists()]
    print(f"{args.run_directory}: {', '.join(there)}")
    return 0
