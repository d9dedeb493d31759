"""Which samples of a signal are missing, as people mark them, and how strong white noise is in the others.

A mark is "nan", for samples that are not a number (in a WFDB record the level that says so), or the name of a file with
as many channels and samples, in which those that are not zero are missing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.npy import read_flags
from unperturb.data.signal import Signal, read
from unperturb.errors import FileError

Mask = NDArray[np.bool_]

_DETAIL = np.array([-0.12940952255092145, -0.22414386804185735, 0.836516303737469, -0.48296291314469025])
"""High-pass filter of Daubechies' wavelet with two vanishing moments, of unit norm: it is blind to straight lines."""

_TO_SIGMA = 0.6744897501960817
"""Median of the absolute value of a standard normal number."""


def find_gaps(signal: Signal, mark: str, name: str | Path) -> Mask:
    """Return which samples are missing, ``(channel, sample)``.

    Parameters
    ----------
    signal
        The signal.
    mark
        As above.
    name
        What to call the signal in messages.

    Raises
    ------
    FileError
        Where a file of marks cannot be read or does not fit, or every sample of a channel is missing, or none at all.
    """
    missing = signal.missing if mark == "nan" else _marked(signal, Path(mark), name)
    if not missing.any():
        raise FileError(f"{name}: no sample is marked as missing by {mark}")
    if missing.all(1).any():
        raise FileError(f"{name}: channel {int(missing.all(1).argmax())} is missing as a whole; leave it out")
    return missing


def bridged(signal: Signal, missing: Mask) -> Signal:
    """Return a signal with each channel's first observed value in its gaps: what stood there is forgotten."""
    values = signal.values.copy()
    for channel, gaps in enumerate(missing):
        values[channel, gaps] = values[channel, int((~gaps).argmax())]
    return replace(signal, values=values)


def _marked(signal: Signal, path: Path, name: str | Path) -> Mask:
    if not path.exists():
        raise FileError(f"there is no file {path} of marks: --missing of a signal is such a file, or nan")
    flags = read_flags(path) if path.suffix.lower() == ".npy" else None
    marks = np.nan_to_num(read(path).values, nan=1.0) != 0 if flags is None else flags
    if marks.shape[1] != signal.values.shape[1] or len(marks) not in (1, len(signal.values)):
        raise FileError(
            f"the marks {path} do not fit {name}: they are {marks.shape[0]} × {marks.shape[1]}, the signal has "
            f"{signal.values.shape[0]} channels of {signal.values.shape[1]} samples"
        )
    return np.broadcast_to(marks, signal.values.shape).copy()


def estimate_white(values: NDArray[Any]) -> float:
    """Estimate the standard deviation of the white noise in one channel ``(T,)``, in its own units.

    From the median of the finest wavelet coefficients (Donoho and Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", 1994): a signal is seldom fast, noise always is. Slow noise, drift and hum, is not seen.
    """
    if len(values) < len(_DETAIL):
        return 0.0
    detail = np.convolve(values.astype(np.float64), _DETAIL, "valid")
    return float(np.median(np.abs(detail)) / _TO_SIGMA)
