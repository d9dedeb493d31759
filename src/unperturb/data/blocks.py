"""Patches of 8 × 8 pixels of recordings, and the energies of their cosine transforms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unperturb.data.noise import APART, ATOMS, MID, PATCH
from unperturb.errors import UsageError

Floats = NDArray[np.float64]

FOLDS: Final = 10
"""Parts that patches are shared out to, as blocks of space."""

MOST: Final = 200_000
"""Patches of all planes together."""

_BLOCK: Final = 32
_EVEN: Final = 1e-16
"""Energy, in units of the scale squared, that is that of rounding in the transform itself."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Patches of all planes.

    Attributes
    ----------
    energy
        ``(patch, 64)``: the squares of their cosine transforms.
    mean
        ``(patch,)``: their brightness.
    fold
        ``(patch,)``: the part that each is in.
    independent
        The share of them that counts: those that overlap tell the same.
    """

    energy: NDArray[np.float32]
    mean: Floats
    fold: NDArray[np.intp]
    independent: float

    def without(self, fold: int) -> "Blocks":
        """Return all but those of one fold."""
        kept = self.fold != fold
        return Blocks(self.energy[kept], self.mean[kept], self.fold[kept], self.independent)


def cut(planes: Sequence[NDArray[Any]], again: Sequence[NDArray[Any]], scale: float = 1.0) -> Blocks:
    """Return patches of all planes, about as many of each, in units of a scale.

    Those with a value missing, or at an end of its plane's range, are left out as far as there are others.
    """
    if any(np.ndim(plane) != 2 for plane in (*planes, *again)):
        raise UsageError("noise is measured in planes (height, width); give a list of them, one for each channel")
    if again and [plane.shape for plane in planes] != [plane.shape for plane in again]:
        raise UsageError("the second shots are not as many as the first, or of other sizes; give two of each thing")
    energies, means, folds, independent = [], [], [], 0.0
    most = max(500, MOST // max(len(planes), 1))
    for number, plane in enumerate(planes):
        height, width = (max(length - PATCH + 1, 0) for length in plane.shape)
        if not height * width:
            continue
        stride = 1
        while (height // stride) * (width // stride) > most:
            stride += 2  # odd, so that all places in the grid of JPEG are met
        first = _windows(plane, stride) / scale
        second = _windows(again[number], stride) / scale if again else first
        usable = _usable(first) & _usable(second)
        rows, columns = np.divmod(np.flatnonzero(usable), -(-width // stride))
        first, second = first[usable], second[usable]
        noisy = (first - second) / np.sqrt(2) if again else first
        energies.append(np.square(noisy @ ATOMS.T).astype(np.float32))
        means.append((first.mean(1) + second.mean(1)) / 2)
        independent += len(first) * min(1.0, (stride / APART) ** 2)
        folds.append((number + rows * stride // _BLOCK * 7 + columns * stride // _BLOCK * 3) % FOLDS)
    if not sum(map(len, means)):
        raise UsageError("there is no place of 8 × 8 pixels without a value missing; give larger images")
    brightness = np.concatenate(means)
    return Blocks(np.concatenate(energies), brightness, np.concatenate(folds), independent / len(brightness))


def _windows(plane: NDArray[Any], stride: int) -> Floats:
    """Return patches of a plane, ``(patch, 64)``."""
    values = np.asarray(plane, np.float64)
    return np.lib.stride_tricks.sliding_window_view(values, (PATCH, PATCH))[::stride, ::stride].reshape(-1, PATCH**2)


def above_rounding(patches: Blocks, step: float) -> Blocks:
    """Leave out patches that rounding or compression has made flat, as far as there are others.

    Raises
    ------
    UsageError
        Where all are perfectly even.
    """
    energy = patches.energy[:, MID].mean(1)
    if not (energy > _EVEN).any():
        raise UsageError("there is no noise in it: all there is is perfectly even, or a second shot is the first")
    lively = energy > max(step**2 / 24, _EVEN)
    if lively.mean() < 0.1:
        return patches
    return Blocks(patches.energy[lively], patches.mean[lively], patches.fold[lively], patches.independent)


def _usable(patches: Floats) -> NDArray[np.bool_]:
    """Say which patches are whole and away from the ends of all values; where hardly any are, which are whole."""
    whole: NDArray[np.bool_] = np.asarray(np.isfinite(patches).all(1))
    if not whole.any():
        return whole
    low, high = patches[whole].min(), patches[whole].max()
    inside = np.array(whole & (patches.min(1) > low) & (patches.max(1) < high))
    return inside if inside.sum() > 0.05 * whole.sum() else whole
