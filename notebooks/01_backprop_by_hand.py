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
# # Backprop by hand
#
# Every gradient in funcnet is written by hand. This notebook derives them, one layer after another:
# affine, ReLU, the softmax loss, batch normalization, layer normalization and dropout. Each formula
# stands beside the function that computes it, and is checked by numerical differentiation. In the
# end two mistakes are planted, to see which checks find them.
#
# Next: [02 Fully connected networks](02_fully_connected_nets.ipynb), where these layers become the
# assignment. This is the first notebook of the course. It needs no data.

# %%
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

# Numerical differentiation needs float64, which JAX wants to be asked for.
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1 The chain rule over a batch
#
# Training wants one number to fall, the loss $L$. For each array $a$ on the way to it, its gradient
# $da$ has the **same shape** as $a$, and says how $L$ changes with each element:
#
# $$da_{ij} = \frac{\partial L}{\partial a_{ij}}$$
#
# A layer computes `out` from `x`. Its backward pass is given `dout`, and it has to find `dx`. It
# knows nothing of what comes after the layer; `dout` says all that matters of that. By the chain rule
# every element of `out` is a way by which an element of `x` reaches the loss, and the ways add up:
#
# $$dx_{nd} = \sum_{m,k} dout_{mk}\,\frac{\partial out_{mk}}{\partial x_{nd}}$$
#
# The derivatives on the right are the Jacobian of the layer. It is large: for 200 images of 3,072
# numbers and 100 units it has $200 \cdot 100 \cdot 200 \cdot 3072$, twelve billion elements. Nobody
# ever builds it, because most of it is 0. Here it is for four examples of three features. Rows are
# elements of `out`, columns elements of `x`.

# %%
N, D = 4, 3
x = rng.normal(size=(N, D))
w, b = rng.normal(size=(D, D)), rng.normal(size=D)
gamma, beta = rng.uniform(0.5, 2, D), rng.normal(size=D)
running = {"mean": np.zeros(D), "var": np.ones(D)}


def batchnorm(x, gamma, beta):
    return fn.batchnorm_forward(x, gamma, beta, running, train=True)[0]


LAYERS = {
    "affine": lambda x: fn.affine_forward(x, w, b)[0],
    "ReLU": lambda x: fn.relu_forward(x)[0],
    "batch normalization": lambda x: batchnorm(x, gamma, beta),
    "layer normalization": lambda x: fn.layernorm_forward(x, gamma, beta)[0],
}
figure, panels = plt.subplots(1, 4, figsize=(14, 3.8), layout="constrained")
for axes, (name, layer) in zip(panels, LAYERS.items(), strict=True):
    jacobian = np.array(jax.jacobian(layer)(x)).reshape(N * D, N * D)
    axes.imshow(np.where(jacobian == 0, np.nan, np.abs(jacobian)), cmap="viridis", vmin=0)
    axes.set(title=name, xlabel="x: example, feature", ylabel="out: example, feature")
    places = [f"{n},{d}" for n in range(N) for d in range(D)]
    axes.set_xticks(range(N * D), places, fontsize=6, rotation=90)
    axes.set_yticks(range(N * D), places, fontsize=6)
    for edge in range(D, N * D, D):
        axes.axhline(edge - 0.5, color="0.8", linewidth=0.8)
        axes.axvline(edge - 0.5, color="0.8", linewidth=0.8)

# %% [markdown]
# In the picture colour is a derivative that is not 0, and white is 0. *Affine* and *layer
# normalization* have a block of three by three for each example on the diagonal: an example depends on
# itself alone, with all of its features. *ReLU* has points on the diagonal, those where `x` is above
# 0: each element depends on itself alone. *Batch normalization* has slanted stripes across
# all blocks: a feature depends on the same feature of all examples, and on no other feature.
#
# So much can be said of a backward pass before it is written: what `dx` of an example depends on is
# what its `out` depends on, read the other way.
#
# The judge of all that follows moves one element of an input at a time, by a small $h$ in both
# directions, and looks at what comes out:
#
# $$dx_{nd} \approx \sum_{m,k} dout_{mk}\, \frac{out_{mk}(x + h) - out_{mk}(x - h)}{2h}$$
#
# This is `fn.numerical_gradient`. For `dout` it takes random numbers; section 9 shows why. The error
# is measured against the largest element of each gradient (`fn.scaled_error`).


