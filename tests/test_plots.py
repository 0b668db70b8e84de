"""Pictures: what is drawn, read back from the figures."""

import io
import types

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
    drawn = lines(losses)["validation (each epoch)"]
    np.testing.assert_allclose(drawn, np.stack([[0, 8, 16, 24, 32, 40], run.val_loss], axis=1))
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
    faint, mean = fn.plot_history(run).axes[0].lines[:2]
    np.testing.assert_array_equal(faint.get_ydata(), run.loss)
    assert faint.get_label() == "training: each step"
    assert mean.get_label() == "training: mean of 20 steps"
    expected = [run.loss[end - 20 : end].mean() for end in range(20, 1001)]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    np.testing.assert_array_equal(mean.get_xdata(), np.arange(20, 1001))


def test_several_runs():
    runs = {"sgd": history(), "adam": history(rows=4)}
    figure = fn.plot_histories(runs, title="Rules")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "Training loss (each step pale, mean of 4 steps dark)",
        "Validation loss",
        "Training accuracy",
        "Validation accuracy",
    ]
    columns = (("val_loss", 1), ("train_accuracy", 100), ("val_accuracy", 100))
    for axes, (field, scale) in zip(figure.axes[1:], columns, strict=True):
        drawn = lines(axes)
        for name, run in runs.items():
            np.testing.assert_allclose(drawn[name][:, 1], scale * getattr(run, field))
    # A run has the same colour and dashes in every panel, and each its own.
    for name, look in (("sgd", ("#0072B2", "-")), ("adam", ("#D55E00", "--"))):
        looks = {
            (line.get_color(), line.get_linestyle())
            for axes in figure.axes[1:]
            for line in axes.lines
            if line.get_label() == name
        }
        assert looks == {look}
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["sgd", "adam", "best epoch"]
    assert png(figure).startswith(b"\x89PNG")


def marked(axes, marker):
    return [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == marker]


def test_a_star_is_at_the_best_epoch():
    run = history(steps=50)
    run.val_accuracy[:] = [0.1, 0.5, 0.9, 0.9, 0.8, 0.2]
    run.val_loss[:] = [3, 2, 1, 0.5, 0.6, 0.7]
    losses, accuracies = fn.plot_history(run).axes
    assert marked(losses, "*") == [(30, 0.5)]  # of two that are as accurate the one of less loss
    assert marked(accuracies, "*") == [(3, 90)]
    losses, accuracies = fn.plot_history(run, best=1).axes
    assert marked(accuracies, "*") == [(1, 50)]
    assert "best epoch, 1" in [t.get_text() for t in losses.get_legend().get_texts()]
    with pytest.raises(ValueError, match="best is epoch 9, after which nothing was measured"):
        fn.plot_history(run, best=9)
    assert marked(fn.plot_history(history(val=False)).axes[1], "*") == []


@pytest.mark.parametrize("status", ["stopped", "diverged"])
def test_a_run_that_ended_before_its_time_looks_so(status):
    run = history(steps=50)
    losses, accuracies = fn.plot_history(run, status=status).axes
    assert marked(losses, "X") == [(50, run.loss[-1])]
    assert marked(accuracies, "X") == [(5, 100 * run.val_accuracy[-1])]
    assert [t.get_text() for t in accuracies.texts] == [status]
    assert marked(fn.plot_history(run, status="finished").axes[0], "X") == []


def test_what_fit_returns_says_itself_how_it_ended_and_which_model_was_best():
    best = types.SimpleNamespace(epoch=2)
    result = types.SimpleNamespace(history=history(steps=50), best=best, status="stopped")
    figure = fn.plot_histories({"run": result})
    assert marked(figure.axes[0], "X") == [(50, result.history.loss[-1])]
    assert [x for x, _ in marked(figure.axes[3], "*")] == [2]
    run = history(steps=60)
    run.loss[40:] = np.nan
    losses = fn.plot_history(run).axes[0]
    assert [t.get_text() for t in losses.texts] == ["not finite"]
    assert marked(losses, "X") == [(40, run.loss[39])]


