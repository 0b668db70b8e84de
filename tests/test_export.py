"""Models out of here: what other libraries compute from the files is what we do, to 1e-5."""

import dataclasses
import functools
import importlib
import inspect
import json
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run
from marks import slow_but

import funcnet as fn
from funcnet.activations import ACTIVATIONS
from funcnet.datasets.encoding import Encoding, Feature
from funcnet.embeddings import EMBEDDINGS
from funcnet.export.exported import FORMATS
from funcnet.export.plain import EXAMPLES
from funcnet.export.to_jax import PLATFORMS
from funcnet.export.to_onnx import facts
from funcnet.net import NORMALIZATIONS
from funcnet.preprocess import KINDS

RNG = np.random.default_rng(0)
EDGES = fn.quantile_edges(RNG.normal(size=(50, 6)), 5)
PLAIN = fn.mlp([5], 3)
# A net for every function of the package that makes layers; those behind an affine layer as well.
LAYERS = {
    **{name: fn.mlp([5], 3, activation=name) for name in ACTIVATIONS},
    **{name: fn.mlp([5], 3, normalization=name) for name in NORMALIZATIONS},
    "mlp": fn.mlp([5], 3, keep_prob=0.5, matmul_dtype=jnp.bfloat16),
    "affine": fn.affine(3),
    "flatten": fn.serial(fn.flatten(), fn.affine(3)),
    "dropout": fn.mlp([5], 3, keep_prob=fn.constant(0.5)),
    "residual": fn.serial(fn.residual(fn.affine(6), fn.residual(fn.gelu())), fn.affine(3)),
    "serial": fn.serial(fn.serial(fn.affine(4)), fn.affine(3)),
    "parametric": fn.mlp([5], 3, activation=fn.parametric("prelu", rate=0.1)),
    "column_scale": fn.serial(fn.column_scale(rate=2.0), fn.affine(3)),
    "ntk_affine": fn.serial(fn.ntk_affine(3)),
    "embed_categories": fn.serial(fn.embed_categories([2, 4], 3), fn.affine(3)),
    "on_columns": fn.serial(fn.on_columns([1, 3], fn.pbld(3)), fn.affine(3)),
    "column_affine": fn.serial(fn.column_affine(3, columns=6), fn.relu(), fn.affine(3)),
    "periodic": fn.serial(fn.periodic(4), fn.affine(3)),
    "pbld": fn.serial(fn.pbld(4), fn.affine(3)),
    "piecewise_linear": fn.serial(fn.piecewise_linear(EDGES, 4), fn.affine(3)),
    "member_scale": fn.serial(fn.member_scale(4), fn.member_affine(3, 4)),
    "member_affine": fn.member_affine(3, 4),
    "shared_affine": fn.serial(fn.member_scale(4), fn.shared_affine(3)),
    "batch_ensemble_affine": fn.batch_ensemble_affine(3, 4),
    "tabm": fn.tabm([5], 3, members=4),
    "ensemble": fn.ensemble(PLAIN, fn.mlp([4], 3)),
    "stacked": fn.stacked(fn.mlp([5], 3, normalization="batchnorm"), 3),
}
UNITS = {"mean": (1e6, 2.0), "scale": (3.0, 20.0)}
TARGETS = {
    "calibrated": fn.Targets(names=("a", "b", "ü"), temperature=1.5),
    "margin": fn.Targets(link="margin"),
    "labels": fn.Targets("multilabel", "sigmoid", temperature=0.5),
    "numbers": fn.Targets("regression", "identity", mean=(2e6,), scale=(0.5,)),
    "counts": fn.Targets("regression", "log", **UNITS, flat=False),
    "quantiles": fn.Targets(
        "regression", "identity", **UNITS, quantiles=(0.1, 0.5, 0.9), flat=False
    ),
}


def model_of(net, *, shape=(6,), preprocess=fn.no_preprocess, dtype=np.float32, **targets):
    """A model with state and parameters that are not those of the start, and inputs of it."""
    x = (RNG.uniform(0, 1, (30, *shape)) * (255 if dtype == np.uint8 else 3)).astype(dtype)
    preprocess = preprocess(x)
    inner = np.asarray(preprocess(x[:2])).shape[1:]
    params, state, _ = net.init(jax.random.key(0), inner)
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * RNG.uniform(size=leaf.shape), params)
    params = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), moved, params)
    state = jax.tree.map(lambda leaf: leaf + 1, state)
    return fn.Model(net, params, state, preprocess, **targets), x


