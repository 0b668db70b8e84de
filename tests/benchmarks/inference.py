"""What a trained net takes: evaluation of CIFAR-10, one row at a time, a large input in pieces."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import funcnet as fn

from . import data
from .measure import Result, Row, Run, forget_peak, in_process, in_turn, installed, repeated

BATCH = 1000


def untrained(hidden_dims: list[int], dataset: fn.Dataset) -> fn.Model:
    """A model with its initial parameters."""
    net = fn.mlp(hidden_dims, 10)
    params, state, _ = net.init(jax.random.key(0), dataset.x_train.shape[1:])
    return fn.Model(net, params, state, fn.subtract_mean(dataset.x_train))


def bare(model: fn.Model) -> Callable[[Any], np.ndarray]:
    """The compiled forward pass alone, its parameters on the device."""
    stats = jax.tree.map(jax.numpy.asarray, model.preprocess)
    params, state = jax.device_put((model.params, model.state))

    @jax.jit
    def forward(params: Any, state: Any, preprocess: Any, x: Any) -> Any:
        x = preprocess(x).astype(jax.numpy.float32)
        return model.net.forward(params, state, x, key=None, train=False)[0]

    return lambda x: np.asarray(forward(params, state, stats, x))


def torch_model(model: fn.Model) -> Any:
    """The same net in PyTorch, and its device."""
    import torch

    from .torch_peers import set_up

    modules: list[Any] = []
    names = [name for name in model.params if name.startswith("affine")]
    for name in sorted(names, key=lambda name: int(name.removeprefix("affine"))):
        w, b = (np.array(model.params[name][each]) for each in ("w", "b"))
        linear = torch.nn.Linear(*w.shape)
        linear.load_state_dict({"weight": torch.tensor(w.T.copy()), "bias": torch.tensor(b)})
        modules += [linear, torch.nn.ReLU()]
    device = set_up()
    return torch.nn.Sequential(*modules[:-1]).eval().to(device), device


def evaluate(run: Run) -> Result:
    """The assignment's net on 50,000 images."""
    count = run.size(50_000, 5_000)
    dataset = data.cifar10(count)
    x, y = dataset.x_train, dataset.y_train
    if len(x) < count:  # those for validation are missing
        x, y = np.concatenate([x, dataset.x_val]), np.concatenate([y, dataset.y_val])
    model = untrained([100] * 5, dataset)
    actions: dict[str, Callable[[], Any]] = {"funcnet": lambda: fn.evaluate(model, x, y)}
    if installed("torch"):
        import torch

        net, device = torch_model(model)
        mean = torch.tensor(np.asarray(model.preprocess.stats["mean"], np.float32)).flatten()
        raw = torch.tensor(x.reshape(len(x), -1)).to(device)
        labels, mean = torch.tensor(y).long().to(device), mean.to(device)
        ready = raw.float() - mean

        def measure(pixels: Any, shift: Any) -> tuple[float, float]:
            total, right = 0.0, 0
            with torch.inference_mode():
                for part, targets in zip(pixels.split(BATCH), labels.split(BATCH), strict=True):
                    scores = net(part if shift is None else part.float() - shift)
                    loss = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
                    total += float(loss)
                    right += int((scores.argmax(1) == targets).sum())
            return total / len(pixels), right / len(pixels)

        actions["PyTorch, of uint8"] = lambda: measure(raw, mean)
        actions["PyTorch, of float32"] = lambda: measure(ready, None)
        ours, theirs = fn.evaluate(model, x, y), measure(raw, mean)
        if abs(ours.loss / theirs[0] - 1) > 1e-3:
            raise AssertionError(f"losses disagree: {ours.loss} and {theirs[0]}")
    samplers = {name: repeated(action, run.least) for name, action in actions.items()}
    rows = [Row(name, s, base="funcnet") for name, s in in_turn(samplers, run.rounds).items()]
    notes = ["funcnet's includes balanced accuracy, log loss, recall and the confusion matrix"]
    return Result("evaluate", f"loss and accuracy on {len(x):,} CIFAR images", rows, notes)


def predict(run: Run) -> Result:
    """One row at a time, and much at once."""
    rows, notes = [], []
    for about, dims, dataset in (
        ("64-256-256-10", [256, 256], data.digits(1200)),
        ("the assignment's net", [100] * 5, data.cifar10(2000)),
    ):
        model, row = untrained(dims, dataset), dataset.x_train[:1]
        forward = bare(model)
        np.testing.assert_allclose(fn.predict_scores(model, row), forward(row), rtol=1e-4)
        base = f"{about}, bare forward pass"
        actions: dict[str, Callable[[], Any]] = {
            f"{about}, predict_scores": lambda model=model, row=row: fn.predict_scores(model, row),
            base: lambda forward=forward, row=row: forward(row),
        }
        if installed("torch"):
            import torch

            net, device = torch_model(model)
            flat = torch.tensor(row.reshape(1, -1)).float().to(device)

            def theirs(net: Any = net, flat: Any = flat) -> Any:
                with torch.inference_mode():
                    return net(flat).cpu().numpy()

            actions[f"{about}, PyTorch"] = theirs
        samplers = {name: repeated(action, run.least) for name, action in actions.items()}
        rows += [Row(name, s, base=base) for name, s in in_turn(samplers, run.rounds).items()]
    count = run.size(100_000, 5_000)
    for how in ("in pieces", "at once", *(["PyTorch"] if installed("torch") else [])):
        child = in_process(large, how, count)
        seconds, before = child.value
        name = f"{count:,} images of float32, {how}"
        rows.append(Row(f"{name}: time", [seconds]))
        rows.append(Row(f"{name}: memory beside the input", [child.peak - before], "MiB"))
        if child.device_peak is not None:
            rows.append(Row(f"{name}: memory of the GPU", [child.device_peak], "MiB"))
    notes.append(
        "in pieces: predict_scores; at once: one bare forward pass; PyTorch: in pieces, without "
        "preprocessing; a process each"
    )
    return Result("predict", "one row at a time; a large input", rows, notes)


def large(how: str, count: int) -> tuple[float, float]:
    """The seconds that the scores of so many images take, and MiB held before."""
    import time

    x = np.random.default_rng(0).random((count, 3072), np.float32)
    dims, empty = [100] * 5, np.zeros(0, np.int32)
    dataset = fn.Dataset(x[:BATCH], empty, x[:0], empty, x[:0], empty, ())
    model = untrained(dims, dataset)
    if how == "PyTorch":
        import torch

        net, device = torch_model(model)

        def scores(x: np.ndarray) -> Any:
            with torch.inference_mode():
                parts = torch.from_numpy(x).split(BATCH)
                return np.concatenate([net(part.to(device)).cpu().numpy() for part in parts])

    elif how == "at once":
        scores = bare(model)
    else:

        def scores(x: np.ndarray) -> Any:
            return fn.predict_scores(model, x, batch_size=BATCH)

    scores(x[:BATCH])
    before = forget_peak()
    scores(x)  # what is compiled for as many is compiled now
    start = time.perf_counter()
    scores(x)
    return time.perf_counter() - start, before
