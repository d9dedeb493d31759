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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from unperturb import __version__
from unperturb.atomic import whole
from unperturb.errors import ProcessLostError, TrainingError, UsageError
from unperturb.model.checkpoint import save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.level import Range
from unperturb.model.network import UNetSettings
from unperturb.model.spec import parse
from unperturb.train.fit import Progress, fit
from unperturb.train.material import Material, crops
from unperturb.train.processes import Processes
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState
from unperturb.train.validate import LEVELS, validation_errors, validation_psnr

NEVER = -1
"""The step of a run that begins anew, of whose log nothing is kept."""


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
    """How a run is gone about.

    Device and precision change the result by rounding, the rest not at all; but learning from noisy recordings stops by
    its validations, and so `validate` changes what it ends with.

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
    card: Mapping[str, Any] | None = None,
    half: bool = False,
    weights: Denoiser | None = None,
    resume: bool = False,
    processes: Processes | None = None,
) -> Iterator[Report]:
    """Train a model, keeping everything on the disk, and write it when done; yields after each step.

    Of several processes the first writes, and has the PSNR of its reports.

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
        Name, description, data, licence, and rates of signals, for the model's card.
    half
        Store the model's weights in half precision.
    weights
        A denoiser whose weights to begin with, rather than with random ones.
    resume
        Go on from the latest checkpoint, where there is one.
    processes
        Those that train it together; by default this one alone.

    Raises
    ------
    UsageError
        Where the settings differ from those of the run to resume.
    TrainingError
        Where training cannot go on; the latest checkpoint stays. Where another process was lost, it is that of the last
        whole step.
    """
    processes = processes or Processes()
    settings = replace(settings, data=material.key, perturb=str(parse(settings.perturb)))
    held_out = material.of(held_out=True)
    _check_validation(held_out)
    if resume and files.state.is_file():
        state = FitState.resume(files.state, settings, habits.device)
    else:
        state = FitState.start(settings, weights, habits.device)
    if not processes.alike(state.step, habits.device):
        raise UsageError(
            f"the checkpoint {files.state} is not the same for all processes; put it where all of them see it"
        )
    was_done = state.step >= settings.steps
    draw = crops(settings, material.of(held_out=False), habits.device, processes)
    taken = fit(state, draw, precision=habits.precision, threads=habits.threads, processes=processes)
    if not processes.leads:
        for progress in taken:
            yield Report(progress, math.nan, math.nan, {})
        return
    try:
        yield from _recorded(taken, state, held_out, files, habits)
    except ProcessLostError as error:
        state.save(files.state)
        raise ProcessLostError(
            f"{error} after step {state.step}; nothing is lost: --resume goes on from there"
        ) from None
    if was_done and files.model.is_file():  # with what may have been added to its card since
        return
    denoiser = finished(state, material, habits).with_card(**(card or {}))
    save_model(denoiser, files.model, dtype=torch.float16 if half else torch.float32)


def _recorded(
    taken: Iterator[Progress], state: FitState, held_out: Material, files: RunFiles, habits: Habits
) -> Iterator[Report]:
    """Take the steps, with checkpoints and validation in between and a log of it."""
    settings = state.settings
    begun = False
    meter = _Meter()
    saved = time.monotonic()
    psnr: dict[str, float] = {}
    for progress in taken:
        if not begun:  # what cannot be learned has said so by now, and has changed nothing
            cut_log(files.log, progress.step - 1 or NEVER)
            if progress.step == 1:
                files.state.unlink(missing_ok=True)
            begun = True
        meter.add(progress, settings)
        last = progress.step == progress.steps
        if last or time.monotonic() - saved > habits.checkpoint:
            state.save(files.state)
            saved = time.monotonic()
        if last or progress.step % habits.validate == 0:
            psnr = validation_psnr(
                state.averaged, held_out, _middle(settings), habits.device, habits.threads, settings.perturbing
            )
            _log(files.log, Report(progress, meter.loss, meter.speed, psnr))
        yield Report(progress, meter.loss, meter.speed, psnr)
    if not begun:
        cut_log(files.log, state.step or NEVER)


def finished(state: FitState, material: Material, habits: Habits) -> Denoiser:
    """Return what was learned so far, with a card that says how and how well."""
    settings = state.settings
    held_out = material.of(held_out=True)
    found = validation_errors(state.averaged, held_out, LEVELS, habits.device, habits.threads, settings.perturbing)
    errors = {kind: {f"{level:g}": value for level, value in by_level.items()} for kind, by_level in found.items()}
    training = {
        "steps": state.step,
        "megapixels": round(state.step * settings.batch * settings.patch_size**material.dims / 1e6),
        "seconds": round(state.seconds),
        "unperturb": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        ("images and reduced copies" if material.dims == 2 else "stretches"): len(material),
    }
    return state.averaged.with_card(recipe=settings.as_dict(), training=training, errors=errors, ends=material.ends)


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


def cut_log(path: Path, step: int) -> None:
    """Take back what was logged after the checkpoint that training goes on from; a torn last line as well."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    with whole(path, overwrite=True) as part:
        part.write_text("".join(f"{line}\n" for line in kept))
