"""What was taken from a photograph, made even: noise is as strong at one place as at another of the same brightness.

A network for a camera's noise has to find out what is noise, and may take fine texture for it, here and not there. Of
texture more goes than of noise, so that what goes where least does says how strong noise is,

    m        standard deviation of what was taken, around each place
    n(b)     a low quantile of m over all places of brightness b
    kept     values + min(1, 2 n(b) / m) · (answer − values)

A camera's own noise reduction leaves more noise at detail than elsewhere; hence twice. Places at or beside which
nothing varies do not say how strong noise is: they were drawn, not photographed, or are white throughout.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

BLOCK = 8
"""Pixels a side that m is taken over, before it is smoothed over neighbours."""

THINNED = 2
"""Every how many rows are looked at: so many are enough, and photographs are large."""

SMOOTH, REACH = 0.75, 2
"""Standard deviation of that, and how many blocks far it goes."""

LOW = 0.1
"""The quantile."""

MOST = 2.0
"""How much more than that is taken at most."""

NOTHING = 0.5 / 255
"""Next to nothing: the rounding of eight bits, and a little more."""

BANDS = 5
"""Parts of the range of brightness, about equally full."""

ENOUGH = 50
"""Blocks of a part from which its noise is known."""


def even(values: NDArray[Any], answer: FloatArray, channel_axis: int | None = None) -> FloatArray:
    """Return an answer that takes no more than noise anywhere.

    Parameters
    ----------
    values
        What was seen, ``(height, width)`` or with an axis of channels; white is 1.
    answer
        What was made of it, of that shape.
    channel_axis
        The axis of channels, if there is one.
    """
    from scipy.ndimage import minimum_filter

    seen, best = _last(values, channel_axis), _last(answer, channel_axis)
    taken = best - seen
    some, gone = seen[::THINNED], taken[::THINNED]
    varied = _blocks(some**2) - _blocks(some) ** 2
    known = minimum_filter(varied.mean(-1), 2 * REACH + 1) > NOTHING**2
    strength = np.sqrt(_smooth(_blocks(gone**2).mean(-1))).clip(min=1e-12)
    share = np.minimum(1, MOST * _noise(strength, _smooth(_blocks(best[::THINNED]).mean(-1)), known) / strength)
    if (share == 1).all():
        return answer
    height, width, channels = seen.shape
    whole = _spread(share, (height, width))
    for channel in range(channels):  # numpy is slow along an axis as short as this
        taken[..., channel] = taken[..., channel] * whole + seen[..., channel]
    if channel_axis is not None:
        taken = np.moveaxis(taken, -1, channel_axis)
    return np.ascontiguousarray(taken).reshape(answer.shape)


def _last(values: NDArray[Any], channel_axis: int | None) -> FloatArray:
    """Return values with an axis of channels, the last."""
    floats = np.asarray(values, np.float32)
    return floats[..., None] if channel_axis is None else np.moveaxis(floats, channel_axis, -1)


def _blocks(values: FloatArray) -> FloatArray:
    """Return the means of blocks ``(row, column, channel)``, of thinned rows; those at the ends are continued."""
    tall = BLOCK // THINNED
    height, width, channels = values.shape
    if height % tall or width % BLOCK:
        values = np.pad(values, [(0, -height % tall), (0, -width % BLOCK), (0, 0)], mode="edge")
    rows, columns = values.shape[0] // tall, values.shape[1] // BLOCK
    sums = values.reshape(rows, tall, columns * BLOCK * channels).sum(1)
    means: FloatArray = sums.reshape(rows, columns, BLOCK, channels).sum(2) / (tall * BLOCK)
    return means


def _spread(blocks: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Return values of blocks for all pixels: straight lines between the middles of blocks."""
    for axis, length in zip((0, 1), shape, strict=True):
        last = blocks.shape[axis] - 1
        at = (((np.arange(length) + 0.5) / BLOCK) - 0.5).clip(0, last)
        low = np.minimum(at.astype(int), max(last - 1, 0))
        step = np.expand_dims((at - low).astype(np.float32), 1 - axis)
        first, second = (blocks.take(np.minimum(low + more, last), axis) for more in (0, 1))
        blocks = first + (second - first) * step
    return blocks


def _smooth(blocks: FloatArray) -> FloatArray:
    from scipy.ndimage import gaussian_filter

    smooth: FloatArray = gaussian_filter(blocks, SMOOTH, radius=REACH)
    return smooth


def _noise(strength: FloatArray, light: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Return how strong noise is of the brightness of each block; infinite where too little is known to say."""
    if known.sum() < ENOUGH:
        return np.full(strength.shape, np.inf, np.float32)
    bright, noise = light[known], strength[known]
    parts = np.array_split(np.argsort(bright, kind="stable"), max(1, min(BANDS, len(noise) // ENOUGH)))
    middles = [np.median(bright[part]) for part in parts]
    lows = [max(NOTHING, float(np.quantile(noise[part], LOW))) for part in parts]
    return np.interp(light, middles, lows).astype(np.float32)
