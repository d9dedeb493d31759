"""A level: how strong a perturbation is, as one number or as a range that is drawn from for every item.

::

    0.1        the same for every item
    0..0.5     uniform between the two, drawn anew for every item of a batch

A field of a perturbation is annotated with the `Limits` its levels have to keep, ``Annotated[Level, Limits(0, 1)]``.
Parsing, command-line options and forms all derive from that one annotation.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unperturb.errors import UsageError


@dataclass(frozen=True)
class Range:
    """Everything between two numbers, both included.

    Raises
    ------
    UsageError
        Where `low` is above `high`, or one of them is not a number.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise UsageError(f"a range goes from low to high; got {self}")

    def __str__(self) -> str:
        return f"{written(self.low)}..{written(self.high)}"


Level: TypeAlias = float | Range


@dataclass(frozen=True)
class Limits:
    """What a level has to keep: `low` to `high`, whole numbers only where `whole`, not `low` itself where `above`."""

    low: float
    high: float = math.inf
    whole: bool = False
    above: bool = False

    def checked(self, level: Level) -> Level:
        """Return the level in plain floats, or in ints where it has to be whole.

        Raises
        ------
        UsageError
            Where the level, or an end of its range, is not a finite number within the limits.
        """
        if isinstance(level, Range):
            return Range(self._number(level.low), self._number(level.high))
        return self._number(level)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high < math.inf:
            return f"{kind} from {written(self.low)} to {written(self.high)}"
        return f"{kind} {'above' if self.above else 'of at least'} {written(self.low)}"

    def _number(self, value: float) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        inside = self.low < number if self.above else self.low <= number
        if not (inside and number <= self.high and math.isfinite(number)) or (self.whole and not number.is_integer()):
            raise UsageError(f"{self} is needed; got {written(value)}")
        return int(number) if self.whole else number


def draw(level: Level, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one real value for each item of the batch `like`.

    Parameters
    ----------
    level
        A number is repeated and takes nothing from the generator; a range is drawn from uniformly.
    like
        ``(batch, ...)``; gives the number of values, their type and their device.
    generator
        The source of randomness, on any device.

    Returns
    -------
    Tensor
        ``(batch,)``.
    """
    if not isinstance(level, Range):
        return torch.full(like.shape[:1], level, dtype=like.dtype, device=like.device)
    # In double precision, so that the same generator gives the same levels whatever the type of the values.
    share = torch.rand(like.shape[0], generator=generator, device=generator.device, dtype=torch.float64)
    return (level.low + (level.high - level.low) * share).clamp(max=level.high).to(like)


def draw_whole(level: Level, batch: int, generator: torch.Generator) -> Tensor:
    """Draw one whole number an item, every one from `low` to `high` with the same chance: ``(batch,)``, int64.

    The result lies on the generator's device, because it is there that it decides about further draws.
    """
    low, high = (int(level.low), int(level.high)) if isinstance(level, Range) else (int(level), int(level))
    if low == high:
        return torch.full((batch,), low, dtype=torch.int64, device=generator.device)
    return torch.randint(low, high + 1, (batch,), generator=generator, device=generator.device)


def written(level: Level) -> str:
    """Return the shortest text that reads back as exactly this level."""
    return str(level) if isinstance(level, Range) else repr(level).removesuffix(".0")


def lowest(level: Level) -> float:
    """Return the least value that a draw from the level can give."""
    return level.low if isinstance(level, Range) else level


def highest(level: Level) -> float:
    """Return the largest value that a draw from the level can give."""
    return level.high if isinstance(level, Range) else level
