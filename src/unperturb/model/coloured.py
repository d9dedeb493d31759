"""Coloured noise: Gaussian, but not white; neighbours have much of it in common.

Drift of a baseline, movement of an electrode, rumble, haze and blotches are strongest where they change slowly. Their
power falls with the frequency f (cycles a pixel, Euclidean over all axes of space) as

    S(f)  ∝  (f² + 1 / length²)^(−exponent / 2)

which is flat for waves longer than `length`, and there falls as 1/f^exponent. Exponent 0 is white noise; 1 is pink; 2
in one dimension is the Ornstein–Uhlenbeck process, whose covariance is σ² exp(−2π |t| / length).

White noise is filtered in the Fourier domain (Timmer and König, "On generating power law noise", 1995), on a grid that
is longer than the signal, so that its ends do not meet.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from unperturb.model.level import Level, Limits, draw, highest
from unperturb.model.perturbation import Perturbed, Process, Strength, per_item

Exponent = Annotated[Level, Limits(0, 6)]
Period = Annotated[Level, Limits(1, 10**5)]

APART = 2
"""Lengths by which the grid is longer than the signal."""


@dataclass(frozen=True)
class Coloured(Process):
    """Additive Gaussian noise that is not white: mean x, variance sigma² everywhere, power falling as 1/f^exponent.

    `length` is the period in pixels above which waves grow no further. Channels have noise of their own.
    """

    name: ClassVar[str] = "coloured"
    space: ClassVar[tuple[int, int]] = (1, 3)
    sigma: Strength
    exponent: Exponent
    length: Period = 100

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        if not len(clean):
            return Perturbed(clean.clone())
        sigma, exponent, length = (
            per_item(draw(level, clean.float(), generator), clean) for level in (self.sigma, self.exponent, self.length)
        )
        space = clean.shape[2:]
        grid = [side + round(APART * highest(self.length)) for side in space]
        white = torch.randn(*clean.shape[:2], *grid, generator=generator, device=generator.device).to(clean.device)
        square, count = _frequencies(grid, white)
        # Relative to the corner, so that the power of long waves is 1 and nothing overflows.
        power = (1 + square * length.square()) ** (-exponent / 2)
        axes = tuple(range(2, power.ndim))
        power = power / (power * count).sum(axes, keepdim=True) * count.sum()
        waves = torch.fft.rfftn(white, dim=axes) * power.sqrt()
        noise = torch.fft.irfftn(waves, s=grid, dim=axes)[(..., *(slice(side) for side in space))]
        return Perturbed((clean + sigma * noise).to(clean))


def _frequencies(grid: list[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return of a real Fourier transform the square of every frequency, and for how many of all it stands.

    Both have the shape of the grid, but that the last axis is halved; the second broadcasts.
    """
    *outer, last = grid
    square = torch.fft.rfftfreq(last, device=like.device).square()
    count = torch.full_like(square, 2.0)
    count[0] = 1
    if last % 2 == 0:
        count[-1] = 1
    for side in reversed(outer):
        square = torch.fft.fftfreq(side, device=like.device).square().view(-1, *(1,) * square.ndim) + square
    return square, count.expand_as(square)