# %%
def judge(forward, inputs, dout, by_hand):
    """Compare gradients by hand with numerical ones; both are dicts by name."""
    numerical = fn.numerical_gradient(lambda values: forward(**values), inputs, dout)
    for name, gradient in by_hand.items():
        error = fn.scaled_error(gradient, numerical[name])
        print(f"d{name:6} {np.shape(gradient)!s:9} differs by {error:.0e}")


# %% [markdown]
# ## 2 Affine
#
# $$out = x\,w + b, \qquad out_{nm} = \sum_d x_{nd}\,w_{dm} + b_m$$
#
# with $x$ of shape $[N, D]$, $w$ $[D, M]$ and $b$ $[M]$. Which ways lead to the loss? The number
# $x_{nd}$ is in $out_{nm}$ for every $m$, each time with the factor $w_{dm}$. The number $w_{dm}$ is
# in $out_{nm}$ for every example $n$, with the factor $x_{nd}$; and $b_m$ too, with the factor 1. Hence
#
# $$dx_{nd} = \sum_m dout_{nm}\,w_{dm}, \qquad dw_{dm} = \sum_n x_{nd}\,dout_{nm}, \qquad
# db_m = \sum_n dout_{nm}$$
#
# and these sums are matrix products:
#
# $$dx = dout\,w^T, \qquad dw = x^T dout, \qquad db = \text{sum of } dout \text{ over the batch}$$
#
# **Shapes determine most of it.** `dx` must be $[N, D]$. It is made of `dout` $[N, M]$ and `w`
# $[D, M]$, and there is one matrix product of these two with this shape, $dout\,w^T$. Likewise `dw`
# $[D, M]$ can only be $x^T dout$. And where an axis is gone, as $N$ is in `dw` and `db`, it was summed
# over: all examples share the parameters, so their gradients add up.


# %%
def matrix(axes, left, rows, columns, name, shade):
    """Draw a matrix as a box, `left` from the left edge; returns its right edge."""
    height, width = SIZES[rows], SIZES[columns]
    box = plt.Rectangle((left, -height / 2), width, height, facecolor=shade, edgecolor="0.2")
    axes.add_patch(box)
    axes.text(left + width / 2, 0, name, ha="center", va="center")
    axes.text(left + width / 2, height / 2 + 0.1, columns, ha="center", va="bottom", color="0.4")
    axes.text(left - 0.1, 0, rows, ha="right", va="center", color="0.4")
    return left + width


def equation(axes, result, *factors):
    """Draw result = factor factor ...; each is (name, rows, columns, colour)."""
    right = matrix(axes, 0.3, *(result[i] for i in (1, 2, 0, 3)))
    for sign, (name, rows, columns, shade) in zip("=·", factors, strict=False):
        axes.text(right + 0.35, 0, sign, ha="center", va="center", fontsize=14)
        right = matrix(axes, right + 0.95, rows, columns, name, shade)
    axes.set(xlim=(-0.2, 9.8), ylim=(-1.6, 2.1), aspect="equal")
    axes.axis("off")


SIZES = {"N": 2.4, "D": 3.0, "M": 1.3}
DATA, WEIGHT, GRADIENT = "lightsteelblue", "khaki", "lightsalmon"
figure, panels = plt.subplots(1, 3, figsize=(14, 2.4), layout="constrained")
forward = [("out", "N", "M", DATA), ("x", "N", "D", DATA), ("w", "D", "M", WEIGHT)]
to_x = [("dx", "N", "D", GRADIENT), ("dout", "N", "M", GRADIENT), ("$w^T$", "M", "D", WEIGHT)]
to_w = [("dw", "D", "M", GRADIENT), ("$x^T$", "D", "N", DATA), ("dout", "N", "M", GRADIENT)]
for axes, title, parts in zip(
    panels, ("forward", "backward to x", "backward to w"), (forward, to_x, to_w), strict=True
):
    equation(axes, *parts)
    axes.set_title(title)

