"""The training step, the loop around it, prediction and evaluation."""

import inspect
import itertools
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.inputs import training_arrays

KEY = jax.random.key(7)


def blobs(train=53, val=20, test=20, classes=3, shape=(2, 3), seed=0):
    """Noisy points around one centre for each class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, *shape))
    parts = []
    for count in (train, val, test):
        y = rng.integers(classes, size=count).astype(np.int32)
        parts += [(centres[y] + 0.7 * rng.normal(size=(count, *shape))).astype(np.float32), y]
    return fn.Dataset(*parts, tuple("abc")[:classes])


def counting(net):
    """The same network, and a list that grows whenever its forward pass is traced."""
    traces = []

    def forward(*args, **kwargs):
        traces.append(1)
        return net.forward(*args, **kwargs)

    return net._replace(forward=forward), traces


def quick(**changes):
    options = {"key": KEY, "epochs": 3, "batch_size": 10, **changes}
    data = options.pop("dataset", blobs())
    net = options.pop("net", NET)
    return fn.fit(net, options.pop("optimizer", ADAM), data, **options)


@pytest.fixture
def compiles():
    """A list that grows whenever anything is compiled."""
    events = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


NET = fn.mlp([8, 5], 3)
DROPPING = fn.mlp([8], 3, keep_prob=0.8)
NORMALIZED = fn.mlp([4], 3, normalization="batchnorm")
ADAM = fn.adam(1e-2)
SHIFT = partial(fn.random_shift, max_shift=1)
EVERYTHING = {
    "net": DROPPING,
    "augment": (fn.random_flip, SHIFT),
    "label_smoothing": 0.1,
    "mixup_alpha": 0.3,
    "average_decay": 0.9,
}
PLAIN = {"plain": {}, "everything": EVERYTHING}

either = pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
SLOWLY = [
    pytest.param(PLAIN[name], marks=() if name == "plain" else pytest.mark.slow) for name in PLAIN
]
plain_or_slow = pytest.mark.parametrize("options", SLOWLY, ids=PLAIN)


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# The step


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_train_step_is_loss_and_grads_then_update(reg):
    data = blobs()
    state = fn.init_train_state(NET, ADAM, (2, 3), key=KEY)
    x, y = data.x_train[:9], data.y_train[:9]
    step = fn.make_train_step(NET, ADAM, reg=reg)
    after, metrics = step(state, x, y)

    loss, grads, _ = fn.loss_and_grads(NET, state.params, state.state, x, y, reg=reg)
    updates, opt_state = ADAM.update(grads, state.opt_state, state.params)
    params = fn.apply_updates(state.params, updates)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    assert fn.scaled_error(after.params, params) < 1e-5
    assert fn.scaled_error(after.opt_state, opt_state) < 1e-5
    assert (int(after.step), int(after.epoch)) == (1, 0)
    assert (int(state.step), int(state.epoch)) == (0, 0)


@pytest.mark.parametrize(
    "freeze",
    [
        pytest.param(fn.freeze, id="FrozenDict", marks=pytest.mark.slow),
        pytest.param(fn.unfreeze, id="dict"),
    ],
)
def test_jitted_and_unjitted_steps_agree_on_any_kind_of_dict(freeze):
    data = blobs()
    with jax.enable_x64(True):
        state = fn.init_train_state(NET, ADAM, (2, 3), key=KEY)
        params = freeze(state.params)
        state = state._replace(params=params, opt_state=ADAM.init(params))
        step = fn.make_train_step(NET, ADAM, reg=0.1)
        jitted = plain = state
        for start in (0, 10, 20):
            batch = data.x_train[start : start + 10], data.y_train[start : start + 10]
            jitted, _ = step(jitted, *batch)
            with jax.disable_jit():
                plain, _ = step(plain, *batch)
        assert jax.tree.structure(jitted) == jax.tree.structure(plain) == jax.tree.structure(state)
        assert fn.scaled_error(jitted.params, plain.params) < 1e-12


def test_train_step_preprocesses():
    data = blobs()
    preprocess = fn.subtract_mean(data.x_train)
    state = fn.init_train_state(NET, ADAM, (2, 3), key=KEY)
    _, raw = fn.make_train_step(NET, ADAM, preprocess=preprocess)(state, data.x_train, data.y_train)
    centred = data.x_train - data.x_train.mean(axis=0)
    _, metrics = fn.make_train_step(NET, ADAM)(state, centred, data.y_train)
    np.testing.assert_allclose(raw["loss"], metrics["loss"], rtol=1e-5)


def test_train_step_augments_the_raw_inputs():
    data = blobs()
    mean = data.x_train.mean(axis=0)
    options = {"preprocess": fn.subtract_mean(data.x_train)}
    step = fn.make_train_step(
        NET, ADAM, augment=lambda key, x: jnp.broadcast_to(mean, x.shape), **options
    )
    state = fn.init_train_state(NET, ADAM, (2, 3), key=KEY)
    _, metrics = step(state, data.x_train, data.y_train)
    np.testing.assert_allclose(metrics["loss"], np.log(3), rtol=1e-5)  # of inputs that are 0


def test_train_step_smooths_the_labels():
    data = blobs()
    state = fn.init_train_state(NET, ADAM, (2, 3), key=KEY)
    x, y = data.x_train, data.y_train
    after, metrics = fn.make_train_step(NET, ADAM, label_smoothing=0.3, reg=0.1)(state, x, y)
    targets = 0.7 * np.eye(3)[y] + 0.1
    loss, grads = jax.value_and_grad(fn.loss, argnums=1)(
        NET, state.params, state.state, x, targets, reg=0.1
    )
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    _, opt_state = ADAM.update(grads, state.opt_state, state.params)
    assert fn.scaled_error(after.opt_state, opt_state) < 1e-4


# The loop


def test_fit_learns():
    result = quick(epochs=30)
    assert result.history.train_accuracy[-1] > 0.9
    assert result.history.loss[-1] < 0.5 * result.history.loss[0]


def test_every_epoch_is_a_pass_over_all_examples_in_a_new_order():
    """The inputs are one-hot, so that a linear net's first SGD step tells who was seen."""
    count = 23
    x = np.eye(count, dtype=np.float32)
    y = np.zeros(count, np.int32)
    data = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], ("a", "b"))
    net = fn.mlp([], 2, weight_scale=0.0)
    seen = []

    def loss_fn(scores, labels):
        # A gradient of 1 wherever: w[i] counts, with the rate, in which steps i was seen.
        return scores.sum(), jnp.ones_like(scores)

    options = {"key": KEY, "batch_size": 5, "preprocess": None, "loss_fn": loss_fn}
    optimizer = fn.Optimizer(
        init=lambda params: {"step": jnp.zeros((), jnp.int32)},
        update=lambda grads, state, params: (
            jax.tree.map(lambda g: g * 10.0 ** (state["step"] % 5), grads),
            {"step": state["step"] + 1},
        ),
    )

    def remember(epoch, train_state, metrics):
        seen.append(np.asarray(train_state.params["affine1"]["w"][:, 0]))

    fn.fit(net, optimizer, data, epochs=3, callback=remember, **options)
    orders = [after - before for before, after in itertools.pairwise(seen)]
    for order in orders:  # each example once: five steps of 5, 5, 5, 5 and 3
        assert sorted(order) == [1] * 5 + [10] * 5 + [100] * 5 + [1000] * 5 + [10000] * 3
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_short_last_batch_is_a_step_of_its_own():
    for train, steps in ((50, 5), (51, 6), (59, 6), (10, 1)):
        data = blobs(train=train)
        result = quick(dataset=data, epochs=2)
        assert len(result.history.loss) == 2 * steps
        assert int(result.state.step) == 2 * steps


