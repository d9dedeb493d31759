"""One restoration problem: a denoise function, a place to start, and the noise level there.

    Posterior(denoise, start, sigma)        p(x | start),   start = x + sigma · n

Its mean is one call, its draws are a walk from ``start`` down to no noise (`sample`), its covariance is the derivative
of the denoise function (`uncertainty`). The three never know what `denoise` is: a network, a closed form, a network
that was shown the rest of the observation.

Of anything but noise, what was seen goes into the denoise function, and the start says nothing (`blind_posterior`).

`unperturb.infer.observe` makes one of an array as people have them.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.denoiser import Conditioned, Denoise
from unperturb.model.given import BLIND, ERRORS


def onset_of(start: Tensor) -> float:
    """Return the share of the noise that hides a signal at which it shows first.

    Of images three times the largest error of a first answer: around what is missing much is known of it. What happens
    within a gap of a recording may show nowhere else, and be as large as anything in it: all noise counts there.

    Parameters
    ----------
    start
        ``(batch, channel, *space)``.
    """
    return 1.0 if start.ndim == 3 else 3 * ERRORS[1] / BLIND


@dataclass(frozen=True, eq=False)
class Posterior:
    """What can be known of clean signals, given noisy ones.

    Attributes
    ----------
    denoise
        Any ``denoise(x, sigma) -> mean``.
    start
        What was seen: ``(batch, channel, *space)``, or ``(batch, feature)``.
    sigma
        Standard deviation of the Gaussian noise in `start`, in its units: a number, or a tensor that `denoise` takes,
        such as ``(batch,)`` or a map ``(batch or 1, 1, *space)``.
    blind
        Whether that noise hides everything, so that the start says nothing: what was seen is within `denoise`. Every
        draw then begins with noise of its own.
    onset
        Share of that noise at which the signal first shows, where the start says nothing; draws go there at once.
    counted
        Of counts, the noise of stabilised values, where black is 0 and the brightest is 1; None of anything else.
    """

    denoise: Denoise
    start: Tensor
    sigma: Tensor | float
    blind: bool = False
    onset: float = 1.0
    counted: float | None = None

    def at(self, x: Tensor, level: float) -> Tensor:
        """Return E[clean | x] where the noise in `x` is `level` times that of the start: `x` itself where that is 0."""
        noise = self.level_map * level
        return self.denoise(x, noise) if bool(noise.any()) else x

    @cached_property
    def mean(self) -> Tensor:
        """The best guess E[clean | start], of the shape of `start`; that itself where it has no noise."""
        return self.at(self.start, 1.0)

    @property
    def unit(self) -> float:
        """What 1 is of the values that the network within works in, if there is one."""
        return float(getattr(self.denoise, "unit", 1.0))

    @property
    def level_map(self) -> Tensor:
        """`sigma` as a tensor of the type of `start`."""
        return torch.as_tensor(self.sigma, dtype=self.start.dtype, device=self.start.device)

    @property
    def spread_of_noise(self) -> Tensor:
        """`sigma` in a shape that broadcasts to `start`."""
        level = self.level_map
        return level.view(-1, *(1,) * (self.start.ndim - 1)) if level.ndim == 1 else level

    def repeated(self, times: int) -> "Posterior":
        """Return the same problem `times` times over: the batch is repeated as a whole."""
        level = self.level_map
        if level.ndim > 0 and len(level) > 1:
            level = level.repeat(times, *(1,) * (level.ndim - 1))
        return replace(self, start=self.start.repeat(times, *(1,) * (self.start.ndim - 1)), sigma=level)


def blind_posterior(conditioned: Conditioned, compute: Compute | None = None) -> Posterior:
    """Return what can be known of clean signals from an observation alone.

    Of images with erased pixels a first answer is asked for at once, which the function is shown from then on.

    Parameters
    ----------
    conditioned
        A conditional denoiser that was bound to the observation: ``denoiser.given(y, mask)``.
    compute
        For signals with axes of space: device, precision, tiles.
    """
    start = torch.zeros_like(conditioned.seen.values)
    conditioned = conditioned.looking_again(lambda first: Tiled(first, compute))
    if start.ndim == 2:
        return Posterior(conditioned, start, conditioned.blind, blind=True)
    return Posterior(Tiled(conditioned, compute), start, conditioned.blind, blind=True, onset=onset_of(start))
