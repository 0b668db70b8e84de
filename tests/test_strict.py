"""The core with JAX set to promote nothing, as strict code has it: it runs, and gives the same.

Each public function is run by a row of CALLS; layers and losses come from the registries.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet import (
    activations,
    embeddings,
    ensembles,
    gradcheck,
    layers,
    losses,
    members,
    net,
    objective,
    piecewise,
    rectifiers,
    tabular,
    tree,
)

pytestmark = pytest.mark.usefixtures("strict", "x64", "unoptimized")

key = jax.random.key(231)
MODULES = [activations, embeddings, ensembles, gradcheck, layers]
MODULES += [losses, members, net, objective, piecewise, rectifiers, tabular, tree]
DTYPES = ["bfloat16", "float32", "float64"]


def draw(shape, dtype="float64", seed=0):
    return jnp.asarray(0.3 + 1.7 * np.random.default_rng(seed).normal(size=shape), dtype)


def by_pair(name, *options, **named):
    """A function of inputs: the output of a pair, and the gradients of what it is given."""
    forward, backward = getattr(fn, f"{name}_forward"), getattr(fn, f"{name}_backward")

    def both(*inputs):
        out, cache, *state = forward(*inputs, *options, **named)
        return out, state, backward(draw(out.shape, out.dtype, seed=1), cache)

    return both


def judged(name):
    """Autodiff of the forward pass, and of the pair as one function."""
    forward, backward = getattr(fn, f"{name}_forward"), getattr(fn, f"{name}_backward")
    own = fn.with_custom_vjp(forward, backward)

    def both(*inputs):
        autodiff = jax.grad(lambda *v: forward(*v)[0].sum())(*inputs)
        return autodiff, jax.grad(lambda *v: own(*v).sum())(*inputs)

    return both


def images(dtype):
    return (draw((4, 2, 3), dtype),)


def affine(dtype):
    return *images(dtype), draw((6, 5), dtype), draw(5, dtype)


def affine_of_pixels(dtype):
    return np.arange(24, dtype="uint8").reshape(4, 2, 3), *affine(dtype)[1:]


def norm(dtype):
    return *images(dtype), draw((2, 3), dtype), draw((2, 3), dtype)


def running_norm(dtype):
    """With statistics of another dtype."""
    other = "float64" if dtype == "float32" else "float32"
    moments = {"mean": draw((2, 3), other), "var": draw((2, 3), other) ** 2}
    return *norm(dtype), fn.freeze(moments)


def inputs(*shapes):
    """Arrays of these shapes, a function of the dtype."""
    return lambda dtype: tuple(draw(shape, dtype) for shape in shapes)


EDGES = np.array([[-1, 0, 1.5, 2], [0, 0, 1, 2], [0, 0.7, 0.7, 2]])


def scores(dtype):
    return (draw((4, 3), dtype),)


LABELS = np.array([0, 2, 1, 1])
LABEL_DTYPES = ["uint8", "int32", "int64"]


def params(dtype):
    leaf = partial(draw, dtype=dtype)
    return (fn.FrozenDict(affine1={"w": leaf((3, 2)), "b": leaf(2)}, affine2={"w": leaf(2)}),)


def mixed_params(dtype):
    """Each leaf of a dtype of its own."""
    leaves = {name: {"w": draw((3, 2), name), "b": draw(2, dtype)} for name in DTYPES}
    return (fn.freeze(leaves),)


# For each name what it is given, a function of the dtype, and a function of that.
CALLS = {
    "affine": (affine, by_pair("affine")),
    "affine, pixels": (affine_of_pixels, by_pair("affine")),
    "affine, rounded": (affine, by_pair("affine", matmul_dtype="bfloat16")),
    "affine_relu": (affine, by_pair("affine_relu")),
    "affine, judged": (affine, judged("affine")),
    "relu": (images, by_pair("relu")),
    "leaky_relu": (images, by_pair("leaky_relu", 0.3)),
    "gelu": (images, by_pair("gelu")),
    "gelu, judged": (images, judged("gelu")),
    "gelu_tanh": (images, by_pair("gelu_tanh")),
    "gelu_tanh, judged": (images, judged("gelu_tanh")),
    "tanh": (images, by_pair("tanh")),
    "logistic": (images, by_pair("logistic")),
    "selu": (images, by_pair("selu")),
    "mish": (images, by_pair("mish")),
    "mish, judged": (images, judged("mish")),
    "prelu": (lambda dtype: norm(dtype)[:2], by_pair("prelu")),
    "parametric": (lambda d: (*images(d), *images(d), draw((2, 3), d)), by_pair("parametric")),
    "flatten": (images, by_pair("flatten")),
    "column_scale": (lambda dtype: norm(dtype)[:2], by_pair("column_scale")),
    "ntk_affine": (affine, by_pair("ntk_affine")),
    "column_affine": (inputs((4, 6), (3, 2, 5), (3, 5)), by_pair("column_affine")),
    "periodic": (inputs((4, 3), (3, 2), (3, 4, 5), (3, 5)), by_pair("periodic")),
    "periodic, judged": (inputs((4, 3), (3, 2), (3, 4, 5), (3, 5)), judged("periodic")),
    "pbld": (inputs((4, 3), (3, 2), (3, 2), (3, 2, 5), (3, 5)), by_pair("pbld")),
    "piecewise_linear": (inputs((4, 3)), by_pair("piecewise_linear", EDGES)),
    "piecewise_linear, traced": (
        lambda dtype: (*inputs((4, 3))(dtype), EDGES.astype("f")),
        by_pair("piecewise_linear"),
    ),
    "embed_categories": (inputs((4, 6), (6, 5)), by_pair("embed_categories", sizes=(2, 3, 1))),
    "quantile_edges": (lambda dtype: (), lambda: jnp.asarray(fn.quantile_edges(EDGES, 2))),
    "member_scale": (inputs((4, 5), (3, 5)), by_pair("member_scale")),
    "batch_ensemble_affine": (
        inputs((4, 5), (5, 3), (2, 5), (2, 3), (2, 3)),
        by_pair("batch_ensemble_affine"),
    ),
    "shared_affine": (inputs((3, 2, 4), (4, 5), (5,)), by_pair("shared_affine")),
    "member_affine": (inputs((4, 5), (2, 5, 3), (2, 3)), by_pair("member_affine")),
    "batchnorm": (running_norm, by_pair("batchnorm", train=True, momentum=0.5)),
    "batchnorm evaluated": (running_norm, by_pair("batchnorm", train=False, eps=1e-3)),
    "layernorm": (norm, by_pair("layernorm")),
    "layernorm, judged": (norm, judged("layernorm")),
    "dropout": (images, by_pair("dropout", key, 0.7, train=True)),
    "dropout evaluated": (images, by_pair("dropout", None, 0.7, train=False)),
    **{
        f"{f.__name__}, {dtype} labels": (scores, lambda s, f=f, d=dtype: f(s, LABELS.astype(d)))
        for f in (fn.softmax_loss, fn.svm_loss)
        for dtype in LABEL_DTYPES
    },
    "soft targets": (scores, lambda s: fn.softmax_loss(s, fn.smooth_labels(LABELS, 3, 0.1))),
    "sigmoid_loss": (scores, lambda s: fn.sigmoid_loss(s, draw((4, 3), "bfloat16"), LABELS)),
    "narrow targets": (scores, lambda s: fn.softmax_loss(s, draw((4, 3), "bfloat16"))),
    "l2_penalty": (params, lambda p: fn.l2_penalty(p, 0.3)),
    "l2_penalty, mixed": (mixed_params, lambda p: fn.l2_penalty(p, 0.3)),
    "l2_penalty, judged": (
        mixed_params,
        jax.grad(lambda p: fn.l2_penalty(p, 0.3)[0].astype("float64")),
    ),
    "freeze": (params, lambda p: fn.freeze(fn.unfreeze(p)).set(("affine2", "w"), jnp.zeros(2))),
}


def check(function, *args):
    """Run a function, compiled and not, and compare with JAX as it comes, bit for bit."""
    for trace in (lambda f: f, jax.jit):
        found = trace(lambda *args: function(*args))(*args)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            expected = trace(lambda *args: function(*args))(*args)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", slow_but(DTYPES, "float32"))
@pytest.mark.parametrize("name", CALLS)
def test_arrays(name, dtype):
    make, function = CALLS[name]
    check(function, *make(dtype))


NETS = {
    **net.ACTIVATIONS,
    **net.NORMALIZATIONS,
    "leaky_relu": lambda: fn.leaky_relu(np.float64(0.2)),
    "parametric": lambda: fn.parametric("prelu", rate=np.float64(0.1)),
    "flatten": fn.flatten,
    "column_scale": lambda: fn.column_scale(rate=np.float64(6)),
    "ntk_affine": lambda: fn.ntk_affine(6, bias_scale=np.float64(0.1), bias_rate=np.float64(0.1)),
    "column_affine": lambda: fn.column_affine(2, columns=3),
    "periodic": lambda: fn.periodic(2, k=3, sigma=np.float64(0.1)),
    "pbld": lambda: fn.pbld(2, k=3, sigma=np.float64(0.1), rate=np.float64(0.1)),
    "piecewise_linear": lambda: fn.piecewise_linear(np.tile(EDGES, (2, 1)), 2),
    "embed_categories": lambda: fn.embed_categories([2, 4], 2, weight_scale=np.float64(0.1)),
    "on_columns": lambda: fn.on_columns([4, 1], fn.serial(fn.affine(3), fn.batchnorm())),
    "member_scale": lambda: fn.member_scale(2),
    "batch_ensemble_affine": lambda: fn.batch_ensemble_affine(3, 2, weight_scale=np.float64(0.1)),
    "shared_affine": lambda: fn.serial(fn.member_scale(2, r_init="normal"), fn.shared_affine(3)),
    "member_affine": lambda: fn.member_affine(3, 2),
    "tabm": lambda: fn.tabm([4], 3, members=2, keep_prob=0.7),
    "ensemble": lambda: fn.ensemble(fn.affine(3), fn.mlp([4], 3, keep_prob=0.7)),
    "stacked": lambda: fn.stacked(fn.mlp([4], 3, normalization="batchnorm", keep_prob=0.7), 2),
    "batchnorm": lambda: fn.batchnorm(momentum=np.float64(0.9), eps=np.float64(1e-3)),
    "dropout": lambda: fn.dropout(0.7),
    "dropout, by a schedule": lambda: fn.dropout(fn.complement(np.float64(0.3))),
    "affine": lambda: fn.affine(6, weight_scale=np.float64(0.1)),
    "affine, rounded": lambda: fn.affine(6, weight_scale="glorot", matmul_dtype="bfloat16"),
    "serial": lambda: fn.serial(fn.affine(6), fn.serial(fn.tanh()), fn.residual(fn.affine(6))),
    "residual": lambda: fn.residual(fn.dropout(0.5), fn.affine(6), fn.residual(fn.gelu())),
    "mlp": lambda: fn.mlp([5], 6, normalization="batchnorm", keep_prob=0.7, input_keep_prob=0.9),
}


# Whose initial values are looked at each time.
SOME = {*net.ACTIVATIONS, *net.NORMALIZATIONS, "dropout", "affine", "affine, rounded"}
SOME |= {"serial", "residual", "mlp", "ntk_affine", "pbld"}


def first_and_last(layer, dtype):
    """A net of the layer and an affine one, its parameters and state."""
    whole = fn.serial(layer, fn.affine(3))
    params, state, _ = whole.init(key, (6,))
    cast = partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
    return whole, cast(params), cast(state)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("name", NETS)
def test_nets(name, dtype):
    whole, params, state = first_and_last(NETS[name](), dtype)
    for loss_fn, train, x in (
        (fn.softmax_loss, True, draw((4, 6))),
        (fn.svm_loss, False, np.arange(24, dtype="uint8").reshape(4, 6)),
    ):
        options = {"reg": 0.3, "key": key, "train": train, "loss_fn": loss_fn}

        def both(params, state, x=x, options=options):
            by_hand = fn.loss_and_grads(whole, params, state, x, LABELS, **options)
            return by_hand, fn.loss(whole, params, state, x, LABELS, **options)

        check(both, params, state)


@pytest.mark.parametrize("name", slow_but(NETS, *SOME))
def test_init(name):
    check(lambda key: NETS[name]().init(key, (6,))[:2], key)


def casting(dtype, back):
    """A layer that casts to a dtype, and the gradients to another one."""
    return net.make_layer(
        "cast", lambda x: (x.astype(dtype), ()), lambda dout, cache: dout.astype(back)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_nets_of_several_dtypes(dtype):
    """The loss is wider than the penalty, and a branch narrower than the block."""
    block = fn.residual(casting("bfloat16", "bfloat16"))
    whole = fn.serial(block, fn.affine(3), casting("float64", dtype))
    params, state, _ = whole.init(key, (6,))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def both(params):
        by_hand = fn.loss_and_grads(whole, params, state, draw((4, 6)), LABELS, reg=0.3)
        return by_hand, fn.loss(whole, params, state, draw((4, 6)), LABELS, reg=0.3)

    check(both, params)
    check(partial(objective.as_input, draw(3, "float32")), {"a": draw(2), "b": draw(2, dtype)})


def test_a_residual_of_pixels():
    block = fn.residual(fn.affine(6))
    params, state, _ = block.init(key, (6,))
    x, dout = np.arange(24, dtype="uint8").reshape(4, 6), np.asarray(draw((4, 6)))

    def both(params):
        out, cache, _ = block.forward(params, state, x)
        return out, block.backward(dout, cache)

    check(both, params)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loss_fn"), [("mlp", fn.softmax_loss), ("serial", fn.svm_loss)])
def test_check_gradients(name, loss_fn):
    whole, params, state = first_and_last(NETS[name](), "float32")
    options = {"reg": 0.1, "key": key, "loss_fn": loss_fn, "max_elements": 2}
    report = fn.check_gradients(whole, params, state, draw((4, 6)), LABELS, **options)
    assert report.passed, report
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        same = fn.check_gradients(whole, params, state, draw((4, 6)), LABELS, **options)
    assert str(report) == str(same)


def test_numerical_gradients():
    def f(x):
        narrow = jnp.sin(x["narrow"])
        return {"a": jnp.square(x["wide"]), "b": narrow, "c": narrow[0]}

    x = {"wide": draw((2, 3)), "narrow": draw(4, "float32")}
    dout = {"a": np.asarray(draw((2, 3)), "f"), "b": draw(4), "c": jnp.float32(2)}

    def gradients():
        whole = fn.numerical_gradient(f, x, dout, h=1e-2)
        scalar = fn.numerical_gradient(lambda v: jnp.square(v).sum(), draw((2, 3)))
        return whole, scalar, fn.numerical_gradient(lambda v: 0.5, draw(2))

    found = gradients()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = gradients()
    for measure in (fn.relative_error, fn.scaled_error):
        assert measure(found, expected) == 0
        assert measure(params("float32")[0], params("float64")[0]) < 1e-6


def test_every_public_function_is_run():
    core = {module.__name__ for module in MODULES}
    public = [getattr(fn, name) for name in fn.__all__]
    names = {f.__name__ for f in public if inspect.isfunction(f) and f.__module__ in core}
    names = {name.removesuffix("_forward").removesuffix("_backward") for name in names}
    run = {name.split(",")[0] for name in (*CALLS, *NETS)}
    assert names - run <= {
        *("loss", "loss_and_grads", "with_custom_vjp", "smooth_labels", "unfreeze"),
        *("make_layer", "make_stateful_layer", "smooth_binary_labels"),
        *("check_gradients", "numerical_gradient", "relative_error", "scaled_error"),
    }