@plain_or_slow
def test_fit_compiles_its_epoch_once(options, compiles):
    net, traces = counting(NET)
    options = {**options, "net": net}
    counts = []
    quick(**options, epochs=4, callback=lambda *_: counts.append(len(traces)))
    assert counts[1] > counts[0] > 0
    assert len(set(counts[1:])) == 1
    # A second run with the same parts compiles nothing.
    assert compiles
    other = jax.random.key(8)
    compiles.clear()
    quick(**options, epochs=4, key=other)
    assert not compiles


@plain_or_slow
def test_fit_is_a_function_of_its_arguments(options):
    a, b = quick(**options), quick(**options)
    assert_trees_equal(a.state._replace(key=0), b.state._replace(key=0))
    assert_trees_equal(a.model, b.model)
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    c = quick(**options, key=jax.random.key(8))
    assert not np.array_equal(a.history.loss, c.history.loss)


@either
def test_looking_does_not_change_the_run(options):
    a = quick(**options, eval_every=None)
    b = quick(**options, eval_every=2, callback=lambda *_: None)
    assert_trees_equal(a.state.params, b.state.params)
    assert_trees_equal(a.model, b.model)
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    assert a.best is None
    assert len(a.history.epoch) == 0
    np.testing.assert_array_equal(b.history.epoch, [0, 2, 3])


@either
def test_fit_goes_on_from_a_train_state_exactly(options):
    whole = quick(**options, epochs=5)
    half = quick(**options, epochs=2)
    rest = quick(**options, key=None, train_state=half.state, epochs=5)
    assert_trees_equal(whole.state.params, rest.state.params)
    assert_trees_equal(whole.state.opt_state, rest.state.opt_state)
    assert_trees_equal(whole.model, rest.model)
    assert (int(rest.state.step), int(rest.state.epoch)) == (5 * 6, 5)
    np.testing.assert_array_equal(whole.history.loss[12:], rest.history.loss)
    np.testing.assert_array_equal(rest.history.epoch, [2, 3, 4, 5])
    for name in ("val_loss", "train_accuracy"):
        rows = getattr(whole.history, name)[2:], getattr(rest.history, name)
        np.testing.assert_array_equal(*rows)


def test_fit_matches_steps_taken_one_by_one():
    """With the whole data as one batch the order does not matter: steps done by hand."""
    data = blobs()
    with jax.enable_x64(True):
        result = quick(dataset=data, batch_size=53, epochs=4, reg=0.2)
        state = fn.init_train_state(NET, ADAM, (2, 3), key=KEY)
        preprocess = fn.subtract_mean(data.x_train)
        step = fn.make_train_step(NET, ADAM, reg=0.2, preprocess=preprocess)
        losses = []
        for _ in range(4):
            state, metrics = step(state, data.x_train, data.y_train)
            losses.append(float(metrics["loss"]))
        assert fn.scaled_error(result.state.params, state.params) < 1e-11
        np.testing.assert_allclose(result.history.loss, losses, rtol=1e-11)


@pytest.mark.slow
def test_fit_matches_steps_taken_one_by_one_with_everything():
    """Steps on the very batches that fit took, as an augmentation saw them."""
    data = blobs(train=12)
    seen = []

    def remember(key, x):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return x

    options = {"augment": (remember, *EVERYTHING["augment"]), "reg": 0.2}
    options |= {name: EVERYTHING[name] for name in ("label_smoothing", "mixup_alpha")}
    result = quick(dataset=data, net=DROPPING, batch_size=12, epochs=3, **options)
    jax.effects_barrier()
    label_of = dict(zip(map(bytes, data.x_train), data.y_train, strict=True))
    batches = list(seen)
    assert len(batches) == 3
    state = fn.init_train_state(DROPPING, ADAM, (2, 3), key=KEY)
    preprocess = fn.subtract_mean(data.x_train)
    step = fn.make_train_step(DROPPING, ADAM, preprocess=preprocess, **options)
    losses = []
    for x in batches:
        state, metrics = step(state, x, np.array([label_of[bytes(image)] for image in x]))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(result.history.loss, losses, rtol=1e-4)
    assert fn.scaled_error(result.state.params, state.params) < 1e-3


