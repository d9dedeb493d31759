"""Camera data (EXIF) inside a TIFF file, whose writer knows no directories in directories.

In JPEG, PNG and WebP the camera's data are one block of bytes, itself a small TIFF file, that is carried untouched. In
a TIFF they are spread: a few tags of the first page, and directories for exposure (EXIF) and place (GPS) elsewhere in
the file. Here the block is put together from them, and taken apart again.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
_ORIENTATION = 274
_TEXTS = {
    270: "description",
    271: "make",
    272: "model",
    305: "software",
    306: "time",
    315: "artist",
    33432: "copyright",
}
_PREFIX = b"Exif\0\0"
_DISPLAYED = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Whether axes change places, and rows and columns then are turned round, by orientation."""


def exif_from_tiff(path: Path) -> bytes | None:
    """Put together the EXIF block of a TIFF file, or return None where it has no camera data (or is a BigTIFF)."""
    with path.open("rb") as file:
        found = Image.Exif()
        found.load_from_fp(file)
        block = Image.Exif()
        for directory in (EXIF_DIRECTORY, GPS_DIRECTORY):
            content = found.get_ifd(directory) if directory in found else {}
            if content:
                block[directory] = dict(content)
        if not block and found.get(_ORIENTATION, 1) == 1:
            return None
        for tag in (_ORIENTATION, *_TEXTS):
            if tag in found:
                block[tag] = found[tag]
        return block.tobytes().removeprefix(_PREFIX)


def tags_of_block(block: bytes) -> list[tuple[int, int, int, Any]]:
    """Take the tags of the first page out of an EXIF block: code, type, count and value."""
    found = _loaded(block)
    tags: list[tuple[int, int, int, Any]] = []
    if _ORIENTATION in found:
        tags.append((_ORIENTATION, 3, 1, int(found[_ORIENTATION])))
    texts = {tag: str(found[tag]).encode("utf-8", "replace") for tag in _TEXTS if tag in found}
    return tags + [(tag, 2, 0, text) for tag, text in texts.items()]


def directories_of_block(block: bytes) -> dict[int, Mapping[int, Any]]:
    """Take the EXIF and GPS directories out of an EXIF block, those that are there."""
    found = _loaded(block)
    directories = {tag: found.get_ifd(tag) for tag in (EXIF_DIRECTORY, GPS_DIRECTORY)}
    return {tag: content for tag, content in directories.items() if content}


def upright(values: NDArray[Any], block: bytes | None) -> NDArray[Any]:
    """Return an image ``(H, W)`` or ``(H, W, C)`` as it is displayed: turned and mirrored as its EXIF block says."""
    turned, down, right = _displayed(block)
    seen = values.swapaxes(0, 1) if turned else values
    seen = seen[::-1] if down else seen
    return seen[:, ::-1] if right else seen


def as_stored(values: NDArray[Any], block: bytes | None) -> NDArray[Any]:
    """Undo `upright`: return what belongs to an image as it is displayed in the order in which its file has it."""
    turned, down, right = _displayed(block)
    stored = values[:, ::-1] if right else values
    stored = stored[::-1] if down else stored
    return stored.swapaxes(0, 1) if turned else stored


def without_thumbnail(block: bytes) -> bytes:
    """Return an EXIF block without the small picture in it, which shows what the large one was; all else as it was."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return block
        (first,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, first)
        follows = first + 2 + 12 * count
        (second,) = struct.unpack_from(order + "I", block, follows)
        if not second:
            return block
        stripped = bytearray(block)
        stripped[follows : follows + 4] = bytes(4)
        (entries,) = struct.unpack_from(order + "H", block, second)
        told = {}
        for entry in range(second + 2, second + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", block, entry)
            told[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), block, entry + 8)[0]
        for place, size in ((0x0201, 0x0202), (0x0111, 0x0117)):
            if place in told and size in told:
                end = min(told[place] + told[size], len(block))
                stripped[told[place] : end] = bytes(max(end - told[place], 0))
        return bytes(stripped)
    except struct.error:  # what cannot be followed may hold one
        return b""


def _displayed(block: bytes | None) -> tuple[bool, bool, bool]:
    """Return how an image is displayed, as `_DISPLAYED` says it."""
    try:
        orientation = 1 if block is None else int(_loaded(block).get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):  # as PIL says that it is no block
        orientation = 1
    return _DISPLAYED.get(orientation, (False, False, False))


def append_directories(file: Path, directories: Mapping[int, Mapping[int, Any]], byteorder: str) -> None:
    """Append directories to a classic TIFF file and let the tags of its first page, written as 0, point to them."""
    with file.open("rb+") as out:
        places = _places(out.read(), byteorder)
        for tag, content in directories.items():
            # Directories begin at even offsets.
            offset = (out.seek(0, 2) + 1) // 2 * 2
            header = b"II*\0\0\0\0\0" if byteorder == "<" else b"MM\0*\0\0\0\0"
            directory = ImageFileDirectory_v2(header, group=tag)
            for code, value in content.items():
                # A directory further down (interoperability) would be an offset into the old file.
                if code != 0xA005:
                    directory[code] = value
            out.seek(offset)
            out.write(directory.tobytes(offset))
            out.seek(places[tag])
            out.write(struct.pack(byteorder + "I", offset))


def _places(data: bytes, byteorder: str) -> dict[int, int]:
    """Find where the first page of a classic TIFF file keeps the value of each of its tags."""
    (start,) = struct.unpack_from(byteorder + "I", data, 4)
    (count,) = struct.unpack_from(byteorder + "H", data, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    return {struct.unpack_from(byteorder + "H", data, entry)[0]: entry + 8 for entry in entries}


def _loaded(block: bytes) -> Any:
    found = Image.Exif()
    found.load(_PREFIX + block)
    return found
