"""One run: every method, on the same pictures, under the same noise, on the same machine at the same time.

Pictures come first in the loop and methods last, so that whatever else the machine does meets all methods alike. The
clock sees the call alone; models are loaded, packages imported and strengths chosen in a warm-up on a small crop.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.images import Picture
from benchmarks.peers import Method
from unperturb.errors import UsageError
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.model.perturbation import Gaussian

Tell = Callable[[str], None]

CROP = 64
"""Side of the crop that methods warm up on."""


@dataclass(frozen=True)
class Measurement:
    """One call: the PSNR of its answer, clipped to [0, 1], in dB, and its wall-clock time."""

    image: str
    group: str
    level: float
    method: str
    psnr: float
    seconds: float
    megapixels: float


def add_noise(picture: Picture, level: float, seed: int) -> NDArray[np.float32]:
    """Return the picture under Gaussian noise, not clipped, the same in every run.

    Parameters
    ----------
    picture
        The clean picture.
    level
        Standard deviation of the noise, of 255.
    seed
        With the picture's name it decides the noise.
    """
    return perturb(picture.values, Gaussian(level / 255), seed, picture.name).values


def measure(
    pictures: Sequence[Picture], levels: Sequence[float], methods: Mapping[str, Method], *, seed: int, tell: Tell
) -> Iterator[Measurement]:
    """Measure every method on every picture at every level.

    Parameters
    ----------
    pictures, levels, methods
        What to measure; levels are standard deviations of 255.
    seed
        Of the noise.
    tell
        Called with what is being done, for people.

    Yields
    ------
    Measurement
        One a call.
    """
    _warm_up(pictures[0], levels, methods, seed, tell)
    for number, picture in enumerate(pictures, start=1):
        for level in levels:
            noisy = add_noise(picture, level, seed)
            for name, method in methods.items():
                tell(f"{number}/{len(pictures)} {picture.name}, sigma {level:g}, {name}")
                estimate, seconds = _timed(method, noisy, level / 255)
                quality = psnr(picture.values, estimate.clip(0, 1))
                yield Measurement(picture.name, picture.group, level, name, quality, seconds, picture.megapixels)


def _warm_up(picture: Picture, levels: Sequence[float], methods: Mapping[str, Method], seed: int, tell: Tell) -> None:
    for level in levels:
        crop = add_noise(picture, level, seed)[:CROP, :CROP]
        for name, method in methods.items():
            tell(f"warming up at sigma {level:g}, {name}")
            _timed(method, crop, level / 255)


def _timed(method: Method, noisy: NDArray[np.float32], sigma: float) -> tuple[NDArray[Any], float]:
    """Call a method on a copy of its own, and time the call."""
    own = noisy.copy()
    start = time.perf_counter()
    estimate = method(own, sigma)
    seconds = time.perf_counter() - start
    if estimate.shape != noisy.shape or not np.isfinite(estimate).all():
        raise UsageError(f"a method answered {estimate.shape} or values that are not finite to {noisy.shape}.")
    return estimate, seconds
