"""Signals: 1-D recordings as stored (audio, ECG, sensor logs), the way to floats and the way back.

::

    read(path) ── Signal ── as_float ──> restoration ── with_float ──> Signal ── write(path)

A `Signal` is to a row of samples what a `Recording` is to a picture, and has the members by which restoration knows
that one: its planes are its channels, ``(T,)`` each. It is a class of its own because what makes samples numbers is
another thing here: a level of an ECG is so many millivolts, by a gain that each channel has for itself, and one level
says that there was no sample.

Of WAV files, integers become floats over their full range, [-1, 1). All other files are in their own units both ways:
an ECG in millivolts, an array or a table in what it holds. Integers go back by rounding and clipping. A sample that
comes back as the float that it was keeps its stored value, bit for bit, also where that has more digits than a 32-bit
float.

Read and write choose the format by suffix. A ``.csv`` is a signal here because a signal was asked for; tables are
read elsewhere.
"""

import contextlib
import dataclasses
import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from unperturb.data.opening import first_bytes
from unperturb.data.recording import Array, FloatArray, Index
from unperturb.errors import FileError, UnperturbError, UsageError

SUFFIXES = {".wav": "wav", ".npy": "npy", ".csv": "columns", ".tsv": "columns", ".hea": "wfdb_record"}
"""The suffixes that can be signals, and the module of each one's format."""

_LONG = ("int32", "int64", "uint32", "uint64", "float64")
_DTYPES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)


@dataclass(frozen=True)
class Levels:
    """What the integers of a channel mean: a level is ``gain · value + zero``, rounded, from `low` to `high`.

    Parameters
    ----------
    gain
        Levels for one unit.
    zero
        The level of the value 0.
    low, high
        The levels that a sample may have.
    gap
        The level that says that there is no sample; None where the format has none.
    """

    gain: float
    zero: float
    low: int
    high: int
    gap: int | None = None


