"""The judge itself: it passes sound nets, and sees a single wrong element."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

pytestmark = pytest.mark.usefixtures("unoptimized")

NaN = float("nan")


# numerical_gradient


def test_numerical_gradient_of_a_scalar(rng, x64):
    x = jnp.asarray(rng.normal(size=(2, 3)))
    grad = fn.numerical_gradient(lambda x: (x**3).sum(), x)
    np.testing.assert_allclose(grad, 3 * x**2, rtol=1e-8, atol=1e-9)
    assert grad.shape == x.shape
    assert grad.dtype == np.float64


def test_numerical_gradient_of_an_array_with_dout(rng, x64):
    x, w = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(3, 5)))
    dout = jnp.asarray(rng.normal(size=(2, 5)))
    grad = fn.numerical_gradient(lambda x: jnp.tanh(x @ w), x, dout)
    np.testing.assert_allclose(grad, (dout * (1 - jnp.tanh(x @ w) ** 2)) @ w.T, rtol=1e-7)
    # NumPy arrays do as well.
    same = fn.numerical_gradient(lambda x: jnp.tanh(x @ w), np.asarray(x), np.asarray(dout))
    np.testing.assert_array_equal(grad, same)


def test_numerical_gradient_keeps_the_tree_structure(rng, x64):
    x = fn.FrozenDict(
        b={"w": jnp.asarray(rng.normal(size=(3, 2))), "s": jnp.float64(0.7)},
        a=(jnp.asarray(rng.normal(size=4)), {"c": jnp.asarray(rng.normal(size=(1, 2)))}),
    )

    def f(x):
        pair, child = x["a"], x["b"]
        return (child["w"] ** 2).sum() * child["s"] + jnp.sin(pair[0]).sum() * pair[1]["c"].prod()

    grad = fn.numerical_gradient(f, x)
    assert jax.tree.structure(grad) == jax.tree.structure(x)
    assert fn.scaled_error(grad, jax.grad(f)(x)) <= 1e-9
    mixed = {"a": x["a"], "b": x["b"]}
    assert jax.tree.structure(fn.numerical_gradient(f, mixed)) == jax.tree.structure(mixed)


def test_numerical_gradient_of_a_tree_with_a_tree_of_cotangents(x64):
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}

    def f(x):
        return fn.FrozenDict(p=x["a"] * x["b"], q=x["b"] ** 2)

    grad = fn.numerical_gradient(
        f, x, fn.FrozenDict(p=[0.5, -2.0], q=jnp.array([7.0])).set("p", jnp.array([0.5, -2.0]))
    )
    np.testing.assert_allclose(grad["a"], [1.5, -6.0], rtol=1e-9)
    np.testing.assert_allclose(grad["b"], [0.5 - 4.0 + 42.0], rtol=1e-9)


def test_numerical_gradient_is_central(x64):
    """The error of a one-sided difference would be h / 2 * f'', here 1e-2."""
    grad = fn.numerical_gradient(lambda x: x**2, jnp.float64(3), h=1e-2)
    np.testing.assert_allclose(grad, 6, rtol=1e-12)
    cubic = fn.numerical_gradient(lambda x: x**3, jnp.float64(0), h=1e-2)
    np.testing.assert_allclose(cubic, 1e-4, rtol=1e-9)  # h**2, no more and no less


def test_numerical_gradient_refuses_float32_with_the_default_h():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match="float32, too coarse for h = 1e-05") as caught:
        fn.numerical_gradient(lambda x: x.sum(), x)
    assert "enable_x64" in str(caught.value)
    with pytest.raises(ValueError, match="x at w is float32"), jax.enable_x64(True):
        fn.numerical_gradient(lambda x: x["w"].sum(), {"w": jnp.ones(3, jnp.float32)})


def test_numerical_gradient_takes_float32_with_a_large_h():
    x = jnp.array([0.5, -1.5])
    grad = fn.numerical_gradient(lambda x: (x**2).sum(), x, h=1e-2)
    assert grad.dtype == np.float32
    np.testing.assert_allclose(grad, 2 * x, rtol=1e-3)


@pytest.mark.parametrize(
    ("x", "where"),
    [(3, "x must be"), ({"w": np.arange(3)}, "x at w must be"), ([True], "x at 0 must be")],
    ids=["int", "leaf", "bool"],
)
def test_numerical_gradient_refuses_leaves_that_are_not_floating(x, where, x64):
    with pytest.raises(TypeError, match=f"{where} floating point"):
        fn.numerical_gradient(lambda x: 0.0, x)


def test_numerical_gradient_wants_a_scalar_or_a_fitting_dout(x64):
    x = jnp.ones((2, 3))
    with pytest.raises(TypeError, match="scalar value, or dout must be given"):
        fn.numerical_gradient(lambda x: x, x)
    with pytest.raises(TypeError, match="scalar value, or dout must be given"):
        fn.numerical_gradient(lambda x: (x.sum(),), x)
    for dout in (jnp.ones((3, 2)), jnp.ones(()), (jnp.ones((2, 3)),)):
        with pytest.raises(ValueError, match="dout must have the tree structure and the shapes"):
            fn.numerical_gradient(lambda x: x, x, dout)
    for h in (0, -1e-5, NaN):
        with pytest.raises(ValueError, match=r"h must be (finite and )?> 0"):
            fn.numerical_gradient(lambda x: x.sum(), x, h=h)


# relative_error and scaled_error


def seeds_error(x, y):
    """Word for word from the assignment."""
    return np.max(np.abs(x - y) / (np.maximum(1e-8, np.abs(x) + np.abs(y))))


def test_relative_error_is_the_assignments(rng):
    x = rng.normal(size=(4, 5))
    y = x * (1 + 1e-6 * rng.normal(size=x.shape))
    error = fn.relative_error(x, y)
    assert isinstance(error, float)
    assert error == seeds_error(x, y)
    assert error == fn.relative_error(y, x)
    tiny = 1e-12 * x
    assert fn.relative_error(tiny, -tiny) == seeds_error(tiny, -tiny) < 1e-3
    assert fn.relative_error(0.0, 0.0) == 0
    assert fn.relative_error(3, 1) == 0.5


def test_relative_error_says_where():
    a = fn.FrozenDict(affine1={"w": np.ones((3, 4)), "b": np.ones(4)})
    b = a.set(("affine1", "w"), a["affine1"]["w"].at[2, 1].set(3)).set(
        ("affine1", "b"), a["affine1"]["b"].at[3].set(2)
    )
    error = fn.relative_error(a, b)
    assert error == 0.5
    assert (error.leaf, error.index) == ("affine1/w", (2, 1))
    assert set(error.leaves) == {"affine1/w", "affine1/b"}
    assert error.leaves["affine1/b"] == pytest.approx(1 / 3)
    assert error.leaves["affine1/b"].index == (3,)
    bare = fn.relative_error(np.ones((2, 3)), np.ones((2, 3)) + np.eye(2, 3, 1))
    assert (bare.leaf, bare.index) == ("", (0, 1))


def test_scaled_error_measures_by_the_leaf_and_by_the_tree():
    zero = {"a": np.array([100.0, 0.0]), "b": np.zeros(3), "c": np.array([0.5])}
    off = {"a": np.array([100.0, 2.0]), "b": np.array([0, 1e-3, 0]), "c": np.array([0.7])}
    error = fn.scaled_error(zero, off)
    np.testing.assert_allclose(error.leaves["a"], 2 / 100, rtol=1e-12)
    np.testing.assert_allclose(error.leaves["b"], 1e-3 / 0.1, rtol=1e-12)  # 1e-3 of the tree
    np.testing.assert_allclose(error.leaves["c"], 0.2 / 0.7, rtol=1e-12)
    assert (error.leaf, error.index) == ("c", (0,))
    assert error == fn.scaled_error(off, zero)
    assert fn.scaled_error({"w": np.zeros(3)}, {"w": np.zeros(3)}) == 0


@pytest.mark.parametrize("measure", [fn.relative_error, fn.scaled_error])
class TestBothMeasures:
    def test_nan_is_the_worst(self, measure):
        a = {"b": np.ones(2), "w": np.ones(3)}
        wrong = {"b": np.array([5.0, 1.0]), "w": np.array([1.0, NaN, 1.0])}
        for error in (measure(a, wrong), measure(wrong, a), measure(wrong, wrong)):
            assert np.isnan(error)
            assert not error <= 1e9
            assert error.leaf in "w b" if measure is fn.scaled_error else error.leaf == "w"

    def test_dict_against_frozen_dict(self, measure):
        tree = {"a": {"w": np.arange(3.0)}, "b": np.ones(2)}
        assert measure(tree, fn.freeze(tree)) == 0

    def test_paths_differ(self, measure):
        with pytest.raises(ValueError, match="only one of them has a/b, a/c"):
            measure({"a": {"b": 1.0}}, {"a": {"c": 1.0}})

    def test_shapes_differ(self, measure):
        with pytest.raises(ValueError, match=r"shapes differ at w: \[3\] and \[1\]"):
            measure({"w": np.ones(3)}, {"w": np.ones(1)})
        with pytest.raises(ValueError, match=r"shapes differ: \[2, 3\] and \[3\]"):
            measure(np.ones((2, 3)), np.ones(3))

    def test_nothing_to_compare(self, measure):
        assert measure({}, fn.FrozenDict()) == 0
        assert measure(np.ones((0, 3)), np.ones((0, 3))) == 0

    def test_narrow_dtypes_are_compared_in_float64(self, measure):
        a = jnp.array([1.0, 2.0], jnp.bfloat16)
        assert measure(a, jnp.array([1.0, 2.0])) == 0
        # In float32 the difference would be lost.
        assert 0 < measure(np.array([1 + 1e-12]), np.ones(1)) < 1e-11


# check_gradients


def setup(net=None, in_shape=(3,), n=4, seed=0):
    """A net with random float32 parameters, and a batch: x64 is off around these tests."""
    net = net or fn.mlp([5], 3)
    rng = np.random.default_rng(seed)
    params, state, out_shape = net.init(jax.random.key(seed), in_shape)
    params = jax.tree.map(lambda p: jnp.asarray(0.8 * rng.normal(size=p.shape), p.dtype), params)
    x = rng.normal(size=(n, *in_shape)).astype("f")
    return net, params, state, x, rng.integers(out_shape[0], size=n)


LINEAR = fn.serial(fn.affine(3))  # the fewest leaves: each is compiled by itself
NESTED = fn.serial(fn.serial(fn.affine(4), fn.relu()), fn.affine(2))
SOUND = {
    "softmax, nested, no reg": (setup(NESTED), {}),
    "svm, reg, rank 4": (
        setup(fn.mlp([4], 3), (2, 1, 3)),
        {"loss_fn": fn.svm_loss, "reg": 0.7, "train": False},
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_nets_pass(name):
    args, options = SOUND[name]
    assert not jax.config.jax_enable_x64
    report = fn.check_gradients(*args, **options)
    assert report.passed, str(report)
    assert report.failures == []
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == np.float32
    net, params, state, x, y = args
    assert {row.name for row in report.rows} == {
        *fn.relative_error(params, params).leaves,
        "input x",
    }
    by_name = {row.name: row for row in report.rows}
    assert by_name["input x"].shape == x.shape
    assert all(row.checked + row.kinks == np.prod(row.shape) for row in report.rows)
    assert all(row.autodiff <= 1e-12 and row.numerical <= 1e-7 for row in report.rows)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        np.testing.assert_allclose(
            report.loss, fn.loss(net, wide, state, x, y, **options), rtol=1e-14
        )


def test_it_works_inside_x64_and_leaves_it_on():
    with jax.enable_x64(True):
        assert fn.check_gradients(*setup(LINEAR), max_elements=3).passed
        assert jnp.ones(1).dtype == np.float64


def test_the_configuration_is_restored_after_an_error():
    net, params, state, x, y = setup()
    with pytest.raises(ValueError, match="one label per row"):
        fn.check_gradients(net, params, state, x, y[:2])
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == np.float32


def test_plain_params_and_pixels():
    net, params, _, x, y = setup(LINEAR)
    pixels = (10 * np.abs(x)).astype("uint8")
    report = fn.check_gradients(net, params.unfreeze(), {}, pixels, y)
    assert report.passed, str(report)


def planted(layer, change):
    """A layer whose backward pass has something wrong with it."""
    return layer._replace(backward=lambda dout, cache: change(*layer.backward(dout, cache)))


def nudge(array, index):
    """One element moved by 1e-6 of the array's size."""
    return array.at[index].add(1e-6 * jnp.abs(array).max())


