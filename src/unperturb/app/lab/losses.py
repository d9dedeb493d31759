"""Which point of the posterior each loss picks, and that only a draw keeps the posterior.

One noisy point of the mixture of four could have come from several of its components. Asked for a single answer,

    squared error      picks the mean      E[x | y]                    between the components
    absolute error     the median          of each component of x by itself
    all or nothing     the mode            arg max p(x | y)            a component's centre, always the likeliest
    nothing            a draw              x ~ p(x | y)

The first two are networks trained with that loss, the last is drawn with the first. (A network that is trained to fool a
judge, a GAN, answers sharply too: with some point that could be data, and nothing that asks it to be there as often as
the posterior says.) Over many noisy points the answers have a distribution of their own. That of draws is that of the clean
points; that of any single best answer is narrower, for it leaves out what the noise has hidden.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unperturb.app.lab import pictures
from unperturb.app.lab.learn import POINTS, Show, as_tensor, learn_points, noisy
from unperturb.app.lab.points import POINT_SETS, mixture
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample
from unperturb.model.exact import GaussianMixture

SIGMA = 1.2
"""Default noise: the components of the mixture lie about 2 apart."""

PLACE = (0.3, 0.2)
"""A noisy point that could have come from any of the four."""

ANSWERS = {
    "mean": pictures.MEAN,
    "median": pictures.OTHER,
    "mode": pictures.NOISY,
    "draw": pictures.DRAW,
}
"""The answers that are compared, and their colours."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Answers to the same noisy points, ``(point, 2)`` each, and what a picture needs of one of them.

    Attributes
    ----------
    clean, seen
        The points, and what is seen of them.
    others
        Many more clean points, that have nothing to do with the first.
    answers
        By name, as in `ANSWERS`.
    intervals
        Draws for each noisy point, ``(draw, point, 2)``.
    at_place
        Answers to the one noisy point `PLACE`, by name, ``(1, 2)``; of draws there are many.
    sigma
        Of the noise.
    """

    clean: Tensor
    seen: Tensor
    others: Tensor
    answers: dict[str, Tensor]
    intervals: Tensor
    at_place: dict[str, Tensor]
    sigma: float

    def figures(self) -> dict[str, dict[str, float]]:
        """Return what each answer costs, and what it keeps of the distribution of clean points, by answer."""
        return {name: self._figures(answer) for name, answer in self.answers.items()}

    def coverage(self) -> float:
        """Return how often the truth lies in the middle nine tenths of the draws for its noisy point.

        Among n draws of the posterior the truth is as likely to be in any of n + 1 places.
        """
        places = len(self.intervals) + 1
        rank = (self.intervals < self.clean).sum(0) + 0.5
        return float(((rank > 0.05 * places) & (rank < 0.95 * places)).float().mean())

    def _figures(self, answer: Tensor) -> dict[str, float]:
        gap = answer - self.clean
        return {
            "squared_error": float(gap.square().mean()),
            "absolute_error": float(gap.abs().mean()),
            "variance_kept": float(answer.var(0).sum() / self.clean.var(0).sum()),
            "energy_distance": energy_distance(answer, self.others),
        }


def compare(
    *, sigma: float = SIGMA, steps: int = POINTS.steps, seed: int = 0, n: int = 1000, show: Show | None = None
) -> Comparison:
    """Train one network with squared and one with absolute error, and collect all answers to `n` noisy points."""
    points = POINT_SETS["mixture"]
    squared, absolute = (
        learn_points(points, sigma, objective=name, steps=steps, seed=seed, show=show).denoiser
        for name in ("squared", "absolute")
    )
    clean, others = (
        as_tensor(points.draw(np.random.default_rng([seed, part]), count)) for part, count in ((3, n), (4, 4000))
    )
    seen = torch.cat([noisy(clean, sigma, seed), torch.tensor([PLACE])])
    draws = sample(Posterior(squared, seen[:-1], sigma), 99, seed=seed)
    at_place = sample(Posterior(squared, seen[-1:], sigma), 2000, seed=seed + 1)[:, 0]
    answers = {
        "mean": squared(seen, sigma),
        "median": absolute(seen, sigma),
        "mode": torch.stack([posterior_mode(mixture().posterior(y, sigma)) for y in seen]),
        "draw": torch.cat([draws[0], at_place[:1]]),
    }
    return Comparison(
        clean,
        seen[:-1],
        others,
        {name: answer[:-1] for name, answer in answers.items()},
        draws,
        {name: at_place if name == "draw" else answer[-1:] for name, answer in answers.items()},
        sigma,
    )


def run_losses(
    path: Path, *, sigma: float = SIGMA, steps: int = POINTS.steps, seed: int = 0, show: Show | None = None
) -> dict[str, Any]:
    """Compare, draw the picture, and return what was measured: by answer, and the coverage of draws."""
    pictures.need("matplotlib")
    comparison = compare(sigma=sigma, steps=steps, seed=seed, show=show)
    draw_picture(comparison, path)
    return {"sigma": sigma, "answers": comparison.figures(), "coverage_of_90_percent_by_draws": comparison.coverage()}


def posterior_median(posterior: GaussianMixture) -> Tensor:
    """Return the median of each component by itself, ``(feature,)``, to 1e-6 by bisection."""
    spread = posterior.covariances.diagonal(dim1=1, dim2=2).sqrt()
    low, high = (posterior.means - 9 * spread).amin(0), (posterior.means + 9 * spread).amax(0)
    for _ in range(max(1, math.ceil(math.log2(float((high - low).max()) / 1e-6)))):
        middle = (low + high) / 2
        below = posterior.weights @ torch.special.ndtr((middle - posterior.means) / spread)
        low, high = torch.where(below < 0.5, middle, low), torch.where(below < 0.5, high, middle)
    return (low + high) / 2


def posterior_mode(posterior: GaussianMixture, steps: int = 15) -> Tensor:
    """Return the place of the highest density, ``(feature,)``: uphill from every component's centre, and the best.

    Where the gradient of log p is zero, x is the mean of the centres, weighted by precision and by the share each has
    of the density at x; that is iterated (Carreira-Perpiñán, "Mode-finding for mixtures of Gaussian distributions",
    2000).
    """
    precisions = torch.linalg.inv(posterior.covariances)
    scale = torch.linalg.det(precisions).sqrt() * posterior.weights
    x = posterior.means
    for _ in range(steps):
        gaps = x[:, None] - posterior.means
        shares = scale * torch.exp(-0.5 * torch.einsum("bki,kij,bkj->bk", gaps, precisions, gaps))
        pull = torch.einsum("bk,kij,kj->bi", shares, precisions, posterior.means)
        x = torch.linalg.solve(torch.einsum("bk,kij->bij", shares, precisions), pull[..., None])[..., 0]
    return x[posterior.log_density(x).argmax()]


def energy_distance(points: Tensor, others: Tensor) -> float:
    """Return how far two samples are from having come from one distribution; about 0 where they have.

    The root of 2 E|X − Y| − E|X − X'| − E|Y − Y'|, over pairs of different points (Székely and Rizzo, "Energy
    statistics", 2013), and 0 where chance has made that negative.
    """
    between = torch.cdist(points, others).mean()
    within = sum(torch.cdist(each, each).sum() / (len(each) * (len(each) - 1)) for each in (points, others))
    return float((2 * between - within).clamp(min=0).sqrt())


# --- the picture ------------------------------------------------------------------------------------------------------


def draw_picture(comparison: Comparison, path: Path) -> None:
    """Draw one posterior and the four answers to it; then where all answers of each kind land, and what they keep."""
    figures = comparison.figures()
    with pictures.picture(path, 2, 3, (11.4, 7.9)) as axes:
        _one_posterior(axes[0, 0], comparison)
        pictures.title(axes[0, 0], "Four answers to one noisy point ×", "dots: what it could have been, drawn")
        notes = {
            "mean": ("Squared error: the mean", "least squared error"),
            "median": ("Absolute error: the median", "least absolute error"),
            "mode": ("All or nothing: the mode", "always the likeliest, never the others"),
            "draw": ("A draw", f"the truth lies in their middle 90 % in {100 * comparison.coverage():.0f} %"),
        }
        for (name, (text, note)), panel in zip(
            notes.items(), (axes[0, 1], axes[0, 2], axes[1, 0], axes[1, 1]), strict=True
        ):
            _plane(panel, comparison)
            panel.scatter(*comparison.answers[name].T, s=6, color=ANSWERS[name], alpha=0.5, linewidths=0)
            pictures.title(panel, text, note, ANSWERS[name])
        _bars(axes[1, 2], figures)


def _plane(axes: Any, comparison: Comparison) -> None:
    pictures.bare(axes)
    axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal")
    axes.scatter(*comparison.clean.T, s=5, color="#e2e8f0", linewidths=0)


def _one_posterior(axes: Any, comparison: Comparison) -> None:
    _plane(axes, comparison)
    axes.scatter(*comparison.at_place["draw"][:500].T, s=5, color=pictures.DRAW, alpha=0.4, linewidths=0)
    axes.scatter(*PLACE, s=70, marker="x", color=pictures.INK, linewidths=1.5, zorder=3)
    for name, side in (("mean", "right"), ("median", "left"), ("mode", "left")):
        (x, y) = comparison.at_place[name][0].tolist()
        axes.scatter(x, y, s=60, color=ANSWERS[name], edgecolors="white", zorder=4)
        shift = (-8 if side == "right" else 8, 4)
        look = {"ha": side, "fontsize": 9.5, "fontweight": "bold", "zorder": 5}
        axes.annotate(name, (x, y), shift, textcoords="offset points", color=ANSWERS[name], **look)


def _bars(axes: Any, figures: dict[str, dict[str, float]]) -> None:
    """Draw how far all answers of a kind are from the clean points, as distributions."""
    pictures.framed(axes)
    names = list(ANSWERS)[::-1]
    off = [figures[name]["energy_distance"] for name in names]
    axes.barh(names, off, color=[ANSWERS[name] for name in names], height=0.5)
    for row, (name, value) in enumerate(zip(names, off, strict=True)):
        look = {"va": "center", "fontsize": 9.5, "color": ANSWERS[name]}
        axes.annotate(f"{name} {value:.2f}", (value, row), (5, 0), textcoords="offset points", **look)
    axes.set(xlim=(0, 1.4 * max(off)), xticks=[], yticks=[])
    pictures.title(axes, "Only draws are spread as the data are", "energy distance of all answers to clean points")
