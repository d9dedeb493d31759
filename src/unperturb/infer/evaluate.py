"""How well a denoiser restores clean images that are perturbed on purpose."""

import hashlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.infer.metrics import psnr, ssim
from unperturb.infer.observe import is_conditional
from unperturb.infer.polish import STEPS, polish
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model import operators
from unperturb.model.denoiser import Denoise
from unperturb.model.optics import compresses
from unperturb.model.perturbation import Choice, Perturbation


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM of an answer, and of the perturbed image it was given.

    `psnr_missing` is that over erased pixels alone; NaN where there are none. `polished` says whether what was found in
    them was polished, which is approximate.
    """

    psnr: float
    ssim: float
    psnr_perturbed: float
    ssim_perturbed: float
    psnr_missing: float = math.nan
    polished: bool = False


class PerturbedImage(NamedTuple):
    """A perturbed image.

    `missing` says which of its pixels are missing (None: none is), `sigma` its noise level where that is known, and
    `wanted` is what is to be found in it: the clean image, where nothing else was asked for.
    """

    values: NDArray[np.float32]
    missing: NDArray[np.bool_] | None
    sigma: float | None
    wanted: NDArray[np.float32]


def perturb(
    clean: NDArray[np.float32], perturbation: Perturbation, seed: int, name: str, *, half_colour: bool = False
) -> PerturbedImage:
    """Perturb one image or signal, with randomness that comes from the seed and the image's name alone.

    Parameters
    ----------
    clean
        ``(H, W)`` or ``(H, W, C)``, in [0, 1]; or ``(T,)``. The result is not clipped.
    perturbation
        What to do to it.
    seed, name
        The same two give the same noise, whatever else is evaluated, and in whatever order.
    half_colour
        Whether, where the perturbation is JPEG, colour is to be found at half resolution, as its file has it.

    Returns
    -------
    PerturbedImage
        Values of the shape of `clean`, 0 where they are missing; `missing` is ``(H, W)``.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    signal = torch.from_numpy(np.ascontiguousarray(np.moveaxis(clean, -1, 0) if clean.ndim == 3 else clean[None]))[None]
    if isinstance(perturbation, Choice):
        perturbation = perturbation.parts[int(perturbation.drawn(1, generator))]
    values, mask, sigma = perturbation(signal, generator)

    def image(planes: Tensor) -> NDArray[np.float32]:
        return np.moveaxis(planes[0].numpy(), 0, -1) if clean.ndim == 3 else planes[0, 0].numpy()

    return PerturbedImage(
        image(values),
        None if mask is None else ~mask[0, 0].numpy(),
        None if sigma is None else float(sigma),
        image(operators.half_colour(signal).clamp(0, 1)) if half_colour and compresses(perturbation) else clean,
    )


def evaluate_image(
    clean: NDArray[np.float32],
    denoise: Denoise,
    perturbation: Perturbation,
    *,
    name: str,
    seed: int = 0,
    blind: bool = False,
    polisher: Denoise | None = None,
    quality: str = "auto",
    compute: Compute | None = None,
) -> Score:
    """Perturb one image, restore it, and compare with what it was, whatever the model was trained to look for.

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
    polisher
        A denoiser of noise that polishes what is found in missing pixels (`unperturb.infer.polish`), if there is one;
        where there is noise in the others, it does not.
    quality, compute
        As for `restore`.

    Returns
    -------
    Score
        Of the answer as it would be written, clipped to [0, 1]. The perturbed image is scored as it is.
    """
    noisy, missing, sigma, _ = perturb(clean, perturbation, seed, name)
    axis = None if clean.ndim == 2 else -1
    plain = missing is None and sigma is not None
    answer = restore(
        noisy,
        denoise,
        None if blind else sigma,
        channel_axis=axis,
        missing=missing,
        perturbation=None if plain or blind or is_conditional(denoise) or missing is not None else perturbation,
        quality=quality,
        compute=compute,
    )
    steps = STEPS[quality] if polisher is not None and missing is not None and sigma == 0 else 0
    if steps:
        assert polisher is not None
        assert missing is not None
        answer = polish(answer, missing, polisher, channel_axis=axis, steps=steps, compute=compute)
    answer = answer.clip(0, 1)
    return Score(
        psnr(clean, answer), ssim(clean, answer, channel_axis=axis),
        psnr(clean, noisy), ssim(clean, noisy, channel_axis=axis),
        math.nan if missing is None or not missing.any() else psnr(clean[missing], answer[missing]),
        steps > 0,
    )  # fmt: skip
