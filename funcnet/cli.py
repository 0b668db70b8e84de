"""The command line: funcnet train | sweep | evaluate | predict | gradcheck | recipes | datasets."""

import argparse
import contextlib
import csv
import hashlib
import inspect
import json
import math
import os
import re
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

import funcnet as fn
from funcnet import _check, recipes, runs
from funcnet.datasets import find_cifar10
from funcnet.losses import LOSSES
from funcnet.optim import OPTIMIZERS
from funcnet.step import fit_preprocess
from funcnet.sweeps import directory as sweep_runs
from funcnet.sweeps.search import Distribution, identity
from funcnet.sweeps.table import RESULTS, best_member

SPLITS = ("train", "val", "test")
VIEWS = fn.flips_and_shifts()  # what --tta averages over


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _is_share(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and 0 < value <= 1)


# What a run directory's configuration must hold, for the run to be used again.
CONFIG: dict[str, Callable[[Any], bool]] = {
    "dataset": lambda value: isinstance(value, str),
    "data_dir": lambda value: value is None or isinstance(value, str),
    "label": lambda value: value is None or isinstance(value, str),
    "val_fraction": lambda value: value is None or _is_number(value),
    "test_fraction": lambda value: value is None or _is_number(value),
    "num_train": lambda value: value is None or _is_count(value),
    "hidden": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "normalization": lambda value: value in recipes.NAMED["normalization"],
    "activation": lambda value: value in recipes.NAMED["activation"],
    "keep_prob": _is_share,
    "input_keep_prob": _is_share,
    "weight_scale": lambda v: v is None or v in recipes.WEIGHT_SCALES or _is_number(v),
    "matmul_dtype": lambda value: value in recipes.NAMED["matmul_dtype"],
    "loss": lambda value: value in recipes.NAMED["loss"],
    "class_names": lambda value: isinstance(value, list) and len(value) > 0,
}
# A run of an earlier version does without these.
LATER = ("normalization", "activation", "keep_prob", "input_keep_prob", "matmul_dtype")
FILE_OPTIONS = ("label", "val_fraction", "test_fraction")
# What a sweep has one value of; it takes several of every other option.
COMMON = (
    *("dataset", "data_dir", *FILE_OPTIONS, "num_train", "preprocess", "augment"),
    *("seed", "epochs", "eval_every", "warmup", "tta"),
)
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
ROWS = 10  # of a table that are printed


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
      The exit code: 0; 1 if gradients disagree; 2 for wrong input, with one line on
      stderr; 130 after Ctrl-C.
    """
    args = _parse(sys.argv[1:] if argv is None else list(argv))
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        _close_output()
        return 0
    except (ValueError, OSError, ImportError) as error:
        message = _one_line(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        message = f"the computation failed, for want of memory perhaps: {_one_line(error)[:200]}"
    except KeyboardInterrupt:
        print(f"funcnet {args.command}: interrupted", file=sys.stderr)
        return 130
    print(f"funcnet {args.command}: error: {message}", file=sys.stderr)
    return 2


def entry() -> None:
    """The program `funcnet`."""
    code = main()
    if code == 130:  # an interrupted compiler does not survive the end of the interpreter
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


# The commands.


def train(args: argparse.Namespace) -> int:
    """funcnet train."""
    _check.installed("tqdm", "for the progress bar")
    _check.installed("safetensors", "to save the model")
    _check.installed("matplotlib", "to draw the curves")
    from tqdm import tqdm

    _check_output(args)
    path = Path(args.out) if args.out else runs.new_run_path("runs", _run_name(args))
    runs.check_free(path, overwrite=args.overwrite)
    config = _config(args)
    dataset = _load_dataset(config)
    if _is_file(args.dataset):
        config["data_sha256"] = _fingerprint(dataset)
    config["class_names"] = list(dataset.class_names)
    net, optimizer, dataset, options = recipes.experiment(config, dataset)
    config["batch_size"] = options["batch_size"]
    if args.tta:  # better known before than after training
        jax.eval_shape(lambda x: [view(x) for view in VIEWS], dataset.x_train[:1])
    claimed = False
    bar = tqdm(total=args.epochs, unit="epoch", disable=True if args.quiet else None)

    def report(epoch: int, train_state: fn.TrainState, metrics: dict[str, Any]) -> None:
        nonlocal path, claimed
        if epoch == 0:  # by now all arguments are known to be right: claim the directory
            if args.out is None:
                path = runs.claim_new_run_path("runs", _run_name(args))
            runs.create_run(path, config, overwrite=args.overwrite)
            claimed = True
            model = fn.Model(net, train_state.params, train_state.state, options["preprocess"])
            runs.check_space(path, model)
        else:
            bar.update()
        if epoch == args.epochs:
            _ignore_interrupts()  # what is left takes a second, and must not be lost
        if not args.quiet:
            _say(_epoch_line(epoch, args.epochs, metrics))

    with _one_interrupt():
        with bar:
            result = fn.fit(net, optimizer, dataset, callback=report, **options)
        if not claimed:
            print("funcnet train: interrupted before the first epoch", file=sys.stderr)
            return 130
        lines, results = _summary(result, dataset, config)
        try:
            runs.save_run(path, config, result, results=results)
            lines.append(f"saved in {path}")
        finally:  # should the disk be full by now, the figures at least are not lost
            for line in lines:
                _say(line)
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


def sweep(args: argparse.Namespace) -> int:
    """funcnet sweep."""
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
        name = f"sweep-{_run_name(args)}"
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
    with _one_interrupt():
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
                path = runs.claim_new_run_path("runs", f"sweep-{_run_name(args)}")
            sweep_runs.create_sweep(path, config)
            claimed = True

    def report(done: int, total: int, now: Callable[[], tuple[fn.Member, ...]]) -> None:
        nonlocal saved, last
        claim()
        if done == total:
            _ignore_interrupts()  # what is left takes seconds, and must not be lost
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
        _print_table(result.table())
        for line in lines:
            _say(line)
    return 0


def _experiment(config: dict[str, Any], dataset: fn.Dataset, **settings: Any) -> tuple[Any, ...]:
    """The experiment of `funcnet sweep`: a configuration with some options replaced."""
    numbers = {name: value for name, value in settings.items() if name != "seed"}
    return recipes.build({**config, **numbers}, dataset)


def _sweep_config(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration common to all members, and the settings of each."""
    _check.integer("--seeds", args.seeds, at_least=1)
    if args.samples is not None:
        _check.integer("--samples", args.samples, at_least=1)
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
    config = _config(argparse.Namespace(**{**first, "hidden": list(first["hidden"])}))
    for name in axes:
        config[name] = recipes.DEFAULTS[name]
    swept = ", ".join(name.replace("_", " ") for name in axes) or "seeds"
    config["title"] = f"{_run_name(args)}: {swept}"
    config["halve_at"], config["chunk_size"] = args.halve_at, args.chunk_size
    config["settings"] = settings
    return config, settings


