"""What `funcnet sweep` sweeps, of its options: the settings of members, or a space to search."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

import funcnet as fn
from funcnet import checks
from funcnet.cli.options import NameAmong, given_options, is_range, listed
from funcnet.config import OPTIONS, Config, replaced
from funcnet.option import option
from funcnet.sweeps.folds import FOLDS
from funcnet.sweeps.guided import BATCH, Search, check_search, corners_of
from funcnet.sweeps.samplers import SAMPLERS

# Options of sweeps alone, and --out and --recipe: what they are if they are not given.
OWN: dict[str, Any] = {
    "recipe": None,
    "out": None,
    "seeds": 1,
    "samples": None,
    "sampler": "random",
    "batch": None,
    "objectives": None,
    "folds": None,
    "halve_at": [],
    "chunk_size": None,
}


class Swept(NamedTuple):
    """What is swept.

    Attributes:
      config: the Config of the first member; of a search without what varies.
      settings: those of each member; of a search those at the ends of its ranges.
      title: what varies, in words.
      search: what is searched, checked; None if the settings are known.
    """

    config: Config
    settings: list[dict[str, Any]]
    title: str
    search: Search | None


def add_sweep_options(parser: Any) -> None:
    """Options of sweeps alone."""
    add = parser.add_argument_group("sweep").add_argument
    add("--seeds", type=int, metavar="N", help="train each setting with N seeds (default: 1)")
    add(
        "--samples",
        type=int,
        metavar="N",
        help="draw N settings, in place of every combination",
    )
    add(
        "--sampler",
        type=NameAmong("sampler", SAMPLERS),
        metavar="NAME",
        help="what draws them: random (if not given), or tpe, which goes by what earlier ones came "
        "to",
    )
    add(
        "--batch",
        type=int,
        metavar="N",
        help=f"of tpe: draw and train N settings at a time (default: {BATCH})",
    )
    add(
        "--objectives",
        nargs="+",
        metavar="NAME",
        help="columns of the table that settings are compared by, such as val_accuracy parameters: "
        "those that none is better than are shown, and tpe goes by them (default: --monitor)",
    )
    add(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validate: train each member N times, each time without another Nth of the "
        "examples to train and to validate, which it is measured on",
    )
    add(
        "--halve-at",
        type=int,
        nargs="+",
        metavar="EPOCH",
        help="after these epochs, stop the worse half by what --monitor says",
    )
    add(
        "--chunk-size",
        type=int,
        metavar="N",
        help="members to train side by side; if not given, as the memory allows",
    )


def swept_by(args: argparse.Namespace) -> Swept:
    """What the options of a new sweep say.

    Raises:
      ValueError, TypeError: they do not go together. ImportError: the sampler needs what is not
        installed.
    """
    _check(args)
    axes, given = _axes(given_options(args))
    ranges = [name for name, values in axes.items() if is_range(values)]
    if ranges and args.samples is None:
        raise ValueError(
            f"{option(ranges[0])} is a range: say with --samples how many settings to draw"
        )
    if args.samples is not None and not axes:
        raise ValueError("--samples needs options with ranges or several values to draw from")
    if not axes and args.seeds == 1 and args.folds is None:
        raise ValueError(
            "there is nothing to sweep: give an option several values, such as "
            "--learning-rate 1e-3 1e-2, or --seeds, or --folds"
        )
    seed = checks.SEED.check("--seed", given.get("seed", args.base.seed))
    seeds = tuple(range(seed, seed + args.seeds))
    words = listed(name.replace("_", " ") for name in axes) or "seeds"
    base = {"tta": False, **given}
    if args.sampler != "random":
        batch = min(BATCH, args.samples) if args.batch is None else args.batch
        objectives = tuple(args.objectives or ())
        search = check_search(
            Search(axes, args.samples, batch, args.sampler, seed, seeds, objectives)
        )
        corners = search.members(corners_of(search.space))
        config = replaced(args.base, base)
        return Swept(config, corners, words, search)
    if args.samples is not None:
        drawn = fn.random_search(jax.random.key(seed), args.samples, **axes)
    else:
        drawn = fn.grid(**axes) if axes else [{}]
    settings = [{**each, "seed": own} for each in drawn for own in seeds]
    return Swept(replaced(args.base, {**base, **settings[0]}), settings, words, None)


def _check(args: argparse.Namespace) -> None:
    """Raise unless the options of sweeps alone go together."""
    checks.COUNT.check("--seeds", args.seeds)
    if args.folds is not None:
        FOLDS.check("--folds", args.folds)
        if args.halve_at:
            raise ValueError("--halve-at is not for --folds: all members of a fold are needed")
        if args.objectives:
            raise ValueError("--objectives is not for --folds, whose settings are means over folds")
    if args.samples is not None:
        checks.COUNT.check("--samples", args.samples)
    if args.sampler == "random":
        if args.batch is not None:
            raise ValueError(
                "--batch is for --sampler tpe: settings drawn at random do not wait for others"
            )
        return
    if args.samples is None:
        raise ValueError(
            f"--sampler {args.sampler} needs --samples, how many settings to try: without it every "
            "combination is trained"
        )
    if args.folds is not None:
        raise ValueError(
            f"--folds is not for --sampler {args.sampler}: search first, and cross-validate what "
            "was found"
        )


def _axes(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that take several values: those that vary; and the others, each with its value."""
    axes: dict[str, Any] = {}
    single: dict[str, Any] = {}
    for name, values in given.items():
        if OPTIONS[name].sweep != "several":
            single[name] = values
        elif any(map(is_range, values)):
            if len(values) > 1:
                raise ValueError(f"{option(name)} takes one range, or values, not both")
            axes[name] = values[0]
        elif len(values) > 1:
            axes[name] = [tuple(v) if isinstance(v, list) else v for v in values]
        else:
            single[name] = values[0]
    return axes, single


def options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options among the settings of a member: all but its seed."""
    return {name: value for name, value in settings.items() if name != "seed"}


def batch_sizes(settings: Sequence[Mapping[str, Any]]) -> list[int]:
    """The batch sizes among the settings of members, that of the first member first."""
    return [each["batch_size"] for each in settings if each.get("batch_size") is not None]
