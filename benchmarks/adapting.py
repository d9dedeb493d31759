"""`natural` on one noisy recording: untouched, told of its noise, tuned to it; and training from the recording alone.

::

    python -m benchmarks.adapting IMAGES… [--noise poisson-gaussian:gain=0.02,read=0.02] [--limit N] [--steps 120]

Everything is what a person would type, on files: noise is found by `--noise auto`. What is called supervised is tuned
the same way, on the same image, against the clean one, with the noise as it is. What is called blind spot learns from
the recording alone, from random weights, for as many steps.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.images import pictures
from benchmarks.peers import Array
from unperturb.data.recording import Recording, read, write
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.model.spec import parse

COLUMNS = ("untouched", "--noise auto", "tuned", "supervised", "blind spot")


def measure(clean: Array, noisy: Array, noise: str, folder: Path, steps: int) -> tuple[list[float], float]:
    """Return the PSNR of every column in dB, and the seconds that tuning took."""
    for name, values in (("noisy", noisy), ("clean", clean)):
        write(Recording(values, "YX", "tiff"), folder / f"{name}.tif", overwrite=True)
    tuning = ("--noisy", "noisy.tif", "--steps", steps, "--overwrite", "-o")
    start = time.perf_counter()
    _run(folder, "fit", "--from", "natural", *tuning, "tuned.safetensors")
    seconds = time.perf_counter() - start
    _run(
        folder, "fit", "--from", "natural", "--again", "clean.tif", "--noise", noise, *tuning, "supervised.safetensors"
    )
    _run(folder, "fit", "--objective", "blind-spot", "--validate", 20, *tuning, "alone.safetensors")
    scores = []
    for options in (
        (),
        ("--noise", "auto"),
        *(("--model", f"{name}.safetensors") for name in ("tuned", "supervised", "alone")),
    ):
        _run(folder, "restore", "noisy.tif", "-o", "answer.tif", "--overwrite", *options)
        scores.append(psnr(clean, read(folder / "answer.tif").values.clip(0, 1)))
    return scores, seconds


def _run(folder: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "unperturb", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr)


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--noise", default="poisson-gaussian:gain=0.02,read=0.02", show_default=True, help="What is added.")
@click.option("--limit", type=int, default=None, help="Images.")
@click.option("--steps", default=120, show_default=True, help="Of tuning.")
def main(images: tuple[Path, ...], noise: str, limit: int | None, steps: int) -> None:
    """Measure, and print one line an image."""
    click.echo(f"| image | {' | '.join(COLUMNS)} | seconds |")
    click.echo(f"| --- |{' ---: |' * (len(COLUMNS) + 1)}")
    rows = []
    for picture in pictures(images, limit=limit):
        with tempfile.TemporaryDirectory() as folder:
            noisy = perturb(picture.values, parse(noise), 0, picture.name).values
            scores, seconds = measure(picture.values, noisy, noise, Path(folder), steps)
        rows.append([*scores, seconds])
        click.echo(f"| {picture.name} | {' | '.join(f'{value:.2f}' for value in scores)} | {seconds:.0f} |")
    *means, seconds = np.mean(rows, 0)
    click.echo(f"| mean | {' | '.join(f'{value:.2f}' for value in means)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
