"""PNG: pixels through libpng at their full depth, and the other chunks carried over as they are.

A PNG file is a signature and a list of chunks, ``length kind body checksum``. Pillow reads 16-bit colour as 8-bit, so
the pixels go through imagecodecs (libpng), and the ancillary chunks (colour profile, gamma, resolution, text, time,
EXIF, and whatever else is marked safe to copy) are put back behind the header of the new file, byte for byte.

What comes back in another form, as the restored image has no use for it: a palette is expanded to RGB, or to gray where
it holds only grays, a transparent colour to an alpha channel, 2- and 4-bit grays to 8 bits; interlacing is dropped.

Source: W3C, Portable Network Graphics (PNG) Specification, third edition.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image

from unperturb.data.image import check_size, join_alpha, one_picture, split_alpha
from unperturb.data.recording import Recording
from unperturb.errors import FileError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_SIGNATURE) + 12 + 13
_PALETTE = 3
_METRES_PER_INCH = 0.0254
_MAX_PROFILE = 2**26

_OF_THE_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
# Not marked safe to copy, as they speak of the pixels, and yet still true of restored ones.
_CARRIED = {b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"tIME"}
# These speak of samples as they were coded: true only while the coding stays the same.
_OF_THE_CODING = {b"sBIT", b"bKGD"}


class Chunk(NamedTuple):
    """One chunk: its four-letter kind and its body."""

    kind: bytes
    body: bytes


def read(path: Path) -> Recording:
    """Read a PNG file.

    Raises
    ------
    FileError
        The file is cut short, an animation, or too large.
    """
    data = path.read_bytes()
    chunks = list(_chunks(data, path))
    if not chunks or chunks[0].kind != b"IHDR" or len(chunks[0].body) != 13:
        raise FileError(f"{path} does not begin with a PNG header, it is damaged; obtain the file again.")
    width, height, depth, colour = struct.unpack(">IIBB", chunks[0].body[:10])
    check_size(path, height, width)
    kinds = {chunk.kind for chunk in chunks}
    if any(chunk.kind == b"acTL" and chunk.body[:4] > struct.pack(">I", 1) for chunk in chunks):
        raise FileError(f"{path} is an animation; export its frames as single images first.")
    # The other chunks are not shown to libpng: it prints what it thinks of them to the terminal.
    bare = b"".join(_packed(chunk) for chunk in chunks if chunk.kind in _OF_THE_PIXELS)
    samples = imagecodecs.png_decode(_SIGNATURE + bare)
    if colour == _PALETTE and b"iCCP" not in kinds and _is_gray(samples):
        samples = samples[..., 0] if samples.shape[-1] == 3 else samples[..., ::3]
    values, alpha = split_alpha(samples)
    if depth == 1 and colour == 0 and alpha is None:
        values = values > 0
    same_coding = colour != _PALETTE and b"tRNS" not in kinds and depth in {8, 16}
    carried = tuple(chunk for chunk in chunks if _is_carried(chunk.kind, same_coding=same_coding))
    axes = "YXC" if values.ndim == 3 else "YX"
    return Recording(values, axes, "png", alpha, {"png": carried, **_common(carried)})


def write(recording: Recording, file: Path, name: str) -> None:
    """Write a PNG file to `file`; messages call it `name`.

    Raises
    ------
    FileError
        The recording is a stack, or its samples are not 1-, 8- or 16-bit unsigned integers.
    """
    plane = one_picture(recording, name, "PNG", dtypes=("bool", "uint8", "uint16"), limit=1_000_000)
    carried = plane.metadata["png"] if "png" in plane.metadata else _from_common(plane)
    data = _encoded(plane)
    with file.open("wb") as out:
        out.write(data[:_HEADER_END])
        for chunk in carried:
            out.write(_packed(chunk))
        out.write(data[_HEADER_END:])


def _encoded(plane: Recording) -> bytes:
    if plane.values.dtype.kind == "b":
        buffer = io.BytesIO()
        Image.fromarray(plane.values).save(buffer, "PNG")
        return buffer.getvalue()
    return bytes(imagecodecs.png_encode(join_alpha(plane)))


def _chunks(data: bytes, path: Path) -> Iterator[Chunk]:
    """Walk the chunks up to the end mark, leaving out those whose checksum says that they are damaged."""
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunk = Chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        position += 12 + length
        if position > len(data):
            break
        (checksum,) = struct.unpack_from(">I", data, position - 4)
        if checksum == zlib.crc32(chunk.kind + chunk.body):
            yield chunk
        elif chunk.kind in _OF_THE_PIXELS:
            raise FileError(f"{path} is damaged: a checksum of its pixels does not match; obtain the file again.")
        if chunk.kind == b"IEND":
            return
    raise FileError(f"{path} is cut short: its end mark is missing; obtain the file again.")


def _packed(chunk: Chunk) -> bytes:
    content = chunk.kind + chunk.body
    return struct.pack(">I", len(chunk.body)) + content + struct.pack(">I", zlib.crc32(content))


def _is_carried(kind: bytes, *, same_coding: bool) -> bool:
    if kind in _OF_THE_CODING:
        return same_coding
    # Bit 5 of a letter is its case: lower case first means ancillary, lower case last means safe to copy.
    ancillary_and_safe = bool(kind[0] & 0x20 and kind[3] & 0x20)
    return kind in _CARRIED or ancillary_and_safe


def _is_gray(samples: np.ndarray[Any, np.dtype[Any]]) -> bool:
    red, green, blue = (samples[..., channel] for channel in range(3))
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))


def _common(chunks: tuple[Chunk, ...]) -> dict[str, Any]:
    """Read from the chunks what the other formats can hold, too."""
    found: dict[str, Any] = {}
    for kind, body in chunks:
        if kind == b"eXIf":
            found["exif"] = body
        elif kind == b"iCCP":
            # The profile's name, a zero, the compression method, the compressed profile.
            found["icc"] = zlib.decompressobj().decompress(body[body.index(b"\0") + 2 :], _MAX_PROFILE)
        elif kind == b"pHYs" and body[8:] == b"\x01":
            found["dpi"] = tuple(per_metre * _METRES_PER_INCH for per_metre in struct.unpack(">II", body[:8]))
        elif kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0\0\0\0\0"):
            found["xmp"] = body[len(b"XML:com.adobe.xmp") + 5 :]
    return found


def _from_common(plane: Recording) -> list[Chunk]:
    """Write as chunks what a recording brings from another format."""
    known = plane.metadata
    chunks = []
    if "icc" in known:
        chunks.append(Chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(known["icc"])))
    if "exif" in known:
        chunks.append(Chunk(b"eXIf", known["exif"]))
    if "xmp" in known:
        chunks.append(Chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + known["xmp"]))
    if "dpi" in known:
        per_metre = [round(dots / _METRES_PER_INCH) for dots in known["dpi"]]
        chunks.append(Chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    return chunks
