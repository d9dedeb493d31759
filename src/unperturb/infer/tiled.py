"""A denoise function for signals of any size: cut into tiles, on all cores, in the precision that is fastest here.

`Tiled` wraps a denoise function and is one. Everything above it, the best guess and the draws alike, hands it whole
signals and never learns of tiles, threads or devices.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturb.data.tiling import Slices, Tile, tiles
from unperturb.model.denoiser import Bound, Denoise, Denoiser
from unperturb.model.machine import choose_device, choose_precision, workers
from unperturb.model.network import UNetSettings

HALO = 64
"""Default margin of a tile in pixels; smaller than what the network sees, at an error far below a grey level."""

TILE = 768
"""Default size of a tile in pixels."""

TOGETHER = 1 << 16
"""Pixels of small signals that are answered in one call in half precision; it was seen to change no bit of an
answer. On two cores with matrix units eight of 96 × 96 take half the time so."""

SMALLEST = 16
"""Sides of the smallest of them: sums over fewer pixels are added up in another order where there are more signals."""

LONG = 1 << 18
"""Default size of a tile of a signal, in samples; its halo is all that the network sees."""


@dataclass(frozen=True)
class Compute:
    """How to compute; nothing of it changes the answer by more than rounding, or than the halo lets it.

    Attributes
    ----------
    device
        "auto", "cpu" or "cuda".
    precision
        "auto" (bfloat16 where it was measured to be faster), "float32" or "bfloat16".
    tile
        Pixels along each side of a tile, or None for the default.
    halo
        Pixels around a tile, or None for the default. The network's ``settings.radius`` makes tiles exact.
    threads
        On a processor, where there are several tiles; all cores by default. A single tile is left to torch's threads.
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    halo: int | None = None
    threads: int | None = None


class Tiled:
    """A denoise function that answers tile by tile, each thread its own tiles.

    Parameters
    ----------
    denoise
        A `Denoiser`, or any ``denoise(x, sigma) -> mean``.
    compute
        Device, precision, tiles.
    done
        Called after each tile.
    """

    def __init__(
        self, denoise: Denoise, compute: Compute | None = None, done: Callable[[], None] | None = None
    ) -> None:
        self.compute = compute or Compute()
        self.device = choose_device(self.compute.device)
        self.dtype = choose_precision(self.compute.precision, self.device)
        self.denoise = denoise.to(self.device) if isinstance(denoise, torch.nn.Module | Bound) else denoise
        self.done = done

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the posterior mean.

        Parameters
        ----------
        x
            ``(batch, channel, *space)``, on the processor.
        sigma
            A number, ``(batch,)``, or a map ``(batch or 1, 1, *space)``, in the units of `x`.

        Returns
        -------
        Tensor
            Shape of `x`, float32, on the processor.
        """
        level = torch.as_tensor(sigma)
        result = torch.empty_like(x, dtype=torch.float32)
        size = self._together(x)
        batches = [range(first, min(first + size, len(x))) for first in range(0, len(x), size)]
        pieces = [(items, tile) for items in batches for tile in self.tiles(x.shape[2:])]

        def work(index: int) -> int:
            items, tile = pieces[index]
            several = slice(items.start, items.stop)
            bound = self.denoise.cut(items.start, tile.outer) if isinstance(self.denoise, Bound) else self.denoise
            answer = self._answer(bound, x[several][_all_of(tile.outer)], _cut(level, several, tile))
            result[several][_all_of(tile.inner)] = answer[_all_of(tile.crop)]
            return len(items)

        # A single piece is left to the threads within each operation.
        with workers(self.device, self.compute.threads) if len(pieces) > 1 else nullcontext(map) as run:
            for count in run(work, range(len(pieces))):
                if self.done is not None:
                    for _ in range(count):
                        self.done()
        return self.denoise.settled(result) if isinstance(self.denoise, Bound) else result

    def tiles(self, shape: tuple[int, ...]) -> list[Tile]:
        """Return the tiles that a signal of this shape in space is cut into."""
        settings = unet_settings(self.denoise)
        usual, margin = TILE, HALO
        if settings is not None and settings.dims == 1:
            usual, margin = LONG, settings.radius
        size = usual if self.compute.tile is None else self.compute.tile
        if self.compute.tile is None and (settings is None or max(shape) <= 1.5 * usual):
            size = max(shape)
        halo = margin if self.compute.halo is None else self.compute.halo
        return list(tiles(shape, size, halo, settings.multiple if settings else 1))

    @property
    def unit(self) -> float:
        """What 1 is of the values that the wrapped function works in, if it says so."""
        return float(getattr(self.denoise, "unit", 1.0))

    def inflation(self, sigma: Tensor) -> Tensor:
        """Return what the wrapped function asks noise to be multiplied by on the way to a draw, if anything."""
        known = getattr(self.denoise, "inflation", None)
        return torch.ones_like(sigma) if known is None else known(sigma)

    def expected_error(self, sigma: Tensor, channels: int) -> Tensor | None:
        """Return what the wrapped function says of its own error, if anything."""
        known = getattr(self.denoise, "expected_error", None)
        return None if known is None else known(sigma, channels)

    def _answer(self, denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
        # A copy, for the denoiser to do with as it likes.
        x = x.to(self.device, torch.float32, copy=True, memory_format=torch.contiguous_format)
        with torch.no_grad(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            answer: Tensor = denoise(x, sigma.to(x))
        return answer.float().cpu()

    def _together(self, x: Tensor) -> int:
        """Return how many items are answered in one call: one, but of small signals in half precision."""
        known = isinstance(self.denoise, Denoiser) and self.dtype == torch.bfloat16 and self.device.type == "cpu"
        if not known or min(x.shape[2:], default=0) < SMALLEST:
            return 1
        return max(1, TOGETHER // math.prod(x.shape[2:]))


def unet_settings(denoise: Denoise) -> UNetSettings | None:
    """Return the settings of a denoise function that is a network for images, else None."""
    card = denoise.card if isinstance(denoise, Denoiser | Bound) else None
    settings = None if card is None else card.network
    return settings if isinstance(settings, UNetSettings) else None


def _cut(level: Tensor, items: slice, tile: Tile) -> Tensor:
    """Return the noise level of one tile of some items: a number, ``(batch,)``, or a map of that tile."""
    if level.ndim == 0:
        return level
    mine = level[items] if len(level) > 1 else level
    if mine.ndim == 1:
        return mine if len(mine) > 1 else mine[0]
    return mine[_all_of(tile.outer)]


def _all_of(space: Slices) -> Slices:
    """Return a part of space of all channels of all items."""
    return (slice(None), slice(None), *space)
