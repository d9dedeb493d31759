"""What noise is in recordings, from them alone: how strong at which brightness, and how far it reaches.

The noise of a sensor is that of counting and that of reading,

    variance(m) = gain · m + read²            m: brightness

and neighbours have it in common where it went through a demosaicking, a resizing or a filter. It is found in patches of
8 × 8 pixels, by their cosine transforms, in groups of like brightness:

- Where it is white, the crossing of `unperturb.data.noise` says its variance, among textures as well.
- Whether it is white, the flattest patches say. They are chosen by their low frequencies, so that nothing is selected
  in the others. Where the energies of their middle frequencies scatter as those of noise alone would (as χ² does), a
  floor is reached, and its spectrum is that of the noise; where they scatter more, it is texture, and says nothing.
- Where it is not white, its spectrum and strength are measured by themselves (`unperturb.data.in_common`).

The line through (m, variance) is fitted by weighted least squares, and runs along the lower edge of the points where
noise is not white. Intervals come from leaving out a tenth of all patches at a time (the jackknife: Efron and Stein,
1981), as blocks of space, so that patches that overlap go together.

Of two shots of the same thing the difference is noise alone, and patches are those of the difference.

Source: Foi, Trimeche, Katkovnik and Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for
single-image raw-data", IEEE TIP 2008, for the model and the idea to read it off flat places of every brightness.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unperturb.data.blocks import FOLDS, Blocks, above_rounding, cut
from unperturb.data.in_common import ONE_BRIGHTNESS, fitted_line, measure_in_common
from unperturb.data.noise import FREQUENCY, HIGH, MID, crossing, groups
from unperturb.data.spectrum import autocorrelation
from unperturb.errors import UsageError

Floats = NDArray[np.float64]

_BINS: Final = 16
_STEP: Final = 1.3
_NOTHING: Final = 1e-60  # a variance, and its square is still a number: compression can leave no high frequency at all
_LEAST: Final = 150
"""Patches that a group of like brightness holds, or it says nothing."""

_SCATTER: Final = 1.4
"""Energies on a floor scatter by so much more than those of noise at most."""

_FLATTEST: Final = 0.2
"""Share of a group that its flattest patches are at most, or they are not chosen out of many."""

_COMPRESSED: Final = 4.0
_NEVER_WHITE: Final = 0.3
"""Of noise that was compressed: the scatter at most, and the share of energy at the highest frequencies."""

_AGREE: Final = 3
"""Groups that reach a floor, or nothing is said of neighbours."""

_UNEVEN: Final = 0.4
"""Unevenness, also without any tenth of the patches, from which on noise is said to depend on the brightness, though
not as that of counting does."""

_WHITE: Final = 0.7
"""Noise whose highest frequencies have less than this share of the energy of its middle ones is not white."""

_ROUNDS: Final = 3
_LOW: Final = (FREQUENCY > 0) & ~MID & ~HIGH


@dataclass(frozen=True)
class Measured:
    """A number, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Measured":
        """Return it in other units."""
        return Measured(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, eq=False)
class NoiseCurve:
    """The noise of recordings.

    Attributes
    ----------
    heard
        Whether there is more of it than what values are rounded to.
    sigma
        Standard deviation over all patches; where neighbours have noise in common, over those of a brightness of which
        there are points.
    gain, read
        Of the line: variance a unit of brightness, and standard deviation at brightness 0. Where all there is is of one
        brightness, nothing is known of the gain.
    intercept
        Of the line: the variance at brightness 0, below 0 where noise ends before brightness does.
    unevenness
        Standard deviation of the logarithm of the variance over brightness: 0 where noise is equally strong everywhere.
    depends
        Whether it depends on the brightness, as that of counting or in another way.
    whiteness
        Energy of the highest frequencies over that of the middle ones, on the floor: 1 for white noise. None where no
        floor was reached.
    correlated
        Whether neighbours have it in common.
    autocorrelation
        ``(8,)``, at distances of 0 … 7 pixels along either axis; of white noise where no floor was reached.
    brightness, variance
        ``(group,)``: the points that the line goes through, or along whose lower edge where neighbours have noise in
        common.
    """

    heard: bool
    sigma: Measured
    gain: Measured
    read: Measured
    intercept: Measured
    unevenness: Measured
    depends: bool
    whiteness: Measured | None
    correlated: bool
    autocorrelation: Floats
    brightness: Floats
    variance: Floats

    @property
    def grows(self) -> bool:
        """Whether it grows with the brightness, as that of counting does."""
        return self.depends and self.gain.low > 0

    @property
    def reach(self) -> int:
        """The distance in pixels beyond which less than a tenth of the noise is in common; 0 for white noise."""
        above = np.flatnonzero(np.abs(self.autocorrelation) >= 0.1)
        return int(above[-1]) if self.correlated and len(above) else 0


