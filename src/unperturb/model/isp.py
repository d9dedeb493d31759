"""What a camera's processor does to raw values, stage by stage, and back: plain functions of batches of images.

::

    scene, linear, in the sensor's colours
      → mosaic          one colour a pixel, by the Bayer pattern
      → demosaic        the two others from the neighbours: two methods
      → white balance   a gain for red and blue
      → colour matrix   from the sensor's colours to those of sRGB
      → gamma, tone     the transfer curve of sRGB, an S-shaped curve of contrast

Values are ``(batch, 3, height, width)``, white is 1; parameters have one value, or one row, an item. Gamma, tone and
colour have inverses. Sources: Brooks et al., "Unprocessing images for learned raw denoising", CVPR 2019, for the order
and the inverses; IEC 61966-2-1 for sRGB; Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of
Bayer-patterned color images", ICASSP 2004, for the second method of demosaicking.
"""

import torch
from torch import Tensor
from torch.nn import functional

_LINEAR = 0.0031308


def with_gamma(linear: Tensor) -> Tensor:
    """Return linear values in the transfer curve of sRGB; those below 0 are 0."""
    linear = linear.clamp(min=0)
    return torch.where(linear <= _LINEAR, 12.92 * linear, 1.055 * linear.clamp(min=_LINEAR) ** (1 / 2.4) - 0.055)


def without_gamma(values: Tensor) -> Tensor:
    """Undo `with_gamma`, for values of at least 0."""
    return torch.where(values <= 12.92 * _LINEAR, values / 12.92, ((values + 0.055) / 1.055).clamp(min=0) ** 2.4)


def with_tone(values: Tensor, contrast: Tensor) -> Tensor:
    """Return values of 0 … 1 in a curve that darkens shadows and lifts lights: x + contrast · x (1 − x) (2x − 1).

    At a contrast of 1 that is 3x² − 2x³, at 0 nothing; ``(batch,)``, below 1.
    """
    strength = contrast.view(-1, 1, 1, 1)
    return values + strength * values * (1 - values) * (2 * values - 1)


def without_tone(values: Tensor, contrast: Tensor) -> Tensor:
    """Undo `with_tone`, by Newton's method."""
    strength = contrast.view(-1, 1, 1, 1)
    x = values
    for _ in range(8):
        slope = 1 + strength * (6 * x - 6 * x * x - 1)
        x = (x - (with_tone(x, contrast) - values) / slope).clamp(0, 1)
    return x


def coloured(values: Tensor, matrix: Tensor) -> Tensor:
    """Return the product of each item's matrix ``(batch, 3, 3)`` and the colour of each pixel."""
    return torch.einsum("bij,bjhw->bihw", matrix, values)


def phases(corner: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the row and the column of each pixel within its cell of the Bayer pattern, 0 or 1.

    Parameters
    ----------
    corner
        ``(batch, 2)``: the same of the first pixel. Red is at (0, 0), blue at (1, 1).

    Returns
    -------
    tuple of Tensor
        ``(batch, height, 1)`` and ``(batch, 1, width)``.
    """
    down = torch.arange(height, device=corner.device)[None, :, None] + corner[:, 0, None, None]
    across = torch.arange(width, device=corner.device)[None, None, :] + corner[:, 1, None, None]
    return down % 2, across % 2


def mosaic(values: Tensor, corner: Tensor) -> Tensor:
    """Return of each pixel the colour that its sensor element sees, ``(batch, 1, height, width)``."""
    down, across = phases(corner, *values.shape[2:])
    return values.gather(1, (down + across)[:, None])


_BILINEAR = (
    [[0, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, 2, 0, 2, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]],
    [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 4, 0, 4, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    [[0, 0, 0, 0, 0], [0, 2, 0, 2, 0], [0, 0, 0, 0, 0], [0, 2, 0, 2, 0], [0, 0, 0, 0, 0]],
)
_CORRECTED = (
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]],
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]],
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]],
)
"""In eighths: green where it is not; a colour between two of it in its row; a colour where the opposite one is."""


def demosaic(raw: Tensor, corner: Tensor, corrected: Tensor) -> Tensor:
    """Return all three colours of each pixel, from its own and its neighbours'.

    Parameters
    ----------
    raw
        ``(batch, 1, height, width)``.
    corner
        As for `mosaic`.
    corrected
        Boolean, ``(batch,)``: whether by the method of Malvar, He and Cutler, or by bilinear interpolation.

    Returns
    -------
    Tensor
        ``(batch, 3, height, width)``.
    """
    padded = functional.pad(raw, (2, 2, 2, 2), mode="reflect")
    found = []
    for kernels in (_BILINEAR, _CORRECTED):
        green, row, opposite = torch.tensor(kernels, dtype=raw.dtype, device=raw.device) / 8
        found.append(functional.conv2d(padded, torch.stack([green, row, row.T, opposite])[:, None]))
    green, in_row, in_column, opposite = torch.where(corrected.view(-1, 1, 1, 1), found[1], found[0]).unbind(1)
    down, across = phases(corner, *raw.shape[2:])
    own = raw[:, 0]
    at_red, at_blue = (down == 0) & (across == 0), (down == 1) & (across == 1)
    # At green, red is in the row where that is a red one, and in the column elsewhere; blue the other way round.
    beside, above = torch.where(down == 0, in_row, in_column), torch.where(down == 0, in_column, in_row)
    return torch.stack(
        [
            torch.where(at_red, own, torch.where(at_blue, opposite, beside)),
            torch.where(at_red | at_blue, green, own),
            torch.where(at_blue, own, torch.where(at_red, opposite, above)),
        ],
        1,
    )
