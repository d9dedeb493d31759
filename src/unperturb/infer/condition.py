"""A linear observation y = A x + sigma_y n, and only a denoiser of Gaussian noise at hand: a denoise function again.

With an observation y besides the noisy x_t = x + t n, what the denoiser says, D = D(x_t, t), is no longer all there is
to know. If the clean signal given x_t were Gaussian, with mean D and covariance C, then

    E[x | x_t, y]  =  D + C Aᵀ (A C Aᵀ + sigma_y² I)⁻¹ (y − A D)

It is not Gaussian, so **every method here is approximate**: fast, for whole images, and with no claim to the modes of
the posterior. For small signals there is an exact one, `unperturb.infer.particles`. The methods differ in C:

`approximate-scalar`
    r² I, the mean squared error of the denoiser at t: no further evaluation (Zhu, Zhang, Liang, Cao, Wen, Timofte and
    Van Gool, "Denoising diffusion models for plug-and-play image restoration", 2023; exact for white Gaussian signals).
`approximate-jacobian`
    t² ∂D/∂x, by finite differences, an evaluation each time it is applied (Rozet, Andry, Lanusse and Louppe, "Learning
    diffusion priors from observations by expectation maximization", 2024; exact for Gaussian signals).

The system is solved by conjugate gradients; of A nothing is used but the function and its adjoint.

`observed_posterior` makes of it a `Posterior` for `sample`. Its mean is a best guess, not E[x | y]: a walk down the
noise levels that adds none, each answer taken for the next x_t (plug-and-play: Zhang, Li, Zuo, Zhang, Van Gool and
Timofte, "Plug-and-play image restoration with deep denoiser prior", 2021).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.derivative import product
from unperturb.infer.posterior import Posterior
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.filling import filled
from unperturb.model.level import highest
from unperturb.model.linear import Likelihood
from unperturb.model.perturbation import Gaussian
from unperturb.model.solve import conjugate_gradients, inner
from unperturb.model.spec import parse

METHODS = {"approximate-scalar": 8, "approximate-jacobian": 3}
"""All methods by name, each with its iterations of conjugate gradients. All are approximate."""

GUESS_STEPS = 20
"""Evaluations of the denoiser, or a little more, for a best guess."""

_LOWEST = 0.04
"""Share of the first noise level at which the walk to the best guess ends."""

_DOUBT = 10.0
"""How much larger than after noise the squared error of an image is taken to be on that walk, by "approximate-scalar".

