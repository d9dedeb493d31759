"""From the options of `unperturb fit` to a run."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unperturb.app.adapting import run_noisy
from unperturb.app.outputs import check_not_input
from unperturb.atomic import check_place, make_folder
from unperturb.data.decoded import Preparation, open_patches
from unperturb.data.stretches import Stretches, are_signals, open_stretches
from unperturb.errors import FileError, UsageError
from unperturb.infer.calibrate import calibrate, trials
from unperturb.infer.interval import with_calibration
from unperturb.model.checkpoint import load, save_model
from unperturb.model.level import highest
from unperturb.model.network import PRESETS, UNetSettings
from unperturb.model.perturbation import Choice, Composition, Perturbation
from unperturb.model.spec import parse
from unperturb.train.material import Material
from unperturb.train.objective import OBJECTIVES
from unperturb.train.processes import Processes
from unperturb.train.run import Habits, RunFiles, train_model
from unperturb.train.settings import FitSettings

Show = Callable[..., None]

IMAGES = {"perturb": "gaussian:sigma=0..0.25", "batch": 4, "share": 2, "patch_size": 96}
SIGNALS = {"perturb": "gaussian:sigma=0..1", "batch": 16, "share": 8, "patch_size": 1024}
"""What is taken where an option is left out."""

CALIBRATED, PIECE = 64, 1024
"""Pieces of signals that intervals are calibrated on, at most, and their length."""

LEVEL = 0.9
"""Of these intervals."""

SIGNAL_WIDTHS = {
    "tiny": (8, 12, 16),
    "small": (16, 24, 32, 48, 64),
    "medium": (32, 48, 64, 96, 128),
    "large": (64, 96, 128, 192, 256),
}
"""Features a level, by the network's size. There are more levels than for images: a sample of a signal depends on others that
are further away."""


def run_training(
    data: tuple[Path, ...],
    output: Path,
    device: torch.device,
    precision: str,
    options: dict[str, Any],
    given: set[str],
    show: Show,
    team: Processes,
) -> dict[str, Any]:
    """Train, showing progress, and return what came of it; `given` names the options that a person has given.

    Of several processes the first leads: it looks after the files, and returns what came of it.

    Raises
    ------
    UnperturbError
        Where the request, the data or the training is wrong.
    """
    files = RunFiles(output)
    if team.leads:
        _check_files(files, data, options)
    signals = are_signals(data)
    habits = Habits(
        checkpoint=options["checkpoint"],
        validate=options["validate"],
        precision=precision,
        threads=options["threads"],
        device=team.device(device),
    )
    _check_noisy(options, given, signals=signals)
    if options["noisy"]:
        if team.world_size > 1:
            raise UsageError("--noisy learns in one process; start it without torchrun")
        make_folder(output.parent)
        return run_noisy(data, output, habits, {**options, "objective": options["objective"] or "auto"}, given, show)
    options = {**options, "objective": options["objective"] or "squared"}
    settings = _settings({**options, **_left_open(options, SIGNALS if signals else IMAGES)}, dims=1 if signals else 2)
    make_folder(output.parent)
    with team.one_first():
        material: Material = _stretches(data, options) if signals else _patches(data, options, show)
    card = {
        "name": options["name"] or output.stem,
        "description": options["description"],
        "data": options["data_note"],
        "licence": options["licence"],
    }
    weights = load(options["start"]) if options["start"] else None
    if isinstance(material, Stretches):
        card["rates"] = tuple(sorted({*material.rates, *(() if weights is None else weights.card.rates)}))
    run = train_model(
        settings, material, files, habits,
        card=card, half=options["half"], weights=weights, resume=options["resume"], processes=team,
    )  # fmt: skip
    report = None
    for report in run:
        psnr = " ".join(f"{kind} {value:.2f} dB" for kind, value in report.psnr.items())
        note = f"step {report.progress.step}  loss {report.loss:.4f}  {psnr}  {report.speed:.3f} Mpx/s"
        show(report.progress.step, report.progress.steps, note)
    if team.leads and isinstance(material, Stretches) and options["objective"] == "squared":
        _calibrate(output, material, options["half"], show)
    return {"model": str(output), "steps": settings.steps, "psnr": report.psnr if report else {}}


def _check_noisy(options: dict[str, Any], given: set[str], *, signals: bool) -> None:
    """Refuse what is for noisy data alone without --noisy, and what is not for them with it."""
    if not options["noisy"]:
        wrong = sorted(given & {"noise", "again", "tune"})
        if wrong:
            raise UsageError(f"--{wrong[0]} is for noisy data; say --noisy")
        if options["objective"] not in (None, *OBJECTIVES):
            raise UsageError(f"the objective {options['objective']} is for noisy data; say --noisy")
        return
    if signals:
        raise UsageError("--noisy is for images")
    useless = {
        "perturb",
        "gray",
        "enlarge",
        "reuse",
        "half_colour",
        "scales",
        "jpeg",
        "held_out",
        "part",
        "cache",
        "channels",
        "widths",
        "blocks",
    }
    wrong = sorted(given & (useless | ({"network"} if options["start"] else set())))
    if wrong:
        raise UsageError(f"--{wrong[0].replace('_', '-')} says nothing here; leave it out with --noisy")


def _calibrate(path: Path, material: Stretches, half: bool, show: Show) -> None:
    """Measure on the stretches that were held out how wide intervals have to be, and put it on the model's card."""
    denoiser = load(path)
    pieces = material.of(held_out=True).pieces(CALIBRATED, PIECE)
    perturbation = parse(denoiser.card.perturbation)
    levels = _levels(perturbation)
    tried = []
    for trial in trials(
        [(f"stretch {number}", piece) for number, piece in enumerate(pieces)],
        denoiser,
        perturbation if denoiser.card.network.given else levels,
        statistics=(),
        crop=None,
    ):
        tried.append(trial)
        total = len(pieces) * (1 if denoiser.card.network.given else len(levels))
        show(len(tried), total, "calibrating intervals on the stretches that were held out")
    made = calibrate(tried, level=LEVEL, confidence=None, data="stretches held out from training")
    save_model(with_calibration(denoiser, made), path, dtype=torch.float16 if half else torch.float32)


