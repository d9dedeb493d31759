"""What PNG, JPEG and WebP have in common: one picture of 8- or 16-bit samples, perhaps with transparency."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from unperturb.data.recording import MAX_PIXELS, Array, Recording
from unperturb.errors import FileError

_MIN_IS_WHITE, _ASSOCIATED = 0, 1
"""Of TIFF: a photometric interpretation, and a kind of extra sample."""


def check_size(path: Path, height: int, width: int, n_bytes: int | None = None) -> None:
    """Refuse an image by its header, before memory is taken for it.

    Parameters
    ----------
    path
        What to call the file in the message.
    height, width
        What the header says, pixels.
    n_bytes
        What all planes take in memory; one 8-bit plane where None.

    Raises
    ------
    FileError
        There are no pixels, a plane has more than `MAX_PIXELS`, or the image is larger than the memory of this machine.
    """
    pixels = height * width
    if pixels < 1:
        raise FileError(f"{path} says that it has {width} × {height} pixels, it is damaged; obtain the file again.")
    if pixels > MAX_PIXELS:
        raise FileError(
            f"{path} says that it has {width} × {height} pixels, more than the {MAX_PIXELS:,} that are accepted; "
            "cut it into tiles, or obtain the file again if that cannot be."
        )
    memory = _memory()
    if memory is not None and (n_bytes or pixels) > memory:
        raise FileError(f"{path} does not fit into this machine's memory; cut it into smaller images.")


def _memory() -> int | None:
    """Physical memory in bytes, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def split_alpha(samples: Array) -> tuple[Array, Array | None]:
    """Split decoded samples into values, ``(H, W)`` or ``(H, W, 3)``, and transparency, ``(H, W)`` or None."""
    if samples.ndim == 2 or samples.shape[-1] == 3:
        return samples, None
    values = samples[..., 0] if samples.shape[-1] == 2 else samples[..., :3]
    return np.ascontiguousarray(values), np.ascontiguousarray(samples[..., -1])


def join_alpha(recording: Recording) -> Array:
    """Return values with transparency, if any, as the last channel: the way back from `split_alpha`."""
    if recording.alpha is None:
        return np.ascontiguousarray(recording.values)
    values = recording.values if recording.is_colour else recording.values[..., None]
    return np.concatenate([values, recording.alpha[..., None]], axis=-1)


def as_displayed(recording: Recording) -> Recording:
    """Return a recording with the values that are displayed, where a TIFF file stores others.

    Small values may be white, as scanners have it; and colours may have been multiplied by their alpha, which other
    formats do not mean.
    """
    layout = recording.metadata.get("tiff")
    if layout is None:
        return recording
    values, alpha, full = recording.values, recording.alpha, recording.full_scale
    if layout.photometric == _MIN_IS_WHITE:
        values = ~values if values.dtype == bool else (full - values).astype(values.dtype)
    if alpha is not None and tuple(layout.extra_samples) == (_ASSOCIATED,) and values.dtype.kind in "uf":
        opacity = np.maximum(alpha if values.ndim == alpha.ndim else alpha[..., None], np.finfo(np.float32).tiny)
        whole = values * (full / opacity)
        values = np.clip(np.rint(whole) if values.dtype.kind == "u" else whole, 0, full).astype(values.dtype)
    return dataclasses.replace(recording, values=values)


def one_picture(recording: Recording, name: str, label: str, *, dtypes: tuple[str, ...], limit: int) -> Recording:
    """Return a recording as a picture format can hold it, or say why it cannot.

    A sample that uses fewer bits than its type has is spread over the full range of the type: these formats cannot say
    how many bits are in use, and the picture would come out dark. One-bit values become bytes where `dtypes` has no
    bool.

    Parameters
    ----------
    recording
        What is to be written.
    name, label
        What to call the file and its format in a message.
    dtypes
        The sample types that the format holds.
    limit
        The longest side that the format allows, pixels.

    Raises
    ------
    FileError
        The recording is a stack, has another number of channels, another sample type, or a side that is too long.
    """
    recording = as_displayed(recording)
    n_planes = int(np.prod(recording.stack_shape))
    if recording.stack_shape and n_planes != 1:
        raise FileError(f"{name} cannot hold {n_planes} planes, {label} holds one; write a .tif file.")
    first = (0,) * len(recording.stack_shape)
    values, alpha = recording.values[first], None if recording.alpha is None else recording.alpha[first]
    if recording.is_colour and values.shape[-1] != 3:
        raise FileError(f"{name} cannot hold {values.shape[-1]} colour channels, {label} holds 3; write a .tif file.")
    if max(values.shape[:2]) > limit:
        raise FileError(
            f"{name} cannot be longer than {limit} pixels a side, as {label} holds no more; write a .tif file."
        )
    axes = "YXC" if recording.is_colour else "YX"
    plane = dataclasses.replace(recording, values=values, alpha=alpha, axes=axes)
    if values.dtype.kind == "b" and ("bool" not in dtypes or alpha is not None):
        return _as_bytes(plane)
    if values.dtype.name not in dtypes:
        raise FileError(
            f"{name} cannot hold {values.dtype} samples, {label} holds {' and '.join(dtypes)}; write "
            f"{'a .png or .tif' if values.dtype.name == 'uint16' else 'a .tif'} file."
        )
    return _spread(plane)


def _as_bytes(plane: Recording) -> Recording:
    alpha = None if plane.alpha is None else plane.alpha.astype(np.uint8) * np.uint8(255)
    return dataclasses.replace(plane, values=plane.values.astype(np.uint8) * np.uint8(255), alpha=alpha)


def _spread(plane: Recording) -> Recording:
    metadata = {key: value for key, value in plane.metadata.items() if key != "bits"}
    wide = dataclasses.replace(plane, metadata=metadata)
    if wide.full_scale == plane.full_scale:
        return plane
    alpha = plane.alpha
    if alpha is not None:
        alpha = np.rint(alpha * (wide.full_scale / plane.full_scale)).astype(alpha.dtype)
    return dataclasses.replace(wide.with_float(plane.as_float()), alpha=alpha)
