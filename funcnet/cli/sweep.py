"""funcnet sweep."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

import funcnet as fn
from funcnet import checks, recipes, runs
from funcnet.again import check_data
from funcnet.checkpoints import has_checkpoints
from funcnet.cli.console import (
    ROWS,
    Interrupts,
    best_line,
    describe,
    interrupts,
    measured_at,
    print_sweep,
    say,
    table_lines,
    validated,
)
from funcnet.cli.measures import first_measure
from funcnet.cli.options import (
    NameAmong,
    add_config_options,
    add_device_options,
    add_recipe_option,
    given_options,
    listed,
    mesh_of,
)
from funcnet.cli.parser import add_command
from funcnet.cli.records import (
    load_data,
    make_record,
    noted,
    run_name,
    say_recipe,
    with_data,
)
from funcnet.cli.settings import OWN, add_sweep_options, batch_sizes, options_of, swept_by
from funcnet.config import OPTIONS, Config, replaced
from funcnet.datasets.dataset import first
from funcnet.defaults import complete_config
from funcnet.inputs import fit_preprocess
from funcnet.option import option
from funcnet.runs import Record
from funcnet.sweeps import directory
from funcnet.sweeps.folds import part_of
from funcnet.sweeps.guided import search_of, stored_search
from funcnet.sweeps.importance import value_of
from funcnet.sweeps.objectives import check_objectives
from funcnet.sweeps.table import OVER, STATUSES, best_member, varying
from funcnet.targets import MEASURES, MONITORS, outputs_of
from funcnet.text import LABELS, shown, six_digits


class Sweep(NamedTuple):
    """What is swept; path is None for the first one that is free."""

    path: Path | None
    name: str
    record: Record
    dataset: fn.Dataset
    preprocess: Any
    resumes: bool


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    shared = [option(n) for n, k in OPTIONS.items() if k.sweep == "one" and k.group != "data"]
    parser = add_command(
        commands,
        "sweep",
        run,
        "train with many settings, and compare",
        f"Options take several values, all but those of the data, {listed(shared)}, and "
        "every combination of them is trained; --hidden-dims may be given several times. A range "
        "LOW..HIGH, or log:LOW..HIGH for equally likely factors, is for --samples. Settings that "
        "differ in fractions alone are one compiled program. The sweep is kept in a directory: "
        "the table, the histories, a picture, and in best/ the best run, by validation accuracy "
        "or what --monitor says. One that was interrupted goes on with funcnet sweep resume RUN.",
        (
            "sweep --learning-rate 1e-3 2e-3 3e-4 --weight-scale 2e-2 5e-2 6e-2 --seeds 3",
            "sweep --learning-rate log:1e-4..1e-2 --keep-prob 0.5..1 --samples 50 --halve-at 5 10",
            "sweep --learning-rate log:1e-4..1e-2 --keep-prob 0.5..1 --samples 64 --sampler tpe",
            "sweep --hidden-dims 100 --hidden-dims 100 100 --optimizer adam sgd_momentum",
            "sweep --dataset table.csv --learning-rate 1e-3 1e-2 --folds 5",
            "sweep show runs/sweep-digits --importance",
        ),
        arguments="[ACTION RUN]",
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=NameAmong("action", ("run", "resume", "show")),
        default="run",
        metavar="ACTION",
        help="run (if not given), resume or show",
    )
    parser.add_argument(
        "run_directory", nargs="?", metavar="RUN", help="of resume and show: the directory"
    )
    add_recipe_option(parser)
    add_sweep_options(parser)
    add_config_options(parser, base, takes=lambda known: known.sweep, several=True)
    add_device_options(parser, columns=False)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", metavar="DIR", help="directory; runs/sweep-NAME, numbered, if not given"
    )
    group.add_argument("--all", action="store_true", help="of show: the whole table")
    group.add_argument(
        "--importance", action="store_true", help="of show: which settings mattered, and how much"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(base=base, **OWN)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    checks.installed("tqdm", "for the progress bar")
    checks.installed("safetensors", "to save the members")
    checks.installed("matplotlib", "to draw the table")
    _check_action(args)
    if args.action == "show":
        return _show(args)
    mesh = mesh_of(args)
    swept = _resumed(Path(args.run_directory)) if args.action == "resume" else _new(args)
    with interrupts() as heard, runs.begun(swept.path, swept.name, kept=runs.MEMBERS) as path:
        return _run(args, swept, path, heard, mesh)


def _check_action(args: argparse.Namespace) -> None:
    """Raise unless the options suit the action."""
    if args.all and args.action != "show":
        raise ValueError("--all is for funcnet sweep show RUN")
    if args.importance and args.action != "show":
        raise ValueError("--importance is for funcnet sweep show RUN")
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
    given = [name for name, default in OWN.items() if getattr(args, name) != default]
    for name in (*given, *given_options(args)):
        raise ValueError(f"{option(name)} is not for {args.action}: the sweep has its own options")


def _new(args: argparse.Namespace) -> Sweep:
    """A sweep that is to begin."""
    config, settings, swept, search = swept_by(args)
    name = f"sweep-{run_name(config, args.recipe)}"
    path = Path(args.out) if args.out else None
    if path is not None:
        runs.check_free(path)
    record = make_record(config, args.recipe).having(
        title=f"{run_name(config, args.recipe)}: {swept}",
        halve_at=args.halve_at,
        chunk_size=args.chunk_size,
        folds=args.folds,
        objectives=args.objectives,
        settings=[] if search else settings,
        search=search and stored_search(search),
    )
    whole = load_data(config)
    say_recipe(config, args)
    trained_on = part_of(first(whole, config.num_train, "--num-train"), args.folds)
    record = record._replace(config=_complete(record.config, settings, trained_on))
    record = with_data(record, whole)
    if args.objectives:
        complete = record.config
        monitor = complete.monitor or MONITORS[whole.task]
        check_objectives(args.objectives, monitor, whole, complete.eval_every or None)
    if any("embedding" in each for each in settings):  # and not of the first member alone
        record = record.having(numbers=list(recipes.numbers_of(whole)))
    return Sweep(path, name, record, *_data(record.config, whole, args.folds), resumes=False)


def _complete(
    config: Config, settings: Sequence[Mapping[str, Any]], trained_on: fn.Dataset
) -> Config:
    """The Config, complete for all members: the epochs are enough for the largest batches."""
    sizes = batch_sizes(settings)
    largest = replaced(config, {"batch_size": max(sizes)} if sizes else {})
    complete = complete_config(largest, trained_on)
    return replaced(complete, {"batch_size": sizes[0]} if sizes else {})


def _resumed(path: Path) -> Sweep:
    """A sweep that was interrupted, as far as it was saved."""
    record = directory.load_sweep_record(path)
    if record.facts.get("status") == "finished":
        raise ValueError(f"{path} is finished: funcnet sweep show {path}")
    if not has_checkpoints(path / runs.MEMBERS):
        print(f"note: {path} has no member that was begun: it begins anew", file=sys.stderr)
    config, whole = record.config, load_data(record.config)
    check_data(record, whole, "since the sweep was begun")
    record = with_data(record, whole)
    data = _data(config, whole, record.facts.get("folds"))
    return Sweep(path, path.name, record, *data, resumes=True)


def _data(config: Config, whole: fn.Dataset, folds: int | None) -> tuple[fn.Dataset, Any]:
    """The data that are trained on, and what all members preprocess them with."""
    dataset = first(whole, config.num_train, "--num-train")
    preprocess: Any = recipes.build_preprocess(config)
    if config.num_train is not None and not folds:  # it is fitted to all of them all the same
        preprocess = fit_preprocess(preprocess, whole.x_train)
    return dataset, preprocess


def _run(
    args: argparse.Namespace, swept: Sweep, path: Path, heard: Interrupts, mesh: Mesh | None
) -> int:
    from tqdm import tqdm

    record, dataset = swept.record, swept.dataset
    config, facts = record.config, record.facts
    assert config.epochs is not None  # it is complete
    started = False
    bar = tqdm(unit="epoch", disable=True if args.quiet else None)

    def report(done: int, total: int, members: Any) -> None:
        nonlocal started
        if not started:  # by now all arguments are known to be right
            started = True
            if swept.resumes:
                runs.write_record(path, "sweep", record.having(status="running"))
            else:
                directory.create_sweep(path, record)
        if done == total:
            heard.saving = True  # what is left takes seconds, and must not be lost
        bar.total, bar.n = total, done
        bar.refresh()

    options = {
        "epochs": config.epochs,
        "eval_every": config.eval_every or None,
        "chunk_size": facts["chunk_size"],
        "patience": config.patience,
        "monitor": config.monitor,
        "checkpoint": path / runs.MEMBERS,
        "resume": swept.resumes,
        "callback": report,
        "preprocess": swept.preprocess,
        "mesh": mesh,
    }
    with bar, noted():
        result = _trained(record, dataset, options)
    if facts.get("search"):
        record = record.having(settings=[member.settings for member in result.members])
    if result.interrupted and not started and not swept.resumes:
        print("funcnet sweep: interrupted before the first epoch", file=sys.stderr)
        return heard.code
    if result.interrupted:
        done = sum(member.epochs for member in result.members)
        print(
            f"interrupted after {checks.plural(done, 'epoch')} of all members: "
            f"funcnet sweep resume {path} goes on",
            file=sys.stderr,
        )
        return heard.code
    if isinstance(result, fn.SweepResult):
        lines, results = _summary(result, dataset, config)
        lines += _front_lines(result, facts.get("objectives"))
    else:
        lines, results = _summary_of_folds(result)
    record = record.having(status="finished", results=results)
    try:
        if isinstance(result, fn.SweepResult):
            _save_best(path / "best", record, result, dataset)
        directory.save_sweep(path, record, result.members)
        if facts.get("search"):
            try:
                lines += _importance_lines(path, fn.sweep_table(result.members))
            except (ValueError, ImportError) as error:
                lines.append(f"which settings mattered is not told: {error}")
        lines.append(f"saved in {path}")
    finally:
        print_sweep(fn.sweep_table(result.members), monitor=config.monitor)
        for line in lines:
            say(line)
    return 0


def _trained(
    record: Record, dataset: fn.Dataset, options: Mapping[str, Any]
) -> fn.SweepResult | fn.CrossValidation:
    """All members, as far as they came."""
    facts, folds = record.facts, record.facts.get("folds")
    experiment = partial(_experiment, record.config, part_of(dataset, folds))
    if folds is not None:
        return fn.cross_validate(experiment, dataset, facts["settings"], folds=folds, **options)
    halve_at, settings = facts["halve_at"], facts["settings"]
    if not facts.get("search"):
        return fn.sweep(experiment, dataset, settings, halve_at=halve_at, **options)
    known = search_of(facts["search"])
    searched = {**known._asdict(), "seeds": len(known.seeds)}
    searched["objectives"] = known.objectives or None
    return fn.search(experiment, dataset, halve_at=halve_at, **searched, **options)


def _experiment(config: Config, dataset: fn.Dataset, **settings: Any) -> tuple[Any, ...]:
    """The experiment of `funcnet sweep`: a configuration with some options replaced."""
    return recipes.build(replaced(config, options_of(settings)), dataset)


def _summary(
    result: fn.SweepResult, dataset: fn.Dataset, config: Config
) -> tuple[list[str], dict[str, Any]]:
    """What to print at the end of a sweep, and what to keep of it."""
    statuses = [member.status for member in result.members]
    counts = [f"{statuses.count(s):,} {s}" for s in STATUSES if s in statuses]
    lines = [f"{checks.plural(len(statuses), 'member')}: {', '.join(counts)}"]
    results: dict[str, Any] = {"best_settings": result.best_settings}
    if result.best is None or result.best_settings is None:
        return lines, results
    history = next(m.history for m in result.members if m.best is result.best)
    results |= validated(result.best, history)
    said = best_line(result.best, history, config)
    lines.append(f"{said}, with {describe(result.best_settings)}")
    first, monitor = MEASURES[dataset.task][0], config.monitor or MONITORS[dataset.task]
    if result.test is not None:
        count = checks.plural(len(dataset.x_test), "example")
        name, value = first_measure(result.test)
        lines.append(f"test {name} of that model {value} ({count})")
        names = (*MEASURES[dataset.task], "loss")
        results |= {f"test_{name}": getattr(result.test, name) for name in names}
    seeds = sorted({member.settings["seed"] for member in result.members})
    if len(seeds) > 1 and len(dataset.x_test):
        results["seeds"] = []
        for seed in seeds:
            index, best = best_member(result.members, monitor, seed=seed)
            if best is not None:
                member = result.members[index]
                test = fn.evaluate(
                    best,
                    dataset.x_test,
                    dataset.y_test,
                    loss_fn=recipes.build_loss(replaced(config, options_of(member.settings))),
                    sample_weight=dataset.weight_test,
                )
                val = measured_at(member.history, best.epoch)[f"val_{first}"]
                both = {f"val_{first}": val, f"test_{first}": getattr(test, first)}
                results["seeds"].append({"settings": member.settings, **both})
        share = first == "accuracy"
        form, unit = ("{:.2f}".format, " %") if share else (six_digits, "")
        for split, label in (("val", "validation"), ("test", "test")):
            found = [each[f"{split}_{first}"] for each in results["seeds"]]
            values = [100 * value if share else value for value in found]
            if math.isnan(values[0]):  # there is no validation set
                continue
            spread = f" ± {form(np.std(values, ddof=1))}" if len(values) > 1 else ""
            mean, low, high = (form(f(values)) for f in (np.mean, min, max))
            lines.append(
                f"best member of each seed, {label} {LABELS[first]}: {mean}{spread}{unit} "
                f"(mean of {len(values)}; {low} to {high})"
            )
    return lines, results


def _summary_of_folds(result: fn.CrossValidation) -> tuple[list[str], dict[str, Any]]:
    """What to print at the end of a cross-validation, and what to keep of it."""
    statuses = [member.status for member in result.members]
    counts = [f"{statuses.count(s):,} {s}" for s in STATUSES if s in statuses]
    lines = [f"{checks.plural(len(statuses), 'member')}: {', '.join(counts)}"]
    if any(result.trimmed):
        lines.append(
            f"{sum(result.trimmed)} of {len(result.folds)} folds leave one example out, so that "
            "all train on equally many"
        )
    best = result.best_settings
    results: dict[str, Any] = {"best_settings": best}
    if best is not None:
        row = next(r for r in result.table() if best.items() <= r.items())
        first = MEASURES[result.members[0].history.task][0]
        mean, spread = row[f"val_{first}"], row[f"val_{first}_std"]
        said = shown(first, mean)
        if spread is not None:
            said += f" ± {shown(first, spread)}"
        lines.append(
            f"held-out {LABELS[first]} {said} (mean and spread of {row['members']} trainings), the "
            f"best by {result.monitor}" + (f", with {describe(best)}" if best else "")
        )
        results |= {f"val_{first}": mean, f"val_{first}_std": spread}
    return lines, results


def _front_lines(result: fn.SweepResult, objectives: Sequence[str] | None) -> list[str]:
    """The settings than which none is better, by several objectives, as a table."""
    if not objectives or len(objectives) < 2:
        return []
    front = result.pareto(objectives)
    head = f"{checks.plural(len(front), 'setting')} that none is better than, by "
    names = [name for name in varying(result.table()) if name not in OVER]
    return [head + listed(objectives), *table_lines(front, [*names, *objectives])]


def _importance_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What mattered, kept in the directory of a sweep."""
    value = value_of(rows)
    with noted():
        shares = fn.importance(rows, value)
    directory.save_importance(path, shares, value)
    said = ", ".join(f"{n.replace('_', ' ')} {100 * each:.0f} %" for n, each in shares.items())
    return [f"what {value.replace('_', ' ')} depended on: {said}"]


