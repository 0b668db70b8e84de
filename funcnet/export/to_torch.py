"""PyTorch: a folder of weights by PyTorch's names, and the `nn.Sequential` that loads them.

A weight is [out, in] there, the transpose of w. Batch normalization's momentum is the share of the
batch, 1 less ours, and dropout's p what is dropped; PyTorch divides the running variance by N - 1,
and goes on from ours, which is divided by N.
"""

import os
from typing import Any

import numpy as np

import funcnet
from funcnet import checks
from funcnet.export.folder import write_folder
from funcnet.export.plain import OTHERS, Piece, in_units, names_line, pieces_of
from funcnet.export.scoring import Inputs
from funcnet.model import Model
from funcnet.targets import Targets

FILES = ("net.py", "weights.safetensors", "preprocess.safetensors")
HEAD = '''\
"""A trained network in PyTorch: from net import net, scores.

It is in evaluation mode; net.train() goes on training. Written by funcnet {version}.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

HERE = Path(__file__).parent
'''
RESIDUAL = '''

class Residual(nn.Sequential):
    """x + f(x), with f the composition of the modules."""

    def forward(self, x):
        return x + super().forward(x)

'''
TAIL = '''
net.load_state_dict(load_file(HERE / "weights.safetensors"))
net.eval()
{fitted}

def preprocess(x):
    """What the net takes, of raw inputs [N, {shape}]: computed in float64."""
    x = torch.as_tensor(x).to(torch.float64)
{lines}    return x.float()


@torch.no_grad()
def scores(x):
    """The scores of raw inputs, [N, C]."""
    return net(preprocess(x))
{answer}'''
FITTED = 'FITTED = load_file(HERE / "preprocess.safetensors")\n'
_STANDARDIZE = ("x = (x - {mean}) * {scale}",)
PREPROCESSING = {
    "subtract_mean": ("x = x - {mean}",),
    "standardize": _STANDARDIZE,
    "standardize_numbers": _STANDARDIZE,
    "whiten": ("x = (x - {mean}).flatten(1) @ {matrix}",),
    "normalize_contrast": (
        "features = tuple(range(1, x.ndim))",
        "x = x - x.mean(features, keepdim=True)",
        "divisor = torch.sqrt(x.square().mean(features, keepdim=True) + {epsilon})",
        "x = torch.where(divisor > 0, x / torch.where(divisor > 0, divisor, 1.0), 0.0)",
    ),
    "quantile_transform": (
        "x, left, right = x[..., None], {edges}[..., :-1], {edges}[..., 1:]",
        "within = (x.clamp(left, right) - left) / torch.where(right > left, right - left, 1.0)",
        "shares = torch.where(right > left, within, (x >= right).double())",
        "x = {places}[..., 0] + (shares * {places}.diff()).sum(-1)",
    ),
    "shuffle_features": ("x = x.flatten(1)[:, {order}.long()].reshape(x.shape)",),
}


def _affine(own: dict[str, np.ndarray], options: Any) -> tuple[str, dict[str, np.ndarray]]:
    inputs, outputs = own["w"].shape
    return f"nn.Linear({inputs}, {outputs})", {"weight": own["w"].T, "bias": own["b"]}


def _batchnorm(own: dict[str, np.ndarray], options: Any) -> tuple[str, dict[str, np.ndarray]]:
    if own["gamma"].ndim != 1:
        raise ValueError(f"PyTorch normalizes vectors, not {list(own['gamma'].shape)}: {OTHERS}")
    said = f"eps={float(options['eps'])!r}, momentum={round(1 - float(options['momentum']), 12)!r}"
    made = {"weight": own["gamma"], "bias": own["beta"]}
    made |= {"running_mean": own["mean"], "running_var": own["var"]}
    made |= {"num_batches_tracked": np.array(0)}
    return f"nn.BatchNorm1d({len(own['gamma'])}, {said})", made


def _layernorm(own: dict[str, np.ndarray], options: Any) -> tuple[str, dict[str, np.ndarray]]:
    made = {"weight": own["gamma"], "bias": own["beta"]}
    return f"nn.LayerNorm({list(own['gamma'].shape)}, eps={float(options['eps'])!r})", made


def _prelu(own: dict[str, np.ndarray], options: Any) -> tuple[str, dict[str, np.ndarray]]:
    if own["slope"].ndim != 1:
        raise ValueError(f"PyTorch has slopes of vectors, not {list(own['slope'].shape)}: {OTHERS}")
    return f"nn.PReLU({len(own['slope'])})", {"weight": own["slope"]}


