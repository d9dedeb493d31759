"""`unperturb demo`: the main job, end to end, on a sample image; or, in the plane and on small images, what is learned."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from unperturb.app.options import SEEDS, compute_options, echo_json, json_option, model_option

PHOTO, TWO_D, BLUR, MISSING, STACKED = KINDS = ("photo", "two-d", "blur", "missing", "stacked")

SETS = {TWO_D: ("ring", "open-ring", "moons", "spiral", "mixture"), BLUR: ("digits", "faces")}
"""What can be trained on: points, and images."""

SETS_OF = {**SETS, MISSING: SETS[BLUR]}
"""What each kind can be tried on."""

ONLY_PHOTO = {"model", "device", "precision", "tile"}

IN_VAIN = {
    PHOTO: {"name", "source"},
    TWO_D: {"source", *ONLY_PHOTO},
    BLUR: {"source", *ONLY_PHOTO},
    MISSING: {"source", "sigma", *ONLY_PHOTO},
    STACKED: {"name", "sigma", *ONLY_PHOTO},
}
"""Options that a kind would not heed."""


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default=PHOTO)
@click.argument(
    "source", metavar="[FOLDER]", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for the pictures.",
)
@model_option
@click.option(
    "--sigma",
    type=click.FloatRange(0),
    default=None,
    help="Noise to add: in grey levels to the photograph (25 by default), in their own units to points (0.8), digits "
    "(0.3) and faces (0.25), whose values are about as large as 1.",
)
@click.option("--set", "name", type=click.Choice(sum(SETS.values(), ())), default=None,
              help="The one set to train on.  [default: all of the kind]")  # fmt: skip
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of the noise, the training and the draws.")
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there already.")
@compute_options
@json_option
@click.pass_context
def demo(context: click.Context, /, kind: str, output: Path, as_json: bool, **options: Any) -> None:
    """Show what this is about, in pictures. KIND is photo, two-d, blur, missing or stacked.

    photo (the default) adds noise to a photograph, restores it without being told how much, and writes the pictures.
    The photograph is one that scikit-image ships and that the model has not seen.

    two-d trains denoising autoencoders on points of the plane, in seconds each, and shows what they have learned, where
    their answers land, what can be drawn from the posterior, and the exact answer beside it.

    blur does the same with digits and faces: why the best guess is blurred, and draws that are not. It leaves a digit
    that can be read as a 4 and as a 9, and the network, for the other commands to be tried on.

    missing erases components of digits and faces, singly and in blocks, and has them restored: by a plain autoencoder,
    that was trained to copy, and by a denoising one.

    stacked FOLDER trains layers on MNIST without labels, as denoising autoencoders, then all of them on few labels; and
    the same network from random weights. FOLDER holds MNIST's files, t10k-images-idx3-ubyte.gz and so on, or without .gz.
    """
    _refuse_what_does_not_apply(context, kind, options)
    tell = {PHOTO: _photo, STACKED: _stacked}.get(kind, _lab)
    tell(kind, output, as_json, options)


def _photo(kind: str, output: Path, as_json: bool, options: dict[str, Any]) -> None:  # noqa: ARG001 (one signature)
    from unperturb.app.options import as_compute
    from unperturb.app.sample import run_demo

    sigma = 25.0 if options["sigma"] is None else options["sigma"]
    compute = as_compute(options["device"], options["precision"], options["tile"])
    told = run_demo(output, options["model"], sigma, options["seed"], compute, overwrite=options["overwrite"])
    if as_json:
        echo_json(told)
        return
    click.echo(f"noise: {sigma:g} grey levels added, {told['sigma']:.1f} estimated")
    click.echo(
        f"PSNR:  {told['psnr_noisy']:.2f} dB noisy, {told['psnr_restored']:.2f} dB restored, in {told['seconds']:.1f} s"
    )
    _name_pictures(told)


def _lab(kind: str, output: Path, as_json: bool, options: dict[str, Any]) -> None:
    """Train, draw, and tell what was measured."""
    from unperturb.app.progress import progress_line

    names = (options["name"],) if options["name"] else SETS_OF[kind]
    same = {"seed": options["seed"], "overwrite": options["overwrite"]}
    with progress_line("training") as show:
        if kind == TWO_D:
            from unperturb.app.lab.two_d import run_two_d

            told = run_two_d(output, names, sigma=options["sigma"], show=show, **same)
        elif kind == BLUR:
            from unperturb.app.lab.blur import run_blur

            told = run_blur(output, names, sigma=options["sigma"], show=show, **same)
        else:
            from unperturb.app.lab.missing import run_missing

            told = run_missing(output, names, show=show, **same)
    if as_json:
        echo_json(told)
        return
    {TWO_D: _tell_points, BLUR: _tell_images, MISSING: _tell_missing}[kind](told)
    _name_pictures(told)


def _stacked(kind: str, output: Path, as_json: bool, options: dict[str, Any]) -> None:  # noqa: ARG001 (one signature)
    """Train, draw, and tell what was measured, on the user's own copy of MNIST."""
    from unperturb.app.lab.stacked import run_stacked
    from unperturb.app.progress import progress_line

    same = {"seed": options["seed"], "overwrite": options["overwrite"]}
    with progress_line("training") as show:
        told = run_stacked(options["source"], output, show=show, **same)
    if as_json:
        echo_json(told)
        return
    _tell_stacked(told)
    _name_pictures(told)


