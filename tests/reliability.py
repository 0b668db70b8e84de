"""What runs and their files stand: `python -m tests.reliability` prints a table.

Runs that are cut off after every step and go on in another process; kills of processes that write a
checkpoint after each of their epochs; checkpoints cut at every length and with random bits flipped;
a file system that fills up, and a directory that cannot be written any more. The test suite does a
small share of it.
"""

import argparse
import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet.tensors import load_tensors

ROOT = Path(__file__).parents[1]
EPOCHS = 20_000
SWEEP_EPOCHS = 2_000
STEPS = 60
# What goes on until it is killed, and says when it is under way.
RUN = """
import sys
from pathlib import Path
from tests import reliability
began = []
def callback(*arguments):
    began.append(arguments)
    if len(began) == 2:
        print("under way", flush=True)
getattr(reliability, sys.argv[1])(Path(sys.argv[2]), every=1, callback=callback)
"""
# Goes on from each of the checkpoints of a run, in a process that has not made it.
RESUME = """
import sys
from tests import reliability
reliability.resume_all(*sys.argv[1:])
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


def experiment(learning_rate: float) -> tuple[Any, ...]:
    """What is swept, with all that has a state."""
    net = fn.mlp([8], 10, normalization="batchnorm", keep_prob=0.9)
    schedule = fn.cosine_decay(learning_rate, 3 * SWEEP_EPOCHS)
    return net, fn.adam(schedule), {"average_decay": 0.99}


def sweep(path: Path | None, every: int | None = None, callback: Any = None) -> fn.SweepResult:
    """A sweep of twelve members in chunks of six, of which some end for want of patience."""
    digits = fn.load_digits()
    small = digits._replace(x_train=digits.x_train[:100], y_train=digits.y_train[:100])
    rates = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    settings = [{**each, "seed": n} for n in (0, 1) for each in fn.grid(learning_rate=rates)]
    kept = {"checkpoint": path, "resume": True, "checkpoint_every": every}
    return fn.sweep(
        experiment,
        small,
        settings,
        epochs=SWEEP_EPOCHS,
        batch_size=40,
        eval_every=50,
        halve_at=[SWEEP_EPOCHS // 2],
        patience=8,
        chunk_size=6,
        callback=callback,
        **({} if path is None else kept),
    )


def bits_of_sweep(result: fn.SweepResult) -> list[bytes]:
    """All that a sweep comes to."""
    trees = [
        (m.status.encode(), m.epochs, m.model, m.best, m.history, m.settings)
        for m in result.members
    ]
    leaves = jax.tree.leaves(trees)
    return [leaf if isinstance(leaf, bytes) else np.asarray(leaf).tobytes() for leaf in leaves]


def kills(count: int) -> str:
    """Kill a run at random times, again and again, and let it end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        done = killed("fit", path, count, kind="checkpoint")
        same = bits(fit(path)) == bits(fit(None))
        left = len(list(path.glob(".*.tmp")))
    return _said(f"{count} kills of a run, the last after epoch {done:,}", same, left)


