"""From a file of an image or a signal to what is asked of it: each of its planes, or channels, as a `Posterior`."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.deciding import decide
from unperturb.app.diagnosing import noise_in
from unperturb.data import signal as signals
from unperturb.data.gaps import bridged, find_gaps
from unperturb.data.missing import Mask, blanked, find_missing
from unperturb.data.noise import estimate_white
from unperturb.data.recording import Index, Recording, check_finite, read
from unperturb.data.signal import Signal
from unperturb.data.stretches import Units, are_signals, is_flat, units_of
from unperturb.errors import ModelError, UsageError
from unperturb.infer.condition import caveat
from unperturb.infer.observe import Observation, as_sigma, is_conditional, observe
from unperturb.infer.tiled import Compute
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.level import highest
from unperturb.model.network import UNetSettings
from unperturb.model.perturbation import Choice, Composition, Gaussian, Perturbation
from unperturb.model.stabilise import is_noise
from unperturb.train.noisy import NOISY

SAME_RATE = 0.01
"""By how much a sampling rate may be another one, as a share, and be the same."""


def check_mean(denoise: Denoise) -> None:
    """Refuse a model whose answer is not the posterior mean: draws and covariances are made of means.

    Raises
    ------
    ModelError
        Where it was trained with another objective than the squared error.
    """
    objective = denoise.card.recipe.get("objective", "squared") if isinstance(denoise, Denoiser) else "squared"
    if objective not in ("squared", *NOISY):
        raise ModelError(
            f"this model was trained with {objective} error, so that its answer is no mean, and nothing but restoring can "
            "be done with it; train one with squared error"
        )


def check_sigma(recording: Recording | Signal, sigma: float | None) -> None:
    """Refuse a noise level that cannot be meant.

    Raises
    ------
    UsageError
        Where it is larger than the whole range of a float file's values, of its widest channel in a signal, or than
        all that a file of integers can hold.
    """
    if sigma is None:
        return
    if recording.values.dtype.kind in "iu":
        ends = np.iinfo(recording.values.dtype)
        extent, what = float(ends.max) - float(ends.min), f"all that {recording.values.dtype} can hold"
    elif recording.values.dtype.kind == "f":
        axis = 1 if isinstance(recording, Signal) else None
        extent = np.max(np.nanmax(recording.values, axis) - np.nanmin(recording.values, axis))
        what = f"the whole range of a float file's values, {extent:g}"
    else:
        return
    if sigma > extent:
        raise UsageError(f"sigma {sigma:g} is larger than {what}; it is in the units of the file")


def check_spec(recording: Recording, perturbation: Perturbation | None) -> None:
    """Refuse a perturbation whose white noise cannot be meant.

    Raises
    ------
    UsageError
        Where it is larger than from black to white, in files of integers; else as for `check_sigma`.
    """
    for sigma in [] if perturbation is None else white_levels(perturbation):
        check_sigma(recording, sigma)
        if recording.values.dtype.kind != "f" and sigma > 1:
            raise UsageError(
                f"gaussian:sigma={sigma:g} is more than from black to white; in a perturbation white is 1, so that 15 of "
                "255 is 0.059"
            )


def white_levels(perturbation: Perturbation) -> list[float]:
    """Return the largest level of every white Gaussian noise in a perturbation."""
    if isinstance(perturbation, Choice | Composition):
        return [level for part in perturbation.parts for level in white_levels(part)]
    return [highest(perturbation.sigma)] if isinstance(perturbation, Gaussian) else []


@dataclass(frozen=True)
class Looking:
    """How files are looked at.

    Attributes
    ----------
    denoise
        The denoiser.
    sigma
        Noise level in the units of the file; None to estimate it for every plane, and for what is observed of files with
        missing pixels: none.
    missing
        How missing pixels are marked (`unperturb.data.missing`), or None where none is.
    perturbation
        What was done to the files, where it is known; for a model of noise alone.
    compute
        How to compute.
    diagnosed
        Whether to find out of every file by itself what noise is in it (`unperturb.app.diagnosing`).
    choosing
        Whether to find out of every photograph by itself which bundled model fits (`unperturb.app.deciding`).
    why
        Why this model, where it was found out.
    """

    denoise: Denoise
    sigma: float | None = None
    missing: str | None = None
    perturbation: Perturbation | None = None
    compute: Compute = field(default_factory=Compute)
    diagnosed: bool = False
    choosing: bool = False
    why: str | None = None

    @property
    def undoes(self) -> bool:
        """Whether something is undone in what was observed as well."""
        return self.perturbation is not None and not is_conditional(self.denoise)

    @property
    def caveat(self) -> str | None:
        """What has to be said of answers that are approximate; None where they are not."""
        plain = self.missing is None and (self.perturbation is None or is_noise(self.perturbation))
        return None if plain or is_conditional(self.denoise) else caveat()

    def at(self, path: Path) -> "Seen":
        """Read a file.

        Raises
        ------
        UnperturbError
            Where it cannot be read, or not so.
        """
        is_signal = are_signals([path])
        _check_dims(self.denoise, 1 if is_signal else 2, path)
        return self._heard(path) if is_signal else self._seen(path)

    def _seen(self, path: Path) -> "Seen":
        if self.diagnosed:
            return dataclasses.replace(self, perturbation=noise_in(path), diagnosed=False)._seen(path)
        recording = read(path)
        looking = self
        if self.choosing:
            found = decide(path, recording)
            looking = dataclasses.replace(
                self, denoise=found.denoiser, choosing=False, why=f"{found.model}: {found.why}"
            )
        missing = None
        if self.missing is None:
            check_finite(recording, path)
        else:
            missing = find_missing(recording, self.missing, path)
            recording = blanked(recording, missing)
            check_finite(recording, path)
        check_sigma(recording, self.sigma)
        check_spec(recording, self.perturbation)
        return Seen(looking, recording, missing)

    def _heard(self, path: Path) -> "Heard":
        signal = signals.read(path)
        missing = None
        if self.missing is not None:
            missing = find_gaps(signal, self.missing, path)
            signal = bridged(signal, missing)
        signals.check_finite(signal, path)
        check_sigma(signal, self.sigma)
        gaps = np.zeros(signal.values.shape, bool) if missing is None else missing
        seen = [np.where(gone, np.nan, plane) for gone, (_, plane) in zip(gaps, signal.planes(), strict=True)]
        heard = Heard(self, signal, missing, tuple(map(units_of, seen)))
        if not heard.keeps_observed:
            return heard
        # How far gaps go is measured in how far the rest goes: of nothing there is nothing.
        units = [
            Units(mine.offset, 0.0) if gone.any() and is_flat(each) else mine
            for mine, gone, each in zip(heard.units, gaps, seen, strict=True)
        ]
        return dataclasses.replace(heard, units=tuple(units))


@dataclass(frozen=True, eq=False)
class Seen:
    """A file as it was looked at; hidden values are forgotten already.

    Attributes
    ----------
    looking
        How.
    recording
        What is in the file; 0 where pixels are missing.
    missing
        Which those are, of the shape of the values without their axis of colour; None where none is.
    """

    looking: Looking
    recording: Recording | Signal
    missing: Mask | None = None

    @property
    def channel_axis(self) -> int | None:
        """The axis of colour of a plane."""
        return -1 if self.recording.is_colour else None

    @property
    def keeps_observed(self) -> bool:
        """Whether only what is missing is answered, and all else comes back as it is."""
        return self.missing is not None and not (self.looking.sigma or self.looking.undoes)

    @property
    def note(self) -> str | None:
        """What has to be said of the file, whatever is asked about it; None where nothing has to be."""
        return self.looking.caveat

    def planes(self) -> Iterator[tuple[Index, NDArray[np.float32], Mask | None, float | None]]:
        """Yield index and values of every plane, what is missing of it, and its noise level in units of those values.

        The level is None where the model finds out by itself.
        """
        for index, plane in self.recording.planes():
            missing = None if self.missing is None else self.missing[index]
            yield index, plane, missing, self._level(plane)

    def observations(self) -> Iterator[tuple[Index, Observation, float | None]]:
        """Yield index and observation of every plane, and its noise level in the units of the file."""
        for index, plane, missing, level in self.planes():
            observation = observe(
                plane,
                self.looking.denoise,
                level,
                channel_axis=self.channel_axis,
                missing=missing,
                perturbation=self.looking.perturbation,
                compute=self.looking.compute,
                placed=True,
            )
            yield index, observation, None if level is None else self.in_file_units(index, level)

    def in_file_units(self, index: Index, level: float) -> float:  # noqa: ARG002 (of images all planes have one unit)
        """Return a noise level of a plane in the units of the file."""
        return float(level * self.recording.full_scale)

    def answered(self, planes: Iterable[tuple[Index, NDArray[Any]]]) -> Recording | Signal:
        """Return the recording with answers for its planes; where pixels are missing, the others stay as they were."""
        answer = self.recording.with_planes(planes)
        if self.missing is None or not self.keeps_observed:
            return answer
        values = answer.values.copy()
        values[~self.missing] = self.recording.values[~self.missing]
        return dataclasses.replace(answer, values=values)

    def _level(self, plane: NDArray[np.float32]) -> float | None:
        """Return the noise level of a plane, in the units of its values."""
        known = self.looking.sigma
        if known is not None:
            return known / self.recording.full_scale
        if self.missing is not None or self.looking.perturbation is not None or is_conditional(self.looking.denoise):
            return None
        return as_sigma(plane, self.channel_axis, None)


@dataclass(frozen=True, eq=False)
class Heard(Seen):
    """A signal as it was looked at: each channel in units of its own.

    Attributes
    ----------
    looking, recording, missing
        As of `Seen`; the missing samples of a channel hold one of its observed values.
    units
        Of every channel.
    """

    units: tuple[Units, ...] = ()

    def planes(self) -> Iterator[tuple[Index, NDArray[np.float32], Mask | None, float | None]]:
        """Yield every channel in its own units."""
        for index, plane in self.recording.planes():
            units = self.units[index[0]]
            taken = units.taken(plane)
            yield index, taken, None if self.missing is None else self.missing[index], self._level_of(taken, units)

    @property
    def note(self) -> str | None:
        """What has to be said: also of channels that do not vary, and of another rate than was learned."""
        told = [self._flat(), self._rate(), self.looking.caveat]
        return "; ".join(each for each in told if each is not None) or None

    def _flat(self) -> str | None:
        """Say which channels do not vary."""
        assert isinstance(self.recording, Signal)
        names = signals.numbered(self.recording.names, len(self.units))
        flat = [name for name, units in zip(names, self.units, strict=True) if units.scale == 0]
        if not flat:
            return None
        return (
            f"{', '.join(flat)}: one value wherever it was observed; gaps get that value, and how far they might go "
            "from it cannot be told"
        )

    def _rate(self) -> str | None:
        """Say where the model has learned at other rates: a shape of so many samples is another one then."""
        assert isinstance(self.recording, Signal)
        rate, denoise = self.recording.rate, self.looking.denoise
        known = denoise.card.rates if isinstance(denoise, Denoiser) else ()
        if rate is None or not known or any(abs(rate / each - 1) < SAME_RATE for each in known):
            return None
        learned = " and ".join(f"{each:g}" for each in known)
        return (
            f"sampled {rate:g} times a second, and the model has learned at {learned}: what it makes of it may be wrong"
        )

    def in_file_units(self, index: Index, level: float) -> float:
        """Return a noise level of a channel in the units of the file."""
        return float(level * self.units[index[0]].scale * self.recording.full_scale)

    def answered(self, planes: Iterable[tuple[Index, NDArray[Any]]]) -> Recording | Signal:
        """Return the signal with answers for its channels; where samples are missing, the others stay as they were."""
        return super().answered((index, self.units[index[0]].given_back(plane)) for index, plane in planes)

    def _level_of(self, taken: NDArray[np.float32], units: Units) -> float | None:
        known = self.looking.sigma
        if known is not None:
            return known / self.recording.full_scale / (units.scale or 1.0)
        if self.missing is not None or self.looking.perturbation is not None or is_conditional(self.looking.denoise):
            return None
        return estimate_white(taken)


def _check_dims(denoise: Denoise, dims: int, path: Path) -> None:
    """Refuse a model of images for signals, and the other way round.

    Raises
    ------
    ModelError
        Where the model is not for that.
    """
    settings = denoise.card.network if isinstance(denoise, Denoiser) else None
    if isinstance(settings, UNetSettings) and settings.dims != dims:
        kind, other = ("a signal", "images") if dims == 1 else ("an image", "signals")
        raise ModelError(
            f"{path} is {kind}, and the model is for {other}; train one with unperturb fit, and give it by --model"
        )
