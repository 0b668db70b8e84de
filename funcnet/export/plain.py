"""Plain nets as data: their layers in turn, for formats in which each is written as code."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funcnet import schedules
from funcnet.activations import ACTIVATIONS
from funcnet.layer import Layer, child_of, forward_of
from funcnet.model import Model
from funcnet.net import affine, batchnorm, composition, dropout, flatten, layernorm
from funcnet.preprocess import parts_of
from funcnet.targets import Targets
from funcnet.tree import Tree

OTHERS = "formats onnx and jax take every layer"


class Piece(NamedTuple):
    """A layer, or a preprocessing.

    Attributes:
      name: where its arrays are, "affine1" or "residual1/affine1".
      kind: which layer it is, a key of `EXAMPLES`, "residual", or a kind of preprocessing.
      arrays: its parameters and its state, or what was fitted, by name.
      options: what else it was made with.
      inside: of "residual" its layers.
    """

    name: str
    kind: str
    arrays: dict[str, np.ndarray]
    options: dict[str, Any]
    inside: tuple["Piece", ...] = ()


# One of each layer that can be written as code.
EXAMPLES: dict[str, Layer] = {
    "affine": affine(1),
    "batchnorm": batchnorm(),
    "layernorm": layernorm(),
    "dropout": dropout(0.5),
    "flatten": flatten(),
    **{name: make() for name, make in ACTIVATIONS.items()},
}
_KINDS: dict[Callable[..., Any], str] = {
    **{forward_of(layer)[0]: kind for kind, layer in EXAMPLES.items()},
    forward_of(dropout(schedules.constant(0.5)))[0]: "dropout",
}


def pieces_of(model: Model, form: str) -> tuple[list[Piece], list[Piece]]:
    """The preprocessings of a model, and the layers of its net.

    Args:
      model: the model.
      form: what they are for, for errors.
    Raises:
      ValueError: a layer, or the dtype of a parameter, is another one; it is named.
    """
    first = []
    for number, part in enumerate(parts_of(model.preprocess), start=1):
        if part.kind != "no_preprocess":
            arrays = {name: np.asarray(value) for name, value in part.stats.items()}
            first.append(Piece(f"preprocess{number}", part.kind, arrays, {}))
    name = "" if composition(model.net) else f"{model.net.kind}1"
    return first, _pieces(model.net, model.params, model.state, name, form)


def _pieces(net: Layer, params: Tree, state: Tree, name: str, form: str) -> list[Piece]:
    found = composition(net)
    if found is None:
        return [_piece(net, params, state, name, form)]
    kind, children = found
    inside = [
        piece
        for own, child in children
        for piece in _pieces(
            child,
            child_of(params, own),
            child_of(state, own),
            f"{name}/{own}" if name else own,
            form,
        )
    ]
    if kind == "serial":
        return inside
    return [Piece(name or "residual1", kind, {}, {}, tuple(inside))]


def _piece(layer: Layer, params: Tree, state: Tree, name: str, form: str) -> Piece:
    function, options = forward_of(layer)
    kind = _KINDS.get(function)
    if kind is None:
        raise ValueError(
            f"format {form} is for plain nets, and has no layer {layer.kind} ({name}): {OTHERS}"
        )
    if options.get("matmul_dtype") is not None:
        raise ValueError(f"format {form} has no products in {options['matmul_dtype']}: {OTHERS}")
    arrays = {own: np.asarray(value) for own, value in {**params, **state}.items() if own != "step"}
    for own, array in arrays.items():
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"format {form} is for float32, and {name}/{own} is {array.dtype}: {OTHERS}"
            )
    return Piece(name, kind, arrays, options)


def flat(pieces: list[Piece]) -> list[Piece]:
    """The pieces with those inside of them in their place."""
    return [each for piece in pieces for each in (flat(list(piece.inside)) or [piece])]


def names_line(targets: Targets) -> str:
    """NAMES, those of classes or labels, as code."""
    return f"NAMES = {json.dumps(targets.names, ensure_ascii=False)}\n"


def in_units(targets: Targets, values: str, array: str) -> str:
    """`predict` of regression as code: in the person's units [N], [N, K], or [..., Q].

    Args:
      targets: the targets.
      values: the code of scores, or of what they are the logarithms of.
      array: of an array of numbers, which stand at {}.
    """
    shape = [] if targets.flat else [len(targets.scale)]
    shape += [len(targets.quantiles)] if targets.quantiles else []
    mean, scale = (_numbers(each, targets, array) for each in (targets.mean, targets.scale))
    quantiles = f", of the quantiles {list(targets.quantiles)}" if targets.quantiles else ""
    reshaped = f"{values}.reshape({', '.join(map(str, (-1, *shape)))})"
    return f"""
def predict(x):
    # [{", ".join(map(str, ("N", *shape)))}] in your units{quantiles}
    return {mean} + {scale} * {reshaped}
"""


def _numbers(values: tuple[float, ...], targets: Targets, array: str) -> str:
    if targets.flat:
        return repr(values[0])
    return array.format([[value] for value in values] if targets.quantiles else list(values))
