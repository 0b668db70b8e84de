"""Learning rates as functions of the count of updates done."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import optim, schedules

NaN = float("nan")


@pytest.mark.parametrize(
    ("step", "epoch"), [(0, 0), (1, 0), (9, 0), (10, 1), (11, 1), (19, 1), (20, 2), (999, 99)]
)
def test_exponential_decay_at_the_boundaries_of_epochs(step, epoch, x64):
    schedule = fn.exponential_decay(0.3, 0.95, 10)
    for count in (step, np.int64(step), jnp.int32(step)):
        np.testing.assert_allclose(schedule(count), 0.3 * 0.95**epoch, rtol=1e-13)


def test_it_is_the_solvers_lr_decay(x64):
    """CS231n's Solver multiplies the rate at the end of every epoch."""
    schedule = jax.jit(fn.exponential_decay(2.0, 0.7, 3))
    rate = 2.0
    for step in range(20):
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-13)
        if (step + 1) % 3 == 0:
            rate *= 0.7


def test_one_step_an_epoch_and_growth(x64):
    schedule = fn.exponential_decay(1e-3, 1.1, 1)
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.arange(9)), 1e-3 * 1.1 ** np.arange(9.0))
    constant = fn.exponential_decay(1e-3, 1, 5)
    np.testing.assert_allclose(constant(jnp.int32(2**30)), 1e-3)


def test_float32_keeps_its_digits():
    schedule = fn.exponential_decay(1e-3, 0.95, 100)
    steps = jnp.arange(0, 5000, 37, dtype=jnp.int32)
    rates = jax.jit(jax.vmap(schedule))(steps)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, 1e-3 * 0.95 ** (np.asarray(steps) // 100.0), rtol=1e-5)


def test_rate_and_decay_may_be_traced(x64):
    def f(rate, decay, step):
        return fn.exponential_decay(rate, decay, 4)(step)

    rates, decays = jnp.array([1.0, 0.5]), jnp.array([0.9, 0.5])
    got = jax.jit(jax.vmap(f, in_axes=(0, 0, None)))(rates, decays, 9)
    np.testing.assert_allclose(got, [0.81, 0.125], rtol=1e-14)


@pytest.mark.parametrize("make", optim.OPTIMIZERS.values(), ids=list(optim.OPTIMIZERS))
def test_an_optimizer_takes_it(make, x64):
    """Six steps, two an epoch, in one compiled loop, against a rate set by hand."""
    scheduled = make(fn.exponential_decay(0.1, 0.5, 2))
    params = jnp.array([1.0, -2.0, 3.0])
    grads = jnp.asarray(np.random.default_rng(3).normal(size=(6, 3)))

    def step(opt_state, dw):
        updates, opt_state = scheduled.update(dw, opt_state, params)
        return opt_state, updates

    _, updates = jax.lax.scan(step, scheduled.init(params), grads)
    opt_state = scheduled.init(params)
    for dw, got, rate in zip(grads, updates, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025], strict=True):
        expected, opt_state = make(rate).update(dw, opt_state, params)
        np.testing.assert_allclose(got, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((0, 0.9, 10), ValueError, "rate must be > 0, got 0"),
        ((-0.1, 0.9, 10), ValueError, "rate must be > 0"),
        ((NaN, 0.9, 10), ValueError, "rate must be finite and > 0"),
        (("0.1", 0.9, 10), TypeError, "rate must be a number"),
        ((0.1, 0, 10), ValueError, "decay must be > 0, got 0"),
        ((0.1, -0.9, 10), ValueError, "decay must be > 0"),
        ((0.1, float("inf"), 10), ValueError, "decay must be finite and > 0"),
        ((0.1, 0.9, 0), ValueError, "steps_per_epoch must be at least 1, got 0"),
        ((0.1, 0.9, 2.5), TypeError, "steps_per_epoch must be an integer"),
        ((0.1, 0.9, True), TypeError, "steps_per_epoch must be an integer"),
    ],
    ids=str,
)
def test_errors(arguments, kind, text):
    with pytest.raises(kind, match=text):
        fn.exponential_decay(*arguments)


