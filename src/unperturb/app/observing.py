"""From an image file to what is asked of it: each of its planes as a `Posterior`."""

from collections.abc import Iterator

import numpy as np

from unperturb.data.recording import Index, Recording
from unperturb.errors import ModelError, UsageError
from unperturb.infer.posterior import Observation, as_sigma, observe
from unperturb.infer.tiled import Compute
from unperturb.model.denoiser import Denoise, Denoiser


def check_mean(denoise: Denoise) -> None:
    """Refuse a model whose answer is not the posterior mean: draws and covariances are made of means.

    Raises
    ------
    ModelError
        Where it was trained with another objective than the squared error.
    """
    objective = denoise.card.recipe.get("objective", "squared") if isinstance(denoise, Denoiser) else "squared"
    if objective != "squared":
        raise ModelError(
            f"this model was trained with {objective} error, so that its answer is no mean, and nothing but restoring can "
            "be done with it; train one with squared error"
        )


def check_sigma(recording: Recording, sigma: float | None) -> None:
    """Refuse a noise level that cannot be meant.

    Raises
    ------
    UsageError
        Where it is larger than the whole range of a float file's values.
    """
    if sigma is None or recording.values.dtype.kind != "f":
        return
    extent = np.ptp(recording.values)
    if sigma > extent:
        raise UsageError(
            f"sigma {sigma:g} is larger than the whole range of a float file's values, {extent:g}; it is in the units "
            "of the file"
        )


def observations(
    recording: Recording, denoise: Denoise, sigma: float | None, compute: Compute
) -> Iterator[tuple[Index, Observation, float]]:
    """Yield every plane of a recording as an observation.

    Parameters
    ----------
    recording
        The image or stack.
    denoise
        The denoiser.
    sigma
        Noise level in the units of the file, or None to estimate it for every plane.
    compute
        How to compute.

    Yields
    ------
    index
        Of the plane in the stack.
    observation
        In the units of `Recording.as_float`.
    sigma
        The noise level in the units of the file.
    """
    check_sigma(recording, sigma)
    axis = -1 if recording.is_colour else None
    for index, plane in recording.planes():
        level = as_sigma(plane, axis, None if sigma is None else sigma / recording.full_scale)
        observation = observe(plane, denoise, level, channel_axis=axis, compute=compute)
        yield index, observation, float(level * recording.full_scale)
