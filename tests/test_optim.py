"""Optimizers: one table, every test runs over it. A new optimizer is one more row."""

import inspect
import re
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import optim

# References, written from the papers and CS231n's notes, in NumPy. Each is
# `reference(dw, w, state, t, rate, **hypers) -> update`: state is a dict of arrays that it
# changes in place, t counts the updates from 1.


def sgd(dw, w, state, t, rate):
    return -rate * dw


def sgd_momentum(dw, w, state, t, rate, momentum=0.9):
    state["velocity"] = momentum * state["velocity"] - rate * dw
    return state["velocity"]


def nesterov(dw, w, state, t, rate, momentum=0.9):
    before = state["velocity"]
    state["velocity"] = momentum * before - rate * dw
    return -momentum * before + (1 + momentum) * state["velocity"]


def adagrad(dw, w, state, t, rate, epsilon=1e-8):
    state["cache"] = state["cache"] + dw**2
    return -rate * dw / (np.sqrt(state["cache"]) + epsilon)


def rmsprop(dw, w, state, t, rate, decay_rate=0.99, epsilon=1e-8):
    state["cache"] = decay_rate * state["cache"] + (1 - decay_rate) * dw**2
    return -rate * dw / (np.sqrt(state["cache"]) + epsilon)


def adam(dw, w, state, t, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    state["m"] = beta1 * state["m"] + (1 - beta1) * dw
    state["v"] = beta2 * state["v"] + (1 - beta2) * dw**2
    m_hat = state["m"] / (1 - beta1**t)
    v_hat = state["v"] / (1 - beta2**t)
    return -rate * m_hat / (np.sqrt(v_hat) + epsilon)


def adamw(dw, w, state, t, rate, weight_decay=0.01, **hypers):
    return adam(dw, w, state, t, rate, **hypers) - rate * weight_decay * w


def lion(dw, w, state, t, rate, beta1=0.9, beta2=0.99, weight_decay=0.0):
    direction = np.sign(beta1 * state["m"] + (1 - beta1) * dw)
    state["m"] = beta2 * state["m"] + (1 - beta2) * dw
    return -rate * (direction + weight_decay * w)


def muon(dw, w, state, t, rate, momentum=0.95, weight_decay=0.0, **hypers):
    if dw.ndim != 2:
        return adamw(dw, w, state, t, rate, weight_decay=weight_decay, **hypers)
    state["m"] = momentum * state["m"] + (1 - momentum) * dw
    ahead = momentum * state["m"] + (1 - momentum) * dw
    size = 0.2 * np.sqrt(max(dw.shape))
    return -rate * (size * newton_schulz(ahead) + weight_decay * w)


def newton_schulz(x):
    """Jordan's iteration, from the left whatever the shape."""
    x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(5):
        cube = x @ x.T @ x
        x = 3.4445 * x - 4.7750 * cube + 2.0315 * (x @ x.T @ cube)
    return x


def orthogonal(g):
    """The same by its singular values: each goes through the polynomial, five times."""
    u, s, vh = np.linalg.svd(g, full_matrices=False)
    s = s / np.sqrt(np.sum(s**2))
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vh


class Row(NamedTuple):
    """An optimizer, its reference, the names of its moments, and hyper-parameters to try."""

    make: object
    reference: object
    moments: tuple
    hypers: dict
    first: object  # the first update of w by g in closed form, for the default hyper-parameters


BETAS = {"beta1": 0.7, "beta2": 0.95}
SIGN = lambda g: g / (np.abs(g) + 1e-8)  # noqa: E731

OPTIMIZERS = {
    "sgd": Row(fn.sgd, sgd, (), {}, lambda g, w, rate: -rate * g),
    "sgd_momentum": Row(
        fn.sgd_momentum,
        sgd_momentum,
        ("velocity",),
        {"momentum": 0.7},
        lambda g, w, rate: -rate * g,
    ),
    "nesterov": Row(
        fn.nesterov,
        nesterov,
        ("velocity",),
        {"momentum": 0.7},
        lambda g, w, rate: -1.9 * rate * g,
    ),
    "rmsprop": Row(
        fn.rmsprop,
        rmsprop,
        ("cache",),
        {"decay_rate": 0.8, "epsilon": 1e-2},
        lambda g, w, rate: -rate * g / (0.1 * np.abs(g) + 1e-8),
    ),
    "adagrad": Row(
        fn.adagrad,
        adagrad,
        ("cache",),
        {"epsilon": 1e-2},
        lambda g, w, rate: -rate * SIGN(g),
    ),
    "adam": Row(
        fn.adam,
        adam,
        ("m", "v"),
        {**BETAS, "epsilon": 1e-2},
        lambda g, w, rate: -rate * SIGN(g),
    ),
    "adamw": Row(
        fn.adamw,
        adamw,
        ("m", "v"),
        {**BETAS, "epsilon": 1e-2, "weight_decay": 0.3},
        lambda g, w, rate: -rate * (SIGN(g) + 0.01 * w),
    ),
    "lion": Row(
        fn.lion,
        lion,
        ("m",),
        {**BETAS, "weight_decay": 0.3},
        lambda g, w, rate: -rate * np.sign(g),
    ),
    "muon": Row(
        fn.muon,
        muon,
        ("m", "v"),
        {"momentum": 0.7, **BETAS, "epsilon": 1e-2, "weight_decay": 0.3},
        lambda g, w, rate: -rate * (SIGN(g) if g.ndim < 2 else size(g) * orthogonal(g)),
    ),
}


def size(g):
    return 0.2 * np.sqrt(max(g.shape))


# Optimizers around others, for the tests that no value matters to.
WRAPPED = {
    "clipped adam": OPTIMIZERS["adam"]._replace(
        make=lambda rate, **hypers: fn.clip_by_global_norm(fn.adam(rate, **hypers), 1e3)
    ),
    "averaged sgd_momentum": OPTIMIZERS["sgd_momentum"]._replace(
        make=lambda rate, **hypers: fn.with_average(fn.sgd_momentum(rate, **hypers), 0.9),
        moments=(),
    ),
}

every = pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
BOTH = OPTIMIZERS | WRAPPED
wrapped_too = pytest.mark.parametrize("row", BOTH.values(), ids=list(BOTH))
DECAYING = [kind for kind, row in OPTIMIZERS.items() if "weight_decay" in row.hypers]
decaying = pytest.mark.parametrize("row", [OPTIMIZERS[k] for k in DECAYING], ids=DECAYING)
HYPERS = [
    pytest.param(row, name, id=f"{kind}-{name}")
    for kind, row in OPTIMIZERS.items()
    for name in row.hypers
]


def draw(rng, dtype="float64"):
    """Parameters or gradients of two layers."""
    return fn.FrozenDict(
        affine1={"w": jnp.asarray(rng.normal(size=(3, 2)), dtype), "b": jnp.zeros(2, dtype) + 0.5},
        affine2={"w": jnp.asarray(10 * rng.normal(size=(2, 4)), dtype), "b": jnp.ones(4, dtype)},
    )


def walk(optimizer, params, recorded):
    """The parameters, state and updates after `recorded`, a tree of stacked gradients."""

    def step(carry, grads):
        params, opt_state = carry
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (fn.apply_updates(params, updates), opt_state), updates

    (params, opt_state), updates = jax.lax.scan(step, (params, optimizer.init(params)), recorded)
    return params, opt_state, updates


def test_the_table_has_every_optimizer():
    assert {kind: row.make for kind, row in OPTIMIZERS.items()} == optim.OPTIMIZERS
    for row in OPTIMIZERS.values():
        numbers = [n for n in inspect.signature(row.make).parameters if not n.endswith("_names")]
        assert ["learning_rate", *row.hypers] == numbers


# The assignment's own numbers

W = np.linspace(-0.4, 0.6, num=20).reshape(4, 5)
DW = np.linspace(-0.6, 0.4, num=20).reshape(4, 5)
RISING = np.linspace(0.6, 0.9, num=20).reshape(4, 5)
FALLING = np.linspace(0.7, 0.5, num=20).reshape(4, 5)

TABLES = {
    "sgd_momentum": (
        fn.sgd_momentum(1e-3),
        {"velocity": RISING, "step": 0},
        1e-8,
        {
            "w": [
                [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
                [0.47454737, 0.54133684, 0.60812632, 0.67491579, 0.74170526],
                [0.80849474, 0.87528421, 0.94207368, 1.00886316, 1.07565263],
                [1.14244211, 1.20923158, 1.27602105, 1.34281053, 1.4096],
            ],
            "velocity": [
                [0.5406, 0.55475789, 0.56891579, 0.58307368, 0.59723158],
                [0.61138947, 0.62554737, 0.63970526, 0.65386316, 0.66802105],
                [0.68217895, 0.69633684, 0.71049474, 0.72465263, 0.73881053],
                [0.75296842, 0.76712632, 0.78128421, 0.79544211, 0.8096],
            ],
        },
    ),
    "rmsprop": (
        fn.rmsprop(1e-2),
        {"cache": RISING, "step": 0},
        2e-7,
        {
            "w": [
                [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
                [-0.132737, -0.08078555, -0.02881884, 0.02316247, 0.07515774],
                [0.12716641, 0.17918792, 0.23122175, 0.28326742, 0.33532447],
                [0.38739248, 0.43947102, 0.49155973, 0.54365823, 0.59576619],
            ],
            "cache": [
                [0.5976, 0.6126277, 0.6277108, 0.64284931, 0.65804321],
                [0.67329252, 0.68859723, 0.70395734, 0.71937285, 0.73484377],
                [0.75037008, 0.7659518, 0.78158892, 0.79728144, 0.81302936],
                [0.82883269, 0.84469141, 0.86060554, 0.87657507, 0.8926],
            ],
        },
    ),
    "adam": (
        fn.adam(1e-2),
        {"m": RISING, "v": FALLING, "step": 5},
        2e-7,
        {
            "w": [
                [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
                [-0.1380274, -0.08544591, -0.03286534, 0.01971428, 0.0722929],
                [0.1248705, 0.17744702, 0.23002243, 0.28259667, 0.33516969],
                [0.38774145, 0.44031188, 0.49288093, 0.54544852, 0.59801459],
            ],
            "v": [
                [0.69966, 0.68908382, 0.67851319, 0.66794809, 0.65738853],
                [0.64683452, 0.63628604, 0.6257431, 0.61520571, 0.60467385],
                [0.59414753, 0.58362676, 0.57311152, 0.56260183, 0.55209767],
                [0.54159906, 0.53110598, 0.52061845, 0.51013645, 0.49966],
            ],
            "m": [
                [0.48, 0.49947368, 0.51894737, 0.53842105, 0.55789474],
                [0.57736842, 0.59684211, 0.61631579, 0.63578947, 0.65526316],
                [0.67473684, 0.69421053, 0.71368421, 0.73315789, 0.75263158],
                [0.77210526, 0.79157895, 0.81105263, 0.83052632, 0.85],
            ],
        },
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_the_assignment(name, x64):
    optimizer, opt_state, tol, expected = TABLES[name]
    updates, new_state = optimizer.update(DW, opt_state, W)
    results = {"w": fn.apply_updates(W, updates), **new_state}
    assert set(results) == {*expected, "step"}
    for entry, table in expected.items():
        assert fn.relative_error(results[entry], np.array(table)) <= tol, entry
    assert results["step"] == opt_state["step"] + 1
    assert type(new_state) is dict


# Values


@every
def test_the_first_step_in_closed_form(row, rng, x64):
    params, grads, rate = draw(rng), draw(rng), 0.02
    optimizer = row.make(rate)
    updates, opt_state = optimizer.update(grads, optimizer.init(params), params)
    expected = jax.tree.map(
        lambda g, w: row.first(np.asarray(g), np.asarray(w), rate), grads, params
    )
    assert fn.relative_error(updates, expected) <= 1e-12
    assert opt_state["step"] == 1


@pytest.mark.parametrize("given", [False, True], ids=["defaults", "hypers"])
@every
def test_a_thousand_steps_on_recorded_gradients(row, given, rng, x64):
    """Not on a loss: two trajectories of a chaotic recursion part, whoever is right."""
    hypers = row.hypers if given else {}
    scales = 10.0 ** rng.uniform(-3, 2, size=(1000, 1, 1))  # gradients come in all sizes
    recorded = scales * rng.normal(size=(1000, 3, 2))
    recorded[::7, 0] = 0
    optimizer = row.make(3e-2, **hypers)
    w = np.asarray(rng.normal(size=(3, 2)))
    params, opt_state, updates = walk(optimizer, jnp.asarray(w), jnp.asarray(recorded))

    state = {name: np.zeros((3, 2)) for name in row.moments}
    for t, dw in enumerate(recorded, start=1):
        expected = row.reference(dw, w, state, t, 3e-2, **hypers)
        w = w + expected
        np.testing.assert_allclose(updates[t - 1], expected, rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(params, w, rtol=1e-10)
    for name in row.moments:
        np.testing.assert_allclose(opt_state[name], state[name], rtol=1e-10)
    assert opt_state["step"] == 1000


@every
def test_updates_point_downhill(row, rng, x64):
    """A walk on a bowl: whatever the rule, the loss falls."""
    optimizer = row.make(0.1)
    start = jnp.asarray(rng.normal(size=(3, 2)))

    def step(_, carry):
        w, opt_state = carry
        updates, opt_state = optimizer.update(w, opt_state, w)
        return fn.apply_updates(w, updates), opt_state

    w, _ = jax.lax.fori_loop(0, 400, step, (start, optimizer.init(start)))
    assert jnp.vdot(w, w) < 0.1 * jnp.vdot(start, start)


def test_nesterov_takes_the_gradient_at_the_point_ahead(rng, x64):
    """Sutskever's own form, theta with its gradient at theta + mu v, on a bowl: w is that point."""
    theta, v = rng.normal(size=5), np.zeros(5)
    curvature, rate, mu = rng.uniform(0.5, 2, size=5), 0.1, 0.8
    optimizer = fn.nesterov(rate, mu)
    w, opt_state = jnp.asarray(theta), optimizer.init(theta)
    for _ in range(20):
        v = mu * v - rate * curvature * (theta + mu * v)
        theta = theta + v
        updates, opt_state = optimizer.update(curvature * w, opt_state, w)
        w = fn.apply_updates(w, updates)
        np.testing.assert_allclose(w, theta + mu * v, rtol=1e-12)


def test_adams_first_step_in_float32_is_the_rate_times_the_sign(rng):
    """1 - 0.999**1 taken naively in float32 would be off by 1e-5."""
    grads = jnp.asarray(rng.choice([-1.0, 1.0], size=500) * rng.uniform(0.1, 50, size=500), "f")
    optimizer = fn.adam(1e-3)
    update = jax.jit(optimizer.update)
    updates, _ = update(grads, optimizer.init(grads), grads)
    np.testing.assert_allclose(updates, -1e-3 * np.sign(grads), rtol=1e-6)


@pytest.mark.parametrize("traced", [False, True], ids=["betas", "traced betas"])
def test_adams_bias_correction_in_float32(traced, rng):
    """At any step, within a few units in the last place of float64."""
    w = jnp.ones(3)
    m, v = rng.uniform(0.5, 1, size=3), rng.uniform(0.5, 1, size=3)

    @jax.jit
    def update(step, beta1, beta2):
        betas = (beta1, beta2) if traced else (0.9, 0.999)
        opt_state = {"m": jnp.asarray(m, "f"), "v": jnp.asarray(v, "f"), "step": step}
        return fn.adam(1e-3, *betas).update(0 * w, opt_state, w)[0]

    for step in (0, 1, 2, 10, 100, 5000, 10**6):
        state = {"m": m, "v": v}
        expected = adam(np.zeros(3), None, state, step + 1, 1e-3)
        # A traced beta is a float32 itself: 0.999 rounded moves 1 - beta by 6e-5 of its size.
        rtol = 5e-5 if traced else 1e-6
        np.testing.assert_allclose(update(step, 0.9, 0.999), expected, rtol=rtol)


# The moment that 1 - beta of a gradient of ones is left in, of each coefficient below 1 and the
# shape of a leaf; None is none.
ONE_MINUS = {
    ("sgd_momentum", "momentum"): None,
    ("nesterov", "momentum"): None,
    ("rmsprop", "decay_rate"): ("cache", (2, 2)),
    ("adam", "beta1"): ("m", (2, 2)),
    ("adam", "beta2"): ("v", (2, 2)),
    ("adamw", "beta1"): ("m", (2, 2)),
    ("adamw", "beta2"): ("v", (2, 2)),
    ("lion", "beta1"): None,
    ("lion", "beta2"): ("m", (2, 2)),
    ("muon", "momentum"): ("m", (2, 2)),
    ("muon", "beta1"): ("m", (2,)),
    ("muon", "beta2"): ("v", (2,)),
}


def test_one_minus_has_every_coefficient():
    assert set(ONE_MINUS) == {
        (kind, name)
        for kind, row in OPTIMIZERS.items()
        for name in row.hypers
        if optim.HYPER_PARAMETERS[name].below == 1
    }


@pytest.mark.parametrize(("kind", "name"), [key for key, found in ONE_MINUS.items() if found])
def test_one_minus_a_coefficient_is_exact(kind, name):
    """1 - 0.9999 taken in float32 would be off by 2e-4."""
    moment, shape = ONE_MINUS[kind, name]
    ones = jnp.ones(shape)
    optimizer = OPTIMIZERS[kind].make(0.1, **{name: 0.9999})
    _, opt_state = optimizer.update(ones, optimizer.init(ones), ones)
    np.testing.assert_allclose(opt_state[moment], 1e-4, rtol=1e-6)


@wrapped_too
def test_zero_gradients_do_nothing(row, rng):
    """Besides the decay of the weights."""
    params = draw(rng, "float32")
    optimizer = row.make(0.1, **{k: 0.0 for k in row.hypers if k == "weight_decay"})
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, opt_state = optimizer.update(zeros, optimizer.init(params), params)
    assert not any(np.any(u) for u in jax.tree.leaves(updates))
    assert fn.apply_updates(params, updates) == params
    assert opt_state["step"] == 1


# States


@every
def test_the_state(row, rng):
    params = draw(rng, "float32")
    optimizer = row.make(0.1)
    opt_state = optimizer.init(params)
    assert isinstance(opt_state, fn.FrozenDict)
    assert set(opt_state) == {*row.moments, "step"}
    assert opt_state["step"].dtype == np.int32
    assert opt_state["step"].shape == ()
    assert opt_state["step"] == 0
    for moment in row.moments:
        assert opt_state[moment] == jax.tree.map(jnp.zeros_like, params)
    _, after = optimizer.update(params, opt_state, params)
    assert jax.tree.structure(after) == jax.tree.structure(opt_state)
    assert after["step"].dtype == np.int32
    assert after["step"] == 1
    assert opt_state == optimizer.init(params)  # the old state is as it was


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@wrapped_too
def test_dtypes_are_kept(row, dtype, rng, x64):
    params = draw(rng, dtype)
    # Hyper-parameters of a wider type must not widen anything.
    optimizer = row.make(np.float64(0.1), **{k: np.float64(v) for k, v in row.hypers.items()})
    updates, opt_state = optimizer.update(params, optimizer.init(params), params)
    moved = fn.apply_updates(params, updates)
    assert {leaf.dtype for leaf in jax.tree.leaves([updates, moved])} == {jnp.dtype(dtype)}
    moments = [opt_state[moment] for moment in row.moments]
    wide = jnp.promote_types(dtype, jnp.float32)  # a half underflows
    assert {leaf.dtype for leaf in jax.tree.leaves(moments)} <= {wide}
    assert opt_state["step"].dtype == np.int32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "adagrad"])
def test_small_gradients_in_half_precision_make_the_steps_of_float32(name, dtype):
    """With a float16 second moment, in which 1e-8 is 0, they were 25 times too large."""

    def steps(dtype):
        params = {"w": jnp.ones(3, dtype)}
        optimizer = fn.optim.OPTIMIZERS[name](0.1)
        state = optimizer.init(params)
        for _ in range(1000):
            updates, state = update(optimizer, {"w": jnp.full(3, 1e-4, dtype)}, state, params)
        return np.asarray(updates["w"], np.float32)

    update = jax.jit(lambda o, *at: o.update(*at), static_argnums=0)
    np.testing.assert_allclose(steps(dtype), steps("float32"), rtol=1e-2)


@wrapped_too
def test_each_leaf_keeps_its_own_dtype(row, x64):
    params = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(3, jnp.float64)}
    optimizer = row.make(0.1)
    updates, opt_state = optimizer.update(params, optimizer.init(params), params)
    for tree in (updates, *(opt_state[moment] for moment in row.moments)):
        assert (tree["a"].dtype, tree["b"].dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("shape", [(200,), (20, 10)], ids=str)
@wrapped_too
def test_bfloat16_is_rounded_once(row, shape, rng):
    grads = jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
    optimizer = row.make(0.1, **row.hypers)
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    wide = grads.astype(jnp.float32)
    exact, _ = optimizer.update(wide, optimizer.init(wide), wide)
    np.testing.assert_array_equal(
        np.asarray(updates, np.float32), np.asarray(exact.astype(jnp.bfloat16), np.float32)
    )


KINDS = {
    "FrozenDict": lambda p: p,
    "dict": fn.unfreeze,
    "FrozenDicts in a dict": dict,
    "dicts in a FrozenDict": lambda p: fn.FrozenDict.shallow(p.unfreeze()),
    "one of each": lambda p: {**p, "affine2": dict(p["affine2"])},
    "OrderedDict": lambda p: OrderedDict((name, p[name]) for name in reversed(list(p))),
    "tuple": lambda p: tuple(p.values()),
    "array": lambda p: p["affine1"]["w"],
    "NumPy array": lambda p: np.asarray(p["affine1"]["w"]),
    "nothing": lambda p: fn.FrozenDict(),
}


@pytest.mark.parametrize("kind", KINDS)
@wrapped_too
def test_trees_have_the_structure_of_params(row, kind, rng):
    params, grads = KINDS[kind](draw(rng, "float32")), KINDS[kind](draw(rng, "float32"))
    structure = jax.tree.structure(params)
    optimizer = row.make(0.1)
    opt_state = optimizer.init(params)
    for _ in range(2):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = fn.apply_updates(params, updates)
    for tree in (updates, params, *(opt_state[moment] for moment in row.moments)):
        assert jax.tree.structure(tree) == structure
    assert opt_state["step"] == 2


@wrapped_too
def test_a_plain_state_stays_plain(row, rng):
    params = draw(rng, "float32")
    optimizer = row.make(0.1)
    plain = {**optimizer.init(params)}
    updates, after = optimizer.update(params, plain, params)
    expected, frozen = optimizer.update(params, optimizer.init(params), params)
    assert type(after) is dict
    assert fn.FrozenDict.shallow(after) == frozen
    assert updates == expected


# Rates and other numbers, given and traced


@wrapped_too
def test_a_traced_rate(row, rng, x64):
    params = draw(rng)

    def first(rate):
        optimizer = row.make(rate)
        return optimizer.update(params, optimizer.init(params), params)[0]

    rates = jnp.array([1e-3, 0.5, 2.0])
    swept = jax.jit(jax.vmap(first))(rates)
    for i, rate in enumerate(rates):
        expected = first(float(rate))
        assert fn.relative_error(jax.tree.map(lambda u, i=i: u[i], swept), expected) <= 1e-12
    assert fn.relative_error(jax.jit(first)(0.5), first(0.5)) <= 1e-12


@pytest.mark.parametrize(("row", "name"), HYPERS)
def test_other_numbers_may_be_traced(row, name, rng, x64, unoptimized):
    start, *recorded = (
        {"w": jnp.asarray(rng.normal(size=(12, 8))), "b": jnp.asarray(rng.normal(size=5))}
        for _ in range(4)
    )

    def third(value):
        optimizer = row.make(0.1, **{**row.hypers, name: value})
        opt_state = optimizer.init(start)
        for grads in recorded:
            updates, opt_state = optimizer.update(grads, opt_state, start)
        return updates

    values = jnp.array([row.hypers[name], 0.5, 0.25])
    swept = jax.jit(jax.vmap(third))(values)
    swept = [jax.tree.map(lambda u, i=i: u[i], swept) for i in range(3)]
    for got, value in zip(swept, values, strict=True):
        assert fn.relative_error(got, third(float(value))) <= 1e-12
    assert fn.relative_error(swept[0], swept[1]) > 1e-6  # it matters


@wrapped_too
def test_numbers_that_are_arrays_may_be_closed_over(row, rng):
    """They are known, and yet what JAX makes of them while it traces is not."""
    params = draw(rng, "float32")

    def first(cast):
        optimizer = row.make(cast(0.1), **{name: cast(n) for name, n in row.hypers.items()})
        return jax.jit(optimizer.update)(params, optimizer.init(params), params)[0]

    assert fn.relative_error(first(jnp.float32), first(float)) <= 1e-4  # beta is rounded


@pytest.mark.parametrize("shape", [(5,), (3, 2)], ids=str)
@pytest.mark.parametrize(
    ("row", "name"), [param for param in HYPERS if param.values[1] != "epsilon"]
)
def test_a_coefficient_of_zero(row, name, shape, rng, x64):
    dw, w = rng.normal(size=shape), rng.normal(size=shape)
    optimizer = row.make(0.1, **{name: 0})
    opt_state = optimizer.init(w)
    state = {moment: np.zeros(shape) for moment in row.moments}
    for t in (1, 2):
        updates, opt_state = optimizer.update(t * dw, opt_state, w)
        expected = row.reference(t * dw, w, state, t, 0.1, **{name: 0})
        np.testing.assert_allclose(updates, expected, rtol=1e-12)


@wrapped_too
def test_a_schedule_is_called_with_the_count_before_the_update(row, rng, x64):
    params, grads = draw(rng), draw(rng)
    counts = []

    def schedule(step):
        counts.append((int(step), step.dtype))
        return 0.1 / (1 + step)

    scheduled, constant = row.make(schedule), row.make(0.1)
    updates, opt_state = scheduled.update(grads, scheduled.init(params), params)
    expected, _ = constant.update(grads, constant.init(params), params)
    assert fn.relative_error(updates, expected) <= 1e-14  # 0.1 / (1 + 0)
    slower = row.make(0.05)
    expected, _ = slower.update(grads, opt_state, params)
    updates, _ = scheduled.update(grads, opt_state, params)
    assert fn.relative_error(updates, expected) <= 1e-14  # 0.1 / (1 + 1)
    assert list(dict.fromkeys(counts)) == [(0, np.int32), (1, np.int32)]


@pytest.mark.parametrize("scheduled", [False, True], ids=["number", "schedule"])
@wrapped_too
def test_steps_compile_once(row, scheduled, rng):
    traces = []
    optimizer = row.make(fn.exponential_decay(0.1, 0.9, 2) if scheduled else 0.1)
    params = draw(rng, "float32")
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, grads):
        traces.append(1)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return fn.apply_updates(params, updates), opt_state

    for _ in range(5):
        params, opt_state = step(params, opt_state, params)
    assert opt_state["step"] == 5
    assert len(traces) == 1


# apply_updates


def test_apply_updates_keeps_dtypes_and_structure(rng, x64):
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": fn.FrozenDict(w=np.ones(3, np.float32))}
    updates = {"a": np.full(2, 0.5), "b": fn.FrozenDict(w=jnp.full(3, -0.25, jnp.float64))}
    moved = fn.apply_updates(params, updates)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    assert moved["a"].dtype == jnp.bfloat16
    assert moved["b"]["w"].dtype == np.float32
    np.testing.assert_array_equal(np.asarray(moved["a"], float), [1.5, 1.5])
    np.testing.assert_array_equal(moved["b"]["w"], [0.75] * 3)
    np.testing.assert_array_equal(params["b"]["w"], [1] * 3)


def test_apply_updates_checks_the_trees(rng):
    params = draw(rng, "float32")
    with pytest.raises(ValueError, match="updates must have the tree structure of params"):
        fn.apply_updates(params, params.unfreeze())
    with pytest.raises(ValueError, match="updates must have the tree structure of params"):
        fn.apply_updates(params, params.without("affine1"))
    with pytest.raises(ValueError, match=r"updates at affine1/b has shape \[1\].*has \[2\]"):
        fn.apply_updates(params, params.set(("affine1", "b"), jnp.ones(1)))


# Errors

BAD_RATES = [
    (0, ValueError),
    (-1e-3, ValueError),
    (np.nan, ValueError),
    (np.inf, ValueError),
    ("0.1", TypeError),
    (None, TypeError),
    (True, TypeError),
    (np.ones(2), TypeError),
]


@pytest.mark.parametrize(("rate", "kind"), BAD_RATES, ids=str)
@wrapped_too
def test_bad_rates(row, rate, kind):
    with pytest.raises(kind, match="learning_rate must be") as caught:
        row.make(rate)
    assert "\n" not in str(caught.value)


BELOW_ONE = [(-0.1, ValueError), (1, ValueError), (1.5, ValueError), (np.nan, ValueError)]
BAD_HYPERS = {
    "epsilon": [(0, ValueError), (-1e-8, ValueError), (np.inf, ValueError)],
    "weight_decay": [(-1e-8, ValueError), (np.inf, ValueError), (np.nan, ValueError)],
}


@pytest.mark.parametrize(("row", "name"), HYPERS)
def test_bad_hyper_parameters(row, name):
    for value, kind in [*BAD_HYPERS.get(name, BELOW_ONE), ("a", TypeError), (True, TypeError)]:
        with pytest.raises(kind, match=f"{name} must be"):
            row.make(0.1, **{name: value})


@wrapped_too
def test_grads_that_do_not_fit(row, rng):
    params = draw(rng, "float32")
    optimizer = row.make(0.1)
    opt_state = optimizer.init(params)
    for grads in (params.unfreeze(), params.without("affine2"), params.set("c", jnp.ones(2)), None):
        with pytest.raises(ValueError, match="grads must have the tree structure of params"):
            optimizer.update(grads, opt_state, params)
    with pytest.raises(ValueError, match=r"grads at affine1/w has shape \[2, 3\].*has \[3, 2\]"):
        optimizer.update(params.set(("affine1", "w"), jnp.ones((2, 3))), opt_state, params)
    with pytest.raises(ValueError, match=r"grads has shape \[3\], the parameter has \[2\]"):
        optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(2)), jnp.ones(2))


@wrapped_too
def test_states_that_do_not_fit(row, rng):
    params = draw(rng, "float32")
    optimizer = row.make(0.1)
    opt_state = optimizer.init(params)
    for wrong in (opt_state.without("step"), opt_state.set("other", 1), {}):
        with pytest.raises(ValueError, match=r"opt_state must have .*step"):
            optimizer.update(params, wrong, params)
    for moment in row.moments:
        with pytest.raises(ValueError, match=f"opt_state must have .*{moment}"):
            optimizer.update(params, opt_state.without(moment), params)
        name = re.escape(f"opt_state['{moment}']")
        with pytest.raises(ValueError, match=f"{name} must have the tree structure"):
            optimizer.update(params, {**opt_state, moment: params.unfreeze()}, params)
        with pytest.raises(ValueError, match=f"{name} at affine1/b has shape"):
            optimizer.update(params, opt_state.set((moment, "affine1", "b"), jnp.ones(3)), params)


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
@every
def test_parameters_must_be_floating(row, dtype):
    params = {"w": jnp.ones(2), "n": jnp.ones(2, dtype)}
    optimizer = row.make(0.1)
    with pytest.raises(TypeError, match=f"parameters must be floating point, got {dtype}"):
        optimizer.init(params)
    zeros = dict.fromkeys(row.moments, params)
    with pytest.raises(TypeError, match=f"parameters must be floating point, got {dtype}"):
        optimizer.update(params, {**zeros, "step": 0}, params)


def test_errors_of_structure_say_what_differs():
    params = fn.freeze({"a": np.ones(2), "b": np.ones(2)})
    optimizer = fn.sgd(0.1)
    opt_state = optimizer.init(params)
    for grads, message in (
        ({"a": params["a"]}, "grads .* lacks b$"),
        ({**params, "c": params["a"]}, "grads .* has c besides$"),
        (params.unfreeze(), "other kinds of dict; freeze or unfreeze"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.update(grads, opt_state, params)


# Decoupled weight decay


@decaying
def test_decay_is_the_rate_times_the_weight_beside_the_update(row, rng, x64):
    """The moments do not see it, whatever the schedule."""
    params = draw(rng)
    schedule = fn.step_decay(0.1, 0.5, 2)
    decayed, plain = (row.make(schedule, weight_decay=decay) for decay in (0.3, 0.0))
    opt_state = decayed.init(params)
    for rate in (0.1, 0.1, 0.05, 0.05, 0.025):
        grads = draw(rng)
        without, expected_state = plain.update(grads, opt_state, params)
        updates, opt_state = decayed.update(grads, opt_state, params)
        assert opt_state == expected_state
        expected = jax.tree.map(lambda u, w, rate=rate: u - rate * 0.3 * w, without, params)
        assert fn.relative_error(updates, expected) <= 1e-12


@decaying
def test_a_decay_may_be_a_schedule(row, x64):
    """Six steps in one compiled loop, against decays set by hand."""
    params = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array([0.5])}
    rng = np.random.default_rng(3)
    grads = jax.tree.map(lambda p: rng.normal(size=(6, *p.shape)), params)
    decay = fn.flat_cosine(0.3, 6)
    scheduled = row.make(fn.step_decay(0.1, 0.5, 2), weight_decay=decay, decay_names=("w",))
    assert scheduled == row.make(
        fn.step_decay(0.1, 0.5, 2), weight_decay=fn.flat_cosine(0.3, 6), decay_names=("w",)
    )

    def step(opt_state, dw):
        updates, opt_state = scheduled.update(dw, opt_state, params)
        return opt_state, updates

    _, updates = jax.lax.scan(step, scheduled.init(params), grads)
    plain = row.make(fn.step_decay(0.1, 0.5, 2), weight_decay=0.0)
    opt_state = plain.init(params)
    shares = [0.3, 0.3, 0.3, 0.3, 0.225, 0.075]
    for i, rate in enumerate([0.1, 0.1, 0.05, 0.05, 0.025, 0.025]):
        expected, opt_state = plain.update(
            jax.tree.map(lambda g, i=i: g[i], grads), opt_state, params
        )
        shrunk = expected["w"] - rate * shares[i] * params["w"]
        np.testing.assert_allclose(updates["w"][i], shrunk, rtol=1e-12)
        np.testing.assert_allclose(updates["b"][i], expected["b"], rtol=1e-12)


def test_decay_is_not_l2(rng, x64):
    """It does not pass through Adam's division by the size of the gradient."""
    params, grads = draw(rng), draw(rng)
    decayed, plain = fn.adamw(0.1, weight_decay=0.3), fn.adam(0.1)
    penalised = jax.tree.map(lambda g, w: g + 0.3 * w, grads, params)
    l2, _ = plain.update(penalised, plain.init(params), params)
    updates, _ = decayed.update(grads, decayed.init(params), params)
    assert fn.relative_error(updates, l2) > 1e-2
    large = jax.tree.map(lambda g: 1e6 * g, grads)
    again, _ = decayed.update(large, decayed.init(params), params)
    assert fn.relative_error(again, updates) <= 1e-6


NAMES = {
    "weights": (("w",), {"affine1/w", "affine2/w"}),
    "a list": (["b", "w"], {"affine1/b", "affine1/w", "affine2/b", "affine2/w"}),
    "biases": ({"b"}, {"affine1/b", "affine2/b"}),
    "names of layers": (("affine1", "affine1/w"), set()),
    "none": ((), set()),
    "all": (None, {"affine1/b", "affine1/w", "affine2/b", "affine2/w"}),
}


def decays(row, params, names):
    """The paths of the leaves that move under gradients of zero."""
    optimizer = row.make(0.1, weight_decay=0.5, decay_names=names)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for update, w in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        if np.any(update):
            np.testing.assert_allclose(update, -0.05 * w, rtol=1e-6)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    return {name(path) for path, leaf in leaves if np.any(leaf)}


@pytest.mark.parametrize("case", NAMES)
@decaying
def test_leaves_decay_by_their_names(row, case, rng):
    names, expected = NAMES[case]
    params = draw(rng, "float32")
    for tree in (params, params.unfreeze(), {**params, "affine2": dict(params["affine2"])}):
        assert decays(row, tree, names) == expected


@decaying
def test_leaves_without_a_name(row, rng):
    w = jnp.asarray(rng.normal(size=(3, 2)), "float32")
    assert decays(row, w, ("w",)) == set()
    assert decays(row, w, None) == {""}
    assert decays(row, (w, w), ("w",)) == set()
    assert decays(row, {"w": (w, w)}, ("w", "1")) == {"w/1"}


@decaying
def test_decay_names_must_be_a_sequence(row):
    with pytest.raises(TypeError, match=r"decay_names must be a sequence of names.*\('w',\)"):
        row.make(0.1, decay_names="w")


# Muon


@pytest.mark.parametrize("scale", [1e-4, 1, 1e6])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1), (1, 1)], ids=str)
def test_muon_is_nearly_orthogonal(shape, scale, rng):
    g = np.asarray(scale * rng.normal(size=shape), "float32")
    optimizer = fn.muon(0.1)
    updates, _ = optimizer.update(g, optimizer.init(g), g)
    direction = -np.asarray(updates, float) / (0.1 * size(g))
    values = np.linalg.svd(direction, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.25
    u, _, vh = np.linalg.svd(g.astype(float), full_matrices=False)
    # U^T direction V is diagonal: the singular vectors are those of the gradient.
    diagonal = u.T @ direction @ vh.T
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-4)
    assert np.diag(diagonal).min() > 0.6


