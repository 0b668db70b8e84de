"""Sweeps: a member is the run done alone, whatever it is trained with."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet.sweeps import chunks

pytestmark = pytest.mark.usefixtures("unoptimized")
key = jax.random.key(231)


def two_numbers(learning_rate, weight_scale):
    return fn.mlp([7], 10, weight_scale=weight_scale), fn.adam(learning_rate)


GRID = fn.grid(learning_rate=[1e-3, 1e-2], weight_scale=[0.1, 0.2, 0.3])


def run(data, settings=GRID, experiment=two_numbers, **options):
    options = {"key": key, "epochs": 3, "batch_size": 50, **options}
    return fn.sweep(experiment, data, settings, **options)


def alone(data, settings, experiment, **options):
    net, optimizer, *more = experiment(**{k: v for k, v in settings.items() if k != "seed"})
    options = {"key": fn.member_key(key, settings), **options, **(more[0] if more else {})}
    return fn.fit(net, optimizer, data, **options)


def equal(a, b):
    """Whether two trees are the same, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, atol=0.0, rtol=1e-7):
    def check(a, b):
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

    jax.tree.map(check, a, b)


# A member is the run done alone


def many_numbers(learning_rate, weight_scale, reg, keep_prob, momentum, smoothing, mixup, slope):
    net = fn.serial(
        fn.affine(9, weight_scale=weight_scale),
        fn.batchnorm(momentum=momentum),
        fn.leaky_relu(slope),
        fn.dropout(keep_prob),
        fn.affine(10, weight_scale=weight_scale),
    )
    options = {"reg": reg, "label_smoothing": smoothing, "mixup_alpha": mixup}
    return net, fn.sgd_momentum(learning_rate, momentum), options


def averaging(learning_rate, decay):
    net = fn.mlp([6], 10, normalization="layernorm")
    optimizer = fn.clip_by_global_norm(fn.adamw(fn.cosine_decay(learning_rate, 100)), 0.5)
    options = {
        "average_decay": decay,
        "preprocess": fn.standardize,
        "augment": [fn.random_flip, fn.random_shift],
    }
    return net, optimizer, options


def svm(learning_rate):
    return fn.mlp([], 10), fn.rmsprop(learning_rate), {"loss_fn": fn.svm_loss, "preprocess": None}


def square(learning_rate, weight_scale):
    """Its hidden layer is as wide as the inputs: both matrices are [64, ...]."""
    return fn.mlp([64], 10, weight_scale=weight_scale, keep_prob=0.8), fn.adam(learning_rate)


NINE = fn.grid(learning_rate=[1e-4, 1e-3, 1e-2], weight_scale=[0.1, 0.2, 0.3])
NUMBERS = fn.random_search(
    jax.random.key(1),
    4,
    learning_rate=fn.log_uniform(1e-3, 1e-2),
    weight_scale=fn.uniform(0.05, 0.2),
    reg=fn.uniform(0, 0.1),
    keep_prob=fn.uniform(0.5, 1),
    momentum=fn.uniform(0.5, 0.9),
    smoothing=fn.uniform(0, 0.3),
    mixup=fn.uniform(0.1, 1),
    slope=fn.uniform(0, 0.3),
)
CASES = {
    "plain": (two_numbers, GRID),
    "nine, in two halves": (square, NINE),
    "nine seeds, in two halves": (square, [{**NINE[0], "seed": i} for i in range(9)]),
    "everything traced": (many_numbers, NUMBERS),
    "seeds, few settings": (two_numbers, [{**s, "seed": i} for s in GRID[:1] for i in range(4)]),
    "seeds, many settings": (two_numbers, [{**s, "seed": i} for i in (3, 8) for s in GRID[:4]]),
    "average, schedule, augmentation": (averaging, fn.grid(learning_rate=[0.01], decay=[0.5, 0.9])),
    "another loss, raw inputs": (svm, fn.grid(learning_rate=[1e-4, 1e-3])),
}