def wrong_net():
    """One element of each of four gradients is wrong, by a millionth."""

    def first(dx, grads):
        grads = grads.set("w", nudge(grads["w"], (2, 1)))
        return nudge(dx, (3, 1)), grads.set("b", nudge(grads["b"], 4))

    def last(dx, grads):
        return dx, grads.set("w", nudge(grads["w"], (0, 2)))

    return fn.serial(planted(fn.affine(5), first), fn.relu(), planted(fn.affine(3), last))


WRONG = ["affine1/b[4]", "affine1/w[2, 1]", "affine2/w[0, 2]", "input x[3, 1]"]


def test_single_wrong_elements_are_caught_and_named():
    report = fn.check_gradients(*setup(wrong_net()))
    assert not report.passed
    places = [line.split(" differs from ")[0] for line in report.failures]
    assert places == [place for place in WRONG for _ in ("autodiff", "numerical")]
    for row in report.rows:
        if row.name != "affine2/b":
            assert row.autodiff == pytest.approx(1e-6, rel=1e-4)
            assert row.numerical == pytest.approx(1e-6, rel=0.1)
            assert f"{row.name}{list(row.autodiff.index)}" in WRONG
    right = {row.name: row for row in report.rows}["affine2/b"]
    assert right.autodiff <= 1e-12
    assert right.numerical <= 1e-7
    assert "GRADIENTS DISAGREE" in str(report)
    assert all(line in str(report) for line in report.failures)


