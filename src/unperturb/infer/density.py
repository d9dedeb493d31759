"""The posterior along one direction, as a curve, and how many modes it has.

Two ways, both by maximum entropy. Of all densities with given expectations E f_i(s) = c_i, the one that says the least
beyond these is

    p(s)  ∝  base(s) exp(Σ λ_i f_i(s))          λ minimises  log ∫ base exp(Σ λ_i f_i) − Σ λ_i c_i  (+ ½ Σ (ε λ_i)²)

which is convex (Jaynes, 1957; with ε, the expectations are only known to about ε: Dudík, Phillips and Schapire,
"Maximum entropy density estimation with generalized regularization", 2007).

`max_entropy`
    f_i = s, s², s³, s⁴: from four moments (Manor and Michaeli, ICLR 2024). What it shows is there, if the moments are
    exact, but it overlooks much: four moments do not tell a valley from a flat top, nor three modes from two.
`marginal`
    what the denoiser says of tilts further out. K′(t) is the mean of p(s) e^{ts} (`uncertainty.tilted_means`), so that
    E (s − K′(t)) e^{ts} = 0 at every t; f_i is that at tilts up to three standard deviations of the answer, and the
    base is a Gaussian.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.signal import find_peaks
from torch import Tensor

from unperturb.infer.posterior import Posterior
from unperturb.infer.uncertainty import natural_tilt, tilted_means

PROMINENCE = 0.1
"""How far a mode stands out of the valley beside it, as a share of the highest mode, to be called one."""

_POINTS = 1001
_TILTS = torch.linspace(-3, 3, 13, dtype=torch.float64)
_ACCURACY = {True: 1e-3, False: 0.15}


class Mode(NamedTuple):
    """Where a density is highest around, how high it is there, and by how much it stands out."""

    at: float
    height: float
    prominence: float


@dataclass(frozen=True, eq=False)
class Density:
    """A probability density of one number, on a grid that holds all but nothing of it.

    Attributes
    ----------
    at
        ``(point,)``, equidistant, rising; float64.
    heights
        ``(point,)``, the density there; it sums to one over the spacing.
    """

    at: Tensor
    heights: Tensor

    @property
    def modes(self) -> tuple[float, ...]:
        """Where its modes are, from the left."""
        return tuple(mode.at for mode in modes(self))

    def expectation(self, values: Tensor) -> float:
        """Return the expectation of a function that is given on the grid."""
        return float(self.heights @ values / self.heights.sum())


def modes(density: Density, prominence: float = PROMINENCE) -> tuple[Mode, ...]:
    """Return the modes of a density, from the left.

    A mode is a local maximum inside of the grid; a density that rises towards an end of it has none there (the
    four-moment density does so where tails are heavy, and means nothing by it).

    Parameters
    ----------
    density
        On a grid that is fine enough to show what matters.
    prominence
        Least height above the higher one of the valleys that part a mode from higher ground, relative to the height of
        the highest mode.
    """
    heights = density.heights.numpy()
    places, found = find_peaks(heights, prominence=0)
    highest = max(heights[places], default=0.0)
    return tuple(
        Mode(float(density.at[place]), float(heights[place]), float(rise))
        for place, rise in zip(places, found["prominences"], strict=True)
        if rise >= prominence * highest
    )


def max_entropy(mean: float, variance: float, third: float, fourth: float) -> Density | None:
    """Return the density of largest entropy that has these moments, on an interval that is wide for them.

    Parameters
    ----------
    mean, variance, third, fourth
        The last three about the mean.

    Returns
    -------
    Density or None
        Skewness and kurtosis within 1 % (of themselves, or of 1 where they are smaller). None where no density has such
        moments (kurtosis below skewness² + 1), or none on the grid.
    """
    if not (variance > 0 and all(map(math.isfinite, (mean, variance, third, fourth)))):
        return None
    skewness, kurtosis = third / variance**1.5, fourth / variance**2
    if not kurtosis > skewness**2 + 1:
        return None
    # The farther one of the two points that have this skewness; and where three points of this kurtosis would lie.
    farther = (abs(skewness) + math.sqrt(skewness**2 + 4)) / 2
    half = 3 + 1.5 * max(farther, math.sqrt(kurtosis))
    grid = torch.linspace(-half, half, 4 * _POINTS - 3, dtype=torch.float64)
    wanted = torch.tensor([0, 1, skewness, kurtosis], dtype=torch.float64)
    # Legendre's polynomials on the interval: the same family as powers, and a matrix that can be solved.
    change = _LEGENDRE / half ** torch.arange(1, 5)
    powers = torch.stack([grid**order for order in range(1, 5)])
    heights = _fit(change @ powers, change @ wanted, -(grid**2) / 2, [1e-2, 1e-4, 1e-6, 0.0])
    found = Density(mean + math.sqrt(variance) * grid, _normalised(heights, grid) / math.sqrt(variance))
    reached = torch.tensor([found.expectation(power) for power in powers], dtype=torch.float64)
    return found if bool(((reached - wanted).abs() <= 0.01 * wanted.abs().clamp(min=1)).all()) else None


def marginal(posterior: Posterior, direction: Tensor, *, accuracy: float | None = None) -> Density:
    """Return the posterior of ``(x − mean) · direction``: along a direction, about the best guess.

    Parameters
    ----------
    posterior
        Over a batch of one signal.
    direction
        Of the shape of the signal, such as one of its principal components.
    accuracy
        How exact the denoiser's answers are, in standard deviations of the posterior. The finer, the more detail is
        believed. By default 0.001 for values in double precision, which are those of a closed form, and 0.15 for
        others, those of a network.

    Returns
    -------
    Density
        From 14 evaluations (17 for small signals).

    Raises
    ------
    UsageError
        Where the batch is not of one, the shapes differ, or the direction or the noise is zero along it.
    """
    if accuracy is None:
        accuracy = _ACCURACY[posterior.start.dtype == torch.float64]
    unit = natural_tilt(posterior, direction)
    slopes = tilted_means(posterior, direction, unit * _TILTS)
    grid, heights = from_tilts(_TILTS, (slopes - slopes[len(slopes) // 2]) * unit, accuracy)
    return Density(grid / unit, heights * unit)


def of_draws(values: Tensor) -> Density:
    """Return the density of numbers that were drawn, smoothed by a Gaussian of Silverman's width.

    Parameters
    ----------
    values
        ``(draw,)``; hundreds of them, if modes are to be told from chance.

    Notes
    -----
    Silverman, "Density estimation for statistics and data analysis", 1986, equation 3.31 with the quartiles.
    """
    values = values.double()
    low, high = (float(values.quantile(share)) for share in (0.25, 0.75))
    width = 0.9 * min(float(values.std()), (high - low) / 1.34) * len(values) ** -0.2
    width = max(width, 1e-6 * float(values.abs().max()), 1e-30)
    grid = torch.linspace(
        float(values.min()) - 4 * width, float(values.max()) + 4 * width, _POINTS, dtype=torch.float64
    )
    return Density(grid, _normalised((-0.5 * ((grid[:, None] - values) / width).square()).exp().sum(1), grid))


def from_tilts(tilts: Tensor, means: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
    """Return the density whose tilts have these means, on a grid; about the mean, in units of its standard deviation.

    Parameters
    ----------
    tilts
        ``(tilt,)``, rising, 0 among them.
    means
        ``(tilt,)``, K′ at these; 0 at 0.
    accuracy
        How exactly they are known.
    """
    # What lies further out than the tilts reach is only guessed at; the less of it, the faster the fit.
    grid = torch.linspace(float(means.min()) - 1.5, float(means.max()) + 1.5, _POINTS, dtype=torch.float64)
    # K itself, by trapezoids, serves to bring the functions to one size; any other size would do nearly as well.
    sums = torch.cat([means.new_zeros(1), torch.cumulative_trapezoid(means, tilts)])
    sums = sums - sums[int(tilts.abs().argmin())]
    functions = (grid - means[:, None]) * (tilts[:, None] * grid - sums[:, None]).exp()
    ridges = [0.1, accuracy] if accuracy < 0.1 else [accuracy]
    density = _fit(functions, torch.zeros_like(tilts), -(grid**2) / 2, ridges)
    return grid, _normalised(density, grid)


_LEGENDRE = torch.tensor(
    [[1, 0, 0, 0], [0, 3 / 2, 0, 0], [-3 / 2, 0, 5 / 2, 0], [0, -30 / 8, 0, 35 / 8]], dtype=torch.float64
)
"""Coefficients of u, u², u³, u⁴ in Legendre's polynomials of order 1 to 4; constants cancel."""


