"""python -m tests.benchmarks.on_disk: training on more data than the memory is allowed to have.

It writes 100,000,000 examples of 50 numbers, 20 GB (fewer where the disk has less room, which it
says), trains on them from disk and on a million of them from memory, by the same steps, kills a run
in mid-epoch, goes on with it, and deletes what it wrote. Each run is a process of its own.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 50
IN_MEMORY = 1_000_000  # examples of the run that is compared with
PART = 2**16  # rows that are written at once
NETS: dict[str, tuple[tuple[int, ...], int]] = {  # hidden layers, and a batch
    "64": ((64,), 1000),
    "256-256": ((256, 256), 1000),
}


def write(directory: Path, rows: int) -> None:
    """x.npy [rows, FEATURES] float32 and y.npy [rows] int32, a part at a time."""
    rng = np.random.default_rng(0)
    base, weights = rng.normal(size=(PART, FEATURES)), rng.normal(size=FEATURES)
    base = base.astype(np.float32)
    with (directory / "x.npy").open("wb") as x_file, (directory / "y.npy").open("wb") as y_file:
        for file, dtype, shape in ((x_file, "<f4", (rows, FEATURES)), (y_file, "<i4", (rows,))):
            facts = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, facts)
        for number, start in enumerate(range(0, rows, PART)):
            x = np.roll(base, number % FEATURES, axis=1)[: rows - start]
            x_file.write(x.tobytes())
            y_file.write((np.tanh(x) @ weights > 0).astype(np.int32).tobytes())


def anonymous() -> int:
    """The bytes of this process's memory that are of no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def train(directory: Path, net: str, epochs: int, checkpoint: str | None, *, memory: bool) -> None:
    """One run; prints what it has measured as JSON."""
    import jax

    import funcnet as fn

    hidden, batch_size = NETS[net]
    fractions = {"val_fraction": 1e-4, "test_fraction": 0.0}
    data = fn.load_arrays(directory, memory_map="yes", **fractions)
    count = len(data.x_train)
    if memory:
        x, y = data.x_train[:IN_MEMORY], data.y_train[:IN_MEMORY]
        data = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], data.class_names)
    peak, times = [0], []

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    began = time.perf_counter()
    preprocess = fn.standardize(data.x_train)
    fitted = time.perf_counter() - began

    def callback(epoch: int, state: Any, metrics: dict[str, Any]) -> None:
        times.append(time.perf_counter())

    result = fn.fit(
        fn.mlp(hidden, 2),
        fn.sgd_momentum(1e-2),
        data,
        key=jax.random.key(0),
        epochs=epochs,
        batch_size=batch_size,
        preprocess=preprocess,
        eval_every=None,
        callback=callback,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((result.state.params, result.state.opt_state)):
        digest.update(np.asarray(leaf).tobytes())
    digest.update(result.history.loss.tobytes())
    steps = len(result.history.loss)
    of_epoch = np.diff(times).tolist()
    facts = {
        "examples": count,
        "steps": steps,
        "fitted": fitted,
        "rates": [steps / epochs / seconds for seconds in of_epoch],
        "peak": peak[0],
        "digest": digest.hexdigest(),
    }
    print(json.dumps(facts))


def command(directory: Path, net: str, epochs: int, *more: str) -> list[str]:
    """The command of a run."""
    options = ["--directory", str(directory), "--run", net, "--epochs", str(epochs), *more]
    return [sys.executable, "-m", __spec__.name, *options]


def run(*args: Any) -> dict[str, Any]:
    """What a run has measured."""
    done = subprocess.run(command(*args), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a run failed:\n{done.stderr}")
    return json.loads(done.stdout)


def killed(directory: Path, net: str, checkpoint: Path) -> str:
    """Kill a run in mid-epoch, once it has written a second checkpoint; returns which it leaves."""
    child = subprocess.Popen(
        command(directory, net, 2, "--checkpoint", str(checkpoint)), stdout=subprocess.DEVNULL
    )
    seen: set[str] = set()
    while len(seen) < 2 and child.poll() is None:
        seen |= {file.name for file in checkpoint.glob("epoch-*")}
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return max(file.stem for file in checkpoint.glob("epoch-*"))


def measure(directory: Path, rows: int) -> None:
    """Write, train, kill, go on, and print what there is to say."""
    free = shutil.disk_usage(directory).free
    size = rows * (FEATURES + 1) * 4
    if size > 0.9 * free:
        rows = int(0.9 * free) // ((FEATURES + 1) * 4)
        print(f"the disk has room for {rows:,} examples alone")
    place = Path(tempfile.mkdtemp(dir=directory))
    try:
        began = time.perf_counter()
        write(place, rows)
        size = sum(file.stat().st_size for file in place.iterdir())
        seconds = time.perf_counter() - began
        print(f"{rows:,} examples, {size / 1e9:.1f} GB, written in {seconds:.0f} s", flush=True)
        digests = {}
        for net in NETS:
            before = run(place, net, 6, "--memory")
            on_disk = run(place, net, 2)
            after = run(place, net, 6, "--memory")
            digests[net] = on_disk["digest"]
            memory = float(np.median([*before["rates"][1:], *after["rates"][1:]]))
            first, second = on_disk["rates"]
            print(
                f"{net}: {memory:,.0f} steps/s from memory; from disk {first:,.0f} in the first "
                f"epoch, {first / memory:.2f} of it, and {second:,.0f} in the second, "
                f"{second / memory:.2f}; anonymous memory at most {on_disk['peak'] / 1e6:.0f} MB; "
                f"preprocessing fitted in {on_disk['fitted']:.0f} s",
                flush=True,
            )
        checkpoint = place / "checkpoints"
        checkpoint.mkdir()
        net = next(iter(NETS))
        left = killed(place, net, checkpoint)
        resumed = run(place, net, 2, "--checkpoint", str(checkpoint))
        same = "the same bits" if resumed["digest"] == digests[net] else "OTHER BITS"
        print(f"{net}: killed at {left}, and gone on with: {same}")
    finally:
        shutil.rmtree(place)


def main() -> None:
    """Measure, or be one of the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e8, help="how many examples (1e8)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--run", choices=NETS, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        train(args.directory, args.run, args.epochs, args.checkpoint, memory=args.memory)
    else:
        measure(args.directory, int(args.rows))


if __name__ == "__main__":
    main()
