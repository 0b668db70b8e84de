"""Cross-validation: its folds, that nothing leaks, members are the run done alone, its table."""

from functools import partial

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.sweeps.folds import fold_dataset, make_folds, pooled

pytestmark = pytest.mark.usefixtures("unoptimized")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(83, 4)).astype(np.float32)
Y = np.digitize(X[:, 0] + 0.3 * X[:, 1], [-0.8, 0.9]).astype(np.int32)
KEY = jax.random.key(0)
RUN = {"epochs": 3, "batch_size": 20, "preprocess": fn.standardize}


def classes(x=X, y=Y, **more):
    data = fn.Dataset(x[:70], y[:70], x[70:], y[70:], x[:0], y[:0], ("a", "b", "c"))
    return data._replace(**more)


def numbers(y):
    return fn.Dataset(X, y, X[:0], y[:0], X[:0], y[:0], (), task="regression")


def experiment(learning_rate=0.01, width=3):
    return fn.mlp([5], width), fn.adam(learning_rate)


def alone(result, member, dataset, **options):
    """What `fit` makes of the same."""
    data = fold_dataset(pooled(fn.check_dataset(dataset)), result.folds[member.settings["fold"]])
    own = {k: v for k, v in member.settings.items() if k not in ("seed", "fold")}
    made = experiment(**own)
    return fn.fit(*made, data, key=fn.member_key(KEY, member.settings), **{**RUN, **options})


def close(a, b):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), a, b)


# Folds


@pytest.mark.parametrize("count", [2, 5, 83])
def test_each_example_is_held_out_once(count):
    data = pooled(fn.check_dataset(classes()))
    folds = make_folds(data, count, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([f.held_out for f in folds])), range(83))
    sizes = {len(fold.train) for fold in folds}
    assert len(sizes) == 1
    for fold in folds:
        assert not set(fold.train) & set(fold.held_out)
        assert 0 <= 83 - len(fold.train) - len(fold.held_out) <= 1
        assert len(set(fold.train)) == len(fold.train)


def test_classes_are_spread_evenly():
    for fold in make_folds(pooled(fn.check_dataset(classes())), 5, 3):
        share = np.bincount(Y[fold.held_out], minlength=3) - np.bincount(Y) / 5
        assert np.abs(share).max() < 1.01


