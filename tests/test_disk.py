"""Rows that stay on disk: reading them, what makes and checks them, and orders without memory."""

import numpy as np
import pytest

import funcnet as fn
from funcnet.bijection import Bijection
from funcnet.datasets.disk import Blocks, Stored, counts_of, in_parts, map_npy

CUTS = (0, 300, 301, 800, 1003)  # of rows, between files


@pytest.fixture
def x(rng):
    return rng.normal(size=(1003, 5)).astype(np.float32)


def save(directory, x, dtype=None):
    """The rows in several files, as Stored."""
    names = [directory / f"x-{i}.npy" for i in range(len(CUTS) - 1)]
    for name, first, end in zip(names, CUTS, CUTS[1:], strict=False):
        np.save(name, x[first:end].astype(dtype or x.dtype))
    return Stored([map_npy(name) for name in names])


def blocks_of(count=1003, size=8, key=99, held_out=10):
    order = Bijection(count // size, key)
    whole = count // size * size
    return (
        Blocks(size, order, 0, held_out, (count, count)),
        Blocks(size, order, held_out, count // size, (whole, count)),
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 300, 4097])
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_an_order_has_each_number_once(count, key):
    order = Bijection(count, key)
    found = order(np.arange(count))
    assert sorted(found.tolist()) == list(range(count))
    assert np.array_equal(order(np.arange(count)[::-1]), found[::-1])  # one by one, too


@pytest.mark.parametrize("count", [3, 5, 16, 37])
def test_orders_take_each_number_everywhere_about_equally_often(count, rng):
    keys = rng.integers(2**63, size=4000)
    there = np.zeros((count, count))
    for key in keys.tolist():
        there[np.arange(count), Bijection(count, key)(np.arange(count))] += 1
    expected = len(keys) / count
    # Chi squared, whose mean is (count - 1)^2; five standard deviations.
    freedom = (count - 1) ** 2
    assert ((there - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_an_order_is_the_same_everywhere():
    assert Bijection(10, 12345)(np.arange(10)).tolist() == [5, 4, 0, 2, 1, 7, 8, 3, 6, 9]


@pytest.mark.parametrize("dtype", [None, ">f4", "<f8", "u1"])
def test_rows_are_those_of_the_arrays(x, tmp_path, dtype):
    stored = save(tmp_path, 100 * np.abs(x) % 200, dtype)
    whole = (100 * np.abs(x) % 200).astype(dtype or x.dtype)
    assert (stored.shape, stored.dtype) == (whole.shape, whole.dtype.newbyteorder("="))
    assert stored.dtype.isnative
    for rows in (slice(None), slice(295, 805), slice(5, 3), slice(None, None, 7), slice(-3, None)):
        assert np.array_equal(stored[rows], whole[rows])
    for rows in ([5, 1002, -1, 300, 5], np.array([], int)):
        assert np.array_equal(stored[rows], whole[np.asarray(rows, int)])
    assert np.array_equal(stored[300], whole[300])
    assert np.array_equal(np.concatenate(list(stored.parts())), whole)
    some = stored.first(301).checked("x").made(lambda rows: rows[:, :2])
    assert np.array_equal(some[:], whole[:301, :2])
    assert len(some) == sum(map(len, some.parts())) == 301


def test_blocks_are_all_rows_each_in_one_split(x, tmp_path):
    stored = save(tmp_path, x)
    parts = [stored.some(blocks) for blocks in blocks_of()]
    every = np.concatenate([part[:] for part in parts])
    assert np.array_equal(np.sort(every, axis=0), np.sort(x, axis=0))
    assert len(parts[0]) == 80
    assert not np.array_equal(every, x)
    for part in parts:
        whole = part[:]
        for first, end in ((0, len(part)), (3, 50), (60, len(part)), (7, 9), (9, 9)):
            assert np.array_equal(part[first:end], whole[first:end])
        assert np.array_equal(part[[7, 3, -1]], whole[[7, 3, -1]])
        part.will_need([(3, 60)])  # changes nothing


def test_other_blocks_are_other_rows_though_all_are_equal(tmp_path):
    stored = save(tmp_path, np.zeros((1003, 5)))
    found = [stored.some(part).facts() for key in (1, 2) for part in blocks_of(key=key)]
    assert len(set(map(str, [stored.facts(), *found]))) == 5
    assert found[0] == stored.some(blocks_of(key=1)[0]).facts()


def test_what_is_made_of_rows_is_made_when_they_are_read(x, tmp_path):
    seen = []
    stored = save(tmp_path, x)
    made = stored.made(lambda rows: (seen.append(len(rows)), rows[:, :2] * 2.0)[1])
    assert (made.shape, made.dtype) == ((1003, 2), np.float32)
    assert np.array_equal(made.made(lambda rows: rows + 1)[5:9], x[5:9, :2] * 2 + 1)
    assert max(seen) == 4
    assert made.row_bytes == 8


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error_where_it_is_read(x, tmp_path, bad):
    x[700, 2] = bad
    stored = save(tmp_path, x).checked("x_train")
    stored[:700]
    message = rf"x_train must be finite, but row 399 of x-2\.npy in .* has {bad}"
    with pytest.raises(ValueError, match=message):
        stored[:]
    with pytest.raises(ValueError, match="row 399 of x-2"):
        [part[:] for part in map(stored.some, blocks_of())]
    large = np.full_like(x, np.finfo(np.float32).max)  # whose sum is infinite
    assert np.array_equal(save(tmp_path, large).checked("x")[:], large)


def test_a_file_that_was_cut_is_an_error_and_no_crash(x, tmp_path):
    stored = save(tmp_path, x)
    path = tmp_path / "x-2.npy"
    with path.open("r+b") as file:
        file.truncate(1000)
    assert np.array_equal(stored[:301], x[:301])
    with pytest.raises(ValueError, match=r"x-2\.npy was cut, or replaced, while it was being read"):
        stored[:]


def test_nothing_reads_all_of_it_by_accident(x, tmp_path):
    stored = save(tmp_path, x)
    with pytest.raises(TypeError, match=r'is on disk, 20,060 bytes.*memory_map="no"'):
        np.asarray(stored)
    with pytest.raises(TypeError, match="asked for by a slice"):
        stored[np.ones(1003, bool)]
    with pytest.raises(IndexError, match="there are 1003 rows, and 0 to 1003 were asked for"):
        stored[[0, 1003]]


def test_files_that_cannot_be_mapped(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.asfortranarray(np.ones((4, 3))))
    with pytest.raises(ValueError, match=r"Fortran order.*ascontiguousarray"):
        map_npy(path)
    np.save(path, np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"holds no rows: \[0, 3\]"):
        map_npy(path)
    np.save(path, np.array([{}]))
    with pytest.raises(ValueError, match="Python objects"):
        map_npy(path)
    np.save(path, np.ones((4, 3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its header says"):
        map_npy(path)
    with pytest.raises(FileNotFoundError):
        map_npy(tmp_path / "none.npy")


def test_parts_go_together(x, tmp_path, monkeypatch):
    monkeypatch.setattr(fn.datasets.disk, "ROWS", 100)
    y, weight = np.arange(1003) % 3, np.arange(1003.0)
    np.save(tmp_path / "y.npy", y)
    stored = Stored([map_npy(tmp_path / "y.npy")])
    parts = list(in_parts(stored, None, weight))
    assert [len(part) for part, _, _ in parts] == [100] * 10 + [3]
    assert np.array_equal(np.concatenate([w for _, _, w in parts]), weight)
    assert np.array_equal(counts_of(stored, 4), np.bincount(y, minlength=4))
    assert np.array_equal(counts_of(stored, 4, weight), np.bincount(y, weight, minlength=4))
    assert next(in_parts(y, None)) == (y, None)
