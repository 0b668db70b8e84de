"""From what JAX has traced to an ONNX graph: constants are folded, functions written out."""

from typing import Any

import numpy as np
from jax.extend.core import Literal

from funcnet.export.graph import HALVES, Graph, Value, is_array, is_known
from funcnet.export.primitives import MOVES, TRANSLATIONS, UnknownForm

# What is called, with the program of what is called among its parameters.
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
CALLED = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)


def translate(graph: Graph, jaxpr: Any, constants: Any, operands: Any) -> list[Any]:
    """Add the equations of a program to a graph.

    Args:
      graph: the graph.
      jaxpr: the program.
      constants: what its constvars are.
      operands: its inputs, constants (arrays) or Values.
    Returns:
      Its outputs, arrays or Values.
    Raises:
      ValueError: a primitive is not known, or not in this form; it is named.
    """
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, operands, strict=True))

    def read(variable: Any) -> Any:
        if isinstance(variable, Literal):
            return np.asarray(variable.val, getattr(variable.aval, "dtype", None))
        return known[variable]

    for eqn in jaxpr.eqns:
        found = _equation(graph, eqn, [read(each) for each in eqn.invars])
        known.update(zip(eqn.outvars, found, strict=True))
    return [read(each) for each in jaxpr.outvars]


def _equation(graph: Graph, eqn: Any, operands: list[Any]) -> list[Any]:
    name = eqn.primitive.name
    if name in CALLED:
        inner = next(eqn.params[each] for each in CALLS if each in eqn.params)
        program, constants = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        return translate(graph, program, constants, operands)
    if all(map(is_array, operands)) and _is_concrete(eqn):
        found = eqn.primitive.bind(*operands, **eqn.params)
        return list(found) if eqn.primitive.multiple_results else [found]
    if name not in TRANSLATIONS:
        raise ValueError(_message(name, ""))
    try:
        made = TRANSLATIONS[name](graph, eqn, *operands)
    except UnknownForm as error:
        raise ValueError(_message(name, f" {error}")) from None
    made = made if isinstance(made, list) else [made]
    return [_value(graph, eqn, each, out.aval) for each, out in zip(made, eqn.outvars, strict=True)]


def _value(graph: Graph, eqn: Any, made: Any, aval: Any) -> Value:
    if isinstance(made, Value):
        return made
    dtype = np.dtype(aval.dtype)
    if dtype in HALVES and eqn.primitive.name not in MOVES:
        made = graph.rounded(made, dtype)
    return Value(made, tuple(aval.shape), dtype)


def _is_concrete(eqn: Any) -> bool:
    return all(is_known(size) for out in eqn.outvars for size in out.aval.shape)


def _message(name: str, form: str) -> str:
    return (
        f"the net computes {name}{form}, for which the export to ONNX has no operator: "
        "format jax takes everything"
    )
