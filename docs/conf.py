"""The manual: `python -m sphinx -W docs build/site`, with the extra `docs`.

Its front page is the README, its reference the docstrings of all public names, its course the
notebooks as they are committed. Pages made of these stand beside the written ones during a build,
and are not committed.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  beside this file

import funcnet as fn  # noqa: E402

project = "funcnet"
author = copyright = "the funcnet authors"
release = version = fn.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["reference/front.md"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # they are committed with their outputs
suppress_warnings = ["mystnb.unknown_mime_type"]

default_role = "name"  # `fit` in a docstring is a link to it, see below
add_module_names = False
autodoc_typehints = "none"  # types are in the signature, shapes in the text
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "furo"
html_title = f"funcnet {release}"
html_static_path = ["static"]
html_css_files = ["manual.css"]
html_show_sphinx = False
html_copy_source = False


def bring(name: str) -> None:
    """Files of the checkout that are pages of the manual, under the same relative address."""
    shutil.rmtree(HERE / name, ignore_errors=True)
    shutil.copytree(HERE.parent / name, HERE / name, ignore=shutil.ignore_patterns("*.py", ".*"))


bring("notebooks")
reference.write(HERE / "reference")


def name(role: str, raw: str, text: str, line: int, inliner: Any, *rest: Any) -> Any:
    """A public name of funcnet is a link to what is said of it; all else is code."""
    if text.removesuffix("()") not in fn.__all__:
        return [nodes.literal(raw, text)], []
    link = PyXRefRole()
    return link("py:obj", raw, f"~funcnet.{text.removesuffix('()')}", line, inliner, *rest)


def setup(app: Sphinx) -> None:
    """What this manual adds to Sphinx."""
    app.add_role("name", name)
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon


def plain_text(
    app: Sphinx, kind: str, what: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are text, in which | and * are signs, and what is indented is a formula."""
    lines[:] = reference.marked(lines)
