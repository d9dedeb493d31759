"""What a conditional network is shown of the observation y, beside the noisy signal x.

The values of y, with what was erased filled in from around it; the mask, which says what was observed; and how far
off the filling may be. The filling (`unperturb.model.filling`) is a start from which less is left to learn. Its error
is measured where it is known: the pattern of holes is moved, more of y taken away by it, filled in, and compared. A
network looks at an image twice: its first answer is the filling of its second look, so that what is near the edge of a
hole by then can help what is further in.

Where nothing was erased, what was done is for the network to find out, and how rough an image is where it is flattest
stands for the error: a network sees a part of it at a time, and cannot tell by itself what is noise and what texture.

All of it is homogeneous: where y is multiplied by a number, values, scale and error are, and the mask is what it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from unperturb.errors import UsageError
from unperturb.model.filling import filled

BLIND = 20.0
"""Noise of so many times the scale, and more, says nothing of the signal: x is not looked at there."""

ERRORS = (0.04, 0.4)
"""Least and largest error of a filling, in units of the scale."""

ELSEWHERE = 0.15
"""The same where nothing tells."""

ROUGH = (0.01, 0.4)
"""Least and largest roughness, which stands for the error where nothing is erased, in the same units."""

NEAR, CELL, FLAT = 5, 8, 0.1
"""Of roughness: a value is compared with so many around it, in cells of so many, and the flattest share says it."""

MOVES = (0.382, 0.146)
"""Shares of the length of every axis by which patterns of holes are moved."""


@dataclass(frozen=True, eq=False)
class Given:
    """An observation as a network takes it.

    Attributes
    ----------
    values
        ``(batch, channel, *space)`` or ``(batch, feature)``; erased components filled in.
    mask
        ``(batch, 1, *space)`` or ``(batch, feature)``, in the type of the values: 1 where observed, 0 where erased.
    scale
        ``(batch,)``: half the root of the mean square of what was observed; 1 where nothing was. For vectors always 1.
    error
        ``(batch, 1, *space)``: how far off the values may be. Where they were observed, the noise they are known to
        have; elsewhere, what is observed tells. For vectors ``(batch, feature)``, 0 or 1.
    """

    values: Tensor
    mask: Tensor
    scale: Tensor
    error: Tensor

    def rows(self, items: list[int]) -> "Given":
        """Return some items of the batch, in this order; an item may come several times."""
        return Given(self.values[items], self.mask[items], self.scale[items], self.error[items])

    def window(self, space: tuple[slice, ...]) -> "Given":
        """Return a part of space; the scale stays that of the whole."""
        part = (slice(None), slice(None), *space)
        return Given(self.values[part], self.mask[part], self.scale, self.error[part])

    def refined(self, first: Tensor) -> "Given":
        """Return it with a first answer, of the shape of the values, in place of the filling; for axes of space.

        The error stays that of the filling. With a smaller one a draw would trust the first answer more than its own
        noisy signal, and draws would be too much like it.
        """
        return replace(self, values=torch.where(self.mask == 0, first, self.values))

    def to(self, like: Tensor) -> "Given":
        """Return it in the type and on the device of a tensor."""
        return Given(self.values.to(like), self.mask.to(like), self.scale.to(like), self.error.to(like))


Fill = Callable[[Tensor, Tensor], Tensor]
"""Something that does as `filled` does."""


def show(values: Tensor, mask: Tensor | None = None, sigma: Tensor | None = None, fill: Fill = filled) -> Given:
    """Make of an observation what a network is shown of it.

    Parameters
    ----------
    values
        ``(batch, channel, *space)`` or ``(batch, feature)``. What they are where the mask says erased makes no
        difference, NaN included.
    mask
        Boolean, True where observed: ``(batch or 1, 1, *space)``, or ``(batch or 1, feature)`` for vectors; None where
        everything was observed.
    sigma
        ``(batch,)``, noise of what was observed, where it is known.
    fill
        How to fill in what was erased.

    Raises
    ------
    UsageError
        Where the mask is not boolean or does not fit, or an observed value is not finite.
    """
    shape = values.shape if values.ndim == 2 else (len(values), 1, *values.shape[2:])
    observed = torch.ones(shape, dtype=torch.bool, device=values.device) if mask is None else mask
    if observed.dtype != torch.bool or observed.shape[1:] != shape[1:] or len(observed) not in (1, len(values)):
        raise UsageError(
            f"a mask is boolean, of shape {tuple(shape)} for values of shape {tuple(values.shape)}; got "
            f"{observed.dtype} of shape {tuple(observed.shape)}"
        )
    observed = observed.expand(shape)
    seen = values.masked_fill(~observed, 0)
    if not seen.isfinite().all():
        raise UsageError("some observed values are NaN or infinite; mark them as missing, or replace them")
    if values.ndim == 2:
        return Given(seen, observed.to(values), values.new_ones(len(values)), (~observed).to(values))
    count = observed.flatten(1).sum(1) * values.shape[1]
    square = seen.square().flatten(1).sum(1) / count.clamp(min=1)
    scale = torch.where(square > 0, square.sqrt() / 2, torch.ones_like(square))
    error = _error(seen, observed, scale, fill).view(-1, *(1,) * (values.ndim - 1)).expand(shape)
    if sigma is not None:
        error = torch.where(observed, sigma.to(values).view(-1, *(1,) * (values.ndim - 1)), error)
    return Given(seen if mask is None else fill(seen, observed), observed.to(values), scale, error)


def _roughness(values: Tensor, scale: Tensor) -> Tensor:
    """Return how far values are from the mean around them, where they are flattest: ``(batch,)``.

    Where noise is added that is how strong it is, as far as neighbours do not have it in common; where an image was
    blurred it is little. A network learns what it means of its own perturbation. It sees a part of an image at a time,
    and what is noise and what is texture the flat parts elsewhere say. Cells without any variation (clipped ones) say
    nothing.
    """
    axes = values.ndim - 2
    if min(values.shape[2:]) < NEAR + CELL - 1:
        return ELSEWHERE * scale
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[axes - 1]
    edge = NEAR // 2
    middle = values[(slice(None), slice(None), *(slice(edge, -edge),) * axes)]
    square = (middle - pool(values, NEAR, 1)).square().mean(1, keepdim=True)
    cells = pool(square, CELL).flatten(1).sqrt()
    low, high = (share * scale for share in ROUGH)
    flattest = cells.masked_fill(cells < 1e-4 * scale[:, None], torch.nan).nanquantile(FLAT, 1)
    return torch.where(flattest.isnan(), low, flattest).clamp(low, high)


def _error(seen: Tensor, observed: Tensor, scale: Tensor, fill: Fill) -> Tensor:
    """Return how far off values that were not observed, or are of unknown noise, may be: ``(batch,)``."""
    whole = observed.flatten(1).all(1)
    if whole.all():
        return _roughness(seen, scale)
    square, count = torch.zeros_like(scale), torch.zeros_like(scale)
    axes = tuple(range(2, observed.ndim))
    for share in MOVES:
        left = observed & observed.roll([round(share * length) for length in observed.shape[2:]], axes)
        tested = (observed & ~left).expand_as(seen)
        gap = (fill(seen.masked_fill(~left, 0), left) - seen).masked_fill(~tested, 0)
        square += gap.square().flatten(1).sum(1)
        count += tested.flatten(1).sum(1)
    low, high = (share * scale for share in ERRORS)
    found = torch.where(count > 0, (square / count.clamp(min=1)).sqrt(), ELSEWHERE * scale).clamp(low, high)
    return torch.where(whole, _roughness(seen, scale), found)
