"""Mistakes people make in backward passes, planted one at a time: the check sees each of them.

All sizes are equal where a mistake could otherwise fail by its shape, some units sit
exactly at 0, and there is regularisation: the sound net passes on the very same data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CASES, agrees
from marks import slow_but

import funcnet as fn
from funcnet import (
    activations,
    batch,
    embeddings,
    ensembles,
    layers,
    members,
    objective,
    piecewise,
    rectifiers,
    tabular,
    weights,
)
from funcnet import layer as layer_module
from funcnet import net as nets
from funcnet.losses import LOSSES

pytestmark = pytest.mark.usefixtures("eager")

FIRST = "affine1/b"
SIZE = 4  # N = D = H = C
REG = 0.3
KEEP_PROB = 0.6
SLOPE = 0.3
EDGES = np.array([[-1, 0.1, 1], [-2, 0.5, 1], [0, 0, 1], [-0.3, -0.2, 1]])
# In which the passes of layers are.
MODULES = [rectifiers, activations, piecewise, embeddings, layers, members, tabular]

# What stands between two affine layers.
NETS = {
    "relu": fn.relu,
    "leaky_relu": lambda: fn.leaky_relu(SLOPE),
    "gelu": fn.gelu,
    "gelu_tanh": lambda: fn.gelu(approximate=True),
    "tanh": fn.tanh,
    "logistic": fn.logistic,
    "selu": fn.selu,
    "mish": fn.mish,
    "prelu": fn.prelu,
    "parametric": lambda: fn.parametric("tanh", rate=0.5),
    "flatten": fn.flatten,
    "column_scale": fn.column_scale,
    "ntk_affine": lambda: fn.ntk_affine(SIZE, bias_rate=0.5),
    "column_affine": lambda: fn.column_affine(2, columns=2),
    "periodic": lambda: fn.periodic(2, k=1, rate=0.5),
    "pbld": lambda: fn.pbld(3, k=2),
    "piecewise_linear": lambda: fn.piecewise_linear(EDGES),
    "embed_categories": lambda: fn.embed_categories([2, 2], 2),
    "on_columns": lambda: fn.on_columns([2, 0], fn.affine(2)),
    "member_scale": lambda: fn.member_scale(2),
    "batch_ensemble_affine": lambda: fn.batch_ensemble_affine(SIZE, 2),
    "shared_affine": lambda: fn.serial(fn.member_scale(2), fn.shared_affine(SIZE)),
    "member_affine": lambda: fn.member_affine(SIZE, 2),
    "ensemble": lambda: fn.ensemble(fn.tanh(), fn.affine(SIZE)),
    "stacked": lambda: fn.stacked(fn.affine(SIZE), 2),
    "batchnorm": fn.batchnorm,
    "layernorm": fn.layernorm,
    "dropout": lambda: fn.dropout(KEEP_PROB),
    "scheduled dropout": lambda: fn.dropout(fn.complement(0.4)),
    "residual": lambda: nets.residual(fn.affine(SIZE), fn.tanh()),
}


@pytest.fixture
def eager():
    """Nothing is compiled: of such small nets each is run once, faster than compiled."""
    with jax.disable_jit():
        yield


def square(middle, in_shape):
    rng = np.random.default_rng(7)
    net = fn.serial(fn.affine(SIZE), NETS[middle](), fn.affine(SIZE))
    params, state, _ = net.init(jax.random.key(0), in_shape)
    params = jax.tree.map(lambda p: jnp.asarray(0.8 * rng.normal(size=p.shape), p.dtype), params)
    # A row of zeros and biases of zero: exact zeros in front of the ReLU.
    params = params.set(("affine1", "b"), params["affine1"]["b"].at[:2].set(0))
    x = rng.normal(size=(SIZE, *in_shape)).astype("f")
    x[2] = 0
    # Running statistics that are those of no batch.
    state = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.5, 3, s.shape), s.dtype), state)
    return net, params, state, x, np.array([0, 3, 1, 1])


WEIGHTS = np.array([0.5, 2.0, 0.0, 1.5])


def check(loss_fn=fn.softmax_loss, in_shape=(2, 2), net="relu", train=True, case=None):
    """The check of a net; on the targets of a case of losses, and weights, if there is one."""
    *args, y = square(net, in_shape)
    options = {"reg": REG, "loss_fn": loss_fn, "key": jax.random.key(5), "train": train}
    if case is not None:
        outputs = SIZE // len(CASES[case].options.get("quantiles", "1"))
        y = CASES[case].targets(np.random.default_rng(3), SIZE, outputs)
        options["sample_weight"] = WEIGHTS
    return fn.check_gradients(*args, y, **options)


class Mutation(NamedTuple):
    """A mistake and how to plant it."""

    where: object  # a module, or None: the mutant is a loss function
    attribute: str
    mutant: object
    leaves: str  # one of those that must be seen to differ
    in_shape: tuple = (2, 2)
    net: str = "relu"
    train: bool = True
    case: str | None = None  # of losses, on weighted examples


def affine(change):
    """affine_backward with `change(dout, (rows, w), dx, dw, db)` in place of its result."""
    sound = layers.affine_backward

    def mutant(dout, cache):
        x, w, _ = cache
        return change(dout, (x.reshape(len(x), -1), w), *sound(dout, cache))

    return Mutation(layers, "affine_backward", mutant, "")


def backward(name, mutant, leaves="affine1/b", train=True):
    """The mutant in place of a layer's backward pass."""
    attribute = f"{name}_backward"
    where = next(module for module in MODULES if hasattr(module, attribute))
    return Mutation(where, attribute, mutant, leaves, net=name, train=train)


