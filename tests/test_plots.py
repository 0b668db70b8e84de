"""Pictures: what is drawn, read back from the figures."""

import io
import types

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.gradcheck import Discrepancy, GradientRow


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
    drawn = lines(losses)["validation"]
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
    np.testing.assert_array_equal(lines(losses)["validation"][:, 0], [0, 65])


def test_the_first_steps_do_not_squeeze_the_others():
    run = history(steps=1000)
    run.loss[:5] = 1e6
    axes = fn.plot_history(run).axes[0]
    assert axes.get_ylim()[1] < 6
    assert axes.get_ylabel() == "Loss (5 points out of view)"
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


def test_the_background_is_white_and_opaque():
    import matplotlib.image

    data = io.BytesIO(png(fn.plot_history(history(steps=3))))
    np.testing.assert_array_equal(matplotlib.image.imread(data)[0, 0], [1, 1, 1, 1])


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


def test_learning_rates_with_the_one_suggested():
    rate = np.geomspace(1e-5, 1, 50)
    loss = np.where(rate < 1e-3, 2.0, np.where(rate < 1e-1, 1.0, 1e5))
    found = types.SimpleNamespace(learning_rate=rate, loss=loss, smoothed=loss, suggestion=1e-3)
    axes = fn.plot_learning_rates(found)
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(lines(axes)["smoothed"], np.stack([rate, loss], axis=1))
    np.testing.assert_array_equal(lines(axes)["suggested: 0.001"][:, 0], 1e-3)
    assert axes.get_ylim()[1] < 4  # not where it explodes
    assert axes.get_ylabel() == f"Loss ({2 * (loss > 4).sum()} points out of view)"
    found.suggestion = None
    said = [t.get_text() for t in fn.plot_learning_rates(found).get_legend().get_texts()]
    assert said[-1] == "no rate is suggested"
    found.loss[:] = found.smoothed[:] = np.nan
    assert png(fn.plot_learning_rates(found).figure)
    with pytest.raises(TypeError, match="find_learning_rate returns, it has no smoothed, suggest"):
        fn.plot_learning_rates(types.SimpleNamespace(learning_rate=rate, loss=loss))


# Predictions


def test_a_confusion_matrix():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 1234]])
    names = ["cat $x$", "dog", "_bird" + "x" * 40]
    axes = fn.plot_confusion_matrix(counts, names)
    shares = np.ma.filled(axes.images[0].get_array(), np.nan)
    expected = [[80, 20, 0], [np.nan] * 3, [100 / 1235, 0, 123400 / 1235]]
    np.testing.assert_allclose(shares, expected)
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert written == {(0, 0): "8", (1, 0): "2", (0, 2): "1", (2, 2): "1,234"}
    ticks = [t.get_text() for t in axes.get_yticklabels()]
    assert ticks[:2] == ["cat $x$", "dog"]
    assert ticks[2].startswith("_birdxx")
    assert len(ticks[2]) == 30
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    assert png(axes.figure)


@pytest.mark.parametrize("classes", [2, 100])
def test_a_confusion_matrix_of_few_and_many_classes(classes):
    axes = fn.plot_confusion_matrix(np.eye(classes, dtype=int))
    assert len(axes.get_xticklabels()) == classes
    assert len(axes.texts) == (2 if classes == 2 else 0)
    width, height = axes.figure.get_size_inches()
    assert 3 < height < width < 20


def test_residuals():
    y = np.array([1.0, 2, 3, 4])
    axes = fn.plot_residuals(y, [1, 2, 3, 6], name="price", unit="EUR")
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[1, 0], [2, 0], [3, 0], [6, 2]])
    assert axes.get_xlabel() == "Predicted price (EUR)"
    assert axes.get_ylabel() == "Predicted less true price (EUR)"
    said = [t.get_text() for t in axes.get_legend().get_texts()]
    assert said == ["RMSE 1", "mean of the errors 0.5"]
    many = np.arange(6000.0)[:, None]
    axes = fn.plot_residuals(many, many + 1)
    assert axes.collections[0].get_array().sum() == 6000  # cells, with all of them


