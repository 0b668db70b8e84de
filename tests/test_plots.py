"""Pictures: what is drawn, read back from the figures."""

import io

import jax
import numpy as np
import pytest

import funcnet as fn


def history(steps=200, rows=6, val=True):
    rng = np.random.default_rng(0)
    nothing = np.full(rows, np.nan)
    return fn.History(
        loss=rng.random(steps) + np.linspace(3, 1, steps),
        epoch=np.arange(rows),
        train_loss=rng.random(rows),
        train_accuracy=rng.random(rows),
        val_loss=rng.random(rows) if val else nothing,
        val_accuracy=rng.random(rows) if val else nothing,
    )


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def png(figure):
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def test_one_run():
    run = history(steps=40)
    figure = fn.plot_history(run, title="A run")
    losses, accuracies = figure.axes
    np.testing.assert_array_equal(losses.lines[0].get_ydata(), run.loss)
    np.testing.assert_array_equal(losses.lines[0].get_xdata(), np.arange(1, 41))
    drawn = lines(accuracies)
    np.testing.assert_allclose(drawn["training"][:, 1], 100 * run.train_accuracy)
    np.testing.assert_allclose(drawn["validation"][:, 1], 100 * run.val_accuracy)
    assert figure.get_suptitle() == "A run"
    assert [axes.get_xlabel() for axes in figure.axes] == ["Iteration", "Epoch"]
    assert png(figure).startswith(b"\x89PNG")


def test_many_steps_get_a_running_mean():
    run = history(steps=1000)
    faint, mean = fn.plot_history(run).axes[0].lines
    np.testing.assert_array_equal(faint.get_ydata(), run.loss)
    assert mean.get_label() == "training loss (mean of 20)"
    expected = [run.loss[end - 20 : end].mean() for end in range(20, 1001)]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    np.testing.assert_array_equal(mean.get_xdata(), np.arange(20, 1001))


def test_several_runs():
    runs = {"sgd": history(), "adam": history(rows=4)}
    figure = fn.plot_histories(runs, title="Rules")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Training loss", "Training accuracy", "Validation accuracy"]
    for axes, field in zip(figure.axes[1:], ("train_accuracy", "val_accuracy"), strict=True):
        drawn = lines(axes)
        assert list(drawn) == ["sgd", "adam"]
        for name, run in runs.items():
            np.testing.assert_allclose(drawn[name][:, 1], 100 * getattr(run, field))
    # A run has the same colour in every panel, and each its own.
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert set(colours[0]) == set(colours[1]) == set(colours[2]) == {"C0", "C1"}
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "run",
    [history(steps=0, rows=0), history(rows=1), history(val=False), history(steps=1)],
    ids=["nothing", "one row", "no validation", "one step"],
)
def test_runs_that_have_little_to_show(run):
    assert png(fn.plot_history(run))
    assert png(fn.plot_histories({"run": run}))


def test_a_diverged_run_can_be_drawn():
    run = history(steps=300)
    run.loss[100:] = np.nan
    run.loss[90:100] = np.inf
    assert png(fn.plot_history(run))


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="histories is empty"):
        fn.plot_histories({})


def test_the_history_of_a_real_run():
    digits = fn.load_digits()
    result = fn.fit(
        fn.mlp([], 10, weight_scale=0.01),
        fn.adam(1e-3),
        digits,
        key=jax.random.key(0),
        epochs=2,
        batch_size=100,
    )
    losses, accuracies = fn.plot_history(result.history).axes
    assert len(losses.lines[0].get_xdata()) == 26
    np.testing.assert_array_equal(lines(accuracies)["validation"][:, 0], [0, 1, 2])
