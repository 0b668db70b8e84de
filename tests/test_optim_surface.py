"""What all optimizers and schedules have in common, over the registries themselves.

Nothing here lists them: a new one is tested as soon as it has its row, and a hyper-parameter
that is new needs a value in OTHER.
"""

import copy
import inspect
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import optim, schedules

# Another value than the default, of each parameter that an optimizer may have.
OTHER = {
    "momentum": 0.5,
    "decay_rate": 0.75,
    "beta1": 0.7,
    "beta2": 0.95,
    "epsilon": 1e-3,
    "weight_decay": 0.3,
    "decay_names": ("w",),
    "adam_names": ("c",),
}
# What a run has of each parameter that a named schedule may have; all but the counts may be traced.
RUN = {"rate": 0.03, "decay": 0.9, "warmup": 0.4}
COUNTS = {"decay_every": 2, "steps_per_epoch": 1, "total_steps": 5}
# The functions that make a schedule, and their arguments.
MAKERS = {
    "constant": ({"rate": 0.03}, {}),
    "exponential_decay": ({"rate": 0.03, "decay": 0.9}, {"steps_per_epoch": 2}),
    "step_decay": ({"rate": 0.03, "decay": 0.9}, {"every": 2}),
    "cosine_decay": ({"rate": 0.03, "final_fraction": 0.1}, {"total_steps": 5}),
    "warmup": ({"schedule": 0.03}, {"warmup_steps": 3}),
    "flat_cosine": ({"rate": 0.03, "flat": 0.4}, {"total_steps": 5}),
    "coslog4": ({"rate": 0.03}, {"total_steps": 5}),
    "complement": ({"schedule": 0.03}, {}),
    "one_cycle": (
        {"rate": 0.03, "warmup_fraction": 0.4, "first_fraction": 0.1, "final_fraction": 0.2},
        {"total_steps": 5},
    ),
}


class Kind(NamedTuple):
    """A way to an optimizer: `make(learning_rate, **numbers)`, and other values of its numbers."""

    make: object
    others: dict

    @property
    def numbers(self):
        return {name: value for name, value in self.others.items() if not name.endswith("_names")}


def others(make):
    return {name: OTHER[name] for name in list(inspect.signature(make).parameters)[1:]}


def clipped(learning_rate, max_norm=1.0):
    return fn.clip_by_global_norm(fn.adamw(learning_rate), max_norm)


def averaged(learning_rate, decay=0.9):
    return fn.with_average(fn.adamw(learning_rate), decay)


KINDS = {name: Kind(make, others(make)) for name, make in optim.OPTIMIZERS.items()} | {
    "clip_by_global_norm": Kind(clipped, {"max_norm": 0.5}),
    "with_average": Kind(averaged, {"decay": 0.75}),
}
every = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
every_third_quickly = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=name, marks=pytest.mark.slow if i % 3 else ())
        for i, (name, kind) in enumerate(KINDS.items())
    ],
)
every_maker = pytest.mark.parametrize("maker", MAKERS)


def make_schedule(maker, cast=lambda number: number):
    numbers, counts = MAKERS[maker]
    return getattr(fn, maker)(**{name: cast(n) for name, n in numbers.items()}, **counts)


def run_of(make, cast=lambda number: number):
    """What the builder of a named schedule takes of a run."""
    run = {name: cast(number) for name, number in RUN.items()} | COUNTS
    return {name: run[name] for name in inspect.signature(make).parameters if name in run}


def test_makers_has_every_schedule():
    public = {
        name
        for name, value in vars(schedules).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__annotations__.get("return") is schedules.Schedule
    }
    assert set(MAKERS) == public


def test_named_schedules_take_nothing_but_what_a_run_has():
    for name, make in schedules.SCHEDULES.items():
        for parameter in inspect.signature(make).parameters.values():
            known = parameter.name in RUN | COUNTS
            assert known or parameter.default is not inspect.Parameter.empty, (name, parameter)


# Ranges