def close(found, model, x, scale=1.0):
    """Raise unless these are what the model says, to 1e-5 of the largest score."""
    scores = fn.predict_scores(model, x)
    largest = max(1.0, float(np.abs(scores).max()))
    np.testing.assert_allclose(found["scores"], scores, rtol=0, atol=1e-5 * largest)
    wanted = fn.predict(model, x)
    assert found["prediction"].shape == wanted.shape
    unit = max((1.0, *model.targets.scale)) * largest
    if model.targets.link == "log":
        unit *= float(np.exp(np.abs(scores).max()))
    np.testing.assert_allclose(found["prediction"], wanted, rtol=0, atol=1e-5 * unit)
    assert ("probabilities" in found) == model.targets.gives_probabilities
    if "probabilities" in found:
        given = fn.predict_proba(model, x)
        np.testing.assert_allclose(found["probabilities"], given, rtol=0, atol=1e-5 * largest)


def session(path):
    """A runtime for the file, on one thread."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def by_onnx(path, x):
    """What a runtime computes, by name."""
    running = session(path)
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(None, {"x": x}), strict=True))


def check_onnx(model, x, path):
    fn.export_model(model, path, example=x[:1])
    for rows in (x, x[:1]):
        close(by_onnx(path, rows), model, rows)


def test_the_table_has_every_layer():
    embeddings = {name for each in EMBEDDINGS for name in LAYERS if name.startswith(each)}
    assert len(embeddings) == len(EMBEDDINGS) - 1  # "none" is none
    modules = ("net", "activations", "tabular", "embeddings", "members", "ensembles")
    names = {name for module in modules for name in fn._NAMES[module].split()}
    makers = {
        name for name in names if inspect.signature(getattr(fn, name)).return_annotation is fn.Layer
    }
    assert makers <= {*LAYERS}
    assert len(makers) > 20


@pytest.mark.parametrize("name", slow_but([*LAYERS], "batchnorm"))
def test_onnx_of_layers(name, tmp_path):
    pytest.importorskip("onnx")
    check_onnx(*model_of(LAYERS[name]), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("name", KINDS)
def test_onnx_of_preprocessing(name, dtype, tmp_path):
    pytest.importorskip("onnx")
    fitter = KINDS[name].step.function
    check_onnx(*model_of(PLAIN, shape=(2, 3), preprocess=fitter, dtype=dtype), tmp_path / "m.onnx")


@pytest.mark.slow
def test_float64_that_float32_would_round(tmp_path):
    pytest.importorskip("onnx")
    x = 1e9 + RNG.normal(size=(20, 6))
    model, _ = model_of(PLAIN)
    model = fn.Model(PLAIN, model.params, model.state, fn.standardize(x))
    check_onnx(model, x, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("members", [1, 3])
def test_onnx_of_targets(name, members, tmp_path):
    pytest.importorskip("onnx")
    net = fn.mlp([5], 6 if name == "quantiles" else 1 if name == "numbers" else 2)
    net = fn.mlp([5], 3) if name in ("calibrated", "margin", "labels") else net
    net = net if members == 1 else fn.stacked(net, members)
    check_onnx(*model_of(net, targets=TARGETS[name]), tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_committee_and_its_metadata(tmp_path):
    pytest.importorskip("onnx")
    pixels = {"shape": (2, 4), "dtype": np.uint8, "targets": TARGETS["calibrated"]}
    preprocess = fn.chain(fn.normalize_contrast, fn.whiten)
    first, x = model_of(PLAIN, preprocess=preprocess, **pixels)
    other = fn.mlp([4], 3, normalization="layernorm")
    second = fn.Model(
        other,
        *other.init(jax.random.key(1), (8,))[:2],
        first.preprocess,
        targets=first.targets,
    )
    committee = fn.join_models([first, second])
    path = tmp_path / "model.onnx"
    assert fn.export_model(committee, path, example=x[:1]) is None
    close(by_onnx(path, x), committee, x)
    running = session(path)
    told = running.get_modelmeta().custom_metadata_map
    assert json.loads(told["class_names"]) == ["a", "b", "ü"]
    assert (told["task"], told["funcnet_version"]) == ("classification", fn.__version__)
    (given,) = running.get_inputs()
    assert (given.name, given.type, given.shape) == ("x", "tensor(uint8)", ["n", 2, 4])


def test_metadata_say_the_units():
    model, _ = model_of(PLAIN, targets=TARGETS["quantiles"])
    found = {name: json.loads(facts(model)[name]) for name in ("mean", "scale", "quantiles")}
    assert found == {"mean": [1e6, 2.0], "scale": [3.0, 20.0], "quantiles": [0.1, 0.5, 0.9]}


@pytest.mark.slow
def test_a_layer_of_ones_own_and_one_that_has_no_operator(tmp_path):
    pytest.importorskip("onnx")

    def layer(function):
        return fn.make_layer("own", lambda x: (function(x), x), lambda dout, x: dout)

    def own(x):
        bent = jax.nn.silu(x[:, ::2]) + jnp.clip(jnp.flip(x[:, 1::2], 1), 0, 1)
        low, high = jnp.split(jnp.pad(bent, ((0, 0), (1, 0))), 2, axis=1)
        return jnp.stack(
            [jnp.abs(low) ** 2.5, jnp.round(3 * high) * jnp.exp2(low)], axis=2
        ).reshape(-1, 4)

    net = fn.serial(layer(lambda x: x - x.mean(axis=0)), layer(own), fn.affine(3))
    params, state, _ = fn.serial(fn.affine(3)).init(jax.random.key(0), (4,))
    x = RNG.uniform(size=(16, 6)).astype(np.float32)
    check_onnx(fn.Model(net, params, state, fn.no_preprocess(x)), x, tmp_path / "model.onnx")

    model = fn.Model(fn.serial(layer(lambda x: jnp.sort(x, axis=1))), {}, {}, fn.no_preprocess(x))
    with pytest.raises(ValueError, match=r"the net computes sort, .* format jax takes everything"):
        fn.export_model(model, tmp_path / "none.onnx", example=x)
    assert not (tmp_path / "none.onnx").exists()


def _own(function):
    return fn.make_layer("own", lambda x: (function(x), x), lambda dout, x: dout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        lambda x, first, second: jnp.max(x) * first,
        lambda x, first, second: jax.lax.select_n(jnp.max(x) > 1, second, first),
    ],
)
def test_onnx_of_a_scalar_and_of_what_is_repeated(function, tmp_path):
    pytest.importorskip("onnx")

    def own(x):
        first, second = (jnp.broadcast_to(x[:, [i]], x.shape) for i in (0, 1))
        return function(x, first, second).sum(axis=1, keepdims=True) * x

    check_onnx(*model_of(fn.serial(_own(own), fn.affine(3))), tmp_path / "model.onnx")


def _primitives(x):
    """[N, 3] each of what layers of one's own may compute, of x [N, 6] above 0."""
    x, y = x[:, :3], x[:, 3:] - 1
    choices = [
        *(jnp.argmin(x, 1), x.argmax(1), x.prod(1), x.min(1), x.max(1)),
        *(x == y, x != y, x <= x[:, :1], x >= x[:, :1], x < y, x > y),
        *(jnp.logical_xor(x > 1, y > 1), jnp.logical_or(x > 1, y > 1)),
        *(jnp.isfinite(x / (x - x[:, :1])), jnp.isfinite(jnp.log(y))),
        *(jnp.cumsum(x, 1), jax.lax.cumsum(x, 1, reverse=True), x[:, ::-1], x[:, [2, 0, 0]]),
        *(jax.lax.erf(y), jax.lax.erfc(y), jnp.exp(y), jnp.expm1(y), jnp.log1p(x), jnp.exp2(y)),
        *(x**3, y**-2, jax.lax.rsqrt(x), x**0.3, jnp.round(y), jnp.floor(y), jnp.ceil(y)),
        *(jnp.sign(y), jnp.abs(y), jnp.clip(y, -0.2, 0.3), jnp.trunc(y), jnp.log(x + 1)),
        *(jnp.sin(y), jnp.cos(y), jnp.tan(y / 4), jnp.arctan(y), jnp.arcsin(y / 4)),
        *(jnp.arccos(y / 4), jnp.sinh(y), jnp.cosh(y), jnp.arcsinh(y), jnp.arccosh(x + 1)),
        *(jnp.arctanh(y / 4), jax.nn.sigmoid(y), -y, jnp.minimum(x, y), jnp.maximum(x, y)),
        *(x.astype(jnp.int32), jax.lax.div((9 * y).astype(jnp.int32), jnp.int32(4))),
        *(
            jnp.einsum("ni,nj->n", x, y),
            jnp.einsum("ni,nj->nij", x, y)[:, 1],
            jnp.repeat(x, 2, 1)[:, 1:4],
        ),
    ]
    shape = (x.shape[0], 3)
    return jnp.concatenate(
        [jnp.broadcast_to(e if e.ndim == 2 else e[:, None], shape).astype(float) for e in choices],
        axis=1,
    )