def relu(mutant):
    return backward("relu", mutant)


def leaky_relu(change):
    return backward("leaky_relu", lambda dout, cache: change(dout, *cache))


def gelu(derivative):
    return backward("gelu", lambda dout, x: dout * derivative(x))


def gelu_tanh(derivative):
    return backward("gelu_tanh", lambda dout, cache: dout * derivative(*cache))


def tanh(derivative):
    return backward("tanh", lambda dout, out: dout * derivative(out))


def logistic(derivative):
    return backward("logistic", lambda dout, x: dout * derivative(jax.nn.sigmoid(x)))


def selu(slope):
    """`slope(x)` in place of the derivative, the scale apart."""
    scale = activations.SELU_SCALE
    return backward("selu", lambda dout, x: scale * dout * slope(x, activations.SELU_ALPHA))


def mish(derivative):
    return backward("mish", lambda dout, x: dout * derivative(x, jnp.tanh(jnp.logaddexp(x, 0))))


def prelu(change, leaves="prelu1/slope"):
    """`change(dout, (x, slope), dx, dslope)`."""
    return changed(rectifiers, "prelu", change, leaves)


def parametric(change, leaves="parametric1/a"):
    """`change(dout, (x, y, a), dx, dy, da)`."""
    return changed(activations, "parametric", change, leaves)


def changed(module, name, change, leaves):
    """A backward pass with `change(dout, cache, *its result)` as result."""
    sound = getattr(module, f"{name}_backward")

    def mutant(dout, cache):
        grads = sound(dout, cache)
        return change(dout, cache, *(grads if isinstance(grads, tuple) else (grads,)))

    return backward(name, mutant, leaves)


def norm(name, change, leaves="affine1/w", train=True):
    """A backward pass with `change(dout, (xhat, std, gamma), dx, dgamma, dbeta)` as result."""
    sound = getattr(layers, f"{name}_backward")

    def mutant(dout, cache):
        return change(dout, cache[:3], *sound(dout, cache))

    return backward(name, mutant, leaves, train)


def batchnorm(change, leaves="affine1/w"):
    return norm("batchnorm", change, leaves)


def batchnorm_dx(dx, train=True):
    """Batch norm with `dx(dxhat, xhat, std)`."""

    def change(dout, cache, _, dgamma, dbeta):
        xhat, std, gamma = cache
        return dx(dout * gamma, xhat, std), dgamma, dbeta

    return norm("batchnorm", change, train=train)


def batchnorm_cache(change):
    """Batch norm whose backward pass finds `change(running, *cache)` in its cache."""
    sound = layers.batchnorm_forward

    def mutant(x, gamma, beta, running, **options):
        out, cache, new_running = sound(x, gamma, beta, running, **options)
        return out, change(running, *cache), new_running

    return Mutation(layers, "batchnorm_forward", mutant, "affine1/w", net="batchnorm")


def layernorm(change, leaves="affine1/w"):
    return norm("layernorm", change, leaves)


def layernorm_dx(dx):
    """Layer norm with `dx(dout, gamma, xhat, std)`."""

    def change(dout, cache, _, dgamma, dbeta):
        xhat, std, gamma = cache
        return dx(dout, gamma, xhat, std), dgamma, dbeta

    return layernorm(change)


def dropout(change, train=True):
    return backward("dropout", lambda dout, cache: change(dout, cache[0]), train=train)


def minus_outer():
    sound = embeddings._outer_backward
    return lambda dv, x, c: sound(-dv, x, c)


def pbld_swapped():
    sound = embeddings.pbld_backward
    return backward("pbld", lambda dout, c: sound(dout, (*c[:3], c[4], c[3])), "pbld1/w")


def on_columns(change):
    """`change(dx)` in place of dx."""
    sound = tabular._on_columns_backward

    def mutant(dout, cache, **options):
        dx, grads = sound(dout, cache, **options)
        return change(dx), grads

    return Mutation(tabular, "_on_columns_backward", mutant, FIRST, net="on_columns")


def batch_ensemble(change, leaf):
    """The gradients in `change(dout, (x, w, r, s, product))` in place of those of their names."""

    def changed_grads(dout, cache, *grads):
        names = ("dx", "dw", "dr", "ds", "db")
        return tuple({**dict(zip(names, grads, strict=True)), **change(dout, cache)}.values())

    name = "batch_ensemble_affine"
    return changed(members, name, changed_grads, f"{name}1/{leaf}")


def residual(change):
    """A residual block with `change(dout, dx)` as its dx, which should be that of both paths."""
    sound = nets.residual

    def mutant(*children):
        block = sound(*children)

        def block_backward(dout, cache):
            dx, grads = block.backward(dout, cache)
            return change(dout, dx), grads

        return block._replace(backward=block_backward)

    return Mutation(nets, "residual", mutant, FIRST, net="residual")


def loss(sound, change):
    def mutant(scores, y):
        value, dscores = sound(scores, y)
        return change(value, dscores, scores, y)

    return Mutation(None, sound.__name__, mutant, "affine2/b")


def weighted(case, change):
    """A loss with `change(scores, y, share, dscores)` as its gradient; y is [N, C]."""
    sound = CASES[case].loss_fn

    def mutant(scores, y, sample_weight):
        value, dscores = sound(scores, y, sample_weight)
        share = sample_weight / sample_weight.sum() / (1 if y.ndim == 1 else scores.shape[1])
        return value, change(scores, y, share[:, None], dscores)

    return Mutation(None, f"{CASES[case].loss}_loss", mutant, "affine2/b", case=case)


