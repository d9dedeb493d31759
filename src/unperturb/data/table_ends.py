"""Between which values the numbers of a column lie, as far as those that were observed can tell.

A missing cell may be larger than all that were observed, or smaller, where nothing speaks against it. What does:

    several cells share the end             a scale that ends there, an instrument that says no more
    all are shares, percents, positive      so are the others

Elsewhere the outermost cells tell how far beyond them others may be.
"""

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError

RARE = 0.05
"""Of cells beyond all that were observed of a column, the share that is farther out than is taken for possible."""

FEWEST = 20
"""Cells of a column that tell how far others may lie beyond them."""

CLEARLY = 1.3
"""How much likelier logarithms have to be, a cell. Those of lognormal numbers by themselves are so where they have a
standard deviation of 0.6 or more."""

DIFFERENT = 10
"""Values that a column has then at least: fewer are codes, or grades."""

_LARGEST = float(np.finfo(np.float64).max)

RANGES = ((0, 1), (-1, 1), (0, 100), (0, _LARGEST), (-_LARGEST, 0), (-_LARGEST, _LARGEST))
"""Of shares, correlations, percents, amounts: a column lies in the first of these that holds all that was observed."""


def ends_of(observed: NDArray[np.float64], *, logarithm: bool = False) -> tuple[float, float]:
    """Return the least and the greatest value that cells of a column are taken to have.

    Numbers that are all positive stay so: how far others lie below them is asked of their logarithms as well.

    Parameters
    ----------
    observed
        ``(cell,)``, at least one, finite.
    logarithm
        Whether its logarithms say as well how far others lie above; all are positive then.
    """
    size = float(np.abs(observed).max()) or 1.0  # differences of very large numbers are none
    low, high = float(observed.min()), float(observed.max())
    least, most = next(ends for ends in RANGES if ends[0] <= low and high <= ends[1])
    above = high * float(np.exp(_room(np.log(observed)))) if logarithm else high + size * _room(observed / size)
    least, most = max(least, low - size * _room(-observed / size)), min(most, above)
    if low > 0:
        least = max(least, low * float(np.exp(-_room(-np.log(observed)))))
    if high < 0:
        most = min(most, high * float(np.exp(-_room(-np.log(-observed)))))
    return least, most


def is_multiplied(observed: NDArray[np.float64]) -> bool:
    """Return whether numbers by themselves differ by factors rather than by amounts, as incomes do.

    They are all positive then, and their logarithms are likelier normal than they are themselves, by a factor of
    `CLEARLY` a cell (Box and Cox, "An analysis of transformations", 1964, section 3).

    Parameters
    ----------
    observed
        ``(cell,)``, at least one, finite.
    """
    if len(observed) < FEWEST or observed.min() <= 0 or len(np.unique(observed)) < DIFFERENT:
        return False
    logarithm = np.log(observed)
    middle = float(logarithm.mean())
    spread = np.std(np.exp(np.minimum(logarithm - middle, 300.0)))  # in units of their geometric mean
    return bool(spread > CLEARLY * logarithm.std())


def check_ends(values: NDArray[np.float64], name: str, low: float, high: float) -> None:
    """Refuse ends of a column that are no ends, or that something in it goes beyond.

    Parameters
    ----------
    values
        ``(cell,)``; NaN where missing.
    name
        What the column is called.
    low, high
        The ends.

    Raises
    ------
    UsageError
        Where they are.
    """
    if not low <= high:
        raise UsageError(f"{name} cannot lie between {low:g} and {high:g}; the lower one comes first")
    beyond = values[(values < low) | (values > high)]
    if len(beyond):
        raise UsageError(f"{name} does not lie between {low:g} and {high:g}: it has {beyond[0]:g}")


def _room(values: NDArray[np.float64]) -> float:
    """Return how far beyond the largest value of a column others may lie.

    Of n values that are alike but for chance, the next lies beyond all with probability 1 / (n + 1). By how much, the
    √n largest tell: by what they exceed the next one they follow a generalised Pareto distribution, whose shape and
    scale are found from mean and variance (Hosking and Wallis, "Parameter and quantile estimation for the generalized
    Pareto distribution", 1987, section 2). Heavier tails than that of an exponential are not followed.
    """
    ends = np.sort(values)[-round(len(values) ** 0.5) - 1 :]
    if len(values) < FEWEST or ends[-1] == ends[-2]:
        return 0.0
    excess = ends[1:] - ends[0]
    size = float(excess[-1])  # squares of what is very small are no numbers any more
    excess = excess / size
    mean = float(excess.mean())
    bounded = (mean * mean / float(excess.var(ddof=1)) - 1) / 2  # 0: exponential, 1: even
    bounded = min(max(bounded - len(excess) ** -0.5, 1e-6), 1.0)
    left = size * max(mean * (1 + bounded) - bounded, 0.0)
    return left * (1 - RARE**bounded) / bounded
