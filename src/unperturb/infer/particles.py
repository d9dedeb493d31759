"""Draws from the posterior of a linear observation, exact in the limit of many particles.

Twisted sequential Monte Carlo: given y = A x + sigma_y n and a denoiser of Gaussian noise, many particles walk down the
noise levels at once. Going from x_t to x_s, each takes for the moment the clean signal for Gaussian, with the mean
D = D(x_t, t) and the covariance C = t² ∂D/∂x that the denoiser gives it. Under that Gaussian everything is known:

    p(x_s | x_t)       the step without the observation, N(D + a (x_t − D),  s² (1 − a) I + (1 − a)² C),   a = s²/t²
    q(x_s | x_t, y)    the same with D and C conditioned on y: what is drawn from
    ψ_t(x_t)           N(y; A D, A C Aᵀ + sigma_y² I), the "twist": what it says of y

and what it gets wrong is mended by weights and resampling,

    w  =  p(x_s | x_t) ψ_s(x_s)  /  ( ψ_t(x_t) q(x_s | x_t, y) )

With more particles the draws tend to the posterior under the steps p, whatever twist was used (Wu, Trippe, Naesseth,
Blei and Cunningham, "Practical and asymptotically exact conditional sampling in diffusion models", 2023, algorithm 1;
there the covariance of the twist is a number), and with shorter steps p tends to the prior of the denoiser
(`sample.ancestral`). For a Gaussian prior every weight is 1. The last step, down to no noise, needs none: there q is p
given y.

The whole derivative is taken at every step, so this is for small signals: vectors, and small patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.derivative import jacobian
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import falling_levels
from unperturb.model.denoiser import Denoise
from unperturb.model.linear import Likelihood

LARGEST = 1024
"""Most components of a signal."""


@dataclass(frozen=True, eq=False)
class ParticleDraws:
    """Draws, and what is needed to judge them.

    Attributes
    ----------
    draws
        ``(n_samples, batch, …)``, each the outcome of particles of its own.
    particles
        ``(n_samples, batch, n_particles, …)``: all that a draw was chosen from.
    weights
        ``(n_samples, batch, n_particles)``: the chance that each had.
    n_particles
        Their number for each draw.
    effective
        ``(n_samples, batch)``: the effective sample size, 1/Σw², where it was least along the walk.
    """

    draws: Tensor
    particles: Tensor
    weights: Tensor
    n_particles: int
    effective: Tensor

    @property
    def mean(self) -> Tensor:
        """About E[x | y], ``(batch, …)``: the weighted mean of all particles."""
        weights = self.weights.view(*self.weights.shape, *(1,) * (self.particles.ndim - 3))
        return (weights * self.particles).sum(2).mean(0)

    @property
    def method(self) -> str:
        """One sentence for reports."""
        mean, least = float(self.effective.mean()), float(self.effective.min())
        return (
            f"twisted sequential Monte Carlo with {self.n_particles} particles a draw, exact in the limit of many; "
            f"effective sample size {mean:.1f} on average, {least:.1f} at the least"
        )


def sample_observed(
    denoise: Denoise,
    likelihood: Likelihood,
    sigma: float,
    n_samples: int = 1,
    *,
    n_particles: int = 64,
    steps: int = 25,
    seed: int = 0,
) -> ParticleDraws:
    """Draw small signals from their posterior given a linear observation.

    Parameters
    ----------
    denoise
        For Gaussian noise alone: any ``denoise(x, sigma) -> mean``. It is evaluated ``4·components + 1`` times a step.
    likelihood
        What was seen.
    sigma
        Noise level that hides everything, and that `denoise` knows, in the units of the values: some ten times the
        distance between the most different signals. The first noisy signals are drawn as if the prior under this noise
        were Gaussian.
    n_samples
        Draws for each item of the observation.
    n_particles
        For each draw. With 1 nothing is weighed, and the draws are approximate.
    steps
        From that level to none.
    seed
        The same seed gives the same draws.

    Raises
    ------
    UsageError
        Where a number is out of range, or the signals are too large.
    """
    if min(n_samples, n_particles, steps) < 1:
        raise UsageError(
            f"the numbers of draws, particles and steps are at least 1; got {n_samples}, {n_particles}, {steps}"
        )
    if not 0 < sigma < float("inf"):
        raise UsageError(f"sigma is a finite number above 0; got {sigma}")
    like = likelihood.adjoint(likelihood.y)
    if like[0].numel() > LARGEST:
        raise UsageError(
            f"the exact method takes signals of up to {LARGEST} components, and these have {like[0].numel()}; "
            "condition is for larger ones"
        )
    levels = [sigma * level for level in falling_levels(steps)]
    group = max(1, 4_000_000 // (n_particles * like[0].numel() ** 2))
    items = []
    for item, matrix in enumerate(_as_matrices(likelihood, like)):
        problem = _Problem(denoise, like[item], *_independent(matrix, likelihood.y[item]), likelihood.sigma**2)
        runs = [
            _run(problem, levels, _Noise((seed, item), range(first, min(first + group, n_samples)), n_particles))
            for first in range(0, n_samples, group)
        ]
        items.append([torch.cat(parts) for parts in zip(*runs, strict=True)])
    draws, particles, weights, effective = (torch.stack(parts, 1) for parts in zip(*items, strict=True))
    draws, particles = (_with_what_was_seen(likelihood, found) for found in (draws[:, :, None], particles))
    return ParticleDraws(draws[:, :, 0], particles, weights, n_particles, effective)


# --- one item, many runs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Local:
    """What is taken for the law of the clean signals of all particles ``(run, particle)``, without y and given y."""

    mean: Tensor
    covariance: Tensor
    mean_given: Tensor
    covariance_given: Tensor
    log_twist: Tensor

    def of(self, index: Tensor) -> "_Local":
        """Return those of some particles of each run, ``(run, particle)``."""
        run = torch.arange(len(index))[:, None]
        return _Local(*(values[run, index] for values in vars(self).values()))


@dataclass(frozen=True, eq=False)
class _Problem:
    """One observation, ``y = matrix · x + noise`` with independent rows, and how to ask the denoiser."""

    denoise: Denoise
    like: Tensor
    matrix: Tensor
    y: Tensor
    variance: float

    def local(self, x: Tensor, level: float) -> _Local:
        """Ask the denoiser about noisy signals ``(run, particle, component)``."""
        posterior = Posterior(self.denoise, x.reshape(-1, *self.like.shape).to(self.like), level)
        mean = posterior.mean.double().reshape(x.shape)
        covariance = _positive(level**2 * jacobian(posterior).double().reshape(*x.shape, x.shape[-1]))
        gap = self.y - mean @ self.matrix.T
        across = covariance @ self.matrix.T
        spread = self.matrix @ across + self.variance * torch.eye(len(self.y), dtype=x.dtype)
        factor = torch.linalg.cholesky(spread)
        gain = torch.cholesky_solve(across.transpose(-1, -2), factor).transpose(-1, -2)
        given = covariance - gain @ across.transpose(-1, -2)
        given = (given + given.transpose(-1, -2)) / 2
        return _Local(mean, covariance, mean + (gain @ gap[..., None])[..., 0], given, _log_normal(gap, factor))


@dataclass(frozen=True)
class _Noise:
    """Randomness that depends on the seed, the item, the draw, the particle and the step alone."""

    key: tuple[int, int]
    draws: range
    n_particles: int

    def normal(self, step: int, size: int) -> Tensor:
        """Return ``(run, particle, size)``."""
        keys = [(*self.key, draw, particle, step) for draw in self.draws for particle in range(self.n_particles)]
        return keyed_normal(keys, (size,), dtype=torch.float64).view(len(self.draws), self.n_particles, size)

    def uniform(self, step: int) -> Tensor:
        """Return ``(run, 1)``, between 0 and 1."""
        keys = [(*self.key, draw, _APART, step) for draw in self.draws]
        return torch.special.ndtr(keyed_normal(keys, (1,), dtype=torch.float64))


_APART = 2**40
"""Number of no particle, for what concerns all particles of a draw."""


def _run(problem: _Problem, levels: Sequence[float], noise: _Noise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Walk down once for each draw: the draw, all particles, their weights, the least effective sample size."""
    x = problem.like.double().new_zeros(len(noise.draws), noise.n_particles, problem.like.numel())
    x = problem.local(x, levels[0]).mean
    local = problem.local(x, levels[0])
    log_weight = x.new_zeros(x.shape[:2])
    effective = x.new_full((len(x),), noise.n_particles)
    # Before the first level there is no noisy signal: a = 0.
    for step, (level, below) in enumerate(pairwise([math.inf, *levels[:-1]])):
        x, log_ratio = _moved(local, x, (below / level) ** 2, below, noise.normal(step, x.shape[-1]))
        after = problem.local(x, below)
        log_weight = log_weight + log_ratio + after.log_twist - local.log_twist
        local = after
        weights = log_weight.softmax(1)
        size = 1 / weights.square().sum(1)
        effective = effective.minimum(size)
        poor = (size < noise.n_particles / 2)[:, None]
        index = torch.where(poor, _chosen(weights, noise.uniform(step), noise.n_particles), torch.arange(x.shape[1]))
        x, local = x[torch.arange(len(x))[:, None], index], local.of(index)
        log_weight = torch.where(poor, 0.0, log_weight)
    end = len(levels)
    x = local.mean_given + _correlated(local.covariance_given, noise.normal(end, x.shape[-1]))
    weights = log_weight.softmax(1)
    one = _chosen(weights, noise.uniform(end), 1)
    shape = (len(x), noise.n_particles, *problem.like.shape)
    particles = x.to(problem.like).view(shape)
    return particles[torch.arange(len(x)), one[:, 0]], particles, weights, effective


