"""What the tests of the numeric core share."""

import gc

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True, scope="module")
def forget_compiled():
    """Each compiled program holds memory maps, of which a process may have so many only."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64():
    """Float64 for the length of a test; the library never turns it on by itself."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(231)


@pytest.fixture
def unoptimized():
    """Compile with few optimizations, in about half the time: for checks that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
