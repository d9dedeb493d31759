"""Perturbations: the processes that turn a clean signal x into the y that was observed.

Each is a conditional distribution with its own randomness,

    y ~ p(y | x)          for example   y = x + sigma * n,   n ~ N(0, 1),

and a frozen dataclass whose fields say how strong it is. Called on a batch of clean signals it draws one y for each::

    damage = Gaussian(sigma=0.1) + Erase(fraction=Range(0.2, 0.8))       # left to right: noise first, then erasure
    values, mask, sigma = damage(clean, generator)
    str(damage)                                                          # gaussian:sigma=0.1 + erase:fraction=0.2..0.8
    either = damage | Blur(sigma=1.5)                                    # one of the two, drawn for every item

`values` always has the shape, type and device of `clean`, and `clean` is left as it was. Signals are tensors
``(batch, feature)`` or ``(batch, channel, *space)`` with one to three space dimensions; a *pixel* is one place in space
with all its channels. Levels are in the units of the values, lengths in pixels; a range is drawn from for every item.

All randomness comes from the generator that is handed in, which may live on another device than the values. One call
takes the draws for its whole batch from it, so an item's draw depends on its place in the batch; a caller whose results
must not depend on how items are batched calls once an item, with a generator seeded for that item.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import reduce
from typing import Annotated, ClassVar, NamedTuple, Protocol, get_args, get_type_hints

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.level import Level, Limits, Range, draw, draw_whole, written

Strength = Annotated[Level, Limits(0)]
Fraction = Annotated[Level, Limits(0, 1)]
Gain = Annotated[Level, Limits(0, above=True)]
Offset = Annotated[Level, Limits(-1e6, 1e6)]
Number = Annotated[Level, Limits(1, 10**6, whole=True)]


class Perturbed(NamedTuple):
    """What a perturbation made of a batch of clean signals.

    Attributes
    ----------
    values
        Same shape, type and device as the clean signals. Exactly 0 where `mask` says unobserved.
    mask
        None where every component is observed. Else boolean, True where observed: ``(batch, 1, *space)``, or
        ``(batch, feature)`` for vectors.
    sigma
        ``(batch,)``, standard deviation of the noise where every observed component is its clean value plus Gaussian
        noise of known level, 0 where it is the clean value itself; None for everything else.
    """

    values: Tensor
    mask: Tensor | None = None
    sigma: Tensor | None = None


class Perturbation(Protocol):
    """Anything that draws y given x, and can be followed by another of its kind."""

    mixes: bool = False
    """Whether a component of y depends on other components of x than its own pixel's."""

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        """Draw one perturbed signal for each clean one.

        Parameters
        ----------
        clean
            ``(batch, feature)`` or ``(batch, channel, *space)``, floating point.
        generator
            The source of all randomness, on any device.

        Raises
        ------
        UsageError
            Where the perturbation has no meaning for signals of this shape or type.
        """
        ...

    def __add__(self, other: "Perturbation") -> "Composition":
        """First this, then the other on what this has made."""
        return Composition((self, other))

    def __or__(self, other: "Perturbation") -> "Choice":
        """One of the two, drawn for every item."""
        return Choice((self, other))


@dataclass(frozen=True)
class Composition(Perturbation):
    """Several perturbations, each applied to what the one before has made.

    - What is erased stays erased: masks are joined, and later noise leaves the unobserved components at 0. Only a part
      that mixes pixels (blur, downsample, jpeg) ends a mask: after it no component is wholly observed or wholly not.
    - Gaussian parts add in quadrature, ``sigma**2 = sum of sigma_i**2``, whatever is erased before, between or after
      them. With any other part the whole is no longer Gaussian around the clean signal, and sigma is None.

    Compositions within `parts` are unfolded, so ``(a + b) + c == a + (b + c)``.
    """

    parts: tuple[Perturbation, ...]
    mixes: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _unfold(self)
        if any(isinstance(part, Choice) for part in self.parts):
            raise UsageError("a choice is between whole compositions, a + b | a + c; it cannot be a part of one")

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        """Draw from the first part, from the second given that, and so on."""
        values, mask = clean, None
        steps = []
        for part in self.parts:
            step = part(values, generator)
            steps.append(step)
            mask = _joined(None if part.mixes else mask, step.mask)
            values = step.values if mask is None else step.values.masked_fill(~mask, 0)
        return Perturbed(values, mask, _joint_sigma(steps))

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self.parts)


