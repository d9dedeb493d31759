"""From the options of `unperturb fit` to a run."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    if output.exists() and not (options["overwrite"] or options["resume"]):
        raise FileError(f"{output} is there already; give another name, or --overwrite")
    output.parent.mkdir(parents=True, exist_ok=True)
    settings = _settings(options)
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
        settings, patches, RunFiles(output), habits,
        card=card, half=options["half"], weights=weights, resume=options["resume"],
    )  # fmt: skip
    report = None
    for report in run:
        psnr = " ".join(f"{kind} {value:.2f} dB" for kind, value in report.psnr.items())
        note = f"loss {report.loss:.4f}  {psnr}  {report.speed:.3f} Mpx/s"
        show(report.progress.step, report.progress.steps, note)
    return {"model": str(output), "steps": settings.steps, "psnr": report.psnr if report else {}}


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
