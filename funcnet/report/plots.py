"""The section of curves, as it is before the script draws them."""

from typing import Any

from funcnet.report.html import Markup, joined, section, table, tag
from funcnet.text import shown

EPOCHS = 100  # rows of epochs that are shown
STYLES = 6  # of curves, as in report.css


def curves(report: dict[str, Any]) -> Any:
    """What was measured in the course of training."""
    plots = report.get("plots")
    if plots is None:
        return None
    if not plots:
        said = tag("p", "Nothing was measured.", class_="note")
        return section("curves", "Curves", said)
    controls = tag(
        "div",
        tag("button", "Reset zoom", type="button", id="reset", disabled=True, class_="script"),
        tag(
            "label",
            tag("input", type="checkbox", id="logarithmic"),
            " logarithmic losses",
            class_="script",
        ),
        class_="controls",
    )
    hint = tag(
        "p",
        "Drag over a part to zoom into it, double click to see all. With the keyboard: arrow keys "
        "move the cursor, + and - zoom, 0 shows all.",
        class_="hint script",
        id="plot-hint",
    )
    several = {"comparison": None, "run": None}.get(
        report["kind"], f"Curves of the {len(plots[0]['series'])} best members."
    )
    figures = (_plot(i, plot) for i, plot in enumerate(plots))
    return section(
        "curves",
        "Curves",
        tag("p", several) if several else None,
        controls,
        tag("div", *figures, class_="plots"),
        hint,
        _epochs(report),
    )


def _plot(number: int, plot: dict[str, Any]) -> Markup:
    """A plot as it is before the script draws it: its curves, their names and last values."""
    entries = (_entry(i, series) for i, series in enumerate(plot["series"]))
    box = tag(
        "div",
        _sketch(plot),
        class_="plot",
        data_plot=number,
        tabindex="0",
        role="application",
        aria_roledescription="plot",
        aria_label=plot["summary"],
        aria_describedby="plot-hint",
    )
    caption = joined(
        tag("h3", plot["title"]),
        tag("p", plot["note"], class_="small") if plot.get("note") else None,
    )
    many = " many" if len(plot["series"]) > 3 else ""
    return tag(
        "figure",
        tag("figcaption", caption),
        box,
        tag("ul", *entries, class_=f"legend{many}", data_plot=number),
        tag("p", class_="unseen", aria_live="polite", data_said=number),
    )


def _entry(i: int, series: dict[str, Any]) -> Markup:
    swatch = tag(
        "svg",
        tag("line", x1="0", y1="4", x2="22", y2="4"),
        class_=f"swatch {_style_of(i)}",
        viewBox="0 0 22 8",
        aria_hidden="true",
    )
    name = tag("span", series["name"], class_="name")
    value = tag("span", series["last"], class_="value")
    button = tag(
        "button", swatch, name, value, type="button", aria_pressed="true", title=series["said"]
    )
    return tag("li", button)


def _style_of(i: int) -> str:
    """The classes of the colour and the dashes of a curve."""
    return f"color{i % STYLES} dash{i // STYLES % 4}"


def _sketch(plot: dict[str, Any]) -> Markup:
    """The curves as SVG, for readers without JavaScript: the script puts its plot in its place."""
    points = [
        [(x, y) for x, y in zip(s["x"], s["y"], strict=True) if x is not None and y is not None]
        for s in plot["series"]
    ]
    known = [point for each in points for point in each]
    if not known:
        return tag("p", "Waiting for the first epoch", class_="waiting")
    left, right = min(x for x, _ in known), max(x for x, _ in known)
    low, high = min(y for _, y in known), max(y for _, y in known)
    wide, tall = (right - left) or 1, (high - low) or 1
    lines = (
        tag(
            "polyline",
            points=" ".join(
                f"{600 * (x - left) / wide:.1f},{200 - 200 * (y - low) / tall:.1f}" for x, y in each
            ),
            class_=_style_of(i),
        )
        for i, each in enumerate(points)
        if each
    )
    drawn = tag(
        "svg", *lines, viewBox="0 -4 600 208", preserveAspectRatio="none", aria_hidden="true"
    )
    ends = (
        f"from {low:.4g}{plot['unit']} to {high:.4g}{plot['unit']}, epoch {left:.3g} to {right:.4g}"
    )
    return tag("div", drawn, tag("p", ends, class_="small"), class_="sketch")


def _epochs(report: dict[str, Any]) -> Markup | None:
    known = report.get("epochs")
    if not known:
        return None
    rows, best = known["rows"], known["best"]
    step = -(-len(rows) // EPOCHS)
    kept = (
        [row for i, row in enumerate(rows) if i % step == 0 or i == len(rows) - 1 or row[0] == best]
        if rows
        else []
    )
    cells = [[_epoch(row[0], best), *map(_cell, known["names"][1:], row[1:])] for row in kept]
    caption = "Measured after each epoch"
    if step > 1:
        caption = f"Measured after every {step} epochs, and the best and the last"
    made = table(caption, known["columns"], cells, id="epochs")
    count = f"Table of epochs ({len(rows):,})"
    return tag("details", tag("summary", count, id="epoch-count"), made)


def _epoch(epoch: Any, best: Any) -> Markup:
    text = f"{epoch:g}"
    return tag("strong", f"{text} (best)") if epoch == best else joined(text)


def _cell(name: str, value: Any) -> str:
    return "-" if value is None else shown(name, value)
