"""The noise of a photograph, as a camera makes it.

A sensor counts photons, one colour a pixel; what is read is brightened, given colours, bent by a tone curve, smoothed
where there is no detail, sharpened and made smaller. Its noise is white only before all that. In the picture that is
looked at it depends on the brightness, goes over several pixels, and is not the same in the three colours::

    x → what the sensor saw → mosaic ─┬─ + noise → developed ─┐
                                      └──────────→ developed ─┴─ difference: noise n of the photograph
    y = x + n, within 0 … 1

What developing does to the picture itself is in both branches, and is not to be undone: x stays what is looked for.
JPEG, which comes last and may come twice, is a perturbation of its own:

    camera:iso=100..6400 + jpeg:quality=70..98

Drawn for every item are contrast, colour matrix, white balance, exposure, the way of demosaicking, the place in the
Bayer pattern, and how good the sensor is. Sources: Brooks et al., "Unprocessing images for learned raw denoising", CVPR
2019, section 3, for the order of it and for read noise as it grows with shot noise; Guo et al., "Toward convolutional
blind denoising of real photographs" (CBDNet), CVPR 2019, for the idea to send noise through the processor; J.-S. Lee,
"Digital image enhancement and noise filtering by use of local statistics", IEEE Transactions on Pattern Analysis and
Machine Intelligence 2 (1980), for where noise reduction stops.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model import isp
from unperturb.model.level import Level, Limits, Range, draw, draw_whole, highest, lowest
from unperturb.model.operators import gaussian_blur, luminance
from unperturb.model.optics import Jpeg
from unperturb.model.perturbation import Composition, Perturbation, Perturbed, Process, alternatives, uniform

Speed = Annotated[Level, Limits(0, 10**6)]
Amount = Annotated[Level, Limits(0, 4)]
Width = Annotated[Level, Limits(0, 16)]
Share = Annotated[Level, Limits(0, 1)]
Reduction = Annotated[Level, Limits(1, 8, whole=True)]

SHOT = 5e-7
"""Variance of shot noise over brightness, a unit of ISO; white is 1. A sensor of 35 mm whose white is 60,000 electrons
at ISO 100 has 1.7e-7, one of a telephone ten times as much: items go by a factor of `SPREAD` to both sides."""

SPREAD = 3.3

_USUAL_SHARPENING, _USUAL_SMOOTHING = Range(0, 1), Range(0, 2)
_USUAL_SOFTENING, _USUAL_SPARING = Range(0, 0.7), Range(0, 1)

FAIR = 50
"""Quality of JPEG from which means of regions are those of the picture: steps of them are then of two grey levels."""

EDGE = 4
"""Pixels at the border that demosaicking and sharpening see no neighbours of; images are continued by so many."""


@dataclass(frozen=True)
class Camera(Process):
    """Noise of a camera at the speed `iso`, as it looks in the finished photograph; mean about x, of no known level.

    `sharpening` is the share of its fine detail that is added once more; `smoothing` and `softening` are the standard
    deviations in pixels of the blurs by which a camera's own noise reduction takes noise out of colour and out of
    luminance, which leaves what is coarse. It spares what it takes for detail, and noise stays there: `sparing` is how
    far, from 0, blurred everywhere alike, to 1. `reduction` is by how much the picture was made smaller afterwards.
    Images of 1 or 3 channels, with values in [0, 1] in the curve of sRGB; what is beyond is clipped.
    """

    name: ClassVar[str] = "camera"
    space: ClassVar[tuple[int, int]] = (2, 2)
    mixes = True
    iso: Speed
    sharpening: Amount = _USUAL_SHARPENING
    smoothing: Width = _USUAL_SMOOTHING
    softening: Width = _USUAL_SOFTENING
    sparing: Share = _USUAL_SPARING
    reduction: Reduction = 1

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        if clean.shape[1] not in (1, 3):
            raise UsageError(f"camera needs 1 or 3 channels; got {clean.shape[1]}")
        if not clean.isfinite().all():
            raise UsageError("camera needs finite values; got NaN or infinity")
        values = clean.clone()
        reductions = draw_whole(self.reduction, len(clean), generator).to(clean.device)
        for factor in sorted(set(reductions.tolist())):
            items = reductions == factor
            noise = self._noise(clean[items].float().clamp(0, 1), factor, generator)
            values[items] = (clean[items] + noise).clamp(0, 1).to(clean)
        return Perturbed(values)

    def _noise(self, clean: Tensor, factor: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of photographs that were made smaller by one factor."""
        scene = clean.expand(-1, 3, -1, -1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        height, width = scene.shape[2:]
        scene = _continued(scene, EDGE)
        darkroom = _Darkroom.drawn(scene, generator)
        seen = isp.mosaic(darkroom.raw(scene), darkroom.corner)
        noisy = seen + darkroom.sensor_noise(seen, draw(self.iso, scene, generator), generator)
        noise = darkroom.developed(noisy) - darkroom.developed(seen)
        noise = self._reduced(noise, scene, generator)
        noise = _sharpened(noise, draw(self.sharpening, scene, generator))
        noise = noise[..., EDGE : EDGE + height, EDGE : EDGE + width]
        noise = torch.nn.functional.avg_pool2d(noise, factor)
        return luminance(noise) if clean.shape[1] == 1 else noise

    def _reduced(self, noise: Tensor, scene: Tensor, generator: torch.Generator) -> Tensor:
        """Blur the colour of noise, and its luminance; less where the photograph has detail."""
        gray = noise.mean(1, keepdim=True)
        colour, light = (
            gaussian_blur(part, draw(sigma, noise, generator), highest(sigma))
            for part, sigma in ((noise - gray, self.smoothing), (gray, self.softening))
        )
        sparing = draw(self.sparing, noise, generator).view(-1, 1, 1, 1)
        return torch.lerp(light + colour, noise, sparing * _detail(scene.mean(1, keepdim=True), gray))


@dataclass(frozen=True, eq=False)
class _Darkroom:
    """What a camera is set to, for each item: how raw values become a photograph."""

    contrast: Tensor
    matrix: Tensor
    gains: Tensor
    corner: Tensor
    corrected: Tensor
    quality: Tensor

    @classmethod
    def drawn(cls, like: Tensor, generator: torch.Generator) -> "_Darkroom":
        """Draw the settings of as many cameras as there are images."""
        batch = len(like)
        share = uniform((16, batch), like, generator)
        near, far = 0.1 + 0.5 * share[0:3], 0.3 * share[3:6]
        # From the sensor's colours to those of sRGB; white stays white.
        rows = [[1 + near[0] + far[0], -near[0], -far[0]]]
        rows += [[-near[1], 1 + near[1] + far[1], -far[1]], [-far[2], -near[2], 1 + near[2] + far[2]]]
        matrix = torch.stack([torch.stack(row, -1) for row in rows], 1)
        exposure = torch.exp2(2 * share[8] - 1.5)  # from ⅓ to 1.4: how much of the sensor's range white takes
        gains = torch.stack([1.4 + 1.2 * share[6], torch.ones_like(exposure), 1.2 + 1.2 * share[7]], 1)
        return cls(
            contrast=0.9 * share[9],
            matrix=matrix,
            gains=gains / exposure[:, None],
            corner=(2 * share[10:12].T).long(),
            corrected=share[12] < 0.7,
            quality=share[13:16],
        )

    def raw(self, photograph: Tensor) -> Tensor:
        """Return what the sensor saw: linear, in its own colours."""
        linear = isp.without_gamma(isp.without_tone(photograph, self.contrast))
        sensed = isp.coloured(linear, torch.linalg.inv(self.matrix))
        return (sensed / self.gains[:, :, None, None]).clamp(min=0)

    def sensor_noise(self, seen: Tensor, iso: Tensor, generator: torch.Generator) -> Tensor:
        """Draw shot and read noise, and that of whole rows, of raw values."""
        shot = SHOT * iso * SPREAD ** (2 * self.quality[0] - 1)
        # Brooks et al., section 3.1; with a spread for sensors that are better or worse than those.
        read = (2.18 * shot.clamp(min=1e-9).log() + 1.2 + 1.2 * (self.quality[1] - 0.5)).exp().sqrt()
        read = torch.where(iso > 0, read, torch.zeros_like(read))
        white, row = (
            torch.randn(shape, generator=generator, device=generator.device).to(seen)
            for shape in (seen.shape, (*seen.shape[:3], 1))
        )
        shot, read, rows = (each.view(-1, 1, 1, 1) for each in (shot, read, 0.2 * self.quality[2] * read))
        return (shot * seen + read.square()).sqrt() * white + rows * row

    def developed(self, raw: Tensor) -> Tensor:
        """Return the photograph of raw values; what is above the sensor's range is cut off."""
        full = isp.demosaic(raw.clamp(max=1), self.corner, self.corrected)
        linear = isp.coloured(full * self.gains[:, :, None, None], self.matrix)
        return isp.with_tone(isp.with_gamma(linear.clamp(0, 1)), self.contrast)


def leaves_means(perturbation: Perturbation) -> bool:
    """Whether all that is done, in every alternative, is a camera's noise, and compression that leaves means alone.

    Over hundreds of pixels such noise has averaged out. Files of a quality below `FAIR` have bands, and means of their
    own.
    """
    chains = [each.parts if isinstance(each, Composition) else (each,) for each in alternatives(perturbation)]
    return all(any(isinstance(part, Camera) for part in chain) and all(map(_is_fair, chain)) for chain in chains)


def _is_fair(part: Perturbation) -> bool:
    return isinstance(part, Camera) or (isinstance(part, Jpeg) and lowest(part.quality) >= FAIR)


def _continued(values: Tensor, by: int) -> Tensor:
    """Continue images by their mirror image; those that are too small for it, by their border."""
    mode = "reflect" if min(values.shape[2:]) > by else "replicate"
    return torch.nn.functional.pad(values, (by, by, by, by), mode=mode)


def _detail(clean: Tensor, noise: Tensor) -> Tensor:
    """Return which share of the variance around each pixel is not noise: the gain of Lee's filter.

    Parameters
    ----------
    clean, noise
        Luminance, ``(batch, 1, height, width)``. What the camera expects of noise is its mean power further around.
    """
    near, far = (clean.new_full((len(clean),), width) for width in (2.0, 4.0))
    noisy = clean + noise
    around = gaussian_blur((noisy - gaussian_blur(noisy, near, 2.0)).square(), near, 2.0)
    expected = gaussian_blur(noise.square(), far, 4.0)
    return ((around - expected) / around.clamp(min=1e-12)).clamp(0, 1)


def _sharpened(noise: Tensor, amount: Tensor) -> Tensor:
    """Add the fine detail of noise to it once more."""
    soft = gaussian_blur(noise, torch.ones_like(amount), 1.0)
    return noise + amount.view(-1, 1, 1, 1) * (noise - soft)
