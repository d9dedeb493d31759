"""What optics and files do to an image: defocus, lost resolution, compression. Random is a range of levels alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.level import Level, Limits, draw, draw_whole, highest
from unperturb.model.operators import block_means, gaussian_blur, jpeg_compressed
from unperturb.model.perturbation import Composition, Number, Perturbation, Perturbed, Process

Width = Annotated[Level, Limits(0, 1000)]
Quality = Annotated[Level, Limits(0, 100, whole=True)]


@dataclass(frozen=True)
class Blur(Process):
    """Defocus: convolution along each axis with a Gaussian of standard deviation `sigma` pixels.

    Nothing is random but a sigma that is a range.
    The kernel is cut at the whole number of pixels nearest to 4 sigma and sums to 1; beyond its border the image is
    continued by its mirror image (``d c b a | a b c d | d c b a``), as by ``scipy.ndimage.gaussian_filter``.
    """

    name: ClassVar[str] = "blur"
    space: ClassVar[tuple[int, int]] = (1, 3)
    mixes = True
    sigma: Width

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        return Perturbed(gaussian_blur(clean, draw(self.sigma, clean, generator), highest(self.sigma)))


@dataclass(frozen=True)
class Downsample(Process):
    """Lost resolution: each block of `factor` pixels a side is replaced by its mean.

    That is box-filtered (area) reduction by the factor, brought back to the same grid by nearest neighbour. Blocks are
    counted from the first pixel of each axis; the last one holds what is left. The operator is an orthogonal
    projection. Nothing is random but a factor that is a range.
    """

    name: ClassVar[str] = "downsample"
    space: ClassVar[tuple[int, int]] = (1, 3)
    mixes = True
    factor: Number

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        factors = draw_whole(self.factor, len(clean), generator).tolist()
        return Perturbed(_each(block_means, clean, factors))


@dataclass(frozen=True)
class Jpeg(Process):
    """JPEG compression by an actual encoder (libjpeg): 0 is the worst `quality`, 100 the best.

    For images of 1 or 3 channels (grey, RGB) with values in [0, 1]: values are clipped to it and rounded to 8 bits
    before they are encoded. Colours are subsampled 4:2:0, as is usual on the web.
    Nothing is random but a quality that is a range.
    """

    name: ClassVar[str] = "jpeg"
    space: ClassVar[tuple[int, int]] = (2, 2)
    mixes = True
    quality: Quality

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        if clean.shape[1] not in (1, 3):
            raise UsageError(f"jpeg needs 1 or 3 channels; got {clean.shape[1]}")
        if not clean.isfinite().all():
            raise UsageError("jpeg needs finite values; got NaN or infinity")
        qualities = draw_whole(self.quality, len(clean), generator).tolist()
        if len(clean) < 2:
            return Perturbed(_each(jpeg_compressed, clean, qualities))
        with ThreadPoolExecutor() as pool:  # the encoder runs on a processor, wherever the values are
            return Perturbed(torch.stack(list(pool.map(jpeg_compressed, clean.cpu(), qualities))).to(clean))


def compresses(perturbation: Perturbation) -> bool:
    """Whether JPEG is a part of a perturbation, so that colour comes out at half resolution."""
    parts = perturbation.parts if isinstance(perturbation, Composition) else (perturbation,)
    return any(isinstance(part, Jpeg) for part in parts)


def _each(operator: Callable[[Tensor, int], Tensor], clean: Tensor, levels: list[int]) -> Tensor:
    """Apply an operator to each item at that item's level."""
    values = torch.empty_like(clean)
    for index, level in enumerate(levels):
        values[index] = operator(clean[index], level)
    return values
