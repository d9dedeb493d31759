"""Point sets in the plane on which everything a denoising autoencoder does can be seen.

All have about unit variance in each component, which is what a `VectorNet` expects. All but the mixture are curves, drawn
with a thin pen: whatever lies off the line is wrong, and one sees it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.model.exact import Empirical, GaussianMixture

Points = NDArray[np.float32]

PEN = 0.03
"""Standard deviation of the points about their curve."""


class Exact(Protocol):
    """What is known of a point set in closed form: the posterior mean, and draws from the posterior."""

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return E[clean | x]."""
        ...

    def sample_posterior(self, y: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
        """Draw one clean point for each noisy one."""
        ...


@dataclass(frozen=True)
class PointSet:
    """A distribution in the plane.

    Attributes
    ----------
    name
        For people.
    draw
        ``draw(generator, n) -> (n, 2)``.
    exact
        ``exact(n)``: its denoise function in closed form; where there is none, that of a cloud of n points of it.
    middle
        A place, ``(x, y)``, from which the data cannot tell which way to go: there the mean lies where no data is.
    """

    name: str
    draw: Callable[[np.random.Generator, int], Points]
    exact: Callable[[int], Exact]
    middle: tuple[float, float]


def mixture() -> GaussianMixture:
    """Return the mixture of four round Gaussians that is the toy of the tests."""
    means = torch.tensor([[0.0, -2.0], [0.4, 2.0], [1.5, 0.0], [-1.5, 0.5]])
    return GaussianMixture.isotropic(torch.tensor([0.3, 0.3, 0.2, 0.2]), means, 0.35)


def _on_curve(curve: Callable[[Points], Points]) -> Callable[[np.random.Generator, int], Points]:
    """Return a `draw` of points along ``curve(t)``, t uniform in 0 … 1, moved off it by the width of the pen."""

    def draw(generator: np.random.Generator, n: int) -> Points:
        return curve(generator.random(n, np.float32)) + PEN * generator.standard_normal((n, 2), np.float32)

    return draw


def _arc(t: Points, start: float, length: float, radius: float) -> Points:
    """Return points on a circle about the origin; angles in turns, against the clock from the right."""
    angle = 2 * np.pi * (start + length * t)
    return np.asarray(radius * np.stack([np.cos(angle), np.sin(angle)], -1), np.float32)


def _moons(t: Points) -> Points:
    """Two half circles, each of which reaches into the other."""
    upper = t < 0.5
    x, y = _arc(np.where(upper, t, t - 0.5), 0.0, 1.0, 1.25).T
    return np.stack([np.where(upper, x - 0.62, 0.62 - x), np.where(upper, y - 0.3, 0.3 - y)], -1)


def _spiral(t: Points) -> Points:
    """One and three quarter turns outwards, equally many points on equal lengths of the line."""
    turn = 1.75 * np.sqrt(0.02 + 0.98 * t)
    return (1.3 * turn[:, None] * _arc(turn, 0.0, 1.0, 1.0)).astype(np.float32)


def _cloud(draw: Callable[[np.random.Generator, int], Points]) -> Callable[[int], Exact]:
    return lambda n: Empirical(torch.from_numpy(draw(np.random.default_rng(2**20), n)))


def _of_mixture(generator: np.random.Generator, n: int) -> Points:
    source = torch.Generator().manual_seed(int(generator.integers(2**63)))
    return np.asarray(mixture().sample(n, source).numpy(), np.float32)


def _curve(name: str, curve: Callable[[Points], Points], middle: tuple[float, float]) -> PointSet:
    draw = _on_curve(curve)
    return PointSet(name, draw, _cloud(draw), middle)


POINT_SETS: dict[str, PointSet] = {
    "ring": _curve("ring", lambda t: _arc(t, 0.0, 1.0, 1.4), (0.25, 0.15)),
    "open-ring": _curve("open ring", lambda t: _arc(t, 0.125, 0.75, 1.4), (0.3, 0.0)),
    "moons": _curve("two moons", _moons, (0.0, 0.0)),
    "spiral": _curve("spiral", _spiral, (0.0, 0.0)),
    "mixture": PointSet("mixture of four", _of_mixture, lambda _: mixture(), (0.0, 0.1)),
}
"""All of them by the name that the command line takes."""