@pytest.mark.parametrize(
    "name",
    slow_but(CASES, "everything traced"),
)
def test_a_member_is_the_run_done_alone(name, small, x64):
    """After 100 steps in float64: matrix products are summed in another order, nothing else."""
    experiment, settings = CASES[name]
    data = small
    if name.startswith("average"):  # images, to be augmented
        data = data._replace(
            **{n: getattr(data, n).reshape(-1, 1, 8, 8) for n in ("x_train", "x_val", "x_test")}
        )
    options = {"epochs": 25, "batch_size": 50}
    result = run(data, settings, experiment, **options, eval_every=5)
    for member in (result.members[0], result.members[-1]):
        lone = alone(data, member.settings, experiment, **options, eval_every=5)
        assert len(lone.history.loss) == 100
        close(member.model.params, lone.model.params, atol=1e-6)
        close(member.model.state, lone.model.state, atol=1e-6)
        close(member.history._asdict(), lone.history._asdict(), atol=1e-6)
        assert member.best.epoch == lone.best.epoch
        close(member.best.params, lone.best.params, atol=1e-6)
        assert member.status == "finished"
        assert member.epochs == 25
        assert member.state is None


@pytest.mark.slow
def test_a_member_is_the_run_done_alone_in_float32(small):
    result = run(small)
    lone = alone(small, GRID[4], two_numbers, epochs=3, batch_size=50)
    close(result.members[4].model.params, lone.model.params, atol=1e-5, rtol=1e-4)
    assert result.members[4].model.params["affine1"]["w"].dtype == np.float32


@pytest.mark.slow
def test_one_example_more_than_batches_take(small):
    data = small._replace(x_train=small.x_train[:103], y_train=small.y_train[:103])
    result = run(data, epochs=2)
    lone = alone(data, GRID[0], two_numbers, epochs=2, batch_size=50)
    close(result.members[0].history.loss, lone.history.loss, rtol=1e-4)
    assert len(lone.history.loss) == 6


def test_without_seeds_all_members_start_alike_and_see_the_same_batches(small):
    rates = fn.grid(learning_rate=[1e-30, 2e-30], weight_scale=[0.1])
    a, b = run(small, rates, epochs=1).members
    equal(a.model.params["affine1"]["w"], b.model.params["affine1"]["w"])
    equal(a.history.loss, b.history.loss)


def test_seeds_change_the_start_and_the_batches(small):
    settings = fn.grid(learning_rate=[1e-30], weight_scale=[0.1], seed=[0, 1])
    a, b = run(small, settings, epochs=1).members
    assert not np.array_equal(a.model.params["affine1"]["w"], b.model.params["affine1"]["w"])
    assert not np.array_equal(a.history.loss, b.history.loss)


def test_without_a_key_the_seed_is_all_that_is_random(small):
    settings = [{**GRID[0], "seed": seed} for seed in (0, 5)]
    member = run(small, settings, key=None).members[1]
    net, optimizer = two_numbers(**GRID[0])
    lone = fn.fit(net, optimizer, small, key=jax.random.key(5), epochs=3, batch_size=50)
    close(member.history.loss, lone.history.loss, rtol=1e-4)


@pytest.mark.slow
def test_an_experiment_may_take_the_seed(small):
    def experiment(learning_rate, seed):
        return fn.mlp([], 10, weight_scale=0.1 * seed), fn.sgd(learning_rate)

    none, one = run(small, fn.grid(learning_rate=[1e-30], seed=[0, 1]), experiment).members
    assert np.abs(none.model.params["affine1"]["w"]).max() < 1e-20
    assert np.abs(one.model.params["affine1"]["w"]).max() > 0.1


# One program for all


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_members_that_differ_in_numbers_are_one_program(chunk_size, small, compiled):
    def experiment(learning_rate, weight_scale):
        return fn.mlp([5], 10, weight_scale=weight_scale), fn.adam(learning_rate)

    rates = list(np.geomspace(1e-3, 1e-2, 5))
    settings = fn.grid(learning_rate=rates, weight_scale=[0.1, 0.2], seed=[0, 1])
    run(small, settings, experiment, chunk_size=chunk_size)
    assert compiled().count("jit(_steps)") == 1
    assert compiled().count("jit(init_states)") == 1


@pytest.mark.slow
def test_models_that_differ_in_the_seed_are_evaluated_by_one_program(small, compiled):
    result = run(small, [{**GRID[0], "seed": seed} for seed in range(3)], epochs=1)
    before = len(compiled())
    for member in result.members:
        fn.evaluate(member.best, small.x_test, small.y_test)
    assert compiled()[before:] == []  # the sweep has evaluated the best of them


