"""Variance stabilisation: counts, whose noise grows with what is counted, as values with noise of one strength.

A sensor makes of a signal x

    y = o + gain · Poisson((x − o) / gain) + read · n        variance gain · (x − o) + read²,   o: offset

The generalised Anscombe transform brings the noise of every brightness to a standard deviation of about 1:

    f(z) = 2 √(z + 3/8 + s²),        z = (y − o) / gain,  s = read / gain,  0 where the root is of less than 0

What a denoiser finds there is the mean of f, and f of a mean is not the mean of f. So the way back is the inverse of
x ↦ E[f(z) | x], the exact unbiased inverse. Below `FEW` counts E is a sum over all counts; above, its expansion

    E[f]² / 4 ≈ λ + 1/8 + s²,        λ = (x − o) / gain

Of few counts the noise of f is weaker than 1, and of none there is none: how strong it is the same sums say.

Sources: Starck, Murtagh and Bijaoui, "Image processing and data analysis", 1998, for f; Mäkitalo and Foi, "Optimal
inversion of the generalized Anscombe transformation for Poisson-Gaussian noise", IEEE TIP 2013, for the way back.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.level import Range
from unperturb.model.perturbation import Composition, Gaussian, Perturbation, Poisson, PoissonGaussian

FEW = 60.0
"""Counts from which on the expansion is as good as the sum."""


@dataclass(frozen=True)
class Counting:
    """Noise of counting, with that of reading.

    Attributes
    ----------
    gain
        The value of one count.
    read
        Standard deviation of the noise of reading, in the units of the values.
    offset
        The value of no light.
    """

    gain: float
    read: float = 0.0
    offset: float = 0.0

    def unbiased_variance(self, seen: Tensor) -> Tensor:
        """Return what has the variance of the noise as its mean, of noisy values; below 0 where these are low."""
        return self.gain * (seen - self.offset) + self.read**2

    def parted(self, seen: Tensor, share: float, normal: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise n that makes two of noisy values y: y + αn and y − n/α have no noise in common.

        Every count goes to the first of the two with the chance `share`, p = 1 / (1 + α²); their noise of reading is
        made independent by more of it. Exact where counts can be told from values, as they can where the noise of
        reading is small beside `gain`; else uncorrelated, but for values of less than no count, which are taken for
        none (a tenth of the noise is in common at a tenth of a count and as much read noise as a count).

        Parameters
        ----------
        seen
            y, of any shape.
        share
            p, between 0 and 1.
        normal
            Standard normal, of the shape of `seen`.
        generator
            Of the thinning.
        """
        alpha = math.sqrt(1 / share - 1)
        counts = ((seen - self.offset) / self.gain).round().clamp(min=0)
        first = torch.binomial(counts, torch.full_like(counts, share), generator=generator)
        return self.gain * (first / share - counts) / alpha + self.read * normal

    def scaled(self, factor: float) -> "Counting":
        """Return the noise of values that are multiplied by a number."""
        return Counting(*(factor * part for part in (self.gain, self.read, self.offset)))


@dataclass(frozen=True)
class Stabiliser(Counting):
    """From values to stabilised ones, and back.

    Both are lines of the transform above: `offset` becomes 0, and `top` becomes 1, so that what a model knows of noise
    by its level holds for stabilised values as well.

    Attributes
    ----------
    gain, read, offset
        As for `Counting`.
    top
        The value of much light, above `offset`.
    """

    top: float = 1.0

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise in stabilised values."""
        low, high = self._ends
        return 1 / (high - low)

    def forward(self, values: Tensor) -> Tensor:
        """Return noisy values with noise of one strength, `sigma`; any shape."""
        low, _ = self._ends
        z = (values.double() - self.offset) / self.gain
        return ((2 * (z + 3 / 8 + self._square).clamp(min=0).sqrt() - low) * self.sigma).to(values)

    def mean(self, clean: Tensor) -> Tensor:
        """Return the mean of what `forward` makes of noisy versions of clean values; any shape."""
        low, _ = self._ends
        counts = self._counts(clean)
        many = 2 * (counts + 1 / 8 + self._square).sqrt()
        return ((torch.where(counts < FEW, self._looked_up("means", counts), many) - low) * self.sigma).to(clean)

    def deviation(self, clean: Tensor) -> Tensor:
        """Return the standard deviation of what `forward` makes of noisy versions of clean values; any shape.

        Of a tenth of a count more, so that it is nowhere 0.
        """
        counts = self._counts(clean) + 0.1
        few = self._looked_up("deviations", counts)
        return (torch.where(counts < FEW, few, torch.ones_like(few)) * self.sigma).to(clean)

    def slope(self, clean: Tensor) -> Tensor:
        """Return by how much `inverse` rises where it gives these clean values; any shape."""
        counts = self._counts(clean)
        many = 1 / (counts + 1 / 8 + self._square).sqrt()
        rise = torch.where(counts < FEW, self._looked_up("rises", counts), many)
        return (self.gain / (self.sigma * rise)).to(clean)

    def inverse(self, stabilised: Tensor) -> Tensor:
        """Return the values of which these are the stabilised means, `offset` at least; any shape."""
        low, _ = self._ends
        mean = stabilised.double() / self.sigma + low
        table = _moments(self._square)
        few = torch.from_numpy(np.interp(mean.cpu().numpy(), table.means, table.counts)).to(mean)
        many = mean.square() / 4 - 1 / 8 - self._square
        return (self.offset + self.gain * torch.where(mean < table.means[-1], few, many)).to(stabilised)

    def variance(self, clean: Tensor) -> Tensor:
        """Return the variance of the noise of clean values, and a tenth of a count's, so that it is nowhere 0."""
        return (self.gain**2 * (self._counts(clean) + 0.1) + self.read**2).to(clean)

    def _counts(self, clean: Tensor) -> Tensor:
        return ((clean.double() - self.offset) / self.gain).clamp(min=0)

    def _looked_up(self, column: str, counts: Tensor) -> Tensor:
        table = _moments(self._square)
        return torch.from_numpy(np.interp(counts.cpu().numpy(), table.counts, getattr(table, column))).to(counts)

    @property
    def _square(self) -> float:
        return (self.read / self.gain) ** 2

    @property
    def _ends(self) -> tuple[float, float]:
        """What becomes 0, and what becomes 1."""
        reach = max(self.top - self.offset, self.gain) / self.gain
        return 2 * (3 / 8 + self._square) ** 0.5, 2 * (reach + 3 / 8 + self._square) ** 0.5


