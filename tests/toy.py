"""The toy of the laws, and a network that was trained on it: what several test files hold each other against."""

import functools
import time

import numpy as np
import torch

from unperturb.model.denoiser import Denoiser
from unperturb.model.exact import GaussianMixture
from unperturb.model.network import VectorNetSettings
from unperturb.train.fit import fit
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

MEANS = ((0.0, -2.0), (0.4, 2.0), (1.5, 0.0), (-1.5, 0.5))
WEIGHTS = (0.3, 0.3, 0.2, 0.2)
SD = 0.35

SETTINGS = FitSettings(
    "gaussian:sigma=0.05..3.5",
    VectorNetSettings(features=2, width=64, layers=3),
    steps=800,
    batch=4,
    share=2,
    rate=5e-3,
    warmup=50,
    decay=0.6,
    average=0.99,
)


def toy_mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Four round components in the plane, in closed form."""
    return GaussianMixture.isotropic(torch.tensor(WEIGHTS, dtype=dtype), torch.tensor(MEANS, dtype=dtype), SD)


def toy_points(generator: np.random.Generator, _: int) -> np.ndarray:
    """Draw a block of its points: what training takes for one item."""
    which = generator.choice(len(WEIGHTS), 512, p=WEIGHTS)
    return (np.array(MEANS)[which] + SD * generator.standard_normal((512, 2))).astype(np.float32)


@functools.cache
def toy_training() -> tuple[Denoiser, float]:
    """Train a denoiser on the toy, once a process; also the processor time that it took, in seconds."""
    state = FitState.start(SETTINGS)
    begin = time.process_time()
    for _ in fit(state, toy_points, precision="float32"):
        pass
    return state.averaged, time.process_time() - begin


def toy_denoiser() -> Denoiser:
    """Return the denoiser that was trained on the toy."""
    return toy_training()[0]
