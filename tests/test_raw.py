"""Raw files of cameras: developed, restored, written as TIFF."""

import sys

import numpy as np
import pytest
import tifffile
from skimage import data

from unperturb.data.listing import image_files
from unperturb.data.recording import read
from unperturb.errors import FileError, UsageError

BLACK, WHITE = 512, 15512
TO_SENSOR = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
"""From XYZ to the colours of a sensor that sees what sRGB does."""


@pytest.fixture
def negative(tmp_path):
    """Write a raw file of a camera that saw a photograph, and return its path and the photograph."""
    photo = data.astronaut()[:256, :320] / 255
    light = np.where(photo <= 0.04045, photo / 12.92, ((photo + 0.055) / 1.055) ** 2.4)
    mosaic = np.empty(photo.shape[:2])
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = light[row::2, column::2, channel]
    matrix = [part for value in np.ravel(TO_SENSOR) for part in (round(10_000 * value), 10_000)]
    tags = [
        (271, 2, None, "Maker", True), (272, 2, None, "Model", True), (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes((0, 1, 1, 2)), True), (50706, 1, 4, bytes((1, 4, 0, 0)), True),
        (50708, 2, None, "Model", True), (50714, 4, 1, BLACK, True), (50717, 4, 1, WHITE, True),
        (50721, 10, 9, tuple(matrix), True), (50728, 5, 3, (1,) * 6, True), (50778, 3, 1, 21, True),
    ]  # fmt: skip
    counts = (BLACK + mosaic * (WHITE - BLACK)).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.DNG", counts, photometric=32803, extratags=tags, metadata=None)
    return tmp_path / "a.DNG", photo


def test_a_raw_file_becomes_the_photograph_that_was_seen(negative):
    """Breaks: another curve; brightened by itself; read as the TIFF that it is inside."""
    pytest.importorskip("rawpy")
    path, photo = negative
    found = read(path)
    assert (found.values.dtype, found.axes, found.format) == (np.uint16, "YXC", "tiff")
    assert np.abs(found.as_float().mean((0, 1)) - photo.mean((0, 1))).max() < 0.002
    assert -10 * np.log10(np.square(found.as_float() - photo).mean()) > 33
    assert image_files(path.parent) == [path]


def test_what_is_restored_of_a_raw_file_is_a_tiff(negative, model, run):
    pytest.importorskip("rawpy")
    path, _ = negative
    assert run("restore", path, "--model", model, "--sigma", "500")[0] == 0
    assert tifffile.imread(path.with_name("a_restored.tiff")).shape == (256, 320, 3)


def test_what_is_no_raw_file_is_named(tmp_path):
    pytest.importorskip("rawpy")
    (tmp_path / "b.nef").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(FileError, match=r"b\.nef cannot be developed"):
        read(tmp_path / "b.nef")
    with pytest.raises(FileError, match=r"c\.nef"):
        read(tmp_path / "c.nef")


def test_without_the_package_the_extra_is_named(negative, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(UsageError, match=r"unperturb\[raw\]"):
        read(negative[0])