def is_noise(perturbation: Perturbation) -> bool:
    """Whether it is noise that a denoiser of Gaussian noise can be told: that, or counting with it or without."""
    first, *rest = perturbation.parts if isinstance(perturbation, Composition) else (perturbation,)
    if isinstance(first, Gaussian):
        return not rest
    return isinstance(first, Poisson | PoissonGaussian) and all(isinstance(part, Gaussian) for part in rest)


def stabiliser(perturbation: Perturbation | None, values: NDArray[np.floating[Any]]) -> Stabiliser | None:
    """Return what stabilises values that were perturbed by counting; None for any other perturbation.

    Parameters
    ----------
    perturbation
        ``poisson`` or ``poisson-gaussian``, with Gaussian noise after it or none; or any other.
    values
        What was observed, of any shape. The largest, but for one in a thousand, is taken for `top`.

    Raises
    ------
    UsageError
        Where a level is a range: what is to be undone has one.
    """
    noise = counting(perturbation)
    if noise is None:
        return None
    return Stabiliser(noise.gain, noise.read, noise.offset, max(brightest(values), noise.offset + noise.gain))


def brightest(values: NDArray[np.floating[Any]]) -> float:
    """Return the largest value but for one in a thousand."""
    return float(np.quantile(values, 0.999))


def counting(perturbation: Perturbation | None) -> Counting | None:
    """Return the noise that a perturbation states, if it is that of counting; errors as for `stabiliser`."""
    first, *noise = perturbation.parts if isinstance(perturbation, Composition) else (perturbation,)
    if not isinstance(first, Poisson | PoissonGaussian) or not all(isinstance(part, Gaussian) for part in noise):
        return None
    gain, read, offset = (_stated(first, key) for key in ("gain", "read", "offset"))
    return Counting(gain, math.hypot(read, *(_stated(part, "sigma") for part in noise)), offset)


def _stated(part: Perturbation | None, key: str) -> float:
    level = getattr(part, key, 0.0)
    if isinstance(level, Range):
        raise UsageError(f"{part} leaves open how strong the noise is; give one number for every level")
    return float(level)


@dataclass(frozen=True)
class _Moments:
    """Of counts from 0 to `FEW`: mean and standard deviation of f, and how the mean rises from count to count."""

    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    rises: NDArray[np.float64]


@functools.lru_cache(maxsize=64)
def _moments(square: float) -> _Moments:
    """Return the moments of f for a read noise of s² = `square` in counts.

    Sums over all counts, and over the read noise, in steps of a hundredth of it: the root has an edge, at which no rule
    of higher order is better.
    """
    from scipy.special import gammaln, xlogy

    counts = np.concatenate([np.linspace(0, 2, 201), np.geomspace(2, FEW, 400)[1:]])
    k = np.arange(int(FEW + 12 * FEW**0.5) + 1)
    chance = np.exp(xlogy(k, counts[:, None]) - counts[:, None] - gammaln(k + 1))
    nodes = np.linspace(-8, 8, 1601)
    weights = np.exp(-np.square(nodes) / 2)
    weights /= weights.sum()
    z = k[:, None] + np.sqrt(square) * nodes
    root = 2 * np.sqrt(np.maximum(z + 3 / 8 + square, 0))
    means = chance @ (root @ weights)
    # One count more is one more in the sum: the derivative of a Poisson mean is a mean of differences.
    more = 2 * np.sqrt(np.maximum(z + 1 + 3 / 8 + square, 0))
    rises = chance @ ((more - root) @ weights)
    variances = chance @ (root**2 @ weights) - means**2
    return _Moments(counts, means, np.sqrt(np.maximum(variances, 0)), rises)
