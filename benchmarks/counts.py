"""Low light: photographs of a few photons a pixel, restored by `natural` and by BM3D between stabilised values.

::

    python -m benchmarks.counts IMAGES… [--peaks 4,30] [--limit N] [--model natural]

The brightest pixel counts `peak` photons on average. BM3D sees what the generalised Anscombe transform makes of them,
and its answer takes the exact unbiased inverse, both those of `unperturb.model.stabilise`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.cover import covered
from benchmarks.images import pictures
from benchmarks.peers import Array, bm3d
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.infer.restore import restore
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import keep_freed_memory
from unperturb.model.perturbation import Poisson
from unperturb.model.stabilise import stabiliser


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes
    ----------
    psnr
        In dB, of what was seen, of our answer, of that to noise as strong everywhere, and of BM3D's.
    covered
        The share of pixels that lie in their interval.
    seconds
        Of our answer, and of BM3D's.
    """

    psnr: tuple[float, ...]
    covered: float
    seconds: tuple[float, float]


def measure(paths: Sequence[Path], peak: float, denoiser: Denoiser, limit: int | None) -> Iterator[Row]:
    """Restore every image, gray or in colour."""
    counting = Poisson(1 / peak)
    for picture in pictures(paths, limit=limit):
        clean = picture.values
        axis = None if clean.ndim == 2 else -1
        noisy = perturb(clean, counting, 0, picture.name).values
        start = time.perf_counter()
        ours = restore(noisy, denoiser, channel_axis=axis, perturbation=counting)
        between = time.perf_counter()
        peer = stabilised_bm3d(noisy, counting)
        seconds = between - start, time.perf_counter() - between
        plain = restore(noisy, denoiser, channel_axis=axis, quality="fast")
        answers = [answer.clip(0, 1) for answer in (ours, plain, peer)]
        scores = [psnr(clean, answer) for answer in (noisy, *answers)]
        row = Row(tuple(scores), covered(clean, noisy, denoiser, counting), seconds)
        click.echo(f"  {picture.name}: {scores[1]:.2f} beside {scores[3]:.2f}, covered {row.covered:.3f}", err=True)
        yield row


def stabilised_bm3d(noisy: Array, counting: Poisson) -> Array:
    """Run BM3D on stabilised values, whose noise is of one strength."""
    stable = stabiliser(counting, noisy)
    assert stable is not None
    answer = bm3d(stable.forward(torch.from_numpy(noisy)).numpy(), stable.sigma)
    return stable.inverse(torch.from_numpy(np.ascontiguousarray(answer, np.float32))).numpy()


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--peaks", default="4", show_default=True, help="Photons of the brightest pixel.")
@click.option("--limit", type=int, default=None, help="Images.")
@click.option("--model", default="natural", show_default=True, help="The model.")
def main(images: tuple[Path, ...], peaks: str, limit: int | None, model: str) -> None:
    """Measure, and print one line a peak."""
    keep_freed_memory()
    denoiser = load(model)
    click.echo("| photons | images | seen | ours | as if equally strong | BM3D | covered, of 0.9 | s/MP | BM3D s/MP |")
    click.echo("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for peak in (float(text) for text in peaks.split(",")):
        rows = list(measure(images, peak, denoiser, limit))
        megapixels = sum(picture.values.size for picture in pictures(images, limit=limit)) / 1e6
        figures = " | ".join(f"{value:.2f}" for value in np.mean([row.psnr for row in rows], 0))
        share = np.mean([row.covered for row in rows])
        times = " | ".join(f"{total / megapixels:.1f}" for total in np.sum([row.seconds for row in rows], 0))
        click.echo(f"| {peak:g} | {len(rows)} | {figures} | {share:.3f} | {times} |")


if __name__ == "__main__":
    main()
