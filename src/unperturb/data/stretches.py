"""Clean stretches of signals for training: pieces of channels without gaps, each in units of its own channel.

A channel has an offset and a size that say little about it: where an electrode sits, what a microphone was set to. So
every channel is learned, and later restored, as

    (values − median) / scale,        scale: standard deviation of the channel

of what was observed. Noise levels of training are in these units.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.listing import once_each
from unperturb.data.signal import SUFFIXES, read
from unperturb.errors import FileError, TrainingError

FloatArray = NDArray[np.float32]

SIDES = (1024, 256, 64)
"""Lengths of the stretches to validate on: the largest that a signal has."""

PARTS = 20
"""Parts that each signal is cut into for holding out one of them."""


@dataclass(frozen=True)
class Units:
    """Where a channel lies, and how far it goes: 0 where it is nothing but its value."""

    offset: float
    scale: float

    def taken(self, values: NDArray[Any]) -> FloatArray:
        """Return values in these units."""
        return ((values.astype(np.float64) - self.offset) / (self.scale or 1.0)).astype(np.float32)

    def given_back(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return values in the units of their file: of a channel far from 0, 32 bits would not hold them."""
        return values.astype(np.float64) * self.scale + self.offset


def units_of(values: NDArray[Any]) -> Units:
    """Return the units of a channel; NaN where it has gaps."""
    observed = values[~np.isnan(values)].astype(np.float64)
    if not len(observed):
        return Units(0.0, 1.0)
    scale = float(observed.std())
    return Units(float(np.median(observed)), scale if scale > 0 and not is_flat(values) else 1.0)


def is_flat(values: NDArray[Any]) -> bool:
    """Return whether a channel, NaN where it has gaps, is the same wherever it was observed."""
    observed = values[~np.isnan(values)]
    return bool((observed == observed[:1]).all())


@dataclass(frozen=True, eq=False)
class Stretches:
    """Stretches of signals, of which crops are taken.

    Attributes
    ----------
    values
        Of each stretch, ``(T,)`` in units of its channel.
    held_out
        Of each, whether it is kept for validation.
    key
        Names what went in.
    dims, sides
        Axes of space, and of the crops to validate on.
    rates
        Samples a second of the signals, as far as they are known; rising, each once.
    """

    values: tuple[FloatArray, ...]
    held_out: tuple[bool, ...]
    key: str = ""
    dims: int = 1
    sides: tuple[int, ...] = SIDES
    rates: tuple[float, ...] = ()

    @property
    def ends(self) -> None:
        """Nothing: channels lie about 0."""

    def __len__(self) -> int:
        return len(self.values)

    def of(self, *, held_out: bool) -> "Stretches":
        """Return the stretches that are held out for validation, or all others."""
        return self._where([flag == held_out for flag in self.held_out])

    @property
    def largest(self) -> int:
        """Samples of the longest stretch; 0 where there is none."""
        return max(map(len, self.values), default=0)

    def at_least(self, size: int) -> "Stretches":
        """Return the stretches from which a crop of this size can be taken.

        Raises
        ------
        TrainingError
            Where there are none.
        """
        chosen = self._where([len(values) >= size for values in self.values])
        if not len(chosen):
            raise TrainingError(
                f"no stretch without a gap is at least {size} samples long; give longer signals or a smaller patch"
            )
        return chosen

    def crop(self, generator: np.random.Generator, size: int, *, gray: bool) -> FloatArray:  # noqa: ARG002 (as images)
        """Take one crop at random, ``(1, size)``, from a stretch drawn by its length."""
        lengths = np.array([len(values) - size + 1 for values in self.values], dtype=np.float64)
        values = self.values[int(generator.choice(len(lengths), p=lengths / lengths.sum()))]
        start = int(generator.integers(len(values) - size + 1))
        return values[None, start : start + size].copy()

    def centre(self, index: int, size: int, *, gray: bool) -> FloatArray:  # noqa: ARG002
        """Return the middle of one stretch, ``(1, size)``."""
        start = (len(self.values[index]) - size) // 2
        return self.values[index][None, start : start + size].copy()

    def pieces(self, count: int, size: int) -> list[FloatArray]:
        """Return at most so many pieces of at most this length, evenly over all stretches; ``(T,)`` each."""
        found = [
            values[start : start + size]
            for values in self.values
            for start in range(0, max(len(values) - size, 0) + 1, size)
        ]
        chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
        return [found[index] for index in chosen]

    def _where(self, chosen: Sequence[bool]) -> "Stretches":
        kept = [index for index, flag in enumerate(chosen) if flag]
        return replace(
            self,
            values=tuple(self.values[index] for index in kept),
            held_out=tuple(self.held_out[index] for index in kept),
        )


def are_signals(sources: Sequence[str | Path]) -> bool:
    """Whether these are files of signals: their suffixes say so."""
    return bool(sources) and all(Path(source).suffix.lower() in SUFFIXES for source in sources)


def open_stretches(sources: Sequence[str | Path], part: tuple[float, float] = (0.0, 1.0)) -> Stretches:
    """Read signals, and cut their channels into stretches without gaps.

    Parameters
    ----------
    sources
        Files.
    part
        Where the part of every signal begins and ends that is learned from, as shares of its length.

    Raises
    ------
    FileError
        Where one cannot be read, or holds an infinite value, or no channel of any changes.
    """
    values: list[FloatArray] = []
    held_out: list[bool] = []
    rates: set[float] = set()
    digest = hashlib.sha256(repr(part).encode())
    for source in once_each([Path(source) for source in sources]):
        signal = read(source)
        for (channel,), plane in signal.planes():
            if np.isinf(plane).any():
                raise FileError(f"{source} has infinite values in channel {channel}; replace them first")
            first, last = (round(share * len(plane)) for share in part)
            inside = plane[first:last]
            if np.nanmin(inside, initial=np.inf) >= np.nanmax(inside, initial=-np.inf):
                continue  # nothing is learned from one value, or none
            rates |= {signal.rate} if signal.rate else set()
            taken = units_of(plane).taken(plane[first:last])
            digest.update(taken.tobytes())
            cuts = np.linspace(0, len(taken), PARTS + 1).round().astype(int)
            middle = _held_out(taken, cuts)
            for start, stop, flag in (
                (0, cuts[middle], False), (cuts[middle], cuts[middle + 1], True), (cuts[middle + 1], len(taken), False),
            ):  # fmt: skip
                pieces = _without_gaps(taken[start:stop])
                values += pieces
                held_out += [flag] * len(pieces)
    if not values:
        of = f"{', '.join(map(str, sources))}" + ("" if part == (0.0, 1.0) else " in that part")
        raise FileError(f"no channel of {of} has values that change: there is nothing to learn from")
    return Stretches(tuple(values), tuple(held_out), digest.hexdigest()[:16], rates=tuple(sorted(rates)))


def _held_out(values: FloatArray, cuts: NDArray[np.int_]) -> int:
    """Return which part is kept for validation: the one nearest to the middle with about as long a stretch as any."""
    longest = [max(map(len, _without_gaps(values[start:stop])), default=0) for start, stop in pairwise(cuts.tolist())]
    enough = [part for part, length in enumerate(longest) if length >= 0.9 * max(longest)]
    return min(enough, key=lambda part: abs(part - PARTS // 2))


def _without_gaps(values: FloatArray) -> list[FloatArray]:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], np.isnan(values), [True]]).astype(np.int8)))
    return [values[start:stop] for start, stop in edges.reshape(-1, 2)]