def test_a_run_that_was_not_measured_in_the_end_has_its_epochs_where_they_were():
    run = history(steps=91, rows=2)._replace(epoch=np.array([0, 5]))  # 7 epochs of 13 steps
    losses = fn.plot_history(run).axes[0]
    np.testing.assert_array_equal(lines(losses)["validation (each epoch)"][:, 0], [0, 65])


def test_the_first_steps_do_not_squeeze_the_others():
    run = history(steps=1000)
    run.loss[:5] = 1e6
    axes = fn.plot_history(run).axes[0]
    assert axes.get_ylim()[1] < 6
    assert axes.get_ylabel() == "Loss (5 points beyond)"
    run.loss[:] = np.geomspace(10, 1e-3, 1000)
    run.val_loss[:] = 1
    axes = fn.plot_history(run).axes[0]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "Loss (log scale)")
    assert axes.get_ylim()[0] < 1e-3 < 10 < axes.get_ylim()[1]


def test_names_of_runs_are_shown_as_they_are():
    names = ["$x$", "_hidden", "two\nlines", "long " * 12]
    figure = fn.plot_histories({name: history() for name in names})
    texts = figure.legends[0].get_texts()
    assert [t.get_text() for t in texts[:3]] == ["$x$", "_hidden", "two\\nlines"]
    assert " ".join(texts[3].get_text().split()) == ("long " * 12).strip()
    assert not any(t.get_parse_math() for t in texts)


def test_more_runs_than_can_be_told_apart():
    with pytest.raises(ValueError, match="29 runs, of which 28 can be told apart: choose some"):
        fn.plot_histories({str(i): history() for i in range(29)})
    with pytest.raises(TypeError, match="a run must be a History"):
        fn.plot_history({"loss": [1, 2]})


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


# Sweeps


def rows(**axes):
    """A table: the accuracy is a function of the settings, of two seeds that differ by 0.02."""
    table = []
    for i, settings in enumerate(fn.grid(**axes, seed=[0, 1])):
        table.append(
            {
                **settings,
                "val_accuracy": 0.2 + 0.05 * (i // 2) + 0.02 * settings["seed"],
                "val_loss": 1.0 / (i + 1),
                "best_epoch": 3,
                "final_train_accuracy": 0.5,
                "final_val_accuracy": 0.4,
                "epochs": 3,
                "status": "finished",
            }
        )
    return table


RATES, SCALES = [1e-3, 3e-4, 1e-2], [0.05, 0.02]


def test_a_heat_map_has_the_means_over_seeds_with_its_axes_in_order():
    figure = fn.plot_heat_map(rows(rate=RATES, scale=SCALES), "rate", "scale", title="A sweep")
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.0003", "0.001", "0.01"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0.02", "0.05"]
    # rate 3e-4, scale 0.05 is the third setting, scale 0.02 the fourth.
    expected = 21 + 5 * np.array([[3, 1, 5], [2, 0, 4]])
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert written[0, 0] == "36.0"
    assert len(written) == 6
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate", "scale")
    assert bar.get_ylabel() == "validation accuracy (%)"
    assert figure.get_suptitle() == "A sweep"
    assert png(figure).startswith(b"\x89PNG")


def test_a_heat_map_leaves_out_what_diverged():
    table = rows(rate=RATES, scale=SCALES)
    for row in table[:3]:
        row["status"] = "diverged"
    image = fn.plot_heat_map(table, "rate", "scale").axes[0].images[0].get_array()
    assert np.isnan(np.ma.filled(image, np.nan)[1, 1])  # both seeds of the first setting
    assert image[0, 1] == pytest.approx(27)  # of the second, the seed that did not