@pytest.mark.slow
def test_onnx_of_what_layers_of_ones_own_compute(tmp_path):
    pytest.importorskip("onnx")
    x = 0.1 + 1.9 * RNG.uniform(size=(16, 6)).astype(np.float32)
    net = fn.serial(_own(_primitives))
    model = fn.Model(net, {}, {}, fn.no_preprocess(x))
    fn.export_model(model, tmp_path / "model.onnx", example=x)
    found = by_onnx(tmp_path / "model.onnx", x)["scores"]
    np.testing.assert_allclose(found, fn.predict_scores(model, x), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["calibrated", "labels", "numbers"])
def test_what_follows_from_scores_in_bfloat16_is_wider(name, tmp_path):
    pytest.importorskip("onnx")
    model, x = model_of(fn.mlp([5], 1 if name == "numbers" else 3), targets=TARGETS[name])
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), model.params)
    model = dataclasses.replace(model, params=params)
    check_onnx(model, x, tmp_path / "model.onnx")
    fn.export_model(model, tmp_path / "model", format="jax", example=x[:1])
    found = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes())).call(x)
    if name == "numbers":  # float32, which is too coarse for two million
        assert found["prediction"].dtype == np.float32
        found["prediction"] = fn.predict(model, x)
    close(found, model, x)


