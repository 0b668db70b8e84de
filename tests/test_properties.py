"""What holds whatever the values: trees, layers, networks, losses, optimizers, splits and epochs.

Shapes are drawn from a few, so that little is compiled. New layers, losses and optimizers are
found by their names and need no row here.
"""

import copy
import inspect
import itertools
import math
import operator
from functools import partial, reduce

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import funcnet as fn

pytestmark = pytest.mark.usefixtures("unoptimized")


def examples(count):
    """Settings: so many examples. The fixtures of this file are the same for each of them."""
    same = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, suppress_health_check=same)


seeds = st.integers(0, 2**32 - 1)
ties = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -2.0])
numbers = ties | st.floats(-8, 8, allow_subnormal=False)


def arrays(shape, elements=numbers):
    return hnp.arrays(np.float64, shape, elements=elements)


def order_of(count):
    return st.permutations(range(count)).map(np.array)


# Trees

names = st.text("abw", min_size=1, max_size=2)
leaves = st.builds(
    np.full,
    st.sampled_from([(), (0,), (3,), (2, 2)]),
    st.integers(0, 3),
    st.sampled_from([np.float32, np.int32, np.bool_]),
)
nested = st.recursive(leaves, lambda child: st.dictionaries(names, child, max_size=3), max_leaves=6)
trees = st.dictionaries(names, nested, max_size=3)


