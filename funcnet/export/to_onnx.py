"""ONNX: what a model gives for raw inputs as a graph of operators, preprocessing inside.

The scoring function is traced for a batch of any size, and each primitive that occurs translated by
the table in `primitives`; so layers of one's own need nothing of their own.
"""

import json
import os
from typing import Any

import jax
import numpy as np

import funcnet
from funcnet import checks
from funcnet.export.graph import INPUT, Graph, Value, held_as, is_known
from funcnet.export.scoring import BATCH, OUTPUTS, Inputs, outputs, traceable
from funcnet.export.translate import translate
from funcnet.files import write_atomically
from funcnet.model import Model
from funcnet.tree import path_name

OPSET = 18
IR_VERSION = 9  # of the file, which runtimes since 2023 read
LIMIT = 2**31  # bytes of a file


def write_onnx(path: str | os.PathLike[str], model: Model, inputs: Inputs) -> None:
    """Write a model as ONNX, checked by onnx.checker.

    Raises:
      ValueError: the net computes what has no operator, it is named; or takes more than 2 GiB.
      ImportError: onnx is not installed. OSError: the file cannot be written.
    """
    data = onnx_bytes(model, inputs)
    write_atomically(path, data)


def onnx_bytes(model: Model, inputs: Inputs) -> bytes:
    """The file of `write_onnx`."""
    checks.installed("onnx", "to export to ONNX", "onnx")
    import onnx
    from onnx import helper

    graph = Graph()
    with jax.enable_x64(True):  # predictions in the person's units are float64
        given = _traced(graph, model, inputs)
    given_names = _outputs(graph, given)
    size = sum(array.nbytes for array in graph.constants.values())
    if size >= LIMIT:
        raise ValueError(f"the net has {size >> 20:,} MiB of constants, and a file of ONNX 2,048")
    made = helper.make_model(
        helper.make_graph(
            [_node(*each) for each in _needed(graph, given_names)],
            "funcnet",
            [helper.make_tensor_value_info(INPUT, _type(inputs.dtype), [BATCH, *inputs.shape])],
            [
                helper.make_tensor_value_info(name, _type(value.dtype), _sizes(value.shape))
                for name, value in given.items()
            ],
            [
                onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
                for name, array in graph.constants.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="funcnet",
        producer_version=funcnet.__version__,
    )
    helper.set_model_props(made, facts(model))
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def facts(model: Model) -> dict[str, str]:
    """What is to be known of a model beside its numbers, texts or JSON by name."""
    targets = model.targets
    said: dict[str, Any] = {
        "funcnet_version": funcnet.__version__,
        "task": targets.task,
        "link": targets.link,
        "preprocess": model.preprocess.kind,
        "class_names" if targets.task == "classification" else "target_names": targets.names,
    }
    if targets.task == "regression":
        said |= {"mean": targets.mean, "scale": targets.scale, "quantiles": targets.quantiles}
    else:
        said["temperature"] = targets.temperature
    if model.encoding is not None:
        said["input_names"] = model.encoding.names
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in said.items()}


def _traced(graph: Graph, model: Model, inputs: Inputs) -> dict[str, Value]:
    """The outputs by name, of the graph that is made."""
    (batch,) = jax.export.symbolic_shape(BATCH)
    ready = traceable(model, inputs)
    shape = (batch, *inputs.shape)
    x = jax.ShapeDtypeStruct(shape, inputs.dtype)
    closed, shapes = jax.make_jaxpr(outputs, return_shape=True)(ready, x)
    paths, _ = jax.tree_util.tree_flatten_with_path(ready)
    leaves = [leaf for _, leaf in paths]
    for keys, leaf in paths:
        graph.call(leaf, path_name(keys))
    operands = [*leaves, Value(INPUT, shape, inputs.dtype)]
    found = translate(graph, closed.jaxpr, closed.consts, operands)
    named = jax.tree.unflatten(jax.tree.structure(shapes), found)
    return {name: named[name] for name in OUTPUTS if name in named}


def _outputs(graph: Graph, given: dict[str, Value]) -> list[str]:
    for name, value in given.items():
        graph.nodes.append(("Identity", [graph.name(value)], [name], {}))
    return list(given)


def _needed(graph: Graph, outputs: list[str]) -> list[Any]:
    """The nodes that lead to the outputs; constants that no node takes are removed."""
    wanted, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if wanted & set(node[2]):
            wanted |= set(node[1])
            nodes.append(node)
    for name in set(graph.constants) - wanted:
        del graph.constants[name]
    return nodes[::-1]


def _node(op: str, names: list[str], outputs: list[str], attributes: dict[str, Any]) -> Any:
    from onnx import helper

    if "to" in attributes:
        attributes = {"to": _type(attributes["to"])}
    return helper.make_node(op, names, outputs, name=outputs[0], **attributes)


def _type(dtype: Any) -> int:
    """ONNX's number of a dtype, or of its own name."""
    from onnx import TensorProto, helper

    if isinstance(dtype, str):
        return int(getattr(TensorProto, dtype))
    return int(helper.np_dtype_to_tensor_dtype(held_as(dtype)))


def _sizes(shape: Any) -> list[Any]:
    return [int(size) if is_known(size) else BATCH for size in shape]
