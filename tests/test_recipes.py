"""Recipes: experiments as data, the same from the command line and from Python."""

import dataclasses
import json
import math
import re
import shlex
import tomllib
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run
from marks import slow_but

import funcnet as fn
from funcnet import optim, recipes
from funcnet.cli import main, train

NAMES = tuple(fn.list_recipes())
OF_TABLES = ("table", "table-ensemble")
SMALL = {"hidden_dims": [8], "epochs": 2, "num_train": 200}


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def configuration(monkeypatch):
    """A function: the configuration that `funcnet train` makes of its options, which runs nothing.

    In place of CIFAR-10 it has the digits.
    """

    class Made(Exception):
        pass

    def with_data(record, dataset):
        raise Made(record)

    monkeypatch.setattr(train, "load_data", lambda config: fn.load_digits())
    monkeypatch.setattr(train, "with_data", with_data)

    def of(*options):
        with pytest.raises(Made) as made:
            main(["train", *map(str, options)])
        (record,) = made.value.args
        assert set(record.facts) == {"recipe", "title", "versions", "machine"}
        return record

    return of


def complete(config):
    """A Config as it is of pixels, such as the digits."""
    return fn.complete_config(config, fn.load_digits())


def stored(config):
    """A Config as it is in a config.json."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


# What is in recipes.toml


def test_a_recipe_is_data():
    text = resources.files("funcnet").joinpath("recipes.toml").read_text(encoding="utf-8")
    for name, table in tomllib.loads(text).items():
        assert set(table) == {"about", "cost", "reaches", "options"}
        recipe = fn.list_recipes()[name]
        assert recipe == (name, *(table[k] for k in ("about", "cost", "reaches", "options")))
        for line in recipe[1:4]:
            assert isinstance(line, str)
            assert "\n" not in line
        assert recipe.about


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_known_options(name):
    options = fn.list_recipes()[name].options
    assert set(options) <= set(fn.Config())
    for own in ("data_dir", "seed"):  # which are for who runs it to say
        assert own not in options
    assert fn.load_recipe(name) == fn.Config(**options)
    assert stored(fn.load_recipe(name)) == {**stored(fn.Config()), **options}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds(name):
    config = complete(fn.load_recipe(name))
    shape = {"digits": (8, 8), "cifar10": (3, 32, 32)}[config["dataset"]]
    x = jax.ShapeDtypeStruct((4, *shape), jnp.uint8)
    augmented = x
    for step in recipes.build_augment(config) or ():
        augmented = jax.eval_shape(step, jax.random.key(0), augmented)
    assert (augmented.shape, augmented.dtype) == (x.shape, x.dtype)
    features = math.prod(shape)
    for step in config["preprocess"]:
        if step.startswith("whiten="):
            features = int(step.removeprefix("whiten="))
            assert features <= math.prod(shape)
    recipes.build_preprocess(config)
    net = recipes.build_net(config, 10)
    params, _, _ = jax.eval_shape(lambda key: net.init(key, (features,)), jax.random.key(0))
    assert len(config.hidden_dims) + 1 == sum(name.startswith("affine") for name in params)
    recipes.build_optimizer(config, 10).init({"w": jnp.ones((2, 2))})
    assert recipes.build_schedule(config, 10) is not None


# What the command says of them


def test_the_command_lists_them():
    code, out, err = run("recipes")
    assert (code, err) == (0, "")
    for name, recipe in fn.list_recipes().items():
        lines = [name, f"    {recipe.about}", f"    cost: {recipe.cost}"]
        assert "\n".join([*lines, f"    reaches: {recipe.reaches}"]) in out


@pytest.mark.parametrize("name", NAMES)
def test_the_command_that_is_shown_is_the_recipe(name, configuration):
    code, out, err = run("recipes", name)
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}: {fn.list_recipes()[name].about}\n")
    funcnet, train, *options = shlex.split(out.splitlines()[-1])
    assert (funcnet, train) == ("funcnet", "train")
    shown, named = configuration(*options), configuration("--recipe", name)
    assert shown.config == named.config == complete(fn.load_recipe(name))
    assert (shown.facts["recipe"], named.facts["recipe"]) == (None, name)
    assert named.facts["title"].startswith(f"{name}, ")


def test_the_recipe_digits_is_what_is_run_without_options(configuration):
    plain = configuration().config
    assert plain == complete(fn.Config())
    assert configuration("--recipe", "digits").config == plain


# Options in place of those of a recipe

OVERRIDES = {
    "epochs": (["--epochs", 2], {"epochs": 2}),
    "seed": (["--seed", 3], {"seed": 3}),
    "hidden": (["--hidden", 32, 16], {"hidden_dims": [32, 16]}),
    "no hidden": (["--hidden"], {"hidden_dims": []}),
    "no augmentation": (["--augment"], {"augment": []}),
    "no tta": (["--no-tta"], {"tta": False}),
    "back to a default": (["--keep-prob=1", "--mixup", 0], {"keep_prob": 1.0, "mixup_alpha": 0.0}),
    "another optimizer": (
        ["--optimizer", "sgd", "--weight-decay", 0],
        {"optimizer": "sgd", "weight_decay": 0.0},
    ),
    "a scale": (["--weight-scale", "0.1"], {"weight_scale": 0.1}),
    "preprocessing": (["--preprocess", "mean"], {"preprocess": ["mean"]}),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_an_option_wins_over_the_recipe_wherever_it_stands(case, configuration):
    options, changes = OVERRIDES[case]
    expected = complete(fn.load_recipe("cifar10-gpu", **changes))
    assert expected != complete(fn.load_recipe("cifar10-gpu"))
    for line in (
        ["--recipe", "cifar10-gpu", *options],
        [*options, "--recipe", "cifar10-gpu"],
        [*options, "--recipe=cifar10-gpu"],
        ["--recipe=cifar10-gpu", "--quiet", *options],
        ["--recipe", "digits", *options, "--recipe", "cifar10-gpu"],  # the last one counts
    ):
        record = configuration(*line)
        assert record.config == expected
        assert record.facts["recipe"] == "cifar10-gpu"
    recipes.build_optimizer(expected, 10)  # what a recipe has can be undone


def test_a_recipe_of_one_command_is_none_of_the_next(configuration):
    configuration("--recipe", "cifar10-gpu")
    assert configuration().config == complete(fn.Config())


# From Python


def test_load_recipe_is_the_run_of_the_command(unoptimized):
    options = ["--hidden", 8, "--epochs", 2, "--num-train", 200, "--seed", 4]
    code, out, err = run("train", "--recipe", "digits", *options)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "saved in runs/digits"
    config = complete(fn.load_recipe("digits", **SMALL, seed=4))
    written = json.loads(Path("runs/digits/config.json").read_text())
    assert {k: written[k] for k in config} == {**stored(config), "batch_size": 50}
    assert written["recipe"] == "digits"
    net, optimizer, dataset, options = fn.experiment(config, fn.load_digits())
    assert len(dataset.x_train) == 200
    result = fn.fit(net, optimizer, dataset, **options)
    losses = np.loadtxt("runs/digits/losses.csv", delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_allclose(losses, result.history.loss, rtol=1e-6)
    accuracy = fn.evaluate(result.best, dataset.x_test, dataset.y_test).accuracy
    assert written["results"]["test_accuracy"] == accuracy


def test_a_configuration_may_leave_out_what_is_default():
    digits = fn.load_digits()
    few = fn.experiment({"num_train": 30, "seed": 7}, digits)
    assert few.options["batch_size"] == 30  # all, as they are fewer than 50
    whole = fn.experiment({}, digits)
    assert (whole.options["batch_size"], whole.options["epochs"]) == (50, 20)
    assert len(whole.dataset.x_train) == len(digits.x_train)
    assert fn.experiment({"eval_every": 0}, digits).options["eval_every"] is None
    for experiment in (few, whole):  # fitted to all of the training data
        mean = experiment.options["preprocess"].stats["mean"]
        np.testing.assert_allclose(mean, digits.x_train.mean(axis=0), rtol=1e-6)


def test_the_same_configuration_twice_is_compiled_once():
    config = fn.load_recipe("digits", augment=["shift=1", "flip"])
    once, again = recipes.build_augment(config), recipes.build_augment(fn.Config(**config))
    assert once == again
    assert len(once) == 2


def test_recipes_are_copies():
    before = fn.load_recipe("cifar10-cpu")
    spoiled = fn.list_recipes()["cifar10-cpu"].options
    for value in spoiled.values():
        if isinstance(value, list):
            value.append(1)
    spoiled["epochs"] = 1
    fn.list_recipes().clear()
    assert fn.load_recipe("cifar10-cpu") == before


def test_configurations_are_immutable():
    steps, sizes = ["mean"], [4]
    config = fn.load_recipe("digits", preprocess=steps, hidden_dims=sizes)
    steps.append("none")
    sizes.clear()
    assert (config["preprocess"], config["hidden_dims"]) == (("mean",), (4,))
    with pytest.raises(TypeError, match="item assignment"):
        config["epochs"] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 1


def test_a_configuration_reads_like_a_dict():
    config = fn.Config(epochs=3)
    assert (config["epochs"], config.get("nothing"), "seed" in config) == (3, None, True)
    assert fn.Config(**config) == config == dataclasses.replace(fn.Config(), epochs=3)
    assert hash(fn.Config(**config)) == hash(config)
    with pytest.raises(KeyError):
        config["nothing"]


def test_older_names_of_options():
    config = fn.load_recipe("digits", hidden=[8], mixup=0.5)
    assert config == fn.load_recipe("digits", hidden_dims=[8], mixup_alpha=0.5)
    assert (config["hidden"], config["mixup"]) == ((8,), 0.5)
    digits = fn.load_digits()
    for given in ({"hidden": [8]}, {**fn.Config(), "hidden": [8]}):  # the last one counts
        net = fn.experiment(given, digits).net
        assert net == fn.mlp([8], 10, weight_scale=2e-2)


def test_an_experiment_of_what_a_run_directory_holds(unoptimized):
    run("train", "--hidden", 8, "--epochs", 1, "--num-train", 60, "--reg", 0.1, "--out", "r")
    kept = json.loads(Path("r/config.json").read_text())
    found = fn.experiment(kept, fn.load_digits())
    expected = fn.experiment({**SMALL, "epochs": 1, "num_train": 60, "reg": 0.1}, fn.load_digits())
    assert (found.net, found.optimizer) == (expected.net, expected.optimizer)
    assert found.options["reg"] == 0.1


@pytest.mark.parametrize("ensemble", ["stacked", "tabm", "tabm_mini"])
def test_l2_is_that_of_each_member(ensemble):
    """The loss is the mean of those of members, while each has weights or a head of its own."""
    digits = fn.load_digits()
    alone = fn.experiment({"reg": 0.1}, digits).options["reg"]
    several = fn.experiment({"reg": 0.1, "members": 4, "ensemble": ensemble}, digits)
    assert (alone, several.options["reg"]) == (0.1, 0.1 / 4)


def test_muon_is_for_matrices():
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    rows = fn.Dataset(x, y, x[:5], y[:5], x[:0], y[:0], ("a", "b", "c"))
    given = {"optimizer": "muon", "embedding": "pbld", "members": 2, "ensemble": "tabm"}
    net, optimizer, _, _ = fn.experiment({**given, "hidden_dims": [8, 8]}, rows)
    params, _, _ = net.init(jax.random.key(0), (4,))
    grads = jax.tree.map(jnp.ones_like, params)
    _, state = optimizer.update(grads, optimizer.init(params), params)
    moved = jax.tree_util.tree_flatten_with_path(state["v"])[0]
    by_muon = ["/".join(key.key for key in path) for path, v in moved if not v.any()]
    assert by_muon == [
        "serial1/batch_ensemble_affine1/w",
        "serial1/batch_ensemble_affine2/w",
    ]


def test_wrong_names_in_python():
    with pytest.raises(
        ValueError, match="unknown recipe 'cifar10_cpu': did you mean 'cifar10-cpu'"
    ):
        fn.load_recipe("cifar10_cpu")
    with pytest.raises(ValueError, match="unknown option 'epoch': did you mean 'epochs'"):
        fn.load_recipe("digits", epoch=2)


WRONG = {
    "schedule": ({"schedule": "cosin"}, ValueError, "unknown schedule 'cosin': did you mean 'cos"),
    "optimizer": ({"optimizer": "adm"}, ValueError, "unknown optimizer 'adm': did you mean 'adam'"),
    "loss": ({"loss": "sofmax"}, ValueError, "did you mean 'softmax'"),
    "normalization": ({"normalization": None}, ValueError, "did you mean 'none'"),
    "scale": ({"weight_scale": "hee"}, ValueError, "unknown weight_scale 'hee': did you mean 'he'"),
    "step": ({"augment": ["flop"]}, ValueError, "unknown step of --augment 'flop': did you mean"),
    "no list of steps": ({"augment": "flip"}, TypeError, "--augment must be a list, got 'flip'"),
    "no list of sizes": ({"hidden": 100}, TypeError, "--hidden-dims must be a list, got 100"),
    "a size": ({"hidden": [1.5]}, TypeError, "every size in --hidden-dims must be an integer"),
    "epochs": ({"epochs": 0}, ValueError, "--epochs must be at least 1"),
    "rate": ({"learning_rate": "1e-3"}, TypeError, "--learning-rate must be a number"),
    "average": ({"average_decay": 1.0}, ValueError, "--average-decay must be >= 0 and < 1"),
    "too many": ({"num_train": 10**6}, ValueError, "--num-train is 1000000, but there are only 1,"),
    # Before the data are preprocessed, which may take a minute.
    "momentum": (
        {"momentum": 0.9, "preprocess": ["whiten=99"]},
        ValueError,
        "--momentum is for sgd_momentum and nesterov and muon, not for adam",
    ),
    "whitening": ({"preprocess": ["whiten=99"]}, ValueError, "--preprocess whiten=99: dim must be"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_in_python(case):
    changes, error, message = WRONG[case]
    with pytest.raises(error, match=re.escape(message)):
        fn.experiment(fn.load_recipe("digits", **changes), fn.load_digits())


# The builders

RATES = {
    "constant": ({}, lambda: fn.constant(0.1)),
    "exponential": ({"learning_rate_decay": 0.5}, lambda: fn.exponential_decay(0.1, 0.5, 5)),
    "exponential by name": (
        {"schedule": "exponential", "learning_rate_decay": 0.5},
        lambda: fn.exponential_decay(0.1, 0.5, 5),
    ),
    "step": (
        {"schedule": "step", "learning_rate_decay": 0.5, "decay_every": 2},
        lambda: fn.step_decay(0.1, 0.5, 10),
    ),
    "cosine": ({"schedule": "cosine"}, lambda: fn.cosine_decay(0.1, 40)),
    "one_cycle": ({"schedule": "one_cycle"}, lambda: fn.one_cycle(0.1, 40, warmup_fraction=0.2)),
    "one_cycle, warm-up": (
        {"schedule": "one_cycle", "warmup": 0.5},
        lambda: fn.one_cycle(0.1, 40, warmup_fraction=0.5),
    ),
    "one_cycle, no warm-up": (
        {"schedule": "one_cycle", "warmup": 0.0},
        lambda: fn.one_cycle(0.1, 40, warmup_fraction=0.0),
    ),
    "flat_cosine": ({"schedule": "flat_cosine"}, lambda: fn.flat_cosine(0.1, 40)),
    "coslog4": ({"schedule": "coslog4"}, lambda: fn.coslog4(0.1, 40)),
    "warm-up": ({"warmup": 0.26}, lambda: fn.warmup(0.1, 11)),
    "no warm-up": ({"warmup": 0.0}, lambda: fn.constant(0.1)),
    "cosine, warm-up": (
        {"schedule": "cosine", "warmup": 0.1},
        lambda: fn.warmup(fn.cosine_decay(0.1, 40), 4),
    ),
}


@pytest.mark.parametrize("case", RATES)
def test_schedules(case):
    changes, expected = RATES[case]
    config = fn.load_recipe("digits", learning_rate=0.1, epochs=8, **changes)
    schedule, steps = recipes.build_schedule(config, 5), np.arange(45)
    schedule = schedule if callable(schedule) else fn.constant(schedule)
    rates, right = ([float(s(step)) for step in steps] for s in (schedule, expected()))
    np.testing.assert_allclose(rates, right, rtol=1e-6, atol=1e-9)


W = ("w",)
OPTIMIZERS = {
    "sgd": ({}, lambda: fn.sgd(0.1)),
    "sgd_momentum": ({"momentum": 0.5}, lambda: fn.sgd_momentum(0.1, 0.5)),
    "nesterov": ({"momentum": 0.5}, lambda: fn.nesterov(0.1, 0.5)),
    "rmsprop": ({"decay_rate": 0.5, "epsilon": 0.1}, lambda: fn.rmsprop(0.1, 0.5, 0.1)),
    "adagrad": ({"epsilon": 0.1}, lambda: fn.adagrad(0.1, 0.1)),
    "adam": ({"beta1": 0.5, "beta2": 0.6}, lambda: fn.adam(0.1, 0.5, 0.6)),
    "adamw": ({"weight_decay": 0.5}, lambda: fn.adamw(0.1, weight_decay=0.5, decay_names=W)),
    "lion": ({"weight_decay": 0.5}, lambda: fn.lion(0.1, weight_decay=0.5, decay_names=W)),
    "muon": (
        {"weight_decay": 0.5},
        lambda: fn.muon(0.1, weight_decay=0.5, decay_names=W, adam_names=("affine2",)),
    ),
}


def after_three_updates(optimizer):
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 4), "b": (4,)}

    def tree():
        return {
            layer: {name: jnp.asarray(rng.normal(size=s), float) for name, s in shapes.items()}
            for layer in ("affine1", "affine2")
        }

    params = tree()
    opt_state = optimizer.init(params)
    for _ in range(3):
        updates, opt_state = optimizer.update(tree(), opt_state, params)
        params = fn.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name, clip_norm, unoptimized):
    assert set(OPTIMIZERS) == set(optim.OPTIMIZERS)
    changes, right = OPTIMIZERS[name]
    config = complete(
        fn.load_recipe("digits", optimizer=name, learning_rate=0.1, clip_norm=clip_norm)
    )
    config = dataclasses.replace(config, **changes, hidden_dims=[4])
    built = recipes.build_optimizer(config, 10)
    right = right() if clip_norm is None else fn.clip_by_global_norm(right(), clip_norm)
    found, expected = after_three_updates(built), after_three_updates(right)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


# The recipes of CIFAR-10, scaled down to run in a moment


@pytest.fixture
def small_images():
    """Colour images of 10 classes: CIFAR-10 but for their size and number."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 10
    base = rng.integers(0, 256, (10, 3, 12, 12))
    x = np.clip(base[y] + rng.integers(-40, 40, (200, 3, 12, 12)), 0, 255).astype(np.uint8)
    np.savez("images.npz", x=x, y=y)


