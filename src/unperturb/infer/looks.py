"""Several looks at one image: turned and mirrored, and each answer turned back.

Networks are trained on images that were turned and mirrored by chance: the mean that they learn does not change under
it; what they have learned of it does, a little, and that part of their error averages out. Of photographs it is 0.04 dB
with two looks, 0.06 with four, and 0.07 with all eight.

Noise may have a place of its own. Stripes of a sensor lie along rows: two or four looks leave rows where they are. And
JPEG begins its blocks at the top left, where images are perturbed in training: an image whose sides are no multiple of
a block's is continued by its mirror image, so that blocks begin there however it is turned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.network import UNetSettings

FloatArray = NDArray[np.float32]

QUALITIES = ("auto", "fast", "best")

ENOUGH = 400_000
"""Pixels that "auto" looks at in all, in a fifth of a second where there are matrix units: those of two looks at an
image of 447 × 447, or of four at one of 316 × 316. Images of 512 × 512 often come in thousands, and take one."""

UPRIGHT = (0, 2, 4, 6)
"""As it is, turned by a half, mirrored, both: turns of `Plane.turned` under which rows stay rows."""


@dataclass(frozen=True, eq=False)
class Plane:
    """An image, its noise level, what is missing of it, and where its channels are.

    Attributes
    ----------
    values
        ``(*space)`` or with one axis of channels.
    sigma
        A number, a map of the shape of the space, or None.
    missing
        Boolean, of the shape of the space; or None.
    channel_axis
        The axis of channels, if there is one.
    block
        Pixels of which sides are to be a multiple wherever it is turned.
    """

    values: NDArray[Any]
    sigma: float | NDArray[Any] | None
    missing: NDArray[np.bool_] | None
    channel_axis: int | None
    block: int = 1

    def turned(self, turn: int) -> "Plane":
        """Return all of it turned by quarters, ``turn % 4`` of them, and mirrored where `turn` is 4 or more."""
        if turn == 0:
            return self
        sigma = self._turned(self.sigma, turn, (0, 1)) if isinstance(self.sigma, np.ndarray) else self.sigma
        missing = None if self.missing is None else self._turned(self.missing, turn, (0, 1))
        return replace(self, values=self._turned(self.values, turn, self._space), sigma=sigma, missing=missing)

    def turned_back(self, answer: FloatArray, turn: int) -> FloatArray:
        """Return an answer to `turned` as one to this."""
        if turn == 0:
            return answer
        mirrored = np.flip(answer, self._space[1]) if turn >= 4 else answer
        upright = np.rot90(mirrored, -(turn % 4), self._space)
        return np.ascontiguousarray(upright[tuple(slice(length) for length in self.values.shape)])

    def kept(self, answer: FloatArray) -> FloatArray:
        """Return an answer with what was observed as it was."""
        assert self.missing is not None
        missing = self.missing if self.channel_axis is None else np.expand_dims(self.missing, self.channel_axis)
        return np.where(missing, answer, self.values.astype(np.float32))

    @property
    def is_image(self) -> bool:
        """Whether there are two axes of space."""
        return self.values.ndim - (self.channel_axis is not None) == 2

    def pixels(self, settings: UNetSettings) -> int:
        """Return how many a network sees in one look, which may be one at each channel."""
        channels = 1 if self._channels is None else self.values.shape[self._channels]
        together = channels == settings.channels
        return math.prod(self.values.shape) // (channels if together else 1)

    def _turned(self, values: NDArray[Any], turn: int, axes: tuple[int, int]) -> NDArray[Any]:
        beyond = [(0, -length % self.block if axis in axes else 0) for axis, length in enumerate(values.shape)]
        if any(after for _, after in beyond):
            values = np.pad(values, beyond, mode="reflect")
        turned = np.rot90(values, turn % 4, axes)
        return np.ascontiguousarray(np.flip(turned, axes[1]) if turn >= 4 else turned)

    @property
    def _space(self) -> tuple[int, int]:
        rows, columns = (axis for axis in range(self.values.ndim) if axis != self._channels)
        return rows, columns

    @property
    def _channels(self) -> int | None:
        return None if self.channel_axis is None else self.channel_axis % self.values.ndim


def turns(quality: str, plane: Plane, denoise: Denoise, *, one_call: bool) -> Sequence[int]:
    """Return in which ways to look at an image.

    Parameters
    ----------
    quality
        One of `QUALITIES`: "fast" is one look, "best" all eight, "auto" as many as see no more than `ENOUGH` pixels,
        one, two or four, by a model of images that `fit` has trained, and else one.
    plane
        The image.
    denoise
        What looks at it.
    one_call
        Whether a look is no more than one call of that.
    """
    if quality == "best":
        return range(8)
    known = turned_in_training(denoise)
    if quality == "fast" or not one_call or not plane.is_image or known is None:
        return UPRIGHT[:1]
    seen = plane.pixels(known)
    return next(UPRIGHT[:looks] for looks in (4, 2, 1) if looks == 1 or looks * seen <= ENOUGH)


def turned_in_training(denoise: Denoise) -> UNetSettings | None:
    """Return the settings of a network that `fit` has trained on images, turned and mirrored by chance.

    None of all else: of functions, and of networks that others have trained, nobody knows whether they may be turned.
    """
    known = denoise.card.network if isinstance(denoise, Denoiser) and denoise.card.training else None
    return known if isinstance(known, UNetSettings) else None
