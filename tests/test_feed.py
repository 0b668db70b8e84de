"""Training on what stays on disk: what it comes to, from where it goes on, on how many devices."""

import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet import checkpoints, feed, nonfinite, windows
from funcnet import train as training
from funcnet.datasets import Stored
from funcnet.datasets.shard_files import Writer
from funcnet.inputs import fit_preprocess
from funcnet.targets import fit_targets
from funcnet.tensors import load_tensors

pytestmark = pytest.mark.usefixtures("unoptimized")
KEY = jax.random.key(5)
COUNT = 2003
OPTIONS = {"key": KEY, "epochs": 2, "batch_size": 50}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Windows of a few batches."""
    monkeypatch.setattr(windows, "WINDOW", 2**13)
    monkeypatch.setattr(windows, "BLOCK", 2**8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    rng = np.random.default_rng(0)
    directory = tmp_path_factory.mktemp("data")
    x = rng.normal(size=(COUNT, 4)).astype(np.float32)
    np.save(directory / "x.npy", x)
    np.save(directory / "y.npy", (x[:, 0] > 0).astype(int) + (x[:, 1] > 1))
    return directory


@pytest.fixture(scope="module")
def data(place):
    return fn.load_arrays(place, memory_map="yes")


def in_memory(data):
    """The same data, read."""
    names = [f"{name}_{split}" for name in "xy" for split in ("train", "val", "test")]
    return data._replace(**{name: getattr(data, name)[:] for name in names})


def net(**options):
    return fn.mlp([16], 3, **options)


def train(data, **changes):
    return fn.fit(net(), fn.adam(1e-2), data, **{**OPTIONS, **changes})


def bits(result):
    trees = result.state._replace(key=0), result.history.loss, result.history.rows()
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


def test_steps_are_those_of_the_same_batches_in_memory(data):
    """By hand: the batches of the windows, one after the other, by the training step."""
    result = train(data, epochs=1, preprocess=None, eval_every=None)
    step = fn.make_train_step(net(), fn.adam(1e-2))
    state = fn.init_train_state(net(), fn.adam(1e-2), (4,), key=KEY)
    source = windows.StoredWindows(
        state.key, data.x_train, data.y_train, None, batch_size=50, row_bytes=20
    )
    losses = []
    for window in source.windows(0, 0, windows.whole):
        for number in range(window.full):
            state, metrics = step(state, window.x[number], window.y[number])
            losses.append(float(metrics["loss"]))
    assert len(losses) == len(result.history.loss) == -(-len(data.x_train) // 50)
    assert np.allclose(losses, result.history.loss, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (state.params, result.state.params)), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_weights_on_disk_count(data, tmp_path):
    x, y = data.x_train[:], data.y_train[:]
    weight = np.abs(x[:, 0]).astype(np.float64)
    with Writer(
        tmp_path / "d", "classification", ("a", "b", "c"), (), None, shard_bytes=4096
    ) as writer:
        writer.add("train", x, y.astype(np.int32), weight)
        writer.add("val", x[:300], y[:300].astype(np.int32), weight[:300])
    stored = fn.load_arrays(tmp_path / "d")
    result = train(stored, epochs=1, preprocess=None)
    step = fn.make_train_step(net(), fn.adam(1e-2))
    state, losses = fn.init_train_state(net(), fn.adam(1e-2), (4,), key=KEY), []
    source = windows.StoredWindows(
        state.key, stored.x_train, stored.y_train, None, batch_size=50, row_bytes=24
    )
    for window in source.windows(0, 0, windows.whole):
        for x, y in zip(window.x[: window.full], window.y[: window.full], strict=True):
            state, metrics = step(state, x, y, np.abs(x[:, 0]))
            losses.append(float(metrics["loss"]))
    assert np.allclose(losses, result.history.loss, rtol=1e-5)
    parts = stored.x_val[:], stored.y_val[:]
    found = fn.evaluate(result.model, *parts, sample_weight=weight[:300])
    assert np.isclose(found.loss, result.history.val_loss[-1], rtol=1e-5)
    some = np.linspace(0, len(weight) - 1, 1000).round().astype(int)
    parts = stored.x_train[some], stored.y_train[some]
    found = fn.evaluate(result.model, *parts, sample_weight=weight[some])
    assert np.isclose(found.loss, result.history.train_loss[-1], rtol=1e-5)


FITTERS = ("subtract_mean", "standardize", "standardize_numbers")


@pytest.mark.parametrize("kind", ["uint8", "float64"])
@pytest.mark.parametrize("name", slow_but(FITTERS, "standardize"))
def test_preprocessing_is_that_of_data_in_memory(name, kind, place, tmp_path):
    fitter = getattr(fn, name)
    x = np.load(place / "x.npy") * 30 + (128 if kind == "uint8" else 1e9)
    x[:, 3] = x[:, 3] > x[:, 3].mean()
    np.save(tmp_path / "x.npy", x.astype(kind))
    np.save(tmp_path / "y.npy", np.load(place / "y.npy"))
    data = fn.load_arrays(tmp_path, memory_map="yes")
    stats, others = (fitter(each.x_train).stats for each in (data, in_memory(data)))
    for name, own in stats.items():
        assert np.allclose(own, others[name], rtol=1e-12)
    result = train(data, preprocess=fitter)
    assert result.history.val_accuracy[-1] > 0.6
    assert fn.evaluate(result.model, data.x_val, data.y_val).loss == result.history.val_loss[-1]


def test_whitening_and_chains_are_fitted_in_parts(data, monkeypatch):
    monkeypatch.setattr(fn.datasets.disk, "ROWS", 100)
    for fitter in (fn.whiten, fn.chain(fn.standardize, partial(fn.whiten, dim=2))):
        one, other = (fitter(each.x_train).stats for each in (data, in_memory(data)))
        for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
            assert np.allclose(np.abs(a), np.abs(b), rtol=1e-4, atol=1e-6)


def test_the_mean_on_disk_of_what_never_varies_is_exact(tmp_path):
    np.save(tmp_path / "x.npy", np.full((COUNT, 2), 0.1))
    np.save(tmp_path / "y.npy", np.arange(COUNT) % 2)
    data = fn.load_arrays(tmp_path, memory_map="yes")
    assert fn.subtract_mean(data.x_train).stats["mean"].tolist() == [0.1, 0.1]
    assert fn.standardize(data.x_train).stats["scale"].tolist() == [0, 0]


@pytest.mark.parametrize("columns", [(), (2,)])
def test_units_of_targets_are_fitted_in_parts(columns, data, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(fn.datasets.disk, "ROWS", 100)
    y = np.arange(COUNT).reshape(-1, *[1 for _ in columns]) + rng.normal(size=(COUNT, *columns))
    np.save(tmp_path / "x.npy", np.zeros((COUNT, 2), np.float32))
    np.save(tmp_path / "y.npy", y)
    stored = fn.load_arrays(tmp_path, memory_map="yes", task="regression")
    targets, wanted = (fit_targets(each, fn.squared_loss) for each in (stored, in_memory(stored)))
    assert np.allclose(targets.mean, wanted.mean, rtol=1e-12)
    assert np.allclose(targets.scale, wanted.scale, rtol=1e-12)
    y[COUNT - 1] = -1
    np.save(tmp_path / "y.npy", np.maximum(y, -1))
    options = {"memory_map": "yes", "task": "regression", "val_fraction": 0.0}
    low = fn.load_arrays(tmp_path, test_fraction=0.0, **options)
    with pytest.raises(ValueError, match="but y_train has some < 0"):
        fit_targets(low, fn.poisson_loss)


def test_a_chain_with_one_that_wants_all_is_fitted_to_a_sample(data):
    fitter = fn.chain(fn.standardize, fn.quantile_transform)
    found, wanted = (fit_preprocess(fitter, each.x_train) for each in (data, in_memory(data)))
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert np.array_equal(a, b)


def test_float64_on_disk_cannot_be_augmented(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((COUNT, 2)))
    np.save(tmp_path / "y.npy", np.arange(COUNT) % 3)
    data = fn.load_arrays(tmp_path, memory_map="yes")
    with pytest.raises(ValueError, match="x_train is float64 on disk, which cannot be augmented"):
        train(data, augment=lambda key, x: x)


def test_what_cannot_be_fitted_in_parts_is_fitted_to_a_sample(data, monkeypatch):
    def own(x):
        assert isinstance(x, np.ndarray)
        return fn.subtract_mean(x)

    train(data, preprocess=own)  # all of it
    train(data, preprocess=fn.quantile_transform)
    sample = partial(fn.Stored.sample, count=500)
    monkeypatch.setattr(fn.Stored, "sample", lambda self: sample(self))
    with pytest.warns(fn.DataWarning, match="fitted to 500 examples, evenly spread, of 1,603"):
        train(data, preprocess=fn.quantile_transform)


def test_a_run_cut_off_in_mid_epoch_goes_on_to_the_same_bits(data, tmp_path, brought):
    whole = bits(train(data))
    brought.ends.clear()
    train(data)
    count, ends = len(brought.ends), brought.ends.copy()
    assert count > 6
    for stop in range(1, count + 1):
        brought.ends.clear()
        brought.stop, place = stop, tmp_path / str(stop)
        cut = train(data, checkpoint=place)
        assert cut.status == "interrupted"
        # The result is that of the last whole epoch, the checkpoint may be beyond it.
        assert len(cut.history.loss) == int(cut.state.step) == 33 * int(cut.state.epoch)
        after = [f"-batch-{end:012}" * (end < 33) for end in ends[: stop - 1]][-1:]
        assert after == [""] or all(any(a in f.name for f in place.iterdir()) for a in after)
        brought.ends.clear()
        brought.stop = None
        again = train(data, checkpoint=place, resume=True)
        assert len(brought.ends) == count - (stop - 1)  # nothing twice
        assert bits(again) == whole


def test_in_shards_a_run_goes_on_in_mid_epoch_to_the_same_bits(data, tmp_path, brought):
    options = {"batch_size": 48, "reproducible": 2, "eval_every": None}
    whole = bits(train(data, **options))
    brought.ends.clear()
    brought.stop = 3
    options |= {"checkpoint": tmp_path}
    assert train(data, **options).status == "interrupted"
    assert any("batch" in path.name for path in tmp_path.iterdir())
    assert bits(train(data, resume=True, **options)) == whole


def test_checkpoints_are_written_in_mid_epoch(data, tmp_path, monkeypatch, brought):
    monkeypatch.setattr(checkpoints.Pace, "is_due", lambda self: True)
    train(data, checkpoint=tmp_path / "often", keep_checkpoints=100)
    names = [path.name for path in (tmp_path / "often").glob("epoch-*-batch-*")]
    assert len(names) == len(brought.ends) > 6
    assert {int(name[-24:-12]) for name in names} == set(brought.ends)
    like = fn.init_train_state(net(), fn.adam(1e-2), (4,), key=KEY)
    assert int(checkpoints.earlier_state(tmp_path / "often", like, 2).epoch) == 1
    train(data, checkpoint=tmp_path / "each", checkpoint_every=1, keep_checkpoints=100)
    names = sorted(path.name for path in (tmp_path / "each").glob("epoch-*"))
    assert names == ["epoch-00000001.safetensors", "epoch-00000002.safetensors"]


def test_a_checkpoint_in_the_first_epoch_is_one(data, tmp_path, brought):
    brought.stop = 2
    train(data, checkpoint=tmp_path)
    brought.stop = None
    (path,) = tmp_path.glob("epoch-*")
    assert "batch" in path.name
    with pytest.raises(FileExistsError, match="has checkpoints of a run: go on with resume=True"):
        train(data, checkpoint=tmp_path)
    with pytest.raises(FileExistsError, match="has checkpoints of a run, and this is a sweep"):
        fn.sweep(
            lambda: (net(), fn.adam(1e-2)), in_memory(data), [{}], epochs=1, batch_size=50,
            key=KEY, checkpoint=tmp_path,
        )  # fmt: skip
    path.rename(path.with_name("epoch-00000000-batch-000000000009.safetensors"))
    with pytest.raises(ValueError, match=r"is damaged.*how many batches are done"):
        train(data, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize("at", [1, 2, -1])
def test_a_suspicion_that_comes_to_nothing_changes_no_bit(at, data, monkeypatch):
    whole = train(data)
    looks, count = training.Watch.is_well, [0]
    each = sum(1 for _ in _windows(data))

    def is_well(self, held, losses, **options):
        count[0] += len(losses) > 0
        suspect = count[0] == at % (each + 1) and len(losses)
        return False if suspect else looks(self, held, losses, **options)

    monkeypatch.setattr(training.Watch, "is_well", is_well)
    told = []
    again = train(data, callback=lambda epoch, state, metrics: told.extend(metrics["losses"]))
    assert bits(again) == bits(whole)
    assert told == whole.history.loss.tolist()
    assert count[0] == 2 * each


def test_a_run_of_several_cuts_reports_all_losses_of_an_epoch(data, tmp_path, brought):
    seen = {}
    train(data, callback=lambda epoch, state, metrics: seen.setdefault(epoch, metrics["losses"]))
    brought.ends.clear()
    brought.stop = 3
    train(data, checkpoint=tmp_path)
    again = {}
    options = {"checkpoint": tmp_path, "resume": True}
    train(data, callback=lambda e, s, m: again.setdefault(e, m["losses"]), **options)
    for epoch in (1, 2):
        assert np.array_equal(seen[epoch], again[epoch])


def test_in_another_order_a_run_does_not_go_on(data, tmp_path, monkeypatch):
    train(data, checkpoint=tmp_path)
    options = {"checkpoint": tmp_path, "resume": True, "epochs": 3}
    with monkeypatch.context() as patch:
        patch.setattr(windows, "BLOCK", 2**9)
        with pytest.raises(ValueError, match=r"its order is .*block=.*, here .*block="):
            train(data, **options)
    with pytest.raises(ValueError, match="of another run: its data is"):
        train(in_memory(data), **options)
    assert len(train(data, **options).history.loss) == 99


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_devices_come_to_what_one_does(data, devices, x64):
    options = {"batch_size": 48, "preprocess": fn.standardize}
    make = partial(fn.fit, net(normalization="batchnorm", keep_prob=0.8), fn.sgd_momentum(0.05))
    one = make(data, **{**OPTIONS, **options})
    several = make(data, mesh=fn.device_mesh(devices), **{**OPTIONS, **options})
    trees = [jax.tree.leaves((r.state.params, r.state.state)) for r in (one, several)]
    for a, b in zip(*trees, strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() < 1e-10
    assert np.allclose(one.history.loss, several.history.loss, atol=1e-10)


@pytest.mark.slow
def test_in_shards_bits_are_those_of_any_number_of_devices(data):
    options = {**OPTIONS, "batch_size": 48, "reproducible": 4, "eval_every": None}
    make = partial(fn.fit, net(normalization="batchnorm", keep_prob=0.8), fn.adam(1e-2))
    one, *others = (make(data, mesh=fn.device_mesh(n), **options) for n in (1, 2, 4))
    assert all(bits(other) == bits(one) for other in others)


def test_a_step_that_is_not_finite_is_found(data):
    with pytest.raises(fn.NonFiniteError) as error:
        fn.fit(net(), fn.sgd(1e12), data, **OPTIONS)
    trouble = error.value.trouble
    with pytest.raises(fn.NonFiniteError) as memory:
        fn.fit(net(), fn.sgd(1e12), in_memory(data), **OPTIONS)
    assert trouble.step in (memory.value.trouble.step, memory.value.trouble.step + 1)
    assert trouble.epoch == 1
    assert int(error.value.result.state.epoch) == 0
    skipped = fn.fit(net(), fn.sgd(1e12), data, on_nonfinite="skip", **OPTIONS)
    assert np.isfinite(skipped.history.loss[: trouble.step - 1]).all()


def test_one_thread_reads_while_a_bad_step_is_looked_for(data, monkeypatch):
    """Windows are read into the same memory."""
    reading, most, read = [], [], Stored.read

    def slow(self, spans, room=None):
        if room is None:
            return read(self, spans)
        reading.append(self)
        most.append(len(reading))
        found = read(self, spans, room)
        time.sleep(0.02)
        reading.pop()
        return found

    monkeypatch.setattr(Stored, "read", slow)
    with pytest.raises(fn.NonFiniteError):
        fn.fit(net(), fn.sgd(1e12), data, **OPTIONS)
    assert max(most) == 1


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_metrics_of_ones_own_are_given_arrays(task, place):
    data = fn.load_arrays(place, memory_map="yes", task=task)
    given = {}

    def size(scores, y):
        assert type(y) is np.ndarray
        given[len(y)] = y
        return len(scores)

    outputs = 3 if task == "classification" else 1
    options = {**OPTIONS, "epochs": 1, "metrics": {"size": size}}
    history = fn.fit(fn.mlp([4], outputs), fn.adam(1e-2), data, **options).history
    assert history.metrics["val_size"].tolist() == [len(data.y_val)] * 2
    assert np.array_equal(given[len(data.y_val)], data.y_val[:])


def _windows(data, **options):
    """The windows of an epoch of the training split of a run."""
    key = fn.init_train_state(net(), fn.adam(1e-2), (4,), key=KEY).key
    given = {"batch_size": 50, "row_bytes": data.x_train.row_bytes + data.y_train.row_bytes}
    source = windows.StoredWindows(key, data.x_train, data.y_train, None, **{**given, **options})
    return source.windows(0, 0, windows.whole)


@pytest.mark.parametrize("reproducible", [None, 2])
def test_a_step_that_is_not_finite_is_found_in_any_window(reproducible, place, tmp_path):
    x = np.load(place / "x.npy")
    x[1234] = 3e38
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.load(place / "y.npy"))
    data = fn.load_arrays(tmp_path, memory_map="yes", val_fraction=0.0, test_fraction=0.0)
    places = [
        (number, window.end - window.full + step + 1)
        for number, window in enumerate(_windows(data))
        for step in range(window.full)
        if window.x[step].max() > 1e38
    ]
    ((number, step),) = places
    assert number > 0
    options = {"preprocess": None, "eval_every": None, "reproducible": reproducible}
    result = train(data, on_nonfinite="stop", **options)
    assert result.trouble.step == step
    assert (int(result.state.step), len(result.history.loss)) == (0, 0)
    skipped = train(data, on_nonfinite="skip", **{**options, "epochs": 1})
    assert result.trouble.last_loss == skipped.history.loss[step - 2]


def spoiled_after(steps):
    """Adam that from a step on has an infinity of which nothing else is seen."""
    inner = fn.adam(1e-2)

    def init(params):
        return {"inner": inner.init(params), "spoiled": jnp.zeros(())}

    def update(grads, state, params):
        updates, new = inner.update(grads, state["inner"], params)
        spoiled = jnp.where(state["inner"]["step"] >= steps, jnp.inf, 0.0)
        return updates, {"inner": new, "spoiled": spoiled}

    return fn.Optimizer(init, update)


@pytest.mark.parametrize("share", [1e-9, 1e9])  # it is hardly ever looked at, or each time
@pytest.mark.parametrize("at", [50, 66])
def test_what_goes_bad_in_a_later_epoch_ends_with_the_one_before(at, share, data, monkeypatch):
    monkeypatch.setattr(nonfinite, "SHARE", share)
    options = {**OPTIONS, "eval_every": None, "on_nonfinite": "stop"}
    result = fn.fit(net(), spoiled_after(at), data, **{**options, "epochs": 3})
    assert (result.trouble.step, result.trouble.epoch) == (at + 1, at // 33 + 1)
    before = fn.fit(net(), spoiled_after(1000), data, **{**options, "epochs": at // 33})
    assert bits(result) == bits(before)


@pytest.mark.parametrize("way", ["due", "interrupted"])
def test_no_checkpoint_in_mid_epoch_is_of_a_state_that_is_not_finite(
    way, data, tmp_path, monkeypatch, brought
):
    monkeypatch.setattr(nonfinite, "SHARE", 1e-9)  # looks at the first state, and when it must
    monkeypatch.setattr(checkpoints.Pace, "is_due", lambda self: way == "due")
    brought.stop = 4 if way == "interrupted" else None
    options = {"on_nonfinite": "stop", "checkpoint": tmp_path, "eval_every": None}
    result = fn.fit(net(), spoiled_after(20), data, **{**OPTIONS, **options})
    assert brought.ends[1] < 20 < brought.ends[2]
    if way == "due":
        assert (result.status, result.trouble.step) == ("diverged", 21)
    for path in tmp_path.glob("epoch-*"):
        leaves, _ = load_tensors(path, kind="checkpoint")
        (own,) = (leaf for name, leaf in leaves.items() if "spoiled" in name)
        assert own == 0
    assert len(list(tmp_path.glob("epoch-*"))) == (2 if way == "due" else 1)


def test_a_number_that_is_not_finite_ends_a_run_with_its_place(place, tmp_path):
    x = np.load(place / "x.npy")
    x[1500, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.load(place / "y.npy"))
    data = fn.load_arrays(tmp_path, memory_map="yes", val_fraction=0.0, test_fraction=0.0)
    with pytest.raises(
        ValueError, match=r"x must be finite, but row 1,500 of x\.npy in .* has nan"
    ):
        train(data, preprocess=None)
    assert [t.name for t in threading.enumerate() if "funcnet" in t.name] == []


@pytest.mark.parametrize(
    "task", slow_but(["classes", "numbers", "two numbers", "labels"], "classes", "two numbers")
)
def test_evaluation_in_parts_is_that_of_all_at_once(task, place, tmp_path, rng, monkeypatch):
    x, y = np.load(place / "x.npy"), np.load(place / "y.npy")
    y = {
        "classes": y,
        "numbers": 5 * x[:, 0] + 100 + rng.normal(size=COUNT),
        "two numbers": x[:, :2] * [1, 50],
        "labels": (x[:, :3] > 0).astype(int),
    }[task]
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "w.npy", rng.random(COUNT))
    kind = {"classes": None, "labels": "multilabel"}.get(task, "regression")
    data = fn.load_arrays(tmp_path, memory_map="yes", task=kind, test_fraction=0.3)
    outputs = {"classes": 3, "numbers": 1, "two numbers": 2, "labels": 3}[task]
    result = fn.fit(fn.mlp([16], outputs), fn.adam(1e-2), data, **{**OPTIONS, "epochs": 1})
    model, val = result.model, (data.x_val[:], data.y_val[:])
    assert np.isclose(fn.evaluate(model, *val).loss, result.history.val_loss[-1], rtol=1e-5)
    weight = fn.datasets.disk.Stored([fn.datasets.disk.map_npy(tmp_path / "w.npy")])
    weight = weight.some(data.x_test._blocks)
    monkeypatch.setattr(fn.evaluation, "TOGETHER", 3)
    for w in (None, weight):
        found = fn.evaluate(model, data.x_test, data.y_test, sample_weight=w, batch_size=100)
        own = None if w is None else w[:]
        every = fn.evaluate(
            model, data.x_test[:], data.y_test[:], sample_weight=own, batch_size=100
        )
        assert type(found) is type(every)
        one, other = map(jax.tree.leaves, map(tuple, (found, every)))
        assert np.allclose(one, other, rtol=1e-10)
    if task == "classes":
        balanced = {"class_weight": "balanced", "sample_weight": weight}
        found = fn.evaluate(model, data.x_test, data.y_test, **balanced)
        balanced["sample_weight"] = weight[:]
        assert found.loss == fn.evaluate(model, data.x_test[:], data.y_test[:], **balanced).loss
        weights = {"class_weight": {"0": 5.0, "2": 0.5}}
        found, every = (
            fn.evaluate(model, x, y, **weights)
            for x, y in ((data.x_test, data.y_test), (data.x_test[:], data.y_test[:]))
        )
        assert found.loss == every.loss
    assert np.array_equal(fn.predict(model, data.x_test), fn.predict(model, data.x_test[:]))
    with pytest.raises(ValueError, match="targets, and weights, must be of its rows, on disk too"):
        fn.evaluate(model, data.x_test, data.y_test[:])


def test_a_thread_makes_one_ahead_and_hands_on_what_goes_wrong():
    made = []

    def items():
        for item in range(5):
            made.append(item)
            yield item
        raise OSError("gone")

    found = []
    with pytest.raises(OSError, match="gone"):
        found.extend(feed.ahead(items()))
    assert made == [*range(5)]
    made.clear()
    stream = feed.ahead(items())
    assert next(stream) == 0
    stream.close()
    assert len(made) <= 3
    assert [t.name for t in threading.enumerate() if "funcnet" in t.name] == []


def test_a_thread_has_the_dtypes_and_the_device_of_who_asks():
    def items():
        found = jax.device_put(np.zeros(1))
        yield found.dtype, found.devices()

    device = jax.devices()[1]
    assert list(feed.ahead(items())) == [(np.float32, {jax.devices()[0]})]
    with jax.enable_x64(True), jax.default_device(device):
        assert list(feed.ahead(items())) == [(np.float64, {device})]
