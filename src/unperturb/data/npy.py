"""NumPy arrays as signals: ``(T,)``, ``(C, T)`` or ``(T, C)``.

An array says nothing of time: the longer of two axes is taken for it where nobody tells. Layout, order in memory and
order of bytes are kept, so that the file that is written is the one that was read, byte for byte where no sample was
changed. Files that hold Python objects are never opened: loading one runs what it says.

Source: NumPy Enhancement Proposal 1, A Simple File Format for NumPy Arrays.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from unperturb.atomic import whole
from unperturb.data.recording import Array
from unperturb.data.signal import Signal
from unperturb.errors import FileError, UsageError

_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Layout:
    """How samples lie in the file.

    Attributes
    ----------
    ndim
        Axes of the array: 1 or 2.
    time_axis
        Which of them is time.
    fortran
        Whether the first axis varies fastest.
    byteorder
        As numpy writes it: ``"<"``, ``">"`` or ``"|"``.
    """

    ndim: int
    time_axis: int
    fortran: bool
    byteorder: str


def read(path: Path, time_axis: int | None) -> Signal:
    """Read an array as a signal without a rate.

    Raises
    ------
    FileError
        The file is no such array, is cut short, or holds no samples, or other things than real numbers.
    UsageError
        There is no such axis.
    """
    shape, fortran, dtype = _header(path)
    _check(path, shape, dtype)
    time_axis = _time_axis(path, shape, time_axis)
    layout = Layout(len(shape), time_axis, fortran, dtype.str[0])
    return Signal(_loaded(path, dtype, time_axis), "npy", metadata={"npy": layout})


def read_flags(path: Path) -> NDArray[np.bool_] | None:
    """Read an array of truth values as ``(channel, sample)``; None where a file holds anything else.

    Raises
    ------
    FileError
        The file is no array, is cut short, or has another shape than a signal.
    """
    shape, _, dtype = _header(path)
    if dtype != np.bool_:
        return None
    _check(path, shape, np.dtype(np.uint8))
    return np.asarray(_loaded(path, dtype, _time_axis(path, shape, None)), np.bool_)


def write(signal: Signal, target: Path, *, overwrite: bool) -> None:
    """Write an array, in the layout of the one that was read, or as ``(C, T)``.

    Raises
    ------
    FileError
        It cannot be written.
    """
    values = signal.in_units()
    layout: Layout = signal.metadata.get("npy") or Layout(2, 1, fortran=False, byteorder="<")
    if layout.ndim == 1 and len(values) == 1:
        values = values[0]
    elif layout.ndim == 2:
        values = np.moveaxis(values, -1, layout.time_axis)
    dtype = values.dtype.newbyteorder(">" if layout.byteorder == ">" else "<")
    with whole(target, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        array = np.asarray(values, dtype=dtype, order="F" if layout.fortran else "C")
        npy.write_array(file, array, allow_pickle=False)


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read what an array is, before memory is taken for it."""
    with path.open("rb") as file:
        start = file.read(len(npy.MAGIC_PREFIX))
        if start.startswith(b"PK\x03\x04"):
            raise FileError(f"{path} is an archive of arrays; save one of them with numpy.save.")
        if start != npy.MAGIC_PREFIX:
            raise FileError(f"{path} is not a .npy file, whatever its name says; save an array with numpy.save.")
        file.seek(0)
        try:
            shape, fortran, dtype = _READ_HEADER[npy.read_magic(file)](file)
        except (KeyError, ValueError) as error:
            raise FileError(f"{path} has a damaged header, or one of a rare kind; obtain the file again.") from error
    return shape, fortran, dtype


def _time_axis(path: Path, shape: tuple[int, ...], time_axis: int | None) -> int:
    """Return which axis is time, counted from the first."""
    if time_axis is None:
        return 0 if len(shape) == 1 or shape[0] > shape[1] else 1
    if not -len(shape) <= time_axis < len(shape):
        raise UsageError(f"{path} has {len(shape)} axes, so that axis {time_axis} cannot be its time.")
    return time_axis % len(shape)


def _loaded(path: Path, dtype: np.dtype[Any], time_axis: int) -> Array:
    """Return what is in a file, ``(channel, sample)``."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise FileError(f"{path} is cut short: samples are missing; obtain the file again.") from error
    stored: Array = np.array(mapped, dtype=dtype.newbyteorder("="), order="K", subok=False)
    return np.moveaxis(np.atleast_2d(stored), time_axis - stored.ndim, -1)


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """Refuse what is no signal, with the mend."""
    if dtype.hasobject:
        raise FileError(f"{path} holds Python objects, which are never loaded; save an array of numbers.")
    if dtype.kind == "c":
        raise FileError(f"{path} holds complex values; save their real and imaginary parts as two channels.")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(f"{path} holds values of type {dtype}; save integers or floats of 8 to 64 bits.")
    if len(shape) not in {1, 2}:
        raise FileError(f"{path} has {len(shape)} axes, a signal has one or two; save it as (channels, samples).")
    if 0 in shape:
        raise FileError(f"{path} holds no samples: its shape is {shape}; save at least one.")
