"""From the options of `unperturb calibrate` to a calibrated model, or to what its intervals cover."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.app.batch import run_batch
from unperturb.app.observing import check_mean, check_sigma
from unperturb.app.outputs import Job, check_not_input
from unperturb.atomic import check_place, make_folder
from unperturb.data.decoded import held_out_files
from unperturb.data.listing import files_of
from unperturb.data.patches import LUMINANCE
from unperturb.data.recording import Recording, check_finite, read
from unperturb.errors import FileError, ModelError, UnperturbError, UsageError
from unperturb.infer.calibrate import (
    TRIED_INFLATION,
    Coverage,
    Trial,
    by_level,
    calibrate,
    find_inflation,
    measure,
    trials,
)
from unperturb.infer.conformal import check_share, images_needed
from unperturb.infer.interval import COUNTS, GUARANTEED, Calibration, Drawing, calibrations, with_calibration
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import load, save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.perturbation import Perturbation
from unperturb.model.spec import parse

LEVELS = (5, 15, 25, 50)
"""Noise levels to calibrate at where none are given, in grey levels of 255."""

Told = tuple[dict[str, Any], list[str]]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line: images, a model, how to compute, and all other options by name."""

    inputs: tuple[Path, ...]
    model: str
    compute: Compute
    options: dict[str, Any]
    left_out: tuple[str, ...] = ()
    """Files of which it is known that they cannot be used."""

    def files(self) -> list[Path]:
        """List the images.

        Raises
        ------
        FileError
            Where there are none.
        """
        every, limit = self.options["held_out"], self.options["limit"]
        files = files_of(self.inputs) if every is None else held_out_files(self.inputs, every)
        chosen = np.linspace(0, len(files) - 1, min(limit or len(files), len(files))).round().astype(int)
        return [files[number] for number in chosen if str(files[number]) not in self.left_out]

    def levels(self) -> list[float] | None:
        """Return the noise levels that were given, in the units of the files."""
        text = self.options["sigma"]
        try:
            levels = None if text is None else [float(part) for part in text.split(",")]
        except ValueError:
            raise UsageError(f"--sigma is numbers separated by commas, such as 5,15,25,50; got {text!r}") from None
        if levels is not None and not all(0 < level < np.inf for level in levels):
            raise UsageError(f"the numbers of --sigma are above 0; got {text!r}")
        return levels

    def perturbation(self, denoiser: Denoiser) -> Perturbation | None:
        """Return what is to be done to the images, other than to add noise of some levels.

        Raises
        ------
        UsageError
            Where noise levels are asked for that a conditional model has no use for, or both.
        """
        text, levels = self.options["perturb"], self.options["sigma"]
        if denoiser.card.network.given and levels is not None:
            raise UsageError("--sigma is for models of noise; this one is conditional, see --perturb")
        if text is None:
            return parse(denoiser.card.perturbation) if denoiser.card.network.given else None
        if levels is not None:
            raise UsageError("--sigma and --perturb each say what is done to the images; leave one out")
        return parse(text)

    @property
    def data(self) -> str:
        """What the images are."""
        folders = dict.fromkeys((path if path.is_dir() else path.parent).resolve().name for path in self.inputs)
        held_out = "" if self.options["held_out"] is None else ", held out from training"
        return self.options["data_note"] or ", ".join(folders) + held_out


