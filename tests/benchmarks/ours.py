"""funcnet through its public `fit`; and the same nets in it with their gradients by autodiff."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import funcnet as fn
from funcnet.loop import Orders

from .problem import Peer, Problem


class Funcnet(Peer):
    """Trainings by `fit`, each of which goes on from the one before.

    Time is that of the callbacks, from the one before the first epoch to the one after the last.
    """

    def __init__(
        self,
        problem: Problem,
        net: fn.Layer,
        dataset: fn.Dataset,
        preprocess: fn.Preprocess | None,
        key: jax.Array,
    ) -> None:
        super().__init__(problem)
        self.net, self.dataset, self.preprocess, self.key = net, dataset, preprocess, key
        self.optimizer = fn.adam(problem.learning_rate)
        self.train_state: fn.TrainState | None = None

    def fit(self, epochs: int, callback: Callable[..., None] | None = None) -> fn.FitResult:
        """So many epochs more."""
        state = self.train_state
        started = {"key": self.key} if state is None else {"train_state": state}
        result = fn.fit(
            self.net,
            self.optimizer,
            self.dataset,
            epochs=epochs if state is None else int(state.epoch) + epochs,
            batch_size=self.problem.batch_size,
            preprocess=self.preprocess,
            eval_every=None,
            callback=callback,
            **started,
        )
        self.train_state = result.state
        return result

    def losses(self, steps: int) -> np.ndarray:
        """The losses of the first steps."""
        epochs = math.ceil(steps * self.problem.batch_size / len(self.problem.x))
        return self.fit(epochs).history.loss[:steps]

    def epochs(self, count: int) -> float:
        """Train so many epochs more. Returns the seconds that one took."""
        clock: list[float] = []

        def callback(epoch: int, train_state: fn.TrainState, metrics: dict[str, Any]) -> None:
            jax.block_until_ready((train_state.params, train_state.opt_state))
            clock.append(time.perf_counter())

        self.fit(count, callback)
        return (clock[-1] - clock[0]) / count


def by_autodiff(net: fn.Layer) -> fn.Layer:
    """The net with the backward pass that `jax.vjp` makes of its forward pass."""

    def forward(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = True) -> Any:
        def apply(params: Any, x: Any) -> Any:
            out, _, new_state = net.forward(params, state, x, key=key, train=train)
            return out, new_state

        out, vjp, state = jax.vjp(apply, params, x, has_aux=True)
        return out, vjp, state

    def backward(dout: Any, vjp: Any) -> Any:
        grads, dx = vjp(dout)
        return dx, grads

    return fn.Layer(f"autodiff_{net.kind}", net.init, forward, backward)


def make_problem(
    net: fn.Layer,
    dataset: fn.Dataset,
    preprocess: fn.Preprocess | None,
    key: jax.Array,
    *,
    normalization: str | None,
    keep_prob: float | None,
    batch_size: int,
    learning_rate: float,
    steps: int,
) -> Problem:
    """What `fit` does with these, for others: its first parameters, its batches for `steps`."""
    x = dataset.x_train if preprocess is None else np.asarray(preprocess(dataset.x_train))
    flat = np.array(x.reshape(len(x), -1), np.float32)
    state = fn.init_train_state(net, fn.adam(learning_rate), x.shape[1:], key=key)
    params = jax.tree.map(np.asarray, state.params)
    count = sum(name.startswith("affine") for name in params)
    layers = tuple(
        {
            name: np.array(params[part][name])  # PyTorch wants arrays that may be written to
            for part, names in ((f"affine{i}", "w b"), (f"{normalization}{i}", "gamma beta"))
            for name in names.split()
            if part in params
        }
        for i in range(1, count + 1)
    )
    epochs = math.ceil(steps * batch_size / len(x))
    orders = np.stack([*map(Orders(state.key, len(x)).of, range(epochs))])
    y, settings = np.array(dataset.y_train), (normalization, keep_prob, batch_size, learning_rate)
    return Problem(flat, y, layers, *settings, orders)