def test_panels_share_a_scale():
    table = rows(depth=[2, 4], rate=RATES, scale=SCALES)
    figure = fn.plot_heat_map(table, "rate", "scale", panels="depth", value="val_loss")
    first, second, _ = figure.axes
    assert [first.get_title(), second.get_title()] == ["depth: 2", "depth: 4"]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.images[0].get_array().max() > second.images[0].get_array().max()


def test_lines_have_means_and_a_band():
    figure = fn.plot_lines(rows(rate=RATES), "rate")
    (axes,) = figure.axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), sorted(RATES))
    np.testing.assert_allclose(line.get_ydata(), [26, 21, 31])
    assert axes.get_xscale() == "log"
    spread = np.std([0, 2], ddof=1)
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert edges.max() == pytest.approx(31 + spread)
    assert edges.min() == pytest.approx(21 - spread)
    assert png(figure).startswith(b"\x89PNG")


def test_lines_of_names_and_a_line_for_each_value():
    figure = fn.plot_lines(rows(rule=["sgd", "adam"], depth=[1, 2]), "rule", lines="depth")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["sgd", "adam"]
    said = [" ".join(t.get_text().split()) for t in figure.legends[0].get_texts()]
    assert said == ["depth 1", "depth 2", "mean, and one standard deviation over 2 seeds"]
    assert [line.get_linestyle() for line in axes.lines] == ["None"] * len(axes.lines)
    assert axes.get_xscale() == "linear"


def test_parallel_coordinates():
    table = rows(rate=RATES, rule=["sgd", "adam"], keep=[0.5, 1.0])
    table[0]["status"] = "diverged"
    figure = fn.plot_parallel(table)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()][:3] == ["rate", "rule", "keep"]
    members = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(members) == 24
    grey = [line for line in members if line.get_color() == "0.8"]
    assert len(grey) == 1
    assert len(grey[0].get_ydata()) == len(members[-1].get_ydata()) - 1  # it has no value
    best = members[-1].get_ydata()  # drawn last, on top
    assert best[-1] == 1
    assert best[0] == 1  # the largest rate
    assert png(figure).startswith(b"\x89PNG")


def test_parallel_coordinates_have_the_better_members_on_top():
    table = rows(rate=RATES)
    for row, accuracy in zip(table, [0.6, 0.1, 0.5, 0.2, 0.4, 0.3], strict=True):
        row["val_accuracy"] = accuracy
    axes = fn.plot_parallel(table).axes[0]
    heights = [line.get_ydata()[-1] for line in axes.lines if len(line.get_xdata()) > 2]
    np.testing.assert_allclose(heights, [0, 0.2, 0.4, 0.6, 0.8, 1], atol=1e-12)


def test_true_and_1_are_places_of_their_own():
    axes = fn.plot_lines(rows(a=[True, 1, "1"]), "a").axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["True", "1", "1"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [21, 26, 31])