def sweep_kills(count: int) -> str:
    """Kill a sweep at random times, again and again, and let it end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep"
        killed("sweep", path, count, kind="member")
        done = sum(member.epochs for member in sweep(path, callback=lambda *_: True).members)
        same = bits_of_sweep(sweep(path)) == bits_of_sweep(sweep(None))
        left = len(list(path.glob(".*.tmp")))
    what = f"{count} kills of a sweep, the last after {done:,} epochs of its members"
    return _said(what, same, left)


def _said(what: str, same: bool, left: int) -> str:
    bits = "comes to the same bits" if same else "COMES TO OTHER BITS"
    return f"{what}: every file loads, it {bits}, {left} files are left over"


def killed(name: str, path: Path, count: int, *, kind: str) -> int:
    """Kill what writes to a directory so often; the last of the numbers of the files there."""
    rng, done, files = np.random.default_rng(0), 0, []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        while done < count:
            with subprocess.Popen(
                [sys.executable, "-c", RUN, name, str(path)],
                stdout=subprocess.PIPE,
                cwd=ROOT,
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
            files = sorted(path.glob("*.safetensors"))
            for file in files:
                load_tensors(file, kind=kind)
    return max((int(file.stem.rpartition("-")[2]) for file in files), default=0)


def short_run(optimizer: str, **changes: Any) -> fn.FitResult:
    """A run of 60 epochs of one step, with all that has a state."""
    net = fn.mlp([6], 10, normalization="batchnorm", keep_prob=0.8)
    digits = fn.load_digits()
    small = digits._replace(x_train=digits.x_train[:40], y_train=digits.y_train[:40])
    make = fn.optim.OPTIMIZERS[optimizer]
    return fn.fit(
        net,
        make(fn.one_cycle(1e-2, STEPS)),
        small,
        key=jax.random.key(0),
        epochs=STEPS,
        batch_size=40,
        eval_every=7,
        augment=fn.random_shift,
        average_decay=0.9,
        label_smoothing=0.1,
        mixup_alpha=0.2,
        **changes,
    )


def resume_all(optimizer: str, path: str, cuts: str) -> None:
    """Go on from checkpoints of a run, and print how many of them come to other bits."""
    whole, others = Path(path, "bits").read_bytes(), 0
    for number in map(int, cuts.split()):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(Path(path, f"epoch-{number:08}.safetensors"), folder)
            again = short_run(optimizer, checkpoint=folder, resume=True)
            others += b"".join(bits(again)) != whole
    print(others)


def steps(optimizers: Sequence[str], cuts: Sequence[int]) -> str:
    """Cut runs off after each of their steps, and go on in another process."""
    for optimizer in optimizers:
        with tempfile.TemporaryDirectory() as folder:
            kept = {"checkpoint": folder, "checkpoint_every": 1, "keep_checkpoints": STEPS}
            Path(folder, "bits").write_bytes(b"".join(bits(short_run(optimizer, **kept))))
            words = [optimizer, folder, " ".join(map(str, cuts))]
            command = [sys.executable, "-c", RESUME, *words]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            if done.stdout.strip() != "0":
                raise RuntimeError(f"{optimizer}: {done.stdout}{done.stderr}")
    return (
        f"runs of {STEPS} steps with each of {len(optimizers)} optimizers, cut off after each of "
        f"{len(cuts)} steps and resumed in another process: 0 bits differ"
    )


def small_disk() -> str:
    """A run whose checkpoints fill up a file system of 128 KiB, which takes root to make."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            return "a file system that fills up: not tried, it takes root to make one"
        options = {"key": jax.random.key(0), "epochs": 60, "batch_size": 500}
        net, optimizer, data = fn.mlp([8], 10), fn.adam(1e-3), fn.load_digits()
        kept, error = {"checkpoint": Path(folder) / "run", "checkpoint_every": 1}, None
        try:
            try:
                fn.fit(net, optimizer, data, keep_checkpoints=60, **kept, **options)
            except OSError as raised:
                error = raised
            files = sorted(kept["checkpoint"].glob("*"))
            for file in files[:-1]:
                if file.suffix == ".safetensors":
                    file.unlink()  # make room, but for the last one
            again = fn.fit(net, optimizer, data, resume=True, **kept, **options)
            left = len(list(kept["checkpoint"].glob(".*.tmp")))
        finally:
            subprocess.run(["umount", folder], check=True)
        same = bits(again) == bits(fn.fit(net, optimizer, data, **options))
        if error is None or error.errno != errno.ENOSPC or not same or left:
            raise RuntimeError(f"{error=} {same=} {left=}")
    full = int(files[-1].stem.rpartition("-")[2])
    return f"a file system full in epoch {full + 1}: {error.strerror}; then on to the same bits"


def read_only() -> str:
    """A run whose directory cannot be written any more."""
    with tempfile.TemporaryDirectory() as folder:
        path, root, error = Path(folder) / "run", os.geteuid() == 0, None

        def callback(epoch: int, state: fn.TrainState, metrics: object) -> None:
            if epoch == 3 and root:  # who may write anywhere, until being somebody else
                os.seteuid(65534)
            elif epoch == 3:
                path.chmod(0o555)

        options = {"key": jax.random.key(0), "epochs": 6, "batch_size": 500}
        net, optimizer, data = fn.mlp([8], 10), fn.adam(1e-3), fn.load_digits()
        kept = {"checkpoint": path, "checkpoint_every": 1, "callback": callback}
        try:
            fn.fit(net, optimizer, data, **kept, **options)
        except OSError as raised:
            error = raised
        finally:
            if root:
                os.seteuid(0)
            path.chmod(0o755)
        again = fn.fit(net, optimizer, data, checkpoint=path, resume=True, **options)
        same = bits(again) == bits(fn.fit(net, optimizer, data, **options))
        left = len(list(path.glob(".*.tmp")))
        if not isinstance(error, PermissionError) or not same or left:
            raise RuntimeError(f"{error=} {same=} {left=}")
    return (
        f"a directory made read-only after epoch 3: {error.strerror}; then from there on to the "
        "same bits"
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
    for name, default in (("kills", 200), ("sweep-kills", 50), ("flips", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    args = parser.parse_args()
    for say in (
        lambda: steps(list(fn.optim.OPTIMIZERS), range(1, STEPS)),
        cuts,
        lambda: flips(args.flips),
        full_disk,
        small_disk,
        read_only,
        lambda: sweep_kills(args.sweep_kills),
        lambda: kills(args.kills),
    ):
        began = time.monotonic()
        print(f"- {say()} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
