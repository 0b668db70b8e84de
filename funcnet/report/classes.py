"""Sections of classes and of single examples: confusion, mistakes, residuals."""

import base64
from typing import Any

from funcnet.report.examples import QUANTILES, confusions
from funcnet.report.html import Markup, scrolling, section, table, tag
from funcnet.text import six_digits

CLASSES = 30  # up to so many have a confusion matrix


def classes(report: dict[str, Any]) -> Any:
    """How often each class was found, and what else it was taken for."""
    known, of_runs, labels = (report.get(name) for name in ("classes", "recall", "labels"))
    if known:
        return section("classes", "Classes", *_confusion(known))
    if of_runs:
        rows = [[name, *map(_share, values)] for name, *values in of_runs["rows"]]
        made = table("Recall of each class on test examples", ["class", *of_runs["names"]], rows)
        return section("classes", "Classes", made)
    if labels:
        rows = [[name, "-" if f1 is None else f"{f1:.4f}"] for name, f1 in labels]
        return section(
            "classes", "Labels", table("F1 of each label on test examples", ["label", "F1"], rows)
        )
    return None


def _share(value: Any) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _confusion(known: dict[str, Any]) -> list[Markup]:
    names, matrix, split = known["names"], known["matrix"], known["split"]
    parts = []
    if len(names) <= CLASSES:
        parts.append(_matrix(names, matrix, split))
    pairs = confusions(matrix, names)[:10]
    recall = [
        [name, _share(row[i] / sum(row) if sum(row) else None), f"{row[i]:,}", f"{sum(row):,}"]
        for i, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]
    ordered = recall
    caption = f"Recall of each class, on {split} examples"
    if len(names) > CLASSES:
        shares = [row[i] / sum(row) if sum(row) else 2 for i, row in enumerate(matrix)]
        worst = sorted(range(len(names)), key=shares.__getitem__)[:CLASSES]
        ordered = [recall[i] for i in worst]
        caption = f"Recall of the {CLASSES} worst of {len(names):,} classes, on {split} examples"
    made = [table(caption, ["class", "recall", "found", "examples"], ordered)]
    if pairs:
        rows = [[f"{true} taken for {taken}", f"{count:,}"] for true, taken, count in pairs]
        made.append(table("Most frequent confusions", ["classes", "examples"], rows))
    return [tag("div", *parts, *made, class_="beside")]


def _matrix(names: list[str], matrix: list[list[int]], split: str) -> Markup:
    heads = (tag("th", name, scope="col") for name in names)
    body = (
        tag("tr", tag("th", name, scope="row"), *(_count(n, sum(row)) for n in row))
        for name, row in zip(names, matrix, strict=True)
    )
    caption = (
        f"Confusion matrix of {split} examples: a row for each class, a column for what it was "
        "taken for; the darker, the larger the share of the row"
    )
    made = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", tag("th", "is \\ taken for", scope="col", class_="corner"), *heads)),
        tag("tbody", *body),
        class_="matrix",
    )
    return scrolling(made, "Confusion matrix")


def _count(count: int, total: int) -> Markup:
    share = count / total if total else 0
    shade = 0 if not count else max(1, round(10 * share))
    return tag("td", f"{count:,}", class_=f"shade{shade}", title=f"{100 * share:.1f} % of the row")


def single_examples(report: dict[str, Any]) -> Any:
    """The most confident mistakes, or how far predictions of numbers are off."""
    found = report.get("examples")
    if not found:
        return None
    if "missing" in found:
        said = tag("p", f"{found['missing']}. What there is to say of single examples is left out.")
        return section("mistakes", "Single examples", said)
    if "residuals" in found:
        return section("residuals", "Residuals", *_residuals(found))
    if "mistakes" not in found:
        return None
    count, whole = found["count"], found["whole"]
    of_all = f" (the first of {whole:,})" if whole > count else ""
    text = f"{found['wrong']:,} of {count:,} {found['split']} examples{of_all} are mistaken. "
    text += "Those that the model is most sure of come first." if found["mistakes"] else ""
    return section(
        "mistakes", "Most confident mistakes", tag("p", text), _gallery(found["mistakes"])
    )


def _gallery(mistakes: list[dict[str, Any]]) -> Markup | None:
    if not mistakes:
        return None
    if mistakes[0]["picture"] is None:
        head = ["example", "is", "taken for", "probability"]
        rows = [[f"{m['example']:,}", m["is"], m["taken"], _share(m["share"])] for m in mistakes]
        return table("Most confident mistakes", head, rows, numbers=3, hidden=True)
    return tag("ul", *map(_mistake, mistakes), class_="gallery")


def _mistake(mistake: dict[str, Any]) -> Markup:
    sure = f", {100 * mistake['share']:.1f} %" if mistake["share"] is not None else ""
    alt = f"Example {mistake['example']}: {mistake['is']} taken for {mistake['taken']}{sure}"
    source = f"data:image/png;base64,{base64.b64encode(mistake['picture']).decode()}"
    picture = tag("img", src=source, alt=alt, width="96", height="96")
    caption = tag(
        "figcaption",
        tag("span", "is ", tag("strong", mistake["is"])),
        tag("span", "taken for ", tag("strong", mistake["taken"])),
        tag("span", sure.removeprefix(", "), class_="small") if sure else None,
    )
    return tag("li", tag("figure", picture, caption))


def _residuals(found: dict[str, Any]) -> list[Markup]:
    residuals = found["residuals"]
    of_what = f"{found['count']:,} {found['split']} examples"
    said = f"Predicted less true, in units of the target, of {of_what}."
    head = ["target", "RMSE", "MAE", "mean", *(f"{100 * q:.0f} %" for q in QUANTILES), "largest"]
    rows = [
        [
            each["name"],
            *(six_digits(each[name]) for name in ("rmse", "mae", "mean")),
            *(six_digits(q) for q in each["quantiles"]),
            f"{six_digits(each['largest']['residual'])} (example {each['largest']['example']:,})",
        ]
        for each in residuals
        if each["count"]
    ]
    bars = [_bars(each) for each in residuals[:4] if each["count"]]
    caption = "Residuals: their mean, quantiles and the largest"
    return [tag("p", said), table(caption, head, rows), tag("div", *bars, class_="plots")]


def _bars(residuals: dict[str, Any]) -> Markup:
    """A histogram."""
    counts, end = residuals["histogram"]["counts"], residuals["histogram"]["end"]
    top, width = max(counts) or 1, 600 / len(counts)
    bars = (
        tag(
            "rect",
            x=f"{i * width + 1:.1f}",
            y=f"{160 - 160 * n / top:.1f}",
            width=f"{width - 2:.1f}",
            height=f"{160 * n / top:.1f}",
        )
        for i, n in enumerate(counts)
    )
    middle = tag("line", x1="300", y1="0", x2="300", y2="160")
    label = (
        f"Histogram of the residuals of {residuals['name']}, from {six_digits(-end)} to "
        f"{six_digits(end)}; half of them lie from {six_digits(residuals['quantiles'][1])} to "
        f"{six_digits(residuals['quantiles'][3])}"
    )
    drawn = tag(
        "svg",
        *bars,
        middle,
        class_="histogram",
        viewBox="0 0 600 160",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    ends = tag(
        "p",
        *(tag("span", text) for text in (six_digits(-end), "0", six_digits(end))),
        class_="ends small",
    )
    return tag(
        "figure", tag("figcaption", tag("h3", f"Residuals of {residuals['name']}")), drawn, ends
    )
