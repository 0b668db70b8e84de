"""Searches: settings proposed in batches, by what earlier ones came to."""

import warnings

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.history import as_history, columns
from funcnet.sweeps.guided import Search
from funcnet.sweeps.objectives import front_of, values_of
from funcnet.sweeps.samplers import SAMPLERS, Batch, Tried, propose
from funcnet.sweeps.search import check_space
from funcnet.sweeps.table import Member

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("unoptimized")
SPACE = {
    "learning_rate": fn.log_uniform(1e-5, 1e-1),
    "weight_scale": fn.log_uniform(1e-3, 1.0),
}


def two_numbers(learning_rate, weight_scale):
    return fn.mlp([7], 10, weight_scale=weight_scale), fn.adam(learning_rate)


def search(data, space=SPACE, experiment=two_numbers, **options):
    options = {"samples": 24, "batch": 12, "epochs": 2, "batch_size": 50, **options}
    return fn.search(experiment, data, space, **options)


def settings_of(result):
    return [member.settings for member in result.members]


def equal(a, b):
    """Whether two results are the same, bit for bit."""
    assert a.table() == b.table()
    for one, other in zip(a.members, b.members, strict=True):
        assert one.settings == other.settings
        np.testing.assert_array_equal(one.history.loss, other.history.loss)
        jax.tree.map(np.testing.assert_array_equal, one.model.params, other.model.params)
    assert a.best_settings == b.best_settings
    assert a.test == b.test


@pytest.mark.slow
def test_all_batches_are_one_program(small, compiled):
    result = search(small, samples=30, batch=12)  # the last has 6, and half of the places
    assert len(result.members) == 30
    assert compiled().count("jit(init_states)") == 2
    before = len(compiled())
    again = search(small, samples=24, batch=12)
    names = compiled()[before:]
    assert names.count("jit(_steps)") == names.count("jit(init_states)") == 1
    assert settings_of(again) == settings_of(result)[:24]


@pytest.mark.slow
def test_the_second_batch_looks_where_the_first_was_good(small):
    result = search(small, samples=36, batch=12)
    accuracies = [row["val_accuracy"] for row in result.table()]
    assert np.mean(accuracies[24:]) > np.mean(accuracies[:12]) + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_member_is_the_run_done_alone(small, sampler):
    result = search(small, sampler=sampler, seed=3, seeds=2, samples=14, batch=12)
    assert [member.settings["seed"] for member in result.members] == [3, 4] * 14
    member = result.members[-1]
    settings = {name: member.settings[name] for name in SPACE}
    key = fn.member_key(None, member.settings)
    alone = fn.fit(*two_numbers(**settings), small, key=key, epochs=2, batch_size=50)
    np.testing.assert_allclose(member.history.loss, alone.history.loss, rtol=1e-4)
    assert result.best_settings in settings_of(result)
    assert result.test is not None


@pytest.mark.slow
def test_random_settings_are_those_of_random_search(small):
    result = search(small, sampler="random", seed=5, samples=14, batch=4)
    drawn = fn.random_search(jax.random.key(5), 14, **SPACE)
    assert settings_of(result) == [{**each, "seed": 5} for each in drawn]


@pytest.mark.slow
def test_the_same_seed_is_the_same_search_and_another_is_not(small):
    one = search(small, seed=1)
    equal(one, search(small, seed=1))
    other = search(small, seed=2)
    assert not {str(s) for s in settings_of(one)} & {str(s) for s in settings_of(other)}


@pytest.mark.slow
@pytest.mark.parametrize("after", [5, 24, 37, 50])  # epochs of 12 members each: in three batches
def test_a_search_that_was_cut_off_goes_on_to_the_same_bits(small, tmp_path, after):
    options = {"samples": 28, "batch": 12, "checkpoint_every": 1}
    whole = search(small, samples=28)
    calls = []

    def cut(done, total, members):
        calls.append((done, total, len(members())))
        return done >= after

    cut_off = search(small, checkpoint=tmp_path / "s", callback=cut, **options)
    assert cut_off.interrupted
    assert cut_off.test is None
    assert calls[-1][1] == 56
    done = sum(member.epochs for member in cut_off.members)
    assert after <= done < after + 12
    with pytest.raises(FileExistsError, match="resume=True"):
        search(small, checkpoint=tmp_path / "s", **options)
    again = search(small, checkpoint=tmp_path / "s", resume=True, **options)
    equal(again, whole)
    less = search(small, checkpoint=tmp_path / "s", resume=True, **{**options, "samples": 24})
    assert settings_of(less) == settings_of(whole)[:24]
    with pytest.raises(ValueError, match="is of another sweep: its settings"):
        search(small, checkpoint=tmp_path / "s", resume=True, **{**options, "samples": 29})


