"""Whether what was taken away looks like the noise that was assumed.

If the model and the noise level are right, a draw x from the posterior and the observation y belong together as a clean
signal and its noisy version do. So

    (y − x) / σ

is white with variance 1, exactly: a posterior predictive check (Rubin, "Bayesianly justifiable and relevant frequency
calculations for the applied statistician", 1984). The difference from the best guess is neither, even where all is
right: its covariance is σ² (I − J), small where the denoiser knows little.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.posterior import Posterior

CORRELATED = 0.05
"""Correlation of neighbours from which noise is not called white; `natural` leaves up to 0.03 by itself."""

OFF = 0.1
"""Relative error of the variance from which the level is called wrong."""


@dataclass(frozen=True)
class Residual:
    """What is left of an observation beside draws of what it was made of, in units of the noise that was assumed.

    Attributes
    ----------
    variance
        1 where the noise level is right.
    neighbours
        Correlation of neighbours along each axis of space; 0 where the noise is white.
    n_values
        How many values were seen, from which chance makes both uncertain.
    """

    variance: float
    neighbours: tuple[float, ...]
    n_values: int

    @property
    def is_white(self) -> bool:
        """Whether neighbours are uncorrelated, by a margin for what the model itself gets wrong, and for chance."""
        margin = CORRELATED + 3 / math.sqrt(self.n_values)
        return all(abs(correlation) <= margin for correlation in self.neighbours)

    @property
    def fits_level(self) -> bool:
        """Whether the variance is that of the noise level assumed, by like margins."""
        return abs(self.variance - 1) <= OFF + 3 * math.sqrt(2 / self.n_values)


def residual(posterior: Posterior, draws: Tensor, trusted: Tensor | None = None) -> Residual:
    """Compare what was seen with draws of what it could have been.

    Parameters
    ----------
    posterior
        Of signals with axes of space.
    draws
        ``(n, *start.shape)``.
    trusted
        Boolean, shape of the start: False for components to leave out, such as values that were clipped.

    Raises
    ------
    UsageError
        Where the signals have no axes of space, or nothing is left to compare.
    """
    start = posterior.start
    if start.ndim < 3:
        raise UsageError("neighbours need signals (batch, channel, *space)")
    sigma = posterior.spread_of_noise.expand_as(start)
    kept = sigma > 0 if trusted is None else trusted & (sigma > 0)
    if not kept.any():
        raise UsageError("there is no noise to look at: sigma is 0, or every value is clipped")
    gaps = torch.where(kept, (start - draws) / sigma.clamp(min=torch.finfo(start.dtype).tiny), 0).double()
    variance = float(gaps.square().sum() / (kept.sum() * len(draws)))
    correlations = (_correlation(gaps, kept, axis) / max(variance, 1e-12) for axis in range(2, start.ndim))
    return Residual(variance, tuple(correlations), int(kept.sum()))


def _correlation(gaps: Tensor, kept: Tensor, axis: int) -> float:
    """Return the mean product of neighbours along an axis of the start, where both are kept."""
    length = gaps.shape[axis + 1]
    both = kept.narrow(axis, 1, length - 1) & kept.narrow(axis, 0, length - 1)
    products = gaps.narrow(axis + 1, 1, length - 1) * gaps.narrow(axis + 1, 0, length - 1)
    return float(products.sum() / (both.sum() * len(gaps)).clamp(min=1))
