"""How the time of a step, its memory and compiling grow with the width, the depth and so on."""

import itertools
import time
from dataclasses import asdict, dataclass, replace
from functools import partial

from .measure import Result, Row, Run, forget_peak, in_process, log, peak_mib
from .problem import step_flop


@dataclass(frozen=True)
class Size:
    """A net with two or more layers of one width, and what it is trained on."""

    width: int = 256
    depth: int = 2
    batch: int = 128
    classes: int = 10
    examples: int = 0  # 0 is as many as a few batches

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """N, D, M of each product."""
        dims = [FEATURES, *[self.width] * self.depth, self.classes]
        return [(self.batch, d, m) for d, m in itertools.pairwise(dims)]


FEATURES = 64
AXES = {  # from the least to the most
    "width": (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "depth": (1, 2, 4, 8, 16, 32, 64, 128),
    "batch": (1, 8, 64, 512, 2048, 8192),
    "classes": (2, 10, 100, 1000, 10_000),
    "examples": (1_000, 10_000, 100_000, 1_000_000),
}
QUICK = {"width": 512, "depth": 8, "batch": 512, "classes": 100, "examples": 10_000}  # at most
LABELS = ("step, ms", "peak of memory, MiB", "compiling, s")
ENOUGH = 2e10  # FLOP of an epoch, in which a step is timed


def point(size: dict[str, int]) -> list[float]:
    """Seconds of a step, seconds of compiling, MiB at the peak until then.

    Steps are those of the epochs after the first. Compiling, and all else that `fit` does before
    it trains, is the time until the first one ends, less that of an epoch.
    The peak of the process is, on Linux, that of the later epochs alone.
    """
    import jax
    import numpy as np

    import funcnet as fn

    each = Size(**size)
    steps = max(2, min(200, round(ENOUGH / step_flop(each.shapes))))
    count = each.examples or steps * each.batch
    count -= count % each.batch
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, FEATURES), np.float32)
    y = (np.arange(count) % each.classes).astype(np.int32)
    names = tuple(map(str, range(each.classes)))
    dataset = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], names)
    net = fn.mlp([each.width] * each.depth, each.classes)
    clock = [time.perf_counter()]
    compiled = 0.0

    def callback(epoch: int, *_: object) -> None:
        nonlocal compiled
        if epoch > 0:
            clock.append(time.perf_counter())
        if epoch == 1:
            compiled = peak_mib()
            forget_peak()

    fn.fit(
        net,
        fn.adam(1e-4),
        dataset,
        key=jax.random.key(0),
        epochs=4,
        batch_size=each.batch,
        preprocess=None,
        eval_every=None,
        callback=callback,
    )
    first, *later = np.diff(clock)
    epoch = float(np.median(later))
    return [epoch / (count // each.batch), max(0.0, float(first) - epoch), compiled]


def measure(run: Run) -> Result:
    """A process for each size along each axis."""
    rows, points = [], {}
    for axis, values in AXES.items():
        points[axis] = []
        for value in values:
            if run.quick and (value > QUICK[axis] or value < values[1]):
                continue
            size = replace(Size(), **{axis: value})
            log(f"{axis} {value:,}")
            child = in_process(point, asdict(size))
            step, compiling, until = child.value
            flop = step_flop(size.shapes)
            peak = child.peak if child.device_peak is None else child.device_peak
            points[axis].append((value, step, flop, peak, compiling))
            note = (
                f"{flop / 1e6:,.4g} MFLOP, {flop / step / 1e9:,.3g} GFLOP/s, {peak:,.0f} MiB, "
                f"compiled in {compiling:.2f} s ({until:,.0f} MiB)"
            )
            rows.append(Row(f"{axis} {value:,}", [step], note=note))
    if run.plot:
        picture(points, run.plot)
    sizes = ", ".join(f"{name} {value}" for name, value in asdict(Size()).items() if value)
    notes = [f"a step of funcnet; {FEATURES} features, and but for what varies: {sizes}"]
    return Result("growth", "time of a step, memory and compiling over sizes", rows, notes)


def picture(points: dict[str, list[tuple[float, ...]]], path: str) -> None:
    """The points, doubly logarithmic, and the line that is linear in FLOP through the last one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(points), 8), layout="constrained")
    panels = figure.subplots(3, len(points), sharey="row", squeeze=False)
    for panel, label in zip(panels[:, 0], LABELS, strict=True):
        panel.set_ylabel(label)
    for column, (axis, measured) in zip(panels.T, points.items(), strict=True):
        values, step, flop, peak, compiling = zip(*measured, strict=True)
        scaled = [step[-1] * each / flop[-1] for each in flop]
        draw = partial(column[0].plot, values)
        draw([1e3 * each for each in step], "o", label="measured")
        draw([1e3 * each for each in scaled], "-", label="linear in FLOP")
        column[1].plot(values, peak, "o")
        column[2].plot(values, compiling, "o")
        for panel in column:
            panel.set(xscale="log", yscale="log", xlabel=axis)
    panels[0, 0].legend()
    figure.savefig(path, dpi=120)
