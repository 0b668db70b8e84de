"""What every implementation is given, in NumPy alone, and what it has to do with it."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
EPS = 1e-5  # of the normalizations
MOMENTUM = 0.9  # the share of the running statistics that a step of batch norm keeps


@dataclass(frozen=True)
class Problem:
    """A training: data, initial parameters, and the settings of Adam.

    Attributes:
      x: [N, D] float32, preprocessed.
      y: [N] int32.
      layers: of each affine layer w [in, out] and b [out], with gamma and beta [out] where it is
        normalized; float32.
      normalization: "batchnorm", "layernorm" or None.
      keep_prob: of dropout after each hidden layer; None is none.
      batch_size: divides N.
      learning_rate: of Adam.
      orders: [epochs, N], the order of the examples in the first epochs.
    """

    x: np.ndarray
    y: np.ndarray
    layers: tuple[dict[str, np.ndarray], ...]
    normalization: str | None
    keep_prob: float | None
    batch_size: int
    learning_rate: float
    orders: np.ndarray

    @property
    def num_classes(self) -> int:
        """How many scores the net gives."""
        return len(self.layers[-1]["b"])

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """N, D, M of the matrix product of each layer."""
        return [(self.batch_size, *layer["w"].shape) for layer in self.layers]

    @property
    def flop(self) -> float:
        """Floating point operations of the matrix products of an epoch.

        A layer has three products of 2 N D M each, x w, x^T dout and dout w^T; the first layer does
        not need the last.
        """
        return len(self.x) // self.batch_size * step_flop(self.shapes)

    def save(self, path: Path) -> None:
        """Write it to a .npz, for a process that imports no JAX."""
        layers = {
            f"layer{i}.{name}": value
            for i, layer in enumerate(self.layers)
            for name, value in layer.items()
        }
        settings = [self.normalization or "", self.keep_prob or 0, self.batch_size]
        np.savez(
            path,
            x=self.x,
            y=self.y,
            orders=self.orders,
            settings=np.array([*map(str, settings), repr(self.learning_rate)]),
            **layers,
        )

    @classmethod
    def load(cls, path: str) -> "Problem":
        """What `save` wrote."""
        with np.load(path) as file:
            found: dict[int, dict[str, np.ndarray]] = {}
            for entry in file.files:
                layer, dot, name = entry.partition(".")
                if dot:
                    found.setdefault(int(layer.removeprefix("layer")), {})[name] = file[entry]
            normalization, keep_prob, batch_size, learning_rate = file["settings"].tolist()
            return cls(
                file["x"],
                file["y"],
                tuple(found[i] for i in sorted(found)),
                normalization or None,
                float(keep_prob) or None,
                int(batch_size),
                float(learning_rate),
                file["orders"],
            )


def step_flop(shapes: Sequence[tuple[int, int, int]]) -> float:
    """Floating point operations of the matrix products of a step, of N, D, M of each layer."""
    n, d, m = shapes[0]
    return sum(6.0 * n * d * m for n, d, m in shapes) - 2.0 * n * d * m


class Peer:
    """An implementation; a subclass has `train`, and `order` and `wait` where it has better ones.

    The constructor takes the Problem. `losses` and `epochs` are what is called from outside.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.rng = np.random.default_rng(0)

    def train(self, order: Any) -> Any:
        """A pass over the examples in this order. Returns the loss of every step."""
        raise NotImplementedError

    def order(self) -> Any:
        """A new order, as `train` takes it fastest."""
        return self.rng.permutation(len(self.problem.x))

    def wait(self) -> None:
        """Until all that was begun has ended."""

    def tune(self) -> str:
        """Choose what is fastest here, if there is a choice. Returns what was chosen."""
        return ""

    def losses(self, steps: int) -> np.ndarray:
        """The losses of the first steps, in the order of the problem."""
        epochs = math.ceil(steps * self.problem.batch_size / len(self.problem.x))
        found = [np.asarray(self.train(order), float) for order in self.problem.orders[:epochs]]
        return np.concatenate(found)[:steps]

    def epochs(self, count: int) -> float:
        """Train so many epochs more. Returns the seconds that one took."""
        before = time.perf_counter()
        for _ in range(count):
            self.train(self.order())
        self.wait()
        return (time.perf_counter() - before) / count
