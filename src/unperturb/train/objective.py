"""What training makes small: one loss value an item.

The squared error makes the network the posterior mean, φ(y, σ) = E[x | y]. Its size is that of σ² where noise is weak,
so that without a weight the strong levels would be all that is learned. With

    loss = ‖φ(y, σ) − x‖² / (d · (σ² + σ₀²)),        σ₀ = 0.02 of the values' range

every level above σ₀ counts about alike, and the levels at which nothing is left to remove do not take over.
"""

from collections.abc import Callable

from torch import Tensor

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``objective(estimate, clean, sigma) -> (batch,)``."""

FLOOR = 0.02


def squared_error(estimate: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Return the weighted squared error of each item.

    Parameters
    ----------
    estimate, clean
        ``(batch, ...)``.
    sigma
        ``(batch,)``, noise level, in the units of the values, whose range is about 1.

    Returns
    -------
    Tensor
        ``(batch,)``.
    """
    return (estimate - clean).square().flatten(1).mean(1) / (sigma.square() + FLOOR**2)
