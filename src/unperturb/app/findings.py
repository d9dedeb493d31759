"""What was found about one image, ready to be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.data.recording import Recording
from unperturb.errors import UsageError
from unperturb.infer.interval import Calibration
from unperturb.infer.places import Place
from unperturb.infer.residual import Residual
from unperturb.infer.uncertainty import Components

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """A part of an image that is of interest, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def slices(self, space: Sequence[int]) -> tuple[slice, ...]:
        """Return the region as slices of an image of this height and width.

        Raises
        ------
        UsageError
            Where it is empty, or not within the image.
        """
        inside = self.left >= 0 and self.top >= 0 and self.left + self.width <= space[1]
        if not (inside and self.top + self.height <= space[0] and min(self.width, self.height) > 0):
            raise UsageError(f"the region {self} does not lie within the image of {space[1]} × {space[0]} pixels")
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"


@dataclass(frozen=True)
class RegionMean:
    """The mean over a region, a channel: the best guess, and half the width of its interval where calibrated."""

    best: tuple[float, ...]
    half: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class Findings:
    """All of it; arrays are in the units of `Recording.as_float`, ``(H, W)`` or ``(H, W, C)``.

    Attributes
    ----------
    recording
        The file. Of a stack, what follows is that of the first plane.
    noisy, best, draws, spread
        What was seen, the best guess, draws, the standard deviation.
    half
        Half the width of calibrated intervals; None where the model is not calibrated for these draws.
    sigma, estimated
        Noise level in the units of the file, and whether it was estimated; None where the model was told none.
    caveat
        What has to be said of an answer that is approximate; None of any other.
    missing
        Share of the pixels that are missing; None where it is not about missing pixels.
    calibration, in_range
        Where `half` comes from, and whether the noise is within what was calibrated.
    residual
        What is left beside the draws; None where nothing can be compared.
    places
        The most uncertain windows.
    components, window
        Directions of the region or the whole, None for large images; and the slices of space they live in.
    region, region_mean
        The part of interest, if there is one.
    settings
        How it was made.
    """

    recording: Recording
    noisy: FloatArray
    best: FloatArray
    draws: Sequence[FloatArray]
    spread: FloatArray
    half: FloatArray | None
    sigma: float | None
    estimated: bool
    calibration: Calibration | None
    in_range: bool
    residual: Residual | None
    places: Sequence[Place]
    components: Components | None
    window: tuple[slice, ...]
    region: Region | None
    region_mean: RegionMean | None
    settings: Mapping[str, Any]
    missing: float | None = None
    caveat: str | None = None

    @property
    def scale(self) -> float:
        """What one unit of the arrays is in the units of the file."""
        return self.recording.full_scale

    @property
    def unit(self) -> str:
        """What the units of the file are called."""
        return "grey levels" if self.scale > 1 else "units of the file"

    @property
    def open_places(self) -> list[Place]:
        """The places whose posterior has more than one mode."""
        return [place for place in self.places if place.is_open]

    def numbers(self) -> dict[str, Any]:
        """Return the findings as plain values, in the units of the file."""
        known = self.calibration
        return {
            "sigma": self.sigma,
            "sigma_estimated": self.estimated and self.sigma is not None,
            "missing": self.missing,
            "caveat": self.caveat,
            "mean_std": float(self.spread.mean(dtype=np.float64)) * self.scale,
            "mean_half_width": None if self.half is None else float(self.half.mean(dtype=np.float64)) * self.scale,
            "level": None if known is None else known.level,
            "residual": None
            if self.residual is None
            else {
                "variance": self.residual.variance,
                "neighbours": list(self.residual.neighbours),
                "white": self.residual.is_white,
                "fits_level": self.residual.fits_level,
            },
            "places": [
                {
                    "left": place.window[1].start,
                    "top": place.window[0].start,
                    "modes": max((len(density.modes) for density in place.densities), default=1),
                    "std": [float(value) ** 0.5 * self.scale for value in place.components.variances],
                }
                for place in self.places
            ],
            "components": None
            if self.components is None
            else {
                "std": [float(value) ** 0.5 * self.scale for value in self.components.variances],
                "share": self.components.share.tolist(),
                "residuals": self.components.residuals.tolist(),
                "asymmetry": self.components.asymmetry,
            },
            "region": None
            if self.region is None or self.region_mean is None
            else {
                "region": str(self.region),
                "mean": [value * self.scale for value in self.region_mean.best],
                "half_width": None
                if self.region_mean.half is None
                else [value * self.scale for value in self.region_mean.half],
            },
            **self.settings,
        }
