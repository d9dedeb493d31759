"""WFDB records: an ECG or the like as PhysioNet keeps it, a text header beside its samples.

::

    118e06.hea     names, units, gain and baseline of each channel, sampling rate, remarks
    118e06.dat     the samples, integers packed in one of a dozen ways

The package ``wfdb`` (extra ``signals``) reads and writes both. Samples are kept as the integers that they are: a level
is ``gain · value + baseline``, the value in the unit that the header names, and the lowest level of a format says that
there is no sample.

What is written again has the samples, gain, baseline, format and remarks of what was read; checksums and first values
are made anew. What comes back in another form: the file of samples takes the name of the header (several of them stay
several, numbered), without bytes in front of the first sample; the formats 8, 61, 160, 310 and 311, which the package
cannot write, become 16 or 32; numbers may be spelt in another way (200 as 200.0).

Source: G. B. Moody, WFDB Applications Guide, header(5) and signal(5).
"""

import contextlib
import copy
import importlib
import math
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from unperturb.atomic import whole
from unperturb.data.recording import Array
from unperturb.data.signal import Levels, Signal, numbered
from unperturb.errors import FileError, UsageError

_BITS = {
    **dict.fromkeys(("80", "508"), 8),
    **dict.fromkeys(("310", "311"), 10),
    **dict.fromkeys(("212",), 12),
    **dict.fromkeys(("16", "61", "160", "516"), 16),
    **dict.fromkeys(("24", "524"), 24),
    **dict.fromkeys(("8", "32"), 32),
}
"""Bits of a sample, by the number of its format; differences (8) add up to 32."""

_WRITTEN_AS = {"8": "32", "61": "16", "160": "16", "310": "16", "311": "16"}

_PACKED = {"212", "310", "311"}
_PIECE = 2**18  # samples that are unpacked at once

_NEW_FORMAT, _NEW_BITS = "32", 30


def read(path: Path, time_axis: int | None) -> Signal:  # noqa: ARG001
    """Read a record by its header.

    Raises
    ------
    FileError
        A file of samples is missing or cut short, or the record has several parts, several rates, or no samples.
    UsageError
        The package ``wfdb`` is not installed.
    """
    wfdb = _wfdb()
    name = str(path.with_suffix("").absolute())
    header = _header(wfdb, name, path)
    _check(header, path)
    try:
        record, values = _samples(wfdb, name, header)
    except (ValueError, IndexError) as error:
        raise FileError(
            f"{path} has fewer samples than its header says: its .dat file is cut short; obtain it again."
        ) from error
    if values.size == 0:
        raise FileError(f"{path} holds no samples; record it again.")
    return Signal(
        values,
        "wfdb",
        rate=float(record.fs),
        names=tuple(name or "" for name in record.sig_name),
        units=tuple(unit or "mV" for unit in record.units),
        levels=tuple(map(_levels, record.fmt, record.adc_gain, record.baseline)),
        metadata={"wfdb": record},
    )


def write(signal: Signal, target: Path, *, overwrite: bool) -> None:
    """Write a record: its header and, beside it, its samples.

    Signals from other formats become 32-bit integers, by a gain that is a power of two and leaves 30 bits for the
    largest value of a channel; values lose what is smaller than that.

    Raises
    ------
    FileError
        The name has other characters than letters, digits, hyphens and underscores, the rate is not known, or a value
        is infinite.
    UsageError
        The package ``wfdb`` is not installed.
    """
    wfdb = _wfdb()
    if not re.fullmatch(r"[-\w]+", target.stem) or target.suffix != ".hea":
        raise FileError(f"{target} is no name for a WFDB record; use letters, digits, - and _, and the suffix .hea.")
    if signal.rate is None:
        raise FileError(f"{target} needs a sampling rate, and none is known; .npy and .csv do without.")
    carried = signal.metadata.get("wfdb")
    fits = carried is not None and carried.n_sig == len(signal.values) == len(signal.levels)
    record = _again(carried, signal, target.stem) if fits else _anew(wfdb, signal, target)
    names = [target.name, *dict.fromkeys(record.file_name)]
    with contextlib.ExitStack() as files:
        # What is entered last is published first: the samples, so that no header speaks of what is not there.
        lent = [files.enter_context(whole(target.with_name(name), overwrite=overwrite)) for name in names]
        folder = files.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=target.parent))
        with contextlib.redirect_stdout(None):
            record.wrsamp(write_dir=folder)
        for name, temporary in zip(names, lent, strict=True):
            Path(folder, name).replace(temporary)


def _wfdb() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("wfdb")
    except ImportError as error:
        raise UsageError(
            "WFDB records need wfdb, which comes with an extra: pip install 'unperturb[signals]'"
        ) from error


def _header(wfdb: Any, name: str, path: Path) -> Any:
    try:
        return wfdb.rdheader(name)
    except Exception as error:
        raise FileError(f"{path} is not the header of a WFDB record, or is damaged; obtain it again.") from error


