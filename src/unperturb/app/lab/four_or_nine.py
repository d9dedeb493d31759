"""A digit under so much noise that it can be read as a 4 and as a 9.

A network is trained on fours and nines, and knows of no other digit. Held-out ones are perturbed, and one is kept whose
draws from the posterior are of both, by the vote of the nearest clean digits, and of two kinds: their kurtosis along the
direction in which they differ most (the first principal component of the draws) is the lowest. It is 1 for two points,
1.8 for what is spread evenly, 3 for a bell; and below Γ(1/4)⁴ / 8π² = 2.19 the density of the largest entropy with these
moments, exp(−a x² − b x⁴), has two peaks, a < 0.

Then it is drawn from anew, and that there are two modes is looked for where it could fail to show: the direction is that
of one half of the new draws, the histogram that of the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.app.lab import pictures
from unperturb.app.lab.images import ImageSet, only
from unperturb.app.lab.learn import noisy
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample
from unperturb.model.denoiser import Denoiser
from unperturb.model.exact import Empirical

FOUR, NINE = 4, 9

CANDIDATES, TRIAL = 30, 64
"""Noisy digits that are drawn from to choose among them, and draws of each."""

TWO_MODES = math.gamma(0.25) ** 4 / (8 * math.pi**2)
"""Kurtosis below which the density of the largest entropy with that kurtosis, and no skew, has two peaks."""

SIGMA = 0.5
"""Noise, of digits with values in 0 … 1."""

LEAST = 0.3
"""Share of the draws that either reading has at least."""

Read = Callable[[Tensor], NDArray[np.int64]]
"""``read(images) -> (image,)``: which digit each shows."""


@dataclass(frozen=True, eq=False)
class Along:
    """One half of the draws along the principal direction of the other.

    Attributes
    ----------
    places
        ``(draw,)``, in standard deviations from the centre; fours are on the left.
    readings
        What these draws show.
    mean
        Where the network's answer lies.
    """

    places: NDArray[np.float64]
    readings: NDArray[np.int64]
    mean: float


@dataclass(frozen=True, eq=False)
class Ambiguous:
    """One noisy digit, ``(1, 1, 8, 8)``, and its posterior.

    Attributes
    ----------
    truth
        What it was.
    clean, seen, mean
        The image, the noisy one, and the network's answer.
    draws
        ``(draw, 1, 8, 8)``.
    readings
        What each draw shows, ``(draw,)``.
    sigma
        Of the noise.
    """

    truth: int
    clean: Tensor
    seen: Tensor
    mean: Tensor
    draws: Tensor
    readings: NDArray[np.int64]
    sigma: float

    def along(self) -> Along:
        """Return where the second half of the draws lies along the principal direction of the first."""
        half = len(self.draws) // 2
        line, centre = _principal(self.draws[:half])
        places = ((torch.cat([self.draws[half:], self.mean]).flatten(1).double() - centre) @ line).numpy()
        readings = self.readings[half:]
        scale = places[:-1].std()
        if places[:-1][readings == FOUR].mean() > places[:-1][readings == NINE].mean():
            scale = -scale
        places = (places - places[:-1].mean()) / scale
        return Along(places[:-1], readings, float(places[-1]))

    def figures(self) -> dict[str, float]:
        """Return how draws are divided, and how many lie one standard deviation to either side, and between."""
        along = self.along()
        fours, nines = (float(np.mean(self.readings == digit)) for digit in (FOUR, NINE))
        left, between, right = (float(np.mean(np.abs(along.places - centre) < 1 / 3)) for centre in (-1, 0, 1))
        return {
            "truth": self.truth,
            "sigma": self.sigma,
            "fours": fours,
            "nines": nines,
            "others": 1 - fours - nines,
            "kurtosis": _kurtosis(along.places),
            "draws_left": left,
            "draws_between": between,
            "draws_right": right,
            "mean_lies_at": along.mean,
        }


def fours_and_nines(images: ImageSet) -> ImageSet:
    """Return the fours and nines among digits."""
    return only(images, (FOUR, NINE), "fours and nines", SIGMA)


def find_ambiguous(images: ImageSet, denoiser: Denoiser, sigma: float, seed: int, *, draws: int = 600) -> Ambiguous:
    """Return a noisy digit that could be a four or a nine, as `draws` from its posterior show.

    Candidates are first held against the exact posterior of a world that holds the digits of training and no other,
    which costs next to nothing; the most doubtful are then drawn from.

    Parameters
    ----------
    images
        Fours and nines.
    denoiser
        Trained on them.
    sigma
        Of the noise.
    seed
        Of noise and draws.
    draws
        Of the digit that was found.
    """
    read = _reader(images)
    which = np.arange(len(images.held_out)).repeat(40)
    clean = images.held_out[torch.from_numpy(which)]
    seen = noisy(clean, sigma, seed + 1)
    shares = Empirical(images.train.flatten(1)).shares(seen.flatten(1), sigma).numpy()
    doubt = np.minimum(*(shares[:, images.labels == digit].sum(1) for digit in (FOUR, NINE)))
    best = np.argsort(-doubt)[:CANDIDATES]
    few = sample(Posterior(denoiser, seen[best], sigma), TRIAL, seed=seed)
    index = int(best[np.argmin([_certainty(few[:, item], read(few[:, item])) for item in range(len(best))])])
    posterior = Posterior(denoiser, seen[index : index + 1], sigma)
    many = sample(posterior, draws, seed=seed + 1)[:, 0]
    truth = int(images.held_out_labels[which[index]])
    return Ambiguous(truth, clean[index : index + 1], posterior.start, posterior.mean, many, read(many), sigma)


def _reader(images: ImageSet) -> Read:
    """Return a reader of digits: the nearest fifteen of the clean ones vote."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(15).fit(images.train.flatten(1).numpy(), images.labels)
    return lambda seen: np.asarray(voters.predict(seen.flatten(1).numpy()), np.int64)


