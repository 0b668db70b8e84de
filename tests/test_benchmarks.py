"""The benchmarks: that they can be run, and compare only what computes the same."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import data, report
from tests.benchmarks.measure import Result, Row, in_turn
from tests.benchmarks.problem import Problem
from tests.benchmarks.training import IMPLEMENTATIONS, STEPS, Case, Implementation, Training, check

ROOT = Path(__file__).parent.parent
TINY = Training(
    "tiny",
    "",
    partial(data.normal, features=6, classes=3),
    40,
    40,
    [8, 7],
    3,
    10,
    learning_rate=3e-3,
)
# Without the one that compiles for long.
QUICK = {name: each for name, each in IMPLEMENTATIONS.items() if name != "PyTorch, compiled"}


def test_the_list_of_workloads():
    command = [sys.executable, "-m", "tests.benchmarks", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"cifar100x5", "sweep9", "start", "growth", "gpu"} <= set(names)


@pytest.fixture
def one_thread(monkeypatch):
    """PyTorch's threads wait for each other, for long where the cores are busy.

    What it is told of denormal numbers, which is for the whole process, is taken back.
    """
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, whose versions differ in what they say
@pytest.mark.parametrize(
    ("normalization", "keep_prob"), [(None, None), ("batchnorm", 0.8), ("layernorm", 0.8)]
)
def test_implementations_agree(normalization, keep_prob):
    case = Case(replace(TINY, normalization=normalization, keep_prob=keep_prob), 40)
    said = check(case, QUICK)
    for name, text in said.items():
        sound = text.startswith(("losses of", "not installed", "it has neither"))
        assert sound, (name, text)


@pytest.mark.parametrize("name", ["JAX loop", "NumPy"])
def test_one_that_computes_something_else_is_refused(name):
    def faster(case):
        case = Case(case.training, case.count)
        case.problem = replace(case.problem, learning_rate=1.1 * TINY.learning_rate)
        return IMPLEMENTATIONS[name].make(case)

    said = check(Case(TINY, 40), {name: Implementation(faster)})
    assert said[name].startswith("REFUSED: losses")


def test_one_that_fails_is_refused():
    def broken(case):
        raise RuntimeError("no compiler")

    assert "no compiler" in check(Case(TINY, 40), {"broken": Implementation(broken)})["broken"]


def test_a_problem_is_read_as_it_was_written(tmp_path):
    problem = Case(replace(TINY, normalization="batchnorm"), 40).problem
    problem.save(tmp_path / "problem.npz")
    read = Problem.load(tmp_path / "problem.npz")
    assert problem.orders.size == STEPS // 4 * 40 + 40
    for name, value in vars(problem).items():
        np.testing.assert_equal(getattr(read, name), value)


def test_flop():
    problem = Case(TINY, 40).problem
    assert problem.flop == 4 * 10 * (4 * 6 * 8 + 6 * 8 * 7 + 6 * 7 * 3)


def test_samples_are_taken_in_turn():
    order = []
    in_turn({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == ["a", "b", "b", "a"]


def test_a_table():
    rows = [Row("a", [2.0, 4.0], floor=1.5), Row("b", [1.0, 1.0], base="a"), Row("c", note="no")]
    text = report.table(Result("name", "about", rows, ["a note"]))
    assert "| a   | 3 s    | 2 s .. 4 s |" in text
    assert "| 50 %" in text
    assert "0.38" in text
    assert "| c   | -" in text