def _sweep_data(config: dict[str, Any]) -> tuple[fn.Dataset, dict[str, Any]]:
    """The data of a sweep, and what all members preprocess them with."""
    whole = _load_dataset(config)
    if "data_sha256" in config and config["data_sha256"] != _fingerprint(whole):
        raise ValueError(f"{config['dataset']} has changed since the sweep was begun")
    if _is_file(config["dataset"]):
        config["data_sha256"] = _fingerprint(whole)
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
        f"{result.best.epoch}, with {_describe(result.best_settings)}"
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
    own |= {"title": f"{config['title']}: {_describe(member.settings)}", "status": "finished"}
    own["results"] = {"val_accuracy": result.best.accuracy, "best_epoch": result.best.epoch}
    runs.create_run(path, own, overwrite=True)
    runs.save_models(path, own, member.model or result.best, result.best, member.history)
    runs.write_config(path, runs.FORMAT, own)


def _show_sweep(args: argparse.Namespace) -> int:
    rows = sweep_runs.load_table(args.run_directory)
    _print_table(rows, count=len(rows) if args.all else ROWS)
    kept = ("table.csv", "histories.csv", "sweep.png", "best/")
    there = [name for name in kept if (Path(args.run_directory) / name).exists()]
    print(f"{args.run_directory}: {', '.join(there)}")
    return 0


