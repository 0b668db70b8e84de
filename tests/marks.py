"""Marks that several files of tests give to some of their cases."""

import pytest


def slow_but(names, *quick):
    """Cases of which all but these are marked slow: `pytest -m slow` runs the others."""
    assert set(quick) <= set(names)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
