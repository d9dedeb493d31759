r"""A recording under noise of moving electrodes, restored, beside a band-pass filter and wavelets.

::

    unperturb fit quieter.hea -o drift.safetensors --network small --patch-size 2048 --part 0..0.1666 \
        --perturb "coloured:sigma=0..5,exponent=1..3,length=400..4000"
    python -m benchmarks.drift noisier.hea quieter.hea --apart 18 --model drift.safetensors --part 0.5..1

Both recordings are of one signal x with one noise n at two levels, a = x + n and b = x + g n, the second so many
decibels below the first; so x = (b − g a) / (1 − g). The noisier one is restored. What is slower than half a hertz is
not judged: the zero of a lead means nothing, and filters take it away. The filters are those, of a grid, that are best
on this very recording, lead by lead. Intervals are of what is judged: draws are filtered as errors are, and how many of
their spreads wide intervals have to be is measured on another part of the recording.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pywt
import torch
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from unperturb.data.signal import read
from unperturb.data.stretches import units_of
from unperturb.infer.conformal import conformal_scale
from unperturb.infer.interval import Drawing, pixel_spread
from unperturb.infer.observe import observe
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser

Samples = NDArray[np.float64]

SLOWEST = 0.5
"""Hertz, below which nothing is judged."""

LOWS, HIGHS = (0.5, 0.67, 1, 2, 3, 5, 8), (15, 25, 40, 60)
"""Ends of pass bands that are tried, in hertz."""

THRESHOLDS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Thresholds of wavelets that are tried, in robust standard deviations."""

LEVEL = 0.9
"""Of intervals."""

WINDOW, WINDOWS = 8192, 30
"""Samples of a window that intervals are measured in, and how many there are."""


def judged(values: Samples, rate: float) -> Samples:
    """Return a signal without what is slower than half a hertz."""
    return sosfiltfilt(butter(3, SLOWEST, "highpass", fs=rate, output="sos"), values)


def filtered(values: Samples, rate: float) -> Iterator[tuple[str, Samples]]:
    """Yield what filters make of a recording: a Butterworth band-pass, then soft thresholds on symlets, level by level.

    The threshold is in units of the median of a level's coefficients, or of that of the finest level times the
    "universal" factor (Donoho and Johnstone, 1994).
    """
    for low, high in product(LOWS, HIGHS):
        passed = sosfiltfilt(butter(3, [low, high], "bandpass", fs=rate, output="sos"), values)
        coarse, *fine = pywt.wavedec(passed, "sym8", level=7)
        own = [np.median(np.abs(level)) / 0.6745 for level in fine]
        universal = [own[-1] * np.sqrt(2 * np.log(len(values)))] * len(fine)
        for threshold, (name, units) in product(THRESHOLDS, (("level", own), ("universal", universal))):
            kept = [pywt.threshold(level, threshold * unit, "soft") for level, unit in zip(fine, units, strict=True)]
            yield f"{low:g}–{high:g} Hz, {threshold:g} × {name}", pywt.waverec([coarse, *kept], "sym8")[: len(values)]


