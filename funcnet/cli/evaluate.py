"""funcnet evaluate."""

import argparse
import dataclasses
from typing import Any

import funcnet as fn
from funcnet import checks
from funcnet.cli.measures import as_json, class_lines, further_line
from funcnet.cli.options import SPLITS, add_run_options, listed, name_among, views
from funcnet.cli.parser import add_command
from funcnet.cli.records import check_data, load_data, load_run
from funcnet.config import Config
from funcnet.datasets.dataset import first


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "measure the accuracy of a trained network",
        "Balanced accuracy is the mean over the classes of their recall, the share of a class's "
        "examples that were found; log loss is of softmax probabilities, which the svm loss does "
        "not train.",
        (
            "evaluate runs/digits",
            "evaluate runs/digits --split val --model last",
            "evaluate runs/digits --json > measured.json",
        ),
        arguments="RUN",
    )
    add_run_options(parser)
    parser.add_argument(
        "--split",
        type=name_among("split", SPLITS),
        default="test",
        metavar="NAME",
        help=f"{listed(SPLITS)} (default: %(default)s)",
    )
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
    record, model = load_run(args.run_directory, args.model)
    config = record.config
    if args.data_dir is not None:
        config = dataclasses.replace(config, data_dir=args.data_dir)
    dataset = load_data(config)
    check_data(record, dataset, f"since the run, and with it the {args.split} split")
    dataset = first(dataset, config.num_train, "--num-train")
    x, y = getattr(dataset, f"x_{args.split}"), getattr(dataset, f"y_{args.split}")
    if not len(x):
        raise ValueError(f"the {args.split} split of {config.dataset} is empty")
    averaged_over = views(config, args)
    result = fn.evaluate(model, x, y, loss_fn=config.meaning("loss"), views=averaged_over)
    class_names = record.facts["class_names"]
    if args.json:
        facts = {"run": args.run_directory, "model": args.model, "split": args.split}
        print(as_json(result, y, class_names, **facts, examples=len(x)))
        return 0
    averaged = f", averaged over {result.views} views" if args.tta else ""
    print(
        f"{args.split} accuracy {100 * result.accuracy:.2f} %{averaged}, loss {result.loss:.4f} "
        f"({checks.plural(len(x), 'example')}, {args.model} model of {args.run_directory})"
    )
    print(further_line(result))
    for line in class_lines(result, y, class_names):
        print(line)
    return 0
