"""Recordings: images as stored, the way to floats and the way back.

::

    read(path) ── Recording ── as_float ──> restoration ── with_float ──> Recording ── write(path)

A `Recording` holds the samples in the file's own type, the meaning of its axes, and everything else that the file said
(`metadata`), so that what is written differs from what was read in the restored values alone: size, bit depth,
channels, transparency, colour profile, camera data, resolution and microscope metadata all return.

Integers become floats over their full range (an 8-bit grey level is 1/255) and go back by rounding and clipping; the
values of float files are in their own units both ways, and nothing of theirs is clipped. Transparency is never
restored: it is carried through untouched.

`read` chooses the format by content, `write` by suffix. The modules of the formats are imported where one is needed:
they build recordings, and their decoders are heavy.
"""

import dataclasses
import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from unperturb.atomic import whole
from unperturb.data.opening import first_bytes
from unperturb.errors import FileError, UnperturbError, UsageError

Index = tuple[int, ...]
Array = NDArray[Any]
FloatArray = NDArray[np.float32]

_OF_SIGNALS = {".wav", ".npy", ".csv", ".tsv", ".hea", ".parquet"}

SUFFIXES = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
"""The suffixes that are images, and the format each one means."""

RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")
"""The suffixes that are raw files of cameras (`unperturb.data.raw`): read, and not written."""

MAX_PIXELS = 2**30
"""The most pixels one plane may have (a square of 32,768): more is taken for a damaged header, not for an image."""

_DTYPES = ("bool", "uint8", "uint16", "int8", "int16", "float16", "float32", "float64")

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}

_FOREIGN = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"SIMPLE  =": "a FITS file",
    b"\x89HDF": "an HDF5 file",
}


