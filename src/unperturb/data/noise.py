"""What noise is in this image: the standard deviation of additive white Gaussian noise, from one image alone.

White noise is equally strong at every frequency. A photograph is not: it weakens towards the highest frequencies, and
is weak there in the same places where it is weak at middle ones. So cut the image into patches, take the orthonormal
cosine transform of each, and average its squared coefficients over two disjoint bands: `mid`, and `high`, the corner
that is fast in both directions. If the texture's energy in the high band is a fraction ρ of that in the middle one,

    E[mid]  = σ² + t            t: what the texture puts into the middle band, different from patch to patch
    E[high] = σ² + ρ t          ⇒   high = σ² + ρ (mid − σ²)        a line that crosses high = mid at σ²

Patches sorted by `mid` and averaged in groups give points on that line. A flat region puts points at the crossing
itself; where there is texture everywhere, the line is followed to where the texture would end. Without noise it
crosses at zero. Because the transform is orthonormal, white Gaussian noise is independent in the two bands: sorting by
the one selects nothing in the other, so that preferring weak patches does not bias the estimate low. The noise in
`mid` flattens the fitted slope a little: on texture that is no weaker anywhere, the estimate errs to the high side.

Sources: estimation from the high frequencies of those blocks that are weakest at low ones is N. Ponomarenko, V. Lukin,
M. Zriakhov, A. Kaarna, J. Astola, "An automatic approach to lossy compression of AVIRIS images", IGARSS 2007, studied
and refined in M. Colom, A. Buades, "Analysis and extension of the Ponomarenko et al. method, estimating a noise curve
from a single image", IPOL 3 (2013). Reading off the crossing, instead of the weakest blocks' own energy, is ours.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError

PATCH: Final = 8

_rows, _columns = np.mgrid[:PATCH, :PATCH]
_cosine = np.cos(np.pi * _rows * (2 * _columns + 1) / (2 * PATCH)) * np.sqrt(np.where(_rows == 0, 1, 2) / PATCH)

ATOMS: Final = np.kron(_cosine, _cosine)
"""The orthonormal cosine transform of a patch, ``(64, 64)``: a row for each pair of frequencies, over its pixels."""

FREQUENCY: Final = (_rows + _columns).ravel()
"""The sum of the two frequencies of each row, 0 … 14."""

# Bands by u + v, the sum of a coefficient's two frequencies (0 … 14): 43 coefficients in the middle, 6 in the high one.
_MID_FROM: Final = 5
_HIGH_FROM: Final = 12
MID: Final = (FREQUENCY >= _MID_FROM) & (FREQUENCY < _HIGH_FROM)
HIGH: Final = FREQUENCY >= _HIGH_FROM
_N_HIGH: Final = 6
_MAX_PATCHES: Final = 60_000
# Patches this many pixels apart are independent, nearly, in the high band: white noise gives slopes with the error that
# this count of them predicts, within a quarter.
APART: Final = 3
_N_GROUPS: Final = 7
# The groups cover the weakest three tenths of the patches: beyond them lie edges, whose ratio ρ is another.
_WEAK_SHARE: Final = 0.3
# A steeper line runs so close to high = mid that their crossing is arbitrary; photographs stay well below.
_MAX_SLOPE: Final = 0.5

_DETAIL: Final = np.array([-0.12940952255092145, -0.22414386804185735, 0.836516303737469, -0.48296291314469025])
"""High-pass filter of Daubechies' wavelet with two vanishing moments, of unit norm: it is blind to straight lines."""

_TO_SIGMA: Final = 0.6744897501960817
"""Median of the absolute value of a standard normal number."""

_Floats = NDArray[np.float64]
_Reals = NDArray[Any]


