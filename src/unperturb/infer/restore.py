"""The best guess: the posterior mean E[x | y] of an array of any size.

The call of the denoiser, ``denoise(y, sigma)``, with what a real array needs around it: the noise level where nobody
knows it, tiles where memory asks for them, all cores, and the precision that is fastest here.

An image may be looked at several times, turned and mirrored, and the answers averaged. Networks are trained on images
that were turned and mirrored by chance: the mean that they learn does not change under it; what they have learned of it
does, a little, and that part of their error averages out. How often, `quality` says: once ("fast"), in all eight ways
("best"), or, "auto", as often as takes next to no time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError
from unperturb.infer.condition import GUESS_STEPS, ApproximatelyConditioned
from unperturb.infer.even import even
from unperturb.infer.observe import FloatArray, Observation, as_sigma, checked, is_conditional, observe
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.perturbation import Perturbation

Progress = Callable[[int, int], None]

QUALITIES = ("auto", "fast", "best")

ENOUGH = 1 << 19
"""Pixels that "auto" looks at in all, in a quarter of a second where there are matrix units: those of one look at an
image of 724 × 724, or of four at one of half that side."""

UPRIGHT = (0, 2, 4, 6)
"""As it is, turned by a half, mirrored, both: ways in which rows stay rows, as do stripes of a sensor."""


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
        them where a model of images that `fit` has trained sees no more than `ENOUGH` pixels in all, else one look.
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
    plane = _Plane(values, sigma, missing, channel_axis)
    if quality == "best" and not plane.is_image:
        raise UsageError("quality best turns and mirrors images; these values have another number of dimensions")
    noise_alone = missing is None and perturbation is None and not is_conditional(denoise)
    one_call = noise_alone or is_conditional(denoise)
    turns = _turns(quality, plane, denoise if one_call else None)
    if len(turns) > 1 and sigma is None and noise_alone:
        plane = replace(plane, sigma=as_sigma(values, channel_axis, None))  # once, not for every turn
    total: FloatArray | None = None
    for number, turn in enumerate(turns):
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
        _count(observation, progress, number, len(turns))
        answer = turned.turned_back(observation.to_array(observation.posterior.mean), turn)
        total = answer if total is None else total + answer
    assert total is not None
    result = total / np.float32(len(turns))
    if missing is None and isinstance(denoise, Denoiser) and denoise.keeps_means and plane.is_image:
        return even(plane.values, result, channel_axis)
    undone = perturbation is not None and not is_conditional(denoise)  # then what was observed is not as it was
    return result if missing is None or sigma or undone else plane.kept(result)


@dataclass(frozen=True, eq=False)
class _Plane:
    """An image, its noise level, what is missing of it, and where its channels are."""

    values: NDArray[Any]
    sigma: float | NDArray[Any] | None
    missing: NDArray[np.bool_] | None
    channel_axis: int | None

    def turned(self, turn: int) -> "_Plane":
        """Return all of it turned by quarters, ``turn % 4`` of them, and mirrored where `turn` is 4 or more."""
        if turn == 0:
            return self
        sigma = _turned(self.sigma, turn) if isinstance(self.sigma, np.ndarray) else self.sigma
        missing = None if self.missing is None else _turned(self.missing, turn)
        return replace(self, values=_turned(self.values, turn, self._space), sigma=sigma, missing=missing)

    def turned_back(self, answer: FloatArray, turn: int) -> FloatArray:
        """Undo `turned`."""
        rows, columns = self._space if turn else (0, 1)
        mirrored = np.flip(answer, columns) if turn >= 4 else answer
        return np.ascontiguousarray(np.rot90(mirrored, -(turn % 4), (rows, columns))) if turn else answer

    def kept(self, answer: FloatArray) -> FloatArray:
        """Return an answer with what was observed as it was."""
        assert self.missing is not None
        missing = self.missing if self.channel_axis is None else np.expand_dims(self.missing, self.channel_axis)
        return np.where(missing, answer, self.values.astype(np.float32))

    @property
    def is_image(self) -> bool:
        """Whether there are two axes of space."""
        return self.values.ndim - (self.channel_axis is not None) == 2

    @property
    def pixels(self) -> int:
        """How many there are."""
        return math.prod(self.values.shape[axis] for axis in self._space)

    @property
    def _space(self) -> tuple[int, int]:
        rows, columns = (axis for axis in range(self.values.ndim) if axis != self._channels)
        return rows, columns

    @property
    def _channels(self) -> int | None:
        return None if self.channel_axis is None else self.channel_axis % self.values.ndim


def _turns(quality: str, plane: _Plane, denoise: Denoise | None) -> Sequence[int]:
    """Return in which ways an image is looked at; `denoise` is None where a look is more than one call."""
    if quality == "best":
        return range(8)
    trained = isinstance(denoise, Denoiser) and bool(denoise.card.training)  # on images that were turned and mirrored
    if quality == "fast" or not trained or not plane.is_image:
        return UPRIGHT[:1]
    return next(UPRIGHT[:looks] for looks in (4, 2, 1) if looks == 1 or looks * plane.pixels <= ENOUGH)


def _turned(values: NDArray[Any], turn: int, axes: tuple[int, int] = (0, 1)) -> NDArray[Any]:
    turned = np.rot90(values, turn % 4, axes)
    return np.ascontiguousarray(np.flip(turned, axes[1]) if turn >= 4 else turned)


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
