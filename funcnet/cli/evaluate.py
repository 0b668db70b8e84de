"""funcnet evaluate."""

import argparse
import dataclasses
from typing import Any

import funcnet as fn
from funcnet import checks
from funcnet.again import check_data, load_for
from funcnet.cli.measures import as_json, class_lines, first_measure, further_line
from funcnet.cli.options import (
    SPLITS,
    TEXT,
    NameAmong,
    add_file_options,
    add_run_options,
    listed,
    views,
)
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_data, load_run, noted
from funcnet.config import Config
from funcnet.datasets.classes import places_among
from funcnet.datasets.dataset import first
from funcnet.datasets.notes import naming_file
from funcnet.datasets.registry import is_table_file
from funcnet.datasets.shard_files import holds_shards
from funcnet.recipes import build_loss
from funcnet.rules import class_weight
from funcnet.runs import Record

WHOLE: dict[str, Any] = {"val_fraction": 0.0, "test_fraction": 0.0}  # of a file


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "measure how well a trained network does",
        "Of classes the accuracy and more, of numbers RMSE, MAE and R2, of several labels F1. "
        "Balanced accuracy is the mean over the classes of their recall, the share of a class's "
        "examples that were found; log loss is of softmax probabilities, which the svm loss does "
        "not train.",
        (
            "evaluate runs/digits",
            "evaluate runs/digits --split val --model last",
            "evaluate runs/digits --json > measured.json",
            "evaluate runs/penguins others.csv",
        ),
        arguments="RUN [FILE]",
    )
    add_run_options(parser)
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="other labelled examples, a table or .npz, in place of a split of the run's own data",
    )
    parser.add_argument(
        "--split",
        type=NameAmong("split", SPLITS),
        metavar="NAME",
        help=f"of the run's own data: {listed(SPLITS)} (default: test)",
    )
    add_file_options(parser.add_argument_group("of FILE"), ("label", "weight", *TEXT))
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where downloaded data are; as in training if not given"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print all that was measured as one JSON object, the confusion matrix with it",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    record, model, which = load_run(args.run_directory, args.model)
    config = record.config
    find = _split if args.file is None else _file
    x, y, weight, what = find(args, record, model)
    result = fn.evaluate(
        model,
        x,
        y,
        loss_fn=build_loss(config),
        views=views(config, args),
        sample_weight=weight,
        class_weight=class_weight(config),
    )
    class_names = record.facts["class_names"]
    if args.json:
        facts = {"run": args.run_directory, "model": which, **what}
        print(as_json(result, y, class_names, **facts, examples=len(x)))
        return 0
    averaged = f", averaged over {result.views} views" if args.tta else ""
    (of_what,) = what.values()
    name, value = first_measure(result)
    print(
        f"{of_what} {name} {value}{averaged}, loss {result.loss:.4f} "
        f"({checks.plural(len(x), 'example')}, {which} model of {args.run_directory})"
    )
    print(further_line(result))
    for line in class_lines(result, y, class_names):
        print(line)
    return 0


def _split(
    args: argparse.Namespace, record: Record, model: fn.Model
) -> tuple[Any, Any, Any, dict[str, str]]:
    """Inputs, targets and weights of a split of what the run was trained on, and which it is."""
    if given := [name for name in ("label", "weight", *TEXT) if hasattr(args, name)]:
        raise ValueError(f"--{given[0]} is for a FILE to evaluate on")
    config, split = record.config, args.split or "test"
    if args.data_dir is not None:
        config = dataclasses.replace(config, data_dir=args.data_dir)
    dataset = load_data(config, model)
    check_data(record, dataset, f"since the run, and with it the {split} split")
    dataset = first(dataset, config.num_train, "--num-train")
    x, y, weight = (getattr(dataset, f"{name}_{split}") for name in ("x", "y", "weight"))
    if not len(x):
        raise ValueError(f"the {split} split of {config.dataset} is empty")
    return x, y, weight, {"split": split}


def _file(
    args: argparse.Namespace, record: Record, model: fn.Model
) -> tuple[Any, Any, Any, dict[str, str]]:
    """Inputs, targets and weights of another file, and its name."""
    if args.split is not None or args.data_dir is not None:
        raise ValueError("--split and --data-dir are for the run's own data, not for a FILE")
    names = tuple(record.facts["class_names"])
    options = ("label", "weight", *TEXT)
    given = {name: getattr(args, name) for name in options if hasattr(args, name)}
    task, what = model.targets.task, {"file": args.file}
    if holds_shards(args.file):
        raise ValueError(
            f"{args.file} holds shards, whose columns are made for what is trained on them: give "
            "the file that they were made of, or without a FILE --split of the run's own data"
        )
    with noted():
        if is_table_file(args.file):
            label = given.pop("label", record.config.label)
            known = names if task == "classification" else ()
            dataset = load_for(
                model, args.file, label, task=task, class_names=known, **WHOLE, **given
            )
            return dataset.x_train, dataset.y_train, dataset.weight_train, what
        dataset = fn.load_arrays(args.file, task=task, **WHOLE, **given)
    if task != "classification":
        return dataset.x_train, dataset.y_train, None, what
    with naming_file(args.file):
        places = places_among(dataset.class_names, names)
    y: Any = dataset.y_train
    of_model = y.made(lambda own: places[own]) if isinstance(y, fn.Stored) else places[y]
    return dataset.x_train, of_model, None, what
