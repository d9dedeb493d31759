"""From files to a diagnosis of their noise: what it is, as a spec that other commands take, and what follows from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.coloured import matching
from unperturb.data.diagnosis import Measured, NoiseCurve, measure_noise
from unperturb.data.faults import Faults, find_faults
from unperturb.data.listing import files_of
from unperturb.data.recording import read
from unperturb.errors import FileError, UsageError
from unperturb.model.perturbation import Composition, Gaussian, Perturbation, PoissonGaussian
from unperturb.model.spec import parse
from unperturb.model.stabilise import is_noise

Planes = list[NDArray[np.float32]]

MOST = 48
"""Files that are looked at, spread evenly over all."""

PLANES = 16
"""Planes of a stack that are looked at, spread evenly over all."""

SIDE = 1600
"""Pixels a side of every plane that are looked at, in its middle."""

CUT_OFF = 0.25
"""Share of the values of dark frames at their lowest from which on they say nothing."""

FAULTY = 3e-4
"""Share of faulty pixels from which on they are spoken of: texture has some that look like it."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found.

    Attributes
    ----------
    files, looked_at
        How many there are, and how many were looked at.
    noise, faults
        In units where white is 1 for files of integers, in their own for files of floats.
    white
        What 1 is in the files' own units.
    spec
        The perturbation, as other commands take it.
    advice
        Plain sentences.
    offset
        The value of no light, in the units of `noise`, which is that above it; None where no dark frame was given.
    """

    files: int
    looked_at: int
    noise: NoiseCurve
    faults: Faults
    white: float
    spec: str
    advice: tuple[str, ...]
    offset: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values only, ready for JSON."""
        noise, faults = self.noise, self.faults
        clipped = faults.dark + faults.bright
        return {
            "files": self.files,
            "looked_at": self.looked_at,
            "spec": self.spec,
            "heard": noise.heard,
            "sigma": _plain(noise.sigma),
            "gain": _plain(noise.gain),
            "read": _plain(noise.read),
            "offset": self.offset,
            "unevenness": _plain(noise.unevenness),
            "signal_dependent": noise.depends,
            "correlated": {
                "value": noise.correlated,
                "reach": noise.reach,
                "whiteness": None if noise.whiteness is None else _plain(noise.whiteness),
                "autocorrelation": noise.autocorrelation.tolist(),
            },
            "clipped": {"value": clipped, "dark": faults.dark, "bright": faults.bright, "is": faults.clipped},
            "faulty_pixels": faults.faulty,
            "missing": faults.missing,
            "rows": faults.rows,
            "columns": faults.columns,
            "jpeg": {"value": faults.compressed, "grid": faults.grid},
            "curve": {"brightness": noise.brightness.tolist(), "variance": noise.variance.tolist()},
            "advice": list(self.advice),
        }


def diagnose_files(
    inputs: Sequence[Path],
    again: Sequence[Path] = (),
    show: Callable[[int, int, str], None] = lambda *_: None,
    *,
    dark: Sequence[Path] = (),
    flat: Sequence[Path] = (),
    side: int = SIDE,
    intervals: bool = True,
) -> Diagnosis:
    """Diagnose the noise that files have in common.

    Parameters
    ----------
    inputs
        Image files and folders of images, all from one camera at one setting.
    again
        Second shots of the same, as many and in the same order.
    show
        Told files done, all there are, and the name of one.
    dark
        Frames without light, at the same setting: they tell the offset, and the noise of reading.
    flat
        Frames of something even: noise at one brightness more, without any texture.
    side
        Pixels a side of every plane that are looked at, in its middle.
    intervals
        As for `measure_noise`.

    Raises
    ------
    FileError
        Where there are no images, or one cannot be read, or they are of several kinds.
    UsageError
        Where they are too small, or second shots are not of the first, or dark frames are cut off at black, or
        brighter than the images.
    """
    files, seconds = files_of(inputs, once=False), files_of(again, once=False) if again else []
    if seconds and len(seconds) != len(files):
        raise UsageError(f"there are {len(files)} first shots and {len(seconds)} second ones; give two of each thing")
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST)).round().astype(int))
    planes: Planes = []
    others: Planes = []
    kinds = set()
    for number, index in enumerate(chosen):
        show(number, len(chosen), files[index].name)
        for shots, sources in ((planes, files), (others, seconds)):
            if sources:
                taken, kind = _planes(sources[index], side)
                shots.extend(taken)
                kinds.add(kind)
    darks, flats = (_frames(frames, side, kinds) for frames in (dark, flat))
    if len(kinds) > 1:
        raise FileError("the files are of several types or bit depths; diagnose those of one kind at a time")
    dtype, white = kinds.pop()
    whole = dtype[0] in "iu"
    offset, darks = _without_light(darks) if darks else (None, darks)
    if offset is not None and offset > np.median(np.concatenate([plane[np.isfinite(plane)] for plane in planes])):
        raise UsageError(
            "the dark frames are brighter than most of the images; are they of the same camera and setting?"
        )
    step = 1 / white if whole else 0.0
    measure = partial(measure_noise, step=step, intervals=intervals)
    noise = _measured(planes, others, [*darks, *flats], offset or 0.0, measure)
    # What is within a few steps of rounding is no fault, however little noise there is.
    strength = max(noise.sigma.value, 3 * step)
    faults = find_faults(planes, strength, (0.0, 1.0) if whole else None)
    spec = specified(noise, faults, offset)
    advice = advice_on(noise, faults, paired=bool(seconds))
    return Diagnosis(len(files), len(chosen), noise, faults, white, spec, advice, offset)


