"""Clean crops for training, of images that lie decoded behind each other in one file (`unperturb.data.decoded`).

A crop is a copy of a few rows of memory, turned and mirrored by chance, on any number of threads and processes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import TrainingError

SIDES = (128, 32, 16)
"""Sides of the crops to validate on: the largest that an image has."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

LUMINANCE = (0.299, 0.587, 0.114)
"""Gray of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class Place:
    """Where one image lies in the cache."""

    offset: int
    height: int
    width: int
    channels: int
    held_out: bool


@dataclass(frozen=True)
class Patches:
    """Decoded images, of which crops are taken.

    Attributes
    ----------
    samples
        All samples of all images, one behind the other.
    places
        Where each image begins, and its shape.
    full_scale
        The sample that stands for 1.
    key
        Names what went in: the files, and how they were prepared.
    dims, sides
        Axes of space, and of the crops to validate on.
    """

    samples: Pixels
    places: tuple[Place, ...]
    full_scale: float
    key: str = ""
    dims: int = 2
    sides: tuple[int, ...] = SIDES

    def __len__(self) -> int:
        return len(self.places)

    def of(self, *, held_out: bool) -> "Patches":
        """Return the images that are held out for validation, or all others."""
        chosen = tuple(place for place in self.places if place.held_out == held_out)
        return replace(self, places=chosen)

    @property
    def largest(self) -> int:
        """The largest side of a crop that can be taken of any image; 0 where there is no image."""
        return max((min(place.height, place.width) for place in self.places), default=0)

    @property
    def ends(self) -> tuple[float, float] | None:
        """The least and the greatest value, but for a thousandth each, of images that are floats; None of others."""
        if self.samples.dtype.kind != "f" or not len(self.samples):
            return None
        low, high = np.quantile(self.samples[:: max(1, len(self.samples) // 10**6)], [0.001, 0.999])
        return float(low), float(high)

    @property
    def pixels(self) -> int:
        """Pixels of all images together."""
        return sum(place.height * place.width for place in self.places)

    def at_least(self, size: int) -> "Patches":
        """Return the images from which a crop of this size can be taken.

        Raises
        ------
        TrainingError
            Where there are none.
        """
        chosen = tuple(place for place in self.places if min(place.height, place.width) >= size)
        if not chosen:
            raise TrainingError(
                f"no image is at least {size} pixels high and wide; give larger images or a smaller patch"
            )
        return replace(self, places=chosen)

    def crop(self, generator: np.random.Generator, size: int, *, gray: bool) -> NDArray[np.float32]:
        """Take one crop at random, from an image drawn by its area, turned or mirrored at random.

        Parameters
        ----------
        generator
            The source of randomness.
        size
            Height and width.
        gray
            Whether colour is reduced to its luminance.

        Returns
        -------
        ndarray
            ``(channel, size, size)``, float32, in [0, 1] for integer images.
        """
        place = self.places[int(generator.choice(len(self.places), p=self._shares))]
        top, left = (int(generator.integers(length - size + 1)) for length in (place.height, place.width))
        crop = self._image(place)[top : top + size, left : left + size]
        turned = _DIHEDRAL[int(generator.integers(8))](crop)
        return self._float(turned, gray=gray)

    def centre(self, index: int, size: int, *, gray: bool) -> NDArray[np.float32]:
        """Return the middle of one image, ``(channel, size, size)``, as `crop` does."""
        place = self.places[index]
        top, left = (place.height - size) // 2, (place.width - size) // 2
        return self._float(self._image(place)[top : top + size, left : left + size], gray=gray)

    @functools.cached_property
    def _shares(self) -> NDArray[np.float64]:
        area = np.array([place.height * place.width for place in self.places], dtype=np.float64)
        return area / area.sum()

    def _image(self, place: Place) -> Pixels:
        shape = (place.height, place.width, place.channels)
        return self.samples[place.offset : place.offset + int(np.prod(shape))].reshape(shape)

    def _float(self, crop: Pixels, *, gray: bool) -> NDArray[np.float32]:
        values = crop.astype(np.float32) / np.float32(self.full_scale)
        if gray and values.shape[-1] == 3:
            values = values @ np.array(LUMINANCE, np.float32)[:, None]
        return np.ascontiguousarray(values.transpose(2, 0, 1))


_DIHEDRAL: tuple[Callable[[Any], Any], ...] = (
    lambda a: a,
    lambda a: a[::-1],
    lambda a: a[:, ::-1],
    lambda a: a[::-1, ::-1],
    lambda a: a.swapaxes(0, 1),
    lambda a: a[::-1].swapaxes(0, 1),
    lambda a: a[:, ::-1].swapaxes(0, 1),
    lambda a: a[::-1, ::-1].swapaxes(0, 1),
)
