"""Training in seconds: a small network, clean signals drawn at will, and Gaussian noise of every level up to one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.app.lab.points import PointSet
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import VectorNetSettings
from unperturb.train.batches import Draw
from unperturb.train.fit import fit
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

Show = Callable[[int, int, str], None]
"""``show(done, total, note)``: how far training is."""

POINTS = FitSettings(
    "gaussian:sigma=0..1",
    VectorNetSettings(features=2, width=64, layers=3),
    *(800, 2, 1, 5e-3),
    warmup=20,
    decay=0.6,
    average=0.99,
)
"""For point sets. An item is a block of points, one for each of two threads."""

BLOCK = 256
"""Points an item."""


@dataclass(frozen=True)
class Learned:
    """A denoising autoencoder, and the seconds that it took to train it."""

    denoiser: Denoiser
    seconds: float


def learn(settings: FitSettings, draw: Draw, note: str = "", show: Show | None = None) -> Learned:
    """Train to the last step in float32, and return the running average of the weights.

    Parameters
    ----------
    settings
        What to train, and how.
    draw
        Gives clean signals.
    note, show
        For progress.
    """
    state = FitState.start(settings)
    for progress in fit(state, draw, precision="float32"):
        if show is not None:
            show(progress.step, progress.steps, note)
    denoiser = state.averaged.with_card(recipe=settings.as_dict())
    return Learned(denoiser.eval().requires_grad_(False), state.seconds)


def learn_points(
    points: PointSet,
    sigma: float,
    *,
    objective: str = "squared",
    steps: int = POINTS.steps,
    seed: int = 0,
    show: Show | None = None,
) -> Learned:
    """Train on a point set, under noise of every standard deviation from 0 to somewhat above `sigma`."""
    settings = replace(POINTS, perturb=perturbation(sigma), steps=steps, seed=seed, objective=objective)
    return learn(settings, lambda generator, _: points.draw(generator, BLOCK), points.name, show)


def perturbation(sigma: float) -> str:
    """Return the spec to train under, for use at `sigma` and below: the end of a range is learned least."""
    return f"gaussian:sigma=0..{1.25 * sigma:g}"


def noisy(clean: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    """Return signals with white noise of a standard deviation added."""
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def as_tensor(values: NDArray[np.float32]) -> torch.Tensor:
    """Return values as a tensor in float32."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
