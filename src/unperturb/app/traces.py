"""Signals drawn as SVG: what was seen, the best guess, draws, the band of its intervals, gaps shaded."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.observing import Heard
from unperturb.app.report import Section, page
from unperturb.data.signal import Signal

FloatArray = NDArray[np.floating[Any]]

SHOWN = 600
"""Samples that a close view has at most."""

PLACES = 6
"""Close views of a report."""

_POINTS = 1200
"""Points of a line at most: where there are more samples, the least and the greatest of each part."""

_WIDTH, _HEIGHT, _PAD = 1080, 210, 34
_DRAW = 'stroke="#b0306a" stroke-width="0.8" opacity="0.55"'
_SEEN = 'stroke="#9aa1b3" stroke-width="1"'
_BEST = 'stroke="#2b4c9b" stroke-width="1.4"'


@dataclass(frozen=True, eq=False)
class Trace:
    """One channel, in the units of its file.

    Attributes
    ----------
    name, unit
        Of the channel.
    rate
        Samples a second; None where it is not known.
    seen
        ``(T,)``.
    missing
        Boolean, ``(T,)``.
    best
        ``(T,)``.
    draws
        ``(draw, T)``.
    band
        Lower and upper ends of intervals, both ``(T,)``; None where there are none.
    """

    name: str
    unit: str
    rate: float | None
    seen: FloatArray
    missing: NDArray[np.bool_]
    best: FloatArray
    draws: FloatArray
    band: tuple[FloatArray, FloatArray] | None = None

    def whole(self) -> str:
        """Draw all of it: what was seen, and the best guess."""
        return self._svg(slice(0, len(self.best)), f"{self.name}: all of it", draws=0)

    def views(self) -> list[str]:
        """Draw close views of the places where draws differ most, in the order of time."""
        spread = np.square(self.draws - self.best).mean(0)
        size = min(SHOWN, len(spread))
        starts: list[int] = []
        left = spread.astype(np.float64).copy()
        for _ in range(PLACES):
            middle = int(left.argmax())
            if left[middle] <= 0:
                break
            start = min(max(middle - size // 2, 0), len(spread) - size)
            starts.append(start)
            left[max(middle - size, 0) : middle + size] = 0
        return [self._svg(slice(start, start + size), "", draws=5) for start in sorted(starts)]

    def _svg(self, part: slice, caption: str, *, draws: int) -> str:
        best, drawn = self.best[part], self.draws[:draws, part]
        seen = np.where(self.missing[part], np.nan, self.seen[part])
        band = None if self.band is None or not draws else [side[part] for side in self.band]
        everything = np.concatenate([best, *drawn, seen[~np.isnan(seen)], *(band or [])])
        panel = _Panel(len(best), float(everything.min()), float(everything.max()))
        inside = "".join([
            *(panel.shade(first, last) for first, last in _runs(self.missing[part])),
            "" if band is None else panel.between(band[0], band[1]),
            *(panel.line(each, _DRAW) for each in drawn),
            panel.line(seen, _SEEN),
            panel.line(best, _BEST),
            panel.labels([self._time(part.start + at) for at in panel.marked]),
        ])  # fmt: skip
        words = html.escape(caption or f"{self.name}, {self._time(part.start)} to {self._time(part.stop)}", quote=True)
        unit = f" ({html.escape(self.unit)})" if self.unit else ""
        return (
            f'<figure style="width: 100%"><svg width="100%" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{words}">{inside}</svg><figcaption>{words}{unit}</figcaption></figure>'
        )

    def _time(self, sample: int) -> str:
        return f"sample {sample}" if self.rate is None else f"{sample / self.rate:.3f} s"


@dataclass(frozen=True)
class _Panel:
    """Where samples and values are in a picture: so many samples across, values from low to high."""

    count: int
    low: float
    high: float

    @property
    def marked(self) -> tuple[int, int, int]:
        """Samples that are labelled."""
        return 0, self.count // 2, self.count - 1

    def x(self, at: float) -> float:
        return _PAD + at / max(self.count - 1, 1) * (_WIDTH - 2 * _PAD)

    def y(self, value: float) -> float:
        return _HEIGHT - _PAD - (value - self.low) / ((self.high - self.low) or 1.0) * (_HEIGHT - 2 * _PAD)

    def points(self, at: Iterable[float], values: Iterable[float]) -> str:
        return " ".join(f"{self.x(a):.1f},{self.y(value):.1f}" for a, value in zip(at, values, strict=True))

    def line(self, values: FloatArray, style: str) -> str:
        """Draw values as lines, broken where they are NaN."""
        parts = []
        for first, last in _runs(~np.isnan(values)):
            at, heights = _thinned(values[first:last])
            points = self.points((first + a for a in at), heights)
            parts.append(f'<polyline points="{points}" fill="none" {style}/>')
        return "".join(parts)

    def shade(self, first: int, last: int) -> str:
        """Shade what is missing."""
        left, width = self.x(first - 0.5), max(self.x(last) - self.x(first), 1)
        return f'<rect x="{left:.1f}" y="{_PAD}" width="{width:.1f}" height="{_HEIGHT - 2 * _PAD}" fill="#f6e3ec"/>'

    def between(self, low: FloatArray, high: FloatArray) -> str:
        """Fill the band between two lines."""
        places = range(self.count)
        outline = self.points([*places, *reversed(places)], [*low, *high[::-1]])
        return f'<polygon points="{outline}" fill="#2b4c9b" opacity="0.16"/>'

    def labels(self, times: Sequence[str]) -> str:
        """Write times below, and the least and the greatest value on the left."""
        style = 'font-size="11" fill="#5b6275"'
        below = (
            f'<text x="{self.x(at):.1f}" y="{_HEIGHT - 12}" text-anchor="{anchor}" {style}>{text}</text>'
            for at, anchor, text in zip(self.marked, ("start", "middle", "end"), times, strict=True)
        )
        beside = (
            f'<text x="{_PAD - 4}" y="{self.y(value) + 4:.1f}" text-anchor="end" {style}>{value:.3g}</text>'
            for value in (self.low, self.high)
        )
        return "".join([*below, *beside])


LEGEND = (
    "Gray is what was seen, shaded are gaps, blue is the best guess, red are draws: what else it could have been. The "
    "pale band, where there is one, is made of the intervals."
)


def named(signal: Signal, channel: int) -> tuple[str, str]:
    """Return name and unit of a channel."""
    name = signal.names[channel] if signal.names else f"channel {channel + 1}"
    return name, signal.units[channel] if signal.units else ""


def draws_page(heard: Heard, best: FloatArray, draws: Sequence[FloatArray], name: str) -> str:
    """Return a page that shows draws of the first channel.

    Parameters
    ----------
    heard
        The signal as it was looked at.
    best, draws
        ``(T,)`` each, in units of the channel.
    name
        Of the file.
    """
    trace = first_trace(heard, best, np.stack(draws))
    return page(f"{name}: {len(draws)} draws", LEGEND, [], [Section(trace.name, "", [trace.whole(), *trace.views()])])


def first_trace(heard: Heard, best: FloatArray, draws: FloatArray, channel: int = 0) -> Trace:
    """Return a channel to be drawn, of a best guess and draws in units of the channel."""
    signal, units = heard.recording, heard.units[channel]
    assert isinstance(signal, Signal)
    seen = next(plane for index, plane in signal.planes() if index == (channel,))
    missing = np.zeros(seen.shape, bool) if heard.missing is None else heard.missing[channel]
    shown = (seen, units.given_back(best), units.given_back(draws))
    seen, found, others = (signal.in_levels(channel, each) for each in shown)
    if heard.keeps_observed:
        found, others = np.where(missing, found, seen), np.where(missing, others, seen)
    return Trace(*named(signal, channel), signal.rate, seen, missing, found, others)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _thinned(values: FloatArray) -> tuple[list[float], list[float]]:
    """Return places and heights of a line, few enough to be drawn, that looks like all of it."""
    if len(values) <= _POINTS:
        return list(map(float, range(len(values)))), [float(value) for value in values]
    cuts = np.linspace(0, len(values), _POINTS // 2 + 1).astype(int)
    at: list[float] = []
    heights: list[float] = []
    for first, last in pairwise(cuts):
        part = values[first:last]
        for place in sorted((int(part.argmin()), int(part.argmax()))):
            at.append(float(first + place))
            heights.append(float(part[place]))
    return at, heights