@pytest.mark.slow
def test_structural_settings_are_a_program_each(small, compiled):
    calls = []

    def experiment(hidden, rule, learning_rate, bias):
        calls.append((hidden, rule, bias))
        make = {"sgd": fn.sgd, "adam": fn.adam}[rule]
        return fn.mlp(hidden, 10), make(learning_rate)

    settings = fn.grid(
        hidden=[[4], [4, 3]], rule=["sgd", "adam"], learning_rate=[1e-3, 1e-2, 1e-1], bias=[None]
    )
    result = run(small, settings, experiment, epochs=1)
    assert compiled().count("jit(_steps)") in (4, 8)  # of parts of three members, or of two and one
    assert set(calls) == {(h, r, None) for h in ((4,), (4, 3)) for r in ("sgd", "adam")}
    for member in result.members:
        depth = len(member.settings["hidden"]) + 1
        assert len(member.model.params) == depth
    for member in result.members[::8]:
        lone = alone(small, member.settings, experiment, epochs=1, batch_size=50)
        close(member.history.loss, lone.history.loss, rtol=1e-4)


def test_what_the_experiment_reads_besides_its_settings_may_change(small):
    scale = 0.1

    def experiment(rate):
        return fn.mlp([5], 10, weight_scale=scale), fn.sgd(rate)

    settings = fn.grid(rate=[1e-3, 1e-2])
    run(small, settings, experiment, epochs=1)
    scale = 0.3
    member = run(small, settings, experiment, epochs=1).members[1]
    lone = alone(small, member.settings, experiment, epochs=1, batch_size=50)
    close(member.history.loss, lone.history.loss, rtol=1e-4)


@pytest.mark.slow
def test_mixup_of_0_among_others_is_none(small):
    def experiment(mixup):
        return fn.mlp([5], 10), fn.sgd(1e-3), {"mixup_alpha": mixup}

    none, some = run(small, fn.grid(mixup=[0.0, 0.4]), experiment).members
    for member in (none, some):
        lone = alone(small, member.settings, experiment, epochs=3, batch_size=50)
        close(member.history.loss, lone.history.loss, rtol=1e-4)
    assert not np.allclose(none.history.loss, some.history.loss)


def test_the_test_loss_is_the_best_members_own(small):
    def experiment(times, rate):
        def loss_fn(scores, y):
            loss, dscores = fn.softmax_loss(scores, y)
            return times * loss, times * dscores

        return fn.mlp([5], 10, weight_scale=0.1), fn.sgd(rate), {"loss_fn": loss_fn}

    settings = [{"times": 1.0, "rate": 1e-9}, {"times": 3.0, "rate": 1e-2}]
    result = run(small, settings, experiment)
    assert result.best_settings["times"] == 3
    plain = fn.evaluate(result.best, small.x_test, small.y_test).loss
    assert result.test.loss == pytest.approx(3 * plain, rel=1e-5)


def test_preprocessing_may_depend_on_structural_settings_alone(small):
    def experiment(rate, number):
        def preprocess(x):
            return fn.normalize_contrast(x, epsilon=number)

        given = preprocess if number == 1 else partial(fn.normalize_contrast, epsilon=number)
        return fn.mlp([], 10), fn.sgd(rate), {"preprocess": given}

    result = run(small, fn.grid(rate=[1e-3, 1e-2], number=[1, 100]), experiment, epochs=1)
    for member in result.members:
        lone = alone(small, member.settings, experiment, epochs=1, batch_size=50)
        close(member.history.loss, lone.history.loss, rtol=1e-4)

    def of_a_float(number):
        given = partial(fn.normalize_contrast, epsilon=number)
        return fn.mlp([], 10), fn.sgd(1e-3), {"preprocess": given}

    with pytest.raises(ValueError, match="preprocess must not depend on a float"):
        run(small, fn.grid(number=[1e-3, 100.0]), of_a_float)


