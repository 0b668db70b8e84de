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
# # Normalization and dropout
#
# What do batch normalization, layer normalization and dropout do to training? The questions are
# those of CS231n's next assignments, *BatchNormalization* and *Dropout*. The answers are ours, and
# each rests on a sweep that trains all the networks it needs at once, with three seeds of each.
#
# Before: [02 Fully connected networks](02_fully_connected_nets.ipynb), the assignment itself.
# Next: [04 Write your own](04_write_your_own.ipynb). How the backward passes come about is in
# [01 Backprop by hand](01_backprop_by_hand.ipynb).
#
# It needs CIFAR-10: `funcnet datasets download cifar10`, once.

# %%
import os

try:
    import funcnet as fn
except ImportError:  # on Colab, say
    # %pip install --quiet "funcnet[notebooks]"
    import funcnet as fn

import jax
import matplotlib.pyplot as plt
import numpy as np

# %matplotlib inline

# A small run, to see that everything works: FUNCNET_NOTEBOOK_FAST=1
FAST = os.environ.get("FUNCNET_NOTEBOOK_FAST") == "1"
SEEDS = range(1 if FAST else 3)
EPOCHS = 1 if FAST else 10

cifar10 = fn.load_cifar10()
mean_image = fn.subtract_mean(cifar10.x_train)


def first(num_train):
    return cifar10._replace(
        x_train=cifar10.x_train[:num_train], y_train=cifar10.y_train[:num_train]
    )


def color(name):
    return {"none": "C0", "batchnorm": "C1", "layernorm": "C2"}[name]


def mean_of(result, measure, **settings):
    """The mean of a measure over the members with these settings."""
    chosen = [m for m in result.members if settings.items() <= m.settings.items()]
    with np.errstate(all="ignore"):  # of members that diverged
        return float(np.mean([measure(member.history) for member in chosen]))


# %% [markdown]
# ## 1 The scale of the initial weights
#
# Eight layers, seven of them hidden with 50 units, on 1,000 images for ten epochs. Twenty scales of
# the initial weights, from 0.0001 to 1; each with and without batch normalization. The two kinds
# of network are two programs. The scales and the seeds are numbers, so each program trains all of
# its sixty networks side by side.


# %%
def deep(normalization, weight_scale):
    norm = None if normalization == "none" else normalization
    net = fn.mlp([50] * (2 if FAST else 7), 10, normalization=norm, weight_scale=weight_scale)
    return net, fn.adam(1e-3)


scales = np.geomspace(1e-4, 1, 4 if FAST else 20)
settings = fn.grid(normalization=["none", "batchnorm"], weight_scale=scales, seed=SEEDS)
by_scale = fn.sweep(
    deep, first(1000), settings, epochs=EPOCHS, batch_size=50, preprocess=mean_image
)

