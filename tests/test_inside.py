"""What goes on inside a network: statistics of its layers, and that looking changes nothing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn


def problem(net, *, features=6, classes=3, n=20):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, features)).astype(np.float32), rng.integers(0, classes, n)
    params, state, _ = net.init(jax.random.key(0), (features,))
    return params, state, x, y


def test_layers_of_relu():
    net = fn.mlp([8], 3)
    params, state, x, y = problem(net)
    found = fn.layer_statistics(net, params, state, x, y, reg=0.1)
    assert found.layers == ("affine1", "relu1", "affine2")
    first, second = ((np.asarray(p["w"]), np.asarray(p["b"])) for p in params.values())
    hidden = x @ first[0] + first[1]
    active = np.maximum(hidden, 0)
    outs = hidden, active, active @ second[0] + second[1]
    np.testing.assert_allclose(found.mean, [out.mean() for out in outs], rtol=1e-4)
    np.testing.assert_allclose(found.std, [out.std() for out in outs], rtol=1e-4)
    zeros = [(out == 0).mean() for out in outs]
    np.testing.assert_allclose(found.zeros, zeros, rtol=1e-5)
    np.testing.assert_allclose(found.saturated, [np.nan, zeros[1], np.nan], rtol=1e-5)
    loss, grads, _ = fn.loss_and_grads(net, params, state, x, y, reg=0.1)
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert found.leaves == ("affine1/b", "affine1/w", "affine2/b", "affine2/w")
    for i, path in enumerate(found.leaves):
        layer, name = path.split("/")
        assert found.gradient[i] == pytest.approx(np.linalg.norm(grads[layer][name]), rel=1e-4)
        assert found.weight[i] == pytest.approx(np.linalg.norm(params[layer][name]), rel=1e-4)
    assert np.isnan(found.update).all()


@pytest.mark.slow
def test_tanh_is_saturated_at_its_ends_and_zero_nowhere():
    net = fn.mlp([50], 3, activation="tanh", weight_scale=3.0)
    params, state, x, y = problem(net)
    found = fn.layer_statistics(net, params, state, x, y)
    slope = 1 - np.tanh(x @ np.asarray(params["affine1"]["w"])) ** 2
    assert found.saturated[1] == pytest.approx((slope < 0.01).mean(), abs=0.01)
    assert 0.5 < found.saturated[1] < 0.95
    assert found.zeros[1] == 0


@pytest.mark.slow
def test_the_layers_inside_residual_blocks_are_seen():
    block = fn.residual(fn.layernorm(), fn.relu(), fn.affine(6))
    net = fn.serial(block, fn.serial(fn.affine(4), fn.dropout(0.5)), fn.affine(3))
    params, state, x, y = problem(net)
    found = fn.layer_statistics(net, params, state, x, y, key=jax.random.key(1))
    assert found.layers == (
        "residual1/layernorm1",
        "residual1/relu1",
        "residual1/affine1",
        "serial1/affine1",
        "serial1/dropout1",
        "affine1",
    )
    assert 0.2 < found.zeros[4] < 0.8
    both = fn.ensemble(fn.mlp([], 3), fn.mlp([], 3))
    assert fn.layer_statistics(both, *problem(both)).layers == ("ensemble",)


def test_the_update_is_that_of_the_optimizer():
    net, optimizer = fn.mlp([8], 3), fn.sgd(0.1)
    params, state, x, y = problem(net)
    opt_state = optimizer.init(params)
    found = fn.layer_statistics(net, params, state, x, y, optimizer=optimizer, opt_state=opt_state)
    np.testing.assert_allclose(found.update, 0.1 * found.gradient, rtol=1e-5)
    weights = found.weight > 0
    assert np.isnan(found.update_ratio[~weights]).all()  # biases start at 0
    np.testing.assert_allclose(
        found.update_ratio[weights], (found.update / np.where(weights, found.weight, 1))[weights]
    )
    with pytest.raises(ValueError, match="give both optimizer and opt_state"):
        fn.layer_statistics(net, params, state, x, y, optimizer=optimizer)


@pytest.mark.slow
def test_a_recorder_looks_after_every_epoch_and_changes_nothing():
    digits = fn.load_digits()
    net = fn.mlp([16], 10, keep_prob=0.8, normalization="batchnorm")
    options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 500}
    optimizer = fn.adam(1e-2)
    record = fn.LayerRecorder(
        net,
        digits.x_train[:100],
        digits.y_train[:100],
        optimizer=optimizer,
        preprocess=fn.subtract_mean(digits.x_train),
    )
    with_it = fn.fit(net, optimizer, digits, callback=record, **options)
    without = fn.fit(net, optimizer, digits, **options)
    for a, b in zip(*map(jax.tree.leaves, (with_it.state, without.state)), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    assert record.epochs == [0, 1, 2]
    assert np.isnan(record.changes[0]).all()
    before = record.rows[1].weight
    assert (record.changes[2][before > 0] > 0).all()
    assert all(np.isfinite(row.update).all() for row in record.rows)
    x = fn.subtract_mean(digits.x_train)(digits.x_train[:100])
    parts = with_it.state.params, with_it.state.state, x, digits.y_train[:100]
    last = fn.layer_statistics(net, *parts, key=jax.random.key(0))
    np.testing.assert_array_equal(last.std, record.rows[-1].std)


def test_a_recorder_wants_a_label_for_each_example():
    with pytest.raises(ValueError, match="x has 3 examples, y 2"):
        fn.LayerRecorder(fn.mlp([2], 2), np.zeros((3, 4)), [0, 1])


def test_a_derivative_below_zero_is_not_flat():
    net = fn.serial(fn.gelu())
    x = np.array([[-1.0, -9.0, 9.0, 0.0]], np.float32)  # derivatives -0.08, 0, 1, 0.5
    found = fn.layer_statistics(net, {}, {}, x, np.array([0]), train=False)
    assert found.saturated[0] == 0.25


def test_a_change_is_by_what_was_before():
    net = fn.serial(fn.affine(3))
    params, state, _ = net.init(jax.random.key(0), (2,))
    x, y = np.ones((4, 2), np.float32), np.zeros(4, int)
    record = fn.LayerRecorder(net, x, y, preprocess=None)
    for epoch, factor in enumerate((1.0, 3.0)):
        moved = jax.tree.map(lambda leaf, factor=factor: factor * (leaf + 1), params)
        record(epoch, SimpleNamespace(params=moved, state=state), {})
    assert np.isnan(record.changes[0]).all()
    np.testing.assert_allclose(record.changes[1], 2.0, rtol=1e-6)