def test_a_nan_gradient_fails():
    broken = planted(fn.affine(3), lambda dx, g: (dx, g.set("b", g["b"] * jnp.nan)))
    report = fn.check_gradients(*setup(fn.serial(broken)), max_elements=2)
    assert not report.passed
    assert any(line.startswith("affine1/b[0]") for line in report.failures)


def test_kinks_are_counted_and_do_not_fail():
    """Behind a dead layer and zero biases every unit sits exactly on its kink."""
    net, params, state, x, y = setup(fn.mlp([4, 5], 3))
    params = params.set(("affine1", "b"), jnp.full(4, -1e3)).set(("affine2", "b"), jnp.zeros(5))
    report = fn.check_gradients(net, params, state, x, y, reg=0.1)
    assert report.passed, str(report)
    rows = {row.name: row for row in report.rows}
    assert rows["affine2/b"].kinks == 5
    assert rows["affine2/b"].checked == 0
    assert sum(row.kinks for row in report.rows) == 5
    assert "0 (5 on kinks)" in str(report)


def test_a_kink_nearby_does_not_fail():
    """Units within the step of their kink: the differences are taken again, finer."""
    net, params, state, x, y = setup(fn.mlp([5], 3))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        x = np.asarray(x, np.float64)
        pre = x[0] @ np.asarray(params["affine1"]["w"])
        params = params.set(("affine1", "b"), jnp.asarray(3e-6 - pre))
    report = fn.check_gradients(net, params, state, x, y)
    assert report.passed, str(report)
    assert not any(row.kinks for row in report.rows)


