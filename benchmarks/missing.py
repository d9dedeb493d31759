"""Missing pixels, and other perturbations than noise: best guess and draws beside the classical answer to each.

::

    python -m benchmarks.missing IMAGES… [--cases erase-50,erase-80,holes] [--models missing,natural] [--limit N]

Of erased pixels the error is that of these alone, and so is the gradient energy, of all pairs of neighbours one of
which was erased. Draws are judged by their squared error, twice that of the mean where they are exact, by their
gradient energy beside that of the clean image, by how much they differ from each other, and by how often the truth
lies between the least and the greatest of K of them: (K − 1)/(K + 1) of the time, where they are exact.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.images import Picture, pictures
from benchmarks.peers import Array, need
from unperturb.infer.evaluate import PerturbedImage, perturb
from unperturb.infer.looks import QUALITIES
from unperturb.infer.observe import is_conditional, observe
from unperturb.infer.polish import STEPS, polish
from unperturb.infer.restore import restore
from unperturb.infer.sample import sample
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import keep_freed_memory
from unperturb.model.perturbation import Impulse, Perturbation
from unperturb.model.spec import parse

Peer = Callable[[PerturbedImage], Array]


def biharmonic(seen: PerturbedImage) -> Array:
    """Fill holes in by scikit-image's ``inpaint_biharmonic``, region by region."""
    from skimage.restoration import inpaint_biharmonic

    axis = None if seen.values.ndim == 2 else -1
    filled: Array = inpaint_biharmonic(seen.values, seen.missing, split_into_regions=True, channel_axis=axis)
    return filled


def telea(seen: PerturbedImage) -> Array:
    """Fill holes in by OpenCV's ``INPAINT_TELEA``, radius 3; it takes 8 bits."""
    return _opencv(seen, need("cv2").INPAINT_TELEA)


def navier_stokes(seen: PerturbedImage) -> Array:
    """Fill holes in by OpenCV's ``INPAINT_NS``, radius 3; it takes 8 bits."""
    return _opencv(seen, need("cv2").INPAINT_NS)


def _opencv(seen: PerturbedImage, method: int) -> Array:
    assert seen.missing is not None
    levels = np.rint(seen.values.clip(0, 1) * 255).astype(np.uint8)
    filled: Array = need("cv2").inpaint(levels, seen.missing.astype(np.uint8), 3, method)
    return filled.astype(np.float32) / 255