def reduced(change, case):
    """Every weighted loss with `change(loss, dscores, drows, share)` as its result."""
    sound = batch.weighted_mean

    def mutant(rows, drows, share, dtype):
        return change(*sound(rows, drows, share, dtype), drows, share)

    return Mutation(batch, "weighted_mean", mutant, "affine2/b", case=case)


def of_members(change):
    """The loss of members whose gradient is `change(dscores)`; they are the same one, twice."""
    sound = objective.loss_of_scores

    def mutant(loss_fn, scores, y, sample_weight=None):
        both = jnp.stack([scores, 2 * scores], axis=1)
        value, dscores = sound(loss_fn, both, y, sample_weight)
        dscores = change(dscores)
        return value, dscores[:, 0] + 2 * dscores[:, 1]

    return Mutation(objective, "loss_of_scores", mutant, "affine2/b")


def penalty(change):
    sound = objective.l2_penalty

    def mutant(params, reg):
        return change(*sound(params, reg), params, reg)

    return Mutation(objective, "l2_penalty", mutant, "affine1/w")


def stale_affine():
    """Each layer's backward pass gets the cache of the one that ran before it."""
    sound, caches = layers.affine_backward, []

    def mutant(dout, cache):
        caches.append(cache)
        x, w, _ = caches[-2] if len(caches) > 1 else cache
        dx, dw, db = sound(dout, (x.reshape(len(x), -1), w, cache[2]))
        return dx.reshape(cache[0].shape), dw, db

    return Mutation(layers, "affine_backward", mutant, "affine1/w")


def unscaled(dscores):
    return dscores * len(dscores)


def correct(scores, y):
    return jax.nn.one_hot(y, scores.shape[1], dtype=scores.dtype)


def positive(dscores):
    return jnp.where(dscores > 0, dscores, 0)


def one_element(dw):
    return dw.at[1, 2].add(1e-6 * jnp.abs(dw).max())


def over_batch(a):
    return a.mean(axis=0)


def over_features(a):
    return a.mean(axis=1, keepdims=True)


def normal_cdf(x):
    return jax.scipy.stats.norm.cdf(x)


def normal_density(x):
    return jax.scipy.stats.norm.pdf(x)


def other_mask(dout):
    return dout * jax.random.bernoulli(jax.random.key(6), KEEP_PROB, dout.shape) / KEEP_PROB


