"""Pictures for people: arrays to 8-bit images, maps in colour, and sheets of them with a word under each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.recording import Recording

Bytes = NDArray[np.uint8]

_STOPS = np.array(
    [[13, 8, 35], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 190]], np.float64
)
"""A map from dark to bright whose lightness rises evenly, so that it reads in gray as well."""

LARGEST, SMALLEST = 384, 128
"""Sides of a picture in a sheet, in pixels."""

_LABEL = 22


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, and how its pixels are shown: values from `low` to `high` as black to white.

    A picture is enlarged by a whole factor, as long as its longer side stays below `least` pixels.
    """

    top: int
    left: int
    height: int
    width: int
    low: float = 0.0
    high: float = 1.0
    least: int = SMALLEST

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return this part of an image ``(H, W)`` or ``(H, W, C)``."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]

    def show(self, values: NDArray[Any]) -> Bytes:
        """Return this part of an image in 8 bits and colour, ``(height, width, 3)``, enlarged where it is small."""
        part = (self.cut(values).astype(np.float64) - self.low) / max(self.high - self.low, 1e-12)
        return self._enlarged(as_colour(part))

    def show_map(self, values: NDArray[Any], high: float) -> Bytes:
        """Return this part of a map ``(H, W)``, 0 to `high`, from dark to bright, enlarged where it is small."""
        return self._enlarged(heat(self.cut(values), high))

    def _enlarged(self, picture: Bytes) -> Bytes:
        factor = max(1, self.least // max(self.height, self.width))
        return picture.repeat(factor, 0).repeat(factor, 1)


def shown_range(recording: Recording, values: NDArray[Any]) -> tuple[float, float]:
    """Return what is black and what is white: the full range of 8-bit files, of others the 0.1 and 99.9 percentile."""
    if recording.values.dtype == np.uint8:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.1, 99.9))
    return float(low), float(high)


def most_uncertain(spread: NDArray[Any], size: int = LARGEST) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the square of `size` pixels with the largest mean spread."""
    height, width = (min(size, length) for length in spread.shape[:2])
    flat = spread if spread.ndim == 2 else spread.mean(-1)
    sums = np.zeros((flat.shape[0] + 1, flat.shape[1] + 1))
    sums[1:, 1:] = flat.astype(np.float64).cumsum(0).cumsum(1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(top), int(left), height, width


def as_colour(values: NDArray[Any]) -> Bytes:
    """Return values in [0, 1], gray or colour, as ``(H, W, 3)`` in 8 bits; what lies outside is clipped."""
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return levels if levels.ndim == 3 else levels[..., None].repeat(3, -1)


def heat(values: NDArray[Any], high: float) -> Bytes:
    """Return a map ``(H, W)`` in colour: 0 is dark, `high` and more is bright."""
    place = np.clip(values / max(high, 1e-12), 0, 1) * (len(_STOPS) - 1)
    below = np.minimum(place.astype(int), len(_STOPS) - 2)
    share = (place - below)[..., None]
    return np.rint(_STOPS[below] * (1 - share) + _STOPS[below + 1] * share).astype(np.uint8)


def sheet(pictures: Sequence[tuple[str, Bytes]], columns: int | None = None) -> Recording:
    """Return pictures of one size side by side and in rows, each with its words below, as one 8-bit recording."""
    from PIL import Image, ImageDraw, ImageFont

    columns = columns or int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    height, width = pictures[0][1].shape[:2]
    gap = 8
    size = (columns * (width + gap) + gap, rows * (height + _LABEL + gap) + gap)
    page = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for number, (words, picture) in enumerate(pictures):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (height + _LABEL + gap)
        page.paste(Image.fromarray(picture), (left, top))
        pen.text((left, top + height + 3), words, fill="black", font=font)
    return Recording(np.asarray(page), "YXC", "png")


def png_bytes(picture: Bytes) -> bytes:
    """Return an 8-bit picture as the bytes of a PNG file."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()