def test_folds_depend_on_their_seed_alone():
    data = pooled(fn.check_dataset(classes()))
    first, again, other = (make_folds(data, 4, seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert any(set(a.held_out) != set(b.held_out) for a, b in zip(first, other, strict=True))


def test_groups_are_held_out_whole():
    groups = np.arange(83) // 6
    folds = make_folds(pooled(fn.check_dataset(classes())), 4, 0, groups)
    held = [set(groups[fold.held_out]) for fold in folds]
    assert sum(map(len, held)) == 14 == len(set.union(*held))
    assert {len(fold.held_out) for fold in folds} <= {17, 18, 19, 20, 23, 24}


def test_folds_may_be_given():
    place = np.array([0, 1, 1] * 27 + [2, 2])
    folds = make_folds(pooled(fn.check_dataset(classes())), place, 0)
    for number, fold in enumerate(folds):
        np.testing.assert_array_equal(fold.held_out, np.flatnonzero(place == number))
        np.testing.assert_array_equal(fold.train, np.flatnonzero(place != number))


REFUSED = {
    "one fold": ({"folds": 1}, "folds must be at least 2"),
    "more than examples": ({"folds": 84}, "84 folds of 83 examples cannot be made"),
    "an empty one": ({"folds": [0, 2] * 41 + [0]}, "3 folds of 83 examples cannot be made"),
    "a short list": ({"folds": [0, 1]}, r"folds must have one label per example, shape \[83\]"),
    "groups and folds": ({"folds": [0, 1] * 41 + [0], "groups": range(83)}, "give either the fol"),
    "few groups": ({"groups": [0, 1] * 41 + [0]}, "2 groups cannot make 5 folds"),
    "a setting called fold": ({"settings": [{"fold": 1}]}, "a setting must not be named fold"),
    "a model": ({"model": "first"}, 'model must be "last" or "best"'),
    "an unknown setting": ({"settings": [{"rate": 1.0}]}, "unknown setting of experiment 'rate'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        fn.cross_validate(experiment, classes(), **{"key": KEY, **RUN, **options})


# Members


def test_members_are_the_run_done_alone():
    settings = fn.grid(learning_rate=[0.01, 0.03], seed=[4, 5])
    result = fn.cross_validate(experiment, classes(), settings, folds=3, key=KEY, **RUN)
    assert len(result.members) == 12
    for member in result.members:
        run = alone(result, member, classes(), eval_every=3)
        close(member.history.loss, run.history.loss)
        close(member.model.params, run.model.params)
        close(member.history.val_accuracy[-1], run.history.val_accuracy[-1])
        close(member.model.preprocess.stats, run.model.preprocess.stats)


def test_folds_share_what_is_compiled(compiled):
    """Of steps, and of all else that members need, there is one program for five folds."""
    fn.cross_validate(experiment, classes(), folds=5, key=KEY, **RUN)
    assert compiled().count("jit(_step_on)") == compiled().count("jit(_steps)") == 1
    assert compiled().count("jit(sums_of_members)") <= 3  # held out may be one example more


@pytest.mark.parametrize("class_weight", ["balanced", {"c": 3.0}])
def test_weights_are_those_of_each_fold(class_weight):
    weighted = classes(weight_train=RNG.uniform(0, 2, 70))
    options = {"class_weight": class_weight}
    result = fn.cross_validate(experiment, weighted, folds=3, key=KEY, **RUN, **options)
    for member in result.members:
        run = alone(result, member, weighted, **options)
        close(member.history.loss, run.history.loss)
        close(member.history.val_loss[-1], run.history.val_loss[-1])


def test_units_of_targets_are_those_of_each_fold():
    y = np.where(np.arange(83) < 30, 1e3, 1.0) * X[:, 0].astype(np.float64) + 50
    one = partial(experiment, width=1)
    result = fn.cross_validate(one, numbers(y), folds=3, key=KEY, **RUN)
    for member, fold in zip(result.members, result.folds, strict=True):
        targets = member.model.targets
        np.testing.assert_allclose(targets.mean, y[fold.train].mean(), rtol=1e-12)
        np.testing.assert_allclose(targets.scale, y[fold.train].std(), rtol=1e-12)
        error = fn.predict(member.model, X[fold.held_out]) - y[fold.held_out]
        np.testing.assert_allclose(
            member.history.metrics["val_rmse"][-1], np.sqrt(np.mean(error**2)), rtol=1e-5
        )


# Nothing leaks


def test_what_is_held_out_changes_nothing_in_training():
    data = pooled(fn.check_dataset(classes()))
    folds = make_folds(data, 3, 0)
    x, y = X.copy(), Y.copy()
    x[folds[1].held_out] *= 1000
    y[folds[1].held_out] = 2 - y[folds[1].held_out]
    place = np.zeros(83, int)
    for number, fold in enumerate(folds):
        place[fold.held_out] = number
    before, after = (
        fn.cross_validate(experiment, each, folds=place, key=KEY, **RUN)
        for each in (classes(), classes(x, y))
    )
    a, b = (each.members[1] for each in (before, after))
    jax.tree.map(np.testing.assert_array_equal, a.model.params, b.model.params)
    assert a.history.val_accuracy[-1] != b.history.val_accuracy[-1]
    assert not np.array_equal(before.members[0].history.loss, after.members[0].history.loss)


TABLE = {
    "size": [None if i % 7 == 0 else float(i + 9 * (i % 2)) ** 2 for i in range(40)],
    "kind": ["rare", "rare"] + ["a", "b"] * 19,
    "day": [None if i % 9 == 2 else f"2026-01-{1 + i % 28:02}" for i in range(40)],
    "label": ["yes", "no", "no", "yes"] * 10,
}


def test_medians_are_those_of_each_fold():
    table = fn.load_table(TABLE, val_fraction=0, test_fraction=0)
    place = np.arange(40) % 2
    result = fn.cross_validate(
        partial(experiment, width=2), table, folds=place, key=KEY, epochs=1, batch_size=4
    )
    rows = table.x_train
    for member, fold in zip(result.members, result.folds, strict=True):
        own = member.model.encoding
        known = rows[fold.train][rows[fold.train, 1] == 0, 0]
        assert own.features[0].median == np.median(known)
        assert own.features[0].median != table.encoding.features[0].median
        x = fold_dataset(pooled(fn.check_dataset(table)), fold).x_train
        empty = rows[fold.train, 1] == 1
        np.testing.assert_array_equal(x[empty, 0], np.float32(np.median(known)))
        np.testing.assert_array_equal(x[~empty, :5], rows[fold.train][~empty, :5])
        columns = {name: values for name, values in TABLE.items() if name != "label"}
        assert len(fn.predict(member.model, columns)) == 40  # a model that takes tables


def test_a_fold_knows_nothing_of_a_category_that_it_has_not():
    table = fn.load_table(TABLE, val_fraction=0, test_fraction=0)
    rare = table.encoding.names.index("kind = rare")
    place = table.x_train[:, rare].astype(int)  # the rare ones are held out together
    result = fn.cross_validate(
        partial(experiment, width=2),
        table,
        folds=place,
        key=KEY,
        epochs=2,
        batch_size=2,
        preprocess=fn.standardize_numbers,
    )
    model = result.members[1].model
    x = table.x_train[:5].copy()
    there = fn.predict_scores(model, x)
    x[:, rare] = 1 - x[:, rare]
    np.testing.assert_array_equal(fn.predict_scores(model, x), there)


# What it says


def test_what_is_out_of_fold_is_said_by_those_that_have_not_seen_it():
    settings = fn.grid(learning_rate=[0.01, 0.03], seed=[0, 1])
    result = fn.cross_validate(experiment, classes(), settings, folds=3, key=KEY, **RUN)
    x = np.concatenate([classes().x_train, classes().x_val])
    assert result.settings == ({"learning_rate": 0.01}, {"learning_rate": 0.03})
    for settings, found in zip(result.settings, result.out_of_fold, strict=True):
        for number, fold in enumerate(result.folds):
            models = [
                member.model
                for member in result.members
                if member.settings["fold"] == number
                and member.settings["learning_rate"] == settings["learning_rate"]
            ]
            said = np.mean([fn.predict_proba(m, x[fold.held_out]) for m in models], axis=0)
            np.testing.assert_allclose(found[fold.held_out], said, rtol=1e-6)


def test_the_table_has_means_and_spreads():
    settings = fn.grid(learning_rate=[0.01, 1e30], seed=[0, 1])
    result = fn.cross_validate(experiment, classes(), settings, folds=3, key=KEY, **RUN)
    good, bad = result.table()
    values = [m.history.val_accuracy[-1] for m in result.members[:6]]
    assert good["val_accuracy"] == pytest.approx(np.mean(values))
    assert good["val_accuracy_std"] == pytest.approx(np.std(values, ddof=1))
    assert (good["members"], good["diverged"]) == (6, 0)
    assert (bad["members"], bad["diverged"], bad["val_accuracy"]) == (0, 6, None)
    assert result.best_settings == {"learning_rate": 0.01}


def test_the_best_model_counts_if_it_is_asked_for():
    options = {**RUN, "epochs": 6, "eval_every": 1, "monitor": "val_loss"}
    last, best = (
        fn.cross_validate(
            experiment, classes(), [{"learning_rate": 0.3}], folds=3, key=KEY, model=m, **options
        )
        for m in ("last", "best")
    )
    losses = [m.history.val_loss for m in last.members]
    assert last.table()[0]["val_loss"] == pytest.approx(np.mean([each[-1] for each in losses]))
    assert best.table()[0]["val_loss"] == pytest.approx(np.mean([each.min() for each in losses]))


def test_folds_beside_each_other_are_what_they_are_alone():
    settings = fn.grid(learning_rate=[1e-3, 1e-2], seed=[0, 1])
    together, alone = (
        fn.cross_validate(experiment, classes(), settings, folds=3, chunk_size=size, **RUN)
        for size in (None, 1)
    )
    for a, b in zip(together.members, alone.members, strict=True):
        for x, y in zip(*map(jax.tree.leaves, (a.model.params, b.model.params)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=1e-4)
    together, alone = (
        fn.cross_validate(experiment, classes(), folds=3, chunk_size=size, key=KEY, **RUN)
        for size in (None, 1)
    )
    for a, b in zip(together.members, alone.members, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.model.params, b.model.params)


def test_short_epochs_are_looked_at_as_long_ones_are():
    """Several are done at once, but where there is a callback after each of them."""
    options = {**RUN, "epochs": 60, "eval_every": 7, "batch_size": 40, "key": KEY}
    at_once, by_one = (
        fn.cross_validate(experiment, classes(), folds=3, callback=callback, **options)
        for callback in (None, lambda *now: None)
    )
    for a, b in zip(at_once.members, by_one.members, strict=True):
        assert a.history.epoch.tolist() == [*range(0, 60, 7), 60]
        for name, column in a.history.rows().items():
            np.testing.assert_array_equal(column, b.history.rows()[name])
        np.testing.assert_array_equal(a.history.loss, b.history.loss)


def test_one_that_was_cut_off_goes_on_to_the_same_bits(tmp_path):
    options = {"folds": 3, "key": KEY, **RUN}
    whole = fn.cross_validate(experiment, classes(), **options)
    options["checkpoint_every"] = 1
    cut = fn.cross_validate(
        experiment,
        classes(),
        checkpoint=tmp_path,
        callback=lambda done, total, members: done >= 4,
        **options,
    )
    assert cut.interrupted
    assert np.isnan(cut.out_of_fold[0]).any()
    rest = fn.cross_validate(experiment, classes(), checkpoint=tmp_path, resume=True, **options)
    for a, b in zip(whole.members, rest.members, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.model.params, b.model.params)
        np.testing.assert_array_equal(a.history.loss, b.history.loss)
    np.testing.assert_array_equal(whole.out_of_fold[0], rest.out_of_fold[0])
    other = classes(RNG.normal(size=X.shape).astype(np.float32))
    with pytest.raises(ValueError, match="its data is"):
        fn.cross_validate(experiment, other, checkpoint=tmp_path, resume=True, **options)
