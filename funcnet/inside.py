"""What goes on inside a network in training: outputs of its layers, gradients, updates.

Looking changes nothing: all of it is computed of parameters that are given, beside the run.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.activations import ACTIVATIONS
from funcnet.inputs import fit_preprocess
from funcnet.layer import Layer
from funcnet.losses import softmax_loss
from funcnet.net import composition
from funcnet.objective import loss_and_grads
from funcnet.optimizer import Optimizer
from funcnet.preprocess import Preprocess, subtract_mean
from funcnet.tree import LossFn, Tree, named_leaves

__all__ = ["LayerRecorder", "LayerStatistics", "layer_statistics"]

FLAT = 0.01  # an activation is saturated where its derivative is less, in size


class LayerStatistics(NamedTuple):
    """What `layer_statistics` says of the layers of a network and of its parameters.

    Attributes:
      loss: the loss of the batch.
      layers: the path of each layer, such as "affine1" or "residual1/relu1", in their order.
      mean, std: [L], of all outputs of a layer on the batch.
      zeros: [L], the share of outputs that are 0.
      saturated: [L], the share of the outputs of an activation where it is flat, its derivative
        less than 0.01 in size: dead units of ReLU, the ends of tanh; NaN of other layers.
      leaves: the path of each parameter, such as "affine1/w".
      gradient: [P], the Euclidean norm of its gradient, regularisation included.
      weight: [P], its own norm.
      update: [P], the norm of the update that the optimizer would make now; NaN without one.
    Example:
      >>> net, x, y = fn.mlp([4], 2), np.ones((5, 3), "f"), np.array([0, 1, 1, 0, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> seen = fn.layer_statistics(net, params, state, x, y)
      >>> seen.layers, seen.mean.shape
      (('affine1', 'relu1', 'affine2'), (3,))
      >>> seen.leaves, seen.gradient.shape, bool(np.isnan(seen.update).all())
      (('affine1/b', 'affine1/w', 'affine2/b', 'affine2/w'), (4,), True)
    """

    loss: float
    layers: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    zeros: np.ndarray
    saturated: np.ndarray
    leaves: tuple[str, ...]
    gradient: np.ndarray
    weight: np.ndarray
    update: np.ndarray

    @property
    def update_ratio(self) -> np.ndarray:
        """[P], update by weight; about 1e-3 is usual in training; NaN of a weight of 0."""
        return np.divide(
            self.update, self.weight, out=np.full(len(self.weight), np.nan), where=self.weight > 0
        )


def layer_statistics(
    net: Layer,
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    *,
    reg: Any = 0.0,
    key: Any = None,
    train: bool = True,
    loss_fn: LossFn = softmax_loss,
    optimizer: Optimizer | None = None,
    opt_state: Any = None,
) -> LayerStatistics:
    """What each layer of a network gives on a batch, and how its parameters are moved by it.

    A network of `serial` and `residual`, and so of `mlp`, is looked at layer by layer; any other,
    such as `ensemble`, is one layer.

    Args:
      net, params, state: the network, its parameters and its state.
      x: [N, ...] inputs, as preprocessed.
      y: [N] labels, or what else loss_fn takes.
      reg, key, train, loss_fn: as for `loss_and_grads`; dropout in training wants a key.
      optimizer, opt_state: for the update, an `Optimizer` and its state; None is no update.
    Returns:
      The LayerStatistics, of NumPy arrays.
    Raises:
      ValueError: an optimizer is given without its state, or as for `loss_and_grads`.
    Example:
      >>> net, x, y = fn.mlp([4], 2), np.ones((5, 3), "f"), np.array([0, 1, 1, 0, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (3,))
      >>> seen = fn.layer_statistics(net, params, state, 0 * x, y)
      >>> seen.layers, seen.zeros.tolist()
      (('affine1', 'relu1', 'affine2'), [1.0, 1.0, 1.0])
    """
    if (optimizer is None) != (opt_state is None):
        raise ValueError("give both optimizer and opt_state, for the updates, or neither")
    options = {"train": bool(train), "loss_fn": loss_fn, "optimizer": optimizer}
    found = _measured(params, state, x, y, reg, key, opt_state, net=net, **options)
    loss, of_layers, norms = jax.tree.map(partial(np.asarray, dtype=np.float64), found)
    mean, std, zeros, saturated = of_layers.reshape(-1, 4).T
    gradient, weight, update = norms.reshape(-1, 3).T
    names = tuple(name for name, _ in _leaves_of(net, ""))
    of_params = tuple(named_leaves(params)), gradient, weight, update
    return LayerStatistics(float(loss), names, mean, std, zeros, saturated, *of_params)


@partial(jax.jit, static_argnames=("net", "train", "loss_fn", "optimizer"))
def _measured(
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    reg: Any,
    key: Any,
    opt_state: Any,
    *,
    net: Layer,
    train: bool,
    loss_fn: LossFn,
    optimizer: Optimizer | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss, [L, 4] of layers and [P, 3] of parameters."""
    seen: list[jax.Array] = []
    watched = _watched(net, seen.append)
    options: dict[str, Any] = {"reg": reg, "key": key, "train": train, "loss_fn": loss_fn}
    loss, grads, _ = loss_and_grads(watched, params, state, x, y, **options)
    updates = None if optimizer is None else optimizer.update(grads, opt_state, params)[0]
    trees = (grads, params, updates)
    norms = [_norms(params if tree is None else tree) for tree in trees]
    if updates is None:
        norms[-1] = jnp.full_like(norms[-1], jnp.nan)
    return loss, jnp.stack(seen), jnp.stack(norms, axis=-1)


def _norms(tree: Tree) -> jax.Array:
    """[P], the Euclidean norm of each leaf."""
    leaves = [jnp.asarray(leaf, jnp.float32) for leaf in named_leaves(tree).values()]
    return jnp.array([jnp.linalg.norm(jnp.ravel(leaf)) for leaf in leaves])


def _leaves_of(net: Layer, path: str) -> list[tuple[str, Layer]]:
    """The layers that a network consists of, by path, in the order of the forward pass."""
    found = composition(net)
    if found is None:
        return [(path.removesuffix("/") or net.kind, net)]
    return [each for name, child in found[1] for each in _leaves_of(child, f"{path}{name}/")]


def _watched(net: Layer, see: Callable[[jax.Array], None]) -> Layer:
    """The same network, which tells what its layers give in the forward pass, in their order."""
    if found := composition(net):
        made, children = found
        return made(*(_watched(child, see) for _, child in children))._replace(kind=net.kind)

    def forward(params: Tree, state: Tree, x: Any, **options: Any) -> Any:
        out, cache, state = net.forward(params, state, x, **options)
        see(_statistics(net, out, cache))
        return out, cache, state

    return net._replace(forward=forward)


def _statistics(layer: Layer, out: jax.Array, cache: Any) -> jax.Array:
    """mean, std, zeros and saturated of what a layer gives."""
    wide = out.astype(jnp.float32)
    saturated: Any = jnp.nan
    if layer.kind in ACTIVATIONS:  # elementwise: its gradient of ones is its derivative
        slope, _ = layer.backward(jnp.ones_like(out), cache)
        saturated = (jnp.abs(slope) < FLAT).mean()
    return jnp.stack([wide.mean(), wide.std(), (out == 0).mean(), jnp.asarray(saturated)])


class LayerRecorder:
    """A callback of `fit` that keeps what goes on inside a network, after every epoch.

        record = fn.LayerRecorder(net, digits.x_train[:500], digits.y_train[:500])
        fn.fit(net, optimizer, digits, ..., callback=record)
        fn.plot_activations(record).savefig("activations.png")

    It looks at the same batch each time, and changes nothing of the run.

    Args:
      net: the network that is trained.
      x: [N, ...] raw inputs, some hundred examples.
      y: [N] labels, or what else loss_fn takes: of regression as they are standardized.
      preprocess: as for `fit`. A function is fitted to x here; what is fitted to the training
        data, `fn.subtract_mean(dataset.x_train)`, is to the digit what the run uses.
      optimizer: that of the run, for the updates of a step; None is none.
      options: reg, key, train and loss_fn, as for `layer_statistics`; key is
        `jax.random.key(0)` by default.
    Attributes:
      epochs: the number of epochs after which it has looked.
      rows: the LayerStatistics of each.
      changes: [P] each, how much the parameters have changed since it looked before, by the norm
        of what they were; NaN the first time.
    Raises:
      ValueError: x and y are not equally many.
    Example:
      >>> net, digits = fn.mlp([8], num_classes=10), fn.load_digits()
      >>> record = fn.LayerRecorder(net, digits.x_train[:200], digits.y_train[:200])
      >>> options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 50}
      >>> result = fn.fit(net, fn.adam(1e-3), digits, callback=record, **options)
      >>> record.epochs, record.rows[0].layers
      ([0, 1, 2], ('affine1', 'relu1', 'affine2'))
    """

    epochs: list[int]
    rows: list[LayerStatistics]
    changes: list[np.ndarray]

    def __init__(
        self,
        net: Layer,
        x: Any,
        y: Any,
        *,
        preprocess: Preprocess | Callable[[Any], Preprocess] | None = subtract_mean,
        optimizer: Optimizer | None = None,
        **options: Any,
    ) -> None:
        self.net, self.optimizer = net, optimizer
        x = checks.inputs(x)
        if len(x) != len(y):
            raise ValueError(f"x has {len(x):,} examples, y {len(y):,}")
        self.x = np.asarray(fit_preprocess(preprocess, x)(x))
        self.y = np.asarray(y)
        self.options = {"key": jax.random.key(0), **options}
        self.epochs, self.rows, self.changes = [], [], []
        self._before: dict[str, np.ndarray] = {}

    def __call__(self, epoch: int, train_state: Any, metrics: Any) -> None:
        """Look at the state of a run; what `fit` calls."""
        options = dict(self.options)
        if self.optimizer is not None:
            options |= {"optimizer": self.optimizer, "opt_state": train_state.opt_state}
        params, state = train_state.params, train_state.state
        row = layer_statistics(self.net, params, state, self.x, self.y, **options)
        now = {name: np.asarray(leaf, np.float64) for name, leaf in named_leaves(params).items()}
        change = [_change(self._before.get(name), leaf) for name, leaf in now.items()]
        self.epochs.append(int(epoch))
        self.rows.append(row)
        self.changes.append(np.array(change))
        self._before = now


def _change(before: np.ndarray | None, now: np.ndarray) -> float:
    if before is None:
        return np.nan
    size = float(np.linalg.norm(before))
    return float(np.linalg.norm(now - before)) / size if size > 0 else np.nan
