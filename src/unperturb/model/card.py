"""The card of a model: what it is, what it was trained on, and what was found out about it since."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unperturb.errors import ModelError
from unperturb.model.network import NetworkSettings, describe, recall


@dataclass(frozen=True)
class Card:
    """What a model is, was trained on, and can do; stored within its file.

    Attributes
    ----------
    network
        Its architecture and size.
    perturbation
        The spec it was trained under.
    offset, scale
        The values it works in: ``(x - offset) / scale``.
    ends
        The least and the greatest value of the images it was trained on, where they were floats; see `learned`.
    rates
        Samples a second of the signals it was trained on, as far as they are known; rising.
    name, description, data, licence
        For people.
    recipe
        The settings of the training run.
    training
        What came of it: steps, pixels seen, seconds, versions.
    errors
        Validation error by noise level: sigma, in units of `scale`, to mean squared error; by kind of image
        where there are several ("gray", "colour").
    calibration
        How wide intervals from draws are, by what they are for; read by `unperturb.infer.interval`.
    inflation
        What noise on the way to a draw is multiplied by, 1 for an exact mean, so that draws lie as far apart as the
        best guess errs; by noise level, in units of `scale`; found by `unperturb.infer.calibrate`.
    """

    network: NetworkSettings
    perturbation: str = ""
    offset: float = 0.0
    scale: float = 1.0
    ends: Sequence[float] | None = None
    rates: Sequence[float] = ()
    name: str = ""
    description: str = ""
    data: str = ""
    licence: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    inflation: Mapping[str, float] = field(default_factory=dict)

    @property
    def learned(self) -> tuple[float, float] | None:
        """The ends of the images that it was trained on, 0 and 1 of whole numbers; None where it was not trained."""
        if self.ends is None:
            return (0.0, 1.0) if self.training else None
        low, high = self.ends
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """Return plain values only, ready for JSON."""
        return {**asdict(self), "network": describe(self.network)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Card":
        """Read what `as_dict` has written.

        Raises
        ------
        ModelError
            Where something is missing, or is there that this version does not know.
        """
        try:
            lists = {"rates": tuple(values["rates"])} if "rates" in values else {}  # which JSON has made of it
            return cls(**{**values, **lists, "network": recall(values["network"])})
        except (KeyError, TypeError) as error:
            raise ModelError(f"the model's card cannot be read: {error}") from None
