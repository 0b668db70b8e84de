"""Batches in shards: sums over all of them, and the same bits wherever they are computed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.exact import in_order
from funcnet.parallel import Spread
from funcnet.shards import over_shards, split

SHARDS = 8


def ordered(function, whole, sharded, devices):
    """`in_order` on so many devices; the shards [SHARDS, ...] are spread over them."""
    spread = Spread(fn.device_mesh(devices), SHARDS)
    made = split(function, whole, sharded[0], SHARDS)
    each, rows = SHARDS // devices, range(devices)
    wholes = [spread.on_row(whole, row) for row in rows]
    own = [
        [spread.on_row((sharded[n], np.int32(n)), row) for n in range(row * each, (row + 1) * each)]
        for row in rows
    ]
    found = in_order(made, wholes, own, spread if devices > 1 else None)
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])
    return found[0]


def tree_sum(values):
    """The sum along the fixed binary tree, in NumPy."""
    while len(values) > 1:
        values = values[::2] + values[1::2]
    return values[0]


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_sums_are_added_along_one_tree(devices, rng):
    x = (rng.normal(size=(SHARDS, 5, 3)) * 10.0 ** rng.integers(-6, 6, (SHARDS, 1, 1))).astype("f")
    wanted = tree_sum(x[:, 0])
    orders = {tree_sum(x[rng.permutation(SHARDS), 0]).tobytes() for _ in range(20)}
    assert len(orders) > 1  # else it shows nothing
    found = ordered(lambda whole, x: over_shards(x[0]), (), x, devices)
    assert np.asarray(found).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("devices", [1, 4])
def test_a_function_is_split_where_it_sums(devices, x64, rng):
    """Sums of sums, of what all have, of one that is compiled; numbers, random ones, keys."""
    x, w, key = rng.normal(size=(SHARDS, 4, 3)), rng.normal(size=(3, 2)), jax.random.key(7)

    @jax.jit
    def spread(h):
        return fn.batch_mean(jnp.square(h - fn.batch_mean(h)))

    def function(whole, x):
        w, key = whole
        own = jax.random.fold_in(key, jax.lax.axis_index(fn.BATCH_AXIS))
        h = x @ w
        var = spread(h)
        noise = jax.random.normal(own, h.shape)  # after a sum: the key is kept
        total = over_shards((h / jnp.sqrt(var) * noise).sum())
        largest = jax.lax.pmax(h.max(), fn.BATCH_AXIS)
        return {"total": total, "var": var, "w": 2 * w, "one": over_shards(1.0), "max": largest}

    found = ordered(function, (w, key), x, devices)
    h = x.reshape(-1, 3) @ w
    keys = [jax.random.fold_in(key, number) for number in range(SHARDS)]
    noise = np.concatenate([jax.random.normal(own, (4, 2)) for own in keys])
    wanted = {"var": h.var(axis=0), "w": 2 * w, "one": 8, "max": h.max()}
    wanted["total"] = (h / h.std(axis=0) * noise).sum()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), dict(found), wanted)


def test_what_is_another_for_each_shard_is_refused(rng):
    x = rng.normal(size=(SHARDS, 4, 3)).astype("f")
    with pytest.raises(ValueError, match="output 1 of what is trained in shards is another for"):
        ordered(lambda whole, x: (fn.batch_sum(x), x.sum(axis=0)), (), x, 2)


def test_a_sum_within_a_loop_is_refused(rng):
    x = rng.normal(size=(SHARDS, 4, 3)).astype("f")

    def looped(whole, x):
        return jax.lax.fori_loop(0, 3, lambda _, total: total + fn.batch_sum(x), jnp.zeros(3))

    with pytest.raises(ValueError, match="a sum over the batch stands inside of scan"):
        ordered(looped, (), x, 2)


def test_without_shards_they_are_plain_sums(rng):
    x = rng.normal(size=(6, 3)).astype("f")
    assert (fn.batch_sum(x) == x.sum(axis=0)).all()
    assert (fn.batch_mean(x) == jnp.asarray(x).mean(axis=0)).all()


NETS = {
    "batchnorm": fn.mlp([7, 5], 3, normalization="batchnorm"),
    "residual": fn.serial(
        fn.affine(6), fn.residual(fn.batchnorm(), fn.relu(), fn.affine(6)), fn.affine(3)
    ),
    "layernorm": fn.mlp([7, 5], 3, normalization="layernorm", activation="gelu"),
    "stacked": fn.stacked(fn.mlp([5], 3, normalization="batchnorm"), 2),
    "tabm": fn.tabm([5], 3, members=3),
}


@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("weights", slow_but(["none", "some", "one shard"], "some"))
@pytest.mark.parametrize("name", slow_but([*NETS], "batchnorm", "tabm"))
def test_loss_and_gradients_of_shards_are_those_of_the_batch(name, weights, x64, rng):
    net = NETS[name]
    x, y = rng.normal(size=(24, 4)), rng.integers(0, 3, 24)
    some, one_shard = rng.integers(0, 3, 24) / 2, 2.0 * (np.arange(24) < 6)
    w = {"none": None, "some": some, "one shard": one_shard}[weights]
    params, state, _ = net.init(jax.random.key(0), (4,))
    options = {"reg": 0.1}
    wanted = fn.loss_and_grads(net, params, state, x, y, sample_weight=w, **options)

    def of_shard(x, y, w):
        return fn.loss_and_grads(net, params, state, x, y, sample_weight=w, **options)

    shards = [None if a is None else a.reshape(4, 6, *a.shape[1:]) for a in (x, y, w)]
    axes = tuple(None if a is None else 0 for a in shards)
    found = jax.vmap(of_shard, in_axes=axes, axis_name=fn.BATCH_AXIS)(*shards)
    of_all = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), wanted)  # each shard has that
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-14), found, of_all)
