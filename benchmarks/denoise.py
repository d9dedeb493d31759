"""The benchmark: the bundled model `natural` beside its peers, quality and seconds a megapixel, in one run.

::

    python -m benchmarks.denoise [IMAGES…] [--levels 15,25,50] [--limit N] [-o FOLDER]

It writes one table (``denoise.md``, ``denoise.json``) and one plot (``denoise.png``). Adding a method is adding a row
to `METHODS`: a function ``method(noisy, sigma) -> estimate`` whose docstring says how it is set.
"""

import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks import report
from benchmarks.facts import machine
from benchmarks.images import pictures
from benchmarks.measure import measure
from benchmarks.peers import PEERS, TUNED, Array, Method, factor, need
from unperturb.errors import UnperturbError, UsageError
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.machine import keep_freed_memory


def natural_fast(noisy: Array, sigma: float) -> Array:
    """Run the bundled model natural, sigma as known, with quality "fast": one call of the network."""
    return _restore(noisy, sigma, "fast")


def natural_auto(noisy: Array, sigma: float) -> Array:
    """Run the bundled model natural with quality "auto", the default: small images are looked at two or four times."""
    return _restore(noisy, sigma, "auto")


def natural_best(noisy: Array, sigma: float) -> Array:
    """Run the bundled model natural with quality "best": the average over eight flips and rotations."""
    return _restore(noisy, sigma, "best")


def _restore(noisy: Array, sigma: float, quality: str) -> Array:
    axis = None if noisy.ndim == 2 else -1
    return restore(noisy, _model(), sigma, channel_axis=axis, quality=quality, compute=Compute(device="cpu"))


@functools.cache
def _model() -> Denoiser:
    return load("natural")


METHODS: Mapping[str, Method] = {
    "natural, fast": natural_fast,
    "natural, auto": natural_auto,
    "natural, best": natural_best,
    **PEERS,
}
"""Every method by the name that the table gives it."""


def run(
    paths: Sequence[Path] = (),
    *,
    levels: Sequence[float] = (15, 25, 50),
    methods: Mapping[str, Method] = METHODS,
    colour: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> report.Report:
    """Measure, and tell on stderr what is being done.

    Parameters
    ----------
    paths, colour, limit
        As for `benchmarks.images.pictures`.
    levels
        Standard deviations of the noise, of 255.
    methods
        The rows.
    seed
        Of the noise.
    """
    facts = machine()
    chosen = pictures(paths, colour=colour, limit=limit)
    measurements = list(measure(chosen, levels, methods, seed=seed, tell=functools.partial(click.echo, err=True)))
    tuned = {name: method for name, method in TUNED.items() if name in methods}
    factors = {name: {level: factor(method, level / 255) for level in levels} for name, method in tuned.items()}
    settings = {name: setting(method) for name, method in methods.items()}
    return report.Report(measurements, settings, factors, facts, seed, colour)


def setting(method: Method) -> str:
    """Return what a method says about its setting: its docstring, in one line."""
    return " ".join((inspect.getdoc(method) or "").split())


def _levels(_: click.Context, __: click.Parameter, text: str) -> list[float]:
    try:
        levels = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 15,25,50") from None
    if not all(math.isfinite(level) and level > 0 for level in levels):
        raise click.BadParameter("levels are greater than 0")
    return levels


@click.command()
@click.argument("images", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--levels", default="15,25,50", show_default=True, callback=_levels, help="Noise levels, of 255.")
@click.option("--limit", type=click.IntRange(min=1), help="The most pictures, spread evenly over all there are.")
@click.option("--colour", is_flag=True, help="Keep colour; otherwise pictures become their luminance.")
@click.option("--only", multiple=True, type=click.Choice(list(METHODS)), help="Measure this method; may be repeated.")
@click.option("-o", "folder", default=Path("bench_results"), show_default=True, type=click.Path(path_type=Path))
def main(
    images: tuple[Path, ...], levels: list[float], limit: int | None, colour: bool, only: tuple[str, ...], folder: Path
) -> None:
    """Measure `natural` and its peers on IMAGES (files or folders; by default the test sets beside the checkout)."""
    keep_freed_memory()  # as the command line does
    methods = {name: method for name, method in METHODS.items() if not only or name in only}
    try:
        need("matplotlib")  # before the long measurement, not after it
        report.make(folder)
        found = run(images, levels=levels, methods=methods, colour=colour, limit=limit)
        files = report.write(found, folder)
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    except UnperturbError as error:
        raise click.ClickException(str(error)) from None
    click.echo(report.as_markdown(found))
    click.echo(f"written: {', '.join(map(str, files))}", err=True)


if __name__ == "__main__":
    main()
