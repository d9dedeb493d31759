"""Where the answer is open: directions, moments and standard deviations of the posterior, from the denoiser alone.

With Σ the covariance of the noise (σ² I, or σ² of each place on the diagonal) and D(y) = E[x | y],

    Cov[x | y] = (∂D/∂y) Σ                                  its eigenvectors are the principal components

(Miyasawa, 1961; Robbins, 1956). Moving the observation tilts the posterior: p(x | y + t Σ v) ∝ p(x | y) exp(t x·v). So

    K′(t) = v·D(y + t Σ v)

is the first derivative of the cumulant generating function of x·v given y, and its derivatives at t = 0 are the
cumulants: κ₂ = K″, κ₃ = K‴, κ₄ = K⁗ (Manor and Michaeli, "On the posterior distribution in denoising: application to
uncertainty quantification", ICLR 2024, with α = t σ²).

A denoiser that was trained is not exactly a posterior mean: its ∂D/∂y is not quite symmetric. How far it is from that
is measured and reported; the symmetric part is what is used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.eigen import leading, ritz
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.posterior import Posterior
from unperturb.infer.probing import PROBES, covariance, diagonal, parts_of, precise, probed, times

Region = Tensor | NDArray[Any] | slice | tuple[slice, ...]
"""A part of a signal: slices of space, or a boolean mask of the shape of the space or of the whole signal."""

DENSE = 64
"""Components up to which the whole covariance is computed."""

_STEP = {True: 0.02, False: 0.5}
"""Distance between tilts in moments, in standard deviations: in double precision, and in single, for networks."""

_STENCILS = (
    torch.tensor([-1, 9, -45, 0, 45, -9, 1], dtype=torch.float64) / 60,
    torch.tensor([2, -27, 270, -490, 270, -27, 2], dtype=torch.float64) / 180,
    torch.tensor([1, -8, 13, 0, -13, 8, -1], dtype=torch.float64) / 8,
)
"""First three derivatives from seven equidistant values, of order 6, 6 and 4 (Fornberg, 1988, table 1)."""


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of the posterior.

    Attributes
    ----------
    directions
        ``(component, *signal)``, of unit norm, orthogonal, zero outside of the region; each has its largest value
        positive.
    variances
        ``(component,)``, of the posterior along them, falling, in squared units of the values.
    residuals
        ``(component,)``, ‖Cov v − λ v‖ / λ: how far each is from being an eigenvector. What the derivative lacks in
        symmetry stays in it, however many iterations are made.
    total
        The sum of the variances of all components of the region: exact for small regions, else an estimate.
    asymmetry
        ‖C − Cᵀ‖ / ‖C‖ of the covariance as the denoiser's derivative has it, in Frobenius norm: exact for small
        regions, else an estimate. 0 for a denoiser that is a posterior mean.
    """

    directions: Tensor
    variances: Tensor
    residuals: Tensor
    total: float
    asymmetry: float

    @property
    def share(self) -> Tensor:
        """The share of the total variance that each component has, ``(component,)``."""
        return self.variances / max(self.total, torch.finfo(self.variances.dtype).tiny)


@dataclass(frozen=True)
class Moments:
    """Mean and central moments of one number, ``x · direction``, under the posterior."""

    mean: float
    variance: float
    third: float
    fourth: float

    @property
    def skewness(self) -> float:
        """Third moment in units of the standard deviation; NaN where the variance is not above 0."""
        return self.third / self.variance**1.5 if self.variance > 0 else math.nan

    @property
    def kurtosis(self) -> float:
        """Fourth moment in units of the standard deviation: 3 for a Gaussian, 1 for two equal points; NaN as above."""
        return self.fourth / self.variance**2 if self.variance > 0 else math.nan


