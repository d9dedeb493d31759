"""Signals drawn as SVG: what was seen, the best guess, draws, the band of its intervals, gaps shaded."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unperturb.app.observing import Heard
from unperturb.app.report import Section, page
from unperturb.data.signal import Signal

FloatArray = NDArray[np.float32]

SHOWN = 600
"""Samples that a close view has at most."""

PLACES = 6
"""Close views of a report."""

_POINTS = 1200
"""Points of a line at most: where there are more samples, the least and the greatest of each part."""


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
        width, height, pad = 1080, 210, 34
        lines = [self.best[part], *self.draws[:draws, part]]
        seen = np.where(self.missing[part], np.nan, self.seen[part])
        band = None if self.band is None or not draws else [side[part] for side in self.band]
        everything = np.concatenate([*lines, seen[~np.isnan(seen)], *(band or [])])
        low, high = float(everything.min()), float(everything.max())
        count = len(self.best[part])

        def x(at: float) -> float:
            return pad + at / max(count - 1, 1) * (width - 2 * pad)

        def y(value: float) -> float:
            return height - pad - (value - low) / ((high - low) or 1.0) * (height - 2 * pad)

        def line(values: FloatArray, style: str) -> str:
            parts = []
            for first, last in _runs(~np.isnan(values)):
                at, heights = _thinned(values[first:last])
                points = " ".join(f"{x(first + a):.1f},{y(h):.1f}" for a, h in zip(at, heights, strict=True))
                parts.append(f'<polyline points="{points}" fill="none" {style}/>')
            return "".join(parts)

        shaded = "".join(
            f'<rect x="{x(first - 0.5):.1f}" y="{pad}" width="{max(x(last) - x(first), 1):.1f}" '
            f'height="{height - 2 * pad}" fill="#f6e3ec"/>'
            for first, last in _runs(self.missing[part])
        )
        drawn = "".join(line(each, 'stroke="#b0306a" stroke-width="0.8" opacity="0.55"') for each in lines[1:])
        if band is not None:
            at = [*range(count), *reversed(range(count))]
            heights = [*band[0], *band[1][::-1]]
            outline = " ".join(f"{x(a):.1f},{y(h):.1f}" for a, h in zip(at, heights, strict=True))
            drawn = f'<polygon points="{outline}" fill="#2b4c9b" opacity="0.16"/>' + drawn
        ticks = "".join(
            f'<text x="{x(at):.1f}" y="{height - 12}" text-anchor="{anchor}" font-size="11" fill="#5b6275">'
            f"{self._time(part.start + at)}</text>"
            for at, anchor in ((0, "start"), (count // 2, "middle"), (count - 1, "end"))
        ) + "".join(
            f'<text x="{pad - 4}" y="{y(value) + 4:.1f}" text-anchor="end" font-size="11" fill="#5b6275">{value:.3g}</text>'
            for value in (low, high)
        )
        words = html.escape(caption or f"{self.name}, {self._time(part.start)} to {self._time(part.stop)}", quote=True)
        unit = f" ({html.escape(self.unit)})" if self.unit else ""
        return (
            f'<figure style="width: 100%"><svg width="100%" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{words}">{shaded}{drawn}{line(seen, _SEEN)}{line(lines[0], _BEST)}{ticks}</svg>'
            f"<figcaption>{words}{unit}</figcaption></figure>"
        )

    def _time(self, sample: int) -> str:
        return f"sample {sample}" if self.rate is None else f"{sample / self.rate:.3f} s"


_SEEN = 'stroke="#9aa1b3" stroke-width="1"'
_BEST = 'stroke="#2b4c9b" stroke-width="1.4"'

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
    found, others = units.given_back(best), units.given_back(draws)
    if heard.missing is not None and not heard.looking.sigma:  # what is there stays as it is
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
