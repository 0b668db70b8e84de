# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Write your own
#
# A layer, a loss and an optimizer that funcnet does not have, in about twenty lines each. Each is
# checked first, with a planted mistake to see that the check would tell, and then trained by
# `fit` and `sweep` like those that come with the library.
#
# Before: [03 Normalization and dropout](03_normalization_and_dropout.ipynb). Next:
# [05 Sweeps](05_sweeps.ipynb). How backward passes are derived is in
# [01 Backprop by hand](01_backprop_by_hand.ipynb). It needs no data but the digits in the package.

# %%
import os
from functools import partial

try:
    import funcnet as fn
except ImportError:  # on Colab, say
    # %pip install --quiet "funcnet[notebooks]"
    import funcnet as fn

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

# %matplotlib inline

# A small run, to see that everything works: FUNCNET_NOTEBOOK_FAST=1
FAST = os.environ.get("FUNCNET_NOTEBOOK_FAST") == "1"
SEEDS = range(1 if FAST else 5)
EPOCHS = 3 if FAST else 20

digits = fn.load_digits()
options = {"epochs": EPOCHS, "batch_size": 50, "preprocess": fn.standardize}
print(f"{len(digits.x_train)} images of {digits.x_train.shape[1:]} pixels to train")

# %% [markdown]
# ## 1 A layer
#
# The gated linear unit (Dauphin et al. 2017, arXiv 1612.08083) computes two affine maps, and lets one
# of them say how much of the other passes:
#
# $$a = x w + b, \qquad g = x v + c, \qquad s = \frac{1}{1 + e^{-g}}, \qquad out = a \odot s$$
#
# Backward, by the product rule, and because the derivative of $s$ is $s (1 - s)$:
#
# $$da = dout \odot s, \qquad dg = dout \odot a \odot s \odot (1 - s)$$
#
# The rest is that of two affine maps. The way from `x` parts in two, so their gradients add up:
#
# $$dx = da\,w^T + dg\,v^T, \quad dw = x^T da, \quad db = \sum_n da, \quad dv = x^T dg, \quad dc = \sum_n dg$$
#
# A layer is made of a pair of functions of arrays, and of one that draws the first parameters. The
# gradients come in the order of the inputs of `forward`.


# %%
def gated_forward(x, w, b, v, c):
    a = x @ w + b  # [N, M]
    s = jax.nn.sigmoid(x @ v + c)  # [N, M]
    return a * s, (x, w, v, a, s)


def gated_backward(dout, cache):
    x, w, v, a, s = cache
    da = dout * s  # [N, M]
    dg = dout * a * s * (1 - s)  # [N, M]
    dx = da @ w.T + dg @ v.T  # [N, D]
    return dx, x.T @ da, da.sum(axis=0), x.T @ dg, dg.sum(axis=0)


def init_gated(key, in_shape, dim):
    w_key, v_key = jax.random.split(key)
    shape, scale = (*in_shape, dim), in_shape[0] ** -0.5
    w, v = (scale * jax.random.normal(each, shape) for each in (w_key, v_key))
    return {"w": w, "b": jnp.zeros(dim), "v": v, "c": jnp.zeros(dim)}, {}, (dim,)


def gated(dim, backward=gated_backward):
    init = partial(init_gated, dim=dim)
    return fn.make_layer("gated", gated_forward, backward, init, names=["w", "b", "v", "c"])


# %% [markdown]
# `fn.check_gradients` compares all gradients of a network with autodiff of the forward pass, and with
# numerical differentiation.

# %%
x, y = digits.x_train[:8].reshape(8, -1) / 16, digits.y_train[:8]
net = fn.serial(gated(12), fn.affine(10))
params, state, _ = net.init(jax.random.key(0), (x.shape[1],))
print(fn.check_gradients(net, params, state, x, y))

# %% [markdown]
# A check that always passes is worth nothing. So forget the factor $1 - s$, an easy mistake:


# %%
def forgetful_backward(dout, cache):
    x, w, v, a, s = cache
    da, dg = dout * s, dout * a * s
    return da @ w.T + dg @ v.T, x.T @ da, da.sum(axis=0), x.T @ dg, dg.sum(axis=0)


wrong = fn.serial(gated(12, forgetful_backward), fn.affine(10))
print(fn.check_gradients(wrong, params, state, x, y))

# %% [markdown]
# The table says where to look. `b` and `w` are right, `c`, `v` and the gradient of the input are not:
# it must be on the way through the gate.
#
# The layer trains like any other. Beside it is a network of ReLUs with about as many parameters.