@pytest.mark.slow
def test_probabilities_of_scores_that_are_huge(tmp_path):
    model, x = model_of(PLAIN, targets=fn.Targets(temperature=7.25))
    fn.export_model(model, tmp_path / "model", format="jax", example=x[:1])
    exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    huge = x * np.float32(1e20)
    found = exported.call(huge)["probabilities"]
    np.testing.assert_allclose(found, fn.predict_proba(model, huge), atol=1e-5)


# JAX


def without(modules, code, *arguments):
    """What Python prints that cannot import some modules."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in modules)
    command = [sys.executable, "-c", f"import sys; {blocked}\n{code}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


CALL = """
import jax, numpy as np
exported = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
found = exported.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], **found)
print(*exported.platforms)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixels", *LAYERS])
def test_jax_alone(name, tmp_path):
    if name == "pixels":
        made = model_of(PLAIN, shape=(2, 3), preprocess=fn.whiten, dtype=np.uint8)
    else:
        made = model_of(LAYERS[name])
    model, x = made
    fn.export_model(model, tmp_path / "model", format="jax", example=x[:1])
    if name == "pixels":
        np.save(tmp_path / "x.npy", x)
        files = (tmp_path / each for each in ("model", "x.npy", "found.npz"))
        printed = without(["funcnet"], CALL, *files)
        assert printed.split() == [*PLATFORMS] == ["cpu", "cuda", "tpu"]
        with np.load(tmp_path / "found.npz") as made:
            found = dict(made)
    else:
        exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
        found = exported.call(x)
    close(found, model, x)


@pytest.mark.slow
def test_jax_of_numbers(tmp_path):
    model, x = model_of(fn.mlp([5], 2), dtype=np.float64, targets=TARGETS["counts"])
    fn.export_model(model, tmp_path / "model", format="jax", example=x[:1])
    exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    with jax.enable_x64(True):
        found = exported.call(x)
    assert found["prediction"].dtype == np.float64
    close(found, model, x)


# NumPy