@pytest.mark.slow
def test_a_search_is_asked_for_more(small, tmp_path):
    options = {"batch": 3, "epochs": 1, "checkpoint": tmp_path / "s"}
    search(small, samples=6, **options)
    more = search(small, samples=8, resume=True, **options)
    equal(more, search(small, samples=8, batch=3, epochs=1))


@pytest.mark.slow
def test_a_search_goes_on_where_a_sweep_is_only_if_it_is_one(small, tmp_path):
    fn.sweep(
        two_numbers,
        small,
        fn.random_search(jax.random.key(0), 3, **SPACE),
        key=jax.random.key(0),
        epochs=1,
        batch_size=50,
        checkpoint=tmp_path,
    )
    with pytest.raises(FileExistsError, match="of a run or a sweep, and this is a search"):
        search(small, checkpoint=tmp_path, resume=True)


def with_widths(learning_rate, hidden, scaled):
    net = fn.mlp([hidden], 10, normalization="layernorm" if scaled else None)
    return net, fn.adam(learning_rate)


@pytest.mark.slow
def test_structural_settings_are_groups_of_few_sizes(small, compiled):
    space = {"learning_rate": fn.log_uniform(1e-4, 1e-1), "hidden": [4], "scaled": [False, True]}
    result = search(small, space, with_widths, samples=40, batch=8)
    assert len({str(settings) for settings in settings_of(result)}) == 40
    assert {type(s["scaled"]) for s in settings_of(result)} == {bool}
    assert compiled().count("jit(init_states)") <= 2 * 4  # each of 1, 2, 4 or 8 members


@pytest.mark.slow
def test_a_space_of_few_settings_is_tried_without_repetition(small):
    def experiment(hidden, rate):
        return fn.mlp([hidden], 10), fn.adam({"slow": 1e-4, "fast": 1e-2}[rate])

    space = {"hidden": fn.integers(3, 5), "rate": ["slow", "fast"]}
    options = {"samples": 6, "batch": 3, "epochs": 1}
    result = search(small, space, experiment, **options)
    assert len({str(settings) for settings in settings_of(result)}) == 6
    with pytest.raises(ValueError, match="only 6 different settings, and samples is 7"):
        search(small, space, experiment, **{**options, "samples": 7})


@pytest.mark.slow
def test_settings_that_diverge_are_avoided(small):
    def experiment(learning_rate):
        return fn.mlp([7], 10), fn.sgd(learning_rate)

    space = {"learning_rate": fn.log_uniform(1e-3, 1e25)}
    result = search(small, space, experiment, samples=60, batch=12, epochs=1)
    diverged = [member.status == "diverged" for member in result.members]
    assert sum(diverged[:12]) >= 4
    assert sum(diverged[36:]) <= sum(diverged[:12])
    assert result.best_settings["learning_rate"] < 10


@pytest.mark.slow
def test_halving_stops_the_worse_half_of_each_batch(small):
    result = search(small, epochs=3, halve_at=[1])
    statuses = [member.status for member in result.members]
    assert [statuses[:12].count("stopped"), statuses[12:].count("stopped")] == [6, 6]
    equal(result, search(small, epochs=3, halve_at=[1]))


