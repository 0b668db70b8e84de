"""funcnet predict."""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import funcnet as fn
from funcnet.cli.options import TEXT, add_file_options, add_run_options, views
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_run, noted
from funcnet.config import Config
from funcnet.datasets.delimited import Format
from funcnet.datasets.tables import inputs_of
from funcnet.model import answers, probabilities
from funcnet.runs import Record


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "predict",
        run,
        "predict from examples in a file",
        "Prints CSV: example, label, class, and the probability that the network gives it (its "
        "score, if it was trained with the svm loss); of numbers, in their own units, and of "
        "several labels, 0 or 1, a column each. Columns of a table are found by their names.",
        (
            "predict runs/digits images.npy > labels.csv",
            "predict runs/penguins new.csv --id bird --proba",
            "predict runs/penguins - < new.csv",
        ),
        arguments="RUN FILE",
    )
    add_run_options(parser)
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a table, - is standard input; or raw inputs: .npy, .npz with x, an image or a folder "
        "of images",
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help="column of a table to call examples by, not their numbers"
    )
    parser.add_argument(
        "--proba", action="store_true", help="print the probability of each class, too"
    )
    parser.add_argument("--label", metavar="COLUMN", help="column of a table to leave out")
    add_file_options(parser, TEXT)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    record, model, _ = load_run(args.run_directory, args.model)
    with noted():
        x, names, title = _inputs(args, record.config, model)
    averaged_over, targets = views(record.config, args), model.targets
    if args.proba and targets.task == "regression":
        raise ValueError("--proba is for classes, and the run is one of regression")
    scores = fn.predict_scores(model, x, views=averaged_over).astype(np.float64)
    found = answers(scores, targets)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if targets.task == "classification":
        _write_classes(writer, args, names, title, record, found, scores, targets)
    else:
        head, rows = _numbers(args, record, found, scores, targets)
        writer.writerow((title, *head))
        writer.writerows((name, *row) for name, row in zip(names, rows, strict=True))
    sys.stdout.flush()
    return 0


def _write_classes(
    writer: Any,
    args: argparse.Namespace,
    names: Sequence[Any],
    title: str,
    record: Record,
    labels: np.ndarray,
    scores: np.ndarray,
    targets: fn.Targets,
) -> None:
    value, shown = "score", scores
    if targets.gives_probabilities:
        value, shown = "probability", probabilities(scores, targets)
    classes = record.facts["class_names"]
    every = [f"{value} of {name}" for name in classes] if args.proba else []
    writer.writerow((title, "label", "class", value, *every))
    for name, label, row in zip(names, labels, shown, strict=True):
        each = [f"{v:.6g}" for v in row] if args.proba else []
        writer.writerow((name, label, classes[label], f"{row[label]:.6g}", *each))


def _numbers(
    args: argparse.Namespace,
    record: Record,
    found: np.ndarray,
    scores: np.ndarray,
    targets: fn.Targets,
) -> tuple[list[str], Iterator[list[str]]]:
    """The columns of what was predicted, and what stands in each row of them."""
    if targets.task == "multilabel":
        head = list(record.facts["class_names"])
        rows = [list(map(str, row)) for row in found.tolist()]
        if args.proba:
            head += [f"probability of {name}" for name in head]
            for row, each in zip(rows, probabilities(scores, targets), strict=True):
                row += [f"{value:.6g}" for value in each]
        return head, iter(rows)
    count = len(targets.scale)
    names = targets.names or (("y",) if count == 1 else tuple(f"y{k + 1}" for k in range(count)))
    head = list(names)
    if targets.quantiles:
        head = [f"{name}, quantile {q:g}" for name in names for q in targets.quantiles]
    flat = found.reshape(len(found), -1)
    return head, ([f"{value:.7g}" for value in row] for row in flat)


def _inputs(
    args: argparse.Namespace, config: Config, model: fn.Model
) -> tuple[Any, Sequence[Any], str]:
    """Inputs [N, ...], what to call each of them, and what to call that."""
    form = {name: getattr(args, name, None) for name in TEXT}
    if model.encoding is None:
        if args.id is not None:
            raise ValueError("--id is for runs that were trained on a table")
        x = fn.read_inputs(args.file, label=args.label, size=config.image_size, **form)
        return x, range(len(x)), "example"
    x, table = inputs_of(args.file, model.encoding, Format(**form), words=args.id and (args.id,))
    for name in filter(None, (args.label, args.id)):
        table.column(name)
    if args.id is None:
        return x, range(len(x)), "example"
    column = table.column(args.id).texts()
    words = (*(column.words or ()), "")  # "" is a missing one
    return x, [words[code] for code in column.values], args.id