# %% [markdown]
# The picture shows the three products of an affine layer as boxes, with the sizes $N$, $D$ and $M$
# at their edges; data are blue, weights yellow, gradients red. On the left `out` is `x` times `w`. In
# the middle `dx` is `dout` times $w^T$, on the right `dw` is $x^T$ times `dout`. The sizes
# that meet inside each product agree, and no other arrangement would make them agree.

# %%
N, D, M = 6, 5, 3
x, w, b = rng.normal(size=(N, D)), rng.normal(size=(D, M)), rng.normal(size=M)
dout = rng.normal(size=(N, M))


def affine(x, w, b):
    return fn.affine_forward(x, w, b)[0]


by_hand = {"x": dout @ w.T, "w": x.T @ dout, "b": dout.sum(axis=0)}
judge(affine, {"x": x, "w": w, "b": b}, dout, by_hand)

out, cache = fn.affine_forward(x, w, b)
theirs = dict(zip("xwb", fn.affine_backward(dout, cache), strict=True))
print("fn.affine_backward differs by", float(fn.scaled_error(by_hand, theirs)))

# %% [markdown]
# The `cache` is what the forward pass keeps for the backward pass. The formulas say what that is:
# $x$ and $w$, since they occur in them.
#
# ## 3 ReLU
#
# $$out = \max(0, x), \qquad dx = \begin{cases} dout & x > 0 \\ 0 & x \le 0 \end{cases}$$
#
# Each element is on its own. At 0 there is a kink, and no derivative; the convention is 0.

# %%
x, dout = rng.normal(size=(N, D)), rng.normal(size=(N, D))
judge(lambda x: fn.relu_forward(x)[0], {"x": x}, dout, {"x": np.where(x > 0, dout, 0)})

# %% [markdown]
# ## 4 The softmax loss
#
# Scores $s$ $[N, C]$ become probabilities $p$, and the loss is the mean of $-\log p$ of the right
# classes $y$:
#
# $$p_{nj} = \frac{e^{s_{nj}}}{\sum_k e^{s_{nk}}}, \qquad L = -\frac1N \sum_n \log p_{n y_n}
# = \frac1N \sum_n \Big( \log \sum_k e^{s_{nk}} - s_{n y_n} \Big)$$
#
# Written like this it is short. The derivative of $\log \sum_k e^{s_{nk}}$ with respect to $s_{nj}$ is
# $e^{s_{nj}} / \sum_k e^{s_{nk}} = p_{nj}$, and that of $s_{n y_n}$ is 1 if $j = y_n$, else 0. So
#
# $$ds = \frac{p - \text{onehot}(y)}{N}$$
#
# This is where `dout` comes from: the backward pass of a network begins with `ds`. Each row says
# how much too large each probability is; the row adds up to 0.

# %%
scores, y = rng.normal(size=(N, 4)), rng.integers(4, size=N)
p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
by_hand = {"scores": (p - np.eye(4)[y]) / N}
judge(lambda scores: fn.softmax_loss(scores, y)[0], {"scores": scores}, 1.0, by_hand)
loss, dscores = fn.softmax_loss(scores, y)
print("fn.softmax_loss differs by", f"{fn.scaled_error(by_hand['scores'], dscores):.0e}")
print("the rows add up to", np.abs(by_hand["scores"].sum(axis=1)).max().round(15))

# %% [markdown]
# ## 5 Batch normalization
#
# Each feature is normalized over the batch. Features do not meet, so the formulas are those of one
# column, and all means are over the $N$ examples. In small steps:
#
# $$\mu = \text{mean}(x), \quad c = x - \mu, \quad v = \text{mean}(c^2), \quad \sigma = \sqrt{v +
# \varepsilon}, \quad \hat x = c / \sigma, \quad out = \gamma \hat x + \beta$$


