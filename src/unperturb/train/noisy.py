"""Learning from noisy signals alone: losses whose mean over the noise is that of learning from the clean ones.

A recording is y = x + σ n, with σ known at every place, and nobody has the clean x. For any φ that has no part of the
same noise in it, and with squares and products meaned over all components:

    noise2noise     (φ(y) − y′)²                                   = (φ(y) − x)² + σ²          y′: a second shot
    recorrupted     (φ(y + α σ z) − (y − σ z / α))²                = (φ(y + α σ z) − x)² + (1 + 1/α²) σ²
    sure            (φ(y) − y)² − σ² + 2 σ² ∂φ/∂y                  = (φ(y) − x)²
    unsure          (φ(y) − y)² (1 + d²) / (1 − d)²                = (φ(y) − x)² + σ²,  if d = mean ∂φ/∂y = 0
    neighbours      (φ(g y) − g′ y)²,  g, g′: neighbours, apart    ≈ (φ(g y) − g x)² + σ²
    blind-spot      (φ(y without pixel i)ᵢ − yᵢ)²                  = (φ(y without pixel i)ᵢ − xᵢ)² + σ²

on average over n and z, two independent standard normal draws. The first is of pairs. The second makes a pair out of
one recording: the noises of its two halves are uncorrelated, and Gaussian, so independent. For the third φ is asked at
y ± s σ z, which gives the derivative along z as well. Where neighbours have noise in common none of the last two is
true; where it is not Gaussian, none of the three before.

Noise of counting is not Gaussian, and how strong it is depends on the x that nobody has. Of it there are forms of their
own, which need gain, offset and read noise alone (`model.stabilise.Counting`):

    recorrupted     σ z becomes what parts the counts themselves into two: thinning
    sure            σ² becomes gain · (y − offset) + read², which is unbiased; exact up to the first order in the gain

The fourth is Stein's estimate where σ is not known: where an answer does not move with the noise, as a whole, its
distance to what was seen is its error and σ². Others count as what they are without that part: φ − y over 1 − d, as in
generalised cross-validation. The noise need be known but for a factor.

Neighbours differ in signal as well, and the difference would be learned: what the denoiser itself makes of it, g φ(y) −
g′ φ(y), is taken off, by a share of `TRUST`.

Sources: Lehtinen et al., "Noise2Noise", ICML 2018; Pang, Zheng, Quan and Ji, "Recorrupted-to-Recorrupted", CVPR 2021,
and for thinning Monroy, Bacca and Tachella, "Generalized recorrupted-to-recorrupted", CVPR 2025; Stein, "Estimation of
the mean of a multivariate normal distribution", 1981, with the probe of Ramani, Blu and Unser, "Monte-Carlo SURE", IEEE
TIP 2008; for unknown σ Tachella, Davies and Jacques, "UNSURE", ICLR 2025, with a multiplier; for counts Le Montagner,
Angelini and Olivo-Marin, "An unbiased risk estimator for image denoising in the presence of mixed Poisson-Gaussian
noise", IEEE TIP 2014; Huang, Li, Jia, Lu and Liu, "Neighbor2Neighbor", CVPR 2021; Krull, Buchholz and Jug,
"Noise2Void", CVPR 2019.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.stabilise import Counting
from unperturb.train.objective import squared_error

ALPHA = 0.5
"""How much of the noise `recorrupted` adds to what a denoiser sees."""

STEP, STRIDE = 0.2, 0.35
"""Of the probe along which is differentiated, to both sides, in units of the noise: to estimate an error, and to learn.
A network is made of planes: shorter steps tell of the one that they stay on, and teach more slowly; longer ones show
more noise than there is."""

SHARE, STEEP = 0.9, 100.0
"""The most of the noise that `unsure` takes for going with it, beyond which hardly anything would be left to tell by;
and how much its loss rises with what goes beyond. Networks begin with what they were shown, which is all of it."""

TRUST = 2 / 3
"""Share of the difference of neighbours that is taken off: γ / (1 + γ) with γ = 2."""

BLIND = 0.02
"""Share of the pixels that `blind_spot` hides at a time."""

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Noisy:
    """Noisy signals, and all that a loss needs to draw.

    Attributes
    ----------
    values
        ``(batch, channel, *space)``.
    sigma
        ``(batch, 1, *space)``, the standard deviation of their noise.
    normal
        Standard normal, of the shape of the values.
    uniform
        Between 0 and 1, ``(batch, 1, *space)``.
    more
        Noise as strong as theirs, of the shape of the values: what `recorrupted` makes two of one by.
    mirrored
        Whether it is as likely with the other sign.
    variance
        That of the noise, as `sure` takes it: ``(batch, 1, *space)`` or the shape of the values.
    again
        Second shots of the same, or None.
    """

    values: Tensor
    sigma: Tensor
    normal: Tensor
    uniform: Tensor
    more: Tensor
    variance: Tensor
    again: Tensor | None = None
    mirrored: bool = True

    @classmethod
    def of(
        cls,
        values: Tensor,
        sigma: Tensor,
        generator: torch.Generator,
        again: Tensor | None = None,
        counting: Counting | None = None,
    ) -> "Noisy":
        """Draw what is random, on the device of the signals; a sigma that is a number or ``(batch,)`` is spread out.

        With `counting` noise is that of counting, and `sigma` what a denoiser is told of it.
        """
        shape = (len(values), 1, *values.shape[2:])
        sigma = (sigma.view(-1, *(1,) * (values.ndim - 1)) if sigma.ndim < 2 else sigma).expand(shape)
        normal = torch.randn(values.shape, generator=generator, dtype=values.dtype, device=values.device)
        uniform = torch.rand(shape, generator=generator, dtype=values.dtype, device=values.device)
        if counting is None:
            return cls(values, sigma, normal, uniform, sigma * normal, sigma.square(), again)
        more = counting.parted(values, 1 / (1 + ALPHA**2), normal, generator)
        return cls(values, sigma, normal, uniform, more, counting.unbiased_variance(values), again, mirrored=False)

    def to(self, device: torch.device) -> "Noisy":
        """Return it on a device."""
        moved: dict[str, Any] = {name: part.to(device) for name, part in self._tensors().items()}
        return replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor]:
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: part for name, part in found.items() if isinstance(part, Tensor)}

    @property
    def level(self) -> Tensor:
        """The root mean square of the noise of every signal, ``(batch,)``: what its loss is measured in."""
        return self.sigma.square().flatten(1).mean(1).sqrt()


def together(parts: Sequence[Noisy]) -> Noisy:
    """Return several batches of one shape as one."""
    columns = [part._tensors() for part in parts]
    joined: dict[str, Any] = {name: torch.cat([column[name] for column in columns]) for name in columns[0]}
    return replace(parts[0], **joined)


Loss = Callable[[Denoise, Noisy], Tensor]
"""``loss(denoise, noisy) -> (batch,)``, in units of `squared_error`: divided by σ² and a little."""


def noise2noise(denoise: Denoise, noisy: Noisy) -> Tensor:
    """Return the error against a second shot of the same."""
    assert noisy.again is not None
    return squared_error(denoise(noisy.values, noisy.sigma).float(), noisy.again, noisy.level)


def recorrupted(denoise: Denoise, noisy: Noisy) -> Tensor:
    """Return the error of what sees more noise against what has noise of its own.

    The mean of both signs, where the other is as likely: most of what the target's noise does to the gradient goes out
    of it.
    """
    drawn = (noisy.more, -noisy.more) if noisy.mirrored else (noisy.more,)
    errors = [
        squared_error(
            denoise(noisy.values + ALPHA * more, noisy.sigma * (1 + ALPHA**2) ** 0.5).float(),
            noisy.values - more / ALPHA,
            noisy.level,
        )
        for more in drawn
    ]
    return torch.stack(errors).mean(0)


def sure(denoise: Denoise, noisy: Noisy) -> Tensor:
    """Return Stein's unbiased estimate of the squared error, the divergence along one random probe.

    What is judged are two answers, to some of the probe more and less: of these it is unbiased, however long the step,
    where noise is Gaussian.
    An answer to what was seen itself, beside a divergence from elsewhere, could be told apart and kept. Each is judged
    by itself, which keeps down what an answer makes of noise: their mean teaches less well (`steins_estimate`).
    """
    answers, along = _moved(denoise, noisy, STRIDE, noisy.sigma * (1 + STRIDE**2) ** 0.5)
    far = torch.stack([(answer - noisy.values).square() for answer in answers]).mean(0)
    return _mean(far - noisy.variance + 2 * along) * _unit(noisy)


def steins_estimate(denoise: Denoise, noisy: Noisy) -> tuple[Tensor, Tensor]:
    """Return Stein's unbiased estimate of the squared error of the answer to what was seen, in two parts to be added.

    The distance to what was seen, and what goes with the strength of the noise: ``(batch,)``, both of the mean of two
    answers close by.
    """
    answers, along = _moved(denoise, noisy, STEP, noisy.sigma)
    return _mean((sum(answers) / 2 - noisy.values).square()), _mean(2 * along - noisy.variance)


def unsure(denoise: Denoise, noisy: Noisy) -> Tensor:
    """Return the distance to what was seen, of the answer without what goes with the noise as a whole."""
    answers, along = _moved(denoise, noisy, STEP, noisy.sigma)
    with_noise = _mean(along) / noisy.level.square().clamp(min=1e-12)
    share = with_noise.clamp(-SHARE, SHARE)
    apart = _mean((sum(answers) / 2 - noisy.values).square()) * (1 + share.square()) / (1 - share).square()
    return apart * _unit(noisy) + STEEP * (with_noise - share).abs()


def _moved(denoise: Denoise, noisy: Noisy, length: float, level: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return answers ahead and back along a random probe, and σ² ∂φ/∂y of every component, of their mean."""
    probe = noisy.sigma * noisy.normal
    with torch.autocast(probe.device.type, enabled=False):  # the step is finer than half precision tells
        ahead, back = (denoise(noisy.values + step * probe, level) for step in (length, -length))
    along = probe * (ahead - back) / (2 * length)
    return [ahead, back], along * (noisy.variance / noisy.sigma.square().clamp(min=1e-12))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _unit(noisy: Noisy) -> Tensor:
    """Return what squares are multiplied by to be in units of `squared_error`, ``(batch,)``."""
    one = torch.ones_like(noisy.sigma)
    return squared_error(one, torch.zeros_like(one), noisy.level)


