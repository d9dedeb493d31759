"""What is written differs from what was read in its values alone; what cannot be read or written is refused clearly.

Files are made by independent means (Pillow, tifffile, imagecodecs, or byte by byte), and what was written is looked at
by them again.
"""

import dataclasses
import errno
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from unperturb.atomic import whole
from unperturb.data.exif import upright
from unperturb.data.listing import image_files
from unperturb.data.recording import Recording, check_finite, read, write
from unperturb.errors import FileError, UsageError

RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF_DIRECTORY, EXPOSURE_TIME, TAKEN = 0x8769, 33434, 36867
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pixels(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) > 0.5
    if np.dtype(dtype).kind == "f":
        return rng.normal(3.0, 100.0, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def camera_data(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[271], exif[274] = "A camera", orientation
    exif[EXIF_DIRECTORY] = {EXPOSURE_TIME: 0.01, TAKEN: "2024:02:03 04:05:06"}
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_as_pil_shows_them(orientation):
    """Breaks: quarter turns to the other side; axes not exchanged."""
    picture = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    picture.info["exif"] = camera_data(orientation)
    picture.getexif()[274] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(picture))
    block = camera_data(orientation).removeprefix(b"Exif\0\0")
    np.testing.assert_array_equal(upright(np.asarray(picture), block), wanted)
    for none in (None, b"", b"no block"):
        assert upright(np.asarray(picture), none).shape == (4, 6, 3)


def again(path: Path, suffix: str | None = None) -> tuple[Recording, Path]:
    """Read, go to floats and back, write, and return the recording with the path of the copy."""
    recording = read(path)
    copy = path.with_name("copy" + (suffix or path.suffix))
    write(recording.with_float(recording.as_float()), copy, overwrite=True)
    return recording, copy


def assert_same(one: Recording, other: Recording) -> None:
    assert (one.axes, one.format, one.values.dtype) == (other.axes, other.format, other.values.dtype)
    np.testing.assert_array_equal(one.values, other.values)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None and other.alpha is not None:
        np.testing.assert_array_equal(one.alpha, other.alpha)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bare_png(width: int, height: int, *, depth: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Values: the way to floats and back


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int8", "int16", "float16"])
def test_every_value_survives_the_way_to_floats_and_back(dtype: str) -> None:
    if dtype == "bool":
        values = np.array([[False, True]])
    else:
        bits = 8 * np.dtype(dtype).itemsize
        values = np.arange(2**bits, dtype=f"uint{bits}").view(dtype).reshape(16, -1)
    recording = Recording(values, "YX")
    floats = recording.as_float()
    assert floats.dtype == np.float32
    if values.dtype.kind != "f":
        assert (floats.min(), floats.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(recording.with_float(floats).values, values)


@pytest.mark.parametrize(
    ("dtype", "bits", "scale"),
    [("uint8", 8, 255), ("uint16", 16, 65535), ("uint16", 12, 4095), ("int16", 16, 65535), ("float32", 32, 1)],
)
def test_full_scale_is_one_unit_of_the_floats_in_the_files_units(dtype: str, bits: int, scale: float) -> None:
    metadata = {"bits": bits} if dtype == "uint16" else {}
    recording = Recording(np.array([[0, 100]], dtype), "YX", metadata=metadata)
    assert recording.full_scale == scale
    step = np.diff(recording.as_float(), axis=1)
    np.testing.assert_allclose(step * recording.full_scale, 100, rtol=1e-4)


def test_integers_are_rounded_and_clipped_and_floats_are_neither() -> None:
    wild = np.array([[-0.5, 0.5 / 255 + 1e-4, 1.7]], np.float32)
    assert Recording(np.zeros((1, 3), np.uint8), "YX").with_float(wild).values.tolist() == [[0, 1, 255]]
    np.testing.assert_array_equal(Recording(np.zeros((1, 3), np.float32), "YX").with_float(wild).values, wild)
    half = Recording(np.zeros((1, 3), np.float16), "YX").with_float(np.array([[1e9, -1e9, np.inf]]))
    np.testing.assert_array_equal(half.values, np.array([[65504, -65504, np.inf]], np.float16))


def test_values_that_do_not_fit_are_refused() -> None:
    recording = Recording(np.zeros((2, 3), np.uint8), "YX")
    with pytest.raises(UsageError, match="shape"):
        recording.with_float(np.zeros((3, 2), np.float32))
    with pytest.raises(UsageError, match="finite"):
        recording.with_float(np.full((2, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [((2, 3), "XY", "uint8"), ((2, 3), "YXC", "uint8"), ((2, 3, 4), "YYX", "uint8"), ((2, 3), "YX", "uint32")],
)
def test_a_recording_that_contradicts_itself_is_refused(shape: tuple[int, ...], axes: str, dtype: str) -> None:
    with pytest.raises(UsageError):
        Recording(np.zeros(shape, dtype), axes)


def test_alpha_of_another_shape_or_type_is_refused() -> None:
    for alpha in (np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.float32)):
        with pytest.raises(UsageError, match="alpha"):
            Recording(np.zeros((2, 3, 3), np.uint8), "YXC", alpha=alpha)


def test_planes_come_one_at_a_time_and_go_back_lazily() -> None:
    values = pixels((2, 3, 5, 7, 3), "uint16")
    recording = Recording(values, "TZYXC")
    planes = list(recording.planes())
    assert [index for index, _ in planes] == list(np.ndindex(2, 3))
    for index, plane in planes:
        assert plane.shape == (5, 7, 3)
        np.testing.assert_array_equal(plane, recording.as_float()[index])
    inverted = recording.with_planes((index, 1 - plane) for index, plane in reversed(planes))
    np.testing.assert_array_equal(inverted.values, 65535 - values)
    [(index, plane)] = Recording(values[0, 0], "YXC").planes()
    assert (index, plane.shape) == ((), (5, 7, 3))


def test_planes_that_are_missing_doubled_or_misshapen_are_refused() -> None:
    recording = Recording(pixels((3, 4, 5)), "TYX")
    planes = list(recording.planes())
    for wrong in (planes[:2], [*planes, planes[0]], [((9,), planes[0][1])], [((0,), np.zeros((5, 4)))]):
        with pytest.raises(UsageError, match="plane"):
            recording.with_planes(wrong)


# PNG


@quick
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "uint16"]),
    seed=st.integers(0, 99),
)
def test_png_round_trip(tmp_path: Path, size: tuple[int, int], channels: int, dtype: str, seed: int) -> None:
    samples = pixels((*size, channels), dtype, seed)
    samples = samples[..., 0] if channels == 1 else samples
    path = tmp_path / "in.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(samples)))
    recording, copy = again(path)
    assert (recording.axes, recording.format) == ("YX" if channels < 3 else "YXC", "png")
    np.testing.assert_array_equal(imagecodecs.png_decode(copy.read_bytes()), samples)
    assert_same(recording, read(copy))


def test_png_of_one_bit_stays_of_one_bit(tmp_path: Path) -> None:
    values = pixels((9, 13), "bool")
    Image.fromarray(values).save(tmp_path / "in.png")
    recording, copy = again(tmp_path / "in.png")
    assert recording.values.dtype == bool
    with Image.open(copy) as picture:
        assert picture.mode == "1"
        np.testing.assert_array_equal(np.array(picture), values)


def test_png_of_four_bit_gray_becomes_eight(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(bare_png(4, 1, depth=4, rows=b"\0\x01\x9f"))
    assert read(tmp_path / "in.png").values.tolist() == [[0, 17, 153, 255]]


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_png_palette_is_expanded(tmp_path: Path, transparent: bool, gray: bool) -> None:
    picture = Image.fromarray(pixels((8, 9), "uint8") // 64)
    colours = [10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40] if gray else list(range(12))
    picture.putpalette(colours)
    picture.save(tmp_path / "in.png", **({"transparency": 2} if transparent else {}))
    recording, copy = again(tmp_path / "in.png")
    expected = np.array(picture.convert("L" if gray else "RGB"))
    np.testing.assert_array_equal(recording.values, expected)
    assert (recording.alpha is not None) == transparent
    if recording.alpha is not None:
        np.testing.assert_array_equal(recording.alpha == 0, np.array(picture) == 2)
    with Image.open(copy) as result:
        assert result.mode == ("L" if gray else "RGB") + ("A" if transparent else "")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_metadata_returns(tmp_path: Path, dtype: str) -> None:
    text = PngInfo()
    text.add_text("Title", "Grüße")
    text.add_itxt("Comment", "日本", zip=True)
    text.add(b"gAMA", struct.pack(">I", 45455))
    Image.fromarray(pixels((5, 6, 3))).save(
        tmp_path / "pil.png", pnginfo=text, dpi=(300, 150), icc_profile=RGB_PROFILE, exif=camera_data()
    )
    data = (tmp_path / "pil.png").read_bytes()
    end = data.index(b"IDAT") - 4
    fresh = imagecodecs.png_encode(pixels((5, 6, 3), dtype))
    (tmp_path / "in.png").write_bytes(fresh[:33] + data[33:end] + chunk(b"prVB", b"?") + fresh[33:])
    _, copy = again(tmp_path / "in.png")
    with Image.open(tmp_path / "in.png") as before, Image.open(copy) as after:
        before.load()
        after.load()
        assert before.info == after.info
        assert {"Title", "Comment", "gamma", "dpi", "icc_profile", "exif"} <= set(after.info)
    assert b"prVB" not in copy.read_bytes()
    assert copy.read_bytes()[24] == 8 * np.dtype(dtype).itemsize


def test_png_with_damaged_or_doubtful_chunks_is_read_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    data = imagecodecs.png_encode(pixels((5, 6)))
    broken = bytearray(chunk(b"pHYs", struct.pack(">IIB", 100, 100, 1)))
    broken[-1] ^= 1
    doubtful = chunk(b"iCCP", b"profile\0\0" + zlib.compress(RGB_PROFILE))
    (tmp_path / "in.png").write_bytes(data[:33] + bytes(broken) + doubtful + data[33:])
    recording, copy = again(tmp_path / "in.png")
    np.testing.assert_array_equal(recording.values, pixels((5, 6)))
    assert b"pHYs" not in copy.read_bytes()
    assert capfd.readouterr().err == ""


# JPEG and WebP


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_returns_as_jpeg(tmp_path: Path, mode: str) -> None:
    ramp = np.add.outer(np.arange(37), 2 * np.arange(53)).astype(np.uint8)
    picture = Image.fromarray(ramp).convert(mode)
    path = tmp_path / "in.jpg"
    profile = {"icc_profile": RGB_PROFILE} if mode == "RGB" else {}
    picture.save(path, quality=60, dpi=(300, 200), exif=camera_data(), comment=b"hello", progressive=True, **profile)
    recording, copy = again(path)
    with Image.open(path) as before, Image.open(copy) as after:
        assert (after.format, after.mode, after.size) == ("JPEG", mode, (53, 37))
        assert before.info == after.info
        assert after.getexif()[274] == 6
        if mode == "RGB":
            assert [layer[1:3] for layer in after.layer] == [(1, 1)] * 3
        luminance = after.quantization[0]
        np.testing.assert_array_equal(recording.values, np.array(before))
        assert np.abs(np.array(before, np.int16) - np.array(after, np.int16)).max() <= 6
    assert sum(luminance) < 500


def test_jpeg_keeps_xmp_and_iptc_and_drops_the_directory_of_further_pictures(tmp_path: Path) -> None:
    path = tmp_path / "in.jpg"
    first, second = Image.fromarray(pixels((8, 8, 3))), Image.fromarray(pixels((8, 8, 3), seed=1))
    first.save(path, format="MPO", save_all=True, append_images=[second])
    data = path.read_bytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    iptc = b"Photoshop 3.0\x008BIM"
    extra = b"".join(
        b"\xff" + marker + struct.pack(">H", len(body) + 2) + body for marker, body in ((b"\xe1", xmp), (b"\xed", iptc))
    )
    path.write_bytes(data[:2] + extra + data[2:])
    recording, copy = again(path)
    with Image.open(path) as before:
        np.testing.assert_array_equal(recording.values, np.array(before))
    result = copy.read_bytes()
    assert xmp in result
    assert iptc in result
    assert b"MPF\0" not in result
    with Image.open(copy) as after:
        assert after.format == "JPEG"


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("lossless", [True, False])
def test_webp_returns_as_webp(tmp_path: Path, channels: int, lossless: bool) -> None:
    samples = pixels((21, 17, channels)) if lossless else np.full((21, 17, channels), 90, np.uint8)
    path = tmp_path / "in.webp"
    how = {"lossless": True, "exact": True} if lossless else {"quality": 80}
    Image.fromarray(samples).save(path, exif=camera_data(), icc_profile=RGB_PROFILE, xmp=b"<x:xmpmeta/>", **how)
    recording, copy = again(path)
    assert recording.metadata["lossless"] == lossless
    assert (b"VP8L" in copy.read_bytes()) == lossless
    with Image.open(path) as before, Image.open(copy) as after:
        for key in ("exif", "icc_profile", "xmp"):
            assert after.info[key] == before.info[key]
        difference = np.abs(np.array(before, np.int16) - np.array(after, np.int16))
        assert difference.max() <= (0 if lossless else 3)


# TIFF

TIFF_KINDS = {
    "gray": {"shape": (21, 17)},
    "gray and alpha": {"shape": (21, 17, 2), "planarconfig": "contig", "extrasamples": ["unassalpha"]},
    "white is zero": {"shape": (21, 17), "photometric": "miniswhite"},
    "rgb": {"shape": (21, 17, 3), "photometric": "rgb"},
    "rgba": {"shape": (21, 17, 4), "photometric": "rgb", "extrasamples": ["assocalpha"]},
    "planar rgb": {"shape": (3, 21, 17), "photometric": "rgb", "planarconfig": "separate"},
    "planar rgba": {"shape": (4, 21, 17), "photometric": "rgb", "planarconfig": "separate", "extrasamples": [2]},
    "bands": {"shape": (21, 17, 5), "planarconfig": "contig"},
    "pages": {"shape": (4, 21, 17)},
    "colour pages": {"shape": (4, 21, 17, 3), "photometric": "rgb"},
    "tiles": {"shape": (2, 40, 50), "tile": (16, 32)},
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("kind", TIFF_KINDS)
def test_tiff_round_trip(tmp_path: Path, kind: str, dtype: str) -> None:
    options = {"photometric": "minisblack", "metadata": None, "compression": "zlib", **TIFF_KINDS[kind]}
    samples = pixels(options.pop("shape"), dtype)
    options["predictor"] = kind == "rgb"
    tifffile.imwrite(tmp_path / "in.tif", samples, resolution=(300, 200), resolutionunit="centimeter", **options)
    recording = read(tmp_path / "in.tif")
    copy = tmp_path / "copy.tif"
    # 64-bit floats do not survive 32 bits: here it is the file that is to be the same.
    write(recording if dtype == "float64" else recording.with_float(recording.as_float()), copy)
    assert_same(recording, read(copy))
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(copy) as after:
        np.testing.assert_array_equal(after.series[0].asarray(), samples)
        for one, other in zip(before.pages, after.pages, strict=True):
            for name in ("compression", "predictor", "photometric", "planarconfig", "extrasamples", "tile", "dtype"):
                assert getattr(one, name) == getattr(other, name), name
            assert other.resolution == (300, 200)
            assert other.resolutionunit == 3


@pytest.mark.parametrize(
    ("kind", "axes", "shape"),
    [
        ("gray and alpha", "YX", (21, 17)),
        ("planar rgba", "YXC", (21, 17, 3)),
        ("bands", "CYX", (5, 21, 17)),
        ("pages", "TYX", (4, 21, 17)),
        ("colour pages", "TYXC", (4, 21, 17, 3)),
    ],
)
def test_tiff_axes(tmp_path: Path, kind: str, axes: str, shape: tuple[int, ...]) -> None:
    options = {"photometric": "minisblack", "metadata": None, **TIFF_KINDS[kind]}
    tifffile.imwrite(tmp_path / "in.tif", pixels(options.pop("shape")), **options)
    recording = read(tmp_path / "in.tif")
    assert (recording.axes, recording.values.shape) == (axes, shape)


@quick
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=5).map(tuple),
    colour=st.booleans(),
    alpha=st.booleans(),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_a_new_tiff_keeps_axes_and_values(
    tmp_path: Path, shape: tuple[int, ...], colour: bool, alpha: bool, dtype: str
) -> None:
    axes = "STZYX"[-len(shape) :] + "C" * colour
    values = pixels((*shape, 3) if colour else shape, dtype)
    recording = Recording(values, axes, alpha=pixels(shape, dtype, 1) if alpha else None)
    path = tmp_path / "new.tif"
    write(recording, path, overwrite=True)
    assert_same(recording, read(path))
    write(read(path), tmp_path / "copy.tif", overwrite=True)
    assert_same(recording, read(tmp_path / "copy.tif"))


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zstd", "lzma", "jpeg"])
def test_tiff_lossless_compression_is_kept_and_lossy_replaced(tmp_path: Path, compression: str) -> None:
    tifffile.imwrite(tmp_path / "in.tif", pixels((32, 32, 3)), photometric="rgb", compression=compression)
    recording, copy = again(tmp_path / "in.tif")
    assert_same(recording, read(copy))
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(copy) as after:
        expected = 8 if compression == "jpeg" else before.pages[0].compression
        assert after.pages[0].compression == expected


@pytest.mark.parametrize("bits", [4, 12])
def test_tiff_packed_bits_are_kept_and_spread_for_other_formats(tmp_path: Path, bits: int) -> None:
    values = pixels((20, 30), "uint16" if bits > 8 else "uint8") >> (4)
    tifffile.imwrite(tmp_path / "in.tif", values, bitspersample=bits, metadata=None)
    recording, copy = again(tmp_path / "in.tif")
    assert recording.full_scale == 2**bits - 1
    with tifffile.TiffFile(copy) as after:
        assert after.pages[0].bitspersample == bits
        np.testing.assert_array_equal(after.asarray(), values)
    write(recording, tmp_path / "wide.png")
    wide = read(tmp_path / "wide.png")
    np.testing.assert_allclose(wide.as_float(), recording.as_float(), atol=1e-4)


def test_tiff_of_one_bit_stays_of_one_bit(tmp_path: Path) -> None:
    values = pixels((9, 13), "bool")
    Image.fromarray(values).save(tmp_path / "in.tif", compression="group4")
    _, copy = again(tmp_path / "in.tif")
    with Image.open(copy) as picture:
        assert picture.mode == "1"
        np.testing.assert_array_equal(np.array(picture), values)


def test_tiff_palette_is_expanded_but_a_lookup_table_of_imagej_is_kept(tmp_path: Path) -> None:
    indices = pixels((20, 30))
    table = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)]).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "in.tif", indices, photometric="palette", colormap=table, metadata=None)
    recording, copy = again(tmp_path / "in.tif")
    np.testing.assert_array_equal(recording.values, (table.T >> 8)[indices])
    with Image.open(copy) as picture:
        assert picture.mode == "RGB"
    tifffile.imwrite(tmp_path / "ij.tif", indices, imagej=True, photometric="palette", colormap=table)
    recording, copy = again(tmp_path / "ij.tif")
    np.testing.assert_array_equal(recording.values, indices)
    with tifffile.TiffFile(copy) as after:
        np.testing.assert_array_equal(after.pages[0].colormap, table)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_imagej_hyperstack_returns(tmp_path: Path, compression: str | None) -> None:
    values = pixels((2, 3, 4, 10, 12), "uint16")
    details = {"axes": "TZCYX", "spacing": 2.5, "unit": "um", "finterval": 0.5, "Info": "é", "Labels": ["a"] * 24}
    tifffile.imwrite(
        tmp_path / "in.tif", values, imagej=True, resolution=(5, 5), metadata=details, compression=compression
    )
    recording, copy = again(tmp_path / "in.tif")
    assert recording.axes == "TZCYX"
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(copy) as after:
        assert after.is_imagej
        assert after.imagej_metadata == before.imagej_metadata
        assert (after.series[0].axes, after.series[0].shape) == ("TZCYX", values.shape)
        assert after.pages[0].resolution == before.pages[0].resolution
        np.testing.assert_array_equal(after.asarray(), values)