def test_muon_of_a_transposed_matrix_is_transposed(rng, x64):
    w, recorded = rng.normal(size=(6, 4)), rng.normal(size=(5, 6, 4))
    optimizer = fn.muon(0.1, weight_decay=0.1)
    _, _, updates = walk(optimizer, jnp.asarray(w), jnp.asarray(recorded))
    _, _, transposed = walk(optimizer, jnp.asarray(w.T), jnp.asarray(recorded.transpose(0, 2, 1)))
    np.testing.assert_allclose(transposed, updates.transpose(0, 2, 1), rtol=1e-9)


ADAM_NAMES = {
    "vectors": ((), {"affine1/b", "affine2/b"}),
    "a layer": (("affine2",), {"affine1/b", "affine2/b", "affine2/w"}),
    "a leaf": (["w"], {"affine1/b", "affine1/w", "affine2/b", "affine2/w"}),
    "a part of a name": (("affine", "2", "affine2/w"), {"affine1/b", "affine2/b"}),
}


@pytest.mark.parametrize("case", ADAM_NAMES)
def test_muon_leaves_all_but_matrices_to_adam(case, rng):
    names, expected = ADAM_NAMES[case]
    params = draw(rng, "float32")
    hypers = OPTIMIZERS["adamw"].hypers
    optimizers = fn.muon(0.1, adam_names=names, **hypers), fn.adamw(0.1, **hypers)
    states = [optimizer.init(params) for optimizer in optimizers]
    for _ in range(3):
        grads = draw(rng, "float32")
        steps = [o.update(grads, s, params) for o, s in zip(optimizers, states, strict=True)]
        states = [opt_state for _, opt_state in steps]
    mine, theirs = ({"update": updates, **opt_state} for updates, opt_state in steps)
    for layer in params:
        for leaf in params[layer]:
            same = [
                bool(np.array_equal(mine[tree][layer][leaf], theirs[tree][layer][leaf]))
                for tree in ("update", "m", "v")
            ]
            adams = f"{layer}/{leaf}" in expected
            assert same == [adams] * 3, (layer, leaf)
            assert np.any(mine["v"][layer][leaf]) == adams


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)], ids=str)
def test_muon_of_other_shapes_is_adam(shape, rng):
    dw, w = rng.normal(size=(2, *shape)).astype("f")
    muon, adam = fn.muon(0.1), fn.adam(0.1)
    np.testing.assert_array_equal(
        muon.update(dw, muon.init(w), w)[0], adam.update(dw, adam.init(w), w)[0]
    )