def learn(request: Request, output: Path, show: Callable[..., None]) -> Told:
    """Calibrate a model, and write it.

    Raises
    ------
    UnperturbError
        Where the request, the model or all of the images are wrong.
    """
    options = request.options
    check_share("level", options["level"])
    check_share("confidence", options["confidence"])
    check_not_input(output, request.inputs)
    check_place(output)
    if output.exists() and not options["overwrite"]:
        raise FileError(f"{output} is there already; --overwrite replaces it")
    denoiser = load(request.model)
    check_mean(denoiser)
    drawing = Drawing(options["n_samples"], options["steps"])
    shares = [level / 255 for level in LEVELS]
    failures: list[dict[str, str]] = []
    inflate = _may_be_inflated(request, denoiser)
    if inflate:
        denoiser, failures = _inflated(request, denoiser, drawing, shares, show)
    request = replace(request, left_out=tuple(each["input"] for each in failures))
    tried, more = _try(request, denoiser, [drawing], shares, _part(show, 2, 3) if inflate else show)
    tried, few = _of_one_kind(tried)
    for kind in few:
        click.echo(f"unperturb: too few of the images are {kind}; they are left out, see --gray", err=True)
    made = calibrate(tried, level=options["level"], confidence=options["confidence"], data=request.data)
    _say_what_is_missing(tried, made, options["level"], options["confidence"])
    make_folder(output.parent)
    save_model(with_calibration(denoiser, made), output, dtype=_stored_in(denoiser))
    told = {
        "model": str(output),
        "images": _count(tried),
        "data": request.data,
        "calibration": [each.as_dict() for each in made],
        "inflation": dict(denoiser.card.inflation),
        "failures": failures + more,
    }
    return told, [
        f"{output}: calibrated on {_count(tried)} images, half widths in spreads",
        *_table(made),
        *_of_inflation(denoiser),
    ]


def _may_be_inflated(request: Request, denoiser: Denoiser) -> bool:
    """Whether draws may be made to lie further apart: under what the model learned, where nothing rests on them yet."""
    return request.options["perturb"] is None and not (denoiser.card.inflation or denoiser.card.calibration)


def _inflated(
    request: Request, denoiser: Denoiser, drawing: Drawing, shares: list[float], show: Callable[..., None]
) -> tuple[Denoiser, list[dict[str, str]]]:
    """Return the denoiser with draws as far apart as its best guess errs on the images, and what could not be used."""
    few = replace(drawing, n_samples=2)
    tried = {}
    failures: list[dict[str, str]] = []
    for number, factor in enumerate((1.0, TRIED_INFLATION)):
        request = replace(request, left_out=tuple(each["input"] for each in failures))
        other = denoiser.with_card(inflation={"1": factor})
        found, more = _try(request, other, [few], shares, _part(show, number, 3))
        tried[factor], _ = _of_one_kind(found)
        failures += more
    factors = find_inflation(tried)
    return denoiser.with_card(inflation={str(sigma): factor for sigma, factor in factors.items()}), failures


def _part(show: Callable[..., None], number: int, count: int) -> Callable[..., None]:
    """Return what shows how far one of so many rounds is, as a part of all."""
    return lambda done, total, *more: show(number * total + done, count * total, *more)


def _of_one_kind(tried: list[Trial]) -> tuple[list[Trial], list[str]]:
    """Leave out kinds of image of which there are few beside another: a gray file or two among colour ones.

    They would take the place of a calibration that was made of many. The second that is returned are these kinds.
    """
    counts = Counter(trial.kind for trial in tried)
    most = max(counts.values())
    few = [kind for kind, count in counts.items() if 2 * count < most]
    return [trial for trial in tried if trial.kind not in few], few


def measured(request: Request, show: Callable[..., None]) -> Told:
    """Measure what a model's intervals cover.

    Raises
    ------
    UnperturbError
        Where the request or all of the images are wrong, or the model is not calibrated.
    """
    denoiser = load(request.model)
    check_mean(denoiser)
    known = calibrations(denoiser.card)
    if not known:
        raise ModelError(f"{request.model} is not calibrated; unperturb calibrate -o does it")
    shares = sorted({sigma for each in known if not each.kind.endswith(COUNTS) for sigma in each.scales})
    counts = not denoiser.card.network.given and request.perturbation(denoiser) is not None
    if counts and not any(each.kind.endswith(COUNTS) for each in known):
        raise ModelError(f"{request.model} is not calibrated for counts; unperturb calibrate --perturb -o does it")
    if not (shares or counts):
        raise ModelError(f"{request.model} is calibrated for counts alone; say which with --perturb")
    tried, failures = _try(request, denoiser, list(dict.fromkeys(each.drawing for each in known)), shares, show)
    found = measure(tried, known)
    if not found:
        kinds = ", ".join(dict.fromkeys(each.kind for each in known))
        raise ModelError(f"{request.model} is calibrated for {kinds} images only; see --gray")
    told = {
        "model": request.model,
        "images": _count(tried),
        "coverage": [asdict(each) for each in found],
        "failures": failures,
    }
    return told, [f"{_count(tried)} images", *map(_line, found)]