def places(tree):
    """The leaves of nested dicts by their paths of keys."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(key.key for key in path): leaf for path, leaf in found}


def shuffled(tree, random):
    if not isinstance(tree, dict):
        return tree
    items = list(tree.items())
    random.shuffle(items)
    return {key: shuffled(value, random) for key, value in items}


@examples(50)
@given(trees, st.randoms(use_true_random=False))
def test_the_order_in_which_a_tree_is_built_leaves_no_trace(tree, random):
    frozen, other = fn.freeze(tree), shuffled(tree, random)
    merged = reduce(operator.or_, ({key: value} for key, value in other.items()), fn.FrozenDict())
    added = reduce(lambda made, item: made.set(*item), other.items(), fn.FrozenDict())
    for twin in (fn.freeze(other), merged, added):
        assert twin == frozen
        assert repr(twin) == repr(frozen)
        assert jax.tree.structure(twin) == jax.tree.structure(frozen)
        assert hash(jax.tree.structure(twin)) == hash(jax.tree.structure(frozen))


@examples(60)
@given(trees.filter(places), st.data())
def test_trees_are_equal_until_one_leaf_differs(tree, data):
    frozen = fn.freeze(tree)
    path = data.draw(st.sampled_from(list(places(frozen))))
    leaf = np.asarray(places(frozen)[path])
    changed = {
        "value": frozen.set(path, np.logical_not(leaf).astype(leaf.dtype)),
        "dtype": frozen.set(path, leaf.astype(np.int8)),
        "shape": frozen.set(path, leaf[None]),
        "name": frozen.without(path).set((*path[:-1], "z"), leaf),
        "nesting": frozen.set(path, {"w": leaf}),
        "lack": frozen.without(path),
    }
    for what, other in changed.items():
        same = what == "value" and leaf.size == 0
        assert (other == frozen) is (frozen == other) is same, what
        assert (other != frozen) is not same, what
        if what != "name":
            assert other.set(path, leaf) == frozen, what


@examples(60)
@given(trees.filter(places), st.data())
def test_a_path_reads_sets_and_leaves_out_its_leaf_alone(tree, data):
    frozen = fn.freeze(tree)
    before = {path: id(leaf) for path, leaf in places(frozen).items()}
    assert list(before) == list(places(tree))
    path = data.draw(st.sampled_from(list(before)))
    assert id(reduce(operator.getitem, path, frozen)) == before[path]

    marker = object()
    changed = {path: id(leaf) for path, leaf in places(frozen.set(path, marker)).items()}
    assert changed == {**before, path: id(marker)}
    left = {path: id(leaf) for path, leaf in places(frozen.without(path)).items()}
    assert left == {other: leaf for other, leaf in before.items() if other != path}
    assert before == {path: id(leaf) for path, leaf in places(frozen).items()}


@examples(40)
@given(trees)
def test_the_text_of_a_tree_names_every_leaf_once(tree):
    rows = [line.split() for line in repr(fn.freeze(tree)).splitlines()[1:-1]]
    assert [row[0] for row in rows] == ["/".join(path) for path in places(tree)]
    assert [" ".join(row[1:]) for row in rows] == [
        f"{leaf.dtype}{list(leaf.shape)}" for leaf in places(tree).values()
    ]


def ruin(tree):
    """Change all of a plain tree that can be changed."""
    for value in tree.values():
        if isinstance(value, dict):
            ruin(value)
        elif isinstance(value, np.ndarray):
            value[...] = 7
    tree.clear()


@examples(40)
@given(trees)
def test_changes_of_the_source_and_of_plain_copies_do_not_get_in(tree):
    kept, frozen = copy.deepcopy(tree), fn.freeze(tree)
    ruin(tree)
    assert frozen == fn.freeze(kept)
    ruin(frozen.unfreeze())
    ruin(fn.unfreeze(frozen))
    assert frozen == fn.freeze(kept)


@examples(15)
@given(trees)
def test_jax_maps_and_compiles_a_tree_as_the_plain_one(tree):
    frozen = fn.freeze(tree)
    assert jax.tree.map(np.size, frozen) == fn.freeze(jax.tree.map(np.size, tree))
    assert jax.jit(lambda tree: tree)(frozen) == frozen
    assert fn.freeze(jax.jit(lambda tree: tree)(tree)) == frozen


# Layers

KEY = jax.random.key(7)
NAMES = (*fn.layers.__all__, *fn.activations.__all__)  # what tables and ensembles have: test_layers
PAIRS = [name.removesuffix("_forward") for name in NAMES if name.endswith("_forward")]
PAIRS = [name for name in PAIRS if name not in ("prelu", "parametric")]
BOUND = {"key": KEY, "keep_prob": 0.7}  # what is no input, by the name of the parameter


def parameters(name):
    return inspect.signature(getattr(fn, f"{name}_forward")).parameters


MODES = [(name, train) for name in PAIRS for train in (True, False) if "train" in parameters(name)]
CASES = [(name, None) for name in PAIRS if "train" not in parameters(name)] + MODES
SHAPES = [(1, 4), (3, 2, 3), (5, 1)]  # of x


def input_shapes(name, shape):
    """The shapes of the inputs of a forward pass, for x of this shape, by their names."""
    d, m = shape[1:], 2
    known = {"x": shape, "w": (math.prod(d), m), "b": (m,), "gamma": d, "beta": d}
    return [known[parameter] for parameter in parameters(name) if parameter in known]


def forward(name, train, *inputs):
    """A forward pass with all but its inputs given: (out, cache)."""
    mean, var = (np.full(np.shape(inputs[0])[1:], value) for value in (0.5, 2.0))
    known = {**BOUND, "train": train, "running": {"mean": mean, "var": var}}
    options = {option: known[option] for option in parameters(name) if option in known}
    return getattr(fn, f"{name}_forward")(*inputs, **options)[:2]


def backward(name, dout, cache):
    grads = getattr(fn, f"{name}_backward")(dout, cache)
    return grads if isinstance(grads, tuple) else (grads,)


@partial(jax.jit, static_argnums=(0, 1))
def gradients(name, train, inputs, first, second):
    """By hand at both cotangents and at twice the first less three times the second; autodiff's."""
    _, cache = forward(name, train, *inputs)
    hand = [backward(name, dout, cache) for dout in (first, second, 2 * first - 3 * second)]
    return *hand, jax.vjp(lambda *inputs: forward(name, train, *inputs)[0], *inputs)[1](first)