def test_numbers_among_the_options_may_be_arrays(small):
    options = {"reg": jnp.array(0.1), "average_decay": np.float64(0.5)}
    settings = {"settings": GRID[:1], "epochs": 1}
    a = run(small, **settings, **options)
    b = run(small, **settings, reg=0.1, average_decay=0.5)
    close(a.members[0].history.loss, b.members[0].history.loss, rtol=1e-6)


@pytest.mark.parametrize("ended", ["finished", "stopped"])
def test_members_that_cannot_go_on_are_refused(ended, small):
    members = run(small, epochs=2, halve_at=[1]).members
    chosen = [i for i, member in enumerate(members) if member.status == ended][:1]
    settings, given = [GRID[i] for i in chosen], [members[i] for i in chosen]
    with pytest.raises(ValueError, match=rf"members\[0\] is {ended} after . epochs and cannot"):
        run(small, settings, epochs=4, members=given)
    with pytest.raises(TypeError, match="members must be those of an interrupted sweep"):
        run(small, settings, epochs=4, members=[1])


@pytest.mark.slow
def test_a_setting_that_is_none_or_a_number(small):
    def experiment(keep_prob):
        return fn.mlp([5], 10, keep_prob=keep_prob), fn.adam(1e-2)

    result = run(small, fn.grid(keep_prob=[None, 0.5, 0.9]), experiment)
    for member in result.members[:2]:
        lone = alone(small, member.settings, experiment, epochs=3, batch_size=50)
        close(member.history.loss, lone.history.loss, rtol=1e-4)


@pytest.mark.slow
def test_the_experiment_may_choose_options_that_are_structural(small):
    def experiment(size, scaled):
        preprocess = fn.standardize if scaled else fn.subtract_mean
        return fn.mlp([5], 10), fn.adam(1e-2), {"batch_size": size, "preprocess": preprocess}

    settings = fn.grid(size=[20, 100], scaled=[True, False])
    result = run(small, settings, experiment, batch_size=None)
    for member in result.members:
        assert len(member.history.loss) == 3 * 200 // member.settings["size"]
    for member in result.members[1:3]:
        lone = alone(small, member.settings, experiment, epochs=3)
        close(member.history.loss, lone.history.loss, rtol=1e-4)


@pytest.mark.parametrize("chunk_size", slow_but([1, 4, 100], 4))
def test_results_do_not_depend_on_the_chunks(chunk_size, small, x64):
    seeds = [{**s, "seed": seed} for s in GRID for seed in (0, 1)]
    whole = run(small, seeds)
    parts = run(small, seeds, chunk_size=chunk_size)
    for a, b in zip(whole.members, parts.members, strict=True):
        close(a.model.params, b.model.params, atol=1e-10)
        close(a.history._asdict(), b.history._asdict(), atol=1e-10)
        assert a.settings == b.settings
    assert whole.best_settings == parts.best_settings


def test_a_member_that_diverges_harms_no_other(small):
    def plain(learning_rate):
        return fn.mlp([7], 10), fn.sgd(learning_rate)

    good, bad = [1e-3, 2e-3, 3e-3], [1e-3, 1e10, 3e-3]
    sound, with_bad = (run(small, fn.grid(learning_rate=r), plain) for r in (good, bad))
    assert [m.status for m in with_bad.members] == ["finished", "diverged", "finished"]
    for i in (0, 2):
        equal(sound.members[i].model.params, with_bad.members[i].model.params)
        equal(sound.members[i].history._asdict(), with_bad.members[i].history._asdict())
    assert with_bad.best_settings["learning_rate"] != 1e10
    row = with_bad.table()[1]
    assert row["status"] == "diverged"
    assert row["epochs"] == 3


def test_a_member_whose_last_update_was_not_finite_has_diverged(small):
    def steep(factor):
        return fn.mlp([7], 10), fn.sgd(lambda step: factor * 1e35)

    options = {"epochs": 1, "batch_size": 200}
    result = run(small, fn.grid(factor=[1e-38, 1e10]), steep, **options)
    assert np.isfinite(result.members[1].history.loss).all()
    assert [member.status for member in result.members] == ["finished", "diverged"]


@pytest.mark.slow
def test_if_all_diverge_there_is_no_best(small):
    def plain(learning_rate):
        return fn.mlp([7], 10), fn.sgd(learning_rate)

    result = run(small, fn.grid(learning_rate=[1e10, 1e11]), plain)
    assert {m.status for m in result.members} == {"diverged"}
    assert result.best is result.best_settings is result.test is None