def _levels(perturbation: Perturbation) -> list[float]:
    """Return noise levels to calibrate at: four up to the largest that a model was trained for."""
    return [_highest(perturbation) * share for share in (0.1, 0.25, 0.5, 1.0)]


def _highest(perturbation: Perturbation) -> float:
    """Return the largest noise level of a perturbation; of what has none, 1."""
    if isinstance(perturbation, Choice):
        return max(map(_highest, perturbation.parts))
    if isinstance(perturbation, Composition):
        return math.hypot(*map(_highest, perturbation.parts))
    return highest(getattr(perturbation, "sigma", 1.0))


def _left_open(options: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if options[name] is None}


def _patches(data: tuple[Path, ...], options: dict[str, Any], show: Show) -> Material:
    if options["part"] is not None:
        raise UsageError("--part is of signals; images are held out one by one")
    preparation = Preparation(_floats(options["scales"]), _qualities(options["jpeg"]), options["held_out"])
    return open_patches(
        data, options["cache"] or default_cache(), preparation,
        lambda done, total: show(done, total, "decoding images"),
    )  # fmt: skip


def _stretches(data: tuple[Path, ...], options: dict[str, Any]) -> Stretches:
    ordinary = _floats(options["scales"]) == (1.0,) and options["enlarge"] == options["reuse"] == 1
    ordinary &= options["held_out"] == Preparation.held_out and options["gray"] == FitSettings.gray
    if options["jpeg"] is not None or not ordinary:
        raise UsageError("--jpeg, --scales, --enlarge, --reuse, --gray and --held-out are of images")
    return open_stretches(data, _part(options["part"]))


def _part(text: str | None) -> tuple[float, float]:
    try:
        low, _, high = (text or "0..1").partition("..")
        part = float(low), float(high)
    except ValueError:
        part = (1.0, 0.0)
    if not 0 <= part[0] < part[1] <= 1:
        raise UsageError(f"--part is two shares of a signal's length, such as 0..0.5; got {text!r}")
    return part


def _check_files(files: RunFiles, data: Sequence[Path], options: dict[str, Any]) -> None:
    """Refuse to lose what is learned from, or an earlier run: its model, its checkpoint, or its log."""
    for path in (files.model, files.state, files.log):
        check_not_input(path, (*data, *options["again"]))
        check_place(path)
    if options["overwrite"] or (options["resume"] and files.state.is_file()):
        return
    taken = [path for path in (files.model, files.state, files.log) if path.exists()]
    if taken == [files.log] and options["resume"]:  # it was stopped before its first checkpoint, and begins again
        return
    if taken and options["resume"]:
        raise FileError(f"{taken[0]} is there, but no checkpoint {files.state} to go on from; --overwrite begins anew")
    if taken:
        raise FileError(f"{taken[0]} is there already; --resume goes on with its run, --overwrite begins anew")


def default_cache() -> Path:
    """Return the folder for decoded images: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unperturb"


def _depths(text: str) -> int | tuple[int, ...]:
    try:
        depths = tuple(int(part) for part in str(text).split(","))
    except ValueError:
        raise UsageError(f"--blocks is one number, or one a level, such as 2,2,4; got {text!r}") from None
    return depths[0] if len(depths) == 1 else depths


def _settings(options: dict[str, Any], dims: int) -> FitSettings:
    network = PRESETS.get(options["network"])
    if not isinstance(network, UNetSettings):
        sizes = ", ".join(name for name, preset in PRESETS.items() if isinstance(preset, UNetSettings))
        raise UsageError(f"--network is one of {sizes}; got {options['network']!r}")
    if dims == 1:
        if options["channels"] != 1:
            raise UsageError("channels of signals are learned one by one; leave --channels out")
        network = replace(network, dims=1, widths=SIGNAL_WIDTHS[options["network"]])
    network = replace(
        network,
        channels=options["channels"],
        widths=tuple(int(width) for width in _floats(options["widths"])) if options["widths"] else network.widths,
        blocks=_depths(options["blocks"]) if options["blocks"] else network.blocks,
    )
    if options["channels"] not in (1, 3):
        raise UsageError(f"--channels is 1 for gray or 3 for colour; got {options['channels']}")
    same = (
        "perturb",
        "steps",
        "batch",
        "share",
        "patch_size",
        "gray",
        "enlarge",
        "reuse",
        "half_colour",
        "rate",
        "warmup",
        "decay",
        "average",
        "clip",
        "seed",
        "objective",
    )
    return FitSettings(network=network, **{name: options[name] for name in same})


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in str(text).split(","))
    except ValueError:
        raise UsageError(f"numbers separated by commas are expected; got {text!r}") from None


def _qualities(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        low, _, high = text.partition("..")
        return int(low), int(high or low)
    except ValueError:
        raise UsageError(f"--jpeg is a quality or a range of them, such as 75..95; got {text!r}") from None
