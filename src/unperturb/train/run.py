"""A training run on images or signals, as it lies on the disk: checkpoints, a log, validation, the model at the end.

::

    model.safetensors            the result, written when training ends
    model.state.safetensors      the latest checkpoint, replaced every few minutes
    model.log.jsonl              one line each validation

The first two are written whole or not at all, and what the log holds beyond the checkpoint is taken back on resuming.
So a run may be killed at any moment and taken up again.
"""

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb import __version__
from unperturb.atomic import whole
from unperturb.data.crops import Crops
from unperturb.data.patches import Patches
from unperturb.errors import TrainingError, UsageError
from unperturb.model.checkpoint import save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.level import Range
from unperturb.model.machine import workers
from unperturb.model.network import UNetSettings
from unperturb.model.perturbation import Perturbed, per_item, stacked
from unperturb.model.spec import parse
from unperturb.train.fit import Draw, FitSettings, FitState, Progress, Together, fit

LEVELS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Noise levels at which a model's card states its validation error."""


class Material(Protocol):
    """Clean signals to learn from, and to validate on: `data.patches.Patches`, `data.stretches.Stretches`."""

    @property
    def key(self) -> str:
        """Names what went in, so that no run is resumed on other data."""

    @property
    def dims(self) -> int:
        """Axes of space."""

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the crops to validate on, falling: the largest that there is material for is taken."""

    @property
    def largest(self) -> int:
        """The largest side of a crop that there is material for; 0 where there is none at all."""

    def __len__(self) -> int: ...

    def of(self, *, held_out: bool) -> Self:
        """Return what is held out for validation, or the rest."""

    def at_least(self, size: int) -> Self:
        """Return the pieces from which a crop of this size can be taken; `TrainingError` where there are none."""

    def crop(self, generator: np.random.Generator, size: int, *, gray: bool) -> NDArray[np.float32]:
        """Take a crop at random, ``(channel, *space)``."""

    def centre(self, index: int, size: int, *, gray: bool) -> NDArray[np.float32]:
        """Return the middle of one piece, ``(channel, *space)``."""


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what, given where its model is to go."""

    model: Path

    @property
    def state(self) -> Path:
        """The latest checkpoint."""
        return self.model.with_name(f"{self.model.name.removesuffix('.safetensors')}.state.safetensors")

    @property
    def log(self) -> Path:
        """The log, a JSON object a line."""
        return self.model.with_name(f"{self.model.name.removesuffix('.safetensors')}.log.jsonl")


@dataclass(frozen=True)
class Habits:
    """How a run is gone about. Device and precision change the result by rounding, the rest not at all.

    Attributes
    ----------
    checkpoint
        Seconds between checkpoints.
    validate
        Steps between validations.
    precision
        "auto", "float32" or "bfloat16".
    threads
        On a processor; all cores by default.
    device
        Where to train.
    """

    checkpoint: float = 180.0
    validate: int = 500
    precision: str = "auto"
    threads: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Report:
    """What a person wants to know of a run under way.

    Attributes
    ----------
    progress
        The latest step.
    loss
        Running mean of the loss over about the last hundred steps.
    speed
        Megapixels trained on a second, of late.
    psnr
        Validation, in dB, by kind of image; empty before the first.
    """

    progress: Progress
    loss: float
    speed: float
    psnr: dict[str, float]


