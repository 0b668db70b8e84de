"""A run that was cut off goes on from its checkpoint to the same bits, or is refused by name."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reliability
from marks import slow_but

import funcnet as fn
from funcnet import checkpoints
from funcnet.tensors import load_tensors, save_tensors

pytestmark = pytest.mark.usefixtures("unoptimized")
KEY = jax.random.key(3)


def blobs(count=43):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = (rng.normal(size=(count, 2, 4)) + y[:, None, None]).astype(np.float32)
    return fn.Dataset(x, y, x[:9], y[:9], x[:0], y[:0], ("a", "b", "c"))


def shifted(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


def train(optimizer=None, net=None, data=None, **changes):
    net = net or fn.mlp([6, 5], 3, normalization="batchnorm", keep_prob=0.8)
    options = {
        "key": KEY,
        "epochs": 6,
        "batch_size": 8,
        "augment": shifted,
        "label_smoothing": 0.1,
        "mixup_alpha": 0.2,
        "average_decay": 0.9,
        "metrics": {"right": lambda scores, y: (scores.argmax(axis=1) == y).mean()},
    }
    rate = fn.cosine_decay(1e-2, 36)
    return fn.fit(net, optimizer or fn.adam(rate), data or blobs(), **{**options, **changes})


def bits(result):
    """Everything of a result that a run comes to, as bytes."""
    best = result.best
    trees = (
        result.state._replace(key=jax.random.key_data(result.state.key)),
        result.model.params,
        result.history.loss,
        result.history.rows(),
        best and (best.params, best.state, best.epoch, best.accuracy, best.loss),
    )
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


def cut_after(epochs):
    def callback(epoch, state, metrics):
        if epoch == epochs:
            raise KeyboardInterrupt

    return callback


OPTIMIZERS = {
    **{name: lambda make=make: make(1e-2) for name, make in fn.optim.OPTIMIZERS.items()},
    "one_cycle": lambda: fn.sgd_momentum(fn.one_cycle(1e-2, 36)),
    "warmup": lambda: fn.adamw(fn.warmup(fn.step_decay(1e-2, 0.5, 12), 9), weight_decay=0.1),
    "clipped": lambda: fn.clip_by_global_norm(fn.adam(1e-2), 0.1),
}


@pytest.mark.parametrize("name", slow_but(OPTIMIZERS, "adam"))
def test_a_run_cut_off_after_any_epoch_goes_on_to_the_same_bits(name, tmp_path):
    whole = bits(train(OPTIMIZERS[name]()))
    for epochs in (0, 2, 5):
        options = {"checkpoint": tmp_path / str(epochs)}
        cut = train(OPTIMIZERS[name](), callback=cut_after(epochs), **options)
        assert (cut.status, int(cut.state.epoch)) == ("interrupted", epochs)
        assert bits(train(OPTIMIZERS[name](), resume=True, **options)) == whole


def test_a_run_cut_off_again_and_again_writes_what_one_does_that_was_not(tmp_path):
    whole = train(checkpoint=tmp_path / "whole", checkpoint_every=1)
    for epochs in (0, 1, 2, 4, 5):
        train(checkpoint=tmp_path / "cut", resume=True, callback=cut_after(epochs))
    again = train(checkpoint=tmp_path / "cut", resume=True)
    assert bits(again) == bits(whole) == bits(train())
    files = [tmp_path / name / "epoch-00000006.safetensors" for name in ("cut", "whole")]
    (one, facts), (other, others_facts) = (load_tensors(f, kind="checkpoint") for f in files)
    assert facts == others_facts
    assert one.keys() == other.keys()
    for name in one.keys() - {"run/key"}:
        assert np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes()


def test_a_finished_run_is_given_back_and_goes_on_further(tmp_path):
    options = {"optimizer": fn.adam(1e-2), "checkpoint": tmp_path, "resume": True}
    seen = []
    first = train(**options)
    again = train(callback=lambda epoch, *_: seen.append(epoch), **options)
    assert bits(again) == bits(first)
    assert (seen, again.status) == ([6], "finished")
    further = train(epochs=8, **options)
    assert bits(further) == bits(train(fn.adam(1e-2), epochs=8))
    with pytest.raises(ValueError, match=r"epochs is 7, but the run in .* has done 8 already"):
        train(epochs=7, **options)


@pytest.mark.slow
def test_the_last_ones_are_kept(tmp_path):
    train(checkpoint=tmp_path, checkpoint_every=2, keep_checkpoints=3, epochs=9)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", *(f"epoch-0000000{n}.safetensors" for n in (6, 8, 9))]


def test_without_a_number_they_are_written_as_often_as_takes_a_share_of_the_time(
    tmp_path, monkeypatch
):
    clock = {"now": 0.0}

    def monotonic():
        clock["now"] += 0.5  # that it takes to write one
        return clock["now"]

    monkeypatch.setattr(checkpoints.time, "monotonic", monotonic)
    there = []

    def callback(epoch, state, metrics):
        clock["now"] += 10  # that an epoch takes
        files = [path.stem for path in tmp_path.glob("epoch-*.safetensors")]
        there.append(max([int(name.removeprefix("epoch-")) for name in files], default=0))

    train(checkpoint=tmp_path, callback=callback, epochs=13)
    assert there == [0, *[1] * 5, *[6] * 5, *[11] * 3]  # every 50 s, of which half a second is 1 %


DATA = blobs()
REFUSED = {
    "data": ({"data": DATA._replace(x_train=DATA.x_train + 1)}, "its data is"),
    "net of other sizes": (
        {"net": fn.mlp([7, 5], 3, normalization="batchnorm", keep_prob=0.8)},
        r"its net is \.\.\..*, here",
    ),
    "net of other layers": ({"net": fn.mlp([6, 5], 3, normalization="batchnorm")}, "its net is"),
    "optimizer": ({"optimizer": fn.sgd(0.1)}, "its optimizer is .*_adam.*, here .*_sgd"),
    "rate": (
        {"optimizer": fn.adam(fn.cosine_decay(1e-2, 72))},
        r"total_steps=36\D.*total_steps=72\D",
    ),
    "key": ({"key": jax.random.key(4)}, "its key is"),
    "batch size": ({"batch_size": 9}, r"its batch_size is 8, here 9"),
    "reg": ({"reg": 0.1}, r"its reg is 0, here 0\.1"),
    "loss": ({"loss_fn": fn.svm_loss, "label_smoothing": 0, "mixup_alpha": 0}, "another run"),
    "augmentation": ({"augment": None}, "its augment is shifted, here None"),
    "preprocessing": ({"preprocess": fn.standardize}, "its preprocessing is"),
    "metrics": ({"metrics": None}, "its metrics is"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept")
    train(checkpoint=path, callback=cut_after(2))
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_checkpoints_of_another_run_are_refused_by_name(case, kept):
    changes, problem = REFUSED[case]
    before = {path: path.read_bytes() for path in kept.iterdir()}
    with pytest.raises(ValueError, match=problem) as error:
        train(checkpoint=kept, resume=True, **changes)
    assert str(kept / "epoch-00000002.safetensors") in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert {path: path.read_bytes() for path in kept.iterdir()} == before


def test_checkpoints_are_not_overwritten_unless_they_are_resumed(kept):
    with pytest.raises(FileExistsError, match="has checkpoints of a run: go on with resume=True"):
        train(checkpoint=kept)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"resume": True}, "resume and checkpoint_every are for checkpoint"),
        ({"checkpoint_every": 1}, "resume and checkpoint_every are for checkpoint"),
        ({"checkpoint": ""}, "checkpoint must be a directory, it is empty"),
        ({"checkpoint": "x", "checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"checkpoint": "x", "keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
    ],
)
def test_wrong_arguments_make_no_directory(changes, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=problem):
        train(**changes)
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_serves(tmp_path):
    train(checkpoint=tmp_path, checkpoint_every=1, callback=cut_after(3))
    last = tmp_path / "epoch-00000003.safetensors"
    data = bytearray(last.read_bytes())
    data[-5] ^= 1
    last.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.*; without .* goes on from epoch-00000002\."):
        train(checkpoint=tmp_path, resume=True)
    last.unlink()
    assert bits(train(checkpoint=tmp_path, resume=True)) == bits(train())


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    stale = tmp_path / ".epoch-00000001.safetensors.0123456789abcdef.tmp"
    others = [tmp_path / name for name in (".notes.tmp", "epoch-1.tmp", ".x.0123456789abcdef.tmpl")]
    for path in (stale, *others):
        path.write_bytes(b"x")
    train(checkpoint=tmp_path, epochs=1)
    assert not stale.exists()
    assert all(path.exists() for path in others)


def test_two_runs_in_one_directory(tmp_path):
    def callback(epoch, state, metrics):
        with pytest.raises(BlockingIOError, match=f"is in use, by process {os.getpid()}: wait"):
            train(checkpoint=tmp_path, resume=True)

    train(checkpoint=tmp_path, callback=callback, epochs=1)
    train(checkpoint=tmp_path, resume=True, epochs=1)  # the lock is free again


def test_a_full_disk_ends_with_an_error_and_the_earlier_checkpoint_intact(tmp_path, monkeypatch):
    fsync = os.fsync

    def callback(epoch, state, metrics):
        if epoch == 2:

            def full(descriptor):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match=r"No space left on device: .*epoch-00000003\.safetensors"):
        train(checkpoint=tmp_path, checkpoint_every=1, callback=callback)
    monkeypatch.setattr(os, "fsync", fsync)
    assert len(list(tmp_path.glob(".*.tmp"))) == 0
    assert bits(train(checkpoint=tmp_path, resume=True)) == bits(train())


def test_a_checkpoint_of_another_machine_is_said(tmp_path, monkeypatch):
    train(checkpoint=tmp_path, callback=cut_after(1))
    monkeypatch.setattr(checkpoints, "machine", lambda: {"backend": "abacus"})
    with pytest.warns(UserWarning, match="another machine or by another version.*abacus"):
        train(checkpoint=tmp_path, resume=True)


def test_what_older_checkpoints_do_not_say_is_known(tmp_path):
    whole = bits(train(epochs=3))
    train(checkpoint=tmp_path, epochs=2)
    path = tmp_path / "epoch-00000002.safetensors"
    leaves, metadata = load_tensors(path, kind="checkpoint")
    facts = json.loads(metadata["run"])
    for name in ("monitor", "class_weight", "reproducible", "model_parallel", "order"):
        del facts["identity"][name]
    del facts["done"], facts["mark"]
    path.unlink()
    save_tensors(path, leaves, kind="checkpoint", run=json.dumps(facts))
    assert bits(train(checkpoint=tmp_path, resume=True, epochs=3)) == whole


@pytest.mark.slow
def test_leaves_of_ones_own_are_kept(tmp_path):
    """A layer that counts in integers and holds keys, an optimizer of a state of its own kind."""
    inner = fn.affine(3)

    def init(key, in_shape):
        params, _, out = inner.init(key, in_shape)
        own_key = jax.random.key(7, impl="rbg")
        return params, fn.FrozenDict({"seen": jnp.zeros((), jnp.int8), "key": own_key}), out

    def forward(params, state, x, *, key, train):
        out, cache, _ = inner.forward(params, fn.FrozenDict(), x, key=key, train=train)
        if train:
            (new,) = jax.random.split(state["key"], 1)
            state = fn.FrozenDict.shallow({"seen": state["seen"] + 1, "key": new})
        return out, cache, state

    net = fn.Layer("counting", init, forward, inner.backward)
    options = {"net": net, "metrics": None, "eval_every": None}

    def update(grads, state, params):
        count, scale = state
        return jax.tree.map(lambda g: -scale * g, grads), (count + 1, scale * jnp.bfloat16(0.99))

    own = fn.Optimizer(lambda params: (jnp.zeros((), jnp.int32), jnp.bfloat16(0.1)), update)
    whole = train(own, average_decay=None, **options)
    train(own, average_decay=None, callback=cut_after(3), checkpoint=tmp_path, **options)
    again = train(own, average_decay=None, checkpoint=tmp_path, resume=True, **options)
    assert again.state.state == whole.state.state
    assert again.state.params == whole.state.params
    assert again.state.opt_state[1] == whole.state.opt_state[1]
    assert int(again.state.state["seen"]) == 36


def start(path, epochs=300):
    """A run in a process of its own, which writes a checkpoint after each of its epochs."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_checkpoints import train\n"
        f"train(checkpoint=sys.argv[2], resume=True, checkpoint_every=1, epochs={epochs})"
    )
    here = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", code, here, str(path)])


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_in_another_process_to_the_same_bits(tmp_path):
    rng, kills = np.random.default_rng(5), 0
    while True:
        process = start(tmp_path)
        begun = time.monotonic()
        while not checkpoints.has_checkpoints(tmp_path) and process.poll() is None:
            time.sleep(0.01)
            assert time.monotonic() - begun < 120
        time.sleep(3 if kills else 0)
        time.sleep(rng.uniform(0, 1))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if kills == 4:
            assert start(tmp_path).wait() == 0
            break
    assert kills
    jax.config.update("jax_disable_most_optimizations", False)  # as in those processes
    jax.clear_caches()
    again = train(checkpoint=tmp_path, resume=True, epochs=300)
    assert bits(again) == bits(train(epochs=300))
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_a_value_is_made_of():
    """A number is the same whatever holds it; an array is its dtype, shape and bytes."""
    described = checkpoints.described
    assert {described(make(0.5)) for make in (float, np.float32, jnp.float32, np.array)} == {"0.5"}
    assert described(np.int32(3)) == described(3) == described(3.0) == "3"
    arrays = [np.zeros(1), np.zeros(2), np.zeros((1, 1)), np.ones(2), np.zeros(2, np.float32)]
    assert len({described(array) for array in arrays}) == 5
    assert described(jnp.zeros(2)) == described(arrays[-1])
    assert described(arrays[0]).startswith("float64[1] ")


