"""What intervals cover: the share of a picture's values that lie where a calibrated model says."""

import numpy as np
from numpy.typing import NDArray

from unperturb.infer.interval import find_calibration, intervals, kind_of
from unperturb.infer.observe import observe
from unperturb.model.denoiser import Denoiser
from unperturb.model.perturbation import Perturbation

MIDDLE = 96
"""Side in pixels of the middle of a picture in which intervals are held against the truth: draws take long."""


def covered(
    clean: NDArray[np.float32],
    noisy: NDArray[np.float32],
    denoiser: Denoiser,
    perturbation: Perturbation | None = None,
) -> float:
    """Return the share of values in the middle of a picture that lie in their interval, as the model's card has it.

    Parameters
    ----------
    clean, noisy
        ``(H, W)`` or ``(H, W, 3)``.
    denoiser
        A calibrated model.
    perturbation
        What was done, for a model that has to be told.
    """
    firsts = [max(side - MIDDLE, 0) // 2 for side in clean.shape[:2]]
    middle = tuple(slice(first, first + MIDDLE) for first in firsts)
    axis = None if clean.ndim == 2 else -1
    posterior = (seen := observe(noisy[middle], denoiser, channel_axis=axis, perturbation=perturbation)).posterior
    calibration = find_calibration(denoiser.card, kind_of(posterior))
    low, high, _ = intervals(posterior, calibration.drawing.draw(posterior), calibration)
    truth = seen.to_signal(clean[middle])
    return float(((low <= truth) & (truth <= high)).float().mean())
