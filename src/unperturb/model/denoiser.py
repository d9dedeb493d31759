"""The trained thing: a network, the range of values it works in, and a card that says what it is.

A `Denoiser` is a callable ``denoise(x, sigma) -> mean`` that returns E[clean | clean + sigma · noise = x]. With o and s
the offset and scale of its values (0 and 1 where the data is used as it is),

    D(x, σ) = o + s · φ((x − o)/s, σ/s)

so that any affine change of units is the network's affair no longer.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unperturb.errors import ModelError
from unperturb.model.network import NetworkSettings, build, describe, recall


class Denoise(Protocol):
    """Anything that answers with the posterior mean: a `Denoiser`, a closed form, a user's own function."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[clean | clean + sigma · noise = x], of the shape of `x`."""
        ...


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
    name, description, data, licence
        For people.
    recipe
        The settings of the training run.
    training
        What came of it: steps, pixels seen, seconds, versions.
    errors
        Validation error by noise level: sigma, in the units of the values, to mean squared error; by kind of image
        where there are several ("gray", "colour").
    calibration
        How wide intervals from draws are, by what they are for; read by `unperturb.infer.calibrate`.
    """

    network: NetworkSettings
    perturbation: str = ""
    offset: float = 0.0
    scale: float = 1.0
    name: str = ""
    description: str = ""
    data: str = ""
    licence: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

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
            return cls(**{**values, "network": recall(values["network"])})
        except (KeyError, TypeError) as error:
            raise ModelError(f"the model's card cannot be read: {error}") from None


class Denoiser(nn.Module):
    """A network together with its card: the `denoise` that restore, sample and uncertainty ask for."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.network = build(card.network)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the posterior mean.

        Parameters
        ----------
        x
            ``(batch, channel, *space)``, or ``(batch, feature)`` for a network for vectors.
        sigma
            Standard deviation of the Gaussian noise in `x`, in the units of `x`: one, ``(batch,)``, or a map
            ``(batch, 1, *space)``.

        Returns
        -------
        Tensor
            Same shape as `x`.

        Raises
        ------
        ModelError
            Where `x` does not fit the network.
        """
        offset, scale = self.card.offset, self.card.scale
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if offset == 0 and scale == 1:
            return self.network(x, sigma)
        return offset + scale * self.network((x - offset) / scale, sigma / scale)

    def expected_error(self, sigma: Tensor, channels: int) -> Tensor | None:
        """Return the mean squared error of the best guess by noise level, as the card has it from validation.

        Parameters
        ----------
        sigma
            Noise levels, of any shape, in the units of the values.
        channels
            Of the signals: a model for colour has other errors for gray images.

        Returns
        -------
        Tensor or None
            Shape of `sigma`; None where the card says nothing. Between the levels that were validated, the logarithm of
            error / sigma² is interpolated over that of sigma; beyond them it stays what it is at the last.
        """
        kind = "colour" if channels > 1 else "gray"
        known = self.card.errors.get(kind) or next(iter(self.card.errors.values()), None)
        if not known:
            return None
        levels = torch.tensor(sorted(map(float, known)), dtype=torch.float64)
        by_level = {float(level): error for level, error in known.items()}
        ratios = torch.tensor([by_level[level] / level**2 for level in levels.tolist()], dtype=torch.float64)
        return (interpolated(sigma.double().clamp(min=1e-30).log(), levels.log(), ratios.log()).exp() * sigma**2).to(
            sigma
        )

    def with_card(self, **changes: Any) -> "Denoiser":
        """Return a denoiser that shares this one's network and has another card."""
        other = Denoiser.__new__(Denoiser)
        nn.Module.__init__(other)
        other.card, other.network = replace(self.card, **changes), self.network
        if other.card.network != self.card.network:
            raise ModelError("a card cannot give its denoiser another network")
        return other


def interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly between values at rising places; beyond the first and the last, these stay."""
    at = at.clamp(float(places[0]), float(places[-1]))
    right = torch.searchsorted(places, at).clamp(1, max(len(places) - 1, 1))
    if len(places) == 1:
        return values[0].expand(at.shape)
    share = (at - places[right - 1]) / (places[right] - places[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