def neighbours(denoise: Denoise, noisy: Noisy) -> Tensor:
    """Return the error of one of two neighbours against the other, in images of half the size; of images.

    The mean over all four of 2 × 2 pixels, each against the one that it is a pair with.
    """
    first, second = _two_of_four(noisy.uniform)
    with torch.no_grad():
        whole = denoise(noisy.values, noisy.sigma).to(noisy.values)
    errors = []
    for one, two in ((first, second), (second, first), (3 - second, 3 - first), (3 - first, 3 - second)):
        taken, sigma = _picked(noisy.values, one), _picked(noisy.sigma, one)
        differ = _picked(whole, one) - _picked(whole, two)
        against = _picked(noisy.values, two) + TRUST * differ
        errors.append(squared_error(denoise(taken, sigma).float(), against, noisy.level))
    return torch.stack(errors).mean(0)


def blind_spot(denoise: Denoise, noisy: Noisy) -> Tensor:
    """Return the error at pixels that were hidden, each behind the value of one around it; of images."""
    hidden = noisy.uniform < BLIND
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    which = (noisy.uniform / BLIND * len(moves)).long()
    seen = noisy.values
    for number, move in enumerate(moves):
        seen = torch.where(hidden & (which == number), noisy.values.roll(move, (2, 3)), seen)
    estimate = denoise(seen, noisy.sigma).float()
    there = hidden.expand_as(seen)
    share = there.flatten(1).float().mean(1).clamp(min=1e-6)
    return squared_error(torch.where(there, estimate, noisy.values), noisy.values, noisy.level) / share


