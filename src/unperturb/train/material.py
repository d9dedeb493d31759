"""Clean signals to learn from, and how a batch of them is drawn."""

from dataclasses import replace
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.data.patches import Patches
from unperturb.errors import UsageError
from unperturb.model.network import UNetSettings
from unperturb.train.batches import Draw, Together
from unperturb.train.crops import Crops, enlarged
from unperturb.train.pool import Pool
from unperturb.train.processes import Processes
from unperturb.train.settings import FitSettings


class Material(Protocol):
    """Clean signals to learn from, and to validate on: `data.patches.Patches`, `data.stretches.Stretches`."""

    @property
    def key(self) -> str:
        """Names what went in, so that no run is resumed on other data."""

    @property
    def dims(self) -> int:
        """Axes of space."""

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the crops to validate on, falling: the largest that there is material for is taken."""

    @property
    def largest(self) -> int:
        """The largest side of a crop that there is material for; 0 where there is none at all."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The least and the greatest value, where they need not be 0 and 1."""

    def __len__(self) -> int: ...

    def of(self, *, held_out: bool) -> Self:
        """Return what is held out for validation, or the rest."""

    def at_least(self, size: int) -> Self:
        """Return the pieces from which a crop of this size can be taken; `TrainingError` where there are none."""

    def crop(self, generator: np.random.Generator, size: int, *, gray: bool) -> NDArray[np.float32]:
        """Take a crop at random, ``(channel, *space)``."""

    def centre(self, index: int, size: int, *, gray: bool) -> NDArray[np.float32]:
        """Return the middle of one piece, ``(channel, *space)``."""


def crops(
    settings: FitSettings,
    material: Material,
    device: torch.device | None = None,
    processes: Processes | None = None,
) -> Draw | Together:
    """Return the `draw` that training asks for: crops, of images in colour the first of each batch in gray.

    On a GPU images lie in its memory, and a batch, or the part of it that is this process's, is taken there as a whole.
    """
    network = settings.network
    if not isinstance(network, UNetSettings) or network.dims != material.dims:
        kind = "images are" if material.dims == 2 else "signals are"
        raise UsageError(f"{kind} learned by a network with {material.dims} space dimensions")
    if (settings.enlarge != 1 or settings.reuse != 1) and material.dims != 2:
        raise UsageError("crops of images alone are enlarged, or learned from again")
    material = material.at_least(settings.patch_size)
    if device is not None and device.type != "cpu" and isinstance(material, Patches):
        processes = processes or Processes()
        batch = processes.share_of(settings.batch)
        whole = together(material, replace(settings, batch=batch), _in_gray(settings, batch), device)
        return replace(whole, part=(processes.rank,) if processes.rank else ())
    n_gray = _in_gray(settings, settings.batch)

    def draw(generator: np.random.Generator, item: int) -> NDArray[np.float32]:
        crop = material.crop(generator, settings.patch_size, gray=item < n_gray)
        if settings.enlarge == 1:
            return crop
        chance = torch.tensor([generator.random()])
        return enlarged(torch.from_numpy(crop)[None], settings.enlarge, chance)[0].numpy()

    return draw


def _in_gray(settings: FitSettings, batch: int) -> int:
    """Return how many items of a batch are gray."""
    one = isinstance(settings.network, UNetSettings) and settings.network.channels == 1
    return batch if one else round(settings.gray * batch)


def together(material: Patches, settings: FitSettings, n_gray: int, device: torch.device) -> Together:
    """Return what draws whole batches of crops on a device, so many of them in gray."""
    images = Crops.of(material, device)
    counts = [(count, gray) for count, gray in ((n_gray, True), (settings.batch - n_gray, False)) if count]

    def draw(generator: torch.Generator) -> list[torch.Tensor]:
        found = [images.draw(count, settings.patch_size, generator, gray=gray) for count, gray in counts]
        if settings.enlarge == 1:
            return found
        chances = [torch.rand(len(each), generator=generator, device=device) for each in found]
        return [enlarged(each, settings.enlarge, chance) for each, chance in zip(found, chances, strict=True)]

    # Noise that is itself what x is made of is drawn as fast as it is learned from, and is to be another each time.
    again = settings.reuse > 1 and settings.network.given
    pool = Pool(draw, settings.perturbing, settings.reuse) if again else None
    return Together(draw, pool=pool)