def _print_table(rows: list[dict[str, Any]], *, count: int = ROWS) -> None:
    """Print the best rows of a table: the settings that vary, means over seeds."""
    varying = [
        name
        for name in rows[0]
        if name not in RESULTS and len({str(row[name]) for row in rows}) > 1
    ]
    if "seed" in varying:
        rows = fn.mean_over_seeds(rows)
        shown = [n for n in varying if n != "seed"]
        columns = [*shown, "val_accuracy", "final_train_accuracy", "seeds", "diverged"]
    else:
        columns = [*varying, "val_accuracy", "best_epoch", "final_train_accuracy", "status"]
    ranked = sorted(
        rows, key=lambda row: -math.inf if row["val_accuracy"] is None else row["val_accuracy"]
    )
    ranked.reverse()
    cells = [[name.replace("_", " ") for name in columns]]
    cells += [[_cell(row, name) for name in columns] for row in ranked[:count]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        _say("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if len(ranked) > count:
        _say(f"... and {len(ranked) - count:,} more, in table.csv")


def _cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return "-"
    if name.endswith("accuracy"):
        spread = row.get(f"{name}_std")
        return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _describe(settings: dict[str, Any]) -> str:
    return ", ".join(f"{n.replace('_', ' ')} {_cell(settings, n)}" for n in settings)


def evaluate(args: argparse.Namespace) -> int:
    """funcnet evaluate."""
    config, model = _load_run(args.run_directory, args.model)
    if args.data_dir is not None:
        if config["dataset"] != "cifar10":
            raise ValueError(f"--data-dir is for cifar10, not for {config['dataset']}")
        config["data_dir"] = args.data_dir
    dataset = _load_dataset(config)
    if "data_sha256" in config and config["data_sha256"] != _fingerprint(dataset):
        raise ValueError(
            f"{config['dataset']} has changed since the run, and with it the {args.split} split"
        )
    dataset = recipes.first(dataset, config["num_train"], "--num-train")
    x, y = getattr(dataset, f"x_{args.split}"), getattr(dataset, f"y_{args.split}")
    if not len(x):
        raise ValueError(f"the {args.split} split of {config['dataset']} is empty")
    views = VIEWS if args.tta else None
    result = fn.evaluate(model, x, y, loss_fn=LOSSES[config["loss"]], views=views)
    averaged = f", averaged over {result.views} views" if args.tta else ""
    print(
        f"{args.split} accuracy {100 * result.accuracy:.2f} %{averaged}, loss {result.loss:.4f} "
        f"({_check.plural(len(x), 'example')}, {args.model} model of {args.run_directory})"
    )
    return 0


def predict(args: argparse.Namespace) -> int:
    """funcnet predict."""
    config, model = _load_run(args.run_directory, args.model)
    x = fn.read_inputs(args.file, label=args.label)
    views = VIEWS if args.tta else None
    scores = fn.predict_scores(model, x, views=views).astype(np.float64)
    labels = scores.argmax(axis=1)
    value = "score"
    if config["loss"] == "softmax":
        value = "probability"
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("example", "label", "class", value))
    for i, label in enumerate(labels):
        writer.writerow((i, label, config["class_names"][label], f"{scores[i, label]:.6g}"))
    sys.stdout.flush()
    return 0


def gradcheck(args: argparse.Namespace) -> int:
    """funcnet gradcheck."""
    _check.integer("--num-examples", args.num_examples, at_least=1)
    _check.integer("--max-elements", args.max_elements, at_least=1)
    config = _config(args)
    dataset = _load_dataset(config)
    net = recipes.build_net(config, len(dataset.class_names))
    batch = recipes.first(dataset, args.num_examples, "--num-examples")
    x, y = batch.x_train, batch.y_train
    seed_key = jax.random.key(args.seed)
    with jax.enable_x64(True):
        preprocess = fit_preprocess(recipes.build_preprocess(config), dataset.x_train)
        inputs = preprocess(x)
        init_key, noise_key, key = jax.random.split(seed_key, 3)
        params, state, _ = net.init(init_key, inputs.shape[1:])
        params = _off_the_kinks(noise_key, params)
        check = fn.check_gradients(
            net,
            params,
            state,
            inputs,
            y,
            reg=args.reg,
            key=key,
            loss_fn=LOSSES[args.loss],
            max_elements=args.max_elements,
        )
    print(check)
    return 0 if check.passed else 1


def datasets(args: argparse.Namespace) -> int:
    """funcnet datasets."""
    if args.action == "download":
        print(f"CIFAR-10 is in {fn.download_cifar10(args.data_dir)}")
        return 0
    found = find_cifar10(args.data_dir)
    where = f"in {found}" if found else "not found: funcnet datasets download cifar10"
    print("digits   1,797 handwritten digits, 8 x 8, 10 classes   built in")
    print(f"cifar10  60,000 colour images, 32 x 32, 10 classes     {where}")
    print("a file   your own .npz (x, y) or .csv: give its path as --dataset")
    return 0


def show_recipes(args: argparse.Namespace) -> int:
    """funcnet recipes."""
    known = recipes.list_recipes()
    if args.name is None:
        for recipe in known.values():
            print(f"{recipe.name}\n    {recipe.about}")
            print(f"    cost: {recipe.cost}\n    reaches: {recipe.reaches}")
        print("\nfuncnet train --recipe NAME runs one; funcnet recipes NAME shows its options")
        return 0
    recipe = known[args.name]
    print(f"{recipe.name}: {recipe.about}\ncost: {recipe.cost}\nreaches: {recipe.reaches}\n")
    print("funcnet train " + " ".join(_as_arguments(recipe.options)))
    return 0


def _as_arguments(options: dict[str, Any]) -> list[str]:
    """Options as one would type them."""
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(recipes.option(name))
        else:
            values = value if isinstance(value, list) else [value]
            words.append(" ".join([recipes.option(name), *map(str, values)]))
    return words


# From options to data.


def _check_output(args: argparse.Namespace) -> None:
    if args.out == "":
        raise ValueError("--out is empty")
    if args.overwrite and args.out is None:
        raise ValueError("--overwrite is for the run directory that --out names")


def _fingerprint(dataset: fn.Dataset) -> str:
    """A checksum of the data and of their split."""
    digest = hashlib.sha256(json.dumps(dataset.class_names).encode())
    for array in dataset[:-1]:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _config(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a command that describe its run, for config.json."""
    given = {name: value for name, value in vars(args).items() if name in recipes.DEFAULTS}
    config = {**recipes.DEFAULTS, **given}
    recipes.check_config(config)
    if _is_file(args.dataset):
        config["dataset"] = str(Path(args.dataset).resolve())
    else:
        _check.choose("dataset", args.dataset, {"digits": None, "cifar10": None})
        for name in FILE_OPTIONS:
            if config[name] is not None:
                raise ValueError(f"{recipes.option(name)} is for files, not for {args.dataset}")
    config["recipe"] = getattr(args, "recipe", None)
    name = config["recipe"] or _dataset_name(args.dataset)
    config["title"] = f"{name}, hidden layers {args.hidden}"
    config["versions"] = {"funcnet": fn.__version__, "jax": jax.__version__}
    return config


def _load_dataset(config: dict[str, Any]) -> fn.Dataset:
    if config["dataset"] == "digits":
        return fn.load_digits()
    if config["dataset"] == "cifar10":
        return fn.load_cifar10(config["data_dir"])
    options = {name: config[name] for name in FILE_OPTIONS if config[name] is not None}
    return fn.load_arrays(config["dataset"], **options)


def _load_run(path: str, which: str) -> tuple[dict[str, Any], fn.Model]:
    config = runs.load_config(path)
    for name in LATER:
        config.setdefault(name, recipes.DEFAULTS[name])
    for name, holds in CONFIG.items():
        if name not in config or not holds(config[name]):
            found = f"{name} is {config[name]!r}" if name in config else f"{name} is missing"
            raise ValueError(f"{path}/config.json is damaged: {found}")
    net = recipes.build_net(config, len(config["class_names"]))
    return config, runs.load_run_model(path, net, which=which)


def _off_the_kinks(key: jax.Array, params: Any) -> Any:
    """Biases that are not 0: behind a dead unit a bias of 0 puts ReLU exactly on its kink."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + 0.01 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def _summary(
    result: fn.FitResult, dataset: fn.Dataset, config: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """What to print at the end of training, and what to keep of it."""
    lines: list[str] = []
    results: dict[str, Any] = {"epochs": int(result.state.epoch)}
    model, name = result.model, "the last model"
    if result.best is not None:
        model, name = result.best, "that model"
        lines.append(
            f"best validation accuracy {100 * result.best.accuracy:.2f} % "
            f"after epoch {result.best.epoch}"
        )
        results |= {"best_epoch": result.best.epoch, "val_accuracy": result.best.accuracy}
    if len(dataset.x_test):
        test = partial(
            fn.evaluate, model, dataset.x_test, dataset.y_test, loss_fn=LOSSES[config["loss"]]
        )
        plain, count = test(), _check.plural(len(dataset.x_test), "example")
        lines.append(f"test accuracy of {name} {100 * plain.accuracy:.2f} % ({count})")
        results |= {"test_accuracy": plain.accuracy, "test_loss": plain.loss}
        if config["tta"]:
            averaged = test(views=VIEWS)
            lines.append(f"averaged over {averaged.views} views {100 * averaged.accuracy:.2f} %")
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


def _say(line: str) -> None:
    """Print a line, above the progress bar if there is one.

    A reader that has gone, or a full disk behind standard output, must not cost the run.
    """
    from tqdm import tqdm

    try:
        tqdm.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
    except OSError as error:
        print(f"warning: cannot write to standard output: {error.strerror}", file=sys.stderr)
        _close_output()


def _close_output() -> None:
    """Have what is printed from now on go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C through and ignore the next ones, while the run is being saved."""
    if not _listens_to_interrupts():
        yield
        return

    def interrupt(number: int, frame: Any) -> NoReturn:
        _ignore_interrupts()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ignore_interrupts() -> None:
    if _listens_to_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _listens_to_interrupts() -> bool:
    """Not in a shell's background job, which ignores Ctrl-C, nor in another thread."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )


def _is_file(dataset: str) -> bool:
    return dataset.endswith((".npz", ".csv")) or os.sep in dataset or Path(dataset).is_file()


def _run_name(args: argparse.Namespace) -> str:
    return args.recipe or _dataset_name(args.dataset)


def _dataset_name(dataset: str) -> str:
    return Path(dataset).stem if _is_file(dataset) else dataset


# The parser.


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with room for the option names, and with the defaults that say something."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)
        self._action_max_length = 16  # argparse forgets that commands are indented

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        unsaid = default is None or default is False or default == []
        if unsaid or default is argparse.SUPPRESS or not action.help:
            return action.help
        shown = " ".join(map(str, default)) if isinstance(default, list) else f"{default}"
        return f"{action.help} (default: {shown})".replace("%", "%%")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="funcnet",
        description="Fully connected networks in JAX with hand-written gradients.",
        epilog="funcnet COMMAND --help says more. To begin with: funcnet train",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"funcnet {fn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    known = {
        "train": _add_train(commands),
        "sweep": _add_sweep(commands),
        "evaluate": _add_evaluate(commands),
        "predict": _add_predict(commands),
        "gradcheck": _add_gradcheck(commands),
        "datasets": _add_datasets(commands),
        "recipes": _add_recipes(commands),
    }
    if not argv:
        parser.print_help()
        parser.exit(2)
    if not argv[0].startswith("-") and argv[0] not in known:
        parser.error(_check.unknown("command", argv[0], known))
    if argv[0] in ("train", "sweep"):
        _apply_recipe(known[argv[0]], argv)
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
            near = _check.nearest(name, options)
            hint = f": did you mean {near}?" if near else f"; see {command.prog} --help"
            command.error(f"unknown option {name}{hint}")


def _apply_recipe(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Make the options of the recipe that is asked for the defaults of the others."""
    first = _Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", nargs="?")
    name = first.parse_known_args(argv)[0].recipe
    if name in recipes.list_recipes():
        options = recipes.load_recipe(name)
        if argv[0] == "sweep":  # to which None says that it was not given
            options["hidden"] = None
        parser.set_defaults(**options)


def _command(
    commands: Any, name: str, run: Any, summary: str, details: str, examples: Sequence[str]
) -> Any:
    description = f"{summary[0].upper()}{summary[1:]}. {details}".strip()
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 80),
        epilog="\n".join(["examples:", *(f"  funcnet {example}" for example in examples)]),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_train(commands: Any) -> Any:
    parser = _command(
        commands,
        "train",
        train,
        "train a network",
        "Without options: handwritten digits, in about ten seconds. The run is kept in a "
        "directory: configuration, history, parameters and a picture of the curves.",
        (
            "train",
            "train --hidden 512 256 --optimizer sgd_momentum --learning-rate 1e-2",
            "train --dataset cifar10 --hidden 100 100 100 100 100 --weight-scale 5e-2 \\\n"
            "      --batch-size 200 --epochs 30",
            "train --dataset measurements.csv --label species --weight-scale he",
            "train --recipe cifar10-cpu --epochs 20",
        ),
    )
    _add_recipe_option(parser)
    _add_data_options(parser).add_argument(
        "--num-train",
        type=int,
        metavar="N",
        help="train on the first N training examples only (preprocessing is fitted to all of them "
        "all the same)",
    )
    _add_net_options(parser)
    _add_training_options(parser)
    group = parser.add_argument_group("output")
    add = group.add_argument
    add(
        "--tta",
        action=argparse.BooleanOptionalAction,
        help="at the end, measure the test accuracy of predictions averaged over ten flips "
        "and shifts of each image, too",
    )
    add("--out", metavar="DIR", help="run directory; runs/NAME, numbered, if not given")
    add("--overwrite", action="store_true", help="replace an earlier run in --out")
    add("--quiet", action="store_true", help="no progress bar and no line per epoch")
    parser.set_defaults(**recipes.DEFAULTS)
    return parser


def _add_recipe_option(parser: Any) -> None:
    parser.add_argument(
        "--recipe",
        type=_name("recipe", recipes.list_recipes()),
        metavar="NAME",
        help=f"start from the options of a recipe: {_known(recipes.list_recipes())}; an option "
        "that is given as well takes the place of the recipe's",
    )


def _add_training_options(parser: Any) -> None:
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=int, metavar="N", help="passes over the training data")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"examples per step; {recipes.BATCH_SIZE} if not given, or all if they are fewer",
    )
    add(
        "--augment",
        nargs="*",
        metavar="STEP",
        help="change images at random: flip, shift[=PIXELS], crop[=MIN_AREA], cutout[=SIZE], in "
        "this order or another; without a STEP, not at all",
    )
    add(
        "--label-smoothing",
        type=float,
        metavar="S",
        help="the share of a target's probability that is spread over all classes",
    )
    add(
        "--mixup",
        type=float,
        metavar="ALPHA",
        help="train on mixtures of pairs, with shares from Beta(ALPHA, ALPHA); 0 is none",
    )
    add(
        "--matmul-dtype",
        type=_name("dtype", recipes.MATMUL_DTYPES),
        metavar="DTYPE",
        help=f"{_known(recipes.MATMUL_DTYPES)}: of the factors of matrix products; sums and "
        "parameters are float32",
    )
    add(
        "--average-decay",
        type=float,
        metavar="D",
        help="evaluate and keep an exponential average of the parameters, 0.999 say, in place of "
        "the last ones",
    )
    add("--eval-every", type=int, metavar="N", help="measure accuracies every N epochs; 0 never")
    group = parser.add_argument_group("optimizer")
    add = group.add_argument
    add(
        "--optimizer",
        type=_name("optimizer", OPTIMIZERS),
        metavar="NAME",
        help=_known(OPTIMIZERS),
    )
    add("--learning-rate", type=float, metavar="RATE", help="step size, the largest one")
    add(
        "--schedule",
        type=_name("schedule", recipes.SCHEDULES),
        metavar="NAME",
        help=f"{_known(recipes.SCHEDULES)}; constant if not given, or exponential if there is "
        "a decay",
    )
    add(
        "--learning-rate-decay",
        type=float,
        metavar="FACTOR",
        help="of exponential and step: multiply the learning rate by this after every epoch, "
        "or every --decay-every",
    )
    add("--decay-every", type=int, metavar="N", help="of step: epochs between two decays")
    add(
        "--warmup",
        type=float,
        metavar="SHARE",
        help="share of the steps on which the rate rises; 0 if not given, 0.2 for one_cycle",
    )
    add("--momentum", type=float, metavar="M", help=_of("momentum", "0.9, 0.95 of muon"))
    add("--decay-rate", type=float, metavar="D", help=_of("decay_rate", "0.99"))
    add("--beta1", type=float, metavar="B", help=_of("beta1", "0.9"))
    add("--beta2", type=float, metavar="B", help=_of("beta2", "0.999, 0.99 of lion"))
    add("--epsilon", type=float, metavar="E", help=_of("epsilon", "1e-8"))
    add(
        "--weight-decay",
        type=float,
        metavar="D",
        help=_of("weight_decay", "0.01 of adamw, else 0") + "; of the weights alone",
    )
    add(
        "--clip-norm",
        type=float,
        metavar="C",
        help="scale gradients of a larger global norm down to C",
    )


