"""`unperturb sample`: what else it could have been, for files and folders."""

import sys
from pathlib import Path

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


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@folder_option
@looking_options
@sampling_options
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "tiff", "jpeg", "webp"]),
    default=None,
    help="Format of the draws.  [default: the input's]",
)
@click.option("--overwrite", is_flag=True, help="Replace results that are there already.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@compute_options
@json_option
def sample(
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
    suffix: str | None,
    overwrite: bool,
    dry_run: bool,
    device: str,
    precision: str,
    tile: str,
    as_json: bool,
) -> None:
    """Draw what INPUTS, noisy image files or folders of them, could have been without noise, or where pixels are missing.

    A draw is as sharp as a clean image, as far as the model knows such images, and draws differ where the answer is
    open; their average is what `restore` answers, and what is told of nothing is drawn by the model that it takes. A sheet shows them side by side where they differ most; of signals (WAV, .npy, CSV, .hea) a
    page does. The same seed gives the same draws.
    """
    signals = are_signals(inputs)
    endings = [(f"sample{number:02}", None) for number in range(2, n_samples + 1)]
    jobs = plan(
        inputs,
        output,
        "sample01",
        f".{suffix}" if suffix else None,
        more=[*endings, ("samples", ".html" if signals else ".png")],
        overwrite=overwrite,
    )
    if dry_run:
        _tell([{"input": str(job.source), "outputs": [str(file) for file in job.files]} for job in jobs], [], as_json)
        return

    from unperturb.app.drawing import Drawing
    from unperturb.app.observing import check_mean
    from unperturb.model.machine import keep_freed_memory

    keep_freed_memory()
    compute = as_compute(device, precision, tile)
    looking = as_looking(model, sigma, missing, perturb, noise, compute, inputs, choosing=True)
    check_mean(looking.denoise)
    drawing = Drawing(looking, n_samples, steps, seed, overwrite)
    results, failures, seconds = run_files("drawing", jobs, drawing)
    _tell(results, failures, as_json, seconds=seconds)
    sys.exit(exit_code(results, failures))


def _tell(results: list[Told], failures: list[dict[str, str]], as_json: bool, seconds: float | None = None) -> None:
    if as_json:
        timing = {} if seconds is None else {"seconds": round(seconds, 2)}
        echo_json({"results": results, "failures": failures, **timing})
        return
    for result in results:
        for file in result["outputs"]:
            click.echo(file)
        if "sheet" in result:
            click.echo(result["sheet"])
        say_model(result)
        if "note" in result:
            click.echo(f"unperturb: {result['note']}", err=True)
