"""WebP: decoded by imagecodecs, encoded by Pillow; a lossless file stays lossless.

WebP holds 8-bit colour, with or without transparency. A gray recording becomes RGB, and libwebp leaves out an alpha
channel that is opaque everywhere. A lossy file goes back lossy, at the quality of a JPEG; what was another format
before is written lossless.

Source: Google, WebP Container Specification.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
from PIL import Image

from unperturb.data.image import check_size, join_alpha, one_picture, split_alpha
from unperturb.data.jpeg import QUALITY
from unperturb.data.recording import Recording
from unperturb.errors import FileError

_ANIMATION = 0x02


def read(path: Path) -> Recording:
    """Read a WebP file.

    Raises
    ------
    FileError
        The file is cut short, an animation, or too large.
    """
    data = path.read_bytes()
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise FileError(f"{path} is cut short: {len(data)} bytes are left of it; obtain the file again.")
    chunks = dict(_chunks(data))
    _check_canvas(chunks.get(b"VP8X", b""), path)
    values, alpha = split_alpha(imagecodecs.webp_decode(data))
    metadata: dict[str, Any] = {"lossless": b"VP8L" in chunks}
    for kind, key in ((b"EXIF", "exif"), (b"ICCP", "icc"), (b"XMP ", "xmp")):
        if chunks.get(kind):
            metadata[key] = chunks[kind].removeprefix(b"Exif\0\0")
    return Recording(values, "YXC", "webp", alpha, metadata)


def write(recording: Recording, file: Path, name: str) -> None:
    """Write a WebP file to `file`; messages call it `name`.

    Raises
    ------
    FileError
        The recording is a stack, or has samples of more than 8 bits.
    """
    plane = one_picture(recording, name, "WebP", dtypes=("uint8",), limit=16_383)
    known = plane.metadata
    options: dict[str, Any] = {"quality": QUALITY}
    if known.get("lossless", True):
        # For a lossless file the quality is an effort; exact keeps the colours under transparent pixels.
        options = {"lossless": True, "exact": True, "quality": 75}
    if "exif" in known:
        options["exif"] = known["exif"]
    # A profile for grays would be wrong for the colours that they become.
    if "icc" in known and known["icc"][16:20] != b"GRAY":
        options["icc_profile"] = known["icc"]
    if "xmp" in known:
        options["xmp"] = known["xmp"]
    Image.fromarray(join_alpha(plane)).save(file, "WEBP", **options)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk the chunks of the container as pairs of kind and body."""
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], data[position + 8 : position + 8 + length]
        # Chunks begin at even offsets.
        position += 8 + length + length % 2


def _check_canvas(header: bytes, path: Path) -> None:
    """Refuse animations and sizes by the extended header; a file without one holds 16,384 pixels a side at most."""
    if len(header) < 10:
        return
    if header[0] & _ANIMATION:
        raise FileError(f"{path} is an animation; export its frames as single images first.")
    width, height = (int.from_bytes(header[start : start + 3], "little") + 1 for start in (4, 7))
    check_size(path, height, width, height * width * 4)
