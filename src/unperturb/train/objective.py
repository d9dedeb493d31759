"""What training makes small: one loss value an item. It decides which point of the posterior the network becomes.

Of all functions of y, the squared error ‖φ(y) − x‖² is least on average for the posterior mean, φ(y) = E[x | y]; the
absolute error Σ_i |φ_i(y) − x_i| for the median of every component by itself, P(x_i < φ_i(y) | y) = 1/2 (Koenker and
Bassett, "Regression quantiles", 1978, with θ = 1/2). Tweedie's formula holds for the mean alone, and with it
all that is built on it: draws and covariances need a network trained with squared error.

Either is of the size of the noise where noise is weak, so that without a weight the strong levels would be all that is
learned. With d components, and σ₀ = 0.02 of the values' range,

    squared     ‖φ(y, σ) − x‖² / (d · (σ² + σ₀²))
    absolute    Σ_i |φ_i(y, σ) − x_i| / (d · √(σ² + σ₀²))

every level above σ₀ counts about alike, and the levels at which nothing is left to remove do not take over.
"""

from collections.abc import Callable

from torch import Tensor

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``objective(estimate, clean, sigma) -> (batch,)``."""

FLOOR = 0.02


def squared_error(estimate: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Return the weighted squared error of each item: least where the estimate is the posterior mean.

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


def absolute_error(estimate: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Return the weighted absolute error of each item: least where the estimate is the median, component by component.

    Parameters
    ----------
    estimate, clean, sigma
        As for `squared_error`.

    Returns
    -------
    Tensor
        ``(batch,)``.
    """
    return (estimate - clean).abs().flatten(1).mean(1) / (sigma.square() + FLOOR**2).sqrt()


OBJECTIVES: dict[str, Objective] = {"squared": squared_error, "absolute": absolute_error}
"""All of them by the name that settings and recipes give."""
