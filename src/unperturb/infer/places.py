"""Where in a large signal the answer is most open, place by place.

The posterior of an image has as many directions as pixels, and those of an image as a whole mix what happens in its
corners. What a person can look at is a small window: the posterior of what is in it, given everything that was seen.
For that the denoise function is needed on the window and what surrounds it only, as far as the network looks in
earnest.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.density import Density, marginal, max_entropy, of_draws
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Tiled
from unperturb.infer.uncertainty import Components, components, components_of_draws
from unperturb.model.denoiser import Bound, Denoise

MARGIN = 32
"""Pixels around a window that are looked at with it: the variance along components changes by less than 3 % for it."""


@dataclass(frozen=True, eq=False)
class Place:
    """A window of a signal and what its posterior looks like.

    Attributes
    ----------
    window
        Slices of space.
    components
        Of the posterior within the window; directions have the window's shape.
    densities
        Of each component: the posterior along it, about the best guess.
    counted
        Whether modes could be told from chance. Where they could not, the densities are Gaussians.
    """

    window: tuple[slice, ...]
    components: Components
    densities: tuple[Density, ...]
    counted: bool = True

    @property
    def is_open(self) -> bool:
        """Whether the posterior has more than one mode along one of the components."""
        return any(len(density.modes) > 1 for density in self.densities)


def widest_windows(spread: Tensor, size: int, count: int) -> list[tuple[slice, ...]]:
    """Return the windows with the largest variance, the largest first, none of which overlap.

    Parameters
    ----------
    spread
        Standard deviation of every component of one signal, ``(channel, *space)``.
    size
        Side of the windows, on whose grid they lie; cut to the signal.
    count
        How many, at most.

    Raises
    ------
    UsageError
        Where a number is below 1.
    """
    if min(size, count) < 1:
        raise UsageError(f"windows have a side of at least 1 and are at least 1 in number; got {size} and {count}")
    variance = spread.double().square().sum(0).numpy()
    corners = [range(0, max(length - size, 0) + 1, min(size, length)) for length in variance.shape]
    windows = [
        tuple(slice(corner, min(corner + size, length)) for corner, length in zip(place, variance.shape, strict=True))
        for place in np.array(np.meshgrid(*corners, indexing="ij")).reshape(variance.ndim, -1).T.tolist()
    ]
    return sorted(windows, key=lambda window: -float(variance[window].sum()))[:count]


def look(
    posterior: Posterior,
    window: tuple[slice, ...],
    n_components: int = 3,
    *,
    iterations: int = 6,
    n_draws: int = 0,
    seed: int = 0,
) -> Place:
    """Return what the posterior of a window looks like, given everything that was seen.

    Parameters
    ----------
    posterior
        Over a batch of one signal ``(1, channel, *space)``.
    window
        Slices of space.
    n_components, iterations
        As for `components`.
    n_draws
        How many draws to make for the densities. Hundreds are worth their time where signals are small: they go all the
        way down, while the derivative asks the denoiser at the noise of the start alone, and a network that is not
        perfect knows there less. Without draws, densities are those of `marginal`.
    seed
        Of the draws.
    """
    near, inside = surroundings(posterior, window)
    n_components = min(n_components, near.start[0][(slice(None), *inside)].numel())
    if posterior.blind:
        gaps = (sample(near, max(n_draws, FEW), seed=seed)[:, 0] - near.mean[0])[(slice(None), slice(None), *inside)]
        return of_gaps(window, gaps, n_components)
    found = components(near, n_components, region=inside, iterations=iterations)
    if n_draws:
        gaps = (sample(near, n_draws, seed=seed)[:, 0] - near.mean[0]).flatten(1)
        densities = tuple(of_draws(gaps @ direction.flatten()) for direction in found.directions)
    else:
        densities = tuple(marginal(near, direction) for direction in found.directions)
    directions = found.directions[(slice(None), slice(None), *inside)].clone()
    return Place(window, replace(found, directions=directions), densities)


def of_gaps(window: tuple[slice, ...], gaps: Tensor, n_components: int = 3) -> Place:
    """Return what the posterior of a window looks like from draws of it alone.

    Parameters
    ----------
    window
        Slices of space.
    gaps
        ``(n, channel, *window)``: draws minus the best guess.
    n_components
        How many directions, at most.
    """
    found = components_of_draws(gaps, n_components)
    if len(gaps) >= MANY:
        rows = gaps.flatten(1)
        return Place(window, found, tuple(of_draws(rows @ direction.flatten()) for direction in found.directions))
    normal = (max_entropy(0.0, variance, 0.0, 3 * variance**2) for variance in found.variances.tolist() if variance > 0)
    return Place(window, found, tuple(density for density in normal if density is not None), counted=False)


def surroundings(
    posterior: Posterior, window: tuple[slice, ...], margin: int = MARGIN
) -> tuple[Posterior, tuple[slice, ...]]:
    """Return the posterior of a window with what surrounds it, and where in that the window is.

    What was seen is cut, not the answer: near the cut the denoiser sees less than it could. Where it cannot be cut
    (`can_be_cut`), all of it surrounds the window.
    """
    if not can_be_cut(posterior):
        return posterior, window
    space = posterior.start.shape[2:]
    # Networks work on grids of pixels; a margin that begins on a multiple of 16 does not shift them.
    lows = [max(part.start - margin, 0) // 16 * 16 for part in window]
    highs = [min(part.stop + margin, length) for part, length in zip(window, space, strict=True)]
    outer = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
    inside = tuple(slice(part.start - low, part.stop - low) for part, low in zip(window, lows, strict=True))
    level = torch.as_tensor(posterior.sigma)
    if level.ndim > 1:
        level = level[(slice(None), slice(None), *outer)]
    start = posterior.start[(slice(None), slice(None), *outer)]
    return replace(posterior, denoise=_cut(posterior.denoise, outer), start=start, sigma=level), inside


def can_be_cut(posterior: Posterior) -> bool:
    """Whether a part of the posterior can be looked at alone.

    What was seen through an operator, such as a blur, lies within the denoise function as a whole.
    """
    tiled = posterior.denoise
    return not posterior.blind or (isinstance(tiled, Tiled) and isinstance(tiled.denoise, Bound))


def _cut(denoise: Denoise, space: tuple[slice, ...]) -> Denoise:
    """Return a denoise function for a part of space; what it was bound to is cut as well."""
    if isinstance(denoise, Tiled) and isinstance(denoise.denoise, Bound):
        return Tiled(denoise.denoise.part(0, space), denoise.compute)
    return denoise


FEW, MANY = 24, 128
"""Draws of a place from which directions are found where there is no other way; and from which modes can be counted."""
