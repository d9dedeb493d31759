"""Linear systems M u = b of which M is only a function: conjugate gradients, a batch at a time, each item by itself."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor],
    right: Tensor,
    iterations: int,
    first: Tensor | None = None,
    *,
    early: bool = True,
) -> Tensor:
    """Solve M u = right for a symmetric positive M, each item by itself (Hestenes and Stiefel, 1952).

    Parameters
    ----------
    matrix
        The function v ↦ M v.
    right
        ``(batch, …)``.
    iterations
        The most; fewer where the residual is a millionth.
    first
        M applied to `right`, where it is known.
    early
        Whether to end as soon as all are solved. To find out stalls a GPU; what is solved stays as it is anyway.
    """
    u, residual, direction = torch.zeros_like(right), right, right
    size = begun = inner(residual, residual)
    going = torch.ones_like(size, dtype=torch.bool)
    for iteration in range(iterations):
        moved = first if iteration == 0 and first is not None else matrix(direction)
        bend = inner(direction, moved)
        # An item that is solved, or whose M is seen not to be positive, stays where it is from then on.
        going = going & (bend > 0) & (size > 1e-12 * begun)
        pace = torch.where(going, size / bend, torch.zeros_like(size))
        u, residual = torch.addcmul(u, pace, direction), torch.addcmul(residual, pace, moved, value=-1)
        before, size = size, inner(residual, residual)
        if early and (not going.any() or bool((size <= 1e-12 * begun).all())):
            break
        direction = torch.addcmul(residual, size / before.clamp(min=torch.finfo(size.dtype).tiny), direction)
    return u


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each item, in a shape that broadcasts to it."""
    return (one * other).flatten(1).sum(1).view(-1, *(1,) * (one.ndim - 1))
