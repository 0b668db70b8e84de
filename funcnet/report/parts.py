"""Sections of a report: configuration, results, members of a sweep, environment."""

from typing import Any

from funcnet.report.data import text_of
from funcnet.report.html import Markup, joined, scrolling, section, table, tag

MEMBERS = 50  # rows of members on a page, as in report.js


def settings(report: dict[str, Any]) -> Any:
    """The options: those that differ first, those that say most, all others."""
    known = report.get("settings")
    if known is None:
        return None
    names = known["names"]
    parts = []
    if known["differ"]:
        swept = report["kind"] == "sweep"
        caption = "What varies" if swept else "What differs between the runs"
        head = ["option", *("values" if swept else name for name in names)]
        parts.append(table(caption, head, known["differ"], numbers=99, class_="differ"))
    elif len(names) > 1:
        parts.append(tag("p", "The runs have the same options."))
    shared = len(names) > 1 or report["kind"] == "sweep"
    parts.extend((tag("h3", "The same in all" if shared else "What was set"), pairs(known["own"])))
    if known["others"]:
        summary = tag("summary", f"All other options, as by default ({len(known['others'])})")
        parts.append(tag("details", summary, pairs(known["others"])))
    return section("configuration", "Configuration", *parts)


def pairs(known: list[list[str]]) -> Markup:
    """Names and values, several in a row where there is room."""
    cells = (tag("div", tag("dt", name), tag("dd", value)) for name, value in known)
    return tag("dl", *cells, class_="pairs")


def results(report: dict[str, Any]) -> Any:
    """What came of several runs."""
    known = report.get("results")
    if not known:
        return None
    rows = [[name, *(_marked(*cell) for cell in cells)] for name, *cells in known["rows"]]
    made = table("Results of the runs; the best of each row is bold", ["", *known["names"]], rows)
    return section("results", "Results", made)


def _marked(text: str, best: bool) -> Markup:
    return tag("strong", text) if best else joined(text)


def members(report: dict[str, Any]) -> Any:
    """The table of the members of a sweep, which the script sorts and filters."""
    known = report.get("members")
    if not known:
        return None
    columns, percent, rows = known["columns"], known["percent"], known["rows"]
    directions = {known["sorted"]: "descending" if known["descending"] else "ascending"}
    heads = (
        tag(
            "th",
            tag("button", name, type="button", data_column=i, class_="sort"),
            scope="col",
            aria_sort=directions.get(i, "none"),
            class_="setting" if 0 < i <= known["settings"] else None,
        )
        for i, name in enumerate(columns)
    )
    body = (
        tag(
            "tr",
            *(
                tag(
                    "th" if i == 0 else "td", member_cell(v, share), scope="row" if i == 0 else None
                )
                for i, (v, share) in enumerate(zip(row, percent, strict=True))
            ),
        )
        for row in rows[:MEMBERS]
    )
    caption = "Members of the sweep: settings, and what came of them"
    made = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
        id="members-table",
    )
    return section(
        "members",
        "Members",
        _filters(known),
        scrolling(made, caption),
        _pages(len(rows)),
    )


def member_cell(value: Any, percent: bool) -> str:
    """A cell of the table of members, as report.js writes it."""
    return f"{100 * value:.2f} %" if percent and value is not None else text_of(value)


def _filters(known: dict[str, Any]) -> Markup:
    at = known["status"]
    statuses = sorted({row[at] for row in known["rows"]}) if at is not None else []
    options = [tag("option", "any", value=""), *(tag("option", s, value=s) for s in statuses)]
    return tag(
        "div",
        tag(
            "label", "Filter by text ", tag("input", type="search", id="filter", autocomplete="off")
        ),
        tag("label", "status ", tag("select", *options, id="status-filter")),
        class_="controls script",
    )


def _pages(count: int) -> Markup:
    shown_now = f"1 to {min(count, MEMBERS):,} of {count:,} members"
    return tag(
        "div",
        tag("button", "Previous", type="button", id="previous", disabled=True, class_="script"),
        tag("p", shown_now, id="shown", role="status"),
        tag("button", "Next", type="button", id="next", disabled=count <= MEMBERS, class_="script"),
        class_="controls pages",
    )


def importance(report: dict[str, Any]) -> Any:
    """How much each setting mattered."""
    known = report.get("importance")
    if not known:
        return None
    if "missing" in known:
        said = tag("p", known["missing"], class_="note")
        return section("importance", "Which settings mattered", said)
    most = max((share for _, share in known["shares"]), default=0) or 1
    rows = [[name, f"{100 * share:.1f} %", _bar(share / most)] for name, share in known["shares"]]
    caption = f"How much each setting mattered for {known['value']}"
    made = table(caption, ["setting", "share", ""], rows, class_="bars")
    notes = (tag("p", f"Note: {note}", class_="small") for note in known["notes"])
    return section("importance", "Which settings mattered", made, *notes)


def _bar(share: float) -> Markup:
    bar = tag("rect", x="0", y="0", width=f"{100 * max(0.0, share):.1f}", height="10")
    return tag(
        "svg",
        bar,
        class_="bar",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def environment(report: dict[str, Any]) -> Any:
    """Versions, and the kind of machine."""
    known = report.get("environment")
    if known is None:
        return None
    if len(known["names"]) == 1:
        return section("environment", "Environment", pairs(known["rows"]))
    head = ["", *known["names"]]
    made = table("Versions and machine", head, known["rows"], numbers=99, hidden=True)
    return section("environment", "Environment", made)