@pytest.mark.parametrize("option", ["augment", "label_smoothing", "mixup_alpha"])
def test_each_option_changes_the_run_and_nothing_before_it(option, unoptimized):
    changed, plain = quick(**{option: EVERYTHING[option]}, epochs=1), quick(epochs=1)
    assert np.all(changed.history.loss != plain.history.loss)
    np.testing.assert_allclose(changed.history.val_loss[0], plain.history.val_loss[0], rtol=1e-5)
    assert changed.history.val_loss[1] != plain.history.val_loss[1]


def test_options_of_zero_are_none():
    plain, zero = quick(), quick(label_smoothing=0.0, mixup_alpha=0, augment=None)
    assert_trees_equal(plain.state._replace(key=0), zero.state._replace(key=0))
    np.testing.assert_array_equal(plain.history.loss, zero.history.loss)


def test_labels_that_are_smoothed_away_teach_nothing():
    """With a smoothing of 1 all classes are right, and the labels do not matter."""
    data = blobs()
    others = data._replace(y_train=(data.y_train + 1) % 3)
    a, b = (quick(dataset=d, label_smoothing=1.0, epochs=2) for d in (data, others))
    np.testing.assert_array_equal(a.history.loss, b.history.loss)


def test_no_random_key_is_used_twice(monkeypatch, unoptimized):
    used = []

    def note(name, key):
        children = jax.random.split(key, 4)  # and those that are split off it, twice
        grandchildren = jax.vmap(lambda child: jax.random.split(child, 4))(children).ravel()
        keys = jnp.concatenate([key[None], children, grandchildren])
        data = jax.random.key_data(keys)
        jax.debug.callback(lambda data: used.append((name, data.tobytes())), data)

    def augmentation(name):
        def augment(key, x):
            note(name, key)
            return x

        return augment

    def mixed(key, x, targets, alpha):
        note("mixup", key)
        return x, targets

    def forward(params, state, x, *, key, train):
        if train:
            note("layer", key)
        return DROPPING.forward(params, state, x, key=key, train=train)

    monkeypatch.setattr("funcnet.step.mixup", mixed)
    quick(
        net=DROPPING._replace(forward=forward),
        augment=[augmentation("first"), augmentation("second")],
        mixup_alpha=0.2,
        epochs=2,
    )
    jax.effects_barrier()
    names = [name for name, _ in used]
    assert {name: names.count(name) for name in names} == dict.fromkeys(
        ("first", "second", "mixup", "layer"), 12
    )
    keys = [data[i : i + 8] for _, data in used for i in range(0, len(data), 8)]
    assert len(set(keys)) == len(keys) == 4 * 12 * 21


