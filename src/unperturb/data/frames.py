"""Frames of a stack that show the same thing: which follow each other, and whether something moved in between.

Two frames of what stands still differ by noise alone, and one can be learned from against the other. What moved, or
got brighter, is in the difference as well: in every block d = y − y′ is then, to first order,

    d ≈ c + u · ∇s,        s = (y + y′) / 2, smoothed;  u: a small shift,  c: a change of brightness

Noise has no part in that: of two noises of equal strength difference and sum are uncorrelated. What the best u explains
by chance is measured as well, with gradients that are mirrored and belong nowhere. Source of the first-order model:
Lucas and Kanade, "An iterative image registration technique", IJCAI 1981.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.recording import Index, Recording

STILL = 0.05
"""Energy of what changed over that of the noise, up to which frames show the same."""

BLOCK = 64
"""Pixels a side of the blocks that move as a whole."""

SMOOTH = 1.0
"""Pixels over which s is smoothed."""

Plane = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


def frame_pairs(recording: Recording) -> Iterator[tuple[Index, Index]]:
    """Yield the indices of frames that follow each other in time, or in depth where there is no time."""
    leading = recording.axes[: recording.axes.index("Y")]
    axis = next((leading.index(letter) for letter in "TZ" if letter in leading), None)
    if axis is None:
        return
    for index in np.ndindex(recording.stack_shape):
        if index[axis] + 1 < recording.stack_shape[axis]:
            yield index, (*index[:axis], index[axis] + 1, *index[axis + 1 :])


def changed(first: Plane, second: Plane) -> float:
    """Return the energy of what changed between two frames over that of the noise of one of them.

    Of a small shift of a photograph a third or more is found: fine detail is smoothed away. What has nothing to do with
    each other is not found: that shows in how much two frames differ. It is about 0 where noise alone is different,
    whatever its strength is where, white or with neighbours in common; of noise over many pixels some is taken for a
    change.

    Parameters
    ----------
    first, second
        ``(height, width)``, of the same shape and in the same units.
    """
    from scipy.ndimage import gaussian_filter

    one, two = (np.asarray(plane, np.float64) for plane in (first, second))
    difference = _blocks(one - two)
    means = difference.mean(1)
    rest = difference - means[:, None]
    slopes = np.gradient(gaussian_filter((one + two) / 2, SMOOTH))
    shifted = _explained(rest, slopes)
    by_chance = np.mean([_explained(rest, [np.flip(slope, axis) for slope in slopes]) for axis in (0, 1)])
    variance = rest.var()
    moved = shifted - by_chance
    brighter = np.mean(np.square(means)) - variance / rest.shape[1]
    return float((moved + brighter) / max((variance - moved) / 2, np.finfo(float).tiny))


def _explained(rest: Floats, slopes: list[Floats]) -> float:
    """Return the mean square of what shifts of blocks explain of differences, along slopes in two directions."""
    slope = np.stack([_blocks(each) for each in slopes], 1)
    slope -= slope.mean(2, keepdims=True)
    energy = slope @ slope.swapaxes(1, 2)
    energy += np.eye(2) * (1e-9 * np.trace(energy, axis1=1, axis2=2)[:, None, None] + np.finfo(float).tiny)
    along = slope @ rest[:, :, None]
    return float((along * np.linalg.solve(energy, along)).sum() / rest.size)


def _blocks(plane: Floats) -> Floats:
    """Cut a plane into blocks of about `BLOCK`, ``(block, pixel)``; a few rows and columns at the ends may be left."""
    height, width = (max(1, round(side / BLOCK)) for side in plane.shape)
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    cut = plane[: height * rows, : width * columns].reshape(height, rows, width, columns)
    return cut.swapaxes(1, 2).reshape(height * width, rows * columns)
