"""`unperturb calibrate`: how wide intervals have to be, learned or measured on clean images that are perturbed."""

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from unperturb.app.batch import exit_code
from unperturb.app.options import SEEDS, as_compute, compute_options, echo_json, json_option, model_option
from unperturb.app.progress import progress_line


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_option
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The model file to write, calibrated."
)
@click.option("--check", is_flag=True, help="Measure what the model's intervals cover, and write nothing.")
@click.option("--sigma", default=None, help="Noise levels in the files' own units, such as 5,15,25,50.  "
              "[default: 5,15,25,50 of 255; with --check, those that were calibrated]")  # fmt: skip
@click.option("--perturb", default=None, help="What to do to the images, as a spec: for a conditional model anything  "
              "[default: what it was trained under], for a model of noise that of counting, such as "
              "'poisson:gain=0.1 | poisson:gain=0.02'.")  # fmt: skip
@click.option(
    "--level", type=float, default=0.9, show_default=True, help="Share of the values that intervals are to cover."
)
@click.option(
    "--confidence", type=float, default=0.9, show_default=True, help="Of the guarantee beside the central promise."
)
@click.option(
    "-n",
    "--n-samples",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="Draws that intervals are made from.",
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Steps of a draw.")
@click.option("--gray", is_flag=True, help="Reduce colour images to luminance first.")
@click.option("--held-out", type=click.IntRange(2), default=None,
              help="Take those images alone that fit held out, one in so many; inputs as it had them.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), default=None, help="The most images, spread evenly over all.")
@click.option(
    "--crop", type=click.IntRange(16), default=192, show_default=True, help="Most pixels a side; the middle is taken."
)
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of noise and draws, with an image's name.")
@click.option("--data-note", default=None, help="What the images are, for the card.  [default: their folders]")
@click.option("--overwrite", is_flag=True, help="Replace a model that is there already.")
@compute_options
@json_option
def calibrate(
    inputs: tuple[Path, ...],
    model: str,
    output: Path | None,
    check: bool,
    device: str,
    precision: str,
    tile: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn on the clean images INPUTS (files or folders) how wide intervals have to be, and write it on a model's card.

    The images must not be those that the model was trained on. What is on the card already stays, for other kinds of
    images and other levels. Without --perturb, and where nothing is on the card yet, also how much stronger noise has
    to be on the way to a draw, for draws to lie as far apart as the best guess errs. With --check, measure on INPUTS what
    the model's intervals cover; let these be others again.
    """
    from unperturb.app.calibrating import Request, learn, measured
    from unperturb.model.machine import keep_freed_memory

    context = click.get_current_context()
    given = [name for name in ("output", "level", "confidence", "n_samples", "steps", "data_note")
             if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]  # fmt: skip
    if check and given:
        raise click.UsageError(f"--check takes {given[0].replace('_', ' ')} from the model's card; leave it out")
    if output is None and not check:
        raise click.UsageError("-o names the calibrated model to write; --check measures and writes nothing")
    keep_freed_memory()
    request = Request(inputs, model, as_compute(device, precision, tile), options)
    with progress_line("checking" if check else "calibrating") as show:
        told, lines = measured(request, show) if output is None else learn(request, output, show)
    if as_json:
        echo_json(told)
    else:
        click.echo("\n".join(lines))
    sys.exit(exit_code([told] if told["images"] else [], told["failures"]))
