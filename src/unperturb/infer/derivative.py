"""The derivative of a denoise function, which is the posterior covariance:  Cov[x | y] = σ² ∂D/∂y.

By finite differences, so that any denoise function will do: one that was compiled, one that computes in tiles, one
whose convolutions cannot be differentiated twice. A difference is taken over a stated share of the noise level, in the
component that moves the most for its noise; the four-point formula is exact for quartics (Abramowitz and Stegun,
25.3.6).
"""

import torch
from torch import Tensor

from unperturb.infer.posterior import Posterior

_FOUR_POINT = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
_ONE_SIDED = ((0, -1.0), (1, 1.0))


def share_of_noise(dtype: torch.dtype) -> float:
    """Return the default distance of finite differences in units of sigma: rounding and curvature weigh about alike."""
    return 1e-3 if dtype == torch.float64 else 2e-2


def product(
    posterior: Posterior, v: Tensor, *, x: Tensor | None = None, level: float = 1.0, mean: Tensor | None = None
) -> Tensor:
    """Return J v, the derivative of the denoise function at `x` along `v`.

    Parameters
    ----------
    posterior
        Whose denoise function.
    v
        Directions, one an item: shape of `x`.
    x, level
        Where; the start and its noise by default.
    mean
        The answer at `x`, where it is known. Then one further evaluation is made, one-sided, instead of four.

    Returns
    -------
    Tensor
        Shape of `v`. Zero where `v` is.
    """
    x = posterior.start if x is None else x
    # Relative to the noise of each place; where there is none, to a thousandth of the most, or to nearly nothing.
    noise = (posterior.spread_of_noise * level).expand(len(v), *x.shape[1:]).flatten(1)
    least = (1e-3 * noise.amax(1, keepdim=True)).clamp(min=torch.finfo(v.dtype).eps ** 2)
    furthest = (v.flatten(1).abs() / noise.clamp(min=least)).amax(1).clamp(min=torch.finfo(v.dtype).tiny ** 0.5)
    distance = (share_of_noise(x.dtype) / furthest).view(-1, *(1,) * (v.ndim - 1))
    total = torch.zeros_like(x)
    for steps, weight in _FOUR_POINT if mean is None else _ONE_SIDED:
        known = mean is not None and steps == 0
        total += weight * (mean if known and mean is not None else posterior.at(x + steps * distance * v, level))
    return total / distance


def jacobian(posterior: Posterior, *, x: Tensor | None = None, level: float = 1.0) -> Tensor:
    """Return ∂D/∂x of small signals as matrices, at four evaluations a component.

    Parameters
    ----------
    posterior, x, level
        As for `product`.

    Returns
    -------
    Tensor
        ``(batch, n, n)`` for signals of n components; the last axis is that of the input.
    """
    x = posterior.start if x is None else x
    columns = []
    for index in range(x[0].numel()):
        unit = torch.zeros_like(x).flatten(1)
        unit[:, index] = 1
        columns.append(product(posterior, unit.view_as(x), x=x, level=level).flatten(1))
    return torch.stack(columns, -1)
