"""The peers: other people's denoisers, each a function ``method(noisy, sigma) -> estimate``.

A row of `PEERS` is a row of the benchmark, and its docstring is what the report says about its setting.
`noisy` is ``(H, W)`` or ``(H, W, 3)`` in units where black is 0 and white is 1, not clipped to them; `sigma` is known.

No setting is chosen on the pictures that are measured. A method takes the known sigma by its own documented rule. Two
have no such rule: their strength is sigma times a factor, chosen once for each sigma where it restores scikit-image's
`camera` best (`factor`).
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.images import shipped
from unperturb.errors import UsageError
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.model.perturbation import Gaussian

Array = NDArray[Any]
Method = Callable[[Array, float], Array]

FACTORS = tuple(round(0.5 + 0.1 * step, 1) for step in range(11))
"""Strengths that tuning tries, as multiples of sigma: 0.5, 0.6 … 1.5."""


def need(package: str) -> Any:
    """Import an optional package.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(f'the benchmark needs {package}: pip install "unperturb[bench]"') from None


def bm3d(noisy: Array, sigma: float) -> Array:
    """Run BM3D (package bm3d; CBM3D in colour) in its default profile "np", both stages, sigma as known."""
    package = need("bm3d")
    estimate: Array = package.bm3d(noisy, sigma) if noisy.ndim == 2 else package.bm3d_rgb(noisy, sigma)
    return estimate


def opencv_nlm(noisy: Array, sigma: float) -> Array:
    """Run OpenCV's fastNlMeansDenoising (...Colored in colour) with its recommended windows, 7 and 21 pixels.

    It takes 8 bits: the noisy picture is clipped to [0, 255] and rounded first, which no other method has to bear.
    OpenCV documents no rule from sigma to h (the rule h = 0.4 sigma of the article it cites belongs to other weights,
    which subtract the variance of the noise), so h = factor × sigma.
    """
    return _opencv_nlm(noisy, factor(_opencv_nlm, sigma) * sigma)


def _opencv_nlm(noisy: Array, strength: float) -> Array:
    cv2 = need("cv2")
    levels = np.rint(noisy * 255).clip(0, 255).astype(np.uint8)
    settings = {"h": 255 * strength, "templateWindowSize": 7, "searchWindowSize": 21}
    if noisy.ndim == 2:
        answer = cv2.fastNlMeansDenoising(levels, None, **settings)
    else:
        blue_first = np.ascontiguousarray(levels[..., ::-1])
        answer = cv2.fastNlMeansDenoisingColored(blue_first, None, hColor=255 * strength, **settings)[..., ::-1]
    return np.asarray(answer, dtype=np.float32) / np.float32(255)


def skimage_nlm(noisy: Array, sigma: float) -> Array:
    """Run scikit-image's denoise_nl_means in fast mode: sigma as known, h = 0.8 sigma, patches of 5, distance 6.

    The rule for h is the one that its documentation gives for fast mode; patch and distance are those of its example.
    """
    from skimage.restoration import denoise_nl_means

    settings = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
    return np.asarray(denoise_nl_means(noisy, h=0.8 * sigma, sigma=sigma, channel_axis=_channels(noisy), **settings))


def total_variation(noisy: Array, sigma: float) -> Array:
    """Run scikit-image's denoise_tv_chambolle with its default stopping rule; weight = factor × sigma.

    No rule from sigma to the weight is documented.
    """
    return _total_variation(noisy, factor(_total_variation, sigma) * sigma)


def _total_variation(noisy: Array, strength: float) -> Array:
    from skimage.restoration import denoise_tv_chambolle

    return np.asarray(denoise_tv_chambolle(noisy, weight=strength, channel_axis=_channels(noisy)))


def bayes_shrink(noisy: Array, sigma: float) -> Array:
    """Run scikit-image's denoise_wavelet, BayesShrink (its default), soft, wavelet db2, sigma as known."""
    return _wavelets(noisy, sigma, "BayesShrink")


def visu_shrink(noisy: Array, sigma: float) -> Array:
    """Run scikit-image's denoise_wavelet, VisuShrink, soft, wavelet db2, sigma as known."""
    return _wavelets(noisy, sigma, "VisuShrink")


def _wavelets(noisy: Array, sigma: float, rule: str) -> Array:
    need("pywt")
    from skimage.restoration import denoise_wavelet

    colour = noisy.ndim == 3
    settings = {"wavelet": "db2", "mode": "soft", "rescale_sigma": True, "convert2ycbcr": colour}
    return np.asarray(denoise_wavelet(noisy, sigma, method=rule, channel_axis=_channels(noisy), **settings))


PEERS: Mapping[str, Method] = {
    "BM3D": bm3d,
    "OpenCV non-local means": opencv_nlm,
    "scikit-image non-local means": skimage_nlm,
    "total variation": total_variation,
    "wavelets, BayesShrink": bayes_shrink,
    "wavelets, VisuShrink": visu_shrink,
}
"""Every peer by the name that the table gives it."""

TUNED: Mapping[str, Method] = {"OpenCV non-local means": _opencv_nlm, "total variation": _total_variation}
"""The peers without a documented rule, as functions of the strength instead of sigma."""


@functools.cache
def factor(method: Method, sigma: float) -> float:
    """Return the strength, in multiples of sigma, at which a method restores scikit-image's `camera` best.

    Parameters
    ----------
    method
        A function of a gray picture and the strength. In colour the same factor is used.
    sigma
        Standard deviation of the noise on a scale where white is 1.

    Returns
    -------
    float
        One of `FACTORS`.
    """
    clean = shipped("camera").values
    noisy = perturb(clean, Gaussian(sigma), 0, "camera").values
    return max(FACTORS, key=lambda times: psnr(clean, method(noisy, times * sigma).clip(0, 1)))


def _channels(noisy: Array) -> int | None:
    return None if noisy.ndim == 2 else -1