@pytest.mark.slow
def test_several_objectives_find_small_nets_too(small):
    def experiment(hidden, learning_rate):
        return fn.mlp([hidden], 10), fn.adam(learning_rate)

    space = {"hidden": [2, 8], "learning_rate": fn.log_uniform(1e-4, 1e-1)}
    names = ("val_accuracy", "parameters")
    result = search(small, space, experiment, samples=16, batch=8, objectives=names)
    assert result.objectives == names
    front = result.pareto()
    assert front == fn.pareto_front(result.table(), names)
    assert front[0]["val_accuracy"] == max(row["val_accuracy"] for row in result.table())
    sizes = [row["parameters"] for row in front]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 64 * 2 + 2 + 2 * 10 + 10


GIVEN = [(1.0, 0, 0.9), (1.0, 1, 0.1), (2.0, 0, 0.4), (2.0, 1, 0.2), (3.0, 0, 0.6), (3.0, 1, 0.5)]


def _member(seed, accuracies, best, status="finished", rate=1.0, loss=0.1):
    """A member of these validation accuracies, of which one was the best model's."""
    usual = dict.fromkeys(columns("classification"), 0.1) | {"val_loss": loss}
    rows = [
        usual | {"epoch": i, "val_accuracy": each, "train_loss": 1 - loss}
        for i, each in enumerate(accuracies)
    ]
    history = as_history([np.zeros(2)], rows, (), "classification")
    model = fn.BestModel(None, {}, {}, None, epoch=best, accuracy=0.0, loss=0.0)
    return Member({"rate": rate, "seed": seed}, status, 2, None, model, history, None)


def test_settings_are_told_the_means_of_the_best_models_of_their_seeds():
    first, second = _member(0, [0.1, 0.8, 0.2], 1), _member(1, [0.4, 0.3, 0.1], 0)
    assert values_of([first, second], ["val_accuracy"]) == (pytest.approx(0.6),)
    assert values_of([first, second], ["final_val_accuracy"]) == (pytest.approx(0.15),)
    assert values_of([first, _member(1, [0.4], 0, "diverged")], ["val_accuracy"]) is None
    assert values_of([_member(0, [np.nan], 0)], ["val_accuracy"]) is None


def test_the_front_is_by_the_means_of_whatever_was_measured():
    a = [_member(seed, [0.5], 0, "finished", rate, loss) for rate, seed, loss in GIVEN]
    front = front_of(a, ["val_loss", "train_loss"])
    assert [(row["rate"], row["seeds"]) for row in front] == [(2.0, 2), (1.0, 2), (3.0, 2)]
    assert [row["val_loss"] for row in front] == pytest.approx([0.3, 0.5, 0.55])
    assert [row["train_loss"] for row in front] == pytest.approx([0.7, 0.5, 0.45])
    assert [row["rate"] for row in front_of(a, ["val_loss", "val_accuracy"])] == [2.0]
    alone = front_of(a[:1], ["train_loss"])
    assert [row["train_loss"] for row in alone] == [pytest.approx(0.1)]


