"""How good an answer is, in the field's own numbers; the classical ones by scikit-image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError


def psnr(clean: NDArray[Any], estimate: NDArray[Any], *, data_range: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio, ``10 log10(data_range² / mean squared error)``, in dB.

    Parameters
    ----------
    clean, estimate
        Of one shape.
    data_range
        Distance between the darkest and the brightest value there can be.

    Returns
    -------
    float
        Infinite where both are the same.

    Raises
    ------
    UsageError
        Where the shapes differ.
    """
    from skimage.metrics import peak_signal_noise_ratio

    _check_alike(clean, estimate)
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(_wide(clean), _wide(estimate), data_range=data_range))


def ssim(
    clean: NDArray[Any], estimate: NDArray[Any], *, data_range: float = 1.0, channel_axis: int | None = None
) -> float:
    """Return the structural similarity with Gaussian windows of standard deviation 1.5, as in the paper.

    Parameters
    ----------
    clean, estimate
        Of one shape, ``(H, W)`` or with an axis of channels; at least 11 pixels high and wide.
    data_range
        Distance between the darkest and the brightest value there can be.
    channel_axis
        The axis of channels, if there is one; the mean over them is returned.

    Returns
    -------
    float
        1 where both are the same; NaN where they are smaller than a window.

    Raises
    ------
    UsageError
        Where the shapes differ.

    Notes
    -----
    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004.
    """
    from skimage.metrics import structural_similarity

    _check_alike(clean, estimate)
    space = [
        length for axis, length in enumerate(clean.shape) if channel_axis is None or axis != channel_axis % clean.ndim
    ]
    if min(space) < 11:
        return float("nan")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    wide = _wide(clean), _wide(estimate)
    return float(structural_similarity(*wide, data_range=data_range, channel_axis=channel_axis, **options))


def sharpness(clean: NDArray[Any], estimate: NDArray[Any], *, channel_axis: int | None = None) -> float:
    """Return the gradient energy of an estimate relative to that of the clean signal.

    Gradient energy is the mean squared difference of neighbours, summed over the axes of space.

    Parameters
    ----------
    clean, estimate
        Of one shape, with any number of axes of space.
    channel_axis
        The axis of channels, if there is one: along it there are no neighbours.

    Returns
    -------
    float
        1 where the estimate is as sharp as the clean signal, below where it is blurred. NaN, or infinite, where the
        clean signal is constant.

    Raises
    ------
    UsageError
        Where the shapes differ.
    """
    _check_alike(clean, estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_gradient_energy(_wide(estimate), channel_axis) / _gradient_energy(_wide(clean), channel_axis))


def coverage(clean: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> float:
    """Return the share of the clean values that lie within their intervals, ends included.

    Parameters
    ----------
    clean
        The truth.
    low, high
        Ends of the intervals, of shapes that broadcast to that of `clean`.

    Returns
    -------
    float
        Between 0 and 1; NaN where there are no values. A value that is not a number lies in no interval.
    """
    clean = np.asarray(clean)
    inside = np.broadcast_to((low <= clean) & (clean <= high), clean.shape)
    return float(inside.mean()) if inside.size else float("nan")


def ranks(clean: NDArray[Any], draws: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many of the draws lie below the clean value, value by value.

    Draws from the true posterior cannot be told from the clean signal: over many pairs of clean and perturbed, each of
    the ranks 0 … n comes up equally often. This is simulation-based calibration.

    Parameters
    ----------
    clean
        The truth, any shape.
    draws
        ``(n, *shape of clean)``.

    Notes
    -----
    Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian inference algorithms with simulation-based
    calibration", 2018.
    """
    return (np.asarray(draws) < np.asarray(clean)).sum(0)


def _gradient_energy(values: NDArray[np.float64], channel_axis: int | None) -> np.float64:
    channel = None if channel_axis is None else channel_axis % values.ndim
    axes = [axis for axis in range(values.ndim) if axis != channel and values.shape[axis] > 1]
    energies = [np.square(np.diff(values, axis=axis)).mean() for axis in axes]
    return np.sum(energies, dtype=np.float64)


def _check_alike(clean: NDArray[Any], estimate: NDArray[Any]) -> None:
    if np.shape(clean) != np.shape(estimate):
        raise UsageError(f"what is compared is of one shape; got {np.shape(clean)} and {np.shape(estimate)}")


def _wide(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
