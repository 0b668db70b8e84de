"""Mistakes people make in backward passes, planted one at a time: the check sees each of them.

All sizes are equal where a mistake could otherwise fail by its shape, some units sit
exactly at 0, and there is regularisation: the sound net passes on the very same data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import layers
from funcnet import net as nets

pytestmark = pytest.mark.usefixtures("unoptimized")

SIZE = 4  # N = D = H = C
REG = 0.3


def square(in_shape):
    rng = np.random.default_rng(7)
    net = fn.mlp([SIZE], SIZE)
    params, state, _ = net.init(jax.random.key(0), in_shape)
    params = jax.tree.map(lambda p: jnp.asarray(0.8 * rng.normal(size=p.shape), p.dtype), params)
    # A row of zeros and biases of zero: exact zeros in front of the ReLU.
    params = params.set(("affine1", "b"), params["affine1"]["b"].at[:2].set(0))
    x = rng.normal(size=(SIZE, *in_shape)).astype("f")
    x[2] = 0
    return net, params, state, x, np.array([0, 3, 1, 1])


def check(loss_fn=fn.softmax_loss, in_shape=(2, 2)):
    return fn.check_gradients(*square(in_shape), reg=REG, loss_fn=loss_fn)


class Mutation(NamedTuple):
    """A mistake and how to plant it."""

    where: object  # a module, or None: the mutant is a loss function
    attribute: str
    mutant: object
    leaves: str  # one of those that must be seen to differ
    in_shape: tuple = (2, 2)


def affine(change):
    """affine_backward with `change(dout, (rows, w), dx, dw, db)` in place of its result."""
    sound = layers.affine_backward

    def mutant(dout, cache):
        x, w, _ = cache
        return change(dout, (x.reshape(len(x), -1), w), *sound(dout, cache))

    return Mutation(layers, "affine_backward", mutant, "")


def relu(backward):
    return Mutation(layers, "relu_backward", backward, FIRST)


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


FIRST = "affine1/b"
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


@pytest.mark.parametrize("loss_fn", [fn.softmax_loss, fn.svm_loss])
def test_the_sound_net_passes(loss_fn):
    report = check(loss_fn)
    assert report.passed, str(report)
    # The exact zeros are there, or the mutants at 0 could not be seen.
    assert sum(row.kinks for row in report.rows) > 0


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_seen(name, monkeypatch):
    mutation = MUTATIONS[name]
    if mutation.where is None:
        report = check(mutation.mutant)
    else:
        monkeypatch.setattr(mutation.where, mutation.attribute, mutation.mutant, raising=False)
        report = check(in_shape=mutation.in_shape)
    assert not report.passed, str(report)
    assert any(line.startswith(mutation.leaves) for line in report.failures), str(report)
    assert any("autodiff" in line for line in report.failures)
