"""Photographs with the noise of a camera: what `unperturb restore` makes of them, beside BM3D and OpenCV.

::

    python -m benchmarks.photo FOLDER [--limit N] [--only NAME …] [--cover]

FOLDER holds pairs of files, ``NAME_real.JPG`` and ``NAME_mean.JPG``: one shot, and the mean of many. Every peer has the
noise level that `estimate_sigma` finds in a picture, and besides the one single level of a grid at which it does best
on all of these pictures: nobody can know that, and it is the most that such a method can do.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.cover import covered
from benchmarks.peers import Array, bm3d, need
from unperturb.app.deciding import decide
from unperturb.data.noise import estimate_sigma
from unperturb.data.recording import read
from unperturb.errors import UnperturbError
from unperturb.infer.metrics import psnr
from unperturb.infer.restore import restore
from unperturb.model.checkpoint import bundled, load
from unperturb.model.machine import keep_freed_memory

LEVELS = (2, 3, 5, 7, 10)
"""The grid of single levels, of 255."""

Pair = tuple[Path, Path]


def pairs(folder: Path) -> list[Pair]:
    """Return the files of single shots, each with that of the mean of many."""
    found = sorted(file for file in folder.iterdir() if "_real." in file.name)
    return [(file, file.with_name(file.name.replace("_real.", "_mean."))) for file in found]


def decided(path: Path) -> Array:
    """Restore as `unperturb restore` does, with the model that it decides for."""
    recording = read(path)
    return restore(recording.as_float(), decide(path, recording).denoiser, channel_axis=-1)


def by(name: str) -> Callable[[Path], Array]:
    """Return what restores with one bundled model."""
    return lambda path: restore(read(path).as_float(), load(name), channel_axis=-1)


def colour_nlm(noisy: Array, sigma: float) -> Array:
    """Run OpenCV's fastNlMeansDenoisingColored with its recommended windows; h and hColor are sigma."""
    cv2 = need("cv2")
    levels = np.ascontiguousarray(np.rint(noisy * 255).clip(0, 255).astype(np.uint8)[..., ::-1])
    answer = cv2.fastNlMeansDenoisingColored(levels, None, 255 * sigma, 255 * sigma, 7, 21)[..., ::-1]
    return np.asarray(answer, dtype=np.float32) / np.float32(255)


Peer = Callable[[Array, float], Array]

PEERS: Mapping[str, Peer] = {"BM3D": bm3d, "OpenCV non-local means": colour_nlm}


def with_peer(peer: Peer, level: float | None, path: Path) -> Array:
    """Run a peer at a level, or at that which is found in the picture."""
    noisy = read(path).as_float()
    return peer(noisy, max(estimate_sigma(noisy, -1), 1e-3) if level is None else level)


def methods() -> dict[str, Callable[[Path], Array]]:
    """Return every row by its name, the peers once for each level."""
    rows: dict[str, Callable[[Path], Array]] = {"the picture itself": lambda path: read(path).as_float()}
    rows["unperturb restore"] = decided
    rows |= {f"by {name}": by(name) for name in ("natural", "photo") if name in bundled()}
    for name, peer in PEERS.items():
        rows[f"{name}, level estimated"] = functools.partial(with_peer, peer, None)
        rows |= {f"{name}, level {level}": functools.partial(with_peer, peer, level / 255) for level in LEVELS}
    return rows


def measure(
    chosen: Sequence[Pair], rows: Mapping[str, Callable[[Path], Array]]
) -> dict[str, tuple[list[float], float]]:
    """Return the PSNR of every picture in dB, and the seconds a megapixel, by row."""
    found = {}
    for name, method in rows.items():
        click.echo(name, err=True)
        scores, seconds, megapixels = [], 0.0, 0.0
        for noisy, clean in chosen:
            truth = read(clean).as_float()
            begin = time.perf_counter()
            answer = method(noisy)
            seconds += time.perf_counter() - begin
            megapixels += truth.shape[0] * truth.shape[1] / 1e6
            scores.append(psnr(truth, np.rint(answer.clip(0, 1) * 255) / 255))
        found[name] = (scores, seconds / megapixels)
    return found


def table(found: Mapping[str, tuple[list[float], float]]) -> str:
    """Return the measurements as Markdown; of the levels of a peer the best alone."""
    before = np.array(found["the picture itself"][0])
    kept = dict(found)
    for peer in PEERS:
        single = [name for name in kept if name.startswith(f"{peer}, level ") and name[-1].isdigit()]
        for name in sorted(single, key=lambda name: -np.mean(kept[name][0]))[1:]:
            del kept[name]
    lines = [
        "| method | PSNR in dB | better by | worse on | seconds a megapixel |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, (scores, seconds) in kept.items():
        gain = np.array(scores) - before
        worse = f"{(gain < -0.005).sum()} of {len(gain)}"
        lines.append(f"| {name} | {np.mean(scores):.2f} | {gain.mean():+.2f} | {worse} | {seconds:.2f} |")
    return "\n".join(lines)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), help="The most pictures, spread evenly over all there are.")
@click.option("--only", multiple=True, help="Measure what begins with this; may be repeated.")
@click.option("--cover", is_flag=True, help="Hold the intervals of `photo` against the truth as well.")
def main(folder: Path, limit: int | None, only: tuple[str, ...], cover: bool) -> None:
    """Measure, and print one table."""
    keep_freed_memory()
    every = pairs(folder)
    if not every:
        raise click.UsageError(f"there are no pairs NAME_real and NAME_mean in {folder}")
    count = min(limit or len(every), len(every))
    chosen = [every[place] for place in np.linspace(0, len(every) - 1, count).round().astype(int)]
    rows = {name: row for name, row in methods().items() if not only or name.startswith(("the picture", *only))}
    try:
        click.echo(table(measure(chosen, rows)))
    except UnperturbError as error:
        raise click.ClickException(str(error)) from None
    if cover:
        shares = [covered(read(clean).as_float(), read(noisy).as_float(), load("photo")) for noisy, clean in chosen]
        click.echo(f"intervals of photo cover {np.mean(shares):.3f} of 0.9, {min(shares):.3f} in the least picture")


if __name__ == "__main__":
    main()
