"""Missing pixels of four photographs, the best guess and two draws beside them, to be looked at.

::

    python -m benchmarks.fillings [-o docs/figures/missing.jpg]

The photographs come with scikit-image, and none of them was trained on.
"""

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.crops import GAP, TITLE, photograph
from unperturb.infer.evaluate import perturb
from unperturb.infer.observe import observe
from unperturb.infer.polish import polish
from unperturb.infer.restore import restore
from unperturb.infer.sample import sample
from unperturb.model.checkpoint import load
from unperturb.model.machine import keep_freed_memory
from unperturb.model.spec import parse

SIDE = 192
MAGENTA = np.array([1, 0, 1], np.float32)


class Place(NamedTuple):
    """A square of a photograph that scikit-image ships, its upper left corner, and what is done to it."""

    photograph: str
    top: int
    left: int
    shows: str
    spec: str


PLACES = (
    Place(
        "astronaut", 10, 130, "lines and scratches", "line:width=1..2,count=6 + scratch:length=60..160,width=4,count=8"
    ),
    Place("chelsea", 50, 110, "80 % of the pixels", "erase:fraction=0.8"),
    Place("coffee", 60, 210, "holes of 16 x 16", "block:size=16,count=14"),
    Place("rocket", 160, 240, "half of the pixels, and a hole", "erase:fraction=0.5 + block:size=40,count=1"),
)


def row(place: Place) -> Image.Image:
    """Return a place with what is missing, the best guess, and two draws."""
    clean = photograph(place.photograph)[place.top : place.top + SIDE, place.left : place.left + SIDE]
    values, missing, *_ = perturb(clean, parse(place.spec), 0, place.shows)
    assert missing is not None
    model = load("missing")
    best = polish(restore(values, model, channel_axis=-1, missing=missing), missing, load("natural"), channel_axis=-1)
    seen = observe(values, model, channel_axis=-1, missing=missing)
    draws = [seen.to_array(draw) for draw in sample(seen.posterior, 2)]
    shown = np.where(missing[..., None], MAGENTA, values)
    pictures = {place.shows: shown, "best guess": best, "a draw": draws[0], "another": draws[1]}
    canvas = Image.new("RGB", (len(pictures) * (SIDE + GAP), SIDE + TITLE), "white")
    for number, (name, picture) in enumerate(pictures.items()):
        levels = np.rint(255 * picture.clip(0, 1)).astype(np.uint8)
        canvas.paste(Image.fromarray(levels), (number * (SIDE + GAP), TITLE))
        ImageDraw.Draw(canvas).text((number * (SIDE + GAP) + 2, 1), name, fill="black")
    return canvas


@click.command()
@click.option("-o", "output", default=Path("missing.jpg"), show_default=True, type=click.Path(path_type=Path))
def main(output: Path) -> None:
    """Write one picture of four places."""
    keep_freed_memory()
    rows = [row(place) for place in PLACES]
    sheet = Image.new("RGB", (rows[0].width, len(rows) * (rows[0].height + GAP)), "white")
    for number, each in enumerate(rows):
        sheet.paste(each, (0, number * each.height + number * GAP))
    sheet.save(output, quality=90)
    click.echo(output)


if __name__ == "__main__":
    main()