def measure_noise(
    planes: Sequence[NDArray[Any]],
    again: Sequence[NDArray[Any]] = (),
    *,
    step: float = 0.0,
    intervals: bool = True,
) -> NoiseCurve:
    """Measure the noise of recordings that have it in common.

    Parameters
    ----------
    planes
        ``(height, width)`` each, real; NaN where something is missing. One of 48 pixels a side is enough, or several
        smaller ones. Patches in which anything is missing, or is at an end of its plane's range, are left out as far as
        there are others.
    again
        Second shots of the same, one for each, where there are any.
    step
        What the values are rounded to; noise below half of it is not told from rounding.
    intervals
        Whether to find out how sure all is, which takes four times as long. Without, intervals are of any width, and
        noise `depends` on brightness only where its curve is plainly uneven.

    Raises
    ------
    UsageError
        Where there are too few pixels, nothing but even ones, or something else than planes.
    """
    scale = _largest([*planes, *again])
    patches = above_rounding(cut(planes, again, scale), step / scale)
    folds = np.bincount(patches.fold, minlength=FOLDS)
    if len(patches.mean) - folds.max() < 2 * _LEAST:
        raise UsageError("there are too few pixels to tell what noise they have; give larger images, or more of them")
    full = _fitted(patches)
    heard = full.sigma > step / scale / 2
    parts = [_fitted(patches.without(fold)) for fold in np.flatnonzero(folds).tolist()] if intervals else []
    whiteness = None
    if full.whiteness is not None:
        known = [np.nan if part.whiteness is None else part.whiteness for part in parts]
        whiteness = _measured(full.whiteness, [full.whiteness if np.isnan(value) else value for value in known])
    gain = _measured(full.gain, [part.gain for part in parts]).times(scale)
    if np.ptp(full.brightness) < ONE_BRIGHTNESS:
        gain = Measured(0.0, -np.inf, np.inf)
    square = _measured(full.intercept, [part.intercept for part in parts])
    uneven = _measured(full.unevenness, [part.unevenness for part in parts])
    read = Measured(*(float(np.sqrt(max(value, 0.0))) for value in (square.value, square.low, square.high)))
    depends = gain.low > 0 or min([uneven.value, *(part.unevenness for part in parts)]) > _UNEVEN
    return NoiseCurve(
        heard=heard,
        sigma=_measured(full.sigma, [part.sigma for part in parts]).times(scale),
        gain=gain,
        read=read.times(scale),
        intercept=square.times(scale**2),
        unevenness=uneven,
        depends=heard and depends,
        whiteness=whiteness,
        correlated=heard and full.correlated,
        autocorrelation=autocorrelation(full.spectrum),
        brightness=full.brightness * scale,
        variance=full.variance * scale**2,
    )


def _largest(planes: Sequence[NDArray[Any]]) -> float:
    """Return the largest absolute value there is, 1 where there is none: numbers of any size are measured alike."""
    found = [float(np.abs(np.where(np.isfinite(plane), plane, 0)).max(initial=0.0)) for plane in planes]
    return max(found, default=0.0) or 1.0


@dataclass(frozen=True, eq=False)
class _Fit:
    sigma: float
    gain: float
    intercept: float
    unevenness: float
    whiteness: float | None
    correlated: bool
    spectrum: Floats
    brightness: Floats
    variance: Floats


def _fitted(patches: Blocks) -> _Fit:
    """Fit the curve to patches that are taken in units of the last fit, so that a group's noise is of one strength."""
    places = _alike(patches.mean)
    count = np.array([len(place) for place in places], np.float64)
    brightness = np.array([patches.mean[place].mean() for place in places])
    gain, intercept = 0.0, 1.0
    for _ in range(_ROUNDS):
        expected = gain * patches.mean + intercept
        least = 0.05 * float(np.abs(expected).mean()) + _NOTHING
        units = np.maximum(expected, least)
        floors = [_floor(patches, place, units[place]) for place in places]
        reached, whiteness = _reached(floors)
        spectrum = np.ones(len(FREQUENCY))
        if whiteness is not None:
            # Each in units of its own strength: it is the shape that they have in common.
            shapes = [
                floor / floor[MID].mean() for (floor, _), is_noise in zip(floors, reached, strict=True) if is_noise
            ]
            spectrum = np.mean(shapes, axis=0)
        correlated = whiteness is not None and whiteness < _WHITE
        if correlated:
            level = np.array([float(floor[MID].mean()) for floor, _ in floors])
            used = reached
        else:
            level = np.array([_white_variance(patches, place, units[place]) for place in places])
            used = np.ones(len(places), dtype=bool)
        variance = level * np.maximum(gain * brightness + intercept, least)
        gain, intercept = fitted_line(brightness[used], variance[used], count[used])
    brightness, variance, weight = brightness[used], variance[used], count[used]
    if correlated:
        found = measure_in_common(patches, places, reached, spectrum, (gain, intercept))
        gain, intercept, spectrum = found.gain, found.intercept, found.spectrum
        brightness, variance, weight = found.brightness, found.variance, found.count
    variance = np.maximum(variance, 1e-300)
    # Where noise is not white points lie above the line; and beyond them nothing is known of it.
    strength = np.clip(gain * brightness + intercept, 1e-300, variance) if correlated else variance
    logarithm = np.log(variance)
    unevenness = float(
        np.sqrt(np.average(np.square(logarithm - np.average(logarithm, weights=weight)), weights=weight))
    )
    sigma = math.sqrt(float(np.average(strength, weights=weight)))
    return _Fit(sigma, gain, intercept, unevenness, whiteness, correlated, spectrum, brightness, variance)


