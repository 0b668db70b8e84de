"""An ONNX graph in the making: nodes, constants, and what broadcasts without being written out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

INPUT = "x"
BATCH = "n"  # the name of the batch axis, of any size
HALVES = {  # held as float32, and rounded; few runtimes compute with them on a CPU
    np.dtype(ml_dtypes.bfloat16): "BFLOAT16",
    np.dtype(np.float16): "FLOAT16",
}


@dataclass(frozen=True)
class Value:
    """A traced array: the output of a node.

    Attributes:
      name: of the output; None if it is not written out yet.
      shape: sizes, those of the batch symbolic.
      dtype: of the elements.
      stand_in: of what is not written out, the name of an array that broadcasts to it.
    """

    name: str | None
    shape: tuple[Any, ...]
    dtype: np.dtype
    stand_in: str | None = None


@dataclass
class Graph:
    """Nodes and constants of a graph of one input, whose first axis is the batch.

    Attributes:
      nodes: (op, inputs, outputs, attributes) each.
      constants: arrays by name.
    """

    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    _named: dict[int, tuple[str, Any]] = field(default_factory=dict)
    _written: dict[Any, str] = field(default_factory=dict)

    def call(self, array: Any, name: str) -> None:
        """Say what a constant is to be called, should it be used."""
        self._named[id(array)] = (name, array)

    def constant(self, array: Any) -> str:
        """The name of a constant; equal small ones are one."""
        known = self._named.get(id(array))
        name = known[0] if known else f"constant_{len(self.constants) + 1}"
        values = np.asarray(array)
        if values.dtype in HALVES:
            values = values.astype(np.float32)
        if values.size <= 64 and known is None:
            same = (values.dtype.str, values.shape, values.tobytes())
            name = self._written.setdefault(same, name)
        self.constants.setdefault(name, values)
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or of several the list of them."""
        number = len(self.nodes) + 1
        names = [f"{op.lower()}_{number}" for _ in range(outputs)]
        if outputs > 1:
            names = [f"{name}_{i}" for i, name in enumerate(names, start=1)]
        self.nodes.append((op, list(inputs), names, attributes))
        return names if outputs > 1 else names[0]

    def ints(self, values: Sequence[int]) -> str:
        """The name of a constant [K] int64, as shapes and axes are."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float, dtype: Any) -> str:
        """The name of a constant scalar of the dtype in which one of `dtype` is held."""
        return self.constant(np.array(value, np.float32 if np.dtype(dtype) in HALVES else dtype))

    def name(self, operand: Any) -> str:
        """The name of a Value or of a constant, written out."""
        if not isinstance(operand, Value):
            return self.constant(operand)
        if operand.name is not None:
            return operand.name
        assert operand.stand_in is not None
        return self.add("Expand", operand.stand_in, self._shape(operand.shape))

    def _shape(self, shape: tuple[Any, ...]) -> str:
        """The name of a shape [K] int64 that has the batch's size in it."""
        if all(map(is_known, shape)):
            return self.ints(shape)
        parts = [self.ints([size]) if is_known(size) else self.batch() for size in shape]
        return self.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def batch(self) -> str:
        """The name of the size of the batch, [1] int64."""
        if "batch" not in self._written:
            self._written["batch"] = self.add("Shape", INPUT, start=0, end=1)
        return self._written["batch"]

    def together(self, operands: Sequence[Any]) -> list[str]:
        """The names of operands of one shape, or scalars; one of that shape is written out."""
        ranks = [np.ndim(each) if is_array(each) else len(each.shape) for each in operands]
        whole = [is_array(each) or each.name is not None for each in operands]
        full = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
        if not any(whole[i] for i in full):
            whole[full[0]] = True
        names = []
        for operand, is_whole in zip(operands, whole, strict=True):
            stand_in = operand.stand_in if isinstance(operand, Value) else None
            names.append(self.name(operand) if is_whole or stand_in is None else stand_in)
        return names

    def rounded(self, name: str, dtype: Any) -> str:
        """A float32 array whose elements are rounded to a dtype of `HALVES`."""
        half = self.add("Cast", name, to=HALVES[np.dtype(dtype)])
        return self.add("Cast", half, to="FLOAT")


def is_known(size: Any) -> bool:
    """Whether the size of an axis is a number, rather than the symbol of the batch's."""
    return isinstance(size, int | np.integer)


def is_array(value: Any) -> bool:
    """Whether an operand is a constant."""
    return not isinstance(value, Value)


def held_as(dtype: Any) -> np.dtype:
    """The dtype in which the graph holds one of JAX."""
    return np.dtype(np.float32) if np.dtype(dtype) in HALVES else np.dtype(jnp.dtype(dtype))
