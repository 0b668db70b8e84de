"""funcnet predict."""

import argparse
import csv
import sys
from typing import Any

import numpy as np

import funcnet as fn
from funcnet.cli.options import add_run_options, name_among, views
from funcnet.cli.parser import add_command
from funcnet.cli.records import load_run, noted
from funcnet.config import OPTIONS, Config
from funcnet.datasets.arrays import HEADER
from funcnet.losses import gives_probabilities
from funcnet.metrics import softmax
from funcnet.model import answers


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "predict",
        run,
        "predict the classes of examples in a file",
        "Prints CSV: example, label, class, and the probability that the network gives it (its "
        "score, if it was trained with the svm loss).",
        ("predict runs/digits images.npy > labels.csv",),
        arguments="RUN FILE",
    )
    add_run_options(parser)
    parser.add_argument(
        "file", metavar="FILE", help="raw inputs: .npy, .npz with x, or .csv of features"
    )
    parser.add_argument("--label", metavar="COLUMN", help="column of a .csv to leave out")
    known = OPTIONS["header"]
    parser.add_argument(
        "--header",
        type=name_among("header", HEADER),
        metavar=known.metavar,
        help=known.help,
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    record, model = load_run(args.run_directory, args.model)
    with noted():
        x = fn.read_inputs(args.file, label=args.label, header=args.header)
    averaged_over = views(record.config, args)
    scores = fn.predict_scores(model, x, views=averaged_over).astype(np.float64)
    labels = answers(scores)
    value, shown = "score", scores
    if gives_probabilities(record.config.meaning("loss")):
        value, shown = "probability", softmax(scores)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("example", "label", "class", value))
    for i, label in enumerate(labels):
        writer.writerow((i, label, record.facts["class_names"][label], f"{shown[i, label]:.6g}"))
    sys.stdout.flush()
    return 0