def _tell_points(told: dict[str, Any]) -> None:
    click.echo("distance to the data, on average, and squared error over the least there can be (draws: 2 is exact)")
    click.echo(f"{'':10} {'noisy':>7} {'means':>7} {'draws':>7} {'data':>7}   {'mean':>6} {'draw':>6} {'seconds':>8}")
    for name, of in told["sets"].items():
        places = " ".join(f"{of[f'{what}_to_data']:7.3f}" for what in ("noisy", "means", "draws", "clean"))
        errors = f"{of['mse_over_mmse']:6.3f} {of['draw_mse_over_mmse']:6.2f}"
        click.echo(f"{name:10} {places}   {errors} {of['seconds']:8.1f}")


def _tell_images(told: dict[str, Any]) -> None:
    click.echo("energy of gradients relative to clean images, and squared error of draws over the mean's (2 is exact)")
    click.echo(f"{'':10} {'noisy':>7} {'mean':>7} {'draws':>7}   {'error':>6} {'seconds':>8}")
    for name, of in told["sets"].items():
        energies = " ".join(f"{of[f'{what}_gradients']:7.2f}" for what in ("noisy", "mean", "draw"))
        click.echo(f"{name:10} {energies}   {of['draw_mse_over_mse']:6.2f} {of['seconds']:8.1f}")
    if "four_or_nine" in told:
        of = told["four_or_nine"]
        click.echo(
            f"4 or 9:    {of['fours']:.0%} of the draws are fours, {of['nines']:.0%} nines; it was a {of['truth']}"
        )
        image, model = told["files"][:2]
        click.echo(f"to try on: {image} --model {model} --sigma {of['sigma']:g}")


def _tell_missing(told: dict[str, Any]) -> None:
    for name, of in told["sets"].items():
        click.echo(f"{name}: squared error on what was erased, times 1000")
        click.echo(f"{'':16} {'mean':>7} {'plain':>7} {'denoising':>10}")
        for row in of["errors"]:
            errors = f"{1000 * row['mean']:7.1f} {1000 * row['plain']:7.1f} {1000 * row['denoising']:10.1f}"
            click.echo(f"{row['kind']:8} {row['erased']:6.0%}  {errors}")
        click.echo("what draws have of the gradients of clean images, and what the mean has (denoising)")
        for row in of["draws"]:
            energies = f"{row['draw_gradients']:7.2f} {row['denoising_gradients']:7.2f}"
            click.echo(f"{row['kind']:8} {row['rate']:6.0%}  {energies}")


def _tell_stacked(told: dict[str, Any]) -> None:
    click.echo(
        f"wrong answers in % of {told['tested_on']} digits, mean over {told['seeds']} seeds ± its standard error"
    )
    click.echo(f"{'labels':>6} {'random':>13} {'copying':>13} {'denoising':>13}")
    for row in told["errors"]:
        parts = (row[name] for name in ("random", "copying", "denoising"))
        errors = " ".join(f"{part['error']:6.2f} ± {part['standard_error']:4.2f}" for part in parts)
        click.echo(f"{row['labels']:6} {errors}")


def _name_pictures(told: dict[str, Any]) -> None:
    click.echo("pictures:")
    for path in told["pictures"]:
        click.echo(f"  {path}")


def _refuse_what_does_not_apply(context: click.Context, kind: str, options: dict[str, Any]) -> None:
    """Say so where an option was given that this kind of demonstration would not heed."""
    given = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    vain = sorted(given & IN_VAIN[kind])
    if vain:
        option = {"name": "--set", "source": "FOLDER"}.get(vain[0], f"--{vain[0]}")
        raise click.UsageError(f"{option} says nothing to demo {kind}; leave it out")
    if options["name"] is not None and options["name"] not in SETS_OF[kind]:
        raise click.UsageError(f"demo {kind} knows the sets {', '.join(SETS_OF[kind])}; got {options['name']!r}")
    if kind == STACKED and options["source"] is None:
        raise click.UsageError("demo stacked needs the folder with MNIST's files: unperturb demo stacked FOLDER")
    if kind != PHOTO and options["sigma"] is not None and not options["sigma"] > 0:
        raise click.UsageError(f"demo {kind} needs noise: --sigma above 0")
