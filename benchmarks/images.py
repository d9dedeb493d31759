"""Which pictures are measured, as floats in [0, 1].

By default the test sets that lie beside the checkout: BSD68 and the 512 × 512 pictures of Set12, or CBSD68 in colour.
Where there are none, the pictures that come with scikit-image. Its `camera` is never among the defaults: peers without
a documented setting are tuned on it.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unperturb.data.listing import image_files
from unperturb.data.patches import LUMINANCE
from unperturb.data.recording import read
from unperturb.errors import FileError, UsageError

FloatArray = NDArray[np.float32]

TEST_SETS = Path(__file__).resolve().parents[2] / "shared" / "data" / "test"
"""Where the test sets are looked for: ``../shared/data/test`` as seen from the checkout."""

SHIPPED_COLOUR = ("astronaut", "chelsea", "coffee")
SHIPPED = (*SHIPPED_COLOUR, "brick", "coins", "grass", "gravel", "moon")
"""Pictures that scikit-image ships; no download."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One clean picture: its name, the set it belongs to, and its values, ``(H, W)`` or ``(H, W, 3)``."""

    name: str
    group: str
    values: FloatArray

    @property
    def megapixels(self) -> float:
        """Height times width, in millions."""
        return self.values.shape[0] * self.values.shape[1] / 1e6


def pictures(paths: Sequence[Path] = (), *, colour: bool = False, limit: int | None = None) -> list[Picture]:
    """Read the pictures to measure.

    Parameters
    ----------
    paths
        Files and folders; the default pictures where there are none.
    colour
        Keep colour. Otherwise a colour picture becomes its luminance.
    limit
        The most pictures to take, spread evenly over all there are, so that every set keeps its share.

    Raises
    ------
    UsageError
        A file is a stack, or gray where colour is asked for.
    FileError
        A file is missing or cannot be read, or a folder holds none.
    """
    readers = [_reader(file) for file in _files(paths)] if paths else _default(colour)
    if not readers:
        raise FileError(f"there are no images in {', '.join(map(str, paths))}.")
    count = min(limit or len(readers), len(readers))
    chosen = [readers[place] for place in np.linspace(0, len(readers) - 1, count).round().astype(int)]
    return [_as_asked(read_picture(), colour) for read_picture in chosen]


def shipped(name: str) -> Picture:
    """Return a picture that comes with scikit-image."""
    from skimage import data
    from skimage.util import img_as_float32

    return Picture(name, "scikit-image", img_as_float32(getattr(data, name)()))


def _default(colour: bool) -> list[Callable[[], Picture]]:
    folder = TEST_SETS / ("cbsd68" if colour else "bsd68")
    if not folder.is_dir():
        return [functools.partial(shipped, name) for name in (SHIPPED_COLOUR if colour else SHIPPED)]
    large = image_files(TEST_SETS / "set12") if (TEST_SETS / "set12").is_dir() and not colour else []
    return [_reader(file) for file in (*image_files(folder), *(file for file in large if _is_512(file)))]


def _is_512(file: Path) -> bool:
    return read(file).values.shape[:2] == (512, 512)


def _files(paths: Sequence[Path]) -> list[Path]:
    return [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]


def _reader(file: Path) -> Callable[[], Picture]:
    return lambda: Picture(file.name, file.resolve().parent.name, _flat(file))


def _flat(file: Path) -> FloatArray:
    recording = read(file)
    if recording.axes not in ("YX", "YXC"):
        raise UsageError(f"{file} is a stack with axes {recording.axes}; the benchmark takes single pictures.")
    return recording.as_float()


def _as_asked(picture: Picture, colour: bool) -> Picture:
    """Turn colour into luminance unless colour is asked for."""
    if colour and picture.values.ndim == 2:
        raise UsageError(f"{picture.name} is gray; leave out --colour or the picture.")
    if colour or picture.values.ndim == 2:
        return picture
    gray = np.ascontiguousarray(picture.values @ np.array(LUMINANCE, np.float32))
    return Picture(picture.name, picture.group, gray)
