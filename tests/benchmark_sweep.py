"""The speed of sweeps, side by side with PyTorch in one run: python tests/benchmark_sweep.py

Needs CIFAR-10 and the extra `bench`. Nothing else should run meanwhile.
"""

import itertools
import time

import jax
import numpy as np

import funcnet as fn

HIDDEN, BATCH = [100] * 5, 200


def experiment(learning_rate, weight_scale):
    return fn.mlp(HIDDEN, 10, weight_scale=weight_scale), fn.adam(learning_rate)


def torch_epoch(data):
    """A function that trains so many of the nets for an epoch each, one after another."""
    import torch

    x = data.x_train.reshape(len(data.x_train), -1).astype(np.float32)
    x, y = torch.tensor(x - x.mean(axis=0)), torch.tensor(data.y_train.astype(np.int64))
    dims = [x.shape[1], *HIDDEN]
    layers = []
    for fan_in, fan_out in itertools.pairwise(dims):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(dims[-1], 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def epochs(count):
        for _ in range(count):
            for batch in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()

    epochs(1)
    return epochs


def seconds(action, *arguments):
    before = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - before


def nine_members_and_pytorch():
    """An epoch of the assignment's nine settings, in turn with as many epochs of PyTorch."""
    data = fn.load_cifar10()
    theirs = torch_epoch(data)
    settings = fn.grid(learning_rate=[1e-3, 2e-3, 3e-4], weight_scale=[2e-2, 5e-2, 6e-2])
    ours, peer, done_before, last = [], [], 0, time.perf_counter()

    def callback(done, total, members):
        nonlocal done_before, last
        count, elapsed = done - done_before, time.perf_counter() - last
        if done_before:  # the first one compiles
            ours.append(elapsed / count)
            peer.append(seconds(theirs, count) / count)
        done_before, last = done, time.perf_counter()

    options = {"key": jax.random.key(0), "epochs": 4, "batch_size": BATCH, "eval_every": None}
    fn.sweep(experiment, data, settings, callback=callback, **options)
    a, b = 9 * np.median(ours), 9 * np.median(peer)
    ratios = np.divide(ours, peer)
    print(f"nine CIFAR-10 nets, an epoch: {a:.2f} s; PyTorch, one after another: {b:.2f} s")
    print(f"ratio {a / b:.2f}; of single chunks {ratios.min():.2f} to {ratios.max():.2f}")


def nine_members_and_one():
    """On a GPU: an epoch of nine members in one chunk, and of one."""
    data = fn.load_cifar10()
    times = {}
    for count in (1, 9):
        settings = fn.grid(learning_rate=list(np.geomspace(3e-4, 2e-3, count)), weight_scale=[5e-2])
        ends = []
        options = {"key": jax.random.key(0), "epochs": 6, "batch_size": BATCH, "eval_every": None}
        fn.sweep(
            experiment,
            data,
            settings,
            chunk_size=count,
            callback=lambda *_, ends=ends: ends.append(time.perf_counter()),
            **options,
        )
        times[count] = np.median(np.diff(ends)[1:])
    print(
        f"an epoch of one member {times[1]:.3f} s, of nine {times[9]:.3f} s: "
        f"{times[9] / times[1]:.2f} times"
    )


def a_thousand_members():
    """1,000 seeds of 64-100-10 on the digits, 20 epochs, from the call to the result."""
    digits = fn.load_digits()

    def small(learning_rate):
        return fn.mlp([100], 10), fn.adam(learning_rate), {"preprocess": fn.standardize}

    settings = fn.grid(learning_rate=[3e-3], seed=range(1000))
    before = time.perf_counter()
    result = fn.sweep(small, digits, settings, epochs=20, batch_size=100)
    elapsed = time.perf_counter() - before
    accuracies = [
        fn.evaluate(member.best, digits.x_test, digits.y_test).accuracy for member in result.members
    ]
    print(
        f"1,000 digits nets, 20 epochs: {elapsed:.1f} s, compiling included; "
        f"median test accuracy {100 * np.median(accuracies):.2f} %"
    )


if __name__ == "__main__":
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}")
    a_thousand_members()
    nine_members_and_pytorch()
    if jax.default_backend() != "cpu":
        nine_members_and_one()
