"""`unperturb restore`: the best guess, for files and folders."""

import math
import sys
from pathlib import Path

import click

from unperturb.app.batch import Told, exit_code, run_files, say_model
from unperturb.app.options import (
    as_compute,
    as_looking,
    compute_options,
    echo_json,
    json_option,
    looking_options,
    output_option,
    polisher_of,
    quality_option,
)
from unperturb.app.outputs import Job, plan
from unperturb.data.stretches import are_signals


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option
@looking_options
@quality_option
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the noise to take away: less keeps grain, and is no best guess any more.",
)
@click.option("--compare", is_flag=True, help="Write before and after side by side as well.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "tiff", "jpeg", "webp"]),
    default=None,
    help="Format of the results.  [default: the input's]",
)
@click.option("--overwrite", is_flag=True, help="Replace results that are there already.")
@click.option(
    "--resume",
    is_flag=True,
    help="Leave out inputs whose results are there already: goes on after an interruption.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@compute_options
@json_option
def restore(
    inputs: tuple[Path, ...],
    output: Path | None,
    model: str | None,
    sigma: float | None,
    missing: str | None,
    perturb: str | None,
    noise: str | None,
    quality: str,
    strength: float,
    compare: bool,
    suffix: str | None,
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    device: str,
    precision: str,
    tile: str,
    as_json: bool,
) -> None:
    """Restore INPUTS, image files or folders of them, or signals, from noise, or fill in what is missing of them.

    The result keeps size, bit depth, channels, format and metadata of its input. With --missing, pixels that are there
    stay as they are, unless --sigma says that there is noise in them.

    Where nothing is told of them, photographs are restored by the bundled model that fits their noise; which, and why, is
    said.

    Signals are WAV, .npy, CSV and .hea files, and take a model of signals: unperturb fit.
    """
    if overwrite and resume:
        raise click.UsageError("--resume leaves out what is there, --overwrite replaces it; give one of them")
    ending = f".{suffix}" if suffix else None
    jobs = plan(inputs, output, "restored", ending, compare=compare, overwrite=overwrite, resume=resume)
    if (quality == "best" or compare) and are_signals(inputs):
        raise click.UsageError("--quality best and --compare are of images")
    if dry_run:
        _tell([_planned(job) for job in jobs], [], as_json=as_json)
        return

    from unperturb.app.restoring import Restoring
    from unperturb.model.machine import keep_freed_memory

    keep_freed_memory()
    compute = as_compute(device, precision, tile)
    looking = as_looking(model, sigma, missing, perturb, noise, compute, inputs, choosing=True)
    if math.isnan(strength):
        raise click.UsageError("--strength is a share from 0 to 1; got nan")
    if strength < 1 and (missing is not None or perturb is not None):
        raise click.UsageError("--strength is of noise; what is missing, or blurred, is restored whole")
    polisher = (
        polisher_of(model or "missing") if missing is not None and perturb is None and quality != "fast" else None
    )
    restoring = Restoring(looking, quality, strength, overwrite or resume, polisher)
    results, failures, seconds = run_files("restoring", jobs, restoring)
    _tell(results, failures, as_json=as_json, seconds=seconds)
    sys.exit(exit_code(results, failures))


def _planned(job: Job) -> Told:
    compare = {} if job.compare is None else {"compare": str(job.compare)}
    return {"input": str(job.source), "output": str(job.target), **compare}


def _tell(results: list[Told], failures: list[dict[str, str]], *, as_json: bool, seconds: float | None = None) -> None:
    if as_json:
        echo_json(
            {"results": results, "failures": failures, **({} if seconds is None else {"seconds": round(seconds, 2)})}
        )
        return
    for result in results:
        sigma = result.get("sigma")
        levels = f"  (sigma {sigma:.3g})" if isinstance(sigma, float) else ""
        levels = f"  ({result['noise']})" if "noise" in result else levels
        polished = "  (polished: approximate)" if "polished" in result else ""
        click.echo(f"{result['output']}{levels}{polished}")
        if "compare" in result:
            click.echo(result["compare"])
        say_model(result)
        if "note" in result:
            click.echo(f"unperturb: {result['note']}", err=True)
