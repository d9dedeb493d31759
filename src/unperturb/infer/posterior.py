"""One restoration problem: a denoise function, a place to start, and the noise level there.

    Posterior(denoise, start, sigma)        p(x | start),   start = x + sigma · n

Its mean is one call, its draws are a walk from ``start`` down to no noise (`sample`), its covariance is the derivative
of the denoise function (`uncertainty`). The three never know what `denoise` is: a network, a closed form, a network
that was shown the rest of the observation.

`observe` makes one of an array as people have them, of any size, gray or in colour, and knows the way back.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.data.noise import estimate_sigma
from unperturb.errors import UsageError
from unperturb.infer.tiled import Compute, Tiled, unet_settings
from unperturb.model.denoiser import Denoise

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Posterior:
    """What can be known of clean signals, given noisy ones.

    Attributes
    ----------
    denoise
        Any ``denoise(x, sigma) -> mean``.
    start
        What was seen: ``(batch, channel, *space)``, or ``(batch, feature)``.
    sigma
        Standard deviation of the Gaussian noise in `start`, in its units: a number, or a tensor that `denoise` takes,
        such as ``(batch,)`` or a map ``(batch or 1, 1, *space)``.
    """

    denoise: Denoise
    start: Tensor
    sigma: Tensor | float

    def at(self, x: Tensor, level: float) -> Tensor:
        """Return E[clean | x] where the noise in `x` is `level` times that of the start."""
        return self.denoise(x, self.level_map * level)

    @cached_property
    def mean(self) -> Tensor:
        """The best guess E[clean | start], of the shape of `start`."""
        return self.at(self.start, 1.0)

    @property
    def level_map(self) -> Tensor:
        """`sigma` as a tensor of the type of `start`."""
        return torch.as_tensor(self.sigma, dtype=self.start.dtype, device=self.start.device)

    @property
    def spread_of_noise(self) -> Tensor:
        """`sigma` in a shape that broadcasts to `start`."""
        level = self.level_map
        return level.view(-1, *(1,) * (self.start.ndim - 1)) if level.ndim == 1 else level

    def repeated(self, times: int) -> "Posterior":
        """Return the same problem `times` times over: the batch is repeated as a whole."""
        level = self.level_map
        if level.ndim > 0 and len(level) > 1:
            level = level.repeat(times, *(1,) * (level.ndim - 1))
        return replace(self, start=self.start.repeat(times, *(1,) * (self.start.ndim - 1)), sigma=level)


@dataclass(frozen=True)
class Observation:
    """An array as a `Posterior`, and the way back.

    Attributes
    ----------
    posterior
        Over a batch of one signal with all channels; or, where the denoiser does not take the channels together, over
        one signal a channel.
    shape
        Of the array, with its channels in front.
    channel_axis
        Where they were.
    """

    posterior: Posterior
    shape: tuple[int, ...]
    channel_axis: int | None

    def to_array(self, signal: Tensor) -> FloatArray:
        """Return a signal of the posterior, ``(batch, channel, *space)``, in the array's own layout, float32."""
        planes = signal.reshape(-1, *signal.shape[2:]).numpy()
        planes = np.broadcast_to(planes, self.shape)
        return np.array(planes[0] if self.channel_axis is None else np.moveaxis(planes, 0, self.channel_axis))

    def to_signal(self, values: NDArray[Any]) -> Tensor:
        """Return an array of the layout that was observed as a signal of the posterior."""
        planes = values[None] if self.channel_axis is None else np.moveaxis(values, self.channel_axis, 0)
        start = self.posterior.start
        kept = planes[: start.shape[0] * start.shape[1]]
        return torch.from_numpy(np.ascontiguousarray(kept, dtype=np.float32)).reshape(start.shape)


def observe(
    values: NDArray[Any],
    denoise: Denoise,
    sigma: float | NDArray[Any] | None = None,
    *,
    channel_axis: int | None = None,
    compute: Compute | None = None,
) -> Observation:
    """Make a `Posterior` of noisy values.

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
        The axis of channels, if there is one. Channels that the denoiser does not take together are signals of their
        own.
    compute
        Device, precision, tiles.

    Raises
    ------
    UsageError
        Where an argument is wrong, or a value is not finite.
    """
    planes = _channels_first(values, channel_axis)
    level = _level(values, channel_axis, sigma, planes.shape[1:])
    settings = unet_settings(denoise)
    # A gray image stored as colour holds one noise three times; the denoiser would take it for three.
    same = len(planes) > 1 and settings is not None and bool((planes[1:] == planes[:1]).all())
    start = torch.from_numpy(planes[:1] if same else planes)
    together = settings is None or settings.channels == len(start)
    start = start[None] if together else start[:, None]
    return Observation(Posterior(Tiled(denoise, compute), start, level), planes.shape, channel_axis)


def as_sigma(values: NDArray[Any], channel_axis: int | None, sigma: float | None) -> float:
    """Return the noise level: as given, or estimated from the values."""
    return estimate_sigma(values, channel_axis) if sigma is None else sigma


def _channels_first(values: NDArray[Any], channel_axis: int | None) -> FloatArray:
    if values.size == 0:
        raise UsageError("there is nothing to restore: the array is empty")
    planes = values[None] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    planes = np.require(planes, np.float32, ["C", "W"])
    if not np.isfinite(planes).all():
        raise UsageError("some values are NaN or infinite; replace them before restoring")
    return planes


def _level(
    values: NDArray[Any], channel_axis: int | None, sigma: float | NDArray[Any] | None, shape: tuple[int, ...]
) -> Tensor:
    """Return the noise level as a number or as a map ``(1, 1, *space)``."""
    if not isinstance(sigma, np.ndarray):
        level = as_sigma(values, channel_axis, sigma)
        if not (np.isfinite(level) and level >= 0):
            raise UsageError(f"sigma is a finite number of at least 0; got {sigma}")
        return torch.tensor(float(level))
    level_map = np.require(sigma, np.float32, ["C", "W"])
    if level_map.shape != shape:
        raise UsageError(f"a map of sigma has the shape of the space, {shape}; got {level_map.shape}")
    if not (np.isfinite(level_map).all() and (level_map >= 0).all()):
        raise UsageError("a map of sigma holds finite numbers of at least 0")
    return torch.from_numpy(level_map)[None, None]