@dataclass(frozen=True)
class Choice(Perturbation):
    """One of several perturbations, drawn for every item, each with the same chance.

    An item whose perturbation erases nothing is wholly observed. The level of Gaussian noise is known where it is for
    all items of the batch. Choices within `parts` are unfolded.
    """

    parts: tuple[Perturbation, ...]
    mixes: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _unfold(self)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        """Draw which one it is for each item, and perturb it so."""
        which = self.drawn(len(clean), generator).tolist()
        made = [self.parts[number](clean[item : item + 1], generator) for item, number in enumerate(which)]
        values, masks, sigmas = zip(*made, strict=True)
        known = [sigma for sigma in sigmas if sigma is not None]
        return Perturbed(
            torch.cat(values), _stacked(clean, masks), torch.cat(known) if len(known) == len(made) else None
        )

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the number of a part for each of so many items: ``(count,)``."""
        return draw_whole(Range(0, len(self.parts) - 1), count, generator)

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.parts)


class Process(Perturbation, Protocol):
    """One named perturbation. Its dataclass fields are all that it has to be told.

    Raises
    ------
    UsageError
        On construction, where a field is outside its limits.
    """

    name: ClassVar[str]
    space: ClassVar[tuple[int, int]] = (0, 3)
    """The least and the most space dimensions for which it has a meaning; a vector has none."""

    def __post_init__(self) -> None:
        for key, limits in limits_of(type(self)).items():
            try:
                object.__setattr__(self, key, limits.checked(getattr(self, key)))
            except UsageError as error:
                raise UsageError(f"{self.name}: {key}: {error}") from None

    def __str__(self) -> str:
        levels = {key: getattr(self, key) for key in limits_of(type(self))}
        nothing = {entry.name for entry in fields(self) if entry.default == 0 and levels[entry.name] == 0}  # type: ignore[arg-type]
        return f"{self.name}:" + ",".join(
            f"{key}={written(level)}" for key, level in levels.items() if key not in nothing
        )

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        """Draw one perturbed signal for each clean one, once the perturbation is known to have a meaning for them."""
        self._check(clean)
        return self._draw(clean, generator)

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed: ...

    def _check(self, clean: Tensor) -> None:
        least, most = self.space
        if not least <= clean.ndim - 2 <= most:
            dimensions = f"{least}" if least == most else f"{least} to {most}"
            raise UsageError(
                f"{self.name} needs values (batch, channel, *space) with {dimensions} space dimensions; "
                f"got shape {tuple(clean.shape)}"
            )
        if not clean.is_floating_point():
            raise UsageError(f"{self.name} needs floating-point values; got {clean.dtype}")


def limits_of(kind: type[Process]) -> dict[str, Limits]:
    """Return the fields of a perturbation in their order, each with the limits its annotation states."""
    hints = get_type_hints(kind, include_extras=True)
    keys = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]  # every Process is a dataclass
    return {key: next(extra for extra in get_args(hints[key]) if isinstance(extra, Limits)) for key in keys}


@dataclass(frozen=True)
class Gaussian(Process):
    """Additive white Gaussian noise, ``y = x + sigma * n``: mean x, variance sigma²."""

    name: ClassVar[str] = "gaussian"
    sigma: Strength

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        sigma = draw(self.sigma, clean, generator)
        return Perturbed(clean + per_item(sigma, clean) * _normal(clean, generator), sigma=sigma)


@dataclass(frozen=True)
class Poisson(Process):
    """Counting noise, ``y = gain * Poisson(x / gain)``: mean x, variance gain * x.

    `gain` is the value of one count. A negative x has the rate 0 and gives 0.
    """

    name: ClassVar[str] = "poisson"
    gain: Gain

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        return Perturbed(_counted(clean, self.gain, generator))


@dataclass(frozen=True)
class PoissonGaussian(Process):
    """What a sensor does, ``y = offset + gain * Poisson((x - offset) / gain) + read * n``.

    Its mean is x, its variance gain * (x - offset) + read². `read` is the standard deviation of the read-out noise,
    `offset` the value of no light, a camera's black level. An x below it has the rate 0, and gives the offset.
    Source: Foi, Trimeche, Katkovnik and Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", 2008.
    """

    name: ClassVar[str] = "poisson-gaussian"
    gain: Gain
    read: Strength
    offset: Offset = 0.0

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        read = draw(self.read, clean, generator)
        offset = per_item(draw(self.offset, clean, generator), clean)
        counted = offset + _counted(clean - offset, self.gain, generator)
        return Perturbed(counted + per_item(read, clean) * _normal(clean, generator))


@dataclass(frozen=True)
class Speckle(Process):
    """Multiplicative noise, ``y = x * (1 + sigma * n)``: mean x, variance (sigma * x)²."""

    name: ClassVar[str] = "speckle"
    sigma: Strength

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        sigma = draw(self.sigma, clean, generator)
        return Perturbed(clean * (1 + per_item(sigma, clean) * _normal(clean, generator)))


@dataclass(frozen=True)
class Impulse(Process):
    """Salt and pepper: each component is, with the chance `fraction`, replaced by 0 or by 1, both equally likely.

    Channels are hit independently of each other, as in MATLAB's ``imnoise`` and scikit-image's ``random_noise``.
    Nothing says which components were hit, so there is no mask. Made for values in [0, 1].
    """

    name: ClassVar[str] = "impulse"
    fraction: Fraction

    def _draw(self, clean: Tensor, generator: torch.Generator) -> Perturbed:
        fraction = per_item(draw(self.fraction, clean, generator).float(), clean)
        chance, salt = (uniform(clean.shape, clean, generator) for _ in range(2))
        return Perturbed(torch.where(chance < fraction, (salt < 0.5).to(clean), clean))


def stacked(parts: Sequence[Perturbed]) -> Perturbed:
    """Return several batches as one; of all of them there is a mask, or of none, and so with sigma."""
    values, masks, sigmas = zip(*parts, strict=True)
    mask = None if masks[0] is None else torch.cat(masks)
    return Perturbed(torch.cat(values), mask, None if sigmas[0] is None else torch.cat(sigmas))


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value an item, ``(batch,)``, so that it broadcasts over that item."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def uniform(shape: torch.Size | tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw numbers between 0 and 1, on the device of a tensor."""
    # Always float32: the few digits of half precision would show in the fractions that these numbers decide about.
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32).to(like.device)


