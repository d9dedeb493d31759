"""The best guess: the posterior mean E[x | y] of an array of any size.

One call of the denoiser, ``denoise(y, sigma)``, with what a real array needs around it: the noise level where nobody
knows it, tiles where memory asks for them, all cores, and the precision that is fastest here.

With ``quality="best"`` the answers for the eight flips and rotations of the image are averaged. The prior of
photographs does not change under them; a trained network does, a little, and that part of its error averages out.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.data.noise import estimate_sigma
from unperturb.data.tiling import Tile, tiles
from unperturb.errors import UsageError
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.machine import choose_device, choose_precision, workers
from unperturb.model.network import UNetSettings

FloatArray = NDArray[np.float32]
Progress = Callable[[int, int], None]

HALO = 64
"""Default margin of a tile in pixels; smaller than what the network sees, at an error far below a grey level."""

TILE = 768
"""Default size of a tile in pixels."""


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


def restore(
    values: NDArray[Any],
    denoise: Denoise,
    sigma: float | NDArray[Any] | None = None,
    *,
    channel_axis: int | None = None,
    quality: str = "fast",
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """Return the best guess of what is behind noisy values.

    Parameters
    ----------
    values
        ``(*space)`` or with one axis of channels; any real type, in any units.
    denoise
        A `Denoiser`, or any ``denoise(x, sigma) -> mean``.
    sigma
        Standard deviation of the noise in the units of `values`: a number, or a map of the shape of the space.
        Estimated where it is None.
    channel_axis
        The axis of channels, if there is one. Channels that the denoiser does not take together are restored one by
        one.
    quality
        "fast", or "best": the average over eight flips and rotations, for images.
    compute
        Device, precision, tiles.
    progress
        Called with the tiles done and all there are.

    Returns
    -------
    ndarray
        Shape of `values`, float32.

    Raises
    ------
    UsageError
        Where an argument is wrong, or a value is not finite.
    ModelError
        Where the denoiser does not take such values.
    """
    compute = compute or Compute()
    planes = _channels_first(values, channel_axis)
    if quality not in ("fast", "best"):
        raise UsageError(f"quality is fast or best; got {quality!r}")
    if quality == "best" and planes.ndim != 3:
        raise UsageError("quality best turns and mirrors images; these values have another number of dimensions")
    level = _level(values, channel_axis, sigma, planes.shape[1:])
    # A gray image stored as colour holds one noise three times; the denoiser would take it for three.
    same = len(planes) > 1 and _network(denoise) is not None and bool((planes[1:] == planes[:1]).all())
    parts = _together(planes[:1] if same else planes, denoise)
    runner = _Runner(denoise, compute, progress, len(parts) * (8 if quality == "best" else 1))
    answers = [runner.averaged(part, level) if quality == "best" else runner(part, level) for part in parts]
    result = np.broadcast_to(np.concatenate(answers), planes.shape)
    return np.array(result[0] if channel_axis is None else np.moveaxis(result, 0, channel_axis))


def as_sigma(values: NDArray[Any], channel_axis: int | None, sigma: float | None) -> float:
    """Return the noise level: as given, or estimated from the values."""
    return estimate_sigma(values, channel_axis) if sigma is None else sigma


class _Runner:
    """Restores planes ``(channel, *space)``, tile by tile, each thread its own tiles."""

    def __init__(self, denoise: Denoise, compute: Compute, progress: Progress | None, rounds: int) -> None:
        self.device = choose_device(compute.device)
        self.dtype = choose_precision(compute.precision, self.device)
        self.denoise = denoise.to(self.device) if isinstance(denoise, torch.nn.Module) else denoise
        self.compute, self.progress, self.done, self.rounds = compute, progress, 0, rounds

    def __call__(self, planes: FloatArray, level: FloatArray | float) -> FloatArray:
        """Return the answer for the planes as a whole."""
        result = np.empty_like(planes)
        parts = _tiles(planes.shape[1:], self.denoise, self.compute)

        def work(index: int) -> None:
            tile = parts[index]
            noise = level[tile.outer] if isinstance(level, np.ndarray) else level
            answer = self._answer(planes[(slice(None), *tile.outer)], noise)
            result[(slice(None), *tile.inner)] = answer[(slice(None), *tile.crop)]

        # A single tile is left to the threads within each operation.
        with workers(self.device, self.compute.threads) if len(parts) > 1 else nullcontext(map) as run:
            for _ in run(work, range(len(parts))):
                self.done += 1
                if self.progress is not None:
                    self.progress(self.done, len(parts) * self.rounds)
        return result

    def averaged(self, planes: FloatArray, level: FloatArray | float) -> FloatArray:
        """Average over the eight flips and rotations of the planes as a whole, so that tiles change nothing."""
        total = np.zeros_like(planes)
        for turn in range(8):
            noise = _turned(level, turn) if isinstance(level, np.ndarray) else level
            total += _turned_back(self(_turned(planes, turn), noise), turn)
        return total / np.float32(8)

    def _answer(self, planes: FloatArray, level: FloatArray | float) -> FloatArray:
        x = torch.from_numpy(np.array(planes))[None].to(self.device)  # a copy, for the denoiser to do with as it likes
        sigma = torch.from_numpy(np.array(level))[None, None] if isinstance(level, np.ndarray) else torch.tensor(level)
        with torch.no_grad(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            answer: Tensor = self.denoise(x, sigma.to(x))
        return answer[0].float().cpu().numpy()


def _channels_first(values: NDArray[Any], channel_axis: int | None) -> FloatArray:
    if values.size == 0:
        raise UsageError("there is nothing to restore: the array is empty")
    planes = values[None] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    planes = np.ascontiguousarray(planes, dtype=np.float32)
    if not np.isfinite(planes).all():
        raise UsageError("some values are NaN or infinite; replace them before restoring")
    return planes


def _level(
    values: NDArray[Any], channel_axis: int | None, sigma: float | NDArray[Any] | None, shape: tuple[int, ...]
) -> FloatArray | float:
    """Return the noise level as a number or as a float32 map."""
    if not isinstance(sigma, np.ndarray):
        level = as_sigma(values, channel_axis, sigma)
        if not (np.isfinite(level) and level >= 0):
            raise UsageError(f"sigma is a finite number of at least 0; got {sigma}")
        return float(level)
    level_map = np.asarray(sigma, dtype=np.float32)
    if level_map.shape != shape:
        raise UsageError(f"a map of sigma has the shape of the space, {shape}; got {level_map.shape}")
    if not (np.isfinite(level_map).all() and (level_map >= 0).all()):
        raise UsageError("a map of sigma holds finite numbers of at least 0")
    return level_map


def _together(planes: FloatArray, denoise: Denoise) -> list[FloatArray]:
    """Split channels that the denoiser does not take together."""
    settings = _network(denoise)
    if settings is None or settings.channels == len(planes):
        return [planes]
    return list(planes[:, None])


def _tiles(shape: tuple[int, ...], denoise: Denoise, compute: Compute) -> list[Tile]:
    settings = _network(denoise)
    size = TILE if compute.tile is None else compute.tile
    if compute.tile is None and (settings is None or max(shape) <= 1.5 * TILE):
        size = max(shape)
    halo = HALO if compute.halo is None else compute.halo
    return list(tiles(shape, size, halo, settings.multiple if settings else 1))


def _turned(planes: FloatArray, turn: int) -> FloatArray:
    """Return the last two axes turned by quarters, ``turn % 4`` of them, and mirrored where `turn` is 4 or more."""
    turned = np.rot90(planes, turn % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if turn >= 4 else turned)


def _turned_back(planes: FloatArray, turn: int) -> FloatArray:
    """Undo `_turned`."""
    return np.rot90(planes[..., ::-1] if turn >= 4 else planes, -(turn % 4), axes=(-2, -1))


def _network(denoise: Denoise) -> UNetSettings | None:
    settings = denoise.card.network if isinstance(denoise, Denoiser) else None
    return settings if isinstance(settings, UNetSettings) else None