def _check(header: Any, path: Path) -> None:
    """Refuse what cannot be read as one row of samples for each channel, with the mend."""
    if getattr(header, "n_seg", None):
        raise FileError(f"{path} is a record of {header.n_seg} parts, which is not supported; name the header of one.")
    if not header.n_sig:
        raise FileError(f"{path} is a record without signals; name one that has some.")
    if any(count not in {None, 1} for count in header.samps_per_frame):
        raise FileError(f"{path} has channels of several sampling rates; save each as a record of its own.")
    unknown = sorted({str(fmt) for fmt in header.fmt} - set(_BITS))
    if unknown:
        raise FileError(f"{path} has samples in format {unknown[0]}, which is not known; convert it to format 16.")
    for name in dict.fromkeys(header.file_name):
        if not path.with_name(name).is_file():
            raise FileError(f"{path} speaks of {name}, which does not lie beside it; obtain both files.")


def _samples(wfdb: Any, name: str, header: Any) -> tuple[Any, Array]:
    """Return the record without its samples, and those, ``(C, T)``: integers of 16 bits where these are enough.

    Packed samples are unpacked piece by piece, as that takes many times their memory.
    """
    bits = 32 if any(_BITS[fmt] > 16 for fmt in header.fmt) else 16
    how = {"physical": False, "ignore_skew": True, "return_res": bits}
    if not header.sig_len or not set(header.fmt) <= _PACKED:
        record = wfdb.rdrecord(name, **how)
        values: Array = record.d_signal.T
    else:
        values = np.empty((header.n_sig, header.sig_len), f"int{bits}")
        for start in range(0, header.sig_len, _PIECE):
            stop = min(start + _PIECE, header.sig_len)
            record = wfdb.rdrecord(name, sampfrom=start, sampto=stop, **how)
            values[:, start:stop] = record.d_signal.T
    record.d_signal = None
    return record, values


def _levels(fmt: str, gain: float, zero: float) -> Levels:
    """Return what the integers of a format mean; of its levels, the lowest says that there is no sample."""
    half = 2 ** (_BITS[fmt] - 1)
    if fmt == "8":
        return Levels(gain, zero, -half, half - 1)
    return Levels(gain, zero, 1 - half, half - 1, gap=-half)


def _again(carried: Any, signal: Signal, stem: str) -> Any:
    """Return the record that was read, with other samples and another name."""
    record = copy.deepcopy(carried)
    record.record_name, record.fs, record.sig_len = stem, signal.rate, signal.values.shape[1]
    record.sig_name = [name or None for name in signal.names or record.sig_name]
    record.units = list(signal.units or record.units)
    files = list(dict.fromkeys(record.file_name))
    numbers = [""] if len(files) == 1 else [f"_{number}" for number in range(1, len(files) + 1)]
    record.file_name = [f"{stem}{numbers[files.index(name)]}.dat" for name in record.file_name]
    record.fmt = [_WRITTEN_AS.get(fmt, fmt) for fmt in record.fmt]
    record.byte_offset = None
    values = signal.values.T.astype(np.int32 if any(_BITS[fmt] > 16 for fmt in record.fmt) else np.int16)
    for channel, (before, fmt) in enumerate(zip(signal.levels, record.fmt, strict=True)):
        after = _levels(fmt, before.gain, before.zero)
        if before.gap is not None and after.gap is not None:
            values[signal.values[channel] == before.gap, channel] = after.gap
    record.d_signal, record.init_value = values, [int(value) for value in values[0]]
    return record


def _anew(wfdb: Any, signal: Signal, target: Path) -> Any:
    """Return a record for a signal from another format."""
    values = signal.in_units()
    stored = np.empty((values.shape[1], len(values)), np.int32)
    gains = []
    for channel, plane in enumerate(values):
        floats = plane.astype(np.float64)
        gaps = np.isnan(floats)
        floats[gaps] = 0.0
        if np.isinf(floats).any():
            raise FileError(f"{target} cannot hold infinite values; replace them first.")
        # A gain that is a power of two loses nothing but what lies below the last bit.
        _, exponent = math.frexp(float(np.abs(floats).max()))
        gains.append(2.0 ** (_NEW_BITS - exponent))
        stored[:, channel] = np.rint(floats * gains[-1])
        stored[gaps, channel] = np.iinfo(np.int32).min
    n_channels = len(values)
    record = wfdb.Record(
        record_name=target.stem,
        n_sig=n_channels,
        fs=signal.rate,
        sig_len=len(stored),
        file_name=[f"{target.stem}.dat"] * n_channels,
        fmt=[_NEW_FORMAT] * n_channels,
        adc_gain=gains,
        baseline=[0] * n_channels,
        units=[re.sub(r"\s+", "_", unit) or "NU" for unit in signal.units or [""] * n_channels],
        sig_name=list(numbered(signal.names, n_channels)),
        d_signal=stored,
    )
    record.set_d_features()
    record.set_defaults()
    return record