def _fit(functions: Tensor, wanted: Tensor, base: Tensor, ridges: Sequence[float]) -> Tensor:
    """Return the density, not normalised, by Newton's method on the convex dual, with ever less of a ridge.

    Parameters
    ----------
    functions
        ``(function, point)``.
    wanted
        ``(function,)``, their expectations.
    base
        ``(point,)``, logarithm of the density where nothing is wanted.
    ridges
        How exactly the expectations are met, falling. Each fit begins at the one before.
    """
    multipliers = torch.zeros_like(wanted)
    for ridge in ridges:
        multipliers = _newton(functions, wanted, base, ridge, multipliers)
    return torch.softmax(base + multipliers @ functions, 0)


def _newton(functions: Tensor, wanted: Tensor, base: Tensor, ridge: float, multipliers: Tensor) -> Tensor:
    """Return the multipliers that minimise the dual; see `_fit`."""

    def dual(candidate: Tensor) -> Tensor:
        return (
            torch.logsumexp(base + candidate @ functions, 0)
            - candidate @ wanted
            + 0.5 * ridge**2 * candidate.square().sum()
        )

    eye = torch.eye(len(wanted), dtype=wanted.dtype)
    value = dual(multipliers)
    for _ in range(300):
        density = torch.softmax(base + multipliers @ functions, 0)
        expected = functions @ density
        centred = functions - expected[:, None]
        curvature = (centred * density) @ centred.T
        curvature = curvature + ridge**2 * eye
        gradient = expected - wanted + ridge**2 * multipliers
        # The functions differ in size by orders of magnitude, and next to two points the curvature all but vanishes in
        # some direction: it is solved for functions of equal size, with a trace of damping.
        size = curvature.diagonal().clamp(min=torch.finfo(curvature.dtype).tiny).sqrt()
        step = torch.linalg.solve(curvature / size[:, None] / size + 1e-14 * eye, gradient / size) / size
        fall = float(gradient @ step)
        part = 1.0
        while part > 1e-9 and not dual(multipliers - part * step) <= value - 1e-4 * part * fall:
            part /= 2
        if fall < 1e-12 or part <= 1e-9:
            break
        multipliers = multipliers - part * step
        value = dual(multipliers)
    return multipliers


def _normalised(density: Tensor, grid: Tensor) -> Tensor:
    return density / (density.sum() * (grid[1] - grid[0]))
