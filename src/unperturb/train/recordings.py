"""Noisy recordings to learn from, of which nobody has the clean ones.

The last rows of every recording are not learned from. On them the squared error is estimated without clean values, by
Stein's formula or against a second shot (`unperturb.train.noisy`): that estimate says whether learning still helps, or
has begun to learn the noise by heart.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import TrainingError
from unperturb.model.denoiser import Denoiser
from unperturb.model.stabilise import Counting
from unperturb.train.noisy import Noisy, steins_estimate

KEPT = 0.2
"""Share of the rows of a recording that is kept for the estimate."""

LEAST = 32
"""Rows and columns that a recording has of either part at least."""

PROBES = 4
"""Of the estimate, each of its own."""

DOUBT = 0.1
"""By so much the variance of the noise may be other than told."""

MOST, SIDE = 16, 768
"""Recordings that the estimate looks at, at most, and rows and columns of each."""

NEEDED = f"{round(LEAST / KEPT)} rows and {LEAST} columns are needed, a fifth of the rows to see how well it goes"


class Estimate(NamedTuple):
    """A squared error, if noise had the variance that is told, and a tenth less and more: so well is it known."""

    told: float
    less: float
    more: float

    def better_than(self, other: "Estimate") -> bool:
        """Whether it is the smaller error, whichever of the three is true."""
        return all(one < another for one, another in zip(self, other, strict=True))


@dataclass(frozen=True, eq=False)
class Recordings:
    """Noisy planes with how strong their noise is.

    Attributes
    ----------
    planes
        ``(channel, height, width)`` each, float32, of a range of about 1.
    sigmas
        ``(1, height, width)`` each: the standard deviation of their noise.
    again
        Second shots, one a plane; empty where there are none.
    counting
        Their noise, where it is that of counting, in the units of the planes.
    """

    planes: tuple[NDArray[np.float32], ...]
    sigmas: tuple[NDArray[np.float32], ...]
    again: tuple[NDArray[np.float32], ...] = ()
    counting: Counting | None = None

    def __post_init__(self) -> None:
        if not all(map(large_enough, self.planes)):
            raise TrainingError(f"a recording is too small to learn from: {NEEDED}")

    @property
    def count(self) -> int:
        """How many planes there are, each counted once."""
        return len({id(plane) for plane in self.planes})

    @property
    def largest(self) -> int:
        """The largest crop that can be taken from all."""
        return min(min(_rows(plane), plane.shape[2]) for plane in self.planes) // 8 * 8

    def crop(self, generator: np.random.Generator, size: int, *, paired: bool = False) -> NDArray[np.float32]:
        """Take a crop at random, mirrored at random: ``(channel, size, size)``, values, second shot, sigma."""
        areas = np.array([_rows(plane) * plane.shape[2] for plane in self.planes], float)
        which = int(generator.choice(len(areas), p=areas / areas.sum()))
        parts = [self.planes[which], *(self.again[which : which + 1] if paired else ()), self.sigmas[which]]
        top = int(generator.integers(_rows(self.planes[which]) - size + 1))
        left = int(generator.integers(parts[0].shape[2] - size + 1))
        whole = np.concatenate([part[:, top : top + size, left : left + size] for part in parts])
        for axis in (1, 2):
            whole = np.flip(whole, axis) if generator.integers(2) else whole
        return np.ascontiguousarray(whole.swapaxes(1, 2) if generator.integers(2) else whole)

    @torch.no_grad()
    def estimated_error(self, denoiser: Denoiser) -> Estimate:
        """Return the mean squared error on what is not learned from, estimated without clean values.

        It can be below nothing. It is off where noise is not as told, or, without second shots, neither Gaussian nor
        that of counting.
        """
        device = next(denoiser.parameters()).device
        found = []
        for index in range(0, len(self.planes), -(-len(self.planes) // MOST)):
            first = _rows(self.planes[index])
            kept = (None, slice(None), slice(first, first + SIDE), slice(SIDE))
            values, sigma = (torch.from_numpy(part[index][kept]).to(device) for part in (self.planes, self.sigmas))
            variance = float(sigma.square().mean())
            if self.again:
                again = torch.from_numpy(self.again[index][kept]).to(device)
                found.append([float((denoiser(values, sigma) - again).square().mean()) - variance] * 3)
            else:
                distance, rest = self._by_probes(denoiser, values, sigma)
                found.append([distance + share * rest for share in (1, 1 - DOUBT, 1 + DOUBT)])
        return Estimate(*np.mean(found, 0).tolist())

    def _by_probes(self, denoiser: Denoiser, values: Tensor, sigma: Tensor) -> tuple[float, float]:
        """Return the distance to what was seen, and what of the estimate goes with the variance of the noise."""
        generator = torch.Generator(values.device).manual_seed(0)
        probes = [Noisy.of(values, sigma, generator, counting=self.counting) for _ in range(PROBES)]
        parts = [[float(part) for part in steins_estimate(denoiser, probe)] for probe in probes]
        distance, rest = np.mean(parts, 0).tolist()
        return distance, rest

    @property
    def noise(self) -> float:
        """The mean square of the noise."""
        return float(np.mean([np.square(sigma).mean() for sigma in self.sigmas]))


def large_enough(plane: NDArray[np.float32]) -> bool:
    """Whether a plane ``(channel, height, width)`` can be learned from."""
    return plane.shape[1] >= round(LEAST / KEPT) and plane.shape[2] >= LEAST


def _rows(plane: NDArray[np.float32]) -> int:
    """Return how many rows of a plane are learned from."""
    return plane.shape[1] - round(KEPT * plane.shape[1])