FORWARD = """
import runpy, numpy as np
code = runpy.run_path(sys.argv[1])
x = np.load(sys.argv[2])
probabilities = {"probabilities": code["predict_proba"](x)} if "predict_proba" in code else {}
np.savez(sys.argv[3], scores=code["scores"](x), prediction=code["predict"](x), **probabilities)
"""


def by_numpy(folder, x):
    """What forward.py computes in this process."""
    namespace = {"__file__": str(folder / "forward.py"), "__name__": "forward"}
    exec((folder / "forward.py").read_text(), namespace)
    found = {"scores": namespace["scores"](x), "prediction": namespace["predict"](x)}
    if "predict_proba" in namespace:
        found["probabilities"] = namespace["predict_proba"](x)
    return found


def check_numpy(model, x, folder):
    fn.export_model(model, folder, format="numpy", example=x[:1])
    close(by_numpy(folder, x), model, x)
    close(by_numpy(folder, x[:1]), model, x[:1])


@pytest.mark.parametrize("name", slow_but([*EXAMPLES], "layernorm"))
def test_numpy_of_layers(name, tmp_path):
    net = fn.serial(fn.affine(6), fn.residual(EXAMPLES[name], fn.relu()), fn.affine(3))
    if name in ("affine", "flatten"):
        net = fn.serial(fn.flatten(), fn.affine(3))
    check_numpy(*model_of(net), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_numpy_of_preprocessing(name, tmp_path):
    for i, dtype in enumerate((np.uint8, np.float32, np.float64)):
        fitter = KINDS[name].step.function
        made = model_of(PLAIN, shape=(2, 3), preprocess=fitter, dtype=dtype)
        check_numpy(*made, tmp_path / f"{i}")


@pytest.mark.parametrize("name", slow_but([*TARGETS], "quantiles"))
def test_numpy_of_targets(name, tmp_path):
    net = fn.mlp([5], {"quantiles": 6, "numbers": 1, "counts": 2}.get(name, 3))
    check_numpy(*model_of(net, targets=TARGETS[name]), tmp_path / "out")


def test_numpy_alone_in_few_lines(tmp_path):
    net = fn.mlp([5, 5], 3, normalization="batchnorm", keep_prob=0.9)
    made = {"shape": (2, 3), "preprocess": fn.standardize, "dtype": np.uint8}
    model, x = model_of(net, **made, targets=TARGETS["calibrated"])
    fn.export_model(model, tmp_path / "out", format="numpy", example=x[:1])
    np.save(tmp_path / "x.npy", x)
    files = [tmp_path / each for each in ("out/forward.py", "x.npy", "found.npz")]
    without(["jax", "jaxlib", "funcnet", "ml_dtypes"], FORWARD, *files)
    with np.load(tmp_path / "found.npz") as found:
        close(dict(found), model, x)
    code = files[0].read_text()
    assert len([line for line in code.splitlines() if line.strip()]) < 45
    assert max(map(len, code.splitlines())) <= 100
    assert "layernorm" not in code
    with np.load(tmp_path / "out" / "weights.npz", allow_pickle=False) as weights:
        assert "affine3/w" in weights
    printed = subprocess.run(
        [sys.executable, files[0], files[1]], capture_output=True, text=True, timeout=60
    )
    assert printed.stdout.strip() == str(fn.predict(model, x)).strip()


@pytest.mark.slow
@pytest.mark.parametrize("form", [name for name, each in FORMATS.items() if each.is_folder])
def test_nets_that_are_not_plain_are_refused(form, tmp_path):
    refused = {
        "has no layer pbld .pbld1.: formats onnx and jax": fn.serial(fn.pbld(2), fn.affine(3)),
        "has no layer stacked": fn.stacked(PLAIN, 2),
        "has no products in bfloat16": fn.mlp([5], 3, matmul_dtype=jnp.bfloat16),
        "has no layer relu .relu1.": fn.serial(
            fn.make_layer("relu", lambda x: (x, x), lambda dout, x: dout), fn.affine(3)
        ),
    }
    for message, net in refused.items():
        model, x = model_of(net)
        with pytest.raises(ValueError, match=message):
            fn.export_model(model, tmp_path / "out", format=form, example=x)
    model, x = model_of(PLAIN)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params)
    with pytest.raises(ValueError, match=r"affine1/. is bfloat16"):
        fn.export_model(
            fn.Model(PLAIN, half, {}, model.preprocess), tmp_path / "out", format=form, example=x
        )
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_folders_are_replaced_whole_or_left_alone(tmp_path):
    model, x = model_of(PLAIN)
    folder = tmp_path / "out"
    for _ in range(2):
        fn.export_model(model, folder, format="numpy", example=x)
    close(by_numpy(folder, x), model, x)
    (folder / "mine.txt").write_text("mine")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    with pytest.raises(FileExistsError, match="holds something else"):
        fn.export_model(model, folder, format="numpy", example=x)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    assert [*tmp_path.iterdir()] == [folder]


