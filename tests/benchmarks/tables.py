"""How long a CSV of a million rows and twenty columns takes to load, with pyarrow and without.

    python -m tests.benchmarks.tables

Each reading is a process of its own, whose peak of memory is its own. The values must be equal.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def write_table(path: Path, rows: int) -> None:
    """Sixteen columns of numbers, one of them with cells missing, three of words, and a label."""
    rng = np.random.default_rng(0)
    words = [
        np.array([f"{w}{i}" for i in range(n)]) for w, n in zip("abc", (4, 30, 500), strict=True)
    ]
    with path.open("w", encoding="utf-8") as file:
        names = [f"x{i}" for i in range(16)] + ["a", "b", "c", "label"]
        file.write(",".join(names) + "\n")
        for start in range(0, rows, 50_000):
            count = min(50_000, rows - start)
            numbers = np.round(rng.normal(size=(count, 15)) * 10.0 ** rng.integers(-3, 4, 15), 5)
            columns = [*numbers.T.astype(str), rng.integers(0, 10**9, count).astype(str)]
            columns[3][rng.random(count) < 0.1] = "NA"
            columns += [rng.choice(each, count) for each in words]
            columns.append(rng.choice(np.array(["no", "yes"]), count))
            file.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))


def measure(path: Path, *, arrow: bool) -> tuple[float, float, str]:
    """Seconds, GiB at the peak and a checksum of loading a file in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.tables", "--load", str(path)]
    if not arrow:
        command.append("--without")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, peak, digest = done.stdout.split()
    return float(seconds), float(peak), digest


def load(path: str, *, arrow: bool) -> None:
    """Load the file, and print what `measure` wants to know."""
    if not arrow:
        sys.modules["pyarrow"] = None
    import funcnet as fn

    start = time.perf_counter()
    data = fn.load_table(path, "label")
    seconds = time.perf_counter() - start
    digest = hashlib.sha256()
    for array in data[:6]:
        digest.update(array.tobytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(seconds, peak, digest.hexdigest())


def main() -> None:
    """Write the file, load it in both ways, print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load(args.load, arrow=not args.without)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, args.rows)
        print(f"{args.rows:,} rows, 20 columns, {path.stat().st_size / 1e6:.0f} MB")
        digests = set()
        for arrow in (True, False):
            seconds, peak, digest = measure(path, arrow=arrow)
            print(
                f"{'pyarrow' if arrow else 'without'}: {seconds:.1f} s, {peak:.2f} GiB at the peak"
            )
            digests.add(digest)
        print("equal values" if len(digests) == 1 else "DIFFERENT VALUES")


if __name__ == "__main__":
    main()