def estimate_sigma(image: _Reals, channel_axis: int | None = None) -> float:
    """Estimate the standard deviation of the additive white Gaussian noise in one image.

    Scaling or shifting the values does the same to the answer as to the noise: nothing about their range is assumed.
    The same image always gives the same answer. Values piled up at the image's own minimum or maximum (clipping,
    saturation) are avoided, as far as there are others, and constant margins are cut off.

    What is measured is white noise. Noise that was smoothed (a camera's own processing, JPEG, resizing) has lost the
    frequencies that are looked at, and can go unseen altogether; noise that varies over the image is answered for its
    quieter parts, and a noise-free region inside (other than at the extreme values) for the whole.

    Parameters
    ----------
    image : ndarray, shape (H, W), or with channels on `channel_axis` (H, W, C)
        Real values in any units and of any real type; H and W at least 8. The standard error on pure noise is 1.3 % at
        300 × 300 pixels, 5 % at 64 × 64, 13 % at 32 × 32 and 27 % at 8 × 8.
    channel_axis : int, optional
        The axis of the channels, which are taken to be equally noisy: the answer is the median over those that are not
        constant. Without it the image is a single channel.

    Returns
    -------
    float
        In the units of the values; 0 for a constant image, and near 0 for a clean one.

    Raises
    ------
    UsageError
        If the image is not real and finite, has not the axes said above, or is smaller than 8 × 8.
    """
    channels = _channels(image, channel_axis)
    estimates = [sigma for sigma in map(_channel_sigma, channels) if sigma is not None]
    return float(np.median(estimates)) if estimates else 0.0


def estimate_white(values: _Reals) -> float:
    """Estimate the standard deviation of the white noise in one channel ``(T,)``, in its own units.

    From the median of the finest wavelet coefficients (Donoho and Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", 1994): a signal is seldom fast, noise always is. Slow noise, drift and hum, is not seen.
    """
    if len(values) < len(_DETAIL):
        return 0.0
    detail = np.convolve(values.astype(np.float64), _DETAIL, "valid")
    return float(np.median(np.abs(detail)) / _TO_SIGMA)


def _channels(image: _Reals, channel_axis: int | None) -> list[_Reals]:
    """Split a checked image into its (H, W) channels, without copying."""
    image = np.asarray(image)
    if image.dtype.kind not in "biuf":
        raise UsageError(f"Noise is estimated from real numbers, and this image holds {image.dtype}.")
    wanted = 2 if channel_axis is None else 3
    if image.ndim != wanted or (channel_axis is not None and not -3 <= channel_axis < 3):
        raise UsageError(
            f"An image of shape {image.shape} with channel_axis={channel_axis} is neither (H, W) nor (H, W, C); "
            "pass one plane, and name the axis that holds the channels."
        )
    planes = image[np.newaxis] if channel_axis is None else np.moveaxis(image, channel_axis, 0)
    if min(planes.shape[1:]) < PATCH:
        raise UsageError(
            f"Noise cannot be estimated from fewer than {PATCH} × {PATCH} pixels, "
            f"and this image has {planes.shape[1]} × {planes.shape[2]}; give sigma itself."
        )
    return list(planes)


def _channel_sigma(plane: _Reals) -> float | None:
    """Noise level of one (H, W) channel, or None where it is constant and says nothing."""
    plane = np.ascontiguousarray(plane)
    low, high = float(plane.min()), float(plane.max())
    span = high - low
    if not np.isfinite(span):  # the minimum of an array with NaN is NaN, so that one test finds all of them
        raise UsageError("Noise cannot be estimated from an image with NaN or infinite values; replace them first.")
    if span == 0:
        return None
    plane = _without_margins(plane)
    stride = _stride(*plane.shape)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (PATCH, PATCH))[::stride, ::stride]
    patches = windows[_least_clipped(plane, low, high, stride)]  # (N, 8, 8)
    mid, high_band = _band_energies((patches.astype(np.float64) - low) / span)
    n_independent = max(1.0, len(mid) * min(1.0, (stride / APART) ** 2))
    return span * float(np.sqrt(crossing(*groups(mid, high_band, n_independent))))


def _without_margins(plane: _Reals) -> _Reals:
    """Cut off the outer rows and columns that hold nothing but a corner's value: padding carries no noise."""
    for end in (0, -1):
        corner = plane[end, end]
        if (plane[end] != corner).any() and (plane[:, end] != corner).any():
            continue
        differs = plane != corner
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        if rows.size == 0:
            continue
        inside = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if min(inside.shape) >= PATCH:
            plane = inside
    return plane


