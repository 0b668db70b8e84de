"""The notebooks: every one runs from top to bottom, with small settings, and is what it seems."""

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from funcnet.datasets import find_cifar10

nbformat = pytest.importorskip("nbformat")
FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
# In the first cell of code of each, and nowhere else is anything installed.
INSTALLS = """\
try:
    import funcnet as fn
except ImportError:  # on Colab, say
    %pip install --quiet "funcnet[notebooks]"
    import funcnet as fn
"""


def cells_of(notebook, kind=None):
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell for cell in cells if kind in (None, cell.cell_type)]


def pictures_of(cell):
    found = (output.get("data", {}).get("image/png") for output in cell.get("outputs", ()))
    return [base64.b64decode(picture) for picture in found if picture]


@pytest.mark.slow
@every_notebook
def test_notebook_runs(notebook, tmp_path):
    if "load_cifar10" in notebook.read_text() and find_cifar10() is None:
        pytest.skip("CIFAR-10 is not there: funcnet datasets download cifar10, or set FUNCNET_DATA")
    copy = tmp_path / notebook.name
    copy.write_bytes(notebook.read_bytes())
    # In a process of its own: what the notebook machinery warns of is not ours.
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(copy)],
        env={**os.environ, "FUNCNET_NOTEBOOK_FAST": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = cells_of(copy, "code")
    assert all(cell.execution_count for cell in cells)
    pictures = [
        sum(len(pictures_of(cell)) for cell in half) for half in (cells, cells_of(notebook))
    ]
    assert pictures[0] == pictures[1] > 0


@every_notebook
def test_it_is_paired_with_a_script_of_the_same_cells(notebook):
    jupytext = pytest.importorskip("jupytext")
    script = jupytext.read(notebook.with_suffix(".py")).cells
    assert [(c.cell_type, c.source) for c in cells_of(notebook)] == [
        (c.cell_type, c.source) for c in script
    ], f"jupytext --sync {notebook.relative_to(FOLDER.parent)}"


def test_no_script_is_without_a_notebook():
    assert [path.with_suffix(".ipynb") for path in sorted(FOLDER.glob("*.py"))] == NOTEBOOKS


@every_notebook
def test_it_is_committed_with_its_outputs(notebook):
    cells = cells_of(notebook, "code")
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)


@every_notebook
def test_its_pictures_are_opaque_and_described_in_the_text_below(notebook):
    image = pytest.importorskip("PIL.Image")
    cells = cells_of(notebook)
    for i, cell in enumerate(cells):
        for picture in pictures_of(cell):
            alpha = image.open(io.BytesIO(picture)).convert("RGBA").getchannel("A")
            assert alpha.getextrema() == (255, 255), i
            after = next(c.source for c in cells[i + 1 :] if c.cell_type == "markdown")
            assert "picture" in after, cell.source


@every_notebook
def test_it_installs_funcnet_only_where_it_is_missing(notebook):
    first, *others = (cell.source for cell in cells_of(notebook, "code"))
    assert first.count(INSTALLS) == 1
    assert not re.search(r"\binstall\b|^\s*!", first.replace(INSTALLS, ""), re.M)
    assert not any(re.search(r"^\s*[%!]", source, re.M) for source in others)


@every_notebook
def test_it_begins_with_what_it_is_and_links_to_its_neighbours(notebook):
    top = cells_of(notebook)[0].source
    assert re.match(r"# \w.*\n\n\w", top)
    place = NOTEBOOKS.index(notebook)
    for neighbour in NOTEBOOKS[max(place - 1, 0) : place + 2]:
        assert neighbour == notebook or f"]({neighbour.name})" in top


@every_notebook
def test_files_it_points_to_exist(notebook):
    for cell in cells_of(notebook, "markdown"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", cell.source):
            assert (FOLDER / target).exists(), target
