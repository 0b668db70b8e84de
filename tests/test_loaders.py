"""Batches of other people's loaders: what they may be, what an epoch of them is, going on."""

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet import loaders
from funcnet import train as training

pytestmark = pytest.mark.usefixtures("unoptimized")
KEY = jax.random.key(5)
OPTIONS = {"key": KEY, "epochs": 3, "steps_per_epoch": 20}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 1)
    return fn.Dataset(x[:500], y[:500], x[500:], y[500:], x[:0], y[:0], ("a", "b", "c"))


class Batches:
    """Grain's shape: an iterator that says where it is."""

    def __init__(self, data, count=None, size=16, weights=False):
        self.data, self.count, self.size, self.weights = data, count, size, weights
        self.place = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.count is not None and self.place >= self.count:
            raise StopIteration
        rng = np.random.default_rng(self.place)
        rows = rng.integers(500, size=self.size)
        self.place += 1
        batch = self.data.x_train[rows], self.data.y_train[rows]
        return (*batch, rng.random(self.size)) if self.weights else batch

    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]


class Bytes(Batches):
    """The state of others is bytes."""

    def get_state(self):
        return b"\xff" + bytes([self.place])

    def set_state(self, state):
        assert state[0] == 255
        self.place = state[1]


class Again:
    """What can be iterated over again and again."""

    def __init__(self, *args, kind=Batches, **options):
        self.make = lambda: kind(*args, **options)

    def __iter__(self):
        return self.make()


def train(data, batches, **changes):
    net = changes.pop("net", None) or fn.mlp([8], 3)
    return fn.fit(net, fn.adam(1e-2), data, batches=batches, **{**OPTIONS, **changes})


def bits(result):
    trees = result.state._replace(key=0), result.history.loss, result.history.rows()
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


@pytest.mark.parametrize("weights", [False, True])
def test_steps_are_those_of_the_batches(data, weights):
    result = train(data, Batches(data, weights=weights), epochs=2)
    net, optimizer = fn.mlp([8], 3), fn.adam(1e-2)
    step = fn.make_train_step(net, optimizer, preprocess=fn.subtract_mean(data.x_train))
    state, losses = fn.init_train_state(net, optimizer, (4,), key=KEY), []
    for batch, _ in zip(Batches(data, weights=weights), range(40), strict=False):
        state, metrics = step(state, *batch)
        losses.append(float(metrics["loss"]))
    assert np.allclose(result.history.loss, losses, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (state.params, result.state.params)), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert result.history.val_accuracy[-1] > result.history.val_accuracy[0]


def test_an_epoch_is_an_iteration_or_so_many_steps(data):
    one = train(data, Again(data, 20), steps_per_epoch=None)
    two = train(data, Again(data, 20))
    assert bits(one) == bits(two)
    assert len(one.history.loss) == 60
    assert bits(train(data, Again(data, 7))) != bits(one)  # begun again within an epoch
    assert bits(train(data, Again(data, 60))) == bits(train(data, Batches(data)))
    listed = list(Batches(data, 20))
    assert bits(train(data, listed, steps_per_epoch=None)) == bits(one)
    plain = (batch for batch in Batches(data))
    assert bits(train(data, plain)) == bits(train(data, Batches(data)))


def test_batches_of_any_size(data):
    sizes = [16, 16, 5, 16, 9, 9]
    parts = [Batches(data, 1, size) for size in sizes]
    batches = [next(part) for part in parts]
    result = train(data, batches, steps_per_epoch=None, epochs=1)
    assert len(result.history.loss) == 6
    step = fn.make_train_step(
        fn.mlp([8], 3), fn.adam(1e-2), preprocess=fn.subtract_mean(data.x_train)
    )
    state = fn.init_train_state(fn.mlp([8], 3), fn.adam(1e-2), (4,), key=KEY)
    for loss, batch in zip(result.history.loss, batches, strict=True):
        state, metrics = step(state, *batch)
        assert np.isclose(float(metrics["loss"]), loss, rtol=1e-5)


@pytest.mark.parametrize("weights", [False, True])
def test_a_loader_may_fill_the_same_arrays_again(data, weights):
    def filled():
        room: list = []
        for batch in Batches(data, weights=weights):
            room = room or [np.empty_like(part) for part in batch]
            for array, part in zip(room, batch, strict=True):
                array[:] = part
            yield tuple(room)

    new = train(data, Batches(data, weights=weights))
    assert np.array_equal(train(data, filled()).history.loss, new.history.loss)