def _stride(height: int, width: int) -> int:
    """Step between patches that keeps their number bounded; odd, so that all phases of JPEG's 8 × 8 grid are met."""
    stride = 1
    while -(-(height - PATCH + 1) // stride) * -(-(width - PATCH + 1) // stride) > _MAX_PATCHES:
        stride += 2
    return stride


def _least_clipped(plane: _Reals, low: float, high: float, stride: int) -> NDArray[np.bool_]:
    """Which patches to use: those with no value at the image's extremes nearby, and in any case a tenth of them.

    Clipping narrows the noise, also in a patch that has escaped it by luck: so the neighbourhood counts, the patch's
    8 × 8 cell and the eight cells around it.
    """
    height, width = plane.shape
    padded = np.pad((plane == low) | (plane == high), ((0, -height % PATCH), (0, -width % PATCH)))
    # Rows first: that sum runs over whole lines of memory, and leaves an eighth for the other.
    rows_of_cells = padded.reshape(-1, PATCH, padded.shape[1]).sum(axis=1, dtype=np.uint8)
    cells = rows_of_cells.reshape(len(rows_of_cells), -1, PATCH).sum(axis=2)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(cells, 1), (3, 3)).sum(axis=(2, 3))
    rows = np.arange(0, height - PATCH + 1, stride) + PATCH // 2
    columns = np.arange(0, width - PATCH + 1, stride) + PATCH // 2
    n_clipped = around[np.ix_(rows // PATCH, columns // PATCH)]
    usable: NDArray[np.bool_] = n_clipped <= np.quantile(n_clipped, 0.1)
    return usable


def _band_energies(patches: _Floats) -> tuple[_Floats, _Floats]:
    """Mean square of the cosine coefficients of (N, 8, 8) patches in the middle and in the high band, each (N,)."""
    flat = patches.reshape(len(patches), -1)
    mid, high = (np.square(flat @ ATOMS[band].T).mean(axis=1) for band in (MID, HIGH))
    return mid, high


def groups(mid: _Floats, high: _Floats, n_independent: float) -> tuple[_Floats, _Floats, _Floats]:
    """Sort patches by `mid` and average both bands in groups, the weakest first and each larger than the one before.

    The first group holds √M of M independent patches: few enough to find a flat spot, enough that their mean is good
    to a few per cent, and both improve with the image. Returns the two means and the number of independent patches of
    each group, each (G,).
    """
    order = np.argsort(mid, kind="stable")
    first = max(1.0, len(order) / np.sqrt(n_independent))
    last = max(first, _WEAK_SHARE * len(order))
    ends = np.unique(np.rint(np.geomspace(first, last, _N_GROUPS)).astype(np.int64))
    starts, sizes = np.r_[0, ends[:-1]], np.diff(ends, prepend=0)
    chosen = order[: ends[-1]]
    mid_means, high_means = (np.add.reduceat(band[chosen], starts) / sizes for band in (mid, high))
    return mid_means, high_means, sizes * (n_independent / len(order))


def crossing(mid: _Floats, high: _Floats, sizes: _Floats) -> float:
    """Fit high = a + ρ mid through the groups and return σ² = a / (1 − ρ), where the line meets high = mid.

    A mean of n squares of Gaussian values has 2/n of its own square as its variance: hence the weights. The slope is
    shrunk as far as chance alone explains it (by the positive part of James and Stein's factor, 1961): without texture
    the groups all lie to one side of the crossing, and to follow a slope made of noise would only add to the error.
    """
    # Values span 1 here, so that eps² is what rounding leaves of a constant patch.
    variance = 2 / (_N_HIGH * sizes) * np.square(high + np.finfo(np.float64).eps ** 2)
    mid_mean, high_mean = np.average(mid, weights=1 / variance), np.average(high, weights=1 / variance)
    spread = float(np.sum(np.square(mid - mid_mean) / variance))
    shared = float(np.sum((mid - mid_mean) * (high - high_mean) / variance))
    if shared <= np.sqrt(spread):  # a slope, shared / spread, of less than its standard error, 1 / √spread
        return float(high_mean)
    slope = min(shared / spread - 1 / shared, _MAX_SLOPE)
    return max(float((high_mean - slope * mid_mean) / (1 - slope)), 0.0)
