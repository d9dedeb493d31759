"""Denoise functions in closed form: the oracle that everything else is tested against, and a way to see the theory.

For a mixture of Gaussians, x ~ Σ_k w_k N(m_k, S_k), all that a network has to learn can be written down. With noise of
standard deviation σ, y = x + σ n, and C_k = S_k + σ² I,

    r_k(y)  ∝  w_k N(y; m_k, C_k)                                  which component it was
    p(x|y)  =  Σ_k r_k N(m_k + S_k C_k⁻¹ (y − m_k),  σ² S_k C_k⁻¹)    again a mixture
    D(y, σ) =  E[x|y]  =  y + σ² ∇ log p_σ(y)                        Tweedie's formula (Robbins, 1956; Miyasawa, 1961)
    Cov[x|y] = σ² ∂D/∂y

A single Gaussian is a mixture of one. A linear observation y = A x + noise of covariance R is served likewise.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.denoiser import interpolated


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of Gaussians, and a denoise function for it: ``mixture(x, sigma) -> E[clean | x]``.

    Attributes
    ----------
    weights
        ``(component,)``, positive; their sum is 1.
    means
        ``(component, feature)``.
    covariances
        ``(component, feature, feature)``, symmetric, no eigenvalue negative.

    Raises
    ------
    UsageError
        Where the shapes do not go together, or the weights are no probabilities.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __post_init__(self) -> None:
        n, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        if n == 0 or self.weights.shape != (n,) or self.covariances.shape != (n, d, d):
            raise UsageError(
                "a mixture has weights (component,), means (component, feature) and covariances (component, feature, "
                f"feature); got {tuple(self.weights.shape)}, {tuple(self.means.shape)}, {tuple(self.covariances.shape)}"
            )
        if not ((self.weights > 0).all() and math.isclose(float(self.weights.sum()), 1, abs_tol=1e-5)):
            raise UsageError("the weights of a mixture are positive, and their sum is 1")

    @classmethod
    def isotropic(cls, weights: Tensor, means: Tensor, sd: float) -> "GaussianMixture":
        """Return a mixture of round components of one standard deviation."""
        n, d = means.shape
        return cls(weights, means, (sd**2 * torch.eye(d, dtype=means.dtype)).expand(n, d, d).clone())

    # --- the denoise function -----------------------------------------------------------------------------------------

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the posterior mean E[clean | x].

        Parameters
        ----------
        x
            ``(batch, feature)``.
        sigma
            Standard deviation of the noise in `x`: a number, or ``(batch,)``.
        """
        share, centres, _ = self._components(x, sigma)
        return torch.einsum("bk,bkd->bd", share, centres)

    def covariance(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the posterior covariance, ``(batch, feature, feature)``."""
        share, centres, within = self._components(x, sigma)
        mean = torch.einsum("bk,bkd->bd", share, centres)
        away = centres - mean[:, None]
        return torch.einsum("bk,bkij->bij", share, within) + torch.einsum("bk,bki,bkj->bij", share, away, away)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return ∇ log p_σ(x), the gradient of the noisy density itself; not by way of the mean."""
        gaps, shapes = self._gaps(x, sigma)
        pull = -torch.einsum("bkij,bkj->bki", torch.cholesky_inverse(shapes).expand(*gaps.shape, gaps.shape[-1]), gaps)
        return torch.einsum("bk,bkd->bd", self._shares(gaps, shapes), pull)

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Return log p_σ(x), ``(batch,)``."""
        gaps, shapes = self._gaps(x, sigma)
        return torch.logsumexp(self._log_joint(gaps, shapes), 1)

    def expected_error(self, sigma: Tensor, channels: int = 1) -> Tensor:  # noqa: ARG002 (a denoiser's signature)
        """Return the mean squared error of the best guess, a feature: the trace of the covariance on average over x.

        Interpolated between levels at which it was averaged over 4096 draws of always the same noise.
        """
        levels, ratios = self._errors
        return (interpolated(sigma.double().clamp(min=1e-30).log(), levels, ratios).exp() * sigma**2).to(sigma)

    # --- posteriors and draws -----------------------------------------------------------------------------------------

    def posterior(self, y: Tensor, sigma: float) -> "GaussianMixture":
        """Return p(x | y) for one `y`, ``(feature,)``, seen with noise of standard deviation `sigma`."""
        eye = torch.eye(self.means.shape[1], dtype=self.means.dtype)
        return self.observed(eye, y, sigma**2 * eye)

    def observed(self, operator: Tensor, y: Tensor, noise: Tensor) -> "GaussianMixture":
        """Return p(x | y) for a linear observation, y = A x + Gaussian noise.

        Parameters
        ----------
        operator
            A, ``(observed, feature)``.
        y
            ``(observed,)``.
        noise
            Covariance of the noise, ``(observed, observed)``; may be zero where A S_k Aᵀ is not singular.
        """
        gain, log_joint = [], []
        for mean, covariance in zip(self.means, self.covariances, strict=True):
            shape = torch.linalg.cholesky(operator @ covariance @ operator.T + noise)
            gain.append(torch.cholesky_solve(operator @ covariance, shape).T)
            log_joint.append(_log_normal(y - operator @ mean, shape))
        gains = torch.stack(gain)
        weights = torch.softmax(self.weights.log() + torch.stack(log_joint), 0)
        kept = weights > torch.finfo(weights.dtype).tiny  # a component that cannot have been it
        means = self.means + torch.einsum("kfo,ko->kf", gains, y - self.means @ operator.T)
        covariances = self.covariances - gains @ operator @ self.covariances
        covariances = (covariances + covariances.transpose(1, 2)) / 2
        return GaussianMixture(weights[kept] / weights[kept].sum(), means[kept], covariances[kept])

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, feature)`` independent points."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.means[which] + _correlated(self.covariances[which], generator)

    def sample_posterior(self, y: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        """Draw one point of p(x | y) for each `y`, ``(batch, feature)``."""
        share, centres, within = self._components(y, sigma)
        which = torch.multinomial(share, 1, generator=generator)[:, 0]
        row = torch.arange(len(y))
        return centres[row, which] + _correlated(within[row, which], generator)

    def along(self, direction: Tensor) -> "GaussianMixture":
        """Return the distribution of ``x · direction``, a mixture in one dimension."""
        means = self.means @ direction
        variances = torch.einsum("i,kij,j->k", direction, self.covariances, direction)
        return GaussianMixture(self.weights, means[:, None], variances[:, None, None])

    # --- what all of these need ---------------------------------------------------------------------------------------

    def _components(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Return share ``(batch, component)``, mean and covariance of each component of the posterior."""
        gaps, shapes = self._gaps(x, sigma)
        means, covariances = self.means.to(x), self.covariances.to(x)
        n, d = means.shape
        gain = torch.cholesky_solve(covariances.expand(*shapes.shape), shapes).transpose(-1, -2)  # S C⁻¹
        gain = gain.expand(len(x), n, d, d)
        centres = means + torch.einsum("bkij,bkj->bki", gain, gaps)
        variance = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1).square()
        within = (variance * gain + (variance * gain).transpose(-1, -2)) / 2
        return self._shares(gaps, shapes), centres, within

    def _gaps(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return y − m_k ``(batch, component, feature)``, and the Cholesky factors of C_k."""
        d = self.means.shape[1]
        if x.ndim != 2 or x.shape[1] != d:
            raise UsageError(f"this mixture takes vectors (batch, {d}); got shape {tuple(x.shape)}")
        variance = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1).square()
        wide = self.covariances.to(x) + variance * torch.eye(d, dtype=x.dtype)
        return x[:, None] - self.means.to(x), torch.linalg.cholesky(wide)

    def _log_joint(self, gaps: Tensor, shapes: Tensor) -> Tensor:
        return self.weights.to(gaps).log() + _log_normal(gaps, shapes)

    def _shares(self, gaps: Tensor, shapes: Tensor) -> Tensor:
        return torch.softmax(self._log_joint(gaps, shapes), 1)

    @cached_property
    def _errors(self) -> tuple[Tensor, Tensor]:
        """Levels and mean squared error over their square, both as logarithms."""
        generator = torch.Generator().manual_seed(0)
        clean = self.sample(4096, generator).double()
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        scale = float(clean.std())
        levels = scale * torch.logspace(-3, 3, 61, dtype=torch.float64)
        wide = GaussianMixture(self.weights.double(), self.means.double(), self.covariances.double())
        errors = [
            wide.covariance(clean + level * noise, level).diagonal(dim1=1, dim2=2).mean() / level**2 for level in levels
        ]
        return levels.log(), torch.stack(errors).clamp(min=1e-30).log()


@dataclass(frozen=True, eq=False)
class Empirical:
    """A cloud of points, each as likely as any other, and a denoise function for it: the exact one.

    The noisy density is a mixture with one round component of width σ at each point, so that

        P(x = x_i | y)  ∝  exp(−‖y − x_i‖² / 2σ²)        D(y, σ) = Σ_i P(x_i | y) x_i

    (Karras, Aittala, Aila and Laine, "Elucidating the design space of diffusion-based generative models", 2022,
    appendix B.3). It stands for a distribution of which there is no formula but any number of draws, down to levels of
    noise about as small as the distance between neighbours.

    Attributes
    ----------
    points
        ``(point, feature)``.

    Raises
    ------
    UsageError
        Where that is not their shape.
    """

    points: Tensor

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or len(self.points) < 1:
            raise UsageError(f"points are (point, feature), at least one; got {tuple(self.points.shape)}")

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the posterior mean E[clean | x] for `x`, ``(batch, feature)``; sigma is one, or ``(batch,)``."""
        return self.shares(x, sigma) @ self.points.to(x)

    def shares(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return which point it was: probabilities, ``(batch, point)``."""
        points = self.points.to(x)
        if x.ndim != 2 or x.shape[1] != points.shape[1]:
            raise UsageError(f"this cloud takes vectors (batch, {points.shape[1]}); got shape {tuple(x.shape)}")
        # Not by way of x², p² and x·p, whose difference would lose what a small sigma asks for.
        gaps = torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist")
        sigma = (
            torch.as_tensor(sigma, dtype=x.dtype).expand(len(x))[:, None].clamp(min=torch.finfo(x.dtype).tiny ** 0.25)
        )
        return torch.softmax(-0.5 * (gaps / sigma).square(), 1)

    def covariance(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the posterior covariance, ``(batch, feature, feature)``."""
        shares, points = self.shares(x, sigma), self.points.to(x)
        mean = shares @ points
        second = torch.einsum("bp,pi,pj->bij", shares, points, points)
        return second - mean[:, :, None] * mean[:, None, :]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, feature)`` independent points."""
        return self.points[torch.randint(len(self.points), (n,), generator=generator)]

    def sample_posterior(self, y: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        """Draw one point of p(x | y) for each `y`, ``(batch, feature)``."""
        which = torch.multinomial(self.shares(y, sigma), 1, generator=generator)[:, 0]
        return self.points.to(y)[which]


def _log_normal(gaps: Tensor, shapes: Tensor) -> Tensor:
    """Return log N(gap; 0, L Lᵀ) over the last axis."""
    eye = torch.eye(gaps.shape[-1], dtype=gaps.dtype)
    inverse = torch.linalg.solve_triangular(shapes, eye.expand_as(shapes), upper=False)
    scaled = (inverse @ gaps[..., None])[..., 0]
    size = shapes.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * scaled.square().sum(-1) - size - 0.5 * gaps.shape[-1] * math.log(2 * math.pi)


def _correlated(covariances: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one N(0, S) for each S ``(batch, feature, feature)``, which may be singular."""
    values, vectors = torch.linalg.eigh(covariances)
    z = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return torch.einsum("bij,bj->bi", vectors, values.clamp(min=0).sqrt() * z)
