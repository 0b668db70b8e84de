"""Every notebook runs from top to bottom, with small settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from funcnet.datasets import find_cifar10

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.skipif(
    find_cifar10() is None,
    reason="CIFAR-10 is not there: funcnet datasets download cifar10, or set FUNCNET_DATA",
)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook, tmp_path):
    nbformat = pytest.importorskip("nbformat")
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
    cells = [c for c in nbformat.read(copy, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    committed = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in committed), "commit it with its outputs"
    pictures = [sum("image/png" in str(c.outputs) for c in half) for half in (cells, committed)]
    assert pictures[0] == pictures[1] > 0
