"""What a TIFF file says besides its samples: how they are laid out, and what each page tells about itself."""

from dataclasses import dataclass

from unperturb.data.recording import Array

Tag = tuple[int, int, int, bytes]
"""Code, type, count and raw value."""

MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
NO_COMPRESSION, DEFLATE = 1, 8
CONTIGUOUS, SEPARATE = 1, 2
INCH, CENTIMETRE = 2, 3
DESCRIPTION, ICC, XMP = 270, 34675, 700


@dataclass(frozen=True)
class Page:
    """What one page says about itself, apart from its layout."""

    resolution: tuple[tuple[int, int], tuple[int, int]] | None
    unit: int | None
    subfile_type: int
    tags: tuple[Tag, ...]


@dataclass(frozen=True)
class Layout:
    """How the samples of a file are stored. `axes` and `shape` are tifffile's: S counts the samples of a pixel."""

    axes: str
    shape: tuple[int, ...]
    page_shape: tuple[int, ...]
    dtype: str
    bits: int
    photometric: int
    planar: int
    extra_samples: tuple[int, ...]
    compression: int
    predictor: int
    tile: tuple[int, ...] | None
    byteorder: str
    big: bool
    volumetric: bool
    colormap: Array | None
    pages: tuple[Page, ...]
    order: tuple[int, ...]

    @property
    def colours(self) -> int:
        """The number of samples of a pixel that are its colour or gray."""
        return 3 if self.photometric == RGB else 1

    @property
    def is_bands(self) -> bool:
        """Whether the samples of a pixel are bands, each an image of its own, rather than colour with transparency."""
        extra = len(self.extra_samples)
        return extra > 1 or (extra == 1 and self.colours == 1 and self.extra_samples[0] == 0)