def wiener(seen: PerturbedImage) -> Array:
    """Undo the blur of 1.6 pixels by scikit-image's ``wiener``, balance 0.01, channel by channel."""
    from skimage.restoration import wiener as filtered

    offsets = np.arange(-6, 7)
    line = np.exp(-0.5 * (offsets / 1.6) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    padded = np.pad(seen.values, [(16, 16), (16, 16)] + [(0, 0)] * (seen.values.ndim - 2), mode="symmetric")
    planes = padded[..., None] if padded.ndim == 2 else padded
    undone = np.stack(
        [filtered(planes[..., index], kernel, 0.01, clip=False) for index in range(planes.shape[-1])], -1
    )[16:-16, 16:-16]
    return undone[..., 0] if seen.values.ndim == 2 else undone


def bicubic(seen: PerturbedImage) -> Array:
    """Enlarge the means of 4 × 4 blocks by OpenCV's bicubic interpolation."""
    height, width = seen.values.shape[:2]
    small = seen.values[::4, ::4]
    large: Array = need("cv2").resize(
        small, (4 * small.shape[1], 4 * small.shape[0]), interpolation=need("cv2").INTER_CUBIC
    )
    return large[:height, :width]


def itself(seen: PerturbedImage) -> Array:
    """Leave it as it is."""
    return seen.values


def median(seen: PerturbedImage) -> Array:
    """Take the median of 5 × 5 pixels, channel by channel."""
    from scipy.ndimage import median_filter

    return median_filter(seen.values, (5, 5) if seen.values.ndim == 2 else (5, 5, 1))


INPAINTING: Mapping[str, Peer] = {
    "biharmonic": biharmonic,
    "OpenCV Telea": telea,
    "OpenCV Navier-Stokes": navier_stokes,
}

CASES: Mapping[str, tuple[str, Mapping[str, Peer]]] = {
    "erase-50": ("erase:fraction=0.5", INPAINTING),
    "erase-80": ("erase:fraction=0.8", INPAINTING),
    "holes": ("block:size=16,count=20", INPAINTING),
    "blur": ("blur:sigma=1.6 + gaussian:sigma=0.0078431", {"Wiener": wiener}),
    "downsample": ("downsample:factor=4", {"bicubic": bicubic}),
    "jpeg": ("jpeg:quality=10", {"the JPEG itself": itself}),
    "impulse": ("impulse:fraction=0.3", {"median": median}),
}
"""What is done to the images, and the classical answers to it."""


@dataclass(frozen=True)
class Row:
    """One method in one case, over all images.

    Attributes
    ----------
    psnr
        Of the best guess, in dB, mean over images; of erased pixels alone where pixels are erased.
    error_of_draw
        Squared error of a draw over that of the mean, which is one call of the network; 2 where they are exact.
    difference_of_draws
        Squared difference of two draws over the squared error of the mean: 2 where they are exact.
    sharpness, sharpness_of_draw
        Gradient energy over that of the clean images.
    coverage, promise
        Share of values between the least and the greatest of the draws, and what it is where they are exact.
    kept
        Whether all observed pixels came back as they were, where pixels are erased.
    seconds
        A megapixel, for the best guess.
    """

    case: str
    method: str
    images: int
    psnr: float
    sharpness: float
    seconds: float
    error_of_draw: float | None = None
    difference_of_draws: float | None = None
    sharpness_of_draw: float | None = None
    coverage: float | None = None
    promise: float | None = None
    kept: bool | None = None


@dataclass(frozen=True)
class Answer:
    """What a method made of one image: a best guess, the seconds that it took, draws, and the mean that they are of."""

    best: Array
    seconds: float
    draws: Sequence[Array] = ()
    mean: Array | None = None


def run(
    chosen: Sequence[Picture], case: str, models: Mapping[str, Denoiser], *, quality: str, draws: int, steps: int
) -> Iterator[Row]:
    """Measure the classical answers to a case, and models."""
    spec, peers = CASES[case]
    perturbation = parse(spec)
    seen = [perturb(picture.values, perturbation, 0, picture.name) for picture in chosen]
    for name, peer in peers.items():
        yield row_of(case, name, chosen, seen, [_timed(peer, each) for each in seen])
    for name, model in models.items():
        answers = []
        for picture, each in zip(chosen, seen, strict=True):
            answers.append(_drawn(model, perturbation, each, quality, draws, steps))
            click.echo(f"  {case}, {name}: {picture.name} {answers[-1].seconds:.1f} s", err=True)
        yield row_of(case, name, chosen, seen, answers)


def _timed(peer: Peer, seen: PerturbedImage) -> Answer:
    start = time.perf_counter()
    best = peer(seen)
    return Answer(best, time.perf_counter() - start)


def _drawn(
    model: Denoiser, perturbation: Perturbation, seen: PerturbedImage, quality: str, draws: int, steps: int
) -> Answer:
    axis = None if seen.values.ndim == 2 else -1
    missing, sigma = seen.missing, seen.sigma
    if isinstance(perturbation, Impulse) and "impulse" not in model.card.perturbation:
        # A model of missing pixels takes all that is black or white for missing, the few that always were included.
        extreme = (seen.values == 0) | (seen.values == 1)
        missing, sigma = extreme if axis is None else extreme.any(-1), 0.0
    told = None if is_conditional(model) or missing is not None else perturbation
    start = time.perf_counter()
    best = restore(
        seen.values,
        model,
        sigma,
        channel_axis=axis,
        missing=missing,
        perturbation=told,
        quality=quality,
    )
    if model.card.name == "missing" and missing is not None:
        best = polish(best, missing, load("natural"), channel_axis=axis, steps=STEPS[quality])
    seconds = time.perf_counter() - start
    if not draws:
        return Answer(best, seconds)
    observation = observe(seen.values, model, sigma, channel_axis=axis, missing=missing, perturbation=told)
    drawn = [observation.to_array(draw) for draw in sample(observation.posterior, draws, steps=steps)]
    return Answer(best, seconds, drawn, observation.to_array(observation.posterior.mean))


def row_of(
    case: str, method: str, chosen: Sequence[Picture], seen: Sequence[PerturbedImage], answers: Sequence[Answer]
) -> Row:
    """Return the figures of one method over all images."""
    errors, energies, sharp, covered = [], [], [], []
    drawn: list[tuple[float, float]] = []
    apart: list[tuple[float, float]] = []
    kept = True
    for picture, each, answer in zip(chosen, seen, answers, strict=True):
        clean, missing = picture.values, each.missing
        errors.append(_error(clean, answer.best.clip(0, 1), missing))
        energies.append((_energy(clean, missing), _energy(answer.best, missing)))
        if answer.mean is not None:
            raw = _error(clean, answer.mean, missing)
            drawn.append((raw, float(np.mean([_error(clean, draw, missing) for draw in answer.draws]))))
            sharp.append(float(np.mean([_energy(draw, missing) for draw in answer.draws])))
        if len(answer.draws) > 1:
            apart.append((drawn[-1][0], _error(answer.draws[0], answer.draws[1], missing)))
            covered.append(_covered(clean, answer.draws, missing))
        if missing is not None:
            kept &= all(bool((each.values == made)[~missing].all()) for made in (answer.best, *answer.draws))
    pixels = sum(picture.values.shape[0] * picture.values.shape[1] for picture in chosen) / 1e6
    clean_energy, best_energy = np.sum(energies, 0)
    return Row(
        case, method, len(chosen),
        psnr=float(np.mean(-10 * np.log10(errors))),
        sharpness=float(best_energy / clean_energy),
        seconds=sum(answer.seconds for answer in answers) / pixels,
        error_of_draw=_ratio(drawn),
        difference_of_draws=_ratio(apart),
        sharpness_of_draw=float(np.sum(sharp) / clean_energy) if sharp else None,
        coverage=float(np.mean(covered)) if covered else None,
        promise=(len(answers[0].draws) - 1) / (len(answers[0].draws) + 1) if covered else None,
        kept=kept if seen[0].missing is not None else None,
    )  # fmt: skip


def _ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    below, above = np.sum(pairs, 0) if pairs else (0.0, 0.0)
    return float(above / below) if below else None


def _error(clean: Array, answer: Array, missing: Array | None) -> float:
    gap = np.square(clean - answer)
    return float(gap.mean() if missing is None else gap[missing].mean())


def _covered(clean: Array, draws: Sequence[Array], missing: Array | None) -> float:
    within = (np.min(draws, 0) <= clean) & (clean <= np.max(draws, 0))
    return float(within.mean() if missing is None else within[missing].mean())


def _energy(values: Array, missing: Array | None) -> float:
    """Return the sum of squared differences of neighbours, of which one at least is missing where any pixels are."""
    total = 0.0
    for axis in (0, 1):
        steps = np.square(np.diff(values, axis=axis))
        if missing is not None:
            steps = steps[np.delete(missing, -1, axis) | np.delete(missing, 0, axis)]
        total += float(steps.sum())
    return total


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--cases", default="erase-50,erase-80,holes", show_default=True, help=f"Out of {', '.join(CASES)}.")
@click.option("--models", default="missing,natural", show_default=True, help="Bundled names, or paths.")
@click.option("-n", "draws", default=4, show_default=True, help="Draws of each image.")
@click.option(
    "--quality",
    type=click.Choice(list(QUALITIES)),
    default="auto",
    show_default=True,
    help="Of best guesses: fast is one look, unpolished.",
)
@click.option("--steps", default=20, show_default=True, help="Of a draw.")
@click.option("--limit", type=int, default=None, help="Images.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None, help="A JSON file for the rows.")
def main(  # noqa: PLR0917 (click hands them over by name)
    images: tuple[Path, ...],
    cases: str,
    models: str,
    draws: int,
    quality: str,
    steps: int,
    limit: int | None,
    output: Path | None,
) -> None:
    """Measure, and print one line for each case and method."""
    keep_freed_memory()
    chosen = list(pictures(images, limit=limit))
    known = {Path(name).stem: load(name) for name in models.split(",")}
    rows = []
    click.echo("| case | method | PSNR | sharpness | draw/best | apart | sharpness of a draw | covered | kept | s/MP |")
    click.echo("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for case in cases.split(","):
        for row in run(chosen, case, known, quality=quality, draws=draws, steps=steps):
            rows.append(asdict(row))
            told = ["–" if value is None else f"{value:.2f}"
                    for value in (row.error_of_draw, row.difference_of_draws, row.sharpness_of_draw)]  # fmt: skip
            told.append("–" if row.coverage is None else f"{row.coverage:.2f} of {row.promise:.2f}")
            kept = "–" if row.kept is None else "yes" if row.kept else "no"
            click.echo(
                f"| {row.case} | {row.method} | {row.psnr:.2f} | {row.sharpness:.2f} | {' | '.join(told)} | {kept} | "
                f"{row.seconds:.2f} |"
            )
    if output is not None:
        output.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
