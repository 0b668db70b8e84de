"""Optimizers of other libraries in our loops, and ours in theirs."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn

DIGITS = fn.load_digits()
DATA = DIGITS._replace(
    x_train=DIGITS.x_train[:100], y_train=DIGITS.y_train[:100],
    x_val=DIGITS.x_val[:20], y_val=DIGITS.y_val[:20],
)  # fmt: skip
NET = fn.mlp([8], 10)
OPTIONS = {"key": jax.random.key(0), "epochs": 3, "batch_size": 50, "preprocess": fn.standardize}


class Nothing(NamedTuple):
    """A state without leaves, as of a transformation that has none, or of a leaf left out."""


class ByMoment(NamedTuple):
    count: Any
    mu: Any
    masked: Any
    spare: Any  # None


class Foreign(NamedTuple):
    """What optimizers of other libraries are: a pair under these names, and states of any kind."""

    init: Any
    update: Any


def momentum(learning_rate):
    """Momentum whose state has parts without leaves; its update takes extra arguments."""

    def masked(params):
        return jax.tree.map(lambda p: jnp.zeros_like(p) if p.ndim > 1 else Nothing(), params)

    def init(params):
        mu = jax.tree.map(jnp.zeros_like, params)
        return (Nothing(), (ByMoment(jnp.zeros([], jnp.int32), mu, masked(params), None),))

    def update(updates, state, params=None, **extra_args):
        _, (own,) = state
        mu = jax.tree.map(lambda m, g: 0.9 * m + g, own.mu, updates)
        rate = jnp.asarray(learning_rate, jnp.float32)
        kept = jax.tree.map(
            lambda m, g: m if isinstance(m, Nothing) else m + g,
            own.masked, updates, is_leaf=lambda leaf: isinstance(leaf, Nothing),
        )  # fmt: skip
        after = ByMoment(own.count + 1, mu, kept, None)
        return jax.tree.map(lambda m: -rate * m, mu), (Nothing(), (after,))

    return Foreign(init, update)


def optax_named(name):
    """An optimizer of the real optax, which is no dependency."""
    optax = pytest.importorskip("optax")

    def matrices(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return {
        "adamw": lambda rate: optax.adamw(rate),
        "masked": lambda rate: optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(rate, mask=matrices)
        ),
        "injected": lambda rate: optax.inject_hyperparams(optax.sgd)(rate, momentum=0.9),
        "noisy": lambda rate: optax.chain(optax.add_noise(1e-3, 0.5, key=0), optax.sgd(rate)),
        "several": lambda rate: optax.MultiSteps(optax.adam(rate), 2),
    }[name]


def maker(name):
    return momentum if name == "stand-in" else optax_named(name)


NAMES = ("stand-in", "adamw", "masked", "injected", "noisy", "several")


def plain(state):
    """The leaves of a state as they are compared, random keys as numbers, and its structure."""
    leaves = [
        jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
        for leaf in map(jnp.asarray, jax.tree.leaves(state))
    ]
    return [np.asarray(leaf) for leaf in leaves], jax.tree.structure(state)


def same(a, b):
    (left, of_left), (right, of_right) = plain(a), plain(b)
    return of_left == of_right and all(map(np.array_equal, left, right))


@pytest.mark.parametrize("name", slow_but(NAMES, "stand-in"))
def test_it_trains_and_goes_on_to_the_same_bits(name, tmp_path):
    fit = partial(fn.fit, NET, maker(name)(1e-2), DATA, **OPTIONS)
    whole = fit()
    assert whole.history.loss[-1] < whole.history.loss[0]
    run = tmp_path / "run"
    fit(checkpoint=run, callback=lambda epoch, *_: epoch == 1)
    again = fit(checkpoint=run, resume=True)
    assert same(whole.state, again.state)
    fn.save_state(tmp_path / "state.safetensors", whole.state)
    assert same(fn.load_state(tmp_path / "state.safetensors", whole.state), whole.state)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shards_come_to_the_same_bits_on_two_devices(name):
    make, options = maker(name), {**OPTIONS, "batch_size": 48, "reproducible": 2}
    one = fn.fit(NET, make(1e-2), DATA, **options)
    two = fn.fit(NET, make(1e-2), DATA, mesh=fn.device_mesh(2), **options)
    assert same(one.state.params, two.state.params)
    assert same(one.state.opt_state, two.state.opt_state)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_traces_its_rate(name, tmp_path):
    make = maker(name)

    def experiment(learning_rate):
        return NET, make(learning_rate)

    options = {each: OPTIONS[each] for each in ("key", "epochs", "batch_size", "preprocess")}
    settings = fn.grid(learning_rate=[1e-3, 1e-2, 3e-2])
    swept = fn.sweep(experiment, DATA, settings, checkpoint=tmp_path / "sweep", **options)
    losses = [member.history.loss[-1] for member in swept.members]
    assert len({float(loss) for loss in losses}) == 3
    again = fn.sweep(
        experiment, DATA, settings, checkpoint=tmp_path / "sweep", resume=True, **options
    )
    assert [member.history.loss[-1] for member in again.members] == losses


def test_what_wants_more_than_training_gives_is_refused():
    foreign = momentum(1e-2)

    def update(updates, state, params=None, *, value, **extra_args):
        return foreign.update(updates, state, params)

    with pytest.raises(TypeError, match=r"wants more than grads, opt_state and params.*'value'"):
        fn.fit(NET, Foreign(foreign.init, update), DATA, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "muon", "average"])
def test_ours_in_loops_of_optax_and_flax(name):
    optax = pytest.importorskip("optax")
    made = {
        "adam": fn.adam,
        "muon": fn.muon,
        "average": lambda r: fn.with_average(fn.adamw(r), 0.9),
    }
    ours = made[name](1e-3)
    scaled = optax.chain(optax.scale(2.0), optax.GradientTransformation(ours.init, ours.update))
    x, y = DATA.x_train[:50], DATA.y_train[:50]
    start, state, _ = NET.init(jax.random.key(0), x.shape[1:])

    def gradient(params):
        return fn.loss_and_grads(NET, params, state, x, y)[1]

    params, opt_state = start, ours.init(start)
    for _ in range(3):
        grads = jax.tree.map(lambda g: 2.0 * g, gradient(params))
        updates, opt_state = ours.update(grads, opt_state, params)
        params = fn.apply_updates(params, updates)

    theirs, their_state = start, scaled.init(start)
    for _ in range(3):
        updates, their_state = scaled.update(gradient(theirs), their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert same(params, theirs)
    assert same(opt_state, their_state[1])

    flax = pytest.importorskip("flax.training.train_state")
    for given in (start, fn.unfreeze(start)):
        training = flax.TrainState.create(apply_fn=NET.forward, params=given, tx=scaled)
        for _ in range(3):
            training = training.apply_gradients(grads=gradient(training.params))
        assert same(params, fn.freeze(training.params))
