"""TIFF: what a page is, read by tifffile and written back page by page.

A TIFF file is a chain of pages; each has tags that lay out its samples (size, bits, compression, tiles …) and tags that
describe it (text, resolution, colour profile, camera, OME-XML, ImageJ settings …). Reading keeps the first kind as a
`Layout` and the second as raw bytes, `Page` by `Page`. Writing repeats the layout with new samples and the descriptions
byte for byte: an OME-TIFF or an ImageJ hyperstack is thus itself again, axes and all, and no flavour needs its own
writer.

What comes back in another form: a palette is expanded to RGB (but an ImageJ lookup table colours the display only, and
is kept); a lossy compression is replaced by lossless Deflate, as it would damage again what was restored; reduced
copies of the image (pyramids, thumbnails) are dropped, as they would still show the old one.

Source: Adobe, TIFF Revision 6.0; Open Microscopy Environment, OME-TIFF specification.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unperturb.data.exif import exif_from_tiff
from unperturb.data.image import check_size
from unperturb.data.recording import Array, Recording
from unperturb.data.tiff_layout import (
    CENTIMETRE,
    CONTIGUOUS,
    ICC,
    INCH,
    MINISBLACK,
    MINISWHITE,
    PALETTE,
    RGB,
    SEPARATE,
    XMP,
    YCBCR,
    Layout,
    Page,
)
from unperturb.data.tiff_write import write
from unperturb.errors import FileError

__all__ = ["read", "write"]

_JPEG_CODECS = {6, 7}
_NO_UNIT = 1
# The types of tags that point to further directories.
_POINTERS = {13, 18}
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296

# Tags of the layout, which is written anew, and pointers and contents that would be false in a new file: free space
# (288, 289), JPEG tables, tiles of YCbCr, MetaMorph and Zeiss headers, Photoshop's layers, and the EXIF and GPS
# directories.
_OF_THE_LAYOUT = (
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 288, 289, 292, 293, 296, 317, 320}
    | {322, 323, 324, 325, 330, 338, 339, 347, 400, *range(512, 522), 529, 530, 531, 532, 32997, 32998}
    | {33628, 33629, 33630, 33631, 34412, 34665, 34853, 37724, 40965}
)


def read(path: Path) -> Recording:
    """Read a TIFF file of one image or one stack.

    A single sample beyond RGB, or marked as transparency beyond gray, is carried as alpha. More samples than that are
    bands: planes along a C axis in front of YX.

    Raises
    ------
    FileError
        The file is cut short, holds several images of different kinds, or samples or colours that are not supported.
    """
    with _damage_reported(path), tifffile.TiffFile(path) as file:
        series = _only_series(file, path)
        page = series.keyframe
        check_size(path, page.imagelength, page.imagewidth, int(series.nbytes))
        _check_kind(page, series.dtype, path)
        _check_segments(file, path)
        layout = _layout(file, series)
        stored = np.asarray(series.asarray())
        metadata = {"tiff": layout, **_common(layout, path)}
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if page.photometric == PALETTE and layout.colormap is None:
        stored = np.moveaxis(np.asarray(page.colormap)[:, stored], 0, -1)
        stored = (stored >> 8).astype(np.uint8)
    values, axes, alpha = _unpacked(stored, layout, path)
    if stored.dtype.kind == "u" and layout.bits < 8 * stored.dtype.itemsize:
        metadata["bits"] = layout.bits
    return Recording(values, axes, "tiff", alpha, metadata)


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn what tifffile logs into errors where the chain of pages is broken, and keep the rest from the terminal.

    Tifffile goes on without the pages that it cannot reach, and only logs that; a stack must not become shorter unseen.
    """
    logger = logging.getLogger("tifffile")
    broken: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.ERROR and "offset" in message:
            broken.append(message)
        return False

    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
    if broken:
        raise FileError(f"{path} is cut short or damaged: some of its pages cannot be reached; obtain the file again.")


def _only_series(file: Any, path: Path) -> Any:
    """Return the one image or stack of a file."""
    full = [series for index, series in enumerate(file.series) if index == 0 or not series.keyframe.is_reduced]
    if len(full) > 1:
        raise FileError(
            f"{path} holds {len(full)} images of different sizes or kinds; split it into one file for each."
        )
    series = full[0]
    if any(page is None for page in series.pages):
        raise FileError(f"{path} lacks planes that its OME-XML speaks of; export it again, in one complete file.")
    if any(page.parent is not file for page in series.pages):
        raise FileError(f"{path} is a part of an OME-TIFF in several files; export it again as one file.")
    return series


def _check_kind(page: Any, dtype: Any, path: Path) -> None:
    """Refuse samples and colours that cannot be restored, with the mend."""
    if dtype.kind == "c" or dtype.name not in {
        *("bool", "uint8", "uint16", "int8", "int16"),
        *("float16", "float32", "float64"),
    }:
        raise FileError(
            f"{path} has {dtype.name} samples, of which only 8- and 16-bit integers and floats are supported; "
            "convert it to 16-bit or 32-bit float first."
        )
    if page.photometric == RGB and page.samplesperpixel < 3:
        raise FileError(f"{path} is damaged: it has {page.samplesperpixel} samples for RGB; obtain the file again.")
    decoded_by_jpeg = page.photometric == YCBCR and page.compression in _JPEG_CODECS
    if page.photometric not in {MINISWHITE, MINISBLACK, RGB, PALETTE} and not decoded_by_jpeg:
        colours = getattr(page.photometric, "name", page.photometric)
        raise FileError(f"{path} has {colours} colours, which are not supported; convert it to gray or RGB first.")