def test_adam_names_must_be_a_sequence():
    with pytest.raises(TypeError, match=r"adam_names must be a sequence.*\('affine3',\)"):
        fn.muon(0.1, adam_names="affine3")


# Clipping

PROBE = fn.sgd(1.0)


def seen(grads, max_norm):
    """The gradients that the optimizer within is given."""
    inner = fn.Optimizer(lambda params: (), lambda grads, opt_state, params: (grads, opt_state))
    return fn.clip_by_global_norm(inner, max_norm).update(grads, (), grads)[0]


def norm_of(tree):
    return np.sqrt(sum(np.sum(np.asarray(leaf, float) ** 2) for leaf in jax.tree.leaves(tree)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_small_gradients_are_not_clipped(dtype, rng, x64):
    """Not by a bit, nor is anything else changed."""
    params, grads = draw(rng, dtype), draw(rng, dtype)
    assert seen(grads, 1.01 * norm_of(grads)) == grads
    clipped, plain = fn.clip_by_global_norm(fn.adam(0.1), 1e3), fn.adam(0.1)
    assert clipped.init(params) == plain.init(params)
    expected = plain.update(grads, plain.init(params), params)
    assert clipped.update(grads, clipped.init(params), params) == expected
    assert seen({"w": jnp.array([3.0, 4.0])}, 5)["w"].tolist() == [3, 4]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_large_gradients_are_scaled_to_the_norm(dtype, rng, x64):
    grads = draw(rng, dtype)
    rtol = 10 * float(jnp.finfo(dtype).eps)
    for max_norm in (0.99 * norm_of(grads), 0.5, np.float64(1e-3)):
        clipped = seen(grads, max_norm)
        np.testing.assert_allclose(norm_of(clipped), max_norm, rtol=rtol)
        expected = jax.tree.map(lambda g, m=max_norm: g * (m / norm_of(grads)), grads)
        assert fn.relative_error(clipped, expected) <= rtol
        assert {leaf.dtype for leaf in jax.tree.leaves(clipped)} == {jnp.dtype(dtype)}


def test_clipping_keeps_the_dtype_of_each_leaf():
    grads = {"a": jnp.full(4, 3.0, jnp.bfloat16), "b": jnp.full(4, 4.0, jnp.float32)}
    clipped = seen(grads, 5)
    assert (clipped["a"].dtype, clipped["b"].dtype) == (jnp.bfloat16, np.float32)
    assert np.asarray(clipped["a"], float).tolist() == [1.5] * 4
    np.testing.assert_allclose(clipped["b"], 2, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_that_overflow_or_vanish(scale, rng):
    grads = jax.tree.map(lambda g: np.float32(scale) * g, draw(rng, "float32"))
    np.testing.assert_allclose(fn.global_norm(grads), norm_of(grads), rtol=1e-6)
    np.testing.assert_allclose(norm_of(seen(grads, 0.5 * scale)), 0.5 * scale, rtol=1e-6)
    assert seen(grads, 1e38) == grads


def test_broken_gradients_stay_visible():
    fine, broken = jnp.ones(2), jnp.array([1, np.nan, 2])
    nan = seen({"a": fine, "b": broken}, 1)
    assert np.isnan(nan["a"]).all()
    assert np.isnan(nan["b"]).all()
    for inf in (np.inf, -np.inf):
        assert np.isnan(seen({"a": fine, "b": broken.at[1].set(inf)}, 1)["b"][1])
    assert np.isnan(fn.global_norm({"a": fine, "b": broken}))
    assert fn.global_norm({"a": fine, "b": jnp.array([np.inf, 1])}) == np.inf


def test_max_norm_may_be_traced(rng):
    grads = draw(rng, "float32")
    norms = jnp.array([0.1, 3.0, 1e3])
    swept = jax.jit(jax.vmap(lambda max_norm: seen(grads, max_norm)))(norms)
    for i, max_norm in enumerate(norms):
        got = jax.tree.map(lambda g, i=i: g[i], swept)
        assert fn.relative_error(got, seen(grads, float(max_norm))) <= 1e-6


def test_the_global_norm_of_nothing_and_of_other_types(x64):
    for nothing in ({}, (), None, fn.FrozenDict(), {"w": np.zeros((0, 3), "f")}, [jnp.zeros(2)]):
        norm = fn.global_norm(nothing)
        assert norm == 0
        assert norm.shape == ()
    assert fn.global_norm({}).dtype == np.float32
    assert fn.global_norm(np.array([3.0, -4.0])) == 5
    assert fn.global_norm((3, {"n": np.array([4])})) == 5
    assert fn.global_norm(jnp.full(4, 2, jnp.bfloat16)).dtype == np.float32
    mixed = fn.global_norm((jnp.full(2, 1e-5, jnp.float32), jnp.ones(1, jnp.float64)))
    assert mixed.dtype == np.float64
    assert abs(mixed - 1 - 1e-10) < 1e-14


def test_bad_norms():
    for value, kind in BAD_RATES:
        with pytest.raises(kind, match="max_norm must be"):
            fn.clip_by_global_norm(PROBE, value)


# Averages


@pytest.mark.parametrize("decay", [0, 0.5, 0.999])
def test_the_average_is_the_weighted_mean_of_the_parameters_visited(decay, rng, x64):
    params = draw(rng)
    recorded = jax.tree.map(lambda *g: jnp.stack(g), *(draw(rng) for _ in range(7)))
    last, opt_state, updates = walk(fn.with_average(fn.nesterov(0.1), decay), params, recorded)
    inner = fn.nesterov(0.1)
    expected_last, expected_state, expected_updates = walk(inner, params, recorded)
    assert last == expected_last
    assert updates == expected_updates
    assert opt_state["optimizer"] == expected_state
    assert opt_state["step"] == 7
    weights = float(decay) ** np.arange(6, -1, -1)

    def mean(w, updates):
        visited = np.asarray(w) + np.cumsum(updates, axis=0)
        return np.average(visited, axis=0, weights=weights)

    expected = jax.tree.map(mean, params, updates)
    assert fn.relative_error(fn.averaged_params(opt_state, last), expected) <= 1e-12
    if decay == 0:
        assert fn.relative_error(fn.averaged_params(opt_state, last), last) <= 1e-15


@pytest.mark.parametrize("traced", [False, True], ids=["number", "traced"])
@pytest.mark.parametrize("decay", [0.5, 0.999, 0.99999])
def test_the_average_of_parameters_that_rest_is_exact_in_float32(decay, traced):
    """1 - 0.99999 taken in float32 would be off by 1e-3, and the start would linger."""
    params = jnp.array([1.0, 1.3, 1.9, -0.7])

    @jax.jit
    def average(steps, traced_decay):
        optimizer = fn.with_average(PROBE, traced_decay if traced else decay)
        step = lambda _, s: optimizer.update(0 * params, s, params)[1]  # noqa: E731
        opt_state = jax.lax.fori_loop(0, steps, step, optimizer.init(params))
        return fn.averaged_params(opt_state, params)

    for steps in (1, 2, 10, 20_000):
        np.testing.assert_allclose(average(steps, decay), params, rtol=3e-7)


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_the_average_in_float32(decay, rng):
    recorded = rng.normal(size=(300, 4)).astype("f")
    start = jnp.ones(4)
    _, opt_state, updates = walk(fn.with_average(PROBE, decay), start, recorded)
    visited = 1 + np.cumsum(np.asarray(updates, float), axis=0)
    expected = np.average(visited, axis=0, weights=decay ** np.arange(299.0, -1, -1))
    np.testing.assert_allclose(fn.averaged_params(opt_state, start), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_the_average_is_kept_in_float32_at_least(dtype, rng, x64):
    """So steps that are lost in the last place of the parameters are not lost in the mean."""
    wide = jnp.promote_types(dtype, jnp.float32)
    optimizer = fn.with_average(PROBE, 0.999)
    w = jnp.ones(3, dtype)
    opt_state = optimizer.init(w)
    assert opt_state["average"].dtype == wide
    visited = []
    for sign in (1, -1, 1, 1):
        grads = jnp.full(3, sign * 2 * float(jnp.finfo(dtype).eps), dtype)
        updates, opt_state = optimizer.update(grads, opt_state, w)
        w = fn.apply_updates(w, updates)
        visited.append(np.asarray(w, float))
    assert opt_state["average"].dtype == wide
    expected = np.average(visited, axis=0, weights=[0.999**3, 0.999**2, 0.999, 1])
    rtol = 2 * float(jnp.finfo(wide).eps)
    np.testing.assert_allclose(np.asarray(opt_state["average"]), expected, rtol=rtol)
    read = fn.averaged_params(opt_state, w)
    assert read.dtype == dtype
    assert read.tolist() == opt_state["average"].astype(dtype).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_averages_have_the_structure_of_params(kind, rng):
    params = KINDS[kind](draw(rng, "float32"))
    structure = jax.tree.structure(params)
    optimizer = fn.with_average(fn.adam(0.1), 0.9)
    opt_state = optimizer.init(params)
    assert isinstance(opt_state, fn.FrozenDict)
    assert set(opt_state) == {"optimizer", "average", "step"}
    before = fn.averaged_params(opt_state, params)  # nothing visited yet: the parameters
    assert jax.tree.structure(before) == structure
    assert fn.freeze({"params": before}) == fn.freeze({"params": params})
    _, after = optimizer.update(params, opt_state, params)
    assert jax.tree.structure(after) == jax.tree.structure(opt_state)
    assert jax.tree.structure(after["average"]) == structure
    assert jax.tree.structure(fn.averaged_params(after, params)) == structure
    assert after["step"].dtype == np.int32


class Theirs(NamedTuple):
    """A state that is no dict."""

    count: object
    nothing: object


THIRD_PARTY = {
    "a named tuple": fn.Optimizer(
        lambda params: Theirs(jnp.zeros((), jnp.int32), None),
        lambda grads, s, params: (
            jax.tree.map(lambda g: -0.1 * g, grads),
            s._replace(count=s.count + 1),
        ),
    ),
    "nothing": fn.Optimizer(
        lambda params: (), lambda grads, s, params: (jax.tree.map(lambda g: -0.1 * g, grads), s)
    ),
    "a bare pair": tuple(fn.sgd(0.1)),
}


@pytest.mark.parametrize("kind", THIRD_PARTY)
def test_optimizers_of_others_can_be_wrapped(kind, rng):
    theirs, ours = THIRD_PARTY[kind], fn.sgd(0.1)
    params, grads = draw(rng, "float32"), draw(rng, "float32")
    for wrap in (
        lambda o: fn.with_average(fn.clip_by_global_norm(o, 1), 0.9),
        lambda o: fn.clip_by_global_norm(fn.with_average(o, 0.9), 1),
    ):
        results = []
        for optimizer in (wrap(theirs), wrap(ours)):
            step, opt_state = jax.jit(optimizer.update), optimizer.init(params)
            for _ in range(2):
                updates, opt_state = step(grads, opt_state, params)
            results.append((updates, fn.averaged_params(opt_state, params)))
        assert results[0] == results[1]
        np.testing.assert_allclose(norm_of(results[0][0]), 0.1, rtol=1e-5)


def test_the_decay_of_an_average_may_be_traced(rng, x64):
    start, recorded = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=(5, 3)))

    def average(decay):
        params, opt_state, _ = walk(fn.with_average(PROBE, decay), start, recorded)
        return fn.averaged_params(opt_state, params)

    decays = jnp.array([0.0, 0.5, 0.99])
    swept = jax.jit(jax.vmap(average))(decays)
    for got, decay in zip(swept, decays, strict=True):
        np.testing.assert_allclose(got, average(float(decay)), rtol=1e-12)


def test_errors_of_averages(rng):
    for value, kind in [*BELOW_ONE, ("a", TypeError), (None, TypeError)]:
        with pytest.raises(kind, match="decay must be"):
            fn.with_average(PROBE, value)
    params = draw(rng, "float32")
    opt_state = fn.with_average(PROBE, 0.9).init(params)
    for wrong in (PROBE.init(params), {}, None, (), (params,)):
        with pytest.raises(ValueError, match=r"must be that of with_average\(optimizer, decay\)"):
            fn.averaged_params(wrong, params)
    with pytest.raises(ValueError, match=r"average.* must have the tree structure of params"):
        fn.averaged_params(opt_state, params.unfreeze())
    with pytest.raises(ValueError, match=r"average.* at affine1/b has shape"):
        fn.averaged_params(opt_state, params.set(("affine1", "b"), jnp.ones(5)))
    with pytest.raises(ValueError, match=r"average.* must have the tree structure of params"):
        fn.with_average(PROBE, 0.9).update(
            params, opt_state.set("average", params["affine1"]), params
        )
    with pytest.raises(TypeError, match="with_average: parameters must be floating point, got int"):
        fn.with_average(THIRD_PARTY["nothing"], 0.9).init({"n": jnp.ones(2, int)})


@pytest.mark.parametrize(
    "wrap", [lambda o: fn.with_average(o, 0.9), lambda o: fn.clip_by_global_norm(o, 1)]
)
def test_what_is_wrapped_must_be_an_optimizer(wrap):
    for wrong in (0.1, None, fn.sgd, (1, 2), "adam"):
        with pytest.raises(TypeError, match=r"optimizer must be a pair \(init, update\), got"):
            wrap(wrong)