@dataclass(frozen=True, eq=False)
class Recording:
    """An image or a stack of images, with all that its file said about it.

    Parameters
    ----------
    values
        The samples as stored, without transparency: bool (1-bit), 8- or 16-bit integers, or floats.
    axes
        One letter of ``STCZYX`` for each axis of `values`: ``"YX"``, ``"YXC"`` (colour, last), ``"TYX"``, ``"TCZYX"`` …
        A C in front of YX counts separate planes (fluorescence channels, bands).
    format
        ``"png"``, ``"tiff"``, ``"jpeg"`` or ``"webp"``: what the file was.
    alpha
        Transparency, of the type of `values` and its shape without the colour axis, or None.
    metadata
        What else the file said. Understood by every format: ``exif`` (a TIFF-structured block), ``icc``, ``xmp``
        (bytes) and ``dpi`` (a pair, horizontal first); ``bits``, where a sample uses fewer than its type has; under the
        name of a format, what only that format can put back.

    Raises
    ------
    UsageError
        The axes do not describe the values, or the type of the values is not one of those above.
    """

    values: Array
    axes: str
    format: str = "tiff"
    alpha: Array | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = set(self.axes) <= set("STCZYX") and len(set(self.axes)) == len(self.axes)
        if not known or not self.axes.endswith(("YX", "YXC")):
            raise UsageError(f"axes {self.axes!r} must be different letters of STCZYX that end in YX or YXC.")
        if self.values.ndim != len(self.axes):
            raise UsageError(
                f"axes {self.axes!r} need {len(self.axes)} dimensions, the values have {self.values.ndim}."
            )
        if self.values.dtype.name not in _DTYPES:
            raise UsageError(f"values of type {self.values.dtype} are not supported; use one of {', '.join(_DTYPES)}.")
        expected = self.values.shape[:-1] if self.is_colour else self.values.shape
        if self.alpha is not None and (self.alpha.shape, self.alpha.dtype) != (expected, self.values.dtype):
            raise UsageError(
                f"alpha must be {self.values.dtype} of shape {expected}, not {self.alpha.dtype} of {self.alpha.shape}."
            )

    @property
    def is_colour(self) -> bool:
        """Whether the last axis is colour."""
        return self.axes.endswith("C")

    @property
    def channel_axis(self) -> int | None:
        """Which axis of the values is colour: the last, -1, or None in gray."""
        return -1 if self.is_colour else None

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """The lengths of the axes in front of YX: how the planes are counted. Empty for a single image."""
        return tuple(self.values.shape[: self.axes.index("Y")])

    @property
    def full_scale(self) -> float:
        """What one unit of the floats is in the file's own units: 255, 65535, 4095 …; 1 for float and 1-bit files."""
        dtype = self.values.dtype
        if dtype.kind in "bf":
            return 1.0
        return float(2 ** self.metadata.get("bits", 8 * dtype.itemsize) - 1)

    def as_float(self) -> FloatArray:
        """Return the values as 32-bit floats: integers over their full range in [0, 1], floats in their own units."""
        return self._to_float(self.values)

    def with_float(self, values: Array) -> "Recording":
        """Return this recording with other values: the way back from `as_float`.

        Parameters
        ----------
        values
            Floats of the shape of `self.values`. For an integer file they are clipped to [0, 1] and rounded to its
            levels; for a float file they keep their units and range, and its type is kept (a 16-bit float beyond its
            range becomes the largest one, rather than infinite).

        Raises
        ------
        UsageError
            The shape is another, or values for an integer file are not finite.
        """
        if values.shape != self.values.shape:
            raise UsageError(f"the new values have shape {values.shape}, the recording has {self.values.shape}.")
        return dataclasses.replace(self, values=self._to_stored(values))

    def planes(self) -> Iterator[tuple[Index, FloatArray]]:
        """Yield the 2-D images one at a time, each with its index in the stack, as floats.

        Only one plane at a time exists as floats, so a long stack costs little more memory than its file.

        Yields
        ------
        index
            Positions along the axes in front of YX; ``()`` for a single image. ``values[index]`` is the plane as
            stored.
        plane
            Floats as in `as_float`, ``(H, W)`` or ``(H, W, C)``.
        """
        for index in np.ndindex(self.stack_shape):
            yield index, self._to_float(self.values[index])

    def with_planes(self, planes: Iterable[tuple[Index, Array]]) -> "Recording":
        """Return this recording with other planes: the way back from `planes`, one plane at a time.

        Parameters
        ----------
        planes
            Pairs of index and floats, every plane of the stack once and in any order. A generator is drawn from lazily:
            ``recording.with_planes((index, restore(plane)) for index, plane in recording.planes())``.

        Raises
        ------
        UsageError
            A plane is missing, comes twice or has another shape.
        """
        result = np.empty_like(self.values)
        missing = set(np.ndindex(self.stack_shape))
        for index, plane in planes:
            if index not in missing:
                raise UsageError(f"plane {index} came twice or is not in the stack of {self.stack_shape}.")
            if plane.shape != result[index].shape:
                raise UsageError(f"plane {index} has shape {plane.shape}, the recording's have {result[index].shape}.")
            missing.remove(index)
            result[index] = self._to_stored(plane)
        if missing:
            raise UsageError(f"{len(missing)} planes are missing, the first is {min(missing)}.")
        return dataclasses.replace(self, values=result)

    def _to_float(self, stored: Array) -> FloatArray:
        # A 64-bit float may be beyond 32 bits; `check_finite` is what tells people, not a warning of numpy's.
        with np.errstate(over="ignore", invalid="ignore"):
            floats = stored.astype(np.float32)
        if stored.dtype.kind == "i":
            floats -= float(np.iinfo(stored.dtype).min)
        if stored.dtype.kind in "ui":
            floats /= self.full_scale
        return floats

    def _to_stored(self, values: Array) -> Array:
        dtype = self.values.dtype
        floats = np.asarray(values, dtype=np.result_type(values, np.float32))
        if dtype.kind == "f":
            return _narrowed(floats, dtype)
        if not np.isfinite(floats).all():
            raise UsageError("values for an integer file must be finite; these hold NaN or infinity.")
        levels = np.rint(np.clip(floats, 0.0, 1.0) * self.full_scale)
        if dtype.kind == "i":
            levels += float(np.iinfo(dtype).min)
        return cast(Array, levels.astype(dtype))


