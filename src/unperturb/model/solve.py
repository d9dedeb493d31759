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
    u, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    size = begun = inner(residual, residual)
    for iteration in range(iterations):
        moved = first if iteration == 0 and first is not None else matrix(direction)
        bend = inner(direction, moved)
        # An item that is solved, or whose M is seen not to be positive, stays where it is.
        pace = torch.where((bend > 0) & (size > 1e-12 * begun), size / bend, torch.zeros_like(size))
        u.addcmul_(pace, direction)
        residual.addcmul_(pace, moved, value=-1)
        before, size = size, inner(residual, residual)
        if early and (not (pace > 0).any() or bool((size <= 1e-12 * begun).all())):
            break
        direction.mul_(size / before.clamp(min=torch.finfo(size.dtype).tiny)).add_(residual)
    return u


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each item, in a shape that broadcasts to it."""
    return (one * other).flatten(1).sum(1).view(-1, *(1,) * (one.ndim - 1))
