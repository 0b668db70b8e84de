"""Compiled programs that the command line keeps."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="modes are those of POSIX")


def command(cache, *words, **variables):
    """Run the program in a process of its own, with a cache directory of its own."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    given |= {"XDG_CACHE_HOME": str(cache), **variables}
    code = "import sys; from funcnet.cli import entry; sys.argv[0] = 'funcnet'; entry()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def programs(cache):
    return {file.name: file.stat().st_mtime_ns for file in Path(cache).glob("funcnet/compiled/*/*")}


STORED = Path(__file__).parent / "stored" / "run-3"


def predict(cache, tmp_path, **variables):
    """A command that compiles little."""
    return command(cache, "predict", str(STORED), str(tmp_path / "x.npy"), **variables)


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    return tmp_path


def test_what_is_compiled_once_is_kept_where_nobody_else_may_look(images):
    first = predict(images / "cache", images)
    assert (first.returncode, first.stderr) == (0, "")
    kept = programs(images / "cache")
    assert kept
    for folder in (images / "cache/funcnet/compiled").rglob("*"):
        assert not folder.is_dir() or folder.stat().st_mode & 0o777 == 0o700
    second = predict(images / "cache", images)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert programs(images / "cache") == kept  # nothing was compiled anew


def test_programs_where_others_may_write_are_neither_kept_nor_used(images):
    folder = images / "cache/funcnet/compiled"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    done = predict(images / "cache", images)
    assert (done.returncode, done.stderr) == (0, "")
    assert programs(images / "cache") == {}


@pytest.mark.slow
def test_a_place_of_ones_own_a_place_that_may_not_be_written_and_none(images):
    done = predict(images / "cache", images, JAX_COMPILATION_CACHE_DIR=str(images / "own"))
    assert done.returncode == 0
    assert programs(images / "cache") == {}
    done = predict(images / "cache", images, JAX_ENABLE_COMPILATION_CACHE="false")
    assert done.returncode == 0
    assert programs(images / "cache") == {}
    (images / "file").write_text("")
    done = predict(images / "file", images)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_oldest_programs_make_room(images, monkeypatch):
    from funcnet.cli import cache

    folder = images / "compiled"
    (folder / "a").mkdir(parents=True)
    for age in range(4):
        file = folder / "a" / str(age)
        file.write_bytes(bytes(10))
        os.utime(file, (1000 - age, 1000 - age))
    monkeypatch.setattr(cache, "LIMIT", 25)
    cache._forget_oldest(folder)
    assert sorted(file.name for file in folder.glob("*/*")) == ["0", "1"]
