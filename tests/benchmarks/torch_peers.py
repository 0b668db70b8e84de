"""The net in PyTorch, eager and compiled, with fused Adam and the data preloaded as float32."""

import itertools
import os
from typing import Any

import torch

from .problem import BETA1, BETA2, EPS, EPSILON, MOMENTUM, Peer, Problem

NORMALIZATIONS = {
    "batchnorm": lambda width: torch.nn.BatchNorm1d(width, eps=EPS, momentum=1 - MOMENTUM),
    "layernorm": lambda width: torch.nn.LayerNorm(width, eps=EPS),
}


def set_up() -> torch.device:
    """As many threads as cores; tiny numbers are 0, as in XLA: else a net that has learned is slow.

    On a GPU products are those of JAX's default, TensorFloat-32.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(os.cpu_count() or 1)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def make_net(problem: Problem) -> torch.nn.Sequential:
    """The net, with the initial parameters of the problem."""
    modules: list[torch.nn.Module] = []
    for i, layer in enumerate(problem.layers):
        linear = torch.nn.Linear(*layer["w"].shape)
        modules.append(linear)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer["w"].T.copy()))
            linear.bias.copy_(torch.from_numpy(layer["b"].copy()))
        if i == len(problem.layers) - 1:
            break
        if problem.normalization is not None:
            modules.append(NORMALIZATIONS[problem.normalization](layer["w"].shape[1]))
        modules.append(torch.nn.ReLU())
        if problem.keep_prob is not None:
            modules.append(torch.nn.Dropout(1 - problem.keep_prob))
    return torch.nn.Sequential(*modules)


class TorchEager(Peer):
    """Step by step, as its tutorials have it, with fused Adam."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.device = set_up()
        self.x = torch.from_numpy(problem.x).to(self.device)
        self.y = torch.from_numpy(problem.y).long().to(self.device)
        self.net = make_net(problem).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(),
            problem.learning_rate,
            betas=(BETA1, BETA2),
            eps=EPSILON,
            fused=True,
        )
        self.loss_of = self.forward
        self.threads = torch.get_num_threads()

    def forward(self, x: Any, y: Any) -> Any:
        """The loss of a batch."""
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def order(self) -> Any:
        """A new order, on the device."""
        return torch.randperm(len(self.x), device=self.device)

    def train(self, order: Any) -> Any:
        """A pass; the losses are fetched at its end."""
        found = []
        for batch in torch.as_tensor(order, device=self.device).split(self.problem.batch_size):
            self.optimizer.zero_grad()
            loss = self.loss_of(self.x[batch], self.y[batch])
            loss.backward()
            self.optimizer.step()
            found.append(loss.detach().clone())  # a CUDA graph writes over its outputs
        return torch.stack(found).cpu().numpy()

    def wait(self) -> None:
        """Until the last step has ended."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def epochs(self, count: int) -> float:
        """Train so many epochs more, with its own number of threads."""
        torch.set_num_threads(self.threads)
        return super().epochs(count)

    def tune(self) -> str:
        """As many threads as cores, or one: small nets may be faster without any waiting."""
        taken = {}
        for threads in dict.fromkeys((self.threads, 1)):
            self.threads = threads
            self.epochs(1)  # what is compiled is compiled for so many
            taken[threads] = self.epochs(1)
        self.threads = min(taken, key=lambda threads: taken[threads])
        return f"; threads: {self.threads}"


class TorchCompiled(TorchEager):
    """Forward and backward pass compiled, on a GPU as CUDA graphs; Adam is one fused kernel."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        torch._dynamo.reset()  # else the nets of earlier workloads count as recompilations
        self.loss_of = torch.compile(self.forward, mode=mode, dynamic=False)


def matmul_chain(device: torch.device, n: int, times: int) -> Any:
    """A function that multiplies square matrices so often, and waits."""
    a = torch.randn(n, n, device=device) / n**0.5
    buffers = torch.randn(n, n, device=device), torch.empty(n, n, device=device)

    def multiply() -> None:
        (source, target) = buffers
        for _ in range(times):
            torch.mm(a, source, out=target)
            source, target = target, source
        if device.type == "cuda":
            torch.cuda.synchronize()

    return multiply


def layer_products(device: torch.device, shape: tuple[int, int, int], times: int) -> Any:
    """A function that does x w, x^T d and d w^T so often, each on the result of the one before."""
    n, d, m = shape
    x, out = torch.randn(n, d, device=device), torch.empty(n, m, device=device)
    w, dw = torch.randn(d, m, device=device) / max(d, m) ** 0.5, torch.empty(d, m, device=device)

    def multiply() -> None:
        for _ in itertools.repeat(None, times):
            torch.mm(x, w, out=out)
            torch.mm(x.T, out, out=dw)
            torch.mm(out, w.T, out=x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return multiply
