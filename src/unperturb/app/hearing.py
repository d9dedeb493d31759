"""From one file of a signal to what is known of its answer: a table of intervals, and a report that draws them."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.app.observing import Heard, Looking
from unperturb.app.outputs import Job
from unperturb.app.report import Section, page
from unperturb.app.traces import LEGEND, Trace, first_trace, named
from unperturb.atomic import make_folder, whole
from unperturb.data.digits import digits_of
from unperturb.data.signal import Signal
from unperturb.errors import ModelError
from unperturb.infer.interval import Calibration, Drawing, find_calibration, kind_of, level_of, pixel_spread
from unperturb.infer.posterior import Posterior
from unperturb.infer.statistic import PIXEL
from unperturb.model.denoiser import Denoiser

FloatArray = NDArray[np.floating[Any]]

LEVEL = 0.9
"""Of intervals where the model is not calibrated."""


@dataclass(frozen=True, eq=False)
class Told:
    """What was found about one channel.

    Attributes
    ----------
    trace
        To be drawn; its band holds the intervals.
    spread
        ``(T,)``: standard deviation of the draws around the best guess.
    calibrated
        Whether the intervals are those of the model's calibration.
    level
        Of the intervals.
    sigma
        Noise level in the units of the file; None where the model was told none.
    asked
        Boolean, ``(T,)``: where the answer is not simply what was seen: in the gaps, or everywhere.
    flat
        Whether the channel has one value wherever it was observed, and gets it in its gaps.
    """

    trace: Trace
    spread: FloatArray
    calibrated: bool
    level: float
    sigma: float | None
    asked: NDArray[np.bool_]
    flat: bool


@dataclass(frozen=True)
class Hearing:
    """How to find out what is uncertain about signals.

    Attributes
    ----------
    looking
        How files are looked at: model, noise level, what is missing.
    drawing
        How draws are made.
    seed
        Of the draws.
    overwrite
        Whether results may replace files.
    """

    looking: Looking
    drawing: Drawing = field(default_factory=Drawing)
    seed: int = 0
    overwrite: bool = False

    def __call__(self, job: Job, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Examine one file; the job's files are the table of intervals, and the report.

        Raises
        ------
        UnperturbError
            Where the file cannot be read, examined or written.
        """
        make_folder(job.target.parent)
        heard = self.looking.at(job.source)
        assert isinstance(heard, Heard)
        signal = heard.recording
        assert isinstance(signal, Signal)
        told = []
        for channel, (_, seen, sigma) in enumerate(heard.observations()):

            def show(done: int, total: int, channel: int = channel) -> None:
                if progress is not None:
                    progress(channel * total + done, len(signal.values) * total)

            draws = self.drawing.draw(seen.posterior, seed=self.seed, items=[channel], progress=show)
            told.append(self._told(heard, channel, seen.posterior, draws, sigma))
        with whole(job.target, overwrite=self.overwrite) as part:
            part.write_text(_rows(signal, told), encoding="utf-8")
        sentences = [sentence for each in told for sentence in _sentences(each)]
        if heard.note is not None:
            sentences.append(heard.note)
        sections = [Section(each.trace.name, LEGEND, [each.trace.whole(), *each.trace.views()]) for each in told]
        with whole(job.more[0], overwrite=self.overwrite) as part:
            about = f"{self.drawing.n_samples} draws of {self.drawing.steps} steps, seed {self.seed}"
            part.write_text(page(job.source.name, about, sentences, sections), encoding="utf-8")
        return {
            "input": str(job.source),
            "outputs": [str(job.target), str(job.more[0])],
            "verdict": sentences,
            "sigma": [each.sigma for each in told],
            "level": told[0].level,
            "calibrated": all(each.calibrated for each in told),
            "mean_std": [float(each.spread[each.asked].mean()) if each.asked.any() else 0.0 for each in told],
        }

    def _told(self, heard: Heard, channel: int, posterior: Posterior, draws: torch.Tensor, sigma: float | None) -> Told:
        spread = pixel_spread(posterior, draws)
        known = self._calibration(posterior)
        # Without a calibration draws are taken at their word: of n of them, as a forecast by Student's law would.
        scale = (
            _student(self.drawing.n_samples) if known is None else known.scale(level_of(posterior, known)).to(spread)
        )
        best, half = posterior.mean, scale * spread
        unit = heard.in_file_units((channel,), 1.0)
        trace = first_trace(heard, best[0, 0].numpy(), draws[:, 0, 0].numpy(), channel)
        asked = trace.missing if heard.keeps_observed else np.ones(trace.missing.shape, bool)
        width, deviation = (np.where(asked, each[0, 0].numpy() * unit, 0) for each in (half, spread))
        trace = replace(trace, band=(trace.best - width, trace.best + width))
        return Told(
            trace, deviation, known is not None, LEVEL if known is None else known.level, sigma, asked, unit == 0
        )

    def _calibration(self, posterior: Posterior) -> Calibration | None:
        if not isinstance(self.looking.denoise, Denoiser):
            return None
        try:
            found = find_calibration(self.looking.denoise.card, kind_of(posterior), PIXEL)
        except ModelError:
            return None
        return found if found.drawing == self.drawing and found.holds_at(level_of(posterior, found)) else None


def _student(n_draws: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, n_draws) * np.sqrt(1 + 1 / n_draws))


def _rows(signal: Signal, told: list[Told]) -> str:
    """Return the table as CSV: time, and of every channel the best guess, its deviation, and the interval."""
    head = ["sample" if signal.rate is None else "seconds"]
    columns: list[list[str]] = []
    for channel, each in enumerate(told):
        assert each.trace.band is not None
        name, _ = named(signal, channel)
        for what, values in (
            ("best", each.trace.best), ("std", each.spread), ("low", each.trace.band[0]), ("high", each.trace.band[1]),
        ):  # fmt: skip
            head.append(f"{name} {what}")
            digits = 7 if what == "std" else digits_of(each.trace.seen)
            columns.append([f"{value:.{digits}g}" for value in values])
    times = range(signal.values.shape[1])
    first = [str(at) if signal.rate is None else f"{at / signal.rate:.9g}" for at in times]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(zip(first, *columns, strict=True))
    return text.getvalue()


def _sentences(told: Told) -> list[str]:
    """Say in words what was found about a channel."""
    if not told.asked.any():
        return [f"{told.trace.name}: nothing is missing."]
    unit = f" {told.trace.unit}" if told.trace.unit else ""
    share = f"{told.level:.0%}"
    assert told.trace.band is not None
    width = float((told.trace.band[1] - told.trace.band[0])[told.asked].mean())
    if told.flat:  # nothing says how far its gaps might go
        return []
    where = "all samples" if told.asked.all() else f"the {int(told.asked.sum())} missing samples"
    noise = "" if told.sigma is None else f" White noise of {told.sigma:.3g}{unit} was taken away."
    trust = "" if told.calibrated else " The model is not calibrated for such draws: the draws are taken at their word."
    return [f"{told.trace.name}: over {where}, {share} intervals are {width:.3g}{unit} wide on average.{noise}{trust}"]
