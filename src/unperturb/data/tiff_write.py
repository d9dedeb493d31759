"""Writing TIFF: page by page in the layout that was read, or as a new file whose axes are kept as tifffile's JSON."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unperturb.data.exif import append_directories, directories_of_block, tags_of_block
from unperturb.data.recording import Array, Recording
from unperturb.data.tiff_layout import (
    CONTIGUOUS,
    DEFLATE,
    DESCRIPTION,
    ICC,
    INCH,
    MINISBLACK,
    NO_COMPRESSION,
    RGB,
    XMP,
    Layout,
    Page,
    Tag,
)
from unperturb.errors import FileError

_UNASSOCIATED_ALPHA = 2
# None, LZW, Deflate (two codes), PackBits, LZMA, Zstandard: the lossless ones that tifffile writes.
_LOSSLESS = {NO_COMPRESSION, 5, DEFLATE, 32946, 32773, 34925, 50000}
# Offsets in a classic TIFF have 32 bits; the margin is for the tags.
_CLASSIC_LIMIT = 2**32 - 2**25
_DIRECTORY_NAMES = {0x8769: "ExifTag", 0x8825: "GPSTag"}


def write(recording: Recording, file: Path, name: str) -> None:
    """Write a TIFF file to `file`; messages call it `name`.

    A recording read from a TIFF is written in its layout, also where its values have another type now (a standard
    deviation as floats beside an 8-bit stack). Any other is written compressed without loss, its axes as JSON.

    Raises
    ------
    FileError
        The colour axis of a recording from elsewhere has another length than 3.
    """
    layout: Layout | None = recording.metadata.get("tiff")
    stored = None if layout is None else _packed(recording, layout)
    if layout is None or stored is None:
        _write_new(recording, file, name)
    else:
        _write_pages(stored, _retyped(layout, stored.dtype), recording, file)


def _packed(recording: Recording, layout: Layout) -> Array | None:
    """Put values and alpha together as the layout stores them; None where they do not fit it."""
    samples, axes = recording.values, layout.axes
    if "S" in axes:
        if layout.is_bands:
            samples = np.moveaxis(samples, -3, -1) if samples.ndim > 2 else samples
        elif recording.alpha is not None:
            values = samples if recording.is_colour else samples[..., None]
            samples = np.concatenate([values, recording.alpha[..., None]], axis=-1)
        elif not recording.is_colour:
            samples = samples[..., None]
        if samples.ndim == len(axes):
            samples = np.moveaxis(samples, -1, axes.index("S"))
    if samples.shape != layout.shape:
        return None
    return samples.reshape(-1, *layout.page_shape)


def _retyped(layout: Layout, dtype: np.dtype[Any]) -> Layout:
    """Return the layout for samples of another type."""
    if dtype.name == layout.dtype:
        return layout
    ome_name = {"float32": "float", "float64": "double", "bool": "bit"}.get(dtype.name, dtype.name)
    first = layout.pages[0]
    tags = tuple(
        (code, kind, count, re.sub(rb'(<Pixels\b[^>]*\bType=)"\w+"', rb'\1"%s"' % ome_name.encode(), raw, count=1))
        if code == DESCRIPTION
        else (code, kind, count, raw)
        for code, kind, count, raw in first.tags
    )
    return dataclasses.replace(
        layout,
        dtype=dtype.name,
        bits=8 * dtype.itemsize,
        predictor=1 if layout.predictor == 1 else 3 if dtype.kind == "f" else 2,
        colormap=None,
        photometric=MINISBLACK if layout.colormap is not None else layout.photometric,
        pages=(dataclasses.replace(first, tags=tags), *layout.pages[1:]),
    )


def _write_pages(stored: Array, layout: Layout, recording: Recording, file: Path) -> None:
    """Write samples in the layout and with the descriptions of the file they came from.

    Parameters
    ----------
    stored
        Samples of shape ``(planes, *layout.page_shape)``.
    layout
        As read; its pages are written in the order they had.
    recording
        Where the EXIF directories are.
    file
        The file to write.
    """
    big = layout.big or stored.nbytes > _CLASSIC_LIMIT
    directories = {} if big or "exif" not in recording.metadata else directories_of_block(recording.metadata["exif"])
    options = _options(layout, stored.dtype)
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=layout.byteorder, ome=False, shaped=False) as out:
        for place, (samples, page, tags) in enumerate(_parts(stored, layout)):
            # By name: the codes of directories are filtered out.
            pointers = [(_DIRECTORY_NAMES[tag], 4, 1, 0, True) for tag in directories if place == 0]
            out.write(
                np.ascontiguousarray(samples),
                resolution=page.resolution,
                resolutionunit=page.unit,
                subfiletype=page.subfile_type,
                extratags=tags + pointers,
                **options,
            )
    if directories:
        append_directories(file, directories, layout.byteorder)


def _parts(stored: Array, layout: Layout) -> Iterator[tuple[Array, Page, list[tuple[Any, ...]]]]:
    """Cut a stack into what is written at once: samples, the page that describes them, and its tags.

    Where all pages but the first say the same, one call writes the stack without gaps, as most programs do and some
    expect of their own files; so it does where one page stands for all planes (ImageJ's large files). Otherwise each
    page has its own call.
    """
    first, others = layout.pages[0], layout.pages[1:]
    repeated = set(others[0].tags) if others else set()
    alike = all(page == others[0] for page in others) and repeated <= set(first.tags)
    if alike and layout.order == tuple(range(len(layout.pages))):
        yield stored, first, [_entry(tag, once=tag not in repeated) for tag in first.tags]
        return
    for plane in layout.order:
        page = layout.pages[plane]
        yield stored[plane], page, [_entry(tag, once=False) for tag in page.tags]


def _entry(tag: Tag, *, once: bool) -> tuple[Any, ...]:
    """Write a tag as tifffile's argument."""
    code, kind, count, raw = tag
    if code == DESCRIPTION:
        # All pages are written, so tifffile's JSON must not say that all but the first were left out.
        raw = raw.replace(b', "truncated": true', b"")
    return code, kind, count, raw, once


def _options(layout: Layout, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Write a layout as tifffile's arguments."""
    kept = layout.compression in _LOSSLESS
    packed = dtype.kind == "u" and layout.bits < 8 * dtype.itemsize
    # Packed samples cannot be compressed: their bit depth is worth more than the compression.
    compression = NO_COMPRESSION if packed else layout.compression if kept else DEFLATE
    has_predictor = kept and compression != NO_COMPRESSION and layout.predictor in {1, 2, 3}
    return {
        "photometric": layout.photometric,
        "planarconfig": layout.planar if "S" in layout.axes or len(layout.page_shape) > 2 else None,
        "extrasamples": layout.extra_samples or None,
        "compression": compression,
        "predictor": layout.predictor if has_predictor else None,
        "bitspersample": layout.bits if packed else None,
        "tile": layout.tile,
        "colormap": layout.colormap,
        "volumetric": layout.volumetric,
        "software": False,
        "metadata": None,
    }


def _write_new(recording: Recording, file: Path, name: str) -> None:
    """Write a recording that was no TIFF before, or has another shape now: compressed without loss.

    Raises
    ------
    FileError
        Its colour axis has another length than 3.
    """
    values, known = recording.values, recording.metadata
    if recording.is_colour and values.shape[-1] != 3:
        raise FileError(f"{name} cannot hold {values.shape[-1]} colour channels; name the axis a stack, as in CYX.")
    if recording.alpha is not None:
        colour = values if recording.is_colour else values[..., None]
        values = np.concatenate([colour, recording.alpha[..., None]], axis=-1)
    samples = "S" if recording.is_colour or recording.alpha is not None else ""
    # S is tifffile's letter for the samples of a pixel; R stands for our positions, and is read back as them.
    stack = recording.axes[: recording.axes.index("Y")].replace("S", "R")
    exif = known.get("exif")
    directories = directories_of_block(exif) if exif and values.nbytes <= _CLASSIC_LIMIT else {}
    tags: list[tuple[Any, ...]] = [(*tag, True) for tag in _descriptions(recording)]
    tags += [(_DIRECTORY_NAMES[tag], 4, 1, 0, True) for tag in directories]
    with tifffile.TiffWriter(file, bigtiff=values.nbytes > _CLASSIC_LIMIT, byteorder="<", ome=False) as out:
        out.write(
            np.ascontiguousarray(values),
            photometric=RGB if recording.is_colour else MINISBLACK,
            planarconfig=CONTIGUOUS if samples else None,
            extrasamples=None if recording.alpha is None else [_UNASSOCIATED_ALPHA],
            compression=DEFLATE,
            predictor=values.dtype.kind != "b",
            resolution=known.get("dpi"),
            resolutionunit=INCH if "dpi" in known else None,
            extratags=tags,
            software=False,
            metadata={"axes": f"{stack}YX{samples}"} if stack else None,
        )
    if directories:
        append_directories(file, directories, "<")


def _descriptions(recording: Recording) -> list[tuple[int, int, int, Any]]:
    """Write as tags what a recording brings from another format."""
    known = recording.metadata
    tags = tags_of_block(known["exif"]) if "exif" in known else []
    if "icc" in known:
        tags.append((ICC, 7, len(known["icc"]), known["icc"]))
    if "xmp" in known:
        tags.append((XMP, 1, len(known["xmp"]), known["xmp"]))
    if recording.stack_shape:
        # The axes of a stack are written into its description.
        tags = [tag for tag in tags if tag[0] != DESCRIPTION]
    return tags
