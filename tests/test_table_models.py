"""Models of tables: what they are trained with by default, and what they predict from."""

import csv
import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from command import run

import funcnet as fn

pytestmark = pytest.mark.usefixtures("unoptimized")
COUNT = 60
SHAPES = np.array(["round", "long", "flat"])


def table(count=COUNT, seed=0):
    """Fruits whose kind is their shape, but that large ones are melons."""
    rng = np.random.default_rng(seed)
    shape, weight = rng.choice(SHAPES, count), np.round(rng.uniform(50, 2000, count), 1)
    kind = np.where(weight > 1000, "melon", np.where(shape == "long", "banana", "apple"))
    cells = np.where(rng.random(count) < 0.1, "", weight.astype(str))
    return {"id": np.arange(count) + 1, "shape": shape, "weight": cells, "kind": kind}


def write(path, columns):
    with Path(path).open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on fruits.csv, which is not beside it any more."""
    path = tmp_path_factory.mktemp("trained")
    data = write(path / "fruits.csv", table(300))
    options = ["--hidden", 16, "--epochs", 40, "--quiet", "--label", "kind", "--out", path / "run"]
    code, _, err = run("train", "--dataset", data, *options)
    assert code == 0
    assert "left out 'id' (row numbers)" in err
    data.unlink()
    return path / "run"


def predicted(*args):
    code, out, err = run("predict", *args)
    assert code == 0, err
    return list(csv.DictReader(io.StringIO(out)))


def test_predictions_are_found_by_the_names_of_columns(trained):
    new = table(40, seed=1)
    plain = predicted(trained, write("a.csv", new))
    assert sum(row["class"] == kind for row, kind in zip(plain, new["kind"], strict=True)) >= 30
    other = {"more": ["x"] * 40, **{name: new[name] for name in ("weight", "kind", "shape")}}
    assert predicted(trained, write("b.csv", other)) == plain
    ids = predicted(trained, "a.csv", "--id", "id")
    assert [row.pop("id") for row in ids] == [str(i + 1) for i in range(40)]
    assert ids == [{k: v for k, v in row.items() if k != "example"} for row in plain]


def test_a_column_that_is_not_there_is_named(trained):
    new = table(5)
    del new["shape"]
    code, out, err = run("predict", trained, write("a.csv", new))
    assert (code, out) == (2, "")
    assert "a.csv has no column 'shape', which the network was trained on" in err
    code, _, err = run("predict", trained, write("b.csv", table(5)), "--id", "name")
    assert (code, "unknown column 'name'" in err) == (2, True)
    assert run("predict", trained, write("c.csv", {**table(2), "weight": [1, "heavy"]}))[2] == (
        "funcnet predict: error: c.csv, line 3, column 'weight': 'heavy' is not a number\n"
    )


def test_all_probabilities(trained):
    rows = predicted(trained, write("a.csv", table(20, seed=2)), "--proba")
    names = [f"probability of {kind}" for kind in ("apple", "banana", "melon")]
    assert list(rows[0]) == ["example", "label", "class", "probability", *names]
    for row in rows:
        each = [float(row[name]) for name in names]
        assert sum(each) == pytest.approx(1, abs=1e-4)
        assert float(row["probability"]) == max(each)
        assert names[int(row["label"])] == f"probability of {row['class']}"


def test_standard_input(trained, monkeypatch):
    expected = predicted(trained, write("a.csv", table(7)))
    text = Path("a.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert predicted(trained, "-") == expected


def test_another_labelled_file_is_evaluated_without_the_data(trained):
    code, _, err = run("evaluate", trained)
    assert (code, "fruits.csv" in err) == (2, True)
    new = table(50, seed=3)
    code, out, err = run("evaluate", trained, write("a.csv", new))
    assert (code, err) == (0, "")
    assert "a.csv accuracy" in out
    assert "(50 examples, last model of" in out
    classes = [row["class"] for row in predicted(trained, "a.csv")]
    accuracy = np.mean(np.array(classes) == new["kind"])
    found = json.loads(run("evaluate", trained, "a.csv", "--json")[1])
    assert found["accuracy"] == accuracy
    assert found["file"] == "a.csv"
    few = {name: values[new["kind"] == "melon"] for name, values in new.items()}
    assert run("evaluate", trained, write("b.csv", few))[0] == 0  # one class is enough
    new["kind"][3] = "pear"
    code, out, err = run("evaluate", trained, write("c.csv", new))
    assert (code, out) == (2, "")
    assert "column 'kind' has 'pear', which is none of the 3 classes that were trained on" in err
    assert run("evaluate", trained, "a.csv", "--split", "val")[0] == 2
    assert run("evaluate", trained, "--label", "kind")[0] == 2
    renamed = {("fruit" if name == "kind" else name): v for name, v in table(20).items()}
    assert run("evaluate", trained, write("d.csv", renamed), "--label", "fruit")[0] == 0


def test_a_file_without_a_header_has_its_columns_in_order(capsys):
    columns = table(90)
    rows = list(zip(columns["shape"], columns["weight"], columns["kind"], strict=True))
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    Path("a.csv").write_text(text)
    options = ["--hidden", 8, "--epochs", 3, "--quiet", "--out", "r"]
    assert run("train", "--dataset", "a.csv", "--label", "last", "--header", "no", *options)[0] == 0
    plain = predicted("r", "a.csv", "--header", "no")
    features = "".join(f"{shape},{weight}\n" for shape, weight, _ in rows)
    Path("b.csv").write_text(features)
    assert predicted("r", "b.csv", "--header", "no") == plain
    Path("c.csv").write_text("round\nlong\n")
    code, _, err = run("predict", "r", "c.csv", "--header", "no")
    assert (code, "c.csv: there are 1 columns, but the network was trained on 3" in err) == (
        2,
        True,
    )


def test_another_file_without_a_header_is_evaluated_whole():
    """Its first row is an example, be its words in no other; labels are words as in training."""
    labels = ("1", "01", "x")
    rows = "".join(f"{'ab'[i % 2]},{i * i},{labels[i % 3]}\n" for i in range(60))
    Path("a.csv").write_text(rows)
    options = ["--hidden", 4, "--epochs", 3, "--quiet", "--out", "r", "--header", "no"]
    assert run("train", "--dataset", "a.csv", "--label", "last", *options)[0] == 0
    Path("b.csv").write_text("a,1,01\nb,4,1\nb,9,01\nb,16,1\n")
    code, out, err = run("evaluate", "r", "b.csv", "--json")
    assert (code, err) == (0, "")
    classes = {each["name"]: each["examples"] for each in json.loads(out)["classes"]}
    assert classes == {"01": 2, "1": 2, "x": 0}


def test_a_first_row_of_counts_is_known_in_any_file():
    rows = "".join(f"{i * i % 17},{i % 7},{i % 2}\n" for i in range(60))
    Path("a.csv").write_text(f"60,2,cat,dog\n{rows}")
    options = ["--hidden", 4, "--epochs", 3, "--quiet", "--out", "r"]
    assert run("train", "--dataset", "a.csv", *options)[0] == 0
    assert run("evaluate", "r")[0] == 0
    assert len(predicted("r", "a.csv")) == 60
    Path("b.csv").write_text(rows)
    assert predicted("r", "b.csv") == predicted("r", "a.csv")


def test_datasets_show():
    columns = table(90) | {"day": [f"2026-01-{1 + i % 28:02}" for i in range(90)]}
    code, out, _ = run("datasets", "show", write("a.csv", columns), "--label", "kind")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert out.startswith("a.csv: 90 rows, 5 columns\n")
    assert "left out: row numbers" in lines["id"]
    assert "3 words" in lines["shape"]
    assert "3 categories" in lines["shape"]
    missing = int((columns["weight"] == "").sum())
    assert f" {missing} " in lines["weight"]
    assert lines["weight"].endswith("a number, missing or not")
    assert lines["day"].endswith("a date: a number and its cycles")
    assert lines["kind"].endswith("the label")
    counts = [int(n) for n in lines["all"].split()[1:]]
    assert (counts, sum(counts)) == ([72, 9, 9], 90)
    code, out, _ = run("datasets", "show", "a.csv")
    assert code == 0
    assert "which column is the label?" in out
    assert run("datasets", "show", "digits")[1].startswith("digits: 1,797 examples of [8, 8] uint8")
    assert "show what?" in run("datasets", "show")[2]
    assert "--label is for show" in run("datasets", "list", "--label", "a")[2]


# From Python


@pytest.fixture(scope="module")
def fruits():
    with pytest.warns(fn.DataWarning, match="are in training, too"):  # those of no weight
        data = fn.load_table(table(200), "kind", drop=["id"])
    net, optimizer, dataset, options = fn.experiment({"hidden_dims": [8], "epochs": 5}, data)
    return data, fn.fit(net, optimizer, dataset, **options)


def test_models_take_tables_and_arrays(fruits, tmp_path):
    data, result = fruits
    for model in (result.model, result.best):
        assert model.encoding == data.encoding
        new = {name: table(30, seed=4)[name] for name in ("weight", "shape")}
        known = fn.load_table(
            table(30, seed=4),
            encoding=data.encoding,
            class_names=data.class_names,
            val_fraction=0,
            test_fraction=0,
        )
        labels = fn.predict(model, new)
        accuracy = fn.evaluate(model, known.x_train, known.y_train).accuracy
        kinds = np.array(data.class_names)[labels]
        assert accuracy == np.mean(kinds == table(30, seed=4)["kind"])
        proba = fn.predict_proba(model, write(tmp_path / "a.csv", new))
        assert (proba.argmax(axis=1) == labels).all()
        one = fn.predict(model, {name: values[:1] for name, values in new.items()})
        assert one[0] == labels[0]
    with pytest.raises(TypeError, match="was not trained on a table"):
        fn.predict(dataclasses.replace(result.model, encoding=None), new)


def test_an_encoding_is_saved_with_its_model(fruits, tmp_path):
    data, result = fruits
    fn.save_model(tmp_path / "a.safetensors", result.best)
    again = fn.load_model(tmp_path / "a.safetensors", result.best.net)
    assert again.encoding == data.encoding
    new = table(10, seed=5)
    np.testing.assert_array_equal(
        fn.predict_scores(again, new), fn.predict_scores(result.best, new)
    )
    content = (tmp_path / "a.safetensors").read_bytes()
    assert b"round" in content
    (tmp_path / "a.safetensors").write_bytes(content.replace(b"round", b"rouns"))
    with pytest.raises(ValueError, match="is damaged: its checksum"):
        fn.load_model(tmp_path / "a.safetensors", result.best.net)


def test_members_of_a_sweep_take_tables(fruits):
    data, _ = fruits

    def experiment(learning_rate):
        return fn.mlp([4], 3), fn.adam(learning_rate)

    settings = fn.grid(learning_rate=[1e-2, 1e-3], seed=[0])
    swept = fn.sweep(experiment, data, settings, epochs=2, batch_size=50)
    models = [m for member in swept.members for m in (member.model, member.best)]
    assert {model.encoding for model in (*models, swept.best)} == {data.encoding}
    assert len(fn.predict(swept.best, table(5))) == 5


def test_a_sweep_of_a_table_by_the_command():
    write("a.csv", table(120))
    options = ["--label", "kind", "--hidden", 8, "--epochs", 3, "--reg", 0, 1e-2, "--quiet"]
    assert run("sweep", "--dataset", "a.csv", *options, "--out", "s")[0] == 0
    assert len(predicted("s/best", "a.csv")) == 120
    assert run("evaluate", "s/best")[0] == 0


def test_a_row_alone_is_what_it_is_among_others(tmp_path):
    """How numbers are rounded depends on those of training, never on what is predicted beside."""
    when = 1_790_000_000_000 + 1000 * np.arange(40)  # milliseconds, which float32 has not
    columns = {"when": when, "shape": SHAPES[np.arange(40) % 3], "y": (np.arange(40) >= 20) * 1}
    data = fn.load_table(columns, "y", columns=["when", "shape"], val_fraction=0, test_fraction=0)
    assert data.x_train.dtype == np.float64
    net, optimizer, dataset, options = fn.experiment({"hidden_dims": [8], "reg": 0.0}, data)
    model = fn.fit(net, optimizer, dataset, **options).model
    together = fn.predict_scores(model, columns)
    assert np.mean(together.argmax(axis=1) == columns["y"]) > 0.9
    for i in (0, 7, 39):
        row = {name: values[i : i + 1] for name, values in columns.items()}
        np.testing.assert_allclose(fn.predict_scores(model, row)[0], together[i], atol=1e-5)
    large = {"when": [2.0**60], "shape": ["long"]}
    assert np.isfinite(fn.predict_scores(model, large)).all()


# What is done where nothing is said


def test_defaults_depend_on_what_the_data_are():
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    rows = fn.Dataset(x, y, x[:5], y[:5], x[:5], y[:5], ("a", "b", "c"))
    config = fn.complete_config(fn.Config(), rows)
    assert (config.preprocess, config.weight_scale) == (("numbers",), "he")
    assert (config.schedule, config.model) == ("cosine", "last")
    assert config.reg == 0.1
    assert (config.batch_size, config.epochs) == (60, 1000)  # a step an epoch
    assert 20 <= config.epochs / config.eval_every <= 30
    for pixels in (x.reshape(60, 2, 2), (x.clip(0) * 9).astype(np.uint8)):
        other = rows._replace(x_train=pixels, x_val=pixels[:5], x_test=pixels[:5])
        config = fn.complete_config(fn.Config(), other)
        assert (config.preprocess, config.weight_scale) == (("mean",), 2e-2)
        assert (config.schedule, config.model) == (None, "best")
        assert (config.reg, config.epochs, config.eval_every) == (0.0, 20, 1)


def test_what_is_said_is_done():
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    rows = fn.Dataset(x, y, x[:5], y[:5], x[:5], y[:5], ("a", "b", "c"))
    said = {
        "preprocess": ("mean",),
        "weight_scale": 0.1,
        "schedule": "constant",
        "reg": 0.0,
        "epochs": 7,
        "batch_size": 50,
        "eval_every": 0,
        "model": "best",
        "loss": "svm",
        "monitor": "val_accuracy",
    }
    assert fn.complete_config(fn.Config(**said), rows) == fn.Config(**said)
    decayed = fn.complete_config(fn.Config(optimizer="adamw", weight_decay=0.1), rows)
    assert decayed.reg == 0.0
    assert fn.complete_config(fn.Config(learning_rate_decay=0.9), rows).schedule is None
    assert fn.complete_config(fn.Config(epochs=100), rows).eval_every == 4
    for stops in ({"patience": 3}, {"monitor": "val_loss"}):
        assert fn.complete_config(fn.Config(**stops), rows).model == "best"
        assert fn.complete_config(fn.Config(**stops, model="last"), rows).model == "last"
    many = rows._replace(x_train=np.tile(x, (100, 1)), y_train=np.tile(y, 100))
    assert fn.complete_config(fn.Config(), many).epochs == 20
    assert fn.complete_config(fn.Config(), many).reg == 20 / (6000 * 3)
    numbers = many._replace(task="regression", class_names=(), y_train=many.y_train * 1.0)
    assert fn.complete_config(fn.Config(), numbers).reg == 5 / 6000
    for count, batch_size in ((6000, 50), (96, 48), (31, 31), (83 * 3, 50), (83, 50), (37, 37)):
        few = many._replace(x_train=many.x_train[:count], y_train=many.y_train[:count])
        assert fn.complete_config(fn.Config(), few).batch_size == batch_size
    most = rows._replace(x_train=np.zeros((10**6, 1)), y_train=np.zeros(10**6, int))
    assert fn.complete_config(fn.Config(), most).epochs == 3


def test_a_table_is_learned_without_options():
    """60 rows in two clouds far from each other and from 0: 20 epochs would be nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    columns = {"a": 1e6 + 3 * y + rng.normal(size=60), "b": 1e-3 * (y + 0.3 * rng.normal(size=60))}
    write("a.csv", {**columns, "y": y})
    code, out, _ = run("train", "--dataset", "a.csv", "--hidden", 16, "--out", "r")
    assert code == 0
    assert out.startswith("60 examples, 2 numbers; label 'y', 2 classes\n")
    assert out.count("(Epoch ") <= 30
    config = json.loads(Path("r/config.json").read_text())
    assert (config["epochs"], config["model"], config["label"]) == (1000, "last", ["y"])
    assert config["results"]["val_accuracy"] >= 0.8
    assert run("evaluate", "r")[1].splitlines()[0].endswith("last model of r)")
    jax.clear_caches()


