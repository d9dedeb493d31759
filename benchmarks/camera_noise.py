"""The noise of photographs beside that of the simulated camera: how it grows and reaches, and where it is.

::

    python -m benchmarks.camera_noise FOLDER [-o figure.png] [--perturb SPEC]

FOLDER holds pairs of files, ``NAME_real.JPG`` and ``NAME_mean.JPG``: one shot, and the mean of many. Their difference
is noise; the simulated one is drawn on the same means. Nothing is fitted here: it shows what a simulation misses.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.peers import Array, need
from benchmarks.photo import pairs
from unperturb.data.patches import LUMINANCE
from unperturb.data.recording import read
from unperturb.errors import UnperturbError
from unperturb.infer.evaluate import perturb
from unperturb.model.spec import parse

REACH, BINS, FIFTHS = 8, 10, 5
COLOURS = (("red, green", 0, 1), ("green, blue", 1, 2), ("red, blue", 0, 2))

Numbers = dict[str, Array]


def statistics(clean: Array, noise: Array) -> Numbers:
    """Return what noise ``(H, W, 3)`` is like.

    Returns
    -------
    dict of array
        "growth": its variance by the brightness of the clean image, in `BINS` equal bins of luminance, over that of
        all; NaN where fewer than 500 pixels are as bright. "reach": the correlation of luminance with that so many
        pixels to the right. "colours": the correlation of each two of `COLOURS`. "detail": the root mean square of fine
        luminance noise, which a blur of one pixel takes away, over that of all, by fifths of how much the clean image
        varies around a pixel, among pixels of like brightness.
    """
    noise = noise - noise.mean((0, 1))
    light, brightness = noise @ np.array(LUMINANCE, np.float32), clean @ np.array(LUMINANCE, np.float32)
    which = np.minimum((brightness * BINS).astype(int), BINS - 1)
    bins = [light[which == number] for number in range(BINS)]
    growth = [part.var() / light.var() if part.size >= 500 else np.nan for part in bins]
    reach = [np.mean(light[:, : light.shape[1] - lag] * light[:, lag:]) / light.var() for lag in range(REACH + 1)]
    flat = noise.reshape(-1, 3)
    colours = [np.corrcoef(flat[:, one], flat[:, other])[0, 1] for _, one, other in COLOURS]
    return {
        "growth": np.array(growth),
        "reach": np.array(reach),
        "colours": np.array(colours),
        "detail": _by_detail(brightness, light),
    }


def _by_detail(brightness: Array, light: Array) -> Array:
    """Return how strong fine noise is in each fifth of the pixels, from the one with the least detail on."""
    fine = light - gaussian_filter(light, 1)
    varies = gaussian_filter((brightness - gaussian_filter(brightness, 2)) ** 2, 2)
    alike = _fifth(brightness)
    powers = np.zeros((FIFTHS, FIFTHS))
    for number in range(FIFTHS):
        here = alike == number
        which = _fifth(varies[here])
        powers[number] = [np.mean(fine[here][which == part] ** 2) for part in range(FIFTHS)]
    return np.sqrt(powers.mean(0) / powers.mean())


def _fifth(values: Array) -> Array:
    """Return in which fifth of all each value is, by its rank."""
    ranks = values.ravel().argsort(kind="stable").argsort(kind="stable").reshape(values.shape)
    return np.asarray(ranks * FIFTHS // values.size)


def measured(folder: Path, spec: str, limit: int | None) -> dict[str, list[Numbers]]:
    """Return the statistics of every pair, of the noise that is there and of the simulated."""
    found: dict[str, list[Numbers]] = {"real": [], "simulated": []}
    for shot, mean in pairs(folder)[:limit]:
        clean = read(mean).as_float()
        found["real"].append(statistics(clean, read(shot).as_float() - clean))
        found["simulated"].append(statistics(clean, perturb(clean, parse(spec), 0, mean.name).values - clean))
    return found


def _quartiles(all_of: Sequence[Numbers], name: str) -> Array:
    """Return first quartile, median and third over the pictures, ``(3, …)``; NaN where no picture has any."""
    values = np.stack([each[name] for each in all_of])
    none = np.isnan(values).all(0)
    found: Array = np.nanquantile(np.where(none, 0.0, values), (0.25, 0.5, 0.75), axis=0)
    return np.where(none, np.nan, found)


def draw(found: dict[str, list[Numbers]], output: Path) -> None:
    """Draw medians, and quartiles in a paler colour."""
    need("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    places = {
        "growth": (np.arange(BINS) + 0.5) / BINS,
        "reach": np.arange(REACH + 1),
        "colours": np.arange(len(COLOURS)),
        "detail": np.arange(FIFTHS) + 1,
    }
    for colour, (kind, numbers) in zip(("#c2410c", "#1d4ed8"), found.items(), strict=True):
        for panel, (name, at) in zip(panels, places.items(), strict=True):
            low, middle, high = _quartiles(numbers, name)
            if name == "colours":
                beside = at + (0.1 if kind == "simulated" else -0.1)
                panel.errorbar(beside, middle, (middle - low, high - middle), fmt="o", color=colour, label=kind)
            else:
                panel.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
                panel.plot(at, middle, "o-", ms=3, color=colour, label=kind)
    words = (
        ("brightness", "variance, of the mean"),
        ("pixels apart", "correlation"),
        ("", "correlation"),
        ("fifth of the pixels, by detail", "fine noise, of the mean"),
    )
    for panel, (across, up) in zip(panels, words, strict=True):
        panel.set(xlabel=across, ylabel=up)
        panel.spines[["top", "right"]].set_visible(False)
    panels[2].set_xticks(places["colours"], [name for name, _, _ in COLOURS], fontsize=8)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(output)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", default=None, type=click.Path(dir_okay=False, path_type=Path), help="A figure to draw.")
@click.option(
    "--perturb",
    "spec",
    default="camera:iso=800..6400,smoothing=0..8,softening=0..2,sparing=0.3..1 + jpeg:quality=70..98",
    show_default=True,
    help="What is simulated.",
)
@click.option("--limit", type=int, default=None, help="Pictures.")
def main(folder: Path, output: Path | None, spec: str, limit: int | None) -> None:
    """Measure, print medians, and draw them."""
    if not pairs(folder):
        raise click.UsageError(f"there are no pairs NAME_real and NAME_mean in {folder}")
    try:
        found = measured(folder, spec, limit)
    except UnperturbError as error:
        raise click.ClickException(str(error)) from None
    for name in ("growth", "reach", "colours", "detail"):
        for kind, numbers in found.items():
            click.echo(f"{name:<8} {kind:<10}" + "".join(f"{value:7.2f}" for value in _quartiles(numbers, name)[1]))
    if output is not None:
        draw(found, output)


if __name__ == "__main__":
    main()
