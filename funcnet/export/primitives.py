"""The primitives of JAX that a net in evaluation is made of, each in operators of ONNX.

The only list: to add one, write a row of `ELEMENTWISE`, or a function with its decorator, which is
given the graph, the equation and the operands, constants or Values, and gives names of outputs.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from funcnet.export.graph import BATCH, Graph, Value, held_as, is_array, is_known

Translation = Callable[..., Any]

# Of operands of one shape, and an operator of the same meaning.
ELEMENTWISE = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "floor": "Floor",
    "ceil": "Ceil",
    "pow": "Pow",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "erf": "Erf",
    "logistic": "Sigmoid",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "tanh": "Tanh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}  # of Booleans
REDUCTIONS = {
    "reduce_sum": "ReduceSum",
    "reduce_prod": "ReduceProd",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
}
BATCH_SIZE = "dim_as_value"  # what is computed with it, of a layer that looks at all examples
SAME = ("stop_gradient", "copy", "copy_p", "optimization_barrier")
# What moves elements about, and so rounds none.
MOVES = (
    *("reshape", "broadcast_in_dim", "transpose", "slice", "squeeze", "expand_dims", "rev", "pad"),
    *("select_n", "concatenate", "stack", "split", "gather", *SAME),
)
TRANSLATIONS: dict[str, Translation] = {}


class UnknownForm(ValueError):
    """A primitive is known, but not in this form of it."""


def translation(*names: str) -> Callable[[Translation], Translation]:
    """A decorator that enters what translates some primitives."""

    def entered(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(names, function))
        return function

    return entered


@translation(BATCH_SIZE)
def _size(graph: Graph, eqn: Any) -> str:
    if str(eqn.params["dim"]) != BATCH:
        raise UnknownForm(f"of {eqn.params['dim']}")
    return graph.add("Squeeze", graph.batch())


def shape_of(eqn: Any, output: int = 0) -> tuple[Any, ...]:
    """The shape of an output of an equation."""
    return tuple(eqn.outvars[output].aval.shape)


@translation(*ELEMENTWISE)
def _elementwise(graph: Graph, eqn: Any, *operands: Any) -> str:
    return graph.add(ELEMENTWISE[eqn.primitive.name], *graph.together(operands))


@translation(*LOGICAL)
def _logical(graph: Graph, eqn: Any, *operands: Any) -> str:
    if eqn.outvars[0].aval.dtype != bool:
        raise UnknownForm("of integers, bit by bit")
    return graph.add(LOGICAL[eqn.primitive.name], *graph.together(operands))


@translation(*SAME)
def _same(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.name(x)


@translation("ne")
def _ne(graph: Graph, eqn: Any, a: Any, b: Any) -> str:
    return graph.add("Not", graph.add("Equal", *graph.together([a, b])))


@translation("square")
def _square(graph: Graph, eqn: Any, x: Any) -> str:
    name = graph.name(x)
    return graph.add("Mul", name, name)


@translation("integer_pow")
def _integer_pow(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Pow", graph.name(x), graph.scalar(eqn.params["y"], x.dtype))


@translation("rsqrt")
def _rsqrt(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Reciprocal", graph.add("Sqrt", graph.name(x)))


@translation("exp2")
def _exp2(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Pow", graph.scalar(2, x.dtype), graph.name(x))


@translation("expm1")
def _expm1(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Sub", graph.add("Exp", graph.name(x)), graph.scalar(1, x.dtype))


@translation("log1p")
def _log1p(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Log", graph.add("Add", graph.name(x), graph.scalar(1, x.dtype)))


@translation("erfc")
def _erfc(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Sub", graph.scalar(1, x.dtype), graph.add("Erf", graph.name(x)))


@translation("is_finite")
def _is_finite(graph: Graph, eqn: Any, x: Any) -> str:
    name = graph.name(x)
    return graph.add("Not", graph.add("Or", graph.add("IsNaN", name), graph.add("IsInf", name)))


@translation("round")
def _round(graph: Graph, eqn: Any, x: Any) -> str:
    if int(eqn.params["rounding_method"]) != 1:  # halves to even numbers
        raise UnknownForm("of halves away from zero")
    return graph.add("Round", graph.name(x))


@translation("clamp")
def _clamp(graph: Graph, eqn: Any, low: Any, x: Any, high: Any) -> str:
    at_least = graph.add("Max", graph.name(x), graph.name(low))
    return graph.add("Min", at_least, graph.name(high))


@translation("select_n")
def _select(graph: Graph, eqn: Any, which: Any, *cases: Any) -> str:
    if len(cases) != 2 or which.dtype != bool:
        raise UnknownForm("of more than two cases")
    condition, no, yes = graph.together([which, *cases])
    return graph.add("Where", condition, yes, no)


@translation("convert_element_type")
def _convert(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Cast", graph.name(x), to=held_as(eqn.params["new_dtype"]))


@translation("broadcast_in_dim")
def _broadcast(graph: Graph, eqn: Any, x: Any, *_: Any) -> Value:
    """Axes of size 1 where there are new ones; what is repeated is not written out before need."""
    shape, axes = shape_of(eqn), [int(axis) for axis in eqn.params["broadcast_dimensions"]]
    before = dict(zip(axes, x.shape, strict=True))
    new = [axis for axis in range(len(shape)) if axis not in before]
    if is_array(x):
        name = graph.constant(np.expand_dims(np.asarray(x), new))
    else:
        name = graph.name(x)
        name = graph.add("Unsqueeze", name, graph.ints(new)) if new else name
    repeated = any(size != before.get(axis, 1) for axis, size in enumerate(shape))
    dtype = np.dtype(eqn.outvars[0].aval.dtype)
    return Value(None, shape, dtype, name) if repeated else Value(name, shape, dtype)


@translation("reshape", "squeeze", "expand_dims")
def _reshape(graph: Graph, eqn: Any, x: Any, *_: Any) -> str:
    sizes = [int(size) if is_known(size) else -1 for size in shape_of(eqn)]
    if sizes.count(-1) > 1:
        raise UnknownForm("of two axes whose size goes by the batch's")
    return graph.add("Reshape", graph.name(x), graph.ints(sizes))


@translation("transpose")
def _transpose(graph: Graph, eqn: Any, x: Any) -> str:
    return graph.add("Transpose", graph.name(x), perm=[int(a) for a in eqn.params["permutation"]])


@translation("concatenate")
def _concatenate(graph: Graph, eqn: Any, *operands: Any) -> str:
    names = [graph.name(operand) for operand in operands]
    return graph.add("Concat", *names, axis=int(eqn.params["dimension"]))


@translation("stack")
def _stack(graph: Graph, eqn: Any, *operands: Any) -> str:
    axis = int(eqn.params["axis"])
    names = [graph.add("Unsqueeze", graph.name(each), graph.ints([axis])) for each in operands]
    return graph.add("Concat", *names, axis=axis)


@translation("split")
def _split(graph: Graph, eqn: Any, x: Any) -> list[str]:
    sizes = [int(size) for size in eqn.params["sizes"]]
    axis, count = int(eqn.params["axis"]), len(sizes)
    made = graph.add("Split", graph.name(x), graph.ints(sizes), axis=axis, outputs=count)
    return made if count > 1 else [made]


def _slices(graph: Graph, x: Any, axes: Sequence[int], *bounds: Sequence[int]) -> str:
    """x from `starts` to `ends` by `steps` along some axes."""
    starts, ends, steps = (graph.ints(each) for each in bounds)
    return graph.add("Slice", graph.name(x), starts, ends, graph.ints(axes), steps)


@translation("slice")
def _slice(graph: Graph, eqn: Any, x: Any) -> str:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(starts)
    # Along the batch all there is may be taken, and nothing less.
    axes = [a for a, limit in enumerate(limits) if is_known(limit)]
    for axis in set(range(len(limits))) - set(axes):
        if (starts[axis], limits[axis], strides[axis]) != (0, x.shape[axis], 1):
            raise UnknownForm("of some of the batch")
    bounds = ([int(each[axis]) for axis in axes] for each in (starts, limits, strides))
    return _slices(graph, x, axes, *bounds)


@translation("rev")
def _rev(graph: Graph, eqn: Any, x: Any) -> str:
    axes = [int(axis) for axis in eqn.params["dimensions"]]
    count, least = len(axes), np.iinfo(np.int64).min
    return _slices(graph, x, axes, [-1] * count, [least] * count, [-1] * count)


@translation("pad")
def _pad(graph: Graph, eqn: Any, x: Any, value: Any) -> str:
    config = [tuple(map(int, axis)) for axis in eqn.params["padding_config"]]
    if any(low < 0 or high < 0 or inner for low, high, inner in config):
        raise UnknownForm("of less than nothing, or between elements")
    pads = [axis[0] for axis in config] + [axis[1] for axis in config]
    return graph.add("Pad", graph.name(x), graph.ints(pads), graph.name(value))


@translation("gather")
def _gather(graph: Graph, eqn: Any, x: Any, indices: Any) -> str:
    """Elements along one axis, at places that do not depend on the input."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if not is_array(indices) or len(numbers.start_index_map) != 1 or is_array(x):
        raise UnknownForm("at places that are computed")
    (axis,) = numbers.start_index_map
    places = np.asarray(indices)[..., 0]
    others = [a for a in range(len(x.shape)) if a != axis]
    if any(sizes[a] != x.shape[a] for a in others) or numbers.operand_batching_dims:
        raise UnknownForm("along several axes")
    last = int(x.shape[axis]) - int(sizes[axis])
    if places.size and not (places.min() >= 0 and places.max() <= last):
        raise UnknownForm("at places beyond the end")
    if places.ndim == 0 and not numbers.collapsed_slice_dims:
        start = int(places)
        return _slices(graph, x, [axis], [start], [start + int(sizes[axis])], [1])
    inside = range(axis, axis + places.ndim)
    rank = len(x.shape) - 1 + places.ndim
    if numbers.collapsed_slice_dims != (axis,) or (
        list(numbers.offset_dims) != [a for a in range(rank) if a not in inside]
    ):
        raise UnknownForm("in which what is taken comes elsewhere")
    return graph.add("Gather", graph.name(x), graph.constant(places.astype(np.int64)), axis=axis)


