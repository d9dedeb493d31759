"""How good draws are, against the number of evaluations they take: on images with `natural`, and on points exactly.

::

    python -m benchmarks.draws [IMAGES…] [--levels 25,50] [--steps 20] [--methods corrected,ancestral] [--limit N]
    python -m benchmarks.draws --points

A draw from the posterior has twice the mean squared error of the best guess, the mean of K draws 1 + 1/K of it, and a
draw is as sharp as the clean image, which the best guess is not.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.images import pictures
from benchmarks.peers import Array
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import sharpness
from unperturb.infer.observe import observe
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import METHODS, sample
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import load
from unperturb.model.exact import GaussianMixture
from unperturb.model.machine import keep_freed_memory
from unperturb.model.perturbation import Gaussian


@dataclass(frozen=True)
class Row:
    """One method at one noise level and number of steps, over all images or points.

    Attributes
    ----------
    error
        Mean squared error of a draw over that of the best guess: 2 where draws are exact.
    error_of_mean
        That of the mean of K draws: 1 + 1/K.
    expected_of_mean
        1 + 1/K.
    sharpness_mean, sharpness_draw
        Gradient energy relative to that of the clean images, over all images together.
    sharpness_each
        Of the draws, the mean over images of the relative gradient energy: images with little of it count as much.
    seconds
        A draw and megapixel, or a draw and thousand points.
    """

    level: float
    method: str
    steps: int
    items: int
    error: float
    error_of_mean: float
    expected_of_mean: float
    sharpness_mean: float
    sharpness_draw: float
    sharpness_each: float
    seconds: float


def on_images(
    paths: Sequence[Path], levels: Sequence[float], cases: Sequence[tuple[str, int]], n: int, limit: int | None
) -> Iterator[Row]:
    """Draw `n` times from each image at each level (of 255), by each method and number of steps."""
    keep_freed_memory()
    natural = load("natural")
    chosen = list(pictures(paths, limit=limit))
    for level in levels:
        for method, steps in cases:
            parts = []
            start = time.perf_counter()
            for picture in chosen:
                parts.append(_image(natural, picture.values, picture.name, level / 255, (method, steps, n)))
                click.echo(f"  {picture.name}: {parts[-1][1] / parts[-1][0]:.3f}", err=True)
            pixels = sum(picture.values.size for picture in chosen)
            yield _row(level, method, steps, n, np.array(parts), (time.perf_counter() - start) / n / pixels * 1e6)


def _image(natural: object, clean: Array, name: str, sigma: float, case: tuple[str, int, int]) -> tuple[float, ...]:
    method, steps, n = case
    noisy = perturb(clean, Gaussian(sigma), 0, name).values
    seen = observe(noisy, natural, sigma, compute=Compute(device="cpu"))  # type: ignore[arg-type]  # any denoise
    draws = sample(seen.posterior, n, steps=steps, method=method)
    best, each = seen.to_array(seen.posterior.mean), [seen.to_array(draw) for draw in draws]
    errors = [float(np.square(answer - clean).mean()) for answer in (best, *each, np.mean(each, 0))]
    sharp = [sharpness(clean, answer) for answer in (best, *each)]
    drawn, weight = float(np.mean(sharp[1:])), _energy(clean)
    return errors[0], float(np.mean(errors[1:-1])), errors[-1], sharp[0] * weight, drawn * weight, weight, drawn


def _energy(values: Array) -> float:
    """Return the gradient energy of a picture, as `sharpness` has it, times its size."""
    return values.size * sum(float(np.square(np.diff(values, axis=axis)).mean()) for axis in (0, 1))


def on_points(levels: Sequence[float], cases: Sequence[tuple[str, int]], n: int, pairs: int = 10_000) -> Iterator[Row]:
    """Draw from the exact posteriors of a mixture of four Gaussians in the plane."""
    means = torch.tensor([[0, -2], [0.4, 2], [1.5, 0], [-1.5, 0.5]], dtype=torch.float64)
    mixture = GaussianMixture.isotropic(torch.tensor([0.3, 0.3, 0.2, 0.2], dtype=torch.float64), means, 0.35)
    generator = torch.Generator().manual_seed(0)
    clean = mixture.sample(pairs, generator)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    for level in levels:
        posterior = Posterior(mixture, clean + level * noise, level)
        for method, steps in cases:
            start = time.perf_counter()
            draws = sample(posterior, n, steps=steps, method=method, batch=n)
            seconds = (time.perf_counter() - start) / n / pairs * 1e3
            errors = [float((answer - clean).square().mean()) for answer in (posterior.mean, *draws, draws.mean(0))]
            part = (errors[0], float(np.mean(errors[1:-1])), errors[-1], *[float("nan")] * 4)
            yield _row(level, method, steps, n, np.array([part]), seconds)


def _row(level: float, method: str, steps: int, n: int, parts: Array, seconds: float) -> Row:
    sums = parts.mean(0)
    return Row(
        level,
        method,
        steps,
        len(parts),
        sums[1] / sums[0],
        sums[2] / sums[0],
        1 + 1 / n,
        sums[3] / sums[5],
        sums[4] / sums[5],
        sums[6],
        seconds,
    )


@click.command()
@click.argument("images", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--points", is_flag=True, help="Points of a mixture instead of images.")
@click.option("--levels", default=None, help="Noise levels, of 255 for images.  [default: 25,50; 0.5,1,2 for points]")
@click.option("--steps", default="20", show_default=True, help="Numbers of steps.")
@click.option("--methods", default="corrected", show_default=True, help=f"Out of {', '.join(METHODS)}.")
@click.option("-n", "n", default=2, show_default=True, help="Draws.")
@click.option("--limit", type=int, default=None, help="Images.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None, help="A JSON file for the rows.")
def main(  # noqa: PLR0917 (click hands them over by name)
    images: tuple[Path, ...], points: bool, levels: str | None, steps: str, methods: str, n: int, limit: int | None,
    output: Path | None,
) -> None:  # fmt: skip
    """Measure draws, and print one line for each method, level and number of steps."""
    cases = [(method, int(count)) for method in methods.split(",") for count in steps.split(",")]
    numbers = [float(level) for level in (levels or ("0.5,1,2" if points else "25,50")).split(",")]
    rows = []
    click.echo(
        "| level | method | steps | MSE/MMSE | of the mean of K | 1 + 1/K | sharpness, mean | draw | each | seconds |"
    )
    click.echo("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in on_points(numbers, cases, n) if points else on_images(images, numbers, cases, n, limit):
        rows.append(asdict(row))
        click.echo(
            f"| {row.level:g} | {row.method} | {row.steps} | {row.error:.3f} | {row.error_of_mean:.3f} | "
            f"{row.expected_of_mean:.3f} | {row.sharpness_mean:.2f} | {row.sharpness_draw:.3f} | "
            f"{row.sharpness_each:.3f} | {row.seconds:.2f} |"
        )
    if output is not None:
        output.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
