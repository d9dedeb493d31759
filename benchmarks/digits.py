"""How near a conditional network comes to the exact answer, in a world of digits.

::

    python -m benchmarks.digits [--share 0.8] [--steps 4000]

In this world one of ten digits is drawn, all equally likely, and then an image of it, of 8 × 8 pixels: from a Gaussian
with the mean and the covariance of that digit's images in scikit-learn's set, and a standard deviation of 0.1 more in
every pixel. What may be behind erased pixels is then a mixture of Gaussians, exactly. A network is trained on draws
from this world; other draws are erased in part and given to it. Its best guess should have the error of the exact
mean, and its draws twice that.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import Array, need
from unperturb.infer.posterior import blind_posterior
from unperturb.infer.sample import sample
from unperturb.model.exact import GaussianMixture
from unperturb.model.network import VectorNetSettings
from unperturb.model.spec import parse
from unperturb.train.fit import fit
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

SIDE, BLUR = 8, 0.1
ITEMS = 256
"""Images a batch."""


@dataclass(frozen=True)
class Row:
    """A network beside the exact answer.

    Attributes
    ----------
    least
        Mean squared error of the exact mean, an erased pixel.
    mean, draw
        That of the best guess, and of a draw, in units of it: 1 and 2 where they are exact.
    """

    share: float
    steps: int
    images: int
    least: float
    mean: float
    draw: float
    seconds: float


def world() -> GaussianMixture:
    """Return the world of digits; features are the pixels of an image, row by row."""
    need("sklearn")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.data / 16)
    each = [images[torch.from_numpy(digits.target == digit)] for digit in range(10)]
    noise = BLUR**2 * torch.eye(SIDE**2, dtype=torch.float64)
    return GaussianMixture(
        torch.full((10,), 0.1, dtype=torch.float64),
        torch.stack([images.mean(0) for images in each]),
        torch.stack([images.T.cov() + noise for images in each]),
    )


def exact(of: GaussianMixture, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the posterior of one image, ``(feature,)``, and the trace of its covariance."""
    operator = torch.eye(len(image), dtype=torch.float64)[mask]
    nothing = torch.zeros(len(operator), len(operator), dtype=torch.float64)
    posterior = of.observed(operator, image[mask], nothing)
    mean = posterior.weights @ posterior.means
    away = (posterior.means - mean).square().sum(1)
    return mean, posterior.weights @ (posterior.covariances.diagonal(dim1=1, dim2=2).sum(1) + away)


def draw_from(of: GaussianMixture, generator: np.random.Generator) -> Array:
    """Draw a batch of images, ``(batch, feature)``."""
    seeded = torch.Generator().manual_seed(int(generator.integers(2**63)))
    return of.sample(ITEMS, seeded).float().numpy()


def measure(share: float, steps: int, images: int, draws: int) -> Iterator[Row | str]:
    """Train, saying how it goes, and hold the network against the exact answer."""
    of, spec = world(), f"erase:fraction={share}"
    network = VectorNetSettings(SIDE**2, 512, 3)
    settings = FitSettings(spec, network, batch=4, share=2, steps=steps, rate=4e-3, warmup=50, decay=0.9, average=0.99)
    state, begin = FitState.start(settings), time.perf_counter()
    for progress in fit(state, lambda generator, _: draw_from(of, generator)):
        if progress.step % 100 == 0:
            yield f"step {progress.step} of {steps}, {progress.left:.0f} s left"
    seconds = time.perf_counter() - begin
    generator = torch.Generator().manual_seed(11)
    clean = of.sample(images, generator)
    y, mask, sigma = parse(spec)(clean.float(), generator)
    assert mask is not None
    answers = [exact(of, image, seen) for image, seen in zip(clean, mask, strict=True)]
    means = torch.stack([mean for mean, _ in answers])
    least = float(torch.stack([error for _, error in answers]).mean())
    posterior = blind_posterior(state.averaged.given(y, mask, sigma))
    # The distance to the truth is that to the exact mean, and what is left of the truth beside it, on average.
    excess = (posterior.mean - means).square().sum(1).mean()
    of_draws = (sample(posterior, draws, seed=1) - means).square().sum(2).mean()
    pixels = float((~mask).sum(1).double().mean())
    mean, draw = 1 + float(excess) / least, 1 + float(of_draws) / least
    yield Row(share, steps, images, least / pixels, mean, draw, seconds)


@click.command()
@click.option("--share", default=0.8, show_default=True, help="Of the pixels, erased.")
@click.option("--steps", default=4000, show_default=True, help="Of training.")
@click.option("--images", default=1000, show_default=True, help="To hold it against.")
@click.option("-n", "draws", default=4, show_default=True, help="Draws of each image.")
def main(share: float, steps: int, images: int, draws: int) -> None:
    """Measure, and print one line of JSON."""
    for told in measure(share, steps, images, draws):
        if isinstance(told, str):
            click.echo(told, err=True)
        else:
            click.echo(json.dumps(asdict(told)))


if __name__ == "__main__":
    main()
