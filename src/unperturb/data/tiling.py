"""Tiles with a halo: arrays of any size, a piece at a time.

::

      outer  ┌───────────────┐      what is read: the tile and a margin of `halo` pixels, cut off at the array's border
             │   ┌───────┐   │
      inner  │   │       │   │      what the tile answers for; inner parts cover the array once
             │   └───────┘   │
             └───────────────┘

Where the halo covers all that an output pixel depends on, working tile by tile gives what working on the whole gives.
All outer parts begin at a multiple of `multiple`, so that an operator that works on a grid sees the same grid in every
tile.

Of an array nothing is asked but its shape and slicing: numpy, zarr and dask alike.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unperturb.errors import UsageError

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One tile: `outer` and `inner` are slices of the array, `crop` is the inner part as a slice of the outer."""

    outer: Slices
    inner: Slices
    crop: Slices


def tiles(shape: Sequence[int], size: int, halo: int, multiple: int = 1) -> Iterator[Tile]:
    """Cut an array into tiles.

    Parameters
    ----------
    shape
        Of the array, in pixels along each axis.
    size
        Pixels of the inner part along each axis; rounded up to `multiple`.
    halo
        Pixels around it; rounded up likewise.
    multiple
        The grid on which outer parts begin.

    Yields
    ------
    Tile
        In the order of the array; inner parts cover it once.

    Raises
    ------
    UsageError
        Where a number is out of range.
    """
    if size < 1 or halo < 0 or multiple < 1:
        raise UsageError(f"tiles need a size of at least 1 and a halo of at least 0; got {size} and {halo}")
    size, halo = (-(-length // multiple) * multiple for length in (size, halo))
    for corner in itertools.product(*(range(0, length, size) for length in shape)):
        inner, outer, crop = [], [], []
        for start, length in zip(corner, shape, strict=True):
            stop, low = min(start + size, length), max(start - halo, 0)
            inner.append(slice(start, stop))
            outer.append(slice(low, min(stop + halo, length)))
            crop.append(slice(start - low, stop - low))
        yield Tile(tuple(outer), tuple(inner), tuple(crop))