# The other schedules, by their formulas

TABLE = {
    "constant": (fn.constant(0.3), {0: 0.3, 1: 0.3, 10**6: 0.3}),
    "step_decay": (
        fn.step_decay(0.3, 0.1, 5),
        {0: 0.3, 4: 0.3, 5: 0.03, 9: 0.03, 10: 0.003, 50: 3e-11},
    ),
    "cosine_decay": (
        fn.cosine_decay(0.3, 12),
        {0: 0.3, 2: 0.15 * (1 + 3**0.5 / 2), 4: 0.225, 6: 0.15, 8: 0.075, 12: 0, 13: 0, 999: 0},
    ),
    "cosine_decay to a tenth": (
        fn.cosine_decay(0.3, 12, final_fraction=0.1),
        {0: 0.3, 4: 0.03 + 0.27 * 0.75, 6: 0.165, 12: 0.03, 13: 0.03, 999: 0.03},
    ),
    "cosine_decay in one step": (fn.cosine_decay(0.3, 1), {0: 0.3, 1: 0, 2: 0}),
    "cosine_decay nowhere": (fn.cosine_decay(0.3, 4, final_fraction=1), {0: 0.3, 3: 0.3, 9: 0.3}),
    "warmup": (fn.warmup(0.3, 4), {0: 0.075, 1: 0.15, 2: 0.225, 3: 0.3, 4: 0.3, 999: 0.3}),
    "warmup in one step": (fn.warmup(0.3, 1), {0: 0.3, 1: 0.3}),
    "warmup of a decay": (
        fn.warmup(fn.step_decay(0.4, 0.5, 3), 4),
        {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.2, 5: 0.2, 6: 0.1, 9: 0.05},
    ),
    "warmup of a function": (
        fn.warmup(lambda step: 0.1 * (step + 1), 2),
        {0: 0.05, 1: 0.2, 2: 0.3},
    ),
    "one_cycle": (
        fn.one_cycle(0.6, 15, warmup_fraction=0.2),
        {0: 0.15, 1: 0.3, 2: 0.45, 3: 0.6, 7: 0.45, 9: 0.3, 11: 0.15, 15: 0, 16: 0, 999: 0},
    ),
    "one_cycle between fractions": (
        fn.one_cycle(0.6, 15, warmup_fraction=0.2, first_fraction=0.5, final_fraction=0.1),
        {0: 0.375, 1: 0.45, 2: 0.525, 3: 0.6, 7: 0.06 + 0.54 * 0.75, 9: 0.33, 15: 0.06, 999: 0.06},
    ),
    "one_cycle with a rounded peak": (
        fn.one_cycle(0.6, 10, warmup_fraction=0.16),
        {0: 0.2, 1: 0.4, 2: 0.6, 6: 0.3, 10: 0, 11: 0},
    ),
    "one_cycle without a rise": (
        fn.one_cycle(0.6, 12, warmup_fraction=0),
        {0: 0.6, 4: 0.45, 6: 0.3, 8: 0.15, 12: 0, 13: 0},
    ),
    "one_cycle without a fall": (
        fn.one_cycle(0.6, 5, warmup_fraction=1, final_fraction=0.5),
        {0: 0.1, 1: 0.2, 4: 0.5, 5: 0.6, 6: 0.3, 7: 0.3},
    ),
    "flat_cosine": (
        fn.flat_cosine(0.3, 24),
        {0: 0.3, 11: 0.3, 12: 0.3, 16: 0.225, 18: 0.15, 20: 0.075, 24: 0, 25: 0, 999: 0},
    ),
    "flat_cosine from a quarter": (
        fn.flat_cosine(0.3, 16, flat=0.25),
        {0: 0.3, 4: 0.3, 8: 0.225, 10: 0.15, 12: 0.075, 16: 0, 17: 0},
    ),
    "flat_cosine without a fall": (fn.flat_cosine(0.3, 5, flat=1), {0: 0.3, 4: 0.3, 5: 0.3, 6: 0}),
    "flat_cosine without a flat": (fn.flat_cosine(0.3, 12, flat=0), {0: 0.3, 4: 0.225, 12: 0}),
    "coslog4": (
        fn.coslog4(0.3, 150),
        {
            **dict.fromkeys((0, 10, 30, 70, 150, 151, 999), 0),  # 1 + 15 t is a power of two
            5: 0.15 * (1 - np.cos(2 * np.pi * np.log2(1.5))),
            20: 0.15 * (1 - np.cos(2 * np.pi * np.log2(3))),
            100: 0.15 * (1 - np.cos(2 * np.pi * np.log2(11))),
        },
    ),
    "complement": (fn.complement(0.3), {0: 0.7, 9: 0.7}),
    "complement of a cosine": (fn.complement(fn.flat_cosine(0.3, 24)), {0: 0.7, 18: 0.85, 24: 1}),
    "one_cycle in one step": (fn.one_cycle(0.6, 1), {0: 0.6, 1: 0, 2: 0}),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_formulas(name, x64):
    schedule, rates = TABLE[name]
    for step, rate in rates.items():
        for count in (step, np.int64(step), jnp.int32(step)):
            np.testing.assert_allclose(schedule(count), rate, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("name", TABLE)
def test_the_formulas_in_float32(name, unoptimized):
    """The default: compiled, mapped over the steps, in float32."""
    schedule, rates = TABLE[name]
    if "function" not in name:
        assert schedule(0).dtype == np.float32
    got = jax.jit(jax.vmap(schedule))(jnp.array(list(rates), jnp.int32))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, list(rates.values()), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("total", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("fraction", [0, 0.2, 0.35, 0.5, 1])
def test_one_cycle_has_one_peak(fraction, total, dtype):
    with jax.enable_x64(dtype == "float64"):
        schedule = fn.one_cycle(0.3, total, warmup_fraction=fraction, final_fraction=0.01)
        rates = np.asarray(schedule(jnp.arange(total + 3)))
        assert rates.dtype == dtype
        peak = round(fraction * total)
        assert rates[peak] == np.asarray(0.3, dtype)
        assert rates.argmax() == peak
        assert (np.diff(rates[: peak + 1]) > 0).all()
        assert (np.diff(rates[peak : max(total, peak + 1) + 1]) < 0).all()
        # No jump: no step is longer than the steepest of the line and of the cosine.
        steepest = max(1 / (peak + 1), np.pi / 2 / max(1, total - peak))
        assert np.abs(np.diff(rates)).max() <= 0.3 * min(1, steepest) * 1.0001
        assert (rates[:total] > 0).all()
        np.testing.assert_allclose(rates[max(total, peak + 1) :], 0.003, rtol=1e-6)


def test_coslog4_has_four_waves_that_double():
    rates = np.asarray(fn.coslog4(1.0, 15_000)(jnp.arange(15_001)))
    peaks = np.flatnonzero((rates[1:-1] >= rates[:-2]) & (rates[1:-1] > rates[2:])) + 1
    np.testing.assert_allclose(1 + peaks / 1000, 2 ** np.array([0.5, 1.5, 2.5, 3.5]), rtol=2e-3)
    np.testing.assert_allclose(rates[peaks], 1, rtol=1e-5)
    assert rates[0] == 0


TRACED = {
    "constant": (fn.constant, {"rate": 0.2}, {}),
    "step_decay": (fn.step_decay, {"rate": 0.2, "decay": 0.5}, {"every": 2}),
    "cosine_decay": (fn.cosine_decay, {"rate": 0.2, "final_fraction": 0.1}, {"total_steps": 9}),
    "warmup": (fn.warmup, {"schedule": 0.2}, {"warmup_steps": 6}),
    "flat_cosine": (fn.flat_cosine, {"rate": 0.2, "flat": 0.4}, {"total_steps": 9}),
    "coslog4": (fn.coslog4, {"rate": 0.2}, {"total_steps": 11}),
    "complement": (fn.complement, {"schedule": 0.2}, {}),
    "one_cycle": (
        fn.one_cycle,
        {"rate": 0.2, "warmup_fraction": 0.5, "first_fraction": 0.1, "final_fraction": 0.3},
        {"total_steps": 8},
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_numbers_may_be_traced(name, x64, unoptimized):
    make, numbers, fixed = TRACED[name]
    steps = jnp.arange(10)
    rates = jax.jit(lambda numbers: jax.vmap(make(**numbers, **fixed))(steps))
    first = rates(numbers)
    np.testing.assert_allclose(first, jax.vmap(make(**numbers, **fixed))(steps), rtol=1e-12)
    for number, value in numbers.items():
        other = numbers | {number: 0.7 * value}
        expected = jax.vmap(make(**other, **fixed))(steps)
        np.testing.assert_allclose(rates(other), expected, rtol=1e-12)
        assert not np.allclose(first, expected)  # it matters


def test_a_sweep_of_schedules_in_a_compiled_loop(x64):
    """Rates and shares swept by vmap, each the walk of its own: what a sweep does."""
    grads = jnp.asarray(np.random.default_rng(3).normal(size=(6, 3)))

    def walk(rate, fraction):
        schedule = fn.one_cycle(rate, 6, warmup_fraction=fraction)
        optimizer = fn.sgd(fn.warmup(schedule, 3))

        def step(carry, dw):
            updates, opt_state = optimizer.update(dw, carry[1], carry[0])
            return (fn.apply_updates(carry[0], updates), opt_state), None

        start = jnp.zeros(3)
        return jax.lax.scan(step, (start, optimizer.init(start)), grads)[0][0]

    swept = jax.jit(jax.vmap(walk))(jnp.array([0.1, 0.2]), jnp.array([0.5, 0.0]))
    up, down = [1 / 4, 2 / 4, 3 / 4, 1, 3 / 4, 1 / 4], (1 + np.cos(np.pi * np.arange(6) / 6)) / 2
    warm = np.minimum(np.arange(1, 7) / 3, 1)
    for got, rates in zip(swept, (0.1 * np.array(up), 0.2 * down), strict=True):
        np.testing.assert_allclose(got, -(warm * rates) @ grads, rtol=1e-12)


ERRORS = {
    "constant 0": (lambda: fn.constant(0), ValueError, "rate must be > 0, got 0"),
    "constant text": (lambda: fn.constant("a"), TypeError, "rate must be a number"),
    "step rate": (lambda: fn.step_decay(-1, 0.5, 3), ValueError, "rate must be > 0"),
    "step decay": (lambda: fn.step_decay(1, 0, 3), ValueError, "decay must be > 0"),
    "step every 0": (lambda: fn.step_decay(1, 0.5, 0), ValueError, "every must be at least 1"),
    "step every 1.5": (lambda: fn.step_decay(1, 0.5, 1.5), TypeError, "every must be an integer"),
    "cosine rate": (lambda: fn.cosine_decay(NaN, 9), ValueError, "rate must be finite and > 0"),
    "cosine steps 0": (lambda: fn.cosine_decay(1, 0), ValueError, "total_steps must be at least 1"),
    "cosine steps 9.0": (lambda: fn.cosine_decay(1, 9.0), TypeError, "total_steps must be an int"),
    "cosine fraction above": (
        lambda: fn.cosine_decay(1, 9, final_fraction=1.1),
        ValueError,
        "final_fraction must be >= 0 and <= 1, got 1.1",
    ),
    "cosine fraction below": (
        lambda: fn.cosine_decay(1, 9, final_fraction=-0.1),
        ValueError,
        "final_fraction must be >= 0",
    ),
    "flat rate": (lambda: fn.flat_cosine(0, 9), ValueError, "rate must be > 0"),
    "flat steps": (lambda: fn.flat_cosine(1, 0), ValueError, "total_steps must be at least 1"),
    "flat share": (lambda: fn.flat_cosine(1, 9, flat=1.1), ValueError, "flat must be >= 0 and <="),
    "coslog4 rate": (lambda: fn.coslog4(-1, 9), ValueError, "rate must be > 0"),
    "coslog4 steps": (lambda: fn.coslog4(1, 1.5), TypeError, "total_steps must be an integer"),
    "complement of text": (lambda: fn.complement("a"), TypeError, "rate must be a number"),
    "warmup rate": (lambda: fn.warmup(0, 3), ValueError, "rate must be > 0"),
    "warmup nothing": (lambda: fn.warmup(None, 3), TypeError, "rate must be a number"),
    "warmup steps 0": (lambda: fn.warmup(1, 0), ValueError, "warmup_steps must be at least 1"),
    "warmup steps True": (lambda: fn.warmup(1, True), TypeError, "warmup_steps must be an integer"),
    "cycle rate": (lambda: fn.one_cycle(0, 9), ValueError, "rate must be > 0"),
    "cycle steps 0": (lambda: fn.one_cycle(1, 0), ValueError, "total_steps must be at least 1"),
    "cycle steps text": (lambda: fn.one_cycle(1, "9"), TypeError, "total_steps must be an integer"),
    **{
        f"cycle {name} {value}": (
            lambda name=name, value=value: fn.one_cycle(1, 9, **{name: value}),
            kind,
            f"{name} must be",
        )
        for name in ("warmup_fraction", "first_fraction", "final_fraction")
        for value, kind in (
            (-0.1, ValueError),
            (1.1, ValueError),
            (NaN, ValueError),
            ("a", TypeError),
        )
    },
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_arguments(case):
    make, kind, text = ERRORS[case]
    with pytest.raises(kind, match=text) as caught:
        make()
    assert "\n" not in str(caught.value)


# By name

named = schedules.named_schedule
RUN = {"rate": 0.1, "steps_per_epoch": 5, "total_steps": 40}  # eight epochs
NAMED = {
    "constant": [({}, 0.1), ({"warmup": 0.26}, fn.warmup(0.1, 11)), ({"warmup": 0}, 0.1)],
    "exponential": [
        ({"decay": 0.5}, fn.exponential_decay(0.1, 0.5, 5)),
        ({"decay": 0.5, "warmup": 0.25}, fn.warmup(fn.exponential_decay(0.1, 0.5, 5), 10)),
    ],
    "step": [
        ({"decay": 0.5}, fn.step_decay(0.1, 0.5, 5)),
        ({"decay": 0.5, "decay_every": 2}, fn.step_decay(0.1, 0.5, 10)),
        (
            {"decay": 0.5, "decay_every": 3, "warmup": 1},
            fn.warmup(fn.step_decay(0.1, 0.5, 15), 40),
        ),
    ],
    "cosine": [
        ({}, fn.cosine_decay(0.1, 40)),
        ({"warmup": 0.0}, fn.cosine_decay(0.1, 40)),
        ({"warmup": 0.1}, fn.warmup(fn.cosine_decay(0.1, 40), 4)),
        ({"warmup": 1e-9}, fn.warmup(fn.cosine_decay(0.1, 40), 1)),
    ],
    "one_cycle": [
        ({}, fn.one_cycle(0.1, 40, warmup_fraction=0.2)),
        ({"warmup": 0.5}, fn.one_cycle(0.1, 40, warmup_fraction=0.5)),
        ({"warmup": 0.0}, fn.one_cycle(0.1, 40, warmup_fraction=0.0)),
    ],
}


NAMED |= {
    "flat_cosine": [
        ({}, fn.flat_cosine(0.1, 40)),
        ({"warmup": 0.1}, fn.warmup(fn.flat_cosine(0.1, 40), 4)),
    ],
    "coslog4": [
        ({}, fn.coslog4(0.1, 40)),
        ({"warmup": 0.1}, fn.warmup(fn.coslog4(0.1, 40), 4)),
    ],
}


def test_the_table_has_every_name():
    assert set(NAMED) == set(schedules.SCHEDULES)


@pytest.mark.parametrize("name", NAMED)
def test_schedules_by_name(name):
    for given, expected in NAMED[name]:
        made = named(name, **RUN, **given)
        assert made == expected
        assert type(made) is type(expected)


def test_the_registry_is_the_only_list(monkeypatch):
    """A row more is a schedule more, also in what is said of the others."""

    def halved(rate, decay, total_steps):
        return fn.step_decay(rate, decay, total_steps // 2)

    monkeypatch.setitem(schedules.SCHEDULES, "halved", halved)
    assert named("halved", **RUN, decay=0.3) == fn.step_decay(0.1, 0.3, 20)
    made = named("halved", **RUN, decay=0.3, warmup=0.1)
    assert made == fn.warmup(fn.step_decay(0.1, 0.3, 20), 4)
    for wrong in ({"name": "halved"}, {"name": "cosine", "decay": 0.5}):
        with pytest.raises(ValueError, match=r"decay .*schedules exponential and step and halved"):
            named(**wrong, **RUN)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_schedule_may_be_traced(name, x64, unoptimized):
    takes = inspect.signature(schedules.SCHEDULES[name]).parameters
    decay = {"decay": 0.5} if "decay" in takes else {}
    given = {"rate": 0.1, **decay} | ({"warmup": 0.4} if "warmup" in takes else {})
    counts = {"steps_per_epoch": 2, "total_steps": 10}

    @jax.jit
    def rates(given):
        schedule = named(name, **given, **counts)
        return jax.vmap(lambda step: schedules.at_step(schedule, step))(jnp.arange(10))

    schedule = named(name, **given, **counts)
    expected = [schedules.at_step(schedule, step) for step in range(10)]
    np.testing.assert_allclose(rates(given), expected, rtol=1e-12, atol=1e-17)


def takes_decay():
    return {
        name: "decay" in inspect.signature(make).parameters
        for name, make in schedules.SCHEDULES.items()
    }


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_decay_is_given_if_and_only_if_it_is_taken(name):
    takes = takes_decay()
    given = {} if takes[name] else {"decay": 0.5}
    with pytest.raises(ValueError, match="decay") as caught:
        named(name, **RUN, **given)
    for user in (user for user, needs in takes.items() if needs):
        assert user in str(caught.value)
    assert "\n" not in str(caught.value)


NAMED_ERRORS = {
    "unknown": ({"name": "cosin"}, ValueError, "unknown schedule 'cosin': did you mean 'cosine'"),
    "decay of none": (
        {"name": "cosine", "decay": 0.5},
        ValueError,
        "decay is for the schedules exponential and step, not for cosine",
    ),
    "no decay": (
        {"name": "step"},
        ValueError,
        "decay must be given for the schedules exponential and step",
    ),
    "decay every": (
        {"name": "exponential", "decay": 0.5, "decay_every": 2},
        ValueError,
        "decay_every is for the schedule step, not for exponential",
    ),
    "rate": ({"name": "constant", "rate": 0}, ValueError, "rate must be > 0, got 0"),
    "rate of all": ({"name": "cosine", "rate": -1}, ValueError, "rate must be > 0, got -1"),
    "decay 0": ({"name": "step", "decay": 0}, ValueError, "decay must be > 0, got 0"),
    "decay text": ({"name": "step", "decay": "a"}, TypeError, "decay must be a number"),
    "every 0": (
        {"name": "step", "decay": 0.5, "decay_every": 0},
        ValueError,
        "decay_every must be at least 1, got 0",
    ),
    "every 1.5": (
        {"name": "step", "decay": 0.5, "decay_every": 1.5},
        TypeError,
        "decay_every must be an integer",
    ),
    "epoch": (
        {"name": "step", "decay": 0.5, "steps_per_epoch": 0},
        ValueError,
        "steps_per_epoch must be at least 1",
    ),
    "total": ({"name": "cosine", "total_steps": 0}, ValueError, "total_steps must be at least 1"),
    **{
        f"warmup {name} {value}": ({"name": name, "warmup": value}, kind, "warmup must be")
        for name in ("constant", "one_cycle")
        for value, kind in ((-0.1, ValueError), (1.1, ValueError), ("a", TypeError))
    },
}


@pytest.mark.parametrize("case", NAMED_ERRORS)
def test_bad_arguments_of_named_schedules(case):
    given, kind, text = NAMED_ERRORS[case]
    with pytest.raises(kind, match=text):
        named(**RUN | given)
