"""What comes before the first epoch: imports, compiling, and the command from its start.

Children import what they measure, and nothing else: so most imports stand in functions.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .measure import ROOT, Result, Row, Run, in_process, in_turn, installed

FITS = 5
COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX says so of each program it compiles


def nothing() -> None:
    """What a process costs by itself."""


def import_jax() -> None:
    """JAX alone."""
    import jax  # noqa: F401


def import_funcnet() -> None:
    """funcnet, and JAX with it."""
    import funcnet  # noqa: F401


def import_torch() -> None:
    """PyTorch alone."""
    import torch  # noqa: F401


def first_step(who: str) -> float:
    """The first step of the assignment's net; its loss."""
    if who == "funcnet":
        import jax
        import numpy as np

        import funcnet as fn

        x, y = np.zeros((200, 3, 32, 32), np.uint8), np.arange(200, dtype=np.int32) % 10
        data = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], tuple("0123456789"))
        net, key = fn.mlp([100] * 5, 10, weight_scale=5e-2), jax.random.key(0)
        options = {"epochs": 1, "batch_size": 200, "eval_every": None}
        return float(fn.fit(net, fn.adam(1e-3), data, key=key, **options).history.loss[0])
    import numpy as np

    from .problem import Problem

    rng, dims = np.random.default_rng(0), [3072, *[100] * 5, 10]
    layers = tuple(
        {"w": rng.normal(0, 5e-2, (d, m)).astype(np.float32), "b": np.zeros(m, np.float32)}
        for d, m in itertools.pairwise(dims)
    )
    x, y = np.zeros((200, 3072), np.float32), np.arange(200, dtype=np.int32) % 10
    problem = Problem(x, y, layers, None, None, 200, 1e-3, np.arange(200)[None])
    if who == "JAX loop":
        from .jax_peers import JaxLoop

        return float(JaxLoop(problem).losses(1)[0])
    from .torch_peers import TorchCompiled, TorchEager

    peer = TorchEager if who == "PyTorch" else TorchCompiled
    return float(peer(problem).losses(1)[0])


def fits_anew() -> list[int]:
    """How many programs each of five fits compiles, nets and optimizers made anew for each."""
    import jax

    import funcnet as fn

    compiled = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    digits, counts = fn.load_digits(), []
    for seed in range(FITS):
        before = len(compiled)
        net, optimizer = fn.mlp([256, 256], 10, weight_scale=2e-2), fn.adam(1e-3)
        fn.fit(net, optimizer, digits, key=jax.random.key(seed), epochs=2, batch_size=50)
        counts.append(len(compiled) - before)
    return counts


def command(folder: Path, run: str, quick: bool) -> float:
    """Seconds of `funcnet train` on the digits, with this cache."""
    words = ["train", "--out", str(folder / run), *(["--epochs", "2"] if quick else [])]
    environment = {name: v for name, v in os.environ.items() if "COMPILATION_CACHE" not in name}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    before = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "funcnet", *words],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - before


def measure(run: Run) -> Result:
    """All of it, in turn."""
    peers = ["PyTorch", "PyTorch, compiled"] if installed("torch") else []
    steps = ["funcnet", "JAX loop", *peers]
    actions: dict[str, Callable[[], float]] = {
        "an empty process": lambda: in_process(nothing).seconds,
        "import jax": lambda: in_process(import_jax).seconds,
        "import funcnet": lambda: in_process(import_funcnet).seconds,
    }
    if peers:
        actions["import torch"] = lambda: in_process(import_torch).seconds

    def fresh_step(who: str) -> float:
        with tempfile.TemporaryDirectory() as cache:
            fresh = {"JAX_COMPILATION_CACHE_DIR": "", "TORCHINDUCTOR_CACHE_DIR": cache}
            fresh["XDG_CACHE_HOME"] = cache
            return in_process(first_step, who, environment=fresh).seconds

    for who in steps:
        actions[f"to the first step, {who}"] = partial(fresh_step, who)
    samples = in_turn(actions, run.rounds)
    bases = {name: "import jax" for name in samples if name.startswith("import")}
    rows = [
        Row(name, taken, base=bases.get(name, "to the first step, funcnet"))
        for name, taken in samples.items()
    ]
    first, second = [], []
    for _ in range(run.rounds):
        with tempfile.TemporaryDirectory() as folder:
            first.append(command(Path(folder), "a", run.quick))
            second.append(command(Path(folder), "b", run.quick))
    base = "funcnet train, the first time"
    rows += [Row(base, first), Row("funcnet train, the second time", second, base=base)]
    counts = in_process(fits_anew).value
    rows.append(Row("programs compiled by a fit, the first", counts[:1], ""))
    rows.append(Row("programs compiled by each fit after it", counts[1:], ""))
    notes = [
        "the first step is that of the assignment's net, from the start of the process, with "
        "import and compiling, nothing in any cache; the others are given their initial parameters",
        f"{FITS} fits in one process, of nets and optimizers made anew from equal arguments",
    ]
    return Result("start", "what comes before the first epoch", rows, notes)
