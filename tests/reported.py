"""Run directories as commands make them, without the training: for tests of reports."""

import json

import jax
import numpy as np

import funcnet as fn
from funcnet import runs
from funcnet.history import as_history
from funcnet.recipes import build_net
from funcnet.sweeps import directory
from funcnet.sweeps.table import Member

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "a\u2028b",
    "<img src=x onerror=y>",
]


def record_of(**options):
    """The record of a run of the digits."""
    facts = options.pop("facts", {})
    usual = {"loss": "softmax", "epochs": 3, "batch_size": 50, "weight_scale": 0.02}
    config = fn.Config(hidden_dims=(4,), **{**usual, **options})
    return runs.Record(config, {"class_names": [str(i) for i in range(10)], **facts})


def history_of(task="classification", epochs=4, steps=75):
    """A History as a run could have it: losses fall, what is measured rises."""
    rows = [
        {name: epoch if name == "epoch" else 1 / (1 + epoch) for name in fn.history.columns(task)}
        for epoch in range(epochs)
    ]
    return as_history([np.linspace(2, 0.1, steps)], rows, (), task)


def make_run(path, *, history=None, model=False, status="finished", **options):
    """A run directory as `funcnet train` makes it, without the training."""
    path.mkdir(parents=True)
    record = record_of(**options)
    results = {"epochs": 3, "best_epoch": 2, "val_accuracy": 0.5, "test_accuracy": 0.25}
    results |= record.facts.pop("results", {})
    if status != "running":
        runs.write_history(path, history or history_of())
    record = record.having(
        **{"title": path.name, "results": results, **record.facts}, status=status
    )
    runs.write_record(path, "run", record)
    if model:
        net = build_net(record.config, 10, [])
        params, state, _ = net.init(jax.random.key(0), (8, 8))
        fn.save_model(
            path / "best.safetensors",
            fn.Model(net, params, state, fn.no_preprocess(np.zeros((1, 8, 8)))),
        )
    return path


def make_sweep(path, count, *, hostile=False):
    """The directory of a sweep of so many members, as `funcnet sweep` makes it."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    settings = [
        {"learning_rate": float(10 ** rng.uniform(-4, -1)), "hidden_dims": (32 * (1 + i % 3),)}
        for i in range(count)
    ]
    facts = {"settings": settings, "halve_at": [], "chunk_size": None, "folds": None}
    facts |= {"title": HOSTILE[0] if hostile else "a sweep"}
    record = record_of(facts=facts).having(status="finished", results={"test_accuracy": 0.5})
    members = []
    for i, each in enumerate(settings):
        history = history_of(steps=0)
        best = fn.BestModel(None, {}, {}, None, epoch=1 + i % 3, accuracy=0.5, loss=1.0)
        status = "diverged" if i % 10 == 3 else "finished"
        members.append(Member(each, status, 3, None, best, history, None))
    rows = fn.sweep_table(members)
    for row, value in zip(rows, rng.uniform(size=count), strict=True):
        row["val_accuracy"] = float(value)
    directory.save_table(path, rows)
    columns = members[0].history.rows()
    lines = [(i, *row) for i in range(count) for row in zip(*columns.values(), strict=True)]
    runs.write_csv(path / "histories.csv", ("member", *columns), lines)
    runs.write_record(path, "sweep", record)
    return path


def begin(path, *epochs, status="running"):
    """What a run that goes on has written after these epochs."""
    record = record_of(facts={"title": "a run"}).having(status=status)
    if status != "running":
        record = record.having(results={"epochs": len(epochs) - 1, "test_accuracy": 0.5})
    runs.write_record(path, "run", record)
    rows = [
        {
            "epoch": e,
            "step": 25 * e,
            "loss": 1.5,
            "seconds": 0.1 * e,
            "train_loss": 1 / (1 + e),
            "train_accuracy": 0.5,
        }
        | {"val_loss": 2 / (1 + e), "val_accuracy": e / 10}
        for e in epochs
    ]
    (path / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
