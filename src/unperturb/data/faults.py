"""What is wrong with recordings besides noise: clipping, single faulty pixels, rows and columns, JPEG, missing values.

Each is a plain statistic that a picture without the fault has next to nothing of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CLIPPED: Final = 1e-3
"""Share of pixels at an end of the range above which it is said to be clipped."""

_FAULTY: Final = 8.0
"""A pixel that is off by so many standard deviations of its surroundings' noise, alone, is faulty."""

_LINES: Final = 4.0
"""Standard errors that rows or columns have to be off by."""

_GRID: Final = 1.04
"""Steps across the grid of JPEG's blocks over all others, above which it is seen."""


@dataclass(frozen=True)
class Faults:
    """What was found, as shares of all pixels unless said otherwise.

    Attributes
    ----------
    dark, bright
        At the lowest and at the highest value there can be.
    faulty
        Far off all their neighbours.
    missing
        Not a number.
    rows, columns
        Standard deviation of what whole rows or columns have in common, in the units of the values; 0 where none is
        seen.
    grid
        Steps across the grid of JPEG's blocks over those elsewhere, along the axis where it is less: 1 where there is
        none.
    """

    dark: float
    bright: float
    faulty: float
    missing: float
    rows: float
    columns: float
    grid: float

    @property
    def clipped(self) -> bool:
        """Whether more than a few pixels are at an end."""
        return max(self.dark, self.bright) > _CLIPPED

    @property
    def compressed(self) -> bool:
        """Whether there are traces of JPEG."""
        return self.grid > _GRID


def find_faults(planes: Sequence[NDArray[Any]], sigma: float, ends: tuple[float, float] | None = None) -> Faults:
    """Look for faults.

    Parameters
    ----------
    planes
        ``(height, width)`` each, real; NaN where something is missing.
    sigma
        Standard deviation of their noise.
    ends
        The lowest and the highest value there can be; None where there are none, as in files of floats.
    """
    found = [_of_plane(np.asarray(plane, np.float64), sigma, ends) for plane in planes]
    weights = [plane.size for plane in planes]
    dark, bright, faulty, missing, rows, columns, grid = np.average(found, axis=0, weights=weights).tolist()
    return Faults(dark, bright, faulty, missing, float(np.sqrt(rows)), float(np.sqrt(columns)), grid)


def _of_plane(plane: Floats, sigma: float, ends: tuple[float, float] | None) -> tuple[float, ...]:
    missing = ~np.isfinite(plane)
    low, high = ends or (-np.inf, np.inf)
    filled = np.where(missing, np.median(plane[~missing]) if not missing.all() else 0.0, plane)
    return (
        float((plane <= low).mean()),
        float((plane >= high).mean()),
        _faulty_share(filled, sigma),
        float(missing.mean()),
        _lines(filled),
        _lines(filled.T),
        min(_grid(filled), _grid(filled.T)) if not missing.any() else 1.0,
    )


def _faulty_share(plane: Floats, sigma: float) -> float:
    """Share of pixels that are off by far, where their eight neighbours agree with each other."""
    if min(plane.shape) < 3:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(plane, (3, 3)).reshape(plane.shape[0] - 2, -1, 9)
    around = np.delete(windows, 4, axis=-1)
    middle = np.median(around, axis=-1)
    # What the neighbours differ by counts as noise: an edge or a texture is no fault.
    spread = np.maximum(around.max(-1) - around.min(-1), 2 * sigma)
    off = np.abs(windows[..., 4] - middle)
    return float((off > np.maximum(_FAULTY * sigma, 2 * spread)).mean()) if sigma > 0 else 0.0


def _lines(plane: Floats) -> float:
    """Variance of what whole rows have in common, beyond that of noise and texture; 0 where it is not seen.

    A row is compared with its two neighbours, column by column; the median over columns leaves edges out. What chance
    leaves of that is told from the columns' own spread.
    """
    height, width = plane.shape
    if height < 16 or width < 16:
        return 0.0
    second = plane[1:-1] - (plane[:-2] + plane[2:]) / 2
    middle = np.median(second, axis=1)
    # The median's standard error, of columns that tell little of each other only every few pixels.
    spread = np.median(np.abs(second - middle[:, None])) / 0.6745
    chance = (1.2533 * spread) ** 2 / (width / 3)
    found = (np.median(np.abs(middle)) / 0.6745) ** 2  # of most rows: a horizon is one row
    return float(max(found - chance, 0.0) / 1.5) if found > _LINES * chance else 0.0


def _grid(plane: Floats) -> float:
    """Return the steps between columns across the strongest of the eight grids over those of all others, at least."""
    if min(plane.shape) < 32:
        return 1.0
    # What a step is beyond its two neighbours': an edge in the picture is spread over some.
    steps = np.abs(np.diff(plane, axis=1))
    beyond = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2
    flat = steps.mean(1, keepdims=True) + 1e-12
    relative = (np.clip(beyond / flat, -2, 2)).mean(0)
    phases = np.array([relative[phase::8].mean() for phase in range(8)])
    strongest = int(phases.argmax())
    others = np.delete(phases, [strongest, (strongest + 1) % 8, (strongest - 1) % 8])
    chance = 4 * float(relative.std()) / np.sqrt(len(relative) / 8)  # of the strongest of eight
    return float(1 + max(phases[strongest] - others.mean() - chance, 0.0))