def _dropout(own: dict[str, np.ndarray], options: Any) -> tuple[str, dict[str, np.ndarray]]:
    keep = options["keep_prob"] if "keep_prob" in options else options["schedule"](0)
    return f"nn.Dropout({round(1 - float(keep), 7)!r})", {}


MODULES: dict[str, Any] = {  # what makes one, or what it is
    "affine": _affine,
    "batchnorm": _batchnorm,
    "layernorm": _layernorm,
    "prelu": _prelu,
    "dropout": _dropout,
    "leaky_relu": lambda own, o: (f"nn.LeakyReLU({float(o['negative_slope'])!r})", {}),
    "flatten": "nn.Flatten()",
    "relu": "nn.ReLU()",
    "gelu": "nn.GELU()",
    "gelu_tanh": 'nn.GELU(approximate="tanh")',
    "tanh": "nn.Tanh()",
    "logistic": "nn.Sigmoid()",
    "selu": "nn.SELU()",
    "mish": "nn.Mish()",
}


def write_torch(path: str | os.PathLike[str], model: Model, inputs: Inputs) -> None:
    """Write the folder of a plain net: net.py, weights.safetensors, and preprocess.safetensors
    where something was fitted.

    Raises:
      ValueError: the net is not plain: what is not is named. ImportError: safetensors is not
        installed. OSError: the folder cannot be written.
    """
    checks.installed("safetensors", "to write weights for PyTorch")
    from safetensors.numpy import save

    first, layers = pieces_of(model, "torch")
    lines, weights = modules(_flattened(first, layers, inputs))
    fitted = {f"{each.name}.{k}": v for each in first for k, v in each.arrays.items()}
    code = _source(first, lines, inputs, model.targets)
    files = {"weights.safetensors": save(weights)} | (
        {"preprocess.safetensors": save(fitted)} if fitted else {}
    )
    write_folder(path, {**files, "net.py": code.encode()}, model, FILES)


def modules(pieces: list[Piece], within: str = "") -> tuple[list[str], dict[str, np.ndarray]]:
    """The modules of a Sequential as code, a line each, and its tensors by PyTorch's names."""
    lines: list[str] = []
    tensors: dict[str, np.ndarray] = {}
    for number, piece in enumerate(pieces):
        name = f"{within}{number}."
        if piece.kind == "residual":
            inside, own = modules(list(piece.inside), name)
            lines += ["Residual(", *(f"    {line}" for line in inside), "),"]
            tensors |= own
            continue
        made = MODULES[piece.kind]
        line, own = (made, {}) if isinstance(made, str) else made(piece.arrays, piece.options)
        lines.append(f"{line},")
        tensors |= {f"{name}{k}": np.ascontiguousarray(v) if v.ndim else v for k, v in own.items()}
    return lines, tensors


def _flattened(first: list[Piece], layers: list[Piece], inputs: Inputs) -> list[Piece]:
    """The layers, behind one that flattens images, which our affine layers do themselves."""
    flat_already = len(inputs.shape) == 1 or any(each.kind == "whiten" for each in first)
    if flat_already or (layers and layers[0].kind == "flatten"):
        return layers
    return [Piece("flatten", "flatten", {}, {}), *layers]


def _source(first: list[Piece], lines: list[str], inputs: Inputs, targets: Targets) -> str:
    sequential = "\n".join(["net = nn.Sequential(", *(f"    {line}" for line in lines), ")"])
    steps = []
    for piece in first:
        names = {name: f'FITTED["{piece.name}.{name}"]' for name in piece.arrays}
        steps += [f"    {line.format(**names)}\n" for line in PREPROCESSING[piece.kind]]
    residual = RESIDUAL if any("Residual(" in line for line in lines) else ""
    fitted = FITTED if any(piece.arrays for piece in first) else ""
    shape = ", ".join(map(str, inputs.shape))
    answer = f"\n\n{names_line(targets)}" if targets.names else ""
    if targets.task == "regression":
        values = "scores(x).double()" + (".exp()" if targets.link == "log" else "")
        answer = "\n" + in_units(targets, values, "torch.tensor({}, dtype=torch.float64)")
    tail = TAIL.format(fitted=fitted, shape=shape, lines="".join(steps), answer=answer)
    return f"{HEAD.format(version=funcnet.__version__)}{residual}\n{sequential}{tail}"
