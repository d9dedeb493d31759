"""Twelve places of photographs before and after `photo`, to be looked at.

::

    python -m benchmarks.crops [-o docs/figures/photo.jpg] [--perturb "camera:iso=3200 + jpeg:quality=90"]

The photographs come with scikit-image, none of them was trained on, and their noise is that of a simulated camera.
"""

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.infer.restore import restore
from unperturb.model.checkpoint import load
from unperturb.model.machine import keep_freed_memory
from unperturb.model.spec import parse

SIDE, GAP, TITLE = 144, 6, 14


class Place(NamedTuple):
    """A square of a photograph that scikit-image ships: its name there, what is seen, and its upper left corner."""

    photograph: str
    shows: str
    top: int
    left: int


PLACES = (
    Place("astronaut", "skin", 70, 150),
    Place("astronaut", "fabric", 330, 60),
    Place("astronaut", "details", 10, 330),
    Place("chelsea", "an eye", 70, 110),
    Place("chelsea", "fur", 150, 280),
    Place("coffee", "a rim", 90, 230),
    Place("coffee", "wood", 250, 20),
    Place("page", "text", 20, 120),
    Place("hubble_deep_field", "night sky", 300, 300),
    Place("rocket", "a dark sky", 150, 250),
    Place("grass", "foliage", 100, 100),
    Place("motorcycle_left", "metal", 200, 300),
)


def photograph(name: str) -> NDArray[np.float32]:
    """Return a photograph as ``(H, W, 3)`` in [0, 1]."""
    from skimage import data
    from skimage.util import img_as_float32

    shipped = data.stereo_motorcycle()[0] if name == "motorcycle_left" else getattr(data, name)()
    values = img_as_float32(shipped)
    return np.repeat(values[..., None], 3, -1) if values.ndim == 2 else values


def tile(place: Place, spec: str) -> Image.Image:
    """Return a place before and after, with what it shows and the PSNR of both."""
    whole = photograph(place.photograph)
    margin = 96
    rows, columns = (slice(max(0, first - margin), first + SIDE + margin) for first in (place.top, place.left))
    clean = whole[rows, columns]
    noisy = perturb(clean, parse(spec), 0, place.shows).values.clip(0, 1)
    answer = restore(noisy, load("photo"), channel_axis=-1, quality="fast").clip(0, 1)
    inner = tuple(slice(min(margin, first), min(margin, first) + SIDE) for first in (place.top, place.left))
    canvas = Image.new("RGB", (2 * SIDE + GAP, SIDE + TITLE), "white")
    for number, values in enumerate((noisy, answer)):
        canvas.paste(Image.fromarray(np.rint(255 * values[inner]).astype(np.uint8)), (number * (SIDE + GAP), TITLE))
    before, after = (psnr(clean[inner], values[inner]) for values in (noisy, answer))
    ImageDraw.Draw(canvas).text((2, 1), f"{place.shows}: {before:.1f} to {after:.1f} dB", fill="black")
    return canvas


@click.command()
@click.option("-o", "output", default=Path("photo.jpg"), show_default=True, type=click.Path(path_type=Path))
@click.option("--perturb", "spec", default="camera:iso=3200 + jpeg:quality=90", show_default=True, help="The noise.")
def main(output: Path, spec: str) -> None:
    """Write one picture of twelve places."""
    keep_freed_memory()
    tiles = [tile(place, spec) for place in PLACES]
    width, height = (side + 2 * GAP for side in tiles[0].size)
    sheet = Image.new("RGB", (3 * width, 4 * height), "white")
    for number, each in enumerate(tiles):
        sheet.paste(each, (GAP + number % 3 * width, GAP + number // 3 * height))
    sheet.save(output, quality=92)
    click.echo(output)


if __name__ == "__main__":
    main()