def _add_sweep(commands: Any) -> Any:
    parser = _command(
        commands,
        "sweep",
        sweep,
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
        type=_name("action", ("run", "resume", "show")),
        default="run",
        metavar="ACTION",
        help="run (if not given), resume or show",
    )
    parser.add_argument(
        "run_directory", nargs="?", metavar="RUN", help="of resume and show: the directory"
    )
    _add_recipe_option(parser)
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
    _add_data_options(parser).add_argument(
        "--num-train",
        type=int,
        metavar="N",
        help="train on the first N training examples only",
    )
    _add_net_options(parser, hidden="append")
    _add_training_options(parser)
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
            if found is None or kind not in (int, float, _weight_scale):
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


def _add_evaluate(commands: Any) -> Any:
    parser = _command(
        commands,
        "evaluate",
        evaluate,
        "measure the accuracy of a trained network",
        "",
        ("evaluate runs/digits", "evaluate runs/digits --split val --model last"),
    )
    _add_run_options(parser)
    parser.add_argument(
        "--split",
        type=_name("split", SPLITS),
        default="test",
        metavar="NAME",
        help=_known(SPLITS),
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where CIFAR-10 is; as in training if not given"
    )
    return parser


def _add_predict(commands: Any) -> Any:
    parser = _command(
        commands,
        "predict",
        predict,
        "predict the classes of examples in a file",
        "Prints CSV: example, label, class, and the probability that the network gives it (its "
        "score, if it was trained with the svm loss).",
        ("predict runs/digits images.npy > labels.csv",),
    )
    _add_run_options(parser)
    parser.add_argument(
        "file", metavar="FILE", help="raw inputs: .npy, .npz with x, or .csv of features"
    )
    parser.add_argument("--label", metavar="COLUMN", help="column of a .csv to leave out")
    return parser