def train_model(
    settings: FitSettings,
    material: Material,
    files: RunFiles,
    habits: Habits,
    *,
    card: Mapping[str, str] | None = None,
    half: bool = False,
    weights: Denoiser | None = None,
    resume: bool = False,
) -> Iterator[Report]:
    """Train a model, keeping everything on the disk, and write it when done; yields after each step.

    Parameters
    ----------
    settings
        What to train, and how.
    material
        Images or signals; what is held out is for validation.
    files
        Where to keep it.
    habits
        How to go about it.
    card
        Name, description, data and licence, for the model's card.
    half
        Store the model's weights in half precision.
    weights
        A denoiser whose weights to begin with, rather than with random ones.
    resume
        Go on from the latest checkpoint, where there is one.

    Raises
    ------
    UsageError
        Where the settings differ from those of the run to resume.
    TrainingError
        Where training cannot go on; the latest checkpoint stays.
    """
    settings = replace(settings, data=material.key, perturb=str(parse(settings.perturb)))
    held_out = material.of(held_out=True)
    _check_validation(held_out)
    if resume and files.state.is_file():
        state = FitState.resume(files.state, settings, habits.device)
    else:
        state = FitState.start(settings, weights, habits.device)
    _cut_log(files.log, state.step)
    draw = crops(settings, material.of(held_out=False), habits.device)
    meter = _Meter()
    saved = time.monotonic()
    psnr: dict[str, float] = {}
    for progress in fit(state, draw, precision=habits.precision, threads=habits.threads):
        meter.add(progress, settings)
        last = progress.step == progress.steps
        if last or time.monotonic() - saved > habits.checkpoint:
            state.save(files.state)
            saved = time.monotonic()
        if last or progress.step % habits.validate == 0:
            psnr = validation_psnr(state.averaged, held_out, _middle(settings), habits)
            _log(files.log, Report(progress, meter.loss, meter.speed, psnr))
        yield Report(progress, meter.loss, meter.speed, psnr)
    denoiser = finished(state, material, habits).with_card(**(card or {}))
    save_model(denoiser, files.model, dtype=torch.float16 if half else torch.float32)


def finished(state: FitState, material: Material, habits: Habits) -> Denoiser:
    """Return what was learned so far, with a card that says how and how well."""
    settings = state.settings
    errors = {
        kind: {f"{level:g}": value for level, value in by_level.items()}
        for kind, by_level in validation_errors(state.averaged, material.of(held_out=True), LEVELS, habits).items()
    }
    training = {
        "steps": state.step,
        "megapixels": round(state.step * settings.batch * settings.patch_size**material.dims / 1e6),
        "seconds": round(state.seconds),
        "unperturb": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        ("images and reduced copies" if material.dims == 2 else "stretches"): len(material),
    }
    return state.averaged.with_card(recipe=settings.as_dict(), training=training, errors=errors)


def crops(settings: FitSettings, material: Material, device: torch.device | None = None) -> Draw | Together:
    """Return the `draw` that training asks for: crops, of images in colour the first of each batch in gray.

    On a GPU images lie in its memory, and a batch is taken there as a whole.
    """
    network = settings.network
    if not isinstance(network, UNetSettings) or network.dims != material.dims:
        kind = "images are" if material.dims == 2 else "signals are"
        raise UsageError(f"{kind} learned by a network with {material.dims} space dimensions")
    material = material.at_least(settings.patch_size)
    n_gray = settings.batch if network.channels == 1 else round(settings.gray * settings.batch)
    if device is not None and device.type != "cpu" and isinstance(material, Patches):
        return together(material, settings, n_gray, device)
    return lambda generator, item: material.crop(generator, settings.patch_size, gray=item < n_gray)


def together(material: Patches, settings: FitSettings, n_gray: int, device: torch.device) -> Together:
    """Return what draws whole batches of crops on a device, so many of them in gray."""
    images = Crops.of(material, device)
    counts = [(count, gray) for count, gray in ((n_gray, True), (settings.batch - n_gray, False)) if count]
    return Together(
        lambda generator: [images.draw(count, settings.patch_size, generator, gray=gray) for count, gray in counts]
    )


def validation_psnr(denoiser: Denoiser, material: Material, sigma: float, habits: Habits) -> dict[str, float]:
    """Return the mean PSNR in dB (of a range of 1) over held-out images, by kind of image."""
    errors = _errors(denoiser, material, sigma, habits)
    return {kind: float(np.mean(-10 * np.log10(values))) for kind, values in errors.items() if values}


def validation_errors(
    denoiser: Denoiser, material: Material, levels: Sequence[float], habits: Habits
) -> dict[str, dict[float, float]]:
    """Return the mean squared error over held-out images, by kind of image and noise level.

    A conditional model sees every image perturbed as it was in training, beside its noisy version. At a level of
    infinity that is all it sees. Where nothing but erasure was done to an image, the error is that of erased pixels.
    """
    found: dict[str, dict[float, float]] = {}
    for level in (*levels, math.inf) if denoiser.card.network.given else levels:
        for kind, values in _errors(denoiser, material, level, habits).items():
            if values:
                found.setdefault(kind, {})[level] = float(np.mean(values))
    return found


