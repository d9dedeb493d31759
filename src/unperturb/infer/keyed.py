"""Gaussian noise that depends on where it goes, not on when it is drawn.

Every value is a function of a key and of its coordinates in the signal as a whole,

    n(key, coordinates) = sqrt(-2 ln u₁) cos(2π u₂),      u₁, u₂ from the bits of hash(key, coordinates)

(Box and Muller, 1958; counters instead of states: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3", 2011; the hash is the finaliser of Steele, Lea and Flood's SplitMix, 2014, applied twice). So a draw does not
change with the size of the batch it was made in, with the order of files, or with how an array is cut.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiples of it are spread evenly
_CHUNK = 1 << 16
"""Values at a time, few enough to stay in the processor's cache."""


def keyed_normal(
    keys: Sequence[Sequence[int]] | Words, shape: Sequence[int], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return standard normal values, one independent field for each key.

    Parameters
    ----------
    keys
        ``(item, number)``: some whole numbers for each item, such as seed, item, draw and step. Equal keys give equal
        fields.
    shape
        Of one item, ``(channel, *space)`` or ``(feature,)``. A field of another length along an axis has the same
        values at the same coordinates; up to 2**16 channels, and 2**48 places in space.
    dtype
        Of the result.

    Returns
    -------
    Tensor
        ``(len(keys), *shape)``.
    """
    places = _places(tuple(shape))
    roots = _roots(keys)
    field = np.empty((len(keys), places.size), np.float32)
    rows = max(1, _CHUNK // places.size)
    for first in range(0, len(keys), rows):
        for begin in range(0, places.size, _CHUNK):
            part = (slice(first, first + rows), slice(begin, begin + _CHUNK))
            root = roots[part[0], None]
            field[part] = _normal(_mixed(_mixed(places[None, part[1]] * _STEP ^ root) + root))
    return torch.from_numpy(field).reshape(len(keys), *shape).to(dtype)


def _places(shape: tuple[int, ...]) -> Words:
    """Give each place of a signal a number that depends on its coordinates, not on the extent of the signal."""
    total = np.zeros(shape, np.uint64)
    bits = 64 // len(shape) if len(shape) > 2 else 48
    for axis, length in enumerate(shape):
        place = np.arange(length, dtype=np.uint64) << np.uint64(bits * (len(shape) - 1 - axis))
        total += place.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return total.ravel()


def _roots(keys: Sequence[Sequence[int]] | Words) -> Words:
    """Hash each key into one word."""
    if isinstance(keys, np.ndarray):
        numbers: Words = keys
    else:
        numbers = np.array([[number % 2**64 for number in key] for key in keys], np.uint64)
    words = np.full(len(keys), numbers.shape[1], np.uint64)
    for column in numbers.T:
        words = _mixed((words ^ column) + _STEP)
    return words


def _mixed(words: Words) -> Words:
    """Spread every bit over all bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _normal(words: Words) -> NDArray[np.float32]:
    """Make a standard normal value of 64 random bits: one half is the radius, the other the angle."""
    radius = ((words >> np.uint64(32)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float32) * np.float32(2 * math.pi * 2.0**-32)
    return np.sqrt(np.float32(-2) * np.log(np.minimum(radius, np.float32(1)))) * np.cos(angle)
