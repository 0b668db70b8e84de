"""What the tests of the numeric core share."""

import gc
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import funcnet as fn

jax.config.update("jax_num_cpu_devices", 8)  # for tests of several; all others run on the first

# Tests that run with the slow ones, an identifier a line: those that take more than about a second,
# of which others like them are left, or that rarely break. `pytest --durations=400` says which.
SLOW = Path(__file__).parent / "slow.txt"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark the tests in SLOW; a line that names none is an error."""
    slow = set(SLOW.read_text().splitlines())
    files = {item.nodeid.split("::")[0] for item in items}
    whole = not any("::" in argument for argument in config.args)
    unknown = sorted(slow - {item.nodeid for item in items})
    if whole and (unknown := [name for name in unknown if name.split("::")[0] in files]):
        raise pytest.UsageError(f"{SLOW.name} names no test: {unknown[0]}")
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def keep_compiled(tmp_path_factory):
    """Compiled programs serve later tests too, and the commands that they run.

    Each worker has a directory of its own: JAX does not write these files atomically. With
    FUNCNET_COMPILED it lies there, and what the quick tests have compiled serves the slow ones.
    """
    kept, worker = os.environ.get("FUNCNET_COMPILED"), os.environ.get("PYTEST_XDIST_WORKER", "one")
    folder = Path(kept) / worker if kept else tmp_path_factory.mktemp("compiled")
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        # On some machines XLA writes to standard error that it reads what it compiled there.
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        yield


@pytest.fixture(autouse=True, scope="module")
def forget_compiled():
    """Each compiled program holds memory maps, of which a process may have so many only."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def compiled(caplog):
    """Names of the functions that are compiled in a test."""

    def names():
        messages = [record.getMessage() for record in caplog.records]
        return [m.split()[1] for m in messages if m.startswith("Compiling jit(")]

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        yield names


@pytest.fixture
def x64():
    """Float64 for the length of a test; the library never turns it on by itself."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict():
    """JAX promotes nothing by itself for the length of a test: neither dtypes nor ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(231)


@pytest.fixture(scope="session")
def small():
    """200 digits to train on, 60 to validate and 40 to test."""
    digits = fn.load_digits()
    splits = (("train", 200), ("val", 60), ("test", 40))
    names = [(f"{array}_{split}", count) for split, count in splits for array in "xy"]
    return digits._replace(**{name: getattr(digits, name)[:count] for name, count in names})


@pytest.fixture
def unoptimized():
    """Compile with few optimizations, in about half the time: for checks that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def brought(monkeypatch):
    """The windows that come to the devices: `ends` of each; at the number `stop` an interrupt."""
    from funcnet.feed import Windowed

    seen = SimpleNamespace(ends=[], stop=None)

    def watched(made):
        def stretch(self, window):
            seen.ends.append(window.end)
            if len(seen.ends) == seen.stop:
                raise KeyboardInterrupt
            return made(self, window)

        return stretch

    for name in ("_stretch", "_shard_stretch"):
        monkeypatch.setattr(Windowed, name, watched(getattr(Windowed, name)))
    return seen
