"""`unperturb demo two-d`: what a denoising autoencoder learns, where one can see it.

A network is trained with squared error on points of the plane under Gaussian noise, and asked four things: where its
arrows φ(x̃) − x̃ point, where its answers land, what can be drawn from the posterior with it, and how far all of that is
from the exact answer. The answers are means, and the mean of a ring's two sides lies where the ring is not.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unperturb.app.lab import pictures
from unperturb.app.lab.learn import POINTS, Learned, Show, as_tensor, learn_points, noisy
from unperturb.app.lab.points import POINT_SETS, Exact, PointSet
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample
from unperturb.model.denoiser import Denoise

SIGMA = 0.8
"""Default noise, of points whose own standard deviation is about 1."""

CLOUD = 4000
"""Points that stand for a set where its exact answer is asked for, and to which distances are taken."""

SHOWN = 1500
"""Points in a panel."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a denoise function makes of noisy points, or the exact answer does: ``(point, 2)`` each."""

    means: Tensor
    draws: Tensor
    of_middle: Tensor
    """Draws for the one noisy point in the middle of the set."""
    middle: Tensor
    """Its mean, ``(1, 2)``."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """All that a picture of one set shows."""

    points: PointSet
    sigma: float
    learned: Learned
    cloud: Tensor
    clean: Tensor
    seen: Tensor
    network: Answers
    exact: Answers

    def figures(self) -> dict[str, float]:
        """Return what was measured: errors, their ratios to the least there can be, and distances to the data."""
        mmse, mse = (self._error(answers.means) for answers in (self.exact, self.network))
        places = {
            "clean": self.clean,
            "noisy": self.seen,
            "means": self.network.means,
            "draws": self.network.draws,
            "exact_means": self.exact.means,
            "exact_draws": self.exact.draws,
        }
        return {
            "sigma": self.sigma,
            "mse": mse,
            "mmse": mmse,
            "mse_over_mmse": mse / mmse,
            "draw_mse_over_mmse": self._error(self.network.draws) / mmse,
            "exact_draw_mse_over_mmse": self._error(self.exact.draws) / mmse,
            **{f"{name}_to_data": distance(where, self.cloud) for name, where in places.items()},
            "seconds": self.learned.seconds,
        }

    def _error(self, estimate: Tensor) -> float:
        return float((estimate - self.clean).square().mean())


def run_two_d(
    folder: Path,
    names: Sequence[str] = tuple(POINT_SETS),
    *,
    sigma: float | None = None,
    steps: int = POINTS.steps,
    seed: int = 0,
    overwrite: bool = False,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train on point sets, and write a picture of each, ``two_d_<set>.png``, to a folder; under `SIGMA` by default.

    Returns
    -------
    dict
        "sets": what was measured, by set; "pictures"; "seconds" of all.

    Raises
    ------
    UnperturbError
        Where a picture is there already, or a package of the extra is missing.
    """
    pictures.need("matplotlib")
    paths = {name: folder / f"two_d_{name.replace('-', '_')}.png" for name in names}
    pictures.prepare(paths.values(), overwrite=overwrite)
    begin = time.perf_counter()
    told: dict[str, Any] = {}
    for name, path in paths.items():
        experiment = experience(POINT_SETS[name], SIGMA if sigma is None else sigma, steps=steps, seed=seed, show=show)
        draw_picture(experiment, path)
        told[name] = experiment.figures()
    return {"sets": told, "pictures": [str(path) for path in paths.values()], "seconds": time.perf_counter() - begin}


def experience(
    points: PointSet, sigma: float, *, steps: int = POINTS.steps, seed: int = 0, show: Show | None = None
) -> Experiment:
    """Train on a point set, and ask the network and the exact answer about the same noisy points."""
    learned = learn_points(points, sigma, steps=steps, seed=seed, show=show)
    cloud, clean = (as_tensor(points.draw(np.random.default_rng([seed, part]), CLOUD)) for part in (1, 2))
    seen = noisy(clean, sigma, seed)
    middle = torch.tensor([points.middle]).repeat(400, 1)
    exact = points.exact(CLOUD)
    by_network = Answers(
        _mean(learned.denoiser, seen, sigma),
        sample(Posterior(learned.denoiser, seen, sigma), seed=seed)[0],
        sample(Posterior(learned.denoiser, middle, sigma), seed=seed + 1)[0],
        _mean(learned.denoiser, middle[:1], sigma),
    )
    generator = torch.Generator().manual_seed(seed)
    by_formula = Answers(
        _mean(exact, seen, sigma),
        exact.sample_posterior(seen, sigma, generator),
        exact.sample_posterior(middle, sigma, generator),
        _mean(exact, middle[:1], sigma),
    )
    return Experiment(points, sigma, learned, cloud, clean, seen, by_network, by_formula)


