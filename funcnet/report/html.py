"""HTML made of tags: text is escaped unless it was made here."""

import html
import json
from typing import Any

from funcnet.text import finite, visible

VOID = ("img", "input", "line", "link", "meta", "polyline", "rect")  # tags that hold nothing
# What could end a script element, or a line of JavaScript, within a JSON text.
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


class Markup(str):
    """Text that is HTML, and safe."""


def escaped(text: object) -> Markup:
    """Text as HTML shows it: what is special there escaped, control characters made visible."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text))))


def tag(name: str, /, *inside: object, **attributes: Any) -> Markup:
    """An element.

    Args:
      name: its name.
      inside: what it holds, text or Markup; None is nothing.
      attributes: by name, `class_` for class and `aria_label` for aria-label; True is a bare one,
        None and False are none.
    """
    given = (
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    opening = f"<{name}{''.join(given)}"
    return Markup(f"{opening}/>" if name in VOID else f"{opening}>{joined(*inside)}</{name}>")


def joined(*parts: object, between: str = "") -> Markup:
    """Pieces of text and Markup one after another; None is none."""
    return Markup(between.join(escaped(part) for part in parts if part is not None))


def data_block(name: str, data: Any) -> Markup:
    """A script element of JSON, which is not run, and which nothing in the data can end."""
    text = json.dumps(finite(data), separators=(",", ":")).translate(_IN_SCRIPT)
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def table(
    caption: str,
    head: list[Any],
    rows: list[list[Any]],
    *,
    named: bool = True,
    numbers: int = 1,
    hidden: bool = False,
    **attributes: Any,
) -> Markup:
    """A table with a caption, in a box of its own that scrolls where it is too wide.

    Args:
      caption: what it is.
      head: its columns.
      rows: cells, likewise.
      named: whether the first cell of a row is its name.
      numbers: from which column on cells are numbers, at the right.
      hidden: whether the caption is for screen readers alone.
      attributes: of the table.
    """

    def cell(i: int, value: Any) -> Markup:
        kind = "number" if i >= numbers else None
        if i == 0 and named:
            return tag("th", value, scope="row")
        return tag("td", value, class_=kind)

    heads = (
        tag("th", name, scope="col", class_="number" if i >= numbers else None)
        for i, name in enumerate(head)
    )
    body = (tag("tr", *(cell(i, value) for i, value in enumerate(row))) for row in rows)
    made = tag(
        "table",
        tag("caption", caption, class_="unseen" if hidden else None),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
        **attributes,
    )
    return scrolling(made, caption)


def scrolling(made: Markup, label: str) -> Markup:
    """A table in a box that scrolls sideways, by keyboard too."""
    return tag("div", made, class_="scrolls", tabindex="0", role="region", aria_label=label)


def section(name: str, title: str, *inside: object) -> tuple[str, str, Markup]:
    """A section of a report: its identifier, its title and its HTML."""
    heading = tag("h2", title, id=f"{name}-title")
    made = tag("section", heading, *inside, id=name, aria_labelledby=f"{name}-title")
    return name, title, made