@pytest.mark.parametrize(("dim", "augments", "left"), [(5, False, 5), (6, False, 6), (5, True, 6)])
def test_preprocessing_that_narrows_is_done_once(dim, augments, left):
    """By however little: the steps then take what is left of the six numbers of an example."""
    data = blobs()
    whitened = fn.whiten(data.x_train, dim=dim)
    arrays = training_arrays(data, whitened, fn.Targets(), augments=augments)
    assert arrays.x[0].size == left
    expected = whitened(data.x_train)
    found = np.asarray(arrays.preprocess(arrays.x[:53]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (arrays.preprocess.kind == whitened.kind) == (left == 6)


@pytest.mark.slow
def test_preprocessing_that_narrows_is_the_same_done_once():
    """Without augmentation it is applied before training; with one, in every step."""

    def unchanged(key, x):
        assert x.shape[1:] == (2, 3)  # raw
        return x

    preprocess = partial(fn.whiten, dim=4)
    once = quick(preprocess=preprocess)
    each_time = quick(preprocess=preprocess, augment=unchanged)
    np.testing.assert_allclose(once.history.loss, each_time.history.loss, rtol=1e-4)
    assert once.model.preprocess == each_time.model.preprocess
    assert once.state.params["affine1"]["w"].shape == (4, 8)
    data = blobs()
    measured = fn.evaluate(once.model, data.x_val, data.y_val)  # of raw inputs
    np.testing.assert_allclose(measured.loss, once.history.val_loss[-1], rtol=1e-6)


# Averaged parameters


def visited(**options):
    """A run of a step an epoch, and the parameters after each."""
    seen = []
    options = {"batch_size": 53, "epochs": 6, **options}
    result = quick(callback=lambda epoch, state, _: seen.append(state.params), **options)
    return result, seen[1:]


@pytest.mark.parametrize("decay", [0, 0.5, 0.9])
def test_the_model_is_the_average_of_the_parameters_visited(decay):
    result, seen = visited(average_decay=decay)
    assert_trees_equal(result.state.params, seen[-1])
    weights = np.array([decay**age for age in reversed(range(6))], float)
    weights /= weights.sum()
    mean = jax.tree.map(lambda *leaves: np.tensordot(weights, leaves, 1), *seen)
    assert fn.scaled_error(result.model.params, mean) < 1e-5
    assert (fn.scaled_error(result.model.params, result.state.params) < 1e-6) == (decay == 0)


def test_averaging_does_not_change_the_steps():
    (averaged, _), (plain, _) = visited(average_decay=0.9), visited()
    np.testing.assert_allclose(averaged.history.loss, plain.history.loss, rtol=1e-5)
    assert fn.scaled_error(averaged.state.params, plain.state.params) < 1e-4
    rows = averaged.history.val_loss, plain.history.val_loss
    np.testing.assert_allclose(rows[0][:2], rows[1][:2], rtol=1e-5)  # the start, one step
    assert np.all(rows[0][2:] != rows[1][2:])


def test_the_average_is_what_is_measured():
    data = blobs()
    result, _ = visited(average_decay=0.9)
    measured = fn.evaluate(result.model, data.x_val, data.y_val)
    assert measured.loss == result.history.val_loss[-1]
    best = fn.evaluate(result.best, data.x_val, data.y_val)
    assert (best.loss, best.accuracy) == (result.best.loss, result.best.accuracy)


@pytest.mark.parametrize(("before", "after"), [(None, 0.9), (0.9, None)])
def test_going_on_with_or_without_an_average_is_refused(before, after):
    done = quick(epochs=1, average_decay=before)
    with pytest.raises(ValueError, match="opt_state") as error:
        quick(key=None, train_state=done.state, average_decay=after)
    assert "\n" not in str(error.value)


# Batch norm


@pytest.mark.parametrize(("batch_size", "steps"), [(3, 18), (53, 1)])
def test_batch_norm_with_a_remainder_of_two_or_none(batch_size, steps, unoptimized):
    result = quick(net=NORMALIZED, batch_size=batch_size, epochs=1)
    assert np.isfinite(result.history.loss).all()
    assert len(result.history.loss) == steps


# Numbers and kinds


def test_reg_shrinks_the_weights():
    free, bound = quick(epochs=20), quick(epochs=20, reg=1.0)

    def size(result):
        return sum(float((layer["w"] ** 2).sum()) for layer in result.model.params.values())

    assert size(bound) < 0.5 * size(free)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        result = quick()
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(result.model.params)}
    assert dtypes == {np.dtype("float64")}


@pytest.mark.slow
def test_third_party_optimizer():
    """Any (init, update) pair will do, whatever its state is made of."""
    optimizer = fn.Optimizer(
        init=lambda params: (),
        update=lambda grads, state, params: (jax.tree.map(lambda g: -0.1 * g, grads), state),
    )
    ours, theirs = quick(optimizer=fn.sgd(0.1)), quick(optimizer=optimizer)
    assert fn.scaled_error(ours.state.params, theirs.state.params) < 1e-6


def test_a_bare_pair_is_an_optimizer():
    ours, bare = quick(optimizer=fn.sgd(0.1)), quick(optimizer=tuple(fn.sgd(0.1)))
    assert_trees_equal(ours.state.params, bare.state.params)


def test_schedule_counts_the_steps():
    rates = []

    def schedule(step):
        jax.debug.callback(lambda s: rates.append(int(s)), step)
        return 1e-3

    quick(optimizer=fn.sgd(schedule), epochs=2)
    jax.effects_barrier()
    assert sorted(rates) == list(range(12))


# History, the best model, callbacks


def test_history_rows_are_what_evaluate_says():
    data = blobs()
    models = []
    preprocess = fn.subtract_mean(data.x_train)

    def remember(epoch, train_state, metrics):
        models.append(fn.Model(NET, train_state.params, train_state.state, preprocess))

    result = quick(dataset=data, callback=remember)
    np.testing.assert_array_equal(result.history.epoch, [0, 1, 2, 3])
    for i, model in enumerate(models):
        train = fn.evaluate(model, data.x_train, data.y_train)  # fewer than 1,000: all of them
        val = fn.evaluate(model, data.x_val, data.y_val)
        assert result.history.train_accuracy[i] == train.accuracy
        assert result.history.val_accuracy[i] == val.accuracy
        np.testing.assert_allclose(result.history.train_loss[i], train.loss, rtol=1e-6)
        np.testing.assert_allclose(result.history.val_loss[i], val.loss, rtol=1e-6)


@pytest.mark.parametrize("val", [5, 200], ids=["many ties", "few ties"])
def test_best_model_is_the_best_row(val):
    data = blobs(val=val)
    result = quick(dataset=data, epochs=12)
    accuracy, loss = result.history.val_accuracy, result.history.val_loss
    ties = np.flatnonzero(accuracy == accuracy.max())
    epoch = ties[np.argmin(loss[ties])]
    assert (result.best.epoch, result.best.accuracy) == (epoch, accuracy[epoch])
    assert result.best.loss == loss[epoch]
    assert isinstance(result.best, fn.Model)
    assert fn.evaluate(result.best, data.x_val, data.y_val).accuracy == accuracy[epoch]


def test_the_best_model_exists_even_if_nothing_is_right():
    data = blobs()
    data = data._replace(y_val=np.full(20, 2, np.int32), x_val=data.x_val)

    def never(scores, y):
        return scores.sum(), jnp.zeros_like(scores).at[:, 2].set(1e3)  # away from class 2

    result = quick(dataset=data, loss_fn=never, optimizer=fn.sgd(1e-5))
    assert result.history.val_accuracy[-1] == 0
    assert result.best is not None


def test_no_validation_set():
    data = blobs()
    data = data._replace(x_val=data.x_val[:0], y_val=data.y_val[:0])
    result = quick(dataset=data)
    assert result.best is None
    assert np.isnan(result.history.val_accuracy).all()
    assert np.isfinite(result.history.train_accuracy).all()


def test_callback_gets_each_epoch_and_its_metrics():
    calls = []
    result = quick(eval_every=2, callback=lambda *call: calls.append(call))
    assert [epoch for epoch, _, _ in calls] == [0, 1, 2, 3]
    assert [int(state.epoch) for _, state, _ in calls] == [0, 1, 2, 3]
    assert [len(metrics["losses"]) for _, _, metrics in calls] == [0, 6, 6, 6]
    assert ["val_accuracy" in metrics for _, _, metrics in calls] == [True, False, True, True]
    losses = np.concatenate([metrics["losses"] for _, _, metrics in calls])
    np.testing.assert_array_equal(losses, result.history.loss)
    # What the callback kept is alive: no buffer was donated.
    assert all(np.isfinite(np.asarray(s.params["affine1"]["w"])).all() for _, s, _ in calls)


@pytest.mark.parametrize("at", [0, 2])
def test_ctrl_c_keeps_the_result(at):
    def interrupt(epoch, train_state, metrics):
        if epoch == at:
            raise KeyboardInterrupt

    result = quick(epochs=9, callback=interrupt)
    assert result.interrupted
    assert int(result.state.epoch) == at
    assert len(result.history.loss) == 6 * at
    np.testing.assert_array_equal(result.history.epoch, range(at + 1))
    # It is the run that was: going on from it gives the run without the interruption.
    rest = quick(key=None, train_state=result.state, epochs=4)
    assert_trees_equal(rest.state.params, quick(epochs=4).state.params)


def test_a_model_of_nans_is_never_the_best():
    data = blobs()
    data = data._replace(y_val=np.zeros_like(data.y_val))  # what argmax makes of NaNs
    result = quick(dataset=data, optimizer=fn.sgd(1e30), on_nonfinite="stop")
    assert result.best.epoch == 0
    assert np.isfinite(result.best.loss)
    assert result.history.epoch.tolist() == [0]


def test_a_callback_cannot_change_the_history():
    def meddle(epoch, train_state, metrics):
        metrics["losses"].fill(-1)

    np.testing.assert_array_equal(quick(callback=meddle).history.loss, quick().history.loss)


# Prediction and evaluation


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_predict_and_evaluate_in_batches(batch_size):
    data = blobs()
    model = quick().model
    x, y = data.x_test, data.y_test
    inputs = x - data.x_train.mean(axis=0)
    scores, _, _ = NET.forward(model.params, model.state, inputs, key=None, train=False)
    loss, _ = fn.softmax_loss(scores, y)
    np.testing.assert_allclose(
        fn.predict_scores(model, x, batch_size=batch_size), scores, rtol=1e-4, atol=1e-5
    )
    labels = fn.predict(model, x, batch_size=batch_size)
    np.testing.assert_array_equal(labels, scores.argmax(axis=1))
    assert labels.dtype == np.int32
    result = fn.evaluate(model, x, y, batch_size=batch_size)
    np.testing.assert_allclose(result.loss, loss, rtol=1e-5)
    assert result.accuracy == np.mean(labels == y)


@pytest.mark.slow
def test_pixels_may_be_uint8_or_float():
    digits = fn.load_digits()
    net = fn.mlp([10], 10, weight_scale=0.02)
    a = fn.fit(net, ADAM, digits, key=KEY, epochs=1, batch_size=100)
    as_float = digits._replace(
        x_train=digits.x_train.astype(np.float32), x_val=digits.x_val.astype(np.float32)
    )
    b = fn.fit(net, ADAM, as_float, key=KEY, epochs=1, batch_size=100)
    np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-5)
    np.testing.assert_array_equal(
        fn.predict(a.model, digits.x_test), fn.predict(a.model, digits.x_test.astype(float))
    )


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">f8", "<f2", "g", "bool"])
def test_arrays_of_any_byte_order_and_precision(dtype):
    digits = fn.load_digits()
    model = fn.fit(
        fn.mlp([10], 10, weight_scale=0.02), ADAM, digits, key=KEY, epochs=1, batch_size=100
    ).model
    x = digits.x_test[:50] // (16 if dtype == "bool" else 1)
    expected = fn.predict(model, x)
    np.testing.assert_array_equal(fn.predict(model, x.astype(dtype)), expected)
    result = fn.evaluate(model, x.astype(dtype), digits.y_test[:50].astype(">f2"))
    assert result.accuracy == np.mean(expected == digits.y_test[:50])


