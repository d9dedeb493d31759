"""JPEG: decoded and encoded by Pillow, and the segments that Pillow does not write carried over as they are.

A JPEG file is a list of segments, ``FF marker length body``, then the coded pixels. Pixels are taken in the orientation
in which they are stored, and the EXIF orientation goes back unchanged, so that the picture is displayed as before. It
is written at quality 95 without chroma subsampling, whatever it was before: what was restored is not to be lost again.

Of a file with several pictures (MPO, HDR gain maps), the first is the photograph: it alone is read and written.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from unperturb.data.image import check_size, one_picture
from unperturb.data.recording import Recording
from unperturb.errors import FileError

QUALITY = 95
"""The quality at which a JPEG, or a lossy WebP, is written."""

_START_OF_SCAN = 0xDA
_COMMENT = 0xFE
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# JFIF (0) and Adobe (14) tell decoders how the pixels are coded: the encoder writes its own.
_OF_THE_CODING = {0xE0, 0xEE}
# EXIF and ICC are written by Pillow, and the directory of further pictures (MPF) holds offsets into the old file.
_NOT_CARRIED = (_EXIF, b"ICC_PROFILE\0", b"MPF\0")


def read(path: Path) -> Recording:
    """Read a JPEG file.

    Raises
    ------
    FileError
        The file is too large, or its colours are those of a printer (CMYK).
    """
    with path.open("rb") as file:
        segments = tuple(segment for segment in _segments(file.read(), path) if _is_carried(segment))
        file.seek(0)
        # The plugin is called directly: Image.open would refuse large photographs, by a limit global to the process.
        with JpegImageFile(file) as picture:
            check_size(path, picture.height, picture.width, picture.height * picture.width * 3)
            if picture.mode not in {"L", "RGB"}:
                raise FileError(f"{path} has {picture.mode} colours, made for printing; convert it to RGB first.")
            values = np.array(picture)
            info = dict(picture.info)
    metadata: dict[str, Any] = {"jpeg": segments, "progressive": bool(info.get("progressive"))}
    if info.get("exif"):
        metadata["exif"] = info["exif"].removeprefix(_EXIF)
    if info.get("icc_profile"):
        metadata["icc"] = info["icc_profile"]
    if "dpi" in info and all(info["dpi"]):
        metadata["dpi"] = tuple(float(dots) for dots in info["dpi"])
    for marker, body in segments:
        if marker == 0xE1 and body.startswith(_XMP):
            metadata["xmp"] = body.removeprefix(_XMP)
    return Recording(values, "YXC" if values.ndim == 3 else "YX", "jpeg", None, metadata)


def write(recording: Recording, file: Path, name: str) -> None:
    """Write a JPEG file to `file`; messages call it `name`.

    Raises
    ------
    FileError
        The recording is a stack, has transparency, or samples of more than 8 bits.
    """
    if recording.alpha is not None:
        raise FileError(f"{name} cannot hold transparency, JPEG has none; write a .png file.")
    plane = one_picture(recording, name, "JPEG", dtypes=("uint8",), limit=65_500)
    known = plane.metadata
    options: dict[str, Any] = {"quality": QUALITY, "subsampling": 0, "progressive": known.get("progressive", False)}
    if "exif" in known:
        options["exif"] = _EXIF + known["exif"]
    if "icc" in known:
        options["icc_profile"] = known["icc"]
    if "dpi" in known:
        options["dpi"] = tuple(round(dots) for dots in known["dpi"])
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane.values)).save(buffer, "JPEG", **options)
    carried = known.get("jpeg", ((0xE1, _XMP + known["xmp"]),) if "xmp" in known else ())
    file.write_bytes(_with_segments(buffer.getvalue(), carried))


def _segments(data: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Walk the segments in front of the pixels as pairs of marker and body."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            # A marker may be preceded by any number of fill bytes.
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    raise FileError(f"{path} is cut short or damaged: it has no pixels; obtain the file again.")


def _is_carried(segment: tuple[int, bytes]) -> bool:
    marker, body = segment
    application = 0xE0 <= marker <= 0xEF and marker not in _OF_THE_CODING
    return (application and not body.startswith(_NOT_CARRIED)) or marker == _COMMENT


def _with_segments(data: bytes, segments: tuple[tuple[int, bytes], ...]) -> bytes:
    """Insert segments behind the encoder's own: some readers want JFIF and EXIF to come first."""
    position = 2
    while 0xE0 <= data[position + 1] <= 0xEF:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    packed = (bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body for marker, body in segments)
    return data[:position] + b"".join(packed) + data[position:]
