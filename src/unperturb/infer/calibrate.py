"""How wide intervals have to be: learned on clean images that are perturbed on purpose, and measured on others.

Each image is perturbed, restored and drawn from as it would be in use. A score says how far off the restoration was, in
units of the spread of the draws,

    r = |T(x) − c| / s

for every pixel, and for every other statistic T that is asked for. The interval c ± λ s covers the truth where r ≤ λ.
So λ is a quantile of the scores (`unperturb.infer.conformal`; scores in units of a spread: Lei et al., 2018, section
5.2; for images: Angelopoulos et al., "Image-to-image regression with distribution-free uncertainty quantification",
2022), and what it covers elsewhere is the share of the scores there that are below it.

::

    made = calibrate(trials(images, denoiser, [0.02, 0.1]), level=0.9)     # after `find_inflation`, where there is any
    for found in measure(trials(others, denoiser, [0.05]), made):
        print(found.statistic, found.measured)
    denoiser = with_calibration(denoiser, made)
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.conformal import SCALES, check_share, conformal_scale, miss_shares, risk_controlled_scale
from unperturb.infer.evaluate import perturb
from unperturb.infer.interval import CENTRAL, GUARANTEED, Calibration, Drawing, kind_of, pixel_spread
from unperturb.infer.observe import is_conditional, observe
from unperturb.infer.posterior import Posterior
from unperturb.infer.statistic import PIXEL, SIZES, Statistic, region_means
from unperturb.infer.tiled import Compute
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.perturbation import Choice, Gaussian, Perturbation
from unperturb.model.stabilise import Stabiliser, counting

CROP = 192
"""Side in pixels of the middle of each image that is tried: what is near decides, and draws take long."""


TRIED_INFLATION, MOST_INFLATION = 1.01, 1.03
"""What to try besides none, and the most there is."""


@dataclass(frozen=True)
class Trial:
    """What one clean signal, perturbed and restored, says of its intervals.

    Attributes
    ----------
    kind
        "gray" or "colour", or what else there is to be kept apart.
    sigma
        Of the noise, in the units of the values.
    scores
        By statistic: distance of the truth from the centre in units of the spread, one a value.
    spreads
        By statistic: the spread, on average.
    drawing
        How draws were made.
    error, error_of_draws
        The mean squared error of the best guess, and of a draw.
    """

    kind: str
    sigma: float
    scores: Mapping[str, NDArray[np.float32]]
    spreads: Mapping[str, float]
    drawing: Drawing
    error: float = 0.0
    error_of_draws: float = 0.0


REGION_MEANS = tuple(map(region_means, SIZES))
"""The statistics that are calibrated beside the pixels, where nothing else is said."""


def trials(
    images: Iterable[tuple[str, NDArray[np.float32]]],
    denoise: Denoise,
    sigmas: Sequence[float] | Perturbation,
    *,
    drawing: Drawing | None = None,
    statistics: Sequence[Statistic] = REGION_MEANS,
    seed: int = 0,
    crop: int | None = CROP,
    compute: Compute | None = None,
) -> Iterator[Trial]:
    """Perturb clean images on purpose, and see how far off intervals around their restorations are.

    Parameters
    ----------
    images
        Names and clean images, ``(H, W)`` or ``(H, W, C)``, or signals ``(T,)``, in the values that the denoiser works
        in. Noise and draws come from seed and name alone.
    denoise
        The denoiser.
    sigmas
        Noise levels in the units of the values. Or a perturbation: for a conditional model any, at level 1; for another
        the noise of counting, or several of such as alternatives, each at the noise of its stabilised values.
    drawing
        How to draw.
    statistics
        What is asked of an image beside its pixels.
    seed
        Of noise and draws.
    crop
        Most pixels along each side; the middle of an image is taken. None for all of it.
    compute
        Device, precision, tiles.

    Yields
    ------
    Trial
        One an image and level.

    Raises
    ------
    UsageError
        Where a level is not above 0, or a perturbation is not what the denoiser can be calibrated for.
    """
    drawing = drawing or Drawing()
    perturbations = by_level(sigmas, denoise)
    half_colour = isinstance(denoise, Denoiser) and bool(denoise.card.recipe.get("half_colour"))
    for name, image in images:
        clean = image if crop is None else _middle(image, crop)
        axis = -1 if clean.ndim == 3 else None
        for level, perturbation in perturbations.items():
            seen = perturb(clean, perturbation, seed, name, half_colour=half_colour)
            observation = observe(
                seen.values,
                denoise,
                seen.sigma,
                channel_axis=axis,
                missing=seen.missing,
                perturbation=None if is_conditional(denoise) else perturbation,
                compute=compute,
                placed=clean.ndim == 1,
            )
            posterior, first = observation.posterior, _number(name)
            draws = drawing.draw(posterior, seed=seed, items=range(first, first + len(posterior.start)))
            truth = observation.to_signal(seen.wanted)
            scores, spreads = score(posterior, truth, draws, statistics)
            errors = [float((guess - truth).square().mean()) for guess in (posterior.mean, draws)]
            yield Trial(kind_of(posterior), level, scores, spreads, drawing, *errors)


def by_level(sigmas: Sequence[float] | Perturbation, denoise: Denoise) -> dict[float, Perturbation]:
    """Return what is to be done to the images, by the level that it is calibrated under; arguments as for `trials`."""
    if isinstance(sigmas, Sequence):
        if not sigmas or not all(0 < sigma < np.inf for sigma in sigmas):
            raise UsageError(f"noise levels to calibrate at are finite and above 0; got {', '.join(map(str, sigmas))}")
        return {sigma: Gaussian(sigma) for sigma in sigmas}
    if is_conditional(denoise):
        return {1.0: sigmas}
    found: dict[float, Perturbation] = {}
    for part in sigmas.parts if isinstance(sigmas, Choice) else (sigmas,):
        noise = counting(part)
        if noise is None:
            raise UsageError(
                f"a model of noise is calibrated at noise levels, or under the noise of counting, such as "
                f"'poisson:gain=0.1 | poisson:gain=0.02'; got {part}"
            )
        level = Stabiliser(noise.gain, noise.read, noise.offset).sigma
        if level in found:
            raise UsageError(
                f"{found[level]} and {part} are equally strong, and cannot be told apart by it; leave one out"
            )
        found[level] = part
    return found


def score(
    posterior: Posterior, clean: Tensor, draws: Tensor, statistics: Sequence[Statistic] = ()
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Return how far the truth is from the centre in units of the spread, and the mean spread, both by statistic.

    Parameters
    ----------
    posterior
        Of signals ``(batch, …)``.
    clean
        The truth, of that shape.
    draws
        ``(n, batch, …)``.
    statistics
        What is asked beside the values themselves.
    """
    mean = posterior.mean
    found = {PIXEL: (clean, mean, pixel_spread(posterior, draws))}
    found |= {each.name: (each.of(clean), *each.centre_and_spread(mean, draws)) for each in statistics}
    scores, spreads = {}, {}
    for name, (truth, centre, spread) in found.items():
        # What was observed as it is needs no interval. A spread of nothing around anything but the truth is infinitely
        # wrong.
        hidden = (spread > 0) | (truth != centre)
        if hidden.any():
            gap = (truth - centre).abs()
            scores[name] = torch.where(gap == 0, 0.0, gap / spread)[hidden].numpy()
            spreads[name] = float(spread[hidden].mean())
    return scores, spreads


