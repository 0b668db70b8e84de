"""Training on several devices comes to what one comes to; in shards, to the same bits."""

import re

import jax
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.parallel import Spread

KEY = jax.random.key(3)
unoptimized = pytest.mark.usefixtures("unoptimized")


def blobs(count=45, weights=False):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = (rng.normal(size=(count, 2, 4)) + y[:, None, None]).astype(np.float32)
    data = fn.Dataset(x, y, x[:9], y[:9], x[:0], y[:0], ("a", "b", "c"))
    weight = rng.integers(0, 3, count) / 2
    return data._replace(weight_train=weight) if weights else data


def shifted(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


NETS = {
    "plain": fn.mlp([8], 3),
    "batchnorm": fn.mlp([8, 6], 3, normalization="batchnorm", keep_prob=0.8),
    "layernorm": fn.mlp([8], 3, normalization="layernorm", activation="gelu"),
    "tabm": fn.serial(fn.flatten(), fn.tabm([6], 3, members=3)),
    "stacked": fn.stacked(
        fn.serial(fn.affine(6), fn.residual(fn.batchnorm(), fn.relu(), fn.affine(6)), fn.affine(3)),
        2,
    ),
}
RANDOM = {"augment": shifted, "label_smoothing": 0.1}
EXACT = {"reg": 0.1, "class_weight": "balanced", "label_smoothing": 0.1}


def train(net="batchnorm", devices=None, columns=1, data=None, optimizer=None, **changes):
    mesh = None if devices is None else fn.device_mesh(devices, model_parallel=columns)
    options = {"key": KEY, "epochs": 3, "batch_size": 16, "eval_every": 3, "mesh": mesh}
    net, optimizer = NETS.get(net, net), optimizer or fn.adam(1e-2)
    return fn.fit(net, optimizer, data or blobs(), **{**options, **changes})


def bits(result):
    """What a run comes to, as bytes: parameters, states, moments, losses and measurements."""
    state = result.state._replace(key=jax.random.key_data(result.state.key))
    rows = result.history.rows()
    leaves = [*jax.tree.leaves((state, result.model.params)), result.history.loss, *rows.values()]
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def differences(one, other):
    """The largest difference of parameters and of layers' states."""
    pairs = zip(
        jax.tree.leaves((one.state.params, one.state.state)),
        jax.tree.leaves((other.state.params, other.state.state)),
        strict=True,
    )
    return max(float(abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


@unoptimized
def test_in_shards_the_bits_are_the_same():
    """The last batch has 13 examples, which cannot be divided; before it 16 in 8 shards."""
    net = fn.mlp([6], 3, normalization="batchnorm", keep_prob=0.8)
    options = {"epochs": 2, "eval_every": None, "reproducible": 8}
    assert bits(train(net, 4, **options)) == bits(train(net, 1, **options))


@pytest.mark.slow
@pytest.mark.parametrize("net", ["batchnorm", "layernorm", "tabm"])
def test_in_shards_the_bits_are_those_of_any_number_of_devices(net):
    options = {"tabm": EXACT, "batchnorm": RANDOM}.get(net, {})
    data = blobs(weights="class_weight" in options)
    one, *others = (
        bits(train(net, devices, data=data, reproducible=8, **options)) for devices in (None, 4)
    )
    assert others == [one]


@pytest.mark.parametrize("optimizer", ["muon", "averaged"])
@pytest.mark.slow
def test_optimizers_in_shards(optimizer):
    made = {
        "muon": fn.clip_by_global_norm(fn.muon(1e-2, adam_names=("affine3",)), 0.1),
        "averaged": fn.adamw(fn.cosine_decay(1e-2, 9)),
    }[optimizer]
    options = {"average_decay": 0.9} if optimizer == "averaged" else {}
    options |= {"optimizer": made, "reproducible": 4}
    found = [bits(train("plain", n, **options)) for n in (1, 4)]
    assert found[0] == found[1]


@unoptimized
@pytest.mark.parametrize("reproducible", [None, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("net", slow_but(["plain", "tabm", "stacked"], "plain"))
def test_it_is_the_same_training_in_float64(net, reproducible, x64):
    """But for sums in another order: weights, L2, the state of layers, short batches.

    Adam would make a step of the rounding of a gradient that is 0, that of biases before batch
    norm.
    """
    options = {"data": blobs(weights=True), "optimizer": fn.sgd_momentum(1e-2), **EXACT}
    wanted = train(net, **options)
    grids = ((2, 1), (4, 2)) if net != "stacked" else ((2, 1),)  # its weights are [members, D, M]
    for devices, columns in grids:
        found = train(net, devices, columns, reproducible=reproducible, **options)
        assert differences(found, wanted) < 1e-10
        np.testing.assert_allclose(found.history.loss, wanted.history.loss, rtol=1e-10)


@unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("net", ["batchnorm"])
def test_random_layers_do_not_go_by_the_devices(net, x64):
    """Dropout, augmentation and mixup without shards are those of one device."""
    options = {"optimizer": fn.sgd_momentum(1e-2), **RANDOM}
    wanted = train(net, **options)
    for devices, columns in ((8, 1), (4, 2)):
        assert differences(train(net, devices, columns, **options), wanted) < 1e-10


@pytest.mark.slow
def test_in_float32_it_is_the_same_up_to_rounding():
    wanted = train("plain", epochs=10, optimizer=fn.sgd(1e-2))
    for devices in (2, 8):
        found = train("plain", devices, epochs=10, optimizer=fn.sgd(1e-2))
        assert differences(found, wanted) < 1e-5


@pytest.mark.slow
def test_with_weights_spread_by_columns_the_bits_go_by_their_number_alone():
    found = [bits(train("batchnorm", n, 2, reproducible=4)) for n in (2, 4)]
    assert found == [found[0]] * 2


def test_weights_are_spread_by_columns():
    mesh = fn.device_mesh(4, model_parallel=2)
    placed = Spread(mesh, None).placed({"w": np.zeros((5, 6)), "b": np.zeros(6)})
    assert placed["w"].sharding.shard_shape((5, 6)) == (5, 3)
    assert placed["b"].is_fully_replicated


def stop_after(epoch):
    def callback(done, *_):
        return done == epoch

    return callback


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices_to_the_same_bits(tmp_path):
    options = {"reproducible": 8, "epochs": 4, "checkpoint": tmp_path}
    train(devices=2, callback=stop_after(1), **options)
    train(devices=4, callback=stop_after(2), resume=True, **options)
    found = train(devices=None, resume=True, **options)
    options.pop("checkpoint")
    assert bits(found) == bits(train(devices=2, **options))


def test_a_run_in_shards_does_not_go_on_in_others(tmp_path):
    options = {"epochs": 4, "checkpoint": tmp_path}
    train(devices=2, callback=stop_after(1), reproducible=8, **options)
    for changes in ({"reproducible": 4}, {}, {"reproducible": 8, "columns": 2}):
        with pytest.raises(ValueError, match=r"reproducible|model_parallel"):
            train(devices=2, resume=True, **options, **changes)


@unoptimized
@pytest.mark.parametrize("reproducible", [None, pytest.param(4, marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_is_found_on_several_devices(reproducible):
    data = blobs()
    x = data.x_train.copy()
    x[5] = 1e38
    options = {
        "data": data._replace(x_train=x),
        "devices": 4,
        "reproducible": reproducible,
        "preprocess": None,
    }
    with pytest.raises(fn.NonFiniteError) as raised:
        train("plain", **options)
    assert raised.value.trouble.step <= 3
    skipped = train("plain", on_nonfinite="skip", **options)
    assert (~np.isfinite(skipped.history.loss)).sum() == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(skipped.state.params))


@pytest.mark.slow
def test_a_mesh_of_ones_own():
    """Of one axis, of other names, and of the kind that JAX makes by default."""
    mesh = jax.make_mesh((4,), ("x",))
    assert bits(train(mesh=mesh, reproducible=4)) == bits(train(devices=4, reproducible=4))


def own_layer():
    """A layer with a state that goes by its shard alone."""

    def forward(x, *, state, key, train):
        return x, (), {"mean": x.mean(axis=0)}

    def init(key, in_shape):
        return {}, {"mean": np.zeros(in_shape, "f")}, in_shape

    return fn.make_stateful_layer("seen", forward, lambda dout, cache: dout, init)


def test_what_is_wrong_is_said_at_the_start():
    cases = [
        ({"mesh": fn.device_mesh(8), "batch_size": 12}, "12, which cannot be divided among 8"),
        ({"reproducible": 3}, "power of two, 1, 2, 4, ..., got 3"),
        ({"reproducible": 0}, "reproducible"),
        ({"reproducible": 32}, "batch_size is 16, which cannot be cut in 32 equal shards"),
        ({"mesh": fn.device_mesh(8), "reproducible": 4}, "4: so many shards cannot be divided am"),
        ({"mesh": fn.device_mesh(3), "batch_size": 15, "reproducible": 4}, "among 3 devices"),
        ({"mesh": fn.device_mesh(7, model_parallel=7), "net": "plain"}, "outputs that 7 divides"),
        ({"mesh": jax.make_mesh((2, 2, 2), ("a", "b", "c"))}, "one axis, of examples, or two"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            train(**changes)
    with pytest.raises(TypeError, match=re.escape("mesh must be a jax.sharding.Mesh")):
        train(mesh=4)
    net = fn.serial(own_layer(), fn.affine(3))
    with pytest.raises(ValueError, match="must take it by batch_sum or batch_mean"):
        train(net, reproducible=4)


def test_meshes_that_cannot_be():
    with pytest.raises(ValueError, match=re.escape("devices is 9, but JAX has 8 devices: cpu")):
        fn.device_mesh(9)
    with pytest.raises(ValueError, match="model_parallel is 3, which does not divide 8 devices"):
        fn.device_mesh(model_parallel=3)
    assert dict(fn.device_mesh(model_parallel=2).shape) == {"data": 4, "model": 2}


def of_settings(learning_rate, keep_prob=0.9, seed=0):
    net = fn.mlp([8], 3, normalization="batchnorm", keep_prob=keep_prob)
    return net, fn.sgd_momentum(learning_rate), {"reg": 1e-2}


def swept(mesh, settings, **changes):
    options = {"epochs": 3, "batch_size": 16, "mesh": mesh, **changes}
    return fn.sweep(of_settings, blobs(), settings, **options)


SETTINGS = fn.grid(learning_rate=[1e-3, 3e-3, 1e-2, 3e-2], keep_prob=[0.7, 0.9], seed=[0, 1])


def check_same_members(found, wanted):
    for own, alone in zip(found.members, wanted.members, strict=True):
        assert (own.settings, own.status, own.epochs) == (alone.settings, "finished", 3)
        np.testing.assert_allclose(own.history.loss, alone.history.loss, rtol=2e-5)
        scores = (fn.predict_scores(member.model, blobs().x_train) for member in (own, alone))
        np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-4)


@unoptimized
def test_a_sweep_over_devices_is_that_on_one():
    check_same_members(swept(fn.device_mesh(8), SETTINGS[:3]), swept(None, SETTINGS[:3]))


@pytest.mark.slow
def test_a_sweep_of_digits_over_eight_devices_is_that_on_one():
    """Sixty-four members, to the tolerance of a member that is trained alone."""

    def experiment(learning_rate, reg):
        return fn.mlp([16], 10), fn.sgd_momentum(learning_rate), {"reg": reg}

    axes = {"learning_rate": fn.log_uniform(1e-3, 1e-2), "reg": fn.uniform(0, 0.1)}
    rates = fn.random_search(KEY, 64, **axes)
    options = {"key": KEY, "epochs": 3, "batch_size": 100}
    one = fn.sweep(experiment, fn.load_digits(), rates, **options)
    found = fn.sweep(experiment, fn.load_digits(), rates, mesh=fn.device_mesh(8), **options)
    for own, alone in zip(found.members, one.members, strict=True):
        np.testing.assert_allclose(own.history.loss, alone.history.loss, rtol=1e-4)
        for pair in zip(*map(jax.tree.leaves, (own.model, alone.model)), strict=True):
            np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-4)


@unoptimized
@pytest.mark.slow
def test_a_sweep_goes_on_over_other_devices(tmp_path):
    wanted = swept(None, SETTINGS)
    kept = {"checkpoint": tmp_path, "resume": True, "checkpoint_every": 1, "chunk_size": 8}
    first = swept(fn.device_mesh(4), SETTINGS, callback=lambda done, *_: done >= 8, **kept)
    assert first.interrupted
    check_same_members(swept(fn.device_mesh(2), SETTINGS, **kept), wanted)


@unoptimized
@pytest.mark.slow
def test_folds_over_devices():
    options = {"folds": 3, "epochs": 2, "batch_size": 10, "key": KEY}
    rates = fn.grid(learning_rate=[1e-3, 1e-2])
    one = fn.cross_validate(of_settings, blobs(), rates, **options)
    found = fn.cross_validate(of_settings, blobs(), rates, mesh=fn.device_mesh(4), **options)
    np.testing.assert_allclose(found.out_of_fold[0], one.out_of_fold[0], rtol=1e-4)


def test_a_sweep_has_no_columns():
    with pytest.raises(ValueError, match="spreads its members over devices, not the weights"):
        swept(fn.device_mesh(4, model_parallel=2), SETTINGS)


@unoptimized
def test_shards_have_random_numbers_of_their_own():
    """Of one example each: were their noise the same, the step of w would be of rank 1."""
    x, none = np.zeros((2, 4), "f"), np.zeros(0, int)
    data = fn.Dataset(x, np.array([0, 1]), x[:0], none, x[:0], none, ("a", "b", "c"))
    options = {"augment": shifted, "epochs": 1, "batch_size": 2, "eval_every": None}
    options |= {"preprocess": None, "reproducible": 2, "key": KEY}
    ends = [
        fn.fit(fn.mlp([], 3), fn.sgd(rate), data, **options).state.params["affine1"]["w"]
        for rate in (1.0, 2.0)
    ]
    assert np.linalg.matrix_rank(np.asarray(ends[1]) - np.asarray(ends[0]), tol=1e-4) == 2