def test_an_imagej_stack_with_one_page_for_all_planes_returns(tmp_path: Path) -> None:
    values = pixels((5, 10, 12), "uint16")
    description = "ImageJ=1.53\nimages=5\nslices=5\n"
    # As ImageJ writes stacks beyond 4 GB: the planes follow the first one, without pages of their own.
    tifffile.imwrite(tmp_path / "in.tif", values[0], description=description, metadata=None, byteorder=">")
    with (tmp_path / "in.tif").open("ab") as file:
        file.write(values[1:].astype(">u2").tobytes())
    recording, copy = again(tmp_path / "in.tif")
    np.testing.assert_array_equal(recording.values, values)
    np.testing.assert_array_equal(tifffile.imread(copy), values)


def test_a_truncated_shaped_stack_returns(tmp_path: Path) -> None:
    values = pixels((5, 10, 13), "uint8")
    tifffile.imwrite(tmp_path / "in.tif", values, truncate=True, photometric="minisblack", metadata={"axes": "ZYX"})
    recording, copy = again(tmp_path / "in.tif")
    assert recording.axes == "ZYX"
    np.testing.assert_array_equal(tifffile.imread(copy), values)


def test_an_ome_tiff_returns_with_its_xml(tmp_path: Path) -> None:
    values = pixels((2, 3, 10, 12), "uint16")
    details = {"axes": "TCYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["α", "b", "c"]}}
    tifffile.imwrite(tmp_path / "in.ome.tif", values, metadata=details, compression="zlib")
    recording = read(tmp_path / "in.ome.tif")
    write(recording, tmp_path / "copy.ome.tif")
    assert recording.axes == "TCYX"
    with tifffile.TiffFile(tmp_path / "in.ome.tif") as before, tifffile.TiffFile(tmp_path / "copy.ome.tif") as after:
        assert after.is_ome
        assert after.ome_metadata == before.ome_metadata
        np.testing.assert_array_equal(after.asarray(), values)


def test_an_ome_tiff_keeps_its_xml_when_its_values_become_floats(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.ome.tif", pixels((2, 3, 10, 12), "uint16"), metadata={"axes": "TCYX"})
    recording = read(tmp_path / "in.ome.tif")
    deviation = dataclasses.replace(recording, values=pixels((2, 3, 10, 12), "float32"))
    write(deviation, tmp_path / "std.ome.tif")
    with tifffile.TiffFile(tmp_path / "std.ome.tif") as file:
        assert 'Type="float"' in file.ome_metadata
        assert file.series[0].axes == "TCYX"
        np.testing.assert_array_equal(file.asarray(), deviation.values)


def test_the_order_of_pages_in_an_ome_tiff_is_kept(tmp_path: Path) -> None:
    values = pixels((3, 10, 12))
    places = {0: 2, 1: 0, 2: 1}
    data = "".join(
        f'<TiffData FirstT="{t}" FirstC="0" FirstZ="0" IFD="{ifd}" PlaneCount="1"/>' for t, ifd in places.items()
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="12" SizeY="10" SizeC="1"'
        f' SizeZ="1" SizeT="3"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "in.tif", ome=False) as out:
        for ifd in range(3):
            plane = next(t for t, place in places.items() if place == ifd)
            out.write(values[plane], description=xml if ifd == 0 else None, metadata=None)
    recording, copy = again(tmp_path / "in.tif")
    np.testing.assert_array_equal(recording.values, values)
    np.testing.assert_array_equal(tifffile.imread(copy), values)


def test_every_page_of_a_tiff_keeps_its_tags(tmp_path: Path) -> None:
    private = (65000, 12, 2, (1.5, 2.5), False)
    with tifffile.TiffWriter(tmp_path / "in.tif", byteorder=">") as out:
        for number in range(3):
            name = (285, 2, 0, f"page {number}", False)
            out.write(
                pixels((10, 12), seed=number),
                description=f"about {number}",
                metadata=None,
                extratags=[name, private],
                iccprofile=RGB_PROFILE,
                datetime="2024:02:03 04:05:06",
                software="a microscope",
            )
    _, copy = again(tmp_path / "in.tif")
    layout = {273, 279, 254}
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(copy) as after:
        assert after.byteorder == ">"
        for one, other in zip(before.pages, after.pages, strict=True):
            tags = [
                {tag.code: tag.value for tag in page.aspage().tags if tag.code not in layout} for page in (one, other)
            ]
            assert tags[0] == tags[1]
            assert {270, 285, 305, 306, 34675, 65000} <= set(tags[1])


def test_a_big_tiff_stays_big(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", pixels((10, 12)), bigtiff=True)
    recording, copy = again(tmp_path / "in.tif")
    assert_same(recording, read(copy))
    with tifffile.TiffFile(copy) as after:
        assert after.is_bigtiff


def test_camera_data_of_a_tiff_return(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.load(camera_data())
    Image.fromarray(pixels((10, 12, 3))).save(tmp_path / "in.tif", exif=exif)
    _, copy = again(tmp_path / "in.tif")
    with Image.open(copy) as after:
        found = after.getexif()
        assert (found[271], found[274]) == ("A camera", 6)
        directory = found.get_ifd(EXIF_DIRECTORY)
        assert (directory[EXPOSURE_TIME], directory[TAKEN]) == (0.01, "2024:02:03 04:05:06")


# From one format to another


@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp"])
def test_camera_data_profile_and_resolution_pass_between_formats(tmp_path: Path, source: str, target: str) -> None:
    exif = Image.Exif()
    exif.load(camera_data())
    how = {} if source == ".webp" else {"dpi": (300, 300)}
    path = tmp_path / f"in{source}"
    Image.fromarray(pixels((16, 16, 3))).save(path, exif=exif, icc_profile=RGB_PROFILE, **how)
    recording, copy = again(path, target)
    with Image.open(copy) as after:
        found = after.getexif()
        assert (found[271], found[274]) == ("A camera", 6)
        assert found.get_ifd(EXIF_DIRECTORY)[EXPOSURE_TIME] == pytest.approx(0.01)
        assert after.info["icc_profile"] == RGB_PROFILE
        if ".webp" not in {source, target}:
            assert tuple(map(float, after.info["dpi"])) == pytest.approx((300, 300), rel=1e-3)
    if target != ".jpg" and (source, target) != (".webp", ".webp"):
        # Pillow turns a TIFF by its orientation, so the stored pixels are looked at by others.
        decode = {".png": imagecodecs.png_decode, ".webp": imagecodecs.webp_decode, ".tif": imagecodecs.tiff_decode}
        np.testing.assert_array_equal(decode[target](copy.read_bytes()), recording.values)


@pytest.mark.parametrize(
    ("values", "alpha", "name", "reason"),
    [
        (pixels((4, 5, 3)), pixels((4, 5)), "x.jpg", "transparency"),
        (pixels((4, 5), "uint16"), None, "x.jpg", "uint16"),
        (pixels((4, 5), "uint16"), None, "x.webp", "uint16"),
        (pixels((4, 5), "float32"), None, "x.png", "float32"),
        (pixels((4, 5), "int16"), None, "x.png", "int16"),
        (pixels((3, 4, 5)), None, "x.png", "3 planes"),
        (pixels((1, 16_384)), None, "x.webp", "16383"),
        (pixels((4, 5)), None, "x.gif", "suffix"),
        (pixels((4, 5)), None, "x", "suffix"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, values: np.ndarray, alpha: np.ndarray | None, name: str, reason: str
) -> None:
    colour = values.ndim == 3 and values.shape[-1] == 3
    recording = Recording(values, "YXC" if colour else "TYX"[-values.ndim :], alpha=alpha)
    with pytest.raises(FileError, match=reason):
        write(recording, tmp_path / name)
    assert names(tmp_path) == []


def test_gray_and_one_bit_become_what_webp_and_jpeg_hold(tmp_path: Path) -> None:
    write(Recording(pixels((4, 5)), "YX"), tmp_path / "gray.webp")
    np.testing.assert_array_equal(read(tmp_path / "gray.webp").values, np.repeat(pixels((4, 5))[..., None], 3, -1))
    bits = np.zeros((16, 16), bool)
    bits[:, 8:] = True
    write(Recording(bits, "YX"), tmp_path / "bits.jpg")
    np.testing.assert_array_equal(read(tmp_path / "bits.jpg").values > 128, bits)


# Bad input


def sentence(path: Path) -> str:
    """Read a bad file and return the message, which must be one sentence that names the file and leaks nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FileError) as caught:
            read(path)
    text = str(caught.value)
    assert str(path) in text
    assert text.endswith(".")
    assert "\n" not in text
    return text


def good_file(path: Path) -> bytes:
    Image.fromarray(pixels((64, 64, 3))).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, part: float, capfd: pytest.CaptureFixture) -> None:
    path = tmp_path / f"cut{suffix}"
    data = good_file(path)
    path.write_bytes(data[: int(part * len(data))])
    sentence(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.8, 0.95])
def test_a_truncated_stack_does_not_become_a_shorter_one(
    tmp_path: Path, compression: str | None, part: float, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, pixels((6, 50, 60), "uint16"), compression=compression, metadata=None)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    sentence(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_random_damage_never_escapes_as_another_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    data = good_file(path)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 5):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            read(path)
        except FileError as error:
            assert str(path) in str(error)


def test_what_is_not_an_image_is_named(tmp_path: Path) -> None:
    cases = {
        "text.png": (b"hello, this is text", "not an image"),
        "empty.png": (b"", "empty"),
        "short.png": (b"\x89PN", "not an image"),
        "cartoon.png": (b"GIF89a" + bytes(20), "GIF"),
        "page.tif": (b"%PDF-1.7", "PDF"),
    }
    for name, (content, expected) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert expected in sentence(tmp_path / name)
    assert "does not exist" in sentence(tmp_path / "nowhere.png")
    assert "is a folder" in sentence(tmp_path)
    assert "cannot be opened" in sentence(tmp_path / "text.png" / "below.png")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_file(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read" in sentence(tmp_path / "a.png")


def test_the_content_tells_the_format_not_the_suffix(tmp_path: Path) -> None:
    good_file(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").format == "png"


def huge_files(folder: Path) -> list[Path]:
    """Write small files whose headers speak of 100,000 × 100,000 pixels (or what the format can say)."""
    (folder / "huge.png").write_bytes(bare_png(100_000, 100_000))
    header = b"\0" * 4 + (99_999).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + header
    (folder / "huge.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    jpeg = good_file(folder / "huge.jpg")
    size = jpeg.index(b"\xff\xc0") + 5
    (folder / "huge.jpg").write_bytes(jpeg[:size] + struct.pack(">HH", 65_000, 65_000) + jpeg[size + 4 :])
    tiff = bytearray(tifffile_bytes(folder / "huge.tif"))
    (folder / "huge.tif").write_bytes(tiff)
    with tifffile.TiffFile(folder / "huge.tif", mode="r+") as file:
        for code in (256, 257):
            file.pages[0].tags[code].overwrite(100_000)
    return [folder / f"huge{suffix}" for suffix in (".png", ".webp", ".jpg", ".tif")]


def tifffile_bytes(path: Path) -> bytes:
    tifffile.imwrite(path, pixels((64, 64)), compression="zlib", metadata=None)
    return path.read_bytes()


def test_a_header_that_speaks_of_too_many_pixels_is_refused_without_taking_memory(tmp_path: Path) -> None:
    for path in huge_files(tmp_path):
        tracemalloc.start()
        assert "more than the 1,073,741,824 that are accepted" in sentence(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000_000


def test_photographs_beyond_pillows_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        path = tmp_path / f"large{suffix}"
        good_file(path)
        assert read(path).values.shape == (64, 64, 3)


def test_kinds_that_are_not_supported_are_named_with_the_mend(tmp_path: Path) -> None:
    frames = [Image.fromarray(pixels((8, 8, 3), seed=seed)) for seed in range(3)]
    for name in ("moving.png", "moving.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert "animation" in sentence(tmp_path / name)
    frames[0].convert("CMYK").save(tmp_path / "print.jpg")
    assert "CMYK" in sentence(tmp_path / "print.jpg")
    tifffile.imwrite(tmp_path / "print.tif", pixels((8, 8, 4)), photometric="separated")
    assert "SEPARATED" in sentence(tmp_path / "print.tif")
    for dtype in ("uint32", "int64", "complex64"):
        tifffile.imwrite(tmp_path / "wide.tif", np.zeros((8, 8), dtype))
        assert dtype in sentence(tmp_path / "wide.tif")
    with tifffile.TiffWriter(tmp_path / "two.tif") as out:
        out.write(pixels((8, 8)), metadata=None)
        out.write(pixels((9, 9)), metadata=None)
    assert "2 images" in sentence(tmp_path / "two.tif")


def test_a_thumbnail_beside_the_image_is_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "in.tif") as out:
        out.write(pixels((32, 32)), metadata=None)
        out.write(pixels((8, 8)), metadata=None, subfiletype=1)
    recording, copy = again(tmp_path / "in.tif")
    assert recording.values.shape == (32, 32)
    with tifffile.TiffFile(copy) as after:
        assert len(after.pages) == 1


def test_pixels_that_are_not_finite_are_counted_and_located(tmp_path: Path) -> None:
    values = np.zeros((2, 5, 9), np.float32)
    check_finite(Recording(values, "TYX"), "scan.tif")
    values[1, 3, 7], values[1, 4, 0] = np.nan, -np.inf
    tifffile.imwrite(tmp_path / "scan.tif", values, photometric="minisblack")
    recording, copy = again(tmp_path / "scan.tif")
    np.testing.assert_array_equal(tifffile.imread(copy), values)
    with pytest.raises(
        FileError, match=r"^scan.tif has 2 pixels that are not finite \(first at plane 1, row 3, column 7"
    ):
        check_finite(recording, "scan.tif")
    colour = np.zeros((4, 4, 3))
    colour[2, 1] = 1e300
    with pytest.raises(FileError, match=r"1 pixel that is not finite .*row 2, column 1"):
        check_finite(Recording(colour, "YXC"), "scan.tif")


# Whole or not at all


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    path.chmod(0o640)
    recording = Recording(pixels((4, 5)), "YX")
    with pytest.raises(FileError, match="exists already"):
        write(recording, path)
    assert path.read_bytes() == b"precious"
    write(recording, path, overwrite=True)
    np.testing.assert_array_equal(read(path).values, recording.values)
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["a.png"]


def test_a_file_that_appears_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(FileError, match="exists already"), whole(path) as temporary:
        temporary.write_text("mine")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert names(tmp_path) == ["a.txt"]


def test_targets_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    recording = Recording(pixels((4, 5)), "YX")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    cases = {
        tmp_path / "folder.png": "is a folder",
        tmp_path / "nowhere" / "a.png": "does not exist; create it",
        tmp_path / "file" / "a.png": "could not be written",
        tmp_path / f"{'n' * 300}.png": "too long",
    }
    for path, reason in cases.items():
        with pytest.raises(FileError, match=reason):
            write(recording, path, overwrite=True)
    assert names(tmp_path) == ["file", "folder.png"]


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "no space"), (errno.EACCES, "permissions"), (errno.EIO, "rror")]
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_full_or_broken_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=reason):
        write(Recording(pixels((4, 5, 3)), "YXC"), path, overwrite=True)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [path.name]


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_file_system_that_ends_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from unperturb.data.recording import Recording, write\n"
        "from unperturb.errors import FileError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "values = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)\n"
        "for suffix in ('png', 'tif', 'jpg', 'webp'):\n"
        "    try:\n"
        "        write(Recording(values, 'YXC'), f'{sys.argv[1]}/a.{suffix}')\n"
        "    except FileError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.count("could not be written") == 4
    assert names(tmp_path) == []


# Folders, and the cost of importing


def test_image_files_are_listed_by_suffix_and_sorted(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpeg", "c.txt", ".hidden.png", "sub/d.TIFF", "sub/deep/e.webp", ".cache/f.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a.jpeg", "b.PNG", "sub/d.TIFF", "sub/deep/e.webp"]
    assert [path.name for path in image_files(tmp_path, recursive=False)] == ["a.jpeg", "b.PNG"]
    with pytest.raises(FileError, match="does not exist"):
        image_files(tmp_path / "nowhere")
    with pytest.raises(FileError, match="is a file"):
        image_files(tmp_path / "c.txt")


def test_importing_recordings_loads_no_decoder_and_no_torch() -> None:
    script = "import json, sys, unperturb.data.recording; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "PIL", "tifffile", "imagecodecs", "skimage", "scipy"} & set(json.loads(done.stdout))


def test_what_a_tiff_stores_otherwise_is_written_as_it_is_displayed(tmp_path):
    """Breaks: a negative; colours that were multiplied by their alpha once are so for ever."""
    values = np.random.default_rng(0).integers(10, 240, (12, 15), np.uint8)
    tifffile.imwrite(tmp_path / "scan.tif", 255 - values, photometric="miniswhite")
    write(read(tmp_path / "scan.tif"), tmp_path / "scan.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "scan.png")), values)
    write(read(tmp_path / "scan.tif"), tmp_path / "again.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "again.tif"), 255 - values)
    alpha = np.full((12, 15), 128, np.uint8)
    colours = np.repeat(values[..., None], 3, -1)
    stored = np.concatenate([np.rint(colours * (128 / 255)).astype(np.uint8), alpha[..., None]], -1)
    tifffile.imwrite(tmp_path / "half.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    write(read(tmp_path / "half.tif"), tmp_path / "half.png")
    found = np.asarray(Image.open(tmp_path / "half.png"))
    assert np.abs(found[..., :3].astype(int) - colours).max() <= 1
    assert (found[..., 3] == 128).all()
