"""How many digits numbers are written with: enough to tell what they differ in from where they all lie."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GOOD = 7
"""Digits that a guess is good for."""

UNKNOWN, EXACT = 12, 17
"""Digits where nothing is known of values, and digits that tell any two 64-bit floats apart."""


def digits_of(values: NDArray[Any]) -> int:
    """Return how many digits a guess among values is written with: seven of what the values differ in.

    Parameters
    ----------
    values
        Any shape; those that are not finite are not looked at.
    """
    known = values[np.isfinite(values)].astype(np.float64)
    reach = float(np.ptp(known)) if len(known) else 0.0
    if reach == 0:
        return UNKNOWN
    return min(EXACT, GOOD + max(0, int(np.log10(np.abs(known).max() / reach))))
