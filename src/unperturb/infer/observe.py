"""An array as people have them, of any size, gray or in colour, as a `Posterior`, and the way back.

Which posterior depends on what was done to the array, and on what the model is:

    noise                                   Posterior(denoise, values, sigma)
    noise that grows with brightness        the same, with a map of sigma from a first answer (`counted`)
    anything, and a conditional model       the model is bound to the values, and the start says nothing
    missing values, blur, lost resolution,  approximately, by `unperturb.infer.condition`
    and a model of noise alone
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.data.noise import estimate_sigma, estimate_white
from unperturb.errors import ModelError, UsageError
from unperturb.infer.condition import observed_posterior
from unperturb.infer.counted import counted_posterior
from unperturb.infer.moved import moved
from unperturb.infer.posterior import Posterior, blind_posterior
from unperturb.infer.tiled import Compute, Tiled, unet_settings
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.linear import Likelihood, likelihood_of, mask_operator
from unperturb.model.perturbation import Gaussian, Perturbation
from unperturb.model.stabilise import stabiliser

FloatArray = NDArray[np.float32]


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
    missing: NDArray[np.bool_] | None = None,
    perturbation: Perturbation | None = None,
    compute: Compute | None = None,
    placed: bool = False,
) -> Observation:
    """Make a `Posterior` of noisy or otherwise perturbed values.

    Parameters
    ----------
    values
        ``(*space)`` or with one axis of channels; any real type, in any units.
    denoise
        A `Denoiser`, or any ``denoise(x, sigma) -> mean``.
    sigma
        Standard deviation of the noise in the units of `values`: a number, or a map of the shape of the space.
        Estimated where it is None; what has none, 0, comes back as it is. A conditional denoiser finds out by itself
        what noise there is; where values are missing it is told whether there is any: None and 0 mean that those which
        are there are kept as they are.
    channel_axis
        The axis of channels, if there is one. Channels that the denoiser does not take together are signals of their
        own.
    missing
        Boolean, of the shape of the space: True where values are missing, whatever stands there.
    perturbation
        What was done to the values, where it is known, for a model of noise alone: Gaussian noise, or that of counting
        (``poisson``, ``poisson-gaussian``). With blur or lost resolution, and Gaussian noise after it, the answer is
        approximate (`unperturb.infer.condition`), and so it is with missing values. A conditional model knows what it
        was trained for.
    compute
        Device, precision, tiles.
    placed
        Whether a signal's values are in units of its channel, of which they may be a part, as its model learned them.
        Others are asked for about their median, in units of their standard deviation.

    Raises
    ------
    UsageError
        Where an argument is wrong, or a value is not finite.
    ModelError
        Where the denoiser is for another number of dimensions.
    """
    values, sigma, missing = checked(values, denoise, sigma, channel_axis, missing)
    planes = _channels_first(values, channel_axis, missing)
    settings = unet_settings(denoise)
    if settings is not None and settings.dims != planes.ndim - 1:
        told = "" if channel_axis is None else f", the channels of which are on axis {channel_axis}"
        raise ModelError(
            f"the model takes {settings.dims}-dimensional signals; got values of shape {values.shape}{told}"
        )
    # A gray image stored as colour holds one noise three times; the denoiser would take it for three.
    same = len(planes) > 1 and settings is not None and bool((planes[1:] == planes[:1]).all())
    start = torch.from_numpy(planes[:1] if same else planes)
    together = settings is None or settings.channels == len(start)
    start = start[None] if together else start[:, None]
    if is_conditional(denoise):
        strength = 0.0 if sigma is None else float(np.mean(sigma))
        conditional = moved(denoise, planes, strength, missing, placed=placed)
        posterior = _conditioned(conditional, start, sigma, missing, compute)
    elif missing is None and (perturbation is None or isinstance(perturbation, Gaussian)):
        stated = noise_of(perturbation, sigma)
        if stated is None and planes.ndim == 2:
            level = torch.tensor([_strength_in(each) for each in start.numpy()])
        else:
            level = _level(values, channel_axis, stated, planes.shape[1:])
        known = moved(denoise, planes, float(level.max()), placed=placed)
        posterior = Posterior(Tiled(known, compute), start, level)
    elif missing is None and (counting := stabiliser(perturbation, planes)) is not None:
        posterior = counted_posterior(start, Tiled(denoise, compute), counting)
    else:
        likelihood = _likelihood(start, sigma, missing, perturbation)
        known = moved(denoise, planes, likelihood.sigma, missing, placed=placed)
        posterior = observed_posterior(known, likelihood, compute=compute)
    return Observation(posterior, planes.shape, channel_axis)


def checked(
    values: NDArray[Any],
    denoise: Denoise,
    sigma: float | NDArray[Any] | None,
    channel_axis: int | None,
    missing: NDArray[np.bool_] | None,
) -> tuple[NDArray[Any], float | NDArray[Any] | None, NDArray[np.bool_] | None]:
    """Return values, noise level and what is missing as numbers and arrays; arguments as for `observe`.

    Raises
    ------
    UsageError
        Where one is of another kind.
    """
    if np.ma.is_masked(values):
        raise UsageError("values are a masked array: give its data, and its mask as missing")
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise UsageError(f"values are real numbers; got {values.dtype}")
    axes = range(-values.ndim, values.ndim)
    whole = isinstance(channel_axis, int | np.integer) and not isinstance(channel_axis, bool)
    if channel_axis is not None and not (whole and channel_axis in axes):
        raise UsageError(
            f"channel_axis is one of the axes of the values, of shape {values.shape}; got {channel_axis!r}"
        )
    if values.ndim - (channel_axis is not None) < 1:
        raise UsageError(f"values have an axis of space at least; got shape {values.shape}")
    if not callable(denoise):
        raise UsageError(
            f"what denoises is a model, or a function of x and sigma; got {denoise!r}: unperturb.load reads models"
        )
    if sigma is not None:
        level = np.asarray(sigma)
        if level.dtype.kind not in "biuf":
            raise UsageError(f"sigma is a number, or a map of numbers; got {sigma!r}")
        sigma = level if level.ndim else float(level)
    return values, sigma, None if missing is None else np.asarray(missing)


def is_conditional(denoise: Denoise) -> TypeGuard[Denoiser]:
    """Whether a denoise function is a model that has to be given an observation first."""
    return isinstance(denoise, Denoiser) and denoise.card.network.given


def as_sigma(values: NDArray[Any], channel_axis: int | None, sigma: float | None) -> float:
    """Return the noise level of an image: as given, or estimated from the values."""
    return estimate_sigma(values, channel_axis) if sigma is None else sigma


def _strength_in(channels: FloatArray) -> float:
    """Return the white noise in a signal ``(channel, T)``, in the mean over channels that are taken together."""
    return float(np.sqrt(np.mean([estimate_white(channel) ** 2 for channel in channels])))


def _conditioned(
    denoise: Denoiser,
    seen: Tensor,
    sigma: float | NDArray[Any] | None,
    missing: NDArray[np.bool_] | None,
    compute: Compute | None,
) -> Posterior:
    if isinstance(sigma, np.ndarray):
        raise UsageError("a conditional model takes one noise level, not a map")
    if sigma is not None and not (np.isfinite(sigma) and sigma >= 0):
        raise UsageError(f"sigma is a finite number of at least 0; got {sigma}")
    if missing is None:
        return blind_posterior(denoise.given(seen), compute)
    observed = torch.from_numpy(~missing)[None, None].expand(len(seen), 1, *missing.shape)
    return blind_posterior(denoise.given(seen, observed, 0.0 if sigma is None else sigma), compute)


def noise_of(perturbation: Perturbation | None, sigma: float | NDArray[Any] | None) -> float | NDArray[Any] | None:
    """Return the noise level that was told, or that a perturbation states."""
    stated = perturbation.sigma if isinstance(perturbation, Gaussian) else None
    return stated if sigma is None and isinstance(stated, float) else sigma


def _likelihood(
    seen: Tensor,
    sigma: float | NDArray[Any] | None,
    missing: NDArray[np.bool_] | None,
    perturbation: Perturbation | None,
) -> Likelihood:
    """Return what was seen, for a model of noise alone."""
    if isinstance(sigma, np.ndarray):
        raise UsageError("with missing values, or blur, there is one noise level, not a map")
    mask = None if missing is None else torch.from_numpy(~missing)[None, None]
    if perturbation is not None and not isinstance(perturbation, Gaussian):
        return likelihood_of(perturbation, seen, mask)
    assert mask is not None
    level = noise_of(perturbation, sigma)
    assert not isinstance(level, np.ndarray)
    return Likelihood(mask_operator(mask), seen, 0.0 if level is None else level)


def _dense(values: NDArray[Any]) -> FloatArray:
    """Return values as torch takes them; numpy finds an axis of one in order that goes backwards."""
    dense = np.require(values, np.float32, ["C", "W"])
    return dense.copy() if min(dense.strides, default=0) < 0 else dense


def _channels_first(
    values: NDArray[Any], channel_axis: int | None, missing: NDArray[np.bool_] | None = None
) -> FloatArray:
    if values.size == 0:
        raise UsageError("there is nothing to restore: the array is empty")
    planes = values[None] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    planes = _dense(planes)
    if missing is not None:
        if missing.dtype != bool or missing.shape != planes.shape[1:]:
            raise UsageError(
                f"what is missing is told by a boolean array of shape {planes.shape[1:]}; got {missing.dtype} of shape "
                f"{missing.shape}"
            )
        planes = np.where(missing, np.float32(0), planes)
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
    level_map = _dense(sigma)
    if level_map.shape != shape:
        raise UsageError(f"a map of sigma has the shape of the space, {shape}; got {level_map.shape}")
    if not (np.isfinite(level_map).all() and (level_map >= 0).all()):
        raise UsageError("a map of sigma holds finite numbers of at least 0")
    return torch.from_numpy(level_map)[None, None]
