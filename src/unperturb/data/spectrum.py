"""The spectrum of noise over the cosines of a patch: what its lowest frequencies must be, and what neighbours share."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unperturb.data.noise import ATOMS, FREQUENCY, PATCH

Floats = NDArray[np.float64]

LOWEST_ENDS: Final = 2
"""Frequencies below this are of gradients as well, in the flattest patches too."""

_WIDTHS: Final = (0.25, 0.35, 0.5, 0.65, 0.8, 1.0, 1.3, 1.7, 2.2)
_BOX_WIDTHS: Final = (2, 3, 4)


def completed(spectrum: Floats) -> Floats:
    """Return a spectrum whose lowest frequencies, of which texture has its part, are those that the others imply.

    Noise is taken to be white noise and such that went through a filter, along both axes or one: a Gaussian one or a
    mean of neighbours, whichever fits best (non-negative least squares: Lawson and Hanson, 1974).
    """
    from scipy.optimize import nnls

    known = FREQUENCY >= LOWEST_ENDS
    weight = 1 / np.maximum(spectrum[known], 1e-2 * spectrum[known].mean())
    fits = []
    for filtered in _FILTERED.T:
        parts = np.stack([np.ones_like(filtered), filtered], 1)
        shares, left = nnls(parts[known] * weight[:, None], spectrum[known] * weight)
        fits.append((left, parts @ shares))
    return np.where(known, spectrum, min(fits, key=lambda fit: fit[0])[1])


def _gaussian(width: float) -> Floats:
    """Return the autocorrelation of noise after a Gaussian filter, at distances of 0 … 7 pixels."""
    return np.exp(-np.square(np.arange(PATCH)) / (4 * width**2))


def _mean_of(side: int) -> Floats:
    """Return that of noise of which so many neighbours were averaged."""
    return np.clip(1 - np.arange(PATCH) / side, 0, 1)


def _filtered(axes: tuple[Floats, Floats]) -> Floats:
    """Return the spectrum of noise of variance 1, of its autocorrelation along both axes, ``(64,)``."""
    apart = np.abs(np.arange(PATCH)[:, None] - np.arange(PATCH)[None, :])
    covariance = np.kron(*(common[apart] for common in axes))
    return np.einsum("kp,pq,kq->k", ATOMS, covariance, ATOMS)


def autocorrelation(spectrum: Floats) -> Floats:
    """Return what the spectrum of cosines says of the correlation along an axis, the mean of both, ``(8,)``."""
    covariance = (ATOMS.T * spectrum) @ ATOMS  # of the pixels of a patch
    grid = covariance.reshape(PATCH, PATCH, PATCH, PATCH)
    found = []
    for distance in range(PATCH):
        pairs = [
            *(grid[row, column, row, column + distance] for row in range(PATCH) for column in range(PATCH - distance)),
            *(grid[row, column, row + distance, column] for row in range(PATCH - distance) for column in range(PATCH)),
        ]
        found.append(float(np.mean(pairs)))
    return np.array(found) / found[0]


_UNFILTERED: Final = _mean_of(1)
_COMMON: Final = [*map(_gaussian, _WIDTHS), *map(_mean_of, _BOX_WIDTHS)]
_FILTERED: Final = np.stack(
    [
        _filtered(axes)
        for common in _COMMON
        for axes in ((common, common), (common, _UNFILTERED), (_UNFILTERED, common))
    ],
    1,
)
"""``(64, filter)``."""