def test_preprocess_fitted_elsewhere():
    data = blobs()
    few = data._replace(x_train=data.x_train[:10], y_train=data.y_train[:10])
    mean_of_all = fn.subtract_mean(data.x_train)
    result = quick(dataset=few, preprocess=mean_of_all)
    np.testing.assert_allclose(
        result.model.preprocess.stats["mean"], data.x_train.mean(axis=0), rtol=1e-5
    )
    default = quick(dataset=few)
    np.testing.assert_allclose(
        default.model.preprocess.stats["mean"], few.x_train.mean(axis=0), rtol=1e-5
    )


def test_model_is_a_pytree():
    model = quick().model
    x = blobs().x_test
    jitted = jax.jit(lambda model, x: model.preprocess(x))
    np.testing.assert_allclose(jitted(model, x), model.preprocess(x))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model)
    assert isinstance(doubled, fn.Model)
    assert doubled.net is model.net


# Views


VIEWS = {"ten": fn.flips_and_shifts(1), "two": fn.flips_and_shifts(0), "one": (jnp.negative,)}


@pytest.mark.parametrize("name", VIEWS)
def test_scores_are_the_mean_over_views(name):
    data, views = blobs(), VIEWS[name]
    model = quick().model
    x, y = data.x_test, data.y_test
    by_hand = np.mean([fn.predict_scores(model, np.asarray(view(x))) for view in views], axis=0)
    scores = fn.predict_scores(model, x, views=views)
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5, atol=1e-5)
    assert not np.allclose(scores, fn.predict_scores(model, x), atol=1e-3)
    np.testing.assert_array_equal(
        fn.predict(model, x, views=list(views), batch_size=7), scores.argmax(axis=1)
    )
    result = fn.evaluate(model, x, y, views=views, batch_size=6)
    assert result.views == len(views)
    np.testing.assert_allclose(result.loss, fn.softmax_loss(by_hand, y)[0], rtol=1e-5)
    assert result.accuracy == np.mean(scores.argmax(axis=1) == y)


def test_one_view_of_the_example_itself():
    data = blobs()
    model = quick().model
    plain = fn.evaluate(model, data.x_test, data.y_test)
    assert plain.views == 1
    assert fn.evaluate(model, data.x_test, data.y_test, views=()) == plain
    assert fn.evaluate(model, data.x_test, data.y_test, views=[lambda x: x]).views == 1


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (jnp.negative, "views must be a sequence of functions, such as"),
        (10, "views must be a sequence of functions, such as"),
        ([1], "every view must be a function"),
        (fn.flips_and_shifts(2), "max_shift is 2, but the images have only 2 x 3 pixels"),
    ],
    ids=["a function", "a number", "numbers", "too far"],
)
def test_wrong_views_are_refused(views, message):
    data = blobs()
    model = quick().model
    for call in (
        lambda: fn.predict(model, data.x_test, views=views),
        lambda: fn.predict_scores(model, data.x_test, views=views),
        lambda: fn.evaluate(model, data.x_test, data.y_test, views=views),
    ):
        with pytest.raises((TypeError, ValueError), match=message) as error:
            call()
        assert "\n" not in str(error.value)