# What is asked for


@pytest.mark.slow
def test_the_shape_of_examples_is_found_or_asked_for(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'onnx'"):
        fn.export_model(model_of(PLAIN)[0], tmp_path / "model", format="onx")
    with pytest.raises(TypeError, match="model must be a Model"):
        fn.export_model(PLAIN, tmp_path / "model")

    def inputs(model):
        fn.export_model(model, tmp_path / "model", format="jax")
        exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
        return str(exported.in_avals[0])

    assert "float32[n,2,3]" in inputs(model_of(PLAIN, shape=(2, 3), preprocess=fn.standardize)[0])
    chained = fn.chain(fn.shuffle_features, fn.normalize_contrast)
    assert "float32[n,6]" in inputs(model_of(PLAIN, preprocess=chained)[0])
    assert "float32[n,6]" in inputs(model_of(PLAIN)[0])
    square = fn.Model(fn.serial(fn.relu()), {}, {}, fn.no_preprocess(EDGES))
    with pytest.raises(ValueError, match="give one, example=x_train"):
        fn.export_model(square, tmp_path / "model", format="jax")
    model, _ = model_of(PLAIN)
    with pytest.raises((TypeError, ValueError)):
        fn.export_model(model, tmp_path / "model", format="jax", example=np.zeros((1, 7)))


ROWS = {
    "size": [1.0, None, 3.0, 4.0, 2.5, 6.0] * 5,
    "town": ["A", "B", "A", None, "C", "B"] * 5,
    "day": ["2026-01-05", "2026-03-01", None, "2026-11-25", "2025-07-04", "2026-02-02"] * 5,
    "kind": ["x", "y", "x", "y", "x", "y"] * 5,
}


def encoded(row, content):
    """What the text beside an export says to make of a row, from that text alone."""
    days = np.datetime64
    numbers = []
    for feature in content["features"]:
        value = row[feature["name"]]
        if feature["kind"] == "category":
            places = [float(value == word) for word in feature["categories"]]
            unknown = value is not None and value not in feature["categories"]
            numbers += places + ([float(unknown)] if feature["other"] else [])
        else:
            number = feature["median"] if value is None else value
            if feature["kind"] == "date" and value is not None:
                number = (days(value) - days("1970-01-01")) / np.timedelta64(1, "D")
            numbers.append(number)
            if feature["kind"] == "date":
                periods = (365.2425, 7, 1) if feature["time"] else (365.2425, 7)
                angles = [2 * np.pi * number / period for period in periods]
                numbers += [f(angle) for angle in angles for f in (np.sin, np.cos)]
        if feature["missing"]:
            numbers.append(float(value is None))
    return numbers


@pytest.mark.slow
def test_a_table_has_its_encoding_beside_it(tmp_path):
    pytest.importorskip("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.DataWarning)
        table = fn.load_table(ROWS, "kind")
    net = fn.serial(fn.on_columns(table.encoding.numbers, fn.pbld(3)), fn.affine(2))
    x = np.concatenate([table.x_train, table.x_val, table.x_test])
    params, state, _ = net.init(jax.random.key(0), x.shape[1:])
    preprocess = fn.standardize_numbers(x)
    model = fn.Model(net, params, state, preprocess, encoding=table.encoding)
    beside = fn.export_model(model, tmp_path / "model.onnx")
    assert beside == tmp_path / "model.encoding.json"
    content = json.loads(beside.read_text())
    assert content["input_names"] == [*table.encoding.names]
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    ours = np.array([encoded(row, content) for row in rows], np.float32)
    found = by_onnx(tmp_path / "model.onnx", ours)
    close(found, model, {name: column for name, column in ROWS.items() if name != "kind"})


@pytest.mark.slow
def test_a_plain_net_of_a_table_has_it_in_its_folder(tmp_path):
    encoding = Encoding(tuple(Feature(name, "number") for name in "abcdef"))
    made, x = model_of(PLAIN)
    model = fn.Model(PLAIN, made.params, {}, made.preprocess, encoding=encoding)
    beside = fn.export_model(model, tmp_path / "out", format="numpy")
    assert beside == tmp_path / "out" / "encoding.json"
    assert json.loads(beside.read_text())["input_names"] == [*"abcdef"]
    close(by_numpy(tmp_path / "out", x), made, x)


@pytest.mark.parametrize(
    ("format", "package", "extra"), [("onnx", "onnx", "onnx"), ("jax", "flatbuffers", "stablehlo")]
)
def test_it_says_what_to_install(tmp_path, monkeypatch, format, package, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(ImportError, match=rf'{package} is .*pip install "funcnet\[{extra}\]"'):
        fn.export_model(model_of(PLAIN)[0], tmp_path / "model", format=format)


# Whole runs


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    code, _, err = run("train", "--epochs", "2", "--hidden-dims", "16", "--out", folder, "--quiet")
    assert code == 0, err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_command_exports_a_run(form, digits):
    pytest.importorskip("onnx")
    code, out, err = run("export", digits, "--format", form)
    assert (code, err) == (0, "")
    path = digits / FORMATS[form].name
    said, use = out.splitlines()
    assert said == f"{path}: the best model of {digits}; it takes uint8 [N, 8, 8], raw inputs"
    assert str(path) in use
    model, x = fn.load_run(digits), fn.load_digits().x_test
    if form == "onnx":
        close(by_onnx(path, x), model, x)
    if form == "numpy":
        close(by_numpy(path, x), model, x)


@pytest.mark.slow
def test_what_the_command_says_of_wrong_words(digits, tmp_path):
    pytest.importorskip("onnx")
    last = digits / "last.safetensors"
    code, out, err = run("export", last, "--out", tmp_path / "m.onnx")
    assert (code, err) == (0, "")
    assert f"the last model of {digits}" in out
    code, _, err = run("export", last, "--model", "best")
    assert code == 2
    assert "--model best is not" in err
    code, _, err = run("export", tmp_path / "own.safetensors")
    assert code == 2
    assert "fn.load_model" in err
    code, _, err = run("export", digits, "--input-shape", "7")
    assert code == 2
    assert len(err.splitlines()) == 1
    code, _, err = run("export", digits, "--input-shape", "0")
    assert code == 2
    assert "sizes of 1 or more" in err
    config = json.loads((digits / "config.json").read_text())
    older = tmp_path / "older"
    older.mkdir()
    (older / "best.safetensors").write_bytes((digits / "best.safetensors").read_bytes())
    for name in ("input_shape", "input_dtype"):
        del config[name]
    (older / "config.json").write_text(json.dumps(config))
    code, out, err = run("export", older)
    assert code == 0
    assert "note: the run does not say what it was trained on: inputs are float32, [8, 8]" in err
    (older / "config.json").write_text(json.dumps({**config, "input_dtype": "pixels"}))
    code, _, err = run("export", older)
    assert code == 2
    assert "is damaged: its inputs are 'pixels'" in err


@pytest.mark.slow
def test_cifar10_with_whitening(tmp_path):
    pytest.importorskip("onnx")
    if fn.find_cifar10() is None:
        pytest.skip("CIFAR-10 is missing")
    data = fn.load_cifar10()
    x = data.x_test[:300]
    preprocess = fn.chain(fn.normalize_contrast, functools.partial(fn.whiten, dim=300))
    net = fn.mlp([64], 10, normalization="batchnorm", keep_prob=0.9)
    small = fn.Dataset(
        *(data.x_train[:2000], data.y_train[:2000], data.x_val[:100], data.y_val[:100]),
        *(x, data.y_test[:300], data.class_names),
    )
    options = {"key": jax.random.key(0), "epochs": 2, "batch_size": 100}
    model = fn.fit(net, fn.adam(1e-3), small, preprocess=preprocess, **options).model
    check_onnx(model, x, tmp_path / "model.onnx")
