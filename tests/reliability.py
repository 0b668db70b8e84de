"""What runs and their files stand: `python -m tests.reliability` prints a table.

Kills of a process that writes a checkpoint after each of its epochs, checkpoints cut at every
length and with random bits flipped, and a file system that fills up. The test suite does a small
share of it.
"""

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet.tensors import load_tensors

EPOCHS = 20_000
RUN = """
import sys
from pathlib import Path
from tests.reliability import fit
began = []
def callback(epoch, state, metrics):
    began.append(epoch)
    if len(began) == 2:
        print("under way", flush=True)
fit(Path(sys.argv[1]), every=1, callback=callback)
"""


def fit(path: Path | None, every: int | None = None, callback: Any = None) -> fn.FitResult:
    """A run with all that has a state: normalization, dropout, moments, an average, a schedule."""
    net = fn.mlp([8], 10, normalization="batchnorm", keep_prob=0.9)
    digits = fn.load_digits()
    small = digits._replace(x_train=digits.x_train[:100], y_train=digits.y_train[:100])
    kept = {"checkpoint": path, "resume": True, "checkpoint_every": every}
    return fn.fit(
        net,
        fn.adam(fn.cosine_decay(1e-3, 3 * EPOCHS)),
        small,
        key=jax.random.key(0),
        epochs=EPOCHS,
        batch_size=40,
        eval_every=5000,
        average_decay=0.99,
        mixup_alpha=0.2,
        callback=callback,
        **({} if path is None else kept),
    )


def bits(result: fn.FitResult) -> list[bytes]:
    """All that a run comes to."""
    state = result.state._replace(key=jax.random.key_data(result.state.key))
    trees = state, result.model.params, result.history.loss, result.history.rows()
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


def kills(count: int) -> str:
    """Kill a run at random times, again and again, and let it end."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path, done, files = Path(folder) / "run", 0, []
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        while done < count:
            with subprocess.Popen(
                [sys.executable, "-c", RUN, str(path)],
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            ) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(rng.uniform(0, 0.5))
                if process.poll() is not None:
                    raise RuntimeError(f"the run ended by itself, with {process.returncode}")
                process.send_signal(signal.SIGKILL)
            done += 1
            files = sorted(path.glob("epoch-*.safetensors"))
            for file in files:
                load_tensors(file, kind="checkpoint")
        reached = max((int(file.stem.removeprefix("epoch-")) for file in files), default=0)
        same = bits(fit(path)) == bits(fit(None))
        left = len(list(path.glob(".*.tmp")))
    return (
        f"{count} kills, the last after epoch {reached:,}: every checkpoint loads, the run "
        f"{'comes to the same bits' if same else 'COMES TO OTHER BITS'}, {left} files are left over"
    )


@contextlib.contextmanager
def checkpoint() -> Iterator[Path]:
    """A checkpoint of a few epochs."""
    with tempfile.TemporaryDirectory() as folder:
        net = fn.mlp([3], 10, normalization="batchnorm")
        options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 500, "checkpoint": folder}
        fn.fit(net, fn.adam(1e-3), fn.load_digits(), **options)
        yield max(Path(folder).glob("epoch-*.safetensors"))


def content(path: Path) -> tuple[object, ...]:
    """What is read from a checkpoint."""
    leaves, metadata = load_tensors(path, kind="checkpoint")
    leaves["run/key"] = jax.random.key_data(leaves["run/key"])
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    return metadata, {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}


def flips(count: int) -> str:
    """Flip random bits of a checkpoint."""
    rng, refused, unread = np.random.default_rng(1), 0, 0
    with checkpoint() as path:
        whole, data = content(path), path.read_bytes()
        for _ in range(count):
            damaged = bytearray(data)
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                found = content(path)
            except ValueError:
                refused += 1
                continue
            if damaged == data or found == whole:
                unread += 1
            else:
                raise RuntimeError("a damaged checkpoint was read")
    return (
        f"{count:,} checkpoints with up to three bits flipped: {refused:,} refused by name, "
        f"{unread:,} where nothing that is read had changed"
    )


def cuts() -> str:
    """Cut a checkpoint at every length."""
    with checkpoint() as path:
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            try:
                content(path)
            except ValueError:
                continue
            raise RuntimeError(f"a checkpoint of {length} of {len(data)} bytes was read")
    return f"a checkpoint cut at each of its {len(data):,} lengths: refused by name"


def full_disk() -> str:
    """A run whose files may not grow beyond a size, as on a disk that is full."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        net, optimizer, error = fn.mlp([8], 10), fn.adam(1e-3), None

        def callback(epoch: int, state: fn.TrainState, metrics: object) -> None:
            if epoch == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))

        options = {"key": jax.random.key(0), "epochs": 6, "batch_size": 500}
        data = fn.load_digits()
        try:
            fn.fit(
                *(net, optimizer, data),
                checkpoint=path,
                checkpoint_every=1,
                callback=callback,
                **options,
            )
        except OSError as raised:
            error = raised
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        again = fn.fit(net, optimizer, data, checkpoint=path, resume=True, **options)
        same = bits(again) == bits(fn.fit(net, optimizer, data, **options))
        left = len(list(path.glob(".*.tmp")))
        if error is None or not same or left:
            raise RuntimeError(f"{error=} {same=} {left=}")
    return f"no more space in epoch 4: {error.strerror}; then from epoch 3 on to the same bits"


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    for name, default in (("kills", 200), ("flips", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    args = parser.parse_args()
    for say in (cuts, lambda: flips(args.flips), full_disk, lambda: kills(args.kills)):
        began = time.monotonic()
        print(f"- {say()} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