ROOT = np.sqrt(2 / np.pi)
MUTATIONS = {
    # Affine.
    "dw transposed": affine(lambda d, c, dx, dw, db: (dx, dw.T, db)),
    "dw divided by N": affine(lambda d, c, dx, dw, db: (dx, dw / len(d), db)),
    "dw of x instead of x^T": affine(lambda d, c, dx, dw, db: (dx, c[0] @ d, db)),
    "dw with one wrong element": affine(lambda d, c, dx, dw, db: (dx, one_element(dw), db)),
    "db a mean": affine(lambda d, c, dx, dw, db: (dx, dw, d.mean(axis=0))),
    "db over the wrong axis": affine(lambda d, c, dx, dw, db: (dx, dw, d.sum(axis=1))),
    "db missing": affine(lambda d, c, dx, dw, db: (dx, dw, 0 * db)),
    "dx missing": affine(lambda d, c, dx, dw, db: (0 * dx, dw, db)),
    "dx by w instead of w^T": affine(
        lambda d, c, dx, dw, db: ((d @ c[1]).reshape(dx.shape), dw, db)
    ),
    "dx in the wrong order": affine(
        lambda d, c, dx, dw, db: (dx.swapaxes(1, 2) if dx.ndim == 3 else dx, dw, db)
    ),
    "dx with the wrong sign": affine(lambda d, c, dx, dw, db: (-dx, dw, db)),
    "stale cache": stale_affine(),
    # ReLU.
    "no mask": relu(lambda dout, x: dout),
    "mask by the sign of dout": relu(lambda dout, x: jnp.where(dout <= 0, 0, dout)),
    "gradient passes at exactly 0": relu(lambda dout, x: jnp.where(x >= 0, dout, 0)),
    "half a gradient at exactly 0": relu(lambda dout, x: dout * (jnp.sign(x) + 1) / 2),
    "mask inverted": relu(lambda dout, x: jnp.where(x <= 0, dout, 0)),
    "leaky": relu(lambda dout, x: jnp.where(x <= 0, 1e-6 * dout, dout)),
    # Leaky ReLU.
    "leaky: slope on the wrong side": leaky_relu(
        lambda dout, x, slope: jnp.where(x <= 0, dout, slope * dout)
    ),
    "leaky: slope missing": leaky_relu(lambda dout, x, slope: jnp.where(x <= 0, 0, dout)),
    "leaky: the default slope": leaky_relu(
        lambda dout, x, slope: jnp.where(x <= 0, 0.01 * dout, dout)
    ),
    "leaky: by the sign of dout": leaky_relu(
        lambda dout, x, slope: jnp.where(dout <= 0, slope * dout, dout)
    ),
    "leaky: all of the gradient at exactly 0": leaky_relu(
        lambda dout, x, slope: jnp.where(x < 0, slope * dout, dout)
    ),
    # GELU.
    "gelu without x phi(x)": gelu(normal_cdf),
    "gelu with phi for x phi": gelu(lambda x: normal_cdf(x) + normal_density(x)),
    "gelu with a density that is not normalized": gelu(
        lambda x: normal_cdf(x) + x * jnp.exp(-x * x / 2)
    ),
    "gelu by its approximation's derivative": gelu(
        jnp.vectorize(jax.grad(lambda x: jax.nn.gelu(x, approximate=True)))
    ),
    "gelu_tanh without the factor 3": gelu_tanh(
        lambda x, t: (1 + t + (1 - t * t) * x * ROOT * (1 + 0.044715 * x * x)) / 2
    ),
    "gelu_tanh without the cube": gelu_tanh(lambda x, t: (1 + t + (1 - t * t) * x * ROOT) / 2),
    "gelu_tanh without x (1 - t^2) u'": gelu_tanh(lambda x, t: (1 + t) / 2),
    "gelu_tanh by the exact derivative": gelu_tanh(
        lambda x, t: normal_cdf(x) + x * normal_density(x)
    ),
    # Tanh.
    "tanh: 1 - out": tanh(lambda out: 1 - out),
    "tanh: of out once more": tanh(lambda out: 1 - jnp.tanh(out) ** 2),
    "tanh: the sigmoid's derivative": tanh(lambda out: out * (1 - out)),
    # The logistic function.
    "logistic: the derivative of tanh": logistic(lambda out: 1 - out * out),
    "logistic: without 1 - out": logistic(lambda out: out),
    # SELU, Mish.
    "selu without alpha": selu(lambda x, alpha: jnp.where(x <= 0, jnp.exp(x), 1)),
    "selu: the output for its derivative": selu(
        lambda x, alpha: jnp.where(x <= 0, alpha * jnp.expm1(x), 1)
    ),
    "selu: the slope of the right at exactly 0": selu(
        lambda x, alpha: jnp.where(x < 0, alpha * jnp.exp(x), 1)
    ),
    "mish without x (1 - t^2) sigmoid": mish(lambda x, t: t),
    "mish without the sigmoid": mish(lambda x, t: t + x * (1 - t * t)),
    # PReLU and the parametric activation.
    "prelu: slope on the wrong side": prelu(
        lambda dout, c, dx, da: (jnp.where(c[0] <= 0, dout, c[1] * dout), da), FIRST
    ),
    "prelu: dslope over both sides": prelu(lambda dout, c, dx, da: (dx, (dout * c[0]).sum(axis=0))),
    "prelu: dslope a mean": prelu(lambda dout, c, dx, da: (dx, da / len(dout))),
    "parametric: da of y": parametric(
        lambda dout, c, dx, dy, da: (dx, dy, (dout * c[1]).sum(axis=0))
    ),
    "parametric: dx as if a were 0": parametric(lambda dout, c, dx, dy, da: (dout, dy, da), FIRST),
    "parametric: dy without a": parametric(lambda dout, c, dx, dy, da: (dx, dout, da), FIRST),
    "a rate that is not in the gradient": Mutation(
        layer_module,
        "_rated_backward",
        lambda dout, cache, *, layer, rates: layer.backward(dout, cache.arrays[0]),
        "parametric1/a",
        net="parametric",
    ),
    # What nets for tables have.
    "flatten: the other order": changed(layers, "flatten", lambda dout, c, dx: dx[:, ::-1], FIRST),
    "column_scale: ds a mean": changed(
        tabular, "column_scale", lambda dout, c, dx, ds: (dx, ds / len(dout)), "column_scale1/s"
    ),
    "column_scale: dx without s": changed(
        tabular, "column_scale", lambda dout, c, dx, ds: (dout, ds), FIRST
    ),
    "ntk_affine: dw as of an affine layer": changed(
        tabular, "ntk_affine", lambda dout, c, dx, dw, db: (dx, 2 * dw, db), "ntk_affine1/w"
    ),
    "ntk_affine: db divided, too": changed(
        tabular, "ntk_affine", lambda dout, c, dx, dw, db: (dx, dw, db / 2), "ntk_affine1/b"
    ),
    "column_affine: the columns of dx swapped": changed(
        embeddings, "column_affine", lambda dout, c, dx, dw, db: (dx[:, ::-1], dw, db), FIRST
    ),
    "column_affine: dw transposed": changed(
        embeddings,
        "column_affine",
        lambda dout, c, dx, dw, db: (dx, dw.swapaxes(1, 2), db),
        "column_affine1/w",
    ),
    "periodic: 2 pi missing in dc": changed(
        embeddings,
        "periodic",
        lambda dout, c, dx, dc, dw, db: (dx, dc / (2 * np.pi), dw, db),
        "periodic1/c",
    ),
    "periodic: the sign of the waves' derivative": Mutation(
        embeddings, "_outer_backward", minus_outer(), "periodic1/c", net="periodic"
    ),
    "periodic: the relu left out": Mutation(
        embeddings,
        "_plr_backward",
        lambda dout, cache: embeddings.periodic_backward(dout, cache[0]),
        "periodic1/w",
        net="periodic",
    ),
    "pbld: dx without that of the number itself": changed(
        embeddings,
        "pbld",
        lambda dout, c, dx, *grads: (dx - dout.reshape(*dx.shape, -1)[..., 0], *grads),
        FIRST,
    ),
    "pbld: 2 pi in the gradient of the phase": changed(
        embeddings,
        "pbld",
        lambda dout, c, dx, dc, dphase, dw, db: (dx, dc, 2 * np.pi * dphase, dw, db),
        "pbld1/phase",
    ),
    "pbld: sine and cosine swapped": pbld_swapped(),
    "piecewise_linear: the slope of all bins": backward(
        "piecewise_linear",
        lambda dout, c: (dout.reshape(SIZE, SIZE, 2) * piecewise._in_bins(*c)[1]).sum(axis=-1),
        FIRST,
    ),
    "piecewise_linear: the ends closed": changed(
        piecewise,
        "piecewise_linear",
        lambda dout, c, dx: jnp.where((c[0] < c[1][:, 0]) | (c[0] > c[1][:, -1]), 0, dx),
        FIRST,
    ),
    "embed_categories: the groups of dw swapped": changed(
        tabular,
        "embed_categories",
        lambda dout, c, dx, dw: (dx, jnp.roll(dw, 2, axis=0)),
        "embed_categories1/w",
    ),
    "embed_categories: dx of the other group": changed(
        tabular, "embed_categories", lambda dout, c, dx, dw: (jnp.roll(dx, 2, axis=1), dw), FIRST
    ),
    "on_columns: dx in the order of the output": on_columns(lambda dx: dx[:, [2, 0, 1, 3]]),
    "on_columns: the other columns left out": on_columns(
        lambda dx: dx.at[:, jnp.array([1, 3])].set(0)
    ),
    # Ensembles.
    "member_scale: dx of the first member alone": backward(
        "member_scale", lambda dout, c: (dout[:, 0] * c[1][0], (dout * c[0][:, None]).sum(axis=0))
    ),
    "member_scale: dr the same for all members": changed(
        members,
        "member_scale",
        lambda dout, c, dx, dr: (dx, 0 * dr + dr.mean(axis=0)),
        "member_scale1/r",
    ),
    "batch ensemble: dw without s": batch_ensemble(
        lambda dout, c: {"dw": jnp.einsum("nkd,nkm->dm", c[0][:, None] * c[2], dout)}, "w"
    ),
    "batch ensemble: dw without r": batch_ensemble(
        lambda dout, c: {"dw": jnp.einsum("nd,nkm->dm", c[0], dout * c[3])}, "w"
    ),
    "batch ensemble: dr of h for x": batch_ensemble(
        lambda dout, c: {"dr": (((dout * c[3]) @ c[1].T) * c[0][:, None] * c[2]).sum(axis=0)}, "r"
    ),
    "batch ensemble: ds of the output": batch_ensemble(
        lambda dout, c: {"ds": (dout * c[4] * c[3]).sum(axis=0)}, "s"
    ),
    "shared_affine: db over examples of one member": changed(
        members,
        "shared_affine",
        lambda dout, c, dx, dw, db: (dx, dw, dout[:, 0].sum(axis=0)),
        "serial1/shared_affine1/b",
    ),
    "member_affine: the weights of the other member": changed(
        members,
        "member_affine",
        lambda dout, c, dx, dw, db: (jnp.einsum("nkm,kdm->nd", dout[:, ::-1], c[1]), dw, db),
        FIRST,
    ),
    "member_affine: dw the same for all members": changed(
        members,
        "member_affine",
        lambda dout, c, dx, dw, db: (dx, 0 * dw + dw.mean(axis=0), db),
        "member_affine1/w",
    ),
    "ensemble: dx of the last net": Mutation(
        ensembles, "_sum", lambda dxs: dxs[-1], FIRST, net="ensemble"
    ),
    "stacked: dx a mean": Mutation(
        ensembles, "_sum", lambda dxs: dxs.mean(axis=0), FIRST, net="stacked"
    ),
    # Batch normalization.
    "batchnorm without the mean term": batchnorm_dx(
        lambda d, xhat, std: (d - xhat * over_batch(d * xhat)) / std
    ),
    "batchnorm without the xhat term": batchnorm_dx(lambda d, xhat, std: (d - over_batch(d)) / std),
    "batchnorm with sums for means": batchnorm_dx(
        lambda d, xhat, std: (d - d.sum(axis=0) - xhat * (d * xhat).sum(axis=0)) / std
    ),
    "batchnorm with N - 1 for N": batchnorm_dx(
        lambda d, xhat, std: (
            (d - over_batch(d) - xhat * (d * xhat).sum(axis=0) / (len(d) - 1)) / std
        )
    ),
    "batchnorm over the wrong axis": batchnorm_dx(
        lambda d, xhat, std: (d - over_features(d) - xhat * over_features(d * xhat)) / std
    ),
    "batchnorm with the evaluation formula in training": batchnorm_dx(lambda d, xhat, std: d / std),
    "batchnorm with the training formula in evaluation": batchnorm_dx(
        lambda d, xhat, std: (d - over_batch(d) - xhat * over_batch(d * xhat)) / std, train=False
    ),
    "batchnorm in evaluation without std": batchnorm_dx(lambda d, xhat, std: d, train=False),
    "batchnorm without gamma": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx / c[2], dgamma, dbeta)
    ),
    "batchnorm divided by the variance": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx / c[1], dgamma, dbeta)
    ),
    "batchnorm without epsilon": batchnorm_cache(
        lambda running, xhat, std, gamma, train: (xhat, jnp.sqrt(std**2 - 1e-5), gamma, train)
    ),
    "batchnorm with the running variance": batchnorm_cache(
        lambda running, xhat, std, gamma, train: (
            (xhat, jnp.sqrt(running["var"] + 1e-5), gamma, train)
        )
    ),
    "batchnorm with x for xhat": batchnorm_cache(
        lambda running, xhat, std, gamma, train: (xhat * std, std, gamma, train)
    ),
    "batchnorm: dgamma of dout": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, dout.sum(axis=0), dbeta), "batchnorm1/gamma"
    ),
    "batchnorm: dgamma of dxhat": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, dgamma * c[2], dbeta), "batchnorm1/gamma"
    ),
    "batchnorm: dgamma a mean": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, dgamma / len(dout), dbeta), "batchnorm1/gamma"
    ),
    "batchnorm: dbeta a mean": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, dgamma, over_batch(dout)), "batchnorm1/beta"
    ),
    "batchnorm: dbeta over the wrong axis": batchnorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, dgamma, dout.sum(axis=1)), "batchnorm1/beta"
    ),
    # Layer normalization.
    "layernorm without the mean term": layernorm_dx(
        lambda dout, gamma, xhat, std: (
            (dout * gamma - xhat * over_features(dout * gamma * xhat)) / std
        )
    ),
    "layernorm without the xhat term": layernorm_dx(
        lambda dout, gamma, xhat, std: (dout * gamma - over_features(dout * gamma)) / std
    ),
    "layernorm without gamma": layernorm_dx(
        lambda dout, gamma, xhat, std: (
            (dout - over_features(dout) - xhat * over_features(dout * xhat)) / std
        )
    ),
    "layernorm with gamma outside, as for batchnorm": layernorm_dx(
        lambda dout, gamma, xhat, std: (
            gamma * (dout - over_features(dout) - xhat * over_features(dout * xhat)) / std
        )
    ),
    "layernorm over the wrong axis": layernorm_dx(
        lambda dout, gamma, xhat, std: (
            (dout * gamma - over_batch(dout * gamma) - xhat * over_batch(dout * gamma * xhat)) / std
        )
    ),
    "layernorm as if its statistics were constants": layernorm_dx(
        lambda dout, gamma, xhat, std: dout * gamma / std
    ),
    "layernorm: dgamma over the wrong axis": layernorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, (dout * c[0]).sum(axis=1), dbeta),
        "layernorm1/gamma",
    ),
    "layernorm: dgamma of dout": layernorm(
        lambda dout, c, dx, dgamma, dbeta: (dx, dout.sum(axis=0), dbeta), "layernorm1/gamma"
    ),
    # Dropout.
    "dropout without the mask": dropout(lambda dout, mask: dout),
    "dropout not rescaled": dropout(lambda dout, mask: jnp.where(mask > 0, dout, 0)),
    "dropout rescaled twice": dropout(lambda dout, mask: dout * mask * mask),
    "dropout with a mask inverted": dropout(
        lambda dout, mask: jnp.where(mask > 0, 0, dout * mask.max())
    ),
    "dropout with a mask of its own": dropout(lambda dout, mask: other_mask(dout)),
    "dropout with a mask in evaluation": dropout(lambda dout, mask: other_mask(dout), train=False),
    "dropout rescaled in evaluation": dropout(lambda dout, mask: dout * KEEP_PROB, train=False),
    "dropout by a schedule with a mask of its own": dropout(
        lambda dout, mask: other_mask(dout)
    )._replace(net="scheduled dropout"),
    # Residual blocks.
    "residual without the skip": residual(lambda dout, dx: dx - dout),
    "residual with the skip doubled": residual(lambda dout, dx: dx + dout),
    "residual with the skip alone": residual(lambda dout, dx: dout),
    # Losses.
    "softmax not divided by N": loss(fn.softmax_loss, lambda v, d, s, y: (v, unscaled(d))),
    "softmax a sum": loss(fn.softmax_loss, lambda v, d, s, y: (v * len(s), d)),
    "softmax without the - 1": loss(
        fn.softmax_loss, lambda v, d, s, y: (v, d + correct(s, y) / len(s))
    ),
    "softmax with the wrong sign": loss(fn.softmax_loss, lambda v, d, s, y: (v, -d)),
    "svm without the correct class": loss(fn.svm_loss, lambda v, d, s, y: (v, positive(d))),
    "svm count off by one": loss(fn.svm_loss, lambda v, d, s, y: (v, d - correct(s, y) / len(s))),
    "svm counts a row once": loss(fn.svm_loss, lambda v, d, s, y: (v, jnp.sign(d) / len(s))),
    "svm not divided by N": loss(fn.svm_loss, lambda v, d, s, y: (v, unscaled(d))),
    # Weights.
    "softmax not weighted": weighted(
        "softmax", lambda s, y, w, d: d / jnp.where(w == 0, 1, w) / len(s)
    ),
    "softmax weighted twice": weighted("softmax", lambda s, y, w, d: d * w),
    "svm weighted and divided by N": weighted("svm", lambda s, y, w, d: d / len(s)),
    "a gradient that is not weighted": reduced(
        lambda v, d, drows, share: (v, drows / len(drows)), "squared"
    ),
    "a gradient divided by N as well": reduced(
        lambda v, d, drows, share: (v, d / len(d)), "sigmoid"
    ),
    "a loss that is not weighted": reduced(lambda v, d, drows, share: (v * len(d), d), "huber"),
    # Losses of outputs.
    "squared, of the square without the half": weighted("squared", lambda s, y, w, d: 2 * d),
    "squared with the wrong sign": weighted("squared", lambda s, y, w, d: -d),
    "squared not divided by K": weighted("squared", lambda s, y, w, d: d * SIZE),
    "absolute with the error for its sign": weighted("absolute", lambda s, y, w, d: w * (s - y)),
    "absolute with the wrong sign": weighted("absolute", lambda s, y, w, d: -d),
    "huber as the squared loss": weighted("huber, 0.3", lambda s, y, w, d: w * (s - y)),
    "huber as the absolute loss": weighted("huber", lambda s, y, w, d: w * jnp.sign(s - y)),
    "huber without delta outside": weighted(
        "huber, 0.3",
        lambda s, y, w, d: jnp.where(abs(s - y) > 0.3, w * jnp.sign(s - y), d),
    ),
    "pinball with the wrong sign": weighted("pinball, two", lambda s, y, w, d: -d),
    "pinball with q and 1 - q exchanged": weighted(
        "pinball, two", lambda s, y, w, d: jnp.sign(d) * (w - abs(d))
    ),
    "pinball with quantiles in the wrong order": weighted(
        "pinball, two", lambda s, y, w, d: d.reshape(SIZE, 2, 2)[..., ::-1].reshape(SIZE, SIZE)
    ),
    "sigmoid without the target": weighted("sigmoid", lambda s, y, w, d: d + w * y),
    "sigmoid times its derivative": weighted(
        "sigmoid, soft", lambda s, y, w, d: d * jax.nn.sigmoid(s) * (1 - jax.nn.sigmoid(s))
    ),
    "sigmoid of a target that is hard": weighted(
        "sigmoid, soft", lambda s, y, w, d: d + w * (y - jnp.round(y))
    ),
    "poisson by the score for the rate": weighted("poisson", lambda s, y, w, d: w * (s - y)),
    "poisson without the target": weighted("poisson", lambda s, y, w, d: d + w * y),
    # Members.
    "the mean over members missing": of_members(lambda dscores: 2 * dscores),
    "the gradient of one member": of_members(lambda dscores: dscores.at[:, 1].set(0)),
    "members exchanged": of_members(lambda dscores: dscores[:, ::-1]),
    # Regularisation.
    "reg gradient doubled": penalty(lambda v, g, p, r: (v, jax.tree.map(lambda leaf: 2 * leaf, g))),
    "reg gradient halved": penalty(lambda v, g, p, r: (v, jax.tree.map(lambda leaf: leaf / 2, g))),
    "reg without 0.5 in the loss": penalty(lambda v, g, p, r: (2 * v, g)),
    "reg gradient missing": penalty(lambda v, g, p, r: (v, jax.tree.map(jnp.zeros_like, g))),
    "reg gradient on biases": penalty(
        lambda v, g, p, r: (v, jax.tree.map(lambda leaf: r * leaf, p))
    )._replace(leaves="affine2/b"),
    # The net.
    "layers not reversed": Mutation(nets, "reversed", lambda layers: layers, "affine1/w", (SIZE,)),
}