def _add_gradcheck(commands: Any) -> Any:
    parser = _command(
        commands,
        "gradcheck",
        gradcheck,
        "check the hand-written gradients of a network",
        "Every element against autodiff, and up to --max-elements of each array against "
        "numerical differentiation, in float64, at random parameters. Exit code 1 if they "
        "disagree.",
        ("gradcheck", "gradcheck --hidden 20 30 40 --loss svm --reg 3.14"),
    )
    _add_data_options(parser)
    _add_net_options(parser)
    group = parser.add_argument_group("check")
    group.add_argument(
        "--num-examples", type=int, default=5, metavar="N", help="examples in the batch"
    )
    group.add_argument(
        "--max-elements",
        type=int,
        default=1000,
        metavar="N",
        help="elements per parameter array that are checked numerically, spread evenly",
    )
    parser.set_defaults(**recipes.DEFAULTS)
    return parser


def _add_datasets(commands: Any) -> Any:
    parser = _command(
        commands,
        "datasets",
        datasets,
        "list the datasets, or download one",
        "Nothing is downloaded unless asked for.",
        ("datasets", "datasets download cifar10"),
    )
    parser.add_argument(
        "action",
        nargs="?",
        type=_name("action", ("list", "download")),
        default="list",
        metavar="ACTION",
        help="list or download",
    )
    parser.add_argument(
        "name",
        nargs="?",
        type=_name("dataset to download", ("cifar10",)),
        default="cifar10",
        metavar="NAME",
        help="what to download: cifar10",
    )
    _add_data_dir(parser)
    return parser