# The result


def test_the_best_is_the_best_on_validation_and_is_tested_once(small):
    result = run(small, epochs=5)
    merits = [(m.best.accuracy, -m.best.loss) for m in result.members]
    member = result.members[merits.index(max(merits))]
    assert result.best_settings == member.settings
    assert result.best is member.best
    assert result.test == fn.evaluate(member.best, small.x_test, small.y_test)
    assert not result.interrupted
    assert fn.predict(result.best, small.x_test).shape == (40,)


def test_the_table(small):
    result = run(small, epochs=4, eval_every=2)
    for row, member in zip(result.table(), result.members, strict=True):
        history = member.history
        assert row == {
            **member.settings,
            "val_accuracy": history.val_accuracy.max(),
            "val_loss": member.best.loss,
            "best_epoch": member.best.epoch,
            "final_train_accuracy": history.train_accuracy[-1],
            "final_val_accuracy": history.val_accuracy[-1],
            "epochs": 4,
            "status": "finished",
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(member.model.params)),
        }
        assert list(history.epoch) == [0, 2, 4]
        model = fn.evaluate(member.model, small.x_val, small.y_val)
        assert row["final_val_accuracy"] == pytest.approx(model.accuracy, abs=1e-9)


def test_without_evaluation_there_are_losses_and_models(small):
    result = run(small, eval_every=None)
    assert result.best is None
    assert [len(m.history.loss) for m in result.members] == 6 * [12]
    assert result.table()[0]["val_accuracy"] is None
    lone = alone(small, GRID[0], two_numbers, epochs=3, batch_size=50, eval_every=None)
    close(result.members[0].model.params, lone.model.params, atol=1e-5, rtol=1e-4)


def test_without_validation_data(small):
    result = run(small._replace(x_val=small.x_val[:0], y_val=small.y_val[:0]))
    assert result.best is None
    assert np.isfinite(result.members[0].history.train_accuracy).all()
    assert result.table()[0]["final_val_accuracy"] is None


def test_what_is_not_validated_is_none_in_the_table_whatever_is_monitored(small):
    data = small._replace(x_val=small.x_val[:0], y_val=small.y_val[:0])
    rows = run(data, GRID[:1], epochs=1, monitor="train_loss").table()
    assert rows[0]["best_epoch"] == 1
    assert [rows[0][name] for name in ("val_accuracy", "val_loss", "final_val_accuracy")] == [
        None,
        None,
        None,
    ]


def test_mean_over_seeds(small):
    settings = fn.grid(learning_rate=[1e-3, 1e-2], weight_scale=[0.1], seed=[0, 1, 2])
    rows = run(small, settings).table()
    rows[1]["status"] = "diverged"
    first, second = fn.mean_over_seeds(rows)
    assert first["learning_rate"] == 1e-3
    values = [rows[0]["val_accuracy"], rows[2]["val_accuracy"]]
    assert first["val_accuracy"] == pytest.approx(np.mean(values))
    assert first["val_accuracy_std"] == pytest.approx(np.std(values, ddof=1))
    assert (first["seeds"], first["diverged"]) == (2, 1)
    assert (second["seeds"], second["diverged"]) == (3, 0)
    assert "seed" not in first


# Successive halving


def test_halving_stops_the_worse_half(small):
    rates = list(np.geomspace(1e-5, 1e-2, 7))
    settings = fn.grid(learning_rate=rates, weight_scale=[0.1])
    whole = run(small, settings, epochs=6)
    halved = run(small, settings, epochs=6, halve_at=[2, 4])
    epochs = [m.epochs for m in halved.members]
    assert sorted(epochs) == [2, 2, 2, 4, 4, 6, 6]
    for a, b in zip(whole.members, halved.members, strict=True):
        assert b.status == ("finished" if b.epochs == 6 else "stopped")
        assert b.state is None
        steps = len(b.history.loss)
        assert steps == 4 * b.epochs
        close(a.history.loss[:steps], b.history.loss, rtol=1e-4)

    def merit(member, epoch):
        rows = member.history.epoch <= epoch
        pairs = zip(member.history.val_accuracy[rows], -member.history.val_loss[rows], strict=True)
        return max(pairs)

    for epoch, kept in ((2, 4), (4, 2)):
        left = [i for i in range(7) if epochs[i] >= epoch]
        order = sorted(left, key=lambda i: merit(whole.members[i], epoch), reverse=True)
        assert {i for i in left if epochs[i] > epoch} == set(order[:kept])