def _try(
    request: Request,
    denoiser: Denoiser,
    drawings: Sequence[Drawing],
    shares: list[float],
    show: Callable[..., None],
) -> tuple[list[Trial], list[dict[str, str]]]:
    """Try every image at all levels: those asked for, in its own units, or `shares` of the range of its values.

    For a conditional model there is one level, and the perturbation is what it was trained under, or what is asked for.
    """
    files, options, levels = request.files(), request.options, request.levels()
    perturbation = request.perturbation(denoiser)
    what = levels or shares if perturbation is None else perturbation
    per_image = len(drawings) * len(by_level(what, denoiser))
    tried: list[Trial] = []
    scales: set[float] = set()

    def work(number: int, job: Job) -> dict[str, Any]:
        recording = read(job.source)
        scale = recording.full_scale
        if levels is not None and scales - {scale}:
            raise FileError(f"{job.source} has another bit depth than the files before it; give images of one kind")
        clean = _clean(recording, job.source, levels or [], gray=options["gray"])
        scales.add(scale)
        sigmas = shares if levels is None else [level / scale for level in levels]
        mine: list[Trial] = []
        for drawing in drawings:
            for trial in trials(
                [(job.source.name, clean)],
                denoiser,
                sigmas if perturbation is None else perturbation,
                drawing=drawing,
                seed=options["seed"],
                crop=options["crop"],
                compute=request.compute,
            ):
                mine.append(trial)
                show(number * per_image + len(mine), len(files) * per_image, job.source.name)
        tried.extend(mine)
        return {}

    _, failures = run_batch([Job(file, file) for file in files], work)
    if not tried:
        raise UnperturbError("none of the images could be used")
    return tried, failures


def _clean(recording: Recording, path: Path, levels: list[float], *, gray: bool) -> NDArray[np.float32]:
    """Return a clean image as floats; refuse noise that cannot be meant for it."""
    check_finite(recording, path)
    for level in levels:
        check_sigma(recording, level)
    if recording.stack_shape:
        raise FileError(f"{path} is a stack of images; give single images to calibrate on")
    values = recording.as_float()
    return values @ np.array(LUMINANCE, np.float32) if gray and values.ndim == 3 else values


def _say_what_is_missing(tried: Sequence[Trial], made: Sequence[Calibration], level: float, confidence: float) -> None:
    if any(each.promise == GUARANTEED for each in made):
        return
    needed = images_needed(1 - level, 1 - confidence)
    click.echo(
        f"unperturb: no guarantee is written: at level {level:g} with confidence {confidence:g} it takes {needed} "
        f"images at least, and {_count(tried)} were used",
        err=True,
    )


def _count(tried: Sequence[Trial]) -> int:
    """Return the number of images, each of which was tried as often as any other."""
    first = tried[0]
    return sum((trial.sigma, trial.drawing) == (first.sigma, first.drawing) for trial in tried)


def _table(made: Sequence[Calibration]) -> list[str]:
    return [
        f"{each.key:<36}" + "".join(f"  {sigma:.3g}: {scale:.2f}" for sigma, scale in sorted(each.scales.items()))
        for each in made
    ]


def _of_inflation(denoiser: Denoiser) -> list[str]:
    known = sorted((float(sigma), factor) for sigma, factor in denoiser.card.inflation.items())
    if not known:
        return []
    return ["noise on the way to a draw, times" + "".join(f"  {sigma:.3g}: {factor:.3f}" for sigma, factor in known)]


def _line(found: Coverage) -> str:
    outside = "" if found.calibrated else "  (not a level that was calibrated)"
    return (
        f"{found.key:<36}  sigma {found.sigma:.3g}: covers {found.measured:.3f}, {found.lowest:.3f} in the image with "
        f"the least; width {found.width:.3g}{outside}"
    )


def _stored_in(denoiser: Denoiser) -> torch.dtype:
    """Return half precision where it holds the weights exactly, as those of a file that was stored so."""
    weights = denoiser.network.state_dict().values()
    return torch.float16 if all(bool((each == each.half().float()).all()) for each in weights) else torch.float32
