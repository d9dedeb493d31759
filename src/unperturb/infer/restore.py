"""The best guess: the posterior mean E[x | y] of an array of any size.

The call of the denoiser, ``denoise(y, sigma)``, with what a real array needs around it: the noise level where nobody
knows it, tiles where memory asks for them, all cores, and the precision that is fastest here.

An image may be looked at several times, turned and mirrored (`unperturb.infer.looks`). How often, `quality` says: once
("fast"), in all eight ways ("best"), or, "auto", as often as takes next to no time.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError
from unperturb.infer.condition import GUESS_STEPS, ApproximatelyConditioned
from unperturb.infer.even import even
from unperturb.infer.looks import QUALITIES, Plane, turns
from unperturb.infer.observe import FloatArray, Observation, as_sigma, checked, is_conditional, noise_of, observe
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.perturbation import Gaussian, Perturbation

Progress = Callable[[int, int], None]


def restore(
    values: NDArray[Any],
    denoise: Denoise,
    sigma: float | NDArray[Any] | None = None,
    *,
    channel_axis: int | None = None,
    missing: NDArray[np.bool_] | None = None,
    perturbation: Perturbation | None = None,
    quality: str = "auto",
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """Return the best guess of what is behind perturbed values.

    Where the denoiser is of a camera's noise no more is taken anywhere than noise of that brightness (`even`).

    Parameters
    ----------
    values
        ``(*space)`` or with one axis of channels; any real type, in any units.
    denoise
        A `Denoiser`, or any ``denoise(x, sigma) -> mean``.
    sigma
        Standard deviation of the noise in the units of `values`: a number, or a map of the shape of the space.
        Estimated where it is None; what has none, 0, comes back as it is. A conditional denoiser finds out by itself
        what noise there is; see `missing`.
    channel_axis
        The axis of channels, if there is one. Channels that the denoiser does not take together are restored one by
        one; of signals that lie far from 0, and elsewhere than each other, one at a time is taken.
    missing
        Boolean, of the shape of the space: True where values are missing, whatever stands there. The others come back
        as they are, bit for bit in float32, unless a `sigma` above 0, or `perturbation`, says that there is noise in
        them.
    perturbation
        What was done to the values, where it is known, for a model of noise alone; see `observe`.
    quality
        "fast": one look; "best": the average over eight flips and rotations, for images; "auto": over two or four of
        them where a model that `fit` has trained on images sees no more than 400,000 pixels in all, and asks no
        more than once for an answer; else one look.
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
    if quality not in QUALITIES:
        raise UsageError(f"quality is auto, fast or best; got {quality!r}")
    values, sigma, missing = checked(values, denoise, sigma, channel_axis, missing)
    block = denoise.block if isinstance(denoise, Denoiser) else 1
    plane = Plane(values, sigma, missing, channel_axis, block)
    if quality == "best" and not plane.is_image:
        raise UsageError("quality best turns and mirrors images; these values have another number of dimensions")
    plain = missing is None and (perturbation is None or isinstance(perturbation, Gaussian))
    looks = turns(quality, plane, denoise, one_call=plain or is_conditional(denoise))
    if len(looks) > 1 and plain and not is_conditional(denoise) and noise_of(perturbation, sigma) is None:
        plane = replace(plane, sigma=as_sigma(values, channel_axis, None))  # once, not for every look
    total: FloatArray | None = None
    for number, turn in enumerate(looks):
        turned = plane.turned(turn)
        observation = observe(
            turned.values,
            denoise,
            turned.sigma,
            channel_axis=channel_axis,
            missing=turned.missing,
            perturbation=perturbation,
            compute=compute,
        )
        _count(observation, progress, number, len(looks))
        mean = observation.to_array(observation.posterior.mean) / np.float32(len(looks))
        answer = plane.turned_back(mean, turn)
        total = answer if total is None else total + answer
    assert total is not None
    if missing is None and isinstance(denoise, Denoiser) and denoise.keeps_means and plane.is_image:
        return even(plane.values, total, channel_axis)
    undone = perturbation is not None and not is_conditional(denoise)  # then what was observed is not as it was
    return total if missing is None or sigma or undone else plane.kept(total)


def _count(observation: Observation, progress: Progress | None, turn: int, n_turns: int) -> None:
    """Tell of every tile that is done, in one of several turns."""
    posterior, rounds = observation.posterior, 1
    tiled = posterior.denoise
    if isinstance(tiled, ApproximatelyConditioned):
        tiled, rounds = tiled.denoise, GUESS_STEPS
    if progress is not None and isinstance(tiled, Tiled):
        per_turn = rounds * len(posterior.start) * len(tiled.tiles(posterior.start.shape[2:]))
        tiled.done = _counter(progress, turn * per_turn, n_turns * per_turn)


def _counter(progress: Progress, done: int, total: int) -> Callable[[], None]:
    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return count