def find_inflation(tried: Mapping[float, Sequence[Trial]]) -> dict[float, float]:
    """Return what noise on the way to a draw is to be multiplied by, so that draws lie as far apart as they should.

    A draw that knows as much as the best guess, and no more, has twice its squared error.

    Parameters
    ----------
    tried
        The same trials with two inflations, 1 and a little more.

    Returns
    -------
    dict
        By noise level, where a line through both has twice the error. Nothing is deflated, and nothing inflated more
        than by `MOST_INFLATION`.
    """
    (low, few), (high, more) = ((factor, _errors_of_draws(some)) for factor, some in sorted(tried.items()))
    found = {}
    for sigma, error in few.items():
        rise = (more[sigma] - error) / (high - low)
        found[sigma] = float(np.clip(low + (2 - error) / rise, 1.0, MOST_INFLATION)) if rise > 0 else 1.0
    return found


def _errors_of_draws(tried: Sequence[Trial]) -> dict[float, float]:
    """Return the squared error of draws in units of that of the best guess, by noise level."""
    found: dict[float, list[tuple[float, float]]] = {}
    for trial in tried:
        found.setdefault(trial.sigma, []).append((trial.error_of_draws, trial.error))
    sums = {sigma: np.sum(pairs, 0) for sigma, pairs in found.items()}
    return {sigma: float(of_draws / of_guess) for sigma, (of_draws, of_guess) in sums.items() if of_guess > 0}


