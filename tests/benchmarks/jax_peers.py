"""The net in plain JAX, as one writes it with `jax.grad`: a loop of steps, and a scan over them."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .problem import BETA1, BETA2, EPS, EPSILON, MOMENTUM, Peer, Problem

Params = list[tuple[jax.Array, ...]]  # of each layer w [in, out], b, and gamma, beta


def forward(params: Params, running: Any, x: Any, key: Any, problem: Problem) -> tuple[Any, Any]:
    """The scores in training, and the running statistics of batch norm after it."""
    followed = []
    for i, (w, b, *norm) in enumerate(params[:-1]):
        x = x @ w + b
        if norm:
            axis = 0 if problem.normalization == "batchnorm" else 1
            mean, var = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
            x = (x - mean) / jnp.sqrt(var + EPS) * norm[0] + norm[1]
            if axis == 0:
                pairs = zip(running[i], (mean[0], var[0]), strict=True)
                followed.append(tuple(MOMENTUM * old + (1 - MOMENTUM) * new for old, new in pairs))
        x = jax.nn.relu(x)
        if problem.keep_prob is not None:
            mask = jax.random.bernoulli(jax.random.fold_in(key, i), problem.keep_prob, x.shape)
            x = jnp.where(mask, x / problem.keep_prob, 0)
    w, b = params[-1]
    return x @ w + b, followed


def step(state: Any, x: Any, y: Any, problem: Problem) -> tuple[Any, jax.Array]:
    """One update by Adam. Returns the state after it and the loss before it."""
    params, running, m, v, t, key = state
    key, layer_key = jax.random.split(key)

    def loss_of(params: Params) -> tuple[jax.Array, Any]:
        scores, followed = forward(params, running, x, layer_key, problem)
        log_probs = jax.nn.log_softmax(scores)
        return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean(), followed

    (loss, running), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
    # 1 - beta**t, to all digits: in float32 1 - 0.999 has four.
    m_scale = problem.learning_rate / -jnp.expm1(t * math.log(BETA1))
    v_scale = 1 / -jnp.expm1(t * math.log(BETA2))
    params = jax.tree.map(
        lambda p, m, v: p - m_scale * m / (jnp.sqrt(v_scale * v) + EPSILON), params, m, v
    )
    return (params, running, m, v, t, key), loss


class JaxPeer(Peer):
    """What the loop and the scan share: data and state on the device."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.x, self.y = jnp.asarray(problem.x), jnp.asarray(problem.y)
        params = [tuple(map(jnp.array, layer.values())) for layer in problem.layers]
        running = []
        if problem.normalization == "batchnorm":
            widths = [w.shape[1] for w, *_ in params[:-1]]
            running = [(jnp.zeros(width), jnp.ones(width)) for width in widths]
        m, v = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        self.state = (params, running, m, v, jnp.zeros(()), jax.random.key(0))

    def wait(self) -> None:
        """Until the last step has ended."""
        jax.block_until_ready(self.state)


class JaxLoop(JaxPeer):
    """A compiled step with a donated state, in a Python loop over batches."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)

        @partial(jax.jit, donate_argnums=0)
        def compiled(state: Any, x: Any, y: Any, batch: Any) -> tuple[Any, jax.Array]:
            return step(state, x[batch], y[batch], problem)

        self.compiled = compiled

    def train(self, order: Any) -> Any:
        """A pass; the losses are fetched at its end."""
        found = []
        for batch in np.split(np.asarray(order, np.int32), len(order) // self.problem.batch_size):
            self.state, loss = self.compiled(self.state, self.x, self.y, batch)
            found.append(loss)
        return jax.device_get(found)


class JaxScan(JaxPeer):
    """The epoch as one compiled program, its order with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)

        @partial(jax.jit, donate_argnums=0)
        def compiled(state: Any, x: Any, y: Any, order: Any) -> tuple[Any, jax.Array]:
            def one(state: Any, batch: Any) -> tuple[Any, jax.Array]:
                return step(state, x[batch], y[batch], problem)

            return jax.lax.scan(one, state, order.reshape(-1, problem.batch_size))

        self.compiled = compiled
        self.permutation = jax.jit(lambda key: jax.random.permutation(key, len(problem.x)))
        self.count = 0

    def order(self) -> Any:
        """A new order, on the device."""
        self.count += 1
        return self.permutation(jax.random.key(self.count))

    def train(self, order: Any) -> Any:
        """A pass; the losses are fetched at its end."""
        self.state, found = self.compiled(self.state, self.x, self.y, jnp.asarray(order))
        return jax.device_get(found)