@dataclass(frozen=True, eq=False)
class Signal:
    """Channels sampled at the same times, with all that their file said about them.

    Parameters
    ----------
    values
        ``(C, T)``: the samples as stored, integers or floats.
    format
        ``"wav"``, ``"npy"``, ``"csv"`` or ``"wfdb"``: what the file was.
    rate
        Samples a second; None where the file does not say.
    names, units
        Of the channels, as text; empty where the format has none.
    levels
        Of each channel, what its integers mean; empty where the values are in their own units.
    full_scale
        What one unit of the floats is in the file's own units: 32768 for a 16-bit WAV file; 1 where it is the same.
    metadata
        Under the name of a format, what only that format can put back.

    Raises
    ------
    UsageError
        The values are no channels of samples, or what is said about them does not fit them.
    """

    values: Array
    format: str = "npy"
    rate: float | None = None
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    levels: tuple[Levels, ...] = ()
    full_scale: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.size == 0:
            raise UsageError(f"a signal has the shape (channels, samples), not {self.values.shape}.")
        if self.values.dtype.name not in _DTYPES:
            raise UsageError(f"samples of type {self.values.dtype} are not supported; use one of {', '.join(_DTYPES)}.")
        if self.rate is not None and not (np.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"a sampling rate is a positive number of samples a second, not {self.rate}.")
        if self.levels and self.values.dtype.kind == "f":
            raise UsageError("only integers have levels; floats are in their own units.")
        for what, told in (("names", self.names), ("units", self.units), ("levels", self.levels)):
            if told and len(told) != len(self.values):
                raise UsageError(f"there are {len(told)} {what} for {len(self.values)} channels.")

    @property
    def axes(self) -> str:
        """``"CT"``: channels, which are restored one by one, and time."""
        return "CT"

    @property
    def is_colour(self) -> bool:
        """Whether the channels are colours of one picture: never."""
        return False

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """``(C,)``: how the planes, which are the channels, are counted."""
        return (len(self.values),)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """``(C, T)``, True where there is no sample: NaN in floats, the level of gaps in integers that have one."""
        if self.values.dtype.kind == "f":
            return cast(NDArray[np.bool_], np.isnan(self.values))
        gaps = np.zeros(self.values.shape, bool)
        for channel, levels in enumerate(self.levels):
            if levels.gap is not None:
                gaps[channel] = self.values[channel] == levels.gap
        return gaps

    def as_float(self) -> FloatArray:
        """Return ``(C, T)`` 32-bit floats, in [-1, 1) for integers of WAV files, in own units else, NaN in gaps."""
        return np.stack([self._to_float(channel, np.float32) for channel in range(len(self.values))])

    def with_float(self, values: Array) -> "Signal":
        """Return this signal with other values: the way back from `as_float`.

        Parameters
        ----------
        values
            ``(C, T)`` floats. Of an integer file they are rounded and clipped to the levels of each channel, NaN
            becoming the level of gaps; of a float file they are kept, in its type (what is beyond the range of that
            becomes its largest number). Samples whose float is what it was keep their stored value.

        Raises
        ------
        UsageError
            The shape is another, or values for an integer file are infinite, or NaN where it has no gaps.
        """
        if values.shape != self.values.shape:
            raise UsageError(f"the new values have shape {values.shape}, the signal has {self.values.shape}.")
        return self.with_planes(((channel,), plane) for channel, plane in enumerate(values))

    def planes(self) -> Iterator[tuple[Index, Array]]:
        """Yield the channels one at a time, ``(channel,)`` and ``(T,)`` floats as in `as_float`.

        They are 64-bit floats where samples have more digits than 32 bits hold.
        """
        dtype = np.float64 if self.values.dtype.name in _LONG else np.float32
        for channel in range(len(self.values)):
            yield (channel,), self._to_float(channel, dtype)

    def with_planes(self, planes: Iterable[tuple[Index, Array]]) -> "Signal":
        """Return this signal with other channels: the way back from `planes`, drawn from lazily.

        Raises
        ------
        UsageError
            A channel is missing, comes twice or has another length, or as in `with_float`.
        """
        result = np.empty_like(self.values)
        left = set(range(len(self.values)))
        for index, plane in planes:
            (channel,) = index
            if channel not in left:
                raise UsageError(f"channel {channel} came twice or is not among the {len(self.values)} of the signal.")
            if plane.shape != result[channel].shape:
                raise UsageError(f"channel {channel} has shape {plane.shape}, the signal's {result[channel].shape}.")
            left.remove(channel)
            result[channel] = self._to_stored(channel, plane)
        if left:
            raise UsageError(f"{len(left)} channels are missing, the first is {min(left)}.")
        return dataclasses.replace(self, values=result)

    def in_levels(self, channel: int, values: Array) -> Array:
        """Return values of a channel, as `planes` has them, in the units that its file shows: of WAV files, levels."""
        if self.full_scale == 1:
            return values
        levels = self._levels(channel)
        return levels.gain * values + levels.zero

    def in_units(self) -> Array:
        """Return ``(C, T)`` values for a file of another format: as stored where those are in their own units.

        Levels become 32-bit floats as in `as_float`, and 64-bit ones where integers have more digits than that.
        """
        if not self.levels:
            return self.values
        dtype = np.float32 if self.values.dtype.itemsize < 4 else np.float64
        return np.stack([self._to_float(channel, dtype) for channel in range(len(self.values))])

    def _levels(self, channel: int) -> Levels:
        if self.levels:
            return self.levels[channel]
        info = np.iinfo(self.values.dtype)
        return Levels(1.0, 0.0, int(info.min), int(info.max))

    def _to_float(self, channel: int, dtype: type[np.floating[Any]]) -> Array:
        stored = self.values[channel]
        # A 64-bit float may be beyond 32 bits; `check_finite` is what tells people, not a warning of numpy's.
        with np.errstate(over="ignore", invalid="ignore"):
            if stored.dtype.kind == "f":
                return stored.astype(dtype)
            levels = self._levels(channel)
            floats = ((stored.astype(np.float64) - levels.zero) / levels.gain).astype(dtype)
        if levels.gap is not None:
            floats[stored == levels.gap] = np.nan
        return floats

    def _to_stored(self, channel: int, plane: Array) -> Array:
        stored, before = self.values[channel], self._to_float(channel, np.float64)
        floats = np.asarray(plane, np.float64)
        unchanged = (floats == before) | (floats == self._to_float(channel, np.float32))
        unchanged |= np.isnan(floats) & np.isnan(before)
        if stored.dtype.kind == "f":
            limit = float(np.finfo(stored.dtype).max)
            inside = np.where(np.isfinite(floats), np.clip(floats, -limit, limit), floats)
            return np.where(unchanged, stored, inside.astype(stored.dtype))
        return np.where(unchanged, stored, _rounded(floats, self._levels(channel), stored.dtype))


def _rounded(floats: Array, levels: Levels, dtype: np.dtype[Any]) -> Array:
    """Return the levels of floats, clipped."""
    gaps = np.isnan(floats)
    if np.isinf(floats).any() or (levels.gap is None and gaps.any()):
        kinds = "infinity" if levels.gap is not None else "NaN or infinity"
        raise UsageError(f"values for integers of this format must be numbers; these hold {kinds}.")
    # The largest 64-bit integers are no 64-bit floats; the next float above is beyond them.
    high = float(levels.high)
    high = high if high <= levels.high else float(np.nextafter(high, 0.0))
    rounded = np.rint(np.where(gaps, 0.0, floats) * levels.gain + levels.zero)
    result: Array = np.clip(rounded, levels.low, high).astype(dtype)
    if levels.gap is not None:
        result[gaps] = levels.gap
    return result


