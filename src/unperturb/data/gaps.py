"""Which samples of a signal are missing, as people mark them.

A mark is "nan", for samples that are not a number (in a WFDB record the level that says so), or the name of a file with
as many channels and samples, in which those that are not zero are missing.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unperturb.data.npy import read_flags
from unperturb.data.signal import Signal, numbered, read
from unperturb.errors import FileError

Mask = NDArray[np.bool_]


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
        channel = numbered(signal.names, len(missing))[int(missing.all(1).argmax())]
        raise FileError(f"{name}: {channel} is missing as a whole; leave it out")
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
