"""What `diagnose` finds, beside what was put there: noise of known gain, read noise and reach, on clean images.

::

    python -m benchmarks.diagnosis IMAGES

Four strengths, each white and filtered in four ways. Filtered noise has the variance that is stated: white noise of
variance 1 is filtered, brought back to variance 1, and made as strong as each pixel's brightness asks for.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from benchmarks.images import pictures
from unperturb.data.diagnosis import measure_noise

Floats = NDArray[np.float64]

STRENGTHS = ((0.0, 0.05), (0.0005, 0.01), (0.002, 0.02), (0.01, 0.02))
"""Gain and read noise."""

FILTERS = ("white", "gaussian 0.7", "gaussian 1", "mean of 3 × 3", "mean of two")


@dataclass(frozen=True)
class Row:
    """One combination: what was put there, and what was found."""

    gain: float
    read: float
    filtered: str
    gain_found: float
    read_found: float
    whiteness: float
    correlated: bool

    @property
    def right(self) -> bool:
        """Whether gain and read noise are within a tenth, and neighbours are told about rightly.

        A gain of 0 is found where what stands for it is a tenth of the variance at middle brightness at most.
        """
        close = abs(self.read_found - self.read) <= 0.1 * self.read
        most = 0.1 * self.gain if self.gain else 0.2 * self.read**2
        grown = abs(self.gain_found - self.gain) <= most
        return close and grown and self.correlated == (self.filtered != "white")


def run(clean: list[Floats]) -> Iterator[Row]:
    """Yield a row for each combination."""
    for gain, read in STRENGTHS:
        for kind in FILTERS:
            noisy = [
                image + np.sqrt(gain * image + read**2) * noise(image.shape, kind, seed)
                for seed, image in enumerate(clean)
            ]
            found = measure_noise(noisy)
            whiteness = math.nan if found.whiteness is None else found.whiteness.value
            yield Row(gain, read, kind, found.gain.value, found.read.value, whiteness, found.correlated)


def noise(shape: tuple[int, ...], kind: str, seed: int) -> Floats:
    """Return noise of variance 1, filtered in one of the ways."""
    white: Floats = np.random.default_rng(seed).standard_normal(shape)
    if kind == "white":
        return white
    if kind == "mean of 3 × 3":
        return np.asarray(3 * uniform_filter(white, 3, mode="wrap"))
    if kind == "mean of two":
        return np.asarray((white + np.roll(white, 1, 1)) / math.sqrt(2))
    width = float(kind.split()[1])
    point = np.zeros((41, 41))
    point[20, 20] = 1
    return np.asarray(
        gaussian_filter(white, width, mode="wrap") / np.sqrt(np.square(gaussian_filter(point, width)).sum())
    )


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=click.IntRange(1), default=None, help="The most images, spread evenly over all.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A JSON file for the rows.")
def main(images: tuple[Path, ...], limit: int | None, output: Path | None) -> None:
    """Measure, and print one line for each combination."""
    clean = [picture.values.astype(np.float64) for picture in pictures(images, limit=limit)]
    click.echo("| gain, read | noise | gain found | read found | whiteness | called | right |")
    click.echo("| --- | --- | ---: | ---: | ---: | --- | --- |")
    rows: list[dict[str, Any]] = []
    for row in run(clean):
        called = "in common" if row.correlated else "white"
        click.echo(
            f"| {row.gain:g}, {row.read:g} | {row.filtered} | {row.gain_found:.4g} | {row.read_found:.4g} | "
            f"{row.whiteness:.2f} | {called} | {'yes' if row.right else 'no'} |"
        )
        rows.append({**asdict(row), "right": row.right})
    click.echo(f"\n{sum(row['right'] for row in rows)} of {len(rows)}, on {len(clean)} images")
    if output is not None:
        output.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
