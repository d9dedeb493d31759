"""From the options of `unperturb fit` to a run."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from unperturb.atomic import make_folder
from unperturb.data.patches import Preparation, open_patches
from unperturb.errors import FileError, UsageError
from unperturb.model.checkpoint import load
from unperturb.model.machine import choose_device
from unperturb.model.network import PRESETS, UNetSettings
from unperturb.train.fit import FitSettings
from unperturb.train.run import Habits, RunFiles, train

Show = Callable[..., None]


def run_training(
    data: tuple[Path, ...], output: Path, device: str, precision: str, options: dict[str, Any], show: Show
) -> dict[str, Any]:
    """Train, showing progress, and return what came of it.

    Raises
    ------
    UnperturbError
        Where the request, the data or the training is wrong.
    """
    files = RunFiles(output)
    _check_files(files, options)
    settings = _settings(options)
    make_folder(output.parent)
    preparation = Preparation(_floats(options["scales"]), _qualities(options["jpeg"]), options["held_out"])
    patches = open_patches(
        data, options["cache"] or default_cache(), preparation,
        lambda done, total: show(done, total, "decoding images"),
    )  # fmt: skip
    habits = Habits(
        checkpoint=options["checkpoint"],
        validate=options["validate"],
        precision=precision,
        threads=options["threads"],
        device=choose_device(device),
    )
    card = {
        "name": options["name"] or output.stem,
        "description": options["description"],
        "data": options["data_note"],
        "licence": options["licence"],
    }
    weights = load(options["start"]) if options["start"] else None
    run = train(
        settings, patches, files, habits,
        card=card, half=options["half"], weights=weights, resume=options["resume"],
    )  # fmt: skip
    report = None
    for report in run:
        psnr = " ".join(f"{kind} {value:.2f} dB" for kind, value in report.psnr.items())
        note = f"step {report.progress.step}  loss {report.loss:.4f}  {psnr}  {report.speed:.3f} Mpx/s"
        show(report.progress.step, report.progress.steps, note)
    return {"model": str(output), "steps": settings.steps, "psnr": report.psnr if report else {}}


def _check_files(files: RunFiles, options: dict[str, Any]) -> None:
    """Refuse to lose an earlier run: its model, its checkpoint, or its log."""
    if options["overwrite"] or (options["resume"] and files.state.is_file()):
        return
    taken = [path for path in (files.model, files.state, files.log) if path.exists()]
    if taken and options["resume"]:
        raise FileError(f"{taken[0]} is there, but no checkpoint {files.state} to go on from; give another name")
    if taken:
        raise FileError(f"{taken[0]} is there already; --resume goes on with its run, --overwrite begins anew")


def default_cache() -> Path:
    """Return the folder for decoded images: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unperturb"


def _settings(options: dict[str, Any]) -> FitSettings:
    network = PRESETS.get(options["network"])
    if not isinstance(network, UNetSettings):
        sizes = ", ".join(name for name, preset in PRESETS.items() if isinstance(preset, UNetSettings))
        raise UsageError(f"--network is one of {sizes}; got {options['network']!r}")
    network = replace(
        network,
        channels=options["channels"],
        widths=tuple(int(width) for width in _floats(options["widths"])) if options["widths"] else network.widths,
        blocks=options["blocks"] or network.blocks,
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
