"""funcnet recipes."""

import argparse
from typing import Any

import funcnet as fn
from funcnet.cli.options import NameAmong
from funcnet.cli.parser import add_command
from funcnet.config import Config
from funcnet.option import option


def add(commands: Any, base: Config) -> Any:
    """Add the command to the parser, and return its own."""
    parser = add_command(
        commands,
        "recipes",
        run,
        "list the recipes, or show one",
        "A recipe is a named set of the options of train.",
        ("recipes", "recipes cifar10-cpu", "train --recipe cifar10-cpu --epochs 20 --seed 1"),
        arguments="[NAME]",
    )
    parser.add_argument(
        "name",
        nargs="?",
        type=NameAmong("recipe", fn.list_recipes()),
        metavar="NAME",
        help="show the options of this one",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    known = fn.list_recipes()
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
            words.append(option(name))
        else:
            values = value if isinstance(value, list) else [value]
            words.append(" ".join([option(name), *map(str, values)]))
    return words
