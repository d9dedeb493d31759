"""Filling in what is missing without anything learned: the smoothest surface through what was observed.

A hole takes the surface u that is least bent and stretched,

    Σ |Δu|² + TENSION |∇u|²,        u = y where y was observed

a thin plate under some tension (Franke, "Thin plate splines with tension", 1985), which overshoots less in large holes
than one without. It is found from coarse to fine: on a pyramid of ever coarser means of what was observed every level
starts from the one above, enlarged ("pull-push": Gortler, Grzeszczuk, Szeliski and Cohen, "The lumigraph", 1996,
section 3.4), and takes a few conjugate gradients from there. So a large hole costs no more than a small one (cascadic
multigrid: Bornemann and Deuflhard, 1996).

In one dimension gaps are spanned by straight lines: what is bent least overshoots far where a gap is long.
"""

import torch
from torch import Tensor
from torch.nn import functional

from unperturb.model.solve import conjugate_gradients

TENSION = 0.3
"""What stretching costs beside bending, with a pixel as the unit of length."""

ITERATIONS = 10
"""Conjugate gradients at every level."""


def filled(values: Tensor, mask: Tensor) -> Tensor:
    """Return values with what was erased filled in smoothly; 0 where nothing was observed.

    Parameters
    ----------
    values
        ``(batch, channel, *space)``, finite, 0 where erased.
    mask
        Boolean, ``(batch, 1, *space)``.
    """
    space = values.shape[2:]
    if max(space) == 1 or (not values.is_cuda and mask.all()):  # to ask a GPU would stall it
        return values
    if len(space) == 1:
        return _spanned(values, mask)
    sides = [min(2, length) for length in space]
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(space) - 1]
    share = pool(mask.to(values), sides, ceil_mode=True)
    means = pool(values, sides, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = filled(means, share > 0)
    mode = ("linear", "bilinear", "trilinear")[len(space) - 1]
    enlarged = functional.interpolate(coarse, space, mode=mode, align_corners=False)
    return _smoothed(torch.where(mask, values, enlarged), mask)


def _spanned(values: Tensor, mask: Tensor) -> Tensor:
    """Return signals whose gaps are straight lines, level at either end; 0 where nothing was observed."""
    length = values.shape[-1]
    place = torch.arange(length, device=values.device)
    before = torch.where(mask, place, -1).cummax(-1).values
    after = torch.where(mask, place, length).flip(-1).cummin(-1).values.flip(-1)
    none_before, none_after = before < 0, after >= length
    first = torch.where(none_before, after, before).clamp(0, length - 1)
    last = torch.where(none_after, before, after).clamp(0, length - 1)
    share = ((place - first) / (last - first).clamp(min=1)).to(values)
    low, high = (values.gather(-1, each.expand_as(values)) for each in (first, last))
    return torch.where(mask, values, torch.lerp(low, high, share))


def _smoothed(u: Tensor, mask: Tensor) -> Tensor:
    """Return it with what was erased moved towards the smoothest surface."""
    erased = (~mask).to(u)

    def force(v: Tensor) -> Tensor:
        bent = _laplacian(v)
        return _laplacian(bent).sub_(bent, alpha=TENSION).mul_(erased)

    return conjugate_gradients(force, force(u).neg_(), ITERATIONS, early=not u.is_cuda).add_(u)


def _laplacian(u: Tensor) -> Tensor:
    """Return the sum of second differences; at the edge, u goes on by its mirror image. It is its own adjoint."""
    total = torch.zeros_like(u)
    for axis in range(2, u.ndim):
        slope = u.diff(dim=axis)
        total.narrow(axis, 0, slope.shape[axis]).add_(slope)
        total.narrow(axis, 1, slope.shape[axis]).sub_(slope)
    return total
