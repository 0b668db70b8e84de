"""Products of bfloat16 factors, and what only a GPU can show."""

from functools import partial

import jax.numpy as jnp
import numpy as np

import funcnet as fn

from . import data
from .measure import Result, Row, Run, in_turn
from .rates import square_samples
from .sweeps import nine_and_one
from .training import Case, Training, warm
from .trainings import TRAININGS

WIDE = Training(
    "precision", "", data.cifar10, 20_000, 2_000, [1024] * 3, 10, 500, normalization="layernorm"
)
LARGE = Training(
    "gpu",
    "",
    partial(data.normal, features=3072, classes=10),
    8 * 8192,
    2 * 8192,
    [8192] * 3,
    10,
    8192,
    learning_rate=1e-4,
    preprocess=None,
)


def precision(run: Run) -> Result:
    """An epoch with float32 and with bfloat16 factors, and the accuracies after all of them."""
    case = Case(WIDE, run.size(WIDE.examples, WIDE.quick_examples))
    dtypes = {"float32": None, "bfloat16": jnp.bfloat16}
    peers = {name: case.ours(WIDE.net(matmul_dtype=dtype)) for name, dtype in dtypes.items()}
    samples = in_turn({name: warm(peer, 0) for name, peer in peers.items()}, run.rounds)
    rows = [Row(f"{name}, an epoch", s, base="float32, an epoch") for name, s in samples.items()]
    for name, peer in peers.items():
        result = peer.fit(1)
        accuracy = fn.evaluate(result.model, case.dataset.x_test, case.dataset.y_test).accuracy
        note = f"after {int(result.state.epoch)} epochs"
        rows.append(Row(f"{name}, test accuracy", [100 * accuracy], "%", note=note))
    notes = [f"3 x 1024 with layer norm, {case.count:,} images of CIFAR-10"]
    if not data.has_cifar10():
        notes.append("CIFAR-10 is not there: accuracies are of random images, and mean nothing")
    return Result("precision", "products of bfloat16 factors beside float32", rows, notes)


def gpu(run: Run) -> Result:
    """The assignment's net for 30 epochs, a large net in bfloat16, nine members beside one."""
    about = "what a GPU is for"
    names = ("30 epochs of the assignment's net", "3 x 8192, bfloat16, batch 8192", "sweep of 9")
    if not run.gpu:
        return Result("gpu", about, [Row(name, note="not measured: no GPU") for name in names])
    assignment = TRAININGS["cifar100x5"]
    peer = Case(assignment, assignment.examples).ours()
    peer.epochs(1)
    seconds = [30 * peer.epochs(30) for _ in range(run.rounds)]
    case = Case(LARGE, run.size(LARGE.examples, LARGE.quick_examples))
    large = case.ours(LARGE.net(matmul_dtype=jnp.bfloat16))
    rates = square_samples(run, jnp.bfloat16)
    samples = in_turn({names[1]: warm(large, run.least), **rates}, run.rounds)
    rate = max(float(np.median(samples[name])) for name in rates)
    floor = case.problem.flop / rate
    rows = [
        Row(names[0], seconds, note="compiled before"),
        Row(f"{names[1]}, an epoch", samples[names[1]], floor=floor),
        *(Row(f"{name}, bfloat16", samples[name], "FLOP/s") for name in rates),
        *nine_and_one(run),
    ]
    return Result("gpu", about, rows, [f"an epoch of {case.count:,} examples of 3,072 features"])