def _errors(denoiser: Denoiser, material: Material, sigma: float, habits: Habits) -> dict[str, list[float]]:
    """Mean squared error of each held-out piece under the same noise at every call."""
    size = next(side for side in material.sides if side <= material.largest)
    material = material.at_least(size)
    colour = denoiser.card.network.channels == 3 if isinstance(denoiser.card.network, UNetSettings) else False
    count = min(len(material), 48)
    share = 1 if habits.device.type == "cpu" else count
    errors = {}
    with workers(habits.device, habits.threads) as run:
        for kind in ["gray", "colour"] if colour else ["gray" if material.dims == 2 else "signal"]:

            def error(first: int, gray: bool = kind == "gray") -> list[float]:
                items = range(first, min(first + share, count))
                clean = [torch.from_numpy(material.centre(index, size, gray=gray))[None] for index in items]
                return _error(denoiser, clean, list(items), sigma, habits.device)

            values = [value for found in run(error, range(0, count, share)) for value in found]
            errors[kind] = [value for value in values if not math.isnan(value)]
    return errors


@torch.no_grad()
def _error(
    denoiser: Denoiser, clean: list[Tensor], seeds: list[int], sigma: float, device: torch.device
) -> list[float]:
    """Mean squared error of each image, which has randomness of its own; NaN where nothing of it was perturbed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = [torch.randn(image.shape, generator=generator) for image, generator in zip(clean, generators, strict=True)]
    if not denoiser.card.network.given:
        x = [image + sigma * each for image, each in zip(clean, noise, strict=True)]
        estimate = denoiser(torch.cat(x).to(device), sigma).cpu()
        return (estimate - torch.cat(clean)).square().flatten(1).mean(1).tolist()
    perturb = parse(denoiser.card.perturbation)
    groups: dict[tuple[bool, bool], list[tuple[int, Perturbed]]] = {}
    for item, (image, generator) in enumerate(zip(clean, generators, strict=True)):
        made = perturb(image, generator)
        groups.setdefault((made.mask is None, made.sigma is None), []).append((item, made))
    errors = [math.nan] * len(clean)
    for group in groups.values():
        items = [item for item, _ in group]
        truth, drawn = (torch.cat([images[item] for item in items]).to(device) for images in (clean, noise))
        for item, value in zip(
            items, _given_errors(denoiser, stacked([made for _, made in group]), truth, drawn, sigma), strict=True
        ):
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


def _check_validation(held_out: Material) -> None:
    """Refuse, before the first step, images or signals that leave nothing to validate on."""
    smallest = held_out.sides[-1]
    if held_out.largest >= smallest:
        return
    if held_out.dims == 1:
        raise TrainingError(
            f"no stretch of at least {smallest} samples without a gap is left for validation; give longer signals"
        )
    raise TrainingError(
        f"no image of at least {smallest} pixels a side is left for validation; give more images, or larger ones"
    )


def _middle(settings: FitSettings) -> float:
    """Return the noise level to watch: the middle of what is trained; of a conditional model, the best guess."""
    if settings.network.given:
        return math.inf
    level = getattr(parse(settings.perturb), "sigma", 0.1)
    return (level.low + level.high) / 2 if isinstance(level, Range) else float(level)


class _Meter:
    """Running means of what progress shows."""

    def __init__(self) -> None:
        self.loss, self.speed, self._seconds = math.nan, math.nan, 0.0

    def add(self, progress: Progress, settings: FitSettings) -> None:
        took, self._seconds = progress.seconds - self._seconds, progress.seconds
        dims = settings.network.dims if isinstance(settings.network, UNetSettings) else 2
        speed = settings.batch * settings.patch_size**dims / 1e6 / max(took, 1e-9)
        first = math.isnan(self.loss)
        self.loss = progress.loss if first else 0.99 * self.loss + 0.01 * progress.loss
        self.speed = speed if first else 0.99 * self.speed + 0.01 * speed


def _log(path: Path, report: Report) -> None:
    line = {**asdict(report.progress), "mean_loss": report.loss, "speed": report.speed, "psnr": report.psnr}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _cut_log(path: Path, step: int) -> None:
    """Take back what was logged after the checkpoint that training goes on from; a torn last line as well."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step and step > 0:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    with whole(path, overwrite=True) as part:
        part.write_text("".join(f"{line}\n" for line in kept))