@pytest.mark.slow
def test_halving_stops_what_diverged(small):
    def plain(learning_rate):
        return fn.mlp([7], 10), fn.sgd(learning_rate)

    rates = fn.grid(learning_rate=[1e10, 1e11, 1e12, 1e-3])
    members = run(small, rates, plain, halve_at=[1]).members
    assert [m.status for m in members] == ["diverged"] * 3 + ["finished"]
    assert [m.epochs for m in members] == [1, 1, 1, 3]


# Interruption


class Interrupt:
    """A callback that presses Ctrl-C the n-th time it is called."""

    def __init__(self, calls):
        self.left, self.seen = calls, []

    def __call__(self, done, total, members):
        self.seen.append((done, total))
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("calls", slow_but([1, 3, 4, 7], 3))
@pytest.mark.parametrize("options", [{}, {"halve_at": [1]}], ids=["all", "halving"])
def test_an_interrupted_sweep_goes_on_exactly(calls, options, small):
    settings = [{**s, "seed": seed} for s in GRID[:4] for seed in (0, 1)]
    options = {"chunk_size": 2, **options}
    whole = run(small, settings, **options)
    first = run(small, settings, callback=Interrupt(calls), **options)
    assert first.interrupted
    assert first.test is None
    assert "unfinished" in {m.status for m in first.members}
    rest = run(small, settings, members=first.members, **options)
    assert not rest.interrupted
    for a, b in zip(whole.members, rest.members, strict=True):
        assert (a.status, a.epochs, a.settings) == (b.status, b.epochs, b.settings)
        equal(a.model.params, b.model.params)
        equal(a.history._asdict(), b.history._asdict())
        equal(a.best.params, b.best.params)
        assert (a.best.epoch, a.best.accuracy) == (b.best.epoch, b.best.accuracy)
    assert rest.test == whole.test


