"""`export_model`: a trained model in a file or a folder that others read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from funcnet import checks
from funcnet.export.folder import encoding_path, encoding_text
from funcnet.export.scoring import Inputs, inputs_of_model
from funcnet.export.to_jax import write_jax
from funcnet.export.to_numpy import write_numpy
from funcnet.export.to_onnx import write_onnx
from funcnet.export.to_torch import write_torch
from funcnet.files import write_atomically
from funcnet.model import Model, check_model

__all__ = ["export_model"]


class Format(NamedTuple):
    """A format.

    Attributes:
      write: `write(path, model, inputs)`.
      name: what it is called where nothing is said.
      about: what it is, in words.
      use: how one uses it, code or a command, of a path.
      is_folder: whether it is a folder, in which the encoding of a table lies as well.
    """

    write: Callable[[Any, Model, Inputs], None]
    name: str
    about: str
    use: str
    is_folder: bool = False


# The only list: to add a format, write a file with its function, and a row.
FORMATS = {
    "onnx": Format(
        write_onnx,
        "model.onnx",
        "a graph for onnxruntime and others",
        'onnxruntime.InferenceSession("{path}").run(None, {{"x": x}})',
    ),
    "jax": Format(
        write_jax,
        "model.stablehlo",
        "StableHLO, for JAX alone",
        'jax.export.deserialize(bytearray(open("{path}", "rb").read())).call(x)',
    ),
    "numpy": Format(
        write_numpy,
        "numpy",
        "forward.py and weights.npz, for NumPy alone",
        "python {path}/forward.py x.npy",
        True,
    ),
    "torch": Format(
        write_torch,
        "torch",
        "an nn.Sequential and its weights",
        "cd {path} && python -c 'from net import net; print(net)'",
        True,
    ),
}


def export_model(
    model: Model, path: str | os.PathLike[str], *, format: str = "onnx", example: Any = None
) -> Path | None:
    """Write a model for use without funcnet: from raw inputs [N, ...], N any number, to scores,
    what `predict` gives, in the person's units, and where there are such probabilities.

    - "onnx": a file with inputs `x`, outputs `scores`, `prediction`, `probabilities`, and names of
      classes, task and units in its metadata.
    - "jax": a file that `jax.export.deserialize` reads, a program for CPU, CUDA and TPU; its call
      gives a dict of the same.
    - "numpy": a folder of a plain net (affine, normalization, activations, dropout, `residual`),
      with a short forward.py that has `scores`, `predict` and `predict_proba`, and weights.npz.
    - "torch": a folder of a plain net, with net.py, an `nn.Sequential` and what comes before it,
      and weights.safetensors by PyTorch's names, such as 0.weight [out, in].

    Of a model of a table the inputs are the numbers [N, D] that its columns become; how they do is
    written in JSON beside it, model.encoding.json, or encoding.json in a folder.

    Args:
      model: the model, such as `fit(...).best`, `load_run("runs/digits")` or `join_models` gives.
      path: the file or folder to write; an older one is replaced as a whole.
      format: "onnx", "jax", "numpy" or "torch".
      example: inputs [N, ...] such as those of training, which say of which shape and dtype they
        are. None finds the shape in the model, where it can, and takes float32: of pixels, too.
    Returns:
      Where the encoding of a table lies; None of other models.
    Raises:
      ValueError: there is no such format, a net computes what it does not have, which is named; or
        nothing says of which shape an example is.
      ImportError: a package is missing.
      OSError: it cannot be written.
      TypeError: model is no Model.
    Example:
      >>> import os
      >>> net = fn.mlp([4], 2)
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> model = fn.Model(net, params, state, fn.no_preprocess(None))
      >>> fn.export_model(model, "plain", format="numpy")
      >>> sorted(os.listdir("plain"))
      ['forward.py', 'weights.npz']
    """
    check_model(model)
    chosen = checks.choose("format", format, FORMATS)
    inputs = inputs_of_model(model, example)
    chosen.write(path, model, inputs)
    if model.encoding is None:
        return None
    beside = encoding_path(path)
    if not chosen.is_folder:
        write_atomically(beside, encoding_text(model.encoding))
    return beside
