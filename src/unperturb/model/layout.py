"""How values are laid out for a network: blocks of pixels as channels, sizes that divide, levels as maps, colours."""

import torch
from torch import Tensor

from unperturb.errors import UsageError


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """Turn blocks of pixels into channels: ``(batch, channel * factor**dims, *space / factor)``."""
    dims = x.ndim - 2
    split = [part for length in x.shape[2:] for part in (length // factor, factor)]
    x = x.reshape(*x.shape[:2], *split)
    order = (0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
    return x.permute(order).reshape(len(x), -1, *split[::2])


def shuffle(x: Tensor, factor: int) -> Tensor:
    """Undo `unshuffle`."""
    dims = x.ndim - 2
    x = x.reshape(len(x), -1, *(factor,) * dims, *x.shape[2:])
    order = (
        0,
        1,
        *(axis for pair in zip(range(2 + dims, 2 + 2 * dims), range(2, 2 + dims), strict=True) for axis in pair),
    )
    return x.permute(order).reshape(*x.shape[:2], *(length * factor for length in x.shape[2 + dims :]))


def as_map(sigma: Tensor, x: Tensor) -> Tensor:
    """Return a noise level as a map ``(batch, 1, *space)`` for `x`.

    Raises
    ------
    UsageError
        Where it is neither scalar, nor ``(batch,)``, nor such a map.
    """
    sigma = sigma.to(x)
    if sigma.ndim == 1:
        sigma = sigma.view(-1, *(1,) * (x.ndim - 1))
    try:
        return sigma.expand(len(x), 1, *x.shape[2:])
    except RuntimeError:
        raise UsageError(
            f"sigma is one number, one an item, or a map (batch, 1, *space) for values of shape {tuple(x.shape)}; "
            f"got shape {tuple(sigma.shape)}"
        ) from None


def padded(x: Tensor, multiple: int) -> Tensor:
    """Continue `x` by its mirror image to a multiple along each axis of space; short axes are mirrored repeatedly."""
    for axis in range(2, x.ndim):
        length = x.shape[axis]
        if length % multiple:
            index = torch.arange(-(-length // multiple) * multiple, device=x.device)
            period = max(2 * length - 2, 1)
            index = index % period
            x = x.index_select(axis, torch.minimum(index, (period - index).clamp(min=0)) if length > 1 else index)
    return x


def luminance_basis(channels: int) -> Tensor:
    """Orthonormal rows: the mean of the channels, then differences from it (Helmert's matrix)."""
    rows = torch.ones(channels, channels, dtype=torch.float64).tril(1)
    for index in range(1, channels):
        rows[index] = torch.cat([torch.ones(index), torch.tensor([-float(index)]), torch.zeros(channels - index - 1)])
    rows[0] = 1
    return (rows / rows.norm(dim=1, keepdim=True)).float()


def arranged(x: Tensor) -> Tensor:
    """Put channels last in memory, where convolutions of images are fastest."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def lying(kernel: Tensor) -> Tensor:
    """Return a kernel with its axes as training has them in memory, a view: of an image, channels last."""
    return kernel.permute(0, 2, 3, 1) if kernel.ndim == 4 else kernel


def standing(numbers: Tensor, kernel: Tensor) -> Tensor:
    """Return numbers that go through a kernel as it lies in memory, in the shape of that kernel, a view."""
    lies = numbers.view(lying(kernel).shape)
    return lies.permute(0, 3, 1, 2) if lies.ndim == 4 else lies
