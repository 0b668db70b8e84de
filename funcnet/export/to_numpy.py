"""NumPy: a folder of plain weights, and a forward pass that one can read and run without funcnet.

What is written has the functions that this net needs, and no others. It computes in float64.
"""

import io
import os
from collections.abc import Iterable

import numpy as np

import funcnet
from funcnet.export.folder import write_folder
from funcnet.export.plain import Piece, flat, in_units, names_line, pieces_of
from funcnet.export.scoring import Inputs
from funcnet.model import Model
from funcnet.targets import Targets

FILES = ("forward.py", "weights.npz")
HEAD = '''\
"""A trained network in NumPy alone: python forward.py x.npy prints what it predicts.

It takes x [N, {shape}], raw inputs such as those of its training. Written by funcnet {version}.
"""

{imports}
WEIGHTS = dict(np.load(Path(__file__).with_name("weights.npz")))


def of(layer):
    """The weights of a layer by name."""
    names = [name for name in WEIGHTS if name.rpartition("/")[0] == layer]
    return {{name.rpartition("/")[2]: WEIGHTS[name] for name in names}}
'''
MAIN = """
if __name__ == "__main__":
    print(predict(np.load(sys.argv[1])))
"""
# What each layer is. Dropout does nothing when nothing is trained.
LAYERS = {
    "affine": """
def affine(x, w, b):
    return x.reshape(len(x), -1) @ w + b  # [N, D] [D, M] + [M]
""",
    "batchnorm": """
def batchnorm(x, gamma, beta, mean, var, eps):
    return gamma * (x - mean) / np.sqrt(var + eps) + beta  # mean and var are those of training
""",
    "layernorm": """
def layernorm(x, gamma, beta, eps):
    features = tuple(range(1, x.ndim))
    centred = x - x.mean(axis=features, keepdims=True)
    var = np.square(centred).mean(axis=features, keepdims=True)
    return gamma * centred / np.sqrt(var + eps) + beta
""",
    "flatten": """
def flatten(x):
    return x.reshape(len(x), -1)
""",
    "relu": """
def relu(x):
    return np.maximum(x, 0)
""",
    "leaky_relu": """
def leaky_relu(x, negative_slope):
    return np.where(x > 0, x, negative_slope * x)
""",
    "prelu": """
def prelu(x, slope):
    return np.where(x > 0, x, slope * x)
""",
    "gelu": """
def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
""",
    "gelu_tanh": """
def gelu_tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
""",
    "selu": """
def selu(x):
    bent = 1.6732632423543772 * np.expm1(np.minimum(x, 0))
    return 1.0507009873554805 * np.where(x > 0, x, bent)
""",
    "mish": """
def mish(x):
    return x * np.tanh(np.logaddexp(0, x))
""",
    "tanh": """
def tanh(x):
    return np.tanh(x)
""",
    "logistic": """
def logistic(x):
    return (1 + np.tanh(x / 2)) / 2
""",
}
_STANDARDIZE = """
def {}(x, mean, scale):
    return (x - mean) * scale
"""
PREPROCESSING = {
    "subtract_mean": """
def subtract_mean(x, mean):
    return x - mean
""",
    "standardize": _STANDARDIZE.format("standardize"),
    "standardize_numbers": _STANDARDIZE.format("standardize_numbers"),
    "whiten": """
def whiten(x, mean, matrix):
    return (x - mean).reshape(len(x), -1) @ matrix
""",
    "normalize_contrast": """
def normalize_contrast(x, epsilon):
    features = tuple(range(1, x.ndim))
    centred = x - x.mean(axis=features, keepdims=True)
    divisor = np.sqrt(np.square(centred).mean(axis=features, keepdims=True) + epsilon)
    return np.where(divisor > 0, centred / np.where(divisor > 0, divisor, 1), 0)
""",
    "quantile_transform": """
def quantile_transform(x, edges, places):
    x, left, right = x[..., None], edges[..., :-1], edges[..., 1:]
    wide = right > left
    within = (np.clip(x, left, right) - left) / np.where(wide, right - left, 1)
    shares = np.where(wide, within, x >= right)  # of each bin between two edges
    return places[..., 0] + (shares * np.diff(places)).sum(axis=-1)
""",
    "shuffle_features": """
def shuffle_features(x, order):
    return x.reshape(len(x), -1)[:, order].reshape(x.shape)
""",
}