@pytest.mark.parametrize("kind", [Batches, Bytes])
@pytest.mark.parametrize("again", [False, True])
def test_a_run_goes_on_in_mid_epoch_to_the_same_bits(
    kind, again, data, tmp_path, monkeypatch, brought
):
    monkeypatch.setattr(loaders, "TOGETHER", 6)

    def make():
        return Again(data, 20, kind=kind) if again else kind(data)

    steps = None if again else 20
    whole = bits(train(data, make(), steps_per_epoch=steps))
    for stop in (1, 3, 4, 5, 8, 12):
        brought.ends.clear()
        brought.stop, place = stop, tmp_path / str(stop)
        options = {"checkpoint": place, "resume": True, "steps_per_epoch": steps}
        cut = train(data, make(), **options)
        assert (cut.status, int(cut.state.epoch)) == ("interrupted", (stop - 1) // 4)
        last = max((path.stem for path in place.glob("epoch-*")), default="")
        assert ("batch" in last) == (stop not in (1, 5))
        brought.stop = None
        assert bits(train(data, make(), **options)) == whole


@pytest.mark.slow
def test_devices_have_parts_of_the_batches(data, x64):
    wide = data._replace(
        x_train=data.x_train.astype(np.float64), x_val=data.x_val[:0].astype(float)
    )
    wide = wide._replace(y_val=data.y_val[:0])
    options = {"net": fn.mlp([8], 3, normalization="batchnorm"), "epochs": 1}
    one = train(wide, Batches(wide), **options)
    two = train(wide, Batches(wide), mesh=fn.device_mesh(4), **options)
    assert np.allclose(one.history.loss, two.history.loss, atol=1e-10)
    options["reproducible"] = 4
    shards = [train(wide, Batches(wide), mesh=fn.device_mesh(n), **options) for n in (1, 4)]
    assert bits(shards[0]) == bits(shards[1])


def test_wide_batches_are_preprocessed_before_they_are_rounded(data):
    """At 1e9 float32 has steps of 64."""
    far = data._replace(
        x_train=data.x_train.astype(np.float64) + 1e9, x_val=data.x_val.astype(np.float64) + 1e9
    )
    near = train(data, Batches(data), epochs=1, preprocess=fn.subtract_mean)
    found = train(far, Batches(far), epochs=1, preprocess=fn.subtract_mean)
    assert np.allclose(found.history.loss, near.history.loss, rtol=1e-3)
    with pytest.raises(ValueError, match="x of batches is float64, which cannot be augmented"):
        train(far, Batches(far), augment=lambda key, x: x)


class Fresh:
    """Each iteration is in another order."""

    def __init__(self, data):
        self.data, self.count = data, 0

    def __iter__(self):
        made = Large(self.data)
        made.place, made.large = 100 * self.count, 3
        self.count += 1
        return made


class Large(Batches):
    """A batch is too large for float32; there are twenty."""

    large = 10

    def __next__(self):
        if self.place % 100 == 20:
            raise StopIteration
        x, y = super().__next__()
        return x * np.float32(1e38 if self.place == self.large else 1), y


@pytest.mark.parametrize("kind", [Large, Fresh])
def test_a_step_that_is_not_finite_is_found_at_its_batch(kind, data, monkeypatch):
    monkeypatch.setattr(loaders, "TOGETHER", 4)
    options = {"preprocess": None, "epochs": 1, "eval_every": None}
    options["steps_per_epoch"] = 20 if kind is Large else None
    plain = train(data, kind(data), on_nonfinite="skip", **options)
    with pytest.raises(fn.NonFiniteError) as error:
        train(data, kind(data), **options)
    trouble = error.value.trouble
    assert (trouble.step, trouble.epoch) == (10 if kind is Large else 3, 1)
    assert trouble.last_loss == plain.history.loss[trouble.step - 2]


def test_a_suspicion_that_comes_to_nothing_changes_no_bit(data, monkeypatch):
    monkeypatch.setattr(loaders, "TOGETHER", 6)
    whole = bits(train(data, Batches(data)))
    looks, count = training.Watch.is_well, [0]

    def is_well(self, held, losses, **options):
        count[0] += 1
        return False if count[0] == 2 else looks(self, held, losses, **options)

    monkeypatch.setattr(training.Watch, "is_well", is_well)
    assert bits(train(data, Batches(data))) == whole
    assert count[0] > 12


def test_in_shards_a_run_goes_on_in_mid_epoch(data, tmp_path, monkeypatch, brought):
    monkeypatch.setattr(loaders, "TOGETHER", 6)
    options = {"reproducible": 2, "epochs": 1, "eval_every": None}
    whole = bits(train(data, Batches(data), **options))
    brought.ends.clear()
    brought.stop = 3
    options |= {"checkpoint": tmp_path}
    assert train(data, Batches(data), **options).status == "interrupted"
    assert bits(train(data, Batches(data), resume=True, **options)) == whole


def test_with_other_epochs_a_run_does_not_go_on(data, tmp_path):
    train(data, Batches(data), checkpoint=tmp_path, epochs=1)
    options = {"checkpoint": tmp_path, "resume": True}
    with pytest.raises(ValueError, match=r"its order is .*, 20 an epoch.*, here .*, 10 an"):
        train(data, Batches(data), steps_per_epoch=10, **options)


@pytest.mark.parametrize("way", ["again", "not again"])
def test_a_step_that_is_not_finite_is_found_where_batches_can_be_read_again(data, way):
    plain = Batches(data) if way == "again" else (batch for batch in Batches(data))
    with pytest.raises(fn.NonFiniteError) as error:
        fn.fit(fn.mlp([8], 3), fn.sgd(1e12), data, batches=plain, **OPTIONS)
    trouble = error.value.trouble
    if way == "again":
        assert 2 <= trouble.step <= 8
        assert trouble.where[0] == "loss" or "affine" in trouble.where[0]
    else:
        assert (trouble.step, trouble.where) == (1, ("a step from here on",))


WRONG = {
    "none": (lambda d: [], ValueError, "batches gives none"),
    "no iterator": (lambda d: 3, TypeError, "batches must be an iterator.* got int"),
    "an array": (lambda d: d.x_train, TypeError, "batches must be an iterator.* got ndarray"),
    "no pairs": (lambda d: [d.x_train], TypeError, r"must give \(x, y\).* got ndarray"),
    "four": (lambda d: [(1, 2, 3, 4)], TypeError, "got tuple of 4"),
    "ended": (lambda d: Batches(d, 30), ValueError, "ended after 10 of 20 steps"),
    "a shape": (
        lambda d: [(d.x_train[:8, :3], d.y_train[:8])],
        ValueError,
        r"x of batch 1 has examples of shape \[3\], expected \[4\]",
    ),
    "a dtype": (
        lambda d: [(d.x_train[:8].astype(int), d.y_train[:8])],
        ValueError,
        "x of batch 1 is int64, but x_train of the dataset, what x is like, float32: .* one scale",
    ),
    "a label": (
        lambda d: [(d.x_train[:8], d.y_train[:8]), (d.x_train[:8], np.full(8, 3))],
        ValueError,
        "y of batch 2 must hold labels 0 to 2",
    ),
    "not finite": (
        lambda d: [(np.full((8, 4), np.nan, np.float32), d.y_train[:8])],
        ValueError,
        "x of batch 1 must be finite",
    ),
    "weights now and then": (
        lambda d: [(d.x_train[:8], d.y_train[:8]), (d.x_train[:8], d.y_train[:8], np.ones(8))],
        ValueError,
        "sample_weight of batch 2: all batches have one, or none has",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_batches(kind, data):
    make, error, message = WRONG[kind]
    with pytest.raises(error, match=message):
        train(data, make(data))


def test_a_state_that_json_cannot_hold_is_no_matter_without_checkpoints(data, tmp_path):
    class Odd(Batches):
        def get_state(self):
            return {1: np.array(self.place)}

    losses = [train(data, kind(data)).history.loss for kind in (Batches, Odd)]
    assert np.array_equal(*losses)
    with pytest.raises(TypeError, match="must give bytes, or what JSON can hold"):
        train(data, Odd(data), checkpoint=tmp_path)


def test_an_iterator_that_ends_is_for_one_epoch(data):
    options = {"steps_per_epoch": None, "epochs": 2}
    with pytest.raises(ValueError, match="gives none in epoch 2: an iterator that ends is for one"):
        train(data, iter(list(Batches(data, 5))), **options)


def test_options_that_do_not_go_together(data, tmp_path):
    with pytest.raises(ValueError, match="batch_size is for the dataset's examples"):
        train(data, Batches(data), batch_size=8)
    with pytest.raises(ValueError, match="steps_per_epoch is for batches"):
        train(data, None, batch_size=8)
    with pytest.raises(TypeError, match="batch_size must be an integer, got None"):
        train(data, None, steps_per_epoch=None)
    with pytest.raises(ValueError, match=r"no get_state\(\) and set_state\(state\)"):
        train(data, list(Batches(data, 5)), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="batch_size is 16, which cannot be divided among 3"):
        train(data, Batches(data), mesh=fn.device_mesh(3))
