"""Tiles cover an array once, with as much around them as was asked for and is there. Law 16 is in `test_laws`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unperturb.data.tiling import tiles
from unperturb.errors import UsageError

shapes = st.lists(st.integers(1, 25), min_size=1, max_size=3).map(tuple)
quick = settings(max_examples=60, deadline=None)


@quick
@given(shape=shapes, size=st.integers(3, 30), halo=st.integers(0, 9), multiple=st.integers(1, 6))
def test_inner_parts_cover_the_array_once(shape, size, halo, multiple):
    """Break: the last tile of an axis left out where it is not whole."""
    covered = np.zeros(shape, int)
    for tile in tiles(shape, size, halo, multiple):
        covered[tile.inner] += 1
    assert (covered == 1).all()


@quick
@given(shape=shapes, size=st.integers(3, 30), halo=st.integers(0, 9), multiple=st.integers(1, 6))
def test_outer_parts_hold_the_inner_ones_and_a_margin(shape, size, halo, multiple):
    """Breaks: the halo not rounded up; the crop counted from the array's corner."""
    array = np.arange(np.prod(shape)).reshape(shape)
    for tile in tiles(shape, size, halo, multiple):
        assert np.array_equal(array[tile.outer][tile.crop], array[tile.inner])
        for outer, inner, length in zip(tile.outer, tile.inner, shape, strict=True):
            assert outer.start % multiple == 0
            assert outer.start == 0 or inner.start - outer.start >= halo
            assert outer.stop == length or outer.stop - inner.stop >= halo
            assert 0 <= outer.start <= inner.start < inner.stop <= outer.stop <= length


def test_one_tile_holds_all_that_is_small():
    (tile,) = tiles((5, 7), 8, 32, 8)
    assert tile.outer == tile.inner == tile.crop == (slice(0, 5), slice(0, 7))


def test_tiles_come_in_the_order_of_the_array():
    corners = [tuple(part.start for part in tile.inner) for tile in tiles((5, 6, 3), 3, 1)]
    assert corners == sorted(corners)
    assert len(corners) == 4


def test_nothing_is_read_before_a_tile_is_asked_for():
    """A shape far larger than any memory is no trouble."""
    first = next(tiles((10**6, 10**6, 10**6), 512, 32, 8))
    assert first.outer == (slice(0, 544),) * 3


@pytest.mark.parametrize(("size", "halo", "multiple"), [(0, 0, 1), (-4, 0, 1), (8, -1, 1), (8, 0, 0)])
def test_numbers_out_of_range_are_refused(size, halo, multiple):
    with pytest.raises(UsageError, match="tiles need"):
        list(tiles((8, 8), size, halo, multiple))
