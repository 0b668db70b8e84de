"""Preprocessing that is fitted on training data. A new one is one more row of FITTERS."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn

FITTERS = {
    "subtract_mean": fn.subtract_mean,
    "no_preprocess": fn.no_preprocess,
    "standardize": fn.standardize,
    "standardize_numbers": fn.standardize_numbers,
    "normalize_contrast": fn.normalize_contrast,
    "quantile_transform": partial(fn.quantile_transform, bins=5),
    "whiten": fn.whiten,
    "shuffle_features": fn.shuffle_features,
    "standardize+shuffle_features": fn.chain(fn.standardize, fn.shuffle_features),
    "normalize_contrast+whiten": fn.chain(fn.normalize_contrast, partial(fn.whiten, dim=5)),
    "no_preprocess+standardize": fn.chain(fn.no_preprocess, fn.standardize),
}

apply = jax.jit(lambda fitted, x: fitted(x))  # op by op, each shape would compile many times

each = pytest.mark.parametrize("kind", FITTERS)


def pixels(rng, *shape):
    return rng.integers(256, size=shape).astype(np.uint8)


def correlated(rng, count, features):
    """Data with a full covariance, far from the origin."""
    return 5 + rng.normal(size=(count, features)) @ rng.normal(size=(features, features))


def covariance(x):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) / len(x)


# All of them


@each
def test_a_pytree_that_keeps_its_kind(kind, rng):
    x = pixels(rng, 30, 2, 3)
    fitted = FITTERS[kind](x)
    assert fitted.kind == kind
    np.testing.assert_allclose(apply(fitted, x), fitted(x), rtol=1e-4, atol=1e-4)
    leaves, structure = jax.tree.flatten(fitted)
    assert jax.tree.unflatten(structure, leaves) == fitted


@each
def test_the_same_bits_each_time(kind, rng):
    x = pixels(rng, 30, 2, 3)
    before = x.copy()
    first, second = FITTERS[kind](x), FITTERS[kind](x.copy())
    assert first == second
    np.testing.assert_array_equal(apply(first, x), apply(second, x))
    np.testing.assert_array_equal(x, before)


@each
def test_an_example_does_not_see_its_batch(kind, rng):
    x = pixels(rng, 30, 2, 3)
    fitted = FITTERS[kind](x)
    others = np.concatenate([x[:5], pixels(rng, 25, 2, 3)])
    np.testing.assert_array_equal(apply(fitted, x)[:5], apply(fitted, others)[:5])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bfloat16"])
@each
def test_the_dtype_of_pixels_does_not_matter(kind, dtype, rng):
    x = pixels(rng, 30, 2, 3)
    wide = x.astype(jnp.dtype(dtype))
    a = np.asarray(apply(FITTERS[kind](x), x), np.float64)
    b = np.asarray(apply(FITTERS[kind](wide), wide), np.float64)
    # The sign of a principal component is anyone's choice.
    np.testing.assert_allclose(np.abs(a), np.abs(b), rtol=1e-3, atol=1e-3)


@each
def test_float64_stays_float64(kind, rng, x64):
    x = rng.normal(size=(30, 2, 3))
    assert apply(FITTERS[kind](x), x).dtype == np.float64


@pytest.mark.parametrize("value", [0, 77, 0.1])
@each
def test_examples_that_are_all_the_same(kind, value):
    x = np.full((7, 2, 3), value)
    out = np.asarray(apply(FITTERS[kind](x), x))
    assert np.isfinite(out).all()
    if "no_preprocess" != kind != "shuffle_features":
        np.testing.assert_allclose(out, 0, atol=1e-6)


BAD = {
    "no examples": (lambda x: x[:0], "x is empty"),
    "no features": (lambda x: x[:, :0], "x is empty"),
    "nan": (lambda x: np.where(np.arange(3) == 2, np.nan, x), r"x\[0, 0, 2\] is nan"),
    "one example": (lambda x: x[0, 0], r"x must be \[N, ...\]"),
    "strings": (lambda x: x.astype(str), "x must hold real numbers"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", [kind for kind in FITTERS if "no_preprocess" not in kind])
def test_fitting_refuses(kind, case):
    change, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        FITTERS[kind](change(np.ones((4, 2, 3))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kind",
    [
        "subtract_mean",
        "standardize",
        "quantile_transform",
        "whiten",
        "shuffle_features",
        "no_preprocess+whiten",
    ],
)
def test_examples_of_another_shape_are_refused(kind, rng):
    fit = fn.chain(*(FITTERS[part] for part in kind.split("+")))
    with pytest.raises(ValueError, match=r"examples of shape \[2, 4\].* (\[2, 3\]|6 features)"):
        fit(pixels(rng, 9, 2, 3))(np.ones((5, 2, 4)))


# Each of them


def test_the_mean_of_many_pixels_is_exact():
    x = np.full((70_000, 4), 255, np.uint8)  # a float32 sum of these is off by more than 1
    x[::2, 0] = 254
    mean = np.array([254.5, 255, 255, 255], np.float32)
    np.testing.assert_array_equal(fn.subtract_mean(x).stats["mean"], mean)
    np.testing.assert_array_equal(fn.standardize(x).stats["mean"], mean)
    np.testing.assert_array_equal(fn.whiten(x).stats["mean"], mean)


def test_standardize(rng, x64):
    x = 5 + rng.normal(size=(9000, 2, 3)) * np.array([1.0, 10, 0.1])  # in three parts
    x[:, 1, 1] = 0.1  # its mean is not quite 0.1
    out = np.asarray(fn.standardize(x, epsilon=0)(x))
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-12)
    expected = np.ones((2, 3))
    expected[1, 1] = 0
    np.testing.assert_allclose(out.std(axis=0), expected, rtol=1e-12)
    np.testing.assert_array_equal(out[:, 1, 1], 0)


def test_epsilon_of_standardize_is_a_share_of_the_largest_deviation(rng, x64):
    x = rng.normal(size=(50, 3)) * np.array([1.0, 10, 0.1])
    std = x.std(axis=0)
    expected = (x - x.mean(axis=0)) / (std + 0.5 * std.max())
    np.testing.assert_allclose(fn.standardize(x, epsilon=0.5)(x), expected, rtol=1e-12)
    again = fn.standardize(1e3 * x, epsilon=0.5)(1e3 * x)
    np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_quantile_edges(rng):
    x = np.stack([rng.normal(size=101), rng.integers(2, size=101), np.full(101, 3)], axis=1)
    edges = fn.quantile_edges(x, 10)
    assert edges.shape == (3, 11)
    assert edges.dtype == np.float64
    np.testing.assert_allclose(edges[0], np.sort(x[:, 0])[::10], rtol=1e-15)
    assert np.all(np.isin(edges[1], [0, 1]))
    np.testing.assert_array_equal(edges[2], 3)
    out, _ = fn.piecewise_linear_forward(x, edges)
    assert np.isfinite(out).all()
    shares = np.asarray(out).reshape(101, 3, 10)
    np.testing.assert_allclose(shares[:, 1].sum(axis=1), x[:, 1])  # one bin of width
    np.testing.assert_array_equal(shares[:, 2], 0)
    wide = fn.quantile_edges(1e9 + np.arange(5.0)[:, None], 4)
    np.testing.assert_array_equal(wide, [1e9 + np.arange(5.0)])


PLACES = {
    "the quantiles": ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [-1, -0.5, 0, 0.5, 1]),
    "between them": ([0, 1, 2, 10, 90], [0.5, 6, 50], [-0.75, 0.25, 0.75]),
    "beyond them": ([3, 4, 5, 6, 7], [-1e9, 2, 8, 1e9], [-1, -1, 1, 1]),
    "what many have": ([0, 0, 0, 1, 2], [0, 0.5, 1, 2], [-0.5, 0, 0.5, 1]),
    "in between, too": ([0, 1, 1, 1, 2], [0, 0.5, 1, 1.5, 2], [-1, -0.5, 0, 0.5, 1]),
    "what all have": ([7, 7, 7], [7, 6, 8], [0, 0, 0]),
    "0 and 1": ([0, 0, 0, 0, 1], [0, 1, 0.5], [0, 1, 0.5]),
    "0 and -1": ([0, 0, 0, 0, -1], [0, -1], [0.25, -1]),
    "subnormal numbers": ([0, 1e-39, 2e-39, 3, 4], [0, 3, 4], [-0.5, 0.5, 1]),
    "large ones": (10**9 + np.arange(5), 10**9 + np.arange(5), [-1, -0.5, 0, 0.5, 1]),
}


@pytest.mark.parametrize("case", PLACES)
def test_quantile_transform(case, rng):
    train, x, expected = PLACES[case]
    dtype = np.float32 if case == "subnormal numbers" else None
    others = rng.normal(size=(len(train), 2))
    columns = np.stack([others[:, 0], np.asarray(train, dtype), others[:, 1]], axis=1)
    asked = np.stack([np.zeros(len(x)), x, np.zeros(len(x))], axis=1)
    fitted = fn.quantile_transform(columns.astype(dtype or np.float64), bins=4)
    for some in (asked, asked.astype(dtype or np.float64)):
        np.testing.assert_allclose(np.asarray(fitted(some))[:, 1], expected, atol=1e-6)


def test_quantile_transform_of_what_its_dtype_cannot_tell_apart(rng):
    """Edges that float32 has for one; a range beyond its largest number."""
    x = 1e9 + 10 * rng.normal(size=(200, 2))
    out = np.asarray(fn.quantile_transform(x)(x.astype(np.float32)))
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1
    for bins in (1, 2, 48):
        far = np.array([[-3e38], [0], [3e38], [1]], np.float32)
        out = np.asarray(fn.quantile_transform(far, bins=bins)(far))[:, 0]
        assert (out[0], out[2]) == (-1, 1)
        assert -1 < out[1] <= out[3] < 1


def test_quantile_transform_of_many_columns_is_that_of_each(rng):
    x = rng.normal(size=(900, 200))
    whole = np.asarray(fn.quantile_transform(x, bins=48)(x))  # in parts
    np.testing.assert_array_equal(whole[:, :3], fn.quantile_transform(x[:, :3], bins=48)(x[:, :3]))


def test_quantile_transform_of_many_is_uniform_and_rises(rng):
    x = rng.lognormal(size=(2000, 1)).astype(np.float32) ** 3
    out = np.asarray(fn.quantile_transform(x)(x))[:, 0]
    np.testing.assert_allclose(np.histogram(out, 8, (-1, 1))[0], 250, atol=5)
    order = np.argsort(x[:, 0])
    assert (np.diff(out[order]) >= 0).all()


def test_normalize_contrast(rng, x64):
    x = rng.normal(size=(7, 2, 3)) * np.arange(1, 8)[:, None, None] + 100
    out = np.asarray(apply(fn.normalize_contrast(x, epsilon=0), x))
    np.testing.assert_allclose(out.mean(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(out.var(axis=(1, 2)), 1, rtol=1e-12)
    centred = x - x.mean(axis=(1, 2), keepdims=True)
    variance = x.var(axis=(1, 2), keepdims=True)
    out = apply(fn.normalize_contrast(np.ones((1, 1))), x)  # nothing is fitted; 10 is for pixels
    np.testing.assert_allclose(out, centred / np.sqrt(variance + 10), rtol=1e-12)


def test_normalize_contrast_of_one_batch_without_examples_axis():
    with pytest.raises(ValueError, match=r"x must be \[N, ...\]"):
        fn.normalize_contrast(np.ones((2, 3)))(np.ones(3))


@pytest.mark.parametrize("dim", [None, 1, 4])
def test_whitened_data_have_the_identity_as_covariance(dim, rng, x64):
    x = correlated(rng, 500, 6).reshape(500, 2, 3)
    fitted = fn.whiten(x, dim=dim, epsilon=0)
    out = np.asarray(fitted(x))
    assert out.shape == (500, dim or 6)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(covariance(out), np.eye(dim or 6), atol=1e-10)


def test_whiten_keeps_the_directions_of_largest_variance(rng, x64):
    x = correlated(rng, 500, 6)
    variances = np.linalg.eigvalsh(covariance(x))[::-1]
    epsilon = 0.7
    fitted = fn.whiten(x, dim=4, epsilon=epsilon)
    shrunk = variances / (variances + epsilon)
    np.testing.assert_allclose(covariance(fitted(x)), np.diag(shrunk[:4]), atol=1e-10)
    # Undone, they give the data but for the directions left out: PCA's own error.
    matrix = np.asarray(fitted.stats["matrix"])
    back = np.asarray(fitted(x)) @ np.linalg.pinv(matrix) + x.mean(axis=0)
    lost = np.square(x - back).sum(axis=1).mean()
    np.testing.assert_allclose(lost, variances[4:].sum(), rtol=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("count", [4, 60, 5000])
def test_directions_without_variance_give_zero(dtype, count, rng):
    """A constant feature, one that is the sum of others, one twice; few examples."""
    x = pixels(rng, count, 8) // 2
    x[:, 2] = 77
    x[:, 5] = x[:, 4]
    x[:, 6] = x[:, 0] + x[:, 1]
    rank = min(5, count - 1)
    fitted = fn.whiten(x.astype(dtype), epsilon=0)
    out = np.asarray(fitted(x.astype(dtype)))
    np.testing.assert_array_equal(out[:, rank:], 0)
    np.testing.assert_allclose(covariance(out)[:rank, :rank], np.eye(rank), atol=2e-3)
    anywhere = np.asarray(fitted(rng.uniform(0, 255, size=(50, 8))))  # off the data's plane
    assert np.abs(anywhere).max() < 1e3


def test_whiten_in_parts_equals_whole(rng, x64):
    """More examples than are looked at at once; what is fitted is a mean over all."""
    x = correlated(rng, 4096 + 4096 + 5, 4)
    x[4096:] *= 3
    whole = fn.whiten(x, epsilon=0.1)
    variances, directions = np.linalg.eigh(covariance(x))
    expected = (x - x.mean(axis=0)) @ (directions / np.sqrt(variances + 0.1))[:, ::-1]
    np.testing.assert_allclose(np.abs(whole(x)), np.abs(expected), rtol=1e-8, atol=1e-9)


def test_shuffle_features_is_one_permutation_for_all(rng):
    x = pixels(rng, 9, 3, 4, 5)
    fitted = fn.shuffle_features(x)
    order = np.asarray(fitted.stats["order"])
    assert order.dtype == np.int32
    assert sorted(order) == list(range(60))
    assert np.mean(order == np.arange(60)) < 0.2
    out = fitted(x)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, x.reshape(9, 60)[:, order].reshape(x.shape))
    assert fn.shuffle_features(x[:1], seed=0) == fitted
    assert fn.shuffle_features(x, seed=1) != fitted


# Chains


@pytest.mark.parametrize(
    "kinds",
    [
        ("subtract_mean", "standardize"),
        ("normalize_contrast", "whiten", "standardize"),
        ("no_preprocess", "shuffle_features", "no_preprocess", "subtract_mean"),
    ],
    ids=" ".join,
)
def test_a_chain_is_each_in_turn(kinds, rng):
    x = train = pixels(rng, 30, 2, 3)
    fitted = fn.chain(*(FITTERS[kind] for kind in kinds))(train)
    assert fitted.kind == "+".join(kinds)
    for kind in kinds:
        x = np.asarray(apply(FITTERS[kind](x), x))
    np.testing.assert_allclose(apply(fitted, train), x, rtol=1e-4, atol=1e-4)


def test_chains_in_chains(rng):
    x = pixels(rng, 30, 2, 3)
    inner = fn.chain(fn.normalize_contrast, partial(fn.whiten, dim=4))
    straight = fn.chain(fn.subtract_mean, fn.normalize_contrast, partial(fn.whiten, dim=4))(x)
    nested = fn.chain(fn.subtract_mean, inner)(x)
    assert nested == straight


def test_a_chain_of_one_is_that_one_and_of_none_is_nothing(rng):
    x = pixels(rng, 30, 2, 3)
    assert fn.chain(fn.standardize)(x) == fn.standardize(x)
    assert fn.chain()(x) == fn.no_preprocess(x)
    np.testing.assert_array_equal(fn.chain()(x)(x), x)


def test_a_chain_of_many_examples_is_fitted_in_parts(rng):
    x = pixels(rng, 5000, 6)
    fitted = fn.chain(fn.subtract_mean, fn.standardize)(x)
    whole = fn.standardize(np.asarray(apply(fn.subtract_mean(x), x)))
    assert fn.scaled_error(fitted.stats["2"], whole.stats) < 1e-5


def test_epsilon_and_dim():
    x = np.ones((4, 2, 3))
    for fit in (fn.standardize, fn.normalize_contrast, fn.whiten):
        for epsilon in (-1e-3, np.nan, np.inf):
            with pytest.raises(ValueError, match="epsilon must be"):
                fit(x, epsilon=epsilon)
    for dim, message in ((7, "dim must be .*6"), (0, "dim must be"), (2.5, "an integer")):
        with pytest.raises((ValueError, TypeError), match=message) as error:
            fn.whiten(x, dim=dim)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        fn.quantile_transform(x, bins=0)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        fn.shuffle_features(x, seed=-1)
    with pytest.raises(TypeError, match="every preprocessing must be a function"):
        fn.chain(fn.whiten, "standardize")


# Numbers that float32 may round.

WIDE = [np.int32, np.uint32, np.int64, np.uint64, np.float64]


def reference(kind, x):
    """In float64 NumPy, columns of [N, D]."""
    x = x.astype(np.float64)
    centred = x - x.mean(axis=0)
    if kind is fn.subtract_mean:
        return centred
    return centred / x.std(axis=0)


def test_64_bit_integers_do_not_wrap():
    x = np.array([[0], [2**32]])
    assert np.asarray(fn.standardize(x)(x)).ravel().tolist() == [-1, 1]
    assert np.asarray(fn.no_preprocess(x)(x)).ravel().tolist() == [0, 2.0**32]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("kind", [fn.subtract_mean, fn.standardize, fn.whiten])
def test_an_offset_is_subtracted_before_it_can_round(kind, dtype):
    x = (10**9 + np.array([[0], [10], [20], [30]])).astype(dtype)
    expected = np.array([-15, -5, 5, 15])
    if kind is not fn.subtract_mean:
        expected = expected / np.sqrt(125)
    got = np.asarray(kind(x)(x)).ravel()
    if kind is fn.whiten:  # whose directions have no sign
        got = got * np.sign(got[-1])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_every_column_has_a_deviation_of_its_own():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1e9, 1e-3, 1] + [0, 5, 0]
    for dtype in (np.float64, np.float32):
        wide = x.astype(dtype)
        got = np.asarray(fn.standardize(wide)(wide))
        np.testing.assert_allclose(got, reference(fn.standardize, wide), atol=1e-3)
        np.testing.assert_allclose(got.std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize("kind", [fn.subtract_mean, fn.standardize])
@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from([*WIDE, np.uint8, np.int16, np.float32]),
    offset=st.integers(0, 2**30),
    scale=st.integers(1, 2**20),
    seed=st.integers(0, 100),
)
def test_centred_as_in_float64(kind, dtype, offset, scale, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 100, size=(6, 3))
    x[:2] = [[0] * 3, [99] * 3]  # every column varies
    if np.dtype(dtype).itemsize > 2 and dtype != np.float32:
        x = offset + x * scale
        x = np.minimum(x, 2**31 - 1)  # int32 holds it
    x = x.astype(dtype)
    expected = reference(kind, x)
    np.testing.assert_allclose(
        np.asarray(kind(x)(x)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )


def test_statistics_are_float64_in_memory_and_in_the_file(tmp_path):
    x = 1e9 + np.arange(12.0).reshape(4, 3)
    fitted = fn.standardize(x)
    assert fitted.stats["mean"].dtype == np.float64
    net = fn.mlp([], 2)
    params, state, _ = net.init(jax.random.key(0), (3,))
    fn.save_model(tmp_path / "m.safetensors", fn.Model(net, params, state, fitted))
    loaded = fn.load_model(tmp_path / "m.safetensors", net).preprocess
    for name in ("mean", "scale"):
        assert loaded.stats[name].dtype == np.float64
        np.testing.assert_array_equal(loaded.stats[name], fitted.stats[name])
    np.testing.assert_array_equal(loaded(x), fitted(x))


def test_chained_offsets_are_subtracted_on_the_host():
    x = 1e9 + np.random.default_rng(0).normal(size=(40, 4)) * 10
    plain = np.asarray(fn.chain(fn.shuffle_features, fn.standardize)(x)(x))
    np.testing.assert_allclose(plain.std(axis=0), 1, rtol=1e-4)


def seconds(count=200, dtype=np.int64):
    """Seconds since 1970 as a feature that decides the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    x = (1_700_000_000 + 20 * y + rng.integers(0, 10, count)).astype(dtype)[:, None]
    return x, y


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_seconds_are_learned_in_fit_evaluate_predict_and_sweep(dtype):
    x, y = seconds(dtype=dtype)
    data = fn.Dataset(x[:120], y[:120], x[120:160], y[120:160], x[160:], y[160:], ("a", "b"))
    options = {"epochs": 5, "batch_size": 10, "preprocess": fn.standardize}
    result = fn.fit(fn.mlp([8], 2), fn.adam(3e-2), data, key=jax.random.key(0), **options)
    assert result.best.accuracy == 1.0
    assert fn.evaluate(result.best, data.x_test, data.y_test).accuracy == 1.0
    np.testing.assert_array_equal(fn.predict(result.best, data.x_test), data.y_test)
    as_jax = jnp.asarray(data.x_test.astype(np.int32))
    np.testing.assert_array_equal(fn.predict(result.best, as_jax), data.y_test)

    def experiment(learning_rate):
        return fn.mlp([8], 2), fn.adam(learning_rate)

    sweep = fn.sweep(experiment, data, [{"learning_rate": 3e-2, "seed": 0}], **options)
    assert sweep.best.accuracy == 1.0
    assert sweep.test.accuracy == 1.0


