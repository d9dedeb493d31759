"""A best guess of missing pixels, polished by a denoiser of noise.

The one call of a conditional network is all it does for E[x | y], and a network that has learned of everything that may
be missing has learned of each a little. A denoiser of white noise has learned one thing well. So an answer x₀ that is
almost right is taken for a noisy one, at levels that fall, and what was observed is put back after every step:

    x_{k+1} = x_k + ω_k (D(x_k, σ_k) − x_k) where pixels are missing,    y where they were observed

(Venkatakrishnan, Bouman and Wohlberg, "Plug-and-play priors for model based reconstruction", 2013; with levels that
fall: Zhang, Li, Zuo, Zhang, Van Gool and Timofte, "Plug-and-play image restoration with deep denoiser prior", 2021).
**This is approximate**: what comes out is nearer to the truth in most images, and is not the posterior mean. Where
signals are Gaussian the steps end, as σ falls to 0, at E[x | y]; where they are not, near a likely x: so they begin no
higher than the error of a good answer, and what is open stays as open as that has left it. A network looks at every
step in another of the eight ways to turn and mirror an image, so that its own errors do not add up.

Steps go further than D says, ω > 1. Where a denoiser is the gradient of something convex no step overshoots for good
that is less than twice as long (Eckstein and Bertsekas, "On the Douglas-Rachford splitting method and the proximal
point algorithm for maximal monotone operators", 1992); the first is twice as long, the last as long as it is.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError
from unperturb.infer.looks import FloatArray, Plane, turned_in_training
from unperturb.infer.observe import checked, is_conditional, observe
from unperturb.infer.tiled import HALO, Compute, unet_settings
from unperturb.model.denoiser import Denoise

STEPS = {"fast": 0, "auto": 8, "best": 16}
"""Evaluations of the denoiser, by the quality of an answer. Chosen on training images: on twelve crops where half the
pixels are missing 8 add 1.0 dB and 24 1.3, where 80 % are 0.5 and 0.7; but on sixteen of rougher photographs 24 add
no more than 16, and make single ones worse. Never turned, 16 add 0.07 dB less where half is missing."""

RELAXATION = 2.0
"""How far the first step goes towards the denoiser's answer; the last goes 1, those between in proportion.

Eight steps do as much as twelve to fifteen that all go 1: on eight crops of other photographs, half of whose pixels are
missing, 0.59 dB beside 0.44 (sixteen of those 0.61), and 0.45 beside 0.32 in holes of 16 (0.49)."""

CAVEAT = "approximate: nearer to the truth in most photographs, and not the posterior mean"
"""What is said of answers that were polished."""

LEVELS = (0.12, 0.02)
"""First and last noise level, in units of the standard deviation of what was observed: of a photograph in [0, 1], about
0.03 and 0.005. From 0.05 to 0.02 there is little gained; 0.03 alone takes away."""


def polish(
    answer: NDArray[np.float32],
    missing: NDArray[np.bool_],
    denoise: Denoise,
    *,
    channel_axis: int | None = None,
    steps: int = STEPS["auto"],
    compute: Compute | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FloatArray:
    """Return a best guess of missing pixels that a denoiser of noise finds little to object to; approximate.

    Parameters
    ----------
    answer
        ``(H, W)`` or with one axis of channels: what was observed, without noise, and a best guess of what was not, as
        `restore` answers where it is told what is missing.
    missing
        Boolean, ``(H, W)``: what was not observed.
    denoise
        Of white noise: a `Denoiser` for images, such as the bundled ``natural``, or any ``denoise(x, sigma) -> mean``.
    channel_axis
        The axis of channels, if there is one. Those that the denoiser does not take together are polished one by one.
    steps
        Evaluations of the denoiser, of what is missing and what is near.
    compute
        Device, precision, tiles.
    progress
        Called with the steps done and all there are.

    Returns
    -------
    ndarray
        Shape of `answer`, float32; what was observed is there as it is.

    Raises
    ------
    UsageError
        Where an argument is wrong, a value is not finite, or the denoiser is a conditional one.
    """
    values, _, _ = checked(answer, denoise, None, channel_axis, None)
    hole = np.asarray(missing)
    if is_conditional(denoise):
        raise UsageError("an answer is polished by a denoiser of noise; this one has to be given an observation")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
        raise UsageError(f"steps are a whole number of at least 0; got {steps!r}")
    planes = _planes(values, hole, channel_axis)
    settings = unet_settings(denoise)
    together = settings is None or settings.channels == len(planes)
    done = _Steps(steps * (1 if together else len(planes)), progress)
    for part in [planes] if together else planes[:, None]:
        _polish(part, hole, denoise, steps, compute, done)
    done.end()
    return np.ascontiguousarray(planes[0] if channel_axis is None else np.moveaxis(planes, 0, channel_axis))


def _planes(values: NDArray[Any], hole: NDArray[Any], channel_axis: int | None) -> FloatArray:
    """Return a copy of the channels of an image, ``(C, H, W)``; errors as for `polish`."""
    planes = values[None] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    if planes.ndim != 3:
        raise UsageError(
            f"an image has two axes, and one of channels where it is told; got values of shape {values.shape}"
        )
    if hole.dtype != bool or hole.shape != planes.shape[1:]:
        told = f"{hole.dtype} of shape {hole.shape}"
        raise UsageError(f"what is missing is told by a boolean array of shape {planes.shape[1:]}; got {told}")
    planes = planes.astype(np.float32)
    if not np.isfinite(planes).all():
        raise UsageError("some values are NaN or infinite: an answer has none, where anything was observed")
    return planes


def _polish(
    planes: FloatArray,
    hole: NDArray[np.bool_],
    denoise: Denoise,
    steps: int,
    compute: Compute | None,
    done: Callable[[], None],
) -> None:
    """Polish channels ``(C, H, W)`` that a denoiser takes together, in place."""
    unit = _unit(planes[:, ~hole])
    if unit == 0 or not hole.any():
        return
    box = (slice(None), *_around(hole))
    part, hidden = planes[box], hole[box[1:]]
    turns = range(1 if turned_in_training(denoise) is None else 8)
    levels = np.geomspace(*LEVELS, steps) * unit
    lengths = np.linspace(1, RELAXATION, steps, dtype=np.float32)[::-1]
    for step, (level, length) in enumerate(zip(levels, lengths, strict=True)):
        plane, turn = Plane(part, None, None, 0), turns[step % len(turns)]
        seen = observe(plane.turned(turn).values, denoise, float(level), channel_axis=0, compute=compute)
        answer = plane.turned_back(seen.to_array(seen.posterior.mean), turn)
        part = np.where(hidden, part + length * (answer - part), part)
        done()
    planes[box] = part


class _Steps:
    """Counts steps, and tells of them."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def end(self) -> None:
        """Tell of those that there was nothing to do in."""
        if self.done < self.total and self.progress is not None:
            self.progress(self.total, self.total)


def _around(hole: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box of what is missing, and of what a network sees around it."""
    box = []
    for axis, length in enumerate(hole.shape):
        where = np.flatnonzero(hole.any(1 - axis))
        box.append(slice(max(0, where[0] - HALO), min(length, where[-1] + 1 + HALO)))
    return tuple(box)


def _unit(observed: FloatArray) -> float:
    """Return the standard deviation of what was observed, ``(channel, value)``, in its channel; 0 of nothing."""
    return float(np.sqrt(observed.astype(np.float64).var(1).mean())) if observed.size else 0.0
