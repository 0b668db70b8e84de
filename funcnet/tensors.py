"""Trees of arrays on disk: safetensors files, written whole or not at all, checked when read.

A safetensors file holds names, dtypes, shapes and bytes; reading one runs no code. The format has
no checksum, so funcnet puts one of everything into its metadata. What it has no dtype for is
bytes there, and "leaves" of the metadata says of what: numbers of other dtypes and byte orders,
random keys, numbers of Python.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from funcnet import checks
from funcnet.datasets.limits import check_size
from funcnet.files import open_file, parse_json, write_atomically
from funcnet.text import one_line
from funcnet.tree import FrozenDict, freeze, path_name
from funcnet.versions import check_version, lift, stamp, version_of

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
# Those that are stored as bytes, by name: they mean the same everywhere.
_OTHERS = {
    **{f"{order}{kind}": np.dtype(f"{order}{kind}") for order in "<>" for kind in ("c8", "c16")},
    **{f">{kind}{size}": np.dtype(f">{kind}{size}") for kind in "iuf" for size in (2, 4, 8)},
    **{
        name: np.dtype(getattr(ml_dtypes, name))
        for name in (
            *("int2", "int4", "uint2", "uint4", "float8_e3m4", "float8_e4m3", "float8_e8m0fnu"),
            *("float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn"),
        )
        if hasattr(ml_dtypes, name)  # of an older one, which knows fewer
    },
}
DEPTH = 100  # of trees, at most
_NUMBERS = {"bool": "?", "int": "<i8", "float": "<f8", "complex": "<c16"}  # of Python
_WITHOUT_FACTS = {"model": 1, "member": 1}  # the last versions whose checksum is of tensors alone


def save_tensors(
    path: str | os.PathLike[str],
    leaves: Mapping[str, Any],
    *,
    kind: str,
    **facts: str,
) -> None:
    """Write leaves by name, and facts, with a checksum of all of them.

    Args:
      path: the file to write.
      leaves: arrays, random keys and numbers.
      kind: what the file is, a key of `versions.VERSIONS`.
      facts: texts, such as JSON, for the metadata; empty ones are left out.
    Raises:
      TypeError: a leaf cannot be saved. OSError: the file cannot be written.
    """
    safetensors = _safetensors()
    tensors, notes = {}, {}
    for name, leaf in leaves.items():
        tensors[name], note = _stored(name, leaf)
        if note is not None:
            notes[name] = note
    metadata = {name: str(value) for name, value in stamp(kind).items()}
    metadata |= {name: text for name, text in facts.items() if text}
    if notes:
        metadata["leaves"] = json.dumps(notes)
    metadata["sha256"] = _digest(_said(metadata), tensors)
    try:
        data = safetensors.numpy.save(tensors, metadata=metadata)
    except Exception as error:  # of an older safetensors, which knows fewer dtypes
        raise ValueError(f"{path} cannot be saved: {error}") from None
    write_atomically(path, data)


def _stored(name: str, leaf: Any) -> tuple[np.ndarray, list[Any] | None]:
    """A leaf as a file can hold it, and what it is if that does not say so: [kind, shape]."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(leaf))
        return data, [f"key {jax.random.key_impl(leaf)}", list(leaf.shape)]
    python = type(leaf).__name__
    if python in _NUMBERS:
        try:
            number = np.array(leaf, _NUMBERS[python])
        except OverflowError:
            raise TypeError(f"{name} is {leaf}, of more than 64 bits: it cannot be saved") from None
        return np.frombuffer(number.tobytes(), np.uint8), [python, []]
    array = np.asarray(leaf, order="C")
    if array.dtype.itemsize == 1:  # has no byte order, though NumPy may say so
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype in _STORED and array.dtype.isnative:
        return array, None
    for known, dtype in _OTHERS.items():
        if array.dtype == dtype:
            return np.frombuffer(array.tobytes(), np.uint8), [known, list(array.shape)]
    names = ", ".join(sorted({dtype.name for dtype in (*_STORED, *_OTHERS.values())}))
    raise TypeError(
        f"{name} is {array.dtype}, which cannot be saved; what can: {names}, random keys and "
        "numbers of Python"
    )


