"""Reports: what they say of runs, what they do not tell, and that nothing runs in them but ours."""

import base64
import hashlib
import html.parser
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from command import run
from reported import HOSTILE, begin, history_of, make_run, make_sweep

import funcnet as fn
from funcnet.report.curves import thin
from funcnet.report.data import collected
from funcnet.report.html import data_block, tag
from funcnet.report.page import page
from funcnet.report.png import encoded
from funcnet.report.private import private
from funcnet.report.watch import server_of
from funcnet.sweeps.table import ranked


class Reader(html.parser.HTMLParser):
    """The elements of a page, the text outside of scripts and styles, and the data block."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.text, self.scripts, self.styles = [], [], [], [], []
        self.data = None
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        self.inside.append((name, dict(attributes)))

    def handle_endtag(self, name):
        while self.inside and self.inside.pop()[0] != name:
            pass

    def handle_data(self, data):
        name, attributes = self.inside[-1] if self.inside else ("", {})
        if name == "script" and attributes.get("type") == "application/json":
            self.data = json.loads(data)
        elif name in ("script", "style"):
            (self.scripts if name == "script" else self.styles).append(data)
        else:
            self.text.append(data)


def written(tmp_path, *paths):
    """The report of directories, read; and its HTML."""
    file = fn.write_report(list(paths), tmp_path / "report.html")
    text = file.read_text()
    return Reader(text), text


def said(reader):
    return " ".join(" ".join(reader.text).split())


def test_a_report_has_what_a_run_came_to(tmp_path):
    confusion = (9 * np.eye(10, dtype=int) + 1).tolist()
    results = {"test_confusion": confusion}
    path = make_run(tmp_path / "r", model=True, learning_rate=3e-3, facts={"results": results})
    reader, _ = written(tmp_path, path)
    text = said(reader)
    assert "Finished after 3 epochs" in text
    assert "validation accuracy 50.00 %" in text
    assert "test accuracy 25.00 %" in text
    assert "learning rate 0.003" in text
    assert "Confusion matrix of test examples" in text
    assert "52.63 %" in text  # 10 of 19
    pictures = [at for name, at in reader.tags if name == "img"]
    assert len(pictures) == 24
    assert all(at["src"].startswith("data:image/png;base64,iVBOR") for at in pictures)
    assert re.fullmatch(r"Example \d+: \d taken for \d, \d+\.\d %", pictures[0]["alt"])
    shares = [float(at["alt"].split()[-2]) for at in pictures]
    assert shares == sorted(shares, reverse=True)
    loss, of_epochs, accuracy = reader.data["plots"]
    assert loss["series"][0]["x"] == [round((i + 1) / 25, 5) for i in range(75)]
    assert of_epochs["series"][1]["y"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert accuracy["series"][1]["y"] == pytest.approx([100, 50, 100 / 3, 25])
    assert "training: most 100.00 % after epoch 0, last 25.00 %" in accuracy["summary"]


def test_nothing_from_a_run_becomes_markup(tmp_path):
    names = [*HOSTILE, *map(str, range(6))]
    confusion = (np.eye(10, dtype=int) + 1).tolist()
    facts = {"class_names": names, "title": HOSTILE[0], "results": {"test_confusion": confusion}}
    facts["versions"] = {HOSTILE[3]: HOSTILE[0]}
    path = make_run(tmp_path / "<b>r", model=True, facts=facts)
    plain, _ = written(
        tmp_path,
        make_run(
            tmp_path / "plain",
            model=True,
            facts={"results": {"test_confusion": confusion}, "versions": {"a": "b"}},
        ),
    )
    reader, text = written(tmp_path, path)
    assert [name for name, _ in reader.tags] == [name for name, _ in plain.tags]
    assert len(reader.scripts) == 2
    assert not [key for _, at in reader.tags for key in at if key.startswith("on")]
    assert said(reader).count(HOSTILE[0]) >= 3  # it is there, as text
    assert "a\\u2028b" in said(reader)
    assert "\u2028" not in text
    sweep = make_sweep(tmp_path / "s", 6, hostile=True)
    assert len(written(tmp_path, sweep)[0].scripts) == 2


def test_no_text_ends_the_data_block():
    data = {"name": [*HOSTILE, "\u2029", "]]>", "&lt;"], "number": float("nan")}
    block = data_block("data", data)
    body = block.removeprefix('<script type="application/json" id="data">').removesuffix(
        "</script>"
    )
    assert not set(body) & set("<>&\u2028\u2029")
    assert json.loads(body) == {**data, "number": None}


def test_tags_escape_text_and_attributes():
    made = tag("p", '<b a="c">', "\x1b[0m", class_='"><i>', hidden=True, id=None)
    assert made == ('<p class="&quot;&gt;&lt;i&gt;" hidden>&lt;b a=&quot;c&quot;&gt;\\x1b[0m</p>')


def test_the_policy_names_the_scripts_and_styles_and_nothing_else(tmp_path):
    reader, text = written(tmp_path, make_run(tmp_path / "r"))
    (policy,) = [at["content"] for _, at in reader.tags if at.get("http-equiv")]
    for kind, found in (("script", reader.scripts), ("style", reader.styles)):
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in found]
        assert f"{kind}-src {' '.join(f'{chr(39)}sha256-{d}{chr(39)}' for d in digests)};" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    assert [name for name, at in reader.tags if "style" in at] == []
    for _, at in reader.tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            assert re.match(r"(data:|#)", at.get(name, "#")), at
    assert "Copyright (c) 2022 Leon Sorokin" in text
    assert sum(map(len, reader.scripts + reader.styles)) < 150_000


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/jo/data/x.csv", "x.csv"),
        ("/home/jo smith/my data/x.csv", "x.csv"),
        (r"C:\Users\jo\x.csv", "x.csv"),
        ("cannot read /srv/jo/x.csv: gone", "cannot read x.csv: gone"),
        ("cannot read '/srv/jo/x.csv'", "cannot read 'x.csv'"),
        (f"{Path.home()}/x", "x"),
        ("train/val/test", "train/val/test"),
        ("a/b </script> n/a", "a/b </script> n/a"),
        ("\u202eb\ud800", "\\u202eb\\ud800"),
    ],
)
def test_paths_become_names(text, left):
    assert private({"k": [text]}) == {"k": [left]}


def test_a_report_tells_neither_paths_nor_names_of_machines(tmp_path):
    facts = {
        "title": f"{tmp_path}/secret/digits",
        "machine": {"backend": "cpu", "device": "cpu", "cores": 2, "host": "jos-laptop"},
        "data_sha256": "0" * 64,
    }
    dataset = f"{tmp_path}/jo/table.csv"
    reader, text = written(
        tmp_path,
        make_run(tmp_path / "r", dataset=dataset, facts=facts, model=True),
    )
    for secret in (
        str(tmp_path),
        tmp_path.name,
        "jos-laptop",
        socket.gethostname(),
        "secret",
    ):
        assert secret not in text, secret
    assert "dataset table.csv" in said(reader)
    assert "The data, table.csv, cannot be loaded again" in said(reader)


def test_data_that_have_changed_are_left_out(tmp_path):
    path = make_run(tmp_path / "r", model=True, facts={"data_sha256": "0" * 64})
    reader, _ = written(tmp_path, path)
    assert "The data, digits, have changed since the run." in said(reader)
    assert "img" not in [name for name, _ in reader.tags]


def test_a_run_without_its_model_or_with_no_epoch_has_a_report(tmp_path):
    reader, _ = written(tmp_path, make_run(tmp_path / "r", status="running", facts={"results": {}}))
    assert "The model is not there" in said(reader)
    assert "Not finished: 3 of 3 epochs" in said(reader)


def test_runs_are_compared_and_what_differs_comes_first(tmp_path):
    a = make_run(tmp_path / "a" / "digits", learning_rate=1e-2)
    b = make_run(
        tmp_path / "b" / "digits", learning_rate=1e-3, facts={"results": {"test_accuracy": 0.75}}
    )
    reader, _ = written(tmp_path, a, b)
    text = said(reader)
    assert "What differs between the runs option a/digits b/digits learning rate 0.01 0.001" in text
    assert text.index("What differs") < text.index("The same in all")
    assert "test accuracy 25.00 % 75.00 %" in text
    assert ("strong", {}) in reader.tags
    assert [s["name"] for s in reader.data["plots"][0]["series"]] == ["a/digits", "b/digits"]


def test_runs_with_no_measure_in_common_are_refused_by_name(tmp_path):
    a = make_run(tmp_path / "a")
    b = make_run(
        tmp_path / "b",
        dataset="t.csv",
        task="regression",
        loss="squared",
        monitor="val_loss",
        history=history_of("regression"),
        facts={"class_names": []},
    )
    with pytest.raises(
        ValueError, match=r"a \(classification\) and b \(regression\) have no measure"
    ):
        fn.write_report([a, b], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ValueError, match="is given twice"):
        fn.write_report([a, a], tmp_path / "report.html")
    sweep = make_sweep(tmp_path / "s", 3)
    with pytest.raises(ValueError, match="is a sweep: a report of it is of it alone"):
        fn.write_report([a, sweep], tmp_path / "report.html")


def test_a_sweep_has_its_members_from_the_best_on(tmp_path, monkeypatch):
    sweep = make_sweep(tmp_path / "s", 120)
    monkeypatch.setattr(
        fn,
        "importance",
        lambda rows, value: {"learning_rate": 0.75, "hidden_dims": 0.25},
        raising=False,
    )
    reader, _ = written(tmp_path, sweep)
    members = reader.data["members"]
    assert members["columns"][:4] == [
        "member",
        "learning rate",
        "hidden dims",
        "validation accuracy",
    ]
    values = [row[3] for row in members["rows"]]
    assert values == sorted(values, reverse=True)
    assert len(values) == 120
    assert "1 to 50 of 120 members" in said(reader)
    assert "learning rate 75.0 %" in said(reader)
    assert "Finished, 120 members: 12 diverged, 108 finished" in said(reader)
    assert [len(plot["series"]) for plot in reader.data["plots"]] == [10, 10, 10]
    assert sum(name == "tr" for name, _ in reader.tags) < 80


def test_a_search_that_has_no_member_yet_has_a_report(tmp_path):
    path = make_sweep(tmp_path / "s", 4)
    config = json.loads((path / "config.json").read_text())
    search = {"space": {"learning_rate": {"log_uniform": [1e-4, 1e-1]}}, "samples": 8, "batch": 4}
    search |= {"sampler": "tpe", "seed": 0, "seeds": [0], "objectives": []}
    config |= {"settings": [], "search": search, "status": "running"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "table.json").unlink()
    reader, _ = written(tmp_path, path)
    assert "The sweep is not finished" in said(reader)
    assert "Environment" in said(reader)


def test_importances_of_many_members_are_told_from_some(tmp_path, monkeypatch):
    def importance(rows, value):
        return {"learning_rate": len(rows) / 1000}

    monkeypatch.setattr(fn, "importance", importance, raising=False)
    reader, _ = written(tmp_path, make_sweep(tmp_path / "s", 401))
    assert "learning rate 40.0 %" in said(reader)
    assert "told from 400 of 401 members" in said(reader)


def test_without_what_measures_importance_the_report_says_what_to_install(tmp_path, monkeypatch):
    def importance(rows, value):
        raise ImportError('optuna is needed: pip install "funcnet[search]"')

    monkeypatch.setattr(fn, "importance", importance, raising=False)
    reader, _ = written(tmp_path, make_sweep(tmp_path / "s", 8))
    assert 'pip install "funcnet[search]"' in said(reader)


def test_long_curves_lose_no_peak():
    losses = np.ones(10_000)
    losses[1234], losses[777] = 50, np.nan
    thinned, width = thin(losses, 600)
    assert width == 17
    assert len(thinned["x"]) == 589
    assert max(thinned["high"]) == 50
    assert min(thinned["low"]) == 1
    assert thinned["y"][1234 // 17] == pytest.approx(1 + 49 / 17, rel=1e-5)
    short, width = thin(losses[:1200], 600)
    assert width == 1
    assert short["y"][777] is None
    assert "low" not in short


def test_a_png_holds_its_pixels():
    image = pytest.importorskip("PIL.Image")
    import io

    for shape in ((5, 7), (5, 7, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        assert (np.asarray(image.open(io.BytesIO(encoded(pixels)))) == pixels).all()


def test_the_history_of_a_run_that_goes_on_is_read_as_far_as_it_goes(tmp_path):
    path = make_run(tmp_path / "r", status="running")
    (path / "history.csv").write_text("epoch,train_loss,val_loss\n0,2,nan\n1,1.5,1.75\n2,0.5")
    reader, _ = written(tmp_path, path)
    (plot,) = reader.data["plots"]
    assert [each["y"] for each in plot["series"]] == [[2, 1.5], [None, 1.75]]


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "r")
    assert run("report", "r") == (0, f"written to {Path('r/report.html')}\n", "")
    assert run("report", "r", "--out", "other.html")[0] == 0
    assert Path("other.html").read_text() == Path("r/report.html").read_text()
    for argv, message in (
        (("report", "nowhere"), "nowhere is no run directory"),
        (("report", "r", "--out", "r"), "r is a directory: give a file"),
        (("watch", "nowhere"), "nowhere is no run directory"),
        (("watch", "r", "--port", "70000"), "--port must be at most 65535"),
    ):
        code, out, err = run(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("watch", "r", "--port", port)
    assert code == 2
    assert (
        err == f"funcnet watch: error: port {port} is in use: give another --port, or 0 for any\n"
    )


@pytest.fixture
def watched(tmp_path):
    """Serve the page of a run directory; gives a function that asks for an address."""
    path = tmp_path / "r"
    path.mkdir()
    with server_of(path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        here = f"127.0.0.1:{server.server_port}"

        def ask(route, host=here, method="GET"):
            request = urllib.request.Request(
                f"http://{here}{route}", method=method, headers={"Host": host}
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read().decode(), answer.headers
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode(), error.headers

        ask.address, ask.path = f"http://{here}/", path
        yield ask
        server.shutdown()
        thread.join()


def test_a_run_is_watched_from_before_it_begins_to_its_end(watched):
    code, text, headers = watched("/")
    assert code == 200
    assert "Waiting for the run to begin" in text
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    news = json.loads(watched("/rows?after=0")[1])
    assert not news["begun"]
    begin(watched.path)
    assert json.loads(watched("/rows?after=0")[1])["status"] == "Waiting for the first epoch"
    begin(watched.path, 0, 1)
    news = json.loads(watched("/rows?after=1")[1])
    assert (news["begun"], news["ended"], news["count"]) == (True, False, 2)
    assert [row["epoch"] for row in news["rows"]] == [1]
    assert len(json.loads(watched("/rows?after=x")[1])["rows"]) == 2
    begin(watched.path, 0, 1, 2, status="stopped")
    news = json.loads(watched("/rows?after=3")[1])
    assert (news["ended"], news["rows"]) == (True, [])
    assert news["status"] == "Stopped early after 2 epochs"
    assert "test accuracy" in watched("/")[1]


def test_the_server_of_a_run_answers_for_that_run_and_to_this_machine(watched):
    begin(watched.path, 0)
    port = watched.address.split(":")[-1].rstrip("/")
    assert watched("/", host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil", ""):
        code, text, _ = watched("/", host=host)
        assert code == 403, host
        assert "a run" not in text
    for route in (
        "/config.json",
        "/../config.json",
        "/rows/../config.json",
        "/log.jsonl",
        "/%2e",
    ):
        assert watched(route)[0] == 404, route
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert watched("/", method=method)[0] == 501, method
    (watched.path / "config.json").write_text("{")
    code, text, _ = watched("/")
    assert code == 500
    assert str(watched.path) not in text


STORED = Path(__file__).parent / "stored"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(STORED.glob("*/config.json")), ids=lambda p: p.parent.name)
def test_what_earlier_versions_have_written_has_a_report(tmp_path, path):
    reader, _ = written(tmp_path, path.parent)
    assert "Configuration" in said(reader)
    assert ("members" in reader.data) == ("sweep" in path.parent.name)


@pytest.mark.slow
def test_ctrl_c_ends_watching_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "funcnet", "watch", str(make_run(tmp_path / "r"))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        line = process.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+/", line)[0]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"Finished after 3 epochs" in answer.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in err


def test_a_page_has_its_headings_and_landmarks_in_order(tmp_path):
    for path in (make_run(tmp_path / "r", model=True), make_sweep(tmp_path / "s", 5)):
        reader, _ = written(tmp_path, path)
        levels = [int(name[1]) for name, _ in reader.tags if re.fullmatch("h[1-6]", name)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        names = [name for name, _ in reader.tags]
        assert (
            names.index("header") < names.index("nav") < names.index("main") < names.index("footer")
        )
        assert names.count("table") == names.count("caption")
        assert all("scope" in at for name, at in reader.tags if name == "th")
        assert all(at.get("alt") for name, at in reader.tags if name == "img")
        assert all(
            at.get("aria-label")
            for name, at in reader.tags
            if at.get("role") in ("application", "img")
        )
        ids = [at["id"] for _, at in reader.tags if "id" in at]
        assert len(ids) == len({*ids})
        refs = {
            at[n]
            for _, at in reader.tags
            for n in ("aria-labelledby", "aria-describedby")
            if n in at
        }
        refs |= {at["href"][1:] for _, at in reader.tags if at.get("href", "").startswith("#")}
        assert refs <= {*ids}


@pytest.mark.parametrize(
    "results",
    [
        {"val_accuracy": "x", "best_epoch": None, "test_accuracy": [[]], "test_confusion": "x"},
        {"test_confusion": [[1, 2]], "test_recall": ["x"], "test_loss": True, "epochs": 0},
        {"test_confusion": [[None] * 10] * 10, "val_accuracy": float("inf"), "<b>": {}},
    ],
)
def test_results_that_are_none_are_left_out(tmp_path, results):
    paths = [make_run(tmp_path / name, facts={"results": results}) for name in "ab"]
    assert "Confusion" not in said(written(tmp_path, paths[0])[0])
    assert "epochs done" in said(written(tmp_path, *paths)[0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("history.csv", "epoch,val_loss\n1,x\n"),
        ("history.csv", "epoch,val_loss\n1\n"),
        ("history.csv", "epoch,val_loss\n1,2,3\n"),
        ("history.csv", "val_loss\n1\n"),
        ("losses.csv", "step,loss\n1,x\n"),
        ("losses.csv", "step\n1\n"),
        ("config.json", "[]"),
    ],
)
def test_files_that_are_damaged_are_named(tmp_path, name, text):
    path = make_run(tmp_path / "r")
    (path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        fn.write_report(path, tmp_path / "report.html")


def test_what_is_less_is_better_where_it_is_a_loss(tmp_path):
    rows = [{"v": 1.0}, {"v": None}, {"v": 0.5}]
    assert ranked(rows, "v", True) == [2, 0, 1]
    assert ranked(rows, "v", False) == [0, 2, 1]
    made = [
        make_run(tmp_path / name, facts={"results": {"test_loss": loss, "test_accuracy": loss}})
        for name, loss in (("a", 1.0), ("b", 0.5))
    ]
    found = {name: cells for name, *cells in collected(made)["results"]["rows"]}
    assert [is_best for _, is_best in found["test loss"]] == [False, True]
    assert [is_best for _, is_best in found["test accuracy"]] == [True, False]


def test_the_median_of_two_members_is_between_them(tmp_path):
    path = make_sweep(tmp_path / "sweep", 2)
    rows = json.loads((path / "table.json").read_text())
    for row, value in zip(rows, (0.25, 0.5), strict=True):
        row["val_accuracy"] = value
    (path / "table.json").write_text(json.dumps(rows))
    text = fn.write_report(path, tmp_path / "report.html").read_text()
    assert "median validation accuracy</dt><dd>37.50 %" in text


def test_numbers_that_no_float_holds_are_left_out(tmp_path):
    results = {"val_accuracy": 10**400, "test_recall": [10**400] + [0.5] * 9, "test_loss": 1.5}
    huge = make_run(tmp_path / "huge", facts={"results": results})
    for runs_ in (huge, [huge, make_run(tmp_path / "other", facts={"results": results})]):
        text = fn.write_report(runs_, tmp_path / "report.html").read_text()
        assert "1.5000" in text
        assert "0" * 300 not in text


def test_without_data_there_is_no_page(tmp_path):
    with pytest.raises(ValueError, match="needs the directory of a run"):
        fn.write_report([], tmp_path / "r.html")
    assert "waiting" in page({"kind": "run", "title": "waiting", "status": "", "facts": []})


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_losses_of_steps_say_that_the_penalty_is_in_them(tmp_path, reg):
    path = make_run(tmp_path / "run", reg=reg)
    text = fn.write_report(path, tmp_path / "report.html").read_text("utf-8")
    assert ("The L2 penalty is in it" in text) == bool(reg)
