"""The manual builds without a warning, knows every public name, and no link leads nowhere."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import funcnet as fn
from funcnet.cli import COMMANDS

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Where the links of a page lead, and what in it they may lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names, self.pictures = [], set(), []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.links += [known[name] for name in ("href", "src") if known.get(name)]
        self.names |= {known[name] for name in ("id", "name") if known.get(name)}
        if tag == "img":
            self.pictures.append(known)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder, {path: Page(path) for path in folder.rglob("*.html")}


def test_no_link_leads_nowhere(site):
    _, pages = site
    seen = 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), (path.name, link)
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].names, (path.name, link)
            seen += 1
    assert seen > 1000
    assert len(pages) > 20


def test_every_public_name_and_command_has_its_place(site):
    _, pages = site
    names = set().union(*(page.names for page in pages.values()))
    assert {f"funcnet.{name}" for name in fn.__all__} <= names
    assert "funcnet.sklearn.FuncNetClassifier.fit" in names
    assert {f"funcnet-{command}" for command in COMMANDS} <= names


def test_pictures_say_what_they_show(site):
    folder, pages = site
    pictures = pages[folder / "index.html"].pictures
    assert pictures
    assert all(len(each.get("alt") or "") > 20 for each in pictures)
