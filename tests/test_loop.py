"""The loop of an epoch: orders, chunks of steps, buffers, programs that serve again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet import inputs, loop, step, transposed
from funcnet.epochs import Epochs
from funcnet.feed import InMemory
from funcnet.net import matrices

KEY = jax.random.key(7)


def blobs(count, rng):
    y = rng.integers(0, 3, count)
    x = (rng.normal(size=(count, 2, 3)) + y[:, None, None]).astype(np.float32)
    return fn.Dataset(x, y, x[:8], y[:8], x[:0], y[:0], ("a", "b", "c"))


def train(data, net=None, optimizer=None, **changes):
    options = {"key": KEY, "epochs": 3, "batch_size": 8, **changes}
    return fn.fit(net or fn.mlp([9, 4], 3), optimizer or fn.adam(1e-2), data, **options)


def leaves(result):
    return jax.tree.leaves((result.state.params, result.state.opt_state, result.history.loss))


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(3), jax.random.key(1, impl="rbg")])
@pytest.mark.parametrize("count", [1, 2, 5, 1000, 40_000])
def test_orders_are_those_of_earlier_versions(key, count):
    """Runs of other versions, and sorts by XLA: an epoch is a permutation of JAX."""
    order_key, _ = jax.random.split(key)
    orders = loop.Orders(key, count)
    for epoch in (0, 3):
        expected = jax.random.permutation(jax.random.fold_in(order_key, epoch), count)
        assert np.array_equal(orders.of(epoch), expected)


def test_equal_sort_keys_keep_their_order():
    keys = np.array([[3, 1, 3, 1, 0], [2, 2, 2, 1, 2]], np.uint32)
    # Sorted by the first: 4 1 3 0 2; then, as they stand there, by the second.
    assert loop._sorted_by(keys).tolist() == [0, 4, 1, 3, 2]


def test_orders_of_many_runs_are_those_of_each():
    keys = jax.random.split(KEY, 4)
    of_all, of_each = loop.Orders(keys, 11, runs=4), [loop.Orders(key, 11) for key in keys]
    for epoch in (0, 1, 900, 2):  # keys are drawn for some hundred at once
        assert np.array_equal(of_all.of(epoch), [one.of(epoch) for one in of_each])


@pytest.mark.parametrize("count", slow_but([40, 43], 43))
def test_the_size_of_chunks_changes_no_bit(count, rng, monkeypatch):
    data = blobs(count, rng)
    net = fn.mlp([9, 4], 3, normalization="batchnorm", keep_prob=0.8)
    whole = train(data, net)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-12)  # a step each, after the first chunk
    single = train(data, net)
    for a, b in zip(leaves(whole), leaves(single), strict=True):
        assert np.array_equal(a, b)


def test_an_epoch_is_given_up_between_chunks(monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-12)
    done = []

    def steps(held, losses, order, first, end):
        done.append((int(first), int(end)))
        return held, losses

    epoch = loop.make_epoch(np.arange(40, dtype=np.int32), room=40, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        loop.over_epoch(steps, None, None, epoch, 1, False, lambda: len(done) == 3)
    assert done == [(0, 1), (1, 2), (2, 3)]


@pytest.fixture(params=["in place", "not in place"])
def place(request, monkeypatch):
    if request.param == "in place":
        monkeypatch.setattr(loop, "LARGE", 0)


def test_an_epoch_step_by_step_is_the_epoch(rng, place):
    """As what is not finite is looked for: examples of each step, loss, what it leads to."""
    data, net, optimizer = blobs(43, rng), fn.mlp([9, 4], 3), fn.adam(1e-2)
    options = step.complete(step.StepOptions, {}, "make_train_step")
    program, numbers = step.as_program(net, optimizer, options), step.as_numbers(options)
    plain, targets = fn.no_preprocess(data.x_train), fn.Targets()
    arrays = inputs.training_arrays(data, plain, targets, augments=False)
    state = fn.init_train_state(net, optimizer, (2, 3), key=KEY)
    held = step.hold(state, program=program)
    feed = InMemory(state.key, arrays, numbers, batch_size=8)
    epochs = Epochs(feed, program=program, held=held)
    ((after, losses, *_),) = epochs.train(held, 1)
    given, states, own = zip(*epochs.each_step(held, 1), strict=True)
    batches = [batch for _, batch in given]
    assert [len(batch) for batch in batches] == [8] * 5 + [3]
    assert np.array_equal(np.concatenate(batches), loop.Orders(state.key, 43).of(1))
    assert np.array_equal(own, losses)
    for a, b in zip(jax.tree.leaves(states[-1]), jax.tree.leaves(after), strict=True):
        assert np.array_equal(a, b)
    assert [int(held.step) for held in states] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("at", slow_but(range(16), 9))
def test_an_interrupt_at_any_chunk_leaves_the_last_whole_epoch(at, rng, monkeypatch, place):
    data, asked = blobs(43, rng), []
    whole = {epochs: train(data, epochs=epochs) for epochs in (1, 2)}

    def perf_counter():  # before each chunk and after it
        asked.append(len(asked))
        if len(asked) == at + 1:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr(loop.time, "perf_counter", perf_counter)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-12)
    result = train(data)
    assert result.interrupted
    epochs = int(result.state.epoch)
    assert len(result.history.loss) == 6 * epochs
    if epochs:
        for a, b in zip(leaves(result), leaves(whole[epochs]), strict=True):
            assert np.array_equal(a, b)


def test_states_that_were_given_away_are_not_overwritten(rng, place):
    """Neither the one to go on from nor those that a callback has kept."""
    data, kept = blobs(43, rng), []
    first = train(data, epochs=1)
    before = [np.array(leaf) for leaf in jax.tree.leaves(first.state.params)]
    options = {"key": None, "train_state": first.state, "epochs": 4}
    train(data, callback=lambda epoch, state, metrics: kept.append(state), **options)
    for leaf, was in zip(jax.tree.leaves(first.state.params), before, strict=True):
        assert np.array_equal(leaf, was)
    for epochs, state in enumerate(kept, start=1):
        again = train(data, epochs=epochs)
        for a, b in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(again.state.params), strict=True
        ):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("count", slow_but([127, 128, 319, 320], 127))
def test_folds_that_differ_by_a_row_share_the_program(count, rng, compiled):
    # A net for each test: what an earlier one has compiled must not serve here.
    net = fn.mlp([5, count], 3)
    train(blobs(count + 1, rng), net)
    before = len(compiled())
    train(blobs(count, rng), net)
    # What depends on the number of rows: how they are shuffled, and a last batch that is short.
    assert set(compiled()[before:]) <= {"jit(_draw)", "jit(step_on)"}


def test_equal_nets_and_optimizers_made_anew_compile_nothing(rng, compiled):
    data = blobs(43, rng)
    before = None
    for _ in range(3):
        net = fn.mlp([7, 6], 3, normalization=fn.layernorm(eps=1e-4), keep_prob=0.9)
        train(data, net, fn.adamw(fn.cosine_decay(1e-3, 20), weight_decay=0.1))
        assert before is None or compiled()[before:] == []
        before = len(compiled())


def test_rows_that_fill_an_array_are_never_trained_on(rng):
    """Zeros there would be seen by the running statistics."""
    data = blobs(43, rng)
    net = fn.mlp([4], 3, normalization="batchnorm")
    filled, plain = train(data, net), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "roomy", lambda x: x)
        plain = train(data, net)
    for a, b in zip(leaves(filled), leaves(plain), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(("n", "m"), [(5, 3), (5, 7), (4, 4)])
def test_the_gradients_of_a_weight_held_as_its_transpose(n, m, rng, x64):
    x, w = rng.normal(size=(n, 2, 3)), rng.normal(size=(6, m))
    b, dout = rng.normal(size=m), rng.normal(size=(n, m))

    def forward(x, wt, b):
        return transposed.affine_forward(x, transposed.Transposed(wt), b, matmul_dtype=None)

    out, cache = forward(x, w.T, b)
    expected, vjp = jax.vjp(lambda x, w, b: fn.affine_forward(x, w, b)[0], x, w, b)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    dx, dw, db = transposed.affine_backward(dout, cache)
    assert isinstance(dw, transposed.Transposed)
    for ours, theirs in zip((dx, dw.w.T, db), vjp(jnp.asarray(dout)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


NETS = {
    "mlp": lambda: fn.mlp([9, 4], 3, normalization="layernorm"),
    "residual": lambda: fn.serial(
        fn.affine(6), fn.residual(fn.relu(), fn.affine(6)), fn.affine(2), fn.affine(3)
    ),
}
OPTIMIZERS = {
    "adamw": lambda: fn.adamw(1e-2, decay_names=("w",)),
    "sgd": lambda: fn.sgd(1e-2),
    "nesterov": lambda: fn.nesterov(1e-2),
    "rmsprop": lambda: fn.rmsprop(1e-3),
    "lion": lambda: fn.lion(1e-3, weight_decay=0.1, decay_names=("b",)),
    "muon": lambda: fn.muon(1e-2, weight_decay=0.1, adam_names=("affine3",)),
    "clipped": lambda: fn.clip_by_global_norm(fn.adagrad(1e-2), 0.1),
    "averaged": lambda: fn.with_average(fn.clip_by_global_norm(fn.adam(1e-2), 0.5), 0.9),
}


@pytest.mark.parametrize("net", slow_but(NETS, "residual"))
@pytest.mark.parametrize("name", slow_but(OPTIMIZERS, "muon", "averaged"))
def test_holding_transposes_changes_rounding_alone(name, net, rng, x64):
    """An optimizer that is not known is given weights as they are: so two runs are compared."""
    data, optimizer = blobs(43, rng), OPTIMIZERS[name]()

    def init(params):
        return optimizer.init(params)

    def update(grads, opt_state, params):
        for w in (params["affine1"]["w"], grads["affine1"]["w"]):
            assert w.shape[0] == 6  # [D, M]
        return optimizer.update(grads, opt_state, params)

    options = {"reg": 0.1, "label_smoothing": 0.1, "epochs": 2}
    ours = train(data, NETS[net](), optimizer, **options)
    theirs = train(data, NETS[net](), fn.Optimizer(init, update), **options)
    assert jax.tree.structure(ours.state) == jax.tree.structure(theirs.state)
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def test_what_is_held_as_its_transpose():
    """All weights that are known to be factors of a matrix product, and nothing else."""
    own = fn.make_layer("own", fn.affine_forward, fn.affine_backward, names=("w", "b"))
    net = fn.serial(fn.affine(4), own, fn.residual(fn.affine(4)), fn.batchnorm())
    assert matrices(net) == {("affine1", "w"), ("residual1", "affine1", "w")}
    params, _, _ = fn.mlp([4], 3).init(KEY, (6,))
    opt_state = fn.with_average(fn.adam(1e-3), 0.9).init(params)
    held = transposed.hold(params, opt_state, matrices(fn.mlp([4], 3)))
    for tree in (held[0], *(held[1]["optimizer"][name] for name in "mv"), held[1]["average"]):
        assert tree["affine1"]["w"].w.shape == (4, 6)
        assert tree["affine2"]["w"].w.shape == (3, 4)
    again = transposed.release(held)
    assert jax.tree.structure(again) == jax.tree.structure((params, opt_state))
    assert again[0] == params


@pytest.mark.parametrize(("backend", "shape"), [("cpu", (4, 6)), ("gpu", (6, 4))])
def test_weights_are_held_as_their_transposes_on_the_cpu_alone(backend, shape, monkeypatch):
    net, optimizer = fn.mlp([4], 3), fn.adam(1e-3)
    options = step.complete(step.StepOptions, {}, "make_train_step")
    program = step.as_program(net, optimizer, options)
    state = fn.init_train_state(net, optimizer, (6,), key=KEY)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    held = step.held_parts(state, program)
    for tree in (held.params, held.opt_state["m"]):
        assert jax.tree.leaves(tree["affine1"]["w"])[0].shape == shape