def _certainty(draws: Tensor, readings: NDArray[np.int64]) -> float:
    """Return the kurtosis along the principal direction, and more where one reading has too few of the draws."""
    line, centre = _principal(draws)
    places = ((draws.flatten(1).double() - centre) @ line).numpy()
    share = min(float(np.mean(readings == digit)) for digit in (FOUR, NINE))
    return _kurtosis(places) + 100 * max(0.0, LEAST - share)


def _principal(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return the direction in which draws differ most, and their mean."""
    flat = draws.flatten(1).double()
    return torch.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][0], flat.mean(0)


def _kurtosis(places: NDArray[np.float64]) -> float:
    away = places - places.mean()
    return float((away**4).mean() / (away**2).mean() ** 2)


# --- the picture ------------------------------------------------------------------------------------------------------


def draw_ambiguous(ambiguous: Ambiguous, path: Path) -> None:
    """Draw what is seen, the mean, draws of both readings, and the two modes."""
    figures = ambiguous.figures()
    with pictures.picture(path, 3, 6, (10.8, 6.3)) as axes:
        grid = axes[0, 0].get_gridspec()
        _shown(axes[0, 0], "Clean", f"a {ambiguous.truth}", ambiguous.clean[0, 0], pictures.INK)
        _shown(axes[1, 0], "Noisy", f"σ = {ambiguous.sigma:g}", ambiguous.seen[0, 0], pictures.NOISY)
        _shown(axes[2, 0], "Mean", "of both, and neither", ambiguous.mean[0, 0], pictures.MEAN)
        for column, (digit, colour, name) in enumerate(_READINGS):
            share = 100 * figures[name]
            of_digit = ambiguous.draws[torch.from_numpy(ambiguous.readings == digit)]
            for row in range(3):
                head, note = (f"Draws: {digit}", f"{share:.0f} % of the draws") if row == 0 else ("", "")
                image = of_digit[row, 0] if row < len(of_digit) else torch.zeros(8, 8)
                _shown(axes[row, 1 + column], head, note, image, colour)
        for panel in axes[:, 3:].flat:
            panel.remove()
        _histogram(axes[0, 0].figure.add_subplot(grid[:, 3:]), ambiguous)


_READINGS = ((FOUR, pictures.DRAW, "fours"), (NINE, pictures.OTHER, "nines"))


def _shown(panel: Any, name: str, note: str, image: Tensor, colour: str) -> None:
    pictures.gray(panel, image, colour)
    pictures.title(panel, name, note or " ", colour)


def _histogram(panel: Any, ambiguous: Ambiguous) -> None:
    """Stack the draws along the principal direction by what they show, and mark the mean."""
    axes, along = pictures.framed(panel), ambiguous.along()
    parts = [along.places[along.readings == digit] for digit, _, _ in _READINGS]
    rest = along.places[~np.isin(along.readings, (FOUR, NINE))]
    colours = [colour for _, colour, _ in _READINGS]
    axes.hist([*parts, rest], bins=np.arange(-2.7, 2.71, 0.2), stacked=True, color=[*colours, pictures.CLEAN])
    axes.axvline(along.mean, color=pictures.MEAN, linewidth=2)
    top = axes.get_ylim()[1]
    axes.set(ylim=(0, 1.12 * top), yticks=[], xticks=[-2, -1, 0, 1, 2])
    axes.set_xlabel(
        "standard deviations along the direction in which draws differ most", fontsize=9, color=pictures.FAINT
    )
    look = {"fontsize": 9.5, "fontweight": "bold", "va": "top"}
    axes.text(along.mean + 0.08, 1.11 * top, "mean", color=pictures.MEAN, **look)
    for place, part, (_, colour, name) in zip(("left", "right"), parts, _READINGS, strict=True):
        if len(part):
            axes.text(-2.6 if place == "left" else 2.6, 1.11 * top, name, ha=place, color=colour, **look)
    kurtosis = ambiguous.figures()["kurtosis"]
    verdict = "Two modes, and the mean between them" if kurtosis < TWO_MODES else "One broad mode"
    pictures.title(
        axes, verdict, f"kurtosis {kurtosis:.2f}: a bell has 3, and below {TWO_MODES:.2f} there are two peaks"
    )