@pytest.mark.parametrize("name", ["scale", "größe", "масштаб"])
def test_texts_that_differ_are_shown_from_where_they_do(name):
    there, here = (f"serial({name}(1), {name}({number}), {'relu, ' * 20})" for number in (22, 23))
    found = checkpoints._difference(there, here)
    assert [text[:9] for text in found] == ["...22), r", "...23), r"]
    assert checkpoints._difference(name, "1") == (name, "1")


@pytest.mark.slow
def test_flipped_bits_are_noticed():
    """The script does it 100,000 times."""
    assert re.match(r"300 checkpoints .* refused by name", reliability.flips(300))


def test_a_directory_made_read_only_in_mid_run_is_an_error_and_loses_nothing():
    assert "then from there on to the same bits" in reliability.read_only()


def test_a_run_is_trained_again_from_the_earliest_checkpoint(tmp_path):
    state = train(checkpoint=tmp_path, checkpoint_every=1).state
    for before in (6, 7):
        earlier = checkpoints.earlier_state(tmp_path, state, before)
        assert int(earlier.epoch) == 5
        assert jax.tree.structure(earlier) == jax.tree.structure(state)
    for path, before in ((tmp_path, 5), (tmp_path, 4), (tmp_path / "none", 6)):
        with pytest.raises(ValueError, match=f"has no checkpoint from before epoch {before}"):
            checkpoints.earlier_state(path, state, before)


def test_a_directory_that_goes_away_in_mid_run_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "kept"

    def callback(epoch, state, metrics):
        if epoch == 2:
            path.rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError, match=r"kept/epoch-00000003\.safetensors"):
        train(checkpoint=path, checkpoint_every=1, callback=callback)
    assert bits(train(checkpoint=tmp_path / "elsewhere", resume=True)) == bits(train())


@pytest.mark.slow
def test_runs_in_threads_come_to_their_own_bits(tmp_path):
    keys = [jax.random.key(seed) for seed in range(4)]
    alone = [bits(train(key=key)) for key in keys]
    shared, x = train().model, blobs(600).x_train
    scores = fn.predict_scores(shared, x).tobytes()

    def run(number):
        result = train(key=keys[number], checkpoint=tmp_path / str(number))
        own = fn.predict_scores(result.model, x[:7])
        return bits(result), own.shape, fn.predict_scores(shared, x).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [(each, (7, 3), scores) for each in alone]
