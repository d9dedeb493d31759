"""What training has to be told, as plain values that are kept with a run and on a model's card."""

import math
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from unperturb.errors import UsageError
from unperturb.model.network import NetworkSettings, UNetSettings, describe, recall
from unperturb.model.optics import compresses
from unperturb.model.perturbation import alternatives
from unperturb.model.spec import parse
from unperturb.train.noisy import NOISY
from unperturb.train.objective import OBJECTIVES
from unperturb.train.pool import Perturb
from unperturb.train.showing import perturbed, says_all


@dataclass(frozen=True)
class FitSettings:
    """All that training has to be told.

    Attributes
    ----------
    perturb
        Spec of the perturbation. Gaussian noise is what every denoiser takes away; for anything else the network is
        made conditional: it is shown the perturbed signal beside the noisy one (`unperturb.train.showing`).
    network
        Architecture and size.
    steps
        Updates of the weights.
    batch
        Items a step.
    share
        Items that one thread works on at once.
    rate
        Learning rate.
    warmup
        Steps over which the rate rises to it.
    decay
        Share of all steps, at the end, over which it falls linearly to zero. A run can be made longer as long as this
        has not begun.
    average
        How slowly the running average of the weights follows them.
    clip
        Largest norm of the gradient of all weights together.
    seed
        Of everything random.
    patch_size
        Height and width of the crops of images.
    gray
        Share of the crops whose colour is reduced to luminance, for a network that takes colour.
    enlarge
        Largest factor by which crops of images are enlarged, some of them; those of validation are not. See
        `unperturb.train.crops.enlarged`.
    reuse
        How often a GPU learns from a crop as it was perturbed once, where perturbing takes longer than learning. A
        processor perturbs anew each time. See `unperturb.train.pool`.
    half_colour
        Whether, where the perturbation is JPEG, colour is to be found at half resolution, as its file has it, or made
        sharp again.
    data
        Names what is trained on, so that no run is resumed on other data.
    objective
        What is made small: "squared", which makes the network the posterior mean, or "absolute", the median. Where
        there are noisy signals alone, one of `unperturb.train.noisy`; `perturb` is then the noise that they have.
    tune
        Which weights are trained: "all", or "gains", by which every feature is multiplied, and nothing else.
    """

    perturb: str
    network: NetworkSettings = field(default_factory=UNetSettings)
    steps: int = 10_000
    batch: int = 4
    share: int = 2
    rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.4
    average: float = 0.999
    clip: float = 1.0
    seed: int = 0
    patch_size: int = 96
    gray: float = 0.5
    enlarge: float = 1.0
    reuse: int = 1
    half_colour: bool = False
    data: str = ""
    objective: str = "squared"
    tune: str = "all"

    def __post_init__(self) -> None:
        if self.objective not in NOISY and not says_all(parse(self.perturb)):
            object.__setattr__(self, "network", replace(self.network, given=True))
        if self.objective not in (*OBJECTIVES, *NOISY):
            raise UsageError(f"the objective is one of {', '.join((*OBJECTIVES, *NOISY))}; got {self.objective!r}")
        if self.tune not in ("all", "gains"):
            raise UsageError(f"what is tuned is all or gains; got {self.tune!r}")
        self._check_half_colour()
        if min(self.seed, self.warmup) < 0:
            raise UsageError(f"seed and warmup are at least 0; got {self.seed} and {self.warmup}")
        if not 1 <= self.enlarge < math.inf:
            raise UsageError(f"enlarge is a factor, 1 and above; got {self.enlarge}")
        if min(self.steps, self.batch, self.share, self.patch_size, self.reuse) < 1:
            raise UsageError("steps, batch, share, patch_size and reuse are at least 1")
        if not (
            self.rate > 0 and self.clip > 0 and 0 <= self.decay <= 1 and 0 <= self.average < 1 and 0 <= self.gray <= 1
        ):
            raise UsageError("rate and clip are above 0, decay and gray lie in 0..1, average in 0..1 without 1")

    def _check_half_colour(self) -> None:
        """Refuse to look for colour at half resolution where there is none, or nothing that has it so."""
        if not self.half_colour:
            return
        parts = alternatives(parse(self.perturb))
        if not (isinstance(self.network, UNetSettings) and self.network.channels == 3 and any(map(compresses, parts))):
            raise UsageError("half_colour is for images in colour, under a perturbation with JPEG")

    @property
    def perturbing(self) -> Perturb:
        """What perturbs clean signals, ``(clean, generator)``, into pairs to learn from."""
        return partial(perturbed, perturb=parse(self.perturb), half_colour=self.half_colour)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / (self.warmup + 1), left)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values only, ready for JSON."""
        return {**asdict(self), "network": describe(self.network)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FitSettings":
        """Read what `as_dict` has written."""
        return cls(**{**values, "network": recall(values["network"])})
