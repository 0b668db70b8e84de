"""python -m tests.benchmarks: measure, print tables, write JSON."""

import argparse
import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Run the workloads that are named, all by default; 1 if what one computes was refused."""
    # JAX would take most of a GPU's memory at once, and leave none to others in this process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from . import report
    from .measure import Run
    from .workloads import WORKLOADS

    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="NAME", help="workloads (default: all)")
    parser.add_argument("--list", action="store_true", help="the names of the workloads")
    parser.add_argument("--rounds", type=int, metavar="N", help="samples of each (default: 7)")
    parser.add_argument("--quick", action="store_true", help="everything small, two rounds")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", metavar="FILE", help="draw the picture of growth there")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:<12} {about}" for name, (about, _) in WORKLOADS.items()))
        return 0
    if unknown := set(args.workloads) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    rounds = args.rounds or (2 if args.quick else 7)
    run = Run(args.quick, rounds, jax.default_backend() == "gpu", args.plot)
    for name, value in report.machine().items():
        print(f"{name}: {value}")
    results, start = [], time.perf_counter()
    for name in args.workloads or WORKLOADS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(WORKLOADS[name][1](run))
        print(report.table(results[-1]), flush=True)
        jax.clear_caches()
        if args.json:  # after each, so that an interrupt loses one alone
            settings = {"quick": run.quick, "rounds": run.rounds}
            Path(args.json).write_text(report.as_json(results, settings))
    print(f"\n{time.perf_counter() - start:.0f} s in all")
    notes = [row.note for result in results for row in result.rows]
    return int(any(note.startswith("REFUSED") for note in notes))


if __name__ == "__main__":
    sys.exit(main())
