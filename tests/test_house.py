"""The order of the house: files one can read through, imports that point one way."""

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path

import pytest

import funcnet

PACKAGE = Path(__file__).parent.parent / "funcnet"
FILES = {
    ".".join(("funcnet", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
}
# From the bottom up: none imports one further up. What is not there may stand beside any of them.
STOREYS = (
    ("funcnet.tree", "funcnet.checks", "funcnet.bind", "funcnet.versions"),
    ("funcnet.layers", "funcnet.schedules", "funcnet.weights"),
    ("funcnet.batch",),
    ("funcnet.regression",),
    (
        "funcnet.losses",
        "funcnet.layer",
        "funcnet.optimizer",
        "funcnet.metrics",
        "funcnet.own_metrics",
    ),
    ("funcnet.rectifiers",),
    ("funcnet.activations", "funcnet.transposed", "funcnet.loop"),
    ("funcnet.net", "funcnet.optim"),
    ("funcnet.objective", "funcnet.wrappers", "funcnet.embeddings"),
    ("funcnet.step", "funcnet.piecewise", "funcnet.members", "funcnet.tabular"),
    ("funcnet.model", "funcnet.nonfinite", "funcnet.tensors", "funcnet.ensembles"),
    ("funcnet.checkpoint",),
    ("funcnet.checkpoints",),
    ("funcnet.train",),
    ("funcnet.rules", "funcnet.sweeps.table", "funcnet.logs"),
    ("funcnet.config",),
    ("funcnet.plots.figures", "funcnet.recipes", "funcnet.sweeps.groups"),
    ("funcnet.plots.curves", "funcnet.plots.predictions", "funcnet.plots.sweeps"),
    ("funcnet.runs", "funcnet.sweeps.chunks"),
    ("funcnet.sweeps.saved",),
    ("funcnet.sweeps.sweep", "funcnet.sweeps.directory"),
    ("funcnet.sklearn.runs",),
    ("funcnet.sklearn.estimators",),
    ("funcnet.cli.train", "funcnet.cli.sweep", "funcnet.cli.evaluate"),
)


@cache
def imports(name):
    """The modules of funcnet that a module imports, and the names that it takes from each."""
    found = {}
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("funcnet"):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                where, what = (module, None) if module in FILES else (node.module, alias.name)
                found.setdefault(where, set()).add(what)
    return found


@cache
def everything_below(name):
    """All modules that one imports, or those import; a circle has no end."""
    direct = [module for module in imports(name) if module in FILES]
    return frozenset(direct).union(*map(everything_below, direct))


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    assert len(FILES[name].read_text().splitlines()) <= 600


@pytest.mark.parametrize("name", FILES)
def test_imports_take_no_private_name_of_another_package(name):
    package = name.rpartition(".")[0]
    for module, names in imports(name).items():
        private = [n for n in (*module.split("."), *filter(None, names)) if n.startswith("_")]
        assert not private or module == package or module.startswith(f"{package}."), (name, module)


def test_imports_point_one_way():
    above = set()
    for storey in reversed(STOREYS):
        for name in storey:
            assert not everything_below(name) & above, name
        above |= set(storey)


def test_pictures_need_the_table_of_a_sweep_alone():
    plots = [name for name in FILES if name.startswith("funcnet.plots.")]
    below = set().union(*map(everything_below, plots))
    sweeps = {name for name in below if name.startswith("funcnet.sweeps.")}
    assert sweeps == {"funcnet.sweeps.table", "funcnet.sweeps.search"}


def test_the_package_has_the_public_names_of_its_modules():
    for name in FILES:
        module = importlib.import_module(name)
        inside = name.removeprefix("funcnet.")
        within = "datasets" if inside.startswith("datasets.") else inside
        known = funcnet._NAMES.get(within, "").split()
        if within == inside:
            assert sorted(getattr(module, "__all__", [])) == sorted(known), name
        else:
            assert {*getattr(module, "__all__", [])} <= {*known}, name
    assert sorted(funcnet.datasets.__all__) == sorted(funcnet._NAMES["datasets"].split())
    for name in funcnet.__all__:
        assert getattr(funcnet, name) is getattr(funcnet, name)
    assert set(funcnet.__all__) <= set(dir(funcnet))
    with pytest.raises(AttributeError, match="no attribute 'adm'"):
        _ = funcnet.adm


def test_arguments_of_public_functions_may_be_named():
    for name in set(funcnet.__all__) - {"random_search"}:  # its axes may have any name
        function = getattr(funcnet, name)
        if inspect.isfunction(function):
            parameters = inspect.signature(function).parameters.values()
            assert not [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY], name


def test_nothing_but_the_estimators_imports_scikit_learn():
    for name, path in FILES.items():
        found = "sklearn" in {
            (node.module or "").partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        assert not found or name.startswith("funcnet.sklearn."), name
