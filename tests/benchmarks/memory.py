"""Peaks of memory in training, each in a process of its own.

Children import what they measure, and nothing else: so most imports stand in functions.
"""

import tempfile
from pathlib import Path

from .measure import Result, Row, Run, forget_peak, in_process, installed

OURS = ("funcnet", "funcnet, autodiff")
PEERS = {"JAX loop": "jax", "JAX scan": "jax", "NumPy": "numpy", "PyTorch": "torch"}


def assignment(who: str, count: int) -> float:
    """An epoch of the assignment's net on CIFAR-10, by funcnet. Returns MiB held before."""
    from .ours import by_autodiff
    from .training import Case
    from .trainings import TRAININGS

    case = Case(TRAININGS["cifar100x5"], count)
    return _fit(case, who == OURS[1], by_autodiff)


def deep(who: str, batch: int) -> float:
    """A step whose activations outweigh its parameters: 8 x 512, layer norm, a large batch."""
    from functools import partial

    from . import data
    from .ours import by_autodiff
    from .training import Case, Training

    table = partial(data.normal, features=64, classes=10)
    options = {"normalization": "layernorm", "keep_prob": 0.8}
    training = Training("deep", "", table, batch, batch, [512] * 8, 10, batch, **options)
    return _fit(Case(training, batch), who == OURS[1], by_autodiff)


def _fit(case, autodiff, by_autodiff) -> float:  # type: ignore[no-untyped-def]
    """Two epochs without a Problem, whose arrays nobody needs here."""
    import funcnet as fn

    training, net = case.training, case.training.net()
    before = forget_peak()
    fn.fit(
        by_autodiff(net) if autodiff else net,
        fn.adam(training.learning_rate),
        case.dataset,
        key=case.key,
        epochs=2,
        batch_size=training.batch_size,
        preprocess=case.preprocess,
        eval_every=None,
    )
    return before


def peer(who: str, path: str) -> float:
    """An epoch of the same by another, of the Problem in a file. Returns MiB held before."""
    from .problem import Problem

    problem = Problem.load(path)
    before = forget_peak()
    if who.startswith("JAX"):
        from .jax_peers import JaxLoop, JaxScan

        made = {"JAX loop": JaxLoop, "JAX scan": JaxScan}[who](problem)
    elif who == "NumPy":
        from .numpy_peers import NumpyPeer

        made = NumpyPeer(problem)
    else:
        from .torch_peers import TorchEager

        made = TorchEager(problem)
    made.epochs(2)
    return before


def measure(run: Run) -> Result:
    """The assignment's net by all, a deep one by hand and by autodiff."""
    from .training import Case
    from .trainings import TRAININGS

    count, batch = run.size(49_000, 2_000), run.size(8192, 1024)
    rows: list[Row] = []
    # One at a time: memory does not vary as time does, and each child takes seconds.
    for who in OURS:
        rows += _rows(f"CIFAR-10, {who}", "CIFAR-10, funcnet", in_process(assignment, who, count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        Case(TRAININGS["cifar100x5"], count).problem.save(path)
        for who, module in PEERS.items():
            if installed(module):
                child = in_process(peer, who, str(path))
                rows += _rows(f"CIFAR-10, {who}", "CIFAR-10, funcnet", child)
            else:
                rows.append(Row(f"CIFAR-10, {who}", note=f"not installed: {module}"))
    for who in OURS:
        name = f"8 x 512, batch {batch:,}"
        rows += _rows(f"{name}, {who}", f"{name}, funcnet", in_process(deep, who, batch))
    notes = [
        "the peak of the whole process while it trains, and what the data and imports held before",
        "funcnet keeps the pixels as uint8, the others are given float32",
    ]
    return Result("memory", "peaks of memory in training", rows, notes)


def _rows(name: str, base: str, child) -> list[Row]:  # type: ignore[no-untyped-def]
    rows = [Row(name, [child.peak], "MiB", base=base, note=f"{child.value:,.0f} MiB before")]
    if child.device_peak is not None:
        rows.append(Row(f"{name}, GPU", [child.device_peak], "MiB", base=f"{base}, GPU"))
    return rows
