"""What layers cost: counts against numbers worked out by hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run

import funcnet as fn
from funcnet.recipes import build_preprocess

FLOAT = 4  # bytes


def by_name(net, in_shape, **given):
    found = fn.summarize(net, in_shape, **given)
    return {row.name: row for row in found.rows}, found


def test_an_mlp_by_hand():
    rows, found = by_name(fn.mlp([100], 10), (8, 8), optimizer=fn.adam(1e-3))
    assert list(rows) == ["affine1", "relu1", "affine2"]
    first, relu, last = rows.values()
    assert [row.out_shape for row in rows.values()] == [(100,), (100,), (10,)]
    assert [row.parameters for row in rows.values()] == [64 * 100 + 100, 0, 100 * 10 + 10]
    assert first.forward_flop == 2 * 64 * 100 + 100
    assert first.step_flop == first.forward_flop + 2 * 64 * 100 + 100  # dw, db; no dx
    assert last.forward_flop == 2 * 100 * 10 + 10
    assert last.step_flop == last.forward_flop + 2 * (2 * 100 * 10) + 10  # dx, dw, db
    assert (relu.forward_flop, relu.step_flop) == (100, 200)
    assert first.kept_bytes == 64 * FLOAT  # the input
    assert relu.kept_bytes + last.kept_bytes == 2 * 100 * FLOAT  # before relu, and after it
    total = found.total
    assert (total.name, total.parameters, total.out_shape) == ("", 7510, (10,))
    for name in ("parameters", "forward_flop", "step_flop", "kept_bytes"):
        assert getattr(total, name) == sum(getattr(row, name) for row in rows.values())
    assert found.params_bytes == 7510 * FLOAT
    assert found.optimizer_bytes == 2 * 7510 * FLOAT + 4  # m, v and the step
    assert (found.state_bytes, found.in_shape) == (0, (8, 8))


def test_updates_by_hand():
    _, found = by_name(fn.affine(3), (2,), optimizer=fn.sgd(0.1))
    assert 9 <= found.update_flop <= 9 + 3  # -rate * dw, and the rate and the step
    assert found.optimizer_bytes == 4
    momentum = fn.summarize(fn.affine(3), (2,), optimizer=fn.sgd_momentum(0.1))
    assert 3 * 9 <= momentum.update_flop <= 3 * 9 + 3  # momentum * velocity - rate * dw
    assert momentum.optimizer_bytes == 9 * FLOAT + 4
    none = fn.summarize(fn.affine(3), (2,))
    assert (none.update_flop, none.optimizer_bytes) == (0, 0)
    assert "optimizer" not in str(none)


def test_one_layer_alone_is_a_row():
    rows, found = by_name(fn.affine(3), (2,))
    assert list(rows) == ["affine"]
    assert found.total == rows["affine"]._replace(name="")
    assert found.total.forward_flop == 2 * 2 * 3 + 3


def test_normalization_and_dropout():
    net = fn.mlp([16], 3, normalization="batchnorm", keep_prob=0.5)
    rows, found = by_name(net, (5,))
    assert list(rows) == ["affine1", "batchnorm1", "relu1", "dropout1", "affine2"]
    norm = rows["batchnorm1"]
    assert norm.forward_flop == 4 * 16  # (x - mean) / std * gamma + beta
    assert norm.parameters == 2 * 16
    assert norm.kept_bytes == 16 * FLOAT  # xhat
    assert found.state_bytes == 2 * 16 * FLOAT
    assert rows["dropout1"].forward_flop == 0
    assert rows["dropout1"].step_flop > 0


def test_residual_blocks_and_those_inside_one_another():
    block = fn.residual(fn.affine(8), fn.relu(), fn.residual(fn.affine(8)))
    rows, found = by_name(fn.serial(fn.affine(8), block, fn.affine(2)), (4,))
    assert list(rows) == [
        "affine1",
        "residual1",
        "residual1/affine1",
        "residual1/relu1",
        "residual1/residual1",
        "residual1/residual1/affine1",
        "affine2",
    ]
    affine = 2 * 8 * 8 + 8
    inner, outer = rows["residual1/residual1"], rows["residual1"]
    assert inner.forward_flop == affine + 8
    assert outer.forward_flop == (affine + 8) + affine + 8 + 8
    assert (inner.parameters, outer.parameters) == (72, 144)
    step = 3 * 2 * 8 * 8 + 2 * 8  # forward, dw, dx; b, db
    assert inner.step_flop == step + 2 * 8
    text = str(found).splitlines()
    assert text[5].startswith("  residual1 ")
    assert text[6].startswith("    affine1 ")


def test_what_no_gradient_needs_is_not_counted():
    net = fn.serial(fn.relu(), fn.affine(3))
    rows, _ = by_name(net, (5,))
    assert rows["relu1"].step_flop == 5  # forward alone: nobody asks for dx
    assert rows["affine1"].step_flop == 2 * (2 * 5 * 3) + 2 * 3


@pytest.mark.parametrize("make", [fn.stacked, lambda net, k: fn.ensemble(*[net] * k)])
def test_members_side_by_side_cost_as_many_times_as_much(make):
    net = fn.mlp([8], 3)
    one, several = fn.summarize(net, (4,)).total, fn.summarize(make(net, 5), (4,)).total
    assert several.parameters == 5 * one.parameters
    assert several.forward_flop == 5 * one.forward_flop
    assert several.step_flop == 5 * one.step_flop
    assert several.out_shape == (5, 3)


def test_members_have_rows():
    rows, _ = by_name(fn.ensemble(fn.mlp([8], 3), fn.affine(3)), (4,))
    assert list(rows) == [
        "serial1",
        "serial1/affine1",
        "serial1/relu1",
        "serial1/affine2",
        "affine1",
    ]
    kept = [rows[name].kept_bytes for name in ("serial1/affine1", "affine1")]
    assert kept == [4 * FLOAT, 0]  # one and the same input
    rows, _ = by_name(fn.stacked(fn.mlp([8], 3), 5), (4,))
    assert rows["affine1"].parameters == 5 * (4 * 8 + 8)
    assert rows["affine1"].out_shape == (8,)


NETS = {
    "tabm": fn.tabm([8], 3, members=4),
    "mini": fn.tabm([8], 3, members=4, mini=True),
    "pbld": fn.serial(fn.on_columns([0, 2], fn.pbld()), fn.mlp([8], 3)),
    "categories": fn.serial(fn.on_columns([1, 2, 3], fn.embed_categories([1, 2], 4)), fn.affine(3)),
    "prelu": fn.serial(fn.affine(8), fn.prelu(), fn.affine(3)),
    "scheduled": fn.mlp([8], 3, keep_prob=fn.constant(0.5)),
    "layernorm": fn.mlp([8], 3, normalization="layernorm", activation="mish"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_rows_add_up_whatever_the_net(name):
    net = NETS[name]
    params, state, out_shape = net.init(jax.random.key(0), (5,))
    rows, found = by_name(net, (5,), optimizer=fn.adam(1e-3))
    outer = [row for row in rows.values() if "/" not in row.name]
    for field in ("parameters", "forward_flop", "step_flop", "kept_bytes"):
        assert sum(getattr(row, field) for row in outer) == getattr(found.total, field), field
    leaves = jax.tree.leaves(params)
    assert found.total.parameters == sum(leaf.size for leaf in leaves)
    assert found.params_bytes == sum(leaf.nbytes for leaf in leaves)
    assert found.state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert found.total.out_shape == out_shape
    assert all(row.forward_flop <= row.step_flop for row in rows.values())
    opt_state = fn.adam(1e-3).init(params)
    assert found.optimizer_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state))


def scale_forward(x, w):
    return x * w, (x, w)


def scale_backward(dout, cache):
    x, w = cache
    return dout * w, (dout * x).sum(axis=0)


def init_scale(key, in_shape):
    return {"w": jnp.ones(in_shape)}, {}, in_shape


def test_layers_of_ones_own_and_loops_in_them():
    scale = fn.make_layer("scale", scale_forward, scale_backward, init_scale, names=["w"])

    def forward(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: x * 2, x), None

    double = fn.make_layer("double", forward, lambda dout, cache: dout * 8)
    total = fn.make_layer("total", lambda x: (x.sum(axis=1), None), lambda dout, cache: dout)
    assert fn.summarize(total, (6,)).total.forward_flop == 5
    rows, _ = by_name(fn.serial(fn.affine(6), scale, double, fn.affine(2)), (4,))
    assert rows["scale1"].forward_flop == 6
    assert rows["scale1"].step_flop == 6 + 6 + 2 * 6
    assert rows["scale1"].parameters == 6
    assert rows["double1"].forward_flop == 3 * 6
    assert rows["double1"].step_flop == 3 * 6 + 6


SUM = jnp.ones((3, 4, 5))
KERNEL = jnp.ones((2, 3, 3))  # [out, in, width]
ONES = {  # of x [N, 3, 4], with operations of an example
    "a product over two axes": (lambda x: jnp.tensordot(x, SUM, 2), 2 * 3 * 4 * 5),
    "a result that is left": (lambda x: jax.jit(lambda x: (2 * x, jnp.sin(x)))(x)[0], 3 * 4),
    "what is added to some": (lambda x: x.at[:, 0].add(x[:, 1]), 4),
    "a reduction of one's own": (
        lambda x: jax.lax.reduce(x, jnp.float32(1), lambda a, b: a * b + 1, (1, 2)),
        3 * 4 - 1,
    ),
    "a convolution": (lambda x: jax.lax.conv(x, KERNEL, (1,), "VALID"), 2 * (2 * 2) * (3 * 3)),
    "branches": (lambda x: jax.lax.cond(x[0, 0, 0] > 0, jnp.sin, lambda x: 2 * x, x), 2 * 3 * 4),
}


@pytest.mark.parametrize("name", ONES)
def test_operations_by_hand(name):
    function, count = ONES[name]
    own = fn.make_layer("own", lambda x: (function(x), x), lambda dout, x: x)
    assert fn.summarize(own, (3, 4)).total.forward_flop == count


def test_nothing_is_computed():
    net = fn.mlp([10**6], 10**6)  # 4 TB of parameters
    found = fn.summarize(net, (10**5,), optimizer=fn.adam(1e-3))
    assert found.total.parameters == 10**5 * 10**6 + 10**6 + 10**12 + 10**6
    assert "TiB" in str(found)


@pytest.mark.slow
def test_counts_are_about_those_of_xla():
    net = fn.mlp([64, 32], 10)
    params, state, _ = net.init(jax.random.key(0), (20,))

    def predict(x):
        return net.forward(params, state, x, key=None, train=False)[0]

    cost = jax.jit(predict).lower(jnp.zeros((100, 20))).compile().cost_analysis()
    found = fn.summarize(net, (20,)).total.forward_flop
    np.testing.assert_allclose(cost["flops"] / 100, found, rtol=0.03)


@pytest.mark.parametrize(
    ("net", "in_shape", "error", "match"),
    [
        (3, (4,), TypeError, "net must be a Layer"),
        (fn.affine(3), 4, TypeError, "in_shape must be a shape"),
        (fn.affine(3), (0,), ValueError, "every size in in_shape"),
        (fn.residual(fn.affine(3)), (4,), ValueError, "must keep the shape"),
    ],
)
def test_wrong_arguments(net, in_shape, error, match):
    with pytest.raises(error, match=match):
        fn.summarize(net, in_shape)


# The command


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_command_shows_what_train_trains(inside):
    code, out, err = run("summary", "--hidden-dims", 8, 4, "--optimizer", "sgd_momentum")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert [line.split()[0] for line in lines[1:7]] == [
        "affine1",
        "relu1",
        "affine2",
        "relu2",
        "affine3",
        "in",
    ]
    code, out, _ = run("summary", "--hidden-dims", 8, 4, "--optimizer", "sgd_momentum", "--json")
    found = json.loads(out)
    assert found["total"]["parameters"] == (64 * 8 + 8) + (8 * 4 + 4) + (4 * 10 + 10)
    assert found["optimizer_bytes"] == found["params_bytes"] + 4
    assert found["rows"][0]["forward_flop"] == 2 * 64 * 8 + 8
    assert not list(Path().iterdir())


def test_the_command_fits_no_preprocessing(inside, monkeypatch):
    shapes = {"mean": 64, "whiten": 64, "whiten=20": 20}
    for step, features in shapes.items():
        fitted = build_preprocess(fn.Config(preprocess=(step,)))(fn.load_digits().x_train[:90])
        assert fitted(np.zeros((1, 8, 8))).size == features
    monkeypatch.setattr(np.linalg, "eigh", None)
    for step, features in shapes.items():
        code, out, _ = run("summary", "--preprocess", step, "--hidden-dims", "--json")
        assert code == 0
        assert json.loads(out)["total"]["parameters"] == features * 10 + 10
    code, _, err = run("summary", "--preprocess", "whiten=99")
    assert code == 2
    assert "--preprocess whiten=99: dim must be at most 64" in err


@pytest.mark.slow
def test_the_command_takes_a_table_and_a_run(inside):
    lines = [f"{i}.5,{i % 7},{'xy'[i % 2]}" for i in range(60)]
    Path("t.csv").write_text("\n".join(["a,b,kind", *lines]) + "\n")
    options = ("--dataset", "t.csv", "--hidden-dims", 8, "--embedding", "none", "--epochs", 1)
    code, out, _ = run("summary", *options, "--json")
    assert code == 0
    assert run("train", *options, "--out", "r", "--quiet")[0] == 0
    code, again, _ = run("summary", "r", "--json")
    assert (code, json.loads(again)) == (0, json.loads(out))


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (("nowhere",), "nowhere is no run directory"),
        (("t.csv",), "t.csv is no run directory"),
        (("t.csv", "--epochs", "3"), "--epochs is not for a RUN"),
        (("--dataset", "missing.csv"), "missing.csv: No such file"),
        (("--hiden-dims", "3"), "did you mean --hidden-dims"),
    ],
)
def test_wrong_options_are_a_line(inside, argv, match):
    Path("t.csv").write_text("a,b\n1,2\n")
    code, _, err = run("summary", *argv)
    assert code == 2
    assert match in err
    assert len(err.splitlines()) == 1