A walk without noise brings its own errors along from step to step, and they are not what a network was trained on; in
closed form, of vectors, there are none. Chosen on eight crops of training images: with 1, 3, 10 and 30 the best guess
of blurred ones (1.6 pixels, noise 2/255) has 28.0, 29.3, 30.1 and 28.9 dB; of ones with half of the pixels erased and
noise of 0.05, 22.8, 26.2 and 29.3 dB with the first three.
"""

_FLOOR = 1e-2
"""Least noise of an observation, as a share of the uncertainty of what was observed: keeps the system solvable."""

Product = Callable[[Tensor], Tensor]


class ApproximatelyConditioned:
    """A denoise function for E[clean | x, y], approximately, y being a linear observation; made by `condition`.

    Attributes
    ----------
    denoise, likelihood, method
        What it was made of. A denoise function that has no `expected_error` is asked twice by "approximate-scalar".
    iterations
        Of conjugate gradients. With "approximate-jacobian" an answer takes two evaluations of the denoiser more than
        that, with "approximate-scalar" one in all.
    blind
        Noise that is taken to hide everything: at this level and above, x is not looked at, and the answer is the best
        guess. None where there is no such level.
    """

    def __init__(self, denoise: Denoise, likelihood: Likelihood, method: str, blind: float | None = None) -> None:
        if method not in METHODS:
            raise UsageError(f"there is no method {method!r}; the methods are {', '.join(METHODS)}")
        self.denoise, self.likelihood, self.method, self.blind = denoise, likelihood, method, blind
        self.iterations = METHODS[method]

    @property
    def approximate(self) -> str:
        """One sentence for reports: that, and in what, these answers are approximate."""
        return caveat(self.method)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return about E[clean | x, y].

        Parameters
        ----------
        x
            ``(batch, channel, *space)`` or ``(batch, feature)``; its batch may be a multiple of that of the
            observation, which is then taken in turn.
        sigma
            Of the noise in `x`, as the denoise function takes it.

        Returns
        -------
        Tensor
            Shape of `x`. What was observed without noise and as it is, is there bit for bit.
        """
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if self.blind is not None and bool((level >= 0.999 * self.blind).all()):
            return self.guess.to(x).repeat(len(x) // len(self.guess), *(1,) * (x.ndim - 1))
        return self._updated(x, level)

    @cached_property
    def guess(self) -> Tensor:
        """The best guess, at `GUESS_STEPS` evaluations: not the posterior mean, though it stands in its place."""
        if self.blind is None:
            raise UsageError("a best guess begins at a noise level; make the function with one")
        x = first_guess(self.likelihood, self.blind)
        doubt = _DOUBT if x.ndim > 2 and self.method == "approximate-scalar" else 1.0
        for k in range(GUESS_STEPS):
            level = self.blind * _LOWEST ** (k / (GUESS_STEPS - 1))
            x = self._updated(x, torch.tensor(level, dtype=x.dtype), doubt)
        return x

    def _updated(self, x: Tensor, level: Tensor, doubt: float = 1.0) -> Tensor:
        """Return the mean of a Gaussian of the denoiser's mean and some covariance, given the observation.

        `doubt` multiplies the covariance.
        """
        posterior = Posterior(self.denoise, x, level)
        mean = posterior.mean
        covariance = self._covariance(posterior, mean, doubt)
        likelihood = self.likelihood
        y = likelihood.repeated(x)
        gap = y - likelihood.forward(mean)
        if likelihood.kept is not None and self.method == "approximate-scalar":
            change = gap  # nothing is learned of a component but by its own observation, and from that everything
        else:
            change = covariance(likelihood.adjoint(self._solved(covariance, gap)))
        answer = mean + change
        return answer if likelihood.kept is None else torch.where(_all(likelihood.kept, y), y, answer)

    def _solved(self, covariance: Product, gap: Tensor) -> Tensor:
        """Return (A C Aᵀ + R)⁻¹ gap."""
        likelihood = self.likelihood

        def spread(v: Tensor) -> Tensor:
            return likelihood.forward(covariance(likelihood.adjoint(v)))

        first = spread(gap)
        # How uncertain what was observed is, along the gap; noise far below that is not worth the many iterations.
        most = inner(gap, first) / inner(gap, gap).clamp(min=torch.finfo(gap.dtype).tiny)
        noise = (_FLOOR**2 * most.clamp(min=0)).clamp(min=likelihood.sigma**2)
        return conjugate_gradients(lambda v: spread(v) + noise * v, gap, self.iterations, first + noise * gap)

    def _covariance(self, posterior: Posterior, mean: Tensor, doubt: float) -> Product:
        noise = posterior.spread_of_noise
        if self.method == "approximate-jacobian":
            return lambda v: doubt * noise * product(posterior, noise * v, mean=mean)
        error = doubt * self._error(posterior, mean)
        return lambda v: error * v

    def _error(self, posterior: Posterior, mean: Tensor) -> Tensor:
        """Return the mean squared error of the answer: as the denoise function knows it, or from its derivative."""
        noise, x = posterior.spread_of_noise, posterior.start
        known = getattr(self.denoise, "expected_error", None)
        error = None if known is None else known(noise, x.shape[1])
        if error is not None:
            return error
        # tr(C)/n, from one random direction (Hutchinson, 1990), always the same one.
        signs = torch.randint(2, x.shape, generator=torch.Generator().manual_seed(0)).to(x) * 2 - 1
        moved = signs * product(posterior, noise * signs, mean=mean)
        return (noise * moved).flatten(1).mean(1).clamp(min=0).view(-1, *(1,) * (x.ndim - 1))


def caveat(method: str = "approximate-scalar") -> str:
    """Return one sentence for reports: that, and in what, answers of a method are approximate."""
    covariance = "the same in every component" if method == "approximate-scalar" else "taken from its derivative"
    return (
        f"approximate ({method}): the clean signal given its noisy version is taken for Gaussian, with a "
        f"covariance that is {covariance}; draws need not follow the posterior, and the best guess is not its mean"
    )


def condition(
    denoise: Denoise, likelihood: Likelihood, *, method: str = "approximate-scalar", blind: float | None = None
) -> ApproximatelyConditioned:
    """Return a denoise function that knows of a linear observation, approximately.

    Parameters
    ----------
    denoise
        For Gaussian noise alone: a `Denoiser`, `Tiled`, or any ``denoise(x, sigma) -> mean``.
    likelihood
        What was seen.
    method
        One of `METHODS`. All are approximate, and the result says so in ``approximate``.
    blind
        Noise level that is taken to hide everything; see `observed_posterior`.

    Raises
    ------
    UsageError
        Where there is no such method.
    """
    return ApproximatelyConditioned(denoise, likelihood, method, blind)


def observed_posterior(
    denoise: Denoise,
    likelihood: Likelihood,
    sigma: float | None = None,
    *,
    method: str = "approximate-scalar",
    compute: Compute | None = None,
) -> Posterior:
    """Return what can be known of clean signals, approximately, from a linear observation.

    ``sample`` draws from it, at an evaluation of the denoiser a step, and `GUESS_STEPS` more for all draws together.
    Its ``mean`` is the best guess of a walk without noise; **neither is exact**, and ``posterior.denoise.approximate``
    says so.

    Parameters
    ----------
    denoise, likelihood, method
        As for `condition`.
    sigma
        Noise level to begin at, in the units of the values. By default the most that the denoiser was trained on, as
        its card has it.
    compute
        For signals with axes of space: device, precision, tiles.

    Raises
    ------
    UsageError
        Where there is no such method, or no level to begin at.
    """
    level = _trained_level(denoise) if sigma is None else sigma
    if not 0 < level < float("inf"):
        raise UsageError(f"a walk begins at a noise level above 0; got {level}")
    start = first_guess(likelihood, level, _offset(denoise))
    if start.ndim > 2 and not isinstance(denoise, Tiled):
        denoise = Tiled(denoise, compute)
    return Posterior(condition(denoise, likelihood, method=method, blind=level), start, level, blind=True)


def first_guess(likelihood: Likelihood, level: float, offset: float = 0.0) -> Tensor:
    """Return a signal to begin with, without a denoiser: missing pixels filled in smoothly, all else by least squares.

    Parameters
    ----------
    likelihood
        What was seen.
    level
        Typical size of signals, where the observation does not tell: least squares weigh them against its noise.
    offset
        Where they lie.
    """
    operator, y = likelihood.operator, likelihood.y
    if offset:
        there = torch.full_like(operator.adjoint(y), offset)
        return there + first_guess(replace(likelihood, y=y - operator.forward(there)), level)
    if operator.mask is not None and y.ndim > 2:
        return filled(y, operator.mask.expand(len(y), 1, *y.shape[2:]))
    ratio = max((likelihood.sigma / level) ** 2, _FLOOR**2)
    return operator.adjoint(
        conjugate_gradients(
            lambda v: operator.forward(operator.adjoint(v)) + ratio * v, y, METHODS["approximate-scalar"]
        )
    )


def _all(kept: Tensor, like: Tensor) -> Tensor:
    """Return a mask for as many items as there are."""
    return kept if len(kept) == 1 else kept.repeat(len(like) // len(kept), *(1,) * (kept.ndim - 1))


def _trained_level(denoise: Denoise) -> float:
    """Return the most noise that a denoiser was trained on."""
    inner = _within(denoise)
    spec = parse(inner.card.perturbation) if isinstance(inner, Denoiser) and inner.card.perturbation else None
    if not isinstance(spec, Gaussian):
        raise UsageError("this denoiser does not say how much noise it was trained on; state the sigma to begin at")
    assert isinstance(inner, Denoiser)
    return highest(spec.sigma) * inner.card.scale


def _offset(denoise: Denoise) -> float:
    """Return where the values of a denoiser lie."""
    inner = _within(denoise)
    return inner.card.offset if isinstance(inner, Denoiser) else 0.0


def _within(denoise: Denoise) -> Denoise:
    return denoise.denoise if isinstance(denoise, Tiled) else denoise
