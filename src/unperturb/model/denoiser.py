"""The trained thing: a network, the range of values it works in, and a card that says what it is.

A `Denoiser` is a callable ``denoise(x, sigma) -> mean`` that returns E[clean | clean + sigma · noise = x]. With o and s
the offset and scale of its values (0 and 1 where the data is used as it is),

    D(x, σ) = o + s · φ((x − o)/s, σ/s)

so that any affine change of units is the network's affair no longer.

A conditional denoiser is shown an observation y besides. `Denoiser.given` binds it to one, and what it returns is a
denoise function again, ``denoise(x, sigma) -> E[clean | x, y]``: restore, sample and uncertainty do not know the
difference.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unperturb.errors import ModelError, UsageError
from unperturb.model.camera import leaves_means
from unperturb.model.card import Card
from unperturb.model.given import BLIND, Given, show
from unperturb.model.network import build
from unperturb.model.operators import with_coarse
from unperturb.model.optics import compresses
from unperturb.model.perturbation import Perturbation, alternatives
from unperturb.model.spec import parse


class Denoise(Protocol):
    """Anything that answers with the posterior mean: a `Denoiser`, a closed form, a user's own function."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[clean | clean + sigma · noise = x], of the shape of `x`.

        Signals of `x` that have axes of space come one by one, ``(1, channel, *space)``, with one sigma or a map of it,
        ``(1, 1, *space)``; to a `Denoiser` they may come several at a time.
        """
        ...


class Denoiser(nn.Module):
    """A network together with its card: the `denoise` that restore, sample and uncertainty ask for."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.network = build(card.network)

    def forward(self, x: Tensor, sigma: Tensor | float, given: Given | None = None) -> Tensor:
        """Return the posterior mean.

        Parameters
        ----------
        x
            ``(batch, channel, *space)``, or ``(batch, feature)`` for a network for vectors.
        sigma
            Standard deviation of the Gaussian noise in `x`, in the units of `x`: one, ``(batch,)``, or a map
            ``(batch, 1, *space)``.
        given
            For a conditional model, what it is shown of the observation; see `given`. In the values of the network.

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
        if offset != 0 or scale != 1:
            x, sigma = (x - offset) / scale, sigma / scale
        if given is None:
            mean: Tensor = self.network(x, sigma)
        else:
            mean = self.network(_looked_at(x, sigma, given), sigma, given)
        return mean if offset == 0 and scale == 1 else offset + scale * mean

    def given(self, y: Tensor, mask: Tensor | None = None, sigma: Tensor | float | None = None) -> "Conditioned":
        """Bind a conditional model to what was observed. The result is a denoise function again.

        Parameters
        ----------
        y
            ``(batch, channel, *space)`` or ``(batch, feature)``: the perturbed signals. What is erased in them has no
            influence, whatever it is.
        mask
            Boolean, True where observed: ``(batch or 1, 1, *space)``, or ``(batch or 1, feature)``. None where nothing
            is erased.
        sigma
            Noise of the observed components, a number or ``(batch,)``, where it is known. Where it is 0 and there is a
            mask, the answer has the observed components as they are.

        Raises
        ------
        ModelError
            Where the model is not conditional.
        UsageError
            Where the mask does not fit, or an observed value is not finite.
        """
        if not self.card.network.given:
            raise ModelError("this model takes noise alone, and nothing beside it can be given to it")
        level = None if sigma is None else torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(len(y))
        seen = show((y - self.card.offset) / self.card.scale, mask, None if level is None else level / self.card.scale)
        if mask is None and y.ndim == 4 and self.keeps_means:
            return Conditioned(self, seen, whole=y)
        if mask is None or level is None:
            return Conditioned(self, seen)
        clean = (level == 0).view(-1, *(1,) * (y.ndim - 1))
        kept = (seen.mask > 0) & clean
        return Conditioned(self, seen, torch.where(kept, y, torch.nan)) if kept.any() else Conditioned(self, seen)

    @property
    def unit(self) -> float:
        """What 1 is of the values that the network works in."""
        return self.card.scale

    @property
    def keeps_means(self) -> bool:
        """Whether what is coarse stays as it is observed (`unperturb.model.camera.leaves_means`).

        A network is told by a simulated camera what noise does to the mean of dark places, and no two cameras do alike.
        """
        known = self._perturbation
        return known is not None and leaves_means(known)

    @property
    def block(self) -> int:
        """Pixels after which places repeat: those of JPEG's blocks, with colour at half resolution; else 1."""
        known = self._perturbation
        return 16 if known is not None and any(map(compresses, alternatives(known))) else 1

    @property
    def _perturbation(self) -> Perturbation | None:
        try:
            return parse(self.card.perturbation) if self.card.perturbation else None
        except UsageError:  # a card may say what no spec does
            return None

    def inflation(self, sigma: Tensor) -> Tensor:
        """Return what noise is multiplied by on the way to a draw, as the card has it; 1 where it says nothing.

        Parameters
        ----------
        sigma
            Noise levels of the start, of any shape, in the units of the values. Between those on the card factors are
            interpolated over the logarithm of sigma; beyond them they stay what they are at the last.
        """
        if not self.card.inflation:
            return torch.ones_like(sigma)
        known = sorted((float(level), factor) for level, factor in self.card.inflation.items())
        levels, factors = (torch.tensor(column).to(sigma.device).double() for column in zip(*known, strict=True))
        return interpolated(self._logarithm(sigma), levels.log(), factors).to(sigma)

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
        known = self.card.errors.get(kind) or next(iter(self.card.errors.values()), {})
        known = {level: error for level, error in known.items() if float(level) < math.inf}
        if not known:
            return None
        levels = torch.tensor(sorted(map(float, known)), dtype=torch.float64)
        by_level = {float(level): error for level, error in known.items()}
        ratios = torch.tensor([by_level[level] / level**2 for level in levels.tolist()], dtype=torch.float64)
        return (interpolated(self._logarithm(sigma), levels.log(), ratios.log()).exp() * sigma**2).to(sigma)

    def _logarithm(self, sigma: Tensor) -> Tensor:
        """Return that of noise levels in the units that the network works in."""
        return (sigma.double() / self.card.scale).clamp(min=1e-30).log()

    def with_card(self, **changes: Any) -> "Denoiser":
        """Return a denoiser that shares this one's network and has another card."""
        other = Denoiser.__new__(Denoiser)
        nn.Module.__init__(other)
        other.card, other.network = replace(self.card, **changes), self.network
        if other.card.network != self.card.network:
            raise ModelError("a card cannot give its denoiser another network")
        return other