def test_a_sweep_goes_on_from_before_its_first_epoch(small, monkeypatch):
    train = chunks.train_members

    def interrupted(*parts, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(chunks, "train_members", interrupted)
    first = run(small, chunk_size=2)
    assert [m.epochs for m in first.members] == [0] * len(GRID)
    monkeypatch.setattr(chunks, "train_members", train)
    rest, whole = run(small, members=first.members), run(small)
    for a, b in zip(whole.members, rest.members, strict=True):
        equal(a.model.params, b.model.params)
        equal(a.history._asdict(), b.history._asdict())


@pytest.mark.slow
def test_an_unfinished_member_goes_on_in_fit(small, x64):
    first = run(small, callback=Interrupt(2), epochs=6)
    member = first.members[3]
    assert member.epochs == 2
    net, optimizer = two_numbers(**member.settings)
    more = fn.fit(net, optimizer, small, train_state=member.state, epochs=6, batch_size=50)
    lone = alone(small, member.settings, two_numbers, epochs=6, batch_size=50)
    close(more.model.params, lone.model.params, atol=1e-9)


@pytest.mark.slow
def test_the_callback_counts_epochs_and_gives_members(small):
    seen = []

    def callback(done, total, members):
        now = members()
        assert sum(m.epochs for m in now) == done
        seen.append((done, total))

    run(small, callback=callback, chunk_size=3)
    assert seen == [(3 * i, 18) for i in range(1, 7)]
    seen.clear()
    run(small, callback=callback, chunk_size=6, halve_at=[1])
    assert seen == [(6, 12), (9, 12), (12, 12)]


def test_members_of_another_sweep_are_refused(small):
    first = run(small, callback=Interrupt(1))
    with pytest.raises(ValueError, match="members are not those of a sweep of these settings"):
        run(small, GRID[:3], members=first.members)


# Wrong input


def looks(learning_rate):
    return fn.mlp([5], 10), fn.adam(learning_rate if learning_rate > 0 else 1.0)


WRONG = {
    "no experiment": ({"experiment": 3}, TypeError, "experiment must be a function"),
    "unknown name": (
        {"settings": fn.grid(learning_rat=[1e-3], weight_scale=[0.1])},
        ValueError,
        "unknown setting of experiment 'learning_rat': did you mean 'learning_rate'",
    ),
    "missing name": (
        {"settings": fn.grid(learning_rate=[1e-3])},
        ValueError,
        "settings have no weight_scale, which experiment needs",
    ),
    "no settings": ({"settings": []}, ValueError, "settings is empty"),
    "the same twice": (
        {"settings": 2 * GRID},
        ValueError,
        r"settings\[6\] is settings\[0\] again",
    ),
    "a string for a number": (
        {"settings": fn.grid(learning_rate=["fast"], weight_scale=[0.1, 0.2])},
        TypeError,
        r"learning_rate.* 'fast'.*\(settings\[0\]: learning_rate='fast', weight_scale=0.1\)",
    ),
    "out of range": (
        {"settings": fn.grid(learning_rate=[1e-3, -1.0], weight_scale=[0.1])},
        ValueError,
        r"learning_rate must be > 0, got -1.0 \(settings\[1\]: learning_rate=-1",
    ),
    "a column's name": (
        {"experiment": lambda epochs: None, "settings": fn.grid(epochs=[1])},
        ValueError,
        "a setting must not be named epochs",
    ),
    "a column's name, over seeds": (
        {"experiment": lambda seeds: None, "settings": fn.grid(seeds=[1])},
        ValueError,
        "a setting must not be named seeds",
    ),
    "it looks through NumPy": (
        {
            "experiment": lambda a: (fn.mlp([], 10), fn.sgd(float(np.log1p(a)))),
            "settings": fn.grid(a=[0.1]),
        },
        TypeError,
        "experiment must not look at the value of a float",
    ),
    "it looks": (
        {"experiment": looks, "settings": fn.grid(learning_rate=[1e-3])},
        TypeError,
        "experiment must not look at the value of a float",
    ),
    "it returns a net": (
        {"experiment": lambda a: None, "settings": fn.grid(a=[1])},
        TypeError,
        r"experiment must return \(net, optimizer\)",
    ),
    "unknown option": (
        {"regg": 0.1},
        ValueError,
        "unknown option of sweep 'regg': did you mean 'reg'",
    ),
    "unknown option of the experiment": (
        {
            "experiment": lambda a: (fn.mlp([], 10), fn.sgd(a), {"epochs": 3}),
            "settings": fn.grid(a=[0.1]),
        },
        ValueError,
        "unknown option of experiment 'epochs'",
    ),
    "no batch size": ({"batch_size": None}, ValueError, "batch_size is missing"),
    "a large batch": ({"batch_size": 201}, ValueError, "there are only 200 training examples"),
    "no epochs": ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    "no members a chunk": ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
    "halving too late": (
        {"halve_at": [3]},
        ValueError,
        "every epoch of halve_at must be at most 2",
    ),
    "halving backwards": ({"halve_at": [2, 1]}, ValueError, r"halve_at must rise, got \[2, 1\]"),
    "halving blindly": (
        {"halve_at": [1], "eval_every": None},
        ValueError,
        "halve_at goes by val_accuracy",
    ),
    "no key": ({"key": 0}, TypeError, "key must be a random key"),
    "neither key nor seed": (
        {"key": None},
        ValueError,
        r"give a key, such as jax.random.key\(0\), or settings with a seed",
    ),
    "few classes": (
        {"experiment": lambda a: (fn.mlp([], 3), fn.sgd(a)), "settings": fn.grid(a=[0.1])},
        ValueError,
        "y_train must hold labels 0 to 2",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sweeps(name, small, compiled):
    options, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        run(small, **options)
    assert "\n" not in str(caught.value)
    assert "jit(_steps)" not in compiled()
    assert "jit(init_states)" not in compiled()


@pytest.mark.slow
def test_the_settings_of_a_member_may_be_jax_numbers(small):
    a = run(small, [{"learning_rate": jnp.float32(0.5), "weight_scale": np.float64(0.1)}], epochs=1)
    assert a.members[0].settings == {"learning_rate": 0.5, "weight_scale": pytest.approx(0.1)}
