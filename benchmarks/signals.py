"""Gaps of a recording, filled in, beside classical interpolation.

::

    unperturb fit ecg.hea -o gaps.safetensors --network small --perturb "block:size=18..180,count=1..5" --part 0..0.5
    python -m benchmarks.signals ecg.hea --model gaps.safetensors --part 0.5..1 --gaps 200 --lengths 18..180

The gaps lie in a part of the recording that was not learned from, each in the middle of a window of its own. The error
is the root of the mean square over missing samples, in the units of the file; `dB` is how much better than the best of
the others that is.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from unperturb.data.signal import read
from unperturb.data.stretches import Units, units_of
from unperturb.infer.interval import find_calibration, kind_of, level_of, pixel_spread
from unperturb.infer.observe import observe
from unperturb.infer.statistic import PIXEL
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser

Samples = NDArray[np.floating[Any]]
Gaps = NDArray[np.bool_]

WINDOW = 2048
"""Samples around a gap that methods see."""

ORDER = 64
"""Of the autoregressive model."""


def line(values: Samples, missing: Gaps) -> Samples:
    """Span a gap by a straight line."""
    at = np.arange(len(values))
    return np.interp(at, at[~missing], values[~missing]).astype(np.float32)


def spline(values: Samples, missing: Gaps) -> Samples:
    """Span a gap by a cubic spline through all that is there."""
    from scipy.interpolate import CubicSpline

    at = np.arange(len(values))
    return CubicSpline(at[~missing], values[~missing])(at).astype(np.float32)


def autoregressive(values: Samples, missing: Gaps) -> Samples:
    """Fill a gap so that an autoregressive model of the window predicts it best, by turns three times.

    Janssen, Veldhuis and Vries, "Adaptive interpolation of discrete-time signals that can be modeled as autoregressive
    processes", 1986.
    """
    filled = line(values, missing).astype(np.float64)
    centre = filled[~missing].mean()
    filled -= centre
    unknown = np.flatnonzero(missing)
    for _ in range(3):
        past = np.lib.stride_tricks.sliding_window_view(filled[:-1], ORDER)[:, ::-1]
        ridge = 1e-6 * np.square(past).sum() / ORDER * np.eye(ORDER)
        weights = np.linalg.solve(past.T @ past + ridge, past.T @ filled[ORDER:])
        # Row n of the predictor's error is x_n − Σ a_k x_{n−k}: least squares over the unknown x.
        taps = np.concatenate([[1.0], -weights])
        rows = np.arange(max(unknown[0], ORDER), min(unknown[-1] + ORDER + 1, len(filled)))
        offsets = rows[:, None] - unknown[None]
        matrix = np.where((offsets >= 0) & (offsets <= ORDER), taps[offsets.clip(0, ORDER)], 0.0)
        known = np.where(missing, 0.0, filled)
        errors = np.array([taps @ known[row - np.arange(ORDER + 1)] for row in rows])
        filled[unknown] = np.linalg.lstsq(matrix, -errors, rcond=None)[0]
    return (filled + centre).astype(np.float32)


CLASSICAL: Mapping[str, Callable[[Samples, Gaps], Samples]] = {
    "line": line, "spline": spline, "autoregressive": autoregressive,
}  # fmt: skip


@click.command()
@click.argument("recording", type=click.Path(exists=True, path_type=Path))
@click.option("--model", required=True, help="A model of signals that fills in gaps.")
@click.option("--part", default="0.5..1", show_default=True, help="The part of the recording to test on.")
@click.option("--gaps", default=200, show_default=True, help="How many, in each channel.")
@click.option("--lengths", default="18..180", show_default=True, help="Of gaps, in samples.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None, help="A JSON file for the figures.")
def main(recording: Path, model: str, output: Path | None, **options: Any) -> None:
    """Measure, and print one line for each method."""
    told = measure(recording, load(model), **options)
    for name, value in told["rmse"].items():
        click.echo(f"| {name} | {value:.4f} |")
    for name, figure in told.items():
        if name != "rmse":
            click.echo(f"{name}: {figure:.3f}")
    if output is not None:
        output.write_text(json.dumps(told, indent=2))


def measure(recording: Path, denoiser: Denoiser, *, part: str, gaps: int, lengths: str, seed: int) -> dict[str, Any]:
    """Return what came of all methods."""
    low, high = (float(each) for each in part.split(".."))
    shortest, longest = (int(each) for each in lengths.split(".."))
    generator = np.random.default_rng(seed)
    squares: dict[str, list[Samples]] = {}
    covered, drawn, differ = [], [], []
    for _, plane in read(recording).planes():
        units = units_of(plane)
        for _ in range(gaps):
            start = int(generator.integers(round(low * len(plane)), round(high * len(plane)) - WINDOW))
            truth = plane[start : start + WINDOW]
            length = int(generator.integers(shortest, longest + 1))
            missing = np.zeros(WINDOW, bool)
            missing[(WINDOW - length) // 2 :][:length] = True
            values = np.where(missing, np.float32(0), truth)
            for name, fill in CLASSICAL.items():
                squares.setdefault(name, []).append(np.square(fill(values, missing) - truth)[missing])
            best, draws, half = _ours(denoiser, units, values, missing)
            squares.setdefault("ours", []).append(np.square(best - truth)[missing])
            covered.append((np.abs(best - truth) <= half)[missing])
            drawn.append(np.square(draws - truth)[:, missing].mean(0))
            differ.append(np.square(draws[0] - draws[1])[missing])
    rmse = {name: float(np.sqrt(np.concatenate(parts).mean())) for name, parts in squares.items()}
    best_other = min(value for name, value in rmse.items() if name != "ours")
    least = np.concatenate(squares["ours"]).mean()
    return {
        "rmse": rmse,
        "dB": 20 * np.log10(best_other / rmse["ours"]),
        "error of draws / of the best guess": float(np.concatenate(drawn).mean() / least),
        "difference of two draws / error of the best guess": float(np.concatenate(differ).mean() / least),
        "covered by 90 % intervals": float(np.concatenate(covered).mean()),
    }


def _ours(denoiser: Denoiser, units: Units, values: Samples, missing: Gaps) -> tuple[Samples, Samples, Samples]:
    """Return best guess, draws ``(draw, T)``, and half the width of 90 % intervals, in the units of the file."""
    seen = np.where(missing, 0, units.taken(values)).astype(np.float32)
    observation = observe(seen, denoiser, missing=missing, placed=True)
    posterior = observation.posterior
    calibration = find_calibration(denoiser.card, kind_of(posterior), PIXEL)
    draws = calibration.drawing.draw(posterior)
    half = calibration.scale(level_of(posterior, calibration)) * pixel_spread(posterior, draws)
    return (
        units.given_back(posterior.mean[0, 0].numpy()),
        units.given_back(draws[:, 0, 0].numpy()),
        (half[0, 0].numpy() * units.scale).astype(np.float32),
    )


if __name__ == "__main__":
    main()