def test_a_step_takes_what_fit_takes():
    x, y = seconds()
    net, optimizer = fn.mlp([8], 2), fn.adam(3e-2)
    fitted = fn.standardize(x)
    state = fn.init_train_state(net, optimizer, (1,), key=jax.random.key(0))
    step = fn.make_train_step(net, optimizer, preprocess=fitted)
    for _ in range(60):
        state, _ = step(state, x, y)
    assert fn.evaluate(fn.Model(net, state.params, state.state, fitted), x, y).accuracy == 1.0


def test_wide_images_are_augmented_where_nothing_is_lost_and_refused_where_it_is():
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 6, 6)), np.arange(20) % 2
    options = {"key": jax.random.key(0), "epochs": 1, "batch_size": 10, "augment": fn.random_flip}

    def fit(x):
        data = fn.Dataset(x, y, x[:4], y[:4], [], [], ("a", "b"))
        return fn.fit(fn.mlp([], 2), fn.adam(1e-3), data, **options)

    assert np.isfinite(fit(x).history.loss).all()
    with pytest.raises(ValueError, match=r"x_train is float64.*run together.*offset"):
        fit(1e9 + x)
    with pytest.raises(ValueError, match=r"x is float64.*several views.*run together"):
        fn.predict(fit(x).model, 1e9 + x, views=fn.flips_and_shifts(1))
    for dtype in (np.int32, np.int64):  # which JAX holds, but not the float32 that they become
        with pytest.raises(ValueError, match=rf"x_train is {np.dtype(dtype)}.*run together"):
            fit((1e9 + 10 * x).astype(dtype))
    sorted_by_value = np.sort(np.concatenate([1e6 + x[:10], 2e6 + x[:10]]), axis=0)
    fit(sorted_by_value)  # though each batch alone hardly varies


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-1e9, 1e9), st.floats(1e-3, 1e6))
def test_indicators_are_left_as_they_are(seed, offset, scale):
    rng = np.random.default_rng(seed)
    numbers = offset + scale * rng.normal(size=(12, 3))
    numbers[0] = 0  # a number may be 0, too
    indicators = rng.integers(2, size=(12, 4))
    x = np.concatenate([numbers, indicators], axis=1)
    fitted = fn.standardize_numbers(x)
    out = np.asarray(fitted(x))
    np.testing.assert_array_equal(out[:, 3:], indicators)
    right = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    np.testing.assert_allclose(out[:, :3], right, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(out[:, :3], np.asarray(fn.standardize(x)(x))[:, :3])
    assert fitted.stats["mean"].dtype == np.float64