def _alike(brightness: Floats) -> list[NDArray[np.intp]]:
    """Return groups of patches whose noise is nearly of one strength, were it all from counting above the darkest."""
    bottom, top = np.quantile(brightness, (0.01, 0.99))
    which = np.searchsorted(bottom + (top - bottom) * _STEP ** np.arange(-_BINS, 0, dtype=float), brightness)
    found: list[NDArray[np.intp]] = []
    waiting = np.zeros(0, np.intp)
    for number in range(_BINS + 1):
        waiting = np.concatenate([waiting, np.flatnonzero(which == number)])
        if len(waiting) >= _LEAST:
            found.append(waiting)
            waiting = np.zeros(0, np.intp)
    if len(waiting) and found:
        found[-1] = np.concatenate([found[-1], waiting])
    return found or [waiting]


def _reached(floors: Sequence[tuple[Floats, float]]) -> tuple[NDArray[np.bool_], float | None]:
    """Say which groups have reached a floor, and how white the noise is there; None where too few have.

    Compression leaves noise that scatters more than noise, and as little as that at its highest frequencies as no
    texture does on white noise.
    """
    scatter = np.array([each for _, each in floors])
    for limit, whitest in ((_SCATTER, np.inf), (_COMPRESSED, _NEVER_WHITE)):
        reached = scatter < limit
        if reached.sum() >= min(_AGREE, len(floors)):
            shapes = [
                floor[HIGH].mean() / floor[MID].mean()
                for (floor, _), is_it in zip(floors, reached, strict=True)
                if is_it
            ]
            whiteness = float(np.median(shapes))
            if whiteness < whitest:
                return reached, whiteness
    return np.zeros(len(floors), dtype=bool), None


def _floor(patches: Blocks, place: NDArray[np.intp], units: Floats) -> tuple[Floats, float]:
    """Return the spectrum of the flattest patches of a group, and how much more they scatter than noise alone would."""
    low = patches.energy[place][:, _LOW].mean(1) / units
    independent = max(1.0, patches.independent * len(low))
    count = int(min(len(low), max(_LEAST / 2, 4 * len(low) / np.sqrt(independent))))
    chosen = np.argpartition(low, count - 1)[:count]
    flat = patches.energy[place[chosen]] / units[chosen, None]
    spectrum = flat.mean(0)
    mid = flat[:, MID].mean(1)
    share = spectrum[MID] / max(float(spectrum[MID].sum()), 1e-300)
    expected = np.sqrt(2 * float(np.square(share).sum()))
    scatter = float(mid.std()) / max(float(mid.mean()), 1e-300)
    told = count < _FLATTEST * len(low) and bool(spectrum[MID].min() > 0)
    return spectrum, scatter / expected if told else np.inf


def _white_variance(patches: Blocks, place: NDArray[np.intp], units: Floats) -> float:
    """Return the variance of white noise in a group, in its units."""
    mid, high = (patches.energy[place][:, band].mean(1) / units for band in (MID, HIGH))
    scale = max(float(mid.mean()), 1e-300)
    return scale * crossing(*groups(mid / scale, high / scale, max(1.0, patches.independent * len(mid))))


def _measured(value: float, without: Sequence[float]) -> Measured:
    """Return it with the interval that leaving out a fold at a time says; of any width where none was left out."""
    folds = len(without)
    if not folds:
        return Measured(value, -np.inf, np.inf)
    error = float(np.sqrt((folds - 1) / folds * np.sum(np.square(np.array(without) - np.mean(without)))))
    # The 97.5 % point of Student's distribution with nine degrees of freedom.
    return Measured(value, value - 2.26 * error, value + 2.26 * error)
