"""Tables of what was measured, and all of its numbers as JSON."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn

from .data import has_cifar10
from .measure import Result, Row, installed

SCALES = {  # of each unit, from the largest: what a number is divided by, and its name then
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "MiB": ((1024.0, "GiB"), (1.0, "MiB")),
    "%": ((1.0, "%"),),
    "": ((1.0, ""),),
}
HEADER = ("", "median", "min .. max", "ratio", "of floor", "")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve")


def machine() -> dict[str, Any]:
    """What it was measured on, and with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    names = {"numpy": "numpy", "jax": "jax", "jaxlib": "jaxlib", "torch": "torch"}
    names["sklearn"] = "scikit-learn"
    versions = {
        shown: importlib.metadata.version(shown)
        for module, shown in names.items()
        if installed(module)
    }
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "processor": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "CIFAR-10": "found" if has_cifar10() else "not found: random images of its size",
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "versions": {"python": platform.python_version(), "funcnet": fn.__version__, **versions},
    }


def number(value: float, unit: str) -> str:
    """Three digits, and the unit in a size that fits."""
    scales = SCALES[unit]
    scale, name = next(((s, n) for s, n in scales if abs(value) >= s), scales[-1])
    shown = value / scale
    text = f"{shown:,.0f}" if abs(shown) >= 100 else f"{shown:.3g}"
    return f"{text} {name}".strip()


def ratio(row: Row, rows: list[Row]) -> float | None:
    """The median, over the rounds, of the row by its base."""
    base = next((each for each in rows if each.name == row.base), None)
    if base is None or base is row or not row.samples or not base.samples:
        return None
    if len(base.samples) == len(row.samples):
        return float(np.median(np.divide(row.samples, base.samples)))
    return float(np.median(row.samples) / np.median(base.samples))


def line(row: Row, rows: list[Row]) -> tuple[str, ...]:
    """The cells of a row."""
    if not row.samples:
        return row.name, "-", "", "", "", row.note
    low, high = min(row.samples), max(row.samples)
    spread = "" if len(row.samples) == 1 else " .. ".join(number(v, row.unit) for v in (low, high))
    quotient, median = ratio(row, rows), float(np.median(row.samples))
    return (
        row.name,
        number(median, row.unit),
        spread,
        "" if quotient is None else f"{quotient:.2f}",
        "" if row.floor is None else f"{100 * row.floor / median:.0f} %",
        row.note,
    )


def table(result: Result) -> str:
    """The table of a workload, in Markdown."""
    bases = dict.fromkeys(row.base for row in result.rows if row.base)
    header = list(HEADER)
    if len(bases) == 1:
        header[3] = f"by {next(iter(bases))}"
    cells = [tuple(header), *(line(row, result.rows) for row in result.rows)]
    kept = [i for i in range(len(header)) if i < 2 or any(each[i] for each in cells[1:])]
    widths = [max(3, *(len(each[i]) for each in cells)) for i in kept]
    lines = [
        "| " + " | ".join(each[i].ljust(w) for i, w in zip(kept, widths, strict=True)) + " |"
        for each in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    title = f"\n## {result.workload}: {result.about}\n"
    return "\n".join([title, *lines, "", *(f"- {note}" for note in result.notes)])


def as_json(results: list[Result], settings: dict[str, Any]) -> str:
    """Everything: samples, medians and ratios of each row, and the machine."""
    return json.dumps(
        {
            "machine": machine(),
            "settings": settings,
            "workloads": {
                result.workload: {
                    "about": result.about,
                    "notes": result.notes,
                    "rows": [
                        {
                            **vars(row),
                            "median": float(np.median(row.samples)) if row.samples else None,
                            "ratio": ratio(row, result.rows),
                        }
                        for row in result.rows
                    ],
                }
                for result in results
            },
        },
        indent=1,
    )
