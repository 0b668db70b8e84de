"""The reference: pages made of the registry of public names, and of the parser of commands."""

import argparse
import ast
import importlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import funcnet as fn
from funcnet.cli import COMMANDS, make_parser

# A module of public names that is on no page is an error.
PAGES = {
    "arrays": (
        "Passes, as functions of arrays",
        "layers rectifiers activations tabular embeddings piecewise members losses regression weights "
        "shards",
    ),
    "networks": (
        "Layers, networks and their gradients",
        "layer net objective ensembles gradcheck tree",
    ),
    "optimizers": ("Optimizers and schedules", "optimizer optim wrappers schedules"),
    "data": ("Data", "datasets preprocess augment targets"),
    "training": ("Training", "train step history nonfinite parallel processes"),
    "models": ("Models", "model evaluation metrics calibration committee checkpoint export"),
    "sweeps": ("Sweeps", "sweeps"),
    "experiments": ("Experiments as data, and runs", "config defaults recipes runs logs report"),
    "pictures": ("Pictures", "plots"),
}
SKLEARN = "funcnet.sklearn"


def write(folder: Path) -> None:
    """Make all pages anew, in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    readme = folder.parent.parent / "README.md"
    (folder / "front.md").write_text(_front(readme.read_text("utf-8")), "utf-8")
    modules = list(fn._NAMES)
    titles = {}
    for page, (title, roots) in PAGES.items():
        own = [m for root in roots.split() for m in modules if m.split(".")[0] == root]
        modules = [m for m in modules if m not in own]
        titles[page] = title
        _write(folder / f"{page}.rst", title, *map(_module, own))
    if modules:
        raise ValueError(f"on no page of the reference: {modules}; see PAGES in docs/reference.py")
    estimators = importlib.import_module(SKLEARN)
    entries = [_entry(SKLEARN, name, getattr(estimators, name)) for name in estimators.__all__]
    _write(folder / "sklearn.rst", "In scikit-learn", *entries)
    _write(folder / "command-line.rst", "The command line", *_commands())
    pages = [*titles, "sklearn", "command-line"]
    tree = "\n".join(f"   {page}" for page in pages)
    _write(folder / "index.rst", "Reference", f".. toctree::\n   :maxdepth: 1\n\n{tree}")


def _write(path: Path, title: str, *parts: str) -> None:
    text = "\n\n".join([f"{title}\n{'=' * len(title)}", *parts])
    path.write_text(text + "\n", encoding="utf-8")


def _module(name: str) -> str:
    """What a module of public names says of itself, and its names in the order of the source."""
    module = importlib.import_module(f"funcnet.{name}")
    title = (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")
    names = fn._NAMES[name].split()
    order = _order(module)
    names.sort(key=lambda each: (order.get(each, len(order)), each))
    entries = [_entry("funcnet", each, getattr(fn, each)) for each in names]
    return "\n\n".join([f"{title}\n{'-' * len(title)}", *entries])


def _order(module: Any) -> dict[str, int]:
    tree = ast.parse(inspect.getsource(module))
    names = [each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)]
    return {name: place for place, name in enumerate(names)}


def _entry(package: str, name: str, value: Any) -> str:
    if inspect.isclass(value):
        members = ", ".join(_methods(value))
        return f".. autoclass:: {package}.{name}" + (f"\n   :members: {members}" if members else "")
    kind = "function" if callable(value) else "data"
    return f".. auto{kind}:: {package}.{name}"


def _methods(value: type) -> list[str]:
    """What a class of funcnet's own has and says of it; its fields stand in its docstring."""
    classes = [each for each in value.__mro__ if each.__module__.startswith("funcnet")]
    names = dict.fromkeys(name for each in classes for name in vars(each))
    fields = {"set_fit_request", "set_score_request", "set_partial_fit_request"}
    fields.update(getattr(value, "_fields", ()), getattr(value, "__dataclass_fields__", ()))
    own = [name for name in names if not name.startswith("_") and name not in fields]
    return [name for name in own if inspect.getdoc(getattr(value, name, None))]


def _commands() -> list[str]:
    """The help of each command, as it is printed; of its own commands, too."""
    _, known = make_parser(fn.Config())
    return [part for name in COMMANDS for part in _help(known[name])]


def _help(parser: argparse.ArgumentParser) -> list[str]:
    text = "\n".join(f"   {line}".rstrip() for line in parser.format_help().splitlines())
    title = parser.prog
    own = f"{title}\n{'-' * len(title)}\n\n.. code-block:: text\n\n{text}"
    inner = [
        part
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for each in dict.fromkeys(action.choices.values())
        for part in _help(each)
    ]
    return [own, *inner]


ANOTHER = re.compile(r"(?<=[.;]) (\w+(?:, \w+)*(?:Error|Exception|Interrupt): )")
SECTION = re.compile(r"(Args|Attributes|Example|Raises|Returns|Yields):")


def marked(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText: formulas are literal blocks, signs in the text are signs."""
    out: list[str] = []
    section, formula, listed = "", False, False
    for line in lines:
        if match := SECTION.fullmatch(line):
            section = match[1]
        inside = not section and line.startswith(" ") and not listed
        if inside and not formula:
            out += ["", ".. code-block:: text", ""]
        elif formula and line and not inside:
            out.append("")
        formula = inside or (formula and not line)
        if not line.startswith(" "):
            listed = line.startswith("- ")
        if formula or section == "Example":
            out.append(line)
        else:
            out += ANOTHER.sub(r"\n    \1", _escaped(line)).split("\n")
    return out


def _escaped(line: str) -> str:
    """A line in which no sign but a pair of backticks means anything."""
    parts = line.split("`")
    if len(parts) % 2:
        parts[::2] = [re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _front(text: str) -> str:
    """The README as a page: its links to sources, which are no pages, are text."""
    text = text.replace("](docs/", "](")
    return re.sub(r"\[([^\]]*)\]\((?:(?:funcnet|tests)/[^)]*|notebooks/?|tests/?)\)", r"\1", text)