@click.command()
@click.argument("noisier", type=click.Path(exists=True, path_type=Path))
@click.argument("quieter", type=click.Path(exists=True, path_type=Path))
@click.option("--apart", default=18.0, show_default=True, help="Decibels between the levels of their noise.")
@click.option("--model", required=True, help="A model of signals under coloured noise.")
@click.option("--calibrate", default="0.1666..0.5", show_default=True, help="The part to calibrate intervals on.")
@click.option("--part", default="0.5..1", show_default=True, help="The part to test on.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None, help="A JSON file for the figures.")
@click.option("--picture", type=click.Path(path_type=Path), default=None, help="A PNG file, of the first lead.")
def main(
    noisier: Path, quieter: Path, apart: float, model: str, output: Path | None, picture: Path | None, **parts: str
) -> None:
    """Measure, and print one line for each lead."""
    denoiser, gain = load(model), 10 ** (-apart / 20)
    told = []
    click.echo("| lead | noisy | filters | ours | dB | covered by 90 % | best filter |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    noisy, quiet = read(noisier), read(quieter)
    for ((name,), above), (_, below) in zip(noisy.planes(), quiet.planes(), strict=True):
        truth = (below.astype(np.float64) - gain * above) / (1 - gain)
        places = _places(above, parts["calibrate"], parts["part"])
        first, second = (Lead(above[place], truth[place], noisy.rate or 1.0) for place in places)
        told.append(measure(first, second, denoiser))
        row = told[-1]
        if picture is not None and len(told) == 1:
            draw(second, row, picture)
        click.echo(
            f"| {name} | {row['noisy']:.4f} | {row['filters']:.4f} | {row['ours']:.4f} | {row['dB']:.2f} | "
            f"{row['covered']:.3f} | {row['filter']} |"
        )
    ours, others = (np.sqrt(np.mean([row[key] ** 2 for row in told])) for key in ("ours", "filters"))
    covered = np.mean([row["covered"] for row in told])
    better = 20 * np.log10(others / ours)
    click.echo(f"all leads: ours {ours:.4f}, filters {others:.4f}, {better:.2f} dB; covered {covered:.3f}")
    if output is not None:
        kept = [{key: value for key, value in row.items() if not isinstance(value, np.ndarray)} for row in told]
        output.write_text(json.dumps(kept, indent=2, ensure_ascii=False))


def _places(values: NDArray[np.float32], *parts: str) -> Iterator[slice]:
    for part in parts:
        low, high = (round(float(each) * len(values)) for each in part.split(".."))
        yield slice(low, high)


@dataclass(frozen=True, eq=False)
class Lead:
    """A part of one lead: as recorded, as it is, and its sampling rate."""

    noisy: NDArray[np.float32]
    truth: Samples
    rate: float

    def error(self, found: Samples) -> float:
        """Return the root mean square error of what is judged."""
        return float(np.sqrt(np.mean(self.gap(found) ** 2)))

    def gap(self, found: Samples) -> Samples:
        """Return how far off a restoration is, sample by sample."""
        return judged(found - self.truth, self.rate)


def measure(first: Lead, second: Lead, denoiser: Denoiser) -> Mapping[str, Any]:
    """Return errors on the second part, in the units of the file; intervals are calibrated on the first."""
    wide = conformal_scale(scores(first, denoiser)[1], LEVEL)
    best, found = scores(second, denoiser)
    tried = filtered(second.noisy.astype(np.float64), second.rate)
    least, winner, passed = min(((second.error(made), name, made) for name, made in tried), key=lambda each: each[0])
    ours = second.error(best)
    return {
        "noisy": second.error(second.noisy.astype(np.float64)),
        "filters": least,
        "filter": winner,
        "ours": ours,
        "dB": 20 * np.log10(least / ours),
        "covered": float(np.mean(found <= wide)),
        "best": best,
        "passed": passed,
    }


def scores(lead: Lead, denoiser: Denoiser) -> tuple[Samples, Samples]:
    """Return the best guess, and in some windows how far off it is, in spreads of draws that were filtered alike."""
    units = units_of(lead.noisy)
    taken = units.taken(lead.noisy).astype(np.float32)
    best = units.given_back(observe(taken, denoiser, placed=True).posterior.mean[0, 0].numpy()).astype(np.float64)
    off, drawing = np.abs(lead.gap(best)), Drawing()
    found = []
    for start in np.linspace(0, len(taken) - WINDOW, WINDOWS).astype(int):
        posterior = observe(taken[start : start + WINDOW], denoiser, placed=True).posterior
        about = judged((drawing.draw(posterior) - posterior.mean).double().numpy(), lead.rate)
        spread = pixel_spread(posterior, posterior.mean + torch.from_numpy(about.copy()).float())[0, 0].numpy()
        middle = slice(WINDOW // 4, -WINDOW // 4)
        found.append(off[start : start + WINDOW][middle] / (spread * units.scale)[middle])
    return best, np.concatenate(found)


def draw(lead: Lead, row: Mapping[str, Any], path: Path) -> None:
    """Draw seven seconds in which the noise is strong: recording, what filters make of it, ours, and the truth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    length = round(7 * lead.rate)
    power = np.convolve(lead.gap(lead.noisy.astype(np.float64)) ** 2, np.ones(length), "valid")
    part = slice(int(power.argmax()), int(power.argmax()) + length)
    figure, axes = plt.subplots(3, 1, figsize=(9, 6), sharex=True, layout="constrained")
    truth = judged(lead.truth, lead.rate)[part]
    seconds = np.arange(length) / lead.rate
    for panel, (name, values, colour) in zip(
        axes,
        (
            ("recorded", lead.noisy.astype(np.float64), "#d97706"),
            (row["filter"], row["passed"], "#059669"),
            ("ours, the best guess", row["best"], "#dc2626"),
        ),
        strict=True,
    ):
        panel.plot(seconds, truth, color="#94a3b8", linewidth=2, label="truth")
        panel.plot(seconds, judged(values, lead.rate)[part], color=colour, linewidth=1, label=name)
        panel.legend(loc="upper right", fontsize=8)
        panel.set_ylabel("mV")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