def _measured(
    planes: Planes, others: Planes, even: Planes, offset: float, measure: Callable[[Planes, Planes], NoiseCurve]
) -> NoiseCurve:
    """Measure noise above an offset, in planes with or without second shots, and in frames without texture."""
    # These are second shots of themselves, turned by a half.
    firsts, twins = [*planes, *even], [*others, *(plane[::-1, ::-1] for plane in even)] if others else []
    lit, again = ([plane - offset for plane in shots] for shots in (firsts, twins))
    noise = measure(lit, again)
    if not even:
        return noise
    # How strong it is over all is asked of the pictures.
    return replace(noise, sigma=measure(lit[: len(planes)], again[: len(planes)]).sigma)


def _frames(sources: Sequence[Path], side: int, kinds: set[tuple[str, float]]) -> Planes:
    """Return the planes of frames without texture, and add of what kind they are."""
    found: Planes = []
    for file in files_of(sources)[:MOST] if sources else []:
        taken, kind = _planes(file, side)
        found.extend(taken)
        kinds.add(kind)
    return found


def _without_light(darks: Planes) -> tuple[float, Planes]:
    """Return the value of no light, and the frames without what is far off it, as hot pixels are."""
    values = np.concatenate([plane[np.isfinite(plane)] for plane in darks])
    if not values.size or (values == values.min()).mean() > CUT_OFF:
        raise UsageError("the dark frames are cut off at black, or even: of their noise, half or all is missing")
    low, middle, high = np.quantile(values, (0.02, 0.5, 0.98))
    furthest = 6 * (high - low) / 4.1  # as of a normal distribution
    kept = np.abs(values - middle) <= furthest
    clean = [np.where(np.abs(plane - middle) <= furthest, plane, np.float32(np.nan)) for plane in darks]
    return float(values[kept].mean(dtype=np.float64)), clean


def noise_of(text: str) -> Perturbation:
    """Read the noise that a person has told.

    Raises
    ------
    UsageError
        Where the spec is of something else than noise, or leaves open how strong it is, or says that there is none.
    """
    process = parse(text)
    if not is_noise(process):
        first = text.split("+", maxsplit=1)[0].strip()
        hint = f"; {first} alone is noise" if isinstance(process, Composition) and is_noise(parse(first)) else ""
        raise UsageError(f"--noise is gaussian, poisson or poisson-gaussian, or auto; got {text!r}{hint}")
    if ".." in str(process):
        raise UsageError(f"{process} leaves open how strong the noise is; give one number for every level")
    return process


def noise_in(path: Path) -> Perturbation:
    """Return the noise of one file as a model of noise alone can be told: as strong at every brightness, or counted.

    Of noise that neighbours have in common, or that goes with brightness in another way, it is the strength alone.

    Raises
    ------
    UnperturbError
        Where the file cannot be read, or is too small.
    """
    return white_noise(diagnose_files([path]).noise)


def white_noise(noise: NoiseCurve) -> Gaussian | PoissonGaussian:
    """Return of what was measured as much as a model of white noise can be told."""
    if noise.grows and not noise.correlated:
        return counted(noise)
    return Gaussian(float(f"{noise.sigma.value:.4g}") if noise.heard else 0.0)


def counted(noise: NoiseCurve, offset: float | None = None) -> PoissonGaussian:
    """Return noise that grows with brightness; where it ends before brightness does, the offset is where it ends.

    Parameters
    ----------
    noise
        What was measured.
    offset
        What was taken away from all values before that, where it is known.
    """
    gain, read = noise.gain.value, noise.read.value
    ends = -noise.intercept.value / gain if noise.intercept.high < 0 and offset is None else offset or 0.0
    return PoissonGaussian(*(float(f"{level:.4g}") for level in (gain, read, ends)))


