"""Learning rates as functions of the count of updates done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

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


@pytest.mark.parametrize("make", [fn.sgd, fn.adam, fn.rmsprop, fn.sgd_momentum])
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