def calibrate(
    tried: Iterable[Trial], *, level: float = 0.9, confidence: float | None = 0.9, data: str = ""
) -> list[Calibration]:
    """Choose how wide intervals are to be, so that they hold on images like those that were tried.

    Parameters
    ----------
    tried
        Trials, each image at all noise levels; those of gray and of colour images are kept apart.
    level
        The share of values that intervals are to cover.
    confidence
        Of the guarantee that is added to the central promise; None for no guarantee.
    data
        What the images are, for the card.

    Returns
    -------
    list of Calibration
        One for each kind of image, statistic and promise. A promise that so few images cannot keep is left out: a
        guarantee takes `images_needed` at least.

    Raises
    ------
    UsageError
        Where nothing was tried, not all draws were made alike, or a number is out of range.
    """
    check_share("level", level)
    tried = list(tried)
    if not tried or len({trial.drawing for trial in tried}) > 1:
        raise UsageError("to calibrate, give trials, with draws that were all made alike")
    promises: list[tuple[str, float | None]] = [(CENTRAL, None)]
    if confidence is not None:
        check_share("confidence", confidence)
        promises.append((GUARANTEED, confidence))
    made = []
    for (kind, statistic), by_sigma in _grouped(tried).items():
        n_images = min(map(len, by_sigma.values()))
        for promise, sure in promises:
            scales = {sigma: _scale(scores, level, sure) for sigma, scores in by_sigma.items()}
            if all(map(np.isfinite, scales.values())):
                made.append(
                    Calibration(statistic, promise, kind, level, sure, scales, tried[0].drawing, n_images, data)
                )
    return made


def _grouped(tried: Iterable[Trial]) -> dict[tuple[str, str], dict[float, list[NDArray[np.float32]]]]:
    """Sort scores by kind and statistic, by noise level, by image."""
    groups: dict[tuple[str, str], dict[float, list[NDArray[np.float32]]]] = {}
    for trial in tried:
        for statistic, scores in trial.scores.items():
            groups.setdefault((trial.kind, statistic), {}).setdefault(trial.sigma, []).append(scores)
    return groups


def _scale(scores: Sequence[NDArray[np.float32]], level: float, confidence: float | None) -> float:
    if confidence is None:
        return conformal_scale(np.concatenate(scores), level)
    losses = np.stack([miss_shares(each, SCALES) for each in scores])
    return risk_controlled_scale(losses, SCALES, 1 - level, 1 - confidence)


# --- whether they hold ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coverage:
    """What calibrated intervals cover on images that are not those of the calibration.

    Attributes
    ----------
    key
        Of the calibration.
    statistic, promise
        What it is of, and what it promises.
    sigma
        Noise level in the units of the values.
    level
        What was promised.
    measured
        The share that is covered, over all values of all images.
    lowest
        The share in the image that is covered the least.
    width
        Of the intervals, on average, in the units of the values.
    n_images
        How many images there were.
    calibrated
        Whether the noise level is within those of the calibration.
    """

    key: str
    statistic: str
    promise: str
    sigma: float
    level: float
    measured: float
    lowest: float
    width: float
    n_images: int
    calibrated: bool


def measure(tried: Iterable[Trial], known: Iterable[Calibration]) -> list[Coverage]:
    """Measure what calibrated intervals cover.

    Parameters
    ----------
    tried
        Trials on images that the calibrations have not seen.
    known
        Calibrations; each is held against the trials of its kind, statistic and drawing.

    Returns
    -------
    list of Coverage
        One a calibration and noise level.
    """
    tried = list(tried)
    return [
        _coverage(each, sigma, [trial for trial in mine if trial.sigma == sigma])
        for each in known
        if (mine := [trial for trial in tried if _fits(trial, each)])
        for sigma in dict.fromkeys(trial.sigma for trial in mine)
    ]


def _fits(trial: Trial, calibration: Calibration) -> bool:
    return (
        trial.kind == calibration.kind
        and trial.drawing == calibration.drawing
        and calibration.statistic in trial.scores
    )


def _coverage(calibration: Calibration, sigma: float, tried: Sequence[Trial]) -> Coverage:
    name, scale = calibration.statistic, float(calibration.scale(sigma))
    inside = [trial.scores[name] <= scale for trial in tried]
    return Coverage(
        calibration.key, name, calibration.promise, sigma, calibration.level,
        measured=float(np.concatenate(inside).mean()),
        lowest=float(min(each.mean() for each in inside)),
        width=2 * scale * float(np.mean([trial.spreads[name] for trial in tried])),
        n_images=len(tried),
        calibrated=calibration.holds_at(sigma),
    )  # fmt: skip


def _middle(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    first = [max(length - size, 0) // 2 for length in image.shape[:2]]
    return image[tuple(slice(start, start + size) for start in first)]


def _number(name: str) -> int:
    """Return a number that stands for a name, so that the draws of different images have nothing in common."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
