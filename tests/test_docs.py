"""What the API reference says comes true: its examples run, and its sections are complete."""

import ast
import builtins
import doctest
import importlib
import inspect
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
NAMES = {module: names.split() for module, names in fn._NAMES.items()}
# Modules whose examples compile next to nothing; those of the others run with the slow tests.
QUICK = (
    *("calibration", "config", "datasets", "defaults", "evaluation", "history", "metrics", "model"),
    *("optimizer", "parallel", "plots.curves", "preprocess", "processes", "recipes", "runs"),
    *(
        "schedules",
        "shards",
        "sweeps.cross",
        "sweeps.search",
        "sweeps.sweep",
        "sweeps.table",
        "targets",
    ),
    *("train", "tree", "weights"),
)
# Names without an example yet, and those of which not all is explained: both only become shorter.
WITHOUT_EXAMPLE = {
    *("Config", "CrossValidation", "FitResult", "Fold", "Member", "SweepResult"),
    *("cross_validate", "fit", "grid", "integers", "load_run", "log_uniform", "mean_over_seeds"),
    *("member_key", "plot_heat_map", "plot_histories", "plot_history", "plot_lines"),
    *("plot_parallel", "plot_reliability", "plot_sweep", "random_search", "sweep"),
    *("sweep_table", "uniform"),
}
UNEXPLAINED = {
    *("Config", "cross_validate", "fit", "grid", "integers", "log_uniform", "mean_over_seeds"),
    *("member_key", "sweep", "sweep_table", "uniform"),
}


def text_of(name):
    """The docstring of a public name; of a constant the string that stands after it."""
    found = getattr(fn, name)
    if callable(found):
        return inspect.cleandoc(found.__doc__ or "")
    module = importlib.import_module(f"funcnet.{fn._WHERE[name]}")
    body = ast.parse(Path(module.__file__).read_text()).body
    for node, after in itertools.pairwise(body):
        named = isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets)
        if named and isinstance(after, ast.Expr):
            return inspect.cleandoc(ast.literal_eval(after.value))
    return ""


def sections(name):
    """The lines of each section of a docstring, by its title; "" is all that is in none."""
    found, title = {"": []}, ""
    for line in text_of(name).splitlines():
        if line.endswith(":") and line[:-1] in SECTIONS:
            title = line[:-1]
            assert title not in found, (name, title)
            found[title] = []
            continue
        if line and not line.startswith(" "):
            title = ""
        found[title].append(line)
    return found


def entries(lines):
    """The names that a section explains: those before a colon, as far to the left as they go."""
    heads = (re.match(r" {2}(\S[^:]*):( |$)", line) for line in lines)
    return [name.strip() for head in heads if head for name in head[1].split(",")]


def fields_of(found):
    """The fields of a class, those that it has from others first; () of one without any."""
    return getattr(found, "_fields", None) or tuple(getattr(found, "__dataclass_fields__", ()))


def examples(name):
    """The doctests of a public name, and of the methods of a class."""
    found = getattr(fn, name)
    texts = {name: text_of(name)}
    for method, each in vars(found).items() if inspect.isclass(found) else ():
        if not method.startswith("_") and method not in fields_of(found):
            texts[f"{name}.{method}"] = inspect.getdoc(each) or ""
    names = {"fn": fn, "jax": jax, "jnp": jnp, "np": np}
    parser = doctest.DocTestParser()
    tests = [parser.get_doctest(text, dict(names), at, at, 0) for at, text in texts.items()]
    return [test for test in tests if test.examples]


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("module", slow_but(list(NAMES), *QUICK))
def test_examples_come_true(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong, runner = [], doctest.DocTestRunner(verbose=False)
    for name in NAMES[module]:
        for test in examples(name):
            runner.run(test, out=wrong.append)
    assert not wrong, "".join(wrong)


def test_every_public_name_has_an_example():
    assert {name for name in fn.__all__ if not examples(name)} == WITHOUT_EXAMPLE


def test_examples_are_in_their_section_and_show_something():
    for name in fn.__all__:
        found = sections(name)
        for title in {*found} - {"Example"}:
            assert not [line for line in found[title] if ">>>" in line], (name, title)
        for test in examples(name):
            assert any(each.want for each in test.examples), test.name


def unexplained(name):
    """What the docstring of a public name leaves out, or has too much."""
    found, parts = getattr(fn, name), sections(name)
    if not callable(found):
        return []
    if inspect.isclass(found):
        title, wanted, optional = "Attributes", fields_of(found), set(dir(found))
    else:
        title, wanted, optional = "Args", tuple(inspect.signature(found).parameters), set()
    explained = entries(parts.get(title, []))
    problems = [f"lacks {each}" for each in wanted if each not in explained]
    if wanted:
        problems += [f"has {each}" for each in explained if each not in {*wanted, *optional}]
        problems += [f"has {each} twice" for each in explained if explained.count(each) > 1]
    if inspect.isfunction(found):
        gives = inspect.signature(found).return_annotation not in (None, "None")
        problems += ["Returns"] * (("Returns" in parts) != gives)
    errors = parts.get("Raises", [])
    for error in entries(errors):
        kind = getattr(builtins, error, None) or getattr(fn, error, None)
        problems += [] if inspect.isclass(kind) and issubclass(kind, Exception) else [error]
    return problems + [line for line in errors if re.search(r"\. \w+Error: ", line)]


def test_docstrings_explain_what_goes_in_and_comes_out():
    problems = {name: unexplained(name) for name in fn.__all__}
    assert {name for name, found in problems.items() if found} == UNEXPLAINED, problems