def _save_best(path: Path, record: Record, result: fn.SweepResult, dataset: fn.Dataset) -> None:
    """A run directory of the best member, for `evaluate` and `predict`."""
    if result.best is None or result.best_settings is None:
        return
    member = next(m for m in result.members if m.best is result.best)
    known = ("recipe", "versions", "class_names", "target_names", "numbers", "data_sha256")
    facts = {name: record.facts[name] for name in known if name in record.facts}
    facts["title"] = f"{record.facts['title']}: {describe(member.settings)}"
    facts["status"] = "finished"
    facts["results"] = validated(result.best, member.history)
    config = replaced(record.config, {**member.settings, "model": "best"})
    facts["outputs"] = outputs_of(dataset, recipes.build_loss(config))
    own = Record(config, facts)
    runs.create_run(path, own, overwrite=True)
    last = member.model or result.best
    runs.save_models(path, own, last, result.best, member.history, member.status)
    runs.write_record(path, "run", own)


def _show(args: argparse.Namespace) -> int:
    rows = directory.load_table(args.run_directory)
    monitor = directory.load_sweep_record(args.run_directory).config.monitor
    print_sweep(rows, monitor=monitor, count=len(rows) if args.all else ROWS)
    if args.importance:
        for line in _importance_lines(Path(args.run_directory), rows):
            say(line)
    kept = ("table.csv", "histories.csv", "importance.csv", "sweep.png", "best/")
    there = [name for name in kept if (Path(args.run_directory) / name).exists()]
    print(f"{args.run_directory}: {', '.join(there)}")
    return 0