def test_every_layer_and_loss_has_a_mistake_planted():
    made = {*nets.ACTIVATIONS, *nets.NORMALIZATIONS}
    assert made <= NETS.keys()
    assert {mutation.net for mutation in MUTATIONS.values()} == NETS.keys()
    planted = {mutation.attribute for mutation in MUTATIONS.values()}
    assert planted >= {f"{name}_backward" for name in made}
    assert planted >= {loss_fn.__name__ for loss_fn in LOSSES.values()}


SOUND = [
    *((net, fn.softmax_loss, True) for net in NETS),
    ("relu", fn.svm_loss, True),
    ("batchnorm", fn.softmax_loss, False),
    ("dropout", fn.softmax_loss, False),
]


@pytest.mark.parametrize(
    ("net", "loss_fn", "train"),
    [pytest.param(*case, marks=pytest.mark.slow if i % 3 else ()) for i, case in enumerate(SOUND)],
)
def test_the_sound_net_passes(net, loss_fn, train):
    report = check(loss_fn, net=net, train=train)
    assert report.passed, str(report)
    # The exact zeros are there, or the mutants at 0 could not be seen.
    if net in ("relu", "leaky_relu", "prelu"):
        assert sum(row.kinks for row in report.rows) > 0


FITTING = [name for name in CASES if SIZE % len(CASES[name].options.get("quantiles", "1")) == 0]


