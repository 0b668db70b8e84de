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
# # As accurate as possible
#
# The assignment ends with "train the best fully connected model that you can on CIFAR-10". This is
# the recipe `cifar10-cpu`: what it reaches in a quarter of an hour on two CPU cores, and what leaving
# out each of its ingredients does in a shorter run. From the command line it is
# `funcnet train --recipe cifar10-cpu`.
#
# Before: [06 Tables](06_tables.ipynb). This is the last notebook of the course, which began with
# [01 Backprop by hand](01_backprop_by_hand.ipynb).
#
# It needs CIFAR-10: `funcnet datasets download cifar10`, once.

# %%
import os
import time

try:
    import funcnet as fn
except ImportError:  # on Colab, say
    # %pip install --quiet "funcnet[notebooks]"
    import funcnet as fn

import matplotlib.pyplot as plt
import numpy as np

# %matplotlib inline

# A small run, to see that everything works: FUNCNET_NOTEBOOK_FAST=1
FAST = os.environ.get("FUNCNET_NOTEBOOK_FAST") == "1"
SMALL = {"hidden": [32, 32], "num_train": 2000, "preprocess": ["contrast"]} if FAST else {}

cifar10 = fn.load_cifar10(num_test=500 if FAST else 10000)

# %% [markdown]
# ## The recipe
#
# A recipe is data. Each image gets mean 0 and variance 1, then PCA whitening keeps 400 of its 3,072
# dimensions. The network is two hidden layers of 1,536 units with layer normalization and dropout, on images
# that are flipped and shifted anew in each epoch and mixed in pairs, with softened labels;
# AdamW follows one cycle of the learning rate.

# %%
changes = {"epochs": 2, **SMALL} if FAST else {}
recipe = fn.load_recipe("cifar10-cpu", **changes)
{name: value for name, value in recipe.items() if value not in (None, (), 0.0, "none")}

# %% [markdown]
# ## Accuracy over minutes
#
# The test accuracy is measured every five epochs, of the images as they are and averaged over ten
# views of each, flipped and shifted. The model that counts is the best on the validation set;
# the curve is there to be looked at, nothing is chosen by it. The clock runs for whitening, compiling
# and training, and stands still while the test set is measured.

# %%
started, looking = time.perf_counter(), 0.0
minutes, plain, averaged = [], [], []
net, optimizer, dataset, options = fn.experiment(recipe, cifar10)


def look(epoch, train_state, metrics):
    global looking
    if epoch % 5 and epoch != recipe["epochs"]:
        return
    before = time.perf_counter()
    minutes.append((before - started - looking) / 60)
    model = fn.Model(net, train_state.params, train_state.state, options["preprocess"])
    test = cifar10.x_test, cifar10.y_test
    plain.append(fn.evaluate(model, *test).accuracy)
    averaged.append(fn.evaluate(model, *test, views=fn.flips_and_shifts()).accuracy)
    looking += time.perf_counter() - before


result = fn.fit(net, optimizer, dataset, callback=look, **options)
print(f"{minutes[-1]:.1f} minutes; best on the validation set after epoch {result.best.epoch}")
print(fn.evaluate(result.best, cifar10.x_test, cifar10.y_test))
print(fn.evaluate(result.best, cifar10.x_test, cifar10.y_test, views=fn.flips_and_shifts()))

# %%
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(minutes, 100 * np.array(averaged), label="averaged over ten views")
axes.plot(minutes, 100 * np.array(plain), label="one view")
axes.set(xlabel="minutes on two CPU cores", ylabel="test accuracy (%)", title="cifar10-cpu")
axes.legend()
axes.grid(alpha=0.3)


# %% [markdown]
# The picture shows test accuracy over the minutes of training. Both lines rise steeply to 50 % within two
# minutes and then ever more slowly, to 70.5 % of one view and 72.4 % averaged over ten views, which is two
# points above it nearly all the way. (The first point is at 0.3 minutes, since whitening comes before
# training.)
#
# ## What augmentation costs
#
# The same epoch with flips and shifts, and with a function in their place that changes nothing.


# %%
def unchanged(key, images):
    return images


def seconds_per_epoch(augment, epochs):
    """The median, without the first one, which compiles."""
    times = []
    clock = {**options, "augment": augment, "epochs": epochs, "eval_every": None}
    fn.fit(net, optimizer, dataset, callback=lambda *_: times.append(time.perf_counter()), **clock)
    return np.median(np.diff(times)[1:])


augmented, same = (seconds_per_epoch(a, 3 if FAST else 6) for a in (options["augment"], unchanged))
print(f"an epoch with flips and shifts: {augmented:.2f} s, without: {same:.2f} s")
print(f"augmentation is {100 * (augmented - same) / augmented:.0f} % of it")

# %% [markdown]
# ## What leaving an ingredient out does
#
# Each row leaves one ingredient out of the recipe, in runs of 30 epochs instead of 90, of one seed (from seed to seed the
# full recipe varies by about 0.8). Flips and shifts are worth most, 8 points of one view; averaging over ten
# views gives back part of it to a network that never saw any. Whitening and layer normalization are worth 2.5 points each, the
# schedule of the learning rate one. Label smoothing and weight decay make no difference that one seed could show. Dropout
# and mixup still cost 1 to 2 points at 30 epochs: they are there against the overfitting of a longer run, and what they
# are worth over 90 epochs, this table cannot say.

# %%
ABLATION = {
    "the recipe": {},
    "no whitening": {"preprocess": ["standardize"]},
    "no flips, no shifts": {"augment": []},
    "no layer normalization": {"normalization": "none"},
    "no dropout": {"keep_prob": None},
    "no mixup": {"mixup_alpha": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "constant learning rate": {"schedule": "constant"},
}
short = {"epochs": 1 if FAST else 30, "eval_every": 0}
rows = dict(list(ABLATION.items())[: 2 if FAST else None])
print(f"{'':26}  one view  ten views")
for name, without in rows.items():
    config = fn.load_recipe("cifar10-cpu", **{**short, **without, **SMALL})
    net, optimizer, dataset, options = fn.experiment(config, cifar10)
    model = fn.fit(net, optimizer, dataset, **options).model
    one = fn.evaluate(model, cifar10.x_test, cifar10.y_test).accuracy
    ten = fn.evaluate(model, cifar10.x_test, cifar10.y_test, views=fn.flips_and_shifts()).accuracy
    print(f"{name:26}  {100 * one:8.2f}  {100 * ten:9.2f}")
