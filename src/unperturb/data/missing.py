"""Which pixels of an image are missing, as people mark them.

A mark is one of

    a file      an image of the same size; pixels that are not zero are missing
    alpha       pixels that are wholly transparent in the image's own file
    nan         pixels that are not a number, in float files
    #rrggbb     pixels of exactly this colour, 8 bits a channel; or of several, #000000,#ffffff

What stands in a missing pixel is forgotten here, before anything else looks at the image: it cannot have an influence.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unperturb.data.exif import as_stored, upright, without_thumbnail
from unperturb.data.image import as_displayed
from unperturb.data.recording import Recording, read
from unperturb.errors import FileError, UsageError

Mask = NDArray[np.bool_]

WORDS = ("alpha", "nan")
"""Marks that are not the name of a file, besides colours."""


def find_missing(recording: Recording, mark: str, name: str | Path = "the image") -> Mask:
    """Return which pixels are missing.

    Parameters
    ----------
    recording
        The image or stack.
    mark
        As above.
    name
        What to call the image in messages.

    Returns
    -------
    ndarray
        Boolean, True where missing, of the shape of the values without their axis of colour.

    Raises
    ------
    UsageError
        Where the mark has no meaning for this image.
    FileError
        Where a file of marks cannot be read or is of another size, or every pixel is missing, or none is.
    """
    if mark == "alpha":
        missing = _transparent(recording, name)
    elif mark == "nan":
        missing = _not_numbers(recording, name)
    elif mark.startswith("#"):
        missing = np.any([_of_colour(recording, colour.strip()) for colour in mark.split(",")], axis=0)
    else:
        missing = _marked(recording, Path(mark), name)
    told = "" if mark in ("alpha", "nan") or mark.startswith("#") else "; in a mask, those that are not zero are"
    if missing.all():
        raise FileError(f"{name}: every pixel is marked as missing by {mark}{told}")
    if not missing.any():
        raise FileError(f"{name}: no pixel is marked as missing by {mark}{told}")
    return missing


def blanked(recording: Recording, missing: Mask) -> Recording:
    """Return a recording with zeros where pixels are missing, and nothing transparent there."""
    values = recording.values.copy()
    values[missing] = 0
    metadata = dict(recording.metadata)
    if metadata.get("exif") is not None:
        metadata["exif"] = without_thumbnail(metadata["exif"])
    recording = replace(recording, metadata=metadata)
    if recording.alpha is None:
        return replace(recording, values=values)
    alpha = recording.alpha.copy()
    alpha[missing] = _opaque(recording)
    return replace(recording, values=values, alpha=alpha)


def _opaque(recording: Recording) -> float:
    """Return the alpha of a pixel that is not transparent, in the file's own units."""
    dtype = recording.values.dtype
    return 1 if dtype.kind in "bf" else recording.full_scale + (np.iinfo(dtype).min if dtype.kind == "i" else 0)


def _transparent(recording: Recording, name: str | Path) -> Mask:
    if recording.alpha is None:
        raise UsageError(f"{name} has no alpha channel to say what is missing; give a mask as a file")
    lowest = np.iinfo(recording.alpha.dtype).min if recording.alpha.dtype.kind == "i" else 0
    transparent: Mask = recording.alpha == lowest
    return transparent


def _not_numbers(recording: Recording, name: str | Path) -> Mask:
    if recording.values.dtype.kind != "f":
        raise UsageError(f"{name} holds whole numbers, none of which is nan; give a mask as a file")
    return _any_channel(~np.isfinite(recording.values), recording)


def _of_colour(recording: Recording, mark: str) -> Mask:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", mark):
        raise UsageError(f"a colour is # and six hexadecimal digits, such as #ff00ff; got {mark!r}")
    parts = np.array([int(mark[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    channels = recording.values.shape[-1] if recording.is_colour else 1
    if channels == 1 and len(set(parts)) > 1:
        raise UsageError(f"{mark} is no gray, and this image has no colours; gray is such as #808080")
    wanted = parts[:channels] if recording.is_colour else parts[0]
    # Of samples with fewer or more bits than 8, the level nearest to the colour; floats are as exact as their type.
    whole_numbers = recording.values.dtype.kind in "ui"
    exact = 0.5 / recording.full_scale if whole_numbers else max(1e-6, _precision(recording))
    return ~_any_channel(~np.isclose(recording.as_float(), wanted, rtol=0, atol=exact), recording)


def _precision(recording: Recording) -> float:
    """Return the distance of neighbouring floats below 1."""
    dtype = recording.values.dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _marked(recording: Recording, path: Path, name: str | Path) -> Mask:
    if not path.exists():
        raise FileError(f"there is no mask {path}: --missing is an image file, alpha, nan, or a colour such as #ff00ff")
    mask = read(path)
    marks = _any_channel(as_displayed(mask).values != 0, mask)
    marks = as_stored(upright(marks, mask.metadata.get("exif")), recording.metadata.get("exif"))
    shape = recording.values.shape[:-1] if recording.is_colour else recording.values.shape
    if marks.shape not in (shape, shape[-2:]):
        sizes = " and ".join(" × ".join(map(str, reversed(each))) for each in (marks.shape, shape))
        raise FileError(f"the mask {path} does not fit {name}: they are {sizes} pixels")
    return np.broadcast_to(marks, shape).copy()


def _any_channel(marks: Mask, recording: Recording) -> Mask:
    """Return for every pixel whether any of its channels is marked."""
    return np.any(marks, axis=-1) if recording.is_colour else marks
