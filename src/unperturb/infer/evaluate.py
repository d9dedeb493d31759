"""How well a denoiser restores clean images that are perturbed on purpose."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.errors import UsageError
from unperturb.infer.metrics import psnr, ssim
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.denoiser import Denoise
from unperturb.model.perturbation import Perturbation


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM of an answer, and of the perturbed image it was given."""

    psnr: float
    ssim: float
    psnr_perturbed: float
    ssim_perturbed: float


def perturb(
    clean: NDArray[np.float32], perturbation: Perturbation, seed: int, name: str
) -> tuple[NDArray[np.float32], float | None]:
    """Perturb one image, with randomness that comes from the seed and the image's name alone.

    Parameters
    ----------
    clean
        ``(H, W)`` or ``(H, W, C)``, in [0, 1]. The result is not clipped to it.
    perturbation
        What to do to it.
    seed, name
        The same two give the same noise, whatever else is evaluated, and in whatever order.

    Returns
    -------
    values
        Shape of `clean`.
    sigma
        The noise level, where the perturbation says it.

    Raises
    ------
    UsageError
        Where the perturbation erases components: a denoiser for noise alone cannot bring them back.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    planes = clean[None] if clean.ndim == 2 else np.moveaxis(clean, -1, 0)
    values, mask, sigma = perturbation(torch.from_numpy(np.ascontiguousarray(planes))[None], generator)
    if mask is not None:
        raise UsageError(f"{perturbation} erases components; this model restores noise alone")
    planes = values[0].numpy()
    return planes[0] if clean.ndim == 2 else np.moveaxis(planes, 0, -1), None if sigma is None else float(sigma)


def evaluate_image(
    clean: NDArray[np.float32],
    denoise: Denoise,
    perturbation: Perturbation,
    *,
    name: str,
    seed: int = 0,
    blind: bool = False,
    quality: str = "fast",
    compute: Compute | None = None,
) -> Score:
    """Perturb one image, restore it, and compare.

    Parameters
    ----------
    clean
        ``(H, W)`` or ``(H, W, C)``, in [0, 1].
    denoise
        The denoiser.
    perturbation, name, seed
        As for `perturb`.
    blind
        Estimate the noise level even where the perturbation says it.
    quality, compute
        As for `restore`.

    Returns
    -------
    Score
        Of the answer as it would be written, clipped to [0, 1]. The perturbed image is scored as it is.
    """
    noisy, sigma = perturb(clean, perturbation, seed, name)
    axis = None if clean.ndim == 2 else -1
    known: Any = None if blind else sigma
    answer = restore(noisy, denoise, known, channel_axis=axis, quality=quality, compute=compute).clip(0, 1)
    return Score(
        psnr(clean, answer), ssim(clean, answer, channel_axis=axis),
        psnr(clean, noisy), ssim(clean, noisy, channel_axis=axis),
    )  # fmt: skip
