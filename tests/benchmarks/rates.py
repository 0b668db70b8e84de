"""The rate of matrix products alone: of large square ones, a training's floor, and of a net's."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .measure import Row, Run, in_turn, installed, repeated

Sample = Callable[[], float]


def square_samples(run: Run, dtype: Any = jnp.float32) -> dict[str, Sample]:
    """Samples of FLOP/s of large square products, by JAX and by PyTorch."""
    sizes = (4096, 8192) if run.gpu else (1024, 2048)
    if run.quick:
        sizes = sizes[:1]
    samples = {}
    for n in sizes:
        times = max(1, round(run.least * (1e14 if run.gpu else 5e10) / (2 * n**3)))
        flop = 2.0 * n**3 * times
        actions = {f"matmul, JAX, {n}": _jax_chain(n, times, dtype)}
        if installed("torch") and dtype == jnp.float32:
            from . import torch_peers

            chain = torch_peers.matmul_chain(torch_peers.set_up(), n, times)
            actions[f"matmul, PyTorch, {n}"] = chain
        for name, action in actions.items():
            timed = repeated(action, 0)
            samples[name] = partial(_rate, timed, flop)
    return samples


def _rate(sample: Sample, flop: float) -> float:
    return flop / sample()


def _jax_chain(n: int, times: int, dtype: Any) -> Callable[[], Any]:
    a, b = (jax.random.normal(key, (n, n)) for key in jax.random.split(jax.random.key(0)))
    a, b = (a / n**0.5).astype(dtype), b.astype(dtype)
    multiply = jax.jit(lambda a, b: jax.lax.fori_loop(0, times, lambda _, b: a @ b, b))
    return lambda: jax.block_until_ready(multiply(a, b))


def layer_rows(run: Run, shapes: Sequence[tuple[int, int, int]]) -> list[Row]:
    """FLOP/s of x w, x^T d and d w^T at the shapes of a net's layers, one row an implementation."""
    rows = []
    for shape in dict.fromkeys(shapes):
        n, d, m = shape
        flop = 6.0 * n * d * m
        times = max(1, round(run.least / 4 * (5e13 if run.gpu else 5e10) / flop))
        actions: dict[str, Sample] = {"JAX": repeated(_jax_products(shape, times), 0)}
        if installed("torch"):
            from . import torch_peers

            products = torch_peers.layer_products(torch_peers.set_up(), shape, times)
            actions["PyTorch"] = repeated(products, 0)
        samples = in_turn(actions, run.rounds)
        names = {who: f"products of {n} x {d} x {m}, {who}" for who in actions}
        for who, taken in samples.items():
            rates = [flop * times / each for each in taken]
            rows.append(Row(names[who], rates, "FLOP/s", base=names["JAX"]))
    return rows


def _jax_products(shape: tuple[int, int, int], times: int) -> Callable[[], Any]:
    """Each on the result of the one before, so that none can be left out of the loop."""
    n, d, m = shape
    x, w = (jax.random.normal(jax.random.key(i), size) for i, size in enumerate([(n, d), (d, m)]))
    w = w / max(d, m) ** 0.5

    @jax.jit
    def multiply(x: Any, w: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            x, _ = carry
            out = x @ w
            return out @ w.T, x.T @ out

        return jax.lax.fori_loop(0, times, body, (x, jnp.zeros_like(w)))

    return lambda: jax.block_until_ready(multiply(x, w))
