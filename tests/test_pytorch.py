"""The same nets, losses and optimizers in PyTorch, step by step, in float64.

Where the conventions differ, the conversion is part of the test.
"""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.activations import ACTIVATIONS
from funcnet.net import NORMALIZATIONS
from funcnet.preprocess import KINDS

torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install 'funcnet[bench]'")

pytestmark = pytest.mark.usefixtures("x64", "unoptimized", "one_thread")

STEPS = 100
IN_SHAPE = (3, 4)
HIDDEN = [20, 15]
CLASSES = 5
BATCH = 16

NAMES = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
MODULES = {
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "gelu": torch.nn.GELU,
    "gelu_tanh": partial(torch.nn.GELU, approximate="tanh"),
    "tanh": torch.nn.Tanh,
    "logistic": torch.nn.Sigmoid,
    "batchnorm": partial(torch.nn.BatchNorm1d, momentum=1 - 0.9),  # the share of the batch
    "layernorm": torch.nn.LayerNorm,
}
same = partial(np.testing.assert_allclose, rtol=0, atol=1e-9)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensor(a):
    return torch.from_numpy(np.array(a))


def torch_mlp(normalization, activation, params):
    """The net of `fn.mlp(HIDDEN, CLASSES, ...)` in PyTorch, with its parameters."""
    modules = OrderedDict(flatten=torch.nn.Flatten())
    sizes = [int(np.prod(IN_SHAPE)), *HIDDEN]
    for i, (fan_in, dim) in enumerate(zip(sizes, HIDDEN, strict=False), start=1):
        modules[f"affine{i}"] = torch.nn.Linear(fan_in, dim)
        modules[f"{normalization}{i}"] = MODULES[normalization](dim)
        modules[f"{activation}{i}"] = MODULES[activation]()
    modules[f"affine{len(sizes)}"] = torch.nn.Linear(sizes[-1], CLASSES)
    net = torch.nn.Sequential(modules).double()
    with torch.no_grad():
        for name, leaves in params.items():
            for leaf, value in leaves.items():
                getattr(net, name)._parameters[NAMES[leaf]].copy_(tensor(value.T))
    return net


def batches(rng):
    """Batches that one can learn from, of varying location and scale."""
    centres = rng.normal(size=(CLASSES, *IN_SHAPE))
    for _ in range(STEPS):
        y = rng.integers(CLASSES, size=BATCH)
        noise = rng.normal(size=(BATCH, *IN_SHAPE))
        yield rng.uniform(0.5, 2) * (centres[y] + noise) + rng.normal(), y


def train_both(rng, normalization, activation, optimizer, torch_optimizer):
    """100 steps side by side; returns both nets as they are at the end.

    A bias in front of batch norm has a gradient of 0, in both libraries rounding noise of
    1e-17 or so. That is far below Adam's epsilon, and it stays where it is, nearly.
    """
    net = fn.mlp(HIDDEN, CLASSES, normalization=normalization, activation=activation)
    ours = fn.init_train_state(net, optimizer, IN_SHAPE, key=jax.random.key(0))
    # Parameters all different, so that none that is mixed up with another goes unseen.
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), ours.params)
    ours = ours._replace(params=params)
    theirs = torch_mlp(normalization, activation, params)
    torch_optimizer = torch_optimizer(theirs.parameters())
    cross_entropy = torch.nn.CrossEntropyLoss()
    train_step = fn.make_train_step(net, optimizer)
    forward = jax.jit(lambda run, x: net.forward(run.params, run.state, x, key=None, train=True)[0])

    losses = []
    for x, y in batches(rng):
        scores = forward(ours, x)
        ours, metrics = train_step(ours, x, y)
        torch_optimizer.zero_grad()
        torch_scores = theirs(tensor(x))
        loss = cross_entropy(torch_scores, tensor(y))
        loss.backward()
        torch_optimizer.step()

        same(scores, torch_scores.detach())
        same(metrics["loss"], loss.item())
        same_params(ours.params, theirs)
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])  # it did learn
    return fn.Model(net, ours.params, ours.state, fn.no_preprocess(x)), theirs


def same_params(params, torch_net):
    compared = 0
    for name, leaves in params.items():
        for leaf, value in leaves.items():
            theirs = getattr(torch_net, name)._parameters[NAMES[leaf]]
            same(value, theirs.detach().numpy().T, err_msg=f"{name}/{leaf}")
            compared += 1
    assert compared == len(list(torch_net.parameters()))


def same_in_evaluation(model, torch_net, x):
    torch_net.eval()
    with torch.no_grad():
        same(fn.predict_scores(model, x), torch_net(tensor(x)))