def check_finite(signal: Signal, name: str | Path) -> None:
    """Refuse a signal with samples that are not finite: each would spread through all that is restored around it.

    Raises
    ------
    FileError
        Says how many samples are gaps, infinite or beyond 32-bit floats, and where the first one is (counted from 0).
    """
    count, first = 0, ""
    for channel, plane in enumerate(signal.as_float()):
        bad = ~np.isfinite(plane)
        if not first and bad.any():
            first = f"sample {int(bad.argmax())} of {numbered(signal.names, len(signal.values))[channel]}"
        count += int(bad.sum())
    if count:
        counted = "1 sample that is" if count == 1 else f"{count} samples that are"
        raise FileError(
            f"{name} has {counted} not finite (first at {first}, counted from 0); tell that gaps are missing, and "
            "replace infinity."
        )


class _Codec(Protocol):
    """What the module of a format provides."""

    def read(self, path: Path, time_axis: int | None) -> Signal: ...

    def write(self, signal: Signal, target: Path, *, overwrite: bool) -> None: ...


def _codec(path: Path) -> _Codec:
    """Import the module of the format that a suffix means."""
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        instead = "; name its .hea file" if path.suffix.lower() == ".dat" else f"; use one of {', '.join(SUFFIXES)}"
        raise FileError(f"{path} has no suffix that names a format of signals{instead}.")
    return cast(_Codec, importlib.import_module(f"unperturb.data.{name}"))


def read(path: str | Path, *, rate: float | None = None, time_axis: int | None = None) -> Signal:
    """Read a signal. Its format is told by its suffix.

    Parameters
    ----------
    path
        A WAV, ``.npy`` or CSV file (each column of numbers is a channel), or the ``.hea`` file of a WFDB record.
    rate
        Samples a second, of a file that does not say.
    time_axis
        Which axis of a ``.npy`` file is time. The longer one where None, and the last one of a square.

    Raises
    ------
    FileError
        The file is missing, damaged, not of its format, of a kind that is not supported, or too large for this machine.
    UsageError
        The file says another rate, or has no axes to choose from; or a package of the extra ``signals`` is missing.
    """
    path = Path(path)
    codec = _codec(path)
    if time_axis is not None and path.suffix.lower() != ".npy":
        raise UsageError(f"the axis of time can be told of .npy files alone, not of {path}.")
    first_bytes(path, "a signal")
    with _told(f"{path} cannot be read", "obtain the file again or save it anew"):
        signal = codec.read(path, time_axis)
    if rate is None:
        return signal
    if signal.rate is not None and not np.isclose(rate, signal.rate, rtol=1e-6):
        raise UsageError(f"{path} says that it has {signal.rate:g} samples a second, not {rate:g}; leave the rate out.")
    return signal if signal.rate is not None else dataclasses.replace(signal, rate=rate)


def write(signal: Signal, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a signal, whole or not at all. Its format is told by its suffix.

    Parameters
    ----------
    signal
        What to write. Where the format is the one it was read from, all returns: type, layout, names, and the rest of
        what the file said. In another format values are those of `Signal.in_units`.
    path
        The file to write, ending in one of `SUFFIXES`. Beside a ``.hea`` file lie its samples, as ``.dat``.
    overwrite
        Whether files that are there already may be replaced.

    Raises
    ------
    FileError
        The format cannot hold the signal, or the file cannot be written.
    UsageError
        A package of the extra ``signals`` is missing.
    """
    target = Path(path)
    codec = _codec(target)
    with _told(f"{target} could not be written", "try another format"):
        codec.write(signal, target, overwrite=overwrite)


@contextlib.contextmanager
def _told(what: str, mend: str) -> Iterator[None]:
    """Turn what decoders raise, whatever type comes to hand, into one sentence, and keep their warnings from people."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnperturbError:
        raise
    except MemoryError as error:
        raise FileError(f"{what}: memory is short; cut the signal into shorter ones.") from error
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise FileError(f"{what} ({reason}); {mend}.") from error


def numbered(names: Sequence[str], n_channels: int) -> tuple[str, ...]:
    """Return names of channels for a format that needs them: those there are, and ``channel 1`` … where none is."""
    return tuple(names) or tuple(f"channel {number}" for number in range(1, n_channels + 1))