def _check_segments(file: Any, path: Path) -> None:
    """Refuse a file whose strips or tiles reach beyond its end, which some decoders would fill up with zeros."""
    for page in file.pages:
        ends = (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > file.filehandle.size:
            raise FileError(f"{path} is cut short: pixels are missing; obtain the file again.")


def _layout(file: Any, series: Any) -> Layout:
    page = series.keyframe
    palette = page.photometric == PALETTE
    expanded = palette and not file.is_imagej
    axes, shape = series.axes, tuple(series.shape)
    if page.samplesperpixel > 1 and page.planarconfig == 1 and axes[-3:-1] == "YX":
        axes = axes[:-1] + "S"
    return Layout(
        axes=axes + "S" if expanded else axes,
        shape=(*shape, 3) if expanded else shape,
        page_shape=(*page.shape, 3) if expanded else tuple(page.shape),
        dtype="uint8" if expanded else series.dtype.name,
        bits=8 if expanded else int(page.bitspersample),
        photometric=RGB if expanded or page.photometric == YCBCR else int(page.photometric),
        planar=SEPARATE if page.planarconfig == SEPARATE else CONTIGUOUS,
        extra_samples=tuple(map(int, page.extrasamples)),
        compression=int(page.compression),
        predictor=1 if expanded else int(page.predictor),
        tile=tuple(page.tile) if page.is_tiled else None,
        byteorder=file.byteorder,
        big=file.is_bigtiff,
        volumetric=page.is_volumetric,
        colormap=np.asarray(page.colormap) if palette and not expanded else None,
        pages=tuple(_page(p.aspage(), file.filehandle) for p in series.pages),
        order=tuple(int(plane) for plane in np.argsort([p.index for p in series.pages])),
    )


def _page(page: Any, file: Any) -> Page:
    tags = []
    for tag in page.tags:
        if tag.code not in _OF_THE_LAYOUT and tag.dtype not in _POINTERS:
            file.seek(tag.valueoffset)
            tags.append((int(tag.code), int(tag.dtype), int(tag.count), bytes(file.read(tag.valuebytecount))))
    values = {code: page.tags.valueof(code) for code in (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT)}
    resolution, unit = (values[_X_RESOLUTION], values[_Y_RESOLUTION]), values[_RESOLUTION_UNIT]
    return Page(
        resolution=None if None in resolution else resolution,
        unit=int(unit) if unit in {_NO_UNIT, INCH, CENTIMETRE} else None,
        subfile_type=int(page.subfiletype),
        tags=tuple(tags),
    )


def _common(layout: Layout, path: Path) -> dict[str, Any]:
    """Read from the first page what the other formats can hold, too."""
    found: dict[str, Any] = {}
    page = layout.pages[0]
    raw = {code: value for code, _, _, value in page.tags}
    if ICC in raw:
        found["icc"] = raw[ICC]
    if XMP in raw:
        found["xmp"] = raw[XMP]
    if page.resolution and page.unit in {INCH, CENTIMETRE}:
        per_inch = 2.54 if page.unit == CENTIMETRE else 1.0
        found["dpi"] = tuple(per_inch * dots / (unit or 1) for dots, unit in page.resolution)
    exif = None if layout.big else exif_from_tiff(path)
    if exif:
        found["exif"] = exif
    return found


def _unpacked(stored: Array, layout: Layout, path: Path) -> tuple[Array, str, Array | None]:
    """Split stored samples into values, their axes, and alpha."""
    axes, alpha = layout.axes, None
    has_samples = "S" in axes
    if has_samples:
        stored = np.moveaxis(stored, axes.index("S"), -1)
        axes = axes.replace("S", "", 1)
    if not axes.endswith("YX"):
        raise FileError(f"{path} has axes in the order {layout.axes}, which is not supported; save it with YX last.")
    if not has_samples:
        return stored, _letters(axes[:-2], path, "") + "YX", None
    if layout.is_bands:
        return np.moveaxis(stored, -1, -3), _letters(axes[:-2], path, "C") + "CYX", None
    if stored.shape[-1] > layout.colours:
        alpha = np.ascontiguousarray(stored[..., -1])
    if layout.colours == 1:
        return np.ascontiguousarray(stored[..., 0]), _letters(axes[:-2], path, "") + "YX", alpha
    return np.ascontiguousarray(stored[..., :3]), _letters(axes[:-2], path, "C") + "YXC", alpha


def _letters(leading: str, path: Path, taken: str) -> str:
    """Name the axes of a stack: T, C, Z as they are, positions (R, P) and a second C as S, others by what is free."""
    named = {"T": "T", "C": "S" if taken else "C", "Z": "Z", "R": "S", "P": "S"}
    free = [letter for letter in "TZSC" if letter not in taken and letter not in {named.get(a) for a in leading}]
    letters = ""
    for axis in leading:
        letter = named.get(axis, "")
        if not letter or letter in letters or letter in taken:
            if not free:
                raise FileError(
                    f"{path} has {len(leading)} stack axes, which is not supported; split it into more files."
                )
            letter = free.pop(0)
        letters += letter
    return letters
