"""Intervals around what was restored, from a few draws of one posterior and a calibration.

For y = x + σ n the denoiser gives the best guess m = D(y, σ), and n draws x₁ … x_n say how far from it the truth may
lie. For any statistic T of the clean signal, its values among them,

    centre     c = T(m) where T is linear, else the mean of the T(x_i)
    spread     s² = Σ_i (T(x_i) − c)² / n
    interval   c ± λ s

Were the draws perfect and without number, λ would follow from the posterior alone. They are few, and a network's: so λ
is learned from images whose truth is known (`unperturb.infer.calibrate`), and kept on the model's card. Two promises
are on offer, each for images like those that were calibrated on:

`central`
    the coverage is `level` on average: where some images are covered more, others are covered less.
`guaranteed`
    with `confidence` over the choice of calibration images, the expected share of an image's values that miss their
    intervals is at most 1 − level. Wider.

::

    known = find_calibration(denoiser.card, "gray")
    low, high, _ = intervals(posterior, known.drawing.draw(posterior), known)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unperturb.errors import ModelError, UsageError
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import STEPS, sample
from unperturb.infer.statistic import PIXEL, Statistic
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser, interpolated

CENTRAL, GUARANTEED = "central", "guaranteed"
"""What intervals promise."""

# --- calibrations, and where they are kept ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """How draws are made. What is calibrated with draws of one kind holds for draws of that kind.

    Attributes
    ----------
    n_samples, steps, method
        As for `sample`.
    """

    n_samples: int = 8
    steps: int = STEPS
    method: str = "corrected"

    def __post_init__(self) -> None:
        if self.n_samples < 2:
            raise UsageError(f"a spread takes two draws at least; got {self.n_samples}")

    def draw(
        self,
        posterior: Posterior,
        *,
        seed: int = 0,
        items: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Draw so from a posterior: ``(n_samples, *start.shape)``."""
        return sample(
            posterior, self.n_samples, steps=self.steps, method=self.method, seed=seed, items=items, progress=progress
        )


