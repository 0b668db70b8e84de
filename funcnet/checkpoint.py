"""Models and states of training on disk, in files of `funcnet.tensors`."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from funcnet import targets
from funcnet.datasets.encoding import Encoding, from_json
from funcnet.datasets.notes import naming_file
from funcnet.files import parse_json
from funcnet.layer import Layer
from funcnet.model import Model
from funcnet.preprocess import Preprocess, check_preprocess
from funcnet.step import TrainState
from funcnet.targets import Targets
from funcnet.tensors import as_leaf, load_tensors, nest, save_tensors, tree_leaves
from funcnet.text import visible
from funcnet.tree import FrozenDict, path_name

__all__ = ["load_model", "load_state", "save_model", "save_state"]


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write the parameters, the state, the preprocessing, the encoding and the targets of a model.

    The network itself, which is code, is not written: `load_model` wants it again.

    Args:
      path: the file to write, *.safetensors; an older one is replaced as a whole.
      model: the model; its trees are nested dicts, their keys strings without "/".
    Raises:
      ValueError: a tree is another one.
      OSError: the file cannot be written; an older one is left as it was.
      TypeError: a leaf cannot be saved; it is named by its path.
      ImportError: safetensors is not installed.
    Example:
      >>> net = fn.mlp([4], 2)
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> model = fn.Model(net, params, state, fn.no_preprocess(None))
      >>> fn.save_model("model.safetensors", model)
      >>> fn.load_model("model.safetensors", net).params == params
      True
    """
    trees = {"params": model.params, "state": model.state, "preprocess": model.preprocess.stats}
    encoding = "" if model.encoding is None else json.dumps(model.encoding.as_json())
    save_tensors(
        path,
        tree_leaves(trees),
        kind="model",
        preprocess=model.preprocess.kind,
        encoding=encoding,
        targets=json.dumps(model.targets.as_json()),
    )


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
    Example:
      >>> net = fn.mlp([4], 2)
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> model = fn.Model(net, params, state, fn.no_preprocess(None))
      >>> fn.save_model("model.safetensors", model)
      >>> fn.load_model("model.safetensors", net).params == params
      True
    """
    leaves, metadata = load_tensors(path, kind="model")
    with naming_file(f"{path}"):
        trees = nest(leaves)
        params, state, stats = (
            trees.get(k, FrozenDict()) for k in ("params", "state", "preprocess")
        )
        if not all(isinstance(tree, FrozenDict) for tree in (params, state, stats)):
            raise ValueError("params, state and preprocess are not all trees")
        preprocess = Preprocess(metadata.get("preprocess", ""), stats)
        check_preprocess(preprocess)
    encoding, what = _encoding(path, metadata), _targets(path, metadata)
    return Model(net, params, state, preprocess, encoding=encoding, targets=what)


def _targets(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Targets:
    text = metadata.get("targets", "")
    if not text:
        return Targets()  # models were of classes alone
    content = parse_json(text, path)
    try:
        return targets.from_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _encoding(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Encoding | None:
    text = metadata.get("encoding", "")
    if not text:
        return None
    content = parse_json(text, path)
    try:
        return from_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: the encoding of its table: {error}") from None


def save_state(path: str | os.PathLike[str], train_state: TrainState) -> None:
    """Write a TrainState: all that training goes on from, to the same bits.

    Leaves may be arrays of every dtype of JAX and NumPy's numbers in both byte orders, random
    keys and numbers of Python, in trees of any kind.

    Args:
      path: the file to write, *.safetensors; an older one is replaced as a whole.
      train_state: the TrainState.
    Raises:
      OSError: the file cannot be written; an older one is left as it was.
      ValueError, TypeError: a leaf cannot be saved; it is named by its path.
      ImportError: safetensors is not installed.
    Example:
      >>> net, optimizer = fn.mlp([4], 2), fn.adam(1e-3)
      >>> train_state = fn.init_train_state(net, optimizer, (3,), key=jax.random.key(0))
      >>> fn.save_state("state.safetensors", train_state)
      >>> like = fn.init_train_state(net, optimizer, (3,), key=jax.random.key(1))
      >>> fn.load_state("state.safetensors", like).params == train_state.params
      True
    """
    save_tensors(path, path_leaves(train_state), kind="state")


def load_state(path: str | os.PathLike[str], like: TrainState) -> TrainState:
    """Read a TrainState that `save_state` wrote.

    Args:
      path: the file.
      like: a TrainState of the same net and optimizer, of which the values do not matter:
        `init_train_state(net, optimizer, in_shape, key=key)`, or what `jax.eval_shape` gives of it.
    Returns:
      The TrainState; its leaves are JAX arrays, or NumPy arrays where JAX would round them.
    Raises:
      ValueError: the file is not of this kind, is damaged or truncated, or has other leaves,
        shapes or dtypes than `like`: they are named.
      OSError: it cannot be read.
      ImportError: safetensors is not installed.
    Example:
      >>> net, optimizer = fn.mlp([4], 2), fn.adam(1e-3)
      >>> train_state = fn.init_train_state(net, optimizer, (3,), key=jax.random.key(0))
      >>> fn.save_state("state.safetensors", train_state)
      >>> like = fn.init_train_state(net, optimizer, (3,), key=jax.random.key(1))
      >>> fn.load_state("state.safetensors", like).params == train_state.params
      True
    """
    leaves, _ = load_tensors(path, kind="state")
    return tree_like(leaves, like, path)


def path_leaves(tree: Any, within: str = "") -> dict[str, Any]:
    """The leaves of a tree of any kind by path, after `within` and a slash.

    Raises:
      ValueError: two leaves have the same path.
    """
    found: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = f"{within}/{path_name(keys)}" if within else path_name(keys)
        if name in found:
            raise ValueError(f"two leaves have the path {name}: name them apart to save them")
        found[name] = leaf
    return found


def tree_like(
    leaves: Mapping[str, Any],
    like: Any,
    where: object,
    within: str = "",
    *,
    convert: Callable[[Any], Any] = as_leaf,
) -> Any:
    """The tree that has these leaves by path, after `within` and a slash; others are passed over.

    Args:
      leaves: from `load_tensors`.
      like: a tree of the same structure, shapes and dtypes.
      where: where the leaves are from, for the error.
      within: what comes before the path.
      convert: what is made of each leaf.
    Raises:
      ValueError: the leaves are others; each difference is named.
    """
    start = f"{within}/" if within else ""
    wanted = path_leaves(like, within)
    found = {name: leaf for name, leaf in leaves.items() if name.startswith(start)}
    problems = [f"it lacks {name}" for name in wanted if name not in found]
    problems += [f"it has {name} besides" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        mine, theirs = _described(wanted[name]), _described(found[name])
        if mine != theirs:
            problems.append(f"{name} is {theirs} there and {mine} here")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        found_there = visible("; ".join(sorted(problems)[:3]))
        raise ValueError(f"{where} is of another net or optimizer: {found_there}{more}")
    ordered = [convert(found[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), ordered)


def _described(leaf: Any) -> str:
    if hasattr(leaf, "dtype"):
        return f"{leaf.dtype}{list(np.shape(leaf))}"
    return type(leaf).__name__
