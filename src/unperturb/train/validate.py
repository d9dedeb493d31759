"""How well a denoiser does on what was held out: the same pieces under the same noise at every call."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import workers
from unperturb.model.network import UNetSettings
from unperturb.model.perturbation import Perturbed, per_item, stacked
from unperturb.train.material import Material
from unperturb.train.pool import Perturb
from unperturb.train.showing import Pairs

LEVELS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Noise levels at which a model's card states its validation error."""


def validation_psnr(
    denoiser: Denoiser,
    material: Material,
    sigma: float,
    device: torch.device,
    threads: int | None,
    perturbing: Perturb,
) -> dict[str, float]:
    """Return the mean PSNR in dB (of a range of 1) over held-out images, by kind of image; else as for errors."""
    errors = _errors(denoiser, material, sigma, device, threads, perturbing)
    return {kind: float(np.mean(-10 * np.log10(values))) for kind, values in errors.items() if values}


def validation_errors(
    denoiser: Denoiser,
    material: Material,
    levels: Sequence[float],
    device: torch.device,
    threads: int | None,
    perturbing: Perturb,
) -> dict[str, dict[float, float]]:
    """Return the mean squared error over held-out images, by kind of image and noise level.

    A conditional model sees every image perturbed as it was in training, beside its noisy version. At a level of
    infinity that is all it sees. Where nothing but erasure was done to an image, the error is that of erased pixels.

    Parameters
    ----------
    denoiser, material
        The model, and pieces of what was held out.
    levels
        Noise levels, in the units of the values.
    device, threads
        Where to compute; on a processor by how many threads, all by default.
    perturbing
        What perturbs images for a conditional model, and says what is to be found.
    """
    found: dict[str, dict[float, float]] = {}
    for level in (*levels, math.inf) if denoiser.card.network.given else levels:
        for kind, values in _errors(denoiser, material, level, device, threads, perturbing).items():
            if values:
                found.setdefault(kind, {})[level] = float(np.mean(values))
    return found


def _errors(
    denoiser: Denoiser,
    material: Material,
    sigma: float,
    device: torch.device,
    threads: int | None,
    perturbing: Perturb,
) -> dict[str, list[float]]:
    """Mean squared error of each held-out piece under the same noise at every call."""
    size = next(side for side in material.sides if side <= material.largest)
    material = material.at_least(size)
    colour = denoiser.card.network.channels == 3 if isinstance(denoiser.card.network, UNetSettings) else False
    count = min(len(material), 48)
    share = 1 if device.type == "cpu" else count
    errors = {}
    with workers(device, threads) as run:
        for kind in ["gray", "colour"] if colour else ["gray" if material.dims == 2 else "signal"]:

            def error(first: int, gray: bool = kind == "gray") -> list[float]:
                items = range(first, min(first + share, count))
                clean = [torch.from_numpy(material.centre(index, size, gray=gray))[None] for index in items]
                return _error(denoiser, clean, list(items), sigma, device, perturbing)

            values = [value for found in run(error, range(0, count, share)) for value in found]
            errors[kind] = [value for value in values if not math.isnan(value)]
    return errors


@torch.no_grad()
def _error(
    denoiser: Denoiser, clean: list[Tensor], seeds: list[int], sigma: float, device: torch.device, perturbing: Perturb
) -> list[float]:
    """Mean squared error of each image, which has randomness of its own; NaN where nothing of it was perturbed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = [torch.randn(image.shape, generator=generator) for image, generator in zip(clean, generators, strict=True)]
    if not denoiser.card.network.given:
        x = [image + sigma * each for image, each in zip(clean, noise, strict=True)]
        estimate = denoiser(torch.cat(x).to(device), sigma).cpu()
        return (estimate - torch.cat(clean)).square().flatten(1).mean(1).tolist()
    groups: dict[tuple[bool, bool], list[tuple[int, Pairs]]] = {}
    for item, (image, generator) in enumerate(zip(clean, generators, strict=True)):
        (pairs,) = perturbing(image, generator)
        groups.setdefault((pairs.observed.mask is None, pairs.observed.sigma is None), []).append((item, pairs))
    errors = [math.nan] * len(clean)
    for group in groups.values():
        items = [item for item, _ in group]
        truth = torch.cat([pairs.clean for _, pairs in group]).to(device)
        drawn = torch.cat([noise[item] for item in items]).to(device)
        found = _given_errors(denoiser, stacked([pairs.observed for _, pairs in group]), truth, drawn, sigma)
        for item, value in zip(items, found, strict=True):
            errors[item] = value
    return errors


def _given_errors(
    denoiser: Denoiser, observed: Perturbed, clean: Tensor, noise: Tensor, sigma: float
) -> Iterator[float]:
    """Yield the mean squared error of each image for a conditional model; only of what was erased, if nothing else."""
    y, mask, noise_of_y = (None if part is None else part.to(clean.device) for part in observed)
    assert y is not None
    denoise = denoiser.given(y, mask, noise_of_y).looking_again()
    level = denoise.blind if sigma == math.inf else torch.full((len(clean),), sigma, device=clean.device)
    square = (denoise(clean + per_item(level, clean) * noise, level) - clean).square().mean(1, keepdim=True)
    for item, errors in enumerate(square):
        erased = mask is not None and noise_of_y is not None and float(noise_of_y[item]) == 0
        yield float(errors[~mask[item]].mean() if mask is not None and erased else errors.mean())