def _moved(local: _Local, x: Tensor, a: float, level: float, z: Tensor) -> tuple[Tensor, Tensor]:
    """Draw x_s from q, and return log p(x_s) − log q(x_s) as well."""
    eye = level**2 * (1 - a) * torch.eye(x.shape[-1], dtype=x.dtype)
    free, given = (
        torch.linalg.cholesky(eye + (1 - a) ** 2 * covariance)
        for covariance in (local.covariance, local.covariance_given)
    )
    new = (1 - a) * local.mean_given + a * x + (given @ z[..., None])[..., 0]
    return new, _log_normal(new - (1 - a) * local.mean - a * x, free) - _log_normal(
        (given @ z[..., None])[..., 0], given
    )


def _chosen(weights: Tensor, share: Tensor, count: int) -> Tensor:
    """Choose `count` particles of each run by weight, evenly spread: systematic resampling (Kitagawa, 1996)."""
    places = (torch.arange(count, dtype=weights.dtype) + share) / count
    return torch.searchsorted(weights.cumsum(1), places).clamp(max=weights.shape[1] - 1)


def _log_normal(gap: Tensor, factor: Tensor) -> Tensor:
    """Return log N(gap; 0, L Lᵀ), but for a constant that is the same for all."""
    scaled = torch.linalg.solve_triangular(factor, gap[..., None], upper=False)[..., 0]
    return -0.5 * scaled.square().sum(-1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _positive(matrix: Tensor) -> Tensor:
    """Return the nearest symmetric matrix with no eigenvalue below a millionth of a millionth of the largest."""
    values, vectors = torch.linalg.eigh((matrix + matrix.transpose(-1, -2)) / 2)
    least = (1e-12 * values.amax(-1, keepdim=True)).clamp(min=torch.finfo(values.dtype).tiny)
    return (vectors * values.maximum(least)[..., None, :]) @ vectors.transpose(-1, -2)


def _correlated(covariance: Tensor, z: Tensor) -> Tensor:
    """Return a draw of N(0, S), made of a standard normal one."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors @ (values.clamp(min=0).sqrt() * z)[..., None])[..., 0]


# --- the observation as a matrix --------------------------------------------------------------------------------------


def _as_matrices(likelihood: Likelihood, like: Tensor) -> Tensor:
    """Return A of each item, ``(batch, observed, component)``."""
    columns = []
    for index in range(like[0].numel()):
        unit = torch.zeros_like(like).flatten(1)
        unit[:, index] = 1
        columns.append(likelihood.forward(unit.view_as(like)).flatten(1))
    return torch.stack(columns, -1).double()


def _independent(matrix: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same observation in rows that do not depend on each other: white noise stays white in Uᵀ y."""
    left, size, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = size > 1e-6 * size[:1].clamp(min=torch.finfo(size.dtype).tiny)
    return size[kept, None] * right[kept], left[:, kept].T @ y.double().flatten()


def _with_what_was_seen(likelihood: Likelihood, found: Tensor) -> Tensor:
    """Put what was observed as it is back, bit for bit, into signals ``(n_samples, batch, n, …)``."""
    kept = likelihood.kept
    return found if kept is None else torch.where(kept[:, None], likelihood.y[:, None], found)
