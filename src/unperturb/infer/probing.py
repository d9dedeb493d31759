"""Products with the covariance of a posterior, (∂D/∂y) Σ v, and what a few of them tell: trace, asymmetry, diagonal.

The covariance itself is never formed; it has as many entries as the signal has components, squared.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.derivative import product
from unperturb.infer.eigen import Apply
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.posterior import Posterior
from unperturb.infer.tiled import Tiled

SMALL = 4096
"""Components up to which derivatives are taken by the four-point formula, at four evaluations each, instead of one."""

PROBES = 8
"""Products spent on trace and asymmetry: the latter is found to about an eighth."""

_AT_ONCE = 4_000_000  # values in one batch of evaluations


def precise(posterior: Posterior) -> Posterior:
    """Return the posterior in single precision, where its answers come in less: their differences would be noise.

    Measured with the model `natural` at σ = 25/255: in bfloat16 the map of `spread` is off by 70 %, and the covariance
    appears twice as asymmetric as it is.
    """
    tiled = posterior.denoise
    if not isinstance(tiled, Tiled) or tiled.dtype == torch.float32:
        return posterior
    compute = replace(tiled.compute, precision="float32")
    return replace(posterior, denoise=Tiled(tiled.denoise, compute, tiled.done))


def times(posterior: Posterior, v: Tensor, mean: Tensor) -> Tensor:
    """Return ∂D/∂y v, as exactly as the size of the signal allows; the mean is known."""
    return product(posterior, v, mean=None if v[0].numel() <= SMALL else mean)


def covariance(posterior: Posterior, inside: Tensor, count: Callable[[int], None]) -> Apply:
    """Return the covariance within a region as a function of rows ``(row, all components of the signal)``."""
    shape = posterior.start.shape
    variance = posterior.spread_of_noise.square()
    window = inside.to(posterior.start)
    mean = posterior.mean

    def apply(rows: Tensor) -> Tensor:
        images = []
        for part in parts_of(rows, rows.shape[1]):
            moved = variance * part.view(-1, *shape[1:])
            image = times(posterior.repeated(len(part)), moved, mean.expand_as(moved))
            images.append((image * window).flatten(1))
            count(len(part))
        return torch.cat(images)

    return apply


def parts_of(rows: Tensor, size: int) -> list[Tensor]:
    """Cut rows that stand for signals of some size into as many as are computed at once."""
    count = max(1, _AT_ONCE // size)
    return [rows[begin : begin + count] for begin in range(0, len(rows), count)]


def probed(apply: Apply, inside: Tensor, dtype: torch.dtype, seed: int) -> tuple[float, float]:
    """Return estimates of the trace of a matrix, and of ‖C − Cᵀ‖ / ‖C‖.

    For signs z and w that are independent, E (z·Cw − w·Cz)² = ‖C − Cᵀ‖², and E ‖Cz‖² = ‖C‖².
    """
    signs = _signs([(seed, 0, number) for number in range(PROBES)], inside.shape, dtype)
    rows = (signs * inside).flatten(1)
    images = apply(rows)
    between = (rows @ images.T).double()
    above = torch.triu_indices(PROBES, PROBES, 1)
    unlike = (between - between.T)[above[0], above[1]].square().mean().sqrt()
    size = images.double().square().sum(1).mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    return float(between.diagonal().mean()), float(unlike / size)


def diagonal(posterior: Posterior, probes: int, seed: int) -> Tensor:
    """Return the diagonal of the covariance, of the shape of the start."""
    posterior = precise(posterior)
    start = posterior.start
    if probes < 1:
        raise UsageError(f"the number of probes is at least 1; got {probes}")
    colour, count = _colours(start.shape[1:], probes)
    noise = posterior.spread_of_noise
    total = torch.zeros_like(start)
    with torch.no_grad():
        for number in range(count):
            signs = _signs([(seed, item, number) for item in range(len(start))], start.shape[1:], start.dtype)
            # Each place moves by the same share of its own noise: half of Σ on either side.
            moved = noise * signs * (colour == number)
            total += moved * times(posterior, moved, posterior.mean)
    return total


def _colours(shape: torch.Size, probes: int) -> tuple[Tensor, int]:
    """Give every component of a signal a number, so that those of one number are far from each other; and how many."""
    if len(shape) == 1:
        count = min(probes, shape[0])
        return torch.arange(shape[0]) % count, count
    spacing = max(1, int(probes ** (1 / (len(shape) - 1)) + 1e-9))
    colour, count = torch.arange(shape[0]).view(-1, *(1,) * (len(shape) - 1)), shape[0]
    for axis, length in enumerate(shape[1:], 1):
        period = min(spacing, length)
        place = torch.arange(length) % period
        colour, count = colour + count * place.view(-1, *(1,) * (len(shape) - 1 - axis)), count * period
    return colour, count


def _signs(keys: list[tuple[int, ...]], shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a field of -1 and 1 for each key, both as likely."""
    return torch.where(keyed_normal(keys, shape) < 0, -1.0, 1.0).to(dtype)