@dataclass(frozen=True)
class Calibration:
    """How many spreads wide intervals have to be, by noise level, and what that was learned from.

    Attributes
    ----------
    statistic
        "pixel", "region mean 16" …
    promise
        "central" or "guaranteed".
    kind
        "gray" or "colour", and with " counts" after it where noise of counting was calibrated for itself.
    level
        The share that is to be covered.
    confidence
        Of a guarantee; None for a central one.
    scales
        Noise level, in the units of the values, to λ; of a conditional model one λ, under level 1; of counts by the
        noise of stabilised values.
    drawing
        How the draws were made, and are to be made.
    n_images
        How many images it was learned from.
    data
        Which.
    """

    statistic: str
    promise: str
    kind: str
    level: float
    confidence: float | None
    scales: Mapping[float, float]
    drawing: Drawing = field(default_factory=Drawing)
    n_images: int = 0
    data: str = ""

    @property
    def key(self) -> str:
        """What it is for, in one line: one card holds one calibration of a key."""
        confidence = "" if self.confidence is None else f" {self.confidence:g}"
        return f"{self.kind} {self.statistic} {self.level:g} {self.promise}{confidence}"

    def scale(self, sigma: Tensor | float) -> Tensor:
        """Return λ at noise levels of any shape: linear in log sigma, and beyond what was calibrated the nearest."""
        levels = torch.tensor(sorted(self.scales), dtype=torch.float64)
        scales = torch.tensor([self.scales[level] for level in levels.tolist()], dtype=torch.float64)
        at = torch.as_tensor(sigma).double().clamp(min=1e-30).log()
        return interpolated(at, levels.log(), scales)

    def holds_at(self, sigma: Tensor | float) -> bool:
        """Whether noise levels lie within those that were calibrated, give or take a hundredth."""
        at = torch.as_tensor(sigma).double()
        return bool((at >= 0.99 * min(self.scales)).all() and (at <= 1.01 * max(self.scales)).all())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values only, ready for JSON."""
        return {**asdict(self), "scales": {str(level): scale for level, scale in sorted(self.scales.items())}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Read what `as_dict` has written.

        Raises
        ------
        ModelError
            Where something is missing, or is there that this version does not know.
        """
        try:
            scales = {float(level): float(scale) for level, scale in values["scales"].items()}
            return cls(**{**values, "scales": scales, "drawing": Drawing(**values["drawing"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the model's calibration cannot be read: {error}") from None


COUNTS = " counts"
"""What is added to the kind of an image whose noise is that of counting."""


def kind_of(posterior: Posterior) -> str:
    """Return the kind of image that a calibration has to be of, as the denoiser sees it."""
    kind = "colour" if posterior.start.shape[1] > 1 else "gray"
    return kind if posterior.counted is None else kind + COUNTS


def level_of(posterior: Posterior, calibration: Calibration) -> Tensor:
    """Return the noise level that a calibration is looked up by: 1 for all that is seen without noise in the start.

    Images in other units than a network works in are calibrated by what was learned in those, or else in their own.
    """
    if posterior.counted is not None and calibration.kind.endswith(COUNTS):
        return torch.tensor(posterior.counted, dtype=torch.float64)
    if posterior.blind:
        return torch.ones(())
    level = posterior.spread_of_noise
    inside = level / posterior.unit
    return inside if calibration.holds_at(inside) else level


def with_calibration(denoiser: Denoiser, made: Iterable[Calibration]) -> Denoiser:
    """Return the denoiser with calibrations on its card, beside those of other keys that are there already."""
    return denoiser.with_card(calibration={**denoiser.card.calibration, **{each.key: each.as_dict() for each in made}})


def calibrations(card: Card) -> list[Calibration]:
    """Return all calibrations that a card holds."""
    return [Calibration.from_dict(values) for values in card.calibration.values()]


def find_calibration(
    card: Card, kind: str, statistic: str = PIXEL, *, promise: str = CENTRAL, level: float | None = None
) -> Calibration:
    """Return a calibration from a card, of any level where none is given.

    Where counts were not calibrated for themselves, what is known of other noise has to do.

    Raises
    ------
    ModelError
        Where the card holds no such calibration.
    """
    for each in calibrations(card):
        if (each.kind, each.statistic, each.promise) == (kind, statistic, promise) and level in (None, each.level):
            return each
    if kind.endswith(COUNTS):
        return find_calibration(card, kind.removesuffix(COUNTS), statistic, promise=promise, level=level)
    wanted = f"{promise} intervals of {kind} images, {statistic}" + ("" if level is None else f", at {level:g}")
    raise ModelError(f"this model is not calibrated for {wanted}; `unperturb calibrate` does it")


# --- intervals --------------------------------------------------------------------------------------------------------


class Intervals(NamedTuple):
    """Ends of intervals; and whether the noise is within what was calibrated, or λ that of the nearest level."""

    low: Tensor
    high: Tensor
    calibrated: bool


def intervals(posterior: Posterior, draws: Tensor, calibration: Calibration) -> Intervals:
    """Return an interval for every value of the clean signal.

    Parameters
    ----------
    posterior
        Of signals ``(batch, channel, *space)``, or ``(batch, feature)``.
    draws
        ``(n, batch, …)``, made as the calibration's `drawing` says.
    calibration
        Of the statistic "pixel".

    Returns
    -------
    Intervals
        Ends of the shape of the start. They are not clipped.

    Raises
    ------
    UsageError
        Where the calibration is of another statistic, or for another number of draws.
    """
    _check(calibration, PIXEL, draws)
    at = level_of(posterior, calibration)
    half = calibration.scale(at).to(draws) * pixel_spread(posterior, draws)
    return Intervals(posterior.mean - half, posterior.mean + half, calibration.holds_at(at))


def interval(posterior: Posterior, draws: Tensor, statistic: Statistic, calibration: Calibration) -> Intervals:
    """Return an interval for a statistic of the clean signal.

    Parameters
    ----------
    posterior, draws
        As for `intervals`.
    statistic
        What is asked.
    calibration
        Of this statistic.

    Returns
    -------
    Intervals
        Ends ``(batch, value)``. Where the noise varies over a signal, λ is that of its root mean square.

    Raises
    ------
    UsageError
        Where the calibration is of another statistic, or for another number of draws.
    """
    _check(calibration, statistic.name, draws)
    centre, spread = statistic.centre_and_spread(posterior.mean, draws)
    noise = level_of(posterior, calibration)
    sigma = noise.flatten(1).square().mean(1, keepdim=True).sqrt() if noise.ndim else noise
    half = calibration.scale(sigma).to(draws) * spread
    return Intervals(centre - half, centre + half, calibration.holds_at(sigma))


def pixel_spread(posterior: Posterior, draws: Tensor) -> Tensor:
    """Return the standard deviation of every value about the best guess, from a few draws.

    The variance of eight draws is itself off by half. What is uncertain comes in patches, so it is averaged over the
    nearest neighbours in space, with Gaussian weights; and nothing is known better than to a fiftieth of the noise. On
    photographs the intervals are 8 % narrower for it at the same coverage, which is then nearly the same where the
    spread is small and where it is large.

    Parameters
    ----------
    posterior
        Of signals ``(batch, channel, *space)``, or ``(batch, feature)``, where features have no neighbours.
    draws
        ``(n, batch, …)``.

    Returns
    -------
    Tensor
        Shape of the start.
    """
    from scipy.ndimage import gaussian_filter

    variance = (draws - posterior.mean).square().mean(0)
    hidden = (variance > 0).to(variance)
    if variance.ndim > 2:
        widths = (0.0, 0.0, *[_NEAR] * (variance.ndim - 2))
        near = torch.from_numpy(gaussian_filter(variance.numpy(), widths, mode="nearest"))
        if not hidden.all():  # what is known exactly stays so, and does not make its neighbours look better known
            share = torch.from_numpy(gaussian_filter(hidden.numpy(), widths, mode="nearest"))
            near = hidden * near / share.clamp(min=1e-6)
        variance = near
    floor = 0.0 if posterior.blind else (_FLOOR * posterior.spread_of_noise).square()
    return (variance + floor).sqrt()


_NEAR = 1.5
"""Standard deviation, in pixels, of the weights that neighbours have in a pixel's variance."""

_FLOOR = 0.02
"""Least spread of a pixel, as a share of the noise."""


def _check(calibration: Calibration, statistic: str, draws: Tensor) -> None:
    if calibration.statistic != statistic:
        raise UsageError(f"this calibration is of {calibration.statistic}, not of {statistic}")
    if len(draws) != calibration.drawing.n_samples:
        raise UsageError(f"this calibration holds for {calibration.drawing.n_samples} draws; got {len(draws)}")
