"""Which coloured noise has a given autocorrelation: the way back from what was measured to a spec.

The power of coloured noise is S(f) ∝ (f² + 1 / length²)^(−exponent / 2) (`unperturb.model.coloured`); its
autocorrelation is the Fourier transform of that.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

EXPONENTS: Final = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6)
LENGTHS: Final = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12, 16, 24, 32)
_GRID: Final = 128


def matching(autocorrelation: NDArray[np.float64]) -> tuple[float, float]:
    """Return exponent and length, of those tried, whose noise has most nearly this autocorrelation.

    Parameters
    ----------
    autocorrelation
        At distances of 0, 1, … pixels along an axis of an image, 1 at the first.
    """
    candidates = [(exponent, length) for exponent in EXPONENTS for length in LENGTHS]
    distances = [float(np.square(common(*each, len(autocorrelation)) - autocorrelation).sum()) for each in candidates]
    exponent, length = candidates[int(np.argmin(distances))]
    return float(exponent), float(length)


def common(exponent: float, length: float, count: int) -> NDArray[np.float64]:
    """Return the autocorrelation of coloured noise in images at distances of 0 … `count` − 1 pixels along an axis."""
    frequency = np.fft.fftfreq(_GRID)
    square = frequency[:, None] ** 2 + frequency[None, :] ** 2
    power = (1 + square * length**2) ** (-exponent / 2)
    correlation = np.fft.ifft(power.sum(0)).real
    found: NDArray[np.float64] = correlation[:count] / correlation[0]
    return found
