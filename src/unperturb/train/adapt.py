"""Learning from noisy recordings: a run that keeps the best there was, by an estimate that needs nothing clean.

Files are those of `unperturb.train.run`; the model is written whenever it is better than before. A run that begins with
weights ends with those weights if nothing better was found, and stops when nothing better comes any more.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb import __version__
from unperturb.errors import FileError
from unperturb.model.checkpoint import save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.spec import parse
from unperturb.train.batches import NoisyDraw
from unperturb.train.fit import Progress, fit
from unperturb.train.recordings import Estimate, Recordings
from unperturb.train.run import NEVER, Habits, RunFiles, cut_log
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

PATIENCE = 6
"""Estimates in a row without a better one, after which a run that began with weights stops."""


@dataclass(frozen=True)
class NoisyReport:
    """What a person wants to know of a run under way.

    Attributes
    ----------
    progress
        The latest step; None before the first.
    steps
        Done, also before this run was taken up again.
    before, best
        Estimated mean squared error at the beginning, and the least so far; below nothing where chance has it so.
    noise
        The mean square of the noise, in the same units.
    """

    progress: Progress | None
    steps: int
    before: float
    best: float
    noise: float

    @property
    def gain(self) -> float:
        """How much better the best is than the beginning, in dB; none where errors are too small to be told."""
        before, best = (max(error, self.noise / 300) for error in (self.before, self.best))
        return 10 * math.log10(before / best)


def learn_noisy(
    settings: FitSettings,
    recordings: Recordings,
    files: RunFiles,
    habits: Habits,
    *,
    card: Mapping[str, str] | None = None,
    half: bool = False,
    weights: Denoiser | None = None,
    resume: bool = False,
) -> Iterator[NoisyReport]:
    """Train a model on noisy recordings, and yield after each step.

    Parameters
    ----------
    settings
        What to train, and how: `objective` is one of `unperturb.train.noisy`.
    recordings
        What to learn from.
    files, habits, card, half, weights, resume
        As for `unperturb.train.run.train_model`.

    Raises
    ------
    UsageError
        Where the settings differ from those of the run to resume.
    TrainingError
        Where training cannot go on; the latest checkpoint and the best model stay.
    """
    settings = replace(settings, perturb=str(parse(settings.perturb)), data=_key(recordings))
    resumed = resume and files.state.is_file()
    state = (
        FitState.resume(files.state, settings, habits.device)
        if resumed
        else FitState.start(settings, weights, habits.device)
    )
    cut_log(files.log, state.step if resumed else NEVER)
    known = _known(files) if resumed else []

    def keep() -> None:
        told = {"recordings": recordings.count, "estimated error before": known[0].told}
        made = _finished(state, {**told, "estimated error": known[-1].told}).with_card(**(card or {}))
        save_model(made, files.model, dtype=torch.float16 if half else torch.float32)

    if not known:
        known = [recordings.estimated_error(state.averaged)]
        _log(files, state.step, known[0])
        state.save(files.state)
        if weights is not None:
            keep()
    best = _best(known, weights)
    yield NoisyReport(None, state.step, known[0].told, known[best].told, recordings.noise)
    saved = time.monotonic()
    size, paired = settings.patch_size, settings.objective == "noise2noise"

    def draw(generator: np.random.Generator, _: int) -> NDArray[np.float32]:
        return recordings.crop(generator, size, paired=paired)

    shots = NoisyDraw(draw, recordings.counting)
    for progress in fit(state, shots, precision=habits.precision, threads=habits.threads):
        last = progress.step == progress.steps
        if last or progress.step % habits.validate == 0:
            known.append(recordings.estimated_error(state.averaged))
            _log(files, progress.step, known[-1])
            best = _best(known, weights)
            if best == len(known) - 1:
                keep()
        if last or time.monotonic() - saved > habits.checkpoint:
            state.save(files.state)
            saved = time.monotonic()
        yield NoisyReport(progress, state.step, known[0].told, known[best].told, recordings.noise)
        if weights is not None and len(known) - 1 - best >= PATIENCE:
            state.save(files.state)
            return


def _finished(state: FitState, told: Mapping[str, float]) -> Denoiser:
    """Return what was learned so far, with a card that says how."""
    training = {"steps": state.step, "seconds": round(state.seconds), **told}
    versions = {"unperturb": __version__, "torch": torch.__version__}
    return state.averaged.with_card(recipe=state.settings.as_dict(), training={**training, **versions}, errors={})


def _key(recordings: Recordings) -> str:
    """Name what is learned from, so that no run is resumed on something else."""
    total = sum(float(plane.astype("float64").sum()) for plane in (*recordings.planes, *recordings.again))
    count = sum(plane.size for plane in recordings.planes)
    return f"{len(recordings.planes)} noisy recordings of {count} values, {total!r}"


def _best(known: list[Estimate], weights: Denoiser | None) -> int:
    """Return which of the estimates is the best; random weights at the beginning are none."""
    best = 0
    for number, estimate in enumerate(known):
        if estimate.better_than(known[best]) or (number == 1 and weights is None):
            best = number
    return best


def _known(files: RunFiles) -> list[Estimate]:
    """Return the estimates so far, the first of them that of the beginning."""
    lines = files.log.read_text().splitlines() if files.log.is_file() else []
    if not lines:
        raise FileError(f"the log {files.log} of the run to resume is gone; --overwrite begins anew")
    return [Estimate(*json.loads(line)["estimated"]) for line in lines]


def _log(files: RunFiles, step: int, error: Estimate) -> None:
    with files.log.open("a") as file:
        file.write(json.dumps({"step": step, "estimated": error}) + "\n")
