"""The net in NumPy, forward, backward and Adam by hand; and scikit-learn's MLPClassifier."""

import os
from typing import Any

import numpy as np

from .problem import BETA1, BETA2, EPS, EPSILON, MOMENTUM, Peer, Problem

try:
    import threadpoolctl  # comes with scikit-learn
except ImportError:
    threadpoolctl = None


class BlasPeer(Peer):
    """What leaves its matrix products to a BLAS library, whose threads may be chosen."""

    threads: int | None = None

    def epochs(self, count: int) -> float:
        """Train so many epochs more, with its own number of threads."""
        if self.threads is None:
            return super().epochs(count)
        with threadpoolctl.threadpool_limits(self.threads, user_api="blas"):
            return super().epochs(count)

    def tune(self) -> str:
        """As many threads as cores, or one: small nets may be faster without any waiting."""
        if threadpoolctl is None:
            return ""
        taken = {}
        for threads in dict.fromkeys((os.cpu_count() or 1, 1)):
            self.threads = threads
            self.epochs(1)
            taken[threads] = self.epochs(1)
        self.threads = min(taken, key=lambda threads: taken[threads])
        return f"; threads: {self.threads}"


class NumpyPeer(BlasPeer):
    """Arrays and formulas."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.layers = [{k: v.copy() for k, v in layer.items()} for layer in problem.layers]
        self.m, self.v = (
            [{name: np.zeros_like(value) for name, value in layer.items()} for layer in self.layers]
            for _ in range(2)
        )
        self.running = [[np.zeros_like(la["b"]), np.ones_like(la["b"])] for la in self.layers]
        self.t = 0
        self.axis = 0 if problem.normalization == "batchnorm" else 1

    def train(self, order: Any) -> Any:
        """A pass."""
        batches = np.split(order, len(order) // self.problem.batch_size)
        return [self.step(self.problem.x[batch], self.problem.y[batch]) for batch in batches]

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """One update. Returns the loss before it."""
        scores, caches = self.forward(x)
        scores -= scores.max(axis=1, keepdims=True)
        probs = np.exp(scores)
        probs /= probs.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        loss = -np.log(probs[rows, y]).mean()
        probs[rows, y] -= 1
        self.update(self.backward(probs / np.float32(len(y)), caches))
        return float(loss)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """The scores, and what the backward pass needs of each layer."""
        caches: list[Any] = []
        for i, layer in enumerate(self.layers):
            out, norm, mask = x @ layer["w"] + layer["b"], None, None
            if i < len(self.layers) - 1:
                if "gamma" in layer:
                    out, norm = self.normalize(i, out)
                mask = (out > 0).astype(np.float32)
                if self.problem.keep_prob is not None:
                    kept = self.rng.random(out.shape, np.float32) < self.problem.keep_prob
                    mask *= kept / np.float32(self.problem.keep_prob)
                out *= mask
            caches.append((x, norm, mask))
            x = out
        return x, caches

    def normalize(self, i: int, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """Batch or layer norm, and what its backward pass needs."""
        mean, var = x.mean(self.axis, keepdims=True), x.var(self.axis, keepdims=True)
        if self.axis == 0:
            for old, new in zip(self.running[i], (mean[0], var[0]), strict=True):
                old *= MOMENTUM
                old += (1 - MOMENTUM) * new
        std = np.sqrt(var + np.float32(EPS))
        xhat = (x - mean) / std
        return self.layers[i]["gamma"] * xhat + self.layers[i]["beta"], (xhat, std)

    def backward(self, dout: np.ndarray, caches: list[Any]) -> list[dict[str, np.ndarray]]:
        """The gradients of each layer."""
        grads = []
        for i in reversed(range(len(self.layers))):
            (x, norm, mask), layer, found = caches[i], self.layers[i], {}
            if mask is not None:
                dout = dout * mask
            if norm is not None:
                xhat, std = norm
                found = {"gamma": (dout * xhat).sum(axis=0), "beta": dout.sum(axis=0)}
                dout = dout * layer["gamma"]
                centred = dout - dout.mean(self.axis, keepdims=True)
                dout = (centred - xhat * (dout * xhat).mean(self.axis, keepdims=True)) / std
            grads.append({"w": x.T @ dout, "b": dout.sum(axis=0), **found})
            if i:
                dout = dout @ layer["w"].T
        return grads[::-1]

    def update(self, grads: list[dict[str, np.ndarray]]) -> None:
        """Adam, in place."""
        self.t += 1
        rate = np.float32(self.problem.learning_rate / (1 - BETA1**self.t))
        fix = np.float32(1 / (1 - BETA2**self.t))
        for layer, m, v, grad in zip(self.layers, self.m, self.v, grads, strict=True):
            for name, g in grad.items():
                m[name] *= BETA1
                m[name] += (1 - BETA1) * g
                v[name] *= BETA2
                v[name] += (1 - BETA2) * g * g
                layer[name] -= rate * m[name] / (np.sqrt(v[name] * fix) + EPSILON)


class SklearnPeer(BlasPeer):
    """scikit-learn: an epoch is a `partial_fit` on everything, a step one on a batch."""

    def __init__(self, problem: Problem) -> None:
        from sklearn.neural_network import MLPClassifier

        super().__init__(problem)
        self.classes = np.arange(problem.num_classes)
        self.model = MLPClassifier(
            [layer["w"].shape[1] for layer in problem.layers[:-1]],
            alpha=0.0,
            batch_size=problem.batch_size,
            learning_rate_init=problem.learning_rate,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=EPSILON,
            random_state=0,
        )

    def losses(self, steps: int) -> np.ndarray:
        """The losses of the first steps, each a `partial_fit` on its batch."""
        self.fit(np.arange(self.problem.batch_size))  # it makes its own initial parameters
        for own, layer in zip(self.model.coefs_, self.problem.layers, strict=True):
            own[:] = layer["w"]
        for own, layer in zip(self.model.intercepts_, self.problem.layers, strict=True):
            own[:] = layer["b"]
        del self.model._optimizer  # it begins anew
        batches = self.problem.orders.reshape(-1, self.problem.batch_size)[:steps]
        return np.array([self.fit(batch) for batch in batches])

    def fit(self, rows: Any) -> float:
        """A step or an epoch. Returns its mean loss."""
        x, y = self.problem.x[rows], self.problem.y[rows]
        self.model.partial_fit(x, y, classes=self.classes)
        return self.model.loss_

    def order(self) -> Any:
        """All, in place: it shuffles by itself."""
        return slice(None)

    def train(self, order: Any) -> Any:
        """A pass."""
        return self.fit(order)
