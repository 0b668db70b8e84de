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
from funcnet.datasets.encoding import Encoding, from_json
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
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "C64": np.complex64,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_STORED = {np.dtype(dtype) for dtype in DTYPES.values()}


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write the parameters, the state, the preprocessing and the encoding of a model.

    The network itself, which is code, is not written: `load_model` wants it again.

    Args:
      path: the file to write, *.safetensors; an older one is replaced as a whole.
      model: the model; the keys of its trees are strings without "/".
    Raises:
      OSError: the file cannot be written; an older one is left as it was.
      TypeError: a leaf is of a dtype that cannot be saved; it is named by its path.
      ImportError: safetensors is not installed.
    """
    trees = {"params": model.params, "state": model.state, "preprocess": model.preprocess.stats}
    encoding = "" if model.encoding is None else json.dumps(model.encoding.as_json())
    save_trees(path, trees, kind="model", preprocess=model.preprocess.kind, encoding=encoding)


def load_model(path: str | os.PathLike[str], net: Layer) -> Model:
    """Read a model that `save_model` wrote.

    Args:
      path: the file.
      net: the network that the parameters are for; layers of other sizes are noticed when
        the model is used.
    Returns:
      The Model; its leaves are JAX arrays, or NumPy arrays where JAX would round them.
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
    return Model(net, params, state, Preprocess(kind, stats), encoding=_encoding(path, metadata))


def _encoding(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Encoding | None:
    text = metadata.get("encoding", "")
    if not text:
        return None
    try:
        if metadata.get("encoding_sha256") != _sha256(text):
            raise ValueError("its checksum does not match")
        return from_json(json.loads(text))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: the encoding of its table: {error}") from None


def save_trees(
    path: str | os.PathLike[str],
    trees: Mapping[str, Any],
    *,
    kind: str,
    preprocess: str = "",
    encoding: str = "",
) -> None:
    """Write nested dicts of arrays, with a checksum of all of them; empty dicts are left out.

    Args:
      path: the file to write.
      trees: the trees by name; their keys are strings without "/".
      kind: what the file is, a key of `versions.VERSIONS`.
      preprocess: the kind of a preprocessing among them.
      encoding: the JSON of the encoding of a table; older readers, which know none, pass over it.
    """
    safetensors = _safetensors()
    leaves = named_leaves(trees)
    depths = [len(path) for path, _ in jax.tree_util.tree_flatten_with_path(trees)[0]]
    for name, depth in zip(leaves, depths, strict=True):
        if name.count("/") != depth - 1:
            raise ValueError(f"keys must be strings without '/', got the path {name}")
    tensors = {name: _storable(name, leaf) for name, leaf in leaves.items()}
    metadata = {
        **{name: str(value) for name, value in stamp(kind).items()},
        "preprocess": preprocess,
        "sha256": _digest(preprocess, tensors),
    }
    if encoding:
        metadata |= {"encoding": encoding, "encoding_sha256": _sha256(encoding)}
    try:
        data = safetensors.numpy.save(tensors, metadata=metadata)
    except Exception as error:  # of an older safetensors, which knows fewer dtypes
        raise ValueError(f"{path} cannot be saved: {error}") from None
    write_atomically(path, data)


def _storable(name: str, leaf: Any) -> np.ndarray:
    """A leaf as a file can hold it, of the same dtype and values."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name} is a random key: keep jax.random.key_data of it")
    array = np.asarray(leaf, order="C")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in _STORED:
        known = ", ".join(sorted(dtype.name for dtype in _STORED))
        raise TypeError(f"{name} is {array.dtype}, which cannot be saved; what can: {known}")
    return array


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
    """The trees whose leaves `load_tensors` gives by path.

    Leaves are JAX arrays; those of 64 bits, which JAX would round unless x64 is enabled, stay NumPy
    arrays, read-only.
    """
    nested: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *parents, last = name.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = tensor
    return _frozen(nested)


def _frozen(tree: Any) -> Any:
    if isinstance(tree, dict):
        return FrozenDict.shallow({key: _frozen(value) for key, value in tree.items()})
    held = jax.dtypes.canonicalize_dtype(tree.dtype) == tree.dtype
    return freeze(tree) if held else tree


def _digest(kind: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{kind}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _safetensors() -> Any:
    checks.installed("safetensors", "to save and load models")
    import safetensors.numpy

    return safetensors