NOISY: Mapping[str, Loss] = {
    "noise2noise": noise2noise,
    "recorrupted": recorrupted,
    "sure": sure,
    "unsure": unsure,
    "neighbours": neighbours,
    "blind-spot": blind_spot,
}
"""All of them by the name that settings and recipes give."""


def check_noisy(objective: str, *, paired: bool, correlated: bool) -> str | None:
    """Refuse an objective whose assumptions do not hold; return what there is to be warned of.

    Parameters
    ----------
    objective
        One of `NOISY`.
    paired
        Whether there are second shots.
    correlated
        Whether neighbours have noise in common.

    Raises
    ------
    UsageError
        Where it cannot work.
    """
    if objective == "noise2noise" and not paired:
        raise UsageError("noise2noise learns from two shots of the same; give the second ones with --again")
    if correlated and objective in ("neighbours", "blind-spot"):
        raise UsageError(
            f"neighbours have noise in common, and {objective} would learn to keep it; take two shots, for noise2noise"
        )
    if correlated and objective != "noise2noise":
        return f"neighbours have noise in common, which {objective} takes for signal; two shots would not"
    return None


def _two_of_four(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pixel of every 2 × 2 is the first of a pair, and which is the second, next to it.

    The other two, 3 less each of these, are next to each other as well.
    """
    pairs = torch.tensor([(0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (2, 0), (1, 3), (3, 1)], device=uniform.device)
    cells = uniform[..., : uniform.shape[-2] // 2 * 2 : 2, : uniform.shape[-1] // 2 * 2 : 2]
    chosen = pairs[(cells * len(pairs)).long().clamp(max=len(pairs) - 1)]
    return chosen[..., 0], chosen[..., 1]


def _picked(values: Tensor, which: Tensor) -> Tensor:
    """Return of every 2 × 2 pixels one."""
    height, width = which.shape[-2:]
    corners = torch.stack(
        [values[..., down : 2 * height : 2, right : 2 * width : 2] for down in (0, 1) for right in (0, 1)]
    )
    return corners.gather(0, which.expand_as(corners[0])[None])[0]
