"""Sweeps that are cut off and go on from what is saved; members that end for want of patience."""

import shutil
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.files import locked

pytestmark = pytest.mark.usefixtures("unoptimized")
key = jax.random.key(231)
SETTINGS = [
    {"learning_rate": rate, "seed": seed} for rate in (1e-3, 3e-3, 1e-2, 3e-2) for seed in (0, 1)
]


def experiment(learning_rate):
    net = fn.mlp([7], 10, normalization="batchnorm", keep_prob=0.9)
    return net, fn.adam(learning_rate), {"average_decay": 0.9}


def run(data, settings=SETTINGS, experiment=experiment, **options):
    options = {"key": key, "epochs": 4, "batch_size": 50, "chunk_size": 4, **options}
    return fn.sweep(experiment, data, settings, **options)


def cut_after(calls, how=KeyboardInterrupt):
    """A callback that ends a sweep the time that it is called for the so-manieth time."""
    seen = []

    def callback(done, total, members):
        seen.append(done)
        if len(seen) == calls:
            if how is True:
                return True
            raise how
        return None

    return callback


def bits(tree):
    """All leaves of a tree, to the bit."""

    def of_leaf(leaf):
        typed = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )
        array = np.asarray(jax.random.key_data(leaf) if typed else leaf)
        return str(array.dtype), array.shape, array.tobytes()

    return [of_leaf(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(a, b):
    """Two results of a sweep are the same to the bit."""
    for mine, its in zip(a.members, b.members, strict=True):
        assert mine._replace(model=None, best=None, history=None, state=None) == its._replace(
            model=None, best=None, history=None, state=None
        )
        assert bits(mine.model) == bits(its.model)
        assert bits(mine.best) == bits(its.best)
        assert bits(mine.history) == bits(its.history)
    assert a.test == b.test
    assert a.best_settings == b.best_settings


def names(path):
    return sorted(file.name for file in path.iterdir())


@pytest.fixture(scope="module")
def whole(small):
    jax.config.update("jax_disable_most_optimizations", True)
    return run(small)


@pytest.mark.parametrize(
    ("calls", "how"),
    [
        pytest.param(3, KeyboardInterrupt, id="in the first chunk"),
        pytest.param(4, True, id="after the first chunk", marks=pytest.mark.slow),
        pytest.param(6, StopIteration, id="in the second chunk", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_was_cut_off_goes_on_to_the_same_bits(calls, how, small, whole, tmp_path):
    kept = {"checkpoint": tmp_path / "kept", "checkpoint_every": 1}
    first = run(small, callback=cut_after(calls, how), **kept)
    assert first.interrupted
    assert first.test is None
    with pytest.raises(FileExistsError, match="kept has checkpoints of a sweep: go on with resume"):
        run(small, **kept)
    seen = []
    again = run(small, resume=True, callback=lambda done, *_: seen.append(done), **kept)
    assert len(seen) == 8 - calls
    assert_same(again, whole)
    assert names(tmp_path / "kept")[0] == ".lock"
    assert len(names(tmp_path / "kept")) == 1 + 2  # a file for each chunk
    once_more = run(small, resume=True, callback=lambda *_: seen.clear(), **kept)
    assert len(seen) == 8 - calls  # nothing was left to do
    assert_same(once_more, whole)


def test_what_is_saved_while_it_goes_on_is_what_a_crash_leaves(small, whole, tmp_path):
    kept, copies = tmp_path / "kept", []

    def crash(done, total, members):
        copies.append(shutil.copytree(kept, tmp_path / str(done)))

    run(small, callback=crash, checkpoint=kept, checkpoint_every=2)
    (tmp_path / "24" / f".members-00000009.safetensors.{16 * 'a'}.tmp").write_bytes(b"half")
    for path, left in ((copies[1], 8), (copies[5], 4)):  # before the first file; after the first
        seen = []
        options = {"checkpoint": path, "resume": True}
        again = run(small, callback=lambda done, *_, seen=seen: seen.append(done), **options)
        assert len(seen) == left
        assert_same(again, whole)
        assert not [name for name in names(path) if name.endswith(".tmp")]


@pytest.mark.slow
def test_halving_goes_on_to_the_same_bits(small, tmp_path):
    options = {"halve_at": [2], "monitor": "val_loss"}
    ends = run(small, **options)
    assert sum(member.status == "stopped" for member in ends.members) == 4
    for calls in (2, 3, 4, 5):
        kept = {"checkpoint": tmp_path / str(calls), "resume": True}
        run(small, callback=cut_after(calls), **kept, **options)
        assert_same(run(small, **kept, **options), ends)


OTHERS = {
    "data": ({"data": "changed"}, "its data is"),
    "key": ({"key": jax.random.key(1)}, "its key is"),
    "settings": ({"settings": SETTINGS[:7]}, "its settings is"),
    "net": (
        {"experiment": lambda learning_rate: (fn.mlp([7], 10), fn.adam(learning_rate))},
        "its nets and optimizers is",
    ),
    "number": (
        {"experiment": lambda learning_rate: (*experiment(learning_rate)[:2], {"reg": 0.1})},
        "its nets and optimizers is",
    ),
    "preprocessing": ({"preprocess": fn.no_preprocess}, "its preprocessing is"),
    "batch size": ({"batch_size": 40}, "its batch sizes is"),
    "epochs": ({"epochs": 5}, "its epochs is 4, here 5"),
    "halving": ({"halve_at": [2]}, r"its halve_at is \[\], here \[2\]"),
    "patience": ({"patience": 3}, "its patience is None, here 3"),
    "monitor": ({"monitor": "val_loss"}, "its monitor is val_accuracy, here val_loss"),
}


@pytest.fixture(scope="module")
def cut(small, tmp_path_factory):
    """The directory of a sweep that was cut off after an epoch of its first chunk."""
    jax.config.update("jax_disable_most_optimizations", True)
    path = tmp_path_factory.mktemp("cut")
    run(small, callback=cut_after(1), checkpoint=path)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_another_sweep_is_refused(name, small, cut):
    changes, problem = OTHERS[name]
    data = small._replace(x_train=small.x_train[::-1]) if "data" in changes else small
    before = {file: (cut / file).read_bytes() for file in names(cut)}
    options = {name: value for name, value in changes.items() if name != "data"}
    with pytest.raises(ValueError, match=f"is of another sweep: {problem}"):
        run(data, checkpoint=cut, resume=True, **options)
    assert {file: (cut / file).read_bytes() for file in names(cut)} == before


def test_what_is_damaged_is_refused_by_name(small, cut, tmp_path):
    path = shutil.copytree(cut, tmp_path / "copy")
    file = max(path.glob("*.safetensors"))
    data = file.read_bytes()
    file.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    with pytest.raises(ValueError, match=rf"{file.name} is damaged: its checksum does not match"):
        run(small, checkpoint=path, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_is_of_runs_or_of_sweeps(resume, small, cut, tmp_path):
    of_run = tmp_path / "run"
    of_run.mkdir()
    (of_run / "epoch-00000003.safetensors").touch()
    with pytest.raises(FileExistsError, match="has checkpoints of a run, and this is a sweep"):
        run(small, checkpoint=of_run, resume=resume)
    net, optimizer = fn.mlp([7], 10), fn.adam(1e-3)
    options = {"key": key, "epochs": 1, "batch_size": 50, "resume": resume}
    with pytest.raises(FileExistsError, match="has checkpoints of a sweep, and this is a run"):
        fn.fit(net, optimizer, small, checkpoint=cut, **options)


def test_a_directory_in_use_is_refused(small, cut):
    with locked(cut), pytest.raises(BlockingIOError, match="is in use"):
        run(small, checkpoint=cut, resume=True)


@pytest.mark.slow
def test_chunks_are_of_the_size_that_they_had(small, cut, tmp_path):
    """Which memory that is free now must not change; another one may be asked for."""
    for chunk_size, calls in ((None, 7), (8, 4)):
        path, seen = shutil.copytree(cut, tmp_path / str(chunk_size)), []
        options = {"checkpoint": path, "resume": True, "chunk_size": chunk_size}
        run(small, callback=lambda done, *_, seen=seen: seen.append(done), **options)
        assert len(seen) == calls + (chunk_size == 8) * 3  # four of the eight had done one


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"resume": True}, "resume and checkpoint_every are for checkpoint, which is None"),
        ({"checkpoint": ""}, "checkpoint must be a directory, it is empty"),
        ({"checkpoint": "kept", "checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"checkpoint": "kept", "members": ()}, "give either members or checkpoint"),
        ({"monitor": "val_f1"}, "unknown monitor 'val_f1'"),
        ({"patience": 2, "eval_every": None}, "patience needs eval_every"),
    ],
)
def test_wrong_options(options, problem, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=problem):
        run(small, **options)
    assert names(tmp_path) == []


class Counted(NamedTuple):
    """The state of an optimizer of one's own: no dict."""

    number: jax.Array
    keys: jax.Array


def odd_experiment(learning_rate):
    """A net whose state has a random key, an optimizer whose state is a tuple with another."""
    inner = fn.mlp([4], 10)

    def init(key, in_shape):
        params, state, out_shape = inner.init(key, in_shape)
        return params, {"own": jax.random.key(7), "inner": state}, out_shape

    def forward(params, state, x, *, key, train):
        out, cache, after = inner.forward(params, state["inner"], x, key=key, train=train)
        own = jax.random.split(state["own"])[0] if train else state["own"]
        return out, cache, {"own": own, "inner": after}

    net = fn.Layer("odd", init, forward, inner.backward)

    def update(grads, state, params):
        keys = jax.random.split(state.keys[0])
        new = Counted(state.number + 1, keys)
        return jax.tree.map(lambda g: -learning_rate * g, grads), new

    start = Counted(np.int8(0), jax.random.split(jax.random.key(3)))
    return net, fn.Optimizer(lambda params: jax.tree.map(jnp.asarray, start), update)


@pytest.mark.slow
def test_members_with_keys_and_tuples_in_their_states(small, tmp_path):
    options = {"settings": [{"learning_rate": 1e-2}, {"learning_rate": 1e-1}], "chunk_size": 2}
    options["experiment"] = odd_experiment
    ends = run(small, **options)
    kept = {"checkpoint": tmp_path, "resume": True}
    run(small, callback=cut_after(2), **kept, **options)
    assert_same(run(small, **kept, **options), ends)
    assert ends.members[0].model.state["own"].dtype == jax.random.key(0).dtype


# Rates with which a member gets no better from some epoch on.
STALE = [{"rate": rate, "seed": 0} for rate in (1e-2, 1.0, 2.0, 5.0, 8.0)]


def stale(rate):
    """After two epochs of four steps, or four, a member of a large rate only gets worse."""
    last = jnp.where(rate < 0.1, rate, -1e-3)
    steps = jnp.where(rate < 8, 8, 16)
    return fn.mlp([7], 10), fn.adam(lambda step: jnp.where(step < steps, 1e-2 / (1 + rate), last))


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["val_accuracy", "val_loss", "train_loss"])
def test_patience_ends_members_as_it_ends_runs(monitor, small):
    options = {"patience": 2, "monitor": monitor, "epochs": 12}
    result = run(small, STALE, stale, chunk_size=5, **options)
    ends = []
    for member in result.members:
        net, optimizer = stale(member.settings["rate"])
        own = fn.member_key(key, member.settings)
        lone = fn.fit(net, optimizer, small, key=own, batch_size=50, **options)
        assert (member.status, member.epochs) == ("finished", int(lone.state.epoch))
        assert member.best.epoch == lone.best.epoch
        assert member.history.epoch.tolist() == lone.history.epoch.tolist()
        assert_close(member.model.params, lone.model.params)
        assert_close(member.best.params, lone.best.params)
        ends.append(member.epochs)
    assert min(ends) < 12
    best = min(result.members, key=lambda m: m.best.loss)
    if monitor == "val_loss":
        assert result.best is best.best
        assert max(ends) == 12  # in a smaller program at last


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the chunks that are begun, in turn."""
    module, begun = sys.modules["funcnet.sweeps.engine"], []

    def begin(*arguments):
        begun.append(original(*arguments))
        return begun[-1]

    original = module.begin
    monkeypatch.setattr(module, "begin", begin)

    def sizes():
        found = [chunk.size for chunk in begun]
        begun.clear()
        return found

    return sizes


@pytest.mark.parametrize("calls", slow_but([2, 4, 5, 6, 11], 5))
def test_patience_goes_on_to_the_same_bits(calls, small, tmp_path, sizes):
    options = {"patience": 2, "monitor": "val_loss", "epochs": 12, "chunk_size": 5}
    ends = run(small, STALE, stale, **options)
    assert [member.epochs for member in ends.members] == [12, 4, 4, 4, 6]
    assert sizes() == [5, 3, 1]  # there is a program for fewer when half have ended
    kept = {"checkpoint": tmp_path, "resume": True, "checkpoint_every": 1}
    first = run(small, STALE, stale, callback=cut_after(calls), **kept, **options)
    assert first.interrupted
    sizes()
    assert_same(run(small, STALE, stale, **kept, **options), ends)
    assert sizes() == [5, 3, 1][(calls >= 4) + (calls >= 6) :]


def test_the_best_member_is_that_by_what_is_monitored(small):
    """One that learns nothing has less right, but is not as wrong as one of large weights."""

    def scaled(scale):
        rate = jnp.where(scale < 0.1, 1e-6, 1e-2)
        return fn.mlp([20], 10, weight_scale=scale), fn.adam(lambda step: rate)

    settings = fn.grid(scale=[1e-3, 0.5])
    for monitor, best in (("val_loss", 0), ("val_accuracy", 1)):
        result = run(small, settings, scaled, chunk_size=2, monitor=monitor)
        measured = [(member.best.accuracy, member.best.loss) for member in result.members]
        assert measured[0] < measured[1]
        assert measured[0][1] < measured[1][1]
        assert result.best_settings == settings[best]


@pytest.mark.slow
def test_a_sweep_ends_when_all_members_have(small):
    seen = []

    def callback(done, total, members):
        seen.append((done, total))
        assert sum(member.epochs for member in members()) == done

    result = run(
        small, STALE[1:], stale, callback=callback, epochs=50, patience=2, monitor="val_loss"
    )
    assert {member.status for member in result.members} == {"finished"}
    assert max(member.epochs for member in result.members) < 12
    assert seen[-1][0] == sum(member.epochs for member in result.members)
    assert len(seen) < 12 * len(STALE)