# %%
def flow(axes, nodes, arrows):
    """Nodes at (x, y); black arrows forward, and red ones back with the gradient they carry."""
    for start, end, gradient, dx, dy in arrows:
        for tail, head, shade in ((start, end, "0.2"), (end, start, "C3")):
            style = {"arrowstyle": "->", "color": shade, "shrinkA": 17, "shrinkB": 17}
            style["connectionstyle"] = "arc3,rad=0.12"
            axes.annotate("", nodes[head], nodes[tail], arrowprops=style)
        middle = np.add(nodes[start], nodes[end]) / 2
        axes.text(middle[0] + dx, middle[1] + dy, gradient, color="C3", ha="center", va="center")
    for name, place in nodes.items():
        box = {"boxstyle": "circle,pad=0.35", "facecolor": "lightsteelblue", "edgecolor": "0.2"}
        axes.text(*place, name, ha="center", va="center", bbox=box, fontsize=12)
    axes.set(xlim=(-0.5, 10.5), ylim=(-0.7, 2.4))
    axes.axis("off")


NODES = {
    "$x$": (0, 0),
    r"$\mu$": (1.5, 1.9),
    "$c$": (3, 0),
    "$v$": (4.2, 1.9),
    r"$\sigma$": (6.4, 1.9),
    r"$\hat x$": (7.6, 0),
    "$out$": (10, 0),
}
ARROWS = [
    ("$x$", r"$\mu$", r"$d\mu \, / N$", -0.75, 0.25),
    (r"$\mu$", "$c$", r"$-\sum dc$", 0.75, 0.25),
    ("$x$", "$c$", "$dc$", 0, 0.35),
    ("$c$", "$v$", r"$dv \cdot 2c \, / N$", 1.0, -0.15),
    ("$v$", r"$\sigma$", r"$d\sigma \, / \, 2\sigma$", 0, 0.3),
    (r"$\sigma$", r"$\hat x$", r"$-\sum d\hat x \, c \, / \sigma^2$", 1.05, 0.25),
    ("$c$", r"$\hat x$", r"$d\hat x \, / \sigma$", 0, 0.42),
    (r"$\hat x$", "$out$", r"$dout \cdot \gamma$", 0, 0.35),
]
figure, axes = plt.subplots(figsize=(11, 3.6), layout="constrained")
flow(axes, NODES, ARROWS)

# %% [markdown]
# The picture shows how the values depend on one another: black arrows lead forward from $x$ on the
# left to $out$ on the right, red ones lead the gradient back, with what they carry written beside
# them. Two nodes are reached on two ways:
# $x$ goes into $c$ directly and through $\mu$, and $c$ into $\hat x$ directly and through $v$ and
# $\sigma$. Where ways part on the way forward, gradients add up on the way back.
#
# Back from the right, arrow by arrow:
#
# 1. $out = \gamma \hat x + \beta$: $\;d\hat x = dout\,\gamma$, and of the parameters, which all
#    examples share, $\;d\gamma = \sum dout\,\hat x$, $\;d\beta = \sum dout$.
# 2. $\hat x = c / \sigma$: directly $\;dc = d\hat x / \sigma$; and, since one $\sigma$ is in the $\hat x$
#    of all examples, $\;d\sigma = -\sum d\hat x\, c / \sigma^2 = -\frac1\sigma \sum d\hat x\,\hat x$.
# 3. $\sigma = \sqrt{v + \varepsilon}$: $\;dv = d\sigma / (2 \sigma)$.
# 4. $v = \frac1N \sum c^2$: one more part of $dc$, which is $\;dv \cdot 2c / N$. With 2 and 3 it is
#    $-\frac{c}{N \sigma^2} \sum d\hat x\,\hat x = -\frac1\sigma\, \hat x\, \text{mean}(d\hat x\,\hat x)$.
#    Together $\;dc = \frac1\sigma \big( d\hat x - \hat x\, \text{mean}(d\hat x\,\hat x) \big)$.
# 5. $c = x - \mu$ with $\mu$ the mean: $\;dx = dc - \text{mean}(dc)$. The mean of $\hat x$ is 0, so
#    $\text{mean}(dc) = \frac1\sigma \text{mean}(d\hat x)$.
#
# This gives the formula of `fn.batchnorm_backward`, with three terms:
#
# $$dx = \frac{1}{\sigma} \Big( d\hat x - \text{mean}(d\hat x) - \hat x\,\text{mean}(d\hat x\,\hat x)
# \Big)$$
#
# The second and the third term take something out of $d\hat x$. Adding a constant to a feature does
# not change `out`, and stretching it does not either, but for $\varepsilon$. Along these two
# directions the gradient has to be 0.