@pytest.mark.parametrize(
    "name", slow_but(FITTING, "softmax, soft", "huber", "pinball, two", "sigmoid, soft")
)
def test_the_sound_losses_pass(name):
    report = check(CASES[name].loss_fn, case=name)
    assert report.passed, str(report)


def test_sound_members_pass(monkeypatch):
    sound = of_members(lambda dscores: dscores)
    monkeypatch.setattr(objective, "loss_of_scores", sound.mutant)
    report = check()
    assert all(row.autodiff <= 1e-12 for row in report.rows if row.name != "input x"), str(report)


@pytest.mark.parametrize("name", slow_but(MUTATIONS, *list(MUTATIONS)[::6]))
def test_a_mistake_is_seen(name, monkeypatch):
    mutation = MUTATIONS[name]
    case = mutation.case
    if mutation.where is None:
        report = check(mutation.mutant, case=case)
    else:
        monkeypatch.setattr(mutation.where, mutation.attribute, mutation.mutant, raising=False)
        loss_fn = CASES[case].loss_fn if case else fn.softmax_loss
        options = {"in_shape": mutation.in_shape, "net": mutation.net, "train": mutation.train}
        report = check(loss_fn, **options, case=case)
    assert not report.passed, str(report)
    assert any(line.startswith(mutation.leaves) for line in report.failures), str(report)
    assert any("autodiff" in line for line in report.failures)


