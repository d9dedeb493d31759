"""Photographs under the noise of a simulated camera: what a model makes of them, and how much of it to take.

::

    python -m benchmarks.simulated FOLDER… [--held-out 20] [--model photo]

With ``--held-out 20`` only the images of training folders that training does not see: between models these decide. The
middle of each picture is taken. Beside PSNR the table has by how much the mean colour of a square moves, and which
share of what was found to be noise is best taken away: at it the mean PSNR is highest.

Of what was compressed colour is looked for at half resolution, as JPEG keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.peers import Array
from unperturb.data.decoded import held_out_files
from unperturb.data.listing import files_of
from unperturb.data.recording import read
from unperturb.errors import UnperturbError
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.infer.restore import restore
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import keep_freed_memory
from unperturb.model.spec import parse

SIDE = 320
"""Pixels along a side of the middle that is taken."""

SQUARE = 64
"""Pixels along a side of a square whose mean colour is compared."""

SHARES = tuple(0.05 * step for step in range(6, 25))
"""Shares that are tried, of what was found to be noise."""

SOFT = "smoothing=3,softening=1.5,sparing=0"
"""Of a camera's own noise reduction, which leaves noise that reaches further."""

SPARED = SOFT.replace("sparing=0", "sparing=1")
"""Of one that stops at detail, and leaves there what noise there is."""

ROWS: dict[str, tuple[int, str | None]] = {
    "clean": (1, None),
    "ISO 100, JPEG 95": (1, "camera:iso=100 + jpeg:quality=95"),
    "ISO 800, JPEG 90": (1, "camera:iso=800 + jpeg:quality=90"),
    "ISO 3200, JPEG 90": (1, "camera:iso=3200 + jpeg:quality=90"),
    "ISO 800, softened, JPEG 95": (1, f"camera:iso=800,{SOFT} + jpeg:quality=95"),
    "ISO 3200, softened, JPEG 90": (1, f"camera:iso=3200,{SOFT} + jpeg:quality=90"),
    "ISO 3200, softened but for detail, JPEG 90": (1, f"camera:iso=3200,{SPARED} + jpeg:quality=90"),
    "enlarged, clean": (2, None),
    "enlarged, ISO 800, softened, JPEG 95": (2, f"camera:iso=800,{SOFT} + jpeg:quality=95"),
    "enlarged, ISO 3200, softened, JPEG 90": (2, f"camera:iso=3200,{SOFT} + jpeg:quality=90"),
    "enlarged, ISO 800, softened but for detail, JPEG 95": (2, f"camera:iso=800,{SPARED} + jpeg:quality=95"),
    "enlarged, ISO 3200, softened but for detail, JPEG 90": (2, f"camera:iso=3200,{SPARED} + jpeg:quality=90"),
}
"""By how much the pictures are enlarged, and what is done to them then. What comes out of a camera in full resolution
has less fine detail than pictures that were made smaller, as most of those to learn from were."""


@dataclass(frozen=True)
class Found:
    """One picture under one noise.

    Attributes
    ----------
    before, after
        PSNR in dB.
    moves
        Of every square, by how many grey levels of 255 its mean is off, on average over the colours.
    products
        Means of (x − y)², (e − y)(x − y) and (e − y)², e the answer to y: with them the error of every share is known.
    """

    before: float
    after: float
    moves: Array
    products: tuple[float, float, float]

    def at(self, share: float) -> float:
        """Return the PSNR where a share of what was found to be noise is taken away."""
        noise, along, taken = self.products
        return float(-10 * np.log10(noise - 2 * share * along + share**2 * taken))


def middles(paths: Sequence[Path], held_out: int | None) -> list[tuple[str, Array]]:
    """Return the middles of all pictures in colour that have a square in them, with their names."""
    files = files_of(paths) if held_out is None else held_out_files(paths, held_out)
    found = []
    for file in files:
        values = read(file).as_float()
        if values.ndim == 3 and values.shape[-1] == 3 and min(values.shape[:2]) >= SQUARE:
            firsts = [max(length - SIDE, 0) // 2 for length in values.shape[:2]]
            found.append((file.name, values[tuple(slice(first, first + SIDE) for first in firsts)]))
    return found


def enlarged_by(picture: Array, factor: int) -> Array:
    """Return the middle of a picture, so many times as large (cubic)."""
    if factor == 1:
        return picture
    rows, columns = (length // factor for length in picture.shape[:2])
    top, left = (picture.shape[0] - rows) // 2, (picture.shape[1] - columns) // 2
    part = torch.from_numpy(picture[top : top + rows, left : left + columns]).permute(2, 0, 1)[None]
    larger = torch.nn.functional.interpolate(part, scale_factor=factor, mode="bicubic")[0].clamp(0, 1)
    return larger.permute(1, 2, 0).numpy()


def tried(name: str, clean: Array, spec: str | None, denoiser: Denoiser) -> Found:
    """Perturb a picture and restore it."""
    seen, truth = clean, clean
    if spec is not None:
        seen, _, _, truth = perturb(clean, parse(spec), 0, name, half_colour=True)
    answer = restore(seen, denoiser, channel_axis=-1, quality="fast")
    step, wanted = (answer - seen).astype(np.float64), (truth - seen).astype(np.float64)
    before = np.inf if spec is None else psnr(truth, seen)
    products = (float((wanted**2).mean()), float((step * wanted).mean()), float((step**2).mean()))
    return Found(before, psnr(truth, answer), _moves(answer - truth), products)


def _moves(gap: Array) -> Array:
    rows, columns = (length // SQUARE for length in gap.shape[:2])
    squares = gap[: rows * SQUARE, : columns * SQUARE].reshape(rows, SQUARE, columns, SQUARE, -1)
    return 255 * np.abs(squares.mean((1, 3))).mean(-1).ravel()


def line(row: str, found: Sequence[Found]) -> str:
    """Return a row of the table."""
    before, after = (np.array([getattr(each, key) for each in found]) for key in ("before", "after"))
    moves = np.concatenate([each.moves for each in found])
    clean = np.isinf(before).all()
    share = "" if clean else f"{max(SHARES, key=lambda share: np.mean([each.at(share) for each in found])):.2f}"
    start = "" if clean else f"{before.mean():.2f}"
    return (
        f"| {row} | {start} | {after.mean():.2f} | {after.min():.2f} | {moves.mean():.2f} | "
        f"{np.quantile(moves, 0.95):.2f} | {share} |"
    )


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--held-out", type=click.IntRange(min=2), help="Take one picture in so many, as training holds out.")
@click.option("--model", default="photo", show_default=True, help="A model, bundled or a path.")
def main(folders: tuple[Path, ...], held_out: int | None, model: str) -> None:
    """Measure, and print one table."""
    keep_freed_memory()
    try:
        denoiser, chosen = load(model), middles(folders, held_out)
    except UnperturbError as error:
        raise click.ClickException(str(error)) from None
    if not chosen:
        raise click.UsageError("none of the pictures is in colour and large enough")
    click.echo(f"{len(chosen)} pictures\n")
    click.echo("| | before | after | least | colour moves, mean | 95 % under | best share |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row, (factor, spec) in ROWS.items():
        click.echo(line(row, [tried(name, enlarged_by(clean, factor), spec, denoiser) for name, clean in chosen]))


if __name__ == "__main__":
    main()