# %%
def step_by_step(dout, x, gamma, eps=1e-5):
    """dx of batch normalization, one arrow of the picture at a time."""
    N = len(x)
    c = x - x.mean(axis=0)  # [N, D]
    sigma = np.sqrt((c**2).mean(axis=0) + eps)  # [D]
    dxhat = dout * gamma  # [N, D]
    dsigma = -(dxhat * c).sum(axis=0) / sigma**2  # [D]
    dv = dsigma / (2 * sigma)  # [D]
    dc = dxhat / sigma + dv * 2 * c / N  # [N, D], two ways
    return dc - dc.mean(axis=0)  # two ways


def in_one_line(dout, x, gamma, eps=1e-5):
    """dx of batch normalization by the formula."""
    sigma = np.sqrt(x.var(axis=0) + eps)
    xhat = (x - x.mean(axis=0)) / sigma
    dxhat = dout * gamma
    return (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0)) / sigma


x = 3 * rng.normal(size=(N, D)) + 1
gamma, beta = rng.uniform(0.5, 2, D), rng.normal(size=D)
running = {"mean": np.zeros(D), "var": np.ones(D)}
dout = rng.normal(size=(N, D))
_, cache, _ = fn.batchnorm_forward(x, gamma, beta, running, train=True)
dx, dgamma, dbeta = fn.batchnorm_backward(dout, cache)
judge(
    batchnorm,
    {"x": x, "gamma": gamma, "beta": beta},
    dout,
    {"x": in_one_line(dout, x, gamma), "gamma": dgamma, "beta": dbeta},
)
print("step by step differs by", f"{fn.scaled_error(step_by_step(dout, x, gamma), dx):.0e}")
print("fn.batchnorm_backward differs by", f"{fn.scaled_error(in_one_line(dout, x, gamma), dx):.0e}")
print("sum of dx over the batch:", np.abs(dx.sum(axis=0)).max().round(15))

# %% [markdown]
# In evaluation mean and variance are the running ones, which are constants. The ways through
# $\mu$ and $\sigma$ are gone, and $dx = d\hat x / \sigma$ is all.
#
# ## 6 Layer normalization
#
# The same steps, with means over the features of each example instead of over the examples:
#
# $$dx = \frac{1}{\sigma} \Big( d\hat x - \text{mean}_D(d\hat x) - \hat x\,\text{mean}_D(d\hat x\,\hat
# x) \Big)$$
#
# Nothing has to be derived again: with $\gamma = 1$ layer normalization of $x$ is batch normalization
# of $x^T$. One thing is not transposed. $\gamma$ and $\beta$ belong to features, and so $d\gamma$ and
# $d\beta$ are still sums over the batch, and $d\hat x = dout\,\gamma$ is taken before the means.


# %%
def layernorm(x, gamma, beta):
    return fn.layernorm_forward(x, gamma, beta)[0]


_, cache = fn.layernorm_forward(x, gamma, beta)
dx, dgamma, dbeta = fn.layernorm_backward(dout, cache)
inputs = {"x": x, "gamma": gamma, "beta": beta}
judge(layernorm, inputs, dout, {"x": dx, "gamma": dgamma, "beta": dbeta})
transposed = in_one_line((dout * gamma).T, x.T, np.ones(N)).T
print("batch normalization of the transposed differs by", f"{fn.scaled_error(transposed, dx):.0e}")

