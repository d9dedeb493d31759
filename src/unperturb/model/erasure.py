"""Missing components: single ones, whole regions, lines, scratches.

Each of these perturbations leaves some components as they are, without noise, and takes the others away. What is
erased is 0 in the values and False in the mask, and nothing of the hidden value is left, not even where it is NaN. Of
an image whole pixels are erased, all channels together.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from unperturb.model.level import Level, Limits, draw, draw_whole, highest
from unperturb.model.perturbation import Fraction, Number, Perturbed, Process, per_item, uniform

Extent = Annotated[Level, Limits(0, 10**6)]


@dataclass(frozen=True)
class Erase(Process):
    """Missing components: each is erased with the chance `fraction`, independently of all others.

    Of an image whole pixels are erased, of a vector single features.
    """

    name: ClassVar[str] = "erase"
    fraction: Fraction

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        shape = clean.shape if clean.ndim == 2 else (len(clean), 1, *clean.shape[2:])
        fraction = per_item(draw(self.fraction, clean, generator).float(), clean)
        return _erased(clean, uniform(shape, clean, generator) >= fraction)


@dataclass(frozen=True)
class Block(Process):
    """Missing regions: `count` boxes with sides of `size` pixels along the axes.

    Every position at which a box touches the image is equally likely, and what lies outside is cut off. So each pixel,
    at the border or not, is erased with the same chance, ``1 - (1 - prod_axis size / (length + size - 1))**count``.
    Boxes may overlap. Size and count are drawn once an item.
    """

    name: ClassVar[str] = "block"
    space: ClassVar[tuple[int, int]] = (1, 3)
    size: Number
    count: Number

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        batch, _, *space = clean.shape
        size, count = draw_whole(self.size, batch, generator), draw_whole(self.count, batch, generator)
        sides = size[:, None].expand(-1, len(space))
        mask = torch.ones(batch, 1, *space, dtype=torch.bool, device=generator.device)
        for index in range(int(highest(self.count))):
            mask &= ~(_box(space, sides, generator) & per_item(index < count, mask))
        return _erased(clean, mask.to(clean.device))


@dataclass(frozen=True)
class Line(Process):
    """Missing lines: `count` of them, each `width` pixels thick, right across the image along one of its axes.

    Dead rows and columns of a sensor, lost lines of a scan. The axis across which a line is thick is drawn for every
    line; of signals with three axes of space it is a plane. Every position at which it touches the image is equally
    likely: each pixel is erased with the chance ``1 - (1 - mean_axis width / (length + width - 1))**count``.
    Width and count are drawn once an item.
    """

    name: ClassVar[str] = "line"
    space: ClassVar[tuple[int, int]] = (1, 3)
    width: Number
    count: Number

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        batch, _, *space = clean.shape
        width, count = draw_whole(self.width, batch, generator), draw_whole(self.count, batch, generator)
        mask = torch.ones(batch, 1, *space, dtype=torch.bool, device=generator.device)
        for index in range(int(highest(self.count))):
            across = torch.randint(len(space), (batch, 1), generator=generator, device=generator.device)
            sides = torch.where(across == torch.arange(len(space), device=generator.device), width[:, None], 0)
            mask &= ~(_box(space, sides, generator) & per_item(index < count, mask))
        return _erased(clean, mask.to(clean.device))


@dataclass(frozen=True)
class Scratch(Process):
    """Missing scratches: `count` straight strokes with round ends, `length` long and `width` wide, in any direction.

    For images. A pixel is erased where its centre is within ``width / 2`` of the stroke. The middle of a stroke is
    anywhere from where it could touch the image, so each pixel is erased with the same chance,
    ``1 - (1 - (length·width + π·width²/4) / ((height + r)·(breadth + r)))**count`` with ``r = length + width``.
    Length, width and count are drawn once an item.
    """

    name: ClassVar[str] = "scratch"
    space: ClassVar[tuple[int, int]] = (2, 2)
    length: Extent
    width: Extent
    count: Number

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        batch, _, *space = clean.shape
        double = clean.new_empty(batch, dtype=torch.float64)
        length, width = (draw(level, double, generator).to(generator.device) for level in (self.length, self.width))
        count = draw_whole(self.count, batch, generator)
        mask = torch.ones(batch, 1, *space, dtype=torch.bool, device=generator.device)
        for index in range(int(highest(self.count))):
            mask &= ~(_stroke(space, length, width, generator) & per_item(index < count, mask))
        return _erased(clean, mask.to(clean.device))


def _erased(clean: Tensor, mask: Tensor) -> Perturbed:
    # Filled, not multiplied: 0 * NaN would tell that the hidden value was NaN.
    return Perturbed(clean.masked_fill(~mask, 0), mask, clean.new_zeros(len(clean)))


def _box(space: list[int], sides: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one box an item, anywhere it touches the image: True inside, ``(batch, 1, *space)``.

    A side of 0, in `sides` ``(batch, axis)``, stands for the whole length of the axis.
    """
    box = torch.ones(len(sides), 1, *space, dtype=torch.bool, device=generator.device)
    for axis, (length, size) in enumerate(zip(space, sides.T, strict=True)):
        share = torch.rand(len(size), generator=generator, device=generator.device, dtype=torch.float64)
        first = (share * (length + size - 1)).floor() - (size - 1)
        offset = torch.arange(length, device=generator.device) - first[:, None]
        inside = (offset >= 0) & (offset < size[:, None]) | (size[:, None] == 0)
        box &= inside.view(len(size), 1, *(length if other == axis else 1 for other in range(len(space))))
    return box


def _stroke(space: list[int], length: Tensor, width: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one stroke an item, its middle anywhere from where it could touch the image: True on it."""
    drawn = torch.rand(3, len(length), generator=generator, device=generator.device, dtype=torch.float64)
    angle = drawn[2] * math.pi
    reach = length + width
    # From the middle of the stroke, in pixels; the centre of pixel i is at i + 1/2.
    row, column = (
        torch.arange(extent, device=generator.device)
        + 0.5
        + reach[:, None] / 2
        - (extent + reach)[:, None] * share[:, None]
        for extent, share in zip(space, drawn, strict=False)
    )
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    along = row[:, :, None] * sine + column[:, None, :] * cosine
    beside = row[:, :, None] * cosine - column[:, None, :] * sine
    beyond = (along.abs() - length[:, None, None] / 2).clamp(min=0)
    return (beside.square() + beyond.square() <= (width[:, None, None] / 2).square())[:, None]
