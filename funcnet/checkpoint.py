"""Models on disk: safetensors files, written whole or not at all, checked when read.

A safetensors file holds names, dtypes, shapes and bytes; reading one runs no code.
The format has no checksum, so funcnet puts one of all the tensors into its metadata.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.files import write_atomically
from funcnet.layer import Layer
from funcnet.model import Model
from funcnet.preprocess import Preprocess, check_kind
from funcnet.tree import FrozenDict, freeze, named_leaves
from funcnet.versions import lift, stamp, version_of

__all__ = ["load_model", "save_model"]

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "U32": np.uint32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write the parameters, the state and the preprocessing of a model.

    The network itself, which is code, is not written: `load_model` wants it again.

    Args:
      path: the file to write, *.safetensors; an older one is replaced as a whole.
      model: the model; the keys of its trees are strings without "/".
    Raises:
      OSError: the file cannot be written; an older one is left as it was.
      ImportError: safetensors is not installed.
    """
    trees = {"params": model.params, "state": model.state, "preprocess": model.preprocess.stats}
    save_trees(path, trees, kind="model", preprocess=model.preprocess.kind)


def load_model(path: str | os.PathLike[str], net: Layer) -> Model:
    """Read a model that `save_model` wrote.

    Args:
      path: the file.
      net: the network that the parameters are for; layers of other sizes are noticed when
        the model is used.
    Returns:
      The Model; its leaves are JAX arrays.
    Raises:
      ValueError: the file is not of this kind, is damaged or truncated.
      OSError: it cannot be read.
      ImportError: safetensors is not installed.
    """
    tensors, metadata = load_tensors(path, kind="model")
    trees = nest(tensors)
    kind = metadata.get("preprocess", "")
    check_kind(kind)
    params, state, stats = (trees.get(k, FrozenDict()) for k in ("params", "state", "preprocess"))
    return Model(net, params, state, Preprocess(kind, stats))


def save_trees(
    path: str | os.PathLike[str], trees: Mapping[str, Any], *, kind: str, preprocess: str = ""
) -> None:
    """Write nested dicts of arrays, with a checksum of all of them; empty dicts are left out.

    Args:
      path: the file to write.
      trees: the trees by name; their keys are strings without "/".
      kind: what the file is, a key of `versions.VERSIONS`.
      preprocess: the kind of a preprocessing among them.
    """
    safetensors = _safetensors()
    leaves = named_leaves(trees)
    depths = [len(path) for path, _ in jax.tree_util.tree_flatten_with_path(trees)[0]]
    for name, depth in zip(leaves, depths, strict=True):
        if name.count("/") != depth - 1:
            raise ValueError(f"keys must be strings without '/', got the path {name}")
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in leaves.items()}
    metadata = {
        **{name: str(value) for name, value in stamp(kind).items()},
        "preprocess": preprocess,
        "sha256": _digest(preprocess, tensors),
    }
    write_atomically(path, safetensors.numpy.save(tensors, metadata=metadata))


def load_tensors(
    path: str | os.PathLike[str], *, kind: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What `save_trees` wrote, arrays by path, and the metadata beside them.

    Raises:
      ValueError: the file is not of this kind, of a newer version, damaged or truncated.
    """
    safetensors = _safetensors()
    data = Path(path).read_bytes()
    try:
        tensors = {name: _array(view) for name, view in safetensors.deserialize(data)}
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = dict(header.get("__metadata__", {}))
    except Exception as error:  # its own errors share no base but Exception
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from None
    version = version_of(kind, metadata)
    if version is None:
        raise ValueError(f"{path} is no {kind} that funcnet saved")
    if metadata.get("sha256") != _digest(metadata.get("preprocess", ""), tensors):
        raise ValueError(f"{path} is damaged: its checksum does not match")
    return lift(kind, version, tensors, path), metadata


def _array(view: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])


def nest(tensors: Mapping[str, np.ndarray]) -> FrozenDict:
    """The trees whose leaves `load_tensors` gives by path, as JAX arrays."""
    nested: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *parents, last = name.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = tensor
    return freeze(nested)


def _digest(kind: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{kind}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _safetensors() -> Any:
    checks.installed("safetensors", "to save and load models")
    import safetensors.numpy

    return safetensors
