"""Noise that neighbours have in common: its spectrum, and how strong it is at which brightness.

Most of it is in low frequencies, where the picture is as well. But of noise that is alike everywhere, two cosines of a
patch are uncorrelated where the sum of the frequencies of one is even and that of the other odd: turned by 180 degrees
a patch is as likely as before, and one of the two changes its sign. So the flattest patches are chosen by odd sums, and
even ones are measured there, and the other way round: nothing is selected in what is measured. Of the mean and the
first frequencies gradients of light are a part everywhere; what a filter implies that has the others takes their place
(`completed`).

What texture is left in the flattest patches only adds. So groups whose energies scatter more than those of noise do not
count, as far as there are others, and the line runs along the lower edge of the points: it is an expectile (Newey and
Powell, "Asymmetric least squares estimation and testing", Econometrica 55, 1987).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unperturb.data.blocks import Blocks
from unperturb.data.noise import FREQUENCY
from unperturb.data.spectrum import LOWEST_ENDS, completed

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

_USED: Final = (FREQUENCY > 0) & (FREQUENCY < 9)
"""Filtered noise has next to nothing above, and there texture is as strong."""

_PARITIES: Final = ((FREQUENCY % 2 == 0), (FREQUENCY % 2 == 1))
_MEASURED: Final = _USED & (FREQUENCY >= LOWEST_ENDS)

_FEWEST: Final = 75
_SURE, _LIKELY = 1.2, 1.5
"""Scatter, in units of that of noise alone: the most where a spectrum is taken from, and where a strength is."""

_AGREE: Final = 3
"""Groups that a spectrum is taken from, and a strength, at least."""

_EXPECTILE: Final = 0.1
"""The weight of points above the line; those below it have the rest."""

_ROUNDS: Final = 3

ONE_BRIGHTNESS: Final = 1e-5
"""Brightness that differs by less, in units of the largest value, says nothing of how noise goes with it."""

_NOTHING: Final = 1e-60
_EVEN: Final = 1e-6
"""Groups with so much less energy than others are of patches without noise: filled in, or cut off."""


@dataclass(frozen=True, eq=False)
class InCommon:
    """The line variance = gain · brightness + intercept, the spectrum, of mean 1, and a point for each group."""

    gain: float
    intercept: float
    spectrum: Floats
    brightness: Floats
    variance: Floats
    count: Floats


def measure_in_common(
    patches: Blocks,
    places: list[Places],
    reached: NDArray[np.bool_],
    spectrum: Floats,
    line: tuple[float, float],
) -> InCommon:
    """Measure noise that is not white, from a first guess.

    Parameters
    ----------
    patches
        Of all planes.
    places
        Groups of patches of like brightness.
    reached
        ``(group,)``: those that have a floor.
    spectrum, line
        A first guess: ``(64,)``, and gain and intercept.
    """
    gain, intercept = line
    count = np.array([len(place) for place in places], np.float64)
    brightness = np.array([patches.mean[place].mean() for place in places])
    for _ in range(_ROUNDS):
        expected = gain * patches.mean + intercept
        least = 0.05 * float(np.abs(expected).mean()) + _NOTHING
        units = np.maximum(expected, least)
        found, scatter = _flattest(patches, places, units, spectrum)
        energy = found[:, _MEASURED].mean(1)
        noisy = energy > _EVEN * energy.max()
        known = scatter[noisy]
        sure = noisy & (scatter <= max(_SURE, float(np.sort(known)[min(_AGREE, len(known)) - 1])))
        spectrum = completed((found[sure] / energy[sure, None]).mean(0))
        level = (found[:, _MEASURED] / spectrum[_MEASURED]).mean(1) * spectrum.mean()
        variance = level * np.maximum(gain * brightness + intercept, least)
        likely = noisy & (scatter <= _LIKELY)
        used = likely if likely.sum() >= _AGREE else reached
        gain, intercept = fitted_line(brightness[used], variance[used], count[used], expectile=_EXPECTILE)
    spectrum /= spectrum.mean()
    return InCommon(gain, intercept, spectrum, brightness[used], variance[used], count[used])


def _flattest(patches: Blocks, places: list[Places], units: Floats, spectrum: Floats) -> tuple[Floats, Floats]:
    """Return the spectrum of every group where it is flattest, ``(group, 64)``, and its scatter, in units of noise's.

    Patches are chosen by their energies at one parity in units of what noise has there, and measured at the other.
    """
    weights = 1 / np.maximum(spectrum, 1e-3 * spectrum.max())
    by = np.stack([np.where(parity & _USED, weights, 0) / (parity & _USED).sum() for parity in _PARITIES], 1)
    flatness: NDArray[np.float32] = patches.energy @ by.astype(np.float32)
    found = np.zeros((len(places), len(FREQUENCY)))
    scatter = np.zeros(len(places))
    for number, place in enumerate(places):
        independent = max(1.0, patches.independent * len(place))
        count = int(min(len(place), max(_FEWEST, 4 * len(place) / np.sqrt(independent))))
        for parity, by_other in zip(_PARITIES, reversed(flatness.T), strict=True):
            told = by_other[place] / units[place]
            flat = place[np.argpartition(told, count - 1)[:count]]
            energy = patches.energy[flat] / units[flat, None]
            found[number, parity] = energy.mean(0)[parity]
            on = parity & _MEASURED
            alike = (energy[:, on] / np.maximum(found[number, on], _NOTHING)).mean(1)
            scatter[number] += float(alike.std()) / max(float(alike.mean()), _NOTHING) * np.sqrt(on.sum() / 2) / 2
    return found, scatter


def fitted_line(brightness: Floats, variance: Floats, count: Floats, *, expectile: float = 0.5) -> tuple[float, float]:
    """Return slope and intercept; points are weighted by their precision, which goes by the fitted variance.

    Parameters
    ----------
    brightness, variance, count
        ``(point,)``, and what each stands for.
    expectile
        The weight of points above the line, beside those below it: 0.5 is least squares, 0 the lower edge.
    """
    least = 1e-2 * float(variance.mean()) + _NOTHING
    expected, side = np.maximum(variance, least), np.ones(len(variance))
    slope = intercept = 0.0
    for _ in range(3 if expectile == 0.5 else 12):
        weight = count * side / np.square(expected)
        centre = np.average(brightness, weights=weight)
        spread = float(np.sum(weight * np.square(brightness - centre)))
        told = np.ptp(brightness) >= ONE_BRIGHTNESS
        slope = float(np.sum(weight * (brightness - centre) * variance)) / spread if told else 0.0
        intercept = float(np.average(variance, weights=weight)) - slope * float(centre)
        line = intercept + slope * brightness
        expected, side = np.maximum(line, least), np.where(variance > line, expectile, 1 - expectile)
    return slope, intercept