# Wrong input


def with_bad(**changes):
    """Options of `quick` with a change to the data."""
    data = blobs()
    arrays = {name: np.array(getattr(data, name)) for name in fn.Dataset._fields[:6]}
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    return {"dataset": fn.Dataset(**arrays, class_names=data.class_names)}


def put(index, value):
    def change(array):
        array = array.astype(np.float64) if isinstance(value, float) else array.copy()
        array[index] = value
        return array

    return change


BAD_FIT = {
    "label too large": (lambda: with_bad(y_train=put(4, 3)), r"y_train.*y_train\[4\] is 3"),
    "label negative": (lambda: with_bad(y_val=put(2, -1)), r"y_val.*y_val\[2\] is -1"),
    "label fractional": (lambda: with_bad(y_train=put(1, 0.5)), r"y_train.*y_train\[1\] is 0.5"),
    "label nan": (lambda: with_bad(y_train=put(1, np.nan)), r"y_train.*y_train\[1\] is nan"),
    "labels as strings": (lambda: with_bad(y_train=lambda y: y.astype(str)), "y_train"),
    "label missing": (lambda: with_bad(y_train=lambda y: y[:-1]), r"y_train.*\[53\]"),
    "labels of rank 2": (lambda: with_bad(y_train=lambda y: y[:, None]), "y_train"),
    "nan in x": (lambda: with_bad(x_train=put((3, 1, 2), np.nan)), r"x_train\[3, 1, 2\] is nan"),
    "inf in x": (lambda: with_bad(x_val=put((0, 0, 0), np.inf)), r"x_val\[0, 0, 0\] is inf"),
    "x of rank 1": (lambda: with_bad(x_train=lambda x: x[:, 0, 0]), "x_train"),
    "x of strings": (lambda: with_bad(x_train=lambda x: x.astype(str)), "x_train"),
    "x complex": (lambda: with_bad(x_train=lambda x: x + 1j), "x_train"),
    "no examples": (lambda: with_bad(x_train=lambda x: x[:0], y_train=lambda y: y[:0]), "x_train"),
    "x_val of another shape": (lambda: with_bad(x_val=lambda x: x[:, :, :2]), "x_val"),
    "net for fewer classes": (lambda: {"net": fn.mlp([4], 2)}, "y_train must hold labels 0 to 1"),
    "batch larger than data": (lambda: {"batch_size": 54}, "batch_size is 54.*53 training"),
    "batch_size 0": (lambda: {"batch_size": 0}, "batch_size must be at least 1"),
    "batch_size fractional": (lambda: {"batch_size": 2.5}, "batch_size must be an integer"),
    "epochs 0": (lambda: {"epochs": 0}, "epochs must be at least 1"),
    "epochs True": (lambda: {"epochs": True}, "epochs must be an integer"),
    "eval_every 0": (lambda: {"eval_every": 0}, "eval_every must be at least 1"),
    "reg negative": (lambda: {"reg": -1.0}, "reg must be >= 0"),
    "reg nan": (lambda: {"reg": np.nan}, "reg must be finite and >= 0"),
    "reg nothing": (lambda: {"reg": None}, "reg must be a number"),
    "net nothing": (lambda: {"net": None}, "net must be a Layer"),
    "optimizer nothing": (lambda: {"optimizer": None}, "optimizer must be a pair"),
    "loss_fn a name": (lambda: {"loss_fn": "softmax"}, "loss_fn must be a function"),
    "preprocess a name": (lambda: {"preprocess": "mean"}, "preprocess must be a function"),
    "preprocess gives x": (lambda: {"preprocess": lambda x: x}, "must give a Preprocess"),
    "x beyond float32": (lambda: with_bad(x_train=put((0, 0, 0), 1e300)), "finite in float32"),
    "no key": (lambda: {"key": None}, "give either key"),
    "key a number": (lambda: {"key": 0}, "key must be a random key"),
    "one left over with batch norm": (
        lambda: {"net": NORMALIZED, "batch_size": 4},
        "batches of 4 leave one of the 53 training examples over: choose another batch_size",
    ),
    "one at a time with batch norm": (
        lambda: {"net": NORMALIZED, "batch_size": 1},
        "a batch of one example has no variance",
    ),
    "svm with mixup": (
        lambda: {"loss_fn": fn.svm_loss, "mixup_alpha": 0.2},
        "svm_loss takes labels.*use softmax_loss",
    ),
    "svm with label smoothing": (
        lambda: {"loss_fn": fn.svm_loss, "label_smoothing": 0.2},
        "svm_loss takes labels.*use softmax_loss",
    ),
    "smoothing above 1": (lambda: {"label_smoothing": 1.1}, "label_smoothing must be .*<= 1"),
    "smoothing negative": (lambda: {"label_smoothing": -0.1}, "label_smoothing must be >= 0"),
    "smoothing nothing": (lambda: {"label_smoothing": None}, "label_smoothing must be a number"),
    "mixup negative": (lambda: {"mixup_alpha": -0.1}, "mixup_alpha must be >= 0"),
    "mixup nothing": (lambda: {"mixup_alpha": None}, "mixup_alpha must be a number"),
    "average of 1": (lambda: {"average_decay": 1.0}, "decay must be .*< 1"),
    "average a name": (lambda: {"average_decay": "long"}, "decay must be a number"),
    "average of no optimizer": (
        lambda: {"average_decay": 0.9, "optimizer": None},
        "optimizer must be a pair",
    ),
    "augment a name": (lambda: {"augment": "flip"}, "augment must be a function such as"),
    "augment a number": (lambda: {"augment": 1}, "augment must be a function such as"),
    "augment names": (lambda: {"augment": ["flip"]}, "every augmentation must be a function"),
    "augment too far": (
        lambda: {"augment": partial(fn.random_shift, max_shift=2)},
        "max_shift is 2, but the images have only 2 x 3 pixels",
    ),
    "augment another shape": (
        lambda: {"augment": lambda key, x: x[:, :, :2]},
        r"\[2, 2\].*\[2, 3\]",
    ),
    "mean of another shape": (
        lambda: {"preprocess": fn.subtract_mean(np.ones((4, 2, 2)))},
        r"\[2, 3\].*\[2, 2\]",
    ),
}