def specified(noise: NoiseCurve, faults: Faults, offset: float | None = None) -> str:
    """Return what was found as the spec of a perturbation."""
    if noise.correlated:
        exponent, length = matching(noise.autocorrelation)
        spec = f"coloured:sigma={noise.sigma.value:.4g},exponent={exponent:g},length={length:g}"
    elif noise.grows:
        spec = str(counted(noise, offset))
    else:
        spec = f"gaussian:sigma={noise.sigma.value:.4g}"
    if faults.faulty > FAULTY:
        spec += f" + impulse:fraction={faults.faulty:.2g}"
    return spec + (f" + erase:fraction={faults.missing:.2g}" if faults.missing > 0 else "")


def advice_on(noise: NoiseCurve, faults: Faults, *, paired: bool) -> tuple[str, ...]:
    """Return what follows from it, a sentence each."""
    told = []
    if not noise.heard:
        return ("There is no more noise than values are rounded to.", *_faults_told(faults))
    if noise.whiteness is None and not paired:
        told.append(
            "No place that is large enough is flat enough to tell whether neighbours have noise in common; give a second "
            "shot of the same with --again, or a larger picture of something even."
        )
    if noise.correlated:
        told.append(
            f"Neighbours have noise in common, up to {pixels(noise.reach)} apart. `natural` takes noise to be white and "
            "will leave blotches; blind-spot methods and those that compare neighbours will fail as well. For photographs "
            "there is `photo`; else train with this spec."
        )
    spec = "the first part of this spec" if faults.faulty > FAULTY else "this spec"
    if noise.grows and noise.correlated:
        told.append("It grows with brightness, which that spec does not say; no spec says both but `camera`.")
    elif noise.grows:
        told.append(
            "Noise grows with brightness. `natural` takes it to be equally strong everywhere: bright places will keep "
            "some, dark ones lose detail."
            + ("" if faults.missing else f" --noise with {spec} tells it how strong it is where.")
        )
        if noise.intercept.high < 0:
            told.append("It ends before brightness does, at the camera's offset.")
    elif noise.depends:
        told.append(
            "Noise is not equally strong at every brightness, and not as that of counting is: a tone curve, or "
            "compression. No spec says that but `camera`."
        )
    elif noise.whiteness is None:
        told.append("Noise is equally strong everywhere, as far as can be told.")
    elif not noise.correlated:
        told.append("Noise is white and equally strong everywhere, as far as can be told: `natural` fits.")
    return (*told, *_faults_told(faults))


def _faults_told(faults: Faults) -> tuple[str, ...]:
    told = []
    if faults.clipped:
        told.append(
            f"{faults.dark:.1%} of the pixels are at black and {faults.bright:.1%} at white; noise is less there, and "
            "its mean is not the signal."
        )
    if faults.faulty > FAULTY:
        told.append("Single pixels are far off all around them; --missing can mark them.")
    if max(faults.rows, faults.columns) > 0:
        worse = "Rows" if faults.rows >= faults.columns else "Columns"
        told.append(f"{worse} have an offset of their own; no model here takes that away.")
    if faults.compressed:
        told.append("There are traces of JPEG; what was compressed has noise that is neither white nor Gaussian.")
    if faults.missing:
        told.append(
            f"{faults.missing:.1%} of the values are missing; --missing nan fills them in, and takes noise away beside "
            "where --sigma says how strong it is. --noise is for files where nothing is missing."
        )
    return tuple(told)


def pixels(count: int) -> str:
    """Return a number of pixels in words."""
    return f"{count} pixel{'s' * (count != 1)}"


def _plain(measured: Measured) -> dict[str, float]:
    return {"value": measured.value, "low": measured.low, "high": measured.high}


def _planes(file: Path, most: int) -> tuple[Planes, tuple[str, float]]:
    """Return the middles of a file's planes and channels, of some of many; and its type, and what white is there."""
    recording = read(file)
    if recording.values.dtype == bool:
        raise FileError(f"{file} holds black and white alone, which says nothing of noise")
    count = max(1, int(np.prod(recording.stack_shape)))
    wanted = set(np.linspace(0, count - 1, min(count, PLANES)).round().astype(int).tolist())
    planes: Planes = []
    for number, (_, plane) in enumerate(recording.planes()):
        if number not in wanted:
            continue
        channels = np.moveaxis(plane, -1, 0) if recording.is_colour else plane[None]
        for channel in channels:
            middle = tuple(
                slice(max(0, (side - most) // 2), max(0, (side - most) // 2) + most) for side in channel.shape
            )
            planes.append(channel[middle].copy())
    return planes, (recording.values.dtype.str[1:], recording.full_scale)