def test_a_run_of_a_table_before_columns_were_encoded(trained):
    """Its label was the last column, and all others were numbers."""
    rows = {"a": np.arange(40.0) ** 2, "b": np.arange(40) % 7, "c": np.arange(40) % 2}
    write("a.csv", rows)
    options = ["--hidden", 4, "--epochs", 3, "--label", "c", "--quiet", "--out", "r"]
    assert run("train", "--dataset", "a.csv", *options)[0] == 0
    expected, classes = run("evaluate", "r")[1], predicted("r", "a.csv")
    config = json.loads(Path("r/config.json").read_text())
    old = {**config, "format": "funcnet run 2", "version": 2, "label": None, "model": None}
    for name in ("model", "columns", "drop", "categorical", "group", "split_by", "separator"):
        old.pop(name)
    Path("r/config.json").write_text(json.dumps(old))
    net = fn.mlp([4], 2)
    for name in ("best", "last"):
        model = fn.load_model(f"r/{name}.safetensors", net)
        fn.save_model(f"r/{name}.safetensors", dataclasses.replace(model, encoding=None))
    code, out, err = run("evaluate", "r", "--model", "last")
    assert (code, err) == (0, "")
    assert out == expected
    write("x.csv", {name: rows[name] for name in ("a", "b")})
    assert predicted("r", "x.csv", "--model", "last") == classes