# %%
gated_net = fn.serial(fn.flatten(), gated(64), fn.affine(10))
relu_net = fn.serial(fn.flatten(), fn.affine(120), fn.relu(), fn.affine(10))
histories = {}
for name, net in {"gated": gated_net, "ReLU": relu_net}.items():
    result = fn.fit(net, fn.adam(3e-3), digits, key=jax.random.key(0), **options)
    count = sum(leaf.size for leaf in jax.tree.leaves(result.state.params))
    test = fn.evaluate(result.best, digits.x_test, digits.y_test)
    print(f"{name:5} {count:6,} parameters, test accuracy {100 * test.accuracy:.1f} %")
    histories[name] = result.history
fn.plot_histories(histories, title="A layer of one's own")

# %% [markdown]
# The picture has four panels, above the losses of training and validation, below the two accuracies, with
# a line for each network. The lines all but coincide: on
# the digits the gate is neither better nor worse than ReLU. That is what one would expect of images that
# any network learns; the point is that nothing else had to be written.
#
# ## 2 A loss
#
# A loss is one function, `loss_fn(scores, y) -> (loss, dscores)`. Take one for labels that are partly
# wrong, the generalized cross-entropy (Zhang and Sabuncu 2018, arXiv 1805.07836). With $p_n$ the softmax
# probability of the label of example $n$, and $0 < q \le 1$:
#
# $$L = \frac1N \sum_n \frac{1 - p_n^q}{q}$$
#
# For $q \to 0$ it becomes $-\log p_n$, the softmax loss; for $q = 1$ it is $1 - p_n$, of which no single
# example can have more than 1. By the chain rule, with $\partial p_n / \partial s_{nj} = p_n
# (\delta_{j y_n} - p_{nj})$,
#
# $$dscores_{nj} = \frac1N \cdot \big( {-p_n^{q-1}} \big) \cdot p_n (\delta_{j y_n} - p_{nj}) =
# p_n^q \cdot \frac{p_{nj} - \delta_{j y_n}}{N}$$
#
# That is the gradient of the softmax loss, times $p_n^q$. Examples whose label the network finds very
# unlikely pull less.


# %%
def generalized_loss(scores, y, q):
    p = jax.nn.softmax(scores)  # [N, C]
    correct = jax.nn.one_hot(y, scores.shape[1], dtype=scores.dtype)  # [N, C]
    likely = (p * correct).sum(axis=1, keepdims=True) ** q  # [N, 1], p_n^q
    return ((1 - likely) / q).mean(), likely * (p - correct) / len(y)


net = fn.serial(fn.affine(12), fn.relu(), fn.affine(10))
params, state, _ = net.init(jax.random.key(0), (x.shape[1],))
for q in (0.3, 1.0):
    check = fn.check_gradients(net, params, state, x, y, loss_fn=partial(generalized_loss, q=q))
    print(f"q = {q}: passed {check.passed}, loss {float(check.loss):.4f}")


def without_mean(scores, y):
    loss, dscores = generalized_loss(scores, y, q=0.3)
    return loss, dscores * len(y)  # a sum over the batch, where the loss is a mean


print(fn.check_gradients(net, params, state, x, y, loss_fn=without_mean))

# %% [markdown]
# The planted mistake makes every gradient eight times too large, as many as there are examples in
# the batch. Training would hardly show it: Adam divides by the size of the gradients.
#
# What is the loss good for? Here 40 percent of the labels that are trained on are replaced by random
# ones. Validation and test labels stay as they are. The number $q$ may be traced, so one sweep tries
# several of them, beside the softmax loss.

# %%
rng = np.random.default_rng(0)
replaced = rng.random(len(digits.y_train)) < 0.4
random_labels = rng.integers(10, size=len(digits.y_train)).astype(np.int32)
noisy = digits._replace(y_train=np.where(replaced, random_labels, digits.y_train))
print(f"{100 * (noisy.y_train != digits.y_train).mean():.0f} % of the labels are wrong")


def with_loss(q):
    return fn.mlp([256], 10), fn.adam(1e-3), {"loss_fn": partial(generalized_loss, q=q)}


def with_softmax():
    return fn.mlp([256], 10), fn.adam(1e-3)


longer = {**options, "epochs": 3 if FAST else 60}
settings = fn.grid(q=[0.7] if FAST else [0.1, 0.3, 0.5, 0.7, 0.9], seed=SEEDS)
generalized = fn.sweep(with_loss, noisy, settings, **longer)
softmax = fn.sweep(with_softmax, noisy, fn.grid(seed=SEEDS), **longer)

groups = {"softmax": softmax.members}
for member in generalized.members:
    groups.setdefault(f"q = {member.settings['q']}", []).append(member)
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for i, (name, members) in enumerate(groups.items()):
    last = [fn.evaluate(m.model, digits.x_test, digits.y_test).accuracy for m in members]
    print(f"{name:8} test accuracy after the last epoch {100 * np.mean(last):.1f} %")
    mean = np.mean([member.history.val_accuracy for member in members], axis=0)
    shade = "0.2" if name == "softmax" else plt.colormaps["viridis"](i / len(groups))
    axes.plot(members[0].history.epoch, 100 * mean, color=shade, label=name)