class Bound(ABC):
    """A denoise function that knows a batch of signals besides: on a device, and cut along with what it is asked."""

    @property
    @abstractmethod
    def card(self) -> Card | None:
        """The card of the denoiser within, if that is one."""

    @abstractmethod
    def to(self, device: torch.device) -> "Bound":
        """Return it on a device."""

    @abstractmethod
    def cut(self, item: int, space: tuple[slice, ...]) -> "Bound":
        """Return the function for a part of space of one item of a batch of signals."""

    @abstractmethod
    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the mean, of the shape of `x`, whose batch may be a multiple of that of the signals it knows."""

    def part(self, item: int, space: tuple[slice, ...]) -> "Bound":
        """Return the function for a part of space as a signal of its own, that is not put together with others."""
        return self.cut(item, space)

    def settled(self, answer: Tensor) -> Tensor:
        """Return the mean of whole signals, put together from what parts that were cut have answered."""
        return answer


class Conditioned(Bound):
    """A conditional denoiser bound to one batch of observations: a denoise function for E[clean | x, y].

    Noise of `blind` and above says nothing of the signal: there x is not looked at, and the answer is E[clean | y].

    A batch of `x` may be a multiple of that of the observations, which are then taken in turn, as a whole each time.

    Where a model `keeps_means`, what is coarse is not the posterior's mean but the photograph's, in draws as well.
    """

    def __init__(
        self, denoiser: Denoiser, seen: Given, known: Tensor | None = None, *, whole: Tensor | None = None
    ) -> None:
        self.denoiser, self.seen = denoiser, seen
        self.known = known
        """Components of the clean signals that were observed without noise, and NaN elsewhere."""
        self.whole = whole
        """The observed images, where answers have from them what is coarse; None elsewhere, and in tiles."""

    @property
    def card(self) -> Card:
        """The card of the denoiser."""
        return self.denoiser.card

    @property
    def blind(self) -> Tensor:
        """``(batch,)``: noise levels, in the units of the values, at which x says nothing."""
        return BLIND * self.seen.scale * self.card.scale

    @property
    def is_worth_a_second_look(self) -> bool:
        """Whether the answer gets better if the network sees its first one: where pixels are erased."""
        return self.seen.values.ndim > 2 and not bool(self.seen.mask.all())

    def looking_again(self, through: Callable[["Conditioned"], Denoise] | None = None) -> "Conditioned":
        """Return the function that is shown its own first answer where pixels are erased; itself where none are.

        Parameters
        ----------
        through
            Makes of this function the one that is asked for the first answer, such as one in tiles.
        """
        if not self.is_worth_a_second_look:
            return self
        first = (through(self) if through else self)(torch.zeros_like(self.seen.values), self.blind)
        return self.refined(first)

    def refined(self, first: Tensor) -> "Conditioned":
        """Return the function that is shown a first answer, of the shape of the signals, where pixels are erased."""
        first = (first.to(self.seen.values) - self.card.offset) / self.card.scale
        return Conditioned(self.denoiser, self.seen.refined(first), self.known, whole=self.whole)

    def to(self, device: torch.device) -> "Conditioned":
        """Return it on a device."""
        known, whole = (None if each is None else each.to(device) for each in (self.known, self.whole))
        return Conditioned(self.denoiser.to(device), self.seen.to(torch.empty(0, device=device)), known, whole=whole)

    def cut(self, item: int, space: tuple[slice, ...]) -> "Conditioned":
        """Return the function for a part of space of one item of a batch of signals."""
        item %= len(self.seen.values)
        part = (slice(item, item + 1), slice(None), *space)
        known = None if self.known is None else self.known[part]
        return Conditioned(self.denoiser, self.seen.rows([item]).window(space), known)

    def part(self, item: int, space: tuple[slice, ...]) -> "Conditioned":
        """Return the function for a part of space as a signal of its own."""
        whole = None if self.whole is None else self.whole[(slice(item, item + 1), slice(None), *space)]
        cut = self.cut(item, space)
        return Conditioned(self.denoiser, cut.seen, cut.known, whole=whole)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return E[clean | x, y], of the shape of `x`, ``(batch, …)``; `sigma` as for a `Denoiser`."""
        items = [item % len(self.seen.values) for item in range(len(x))]
        answer = self.settled(self.denoiser(x, sigma, self.seen.rows(items).to(x)))
        if self.known is None:
            return answer
        known = self.known[items].to(answer)
        return torch.where(known.isnan(), answer, known)

    def settled(self, answer: Tensor) -> Tensor:
        """Return an answer with what is coarse as it was observed, where that is so."""
        if self.whole is None:
            return answer
        whole = self.whole.to(answer)
        if len(answer) != len(whole):
            whole = whole[[item % len(whole) for item in range(len(answer))]]
        return with_coarse(answer, whole)

    def expected_error(self, sigma: Tensor, channels: int) -> Tensor | None:
        """Return the mean squared error of the best guess by noise level; nothing where it is known exactly."""
        error = self.denoiser.expected_error(sigma, channels)
        if error is None or self.known is None:
            return error
        times = len(error) // len(self.known) if error.ndim else 1
        hidden = self.known.isnan().to(error.device)  # what is computed elsewhere need not be known there
        return error * hidden.repeat(max(times, 1), *(1,) * (self.known.ndim - 1))

    def inflation(self, sigma: Tensor) -> Tensor:
        """Return what noise is multiplied by on the way to a draw, as the card has it."""
        return self.denoiser.inflation(sigma)


def _looked_at(x: Tensor, sigma: Tensor, given: Given) -> Tensor:
    """Return `x`, or nothing where its noise hides everything."""
    shape = (-1, *(1,) * (x.ndim - 1))
    level = sigma.view(shape) if sigma.ndim == 1 else sigma
    return torch.where(level < 0.999 * BLIND * given.scale.view(shape), x, 0)


def interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly between values at rising places; beyond the first and the last, these stay."""
    at = at.clamp(float(places[0]), float(places[-1]))
    right = torch.searchsorted(places, at).clamp(1, max(len(places) - 1, 1))
    if len(places) == 1:
        return values[0].expand(at.shape)
    share = (at - places[right - 1]) / (places[right] - places[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