def _counted(clean: Tensor, gain: Level, generator: torch.Generator) -> Tensor:
    """Draw gain * Poisson(clean / gain), in float32 at least: half precision holds no large count and no small gain."""
    wide = clean.to(generator.device, torch.promote_types(clean.dtype, torch.float32))
    unit = per_item(draw(gain, wide, generator), wide)
    return (unit * torch.poisson(wide.clamp(min=0) / unit, generator)).to(clean)


def alternatives(perturbation: Perturbation) -> tuple[Perturbation, ...]:
    """Return what a perturbation chooses from: the parts of a `Choice`, or itself alone."""
    return perturbation.parts if isinstance(perturbation, Choice) else (perturbation,)


def _unfold(whole: "Composition | Choice") -> None:
    """Settle the parts of a composition or a choice, and what is true of them all."""
    flat: list[Perturbation] = []
    for part in whole.parts:
        flat.extend(part.parts if isinstance(part, Composition | Choice) and type(part) is type(whole) else [part])
    if len(flat) < 2:
        raise UsageError(f"a {type(whole).__name__.lower()} needs at least two perturbations")
    object.__setattr__(whole, "parts", tuple(flat))
    object.__setattr__(whole, "mixes", any(part.mixes for part in flat))


def _stacked(clean: Tensor, masks: Sequence[Tensor | None]) -> Tensor | None:
    """Join the masks of single items; an item without one is wholly observed."""
    if all(mask is None for mask in masks):
        return None
    shape = clean.shape[1:] if clean.ndim == 2 else (1, *clean.shape[2:])
    everything = torch.ones(1, *shape, dtype=torch.bool, device=clean.device)
    return torch.cat([everything if mask is None else mask for mask in masks])


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _joint_sigma(steps: list[Perturbed]) -> Tensor | None:
    """Add Gaussian parts in quadrature, erasures having none; None where a part is neither."""
    sigmas = [step.sigma for step in steps if step.sigma is not None]
    return reduce(torch.hypot, sigmas) if len(sigmas) == len(steps) else None
