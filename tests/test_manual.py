"""The manual tells the truth: the programs on its pages run, and print what they say they do."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("from_*.md"))


def runs_here(source):
    """Whether it is no excerpt of the assignment, and all it imports is installed."""
    names = re.findall(r"^(?:import|from) (\w+)", source, re.M)
    return "# CS231n" not in source and all(map(importlib.util.find_spec, names))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::funcnet.DataWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_programs_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|py)\n(.*?)^```", page.read_text(), re.M | re.S)
    scope = {}
    for language, source in blocks:
        if language == "python" or runs_here(source):
            exec(compile(source, page.name, "exec"), scope)
            printed = capsys.readouterr().out.splitlines()
            for line in re.findall(r"# prints (.*)$", source, re.M):
                pattern = re.escape(line).replace(re.escape("..."), ".*")
                assert any(re.fullmatch(pattern, found) for found in printed), (line, printed)