@translation(*REDUCTIONS)
def _reduce(graph: Graph, eqn: Any, x: Any) -> str:
    axes = graph.ints([int(axis) for axis in eqn.params["axes"]])
    return graph.add(REDUCTIONS[eqn.primitive.name], graph.name(x), axes, keepdims=0)


@translation("argmax", "argmin")
def _argmax(graph: Graph, eqn: Any, x: Any) -> str:
    op = {"argmax": "ArgMax", "argmin": "ArgMin"}[eqn.primitive.name]
    found = graph.add(op, graph.name(x), axis=int(eqn.params["axes"][0]), keepdims=0)
    return graph.add("Cast", found, to=held_as(eqn.params["index_dtype"]))


@translation("cumsum")
def _cumsum(graph: Graph, eqn: Any, x: Any) -> str:
    axis = graph.constant(np.array(int(eqn.params["axis"]), np.int64))
    return graph.add("CumSum", graph.name(x), axis, reverse=int(eqn.params["reverse"]))


@translation("dot_general")
def _dot(graph: Graph, eqn: Any, a: Any, b: Any) -> str:
    """A product of matrices where it is one, else the sum that it is in Einstein's notation."""
    (summed_a, summed_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    names = graph.name(a), graph.name(b)
    rank = len(a.shape)
    plain = (tuple(summed_a), tuple(summed_b)) == ((rank - 1,), (0,))
    if plain and not batch_a and len(b.shape) == 2:
        return graph.add("MatMul", *names)
    letters = iter(string.ascii_lowercase)
    of_a = [next(letters) for _ in a.shape]
    of_b = [next(letters) for _ in b.shape]
    for i, j in (*zip(summed_a, summed_b, strict=True), *zip(batch_a, batch_b, strict=True)):
        of_b[j] = of_a[i]
    out = [of_a[i] for i in batch_a]
    out += [each for i, each in enumerate(of_a) if i not in (*summed_a, *batch_a)]
    out += [each for j, each in enumerate(of_b) if j not in (*summed_b, *batch_b)]
    equation = f"{''.join(of_a)},{''.join(of_b)}->{''.join(out)}"
    return graph.add("Einsum", *names, equation=equation)
