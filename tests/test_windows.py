"""The order in which examples on disk are read: each once, from anywhere in an epoch, in lanes."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import windows
from funcnet.datasets.disk import Stored, map_npy

KEY = jax.random.key(3)


def of(directory, count, batch_size, features=2):
    """Windows of examples that say their numbers."""
    numbers = np.arange(count, dtype=np.float32)
    np.save(directory / "x.npy", np.repeat(numbers[:, None], features, axis=1))
    np.save(directory / "y.npy", np.arange(count))
    x, y = (Stored([map_npy(directory / f"{name}.npy")]) for name in "xy")
    options = {"batch_size": batch_size, "row_bytes": 4 * features}
    return windows.StoredWindows(KEY, x, y, None, **options)


def batches(source, epoch=0, done=0, columns=windows.whole):
    """The numbers of the examples of each batch."""
    found, end = [], done
    for window in source.windows(epoch, done, columns):
        for x, y in zip(window.x[: window.full], window.y[: window.full], strict=True):
            assert (x == y[:, None]).all()
            found.append(y)
        end += window.full
        assert window.end == end
    return found


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", 4000)
    monkeypatch.setattr(windows, "BLOCK", 64)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("windows")


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 1200),
    batch_size=st.sampled_from([1, 2, 7, 8, 16, 50, 64, 100, 101, 128]),
    window=st.sampled_from([400, 4000, 10**6]),
    block=st.sampled_from([8, 64, 200, 1000]),
    data=st.data(),
)
def test_each_example_is_in_one_batch_of_an_epoch(place, count, batch_size, window, block, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", window)
        patch.setattr(windows, "BLOCK", block)
        source = of(place, count, min(batch_size, count))
        found = batches(source, data.draw(st.integers(0, 3)))
        size, rest = min(batch_size, count), count % min(batch_size, count)
        assert [len(b) for b in found] == [size] * (count // size) + [rest] * (rest > 0)
        assert sorted(np.concatenate(found).tolist()) == list(range(count))
        assert source.plan.rows % size == 0


def test_an_epoch_goes_on_from_any_batch(place, small):
    source = of(place, 1203, 50)
    assert source.plan.full > 1
    whole = batches(source, 2)
    for done in range(len(whole) + 1):
        rest = batches(source, 2, done)
        assert len(rest) == len(whole) - done
        assert all(map(np.array_equal, rest, whole[done:]))


def test_epochs_and_keys_have_orders_of_their_own(place, small):
    source = of(place, 1200, 50)
    orders = [np.concatenate(batches(source, epoch)).tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    other = windows.StoredWindows(
        jax.random.key(4), source._x, source._y, None, batch_size=50, row_bytes=8
    )
    assert np.concatenate(batches(other)).tolist() != orders[0]


def test_each_window_mixes_its_rows_in_an_order_of_its_own(place, small):
    source = of(place, 1203, 50)
    mixes = [
        window.y[: window.full].reshape(-1) % source.plan.block  # where rows are in their blocks
        for window in source.windows(0, 0, windows.whole)
    ]
    assert len(mixes[0]) == len(mixes[1])
    assert not np.array_equal(mixes[0], mixes[1])


@pytest.mark.parametrize("parts", [2, 4])
def test_who_computes_some_columns_reads_the_blocks_of_these_alone(place, small, parts):
    source = of(place, 1200, 64)
    read = []

    class Watched(Stored):
        def read(self, spans, room=None):
            read.append(sum(stop - start for start, stop in spans))
            return super().read(spans, room)

    source._x.__class__ = Watched

    def own(part):
        def columns(count):
            size = count // parts
            whole = slice(0, count), slice(part * size, (part + 1) * size)
            return [whole[count % parts == 0]]

        return columns

    whole = batches(source)
    first = read[0]
    for part in range(parts):
        read.clear()
        some = batches(source, columns=own(part))
        for batch, every in zip(some, whole, strict=True):
            assert np.array_equal(batch, every[own(part)(len(every))[0]])
        assert read[0] == first // parts


def test_batches_of_a_sorted_file_are_mixed(place, monkeypatch):
    """Of a file that is sorted by class every batch has about the shares of all of it."""
    monkeypatch.setattr(windows, "WINDOW", 2**14)
    monkeypatch.setattr(windows, "BLOCK", 2**5)
    count = 64 * 640
    source = of(place, count, 64)
    assert source.plan.block * 8 == 32
    assert source.plan.full >= 20
    shares = [(batch < count // 2).mean() for batch in batches(source)]
    # As drawn at random, 64 at a time: a standard deviation of 1/16.
    assert abs(np.mean(shares) - 0.5) < 1e-9
    assert 0.045 < np.std(shares) < 0.08


def test_a_file_that_fills_one_window_is_in_a_random_order(place, monkeypatch):
    source = of(place, 40, 8)
    places = np.zeros((40, 40))
    for epoch in range(1500):
        order = np.concatenate(batches(source, epoch))
        places[order, np.arange(40)] += 1
    expected, freedom = 1500 / 40, 39**2
    chi = ((places - expected) ** 2 / expected).sum()
    assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("row_bytes", [4, 200, 3072, 10**6])
@pytest.mark.parametrize("batch_size", [1, 50, 100, 101, 128, 1000, 4096])
def test_windows_are_of_64_mib_or_of_a_batch(row_bytes, batch_size):
    plan = windows.plan_of(10**8, batch_size, row_bytes)
    size = plan.rows * row_bytes
    assert size <= max(2**26, batch_size * row_bytes)
    assert plan.block * row_bytes <= max(2**17, row_bytes)
    assert plan.rows % batch_size == 0
    assert size >= 2**25 or plan.rows == batch_size
