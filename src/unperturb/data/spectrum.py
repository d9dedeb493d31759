"""The spectrum of noise over the cosines of a patch: what its lowest frequencies must be, and what neighbours share."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unperturb.data.noise import ATOMS, FREQUENCY, PATCH

Floats = NDArray[np.float64]

LOW_ENDS: Final = 5
"""Frequencies below this are of texture as well, in the flattest patches too."""

_WIDTHS: Final = (0.25, 0.35, 0.5, 0.65, 0.8, 1.0, 1.3, 1.7, 2.2)


def completed(spectrum: Floats) -> Floats:
    """Return a spectrum whose lowest frequencies, of which texture has its part, are those that the others imply.

    Noise is taken to be white noise and such that went through a Gaussian filter, of the width that fits best, along
    both axes or one (non-negative least squares: Lawson and Hanson, 1974).
    """
    from scipy.optimize import nnls

    known = FREQUENCY >= LOW_ENDS
    weight = 1 / np.maximum(spectrum[known], 1e-2 * spectrum[known].mean())
    fits = []
    for filtered in _FILTERED.T:
        parts = np.stack([np.ones_like(filtered), filtered], 1)
        shares, left = nnls(parts[known] * weight[:, None], spectrum[known] * weight)
        fits.append((left, parts @ shares))
    return np.where(known, spectrum, min(fits, key=lambda fit: fit[0])[1])


def _filtered(widths: tuple[float, float]) -> Floats:
    """Return the spectrum that white noise of variance 1 has after a Gaussian filter, a width an axis, ``(64,)``."""
    lag = np.arange(PATCH)
    axes = []
    for width in widths:
        common = np.exp(-np.square(lag) / (4 * width**2)) if width > 0 else (lag == 0).astype(np.float64)
        axes.append(common[np.abs(lag[:, None] - lag[None, :])])
    covariance = np.kron(*axes)
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


_FILTERED: Final = np.stack(
    [_filtered(pair) for width in _WIDTHS for pair in sorted({(width, width), (width, 0.0), (0.0, width)})], 1
)
"""``(64, filter)``."""
