"""Crops of a whole batch at once, taken where they are learned from.

A GPU learns from crops faster than a processor can copy them one by one. So the decoded images are put into its memory
once, as the integers that they are, and all crops of a batch are gathered there in one step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unperturb.data.patches import LUMINANCE, Patches

AS_THEY_ARE = 0.3
"""Share of the crops that are not enlarged, where others are."""


@dataclass(frozen=True, eq=False)
class Crops:
    """Decoded images on a device.

    Attributes
    ----------
    samples
        All samples of all images, one behind the other: ``(samples,)``.
    places
        ``(image, 4)``: where each begins, height, width and channels.
    shares
        ``(image,)``: the chance of each, by its area.
    full_scale
        The sample that stands for 1.
    channels
        The most of any image.
    """

    samples: Tensor
    places: Tensor
    shares: Tensor
    full_scale: float
    channels: int

    @classmethod
    def of(cls, patches: Patches, device: torch.device) -> "Crops":
        """Put images on a device."""
        places = [(place.offset, place.height, place.width, place.channels) for place in patches.places]
        table = torch.tensor(places, dtype=torch.int64, device=device)
        # Copied, for what is mapped from a file cannot be written to, and torch wants to be able to; and torch cannot
        # gather 16-bit integers everywhere.
        wide = patches.samples.astype(np.int32) if patches.samples.dtype == np.uint16 else patches.samples.copy()
        samples = torch.from_numpy(wide).to(device)
        shares = (table[:, 1] * table[:, 2]).double()
        return cls(samples, table, shares, patches.full_scale, max(place.channels for place in patches.places))

    def draw(self, count: int, size: int, generator: torch.Generator, *, gray: bool) -> Tensor:
        """Take crops at random, each from an image drawn by its area, turned or mirrored at random.

        Parameters
        ----------
        count, size
            How many, and their height and width; every image is as large at least.
        generator
            The source of randomness, on the device of the images.
        gray
            Whether colour is reduced to its luminance. A gray image beside colour ones is given to all channels.

        Returns
        -------
        Tensor
            ``(count, channel, size, size)``, float32, in [0, 1] for integer images.
        """
        device = self.samples.device
        chosen = self.places[torch.multinomial(self.shares, count, replacement=True, generator=generator)]
        start, height, width, channels = chosen.T[..., None, None]
        share = torch.rand(2, count, 1, 1, generator=generator, device=device, dtype=torch.float64)
        turns = torch.randint(2, (3, count, 1, 1), generator=generator, device=device, dtype=torch.bool)
        line = torch.arange(size, device=device)
        down, across = line[None, :, None], line[None, None, :]
        down, across = torch.where(turns[0], across, down), torch.where(turns[0], down, across)
        down = torch.where(turns[1], size - 1 - down, down)
        across = torch.where(turns[2], size - 1 - across, across)
        top, left = (share[0] * (height - size + 1)).long(), (share[1] * (width - size + 1)).long()
        pixel = start + ((top + down) * width + left + across) * channels
        offset = torch.arange(self.channels, device=device)[:, None, None]
        values = self.samples[pixel[:, None] + offset.minimum(channels[:, None] - 1)].float() / self.full_scale
        if gray and self.channels == 3:
            weights = torch.tensor(LUMINANCE, device=device).view(3, 1, 1)
            values = (values * weights).sum(1, keepdim=True)
        return values


def enlarged(values: Tensor, largest: float, chance: Tensor) -> Tensor:
    """Return the middles of crops, so enlarged that they take the place of the whole (cubic).

    What comes out of a camera in full resolution has less fine detail than pictures that were made smaller.

    Parameters
    ----------
    values
        ``(item, channel, height, width)``.
    largest
        The largest factor. A share of the items, `AS_THEY_ARE`, has 1; the logarithms of the others are uniform.
    chance
        ``(item,)``, uniform in [0, 1), which decides.
    """
    factors = largest ** ((chance.to(values) - AS_THEY_ARE) / (1 - AS_THEY_ARE)).clamp(min=0)
    zoom = torch.diag_embed((1 / factors)[:, None].expand(-1, 2))
    places = functional.affine_grid(torch.cat([zoom, zoom.new_zeros(len(values), 2, 1)], 2), list(values.shape), False)
    larger = functional.grid_sample(values, places, mode="bicubic", padding_mode="reflection", align_corners=False)
    ends = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)  # cubic kernels overshoot
    return torch.where((factors == 1).view(-1, 1, 1, 1), values, larger.clamp(*ends))