def distance(points: Tensor, cloud: Tensor) -> float:
    """Return the mean distance of points to the nearest of a cloud."""
    return float(torch.cdist(points, cloud).amin(1).mean())


def _mean(denoise: Denoise | Exact, x: Tensor, sigma: float) -> Tensor:
    with torch.no_grad():
        return denoise(x, torch.tensor(sigma))


# --- the picture ------------------------------------------------------------------------------------------------------


def draw_picture(experiment: Experiment, path: Path) -> None:
    """Draw eight panels: the problem and the network's arrows above, its answers and the exact ones below."""
    figures = experiment.figures()
    with pictures.picture(path, 2, 4, (12.4, 6.9)) as axes:
        for panel in axes.flat:
            _plane(panel, experiment)
        (clean, seen, arrows, one), (means, draws, exact_means, exact_draws) = axes
        _dots(clean, experiment.clean, pictures.FAINT)
        pictures.title(
            clean, f"The data: {experiment.points.name}", f"its points are {figures['clean_to_data']:.3f} apart"
        )
        _dots(seen, experiment.seen, pictures.NOISY)
        pictures.title(seen, "What is seen", f"noise of σ = {experiment.sigma:g}")
        _arrows(arrows, experiment)
        pictures.title(arrows, "What is learned: φ(x̃) − x̃", "an arrow to the mean of what it could have been")
        _one_point(one, experiment)
        pictures.title(one, "One noisy point ×", "its mean ● is none of its draws")
        _dots(means, experiment.network.means, pictures.MEAN)
        pictures.title(means, "The means leave the data", f"{figures['means_to_data']:.3f} from it on average")
        _dots(draws, experiment.network.draws, pictures.DRAW)
        ratio = figures["draw_mse_over_mmse"]
        pictures.title(
            draws, "The draws are on it", f"{figures['draws_to_data']:.3f} from it; squared error {ratio:.2f} × least"
        )
        _dots(exact_means, experiment.exact.means, pictures.MEAN)
        pictures.title(exact_means, "Exact means", f"{figures['exact_means_to_data']:.3f} from the data")
        _dots(exact_draws, experiment.exact.draws, pictures.DRAW)
        pictures.title(exact_draws, "Exact draws", f"{figures['exact_draws_to_data']:.3f} from the data")


def _plane(axes: Any, experiment: Experiment) -> None:
    """Set up a panel: the data in faint grey, the same square in all."""
    pictures.bare(axes)
    reach = 1.12 * float(experiment.cloud.abs().max()) + 0.4 * experiment.sigma
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.scatter(*experiment.cloud[:SHOWN].T, s=4, color="#e2e8f0", linewidths=0, zorder=1)


def _dots(axes: Any, points: Tensor, colour: str) -> None:
    axes.scatter(*points[:SHOWN].T, s=5, color=colour, alpha=0.5, linewidths=0, zorder=2)


def _arrows(axes: Any, experiment: Experiment) -> None:
    """Draw the arrows of noisy points on a grid, in their true length."""
    reach = axes.get_xlim()[1]
    line = torch.linspace(-0.92 * reach, 0.92 * reach, 13)
    grid = torch.cartesian_prod(line, line)
    moves = _mean(experiment.learned.denoiser, grid, experiment.sigma) - grid
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0045, "headwidth": 4.5}
    axes.quiver(*grid.T, *moves.T, color=pictures.MEAN, alpha=0.75, zorder=2, **look)


def _one_point(axes: Any, experiment: Experiment) -> None:
    """Draw all that one noisy point could have been."""
    _dots(axes, experiment.network.of_middle, pictures.DRAW)
    axes.scatter(*experiment.points.middle, s=130, marker="x", color=pictures.INK, linewidths=1.8, zorder=3)
    axes.scatter(*experiment.network.middle[0], s=38, color=pictures.MEAN, edgecolors="white", zorder=4)