# %% [markdown]
# ## 7 Dropout
#
# A mask of zeros and ones is drawn, each 1 with probability $p$. It is a constant of the step, and
#
# $$out = x \cdot mask / p, \qquad dx = dout \cdot mask / p$$
#
# The backward pass must use the mask of the forward pass, which is why it is in the cache. The judge
# needs the same mask each time that it calls the function: in JAX that is the same key.

# %%
key = jax.random.key(0)
out, cache = fn.dropout_forward(x, key, 0.75, train=True)
print("kept:", int((np.array(out) != 0).sum()), "of", out.size)
judge(
    lambda x: fn.dropout_forward(x, key, 0.75, train=True)[0],
    {"x": x},
    dout,
    {"x": fn.dropout_backward(dout, cache)},
)

# %% [markdown]
# ## 8 A whole network
#
# A network is layers one after another. Forward, each gives its output to the next and keeps its
# cache. Backward, in reverse, each is given the gradient of its output and gives that of its input
# to the one before. Nothing else is in `fn.loss_and_grads`.

# %%
x, y = rng.normal(size=(N, 8)), rng.integers(3, size=N)
net = fn.serial(fn.affine(D), fn.batchnorm(), fn.relu(), fn.affine(3))
params, state, _ = net.init(jax.random.key(0), (8,))

# Forward.
first, norm, last = params["affine1"], params["batchnorm1"], params["affine2"]
a1, cache1 = fn.affine_forward(x, first["w"], first["b"])
a2, cache2, _ = fn.batchnorm_forward(
    a1, norm["gamma"], norm["beta"], state["batchnorm1"], train=True
)
a3, cache3 = fn.relu_forward(a2)
scores, cache4 = fn.affine_forward(a3, last["w"], last["b"])
loss, dscores = fn.softmax_loss(scores, y)

# Backward, in reverse.
da3, dw2, db2 = fn.affine_backward(dscores, cache4)
da2 = fn.relu_backward(da3, cache3)
da1, dgamma, dbeta = fn.batchnorm_backward(da2, cache2)
dx, dw1, db1 = fn.affine_backward(da1, cache1)

by_hand = {
    "affine1": {"w": dw1, "b": db1},
    "batchnorm1": {"gamma": dgamma, "beta": dbeta},
    "affine2": {"w": dw2, "b": db2},
}
_, grads, _ = fn.loss_and_grads(net, params, state, x, y)
print("by fn.loss_and_grads the gradients differ by", float(fn.scaled_error(by_hand, grads)))
print(fn.check_gradients(net, params, state, x, y))

# %% [markdown]
# `fn.check_gradients` compares every element of every parameter with two judges, autodiff of the
# forward pass and numerical differentiation, and says which element is the worst. The bias of
# `affine1` is followed by batch normalization, which subtracts any constant: its true gradient is 0.
#
# ## 9 How a mistake shows up
#
# **A forgotten term.** Take the third term out of the backward pass of batch normalization. A
# tempting check is to let $L$ be the sum of `out`, which makes `dout` all ones. Does it see the mistake?


# %%
def without_third_term(dout, x, gamma, eps=1e-5):
    sigma = np.sqrt(x.var(axis=0) + eps)
    dxhat = dout * gamma
    return (dxhat - dxhat.mean(axis=0)) / sigma


x = 3 * rng.normal(size=(N, D)) + 1
figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for axes, name in zip(panels, ("all ones", "random"), strict=True):
    dout = np.ones((N, D)) if name == "all ones" else rng.normal(size=(N, D))
    numerical = fn.numerical_gradient(lambda x: batchnorm(x, gamma, beta), x, dout)
    difference = np.abs(without_third_term(dout, x, gamma) - numerical)
    print(f"dout {name:8}: the largest difference is {difference.max():.0e}")
    image = axes.imshow(difference, vmin=0, vmax=0.5)
    axes.set(title=f"dout {name}", xlabel="feature", ylabel="example")
figure.colorbar(image, ax=panels, label="|by hand - numerical|")
plt.show()