@pytest.mark.parametrize("case", BAD_FIT)
def test_fit_refuses(case):
    options, message = BAD_FIT[case]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        quick(callback=lambda *_: pytest.fail("training began"), **options())
    assert "\n" not in str(error.value)


def test_fit_refuses_fewer_epochs_than_are_done():
    done = quick(epochs=2)
    with pytest.raises(ValueError, match="epochs must be at least 3, got 2"):
        quick(key=None, train_state=done.state, epochs=2)


BAD_EVALUATE = {
    "no examples": (lambda x, y: (x[:0], y[:0]), "x is empty"),
    "one example without a batch": (lambda x, y: (x[0, 0], y[:1]), "x must be"),
    "wrong features": (lambda x, y: (x[:, :, :2], y), r"\[2, 2\]"),
    "nan": (lambda x, y: (put((1, 1, 1), np.nan)(x), y), r"x\[1, 1, 1\] is nan"),
    "label too large": (lambda x, y: (x, put(3, 9)(y)), r"y\[3\] is 9"),
    "label negative": (lambda x, y: (x, put(3, -1)(y)), r"y\[3\] is -1"),
    "label fractional": (lambda x, y: (x, put(3, 1.5)(y)), r"y\[3\] is 1.5"),
    "labels missing": (lambda x, y: (x, y[1:]), "y must have one label per example"),
}


def test_predict_wants_a_model():
    with pytest.raises(TypeError, match="model must be a Model"):
        fn.predict(quick(), blobs().x_test)


@pytest.mark.parametrize("case", BAD_EVALUATE)
def test_evaluate_refuses(case):
    change, message = BAD_EVALUATE[case]
    data = blobs()
    with pytest.raises(ValueError, match=message):
        fn.evaluate(quick().model, *change(data.x_test, data.y_test))


@pytest.mark.parametrize("which", ["model", "best"])
def test_models_pickle(which):
    net = fn.serial(fn.affine(8), fn.batchnorm(), fn.gelu(), fn.dropout(0.9), fn.affine(3))
    fitter = fn.chain(fn.subtract_mean, fn.normalize_contrast)
    options = {"net": net, "epochs": 1, "preprocess": fitter, "batch_size": 9}
    model = getattr(quick(**options), which)
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is type(model)
    assert again.net == model.net
    assert again.params == model.params
    x = blobs().x_test
    np.testing.assert_array_equal(fn.predict_scores(again, x), fn.predict_scores(model, x))


def test_the_options_are_in_the_signatures():
    """Those that several functions take stand in each, with their defaults."""
    expected = {"reg": 0.0, "loss_fn": None, "augment": None, "class_weight": None}
    expected |= {"label_smoothing": 0.0, "mixup_alpha": 0.0}
    more = {"preprocess": fn.subtract_mean, "average_decay": None}
    for function, defaults in (
        (fn.make_train_step, expected),
        (fn.fit, {**expected, **more}),
        (fn.sweep, {**expected, **more}),
    ):
        found = inspect.signature(function).parameters
        assert {name: found[name].default for name in defaults} == defaults
        assert not any(p.kind is p.VAR_KEYWORD for p in found.values())


@pytest.mark.parametrize("function", ["fit", "make_train_step"])
def test_an_unknown_option_is_named_with_the_nearest(function):
    required = {"dataset": blobs(), "epochs": 1, "batch_size": 9} if function == "fit" else {}
    message = f"unknown option of {function} 'label_smooth': did you mean 'label_smoothing'"
    with pytest.raises(TypeError, match=message):
        getattr(fn, function)(NET, fn.sgd(0.1), **required, label_smooth=0.1)


def test_an_optimizer_may_not_change_the_structure_of_its_state():
    def update(grads, opt_state, params):
        return grads, {**opt_state, "more": jnp.zeros(())}

    optimizer = fn.Optimizer(lambda params: {"step": jnp.zeros(())}, update)
    with pytest.raises(TypeError, match="must have the same pytree structure"):
        quick(optimizer=optimizer)