def test_the_front_is_what_nothing_beats():
    rows = [
        {"a": 1, "val_accuracy": 0.9, "parameters": 100, "status": "finished"},
        {"a": 2, "val_accuracy": 0.8, "parameters": 50, "status": "finished"},
        {"a": 3, "val_accuracy": 0.8, "parameters": 60, "status": "finished"},
        {"a": 4, "val_accuracy": 0.95, "parameters": 10, "status": "diverged"},
        {"a": 5, "val_accuracy": None, "parameters": 1, "status": "unfinished"},
        {"a": 6, "val_accuracy": 0.9, "parameters": 100, "status": "finished"},
    ]
    front = fn.pareto_front(rows, ("val_accuracy", "parameters"))
    assert [row["a"] for row in front] == [1, 6, 2]
    assert [row["a"] for row in fn.pareto_front(rows, ["parameters"])] == [5]
    with pytest.raises(ValueError, match="unknown column 'val_acuracy': did you mean"):
        fn.pareto_front(rows, ["val_acuracy"])
    with pytest.raises(ValueError, match="status is no objective"):
        fn.pareto_front(rows, ["status"])
    assert fn.pareto_front([], ["val_loss"]) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"space": {"learning_rate": [1e-3]}}, "nothing to search"),
        ({"space": {"learning_rate": fn.uniform(1.0, 1.0)}}, "nothing to search"),
        ({"space": {}}, "nothing to search"),
        ({"space": [1]}, "space must be a dict"),
        ({"space": {**SPACE, "seed": [1, 2]}}, "seed is no setting"),
        ({"space": {**SPACE, "momentum": {"sgd": [0.9]}}}, "settings on a condition"),
        ({"space": {**SPACE, "learning_rat": [1e-3]}}, "unknown setting of experiment"),
        ({"batch": 30}, "batch is 30, more than samples, which is 24"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"sampler": "grid"}, "unknown sampler 'grid'"),
        ({"objectives": "val_accuracy"}, "list of names"),
        ({"objectives": []}, "objectives is empty"),
        ({"objectives": ["seconds"]}, "unknown objective 'seconds'"),
        ({"objectives": ["val_loss", "val_loss"]}, "val_loss twice"),
        ({"eval_every": None}, "needs eval_every"),
        ({"objectives": ["val_loss", "parameters"], "halve_at": [1]}, "one objective"),
        ({"resume": True}, "resume and checkpoint_every are for checkpoint"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_wrong_searches(small, options, error, compiled):
    with pytest.raises((ValueError, TypeError), match=error):
        search(small, **options)
    assert "jit(_steps)" not in compiled()


def test_what_any_settings_make_is_checked_before_anything_is_trained(small, compiled):
    def experiment(optimizer, hidden):
        if optimizer == "sgd" and hidden == 9:
            raise ValueError("no such thing")
        return fn.mlp([hidden], 10), fn.adam(1e-3)

    space = {"optimizer": ["adam", "sgd"], "hidden": fn.integers(1, 9)}
    with pytest.raises(ValueError, match=r"no such thing .optimizer='sgd', hidden=9"):
        search(small, space, experiment, samples=4, batch=2)
    assert "jit(_steps)" not in compiled()


# Proposals, without a training

AXES = check_space({"x": fn.uniform(0.0, 1.0), "kind": [True, 1.5, "one", (1,)]})


def tried(count, best=0.8):
    drawn = fn.random_search(jax.random.key(1), count, **AXES)
    return [Tried(each, (-abs(each["x"] - best),), None) for each in drawn]


def test_proposals_are_a_function_of_what_was_found():
    batch = Batch(AXES, wanted=8, seed=0, less=(False,))
    found = tried(40)
    proposed = propose("tpe", batch, found)
    assert proposed == propose("tpe", batch, found)
    assert np.mean([abs(each["x"] - 0.8) < 0.25 for each in proposed]) > 0.6
    assert {str(each["kind"]) for each in proposed} <= {"True", "1.5", "one", "(1,)"}
    assert proposed != propose("tpe", batch._replace(seed=1), found)
    assert proposed != propose("tpe", batch, tried(40, best=0.1))
    less = propose("tpe", batch._replace(less=(True,)), found)
    assert np.mean([each["x"] < 0.5 for each in less]) > 0.6


def test_what_diverged_or_was_stopped_is_avoided():
    batch = Batch(AXES, wanted=16, seed=0, less=(False,))
    found = tried(60)
    worst = [t._replace(values=None) if t.settings["x"] > 0.6 else t for t in found]
    assert np.mean([each["x"] < 0.7 for each in propose("tpe", batch, worst)]) > 0.7
    halved = [t._replace(stopped_after=1) if t.settings["x"] > 0.6 else t for t in found]
    assert np.mean([each["x"] < 0.7 for each in propose("tpe", batch, halved)]) > 0.7


def test_each_objective_has_its_own_direction():
    found = [t._replace(values=(t.values[0], -t.values[0])) for t in tried(60)]
    batch = Batch(AXES, wanted=16, seed=0, less=(False, True))
    assert np.mean([abs(each["x"] - 0.8) < 0.25 for each in propose("tpe", batch, found)]) > 0.6


def test_what_was_stopped_later_is_better():
    batch = Batch(AXES, wanted=16, seed=0, less=(False,))
    found = [
        Tried(t.settings, (0.5,), 4 if abs(t.settings["x"] - 0.2) < 0.1 else 1) for t in tried(60)
    ]
    assert np.mean([abs(each["x"] - 0.2) < 0.2 for each in propose("tpe", batch, found)]) > 0.6


def test_settings_are_stopped_where_the_first_of_their_seeds_was():
    searched = Search(AXES, 2, 1, "tpe", 0, (0, 1), ("val_accuracy",))
    first, second = (_member(seed, [0.5], 0) for seed in (0, 1))
    stopped = [first._replace(status="stopped"), second._replace(status="stopped", epochs=1)]
    found = searched.tried([*stopped, first, second])
    assert [each.stopped_after for each in found] == [1, None]
    assert found[0].settings == {"rate": 1.0}


# What mattered


def table_of(count=64, noise=0.0, diverged=0):
    """A table in which the rate matters, the scale a little, and the name nothing."""
    rng = np.random.default_rng(0)
    axes = {
        "rate": fn.log_uniform(1e-4, 1.0),
        "scale": fn.uniform(0.0, 1.0),
        "name": ["a", "b", "c"],
    }
    rows = []
    for i, each in enumerate(fn.random_search(jax.random.key(0), count, **axes)):
        value = 0.2 * np.log10(each["rate"]) + 0.2 * each["scale"] + noise * rng.normal()
        status = "diverged" if i < diverged else "finished"
        rows.append({**each, "val_accuracy": value, "val_loss": -value, "status": status})
    return rows


@pytest.mark.slow
def test_settings_that_matter_have_large_shares():
    found = fn.importance(table_of())
    assert list(found) == ["rate", "scale", "name"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["rate"] > 0.8
    assert found["name"] < 0.02
    assert fn.importance(table_of()) == found


@pytest.mark.slow
def test_members_that_diverged_are_left_out_and_that_is_said():
    rows = table_of(diverged=3)
    rows[0]["val_accuracy"] = 1e6
    with pytest.warns(UserWarning, match="3 members of 64 that diverged or have no val_accuracy"):
        found = fn.importance(rows)
    with warnings.catch_warnings():
        assert found == fn.importance(rows[3:])


@pytest.mark.slow
@pytest.mark.slow
def test_members_that_are_not_done_are_left_out_and_that_is_said():
    rows = table_of(20)
    rows[3] |= {"status": "unfinished", "val_accuracy": 1e3}
    with pytest.warns(UserWarning, match="1 member of 20"):
        found = fn.importance(rows)
    assert found == fn.importance([row for i, row in enumerate(rows) if i != 3])


def test_seeds_are_a_setting_of_their_own(small):
    settings = fn.grid(learning_rate=[1e-4, 1e-2], weight_scale=[0.01, 0.1], seed=range(3))
    sweep = fn.sweep(two_numbers, small, settings, epochs=2, batch_size=50)
    found = fn.importance(sweep)
    assert found.keys() == {"learning_rate", "weight_scale", "seed"}
    assert found["seed"] < found["learning_rate"]


@pytest.mark.parametrize(
    ("rows", "value", "error"),
    [
        (table_of(7), None, "need 8 members with val_accuracy, and there are 7"),
        ([], None, "no rows"),
        (table_of(), "val_acc", "unknown column 'val_acc': did you mean"),
        (
            [{**row, "scale": 1, "name": "a"} for row in table_of()],
            None,
            "what varies is rate",
        ),
        ([{**row, "val_accuracy": 0.5} for row in table_of()], None, "nothing mattered"),
    ],
)
def test_importances_that_cannot_be_told(rows, value, error):
    with pytest.raises(ValueError, match=error):
        fn.importance(rows, value)


def test_importances_of_settings_as_large_as_floats_are():
    rows = [
        {"huge": (-1) ** i * 1.7e308, "small": 5e-324 * i, "val_accuracy": float(i % 2)}
        for i in range(12)
    ]
    rows = [row | {"status": "finished"} for row in rows]
    assert next(iter(fn.importance(rows))) == "huge"
    values = [row | {"val_accuracy": row["huge"]} for row in rows]
    assert next(iter(fn.importance(values))) == "huge"
    with pytest.raises(ValueError, match="huge has an integer that no float holds"):
        fn.importance([row | {"huge": 10**400 + i} for i, row in enumerate(rows)])