@torch.no_grad()
def components(
    posterior: Posterior,
    n_components: int = 5,
    *,
    region: Region | None = None,
    iterations: int = 8,
    tolerance: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Components:
    """Return the directions in which the posterior is widest.

    Regions of few components are solved exactly. For others the subspace is built up a block at a time: each iteration
    sends one vector a component through the derivative of the denoiser (`eigen`).

    Parameters
    ----------
    posterior
        Over a batch of one signal.
    n_components
        How many.
    region
        Components of the covariance within this part of the signal, all channels of it; all by default.
    iterations
        At most; each takes `n_components` evaluations (four times as many for small signals).
    tolerance
        Residual of every component at which to stop earlier.
    seed
        Of the first block and the probes.
    progress
        Called with the products done and all that there may be.

    Raises
    ------
    UsageError
        Where the batch is not of one, the region does not fit or is empty, or a number is out of range.
    """
    posterior = precise(posterior)
    inside = _mask(posterior, region)
    size = int(inside.sum())
    if not 1 <= n_components <= size or iterations < 1:
        raise UsageError(
            f"there are 1 to {size} components here, and at least 1 iteration; got {n_components} and {iterations}"
        )
    dtype = posterior.start.dtype
    products = size if size <= DENSE else PROBES + n_components * iterations
    apply = covariance(posterior, inside, _counter(progress, products))
    if size <= DENSE:
        basis = torch.eye(inside.numel(), dtype=dtype)[inside.flatten()]
        images = apply(basis)
        matrix = images @ basis.T
        total, asymmetry = float(matrix.trace()), float((matrix - matrix.T).norm() / matrix.norm().clamp(min=1e-30))
        found = ritz(basis, images, n_components)
    else:
        total, asymmetry = probed(apply, inside, dtype, seed)
        keys = [(seed, 1, number) for number in range(n_components)]
        first = keyed_normal(keys, inside.shape, dtype=dtype).flatten(1) * inside.flatten()
        found = leading(apply, first, iterations, tolerance)
    sign = found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)).sign()
    directions = (found.vectors * sign).view(-1, *inside.shape) * inside
    return Components(directions, found.values.clamp(min=0), found.residuals, total, asymmetry)


def components_of_draws(gaps: Tensor, n_components: int) -> Components:
    """Return the directions in which draws differ the most; for where the denoiser's derivative says nothing.

    Parameters
    ----------
    gaps
        ``(n, *signal)``: draws minus the best guess.
    n_components
        How many, at most: n draws span n directions.

    Returns
    -------
    Components
        Of the draws' second moment about the best guess. They are its eigenvectors exactly; that they are few draws
        says nothing in `residuals`, which are 0, like the `asymmetry`.
    """
    rows = gaps.flatten(1)
    _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
    variances = singular.square() / len(rows)
    kept = min(n_components, len(variances))
    found = vectors[:kept]
    sign = found.gather(1, found.abs().argmax(1, keepdim=True)).sign()
    directions = (found * torch.where(sign == 0, 1, sign)).view(kept, *gaps.shape[1:])
    return Components(directions, variances[:kept], torch.zeros(kept), float(variances.sum()), 0.0)


@torch.no_grad()
def moments(posterior: Posterior, direction: Tensor) -> Moments:
    """Return the moments of ``x · direction`` up to the fourth, from eight evaluations (of small signals eleven).

    Parameters
    ----------
    posterior
        Over a batch of one signal.
    direction
        Of the shape of the signal, and of any length: a principal component, or the weights of a mean over a region.

    Raises
    ------
    UsageError
        Where the batch is not of one, the shapes differ, or the direction or the noise is zero along it.
    """
    posterior = precise(posterior)
    unit = natural_tilt(posterior, direction)
    step = _STEP[posterior.start.dtype == torch.float64]
    slopes = tilted_means(posterior, direction, unit * step * torch.arange(-3, 4, dtype=torch.float64))
    # In units of the standard deviation, so that all terms are of the order of 1.
    scaled = (slopes - slopes[3]) * unit
    second, third, fourth = (float(weights @ scaled) / step**order for order, weights in enumerate(_STENCILS, 1))
    return Moments(float(slopes[3]), second / unit**2, third / unit**3, (fourth + 3 * second**2) / unit**4)


@torch.no_grad()
def tilted_means(posterior: Posterior, direction: Tensor, tilts: Tensor) -> Tensor:
    """Return K′(t): the mean of ``x · direction`` where the posterior is tilted by exp(t · x·direction).

    Parameters
    ----------
    posterior
        Over a batch of one signal.
    direction
        Of the shape of the signal.
    tilts
        ``(tilt,)``, in units of one over those of ``x · direction``.

    Returns
    -------
    Tensor
        ``(tilt,)``, float64; never falling, where the denoiser is a posterior mean.
    """
    posterior = precise(posterior)
    v = _as_direction(posterior, direction)
    shift = posterior.spread_of_noise.square() * v
    means = []
    for part in parts_of(tilts.to(v), v.numel()):
        moved = replace(posterior, start=posterior.start + part.view(-1, *(1,) * (v.ndim - 1)) * shift)
        answer = moved.mean.flatten(1)
        means.append(answer.double() @ v.flatten().double())
    return torch.cat(means)


