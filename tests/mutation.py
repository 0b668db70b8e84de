"""What the tests see: `python -m tests.mutation` changes the numeric core and runs its tests.

The changes are those of cosmic-ray, one at a time: another operator, another number, `or` for
`and`, a condition turned around, a loop of no rounds, a decorator or an exception less. Some are
drawn by a seed from all that are not of annotations or of the texts of messages, and made in a copy
of the checkout; what no test of `TESTS` fails for has survived. What is known goes to `--out`, and
is not done again.
"""

import argparse
import ast
import difflib
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
# The tests that concern a module, those that fail first for it first.
TESTS = {
    "layers": "layers strict net mutations inputs layer gradcheck house",
    "activations": "layers strict net mutations layer gradcheck house",
    "rectifiers": "layers strict net mutations layer gradcheck house",
    "embeddings": "layers tabular strict mutations layer house",
    "piecewise": "layers tabular strict mutations layer house",
    "tabular": "layers tabular strict mutations layer house",
    "members": "layers ensembles strict mutations layer house",
    "ensembles": "ensembles strict mutations layer house",
    "batch": "losses regression weights mutations house",
    "losses": "losses regression weights strict net mutations metrics train house",
    "regression": "regression weights mutations house",
    "weights": "weights mutations house",
    "optim": "optim optim_surface strict recipes train loop house",
    "wrappers": "optim optim_surface strict recipes train loop house",
    "step": "train loop strict_training nonfinite net inputs preprocess checkpoints house",
    "checkpoint": "checkpoint checkpoints versions table_models house",
    "checkpoints": "checkpoints resume nonfinite versions house",
    "tensors": "checkpoint checkpoints versions table_models sweep_runs house",
}
BUSY = "ctrl_c_while_the_program_is_loaded"  # fails on a machine that has other things to do
PATIENCE = 60, 5  # seconds, and times what the tests take when nothing is changed


@dataclass(frozen=True)
class Mutant:
    """A change: which one it is to cosmic-ray, and the lines that differ."""

    module: str
    operator: str
    occurrence: int
    line: int
    before: str
    after: str


class Bare(ast.NodeTransformer):
    """A module without its annotations and the texts of its messages."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = []
        return self.generic_visit(node)


def bare(source: str) -> str:
    """What a module does."""
    return ast.dump(Bare().visit(ast.parse(source)))


def source_of(module: str, root: Path = ROOT) -> Path:
    return root / "funcnet" / f"{module}.py"


def mutated(source: str, operator: str, occurrence: int) -> str:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code(source, get_operator(operator)(), occurrence)


def places() -> list[tuple[str, str, int]]:
    """All changes, by module, operator and occurrence, those of texts among them."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    found = []
    for module in TESTS:
        nodes = list(ast_nodes(get_ast(source_of(module).read_text())))
        for name in operator_names():
            if get_operator(name).arguments():
                continue  # wants to be told names of variables
            operator = get_operator(name)()
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            found += [(module, name, occurrence) for occurrence in range(count)]
    return found


def drawn(seed: int) -> Iterator[Mutant]:
    """All changes that count, in the order in which a seed draws them."""
    every = places()
    sources = {module: source_of(module).read_text() for module in TESTS}
    actions = {module: bare(source) for module, source in sources.items()}
    for number in np.random.default_rng(seed).permutation(len(every)):
        module, operator, occurrence = every[number]
        before, after = sources[module], mutated(sources[module], operator, occurrence)
        try:
            if bare(after) == actions[module]:
                continue
        except SyntaxError:
            continue
        lines = before.splitlines(), after.splitlines()
        changes = difflib.SequenceMatcher(None, *lines, autojunk=False).get_opcodes()
        _, old, old_end, new, new_end = next(c for c in changes if c[0] != "equal")
        parts = lines[0][old:old_end], lines[1][new:new_end]
        texts = (" ".join(line.strip() for line in part) for part in parts)
        yield Mutant(module, operator, occurrence, old + 1, *texts)


class Shared:
    """Programs that are compiled for one change serve the next, where they are the same."""

    compiled: Path

    @pytest.fixture(autouse=True, scope="session")
    @classmethod
    def keep_for_others(cls, keep_compiled: None) -> None:
        jax.config.update("jax_compilation_cache_dir", str(cls.compiled))


def pytest_of(name: str, root: Path, compiled: Path, log: Path) -> None:
    """Run the tests of a file, in a process of its own, which ends with the exit code."""
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(root)
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True  # a file that changes twice in a second would not be seen
    sys.path[:] = [str(root), *(p for p in sys.path if p not in ("", str(ROOT)))]
    sys.modules.pop("tests", None)
    found = importlib.util.find_spec("funcnet")
    assert found is not None
    assert Path(str(found.origin)).is_relative_to(root)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", "-k", f"not {BUSY}"]
    Shared.compiled = compiled
    code = pytest.main([*options, f"tests/test_{name}.py"], plugins=[Shared()])
    sys.stdout.flush()
    os._exit(code)