# Mistakes of a loss and its gradient alike, which no comparison of the two can see: a slow loop of
# plain Python does.


def by_formula(case, formula, mean=True):
    """A loss that is the weighted mean of `formula(s, y)`, [N, K], with autodiff's gradient."""

    def mutant(scores, y, sample_weight):
        share = sample_weight / (sample_weight.sum() if mean else 1)

        def loss(scores):
            return (share * formula(scores, y).mean(axis=1)).sum()

        return jax.value_and_grad(loss)(scores)

    return case, None, "", mutant


def share(change, case="squared"):
    """Every loss with `change(weights)` as the shares of examples."""
    return case, batch, "shares", lambda sample_weight, scores: change(sample_weight)


def huber(d, outside):
    return jnp.where(abs(d) <= 0.3, d * d / 2, outside(abs(d)))


SOUND_FORMULAS = {
    "squared": by_formula("squared", lambda s, y: (s - y) ** 2 / 2),
    "huber": by_formula("huber, 0.3", lambda s, y: huber(s - y, lambda a: 0.3 * (a - 0.15))),
    "pinball": by_formula("pinball", lambda s, y: jnp.maximum((y - s) / 2, (s - y) / 2)),
    "poisson": by_formula("poisson", lambda s, y: jnp.exp(s) - y * s),
    "shares": share(lambda w: w / w.sum()),
}
WRONG = {
    "weights not divided by their sum": share(lambda w: w),
    "weights divided by N": share(lambda w: w / len(w)),
    "weights divided by the largest": share(lambda w: w / w.max()),
    "weights divided by how many are not 0": share(lambda w: w / (w != 0).sum()),
    "weights squared": share(lambda w: w * w / (w * w).sum()),
    "inverse weights": share(lambda w: jnp.where(w == 0, 0, 1 / w)),
    "weights that are shares of the outputs": share(lambda w: w / w.sum() / 3),
    "softmax, weights divided by N": share(lambda w: w / len(w), "poisson"),
    "squared without the half": by_formula("squared", lambda s, y: (s - y) ** 2),
    "squared, the sum over outputs": by_formula("squared", lambda s, y: 3 * (s - y) ** 2 / 2),
    "huber without - delta / 2": by_formula(
        "huber, 0.3", lambda s, y: huber(s - y, lambda a: 0.3 * a)
    ),
    "huber without delta": by_formula("huber, 0.3", lambda s, y: huber(s - y, lambda a: a - 0.15)),
    "huber over delta": by_formula(
        "huber, 0.3", lambda s, y: huber(s - y, lambda a: 0.3 * (a - 0.15)) / 0.3
    ),
    "pinball without the half": by_formula("pinball", lambda s, y: abs(s - y)),
    "sigmoid of the wrong label": by_formula(
        "sigmoid", lambda s, y: jax.nn.softplus(s) - (1 - y) * s
    ),
    "poisson of rates": by_formula("poisson", lambda s, y: jnp.exp(s) - y * jnp.exp(s)),
    "poisson with log y!": by_formula(
        "poisson", lambda s, y: jnp.exp(s) - y * s + jax.scipy.special.gammaln(y + 1.0)
    ),
    "pinball, 1 - q for q": (
        *("pinball, two", None, ""),
        lambda s, y, w: fn.pinball_loss(s, y, w, quantiles=(0.8, 0.3)),
    ),
    "pinball, the quantiles of all targets in turn": (
        *("pinball, two", None, ""),
        lambda s, y, w: fn.pinball_loss(
            s.reshape(len(s), 2, -1).swapaxes(1, 2).reshape(s.shape), y, w, quantiles=(0.2, 0.7)
        ),
    ),
    "members summed": (
        *("squared", None, ""),
        lambda s, y, w: jax.tree.map(lambda a: 2 * a, fn.squared_loss(s, y, w)),
    ),
}


