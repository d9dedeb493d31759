"""What learning without clean images costs: every objective beside supervised training, in as many steps.

::

    python -m benchmarks.parity IMAGES… --test IMAGES… [--sigma 25] [--steps 6000] [--seed 0] [--objectives sure]

A small network learns from scratch from crops of the same images, in gray. Supervised training sees new noise at every
step; all others see the noise that each image has, once and for all, and no clean value; `noise2noise` two shots.
"""

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.images import pictures
from benchmarks.peers import Array
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.infer.restore import restore
from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import keep_freed_memory
from unperturb.model.network import UNetSettings
from unperturb.model.perturbation import Gaussian
from unperturb.train.batches import NoisyDraw
from unperturb.train.fit import fit
from unperturb.train.noisy import NOISY
from unperturb.train.recordings import Recordings
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

PATCH, BATCH = 64, 8
NETWORK = UNetSettings(widths=(32, 64), blocks=1)

Crop = Callable[[np.random.Generator, int], NDArray[np.float32]]


def learned(objective: str, clean: list[Array], sigma: float, steps: int, seed: int = 0) -> tuple[Denoiser, float]:
    """Train from scratch, and return the model, and the seconds it took."""
    planes = tuple(plane[None] for plane in clean)
    sigmas = tuple(np.full_like(plane, sigma) for plane in planes)
    if objective == "squared":
        material = Recordings(planes, sigmas)
    else:
        shots = [
            tuple(_noisy(plane, sigma, f"{number}/{shot}") for number, plane in enumerate(planes)) for shot in (0, 1)
        ]
        material = Recordings(shots[0], sigmas, shots[1] if objective == "noise2noise" else ())

    def draw(generator: np.random.Generator, _: int) -> NDArray[np.float32]:
        crop = material.crop(generator, PATCH, paired=objective == "noise2noise")
        return crop[:1] if objective == "squared" else crop

    settings = FitSettings(
        str(Gaussian(sigma)), NETWORK, steps=steps, batch=BATCH, share=4, rate=2e-3, warmup=20, decay=1,
        patch_size=PATCH, objective=objective, seed=seed,
    )  # fmt: skip
    state = FitState.start(settings)
    start = time.perf_counter()
    for progress in fit(state, draw if objective == "squared" else NoisyDraw(draw), precision="float32"):
        if progress.step % 100 == 0:
            click.echo(f"  {objective}: step {progress.step} of {steps}, loss {progress.loss:.4f}", err=True)
    return state.averaged, time.perf_counter() - start


def _noisy(plane: NDArray[np.float32], sigma: float, name: str) -> NDArray[np.float32]:
    return perturb(plane[0], Gaussian(sigma), 1, name).values[None]


def scored(denoiser: Denoiser, test: list[tuple[str, Array]], sigma: float) -> float:
    """Return the mean PSNR in dB on other images."""
    scores = []
    for name, clean in test:
        noisy = perturb(clean, Gaussian(sigma), 0, name).values
        scores.append(psnr(clean, restore(noisy, denoiser, sigma, quality="fast").clip(0, 1)))
    return float(np.mean(scores))


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--test", multiple=True, required=True, type=click.Path(exists=True, path_type=Path), help="To score on.")
@click.option("--sigma", default=25.0, show_default=True, help="Noise level, of 255.")
@click.option("--steps", default=6000, show_default=True, help="Of each training.")
@click.option("--seed", default=0, show_default=True, help="Of first weights, crops, and noise that is drawn.")
@click.option("--limit", type=click.IntRange(min=1), help="The most images to learn from; all by default.")
@click.option("--objectives", default=",".join(("squared", *NOISY)), show_default=True, help="Which.")
def main(
    images: tuple[Path, ...],
    *,
    test: tuple[Path, ...],
    sigma: float,
    steps: int,
    seed: int,
    limit: int | None,
    objectives: str,
) -> None:
    """Train by every objective, and print one line each."""
    keep_freed_memory()
    torch.manual_seed(0)
    clean = [picture.values for picture in pictures(images, limit=limit)]
    others = [(picture.name, picture.values) for picture in pictures(test, limit=None)]
    click.echo("| objective | PSNR | beside supervised | seconds |")
    click.echo("| --- | ---: | ---: | ---: |")
    supervised: float | None = None
    for objective in objectives.split(","):
        denoiser, seconds = learned(objective, clean, sigma / 255, steps, seed)
        score = scored(denoiser, others, sigma / 255)
        supervised = score if supervised is None else supervised
        click.echo(f"| {objective} | {score:.2f} | {score - supervised:+.2f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