def _add_recipes(commands: Any) -> Any:
    parser = _command(
        commands,
        "recipes",
        show_recipes,
        "list the recipes, or show one",
        "A recipe is a named set of the options of train.",
        ("recipes", "recipes cifar10-cpu", "train --recipe cifar10-cpu --epochs 20 --seed 1"),
    )
    parser.add_argument(
        "name",
        nargs="?",
        type=_name("recipe", recipes.list_recipes()),
        metavar="NAME",
        help="show the options of this one",
    )
    return parser


def _add_run_options(parser: Any) -> None:
    parser.add_argument(
        "run_directory", metavar="RUN", help="directory of a run, such as runs/digits"
    )
    parser.add_argument(
        "--model",
        type=_name("model", ("best", "last")),
        default="best",
        metavar="NAME",
        help="best, by validation accuracy, or last",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average predictions over ten flips and shifts of each image",
    )


def _add_data_options(parser: Any) -> Any:
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--dataset",
        metavar="NAME",
        help="digits, cifar10, or the path of your own .npz (x, y) or .csv",
    )
    _add_data_dir(group)
    add("--label", metavar="COLUMN", help="label column of a .csv; the last if not given")
    add("--val-fraction", type=float, metavar="F", help="of a file; 0.1 if not given")
    add("--test-fraction", type=float, metavar="F", help="of a file; 0.1 if not given")
    add(
        "--preprocess",
        nargs="+",
        metavar="STEP",
        help="mean: subtract the mean of the training data; standardize: divide by the standard "
        "deviation, too; contrast[=EPSILON]: mean 0 and variance 1 for each example; whiten[=DIM]: "
        "principal components of variance 1; shuffle[=SEED]: the features in another order; none",
    )
    return group