@pytest.mark.parametrize(
    ("axes", "labels"),
    [
        ({"rate": RATES}, ("rate (log scale)", "validation accuracy (%)")),
        ({"rate": RATES, "scale": SCALES}, ("scale", "rate")),
        ({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, ("", "")),
        ({"rate": [0.1]}, ("seed", "validation accuracy (%)")),
    ],
    ids=["one", "two", "three", "none"],
)
def test_a_sweep_is_drawn_as_suits_its_settings(axes, labels):
    drawn = fn.plot_sweep(rows(**axes)).axes[0]
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == labels


def drawn_at_random(count, diverged=0):
    """A table of two settings drawn at random, rates over many powers of ten."""
    rng = np.random.default_rng(0)
    rates, widths = 10 ** rng.uniform(-5, -1, count), rng.integers(10, 60, count)
    (like, *_) = rows(rate=[1])
    return [
        {
            **like,
            "rate": float(rates[i]),
            "width": int(widths[i]),
            "val_accuracy": i / count,
            "val_loss": 1 - i / count,
            "status": "diverged" if i < diverged else "finished",
        }
        for i in range(count)
    ]


def test_settings_drawn_at_random_are_a_scatter_on_their_own_scales():
    table = drawn_at_random(30, diverged=4)
    figure = fn.plot_sweep(table, title="Random")
    axes, bar = figure.axes
    assert {axes.get_xlabel(), axes.get_ylabel()} == {"rate (log scale)", "width"}
    assert {axes.get_xscale(), axes.get_yscale()} == {"log", "linear"}
    crosses, points, ring = axes.collections
    assert (len(crosses.get_offsets()), len(points.get_offsets())) == (4, 26)
    np.testing.assert_allclose(points.get_array(), [100 * i / 30 for i in range(4, 30)])
    best = {"rate (log scale)": table[-1]["rate"], "width": table[-1]["width"]}
    place = best[axes.get_xlabel()], best[axes.get_ylabel()]
    np.testing.assert_allclose(ring.get_offsets(), [place])
    said = [t.get_text() for t in axes.get_legend().get_texts()]
    assert said == ["diverged, or not measured (4)", "best: 96.7"]
    assert bar.get_ylabel() == "validation accuracy (%)"
    assert figure.get_suptitle() == "Random"
    assert png(figure)


def test_of_a_loss_the_least_is_the_best():
    table = drawn_at_random(9)
    axes = fn.plot_scatter(table, "width", "rate", value="val_loss")
    place = [[table[-1]["width"], table[-1]["rate"]]]
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), place)


def test_a_picture_is_drawn_in_the_axes_given():
    given = fn.plot_sweep(rows(rate=RATES)).axes[0]
    assert fn.plot_scatter(drawn_at_random(9), "rate", "width", axes=given) is given
    with pytest.raises(TypeError, match="axes must be one Axes of matplotlib"):
        fn.plot_scatter(drawn_at_random(9), "rate", "width", axes=given.figure)


def test_bands_say_what_they_are_and_crosses_where_nothing_is():
    table = rows(rate=RATES)
    for row in table:
        row["status"] = "diverged" if row["rate"] == 1e-2 else "finished"
    figure = fn.plot_lines(table[1:], "rate")
    said = [" ".join(t.get_text().split()) for t in figure.legends[0].get_texts()]
    assert said == [
        "mean, and one standard deviation over 1 to 2 seeds",
        "diverged, or not measured",
    ]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_xdata(), [1e-2])


@pytest.mark.parametrize("axes", [{"a": [1, 2]}, {"a": [1, 2], "b": [1, 2]}])
def test_a_sweep_of_which_all_diverged_can_be_drawn(axes):
    table = [{**row, "status": "diverged"} for row in rows(**axes)]
    assert len(fn.plot_sweep(table).axes[0].texts) == 1
    assert fn.plot_parallel(table)


def test_a_sweep_of_two_thousand_members_and_one_of_one_can_be_drawn():
    table = drawn_at_random(2000)
    assert len(fn.plot_sweep(table).axes[0].collections[0].get_offsets()) == 2000
    with pytest.raises(ValueError, match="rate has 2,000 values, too many for a heat map: plot_sc"):
        fn.plot_heat_map(table, "rate", "width")
    (row,) = drawn_at_random(1)
    del row["seed"]
    assert fn.plot_sweep([row]).axes[0].get_xlabel() == "rate"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: fn.plot_sweep([]), "the table is empty"),
        (
            lambda: fn.plot_lines(rows(rate=RATES), "rat"),
            "unknown column 'rat': did you mean 'rate'",
        ),
        (lambda: fn.plot_heat_map(rows(rate=RATES), "rate", "scale"), "unknown column 'scale'"),
        (lambda: fn.plot_sweep(rows(rate=RATES), value="accuracy"), "unknown column 'accuracy'"),
    ],
)
def test_wrong_tables(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
