"""Optimizers: one table, every test runs over it. A new optimizer is one more row."""

import re
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

# References, written from the papers and CS231n's notes, in NumPy. Each is
# `reference(dw, state, t, rate, **hypers) -> update`: state is a dict of arrays that it
# changes in place, t counts the updates from 1.


def sgd(dw, state, t, rate):
    return -rate * dw


def sgd_momentum(dw, state, t, rate, momentum=0.9):
    state["velocity"] = momentum * state["velocity"] - rate * dw
    return state["velocity"]


def rmsprop(dw, state, t, rate, decay_rate=0.99, epsilon=1e-8):
    state["cache"] = decay_rate * state["cache"] + (1 - decay_rate) * dw**2
    return -rate * dw / (np.sqrt(state["cache"]) + epsilon)


def adam(dw, state, t, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    state["m"] = beta1 * state["m"] + (1 - beta1) * dw
    state["v"] = beta2 * state["v"] + (1 - beta2) * dw**2
    m_hat = state["m"] / (1 - beta1**t)
    v_hat = state["v"] / (1 - beta2**t)
    return -rate * m_hat / (np.sqrt(v_hat) + epsilon)


class Row(NamedTuple):
    """An optimizer, its reference, the names of its moments, and hyper-parameters to try."""

    make: object
    reference: object
    moments: tuple
    hypers: dict
    first: object  # the first update in closed form, for the default hyper-parameters


OPTIMIZERS = {
    "sgd": Row(fn.sgd, sgd, (), {}, lambda g, rate: -rate * g),
    "sgd_momentum": Row(
        fn.sgd_momentum,
        sgd_momentum,
        ("velocity",),
        {"momentum": 0.7},
        lambda g, rate: -rate * g,
    ),
    "rmsprop": Row(
        fn.rmsprop,
        rmsprop,
        ("cache",),
        {"decay_rate": 0.8, "epsilon": 1e-2},
        lambda g, rate: -rate * g / (0.1 * np.abs(g) + 1e-8),
    ),
    "adam": Row(
        fn.adam,
        adam,
        ("m", "v"),
        {"beta1": 0.7, "beta2": 0.95, "epsilon": 1e-2},
        lambda g, rate: -rate * g / (np.abs(g) + 1e-8),
    ),
}

every = pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
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
    expected = jax.tree.map(lambda g: row.first(np.asarray(g), rate), grads)
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

    def step(carry, dw):
        params, opt_state = carry
        updates, opt_state = optimizer.update(dw, opt_state, params)
        return (fn.apply_updates(params, updates), opt_state), updates

    start = (jnp.asarray(w), optimizer.init(jnp.asarray(w)))
    (params, opt_state), updates = jax.lax.scan(step, start, jnp.asarray(recorded))

    state = {name: np.zeros((3, 2)) for name in row.moments}
    for t, dw in enumerate(recorded, start=1):
        expected = row.reference(dw, state, t, 3e-2, **hypers)
        w = w + expected
        np.testing.assert_allclose(updates[t - 1], expected, rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(params, w, rtol=1e-10)
    for name in row.moments:
        np.testing.assert_allclose(opt_state[name], state[name], rtol=1e-10)
    assert opt_state["step"] == 1000


@every
def test_updates_point_downhill(row, rng, x64):
    """Fifty steps on a bowl: whatever the rule, the loss falls."""
    optimizer = row.make(0.05)
    w = start = jnp.asarray(rng.normal(size=(3, 2)))
    opt_state = optimizer.init(w)
    update = jax.jit(optimizer.update)
    for _ in range(50):
        updates, opt_state = update(w, opt_state, w)
        w = fn.apply_updates(w, updates)
    assert jnp.vdot(w, w) < 0.1 * jnp.vdot(start, start)


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
        expected = adam(np.zeros(3), state, step + 1, 1e-3)
        # A traced beta is a float32 itself: 0.999 rounded moves 1 - beta by 6e-5 of its size.
        rtol = 5e-5 if traced else 1e-6
        np.testing.assert_allclose(update(step, 0.9, 0.999), expected, rtol=rtol)


@every
def test_zero_gradients_do_nothing(row, rng):
    params = draw(rng, "float32")
    optimizer = row.make(0.1)
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
@every
def test_dtypes_are_kept(row, dtype, rng, x64):
    params = draw(rng, dtype)
    # Hyper-parameters of a wider type must not widen anything.
    optimizer = row.make(np.float64(0.1), **{k: np.float64(v) for k, v in row.hypers.items()})
    updates, opt_state = optimizer.update(params, optimizer.init(params), params)
    moved = fn.apply_updates(params, updates)
    trees = [updates, moved, *(opt_state[moment] for moment in row.moments)]
    assert {leaf.dtype for tree in trees for leaf in jax.tree.leaves(tree)} == {jnp.dtype(dtype)}
    assert opt_state["step"].dtype == np.int32


@every
def test_each_leaf_keeps_its_own_dtype(row, x64):
    params = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(3, jnp.float64)}
    optimizer = row.make(0.1)
    updates, opt_state = optimizer.update(params, optimizer.init(params), params)
    for tree in (updates, *(opt_state[moment] for moment in row.moments)):
        assert (tree["a"].dtype, tree["b"].dtype) == (np.float32, np.float64)


@every
def test_bfloat16_is_rounded_once(row, rng):
    grads = jnp.asarray(rng.normal(size=200), jnp.bfloat16)
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
@every
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


@every
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


@every
def test_a_traced_rate(row, rng, x64):
    params = draw(rng)

    def first(rate):
        optimizer = row.make(rate)
        return optimizer.update(params, optimizer.init(params), params)[0]

    rates = jnp.array([1e-3, 0.5, 2.0])
    swept = jax.jit(jax.vmap(first))(rates)
    for i, rate in enumerate(rates):
        expected = first(float(rate))
        assert fn.relative_error(jax.tree.map(lambda u, i=i: u[i], swept), expected) <= 1e-14
    assert fn.relative_error(jax.jit(first)(0.5), first(0.5)) <= 1e-14


@pytest.mark.parametrize(("row", "name"), HYPERS)
def test_other_numbers_may_be_traced(row, name, rng, x64):
    grads = [jnp.asarray(rng.normal(size=5)) for _ in range(3)]

    def third(value):
        optimizer = row.make(0.1, **{name: value})
        opt_state = optimizer.init(grads[0])
        for dw in grads:
            updates, opt_state = optimizer.update(dw, opt_state, dw)
        return updates

    values = jnp.array([row.hypers[name], 0.5, 0.25])
    swept = jax.jit(jax.vmap(third))(values)
    for got, value in zip(swept, values, strict=True):
        assert fn.relative_error(got, third(float(value))) <= 1e-12
    assert fn.relative_error(swept[0], swept[1]) > 1e-6  # it matters


@pytest.mark.parametrize("name", ["momentum", "decay_rate", "beta1", "beta2"])
def test_a_coefficient_of_zero(name, rng, x64):
    row = next(row for row in OPTIMIZERS.values() if name in row.hypers)
    dw = jnp.asarray(rng.normal(size=5))
    optimizer = row.make(0.1, **{name: 0})
    opt_state = optimizer.init(dw)
    state = {moment: np.zeros(5) for moment in row.moments}
    for t in (1, 2):
        updates, opt_state = optimizer.update(t * dw, opt_state, dw)
        expected = row.reference(t * np.asarray(dw), state, t, 0.1, **{name: 0})
        np.testing.assert_allclose(updates, expected, rtol=1e-12)


@every
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
    assert counts == [(0, np.int32), (1, np.int32)]


@pytest.mark.parametrize("scheduled", [False, True], ids=["number", "schedule"])
@every
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
@every
def test_bad_rates(row, rate, kind):
    with pytest.raises(kind, match="learning_rate must be") as caught:
        row.make(rate)
    assert "\n" not in str(caught.value)


BAD_COEFFICIENTS = [(-0.1, ValueError), (1, ValueError), (1.5, ValueError), (np.nan, ValueError)]
BAD_EPSILONS = [(0, ValueError), (-1e-8, ValueError), (np.inf, ValueError), ("a", TypeError)]


@pytest.mark.parametrize(("row", "name"), HYPERS)
def test_bad_hyper_parameters(row, name):
    for value, kind in BAD_EPSILONS if name == "epsilon" else [*BAD_COEFFICIENTS, ("a", TypeError)]:
        with pytest.raises(kind, match=f"{name} must be"):
            row.make(0.1, **{name: value})


@every
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


@every
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