axes.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(50, 100))
axes.set_title("Two in five training labels are random")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# The picture shows validation accuracy over 60 epochs, a line for each loss. All rise to 90 % or more
# within five epochs. Then softmax (black) and the small $q$ fall, down to about 80 %: the network begins to
# learn the wrong labels by heart, which hurts where labels are right. The larger $q$, the less they fall;
# $q = 0.9$ stays at 93 %. (With right labels there is nothing to gain.)
#
# ## 3 An optimizer
#
# An optimizer is a pair of functions, `init(params) -> opt_state` and `update(grads, opt_state,
# params) -> (updates, opt_state)`. AdaBelief (Zhuang et al. 2020, arXiv 2010.07468) is Adam with one
# change: it divides by how far gradients are from what was expected of them, $m$, and not by
# their size.
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad s \leftarrow \beta_2 s + (1 - \beta_2) (g - m)^2$$
#
# $$update = -\text{rate} \cdot \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \varepsilon}$$


# %%
def adabelief(rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"m": zeros, "s": zeros, "step": jnp.zeros((), jnp.int32)}

    def update(grads, opt_state, params):
        step = opt_state["step"] + 1
        m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, opt_state["m"], grads)
        s = jax.tree.map(
            lambda s, g, m: beta2 * s + (1 - beta2) * (g - m) ** 2, opt_state["s"], grads, m
        )
        fix1, fix2 = 1 - beta1**step, 1 - beta2**step
        updates = jax.tree.map(
            lambda m, s: -rate * (m / fix1) / (jnp.sqrt(s / fix2) + epsilon), m, s
        )
        return updates, {"m": m, "s": s, "step": step}

    return fn.Optimizer(init, update)


# %% [markdown]
# There is no derivative to check here. But the first update can be computed on paper. After one step
# $m = (1 - \beta_1) g$, so $g - m = \beta_1 g$. The corrections cancel $1 - \beta_1$ and $1 - \beta_2$,
# and what remains is $-\text{rate} \cdot g / (\beta_1 |g|)$: for every parameter plus or minus rate / 0.9,
# whatever the gradient is. Planted mistake: leave the corrections out, which many programs did once.

# %%
grads = {"w": np.array([3.0, -0.02, 500.0])}
optimizer = adabelief(1e-3)
updates, opt_state = optimizer.update(grads, optimizer.init(grads), grads)
print("on paper      ", -1e-3 / 0.9 * np.sign(grads["w"]))
print("first update  ", np.array(updates["w"]))
forgotten = opt_state["m"]["w"] / (np.sqrt(opt_state["s"]["w"]) + 1e-8)
print("no corrections", -1e-3 * np.array(forgotten))

# %% [markdown]
# Without them the first steps would be three times as long as they should be. Then a sweep: AdaBelief
# and Adam at nine learning rates. The name is a setting like another; it makes two programs, and the
# rates, which are numbers, are traced through the functions above.

# %%
OPTIMIZERS = {"adabelief": adabelief, "adam": fn.adam}


def experiment(optimizer, learning_rate):
    return fn.mlp([256], 10), OPTIMIZERS[optimizer](learning_rate)


rates = [1e-3, 1e-2] if FAST else [float(f"{rate:.1g}") for rate in np.geomspace(1e-5, 1e-1, 9)]
settings = fn.grid(optimizer=list(OPTIMIZERS), learning_rate=rates, seed=SEEDS)
result = fn.sweep(experiment, digits, settings, **{**options, "epochs": 3 if FAST else 5})
for name in OPTIMIZERS:
    rows = [row for row in result.table() if row["optimizer"] == name]
    means = [np.mean([r["val_accuracy"] for r in rows if r["learning_rate"] == v]) for v in rates]
    print(f"{name:9}", " ".join(f"{100 * mean:5.1f}" for mean in means))
fn.plot_lines(
    result.table(), "learning_rate", lines="optimizer", title="Digits, five epochs, five seeds"
)

# %% [markdown]
# The picture shows validation accuracy over the learning rate, the mean of five seeds as a line and their
# spread as a band. From 0.001 on both are alike, within the spread. At smaller rates AdaBelief gets
# further in the same five epochs: where a gradient is as expected, it divides by less and takes longer
# steps. A fair comparison needs the whole line. At 0.0001 alone AdaBelief would look 20 points better,
# at their best rates they are equal.
#
# To make any of this part of the library, CONTRIBUTING says what goes where. To use it, nothing more is
# needed. Next: [05 Sweeps](05_sweeps.ipynb).