def found(mutation, monkeypatch):
    case, where, attribute, mutant = mutation
    loss_fn = CASES[case].loss_fn if where else mutant
    if where:
        monkeypatch.setattr(where, attribute, mutant)
    return agrees(CASES[case], loss_fn)


@pytest.mark.parametrize("name", SOUND_FORMULAS)
def test_a_sound_formula_agrees_with_a_slow_loop(name, monkeypatch, x64):
    assert found(SOUND_FORMULAS[name], monkeypatch)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_seen(name, monkeypatch, x64):
    assert not found(WRONG[name], monkeypatch)


def balanced(y):
    """Whether all classes that occur count alike, and an example 1 on average."""
    totals = np.bincount(y, fn.class_weights(y, "balanced")[y])
    occurs = np.bincount(y) > 0
    return np.allclose(totals[occurs], len(y) / occurs.sum(), rtol=1e-12)


COUNTS = {
    "sound": lambda y, c: np.where(count(y, c), len(y) / 3 / np.maximum(count(y, c), 1), 0),
    "inverse": lambda y, c: 3 * count(y, c) / len(y),
    "frequencies": lambda y, c: count(y, c) / len(y),
    "all classes counted": lambda y, c: len(y) / c / np.maximum(count(y, c), 1),
    "not divided by C": lambda y, c: len(y) / np.maximum(count(y, c), 1),
    "roots": lambda y, c: np.sqrt(len(y) / 3 / np.maximum(count(y, c), 1)),
}


def count(y, num_classes):
    return np.bincount(y, minlength=num_classes)


@pytest.mark.parametrize("name", COUNTS)
def test_weights_of_classes_that_do_not_balance_are_seen(name, monkeypatch):
    y = np.array([0, 0, 0, 3, 3, 0, 3, 0, 1, 0])
    assert balanced(y)
    monkeypatch.setattr(weights, "_balanced", lambda y, c, sample_weight: COUNTS[name](y, c))
    assert balanced(y) == (name == "sound")
