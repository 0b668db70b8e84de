"""What people pass in besides plain float32 arrays: wide integers, keys, masks, NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but

import funcnet as fn

OPTIONS = {"epochs": 2, "batch_size": 10}


def dataset(x, y, names=("a", "b")):
    return fn.Dataset(x, y, x[:4], y[:4], [], [], names)


def small(count=20):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)).astype(np.float32), np.arange(count) % 2


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from([np.int64, np.uint64, np.int32, np.uint32, np.float64]),
    scale=st.sampled_from([1, 2**20, 2**33, 2**52]),
    seed=st.integers(0, 100),
)
def test_affine_takes_integers_of_any_size(dtype, scale, seed):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind != "f" else 2**60
    x = (rng.integers(0, 100, (2, 2)) * min(scale, top // 100)).astype(dtype)
    if dtype == np.float64:
        x = x.astype(np.float32)  # JAX's own cast: funcnet takes no float64 beside float32
    w, b = np.array([[1.0], [0.5]], np.float32), np.zeros(1, np.float32)
    out, _ = fn.affine_forward(x, w, b)
    expected = x.astype(np.float64) @ w.astype(np.float64)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_wide_integers_do_not_wrap_in_layers():
    out, _ = fn.relu_forward(np.array([2**32, -(2**32)]))
    assert out.tolist() == [2.0**32, 0.0]


@pytest.mark.parametrize("implementation", slow_but(["rbg", "threefry2x32"], "threefry2x32"))
def test_raw_keys_of_the_default_implementation(implementation):
    x, y = small()
    before = jax.config.jax_default_prng_impl
    jax.config.update("jax_default_prng_impl", implementation)
    try:
        net = fn.mlp([4], 2, keep_prob=0.5)
        for key in (jax.random.PRNGKey(0), jax.random.key(0)):
            result = fn.fit(net, fn.adam(1e-3), dataset(x, y), key=key, **OPTIONS)
            assert np.isfinite(result.history.loss).all()
        wrong = jnp.zeros(3, jnp.uint32)
        with pytest.raises(TypeError, match="key must be a random key"):
            fn.fit(net, fn.adam(1e-3), dataset(x, y), key=wrong, **OPTIONS)
    finally:
        jax.config.update("jax_default_prng_impl", before)


def test_the_gradient_of_global_norm():
    tree = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    for leaf in jax.tree.leaves(jax.grad(fn.global_norm)(tree)):
        assert (leaf == 0).all()
    tree = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([-4.0])}
    grads = jax.grad(fn.global_norm)(tree)
    np.testing.assert_allclose(grads["a"], [0.6, 0])
    np.testing.assert_allclose(grads["b"], [-0.8])
    for value in (np.nan, np.inf):
        assert not np.isfinite(fn.global_norm({"a": jnp.array([value, 1.0])}))


def test_a_masked_element_is_missing():
    x, y = small()
    masked = np.ma.array(x, mask=np.zeros(x.shape, bool))
    model = fn.fit(
        fn.mlp([], 2), fn.adam(1e-3), dataset(masked, y), key=jax.random.key(0), **OPTIONS
    )
    np.testing.assert_array_equal(fn.predict(model.model, masked), fn.predict(model.model, x))
    masked[3, 1] = np.ma.masked
    for use in (
        lambda: fn.fit(
            fn.mlp([], 2), fn.adam(1e-3), dataset(masked, y), key=jax.random.key(0), **OPTIONS
        ),
        lambda: fn.predict(model.model, masked),
        lambda: fn.evaluate(model.model, masked, y),
        lambda: fn.subtract_mean(masked),
        lambda: model.model.preprocess(masked),
    ):
        with pytest.raises(ValueError, match=r"\[3, 1\] is masked, missing \(1 such element\)"):
            use()
    hidden = np.ma.array(y, mask=y == 5)
    hidden[2] = np.ma.masked
    with pytest.raises(ValueError, match=r"y\[2\] is masked"):
        fn.evaluate(model.model, x, hidden)


def test_nan_scores_are_no_class():
    x, y = small()
    model = fn.fit(
        fn.mlp([], 2), fn.adam(1e-3), dataset(x, y), key=jax.random.key(0), **OPTIONS
    ).model
    broken = fn.Model(
        model.net,
        model.params.set(("affine1", "b"), jnp.array([np.nan, 0])),
        model.state,
        model.preprocess,
    )
    with pytest.raises(ValueError, match=r"scores of example 0 are NaN \(20 such examples of 20\)"):
        fn.predict(broken, x)
    assert fn.evaluate(broken, x, y).accuracy == 0


def test_examples_of_one_class_are_refused():
    x, _ = small()
    y = np.ones(20, int)
    with pytest.raises(ValueError, match=r"all 20 training examples are of class 'b'"):
        fn.fit(fn.mlp([], 2), fn.adam(1e-3), dataset(x, y), key=jax.random.key(0), **OPTIONS)

    def experiment(learning_rate):
        return fn.mlp([], 2), fn.adam(learning_rate)

    with pytest.raises(ValueError, match=r"all 20 training examples are of class 'b'"):
        fn.sweep(experiment, dataset(x, y), [{"learning_rate": 0.1, "seed": 0}], **OPTIONS)