@torch.no_grad()
def natural_tilt(posterior: Posterior, direction: Tensor) -> float:
    """Return the tilt that moves the mean of ``x · direction`` by about its standard deviation: one over the latter.

    Raises
    ------
    UsageError
        Where the direction, or the noise along it, is zero.
    """
    posterior = precise(posterior)
    v = _as_direction(posterior, direction)
    shift = posterior.spread_of_noise.square() * v
    noise = float((v * shift).double().sum())
    if not noise > 0:
        raise UsageError("along a direction without any noise nothing is uncertain; is sigma 0, or the direction?")
    variance = float((v * times(posterior, shift, posterior.mean)).double().sum())
    # A network may think that there is no variance at all, or a negative one; do not follow it to infinity.
    return 1 / math.sqrt(max(variance, 1e-4 * noise))


def spread(posterior: Posterior, *, probes: int = 16, seed: int = 0) -> Tensor:
    """Return the standard deviation of every component of the posterior, from the diagonal of its covariance.

    The diagonal is probed by fields of random signs on grids that are wide apart: z ⊙ Cov z holds it, besides what is
    shared with components of the same grid, whose signs are random (Bekas, Kokiopoulou and Saad, "An estimator for the
    diagonal of a matrix", 2007; on grids: Tang and Saad, "A probing method for computing the diagonal of a matrix
    inverse", 2012).

    Parameters
    ----------
    posterior
        Over any batch.
    probes
        Evaluations to spend, for each channel of a signal; exact where there are as many as components.
    seed
        Of the signs.

    Returns
    -------
    Tensor
        Shape of the start, in the units of the values. 0 where the diagonal was estimated as negative.
    """
    return diagonal(posterior, probes, seed).clamp(min=0).sqrt()


def total_variance(posterior: Posterior, *, probes: int = 16, seed: int = 0) -> Tensor:
    """Return σ² tr ∂D/∂y of each item, ``(batch,)``: the squared error that the denoiser expects of its own answer.

    The sum over all components. Over many items its average is that of ‖x − D(y)‖², if the denoiser is what it should
    be (the same identity as in Stein's unbiased estimate of risk). `probes` and `seed` as for `spread`.
    """
    return diagonal(posterior, probes, seed).flatten(1).sum(1)


def spread_of_draws(draws: Tensor, mean: Tensor) -> Tensor:
    """Return the standard deviation of draws around the posterior mean, which is known: hence over n, not n − 1.

    Parameters
    ----------
    draws
        ``(draw, *start.shape)``, as `sample` returns them.
    mean
        ``start.shape``, the posterior's.
    """
    return (draws - mean).square().mean(0).sqrt()


# --- regions, directions ----------------------------------------------------------------------------------------------


def _mask(posterior: Posterior, region: Region | None) -> Tensor:
    """Return a region as a boolean tensor of the shape of the signal."""
    shape = posterior.start.shape[1:]
    if len(posterior.start) != 1:
        raise UsageError(f"components are those of one signal; the batch holds {len(posterior.start)}")
    space = shape[1:] if len(shape) > 1 else shape
    inside = torch.zeros(space, dtype=torch.bool)
    if region is None:
        inside[...] = True
    elif isinstance(region, slice | tuple):
        inside[region] = True
    else:
        inside = torch.as_tensor(region)
    if inside.dtype != torch.bool or inside.shape not in (space, shape) or not inside.any():
        raise UsageError(
            f"a region is a boolean mask of shape {tuple(space)} with something in it, or slices of that; got "
            f"{inside.dtype} of shape {tuple(inside.shape)}, {int(inside.sum())} inside"
        )
    return inside.expand(shape)


def _as_direction(posterior: Posterior, direction: Tensor) -> Tensor:
    """Return a direction as a batch of one."""
    start = posterior.start
    if len(start) != 1:
        raise UsageError(f"a direction is that of one signal; the batch holds {len(start)}")
    if direction.shape not in (start.shape, start.shape[1:]):
        raise UsageError(
            f"a direction has the shape of the signal, {tuple(start.shape[1:])}; got {tuple(direction.shape)}"
        )
    return direction.to(start).view_as(start)


def _counter(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return count
