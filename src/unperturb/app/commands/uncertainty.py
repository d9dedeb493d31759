"""`unperturb uncertainty`: where not to trust the best guess, for files and folders."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unperturb.app.batch import Told, exit_code, run_files, say_model
from unperturb.app.options import (
    as_compute,
    as_looking,
    compute_options,
    echo_json,
    folder_option,
    json_option,
    looking_options,
    sampling_options,
)
from unperturb.app.outputs import plan
from unperturb.data.stretches import are_signals

if TYPE_CHECKING:
    from unperturb.app.findings import Region


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@folder_option
@looking_options
@sampling_options
@click.option("--components", default=4, type=click.IntRange(1, 64), show_default=True, help="How many directions.")
@click.option(
    "--region", default=None, metavar="X,Y,W,H", help="Directions, and an interval for the mean, of this part: pixels."
)
@click.option("--overwrite", is_flag=True, help="Replace results that are there already.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@compute_options
@json_option
def uncertainty(
    inputs: tuple[Path, ...],
    output: Path | None,
    model: str | None,
    sigma: float | None,
    missing: str | None,
    perturb: str | None,
    noise: str | None,
    n_samples: int,
    steps: int,
    seed: int,
    components: int,
    region: str | None,
    overwrite: bool,
    dry_run: bool,
    device: str,
    precision: str,
    tile: str,
    as_json: bool,
) -> None:
    """Find out where the best guess for INPUTS, noisy image files or folders of them, is not to be trusted.

    Each gets a map of the standard deviation and the directions in which the answer is widest (TIFF, in the file's
    units), and a report to read in a browser: draws, places where there is more than one answer, whether the noise is
    what was assumed, and a verdict in plain words.

    A signal (WAV, .npy, CSV, .hea) gets a table of best guess, standard deviation and intervals (CSV), and a report.
    """
    part = _region(region)
    if n_samples < 2:
        raise click.UsageError("a standard deviation takes at least 2 draws")
    signals = are_signals(inputs)
    if signals and part is not None:
        raise click.UsageError("--region is of images")
    if signals:
        jobs = plan(inputs, output, "uncertainty", ".csv", more=[("report", ".html")], overwrite=overwrite)
    else:
        more = [("components", ".tiff"), ("report", ".html")]
        jobs = plan(inputs, output, "std", ".tiff", more=more, overwrite=overwrite)
    if dry_run:
        planned = [{"input": str(job.source), "outputs": [str(file) for file in job.files]} for job in jobs]
        _tell(planned, [], as_json=as_json)
        return

    from unperturb.app.examining import Examining
    from unperturb.app.hearing import Hearing
    from unperturb.app.observing import check_mean
    from unperturb.infer.interval import Drawing
    from unperturb.model.machine import keep_freed_memory

    keep_freed_memory()
    compute = as_compute(device, precision, tile)
    looking = as_looking(model, sigma, missing, perturb, noise, compute, inputs, choosing=True)
    check_mean(looking.denoise)
    drawing = Drawing(n_samples, steps)
    examining: Hearing | Examining = (
        Hearing(looking, drawing, seed, overwrite)
        if signals
        else Examining(looking, drawing, seed, components, part, overwrite)
    )
    results, failures, seconds = run_files("examining", jobs, examining)
    _tell(results, failures, as_json=as_json, seconds=seconds)
    sys.exit(exit_code(results, failures))


def _region(text: str | None) -> "Region | None":
    if text is None:
        return None
    from unperturb.app.findings import Region

    try:
        left, top, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(
            f"--region is four whole numbers: left, top, width and height in pixels, such as 40,60,32,32; got {text!r}"
        ) from None
    return Region(left, top, width, height)


def _tell(results: list[Told], failures: list[dict[str, str]], *, as_json: bool, seconds: float | None = None) -> None:
    if as_json:
        timing = {} if seconds is None else {"seconds": round(seconds, 2)}
        echo_json({"results": results, "failures": failures, **timing})
        return
    for result in results:
        for file in result.get("outputs", [result.get(key) for key in ("std", "directions", "report")]):
            if file is not None:
                click.echo(file)
        say_model(result, "chosen")
        for sentence in result.get("verdict", []):
            click.echo(f"  {sentence}")