def test_ranges_are_those_of_the_signatures():
    names = {
        name
        for make in optim.OPTIMIZERS.values()
        for name in list(inspect.signature(make).parameters)[1:]
        if not name.endswith("_names")
    }
    assert set(optim.HYPER_PARAMETERS) == names


def outside(limits):
    """The numbers next to the range, and its open ends."""
    return [
        value
        for bound, value in (
            (limits.above, limits.above),
            (limits.below, limits.below),
            (limits.at_least, np.nextafter(limits.at_least or 0, -1)),
            (limits.at_most, np.nextafter(limits.at_most or 0, 2)),
        )
        if bound is not None
    ]


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_check_by_the_ranges(name):
    make = optim.OPTIMIZERS[name]
    for hyper in KINDS[name].numbers:
        limits = optim.HYPER_PARAMETERS[hyper]
        assert outside(limits)
        for value in outside(limits):
            with pytest.raises(ValueError, match=f"{hyper} must be {limits}, got"):
                make(0.1, **{hyper: value})
    for value in outside(optim.LEARNING_RATE):
        with pytest.raises(ValueError, match=f"learning_rate must be {optim.LEARNING_RATE}"):
            make(value)


def test_wrappers_check_by_the_ranges():
    for value in outside(optim.MAX_NORM):
        with pytest.raises(ValueError, match=f"max_norm must be {optim.MAX_NORM}"):
            fn.clip_by_global_norm(fn.sgd(0.1), value)
    for value in outside(optim.AVERAGE_DECAY):
        with pytest.raises(ValueError, match=f"decay must be {optim.AVERAGE_DECAY}"):
            fn.with_average(fn.sgd(0.1), value)


# Equality


def assert_alike(a, b):
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b}) == 1


def assert_different(a, b):
    assert a != b
    assert len({a, b}) == 2


@every
def test_optimizers_of_equal_arguments_are_equal(kind):
    assert kind.make(1e-3) is not kind.make(1e-3)
    assert_alike(kind.make(1e-3), kind.make(1e-3))
    assert_alike(kind.make(1e-3, **kind.others), kind.make(1e-3, **kind.others))
    for wrap in (lambda o: fn.clip_by_global_norm(o, 1.0), lambda o: fn.with_average(o, 0.9)):
        assert_alike(wrap(kind.make(1e-3)), wrap(kind.make(1e-3)))


@every
def test_optimizers_of_different_arguments_differ(kind):
    for other in (2e-3, np.float64(1e-3), fn.constant(1e-3)):
        assert_different(kind.make(1e-3), kind.make(other))
    assert_different(kind.make(1), kind.make(1.0))
    for name, value in kind.others.items():
        assert_different(kind.make(1e-3), kind.make(1e-3, **{name: value}))
    for wrap in (lambda o: fn.clip_by_global_norm(o, 1.0), lambda o: fn.with_average(o, 0.9)):
        assert_different(wrap(kind.make(1e-3)), wrap(kind.make(2e-3)))
        assert_different(wrap(kind.make(1e-3)), kind.make(1e-3))


