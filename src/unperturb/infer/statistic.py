"""Numbers that are read off a signal: the mean of a region, a count, the position of an edge."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unperturb.errors import UsageError

PIXEL = "pixel"
"""Name of the statistic that is the signal itself, value by value."""

SIZES = (8, 16, 32, 64)
"""Sides in pixels of the square regions whose means are calibrated on images. The larger, the wider in spreads: what
the denoiser gets wrong over a whole region, its draws vary too little."""


@dataclass(frozen=True)
class Statistic:
    """Numbers that are read off a signal: the mean of a region, a count, the position of an edge.

    Attributes
    ----------
    name
        Under which its calibration is kept.
    of
        ``(batch, channel, *space) -> (batch, value)``; no value where a signal is too small for it.
    linear
        Whether the statistic of a mean is the mean of the statistics. The interval's centre is then that of the best
        guess, which is less noisy than a mean over draws.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    linear: bool = False

    def centre_and_spread(self, mean: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two, each ``(batch, value)``, from the best guess ``(batch, …)`` and draws ``(n, batch, …)``."""
        values = self.of(draws.flatten(0, 1)).view(*draws.shape[:2], -1)
        centre = self.of(mean) if self.linear else values.mean(0)
        return centre, (values - centre).square().mean(0).sqrt()


def region_means(size: int, count: int = 256) -> Statistic:
    """Return the means of square regions at places that are drawn once for each shape of image.

    Parameters
    ----------
    size
        Side of the squares in pixels.
    count
        How many squares, which may overlap; each channel has a mean of its own.
    """

    def of(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < size:
            return x.new_zeros(len(x), 0)
        generator = np.random.default_rng([size, height, width])
        top = torch.from_numpy(generator.integers(height - size + 1, size=count))
        left = torch.from_numpy(generator.integers(width - size + 1, size=count))
        # Sums over all that lies above and to the left: of any rectangle, the sum is that of its four corners.
        sums = torch.nn.functional.pad(x.double().cumsum(-2).cumsum(-1), (1, 0, 1, 0))
        above, below = sums[..., top, :], sums[..., top + size, :]
        places = torch.arange(count)
        square = below[..., places, left + size] - below[..., places, left]
        square = square - above[..., places, left + size] + above[..., places, left]
        return (square / size**2).to(x).flatten(1)

    return Statistic(region_name(size**2), of, linear=True)


def region_mean(region: Tensor) -> Statistic:
    """Return the mean of one region, channel by channel.

    Parameters
    ----------
    region
        Which places are in it, bool, of the shape of the space.

    Raises
    ------
    UsageError
        Where no place is in it.
    """
    n_places = int(region.sum())
    if region.dtype != torch.bool or n_places == 0:
        raise UsageError("a region is a mask of bool that is true somewhere")
    return Statistic(region_name(n_places), lambda x: x[..., region].mean(-1).flatten(1), linear=True)


def region_name(n_places: int) -> str:
    """Return the name under which the mean of a region of so many pixels is calibrated: that of the nearest size."""
    nearest = min(SIZES, key=lambda size: abs(np.log(size**2 / n_places)))
    return f"region mean {nearest}"