def test_batchnorm_and_adam(rng):
    adam = partial(torch.optim.Adam, lr=1e-3, eps=1e-8)
    model, theirs = train_both(rng, "batchnorm", "relu", fn.adam(1e-3), adam)
    kept = 0.9**STEPS  # what is left of the running variance of 1 before the first step
    for name, running in model.state.items():
        norm = getattr(theirs, name)
        same(running["mean"], norm.running_mean)
        # PyTorch's running variance is divided by N - 1, ours by N.
        unbiased = kept + (np.asarray(running["var"]) - kept) * BATCH / (BATCH - 1)
        same(unbiased, norm.running_var)
        norm.running_var.copy_(tensor(running["var"]))
    same_in_evaluation(model, theirs, rng.normal(size=(7, *IN_SHAPE)))


@pytest.mark.parametrize(("activation", "decay_names"), [("gelu", None), ("gelu_tanh", ("w",))])
def test_layernorm_gelu_and_adamw(rng, activation, decay_names):
    def torch_adamw(params):
        groups = {True: [], False: []}
        for param in params:
            groups[decay_names is None or param.ndim == 2].append(param)
        return torch.optim.AdamW(
            [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0}],
            lr=3e-3,
            weight_decay=0.3,
        )

    adamw = fn.adamw(3e-3, weight_decay=0.3, decay_names=decay_names)
    model, theirs = train_both(rng, "layernorm", activation, adamw, torch_adamw)
    same_in_evaluation(model, theirs, rng.normal(size=(7, *IN_SHAPE)))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu", "gelu_tanh", "tanh"])
def test_activations(name, rng):
    x = np.concatenate([[0.0, -0.0, -9, 9], 3 * rng.normal(size=100)])
    dout = rng.normal(size=x.shape)
    leaf = tensor(x).requires_grad_()
    out = MODULES[name]()(leaf)
    out.backward(tensor(dout))

    ours, cache = getattr(fn, f"{name}_forward")(x)
    same(ours, out.detach(), atol=1e-12)
    same(getattr(fn, f"{name}_backward")(jnp.asarray(dout), cache), leaf.grad, atol=1e-12)


