"""`unperturb evaluate`: PSNR and SSIM on clean images that are perturbed on purpose."""

import math
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unperturb.app.batch import Told, exit_code, run_batch
from unperturb.app.options import (
    as_compute,
    compute_options,
    echo_json,
    json_option,
    model_option,
    polisher_of,
    quality_option,
    warn_of_grey_levels,
)
from unperturb.app.outputs import Job
from unperturb.app.progress import progress_line


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_option
@click.option("--perturb", default="gaussian:sigma=0.1", show_default=True, help="What to do to the images, as a spec.")
@click.option("--blind", is_flag=True, help="Estimate the noise level, rather than take it from the spec.")
@quality_option
@click.option("--gray", is_flag=True, help="Reduce colour images to luminance first.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the noise; each image has its own, from seed and name."
)
@compute_options
@json_option
def evaluate(
    inputs: tuple[Path, ...],
    model: str,
    perturb: str,
    blind: bool,
    quality: str,
    gray: bool,
    seed: int,
    device: str,
    precision: str,
    tile: str,
    as_json: bool,
) -> None:
    """Perturb the clean images INPUTS (files or folders), restore them, and compare with what they were."""
    from unperturb.data.listing import files_of
    from unperturb.infer.evaluate import evaluate_image
    from unperturb.infer.polish import CAVEAT
    from unperturb.model.checkpoint import load
    from unperturb.model.machine import keep_freed_memory
    from unperturb.model.spec import parse

    perturbation, denoiser, compute = parse(perturb), load(model), as_compute(device, precision, tile)
    polisher = polisher_of(model)
    warn_of_grey_levels(perturbation)
    keep_freed_memory()
    files = files_of(inputs)
    with progress_line("evaluating") as show:

        def work(number: int, job: Job) -> Told:
            clean = _read_clean(job.source, gray=gray)
            score = evaluate_image(
                clean,
                denoiser,
                perturbation,
                name=job.source.name,
                seed=seed,
                blind=blind,
                polisher=polisher,
                quality=quality,
                compute=compute,
            )
            show(number + 1, len(files), job.source.name)
            return {"image": str(job.source), **asdict(score)}

        results, failures = run_batch([Job(file, file) for file in files], work)
    keys = ("psnr", "ssim", "psnr_perturbed", "ssim_perturbed", "psnr_missing")
    means = {key: _mean(result[key] for result in results) for key in keys}
    summary = {
        "model": model,
        **({"polished": CAVEAT} if any(result["polished"] for result in results) else {}),
        "perturbation": str(perturbation),
        "images": len(results),
        **means,
        "per_image": results,
        "failures": failures,
    }
    if as_json:
        echo_json(summary)
    elif results:
        click.echo(
            f"{len(results)} images, {perturbation}: PSNR {_told(means['psnr'], 2)} dB (perturbed "
            f"{_told(means['psnr_perturbed'], 2)}), SSIM {_told(means['ssim'], 4)} ({_told(means['ssim_perturbed'], 4)})"
            + ("" if means["psnr_missing"] is None else f", of what was missing {means['psnr_missing']:.2f} dB")
            + (" (polished: approximate)" if "polished" in summary else "")
        )
    sys.exit(exit_code(results, failures))


def _read_clean(path: Path, *, gray: bool) -> Any:
    """Return a clean image as floats, ``(H, W)`` or ``(H, W, 3)``; the luminance of a colour image where asked for."""
    import numpy as np

    from unperturb.data.patches import LUMINANCE
    from unperturb.data.recording import check_finite, read
    from unperturb.errors import FileError

    recording = read(path)
    check_finite(recording, path)
    if recording.stack_shape:
        raise FileError(f"{path} is a stack of images; give single images to evaluate on")
    values = recording.as_float()
    if values.min() < 0 or values.max() > 1:
        raise FileError(
            f"{path} holds values outside of 0 to 1, the range that PSNR is measured in here; rescale it first"
        )
    return values @ np.array(LUMINANCE, np.float32) if gray and values.ndim == 3 else values


def _told(value: float | None, digits: int) -> str:
    """Return a mean in words: of images too small for SSIM there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None
