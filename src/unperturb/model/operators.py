"""What optics, sampling and compression do to an image: blur, block means, coarse colour and JPEG, as plain functions.

Each takes clean values to degraded ones of the same shape and has no randomness. `gaussian_blur` and `block_means` are
linear and differentiable, so they also serve as the A of an observation ``y = A x + noise``.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def gaussian_blur(values: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Convolve each item along each space axis with a Gaussian.

    The kernel is cut at the whole number of pixels nearest to 4 sigma and sums to 1. Beyond its border the image is
    continued by its mirror image (``d c b a | a b c d | d c b a``), as by ``scipy.ndimage.gaussian_filter``.

    Parameters
    ----------
    values
        ``(batch, channel, *space)``.
    sigma
        ``(batch,)``, standard deviation of each item's kernel in pixels.
    largest
        No sigma is above it. It is asked for, and not looked up, because that would stall a GPU.
    """
    kernel = _gaussian_kernel(_wide(sigma), _radius(largest))
    blurred = _wide(values)
    for axis in range(2, values.ndim):
        blurred = _convolved(blurred, kernel, axis)
    return blurred.to(values)


def block_means(item: Tensor, factor: int) -> Tensor:
    """Replace each block of `factor` pixels a side by its mean.

    Parameters
    ----------
    item
        ``(channel, *space)`` with one to three space dimensions. Blocks are counted from the first pixel of each axis;
        the last one holds what is left.
    factor
        Side of a block in pixels.
    """
    pool = {2: functional.avg_pool1d, 3: functional.avg_pool2d, 4: functional.avg_pool3d}[item.ndim]
    sides = [min(factor, length) for length in item.shape[1:]]
    means = pool(_wide(item)[None], sides, ceil_mode=True, count_include_pad=False)[0]
    for axis, side in enumerate(sides, start=1):
        means = means.repeat_interleave(side, axis).narrow(axis, 0, item.shape[axis])
    return means.to(item)


def jpeg_compressed(item: Tensor, quality: int) -> Tensor:
    """Send one image through the JPEG encoder and back.

    Parameters
    ----------
    item
        ``(1 or 3, height, width)``; clipped to [0, 1] and rounded to 8 bits. Colours are subsampled 4:2:0.
    quality
        libjpeg's, 0 (worst) to 100.
    """
    pixels = (item.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(
        file, format="JPEG", quality=quality, subsampling="4:2:0"
    )
    with Image.open(file) as picture:
        decoded = torch.from_numpy(np.array(picture).reshape(pixels.shape))
    return decoded.permute(2, 0, 1).to(item) / 255


COARSE = 8
"""Pixels along a side of the squares whose means `coarse` goes by."""


def coarse(values: Tensor) -> Tensor:
    """Return what a Gaussian blur of sixteen pixels leaves, from means of squares: waves of a hundred pixels and more.

    Parameters
    ----------
    values
        ``(batch, channel, height, width)``; continued by its border to whole squares.
    """
    height, width = values.shape[2:]
    whole = functional.pad(_wide(values), (0, -width % COARSE, 0, -height % COARSE), mode="replicate")
    means = functional.avg_pool2d(whole, COARSE)
    means = gaussian_blur(means, means.new_full((len(means),), 2.0), 2.0)
    large = functional.interpolate(means, scale_factor=COARSE, mode="bilinear", align_corners=False)
    return large[..., :height, :width].to(values)


def with_coarse(values: Tensor, whole: Tensor) -> Tensor:
    """Return images, ``(batch, channel, height, width)``, with what is `coarse` of others in place of their own."""
    return coarse(whole - values).add_(values)


def half_colour(values: Tensor) -> Tensor:
    """Return images with colour at half resolution, as JPEG keeps it; luminance stays.

    Of either colour difference the means of 2 × 2 pixels, counted from the first, interpolated linearly (what libjpeg
    calls fancy upsampling).

    Parameters
    ----------
    values
        ``(batch, channel, height, width)``; with fewer than 3 channels there is no colour.
    """
    if values.shape[1] < 3:
        return values
    wide = _wide(values)
    gray = luminance(wide)
    means = functional.avg_pool2d(wide - gray, 2, ceil_mode=True, count_include_pad=False)
    colour = functional.interpolate(means, scale_factor=2, mode="bilinear", align_corners=False)
    return (gray + colour[..., : values.shape[2], : values.shape[3]]).to(values)


def luminance(values: Tensor) -> Tensor:
    """Return the gray (ITU-R BT.601) of colours: ``(batch, 3, height, width)`` to ``(batch, 1, height, width)``."""
    return (values * values.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1, keepdim=True)


def _wide(values: Tensor) -> Tensor:
    """Return the values in float32 at least: sums in half precision lose digits, and not every device has them."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _radius(sigma: float) -> int:
    return math.floor(4 * sigma + 0.5)


def _gaussian_kernel(sigma: Tensor, radius: int) -> Tensor:
    """Sample one normalised Gaussian an item, cut at 4 of its own sigma: ``(batch, 2 * radius + 1)``."""
    offset = torch.arange(-radius, radius + 1, device=sigma.device).to(sigma)
    width = sigma[:, None]
    kernel = torch.exp(-0.5 * (offset / width.clamp(min=1e-3)) ** 2)
    kernel = kernel.masked_fill(offset.abs() > (4 * width + 0.5).floor(), 0)
    return kernel / kernel.sum(1, keepdim=True)


def _convolved(values: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Convolve each item with its own kernel along one axis, mirrored at the borders."""
    length, radius = values.shape[axis], kernel.shape[1] // 2
    place = torch.arange(-radius, length + radius, device=values.device) % (2 * length)
    padded = values.index_select(axis, torch.minimum(place, 2 * length - 1 - place))
    weights = kernel.view(*kernel.shape, *(1,) * (values.ndim - 1))
    # A sum over the kernel's few offsets, all items at once: elementwise, so no item can depend on its neighbours.
    total = torch.zeros_like(values)
    for offset in range(2 * radius + 1):
        total += weights[:, offset] * padded.narrow(axis, offset, length)
    return total