SMOOTHING = 0.1
LOSSES = {
    "softmax": (fn.softmax_loss, torch.nn.CrossEntropyLoss()),
    # PyTorch divides by the number of classes.
    "svm": (fn.svm_loss, lambda scores, y: CLASSES * torch.nn.MultiMarginLoss()(scores, y)),
    "label smoothing": (
        lambda scores, y: fn.softmax_loss(scores, fn.smooth_labels(y, CLASSES, SMOOTHING)),
        torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, rng):
    loss_fn, torch_loss_fn = LOSSES[name]
    y = rng.integers(CLASSES, size=BATCH)
    scores = tensor(3 * rng.normal(size=(BATCH, CLASSES))).requires_grad_()
    torch_loss = torch_loss_fn(scores, tensor(y))
    torch_loss.backward()

    loss, dscores = loss_fn(jnp.asarray(scores.detach().numpy()), y)
    same(loss, torch_loss.item(), atol=1e-12)
    same(dscores, scores.grad, atol=1e-12)


def torch_pinball(scores, y):
    """PyTorch has none: by its definition, with autodiff's gradient."""
    d = y[:, :, None] - scores.reshape(BATCH, -1, 2)
    quantiles = torch.tensor([0.1, 0.7], dtype=torch.float64)
    return torch.maximum(quantiles * d, (quantiles - 1) * d)


# Losses of outputs and theirs, of each element; the targets; how many scores for each.
OF_OUTPUTS = {
    # PyTorch has no half.
    "squared": (
        fn.squared_loss,
        lambda scores, y: torch.nn.MSELoss(reduction="none")(scores, y) / 2,
        lambda rng: rng.normal(size=(BATCH, 3)),
        1,
    ),
    "absolute": (
        fn.absolute_loss,
        torch.nn.L1Loss(reduction="none"),
        lambda rng: rng.normal(size=(BATCH, 3)),
        1,
    ),
    "huber": (
        partial(fn.huber_loss, delta=0.7),
        torch.nn.HuberLoss(reduction="none", delta=0.7),
        lambda rng: rng.normal(size=(BATCH, 3)),
        1,
    ),
    "pinball": (
        partial(fn.pinball_loss, quantiles=(0.1, 0.7)),
        torch_pinball,
        lambda rng: rng.normal(size=(BATCH, 3)),
        2,
    ),
    "sigmoid": (
        fn.sigmoid_loss,
        torch.nn.BCEWithLogitsLoss(reduction="none"),
        lambda rng: rng.integers(2, size=(BATCH, 3)).astype(float),
        1,
    ),
    "poisson": (
        fn.poisson_loss,
        torch.nn.PoissonNLLLoss(reduction="none"),
        lambda rng: rng.poisson(3, size=(BATCH, 3)).astype(float),
        1,
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_losses_of_outputs(name, weighted, rng):
    loss_fn, torch_loss_fn, targets, of_each = OF_OUTPUTS[name]
    y = targets(rng)
    scores = tensor(2 * rng.normal(size=(BATCH, 3 * of_each))).requires_grad_()
    rows = torch_loss_fn(scores, tensor(y)).reshape(BATCH, -1).mean(axis=1)
    weights = rng.integers(4, size=BATCH) / 2 if weighted else None
    torch_loss = rows.mean() if weights is None else (tensor(weights) * rows).sum() / weights.sum()
    torch_loss.backward()

    loss, dscores = loss_fn(jnp.asarray(scores.detach().numpy()), y, weights)
    same(loss, torch_loss.item(), atol=1e-12)
    same(dscores, scores.grad, atol=1e-12)


def test_classes_with_weights(rng):
    """PyTorch divides by the sum of the weights, too."""
    y = rng.integers(CLASSES, size=BATCH)
    weights = fn.class_weights(y, "balanced", num_classes=CLASSES)
    scores = tensor(3 * rng.normal(size=(BATCH, CLASSES))).requires_grad_()
    torch_loss = torch.nn.CrossEntropyLoss(weight=tensor(weights))(scores, tensor(y))
    torch_loss.backward()

    loss, dscores = fn.softmax_loss(jnp.asarray(scores.detach().numpy()), y, weights[y])
    same(loss, torch_loss.item(), atol=1e-12)
    same(dscores, scores.grad, atol=1e-12)


OPTIMIZERS = {
    "sgd": (fn.sgd(0.03), partial(torch.optim.SGD, lr=0.03)),
    "sgd_momentum": (
        fn.sgd_momentum(0.03, momentum=0.8),
        partial(torch.optim.SGD, lr=0.03, momentum=0.8),
    ),
    # CS231n's w is the point looked ahead to, and so is PyTorch's.
    "nesterov": (
        fn.nesterov(0.03, momentum=0.8),
        partial(torch.optim.SGD, lr=0.03, momentum=0.8, nesterov=True),
    ),
    "adagrad": (fn.adagrad(0.03, epsilon=1e-2), partial(torch.optim.Adagrad, lr=0.03, eps=1e-2)),
    # Decay 0.99 and epsilon outside the root, here as there.
    "rmsprop": (fn.rmsprop(0.03, epsilon=1e-2), partial(torch.optim.RMSprop, lr=0.03, eps=1e-2)),
    "adam": (
        fn.adam(0.03, beta1=0.8, beta2=0.95, epsilon=1e-2),
        partial(torch.optim.Adam, lr=0.03, betas=(0.8, 0.95), eps=1e-2),
    ),
    "adamw": (
        fn.adamw(0.03, weight_decay=0.3),
        partial(torch.optim.AdamW, lr=0.03, weight_decay=0.3),
    ),
}


def recorded(rng, shape=(6, 4)):
    """Parameters and a sequence of gradients, with zeros and of varying size."""
    scale = rng.uniform(0, 2, size=(STEPS, 1, 1)) * (rng.random(size=shape) < 0.9)
    return rng.normal(size=shape), scale * rng.normal(size=(STEPS, *shape))


def follow(optimizer, w, grads):
    """The parameters after each of the updates, [STEPS, ...]."""

    def step(carry, dw):
        params, opt_state = carry
        updates, opt_state = optimizer.update({"w": dw}, opt_state, params)
        params = fn.apply_updates(params, updates)
        return (params, opt_state), params["w"]

    params = {"w": jnp.asarray(w)}
    return jax.lax.scan(step, (params, optimizer.init(params)), jnp.asarray(grads))[1]


def torch_follow(optimizer, w, grads):
    param = torch.nn.Parameter(tensor(w))
    optimizer = optimizer([param])
    path = []
    for dw in grads:
        param.grad = tensor(dw)
        optimizer.step()
        path.append(param.detach().numpy().copy())
    return np.stack(path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_on_the_same_gradients(name, rng):
    w, grads = recorded(rng)
    optimizer, torch_optimizer = OPTIMIZERS[name]
    same(follow(optimizer, w, grads), torch_follow(torch_optimizer, w, grads), atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_velocity_holds_the_learning_rate(nesterov, rng):
    """With a schedule, PyTorch's momentum of the gradients times the rate is CS231n's."""
    w, grads = recorded(rng)
    rates = 0.1 * 0.97 ** np.arange(STEPS)
    optimizer = (fn.nesterov if nesterov else fn.sgd_momentum)(lambda step: 0.1 * 0.97**step)
    torch_optimizer = partial(torch.optim.SGD, lr=1.0, momentum=0.9, nesterov=nesterov)
    theirs = torch_follow(torch_optimizer, w, rates[:, None, None] * grads)
    same(follow(optimizer, w, grads), theirs, atol=1e-12)


def torch_muon(**options):
    return partial(torch.optim.Muon, lr=0.03, adjust_lr_fn="match_rms_adamw", **options)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with PyTorch 2.9")
class TestMuon:
    @pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
    def test_in_double_precision(self, shape, rng, monkeypatch):
        # PyTorch rounds to bfloat16 before it makes the matrix orthogonal: not here.
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
        w, grads = recorded(rng, shape)
        theirs = torch_follow(torch_muon(weight_decay=0.3), w, grads)
        same(follow(fn.muon(0.03, weight_decay=0.3), w, grads), theirs)

    def test_as_it_is(self, rng):
        w, grads = recorded(rng)
        ours = np.diff(follow(fn.muon(0.03), w, grads), axis=0)  # the updates
        theirs = np.diff(torch_follow(torch_muon(weight_decay=0), w, grads), axis=0)
        distance = np.linalg.norm(ours - theirs, axis=(1, 2))
        assert np.median(distance / np.linalg.norm(theirs, axis=(1, 2))) < 3e-2


def exported(model, x, folder):
    """The net.py of an export, run here, its scores of x compared to ours."""
    fn.export_model(model, folder, format="torch", example=x[:1])
    code = {"__file__": str(folder / "net.py"), "__name__": "net"}
    exec((folder / "net.py").read_text(), code)
    scores = fn.predict_scores(model, x)
    atol = 1e-5 * max(1.0, float(np.abs(scores).max()))
    np.testing.assert_allclose(code["scores"](x).numpy(), scores, rtol=0, atol=atol)
    return code


@pytest.mark.parametrize("name", slow_but([*ACTIVATIONS], "relu"))
@pytest.mark.parametrize("normalization", slow_but([None, *NORMALIZATIONS], "batchnorm"))
def test_what_is_exported_to_pytorch(normalization, name, rng, tmp_path):
    options = {"normalization": normalization, "activation": name, "keep_prob": 0.8}
    net = fn.serial(fn.residual(fn.affine(12), fn.tanh()), fn.mlp([6], 3, **options))
    params, state, _ = net.init(jax.random.key(0), (12,))
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)
    state = jax.tree.map(lambda s: s + 1, state)
    x = rng.normal(size=(9, 12)).astype(np.float32)
    code = exported(fn.Model(net, params, state, fn.no_preprocess(x)), x, tmp_path / "out")
    tensors = code["net"].state_dict()
    same(tensors["1.weight"], params["serial1"]["affine1"]["w"].T.astype(np.float32))
    (dropped,) = (each.p for each in code["net"] if isinstance(each, torch.nn.Dropout))
    assert dropped == 0.2
    if normalization == "batchnorm":
        assert code["net"][2].momentum == 0.1
        same(tensors["2.running_var"], state["serial1"]["batchnorm1"]["var"].astype(np.float32))


@pytest.mark.parametrize("name", slow_but([*KINDS], "standardize"))
def test_preprocessing_is_exported_to_pytorch(name, rng, tmp_path):
    for number, dtype in enumerate((np.uint8, np.float32, np.float64)):
        x = rng.uniform(0, 255, size=(30, 2, 3)).astype(dtype)
        preprocess = KINDS[name].step.function(x)
        net = fn.mlp([5], 3)
        params, state, _ = net.init(jax.random.key(0), np.asarray(preprocess(x)).shape[1:])
        exported(fn.Model(net, params, state, preprocess), x, tmp_path / f"{number}")


def test_predictions_are_in_units_in_pytorch_too(rng, tmp_path):
    x = rng.normal(size=(9, 6)).astype(np.float32)
    net, units = fn.mlp([5], 6), {"mean": (1e6, 2.0), "scale": (3.0, 20.0)}
    params, state, _ = net.init(jax.random.key(0), (6,))
    targets = fn.Targets("regression", "identity", **units, quantiles=(0.1, 0.5, 0.9), flat=False)
    model = fn.Model(net, params, state, fn.no_preprocess(x), targets=targets)
    found = exported(model, x, tmp_path / "out")["predict"](x)
    np.testing.assert_allclose(found.numpy(), fn.predict(model, x), rtol=0, atol=1e-3)