@pytest.mark.parametrize(("name", "train"), CASES)
@examples(20)
@given(st.data())
def test_a_backward_pass_is_autodiffs_and_linear(x64, name, train, data):
    one = name == "batchnorm" and train  # one example has no variance
    shape = data.draw(st.sampled_from([shape for shape in SHAPES if not one or shape[0] > 1]))
    inputs = tuple(data.draw(arrays(each)) for each in input_shapes(name, shape))
    out = jax.eval_shape(partial(forward, name, train), *inputs)[0]
    first, second = data.draw(arrays(out.shape)), data.draw(arrays(out.shape))
    hand, other, both, auto = gradients(name, train, inputs, first, second)
    for i, expected in enumerate(auto):
        assert hand[i].shape == inputs[i].shape
        # Of a feature that is constant 1 / std is 316.
        np.testing.assert_allclose(hand[i], expected, rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(both[i], 2 * hand[i] - 3 * other[i], rtol=1e-9, atol=1e-8)


@partial(jax.jit, static_argnums=0)
def normalized(name, x, gamma, beta, dout):
    """Output and dx of a normalization that divides by the bare spread, and running statistics."""
    if name == "layernorm":
        out, cache = fn.layernorm_forward(x, gamma, beta, eps=0.0)
        return out, fn.layernorm_backward(dout, cache)[0], ()
    running = {"mean": jnp.zeros_like(gamma), "var": jnp.ones_like(gamma)}
    out, cache, running = fn.batchnorm_forward(x, gamma, beta, running, train=True, eps=0.0)
    return out, fn.batchnorm_backward(dout, cache)[0], running


@pytest.mark.parametrize(("name", "axis"), [("batchnorm", 0), ("layernorm", 1)])
@examples(40)
@given(
    seeds, arrays((5, 1)), order_of(5), st.floats(0.1, 9), st.booleans(), arrays((4,)), arrays((4,))
)
def test_normalization_sees_neither_shift_nor_scale(
    x64, name, axis, seed, shift, order, scale, turned, gamma, beta
):
    """Of what it normalizes, features or examples; of a negative scale it sees the sign."""
    rng = np.random.default_rng(seed)
    x, dout = rng.normal(size=(2, 5, 4))
    shift, sign = (shift[:4].T if axis == 0 else shift), -1 if turned else 1
    out, dx, running = normalized(name, x, gamma, beta, dout)
    moved, moved_dx, _ = normalized(name, shift + sign * scale * x, gamma, beta, sign * dout)
    np.testing.assert_allclose(moved, beta + sign * (out - beta), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(moved_dx * sign * scale, dx, rtol=1e-8, atol=1e-8)
    # So along shift and scale the loss is constant.
    np.testing.assert_allclose(dx.sum(axis=axis), 0, atol=1e-8)
    np.testing.assert_allclose((dx * x).sum(axis=axis), 0, atol=1e-8)

    mixed, mixed_dx, same = normalized(name, x[order], gamma, beta, dout[order])
    np.testing.assert_allclose(mixed, out[order], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(mixed_dx, dx[order], rtol=1e-10, atol=1e-10)
    for a, b in zip(jax.tree.leaves(running), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@partial(jax.jit, static_argnames="train")
def dropped(x, dout, key, keep_prob, train):
    """Output and dx of dropout, and its mask, scaled."""
    out, cache = fn.dropout_forward(x, key, keep_prob, train=train)
    return out, fn.dropout_backward(dout, cache), fn.dropout_backward(jnp.ones_like(x), cache)


@pytest.mark.parametrize("train", [True, False])
@examples(40)
@given(st.data(), seeds, st.just(1.0) | st.floats(1e-4, 1))
def test_dropout_is_one_mask_of_its_key_times_what_it_is_given(x64, train, data, seed, keep_prob):
    shape = data.draw(st.sampled_from([(1,), (7,), (2, 3)]))
    x, dout, key = data.draw(arrays(shape)), data.draw(arrays(shape)), jax.random.key(seed)
    out, dx, mask = dropped(x, dout, key, keep_prob, train)
    np.testing.assert_array_equal(out, x * mask)
    np.testing.assert_array_equal(dx, dout * mask)
    np.testing.assert_array_equal(dropped(dout, x, key, keep_prob, train)[2], mask)
    kept = max(1, round(float(np.float32(keep_prob)) * 2**16))
    assert set(np.ravel(mask)) <= ({0, 2**16 / kept} if train and kept < 2**16 else {1})


# Networks

LAYERS = [
    *(partial(fn.affine, 4), partial(fn.dropout, 0.7)),
    *(*fn.net.ACTIVATIONS.values(), *fn.net.NORMALIZATIONS.values()),
]
layers = st.recursive(
    st.sampled_from(LAYERS).map(lambda make: make()),
    lambda child: st.builds(
        lambda combine, children: combine(*children),
        st.sampled_from([fn.serial, fn.residual]),
        st.lists(child, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(examples(30), phases=[Phase.generate])  # to shrink one would compile for minutes
@given(layers, seeds, st.booleans())
def test_gradients_of_any_stack_of_layers_are_autodiffs(x64, inside, seed, train):
    net, key = fn.serial(inside, fn.affine(3)), jax.random.key(seed)
    rng = np.random.default_rng(seed)
    params, state, _ = net.init(key, (4,))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    x, y = rng.normal(size=(5, 4)), rng.integers(3, size=5)
    options = {"reg": 0.1, "key": key, "train": train}

    @jax.jit
    def both(params):
        _, grads, _ = fn.loss_and_grads(net, params, state, x, y, **options)
        return grads, jax.grad(lambda p: fn.loss(net, p, state, x, y, **options))(params)

    grads, auto = both(params)
    assert fn.scaled_error(grads, auto) <= 1e-8


# Losses

LARGE = st.sampled_from([1e3, -1e3, 1e30, -1e30])
LOSSES = [("softmax", False), ("svm", False), ("softmax", True)]
losses = pytest.mark.parametrize(("name", "soft"), LOSSES)


@partial(jax.jit, static_argnums=0)
def loss_of(name, scores, y):
    """The loss, dscores, and autodiff's."""
    loss_fn = fn.losses.LOSSES[name]
    return *loss_fn(scores, y), jax.grad(lambda scores: loss_fn(scores, y)[0])(scores)


def targets(soft, shape):
    """Labels, or weights of the classes."""
    classes = st.integers(0, shape[1] - 1)
    return (
        arrays(shape, st.floats(0, 1)) if soft else hnp.arrays(np.int32, shape[0], elements=classes)
    )


@losses
@examples(40)
@given(st.data())
def test_dscores_are_autodiffs_whatever_the_scores(x64, name, soft, data):
    shape = data.draw(st.sampled_from([(1, 1), (1, 4), (5, 3)]))
    scores, y = data.draw(arrays(shape, numbers | LARGE)), data.draw(targets(soft, shape))
    loss, dscores, auto = loss_of(name, scores, y)
    np.testing.assert_allclose(dscores, auto, rtol=1e-9, atol=1e-12)
    assert np.isfinite(loss)
    assert loss >= 0
    np.testing.assert_allclose(dscores.sum(axis=1), 0, atol=1e-12)


@losses
@examples(40)
@given(st.data())
def test_a_loss_of_scores_of_any_size_is_finite(name, soft, data):
    scores = data.draw(arrays((5, 3), numbers | LARGE)).astype(np.float32)
    y = data.draw(targets(soft, (5, 3)))
    loss, dscores, _ = loss_of(name, scores, y.astype(np.float32) if soft else y)
    assert np.isfinite(loss)
    assert loss >= 0
    assert np.isfinite(dscores).all()
    np.testing.assert_allclose(dscores.sum(axis=1), 0, atol=1e-6)
    if not soft:
        right = np.arange(3) == y[:, None]
        assert (dscores[right] <= 0).all()
        assert (dscores[~right] >= 0).all()
        most = np.where(right, {"softmax": 1, "svm": 2}[name], 1)
        assert (np.abs(dscores) <= (1 + 1e-6) * most / 5).all()


dyadic = st.integers(-512, 512).map(lambda number: number / 64)  # sums of these are exact


@losses
@examples(30)
@given(st.data(), arrays((5, 1), st.integers(-(2**20), 2**20).map(float)))
def test_a_constant_added_to_a_row_changes_no_bit(x64, name, soft, data, shift):
    scores, y = data.draw(arrays((5, 3), dyadic)), data.draw(targets(soft, (5, 3)))
    loss, dscores, _ = loss_of(name, scores, y)
    shifted_loss, shifted, _ = loss_of(name, scores + shift, y)
    assert shifted_loss == loss
    np.testing.assert_array_equal(shifted, dscores)


@losses
@examples(30)
@given(st.data(), order_of(5), order_of(3))
def test_examples_and_classes_come_in_any_order(x64, name, soft, data, rows, columns):
    scores, y = data.draw(arrays((5, 3))), data.draw(targets(soft, (5, 3)))
    loss, dscores, _ = loss_of(name, scores, y)
    mixed_y = y[rows][:, columns] if soft else np.argsort(columns)[y[rows]].astype(np.int32)
    mixed_loss, mixed, _ = loss_of(name, scores[rows][:, columns], mixed_y)
    np.testing.assert_allclose(mixed_loss, loss, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(mixed, dscores[rows][:, columns], rtol=1e-12, atol=1e-14)


# Optimizers

OPTIMIZERS = {
    **fn.optim.OPTIMIZERS,
    "clipped": lambda rate: fn.clip_by_global_norm(fn.adam(rate), 3.0),
    "averaged": lambda rate: fn.with_average(fn.adam(rate), 0.9),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
STEPS, DECAY = 3, 0.01  # what a step takes of a weight, with the rate


def decays(name):
    return "weight_decay" in inspect.signature(OPTIMIZERS[name]).parameters


def make(name, decay=DECAY):
    return OPTIMIZERS[name](0.1, **({"weight_decay": decay / 0.1} if decays(name) else {}))


@partial(jax.jit, static_argnums=0)
def course(optimizer, params, grads):
    """Some steps on given gradients: the updates [STEPS, ...], and the state in the end.

    A state whose structure, shapes or dtypes change is an error of scan.
    """

    def step(carry, dw):
        params, opt_state = carry
        updates, opt_state = optimizer.update(dw, opt_state, params)
        return (fn.apply_updates(params, updates), opt_state), (updates, params)

    start = params, optimizer.init(params)
    (_, opt_state), (updates, params) = jax.lax.scan(step, start, grads)
    return updates, params, opt_state


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


def tree_of(lead=()):
    return st.fixed_dictionaries({"w": arrays((*lead, 4, 3)), "b": arrays((*lead, 6))})


courses = given(tree_of(), tree_of((STEPS,)), st.data())


@every_optimizer
@examples(15)
@given(tree_of(), tree_of(), seeds)
def test_an_update_changes_nothing_that_it_is_given(name, params, grads, seed):
    """Plain dicts of NumPy arrays, which could be changed."""
    optimizer, rng = make(name), np.random.default_rng(seed)
    params, grads = jax.tree.map(np.float32, (params, grads))
    opt_state = fn.unfreeze(optimizer.init(params))
    opt_state = jax.tree.map(
        lambda leaf: rng.integers(1, 4, leaf.shape).astype(leaf.dtype), opt_state
    )
    taken = grads, opt_state, params
    before = copy.deepcopy(taken)
    first, second = optimizer.update(*taken), optimizer.update(*taken)
    assert jax.tree.structure(taken) == jax.tree.structure(before)
    for a, b in zip(
        jax.tree.leaves((taken, first)), jax.tree.leaves((before, second)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@every_optimizer
@examples(10)
@courses
def test_the_state_keeps_its_form_and_counts_the_steps(x64, name, params, grads, data):
    optimizer = make(name)
    updates, _, opt_state = course(optimizer, params, grads)
    start = optimizer.init(params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(opt_state) == jax.tree.structure(start)
    for leaf, first in zip(jax.tree.leaves(opt_state), jax.tree.leaves(start), strict=True):
        assert (leaf.shape, leaf.dtype) == (first.shape, first.dtype)
    counts = [leaf for path, leaf in places(opt_state).items() if path[-1] == "step"]
    assert counts == [STEPS] * len(counts)
    assert counts


@every_optimizer
@examples(15)
@given(tree_of(), tree_of((STEPS,)), order_of(4), order_of(3), order_of(6))
def test_coordinates_in_another_order_move_the_same(
    x64, name, params, grads, rows, columns, others
):
    """Those of a vector in any order, those of a matrix by rows and columns."""

    def mixed(tree):
        return {"w": tree["w"][..., rows, :][..., columns], "b": tree["b"][..., others]}

    optimizer = make(name)
    updates, *_ = course(optimizer, params, grads)
    close(course(optimizer, mixed(params), mixed(grads))[0], mixed(updates))


@every_optimizer
@examples(15)
@courses
def test_the_parts_of_a_vector_move_as_the_whole(x64, name, params, grads, data):
    def parted(tree):
        return {"w": tree["w"], "b1": tree["b"][..., :2], "b2": tree["b"][..., 2:]}

    optimizer = make(name)
    updates, *_ = course(optimizer, params, grads)
    close(course(optimizer, parted(params), parted(grads))[0], parted(updates))


@every_optimizer
@examples(15)
@courses
def test_gradients_of_the_other_sign_move_the_other_way(x64, name, params, grads, data):
    optimizer = make(name, decay=0.0)
    updates, *_ = course(optimizer, params, grads)
    opposite, *_ = course(optimizer, params, jax.tree.map(np.negative, grads))
    close(opposite, jax.tree.map(np.negative, updates))


@every_optimizer
@examples(15)
@courses
def test_what_has_no_gradient_decays_at_most(x64, name, params, grads, data):
    row, place = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 5))
    grads["w"][:, row] = grads["b"][:, place] = 0
    updates, visited, _ = course(make(name), params, grads)
    factor = DECAY if decays(name) else 0.0
    close(updates["w"][:, row], -factor * visited["w"][:, row])
    close(updates["b"][:, place], -factor * visited["b"][:, place])


# Splits

fractions = st.sampled_from([0, 0.1, 0.25, 0.4])


@examples(60)
@given(
    st.lists(st.integers(0, 4), min_size=5, max_size=40), fractions, fractions, st.integers(0, 3)
)
def test_each_class_gives_its_share_to_each_split(tmp_path_factory, y, val, test, seed):
    """To within an example, and its last one to training; whatever the examples are."""
    path = tmp_path_factory.mktemp("split") / "data.npz"
    x = np.arange(len(y))[:, None]
    parts = []
    for values in (x, x, 5 * x + 2):
        np.savez(path, x=values, y=y)
        options = {"val_fraction": val, "test_fraction": test, "task": "classification"}
        parts.append(fn.load_arrays(path, **options, seed=seed))
    first, again, other = parts
    for a, b in zip(first[:6], again[:6], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first[:6:2], other[:6:2], strict=True):
        np.testing.assert_array_equal(5 * a + 2, b)

    classes = len(first.class_names)
    train, val, test = (np.bincount(part, minlength=classes) for part in first[1:6:2])
    total = train + val + test
    for given_up in (test, test + val):
        share = given_up / total
        # Of no class is a greater share taken than of another one with an example more.
        assert share.max() <= (share + 1 / total).min() + 1e-12
    assert train.sum() < classes or train.min() >= 1


@examples(40)
@given(st.lists(st.integers(-5, 5), min_size=8, max_size=40), fractions, fractions)
@pytest.mark.filterwarnings("ignore::funcnet.DataWarning")  # of classes that training lacks
def test_what_is_tested_is_later_than_what_is_trained_on(when, val, test):
    """Every row is in one split, rows of one moment in the same one."""
    rows, when = np.arange(len(when)), np.array(when)
    table = {"a": rows**2.0, "when": when, "y": rows % 2}
    wanted = round(len(rows) * val) + round(len(rows) * test), round(len(rows) * test)
    load = partial(fn.load_table, table, "y", columns=["a"], split_by="when")
    if wanted[0] and np.sort(when)[len(rows) - wanted[0]] == when.min():
        with pytest.raises(ValueError, match="none are left for training"):
            load(val_fraction=val, test_fraction=test)
        return
    data = load(val_fraction=val, test_fraction=test)
    parts = [np.sqrt(x[:, 0]).round().astype(int) for x in data[:6:2]]
    assert sorted(np.concatenate(parts)) == list(rows)
    for part, y in zip(parts, data[1:6:2], strict=True):
        np.testing.assert_array_equal(part % 2, y)
    moments = [when[part] for part in parts if len(part)]
    for earlier, later in itertools.pairwise(moments):
        assert earlier.max() < later.min()
    # No more than wanted, but for the rows of one moment.
    for later, count in zip((np.concatenate(parts[1:]), parts[2]), wanted, strict=True):
        assert len(later) >= count
        assert not count or (when[later] > when[later].min()).sum() < count
        assert count or not len(later)


# Epochs

MOST = 24  # examples
DIGITS = 4.0 ** np.arange(MOST)


def who(scores, y):
    """A loss whose digits in base 4 say how often each label was in the batch."""
    return jnp.asarray(DIGITS)[y].sum(), jnp.zeros_like(scores)


def batches(count, batch_size, seed, net, optimizer):
    """For each step of two epochs of `fit`, how often it sees each example: [steps, count]."""
    x, y = np.ones((count, 2), np.float32), np.arange(count, dtype=np.int32)
    labels = tuple(map(str, range(MOST)))
    data = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], labels)
    options = {"loss_fn": who, "preprocess": None, "eval_every": None}
    key = jax.random.key(seed)
    result = fn.fit(net, optimizer, data, key=key, epochs=2, batch_size=batch_size, **options)
    assert int(result.state.step) == len(result.history.loss)
    return np.array([loss // DIGITS[:count] % 4 for loss in result.history.loss])


@examples(25)
@given(st.sampled_from([(2, 1), (2, 2), (7, 2), (7, 3), (7, 7), (MOST, 5), (MOST, 12)]), seeds)
def test_batches_are_slices_of_one_order_of_key_and_epoch(x64, sizes, seed):
    """So every example is seen once an epoch, and the order knows neither net nor batch size."""
    count, size = sizes
    one_by_one = batches(count, 1, seed, fn.mlp([3], MOST, keep_prob=0.5), fn.adam(0.1))
    orders = one_by_one.argmax(axis=1).reshape(2, count)
    np.testing.assert_array_equal(one_by_one.sum(axis=1), 1)
    np.testing.assert_array_equal(np.sort(orders), [range(count)] * 2)
    assert count < MOST or not np.array_equal(*orders)

    seen = iter(batches(count, size, seed, fn.mlp([], MOST), fn.sgd(0.1)))
    for order in orders:
        for start in range(0, count, size):
            expected = np.isin(np.arange(count), order[start : start + size])
            np.testing.assert_array_equal(next(seen), expected)
    assert not list(seen)