def _narrowed(floats: Array, dtype: np.dtype[Any]) -> Array:
    """Cast floats to a type that may be narrower, without turning a large finite number into infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast_values: Array = floats.astype(dtype)
    overflow = np.isinf(cast_values) & np.isfinite(floats)
    if overflow.any():
        cast_values[overflow] = np.copysign(np.finfo(dtype).max, floats[overflow])
    return cast_values


def check_finite(recording: Recording, name: str | Path) -> None:
    """Refuse a recording with pixels that are not finite: each would spread through all that is restored around it.

    Parameters
    ----------
    recording
        What to check; only float files can fail.
    name
        What to call it in the message.

    Raises
    ------
    FileError
        Says how many pixels are NaN, infinite or beyond 32-bit floats, and where the first one is (counted from 0).
    """
    if recording.values.dtype.kind != "f":
        return
    count, first = 0, ""
    for index, plane in recording.planes():
        finite = np.isfinite(plane)
        bad: NDArray[np.bool_] = np.logical_not(finite.all(axis=-1) if recording.is_colour else finite)
        if not first and bad.any():
            row, column = np.unravel_index(int(bad.argmax()), bad.shape)
            page = f"plane {', '.join(map(str, index))}, " if index else ""
            first = f"{page}row {row}, column {column}"
        count += int(bad.sum())
    if count:
        counted = "1 pixel that is" if count == 1 else f"{count} pixels that are"
        raise FileError(f"{name} has {counted} not finite (first at {first}, counted from 0); replace them by numbers.")


class _Codec(Protocol):
    """What the module of a format provides; of raw files, `read` alone."""

    def read(self, path: Path) -> Recording: ...

    def write(self, recording: Recording, file: Path, name: str) -> None: ...


def _codec(name: str) -> _Codec:
    """Import the module of a format, which has its name."""
    return cast(_Codec, importlib.import_module(f"unperturb.data.{name}"))


def read(path: str | Path) -> Recording:
    """Read an image file. Its format is told by its content, that of raw files of cameras by their suffix.

    Parameters
    ----------
    path
        PNG, TIFF, JPEG or WebP, or with a suffix of `RAW`. Pixels as stored: an EXIF orientation stays metadata.

    Raises
    ------
    FileError
        The file is missing, damaged, not an image, of a kind that is not supported, or too large for this machine.
    """
    path = Path(path)
    name = "raw" if path.suffix.lower() in RAW else _identify(path)
    label = name.upper()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _codec(name).read(path)
    except UnperturbError:
        raise
    except MemoryError as error:
        raise FileError(f"{path} does not fit into memory; cut it into smaller images.") from error
    except Exception as error:
        # Decoders meet hostile bytes here and raise whatever type comes to hand.
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise FileError(
            f"{path} cannot be read as {label}, it is damaged, cut short or of a rare kind ({reason}); "
            "obtain the file again or save it anew in an image editor."
        ) from error


def _identify(path: Path) -> str:
    """Name the format of a file by its first bytes."""
    head = first_bytes(path, "an image")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    foreign = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    what = f"is {foreign}, which is not supported" if foreign else "is not an image, whatever its name says"
    if path.suffix.lower() in _OF_SIGNALS:
        what = "is a signal, or a table, where an image is wanted"
    raise FileError(f"{path} {what}; PNG, TIFF, JPEG and WebP can be read.")


def write(recording: Recording, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an image file, whole or not at all. Its format is told by its suffix.

    Parameters
    ----------
    recording
        What to write. Where the format is the one it was read from, all its metadata returns; otherwise camera data,
        colour profile, XMP and resolution do.
    path
        The file to write, ending in one of `SUFFIXES`.
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    FileError
        The format cannot hold the recording, or the file cannot be written.
    """
    target = Path(path)
    name = SUFFIXES.get(target.suffix.lower())
    if name is None:
        raise FileError(f"{target} has no suffix that names an image format; use one of {', '.join(SUFFIXES)}.")
    try:
        with whole(target, overwrite=overwrite) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _codec(name).write(recording, temporary, str(target))
    except UnperturbError:
        raise
    except MemoryError as error:
        raise FileError(f"{target} could not be written: memory is short; write smaller images.") from error
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise FileError(f"{target} could not be written as {name.upper()} ({reason}); try another format.") from error