def test_max_elements_and_the_table():
    report = fn.check_gradients(*setup(), max_elements=4)
    assert report.passed
    assert {row.name: row.checked for row in report.rows} == {
        "affine1/b": 4,
        "affine1/w": 4,
        "affine2/b": 3,
        "affine2/w": 4,
        "input x": 4,
    }
    lines = str(report).splitlines()
    assert lines[0].split() == [
        *("leaf", "shape", "autodiff", "numerical", "relative", "worst", "element", "checked")
    ]
    assert [line.split("  ")[0] for line in lines[1:-1]] == [
        *("affine1/b", "affine1/w", "affine2/b", "affine2/w", "input x")
    ]
    assert "3 x 5" in lines[2]
    assert lines[-1].startswith("all gradients agree (tolerance 1e-12 against autodiff, 1e-07")
    starts = [line.index(cell) for line, cell in zip(lines[:2], ("shape", "5 "), strict=True)]
    assert starts[0] == starts[1]


def test_max_elements_does_not_limit_autodiff():
    report = fn.check_gradients(*setup(wrong_net()), max_elements=1)
    assert [line.split(" by ")[0] for line in report.failures] == [
        f"{place} differs from autodiff" for place in WRONG
    ]


@pytest.mark.parametrize(("most", "kind"), [(0, ValueError), (-1, ValueError), (2.5, TypeError)])
def test_max_elements_must_be_a_count(most, kind):
    with pytest.raises(kind, match="max_elements must be"):
        fn.check_gradients(*setup(), max_elements=most)


def test_tolerances_are_kept():
    report = fn.check_gradients(*setup(LINEAR), tol_numerical=1e-9, h=1.0, max_elements=3)
    assert not report.passed
    assert all("numerical" in line and "1e-09 is allowed" in line for line in report.failures)
    assert (report.tol_autodiff, report.tol_numerical) == (1e-12, 1e-9)


@pytest.mark.slow
def test_rounding_of_a_large_loss_is_no_disagreement(rng):
    """The penalty dwarfs the gradient with respect to x, which drowns in its rounding."""
    net = fn.mlp([20, 30], 10, weight_scale=2e-2)
    params, state, _ = net.init(jax.random.key(0), (8,))
    params = jax.tree.map(lambda p: p + 10, params)
    x, y = rng.normal(size=(5, 8)), np.arange(5)
    report = fn.check_gradients(net, params, state, x, y, reg=3e4)
    assert report.loss > 1e6
    assert report.passed, str(report)


def test_empty_leaves_have_empty_gradients(x64):
    grads = fn.numerical_gradient(
        lambda t: (t["a"] ** 2).sum() + t["b"].sum(), {"a": np.ones(2), "b": np.zeros((0, 3))}
    )
    assert grads["b"].shape == (0, 3)
    np.testing.assert_allclose(grads["a"], 2, rtol=1e-8)


def test_complex_arrays_are_refused():
    with pytest.raises(TypeError, match="must be real"):
        fn.relative_error(np.array([1j]), np.array([2j]))