def _restored(tensor: np.ndarray, note: Any) -> Any:
    """The leaf of what `_stored` made of it."""
    what, shape = note
    if what.startswith("key "):
        key = jax.random.wrap_key_data(jnp.asarray(tensor), impl=what.removeprefix("key "))
        if list(key.shape) != shape:
            raise ValueError(f"{shape} keys are of shape {list(key.shape)}")
        return key
    if what in _NUMBERS:
        return np.frombuffer(tensor.tobytes(), _NUMBERS[what]).reshape(shape).item()
    return np.frombuffer(tensor.tobytes(), _OTHERS[what]).reshape(shape)


def load_tensors(
    path: str | os.PathLike[str], *, kind: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `save_tensors` wrote, leaves by name, and the metadata beside them.

    Raises:
      ValueError: the file is not of this kind, of a newer version, damaged or truncated.
      OSError: it cannot be read.
    """
    safetensors = _safetensors()
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(f"{path}", size, size)
        data = file.read()
    try:
        tensors = {name: _array(view) for name, view in safetensors.deserialize(data)}
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = dict(header.get("__metadata__", {}))
    except Exception as error:  # its own errors share no base but Exception
        raise ValueError(
            f"{path} is not a safetensors file, or is damaged: {one_line(error)}"
        ) from None
    version = version_of(kind, metadata)
    if version is None:
        raise ValueError(f"{path} is no {kind} that funcnet saved")
    check_version(kind, version, path)
    whole = version > _WITHOUT_FACTS.get(kind, 0)
    said = _said(metadata) if whole else metadata.get("preprocess", "")
    encoding = metadata.get("encoding", "")
    sound = whole or not encoding or metadata.get("encoding_sha256") == _sha256(encoding)
    if metadata.get("sha256") != _digest(said, tensors) or not sound:
        raise ValueError(f"{path} is damaged: its checksum does not match")
    leaves: dict[str, Any] = dict(tensors)
    notes = parse_json(metadata.get("leaves", "{}"), path)
    try:
        for name, note in notes.items():
            leaves[name] = _restored(tensors[name], note)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{path} is damaged, or of a newer JAX: its leaves: {one_line(error)}"
        ) from None
    return lift(kind, version, leaves, path), metadata


def _array(view: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])


def tree_leaves(trees: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested dicts by path, as `nest` makes dicts of them again.

    Raises:
      ValueError: a key is no string, or has a "/".
    """
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(trees)[0]:
        name, keys = path_name(path), [getattr(key, "key", None) for key in path]
        if not all(isinstance(key, str) and "/" not in key for key in keys):
            raise ValueError(f"keys must be strings without '/', got the path {name}")
        found[name] = leaf
    return found


def nest(leaves: Mapping[str, Any]) -> FrozenDict:
    """The nested dicts whose leaves `load_tensors` gives by path.

    Arrays are JAX arrays; those of 64 bits, which JAX would round unless x64 is enabled, stay NumPy
    arrays, read-only.

    Raises:
      ValueError: a leaf is in the place of a dict, or within more of them than trees have.
    """
    nested: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        place = nested
        for parent in parents if len(parents) <= DEPTH else ():
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or last in place or len(parents) > DEPTH:
            raise ValueError(f"there can be no leaf {checks.cut(name)}")
        place[last] = leaf
    return _frozen(nested)


def _frozen(tree: Any) -> Any:
    if isinstance(tree, dict):
        return FrozenDict.shallow({key: _frozen(value) for key, value in tree.items()})
    return as_leaf(tree)


def as_leaf(leaf: Any) -> Any:
    """A leaf as JAX has it, or as it is where JAX would change it."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    held = jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype and leaf.dtype.isnative
    return freeze(leaf) if held else leaf


def _said(metadata: Mapping[str, str]) -> str:
    """All metadata but the checksum, as one text."""
    return json.dumps({k: v for k, v in metadata.items() if k != "sha256"}, sort_keys=True)


def _digest(said: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{said}\n".encode())
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
