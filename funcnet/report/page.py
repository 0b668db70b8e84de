"""The HTML of a report: one file that holds its script and style, and asks the network for nothing.

Whatever comes from a run goes through `funcnet.report.html`, which escapes it. A Content Security
Policy allows the styles and scripts that are in the file by their hashes, and nothing else.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import funcnet
from funcnet.report.classes import classes, single_examples
from funcnet.report.html import Markup, data_block, joined, tag
from funcnet.report.parts import environment, importance, members, results, settings
from funcnet.report.plots import curves

Report = dict[str, Any]


def page(report: Report, *, live: bool = False) -> str:
    """The HTML of what `funcnet.report.data` has collected.

    Args:
      report: plain data.
      live: whether the page asks its own server for what is new.
    """
    order = (curves, *(made for made in SECTIONS if made is not curves)) if live else SECTIONS
    sections = [each for each in (made(report) for made in order) if each is not None]
    body = joined(
        tag("a", "Skip to the report", class_="skip", href="#main"),
        _header(report, sections, live=live),
        tag("main", *(section for _, _, section in sections), id="main", tabindex="-1"),
        _footer(),
        data_block("report", _for_script(report, live=live)),
        *(_script(name) for name in ("uplot.js", "report.js")),
    )
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(live=live)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{report['title']} - funcnet report"),
        _licence(),
        *(_style(name) for name in ("uplot.css", "report.css")),
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def policy(*, live: bool = False) -> str:
    """The Content Security Policy of a page."""
    scripts, styles = (
        " ".join(f"'sha256-{_digest(name)}'" for name in names)
        for names in (("uplot.js", "report.js"), ("uplot.css", "report.css"))
    )
    connect = " connect-src 'self';" if live else ""
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts};{connect} "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def asset(name: str) -> str:
    """The text of a file beside this one."""
    return (files("funcnet.report") / name).read_text("utf-8")


def _digest(name: str) -> str:
    return base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode()


def _style(name: str) -> Markup:
    return Markup(f"<style>{asset(name)}</style>")


def _script(name: str) -> Markup:
    return Markup(f"<script>{asset(name)}</script>")


def _licence() -> Markup:
    """The licence of uPlot, which is in the page as a whole."""
    return Markup(
        f"<!-- uPlot 1.6.32, https://github.com/leeoniya/uPlot\n{asset('uplot.LICENSE.txt')}\n-->"
    )


def _for_script(report: Report, *, live: bool) -> dict[str, Any]:
    wanted = ("plots", "members", *(("epochs", "ended") if live else ()))
    return {name: report[name] for name in wanted if name in report} | {"live": live}


def _header(report: Report, sections: list[Any], *, live: bool) -> Markup:
    links = (tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections)
    status = tag(
        "p", report["status"], id="status", class_="status", role="status" if live else None
    )
    facts = [
        tag("div", tag("dt", name), tag("dd", value), class_="fact")
        for name, value in report["facts"]
    ]
    notes = report.get("notes", [])
    return tag(
        "header",
        tag("p", "funcnet report" if not live else "funcnet watch", class_="kicker"),
        tag("h1", report["title"]),
        status if report["status"] or live else None,
        *(tag("p", note, class_="note") for note in notes),
        tag("dl", *facts, class_="facts") if facts else None,
        tag("nav", tag("ul", *links), aria_label="Sections") if len(sections) > 1 else None,
    )


def _footer() -> Markup:
    return tag(
        "footer",
        tag(
            "p", f"Made by funcnet {funcnet.__version__}. Curves are drawn by uPlot (MIT licence)."
        ),
    )


SECTIONS = (
    settings,
    results,
    curves,
    members,
    importance,
    classes,
    single_examples,
    environment,
)