# %% [markdown]
# The picture shows the difference in each element of `dx`: on the left, with ones, it is 0
# everywhere; on the right, with random numbers, hardly an element is right. With ones $d\hat x$ is
# the same for all examples. The first two terms cancel, and the third is $\hat x\,\text{mean}(d\hat
# x\,\hat x) = \hat x\,\gamma\,\text{mean}(\hat x) = 0$. The sum of `out` does not depend on `x` at all,
# so the true gradient is 0, and many a wrong formula gives 0 as well. A random `dout` has no such luck.
#
# **One wrong element.** Another tempting check is quick: move all parameters along one random
# direction $u$ and compare the change of the loss with $\sum dw\, u$. Training is in float32, so why
# not check in float32? Below is a layer with 131,072 weights. In a copy of its backward pass the sign of
# one element of `dw` is wrong.


# %%
def wrong_backward(dout, cache):
    dx, dw, db = fn.affine_backward(dout, cache)
    return dx, dw.at[200, 7].multiply(-1), db


def init_affine(key, in_shape):
    shape = (*in_shape, 256)
    return {"w": jax.random.normal(key, shape) / 16, "b": jnp.zeros(256)}, {}, (256,)


wrong_affine = fn.make_layer(
    "affine", fn.affine_forward, wrong_backward, init_affine, names=["w", "b"]
)
right = fn.serial(fn.affine(256), fn.relu(), fn.affine(10))
wrong = fn.serial(wrong_affine, fn.relu(), fn.affine(10))
x, y = rng.normal(size=(100, 512)).astype(np.float32), rng.integers(10, size=100)
params, _, _ = right.init(jax.random.key(1), (512,))
params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
w, h = params["affine1"]["w"], np.float32(1e-4)


@jax.jit
def along(seed):
    """The slope of the loss along a random direction of w: numerical, right and wrong."""
    u = jax.random.normal(jax.random.key(seed), w.shape, np.float32)
    up, down = (
        fn.loss(right, params.set(("affine1", "w"), w + step * u), {}, x, y) for step in (h, -h)
    )
    gradients = [
        fn.loss_and_grads(net, params, {}, x, y)[1]["affine1"]["w"] for net in (right, wrong)
    ]
    return (up - down) / (2 * h), *((dw * u).sum() for dw in gradients)


numerical, *by_hand = np.array([along(seed) for seed in range(40)]).T
figure, axes = plt.subplots(figsize=(8, 2.4), layout="constrained")
for row, slopes in enumerate(by_hand):
    errors = np.abs(slopes - numerical) / np.abs(numerical)
    axes.plot(errors, np.full(len(errors), row), "o", alpha=0.6)
    print(f"{('right', 'wrong')[row]} gradient: median error {np.median(errors):.1e}")
axes.set(xscale="log", xlabel="relative error along a random direction", ylim=(-0.6, 1.6))
axes.set_yticks([0, 1], ["right gradient", "one wrong element"])
axes.grid(alpha=0.3)

# %% [markdown]
# The picture has a point for each of forty directions: below the errors of the right gradient, above
# those of the wrong one. Both lie between 0.1 and 20 percent but for a few, one percent in the median,
# and nobody could tell which is which. The step $h$ is not to blame: larger ones cross kinks of
# the ReLU, smaller ones drown in the rounding of float32. One element of 131,072 changes the slope
# by less than either. Element by element, in float64, there is no doubt:

# %%
print(fn.check_gradients(wrong, params, {}, x, y, max_elements=300))

# %% [markdown]
# The wrong element stands there by name, `affine1/w[200, 7]`, and its error is two hundred billion times
# what is allowed. `max_elements=300` spares numerical differentiation most of the work, and so
# it missed the element; autodiff compares all of them.
#
# What to take from this: check every element, in float64, with a random gradient from above. It is
# what `fn.check_gradients` does for every layer here, and for yours in
# [04 Write your own](04_write_your_own.ipynb).
#
# Next: [02 Fully connected networks](02_fully_connected_nets.ipynb).
