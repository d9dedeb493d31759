"""The best guess: the posterior mean E[x | y] of an array of any size.

One call of the denoiser, ``denoise(y, sigma)``, with what a real array needs around it: the noise level where nobody
knows it, tiles where memory asks for them, all cores, and the precision that is fastest here.

With ``quality="best"`` the answers for the eight flips and rotations of the image are averaged. The prior of
photographs does not change under them; a trained network does, a little, and that part of its error averages out.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.posterior import FloatArray, observe
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.denoiser import Denoise

Progress = Callable[[int, int], None]


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
    if quality not in ("fast", "best"):
        raise UsageError(f"quality is fast or best; got {quality!r}")
    if quality == "best" and np.ndim(values) - (channel_axis is not None) != 2:
        raise UsageError("quality best turns and mirrors images; these values have another number of dimensions")
    observation = observe(values, denoise, sigma, channel_axis=channel_axis, compute=compute)
    posterior = observation.posterior
    tiled = posterior.denoise
    if progress is not None and isinstance(tiled, Tiled):
        per_round = len(posterior.start) * len(tiled.tiles(posterior.start.shape[2:]))
        tiled.done = _counter(progress, per_round * (8 if quality == "best" else 1))
    if quality == "best":
        posterior = replace(posterior, denoise=averaged(tiled))
    return observation.to_array(posterior.mean)


def averaged(denoise: Denoise) -> Denoise:
    """Return the average of a denoise function over the eight flips and rotations of an image.

    Each sees the image as a whole, so that tiles change nothing.
    """

    def denoise_averaged(x: Tensor, sigma: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for turn in range(8):
            noise = _turned(sigma, turn) if sigma.ndim > 1 else sigma
            total += _turned_back(denoise(_turned(x, turn), noise), turn)
        return total / 8

    return denoise_averaged


def _counter(progress: Progress, total: int) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return count


def _turned(x: Tensor, turn: int) -> Tensor:
    """Return the last two axes turned by quarters, ``turn % 4`` of them, and mirrored where `turn` is 4 or more."""
    turned = torch.rot90(x, turn % 4, dims=(-2, -1))
    return (turned.flip(-1) if turn >= 4 else turned).contiguous()


def _turned_back(x: Tensor, turn: int) -> Tensor:
    """Undo `_turned`."""
    return torch.rot90(x.flip(-1) if turn >= 4 else x, -(turn % 4), dims=(-2, -1))