MEASURES = {
    "best training accuracy (%)": lambda history: 100 * history.train_accuracy.max(),
    "best validation accuracy (%)": lambda history: 100 * history.val_accuracy.max(),
    "loss of the last epoch": lambda history: history.loss[-20:].mean(),
}
figure, panels = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
for axes, (title, measure) in zip(panels, MEASURES.items(), strict=True):
    for name in ("none", "batchnorm"):
        line = [mean_of(by_scale, measure, normalization=name, weight_scale=s) for s in scales]
        axes.plot(scales, line, color=color(name), marker="o", ms=4, label=name)
    axes.set(xscale="log", xlabel="scale of the initial weights", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
panels[2].set(yscale="log")
plt.show()
# %% [markdown]
# The picture has the scale along each of its three axes, and a line for each kind of network. Without
# normalization (blue) training accuracy is that of guessing up to a scale of 0.001, then rises to a
# narrow peak at 0.09; the validation accuracy falls off a cliff right behind it, and the loss climbs to
# ten millions. With batch normalization (orange) everything changes slowly: even the smallest scale
# learns something, and the loss of the largest is 3.

# %%
for title, measure in MEASURES.items():
    print(title)
    for name in ("none", "batchnorm"):
        line = [mean_of(by_scale, measure, normalization=name, weight_scale=s) for s in scales]
        print(f"  {name:9}", " ".join(f"{v:6.4g}" for v in line))

# %% [markdown]
# **Inline question 1.** How does the scale of the initial weights affect the two networks
# differently, and why?
#
# **Answer.** Without normalization each layer multiplies what it is given by about its weights, so a
# scale that is off by a factor $f$ changes the scores by about $f^8$, and the gradients likewise. Below
# 0.001 nothing of the images arrives at the scores: all classes stay equally likely, and the loss at
# $\log 10 = 2.3$. Above 0.1 the scores explode. In between is a window of a factor of three in which
# the network trains well. Batch normalization divides what a layer computes by its own spread, so the
# scale of the weights before it cancels, and what arrives is of size 1 at every depth. What is left of
# the dependence has two reasons. The last layer has no normalization behind it, which is where the loss
# of 3 comes from. And Adam moves each weight by about 0.001 a step: from large weights that is too
# little to get anywhere in 200 steps, and small ones forget at once where they began. At its best scale
# the network without normalization is as good. Batch normalization makes that scale easy to find.

# %% [markdown]
# ## 2 Batch normalization and the size of the batch
#
# Batch normalization measures mean and variance on the batch. Five hidden layers of 100 units on
# 1,000 images, ten epochs again, Adam at $10^{-3.5}$; batches of 2, 5, 10 and 50. Layer normalization,
# which looks at one example at a time, goes through the same.


# %%
def of_batches(normalization, batch_size):
    norm = None if normalization == "none" else normalization
    net = fn.mlp([100] * (2 if FAST else 5), 10, normalization=norm, weight_scale=2e-2)
    return net, fn.adam(10**-3.5), {"batch_size": batch_size}


sizes = [50] if FAST else [2, 5, 10, 50]
names = ["none", "batchnorm", "layernorm"]
settings = fn.grid(normalization=names, batch_size=sizes, seed=SEEDS)
by_size = fn.sweep(of_batches, first(1000), settings, epochs=EPOCHS, preprocess=mean_image)

figure, panels = plt.subplots(
    2, 3, figsize=(13, 6.5), sharex=True, sharey="row", layout="constrained"
)
for column, name in zip(panels.T, names, strict=True):
    for i, size in enumerate(sizes):
        members = [
            member.history
            for member in by_size.members
            if (member.settings["normalization"], member.settings["batch_size"]) == (name, size)
        ]
        for axes, field in zip(column, ("train_accuracy", "val_accuracy"), strict=True):
            mean = np.mean([getattr(history, field) for history in members], axis=0)
            shade = plt.colormaps["viridis"](i / len(sizes))
            axes.plot(members[0].epoch, 100 * mean, color=shade, marker="o", ms=3, label=size)
            axes.grid(alpha=0.3)
    column[0].set(title=f"normalization: {name}")
    column[1].set(xlabel="epoch")
panels[0, 0].set(ylabel="training accuracy (%)")
panels[1, 0].set(ylabel="validation accuracy (%)")
panels[0, 0].legend(title="batch size")
plt.show()
# %% [markdown]
# The picture has a column for each kind of network, training accuracy above, validation accuracy below,
# and a line for each size of the batch over the ten epochs. In the left column the four lines lie close
# together. In the middle one they fan out: with batches of 50 batch normalization reaches the highest
# accuracy of all, with batches of 2 it hardly learns. In the right column, layer normalization, they
# are spread as well, but even the lowest learns.

# %%
print("at the end, training / validation accuracy (%)")
print("batch size " + "".join(f"{size:>16}" for size in sizes))
for name in names:
    cells = []
    for size in sizes:
        chosen = {"normalization": name, "batch_size": size}
        train = mean_of(by_size, lambda history: 100 * history.train_accuracy[-1], **chosen)
        val = mean_of(by_size, lambda history: 100 * history.val_accuracy[-1], **chosen)
        cells.append(f"{train:8.1f} / {val:5.1f}")
    print(f"{name:11}" + "".join(cells))

# %% [markdown]
# **Inline question 2.** What do the results say about batch normalization and the size of the
# batch? Why is it so?
#
# **Answer.** The smaller the batch, the worse batch normalization: from 90 % of the training images
# with batches of 50 down to 18 % with batches of 2, where the network without normalization, at 63 %, is far
# better. The mean and the variance of a few examples are poor estimates, and their errors are noise in
# every layer. With two examples each feature is normalized to $+1$ and $-1$, whatever the images show. There
# is a second harm: evaluation uses running averages, which differ from what the network was trained
# with. (This also explains the low start of the line of 50: after its first epoch, 20 steps, the running
# averages still contain an eighth of their initial values.) Layer normalization has no such estimate. Its
# lines differ as those without normalization do, because a small batch means noisier and more steps, but
# small batches do not break it: 60 % with batches of 2.

# %% [markdown]
# ## 3 Layer normalization
#
# **Inline question 3.** Of the usual ways to prepare images, which resemble batch normalization,
# and which layer normalization?
#
# **Answer.** Subtracting the mean image of the training set, as all of these runs do, is like batch
# normalization: a number for each feature, taken over many examples. Giving each image mean 0 and
# variance 1 (`contrast` among funcnet's preprocessings) or making its pixels sum to 1 is like layer
# normalization: a number for each example, taken over its own features. Setting each pixel to 0 or 1
# by a fixed threshold is neither; nothing is measured.
#
# **Inline question 4.** When will layer normalization not work well? CS231n offers a very deep
# network, a very small number of features, and strong regularisation. First the second, on paper and
# in numbers. Of one feature nothing is left after its mean is subtracted: the output is $\beta$,
# whatever went in. Of two features $a$ and $b$, the mean is in the middle, so they become $+1$ and
# $-1$ or the reverse: one bit is left, which of them is larger.

# %%
rng = np.random.default_rng(0)
for features in (1, 2, 3):
    x = rng.normal(size=(4, features)).astype(np.float32)
    ones, zeros = np.ones(features, np.float32), np.zeros(features, np.float32)
    out, _ = fn.layernorm_forward(x, ones, zeros)
    print(f"{features} features, four examples:")
    print(np.array(out).round(3))

# %% [markdown]
# Then all three in training: the network of section 2, with batches of 50 and He's weights, and
# one thing changed at a time.

# %%
CASES = {
    "5 hidden layers of 100 units": {"width": 100, "depth": 5, "reg": 0.0},
    "of 8 units": {"width": 8, "depth": 5, "reg": 0.0},
    "of 4 units": {"width": 4, "depth": 5, "reg": 0.0},
    "of 2 units": {"width": 2, "depth": 5, "reg": 0.0},
    "20 hidden layers": {"width": 100, "depth": 20, "reg": 0.0},
    "L2 of 0.1": {"width": 100, "depth": 5, "reg": 0.1},
    "L2 of 1": {"width": 100, "depth": 5, "reg": 1.0},
}
if FAST:
    CASES = {"2 hidden layers of 4 units": {"width": 4, "depth": 2, "reg": 0.0}}


def shaped(normalization, width, depth, reg):
    norm = None if normalization == "none" else normalization
    net = fn.mlp([width] * depth, 10, normalization=norm)
    return net, fn.adam(1e-3), {"reg": reg}


settings = [
    {"normalization": name, **case, "seed": seed}
    for case in CASES.values()
    for name in names
    for seed in SEEDS
]
by_case = fn.sweep(
    shaped, first(1000), settings, epochs=EPOCHS, batch_size=50, preprocess=mean_image
)
print("best training accuracy (%)" + "".join(f"{name:>12}" for name in names))
for label, case in CASES.items():
    cells = [
        mean_of(by_case, MEASURES["best training accuracy (%)"], normalization=name, **case)
        for name in names
    ]
    print(f"{label:29}" + "".join(f"{cell:9.1f}   " for cell in cells))

# %% [markdown]
# **Answer.** A very small number of features. With 2 units layer normalization is at 10 %, that of
# guessing, and the only one that learns nothing; with 4 or 8 units the few numbers that it leaves are
# enough to help as much as batch normalization does. Depth is no trouble: with 20 hidden layers it is the
# best of the three. Strong regularisation does harm, but not to layer normalization in particular: L2
# of 1 costs both normalized networks more than half of their accuracy, and the plain one nothing. A likely reason
# is that L2 shrinks weights whose scale cancels. The function stays the same, but Adam's steps become
# large beside the weights.

# %% [markdown]
# ## 4 Dropout
#
# Dropout sets each hidden unit to 0 with a probability, anew in each step, and divides those that
# stay by the probability `keep_prob` of staying. The assignment trains one hidden layer of 500 units
# on 500 images, without dropout and keeping a quarter of the units. Here are seven shares. The
# share is a number; one program trains them all.


# %%
def dropped(keep_prob):
    return fn.mlp([500], 10, keep_prob=keep_prob, weight_scale=1e-2), fn.adam(5e-4)


shares = [0.25, 1.0] if FAST else [0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0]
settings = fn.grid(keep_prob=shares, seed=SEEDS)
by_share = fn.sweep(
    dropped,
    first(500),
    settings,
    epochs=5 if FAST else 25,
    batch_size=100,
    preprocess=mean_image,
)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for share, shade in ((1.0, "C0"), (0.25, "C1")):
    members = [m.history for m in by_share.members if m.settings["keep_prob"] == share]
    for field, style in (("train_accuracy", "-"), ("val_accuracy", "--")):
        mean = np.mean([getattr(history, field) for history in members], axis=0)
        label = f"{'training' if style == '-' else 'validation'}, keep_prob {share:g}"
        left.plot(members[0].epoch, 100 * mean, style, color=shade, label=label)
left.set(xlabel="epoch", ylabel="accuracy (%)", title="The course of training")
for field, label in (("train_accuracy", "training"), ("val_accuracy", "validation")):
    line = [
        mean_of(by_share, lambda history, f=field: 100 * getattr(history, f)[-1], keep_prob=share)
        for share in shares
    ]
    print(f"{label:11}", " ".join(f"{v:5.1f}" for v in line))
    right.plot(shares, line, marker="o", ms=4, label=label)
right.set(xlabel="keep_prob", ylabel="accuracy (%)", title="After the last epoch")
for axes in (left, right):
    axes.grid(alpha=0.3)
    axes.legend()

# %% [markdown]
# In the picture the left panel follows two networks over 25 epochs, training accuracy as solid lines and
# validation accuracy as dashed ones. Without dropout (blue) training is all but 100 % after 15 epochs; with a
# quarter kept (orange) it is slower and ends at 94 %. The dashed lines lie together near 30 %, the orange
# one a little higher. The right panel shows the end for all seven shares: training accuracy rises with
# the share that is kept, validation accuracy falls slightly.

# %% [markdown]
# **Inline question.** Why divide by `keep_prob` at all? Without the division a unit that is kept with
# probability $p$ has the mean $p\,x$ in training, but $x$ in evaluation, when nothing is dropped. The next
# layer would see inputs $1/p$ times as large as those it was trained on. With the division the mean is
# $p \cdot x / p = x$ in both. It is quickly seen:

# %%
x = np.ones(100_000, np.float32)
for keep_prob in (0.25, 0.5, 0.75):
    out, _ = fn.dropout_forward(x, jax.random.key(0), keep_prob, train=True)
    zeros = np.mean(np.array(out) == 0)
    print(f"keep_prob {keep_prob}: {100 * zeros:.1f} % are 0, the mean is {out.mean():.3f}")

# %% [markdown]
# **Inline question.** What do the two curves say about dropout as a regulariser?
#
# **Answer.** Dropout is a regulariser: it makes the training images harder to fit and helps with others.
# Keeping everything, the network knows all 500 images by heart and 29.7 % of the validation images.
# The less is kept, the lower the first number and the higher the second: 94.1 and 31.7 % keeping a quarter,
# 76.1 and 32.8 % keeping a tenth. The gain of three points is real, since it grows along the whole line,
# but it is small beside what is missing: 500 images are few, and no regulariser replaces the others.
# It also takes longer. What dropout does in a larger network, with more images, is in
# [07 As accurate as possible](07_as_accurate_as_possible.ipynb).
#
# Next: [04 Write your own](04_write_your_own.ipynb).