def some_images(n=12, shape=(8, 8)):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape)), np.arange(n) % 3
    p = np.full((n, 3), 0.1)
    p[np.arange(n), y] = 0.8
    for i, top in ((2, 0.6), (5, 0.9), (7, 0.7)):  # mistaken
        p[i] = (1 - top) / 2
        p[i, (y[i] + 1) % 3] = top
    return x, y, p


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((8, 8), (8, 8)),
        ((64,), (8, 8)),
        ((3, 4, 5), (4, 5, 3)),
        ((1, 4, 5), (4, 5)),
        ((48,), (4, 4, 3)),
    ],
)
def test_the_most_confident_mistakes_come_first(shape, seen):
    x, y, p = some_images(shape=shape)
    figure = fn.plot_mistakes(x, y, p, ["a", "b$", "c"], count=2)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["a (90 %)\nis c; no. 5", "c (70 %)\nis b$; no. 7"]
    image = figure.axes[0].images[0].get_array()
    assert image.shape == seen
    scaled = (x[5] - x.min()) / (x.max() - x.min())
    expected = np.moveaxis(scaled.reshape(3, *seen[:2]), 0, -1) if len(seen) == 3 else scaled
    np.testing.assert_allclose(image, np.reshape(expected, seen))
    assert png(figure)


def test_weights_are_images():
    net = fn.mlp([100], 3, weight_scale=0.1)
    params, _, _ = net.init(jax.random.key(0), (64,))
    figure = fn.plot_weights(params, count=9)
    w = np.asarray(params["affine1"]["w"])
    shown = [int(axes.get_title()) for axes in figure.axes if axes.images]
    assert shown == sorted(np.argsort(-np.linalg.norm(w, axis=0))[:9])
    top = np.abs(w[:, shown]).max()
    np.testing.assert_allclose(
        figure.axes[3].images[0].get_array(),
        0.5 + w[:, shown[3]].reshape(8, 8) / (2 * top),
        rtol=1e-6,
    )
    assert "9 of 100 units" in figure.get_suptitle()
    assert len(fn.plot_weights(np.zeros((12, 2)), (3, 4)).axes[0].images) == 1


# Gradients, and what goes on inside


def gradient_check(error=1e-15, numerical=1e-9):
    def row(name, autodiff, beyond):
        found = map(Discrepancy, (autodiff, 1e-6, beyond, 1e-6))
        return GradientRow(name, (2, 3), *found, checked=6, kinks=0)

    rows = (row("affine1/w", 1e-16, 0.0), row("affine1/b", error, numerical))
    return fn.GradientCheck(2.3, rows, 1e-12, 1e-7)


def test_a_gradient_check_that_passed():
    axes = fn.plot_gradient_check(gradient_check())
    assert axes.get_xscale() == "log"
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["error against autodiff"], [[1e-15, 0], [1e-16, 1]])
    np.testing.assert_allclose(drawn["error against numerical"], [[1e-9, 0], [1e-18, 1]])
    np.testing.assert_allclose(drawn["allowed against autodiff: 1e-12"][:, 0], 1e-12)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["affine1/b", "affine1/w"]
    assert "0 at the left end" in axes.get_xlabel()


def test_a_gradient_check_that_failed():
    axes = fn.plot_gradient_check(gradient_check(1e-3, np.nan))
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["disagrees with autodiff"], [[1e-3, 0]])
    np.testing.assert_allclose(drawn["disagrees with numerical"], [[1e-2, 0]])  # right of all
    assert "NaN at the right" in axes.get_xlabel()


def record(leaves=("affine1/b", "affine1/w", "affine2/w"), optimizer=None, epochs=3):
    found = fn.LayerRecorder(fn.mlp([2], 2), np.ones((2, 4)), [0, 1], optimizer=optimizer)
    for epoch in range(epochs):
        layer = np.array([epoch, 1.0, 2.0])
        flat = np.array([np.nan, 0.25, np.nan])
        names = ("affine1", "relu1", "affine2")
        parts = layer, layer, layer / 10, flat, leaves
        numbers = np.arange(1.0, 1 + len(leaves))
        found.rows.append(
            fn.LayerStatistics(1.0, names, *parts, numbers, 10 * numbers, numbers / (epoch + 1))
        )
        found.epochs.append(epoch)
        found.changes.append(numbers * (np.nan if epoch == 0 else epoch))
    return found


def test_activations_over_a_run():
    figure = fn.plot_activations(record())
    mean, _, flat = figure.axes
    assert list(lines(mean)) == ["relu1"]
    np.testing.assert_array_equal(lines(flat)["relu1"], [[0, 25], [1, 25], [2, 25]])
    drawn = lines(fn.plot_activations(record(), layers=["affine1", "affine2"]).axes[2])
    np.testing.assert_allclose(drawn["affine1"][:, 1], [0, 10, 20])  # of others the share of 0
    with pytest.raises(ValueError, match="unknown layer 'relu2': did you mean 'relu1'"):
        fn.plot_activations(record(), layers=["relu2"])