@pytest.mark.usefixtures("small_images", "unoptimized")
@pytest.mark.parametrize("name", slow_but([n for n in NAMES if n not in ("digits", *OF_TABLES)]))
def test_a_recipe_runs(name):
    recipe = fn.list_recipes()[name].options
    assert recipe["dataset"] == "cifar10"
    preprocess = recipe.get("preprocess", ["mean"])
    steps = ["whiten=40" if step.startswith("whiten") else step for step in preprocess]
    hidden = [16] * len(recipe["hidden_dims"])
    code, out, err = run(
        *("train", "--recipe", name, "--dataset", "images.npz", "--preprocess", *steps),
        *("--hidden", *hidden, "--num-train", 100, "--batch-size", 50, "--epochs", 1),
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"saved in runs/{name}"
    run_directory = Path("runs") / name
    config = json.loads((run_directory / "config.json").read_text())
    path = str(Path("images.npz").resolve())
    scaled = {"dataset": path, "preprocess": steps, "hidden_dims": hidden}
    scaled |= {"num_train": 100, "batch_size": 50, "epochs": 1}
    expected = stored(complete(fn.load_recipe(name, **scaled)))
    expected["task"] = "classification"  # that of the file
    assert {k: config[k] for k in expected} == expected
    assert (config["recipe"], config["status"]) == (name, "finished")
    losses = np.loadtxt(run_directory / "losses.csv", delimiter=",", skiprows=1)[:, 1]
    assert len(losses) == 2
    assert np.isfinite(losses).all()

    results = config["results"]
    plain = run("evaluate", run_directory)[1]
    assert plain.startswith(f"test accuracy {100 * results['test_accuracy']:.2f} %, loss")
    tta = run("evaluate", run_directory, "--tta")[1]
    assert "averaged over 10 views" in tta
    assert ("tta_test_accuracy" in results) == recipe.get("tta", False)
    if recipe.get("tta"):
        averaged = f"{100 * results['tta_test_accuracy']:.2f} %"
        assert tta.startswith(f"test accuracy {averaged}, ")
        assert f"averaged over 10 views {averaged}" in out


def test_the_ensemble_of_tables_is_of_nets_of_the_other_recipe():
    one, several = fn.list_recipes()["table"].options, fn.list_recipes()["table-ensemble"].options
    assert {**one, "members": 8} == several


@pytest.mark.slow
@pytest.mark.parametrize("label", ["kind", "size"])
@pytest.mark.parametrize("name", OF_TABLES)
def test_a_recipe_of_tables_runs(name, label, unoptimized):
    rng = np.random.default_rng(0)
    lines = ["size,colour,kind"]
    for number in rng.normal(size=90):
        lines.append(f"{number:.3f},{'rgb'[rng.integers(3)]},{'ab'[int(number > 0)]}")
    Path("things.csv").write_text("\n".join(lines))
    words = ("--dataset", "things.csv", "--label", label, "--epochs", 100, "--quiet")
    assert run("train", "--recipe", name, *words)[0] == 0
    config = json.loads((Path("runs") / name / "config.json").read_text())
    assert fn.list_recipes()[name].options.items() <= config.items()
    task = "regression" if label == "size" else "classification"
    assert (config["recipe"], config["task"]) == (name, task)
    found = config["results"]["test_rmse" if label == "size" else "test_accuracy"]
    assert found < 0.8 if label == "size" else found > 0.8
    assert run("evaluate", Path("runs") / name)[0] == 0


def test_a_recipe_computes_in_the_dtype_that_it_says():
    """The recipe for a GPU multiplies in bfloat16, and keeps its parameters in float32."""
    config = fn.load_recipe("cifar10-gpu", hidden_dims=[16])
    net = recipes.build_net(config, 10)
    assert config["matmul_dtype"] == "bfloat16"
    params, state, _ = net.init(jax.random.key(0), (40,))
    x = jnp.ones((2, 40))
    text = str(jax.make_jaxpr(lambda p: net.forward(p, state, x, key=None, train=False)[0])(params))
    products = re.findall(r"(\w+)\[[\d,]*\] = dot_general", text)
    assert len(products) == 2
    assert "bf16[2,40]" in text
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    plain = recipes.build_net(dataclasses.replace(config, matmul_dtype="float32"), 10)
    text = str(
        jax.make_jaxpr(lambda p: plain.forward(p, state, x, key=None, train=False)[0])(params)
    )
    assert "bf16" not in text