class Place:
    """A copy of the checkout in which tests run."""

    def __init__(self, folder: Path) -> None:
        self.root, self.compiled, self.log = folder / "main", folder / "compiled", folder / "log"
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
        for name in map(Path, names.stdout.decode().splitlines()):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self._took: dict[str, float] = {}

    def why(self, name: str, limit: float | None) -> str:
        """Why the tests of a file fail; empty if they pass."""
        process = multiprocessing.get_context("fork").Process(
            target=pytest_of, args=(name, self.root, self.compiled, self.log)
        )
        process.start()
        process.join(limit)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            shutil.rmtree(self.compiled, ignore_errors=True)  # may have been written in part
            return f"test_{name}.py: takes more than {limit:.0f} s"
        if process.exitcode == 0:
            return ""
        said = re.findall(r"^(?:FAILED|ERROR) tests/(.*?)(?: - |$)", self.log.read_text(), re.M)
        return said[0] if said else f"test_{name}.py: exit code {process.exitcode}"

    def limit(self, name: str) -> float:
        """How long the tests of a file may take; they pass where nothing is changed."""
        if name not in self._took:
            began = time.monotonic()
            if why := self.why(name, None):
                raise RuntimeError(f"fails where nothing is changed: {why}\n{self.log.read_text()}")
            self._took[name] = time.monotonic() - began
            print(f"test_{name}.py alone: {self._took[name]:.0f} s", flush=True)
        return PATIENCE[0] + PATIENCE[1] * self._took[name]

    def killer(self, mutant: Mutant) -> str:
        """The test that fails first for a change; empty if all pass."""
        path = source_of(mutant.module, self.root)
        source = path.read_text()
        for name in TESTS[mutant.module].split():
            limit = self.limit(name)
            path.write_text(mutated(source, mutant.operator, mutant.occurrence))
            try:
                if why := self.why(name, limit):
                    return why
            finally:
                path.write_text(source)
        return ""


def work(folder: Path, mutants: Any, out: Path) -> None:
    """Take changes from a queue until there are no more."""
    place = Place(folder)
    while (mutant := mutants.get()) is not None:
        began = time.monotonic()
        facts = {**asdict(mutant), "killed_by": place.killer(mutant)}
        facts["seconds"] = round(time.monotonic() - began, 1)
        with out.open("a") as file:
            file.write(json.dumps(facts) + "\n")
        where = f"{mutant.module}.py:{mutant.line} {mutant.operator}"
        print(f"{where}: {facts['killed_by'] or 'SURVIVED'} ({facts['seconds']} s)", flush=True)


def known(out: Path) -> dict[Mutant, str]:
    """What killed the changes that were made earlier."""
    found = {}
    for line in out.read_text().splitlines() if out.exists() else ():
        facts = json.loads(line)
        mutant = Mutant(**{name: facts[name] for name in Mutant.__dataclass_fields__})
        found[mutant] = facts["killed_by"]
    return found


def table(mutants: list[Mutant], killers: dict[Mutant, str]) -> Iterator[str]:
    """What was killed, by module, and what survived."""
    yield f"{'module':<12} {'killed':>6} {'survived':>8}"
    for module in (*TESTS, None):
        all_of = [m for m in mutants if module in (m.module, None)]
        killed = sum(bool(killers[m]) for m in all_of)
        yield f"{module or 'all':<12} {killed:>6} {len(all_of) - killed:>8}"
    yield f"killed: {killed / len(mutants):.1%} of {len(mutants)}"
    for m in sorted(mutants, key=lambda m: (m.module, m.line, m.operator)):
        if not killers[m]:
            yield f"\nfuncnet/{m.module}.py:{m.line} {m.operator}\n- {m.before}\n+ {m.after}"


def main() -> None:
    """Make the changes that are not known yet, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    for name, default, says in (
        ("count", 300, "how many changes"),
        ("seed", 0, "what draws them"),
        ("jobs", 1, "how many at a time"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=says)
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), metavar="FILE")
    parser.add_argument("--again", action="store_true", help="run what survived again, too")
    args = parser.parse_args()
    if importlib.util.find_spec("cosmic_ray") is None:
        parser.error("this takes cosmic-ray: python -m pip install cosmic-ray")
    mutants = [mutant for mutant, _ in zip(drawn(args.seed), range(args.count), strict=False)]
    killers = known(args.out)
    left = [m for m in mutants if m not in killers or (args.again and not killers[m])]
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    for mutant in (*left, *[None] * args.jobs):
        queue.put(mutant)
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            context.Process(target=work, args=(Path(folder) / str(number), queue, args.out))
            for number in range(args.jobs)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    if any(job.exitcode for job in jobs):
        raise SystemExit("not all was run")
    print(*table(mutants, known(args.out)), sep="\n")


if __name__ == "__main__":
    main()