def test_gradients_and_updates_over_a_run():
    axes = fn.plot_gradients(record())
    assert list(lines(axes)) == ["affine1/w", "affine2/w"]
    assert axes.get_ylabel() == "Norm of the gradient (log scale)"
    assert list(lines(fn.plot_gradients(record(), leaves=["affine1/b"]))) == ["affine1/b"]
    axes = fn.plot_update_ratios(record(optimizer=fn.sgd(0.1)))
    np.testing.assert_allclose(lines(axes)["affine1/w"][:, 1], [0.1, 0.05, 0.1 / 3])
    assert axes.get_ylabel() == "Update of a step by weight (log scale)"
    axes = fn.plot_update_ratios(record())
    np.testing.assert_allclose(lines(axes)["affine2/w"][:, 1], [np.nan, 3, 6])
    assert axes.get_ylabel() == "Change of an epoch by weight (log scale)"
    leaves = tuple(f"affine{i}/w" for i in range(100))
    axes = fn.plot_gradients(record(leaves, epochs=1))
    assert len(axes.lines) == 100
    assert len(axes.get_legend().get_texts()) == 12
    with pytest.raises(ValueError, match="record is empty: give it to fit, as callback=record"):
        fn.plot_gradients(record(epochs=0))


# What a search has found


def test_importance_has_the_largest_on_top():
    axes = fn.plot_importance({"a": 0.1, "rate $x$": 0.7, "none": np.nan, "c": 0.2})
    assert [t.get_text() for t in axes.get_yticklabels()] == ["none", "a", "c", "rate $x$"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0, 0.1, 0.2, 0.7])
    assert [t.get_text() for t in axes.texts] == ["nan", "0.1", "0.2", "0.7"]


def test_the_pareto_front_has_those_than_which_none_is_better_in_both():
    points = [(10, 0.5), (20, 0.4), (30, 0.9), (40, 0.9), (5, 0.1), (1, 0.99)]
    table = [{"parameters": p, "val_accuracy": a, "status": "finished"} for p, a in points]
    table[-1]["status"] = "diverged"
    axes = fn.plot_pareto(table, "parameters", "val_accuracy")
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["Pareto front, 3 members"], [[5, 10], [10, 50], [30, 90]])
    assert "diverged, or not measured: 1" in drawn
    assert axes.get_xlabel() == "parameters; smaller is better"
    assert axes.get_ylabel() == "validation accuracy (%); larger is better"
    drawn = lines(fn.plot_pareto(table, "parameters", "val_accuracy", larger=["parameters"]))
    np.testing.assert_allclose(drawn["Pareto front, 3 members"], [[5, 10], [20, 40], [40, 90]])
    nothing = fn.plot_pareto([table[-1]], "parameters", "val_accuracy")
    assert [t.get_text() for t in nothing.texts] == [
        "no member has both parameters and val_accuracy"
    ]


X, Y, P = some_images()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: fn.plot_confusion_matrix([[1, 2]]), r"confusion must be \[C, C\]"),
        (lambda: fn.plot_confusion_matrix([[0.5, 1], [1, 1]]), "confusion must hold counts"),
        (lambda: fn.plot_confusion_matrix(np.eye(2), ["a"]), "class_names has 1 names for 2"),
        (lambda: fn.plot_confusion_matrix(np.eye(201)), "201 classes, of which 200 can be drawn"),
        (lambda: fn.plot_residuals(np.ones((3, 2)), np.ones((3, 2))), r"choose one, y\[:, 0\]"),
        (lambda: fn.plot_residuals([1, np.nan], [1, 2]), r"y\[1\] is nan"),
        (lambda: fn.plot_residuals([], []), "y is empty"),
        (lambda: fn.plot_mistakes(X, Y, np.eye(3)[Y]), "none of 12 examples is mistaken"),
        (lambda: fn.plot_mistakes(X[:, 0, :7], Y, P), "no square image: give image_shape"),
        (lambda: fn.plot_mistakes(X[:3], Y, P), "x has 3 examples, probabilities 12"),
        (lambda: fn.plot_mistakes(X[:, None, None], Y, P), "x must be images"),
        (lambda: fn.plot_weights({"pbld1": {"w": np.ones((4, 2))}}), "matrices there are: pbld1/w"),
        (lambda: fn.plot_weights(np.ones((7, 2))), "weights has 7 numbers an example"),
        (lambda: fn.plot_importance({}), "importances holds 0 names"),
        (lambda: fn.plot_pareto([], "a", "b"), "the table is empty"),
        (lambda: fn.plot_pareto([{"a": 1, "b": 2}], "a", "b", larger=["c"]), "column in larger"),
        (lambda: fn.plot_gradient_check(gradient_check()._replace(rows=())), "check has 0 rows"),
    ],
)
def test_what_cannot_be_drawn_says_what_to_do(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


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
