"""Mistakes people make in backward passes, planted one at a time: the check sees each of them.

All sizes are equal where a mistake could otherwise fail by its shape, some units sit
exactly at 0, and there is regularisation: the sound net passes on the very same data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet import layers
from funcnet import net as nets
from funcnet.losses import LOSSES

pytestmark = pytest.mark.usefixtures("eager")

SIZE = 4  # N = D = H = C
REG = 0.3
KEEP_PROB = 0.6
SLOPE = 0.3

# What stands between two affine layers.
NETS = {
    "relu": fn.relu,
    "leaky_relu": lambda: fn.leaky_relu(SLOPE),
    "gelu": fn.gelu,
    "gelu_tanh": lambda: fn.gelu(approximate=True),
    "tanh": fn.tanh,
    "batchnorm": fn.batchnorm,
    "layernorm": fn.layernorm,
    "dropout": lambda: fn.dropout(KEEP_PROB),
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


def check(loss_fn=fn.softmax_loss, in_shape=(2, 2), net="relu", train=True):
    key = jax.random.key(5)
    return fn.check_gradients(
        *square(net, in_shape), reg=REG, loss_fn=loss_fn, key=key, train=train
    )


class Mutation(NamedTuple):
    """A mistake and how to plant it."""

    where: object  # a module, or None: the mutant is a loss function
    attribute: str
    mutant: object
    leaves: str  # one of those that must be seen to differ
    in_shape: tuple = (2, 2)
    net: str = "relu"
    train: bool = True


def affine(change):
    """affine_backward with `change(dout, (rows, w), dx, dw, db)` in place of its result."""
    sound = layers.affine_backward

    def mutant(dout, cache):
        x, w, _ = cache
        return change(dout, (x.reshape(len(x), -1), w), *sound(dout, cache))

    return Mutation(layers, "affine_backward", mutant, "")


def backward(name, mutant, leaves="affine1/b", train=True):
    """The mutant in place of a layer's backward pass."""
    return Mutation(layers, f"{name}_backward", mutant, leaves, net=name, train=train)


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


def penalty(change):
    sound = nets.l2_penalty

    def mutant(params, reg):
        return change(*sound(params, reg), params, reg)

    return Mutation(nets, "l2_penalty", mutant, "affine1/w")


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


FIRST = "affine1/b"
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
    if net in ("relu", "leaky_relu"):
        assert sum(row.kinks for row in report.rows) > 0


@pytest.mark.parametrize("name", slow_but(MUTATIONS, *list(MUTATIONS)[::3]))
def test_a_mistake_is_seen(name, monkeypatch):
    mutation = MUTATIONS[name]
    if mutation.where is None:
        report = check(mutation.mutant)
    else:
        monkeypatch.setattr(mutation.where, mutation.attribute, mutation.mutant, raising=False)
        report = check(in_shape=mutation.in_shape, net=mutation.net, train=mutation.train)
    assert not report.passed, str(report)
    assert any(line.startswith(mutation.leaves) for line in report.failures), str(report)
    assert any("autodiff" in line for line in report.failures)