def write_numpy(path: str | os.PathLike[str], model: Model, inputs: Inputs) -> None:
    """Write the folder of a plain net: forward.py and weights.npz.

    Raises:
      ValueError: the net is not plain: what is not is named. OSError: the folder cannot be written.
    """
    first, layers = pieces_of(model, "numpy")
    pieces = [*first, *flat(layers)]
    arrays = {f"{each.name}/{k}": v for each in pieces for k, v in each.arrays.items()}
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    code = source(first, layers, model.targets, inputs).encode()
    write_folder(path, {"weights.npz": packed.getvalue(), "forward.py": code}, model, FILES)


def source(first: list[Piece], layers: list[Piece], targets: Targets, inputs: Inputs) -> str:
    """The text of forward.py.

    Args:
      first: preprocessings.
      layers: layers.
      targets: what is predicted.
      inputs: what of.
    """
    kinds = dict.fromkeys(each.kind for each in [*first, *flat(layers)])
    functions = [{**LAYERS, **PREPROCESSING}[kind] for kind in kinds if kind != "dropout"]
    functions += [_scores(first, layers), *_answers(targets)]
    body = "\n".join([*functions, MAIN])
    modules = ["math"] if "math." in body else []
    imports = "\n".join([*(f"import {each}" for each in [*modules, "sys"]), *IMPORTS])
    shape = ", ".join(map(str, inputs.shape))
    head = HEAD.format(shape=shape, version=funcnet.__version__, imports=imports)
    return f"{head}\n{body}"


IMPORTS = ("from pathlib import Path", "", "import numpy as np", "")


def _scores(first: list[Piece], layers: list[Piece]) -> str:
    calls = "\n".join(_calls([*first, *layers]))
    return f"""
def scores(x):
    x = np.asarray(x, np.float64)
{calls}
    return x
"""


def _calls(pieces: Iterable[Piece], depth: int = 1) -> list[str]:
    """A line for each piece; what a residual block adds to is kept in a variable of its own."""
    lines = []
    for piece in pieces:
        if piece.kind == "residual":
            kept = f"x{depth}"
            lines += [f"    {kept} = x", *_calls(piece.inside, depth + 1), f"    x = {kept} + x"]
        elif piece.kind != "dropout":
            lines.append(f"    x = {piece.kind}({', '.join(['x', *_arguments(piece)])})")
    return lines


def _arguments(piece: Piece) -> list[str]:
    shown = ("eps", "negative_slope")
    given = [f'**of("{piece.name}")'] if piece.arrays else []
    return given + [f"{k}={float(v)!r}" for k, v in piece.options.items() if k in shown]


def _answers(targets: Targets) -> list[str]:
    """The functions that make something of scores, as `predict` and `predict_proba` do."""
    if targets.task == "regression":
        values = "np.exp(scores(x))" if targets.link == "log" else "scores(x)"
        return [in_units(targets, values, "np.array({})")]
    names = [f"\n{names_line(targets)}"] if targets.names else []
    made = "(scores(x) > 0).astype(int)"
    said = "[N, C], which labels hold"
    if targets.task == "classification":
        made, said = "scores(x).argmax(axis=1)", "[N], the number of the class"
    answer = f"\ndef predict(x):\n    return {made}  # {said}\n"
    return [*names, answer, *_probabilities(targets)]


def _probabilities(targets: Targets) -> list[str]:
    if not targets.gives_probabilities:
        return []
    divided = "scores(x)" + (f" / {targets.temperature!r}" if targets.temperature != 1 else "")
    if targets.task == "multilabel":
        return [f"\ndef predict_proba(x):\n    return (1 + np.tanh({divided} / 2)) / 2\n"]
    return [
        f"""
def predict_proba(x):
    s = {divided}
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
"""
    ]
