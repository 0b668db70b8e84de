"""Grids, random searches, and the settings that `sweep` accepts."""

import math

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.sweeps.search import check_settings

key = jax.random.key(0)


def test_a_grid_is_every_combination_the_last_axis_fastest():
    assert fn.grid(a=[1e-3, 1e-2], seed=range(3)) == [
        {"a": a, "seed": seed} for a in (1e-3, 1e-2) for seed in (0, 1, 2)
    ]


def test_a_grid_takes_any_values_and_any_iterable():
    values = [None, True, "adam", (3, 4), 2]
    assert [s["a"] for s in fn.grid(a=iter(values))] == values
    assert fn.grid(hidden=[[3, 4], [5]]) == [{"hidden": (3, 4)}, {"hidden": (5,)}]
    assert [s["a"] for s in fn.grid(a=np.array([0.5, 0.25]))] == [0.5, 0.25]


def test_an_axis_of_floats_and_integers_is_one_of_floats():
    values = [s["reg"] for s in fn.grid(reg=[0, 0.1, 1])]
    assert values == [0, 0.1, 1]
    assert {type(v) for v in values} == {float}
    assert {type(s["a"]) for s in fn.grid(a=[0, 1])} == {int}


def test_1_and_true_are_different_values():
    assert len(fn.grid(a=[1, True, "1"])) == 3


def test_a_random_search_draws_from_its_ranges():
    settings = fn.random_search(
        key,
        400,
        keep_prob=fn.uniform(0.5, 1),
        learning_rate=fn.log_uniform(1e-4, 1e-2),
        width=fn.integers(3, 5),
        optimizer=["sgd", "adam"],
    )
    assert len(settings) == 400
    keep, rate = (np.array([s[n] for s in settings]) for n in ("keep_prob", "learning_rate"))
    assert keep.min() >= 0.5
    assert keep.max() <= 1
    assert abs(keep.mean() - 0.75) < 0.03
    assert rate.min() >= 1e-4
    assert rate.max() <= 1e-2
    assert abs(np.log10(rate).mean() + 3) < 0.1  # the middle of the logarithms
    assert {s["width"] for s in settings} == {3, 4, 5}
    assert {type(s["width"]) for s in settings} == {int}
    assert {s["optimizer"] for s in settings} == {"sgd", "adam"}


def test_a_random_search_is_a_function_of_its_key():
    def draw(key):
        return fn.random_search(key, 5, a=fn.uniform(0, 1))

    assert draw(key) == draw(jax.random.key(0)) == draw(jax.random.PRNGKey(0))
    assert draw(key) != draw(jax.random.key(1))


def test_a_random_search_draws_different_settings():
    drawn = fn.random_search(key, 6, a=[1, 2, 3], b=[True, False])
    assert sorted(map(str, drawn)) == sorted(map(str, fn.grid(a=[1, 2, 3], b=[True, False])))
    with pytest.raises(
        ValueError, match="7 different settings, but in 700 draws there were only 6"
    ):
        fn.random_search(key, 7, a=[1, 2, 3], b=[True, False])


WRONG = {
    "empty axis": (lambda: fn.grid(a=[]), ValueError, "a is empty"),
    "no axis": (lambda: fn.grid(), ValueError, "grid needs at least one axis"),
    "no axis, random": (lambda: fn.random_search(key, 3), ValueError, "needs at least one axis"),
    "no list": (lambda: fn.grid(a=1e-3), TypeError, "a must be a list of values, such as"),
    "a string": (lambda: fn.grid(a="adam"), TypeError, r"such as \['adam'\]"),
    "a value twice": (lambda: fn.grid(a=[1.0, 2.0, 1]), ValueError, "a has 1.0 twice"),
    "a seed twice": (lambda: fn.grid(seed=[0, 1, 0]), ValueError, "seed has 0 twice"),
    "a seed that is none": (lambda: fn.grid(seed=[0.5]), TypeError, "seed must be an integer"),
    "a large seed": (lambda: fn.grid(seed=[2**32]), ValueError, "seed must be at most 4294967295"),
    "a negative seed": (lambda: fn.grid(seed=[-1]), ValueError, "seed must be at least 0"),
    "nan": (lambda: fn.grid(a=[math.nan]), ValueError, "a must be finite"),
    "a distribution": (lambda: fn.grid(a=fn.uniform(0, 1)), TypeError, "is for random_search"),
    "a dict": (lambda: fn.grid(a=[{}]), TypeError, "a must be a number, a string"),
    "low above high": (lambda: fn.uniform(1, 0), ValueError, "high of uniform must be >= 1"),
    "log of 0": (lambda: fn.log_uniform(0, 1), ValueError, "low of log_uniform must be > 0"),
    "fractions": (lambda: fn.integers(0, 1.5), TypeError, "high of integers must be an integer"),
    "large": (lambda: fn.integers(0, 2**63), ValueError, "high of integers must be at most"),
    "no draws": (lambda: fn.random_search(key, 0, a=[1]), ValueError, "count must be at least 1"),
    "no key": (lambda: fn.random_search(0, 1, a=[1]), TypeError, "key must be a random key"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_searches(name):
    make, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_settings_become_plain_values_in_one_order():
    given = [{"a": np.float32(0.5), "b": np.int64(2)}, {"b": jax.numpy.int32(3), "a": 1}]
    checked = check_settings(given)
    assert checked == ({"a": 0.5, "b": 2}, {"a": 1.0, "b": 3})
    assert [list(member) for member in checked] == [["a", "b"], ["a", "b"]]
    assert [type(v) for v in checked[1].values()] == [float, int]


def test_a_setting_that_is_a_bool_in_one_dict_and_a_float_in_another_stays_so():
    checked = check_settings([{"a": True}, {"a": 0.5}, {"a": 1}])
    assert [type(member["a"]) for member in checked] == [bool, float, float]


def test_settings_of_different_types_are_different():
    given = [{"a": True}, {"a": 1}, {"a": "1"}, {"a": None}, {"a": (1,)}]
    assert check_settings(given) == tuple(given)


def test_a_seed_is_an_integer_whatever_the_others_are():
    with pytest.raises(TypeError, match=r"seed must be an integer, got 1\.5"):
        check_settings([{"seed": 0}, {"seed": 1.5}])


def test_a_range_wider_than_a_float_is_refused():
    with pytest.raises(ValueError, match=r"uniform from -1e\+308 to 1e\+308 is wider"):
        fn.uniform(-1e308, 1e308)


def test_a_log_uniform_range_may_be_a_point():
    low = 5.7  # exp(log(low)) is another number
    assert math.exp(math.log(low)) != low
    assert fn.random_search(key, 1, a=fn.log_uniform(low, low)) == [{"a": low}]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ([], ValueError, "settings is empty"),
        ({"a": 1}, TypeError, "settings must be a list of dicts"),
        ([1], TypeError, r"settings\[0\] must be a dict, got 1"),
        ([{"a": 1}, {"b": 1}], ValueError, r"settings\[1\] has no a, but settings\[0\] has"),
        (
            [{"a": 1}, {"a": 1, "b": 1}],
            ValueError,
            r"settings\[1\] has b, but settings\[0\] has not",
        ),
        (
            [{"a": 0.5}, {"a": 1}, {"a": 0.5}],
            ValueError,
            r"settings\[2\] is settings\[0\] again: a=0.5",
        ),
    ],
)
def test_wrong_settings(settings, kind, message):
    with pytest.raises(kind, match=message):
        check_settings(settings)