def _add_data_dir(parser: Any) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where CIFAR-10 is; if not given $FUNCNET_DATA, else the user's cache",
    )


def _add_net_options(parser: Any, *, hidden: str = "store") -> None:
    group = parser.add_argument_group("network")
    add = group.add_argument
    add(
        "--hidden",
        action=hidden,
        type=int,
        nargs="*",
        metavar="DIM",
        help="size of each hidden layer; none for a linear classifier",
    )
    add(
        "--normalization",
        type=_name("normalization", recipes.NAMED["normalization"]),
        metavar="NAME",
        help=f"after each hidden affine layer: {_known(recipes.NAMED['normalization'])}",
    )
    add(
        "--activation",
        type=_name("activation", recipes.NAMED["activation"]),
        metavar="NAME",
        help=_known(recipes.NAMED["activation"]),
    )
    add("--keep-prob", type=float, metavar="P", help="dropout keeps a hidden unit with P")
    add("--input-keep-prob", type=float, metavar="P", help="dropout keeps an input with P")
    add(
        "--weight-scale",
        type=_weight_scale,
        metavar="SCALE",
        help="standard deviation of the initial weights; or he, sqrt(2 / fan_in), or glorot, "
        "sqrt(2 / (fan_in + fan_out)), which are for inputs of unit size: pixels are larger, "
        "standardize them",
    )
    add("--loss", type=_name("loss", LOSSES), metavar="NAME", help=_known(LOSSES))
    add("--reg", type=float, metavar="R", help="L2 strength: 0.5 R sum(w^2) is added to the loss")
    add("--seed", type=int, metavar="N", help="seed of everything random")


def _of(hyper: str, default: str) -> str:
    """Help for a hyper-parameter: which optimizers have it, and its default."""
    users = [o for o, f in OPTIMIZERS.items() if hyper in inspect.signature(f).parameters]
    return f"of {', '.join(users)}; {default} if not given"


def _name(kind: str, known: Any) -> Callable[[str], str]:
    """A type for argparse: one of the known names, or an error with the nearest one."""

    def parse(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(_check.unknown(kind, name, known))
        return name

    return parse


def _weight_scale(text: str) -> float | str:
    if text.lower() in recipes.WEIGHT_SCALES:
        return text.lower()
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number, {' or '.join(recipes.WEIGHT_SCALES)}, got {text!r}"
        ) from None


def _known(names: Any) -> str:
    return ", ".join(names)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
