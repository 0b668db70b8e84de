"""Clocks: samples in turn, and processes of their own with their peak of memory."""

import contextlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FOREVER = 900  # seconds that a process of its own may take


@dataclass(frozen=True)
class Run:
    """How much to measure.

    Attributes:
      quick: whether everything is small, to see that it works.
      rounds: how many samples each implementation gives.
      gpu: whether JAX computes on one.
      plot: where the picture of `growth` goes, if anywhere.
    """

    quick: bool
    rounds: int
    gpu: bool
    plot: str | None = None

    @property
    def least(self) -> float:
        """Seconds that a sample should take at least."""
        return 0.1 if self.quick else 1.0

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


@dataclass
class Row:
    """A line of a table.

    Attributes:
      name: what was measured.
      samples: its values; none if it was not measured, and the note says why.
      unit: "s", "MiB", "FLOP/s", "%" or "" for counts.
      base: the name of the row that its ratio is to; "" is none.
      floor: the least that it could take, in its unit.
      note: what else there is to say.
    """

    name: str
    samples: list[float] = field(default_factory=list)
    unit: str = "s"
    base: str = ""
    floor: float | None = None
    note: str = ""


@dataclass
class Result:
    """The table of a workload."""

    workload: str
    about: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def log(text: str) -> None:
    """Say on standard error how far it is."""
    print(f"  {text}", file=sys.stderr, flush=True)


def seconds(action: Callable[[], Any]) -> float:
    """How long a call takes."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def in_turn(actions: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Samples of each action, one a round; every other round goes backwards."""
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(rounds):
        for name in list(actions)[:: -1 if i % 2 else 1]:
            samples[name].append(actions[name]())
    return samples


def repeated(action: Callable[[], Any], least: float) -> Callable[[], float]:
    """A sample of an action that is warm: seconds of one of so many calls as take `least`."""
    action()
    count = max(1, min(10_000, round(least / max(seconds(action), 1e-7))))

    def sample() -> float:
        before = time.perf_counter()
        for _ in range(count):
            action()
        return (time.perf_counter() - before) / count

    return sample


class Child(NamedTuple):
    """What a process of its own said.

    Attributes:
      value: what the function returned.
      seconds: from its start to the return of the function.
      peak: MiB that it held at its peak; since the last `forget_peak`, if it called that.
      device_peak: MiB at the peak on the GPU; None without.
    """

    value: Any
    seconds: float
    peak: float
    device_peak: float | None


def in_process(
    function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
) -> Child:
    """Call a function of this package, arguments and value in JSON, in a new process."""
    module = function.__module__.rpartition(".")[2]
    call = json.dumps([module, function.__name__, arguments])
    before = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.measure", call],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        timeout=FOREVER,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{function.__name__}: {done.stderr.strip().splitlines()[-1:]}")
    value, ended, peak, device_peak = json.loads(done.stdout.splitlines()[-1])
    return Child(value, ended - before, peak, device_peak)


def peak_mib() -> float:
    """The peak of memory of this process.

    On Linux `ru_maxrss` counts what the parent held when it started this process, too, so the
    kernel's own mark is read where there is one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def forget_peak() -> float:
    """From now on the peak is that of what follows, on Linux. Returns MiB held now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def device_peak_mib() -> float | None:
    """The peak on the GPU of what has been imported; None without one."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if jax is not None and jax.default_backend() == "gpu":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    return None


def child(call: str) -> None:
    """Do what `in_process` asks for."""
    module, name, arguments = json.loads(call)
    function = getattr(importlib.import_module(f"tests.benchmarks.{module}"), name)
    value = function(*arguments)
    ended = time.time()
    print(json.dumps([value, ended, peak_mib(), device_peak_mib()]))


if __name__ == "__main__":
    child(sys.argv[1])
