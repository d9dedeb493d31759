"""How good an answer is, in the field's own numbers, by scikit-image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    """
    from skimage.metrics import peak_signal_noise_ratio

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

    Notes
    -----
    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004.
    """
    from skimage.metrics import structural_similarity

    space = [
        length for axis, length in enumerate(clean.shape) if channel_axis is None or axis != channel_axis % clean.ndim
    ]
    if min(space) < 11:
        return float("nan")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    wide = _wide(clean), _wide(estimate)
    return float(structural_similarity(*wide, data_range=data_range, channel_axis=channel_axis, **options))


def _wide(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