@pytest.mark.parametrize("name", ["adam", "clip_by_global_norm", "with_average"])
def test_arguments_may_be_named(name):
    optimizer, params = KINDS[name].make(1e-3), {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    opt_state = optimizer.init(params)
    expected = optimizer.update(params, opt_state, params)
    found = optimizer.update(grads=params, opt_state=optimizer.init(params=params), params=params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(a, b)


def test_no_two_kinds_are_equal():
    made = [kind.make(1e-3) for kind in KINDS.values()]
    assert len(set(made)) == len(KINDS)


def test_numbers_of_different_types_differ():
    assert_different(fn.adamw(0.1, weight_decay=1), fn.adamw(0.1, weight_decay=1.0))
    assert_different(fn.adam(0.1, beta1=0), fn.adam(0.1, beta1=0.0))
    assert_different(
        fn.clip_by_global_norm(fn.sgd(0.1), 1), fn.clip_by_global_norm(fn.sgd(0.1), 1.0)
    )


@every
def test_names_are_a_set_whatever_holds_them(kind):
    for name in kind.others:
        if name.endswith("_names"):
            holders = [{name: hold(("b", "w"))} for hold in (tuple, list, set, frozenset, iter)]
            made = [kind.make(0.1, **given) for given in holders]
            for one in made[1:]:
                assert_alike(made[0], one)
            assert_different(made[0], kind.make(0.1, **{name: ()}))
            assert_different(made[0], kind.make(0.1, **{name: ("w",)}))


@every_maker
def test_schedules_of_equal_arguments_are_equal(maker):
    assert_alike(make_schedule(maker), make_schedule(maker))
    numbers, counts = MAKERS[maker]
    make = getattr(fn, maker)
    assert_different(make_schedule(maker), make_schedule(maker, np.float64))
    for name, value in (numbers | counts).items():
        other = value + 1 if isinstance(value, int) else 0.7 * value
        assert_different(make_schedule(maker), make(**numbers | counts | {name: other}))
    if counts:
        (name, count), *_ = counts.items()
        assert_alike(make_schedule(maker), make(**numbers | {name: np.int64(count)}))


@every_maker
@every
def test_schedules_are_compared_as_arguments(kind, maker):
    assert_alike(kind.make(make_schedule(maker)), kind.make(make_schedule(maker)))
    assert_alike(fn.warmup(make_schedule(maker), 2), fn.warmup(make_schedule(maker), 2))
    other = make_schedule(maker, lambda number: 0.7 * number)
    assert_different(kind.make(make_schedule(maker)), kind.make(other))
    assert_different(fn.warmup(make_schedule(maker), 2), fn.warmup(other, 2))


def test_no_two_schedules_are_equal():
    made = [make_schedule(maker) for maker in MAKERS if maker != "step_decay"]
    assert len(set(made)) == len(MAKERS) - 1
    assert_alike(fn.step_decay(0.1, 0.5, 3), fn.exponential_decay(0.1, 0.5, 3))  # one function


@pytest.mark.parametrize("number", [jnp.float32(0.5), np.array(0.5)], ids=["jax", "numpy"])
@every
def test_with_an_array_an_optimizer_is_equal_to_itself_alone(kind, number):
    for name in ("learning_rate", *kind.numbers):
        numbers = {"learning_rate": 0.1} | {name: number}
        one, another = kind.make(**numbers), kind.make(**numbers)
        assert_alike(one, one)
        assert_different(one, another)
    schedule = fn.constant(number)
    assert_alike(schedule, schedule)
    assert_different(schedule, fn.constant(number))
    assert_different(kind.make(schedule), kind.make(fn.constant(number)))


@every
def test_with_a_traced_number_an_optimizer_is_equal_to_itself_alone(kind):
    def look(number):
        for name in ("learning_rate", *kind.numbers):
            numbers = {"learning_rate": 0.1} | {name: number}
            one = kind.make(**numbers)
            assert_alike(one, one)
            assert_different(one, kind.make(**numbers))
        return number

    jax.jit(look)(0.5)
    jax.vmap(look)(jnp.array([0.5, 0.6]))


@every
def test_functions_of_others_are_compared_as_python_does(kind):
    def schedule(step):
        return 0.1 / (1.0 + step)

    assert_alike(kind.make(schedule), kind.make(schedule))
    assert_different(kind.make(schedule), kind.make(lambda step: 0.1 / (1.0 + step)))


def test_pairs_of_others_are_compared_as_python_does():
    def init(params):
        return ()

    def update(grads, opt_state, params):
        return jax.tree.map(lambda g: -0.1 * g, grads), opt_state

    for wrap in (lambda o: fn.clip_by_global_norm(o, 1.0), lambda o: fn.with_average(o, 0.9)):
        assert_alike(wrap((init, update)), wrap(fn.Optimizer(init, update)))
        assert_different(wrap((init, update)), wrap((lambda params: (), update)))
        assert_different(wrap((init, update)), wrap((init, lambda g, s, p: (g, s))))


# Programs


@pytest.mark.parametrize("scheduled", [False, True], ids=["number", "schedule"])
@every
def test_what_is_made_anew_does_not_compile_anew(kind, scheduled):
    traces = []

    def step(optimizer, params, opt_state):
        traces.append(1)
        return optimizer.update(params, opt_state, params)

    compiled = jax.jit(step, static_argnums=0)

    def one(rate):
        schedule = fn.warmup(fn.one_cycle(rate, 10), 3) if scheduled else rate
        optimizer = kind.make(schedule, **kind.others)
        compiled(optimizer, params, optimizer.init(params))

    params = {"w": jnp.ones(3)}
    for _ in range(3):
        one(1e-3)
    assert len(traces) == 1
    one(2e-3)
    assert len(traces) == 2
    one(1e-3)
    assert len(traces) == 2


def test_init_and_update_and_schedules_compile_by_themselves():
    params = {"w": jnp.ones(3)}
    for kind in KINDS.values():
        optimizer = kind.make(0.1)
        opt_state = jax.jit(optimizer.init)(params)
        _, opt_state = jax.jit(optimizer.update)(params, opt_state, params)
        assert opt_state["step"] == 1
    for maker in MAKERS:
        jax.jit(make_schedule(maker))(3)


# Copies


def after_two(optimizer):
    params = draw(np.random.default_rng(1), ["float32"])
    opt_state = optimizer.init(params)
    for _ in range(2):
        updates, opt_state = optimizer.update(params, opt_state, params)
    return fn.freeze({"updates": updates, "state": opt_state})


@pytest.mark.parametrize("copied", [lambda o: pickle.loads(pickle.dumps(o)), copy.deepcopy])
@every
def test_what_comes_back_from_a_copy_is_equal(kind, copied):
    optimizer = kind.make(fn.warmup(fn.one_cycle(0.1, 9), 2), **kind.others)
    back = copied(optimizer)
    assert type(back) is fn.Optimizer
    assert_alike(optimizer, back)
    assert after_two(optimizer) == after_two(back)
    jax.jit(back.init)({"w": jnp.ones(2)})


@every_maker
def test_what_comes_back_from_a_copied_schedule_is_equal(maker):
    schedule = make_schedule(maker)
    back = pickle.loads(pickle.dumps(schedule))
    assert_alike(schedule, back)
    assert back(3) == schedule(3)
    assert jax.jit(back)(3) == jax.jit(schedule)(3)


# JAX's strict modes


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def dtypes(request):
    """The dtypes of leaves, and of numbers, in each of the two modes of precision."""
    wide = ["float64"] if request.param else []
    with jax.enable_x64(request.param):
        yield ["bfloat16", "float16", "float32", *wide]


class Strict:
    """No promotion but of Python's numbers, and of scalars to the shape of arrays."""

    def __enter__(self):
        self.modes = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
        for mode in self.modes:
            mode.__enter__()

    def __exit__(self, *error):
        for mode in self.modes:
            mode.__exit__(*error)


def draw(rng, dtypes):
    shapes = {"w": (3, 2), "b": (2,), "s": ()}
    return {
        name: {leaf: jnp.asarray(rng.normal(size=shape), dtype) for leaf, shape in shapes.items()}
        for name, dtype in zip("cdef", dtypes, strict=False)
    }


def walk(make, dtypes, steps=2):
    """All that an optimizer does and all that is done with it."""
    rng = np.random.default_rng(0)
    params = draw(rng, dtypes)
    optimizer = make()
    opt_state = optimizer.init(params)
    for _ in range(steps):
        grads = draw(rng, dtypes)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = fn.apply_updates(params, updates)
    kept = fn.averaged_params(opt_state, params) if "average" in opt_state else ()
    return params, opt_state, updates, kept, fn.global_norm(params)


def assert_the_same(results):
    loose, strict = map(jax.tree.leaves, results)
    assert len(loose) == len(strict)
    for a, b in zip(loose, strict, strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def casts(dtypes):
    """Ways to write a number."""
    return {
        "float": float,
        "NumPy": np.float64,
        **{dtype: (lambda n, dtype=dtype: jnp.asarray(n, dtype)) for dtype in dtypes},
    }


@every
@pytest.mark.slow
def test_optimizers_in_strict_modes(kind, dtypes):
    for cast in casts(dtypes).values():
        numbers = {name: cast(value) for name, value in kind.numbers.items()}
        # In rates and in weight decay numbers meet one another, whatever dtype each has.
        for rate in (cast(0.03), 0.03, lambda step, cast=cast: cast(0.03)):
            made = []
            for mode in (jax.numpy_dtype_promotion("standard"), Strict()):
                with mode:
                    made.append(walk(lambda r=rate, n=numbers: kind.make(r, **n), dtypes))
            assert_the_same(made)


@every_third_quickly
def test_optimizers_in_strict_modes_compiled(kind, dtypes, unoptimized):
    """With numbers that are traced, of a dtype each."""
    numbers = {"learning_rate": 0.03} | kind.numbers
    for shift in (0, len(dtypes) - 1):
        traced = {
            name: jnp.asarray(value, dtypes[(i + shift) % len(dtypes)])
            for i, (name, value) in enumerate(numbers.items())
        }
        made = []
        for mode in (jax.numpy_dtype_promotion("standard"), Strict()):
            compiled = jax.jit(lambda traced: walk(lambda: kind.make(**traced), dtypes, steps=1))
            with mode:
                made.append(compiled(traced))
        assert_the_same(made)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_optimizers_with_named_schedules_in_strict_modes(name, dtypes):
    make = schedules.SCHEDULES[name]
    for cast in casts(dtypes).values():
        with Strict():
            rate = make(**run_of(make, cast))
            for optimizer in (fn.adamw(rate, weight_decay=cast(0.1)), fn.lion(fn.warmup(rate, 2))):
                walk(lambda optimizer=optimizer: optimizer, dtypes)


@every_maker
def test_schedules_in_strict_modes(maker, dtypes):
    steps = jnp.arange(7)
    for cast in casts(dtypes).values():
        made = []
        for mode in (jax.numpy_dtype_promotion("standard"), Strict()):
            with mode:
                schedule = make_schedule(maker, cast)
                one = [schedule(step) for step in (0, np.int64(3), jnp.int32(6), np.int32(1))]
                all_of_them = [schedule(steps), jax.jit(jax.vmap(schedule))(steps)]
                made.append(one + all_of_them)
        assert_the_same(made)
        assert {rate.dtype for rate in made[0]} == {jnp.zeros(()).dtype}


def test_warmup_of_functions_of_others_in_strict_modes(dtypes):
    for cast in casts(dtypes).values():
        made = []
        for mode in (jax.numpy_dtype_promotion("standard"), Strict()):
            with mode:
                schedule = fn.warmup(lambda step, cast=cast: cast(0.03), 3)
                made.append([schedule(step) for step in range(4)])
        assert_the_same(made)


@every_maker
def test_schedules_of_traced_numbers_in_strict_modes(maker, dtypes, unoptimized):
    numbers, counts = MAKERS[maker]
    for shift in range(len(dtypes)):
        traced = {
            name: jnp.asarray(value, dtypes[(i + shift) % len(dtypes)])
            for i, (name, value) in enumerate(numbers.items())
        }
        made = []
        for mode in (jax.numpy_dtype_promotion("standard"), Strict()):
            rates = jax.jit(lambda n: jax.vmap(getattr(fn, maker)(**n, **counts))(jnp.arange(7)))
            with mode:
                made.append(rates(traced))
        assert_the_same(made)


def test_states_and_gradients_of_other_dtypes_in_strict_modes(dtypes):
    """As the rest of the library has them: NumPy arrays, counts as int, wide gradients."""
    for kind in KINDS.values():
        optimizer, rng = kind.make(0.1), np.random.default_rng(0)
        params = draw(rng, dtypes)
        grads = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
        results = []
        for mode in (jax.numpy_dtype_promotion("standard"), Strict()):
            with mode:
                opt_state = {**optimizer.init(params), "step": 3}
                results.append(optimizer.update(grads, opt_state, params))
        assert_the_same(results)
    with Strict():
        assert fn.global_norm((3, {"n": np.array([4])}, jnp.zeros(2, "bfloat16"))) == 5