@pytest.mark.parametrize("dtype", slow_but(["float16", "bfloat16"], "bfloat16"))
def test_a_state_of_half_precision_trains_with_wide_moments_and_statistics(dtype):
    net, optimizer = fn.mlp([16], 10, normalization="batchnorm"), fn.adam(1e-2)
    state = fn.init_train_state(net, optimizer, (8, 8), key=jax.random.key(0))
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), (state.params, state.state))
    opt_state = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf, state.opt_state
    )
    narrow = state._replace(params=half[0], state=half[1], opt_state=opt_state)
    result = fn.fit(net, optimizer, fn.load_digits(), train_state=narrow, epochs=3, batch_size=100)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.state.params)} == {jnp.dtype(dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(result.state.state)} == {jnp.dtype("float32")}
    wide = fn.fit(net, optimizer, fn.load_digits(), train_state=state, epochs=3, batch_size=100)
    assert result.best.accuracy == pytest.approx(wide.best.accuracy, abs=0.02)


@pytest.mark.parametrize("how", ["True", "numpy", "StopIteration"])
def test_a_callback_may_stop_a_run(how):
    def callback(epoch, train_state, metrics):
        if epoch < 2:
            return {"True": False, "numpy": np.False_}.get(how)
        if how == "StopIteration":
            raise StopIteration
        return {"True": True, "numpy": np.True_}[how]

    result = quick(callback=callback, epochs=5)
    assert (result.status, result.interrupted, int(result.state.epoch)) == ("stopped", False, 2)
    assert_trees_equal(result.state.params, quick(epochs=2).state.params)
    assert result.history.epoch.tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", slow_but([1, "yes", (True,), None, 0], 1))
def test_what_else_a_callback_returns_stops_nothing(value):
    result = quick(callback=lambda *_: value, epochs=2)
    assert (result.status, int(result.state.epoch)) == ("finished", 2)


def test_a_callback_that_stops_before_the_first_epoch():
    result = quick(callback=lambda *_: True, epochs=2)
    assert (result.status, int(result.state.epoch)) == ("stopped", 0)
    assert result.history.epoch.tolist() == [0]


@pytest.mark.parametrize("eval_every", slow_but([1, 2], 2))
def test_patience_ends_a_run_that_gets_no_better(eval_every):
    """The rate is such that it never gets better than it was after its third measurement."""

    def rate(step):
        return jnp.where(step < 3 * 6 * eval_every, 1e-2, -1e-3)

    options = {"optimizer": fn.sgd(rate), "epochs": 24, "eval_every": eval_every}
    whole = quick(**options)
    epochs = [int(epoch) for epoch in whole.history.epoch]
    best = epochs.index(whole.best.epoch)
    result = quick(patience=4, **options)
    assert result.status == "stopped"
    assert int(result.state.epoch) == epochs[best + 4]
    assert result.best.epoch == whole.best.epoch
    assert_trees_equal(result.best.params, whole.best.params)
    assert quick(patience=len(epochs), **options).status == "finished"


def test_patience_needs_something_to_measure():
    data = blobs()
    empty = data._replace(x_val=data.x_val[:0], y_val=data.y_val[:0])
    for changes, problem in (
        ({"eval_every": None}, "patience needs eval_every$"),
        ({"dataset": empty}, "patience needs validation examples, which monitor train_loss does"),
        ({"eval_every": None, "dataset": empty}, "patience needs eval_every and validation exam"),
    ):
        with pytest.raises(ValueError, match=problem):
            quick(patience=3, **changes)
    with pytest.raises(ValueError, match="patience must be at least 1"):
        quick(patience=0)


def spread(scores, y):
    """A metric of which less is better, and that is NaN where it is large, as at first."""
    return np.nan if abs(scores).std() > 1.3 else abs(scores).std()


MONITORS = {
    "val_loss": lambda h: h.val_loss.argmin(),
    "train_loss": lambda h: h.train_loss.argmin(),
    "train_accuracy": lambda h: np.lexsort((h.train_loss, -h.train_accuracy))[0],
    "val_accuracy": lambda h: np.lexsort((h.val_loss, -h.val_accuracy))[0],
    "val_spread": lambda h: np.nanargmax(h.metrics["val_spread"]),
    "-train_spread": lambda h: np.nanargmin(h.metrics["train_spread"]),
}


@pytest.mark.parametrize("monitor", slow_but(MONITORS, "val_loss", "-train_spread"))
def test_the_best_model_is_that_by_what_is_monitored(monitor):
    options = {"epochs": 8, "optimizer": fn.sgd_momentum(0.1), "metrics": {"spread": spread}}
    result = quick(monitor=monitor, **options)
    history = result.history
    row = MONITORS[monitor](history)
    assert result.best.epoch == history.epoch[row]
    assert (result.best.accuracy, result.best.loss) == (
        history.val_accuracy[row],
        history.val_loss[row],
    )
    at = quick(**{**options, "epochs": max(result.best.epoch, 1)})
    if result.best.epoch:
        assert_trees_equal(result.best.params, at.state.params)
    assert_trees_equal(result.state.params, quick(**options).state.params)
    ended = quick(monitor=monitor, patience=1, **options)
    assert ended.history.epoch[-1] == ended.best.epoch + (ended.status == "stopped")


def test_what_was_nan_at_first_may_get_better():
    result = quick(monitor="-train_spread", epochs=8, metrics={"spread": spread})
    assert np.isnan(result.history.metrics["train_spread"][0])
    assert result.best.epoch > 0


def test_without_validation_examples_training_may_be_monitored():
    data = blobs()
    empty = data._replace(x_val=data.x_val[:0], y_val=data.y_val[:0])
    result = quick(dataset=empty, epochs=4, monitor="train_loss", patience=4)
    assert result.best.epoch == result.history.train_loss.argmin()
    assert np.isnan(result.best.accuracy)
    assert quick(dataset=empty, epochs=1).best is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"monitor": "val_los"}, "unknown monitor 'val_los': did you mean 'val_loss'"),
        ({"monitor": "-val_loss"}, "unknown monitor '-val_loss': did you mean 'val_loss'"),
        ({"monitor": "epoch"}, "unknown monitor 'epoch'"),
        ({"monitor": 3}, "unknown monitor '3'"),
        ({"monitor": "val_loss", "eval_every": None}, "monitor val_loss needs eval_every$"),
        ({"monitor": "train_loss", "eval_every": None}, "monitor train_loss needs eval_every"),
    ],
)
def test_what_is_not_measured_cannot_be_monitored(changes, problem):
    with pytest.raises(ValueError, match=problem):
        quick(**changes)


def test_the_losses_of_many_epochs_are_all_there():
    result = quick(epochs=1050, eval_every=None)
    short = quick(epochs=3, eval_every=None).history.loss
    assert len(result.history.loss) == 350 * len(short)
    assert result.history.loss[: len(short)].tolist() == short.tolist()
    assert len(np.unique(result.history.loss)) > 1000
