"""`unperturb demo`: the main job, end to end, on a sample image."""

from pathlib import Path

import click

from unperturb.app.options import compute_options, echo_json, json_option, model_option


@click.command()
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
    "--sigma", type=click.FloatRange(0), default=25.0, show_default=True, help="Noise to add, in grey levels."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there already.")
@compute_options
@json_option
def demo(
    output: Path,
    model: str,
    sigma: float,
    seed: int,
    overwrite: bool,
    device: str,
    precision: str,
    tile: str,
    as_json: bool,
) -> None:
    """Add noise to a photograph, restore it without being told how much, and write the pictures.

    The photograph is one that scikit-image ships and that the model has not seen.
    """
    from unperturb.app.options import as_compute
    from unperturb.app.sample import run_demo

    told = run_demo(output, model, sigma, seed, as_compute(device, precision, tile), overwrite=overwrite)
    if as_json:
        echo_json(told)
        return
    click.echo(f"noise: {sigma:g} grey levels added, {told['sigma']:.1f} estimated")
    click.echo(
        f"PSNR:  {told['psnr_noisy']:.2f} dB noisy, {told['psnr_restored']:.2f} dB restored, in {told['seconds']:.1f} s"
    )
    click.echo("pictures:")
    for path in told["pictures"]:
        click.echo(f"  {path}")
